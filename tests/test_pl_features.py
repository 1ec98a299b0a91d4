"""Volcano, heritability and variance components: what is drawn where, checked on the artists."""

from __future__ import annotations

import itertools

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from scipy import stats

import annlmm as al
from annlmm.pl._volcano import fdr_line


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def results(m=400, seed=0, key="de") -> AnnData:
    """Results as `al.tl.differential` leaves them."""
    rng = np.random.default_rng(seed)
    beta = np.where(rng.uniform(size=m) < 0.2, rng.normal(0, 0.6, m), 0) + rng.normal(0, 0.15, m)
    neg_log10 = -(stats.norm.logsf(np.abs(beta) / 0.15) + np.log(2)) / np.log(10)
    var = pd.DataFrame({f"{key}_beta": beta, f"{key}_p_value": 10.0**-neg_log10}, index=[f"GENE{i}" for i in range(m)])
    var[f"{key}_neg_log10_p_value"] = neg_log10
    var[f"{key}_p_adjusted"] = stats.false_discovery_control(var[f"{key}_p_value"])
    adata = AnnData(np.zeros((2, m), dtype=np.float32), var=var)
    adata.uns[key] = {"differential": {"term": "condition", "reference": "control"}}
    return adata


@pytest.fixture(scope="module")
def donors() -> AnnData:
    adata = al.datasets.donors(n_donors=12, cells_per_donor=20, n_genes=60)
    al.pp.kernel_group(adata, "donor_id")
    adata.obs["arm"] = pd.Categorical(np.array(["a", "b", "c"])[pd.factorize(adata.obs["donor_id"])[0] % 3])
    al.tl.differential(adata, "condition", layer="logcounts")
    al.tl.differential(adata, "arm", layer="logcounts", key_added="arms")
    al.tl.differential(adata, "age", layer="logcounts", key_added="age")
    al.tl.variance_components(adata, layer="logcounts")
    al.tl.fit_null(adata, "phenotype")
    return adata


def scatters(ax) -> list[PathCollection]:
    return [c for c in ax.collections if isinstance(c, PathCollection)]


def points(ax) -> np.ndarray:
    return np.vstack([c.get_offsets() for c in scatters(ax)])


def by_color(ax) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {}
    for c in scatters(ax):
        found.setdefault(to_hex(c.get_facecolor()[0]), []).append(np.asarray(c.get_offsets()))
    return {color: np.vstack(parts) for color, parts in found.items()}


def rows_of(*columns) -> list[tuple[float, ...]]:
    return sorted(zip(*(np.asarray(c, dtype=float).tolist() for c in columns), strict=True))


def names_shown(ax) -> set[str]:
    ax.figure.canvas.draw()
    return {t.get_text() for t in ax.texts if t.get_visible() and t.get_text().startswith(("GENE", "gene"))}


# --- volcano ----------------------------------------------------------------------------------------------------------


def test_volcano_draws_every_feature_coloured_by_sign():
    adata = results()
    var = adata.var
    ax = al.pl.volcano(adata, palette=["blue", "gray", "red"])
    drawn = by_color(ax)
    significant = (var["de_p_adjusted"] <= 0.05).to_numpy()
    for color, chosen in (
        ("blue", significant & (var["de_beta"] < 0)),
        ("gray", ~significant),
        ("red", significant & (var["de_beta"] > 0)),
    ):
        assert rows_of(*drawn[to_hex(color)].T) == rows_of(
            var.loc[chosen, "de_beta"], var.loc[chosen, "de_neg_log10_p_value"]
        )
    counts = [int((significant & (sign * var["de_beta"] > 0)).sum()) for sign in (-1, 1)]
    assert min(counts) > 5
    assert [ax.get_title(loc="left"), ax.get_title(loc="right")] == [f"β < 0: {counts[0]}", f"β > 0: {counts[1]}"]
    strongest = set(var["de_neg_log10_p_value"].nlargest(10).index)
    assert names_shown(ax) <= strongest
    assert len(names_shown(ax)) >= 8
    assert ax.get_xlabel() == "β of condition (against control)"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fdr", [0.01, 0.05, 0.3])
def test_the_line_separates_what_is_significant(seed, fdr):
    p = np.random.default_rng(seed).beta(0.3, 1.0, size=200)
    adjusted = stats.false_discovery_control(p)
    np.testing.assert_array_equal(-np.log10(p) >= fdr_line(-np.log10(p), fdr), adjusted <= fdr)


def test_the_line_where_nothing_is_significant():
    p = np.linspace(0.3, 1, 50)
    assert fdr_line(-np.log10(p), 0.05) == pytest.approx(-np.log10(0.05 / 50))
    adata = results(50)
    adata.var["de_neg_log10_p_value"] = -np.log10(p)
    ax = al.pl.volcano(adata)
    assert names_shown(ax) == set()
    assert ax.get_ylim()[1] > 3


def test_volcano_with_a_least_effect_and_without_a_rate():
    adata = results()
    beta, y = adata.var["de_beta"], adata.var["de_neg_log10_p_value"]
    drawn = by_color(al.pl.volcano(adata, min_effect=0.5, palette=["blue", "gray", "red"]))
    assert len(drawn[to_hex("red")]) == ((beta >= 0.5) & (adata.var["de_p_adjusted"] <= 0.05)).sum()
    ax = al.pl.volcano(adata, fdr=None, palette=["blue", "gray", "red"], n_labels=0)
    drawn = by_color(ax)
    assert set(drawn) == {to_hex("blue"), to_hex("red")}
    assert len(drawn[to_hex("red")]) == (beta > 0).sum()
    assert not [t for t in ax.texts if "FDR" in t.get_text()]
    assert y.max() < ax.get_ylim()[1]


def test_effects_far_beyond_are_triangles_at_the_edge():
    adata = results()
    adata.var.loc[["GENE0", "GENE1"], "de_beta"] = [40.0, -70.0]
    adata.var.loc[["GENE0", "GENE1"], "de_neg_log10_p_value"] = [0.4, 0.2]
    ax = al.pl.volcano(adata)
    assert ax.get_xlim()[1] < 10
    assert len(points(ax)) == 400
    edge = [c for c in scatters(ax) if len(c.get_offsets()) == 1]
    places = sorted(float(c.get_offsets()[0, 0]) for c in edge)
    assert places[0] == -places[1] < 0
    # What is significant is drawn where it is, however far.
    adata.var.loc["GENE0", "de_neg_log10_p_value"] = 60.0
    assert points(al.pl.volcano(adata))[:, 0].max() == 40.0


def test_volcano_of_levels_and_numbers(donors):
    ax = al.pl.volcano(donors, "arms", level="c")
    column = list(donors.uns["arms"]["levels"]).index("c")
    assert rows_of(*points(ax).T) == pytest.approx(
        np.array(
            rows_of(donors.varm["arms_level_beta"][:, column], -np.log10(donors.varm["arms_level_p_value"][:, column]))
        )
    )
    assert ax.get_xlabel() == "β of arm: c against a"
    assert al.pl.volcano(donors, "age").get_xlabel() == "β of age"
    with pytest.raises(ValueError, match=r"level=None: key='arms' has 2 levels .*e.g. level='b'"):
        al.pl.volcano(donors, "arms")
    with pytest.raises(KeyError, match="level='d': not among those of key='arms'"):
        al.pl.volcano(donors, "arms", level="d")
    with pytest.raises(ValueError, match="level='b': key='de' holds one coefficient"):
        al.pl.volcano(donors, level="b")
    with pytest.raises(
        KeyError, match="key='varcomp': adata.var has no column 'varcomp_beta', so that there are p-values"
    ):
        al.pl.volcano(donors, "varcomp")


def test_a_level_with_p_of_zero_is_reported(donors):
    adata = donors.copy()
    adata.varm["arms_level_p_value"] = adata.varm["arms_level_p_value"].copy()
    adata.varm["arms_level_p_value"][:3] = 0.0
    with pytest.warns(UserWarning, match="level='c': 3 features have p = 0 exactly"):
        assert len(points(al.pl.volcano(adata, "arms", level="c"))) == 57


def test_volcano_of_several_phenotypes():
    rng = np.random.default_rng(0)
    adata = AnnData(np.zeros((2, 50), dtype=np.float32), var=pd.DataFrame(index=[f"rs{i}" for i in range(50)]))
    adata.varm["lmm_p_value"] = rng.uniform(size=(50, 2))
    adata.varm["lmm_beta"] = rng.normal(size=(50, 2))
    adata.uns["lmm"] = {"phenotypes": np.array(["height", "cost in $"])}
    ax = al.pl.volcano(adata, "lmm", phenotype="cost in $")
    assert rows_of(*points(ax).T) == rows_of(adata.varm["lmm_beta"][:, 1], -np.log10(adata.varm["lmm_p_value"][:, 1]))
    assert ax.get_xlabel() == r"β on cost in \$"
    with pytest.raises(ValueError, match="phenotype=None: key='lmm' has 2 phenotypes"):
        al.pl.volcano(adata, "lmm")


def test_volcano_labels_and_highlight():
    adata = results()
    top = adata.var["de_neg_log10_p_value"].idxmax()
    adata.var["symbol"] = "."
    adata.var.loc[top, "symbol"] = "GENE$X$"
    ax = al.pl.volcano(adata, labels="symbol", n_labels=1, highlight=["GENE3", "GENE4"])
    assert names_shown(ax) == {"GENE$X$"}
    np.testing.assert_array_equal(scatters(ax)[-1].get_offsets()[:, 0], adata.var.loc[["GENE3", "GENE4"], "de_beta"])
    with pytest.raises(KeyError, match="labels='sym': adata.var has no such column"):
        al.pl.volcano(adata, labels="sym")


def test_volcano_thins_and_never_moves_points():
    adata = results(60_000)
    thinned, full = points(al.pl.volcano(adata)), points(al.pl.volcano(adata, thin=False))
    assert len(full) == 60_000
    assert len(thinned) < 45_000
    assert set(map(tuple, thinned)) <= set(map(tuple, full))


def test_volcano_errors():
    adata = results()
    for value in (0, 1.0, 5, -0.1):
        with pytest.raises(ValueError, match=f"fdr={value}: expected a false discovery rate"):
            al.pl.volcano(adata, fdr=value)
    with pytest.raises(ValueError, match=r"min_effect=-1: expected a size"):
        al.pl.volcano(adata, min_effect=-1)
    with pytest.raises(ValueError, match="palette: received 2 colours for"):
        al.pl.volcano(adata, palette=["red", "blue"])
    with pytest.raises(KeyError, match=r"key='lmm': adata.var has no column 'lmm_p_value'; run"):
        al.pl.volcano(adata, "lmm")
    with pytest.raises(TypeError, match="key=3: expected the name of one result"):
        al.pl.volcano(adata, 3)
    adata.var["de_beta"] = np.nan
    with pytest.raises(ValueError, match="no feature has both an effect and a p-value"):
        al.pl.volcano(adata)


# --- heritability -----------------------------------------------------------------------------------------------------


def segments(ax) -> np.ndarray:
    """Ends (k × 2 × 2) of all bars."""
    found = [np.array(c.get_segments()) for c in ax.collections if type(c) is LineCollection and len(c.get_segments())]
    return np.vstack(found)


def components(m, seed=0) -> AnnData:
    """Results as `al.tl.variance_components` leaves them, of which some are zero and some were not fitted."""
    rng = np.random.default_rng(seed)
    h_sq = np.where(rng.uniform(size=m) < 0.25, 0.0, rng.beta(0.8, 6, m))
    total = np.exp(rng.normal(-2, 1, m))
    p = np.where(h_sq > 0, 10.0 ** -(30 * h_sq), 1.0)
    fields = {
        "sigma_sq": total * h_sq,
        "tau_sq": total * (1 - h_sq),
        "h_sq": h_sq,
        "h_sq_standard_error": np.where(h_sq > 0, 0.02 + 0.2 * h_sq * (1 - h_sq), np.nan),
        "pve": h_sq,
        "log_likelihood": 0.0,
        "p_value": p,
        "neg_log10_p_value": -np.log10(p),
        "p_adjusted": stats.false_discovery_control(p),
    }
    var = pd.DataFrame(fields, index=[f"GENE{i}" for i in range(m)]).add_prefix("varcomp_")
    var.iloc[-2:] = np.nan
    status = ["ok"] * (m - 2) + ["constant"] * 2
    var["varcomp_status"] = pd.Categorical(status)
    adata = AnnData(np.zeros((2, m), dtype=np.float32), var=var)
    adata.uns["varcomp"] = {"variance_components": {}, "schema_version": 1}
    return adata


def test_few_features_are_a_forest():
    adata = components(20)
    ax = al.pl.heritability(adata)
    table = al.get.variance_components(adata).dropna(subset="h_sq").sort_values("h_sq", ascending=False, kind="stable")
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table.index)
    np.testing.assert_array_equal(points(ax), np.column_stack([table["h_sq"], np.arange(18)]))
    known = table["h_sq_standard_error"].notna().to_numpy()
    assert 0 < known.sum() < 18
    bars = segments(ax)
    np.testing.assert_allclose(bars[:, 0, 0], np.maximum(table["h_sq"] - table["h_sq_standard_error"], 0)[known])
    np.testing.assert_allclose(bars[:, 1, 0], (table["h_sq"] + table["h_sq_standard_error"])[known])
    np.testing.assert_array_equal(bars[:, 0, 1], np.flatnonzero(known))
    shades = [to_hex(c) for c in scatters(ax)[0].get_facecolors()]
    assert [shade == "#1f77b4" for shade in shades] == (table["p_adjusted"] <= 0.05).tolist()
    assert ax.yaxis_inverted()


def test_named_and_leading_features():
    adata = components(300)
    ax = al.pl.heritability(adata, features=["GENE7", "GENE3"])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["GENE7", "GENE3"]
    np.testing.assert_array_equal(points(ax)[:, 0], adata.var.loc[["GENE7", "GENE3"], "varcomp_h_sq"])
    ax = al.pl.heritability(adata, n_features=6)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(adata.var["varcomp_h_sq"].nlargest(6).index)
    with pytest.raises(KeyError, match="features: 1 of 2 names are not in adata.var_names: 'GENEX'"):
        al.pl.heritability(adata, features=["GENE7", "GENEX"])
    with pytest.raises(ValueError, match=r"1 of 2 were not fitted, e.g. 'GENE299' \(status 'constant'\)"):
        al.pl.heritability(adata, features=["GENE7", "GENE299"])
    with pytest.raises(ValueError, match="features: 100 rows are more than can be read"):
        al.pl.heritability(adata, features=list(adata.var_names[:100]))
    with pytest.raises(ValueError, match="n_features=0: expected a positive number"):
        al.pl.heritability(adata, n_features=0)
    with pytest.raises(ValueError, match="n_features=2: features are named already"):
        al.pl.heritability(adata, features=["GENE7"], n_features=2)
    with pytest.raises(ValueError, match=r"features=\[\]: expected at least one name"):
        al.pl.heritability(adata, features=[])


def test_many_features_are_a_curve():
    adata = components(500)
    ax = al.pl.heritability(adata)
    h_sq = np.sort(adata.var["varcomp_h_sq"].dropna())[::-1]
    drawn = points(ax)
    assert rows_of(*drawn.T) == rows_of(np.arange(1, 499), h_sq)
    found = {text.get_text() for text in ax.get_legend().get_texts()}
    n = int((adata.var["varcomp_p_adjusted"] <= 0.05).sum())
    assert found == {f"FDR ≤ 5 %: {n}", f"FDR > 5 %: {498 - n}"}
    top = list(adata.var["varcomp_h_sq"].nlargest(10).index)
    assert [t.get_text() for t in ax.texts] == top
    ax.figure.canvas.draw()
    boxes = [t.get_tightbbox() for t in ax.texts]
    texts = [super(type(t), t).get_window_extent() for t in ax.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(texts, 2))
    assert all(ax.bbox.x0 <= b.x0 and b.x1 <= ax.bbox.x1 for b in boxes)


def test_a_flat_curve_leaves_no_room_for_names():
    adata = components(200)
    adata.var["varcomp_h_sq"] = 0.5
    adata.var["varcomp_h_sq_standard_error"] = 0.01
    assert len(al.pl.heritability(adata, n_labels=100).texts) < 8
    assert al.pl.heritability(adata, fdr=None).get_legend() is None


def test_h_sq_of_fits():
    adata = al.datasets.gwas_cohort(n_obs=150, n_vars=300)
    al.pp.kernel_grm(adata)
    rng = np.random.default_rng(0)
    adata.obs["mix in $"] = adata.obs["phenotype"] + adata.obs["phenotype"].std() * rng.standard_normal(150)
    al.tl.fit_null(adata, ["phenotype", "mix in $"])
    al.tl.fit_null(adata, "phenotype", covariates=["age"], key_added="with_age")
    al.tl.fit_null(adata, "phenotype", kernel=None, key_added="ols")
    ax = al.pl.heritability(adata)
    fits = adata.uns["lmm"]["fits"].loc[["phenotype", "mix in $"]]
    np.testing.assert_array_equal(points(ax)[:, 0], fits["h_sq"])
    np.testing.assert_array_equal(segments(ax)[:, :, 0], fits[["h_sq_ci_low", "h_sq_ci_high"]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["phenotype", r"mix in \$"]
    row = fits.iloc[0]
    assert ax.texts[0].get_text() == f"{row['h_sq']:.2f} ({row['h_sq_ci_low']:.2f}–{row['h_sq_ci_high']:.2f})"
    assert ax.get_xlabel() == "$h^2$ and 95 % interval"
    ax = al.pl.heritability(adata, ["with_age", "lmm"], values=False)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["with_age", "lmm, phenotype", r"lmm, mix in \$"]
    assert points(ax)[0, 0] == adata.uns["with_age"]["h_sq"]
    assert not ax.texts
    assert len(points(al.pl.heritability(adata, phenotype="phenotype"))) == 1
    assert al.pl.heritability(adata, ["with_age", "ols"]).texts[1].get_text() == "no kernel"
    with pytest.raises(KeyError, match="phenotype='bmi': not among those of key='lmm'"):
        al.pl.heritability(adata, phenotype="bmi")
    with pytest.raises(ValueError, match="n_features: key='lmm' is a null fit of phenotypes"):
        al.pl.heritability(adata, n_features=3)
    with pytest.raises(ValueError, match="key='ols': has no h²"):
        al.pl.heritability(adata, "ols")
    with pytest.raises(KeyError, match="key='var': no fit there; run al.tl.variance_components"):
        al.pl.heritability(adata, "var")


def test_default_key_and_mixed_keys(donors):
    assert al.pl.heritability(donors).get_ylabel() == "$h^2$ ± standard error"
    assert len(points(al.pl.heritability(donors, "lmm"))) == 1
    with pytest.raises(ValueError, match="results of features are drawn one key at a time"):
        al.pl.heritability(donors, ["lmm", "varcomp"])
    with pytest.raises(ValueError, match="phenotype='x': key='varcomp' holds features"):
        al.pl.heritability(donors, phenotype="x")
    with pytest.raises(KeyError, match="key='varcomp': no fit there"):
        al.pl.heritability(results())


# --- variance components ----------------------------------------------------------------------------------------------


def test_variances_are_where_they_are():
    adata = components(300)
    ax = al.pl.variance_components(adata)
    var = adata.var.dropna(subset="varcomp_h_sq")
    positive = var["varcomp_sigma_sq"] > 0
    drawn = points(ax)
    assert len(drawn) == 298
    expected = var[positive]
    found = set(map(tuple, drawn))
    for x, y in zip(expected["varcomp_tau_sq"], expected["varcomp_sigma_sq"], strict=True):
        assert (x, y) in found
    # Zeros are triangles below the smallest, inside the axes.
    triangles = np.vstack([c.get_offsets() for c in scatters(ax) if len(c.get_paths()[0].vertices) < 8])
    assert len(triangles) == (~positive).sum() > 0
    assert (ax.get_ylim()[0] < triangles[:, 1]).all()
    assert triangles[:, 1].max() < expected["varcomp_sigma_sq"].min()
    assert sorted(triangles[:, 0]) == sorted(var.loc[~positive, "varcomp_tau_sq"])
    assert names_shown(ax) <= set(adata.var["varcomp_h_sq"].nlargest(10).index)


def test_lines_are_of_constant_h_sq():
    ax = al.pl.variance_components(components(300))
    lines = [line.get_data() for line in ax.lines]
    shares = [y / (x + y) for x, y in lines]
    assert all(s[0] == pytest.approx(s[1]) for s in shares)
    assert {round(float(s[0]), 6) for s in shares} <= {0.01, 0.1, 0.5, 0.9}
    assert len(shares) >= 3


def test_a_narrow_range_has_powers_of_ten():
    adata = components(5)
    adata.var["varcomp_sigma_sq"], adata.var["varcomp_tau_sq"] = 0.31, 0.33
    ax = al.pl.variance_components(adata, fdr=None)
    ax.figure.canvas.draw()
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        assert any(low <= t <= high for t in axis.get_majorticklocs())
        assert not any(t.get_text() for t in axis.get_minorticklabels())


def test_variance_components_errors(donors):
    with pytest.raises(KeyError, match="key='vc': no result of al.tl.variance_components there"):
        al.pl.variance_components(donors, "vc")
    with pytest.raises(ValueError, match="fdr=2: expected"):
        al.pl.variance_components(donors, fdr=2)
    adata = components(5)
    adata.var["varcomp_sigma_sq"] = np.nan
    with pytest.raises(ValueError, match=r"none of the 5 features was fitted; adata.var\['varcomp_status'\] says why"):
        al.pl.variance_components(adata)


# --- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", [al.pl.volcano, al.pl.heritability, al.pl.variance_components])
@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_given_axes_are_used_and_adata_untouched(donors, plot, style):
    before = donors.copy()
    with plt.style.context(style):
        figure, axes = plt.subplots(1, 2, figsize=(5, 2))
        assert plot(donors, ax=axes[0]) is axes[0]
        figure.canvas.draw()
        ink = "white" if style == "dark_background" else "black"
        assert {t.get_color() for t in axes[0].texts if t.get_text().startswith("gene")} <= {
            to_hex(ink),
            ink,
            "w",
            "k",
        } | {
            plt.rcParams["axes.edgecolor"],
            axes[0].spines["bottom"].get_edgecolor(),
        }
    assert plt.get_fignums() == [figure.number]
    pd.testing.assert_frame_equal(donors.var, before.var)
    with pytest.raises(TypeError, match="ax: must be matplotlib Axes"):
        plot(donors, ax=3)


# --- p-values from anywhere -------------------------------------------------------------------------------------------


def test_qq_of_arrays_tables_and_dicts():
    p = np.array([0.5, 0.001, np.nan, 0.2, 0.9])
    expected = -np.log10([0.001, 0.2, 0.5, 0.9])
    table = pd.DataFrame({"p_value": p, "other": p, "text": "a"})
    for ax in (
        al.pl.qq(p),
        al.pl.qq(list(p)),
        al.pl.qq(table["p_value"]),
        al.pl.qq(table),
        al.pl.qq(table, "other"),
        al.pl.qq({"x": p}),
        al.pl.qq(pd.Series([0.5, 0.001, None, 0.2, 0.9], dtype="Float64")),
    ):
        np.testing.assert_allclose(points(ax)[:, 1], expected)
        np.testing.assert_allclose(points(ax)[:, 0], -np.log10(np.arange(1, 5) / 5))
    texts = [t.get_text().split(":")[0] for t in al.pl.qq({"one": p, "cost in $": p}).get_legend().get_texts()]
    assert texts == ["one", r"cost in \$", "95 % null band"]
    texts = [t.get_text().split(":")[0] for t in al.pl.qq(table, ["p_value", "other"]).get_legend().get_texts()]
    assert texts[:2] == ["p_value", "other"]
    table["neg_log10_p_value"] = [1.0, 400.0, np.nan, 2.0, 3.0]
    assert points(al.pl.qq(table))[0, 1] == 400.0


def test_qq_of_what_is_no_p_value():
    p = np.array([0.5, 0.1])
    table = pd.DataFrame({"p_value": p, "text": ["a", "b"]})
    with pytest.raises(KeyError, match="key='p_val': the table has no such column; did you mean 'p_value'"):
        al.pl.qq(table, "p_val")
    with pytest.raises(TypeError, match="column 'text': expected AnnData, a table, or numbers in"):
        al.pl.qq(table, "text")
    with pytest.raises(ValueError, match="p-values: 1 values are outside .*e.g. 7.3; expected p, not −log₁₀ p"):
        al.pl.qq([0.5, 7.3])
    with pytest.raises(ValueError, match=r"p-values: expected one dimension, received shape \(1, 2\); pass a dict"):
        al.pl.qq(p[None])
    with pytest.raises(ValueError, match="'x': holds no p-value above 0"):
        al.pl.qq({"x": [np.nan]})
    with pytest.raises(ValueError, match="received an empty dict"):
        al.pl.qq({})
    with pytest.raises(ValueError, match="key='lmm': names results in AnnData"):
        al.pl.qq(p, "lmm")
    with pytest.raises(ValueError, match="phenotype='x': only results in AnnData"):
        al.pl.qq(p, phenotype="x")
    with pytest.raises(ValueError, match=r"key=\[\]: expected at least one column"):
        al.pl.qq(table, [])
    with pytest.raises(ValueError, match="11 series in one picture cannot be told apart"):
        al.pl.qq(dict.fromkeys(map(str, range(11)), p))
    with pytest.warns(UserWarning, match="p-values: 1 have p = 0 exactly"):
        assert len(points(al.pl.qq([0.0, 0.5]))) == 1


# --- symbols ----------------------------------------------------------------------------------------------------------


def with_symbols():
    rng = np.random.default_rng(0)
    m = 40
    names = [f"ENSG{j:05d}" for j in range(m)]
    adata = AnnData(np.zeros((2, m)), var=pd.DataFrame({"symbol": [f"SYM{j}" for j in range(m)]}, index=names))
    p = rng.uniform(0.01, 1, m)
    p[[3, 5]] = 1e-9
    adata.var["lmm_beta"], adata.var["lmm_p_value"] = rng.normal(size=m), p
    return adata


def orange(ax):
    """The features that are highlighted."""
    (found,) = [
        c for c in ax.collections if isinstance(c, PathCollection) and to_hex(c.get_facecolor()[0]) == "#ff7f0e"
    ]
    return found.get_offsets()


@pytest.mark.parametrize("plot", [al.pl.volcano, al.pl.manhattan])
def test_symbols_name_features_and_label_them(plot):
    adata = with_symbols()
    by_symbol = plot(adata, "lmm", highlight=["SYM3", "ENSG00007"], gene_symbols="symbol")
    by_name = plot(adata, "lmm", highlight=["ENSG00003", "ENSG00007"])
    found, expected = map(orange, (by_symbol, by_name))
    np.testing.assert_array_equal(found, expected)
    assert {t.get_text() for t in by_symbol.texts if t.get_text().startswith("SYM")} == {"SYM3", "SYM5"}
    own = plot(adata, "lmm", labels="symbol", gene_symbols="symbol")
    assert {t.get_text() for t in own.texts if t.get_text().startswith("SYM")} == {"SYM3", "SYM5"}
    with pytest.raises(
        KeyError,
        match="highlight: 1 of 1 names are not in adata.var_names: 'SYM3'; 'SYM3' is in adata.var.'symbol'.: pass",
    ):
        plot(adata, "lmm", highlight="SYM3")
    with pytest.raises(KeyError, match="1 of 2 names are not in adata.var.'symbol'. or adata.var_names: 'SYM99'"):
        plot(adata, "lmm", highlight=["SYM3", "SYM99"], gene_symbols="symbol")
    with pytest.raises(KeyError, match="gene_symbols='symbols': no such column in adata.var; did you mean 'symbol'"):
        plot(adata, "lmm", gene_symbols="symbols")


def test_a_forest_by_symbol():
    adata = al.datasets.donors(n_donors=8, n_genes=6, n_de=0)
    al.pp.kernel_group(adata, "donor_id")
    al.tl.variance_components(adata, layer="logcounts")
    adata.var["symbol"] = [f"SYM{j}" for j in range(6)]
    fitted = adata.var["symbol"][np.isfinite(adata.var["varcomp_h_sq"])].tolist()[:2]
    ax = al.pl.heritability(adata, features=fitted[::-1], gene_symbols="symbol")
    assert [t.get_text() for t in ax.get_yticklabels()] == fitted[::-1]
    highlighted = al.pl.variance_components(adata, highlight=fitted, gene_symbols="symbol")
    assert len(orange(highlighted)) == 2


@pytest.mark.parametrize("n_labels", ["x", 1.5, True])
def test_number_of_labels(n_labels):
    with pytest.raises(TypeError, match="n_labels: must be a whole number, received"):
        al.pl.volcano(AnnData(np.zeros((2, 3))), n_labels=n_labels)
