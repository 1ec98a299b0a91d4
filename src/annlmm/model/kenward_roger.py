"""Kenward and Roger's (1997) small-sample covariance and degrees of freedom, for many genes.

With Φ = Cov(β̂), W the inverse expected information on θ = (σ², τ²), G_i = XᵀV⁻¹V_iV⁻¹X and Q_ij = XᵀV⁻¹V_iV⁻¹V_jV⁻¹X (V is linear in θ, so
that the second derivatives are zero):

    Φ_A = Φ + 2 Φ [Σ_ij W_ij (Q_ij − G_i Φ G_j)] Φ.

For the hypothesis lᵀβ = 0 on q rows, Θ = l(lᵀΦl)⁻¹lᵀ, A₁ = Σ W_ij tr(ΘΦG_iΦ) tr(ΘΦG_jΦ), A₂ = Σ W_ij tr(ΘΦG_iΦΘΦG_jΦ); F = λ/q · β̂ᵀl(lᵀΦ_Al)⁻¹lᵀβ̂ on
F(q, m) with their λ and m (sections 3 and 4; for q = 1, λ = 1 and m = 2/A₂). Only tested columns are needed: β̂, its
derivatives in θ and W are the same once the covariates are projected out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from annlmm.model.responses_term import Estimates

Float = NDArray[np.float64]

PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))


def inverse_information(expected: Float) -> Float:
    """W (2 × 2 × b), in units of τ⁴."""
    i11, i12, i22 = expected
    return np.array([[i22, -i12], [-i12, i11]]) / (i11 * i22 - i12**2)


def adjusted_covariance(estimates: Estimates, w: Float) -> Float:
    """Φ_A in units of τ², b × q × q."""
    phi, g = estimates.unscaled, (estimates.by_sigma, estimates.by_tau)
    q = {(0, 0): estimates.third[0], (0, 1): estimates.third[1], (1, 0): estimates.third[1], (1, 1): estimates.third[2]}
    inner = sum(w[i, j][:, None, None] * (q[i, j] - g[i] @ phi @ g[j]) for i, j in PAIRS)
    return np.asarray(phi + 2.0 * phi @ inner @ phi)


def single_df(estimates: Estimates, w: Float, contrast: Float) -> Float:
    """m = 2/A₂ of one linear contrast (q)."""
    z = estimates.unscaled @ contrast
    v = z @ contrast
    # tr(ΘΦG_iΦ) = lᵀΦG_iΦl / lᵀΦl.
    t = [np.einsum("jp,jpq,jq->j", z, g, z) / v for g in (estimates.by_sigma, estimates.by_tau)]
    with np.errstate(divide="ignore"):
        return np.asarray(2.0 / sum(w[i, j] * t[i] * t[j] for i, j in PAIRS))


def joint_test(estimates: Estimates, w: Float) -> tuple[Float, Float]:
    """F (multiplied by λ) and m of all q coefficients."""
    phi, q = estimates.unscaled, estimates.beta.shape[1]
    # Θ = Φ⁻¹: tr(ΘΦG_iΦ) = tr(G_iΦ).
    g_phi = [g @ phi for g in (estimates.by_sigma, estimates.by_tau)]
    traces = [np.einsum("jqq->j", x) for x in g_phi]
    a1 = sum(w[i, j] * traces[i] * traces[j] for i, j in PAIRS)
    a2 = sum(w[i, j] * np.einsum("jpq,jqp->j", g_phi[i], g_phi[j]) for i, j in PAIRS)
    scale, m = _scale_and_df(np.asarray(a1), np.asarray(a2), q)
    adjusted = adjusted_covariance(estimates, w) * estimates.tau_sq[:, None, None]
    wald = np.einsum("jq,jq->j", estimates.beta, np.linalg.solve(adjusted, estimates.beta[:, :, None])[:, :, 0])
    return scale * wald / q, m


def _scale_and_df(a1: Float, a2: Float, q: int) -> tuple[Float, Float]:
    """λ and m by matching the first two moments of F (Kenward & Roger 1997, section 4)."""
    b = (a1 + 6.0 * a2) / (2.0 * q)
    g = ((q + 1) * a1 - (q + 4) * a2) / ((q + 2) * a2)
    common = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / common, (q - g) / common, (q + 2 - g) / common
    with np.errstate(divide="ignore", invalid="ignore"):
        # ρ = V*/(2E*²); where both (1 − A₂/q) and (1 − c₂B) vanish their ratio is 1.
        vanish = (np.abs(1.0 - a2 / q) < 1e-14) & (np.abs(1.0 - c2 * b) < 1e-14)
        ratio = np.where(vanish, 1.0, (1.0 - a2 / q) / (1.0 - c2 * b))
        rho = ratio**2 * (1.0 + c1 * b) / (1.0 - c3 * b) / q
        m = 4.0 + (q + 2.0) / (q * rho - 1.0)
        scale = np.where(np.abs(m - 2.0) < 1e-2, 1.0, m * (1.0 - a2 / q) / (m - 2.0))
    return scale, m
