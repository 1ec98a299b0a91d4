"""A family of kernels K_1 … K_J: each gene under the member that makes it most likely, with a p-value that knows of the choice.

X and y are the same under every member, hence so is ℓ(0), and log-likelihoods compare. The test of σ² = 0 is that of

    LR = max_j LR_j,   LR_j = sup_γ f_j(γ),   f_j(γ) = 2(ℓ_j(γ) − ℓ(0)),

the likelihood ratio with the member as one more parameter. Its null is simulated as in `variance_test`: y is drawn from N(0, M) and, j and γ
from a list, from N(0, M + γMK_jM), and weighted by 1/Σ π_jγ exp(f_j(γ)/2), the (restricted) density ratio of the direction of My
being exp(f_j(γ)/2).

The members have no eigenvectors in common, so that what is drawn are the coordinates of y in an orthonormal basis B of all their
REML spaces span(V_j), of R ≤ n − p dimensions, and a χ² of n − p − R for what is outside. With V_j = B L_jᵀ, the coordinates under member j are
V_jᵀy = L_j (Bᵀy); the L_j (k_j × R) are the rows of a factor of the Gram matrix of [V_1 … V_J],

    V_iᵀV_j = R_iᵀ (U_iᵀU_j − T_i T_jᵀ) R_j,   T = UᵀQ, R the rotation of `space`,

found block by block. Neither y nor B is ever formed: n does not enter, and 30,000 draws cost what as many genes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.special import logsumexp

from annlmm.model.association import OK
from annlmm.model.basis import Basis, DenseBasis, GroupedBasis
from annlmm.model.null import NullModel
from annlmm.model.parallel import map_blocks
from annlmm.model.responses import Coordinates, Responses, fit_responses
from annlmm.model.variance_test import RLRT_DRAWS, RlrtNull

Float = NDArray[np.float64]
Index = NDArray[np.intp]

# Squared sine below which a direction counts as one of the span: what it adds to a coordinate of unit variance is 1e-5.
IN_SPAN = 1e-10
# From a γ that no data could show, in units of 1/μ_max, to a residual of 1e-4 of the variance.
LOWEST, HIGHEST = 0.2, 1e4
FEWEST_DRAWS = 64
# Numbers in a block of draws.
BLOCK = 2**22


@dataclass(frozen=True)
class FamilyResponses:
    """m genes under J members.

    Attributes
    ----------
    best
        Each gene under its best member, its p-value that of LR; NaN where a member leaves it without a fit.
    member
        Which one that is; −1 where there is no fit, or σ² is estimated as 0 under all of them.
    log_likelihood, log_p_value
        m × J: under each member, with the p-value of that member by itself.
    """

    best: Responses
    member: Index
    log_likelihood: Float
    log_p_value: Float


def best_members(members: Sequence[Responses], null: RlrtNull | None) -> FamilyResponses:
    """Choose for every gene; `null` is that of the family, None if it has one member only."""
    ratios = np.stack([fits.likelihood_ratio for fits in members])
    # The first NaN, if there is any: a likelihood without a maximum is above all others.
    chosen = ratios.argmax(axis=0)
    genes = np.arange(chosen.size)
    taken = {f.name: np.stack([getattr(fits, f.name) for fits in members])[chosen, genes] for f in fields(Responses)}
    ratio = taken["likelihood_ratio"]
    if null is not None:
        taken["log_p_value"] = np.where(np.isnan(ratio), np.nan, null.log_p_value(ratio))
    return FamilyResponses(
        best=Responses(**taken),
        member=np.where(ratio > 0, chosen, -1),
        log_likelihood=np.stack([fits.log_likelihood for fits in members], axis=1),
        log_p_value=np.stack([fits.log_p_value for fits in members], axis=1),
    )


@dataclass(frozen=True)
class _Member:
    """What the draws need of one member.

    Attributes
    ----------
    loadings
        L, k × R.
    gammas
        Where y is drawn from it.
    """

    model: NullModel
    loadings: Float
    gammas: Float

    def drawn(self, rng: np.random.Generator, gammas: Float) -> Float:
        """Bᵀe for e ~ N(0, γMKM), a column for every γ."""
        mu = self.model.space.mu
        return np.asarray(
            self.loadings.T @ (np.sqrt(np.multiply.outer(mu, gammas)) * rng.standard_normal((mu.size, gammas.size)))
        )

    def place(self, z: Float, total: Float) -> Coordinates:
        """Draws with coordinates `z` (R × b) and squares `total` as genes under this member."""
        v = self.loadings @ z
        rest = np.zeros_like(total) if self.model.space.full else np.maximum(total - np.einsum("kj,kj->j", v, v), 0.0)
        return Coordinates(v, rest, np.full(total.size, OK, dtype=np.int8))

    def density_ratios(self, genes: Coordinates, total: Float) -> Float:
        """f(γ)/2 of the restricted likelihood at `gammas` (b × nodes)."""
        space = self.model.space
        scaled = np.multiply.outer(self.gammas, space.mu)
        rss = (1.0 / (1.0 + scaled)) @ genes.v**2 + genes.rest
        value = space.df_residual * (np.log(total) - np.log(rss)) - np.log1p(scaled).sum(axis=1)[:, None]
        return np.asarray(value.T / 2)


def family_null(models: Sequence[NullModel], *, threads: int = 1) -> RlrtNull:
    """The null of max_j LR_j as weighted draws.

    Parameters
    ----------
    models
        The members, on the same rows and covariates, with one seed.
    """
    loadings = common_loadings(models)
    dimensions, df = loadings[0].shape[1], models[0].space.df_residual
    members = [_Member(model, part, _gammas(model)) for model, part in zip(models, loadings, strict=True)]
    # Half of the draws are from the null itself, for the body.
    gammas = np.concatenate([[0.0], *(member.gammas for member in members)])
    of = np.repeat(np.arange(-1, len(members)), [1, *(member.gammas.size for member in members)])
    share = np.r_[0.5, np.full(gammas.size - 1, 0.5 / (gammas.size - 1))]
    sizes = np.maximum((share * RLRT_DRAWS).astype(int), FEWEST_DRAWS)
    log_share = np.log(sizes / sizes.sum())
    proposal = np.repeat(np.arange(gammas.size), sizes)
    width = max(64, BLOCK // dimensions)
    starts = range(0, proposal.size, width)
    seeds = np.random.SeedSequence(models[0].seed).spawn(len(starts))

    def draw(task: tuple[int, np.random.SeedSequence]) -> tuple[Float, Float]:
        start, seed = task
        rng = np.random.default_rng(seed)
        mine = proposal[start : start + width]
        z = rng.standard_normal((dimensions, mine.size))
        for j, member in enumerate(members):
            those = np.flatnonzero(of[mine] == j)
            if those.size:
                z[:, those] += member.drawn(rng, gammas[mine[those]])
        outside = rng.chisquare(df - dimensions, mine.size) if df > dimensions else 0.0
        total = np.einsum("rj,rj->j", z, z) + outside
        best, ratios = np.zeros(mine.size), [np.zeros((mine.size, 1))]
        for member in members:
            genes = member.place(z, total)
            fits = fit_responses(member.model, genes, simulate=False)
            best = np.fmax(best, fits.likelihood_ratio)
            ratios.append(member.density_ratios(genes, total))
        return best, -logsumexp(np.concatenate(ratios, axis=1) + log_share, axis=1)

    parts = list(map_blocks(draw, zip(starts, seeds, strict=True), threads))
    statistic, log_weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-statistic, kind="stable")
    return RlrtNull(statistic[order], np.logaddexp.accumulate(log_weight[order]) - np.log(statistic.size))


def _gammas(model: NullModel) -> Float:
    """A factor of two apart they overlap."""
    mu = model.space.mu
    high = HIGHEST * model.space.df_residual / mu.sum()
    return np.exp(np.arange(np.log(LOWEST / mu.max()), np.log(high), np.log(2.0)))


def common_loadings(models: Sequence[NullModel]) -> list[Float]:
    """L_1 … L_J, from the member with the most dimensions on: the others then add few."""
    order = sorted(range(len(models)), key=lambda j: -models[j].space.k)
    parts = {j: np.zeros((models[j].space.k, 0)) for j in order}
    for i, j in enumerate(order):
        left, new = np.eye(len(parts[j])) - parts[j] @ parts[j].T, order[i + 1 :]
        values, vectors = (np.ones(len(left)), left) if i == 0 else eigh(left, overwrite_a=True, driver="evd")
        kept = values > IN_SPAN
        root, vectors = np.sqrt(values[kept]), vectors[:, kept]
        if not root.size:
            continue
        for other in order[:i]:
            parts[other] = np.column_stack([parts[other], np.zeros((len(parts[other]), root.size))])
        for other in new:
            gram = _gram(models[other], models[j]) - parts[other] @ parts[j].T
            parts[other] = np.column_stack([parts[other], gram @ vectors / root])
        parts[j] = np.column_stack([parts[j], vectors * root])
    return [parts[j] for j in range(len(models))]


def _gram(a: NullModel, b: NullModel) -> Float:
    """V_aᵀV_b."""
    inner = _inner(a.basis, b.basis) - a.space.angles.t @ b.space.angles.t.T
    return b.space.rotate(a.space.rotate(inner).T).T


def _inner(a: Basis, b: Basis) -> Float:
    """U_aᵀU_b; of groups, both on the same ones."""
    if isinstance(a, DenseBasis) and isinstance(b, DenseBasis):
        return np.asarray(a.u.T @ b.u)
    if isinstance(a, GroupedBasis) and isinstance(b, GroupedBasis):
        return a.coordinates.rotate(b.coordinates.rotate(np.eye(a.counts.size)).T)
    raise TypeError(f"no family of a {type(a).__name__} and a {type(b).__name__}")
