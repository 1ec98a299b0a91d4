"""AnnData objects whose matrix stays on disk: backed h5ad, and `anndata.experimental.read_lazy`."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import donors_with_fit
from scipy import sparse

import annlmm as al

TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}  # sums in another order


def donors_without_fit(kind="csr"):
    adata = donors_with_fit()
    for key in ("lmm", "kernel"):
        del adata.uns[key]
    adata.obs = adata.obs.drop(columns=[c for c in adata.obs if c.startswith("lmm")])
    del adata.obsm["lmm_design"]
    adata.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[kind](adata.X)
    adata.layers["twice"] = adata.X * 2
    return adata


def analyse(adata, **options):
    al.pp.kernel_group(adata, "donor_id")
    al.tl.fit_null(adata, "phenotype", covariates=["age", "batch"], gamma=0.5)
    al.tl.associate(adata, **options)
    return al.get.association(adata)


def assert_same_table(got, expected):
    assert list(got.index) == list(expected.index)
    for name in expected.select_dtypes("number"):
        np.testing.assert_allclose(got[name], expected[name], **TOLERANCE, err_msg=name)
    assert list(got["status"]) == list(expected["status"])


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("layer", [None, "twice"])
def test_backed(kind, layer, tmp_path):
    adata = donors_without_fit(kind)
    adata.write_h5ad(tmp_path / "a.h5ad")
    expected = analyse(adata, layer=layer)
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    try:
        assert_same_table(analyse(backed, layer=layer), expected)
        assert backed.isbacked
        # The results are in memory; the file is as it was.
        assert "lmm_beta" not in ad.read_h5ad(tmp_path / "a.h5ad").var
        backed.write_h5ad(tmp_path / "b.h5ad")
    finally:
        backed.file.close()
    again = ad.read_h5ad(tmp_path / "b.h5ad")
    assert_same_table(al.get.association(again), expected)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize("store", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2", "ignore:.*read_lazy.*")
def test_read_lazy(kind, store, tmp_path):
    adata = donors_without_fit(kind)
    path = tmp_path / f"a.{store}"
    getattr(adata, f"write_{store}")(path)
    expected = analyse(adata)
    lazy = ad.experimental.read_lazy(path)
    assert not isinstance(lazy.obs, pd.DataFrame)
    assert_same_table(analyse(lazy), expected)
    assert type(lazy.X).__module__.startswith("dask"), "X was loaded"
    # Written and opened again, the null model is read from lazy slots.
    loaded = lazy.to_memory()
    second = tmp_path / f"b.{store}"
    getattr(loaded, f"write_{store}")(second)
    again = ad.experimental.read_lazy(second)
    assert_same_table(al.get.association(again), expected)
    al.tl.associate(again, key_added="again")
    assert_same_table(al.get.association(again, "again"), expected)


@pytest.mark.filterwarnings("ignore:Writing zarr v2", "ignore:.*read_lazy.*")
def test_a_subset_of_a_lazy_object(tmp_path):
    adata = donors_without_fit()
    adata.write_zarr(tmp_path / "a.zarr")
    rows = np.arange(adata.n_obs) % 3 > 0
    lazy = ad.experimental.read_lazy(tmp_path / "a.zarr")[rows]
    assert_same_table(analyse(lazy), analyse(adata[rows].copy()))
    assert type(lazy.X).__module__.startswith("dask")


@pytest.mark.parametrize("backed", [False, True])
def test_a_kernel_of_variants_that_stay_on_disk(backed, tmp_path):
    adata = al.datasets.gwas_cohort(60, 80)
    adata.write_h5ad(tmp_path / "a.h5ad")
    stored = ad.read_h5ad(tmp_path / "a.h5ad", backed="r") if backed else ad.experimental.read_lazy(tmp_path / "a.h5ad")
    for each in (adata, stored):
        al.pp.kernel_grm(each)
        al.tl.fit_null(each, "phenotype", gamma=1.0)
        al.tl.associate(each)
    assert_same_table(al.get.association(stored), al.get.association(adata))
    if backed:
        stored.file.close()
