"""The scan as a dask graph on worker processes: the same numbers, also when a worker dies in the middle of it."""

from __future__ import annotations

import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from helpers import donors_with_fit
from scipy import sparse

import annlmm as al

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


def lazy_like(x, chunks, die_once=None):
    """Sparse chunks; the first task that comes by takes its worker down, if `die_once` names a file that is not there yet."""

    def chunk(block):
        if die_once is not None and not Path(die_once).exists():
            Path(die_once).touch()
            os._exit(1)
        return sparse.csr_matrix(block)

    return da.from_array(x, chunks=chunks).map_blocks(
        chunk, dtype=x.dtype, meta=sparse.csr_matrix((0, 0), dtype=x.dtype)
    )


@pytest.mark.parametrize("variance", ["null", "refit"])
def test_workers_get_the_same_numbers(client, variance):
    adata = donors_with_fit()
    expected = adata.copy()
    al.tl.associate(expected, variance=variance)
    for lazy in (lazy_like(adata.X, (100, -1)), da.from_array(adata.X, chunks=(90, 11))):
        mine = adata.copy()
        mine.X = lazy
        al.tl.associate(mine, variance=variance)
        # Sums over other chunks, then (refit) an optimiser that stops at a step of 1e-9 in log γ.
        for name in ("beta", "standard_error", "neg_log10_p_value"):
            np.testing.assert_allclose(mine.var[f"lmm_{name}"], expected.var[f"lmm_{name}"], rtol=1e-7, atol=1e-10)
        assert list(mine.var["lmm_status"]) == list(expected.var["lmm_status"])


def test_the_work_is_done_on_the_workers(client):
    adata = donors_with_fit()
    mine = os.getpid()

    def chunk(block):
        if os.getpid() == mine:
            raise RuntimeError("computed in the client")
        return block

    adata.X = da.from_array(adata.X, chunks=(100, 20)).map_blocks(chunk, meta=np.zeros((0, 0)))
    al.tl.associate(adata)
    assert (adata.var["lmm_status"] == "ok").any()


def test_a_worker_that_dies_changes_nothing(client, tmp_path):
    adata = donors_with_fit()
    expected = adata.copy()
    expected.X = lazy_like(adata.X, (50, 20))
    al.tl.associate(expected)
    marker = tmp_path / "dead"
    before = set(client.nthreads())
    adata.X = lazy_like(adata.X, (50, 20), str(marker))
    al.tl.associate(adata)
    assert marker.exists(), "no worker died"
    client.wait_for_workers(2, timeout=60)
    assert set(client.nthreads()) != before
    for name in ("beta", "standard_error", "p_value"):
        np.testing.assert_array_equal(adata.var[f"lmm_{name}"], expected.var[f"lmm_{name}"])


def test_an_error_on_a_worker_reaches_the_user(client):
    adata = donors_with_fit()
    x = adata.X.copy()
    x[7, 3] = np.nan
    adata.X = da.from_array(x, chunks=(100, 20))
    with pytest.raises(ValueError, match=r"feature 'gene_0*4': missing values; use missing='mean'"):
        al.tl.associate(adata, missing="raise")
    assert "lmm_beta" not in adata.var
