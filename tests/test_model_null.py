"""The null fit against the dense oracle: estimates, standard errors, degrees of freedom, predictions, boundaries."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from scipy import optimize, stats

from annlmm.model.basis import DenseBasis, GroupBasis, no_kernel
from annlmm.model.design import make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.null import NullModel, check_gamma, h_sq_of
from annlmm.model.satterthwaite import VarianceInformation, satterthwaite_df

N, P = 42, 3
CODES = np.r_[np.arange(7), np.random.default_rng(1).integers(0, 7, N - 7)]


def basis_of(k, **options):
    s = from_kernel(k)
    return DenseBasis(s.u, s.eigenvalues, **options)


def kinds():
    rng = np.random.default_rng(17)
    full, low = oracle.random_kernel(rng, N), oracle.random_kernel(rng, N, 6)
    z = rng.standard_normal((7, 7))
    related = z @ z.T / 7
    h = oracle.centring(N)
    centred = h @ full @ h
    return {
        "full": (full, basis_of(full)),
        "low": (low, basis_of(low)),
        "centred": (centred, basis_of(centred, centered=True)),
        "groups": (oracle.group_kernel(CODES), GroupBasis(CODES)),
        "related": (oracle.group_kernel(CODES, related), GroupBasis(CODES, related)),
    }


KINDS = kinds()


def data(kind, seed=0, gamma=1.0):
    """X with a donor-level covariate, y at γ."""
    rng = np.random.default_rng(seed)
    k, basis = KINDS[kind]
    x = np.column_stack([np.ones(N), rng.standard_normal(7)[CODES], rng.standard_normal(N)])
    return oracle.response(rng, x, k, gamma), x, k, basis


def interior(kind, reml=True, gamma=1.0):
    """The first seed whose dense fit is inside (0, 1), with that fit."""
    for seed in range(50):
        y, x, k, basis = data(kind, seed, gamma)
        dense = oracle.fit(y, x, k, reml=reml)
        if 0.05 < dense.gamma < 20:
            return y, x, k, basis, dense
    raise AssertionError("no interior optimum in 50 draws")


def fit(y, x, basis, gamma=None, **options):
    simulate = options.pop("simulate", False)
    return NullModel(make_design(x), basis, **options).fit(y, gamma, simulate=simulate)


@pytest.mark.parametrize(
    ("kind", "reml"), [(kind, reml) for kind in KINDS for reml in (True, False) if reml or kind != "centred"]
)
class TestEstimates:
    def test_against_the_oracle(self, kind, reml):
        y, x, _k, basis, dense = interior(kind, reml)
        got = fit(y, x, basis, reml=reml)
        assert got.status == "ok"
        # Brent on a value that is flat to √eps at its minimum finds log γ to about 1e-8 · 1/√curvature.
        assert np.log(got.gamma) == pytest.approx(np.log(dense.gamma), abs=1e-6)
        assert got.log_likelihood == pytest.approx(dense.log_likelihood, abs=1e-10)
        assert got.log_likelihood >= dense.log_likelihood - 1e-11
        assert (got.n_obs, got.rank, got.reml, got.gamma_fixed) == (N, basis.rank, reml, False)
        assert got.aic == pytest.approx(-2 * got.log_likelihood + 2 * (P + 2), rel=1e-14)
        assert got.h_sq == pytest.approx(got.sigma_sq / (got.sigma_sq + got.tau_sq), rel=1e-14)
        assert got.sigma_sq == pytest.approx(got.gamma * got.tau_sq, rel=1e-14)

    def test_everything_else_at_the_gamma_found(self, kind, reml):
        """At its own γ̂ the dense formulas agree to rounding, not to the precision of Brent."""
        y, x, k, basis, _ = interior(kind, reml)
        got = fit(y, x, basis, reml=reml)
        dense = oracle.fit(y, x, k, got.gamma, reml=reml)
        np.testing.assert_allclose(got.beta, dense.beta, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(got.beta_covariance, dense.beta_covariance, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got.beta_standard_error, np.sqrt(np.diag(dense.beta_covariance)), rtol=1e-10)
        assert got.sigma_sq == pytest.approx(dense.sigma_sq, rel=1e-10)
        assert got.tau_sq == pytest.approx(dense.tau_sq, rel=1e-10)

    def test_standard_error_of_h_sq(self, kind, reml):
        y, x, k, basis, _ = interior(kind, reml)
        got = fit(y, x, basis, reml=reml)
        dense = 1 / np.sqrt(oracle.h_sq_curvature(y, x, k, got.h_sq, reml=reml))
        # The difference: truncation (1e-2)⁴ · f⁽⁶⁾/f″ and rounding 1e-12/(1e-2)² of a curvature above 1.
        assert got.h_sq_standard_error == pytest.approx(dense, rel=1e-6)

    def test_pve(self, kind, reml):
        y, x, k, basis, _ = interior(kind, reml)
        got = fit(y, x, basis, reml=reml)
        h = oracle.centring(N)
        t = np.trace(h @ k @ h) / N
        pve = got.sigma_sq * t / (got.sigma_sq * t + got.tau_sq)
        assert got.pve == pytest.approx(pve, rel=1e-11)
        # d pve/dh² = t / ((1−h)+ht)²
        slope = t / (1 - got.h_sq + got.h_sq * t) ** 2
        assert got.pve_standard_error == pytest.approx(slope * got.h_sq_standard_error, rel=1e-10)

    def test_optimum_is_stationary_in_both_components(self, kind, reml):
        """The score of the unprofiled dense likelihood vanishes at (σ̂², τ̂²)."""
        y, x, k, basis, _ = interior(kind, reml)
        got = fit(y, x, basis, reml=reml)
        score = oracle.score(y, x, k, np.array([got.sigma_sq, got.tau_sq]), reml=reml)
        np.testing.assert_allclose(score * [got.sigma_sq, got.tau_sq], 0, atol=1e-8)  # f′ at a step of 1e-10

    def test_degrees_of_freedom_are_those_of_the_observed_information(self, kind, reml):
        y, x, k, basis, _ = interior(kind, reml)
        got = fit(y, x, basis, reml=reml)
        dense = [oracle.satterthwaite(y, x, k, row, got.sigma_sq, got.tau_sq, reml=reml) for row in np.eye(P)]
        if reml:
            assert min(dense) > 0  # an example of the rule, not of the exception
        # Complex steps are exact; the information has condition ~1e4. No more than n − p are reported.
        for nu, value in zip(got.beta_df, dense, strict=True):
            if value > 0:
                assert nu == pytest.approx(min(value, N - P), rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
class TestDegreesOfFreedom:
    def test_oracle_information_is_the_hessian_of_the_deviance(self, kind):
        """The complex-step information of the oracle, checked by plain differences of the dense deviance."""
        y, x, k, basis, _ = interior(kind)
        got = fit(y, x, basis)
        theta, steps = np.array([got.sigma_sq, got.tau_sq]), np.array([got.sigma_sq, got.tau_sq]) * 1e-4
        score = oracle.score(y, x, k, theta)
        for a in range(2):
            move = np.eye(2)[a] * steps[a]
            above, below = (oracle.reml_deviance(y, x, k, *(theta + sign * move)) for sign in (1, -1))
            slope = (above - below) / (2 * steps[a])
            assert slope == pytest.approx(score[a], abs=1e-6 / theta[a])  # step² plus rounding 1e-13/1e-4

    def test_boundary_is_the_expected_information(self, kind):
        seeds = (seed for seed in range(100) if fit(*boundary(kind, seed)).gamma == 0)
        y, x, basis = boundary(kind, next(seeds))
        k = KINDS[kind][0]
        got = fit(y, x, basis)
        dense = [oracle.satterthwaite(y, x, k, row, 0.0, got.tau_sq, expected=True) for row in np.eye(P)]
        np.testing.assert_allclose(got.beta_df, np.minimum(dense, N - P), rtol=1e-8)
        assert got.beta_df.min() < N - P

    def test_contrasts_are_columns_of_x_not_of_q(self, kind):
        """Rescaling a covariate changes β and SE by the factor and leaves the degrees of freedom."""
        y, x, _, basis, _ = interior(kind)
        a, b = fit(y, x, basis), fit(y, x * [1.0, 1000.0, 1e-3], basis)
        np.testing.assert_allclose(b.beta_df, a.beta_df, rtol=1e-8)
        np.testing.assert_allclose(b.beta * [1, 1000, 1e-3], a.beta, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(b.beta_standard_error * [1, 1000, 1e-3], a.beta_standard_error, rtol=1e-9)

    def test_gamma_given_leaves_n_minus_p(self, kind):
        y, x, _, basis = data(kind)
        np.testing.assert_array_equal(fit(y, x, basis, 0.7).beta_df, N - P)


def boundary(kind, seed):
    """y without any of the kernel."""
    rng = np.random.default_rng(1000 + seed)
    x = np.column_stack([np.ones(N), rng.standard_normal(7)[CODES], rng.standard_normal(N)])
    return rng.standard_normal(N) + 3, x, KINDS[kind][1]


def test_negative_definite_observed_information_falls_back_to_the_expected():
    """Wherever the observed rule gives no positive number the expected one does: every df is in (0, n − p]."""
    fallbacks = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        codes = np.r_[np.arange(4), rng.integers(0, 4, 8)]
        x = np.column_stack([np.ones(12), rng.standard_normal(4)[codes]])
        y = rng.standard_normal(12)
        got = fit(y, x, GroupBasis(codes))
        assert (got.beta_df > 0).all()
        assert (got.beta_df <= 10).all()
        if got.status != "ok":
            continue
        k = oracle.group_kernel(codes)
        for j, row in enumerate(np.eye(2)):
            dense = oracle.satterthwaite(y, x, k, row, got.sigma_sq, got.tau_sq)
            if not dense > 0:
                fallbacks += 1
                dense = oracle.satterthwaite(y, x, k, row, got.sigma_sq, got.tau_sq, expected=True)
            assert got.beta_df[j] == pytest.approx(min(dense, 10), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reml", [True, False])
class TestGivenGamma:
    @pytest.mark.parametrize("gamma", [0.0, 0, 1e-12, 2.0, np.float32(0.5), 1e3])
    def test_is_honoured(self, kind, reml, gamma):
        y, x, k, basis = data(kind)
        got = fit(y, x, basis, gamma, reml=reml, simulate=True)
        dense = oracle.fit(y, x, k, float(gamma), reml=reml)
        assert got.gamma == float(gamma)
        assert got.gamma_fixed
        assert got.status == "ok"
        np.testing.assert_allclose(got.beta, dense.beta, rtol=1e-8, atol=1e-9)  # cond(V) = 1e4 on the dense side
        np.testing.assert_allclose(got.beta_covariance, dense.beta_covariance, rtol=1e-8, atol=1e-10)
        assert got.sigma_sq == pytest.approx(dense.sigma_sq, rel=1e-9)
        assert got.tau_sq == pytest.approx(dense.tau_sq, rel=1e-9)
        assert got.log_likelihood == pytest.approx(dense.log_likelihood, rel=1e-9)
        assert got.aic == pytest.approx(-2 * got.log_likelihood + 2 * (P + 1), rel=1e-14)
        for name in ("h_sq_standard_error", "pve_standard_error", "h_sq_ci_low", "h_sq_ci_high", "h_sq_log_p_value"):
            assert np.isnan(getattr(got, name)), name

    def test_large(self, kind, reml):
        """1e12 is a number: GLS is then generalised least squares on V = K + 1e-12 I."""
        y, x, _k, basis = data(kind)
        got = fit(y, x, basis, 1e12, reml=reml)
        assert got.gamma == 1e12
        assert got.h_sq == pytest.approx(1 - 1e-12, abs=1e-16)
        again = fit(y, x, basis, 1e11, reml=reml)
        np.testing.assert_allclose(got.beta, again.beta, rtol=1e-6, atol=1e-6)  # the limit is reached to 1/(γμ)
        assert np.isfinite(got.beta_standard_error).all()
        assert (got.beta_standard_error > 0).all()

    def test_infinite_where_there_is_something_for_it(self, kind, reml):
        y, x, k, basis = data(kind)
        if kind in ("full", "centred"):
            if kind == "centred" and not reml:
                return  # the full likelihood has no finite value there
            got = fit(y, x, basis, np.inf, reml=reml)
            assert (got.gamma, got.h_sq, got.tau_sq) == (np.inf, 1.0, 0.0)
            assert got.pve == 1.0
            if kind == "full":
                inverse = np.linalg.inv(k)
                c = np.linalg.inv(x.T @ inverse @ x)
                beta = c @ x.T @ inverse @ y
                e = y - x @ beta
                scale = e @ inverse @ e / (N - P if reml else N)
                # γ = ∞ is replaced by a value that leaves 1e-8.
                np.testing.assert_allclose(got.beta, beta, rtol=1e-6, atol=1e-7)
                np.testing.assert_allclose(got.beta_covariance, c * scale, rtol=1e-6, atol=1e-7)
                assert got.sigma_sq == pytest.approx(scale, rel=1e-10)
                assert got.log_likelihood == pytest.approx(fit(y, x, basis, 1e10, reml=reml).log_likelihood, abs=1e-5)
        else:
            with pytest.raises(
                ValueError, match=rf"gamma: infinite \(h² = 1\) needs a kernel of full rank {N - P} after the"
            ):
                fit(y, x, basis, np.inf, reml=reml)


class TestGammaErrors:
    def space(self, kind="full"):
        return NullModel(make_design(data(kind)[1]), KINDS[kind][1]).space

    @pytest.mark.parametrize("gamma", [-1.0, -1e-300, float("nan")])
    def test_out_of_range(self, gamma):
        with pytest.raises(ValueError, match=rf"gamma: must be at least 0 \(σ²/τ²\), received {gamma}"):
            check_gamma(gamma, self.space())

    @pytest.mark.parametrize("gamma", ["0.5", True, None, np.array([1.0, 2.0])])
    def test_type(self, gamma):
        with pytest.raises(TypeError, match="gamma: must be a number, received .* of type"):
            check_gamma(gamma, self.space())

    def test_infinite_without_a_kernel(self):
        model = NullModel(make_design(np.ones((N, 1))), no_kernel(N))
        with pytest.raises(ValueError, match="gamma: infinite"):
            model.fit(np.arange(float(N)), np.inf)

    def test_infinite_where_the_full_likelihood_is_unbounded(self):
        """A centred kernel: REML has a value at h² = 1, the full likelihood has not."""
        y, x, _, basis = data("centred")
        assert np.isfinite(fit(y, x, basis, np.inf).log_likelihood)
        with pytest.raises(ValueError, match="gamma: infinite"):
            fit(y, x, basis, np.inf, reml=False)

    def test_unidentified_kernel_is_fine_when_gamma_is_given(self):
        y, x, _, _ = data("full")
        with pytest.raises(ValueError, match="cannot be told from the residual"):
            NullModel(make_design(x), basis_of(np.eye(N)))
        got = NullModel(make_design(x), basis_of(np.eye(N)), identifiable=False).fit(y, 1.0)
        assert got.sigma_sq == pytest.approx(got.tau_sq, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_boundary_at_zero_is_ordinary_least_squares(kind):
    y, x, basis = next(args for args in (boundary(kind, seed) for seed in range(100)) if fit(*args).gamma == 0)
    got = fit(y, x, basis, simulate=True)
    beta, rss, *_ = np.linalg.lstsq(x, y)
    assert got.status == "boundary"
    assert (got.gamma, got.h_sq, got.sigma_sq, got.pve) == (0.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(got.beta, beta, rtol=1e-11)
    assert got.tau_sq == pytest.approx(rss[0] / (N - P), rel=1e-12)
    np.testing.assert_allclose(got.beta_covariance, np.linalg.inv(x.T @ x) * rss[0] / (N - P), rtol=1e-10, atol=1e-14)
    assert np.isnan(got.h_sq_standard_error)
    assert np.isnan(got.pve_standard_error)
    assert got.h_sq_p_value == 1.0
    assert got.h_sq_p_value_mixture == 1.0
    assert got.h_sq_ci_low == 0.0
    assert 0 < got.h_sq_ci_high < 1
    np.testing.assert_array_equal(fit(y, x, basis, 0.0).beta, got.beta)


@pytest.mark.parametrize("kind", ["full", "centred"])
def test_boundary_at_one(kind):
    """Nothing but the kernel: h² = 1 is an answer, with its limit of the likelihood."""
    rng = np.random.default_rng(3)
    k, basis = KINDS[kind]
    x = np.column_stack([np.ones(N), rng.standard_normal((N, 2))])
    hits = 0
    for _ in range(20):
        y = x @ [1.0, 2.0, 3.0] + np.linalg.cholesky(k + 1e-12 * np.eye(N)) @ rng.standard_normal(N)
        got = fit(y, x, basis)
        assert got.h_sq > 0.7
        if np.isinf(got.gamma):
            hits += 1
            assert (got.status, got.h_sq, got.tau_sq, got.pve) == ("boundary", 1.0, 0.0, 1.0)
            assert np.isnan(got.h_sq_standard_error)
            near = fit(y, x, basis, 1e9)
            assert got.log_likelihood == pytest.approx(near.log_likelihood, abs=1e-4)
            assert got.log_likelihood >= near.log_likelihood
            assert got.sigma_sq == pytest.approx(near.sigma_sq, rel=1e-5)
            np.testing.assert_allclose(got.beta, near.beta, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(got.beta_standard_error, near.beta_standard_error, rtol=1e-5)
            if kind == "full":
                # The observed information is that of one noisy draw at an end of its range: df from 0.001 to n − p.
                dense = [
                    oracle.satterthwaite(y, x, k, row, got.sigma_sq, 1e-9 * got.sigma_sq, expected=True)
                    for row in np.eye(P)
                ]
                np.testing.assert_allclose(got.beta_df, np.minimum(dense, N - P), rtol=1e-4)  # τ² = 0 is a limit
    assert hits > 5


def test_p_larger_than_the_rank():
    rng = np.random.default_rng(12)
    k, x = oracle.random_kernel(rng, N, 3), oracle.design(rng, N, 9)
    y = oracle.response(rng, x, k, 2.0)
    got = fit(y, x, basis_of(k))
    dense = oracle.fit(y, x, k, got.gamma)
    np.testing.assert_allclose(got.beta, dense.beta, rtol=1e-9)
    np.testing.assert_allclose(got.beta_covariance, dense.beta_covariance, rtol=1e-8, atol=1e-12)
    assert got.log_likelihood == pytest.approx(oracle.fit(y, x, k).log_likelihood, abs=1e-9)


def test_no_kernel_is_ordinary_least_squares():
    rng = np.random.default_rng(2)
    x = oracle.design(rng, N, P)
    y = x @ [1, 2, 3] + rng.standard_normal(N)
    got = fit(y, x, no_kernel(N), simulate=True)
    beta, rss, *_ = np.linalg.lstsq(x, y)
    assert (got.status, got.gamma, got.h_sq, got.rank) == ("ok", 0.0, 0.0, 0)
    np.testing.assert_allclose(got.beta, beta, rtol=1e-12)
    assert got.tau_sq == pytest.approx(rss[0] / (N - P), rel=1e-12)
    np.testing.assert_array_equal(got.beta_df, N - P)
    assert got.aic == pytest.approx(-2 * got.log_likelihood + 2 * (P + 1), rel=1e-14)
    assert np.isnan(got.h_sq_p_value)
    full = fit(y, x, no_kernel(N), reml=False)
    sigma = np.sqrt(rss[0] / N)
    assert full.log_likelihood == pytest.approx(stats.norm.logpdf(y, x @ beta, sigma).sum(), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gamma", [0.0, 0.4, 30.0])
def test_blup(kind, gamma):
    y, x, k, basis = data(kind)
    model = NullModel(make_design(x), basis)
    blup, residual = model.predict_random(y, gamma)
    expected, rest = oracle.blup(y, x, k, gamma)
    np.testing.assert_allclose(blup, expected, atol=1e-11)  # cond(V) ~ 1e3 on the dense side
    np.testing.assert_allclose(residual, rest, atol=1e-11)
    beta = model.fit(y, gamma).beta
    np.testing.assert_allclose(x @ beta + blup + residual, y, atol=1e-11)


def test_blup_at_infinity_leaves_nothing():
    y, x, _, basis = data("full")
    blup, residual = NullModel(make_design(x), basis).predict_random(y, np.inf)
    assert np.abs(residual).max() < 1e-13 * np.abs(blup).max()  # a difference of numbers of the size of y


@pytest.mark.parametrize("kind", KINDS)
def test_offset_and_scale_of_y(kind):
    y, x, _, basis, _ = interior(kind)
    reference = fit(y, x, basis)
    for offset in (1e3, -1e7):
        moved = fit(y + offset, x, basis)
        # y itself is stored to 1e-9 of its standard deviation then; γ̂ magnifies that by about 10.
        tolerance = 1e-13 * abs(offset) * 100
        assert moved.h_sq == pytest.approx(reference.h_sq, rel=tolerance + 1e-12)
        assert moved.h_sq_standard_error == pytest.approx(reference.h_sq_standard_error, rel=tolerance + 1e-12)
        np.testing.assert_allclose(moved.beta[1:], reference.beta[1:], atol=tolerance + 1e-12)
        assert moved.beta[0] - offset == pytest.approx(reference.beta[0], abs=1e-14 * abs(offset) + tolerance)
        np.testing.assert_allclose(moved.beta_standard_error, reference.beta_standard_error, rtol=tolerance + 1e-12)
    for scale in (1e-9, 1e9):
        moved = fit(y * scale, x, basis)
        assert moved.gamma == pytest.approx(reference.gamma, rel=1e-9)
        assert moved.tau_sq == pytest.approx(reference.tau_sq * scale**2, rel=1e-9)
        np.testing.assert_allclose(moved.beta, reference.beta * scale, rtol=1e-9)
        assert moved.log_likelihood == pytest.approx(reference.log_likelihood - (N - P) * np.log(scale), rel=1e-10)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("kind", ["full", "low", "related"])
def test_scale_of_k(kind, scale):
    y, x, _k, basis, _ = interior(kind)
    if kind == "related":
        moved_basis = GroupBasis(CODES, basis.relatedness * scale)
    else:
        moved_basis = DenseBasis(basis.u, basis.s * scale)
    a, b = fit(y, x, basis, simulate=True), fit(y, x, moved_basis, simulate=True)
    assert b.gamma * scale == pytest.approx(a.gamma, rel=1e-8)  # two searches to 1e-10, eigenvalues to 1e-12
    assert b.sigma_sq * scale == pytest.approx(a.sigma_sq, rel=1e-8)
    for name in ("tau_sq", "log_likelihood", "pve", "pve_standard_error", "h_sq_p_value"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-6), name  # the draws are the same to rounding
    np.testing.assert_allclose(b.beta, a.beta, rtol=1e-8)
    np.testing.assert_allclose(b.beta_df, a.beta_df, rtol=1e-6)


class TestRefusals:
    def test_constant_phenotype(self):
        _, x, _, basis = data("full")
        for value in (0.0, 3.7, 1e7 / 3):
            with pytest.raises(ValueError, match="height: constant on the rows that are used; there is no variance"):
                NullModel(make_design(x), basis).fit(np.full(N, value), name="height")

    @pytest.mark.parametrize("offset", [0.0, 1e7])
    def test_phenotype_in_the_span_of_the_covariates(self, offset):
        _, x, _, basis = data("full")
        with pytest.raises(
            ValueError, match="phenotype: a linear combination of the covariates on the rows that are used"
        ):
            NullModel(make_design(x), basis).fit(x @ [offset, 2.0, -1.0])

    @pytest.mark.parametrize("kind", ["groups", "related"])
    def test_phenotype_constant_within_groups(self, kind):
        _, x, _, basis = data(kind)
        y = np.random.default_rng(1).standard_normal(7)[CODES]
        model = NullModel(make_design(x[:, :2]), basis, kernel="donor")
        with pytest.raises(
            ValueError,
            match=r"age: constant within the groups of 'donor' .* one row per group .*\(al\.tl\.differential\)",
        ):
            model.fit(y + 1e3, name="age")

    def test_not_finite(self):
        y, x, _, basis = data("full")
        y[[2, 5]] = np.nan, np.inf
        with pytest.raises(ValueError, match="phenotype: 2 NaN or infinite values; drop these rows"):
            NullModel(make_design(x), basis).fit(y)

    def test_rows_disagree(self):
        _, x, _, basis = data("full")
        with pytest.raises(
            ValueError, match=f"GRM: {N} rows, but the covariates have {N - 1}; both must be on the same"
        ):
            NullModel(make_design(x[1:]), basis, kernel="GRM")

    def test_small_variation_is_still_a_phenotype(self):
        """1e-6 of the mean is a legitimate variance; so is a phenotype of very small units."""
        _, x, _, basis = data("full")
        noise = np.random.default_rng(5).standard_normal(N)
        reference = fit(noise, x, basis)
        assert fit(1.0 + 1e-6 * noise, x, basis).h_sq == pytest.approx(reference.h_sq, abs=1e-8)  # y to 1e-10 of its sd
        assert fit(1e-30 * noise, x, basis).h_sq == pytest.approx(reference.h_sq, abs=1e-9)


def test_h_sq_of():
    assert h_sq_of(0.0) == 0.0
    assert h_sq_of(3.0) == 0.75
    assert h_sq_of(np.inf) == 1.0


def test_ml_optimum_is_that_of_a_general_optimiser():
    """Both components free, by Nelder–Mead on the dense multivariate normal density itself."""
    y, x, k, basis, _ = interior("full", reml=False)
    got = fit(y, x, basis, reml=False)

    def negative(theta):
        v = np.exp(theta[0]) * k + np.exp(theta[1]) * np.eye(N)
        beta = np.linalg.solve(x.T @ np.linalg.solve(v, x), x.T @ np.linalg.solve(v, y))
        return -stats.multivariate_normal.logpdf(y, x @ beta, v)

    best = optimize.minimize(
        negative, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 2000}
    )
    assert got.log_likelihood == pytest.approx(-best.fun, abs=1e-9)
    np.testing.assert_allclose([got.sigma_sq, got.tau_sq], np.exp(best.x), rtol=1e-4)  # flat to √1e-12


@pytest.mark.parametrize(
    "wrong", [np.array([[-1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 2.0], [2.0, 1.0]]), np.diag([3.0, 0.0])]
)
def test_degrees_of_freedom_where_the_observed_information_is_not_positive_definite(wrong):
    """Those of the expected one."""
    expected = np.array([[0.3, 0.1], [0.1, 4.0]])
    gradient, variance = np.array([[1.0, 0.5]]), np.array([0.7])
    information = VarianceInformation(wrong, expected, at_boundary=False)
    by_hand = 2 * 0.7**2 / (gradient[0] @ np.linalg.solve(expected, gradient[0]))
    assert satterthwaite_df(variance, gradient, information, 50)[0] == pytest.approx(by_hand, rel=1e-12)


def test_degrees_of_freedom_by_the_observed_information_whatever_its_covariance():
    observed, gradient = np.array([[0.3, -0.1], [-0.1, 4.0]]), np.array([[1.0, 0.5]])
    information = VarianceInformation(observed, np.eye(2), at_boundary=False)
    by_hand = 2 * 0.7**2 / (gradient[0] @ np.linalg.solve(observed, gradient[0]))
    assert satterthwaite_df(np.array([0.7]), gradient, information, 50)[0] == pytest.approx(by_hand, rel=1e-12)
