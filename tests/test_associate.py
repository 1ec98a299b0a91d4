"""`al.tl.associate` against the naive dense oracle: storage, rows, features, phenotypes, tests, statuses, slots."""

from __future__ import annotations

import numpy as np
import oracle
import pandas as pd
import pytest
from helpers import assert_same, cohort, messages, snapshot, untouched
from scipy import sparse, stats

import annlmm as al
from annlmm._slots.results import association_fields

COVARIATES = ["age", "sex"]
NULL_FIELDS = association_fields({"variance": "null"})
STORES = {
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "csr_matrix": sparse.csr_matrix,
    "csc_matrix": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
}
# The oracle's normal equations with a dense inverse, of condition 1e4 or so with an intercept and an age.
CLOSE = {"rtol": 1e-8, "atol": 1e-12}


def fitted(n=40, m=14, *, kernel="group", phenotype="y", gamma=0.8, covariates=COVARIATES, reml=True):
    """A null model at a given γ, where nothing has to be simulated."""
    adata = cohort(n, m)
    if kernel == "group":
        al.pp.kernel_group(adata, "donor")
    elif kernel == "grm":
        al.pp.kernel_grm(adata)
    kernel, gamma = (None, None) if kernel is None else ("kernel", gamma)
    al.tl.fit_null(adata, phenotype, covariates=covariates, kernel=kernel, gamma=gamma, reml=reml)
    return adata


def expected(adata, key="lmm", phenotype=None, x=None, gamma=None):
    """The oracle's β, SE, F, p, χ² and τ² per feature on the rows of the null model, missing values at their mean."""
    entry = adata.uns[key]
    several = "fits" in entry
    y = adata.obsm[f"{key}_phenotype"][:, phenotype] if several else adata.obs[f"{key}_phenotype"].to_numpy()
    if gamma is None:
        gamma = entry["fits"]["gamma"].iloc[phenotype] if several else entry["gamma"]
    rows = ~np.isnan(y)
    k = np.zeros((adata.n_obs, adata.n_obs))
    if "kernel" in entry["params"]:
        k = al.get.kernel(adata[rows].copy(), entry["params"]["kernel"]).to_numpy()
    else:
        k = k[rows][:, rows]
    a = np.asarray(adata.X if x is None else x, dtype=float)[rows]
    a = np.where(np.isnan(a), np.nanmean(a, axis=0), a)
    return oracle.associate(y[rows], adata.obsm[f"{key}_design"][rows], k, a, gamma)


def check(table, values, features=slice(None)):
    beta, se, f, p, chi_sq, tau_sq = values
    table = table[features]
    assert (table["status"] == "ok").all()
    for name, value in {
        "beta": beta,
        "standard_error": se,
        "statistic": f,
        "p_value": p,
        "chi_sq": chi_sq,
        "tau_sq": tau_sq,
        "neg_log10_p_value": -np.log10(p),
    }.items():
        np.testing.assert_allclose(table[name], value, **CLOSE, err_msg=name)


DTYPES = ["float64", "float32", "int8", "uint16", "int64", "bool"]
CASES = [("group", store, dtype) for store in STORES for dtype in DTYPES]
CASES += [(kernel, store, dtype) for kernel in ("grm", None) for store in STORES for dtype in ("float64", "bool")]


@pytest.mark.parametrize(("kernel", "store", "dtype"), CASES)
def test_every_storage_is_the_oracle(kernel, store, dtype):
    adata = fitted(kernel=kernel)
    values = adata.X > 0 if dtype == "bool" else adata.X
    adata.X = STORES[store](values.astype(dtype))
    before = snapshot(adata)
    al.tl.associate(adata)
    check(al.get.association(adata), expected(adata, x=values))
    assert_same(snapshot(adata)["X"], before["X"])


@pytest.mark.parametrize("store", STORES)
def test_a_layer(store):
    adata = fitted()
    counts = np.random.default_rng(3).poisson(2.0, adata.shape).astype(np.float32)
    adata.layers["counts"] = STORES[store](counts)
    al.tl.associate(adata, layer="counts")
    check(al.get.association(adata), expected(adata, x=counts))
    assert adata.uns["lmm"]["association"]["layer"] == "counts"
    adata.X = None
    al.tl.associate(adata, layer="counts", key_added="without_x")
    assert_same(adata.var["without_x_beta"].to_numpy(), adata.var["lmm_beta"].to_numpy())


def test_duplicated_entries_of_a_sparse_matrix_add_up():
    adata = fitted()
    al.tl.associate(adata)
    halves = sparse.csr_matrix(adata.X)
    indptr = 2 * halves.indptr
    adata.X = sparse.csr_matrix(
        (np.repeat(halves.data / 2, 2), np.repeat(halves.indices, 2), indptr), shape=adata.shape
    )
    assert not adata.X.has_canonical_format
    al.tl.associate(adata, key_added="twice")
    np.testing.assert_allclose(adata.var["twice_beta"], adata.var["lmm_beta"], rtol=1e-12)
    np.testing.assert_allclose(adata.var["twice_p_value"], adata.var["lmm_p_value"], rtol=1e-12)


def test_no_kernel_is_ordinary_least_squares():
    adata = fitted(kernel=None)
    al.tl.associate(adata)
    table, y = al.get.association(adata), adata.obs["y"].to_numpy()
    for j in range(adata.n_vars):
        x = np.column_stack([adata.obsm["lmm_design"], adata.X[:, j]])
        beta, rss, *_ = np.linalg.lstsq(x, y, rcond=None)
        df = 40 - 4
        se = np.sqrt(float(rss[0]) / df * np.linalg.inv(x.T @ x)[-1, -1])
        row = table.iloc[j]
        assert row["beta"] == pytest.approx(beta[-1], rel=1e-9)
        assert row["standard_error"] == pytest.approx(se, rel=1e-9)
        assert row["p_value"] == pytest.approx(2 * stats.t.sf(abs(beta[-1] / se), df), rel=1e-8)
        assert row["df"] == df
        assert row["sigma_sq"] == 0


def test_one_covariate_is_a_correlation():
    adata = fitted(kernel=None, covariates=None)
    al.tl.associate(adata)
    for j in range(3):
        r = stats.linregress(adata.X[:, j], adata.obs["y"])
        assert adata.var["lmm_p_value"].iloc[j] == pytest.approx(r.pvalue, rel=1e-9)
        assert adata.var["lmm_beta"].iloc[j] == pytest.approx(r.slope, rel=1e-9)


# ------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("kernel", ["group", "grm"])
def test_the_three_tests(kernel):
    adata = fitted(kernel=kernel)
    for test in ("wald", "lrt", "score"):
        with messages("error"):
            al.tl.associate(adata, test=test, key_added=test)
    n, df, (beta, se, f, p, chi_sq, _) = 40, 36, expected(adata)
    table = {test: al.get.association(adata, test) for test in ("wald", "lrt", "score")}
    r_sq = 1 - np.exp(-chi_sq / n)
    for test, (statistic, p_value, degrees) in {
        "wald": (f, p, df),
        "lrt": (chi_sq, stats.chi2.sf(chi_sq, 1), np.nan),
        "score": (n * r_sq, stats.f.sf(n * r_sq, 1, df), df),
    }.items():
        np.testing.assert_allclose(table[test]["statistic"], statistic, **CLOSE)
        np.testing.assert_allclose(table[test]["p_value"], p_value, **CLOSE)
        np.testing.assert_array_equal(table[test]["df"], degrees)
        # these do not depend on the test
        np.testing.assert_allclose(table[test]["beta"], beta, **CLOSE)
        np.testing.assert_allclose(table[test]["standard_error"], se, **CLOSE)
        np.testing.assert_allclose(table[test]["chi_sq"], chi_sq, **CLOSE)


@pytest.mark.parametrize("reml", [True, False])
def test_score_is_at_the_maximum_likelihood_gamma(reml):
    adata = fitted(gamma=None, reml=reml)
    al.tl.associate(adata, test="score")
    y, x, k = adata.obs["y"].to_numpy(), adata.obsm["lmm_design"], al.get.kernel(adata).to_numpy()
    ml = oracle.fit(y, x, k, reml=False).gamma
    used = adata.uns["lmm"]["association"]["gamma"]
    # compared values find a minimum to 1e-7
    assert used.tolist() == pytest.approx([ml], rel=1e-6)
    assert (abs(adata.uns["lmm"]["gamma"] / ml - 1) > 0.05) == reml
    chi_sq = expected(adata, gamma=ml)[4]
    np.testing.assert_allclose(adata.var["lmm_statistic"], 40 * (1 - np.exp(-chi_sq / 40)), rtol=1e-5)
    # a γ that was given stays
    adata = fitted()
    al.tl.associate(adata, test="score")
    assert adata.uns["lmm"]["association"]["gamma"].tolist() == [0.8]


def test_lrt_warns_below_200_degrees_of_freedom():
    adata = fitted()
    with messages("warning") as seen:
        al.tl.associate(adata, test="lrt")
    assert len(seen) == 1
    assert seen[0].startswith(
        "WARNING test='lrt': 37 residual degrees of freedom; the χ² approximation is anticonservative"
    )
    assert "test='wald' is exact" in seen[0]
    with messages("warning") as seen:
        al.tl.associate(adata)
    assert seen == []
    large = cohort(205, 3)
    al.tl.fit_null(large, "y", kernel=None, covariates=["age", "sex"])
    with messages("warning") as seen:
        al.tl.associate(large, test="lrt")
        large.obs["y"] = large.obs["y"].where(np.arange(205) > 2)
        assert seen == []
        al.tl.fit_null(large, "y", kernel=None, covariates=["age", "sex"])
        al.tl.associate(large, test="lrt")
    assert ["199 residual" in line for line in seen] == [True]


def test_p_values_below_the_smallest_number():
    adata = cohort(400, 2)
    adata.X[:, 0] = adata.obs["y"] + 1e-3 * np.random.default_rng(0).standard_normal(400)
    al.tl.fit_null(adata, "y", kernel=None)
    al.tl.associate(adata)
    assert adata.var["lmm_p_value"].iloc[0] == 0
    assert 1000 < adata.var["lmm_neg_log10_p_value"].iloc[0] < 1300


def test_p_adjusted_is_benjamini_hochberg_over_the_tested():
    adata = fitted(m=30)
    adata.X[:, 3] = 1.0
    al.tl.associate(adata, mask_var=np.arange(30) > 4)
    p = adata.var["lmm_p_value"].to_numpy()
    tested = np.isfinite(p)
    assert tested.sum() == 25
    np.testing.assert_allclose(
        adata.var["lmm_p_adjusted"][tested], stats.false_discovery_control(p[tested]), rtol=1e-14
    )
    assert adata.var["lmm_p_adjusted"][~tested].isna().all()


# ------------------------------------------------------------------------------------------- rows and phenotypes


@pytest.mark.parametrize("kernel", ["group", "grm", None])
@pytest.mark.parametrize("store", ["dense", "csr_matrix", "csc_array"])
def test_on_the_rows_of_the_null_model_only(kernel, store):
    adata = fitted(kernel=kernel, phenotype="y2")
    unused = adata.obs["y2"].isna().to_numpy()
    assert 0 < unused.sum() < 20
    adata.X[unused] = np.nan  # what is there does not matter, infinite values either
    adata.X[np.flatnonzero(unused)[0]] = np.inf
    dense = adata.X.copy()
    adata.X = STORES[store](adata.X)
    al.tl.associate(adata, missing="raise")
    check(al.get.association(adata), expected(adata, x=dense))


@pytest.mark.parametrize("store", ["dense", "csr_matrix"])
@pytest.mark.parametrize("test", ["wald", "score"])
def test_several_phenotypes_are_single_scans(store, test):
    adata = fitted(phenotype=["y", "y2", "y3"])
    adata.X[3, 2] = np.nan
    adata.X[:, 5] = 1.0
    adata.X[adata.obs["y2"].notna(), 6] = np.nan
    adata.X = STORES[store](adata.X)
    al.tl.associate(adata, mask_var=np.arange(14) != 9, test=test)
    assert not [c for c in adata.var if c.startswith("lmm_")]
    for j, phenotype in enumerate(("y", "y2", "y3")):
        al.tl.fit_null(adata, phenotype, covariates=COVARIATES, gamma=0.8, key_added="one")
        al.tl.associate(adata, "one", mask_var=np.arange(14) != 9, test=test)
        for name in NULL_FIELDS:
            column = adata.varm[f"lmm_{name}"][:, j]
            if name == "status":
                assert column.tolist() == adata.var["one_status"].tolist()
            else:  # blocks of one and of three phenotypes add up in another order
                np.testing.assert_allclose(column, adata.var[f"one_{name}"], rtol=1e-10, err_msg=name)
    assert adata.varm["lmm_status"][5].tolist() == ["constant"] * 3
    assert adata.varm["lmm_status"][6].tolist()[1] == "all_missing"
    assert adata.varm["lmm_status"][9].tolist() == ["masked"] * 3
    assert adata.uns["lmm"]["association"]["gamma"].tolist() == [0.8] * 3


# ------------------------------------------------------------------------------------------- features


def test_masks_of_features():
    adata = fitted()
    chosen = adata.var["chosen"]
    al.tl.associate(adata)
    everything = al.get.association(adata)
    masks = {"name": "chosen", "array": chosen.to_numpy(), "series": chosen.sample(frac=1, random_state=0)}
    for store in ("dense", "csr_matrix", "csc_matrix"):
        adata.X = STORES[store](adata.X.toarray() if sparse.issparse(adata.X) else adata.X)
        for how, mask in masks.items():
            al.tl.associate(adata, mask_var=mask)
            table = al.get.association(adata)
            assert (table.loc[~chosen, "status"] == "masked").all()
            assert table.loc[~chosen].drop(columns="status").isna().all(axis=None)
            np.testing.assert_allclose(table.loc[chosen, "p_value"], everything.loc[chosen, "p_value"], rtol=1e-10)
            association = adata.uns["lmm"]["association"]
            assert association["n_tested"] == chosen.sum()
            assert association["mask_var"] == ("chosen" if how == "name" else "array")


@pytest.mark.parametrize("store", STORES)
def test_missing_values_take_the_mean(store):
    adata = fitted(phenotype="y2")
    rng = np.random.default_rng(0)
    adata.X[rng.uniform(size=adata.shape) < 0.1] = np.nan
    used = adata.obs["y2"].notna().to_numpy()
    adata.X[used, 4] = np.nan
    dense = adata.X.copy()
    adata.X = STORES[store](adata.X)
    al.tl.associate(adata)
    filled = dense.copy()
    filled[:, 4] = 0.0
    filled[~used, 4] = 1.0
    values = expected(adata, x=np.where(np.isnan(filled) & (np.arange(14) == 4), 0.0, filled)[:, np.arange(14) != 4])
    check(al.get.association(adata), values, np.arange(14) != 4)
    assert adata.var["lmm_status"].iloc[4] == "all_missing"
    assert np.isnan(adata.var["lmm_p_value"].iloc[4])
    with (
        untouched(adata),
        pytest.raises(ValueError, match=r"features 'v0', .* and \d+ more: missing values; use missing='mean'"),
    ):
        al.tl.associate(adata, missing="raise")


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_infinite_values_are_refused_by_name(store, value, dtype):
    adata = fitted()
    adata.X[[3, 4], [2, 5]] = value, np.inf
    adata.X[7, 2] = np.nan
    adata.X = STORES[store](adata.X.astype(dtype))
    with (
        untouched(adata),
        pytest.raises(ValueError, match=r"features 'v2', 'v5': infinite values; replace them or leave these out"),
    ):
        al.tl.associate(adata)
    with untouched(adata), pytest.raises(ValueError, match=r"feature 'v5': infinite values"):
        al.tl.associate(adata, mask_var=np.arange(14) != 2)
    al.tl.associate(adata, mask_var=~np.isin(np.arange(14), [2, 5]))
    assert (adata.var["lmm_status"] == "ok").sum() == 12


@pytest.mark.parametrize("kernel", ["group", "grm", None])
@pytest.mark.parametrize("store", ["dense", "csr_matrix", "csc_array"])
def test_features_that_cannot_be_tested_say_why(kernel, store):
    adata = fitted(kernel=kernel)
    male = adata.obs["sex"] == "m"
    adata.X[:, 1] = 0.0
    adata.X[:, 2] = 5.0
    adata.X[:, 3] = adata.obs["age"]
    adata.X[:, 4] = 2 * adata.obs["age"] - 3 * male + 1
    adata.X[:, 6] = np.nan
    adata.X[:, 7] = np.where(np.arange(40) % 2, 1.0, np.nan)  # constant where it is known
    status = [
        "ok",
        "constant",
        "constant",
        "collinear",
        "collinear",
        "ok",
        "all_missing",
        "constant",
        *["ok"] * 5,
        "masked",
    ]
    dense = adata.X.copy()
    adata.X = STORES[store](adata.X)
    al.tl.associate(adata, mask_var=np.arange(14) != 13)
    table = al.get.association(adata)
    assert table["status"].tolist() == status
    good = np.array(status) == "ok"
    assert table.loc[~good].drop(columns="status").isna().all(axis=None)
    check(table, expected(adata, x=dense[:, good]), good)
    assert adata.uns["lmm"]["association"]["n_tested"] == good.sum()


@pytest.mark.parametrize("kernel", ["group", "grm"])
@pytest.mark.parametrize("store", STORES)
def test_many_blocks_are_one(kernel, store):
    adata = fitted(m=50, kernel=kernel)
    adata.X[[3, 9], [2, 40]] = np.nan
    adata.X[:, 30] = 1.0
    adata.X = STORES[store](adata.X)
    mask = np.arange(50) % 7 != 3
    al.settings.block_memory = 2**28
    al.tl.associate(adata, mask_var=mask)
    for memory in (1, 20_000):
        al.settings.block_memory = memory
        al.tl.associate(adata, mask_var=mask, key_added="blocks")
        for name in NULL_FIELDS:
            now, then = adata.var[f"blocks_{name}"], adata.var[f"lmm_{name}"]
            if name == "status":
                assert now.tolist() == then.tolist()
            else:  # a product over the rows in another order
                np.testing.assert_allclose(now, then, rtol=1e-9, atol=1e-12, err_msg=name)


def test_no_features_at_all():
    adata = fitted()
    empty = adata[:, :0].copy()
    al.tl.associate(empty)
    assert al.get.association(empty).shape == (0, len(NULL_FIELDS))


# ------------------------------------------------------------------------------------------- slots


def test_exactly_the_fields_of_the_schema():
    adata = fitted()
    before = snapshot(adata)
    al.tl.associate(adata)
    after = snapshot(adata)
    assert set(after["var"]) - set(before["var"]) == {f"lmm_{name}" for name in NULL_FIELDS}
    assert set(after["uns"]["lmm"]) - set(before["uns"]["lmm"]) == {"association"}
    del after["uns"]["lmm"]["association"]
    after["var"] = after["var"][before["var"].columns]
    assert_same(after, before)
    table = al.get.association(adata)
    assert isinstance(table["status"].dtype, pd.CategoricalDtype)
    assert (table.drop(columns="status").dtypes == np.float64).all()


def test_another_prefix():
    adata = fitted()
    before = snapshot(adata)["uns"]["lmm"]
    al.tl.associate(adata, key_added="scan", test="score")
    assert_same(adata.uns["lmm"], before)
    assert list(adata.uns["scan"]["phenotypes"]) == ["y"]
    assert adata.uns["scan"]["association"]["null"] == "lmm"
    assert "lmm_beta" not in adata.var
    assert al.get.association(adata, "scan").shape == (14, len(NULL_FIELDS))
    al.tl.associate(adata, key_added="scan")  # again, in its place
    assert adata.uns["scan"]["association"]["test"] == "wald"
    with pytest.raises(ValueError, match="key='scan': adata.uns\\['scan'\\] is .*; "):
        al.tl.associate(adata, "scan")


@pytest.mark.parametrize("first", ["y", ["y", "y2"]])
@pytest.mark.parametrize("second", ["y2", ["y2", "y3", "y"]])
def test_a_second_scan_leaves_nothing_of_the_first(first, second):
    adata = cohort()
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, first, gamma=1.0)
    al.tl.fit_null(adata, second, gamma=1.0, key_added="second")
    al.tl.associate(adata, key_added="scan", test="score", mask_var="chosen")
    al.tl.associate(adata, "second", key_added="scan")
    columns = {f"scan_{name}" for name in NULL_FIELDS}
    several = isinstance(second, list)
    assert {c for c in adata.var if c.startswith("scan")} == (set() if several else columns)
    assert {c for c in adata.varm if c.startswith("scan")} == (columns if several else set())
    association = adata.uns["scan"]["association"]
    assert "mask_var" not in association
    assert association["test"] == "wald"
    assert association["null"] == "second"
    assert al.get.association(adata, "scan")["status"].eq("ok").all()


def test_copy_and_messages():
    adata = fitted()
    adata.X[:, 3] = 1.0
    with untouched(adata), messages("info") as seen:
        copied = al.tl.associate(adata, mask_var=np.arange(14) > 1, copy=True)
    assert seen[0] == "INFO associate: wald test of 12 features with y: 11 ok, 1 constant, 2 masked"
    assert seen[1].startswith("INFO     wrote .var['lmm_beta'], _standard_error, _p_value, … (")
    assert al.tl.associate(adata, mask_var=np.arange(14) > 1) is None
    assert_same(copied.var, adata.var)
    assert_same(copied.uns["lmm"], adata.uns["lmm"])


def test_a_hundred_columns_of_results_need_no_warning():
    adata = fitted(m=3)
    for j in range(12):
        al.tl.associate(adata, key_added=f"scan{j}")
    assert adata.var.shape[1] > 130


def test_names_that_are_not_unique_do_no_harm():
    adata = fitted()
    al.tl.associate(adata)
    twin = adata.copy()
    twin.obs_names, twin.var_names = ["same"] * 40, ["same"] * 14
    al.tl.associate(twin)
    for name in NULL_FIELDS:
        assert twin.var[f"lmm_{name}"].tolist() == pytest.approx(adata.var[f"lmm_{name}"].tolist(), nan_ok=True)


@pytest.mark.parametrize("variance", ["null", "refit", "screen"])
@pytest.mark.parametrize("kernel", ["grm", "group"])
@pytest.mark.parametrize("phenotype", ["y", ["y", "y2"]], ids=["one", "two"])
def test_all_three_tests_in_one_call(variance, kernel, phenotype):
    """One pass gives what three calls give; the first test has all fields, the others their p-values."""
    adata = cohort(60, 20)
    if kernel == "grm":
        al.pp.kernel_grm(adata)
    else:
        al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, phenotype, covariates=["age"])
    tests = ["wald", "lrt", "score"]
    slot = "var" if phenotype == "y" else "varm"
    for order in (tests, tests[::-1]):
        al.tl.associate(adata, test=order, variance=variance, threshold=0.5, key_added="all")
        for k, test in enumerate(order):
            al.tl.associate(adata, test=test, variance=variance, threshold=0.5, key_added="one")
            for name in NULL_FIELDS if k == 0 else ("p_value", "neg_log10_p_value"):
                field = f"all_{name}" if k == 0 else f"all_{name}_{test}"
                got, expected = getattr(adata, slot)[field], getattr(adata, slot)[f"one_{name}"]
                if name == "status":
                    assert (np.asarray(got) == np.asarray(expected)).all()
                else:
                    # The paths through U and through the Cholesky factor differ by rounding.
                    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10, err_msg=field)
        table = al.get.association(adata, "all", phenotype="y")
        assert [c for c in table if c.startswith("p_value_")] == [f"p_value_{t}" for t in tests if t != order[0]]
    al.tl.associate(adata, test="lrt", key_added="all")
    assert not [name for name in getattr(adata, slot) if name.startswith("all_p_value_")]


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (["wald", "wald"], r"test: must name each test once, received \['wald', 'wald'\]"),
        ([], r"test: must name each test once, received \[\]"),
        (["wald", "bayes"], r"test: must be one of 'wald', 'lrt', 'score', received 'bayes'"),
        (["wald", 3], r"test: must be one of 'wald', 'lrt', 'score', received 3"),
    ],
)
def test_a_list_of_tests_that_cannot_be(test, message):
    adata = cohort()
    al.tl.fit_null(adata, "y", kernel=None)
    with untouched(adata), pytest.raises(ValueError, match=message):
        al.tl.associate(adata, test=test)
