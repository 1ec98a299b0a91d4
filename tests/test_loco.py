"""Leave one chromosome out: against one kernel per chromosome by hand, and FaST-LMM's own scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import annlmm as al


@pytest.fixture
def cohort() -> AnnData:
    adata = al.datasets.gwas_cohort(n_obs=80, n_vars=150, n_chrom=3)
    adata.obs["second"] = np.random.default_rng(0).standard_normal(80)
    adata.obs.loc[adata.obs_names[::9], "second"] = np.nan
    return adata


@pytest.mark.parametrize("standardize", [True, False])
def test_equals_one_kernel_per_chromosome(cohort: AnnData, standardize: bool) -> None:
    al.pp.kernel_grm(cohort, standardize=standardize)
    al.tl.fit_null(cohort, ["phenotype", "second"], covariates="age")
    al.tl.associate(cohort, loco="chrom")
    fits = cohort.uns["lmm"]["loco_fits"]
    assert len(fits) == 6
    for chromosome in cohort.var["chrom"].unique():
        here = (cohort.var["chrom"] == chromosome).to_numpy()
        al.pp.kernel_grm(cohort, ~here, standardize=standardize, key_added="others")
        al.tl.fit_null(cohort, ["phenotype", "second"], covariates="age", kernel="others", key_added="by_hand")
        al.tl.associate(cohort, "by_hand", mask_var=here)
        for field in ("beta", "standard_error", "p_value"):
            # The kernel is a difference of two sums, and γ a root: good to 1e-10, what follows to about 1e-8.
            np.testing.assert_allclose(
                cohort.varm[f"lmm_{field}"][here], cohort.varm[f"by_hand_{field}"][here], rtol=1e-7
            )
        for phenotype in ("phenotype", "second"):
            row = fits[(fits["chromosome"] == chromosome) & (fits["phenotype"] == phenotype)].iloc[0]
            assert row["h_sq"] == pytest.approx(cohort.uns["by_hand"]["fits"].loc[phenotype, "h_sq"], abs=1e-8)


def test_refit_and_masks_work_with_it(cohort: AnnData) -> None:
    mask = np.arange(cohort.n_vars) % 2 == 0
    al.pp.kernel_grm(cohort)
    al.tl.fit_null(cohort, "phenotype")
    al.tl.associate(cohort, loco="chrom", variance="refit", mask_var=mask)
    table = al.get.association(cohort)
    assert (table["status"] == "masked").to_numpy()[~mask].all()
    assert table["p_value"].notna().to_numpy()[mask].all()
    assert cohort.uns["lmm"]["association"]["loco"] == "chrom"
    al.tl.associate(cohort)
    assert "loco_fits" not in cohort.uns["lmm"]


def test_missing_calls_with_a_code(cohort: AnnData) -> None:
    """The chromosomes are read again as the kernel was."""
    gaps = np.random.default_rng(0).uniform(size=cohort.shape) < 0.02
    dosage = np.asarray(cohort.X, dtype=np.float64)
    cohort.X = np.where(gaps, np.nan, dosage)
    cohort.layers["calls"] = np.where(gaps, -9, dosage).astype(np.int8)
    found = []
    for options in ({}, {"layer": "calls", "missing_call": -9}):
        al.pp.kernel_grm(cohort, **options)
        al.tl.fit_null(cohort, "phenotype")
        al.tl.associate(cohort, loco="chrom")
        found.append(al.get.association(cohort)["p_value"])
    np.testing.assert_array_equal(found[0], found[1])


def test_what_it_cannot_do_is_said(cohort: AnnData) -> None:
    al.pp.kernel_grm(cohort)
    al.tl.fit_null(cohort, "phenotype")
    before = list(cohort.var)
    cohort.var["one"], cohort.var["gaps"] = "1", np.where(np.arange(cohort.n_vars) < 3, None, "1")
    al.pp.kernel_grm(cohort, cohort.var["chrom"] == "1", key_added="array")
    al.tl.fit_null(cohort, "phenotype", kernel="array", key_added="of_array")
    al.tl.fit_null(cohort, "phenotype", kernel=None, key_added="ols")
    al.tl.fit_null(cohort, "phenotype", gamma=1.0, key_added="given")
    al.pp.kernel_grm(cohort, rank=5, key_added="truncated")
    al.tl.fit_null(cohort, "phenotype", kernel="truncated", key_added="of_truncated")
    for key, loco, kind, message in (
        ("lmm", "chr", KeyError, "did you mean 'chrom'"),
        ("lmm", "one", ValueError, "one chromosome"),
        ("lmm", "gaps", ValueError, "3 features have no chromosome"),
        ("lmm", 3, TypeError, "must be the name of a column"),
        ("of_array", "chrom", ValueError, "name a column of adata.var"),
        ("ols", "chrom", ValueError, "needs a null model with a kernel of al.pp.kernel_grm"),
        ("given", "chrom", ValueError, "fit it without gamma="),
        ("of_truncated", "chrom", ValueError, "make it with rank=None"),
    ):
        with pytest.raises(kind, match=message):
            al.tl.associate(cohort, key, loco=loco)
    assert list(cohort.var) == [*before, "one", "gaps"]


@pytest.mark.realdata
def test_fastlmm_single_snp_leave_out_one_chrom(realdata_dir: Path) -> None:
    """All 5000 p-values of FaST-LMM's `single_snp(leave_out_one_chrom=True)`, in one call."""
    folder = realdata_dir / "fastlmm_synth"
    adata = al.io.read_plink(folder / "all", count_a1=False)
    adata.obs["y"] = pd.read_csv(folder / "pheno_10_causals.txt", sep=" ", header=None)[2].to_numpy()
    adata.obs["covariate"] = pd.read_csv(folder / "cov.txt", sep="\t", header=None)[2].to_numpy()
    al.pp.kernel_grm(adata, min_maf=0)
    al.tl.fit_null(adata, "y", covariates="covariate")
    al.tl.associate(adata, loco="chrom")
    reference = pd.read_csv(folder / "expected_single_snp_loco.tsv", sep="\t").set_index("SNP")
    ours = adata.var.loc[reference.index, "lmm_neg_log10_p_value"]
    # FaST-LMM finds h² by Brent; what is left of it in log10 p is below 1e-6 (reproduced independently to 1e-7).
    np.testing.assert_allclose(ours, -np.log10(reference["PValue"]), atol=1e-6)
    nullh2 = adata.uns["lmm"]["loco_fits"].set_index("chromosome")["h_sq"].astype(float)
    expected = reference.groupby(reference["Chr"].astype(int).astype(str))["Nullh2"].first()
    np.testing.assert_allclose(nullh2[expected.index], expected, atol=1e-6)
