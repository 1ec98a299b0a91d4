"""`al.tl.variance_components`: lme4's tables, GEMMA's genes, each gene as `fit_null` has it, and what cannot be fitted."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from helpers import assert_same, messages, relatedness, snapshot, untouched
from scipy import sparse

import annlmm as al
from annlmm._slots.gene_results import names_of
from annlmm._slots.kernel import read_basis
from annlmm.model.design import make_design
from annlmm.model.null import NullModel

FIELDS = tuple(name for name in names_of("variance_components") if name != "parameter")  # that is a family's
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
        ({"key_added": "kernel"}, ValueError, "holds a kernel"),
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


# ------------------------------------------------------------------------------------------- families of kernels


def slide(n=90, m=16, seed=0) -> AnnData:
    """Genes at length scales 0.5 and 2 of a square of 8 × 8, a quarter of them without a pattern."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 8, (n, 2))
    distance = ((place[:, None] - place) ** 2).sum(axis=2)
    y = rng.standard_normal((n, m))
    for j in range(m):
        root = np.linalg.cholesky(np.exp(-distance / (2 * (0.5, 2.0, 2.0)[j % 3] ** 2)) + 1e-6 * np.eye(n))
        y[:, j] += (j % 4 > 0) * 1.2 * (root @ rng.standard_normal(n))
    adata = AnnData(y + 3.0)
    adata.obsm["spatial"] = place
    adata.obs["age"] = rng.standard_normal(n)
    adata.obs["good"] = np.arange(n) % 7 > 0
    return adata


def related(adata: AnnData, rho=(0.0, 0.3, 1.0), key="kernel") -> None:
    donors = list(adata.obs["donor_id"].cat.categories)
    al.pp.kernel_group(adata, "donor_id", relatedness=relatedness(donors), rho=list(rho), key_added=key)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("kind", ["rbf", "low", "groups"])
def test_a_family_against_its_members_by_fit_null(cells, kind, reml):
    adata = cells if kind == "groups" else slide(m=9)
    if kind == "groups":
        related(adata)
        options = {"covariates": "~ condition + C(batch)", "reml": reml, "mask_obs": "good", "rng": 2}
    else:
        al.pp.kernel_rbf(adata, length_scale=[0.4, 1.0, 2.0], rank=12 if kind == "low" else None)
        options = {"covariates": "age", "reml": reml, "mask_obs": "good", "rng": 2}
    values = adata.uns["kernel"]["params"]["rho" if kind == "groups" else "length_scale"]
    al.tl.variance_components(adata, **options)
    table, members = al.get.variance_components(adata), al.get.variance_components(adata, members=True)
    assert list(members.columns) == ["member", "log_likelihood", "p_value"]
    assert members["member"].cat.categories.tolist() == ["kernel_0", "kernel_1", "kernel_2"]
    assert list(table.columns) == list(names_of("variance_components"))
    names = [f"y{j}" for j in range(adata.n_vars)]
    work = AnnData(obs=adata.obs.copy(), uns=dict(adata.uns), obsm=dict(adata.obsm))
    work.obs[names] = adata.X
    fits = []
    for key in ("kernel_0", "kernel_1", "kernel_2"):
        al.tl.fit_null(work, names, kernel=key, **options)
        fits.append(work.uns["lmm"]["fits"].loc[names])
    al.tl.fit_null(work, names, kernel="kernel_0", gamma=0.0, **options)
    without = work.uns["lmm"]["fits"]["log_likelihood"]
    x, rows = work.obsm["lmm_design"], np.flatnonzero(adata.obs["good"])
    nulls = [
        NullModel(make_design(x[rows]), read_basis(adata, f"kernel_{i}", rows), reml=reml, seed=2).rlrt
        for i in range(3)
    ]
    several = set()
    for j, name in enumerate(names):
        alone = pd.DataFrame([fit.loc[name] for fit in fits])
        ours, each = table.iloc[j], members.loc[adata.var_names[j]]
        for field, theirs in (("log_likelihood", "log_likelihood"), ("p_value", "h_sq_p_value")):
            np.testing.assert_allclose(each[field], alone[theirs].astype(float), rtol=1e-8)
        best = int(alone["log_likelihood"].to_numpy(dtype=float).argmax())
        if alone["h_sq"].max() == 0:
            assert np.isnan(ours["parameter"])
            assert (ours["h_sq"], ours["p_value"], ours["status"]) == (0, 1, "boundary")
            continue
        several.add(best)
        assert ours["parameter"] == values[best]
        assert ours["status"] == alone["status"].iloc[best]
        for field in SCALARS:
            assert ours[field] == pytest.approx(alone[field].iloc[best], rel=1e-8, nan_ok=True), (name, field)
        # P(max LR_j ≥ x) is between the largest of P(LR_j ≥ x) and their sum. All are simulated: to 3 % in the body, and far
        # out to what a few hundred draws from a few of the γ say.
        ratio = 2 * (ours["log_likelihood"] - without[name])
        p = np.array([np.exp(null.log_p_value(ratio)) for null in nulls])
        slack = 1.1 if p.max() > 1e-3 else 1.4
        assert p.max() / slack < ours["p_value"] < slack * p.sum()
        assert ours["neg_log10_p_value"] == pytest.approx(-np.log10(ours["p_value"]), rel=1e-9)
    assert len(several) > 1


@pytest.mark.parametrize("kind", ["rbf", "groups"])
def test_a_family_of_one_is_its_kernel(cells, kind):
    adata = cells if kind == "groups" else slide()
    if kind == "groups":
        related(adata, [0.5], "one")
    else:
        al.pp.kernel_rbf(adata, length_scale=[1.5], key_added="one")
    al.tl.variance_components(adata, kernel="one", key_added="family")
    al.tl.variance_components(adata, kernel="one_0")
    table = al.get.variance_components(adata, "family")
    pd.testing.assert_frame_equal(table.drop(columns="parameter"), al.get.variance_components(adata), check_exact=True)
    fitted = table["h_sq"] > 0
    assert (table.loc[fitted, "parameter"] == (0.5 if kind == "groups" else 1.5)).all()
    assert table.loc[~fitted, "parameter"].isna().all()
    alone = al.get.variance_components(adata, "family", members=True)
    np.testing.assert_array_equal(alone["p_value"], table["p_value"])


@pytest.mark.parametrize("kind", ["csr", "csc", "dask", "gaps"])
def test_a_family_of_groups_takes_one_pass(cells, kind, monkeypatch):
    """The same as a pass per member."""
    from annlmm.tl import _genes

    related(cells)
    if kind == "gaps":
        cells.X[np.random.default_rng(0).uniform(size=cells.shape) < 0.05] = np.nan
    each = []
    for i in range(3):
        al.tl.variance_components(cells, "batch", kernel=f"kernel_{i}")
        each.append(al.get.variance_components(cells))
    if kind == "dask":
        cells.X = pytest.importorskip("dask.array").from_array(cells.X, chunks=(17, 7))
    elif kind != "gaps":
        cells.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_array}[kind](cells.X)
    passes = []
    collect = _genes.collect_statistics
    monkeypatch.setattr(_genes, "collect_statistics", lambda *a, **k: passes.append(1) or collect(*a, **k))
    al.tl.variance_components(cells, "batch")
    assert len(passes) == 1
    members = al.get.variance_components(cells, members=True)
    for i, table in enumerate(each):
        part = members[members["member"] == f"kernel_{i}"]
        for name in ("log_likelihood", "p_value"):
            np.testing.assert_allclose(part[name], table[name], rtol=1e-8)


def test_size_of_a_family():
    """5000 null genes at five length scales, of which the smallest p of the members is not one."""
    rng = np.random.default_rng(3)
    adata = AnnData(rng.standard_normal((120, 5000)))
    adata.obsm["spatial"] = rng.uniform(0, 10, (120, 2))
    al.pp.kernel_rbf(adata, length_scale=[0.4, 0.8, 1.6, 3.2, 6.4])
    al.tl.variance_components(adata)
    p, each = adata.var["varcomp_p_value"].to_numpy(), adata.varm["varcomp_member_p_value"]
    for level in (0.2, 0.05, 0.01, 0.001):
        # Binomial error of the genes, and of the 15,000 draws from the null.
        error = 4 * np.sqrt(level * (1 - level) * (1 / 5000 + 1 / 15_000))
        assert abs((p < level).mean() - level) < error, level
    assert (each.min(axis=1) < 0.05).mean() > 0.1
    assert (p == 1).mean() == pytest.approx((each == 1).all(axis=1).mean(), abs=1e-12)


def test_a_family_finds_the_length_scale():
    adata = slide(n=150, m=48, seed=1)
    al.pp.kernel_rbf(adata, length_scale=[0.5, 2.0, 8.0])
    al.tl.variance_components(adata)
    table = al.get.variance_components(adata)
    genes = np.arange(48)
    patterned = (genes % 4 > 0) & (table["p_adjusted"] < 0.05)
    assert patterned.sum() > 25
    for offset, scale in ((0, 0.5), (1, 2.0), (2, 2.0)):
        found = table.loc[patterned & (genes % 3 == offset), "parameter"]
        assert (found == scale).mean() > 0.7


def test_bad_genes_of_a_family(cells):
    related(cells)
    donor = cells.obs["donor_id"].cat.codes.to_numpy()
    cells.X[:, 0], cells.X[:, 1], cells.X[:, 2] = 0.0, 3.0, np.nan
    cells.X[:, 3] = (cells.obs["batch"] == "batch_2") * 2.0 + 1.0
    cells.X[:, 4] = donor**2
    al.tl.variance_components(cells, "batch", mask_var=np.arange(24) != 5)
    table, members = al.get.variance_components(cells), al.get.variance_components(cells, members=True)
    expected = ["constant", "constant", "all_missing", "collinear", "not_converged", "masked"]
    assert table["status"][:6].tolist() == expected
    assert table.drop(columns="status")[:6].isna().all(axis=None)
    assert set(table["status"][6:]) <= {"ok", "boundary"}
    assert members.drop(columns="member").loc[table.index[:6]].isna().all(axis=None)
    assert members.loc[table.index[6:]].notna().all(axis=None)


def test_fields_of_a_family(cells):
    related(cells)
    before = snapshot(cells)
    with messages() as seen:
        al.tl.variance_components(cells, mask_var="some")
    assert any("the 3 kernels of 'kernel' of rank 8" in line for line in seen)
    after = snapshot(cells)
    assert set(after["var"]) - set(before["var"]) == {f"varcomp_{name}" for name in (*FIELDS, "parameter")}
    assert set(after["varm"]) == {"varcomp_member_p_value", "varcomp_member_log_likelihood"}
    assert set(after["uns"]["varcomp"]) == {"variance_components", "members", "schema_version"}
    params = after["uns"]["varcomp"]["variance_components"]
    assert (params["kernel"], params["parameter"]) == ("kernel", "rho")
    np.testing.assert_array_equal(params["values"], [0.0, 0.3, 1.0])
    np.testing.assert_array_equal(params["rank"], [8, 8, 8])
    # A single kernel under the same key leaves nothing of it.
    al.tl.variance_components(cells, kernel="kernel_1")
    assert "varcomp_parameter" not in cells.var
    assert not cells.varm.keys()
    with pytest.raises(ValueError, match="members=True: 'varcomp' was fitted under one kernel"):
        al.get.variance_components(cells, members=True)


@pytest.mark.parametrize("fmt", ["h5ad", "zarr"])
def test_round_trip_of_a_family(tmp_path, fmt):
    adata = slide()
    al.pp.kernel_rbf(adata, length_scale=[0.5, 2.0])
    al.tl.variance_components(adata, mask_var=np.arange(16) != 3)
    path = tmp_path / f"x.{fmt}"
    getattr(adata, f"write_{fmt}")(path)
    read = getattr(ad, f"read_{fmt}")(path)
    for members in (False, True):
        now, then = (al.get.variance_components(a, members=members) for a in (read, adata))
        pd.testing.assert_frame_equal(now, then, check_exact=True, check_index_type=False)
    al.tl.variance_components(read, mask_var=np.arange(16) != 3, key_added="again")
    np.testing.assert_allclose(read.var["again_p_value"], adata.var["varcomp_p_value"], rtol=1e-9)
    del read.varm["varcomp_member_p_value"], read.var["varcomp_parameter"]
    with pytest.raises(KeyError, match="adata.varm lacks varcomp_member_p_value"):
        al.get.variance_components(read, members=True)
    with pytest.raises(KeyError, match="adata.var lacks varcomp_parameter"):
        al.get.variance_components(read)


def test_errors_of_a_family(cells):
    related(cells)
    refusal = r"is a family of 3 kernels, and one is needed; name it by its rho: 'kernel_0' \(0\)"
    with untouched(cells), pytest.raises(ValueError, match=refusal):
        al.tl.differential(cells, "condition")
    with untouched(cells), pytest.raises(ValueError, match=refusal):
        al.tl.fit_null(cells, "age")
    with untouched(cells), pytest.raises(ValueError, match="kernel='kernel': one group on the"):
        al.tl.variance_components(cells, mask_obs=cells.obs["donor_id"] == cells.obs["donor_id"].iloc[0])
    with untouched(cells), pytest.raises(ValueError, match=r"kernel_0 \(rho=0\): absorbed by the covariates"):
        al.tl.variance_components(cells, "donor_id")
    adata = slide()
    al.pp.kernel_rbf(adata, length_scale=[1.0, 1e-3])
    with (
        untouched(adata),
        pytest.raises(ValueError, match=r"kernel_1 \(length_scale=0\.001\): cannot be told from the residual"),
    ):
        al.tl.variance_components(adata)
    del adata.uns["kernel_1"]
    with untouched(adata), pytest.raises(ValueError, match="'kernel_1' is gone or replaced; compute the family again"):
        al.tl.variance_components(adata)


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
