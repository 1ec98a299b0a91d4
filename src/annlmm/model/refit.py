"""The exact test: γ estimated again with each feature in the model (GEMMA's; Zhou & Stephens 2012).

In the REML space of the null's X, with ã, ỹ the coordinates of a feature and of the response, and the parts outside V,

    A(γ) = Σ w ã² + c_aa,   B(γ) = Σ w ãỹ + c_ay,   C(γ) = Σ w ỹ² + c_yy,   RSS₁ = C − B²/A,
    f(γ) = N log RSS₁ + Σ log(1+γλ) [+ log A],

N = n−p−1, λ = μ and with log A for REML; N = n, λ the eigenvalues of K and without it for ML. In t = log γ every sum S = Σ c w
has S′ = −Σ c w q and S″ = Σ c w q(2q − 1), q = 1 − w.

All features of a block share a grid of γ, two matrix products for A and B; each minimum there is refined by Newton.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from annlmm.model.search import log_gamma_grid
from annlmm.model.space import RemlSpace

Float = NDArray[np.float64]

GRID_STEP = 0.5
TOLERANCE = 1e-9
MAX_STEPS = 100


@dataclass(frozen=True)
class Refit:
    """The optimum for every feature of a block.

    Attributes
    ----------
    gamma
        In [0, ∞]; NaN where the likelihood has no maximum.
    a, b, c
        A, B and C at it (in units of K, times γ, where γ = ∞).
    value
        f at it.
    converged
        Whether Newton met its tolerance.
    """

    gamma: Float
    a: Float
    b: Float
    c: Float
    value: Float
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class Refitter:
    """What every block shares.

    Attributes
    ----------
    mu, log_mu
        Eigenvalues of M K M and their logs.
    y, rest
        ỹ and c_yy.
    logdet
        λ.
    n_effective
        N.
    reml
        Whether log A counts.
    grid
        Nodes of log γ.
    full
        Whether h² = 1 has a finite likelihood.
    unbounded
        Whether the likelihood grows without end as h² → 1 (ML with a centred kernel): only an interior optimum counts.
    """

    mu: Float
    y: Float
    rest: float
    logdet: Float
    n_effective: int
    reml: bool
    grid: Float
    full: bool
    unbounded: bool

    def fit(self, features: Float, outside: Float, cross: Float) -> Refit:
        """Maximise the likelihood for each column of `features` (k × b), with c_aa (b) and c_ay (b)."""
        grid = np.exp(self.grid)
        weights = 1.0 / (1.0 + np.multiply.outer(grid, self.mu))
        node_a = weights @ (features * features) + outside
        node_b = weights @ (features * self.y[:, None]) + cross
        node_c = weights @ (self.y**2) + self.rest
        logdet = np.log1p(np.multiply.outer(grid, self.logdet)).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.n_effective * np.log(node_c[:, None] - node_b**2 / node_a) + logdet[:, None]
            if self.reml:
                values += np.log(node_a)
        out = np.empty((6, features.shape[1]))
        # Rows of features are contiguous per feature in the loops below.
        _refine(
            np.ascontiguousarray(features.T), self.y, self.mu, self.logdet, outside, cross, self.rest,
            float(self.n_effective), self.reml, self.full, self.unbounded, self.grid, np.ascontiguousarray(values.T), out,
        )  # fmt: skip
        gamma, a, b, c, value, converged = out
        return Refit(gamma, a, b, c, value, converged > 0)


def make_refitter(space: RemlSpace, y_tilde: Float, rest: float, *, reml: bool) -> Refitter:
    """For one response; REML for the Wald test, ML for the likelihood ratio."""
    grid = log_gamma_grid(space.mu, GRID_STEP, 0 if space.full else space.df_residual - space.k)
    logdet = space.mu if reml else space.eigenvalues
    n_effective = space.df_residual - 1 if reml else space.n
    full = space.full and (reml or space.eigenvalues.size == space.n)
    unbounded = space.full and not full
    return Refitter(space.mu, y_tilde, 0.0 if space.full else rest, logdet, n_effective, reml, grid, full, unbounded)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _sums(a, y, mu, gamma, out):  # type: ignore[no-untyped-def]
    """A, B, C and their first and second derivatives in log γ, without the parts outside V."""
    s_a = s_b = s_c = d_a = d_b = d_c = e_a = e_b = e_c = 0.0
    for i in range(a.size):
        w = 1.0 / (1.0 + gamma * mu[i])
        q = 1.0 - w
        wq = w * q
        wr = wq * (2.0 * q - 1.0)
        aa = a[i] * a[i]
        ab = a[i] * y[i]
        yy = y[i] * y[i]
        s_a += w * aa
        s_b += w * ab
        s_c += w * yy
        d_a -= wq * aa
        d_b -= wq * ab
        d_c -= wq * yy
        e_a += wr * aa
        e_b += wr * ab
        e_c += wr * yy
    out[0] = s_a
    out[1] = s_b
    out[2] = s_c
    out[3] = d_a
    out[4] = d_b
    out[5] = d_c
    out[6] = e_a
    out[7] = e_b
    out[8] = e_c


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _logdet(eigenvalues, gamma, out):  # type: ignore[no-untyped-def]
    """Σ log(1+γλ) and its derivatives in log γ; the logs of eight factors are one log of their product."""
    value = first = second = 0.0
    product = 1.0
    for i in range(eigenvalues.size):
        x = gamma * eigenvalues[i]
        w = 1.0 / (1.0 + x)
        q = x * w
        first += q
        second += q * w
        product *= 1.0 + x
        if product > 1e100 or i % 8 == 7:
            value += np.log(product)
            product = 1.0
    out[0] = value + np.log(product)
    out[1] = first
    out[2] = second


@njit(nogil=True, cache=True)
def _objective(a, y, mu, logdet, outside, cross, rest, n_effective, reml, t, sums, det):  # type: ignore[no-untyped-def]
    """f, f′ and f″ at t = log γ; `sums` keeps A, B, C."""
    gamma = np.exp(t)
    _sums(a, y, mu, gamma, sums)
    _logdet(logdet, gamma, det)
    sums[0] += outside
    sums[1] += cross
    sums[2] += rest
    big_a, big_b = sums[0], sums[1]
    ratio = big_b / big_a
    rss = sums[2] - big_b * ratio
    # R = C − B²/A: R′ = C′ − 2ρB′ + ρ²A′, R″ = C″ − 2ρB″ + ρ²A″ − 2(B′ − ρA′)²/A with ρ = B/A.
    slope = sums[4] - ratio * sums[3]
    first = sums[5] - 2.0 * ratio * sums[4] + ratio * ratio * sums[3]
    second = sums[8] - 2.0 * ratio * sums[7] + ratio * ratio * sums[6] - 2.0 * slope * slope / big_a
    value = n_effective * np.log(rss) + det[0]
    d1 = n_effective * first / rss + det[1]
    d2 = n_effective * (second / rss - (first / rss) ** 2) + det[2]
    if reml:
        value += np.log(big_a)
        d1 += sums[3] / big_a
        d2 += sums[6] / big_a - (sums[3] / big_a) ** 2
    return value, d1, d2


@njit(nogil=True, cache=True)
def _refine(features, y, mu, logdet, outside, cross, rest, n_effective, reml, full, unbounded, grid, values, out):  # type: ignore[no-untyped-def]
    """Every minimum of the grid by Newton with bisection; the best of them and of the ends h² = 0 and h² = 1."""
    sums, det = np.empty(9), np.empty(3)
    nodes = grid.size
    for j in range(features.shape[0]):
        a = features[j]
        best = np.inf
        for g in range(nodes):
            lower_edge, upper_edge = g == 0, g == nodes - 1
            if upper_edge and unbounded:
                continue
            if upper_edge and unbounded:
                continue
            if not lower_edge and not values[j, g] <= values[j, g - 1]:
                continue
            if not upper_edge and not values[j, g] <= values[j, g + 1]:
                continue
            low = grid[g] if lower_edge else grid[g - 1]
            high = grid[g] if upper_edge else grid[g + 1]
            if lower_edge:
                low -= 7.0  # γ μ below 1e-6: h² = 0 but for rounding
            if upper_edge:
                high += 7.0
            t = grid[g]
            converged = False
            value = np.inf
            for _ in range(MAX_STEPS):
                value, d1, d2 = _objective(
                    a, y, mu, logdet, outside[j], cross[j], rest, n_effective, reml, t, sums, det
                )
                if d1 < 0:
                    low = t
                else:
                    high = t
                new = t - d1 / d2 if d2 > 0 else np.inf
                if not low < new < high:
                    new = 0.5 * (low + high)
                # Newton is quadratic: a step of 1e-5 leaves 1e-10.
                done = abs(new - t) <= 1e-5 * 3.0
                t = new
                if done:
                    converged = True
                    break
            if converged:
                value, d1, d2 = _objective(
                    a, y, mu, logdet, outside[j], cross[j], rest, n_effective, reml, t, sums, det
                )
            if value < best:
                best = value
                out[0, j] = np.exp(t)
                out[1, j], out[2, j], out[3, j], out[4, j] = sums[0], sums[1], sums[2], value
                out[5, j] = 1.0 if converged else 0.0
        s_a, s_b, s_c = outside[j], cross[j], rest
        for i in range(a.size):
            s_a += a[i] * a[i]
            s_b += a[i] * y[i]
            s_c += y[i] * y[i]
        value = n_effective * np.log(s_c - s_b * s_b / s_a)
        if reml:
            value += np.log(s_a)
        if value <= best:
            best = value
            out[0, j], out[1, j], out[2, j], out[3, j], out[4, j], out[5, j] = 0.0, s_a, s_b, s_c, value, 1.0
        if unbounded and out[0, j] == 0.0 and values[j, nodes - 1] < best:
            out[0, j], out[5, j] = np.nan, 0.0
        if full:
            s_a = s_b = s_c = 0.0
            value = 0.0
            for i in range(a.size):
                v = 1.0 / mu[i]
                s_a += a[i] * a[i] * v
                s_b += a[i] * y[i] * v
                s_c += y[i] * y[i] * v
            for i in range(logdet.size):
                value += np.log(logdet[i])
            value += n_effective * np.log(s_c - s_b * s_b / s_a)
            if reml:
                value += np.log(s_a)
            if value < best:
                out[0, j], out[1, j], out[2, j], out[3, j], out[4, j], out[5, j] = np.inf, s_a, s_b, s_c, value, 1.0
