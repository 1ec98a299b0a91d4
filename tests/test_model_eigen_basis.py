"""Kernels, factors and operators to an eigenbasis; dense and group bases behind one interface."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from scipy import sparse

from annlmm.model.basis import DenseBasis, GroupBasis, no_kernel
from annlmm.model.eigen import from_factor, from_kernel, from_operator, resolve_rank

# Backward error of a symmetric eigendecomposition: a modest multiple of eps · ‖K‖.
EIGEN = 1e-12


def dense(spectrum):
    return (spectrum.u * spectrum.eigenvalues) @ spectrum.u.T


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def with_spectrum(rng, values):
    q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    return (q * values) @ q.T


class TestFromKernel:
    def test_full_rank_reproduces_the_kernel_in_descending_order(self, rng):
        k = oracle.random_kernel(rng, 25)
        s = from_kernel(k)
        np.testing.assert_allclose(dense(s), k, atol=EIGEN)
        np.testing.assert_allclose(s.eigenvalues, np.linalg.eigvalsh(k)[::-1], rtol=EIGEN)
        np.testing.assert_allclose(s.u.T @ s.u, np.eye(25), atol=EIGEN)
        assert s.u.flags.f_contiguous
        assert s.n_clipped == 0
        assert s.explained == 1.0

    def test_rank_is_that_of_the_kernel(self, rng):
        s = from_kernel(oracle.random_kernel(rng, 25, rank=6))
        assert s.eigenvalues.size == 6
        assert s.u.shape == (25, 6)
        assert s.explained == 1.0

    def test_rank_as_an_int_keeps_the_leading_part(self, rng):
        values = np.arange(1.0, 11.0)
        s = from_kernel(with_spectrum(rng, values), 3)
        np.testing.assert_allclose(s.eigenvalues, [10, 9, 8], rtol=EIGEN)
        assert s.explained == pytest.approx(27 / 55, rel=EIGEN)

    def test_rank_above_that_of_the_kernel_is_cut_to_it(self, rng):
        assert from_kernel(oracle.random_kernel(rng, 12, rank=4), 9).eigenvalues.size == 4

    @pytest.mark.parametrize(
        ("share", "kept"), [(10 / 55, 1), (10.1 / 55, 2), (27 / 55, 3), (54.5 / 55, 10), (1.0, 10)]
    )
    def test_rank_as_a_fraction_is_a_share_of_the_trace(self, rng, share, kept):
        assert from_kernel(with_spectrum(rng, np.arange(1.0, 11.0)), share).eigenvalues.size == kept

    @pytest.mark.parametrize(("rank", "kept"), [(np.int64(2), 2), (np.float64(0.5), 2), (1, 1)])
    def test_numpy_scalars_are_ranks(self, rank, kept):
        assert resolve_rank(np.array([4.0, 3.0, 2.0, 1.0]), rank) == kept

    @pytest.mark.parametrize("rank", [True, "3", [3]])
    def test_rank_of_another_type(self, rng, rank):
        with pytest.raises(TypeError, match=r"rank: must be None, an int or a fraction, received .* of type"):
            from_kernel(oracle.random_kernel(rng, 5), rank)

    @pytest.mark.parametrize(
        ("rank", "message"),
        [
            (0, "rank: must be at least 1, received 0; pass kernel=None to `fit_null` for no kernel"),
            (-2, "rank: must be at least 1, received -2"),
            (0.0, r"rank: as a fraction of the trace must lie in \(0, 1\], received 0.0"),
            (1.5, r"rank: as a fraction of the trace must lie in \(0, 1\], received 1.5"),
            (float("nan"), r"rank: as a fraction of the trace must lie in \(0, 1\], received nan"),
        ],
    )
    def test_rank_out_of_range(self, rng, rank, message):
        with pytest.raises(ValueError, match=message):
            from_kernel(oracle.random_kernel(rng, 5), rank)

    def test_negative_eigenvalues_within_round_off_are_clipped_and_counted(self, rng):
        s = from_kernel(with_spectrum(rng, np.r_[-1e-9, -2e-10, 1.0, 2.0, 3.0]))
        assert s.n_clipped == 2
        np.testing.assert_allclose(s.eigenvalues, [3, 2, 1], rtol=1e-9)

    def test_keep_null_returns_all_vectors_with_zeros(self, rng):
        k = oracle.random_kernel(rng, 9, rank=4)
        s = from_kernel(k, keep_null=True)
        assert s.u.shape == (9, 9)
        assert (s.eigenvalues[:4] > 0.1).all()
        assert (s.eigenvalues[4:] == 0.0).all()
        np.testing.assert_allclose(dense(s), k, atol=EIGEN)
        np.testing.assert_allclose(s.u @ s.u.T, np.eye(9), atol=EIGEN)

    def test_indefinite(self, rng):
        with pytest.raises(
            ValueError, match=r"kernel: not positive semi-definite \(smallest eigenvalue -0.1, largest 3\)"
        ):
            from_kernel(with_spectrum(rng, np.array([-0.1, 1.0, 3.0])))

    def test_just_beyond_round_off_is_indefinite(self, rng):
        with pytest.raises(ValueError, match="not positive semi-definite"):
            from_kernel(with_spectrum(rng, np.array([-1e-7, 1.0, 3.0])))

    def test_negative_definite(self):
        with pytest.raises(ValueError, match="not positive semi-definite"):
            from_kernel(-np.eye(4))

    def test_asymmetric(self, rng):
        k = oracle.random_kernel(rng, 6)
        k[1, 4] += 0.01
        with pytest.raises(ValueError, match=r"K: not symmetric .* pass \(K \+ K.T\) / 2"):
            from_kernel(k, argument="K")

    def test_asymmetry_of_a_text_file_is_averaged(self, rng):
        k = oracle.random_kernel(rng, 6)
        k[1, 4] += 1e-8
        np.testing.assert_allclose(dense(from_kernel(k)), (k + k.T) / 2, atol=EIGEN)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, rng, bad):
        k = oracle.random_kernel(rng, 6)
        k[2, 3] = k[3, 2] = bad
        with pytest.raises(ValueError, match="kernel: NaN or infinite values in 2 of 6 rows; drop or impute them"):
            from_kernel(k)

    @pytest.mark.parametrize("shape", [(3, 4), (3,), (2, 2, 2)])
    def test_not_square(self, shape):
        with pytest.raises(ValueError, match=r"kernel: must be a square matrix, received shape \("):
            from_kernel(np.ones(shape))

    def test_zero(self):
        with pytest.raises(ValueError, match="relatedness: all values are zero; there is nothing to fit"):
            from_kernel(np.zeros((3, 3)), argument="relatedness")

    def test_float32_and_integer_input(self, rng):
        k = oracle.random_kernel(rng, 30, rank=5)
        single = from_kernel(k.astype(np.float32))
        assert single.u.dtype == np.float64
        # Rounding to float32 fills the spectrum up to eps32 · ‖K‖; it must not raise the rank.
        assert single.eigenvalues.size == 5
        np.testing.assert_allclose(single.eigenvalues, from_kernel(k).eigenvalues, rtol=1e-6)
        np.testing.assert_allclose(from_kernel(np.array([[2, 1], [1, 2]])).eigenvalues, [3, 1], rtol=EIGEN)

    def test_input_is_left_alone(self, rng):
        k = oracle.random_kernel(rng, 6)
        before = k.copy()
        from_kernel(k)
        np.testing.assert_array_equal(k, before)

    @pytest.mark.parametrize("scale", [1e-12, 1e12])
    def test_scale_moves_the_eigenvalues_only(self, rng, scale):
        k = oracle.random_kernel(rng, 20, rank=7)
        s = from_kernel(k * scale)
        np.testing.assert_allclose(s.eigenvalues, from_kernel(k).eigenvalues * scale, rtol=EIGEN)
        np.testing.assert_allclose(from_kernel(k).scaled(scale).eigenvalues, s.eigenvalues, rtol=EIGEN)


class TestFromFactor:
    @pytest.mark.parametrize(("n", "m"), [(20, 5), (20, 20), (20, 60), (3, 1)])
    @pytest.mark.parametrize("rank", [None, 2, 0.8])
    def test_equals_the_kernel(self, rng, n, m, rank):
        z = rng.standard_normal((n, m))
        by_factor, by_kernel = from_factor(z, rank), from_kernel(z @ z.T, rank)
        np.testing.assert_allclose(
            by_factor.eigenvalues, by_kernel.eigenvalues, rtol=1e-10
        )  # squares of singular values
        np.testing.assert_allclose(dense(by_factor), dense(by_kernel), atol=1e-10)
        assert by_factor.explained == pytest.approx(by_kernel.explained, rel=EIGEN)
        assert by_factor.n_clipped == 0 or m >= n

    def test_rank_deficient_tall_factor(self, rng):
        z = rng.standard_normal((30, 3)) @ rng.standard_normal((3, 10))
        s = from_factor(z)
        assert s.eigenvalues.size == 3
        np.testing.assert_allclose(s.u.T @ s.u, np.eye(3), atol=EIGEN)

    def test_vectors_stay_orthonormal_for_an_ill_conditioned_factor(self, rng):
        q = np.linalg.qr(rng.standard_normal((40, 3)))[0]
        s = from_factor(q * np.array([1.0, 1e-3, 1e-6]))
        np.testing.assert_allclose(
            s.eigenvalues, [1, 1e-6, 1e-12], rtol=1e-9
        )  # relative error eps · 1e6 of the smallest
        np.testing.assert_allclose(s.u.T @ s.u, np.eye(3), atol=EIGEN)

    @pytest.mark.parametrize("shape", [(6, 2), (6, 9)])
    def test_not_finite(self, shape):
        z = np.ones(shape)
        z[3, 1] = np.nan
        with pytest.raises(ValueError, match="kernel: NaN or infinite values"):
            from_factor(z)

    @pytest.mark.parametrize("shape", [(6, 2), (6, 9)])
    def test_zero(self, shape):
        with pytest.raises(ValueError, match="obsm: all values are zero; there is nothing to fit"):
            from_factor(np.zeros(shape), argument="obsm")


def test_operator_equals_the_leading_part(rng):
    k = with_spectrum(rng, np.r_[np.linspace(0.0, 1.0, 52), [3.0, 4.0, 5.0, 7.0, 9.0, 12.0, 20.0, 30.0]])
    s, reference = from_operator(lambda v: k @ v, 60, 8, np.trace(k)), from_kernel(k, 8)
    np.testing.assert_allclose(s.eigenvalues, reference.eigenvalues, rtol=1e-10)  # Lanczos at machine precision
    np.testing.assert_allclose(dense(s), dense(reference), atol=1e-9)  # vectors: residual over the gap
    assert s.explained == pytest.approx(reference.explained, rel=1e-10)
    again = from_operator(lambda v: k @ v, 60, 8, np.trace(k))
    np.testing.assert_array_equal(s.u, again.u)


def test_operator_of_lower_rank_drops_the_null_vectors(rng):
    k = oracle.random_kernel(rng, 40, rank=3)
    s = from_operator(lambda v: k @ v, 40, 6, np.trace(k))
    assert s.eigenvalues.size == 3
    assert s.explained == pytest.approx(1.0, rel=1e-10)
    # A trace that is short by rounding does not explain more than all.
    assert from_operator(lambda v: k @ v, 40, 6, np.trace(k) * (1 - 1e-9)).explained == 1.0


RELATEDNESS = np.array([[1.0, 0.5, 0.0, 0.1], [0.5, 1.2, 0.2, 0.0], [0.0, 0.2, 0.9, 0.3], [0.1, 0.0, 0.3, 1.1]])
CODES = np.array([2, 0, 1, 1, 3, 0, 2, 2, 2, 1, 3, 3, 3, 0])


def bases(rng):
    k = oracle.random_kernel(rng, CODES.size, rank=6)
    s = from_kernel(k)
    singular = np.outer([1.0, 2.0, -1.0, 0.5], [1.0, 2.0, -1.0, 0.5])
    return {
        "dense": (DenseBasis(s.u, s.eigenvalues), k),
        "groups": (GroupBasis(CODES), oracle.group_kernel(CODES)),
        "related": (GroupBasis(CODES, RELATEDNESS), oracle.group_kernel(CODES, RELATEDNESS)),
        "singular": (GroupBasis(CODES, singular), oracle.group_kernel(CODES, singular)),
        "none": (no_kernel(CODES.size), np.zeros((CODES.size, CODES.size))),
    }


KINDS = ("dense", "groups", "related", "singular", "none")


@pytest.mark.parametrize("kind", KINDS)
class TestInterface:
    def test_is_the_eigendecomposition(self, rng, kind):
        basis, k = bases(rng)[kind]
        n, r = CODES.size, basis.rank
        u = basis.expand(np.eye(r))
        assert basis.n == n
        assert u.shape == (n, r)
        assert (basis.eigenvalues > 0).all()
        np.testing.assert_allclose(u.T @ u, np.eye(r), atol=EIGEN)
        np.testing.assert_allclose((u * basis.eigenvalues) @ u.T, k, atol=EIGEN)
        np.testing.assert_allclose(basis.project(np.eye(n)), u.T, atol=EIGEN)

    @pytest.mark.parametrize(
        "form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array]
    )
    def test_project_dense_and_sparse(self, rng, kind, form):
        basis, _ = bases(rng)[kind]
        a = rng.standard_normal((CODES.size, 5)) * (rng.random((CODES.size, 5)) < 0.4)
        got = basis.project(form(a))
        assert type(got) is np.ndarray
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, basis.expand(np.eye(basis.rank)).T @ a, atol=EIGEN)

    def test_vectors(self, rng, kind):
        basis, _ = bases(rng)[kind]
        u, y, v = basis.expand(np.eye(basis.rank)), rng.standard_normal(CODES.size), rng.standard_normal(basis.rank)
        assert basis.project(y).shape == (basis.rank,)
        np.testing.assert_allclose(basis.project(y), u.T @ y, atol=EIGEN)
        np.testing.assert_allclose(basis.expand(v), u @ v, atol=EIGEN)

    def test_trace_scale_is_the_mean_diagonal_of_the_centred_kernel(self, rng, kind):
        basis, k = bases(rng)[kind]
        h = oracle.centring(CODES.size)
        assert basis.trace_scale == pytest.approx(np.trace(h @ k @ h) / CODES.size, rel=EIGEN, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS[:-1])
class TestRestrict:
    def test_some_rows(self, rng, kind):
        basis, k = bases(rng)[kind]
        kept = np.array([0, 13, 3, 2, 5, 9, 6])  # out of order; group 3 is dropped, and the others recounted
        part = basis.restrict(kept)
        u = part.expand(np.eye(part.rank))
        assert part.n == kept.size
        np.testing.assert_allclose((u * part.eigenvalues) @ u.T, k[np.ix_(kept, kept)], atol=EIGEN)
        np.testing.assert_allclose(u.T @ u, np.eye(part.rank), atol=EIGEN)
        assert part.rank == np.linalg.matrix_rank(k[np.ix_(kept, kept)])

    def test_all_rows_is_the_basis_itself(self, rng, kind):
        basis, _ = bases(rng)[kind]
        assert basis.restrict(np.arange(CODES.size)) is basis

    def test_permutation(self, rng, kind):
        basis, k = bases(rng)[kind]
        order = rng.permutation(CODES.size)
        part = basis.restrict(order)
        u = part.expand(np.eye(part.rank))
        np.testing.assert_allclose((u * part.eigenvalues) @ u.T, k[np.ix_(order, order)], atol=EIGEN)


@pytest.mark.parametrize("rank", [4, 30])
def test_centred_kernel_is_centred_again(rng, rank):
    h = oracle.centring(30)
    k = h @ oracle.random_kernel(rng, 30, rank=rank) @ h
    s = from_kernel(k)
    kept = np.sort(rng.permutation(30)[:17])
    part = DenseBasis(s.u, s.eigenvalues, centered=True).restrict(kept)
    expected = oracle.centring(17) @ k[np.ix_(kept, kept)] @ oracle.centring(17)
    np.testing.assert_allclose((part.u * part.s) @ part.u.T, expected, atol=EIGEN)
    assert part.centered
    assert part.rank == min(rank, 16)
    np.testing.assert_allclose(part.u.sum(axis=0), 0.0, atol=1e-10)  # orthogonal to 1, at a small eigenvalue too
    again = part.restrict(np.arange(10))
    both = oracle.centring(10) @ expected[:10, :10] @ oracle.centring(10)
    np.testing.assert_allclose((again.u * again.s) @ again.u.T, both, atol=EIGEN)


def test_groups_keep_the_variance_between_groups():
    """Unrelated groups: the eigenvalues are the numbers of kept rows, never centred, and a group left empty is gone."""
    basis = GroupBasis(CODES)
    np.testing.assert_array_equal(basis.eigenvalues, [3, 3, 4, 4])
    part = basis.restrict(np.array([0, 6, 4, 1, 5]))
    np.testing.assert_array_equal(part.codes, [1, 1, 2, 0, 0])
    np.testing.assert_array_equal(part.eigenvalues, [2, 2, 1])
    assert part.relatedness is None


@pytest.mark.parametrize("related", [None, RELATEDNESS], ids=["unrelated", "related"])
@pytest.mark.parametrize("form", [np.asarray, sparse.csc_matrix, sparse.csc_array])
def test_constant_within_groups(rng, form, related):
    """A genotype on cells is, a little noise within groups or not; a count per cell is not; a dense basis has no groups."""
    a = np.column_stack(
        [
            np.array([2.0, 0.0, 1.0, 1.0])[CODES],
            np.array([0.1, 0.7, 1e6, 3.0])[CODES].astype(np.float32),
            np.array([2.0, 0.0, 1.0, 1.0])[CODES] + 1e-5 * rng.standard_normal(CODES.size),
            rng.poisson(1.0, CODES.size),
            np.full(CODES.size, 4.0),
        ]
    )
    square = (a**2).sum(axis=0)
    got = GroupBasis(CODES, related).constant_within(form(a), square)
    np.testing.assert_array_equal(got, [True, True, True, False, True])
    s = from_kernel(oracle.group_kernel(CODES))
    assert not DenseBasis(s.u, s.eigenvalues).constant_within(form(a), square).any()


def test_relatedness_that_is_no_covariance_is_named():
    with pytest.raises(ValueError, match="relatedness: not positive semi-definite"):
        _ = GroupBasis(np.array([0, 0, 1]), np.array([[1.0, 2.0], [2.0, 1.0]])).eigenvalues


def test_group_projection_is_exact_for_counts():
    """Group sums of counts are integers: no rounding may enter before the scaling."""
    basis = GroupBasis(CODES)
    a = np.arange(CODES.size * 2).reshape(-1, 2)
    sums = np.array([a[d == CODES].sum(axis=0) for d in range(4)])
    np.testing.assert_array_equal(basis.project(a), sums / np.sqrt([[3], [3], [4], [4]]))
    np.testing.assert_array_equal(basis.project(sparse.csc_matrix(a)), basis.project(a))


def test_no_kernel_restricts_to_no_kernel():
    part = no_kernel(5).restrict(np.array([0, 3]))
    assert (part.n, part.rank) == (2, 0)
