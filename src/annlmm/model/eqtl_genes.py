"""From the pairs of a gene to the gene: its best variant, its p-values, and the false discovery rate over genes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from annlmm.model.combine import cauchy_combination
from annlmm.model.eqtl_cis import Pairs
from annlmm.model.eqtl_permutation import NONE, GenePermutation

Float = NDArray[np.float64]
Index = NDArray[np.intp]

SMALLEST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class GeneLevel:
    """G genes; NaN where there is no test.

    Attributes
    ----------
    n_variants
        Variants that were tested.
    variant
        The best one's number, −1 where there is none.
    beta, standard_error, statistic, df, log_p_value, maf
        Its test.
    p_acat
        All tests of the gene combined.
    p_permutation, p_beta, permutation_df, beta_shape1, beta_shape2
        As of `GenePermutation`.
    """

    n_variants: Index
    variant: Index
    beta: Float
    standard_error: Float
    statistic: Float
    df: Float
    log_p_value: Float
    maf: Float
    p_acat: Float
    p_permutation: Float
    p_beta: Float
    permutation_df: Float
    beta_shape1: Float
    beta_shape2: Float

    @staticmethod
    def empty(size: int) -> GeneLevel:
        values = {f.name: np.full(size, np.nan) for f in fields(GeneLevel)}
        values["n_variants"], values["variant"] = np.zeros(size, dtype=np.intp), np.full(size, -1)
        return GeneLevel(**values)

    def put(self, gene: int, pairs: Pairs, permutation: GenePermutation = NONE) -> None:
        """The tests of one gene."""
        tested = np.isfinite(pairs.log_p_value)
        self.n_variants[gene] = tested.sum()
        if not tested.any():
            return
        self.put_best(gene, pairs.take(slice(best := int(np.nanargmin(pairs.log_p_value)), best + 1)))
        self.p_acat[gene] = cauchy_combination(np.maximum(np.exp(pairs.log_p_value), SMALLEST))
        self.p_permutation[gene], self.p_beta[gene] = permutation.p_permutation, permutation.p_beta
        self.permutation_df[gene] = permutation.df
        self.beta_shape1[gene], self.beta_shape2[gene] = permutation.shape1, permutation.shape2

    def put_best(self, gene: int, best: Pairs) -> None:
        """The best variant of one gene (one pair)."""
        for name in ("variant", "beta", "standard_error", "statistic", "df", "log_p_value", "maf"):
            getattr(self, name)[gene] = getattr(best, name)[0]
