"""Cells to donors × genes, against pandas' groupby and scanpy itself."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import annlmm as al


def cells(n=300, m=9, n_donors=7, seed=0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    weights = np.arange(1, n_donors + 1)
    donor = rng.choice([f"d{i}" for i in range(n_donors)], n, p=weights / weights.sum())
    number = pd.Series(donor).str[1:].astype(int).to_numpy()
    obs = pd.DataFrame(
        {
            "donor_id": pd.Categorical(donor, categories=[f"d{i}" for i in reversed(range(n_donors + 2))]),
            "age": 20.0 + number,
            "sex": pd.Categorical(np.where(number % 2, "male", "female"), categories=["male", "female", "unknown"]),
            "score": np.where(number == 3, np.nan, number / 10),
            "type": rng.choice(["B", "T", "NK"], n),
            "depth": rng.uniform(size=n),
        },
        index=[f"c{i}" for i in range(n)],
    )
    var = pd.DataFrame(
        {"chrom": "1", "start": np.arange(m), "end": np.arange(m) + 5}, index=[f"g{j}" for j in range(m)]
    )
    x = rng.poisson(1.0, (n, m)).astype(np.float32)
    return ad.AnnData(sparse.csr_matrix(x), obs=obs, var=var, layers={"log": sparse.csr_matrix(np.log1p(x))})


def table(adata: ad.AnnData, layer: str | None, func: str, rows=slice(None)) -> pd.DataFrame:
    x = adata.X if layer is None else adata.layers[layer]
    frame = pd.DataFrame(
        np.asarray(x.toarray() if sparse.issparse(x) else x, dtype=np.float64), columns=adata.var_names
    )
    grouped = frame.iloc[rows].groupby(adata.obs["donor_id"].astype(str).to_numpy()[rows])
    return getattr(grouped, func)()


def assert_bulk(bulk: ad.AnnData, expected: pd.DataFrame) -> None:
    assert list(bulk.obs_names) == list(expected.index)
    # Sums of some hundred numbers in another order: a few hundred times the rounding of float64.
    np.testing.assert_allclose(bulk.X, expected.to_numpy(), rtol=1e-13)
    assert bulk.X.dtype == np.float64


@pytest.mark.parametrize("func", ["mean", "sum"])
@pytest.mark.parametrize("layer", [None, "log"])
def test_values(func, layer):
    adata = cells()
    bulk = al.pp.pseudobulk(adata, "donor_id", layer=layer, func=func, min_cells=1)
    assert_bulk(bulk, table(adata, layer, func))
    reference = sc.get.aggregate(adata, "donor_id", func, layer=layer)[bulk.obs_names]
    np.testing.assert_allclose(bulk.X, reference.layers[func], rtol=1e-13)
    counts = adata.obs["donor_id"].value_counts()
    assert bulk.obs["n_cells"].tolist() == counts[bulk.obs_names].tolist()
    pd.testing.assert_frame_equal(bulk.var, adata.var)


def test_what_is_constant_is_kept(caplog):
    adata = cells()
    adata.obs["n_cells"] = 1
    al.settings.verbosity = 2
    logging.getLogger("annlmm").addHandler(caplog.handler)
    try:
        bulk = al.pp.pseudobulk(adata, "donor_id", min_cells=1)
    finally:
        logging.getLogger("annlmm").removeHandler(caplog.handler)
    assert "vary within donors and are left out: type, depth" in caplog.text
    assert list(bulk.obs) == ["age", "sex", "score", "n_cells"]
    number = np.array([int(name[1:]) for name in bulk.obs_names])
    assert bulk.obs["age"].tolist() == (20 + number).tolist()
    assert bulk.obs["sex"].tolist() == np.where(number % 2, "male", "female").tolist()
    assert list(bulk.obs["sex"].cat.categories) == ["male", "female"]
    np.testing.assert_array_equal(bulk.obs["score"], np.where(number == 3, np.nan, number / 10))
    assert bulk.obs["n_cells"].sum() == adata.n_obs


def test_results_of_cells_stay_with_them():
    adata = cells()
    adata.obs["y"] = np.random.default_rng(0).normal(size=adata.n_obs)
    adata.var["de_novo"] = True
    before = al.pp.pseudobulk(adata, "donor_id")
    al.pp.kernel_group(adata, "donor_id")
    al.tl.fit_null(adata, "y")
    al.tl.associate(adata)
    al.tl.differential(adata, "age", layer="log")
    al.tl.variance_components(adata, layer="log")
    assert "de_p_value" in adata.var
    assert "lmm_blup" in adata.obs
    after = al.pp.pseudobulk(adata, "donor_id")
    assert list(after.var) == list(before.var)
    assert "de_novo" in after.var
    assert list(after.obs) == list(before.obs)


def test_partly_missing_is_not_constant():
    adata = cells()
    adata.obs["partly"] = np.where(np.arange(adata.n_obs) % 2, adata.obs["age"], np.nan)
    assert "partly" not in al.pp.pseudobulk(adata, "donor_id").obs


def test_few_cells_and_masks():
    adata = cells()
    mask = adata.obs["depth"].to_numpy() < 0.5
    adata.obs["use"] = mask
    expected = table(adata, None, "mean", np.flatnonzero(mask))
    counts = adata.obs["donor_id"].astype(str)[mask].value_counts()[expected.index]
    least = int(counts.min()) + 1
    for argument in (mask, "use"):
        bulk = al.pp.pseudobulk(adata, "donor_id", min_cells=least, mask_obs=argument)
        assert_bulk(bulk, expected[(counts >= least).to_numpy()])
    assert bulk.n_obs < len(expected)


def test_cells_without_a_donor_do_not_count():
    adata = cells()
    # Values that would show anywhere.
    adata.X[5] = 1e6
    adata.obs.loc[adata.obs_names[5], "donor_id"] = np.nan
    rows = np.delete(np.arange(adata.n_obs), 5)
    assert_bulk(al.pp.pseudobulk(adata, "donor_id", min_cells=1), table(adata, None, "mean", rows))


def test_cell_types():
    adata = cells()
    adata.obs.loc[adata.obs_names[:10], "type"] = None
    bulks = al.pp.pseudobulk(adata, "donor_id", by="type", func="sum", min_cells=3)
    assert list(bulks) == ["B", "NK", "T"]
    for name, bulk in bulks.items():
        rows = np.flatnonzero(adata.obs["type"] == name)
        expected = table(adata, None, "sum", rows)
        counts = adata.obs["donor_id"].astype(str).iloc[rows].value_counts()[expected.index]
        assert_bulk(bulk, expected[(counts >= 3).to_numpy()])
        assert list(bulk.obs) == ["age", "sex", "score", "n_cells", "type"]
        assert bulk.obs["type"].unique().tolist() == [name]
    both = ad.concat(bulks, label="of", index_unique="_")
    assert both.n_obs == sum(bulk.n_obs for bulk in bulks.values())


def test_rare_types_are_left_out_with_a_warning(caplog):
    adata = cells()
    adata.obs["type"] = np.where(np.arange(adata.n_obs) < 3, "rare", "B")
    logging.getLogger("annlmm").addHandler(caplog.handler)
    try:
        assert list(al.pp.pseudobulk(adata, "donor_id", by="type")) == ["B"]
    finally:
        logging.getLogger("annlmm").removeHandler(caplog.handler)
    assert "no donor has 5 cells of 'rare': left out" in caplog.text


@pytest.mark.parametrize("labels", ["int", "float", "string", "category"])
def test_names_of_donors_are_text(labels):
    adata = cells()
    number = adata.obs["donor_id"].astype(str).str[1:].astype(int)
    adata.obs["donor"] = (number.astype(str) if labels in ("string", "category") else number).astype(labels)
    bulk = al.pp.pseudobulk(adata, "donor", min_cells=1)
    assert list(bulk.obs_names) == sorted(str(k) for k in number.unique())


@pytest.mark.parametrize("kind", ["csr", "csc", "csr_array", "dense", "fortran", "int", "dask", "dask_sparse"])
@pytest.mark.parametrize("block_memory", [2**28, 4000])
def test_array_types_and_blocks(kind, block_memory):
    adata = cells()
    expected = table(adata, None, "mean")
    x = adata.X.toarray()
    if kind.startswith("dask"):
        da = pytest.importorskip("dask.array")
        matrix = da.from_array(x, chunks=(64, 4))
        matrix = matrix.map_blocks(sparse.csr_matrix) if kind == "dask_sparse" else matrix
    else:
        matrix = {
            "csr": sparse.csr_matrix,
            "csc": sparse.csc_matrix,
            "csr_array": sparse.csr_array,
            "dense": np.asarray,
            "fortran": np.asfortranarray,
            "int": lambda x: x.astype(np.int32),
        }[kind](x)
    al.settings.block_memory = block_memory
    assert_bulk(al.pp.pseudobulk(ad.AnnData(matrix, obs=adata.obs, var=adata.var), "donor_id", min_cells=1), expected)


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_matrix.toarray])
@pytest.mark.parametrize("block_memory", [2**28, 4000])
def test_backed(tmp_path, make, block_memory):
    adata = cells()
    expected = table(adata, None, "mean")
    adata.X = make(adata.X)
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    al.settings.block_memory = block_memory
    assert_bulk(al.pp.pseudobulk(backed, "donor_id", min_cells=1), expected)
    backed.file.close()


def test_views_and_order():
    adata = cells()
    order = np.random.default_rng(1).permutation(adata.n_obs)
    one, other = (al.pp.pseudobulk(a, "donor_id", layer="log") for a in (adata, adata[order]))
    np.testing.assert_allclose(one.X, other.X, rtol=1e-13)
    pd.testing.assert_frame_equal(one.obs, other.obs)


def test_missing_values_stay_where_they_are():
    adata = cells()
    x = adata.X.toarray()
    x[np.flatnonzero(adata.obs["donor_id"] == "d3")[0], 2] = np.nan
    adata.X = x
    bulk = al.pp.pseudobulk(adata, "donor_id", min_cells=1)
    assert np.argwhere(np.isnan(bulk.X)).tolist() == [[3, 2]]


def test_it_is_written_and_read(tmp_path):
    bulk = al.pp.pseudobulk(cells(), "donor_id")
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    again = ad.read_h5ad(tmp_path / "bulk.h5ad")
    np.testing.assert_array_equal(again.X, bulk.X)
    assert list(again.obs) == list(bulk.obs)


def test_bad_input():
    adata = cells()
    before = adata.copy()
    with pytest.raises(KeyError, match="donor_key='donor': no such column in adata.obs; did you mean 'donor_id'"):
        al.pp.pseudobulk(adata, "donor")
    with pytest.raises(KeyError, match="by='types': no such column in adata.obs; did you mean 'type'"):
        al.pp.pseudobulk(adata, "donor_id", by="types")
    with pytest.raises(ValueError, match="by='donor_id': is the column of the donors; name one of cell types"):
        al.pp.pseudobulk(adata, "donor_id", by="donor_id")
    with pytest.raises(ValueError, match="func: must be 'mean' or 'sum', received 'median'"):
        al.pp.pseudobulk(adata, "donor_id", func="median")
    with pytest.raises(ValueError, match="min_cells=1000: no donor has so many cells, the most are"):
        al.pp.pseudobulk(adata, "donor_id", min_cells=1000)
    for wrong in (0, 2.5, True, None):
        with pytest.raises(ValueError, match="min_cells: must be a whole number, at least 1, received"):
            al.pp.pseudobulk(adata, "donor_id", min_cells=wrong)
    with pytest.raises(KeyError, match="layer='lg': not in adata.layers; did you mean 'log'"):
        al.pp.pseudobulk(adata, "donor_id", layer="lg")
    adata.obs["none"] = np.nan
    with pytest.raises(ValueError, match="donor_key='none': no cell is left that has a donor"):
        al.pp.pseudobulk(adata, "none")
    del adata.obs["none"]
    pd.testing.assert_frame_equal(adata.obs, before.obs)
