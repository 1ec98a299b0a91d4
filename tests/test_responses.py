"""Many responses at once: equal to each on its own, and to a brute-force minimum, over all kinds of kernels and both likelihoods."""

from __future__ import annotations

import numpy as np
import oracle
import pytest

from annlmm.model.association import STATUS
from annlmm.model.basis import DenseBasis, GroupBasis, no_kernel
from annlmm.model.design import make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.null import NullModel
from annlmm.model.responses import CHUNK, Coordinates, coordinates, fit_responses
from annlmm.model.responses_newton import refine
from annlmm.model.search import log_gamma_grid
from annlmm.model.statistics import feature_statistics

FIELDS = ("sigma_sq", "tau_sq", "h_sq", "h_sq_standard_error", "pve", "log_likelihood")
KINDS = ["groups", "related", "full", "low", "centred"]


def make(kind, *, n=60, p=3, seed=0):
    """(kernel, basis, X): unbalanced groups with a covariate of the groups, a full rank, a low rank, a centred one."""
    rng = np.random.default_rng(seed)
    codes = np.r_[np.arange(9), rng.integers(0, 9, n - 9) ** 2 // 8]
    x = oracle.design(rng, n, p)
    if kind in ("groups", "related"):
        x[:, -1] = rng.standard_normal(9)[codes]
        related = oracle.random_kernel(rng, 9) if kind == "related" else None
        return oracle.group_kernel(codes, related), GroupBasis(codes, related), x
    k = oracle.random_kernel(rng, n, rank={"full": None, "low": 20, "centred": n - 1}[kind])
    if kind == "centred":
        k = oracle.centring(n) @ k @ oracle.centring(n)
    spectrum = from_kernel(k)
    return k, DenseBasis(spectrum.u, spectrum.eigenvalues, kind == "centred"), x


def genes_of(k, x, m, seed=1):
    """Genes with h² from 0 to nearly 1, a few effects, and one offset by 10⁴."""
    rng = np.random.default_rng(seed)
    h = np.resize([0.0, 0.05, 0.4, 0.9, 0.999], m)
    root = np.linalg.cholesky(k + 1e-9 * np.eye(len(k)))
    y = np.sqrt(h) * (root @ rng.standard_normal((len(k), m))) + np.sqrt(1 - h) * rng.standard_normal((len(k), m))
    y += x @ rng.standard_normal((x.shape[1], m))
    y[:, -1] += 1e4
    return y


def statistics(model, y, my=None):
    my = np.zeros((len(y), 0)) if my is None else my
    return feature_statistics(y.copy(), my, model.design, model.basis, model.space)


def fit(model, y, **options):
    return fit_responses(model, coordinates(statistics(model, y), model.space), **options)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_each_gene_as_on_its_own(kind, reml):
    k, basis, x = make(kind)
    model = NullModel(make_design(x), basis, reml=reml)
    y = genes_of(k, x, 40)
    fits = fit(model, y)
    several = 0
    for j in range(y.shape[1]):
        if STATUS[fits.status[j]] == "not_converged":
            with pytest.raises(ValueError, match="no maximum"):
                model.fit(y[:, j])
            assert np.isnan([getattr(fits, name)[j] for name in FIELDS]).all()
            continue
        several += 1
        alone = model.fit(y[:, j])
        assert STATUS[fits.status[j]] == alone.status
        for name in FIELDS:
            # The search on its own stops at 1e-10 in log γ. What is flat in γ is better than that.
            assert getattr(fits, name)[j] == pytest.approx(getattr(alone, name), rel=1e-8, nan_ok=True), (name, j)
        assert fits.log_p_value[j] == pytest.approx(alone.h_sq_log_p_value, rel=1e-8)
    assert several > 30


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("kind", ["groups", "related", "full", "low"])
def test_against_dense_matrices(kind, reml):
    k, basis, x = make(kind)
    model = NullModel(make_design(x), basis, reml=reml)
    y = genes_of(k, x, 10)
    fits = fit(model, y, simulate=False)
    for j in range(10):
        dense = oracle.fit(y[:, j], x, k, reml=reml)
        if np.isinf(fits.gamma[j]):  # beyond the span of the oracle's search
            assert fits.log_likelihood[j] >= dense.log_likelihood
            continue
        # Brent on values finds γ to the square root of their rounding, 1e-7; ℓ is flat there.
        assert fits.log_likelihood[j] == pytest.approx(dense.log_likelihood, rel=1e-9)
        assert fits.h_sq[j] == pytest.approx(dense.gamma / (1 + dense.gamma), abs=1e-5)
        at_ours = oracle.log_likelihood(y[:, j], x, k, fits.gamma[j], reml=reml)
        assert fits.log_likelihood[j] == pytest.approx(at_ours[0], rel=1e-9)
        assert fits.tau_sq[j] == pytest.approx(at_ours[3], rel=1e-8)
    assert np.isnan(fits.log_p_value).all()


def test_the_global_optimum_of_small_profiles():
    """One in a hundred of them has several optima; values and slopes of a grid of 4000 nodes find the best."""
    rng = np.random.default_rng(3)
    checked = several = 0
    for _ in range(60):
        k, outside = int(rng.integers(2, 12)), int(rng.integers(1, 12))
        mu = np.exp(rng.normal(0, 2.5, k))
        n = k + outside
        y_sq = rng.chisquare(1, (50, k)) * (1 + mu * rng.choice([0.0, 0.3, 30.0], (50, 1)))
        rest = rng.chisquare(outside, 50)
        grid = log_gamma_grid(mu)
        w = 1 / (1 + np.multiply.outer(np.exp(grid), mu))
        slopes = (1 - w).sum(axis=1)[:, None] - n * ((w * (1 - w)) @ y_sq.T) / (w @ y_sq.T + rest)
        out = np.empty((5, 50))
        refine(y_sq, rest, mu, mu, float(n), float(n), True, False, False, grid, slopes, out)
        fine = np.exp(np.linspace(grid[0] - 2, grid[-1] + 2, 4000))
        for j in range(50):
            values = oracle.profile_value(mu, y_sq[j], rest[j], mu, n, fine)
            at_zero = oracle.profile_value(mu, y_sq[j], rest[j], mu, n, 0.0)
            ours = at_zero - out[1, j]
            # The grid is above the optimum, by at most half of f″ ≈ n times the square of half its step.
            assert ours <= min(values.min(), at_zero) + 1e-9
            assert ours >= min(values.min(), at_zero) - n * 0.01**2 or out[0, j] > fine[-1]
            assert oracle.profile_value(mu, y_sq[j], rest[j], mu, n, out[0, j]) == pytest.approx(ours, abs=1e-9)
            turns = ((values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])).sum() + (values[0] > at_zero)
            several += turns > 1
            checked += 1
    assert checked == 3000
    assert several > 20


def test_ends():
    """h² = 1 where K explains everything, and an optimum so near to it that γ is beyond the grid."""
    k, basis, x = make("full")
    model = NullModel(make_design(x), basis)
    root = np.linalg.cholesky(k)
    y = root @ np.random.default_rng(4).standard_normal((60, 60))
    y += 1e-6 * np.random.default_rng(5).standard_normal((60, 60))
    fits = fit(model, y)
    assert {STATUS[s] for s in fits.status} == {"ok", "boundary"}
    at_one = np.isinf(fits.gamma)
    assert (fits.h_sq[at_one] == 1).all()
    assert (fits.tau_sq[at_one] == 0).all()
    assert (fits.pve[at_one] == 1).all()
    for j in range(60):
        alone = model.fit(y[:, j], simulate=False)
        assert fits.sigma_sq[j] == pytest.approx(alone.sigma_sq, rel=1e-8)
        assert fits.log_likelihood[j] == pytest.approx(alone.log_likelihood, rel=1e-10)


def test_nearly_no_residual():
    """γ far beyond the grid under groups: three dimensions outside whose squares are 1e-9 of the rest."""
    codes = np.r_[np.arange(12), 0, 1, 2]
    model = NullModel(make_design(np.ones((15, 1))), GroupBasis(codes))
    rng = np.random.default_rng(6)
    y = rng.standard_normal((12, 30))[codes] + 3e-5 * rng.standard_normal((15, 30))
    fits = fit(model, y)
    assert (fits.h_sq > 1 - 1e-6).all()
    for j in range(30):
        alone = model.fit(y[:, j], simulate=False)
        # What is left outside is a difference of sums here, good to machine precision over its share of 1e-9.
        assert fits.tau_sq[j] == pytest.approx(alone.tau_sq, rel=1e-5)
        assert fits.sigma_sq[j] == pytest.approx(alone.sigma_sq, rel=1e-7)


def test_features_that_cannot_be_fitted_are_marked():
    k, basis, x = make("groups")
    model = NullModel(make_design(x), basis)
    y = genes_of(k, x, 6)
    together = fit(model, y)
    bad = np.column_stack(
        [np.full(60, 2.0), np.zeros(60), x @ [1.0, 2.0, 3.0], np.arange(9.0)[basis.codes] ** 2, y[:, :2]]
    )
    fits = fit(model, bad)
    assert [STATUS[s] for s in fits.status[:4]] == ["constant", "constant", "collinear", "not_converged"]
    for name in (*FIELDS, "gamma", "log_p_value"):
        assert np.isnan(getattr(fits, name)[:4]).all(), name
        np.testing.assert_allclose(getattr(fits, name)[4:], getattr(together, name)[:2], rtol=1e-12)


def test_least_squares_without_a_kernel():
    _, _, x = make("full")
    y = genes_of(np.eye(60), x, 5)
    model = NullModel(make_design(x), no_kernel(60))
    fits = fit(model, y)
    residual = y - x @ np.linalg.lstsq(x, y)[0]
    np.testing.assert_allclose(fits.tau_sq, (residual**2).sum(axis=0) / 57, rtol=1e-9)
    assert [STATUS[s] for s in fits.status] == ["ok"] * 5
    assert (fits.h_sq == 0).all()
    assert np.isnan(fits.log_p_value).all()


@pytest.mark.parametrize("reml", [True, False])
def test_scale_of_kernel_and_genes(reml):
    k, basis, x = make("low")
    y = genes_of(k, x, 30)
    model = NullModel(make_design(x), basis, reml=reml)
    fits = fit(model, y)
    other = fit(NullModel(make_design(x), DenseBasis(basis.u, basis.s * 1e6), reml=reml), 1e-3 * y)
    # A scale moves the grid, and with it the last Newton step.
    np.testing.assert_allclose(other.sigma_sq, fits.sigma_sq * 1e-12, rtol=1e-9, atol=1e-22)
    np.testing.assert_allclose(other.tau_sq, fits.tau_sq * 1e-6, rtol=1e-9)
    np.testing.assert_allclose(other.pve, fits.pve, rtol=1e-9)
    # The draws are the same, the clusters and grids of the null are not, by rounding.
    np.testing.assert_allclose(other.log_p_value, fits.log_p_value, rtol=1e-4)


def test_chunks_and_threads_change_nothing():
    _, basis, x = make("groups")
    model = NullModel(make_design(x), basis)
    y = np.random.default_rng(7).standard_normal((60, CHUNK + 7))
    genes = coordinates(statistics(model, y), model.space)
    whole = fit_responses(model, genes, threads=2)
    order = np.random.default_rng(8).permutation(CHUNK + 7)[:50]
    part = fit_responses(model, Coordinates(genes.v[:, order], genes.rest[order], genes.status[order]))
    for name in (*FIELDS, "gamma", "log_p_value"):
        # Another BLAS kernel for fewer columns: the slopes of the grid, where Newton starts, differ by rounding.
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[order], rtol=1e-9, err_msg=name)
    assert (part.status == whole.status[order]).all()
