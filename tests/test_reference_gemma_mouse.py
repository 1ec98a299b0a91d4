"""GEMMA 0.98.5 on its own example: 1940 heterogeneous-stock mice, 12226 SNPs, CD8 measured in 1410, `-gk 1` and `-lmm 4`.

Two sets of numbers: those of GEMMA's demo, from the BIMBAM dosages, and a run on the PLINK files.
"""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import annlmm as al

pytestmark = pytest.mark.realdata


def gemma(value: float) -> object:
    """A number printed by GEMMA: six significant digits, trailing zeros left out; half a unit of the last."""
    return pytest.approx(value, rel=0, abs=0.51 * 10.0 ** (np.floor(np.log10(abs(value))) - 5))


def gemma_snps(adata: AnnData, phenotype: str) -> np.ndarray:
    """GEMMA's default filter, on the individuals that have a phenotype: missingness, polymorphism, allele frequency.

    (Its fourth, r² with the covariates, has nothing to do with an intercept alone.)
    """
    x = np.asarray(adata.X[adata.obs[phenotype].notna()], dtype=np.float64)
    frequency = np.nanmean(x, axis=0) / 2
    polymorphic = np.nanmax(x, axis=0) > np.nanmin(x, axis=0)
    return (np.isnan(x).mean(axis=0) <= 0.05) & polymorphic & (np.minimum(frequency, 1 - frequency) >= 0.01)


def add_kernel_and_null(adata: AnnData, phenotype: str) -> AnnData:
    """Centred GRM over all 1940 animals (-gk 1), restricted to those with a phenotype by the fit."""
    adata.var["gemma"] = gemma_snps(adata, phenotype)
    al.pp.kernel_grm(adata, mask_var="gemma", min_maf=0, standardize=False, scale=False)
    al.tl.fit_null(adata, phenotype)
    return adata


@pytest.fixture(scope="module")
def folder(realdata_dir: Path) -> Path:
    return realdata_dir / "gemma_mouse_hs1940"


@pytest.fixture(scope="module")
def plink(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AnnData:
    bed = tmp_path_factory.mktemp("mouse") / "mouse_hs1940.bed"
    with gzip.open(folder / "mouse_hs1940.bed.gz") as packed, bed.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    bim, fam = folder / "mouse_hs1940.bim", folder / "mouse_hs1940.fam"
    return add_kernel_and_null(al.io.read_plink(bed, bim=bim, fam=fam), "phenotype")


@pytest.fixture(scope="module")
def bimbam(folder: Path) -> AnnData:
    files = [folder / f"mouse_hs1940.{part}.txt.gz" for part in ("geno", "pheno", "anno")]
    return add_kernel_and_null(al.io.read_bimbam(*files), "phenotype_1")


@pytest.fixture(scope="module")
def expected(folder: Path) -> pd.DataFrame:
    """GEMMA's table, one row per SNP that passed its filter."""
    return pd.read_csv(folder / "expected" / "mouse_hs1940_all.assoc.txt.gz", sep="\t", index_col="rs")


@pytest.fixture(scope="module")
def log(folder: Path) -> dict[str, float]:
    text = (folder / "expected" / "mouse_hs1940_all.log.txt").read_text()
    return {
        name: float(value) for name, value in re.findall(r"^## (.*null model|se\(beta\)) = +(\S+)$", text, flags=re.M)
    }


def test_the_filter_is_gemmas(plink, bimbam, expected):
    assert len(expected) == 10768
    for adata, phenotype in ((plink, "phenotype"), (bimbam, "phenotype_1")):
        assert adata.shape == (1940, 12226)
        assert adata.uns["lmm"]["n_obs"] == 1410
        assert list(adata.var_names[adata.var["gemma"]]) == list(expected.index)
        x = adata[adata.obs[phenotype].notna(), expected.index].X
        np.testing.assert_array_equal(np.isnan(x).sum(axis=0), expected["n_miss"])
    # Of the PLINK run: `af` is the frequency of the counted allele, three decimals.
    np.testing.assert_allclose(
        plink[plink.obs["phenotype"].notna(), expected.index].X.mean(axis=0) / 2, expected["af"], rtol=0, atol=5.1e-4
    )
    for ours, theirs in (("a1", "allele1"), ("a0", "allele0")):
        assert list(plink.var.loc[expected.index, ours]) == list(expected[theirs])


def test_relationship_matrix(bimbam):
    k = al.get.kernel(bimbam).to_numpy()
    printed = {
        (0, 0): 0.335059,
        (0, 1): -0.0227226,
        (0, 2): 0.0103535,
        (1, 1): 0.303596,
        (1, 2): -0.0253762,
        (2, 2): 0.353610,
    }
    for (i, j), value in printed.items():
        assert k[i, j] == gemma(value)
        assert k[j, i] == k[i, j]


def test_null_model_from_bimbam(bimbam):
    assert bimbam.uns["lmm"]["pve"] == gemma(0.608801)
    # Printed with five digits.
    assert bimbam.uns["lmm"]["pve_standard_error"] == pytest.approx(0.032774, rel=0, abs=5.1e-7)


def check_null(adata: AnnData, key: str, log: dict[str, float]) -> None:
    null = adata.uns[key]
    assert null["pve"] == gemma(log["pve estimate in the null model"])
    assert null["pve_standard_error"] == gemma(log["se(pve) in the null model"])
    assert null["sigma_sq"] == gemma(log["vg estimate in the null model"])
    assert null["tau_sq"] == gemma(log["ve estimate in the null model"])
    assert null["log_likelihood"] == gemma(log["REMLE log-likelihood in the null model"])
    assert null["beta"].loc["Intercept", "standard_error"] == gemma(log["se(beta)"])
    # The phenotype is centred: GEMMA's own estimate is −8e-18.
    assert abs(null["beta"].loc["Intercept", "estimate"]) < 1e-12


def test_null_model_from_plink(plink, log):
    assert log["pve estimate in the null model"] == 0.609672  # of the right file
    check_null(plink, "lmm", log)
    assert plink.uns["lmm"]["rank"] == 1409  # centred again on the 1410


def test_maximum_likelihood(plink, log):
    al.tl.fit_null(plink, "phenotype", reml=False, key_added="ml")
    assert plink.uns["ml"]["log_likelihood"] == gemma(log["MLE log-likelihood in the null model"])


def test_null_model_from_a_kinship_file(plink, log, tmp_path):
    """The way of a GEMMA user: cXX.txt of all animals in, the phenotype missing for some."""
    x = np.asarray(plink.X[:, plink.var["gemma"]], dtype=np.float64)
    x -= x.mean(axis=0)  # no call is missing here
    k = x @ x.T / x.shape[1]
    np.testing.assert_allclose(al.get.kernel(plink), k, rtol=0, atol=1e-12)
    np.savetxt(tmp_path / "mouse.cXX.txt", k, fmt="%.10g", delimiter="\t")
    kinship = al.io.read_gemma_kinship(tmp_path / "mouse.cXX.txt", obs_names=plink.obs_names)
    al.pp.kernel_precomputed(plink, kinship.iloc[::-1, ::-1], center=True, key_added="cXX")
    al.tl.fit_null(plink, "phenotype", kernel="cXX", key_added="lmm_cXX")
    check_null(plink, "lmm_cXX", log)
    # Ten digits of K leave about 1e-9 of the estimates.
    assert plink.uns["lmm_cXX"]["h_sq"] == pytest.approx(plink.uns["lmm"]["h_sq"], rel=1e-7)


def test_score_test_of_every_snp(plink, expected):
    al.tl.associate(plink, mask_var="gemma", test="score", key_added="score")
    table = al.get.association(plink, "score").loc[expected.index]
    assert (table["status"] == "ok").all()
    # Seven digits are printed (2e-7 in log10) at GEMMA's λ, good to 1e-5 relative (its Newton returns the step before the last).
    np.testing.assert_allclose(table["neg_log10_p_value"], -np.log10(expected["p_score"]), rtol=0, atol=3e-7)
    assert table["p_value"].idxmin() == expected["p_score"].idxmin()


@pytest.mark.parametrize(("test", "column", "tolerance"), [("wald", "p_wald", 1e-4), ("lrt", "p_lrt", 1e-6)])
def test_exact_tests_of_every_snp(plink: AnnData, folder: Path, test: str, column: str, tolerance: float) -> None:
    """γ estimated again with each SNP. GEMMA stops its search at a relative step of 1e-5 in λ, which p_wald shows."""
    table = pd.read_csv(folder / "expected" / "mouse_hs1940_all.assoc.txt.gz", sep="\t").set_index("rs")
    al.tl.associate(plink, test=test, variance="refit", mask_var="gemma", key_added=test)
    ours = plink.var.loc[table.index]
    np.testing.assert_allclose(ours[f"{test}_neg_log10_p_value"], -np.log10(table[column]), atol=tolerance)
    gamma = ours[f"{test}_h_sq"] / (1 - ours[f"{test}_h_sq"])
    np.testing.assert_allclose(gamma, table["l_remle" if test == "wald" else "l_mle"], rtol=2e-5)
    if test == "wald":
        assert (np.abs(ours["wald_beta"] - table["beta"]) / table["se"]).max() < 1e-4
        np.testing.assert_allclose(ours["wald_standard_error"], table["se"], rtol=1e-5)
    else:
        np.testing.assert_allclose(ours["lrt_log_likelihood"], table["logl_H1"], atol=5.1e-4)  # seven digits printed
