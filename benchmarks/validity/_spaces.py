"""Kernels of three kinds, and responses drawn straight into the REML space of a null model.

There y has k independent coordinates of variance τ²(1+γμ) and, in the n − p − k dimensions outside, a sum of squares τ²χ²:
a phenotype costs k random numbers, and millions of them are fitted by `responses.fit_responses` in batches.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

import annlmm as al
from annlmm.model.basis import Basis, DenseBasis, GroupBasis
from annlmm.model.design import Design, make_design
from annlmm.model.eigen import from_factor, from_kernel
from annlmm.model.null import NullModel
from annlmm.model.responses import Coordinates

Float = NDArray[np.float64]


def group_sizes(number: int, rng: np.random.Generator, median: float = 8.0) -> NDArray[np.intp]:
    """Rows per group, lognormal within [2, 5 × the median]."""
    return np.clip(rng.lognormal(np.log(median), 0.7, number), 2, 5 * median).astype(np.intp)


def groups(sizes: NDArray[np.intp]) -> GroupBasis:
    return GroupBasis(np.repeat(np.arange(sizes.size), sizes))


@cache
def relatedness(n: int, variants: int = 3000, family: int = 3) -> DenseBasis:
    """The GRM of n donors in families and five populations (full rank but for its centring), scaled as `al.pp.kernel_grm` does."""
    adata = al.datasets.gwas_cohort(n_obs=n, n_vars=variants, family_size=family, rng=n)
    al.pp.kernel_grm(adata, min_maf=0)
    spectrum = from_kernel(al.get.kernel(adata).to_numpy())
    return DenseBasis(spectrum.u, spectrum.eigenvalues, centered=True)


def low_rank(n: int, rank: int, rng: np.random.Generator) -> DenseBasis:
    """K = FFᵀ of a standardised embedding of `rank` columns whose variances fall off, mean diagonal 1."""
    factor = rng.standard_normal((n, rank)) / np.sqrt(1.0 + np.arange(rank))
    factor -= factor.mean(axis=0)
    spectrum = from_factor(factor * np.sqrt(n / np.sum(factor**2)))
    return DenseBasis(spectrum.u, spectrum.eigenvalues)


def covariates(n: int, p: int, rng: np.random.Generator) -> Design:
    """The constant and p − 1 covariates of the rows."""
    return make_design(np.column_stack([np.ones(n), rng.standard_normal((n, p - 1))]))


def null_model(basis: Basis, p: int, rng: np.random.Generator, *, seed: int = 0) -> NullModel:
    return NullModel(covariates(basis.n, p, rng), basis, seed=seed)


def gamma_of(h_sq: float) -> float:
    return h_sq / (1.0 - h_sq)


def draw(model: NullModel, h_sq: float, number: int, rng: np.random.Generator) -> Coordinates:
    """Responses of σ² = γ, τ² = 1, in the REML space."""
    space = model.space
    v = rng.standard_normal((space.k, number))
    v *= np.sqrt(1.0 + gamma_of(h_sq) * space.mu)[:, None]
    outside = space.df_residual - space.k
    rest = rng.chisquare(outside, number) if outside else np.zeros(number)
    return Coordinates(v, rest, np.zeros(number, dtype=np.int8))
