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
LAST_STEP = 3e-5
MAX_STEPS = 100
# Beyond the grid by this much γμ is below 1e-6, or above 1e6: h² = 0 or 1 but for rounding.
EDGE = 7.0
# Taylor to this order, half a step away: 16⁻⁹/9! of the ninth derivative, below rounding.
TABLE_STEP, ORDERS = 0.125, 9
# Features that are worked on while they are in cache.
CHUNK = 128


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
    mu
        Eigenvalues of M K M.
    y, rest
        ỹ and c_yy.
    n_effective
        N.
    reml
        Whether log A counts.
    grid
        Nodes of log γ.
    node_weights, node_c, node_logdet
        w (nodes × k), C and Σ log(1+γλ) at them; after the nodes of the grid come γ = 0 and γ = ∞ (w = 1/μ, Σ log λ).
    table_start, table
        First t and Taylor coefficients in t of Σ log(1+γλ) and of C, which all features share (points × 2 × orders).
    full
        Whether h² = 1 has a finite likelihood.
    unbounded
        Whether the likelihood grows without end as h² → 1 (ML with a centred kernel): only an interior optimum counts.
    """

    mu: Float
    y: Float
    rest: float
    n_effective: int
    reml: bool
    grid: Float
    node_weights: Float
    node_c: Float
    node_logdet: Float
    table_start: float
    table: Float
    full: bool
    unbounded: bool

    def fit(self, features: Float, outside: Float, cross: Float) -> Refit:
        """Maximise the likelihood for each column of `features` (k × b), with c_aa (b) and c_ay (b)."""
        rows = np.ascontiguousarray(features.T)
        out = np.empty((6, rows.shape[0]))
        for start in range(0, rows.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            self._fit(rows[part], outside[part], cross[part], out[:, part])
        gamma, a, b, c, value, converged = out
        return Refit(gamma, a, b, c, value, converged > 0)

    def _fit(self, features: Float, outside: Float, cross: Float, out: Float) -> None:
        """A few features (b × k), each contiguous."""
        node_a = (features * features) @ self.node_weights.T
        node_b = (features * self.y) @ self.node_weights.T
        # The last node is γ = ∞, where nothing is outside K.
        node_a[:, :-1] += outside[:, None]
        node_b[:, :-1] += cross[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.n_effective * np.log(self.node_c - node_b**2 / node_a) + self.node_logdet
            if self.reml:
                values += np.log(node_a)
        _refine(
            features, self.y, self.mu, outside, cross, float(self.n_effective), self.reml, self.full, self.unbounded,
            self.grid, self.table_start, self.table, values, node_a, node_b, self.node_c, out,
        )  # fmt: skip


def make_refitter(space: RemlSpace, y_tilde: Float, rest: float, *, reml: bool) -> Refitter:
    """For one response; REML for the Wald test, ML for the likelihood ratio."""
    grid = log_gamma_grid(space.mu, GRID_STEP, 0 if space.full else space.df_residual - space.k)
    mu, logdet = space.mu, space.mu if reml else space.eigenvalues
    full = space.full and (reml or space.eigenvalues.size == space.n)
    rest = 0.0 if space.full else rest
    gamma = np.r_[np.exp(grid), 0.0]
    with np.errstate(divide="ignore"):
        weights = np.vstack([1.0 / (1.0 + np.multiply.outer(gamma, mu)), 1.0 / mu])
        node_logdet = np.r_[np.log1p(np.multiply.outer(gamma, logdet)).sum(axis=1), np.log(logdet).sum()]
    node_c = weights @ y_tilde**2
    node_c[:-1] += rest
    # Beyond the grid f is searched EDGE further.
    start = float(grid[0]) - EDGE
    count = int(np.ceil((grid[-1] + EDGE - start) / TABLE_STEP)) + 1
    points: Float = start + TABLE_STEP * np.arange(count, dtype=np.float64)
    table = np.stack([_logdet_taylor(points, logdet), _taylor(points, mu, y_tilde**2)], axis=1)
    table[:, 1, 0] += rest
    return Refitter(
        mu=np.ascontiguousarray(mu),
        y=np.ascontiguousarray(y_tilde),
        rest=rest,
        n_effective=space.df_residual - 1 if reml else space.n,
        reml=reml,
        grid=grid,
        node_weights=weights,
        node_c=node_c,
        node_logdet=node_logdet,
        table_start=start,
        table=np.ascontiguousarray(table),
        full=full,
        unbounded=space.full and not full,
    )


def _taylor(points: Float, mu: Float, c: Float) -> Float:
    """Taylor coefficients in t of Σ c w, w = 1/(1+e^t μ), about each point; w′ = w² − w."""
    w = 1.0 / (1.0 + np.multiply.outer(np.exp(points), mu))
    powers, product = [np.full(points.size, c.sum())], w * c
    for _ in range(ORDERS):
        powers.append(product.sum(axis=1))
        product *= w
    moments = np.stack(powers, axis=1)
    polynomial, factorial, out = np.polynomial.Polynomial([0.0, 1.0]), 1.0, []
    for order in range(ORDERS):
        out.append(moments[:, : polynomial.coef.size] @ polynomial.coef / factorial)
        polynomial = polynomial.deriv() * np.polynomial.Polynomial([0.0, -1.0, 1.0])
        factorial *= order + 1
    return np.stack(out, axis=1)


def _logdet_taylor(points: Float, eigenvalues: Float) -> Float:
    """The same of L = Σ log(1+e^t λ), L′ = Σ (1 − w)."""
    slope = -_taylor(points, eigenvalues, np.ones_like(eigenvalues))
    slope[:, 0] += eigenvalues.size
    value = np.log1p(np.multiply.outer(np.exp(points), eigenvalues)).sum(axis=1)
    return np.column_stack([value, slope[:, :-1] / np.arange(1, ORDERS)])


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _sums(a, y, mu, gamma, out):  # type: ignore[no-untyped-def]
    """A and B and their first and second derivatives in log γ, without the parts outside V."""
    s_a = s_b = d_a = d_b = e_a = e_b = 0.0
    for i in range(a.size):
        w = 1.0 / (1.0 + gamma * mu[i])
        q = 1.0 - w
        wq = w * q
        wr = wq * (q - w)
        aa = a[i] * a[i]
        ab = a[i] * y[i]
        s_a += w * aa
        s_b += w * ab
        d_a -= wq * aa
        d_b -= wq * ab
        e_a += wr * aa
        e_b += wr * ab
    out[0] = s_a
    out[1] = s_b
    out[3] = d_a
    out[4] = d_b
    out[6] = e_a
    out[7] = e_b


@njit(nogil=True, cache=True)
def _shared(table, start, t, out):  # type: ignore[no-untyped-def]
    """Value and two derivatives at t of the tabulated log determinant and, into `out`, of C; returns the former."""
    node = min(max(int((t - start) / TABLE_STEP + 0.5), 0), table.shape[0] - 1)
    x = t - (start + TABLE_STEP * node)
    total = np.zeros(6)
    for s in range(2):
        value = first = second = 0.0
        for k in range(ORDERS - 1, -1, -1):  # Horner, with its derivatives
            second = second * x + first
            first = first * x + value
            value = value * x + table[node, s, k]
        total[3 * s], total[3 * s + 1], total[3 * s + 2] = value, first, 2.0 * second
    out[2], out[5], out[8] = total[3], total[4], total[5]
    return total[0], total[1], total[2]


@njit(nogil=True, cache=True)
def _objective(a, y, mu, outside, cross, n_effective, reml, t, start, table, sums):  # type: ignore[no-untyped-def]
    """f, f′ and f″ at t = log γ; `sums` keeps A, B, C and their derivatives."""
    _sums(a, y, mu, np.exp(t), sums)
    logdet, logdet_1, logdet_2 = _shared(table, start, t, sums)
    sums[0] += outside
    sums[1] += cross
    big_a, big_b = sums[0], sums[1]
    ratio = big_b / big_a
    rss = sums[2] - big_b * ratio
    # R = C − B²/A: R′ = C′ − 2ρB′ + ρ²A′, R″ = C″ − 2ρB″ + ρ²A″ − 2(B′ − ρA′)²/A with ρ = B/A.
    slope = sums[4] - ratio * sums[3]
    first = sums[5] - 2.0 * ratio * sums[4] + ratio * ratio * sums[3]
    second = sums[8] - 2.0 * ratio * sums[7] + ratio * ratio * sums[6] - 2.0 * slope * slope / big_a
    value = n_effective * np.log(rss) + logdet
    d1 = n_effective * first / rss + logdet_1
    d2 = n_effective * (second / rss - (first / rss) ** 2) + logdet_2
    if reml:
        value += np.log(big_a)
        d1 += sums[3] / big_a
        d2 += sums[6] / big_a - (sums[3] / big_a) ** 2
    return value, d1, d2


@njit(nogil=True, cache=True)
def _start(values, g, grid):  # type: ignore[no-untyped-def]
    """Where the quartic through five nodes about a minimum of the grid is flat; the node itself near an end."""
    if g < 2 or g > grid.size - 3:
        return grid[g]
    h = grid[1] - grid[0]
    f_2, f_1, f0, f1, f2 = values[g - 2], values[g - 1], values[g], values[g + 1], values[g + 2]
    d1 = (f_2 - 8.0 * f_1 + 8.0 * f1 - f2) / 12.0
    d2 = (-f_2 + 16.0 * f_1 - 30.0 * f0 + 16.0 * f1 - f2) / 12.0
    d3 = (-f_2 + 2.0 * f_1 - 2.0 * f1 + f2) / 2.0
    d4 = f_2 - 4.0 * f_1 + 6.0 * f0 - 4.0 * f1 + f2
    x = 0.0
    for _ in range(4):
        curvature = d2 + d3 * x + 0.5 * d4 * x * x
        if curvature <= 0.0:
            return grid[g]
        x -= (d1 + d2 * x + 0.5 * d3 * x * x + d4 * x**3 / 6.0) / curvature
    return grid[g] + h * x if abs(x) < 1.0 else grid[g]


@njit(nogil=True, cache=True)
def _refine(  # type: ignore[no-untyped-def]
    features,
    y,
    mu,
    outside,
    cross,
    n_effective,
    reml,
    full,
    unbounded,
    grid,
    start,
    table,
    values,
    node_a,
    node_b,
    node_c,
    out,
):
    """Every minimum of the grid by Newton with bisection; the best of them and of the ends h² = 0 and h² = 1."""
    sums = np.empty(9)
    nodes = grid.size
    for j in range(features.shape[0]):
        a = features[j]
        best = np.inf
        for g in range(nodes):
            lower_edge, upper_edge = g == 0, g == nodes - 1
            if upper_edge and unbounded:
                continue
            if not lower_edge and not values[j, g] <= values[j, g - 1]:
                continue
            if not upper_edge and not values[j, g] <= values[j, g + 1]:
                continue
            low = grid[g] if lower_edge else grid[g - 1]
            high = grid[g] if upper_edge else grid[g + 1]
            if lower_edge:
                low -= EDGE
            if upper_edge:
                high += EDGE
            t = _start(values[j], g, grid)
            converged = False
            value = np.inf
            for _ in range(MAX_STEPS):
                value, d1, d2 = _objective(a, y, mu, outside[j], cross[j], n_effective, reml, t, start, table, sums)
                if d1 < 0:
                    low = t
                else:
                    high = t
                new = t - d1 / d2 if d2 > 0 else np.inf
                if not low < new < high:
                    new = 0.5 * (low + high)
                step = new - t
                t = new
                # Newton is quadratic: a step of 3e-5 leaves 1e-9; A, B, C and f follow it by their own derivatives.
                if abs(step) <= LAST_STEP:
                    for k in range(3):
                        sums[k] += step * (sums[k + 3] + 0.5 * step * sums[k + 6])
                    value += step * (d1 + 0.5 * step * d2)
                    converged = True
                    break
            if value < best:
                best = value
                out[0, j] = np.exp(t)
                out[1, j], out[2, j], out[3, j], out[4, j] = sums[0], sums[1], sums[2], value
                out[5, j] = 1.0 if converged else 0.0
        for end in range(2):
            if end == 1 and not full:
                continue
            g = nodes + end
            if values[j, g] < best or (end == 0 and values[j, g] == best):
                best = values[j, g]
                out[0, j] = np.inf if end == 1 else 0.0
                out[1, j], out[2, j], out[3, j], out[4, j], out[5, j] = node_a[j, g], node_b[j, g], node_c[g], best, 1.0
            if end == 0 and unbounded and out[0, j] == 0.0 and values[j, nodes - 1] < best:
                out[0, j], out[5, j] = np.nan, 0.0
