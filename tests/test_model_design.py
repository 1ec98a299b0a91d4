"""The orthonormal basis of the fixed effects: digits that survive offsets, and rank deficiency that is named."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from annlmm.model.design import covariate_of, make_design

N = 30


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def levels(rng):
    return np.eye(3)[rng.permutation(np.arange(N) % 3)]


def check(x, **options):
    """QᵀQ = I and X = QR to the precision of X."""
    design = make_design(x, **options)
    np.testing.assert_allclose(design.q.T @ design.q, np.eye(x.shape[1]), atol=1e-13)  # Householder: a few eps
    np.testing.assert_allclose(design.q @ design.r_factor, x, atol=4e-15 * np.abs(x).max())
    return design


@pytest.mark.parametrize("p", [1, 2, 5, N - 1, N])
@pytest.mark.parametrize("intercept", [True, False])
def test_factorisation(rng, p, intercept):
    x = rng.standard_normal((N, p))
    if intercept:
        x[:, p // 2] = 2.5  # the constant need not come first, or be 1
    design = check(x)
    assert (design.n, design.p) == (N, p)
    assert design.names == tuple(f"x{j}" for j in range(p))
    assert design.spans_constant == (intercept or p == N)
    assert design.log_det_xtx == pytest.approx(np.linalg.slogdet(x.T @ x)[1], rel=1e-9, abs=1e-9)  # cond(XᵀX) · eps
    a = rng.standard_normal((N, 3)) + 10
    expected = a - x @ np.linalg.lstsq(x, a)[0]
    np.testing.assert_allclose(design.residualise(a), expected, atol=1e-12)  # cond(X) · eps · 10
    np.testing.assert_allclose(x.T @ design.residualise(a), 0, atol=1e-11)


def test_full_coding_of_a_factor_spans_the_constant(levels):
    assert check(levels).spans_constant
    assert not check(levels[:, :2]).spans_constant


def test_a_large_mean_costs_no_digits(rng):
    """An age in seconds, mean 1e7 and sd 1: its direction is that of the centred column, compared in 50 digits."""
    x = np.column_stack([np.ones(N), 1e7 + rng.standard_normal(N)])
    design = check(x)
    with mpmath.workdps(50):
        column = [mpmath.mpf(v) for v in x[:, 1]]
        mean = mpmath.fsum(column) / N
        centred = [v - mean for v in column]
        norm = mpmath.sqrt(mpmath.fsum(v * v for v in centred))
        direction = np.array([float(v / norm) for v in centred])
        det = float(mpmath.log(N * norm**2))
    sign = np.sign(design.q[0, 1] * direction[0])
    # The mean is rounded to 2e-9 of sd 1, and that is a multiple of the constant, which QR removes: eps · 1e2 is left.
    np.testing.assert_allclose(sign * design.q[:, 1], direction, atol=1e-13)
    assert design.log_det_xtx == pytest.approx(det, rel=1e-13)


@pytest.mark.parametrize("mean", [1e7, 1e9])
def test_offsets_up_to_a_billion_are_not_collinear(rng, mean):
    check(np.column_stack([mean + rng.standard_normal(N), np.ones(N)]))


def test_offset_under_a_factor_coded_without_intercept(rng, levels):
    """The constant is spanned without being a column: the large mean is no sign of collinearity there either."""
    assert check(np.column_stack([levels, 1e7 + rng.standard_normal(N)])).spans_constant


def test_scales_may_differ_by_many_orders(rng):
    x = np.column_stack([np.ones(N), rng.standard_normal((N, 2)) * [1e-12, 1e12]])
    design = check(x)
    np.testing.assert_allclose(design.q @ design.r_factor / [1, 1e-12, 1e12], x / [1, 1e-12, 1e12], atol=1e-13)


def test_nearly_collinear_columns_pass(rng):
    """Two covariates that differ by one part in a million are two covariates."""
    a, b = rng.standard_normal((2, N))
    check(np.column_stack([np.ones(N), a, a + 1e-6 * b]))


def test_input_is_copied(rng):
    x = rng.standard_normal((N, 2))
    design = make_design(x)
    assert not np.shares_memory(design.x, x)
    before = design.x.copy()
    x[:] = 0
    np.testing.assert_array_equal(design.x, before)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_other_types_become_float64(dtype):
    x = np.column_stack([np.ones(6), np.arange(6) % 2]).astype(dtype)
    assert make_design(x).q.dtype == np.float64


class TestRankDeficiency:
    def message(self, x, names):
        with pytest.raises(ValueError, match="collinear") as error:
            make_design(x, names)
        return str(error.value)

    def test_duplicate(self, rng):
        x = rng.standard_normal((N, 3))
        x[:, 2] = -3 * x[:, 0]
        assert (
            self.message(np.column_stack([np.ones(N), x]), ["intercept", "age", "sex", "years"])
            == "covariates 'age' and 'years' are collinear (rank 3 of 4); drop one"
        )

    def test_sum_of_three(self, rng):
        x = rng.standard_normal((N, 5))
        x[:, 4] = x[:, 0] + x[:, 1] - 2 * x[:, 3]
        text = self.message(np.column_stack([np.ones(N), x]), ["intercept", "a", "b", "c", "d", "e"])
        assert text == "covariates 'a', 'b', 'd' and 'e' are collinear (rank 5 of 6); drop one"

    def test_dummies_with_an_intercept_name_the_intercept(self, levels):
        text = self.message(np.column_stack([np.ones(N), levels]), ["intercept", "L1", "L2", "L3"])
        assert all(f"'{name}'" in text for name in ("intercept", "L1", "L2", "L3"))
        assert "(rank 3 of 4); drop one" in text

    def test_sum_with_a_constant_names_the_intercept(self, rng):
        a, b = rng.standard_normal((2, N))
        text = self.message(np.column_stack([np.ones(N), a, b, a + b + 5]), ["intercept", "a", "b", "sum"])
        assert text == "covariates 'intercept', 'a', 'b' and 'sum' are collinear (rank 3 of 4); drop one"

    def test_sum_without_a_constant_does_not_name_the_intercept(self, rng):
        a, b = 5 + rng.standard_normal((2, N))
        text = self.message(np.column_stack([np.ones(N), a, b, a + b]), ["intercept", "a", "b", "sum"])
        assert text == "covariates 'a', 'b' and 'sum' are collinear (rank 3 of 4); drop one"

    @pytest.mark.parametrize(("first", "second"), [(1.0, 2.0), (0.1, 0.3), (1.0, 1e7), (1e7, 1e-7)])
    def test_second_constant(self, rng, first, second):
        x = np.column_stack([np.full(N, first), rng.standard_normal(N), np.full(N, second)])
        assert (
            self.message(x, ["one", "age", "two"]) == "covariates 'one' and 'two' are collinear (rank 2 of 3); drop one"
        )

    def test_constant_up_to_its_last_digit(self, rng):
        """0.3 and 0.1 + 0.2 differ by one unit in the last place: that is round-off, not a covariate."""
        x = np.column_stack([np.ones(N), np.where(rng.random(N) < 0.5, 0.3, 0.1 + 0.2)])
        assert (
            self.message(x, ["intercept", "dose"])
            == "covariates 'intercept' and 'dose' are collinear (rank 1 of 2); drop one"
        )

    def test_float32_round_off(self, rng):
        a, b = rng.standard_normal((2, N)).astype(np.float32)
        self.message(np.column_stack([np.ones(N), a, b, a + b]), ["intercept", "a", "b", "sum"])

    def test_two_deficiencies_count_both(self, rng):
        a = rng.standard_normal(N)
        text = self.message(np.column_stack([np.ones(N), a, a, 2 * a]), ["intercept", "a", "b", "c"])
        assert text == "covariates 'a' and 'b' are collinear (rank 2 of 4); drop one"

    def test_dummies_are_named_by_their_covariate(self, levels, rng):
        a, b = levels, rng.permutation(levels)
        names = ["intercept", "a[T.2]", "a[T.3]", "twin[T.x]", "twin[T.y]"]
        text = self.message(np.column_stack([np.ones(N), a[:, 1:], a[:, :2]]), names)
        assert text == "covariates 'intercept', 'a' (2 columns) and 'twin[T.x]' are collinear (rank 3 of 5); drop one"
        both = np.column_stack([np.ones(N), a[:, 1:], b[:, 1:], (a + b)[:, 1:].sum(axis=1)])
        text = self.message(both, ["intercept", "a[T.2]", "a[T.3]", "b[T.2]", "b[T.3]", "sum"])
        assert text == "covariates 'a' (2 columns), 'b' (2 columns) and 'sum' are collinear (rank 5 of 6); drop one"

    def test_columns_of_arrays_are_named_by_it_if_they_are_many(self, rng):
        z = rng.standard_normal((N, 5))
        few = self.message(
            np.column_stack([np.ones(N), z[:, :2], z[:, :2].sum(axis=1)]), ["one", "z[0]", "z[1]", "sum"]
        )
        assert few == "covariates 'z[0]', 'z[1]' and 'sum' are collinear (rank 3 of 4); drop one"
        many = self.message(
            np.column_stack([np.ones(N), z, z.sum(axis=1)]), ["one", *(f"z[{j}]" for j in range(5)), "sum"]
        )
        assert many == "covariates 'z' (5 columns) and 'sum' are collinear (rank 6 of 7); drop one"

    @pytest.mark.parametrize(
        ("term", "covariate"),
        [
            ("age", "age"),
            ("C(sex)[T.m]", "C(sex)"),
            ("cell[T.CD4[+]]", "cell"),
            ("a[T.x]:b[T.y]", "a:b"),
            ("a[T.x]:age", "a:age"),
            ("X_pca[12]", "X_pca"),
            ("C(a, levels=['x', 'y'])[T.y]", "C(a, levels=['x', 'y'])"),
            ("dose [mg]", "dose [mg]"),
        ],
    )
    def test_covariate_of_a_term(self, term, covariate):
        assert covariate_of(term) == covariate

    def test_argument_is_named(self, rng):
        a = rng.standard_normal(N)
        with pytest.raises(ValueError, match="px 'x0' and 'x1' are collinear"):
            make_design(np.column_stack([a, a]), argument="px")


def test_zero_column(rng):
    x = rng.standard_normal((N, 4))
    x[:, [1, 3]] = 0
    with pytest.raises(ValueError, match="covariates 'b' and 'd': zero in every row that is used; drop it"):
        make_design(x, ["a", "b", "c", "d"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(rng, bad):
    x = rng.standard_normal((N, 3))
    x[4, 1] = bad
    with pytest.raises(ValueError, match="covariates 'b': NaN or infinite values; drop these rows or impute them"):
        make_design(x, ["a", "b", "c"])


def test_no_columns():
    with pytest.raises(
        ValueError, match="x: received no columns; the model needs at least one fixed effect, add an intercept"
    ):
        make_design(np.zeros((N, 0)), argument="x")


def test_more_columns_than_rows(rng):
    with pytest.raises(ValueError, match="covariates: 5 columns for 4 rows; drop covariates or add observations"):
        make_design(rng.standard_normal((4, 5)))


def test_one_dimension_is_refused():
    with pytest.raises(
        ValueError, match=r"covariates: must have two dimensions, rows and columns, received shape \(30,\)"
    ):
        make_design(np.ones(30))
