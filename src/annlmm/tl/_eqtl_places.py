"""Where genes and variants lie, which pairs that makes, and what became of each gene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import settings
from annlmm._slots.eqtl import NO_VARIANTS, UNPLACED
from annlmm._slots.pair import Genes, Variants, gene_table, share_chromosomes, variant_table
from annlmm.model.association import BOUNDARY, NOT_CONVERGED, OK
from annlmm.model.eqtl_cis import Windows, make_windows
from annlmm.model.eqtl_genes import GeneLevel

Index = NDArray[np.intp]

# Of a pair in a table, its parts and what is made of them on the way.
PAIR_BYTES = 250


def place_both(expression: AnnData, genotype: AnnData, *, trans: bool) -> tuple[Genes, Variants, str]:
    """Both tables over one list of chromosomes, and what has no place there."""
    genes, variants = gene_table(expression, positions=not trans), variant_table(genotype, positions=not trans)
    if not trans or set(genes.chromosomes) & set(variants.chromosomes):
        return share_chromosomes(genes, variants)
    chromosomes = tuple(dict.fromkeys([*variants.chromosomes, *genes.chromosomes]))
    return genes.on(chromosomes), variants.on(chromosomes), ""


def cis_windows(genes: Genes, variants: Variants, columns: Index, window: int | None) -> tuple[Windows, Index]:
    """Of those of `columns` that have a place, and the variants in their order; none, and all as they are, without a window."""
    if window is None:
        nothing = np.zeros(0, dtype=np.intp)
        return Windows(nothing, nothing, nothing), np.arange(variants.chrom.size)
    placed = columns[genes.placed[columns]]
    chrom = np.where(variants.placed, variants.chrom, -1)
    return make_windows(genes.chrom, genes.tss, placed, chrom, variants.pos, window)


def check_pairs(n_pairs: int, path: Path | None) -> None:
    """Refuse a table beyond memory before it is made."""
    if path is None and n_pairs * PAIR_BYTES > settings.kernel_memory:
        raise MemoryError(
            f"{n_pairs} pairs take up to {n_pairs * PAIR_BYTES / 2**30:.1f} GiB, more than al.settings.kernel_memory "
            f"({settings.kernel_memory / 2**30:.1f} GiB); write them to a file with output='pairs.parquet', or use a smaller window"
        )


def gene_status(
    status: NDArray[np.int8], genes: Genes, level: GeneLevel, columns: Index, *, trans: bool
) -> NDArray[np.int8]:
    """Of `columns`: that of the null fit, or why a gene with a fit was not tested."""
    out = status.copy()
    idle = np.isin(status, (OK, BOUNDARY, NOT_CONVERGED)) & (level.n_variants[columns] == 0)
    out[idle] = NO_VARIANTS
    if not trans:
        out[idle & ~genes.placed[columns]] = UNPLACED
    return out
