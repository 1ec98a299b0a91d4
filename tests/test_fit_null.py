"""`al.tl.fit_null` against the naive dense oracle, and what it does to the slots."""

from __future__ import annotations

import numpy as np
import oracle
import pandas as pd
import pytest
from helpers import assert_same, cohort, messages, relatedness, snapshot, untouched
from scipy import stats

import annlmm as al
from annlmm._slots.fit import SCALARS
from annlmm._slots.schema import fields_of

KERNELS = ["grm", "group", "relatedness"]
COVARIATES = ["age", "sex"]


def with_kernel(name, n=40, seed=0):
    adata = cohort(n, 60, seed=seed)
    if name == "grm":
        al.pp.kernel_grm(adata)
        # the cohort's phenotype follows the donors; here the genomes
        adata.obs["y"] += np.linalg.cholesky(al.get.kernel(adata) + 1e-6 * np.eye(n)) @ np.random.default_rng(7).normal(
            0, 1.5, n
        )
    elif name is not None:
        donors = list(adata.obs["donor"].cat.categories)
        al.pp.kernel_group(adata, "donor", relatedness=relatedness(donors) if name == "relatedness" else None)
    return adata


def parts(adata, rows=slice(None), phenotype="y"):
    """y, X, K for the oracle."""
    obs = adata.obs
    x = np.column_stack([np.ones(len(obs)), obs["age"], obs["sex"] == "m"]).astype(float)
    k = al.get.kernel(adata).to_numpy() if "kernel" in adata.uns else np.zeros((len(obs), len(obs)))
    return obs[phenotype].to_numpy(dtype=float)[rows], x[rows], k[rows][:, rows]


def check_against(entry, fit, *, rtol):
    for name in ("gamma", "sigma_sq", "tau_sq", "log_likelihood"):
        assert entry[name] == pytest.approx(getattr(fit, name), rel=rtol), name
    np.testing.assert_allclose(entry["beta"]["estimate"], fit.beta, rtol=rtol)
    np.testing.assert_allclose(entry["beta_covariance"], fit.beta_covariance, rtol=rtol)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("reml", [True, False])
def test_estimates_are_the_oracles(name, reml):
    adata = with_kernel(name)
    al.tl.fit_null(adata, "y", covariates=COVARIATES, reml=reml)
    entry, (y, x, k) = adata.uns["lmm"], parts(adata)
    expected = oracle.fit(y, x, k, reml=reml)
    # A minimum is only found to the root of machine precision by comparing values, as the oracle does: 1e-7 in log γ.
    assert entry["status"] == "ok"
    assert 0.02 < entry["h_sq"] < 0.98
    check_against(entry, expected, rtol=1e-6)
    assert oracle.log_likelihood(y, x, k, entry["gamma"], reml=reml)[0] >= expected.log_likelihood - 1e-10
    blup, residual = oracle.blup(y, x, k, entry["gamma"])
    # dense inverse of a matrix of condition 1e2
    np.testing.assert_allclose(adata.obs["lmm_blup"], blup, atol=1e-10)
    np.testing.assert_allclose(adata.obs["lmm_residual"], residual, atol=1e-10)
    np.testing.assert_allclose(x @ entry["beta"]["estimate"] + blup + residual, y, atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("gamma", [0, 0.0, 0.5, np.float32(2.0), 1e3])
@pytest.mark.parametrize("reml", [True, False])
def test_gamma_that_is_given_is_honoured(name, gamma, reml):
    adata = with_kernel(name)
    al.tl.fit_null(adata, "y", covariates=COVARIATES, gamma=gamma, reml=reml)
    entry, (y, x, k) = adata.uns["lmm"], parts(adata)
    # closed forms; the oracle inverts a matrix of condition γ · s_max = 1e4
    check_against(entry, oracle.fit(y, x, k, float(gamma), reml=reml), rtol=1e-9)
    assert entry["gamma"] == entry["params"]["gamma"] == float(gamma)
    assert entry["h_sq"] == pytest.approx(gamma / (1 + gamma), rel=1e-14)
    assert np.isnan([entry[f"h_sq_{f}"] for f in ("standard_error", "ci_low", "ci_high", "p_value")]).all()
    assert entry["status"] == "ok"
    np.testing.assert_array_equal(entry["beta"]["df"], 37.0)


def test_no_kernel_is_ordinary_least_squares():
    adata = with_kernel(None)
    y, x, _ = parts(adata)
    for reml in (True, False):
        al.tl.fit_null(adata, "y", covariates=COVARIATES, kernel=None, reml=reml)
        entry = adata.uns["lmm"]
        beta, rss, *_ = np.linalg.lstsq(x, y, rcond=None)
        tau_sq = float(rss[0]) / (37 if reml else 40)
        se = np.sqrt(tau_sq * np.diag(np.linalg.inv(x.T @ x)))
        # a condition number of 1e2
        np.testing.assert_allclose(entry["beta"]["estimate"], beta, rtol=1e-12)
        np.testing.assert_allclose(entry["beta"]["standard_error"], se, rtol=1e-12)
        np.testing.assert_allclose(entry["beta"]["p_value"], 2 * stats.t.sf(np.abs(beta / se), 37), rtol=1e-10)
        assert entry["tau_sq"] == pytest.approx(tau_sq, rel=1e-12)
        assert (entry["sigma_sq"], entry["gamma"], entry["h_sq"], entry["rank"]) == (0, 0, 0, 0)
        assert entry["status"] == "ok"
        assert "kernel" not in entry["params"]
        np.testing.assert_array_equal(adata.obs["lmm_blup"], 0.0)
        np.testing.assert_allclose(adata.obs["lmm_residual"], y - x @ beta, atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_the_table_of_fixed_effects(name):
    adata = with_kernel(name)
    al.tl.fit_null(adata, "y", covariates="~ age + C(sex)")
    entry, (y, x, k) = adata.uns["lmm"], parts(adata)
    table = entry["beta"]
    assert list(table.columns) == ["term", "estimate", "standard_error", "statistic", "df", "p_value"]
    assert list(table["term"]) == list(table.index) == ["Intercept", "age", "C(sex)[T.m]"]
    np.testing.assert_allclose(table["standard_error"] ** 2, np.diag(entry["beta_covariance"]), rtol=1e-14)
    np.testing.assert_allclose(table["statistic"], table["estimate"] / table["standard_error"], rtol=1e-14)
    np.testing.assert_allclose(table["p_value"], 2 * stats.t.sf(np.abs(table["statistic"]), table["df"]), rtol=1e-10)
    for j in range(3):
        df = oracle.satterthwaite(y, x, k, np.eye(3)[j], entry["sigma_sq"], entry["tau_sq"])
        # complex steps are exact; γ̂ agrees to 1e-8
        assert table["df"].iloc[j] == pytest.approx(min(df, 37.0), rel=1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_heritability_and_its_uncertainty(name):
    adata = with_kernel(name)
    al.tl.fit_null(adata, "y", covariates=COVARIATES)
    entry, (y, x, k) = adata.uns["lmm"], parts(adata)
    h = entry["h_sq"]
    assert h == pytest.approx(entry["sigma_sq"] / (entry["sigma_sq"] + entry["tau_sq"]), rel=1e-12)
    assert entry["log_gamma"] == pytest.approx(np.log(entry["gamma"]), rel=1e-14)
    # a fourth-order difference of the dense profile is good to 1e-6 or so
    assert entry["h_sq_standard_error"] == pytest.approx(oracle.h_sq_curvature(y, x, k, h) ** -0.5, rel=1e-5)
    assert 0 <= entry["h_sq_ci_low"] < h < entry["h_sq_ci_high"] <= 1
    assert 0 < entry["h_sq_p_value"] <= 1
    assert entry["h_sq_neg_log10_p_value"] == pytest.approx(-np.log10(entry["h_sq_p_value"]), rel=1e-12)
    t = np.trace(oracle.centring(40) @ k) / 40
    assert entry["pve"] == pytest.approx(entry["sigma_sq"] * t / (entry["sigma_sq"] * t + entry["tau_sq"]), rel=1e-12)
    assert entry["aic"] == pytest.approx(-2 * entry["log_likelihood"] + 2 * 5, rel=1e-14)
    assert entry["rank"] == np.linalg.matrix_rank(k)
    lr = 2 * (entry["log_likelihood"] - oracle.log_likelihood(y, x, k, 0.0)[0])
    assert entry["h_sq_p_value_mixture"] == pytest.approx(0.5 * stats.chi2.sf(lr, 1), rel=1e-6)


def test_a_boundary_is_a_result():
    adata = with_kernel("group")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(40)
    by_donor = adata.obs["donor"].cat.codes.to_numpy()
    # no differences between donors at all: h² = 0 exactly
    adata.obs["flat"] = noise - np.bincount(by_donor, noise)[by_donor] / 5
    al.tl.fit_null(adata, "flat")
    entry = adata.uns["lmm"]
    assert (entry["h_sq"], entry["gamma"], entry["sigma_sq"]) == (0, 0, 0)
    assert entry["status"] == "boundary"
    assert entry["log_gamma"] == -np.inf
    assert np.isnan(entry["h_sq_standard_error"])
    assert entry["h_sq_p_value"] == 1
    assert entry["h_sq_ci_low"] == 0
    np.testing.assert_array_equal(adata.obs["lmm_blup"], 0.0)


def test_the_seed_changes_the_simulated_values_only():
    adata = with_kernel("group")
    al.tl.fit_null(adata, "y", covariates=COVARIATES)
    al.tl.fit_null(adata, "y", covariates=COVARIATES, key_added="again")
    al.tl.fit_null(adata, "y", covariates=COVARIATES, rng=1, key_added="other")
    assert_same(adata.uns["again"], adata.uns["lmm"])
    simulated = {"h_sq_ci_low", "h_sq_ci_high", "h_sq_p_value", "h_sq_neg_log10_p_value", "params"}
    first, other = ({k: v for k, v in adata.uns[key].items() if k not in simulated} for key in ("lmm", "other"))
    assert_same(other, first)
    assert adata.uns["other"]["h_sq_p_value"] != adata.uns["lmm"]["h_sq_p_value"]
    # 30,000 weighted draws: within a few percent
    assert adata.uns["other"]["h_sq_p_value"] == pytest.approx(adata.uns["lmm"]["h_sq_p_value"], rel=0.1)


# ------------------------------------------------------------------------------------------- several phenotypes

PHENOTYPES = ["y", "y2", "y3"]


@pytest.mark.parametrize("name", ["grm", "group"])
@pytest.mark.parametrize("how", ["list", "tuple", "frame", "array"])
def test_several_phenotypes_are_single_fits(name, how):
    """Each on its own rows, whatever is missing in the others."""
    adata = with_kernel(name)
    values = adata.obs[PHENOTYPES]
    adata.obsm["traits"] = values if how == "frame" else values.to_numpy()
    phenotype = {"list": PHENOTYPES, "tuple": tuple(PHENOTYPES)}.get(how, "traits")
    names = [f"traits[{j}]" for j in range(3)] if how == "array" else PHENOTYPES
    gamma = None if name == "group" and how == "frame" else 0.7  # estimated once; the simulations take the time
    al.tl.fit_null(adata, phenotype, covariates=COVARIATES, gamma=gamma)
    entry = adata.uns["lmm"]
    assert list(entry["phenotypes"]) == list(entry["fits"].index) == names
    assert list(entry["fits"].columns) == list(SCALARS)
    assert list(entry["beta"].columns[:2]) == ["phenotype", "term"]
    assert not {"gamma", "h_sq", "status"} & set(entry)
    for j, (shown, column) in enumerate(zip(names, PHENOTYPES, strict=True)):
        al.tl.fit_null(adata, column, covariates=COVARIATES, gamma=gamma, key_added="one")
        one = adata.uns["one"]
        for scalar in SCALARS:  # the same code on the same numbers
            assert_same(entry["fits"].loc[shown, scalar], one[scalar], scalar)
        long = entry["beta"][entry["beta"]["phenotype"] == shown]
        pd.testing.assert_frame_equal(
            long.drop(columns="phenotype").set_axis(one["beta"].index, axis=0), one["beta"], check_exact=True
        )
        np.testing.assert_array_equal(entry["beta_covariance"][j], one["beta_covariance"])
        for field in ("phenotype", "blup", "residual"):
            np.testing.assert_array_equal(adata.obsm[f"lmm_{field}"][:, j], adata.obs[f"one_{field}"])
    assert not [c for c in adata.obs if c.startswith("lmm_")]
    assert entry["fits"]["n_obs"].tolist() == values.notna().sum().tolist()


def test_one_phenotype_in_a_list_is_a_single_fit():
    adata = with_kernel("group")
    adata.obsm["trait"] = adata.obs[["y"]].to_numpy()
    al.tl.fit_null(adata, "y", gamma=1.0)
    al.tl.fit_null(adata, ["y"], gamma=1.0, key_added="listed")
    al.tl.fit_null(adata, "trait", gamma=1.0, key_added="array")
    for key in ("listed", "array"):
        assert "fits" not in adata.uns[key]
        assert adata.uns[key]["tau_sq"] == adata.uns["lmm"]["tau_sq"]
        np.testing.assert_array_equal(adata.obs[f"{key}_blup"], adata.obs["lmm_blup"])
    assert list(adata.uns["array"]["phenotypes"]) == ["trait"]


@pytest.mark.parametrize("dtype", ["int64", "float32", "bool", "Int64", "Float64", "boolean", "object"])
def test_phenotypes_of_any_numeric_type(dtype):
    adata = with_kernel("group")
    values = (adata.obs["y"] > adata.obs["y"].median()).astype(int)
    adata.obs["case"] = values.astype(float)
    expected_rows = np.full(40, True)
    typed = values.astype(dtype)
    if dtype in ("Int64", "Float64", "boolean", "object"):
        typed = typed.where(np.arange(40) > 1, None if dtype == "object" else pd.NA)
        expected_rows[:2] = False
    adata.obs["typed"] = typed
    al.tl.fit_null(adata, "case", gamma=1.0, mask_obs=expected_rows)
    al.tl.fit_null(adata, "typed", gamma=1.0, key_added="t")
    assert adata.uns["t"]["n_obs"] == expected_rows.sum()
    assert adata.uns["t"]["tau_sq"] == adata.uns["lmm"]["tau_sq"]


# ------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("name", KERNELS)
def test_missing_rows_leave_the_model_exact(name):
    """Missing phenotype, covariate, mask: the fit is that of the oracle on K[kept, kept] (centred again for a GRM)."""
    adata = with_kernel(name)
    adata.obs.loc[adata.obs_names[:3], "y"] = np.nan
    adata.obs.loc[adata.obs_names[5], "age"] = np.nan
    adata.obs.loc[adata.obs_names[7], "sex"] = np.nan
    rows = adata.obs[["y", "age", "sex"]].notna().all(axis=1).to_numpy() & adata.obs["kept"].to_numpy()
    al.tl.fit_null(adata, "y", covariates=COVARIATES, mask_obs="kept")
    y, x, k = parts(adata, rows)
    if name == "grm":
        h = oracle.centring(rows.sum())
        k = h @ k @ h
    check_against(adata.uns["lmm"], oracle.fit(y, x, k), rtol=1e-6)
    assert adata.uns["lmm"]["n_obs"] == rows.sum()
    for field in ("phenotype", "blup", "residual"):
        np.testing.assert_array_equal(adata.obs[f"lmm_{field}"].notna(), rows)
    np.testing.assert_array_equal(~np.isnan(adata.obsm["lmm_design"]).any(axis=1), rows)
    np.testing.assert_array_equal(adata.obsm["lmm_design"][rows], x)
    np.testing.assert_allclose(
        adata.obs["lmm_blup"][rows], oracle.blup(y, x, k, adata.uns["lmm"]["gamma"])[0], atol=1e-9
    )


def test_masks_of_rows():
    adata = with_kernel("group")
    kept = adata.obs["kept"]
    al.tl.fit_null(adata, "y", gamma=1.0, mask_obs="kept")
    assert adata.uns["lmm"]["params"]["mask_obs"] == "kept"
    masks = {
        "array": kept.to_numpy(),
        "list": kept.tolist(),
        "series": kept,
        "shuffled": kept.sample(frac=1, random_state=0),
        "more": pd.concat([kept, pd.Series([True], index=["elsewhere"])]),
        "nullable": kept.astype("boolean"),
        "object": kept.to_numpy(dtype=object),
    }
    for how, mask in masks.items():
        al.tl.fit_null(adata, "y", gamma=1.0, mask_obs=mask, key_added="other")
        np.testing.assert_array_equal(adata.obs["other_phenotype"], adata.obs["lmm_phenotype"], err_msg=how)
        assert adata.uns["other"]["tau_sq"] == adata.uns["lmm"]["tau_sq"]
        assert adata.uns["other"]["params"]["mask_obs"] == "array"


# ------------------------------------------------------------------------------------------- slots


def fields(several):
    """The schema of `fit_null`: {slot: keys}."""
    scalars = set(SCALARS)
    uns = {f.name for f in fields_of("fit_null") if f.slot == "uns"}
    per_row = {f.name.format(key="lmm") for f in fields_of("fit_null") if f.slot == "obs"}
    assert scalars < uns
    if several:
        return {"uns": uns - scalars, "obsm": {"lmm_design", "X_pca"} | per_row, "obs": set()}
    return {"uns": uns - {"fits"}, "obsm": {"lmm_design", "X_pca"}, "obs": per_row}


@pytest.mark.parametrize("first", ["y", PHENOTYPES])
@pytest.mark.parametrize("second", ["y2", PHENOTYPES[1:]])
def test_exactly_the_fields_of_the_schema_also_after_another_fit(first, second):
    adata = with_kernel("group")
    before = snapshot(adata)
    for phenotype in (first, second):
        al.tl.fit_null(adata, phenotype, covariates=COVARIATES, gamma=1.0)
        al.tl.associate(adata)
    al.tl.fit_null(adata, second, gamma=0.5)
    expected = fields(isinstance(second, list))
    assert set(adata.uns["lmm"]) == expected["uns"]
    assert set(adata.uns["lmm"]["params"]) == {"phenotype", "covariates", "kernel", "reml", "gamma", "rng"}
    assert set(adata.obsm) == expected["obsm"]
    assert set(adata.obs) - set(before["obs"]) == expected["obs"]
    # the association belonged to the fit before
    assert set(adata.var) == set(before["var"])
    assert not adata.varm
    assert adata.obsm["lmm_design"].shape == (40, 1)
    with pytest.raises(KeyError, match="key='lmm': no association there; run al.tl.associate"):
        al.get.association(adata)


def test_a_new_fit_leaves_a_users_own_columns():
    adata = with_kernel("group")
    adata.var["lmm_beta"] = 1.0
    al.tl.fit_null(adata, "y", gamma=1.0)
    al.tl.fit_null(adata, "y2", gamma=1.0)
    assert (adata.var["lmm_beta"] == 1).all()


def test_copy_and_in_place():
    adata = with_kernel("group")
    with untouched(adata):
        copied = al.tl.fit_null(adata, "y", gamma=1.0, copy=True)
    assert al.tl.fit_null(adata, "y", gamma=1.0) is None
    assert_same(copied.uns["lmm"], adata.uns["lmm"])


def test_what_is_asked_for_is_kept_as_text():
    adata = with_kernel("group")
    al.tl.fit_null(adata, PHENOTYPES, covariates=["age", "X_pca"], gamma=1.0, reml=False, rng=3)
    params = adata.uns["lmm"]["params"]
    assert params["phenotype"].tolist() == PHENOTYPES
    assert params["covariates"] == "~ 1 + age + X_pca"
    assert (params["kernel"], params["reml"], params["gamma"], params["rng"]) == ("kernel", False, 1.0, 3)
    al.tl.fit_null(adata, "y", covariates=" ~ age", gamma=1.0)
    assert adata.uns["lmm"]["params"]["covariates"] == "~ age"
    assert adata.uns["lmm"]["params"]["phenotype"] == "y"


def test_messages():
    adata = with_kernel("group")
    with messages("info") as seen:
        al.tl.fit_null(adata, "y", covariates=COVARIATES)
    entry = adata.uns["lmm"]
    assert len(seen) == 2
    assert seen[0] == (
        "INFO fit_null: y on 40 of 40 observations, 3 fixed effects, kernel 'kernel' of rank 8: "
        f"h² = {entry['h_sq']:.4f} ± {entry['h_sq_standard_error']:.4f} (ok)"
    )
    assert seen[1].startswith("INFO     wrote .uns['lmm'], .obsm['lmm_design'], 'lmm_phenotype', _blup, _residual (")
    with messages("info") as seen:
        al.tl.fit_null(adata, PHENOTYPES, gamma=1.0)
    assert [line.split(" on ")[0] for line in seen[:3]] == [f"INFO fit_null: {name}" for name in PHENOTYPES]
    assert "h² = 0.5000 (ok)" in seen[0]
    with messages("warning") as seen:
        al.tl.fit_null(adata, "y", gamma=1.0)
    assert seen == []


def test_names_that_are_not_unique_do_no_harm():
    adata = with_kernel("group")
    al.tl.fit_null(adata, "y", covariates="~ age + C(sex)", gamma=1.0)
    twin = adata.copy()
    twin.obs_names = ["same"] * 40
    al.tl.fit_null(twin, "y", covariates="~ age + C(sex)", gamma=1.0)
    assert_same(twin.uns["lmm"], adata.uns["lmm"])
