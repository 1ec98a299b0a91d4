"""REML of (γ_u, γ_v) on the rows of `eqtl_interaction`: a grid for genes, Newton's method for genes and pairs.

With w as there, A = TᵀWT, e = y − Tβ̂, RSS = Σ we² + rest and h_i = t_iᵀA⁻¹t_i, for q fixed effects −2ℓ is, up to a constant,

    f = (n−q) log RSS + Σ log(1/w) + log|A|

    ∂f/∂γ_a   = tr_a − (n−q) g_a/RSS,     g_a = Σ κ_a w² e²,     tr_a = Σ κ_a w (1 − w h)
    ∂²f/∂γ_a∂γ_b = (n−q)(2 q_ab/RSS − g_a g_b/RSS²) − tr_ab,     q_ab = Σ κ_aκ_b w³e² − B_aᵀA⁻¹B_b,     B_a = Σ κ_a w² e t,
    tr_ab = Σ κ_aκ_b w² (1 − 2wh) + tr(A⁻¹C_aA⁻¹C_b),     C_a = Σ κ_a w² t tᵀ

(tr_ab = tr(P V_a P V_b), q_ab = yᵀP V_a P V_b P y). Where the Hessian is not positive definite its expectation tr_ab − tr_a tr_b/(n−q) is
used. Cost O(r q²) per evaluation, whatever the number of cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annlmm.model.compiled import njit

Float = NDArray[np.float64]

_JIT: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}
MAX_STEPS = 100
# Newton's step is quadratic: one that promises less than this of f leaves its square.
TOLERANCE = 1e-9
NODES = 14


@njit(**_JIT)
def evaluate(y, t, rest, kappa, gamma, df, gradient, hessian, expected):  # type: ignore[no-untyped-def]
    """f, and its derivatives into the last three arguments; ∞ where A is singular."""
    r, q = t.shape
    parts = kappa.shape[0]
    a = np.zeros((q, q))
    beta = np.zeros(q)
    w = np.empty(r)
    value = 0.0
    for i in range(r):
        d = 1.0
        for c in range(parts):
            d += gamma[c] * kappa[c, i]
        value += np.log(d)
        w[i] = 1.0 / d
        for j in range(q):
            x = w[i] * t[i, j]
            beta[j] += x * y[i]
            for k in range(j + 1):
                a[j, k] += x * t[i, k]
    for j in range(q):  # A = LLᵀ
        largest = a[j, j]
        for k in range(j + 1):
            x = a[j, k]
            for m in range(k):
                x -= a[j, m] * a[k, m]
            if k < j:
                a[j, k] = x / a[k, k]
            else:
                if not x > 1e-14 * largest:
                    return np.inf
                a[j, j] = np.sqrt(x)
                value += 2.0 * np.log(a[j, j])
    for j in range(q):
        for k in range(j):
            beta[j] -= a[j, k] * beta[k]
        beta[j] /= a[j, j]
    for j in range(q - 1, -1, -1):
        for k in range(j + 1, q):
            beta[j] -= a[k, j] * beta[k]
        beta[j] /= a[j, j]
    rss = rest
    g, tr = np.zeros(parts), np.zeros(parts)
    quadratic, trace = np.zeros((parts, parts)), np.zeros((parts, parts))
    b, outer = np.zeros((parts, q)), np.zeros((parts, q, q))
    z = np.empty(q)
    for i in range(r):
        e = y[i]
        h = 0.0
        for j in range(q):
            e -= t[i, j] * beta[j]
            x = t[i, j]
            for k in range(j):
                x -= a[j, k] * z[k]
            z[j] = x / a[j, j]
            h += z[j] * z[j]
        we = w[i] * e
        rss += we * e
        for c in range(parts):
            k_c = kappa[c, i] * w[i]
            if k_c == 0.0:
                continue
            g[c] += k_c * we * e
            tr[c] += k_c * (1.0 - w[i] * h)
            for o in range(parts):
                k_o = kappa[o, i] * w[i]
                quadratic[c, o] += k_c * k_o * we * e
                trace[c, o] += k_c * k_o * (1.0 - 2.0 * w[i] * h)
            for j in range(q):
                b[c, j] += k_c * we * z[j]
                x = k_c * w[i] * z[j]
                for k in range(j + 1):
                    outer[c, j, k] += x * z[k]
    for c in range(parts):
        for o in range(parts):
            for j in range(q):
                quadratic[c, o] -= b[c, j] * b[o, j]
                trace[c, o] += outer[c, j, j] * outer[o, j, j]
                for k in range(j):
                    trace[c, o] += 2.0 * outer[c, j, k] * outer[o, j, k]
    for c in range(parts):
        gradient[c] = tr[c] - df * g[c] / rss
        for o in range(parts):
            hessian[c, o] = df * (2.0 * quadratic[c, o] / rss - g[c] * g[o] / rss**2) - trace[c, o]
            expected[c, o] = trace[c, o] - tr[c] * tr[o] / df
    return value + df * np.log(rss)


@njit(**_JIT)
def _step(gradient, matrix, free, step):  # type: ignore[no-untyped-def]
    """step = −M⁻¹ g over the free parameters (one or two) and what it promises; negative where M is not positive definite."""
    step[:] = 0.0
    first = second = -1
    for c in range(free.size):
        if free[c]:
            if first < 0:
                first = c
            else:
                second = c
    if first < 0:
        return 0.0
    g1, m11 = gradient[first], matrix[first, first]
    if second < 0:
        if not m11 > 0:
            return -1.0
        step[first] = -g1 / m11
        return 0.5 * g1 * g1 / m11
    g2, m22, m12 = gradient[second], matrix[second, second], matrix[first, second]
    det = m11 * m22 - m12 * m12
    if not (m11 > 0 and m22 > 0 and det > 1e-12 * m11 * m22):
        return -1.0
    step[first] = -(m22 * g1 - m12 * g2) / det
    step[second] = -(m11 * g2 - m12 * g1) / det
    return -0.5 * (g1 * step[first] + g2 * step[second])


@njit(**_JIT)
def minimise(y, t, rest, kappa, df, upper, gamma):  # type: ignore[no-untyped-def]
    """The minimum of f with 0 ≤ γ ≤ `upper`, from `gamma` (which it replaces); f and whether the steps came to an end."""
    parts = kappa.shape[0]
    gradient, hessian, expected = np.zeros(parts), np.zeros((parts, parts)), np.zeros((parts, parts))
    free, step, trial = np.zeros(parts, dtype=np.bool_), np.zeros(parts), np.zeros(parts)
    value = evaluate(y, t, rest, kappa, gamma, df, gradient, hessian, expected)
    if parts == 0:
        return value, True
    for _ in range(MAX_STEPS):
        for c in range(parts):
            held = (gamma[c] <= 0.0 and gradient[c] >= 0.0) or (gamma[c] >= upper[c] and gradient[c] <= 0.0)
            free[c] = not held
        promised = _step(gradient, hessian, free, step)
        if promised < 0.0:
            promised = _step(gradient, expected, free, step)
            if promised < 0.0:
                for c in range(parts):
                    step[c] = -np.sign(gradient[c]) * gamma[c] if free[c] else 0.0
        if abs(promised) < TOLERANCE:
            # The last step costs no evaluation.
            for c in range(parts):
                gamma[c] = min(max(gamma[c] + step[c], 0.0), upper[c])
            return value, True
        scale, better = 1.0, False
        for _ in range(40):
            for c in range(parts):
                most = 10.0 * gamma[c] if gamma[c] > 0.0 else upper[c]
                trial[c] = min(max(gamma[c] + scale * step[c], 0.0), most, upper[c])
            new = evaluate(y, t, rest, kappa, trial, df, gradient, hessian, expected)
            if new < value + 1e-13 * abs(value):
                better = True
                break
            scale *= 0.4
        if not better:
            value = evaluate(y, t, rest, kappa, gamma, df, gradient, hessian, expected)
            return value, abs(promised) < 1e-5
        moved = value - new
        gamma[:] = trial
        value = new
        if abs(moved) <= 1e-14 * abs(value) and promised < 1e-7:
            return value, True
    return value, False


def upper_bounds(kappa: Float) -> Float:
    """γ that stands for ∞ to 1e-8."""
    return np.array([1e8 / np.min(row[row > 0], initial=np.inf) if (row > 0).any() else 0.0 for row in kappa])


def fit_null(y: Float, t: Float, rest: Float, kappa: Float, n: int) -> tuple[Float, NDArray[np.bool_]]:
    """γ̂ of G genes (G × J) and whether the steps came to an end; y is r × G.

    All genes share T, so that a node of the grid is one decomposition and one product.
    """
    parts, df = kappa.shape[0], n - t.shape[1]
    genes = y.shape[1]
    if not parts:
        return np.zeros((genes, 0)), np.ones(genes, dtype=bool)
    upper = upper_bounds(kappa)
    axes = [_nodes(row) for row in kappa]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, parts)
    best, chosen = np.full(genes, np.inf), np.zeros(genes, dtype=np.intp)
    for i, gamma in enumerate(nodes):
        root = 1.0 / np.sqrt(1.0 + gamma @ kappa)
        q, r = np.linalg.qr(root[:, None] * t)
        scaled = root[:, None] * y
        scaled = scaled - q @ (q.T @ scaled)
        rss = np.einsum("rg,rg->g", scaled, scaled) + rest
        with np.errstate(divide="ignore"):
            value = df * np.log(rss) - 2 * np.log(root).sum() + 2 * np.log(np.abs(np.diagonal(r))).sum()
        better = value < best
        best[better], chosen[better] = value[better], i
    out, ended = nodes[chosen].copy(), np.zeros(genes, dtype=bool)
    t = np.ascontiguousarray(t)
    for g in range(genes):
        if np.isfinite(best[g]):
            _, ended[g] = minimise(np.ascontiguousarray(y[:, g]), t, float(rest[g]), kappa, float(df), upper, out[g])
    return out, ended


def _nodes(kappa: Float) -> Float:
    """0, and γ from where the largest κ hardly matters to where the smallest is all."""
    positive = kappa[kappa > 0]
    if not positive.size:
        return np.zeros(1)
    low, high = 1e-3 / positive.max(), 1e3 / max(positive.min(), 1e-6 * positive.max())
    return np.concatenate([[0.0], np.geomspace(low, high, NODES)])


def fit_from(y: Float, t: Float, rest: float, kappa: Float, n: int, start: Float) -> tuple[Float, bool]:
    """γ̂ of one response with its own T, from what it was without some columns of T."""
    df = float(n - t.shape[1])
    if not kappa.shape[0]:
        return start, True
    upper, nothing = upper_bounds(kappa), np.zeros((start.size, start.size))
    t = np.ascontiguousarray(t)
    found: list[tuple[float, int]] = []
    # Less of each component, since the columns take theirs.
    starts = [start, 0.1 * start, *(np.where(np.arange(start.size) == c, 0.1, 1.0) * start for c in range(start.size))]
    for i, gamma in enumerate(starts):
        found.append((float(evaluate(y, t, rest, kappa, gamma, df, np.zeros(start.size), nothing, nothing.copy())), i))
    gamma = starts[min(found)[1]].copy()
    _, ended = minimise(y, t, rest, kappa, df, upper, gamma)
    return gamma, bool(ended)
