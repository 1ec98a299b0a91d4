"""`al.pp.kernel_rbf` against scikit-learn's kernel, by each way in which it is computed, alone and in families."""

from __future__ import annotations

import anndata as ad
import numpy as np
import oracle
import pandas as pd
import pytest
from helpers import assert_same, cohort, messages, portable, snapshot, untouched
from scipy import sparse
from scipy.spatial.distance import pdist
from sklearn.gaussian_process.kernels import RBF

import annlmm as al
from annlmm._slots.kernel import read_basis, read_family, usable_rows
from annlmm.model.rbf import middle_scale, rbf_factor, rbf_matrix, rbf_multiply
from annlmm.pp import _kernel_rbf as module

# Eigenvalues up to n · 2e-16 · λ₁ ≤ n² · 2e-16 are left out as round-off; n = 300. A factor is exact to 1e-12.
EXACT = {"rtol": 0, "atol": 2e-11}


def placed(n=40, d=2, extent=10.0, seed=0):
    adata = cohort(n)
    adata.obsm["spatial"] = np.random.default_rng(seed).uniform(0, extent, (n, d))
    return adata


def stored(adata, key="kernel"):
    return al.get.kernel(adata, key).to_numpy()


def mean_diagonal(k):
    h = oracle.centring(len(k))
    return np.trace(h @ k @ h) / len(k)


# ------------------------------------------------------------------------------------------- the matrix


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("length_scale", [0.05, 1.0, 4.0, 30.0])
def test_is_scikit_learns(d, length_scale):
    """Short scales make a full-rank matrix, long ones in few dimensions a factor."""
    adata = placed(300, d)
    al.pp.kernel_rbf(adata, length_scale=length_scale, scale=False)
    np.testing.assert_allclose(stored(adata), RBF(length_scale)(adata.obsm["spatial"]), **EXACT)
    entry = adata.uns["kernel"]
    assert entry["params"]["length_scale"] == length_scale
    assert entry["method"] == "rbf"
    assert entry["centered"] is False
    assert (entry["eigenvalues"] > 0).all()
    # the trace is n, less what rounding took
    assert entry["eigenvalues"].sum() == pytest.approx(300, rel=1e-12)


@pytest.mark.parametrize(("d", "length_scale"), [(1, 0.3), (1, 50.0), (2, 2.0), (2, 20.0), (3, 5.0)])
def test_the_factor_is_exact(d, length_scale):
    x = np.random.default_rng(1).uniform(-3, 7, (200, d))
    factor = rbf_factor(x, length_scale, 10**4)
    np.testing.assert_allclose(factor @ factor.T, RBF(length_scale)(x), rtol=0, atol=1e-12)


def test_the_factor_is_no_wider_than_asked():
    x = np.random.default_rng(1).uniform(0, 10, (50, 2))
    m = rbf_factor(x, 5.0, 10**4).shape[1]
    assert rbf_factor(x, 5.0, m).shape[1] == m
    assert rbf_factor(x, 5.0, m - 1) is None
    assert rbf_factor(x, 1e-9, 1000) is None  # seen at once, not after a grid of 10¹⁰ nodes


def test_the_factor_of_a_line_and_of_places_that_repeat():
    x = np.repeat(np.linspace(0, 1, 30), 4)[:, None] * [3.0, 0.0, 1.0]
    factor = rbf_factor(x, 0.7, 10**4)
    np.testing.assert_allclose(factor @ factor.T, RBF(0.7)(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 7, 60, 1000])
def test_products_by_blocks_of_rows(rows):
    rng = np.random.default_rng(2)
    x, v = rng.uniform(size=(60, 2)), rng.standard_normal((60, 3))
    # sums of 60 products in another order
    np.testing.assert_allclose(rbf_multiply(x, 0.2, v, rows), RBF(0.2)(x) @ v, rtol=0, atol=1e-13)


def test_far_from_the_origin():
    adata = placed(60)
    al.pp.kernel_rbf(adata, length_scale=2.0)
    adata.obsm["far"] = adata.obsm["spatial"] + 1e7
    al.pp.kernel_rbf(adata, "far", length_scale=2.0, key_added="moved")
    # the offset costs 1e7 · 1e-16 of each coordinate
    np.testing.assert_allclose(stored(adata, "moved"), stored(adata), rtol=0, atol=1e-8)


@pytest.mark.parametrize("c", [1e-6, 1e6])
def test_the_unit_of_the_coordinates_does_not_matter(c):
    adata = placed(60)
    al.pp.kernel_rbf(adata)
    adata.obsm["scaled"] = adata.obsm["spatial"] * c
    al.pp.kernel_rbf(adata, "scaled", key_added="other")
    np.testing.assert_allclose(stored(adata, "other"), stored(adata), rtol=0, atol=1e-11)
    assert adata.uns["other"]["params"]["length_scale"] == pytest.approx(
        c * adata.uns["kernel"]["params"]["length_scale"], rel=1e-12
    )


@pytest.mark.parametrize("kind", ["frame", "float32", "int", "sparse", "one column"])
def test_coordinates_of_any_storage(kind):
    adata = placed()
    x = np.round(adata.obsm["spatial"] * 8)
    given = {
        "frame": pd.DataFrame(x, index=adata.obs_names, columns=["x", "y"]),
        "float32": x.astype(np.float32),
        "int": x.astype(np.int64),
        "sparse": sparse.csr_matrix(x),
        "one column": x[:, :1],
    }
    adata.obsm["spatial"] = given[kind]
    with untouched(adata, besides="kernel"):
        al.pp.kernel_rbf(adata, length_scale=9.0, scale=False)
    np.testing.assert_allclose(stored(adata), RBF(9.0)(x[:, :1] if kind == "one column" else x), **EXACT)


# ------------------------------------------------------------------------------------------- the default length scale


def test_the_default_length_scale():
    """Of places that differ: the geometric mean of the median distance and the median distance to the nearest."""
    adata = placed(50)
    x = adata.obsm["spatial"]
    x[10:14] = x[0]
    d = np.linalg.norm(x[:, None] - x, axis=2)
    nearest = [min(v for v in row if v > 0) for row in d]
    between = [d[i, j] for i in range(50) for j in range(i) if d[i, j] > 0]
    with messages() as seen:
        al.pp.kernel_rbf(adata)
    value = adata.uns["kernel"]["params"]["length_scale"]
    assert value == pytest.approx(np.sqrt(np.median(nearest) * np.median(between)), rel=1e-12)
    assert (
        f"INFO kernel_rbf: length_scale={value:.4g}, between the distance to the nearest and the median distance"
        in seen
    )


def test_the_default_length_scale_of_many_is_that_of_a_sample():
    x = np.random.default_rng(3).uniform(size=(6000, 2))
    # medians of 2000 draws: nearest distances have a deviation of half their mean, hence 1.2 · 0.5 / √2000 of it
    whole = middle_scale(x, most=6000)
    assert middle_scale(x) == pytest.approx(whole, rel=0.03)
    assert middle_scale(x) == middle_scale(x)
    # a square of side 1: 0.51 between two points; n points have half of them within √(log 2 / (π n)) of the nearest
    assert whole == pytest.approx(np.sqrt(0.512 * np.sqrt(np.log(2) / np.pi / 6000)), rel=0.03)
    assert np.median(pdist(x[:1000])) == pytest.approx(0.512, rel=0.02)


def test_most_observations_at_one_place():
    adata = placed()
    adata.obsm["spatial"][:30] = 5.0
    al.pp.kernel_rbf(adata)
    assert adata.uns["kernel"]["params"]["length_scale"] > 0


# ------------------------------------------------------------------------------------------- scale, rank


@pytest.mark.parametrize("scale", [True, False, None])
def test_the_scale_law(scale):
    adata = placed(60)
    k = RBF(1.5)(adata.obsm["spatial"])
    al.pp.kernel_rbf(adata, length_scale=1.5, **({} if scale is None else {"scale": scale}))
    t = mean_diagonal(k) if scale is False else 1.0
    np.testing.assert_allclose(stored(adata), k * t / mean_diagonal(k), rtol=0, atol=1e-11)
    assert adata.uns["kernel"]["trace_scale"] == pytest.approx(t, rel=1e-12)


@pytest.mark.parametrize("length_scale", [0.5, 8.0])
@pytest.mark.parametrize("rank", [5, 0.5, 0.95])
def test_rank_keeps_the_leading_part(rank, length_scale):
    adata = placed(120)
    values = np.linalg.eigvalsh(RBF(length_scale)(adata.obsm["spatial"]))[::-1]
    al.pp.kernel_rbf(adata, length_scale=length_scale, rank=rank, scale=False)
    kept = 5 if rank == 5 else int(np.searchsorted(np.cumsum(values) / values.sum(), rank)) + 1
    entry = adata.uns["kernel"]
    np.testing.assert_allclose(entry["eigenvalues"], values[:kept], rtol=0, atol=1e-11)
    assert entry["explained"] == pytest.approx(values[:kept].sum() / values.sum(), rel=1e-11)


WAYS = {
    # of 2100 places in a square of side 10, with memory for so many columns of 2100
    "factor": (4.0, 2100),
    "matrix": (0.4, 2100),
    "blocks of rows": (0.4, 1500),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_small_rank_of_many_observations(way, monkeypatch):
    """By iterations on the factor, the matrix in memory, or the matrix made anew: the leading part of LAPACK's."""
    length_scale, columns = WAYS[way]
    adata = placed(2100)
    x = adata.obsm["spatial"]
    al.settings.kernel_memory = 8 * 2100 * columns
    al.settings.block_memory = 8 * 2100 * 500
    used = []
    for name in ("rbf_multiply", "rbf_matrix", "from_factor"):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, f=function, name=name: used.append(name) or f(*a))
    al.pp.kernel_rbf(adata, length_scale=length_scale, rank=30, scale=False)
    assert set(used) == {"factor": set(), "matrix": {"rbf_matrix"}, "blocks of rows": {"rbf_multiply"}}[way]
    values, vectors = np.linalg.eigh(RBF(length_scale)(x))
    values, vectors = values[::-1][:30], vectors[:, ::-1][:, :30]
    entry, u = adata.uns["kernel"], adata.obsm["kernel"]
    # residuals of 1e-10 ‖K‖
    np.testing.assert_allclose(entry["eigenvalues"], values, rtol=0, atol=1e-10 * values[0])
    np.testing.assert_allclose(u.T @ u, np.eye(30), atol=1e-12)
    assert entry["explained"] == pytest.approx(values.sum() / 2100, rel=1e-9)
    whole, low = (vectors * values) @ vectors[:300].T, (u * entry["eigenvalues"]) @ u[:300].T
    # vectors turn by residual over gap, of which K sees the product with differences of eigenvalues; K_ij is below 1
    np.testing.assert_allclose(low, whole, rtol=0, atol=1e-7)


def test_the_full_rank_of_many_observations_by_the_factor():
    """No n × n matrix fits, and none is needed: the fit is that of the matrix."""
    adata = placed(2100)
    al.settings.kernel_memory = 8 * 2100 * 1000
    al.pp.kernel_rbf(adata, length_scale=4.0, scale=False)
    u, s = adata.obsm["kernel"], adata.uns["kernel"]["eigenvalues"]
    x = adata.obsm["spatial"]
    np.testing.assert_allclose((u * s) @ u[:200].T, rbf_matrix(x, x[:200], 4.0), rtol=0, atol=2e-12)


def test_a_share_of_many_observations():
    adata = placed(2100)
    al.pp.kernel_rbf(adata, length_scale=0.8, rank=0.6, scale=False)
    values = np.linalg.eigvalsh(RBF(0.8)(adata.obsm["spatial"]))[::-1]
    kept = int(np.searchsorted(np.cumsum(values), 0.6 * 2100)) + 1
    entry = adata.uns["kernel"]
    assert entry["eigenvalues"].size == kept
    assert entry["explained"] == pytest.approx(values[:kept].sum() / 2100, rel=1e-9)


# ------------------------------------------------------------------------------------------- use

ROWS = {
    "some": np.flatnonzero(np.random.default_rng(2).uniform(size=40) < 0.6),
    "permuted": np.random.default_rng(3).permutation(40),
    "some, permuted": np.random.default_rng(4).permutation(40)[:22],
}


@pytest.mark.parametrize("rank", [None, 7])
@pytest.mark.parametrize("which", ROWS)
def test_the_kernel_of_a_subset_is_the_subset_of_the_kernel(which, rank):
    adata, rows = placed(), ROWS[which]
    al.pp.kernel_rbf(adata, length_scale=1.0, rank=rank)
    expected = stored(adata)[np.ix_(rows, rows)]
    np.testing.assert_allclose(stored(adata[rows].copy()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length_scale", [0.7, 6.0])
def test_fit_null_is_the_oracles(length_scale):
    adata = placed(60)
    k = RBF(length_scale)(adata.obsm["spatial"])
    k /= mean_diagonal(k)
    y = (
        adata.obs["y"].to_numpy()
        + np.linalg.cholesky(k + 1e-9 * np.eye(60)) @ np.random.default_rng(5).standard_normal(60) * 3
    )
    adata.obs["y"] = y
    al.pp.kernel_rbf(adata, length_scale=length_scale)
    al.tl.fit_null(adata, "y", covariates=["age"])
    x = np.column_stack([np.ones(60), adata.obs["age"]])
    expected = oracle.fit(y, x, k)
    entry = adata.uns["lmm"]
    assert 0.05 < entry["h_sq"] < 0.999
    # compared values find a minimum to the root of the round-off of the likelihood
    assert entry["gamma"] == pytest.approx(expected.gamma, rel=1e-5)
    assert entry["log_likelihood"] == pytest.approx(expected.log_likelihood, abs=1e-8)


def test_low_rank_fits_as_full_rank_does():
    adata = placed(200)
    k = RBF(1.5)(adata.obsm["spatial"])
    rng = np.random.default_rng(6)
    adata.obs["y"] = np.linalg.cholesky(k + 1e-9 * np.eye(200)) @ rng.standard_normal(200) + rng.standard_normal(200)
    for key, rank in (("full", None), ("low", 1 - 1e-6)):
        al.pp.kernel_rbf(adata, length_scale=1.5, rank=rank, key_added=key)
        al.tl.fit_null(adata, "y", kernel=key, key_added=f"on_{key}")
    assert adata.obsm["low"].shape[1] < 0.8 * adata.obsm["full"].shape[1]
    # The trace left out is 2e-4; at γ ≈ 1 it changes log|I + γK| by as much, and the quadratic form by about as much.
    assert adata.uns["on_low"]["log_likelihood"] == pytest.approx(adata.uns["on_full"]["log_likelihood"], abs=4e-4)
    assert adata.uns["on_low"]["h_sq"] == pytest.approx(adata.uns["on_full"]["h_sq"], abs=1e-4)


def test_a_copy_leaves_adata_as_it_is():
    adata = placed()
    with untouched(adata):
        one = al.pp.kernel_rbf(adata, copy=True)
        several = al.pp.kernel_rbf(adata, length_scale=[1.0, 2.0], copy=True)
    assert one.obsm["kernel"].shape[0] == 40
    assert {"kernel", "kernel_0", "kernel_1"} <= set(several.uns)


# ------------------------------------------------------------------------------------------- families


def family(adata, values=(0.5, 1.0, 3.0), **options):
    al.pp.kernel_rbf(adata, length_scale=list(values), **options)
    return adata


def test_a_family_is_its_kernels_one_by_one():
    adata = family(placed())
    for i, value in enumerate((0.5, 1.0, 3.0)):
        al.pp.kernel_rbf(adata, length_scale=value, key_added="single")
        np.testing.assert_array_equal(adata.obsm[f"kernel_{i}"], adata.obsm["single"])
        member = dict(adata.uns[f"kernel_{i}"])
        assert member.pop("family") == "kernel"
        assert_same(member, dict(adata.uns["single"]))
    assert "kernel" not in adata.obsm


def test_the_entry_of_a_family():
    adata = family(placed(), rank=8)
    entry = adata.uns["kernel"]
    assert set(entry) == {"kind", "method", "params", "parameter", "members", "n_obs", "schema_version"}
    assert (entry["kind"], entry["method"], entry["parameter"], entry["n_obs"]) == ("family", "rbf", "length_scale", 40)
    assert list(entry["members"]) == ["kernel_0", "kernel_1", "kernel_2"]
    np.testing.assert_array_equal(entry["params"]["length_scale"], [0.5, 1.0, 3.0])
    assert {k: entry["params"][k] for k in ("obsm", "rank", "scale")} == {"obsm": "spatial", "rank": 8, "scale": True}
    found = read_family(adata, "kernel")
    assert found.members == ("kernel_0", "kernel_1", "kernel_2")
    assert found.parameter == "length_scale"
    np.testing.assert_array_equal(found.values, [0.5, 1.0, 3.0])
    assert read_family(adata, "kernel_1") is None


@pytest.mark.parametrize("values", [np.array([1.0, 2.0]), (1.0, 2.0), [1, 2], [np.float32(1.0), np.int64(2)]])
def test_a_list_of_any_kind(values):
    adata = placed()
    al.pp.kernel_rbf(adata, length_scale=values)
    np.testing.assert_array_equal(adata.uns["kernel"]["params"]["length_scale"], [1.0, 2.0])


def test_a_list_of_one_is_a_family():
    adata = family(placed(), [2.0])
    assert list(adata.uns["kernel"]["members"]) == ["kernel_0"]


READERS = {
    "get.kernel": lambda adata: al.get.kernel(adata),
    "fit_null": lambda adata: al.tl.fit_null(adata, "y"),
    "read_basis": lambda adata: read_basis(adata, "kernel", np.arange(40)),
    "usable_rows": lambda adata: usable_rows(adata, "kernel"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_family_where_one_kernel_is_needed(name):
    adata = family(placed())
    message = r"kernel='kernel': is a family of 3 kernels, and one is needed; name it by its length_scale: 'kernel_0' \(0\.5\), 'kernel_1' \(1\), 'kernel_2' \(3\)"
    with untouched(adata), pytest.raises(ValueError, match=message):
        READERS[name](adata)
    al.tl.fit_null(adata, "y", kernel="kernel_2")
    assert al.get.kernel(adata, "kernel_0").shape == (40, 40)


def test_a_subset_of_a_family():
    adata = family(placed())
    part = adata[5:30].copy()
    assert read_family(part, "kernel").members == ("kernel_0", "kernel_1", "kernel_2")
    for i in range(3):
        expected = stored(adata, f"kernel_{i}")[5:30, 5:30]
        np.testing.assert_allclose(stored(part, f"kernel_{i}"), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_family_that_lost_a_member(how):
    adata = family(placed())
    if how == "deleted":
        del adata.uns["kernel_1"]
    else:
        al.pp.kernel_rbf(adata, key_added="kernel_1")
    with pytest.raises(
        ValueError,
        match=r"kernel='kernel': a family of 3 kernels, of which 'kernel_1' is gone or replaced; compute the family again",
    ):
        read_family(adata, "kernel")


def test_a_family_that_is_incomplete():
    adata = family(placed())
    del adata.uns["kernel"]["members"]
    with pytest.raises(
        ValueError,
        match=r"kernel='kernel': adata\.uns\['kernel'\] is incomplete \(members; .* compute the kernel again",
    ):
        read_family(adata, "kernel")


def test_no_family_and_no_kernel():
    adata = placed()
    with pytest.raises(KeyError, match=r"kernel='kernel': not in adata\.uns"):
        read_family(adata, "kernel")
    with pytest.raises(TypeError, match=r"kernel: must be the key of a kernel or None"):
        read_family(adata, ["a"])


def test_a_family_under_the_key_of_another_replaces_it():
    adata = placed()
    before = set(snapshot(adata)["uns"])
    family(adata, [0.5, 1.0, 3.0])
    family(adata, [2.0, 4.0])
    assert set(adata.uns) - before == {"kernel", "kernel_0", "kernel_1"}
    assert set(adata.obsm) == {"X_pca", "spatial", "kernel_0", "kernel_1"}
    assert read_family(adata, "kernel").members == ("kernel_0", "kernel_1")
    al.pp.kernel_rbf(adata, length_scale=2.0)
    assert set(adata.uns) - before == {"kernel"}
    assert set(adata.obsm) == {"X_pca", "spatial", "kernel"}
    family(adata, [2.0, 4.0])
    assert set(adata.obsm) == {"X_pca", "spatial", "kernel_0", "kernel_1"}
    al.pp.kernel_group(adata, "donor")
    assert set(adata.uns) - before == {"kernel"}
    assert set(adata.obsm) == {"X_pca", "spatial"}


def test_what_is_no_longer_a_member_stays():
    adata = family(placed())
    al.pp.kernel_rbf(adata, key_added="kernel_2")
    family(adata, [1.0, 2.0])
    assert "family" not in adata.uns["kernel_2"]
    assert "kernel_2" in adata.obsm


def test_a_family_in_a_view():
    parent = placed()
    before = snapshot(parent)
    view = parent[:30]
    with messages("warning") as seen:
        family(view)
    assert "WARNING adata is a view" in seen[0]
    assert_same(snapshot(parent), before)
    assert view.obsm["kernel_2"].shape[0] == 30


@pytest.mark.parametrize("taken", ["kernel", "entry", "array"])
def test_the_key_of_a_member_is_taken(taken):
    adata = placed()
    if taken == "kernel":
        al.pp.kernel_rbf(adata, key_added="kernel_1")
        what = r"adata\.uns\['kernel_1'\] is a kernel of its own"
    elif taken == "entry":
        adata.uns["kernel_1"], what = {"a": 1}, r"adata\.uns\['kernel_1'\] holds something else"
    else:
        adata.obsm["kernel_1"], what = np.ones((40, 1)), r"adata\.obsm\['kernel_1'\] holds something else"
    with (
        untouched(adata),
        pytest.raises(
            ValueError, match=rf"key_added='kernel': its member 'kernel_1' is taken; {what}; choose another key"
        ),
    ):
        family(adata)


@pytest.mark.parametrize("fmt", ["h5ad", "zarr"])
def test_a_family_round_trips(fmt, tmp_path):
    adata = family(placed())
    getattr(adata, f"write_{fmt}")(tmp_path / f"a.{fmt}")
    read = getattr(ad, f"read_{fmt}")(tmp_path / f"a.{fmt}")
    assert portable(read) == portable(adata)
    assert read_family(read, "kernel").members == ("kernel_0", "kernel_1", "kernel_2")
    np.testing.assert_array_equal(read_family(read, "kernel").values, [0.5, 1.0, 3.0])
    with pytest.raises(ValueError, match="'kernel_0'"):
        al.get.kernel(read)
    al.tl.fit_null(read, "y", kernel="kernel_1")
    family(read, [1.0, 2.0])
    assert "kernel_2" not in read.obsm


def test_messages():
    adata = placed()
    with messages() as seen:
        family(adata, [1.0, 2.0], rank=3)
    text = "\n".join(seen)
    assert "kernel_rbf: length_scale=1, 40 observations, rank 3 (" in text
    assert "wrote the family .uns['kernel'] of 'kernel_0' to 'kernel_1'" in text
    with messages() as seen:
        al.pp.kernel_rbf(adata, length_scale=1.0)
    assert seen[-1].startswith(
        "INFO kernel_rbf: 40 observations, rank 40\n    wrote .obsm['kernel'] and .uns['kernel']"
    )


# ------------------------------------------------------------------------------------------- bad input


def spoilt():
    adata = placed()
    adata.obsm["flat"] = np.full((40, 2), 3.0)
    adata.obsm["nan"] = np.where(np.arange(80).reshape(40, 2) == 5, np.nan, adata.obsm["spatial"])
    adata.obsm["words"] = pd.DataFrame({"w": ["a"] * 40}, index=adata.obs_names)
    adata.obsm["taken"] = np.ones((40, 1))
    return adata


BAD = [
    ({"obsm": "spatia"}, KeyError, r"obsm='spatia': not in adata\.obsm; did you mean 'spatial'"),
    ({"obsm": 3}, TypeError, r"obsm: must be a key of adata\.obsm, received 3"),
    ({"obsm": "flat"}, ValueError, r"obsm='flat': all observations have the same coordinates; there is no kernel to make"),
    ({"obsm": "nan"}, ValueError, r"obsm='nan': NaN or infinite values in 1 rows; drop or impute them"),
    ({"obsm": "words"}, TypeError, r"obsm 'w': must be numeric"),
    ({"length_scale": 0.0}, ValueError, r"length_scale: must be a positive, finite number, received 0\.0"),
    ({"length_scale": -1}, ValueError, r"length_scale: must be a positive, finite number, received -1"),
    ({"length_scale": np.nan}, ValueError, r"length_scale: must be a positive, finite number, received nan"),
    ({"length_scale": np.inf}, ValueError, r"length_scale: must be a positive, finite number, received inf"),
    ({"length_scale": [1.0, 0.0]}, ValueError, r"length_scale: must be positive, finite numbers, received 0\.0"),
    ({"length_scale": [1.0, 1]}, ValueError, r"length_scale: a value is listed twice, received \[1\.0, 1\]"),
    ({"length_scale": []}, ValueError, r"length_scale: an empty list"),
    ({"length_scale": "median"}, TypeError, r"length_scale: must be a number or a list of numbers, received 'median' of type str"),
    ({"length_scale": [1.0, None]}, TypeError, r"length_scale: must be a number or a list of numbers, received None"),
    ({"length_scale": True}, TypeError, r"length_scale: must be a number or a list of numbers, received True"),
    ({"length_scale": 1e12}, ValueError, r"length_scale=1e\+12: the coordinates of obsm='spatial' extend over \d+\.\d+ only, so that the kernel is 1 everywhere; .* such as \d"),
    ({"length_scale": 1e12, "scale": False}, ValueError, r"length_scale=1e\+12: the coordinates"),
    ({"length_scale": [1.0, 1e12]}, ValueError, r"length_scale=1e\+12: the coordinates of obsm='spatial' extend"),
    ({"scale": 1}, TypeError, r"scale: must be True or False, received 1"),
    ({"key_added": "taken"}, ValueError, r"key_added='taken': adata\.obsm\['taken'\] holds something else; choose another key"),
    ({"key_added": "a/b"}, ValueError, r"key_added: must be a non-empty name without '/' or '\.'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD, ids=[str(case[0]) for case in BAD])
def test_bad_input(arguments, error, message):
    adata = spoilt()
    with untouched(adata), pytest.raises(error, match=message):
        al.pp.kernel_rbf(adata, **arguments)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_largest_length_scale(factor):
    """Below the limit the kernel still has the two directions of the plane beside the constant, above it is refused."""
    adata = placed()
    limit = np.sqrt(adata.obsm["spatial"].var(axis=0).sum() / (2e-12 * 40))
    if factor > 1:
        with pytest.raises(ValueError, match="is 1 everywhere"):
            al.pp.kernel_rbf(adata, length_scale=factor * limit)
        return
    al.pp.kernel_rbf(adata, length_scale=factor * limit)
    assert adata.uns["kernel"]["eigenvalues"].size >= 3


def test_a_kernel_that_is_the_residual_is_refused_by_the_fit():
    adata = placed()
    al.pp.kernel_rbf(adata, length_scale=1e-6)
    with pytest.raises(ValueError, match="kernel"):
        al.tl.fit_null(adata, "y")
