"""A family of kernels: the law of the largest likelihood ratio against dense matrices, and each gene's choice."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from scipy import linalg

from annlmm.model.association import STATUS
from annlmm.model.basis import DenseBasis, GroupBasis
from annlmm.model.design import make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.null import NullModel
from annlmm.model.responses import coordinates, fit_responses
from annlmm.model.responses_family import best_members, common_loadings, family_null
from annlmm.model.statistics import feature_statistics
from annlmm.model.weights import weigh_basis, weigh_design

KINDS = ["rbf", "low", "mixed", "groups", "weighted"]


def make(kind, *, reml=True, n=36, seed=0):
    """(kernels, models, X) on the same rows; under weights those of the model on rows multiplied by their roots."""
    rng = np.random.default_rng(seed)
    x = oracle.design(rng, n, 3)
    if kind in ("groups", "weighted"):
        codes = np.r_[np.arange(9), rng.integers(0, 9, n - 9) ** 2 // 8]
        x[:, -1] = rng.standard_normal(9)[codes]
        g = oracle.random_kernel(rng, 9, rank=7)
        related = [share * g + (1 - share) * np.eye(9) for share in (0.0, 0.4, 1.0)]
        kernels, bases = [oracle.group_kernel(codes, r) for r in related], [GroupBasis(codes, r) for r in related]
    else:
        distance = ((lambda place: place[:, None] - place)(rng.uniform(0, 6, (n, 2))) ** 2).sum(axis=2)
        kernels = [np.exp(-distance / (2 * scale**2)) for scale in (0.4, 1.0, 4.0)]
        if kind != "rbf":  # not the first has the most dimensions
            ranks = (8, 14, 5) if kind == "low" else (12, n, 6)
            kernels = [low_rank(k, rank) for k, rank in zip(kernels, ranks, strict=True)]
        bases = [DenseBasis(s.u, s.eigenvalues) for s in map(from_kernel, kernels)]
    design = make_design(x)
    if kind == "weighted":
        root = np.sqrt(rng.uniform(0.3, 3, n))
        design, x = weigh_design(design, root), root[:, None] * x
        bases, kernels = [weigh_basis(b, root) for b in bases], [root[:, None] * k * root for k in kernels]
    return kernels, [NullModel(design, basis, reml=reml) for basis in bases], x


def low_rank(k, rank):
    values, vectors = np.linalg.eigh(k)
    return (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T


@pytest.mark.parametrize("kind", KINDS)
def test_common_basis_against_dense_matrices(kind):
    """What depends on no choice of bases: tr(P_i P_j) of the projections and tr(A_i A_j) of A = MKM."""
    kernels, models, x = make(kind)
    loadings = common_loadings(models)
    complement = linalg.null_space(x.T)
    inside = [complement.T @ k @ complement for k in kernels]
    assert len({part.shape[1] for part in loadings}) == 1
    together = np.linalg.matrix_rank(np.column_stack([linalg.orth(a, rcond=1e-12) for a in inside]), tol=1e-5)
    assert loadings[0].shape[1] == together
    for i, (a, li) in enumerate(zip(inside, loadings, strict=True)):
        # Directions within 1e-5 of the span are left out.
        np.testing.assert_allclose(li @ li.T, np.eye(len(li)), atol=1e-9)
        for j, (b, lj) in enumerate(zip(inside, loadings, strict=True)):
            root_i, root_j = np.sqrt(models[i].space.mu), np.sqrt(models[j].space.mu)
            ours = ((root_i[:, None] * (li @ lj.T) * root_j) ** 2).sum()
            assert ours == pytest.approx(np.trace(a @ b), rel=1e-9)


def naive_draws(kernels, x, reml, size, seed):
    """max_j LR_j of y ~ N(0, I) on a grid (which misses 0.01 of it), from dense matrices; the full likelihood's determinant is that of K."""
    rng = np.random.default_rng(seed)
    n, p = x.shape
    complement = linalg.null_space(x.T)
    z = rng.standard_normal((n - p, size))
    best = np.zeros(size)
    n_effective = n - p if reml else n
    for k in kernels:
        mu, vectors = np.linalg.eigh(complement.T @ k @ complement)
        mu = np.maximum(mu, 0.0)
        lam = mu if reml else np.maximum(np.linalg.eigvalsh(k), 0.0)
        y_sq = (vectors.T @ z) ** 2
        for gamma in np.exp(np.arange(np.log(1e-3 / mu.max()), np.log(1e5 / mu.max()), 0.2)):
            s = (1 / (1 + gamma * mu)) @ y_sq
            ratio = n_effective * (np.log((z**2).sum(axis=0)) - np.log(s)) - np.log1p(gamma * lam).sum()
            best = np.maximum(best, ratio)
    return best


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_null_against_draws_from_dense_matrices(kind, reml):
    kernels, models, x = make(kind, reml=reml)
    null = family_null(models)
    size = 20_000
    draws = naive_draws(kernels, x, reml, size, 1)
    for level in (0.2, 0.05, 0.01, 0.002):
        at = np.quantile(draws, 1 - level)
        # Four binomial errors of the naive draws, and of 30,000 of which half are from the null.
        error = 4 * np.sqrt(level * (1 - level) * (1 / size + 1 / 15_000))
        assert np.exp(null.log_p_value(at)) == pytest.approx(level, abs=error)
    assert null.log_p_value(0.0) == 0.0
    assert np.exp(null.log_p_value(1e-9)) == pytest.approx((draws > 1e-9).mean(), abs=0.02)


@pytest.mark.parametrize("kind", ["rbf", "low", "groups"])
def test_the_same_kernel_twice_has_its_own_null(kind):
    """Also far into the tail: the relative error of either is that of a few hundred draws there, about 5 %."""
    _, models, _ = make(kind)
    other = NullModel(models[1].design, type(models[1].basis)(*scaled(models[1].basis, 7.0)))
    null, alone = family_null([models[1], other, models[1]]), models[1].rlrt
    observed = np.array([0.01, 0.3, 1.0, 3.0, 8.0, 20.0, 50.0])
    np.testing.assert_allclose(null.log_p_value(observed), alone.log_p_value(observed), atol=0.15, rtol=0.02)
    assert null.log_p_value(50.0) < -20


def scaled(basis, factor):
    if isinstance(basis, GroupBasis):
        return basis.codes, factor * basis.relatedness
    return basis.u, factor * basis.s


def test_more_threads_and_another_seed():
    _, models, _ = make("groups")
    null = family_null(models)
    twice = family_null(models, threads=3)
    np.testing.assert_allclose(twice.statistic, null.statistic, rtol=1e-12)
    for model in models:
        model.seed = 5
    other = family_null(models)
    assert np.exp(other.log_p_value(3.0)) == pytest.approx(np.exp(null.log_p_value(3.0)), rel=0.1)
    assert other.statistic[0] != null.statistic[0]


def test_what_is_chosen():
    kernels, models, x = make("mixed")
    rng = np.random.default_rng(2)
    y = rng.standard_normal((36, 60))
    for j in range(45):
        y[:, j] += 2 * linalg.sqrtm(kernels[j % 3]).real @ rng.standard_normal(36)
    y[:, 3], y[:, 4] = 1.0, kernels[0] @ rng.standard_normal(36)  # the second has no residual under the first member
    fits = [
        fit_responses(
            m, coordinates(feature_statistics(y.copy(), np.zeros((36, 0)), m.design, m.basis, m.space), m.space)
        )
        for m in models
    ]
    null = family_null(models)
    chosen = best_members(fits, null)
    ratios = np.stack([f.likelihood_ratio for f in fits])
    assert [STATUS[s] for s in chosen.best.status[3:5]] == ["constant", "not_converged"]
    assert (chosen.member[3:5] == -1).all()
    assert np.isnan(chosen.best.log_p_value[3:5]).all()
    good = np.delete(np.arange(60), [3, 4])
    assert set(chosen.member[good]) == {-1, 0, 1, 2}
    for j in good:
        best = int(ratios[:, j].argmax())
        assert chosen.member[j] == (best if ratios[best, j] > 0 else -1)
        for name in ("gamma", "sigma_sq", "tau_sq", "h_sq", "pve", "log_likelihood"):
            assert getattr(chosen.best, name)[j] == getattr(fits[best], name)[j]
        # ℓ(0) is the same under all members: from other sums, by rounding.
        values = chosen.log_likelihood[j]
        assert chosen.best.log_likelihood[j] == pytest.approx(values.max(), rel=1e-12)
        zero = oracle.log_likelihood(y[:, j], x, kernels[0], 0.0)[0]
        assert 2 * (chosen.best.log_likelihood[j] - zero) == pytest.approx(ratios[best, j], abs=1e-8)
        assert chosen.best.log_p_value[j] == null.log_p_value(ratios[best, j])
    only = best_members(fits[:1], None)
    np.testing.assert_array_equal(only.best.log_p_value, fits[0].log_p_value)
