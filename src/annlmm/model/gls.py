"""Generalised least squares at a fixed γ, on the orthonormal basis Q of X and on y projected off it.

    ⟨a, b⟩ = aᵀ(I+γK)⁻¹b = Σ wᵢ (Uᵀa)ᵢ(Uᵀb)ᵢ + c_ab,    wᵢ = 1/(1+γsᵢ),    c_ab = aᵀb − (Uᵀa)ᵀ(Uᵀb)

c_QQ and c_Qy come from the angles between span(U) and span(X), exactly 0 along the directions that the two share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from annlmm.model.space import RemlSpace

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Gls:
    """At one γ.

    Attributes
    ----------
    gamma
        Finite: γ = ∞ (only for a full REML space) is replaced by a value 10¹⁶ beyond 1/s_min.
    w
        r weights 1/(1+γs).
    qq
        p × p, ⟨Q, Q⟩.
    qq_inverse
        Its inverse.
    """

    gamma: float
    w: Float
    qq: Float
    qq_inverse: Float

    def solve_q(self, u: Float, space: RemlSpace) -> Float:
        """⟨Q,Q⟩⁻¹⟨Q,ỹ⟩ for ỹ orthogonal to X with u = Uᵀỹ (a vector, or r × m)."""
        return np.asarray(self.qq_inverse @ self.cross(u, space))

    def cross(self, u: Float, space: RemlSpace) -> Float:
        """⟨Q, ã⟩ for ã orthogonal to X with u = Uᵀã (a vector, or r × m)."""
        weighted = (u.T * self.w).T
        inside = space.angles.t.T @ weighted
        return np.asarray(inside if space.eigenvalues.size == space.n else inside + space.angles.cross @ u)


def finite_gamma(gamma: float, space: RemlSpace) -> float:
    """γ itself, or a value that stands for ∞: 1/(1+γs) is then 1/(γs) to rounding for every eigenvalue."""
    return float(1e16 / space.eigenvalues.min()) if np.isinf(gamma) else gamma


def make_gls(space: RemlSpace, gamma: float) -> Gls:
    """⟨Q, Q⟩ and the weights at γ."""
    gamma = finite_gamma(gamma, space)
    w = 1.0 / (1.0 + gamma * space.eigenvalues)
    t = space.angles.t
    qq = (t.T * w) @ t + space.angles.complement
    # Scaled to a unit diagonal: with γ large the directions inside and outside span(U) differ by orders of magnitude.
    scale = 1.0 / np.sqrt(np.diagonal(qq))
    factor = cho_factor(qq * np.outer(scale, scale))
    inverse = cho_solve(factor, np.eye(scale.size)) * np.outer(scale, scale)
    return Gls(gamma, w, qq, (inverse + inverse.T) / 2)
