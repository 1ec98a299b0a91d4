"""Every test of `al.tl.associate` on many responses and features at once, in the REML space, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from _page import marked
from numpy.typing import NDArray

from annlmm.model.association import OK, make_scan
from annlmm.model.exact import ExactScan, make_exact_scan
from annlmm.model.gls import finite_gamma
from annlmm.model.hypothesis import TESTS, log_f_sf
from annlmm.model.null import NullModel
from annlmm.model.profile import make_profile
from annlmm.model.refit import RefitSpace, make_refit_space
from annlmm.model.responses import Coordinates, fit_responses
from annlmm.model.rotation import Rotated
from annlmm.model.scan import FeatureTests
from annlmm.model.search import minimise
from annlmm.model.statistics import FeatureStatistics

Float = NDArray[np.float64]

LEVELS = (0.05, 0.001, 0.0001, 0.00001)
WALD, SCREEN, REFIT = "wald, null", "wald, screen", "wald, refit"
LRT, LRT_REFIT, SCORE = "lrt, null", "lrt, refit", "score"
METHODS = (WALD, SCREEN, REFIT, LRT, LRT_REFIT, SCORE)
GROUPED = ("Satterthwaite, null", "Satterthwaite, screen", "Satterthwaite, refit", "residual, null", "residual, refit")
THRESHOLD = 1e-4  # of variance="screen"
# γ is estimated again where the p-value at the null's γ is below CERTAIN, and for one in EVERY of the other features,
# which then count EVERY times: without bias at any level.
CERTAIN, EVERY = 0.02, 40


@dataclass
class Tally:
    """Shares of p-values below `LEVELS`, response by response.

    Attributes
    ----------
    below
        Per method, arrays of responses × levels.
    tested
        Features per response.
    p_values, weights
        Per method, kept for the quantiles of matched sizes: p-values below 0.1 and how many each stands for.
    refused
        Responses, or pairs (per method), whose likelihood has no maximum.
    """

    below: dict[str, list[Float]] = field(default_factory=dict)
    tested: int = 0
    p_values: dict[str, list[Float]] = field(default_factory=dict)
    weights: dict[str, list[Float]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def add(self, method: str, p: Float, weight: Float | None = None, keep: bool = False) -> None:
        """p-values of features × responses; NaN where there is none."""
        w = np.ones_like(p) if weight is None else weight
        share = np.stack([np.where(p < level, w, 0.0).sum(axis=0) / len(p) for level in LEVELS], axis=1)
        self.below.setdefault(method, []).append(share)
        self.tested = len(p)
        if keep:
            small = p < 0.1
            self.p_values.setdefault(method, []).append(p[small])
            self.weights.setdefault(method, []).append(w[small])

    def ratio(self, method: str, i: int) -> float:
        return float(np.concatenate(self.below[method])[:, i].mean() / LEVELS[i])

    def error(self, method: str, i: int) -> float:
        """Of `ratio`: that between responses, whose tests share γ̂, and no less than the binomial one."""
        shares = np.concatenate(self.below[method])[:, i]
        binomial = np.sqrt((1 - LEVELS[i]) / (LEVELS[i] * shares.size * self.tested))
        return float(max(shares.std(ddof=1) / np.sqrt(shares.size) / LEVELS[i], binomial))

    def shown(self, method: str) -> bool:
        """Whether there are enough responses whose likelihood has a maximum: nine in ten."""
        got = sum(map(len, self.below.get(method, [])))
        return got >= 0.9 * sum(map(len, next(iter(self.below.values()))))

    def cell(self, method: str, i: int) -> str:
        return "–" if not self.shown(method) else marked(self.ratio(method, i), self.error(method, i))

    def pairs(self, method: str) -> int:
        return sum(map(len, self.below[method])) * self.tested

    def cut(self, method: str, level: float) -> float:
        """The p-value below which the test has that size here."""
        p, w = np.concatenate(self.p_values[method]), np.concatenate(self.weights[method])
        order = np.argsort(p)
        return float(p[order][np.searchsorted(np.cumsum(w[order]), level * self.pairs(method))])


@dataclass(frozen=True)
class Pair:
    """REML and ML models of one design and kernel, with what the refits of all responses share."""

    reml: NullModel
    ml: NullModel
    refit: RefitSpace
    refit_ml: RefitSpace

    @property
    def mu(self) -> Float:
        """Eigenvalues in all n − p dimensions, 0 outside the kernel."""
        space = self.reml.space
        return np.r_[space.mu, np.zeros(space.df_residual - space.k)]

    def split(self, y: Float) -> Coordinates:
        k = self.reml.space.k
        rest = np.einsum("ij,ij->j", y[k:], y[k:])
        return Coordinates(np.ascontiguousarray(y[:k]), rest, np.zeros(y.shape[1], dtype=np.int8))

    def gammas(self, y: Float) -> tuple[Float, Float]:
        """By REML and by ML, of responses in n − p coordinates; NaN where the full likelihood has no maximum."""
        drawn = self.split(y)
        return tuple(fit_responses(model, drawn, simulate=False).gamma for model in (self.reml, self.ml))


def make_pair(model: NullModel) -> Pair:
    ml = NullModel(model.design, model.basis, reml=False)
    return Pair(model, ml, make_refit_space(model.space, reml=True), make_refit_space(model.space, reml=False))


def r_squared(pair: Pair, y: Float, a: Float, gamma: Float) -> Float:
    """R² = num²/(den RSS₀) of features (b × (n−p)) against responses ((n−p) × T), each at its own γ."""
    w = 1.0 / (1.0 + np.multiply.outer(pair.mu, [finite_gamma(g, pair.reml.space) for g in gamma]))
    wy = w * y
    return (a @ wy) ** 2 / (((a * a) @ w) * (wy * y).sum(axis=0))


def p_of(test: str, pair: Pair, r_sq: Float) -> Float:
    space = pair.reml.space
    return np.exp(TESTS[test](np.minimum(r_sq, 1.0), space.n, space.p).log_p_value)


def refitter_of(pair: Pair, y: Float, *, reml: bool) -> ExactScan:
    """As `exact.make_exact_scan`, with the part that all responses share made before."""
    k, space = pair.reml.space.k, pair.reml.space
    v, rest = np.ascontiguousarray(y[:k]), float(y[k:] @ y[k:])
    null = np.nan if reml else minimise(make_profile(space, v, rest, reml=False)).value
    return ExactScan(space, (pair.refit if reml else pair.refit_ml).refitter(v, rest), null)


def rotated(pair: Pair, a: Float, y: Float) -> Rotated:
    k, size = pair.reml.space.k, len(a)
    outside, cross = np.einsum("bi,bi->b", a[:, k:], a[:, k:]), a[:, k:] @ y[k:]
    return Rotated(
        np.ascontiguousarray(a[:, :k]), np.einsum("bi,bi->b", a, a), outside, cross[:, None], np.zeros(size, dtype=bool), np.full(size, OK, dtype=np.int8)
    )  # fmt: skip


def run_all(pair: Pair, y: Float, a: Float, tally: Tally, *, keep: bool = False) -> None:
    """All methods on all features and responses."""
    gamma, gamma_ml = pair.gammas(y)
    if np.isnan(gamma).any():
        raise RuntimeError("estimates are missing")
    at_null = r_squared(pair, y, a, gamma)
    wald = p_of("wald", pair, at_null)
    tally.add(WALD, wald, keep=keep)
    tally.add(LRT, p_of("lrt", pair, at_null))
    good = np.flatnonzero(~np.isnan(gamma_ml))
    tally.refused[SCORE] = tally.refused.get(SCORE, 0) + gamma_ml.size - good.size
    if good.size:
        tally.add(SCORE, p_of("score", pair, r_squared(pair, y[:, good], a, gamma_ml[good])))
    weight = np.where(wald < CERTAIN, 1.0, 0.0)
    weight[::EVERY][wald[::EVERY] >= CERTAIN] = EVERY
    for method, reml in ((REFIT, True), (LRT_REFIT, False)):
        columns = np.arange(gamma.size) if reml else good
        p = np.full((len(a), columns.size), np.nan)
        for j, t in enumerate(columns):
            chosen = np.flatnonzero(weight[:, t])
            exact = refitter_of(pair, y[:, t], reml=reml)
            p[chosen, j] = exact.test_rotated(rotated(pair, a[chosen], y[:, t])).p_value
        w = weight[:, columns]
        tally.refused[method] = tally.refused.get(method, 0) + int(np.sum(np.isnan(p) & (w > 0)))
        if columns.size:
            tally.add(method, p, w, keep=keep)
        if reml:
            tally.add(SCREEN, np.where(wald < THRESHOLD, p, wald))


def run_grouped(pair: Pair, my: Float, features: FeatureStatistics, tally: Tally) -> None:
    """Wald tests of features that are constant within groups, against the responses `my` (n × T, free of X)."""
    model = pair.reml
    space, basis = model.space, model.basis
    found = {name: np.full((features.norm.size, my.shape[1]), np.nan) for name in GROUPED}
    weight = np.zeros_like(found[GROUPED[0]])
    for t in range(my.shape[1]):
        u = basis.project(my[:, t])
        outside = my[:, t] - basis.expand(u)
        response = model.response(my[:, t])
        gamma = minimise(model.profile(response)).gamma
        scan = make_scan(space, u, float(outside @ outside), gamma)
        exact = make_exact_scan(space, response, reml=True)
        own = FeatureStatistics(features.u, features.y[:, [t]], *(getattr(features, name) for name in ("norm", "outside", "constant", "collinear", "grouped")))  # fmt: skip
        null = FeatureTests("wald", "null", [scan], [exact]).evaluate(own)[0]
        residual = FeatureTests("wald", "null", [scan], [exact], grouped_df=False).evaluate(own)[0]
        certain = np.fmin(null.p_value, residual.p_value) < CERTAIN
        weight[:, t] = certain
        weight[::EVERY, t] = np.where(certain[::EVERY], 1.0, EVERY)
        chosen = np.flatnonzero(weight[:, t])
        again = exact.test(own.take(chosen))
        refit = np.full(null.p_value.size, np.nan)
        refit[chosen] = again.p_value
        on_rows = np.exp(log_f_sf(again.statistic, space.df_residual - 1))
        screened = (null.p_value < THRESHOLD) & ~null.refit
        found["Satterthwaite, null"][:, t] = null.p_value
        found["Satterthwaite, screen"][:, t] = np.where(screened, refit, null.p_value)
        found["Satterthwaite, refit"][:, t] = refit
        found["residual, null"][:, t] = residual.p_value
        found["residual, refit"][chosen, t] = on_rows
    for name, p in found.items():
        if "refit" not in name and not np.isfinite(p).all():
            raise RuntimeError(f"{name}: p-values are missing")
        tally.add(name, p, weight if "refit" in name else None)
