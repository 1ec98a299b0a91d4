"""Degrees of freedom of a linear contrast of the fixed effects (Satterthwaite 1946; Giesbrecht & Burns 1985).

Var(lᵀβ̂) = v(σ², τ²) = lᵀ C l,  C = (XᵀV⁻¹X)⁻¹,  V = σ²K + τ²I;     ν = 2 v² / (gᵀ 𝓘⁻¹ g)

with g the gradient of v and 𝓘 the information on (σ², τ²). Both are taken in the REML space, where
PKP, PP have the eigenvalues μ/(σ²μ+τ²)², 1/(σ²μ+τ²)².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class VarianceInformation:
    """Observed and expected information on (σ², τ²), 2 × 2 each, and whether σ² sits on its boundary."""

    observed: Float
    expected: Float
    at_boundary: bool


def variance_information(
    mu: Float, y_sq: Float, rest: float, df_residual: int, sigma_sq: float, tau_sq: float, *, at_boundary: bool
) -> VarianceInformation:
    """Information of the restricted likelihood on (σ², τ²).

    ∂²(−ℓ)/∂a∂b = −½ tr(P V_a P V_b) + yᵀ P V_a P V_b P y, of expectation ½ tr(P V_a P V_b).
    """
    d = 1.0 / (sigma_sq * mu + tau_sq)
    outside = df_residual - mu.size
    d_rest = 1.0 / tau_sq if outside else 0.0
    trace = np.array(
        [
            [np.sum((mu * d) ** 2), np.sum(mu * d**2)],
            [np.sum(mu * d**2), np.sum(d**2) + outside * d_rest**2],
        ]
    )
    quadratic = np.array(
        [
            [np.sum(y_sq * mu**2 * d**3), np.sum(y_sq * mu * d**3)],
            [np.sum(y_sq * mu * d**3), np.sum(y_sq * d**3) + rest * d_rest**3],
        ]
    )
    return VarianceInformation(quadratic - 0.5 * trace, 0.5 * trace, at_boundary)


def satterthwaite_df(variance: Float, gradient: Float, information: VarianceInformation, df_residual: int) -> Float:
    """ν of several contrasts.

    The observed information in the interior (lmerTest's ν to all digits). The expected one on the boundary σ² = 0,
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
