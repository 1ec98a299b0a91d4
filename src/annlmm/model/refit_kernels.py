"""The compiled part of `refit`: the global optimum of every feature's likelihood, with the symbols of that file."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from annlmm.model.compiled import njit

Float = NDArray[np.float64]

# Quintic interpolation of Σ log(1+γλ), whose sixth derivative is below r/4: an error below r · 1e-14.
TABLE_STEP = 1.0 / 32.0
# Newton's steps are quadratic: one of 3e-5 leaves less than 1e-9, and sums that follow it to second order lose nothing.
TOLERANCE = 3e-5
MAX_STEPS = 100
# Share of C below which RSS₁ has too few digits left on the thinned spectrum.
SAFE = 1e-3
# What an interval of the grid is widened by where the spectrum itself is used: the thinned one may be off by a rounding.
WIDENED = 1e-3

# Without Python's check for a zero divisor, which keeps loops from being vectorised; a bare fastmath would delete the NaN.
_JIT: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}


class Spectrum(NamedTuple):
    """Eigenvalues with ỹ²; w and −wq = dw/d log γ on the grid (nodes × k), C and C′ there."""

    mu: Float
    y_sq: Float
    weights: Float
    slopes: Float
    node_c: Float
    node_slope: Float


class Likelihood(NamedTuple):
    """What f consists of besides the feature.

    Attributes
    ----------
    n, reml, rest
        N, whether log A counts, c_yy.
    grid
        Nodes of log γ.
    table
        Σ log(1+γλ) and its two derivatives in log γ (3 × steps), from `WIDENED` below the grid on.
    logdet_slope
        The first derivative on the grid.
    logdet_one
        Σ log λ; ∞ where h² = 1 has no finite likelihood.
    unbounded
        Whether the likelihood grows without end as h² → 1 (ML with a centred kernel): only an interior optimum counts.
    """

    n: float
    reml: bool
    rest: float
    grid: Float
    table: Float
    logdet_slope: Float
    logdet_one: float
    unbounded: bool


@njit(**_JIT)
def tabulate(lam, start, table):  # type: ignore[no-untyped-def]
    """Σ log(1+γλ) and its derivatives in log γ; the logs of eight factors are one log of their product."""
    for i in range(table.shape[1]):
        gamma = np.exp(start + i * TABLE_STEP)
        first = second = value = 0.0
        for j in range(lam.size):
            x = gamma * lam[j]
            w = 1.0 / (1.0 + x)
            q = x * w
            first += q
            second += q * w
        product = 1.0
        for j in range(lam.size):
            product *= 1.0 + gamma * lam[j]
            if product > 1e100 or j % 8 == 7:
                value += np.log(product)
                product = 1.0
        table[0, i], table[1, i], table[2, i] = value + np.log(product), first, second


@njit(**_JIT)
def _logdet(model, t):  # type: ignore[no-untyped-def]
    """Σ log(1+γλ), its first and second derivative at t: Hermite's quintic between two entries of the table."""
    h, table = TABLE_STEP, model.table
    x = (t - model.grid[0] + WIDENED) / h
    i = int(x)
    x -= i
    f, d, s = table[0, i], table[1, i] * h, table[2, i] * h * h
    rise = table[0, i + 1] - f - d - 0.5 * s
    slope = table[1, i + 1] * h - d - s
    bend = table[2, i + 1] * h * h - s
    c3 = 10.0 * rise - 4.0 * slope + 0.5 * bend
    c4 = 7.0 * slope - 15.0 * rise - bend
    c5 = 6.0 * rise - 3.0 * slope + 0.5 * bend
    value = f + x * (d + x * (0.5 * s + x * (c3 + x * (c4 + x * c5))))
    first = d + x * (s + x * (3.0 * c3 + x * (4.0 * c4 + x * 5.0 * c5)))
    second = s + x * (6.0 * c3 + x * (12.0 * c4 + x * 20.0 * c5))
    return value, first / h, second / (h * h)


@njit(**_JIT)
def _thin(aa, ab, bins, lagrange, thin_aa, thin_ab):  # type: ignore[no-untyped-def]
    """ĉ = Σ L(log μᵢ) cᵢ of ã² and ãỹ, two nodes at a time."""
    nodes = lagrange.shape[0]
    for s in range(bins.size - 1):
        a, b = aa[bins[s] : bins[s + 1]], ab[bins[s] : bins[s + 1]]
        for m in range(0, nodes, 2):
            first, second = lagrange[m, bins[s] : bins[s + 1]], lagrange[m + 1, bins[s] : bins[s + 1]]
            a_1 = b_1 = a_2 = b_2 = 0.0
            for i in range(a.size):
                a_1 += first[i] * a[i]
                b_1 += first[i] * b[i]
                a_2 += second[i] * a[i]
                b_2 += second[i] * b[i]
            node = s * nodes + m
            thin_aa[node], thin_ab[node], thin_aa[node + 1], thin_ab[node + 1] = a_1, b_1, a_2, b_2


@njit(**_JIT)
def _on_grid(aa, ab, spectrum, outside, cross, model, slopes):  # type: ignore[no-untyped-def]
    """f′ at every node into `slopes`, and whether RSS₁ is safe at all of them."""
    safe = True
    for g in range(slopes.size):
        weights, fall = spectrum.weights[g], spectrum.slopes[g]
        a, b, d_a, d_b = outside, cross, 0.0, 0.0
        for i in range(aa.size):
            a += weights[i] * aa[i]
            b += weights[i] * ab[i]
            d_a += fall[i] * aa[i]
            d_b += fall[i] * ab[i]
        ratio = b / a
        rss = spectrum.node_c[g] - b * ratio
        safe &= rss > SAFE * spectrum.node_c[g]
        first = spectrum.node_slope[g] - 2.0 * ratio * d_b + ratio * ratio * d_a
        slopes[g] = model.n * first / rss + model.logdet_slope[g] + (d_a / a if model.reml else 0.0)
    return safe


@njit(**_JIT)
def _sums(aa, ab, spectrum, gamma):  # type: ignore[no-untyped-def]
    """A, B, C and their first and second derivatives in log γ (S′ = −Σ c w q, S″ = Σ c w q(2q − 1), q = 1 − w), within V."""
    mu, y_sq = spectrum.mu, spectrum.y_sq
    s_a = s_b = s_c = d_a = d_b = d_c = e_a = e_b = e_c = 0.0
    for i in range(mu.size):
        x = gamma * mu[i]
        w = 1.0 / (1.0 + x)
        q = x * w
        r = 2.0 * q - 1.0
        a, b, c = w * aa[i], w * ab[i], w * y_sq[i]
        s_a += a
        s_b += b
        s_c += c
        a, b, c = a * q, b * q, c * q
        d_a -= a
        d_b -= b
        d_c -= c
        e_a += a * r
        e_b += b * r
        e_c += c * r
    return s_a, s_b, s_c, d_a, d_b, d_c, e_a, e_b, e_c


@njit(**_JIT)
def _newton(aa, ab, spectrum, outside, cross, model, low, t, high):  # type: ignore[no-untyped-def]
    """The minimum of f in [low, high] from t: Newton, bisection where it leaves the interval. Also A, B, C and success."""
    for _ in range(MAX_STEPS):
        s_a, s_b, s_c, d_a, d_b, d_c, e_a, e_b, e_c = _sums(aa, ab, spectrum, np.exp(t))
        s_a, s_b, s_c = s_a + outside, s_b + cross, s_c + model.rest
        _, first, second = _logdet(model, t)
        # R = C − B²/A: R′ = C′ − 2ρB′ + ρ²A′, R″ = C″ − 2ρB″ + ρ²A″ − 2(B′ − ρA′)²/A with ρ = B/A.
        ratio = s_b / s_a
        rss = s_c - s_b * ratio
        slope = d_b - ratio * d_a
        r_1 = (d_c - 2.0 * ratio * d_b + ratio * ratio * d_a) / rss
        r_2 = (e_c - 2.0 * ratio * e_b + ratio * ratio * e_a - 2.0 * slope * slope / s_a) / rss
        first += model.n * r_1
        second += model.n * (r_2 - r_1 * r_1)
        if model.reml:
            first += d_a / s_a
            second += e_a / s_a - (d_a / s_a) ** 2
        if first < 0:
            low = t
        else:
            high = t
        new = t - first / second if second > 0 else low
        if not low < new < high:
            new = 0.5 * (low + high)
        step = new - t
        t = new
        if abs(step) <= TOLERANCE:
            s_a += step * (d_a + 0.5 * step * e_a)
            s_b += step * (d_b + 0.5 * step * e_b)
            s_c += step * (d_c + 0.5 * step * e_c)
            return t, s_a, s_b, s_c, True
    return t, s_a, s_b, s_c, False


@njit(**_JIT)
def _at_one(aa, ab, spectrum):  # type: ignore[no-untyped-def]
    """A, B and C at γ = ∞, times γ."""
    s_a = s_b = s_c = 0.0
    for i in range(aa.size):
        w = 1.0 / spectrum.mu[i]
        s_a += w * aa[i]
        s_b += w * ab[i]
        s_c += w * spectrum.y_sq[i]
    return s_a, s_b, s_c


@njit(**_JIT)
def _value(model, a, b, c, logdet):  # type: ignore[no-untyped-def]
    """f from A, B, C and Σ log(1+γλ)."""
    value = model.n * np.log(c - b * b / a) + logdet
    return value + np.log(a) if model.reml else value


@njit(**_JIT)
def refine(features, y, spectrum, thinned, bins, lagrange, outside, cross, model, out):  # type: ignore[no-untyped-def]
    """Fill `out` (6 × b): γ̂, A, B, C, f and success; NaN where there is no maximum.

    `features` is b × k or wider, `lagrange` nodes per bin × k, `bins` the first eigenvalue of each bin and k.
    """
    grid, k, last = model.grid, spectrum.mu.size, model.grid.size - 1
    aa, ab = np.empty(k), np.empty(k)
    thin_aa, thin_ab = np.empty(thinned.mu.size), np.empty(thinned.mu.size)
    slopes = np.empty(grid.size)
    c_zero = model.rest + spectrum.y_sq.sum()
    for j in range(features.shape[0]):
        a, c_aa, c_ay = features[j], outside[j], cross[j]
        a_zero, b_zero = c_aa, c_ay
        for i in range(k):
            square, product = a[i] * a[i], a[i] * y[i]
            aa[i], ab[i] = square, product
            a_zero += square
            b_zero += product
        _thin(aa, ab, bins, lagrange, thin_aa, thin_ab)
        safe = _on_grid(thin_aa, thin_ab, thinned, c_aa, c_ay, model, slopes)
        if not safe:
            _on_grid(aa, ab, spectrum, c_aa, c_ay, model, slopes)
        # h² = 0 is a candidate; what is found inside has to be better.
        best = _value(model, a_zero, b_zero, c_zero, 0.0)
        out[0, j], out[1, j], out[2, j], out[3, j], out[5, j] = 0.0, a_zero, b_zero, c_zero, 1.0
        for g in range(last - 1 if model.unbounded else last):
            if not (slopes[g] < 0.0 and slopes[g + 1] >= 0.0):
                continue
            low, high = grid[g], grid[g + 1]
            t = low + (high - low) * slopes[g] / (slopes[g] - slopes[g + 1])
            if safe:
                t = _newton(thin_aa, thin_ab, thinned, c_aa, c_ay, model, low, t, high)[0]
            low, high = low - WIDENED, high + WIDENED
            t, s_a, s_b, s_c, converged = _newton(aa, ab, spectrum, c_aa, c_ay, model, low, t, high)
            value = _value(model, s_a, s_b, s_c, _logdet(model, t)[0])
            if value < best:
                best = value
                out[0, j], out[1, j], out[2, j], out[3, j], out[5, j] = np.exp(t), s_a, s_b, s_c, converged
        if slopes[last] < 0.0 and not model.unbounded:
            # h² = 1, or as far as f was searched.
            gamma, logdet = np.inf, model.logdet_one
            s_a, s_b, s_c = _at_one(aa, ab, spectrum)
            at_one = logdet < np.inf
            if not at_one:
                gamma, logdet = np.exp(grid[last]), _logdet(model, grid[last])[0]
                far = _sums(aa, ab, spectrum, gamma)
                s_a, s_b, s_c = far[0] + c_aa, far[1] + c_ay, far[2] + model.rest
            value = _value(model, s_a, s_b, s_c, logdet)
            if value < best:
                best = value
                out[0, j], out[1, j], out[2, j], out[3, j], out[5, j] = gamma, s_a, s_b, s_c, at_one
        if model.unbounded and out[0, j] == 0.0 and slopes[last - 1] < 0.0:
            far = _sums(aa, ab, spectrum, np.exp(grid[last - 1]))
            if _value(model, far[0], far[1], far[2], _logdet(model, grid[last - 1])[0]) < best:
                out[0, j], out[5, j] = np.nan, 0.0
        out[4, j] = best
