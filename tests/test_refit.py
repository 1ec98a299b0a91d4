"""The refit of γ per feature as a minimisation: against brute force on the formulas of its docstring, on any spectrum."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from anndata import AnnData
from scipy import optimize, sparse

import annlmm as al
from annlmm.model.basis import DenseBasis
from annlmm.model.design import make_design
from annlmm.model.null import NullModel
from annlmm.model.refit import BIN_WIDTH, make_refitter, thin
from annlmm.model.space import RemlSpace

N = 40
SPECTRA = {
    "narrow": np.linspace(1.5, 0.5, N),
    "wide": np.geomspace(1e3, 1e-5, N),
    "clustered": np.r_[np.full(5, 30.0), np.linspace(1.1, 0.9, N - 5)],
    "low": np.geomspace(20, 0.5, 12),
    "one": np.array([3.0]),
}


def space_of(s: np.ndarray, rng: np.random.Generator) -> RemlSpace:
    """Of a kernel with eigenvalues `s` beside an intercept."""
    u = np.linalg.qr(rng.standard_normal((N, s.size)))[0]
    return NullModel(make_design(np.ones((N, 1))), DenseBasis(u, s), identifiable=False).space


def brute_force(v, y, c_aa, c_ay, c_yy, space, *, reml):
    """min f over γ in (0, ∞) and at 0: a fine grid, then bounded Brent around each of its minima."""
    mu, lam = space.mu, space.mu if reml else space.eigenvalues
    n = space.df_residual - 1 if reml else space.n

    def f(gamma):
        w = 1 / (1 + gamma * mu)
        a, b, c = w @ v**2 + c_aa, w @ (v * y) + c_ay, w @ y**2 + c_yy
        return n * np.log(c - b**2 / a) + np.log1p(gamma * lam).sum() + (np.log(a) if reml else 0.0)

    t = np.linspace(-25, 25, 1001)
    values = np.array([f(x) for x in np.exp(t)])
    best = [(f(0.0), 0.0)]
    for i in np.flatnonzero((values[1:-1] <= values[:-2]) & (values[1:-1] <= values[2:])) + 1:
        found = optimize.minimize_scalar(
            lambda x: f(np.exp(x)), bounds=(t[i - 1], t[i + 1]), method="bounded", options={"xatol": 1e-10}
        )
        best.append((found.fun, np.exp(found.x)))
    return min(best), values[-1]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("kind", list(SPECTRA))
def test_the_optimum_is_the_global_one(kind: str, reml: bool) -> None:
    rng = np.random.default_rng(list(SPECTRA).index(kind))
    space = space_of(SPECTRA[kind], rng)
    k, outside_dimensions = space.k, space.df_residual - space.k
    several = 0
    for draw in range(6):
        y = rng.standard_normal(k) * np.sqrt(1 + 10.0 ** rng.uniform(-2, 2) * space.mu)
        rest = rng.standard_normal((2, outside_dimensions))
        features = rng.standard_normal((5, k))
        features[1] *= np.sqrt(space.mu)
        features[2] = np.eye(k)[draw % k]  # one direction alone
        features[3] = y + 1e-3 * rng.standard_normal(k)  # leaves a millionth of C, where nothing is outside V
        features[4] = 0.5 * y + rng.standard_normal(k) * np.sqrt(1 + space.mu)
        c_aa, c_ay = np.full(5, rest[0] @ rest[0]), np.full(5, rest[0] @ rest[1])
        refitter = make_refitter(space, y, float(rest[1] @ rest[1]), reml=reml)
        assert refitter.rest == (0.0 if space.full else rest[1] @ rest[1])
        fit = refitter.fit(features, c_aa, c_ay)
        for j in range(5):
            (value, gamma), end = brute_force(features[j], y, c_aa[j], c_ay[j], refitter.rest, space, reml=reml)
            if np.isnan(fit.gamma[j]) or np.isinf(fit.gamma[j]) or end < value:
                # Nothing inside is better than the end at h² = 1, or than f without bound.
                assert space.full
                assert end < value + 1e-6
                continue
            assert fit.converged[j]
            # RSS₁ of the fourth feature has six digits left.
            assert fit.value[j] == pytest.approx(value, rel=1e-9, abs=1e-3 if j == 3 else 1e-7)
            if j != 3 and min(gamma, fit.gamma[j]) > 1e-4:
                # Brent's abscissa is good to the root of rounding.
                assert np.log(fit.gamma[j]) == pytest.approx(np.log(gamma), abs=2e-4)
            several += 1
    assert several > 10


@pytest.mark.parametrize(
    "mu",
    [np.geomspace(1e-6, 1e4, 300), np.geomspace(50, 0.1, 300), np.full(7, 2.0), np.array([0.3]), np.array([1e3, 1e-3])],
)
def test_thinned_spectrum(mu: np.ndarray) -> None:
    bins, nodes, lagrange = thin(mu)
    assert bins[0] == 0
    assert bins[-1] == mu.size
    for start, stop in pairwise(bins):
        assert abs(np.log(mu[stop - 1] / mu[start])) <= BIN_WIDTH
    c = np.random.default_rng(0).uniform(size=mu.size)
    thinned = np.add.reduceat(lagrange * c, bins[:-1], axis=1).T.ravel()
    gamma = np.exp(np.linspace(-25, 25, 200))
    weights, thin_weights = (1 / (1 + np.multiply.outer(gamma, values)) for values in (mu, nodes))
    # Six Chebyshev nodes in 0.7 units of log μ, the poles at a distance of π.
    np.testing.assert_allclose(thin_weights @ thinned, weights @ c, rtol=2e-7)


def test_an_optimum_beyond_the_grid_is_not_called_converged() -> None:
    """Nothing of y is left outside K: the optimum is as far as the rest is small."""
    rng = np.random.default_rng(0)
    space = space_of(SPECTRA["low"], rng)
    refitter = make_refitter(space, rng.standard_normal(space.k), 1e-80, reml=True)
    fit = refitter.fit(rng.standard_normal((3, space.k)), np.ones(3), np.zeros(3))
    assert not fit.converged.any()
    np.testing.assert_allclose(np.log(fit.gamma), refitter.model.grid[-1])


@pytest.mark.parametrize("covariates", [None, ["c0", "c1"]])
@pytest.mark.parametrize("rank", [None, 15])
def test_dense_blocks_go_the_short_way(rank: int | None, covariates: list[str] | None) -> None:
    """One product into the REML space equals sums that are projected and rotated afterwards, as sparse blocks take them."""
    rng = np.random.default_rng(3)
    n, m = 80, 40
    x = rng.binomial(2, 0.3, (n, m)).astype(float)
    x[:, 5], x[:, 6] = 1.0, x[:, 7] + 1e7
    adata = AnnData(x, layers={"sparse": sparse.csr_matrix(x)})
    factor = rng.standard_normal((n, rank or 2 * n))
    al.pp.kernel_precomputed(adata, factor @ factor.T / factor.shape[1], center=rank is None)
    for name in ("c0", "c1", "y0", "y1"):
        adata.obs[name] = rng.standard_normal(n)
    adata.obs["y1"] += factor[:, 0] + 0.5 * x[:, 0]
    al.tl.fit_null(adata, ["y0", "y1"], covariates=covariates)
    tests = (
        ["wald", "lrt", "score"] if rank else ["wald", "score"]
    )  # the full likelihood of a centred kernel has no end
    for layer in (None, "sparse"):
        al.tl.associate(adata, variance="refit", test=tests, layer=layer, key_added=f"by_{layer}")
    fields = [name.removeprefix("by_None") for name in adata.varm if name.startswith("by_None")]
    assert len(fields) > 10
    for field in fields:
        ours, theirs = adata.varm[f"by_None{field}"], adata.varm[f"by_sparse{field}"]
        if ours.dtype == np.float64:
            ours, theirs = np.delete(ours, 6, axis=0), np.delete(theirs, 6, axis=0)  # 1e7 takes seven digits
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-12, err_msg=field)
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=field)
