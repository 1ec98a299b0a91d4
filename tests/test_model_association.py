"""Tests of features at a fixed γ against the dense oracle, whatever the kernel, the array type and the path through it."""

from __future__ import annotations

import mpmath
import numpy as np
import oracle
import pytest
from scipy import sparse, stats

from annlmm.blocks import column_blocks
from annlmm.model.association import ALL_MISSING, COLLINEAR, CONSTANT, OK, STATUS, make_scan
from annlmm.model.basis import DenseBasis, GroupBasis, no_kernel
from annlmm.model.design import make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.hypothesis import TESTS, log_f_sf
from annlmm.model.null import NullModel
from annlmm.model.response import residual_of
from annlmm.model.scan import FeatureTests, ScanEngine, fill_missing
from annlmm.model.triangular import triangular_product

N, P, M = 36, 3, 7
CODES = np.r_[np.arange(6), np.random.default_rng(2).integers(0, 6, N - 6)]


def basis_of(k):
    s = from_kernel(k)
    return DenseBasis(s.u, s.eigenvalues)


def kinds():
    rng = np.random.default_rng(23)
    full, low = oracle.random_kernel(rng, N), oracle.random_kernel(rng, N, 5)
    z = rng.standard_normal((6, 6))
    h = oracle.centring(N)
    half = oracle.random_kernel(rng, N, 24)
    return {
        "full": (full, basis_of(full)),
        "above half": (half, basis_of(half)),
        "low": (low, basis_of(low)),
        "centred": (h @ full @ h, basis_of(h @ full @ h)),
        "groups": (oracle.group_kernel(CODES), GroupBasis(CODES)),
        "related": (oracle.group_kernel(CODES, z @ z.T / 6), GroupBasis(CODES, z @ z.T / 6)),
        "none": (np.zeros((N, N)), no_kernel(N)),
    }


KINDS = kinds()


def data(kind, seed=0, p=P):
    """y, X with a donor-level covariate, features with a donor-level one, one of counts and one in the span of K."""
    rng = np.random.default_rng(seed)
    k, basis = KINDS[kind]
    x = oracle.design(rng, N, p)
    if p > 1:
        x[:, 1] = rng.standard_normal(6)[CODES]
    a = rng.standard_normal((N, M)) * (rng.random((N, M)) < 0.7)
    a[:, 1] = rng.binomial(2, 0.4, 6)[CODES] + np.arange(6)[CODES] % 2
    a[:, 2] = rng.poisson(2, N)
    a[:, 3] += k @ rng.standard_normal(N)
    return oracle.response(rng, x, k, 0.8), x, k, basis, a


def engine(y, x, basis, gamma, test="wald", *, sums=False):
    """The scan of features at γ with n − p − 1 degrees of freedom; `sums=True` takes the path of the sums, through U."""
    design = make_design(x)
    space = NullModel(design, basis, identifiable=False).space
    columns = np.reshape(y, (N, -1)).T
    my = np.stack([residual_of(column, design)[0] for column in columns], axis=1)
    scans = []
    for column in my.T:
        u = basis.project(column)
        outside = column - basis.expand(u)
        scans.append(make_scan(space, u, float(outside @ outside), gamma))
    made = ScanEngine(design, basis, my, [FeatureTests(test, "null", scans, [], grouped_df=False)])
    if sums:
        made.dense = None
    return made


def dense_path(made):
    return made.dense and made.dense.func.__name__


def scan(y, x, basis, a, gamma, test="wald", **options):
    return engine(y, x, basis, gamma, test, **options).test(a)[0]


def table(result):
    return {
        name: getattr(result, name)
        for name in (
            "beta",
            "standard_error",
            "statistic",
            "p_value",
            "chi_sq",
            "sigma_sq",
            "tau_sq",
            "neg_log10_p_value",
        )
    }


def assert_oracle(got, y, x, k, a, gamma, rtol):
    beta, se, f, p, chi_sq, tau_sq = oracle.associate(y, x, k, a, gamma)
    np.testing.assert_allclose(got.beta, beta, rtol=rtol, atol=rtol * se.max())
    np.testing.assert_allclose(got.standard_error, se, rtol=rtol)
    np.testing.assert_allclose(got.statistic, f, rtol=100 * rtol, atol=100 * rtol)  # a square, near 0 where β is
    np.testing.assert_allclose(got.p_value, p, rtol=100 * rtol)
    np.testing.assert_allclose(got.chi_sq, chi_sq, rtol=100 * rtol, atol=100 * rtol)
    np.testing.assert_allclose(got.tau_sq, tau_sq, rtol=rtol)
    np.testing.assert_allclose(got.sigma_sq, gamma * tau_sq, rtol=rtol)
    np.testing.assert_array_equal(got.df, len(y) - x.shape[1] - 1)
    np.testing.assert_array_equal(got.status, OK)


FORMS = {
    "dense": np.array,
    "fortran": np.asfortranarray,
    "csc_matrix": sparse.csc_matrix,
    "csc_array": sparse.csc_array,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gamma", [0.0, 1e-6, 0.7, 30.0, 1e4])
@pytest.mark.parametrize("kind", KINDS)
def test_against_the_oracle(kind, gamma, form):
    y, x, k, basis, a = data(kind)
    # The oracle inverts V: eps · cond(V), and a feature in the span of K keeps 1/γ of its norm.
    rtol = 1e-11 + 1e-14 * (1 + gamma * np.linalg.norm(k, 2))
    block = FORMS[form](a)
    for sums in (True, False):
        made = engine(y, x, basis, gamma, sums=sums)
        assert_oracle(made.test(block)[0], y, x, k, a, gamma, rtol)
    stored = block.toarray() if sparse.issparse(block) else block
    np.testing.assert_array_equal(stored, a)  # a block is the caller's


def test_dense_features_take_the_path_that_pays():
    used = {kind: dense_path(engine(*data(kind)[:2], KINDS[kind][1], 0.7)) for kind in KINDS}
    triangular = {"full", "above half", "centred"}
    groups = {kind for kind in KINDS if isinstance(KINDS[kind][1], GroupBasis)}
    assert used == {k: "_triangular" if k in triangular else None if k in groups else "_rotated" for k in KINDS}
    assert dense_path(engine(*data("full")[:2], KINDS["full"][1], 1e9)) is None  # V⁻¹ would lose digits


@pytest.mark.parametrize(("n", "b"), [(1, 1), (3, 7), (7, 3), (4, 0), (130, 65)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_triangular_product(n, b, order):
    rng = np.random.default_rng(n + b)
    t, a = rng.standard_normal((n, n)), np.array(rng.standard_normal((n, b)), order=order)
    before = a.copy()
    # n products of numbers about 1
    np.testing.assert_allclose(triangular_product(t, a), np.triu(t) @ a, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(a, before)


@pytest.mark.parametrize("panel", [1, 7, 36, 50])
def test_panels_of_the_triangle(panel, monkeypatch):
    """A triangle of more rows than a panel has: every panel begins at its diagonal."""
    y, x, k, basis, a = data("full")
    monkeypatch.setattr("annlmm.model.triangular.PANEL", panel)
    made = engine(y, x, basis, 0.7)
    assert dense_path(made) == "_triangular"
    assert_oracle(made.test(a)[0], y, x, k, a, 0.7, 1e-10)


@pytest.mark.parametrize("kind", ["full", "low", "related"])
def test_more_covariates_than_eigenvectors(kind):
    y, x, k, basis, a = data(kind, p=9)
    assert_oracle(scan(y, x, basis, a, 2.0), y, x, k, a, 2.0, 1e-10)


@pytest.mark.parametrize("kind", ["full", "low", "groups"])
def test_without_an_intercept(kind):
    """Nothing may be shifted then: an offset of a feature is part of its effect, and a constant is a feature."""
    y, x, k, basis, a = data(kind)
    a[:, 0] = 3.0
    a[:, 4] += 50.0
    got = scan(y, x[:, 1:], basis, a, 1.3)
    assert_oracle(got, y, x[:, 1:], k, a, 1.3, 1e-10)
    assert got.status[0] == OK


@pytest.mark.parametrize("kind", ["full", "low", "related"])
class TestStatistics:
    def test_lrt(self, kind):
        y, x, k, basis, a = data(kind)
        got, wald = scan(y, x, basis, a, 0.7, "lrt"), scan(y, x, basis, a, 0.7)
        chi_sq = oracle.associate(y, x, k, a, 0.7)[4]
        np.testing.assert_allclose(got.statistic, chi_sq, rtol=1e-9)
        np.testing.assert_allclose(got.p_value, stats.chi2.sf(chi_sq, 1), rtol=1e-8)
        np.testing.assert_allclose(got.neg_log10_p_value, -np.log10(got.p_value), rtol=1e-12)
        assert np.isnan(got.df).all()
        for name in ("beta", "standard_error", "chi_sq", "sigma_sq", "tau_sq"):
            np.testing.assert_array_equal(getattr(got, name), getattr(wald, name))

    def test_score(self, kind):
        """GEMMA's: n R² on F(1, n−p−1)."""
        y, x, k, basis, a = data(kind)
        got = scan(y, x, basis, a, 0.7, "score")
        r_sq = -np.expm1(-oracle.associate(y, x, k, a, 0.7)[4] / N)
        np.testing.assert_allclose(got.statistic, N * r_sq, rtol=1e-9)
        np.testing.assert_allclose(got.p_value, stats.f.sf(N * r_sq, 1, N - P - 1), rtol=1e-8)
        np.testing.assert_array_equal(got.df, N - P - 1)

    def test_identities(self, kind):
        """F = (β/SE)², χ² = n log(1 + F/df), −log₁₀ p."""
        y, x, _, basis, a = data(kind)
        got = scan(y, x, basis, a, 0.7)
        np.testing.assert_allclose(got.statistic, (got.beta / got.standard_error) ** 2, rtol=1e-11)
        np.testing.assert_allclose(got.chi_sq, N * np.log1p(got.statistic / got.df), rtol=1e-11)
        np.testing.assert_allclose(got.neg_log10_p_value, -np.log10(got.p_value), rtol=1e-12)


def test_registry():
    assert list(TESTS) == ["wald", "lrt", "score"]


@pytest.mark.parametrize("kind", KINDS)
def test_gamma_zero_is_ordinary_least_squares(kind):
    y, x, _, basis, a = data(kind)
    got = scan(y, x, basis, a, 0.0)
    for j in range(M):
        design = np.column_stack([x, a[:, j]])
        beta, rss, *_ = np.linalg.lstsq(design, y)
        df = N - P - 1
        se = np.sqrt(rss[0] / df * np.linalg.inv(design.T @ design)[-1, -1])
        assert got.beta[j] == pytest.approx(beta[-1], rel=1e-9, abs=1e-12)
        assert got.standard_error[j] == pytest.approx(se, rel=1e-11)
        assert got.p_value[j] == pytest.approx(2 * stats.t.sf(abs(beta[-1] / se), df), rel=1e-9)
    np.testing.assert_array_equal(got.sigma_sq, 0.0)


@pytest.mark.parametrize("form", ["dense", "csc_matrix"])
def test_gamma_infinite_is_least_squares_on_k(form):
    y, x, k, basis, a = data("full")
    got = scan(y, x, basis, FORMS[form](a), np.inf)
    inverse = np.linalg.inv(k)
    for j in range(M):
        design = np.column_stack([x, a[:, j]])
        c = np.linalg.inv(design.T @ inverse @ design)
        beta = c @ design.T @ inverse @ y
        e = y - design @ beta
        scale = e @ inverse @ e / (N - P - 1)
        # cond(K) ~ 1e3 on the dense side.
        assert got.beta[j] == pytest.approx(beta[-1], rel=1e-11)
        assert got.standard_error[j] == pytest.approx(np.sqrt(scale * c[-1, -1]), rel=1e-11)
        assert got.sigma_sq[j] == pytest.approx(scale, rel=1e-11)
    np.testing.assert_array_equal(got.tau_sq, 0.0)


@pytest.mark.parametrize("kind", ["full", "low", "groups", "related"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("offset", [1e3, 1e7])
def test_offset_of_a_feature(kind, form, offset):
    y, x, _, basis, a = data(kind)
    a = a + np.arange(N)[:, None] % 3 + 1  # nothing stored as zero: the sparse forms are full
    reference, got = scan(y, x, basis, a, 0.7), scan(y, x, basis, FORMS[form](a + offset), 0.7)
    # The features themselves are stored to eps · 1e7 = 2e-9 of their standard deviation then.
    tolerance = 1e-15 * offset * 10 + 1e-11
    for name, column in table(reference).items():
        np.testing.assert_allclose(table(got)[name], column, rtol=100 * tolerance, atol=tolerance, err_msg=name)
    np.testing.assert_array_equal(got.status, OK)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int64, bool, np.uint16])
@pytest.mark.parametrize("form", ["dense", "csc_matrix", "csc_array", "csr"])
def test_other_types_are_computed_in_float64(dtype, form):
    y, x, k, basis, _ = data("full")
    a = np.random.default_rng(3).binomial(2, 0.4, (N, M)).astype(dtype)
    stored = sparse.csr_matrix(a) if form == "csr" else FORMS[form](a)
    rows = np.arange(N)
    for block in column_blocks(stored, rows, np.arange(M), 3):
        columns = block.columns
        assert_oracle(scan(y, x, basis, block.array, 0.7), y, x, k, a[:, columns].astype(float), 0.7, 1e-10)


@pytest.mark.parametrize("kind", ["full", "low", "groups"])
@pytest.mark.parametrize("form", FORMS)
class TestMissing:
    def test_is_filled_with_the_mean(self, kind, form):
        y, x, _, basis, a = data(kind)
        gaps = np.random.default_rng(4).random(a.shape) < 0.2
        gaps[:, 5] = False
        filled = np.where(gaps, np.nanmean(np.where(gaps, np.nan, a), axis=0), a)
        got = scan(y, x, basis, FORMS[form](np.where(gaps, np.nan, a)), 0.7)
        reference = scan(y, x, basis, filled, 0.7)
        for name, column in table(reference).items():
            np.testing.assert_allclose(table(got)[name], column, rtol=1e-9, atol=1e-12, err_msg=name)
        np.testing.assert_array_equal(got.status, OK)

    def test_status(self, kind, form):
        y, x, _, basis, a = data(kind)
        a[:, 0] = np.nan
        a[1:, 1] = np.nan  # one value present: its mean is that constant
        a[:, 2] = 4.0
        a[::2, 2] = np.nan
        got = scan(y, x, basis, FORMS[form](a), 0.7)
        assert [STATUS[s] for s in got.status] == ["all_missing", "constant", "constant", "ok", "ok", "ok", "ok"]
        for name, column in table(got).items():
            assert np.isnan(column[:3]).all(), name
            assert np.isfinite(column[3:]).all(), name
        assert np.isnan(got.df[:3]).all()

    def test_offset_survives_the_mean(self, kind, form):
        """A mean of values near 1e7 is taken about one of them."""
        y, x, _, basis, a = data(kind)
        a = a + 1.0
        a[a == 0] = 0.5
        gaps = np.random.default_rng(4).random(a.shape) < 0.2
        reference = scan(y, x, basis, np.where(gaps, np.nan, a), 0.7)
        got = scan(y, x, basis, FORMS[form](np.where(gaps, np.nan, a + 1e7)), 0.7)
        # Stored to 2e-9 of the standard deviation; the mean of 30 such values adds as much.
        np.testing.assert_allclose(got.beta, reference.beta, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(got.chi_sq, reference.chi_sq, rtol=1e-5, atol=1e-7)


class TestFillMissing:
    @pytest.mark.parametrize("form", FORMS)
    def test_counts(self, form):
        a = np.array([[1.0, np.nan, 0.0, np.nan], [3.0, np.nan, np.nan, 2.0], [0.0, np.nan, 7.0, 4.0]])
        block, counts, empty = fill_missing(FORMS[form](a))
        filled = block.toarray() if sparse.issparse(block) else block
        np.testing.assert_array_equal(counts, [0, 3, 1, 1])
        np.testing.assert_array_equal(empty, [False, True, False, False])
        np.testing.assert_array_equal(filled, [[1, 0, 0, 3], [3, 0, 3.5, 2], [0, 0, 7, 4]])

    @pytest.mark.parametrize("form", FORMS)
    def test_nothing_missing(self, form):
        a = FORMS[form](np.eye(3))
        block, counts, empty = fill_missing(a)
        assert block is a
        assert not counts.any()
        assert not empty.any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_covariate_is_collinear_and_not_constant_whatever_its_unit(form, size, sign):
    y, x, _, basis, _ = data("full")
    got = scan(y, x, basis, FORMS[form](sign * size * x[:, [1]]), 0.7)
    assert STATUS[got.status[0]] == "collinear"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_constant_and_collinear_features(kind, form):
    y, x, k, basis, a = data(kind)
    a[:, 0] = 0.0
    a[:, 1] = 5.0
    a[:, 2] = 1e7 / 3
    a[:, 3] = 2 * x[:, 1] - 3
    a[:, 4] = (x @ [0.1, 1e5, -2]).astype(np.float32)  # collinear to the precision of float32
    a[:, 5] = x[:, 2] + 1e-5 * a[:, 5]  # differs by one part in 10⁵: a feature
    got = scan(y, x, basis, FORMS[form](a), 0.7)
    np.testing.assert_array_equal(got.status, [CONSTANT, CONSTANT, CONSTANT, COLLINEAR, COLLINEAR, OK, OK])
    for name, column in table(got).items():
        assert np.isnan(column[:5]).all(), name
        assert np.isfinite(column[5:]).all(), name
    beta, se = oracle.associate(y, x, k, a[:, 5:], 0.7)[:2]
    np.testing.assert_allclose(got.beta[5:], beta, rtol=1e-5)  # (1e-5)² of the norm is left: eps · 1e10
    np.testing.assert_allclose(got.standard_error[5:], se, rtol=1e-5)


def test_status_names():
    assert (STATUS[OK], STATUS[CONSTANT], STATUS[COLLINEAR], STATUS[ALL_MISSING]) == (
        "ok",
        "constant",
        "collinear",
        "all_missing",
    )


@pytest.mark.parametrize("kind", ["full", "low"])
def test_several_responses(kind):
    y, x, _, basis, a = data(kind)
    other = np.cos(np.arange(N)) + 1e3
    both = engine(np.column_stack([y, other]), x, basis, 0.7).test(a)
    for result, response in zip(both, (y, other), strict=True):
        for name, column in table(scan(response, x, basis, a, 0.7)).items():
            np.testing.assert_allclose(table(result)[name], column, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_scale_of_a_feature_and_of_y(kind):
    y, x, _, basis, a = data(kind)
    reference = scan(y, x, basis, a, 0.7)
    for scale in (1e-30, 1e30):
        got = scan(y, x, basis, a * scale, 0.7)
        np.testing.assert_allclose(got.beta * scale, reference.beta, rtol=1e-10)
        np.testing.assert_allclose(got.p_value, reference.p_value, rtol=1e-10)
        got = scan(y * scale, x, basis, a, 0.7)
        np.testing.assert_allclose(got.beta / scale, reference.beta, rtol=1e-9)
        np.testing.assert_allclose(got.p_value, reference.p_value, rtol=1e-9)


def test_donor_level_feature_at_a_large_gamma():
    """Everything of it is in the span of U: round-off outside must not enter, however large γ is."""
    y, x, _, basis, a = data("groups")
    k = oracle.group_kernel(CODES)
    gamma = 1e5
    got = scan(y, x[:, :2], basis, a[:, 1:2], gamma)
    with mpmath.workdps(60):
        v = mpmath.eye(N) + mpmath.mpf(gamma) * mpmath.matrix(k.tolist())
        design = mpmath.matrix(np.column_stack([x[:, :2], a[:, 1]]).tolist())
        solved = mpmath.lu_solve
        columns = [solved(v, design[:, j]) for j in range(3)]
        xvx = mpmath.matrix(3, 3)
        xvy = mpmath.matrix(3, 1)
        target = mpmath.matrix(y.tolist())
        for i in range(3):
            xvy[i] = (columns[i].T * target)[0]
            for j in range(3):
                xvx[i, j] = (columns[i].T * design[:, j])[0]
        beta = mpmath.lu_solve(xvx, xvy)
        e = target - design * beta
        scale = (e.T * solved(v, e))[0] / (N - 3)
        se = mpmath.sqrt(scale * (xvx**-1)[2, 2])
    # A product keeps 1/(γs) of its size and its parts are rounded to a few eps: 50 · eps · γ · s.
    assert got.beta[0] == pytest.approx(float(beta[2]), rel=1e-8)
    assert got.standard_error[0] == pytest.approx(float(se), rel=1e-8)


def test_feature_equal_to_y():
    """R² = 1: infinite statistic, or one that rounding leaves; no warning, and p is at most of that size."""
    y, x, _, basis, a = data("full")
    for test in TESTS:
        got = scan(y, x, basis, np.column_stack([a, y, -2 * y + 3]), 0.7, test)
        np.testing.assert_allclose(got.beta[-2:], [1.0, -0.5], rtol=1e-10)
        assert (got.neg_log10_p_value[-2:] > (100 if test != "score" else 5)).all()
        assert (got.standard_error[-2:] < 1e-6).all()


def test_p_value_below_the_smallest_float():
    rng = np.random.default_rng(0)
    n = 2000
    a = rng.standard_normal((n, 1))
    y = 3 * a[:, 0] + rng.standard_normal(n)
    design, basis = make_design(np.ones((n, 1))), no_kernel(n)
    my = residual_of(y, design)[0]
    space = NullModel(design, basis).space
    single = make_scan(space, basis.project(my), float(my @ my), 0.0)
    for test in ("wald", "lrt"):
        got = ScanEngine(design, basis, my[:, None], [FeatureTests(test, "null", [single], [], grouped_df=False)]).test(
            a
        )[0]
        assert got.p_value[0] == 0.0
        with mpmath.workdps(700):
            df = n - 2
            if test == "wald":
                x = mpmath.mpf(df) / (df + mpmath.mpf(float(got.statistic[0])))
                exact = mpmath.log10(mpmath.betainc(df / 2, 0.5, 0, x, regularized=True))
            else:
                exact = mpmath.log10(mpmath.erfc(mpmath.sqrt(mpmath.mpf(float(got.statistic[0])) / 2)))
        assert got.neg_log10_p_value[0] == pytest.approx(-float(exact), rel=1e-12)


def test_one_degree_of_freedom_is_enough():
    """n − p − 1 = 1: F(1, 1) is the square of a Cauchy variate."""
    rng = np.random.default_rng(0)
    n, p = 5, 3
    x, k, a = oracle.design(rng, n, p), oracle.random_kernel(rng, n), rng.standard_normal((n, 2))
    y = rng.standard_normal(n)
    design, basis = make_design(x), basis_of(k)
    my = residual_of(y, design)[0]
    scan = make_scan(NullModel(design, basis).space, basis.project(my), 0.0, 0.7)
    assert scan.df_residual == 1
    got = ScanEngine(design, basis, my[:, None], [FeatureTests("wald", "null", [scan], [], grouped_df=False)]).test(a)[
        0
    ]
    assert_oracle(got, y, x, k, a, 0.7, 1e-10)
    np.testing.assert_allclose(got.p_value, 2 * stats.cauchy.sf(np.sqrt(got.statistic)), rtol=1e-9)


@pytest.mark.parametrize(("n", "p", "left"), [(4, 3, "1 degree of freedom"), (3, 2, "1 degree of freedom")])
def test_no_degree_of_freedom_left(n, p, left):
    rng = np.random.default_rng(0)
    space = NullModel(make_design(oracle.design(rng, n, p)), no_kernel(n)).space
    with pytest.raises(
        ValueError, match=f"{n} observations and {p} fixed effects leave {left}; testing a feature takes one"
    ):
        make_scan(space, np.zeros(0), 1.0, 0.0)


class TestFTail:
    @pytest.mark.parametrize(
        ("df", "largest"),
        [(1, 1e12), (2, 1e12), (3, 1e12), (11, 1e12), (60, 1e9), (400, 1e9), (5000, 4e3), (10**6, 14e3)],
    )
    def test_from_one_to_1e_minus_3000(self, df, largest):
        f = np.geomspace(1e-6, largest, 18)
        got = log_f_sf(f, df)
        for value, log_p in zip(f, got, strict=True):
            exact = self.exact(value, df)
            # A probability is good to a few eps; below exp(−600) log B(a, ½) is a difference of log Γ, of size a log a.
            assert log_p == pytest.approx(exact, rel=4e-15, abs=4e-16 * df if exact < -600 else 0.0), value
        if df == 10**6:
            assert got.min() < -3000 * np.log(10)

    def exact(self, f, df):
        """log P from whichever of three expansions holds: I_x near x = 0, far out, or 1 − I_z(½, df/2), z = f/(df+f)."""
        with mpmath.workdps(60):
            a, f = mpmath.mpf(df) / 2, mpmath.mpf(float(f))
            z = f / (df + f)
            if z > 0.25:
                return float(mpmath.log(mpmath.betainc(a, 0.5, 0, 1 - z, regularized=True)))
            term = total = mpmath.mpf(1)
            i = 0
            if f > 150:  # Σ (½)ₖ/(a+1)ₖ (−df/f)ᵏ (Pfaff): alternating, so that the first term left out bounds the rest
                while abs(term) > mpmath.mpf(10) ** -25:
                    term *= -(i + 0.5) / (a + 1 + i) * df / f
                    total += term
                    i += 1
                    assert i < f / 2
                return float(
                    a * mpmath.log(1 - z) - mpmath.log(z) / 2 - mpmath.log(a * mpmath.beta(a, 0.5)) + mpmath.log(total)
                )
            while term > total * mpmath.mpf(10) ** -110:  # all terms positive; 1 − I loses the digits of p > 1e-34
                term *= (a + 0.5 + i) / (mpmath.mpf(3) / 2 + i) * z
                total += term
                i += 1
            inside = mpmath.sqrt(z) * (1 - z) ** a * 2 / mpmath.beta(0.5, a) * total
            return float(mpmath.log(1 - inside))

    def test_where_the_two_formulas_meet(self):
        """Smooth across the switch at p = exp(−600)."""
        f = np.linspace(1310, 1420, 400)
        log_p = log_f_sf(f, 5000.0)
        assert log_p[0] > -600 > log_p[-1]
        assert (np.diff(log_p) < 0).all()
        # Third differences of a smooth function, 4e-10 here; a jump would show whole.
        assert np.abs(np.diff(log_p, 3)).max() < 1e-9

    def test_shapes_and_edges(self):
        f = np.array([[0.0, 1.0], [np.nan, np.inf]])
        got = log_f_sf(f, np.array([5.0, 7.0]))
        assert got.shape == (2, 2)
        assert got[0, 0] == 0.0
        assert got[0, 1] == pytest.approx(stats.f.logsf(1.0, 1, 7), rel=1e-12)
        assert np.isnan(got[1, 0])
        assert got[1, 1] == -np.inf
        assert np.ndim(log_f_sf(2.0, 3)) == 0
        several = log_f_sf(np.array([5000.0, 6000.0]), np.array([5000.0, 9000.0]))
        assert several == pytest.approx([float(log_f_sf(5000.0, 5000)), float(log_f_sf(6000.0, 9000))], rel=1e-14)
