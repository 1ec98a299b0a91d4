"""The same numbers whatever holds the features: type, order, dtype, chunks, offset, and how little memory there is."""

from __future__ import annotations

import contextlib
import threading

import anndata as ad
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from helpers import untouched
from scipy import sparse

import annlmm as al
from annlmm.blocks import Limits, fetch, layout, plan

N, M, DONORS = 120, 37, 9
FIELDS = ("beta", "standard_error", "statistic", "chi_sq", "sigma_sq", "tau_sq", "neg_log10_p_value", "df")


def features(seed=0):
    """Counts, mostly zero, some of them shared by the cells of a donor."""
    rng = np.random.default_rng(seed)
    a = rng.poisson(0.6, (N, M)).astype(np.float64)
    a[:, 3] = 1.0  # constant
    a[:, 4] = 0.0
    a[:, 5] = rng.binomial(2, 0.4, DONORS)[donors()]
    return a


def donors():
    return np.r_[np.arange(DONORS), np.random.default_rng(1).integers(0, DONORS, N - DONORS)]


def adata_of(x, kernel, *, missing_rows=(), phenotypes=1):
    rng = np.random.default_rng(7)
    obs = pd.DataFrame(
        {
            "age": rng.normal(50, 10, N),
            "arm": np.repeat([0.0, 1.0], [N // 2, N - N // 2]),
            "donor": pd.Categorical([f"d{i}" for i in donors()]),
        },
        index=[f"c{i}" for i in range(N)],
    )
    names = [f"y{t}" for t in range(phenotypes)]
    effects = rng.normal(size=(DONORS, phenotypes))
    for t, name in enumerate(names):
        obs[name] = rng.normal(size=N) + 0.8 * effects[donors(), t] + 0.02 * obs["age"]
        obs.loc[obs.index[list(missing_rows)], name] = np.nan
    adata = ad.AnnData(np.zeros((N, M)) if x is None else x, obs=obs)
    adata.var_names = [f"g{j}" for j in range(M)]
    if kernel == "group":
        al.pp.kernel_group(adata, "donor")
    elif kernel == "related":
        z = rng.normal(size=(DONORS, 30))
        levels = list(adata.obs["donor"].cat.categories)
        al.pp.kernel_group(adata, "donor", relatedness=pd.DataFrame(z @ z.T / 30, index=levels, columns=levels))
    elif kernel is not None:
        adata.obsm["X_pca"] = rng.normal(size=(N, {"low": 6, "full": N + 5}[kernel]))
        al.pp.kernel_linear(adata, "X_pca")
    with_y = {"phenotype": names if phenotypes > 1 else names[0], "covariates": ["age", "arm"]}
    al.tl.fit_null(adata, **with_y, **({"kernel": None} if kernel is None else {"gamma": 0.7}))
    return adata


def dense_chunks(x, chunks):
    return da.from_array(x, chunks=chunks)


def sparse_chunks(x, chunks, kind=sparse.csr_matrix):
    """Meta is sparse, as anndata's `read_elem_lazy` makes it."""
    lazy = da.from_array(x, chunks=chunks).map_blocks(kind, dtype=x.dtype, meta=kind((0, 0), dtype=x.dtype))
    return lazy


def stored(kind, **options):
    def make(x, tmp_path):
        if kind == "h5":
            file = h5py.File(tmp_path / "x.h5", "w")
            return file.create_dataset("x", data=x, **options)
        return zarr.create_array(str(tmp_path / "x.zarr"), data=x, **options)

    return make


def backed_sparse(kind, store):
    def make(x, tmp_path):
        from anndata.io import sparse_dataset, write_elem

        path = tmp_path / f"x.{store}"
        group = h5py.File(path, "w") if store == "h5" else zarr.open_group(str(path), mode="w")
        write_elem(group, "x", kind(x))
        return sparse_dataset(group["x"])

    return make


IN_MEMORY = {
    "C": lambda x, _: np.ascontiguousarray(x),
    "F": lambda x, _: np.asfortranarray(x),
    "strided": lambda x, _: np.repeat(x, 2, axis=1)[:, ::2],
    "csr_matrix": lambda x, _: sparse.csr_matrix(x),
    "csr_array": lambda x, _: sparse.csr_array(x),
    "csc_matrix": lambda x, _: sparse.csc_matrix(x),
    "csc_array": lambda x, _: sparse.csc_array(x),
}
STORED = {
    "h5 contiguous": stored("h5"),
    "h5 row chunks": stored("h5", chunks=(13, M)),
    "h5 column chunks": stored("h5", chunks=(N, 5), compression="gzip"),
    "h5 tiles": stored("h5", chunks=(13, 5)),
    "zarr tiles": stored("zarr", chunks=(13, 5)),
    "h5 csr": backed_sparse(sparse.csr_matrix, "h5"),
    "h5 csc": backed_sparse(sparse.csc_matrix, "h5"),
    "zarr csr": backed_sparse(sparse.csr_matrix, "zarr"),
    "zarr csc": backed_sparse(sparse.csc_matrix, "zarr"),
}
LAZY = {
    "dask dense": lambda x, _: dense_chunks(x, (50, 11)),
    "dask dense rows": lambda x, _: dense_chunks(x, (17, M)),
    "dask dense columns": lambda x, _: dense_chunks(x, (N, 4)),
    "dask one chunk": lambda x, _: dense_chunks(x, (N, M)),
    "dask csr": lambda x, _: sparse_chunks(x, (33, M)),
    "dask csc": lambda x, _: sparse_chunks(x, (N, 6), sparse.csc_matrix),
    "dask csr tiles": lambda x, _: sparse_chunks(x, (33, 10)),
}
MAKERS = IN_MEMORY | STORED | LAZY


@pytest.fixture
def little_memory():
    """So little that every store is cut into rows and columns."""
    before = al.settings.block_memory
    al.settings.block_memory = 40_000
    yield
    al.settings.block_memory = before


def table(adata, x, **options):
    """Results for `x` as a layer of nothing but itself."""
    from annlmm.tl import _associate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_associate, "feature_matrix", lambda *_: x)
        out = adata.copy()
        al.tl.associate(out, **options)
    return al.get.association(out)


def assert_agree(got, expected):
    assert list(got["status"]) == list(expected["status"])
    ok = (expected["status"].isin(["ok", "boundary"])).to_numpy()
    assert ok.sum() > M / 2
    # What the issue asks for: effects to 1e-10 standard errors, statistics to 1e-9 relative; F and χ² are β²/SE² and
    # cross zero, where the error is that of the effect.
    se = expected["standard_error"].to_numpy()[ok]
    z = np.abs(expected["beta"].to_numpy()[ok]) / se
    assert np.max(np.abs(got["beta"] - expected["beta"]).to_numpy()[ok] / se) <= 1e-10
    for name in FIELDS:
        if name in ("beta", "df") or name not in expected:
            continue
        a, b = got[name].to_numpy()[ok], expected[name].to_numpy()[ok]
        atol = 1e-10 * np.maximum(z, 1) if name in ("statistic", "chi_sq", "neg_log10_p_value") else 0.0
        assert np.all(np.abs(a - b) <= 1e-9 * np.abs(b) + atol), name
    assert got[~ok]["beta"].isna().all()


KERNELS = ["group", "related", "low", "full", None]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_every_array_type(maker, kernel, offset, tmp_path, little_memory):
    x = features()
    adata = adata_of(x, kernel)
    al.settings.block_memory = 2**28
    expected = table(adata, x)
    al.settings.block_memory = 40_000
    # An offset is exact in these numbers; x + 1e7 is not sparse any more, but may still be stored so.
    assert_agree(table(adata, MAKERS[maker](x + offset, tmp_path)), expected)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("dtype", ["float32", "int64", "int8", "uint16", "bool"])
def test_every_dtype(maker, dtype, tmp_path, little_memory):
    x = features().astype(dtype)
    adata = adata_of(x, "low")
    assert_agree(table(adata, MAKERS[maker](x, tmp_path)), table(adata, x.astype(np.float64)))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("kernel", ["group", "full"])
def test_rows_columns_and_missing_values(maker, kernel, tmp_path, little_memory):
    """Rows without a phenotype, a mask of features, NaN among the values: equal to the same by hand."""
    x = features()
    x[np.random.default_rng(3).random(x.shape) < 0.05] = np.nan
    x[:, 8] = np.nan
    rows = [0, 5, 6, 60, N - 1]
    used = np.setdiff1d(np.arange(N), rows)
    adata = adata_of(None, kernel, missing_rows=rows)
    mask = np.random.default_rng(4).random(M) < 0.8
    mask[8] = True
    by_hand = x.copy()
    by_hand[:, 8] = 0.0
    mean = np.nanmean(by_hand[used], axis=0)
    by_hand = np.where(np.isnan(by_hand), mean, by_hand)
    got = table(adata, MAKERS[maker](x, tmp_path), mask_var=mask)
    assert (got["status"][~mask] == "masked").all()
    assert got["status"].iloc[8] == "all_missing"
    expected = table(adata, by_hand, mask_var=mask)
    status = expected["status"].astype(object)
    status.iloc[8] = "all_missing"
    assert_agree(got, expected.assign(status=status))
    first = np.flatnonzero(np.isnan(x[used]).any(axis=0) & mask)[0]
    again = tmp_path / "again"
    again.mkdir()
    with pytest.raises(ValueError, match=r"feature.* 'g\d+'.*: missing values; use missing='mean'") as error:
        table(adata, MAKERS[maker](x, again), missing="raise")
    if maker in IN_MEMORY:
        assert f"'g{first}'" in str(error.value)


@pytest.mark.parametrize("maker", ["C", "csr_matrix", "csc_array", "h5 tiles", "zarr csr", "dask dense", "dask csr"])
@pytest.mark.parametrize(
    "options",
    [{"variance": "refit"}, {"variance": "screen", "threshold": 0.5}, {"test": "score"}, {"test": "lrt"}],
    ids=str,
)
def test_every_test(maker, options, tmp_path, little_memory):
    """A refit to 1e-6 of log γ: the optimiser stops there, on sums that differ by rounding."""
    x = features()
    for kernel in ("group", "low"):
        adata = adata_of(x, kernel)
        expected = table(adata, x, **options)
        path = tmp_path / kernel
        path.mkdir()
        got = table(adata, MAKERS[maker](x, path), **options)
        for name in FIELDS:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("maker", ["C", "csr_matrix", "h5 tiles", "dask csr"])
def test_several_phenotypes(maker, tmp_path, little_memory):
    x = features()
    adata = adata_of(x, "group", phenotypes=3)
    got, expected = table(adata, MAKERS[maker](x, tmp_path)), table(adata, x)
    for name in FIELDS:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("maker", MAKERS)
def test_infinite_values_are_named(maker, tmp_path, little_memory):
    x = features()
    x[17, 7] = x[100, 20] = np.inf
    adata = adata_of(None, "group")
    with untouched(adata), pytest.raises(ValueError, match=r"feature.* 'g(7|20)'.*: infinite values"):
        table(adata, MAKERS[maker](x, tmp_path))


def test_dask_with_unknown_chunks_is_refused():
    x = features()
    lazy = da.from_array(x, chunks=(50, M))
    lazy = lazy[da.from_array(np.arange(N) >= 0, chunks=50)]
    adata = adata_of(None, "group")
    with untouched(adata), pytest.raises(ValueError, match=r"unknown chunk sizes; call its \.compute_chunk_sizes\(\)"):
        table(adata, lazy)


@pytest.mark.parametrize("maker", MAKERS)
def test_blocks_keep_to_the_memory(maker, tmp_path):
    """Every plan covers each row and column once, and what is in flight keeps to the limit (or is as small as can be)."""
    x = MAKERS[maker](features(), tmp_path)
    rows, columns = np.arange(3, N), np.arange(1, M, 2)
    for memory in (3_000, 40_000, 10_000_000):
        for statistics in (4, 15, N):
            limits = Limits(memory, 2, statistics)
            seen = np.zeros((N, M), dtype=int)
            for tile in plan(layout(x), rows, columns, limits):
                sizes = [block.stop - block.start for block in tile.blocks]
                for block in tile.blocks:
                    seen[np.ix_(rows[block.start : block.stop], tile.columns)] += 1
                if maker in IN_MEMORY or tile.columns.size == 1 or len(sizes) == 1:
                    continue
                held = 3 * 8 * (max(sizes) * tile.columns.size + statistics * tile.columns.size)
                assert held <= 2 * memory or max(sizes) <= layout(x).chunk[0], (tile.columns.size, sizes)
            assert (seen[np.ix_(rows, columns)] == 1).all()
            assert seen.sum() == rows.size * columns.size


@pytest.mark.parametrize("maker", MAKERS)
def test_fetch(maker, tmp_path):
    a = features()
    x = MAKERS[maker](a, tmp_path)
    for rows in (np.arange(N), np.arange(4, 50), np.array([0, 3, 77, 119])):
        for columns in (np.arange(M), np.arange(2, 9), np.array([1, 30, 36])):
            part = fetch(x, rows, columns)
            part = part.toarray() if sparse.issparse(part) else part
            np.testing.assert_array_equal(part, a[np.ix_(rows, columns)])


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.csc_array])
def test_a_range_of_a_sparse_matrix_in_memory_is_a_view(kind):
    x = kind(features())
    rows, columns = np.arange(N), np.arange(M)
    part = fetch(x, rows[5:20], columns) if x.format == "csr" else fetch(x, rows, columns[5:20])
    for name in ("data", "indices"):
        assert np.shares_memory(getattr(part, name), getattr(x, name)), name


def test_an_interrupt_in_the_middle_leaves_adata_as_it_was(monkeypatch):
    """At the tenth read, of any kind of block."""
    from annlmm.tl import _pass

    x = features()
    for matrix in (x, sparse.csr_matrix(x), da.from_array(x, chunks=(20, 5))):
        adata = adata_of(None, "group")
        calls = []

        def interrupted(*arguments, calls=calls, real=_pass.as_float, **options):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        monkeypatch.setattr("annlmm.tl._pass.as_float", interrupted)
        monkeypatch.setattr("annlmm.blocks._dask.as_float", interrupted)
        monkeypatch.setattr(al.settings, "block_memory", 40_000)
        with untouched(adata), pytest.raises(KeyboardInterrupt):
            table(adata, matrix)
        monkeypatch.undo()
        assert (table(adata, matrix)["status"] == "ok").sum() > M / 2


def test_two_scans_in_two_threads():
    x = features()
    adata = [adata_of(x, kernel) for kernel in ("group", "full")]
    matrices = [sparse.csr_matrix(x), x]
    expected = [al.get.association(_scanned(a)) for a in adata]
    results: dict[int, list[pd.DataFrame]] = {0: [], 1: []}

    def work(i):
        for _ in range(5):
            mine = adata[i].copy()
            mine.X = matrices[i]
            results[i].append(al.get.association(_scanned(mine)))

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for i in (0, 1):
        assert len(results[i]) == 5
        for got in results[i]:
            assert_agree(got, expected[i])


def _scanned(adata):
    with contextlib.suppress(KeyError):
        del adata.var["lmm_beta"]
    al.tl.associate(adata)
    return adata


@pytest.mark.parametrize("maker", [name for name in MAKERS if name not in LAZY])
@pytest.mark.parametrize("kernel", ["group", "low"])
def test_memory_of_a_scan(maker, kernel, tmp_path, monkeypatch):
    """What a scan of 20 MB allocates at its peak: the blocks in flight, and the results."""
    import tracemalloc

    n, m, memory = 4000, 600, 3_000_000
    rng = np.random.default_rng(2)
    x = rng.poisson(0.2, (n, m)).astype(np.float64)
    options = {"chunks": (100, 40)} if "tiles" in maker else {}
    if "row chunks" in maker:
        options = {"chunks": (100, m)}
    if "column chunks" in maker:
        options = {"chunks": (n, 5)}
    matrix = (
        stored(maker[:2] if maker[:2] == "h5" else "zarr", **options)(x, tmp_path)
        if options
        else MAKERS[maker](x, tmp_path)
    )
    obs = pd.DataFrame({"donor": pd.Categorical(rng.integers(0, 20, n).astype(str)), "y": rng.normal(size=n)})
    adata = ad.AnnData(sparse.csr_matrix((n, m)), obs=obs.set_index(obs.index.astype(str)))
    adata.obsm["X_pca"] = rng.normal(size=(n, 5))
    if kernel == "group":
        al.pp.kernel_group(adata, "donor")
    else:
        al.pp.kernel_linear(adata, "X_pca")
    al.tl.fit_null(adata, "y", gamma=0.3)
    table(adata, matrix)  # compiles
    monkeypatch.setattr(al.settings, "block_memory", memory)
    monkeypatch.setattr(al.settings, "threads", 2)
    from annlmm.tl import _associate

    monkeypatch.setattr(_associate, "feature_matrix", lambda *_: matrix)
    tracemalloc.start()
    al.tl.associate(adata)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # n × (U, Q, y, a few of their copies) and the tables are small: 30 columns of n or m numbers. Half of the limit is for what is
    # read and half for sums; a conversion to float64 and a selection hold a block twice for a moment.
    assert peak <= 1.5 * memory + 30 * 8 * (n + m), f"{peak / 1e6:.1f} MB"
