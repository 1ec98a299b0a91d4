"""The simulated cohort does what its truth says: judged by ordinary least squares and moments, not by the package."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import annlmm as al
from annlmm.datasets import sc_eqtl

TINY = {"n_vars": 60, "n_eqtl": 3, "n_secondary": 1, "n_interaction": 1}


@pytest.fixture(scope="module")
def pair() -> tuple[ad.AnnData, ad.AnnData]:
    return sc_eqtl()


@pytest.fixture(scope="module")
def large() -> tuple[ad.AnnData, ad.AnnData]:
    """Enough donors for the moments, no missing calls."""
    return sc_eqtl(400, 40, 40, n_vars=800, n_eqtl=20, n_secondary=6, n_interaction=8, slope=0.1, missing=0)


def donor_slopes(expression: ad.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Intercept (at pseudotime ½) and slope of each donor and gene by least squares within the donor."""
    eta = expression.layers["log_rate"].astype(np.float64)
    codes = expression.obs["donor_id"].cat.codes.to_numpy()
    s = expression.obs["pseudotime"].to_numpy() - 0.5
    out = np.full((2, codes.max() + 1, expression.n_vars), np.nan)
    for d in range(codes.max() + 1):
        rows = codes == d
        if rows.sum() > 2:
            out[:, d] = np.linalg.lstsq(np.column_stack([np.ones(rows.sum()), s[rows]]), eta[rows], rcond=None)[0]
    return out[0], out[1]


def donor_covariates(expression: ad.AnnData) -> np.ndarray:
    first = expression.obs.groupby("donor_id", observed=True)[["age", "sex", "batch"]].first()
    return np.column_stack([np.ones(len(first)), pd.get_dummies(first, drop_first=True).to_numpy(dtype=float)])


def test_shapes_and_columns(pair):
    expression, genotype = pair
    assert expression.n_vars == 100
    assert genotype.shape == (100, 2000)
    assert sparse.issparse(expression.X)
    assert expression.X.dtype == expression.layers["logcounts"].dtype == np.float32
    assert list(expression.obs) == ["donor_id", "pseudotime", "cell_type", "age", "sex", "batch", "total_counts"]
    assert list(expression.var)[:4] == ["chrom", "start", "end", "strand"]
    assert list(genotype.var)[:4] == ["chrom", "pos", "a0", "a1"]
    assert genotype.X.dtype == np.float32
    assert (genotype.var["a0"].astype(str) != genotype.var["a1"].astype(str)).all()
    assert set(np.unique(genotype.X[np.isfinite(genotype.X)])) == {0, 1, 2}
    # Binomial: 2000 missing calls expected, standard deviation 45.
    assert abs(np.isnan(genotype.X).sum() - 2000) < 5 * 45
    assert list(expression.obs["donor_id"].cat.categories) == list(genotype.obs_names)


def test_donors_agree_on_both_sides(pair):
    expression, genotype = pair
    per_donor = expression.obs.groupby("donor_id", observed=True)
    for name in ("age", "sex", "batch"):
        assert (per_donor[name].nunique() == 1).all()
    first = per_donor[["age", "sex"]].first()
    first.index = first.index.astype(str)
    pd.testing.assert_frame_equal(first, genotype.obs[["age", "sex"]], check_names=False, check_index_type=False)


def test_counts_and_their_normalisation(pair):
    expression, _ = pair
    x = expression.X.toarray().astype(np.float64)
    total = expression.obs["total_counts"].to_numpy()
    assert (x.sum(axis=1) < total).all()
    # Stored as float32.
    np.testing.assert_allclose(expression.layers["logcounts"].toarray(), np.log1p(1e4 * x / total[:, None]), rtol=1e-6)
    # Poisson: the depth of a cell is about its total over 10,000, so that Pearson's residuals have unit variance.
    mean = np.exp(expression.layers["log_rate"].astype(np.float64)) * total[:, None] / 10_240
    assert 0.95 < np.mean((x - mean) ** 2 / mean) < 1.1


def test_places_of_genes_and_variants(pair):
    expression, genotype = pair
    pos = genotype.var.groupby("chrom", observed=True)["pos"]
    assert (genotype.var.groupby("chrom", observed=True).size() == 1000).all()
    assert pos.apply(lambda p: (np.diff(p) > 0).all()).all()
    var = expression.var
    assert (var["start"] < var["end"]).all()
    assert (var["end"] - var["start"] < 100_000).all()
    middle = (var["start"] + var["end"]) / 2
    last = pos.max()[var["chrom"]].to_numpy()
    assert (middle > 0).all()
    assert (middle <= last + 50_000).all()


def test_truth_names_what_is_there(pair):
    expression, genotype = pair
    pairs = expression.uns["truth"]["pairs"]
    assert list(pairs) == ["gene", "variant", "beta", "interaction", "rank"]
    assert len(pairs) == 35
    assert pairs["gene"].nunique() == 30
    assert set(pairs["gene"]) == set(expression.var_names[expression.var["eqtl"]])
    assert set(pairs["variant"]) == set(genotype.var_names[genotype.var["causal"]])
    assert (pairs["rank"] == 2).sum() == 5
    assert not pairs.duplicated(["gene", "variant"]).any()
    interacts = pairs["interaction"] != 0
    assert interacts.sum() == 10
    assert set(pairs["gene"][interacts]) == set(expression.var_names[expression.var["interaction"]])
    assert pairs["beta"].abs().between(0.2, 0.5).all()
    assert pairs["interaction"][interacts].abs().between(0.6, 1.2).all()


def test_causal_variants_are_near_common_and_second_ones_independent(pair):
    expression, genotype = pair
    dosages = np.nan_to_num(genotype.to_df(), nan=1.0)
    frequency = genotype.to_df().mean() / 2
    place = {name: j for j, name in enumerate(genotype.var_names)}
    for gene, rows in expression.uns["truth"]["pairs"].groupby("gene"):
        var = expression.var.loc[gene]
        tss = var["end"] if var["strand"] == "-" else var["start"]
        found = genotype.var.loc[rows["variant"]]
        assert (found["chrom"].astype(str) == var["chrom"]).all()
        assert abs(found["pos"].iloc[0] - tss) <= 100_000
        assert (np.abs(found["pos"] - tss) <= 500_000).all()
        # 1 % of the calls are missing: the frequency of what is left differs by less than 0.01.
        assert np.minimum(frequency[rows["variant"]], 1 - frequency[rows["variant"]]).min() >= 0.09
        if len(rows) == 2:
            first, second = (dosages[:, place[name]] for name in rows["variant"])
            assert np.corrcoef(first, second)[0, 1] ** 2 < 0.01


def test_effects_are_recovered(large):
    """Donors' intercepts and slopes, by least squares on the dosages and covariates: within 5 standard errors."""
    expression, genotype = large
    pairs = expression.uns["truth"]["pairs"]
    covariates = donor_covariates(expression)
    scores = []
    for column, values in zip(("beta", "interaction"), donor_slopes(expression), strict=True):
        for gene, rows in pairs.groupby("gene"):
            y = values[:, expression.var_names.get_loc(gene)]
            x = np.column_stack([covariates, genotype[:, rows["variant"].tolist()].X.astype(float)])
            kept = np.isfinite(y)
            q, r = np.linalg.qr(x[kept])
            estimate = np.linalg.solve(r, q.T @ y[kept])
            residual = y[kept] - x[kept] @ estimate
            inverse = np.linalg.inv(r)
            error = np.sqrt((inverse**2).sum(axis=1) * (residual @ residual) / (kept.sum() - x.shape[1]))
            scores += ((estimate - np.r_[np.zeros(covariates.shape[1]), rows[column]]) / error)[-len(rows) :].tolist()
    scores = np.array(scores)
    assert np.abs(scores).max() < 5
    # 52 scores of about unit variance: the standard deviation of their mean square is 0.2.
    assert 0.4 < np.mean(scores**2) < 1.8


def test_variances_are_recovered(large):
    expression, genotype = large
    intercepts, slopes = donor_slopes(expression)
    var = expression.var
    null = ~var["eqtl"].to_numpy()
    counts = expression.obs["donor_id"].value_counts()[genotype.obs_names].to_numpy()
    many = counts >= 30
    # Within donors: what is left of their own lines.
    eta = expression.layers["log_rate"].astype(np.float64)
    codes = expression.obs["donor_id"].cat.codes.to_numpy()
    s = expression.obs["pseudotime"].to_numpy()[:, None] - 0.5
    residual = eta - intercepts[codes] - slopes[codes] * s
    # Donors with fewer than three cells have no line.
    lines = np.isfinite(residual[:, 0])
    tau_sq = (residual[lines] ** 2).sum(axis=0) / (lines.sum() - 2 * np.isfinite(intercepts[:, 0]).sum())
    # 16,000 cells: relative standard deviation of a variance 0.011.
    np.testing.assert_allclose(tau_sq, var["true_tau_sq"], rtol=0.06)
    # Slopes: sampling variance τ²/Σ(s − s̄)² on top of ω² (age and the like are in the intercepts only).
    spread = pd.Series(s[:, 0]).groupby(codes).apply(lambda x: ((x - x.mean()) ** 2).sum()).to_numpy()
    omega_sq = slopes[many].var(axis=0, ddof=1) - np.outer(tau_sq, 1 / spread[many]).mean(axis=1)
    ratio = (omega_sq / var["true_slope_variance"])[null]
    # Relative standard deviation of a variance of some 250 donors is 0.09, twice that for the noise on top; 20 genes.
    assert abs(ratio.mean() - 1) < 5 * 0.18 / np.sqrt(null.sum())
    np.testing.assert_allclose(var["true_slope_variance"], 12 * 0.1 * var["true_tau_sq"])
    x = donor_covariates(expression)[many]
    y = intercepts[many]
    y = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    between = (y**2).sum(axis=0) / (many.sum() - x.shape[1]) - tau_sq * np.mean(1 / counts[many])
    ratio = between[null].sum() / var["true_sigma_sq"][null].sum()
    # As for the slopes.
    assert abs(ratio - 1) < 5 * 0.12 / np.sqrt(null.sum())
    assert np.corrcoef(between[null], var["true_sigma_sq"][null])[0, 1] > 0.9


def test_donor_effects_follow_the_genotypes():
    """With rho=1 families of two share half of the donor effect, with rho=0 nothing."""
    correlation = {}
    for rho in (0.0, 1.0):
        expression, genotype = sc_eqtl(
            300, 30, 40, n_vars=1500, n_eqtl=0, n_secondary=0, n_interaction=0, icc=0.6, rho=rho, family_size=2, fst=0
        )
        means = np.stack(
            [
                expression.layers["log_rate"][expression.obs["donor_id"].to_numpy() == name].mean(axis=0, dtype=float)
                for name in genotype.obs_names
            ]
        )
        means = means - means.mean(axis=0)
        family = genotype.obs["family"].cat.codes.to_numpy()
        assert (np.bincount(family) == 2).all()
        correlation[rho] = (means[0::2] * means[1::2]).sum() * 2 / (means**2).sum()
    # 150 pairs × 40 genes: standard deviation 1/√6000 = 0.013. Cells and covariates dilute a half.
    assert abs(correlation[0.0]) < 0.06
    assert 0.35 < correlation[1.0] < 0.55


def test_linkage_falls_with_distance(pair):
    _, genotype = pair
    x = np.nan_to_num(genotype.X[:, :1000], nan=1.0)
    r_sq = np.corrcoef(x[:, x.std(axis=0) > 0].T) ** 2
    near, middle, far = (np.diagonal(r_sq, k).mean() for k in (1, 10, 200))
    # Unlinked: 1/(D − 1) = 0.01.
    assert near > 0.4
    assert 0.1 < middle < 0.3
    assert far < 0.03
    assert np.quantile(np.diagonal(r_sq, 1), 0.9) > 0.75


def test_populations_differ():
    """F_ST as in gwas_cohort: Hudson's estimate over 3000 variants."""
    _, genotype = sc_eqtl(
        400, 1, 2, n_vars=3000, n_eqtl=0, n_secondary=0, n_interaction=0, n_populations=2, fst=0.1, missing=0
    )
    p, q = (genotype.X[genotype.obs["population"].cat.codes == k].mean(axis=0, dtype=float) / 2 for k in (0, 1))
    difference = (p - q) ** 2 - (p * (1 - p) + q * (1 - q)) / (2 * 200 - 1)
    # Some 100 independent stretches: a standard error of about 0.01.
    assert abs(difference.sum() / (p * (1 - q) + q * (1 - p)).sum() - 0.1) < 0.04


def test_relatedness_of_families():
    _, genotype = sc_eqtl(
        200, 1, 2, n_vars=3000, n_eqtl=0, n_secondary=0, n_interaction=0, family_size=2, fst=0, missing=0
    )
    z = genotype.X.astype(float)
    z = z[:, z.std(axis=0) > 0]
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    k = z @ z.T / z.shape[1]
    # Centring takes 1/200 off; 100 families, each with a standard deviation of about 0.06.
    assert abs(np.diagonal(k, 1)[::2].mean() - 0.5) < 0.03
    assert abs(np.diagonal(k, 2).mean()) < 0.03


def test_pseudotime_varies_within_and_between_donors(pair):
    expression, _ = pair
    t = expression.obs["pseudotime"]
    assert t.between(0, 1, inclusive="neither").all()
    # Uniform but for the 100 donors' means: the mean has a standard deviation of about 0.1/√100.
    assert abs(t.mean() - 0.5) < 0.05
    assert abs(t.var() - 1 / 12) < 0.01
    within = t - t.groupby(expression.obs["donor_id"], observed=True).transform("mean")
    assert 0.85 < within.var() / t.var() < 0.95
    assert ((t > 0.5) == (expression.obs["cell_type"] == "mature")).all()


def assert_same(left: ad.AnnData, right: ad.AnnData) -> None:
    for a, b in [(left.X, right.X), *((left.layers[k], right.layers[k]) for k in left.layers if k is not None)]:
        a, b = (part.toarray() if sparse.issparse(part) else part for part in (a, b))
        np.testing.assert_array_equal(a, b)
    for axis in ("obs", "var"):
        a, b = getattr(left, axis), getattr(right, axis)
        assert list(a.columns) == list(b.columns)
        assert a.index.tolist() == b.index.tolist()
        for column in a:
            assert a[column].tolist() == b[column].tolist(), column


def test_seeds():
    first, again, other = (sc_eqtl(6, 4, 5, rng=rng, **TINY) for rng in (3, np.random.default_rng(3), 4))
    for a, b in zip(first, again, strict=True):
        assert_same(a, b)
    assert not np.array_equal(first[1].X, other[1].X, equal_nan=True)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_written_and_read(tmp_path, suffix):
    for name, adata in zip(("expression", "genotype"), sc_eqtl(6, 4, 5, **TINY), strict=True):
        path = tmp_path / f"{name}.{suffix}"
        getattr(adata, f"write_{suffix}")(path)
        back = getattr(ad, f"read_{suffix}")(path)
        assert_same(back, adata)
        if name == "expression":
            then, now = adata.uns["truth"], back.uns["truth"]
            assert now.keys() == then.keys()
            for column in then["pairs"]:
                assert now["pairs"][column].tolist() == then["pairs"][column].tolist()
            assert (now["icc"], now["rho"], now["slope"]) == (0.2, 0.0, 0.01)


def test_extremes():
    expression, genotype = sc_eqtl(
        4, [1, 2, 3, 4], 1, n_vars=2, n_chrom=1, n_eqtl=0, n_secondary=0, n_interaction=0, icc=0, slope=0, missing=0
    )
    assert expression.shape == (10, 1)
    assert genotype.shape == (4, 2)
    assert expression.var["true_sigma_sq"].tolist() == [0]
    assert len(expression.uns["truth"]["pairs"]) == 0
    assert np.isfinite(genotype.X).all()


def test_bad_input():
    with pytest.raises(ValueError, match="`n_donors` must be at least 4, got 3"):
        sc_eqtl(3)
    with pytest.raises(ValueError, match=re.escape("`n_eqtl` must be between 0 and 10 (n_genes), got 30")):
        sc_eqtl(n_genes=10)
    with pytest.raises(ValueError, match=re.escape("`n_interaction` must be between 0 and 3 (n_eqtl), got 10")):
        sc_eqtl(n_eqtl=3, n_secondary=1)
    with pytest.raises(ValueError, match=re.escape("`icc` must lie in [0, 1), got 1")):
        sc_eqtl(icc=1)
    with pytest.raises(TypeError, match="`n_vars` must be an integer, got 2.5"):
        sc_eqtl(n_vars=2.5)
    with pytest.raises(TypeError, match="`rng` must be an integer or a numpy Generator"):
        sc_eqtl(rng=None)
    with pytest.raises(ValueError, match="variants with a minor allele frequency of 0.1 or more to choose from"):
        sc_eqtl(4, 1, 4, n_vars=4, n_chrom=4, n_eqtl=4, n_secondary=4, n_interaction=0)


def test_it_goes_through_the_package():
    """Cells to pseudobulk to a null model, with the GRM of the genotypes: names fit together."""
    expression, genotype = sc_eqtl(30, 20, 6, n_vars=200, n_eqtl=2, n_secondary=0, n_interaction=0)
    al.pp.kernel_grm(genotype)
    al.pp.kernel_group(expression, "donor_id", relatedness=al.get.kernel(genotype), rho=0.5)
    al.tl.variance_components(expression, layer="log_rate")
    assert expression.var["varcomp_h_sq"].between(0, 1).all()
    bulk = al.pp.pseudobulk(expression, "donor_id", layer="logcounts", min_cells=1)
    al.pp.inverse_normal(bulk, key_added="z")
    assert bulk.obs_names.isin(genotype.obs_names).all()
