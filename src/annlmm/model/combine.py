"""p-values combined: over the tests of one gene or one family (ACAT), and the false discovery rate over genes (Storey)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# p-values from which the share of true nulls is estimated.
FEWEST = 100
# p-values this near to 1 are 1 but for rounding: an effect of exactly 0, as counts over few donors have.
ALMOST_ONE = 1e-10


def cauchy_combination(p: Float, axis: int = -1) -> Float:
    """Aggregated Cauchy association test (ACAT; Liu & Xie 2020, eq. 2, equal weights) along an axis; NaN are left out.

        T = mean tan((½ − p)π),   p = ½ − arctan(T)/π,

    whatever the dependence, for small p. A p of 1 has T = −∞ and would silence all others: it counts as 1 − 1/m of m tests,
    and so does one that is 1 but for rounding. Nothing else is clipped: cot(πp) is exact to the smallest p.
    """
    p = np.asarray(p, dtype=np.float64)
    present = ~np.isnan(p)
    count = present.sum(axis=axis, keepdims=True)
    m = np.maximum(count, 1)
    guarded = np.where(present, np.where(p > 1.0 - ALMOST_ONE, 1.0 - 1.0 / np.maximum(m, 2), p), 0.5)
    with np.errstate(divide="ignore", over="ignore"):
        # tan((½ − p)π) = cot(πp), which is 0 at ½.
        terms = np.where(present & (guarded != 0.5), 1.0 / np.tan(np.pi * guarded), 0.0)
    total = terms.sum(axis=axis, keepdims=True) / m
    # A single test is its own combination, p = 1 included.
    combined = np.where(
        count == 1, np.where(present, p, 0.0).sum(axis=axis, keepdims=True), np.arctan2(1.0, total) / np.pi
    )
    return np.asarray(np.where(count == 0, np.nan, combined).squeeze(axis=axis))


def storey_q_value(p: Float) -> tuple[Float, float]:
    """q-values (Storey 2002) and the share π₀ of true nulls; NaN are left out.

    π₀(λ) = #{p > λ}/(m(1−λ)) for λ = 0.05, …, 0.95, of which the bootstrap's choice is taken in closed form (Storey, Taylor &
    Siegmund 2004; `pi0.method="bootstrap"` of the R package qvalue): the one of least mean squared error about their 10 %
    quantile. With π₀ = 1 they are Benjamini and Hochberg's, which also stand for fewer than `FEWEST` p-values: these say too little
    about π₀.
    """
    p = np.asarray(p, dtype=np.float64)
    present = ~np.isnan(p)
    known = p[present]
    m, pi0 = known.size, 1.0
    q = np.full_like(p, np.nan)
    if not m:
        return q, pi0
    if m >= FEWEST:
        share = np.arange(0.05, 0.96, 0.05)
        above = (known >= share[:, None]).sum(axis=1)
        each = above / (m * (1.0 - share))
        error = above / (m * (1.0 - share)) ** 2 * (1.0 - above / m) + (each - np.quantile(each, 0.1)) ** 2
        pi0 = float(min(each[np.argmin(error)], 1.0))
        if pi0 <= 0:  # no p-value is large: nothing says how many nulls there are
            pi0 = 1.0
    order = np.argsort(known)[::-1]
    raised = pi0 * m * known[order] / np.arange(m, 0, -1)
    values = np.empty(m)
    values[order] = np.minimum(np.minimum.accumulate(raised), 1.0)
    q[present] = values
    return q, pi0
