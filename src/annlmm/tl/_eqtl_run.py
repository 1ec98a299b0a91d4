"""The pairs: cis windows gene by gene, or every gene against every variant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from annlmm._settings import settings
from annlmm._slots.eqtl import PairSink
from annlmm.model.eqtl import EqtlGenes
from annlmm.model.eqtl_cis import Mapper, Pairs, Windows, runs, tiles
from annlmm.model.eqtl_conditional import Permute, Signal, Step, independent_signals
from annlmm.model.eqtl_genes import GeneLevel
from annlmm.model.eqtl_permutation import GenePermutation, Permutations
from annlmm.model.eqtl_trans import TransSummary, TransTests
from annlmm.model.eqtl_variants import VariantBlock
from annlmm.model.parallel import map_blocks
from annlmm.tl._eqtl_genotype import Genotypes

Index = NDArray[np.intp]

# Genes and variants that are tested at a time where all pairs are; several blocks to a thread.
GENES, VARIANTS = 1024, (256, 4096)


@dataclass(frozen=True)
class Run:
    """Genes, their windows and the variants in them."""

    genes: EqtlGenes
    windows: Windows
    block: VariantBlock


def run_cis(
    mapper: Mapper,
    genes: EqtlGenes,
    place: Index,
    windows: Windows,
    genotypes: Genotypes,
    permutations: Permutations | None,
    sink: PairSink,
    level: GeneLevel,
) -> None:
    """Test every gene of `windows` against its variants, into `sink` and `level`.

    Parameters
    ----------
    genes
        The genes that are mapped.
    place
        Where a gene's number (a column of `expression`) is among them.
    """

    def items() -> Iterator[Run]:
        for tile in tiles(windows, genotypes.most):
            low, high = int(tile.low.min()), int(tile.high.max())
            block = genotypes.between(low, high)
            for run in runs(tile):
                first, last = np.searchsorted(block.index, [run.low.min(), run.high.max()])
                yield Run(genes.take(place[run.gene]), run, block.slice(int(first), int(last)))

    def test(run: Run) -> list[tuple[Pairs, GenePermutation]]:
        return list(mapper.cis(run.genes, run.windows, run.block, permutations))

    with tqdm(total=windows.gene.size, desc="map_eqtl", unit=" genes", disable=not settings.progress, delay=3.0) as bar:
        for found in map_blocks(test, items(), settings.threads):
            for pairs, permutation in found:
                pairs = numbered(pairs, genotypes.order)
                if pairs.size:
                    level.put(int(pairs.gene[0]), pairs, permutation)
                sink.add(pairs)
            bar.update(len(found))


def run_conditional(
    mapper: Mapper,
    genes: EqtlGenes,
    place: Index,
    windows: Windows,
    genotypes: Genotypes,
    permute: Permute,
    q: NDArray[np.float64] | None,
    threshold: float,
    *,
    reml: bool,
) -> list[list[Signal]]:
    """Independent signals of every gene of `windows`, as of `independent_signals`."""

    def items() -> Iterator[tuple[int, Step]]:
        for tile in tiles(windows, genotypes.most):
            block = genotypes.between(int(tile.low.min()), int(tile.high.max()))
            for gene, low, high in zip(tile.gene, tile.low, tile.high, strict=True):
                first, last = np.searchsorted(block.index, [low, high])
                own, number = genes.take(place[gene : gene + 1]), int(gene)
                yield number, Step(mapper, own, block.slice(int(first), int(last)), q)

    def select(item: tuple[int, Step]) -> list[Signal]:
        return independent_signals(item[1], item[0], permute, threshold, reml=reml)

    total = windows.gene.size
    with tqdm(total=total, desc="map_eqtl: signals", unit=" genes", disable=not settings.progress, delay=3.0) as bar:
        found = []
        for signals in map_blocks(select, items(), settings.threads):
            found.append([replace(signal, pair=numbered(signal.pair, genotypes.order)) for signal in signals])
            bar.update(1)
    return found


def run_trans(
    mapper: Mapper,
    genes: EqtlGenes,
    numbers: Index,
    genotypes: Genotypes,
    sink: PairSink,
    level: GeneLevel,
) -> TransSummary:
    """Test every gene against every variant of `genotypes`; `numbers` are those of the genes in `expression`."""
    chunks = [
        TransTests(mapper, genes.take(slice(start, start + GENES)), numbers[start : start + GENES])
        for start in range(0, numbers.size, GENES)
    ]
    total = TransSummary.empty(level.n_variants.size)
    m = genotypes.order.size
    width = int(np.clip(m // (2 * settings.threads), *VARIANTS))

    def blocks() -> Iterator[VariantBlock]:
        for start in range(0, m, width):
            yield genotypes.between(start, min(start + width, m))

    def test(block: VariantBlock) -> tuple[list[Pairs], TransSummary]:
        summary = TransSummary.empty(level.n_variants.size)
        return [pairs for chunk in chunks for pairs in chunk(block, summary)], summary

    with tqdm(total=m, desc="map_eqtl", unit=" variants", disable=not settings.progress, delay=3.0) as bar:
        for kept, summary in map_blocks(test, blocks(), settings.threads):
            total.add(summary)
            for pairs in kept:
                sink.add(pairs := numbered(pairs, genotypes.order))
                best = int(np.argmin(pairs.log_p_value))
                gene = int(pairs.gene[0])
                if not pairs.log_p_value[best] >= level.log_p_value[gene]:
                    level.put_best(gene, pairs.take(slice(best, best + 1)))
            bar.update(width)
    total.into(level, genotypes.order)
    return total


def numbered(pairs: Pairs, order: Index) -> Pairs:
    """With variants numbered as columns of `genotype`."""
    return Pairs(**(vars(pairs) | {"variant": order[pairs.variant]}))
