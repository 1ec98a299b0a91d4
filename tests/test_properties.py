"""Properties that hold for every data set, on random ones (hypothesis, the same in every run), against the dense oracle."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import annlmm as al
from annlmm.model.basis import DenseBasis, GroupBasis
from annlmm.model.design import make_design
from annlmm.model.eigen import from_factor, from_kernel
from annlmm.model.null import NullModel

deterministic = settings(
    derandomize=True, max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


class Problem(tuple):
    """(kind, y, X, K, basis), shown by kind and size alone."""

    def __repr__(self):
        return f"Problem({self[0]}, n={len(self[1])}, p={self[2].shape[1]}, rank={self[4].rank})"


@st.composite
def problems(draw, kernels=("full", "low", "wide", "groups", "related", "centred")):
    """(kind, y, X, K, basis): sizes, kernels, signal and covariates of many kinds."""
    seed = draw(st.integers(0, 2**20))
    kind = draw(st.sampled_from(kernels))
    n, p = draw(st.integers(12, 28)), draw(st.integers(1, 4))
    gamma = draw(st.sampled_from([0.0, 0.1, 1.0, 8.0]))
    rng = np.random.default_rng(seed)
    x = oracle.design(rng, n, p)
    if kind in ("groups", "related"):
        groups = draw(st.integers(p + 2, 9))
        codes = np.r_[np.arange(groups), rng.integers(0, groups, n - groups)]
        if n > groups and p > 1:
            x[:, 1] = rng.standard_normal(groups)[codes]  # a donor-level covariate
        z = rng.standard_normal((groups, groups + 2))
        related = z @ z.T / groups if kind == "related" else None
        k, basis = oracle.group_kernel(codes, related), GroupBasis(codes, related)
    else:
        rank = {"full": 2 * n, "low": draw(st.integers(2, n - p - 2)), "wide": n - 1, "centred": 2 * n}[kind]
        k = oracle.random_kernel(rng, n, rank)
        if kind == "centred":
            k = oracle.centring(n) @ k @ oracle.centring(n)
        s = from_kernel(k)
        basis = DenseBasis(s.u, s.eigenvalues, centered=kind == "centred")
    return Problem((kind, oracle.response(rng, x, k, gamma), x, k, basis))


def fit(y, x, basis, gamma=None, *, reml=True):
    return NullModel(make_design(x), basis, reml=reml).fit(y, gamma, simulate=False)


def same_gamma(a, b, scale=1.0, rtol=1e-6):
    """Equal γ̂: two searches to 1e-10 on objectives that differ by rounding, whose minimum may be as flat as f″ = 1e-3."""
    if a.gamma == 0 or np.isinf(a.gamma):
        assert b.gamma == a.gamma
    else:
        assert b.gamma * scale == pytest.approx(a.gamma, rel=rtol)


@deterministic
@given(problems(), st.booleans())
def test_is_the_maximum_of_the_dense_likelihood(problem, reml):
    """No γ on a dense grid is better, everything at γ̂ is the textbook's."""
    kind, y, x, k, basis = problem
    if not reml and kind in ("centred", "wide"):
        return  # of rank n − 1, and X takes the rest: the full likelihood has no maximum
    got = fit(y, x, basis, reml=reml)
    grid = [0.0, *np.exp(np.linspace(-8, 8, 41))]
    best = max(oracle.log_likelihood(y, x, k, gamma, reml=reml)[0] for gamma in grid)
    assert got.log_likelihood >= best - 1e-8  # the dense side loses eps · cond(V) ~ 1e-11 per term
    if np.isfinite(got.gamma) and got.gamma < 1e5:
        dense = oracle.fit(y, x, k, got.gamma, reml=reml)
        assert got.log_likelihood == pytest.approx(dense.log_likelihood, abs=1e-8)
        np.testing.assert_allclose(got.beta, dense.beta, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(got.beta_covariance, dense.beta_covariance, rtol=1e-6, atol=1e-9)
        assert got.tau_sq == pytest.approx(dense.tau_sq, rel=1e-7)


@deterministic
@given(problems(), st.floats(-1e7, 1e7), st.sampled_from([1e-6, 1e-2, 3.0, 1e5]))
def test_shift_and_scale_of_y(problem, shift, scale):
    _, y, x, _, basis = problem
    a, b = fit(y, x, basis), fit(scale * y + scale * shift, x, basis)
    rtol = 1e-6 + 1e-12 * abs(shift)  # y keeps eps · shift of its digits, of which γ̂ loses three more where it is flat
    same_gamma(a, b, rtol=rtol)
    np.testing.assert_allclose(b.beta[1:] / scale, a.beta[1:], rtol=rtol, atol=rtol)
    assert b.beta[0] / scale - shift == pytest.approx(a.beta[0], abs=rtol + 1e-14 * abs(shift))
    np.testing.assert_allclose(b.beta_standard_error / scale, a.beta_standard_error, rtol=rtol)
    assert b.sigma_sq + b.tau_sq == pytest.approx((a.sigma_sq + a.tau_sq) * scale**2, rel=rtol)


@deterministic
@given(problems(("full", "low", "wide", "related", "centred")), st.floats(-12, 12))
def test_scale_of_k(problem, exponent):
    _, y, x, k, basis = problem
    scale = 10.0**exponent
    if isinstance(basis, GroupBasis):
        moved = GroupBasis(basis.codes, basis.relatedness * scale)
    else:
        s = from_kernel(k * scale)
        moved = DenseBasis(s.u, s.eigenvalues)
    a, b = fit(y, x, basis), fit(y, x, moved)
    same_gamma(a, b, scale)
    assert b.log_likelihood == pytest.approx(a.log_likelihood, abs=1e-8)
    assert b.pve == pytest.approx(a.pve, rel=1e-6, abs=1e-12)
    np.testing.assert_allclose(b.beta, a.beta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(b.beta_standard_error, a.beta_standard_error, rtol=1e-6)


@deterministic
@given(problems(), st.integers(0, 2**20))
def test_affine_change_of_the_covariates(problem, seed):
    """X → XA: the same model, β → A⁻¹β and its covariance A⁻¹CA⁻ᵀ, degrees of freedom of the contrasts that stay."""
    _, y, x, _, basis = problem
    rng = np.random.default_rng(seed)
    p = x.shape[1]
    change = np.diag(10.0 ** rng.uniform(-3, 3, p))
    change[0, 1:] = rng.uniform(-1e3, 1e3, p - 1)  # covariates are shifted, and the first keeps the constant
    a, b = fit(y, x, basis), fit(y, x @ change, basis)
    same_gamma(a, b)
    inverse = np.linalg.inv(change)
    se = np.sqrt(np.diagonal(inverse @ a.beta_covariance @ inverse.T))
    np.testing.assert_allclose(b.beta, inverse @ a.beta, rtol=1e-5, atol=1e-5 * se.max())
    np.testing.assert_allclose(b.beta_standard_error, se, rtol=1e-5)
    assert b.log_likelihood == pytest.approx(a.log_likelihood, abs=1e-7)
    np.testing.assert_allclose(b.beta_df[1:], a.beta_df[1:], rtol=1e-5)


@deterministic
@given(problems(), st.integers(0, 2**20))
def test_permutation_of_the_rows(problem, seed):
    _, y, x, _, basis = problem
    order = np.random.default_rng(seed).permutation(y.size)
    moved = basis.restrict(order)
    a, b = fit(y, x, basis), fit(y[order], x[order], moved)
    same_gamma(a, b)
    np.testing.assert_allclose(b.beta, a.beta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(b.beta_df, a.beta_df, rtol=1e-5)
    assert b.log_likelihood == pytest.approx(a.log_likelihood, abs=1e-8)
    blup, residual = NullModel(make_design(x), basis).predict_random(y, 0.7)
    moved_blup, moved_residual = NullModel(make_design(x[order]), moved).predict_random(y[order], 0.7)
    np.testing.assert_allclose(moved_blup, blup[order], atol=1e-9)
    np.testing.assert_allclose(moved_residual, residual[order], atol=1e-9)


@deterministic
@given(problems(("groups", "related")))
def test_groups_are_the_dense_kernel(problem):
    _, y, x, k, basis = problem
    s = from_kernel(k)
    a, b = fit(y, x, basis), fit(y, x, DenseBasis(s.u, s.eigenvalues))
    same_gamma(a, b)
    for name in ("log_likelihood", "pve", "tau_sq"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(b.beta_df, a.beta_df, rtol=1e-5)


@deterministic
@given(problems(("low", "wide")), st.floats(-3, 3))
def test_low_rank_is_the_full_model(problem, log_gamma):
    """P_r y, P_r X, S_r with y and X, and P y, P X, S with zeros: the same numbers everywhere."""
    _, y, x, k, basis = problem
    n, r = y.size, basis.rank
    full, p = al.LinearMixedModel.from_kinship(y, x, k)
    low = al.LinearMixedModel(basis.u.T @ y, basis.u.T @ x, basis.s, y, x)
    assert low.r == r < n
    got, expected = (m.compute_neg_log_reml(log_gamma, return_parameters=True) for m in (low, full))
    assert got[0] == pytest.approx(expected[0], abs=1e-9)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-7, atol=1e-8)
    assert got[2:] == pytest.approx(expected[2:], rel=1e-9)
    a = np.random.default_rng(0).standard_normal((n, 4))
    low.fit()
    full.fit()
    same_gamma(full, low)
    np.testing.assert_allclose(low.h_sq_normalized_lkhd(), full.h_sq_normalized_lkhd(), rtol=1e-7)
    low.fit(log_gamma=log_gamma)
    full.fit(log_gamma=log_gamma)
    np.testing.assert_allclose(
        low.fit_alternatives(basis.u.T @ a, a), full.fit_alternatives(p @ a), rtol=1e-6, atol=1e-9
    )


@deterministic
@given(problems(("full", "low", "related")))
def test_reml_does_not_see_the_centring_of_k(problem):
    """HKH and K differ by what the intercept takes; β₀ and its standard error do see it."""
    _, y, x, k, basis = problem
    h = oracle.centring(y.size)
    s = from_kernel(h @ k @ h)
    a, b = fit(y, x, basis), fit(y, x, DenseBasis(s.u, s.eigenvalues, centered=True))
    same_gamma(a, b)
    assert b.log_likelihood == pytest.approx(a.log_likelihood, abs=1e-7)
    assert b.pve == pytest.approx(a.pve, rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(b.beta[1:], a.beta[1:], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(b.beta_standard_error[1:], a.beta_standard_error[1:], rtol=1e-6)


@deterministic
@given(problems(("full", "low", "wide")), st.floats(-1e5, 1e5), st.sampled_from([1e-4, 1.0, 1e4]), st.floats(-4, 4))
def test_shift_and_scale_of_a_feature(problem, shift, scale, log_gamma):
    """Adding a constant to a feature, or anything in the span of X, changes nothing; its scale moves β by the inverse."""
    _, y, x, k, _ = problem
    a = np.random.default_rng(1).standard_normal((y.size, 3))
    model, p = al.LinearMixedModel.from_kinship(y, x, k)
    model.fit(log_gamma=log_gamma)
    reference, moved = model.fit_alternatives(p @ a), model.fit_alternatives(p @ (scale * (a + shift)))
    rtol = 1e-8 + 1e-12 * abs(shift)  # eps · shift, and more where γ is far from 1
    np.testing.assert_allclose(moved["beta"] * scale, reference["beta"], rtol=rtol, atol=rtol)
    np.testing.assert_allclose(moved["chi_sq"], reference["chi_sq"], rtol=10 * rtol, atol=rtol)
    dense = oracle.associate(y, x, k, a, np.exp(log_gamma))
    np.testing.assert_allclose(reference["beta"], dense[0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(reference["chi_sq"], dense[4], rtol=1e-6, atol=1e-9)
    inside = model.fit_alternatives(p @ (a + x @ np.arange(1.0, x.shape[1] + 1)[:, None]))
    np.testing.assert_allclose(inside["beta"], reference["beta"], rtol=1e-8, atol=1e-9)


@deterministic
@given(problems(("full", "low", "wide", "centred")), st.integers(0, 2**20))
def test_restriction_is_the_submatrix(problem, seed):
    """Dropping rows of a basis, then fitting, is fitting K[kept, kept]."""
    kind, y, x, k, basis = problem
    n, p = x.shape
    kept = np.sort(np.random.default_rng(seed).permutation(n)[: max(n - 4, p + 4)])
    part = k[np.ix_(kept, kept)]
    s = from_kernel(part)
    a = fit(y[kept], x[kept], basis.restrict(kept))
    b = fit(y[kept], x[kept], DenseBasis(s.u, s.eigenvalues))
    same_gamma(b, a)
    # A centred kernel is centred again, which moves only what belongs to the intercept.
    first = 1 if kind == "centred" else 0
    np.testing.assert_allclose(a.beta[first:], b.beta[first:], rtol=1e-6, atol=1e-8)
    assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-7)


@deterministic
@given(st.integers(0, 2**20), st.integers(4, 12), st.integers(1, 20))
def test_factor_and_kernel_agree(seed, n, m):
    z = np.random.default_rng(seed).standard_normal((n, m))
    a, b = from_factor(z), from_kernel(z @ z.T)
    assert a.eigenvalues.size == b.eigenvalues.size == min(n, m)
    np.testing.assert_allclose((a.u * a.eigenvalues) @ a.u.T, z @ z.T, atol=1e-12 * np.sum(z**2))
    np.testing.assert_allclose(a.u.T @ a.u, np.eye(min(n, m)), atol=1e-12)
