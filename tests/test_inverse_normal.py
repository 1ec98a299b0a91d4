"""Rank-based inverse normal transform against its definition and scipy's normal quantiles."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import integrate, sparse, stats

import annlmm as al


def naive(column: np.ndarray, offset: float) -> np.ndarray:
    """By the formula, one feature at a time, ranks by counting."""
    z = np.full(column.size, np.nan)
    present = column[~np.isnan(column)]
    for i, value in enumerate(column):
        if not np.isnan(value):
            rank = (present < value).sum() + ((present == value).sum() + 1) / 2
            z[i] = stats.norm.ppf((rank - offset) / (present.size - 2 * offset + 1))
    return z


def messy(n=40, m=7, seed=0) -> np.ndarray:
    """Ties, missing values, outliers, a constant and an empty feature."""
    x = np.random.default_rng(seed).standard_normal((n, m))
    x[:, 1] = np.round(x[:, 1])
    x[::5, 2] = np.nan
    x[3, 3] = 1e12
    x[:, 4] = 7.0
    x[:, 5] = np.nan
    x[1:, 6] = np.nan
    return x


@pytest.mark.parametrize("offset", [3 / 8, 0.5, 0.0])
def test_definition(offset):
    x = messy()
    adata = ad.AnnData(x.copy())
    assert al.pp.inverse_normal(adata, offset=offset) is None
    expected = np.column_stack([naive(column, offset) for column in x.T])
    # Both quantile functions are good to a few units in the last place of values below 3.
    np.testing.assert_allclose(adata.X, expected, rtol=0, atol=1e-14)
    assert (adata.X[:, 4] == 0).all()
    assert np.isnan(adata.X[:, 5]).all()
    assert adata.X[0, 6] == 0


def test_blom_is_near_the_expected_order_statistics():
    """The largest of 20: E = ∫ x 20 φ(x) Φ(x)¹⁹ dx; Blom's approximation errs by less than 0.01 there."""
    expected, _ = integrate.quad(lambda x: x * 20 * stats.norm.pdf(x) * stats.norm.cdf(x) ** 19, -10, 10)
    adata = ad.AnnData(np.arange(20.0)[:, None])
    al.pp.inverse_normal(adata)
    assert abs(adata.X.max() - expected) < 0.01


@pytest.mark.parametrize("monotone", [lambda x: x**3, np.exp, lambda x: 1e7 + x])
def test_only_ranks_count(monotone):
    x = np.random.default_rng(2).standard_normal((30, 4))
    one, other = ad.AnnData(x), ad.AnnData(monotone(x))
    al.pp.inverse_normal(one)
    al.pp.inverse_normal(other)
    np.testing.assert_array_equal(one.X, other.X)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.astype(np.float32),
        lambda x: x.astype(np.int32),
        np.asfortranarray,
        sparse.csr_matrix,
        sparse.csc_matrix,
        sparse.csr_array,
        lambda x: pytest.importorskip("dask.array").from_array(x, chunks=(7, 3)),
    ],
)
@pytest.mark.parametrize("block_memory", [2**28, 2000])
def test_array_types_and_blocks(make, block_memory):
    x = np.random.default_rng(3).poisson(1.0, (25, 9)).astype(float)
    al.settings.block_memory = block_memory
    adata = ad.AnnData(make(x))
    al.pp.inverse_normal(adata)
    assert isinstance(adata.X, np.ndarray)
    assert adata.X.dtype == np.float64
    expected = np.column_stack([naive(column, 3 / 8) for column in x.T])
    np.testing.assert_allclose(adata.X, expected, rtol=0, atol=1e-14)


def test_where_it_is_written():
    x = messy()
    adata = ad.AnnData(x.copy(), layers={"log": x**3})
    new = al.pp.inverse_normal(adata, layer="log", copy=True)
    np.testing.assert_array_equal(adata.layers["log"], x**3)
    al.pp.inverse_normal(adata, layer="log", key_added="z")
    np.testing.assert_array_equal(adata.layers["log"], x**3)
    np.testing.assert_array_equal(adata.X, x)
    np.testing.assert_array_equal(adata.layers["z"], new.layers["log"])
    al.pp.inverse_normal(adata, key_added="from_x")
    np.testing.assert_array_equal(adata.X, x)
    al.pp.inverse_normal(adata)
    np.testing.assert_array_equal(adata.X, adata.layers["from_x"])


@pytest.mark.parametrize("key_added", [None, "z"])
def test_a_view_leaves_its_parent_alone(key_added):
    x = messy()
    parent = ad.AnnData(x.copy())
    view = parent[np.arange(30)[::-1], [0, 3]]
    al.pp.inverse_normal(view, key_added=key_added)
    np.testing.assert_array_equal(parent.X, x)
    assert not view.is_view
    expected = np.column_stack([naive(column, 3 / 8) for column in x[:30][::-1, [0, 3]].T])
    found = view.X if key_added is None else view.layers["z"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_backed(tmp_path):
    x = np.random.default_rng(4).standard_normal((20, 3))
    ad.AnnData(x).write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(ValueError, match="adata is backed: writing to .X would change the file; name a layer"):
        al.pp.inverse_normal(backed)
    al.pp.inverse_normal(backed, key_added="z")
    new = al.pp.inverse_normal(backed, copy=True)
    np.testing.assert_array_equal(new.X, backed.layers["z"])
    backed.file.close()
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "x.h5ad").X, x)


def test_bad_input():
    adata = ad.AnnData(np.array([[1.0, 2.0], [np.inf, 3.0]]))
    for offset in (1, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"offset: must be in \[0, 1\), e.g. 3/8, received"):
            al.pp.inverse_normal(adata, offset=offset)
    with pytest.raises(TypeError, match="offset: must be a number, received 'blom'"):
        al.pp.inverse_normal(adata, offset="blom")
    with pytest.raises(ValueError, match="infinite values; set them to NaN"):
        al.pp.inverse_normal(adata)
    with pytest.raises(KeyError, match="layer='log': not in adata.layers"):
        al.pp.inverse_normal(adata, layer="log")
    with pytest.raises(ValueError, match="key_added: must be a non-empty name without '/'"):
        al.pp.inverse_normal(adata, key_added="a/b")
    al.settings.kernel_memory = 16
    with pytest.raises(MemoryError, match="transform fewer features at a time"):
        al.pp.inverse_normal(adata)
    assert np.isinf(adata.X[1, 0])
