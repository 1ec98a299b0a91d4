"""The one objective and its derivatives, and the search for its global optimum."""

from __future__ import annotations

from collections import Counter
from functools import partial

import mpmath
import numpy as np
import oracle
import pytest

from annlmm.model.basis import DenseBasis
from annlmm.model.design import make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.null import NullModel, standard_error_log_gamma
from annlmm.model.profile import LOG_2PI, Profile, make_profile
from annlmm.model.search import log_gamma_grid, minimise


def random_profile(rng, k, outside, *, reml=True, p=2):
    """Coordinates drawn at a random γ; for ML the determinant has p more eigenvalues, as K has."""
    mu = np.exp(rng.normal(0, rng.uniform(0.05, 2.5), k))
    gamma = rng.choice([0.0, 0.03, 0.3, 1.0, 5.0, 300.0])
    y_sq = rng.standard_normal(k) ** 2 * (1 + gamma * mu)
    rest = float(rng.chisquare(outside)) if outside else 0.0
    df = k + outside
    if reml:
        return Profile(mu, y_sq, rest, df, mu, df)
    larger = np.exp(rng.normal(0, 1, p)) if outside == 0 else np.exp(rng.normal(0, 1, 1))
    return Profile(mu, y_sq, rest, df, np.r_[mu, larger], df + p)


def shape(seed):
    """Full (h² = 1 is a candidate), nearly full (one dimension outside, whose sum of squares may be tiny) and low rank."""
    rng = np.random.default_rng(seed)
    outside = int(rng.choice([0, 0, 1, 1, 2, 12]))
    return random_profile(rng, int(rng.integers(2, 14)), outside)


@pytest.fixture(params=[(6, 0, True), (6, 5, True), (6, 0, False), (6, 5, False), (1, 1, True)], ids=str)
def profile(request):
    k, outside, reml = request.param
    return random_profile(np.random.default_rng(31), k, outside, reml=reml)


class TestProfile:
    def exact(self, profile, change):
        """f in 50 digits as a function of another variable."""

        def f(at):
            gamma = change(at)
            rss = mpmath.fsum(
                mpmath.mpf(a) / (1 + gamma * mpmath.mpf(m)) for a, m in zip(profile.y_sq, profile.mu, strict=True)
            )
            log_det = mpmath.fsum(mpmath.log(1 + gamma * mpmath.mpf(v)) for v in profile.logdet_eigenvalues)
            return profile.n_effective * mpmath.log(rss + mpmath.mpf(profile.rest)) + log_det

        return f

    @pytest.mark.parametrize("gamma", [0.0, 1e-9, 0.02, 1.0, 35.0, 1e6])
    def test_value(self, profile, gamma):
        with mpmath.workdps(50):
            exact = self.exact(profile, mpmath.mpf)(gamma)
            assert profile.value(gamma) == pytest.approx(float(exact), rel=1e-14, abs=1e-13)  # sums of ten terms
        assert profile.values(np.array([gamma, 2.0]))[0] == pytest.approx(profile.value(gamma), rel=1e-14, abs=1e-13)

    @pytest.mark.parametrize("t", [-300.0, -20.0, -3.0, 0.0, 0.8, 6.0, 25.0])
    def test_derivatives_in_log_gamma(self, profile, t):
        with mpmath.workdps(300):
            f = self.exact(profile, mpmath.exp)
            first, second = (float(mpmath.diff(f, mpmath.mpf(t), order)) for order in (1, 2))
        got = profile.log_derivatives(t)
        # Both are differences of terms of the size of the number of eigenvalues; at both ends of the terms' own, tiny size.
        assert got[0] == pytest.approx(first, rel=1e-11, abs=1e-13 * min(1, np.exp(t + 3)))
        assert got[1] == pytest.approx(second, rel=1e-11, abs=1e-13 * min(1, np.exp(t + 3)))

    @pytest.mark.parametrize("gamma", [0.0, 1e-6, 0.5, 20.0])
    def test_derivatives_in_gamma(self, profile, gamma):
        with mpmath.workdps(50):
            f = self.exact(profile, mpmath.mpf)
            first, second = (float(mpmath.diff(f, mpmath.mpf(gamma), order)) for order in (1, 2))
        assert profile.gamma_derivatives(gamma) == pytest.approx((first, second), rel=1e-11, abs=1e-12)

    @pytest.mark.parametrize("delta", [0.0, 1e-6, 0.5, 20.0])
    def test_derivatives_in_one_over_gamma(self, profile, delta):
        """On K + δI: f(1/δ) + (number outside the determinant) · log δ has the same derivatives, and is smooth at 0."""
        if not profile.at_one:
            assert profile.value(np.inf) == np.inf
            return
        with mpmath.workdps(50):

            def f(d):
                rss = mpmath.fsum(
                    mpmath.mpf(a) / (d + mpmath.mpf(m)) for a, m in zip(profile.y_sq, profile.mu, strict=True)
                )
                log_det = mpmath.fsum(mpmath.log(d + mpmath.mpf(v)) for v in profile.logdet_eigenvalues)
                return profile.n_effective * mpmath.log(rss) + log_det

            exact = [float(mpmath.diff(f, mpmath.mpf(delta), order)) for order in (1, 2)]
            value = float(f(mpmath.mpf(delta)))
        assert profile.inverse_derivatives(delta) == pytest.approx(exact, rel=1e-11, abs=1e-12)
        at = np.inf if delta == 0 else 1 / delta
        assert profile.value(at) == pytest.approx(value, rel=1e-13)

    def test_infinite_gamma_is_the_limit(self):
        for reml in (True, False):
            profile = random_profile(np.random.default_rng(2), 8, 0, reml=reml)
            assert profile.at_one
            assert profile.value(1e14) == pytest.approx(profile.value(np.inf), rel=1e-12)  # 1/(γμ) is left
            assert profile.rss(1e14) * 1e14 == pytest.approx(profile.rss(np.inf), rel=1e-12)
        assert not random_profile(np.random.default_rng(2), 8, 1).at_one

    def test_maximum_likelihood_of_a_kernel_without_the_constant_has_no_value_at_one(self):
        """log|V| runs to −∞ along a direction that X absorbs but K lacks."""
        profile = Profile(np.ones(4), np.ones(4), 0.0, 4, np.ones(4), 5)
        assert profile.full
        assert not profile.at_one
        assert profile.value(np.inf) == np.inf

    @pytest.mark.parametrize("reml", [True, False])
    @pytest.mark.parametrize("gamma", [0.0, 0.3, 12.0])
    def test_log_likelihood_is_the_true_one(self, reml, gamma):
        rng = np.random.default_rng(6)
        n = 22
        for rank in (None, 4):
            k, x = oracle.random_kernel(rng, n, rank), oracle.design(rng, n, 3)
            y = oracle.response(rng, x, k, 0.5)
            s = from_kernel(k)
            model = NullModel(make_design(x), DenseBasis(s.u, s.eigenvalues), reml=reml)
            profile = model.profile(model.response(y))
            expected = oracle.log_likelihood(y, x, k, gamma, reml=reml)[0]
            assert profile.log_likelihood(gamma) == pytest.approx(
                expected, rel=1e-11
            )  # cond(V) · eps of the dense side

    def test_log_likelihood_constant(self):
        """One coordinate, no kernel: the density of N(0, y²) at y."""
        profile = Profile(np.zeros(0), np.zeros(0), 4.0, 1, np.zeros(0), 1)
        assert profile.log_likelihood(0.0) == pytest.approx(-0.5 * (LOG_2PI + np.log(4.0) + 1.0), rel=1e-15)

    def test_make_profile_takes_the_determinant_of_mkm_or_of_k(self):
        rng = np.random.default_rng(0)
        k, x = oracle.random_kernel(rng, 12), oracle.design(rng, 12, 3)
        s = from_kernel(k)
        space = NullModel(make_design(x), DenseBasis(s.u, s.eigenvalues)).space
        y = rng.standard_normal(space.k)
        reml, ml = (make_profile(space, y, 3.0, reml=flag) for flag in (True, False))
        np.testing.assert_allclose(np.sort(reml.logdet_eigenvalues), oracle.residual_eigenvalues(x, k), rtol=1e-10)
        np.testing.assert_allclose(np.sort(ml.logdet_eigenvalues), np.linalg.eigvalsh(k), rtol=1e-10)
        assert (reml.n_effective, ml.n_effective, reml.df_residual, ml.df_residual) == (9, 12, 9, 9)
        assert reml.rest == 0.0  # the space is full: what is passed is round-off
        np.testing.assert_array_equal(reml.y_sq, y**2)


def brute(profile):
    """The least f over γ = 0, a grid of 40 nodes per unit of log γ, and ∞ where it is finite."""
    mu = profile.mu
    t = np.arange(np.log(1e-5 / mu.max()), np.log(1e5 / mu.min()) + 40, 1 / 40)
    f = oracle.profile_value(mu, profile.y_sq, profile.rest, profile.logdet_eigenvalues, profile.n_effective, np.exp(t))
    ends = [profile.n_effective * np.log(profile.y_sq.sum() + profile.rest)]
    if profile.at_one:
        ends.append(profile.n_effective * np.log((profile.y_sq / mu).sum()) + np.log(profile.logdet_eigenvalues).sum())
    interior = (f[1:-1] < f[:-2]) & (f[1:-1] < f[2:])
    return min(f.min(), *ends), int(interior.sum()) + (f[0] >= ends[0])


class TestSearch:
    def test_global_optimum_of_1200_small_profiles(self):
        """No grid point is below the optimum that is found; it is stationary or an end, and several optima do occur."""
        kinds = Counter()
        for seed in range(1200):
            profile = shape(seed)
            found = minimise(profile)
            least, optima = brute(profile)
            assert found.converged
            assert found.value == pytest.approx(profile.value(found.gamma), rel=1e-13, abs=1e-12)
            # The grid is never below the optimum by more than rounding, nor above it by more than its step of 1/40 leaves.
            assert -1e-9 < least - found.value < 0.05, seed
            end = found.gamma == 0 or np.isinf(found.gamma)
            assert found.boundary == end
            if not end:
                first, second = profile.log_derivatives(np.log(found.gamma))
                # Newton stops at a step of 1e-10, so that f′ is below 1e-10 · f″, plus the rounding of a sum near 1.
                assert abs(first) < 1e-9 * max(second, 1e-3) + 1e-13, seed
                assert second > 0
            kinds["zero" if found.gamma == 0 else "one" if end else "interior"] += 1
            kinds["several optima"] += optima > 1
        assert kinds["zero"] > 200
        assert kinds["one"] > 50
        assert kinds["interior"] > 300
        assert kinds["several optima"] > 5

    def test_maximum_likelihood(self):
        for seed in range(200):
            profile = random_profile(np.random.default_rng(seed), 9, int(seed % 2) * 6, reml=False)
            found = minimise(profile)
            assert -1e-9 < brute(profile)[0] - found.value < 0.05, seed

    @pytest.mark.parametrize("rest", [1e-12, 1e-9, 1e-6, 1e-3])
    def test_tiny_rest_puts_the_optimum_far_out(self, rest):
        """One dimension outside K with next to nothing in it: γ̂ is of order 1/rest, far beyond 1e3/μ_min."""
        profile = Profile(np.array([0.5, 1.0, 2.0]), np.array([1.0, 0.7, 2.0]), rest, 4, np.array([0.5, 1.0, 2.0]), 4)
        found = minimise(profile)
        assert found.converged
        assert not found.boundary
        assert brute(profile)[0] - found.value > -1e-9
        # S ≈ rest + Σ(ỹ²/μ)/γ: γ̂ = (n−p−k) Σ(ỹ²/μ)/(k · rest), to a relative 1/γ̂.
        limit = np.sum(profile.y_sq / profile.mu) / (3 * rest)
        assert found.gamma == pytest.approx(limit, rel=20 / limit)

    @pytest.mark.parametrize("outside", [0, 7])
    @pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6])
    def test_exact_optimum_and_its_curvature_anywhere(self, size, outside):
        """ỹ² = 1 + γ₀μ makes γ₀ stationary: close to h² = 0 and to h² = 1 too, where log γ is not the scale to search on."""
        mu = np.array([0.3, 0.8, 1.0, 1.7, 2.5, 4.0])
        exact = size / (mu.max() if size < 1 else mu.min())
        profile = Profile(mu, 1 + exact * mu, float(outside), 6 + outside, mu, 6 + outside)
        found = minimise(profile)
        assert found.status == "ok"
        # f′ is good to eps of its terms, of size q = γμ/(1+γμ) (or 1−q), and f″ is the square of that.
        assert found.gamma == pytest.approx(exact, rel=1e-9 + 1e-14 * max(size, 1 / size))
        assert found.value <= profile.value(0.0)
        with mpmath.workdps(60):
            f = TestProfile().exact(profile, mpmath.exp)
            curvature = float(mpmath.diff(f, mpmath.log(mpmath.mpf(found.gamma)), 2))
        assert standard_error_log_gamma(profile, found.gamma) == pytest.approx(
            np.sqrt(2 / curvature), rel=1e-8 + 1e-13 * max(size, 1 / size)
        )

    def test_no_curvature_no_standard_error(self):
        """At a maximum of f the curvature is negative: there is no standard error, and no warning."""
        mu = np.array([0.2, 1.0, 5.0])
        profile = Profile(mu, np.array([0.0, 1.0, 0.0]), 0.0, 3, mu, 3)
        assert profile.log_derivatives(0.0)[1] < 0
        assert np.isnan(standard_error_log_gamma(profile, 1.0))

    def test_two_optima_are_told_apart(self):
        """Profiles with two interior minima: the better one is returned, whichever it is."""
        mu = np.array([1e-3] * 6 + [1e3] * 2)
        gammas = []
        for weight in (0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5):
            y_sq = np.r_[np.full(6, weight), 1e3, 1e3]
            profile = Profile(mu, y_sq, 4.0, 16, mu, 16)
            found = minimise(profile)
            assert abs(brute(profile)[0] - found.value) < 1e-3
            gammas.append(found.gamma)
        assert (np.diff(gammas) >= 0).all() or (np.diff(gammas) <= 0).all()

    @pytest.mark.parametrize("scale", [1e-12, 1e12])
    def test_invariant_to_the_scale_of_k(self, scale):
        for seed in range(100):
            profile = shape(seed)
            mu = profile.mu * scale
            found, moved = (
                minimise(profile),
                minimise(Profile(mu, profile.y_sq, profile.rest, profile.df_residual, mu, profile.n_effective)),
            )
            assert moved.boundary == found.boundary
            assert moved.gamma * scale == pytest.approx(found.gamma, rel=1e-9)  # the tolerance of the search, twice
            # f itself moves by log(scale) per dimension only where it is taken in units of K.
            if np.isfinite(found.gamma):
                assert moved.value == pytest.approx(found.value, rel=1e-12, abs=1e-12)

    @pytest.mark.parametrize("scale", [1e-200, 1e-12, 1e12])
    def test_invariant_to_the_scale_of_y(self, scale):
        for seed in range(50):
            profile = shape(seed)
            moved = Profile(
                profile.mu,
                profile.y_sq * scale,
                profile.rest * scale,
                profile.df_residual,
                profile.mu,
                profile.n_effective,
            )
            found = minimise(profile)
            assert minimise(moved).gamma == pytest.approx(found.gamma, rel=1e-9)

    def test_no_kernel(self):
        found = minimise(Profile(np.zeros(0), np.zeros(0), 3.0, 5, np.zeros(0), 5))
        assert found.gamma == 0.0
        assert found.converged
        assert found.value == pytest.approx(5 * np.log(3.0), rel=1e-15)

    def test_bounds_are_honoured(self):
        for seed in range(60):
            profile = shape(seed)
            free = minimise(profile)
            t = np.log(free.gamma) if 0 < free.gamma < np.inf else None
            inside = minimise(profile, (-9.0, 9.0))
            assert np.exp(-9) <= inside.gamma <= np.exp(9)
            if t is not None and -8 < t < 8:
                assert inside.gamma == pytest.approx(free.gamma, rel=1e-9)
                assert not inside.boundary
                right = minimise(profile, (t + 0.3, t + 0.35))
                left = minimise(profile, (t - 0.35, t - 0.3))
                # Near a minimum f rises on both sides: the optimum is the end that is nearer.
                assert (right.boundary, left.boundary) == (True, True)
                assert right.gamma == pytest.approx(np.exp(t + 0.3), rel=1e-12)
                assert left.gamma == pytest.approx(np.exp(t - 0.3), rel=1e-12)
            elif free.gamma == 0 and not inside.boundary:
                assert inside.value >= free.value

    def test_bounds_take_the_better_end(self):
        """A maximum inside: both ends are candidates."""
        for seed in range(300):
            profile = shape(seed)
            found = minimise(profile, (-2.0, 2.0))
            t = np.linspace(-2, 2, 401)
            least = profile.values(np.exp(t)).min()
            assert -1e-9 < least - found.value < 0.01, seed

    def test_steps_run_out(self):
        profile = next(p for p in map(shape, range(100)) if 0.1 < minimise(p).gamma < 10)
        found = minimise(profile, maxiter=1)
        assert not found.converged
        assert found.status == "not_converged"
        assert found.message.startswith("Newton's method did not meet its tolerance; raise maxiter")
        assert minimise(profile).status == "ok"
        assert minimise(profile, (-30.0, -20.0)).status == "boundary"

    @pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-10])
    def test_tolerance_bounds_the_error(self, tol):
        profiles = [p for p in map(shape, range(60)) if 0 < minimise(p).gamma < np.inf]
        assert len(profiles) > 10
        for profile in profiles:
            exact, found = minimise(profile, tol=1e-13), minimise(profile, tol=tol)
            assert abs(np.log(found.gamma / exact.gamma)) <= tol

    def test_evaluations_are_counted(self):
        profile = next(p for p in map(shape, range(100)) if 0.1 < minimise(p).gamma < 10)
        calls = 0
        original = profile.log_derivatives

        def counted(self, t):
            nonlocal calls
            calls += 1
            return original(t)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Profile, "log_derivatives", counted)
            found = minimise(profile)
        assert calls <= found.n_evaluations + 1

    def test_grid_covers_both_ends(self):
        mu = np.array([0.01, 5.0])
        grid = log_gamma_grid(mu)
        assert grid[0] == pytest.approx(np.log(1e-3 / 5.0), rel=1e-14)
        assert grid[-1] == pytest.approx(np.log(1e3 / 0.01), rel=1e-14)
        assert np.diff(grid).max() <= 0.25 + 1e-12
        assert log_gamma_grid(mu, outside=2)[-1] == pytest.approx(grid[-1] + 11.5, rel=1e-14)


def test_unbounded_maximum_likelihood_is_no_fit_at_zero():
    """A centred kernel under an intercept: the full likelihood grows without bound as h² → 1 (V loses the constant).

    Where it has no interior maximum either, h² = 0 is not the answer.
    """
    rng = np.random.default_rng(0)
    n = 40
    k = oracle.centring(n) @ oracle.random_kernel(rng, n, 120) @ oracle.centring(n)
    s, x = from_kernel(k), np.ones((n, 1))
    model = NullModel(make_design(x), DenseBasis(s.u, s.eigenvalues, centered=True), reml=False)
    refused = 0
    for _ in range(20):
        y = oracle.response(rng, x, k, 1e3)
        dense = partial(oracle.log_likelihood, y, x, k, reml=False)
        values = np.array([dense(np.exp(t))[0] for t in np.arange(-9.0, 7.0, 0.25)])
        if (np.diff(values) > 0).all():  # no interior maximum
            refused += 1
            with pytest.raises(ValueError, match="no maximum"):
                model.fit(y, simulate=False)
        else:
            assert model.fit(y, simulate=False).gamma > 0
    assert refused > 5
