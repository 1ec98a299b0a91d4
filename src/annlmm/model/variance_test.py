"""Exact finite-sample inference on h²: the p-value of σ² = 0 and an interval, from the simulated likelihood-ratio null.

At a true γ₀ the coordinates ỹ of the REML space are √(1+γ₀μ) z with z standard normal, so the law of the likelihood ratio
depends only on (n, p, μ): genes and phenotypes with the same rows and covariates share it (Crainiceanu & Ruppert 2004).

*p-value* (RLRT). Direct simulation cannot go below 1/draws. The direction ỹ/‖ỹ‖ has, under γ relative to 0, the density
ratio exp(f(γ)/2) with f(γ) = 2(ℓ(γ) − ℓ(0)) the REML log-likelihood ratio itself; draws from several γⱼ, 0 among them, are
therefore weighted by 1/Σⱼ πⱼ exp(f(γⱼ)/2), which keeps the relative error small however far in the tail.

*Interval*. {γ₀ : LR(γ₀) ≤ its simulated 95 % quantile at γ₀}; the χ² cut of 3.84 is 2.06 at h² = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp

from annlmm.model.profile import Profile
from annlmm.model.search import log_gamma_grid

Float = NDArray[np.float64]

# Above this many eigenvalues those within a few percent of each other share one χ² draw of their joint multiplicity.
MAX_CLUSTERS = 512
# f is smooth on the scale of one unit of log γ; a parabola through nodes 0.2 apart leaves about 1e-4 of its variation.
NULL_STEP = 0.2
RLRT_DRAWS = 30_000
INTERVAL_DRAWS = 10_000
CHUNK = 4096


@dataclass(frozen=True)
class RlrtNull:
    """The null distribution of the likelihood ratio for σ² = 0, as weighted draws.

    Attributes
    ----------
    statistic
        Simulated maxima of f, descending.
    log_tail
        log P(LR ≥ statistic), cumulative.
    """

    statistic: Float
    log_tail: Float

    def log_p_value(self, observed: Float | float) -> Float:
        """Natural log of P(LR ≥ observed); 0 where observed ≤ 0, never −∞."""
        observed = np.asarray(observed, dtype=np.float64)
        count = np.searchsorted(-self.statistic, -observed, side="right")
        inside = self.log_tail[np.maximum(count, 1) - 1]
        # Beyond the largest draw: the density ratio bounds the tail by exp(−f/2).
        beyond = self.log_tail[0] - np.maximum(observed - self.statistic[0], 0.0) / 2
        return np.asarray(np.where(observed <= 0, 0.0, np.minimum(np.where(count > 0, inside, beyond), 0.0)))


@dataclass
class VarianceNull:
    """Simulated nulls of one REML space; built once, shared by every response on the same rows and covariates."""

    mu: Float
    df_residual: int
    logdet_eigenvalues: Float
    n_effective: int
    seed: int = 0
    level: float = 0.95
    _quantiles: dict[float, float] = field(default_factory=dict)
    _draws: list[tuple[Float, Float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._values, self._counts = _clusters(self.mu)
        self._outside = self.df_residual - self.mu.size
        self._reml = self.logdet_eigenvalues is self.mu
        self._at_one = self._outside == 0 and self.logdet_eigenvalues.size == self.n_effective
        self._unbounded = self._outside == 0 and not self._at_one
        self._grid = np.exp(log_gamma_grid(self.mu, NULL_STEP, self._outside))
        self._logdet = self._log_det(self._grid)

    def _log_det(self, gammas: Float) -> Float:
        if self._reml:
            return np.asarray(np.log1p(np.multiply.outer(gammas, self._values)) @ self._counts)
        return np.asarray(np.log1p(np.multiply.outer(gammas, self.logdet_eigenvalues)).sum(axis=1))

    def _draw(self, rng: np.random.Generator, size: int) -> tuple[Float, Float]:
        """χ² draws per cluster, and of the dimensions outside K."""
        z_sq = np.empty((size, self._values.size))
        single = self._counts == 1
        z_sq[:, single] = rng.standard_normal((size, int(single.sum()))) ** 2
        z_sq[:, ~single] = rng.chisquare(self._counts[~single], (size, int((~single).sum())))
        rest = rng.chisquare(self._outside, size) if self._outside else np.zeros(size)
        return z_sq, rest

    def _maximum(self, y_sq: Float, rest: Float, f_null: Float) -> Float:
        """sup over γ of f_null − f(γ), ≥ 0, for draws with squares `y_sq` (τ² = 1)."""
        n = self.n_effective
        weights = 1.0 / (1.0 + np.multiply.outer(self._values, self._grid))
        f = n * np.log(y_sq @ weights + rest[:, None]) + self._logdet
        if self._unbounded:  # what is fitted is an interior minimum or h² = 0, not the end of the grid
            dips = np.full_like(f, np.inf)
            inner = (f[:, 1:-1] <= f[:, :-2]) & (f[:, 1:-1] <= f[:, 2:])
            dips[:, 1:-1] = np.where(inner, f[:, 1:-1], np.inf)
            best = np.clip(dips.argmin(axis=1), 1, self._grid.size - 2)
            none = ~inner.any(axis=1)
        else:
            best = np.clip(f.argmin(axis=1), 1, self._grid.size - 2)
            none = np.zeros(len(f), dtype=bool)
        rows = np.arange(len(f))
        left, mid, right = f[rows, best - 1], f[rows, best], f[rows, best + 1]
        curvature = left - 2 * mid + right
        with np.errstate(divide="ignore", invalid="ignore"):
            dip = np.where((curvature > 0) & (mid <= left) & (mid <= right), (left - right) ** 2 / (8 * curvature), 0.0)
        minimum = np.minimum(np.minimum(left, right), mid - dip)
        minimum[none] = np.inf
        minimum = np.minimum(minimum, n * np.log(y_sq.sum(axis=1) + rest))
        if self._at_one:
            at_one = n * np.log(y_sq @ (1.0 / self._values)) + (
                self._counts @ np.log(self._values) if self._reml else np.log(self.logdet_eigenvalues).sum()
            )
            minimum = np.minimum(minimum, at_one)
        return np.asarray(np.maximum(f_null - minimum, 0.0))

    def rlrt(self) -> RlrtNull:
        """Draw the null of the test of σ² = 0 by importance sampling."""
        rng = np.random.default_rng(self.seed)
        # Proposals a factor of two apart overlap; half of the draws are from the null itself, for the body.
        proposals = np.exp(np.arange(np.log(0.2 / self._values.max()), np.log(self._grid[-1]), np.log(2.0)))
        proposals = np.r_[0.0, proposals]
        share = np.r_[0.5, np.full(proposals.size - 1, 0.5 / (proposals.size - 1))]
        sizes = np.maximum((share * RLRT_DRAWS).astype(int), 64)
        log_share = np.log(sizes / sizes.sum())
        ratio_weights = 1.0 / (1.0 + np.multiply.outer(self._values, proposals))
        ratio_logdet = np.log1p(np.multiply.outer(proposals, self._values)) @ self._counts
        statistics, log_weights = [], []
        for gamma, size in zip(proposals, sizes, strict=True):
            for start in range(0, size, CHUNK):
                z_sq, rest = self._draw(rng, min(CHUNK, size - start))
                y_sq = z_sq * (1.0 + gamma * self._values)
                total = y_sq.sum(axis=1) + rest
                ratio = (
                    self.df_residual * (np.log(total)[:, None] - np.log(y_sq @ ratio_weights + rest[:, None]))
                    - ratio_logdet
                )
                log_weights.append(-logsumexp(ratio / 2 + log_share, axis=1))
                statistics.append(self._maximum(y_sq, rest, self.n_effective * np.log(total)))
        statistic, log_weight = np.concatenate(statistics), np.concatenate(log_weights)
        order = np.argsort(-statistic, kind="stable")
        log_tail = np.logaddexp.accumulate(log_weight[order]) - np.log(statistic.size)
        return RlrtNull(statistic[order], log_tail)

    def quantile(self, gamma: float) -> float:
        """The `level` quantile of LR(γ₀) at true γ₀; the same draws serve every γ₀, so that it is smooth."""
        if gamma not in self._quantiles:
            if not self._draws:
                rng = np.random.default_rng(self.seed + 1)
                for start in range(0, INTERVAL_DRAWS, CHUNK):
                    self._draws.append(self._draw(rng, min(CHUNK, INTERVAL_DRAWS - start)))
            n, draws = self.n_effective, []
            for z_sq, rest in self._draws:
                null = n * np.log(z_sq.sum(axis=1) + rest)
                if np.isinf(gamma):
                    y_sq, constant = z_sq * self._values, float(self._counts @ np.log(self._values))
                    if not self._reml:
                        constant = float(np.log(self.logdet_eigenvalues).sum())
                else:
                    y_sq, constant = z_sq * (1.0 + gamma * self._values), float(self._log_det(np.array([gamma]))[0])
                draws.append(self._maximum(y_sq, rest, null + constant))
            self._quantiles[gamma] = float(np.quantile(np.concatenate(draws), self.level))
        return self._quantiles[gamma]

    def interval(self, profile: Profile, gamma_hat: float, minimum: float) -> tuple[float, float]:
        """The γ at which LR(γ₀) = f(γ₀) − f(γ̂) leaves its simulated acceptance region on either side."""
        nodes = log_gamma_grid(self.mu, 0.5, self._outside)
        if 0 < gamma_hat < np.inf:  # a sharp likelihood can be rejected at every node of a fixed grid
            nodes = np.union1d(nodes, np.log(gamma_hat))
        excess = profile.values(np.exp(nodes)) - minimum

        def rejected(gamma: float, ratio: float) -> float:
            # No quantile lies outside these limits; nodes beyond them need no simulation.
            if ratio < 1.0:
                return -1.0
            if ratio > 15.0:
                return 1.0
            return ratio - self.quantile(gamma)

        outside = np.array([rejected(float(np.exp(t)), r) for t, r in zip(nodes, excess, strict=True)])
        at_zero = rejected(0.0, profile.value(0.0) - minimum)
        at_one = rejected(np.inf, profile.value(np.inf) - minimum) if profile.at_one else 1.0
        accepted = np.flatnonzero(outside <= 0)
        if at_zero <= 0 or gamma_hat == 0:
            low = 0.0
        elif accepted.size == 0:
            low = gamma_hat
        elif accepted[0] == 0:
            low = float(np.exp(nodes[0]) * at_zero / (at_zero - outside[0]))
        else:
            low = self._crossing(profile, minimum, nodes, int(accepted[0]) - 1)
        if at_one <= 0 or np.isinf(gamma_hat):
            high = np.inf
        elif accepted.size == 0:
            high = gamma_hat if gamma_hat > 0 else float(np.exp(nodes[0]))
        elif accepted[-1] == nodes.size - 1:
            high = float(np.exp(nodes[-1]))
        else:
            high = self._crossing(profile, minimum, nodes, int(accepted[-1]))
        return min(low, gamma_hat), max(high, gamma_hat)

    def _crossing(self, profile: Profile, minimum: float, nodes: Float, i: int) -> float:
        """Where the likelihood ratio crosses its quantile, the quantile being linear in log γ between two nodes."""
        t0, t1 = float(nodes[i]), float(nodes[i + 1])
        q0, q1 = self.quantile(float(np.exp(t0))), self.quantile(float(np.exp(t1)))

        def gap(t: float) -> float:
            return profile.value(float(np.exp(t))) - minimum - (q0 + (q1 - q0) * (t - t0) / (t1 - t0))

        if gap(t0) * gap(t1) > 0:  # the node was decided by the limits without its quantile
            return float(np.exp(t0 if abs(gap(t0)) < abs(gap(t1)) else t1))
        return float(np.exp(brentq(gap, t0, t1, xtol=1e-10)))


def make_variance_null(profile: Profile, seed: int = 0, level: float = 0.95) -> VarianceNull:
    """The simulated nulls that go with a profile's (n, p, μ)."""
    return VarianceNull(profile.mu, profile.df_residual, profile.logdet_eigenvalues, profile.n_effective, seed, level)


def _clusters(mu: Float) -> tuple[Float, Float]:
    """Eigenvalues and their multiplicities, those close together replaced by their mean when there are very many."""
    if mu.size <= MAX_CLUSTERS:
        return mu, np.ones(mu.size)
    log_mu = np.log(mu)
    width = (log_mu.max() - log_mu.min()) / MAX_CLUSTERS
    _, codes, counts = np.unique(
        np.floor((log_mu - log_mu.min()) / max(width, 1e-12)), return_inverse=True, return_counts=True
    )
    return np.bincount(codes, weights=mu) / counts, counts.astype(np.float64)
