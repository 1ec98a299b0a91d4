"""Genes against the variants in their windows: the null's γ for all pairs, γ estimated again where it matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from annlmm.model.association import COLLINEAR, OK
from annlmm.model.cached import cached_property
from annlmm.model.donor_space import DonorSpace
from annlmm.model.eqtl import EqtlGenes, NullTests, PairTests, pair_tests
from annlmm.model.eqtl_permutation import NONE as NO_PERMUTATION
from annlmm.model.eqtl_permutation import GenePermutation, Permutations
from annlmm.model.eqtl_variants import VariantBlock
from annlmm.model.exact import ExactScan
from annlmm.model.rotation import Rotated
from annlmm.model.space import RemlSpace

if TYPE_CHECKING:
    from annlmm.model.refit import RefitSpace

Float = NDArray[np.float64]
Index = NDArray[np.intp]

VARIANCES = ("null", "screen", "refit")
# A product over the union of the windows of several genes is as fast as twice its useful part, gene by gene.
WASTE = 2.0
MOST_GENES = 64


@dataclass(frozen=True)
class Windows:
    """Genes in the order of their places, with the variants of each among all variants in the order of theirs.

    Attributes
    ----------
    gene
        Numbers of the genes.
    low, high
        Their variants are low … high − 1; neither decreases.
    """

    gene: Index
    low: Index
    high: Index

    @property
    def n_pairs(self) -> int:
        return int((self.high - self.low).sum())

    def of(self, genes: Index) -> Windows:
        """Those of some genes."""
        chosen = np.isin(self.gene, genes)
        return Windows(self.gene[chosen], self.low[chosen], self.high[chosen])

    def take(self, start: int, stop: int) -> Windows:
        return Windows(self.gene[start:stop], self.low[start:stop], self.high[start:stop])


def make_windows(
    gene_chrom: Index, gene_pos: Index, genes: Index, chrom: Index, pos: Index, window: int
) -> tuple[Windows, Index]:
    """Windows of ± `window` around genes, over the placed variants, and these in the order of their places.

    Parameters
    ----------
    gene_chrom, gene_pos
        Of all genes.
    genes
        Those to be tested, all placed.
    chrom, pos
        Of all variants; −1 unknown.
    """
    placed = np.flatnonzero((chrom >= 0) & (pos >= 0))
    order = placed[np.lexsort((pos[placed], chrom[placed]))]
    genes = genes[np.lexsort((gene_pos[genes], gene_chrom[genes]))]
    starts = np.searchsorted(chrom[order], np.arange(int(chrom.max(initial=-1)) + 2))
    low, high = np.zeros(genes.size, dtype=np.intp), np.zeros(genes.size, dtype=np.intp)
    for number in np.unique(gene_chrom[genes]):
        here = np.flatnonzero(gene_chrom[genes] == number)
        first, last = (starts[number], starts[number + 1]) if number + 1 < starts.size else (order.size, order.size)
        places, centre = pos[order[first:last]], gene_pos[genes[here]]
        low[here] = first + np.searchsorted(places, centre - window, side="left")
        high[here] = first + np.searchsorted(places, centre + window, side="right")
    return Windows(genes, low, high), order


def tiles(windows: Windows, most: int) -> Iterator[Windows]:
    """Runs of genes whose windows cover at most `most` variants together, unless one alone does."""
    start = 0
    for stop in range(1, windows.gene.size + 1):
        if stop == windows.gene.size or windows.high[stop] - windows.low[start] > most:
            yield windows.take(start, stop)
            start = stop


def runs(windows: Windows) -> Iterator[Windows]:
    """Shorter runs, over whose union of windows one product is worth it."""
    start, useful = 0, 0
    for stop in range(1, windows.gene.size + 1):
        useful += int(windows.high[stop - 1] - windows.low[stop - 1])
        if stop < windows.gene.size and stop - start < MOST_GENES:
            more = useful + int(windows.high[stop] - windows.low[stop])
            if (windows.high[stop] - windows.low[start]) * (stop + 1 - start) <= WASTE * more:
                continue
        yield windows.take(start, stop)
        start, useful = stop, 0


@dataclass(frozen=True)
class Pairs:
    """Tests of pairs, one after the other.

    Attributes
    ----------
    gene, variant
        Their numbers.
    beta, standard_error, statistic, df, log_p_value
        As of `PairTests`.
    maf, n
        Minor allele frequency and number of the donors with a call.
    status
        Index into `association.STATUS`.
    """

    gene: Index
    variant: Index
    beta: Float
    standard_error: Float
    statistic: Float
    df: Float
    log_p_value: Float
    maf: Float
    n: Index
    status: NDArray[np.int8]

    @property
    def size(self) -> int:
        return self.gene.size

    def take(self, chosen: Index | slice) -> Pairs:
        return Pairs(*(getattr(self, f.name)[chosen] for f in fields(self)))

    @staticmethod
    def join(parts: list[Pairs]) -> Pairs:
        return Pairs(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Pairs)))

    @staticmethod
    def empty() -> Pairs:
        nothing = np.zeros(0)
        counts = nothing.astype(np.intp)
        return Pairs(
            counts, counts, nothing, nothing, nothing, nothing, nothing, nothing, counts, nothing.astype(np.int8)
        )


@dataclass(frozen=True)
class Mapper:
    """What every pair is tested with.

    Attributes
    ----------
    space
        REML space of the null.
    donors
        Coordinates of the donors.
    grouped
        Whether degrees of freedom are those of the donors.
    variance
        'null', 'screen' or 'refit'.
    threshold
        p-value below which 'screen' refits.
    """

    space: RemlSpace
    donors: DonorSpace
    grouped: bool
    variance: str
    threshold: float

    def null_tests(self, genes: EqtlGenes) -> NullTests:
        return NullTests(self.donors, genes, self.space.df_residual, grouped=self.grouped)

    def cis(
        self, genes: EqtlGenes, windows: Windows, block: VariantBlock, permutations: Permutations | None = None
    ) -> Iterator[tuple[Pairs, GenePermutation]]:
        """Every gene of a run against its window, in turn, and its permutations where they are wanted.

        Parameters
        ----------
        genes
            The genes of `windows`.
        block
            Variants that cover them, numbered as there.
        """
        low, high = (np.searchsorted(block.index, edge) for edge in (windows.low, windows.high))
        first = int(low.min(initial=0))
        block = block.slice(first, int(high.max(initial=0)))
        low, high = low - first, high - first
        tests = self.null_tests(genes)
        ratios = tests.ratios(block.x, block.norm)
        permuted = None if permutations is None else permutations.denominators(block)
        for g, gene in enumerate(windows.gene):
            part = slice(int(low[g]), int(high[g]))
            own, num, den = (
                block.slice(part.start, part.stop),
                ratios.num[g, part],
                ratios.den[min(g, len(ratios.den) - 1), part],
            )
            nu = None if ratios.nu is None else ratios.nu[g, part]
            found = pair_tests(num, den, nu, tests.rss[g], self.space.df_residual)
            permutation = NO_PERMUTATION
            if permutations is not None:
                shared = None if permuted is None else permuted[part]
                permutation = permutations.test(tests, g, own, num, den, shared)
            yield self.settled(genes.take(slice(g, g + 1)), int(gene), found, own), permutation

    def settled(self, gene: EqtlGenes, number: int, found: PairTests, block: VariantBlock) -> Pairs:
        """The tests of one gene as they are reported: γ estimated again where `variance` has it so."""
        status = np.where(np.isnan(block.norm), COLLINEAR, OK).astype(np.int8)
        values = [found.beta, found.standard_error, found.statistic, found.df, found.log_p_value]
        for value in values:
            value[status != OK] = np.nan
        again = self._again(found.log_p_value, status)
        if again.size:
            self._refit(gene, block, again, values, status)
        beta, standard_error, statistic, df, log_p = values
        return Pairs(
            np.full(block.size, number), block.index, beta, standard_error, statistic, df, log_p, block.maf, block.n_called, status
        )  # fmt: skip

    def _again(self, log_p: Float, status: NDArray[np.int8]) -> Index:
        if not self.donors.k:
            return np.zeros(0, dtype=np.intp)
        if self.variance == "refit":
            return np.flatnonzero(status == OK)
        # NaN: the null's γ has absorbed the effect, whatever was asked for.
        lost = np.isnan(log_p)
        below = log_p < np.log(self.threshold) if self.variance == "screen" else False
        return np.flatnonzero((lost | below) & (status == OK))

    def _refit(
        self, gene: EqtlGenes, block: VariantBlock, chosen: Index, values: list[Float], status: NDArray[np.int8]
    ) -> None:
        """γ estimated again with each of the chosen variants, in place (`exact`)."""
        k, x = self.donors.k, block.x[chosen]
        result = self.exact(gene).test_rotated(
            Rotated(
                v=x,
                norm=block.norm[chosen],
                outside=np.einsum("mk,mk->m", x[:, k:], x[:, k:]),
                cross=x[:, k:] @ gene.y[k:],
                grouped=np.full(chosen.size, self.grouped),
                status=np.zeros(chosen.size, dtype=np.int8),
            )
        )
        t = np.copysign(np.sqrt(result.statistic), result.beta)
        log_p = -result.neg_log10_p_value * np.log(10.0)
        for value, new in zip(values, (result.beta, result.standard_error, t, result.df, log_p), strict=True):
            value[chosen] = new
        status[chosen] = result.status

    def exact(self, gene: EqtlGenes) -> ExactScan:
        """The refit of one gene."""
        k, y = self.donors.k, gene.y[:, 0]
        return ExactScan(self.space, self.refit_space.refitter(y[:k], float(gene.rest[0] + y[k:] @ y[k:])), np.nan)

    @cached_property
    def refit_space(self) -> RefitSpace:
        """What the refits of all genes share."""
        from annlmm.model.refit import make_refit_space  # compiles

        return make_refit_space(self.space, reml=True)
