"""All genes against all variants: pairs below a threshold are kept, of the others counts and λ_GC.

p-values are needed of few pairs. All get z² = ν log(1 + t²/ν) ((8ν+1)/(8ν+3))² (Wallace 1959), which has the χ²₁ quantile of
their p to 1e-3 at its median for ν ≥ 8, and below it the more so. z²/χ² at a given p increases with ν: pairs below
z²(t_crit(ν), ν) at a gene's smallest ν cannot have p < threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, stdtrit

from annlmm.model.eqtl import EqtlGenes, NullTests, pair_tests
from annlmm.model.eqtl_cis import Mapper, Pairs
from annlmm.model.eqtl_genes import GeneLevel
from annlmm.model.eqtl_variants import VariantBlock

Float = NDArray[np.float64]
Index = NDArray[np.intp]

# Pairs at a time: a few arrays of them stay in cache.
TILE = 2**17
BINS, HIGHEST = 4096, 16.0
MEDIAN = float(chdtri(1.0, 0.5))
BEST = ("variant", "beta", "standard_error", "statistic", "df", "log_p_value", "maf")


@dataclass
class TransSummary:
    """What is left of pairs that are not kept.

    Attributes
    ----------
    histogram
        Of z², `BINS` of width HIGHEST/BINS, the last one open.
    n_tests
        Per gene.
    best_score, best
        Per gene, the largest z² and its pair: what `BEST` names × G.
    """

    histogram: NDArray[np.int64]
    n_tests: Index
    best_score: Float
    best: Float

    @staticmethod
    def empty(n_genes: int) -> TransSummary:
        return TransSummary(
            np.zeros(BINS, dtype=np.int64),
            np.zeros(n_genes, dtype=np.intp),
            np.full(n_genes, -1.0),
            np.full((len(BEST), n_genes), np.nan),
        )

    def add(self, other: TransSummary) -> None:
        """What other variants have left."""
        self.histogram += other.histogram
        self.n_tests += other.n_tests
        better = other.best_score > self.best_score
        self.best_score[better], self.best[:, better] = other.best_score[better], other.best[:, better]

    def into(self, level: GeneLevel, order: Index) -> None:
        """Numbers of tests, and the best variants of genes none of whose pairs was kept; `order` numbers the variants."""
        level.n_variants[:] = self.n_tests
        genes = np.flatnonzero((self.n_tests > 0) & np.isnan(level.log_p_value))
        level.variant[genes] = order[self.best[0, genes].astype(np.intp)]
        for name, values in zip(BEST[1:], self.best[1:, genes], strict=True):
            getattr(level, name)[genes] = values

    @property
    def lambda_gc(self) -> float:
        """The median of the test statistics, as χ²₁, over its expectation."""
        total = self.histogram.sum()
        if not total:
            return float("nan")
        cumulative = np.concatenate([[0], np.cumsum(self.histogram)])
        i = int(np.searchsorted(cumulative, total / 2)) - 1
        within = (total / 2 - cumulative[i]) / self.histogram[i]
        return float((i + within) * HIGHEST / BINS / MEDIAN)


class TransTests:
    """Some genes, ready for blocks of variants."""

    def __init__(self, mapper: Mapper, genes: EqtlGenes, numbers: Index) -> None:
        self.mapper, self.genes, self.numbers = mapper, genes, numbers
        self.tests: NullTests = mapper.null_tests(genes)

    def __call__(self, block: VariantBlock, summary: TransSummary) -> list[Pairs]:
        """Pairs below the threshold; the others go into the summary."""
        width = max(1, TILE // self.tests.size)
        kept = []
        for start in range(0, block.size, width):
            kept += self._tile(block.slice(start, min(start + width, block.size)), summary)
        return kept

    def _tile(self, block: VariantBlock, summary: TransSummary) -> list[Pairs]:
        tests, df_residual = self.tests, self.mapper.space.df_residual
        good = np.isfinite(block.norm)
        if not good.all():
            chosen = np.flatnonzero(good)
            block = VariantBlock(
                block.index[chosen],
                block.x[chosen],
                block.norm[chosen],
                block.maf[chosen],
                block.n_called[chosen],
                None,
            )
        if not block.size:
            return []
        ratios = tests.ratios(block.x, block.norm)
        score = ratios.num * ratios.num
        score /= ratios.den
        score /= tests.rss[:, None]
        if ratios.nu is None:
            nu: Float | float = float(df_residual - 1)
            lowest = np.full(tests.size, nu)
        else:
            nu, lowest = ratios.nu, ratios.nu.min(axis=1)
            score *= df_residual / (1.0 + nu)
        # What the null's γ has absorbed (x ≥ 1) is infinite.
        np.minimum(score, 1.0, out=score)
        np.negative(score, out=score)
        with np.errstate(divide="ignore"):
            np.log1p(score, out=score)
        score *= -nu * ((8.0 * nu + 1.0) / (8.0 * nu + 3.0)) ** 2
        summary.histogram += np.bincount(
            np.minimum(score.ravel() * (BINS / HIGHEST), BINS - 1).astype(np.intp), minlength=BINS
        )
        summary.n_tests[self.numbers] += block.size
        limit = _score_at(self.mapper.threshold, lowest) * (1.0 - 1e-9)
        kept = []
        strongest = score.max(axis=1)
        for g in np.flatnonzero(strongest >= limit):
            chosen = np.flatnonzero(score[g] >= limit[g])
            kept.append(self._pairs(int(g), chosen, block, ratios.num, ratios.den, ratios.nu))
        better = np.flatnonzero(strongest > summary.best_score[self.numbers])
        self._best(better, score[better].argmax(axis=1), block, ratios.num, ratios.den, ratios.nu, summary)
        summary.best_score[self.numbers[better]] = strongest[better]
        return [pairs for pairs in kept if pairs.size]

    def _pairs(self, g: int, chosen: Index, block: VariantBlock, num: Float, den: Float, nu: Float | None) -> Pairs:
        """The tests of one gene's candidates, refitted where asked for; those below the threshold."""
        found = pair_tests(
            num[g, chosen], den[min(g, len(den) - 1), chosen], None if nu is None else nu[g, chosen], self.tests.rss[g],
            self.mapper.space.df_residual,
        )  # fmt: skip
        part = VariantBlock(
            block.index[chosen], block.x[chosen], block.norm[chosen], block.maf[chosen], block.n_called[chosen], None
        )
        pairs = self.mapper.settled(self.genes.take(slice(g, g + 1)), int(self.numbers[g]), found, part)
        return pairs.take(np.flatnonzero(pairs.log_p_value < np.log(self.mapper.threshold)))

    def _best(
        self,
        genes: Index,
        at: Index,
        block: VariantBlock,
        num: Float,
        den: Float,
        nu: Float | None,
        summary: TransSummary,
    ) -> None:
        """The strongest pair of each of these genes at the null's γ."""
        rows = np.minimum(genes, len(den) - 1)
        found = pair_tests(
            num[genes, at], den[rows, at], None if nu is None else nu[genes, at], self.tests.rss[genes],
            self.mapper.space.df_residual,
        )  # fmt: skip
        test = found.beta, found.standard_error, found.statistic, found.df, found.log_p_value
        summary.best[:, self.numbers[genes]] = np.stack([block.index[at].astype(np.float64), *test, block.maf[at]])


def _score_at(threshold: float, nu: Float) -> Float:
    """z² of the t that has this two-sided p."""
    t = stdtrit(nu, threshold / 2.0)
    return nu * np.log1p(t * t / nu) * ((8.0 * nu + 1.0) / (8.0 * nu + 3.0)) ** 2
