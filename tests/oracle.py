"""A naive dense oracle: the textbook formulas with n × n matrices and a brute-force search, independent of the package.

Imported by the tests as `oracle` (pytest's `pythonpath`); nothing in it is shared with `annlmm`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, stats


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


def design(rng, n, p):
    """An intercept and p − 1 standard normal covariates."""
    return np.column_stack([np.ones(n), rng.standard_normal((n, p - 1))])


def response(rng, x, k, gamma, beta=None):
    """One y ~ N(Xβ, γK + I)."""
    y = linalg.sqrtm(gamma * k + np.eye(len(x))).real @ rng.standard_normal(len(x))
    return y + x @ (np.arange(1, x.shape[1] + 1) if beta is None else beta)


def group_kernel(codes, relatedness=None):
    """Z K_d Zᵀ."""
    z = (codes[:, None] == np.arange(codes.max() + 1)).astype(float)
    return z @ (np.eye(z.shape[1]) if relatedness is None else relatedness) @ z.T


def centring(n):
    """H = I − 11ᵀ/n."""
    return np.eye(n) - 1.0 / n


def residual_eigenvalues(x, k):
    """The n − p eigenvalues of NᵀKN, N an orthonormal basis of the complement of X, ascending."""
    complement = linalg.null_space(x.T)
    return np.linalg.eigvalsh(complement.T @ k @ complement)


def profile_value(mu, y_sq, rest, logdet_eigenvalues, n_effective, gamma):
    """−2 × the profiled log-likelihood up to a constant, for an array of γ."""
    gamma = np.asarray(gamma, dtype=float)[..., None]
    rss = (y_sq / (1 + gamma * mu)).sum(axis=-1) + rest
    return n_effective * np.log(rss) + np.log(1 + gamma * logdet_eigenvalues).sum(axis=-1)


def blup(y, x, k, gamma):
    """γK(I+γK)⁻¹(y − Xβ̂) and the residual y − Xβ̂ − blup."""
    beta = log_likelihood(y, x, k, gamma)[1]
    e = y - x @ beta
    u = gamma * k @ np.linalg.solve(np.eye(len(y)) + gamma * k, e)
    return u, e - u


def _projector(x, k, theta):
    """P = V⁻¹ − V⁻¹X(XᵀV⁻¹X)⁻¹XᵀV⁻¹ and C = (XᵀV⁻¹X)⁻¹ for V = θ₀K + θ₁I; θ may be complex (no conjugation)."""
    v_inverse = np.linalg.inv(theta[0] * k + theta[1] * np.eye(len(k)))
    c = np.linalg.inv(x.T @ v_inverse @ x)
    return v_inverse - v_inverse @ x @ c @ x.T @ v_inverse, c


def reml_deviance(y, x, k, sigma_sq, tau_sq):
    """−2 × the restricted log-likelihood of (σ², τ²), up to a constant."""
    v = sigma_sq * k + tau_sq * np.eye(len(y))
    p, c = _projector(x, k, (sigma_sq, tau_sq))
    return np.linalg.slogdet(v)[1] - np.linalg.slogdet(c)[1] + y @ p @ y


def score(y, x, k, theta, *, reml=True):
    """Gradient of the deviance: tr(P V_a) − yᵀP V_a P y, with V⁻¹ for P in the trace of the full likelihood."""
    p, _ = _projector(x, k, theta)
    py = p @ y
    inside = p if reml else np.linalg.inv(theta[0] * k + theta[1] * np.eye(len(k)))
    return np.array([np.trace(inside @ v) - py @ v @ py for v in (k, np.eye(len(y)))])


def satterthwaite(y, x, k, contrast, sigma_sq, tau_sq, *, expected=False, reml=True):
    """ν = 2v²/(gᵀ𝓘⁻¹g): 𝓘 and g by complex steps, or the expected information ½ tr(P V_a P V_b)."""
    theta, step = np.array([sigma_sq, tau_sq]), 1e-30
    information, gradient = np.zeros((2, 2)), np.zeros(2)
    for a in range(2):
        moved = theta.astype(complex)
        moved[a] += 1j * step
        information[a] = 0.5 * score(y, x, k, moved, reml=reml).imag / step
        gradient[a] = (contrast @ _projector(x, k, moved)[1] @ contrast).imag / step
    p, c = _projector(x, k, theta)
    if expected:
        parts = [p @ k, p]
        information = np.array([[0.5 * np.trace(a @ b) for b in parts] for a in parts])
    v = contrast @ c @ contrast
    return 2 * v**2 / (gradient @ np.linalg.solve(information, gradient))


def h_sq_curvature(y, x, k, h, *, reml=True):
    """−d²ℓ/dh² of the dense profile in h², a fourth-order central difference of step 1e-3 of the distance to the ends."""
    step = 1e-2 * min(h, 1 - h)

    def value(at):
        return log_likelihood(y, x, k, at / (1 - at), reml=reml)[0]

    outer = value(h - 2 * step) + value(h + 2 * step)
    inner = value(h - step) + value(h + step)
    return (outer - 16 * inner + 30 * value(h)) / (12 * step**2)
