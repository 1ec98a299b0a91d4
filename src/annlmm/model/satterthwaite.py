"""Degrees of freedom of a linear contrast of the fixed effects (Satterthwaite 1946; Giesbrecht & Burns 1985).

Var(lᵀβ̂) = v(σ², τ²) = lᵀ C l,  C = (XᵀV⁻¹X)⁻¹,  V = σ²K + τ²I;     ν = 2 v² / (gᵀ 𝓘⁻¹ g)

with g the gradient of v and 𝓘 the information on (σ², τ²). Both are taken in the REML space, where
PKP, PP have the eigenvalues μ/(σ²μ+τ²)², 1/(σ²μ+τ²)².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annlmm.model.profile import Profile

Float = NDArray[np.float64]


@dataclass(frozen=True)
class VarianceInformation:
    """Observed and expected information on (σ², τ²), 2 × 2 each, and whether σ² or τ² sits on its boundary."""

    observed: Float
    expected: Float
    at_boundary: bool


def variance_information(profile: Profile, sigma_sq: float, tau_sq: float, *, at_boundary: bool) -> VarianceInformation:
    """Information on (σ², τ²): observed, of the likelihood that was maximised, and expected, of the restricted one.

    ∂²(−ℓ)/∂a∂b = −½ tr(P V_a P V_b) + yᵀ P V_a P V_b P y, of expectation ½ tr(P V_a P V_b); the full likelihood has V⁻¹ for P in
    the trace, that is, the eigenvalues of K for those of M K M.
    """
    mu, y_sq = profile.mu, profile.y_sq
    d = 1.0 / (sigma_sq * mu + tau_sq)
    d_rest = 1.0 / tau_sq if profile.df_residual > mu.size else 0.0

    def half_trace(eigenvalues: Float, n: int) -> Float:
        e = 1.0 / (sigma_sq * eigenvalues + tau_sq)
        outside = (n - eigenvalues.size) / tau_sq**2 if n > eigenvalues.size else 0.0
        cross = np.sum(eigenvalues * e**2)
        return 0.5 * np.array([[np.sum((eigenvalues * e) ** 2), cross], [cross, np.sum(e**2) + outside]])

    quadratic = np.array(
        [
            [np.sum(y_sq * mu**2 * d**3), np.sum(y_sq * mu * d**3)],
            [np.sum(y_sq * mu * d**3), np.sum(y_sq * d**3) + profile.rest * d_rest**3],
        ]
    )
    return VarianceInformation(
        quadratic - half_trace(profile.logdet_eigenvalues, profile.n_effective),
        half_trace(mu, profile.df_residual),
        at_boundary,
    )


def satterthwaite_df(variance: Float, gradient: Float, information: VarianceInformation, df_residual: int) -> Float:
    """ν of several contrasts.

    The observed information in the interior (lmerTest's ν to all digits). The expected one on a boundary, σ² = 0 or τ² = 0,
    where the observed matrix is not positive definite, and where ν comes out ≤ 0: lmerTest's jump to n − p at the
    boundary is anticonservative for few groups.

    Parameters
    ----------
    variance
        m variances v.
    gradient
        m × 2 gradients of v in (σ², τ²).
    """
    expected = _df(variance, gradient, information.expected, df_residual)
    if information.at_boundary:
        return expected
    observed = information.observed
    if not (observed[0, 0] > 0 and observed[1, 1] > 0 and np.linalg.det(observed) > 0):
        return expected
    nu = _df(variance, gradient, observed, df_residual)
    return np.where(nu > 0, nu, expected)


def _df(variance: Float, gradient: Float, information: Float, df_residual: int) -> Float:
    # On a unit diagonal, since σ² and τ² have the units of different kernels.
    scale = 1.0 / np.sqrt(np.diagonal(information))
    inverse = np.linalg.pinv(information * np.outer(scale, scale), hermitian=True)
    scaled = gradient * scale
    spread = np.einsum("mi,ij,mj->m", scaled, inverse, scaled)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, 2.0 * variance**2 / spread, float(df_residual))
