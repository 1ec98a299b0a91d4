"""The compiled part of `responses`: each sign change of f′ on the grid refined by Newton, the best optimum of every gene.

The objective and its derivatives are those of `profile`, the rules those of `search.minimise`, for one row of squares ỹ² per
gene. What is compared between optima is the gain over h² = 0,

    f(0) − f(γ) = −N log(1 − Σ ỹ²q / S(0)) − Σ log(1+γλ),   q = γμ/(1+γμ),

which keeps its digits where γ is small. ``error_model="numpy"``: a check for a zero divisor would keep the loops from
vectorising.
"""

from __future__ import annotations

import numpy as np

from annlmm.model.compiled import njit
from annlmm.model.responses import AT_BOUNDARY, INTERIOR, NO_MAXIMUM, STOPPED

FASTMATH = {"reassoc", "contract", "nsz", "arcp"}  # a bare fastmath=True would delete the NaN

MAX_STEPS = 200
LOG, LINEAR, INVERSE = 0, 1, 2  # the scale on which f is differentiated: t = log γ, γ, δ = 1/γ

# Newton's steps are quadratic: one of 1e-6 in log γ leaves an error of about 1e-12.
LOG_TOLERANCE = 1e-6
END_TOLERANCE = 1e-10


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FASTMATH)
def _log_sums(y_sq, mu, gamma):  # type: ignore[no-untyped-def]
    """Σ ỹ²w, S′, S″, Σq and Σqw in t = log γ."""
    s = s1 = s2 = first = second = 0.0
    for i in range(mu.size):
        x = gamma * mu[i]
        w = 1.0 / (1.0 + x)
        q = x * w
        c = y_sq[i] * w
        cq = c * q
        s += c
        s1 -= cq
        s2 += cq * (2.0 * q - 1.0)
        first += q
        second += q * w
    return s, s1, s2, first, second


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FASTMATH)
def _log_determinant(lam, gamma):  # type: ignore[no-untyped-def]
    """Σq and Σqw over other eigenvalues (the full likelihood)."""
    first = second = 0.0
    for i in range(lam.size):
        x = gamma * lam[i]
        w = 1.0 / (1.0 + x)
        q = x * w
        first += q
        second += q * w
    return first, second


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FASTMATH)
def _linear_sums(y_sq, mu, lam, gamma):  # type: ignore[no-untyped-def]
    """Σ ỹ²w and its derivatives in γ, and those of the determinant."""
    s = s1 = s2 = first = second = 0.0
    for i in range(mu.size):
        w = 1.0 / (1.0 + gamma * mu[i])
        c = y_sq[i] * w
        d = w * mu[i]
        s += c
        s1 -= c * d
        s2 += 2.0 * c * d * d
    for i in range(lam.size):
        v = lam[i] / (1.0 + gamma * lam[i])
        first += v
        second -= v * v
    return s, s1, s2, first, second


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FASTMATH)
def _inverse_sums(y_sq, mu, lam, delta):  # type: ignore[no-untyped-def]
    """The same in δ = 1/γ, V ∝ K + δI."""
    s = s1 = s2 = first = second = 0.0
    for i in range(mu.size):
        v = 1.0 / (mu[i] + delta)
        c = y_sq[i] * v
        s += c
        s1 -= c * v
        s2 += 2.0 * c * v * v
    for i in range(lam.size):
        u = 1.0 / (lam[i] + delta)
        first += u
        second -= u * u
    return s, s1, s2, first, second


@njit(nogil=True, cache=True, error_model="numpy")
def _derivatives(scale, x, y_sq, rest, mu, lam, reml, n):  # type: ignore[no-untyped-def]
    """f′ and f″ at x on the scale."""
    if scale == LOG:
        gamma = np.exp(x)
        s, s1, s2, first, second = _log_sums(y_sq, mu, gamma)
        if not reml:
            first, second = _log_determinant(lam, gamma)
    elif scale == LINEAR:
        s, s1, s2, first, second = _linear_sums(y_sq, mu, lam, x)
    else:
        s, s1, s2, first, second = _inverse_sums(y_sq, mu, lam, x)
    if scale != INVERSE:
        s += rest
    ratio = s1 / s
    return n * ratio + first, n * (s2 / s - ratio * ratio) + second


@njit(nogil=True, cache=True, error_model="numpy")
def _root(scale, low, high, x, tolerance, y_sq, rest, mu, lam, reml, n):  # type: ignore[no-untyped-def]
    """The zero of f′ in [low, high] from x: Newton, bisection where it leaves the bracket; and whether it was found."""
    for _ in range(MAX_STEPS):
        first, second = _derivatives(scale, x, y_sq, rest, mu, lam, reml, n)
        if first == 0.0:
            return x, True
        if first < 0.0:
            low = x
        else:
            high = x
        new = x - first / second if second > 0.0 else low
        if not low < new < high:
            new = 0.5 * (low + high)
        step = abs(new - x)
        x = new
        if step <= tolerance:
            return x, True
    return x, False


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FASTMATH)
def _gain(y_sq, rest, total, mu, lam, n, gamma):  # type: ignore[no-untyped-def]
    """f(0) − f(γ), and S(γ)."""
    s, lost = rest, 0.0
    for i in range(mu.size):
        x = gamma * mu[i]
        c = y_sq[i] / (1.0 + x)
        s += c
        lost += c * x
    value = n * np.log1p(-lost / total) if lost < 0.5 * total else n * np.log(s / total)
    # The logs of eight factors are one log of their product.
    product = 1.0
    for i in range(lam.size):
        product *= 1.0 + gamma * lam[i]
        if product > 1e100 or i % 8 == 7:
            value += np.log(product)
            product = 1.0
    return -(value + np.log(product)), s


@njit(nogil=True, cache=True, error_model="numpy")
def _se_log_gamma(gamma, at_one, y_sq, rest, mu, lam, reml, n):  # type: ignore[no-untyped-def]
    """√(2/f″) from the derivative on the scale that is well behaved at γ."""
    if gamma * mu.max() < 1e-3:
        curvature = _derivatives(LINEAR, gamma, y_sq, rest, mu, lam, reml, n)[1] * gamma * gamma
    elif gamma * mu.min() > 1e3 and at_one:
        curvature = _derivatives(INVERSE, 1.0 / gamma, y_sq, rest, mu, lam, reml, n)[1] / (gamma * gamma)
    else:
        curvature = _derivatives(LOG, np.log(gamma), y_sq, rest, mu, lam, reml, n)[1]
    return np.sqrt(2.0 / curvature) if curvature > 0.0 else np.nan


@njit(nogil=True, cache=True, error_model="numpy")
def refine(y_sq, rest, mu, lam, n, df_residual, reml, full, at_one, grid, slopes, out):  # type: ignore[no-untyped-def]
    """Fill `out` (5 × b): γ̂, f(0) − f(γ̂), S(γ̂) (in units of K where γ̂ = ∞), SE(log γ̂) and one of INTERIOR … NO_MAXIMUM.

    `y_sq` is b × k, `rest` b, `slopes` nodes × b with f′ on the grid.
    """
    nodes = grid.size
    step = grid[1] - grid[0]
    start, end = grid[0], grid[nodes - 1]
    nearest, farthest = np.exp(start), np.exp(-end)
    log_lam = 0.0
    if at_one:
        for i in range(lam.size):
            log_lam += np.log(lam[i])
    for j in range(y_sq.shape[0]):
        c, r = y_sq[j], rest[j]
        total = r
        for i in range(mu.size):
            total += c[i]
        # h² = 0 is a candidate; what is found inside has to be better.
        best, gamma, rss, state = 0.0, 0.0, total, AT_BOUNDARY
        for g in range(nodes - 1):
            if slopes[g, j] < 0.0 and slopes[g + 1, j] >= 0.0:
                share = slopes[g, j] / (slopes[g, j] - slopes[g + 1, j])
                x, found = _root(
                    LOG, grid[g], grid[g + 1], grid[g] + share * step, LOG_TOLERANCE, c, r, mu, lam, reml, n
                )
                x = np.exp(x)
                gain, s = _gain(c, r, total, mu, lam, n, x)
                if gain > best:
                    best, gamma, rss, state = gain, x, s, INTERIOR if found else STOPPED
        if slopes[0, j] >= 0.0 and _derivatives(LINEAR, 0.0, c, r, mu, lam, reml, n)[0] < 0.0:
            x, found = _root(LINEAR, 0.0, nearest, 0.5 * nearest, END_TOLERANCE * nearest, c, r, mu, lam, reml, n)
            gain, s = _gain(c, r, total, mu, lam, n, x)
            if gain > best:
                best, gamma, rss, state = gain, x, s, INTERIOR if found else STOPPED
        if not full and slopes[nodes - 1, j] < 0.0:
            # Far out S ≈ rest + Σ ỹ²/(γμ), whose optimum is γ = (n−p−k) Σ(ỹ²/μ) / (k · rest).
            k = mu.size
            scaled = 0.0
            for i in range(k):
                scaled += c[i] / mu[i]
            far = max(np.log((df_residual - k) / k * scaled / r) + 2.0, end + 1.0)
            t, before = end, slopes[nodes - 1, j]
            while t < far:
                after = _derivatives(LOG, t + step, c, r, mu, lam, reml, n)[0]
                if before < 0.0 and after >= 0.0:
                    x, found = _root(LOG, t, t + step, t + 0.5 * step, LOG_TOLERANCE, c, r, mu, lam, reml, n)
                    x = np.exp(x)
                    gain, s = _gain(c, r, total, mu, lam, n, x)
                    if gain > best:
                        best, gamma, rss, state = gain, x, s, INTERIOR if found else STOPPED
                t, before = t + step, after
        if at_one:
            s = 0.0
            for i in range(mu.size):
                s += c[i] / mu[i]
            gain = -(n * np.log(s / total) + log_lam)
            if slopes[nodes - 1, j] < 0.0 and _derivatives(INVERSE, 0.0, c, r, mu, lam, reml, n)[0] < 0.0:
                x, found = _root(
                    INVERSE, 0.0, farthest, 0.5 * farthest, END_TOLERANCE * farthest, c, r, mu, lam, reml, n
                )
                inner, s_inner = _gain(c, r, total, mu, lam, n, 1.0 / x)
                if inner > best:
                    best, gamma, rss, state = inner, 1.0 / x, s_inner, INTERIOR if found else STOPPED
            if gain > best:
                best, gamma, rss, state = gain, np.inf, s, AT_BOUNDARY
        elif (
            full
            and gamma == 0.0
            and slopes[nodes - 1, j] < 0.0
            and _gain(c, r, total, mu, lam, n, np.exp(end))[0] > 0.0
        ):
            state = NO_MAXIMUM
        out[0, j], out[1, j], out[2, j], out[4, j] = gamma, best, rss, state
        out[3, j] = np.nan if state == AT_BOUNDARY else _se_log_gamma(gamma, at_one, c, r, mu, lam, reml, n)
