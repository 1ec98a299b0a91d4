"""The one objective: −2 × the profiled log-likelihood as a function of γ, with analytic derivatives.

In the REML space y has coordinates ỹ = Vᵀy with variance τ²(1+γμ), and a rest ‖My − Vỹ‖² with variance τ² in each of its
dimensions. With S(γ) = Σ ỹ²/(1+γμ) + rest,

    f(γ) = N log S(γ) + Σ log(1+γλ)          N = n−p, λ = μ  (REML);   N = n, λ = eigenvalues of K  (ML)

(Patterson & Thompson 1971; Lippert et al. 2011, suppl. 1, with the fixed effects absorbed). Its minimum is that of −2ℓ.
In the log, t = log γ, with w = 1/(1+γμ) and q = 1 − w:

    S′ = −Σ ỹ²wq,   S″ = Σ ỹ²wq(2q − 1),   f′ = N S′/S + Σ q_λ,   f″ = N(S″/S − (S′/S)²) + Σ q_λ w_λ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annlmm.model.space import RemlSpace

Float = NDArray[np.float64]
LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Profile:
    """Everything of one response that the likelihood of γ depends on.

    Attributes
    ----------
    mu
        k eigenvalues of M K M.
    y_sq
        k squares ỹ².
    rest
        Sum of squares of My outside V, exactly 0 where V spans the whole space.
    df_residual
        n − p.
    logdet_eigenvalues
        λ of the determinant: μ for REML, the eigenvalues of K for ML.
    n_effective
        N: n − p for REML, n for ML.
    """

    mu: Float
    y_sq: Float
    rest: float
    df_residual: int
    logdet_eigenvalues: Float
    n_effective: int

    @property
    def full(self) -> bool:
        return self.mu.size == self.df_residual

    @property
    def at_one(self) -> bool:
        """Whether h² → 1 has a finite likelihood: nothing of y or of the determinant is outside K."""
        return self.full and self.logdet_eigenvalues.size == self.n_effective

    def rss(self, gamma: float) -> float:
        """S(γ); for γ = ∞ its limit times γ, i.e. in units of K."""
        if np.isinf(gamma):
            return float(np.sum(self.y_sq / self.mu))
        return float(np.sum(self.y_sq / (1.0 + gamma * self.mu)) + self.rest)

    def value(self, gamma: float) -> float:
        """f(γ), γ in [0, ∞]."""
        if np.isinf(gamma):
            if not self.at_one:
                return np.inf
            return float(self.n_effective * np.log(self.rss(gamma)) + np.log(self.logdet_eigenvalues).sum())
        return float(self.n_effective * np.log(self.rss(gamma)) + np.log1p(gamma * self.logdet_eigenvalues).sum())

    def values(self, gammas: Float) -> Float:
        """f at several finite γ."""
        weights = 1.0 / (1.0 + np.multiply.outer(gammas, self.mu))
        logdet = np.log1p(np.multiply.outer(gammas, self.logdet_eigenvalues)).sum(axis=1)
        return np.asarray(self.n_effective * np.log(weights @ self.y_sq + self.rest) + logdet)

    def log_derivatives(self, t: float) -> tuple[float, float]:
        """f′ and f″ in t = log γ."""
        # q = γμ/(1+γμ) = 1/(1 + exp(−(t + log μ))) keeps its digits at both ends, where γ over- or underflows.
        q = _logistic(t + np.log(self.mu))
        w = _logistic(-t - np.log(self.mu))
        c = self.y_sq * w
        s = c.sum() + self.rest
        s1 = -(c * q).sum()
        s2 = (c * q * (2 * q - 1)).sum()
        same = self.logdet_eigenvalues is self.mu
        ql = q if same else _logistic(t + np.log(self.logdet_eigenvalues))
        wl = w if same else _logistic(-t - np.log(self.logdet_eigenvalues))
        n = self.n_effective
        return float(n * s1 / s + ql.sum()), float(n * (s2 / s - (s1 / s) ** 2) + (ql * wl).sum())

    def gamma_derivatives(self, gamma: float) -> tuple[float, float]:
        """f′ and f″ in γ itself, for the end at h² = 0."""
        w = 1.0 / (1.0 + gamma * self.mu)
        c = self.y_sq * w
        s = c.sum() + self.rest
        s1 = -(c * w * self.mu).sum()
        s2 = 2 * (c * (w * self.mu) ** 2).sum()
        lam = self.logdet_eigenvalues
        v = lam / (1.0 + gamma * lam)
        n = self.n_effective
        return float(n * s1 / s + v.sum()), float(n * (s2 / s - (s1 / s) ** 2) - (v * v).sum())

    def inverse_derivatives(self, delta: float) -> tuple[float, float]:
        """f′ and f″ in δ = 1/γ, for the end at h² = 1 (only where `at_one`).

        V ∝ K + δI: f = N log Σ ỹ²/(μ+δ) + Σ log(λ+δ).
        """
        v = 1.0 / (self.mu + delta)
        c = self.y_sq * v
        s, s1, s2 = c.sum(), -(c * v).sum(), 2 * (c * v * v).sum()
        u = 1.0 / (self.logdet_eigenvalues + delta)
        n = self.n_effective
        return float(n * s1 / s + u.sum()), float(n * (s2 / s - (s1 / s) ** 2) - (u * u).sum())

    def log_likelihood(self, gamma: float) -> float:
        """The true ℓ: restricted (with ½log|XᵀX|, GEMMA's and Hail's convention; R omits it) or full."""
        n = self.n_effective
        return -0.5 * (n * (LOG_2PI + 1.0 - np.log(n)) + self.value(gamma))


def make_profile(space: RemlSpace, y_tilde: Float, rest: float, *, reml: bool) -> Profile:
    """The objective of one response with REML-space coordinates `y_tilde` (k) and sum of squares `rest` outside."""
    return Profile(
        mu=space.mu,
        y_sq=y_tilde**2,
        rest=0.0 if space.full else rest,
        df_residual=space.df_residual,
        logdet_eigenvalues=space.mu if reml else space.eigenvalues,
        n_effective=space.df_residual if reml else space.n,
    )


def _logistic(x: Float) -> Float:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + e), e / (1.0 + e))
