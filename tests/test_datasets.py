"""The simulations do what their truth says: judged by a naive dense oracle, not by the package."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, sparse, stats

from annlmm.datasets import donors, gwas_cohort, spatial

# ------------------------------------------------------------------------------------------- a naive dense oracle


def dense_reml(y: np.ndarray, x: np.ndarray, k: np.ndarray) -> tuple[float, np.ndarray]:
    """h² and Cholesky factor of V/ω² by brute force on y ~ N(Xβ, ω²((1 − h)I + hK))."""
    n = len(y)

    def covariance(h: float) -> np.ndarray:
        return (1 - h) * np.eye(n) + h * k

    def objective(h: float) -> float:
        root = np.linalg.cholesky(covariance(h))
        a, b = np.linalg.solve(root, x), np.linalg.solve(root, y)
        q, r = np.linalg.qr(a)
        rss = float(b @ b - (q.T @ b) @ (q.T @ b))
        logdet = np.log(np.diag(root)).sum() + np.log(np.abs(np.diag(r))).sum()
        return float(0.5 * (n - x.shape[1]) * np.log(rss) + logdet)

    h = float(optimize.minimize_scalar(objective, bounds=(0, 0.99), method="bounded", options={"xatol": 1e-4}).x)
    return h, np.linalg.cholesky(covariance(h))


def scan(y: np.ndarray, x: np.ndarray, a: np.ndarray, root: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """β and Wald p-value of each column of `a` after whitening with `root` (None: ordinary least squares)."""
    if root is not None:
        y, x, a = (np.linalg.solve(root, part) for part in (y, x, a))
    q = np.linalg.qr(x)[0]
    y, a = y - q @ (q.T @ y), a - q @ (q.T @ a)
    r_sq = (a.T @ y) ** 2 / ((a**2).sum(axis=0) * (y @ y))
    df = len(y) - x.shape[1] - 1
    return (a.T @ y) / (a**2).sum(axis=0), stats.f.sf(df * r_sq / (1 - r_sq), 1, df)


def inflation(p: np.ndarray) -> float:
    return float(np.median(stats.chi2.isf(p, 1)) / stats.chi2.ppf(0.5, 1))


def grm(dosages: np.ndarray) -> np.ndarray:
    z = (dosages - dosages.mean(axis=0)) / dosages.std(axis=0)
    return z @ z.T / dosages.shape[1]


def design(adata: ad.AnnData) -> np.ndarray:
    return np.column_stack([np.ones(adata.n_obs), adata.obs["age"], adata.obs["sex"] == "male"]).astype(float)


# -------------------------------------------------------------------------------------------------------- all functions

SMALL: list[tuple[Callable[..., ad.AnnData], dict[str, Any]]] = [
    (gwas_cohort, {"n_obs": 40, "n_vars": 60, "missing": 0.1}),
    (gwas_cohort, {"n_obs": 40, "n_vars": 60, "h_sq": 0}),
    (donors, {"n_donors": 5, "cells_per_donor": 8, "n_genes": 12, "n_de": 3}),
    (donors, {"n_donors": 5, "cells_per_donor": 8, "n_genes": 12, "n_de": 0}),
    (spatial, {"n_obs": 40, "n_genes": 12, "n_spatial": 6}),
    (spatial, {"n_obs": 40, "n_genes": 12, "n_spatial": 0}),
]


def assert_same(left: ad.AnnData, right: ad.AnnData) -> None:
    """Equal values; string types and index types may differ between the stacks."""
    assert left.obsm.keys() == right.obsm.keys()
    for key in left.obsm:
        np.testing.assert_array_equal(left.obsm[key], right.obsm[key])
    for a, b in [(left.X, right.X), *((left.layers[key], right.layers[key]) for key in left.layers)]:
        assert sparse.issparse(a) == sparse.issparse(b)
        a, b = (part.toarray() if sparse.issparse(part) else np.asarray(part) for part in (a, b))
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_array_equal(a, b)
    assert left.layers.keys() == right.layers.keys()
    for a, b in ((left.obs, right.obs), (left.var, right.var)):
        assert list(a.columns) == list(b.columns)
        assert a.index.tolist() == b.index.tolist()
        for column in a:
            np.testing.assert_array_equal(a[column].to_numpy(), b[column].to_numpy(), err_msg=column)
            assert isinstance(a[column].dtype, pd.CategoricalDtype) == isinstance(b[column].dtype, pd.CategoricalDtype)
            if isinstance(a[column].dtype, pd.CategoricalDtype):
                assert a[column].cat.categories.tolist() == b[column].cat.categories.tolist()
            else:
                assert a[column].dtype == b[column].dtype
    assert left.uns["truth"].keys() == right.uns["truth"].keys()
    for key, value in left.uns["truth"].items():
        assert np.shape(value) == np.shape(right.uns["truth"][key]), key
        np.testing.assert_array_equal(value, right.uns["truth"][key], err_msg=key)


@pytest.mark.parametrize(("simulate", "arguments"), SMALL)
def test_same_seed_same_data(simulate, arguments):
    first = simulate(**arguments, rng=3)
    assert_same(first, simulate(**arguments, rng=3))
    assert_same(first, simulate(**arguments, rng=np.int64(3)))
    assert_same(first, simulate(**arguments, rng=np.random.default_rng(3)))
    with pytest.raises(AssertionError):
        assert_same(first, simulate(**arguments, rng=4))
    rng = np.random.default_rng(3)
    simulate(**arguments, rng=rng)
    assert rng.random() != np.random.default_rng(3).random(), "a Generator is advanced"


@pytest.mark.parametrize(("simulate", "arguments"), SMALL)
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_survives_writing(tmp_path, simulate, arguments, form):
    adata = simulate(**arguments)
    getattr(adata, f"write_{form}")(tmp_path / f"x.{form}")
    back = getattr(ad, f"read_{form}")(tmp_path / f"x.{form}")
    assert_same(simulate(**arguments), back)
    assert_same(simulate(**arguments), adata)


@pytest.mark.parametrize("simulate", [gwas_cohort, donors, spatial])
@pytest.mark.parametrize(
    ("rng", "error", "message"),
    [
        (None, TypeError, "`rng` must be an integer or a numpy Generator, got None (NoneType)"),
        (True, TypeError, "`rng` must be an integer or a numpy Generator, got True (bool)"),
        (1.0, TypeError, "`rng` must be an integer or a numpy Generator, got 1.0 (float)"),
        (np.random.RandomState(0), TypeError, "`rng` must be an integer or a numpy Generator"),
        (-1, ValueError, "`rng` must be a non-negative integer or a numpy Generator, got -1"),
    ],
)
def test_rng_is_checked(simulate, rng, error, message):
    with pytest.raises(error, match=re.escape(message)):
        simulate(rng=rng)


# ------------------------------------------------------------------------------------------------------ gwas_cohort


def test_cohort_fields():
    adata = gwas_cohort()
    assert adata.shape == (500, 2000)
    assert adata.X.dtype == np.float32
    assert set(np.unique(adata.X)) == {0, 1, 2}
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert adata.obs["sex"].cat.categories.tolist() == ["female", "male"]
    assert adata.obs["age"].between(20, 80).all()
    assert adata.obs["population"].value_counts().tolist() == [100] * 5
    assert adata.obs["family"].value_counts().max() == 3
    assert (adata.obs.groupby("family", observed=True)["population"].nunique() == 1).all()
    assert adata.var["chrom"].cat.categories.tolist() == list("12345")
    assert adata.var["chrom"].value_counts().tolist() == [400] * 5
    assert adata.var["pos"].dtype == np.int64
    assert adata.var.groupby("chrom", observed=True)["pos"].is_monotonic_increasing.all()
    assert (adata.var["a0"] != adata.var["a1"]).all()
    frequency = adata.X.mean(axis=0) / 2
    assert np.minimum(frequency, 1 - frequency).min() > 0.01, "the GRM keeps every variant by default"


def test_cohort_truth_is_what_was_simulated():
    adata = gwas_cohort()
    truth = adata.uns["truth"]
    assert (truth["h_sq"], truth["sigma_sq"], truth["tau_sq"]) == (0.5, 0.5, 0.5)
    causal = adata.var_names[adata.var["causal"]]
    assert causal.tolist() == truth["causal_variants"].tolist()
    assert adata.var.loc[causal, "chrom"].is_unique, "spread over the chromosomes"
    np.testing.assert_array_equal(adata.var.loc[causal, "true_effect"], truth["causal_effects"])
    x = adata.to_df()[causal].to_numpy(dtype=float)
    # Each strong variant explains its share exactly: sums of integers, so only the root and the square round.
    np.testing.assert_allclose((x * truth["causal_effects"]).var(axis=0), truth["causal_variance"], rtol=1e-12)
    np.testing.assert_allclose(truth["causal_variance"], 0.1)
    assert truth["sigma_sq_background"] == pytest.approx(0.2)
    # What remains after covariates and genetic values is noise with variance tau_sq, independent of everything.
    fixed = design(adata) @ truth["beta"]
    assert truth["beta_terms"].tolist() == ["Intercept", "age", "C(sex)[T.male]"]
    genetic = (adata.X - adata.X.mean(axis=0, dtype=float)) @ adata.var["true_effect"].to_numpy()
    noise = adata.obs["phenotype"].to_numpy() - fixed - genetic
    assert stats.kstest(noise, stats.norm(scale=np.sqrt(0.5)).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(noise, genetic)[0, 1]) < 4 / np.sqrt(500)
    scaled = (adata.var["true_effect"] * adata.X.std(axis=0, dtype=float))[~adata.var["causal"]]
    assert stats.kstest(scaled, stats.norm(scale=np.sqrt(0.2 / 1997)).cdf).pvalue > 1e-3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cohort_is_a_showcase(seed):
    adata = gwas_cohort(rng=seed)
    y, x, a = adata.obs["phenotype"].to_numpy(), design(adata), adata.X.astype(float)
    truth, causal = adata.uns["truth"], adata.var["causal"].to_numpy()
    h_sq, root = dense_reml(y, x, grm(a))
    # The standard error of h² is 0.08 here.
    assert abs(h_sq - truth["h_sq"]) < 0.25
    beta, p = scan(y, x, a, root)
    p_ols = scan(y, x, a, None)[1]
    assert set(np.argsort(p)[: causal.sum()]) == set(np.flatnonzero(causal)), "the top hits are the causal variants"
    assert (p[causal] < 0.05 / adata.n_vars).all()
    assert (p[~causal] > 0.05 / adata.n_vars).all()
    # A standard error is 0.06 to 0.1.
    np.testing.assert_allclose(beta[causal], truth["causal_effects"], atol=0.3)
    assert 0.85 < inflation(p) < 1.1
    assert inflation(p_ols) > 1.2


def test_cohort_structure():
    drifted = gwas_cohort(n_populations=4, fst=0.2, family_size=1, n_obs=400)
    p = np.array(
        [
            drifted.X[drifted.obs["population"] == name].mean(axis=0) / 2
            for name in drifted.obs["population"].cat.categories
        ]
    )
    # Hudson's estimator, a ratio of averages over 2000 variants: its standard error is near 0.003.
    within = (p * (1 - p)).mean(axis=0) * 200 / 199
    between = np.mean([p[i] * (1 - p[j]) + p[j] * (1 - p[i]) for i in range(4) for j in range(4) if i != j], axis=0)
    assert 1 - 2 * within.mean() / between.mean() == pytest.approx(0.2, abs=0.02)
    assert drifted.obs["family"].is_unique

    siblings = gwas_cohort(n_populations=1, fst=0.0, family_size=2, n_obs=200)
    z = (siblings.X - siblings.X.mean(axis=0)) / siblings.X.std(axis=0)
    k = z @ z.T / siblings.n_vars
    pairs = np.arange(0, 200, 2)
    assert k[pairs, pairs + 1].mean() == pytest.approx(0.5, abs=0.02)
    assert k[pairs[:-1], pairs[1:]].mean() == pytest.approx(0, abs=0.02)


def test_cohort_missing():
    complete, holed = gwas_cohort(), gwas_cohort(missing=0.05)
    missing = np.isnan(holed.X)
    # Binomial with a million calls: four standard errors.
    assert missing.mean() == pytest.approx(0.05, abs=1e-3)
    np.testing.assert_array_equal(holed.X[~missing], complete.X[~missing])
    np.testing.assert_array_equal(holed.obs["phenotype"], complete.obs["phenotype"])


@pytest.mark.parametrize("h_sq", [0.0, 1.0])
def test_cohort_extremes(h_sq):
    adata = gwas_cohort(n_obs=200, n_vars=300, h_sq=h_sq)
    truth = adata.uns["truth"]
    assert (truth["h_sq"], truth["tau_sq"]) == (h_sq, 1 - h_sq)
    genetic = (adata.X - adata.X.mean(axis=0, dtype=float)) @ adata.var["true_effect"].to_numpy()
    rest = adata.obs["phenotype"].to_numpy() - design(adata) @ truth["beta"] - genetic
    if h_sq == 0:
        assert len(truth["causal_variants"]) == len(truth["causal_effects"]) == len(truth["causal_variance"]) == 0
        assert not adata.var["causal"].any()
        assert (adata.var["true_effect"] == 0).all()
    else:
        np.testing.assert_allclose(rest, 0, atol=1e-6)  # the phenotype is rounded to six decimals


def test_cohort_without_one_part():
    only_background = gwas_cohort(n_obs=50, n_vars=80, n_causal=0).uns["truth"]
    assert only_background["sigma_sq_background"] == 0.5
    assert len(only_background["causal_variants"]) == 0
    only_causal = gwas_cohort(n_obs=50, n_vars=3, n_chrom=2, n_causal=3, causal_share=1)
    assert only_causal.var["causal"].all()
    assert only_causal.uns["truth"]["sigma_sq_background"] == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_obs": 1}, ValueError, "`n_obs` must be at least 2, got 1"),
        ({"n_obs": 10.5}, TypeError, "`n_obs` must be an integer, got 10.5 (float)"),
        ({"n_obs": True}, TypeError, "`n_obs` must be an integer, got True (bool)"),
        ({"n_vars": 0}, ValueError, "`n_vars` must be at least 1, got 0"),
        ({"n_vars": 3, "n_chrom": 4}, ValueError, "`n_chrom` must be between 1 and 3 (n_vars), got 4"),
        ({"n_vars": 9, "n_causal": 10}, ValueError, "`n_causal` must be between 0 and 9 (n_vars), got 10"),
        ({"n_populations": 501}, ValueError, "`n_populations` must be between 1 and 500 (n_obs), got 501"),
        ({"family_size": 0}, ValueError, "`family_size` must be at least 1, got 0"),
        ({"h_sq": 1.1}, ValueError, "`h_sq` must lie in [0, 1], got 1.1"),
        ({"h_sq": float("nan")}, ValueError, "`h_sq` must lie in [0, 1], got nan"),
        ({"h_sq": "0.5"}, TypeError, "`h_sq` must be a number, got '0.5' (str)"),
        ({"causal_share": -0.1}, ValueError, "`causal_share` must lie in [0, 1], got -0.1"),
        ({"fst": 1}, ValueError, "`fst` must lie in [0, 1), got 1"),
        ({"missing": 1.0}, ValueError, "`missing` must lie in [0, 1), got 1.0"),
        ({"n_vars": 8, "n_causal": 8}, ValueError, "`n_causal` leaves no variant"),
        ({"n_obs": 2, "n_populations": 1, "n_vars": 60, "n_causal": 60}, ValueError, "that vary among the donors"),
    ],
)
def test_cohort_arguments(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        gwas_cohort(**arguments)


def test_cohort_has_not_changed():
    """Pinned for every numpy: tutorials and pictures show this very cohort."""
    adata = gwas_cohort()
    assert adata.uns["truth"]["causal_variants"].tolist() == ["snp_0671", "snp_0957", "snp_1845"]
    assert adata.X.sum(dtype=float) == 1017211
    assert adata.obs["phenotype"].iloc[:3].tolist() == [12.599063, 10.510235, 10.399082]


# ----------------------------------------------------------------------------------------------------------- donors


def test_donors_fields():
    adata = donors()
    assert adata.n_vars == 200
    counts = adata.obs["donor_id"].value_counts()
    assert len(counts) == 20
    assert counts.min() > 0
    assert counts.max() > 2 * counts.min(), "unequal"
    assert 20 * 30 < adata.n_obs < 20 * 70
    assert sparse.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.float32
    assert (adata.X.data == np.round(adata.X.data)).all()
    assert adata.X.data.min() > 0
    per_donor = adata.obs.groupby("donor_id", observed=True)[["condition", "age"]].nunique()
    assert (per_donor == 1).all(axis=None)
    assert adata.obs["condition"].cat.categories.tolist() == ["control", "disease"]
    condition = adata.obs.groupby("donor_id", observed=True)["condition"].first()
    assert (condition == "disease").sum() == 10
    batches = adata.obs.groupby("donor_id", observed=True)["batch"].nunique()
    assert (batches == 2).all(), "the batch is a property of the cell"
    assert (adata.obs["total_counts"] >= adata.X.sum(axis=1).A1).all()
    expected = np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None])
    np.testing.assert_allclose(adata.layers["logcounts"].toarray(), expected, rtol=1e-6)  # stored as float32
    assert not np.isnan(adata.layers["log_rate"]).any()


def test_donors_have_not_changed():
    adata = donors()
    assert adata.shape == (828, 200)
    assert adata.X.sum(dtype=float) == 409958
    assert adata.uns["truth"]["de_genes"][:3].tolist() == ["gene_003", "gene_024", "gene_039"]
    np.testing.assert_allclose(adata.obs["phenotype"].iloc[:2], [4.493920984286856, 5.975763836634762], rtol=1e-14)


def test_donors_given_numbers_of_cells():
    cells = [3, 1, 9, 4]
    for given in (cells, np.array(cells), tuple(cells)):
        adata = donors(4, given, n_genes=5, n_de=1)
        assert adata.obs["donor_id"].value_counts(sort=False).tolist() == cells


def test_donors_phenotype_follows_its_truth():
    adata = donors(200, 30, n_genes=1, n_de=0, icc=0.3)
    truth = adata.uns["truth"]
    assert (truth["h_sq"], truth["sigma_sq"], truth["tau_sq"]) == (0.3, 0.3, 0.7)
    assert truth["beta_terms"].tolist() == ["Intercept", "condition[T.disease]"]
    u = truth["donor_effects"]
    disease = (adata.obs["condition"] == "disease").to_numpy()
    residual = adata.obs["phenotype"].to_numpy() - truth["beta"][0] - truth["beta"][1] * disease
    residual -= u[adata.obs["donor_id"].cat.codes]
    # Normal with the stated variances: a chi-square within four standard deviations.
    for sample, variance in ((u, 0.3), (residual, 0.7)):
        assert sample.var() == pytest.approx(variance, abs=4 * variance * np.sqrt(2 / len(sample)))
        assert stats.kstest(sample, stats.norm(scale=np.sqrt(variance)).cdf).pvalue > 1e-3


def test_donors_genes_follow_their_truth():
    adata = donors(100, 20, n_genes=60, n_de=20, icc=0.3)
    var, truth = adata.var, adata.uns["truth"]
    assert var["de"].sum() == 20
    assert (var.loc[~var["de"], "true_effect"] == 0).all()
    assert var.loc[var["de"], "true_effect"].abs().between(0.8, 1.5).all()
    assert truth["de_genes"].tolist() == var.index[var["de"]].tolist()
    np.testing.assert_array_equal(truth["de_effects"], var.loc[var["de"], "true_effect"])
    np.testing.assert_allclose(var["true_sigma_sq"] + var["true_tau_sq"], 0.4)
    np.testing.assert_allclose(var["true_icc"], var["true_sigma_sq"] / 0.4)
    # Within and between donors on the exactly Gaussian layer, known effects removed: one-way analysis of variance.
    rate = adata.layers["log_rate"].astype(float)
    rate -= np.outer(adata.obs["condition"] == "disease", var["true_effect"])
    rate -= np.outer(adata.obs["batch"] == "batch_2", var["true_effect_batch"])
    rate -= np.outer(adata.obs["cell_score"], var["true_effect_cell_score"])
    z = pd.get_dummies(adata.obs["donor_id"]).to_numpy(dtype=float)
    n_d = z.sum(axis=0)
    means = z.T @ rate / n_d[:, None]
    within = ((rate - z @ means) ** 2).sum(axis=0) / (adata.n_obs - 100)
    np.testing.assert_allclose(within, var["true_tau_sq"], rtol=5 * np.sqrt(2 / (adata.n_obs - 100)))
    between = means.var(axis=0, ddof=1) - within * (1 / n_d).mean()
    ratio = between.mean() / var["true_sigma_sq"].mean()
    assert ratio == pytest.approx(1, abs=0.1)  # 60 genes with 99 df each: standard error 0.02
    assert np.corrcoef(between, var["true_sigma_sq"])[0, 1] > 0.8
    # Counts have the stated mean: Poisson with rate depth × exp(log_rate), E[depth] = exp(0.3² / 2).
    mean = adata.X.toarray().mean(axis=0)
    expected = np.exp(adata.layers["log_rate"].astype(float)).mean(axis=0) * np.exp(0.045)
    np.testing.assert_allclose(mean, expected, rtol=0.15)


def test_donors_without_donor_variance():
    adata = donors(6, 20, n_genes=8, n_de=2, icc=0)
    assert (adata.var["true_icc"] == 0).all()
    assert (adata.uns["truth"]["donor_effects"] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_donors": 3}, ValueError, "`n_donors` must be at least 4, got 3"),
        ({"n_genes": 0}, ValueError, "`n_genes` must be at least 1, got 0"),
        ({"n_genes": 10}, ValueError, "`n_de` must be between 0 and 10 (n_genes), got 20"),
        ({"icc": 1}, ValueError, "`icc` must lie in [0, 1), got 1"),
        ({"icc": -0.1}, ValueError, "`icc` must lie in [0, 1), got -0.1"),
        ({"cells_per_donor": 0}, ValueError, "`cells_per_donor` must be at least 1, got 0"),
        ({"cells_per_donor": 9.5}, TypeError, "`cells_per_donor` must be an integer or a list of 20 integers"),
        ({"cells_per_donor": "50"}, TypeError, "`cells_per_donor` must be an integer or a list of 20 integers"),
        ({"cells_per_donor": [5, 6]}, ValueError, "must be an integer or hold 20 integers (n_donors), got 2"),
        (
            {"n_donors": 4, "cells_per_donor": [5, 6, 0, 1]},
            ValueError,
            "`cells_per_donor[2]` must be at least 1, got 0",
        ),
    ],
)
def test_donors_arguments(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        donors(**arguments)


# ---------------------------------------------------------------------------------------------------------- spatial


def distances(adata: ad.AnnData) -> np.ndarray:
    places = adata.obsm["spatial"]
    return np.hypot(*(places[:, None, :] - places).transpose(2, 0, 1))


def neighbour_correlation(values: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Moran's I of each column over next neighbours."""
    near = (distance > 0) & (distance < 110)
    z = values - values.mean(axis=0)
    return np.einsum("ig,ig->g", z, near @ z) / near.sum() / z.var(axis=0)


def test_spatial_fields():
    adata = spatial()
    assert adata.shape == (1000, 200)
    assert (adata.obs["total_counts"] >= adata.layers["counts"].sum(axis=1).A1).all()
    for matrix in (adata.X, adata.layers["counts"]):
        assert sparse.isspmatrix_csr(matrix)
        assert matrix.dtype == np.float32
    counts = adata.layers["counts"].toarray()
    np.testing.assert_array_equal(counts, np.round(counts))
    expected = np.log1p(1e4 * counts / adata.obs["total_counts"].to_numpy()[:, None])
    np.testing.assert_allclose(adata.X.toarray(), expected, rtol=1e-6)  # stored as float32
    var, truth = adata.var, adata.uns["truth"]
    assert var["spatial"].sum() == 60
    assert ((var["pattern"] != "none") == var["spatial"]).all()
    assert ((var["true_h_sq"] > 0) == var["spatial"]).all()
    assert (var["true_length_scale"].notna() == (var["pattern"] == "smooth")).all()
    kinds = var.groupby(["pattern", "true_length_scale"], dropna=False, observed=True).size()
    assert sorted(kinds) == [12, 12, 12, 12, 12, 140], "three length scales, gradient, hot spots, none"
    known = var.loc[truth["spatial_genes"]]
    assert known.index.tolist() == var.index[var["spatial"]].tolist()
    assert known["pattern"].tolist() == truth["patterns"].tolist()
    np.testing.assert_array_equal(known["true_length_scale"], truth["length_scales"])
    np.testing.assert_array_equal(known["true_h_sq"], truth["h_sq"])
    # Beta(3, 7) of 60 genes: standard deviation 0.14, four standard errors.
    assert known["true_h_sq"].mean() == pytest.approx(0.3, abs=0.072)


@pytest.mark.parametrize("n_obs", [10, 333])
def test_spatial_lattice(n_obs):
    adata = spatial(n_obs, 1, n_spatial=0)
    np.testing.assert_allclose(adata.obsm["spatial"].mean(axis=0), 0, atol=1e-9)
    apart = distances(adata) + np.diag(np.full(n_obs, np.inf))
    np.testing.assert_allclose(apart.min(axis=0), 100, rtol=1e-12)
    # A lattice without holes: 6 neighbours each but for the rim, of at most 4 to 5 sqrt(n) spots.
    assert (apart < 110).sum() > 6 * n_obs - 20 * np.sqrt(n_obs)


def test_spatial_smooth_patterns_have_their_covariance():
    scales = (150.0, 300.0, 600.0)
    adata = spatial(600, 450, n_spatial=450, h_sq=0.99, length_scales=scales)
    rate = adata.layers["log_rate"].astype(float)
    distance = distances(adata)
    centring = np.eye(600) - 1 / 600
    for scale in scales:
        genes = (adata.var["true_length_scale"] == scale).to_numpy()
        assert genes.sum() == 90
        z = (rate[:, genes] - rate[:, genes].mean(axis=0)) / rate[:, genes].std(axis=0)
        k = centring @ np.exp(-(distance**2) / (2 * scale**2)) @ centring
        for low in (50, 150, 250, 350):
            pairs = (distance > low) & (distance <= low + 100)
            found = np.einsum("ig,ig->g", z, pairs @ z) / pairs.sum()
            expected = k[pairs].mean() / np.diag(k).mean() * adata.var["true_h_sq"][genes].mean()
            # Genes are independent: four standard errors. 0.03: the sample variance divides, Jensen's inequality.
            assert found.mean() == pytest.approx(expected, abs=4 * found.std() / np.sqrt(90) + 0.03)


def test_spatial_shares_are_the_stated_ones():
    adata = spatial(1000, 100, n_spatial=60)
    rate, share = adata.layers["log_rate"].astype(float), adata.var["true_h_sq"].to_numpy()
    # The pattern has a fixed sample variance; noise and its correlation with the pattern: five standard errors.
    bound = 5 * np.sqrt(2 / 1000 * ((1 - share) ** 2 + 2 * share * (1 - share))) * 0.4
    assert (np.abs(rate.var(axis=0) - 0.4) < bound).all()
    gradient = (adata.var["pattern"] == "gradient").to_numpy()
    x = np.column_stack([np.ones(1000), adata.obsm["spatial"]])
    rest = rate - x @ np.linalg.lstsq(x, rate, rcond=None)[0]
    explained = 1 - rest.var(axis=0) / rate.var(axis=0)
    # The standard error of R² is at most 2 sqrt(R²) (1 - R²) / sqrt(n) < 0.025.
    np.testing.assert_allclose(explained[gradient], share[gradient], atol=0.1)
    mean = adata.layers["counts"].toarray().mean(axis=0)
    np.testing.assert_allclose(mean, np.exp(rate).mean(axis=0) * np.exp(0.045), rtol=0.15)  # E[depth] = exp(0.3² / 2)


def test_spatial_hot_spots_are_few_and_high():
    adata = spatial(1000, 30, n_spatial=30, h_sq=0.99)
    rate = adata.layers["log_rate"][:, (adata.var["pattern"] == "hot_spots").to_numpy()]
    # Four hot spots of 250 µm are above their half height on 4 π 250² 2 log 2 µm²: 0.13 of the slide's 8.7 mm².
    hot = (rate > (rate.max(axis=0) + rate.min(axis=0)) / 2).mean(axis=0)
    assert (hot < 0.15).all()
    assert (stats.skew(rate) > 1).all()


def test_spatial_genes_are_told_by_their_neighbours():
    adata = spatial()
    distance = distances(adata)
    for values in (adata.layers["log_rate"].astype(float), adata.X.toarray().astype(float)):
        moran = neighbour_correlation(values, distance)
        null, known = moran[~adata.var["spatial"]], moran[adata.var["spatial"]]
        # About 2900 pairs of neighbours: standard error 0.019.
        assert np.abs(null).max() < 5 * 0.019
        assert stats.mannwhitneyu(known, null).statistic / (len(known) * len(null)) > 0.9


def test_spatial_has_not_changed():
    adata = spatial()
    assert adata.layers["counts"].sum(dtype=float) == 417759
    assert adata.uns["truth"]["spatial_genes"][:3].tolist() == ["gene_001", "gene_006", "gene_007"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_obs": 9}, ValueError, "`n_obs` must be at least 10, got 9"),
        ({"n_genes": 10}, ValueError, "`n_spatial` must be between 0 and 10 (n_genes), got 60"),
        ({"h_sq": 0}, ValueError, "`h_sq` must lie in (0, 1), got 0"),
        ({"h_sq": "a"}, TypeError, "`h_sq` must be a number, got 'a' (str)"),
        ({"length_scales": 150.0}, TypeError, "`length_scales` must be a list of numbers in µm, got 150.0 (float)"),
        ({"length_scales": []}, TypeError, "`length_scales` must be a list of numbers in µm, got [] (list)"),
        ({"length_scales": "150"}, TypeError, "`length_scales` must be a list of numbers in µm, got '150' (str)"),
        ({"length_scales": ["a"]}, TypeError, "`length_scales` must be a list of numbers in µm"),
        ({"length_scales": [100.0, 0.0]}, ValueError, "`length_scales` must be positive and finite, got [100.0, 0.0]"),
        ({"length_scales": [float("nan")]}, ValueError, "`length_scales` must be positive and finite, got [nan]"),
    ],
)
def test_spatial_arguments(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        spatial(**arguments)
