"""The whole model at 80 digits by its dense definition, to count the correct digits of the package; nothing is shared with it.

V = I + γK is factorised as it stands (or through a factor K = FFᵀ, by Woodbury's identity), β̂ solves the normal equations,
γ̂ is the root of the score. With P = V⁻¹ − V⁻¹X(XᵀV⁻¹X)⁻¹XᵀV⁻¹ and γPKP = P − PP,

    d(−2ℓ)/d log γ = N yᵀPPy/yᵀPy − tr P          (N = n − p, REML; N = n and V⁻¹ for P in the trace with ML).

80 working digits leave 50 where V has the condition number 10³⁰.
"""

from __future__ import annotations

from functools import cached_property

import mpmath
import numpy as np
from scipy import linalg, optimize

mp = mpmath.mp.clone()
mp.dps = 80
INF = float("inf")


def column(values):
    return [mp.mpf(float(v)) for v in values]


def dot(a, b):
    return mp.fdot(zip(a, b, strict=True))


def cholesky(v):
    """Rows of the lower triangle L, V = LLᵀ."""
    rows = []
    for i, row in enumerate(v):
        new = []
        for j in range(i):
            new.append((row[j] - dot(new, rows[j][:j])) / rows[j][j])
        new.append(mp.sqrt(row[i] - dot(new, new)))
        rows.append(new)
    return rows


def forward(rows, b, start=0):
    """L⁻¹b, where b is zero before `start`."""
    out = [mp.zero] * start
    for i in range(start, len(rows)):
        out.append((b[i] - dot(rows[i][start:i], out[start:i])) / rows[i][i])
    return out


def backward(rows, b):
    """L⁻ᵀb."""
    out = list(b)
    for i in reversed(range(len(rows))):
        out[i] /= rows[i][i]
        for j in range(i):
            out[j] -= rows[i][j] * out[i]
    return out


def trace_of_inverse(rows):
    """tr (LLᵀ)⁻¹ = ‖L⁻¹‖²."""
    size = len(rows)
    unit = [[mp.one if i == j else mp.zero for j in range(size)] for i in range(size)]
    return mp.fsum(dot(h, h) for h in (forward(rows, unit[i], i) for i in range(size)))


class Point:
    """At one γ: cᵀV⁻¹c of all columns c, log|V|, and where they are asked for cᵀV⁻²c and tr V⁻¹."""

    def __init__(self, first, log_det, second, trace):
        self.first, self.log_det, self._second, self._trace = first, log_det, second, trace

    @cached_property
    def second(self):
        return self._second()

    @cached_property
    def trace(self):
        return self._trace()


class Solved:
    """Generalised least squares of y on the columns `fixed` at one γ."""

    def __init__(self, point, fixed, y):
        self.point, self.fixed, self.y = point, fixed, y
        p = len(fixed)
        self.xx = mp.matrix(p, p)
        for i in range(p):
            for j in range(p):
                self.xx[i, j] = point.first[fixed[i]][fixed[j]]
        self.inverse = self.xx**-1
        xy = [point.first[i][y] for i in fixed]
        self.beta = [dot([self.inverse[i, j] for j in range(p)], xy) for i in range(p)]
        self.rss = point.first[y][y] - dot(self.beta, xy)

    @property
    def log_det(self):
        """log|XᵀV⁻¹X|."""
        return mp.log(mp.det(self.xx))

    @property
    def rss_second(self):
        """yᵀPPy = eᵀV⁻²e."""
        weights = list(zip([*self.fixed, self.y], [*(-b for b in self.beta), mp.one], strict=True))
        return mp.fsum(a * b * self.point.second[i][j] for i, a in weights for j, b in weights)

    @property
    def trace_p(self):
        """tr P = tr V⁻¹ − tr((XᵀV⁻¹X)⁻¹XᵀV⁻²X)."""
        fixed, size = self.fixed, range(len(self.fixed))
        inside = mp.fsum(self.inverse[i, j] * self.point.second[fixed[j]][fixed[i]] for i in size for j in size)
        return self.point.trace - inside


class Exact:
    """Columns of X, y and features under one kernel.

    Parameters
    ----------
    columns
        n × c floats, taken as exact.
    kernel
        n × n floats; or a factor (n × r), or the codes of groups. None: no kernel.
    """

    def __init__(self, columns, *, kernel=None, factor=None, groups=None):
        self.columns = [column(c) for c in np.asarray(columns, dtype=float).T]
        self.n = len(self.columns[0])
        self.plain = [[dot(a, b) for b in self.columns] for a in self.columns]
        self.kernel = None if kernel is None else [column(row) for row in np.asarray(kernel, dtype=float)]
        if kernel is None:
            if groups is not None:
                counts = np.bincount(groups)
                self.ff = [
                    [mp.mpf(int(counts[i])) if i == j else mp.zero for j in range(counts.size)]
                    for i in range(counts.size)
                ]
                self.fc = [
                    [mp.fsum(c[i] for i in np.flatnonzero(groups == d)) for d in range(counts.size)]
                    for c in self.columns
                ]
            else:
                f = [] if factor is None else [column(c) for c in np.asarray(factor, dtype=float).T]
                self.ff = [[dot(a, b) for b in f] for a in f]
                self.fc = [[dot(a, c) for a in f] for c in self.columns]
        self._points, self._roots = {}, {}

    def at(self, gamma) -> Point:
        gamma = mp.mpf(gamma)
        if gamma not in self._points:
            self._points[gamma] = self._dense(gamma) if self.kernel else self._woodbury(gamma)
        return self._points[gamma]

    def _dense(self, gamma):
        """V = I + γK, or K itself for γ = ∞."""
        one, gamma = (mp.zero, mp.one) if mp.isinf(gamma) else (mp.one, gamma)
        v = [[gamma * k + (one if i == j else 0) for j, k in enumerate(row)] for i, row in enumerate(self.kernel)]
        rows = cholesky(v)
        half = [forward(rows, c) for c in self.columns]
        log_det = 2 * mp.fsum(mp.log(rows[i][i]) for i in range(self.n))

        def second():
            full = [backward(rows, h) for h in half]
            return [[dot(a, b) for b in full] for a in full]

        return Point([[dot(a, b) for b in half] for a in half], log_det, second, lambda: trace_of_inverse(rows))

    def _woodbury(self, gamma):
        """V⁻¹ = I − γF(I + γFᵀF)⁻¹Fᵀ."""
        r, ff, fc = len(self.ff), self.ff, self.fc
        if not r:
            return Point(self.plain, mp.zero, lambda: self.plain, lambda: mp.mpf(self.n))
        rows = cholesky([[gamma * ff[i][j] + (1 if i == j else 0) for j in range(r)] for i in range(r)])
        solved = [backward(rows, forward(rows, c)) for c in fc]
        through = [[dot(row, s) for row in ff] for s in solved]
        size = range(len(fc))
        first = [[self.plain[i][j] - gamma * dot(fc[i], solved[j]) for j in size] for i in size]
        second = [
            [self.plain[i][j] - 2 * gamma * dot(fc[i], solved[j]) + gamma**2 * dot(solved[i], through[j]) for j in size]
            for i in size
        ]
        log_det = 2 * mp.fsum(mp.log(rows[i][i]) for i in range(r))
        return Point(first, log_det, lambda: second, lambda: self.n - r + trace_of_inverse(rows))

    def solve(self, gamma, fixed, y) -> Solved:
        """y on the columns `fixed`."""
        return Solved(self.at(gamma), fixed, y)

    def deviance(self, gamma, fixed, y, *, reml=True):
        """−2ℓ, profiled; with ½ log|XᵀX| for REML."""
        s, p = self.solve(gamma, fixed, y), len(fixed)
        n = self.n - p if reml else self.n
        value = n * (mp.log(2 * mp.pi * s.rss / n) + 1) + self.at(gamma).log_det
        if reml:
            plain = mp.matrix(p, p)
            for i in range(p):
                for j in range(p):
                    plain[i, j] = self.plain[fixed[i]][fixed[j]]
            value += s.log_det - mp.log(mp.det(plain))
        return value

    def score(self, t, fixed, y, *, reml=True):
        """d(−2ℓ)/dt at t = log γ."""
        gamma = mp.exp(t)
        s = self.solve(gamma, fixed, y)
        if reml:
            return (self.n - len(fixed)) * s.rss_second / s.rss - s.trace_p
        return self.n * s.rss_second / s.rss - self.at(gamma).trace

    def gamma_hat(self, fixed, y, *, reml=True):
        """The root of the score in the basin of the best node of a grid in double precision; 0 or ∞ where that is an end."""
        key = (*fixed, y, reml)
        if key not in self._roots:
            low, start, high = self._bracket(fixed, y, reml)
            if self.score(low, fixed, y, reml=reml) >= 0:
                self._roots[key] = mp.zero
            elif self.score(high, fixed, y, reml=reml) <= 0:
                self._roots[key] = mp.inf
            else:
                t = mp.findroot(
                    lambda t: self.score(t, fixed, y, reml=reml), (start, start + mp.mpf(10) ** -7),
                    solver="secant", tol=mp.mpf(10) ** -110, maxsteps=20, verify=False,
                )  # fmt: skip
                if not low < t < high:
                    raise ArithmeticError("the root is not where the grid has its minimum")
                self._roots[key] = mp.exp(t)
        return self._roots[key]

    def _bracket(self, fixed, y, reml):
        """Where to look, by the spectrum of the kernel in the complement of X, in float64: the best node and two beside it."""
        c = np.array([[float(v) for v in self.columns[i]] for i in [*fixed, y]]).T
        x = np.column_stack([np.ones(self.n), c[:, 1:-1] - c[:, 1:-1].mean(axis=0)])  # an intercept is first
        q = np.linalg.qr(x / np.linalg.norm(x, axis=0), mode="complete")[0][:, x.shape[1] :]
        k = np.array([[float(v) for v in row] for row in self.kernel])
        mu, v = linalg.eigh(q.T @ k @ q)
        mu = np.maximum(mu, 0.0)
        lam = mu if reml else np.maximum(linalg.eigvalsh(k), 0.0)
        y_sq = ((c[:, -1] - c[0, -1]) @ q @ v) ** 2

        def deviance(t):
            odds = np.exp(np.atleast_1d(t))[:, None]
            return lam.size * np.log((1 / (1 + odds * mu)) @ y_sq) + np.log1p(odds * lam).sum(axis=1)

        grid = np.linspace(np.log(1e-7 / mu.max()), np.log(1e7 / mu[mu > 1e-14 * mu.max()].min()), 400)
        i = int(np.argmin(deviance(grid)))
        low, high = grid[max(i - 1, 0)], grid[min(i + 1, grid.size - 1)]
        best = optimize.minimize_scalar(lambda t: deviance(t)[0], bounds=(low, high), method="bounded")
        return mp.mpf(low), mp.mpf(best.x), mp.mpf(high)

    def fit(self, fixed, y, gamma=None, *, reml=True):
        """Everything that a null fit reports, by the names of the package; γ̂ where it is not given."""
        given = gamma is not None
        gamma = mp.mpf(gamma) if given else self.gamma_hat(fixed, y, reml=reml)
        s, p = self.solve(gamma, fixed, y), len(fixed)
        scale = s.rss / (self.n - p if reml else self.n)
        at_one = mp.isinf(gamma)
        found = {
            "gamma": gamma,
            "sigma_sq": scale if at_one else gamma * scale,
            "tau_sq": mp.zero if at_one else scale,
            "h_sq": mp.one if at_one else gamma / (1 + gamma),
            "beta": s.beta,
            "standard_error": [mp.sqrt(scale * s.inverse[i, i]) for i in range(p)],
        }
        found["log_likelihood"] = -self.deviance(gamma, fixed, y, reml=reml) / 2
        if not given and 0 < gamma < INF:
            t, h, step = mp.log(gamma), found["h_sq"], mp.mpf(10) ** -15
            deviances = [self.deviance(mp.exp(t + i * step), fixed, y, reml=reml) for i in (-1, 0, 1)]
            curvature = (deviances[0] - 2 * deviances[1] + deviances[2]) / step**2
            found["h_sq_standard_error"] = h * (1 - h) * mp.sqrt(2 / curvature)
            found["df"] = [self._satterthwaite(i, gamma, scale, fixed, y, reml) for i in range(p)]
        return found

    def _satterthwaite(self, i, gamma, scale, fixed, y, reml):
        """ν = 2v²/(gᵀ𝓘⁻¹g) in (log σ², log τ²), 𝓘 the observed information; at 𝓘's optimum both scales agree."""
        step = mp.mpf(10) ** -15

        def moved(a, b):
            """Profiled nothing: −2ℓ and Var β̂ᵢ at σ²eᵃ, τ²eᵇ."""
            g, tau_sq = gamma * mp.exp(a - b), scale * mp.exp(b)
            s = self.solve(g, fixed, y)
            n = self.n - len(fixed) if reml else self.n
            value = n * mp.log(tau_sq) + self.at(g).log_det + s.rss / tau_sq + (s.log_det if reml else 0)
            return value, tau_sq * s.inverse[i, i]

        at = {(a, b): moved(a * step, b * step) for a in (-1, 0, 1) for b in (-1, 0, 1)}
        h = {}
        for d in ((1, 0), (0, 1)):
            h[d] = (at[d][0] - 2 * at[0, 0][0] + at[-d[0], -d[1]][0]) / step**2 / 2
        cross = (at[1, 1][0] - at[1, -1][0] - at[-1, 1][0] + at[-1, -1][0]) / (4 * step**2) / 2
        g1, g2 = (at[1, 0][1] - at[-1, 0][1]) / (2 * step), (at[0, 1][1] - at[0, -1][1]) / (2 * step)
        det = h[1, 0] * h[0, 1] - cross**2
        spread = (g1**2 * h[0, 1] - 2 * g1 * g2 * cross + g2**2 * h[1, 0]) / det
        return 2 * at[0, 0][1] ** 2 / spread

    def wald(self, gamma, fixed, a, y):
        """One feature at γ: β, SE, F and the natural log of its p-value, with σ² and τ²."""
        s, df = self.solve(gamma, [*fixed, a], y), self.n - len(fixed) - 1
        variance = s.rss / df
        se = mp.sqrt(variance * s.inverse[len(fixed), len(fixed)])
        f = (s.beta[-1] / se) ** 2
        return {
            "beta": s.beta[-1],
            "standard_error": se,
            "statistic": f,
            "neg_log10_p_value": -log_f_tail(f, df) / mp.log(10),
        }

    def lrt(self, gamma, fixed, a, y):
        """n log(RSS₀/RSS₁) at γ on χ²₁."""
        ratio = self.n * mp.log(self.solve(gamma, fixed, y).rss / self.solve(gamma, [*fixed, a], y).rss)
        return {"statistic": ratio, "neg_log10_p_value": -log_chi_square_tail(ratio) / mp.log(10)}

    def lrt_refit(self, fixed, a, y):
        """2(ℓ₁ − ℓ₀), each at its own maximum-likelihood γ."""
        null = self.deviance(self.gamma_hat(fixed, y, reml=False), fixed, y, reml=False)
        gamma = self.gamma_hat([*fixed, a], y, reml=False)
        ratio = null - self.deviance(gamma, [*fixed, a], y, reml=False)
        return {"statistic": ratio, "neg_log10_p_value": -log_chi_square_tail(ratio) / mp.log(10)}

    def score_test(self, gamma, fixed, a, y):
        """nR² on F(1, n−p−1), at the null's maximum-likelihood γ (GEMMA's)."""
        rss0, rss1 = self.solve(gamma, fixed, y).rss, self.solve(gamma, [*fixed, a], y).rss
        f = self.n * (1 - rss1 / rss0)
        return {"statistic": f, "neg_log10_p_value": -log_f_tail(f, self.n - len(fixed) - 1) / mp.log(10)}


def log_f_tail(f, df, numerator=1):
    """log P(F > f) = log I_{df/(df+f)}(df/2, ½)."""
    f, df, half = mp.mpf(f), mp.mpf(df), mp.mpf(numerator) / 2
    return mp.log(mp.betainc(df / 2, half, 0, df / (df + numerator * f), regularized=True))


def log_chi_square_tail(x):
    """log P(χ²₁ > x)."""
    return mp.log(mp.erfc(mp.sqrt(mp.mpf(x) / 2)))


def digits(got, exact):
    """Correct significant digits, 0 to 16; of several numbers the fewest."""
    exact = list(exact) if isinstance(exact, (list, tuple)) else [exact]
    return min(_digits(g, e) for g, e in zip(np.ravel(np.asarray(got, dtype=object)), exact, strict=True))


def _digits(got, exact):
    got = mp.mpf(got)
    if mp.isnan(got):
        return 0.0
    if got == exact:
        return 16.0
    size = abs(exact) or mp.one
    return float(min(max(-mp.log10(abs(got - exact) / size), 0), 16))
