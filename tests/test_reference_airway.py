"""Single cells of 7 pigs (small airway, 4 wild type and 3 CFTR knock-out): GEMMA 0.98.5 on 1222 secretory cells, 12 genes.

K = ZZᵀ over the pigs, X = [1, knock-out], y = log1p(10⁴ · count / total count). The table also holds the same fits by an
independent dense implementation, to nine digits (`chk_…`).
"""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import annlmm as al

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def reference(realdata_dir: Path) -> pd.DataFrame:
    table = pd.read_csv(realdata_dir / "sc_small_airway" / "reference_gemma_0.98.5.tsv", sep="\t", index_col="gene")
    assert len(table) == 12
    return table


@pytest.fixture(scope="module")
def cells(realdata_dir: Path, reference: pd.DataFrame) -> AnnData:
    """The secretory cells with the 12 genes as phenotypes, fitted together."""
    adata = ad.read_h5ad(realdata_dir / "sc_small_airway" / "small_airway.h5ad")
    assert adata.shape == (2722, 1339)
    adata = adata[adata.obs["celltype"] == "Secretory cell"].copy()
    counts = adata[:, reference.index].X.toarray()
    expression = np.log1p(1e4 * counts / adata.obs["nCount_RNA"].to_numpy()[:, None])
    adata.obs[list(reference.index)] = expression
    adata.obs["knock_out"] = (adata.obs["Genotype"] == "CFTRKO").astype(float)
    al.pp.kernel_group(adata, "orig.ident")
    al.tl.fit_null(adata, list(reference.index), covariates="knock_out")
    return adata


def gemma(value: float, slope: float | None = None) -> object:
    """A number printed by GEMMA: half a unit of its sixth digit, and 1e-5 in log λ times the derivative by it.

    GEMMA's Newton stops at a relative step of 1e-5 in λ and returns the point before that step.
    """
    half_unit = 0.51 * 10.0 ** (np.floor(np.log10(abs(value))) - 5)
    return pytest.approx(value, rel=0, abs=half_unit + 1e-5 * abs(value if slope is None else slope))


def test_null_models_against_gemma(cells, reference):
    null = cells.uns["lmm"]
    beta = null["beta"].set_index(["phenotype", "term"])
    for gene, expected in reference.iterrows():
        fit = null["fits"].loc[gene]
        assert (fit["n_obs"], fit["rank"], fit["status"]) == (1222, 7, "ok")
        assert fit["sigma_sq"] == gemma(expected["gemma_vg"])
        assert fit["tau_sq"] == gemma(expected["gemma_ve"])
        pve = expected["gemma_pve"]
        assert fit["pve"] == gemma(pve, slope=pve * (1 - pve))
        # Flat in λ at its maximum: the printed digits alone.
        assert fit["log_likelihood"] == gemma(expected["gemma_reml_ll"], slope=0.0)
        effect = beta.loc[(gene, "knock_out")]
        assert effect["estimate"] == gemma(expected["gemma_beta1"])
        assert effect["standard_error"] == gemma(expected["gemma_se1"])


def test_null_models_against_the_dense_check(cells, reference):
    fits = cells.uns["lmm"]["fits"].loc[reference.index]
    effects = cells.uns["lmm"]["beta"].query("term == 'knock_out'").set_index("phenotype").loc[reference.index]
    # The check's search on values leaves up to 5e-7 in log γ (40 digits agree with ours to 1e-14); β and ℓ hardly depend on it.
    for ours, column, tolerance in (
        (fits["sigma_sq"], "chk_var_group", 1e-6),
        (fits["tau_sq"], "chk_var_resid", 1e-8),
        (fits["h_sq"], "chk_h2", 1e-6),
        (fits["log_likelihood"], "chk_reml_ll", 1e-8),
        (effects["estimate"], "chk_beta1", 1e-7),
        (effects["standard_error"], "chk_se1", 1e-6),
    ):
        np.testing.assert_allclose(ours, reference[column], rtol=tolerance, err_msg=column)


def test_lcn2_alone(cells, reference):
    al.tl.fit_null(cells, "LCN2", covariates="~ C(Genotype, contr.treatment(base='WT'))", key_added="alone")
    null, together = cells.uns["alone"], cells.uns["lmm"]["fits"].loc["LCN2"]
    assert null["sigma_sq"] == gemma(0.421321)
    assert null["tau_sq"] == gemma(0.747720)
    assert null["log_likelihood"] == gemma(-1564.44, slope=0.0)
    assert null["beta"]["estimate"].iloc[1] == gemma(0.908874)
    assert null["beta"]["standard_error"].iloc[1] == gemma(0.499171)
    # Another coding of the same covariate: round-off.
    for name in ("gamma", "sigma_sq", "h_sq_standard_error", "log_likelihood", "h_sq_ci_low", "h_sq_p_value"):
        assert null[name] == pytest.approx(together[name], rel=1e-9), name


def test_low_rank_model(cells):
    model = al.get.null_model(cells, phenotype="LCN2")
    assert (model.low_rank, model.n, model.f, model.r) == (True, 1222, 2, 7)
    assert "kernel" not in cells.obsm  # groups: nothing of size n × r is stored
    fit = cells.uns["lmm"]["fits"].loc["LCN2"]
    for name in ("sigma_sq", "tau_sq", "h_sq", "h_sq_standard_error"):
        assert getattr(model, name) == pytest.approx(fit[name], rel=1e-9), name
    # The dense kernel of the same pigs is the same model.
    pigs = pd.get_dummies(cells.obs["orig.ident"]).to_numpy(float)
    dense = cells[:, :0].copy()
    al.pp.kernel_precomputed(dense, pigs @ pigs.T, key_added="dense")
    al.tl.fit_null(dense, "LCN2", covariates="knock_out", kernel="dense")
    assert dense.uns["lmm"]["rank"] == 7
    assert dense.uns["lmm"]["sigma_sq"] == pytest.approx(fit["sigma_sq"], rel=1e-8)
    assert dense.uns["lmm"]["log_likelihood"] == pytest.approx(fit["log_likelihood"], rel=1e-11)
