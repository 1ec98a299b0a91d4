"""`al.tl.variance_components`: lme4's tables, GEMMA's genes, each gene as `fit_null` has it, and what cannot be fitted."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from helpers import assert_same, messages, snapshot, untouched
from scipy import sparse

import annlmm as al
from annlmm._slots.gene_results import names_of

FIELDS = names_of("variance_components")
SCALARS = ("sigma_sq", "tau_sq", "h_sq", "h_sq_standard_error", "pve", "log_likelihood")
REFERENCE = Path(__file__).resolve().parent / "reference"


@pytest.fixture
def cells() -> AnnData:
    adata = al.datasets.donors(n_donors=8, cells_per_donor=12, n_genes=24, n_de=4, rng=3)
    adata.X = adata.layers["logcounts"].toarray().astype(np.float64)
    adata.var["some"] = np.arange(24) % 3 > 0
    adata.obs["good"] = np.arange(adata.n_obs) % 5 > 0
    al.pp.kernel_group(adata, "donor_id")
    return adata


def assert_as_fit_null(adata: AnnData, table: pd.DataFrame, genes: np.ndarray, values: np.ndarray, **options) -> None:
    work = AnnData(obs=adata.obs.copy(), uns={"kernel": adata.uns["kernel"]}, obsm=dict(adata.obsm))
    names = [f"y{j}" for j in genes]
    work.obs[names] = values[:, genes]
    al.tl.fit_null(work, names, **options)
    for j, name in zip(genes, names, strict=True):
        alone, ours = work.uns["lmm"]["fits"].loc[name], table.iloc[j]
        assert ours["status"] == alone["status"]
        for field in SCALARS:
            assert ours[field] == pytest.approx(alone[field], rel=1e-8, nan_ok=True), (j, field)
        assert ours["p_value"] == pytest.approx(alone["h_sq_p_value"], rel=1e-8)
        assert ours["neg_log10_p_value"] == pytest.approx(alone["h_sq_neg_log10_p_value"], rel=1e-8)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("covariates", [None, ["batch", "cell_score"], "~ condition + C(batch)"])
def test_each_gene_as_fit_null(cells, covariates, reml):
    options = {"covariates": covariates, "reml": reml, "mask_obs": "good", "rng": 5}
    al.tl.variance_components(cells, **options)
    table = al.get.variance_components(cells)
    assert set(table["status"]) == {"ok", "boundary"}
    assert_as_fit_null(cells, table, np.arange(24), cells.X, **options)


def test_dense_kernel_of_full_rank(cells):
    z = np.random.default_rng(0).standard_normal((cells.n_obs, 150))
    al.pp.kernel_precomputed(cells, z @ z.T / 150)
    al.tl.variance_components(cells, "cell_score")
    assert_as_fit_null(cells, al.get.variance_components(cells), np.arange(24), cells.X, covariates="cell_score")


@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "float32", "layer", "dask"])
def test_kinds_of_matrix(cells, kind):
    al.tl.variance_components(cells, "batch", key_added="first")
    expected = al.get.variance_components(cells, "first")
    options = {}
    if kind == "layer":
        cells.layers["mine"], options["layer"] = sparse.csr_matrix(cells.X), "mine"
        cells.X = None
    elif kind == "float32":
        cells.X = cells.X.astype(np.float32)  # what it was made from
    elif kind == "dask":
        dask = pytest.importorskip("dask.array")
        cells.X = dask.from_array(cells.X, chunks=(17, 7))
    elif kind != "dense":
        cells.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_array}[kind](cells.X)
    al.tl.variance_components(cells, "batch", **options)
    found = al.get.variance_components(cells)
    for name in FIELDS[:-1]:
        # Sums of a sparse column in another order; what is left of a gene is at least a thousandth of its sum of squares.
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-8, atol=1e-12, err_msg=name)


def test_offsets_and_scales_change_nothing_else(cells):
    al.tl.variance_components(cells, "age")
    table = al.get.variance_components(cells)
    cells.X = 4.0 * cells.X + 2.0**23  # of which 29 bits of the values are left
    al.tl.variance_components(cells, "age")
    moved = al.get.variance_components(cells)
    # The values were rounded to 2⁻²⁹ by the offset.
    np.testing.assert_allclose(moved["h_sq"], table["h_sq"], atol=1e-7)
    np.testing.assert_allclose(moved["tau_sq"], 16 * table["tau_sq"], rtol=1e-7)
    np.testing.assert_allclose(moved["p_value"], table["p_value"], rtol=1e-5)


def test_bad_genes_never_stop_the_others(cells):
    al.tl.variance_components(cells, "batch", key_added="before")
    before = al.get.variance_components(cells, "before")
    donor = cells.obs["donor_id"].cat.codes.to_numpy()
    cells.X[:, 0], cells.X[:, 1], cells.X[:, 2] = 0.0, 3.0, np.nan
    cells.X[:, 3] = (cells.obs["batch"] == "batch_2") * 2.0 + 1.0
    cells.X[:, 4] = donor**2
    mask = np.arange(24) != 5
    al.tl.variance_components(cells, "batch", mask_var=mask)
    table = al.get.variance_components(cells)
    expected = ["constant", "constant", "all_missing", "collinear", "not_converged", "masked"]
    assert table["status"][:6].tolist() == expected
    assert table[list(FIELDS[:-1])][:6].isna().all(axis=None)
    for name in set(FIELDS) - {"status", "p_adjusted"}:
        np.testing.assert_allclose(table[name][6:], before[name][6:], rtol=1e-12)
    # The adjustment is over those that were fitted.
    p = table["p_value"].dropna().sort_values()
    adjusted = np.minimum.accumulate((p * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    np.testing.assert_allclose(table.loc[p.index, "p_adjusted"], np.minimum(adjusted, 1), rtol=1e-12)


def test_missing_values_are_filled_with_the_mean_of_the_rows_used(cells):
    rng = np.random.default_rng(1)
    gaps = rng.uniform(size=cells.shape) < 0.1
    kept = cells.obs["good"].to_numpy()
    filled = np.where(gaps, np.nan, cells.X)
    means = np.nanmean(filled[kept], axis=0)
    cells.X = np.where(gaps, means, cells.X)
    al.tl.variance_components(cells, mask_obs=kept, key_added="filled")
    cells.X = filled
    al.tl.variance_components(cells, mask_obs=kept)
    pd.testing.assert_frame_equal(
        al.get.variance_components(cells), al.get.variance_components(cells, "filled"), rtol=1e-9
    )
    with untouched(cells), pytest.raises(ValueError, match="missing='mean'"):
        al.tl.variance_components(cells, missing="raise")


def test_truth_of_a_simulation():
    """300 genes of 60 donors: the mean of σ̂² and τ̂² is that of the truth, within four standard errors."""
    adata = al.datasets.donors(n_donors=60, cells_per_donor=10, n_genes=300, n_de=0, icc=0.3, rng=8)
    al.pp.kernel_group(adata, "donor_id")
    al.tl.variance_components(adata, ["batch", "cell_score"], layer="log_rate")
    table = al.get.variance_components(adata)
    for name in ("sigma_sq", "tau_sq"):
        off = table[name] - adata.var[f"true_{name}"]
        assert abs(off.mean()) < 4 * off.std() / np.sqrt(300), name
    assert (table["p_adjusted"] < 0.05).mean() > 0.9


def test_null_p_values_are_uniform():
    rng = np.random.default_rng(9)
    donor = np.repeat(np.arange(8), rng.integers(2, 30, 8))
    adata = AnnData(rng.standard_normal((donor.size, 2000)))
    adata.obs["donor"] = donor.astype(str)
    al.pp.kernel_group(adata, "donor")
    al.tl.variance_components(adata)
    p = adata.var["varcomp_p_value"].to_numpy()
    for level in (0.2, 0.05, 0.01):
        # Binomial error of 2000 genes, 4 standard errors; σ̂² = 0 has p = 1.
        assert abs((p < level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 2000)


# ------------------------------------------------------------------------------------------- writing and reading


def test_exactly_the_fields_of_the_schema(cells):
    before = snapshot(cells)
    al.tl.variance_components(cells)
    after = snapshot(cells)
    assert set(after["var"]) - set(before["var"]) == {f"varcomp_{name}" for name in FIELDS}
    assert set(after["uns"]["varcomp"]) == {"variance_components", "schema_version"}
    params = after["uns"]["varcomp"]["variance_components"]
    assert params["covariates"] == "~ 1"
    assert (params["n_obs"], params["rank"], params["n_fitted"]) == (cells.n_obs, 8, 24)
    for slot in ("X", "obs", "obsm", "varm", "layers"):
        assert_same(after[slot], before[slot])


def test_copy_and_view(cells):
    with untouched(cells):
        copy = al.tl.variance_components(cells, copy=True)
        view = cells[:, 3:9]
        with messages() as seen:
            al.tl.variance_components(view)
    assert any("view" in line for line in seen)
    assert any("6 features on" in line for line in seen)
    pd.testing.assert_frame_equal(
        al.get.variance_components(copy).iloc[3:9][["h_sq", "p_value"]],
        al.get.variance_components(view)[["h_sq", "p_value"]],
        rtol=1e-9,
    )


@pytest.mark.parametrize("fmt", ["h5ad", "zarr"])
def test_round_trip(cells, tmp_path, fmt):
    al.tl.variance_components(cells, mask_var="some")
    path = tmp_path / f"x.{fmt}"
    getattr(cells, f"write_{fmt}")(path)
    read = getattr(ad, f"read_{fmt}")(path)
    pd.testing.assert_frame_equal(
        al.get.variance_components(read), al.get.variance_components(cells), check_exact=True, check_index_type=False
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel": "other"}, KeyError, "kernel='other': not in adata.uns"),
        ({"kernel": None}, TypeError, "kernel: must be the key of a kernel"),
        ({"covariates": "sx"}, KeyError, "covariates: 'sx' is neither"),
        ({"covariates": "donor_id"}, ValueError, "kernel: absorbed by the covariates"),
        ({"covariates": ["condition", "twin"]}, ValueError, "are collinear"),
        ({"layer": "raw"}, KeyError, "layer='raw'"),
        ({"mask_var": np.zeros(24, dtype=bool)}, ValueError, "mask_var: selects nothing"),
        ({"mask_obs": "first"}, ValueError, "one group on the"),
        ({"mask_obs": "singles"}, ValueError, "kernel: cannot be told from the residual"),
        ({"missing": "drop"}, ValueError, "missing: must be one of"),
        ({"reml": 1}, TypeError, "reml: must be True or False"),
        ({"rng": None}, TypeError, "rng: must be a whole number"),
        ({"rng": -1}, ValueError, "rng: must be at least 0"),
        ({"key_added": "kernel"}, ValueError, "holds something else"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"covariates": "gone"}, ValueError, "no row has all covariates"),
    ],
)
def test_errors_say_what_to_do(cells, options, error, message):
    cells.obs["twin"] = (cells.obs["condition"] == "disease").astype(float)
    cells.obs["first"] = cells.obs["donor_id"] == cells.obs["donor_id"].iloc[0]
    cells.obs["singles"] = ~cells.obs["donor_id"].duplicated()
    cells.obs["gone"] = np.nan
    with untouched(cells), pytest.raises(error, match=message):
        al.tl.variance_components(cells, **options)


def test_infinite_values_are_named(cells):
    cells.X[3, 7] = np.inf
    with untouched(cells), pytest.raises(ValueError, match="'gene_08': infinite values"):
        al.tl.variance_components(cells)
    al.tl.variance_components(cells, mask_var=np.arange(24) != 7)


def test_a_donor_with_one_cell(cells):
    donor = cells.obs["donor_id"].cat.codes.to_numpy()
    kept = (donor != 2) | (np.cumsum(donor == 2) == 1)
    al.tl.variance_components(cells, mask_obs=kept)
    table = al.get.variance_components(cells)
    assert set(table["status"]) == {"ok", "boundary"}
    assert_as_fit_null(cells, table, np.arange(6), cells.X, mask_obs=kept)


def test_nothing_there(cells):
    with pytest.raises(KeyError, match="run al.tl.variance_components"):
        al.get.variance_components(cells)
    al.tl.variance_components(cells, key_added="mine")
    with pytest.raises(KeyError, match="known: 'mine'"):
        al.get.variance_components(cells)
    del cells.var["mine_h_sq"]
    with pytest.raises(KeyError, match="lacks mine_h_sq"):
        al.get.variance_components(cells, "mine")


# ------------------------------------------------------------------------------------------- other programs

# Data, genes (columns of the table), covariates, groups.
TABLES = {
    "sleepstudy": ("sleepstudy", "Reaction", "Days", "Subject"),
    "sleepstudy_thin": ("sleepstudy", "Reaction", "Days", "Subject"),
    "machines": ("machines", "score", "Machine", "Worker"),
    "machines_thin": ("machines", "score", "Machine", "Worker"),
    "female": ("orthodont", "distance", "age", "Subject"),
    "orthodont": ("orthodont", "distance", ["age", "Sex"], "Subject"),
    "orthodont_thin": ("orthodont", "distance", ["age", "Sex"], "Subject"),
    "ergostool": ("ergostool", "effort", "Type", "Subject"),
    "dyestuff": ("dyestuff", "Yield", None, "Batch"),
}
THIN = {"sleepstudy_thin": 7, "machines_thin": 5, "orthodont_thin": 7}


def table_as_gene(folder: Path, name: str) -> AnnData:
    """A table of lme4 with its response as the only gene."""
    file, response, _, groups = TABLES[name]
    table = pd.read_csv(folder / "classic_lme" / f"{file}.csv")
    if name == "female":
        table = table[table["Sex"] == "Female"]
    if name in THIN:
        table = table[np.arange(len(table)) % THIN[name] != 0]
    adata = AnnData(table[[response]].to_numpy(), obs=table.drop(columns=response).set_axis(table.index.astype(str)))
    adata.var_names = [response]
    al.pp.kernel_group(adata, groups)
    return adata


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "reml"), [*((name, True) for name in TABLES), ("sleepstudy", False), ("machines", False)]
)
def test_tables_of_lme4(realdata_dir, name, reml):
    expected = pd.read_csv(REFERENCE / "genes_fits.csv").query("name == @name and reml == @reml").iloc[0]
    adata = table_as_gene(realdata_dir, name)
    al.tl.variance_components(adata, TABLES[name][2], reml=reml)
    ours = al.get.variance_components(adata).iloc[0]
    # bobyqa stops at 1e-12 in θ on an objective that it knows to 1e-13 of 1e3: θ to 1e-6 at best, ℓ is flat there.
    assert ours["sigma_sq"] == pytest.approx(expected["sigma_sq"], rel=5e-6)
    assert ours["tau_sq"] == pytest.approx(expected["tau_sq"], rel=1e-6)
    shift = 0.5 * expected["x_logdet"] if reml else 0.0  # R's restricted likelihood has no ½log|XᵀX|
    assert ours["log_likelihood"] - shift == pytest.approx(expected["log_likelihood"], rel=1e-11)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["dyestuff", "ergostool", "female", "machines", "sleepstudy"])
def test_p_values_of_rlrsim(realdata_dir, name):
    expected = pd.read_csv(REFERENCE / "genes_rlrt.csv").set_index("name").loc[name]
    adata = table_as_gene(realdata_dir, name)
    al.tl.variance_components(adata, TABLES[name][2])
    p = adata.var["varcomp_p_value"].iloc[0]
    # Binomial error of its million draws, and 2 % for our 30,000 weighted ones.
    error = 4 * np.sqrt(max(p, 1e-6) * expected["draws"]) / expected["draws"]
    assert p == pytest.approx(expected["p_value"], abs=error + 0.02 * p)
    assert p > 0


@pytest.mark.realdata
def test_small_airway_genes(realdata_dir):
    """12 genes of 1222 secretory cells of 7 pigs: GEMMA 0.98.5, to the digits of an independent dense fit."""
    folder = realdata_dir / "sc_small_airway"
    reference = pd.read_csv(folder / "reference_gemma_0.98.5.tsv", sep="\t", index_col="gene")
    adata = ad.read_h5ad(folder / "small_airway.h5ad")
    adata.X = adata.X.astype(np.float64).multiply(1e4 / adata.obs["nCount_RNA"].to_numpy()[:, None]).tocsr().log1p()
    adata.obs["secretory"] = adata.obs["celltype"] == "Secretory cell"
    al.pp.kernel_group(adata, "orig.ident")
    chosen = adata.var_names.isin(reference.index)
    al.tl.variance_components(adata, "Genotype", mask_obs="secretory", mask_var=chosen)
    table = al.get.variance_components(adata).loc[reference.index]
    assert set(table["status"]) == {"ok"}
    lme4 = pd.read_csv(REFERENCE / "genes_fits.csv", index_col="name").loc[reference.index]
    # The check's search on values leaves 5e-7 in log γ.
    np.testing.assert_allclose(table["sigma_sq"], reference["chk_var_group"], rtol=1e-6)
    np.testing.assert_allclose(table["tau_sq"], reference["chk_var_resid"], rtol=1e-8)
    np.testing.assert_allclose(table["log_likelihood"], reference["chk_reml_ll"], rtol=1e-8)
    np.testing.assert_allclose(table["pve"], reference["gemma_pve"], rtol=2e-5)  # six digits, λ to 1e-5
    # lme4's θ, as above
    np.testing.assert_allclose(table["sigma_sq"], lme4["sigma_sq"], rtol=1e-5)
    np.testing.assert_allclose(table["tau_sq"], lme4["tau_sq"], rtol=1e-7)
    np.testing.assert_allclose(table["log_likelihood"], lme4["log_likelihood"] + lme4["x_logdet"] / 2, rtol=1e-11)
