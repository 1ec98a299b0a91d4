"""`variance="refit"` and "screen", degrees of freedom of group-constant features, against dense refits and closed forms."""

from __future__ import annotations

import re

import numpy as np
import oracle
import pytest
from anndata import AnnData
from scipy import sparse, stats

import annlmm as al
from annlmm.model.basis import GroupBasis
from annlmm.model.design import make_design
from annlmm.model.grouped import GroupedFeatures, contrast_df
from annlmm.model.null import NullModel

N, M = 60, 8


def problem(seed: int, kind: str) -> tuple[AnnData, np.ndarray, np.ndarray]:
    """AnnData with a kernel of one kind, its K, and X (intercept and one covariate)."""
    rng = np.random.default_rng(seed)
    adata = AnnData(rng.standard_normal((N, M)))
    adata.obs["cell"] = rng.standard_normal(N)
    if kind == "groups":
        codes = np.r_[np.arange(9), rng.integers(0, 9, N - 9)]
        adata.obs["donor"] = [f"d{c}" for c in codes]
        k = (codes[:, None] == codes).astype(float)
        al.pp.kernel_group(adata, "donor")
    else:
        k = oracle.random_kernel(rng, N, {"full": None, "low": 12}[kind])
        al.pp.kernel_precomputed(adata, k)
    x = np.column_stack([np.ones(N), adata.obs["cell"]])
    adata.obs["y"] = np.linalg.cholesky(0.8 * k + np.eye(N)) @ rng.standard_normal(N) + 0.4 * adata.X[:, 0]
    return adata, k, x


@pytest.mark.parametrize("kind", ["full", "low", "groups"])
@pytest.mark.parametrize("test", ["wald", "lrt"])
def test_refit_equals_a_dense_refit_per_feature(kind: str, test: str) -> None:
    adata, k, x = problem(1, kind)
    y = adata.obs["y"].to_numpy()
    al.tl.fit_null(adata, "y", covariates="cell")
    al.tl.associate(adata, test=test, variance="refit", df="residual")
    table = al.get.association(adata)
    reml = test == "wald"
    null = oracle.fit(y, x, k, reml=False)
    for j in range(M):
        design = np.column_stack([x, adata.X[:, j]])
        dense = oracle.fit(y, design, k, reml=reml)
        row = table.iloc[j]
        # The dense optimum is a bounded Brent search: its log γ is good to about 1e-7, what is stationary there to its square.
        assert row["h_sq"] == pytest.approx(dense.gamma / (1 + dense.gamma), abs=1e-6)
        assert row["log_likelihood"] == pytest.approx(dense.log_likelihood, abs=1e-9)
        assert row["beta"] == pytest.approx(dense.beta[-1], rel=1e-5, abs=1e-7)
        if reml:
            se = np.sqrt(dense.beta_covariance[-1, -1])
            f = (dense.beta[-1] / se) ** 2
            assert row["standard_error"] == pytest.approx(se, rel=1e-6)
            assert row["p_value"] == pytest.approx(stats.f.sf(f, 1, N - 3), rel=1e-5)
            assert row["df"] == N - 3
        else:
            ratio = 2 * (dense.log_likelihood - null.log_likelihood)
            assert row["statistic"] == pytest.approx(ratio, abs=1e-8)
            assert row["p_value"] == pytest.approx(stats.chi2.sf(ratio, 1), rel=1e-6)
    assert table["refit"].all()
    assert set(table["status"]) <= {"ok", "boundary"}


def test_refit_of_a_feature_without_heritability_left_is_on_the_boundary() -> None:
    """The kernel is the outer product of one feature: with it in the model nothing is left to the kernel."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal(N)
    adata = AnnData(np.column_stack([a, rng.standard_normal(N)]))
    al.pp.kernel_precomputed(adata, np.outer(a, a) + 1e-3 * oracle.random_kernel(rng, N, 5))
    adata.obs["y"] = 2 * a + rng.standard_normal(N)
    al.tl.fit_null(adata, "y")
    assert adata.uns["lmm"]["h_sq"] > 0.5
    al.tl.associate(adata, variance="refit")
    first = al.get.association(adata).iloc[0]
    assert first["status"] == "boundary"
    assert first["h_sq"] == 0
    ols = stats.linregress(a, adata.obs["y"])
    assert first["beta"] == pytest.approx(ols.slope, rel=1e-10)
    assert first["p_value"] == pytest.approx(ols.pvalue, rel=1e-8)


@pytest.mark.parametrize("convert", [np.asfortranarray, sparse.csr_matrix, sparse.csc_matrix])
def test_refit_takes_every_array_type_missing_values_and_offsets(convert) -> None:
    adata, *_ = problem(2, "full")
    adata.X[3, 2] = np.nan
    filled = adata.X.copy()
    filled[3, 2] = np.nanmean(filled[:, 2])
    al.tl.fit_null(adata, "y", covariates="cell")
    al.tl.associate(adata, variance="refit", key_added="plain")
    adata.layers["other"] = convert(adata.X)
    adata.layers["filled"] = filled
    adata.layers["shifted"] = filled + 1e7
    for layer, rtol in (("other", 1e-10), ("filled", 1e-10), ("shifted", 1e-6)):  # 1e7 takes seven of sixteen digits
        al.tl.associate(adata, variance="refit", layer=layer, key_added=layer)
        for field in ("beta", "standard_error", "h_sq", "p_value"):
            np.testing.assert_allclose(adata.var[f"{layer}_{field}"], adata.var[f"plain_{field}"], rtol=rtol)


def test_screen_is_the_refit_below_the_threshold_and_the_null_above() -> None:
    adata, *_ = problem(3, "full")
    al.tl.fit_null(adata, "y", covariates="cell")
    al.tl.associate(adata, key_added="null")
    al.tl.associate(adata, variance="refit", key_added="refit")
    al.tl.associate(adata, variance="screen", threshold=0.3, key_added="screen")
    var = adata.var
    chosen = var["null_p_value"] < 0.3
    assert 0 < chosen.sum() < M
    np.testing.assert_array_equal(var["screen_refit"], chosen)
    for field in ("beta", "standard_error", "p_value", "statistic"):
        # Not bit for bit: the refit of a few columns multiplies other block shapes.
        np.testing.assert_allclose(var.loc[chosen, f"screen_{field}"], var.loc[chosen, f"refit_{field}"], rtol=1e-9)
        np.testing.assert_array_equal(var.loc[~chosen, f"screen_{field}"], var.loc[~chosen, f"null_{field}"])
    assert var.loc[~chosen, "screen_h_sq"].isna().all()
    assert "null_h_sq" not in var


def test_a_null_scan_after_a_refit_leaves_nothing_of_it() -> None:
    adata, *_ = problem(4, "full")
    al.tl.fit_null(adata, "y")
    al.tl.associate(adata, variance="refit")
    assert "lmm_h_sq" in adata.var
    al.tl.associate(adata)
    assert not {"lmm_h_sq", "lmm_refit", "lmm_log_likelihood"} & set(adata.var)
    assert "h_sq" not in al.get.association(adata)


def cells(rng: np.random.Generator, donors: int, icc: float) -> tuple[np.ndarray, np.ndarray]:
    """Donor of every cell (unequal numbers), and a null response."""
    codes = np.repeat(np.arange(donors), rng.integers(5, 40, donors))
    y = np.sqrt(icc) * rng.standard_normal(donors)[codes] + np.sqrt(1 - icc) * rng.standard_normal(codes.size)
    return codes, y


@pytest.mark.parametrize("icc", [0.0, 0.3])
def test_grouped_df_after_a_refit_is_that_of_the_feature_as_a_covariate(icc: float) -> None:
    """The same model through `fit_null`, whose Satterthwaite degrees of freedom have their own tests."""
    rng = np.random.default_rng(5)
    codes, y = cells(rng, 14, icc)
    genotype = rng.binomial(2, 0.4, 14).astype(float)[codes]
    adata = AnnData(np.column_stack([genotype, rng.standard_normal(codes.size)]))
    adata.obs["donor"], adata.obs["y"] = [f"d{c}" for c in codes], y
    adata.obs["cell"], adata.obs["genotype"] = rng.standard_normal(codes.size), genotype
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, "y", covariates=["cell", "genotype"], key_added="full")
    al.tl.fit_null(adata, "y", covariates="cell")
    al.tl.associate(adata, variance="refit")
    expected = adata.uns["full"]["beta"].loc["genotype"]
    row = al.get.association(adata).iloc[0]
    for field, name in (
        ("beta", "estimate"),
        ("standard_error", "standard_error"),
        ("df", "df"),
        ("p_value", "p_value"),
    ):
        assert row[field] == pytest.approx(expected[name], rel=1e-6), field
    assert al.get.association(adata).iloc[1]["df"] == adata.n_obs - 3  # varies within donors


def test_grouped_screen_on_balanced_donors_is_the_test_of_the_donor_means() -> None:
    """Balanced groups: a donor-level feature is tested by regressing donor means, on D − 2 degrees of freedom."""
    rng = np.random.default_rng(6)
    donors, size = 30, 10
    codes = np.repeat(np.arange(donors), size)
    genotype = rng.binomial(2, 0.4, donors).astype(float)
    y = rng.standard_normal(donors)[codes] + rng.standard_normal(codes.size)
    adata = AnnData(genotype[codes][:, None])
    adata.obs["donor"], adata.obs["y"] = [f"d{c}" for c in codes], y
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, "y")
    al.tl.associate(adata, variance="refit")
    ols = stats.linregress(genotype, y.reshape(donors, size).mean(axis=1))
    row = al.get.association(adata).iloc[0]
    assert row["beta"] == pytest.approx(ols.slope, rel=1e-8)
    assert row["standard_error"] == pytest.approx(ols.stderr, rel=1e-8)
    assert row["df"] == pytest.approx(donors - 2, rel=1e-8)
    assert row["p_value"] == pytest.approx(ols.pvalue, rel=1e-7)
    al.tl.associate(adata)  # at the null's γ: the same order of magnitude, not the same number
    screened = al.get.association(adata).iloc[0]
    assert screened["df"] == pytest.approx(donors - 2, abs=1.5)
    assert screened["p_value"] == pytest.approx(ols.pvalue, rel=0.3)
    assert (screened["beta"] / screened["standard_error"]) ** 2 == pytest.approx(screened["statistic"], rel=1e-9)
    assert screened["p_value"] == pytest.approx(stats.f.sf(screened["statistic"], 1, screened["df"]), rel=1e-9)


def test_strong_grouped_effect_is_refitted() -> None:
    """An effect that the null's σ² has absorbed gives T ≥ ν; the refit finds it."""
    rng = np.random.default_rng(7)
    codes = np.repeat(np.arange(12), 30)
    genotype = rng.binomial(2, 0.5, 12).astype(float)[codes]
    adata = AnnData(genotype[:, None])
    adata.obs["donor"] = [f"d{c}" for c in codes]
    adata.obs["y"] = 3 * genotype + 0.05 * rng.standard_normal(12)[codes] + rng.standard_normal(codes.size)
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, "y")
    al.tl.associate(adata)
    al.tl.associate(adata, variance="refit", key_added="refit")
    assert adata.var["lmm_p_value"].iloc[0] == pytest.approx(adata.var["refit_p_value"].iloc[0], rel=1e-9)
    assert adata.var["lmm_p_value"].iloc[0] < 1e-6


@pytest.mark.parametrize("icc", [0.05, 0.3])
def test_size_of_donor_level_features(icc: float) -> None:
    """Null genotypes over cells: the donor degrees of freedom hold their size, n − p − 1 miss it."""
    rng = np.random.default_rng(8)
    donors, features, repeats = 20, 50, 60
    p_value = {"satterthwaite": [], "residual": []}
    for _ in range(repeats):
        codes, y = cells(rng, donors, icc)
        adata = AnnData(rng.binomial(2, 0.4, (donors, features)).astype(float)[codes])
        adata.obs["donor"], adata.obs["y"] = [f"d{c}" for c in codes], y
        al.pp.kernel_group(adata, "donor")
        al.tl.fit_null(adata, "y")
        for df, values in p_value.items():
            al.tl.associate(adata, df=df)
            values.append(adata.var["lmm_p_value"].dropna().to_numpy())
    size = {df: np.mean(np.concatenate(values) < 0.01) for df, values in p_value.items()}
    # 3000 tests, 50 to a response: independent enough for a standard deviation of about 0.003.
    assert size["satterthwaite"] == pytest.approx(0.01, abs=0.008)
    assert size["residual"] < size["satterthwaite"]


@pytest.mark.parametrize("varies_within", [False, True])
def test_donor_degrees_of_freedom_are_satterthwaite_s(varies_within: bool) -> None:
    """At the null's γ from the expected information, at the feature's own γ from the observed one, with the feature in the model."""
    rng = np.random.default_rng(12)
    codes, y = cells(rng, 15, 0.3)
    a = rng.binomial(2, 0.4, (15, 4)).astype(float)[codes]
    if varies_within:  # of a cell or two
        a[:2] += 0.5
    x = np.column_stack([np.ones(codes.size), rng.standard_normal(codes.size)])
    adata = AnnData(a)
    adata.obs["donor"], adata.obs["y"], adata.obs["cell"] = [f"d{c}" for c in codes], y + 0.3 * a[:, 0], x[:, 1]
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, "y", covariates="cell")
    al.tl.associate(adata)
    al.tl.associate(adata, variance="refit", key_added="refit")
    k, response, contrast = oracle.group_kernel(codes), adata.obs["y"].to_numpy(), np.array([0.0, 0.0, 1.0])
    for j in range(4):
        design = np.column_stack([x, a[:, j]])
        expected = oracle.satterthwaite(response, design, k, contrast, adata.uns["lmm"]["gamma"], 1.0, expected=True)
        # Complex steps and inverses of V, of condition number below 100.
        assert adata.var["lmm_df"].iloc[j] == pytest.approx(expected, rel=1e-8)
        row = adata.var.iloc[j]
        assert 0 < row["refit_h_sq"] < 1
        observed = oracle.satterthwaite(response, design, k, contrast, row["refit_sigma_sq"], row["refit_tau_sq"])
        # γ̂ of a refit is good to 1e-9.
        assert row["refit_df"] == pytest.approx(observed, rel=1e-6)


def test_contrast_df_is_at_most_the_residual_one() -> None:
    rng = np.random.default_rng(9)
    codes, y = cells(rng, 8, 0.2)
    model = NullModel(make_design(np.ones((y.size, 1))), GroupBasis(codes))
    v = rng.standard_normal((7, 5))
    nu = contrast_df(GroupedFeatures(v, np.zeros(5)), model.space.mu, y.size - 1, np.array([0.0, 1e-6, 0.1, 10.0, 1e6]))
    assert (nu > 0).all()
    assert (nu <= y.size - 2).all()
    # σ² ≫ τ²: only the seven dimensions of the donors are left, less the one of the feature.
    assert nu[-1] == pytest.approx(6, rel=1e-3)


def test_refit_options_are_checked() -> None:
    adata, *_ = problem(10, "low")
    al.tl.fit_null(adata, "y")
    for options, message in (
        ({"variance": "exact"}, "variance: must be one of 'null', 'refit', 'screen', received 'exact'"),
        ({"df": "donors"}, "df: must be one of 'satterthwaite', 'residual', received 'donors'"),
        ({"threshold": 0.0}, "threshold: must lie in (0, 1], received 0.0"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            al.tl.associate(adata, **options)


@pytest.mark.parametrize(("seed", "h_sq"), [(2, 0.8), (0, 0.6), (5, 0.9)])
def test_likelihood_ratio_with_a_centred_kernel_takes_interior_optima(seed: int, h_sq: float) -> None:
    """The full likelihood of a centred kernel under an intercept has no bound as h² → 1: its end is no optimum."""
    adata = al.datasets.gwas_cohort(n_obs=300, n_vars=400, h_sq=h_sq, rng=seed)
    al.pp.kernel_grm(adata)
    al.tl.fit_null(adata, "phenotype", covariates="~ age + C(sex)")
    al.tl.associate(adata, test="lrt", variance="refit", key_added="lrt")
    al.tl.associate(adata, variance="refit", key_added="wald")
    assert (adata.var["lrt_h_sq"] < 0.999).all()
    # The tests differ by REML against ML and F against χ²: a few percent in −log10 p at n = 300.
    np.testing.assert_allclose(
        adata.var["lrt_neg_log10_p_value"], adata.var["wald_neg_log10_p_value"], rtol=0.15, atol=0.02
    )


def test_full_likelihood_without_a_maximum_is_refused_by_score_and_lrt() -> None:
    adata = al.datasets.gwas_cohort(n_obs=300, n_vars=400, h_sq=0.9, rng=1)
    al.pp.kernel_grm(adata)
    al.tl.fit_null(adata, "phenotype", covariates="~ age + C(sex)")
    adata.obs["steep"] = adata.obs["lmm_blup"] + 1e-3 * adata.obs["lmm_residual"]
    al.tl.fit_null(adata, "steep", key_added="steep")
    for options in ({"test": "score"}, {"test": "lrt", "variance": "refit"}):
        with pytest.raises(ValueError, match="phenotype 'steep': the full likelihood has no maximum.*test='wald'"):
            al.tl.associate(adata, "steep", **options)
    assert not [name for name in adata.var if name.startswith("steep")]


def test_least_squares_has_nothing_to_refit() -> None:
    adata, *_ = problem(11, "low")
    al.tl.fit_null(adata, "y", kernel=None)
    al.tl.associate(adata, key_added="null")
    for variance in ("refit", "screen"):
        al.tl.associate(adata, variance=variance)
        np.testing.assert_array_equal(adata.var["lmm_p_value"], adata.var["null_p_value"])
        assert not adata.var["lmm_refit"].any()


def test_one_imputed_or_mislabelled_cell_does_not_change_the_degrees_of_freedom() -> None:
    rng = np.random.default_rng(12)
    codes, y = cells(rng, 12, 0.3)
    genotype = rng.binomial(2, 0.5, 12).astype(float)[codes]
    missing, mislabelled = genotype.copy(), genotype.copy()
    missing[7], mislabelled[7] = np.nan, 2 - genotype[7]
    adata = AnnData(np.column_stack([genotype, missing, mislabelled, rng.standard_normal(codes.size)]))
    adata.obs["donor"], adata.obs["y"] = [f"d{c}" for c in codes], y
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, "y")
    for variance in ("null", "refit"):
        al.tl.associate(adata, variance=variance)
        df = al.get.association(adata)["df"].to_numpy()
        # One cell in hundreds brings a little information of its own, and so a few degrees of freedom.
        assert 7 < df[0] < 12
        assert (df[1:3] < 20).all()
        assert df[3] == codes.size - 2


def test_few_unequal_groups_are_refitted_in_the_tail() -> None:
    """600,000 null tests: T/ν at the null's γ gave 122 p-values below 1e-4, the smallest 3e-9; 60 and 2e-6 are expected."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(10), [2, 2, 2, 3, 3, 4, 5, 7, 9, 13])
    adata = AnnData(rng.standard_normal((10, 2000))[codes])
    adata.obs["group"] = codes.astype(str)
    adata.obsm["y"] = rng.standard_normal((50, 300))
    al.pp.kernel_group(adata, "group")
    al.tl.fit_null(adata, "y", variance_test=False)
    al.tl.associate(adata)
    p = np.asarray(adata.varm["lmm_p_value"])
    # With the refit it is conservative; five standard errors above 60 would be 99.
    assert (p < 1e-4).sum() < 99
    assert p.min() > 1e-7
