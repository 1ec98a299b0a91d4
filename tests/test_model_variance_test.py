"""Simulated nulls of the likelihood ratio of h²: against direct Monte Carlo, exact F laws and their own coverage."""

from __future__ import annotations

import mpmath
import numpy as np
import oracle
import pytest
from scipy import stats

from annlmm.model import variance_test
from annlmm.model.basis import GroupBasis
from annlmm.model.design import make_design
from annlmm.model.null import NullModel, standard_error_log_gamma
from annlmm.model.profile import Profile
from annlmm.model.search import minimise
from annlmm.model.variance_test import make_variance_null

DRAWS = 20_000


def template(mu, outside, logdet=None, extra=0):
    """A profile that carries (n, p, μ) only; ML where other eigenvalues are given for the determinant."""
    df = mu.size + outside
    return Profile(mu, np.ones(mu.size), float(outside), df, mu if logdet is None else logdet, df + extra)


def simulated(profile, gamma, seed=5, draws=DRAWS):
    """Naive draws of LR(γ₀) at true γ₀: the maximum over 200 nodes of log γ, 0 and, where it is finite, ∞."""
    rng = np.random.default_rng(seed)
    mu, lam, n = profile.mu, profile.logdet_eigenvalues, profile.n_effective
    outside = profile.df_residual - mu.size
    y_sq = rng.standard_normal((draws, mu.size)) ** 2 * (1 + gamma * mu)
    rest = rng.chisquare(outside, draws) if outside else np.zeros(draws)
    null = oracle.profile_value(mu, y_sq, rest, lam, n, gamma)
    best = oracle.profile_value(mu, y_sq, rest, lam, n, 0.0)
    for t in np.linspace(np.log(1e-4 / mu.max()), np.log(1e4 / mu.min()) + 6, 200):
        best = np.minimum(best, oracle.profile_value(mu, y_sq, rest, lam, n, np.exp(t)))
    if outside == 0 and lam.size == n:
        best = np.minimum(best, n * np.log((y_sq / mu).sum(axis=1)) + np.log(lam).sum())
    return null - best


SPECTRA = {
    "8 unbalanced groups": (np.array([2.0, 3.0, 4.0, 5.0, 6.0, 9.0, 14.0]), 35),
    "one eigenvalue": (np.array([3.0]), 9),
    "full rank": (np.linspace(0.05, 3.0, 25), 0),
    "one dimension outside": (np.geomspace(0.01, 10.0, 15), 1),
    "one large": (np.r_[np.full(11, 0.2), 20.0], 4),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
def test_p_value_is_that_of_direct_simulation(name, reml):
    mu, outside = SPECTRA[name]
    if reml:
        profile = template(mu, outside)
    else:
        lam = np.r_[mu * 1.1, [0.4, 2.0]] if outside == 0 else mu * 1.1
        profile = template(mu, outside, lam, 2)
    draws = simulated(profile, 0.0)
    null = make_variance_null(profile).rlrt()
    for probability in (0.4, 0.2, 0.1, 0.05, 0.01, 0.002):
        at = np.quantile(draws, 1 - probability)
        if at <= 1e-6:
            continue
        p = float(np.exp(null.log_p_value(at)))
        # Four binomial standard errors of 20,000 draws, and 2 % for 30,000 weighted draws and the grid of either side.
        assert p == pytest.approx(probability, abs=4 * np.sqrt(probability / DRAWS) + 0.02 * probability), probability
    positive = (draws > 1e-6).mean()
    assert float(np.exp(null.log_p_value(1e-6))) == pytest.approx(positive, abs=4 * np.sqrt(0.25 / DRAWS) + 0.005)


def balanced(groups, cells):
    """Equal eigenvalues: the likelihood ratio is a monotone function of an F on (k, m) degrees of freedom."""
    k, m = groups - 1, groups * (cells - 1)
    return template(np.full(k, float(cells)), m), k, m


def ratio_of(f, k, m):
    """(k+m) log(kF+m)/(k+m) − k log F: LR at F > 1, where γ̂μ = F − 1."""
    return (k + m) * np.log((k * f + m) / (k + m)) - k * np.log(f)


def log_f_tail(f, k, m):
    """log P(F(k, m) > f) in 40 digits, however far out."""
    with mpmath.workdps(40):
        x = mpmath.mpf(m) / (m + k * mpmath.mpf(f))
        return float(mpmath.log(mpmath.betainc(mpmath.mpf(m) / 2, mpmath.mpf(k) / 2, 0, x, regularized=True)))


@pytest.mark.parametrize("groups", [3, 8, 50, 400])
@pytest.mark.parametrize("seed", range(2))
def test_tail_is_the_exact_one_of_a_balanced_design(groups, seed):
    """One-way analysis of variance: p = P(F > F_obs) from 0.3 to 1e-25, which no direct simulation reaches."""
    profile, k, m = balanced(groups, 6)
    null = make_variance_null(profile, seed).rlrt()
    f = 1 + np.geomspace(0.05, 2000.0, 60)
    exact = np.array([log_f_tail(value, k, m) for value in f])
    f, exact = f[exact > np.log(1e-25)], exact[exact > np.log(1e-25)]
    error = np.asarray(null.log_p_value(ratio_of(f, k, m))) - exact
    # The standard error of log p over twelve seeds: below 0.015 in the body, 0.05 to 1e-4, 0.11 to 1e-25. Four of each.
    for limit, bound in ((np.log(0.05), 0.06), (np.log(1e-4), 0.2), (np.log(1e-25), 0.44)):
        assert np.abs(error[exact >= limit]).max() < bound
    assert exact.min() < np.log(1e-18)


@pytest.mark.parametrize("name", SPECTRA)
def test_tail_agrees_between_seeds(name):
    mu, outside = SPECTRA[name]
    nulls = [make_variance_null(template(mu, outside), seed).rlrt() for seed in range(4)]
    grid = np.linspace(0.1, min(null.statistic[0] for null in nulls) - 3, 4000)
    log_p = np.array([null.log_p_value(grid) for null in nulls])
    reached = log_p.mean(axis=0) / np.log(10)
    # As above, and 0.4 where few draws are left: beyond 1e-15, or for full rank, whose ratio is bounded, beyond 1e-5.
    few = -5 if outside == 0 else -15
    for target in (-2, -5, -10, -15, -20, -25):
        at = int(np.argmin(np.abs(reached - target)))
        if abs(reached[at] - target) < 0.2:
            assert np.ptp(log_p[:, at]) < 4 * (0.1 if target >= few else 0.4), target


@pytest.fixture(scope="module")
def null():
    return make_variance_null(template(*SPECTRA["8 unbalanced groups"])).rlrt()


class TestShape:
    def test_one_at_the_boundary(self, null):
        np.testing.assert_array_equal(null.log_p_value(np.array([0.0, -1e-12, -5.0])), 0.0)

    def test_monotone_and_never_zero(self, null):
        log_p = np.asarray(null.log_p_value(np.r_[np.linspace(0, 400, 3000), 1e4, 1e6]))
        assert (np.diff(log_p) <= 0).all()
        assert np.isfinite(log_p).all()
        assert (log_p <= 0).all()

    def test_beyond_the_largest_draw_the_bound_of_the_density_ratio(self, null):
        top = null.statistic[0]
        assert float(null.log_p_value(top + 30) - null.log_p_value(top)) == pytest.approx(-15, abs=1e-9)
        assert float(null.log_p_value(top + 1e-9)) <= float(null.log_p_value(top))

    def test_scalars_and_arrays(self, null):
        assert np.ndim(null.log_p_value(3.0)) == 0
        assert float(null.log_p_value(3.0)) == null.log_p_value(np.array([3.0]))[0]

    def test_seed_fixes_the_draws(self):
        profile = template(*SPECTRA["full rank"])
        a, b, c = (make_variance_null(profile, seed).rlrt() for seed in (0, 0, 1))
        np.testing.assert_array_equal(a.log_tail, b.log_tail)
        assert (a.statistic[:100] != c.statistic[:100]).any()


def test_large_samples_approach_the_mixture():
    """400 groups of 5: half the mass at 0 and ½ χ²₁ above it, up to the skewness of γ̂, of order 1/√400."""
    profile, _, _ = balanced(400, 5)
    null = make_variance_null(profile).rlrt()
    at = stats.chi2.isf([0.6, 0.2, 0.1, 0.02], 1)
    got = np.exp(np.asarray(null.log_p_value(at)))
    np.testing.assert_allclose(got, stats.chi2.sf(at, 1) / 2, rtol=0.08)
    assert float(np.exp(null.log_p_value(1e-9))) == pytest.approx(0.5, abs=0.02)


def test_small_samples_are_below_the_mixture():
    """With few groups the ½χ² mixture is conservative: the reason for the simulation."""
    null = make_variance_null(template(*SPECTRA["8 unbalanced groups"])).rlrt()
    at = stats.chi2.isf(0.1, 1)
    assert float(np.exp(null.log_p_value(at))) < 0.8 * 0.05


@pytest.mark.parametrize("gamma", [0.0, 0.2, 3.0])
@pytest.mark.parametrize(
    ("name", "reml"),
    [("8 unbalanced groups", True), ("full rank", True), ("full rank", False), ("one dimension outside", False)],
)
def test_quantile_is_that_of_direct_simulation(name, gamma, reml):
    mu, outside = SPECTRA[name]
    lam = np.r_[mu * 1.1, [0.4, 2.0]] if outside == 0 else mu * 1.1
    profile = template(mu, outside) if reml else template(mu, outside, lam, 2)
    draws = simulated(profile, gamma)
    quantile = make_variance_null(profile).quantile(gamma)
    # The share of 20,000 draws above a quantile from 10,000: √(0.05 · 0.95 (1/10,000 + 1/20,000)) = 0.0027, four of them.
    assert (draws > quantile).mean() == pytest.approx(0.05, abs=0.011)


@pytest.mark.parametrize("reml", [True, False], ids=["reml", "ml"])
def test_quantile_at_infinity(reml):
    """h² = 1 is a point like any other: ỹ² = μz² there."""
    mu, _ = SPECTRA["full rank"]
    null = make_variance_null(template(mu, 0) if reml else template(mu, 0, np.r_[mu * 1.1, [0.4, 2.0]], 2))
    assert null.quantile(np.inf) == pytest.approx(null.quantile(1e9), rel=1e-6)  # 1/(γμ) is left


def test_level():
    profile = template(*SPECTRA["8 unbalanced groups"])
    draws = simulated(profile, 0.4)
    quantile = make_variance_null(profile, level=0.8).quantile(0.4)
    assert (draws > quantile).mean() == pytest.approx(0.2, abs=0.02)  # four standard errors of 0.005


class TestInterval:
    @pytest.mark.parametrize("gamma", [0.0, 0.25, 2.0])
    @pytest.mark.parametrize("groups", [8, 50])
    def test_coverage(self, groups, gamma):
        """800 fits: a binomial standard error of 0.8 %, so that 95 ± 2 % is two and a half of them."""
        rng = np.random.default_rng(groups)
        codes = np.r_[np.arange(groups), rng.integers(0, groups, 4 * groups)]
        basis, design = GroupBasis(codes), make_design(np.ones((codes.size, 1)))
        model = NullModel(design, basis)
        null = model.variance_null
        covered = 0
        for _ in range(800):
            y = rng.standard_normal(codes.size) + np.sqrt(gamma) * rng.standard_normal(groups)[codes]
            profile = model.profile(model.response(y))
            found = minimise(profile)
            low, high = null.interval(profile, found.gamma, found.value)
            assert low <= found.gamma <= high
            covered += low <= gamma <= high
        assert covered / 800 == pytest.approx(0.95, abs=0.02)

    @pytest.mark.parametrize("seed", range(12))
    def test_ends_are_where_the_ratio_meets_its_quantile(self, seed):
        rng = np.random.default_rng(seed)
        mu, outside = SPECTRA["8 unbalanced groups"] if seed % 2 else SPECTRA["full rank"]
        y_sq = rng.standard_normal(mu.size) ** 2 * (1 + 1.5 * mu)
        profile = Profile(
            mu, y_sq, float(rng.chisquare(outside)) if outside else 0.0, mu.size + outside, mu, mu.size + outside
        )
        null, found = make_variance_null(profile), minimise(profile)
        low, high = null.interval(profile, found.gamma, found.value)
        assert low <= found.gamma <= high
        for end in (low, high):
            if 0 < end < np.inf:
                # The quantile is linear between nodes half a unit of log γ apart, over which it moves by up to 0.5.
                assert profile.value(end) - found.value == pytest.approx(null.quantile(end), abs=0.15)
        if low == 0:
            assert profile.value(0.0) - found.value <= null.quantile(0.0) + 0.05
        if high == np.inf:
            assert profile.value(np.inf) - found.value <= null.quantile(np.inf) + 0.05

    @pytest.mark.parametrize("gamma", [0.5, 0.7, 1.0, 1.25, 1.6])
    def test_sharp_likelihood(self, gamma):
        """With thousands of eigenvalues the interval is narrower than any fixed grid: ± 1.96 SE(log γ)."""
        rng = np.random.default_rng(4)
        mu = np.geomspace(0.05, 20.0, 4000)
        profile = Profile(mu, (1 + gamma * mu) * rng.standard_normal(4000) ** 2, 0.0, 4000, mu, 4000)
        found = minimise(profile)
        se = standard_error_log_gamma(profile, found.gamma)
        low, high = make_variance_null(profile).interval(profile, found.gamma, found.value)
        # 95 % quantiles of 10,000 draws: 3.84 ± 0.1, half of that relative in the root; the curvature is not constant.
        assert np.log(high / found.gamma) == pytest.approx(1.96 * se, rel=0.1)
        assert np.log(found.gamma / low) == pytest.approx(1.96 * se, rel=0.1)

    def test_boundary_zero_excludes_nothing_below(self):
        mu, _outside = SPECTRA["8 unbalanced groups"]
        profile = Profile(mu, np.full(7, 0.2), 35.0, 42, mu, 42)
        found = minimise(profile)
        low, high = make_variance_null(profile).interval(profile, 0.0, found.value)
        assert found.gamma == 0
        assert low == 0
        assert 0 < high < 1

    def test_boundary_one(self):
        mu = np.geomspace(0.01, 10, 30)
        profile = Profile(mu, mu * 1.0, 0.0, 30, mu, 30)
        found = minimise(profile)
        assert found.gamma == np.inf
        low, high = make_variance_null(profile).interval(profile, found.gamma, found.value)
        assert high == np.inf
        assert 0 < low < 1e3


class TestClusters:
    def spectrum(self):
        return np.sort(np.random.default_rng(0).gamma(0.7, 2.0, 300) + 1e-3)

    def test_change_nothing_that_matters(self, monkeypatch):
        mu = self.spectrum()
        profile = template(mu, 40)
        exact = make_variance_null(profile)
        monkeypatch.setattr(variance_test, "MAX_CLUSTERS", 64)
        clustered = make_variance_null(profile)
        at = np.array([0.5, 2.0, 5.0, 12.0, 40.0])
        # Two independent simulations of 4 % in the tail, of 2 % in the body.
        np.testing.assert_allclose(clustered.rlrt().log_p_value(at), exact.rlrt().log_p_value(at), atol=0.15)
        for gamma in (0.0, 0.2, 2.0):
            assert clustered.quantile(gamma) == pytest.approx(
                exact.quantile(gamma), rel=0.08
            )  # 2.5 % each, three of them

    def test_keep_the_trace_and_the_count(self, monkeypatch):
        monkeypatch.setattr(variance_test, "MAX_CLUSTERS", 64)
        mu = self.spectrum()
        values, counts = variance_test._clusters(mu)
        assert values.size <= 65
        assert counts.sum() == 300
        assert values @ counts == pytest.approx(mu.sum(), rel=1e-12)
        spacing = np.log(mu.max() / mu.min()) / 64
        np.testing.assert_array_less(np.abs(np.log(np.repeat(values, counts.astype(int)) / mu)), spacing + 1e-12)

    def test_equal_eigenvalues_are_one(self, monkeypatch):
        monkeypatch.setattr(variance_test, "MAX_CLUSTERS", 4)
        values, counts = variance_test._clusters(np.full(9, 5.0))
        np.testing.assert_array_equal(values, [5.0])
        np.testing.assert_array_equal(counts, [9])

    def test_default_limit_is_not_met_by_few(self):
        mu = self.spectrum()
        np.testing.assert_array_equal(variance_test._clusters(mu)[0], mu)


def test_maximum_likelihood_null_of_a_kernel_without_the_constant():
    """The full likelihood of a centred kernel is unbounded as h² → 1: what is fitted is an interior optimum, or h² = 0,
    and so must be what is simulated; the end of a grid is neither."""
    n = 20
    mu = np.geomspace(0.2, 5.0, n - 1)
    null = make_variance_null(template(mu, 0, mu.copy(), 1)).rlrt()
    rng = np.random.default_rng(3)
    t = np.linspace(np.log(1e-4), np.log(1e4), 400)
    y_sq = rng.standard_normal((2000, n - 1)) ** 2
    f = np.stack([oracle.profile_value(mu, y_sq, 0.0, mu, n, np.exp(value)) for value in t], axis=1)
    dips = np.where((f[:, 1:-1] < f[:, :-2]) & (f[:, 1:-1] < f[:, 2:]), f[:, 1:-1], np.inf).min(axis=1)
    ratio = n * np.log(y_sq.sum(axis=1)) - dips
    for at in (1.0, 3.0):
        share = (ratio > at).mean()
        p = float(np.exp(null.log_p_value(at)))
        assert p == pytest.approx(share, abs=4 * np.sqrt(share / 2000) + 0.01)  # four binomial standard errors


def test_fit_reports_the_test_and_the_interval():
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(9), 4)
    x = oracle.design(rng, 36, 2)
    y = rng.standard_normal(36) + 1.2 * rng.standard_normal(9)[codes]
    model = NullModel(make_design(x), GroupBasis(codes))
    got = model.fit(y)
    ratio = 2 * (got.log_likelihood - model.fit(y, 0.0).log_likelihood)
    assert got.h_sq_log_p_value == pytest.approx(float(model.rlrt.log_p_value(ratio)), abs=1e-6)
    assert got.h_sq_p_value == pytest.approx(np.exp(got.h_sq_log_p_value), rel=1e-12)
    assert got.h_sq_p_value_mixture == pytest.approx(stats.chi2.sf(ratio, 1) / 2, rel=1e-9)
    assert got.h_sq_p_value < got.h_sq_p_value_mixture
    assert got.h_sq_ci_low < got.h_sq < got.h_sq_ci_high
    profile = model.profile(model.response(y))
    low, high = model.variance_null.interval(profile, got.gamma, profile.value(got.gamma))
    assert (got.h_sq_ci_low, got.h_sq_ci_high) == pytest.approx((low / (1 + low), high / (1 + high)), rel=1e-9)


def test_p_value_that_underflows_is_the_smallest_float():
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(40), 50)
    y = 200 * rng.standard_normal(40)[codes] + rng.standard_normal(2000)
    got = NullModel(make_design(np.ones((2000, 1))), GroupBasis(codes)).fit(y)
    assert got.h_sq_log_p_value < -2000
    assert got.h_sq_p_value == np.finfo(float).tiny


def test_responses_on_the_same_rows_share_the_null():
    codes = np.repeat(np.arange(6), 4)
    model = NullModel(make_design(np.ones((24, 1))), GroupBasis(codes))
    assert model.rlrt is model.rlrt
    assert model.variance_null is model.variance_null
