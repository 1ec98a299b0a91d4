"""`al.pp.kernel_*` against naive dense formulas, through the public functions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from helpers import cohort, messages, relatedness, snapshot, untouched
from oracle import centring, group_kernel
from scipy import sparse
from scipy.linalg import expm

import annlmm as al
from annlmm._slots.schema import fields_of

# Two float64 products of n × m numbers in another order: about √m · 2e-16, with room for m = 200.
ROUND_OFF = {"rtol": 1e-12, "atol": 1e-12}
GROUPS_ONLY = {"groupby", "groups", "relatedness"}
FAMILY_ONLY = {"family", "members", "parameter"}
DENSE_ONLY = {"eigenvalues", "explained", "n_clipped", "digest", "probe"}


def stored(adata, key="kernel"):
    return al.get.kernel(adata, key).to_numpy()


def mean_diagonal(k):
    """t, the mean diagonal of HKH."""
    h = centring(len(k))
    return np.trace(h @ k @ h) / len(k)


def naive_grm(dosages, *, min_maf=0.01, center=True, standardize=True):
    """One variant at a time."""
    columns = []
    for g in np.asarray(dosages, dtype=float).T:
        present = g[~np.isnan(g)]
        if present.size == 0 or present.min() == present.max():
            continue
        mean = present.mean()
        if min_maf > 0 and min(mean, 2 - mean) / 2 < min_maf:
            continue
        g = np.where(np.isnan(g), mean, g)
        z = g - mean if center else g
        columns.append(z / g.std() if standardize else z)
    z = np.column_stack(columns)
    return z @ z.T / z.shape[1]


def with_gaps(n=40, m=60):
    """Missing calls, two monomorphic variants (one with gaps) and a rare one."""
    adata = cohort(n, m)
    rng = np.random.default_rng(5)
    adata.X[rng.uniform(size=(n, m)) < 0.05] = np.nan
    adata.X[:, 3] = 1.0
    adata.X[:, 4] = np.where(rng.uniform(size=n) < 0.5, np.nan, 2.0)
    adata.X[:, 5] = 0.0
    adata.X[2, 5] = 1.0
    return adata


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("min_maf", [0, 0.01, 0.05])
def test_grm_is_the_naive_one(standardize, center, min_maf):
    adata = with_gaps()
    al.pp.kernel_grm(adata, min_maf=min_maf, center=center, standardize=standardize, scale=False)
    expected = naive_grm(adata.X, min_maf=min_maf, center=center, standardize=standardize)
    np.testing.assert_allclose(stored(adata), expected, **ROUND_OFF)
    # min_maf=0 and 0.01 keep the singleton (1 of 80 alleles, 0.0125), 0.05 does not
    assert adata.uns["kernel"]["params"]["n_variants"] == (57 if min_maf == 0.05 else 58)


def test_grm_is_gemmas():
    adata = with_gaps()
    al.pp.kernel_grm(adata, standardize=False, min_maf=0, scale=False)
    filled = np.where(np.isnan(adata.X), np.nanmean(adata.X, axis=0), adata.X)
    z = (filled - filled.mean(axis=0))[:, np.ptp(filled, axis=0) > 0]
    np.testing.assert_allclose(stored(adata), z @ z.T / z.shape[1], **ROUND_OFF)


@pytest.mark.parametrize("m", [10, 39, 40, 41, 150])
def test_grm_of_few_and_many_variants(m):
    adata = cohort(40, m)
    al.pp.kernel_grm(adata, scale=False)
    np.testing.assert_allclose(stored(adata), naive_grm(adata.X), **ROUND_OFF)
    assert adata.obsm["kernel"].shape == (40, min(m, 39))


@pytest.mark.parametrize("dtype", ["float64", "float32", "int8", "uint8", "int64"])
@pytest.mark.parametrize(
    "store", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array]
)
def test_grm_of_any_storage(store, dtype):
    adata = cohort(30, 20)
    expected = naive_grm(adata.X)
    adata.X = store(adata.X.astype(dtype))
    with untouched(adata, besides="kernel"):
        al.pp.kernel_grm(adata, scale=False)
    np.testing.assert_allclose(stored(adata), expected, **ROUND_OFF)


@pytest.mark.parametrize("store", [np.asarray, sparse.csr_matrix, sparse.csc_array])
def test_grm_of_missing_calls_leaves_them_missing(store):
    adata = with_gaps()
    expected = naive_grm(adata.X)
    adata.X = store(adata.X)
    with untouched(adata, besides="kernel"):
        al.pp.kernel_grm(adata, scale=False)
    np.testing.assert_allclose(stored(adata), expected, **ROUND_OFF)


def test_grm_in_one_block_and_in_many():
    adata = with_gaps(40, 90)
    al.pp.kernel_grm(adata)
    al.settings.block_memory = 1
    al.pp.kernel_grm(adata, key_added="blocks")
    np.testing.assert_allclose(stored(adata, "blocks"), stored(adata), **ROUND_OFF)


def test_grm_of_some_variants():
    adata = cohort(30, 50)
    chosen = adata.var["chosen"].to_numpy()
    expected = naive_grm(adata.X[:, chosen])
    masks = {
        "name": "chosen",
        "array": chosen,
        "list": chosen.tolist(),
        "series": adata.var["chosen"],
        "shuffled": adata.var["chosen"].sample(frac=1, random_state=0),
        "nullable": adata.var["chosen"].astype("boolean"),
        "object": adata.var["chosen"].astype(object),
    }
    for how, mask in masks.items():
        al.pp.kernel_grm(adata, mask, scale=False)
        np.testing.assert_allclose(stored(adata), expected, **ROUND_OFF, err_msg=how)
        assert adata.uns["kernel"]["params"]["mask_var"] == ("chosen" if how == "name" else "array")


def test_grm_of_a_layer():
    adata = cohort(30, 20)
    adata.layers["dosage"], adata.X = adata.X.copy(), np.zeros((30, 20))
    al.pp.kernel_grm(adata, layer="dosage", scale=False)
    np.testing.assert_allclose(stored(adata), naive_grm(adata.layers["dosage"]), **ROUND_OFF)


def test_grm_of_values_that_are_not_dosages():
    adata = cohort(30, 20)
    adata.X = np.random.default_rng(0).normal(50, 10, (30, 20))
    with untouched(adata), pytest.raises(ValueError, match=r"min_maf=0\.01: the values are not dosages .* min_maf=0"):
        al.pp.kernel_grm(adata)
    al.pp.kernel_grm(adata, min_maf=0, scale=False)
    np.testing.assert_allclose(stored(adata), naive_grm(adata.X, min_maf=0), **ROUND_OFF)


@pytest.mark.parametrize("missing", [-127, -9, 3])
def test_a_missing_call_coded_as_a_number_is_no_dosage(missing):
    adata = cohort(30, 20)
    adata.X = adata.X.astype(np.int8)
    adata.X[4, 7] = missing
    match = f"missing calls must be NaN or named: missing_call={missing}"
    with untouched(adata), pytest.raises(ValueError, match=match):
        al.pp.kernel_grm(adata)
    if missing < 0:  # 3 may be the copies that a tetraploid has
        for dtype in (np.int8, np.float32):
            adata.X = adata.X.astype(dtype)
            with untouched(adata), pytest.raises(ValueError, match=match):
                al.pp.kernel_grm(adata, min_maf=0)


@pytest.mark.parametrize("make", [np.int8, np.float32, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("min_maf", [0, 0.01])
def test_missing_call_is_nan(make, min_maf):
    adata = with_gaps()
    gaps = np.isnan(adata.X)
    al.pp.kernel_grm(adata, min_maf=min_maf, key_added="nan")
    coded = np.where(gaps, -9, adata.X)
    adata.X = coded.astype(make) if isinstance(make, type) and issubclass(make, np.generic) else make(coded)
    before = adata.X.copy()
    al.pp.kernel_grm(adata, min_maf=min_maf, missing_call=-9)
    np.testing.assert_allclose(stored(adata), stored(adata, "nan"), **ROUND_OFF)
    assert adata.uns["kernel"]["params"]["missing_call"] == -9
    assert "missing_call" not in adata.uns["nan"]["params"]
    assert (before != adata.X).sum() == 0
    with pytest.raises(TypeError, match="missing_call: must be the number that stands for a missing call"):
        al.pp.kernel_grm(adata, missing_call="NA")


def test_rank_keeps_the_leading_eigenvectors():
    adata = cohort(40, 60)
    al.pp.kernel_grm(adata, scale=False)
    whole = adata.uns["kernel"]["eigenvalues"]
    assert (np.diff(whole) < 0).all()
    al.pp.kernel_grm(adata, rank=7, scale=False, key_added="seven")
    np.testing.assert_allclose(adata.uns["seven"]["eigenvalues"], whole[:7], rtol=1e-12)
    assert adata.uns["seven"]["explained"] == pytest.approx(whole[:7].sum() / whole.sum(), rel=1e-12)
    al.pp.kernel_grm(adata, rank=0.8, key_added="share")
    n_kept = adata.obsm["share"].shape[1]
    shares = np.cumsum(whole) / whole.sum()
    assert shares[n_kept - 1] >= 0.8 > shares[n_kept - 2]
    assert adata.uns["share"]["explained"] == pytest.approx(shares[n_kept - 1], rel=1e-12)
    al.pp.kernel_grm(adata, rank=1.0, key_added="all")
    assert adata.obsm["all"].shape == adata.obsm["kernel"].shape
    al.pp.kernel_grm(adata, rank=1000, key_added="more")
    assert adata.obsm["more"].shape == adata.obsm["kernel"].shape


@pytest.mark.parametrize("center", [True, False])
def test_rank_of_a_large_cohort_without_its_matrix(center):
    """Above 2000 observations a small rank is found by Lanczos iterations, with no n × n matrix."""
    adata = cohort(2100, 30)
    al.pp.kernel_grm(adata, scale=False, center=center)
    al.settings.kernel_memory = 8 * 2100 * 29
    with untouched(adata), pytest.raises(MemoryError, match=r"2100 × 30 matrix .* pass rank= \(an int below 210\)"):
        al.pp.kernel_grm(adata, key_added="refused")
    al.pp.kernel_grm(adata, rank=4, scale=False, center=center, key_added="lanczos")
    u, s = adata.obsm["kernel"][:, :4], adata.uns["kernel"]["eigenvalues"]
    # ARPACK's default tolerance is machine precision; its vectors are good to that over the gap.
    np.testing.assert_allclose(adata.uns["lanczos"]["eigenvalues"], s[:4], rtol=1e-10)
    np.testing.assert_allclose(np.abs((u * adata.obsm["lanczos"]).sum(axis=0)), 1.0, rtol=1e-8)
    assert adata.uns["lanczos"]["explained"] == pytest.approx(s[:4].sum() / s.sum(), rel=1e-10)


def rbf(x):
    return np.exp(-((x[:, None] - x) ** 2).sum(axis=2) / 2)


def make(name, adata, **options):
    """One of the kernels, its naive matrix before scaling, and the function's default scale."""
    codes = adata.obs["donor"].cat.codes.to_numpy()
    if name == "grm":
        al.pp.kernel_grm(adata, **options)
        return naive_grm(adata.X), True
    if name == "linear":
        al.pp.kernel_linear(adata, "X_pca", **options)
        z = adata.obsm["X_pca"] - adata.obsm["X_pca"].mean(axis=0)
        return z @ z.T / z.shape[1], True
    if name == "precomputed":
        k = relatedness(list(adata.obs_names))
        al.pp.kernel_precomputed(adata, k, **options)
        return k.to_numpy(), False
    if name in ("rbf", "graph"):
        k = rbf(adata.obsm["X_pca"])
        if name == "rbf":
            al.pp.kernel_rbf(adata, "X_pca", length_scale=1.0, **options)
            return k, True
        adata.obsp["w"] = k - np.eye(adata.n_obs)
        al.pp.kernel_graph(adata, "w", **options)
        root = np.sqrt(adata.obsp["w"].sum(axis=0))
        k = expm(10 * (adata.obsp.pop("w") / root[:, None] / root - np.eye(adata.n_obs)))
        return k, True
    related = relatedness(list(adata.obs["donor"].cat.categories)) if name == "relatedness" else None
    al.pp.kernel_group(adata, "donor", relatedness=related, **options)
    return group_kernel(codes, None if related is None else related.to_numpy()), False


KERNELS = ["grm", "linear", "precomputed", "rbf", "graph", "group", "relatedness"]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("scale", [True, False, None])
def test_the_scale_law(name, scale):
    """scale=True makes t = 1 and changes nothing else; the default is the documented one."""
    adata = cohort()
    k, default = make(name, adata, **({} if scale is None else {"scale": scale}))
    t = 1.0 if (default if scale is None else scale) else mean_diagonal(k)
    np.testing.assert_allclose(stored(adata), k * t / mean_diagonal(k), **ROUND_OFF)
    assert adata.uns["kernel"]["trace_scale"] == pytest.approx(t, rel=1e-12)
    assert mean_diagonal(stored(adata)) == pytest.approx(t, rel=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_exactly_the_fields_of_the_schema(name):
    adata = cohort()
    before = snapshot(adata)
    make(name, adata)
    groups = name in ("group", "relatedness")
    expected = (
        {f.name for f in fields_of("kernel") if f.slot == "uns"} - (DENSE_ONLY if groups else GROUPS_ONLY) - FAMILY_ONLY
    )
    if name == "group":
        expected -= {"relatedness"}
    assert set(adata.uns["kernel"]) == expected
    after = snapshot(adata)
    assert {slot: set(after[slot]) - set(before[slot]) for slot in ("obs", "var", "layers", "varm", "obsp")} == {
        slot: set() for slot in ("obs", "var", "layers", "varm", "obsp")
    }
    assert set(after["uns"]) == {"kernel"}
    assert set(after["obsm"]) == {"X_pca"} | (set() if groups else {"kernel"})
    entry = adata.uns["kernel"]
    assert entry["kind"] == ("groups" if groups else "dense")
    assert entry["method"] == ("group" if groups else name)
    assert entry["centered"] is (name in ("grm", "linear"))
    assert entry["n_obs"] == 40
    if not groups:
        u = adata.obsm["kernel"]
        np.testing.assert_allclose(u.T @ u, np.eye(u.shape[1]), atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_copy_leaves_adata_as_it_is(name):
    adata = cohort()
    adata.obsp["w"] = rbf(adata.obsm["X_pca"]) - np.eye(40)
    functions = {
        "grm": lambda: al.pp.kernel_grm(adata, copy=True),
        "linear": lambda: al.pp.kernel_linear(adata, "X_pca", copy=True),
        "precomputed": lambda: al.pp.kernel_precomputed(adata, np.eye(40), copy=True),
        "rbf": lambda: al.pp.kernel_rbf(adata, "X_pca", copy=True),
        "graph": lambda: al.pp.kernel_graph(adata, "w", copy=True),
        "group": lambda: al.pp.kernel_group(adata, "donor", copy=True),
        "relatedness": lambda: al.pp.kernel_group(
            adata, "donor", relatedness=relatedness(list(adata.obs["donor"].cat.categories)), copy=True
        ),
    }
    with untouched(adata):
        copied = functions[name]()
    assert "kernel" in copied.uns
    assert copied is not adata
    assert make(name, adata)[0].shape == (40, 40)
    assert "kernel" in adata.uns


def test_a_kernel_under_the_key_of_another_replaces_it():
    adata = cohort()
    al.pp.kernel_grm(adata)
    al.pp.kernel_group(adata, "donor")
    assert "kernel" not in adata.obsm
    assert "eigenvalues" not in adata.uns["kernel"]
    al.pp.kernel_linear(adata, "X_pca")
    assert adata.obsm["kernel"].shape == (40, 2)
    assert "groups" not in adata.uns["kernel"]


# ------------------------------------------------------------------------------------------- groups


def test_relatedness_is_matched_by_name():
    adata = cohort()
    donors = list(adata.obs["donor"].cat.categories)
    related = relatedness([*donors, "extra1", "extra2"])
    al.pp.kernel_group(adata, "donor", relatedness=related)
    codes = adata.obs["donor"].cat.codes.to_numpy()
    expected = group_kernel(codes, related.loc[donors, donors].to_numpy())
    np.testing.assert_allclose(stored(adata), expected, rtol=1e-14)
    rng = np.random.default_rng(0)
    shuffled = related.iloc[rng.permutation(10), rng.permutation(10)]
    al.pp.kernel_group(adata, "donor", relatedness=shuffled, key_added="shuffled")
    np.testing.assert_array_equal(stored(adata, "shuffled"), stored(adata))
    np.testing.assert_array_equal(adata.uns["shuffled"]["relatedness"], related.loc[donors, donors])


def test_relatedness_from_the_kernel_of_the_donors():
    donors = cohort(10, 80)
    donors.obs_names = [f"d{i}" for i in range(10)]
    al.pp.kernel_grm(donors)
    adata = cohort()
    al.pp.kernel_group(adata, "donor", relatedness=al.get.kernel(donors))
    expected = al.get.kernel(donors).loc[adata.obs["donor"], adata.obs["donor"]]
    np.testing.assert_allclose(stored(adata), expected, **ROUND_OFF)


LABELS = {
    "category": pd.Categorical(["a", "b"] * 20),
    "unused": pd.Categorical(["a", "b"] * 20, categories=["z", "b", "a", "q"]),
    "object": np.array(["a", "b"] * 20, dtype=object),
    "string": pd.array(["a", "b"] * 20, dtype="string"),
    "int": np.array([1, 2] * 20),
    "float": np.array([1.0, 2.0] * 20),
    "float32": np.array([1.0, 2.0] * 20, dtype=np.float32),
    "Int64": pd.array([1, 2] * 20, dtype="Int64"),
    "category of int": pd.Categorical([1, 2] * 20),
    "category of float": pd.Categorical([1.0, 2.0] * 20),
    "bool": np.array([False, True] * 20),
    "boolean": pd.array([False, True] * 20, dtype="boolean"),
    "category of bool": pd.Categorical([False, True] * 20),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_type(kind):
    adata = cohort()
    adata.obs["label"] = LABELS[kind]
    names = (
        ["False", "True"] if "bool" in kind else ["1", "2"] if "int" in kind.lower() or "float" in kind else ["a", "b"]
    )
    related = relatedness(names)
    al.pp.kernel_group(adata, "label", relatedness=related)
    assert list(adata.uns["kernel"]["groups"]) == names
    np.testing.assert_allclose(stored(adata), group_kernel(np.arange(40) % 2, related.to_numpy()), rtol=1e-14)


@pytest.mark.parametrize("kind", ["category", "object", "string", "float", "Int64", "boolean", "category of float"])
def test_rows_without_a_label_are_left_out(kind):
    adata = cohort()
    labels = pd.Series(LABELS[kind], index=adata.obs_names)
    if kind == "object":
        labels = labels.where(np.arange(40) > 2, None)
    else:
        labels = labels.where(np.arange(40) > 2)
    adata.obs["label"] = labels
    assert adata.obs["label"].isna().sum() == 3
    with messages() as seen:
        al.pp.kernel_group(adata, "label")
    assert "INFO kernel_group: 37 observations in 2 groups of 'label', 3 without a label left out" in seen[0]
    k = al.get.kernel(adata)
    assert list(k.index) == list(k.columns) == list(adata.obs_names[3:])
    np.testing.assert_array_equal(k, group_kernel(np.arange(3, 40) % 2))
    al.tl.fit_null(adata, "y", gamma=1.0)
    assert adata.uns["lmm"]["n_obs"] == 37


@pytest.mark.parametrize(
    "labels", [pd.Categorical([1.2, 1.7] * 20), np.array([1.2, 1.7] * 20, dtype=object), [1.2, 1.7] * 20]
)
def test_fractions_are_no_labels(labels):
    adata = cohort()
    adata.obs["label"] = labels
    with untouched(adata), pytest.raises(TypeError, match=r"groupby='label': holds fractional numbers \(e\.g\. 1\.2\)"):
        al.pp.kernel_group(adata, "label")


def test_many_floats_are_told_as_groups():
    adata = cohort()
    number = np.arange(adata.n_obs) // 1.5 // 1
    for labels, told in [
        (number, True),
        (pd.Categorical(number), False),
        (number.astype(int), False),
        (number // 3, False),
    ]:
        adata.obs["depth"] = labels
        with messages() as seen:
            al.pp.kernel_group(adata, "depth")
        warned = [text for text in seen if text.startswith("WARNING")]
        assert bool(warned) is told
        if told:
            assert (
                "'depth' is a column of numbers with 27 values in 40 observations, each of which becomes a group"
                in warned[0]
            )
            assert "adata.obs['depth'].astype('category')" in warned[0]


def test_groups_are_not_expanded():
    """A hundred thousand rows in a thousand groups: neither n × n nor n × r is stored."""
    n = 100_000
    adata = AnnData(obs=pd.DataFrame({"group": np.arange(n) % 1000}, index=np.arange(n).astype(str)))
    al.pp.kernel_group(adata, "group")
    assert not adata.obsm
    assert max(np.size(value) for value in adata.uns["kernel"].values()) == 1000
    al.settings.kernel_memory = 2**30
    with (
        untouched(adata),
        pytest.raises(MemoryError, match=r"100000 × 100000 matrix takes 74\.5 GiB.*subset adata first"),
    ):
        al.get.kernel(adata)


# ------------------------------------------------------------------------------------------- linear


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("kind", ["array", "frame", "sparse", "float32", "one column"])
def test_linear_is_the_naive_one(center, standardize, kind):
    adata = cohort()
    z = np.random.default_rng(0).normal(3, [[1, 2, 5]], (40, 3))
    if kind == "frame":
        adata.obsm["z"] = pd.DataFrame(z, index=adata.obs_names, columns=["a", "b", "c"])
    elif kind == "sparse":
        adata.obsm["z"] = sparse.csr_matrix(z)
    elif kind == "one column":
        z = z[:, :1]
        adata.obsm["z"] = z
    else:
        z = z.astype(np.float32 if kind == "float32" else float)
        adata.obsm["z"] = z
    al.pp.kernel_linear(adata, "z", center=center, standardize=standardize, scale=False)
    z = z.astype(float)
    factor = (z - z.mean(axis=0) if center else z) / (z.std(axis=0) if standardize else 1)
    np.testing.assert_allclose(stored(adata), factor @ factor.T / z.shape[1], **ROUND_OFF)


def test_linear_standardises_beside_an_offset():
    adata = cohort()
    z = np.random.default_rng(0).standard_normal((40, 2))
    adata.obsm["z"], adata.obsm["far"] = z, z + 1e8
    al.pp.kernel_linear(adata, "z", standardize=True)
    al.pp.kernel_linear(adata, "far", standardize=True, key_added="far_kernel")
    # the offset itself costs 1e8 · 1e-16 of each value
    np.testing.assert_allclose(stored(adata, "far_kernel"), stored(adata), atol=1e-6)


def test_linear_drops_constant_columns():
    adata = cohort()
    z = np.random.default_rng(0).standard_normal((40, 2))
    adata.obsm["z"], adata.obsm["more"] = z, np.column_stack([z, np.full(40, 0.1)])
    for standardize in (True, False):
        al.pp.kernel_linear(adata, "z", standardize=standardize)
        al.pp.kernel_linear(adata, "more", standardize=standardize, key_added="with_constant")
        assert adata.obsm["with_constant"].shape == (40, 2)
        np.testing.assert_allclose(stored(adata, "with_constant"), stored(adata), **ROUND_OFF)


def test_linear_of_more_columns_than_rows():
    adata = cohort()
    adata.obsm["z"] = np.random.default_rng(0).standard_normal((40, 90))
    al.pp.kernel_linear(adata, "z", rank=5)
    assert adata.obsm["kernel"].shape == (40, 5)
    assert adata.uns["kernel"]["params"]["rank"] == 5


# ------------------------------------------------------------------------------------------- precomputed


def test_precomputed_is_matched_by_name():
    adata = cohort()
    k = relatedness([*adata.obs_names, "other"])
    rng = np.random.default_rng(0)
    with untouched(adata, besides="kernel"):
        al.pp.kernel_precomputed(adata, k.iloc[rng.permutation(41), rng.permutation(41)])
    np.testing.assert_allclose(stored(adata), k.iloc[:40, :40], **ROUND_OFF)


@pytest.mark.parametrize("kind", ["array", "float32", "sparse", "sparse array", "obsp", "sparse obsp", "int"])
def test_precomputed_of_any_storage(kind):
    adata = cohort()
    k = relatedness(list(adata.obs_names)).to_numpy()
    if kind == "int":
        k = group_kernel(np.arange(40) % 8).astype(int)
    given = {"float32": k.astype(np.float32), "sparse": sparse.coo_matrix(k), "sparse array": sparse.csc_array(k)}.get(
        kind, k
    )
    if "obsp" in kind:
        adata.obsp["k"], given = (sparse.csr_matrix(k) if "sparse" in kind else k), "k"
    kept = np.array(given) if kind in ("array", "float32", "int") else None
    al.pp.kernel_precomputed(adata, given)
    # float32 has seven digits
    np.testing.assert_allclose(stored(adata), k, **({"atol": 1e-6} if kind == "float32" else ROUND_OFF))
    if kept is not None:
        np.testing.assert_array_equal(given, kept)
    assert adata.uns["kernel"]["params"]["kernel"] == ("'k'" if "obsp" in kind else type(given).__name__)


def test_precomputed_centred():
    adata = cohort()
    k = relatedness(list(adata.obs_names)).to_numpy()
    al.pp.kernel_precomputed(adata, k, center=True)
    np.testing.assert_allclose(stored(adata), centring(40) @ k @ centring(40), **ROUND_OFF)
    assert adata.uns["kernel"]["centered"] is True
    al.pp.kernel_precomputed(adata, k)
    assert adata.uns["kernel"]["centered"] is False


def test_precomputed_clips_round_off_and_says_so():
    adata = cohort()
    z = np.random.default_rng(0).standard_normal((40, 3))
    with messages() as seen:
        al.pp.kernel_precomputed(adata, z @ z.T)
    assert adata.obsm["kernel"].shape == (40, 3)
    n_clipped = adata.uns["kernel"]["n_clipped"]
    assert 0 < n_clipped <= 37
    assert f"INFO kernel_precomputed: {n_clipped} eigenvalues are zero but for round-off: left out" in seen
    assert "INFO kernel_precomputed: 40 observations, rank 3" in seen[1]


# ------------------------------------------------------------------------------------------- memory

REFUSED = {
    "grm": (lambda adata: al.pp.kernel_grm(adata), r"40 × 12 .* pass rank="),
    "linear": (lambda adata: al.pp.kernel_linear(adata, "X_pca"), r"40 × 2 .* reduce its columns first"),
    "precomputed": (
        lambda adata: al.pp.kernel_precomputed(adata, np.eye(40)),
        r"40 × 40 .* with al\.pp\.kernel_linear",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_kernel_beyond_memory_is_refused_with_a_remedy(name):
    adata = cohort()
    call, remedy = REFUSED[name]
    al.settings.kernel_memory = 100
    with untouched(adata), pytest.raises(MemoryError, match=rf"a dense {remedy}") as error:
        call(adata)
    assert "al.settings.kernel_memory" in str(error.value)
    assert "MiB" in str(error.value)
    al.pp.kernel_group(adata, "donor")  # takes no memory
    assert "relatedness" not in adata.uns["kernel"]
