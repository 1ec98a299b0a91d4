"""A naive dense oracle: the textbook formulas with n × n matrices and a brute-force search, independent of the package.

Imported by the tests as `oracle` (pytest's `pythonpath`); nothing in it is shared with `annlmm`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats


@dataclass
class DenseFit:
    gamma: float
    beta: np.ndarray
    beta_covariance: np.ndarray
    sigma_sq: float
    tau_sq: float
    log_likelihood: float


def log_likelihood(y, x, k, gamma, *, reml=True):
    """The true (restricted) log-likelihood at γ with everything else profiled out; REML includes ½ log|XᵀX|."""
    n, p = x.shape
    v = np.eye(n) + gamma * k
    v_inverse = np.linalg.inv(v)
    xvx = x.T @ v_inverse @ x
    beta = np.linalg.solve(xvx, x.T @ v_inverse @ y)
    e = y - x @ beta
    rss = e @ v_inverse @ e
    n_effective = n - p if reml else n
    scale = rss / n_effective
    value = n_effective * np.log(2 * np.pi * scale) + np.linalg.slogdet(v)[1] + n_effective
    if reml:
        value += np.linalg.slogdet(xvx)[1] - np.linalg.slogdet(x.T @ x)[1]
    return -0.5 * value, beta, np.linalg.inv(xvx) * scale, scale


def fit(y, x, k, gamma=None, *, reml=True, span=(-12.0, 12.0)):
    """Maximise over log γ by a fine grid and bounded Brent around its best node; γ = 0 is a candidate."""
    if gamma is None:
        grid = np.linspace(*span, 400)
        values = [log_likelihood(y, x, k, np.exp(t), reml=reml)[0] for t in grid]
        i = int(np.argmax(values))
        low, high = grid[max(i - 1, 0)], grid[min(i + 1, grid.size - 1)]
        best = optimize.minimize_scalar(
            lambda t: -log_likelihood(y, x, k, np.exp(t), reml=reml)[0],
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-12},
        )
        gamma = float(np.exp(best.x))
        if log_likelihood(y, x, k, 0.0, reml=reml)[0] >= -best.fun:
            gamma = 0.0
    value, beta, covariance, tau_sq = log_likelihood(y, x, k, gamma, reml=reml)
    return DenseFit(gamma, beta, covariance, gamma * tau_sq, tau_sq, value)


def associate(y, x, k, a, gamma):
    """Per feature: β, SE, F, p of the Wald test, and the likelihood ratio n log(RSS₀/RSS₁), at a fixed γ."""
    n, p = x.shape
    v_inverse = np.linalg.inv(np.eye(n) + gamma * k)

    def rss_and_beta(design):
        xvx = design.T @ v_inverse @ design
        beta = np.linalg.solve(xvx, design.T @ v_inverse @ y)
        e = y - design @ beta
        return e @ v_inverse @ e, beta, np.linalg.inv(xvx)

    rss0 = rss_and_beta(x)[0]
    rows = []
    for j in range(a.shape[1]):
        rss1, beta, inverse = rss_and_beta(np.column_stack([x, a[:, j]]))
        df = n - p - 1
        tau_sq = rss1 / df
        se = np.sqrt(tau_sq * inverse[-1, -1])
        f = (beta[-1] / se) ** 2
        rows.append((beta[-1], se, f, stats.f.sf(f, 1, df), n * np.log(rss0 / rss1), tau_sq))
    return np.array(rows).T


def random_kernel(rng, n, rank=None, scale=1.0):
    """ZZᵀ of a random factor, mean diagonal `scale`."""
    z = rng.standard_normal((n, n if rank is None else rank))
    k = z @ z.T
    return scale * k / np.trace(k) * n
