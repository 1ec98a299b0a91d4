"""Independent signals of a gene: forward selection, each step with the variants selected before among the covariates.

A covariate that is constant within donors changes the coordinates of the donors and nothing else. With s̃ its coordinates and C an
orthonormal basis of what is orthogonal to it,

    Cᵀ diag(μ) C = L diag(μ′) Lᵀ,    x̃ ← LᵀCᵀx̃,    ỹ ← LᵀCᵀỹ,    n − p ← n − p − 1,

is the REML space with s among the covariates: no step depends on the number of cells. γ is estimated again at each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from annlmm.model.combine import cauchy_combination
from annlmm.model.design import COLLINEAR_TOLERANCE
from annlmm.model.donor_space import DonorSpace
from annlmm.model.eqtl import EqtlGenes, finite_gamma
from annlmm.model.eqtl_cis import Mapper, Pairs, Windows
from annlmm.model.eqtl_genes import SMALLEST
from annlmm.model.eqtl_permutation import Permutations
from annlmm.model.eqtl_variants import VariantBlock
from annlmm.model.profile import Profile
from annlmm.model.search import bounded_minimum
from annlmm.model.space import RemlSpace

Float = NDArray[np.float64]

MOST_SIGNALS = 20
# The gene that the threshold comes from is tested again, in products of another shape.
ROUNDING = 1e-9
# From the coordinates of the donors and what of the fixed effects is permuted with labels (D × p) to the permutations.
Permute = Callable[[DonorSpace, Float | None], Permutations | None]


@dataclass(frozen=True)
class Signal:
    """One variant of a gene.

    Attributes
    ----------
    pair
        Its test given those before (one pair).
    p_gene
        The gene's p-value at this step, as of `Permutations` or by ACAT.
    """

    pair: Pairs
    p_gene: float


@dataclass(frozen=True)
class KnownSpace(RemlSpace):
    """A REML space of which nothing but the eigenvalues is needed: all is in its coordinates already."""

    values: Float

    @property
    def mu(self) -> Float:
        return self.values


@dataclass(frozen=True)
class Step:
    """One gene and its variants, given those selected so far.

    Attributes
    ----------
    mapper
        With the REML space and the coordinates of this step.
    gene, block
        In them.
    q
        D × p basis of the fixed effects, where labels are permuted.
    """

    mapper: Mapper
    gene: EqtlGenes
    block: VariantBlock
    q: Float | None

    def given(self, j: int, *, reml: bool) -> Step:
        """With variant `j` of the block among the covariates."""
        mapper, block, y = self.mapper, self.block, self.gene.y[:, 0]
        unit = block.x[j] / np.linalg.norm(block.x[j])
        donors, space, x = mapper.donors, mapper.space, block.x
        if donors.to_gene is None:  # least squares in the coordinates of donors: no basis has to change
            x, y, mu = x - np.outer(x @ unit, unit), y - unit * (unit @ y), donors.mu
        else:
            mu, basis = _without(unit, donors.mu, full=space.full)
            x, y = x @ basis, basis.T @ y
        k = int((mu > 0).sum())
        donors = replace(donors, mu=mu, k=k, dims=donors.dims - 1)
        space = KnownSpace(space.n, space.p + 1, space.eigenvalues, space.angles, mu[:k])
        norm = np.einsum("mk,mk->m", x, x)
        norm[~(norm > COLLINEAR_TOLERANCE * block.norm)] = np.nan  # of r² with those before, not of r
        gamma = _gamma(space, y, float(self.gene.rest[0]), reml=reml)
        gene = EqtlGenes(y[:, None], self.gene.rest, np.array([gamma]))
        q = None if self.q is None else np.column_stack([self.q, unit])
        return Step(replace(mapper, space=space, donors=donors), gene, replace(block, x=x, norm=norm), q)


def independent_signals(
    step: Step, number: int, permute: Permute, threshold: float, *, reml: bool, most: int = MOST_SIGNALS
) -> list[Signal]:
    """Variants in the order of their selection, until the gene's p-value exceeds the threshold.

    Parameters
    ----------
    step
        The gene and its variants, none selected.
    number
        Of the gene.
    permute
        Makes the permutations of a step; what it returns is None where p-values are combined by ACAT.
    threshold
        On the gene's p-value.
    """
    signals: list[Signal] = []
    window = Windows(np.array([number]), step.block.index[:1], step.block.index[-1:] + 1)
    while len(signals) < most and step.mapper.donors.dims >= 2 and np.isfinite(step.gene.gamma[0]):
        permutations = permute(step.mapper.donors, step.q)
        pairs, permutation = next(step.mapper.cis(step.gene, window, step.block, permutations))
        if not np.isfinite(pairs.log_p_value).any():
            break
        p_gene = permutation.p_beta
        if permutations is None:
            p_gene = float(cauchy_combination(np.maximum(np.exp(pairs.log_p_value), SMALLEST)))
        if not p_gene <= threshold * (1.0 + ROUNDING):
            break
        best = int(np.nanargmin(pairs.log_p_value))
        signals.append(Signal(pairs.take(slice(best, best + 1)), p_gene))
        step = step.given(best, reml=reml)
    return signals


def _without(unit: Float, mu: Float, *, full: bool) -> tuple[Float, Float]:
    """μ′, largest first, and CL (k′ × k′ − 1); C is what a Householder reflection leaves of the coordinates but the first."""
    v = unit.copy()
    v[0] += np.copysign(1.0, v[0])
    c = np.eye(unit.size)[:, 1:] - np.outer(v, v[1:]) * (2.0 / (v @ v))
    values, vectors = eigh((c.T * mu) @ c, overwrite_a=True, driver="evd")
    eps = np.finfo(np.float64).eps
    if full:  # so is what is left, however small its last eigenvalue
        values = np.maximum(values, eps * mu.min())
    else:
        values[values <= mu.size * eps * mu.max(initial=0.0)] = 0.0
    return values[::-1].copy(), c @ vectors[:, ::-1]


def _gamma(space: RemlSpace, y: Float, rest: float, *, reml: bool) -> float:
    """γ̂ of one gene."""
    if not space.k:
        return 0.0
    profile = Profile(
        mu=space.mu,
        y_sq=y[: space.k] ** 2,
        rest=0.0 if space.full else rest + float(y[space.k :] @ y[space.k :]),
        df_residual=space.df_residual,
        logdet_eigenvalues=space.mu if reml else space.eigenvalues,
        n_effective=space.df_residual if reml else space.n,
    )
    found = bounded_minimum(profile, "a gene given its signals")
    return float(finite_gamma(np.array(found.gamma), space.mu))
