"""What other programs get wrong, one test per failure, numbered as in the list of them; the docstring says what happened.

Hail is `LinearMixedModel` of Hail 0.2.93, the last release that had it.
"""

from __future__ import annotations

import dask.array as da
import numpy as np
import oracle
import pytest
from scipy import stats

import annlmm as al
from annlmm.model.basis import DenseBasis, GroupBasis
from annlmm.model.design import make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.null import NullModel
from annlmm.model.profile import Profile
from annlmm.model.search import minimise

N, P, R, M = 34, 3, 6, 8


def example(seed=0, gamma=1.0, rank=None, n=N, p=P):
    """(y, X, K, features) of one simulated data set."""
    rng = np.random.default_rng(seed)
    x, k = oracle.design(rng, n, p), oracle.random_kernel(rng, n, rank)
    return oracle.response(rng, x, k, gamma), x, k, rng.standard_normal((n, M))


def full_rank(seed=0, gamma=1.0):
    y, x, k, a = example(seed, gamma)
    model, rotation = al.LinearMixedModel.from_kinship(y, x, k)
    return model, rotation, a


def low_rank(seed=0):
    y, x, k, a = example(seed, rank=R)
    values, vectors = np.linalg.eigh(k)
    rotation = vectors[:, -R:].T
    return al.LinearMixedModel(rotation @ y, rotation @ x, values[-R:], y, x), rotation, a


def null_model(x, k, **options):
    s = from_kernel(k)
    return NullModel(make_design(x), DenseBasis(s.u, s.eigenvalues), **options)


def test_pitfall_1_log_gamma_zero_is_a_value():
    """Hail: `if log_gamma:` ignored fit(log_gamma=0.0) and optimised instead."""
    model, _, _ = full_rank()
    model.fit()
    assert abs(model.log_gamma) > 0.01
    model.fit(log_gamma=0.0)
    assert (model.log_gamma, model.gamma, model.h_sq) == (0.0, 1.0, 0.5)
    assert model.sigma_sq == pytest.approx(model.tau_sq, rel=1e-14)
    y, x, k, _ = example()
    assert null_model(x, k).fit(y, 0.0).gamma == 0.0
    assert null_model(x, k).fit(y, 0.0).gamma_fixed


def test_pitfall_2_a_constrained_fit_has_no_standard_error_and_does_not_raise():
    """Hail: fit(log_gamma=2.0) raised from its step for the standard error and left the model marked as fitted."""
    model, rotation, a = full_rank()
    model.fit(log_gamma=2.0)
    assert model.log_gamma == 2.0
    assert model.h_sq_standard_error is None
    assert np.isfinite(model.fit_alternatives(rotation @ a)).all().all()


def test_pitfall_3_an_optimum_at_a_bound_is_a_result():
    """Hail: 117 of 200 fits of null traits with 12 donors raised since the optimum was at a bound."""
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(12), 4)
    design, basis = make_design(np.ones((48, 1))), GroupBasis(codes)
    space = NullModel(design, basis)
    values, vectors = np.linalg.eigh(oracle.group_kernel(codes))
    rotation = vectors[:, -12:].T
    statuses = []
    for _ in range(200):
        y = rng.standard_normal(48)
        fit = space.fit(y, simulate=False)
        model = al.LinearMixedModel(rotation @ y, rotation @ np.ones((48, 1)), values[-12:], y, np.ones((48, 1)))
        model.fit()
        assert model.status == fit.status
        assert model.h_sq == pytest.approx(fit.h_sq, abs=1e-8)
        statuses.append(fit.status)
    # P(γ̂ = 0) is about 0.58 with 11 degrees of freedom: P(F(11, 36) ≤ 1) = 0.54.
    assert 80 < statuses.count("boundary") < 140
    assert statuses.count("ok") + statuses.count("boundary") == 200
    heritable, rotation, a = full_rank(3, gamma=1e10)
    heritable.fit(bounds=(-3.0, -2.0))
    assert (heritable.status, heritable.log_gamma) == ("boundary", -2.0)
    heritable.fit(bounds=(-2.0, -1.0))
    assert (heritable.status, heritable.log_gamma) == ("boundary", -1.0)
    assert np.isfinite(heritable.fit_alternatives(rotation @ a)).all().all()


@pytest.mark.parametrize("offset", [1e6, 1e7])
def test_pitfall_4_an_offset_of_y_changes_nothing(offset):
    """Hail: adding 1e6 to y made h² 0.732 instead of 0.691, 1e7 made it 0.014, and its standard error 7e-7."""
    y, x, k, _ = example(seed=6, rank=9)
    z = np.linalg.cholesky(k + 1e-9 * np.eye(N))[:, :9]
    # y is stored to eps · offset of its standard deviation, which γ̂ magnifies by about ten.
    tolerance = 2e-15 * offset
    for build, kernel in ((al.LinearMixedModel.from_kinship, k), (al.LinearMixedModel.from_random_effects, z)):
        (a, _), (b, _) = build(y, x, kernel), build(y + offset, x, kernel)
        a.fit()
        b.fit()
        assert (a.status, b.status) == ("ok", "ok")
        assert b.h_sq == pytest.approx(a.h_sq, abs=tolerance)
        assert b.h_sq_standard_error == pytest.approx(a.h_sq_standard_error, rel=10 * tolerance)
        assert b.sigma_sq == pytest.approx(a.sigma_sq, rel=10 * tolerance)
    a, b = null_model(x, k).fit(y), null_model(x, k).fit(y + offset)
    for name in (
        "h_sq",
        "h_sq_standard_error",
        "tau_sq",
        "log_likelihood",
        "h_sq_p_value",
        "h_sq_ci_low",
        "h_sq_ci_high",
    ):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=100 * tolerance), name


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_pitfall_5_the_scale_of_k_is_a_unit(scale):
    """Hail: K × 1e6 and K × 1e-6 both raised at a bound."""
    y, x, k, a = example()
    model, rotation = al.LinearMixedModel.from_kinship(y, x, k)
    moved, moved_rotation = al.LinearMixedModel.from_kinship(y, x, k * scale)
    model.fit()
    moved.fit()
    assert moved.status == "ok"
    assert moved.sigma_sq * scale == pytest.approx(model.sigma_sq, rel=1e-7)  # two searches to 1e-8
    assert moved.tau_sq == pytest.approx(model.tau_sq, rel=1e-7)
    np.testing.assert_allclose(moved.beta, model.beta, rtol=1e-7)
    np.testing.assert_allclose(
        moved.fit_alternatives(moved_rotation @ a)["chi_sq"], model.fit_alternatives(rotation @ a)["chi_sq"], rtol=1e-6
    )


def test_pitfall_6_a_scan_follows_the_last_fit():
    """Hail: after a refit the parallel scan returned the old γ's results; after a failed fit it ran too."""
    model, rotation, a = full_rank()
    lazy = da.from_array((rotation @ a).T, chunks=(3, -1))
    model.fit(log_gamma=-4.0)
    before = model.fit_alternatives(lazy)
    model.fit(log_gamma=4.0)
    after = model.fit_alternatives(lazy)
    np.testing.assert_allclose(after, model.fit_alternatives(rotation @ a), rtol=1e-12)
    assert (np.abs(after["chi_sq"] / before["chi_sq"] - 1) > 1e-3).all()
    with pytest.raises(ValueError, match="bounds"):
        model.fit(bounds=(1.0, 0.0))
    with pytest.raises(ValueError, match=r"not fitted; call fit\(\) first"):
        model.fit_alternatives(lazy)


def test_pitfall_7_a_collinear_alternative_is_nan():
    """Hail: β = −9.7e20, χ² = −1449 and p = 1 for a copy of a covariate."""
    y, x, k, a = example()
    model, rotation = al.LinearMixedModel.from_kinship(y, x, k)
    model.fit()
    a[:, 2] = x[:, 1]
    a[:, 5] = x @ [3.0, -1.0, 2.0]
    table = model.fit_alternatives(rotation @ a)
    assert table.loc[[2, 5]].isna().all().all()
    assert (table.drop([2, 5])["chi_sq"] > 0).all()


def test_pitfall_8_one_nan_is_one_feature():
    """Hail: one NaN in one alternative aborted the whole scan."""
    model, rotation, a = low_rank()
    model.fit()
    clean = model.fit_alternatives(rotation @ a, a)
    a[3, 4] = np.nan
    table = model.fit_alternatives(rotation @ a, a)
    assert table.loc[4].isna().all()
    np.testing.assert_allclose(table.drop(4), clean.drop(4), rtol=1e-12)


class TestPitfall9:
    """Hail: the check for positive semi-definiteness never fired; indefinite, asymmetric and NaN kernels were accepted."""

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda k: k - 0.5 * np.eye(N), r"k: not positive semi-definite \(smallest eigenvalue -"),
            (lambda k: k + np.triu(np.full((N, N), 0.1), 1), "k: not symmetric"),
            (lambda k: np.where(k == k[3, 3], np.nan, k), "k: 1 NaN or infinite values"),
        ],
    )
    def test_is_refused(self, spoil, message):
        y, x, k, _ = example()
        with pytest.raises(ValueError, match=message):
            al.LinearMixedModel.from_kinship(y, x, spoil(k))

    def test_round_off_is_clipped_and_counted(self):
        _, _, k, _ = example(rank=R)
        spectrum = from_kernel(k - 1e-9 * np.eye(N))
        assert spectrum.n_clipped == N - R
        assert spectrum.eigenvalues.size == R


def test_pitfall_10_unidentified_models_are_refused():
    """Hail: K = I gave h² 0.90 (SE 33), K = 11ᵀ with an intercept 0.9994."""
    y, x, _, _ = example()
    for k, message in (
        (np.eye(N), "cannot be told from the residual"),
        (np.ones((N, N)), "absorbed by the covariates"),
    ):
        model, _ = al.LinearMixedModel.from_kinship(y, x, k)
        with pytest.raises(ValueError, match=message):
            model.fit()
        with pytest.raises(ValueError, match=message):
            null_model(x, k)


def test_pitfall_11_the_likelihood_ratio_is_too_small_in_small_samples():
    """Hail: the χ² test has 1.55 times its nominal size at 0.05 and 18 times at 5e-8 for n = 50, p = 8; the F test is exact."""
    n, p = 50, 8
    r_sq = stats.beta(0.5, (n - p - 1) / 2)
    from annlmm.model.hypothesis import TESTS

    for alpha, inflation in ((0.05, 1.55), (5e-8, 18.0)):
        at = r_sq.isf(alpha)
        lrt, wald = (float(np.exp(TESTS[test](np.array([at]), n, p).log_p_value[0])) for test in ("lrt", "wald"))
        assert wald == pytest.approx(alpha, rel=1e-9)
        # The size of the test at α is the probability of the R² at which the χ² test reports α.
        boundary = -np.expm1(-stats.chi2.isf(alpha, 1) / n)
        assert r_sq.sf(boundary) / alpha == pytest.approx(inflation, rel=0.05)
        assert lrt < alpha
    y, x, k, a = example()
    model, rotation = al.LinearMixedModel.from_kinship(y, x, k)
    model.fit()
    table = model.fit_alternatives(rotation @ a)
    np.testing.assert_allclose(
        table["p_value"], stats.chi2.sf(table["chi_sq"], 1), rtol=1e-10
    )  # the seed's test is kept


def test_pitfall_12_the_optimum_and_its_curvature_are_analytic():
    """Hail: log γ good to 2e-7 and the standard error to 1e-5 (2e-4 near log γ = −5), from a finite-difference parabola."""
    hard = 0
    for seed in range(60):
        y, x, k, _ = example(seed, gamma=0.03)
        model, _ = al.LinearMixedModel.from_kinship(y, x, k)
        model.fit(tol=1e-12)
        if model.status != "ok":
            continue
        hard += model.log_gamma < -3
        h = model.h_sq
        score = oracle.score(y, x, k, np.array([model.sigma_sq, model.tau_sq]))
        np.testing.assert_allclose(score * [model.sigma_sq, model.tau_sq], 0, atol=1e-9)
        exact = 1 / np.sqrt(oracle.h_sq_curvature(y, x, k, h))
        # The dense difference of fourth order has rounding 1e-12/(1e-2 h)² beside a curvature of 1/h² or so.
        assert model.h_sq_standard_error == pytest.approx(exact, rel=1e-6)
    assert hard >= 2


def test_pitfall_13_the_global_optimum_is_found():
    """Hail: 21 of 3000 random profiles with n < 40 have several optima, and it took the first it met."""
    several = 0
    t = np.linspace(-12, 14, 521)
    for seed in range(400):
        rng = np.random.default_rng(10_000 + seed)
        n = int(rng.integers(4, 12))
        mu = rng.exponential(1.0, n) ** 3 + 1e-3
        y_sq = rng.standard_normal(n) ** 2 * (1 + rng.choice([0.0, 1.0, 30.0]) * mu)
        f = oracle.profile_value(mu, y_sq, 0.0, mu, n, np.exp(t))
        ends = [n * np.log(y_sq.sum()), n * np.log((y_sq / mu).sum()) + np.log(mu).sum()]
        values = np.r_[ends[0], f, ends[1]]
        dips = (values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])
        several += dips.sum() + (values[0] < values[1]) + (values[-1] < values[-2]) > 1
        assert minimise(Profile(mu, y_sq, 0.0, n, mu, n)).value <= values.min() + 1e-10
    assert several >= 5


class TestPitfall14:
    """Hail: an AttributeError, an empty AssertionError or 'linear algebra error' for misuse; aliased and float32 input."""

    def test_low_rank_without_a(self):
        model, rotation, a = low_rank()
        model.fit()
        with pytest.raises(ValueError, match="a: required for a low-rank model"):
            model.fit_alternatives(rotation @ a)

    def test_a_wrong_a_is_not_ignored(self):
        model, rotation, a = full_rank()
        model.fit()
        with pytest.raises(ValueError, match="a: not used by a full-rank model"):
            model.fit_alternatives(rotation @ a, a[:5])

    def test_shapes(self):
        model, rotation, a = full_rank()
        model.fit()
        with pytest.raises(
            ValueError, match=r"pa: must have 34 rows \(one per eigenvector\), received shape \(8, 34\)"
        ):
            model.fit_alternatives((rotation @ a).T)

    def test_rank_deficient_covariates(self):
        y, x, k, _ = example()
        with pytest.raises(ValueError, match="px 'x1' and 'x3' are collinear"):
            al.LinearMixedModel.from_kinship(y, np.column_stack([x, x[:, 1]]), k)

    def test_inputs_are_not_aliased(self):
        model, _, _ = full_rank()
        py, px, s = model.py.copy(), model.px.copy(), model.s.copy()
        copy = al.LinearMixedModel(py, px, s)
        py += 1
        px *= 2
        s *= 3
        copy.fit()
        model.fit()
        assert copy.h_sq == model.h_sq

    def test_float32_is_computed_in_float64(self):
        """Hail: float32 input shifted h² by 6e-5."""
        y, x, k, _ = example()
        single = [np.asarray(v, dtype=np.float32) for v in (y, x, k)]
        a, _ = al.LinearMixedModel.from_kinship(*single)
        b, _ = al.LinearMixedModel.from_kinship(*(v.astype(float) for v in single))
        a.fit()
        b.fit()
        assert a.h_sq == b.h_sq


def test_pitfall_15_the_rotation_is_laid_out_for_its_product():
    """Hail: a negatively strided P made P @ A forty times slower."""
    y, x, k, _ = example()
    for _, rotation in (
        al.LinearMixedModel.from_kinship(y, x, k),
        al.LinearMixedModel.from_random_effects(y, x, k[:, :9]),
    ):
        assert rotation.flags.c_contiguous
    assert from_kernel(k).u.flags.f_contiguous  # made for uᵀ @ A
    assert NullModel(make_design(x), GroupBasis(np.arange(N) % 7)).space.rotation.flags.f_contiguous


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        (lambda x: np.ones(N), "'intercept' and 'extra'"),
        (lambda x: 3.0 * np.ones(N), "'intercept' and 'extra'"),
        (lambda x: x[:, 1] + x[:, 2], "'age', 'dose' and 'extra'"),
    ],
)
def test_pitfall_16_rank_deficiency_is_named(extra, names):
    """FaST-LMM: a duplicated intercept shifted p by up to 0.76 in log₁₀ without an error."""
    _, x, _, _ = example()
    with pytest.raises(ValueError, match=rf"covariates {names} are collinear \(rank 3 of 4\); drop one"):
        make_design(np.column_stack([x, extra(x)]), ["intercept", "age", "dose", "extra"])


def test_pitfall_18_failures_of_the_optimiser_are_reported():
    """airqtl: a failed optimisation is reported as heritability 0 (`onerror=0`)."""
    model, _, _ = full_rank(2)
    with pytest.warns(RuntimeWarning, match="did not meet its tolerance"):
        model.fit(maxiter=1, tol=1e-14)
    assert model.status == "not_converged"
    assert model.h_sq > 0


class TestPitfall20:
    """Cell-level tests of a donor-level covariate on n − p degrees of freedom are anticonservative with few donors;
    lmerTest's Satterthwaite degrees of freedom jump to n − p where σ̂² = 0; simulated p-values end at 1/draws; intervals
    cut at 3.84 are off near h² = 0."""

    def setup_method(self):
        self.codes = np.repeat(np.arange(8), 25)
        treated = (np.arange(8) < 4).astype(float)[self.codes]
        self.x = np.column_stack([np.ones(200), treated, np.cos(np.arange(200.0))])
        self.model = NullModel(make_design(self.x), GroupBasis(self.codes))

    def test_20_degrees_of_freedom_of_a_donor_level_covariate(self):
        """Balanced donors: exactly D − 2, whatever n; a cell-level covariate has nearly n − p − D."""
        rng = np.random.default_rng(0)
        y = rng.standard_normal(200) + 2.0 * rng.standard_normal(8)[self.codes]
        df = self.model.fit(y, simulate=False).beta_df
        assert df[1] == pytest.approx(6.0, abs=0.01)  # exact but for the cell-level covariate
        assert 185 < df[2] < 197

    def test_20b_no_jump_at_the_boundary(self):
        rng = np.random.default_rng(1)
        seen = 0
        for _ in range(60):
            fit = self.model.fit(rng.standard_normal(200), simulate=False)
            if fit.gamma == 0:
                seen += 1
                assert fit.beta_df[1] < 12  # not 197
        assert seen > 10

    def test_20b_p_value_below_one_over_the_draws(self):
        rng = np.random.default_rng(2)
        y = rng.standard_normal(200) + 3.0 * rng.standard_normal(8)[self.codes]
        fit = self.model.fit(y)
        assert 0 < fit.h_sq_p_value < 1e-20

    def test_20b_cut_of_the_interval_near_zero(self):
        """The 95 % quantile of the likelihood ratio is near 2 at h² = 0, not 3.84, and its interval ends there."""
        null = self.model.variance_null
        assert 1.2 < null.quantile(0.0) < 2.7
        assert null.quantile(1.0) > 3.3


def test_pitfall_21_the_restricted_likelihood_includes_the_determinant_of_xtx():
    """R (lme4, nlme) omits ½ log|XᵀX|, GEMMA and Hail include it; ours is GEMMA's, and does not depend on the units of X."""
    y, x, k, _ = example()
    fit = null_model(x, k).fit(y, simulate=False)
    v = fit.sigma_sq * k + fit.tau_sq * np.eye(N)
    e = y - x @ fit.beta
    log_det = np.linalg.slogdet
    r_s = -0.5 * (
        (N - P) * np.log(2 * np.pi)
        + log_det(v)[1]
        + log_det(x.T @ np.linalg.solve(v, x))[1]
        + e @ np.linalg.solve(v, e)
    )
    assert fit.log_likelihood == pytest.approx(r_s + 0.5 * log_det(x.T @ x)[1], abs=1e-9)
    assert null_model(x * [1, 1e3, 1e-4], k).fit(y, simulate=False).log_likelihood == pytest.approx(
        fit.log_likelihood, abs=1e-9
    )


def test_pitfall_22_restricted_and_full_nulls_are_both_there():
    """LIMIX's published table has an ML null, GEMMA and Hail a REML one: two answers, and the choice is reported."""
    y, x, k, _ = example(seed=1)
    reml, ml = (null_model(x, k, reml=flag).fit(y, simulate=False) for flag in (True, False))
    assert (reml.reml, ml.reml) == (True, False)
    assert np.log(reml.gamma) == pytest.approx(np.log(oracle.fit(y, x, k).gamma), abs=1e-6)
    assert np.log(ml.gamma) == pytest.approx(np.log(oracle.fit(y, x, k, reml=False).gamma), abs=1e-6)
    assert abs(reml.h_sq - ml.h_sq) > 1e-3
