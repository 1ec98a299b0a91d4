"""599 wheat lines, 1279 markers, yield in four environments: GEMMA 0.98.5 and FaST-LMM with pedigree and genomic kernels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import annlmm as al

pytestmark = pytest.mark.realdata

ENVS = ["env1", "env2", "env3", "env4"]
# Which of GEMMA's two runs each of our kernels is. `A` is taken as given, as FaST-LMM does; `A_centred` as GEMMA does.
KERNELS = {"A": "A", "A_centred": "A", "markers": "K", "markers_linear": "K"}


def gemma(value: float, slope: float | None = None) -> object:
    """A number printed by GEMMA: half a unit of its sixth digit, and 1e-5 in log λ times the derivative by it.

    GEMMA's Newton stops at a relative step of 1e-5 in λ and returns the point before that step.
    """
    half_unit = 0.51 * 10.0 ** (np.floor(np.log10(abs(value))) - 5)
    return pytest.approx(value, rel=0, abs=half_unit + 1e-5 * abs(value if slope is None else slope))


@pytest.fixture(scope="module")
def folder(realdata_dir: Path) -> Path:
    return realdata_dir / "wheat_bglr"


@pytest.fixture(scope="module")
def wheat(folder: Path) -> AnnData:
    """Lines × markers with the kernels and, under the same keys with `null_`, the four null models at once."""
    markers, pedigree, yields = (
        pd.read_csv(folder / file, index_col=0) for file in ("wheat_X.csv.gz", "wheat_A.csv.gz", "wheat_Y.csv")
    )
    for table in (markers, pedigree, yields):
        table.index = table.index.astype(str)
    adata = AnnData(
        markers.to_numpy(np.float64), obs=yields.set_axis(ENVS, axis=1), var=pd.DataFrame(index=markers.columns)
    )
    assert adata.shape == (599, 1279)
    assert markers.index.equals(yields.index)
    centred = adata.X - adata.X.mean(axis=0)
    adata.obsm["X_markers"] = centred
    al.pp.kernel_precomputed(adata, pedigree, key_added="A")
    al.pp.kernel_precomputed(adata, pedigree, center=True, key_added="A_centred")
    al.pp.kernel_precomputed(adata, centred @ centred.T / 1279, key_added="markers")
    al.pp.kernel_linear(adata, "X_markers", scale=False, key_added="markers_linear")
    for kernel in KERNELS:
        al.tl.fit_null(adata, ENVS, kernel=kernel, key_added=f"null_{kernel}")
    return adata


def gemma_log(folder: Path, kernel: str, env: str) -> dict[str, float]:
    text = (folder / "gemma" / f"wheat_{KERNELS[kernel]}_t{env[-1]}.log.txt").read_text()
    return {
        name: float(value) for name, value in re.findall(r"^## (.*null model|se\(beta\)) = +(\S+)$", text, flags=re.M)
    }


PVE = {
    "A": [0.447586, 0.402700, 0.531825, 0.483413],
    "K": [0.527084, 0.486330, 0.398184, 0.452319],
}


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_null_model_against_gemma(wheat, folder, kernel, env):
    log = gemma_log(folder, kernel, env)
    fit = wheat.uns[f"null_{kernel}"]["fits"].loc[env]
    pve = log["pve estimate in the null model"]
    assert pve == PVE[KERNELS[kernel]][ENVS.index(env)]  # of the right file
    assert fit["pve"] == gemma(pve, slope=pve * (1 - pve))
    assert fit["pve_standard_error"] == gemma(log["se(pve) in the null model"])
    assert fit["sigma_sq"] == gemma(log["vg estimate in the null model"])
    assert fit["tau_sq"] == gemma(log["ve estimate in the null model"])
    # Flat in λ at its maximum: the printed digits alone.
    assert fit["log_likelihood"] == gemma(log["REMLE log-likelihood in the null model"], slope=0.0)
    if kernel != "A":  # SE(β₀) depends on the centring of K
        beta = wheat.uns[f"null_{kernel}"]["beta"].set_index("phenotype")
        assert beta.loc[env, "standard_error"] == gemma(log["se(beta)"])


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("kernel", ["A", "markers"])
def test_one_phenotype_alone_is_the_same(wheat, kernel, env):
    together = wheat.uns[f"null_{kernel}"]
    al.tl.fit_null(wheat, env, kernel=kernel, key_added="single")
    alone, row = wheat.uns["single"], together["fits"].loc[env]
    # The same arithmetic on the same rows.
    for name in ("gamma", "sigma_sq", "tau_sq", "pve", "h_sq_standard_error", "h_sq_ci_low", "h_sq_p_value"):
        assert alone[name] == pytest.approx(row[name], rel=1e-12), name
    beta = together["beta"].set_index("phenotype").loc[env]
    assert alone["beta"].loc["Intercept", "estimate"] == pytest.approx(beta["estimate"], rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("kernel", ["A_centred", "markers"])
def test_maximum_likelihood_against_gemma(wheat, folder, kernel):
    al.tl.fit_null(wheat, ENVS, kernel=kernel, reml=False, key_added="ml")
    for env in ENVS:
        expected = gemma_log(folder, kernel, env)["MLE log-likelihood in the null model"]
        assert wheat.uns["ml"]["fits"].loc[env, "log_likelihood"] == gemma(expected, slope=0.0)


@pytest.mark.parametrize("kernel", ["A_centred", "markers"])
def test_score_test_against_gemma(wheat, folder, kernel):
    al.tl.associate(wheat, f"null_{kernel}", test="score", key_added="score")
    table = al.get.association(wheat, "score", phenotype="env1")
    file = folder / "gemma" / f"wheat_{KERNELS[kernel]}_t1.assoc.txt.gz"
    expected = pd.read_csv(file, sep="\t", index_col="rs")
    # Four markers are below GEMMA's 1 %: it takes 0 and 1 for dosages, so that the frequency is half of the mean.
    assert len(expected) == 1275
    # Seven digits are printed (2e-7 in log10 at most), λ is good to 1e-5.
    ours = table.loc[expected.index, "neg_log10_p_value"]
    np.testing.assert_allclose(ours, -np.log10(expected["p_score"]), rtol=0, atol=3e-7)


# ------------------------------------------------------------------------------------------------------------ FaST-LMM


@pytest.fixture(scope="module")
def scan(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "reference_fastlmm_A_scan.tsv.gz", sep="\t")
    assert len(table) == 4 * 1279
    return table.set_index(["env", "marker"])


@pytest.mark.parametrize("env", ENVS)
def test_scan_against_fastlmm(wheat, scan, env):
    expected = scan.loc[int(env[-1])].loc[wheat.var_names]
    for test, column in (("wald", "p_F_fastlmm"), ("lrt", "p_lrt_check")):
        al.tl.associate(wheat, "null_A", test=test, key_added=test)
        table = al.get.association(wheat, test, phenotype=env)
        assert (table["status"] == "ok").all()
        # Eight significant digits (5e-8), and as much again for the h² of the reference's own search.
        np.testing.assert_allclose(table["p_value"], expected[column], rtol=1e-7)
    # Eight digits at the reference's own γ, whose last 1e-8 moves β by that part of its standard error (below 0.1).
    np.testing.assert_allclose(table["beta"], expected["beta_check"], rtol=1e-7, atol=1e-9)
    # FaST-LMM scales K to a trace of n: its h² is σ²d/(σ²d+τ²), d the mean diagonal of A, not of the centred A as in pve.
    # Eight digits (5e-9), and as much for its search.
    gamma = wheat.uns["null_A"]["fits"].loc[env, "gamma"]
    scaled = gamma * np.diag(al.get.kernel(wheat, "A")).mean()
    assert scaled / (1 + scaled) == pytest.approx(expected["h2_fastlmm"].iloc[0], rel=0, abs=1e-8)


def test_top_marker(wheat):
    al.tl.associate(wheat, "null_A", key_added="wald")
    table = al.get.association(wheat, "wald", phenotype="env1")
    assert table["p_value"].idxmin() == "wPt.2185"
    assert table["p_value"].min() == pytest.approx(3.755e-10, rel=2e-4)  # four digits
