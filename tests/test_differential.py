"""`al.tl.differential`: lmerTest and pbkrtest, dense matrices, each gene as `fit_null` has it, and its size under the null."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import oracle
import pandas as pd
import pytest
from anndata import AnnData
from helpers import assert_same, messages, relatedness, snapshot, untouched
from scipy import sparse, stats

import annlmm as al
from annlmm._slots.gene_results import names_of
from annlmm.model.basis import DenseBasis, GroupBasis
from annlmm.model.design import make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.responses_tests import joint_df, log_f_sf_joint
from annlmm.model.weights import weigh_basis, weigh_design

FIELDS = names_of("differential")
TESTED = ("beta", "standard_error", "statistic", "df", "p_value")
REFERENCE = Path(__file__).resolve().parent / "reference"


@pytest.fixture
def cells() -> AnnData:
    adata = al.datasets.donors(n_donors=9, cells_per_donor=14, n_genes=24, n_de=4, rng=3)
    adata.X = adata.layers["logcounts"].toarray().astype(np.float64)
    donor = adata.obs["donor_id"].cat.codes.to_numpy()
    adata.obs["stage"] = pd.Categorical(
        np.array(["late", "early", "mid"])[donor % 3], categories=["early", "mid", "late"]
    )
    adata.obs["type"] = np.array(["b", "a", "c", "a"])[np.arange(adata.n_obs) * 7 % 4]
    adata.obs["precision"] = 0.5 + (np.arange(adata.n_obs) * 5 % 7) / 3
    adata.obs["good"] = np.arange(adata.n_obs) % 6 > 0
    al.pp.kernel_group(adata, "donor_id")
    return adata


def dense_kernel(adata: AnnData) -> np.ndarray:
    return oracle.group_kernel(adata.obs["donor_id"].cat.codes.to_numpy())


# ------------------------------------------------------------------------------------------- each gene on its own


def alone(adata: AnnData, genes: np.ndarray, **options) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The fits of `fit_null` and the coefficients of its last covariate, one row per gene."""
    names = [f"y{j}" for j in genes]
    work = AnnData(obs=adata.obs.copy(), uns=dict(adata.uns), obsm=dict(adata.obsm))
    work.obs[names] = adata.X[:, genes]
    al.tl.fit_null(work, names, **options)
    beta = work.uns["lmm"]["beta"].rename(columns={"estimate": "beta"})
    return work.uns["lmm"]["fits"], beta.groupby("phenotype", observed=True).last().loc[names]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("term", ["condition", "batch", "cell_score", "age"])
@pytest.mark.parametrize("covariates", [None, ["type", "total_counts"]])
def test_each_gene_as_fit_null(cells, term, covariates, reml):
    al.tl.differential(cells, term, covariates, reml=reml, mask_obs="good")
    table = al.get.differential(cells)
    fits, expected = alone(cells, np.arange(24), covariates=[*(covariates or []), term], reml=reml, mask_obs="good")
    assert table["status"].tolist() == fits["status"].tolist()
    assert "ok" in set(table["status"])
    np.testing.assert_allclose(table["h_sq"], fits["h_sq"], rtol=1e-8)
    for name in TESTED:
        # β is a difference of donors' means that may be a thousandth of them.
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(10 ** -table["neg_log10_p_value"], table["p_value"], rtol=1e-9)


def test_kernels_of_full_and_low_rank(cells):
    z = np.random.default_rng(0).standard_normal((cells.n_obs, 200))
    al.pp.kernel_precomputed(cells, z @ z.T / 200)
    al.pp.kernel_precomputed(cells, z[:, :12] @ z[:, :12].T / 12, key_added="low")
    for kernel in ("kernel", "low"):
        al.tl.differential(cells, "batch", "cell_score", kernel=kernel)
        table = al.get.differential(cells).iloc[::3]
        _, expected = alone(cells, np.arange(0, 24, 3), covariates=["cell_score", "batch"], kernel=kernel)
        for name in TESTED:
            np.testing.assert_allclose(table[name], expected[name], rtol=1e-7, err_msg=(kernel, name))


def test_without_a_kernel_it_is_least_squares(cells):
    al.tl.differential(cells, "condition", kernel=None)
    table = al.get.differential(cells)
    ill = (cells.obs["condition"] == "disease").to_numpy()
    expected = stats.ttest_ind(cells.X[ill], cells.X[~ill])
    np.testing.assert_allclose(table["statistic"], expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(table["p_value"], expected.pvalue, rtol=1e-8)
    assert (table["df"] == cells.n_obs - 2).all()
    al.tl.differential(cells, "stage", kernel=None, df="kenward-roger")
    groups = [cells.X[cells.obs["stage"] == level] for level in ("early", "mid", "late")]
    expected = stats.f_oneway(*groups)
    table = al.get.differential(cells)
    np.testing.assert_allclose(table["statistic"], expected.statistic, rtol=1e-9)
    np.testing.assert_allclose(table["p_value"], expected.pvalue, rtol=1e-8)


def test_at_h_sq_one_it_is_least_squares_on_k():
    """No residual: β and its standard error are those of V = K, to rounding."""
    rng = np.random.default_rng(0)
    k = oracle.random_kernel(rng, 40)
    x = np.column_stack([np.ones(40), rng.standard_normal(40)])
    adata = AnnData(np.linalg.cholesky(k) @ rng.standard_normal((40, 30)))
    adata.obs["x"] = x[:, 1]
    al.pp.kernel_precomputed(adata, k)
    al.tl.differential(adata, "x")
    at_one = np.flatnonzero(adata.var["de_h_sq"] == 1)
    assert at_one.size > 3
    inverse = np.linalg.inv(k)
    c = np.linalg.inv(x.T @ inverse @ x)
    for j in at_one:
        y = adata.X[:, j]
        beta = c @ x.T @ inverse @ y
        e = y - x @ beta
        # cond(K) is about 1e4 on the dense side.
        assert adata.var["de_beta"].iloc[j] == pytest.approx(beta[1], rel=1e-9)
        se = np.sqrt(e @ inverse @ e / 38 * c[1, 1])
        assert adata.var["de_standard_error"].iloc[j] == pytest.approx(se, rel=1e-9)


def test_levels_contrasts_and_references(cells):
    """Every way to ask for the same comparison."""
    al.tl.differential(cells, "stage")
    levels = al.get.differential(cells, levels=True)
    assert levels["level"].cat.categories.tolist() == ["mid", "late"]
    assert len(levels) == 48
    assert "de_beta" not in cells.var
    assert cells.varm["de_level_beta"].shape == (24, 2)
    joint = al.get.differential(cells)
    assert list(joint) == [name for name in FIELDS if name not in ("beta", "standard_error")]
    late = levels[levels["level"] == "late"]
    for contrast in (("late", "early"), {"late": 1, "early": -1.0}):
        al.tl.differential(cells, "stage", contrast=contrast)
        single = al.get.differential(cells)
        for name in TESTED:
            np.testing.assert_allclose(single[name], late[name], rtol=1e-9, err_msg=name)
    assert "de_level_beta" not in cells.varm  # of the test before
    al.tl.differential(cells, "stage", reference="late", key_added="other")
    turned = al.get.differential(cells, "other", levels=True)
    assert turned["level"].cat.categories.tolist() == ["early", "mid"]
    np.testing.assert_allclose(turned.query("level == 'early'")["beta"], -late["beta"], rtol=1e-8)
    np.testing.assert_allclose(al.get.differential(cells, "other")["statistic"], joint["statistic"], rtol=1e-8)
    al.tl.differential(cells, "stage", contrast={"late": 1, "mid": -0.5, "early": -0.5})
    half = levels["beta"][levels["level"] == "late"] - 0.5 * levels["beta"][levels["level"] == "mid"]
    np.testing.assert_allclose(al.get.differential(cells)["beta"], half, rtol=1e-8)
    al.tl.differential(cells, "condition", contrast=("control", "disease"))
    swapped = al.get.differential(cells)
    al.tl.differential(cells, "condition", reference="control")
    np.testing.assert_allclose(al.get.differential(cells)["beta"], -swapped["beta"], rtol=1e-9)


def test_first_category_is_the_reference(cells):
    al.tl.differential(cells, "stage")
    assert cells.uns["de"]["differential"]["reference"] == "early"  # its order, not the alphabet's
    with messages() as seen:
        al.tl.differential(cells, "type")
    assert any("b, c against a" in line for line in seen)


def test_booleans_are_numbers(cells):
    cells.obs["ill"] = cells.obs["condition"] == "disease"
    al.tl.differential(cells, "condition", key_added="factor")
    al.tl.differential(cells, "ill", key_added="flag")
    for name in TESTED:
        np.testing.assert_allclose(cells.var[f"flag_{name}"], cells.var[f"factor_{name}"], rtol=1e-9)


# ------------------------------------------------------------------------------------------- dense matrices


def naive(y, x, k, precision, columns, theta):
    """Textbook n × n: β̂, Φ, Φ_A and Kenward and Roger's A₁, A₂ for the coefficients `columns`, at θ = (σ², τ²)."""
    parts = [k, np.diag(1 / precision)]
    v_inverse = np.linalg.inv(theta[0] * parts[0] + theta[1] * parts[1])
    phi = np.linalg.inv(x.T @ v_inverse @ x)
    p = v_inverse - v_inverse @ x @ phi @ x.T @ v_inverse
    w = np.linalg.inv([[0.5 * np.trace(p @ a @ p @ b) for b in parts] for a in parts])
    g = [-x.T @ v_inverse @ a @ v_inverse @ x for a in parts]
    q = [[x.T @ v_inverse @ a @ v_inverse @ b @ v_inverse @ x for b in parts] for a in parts]
    inner = sum(w[i, j] * (q[i][j] - g[i] @ phi @ g[j]) for i in range(2) for j in range(2))
    adjusted = phi + 2 * phi @ inner @ phi
    contrast = np.eye(x.shape[1])[columns]
    theta_matrix = contrast.T @ np.linalg.solve(contrast @ phi @ contrast.T, contrast)
    u = [theta_matrix @ phi @ g[i] @ phi for i in range(2)]
    a1 = sum(w[i, j] * np.trace(u[i]) * np.trace(u[j]) for i in range(2) for j in range(2))
    a2 = sum(w[i, j] * np.trace(u[i] @ u[j]) for i in range(2) for j in range(2))
    return phi @ x.T @ v_inverse @ y, phi, adjusted, a1, a2


def kenward_roger_f(a1, a2, q):
    """λ and m as in section 4 of the paper."""
    b, g = (a1 + 6 * a2) / (2 * q), ((q + 1) * a1 - (q + 4) * a2) / ((q + 2) * a2)
    c = np.array([g, q - g, q + 2 - g]) / (3 * q + 2 * (1 - g))
    e = 1 / (1 - a2 / q)
    v = 2 / q * (1 + c[0] * b) / ((1 - c[1] * b) ** 2 * (1 - c[2] * b))
    rho = v / (2 * e**2)
    m = 4 + (q + 2) / (q * rho - 1)
    return m / (e * (m - 2)), m


@pytest.mark.parametrize("weights", [None, "precision"])
@pytest.mark.parametrize("related", [False, True])
def test_kenward_roger_and_weights_against_dense_matrices(cells, related, weights):
    names = list(cells.obs["donor_id"].cat.categories)
    kinship = relatedness(names) if related else None
    al.pp.kernel_group(cells, "donor_id", relatedness=kinship)
    k = al.get.kernel(cells).to_numpy()
    precision = cells.obs["precision"].to_numpy() if weights else np.ones(cells.n_obs)
    x = np.column_stack(
        [np.ones(cells.n_obs), cells.obs["cell_score"], *((cells.obs["stage"] == s) for s in ("mid", "late"))]
    )
    root = np.sqrt(precision)
    options = {"covariates": "cell_score", "weights": weights}
    al.tl.differential(cells, "stage", df="kenward-roger", key_added="kr", **options)
    al.tl.differential(cells, "stage", **options)
    kr, kr_levels = al.get.differential(cells, "kr"), al.get.differential(cells, "kr", levels=True)
    levels, joint = al.get.differential(cells, levels=True), al.get.differential(cells)
    for j in range(0, 24, 4):
        y = cells.X[:, j]
        # The model on rows multiplied by the roots of the weights is the oracle's own.
        fit = oracle.fit(root * y, root[:, None] * x, root[:, None] * k * root)
        theta = fit.sigma_sq, fit.tau_sq
        beta, phi, adjusted, a1, a2 = naive(y, x, k, precision, [2, 3], theta)
        scale, m = kenward_roger_f(a1, a2, 2)
        f = scale * beta[2:] @ np.linalg.solve(adjusted[2:, 2:], beta[2:]) / 2
        # The oracle's Brent on values finds γ to 1e-7 or so.
        assert kr["statistic"].iloc[j] == pytest.approx(f, rel=1e-5)
        assert kr["df"].iloc[j] == pytest.approx(min(m, cells.n_obs - 4), rel=1e-5)
        assert kr["p_value"].iloc[j] == pytest.approx(stats.f.sf(f, 2, min(m, cells.n_obs - 4)), rel=1e-4)
        for column, level in ((2, "mid"), (3, "late")):
            ours = kr_levels[kr_levels["level"] == level].iloc[j]
            single = naive(y, x, k, precision, [column], theta)
            assert ours["beta"] == pytest.approx(beta[column], rel=1e-5)
            assert ours["standard_error"] == pytest.approx(np.sqrt(adjusted[column, column]), rel=1e-5)
            assert ours["df"] == pytest.approx(2 / single[4], rel=1e-5)
            plain = levels[levels["level"] == level].iloc[j]
            assert plain["standard_error"] == pytest.approx(np.sqrt(phi[column, column]), rel=1e-5)
            nu = oracle.satterthwaite(
                root * y,
                root[:, None] * x,
                root[:, None] * k * root,
                np.eye(4)[column],
                *theta,
                expected=fit.gamma == 0,
            )
            assert plain["df"] == pytest.approx(nu, rel=1e-4)
        f = beta[2:] @ np.linalg.solve(phi[2:, 2:], beta[2:]) / 2
        assert joint["statistic"].iloc[j] == pytest.approx(f, rel=1e-5)


def test_weights_of_one_change_nothing_and_of_four_scale(cells):
    al.tl.differential(cells, "condition", "type", key_added="plain")
    plain = al.get.differential(cells, "plain")
    for weight in (1.0, 4.0):
        cells.obs["w"] = weight
        al.tl.differential(cells, "condition", "type", weights="w")
        table = al.get.differential(cells)
        for name in TESTED:
            np.testing.assert_allclose(table[name], plain[name], rtol=1e-7, err_msg=name)
    assert (table["status"] == plain["status"]).all()


def test_weights_leave_groups_low_rank():
    rng = np.random.default_rng(1)
    codes = np.r_[np.arange(6), rng.integers(0, 6, 34)]
    root = np.sqrt(rng.uniform(0.2, 5, 40))
    for related in (None, oracle.random_kernel(rng, 6)):
        basis = weigh_basis(GroupBasis(codes, related), root)
        k = root[:, None] * oracle.group_kernel(codes, related) * root
        u = basis.expand(np.eye(basis.rank))
        np.testing.assert_allclose(u.T @ u, np.eye(basis.rank), atol=1e-13)
        np.testing.assert_allclose((u * basis.eigenvalues) @ u.T, k, atol=1e-12)
        a = rng.standard_normal((40, 3))
        np.testing.assert_allclose(basis.project(a), u.T @ a, atol=1e-13)
        np.testing.assert_allclose(basis.project(sparse.csc_array(a)), u.T @ a, atol=1e-13)
        kept = np.flatnonzero(codes != 2)
        part = basis.restrict(kept)
        u = part.expand(np.eye(part.rank))
        np.testing.assert_allclose((u * part.eigenvalues) @ u.T, k[np.ix_(kept, kept)], atol=1e-12)
    k = oracle.random_kernel(rng, 40, rank=5)
    dense = weigh_basis(DenseBasis(*(lambda s: (s.u, s.eigenvalues))(from_kernel(k))), root)
    assert dense.rank == 5
    np.testing.assert_allclose((dense.u * dense.s) @ dense.u.T, root[:, None] * k * root, atol=1e-12)
    design = make_design(oracle.design(rng, 40, 3))
    assert not weigh_design(design, root).spans_constant


@pytest.mark.parametrize("kind", ["csr", "csc", "float32", "offset", "dask", "backed"])
@pytest.mark.parametrize("weights", [None, "precision"])
def test_kinds_of_matrix(cells, kind, weights, tmp_path):
    al.tl.differential(cells, "condition", "type", weights=weights, key_added="first")
    expected = al.get.differential(cells, "first")
    if kind == "offset":
        cells.X = cells.X + 2.0**20  # of which 32 bits of the values are left
    elif kind == "dask":
        dask = pytest.importorskip("dask.array")
        cells.X = dask.from_array(cells.X, chunks=(17, 7))
    elif kind == "backed":
        cells.X = sparse.csr_matrix(cells.X)
        cells.write_h5ad(tmp_path / "x.h5ad")
        cells = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    else:
        cells.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_array, "float32": lambda x: x.astype(np.float32)}[kind](
            cells.X
        )
    al.tl.differential(cells, "condition", "type", weights=weights)
    table = al.get.differential(cells)
    for name in TESTED:
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-6 if kind == "offset" else 1e-8, err_msg=name)


@pytest.mark.parametrize("kind", ["dense", "fortran", "csr", "csc", "dask"])
@pytest.mark.parametrize("kernel", ["kernel", "low", None])
def test_weights_with_gaps_some_rows_at_a_time(cells, kind, kernel, monkeypatch):
    """As on features that are complete: the mean over the rows used, without weights, is put into the gaps."""
    z = np.random.default_rng(0).standard_normal((cells.n_obs, 12))
    al.pp.kernel_precomputed(cells, z @ z.T / 12, key_added="low")
    gaps = np.random.default_rng(1).uniform(size=cells.shape) < 0.03
    gaps[:, ::2] = False
    kept = cells.obs["good"].to_numpy()
    x = np.where(gaps, np.nan, cells.X)
    options = {"covariates": "type", "kernel": kernel, "weights": "precision", "mask_obs": kept}
    cells.X = np.where(gaps, np.nanmean(x[kept], axis=0), cells.X)
    al.tl.differential(cells, "batch", key_added="whole", **options)
    monkeypatch.setattr(al.settings, "block_memory", 20_000)
    if kind == "dask":
        cells.X = pytest.importorskip("dask.array").from_array(x, chunks=(17, 7))
    else:
        cells.X = {"dense": np.array, "fortran": np.asfortranarray, "csr": sparse.csr_matrix, "csc": sparse.csc_array}[
            kind
        ](x)
    al.tl.differential(cells, "batch", **options)
    table, expected = al.get.differential(cells), al.get.differential(cells, "whole")
    for name in TESTED:
        # Sums in another order; β may be a thousandth of the means that it is a difference of.
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-8, err_msg=name)
    with pytest.raises(ValueError, match="missing values; use missing='mean'"):
        al.tl.differential(cells, "batch", missing="raise", **options)


# ------------------------------------------------------------------------------------------- pieces


def test_tail_of_a_joint_f():
    f, df = np.array([0.0, 0.3, 2.0, 40.0]), np.array([3.0, 8.0, 20.0, 2.5])
    np.testing.assert_allclose(np.exp(log_f_sf_joint(f, 3, df)), stats.f.sf(f, 3, df), rtol=1e-12)
    import mpmath

    mpmath.mp.dps = 50
    far = log_f_sf_joint(np.array([1e5, 500.0]), 4, np.array([300.0, 5000.0]))
    for value, (x, nu) in zip(far, ((1e5, 300.0), (500.0, 5000.0)), strict=True):
        exact = mpmath.log(mpmath.betainc(nu / 2, 2, 0, mpmath.mpf(nu) / (nu + 4 * mpmath.mpf(x)), regularized=True))
        assert value == pytest.approx(float(exact), rel=1e-12)
        assert value < -700


def test_df_of_several_coefficients():
    """lmerTest's get_Fstat_ddf."""
    each = np.array([[5.0, 5.0], [1.5, 8.0], [4.0, 12.0], [1.2, 1.2]])
    e = 4 / 2 + 12 / 10
    np.testing.assert_allclose(joint_df(each), [5.0, 2.0, 2 * e / (e - 2), 1.2])


@pytest.mark.parametrize("weights", [None, "precision"])
def test_moderated_tests_against_dense_matrices(cells, weights):
    """At every node of the prior the likelihood, t and F of n × n matrices; the weights are where EM stands still."""
    options = {"covariates": "cell_score", "weights": weights, "moderate": True}
    al.tl.differential(cells, "stage", key_added="joint", **options)
    al.tl.differential(cells, "stage", contrast=("late", "mid"), **options)
    joint, table = al.get.differential(cells, "joint"), al.get.differential(cells)
    mid = al.get.differential(cells, "joint", levels=True).query("level == 'mid'")
    prior = cells.uns["de"]["differential"]
    gamma, weight = prior["prior_gamma"], prior["prior_weight"]
    assert gamma[0] == 0
    assert weight.sum() == pytest.approx(1)
    np.testing.assert_allclose(weight, cells.uns["joint"]["differential"]["prior_weight"])
    root = np.sqrt(cells.obs["precision"].to_numpy() if weights else np.ones(cells.n_obs))
    x = np.column_stack(
        [np.ones(cells.n_obs), cells.obs["cell_score"], *((cells.obs["stage"] == s) for s in ("mid", "late"))]
    )
    x, k = root[:, None] * x, root[:, None] * dense_kernel(cells) * root
    n_p, posteriors = cells.n_obs - 4, []
    contrasts = np.array([[0, 0, -1, 1], [0, 0, 1, 0]])
    for j in range(24):
        fits = [oracle.log_likelihood(root * cells.X[:, j], x, k, g) for g in gamma]
        log_likelihood = np.array([fit[0] for fit in fits])
        posterior = weight * np.exp(log_likelihood - log_likelihood.max())
        posterior /= posterior.sum()
        posteriors.append(posterior)
        beta = np.array([fit[1] for fit in fits])
        for row, contrast in zip((table.iloc[j], mid.iloc[j]), contrasts, strict=True):
            variance = np.array([contrast @ fit[2] @ contrast for fit in fits])
            p = 2 * stats.t.sf(np.abs(beta @ contrast) / np.sqrt(variance), n_p)
            # The kernels of n × n are inverted to 1e-12 or so, of a p that may be 1e-10.
            assert row["p_value"] == pytest.approx(posterior @ p, rel=1e-6)
            assert row["beta"] == pytest.approx(posterior @ beta @ contrast, rel=1e-6)
            # Moments of 1/v, v ~ (n − p) SE²/χ² over the posterior, by draws of neither: E χ² = n − p, E χ⁴ = (n − p)(n − p + 2).
            first, second = posterior @ (1 / variance), posterior @ (1 / variance**2) * (n_p + 2) / n_p
            assert row["standard_error"] == pytest.approx(first**-0.5, rel=1e-6)
            assert row["df"] == pytest.approx(min(2 * first**2 / (second - first**2), n_p), rel=1e-5)
        f = np.array([b[2:] @ np.linalg.solve(fit[2][2:, 2:], b[2:]) / 2 for b, fit in zip(beta, fits, strict=True)])
        assert joint["p_value"].iloc[j] == pytest.approx(posterior @ stats.f.sf(f, 2, n_p), rel=1e-6)
        assert joint["statistic"].iloc[j] == pytest.approx(posterior @ f, rel=1e-6)
    standing = (np.sum(posteriors, axis=0) + 5 / gamma.size) / (24 + 5)
    np.testing.assert_allclose(standing, weight, atol=2e-6)  # its last step was shorter than 1e-6, or the 300th


def test_moderated_p_values_far_in_the_tail(cells):
    ill = (cells.obs["condition"] == "disease").to_numpy()
    batch = (cells.obs["batch"] == "batch_2").to_numpy()
    cells.X[:, 0] = 1e5 * batch + np.random.default_rng(1).standard_normal(cells.n_obs) + 3.0 * ill
    cells.X[:, 1] = 0.0
    al.tl.differential(cells, "batch", moderate=True)
    table = al.get.differential(cells)
    assert table["neg_log10_p_value"].iloc[0] > 300
    assert np.isfinite(table["neg_log10_p_value"].iloc[0])
    assert table["status"].iloc[1] == "constant"
    assert np.isnan(table["p_value"].iloc[1])


# ------------------------------------------------------------------------------------------- size


def null_genes(n_donors: int, icc: float, m: int, seed: int) -> AnnData:
    """Unequal donors, a condition of the donors without an effect."""
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(n_donors), rng.integers(5, 60, n_donors))
    y = np.sqrt(icc) * rng.standard_normal((n_donors, m))[donor] + np.sqrt(1 - icc) * rng.standard_normal(
        (donor.size, m)
    )
    adata = AnnData(y)
    adata.obs["donor"], adata.obs["ill"] = donor.astype(str), donor % 2 == 0
    al.pp.kernel_group(adata, "donor")
    return adata


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger"])
@pytest.mark.parametrize(("n_donors", "icc"), [(8, 0.0), (8, 0.05), (8, 0.3), (20, 0.1)])
def test_size_for_a_condition_of_the_donors(n_donors, icc, df):
    """4000 null genes: not above nominal beyond 4 binomial standard errors; from an ICC of 0.05 on not far below either."""
    adata = null_genes(n_donors, icc, 4000, seed=n_donors)
    al.tl.differential(adata, "ill", df=df)
    p = adata.var["de_p_value"].to_numpy()
    for level in (0.05, 0.01, 0.001):
        error = 4 * np.sqrt(level * (1 - level) / 4000)
        size = (p < level).mean()
        assert size < level + error
        if icc >= 0.1:
            assert size > level - error


def test_residual_degrees_of_freedom_have_several_times_the_size():
    adata = null_genes(8, 0.3, 2000, seed=8)
    al.tl.differential(adata, "ill", df="residual")
    assert (adata.var["de_p_value"] < 0.001).mean() > 0.005
    assert (adata.var["de_df"] == adata.n_obs - 2).all()
    al.tl.differential(adata, "ill", kernel=None)
    assert (adata.var["de_p_value"] < 0.001).mean() > 0.1


@pytest.mark.parametrize("icc", [0.0, 0.05, 0.3])
def test_moderation_has_the_nominal_size_and_gains_power(icc):
    """6 donors, 4000 genes, an effect in 200: the size is nominal from both sides, at σ² = 0 too."""
    adata = null_genes(6, icc, 4200, seed=5)
    adata.X[:, :200] += (0.4 + 3 * icc) * adata.obs["ill"].to_numpy()[:, None]
    power = {}
    for moderate in (False, True):
        al.tl.differential(adata, "ill", moderate=moderate)
        p = adata.var["de_p_value"].to_numpy()
        power[moderate] = (p[:200] < 0.01).mean()
    for level in (0.05, 0.01, 0.001):
        size = (p[200:] < level).mean()
        # 4 binomial standard errors, and the error of a prior from 4000 genes that share one γ: a tenth of the level.
        assert abs(size - level) < 4 * np.sqrt(level * (1 - level) / 4000) + 0.1 * level, level
    assert power[True] > power[False] + 0.1


def test_moderation_leaves_genes_that_are_all_donors():
    """One gene in twenty is nearly constant within donors: among these, too, the size is nominal.

    A gene beyond the last node of the prior would be tested at a γ far too low: at h² = 0.99 in four of five.
    """
    rng = np.random.default_rng(11)
    adata = null_genes(12, 0.05, 4000, seed=12)
    donor = adata.obs["donor"].astype(int).to_numpy()
    few = slice(0, 200)
    adata.X[:, few] = np.sqrt(0.99) * rng.standard_normal((12, 200))[donor] + 0.1 * adata.X[:, few]
    al.tl.differential(adata, "ill", moderate=True)
    p = adata.var["de_p_value"].to_numpy()
    # 4 binomial standard errors of 200
    assert (p[few] < 0.05).mean() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200)
    assert abs((p[200:] < 0.05).mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 3800) + 0.005


def test_moderation_of_genes_that_differ():
    """Half of the genes without variance between donors, the others with an ICC of Beta(1, 9)."""
    rng = np.random.default_rng(7)
    icc = rng.beta(1, 9, 4000) * (rng.uniform(size=4000) < 0.5)
    adata = null_genes(8, 0.0, 4000, seed=8)
    donor = adata.obs["donor"].astype(int).to_numpy()
    adata.X = np.sqrt(icc) * rng.standard_normal((8, 4000))[donor] + np.sqrt(1 - icc) * adata.X
    al.tl.differential(adata, "ill", moderate=True)
    for level in (0.05, 0.01, 0.001):
        size = (adata.var["de_p_value"] < level).mean()
        assert abs(size - level) < 4 * np.sqrt(level * (1 - level) / 4000) + 0.1 * level, level


# ------------------------------------------------------------------------------------------- writing, reading, errors


def test_bad_genes_never_stop_the_others(cells):
    al.tl.differential(cells, "condition", "batch", key_added="before")
    before = al.get.differential(cells, "before")
    cells.X[:, 0], cells.X[:, 1], cells.X[:, 2] = 0.0, 3.0, np.nan
    cells.X[:, 3] = (cells.obs["batch"] == "batch_2") * 2.0 + 1.0
    cells.X[:, 4] = (cells.obs["condition"] == "disease") * 2.0
    cells.X[:, 5] = cells.obs["donor_id"].cat.codes ** 2
    for weights in (None, "ones"):
        cells.obs["ones"] = 1.0
        al.tl.differential(cells, "condition", "batch", mask_var=np.arange(24) != 6, weights=weights)
        table = al.get.differential(cells)
        expected = ["constant", "constant", "all_missing", "collinear", "collinear", "not_converged", "masked"]
        assert table["status"][:7].tolist() == expected
        assert table[list(FIELDS[:-1])][:7].isna().all(axis=None)
        for name in TESTED:
            np.testing.assert_allclose(table[name][7:], before[name][7:], rtol=1e-8)


def test_missing_rows_are_left_out(cells):
    gone = np.arange(cells.n_obs) % 11 == 0
    for name in ("condition", "age", "precision"):
        part = cells.copy()
        part.obs[name] = part.obs[name].where(~gone)
        al.tl.differential(part, "condition", "age", weights="precision")
        al.tl.differential(cells, "condition", "age", weights="precision", mask_obs=~gone)
        np.testing.assert_allclose(part.var["de_p_value"], cells.var["de_p_value"], rtol=1e-10)
        assert part.uns["de"]["differential"]["n_obs"] == (~gone).sum()


@pytest.mark.parametrize("term", ["condition", "stage"])
def test_exactly_the_fields_of_the_schema(cells, term):
    before = snapshot(cells)
    al.tl.differential(cells, term)
    after = snapshot(cells)
    single = term == "condition"
    expected = {f"de_{n}" for n in FIELDS if single or n not in ("beta", "standard_error")}
    assert set(after["var"]) - set(before["var"]) == expected
    assert set(after["varm"]) == (set() if single else {f"de_{n}" for n in names_of("differential", "varm")})
    assert set(after["uns"]["de"]) == {"differential", "schema_version"} | (set() if single else {"levels"})
    for slot in ("X", "obs", "obsm", "layers"):
        assert_same(after[slot], before[slot])


def test_copy_and_view(cells):
    with untouched(cells):
        copy = al.tl.differential(cells, "condition", copy=True)
        view = cells[:, 3:9]
        al.tl.differential(view, "condition")
    np.testing.assert_allclose(copy.var["de_p_value"][3:9], view.var["de_p_value"], rtol=1e-9)


@pytest.mark.parametrize("fmt", ["h5ad", "zarr"])
@pytest.mark.parametrize("moderate", [False, True])
def test_round_trip(cells, tmp_path, fmt, moderate):
    al.tl.differential(cells, "stage", moderate=moderate, contrast=None)
    path = tmp_path / f"x.{fmt}"
    getattr(cells, f"write_{fmt}")(path)
    read = getattr(ad, f"read_{fmt}")(path)
    for levels in (False, True):
        now, then = al.get.differential(read, levels=levels), al.get.differential(cells, levels=levels)
        pd.testing.assert_frame_equal(now, then, check_exact=True, check_index_type=False)


@pytest.mark.parametrize(
    ("term", "options", "error", "message"),
    [
        ("conditions", {}, KeyError, "did you mean 'condition'"),
        ("~ condition", {}, KeyError, "formulas go into covariates"),
        (["condition"], {}, TypeError, "term: must be the name"),
        ("condition", {"covariates": "~ condition + age"}, ValueError, "'condition' is the term that is tested"),
        ("condition", {"covariates": "twin"}, ValueError, "effect cannot be told from that of the covariates.*'twin'"),
        ("condition", {"covariates": "donor_id"}, ValueError, "effect cannot be told from that of the covariates"),
        ("donor_id", {}, ValueError, "leaves nothing of 'kernel' .*a value of its own for every group"),
        ("condition", {"mask_obs": "two"}, ValueError, "leaves nothing of 'kernel'"),
        ("batch", {"mask_obs": "first"}, ValueError, "one group on the"),
        ("batch", {"mask_obs": "singles"}, ValueError, "cannot be told from the residual"),
        ("condition", {"mask_obs": "first"}, ValueError, "has one level"),
        ("age", {"mask_obs": "first"}, ValueError, "there is nothing to compare"),
        ("barcode", {}, ValueError, "is it an identifier"),
        ("endless", {}, ValueError, "infinite values"),
        ("condition", {"reference": "sick"}, ValueError, "reference='sick': not a level"),
        ("age", {"reference": "20"}, ValueError, "is a number, which has no levels"),
        ("stage", {"contrast": ("late", "erly")}, ValueError, "did you mean 'early'"),
        ("stage", {"contrast": {"late": 1, "mid": 1}}, ValueError, "must add to zero"),
        ("stage", {"contrast": {"late": "1", "mid": -1}}, TypeError, "finite numbers"),
        ("stage", {"contrast": ("late", "late")}, ValueError, "all weights of 'stage' are zero"),
        ("stage", {"contrast": "late"}, TypeError, "a pair of levels"),
        ("age", {"contrast": ("a", "b")}, ValueError, "is a number"),
        ("condition", {"covariates": "~ 0 + age"}, ValueError, "without an intercept"),
        ("condition", {"df": "kr"}, ValueError, "df: must be one of"),
        ("condition", {"df": "kenward-roger", "reml": False}, ValueError, "use reml=True"),
        ("condition", {"weights": "weight"}, KeyError, "weights='weight'"),
        ("condition", {"weights": 2.0}, TypeError, "weights: must be the name"),
        ("condition", {"weights": "negative"}, ValueError, "1 values are zero, negative or infinite"),
        ("condition", {"weights": "type"}, TypeError, "must be numeric"),
        ("condition", {"moderate": "yes"}, TypeError, "moderate: must be True or False"),
        ("condition", {"moderate": True, "df": "kenward-roger"}, ValueError, "leave df and reml as they are"),
        ("condition", {"moderate": True, "reml": False}, ValueError, "leave df and reml as they are"),
        ("condition", {"moderate": True, "kernel": None}, ValueError, "name a kernel"),
        ("condition", {"kernel": "other"}, KeyError, "kernel='other'"),
        ("condition", {"key_added": "kernel"}, ValueError, "holds a kernel"),
        ("condition", {"layer": "raw"}, KeyError, "layer='raw'"),
        ("condition", {"missing": "drop"}, ValueError, "missing: must be one of"),
    ],
)
def test_errors_say_what_to_do(cells, term, options, error, message):
    donor = cells.obs["donor_id"].cat.codes.to_numpy()
    cells.obs["twin"] = (cells.obs["condition"] == "disease").astype(float)
    cells.obs["first"], cells.obs["two"] = donor == 0, donor < 2
    cells.obs["singles"] = ~cells.obs["donor_id"].duplicated()
    cells.obs["barcode"] = cells.obs_names
    cells.obs["endless"] = np.where(donor == 0, np.inf, 1.0)
    cells.obs["negative"] = np.where(np.arange(cells.n_obs) == 3, -1.0, 1.0)
    with untouched(cells), pytest.raises(error, match=message):
        al.tl.differential(cells, term, **options)


def test_nothing_there(cells):
    with pytest.raises(KeyError, match="run al.tl.differential"):
        al.get.differential(cells)
    al.tl.differential(cells, "condition")
    with pytest.raises(ValueError, match="levels=True"):
        al.get.differential(cells, levels=True)
    with pytest.raises(KeyError, match="no result of al.tl.variance_components"):
        al.get.variance_components(cells, "de")
    with untouched(cells), pytest.raises(ValueError, match="holds results of differential"):
        al.tl.variance_components(cells, key_added="de")


# ------------------------------------------------------------------------------------------- lmerTest and pbkrtest

TABLES = {
    "sleepstudy": ("sleepstudy", "Reaction", "Days", None, "Subject"),
    "sleepstudy_thin": ("sleepstudy", "Reaction", "Days", None, "Subject"),
    "sleepstudy_weights": ("sleepstudy", "Reaction", "Days", None, "Subject"),
    "machines": ("machines", "score", "Machine", None, "Worker"),
    "machines_thin": ("machines", "score", "Machine", None, "Worker"),
    "machines_weights": ("machines", "score", "Machine", None, "Worker"),
    "female": ("orthodont", "distance", "age", None, "Subject"),
    "orthodont": ("orthodont", "distance", "Sex", "age", "Subject"),
    "orthodont_thin": ("orthodont", "distance", "Sex", "age", "Subject"),
    "ergostool": ("ergostool", "effort", "Type", None, "Subject"),
}
THIN = {"sleepstudy_thin": 7, "machines_thin": 5, "orthodont_thin": 7}
# lmerTest's Hessian is a finite difference; at the optimum of bobyqa (θ to 1e-6).
SLACK = 1e-4


def table_as_gene(folder: Path, name: str) -> AnnData:
    file, response, _, _, groups = TABLES[name]
    table = pd.read_csv(folder / "classic_lme" / f"{file}.csv")
    if name == "female":
        table = table[table["Sex"] == "Female"]
    if name in THIN:
        table = table[np.arange(len(table)) % THIN[name] != 0]
    if name == "sleepstudy_weights":
        table["w"] = 0.5 + table["Days"] / 4
    if name == "machines_weights":
        table["w"] = 1.0 + np.arange(1, len(table) + 1) % 4
    adata = AnnData(table[[response]].to_numpy(), obs=table.drop(columns=response).set_axis(table.index.astype(str)))
    al.pp.kernel_group(adata, groups)
    return adata


def assert_row(ours, expected, *, kr: bool) -> None:
    prefix = "kr_" if kr else ""
    assert ours["beta"] == pytest.approx(expected["estimate"], rel=1e-5)
    assert ours["standard_error"] == pytest.approx(expected[f"{prefix}standard_error"], rel=1e-5)
    assert ours["df"] == pytest.approx(expected[f"{prefix}df"], rel=SLACK)
    assert ours["statistic"] == pytest.approx(expected[f"{prefix}t"], rel=1e-5)
    # In the tail p follows df and t by their errors times −log p.
    assert np.log(ours["p_value"]) == pytest.approx(np.log(expected[f"{prefix}p_value"]), rel=SLACK)


CASES = [
    *(
        (name, True, df)
        for name in TABLES
        for df in ("satterthwaite", "kenward-roger")
        if not (df[0] == "k" and "weights" in name)
    ),
    ("sleepstudy", False, "satterthwaite"),
    ("machines", False, "satterthwaite"),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "reml", "df"), CASES)
def test_tables_of_lme4(realdata_dir, name, reml, df):
    _, _, term, covariates, _ = TABLES[name]
    adata = table_as_gene(realdata_dir, name)
    options = {"df": df, "reml": reml, "weights": "w" if "weights" in name else None}
    al.tl.differential(adata, term, covariates, **options)
    rows = pd.read_csv(REFERENCE / "genes_terms.csv").query("name == @name and reml == @reml").set_index("term")
    joint = pd.read_csv(REFERENCE / "genes_tests.csv").query("name == @name and reml == @reml").iloc[0]
    kr, table = df == "kenward-roger", al.get.differential(adata).iloc[0]
    if "levels" not in adata.uns["de"]:
        levels = adata.obs[term].dtype == object or str(adata.obs[term].dtype) in ("str", "string", "category")
        assert_row(table, rows.loc[f"{term}Male" if levels else term], kr=kr)
        return
    assert adata.uns["de"]["differential"]["numerator_df"] == joint["num_df"]
    assert table["statistic"] == pytest.approx(joint["kr_f" if kr else "f"], rel=1e-5)
    assert table["df"] == pytest.approx(joint["kr_df" if kr else "df"], rel=SLACK)
    assert np.log(table["p_value"]) == pytest.approx(np.log(joint["kr_p_value" if kr else "p_value"]), rel=SLACK)
    for _, level in al.get.differential(adata, levels=True).iterrows():
        assert_row(level, rows.loc[f"{term}{level['level']}"], kr=kr)
    if "contrast" in rows.index:
        al.tl.differential(adata, term, covariates, contrast={"C": 1, "B": -0.5, "A": -0.5}, **options)
        assert_row(al.get.differential(adata).iloc[0], rows.loc["contrast"], kr=kr)


@pytest.mark.realdata
@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger"])
def test_small_airway_genes(realdata_dir, df):
    """A knock-out in 3 of 7 pigs, 1222 cells: 5 degrees of freedom."""
    folder = realdata_dir / "sc_small_airway"
    expected = pd.read_csv(REFERENCE / "genes_terms.csv").query("term == 'knock_outCFTRKO'").set_index("name")
    adata = ad.read_h5ad(folder / "small_airway.h5ad")
    adata = adata[adata.obs["celltype"] == "Secretory cell", expected.index].copy()
    adata.X = adata.X.astype(np.float64).multiply(1e4 / adata.obs["nCount_RNA"].to_numpy()[:, None]).tocsr().log1p()
    al.pp.kernel_group(adata, "orig.ident")
    al.tl.differential(adata, "Genotype", reference="WT", df=df)
    table = al.get.differential(adata)
    assert len(table) == 12
    for gene, row in table.iterrows():
        assert_row(row, expected.loc[gene], kr=df == "kenward-roger")
    gemma = pd.read_csv(folder / "reference_gemma_0.98.5.tsv", sep="\t", index_col="gene").loc[table.index]
    if df == "satterthwaite":  # an independent dense fit, whose search on values leaves 5e-7 in log γ
        np.testing.assert_allclose(table["beta"], gemma["chk_beta1"], rtol=1e-7)
        np.testing.assert_allclose(table["standard_error"], gemma["chk_se1"], rtol=1e-6)


def test_counts_are_told():
    """Whole numbers as responses: the transform was probably forgotten."""
    adata = al.datasets.donors(n_donors=6, n_genes=20)
    al.pp.kernel_group(adata, "donor_id")
    for call in (
        lambda **o: al.tl.differential(adata, "condition", **o),
        lambda **o: al.tl.variance_components(adata, **o),
    ):
        with messages("warning") as seen:
            call(layer="logcounts")
        assert not any("look like counts" in line for line in seen)
        with messages("warning") as seen:
            call()
        assert any("the features look like counts (whole numbers from 0 to" in line for line in seen)


def test_normalised_counts_without_logarithms_are_told():
    adata = al.datasets.donors(n_donors=6, n_genes=20)
    al.pp.kernel_group(adata, "donor_id")
    adata.layers["normalised"] = np.expm1(
        np.asarray(sparse.csr_array(adata.layers["logcounts"]).toarray(), dtype=float)
    )
    for layer in ("normalised", "sparse"):
        if layer == "sparse":
            adata.layers[layer] = sparse.csr_matrix(adata.layers["normalised"])
        with messages("warning") as seen:
            al.tl.differential(adata, "condition", layer=layer)
        assert any("look like normalised counts without logarithms" in line for line in seen)


@pytest.mark.parametrize("as_stored", [np.asarray, sparse.csr_matrix])
def test_filled_values_are_told(as_stored):
    """A mean in place of a response draws effects towards 0: never in silence."""
    adata = al.datasets.donors(n_donors=6, n_genes=20)
    al.pp.kernel_group(adata, "donor_id")
    x = sparse.csr_array(adata.layers["logcounts"]).toarray()
    x[::2, :3] = np.nan
    x[:, 5] = np.nan
    adata.layers["gaps"] = as_stored(x)
    for call in (
        lambda: al.tl.differential(adata, "condition", layer="gaps"),
        lambda: al.tl.variance_components(adata, layer="gaps"),
    ):
        with messages("warning") as seen:
            call()
        assert any("3 of 20 features have missing values, which are filled" in line for line in seen)
    with messages("warning") as seen:
        al.tl.differential(adata, "condition", layer="logcounts")
    assert not any("missing values" in line for line in seen)


def test_a_term_that_may_stand_for_groups_is_told():
    adata = al.datasets.donors(n_donors=6, n_genes=20)
    al.pp.kernel_group(adata, "donor_id")
    donors = adata.obs["donor_id"].cat.codes
    adata.obs["cluster"] = (np.arange(adata.n_obs) % 3).astype(int)
    adata.obs["arm"] = np.where(donors < 2, "nan", np.where(donors < 4, "a", "b"))
    for term, options, line in (
        ("cluster", {}, "'cluster' is a number with 3 whole values and is tested as a slope"),
        ("arm", {}, "'nan' is a level of 'arm' like the others"),
        ("arm", {"reference": "a", "contrast": ("b", "a")}, "reference='a' does not change what is tested"),
    ):
        with messages("warning") as seen:
            al.tl.differential(adata, term, layer="logcounts", **options)
        assert any(line in text for text in seen)
    with messages("warning") as seen:
        al.tl.differential(adata, "condition", layer="logcounts")
        al.tl.differential(adata, "age", layer="logcounts")
    assert not seen
