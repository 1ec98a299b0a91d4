"""Registry of the tests of one feature: each maps R² = num²/(den·RSS₀) to a statistic and a p-value.

All are monotone in R², which under the null and at the true γ is Beta(½, (n−p−1)/2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincc, betaln, log_ndtr

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Statistic, denominator degrees of freedom (NaN for χ²) and natural log of the p-value."""

    statistic: Float
    df: float
    log_p_value: Float


def wald(r_sq: Float, n: int, p: int) -> Outcome:
    """F = (n−p−1) R²/(1−R²) on F(1, n−p−1): exact given γ."""
    df = n - p - 1
    with np.errstate(divide="ignore"):
        statistic = df * r_sq / (1.0 - r_sq)
    return Outcome(statistic, float(df), log_f_sf(statistic, df))


def lrt(r_sq: Float, n: int, p: int) -> Outcome:
    """χ² = n log(RSS₀/RSS₁) on χ²₁ (Hail's; anticonservative below a few hundred observations)."""
    with np.errstate(divide="ignore"):
        statistic = -n * np.log1p(-r_sq)
    return Outcome(statistic, np.nan, chi_square_log_sf(statistic))


def score(r_sq: Float, n: int, p: int) -> Outcome:
    """F = n R² on F(1, n−p−1), with γ of the ML null (GEMMA's p_score; Zhou & Stephens 2012, suppl. §3.4)."""
    df = n - p - 1
    statistic = n * r_sq
    return Outcome(statistic, float(df), log_f_sf(statistic, df))


TESTS: dict[str, Callable[[Float, int, int], Outcome]] = {"wald": wald, "lrt": lrt, "score": score}


def chi_square_log_sf(statistic: Float) -> Float:
    """log P(χ²₁ > statistic), finite where the probability itself underflows."""
    return np.asarray(np.log(2.0) + log_ndtr(-np.sqrt(statistic)))


def log_f_sf(f: Float, df: float | Float) -> Float:
    """log P(F(1, df) > f) = log(1 − I_y(½, df/2)), y = f/(df+f), finite where the probability itself underflows."""
    f = np.asarray(f, dtype=np.float64)
    df = np.broadcast_to(np.asarray(df, dtype=np.float64), f.shape)
    a = df / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = df / (df + f), 1.0 / (1.0 + df / f)
        lower = betainc(0.5, a, y)
        out = np.log1p(-lower)
        # 1 − lower keeps its digits down to p = 0.1; below, from whichever of x and y = 1 − x is small. `betaincc` is slow.
        small = np.flatnonzero(~(lower < 0.9))
        a_, x_, y_ = a.flat[small], x.flat[small], y.flat[small]
        out.flat[small] = np.log(np.where(x_ < 0.5, betainc(a_, 0.5, x_), betaincc(0.5, a_, y_)))
    tail = np.flatnonzero((out < -600) & np.isfinite(f))
    if tail.size:
        out = np.array(out)
        out.flat[tail] = log_betainc_tail(a.flat[tail], 0.5, x.flat[tail], y.flat[tail])
    return np.asarray(out)


def log_betainc_tail(a: Float, b: float, x: Float, one_minus_x: Float) -> Float:
    """log I_x(a, b) by its continued fraction (DLMF 8.17.22), which converges fast for x < (a+1)/(a+b+2)."""
    tiny = 1e-300
    c, d = np.ones_like(x), 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    h = d.copy()
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / np.where(np.abs(1.0 + term * d) < tiny, tiny, 1.0 + term * d)
            c = 1.0 + term / c
            h = h * c * d
        if np.all(np.abs(c * d - 1.0) < 1e-15):
            break
    log_x = np.where(one_minus_x < 0.5, np.log1p(-np.minimum(one_minus_x, 0.5)), np.log(x))
    return np.asarray(a * log_x + b * np.log(one_minus_x) - np.log(a) - betaln(a, b) + np.log(h))
