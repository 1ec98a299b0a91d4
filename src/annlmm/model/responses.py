"""Many responses on the same rows, covariates and kernel: every gene's variance components, fitted together.

In the REML space a gene is k squares ỹ² and a rest; its likelihood is that of `profile`. On a grid of t = log γ,

    S = W ỹ² + rest,   S′ = −(W∘(1−W)) ỹ²,   f′ = N S′/S + Σ q_λ,   W = 1/(1+γμ) (nodes × k)

are two matrix products for all genes; `responses_newton` refines every change of sign of f′ by the rules of
`search.minimise`. The simulated null of the likelihood ratio depends on (n, p, μ) alone and is drawn once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annlmm.model.association import BOUNDARY, NOT_CONVERGED, OK, feature_status
from annlmm.model.null import NullModel
from annlmm.model.parallel import map_blocks
from annlmm.model.profile import LOG_2PI
from annlmm.model.search import log_gamma_grid
from annlmm.model.space import RemlSpace
from annlmm.model.statistics import FeatureStatistics

Float = NDArray[np.float64]

# How a search ended.
INTERIOR, AT_BOUNDARY, STOPPED, NO_MAXIMUM = range(4)

# Genes whose grid (nodes × genes) stays in cache.
CHUNK = 1024

# What is left outside the kernel, relative to everything, below which there is no residual: τ² = 0 fits perfectly.
NO_RESIDUAL = 1e-12


@dataclass(frozen=True)
class Coordinates:
    """Genes in the REML space.

    Attributes
    ----------
    v
        Vᵀy, k × m.
    rest
        ‖My − V Vᵀy‖², m; exactly 0 where V spans the space.
    status
        'ok', 'constant', 'collinear', or 'not_converged' where nothing is left for the residual and the likelihood has no
        maximum (index into `association.STATUS`).
    """

    v: Float
    rest: Float
    status: NDArray[np.int8]

    @property
    def good(self) -> NDArray[np.bool_]:
        return np.asarray(self.status == OK)


@dataclass(frozen=True)
class Responses:
    """The fits of m genes; NaN where there is none.

    Attributes
    ----------
    gamma, sigma_sq, tau_sq, h_sq
        γ̂ in [0, ∞], the variance components and h² = γ/(1+γ).
    h_sq_standard_error
        From the curvature of the profile; NaN on a boundary.
    pve
        σ²t/(σ²t+τ²).
    log_likelihood
        True restricted or full log-likelihood.
    likelihood_ratio
        2(ℓ(γ̂) − ℓ(0)).
    log_p_value
        Natural log of the p-value of σ² = 0 (simulated likelihood-ratio null); NaN if not asked for.
    status
        Index into `association.STATUS`.
    """

    gamma: Float
    sigma_sq: Float
    tau_sq: Float
    h_sq: Float
    h_sq_standard_error: Float
    pve: Float
    log_likelihood: Float
    likelihood_ratio: Float
    log_p_value: Float
    status: NDArray[np.int8]


def coordinates(features: FeatureStatistics, space: RemlSpace) -> Coordinates:
    """Genes in the REML space from their sufficient statistics, with those that cannot be fitted marked."""
    v = space.rotate(features.u)
    rest = np.zeros_like(features.norm)
    if not space.full:
        rest = np.maximum(features.norm - np.einsum("kj,kj->j", v, v), 0.0)
    status = feature_status(features, features.norm)
    if not space.full and space.k:
        status[(status == OK) & (rest < NO_RESIDUAL * features.norm)] = NOT_CONVERGED
    return Coordinates(v, rest, status)


def fit_responses(model: NullModel, genes: Coordinates, *, simulate: bool = True, threads: int = 1) -> Responses:
    """Fit every gene.

    Parameters
    ----------
    model
        Design and kernel, REML or ML.
    genes
        From `coordinates` in the space of `model`.
    simulate
        Whether to report the p-value of σ² = 0.
    threads
        Over chunks of genes.
    """
    space, m = model.space, genes.rest.size
    n = space.df_residual if model.reml else space.n
    chosen = np.flatnonzero(genes.good)
    found = np.full((5, m), np.nan)
    found[:, chosen] = _optima(model, genes, chosen, n, threads)
    gamma, ratio, rss, se_log_gamma, state = found
    total = np.einsum("kj,kj->j", genes.v, genes.v) + genes.rest

    status = genes.status.copy()
    if space.k:
        status[state == AT_BOUNDARY] = BOUNDARY
        status[state >= STOPPED] = NOT_CONVERGED
    gamma[state == NO_MAXIMUM], ratio[state == NO_MAXIMUM] = np.nan, np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        at_one = np.isinf(gamma)
        scale = np.where(np.isnan(gamma), np.nan, rss / n)
        h_sq = np.where(at_one, 1.0, gamma / (1.0 + gamma))
        t = gamma * model.basis.trace_scale
        pve = np.where(at_one, 1.0, t / (1.0 + t))
        value = n * np.log(total) - ratio
        log_likelihood = -0.5 * (n * (LOG_2PI + 1.0 - np.log(n)) + value)
        sigma_sq = np.where(at_one, scale, gamma * scale)
    log_p = np.full(m, np.nan)
    if simulate and space.k and chosen.size:
        tested = np.flatnonzero(np.isfinite(ratio))
        log_p[tested] = model.rlrt.log_p_value(ratio[tested])
    return Responses(
        gamma=gamma,
        sigma_sq=sigma_sq,
        tau_sq=np.where(at_one, 0.0, scale),
        h_sq=h_sq,
        h_sq_standard_error=h_sq / (1.0 + gamma) * se_log_gamma,
        pve=pve,
        log_likelihood=log_likelihood,
        likelihood_ratio=ratio,
        log_p_value=log_p,
        status=status,
    )


def _optima(model: NullModel, genes: Coordinates, chosen: NDArray[np.intp], n: int, threads: int) -> Float:
    """γ̂, f(0) − f(γ̂), S(γ̂), SE(log γ̂) and the state of the chosen genes (5 × b)."""
    space, mu = model.space, np.ascontiguousarray(model.space.mu)
    if not space.k:  # least squares
        rss, zero = genes.rest[chosen], np.zeros(chosen.size)
        return np.stack([zero, zero, rss, np.full(chosen.size, np.nan), np.full(chosen.size, AT_BOUNDARY)])
    from annlmm.model.responses_newton import refine  # compiles

    lam = mu if model.reml else np.ascontiguousarray(space.eigenvalues)
    at_one = space.full and (model.reml or space.eigenvalues.size == space.n)
    grid = log_gamma_grid(mu)
    weights = 1.0 / (1.0 + np.multiply.outer(np.exp(grid), mu))
    slope_weights = weights * (1.0 - weights)
    determinant = 1.0 - 1.0 / (1.0 + np.multiply.outer(np.exp(grid), lam))
    determinant_slope = determinant.sum(axis=1)[:, None]
    out = np.empty((5, chosen.size))

    def fit(part: slice) -> None:
        y_sq = genes.v[:, chosen[part]] ** 2
        rest = genes.rest[chosen[part]]
        slopes = determinant_slope - n * (slope_weights @ y_sq) / (weights @ y_sq + rest)
        found = np.empty((5, rest.size))
        refine(
            np.ascontiguousarray(y_sq.T), rest, mu, lam, float(n), float(space.df_residual), model.reml,
            space.full, at_one, grid, slopes, found,
        )  # fmt: skip
        out[:, part] = found

    parts = [slice(start, start + CHUNK) for start in range(0, chosen.size, CHUNK)]
    for _ in map_blocks(fit, parts, threads):
        pass
    return out
