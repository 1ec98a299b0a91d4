"""The REML space against dense eigendecompositions; what is not identifiable, and what nearly is not."""

from __future__ import annotations

import numpy as np
import oracle
import pytest

from annlmm.model.basis import DenseBasis, GroupBasis, no_kernel
from annlmm.model.design import make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.gls import finite_gamma, make_gls
from annlmm.model.space import check_identifiable, degrees_of_freedom_message, make_space

N = 24
GAMMAS = (0.0, 1e-3, 0.7, 40.0, 1e4)


def basis_of(k):
    s = from_kernel(k)
    return DenseBasis(s.u, s.eigenvalues)


def cases():
    rng = np.random.default_rng(3)
    h = oracle.centring(N)
    x = oracle.design(rng, N, 3)
    codes = np.r_[np.arange(6), rng.integers(0, 6, N - 6)]
    z = rng.standard_normal((6, 6))
    related = z @ z.T / 6
    donor_level = np.column_stack([np.ones(N), rng.standard_normal(6)[codes], rng.standard_normal(N)])
    low = oracle.random_kernel(rng, N, rank=5)
    full = oracle.random_kernel(rng, N)
    in_span = np.column_stack([np.ones(N), low @ rng.standard_normal(N)])  # a covariate in the span of the kernel
    without = h @ full @ h  # of rank n − 1, without the constant
    half = oracle.random_kernel(rng, N, rank=N // 2)
    two = np.outer(x[:, 1], x[:, 1]) + np.outer(np.ones(N), np.ones(N)) + low  # covariates inside the kernel
    return {
        "full": (basis_of(full), full, x),
        "low": (basis_of(low), low, x),
        "half": (basis_of(half), half, x),
        "centred": (basis_of(without), without, x),
        "centred, intercept only": (basis_of(without), without, x[:, :1]),
        "centred, no intercept": (basis_of(without), without, x[:, 1:]),
        "covariate in the span": (basis_of(low), low, in_span),
        "covariates are part of the kernel": (basis_of(two), two, x),
        "p > r": (basis_of(oracle.random_kernel(np.random.default_rng(9), N, rank=2)), None, oracle.design(rng, N, 7)),
        "p = n - 1": (basis_of(full), full, oracle.design(rng, N, N - 1)),
        "groups": (GroupBasis(codes), oracle.group_kernel(codes), donor_level),
        "related groups": (GroupBasis(codes, related), oracle.group_kernel(codes, related), donor_level),
        "groups, intercept": (GroupBasis(codes), oracle.group_kernel(codes), np.ones((N, 1))),
        "none": (no_kernel(N), np.zeros((N, N)), x),
    }


CASES = cases()


def prepared(name):
    basis, k, x = CASES[name]
    if k is None:
        u = basis.expand(np.eye(basis.rank))
        k = (u * basis.eigenvalues) @ u.T
    design = make_design(x)
    return basis, k, x, design, make_space(basis.project(design.q), basis.eigenvalues, design)


@pytest.mark.parametrize("name", CASES)
class TestSpace:
    def test_eigenvalues_are_those_of_mkm(self, name):
        _, k, x, _, space = prepared(name)
        expected = oracle.residual_eigenvalues(x, k)
        tolerance = 1e-12 * max(np.linalg.norm(k, 2), 1e-300)  # Weyl: eps · ‖K‖
        expected = expected[expected > tolerance]
        assert space.mu.size == space.k == expected.size
        np.testing.assert_allclose(np.sort(space.mu), expected, atol=tolerance)
        assert space.full == (space.k == N - x.shape[1])
        assert space.df_residual == N - x.shape[1]

    def test_v_is_orthonormal_and_orthogonal_to_x(self, name):
        basis, k, x, design, space = prepared(name)
        v = design.residualise(basis.expand(space.rotation))
        np.testing.assert_allclose(v.T @ v, np.eye(space.k), atol=1e-11)  # eps over the smallest sine, about 1e-4
        np.testing.assert_allclose(x.T @ v, 0, atol=1e-11)
        m = np.eye(N) - x @ np.linalg.pinv(x)
        np.testing.assert_allclose((v * space.mu) @ v.T, m @ k @ m, atol=1e-11 * max(np.abs(k).max(), 1))

    def test_projection_is_v_transposed(self, name):
        basis, _, _, design, space = prepared(name)
        y = np.random.default_rng(0).standard_normal(N)
        v = design.residualise(basis.expand(space.rotation))
        u = basis.project(design.residualise(np.column_stack([y, y**2])))
        np.testing.assert_allclose(space.rotation.T @ u[:, 0], v.T @ y, atol=1e-11)
        np.testing.assert_allclose(space.rotate(u), space.rotation.T @ u, atol=1e-11)
        z = np.arange(1.0, space.k + 1)
        np.testing.assert_allclose(space.unrotate(z), space.rotation @ z, atol=1e-11)

    @pytest.mark.parametrize("gamma", GAMMAS)
    def test_log_determinant_identity(self, name, gamma):
        """log|XᵀV⁻¹X| + log|V| − log|XᵀX| = log|I + γMKM|, and log|X'X| itself."""
        _, k, x, design, space = prepared(name)
        v = np.eye(N) + gamma * k
        log_det = np.linalg.slogdet
        dense = log_det(x.T @ np.linalg.solve(v, x))[1] + log_det(v)[1] - log_det(x.T @ x)[1]
        # The dense side loses eps · cond(V).
        tolerance = 1e-13 * np.linalg.cond(v) + 1e-11
        assert np.log1p(gamma * space.mu).sum() == pytest.approx(dense, abs=tolerance)
        assert np.log1p(gamma * space.eigenvalues).sum() == pytest.approx(log_det(v)[1], abs=tolerance)
        assert design.log_det_xtx == pytest.approx(log_det(x.T @ x)[1], abs=1e-11)

    @pytest.mark.parametrize("gamma", GAMMAS)
    def test_inner_products_at_a_fixed_gamma(self, name, gamma):
        """⟨Q,Q⟩, its inverse and ⟨Q,ã⟩ for ã orthogonal to X, against V⁻¹ itself."""
        basis, k, _, design, space = prepared(name)
        inverse = np.linalg.inv(np.eye(N) + gamma * k)
        gls = make_gls(space, gamma)
        a = design.residualise(np.random.default_rng(1).standard_normal((N, 4)))
        expected = design.q.T @ inverse @ design.q
        np.testing.assert_allclose(gls.qq, expected, atol=1e-11)
        np.testing.assert_allclose(
            gls.qq_inverse @ expected, np.eye(design.p), atol=1e-12 * np.linalg.cond(expected) + 1e-12
        )
        u = basis.project(a)
        np.testing.assert_allclose(gls.cross(u, space), design.q.T @ inverse @ a, atol=1e-11)
        np.testing.assert_allclose(gls.cross(u[:, 0], space), design.q.T @ inverse @ a[:, 0], atol=1e-11)
        solved = np.linalg.solve(expected, design.q.T @ inverse @ a)
        np.testing.assert_allclose(gls.solve_q(u, space), solved, atol=1e-12 * np.linalg.cond(expected) + 1e-12)
        assert gls.gamma == gamma

    def test_common_directions_are_exactly_zero(self, name):
        """c_ab is 0, not round-off, along what span(U) and span(X) share: with γ large round-off would rule."""
        basis, _, _, design, space = prepared(name)
        u = basis.expand(np.eye(basis.rank))
        stacked = np.linalg.matrix_rank(np.column_stack([u, design.q]), tol=1e-8) if basis.rank else design.p
        assert int((space.angles.sin == 0).sum()) == basis.rank + design.p - stacked
        spread = np.linalg.matrix_rank(space.angles.complement, tol=1e-12)
        assert spread == stacked - basis.rank
        inside = np.linalg.norm((np.eye(N) - u @ u.T) @ design.residualise(np.eye(N))) < 1e-10
        assert space.angles.complete == inside


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("name", ["full", "low", "related groups", "centred"])
def test_scale_of_k(name, scale):
    basis, _, _, design, space = prepared(name)
    moved = make_space(basis.project(design.q), basis.eigenvalues * scale, design)
    np.testing.assert_allclose(moved.mu, space.mu * scale, rtol=1e-10)  # relative to the largest of a condition ~1e3


def test_finite_gamma_stands_for_infinity():
    space = prepared("full")[-1]
    assert finite_gamma(3.0, space) == 3.0
    assert finite_gamma(0.0, space) == 0.0
    assert 1 / (1 + finite_gamma(np.inf, space) * space.mu.min()) < 1.01e-8


def test_small_eigenvalue_of_a_full_rank_kernel_is_kept():
    """K of full rank has MKM of rank n − p whatever its condition: V stays orthonormal."""
    rng = np.random.default_rng(2)
    q = np.linalg.qr(rng.standard_normal((N, N)))[0]
    s = np.logspace(0, -12, N)
    design = make_design(oracle.design(rng, N, 3))
    space = make_space(q.T @ design.q, s, design)
    assert space.full
    assert space.mu.min() > 0
    v = design.residualise(q @ space.rotation)
    np.testing.assert_allclose(v.T @ v, np.eye(N - 3), atol=1e-12)


def test_near_span_covariate_is_told_apart():
    """A donor-level covariate with a cell-level part of one in 10⁵ (sin² = 1e-10) is not taken to be donor-level."""
    rng = np.random.default_rng(4)
    codes = np.repeat(np.arange(6), 4)
    x = np.column_stack([np.ones(N), rng.standard_normal(6)[codes] + 1e-5 * rng.standard_normal(N)])
    basis, design = GroupBasis(codes), make_design(x)
    space = make_space(basis.project(design.q), basis.eigenvalues, design)
    assert (space.angles.sin > 0).sum() == 1
    assert space.k == 5
    expected = oracle.residual_eigenvalues(x, oracle.group_kernel(codes))[-5:]
    np.testing.assert_allclose(np.sort(space.mu), expected, atol=1e-12)


class TestIdentifiability:
    def check(self, k, x):
        basis, design = basis_of(np.asarray(k, dtype=float)), make_design(x)
        check_identifiable(make_space(basis.project(design.q), basis.eigenvalues, design), kernel="GRM")

    def rng(self):
        return np.random.default_rng(8)

    @pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
    @pytest.mark.parametrize("p", [1, 3])
    def test_identity(self, p, scale):
        with pytest.raises(
            ValueError, match=r"GRM: cannot be told from the residual .* use a kernel with structure, or kernel=None"
        ):
            self.check(scale * np.eye(N), oracle.design(self.rng(), N, p))

    def test_identity_plus_a_constant_under_an_intercept(self):
        with pytest.raises(ValueError, match="cannot be told from the residual"):
            self.check(np.eye(N) + 0.5, np.ones((N, 1)))

    def test_one_observation_per_group(self):
        design, basis = make_design(np.ones((N, 1))), GroupBasis(np.arange(N))
        with pytest.raises(ValueError, match=r"cannot be told from the residual \(its 23 eigenvalues"):
            check_identifiable(make_space(basis.project(design.q), basis.eigenvalues, design))

    @pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
    def test_constant_kernel_under_an_intercept(self, scale):
        with pytest.raises(
            ValueError, match=r"GRM: absorbed by the covariates \('x0' alone: .* drop 'x0', or use kernel=None"
        ):
            self.check(scale * np.ones((N, N)), oracle.design(self.rng(), N, 2))

    def test_one_group(self):
        design, basis = make_design(np.ones((N, 1))), GroupBasis(np.zeros(N, dtype=int))
        with pytest.raises(ValueError, match="kernel: absorbed by the covariates"):
            check_identifiable(make_space(basis.project(design.q), basis.eigenvalues, design))

    def test_donor_dummies_under_a_donor_kernel(self):
        codes = np.repeat(np.arange(6), 4)
        for x in (np.eye(6)[codes], np.column_stack([np.ones(N), np.eye(6)[codes][:, 1:]])):
            design, basis = make_design(x), GroupBasis(codes)
            with pytest.raises(ValueError, match="absorbed by the covariates .* donor dummies"):
                check_identifiable(make_space(basis.project(design.q), basis.eigenvalues, design))

    def test_low_rank_kernel_inside_the_covariates(self):
        x = oracle.design(self.rng(), N, 4)
        with pytest.raises(
            ValueError, match=r"absorbed by the covariates \('x1' and 'x2' together: .* drop 'x1' and 'x2'"
        ):
            self.check(x[:, 1:3] @ x[:, 1:3].T, x)

    def test_the_covariate_is_named(self):
        """Under donors: a text with a value for each of them, beside others that do not; two that do it together; none but the intercept."""
        rng, codes = self.rng(), np.repeat(np.arange(6), 4)
        dummies, age = np.eye(6)[codes][:, 1:], rng.normal(size=24)
        names = [f"site[T.{d}]" for d in range(1, 6)]
        cases = [
            (
                ["Intercept", "age", *names],
                np.column_stack([np.ones(24), age, dummies]),
                "'site' alone: .* drop 'site', or",
            ),
            (
                ["Intercept", "age", *(f"a[T.{d}]" for d in range(3)), "b[T.x]", "b[T.y]"],
                np.column_stack([np.ones(24), age, dummies]),
                "'a' and 'b' together: .* drop 'a' and 'b', or",
            ),
        ]
        for terms, x, message in cases:
            design, basis = make_design(x, terms), GroupBasis(codes)
            with pytest.raises(ValueError, match=rf"kernel: absorbed by the covariates \({message} use kernel=None"):
                check_identifiable(make_space(basis.project(design.q), basis.eigenvalues, design))
        design, basis = make_design(np.ones((N, 1)), ["Intercept"]), GroupBasis(np.zeros(N, dtype=int))
        with pytest.raises(ValueError, match="'Intercept' alone: .* use a kernel with structure, or use kernel=None"):
            check_identifiable(make_space(basis.project(design.q), basis.eigenvalues, design))

    @pytest.mark.parametrize(
        "make",
        [
            lambda rng: np.eye(N) + 1e-3 * oracle.random_kernel(rng, N),
            lambda rng: np.eye(N) + 0.5 * oracle.group_kernel(np.repeat(np.arange(N // 2), 2)),
            lambda rng: np.ones((N, N)) + 1e-4 * oracle.random_kernel(rng, N),
            lambda rng: np.diag(np.linspace(0.9, 1.1, N)),
            lambda rng: oracle.group_kernel(np.r_[0, 0, np.arange(1, N - 1)]),  # one pair, everyone else alone
            lambda rng: np.outer(np.arange(N), np.arange(N)),
        ],
        ids=["I + 0.001 GRM", "pairs", "constant + 0.0001 GRM", "weights", "one pair", "rank one"],
    )
    def test_legitimate_kernels_pass(self, make):
        self.check(make(self.rng()), oracle.design(self.rng(), N, 2))

    def test_all_donor_dummies_but_one_pass(self):
        codes = np.repeat(np.arange(6), 4)
        x = np.column_stack([np.ones(N), np.eye(6)[codes][:, 2:]])
        design, basis = make_design(x), GroupBasis(codes)
        check_identifiable(make_space(basis.project(design.q), basis.eigenvalues, design))

    def test_no_kernel_has_nothing_to_identify(self):
        design = make_design(np.ones((N, 1)))
        check_identifiable(make_space(np.zeros((0, 1)), np.zeros(0), design))


@pytest.mark.parametrize(
    ("n", "p", "text"),
    [
        (1, 1, "1 observation and 1 fixed effect leave 0 degrees of freedom; at least one is needed"),
        (3, 2, "3 observations and 2 fixed effects leave 1 degree of freedom; at least one is needed"),
        (2, 5, "2 observations and 5 fixed effects leave -3 degrees of freedom; at least one is needed"),
    ],
)
def test_degrees_of_freedom_message(n, p, text):
    assert degrees_of_freedom_message(n, p) == text + ": drop covariates or add observations"


def test_no_degrees_of_freedom_left():
    rng = np.random.default_rng(0)
    k = oracle.random_kernel(rng, 4)
    basis, design = basis_of(k), make_design(rng.standard_normal((4, 4)))
    with pytest.raises(ValueError, match="4 observations and 4 fixed effects leave 0 degrees of freedom"):
        make_space(basis.project(design.q), basis.eigenvalues, design)
