"""Input that is unusual and right: types, scales and layouts that must give what the usual ones give."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import cohort, relatedness
from scipy import sparse

import annlmm as al

FIELDS = ("beta", "standard_error", "p_value")


@pytest.fixture
def adata() -> ad.AnnData:
    out = cohort(60, 12)
    al.pp.kernel_group(out, "donor")
    return out


def table(adata, y="y", covariates=("age",), **options) -> pd.DataFrame:
    al.tl.fit_null(adata, y, covariates=list(covariates), kernel=options.pop("kernel", "kernel"))
    al.tl.associate(adata, **options)
    return al.get.association(adata)


def assert_same(now: pd.DataFrame, then: pd.DataFrame, rtol: float = 0.0) -> None:
    assert now["status"].tolist() == then["status"].tolist()
    for field in FIELDS:
        np.testing.assert_allclose(now[field], then[field], rtol=rtol, atol=0, err_msg=field)


# ------------------------------------------------------------------------------------------- types

LABELS = {
    "object": lambda v: v.astype(object),
    "string": lambda v: v.astype("string"),
    "pyarrow": lambda v: v.astype("string[pyarrow]"),
    "category": lambda v: v.astype("category"),
    "ordered": lambda v: pd.Categorical(v, categories=["a", "b", "c"], ordered=True),
    "unused": lambda v: pd.Categorical(v, categories=["a", "none", "b", "c", "neither"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_type(adata, kind):
    adata.obs["plain"] = pd.Categorical(adata.obs["batch"])
    adata.obs["label"] = LABELS[kind](pd.Series(np.asarray(adata.obs["batch"], dtype=object), index=adata.obs_names))
    assert_same(table(adata, covariates=["label"]), table(adata, covariates=["plain"]))
    al.pp.kernel_group(adata, "plain", key_added="one")
    al.pp.kernel_group(adata, "label", key_added="two")
    assert list(adata.uns["one"]["groups"]) == list(adata.uns["two"]["groups"]) == ["a", "b", "c"]


NUMBERS = {
    "float32": (lambda v: v.astype(np.float32), 1e-6),  # its own precision
    "Float64": (lambda v: v.astype("Float64"), 0.0),
    "pyarrow": (lambda v: v.astype("double[pyarrow]"), 0.0),
    "object": (lambda v: v.astype(object), 0.0),
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("which", ["y", "age"])
def test_numbers_of_any_type(adata, kind, which):
    expected = table(adata)
    change, rtol = NUMBERS[kind]
    adata.obs[which] = change(adata.obs[which])
    assert_same(table(adata), expected, 1e3 * rtol)


def test_booleans_and_nullable_integers_as_phenotypes(adata):
    adata.obs["number"] = (adata.obs["y"] > adata.obs["y"].median()).astype(float)
    expected = table(adata, "number")
    adata.obs["flag"] = adata.obs["number"] == 1
    assert_same(table(adata, "flag"), expected)
    adata.obs["nullable"] = pd.array(adata.obs["number"].astype(int), dtype="Int64")
    assert_same(table(adata, "nullable"), expected)
    adata.obs.loc[adata.obs_names[:5], "nullable"] = pd.NA
    table(adata, "nullable")
    assert adata.uns["lmm"]["n_obs"] == 55


MATRICES = {
    "read-only": lambda x: _locked(x),
    "Fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "int8": lambda x: x.astype(np.int8),
    "uint8": lambda x: x.astype(np.uint8),
    "bool": lambda x: x > 0,
    "float16": lambda x: x.astype(np.float16),
    "float32": lambda x: x.astype(np.float32),
    "big-endian": lambda x: x.astype(">f8"),
    "csr int8": lambda x: sparse.csr_matrix(x.astype(np.int8)),
    "csc unsorted": lambda x: _unsorted(x),
    "explicit zeros": lambda x: _explicit(x),
}


def _locked(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def _unsorted(x):
    out = sparse.csc_matrix(x)
    for j in range(out.shape[1]):
        part = slice(out.indptr[j], out.indptr[j + 1])
        out.indices[part], out.data[part] = out.indices[part][::-1].copy(), out.data[part][::-1].copy()
    out.has_sorted_indices = False
    return out


def _explicit(x):
    out = sparse.csr_matrix(x + 1)
    out.data -= 1
    return out


@pytest.mark.parametrize("kind", MATRICES)
def test_matrices_of_any_layout(adata, kind):
    x = adata.X.copy() > 0 if kind == "bool" else adata.X.copy()
    adata.X = x.astype(float)
    expected = table(adata)
    adata.layers["odd"] = MATRICES[kind](x.astype(float))
    # The sums of sparse and dense blocks are added in another order: 60 terms of a few 1e-16 each.
    assert_same(table(adata, layer="odd"), expected, 1e-11)


def test_integers_do_not_overflow(adata):
    """int8 beyond 127 squared, int32 beyond 2³¹, and uint64 near its end: as float64."""
    rng = np.random.default_rng(0)
    for dtype, high in ((np.int8, 127), (np.int32, 2**31 - 1), (np.uint64, 2**63)):
        x = rng.integers(high // 2, high, adata.shape).astype(dtype)
        for layer in (x, sparse.csr_matrix(x), sparse.csc_matrix(x)):
            adata.layers["integers"], adata.layers["floats"] = layer, x.astype(np.float64)
            # Sparse sums lose up to four digits to an offset before they are read again (`UNSETTLED`).
            assert_same(table(adata, layer="integers"), table(adata, layer="floats"), 1e-8)


def test_read_only_arrays_everywhere():
    rng = np.random.default_rng(0)
    y, x, k = (
        rng.normal(size=20),
        np.c_[np.ones(20), rng.normal(size=20)],
        relatedness(list(map(str, range(20)))).to_numpy(),
    )
    for array in (y, x, k):
        array.flags.writeable = False
    model, p = al.LinearMixedModel.from_kinship(y, x, k)
    model.fit()
    pa = p @ x[:, 1:]
    pa.flags.writeable = False
    model.fit_alternatives(pa)


# ------------------------------------------------------------------------------------------- scales


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_scale_of_the_phenotype(adata, factor):
    expected, fit = table(adata), dict(adata.uns["lmm"])
    adata.obs["scaled"] = adata.obs["y"] * factor
    found = table(adata, "scaled")
    # A factor that is no power of 2 rounds y; the optimum of γ is known to √ε times the width of the likelihood.
    np.testing.assert_allclose(found["p_value"], expected["p_value"], rtol=1e-8)
    np.testing.assert_allclose(found["beta"], expected["beta"] * factor, rtol=1e-8)
    assert adata.uns["lmm"]["h_sq"] == pytest.approx(fit["h_sq"], rel=1e-8)
    assert adata.uns["lmm"]["sigma_sq"] == pytest.approx(fit["sigma_sq"] * factor**2, rel=1e-8)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_scale_of_the_kernel(adata, factor):
    k = relatedness(list(adata.obs_names))
    al.pp.kernel_precomputed(adata, k, scale=False, key_added="one")
    al.pp.kernel_precomputed(adata, k * factor, scale=False, key_added="two")
    expected = table(adata, kernel="one")
    fit = dict(adata.uns["lmm"])
    assert_same(table(adata, kernel="two"), expected, 1e-8)
    assert adata.uns["lmm"]["pve"] == pytest.approx(fit["pve"], rel=1e-7)
    assert adata.uns["lmm"]["sigma_sq"] * factor == pytest.approx(fit["sigma_sq"], rel=1e-7)


def test_offsets_of_the_phenotype_a_covariate_and_the_features(adata):
    """1e7 on values of size 1: half of the digits of the input are left, and they are used."""
    expected = table(adata)
    adata.obs["y"] += 1e7
    adata.obs["age"] += 1e7
    adata.X = adata.X + 1e7
    assert_same(table(adata), expected, 1e-6)


@pytest.mark.parametrize("low_rank", [False, True])
def test_offsets_of_rotated_features(low_rank):
    """The class knows P 1 only as a column of P X; features + 1e7 were all called collinear."""
    rng = np.random.default_rng(1)
    n = 60
    y, x, a = rng.normal(size=n) + 1e7, np.c_[np.ones(n), rng.normal(size=n)], rng.normal(size=(n, 5))
    if low_rank:
        model, p = al.LinearMixedModel.from_random_effects(y, x, rng.normal(size=(n, 8)))
    else:
        model, p = al.LinearMixedModel.from_kinship(y, x, relatedness(list(map(str, range(n)))).to_numpy())
    model.fit()
    options = [{"a": b} if low_rank else {} for b in (a, a + 1e7)]
    expected = model.fit_alternatives(p @ a, **options[0])
    found = model.fit_alternatives(p @ (a + 1e7), **options[1])
    # P A has an error of 1e7 √n ε, some 1e-8, on values of 1.
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    bad = np.c_[np.full(n, 1e7), np.full(n, 0.1), 1e7 + 3 * x[:, 1], x[:, 1], np.zeros(n)]
    for dtype in (np.float64,) if low_rank else (np.float64, np.float32):
        options = {"a": bad.astype(dtype)} if low_rank else {}
        assert model.fit_alternatives((p @ bad).astype(dtype), **options).isna().all().all()


# ------------------------------------------------------------------------------------------- shapes and names


def test_no_feature_and_one(adata):
    expected = table(adata)
    one = adata[:, 3:4].copy()
    # BLAS takes another kernel for one column: a few units in the last place.
    assert_same(table(one), expected.iloc[3:4], 1e-11)
    none = adata[:, :0].copy()
    assert table(none).shape == (0, expected.shape[1])
    al.tl.variance_components(none)
    al.tl.differential(none, "sex")
    assert len(al.get.variance_components(none)) == len(al.get.differential(none)) == 0


def test_duplicated_names(adata):
    expected = table(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # anndata's, about the names
        adata.obs_names = [f"s{i // 2}" for i in range(60)]
        adata.var_names = [f"v{j // 2}" for j in range(12)]
        assert_same(table(adata).reset_index(drop=True), expected.reset_index(drop=True))


def test_groups_of_one_and_rows_without_a_label(adata):
    labels = adata.obs["donor"].astype(object)
    labels.iloc[:4] = ["alone 1", "alone 2", np.nan, None]
    adata.obs["group"] = labels
    al.pp.kernel_group(adata, "group", key_added="group")
    table(adata, kernel="group")
    assert adata.uns["lmm"]["n_obs"] == 58
    part = adata[labels.notna().to_numpy()].copy()
    assert_same(table(part, kernel="group"), al.get.association(adata), 1e-12)


def test_phenotypes_with_different_gaps_are_each_fitted_by_themselves(adata):
    al.tl.fit_null(adata, ["y", "y2", "y3"], covariates=["age"], key_added="all")
    al.tl.associate(adata, "all")
    for name in ("y", "y2", "y3"):
        assert_same(al.get.association(adata, "all", phenotype=name), table(adata, name), 1e-12)


def test_fields_of_a_user_under_the_same_names_are_replaced(adata):
    """As in scanpy: what has the name of a field is written over, what does not is left alone."""
    adata.var["lmm_beta"], adata.var["lmm_mine"] = "text", 3
    adata.obs["lmm_blup"], adata.obs["lmm_mine"] = "text", 3
    table(adata)
    assert adata.var["lmm_beta"].dtype == adata.obs["lmm_blup"].dtype == np.float64
    assert (adata.var["lmm_mine"] == 3).all()
    assert (adata.obs["lmm_mine"] == 3).all()


def test_length_scales_beyond_every_distance(adata):
    """Far below the distances K is the identity, and the fit says that it cannot be told from the residual."""
    al.pp.kernel_rbf(adata, "X_pca", length_scale=1e-300, scale=False, key_added="tiny")
    np.testing.assert_array_equal(al.get.kernel(adata, "tiny"), np.eye(60))
    with pytest.raises(ValueError, match="cannot be told from the residual"):
        al.tl.fit_null(adata, "y", kernel="tiny")
