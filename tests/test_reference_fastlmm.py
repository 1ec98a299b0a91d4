"""FaST-LMM on its own test data: Hail's acceptance test of its LinearMixedModel, and a scan of 5000 SNPs by `single_snp`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import annlmm as al

pytestmark = pytest.mark.realdata


def read(folder: Path, stem: str, phenotype: str, covariate: str, *, count_a1: bool) -> AnnData:
    """Genotypes with `y` and `cov` joined by individual, and the SNPs in units of their standard deviation as a layer."""
    adata = al.io.read_plink(folder / stem, count_a1=count_a1)
    for name, file in (("y", phenotype), ("cov", covariate)):
        table = pd.read_csv(folder / file, sep=r"\s+", header=None, dtype={1: str}).set_index(1)
        adata.obs[name] = table[2].reindex(adata.obs_names)
    assert adata.obs[["y", "cov"]].notna().all(axis=None)
    x = adata.X.astype(np.float64)
    adata.layers["standardized"] = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    return adata


# --------------------------------------------------------------------------------------------- Hail's acceptance test


@pytest.fixture(scope="module")
def cohort(realdata_dir: Path) -> AnnData:
    """250 individuals, 2000 SNPs on chromosomes 1 and 3, with the three kernels and their null models."""
    folder = realdata_dir / "hail_fastlmm"
    adata = read(folder, "fastlmmTest", "fastlmmPheno.txt", "fastlmmCov.txt", count_a1=True)
    assert adata.shape == (250, 2000)
    chrom, pos = adata.var["chrom"], adata.var["pos"]
    adata.var["tested"] = (chrom == "3") & (pos < 2005)
    masks = {"A": chrom == "1", "B": chrom == "3", "C": (chrom == "1") & (pos < 200)}
    for key, mask in masks.items():
        al.pp.kernel_grm(adata, mask_var=mask, min_maf=0, key_added=f"kernel_{key}")
        al.tl.fit_null(adata, "y", covariates="cov", kernel=f"kernel_{key}", key_added=key)
    return adata


@pytest.mark.parametrize(
    ("key", "h_sq", "standard_error"),
    [("A", 0.14276125, 0.13770773), ("B", 0.36733240, 0.17409641), ("C", 0.10001626, None)],
)
def test_heritability(cohort, key, h_sq, standard_error):
    null = cohort.uns[key]
    # Eight decimals are printed, of a bounded search that Hail stops at 1e-8 of log γ (REFERENCES: 3e-7 in h²).
    assert null["h_sq"] == pytest.approx(h_sq, rel=0, abs=1e-7)
    if standard_error is not None:
        # Hail's SE is a finite-difference parabola, good to 1e-4.
        assert null["h_sq_standard_error"] == pytest.approx(standard_error, rel=1e-4)


def test_kernel_c_is_low_rank(cohort):
    assert cohort.uns["C"]["rank"] == 200
    assert al.get.null_model(cohort, "C").low_rank
    assert cohort.uns["A"]["rank"] == 249


def test_variance_components(cohort):
    # Eight digits; as for h², Hail's search leaves 1e-6 relative.
    assert cohort.uns["A"]["sigma_sq"] == pytest.approx(0.13829390, rel=2e-6)
    assert cohort.uns["A"]["tau_sq"] == pytest.approx(0.83041386, rel=2e-6)


@pytest.mark.parametrize("scale", [False, True])
def test_maximum_likelihood(cohort, scale):
    # Standardised SNPs without missing calls: t is 1 already, `scale` changes nothing.
    adata = cohort[:, (cohort.var["chrom"] == "1")].copy()
    al.pp.kernel_grm(adata, min_maf=0, scale=scale)
    assert adata.uns["kernel"]["trace_scale"] == pytest.approx(1.0, rel=1e-12)
    al.tl.fit_null(adata, "y", covariates="cov", reml=False)
    # Eight decimals are printed.
    assert adata.uns["lmm"]["h_sq"] == pytest.approx(0.15421418, rel=0, abs=5.1e-9)


BETA = {
    "A": [0.012202061, 0.037718282, -0.033572693, 0.29171541, -0.045644170],
    "C": [0.0073201542, 0.039969148, -0.036727875, 0.29852363, -0.049212500],
}
P_VALUE = {
    ("A", "lrt"): [0.84543084, 0.57596760, 0.58788517, 1.4057279e-06, 0.46578204],
    ("A", "wald"): [0.84650294, 0.57865098, 0.59050998, 1.6649473e-06, 0.46892059],
    ("C", "lrt"): [0.90685162, 0.54839177, 0.55001054, 9.85247263e-07, 0.42796507],
}


@pytest.mark.parametrize(("key", "test"), P_VALUE)
def test_association(cohort, key, test):
    al.tl.associate(cohort, key, layer="standardized", mask_var="tested", test=test, key_added="scan")
    table = al.get.association(cohort, "scan")[cohort.var["tested"]]
    # Eight digits of a scan at Hail's (FaST-LMM's) γ̂, whose last 1e-7 moves β and p by less than 1e-6 of themselves.
    np.testing.assert_allclose(table["beta"], BETA[key], rtol=1e-6)
    np.testing.assert_allclose(table["p_value"], P_VALUE[key, test], rtol=1e-6)
    assert (al.get.association(cohort, "scan")["status"] == "masked").sum() == 1995


# ------------------------------------------------------------------------------------------------- leave one chromosome out

NULL_H_SQ = {"1": 0.61496, "2": 0.53426, "3": 0.27971, "4": 0.54205, "5": 0.45112}


@pytest.fixture(scope="module")
def synth(realdata_dir: Path) -> AnnData:
    """500 individuals, 5000 SNPs on five chromosomes."""
    adata = read(realdata_dir / "fastlmm_synth", "all", "pheno_10_causals.txt", "cov.txt", count_a1=False)
    assert adata.shape == (500, 5000)
    return adata


@pytest.fixture(scope="module")
def expected(realdata_dir: Path, synth: AnnData) -> pd.DataFrame:
    table = pd.read_csv(realdata_dir / "fastlmm_synth" / "expected_single_snp_loco.tsv", sep="\t")
    return table.set_index("SNP").loc[synth.var_names]


@pytest.mark.parametrize("chrom", NULL_H_SQ)
def test_loco_scan(synth, expected, chrom):
    here = synth.var["chrom"] == chrom
    al.pp.kernel_grm(synth, mask_var=~here, min_maf=0)
    al.tl.fit_null(synth, "y", covariates="cov")
    al.tl.associate(synth, layer="standardized", mask_var=here)
    table, reference = al.get.association(synth)[here], expected[here]
    assert len(table) == 1000
    assert (table["status"] == "ok").all()
    # Five decimals in the published summary; the table's Nullh2 comes from FaST-LMM's Brent search, good to 2e-8.
    assert synth.uns["lmm"]["h_sq"] == pytest.approx(NULL_H_SQ[chrom], rel=0, abs=5.1e-6)
    assert synth.uns["lmm"]["h_sq"] == pytest.approx(reference["Nullh2"].iloc[0], rel=0, abs=1e-7)
    # At that h² the scans agree to 1e-7 in log10 p and 4e-9 in β.
    np.testing.assert_allclose(table["neg_log10_p_value"], -np.log10(reference["PValue"]), rtol=0, atol=1e-7)
    np.testing.assert_allclose(table["beta"], reference["SnpWeight"], rtol=0, atol=4e-9)
    np.testing.assert_allclose(table["standard_error"], reference["SnpWeightSE"], rtol=1e-8)
