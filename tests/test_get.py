"""`al.get`: tables and models from what is stored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import cohort, relatedness, untouched

import annlmm as al
from annlmm._slots.results import association_fields

PHENOTYPES = ["y", "y2", "y3"]


def with_kernel(name, n=40):
    adata = cohort(n, 60)
    if name == "grm":
        al.pp.kernel_grm(adata)
    else:
        donors = list(adata.obs["donor"].cat.categories)
        al.pp.kernel_group(adata, "donor", relatedness=relatedness(donors) if name == "relatedness" else None)
    return adata


# ------------------------------------------------------------------------------------------- association


def test_association_of_one_phenotype():
    adata = with_kernel("group")
    al.tl.fit_null(adata, "y", gamma=1.0)
    al.tl.associate(adata)
    table = al.get.association(adata)
    assert list(table.columns) == list(association_fields({"variance": "null"}))
    assert table.index.equals(adata.var_names)
    for name in table:
        assert table[name].tolist() == pytest.approx(adata.var[f"lmm_{name}"].tolist(), nan_ok=True)
    pd.testing.assert_frame_equal(al.get.association(adata, "lmm", phenotype="y"), table)
    table["beta"] = 0.0  # a table of one's own
    assert (adata.var["lmm_beta"] != 0).any()


@pytest.mark.parametrize("phenotype", ["y", ["y", "y2"]])
def test_association_of_a_subset_keeps_its_categories(phenotype):
    """AnnData drops the categories that a subset lacks."""
    adata = with_kernel("group")
    al.tl.fit_null(adata, phenotype, gamma=1.0)
    al.tl.associate(adata, mask_var=np.arange(60) > 5)
    whole, part = al.get.association(adata), al.get.association(adata[:, 10:20].copy())
    assert part["status"].dtype == whole["status"].dtype
    assert part["status"].eq("ok").all()


@pytest.mark.parametrize("phenotype", ["y", ["y", "y2"]])
def test_association_that_lost_its_columns(phenotype):
    adata = with_kernel("group")
    al.tl.fit_null(adata, phenotype, gamma=1.0)
    al.tl.associate(adata)
    if phenotype == "y":
        adata.var = adata.var.drop(columns="lmm_df")
    else:
        del adata.varm["lmm_df"]
    slot = "var" if phenotype == "y" else "varm"
    with (
        untouched(adata),
        pytest.raises(KeyError, match=rf"key='lmm': adata\.{slot} lacks lmm_df; run al\.tl\.associate again"),
    ):
        al.get.association(adata)


def test_association_of_several_phenotypes():
    adata = with_kernel("group")
    al.tl.fit_null(adata, PHENOTYPES, gamma=1.0)
    al.tl.associate(adata, mask_var="chosen", key_added="scan")
    long = al.get.association(adata, "scan")
    assert list(long.columns) == ["phenotype", *association_fields({"variance": "null"})]
    assert long.shape[0] == 180
    assert list(long["phenotype"].cat.categories) == PHENOTYPES
    for j, phenotype in enumerate(PHENOTYPES):
        one = al.get.association(adata, "scan", phenotype=phenotype)
        assert one.index.equals(adata.var_names)
        np.testing.assert_array_equal(one["beta"], adata.varm["scan_beta"][:, j])
        assert one["status"].tolist() == adata.varm["scan_status"][:, j].tolist()
        assert isinstance(one["status"].dtype, pd.CategoricalDtype)
        part = long[long["phenotype"] == phenotype].drop(columns="phenotype")
        pd.testing.assert_frame_equal(part, one)
    # of some features
    part = adata[:, :7].copy()
    np.testing.assert_array_equal(
        al.get.association(part, "scan", phenotype="y2")["beta"], adata.varm["scan_beta"][:7, 1]
    )


# ------------------------------------------------------------------------------------------- null model


@pytest.mark.parametrize("name", ["grm", "group", "relatedness"])
@pytest.mark.parametrize("missing", [False, True])
def test_null_model_is_the_fit(name, missing):
    adata = with_kernel(name)
    if missing:
        adata.obs.loc[adata.obs_names[:4], "y"] = np.nan
    al.tl.fit_null(adata, "y", covariates=["age", "sex"])
    entry = adata.uns["lmm"]
    with untouched(adata):
        model = al.get.null_model(adata)
    assert model.n == entry["n_obs"]
    assert model.low_rank  # a centred kernel, too, has rank n − 1 at most
    # the same maximum, found in other coordinates
    assert model.gamma == pytest.approx(entry["gamma"], rel=1e-6)
    assert model.h_sq == pytest.approx(entry["h_sq"], rel=1e-6)
    assert model.tau_sq == pytest.approx(entry["tau_sq"], rel=1e-6)
    assert model.sigma_sq == pytest.approx(entry["sigma_sq"], rel=1e-6)
    np.testing.assert_allclose(model.beta, entry["beta"]["estimate"], rtol=1e-6)
    assert model.h_sq_standard_error == pytest.approx(entry["h_sq_standard_error"], rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1e-6, 0.5, 1e6])
@pytest.mark.parametrize("reml", [True, False])
def test_null_model_of_a_given_gamma(gamma, reml):
    adata = with_kernel("group")
    al.tl.fit_null(adata, "y", covariates=["age"], gamma=gamma, reml=reml)
    model = al.get.null_model(adata)
    assert model.gamma == pytest.approx(gamma, rel=1e-12)
    np.testing.assert_allclose(model.beta, adata.uns["lmm"]["beta"]["estimate"], rtol=1e-9)


def test_null_model_by_maximum_likelihood_is_held_at_its_gamma():
    adata = with_kernel("group")
    al.tl.fit_null(adata, "y", covariates=["age"], reml=False)
    model = al.get.null_model(adata)
    assert model.gamma == pytest.approx(adata.uns["lmm"]["gamma"], rel=1e-12)
    np.testing.assert_allclose(model.beta, adata.uns["lmm"]["beta"]["estimate"], rtol=1e-9)


def test_null_model_at_a_boundary():
    adata = with_kernel("group")
    noise, donor = np.random.default_rng(0).standard_normal(40), adata.obs["donor"].cat.codes.to_numpy()
    adata.obs["flat"] = noise - np.bincount(donor, noise)[donor] / 5
    al.tl.fit_null(adata, "flat")
    assert adata.uns["lmm"]["status"] == "boundary"
    assert al.get.null_model(adata).gamma == 0


def test_null_model_of_a_kernel_of_full_rank():
    adata = cohort()
    al.pp.kernel_precomputed(adata, relatedness(list(adata.obs_names)))
    al.tl.fit_null(adata, "y", gamma=np.inf)
    assert adata.uns["lmm"]["h_sq"] == 1
    assert adata.uns["lmm"]["tau_sq"] == 0
    model = al.get.null_model(adata)
    assert not model.low_rank
    assert model.h_sq == 1
    assert model.sigma_sq == pytest.approx(adata.uns["lmm"]["sigma_sq"], rel=1e-6)
    al.tl.associate(adata)
    assert (adata.var["lmm_status"] == "ok").all()


def test_null_model_of_one_of_several():
    adata = with_kernel("group")
    al.tl.fit_null(adata, PHENOTYPES, covariates=["age"], gamma=0.5)
    for j, phenotype in enumerate(PHENOTYPES):
        model = al.get.null_model(adata, phenotype=phenotype)
        assert model.n == adata.uns["lmm"]["fits"]["n_obs"].iloc[j]
        assert model.tau_sq == pytest.approx(adata.uns["lmm"]["fits"]["tau_sq"].iloc[j], rel=1e-9)


def test_null_model_scans_as_associate_does():
    adata = with_kernel("group")
    al.tl.fit_null(adata, "y", covariates=["age"])
    al.tl.associate(adata, test="wald")
    model = al.get.null_model(adata)
    z = pd.get_dummies(adata.obs["donor"].astype(str)).to_numpy(dtype=float)
    table = model.fit_alternatives((z / np.sqrt(z.sum(axis=0))).T @ adata.X, adata.X)  # Uᵀ = N^{−½}Zᵀ
    np.testing.assert_allclose(table["beta"], adata.var["lmm_beta"], rtol=1e-6)
    np.testing.assert_allclose(table["standard_error"], adata.var["lmm_standard_error"], rtol=1e-6)


# ------------------------------------------------------------------------------------------- kernel


def test_kernel_is_symmetric_and_named():
    for name in ("grm", "group", "relatedness"):
        adata = with_kernel(name)
        with untouched(adata):
            k = al.get.kernel(adata)
        assert list(k.index) == list(k.columns) == list(adata.obs_names)
        assert (k.dtypes == np.float64).all()
        np.testing.assert_array_equal(k, k.T)
        assert np.linalg.eigvalsh(k).min() > -1e-12


def test_kernel_through_precomputed_is_itself():
    adata = with_kernel("relatedness")
    k = al.get.kernel(adata)
    al.pp.kernel_precomputed(adata, k.sample(frac=1, random_state=0), key_added="dense")
    # an eigendecomposition and back
    np.testing.assert_allclose(al.get.kernel(adata, "dense"), k, atol=1e-12)
    for key in ("kernel", "dense"):
        al.tl.fit_null(adata, "y", covariates=["age"], kernel=key, gamma=1.0, key_added=f"on_{key}")
    assert adata.uns["on_dense"]["tau_sq"] == pytest.approx(adata.uns["on_kernel"]["tau_sq"], rel=1e-10)
    al.pp.kernel_precomputed(adata, k, rank=2, key_added="low")
    assert np.linalg.matrix_rank(al.get.kernel(adata, "low")) == 2


def test_a_phenotype_in_place_of_a_key_is_told():
    adata = al.datasets.donors(n_donors=6, n_genes=20)
    al.pp.kernel_group(adata, "donor_id")
    al.tl.fit_null(adata, "phenotype", variance_test=False)
    with pytest.raises(
        KeyError,
        match="key='phenotype': not in adata.uns; .*it is a phenotype of key='lmm': pass phenotype='phenotype'",
    ):
        al.get.null_model(adata, "phenotype")
