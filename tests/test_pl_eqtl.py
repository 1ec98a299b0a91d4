"""Expression by genotype and the locus of a gene: what is drawn where, checked on the artists."""

from __future__ import annotations

import itertools
import re

import matplotlib

matplotlib.use("agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from scipy import sparse

import annlmm as al
from annlmm.pl._eqtl import _estimate
from annlmm.pl._linkage import squared_correlation
from annlmm.pl._locus_draw import BINS as _BINS
from annlmm.pl._locus_draw import LEAD as _LEAD
from annlmm.pl._locus_draw import UNKNOWN as _UNKNOWN


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def study(seed=0, n_donors=30, m=40, cells=4) -> tuple[ad.AnnData, ad.AnnData, ad.AnnData]:
    """Pseudobulk, cells and genotypes, the donors in different orders, with a table of one gene."""
    rng = np.random.default_rng(seed)
    names = np.array([f"d{i:02d}" for i in range(n_donors)])
    dosages = rng.integers(0, 3, (n_donors, m)).astype(np.float32)
    dosages[:, 1] = dosages[:, 0]
    dosages[:3, 1] = 2 - dosages[:3, 1]
    dosages[4, 0] = np.nan
    var = pd.DataFrame(
        {"chrom": "chr1", "pos": 1_000_000 + 10_000 * np.arange(m), "a0": "A", "a1": "G"},
        index=[f"rs{j}" for j in range(m)],
    )
    order = rng.permutation(n_donors)
    genotype = ad.AnnData(dosages[order], obs=pd.DataFrame(index=names[order]), var=var)
    donor = np.repeat(np.arange(n_donors), cells)
    x = rng.poisson(3, (donor.size, 3)).astype(np.float32)
    genes = pd.DataFrame(
        {
            "chrom": "1",
            "start": [1_100_000, 5, 1_200_000],
            "end": [1_150_000, 90, 1_260_000],
            "strand": ["+", "+", "-"],
        },
        index=["g0", "g1", "g2"],
    )
    obs = pd.DataFrame({"donor": names[donor]}, index=[f"c{i}" for i in range(donor.size)])
    expression = ad.AnnData(sparse.csr_matrix(x), obs=obs, var=genes, layers={"log": sparse.csr_matrix(np.log1p(x))})
    bulk = al.pp.pseudobulk(expression, "donor", layer="log", min_cells=1)
    neg_log10 = rng.uniform(0, 2, m)
    neg_log10[0] = 12.5
    pairs = pd.DataFrame(
        {
            "gene": pd.Categorical(["g0"] * m),
            "variant": pd.Categorical(var.index),
            "chrom": pd.Categorical(["1"] * m),
            "pos": var["pos"].to_numpy(),
            "a1": "G",
            "beta": -0.51234,
            "standard_error": 0.0321,
            "p_value": 10.0**-neg_log10,
            "neg_log10_p_value": neg_log10,
        },
        index=[str(j) for j in range(m)],
    )
    bulk.uns["eqtl"] = {"pairs": pairs, "params": {}}
    expression.uns["eqtl"] = {"pairs": pairs, "params": {"donor_key": "donor", "layer": "log"}}
    return bulk, expression, genotype


def scatters(ax) -> list[PathCollection]:
    return [c for c in ax.collections if isinstance(c, PathCollection)]


def points(ax) -> np.ndarray:
    return np.vstack([c.get_offsets() for c in scatters(ax)])


def by_color(ax) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {}
    for c in scatters(ax):
        if len(c.get_offsets()):
            found.setdefault(to_hex(c.get_facecolor()[0]), []).append(np.asarray(c.get_offsets()))
    return {color: np.vstack(parts) for color, parts in found.items()}


def overlap(ax, artists) -> bool:
    renderer = ax.figure.canvas.get_renderer()
    boxes = [a.get_window_extent(renderer) for a in artists]
    return any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


# --- expression by genotype -------------------------------------------------------------------------------------------


def test_a_point_per_donor_matched_by_name():
    bulk, _, genotype = study()
    ax = al.pl.eqtl(bulk, genotype, "g0")
    drawn = points(ax)
    x = genotype.to_df()["rs0"].dropna()
    y = bulk.to_df()["g0"][x.index]
    assert len(drawn) == 29
    # Jitter stays within ±0.18 of the class.
    found = sorted(zip(np.rint(drawn[:, 0]), drawn[:, 1], strict=True))
    np.testing.assert_allclose(np.array(found), np.array(sorted(zip(x, y, strict=True))), rtol=1e-12)
    assert np.abs(drawn[:, 0] - np.rint(drawn[:, 0])).max() <= 0.18
    counts = [int((x == k).sum()) for k in range(3)]
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        f"{g}\nn = {n}" for g, n in zip(("A/A", "A/G", "G/G"), counts, strict=True)
    ]
    # As on the axis of a locus and of a Manhattan plot, without "chr".
    assert ax.get_xlabel() == "rs0 (1:1,000,000)"
    assert ax.get_ylabel() == "Expression"
    assert ax.get_title() == "g0 – rs0\nβ = −0.512 ± 0.032 per G, p = $3.2\\times10^{-13}$".replace(
        " = ", "\xa0=\xa0"
    ).replace(" ± ", "\xa0±\xa0").replace(" per ", " per\xa0")


def test_boxes_are_the_quartiles():
    bulk, _, genotype = study()
    ax = al.pl.eqtl(bulk, genotype, "g0")
    medians = {}
    for line in ax.lines:
        if line.get_linewidth() == 1.8:
            medians[round(float(np.mean(line.get_xdata())))] = line.get_ydata()[0]
    x = genotype.to_df()["rs0"].dropna()
    expected = bulk.to_df()["g0"][x.index].groupby(x).median()
    np.testing.assert_allclose([medians[k] for k in range(3)], expected)


def test_cells_are_averaged_within_donors():
    bulk, cells, genotype = study()
    ax = al.pl.eqtl(cells, genotype, "g0")
    np.testing.assert_allclose(
        np.sort(points(ax)[:, 1]), np.sort(points(al.pl.eqtl(bulk, genotype, "g0"))[:, 1]), rtol=1e-6
    )
    assert ax.get_ylabel() == "Expression\n(donor mean of log)"
    counts = al.pl.eqtl(cells, genotype, "g0", layer="log", donor_key="donor", variant="rs5")
    assert counts.get_title().startswith("g0 – rs5\nβ")


def test_without_results():
    bulk, _, genotype = study()
    del bulk.uns["eqtl"]
    ax = al.pl.eqtl(bulk, genotype, "g1", variant="rs3")
    assert ax.get_title() == "g1 – rs3"
    with pytest.raises(KeyError, match="key='eqtl': no result of al.tl.map_eqtl there; run"):
        al.pl.eqtl(bulk, genotype, "g1")


def test_a_pair_that_the_table_lacks_is_drawn_without_numbers():
    bulk, _, genotype = study()
    bulk.uns["eqtl"]["pairs"] = bulk.uns["eqtl"]["pairs"].iloc[:5]
    assert al.pl.eqtl(bulk, genotype, "g0", variant="rs9").get_title() == "g0 – rs9"
    assert al.pl.eqtl(bulk, genotype, "g1", variant="rs9").get_title() == "g1 – rs9"
    with pytest.raises(ValueError, match="gene='g1': the table has no pair of it"):
        al.pl.eqtl(bulk, genotype, "g1")


def test_imputed_dosages_keep_their_place():
    bulk, _, genotype = study()
    genotype.X = np.clip(np.nan_to_num(genotype.X, nan=1.3) * 0.9 + 0.05, 0, 2)
    drawn = points(al.pl.eqtl(bulk, genotype, "g0"))
    np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(genotype.X[:, 0]), rtol=1e-6)


def test_long_alleles_are_counted():
    bulk, _, genotype = study()
    genotype.var["a1"] = "GATTACA"
    ax = al.pl.eqtl(bulk, genotype, "g0")
    assert [t.get_text().split("\n")[0] for t in ax.get_xticklabels()] == ["0", "1", "2"]
    assert ax.get_xlabel() == "rs0 (1:1,000,000)\ncopies of GATTACA"
    assert "per" not in ax.get_title()


def test_missing_codes_and_absent_classes():
    bulk, _, genotype = study()
    coded = np.nan_to_num(genotype.X, nan=-9).astype(np.int8)
    coded[coded == 2] = 1
    genotype.X = coded
    ax = al.pl.eqtl(bulk, genotype, "g0")
    assert len(points(ax)) == 29
    assert ax.get_xticklabels()[2].get_text() == "G/G\nn = 0"


def test_dollars_are_no_mathematics():
    bulk, _, genotype = study()
    bulk.var_names = ["a$b$c", "g1", "g2"]
    genotype.var_names = ["rs$0$", *genotype.var_names[1:]]
    ax = al.pl.eqtl(bulk, genotype, "a$b$c", variant="rs$0$")
    assert ax.get_title() == r"a\$b\$c – rs\$0\$"
    ax.figure.canvas.draw()


@pytest.mark.parametrize("kind", ["csr", "csc", "backed", "dask"])
def test_array_types(kind, tmp_path):
    bulk, cells, genotype = study()
    expected = np.sort(points(al.pl.eqtl(cells, genotype, "g0")), axis=0)
    if kind == "dask":
        da = pytest.importorskip("dask.array")
        genotype.X = da.from_array(genotype.X, chunks=(7, 9))
    elif kind == "backed":
        genotype.write_h5ad(tmp_path / "g.h5ad")
        genotype = ad.read_h5ad(tmp_path / "g.h5ad", backed="r")
    else:
        cells.layers["log"] = getattr(sparse, f"{kind}_matrix")(cells.layers["log"])
    np.testing.assert_array_equal(np.sort(points(al.pl.eqtl(cells, genotype, "g0")), axis=0), expected)
    np.testing.assert_array_equal(
        points(al.pl.locus(bulk, genotype, "g0")), points(al.pl.locus(bulk, study()[2], "g0"))
    )
    if kind == "backed":
        genotype.file.close()


@pytest.mark.parametrize(
    ("beta", "error", "text"),
    [
        (0.42678, 0.03111, "β = 0.427 ± 0.031"),
        (-12.3, 4.56, "β = −12.3 ± 4.6"),
        (300.2, 45.0, "β = 300 ± 45"),
        (-0.00123, np.nan, "β = −0.0012"),
        (1.5, 0.0, "β = 1.5"),
    ],
)
def test_digits_follow_the_error(beta, error, text):
    assert _estimate(beta, error) == text


def test_the_title_says_of_how_many_donors_its_numbers_are():
    bulk, _, genotype = study()
    bulk.uns["eqtl"]["pairs"]["n"] = 29
    assert "donors" not in al.pl.eqtl(bulk, genotype, "g0").get_title()
    part = bulk[:12].copy()
    ax = al.pl.eqtl(part, genotype, "g0")
    assert ax.get_title().endswith(f"\n(all 29 donors of the map; {len(points(ax))} drawn)")


# --- locus ------------------------------------------------------------------------------------------------------------


def test_locus_draws_every_pair_coloured_by_r_sq():
    bulk, _, genotype = study()
    ax = al.pl.locus(bulk, genotype, "g0")
    pairs = bulk.uns["eqtl"]["pairs"]
    drawn = points(ax)
    assert len(drawn) == 40
    np.testing.assert_array_equal(np.sort(drawn[:, 0]), np.sort(pairs["pos"]))
    np.testing.assert_array_equal(np.sort(drawn[:, 1]), np.sort(pairs["neg_log10_p_value"]))
    frame = genotype.to_df()
    r_sq = frame.corrwith(frame["rs0"]) ** 2  # over complete pairs
    expected = {}
    for name, x, y in zip(pairs["variant"], pairs["pos"], pairs["neg_log10_p_value"], strict=True):
        color = _LEAD if name == "rs0" else _BINS[min(int(r_sq[name] * 5), 4)]
        expected.setdefault(color, []).append((x, y))
    found = {color: sorted(map(tuple, xy)) for color, xy in by_color(ax).items()}
    assert found == {color: sorted(xy) for color, xy in expected.items()}
    # rs1 is a copy of rs0 but for three donors.
    assert len(found) >= 3
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "0.8–1.0",
        "0.6–0.8",
        "0.4–0.6",
        "0.2–0.4",
        "0.0–0.2",
    ]
    assert ax.get_xlabel() == "Chromosome 1 (Mb)"
    assert ax.get_ylabel() == r"$-\log_{10}\,p$"


def test_lead_gene_and_threshold():
    bulk, _, genotype = study()
    ax = al.pl.locus(bulk, genotype, "g0")
    ax.figure.canvas.draw()
    texts = {t.get_text(): t for t in ax.texts}
    assert set(texts) == {"rs0", "g0 →", "p = 0.0012"}
    assert not overlap(ax, texts.values())
    across = [line for line in ax.lines if line.get_transform() == ax.get_xaxis_transform()]
    assert [list(line.get_xdata()) for line in across] == [[1_100_000] * 2, [1_100_000, 1_150_000]]
    level = next(line for line in ax.lines if line.get_color() == "#d62728")
    np.testing.assert_allclose(level.get_ydata(), -np.log10(0.05 / 40))
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] > 12.5


def test_classes_are_explained_beside_or_inside_the_axes():
    bulk, _, genotype = study()
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    inside = al.pl.locus(bulk, genotype, "g0", ax=axes[0])
    figure.canvas.draw()
    assert inside.get_legend().get_window_extent().x1 <= axes[0].bbox.x1
    beside = al.pl.locus(bulk, genotype, "g0")
    beside.figure.canvas.draw()
    box = beside.get_legend().get_window_extent()
    assert beside.bbox.x1 <= box.x0 < box.x1 <= beside.figure.bbox.x1


def test_small_thresholds_are_powers_of_ten():
    bulk, _, genotype = study()
    ax = al.pl.locus(bulk, genotype, "g0", threshold=5e-8)
    assert r"p = $5\times10^{-8}$" in {t.get_text() for t in ax.texts}


def test_reverse_strand_begins_at_its_end():
    bulk, _, genotype = study()
    bulk.uns["eqtl"]["pairs"]["gene"] = pd.Categorical(["g2"] * 40)
    ax = al.pl.locus(bulk, genotype, "g2", threshold=None)
    across = [line for line in ax.lines if line.get_transform() == ax.get_xaxis_transform()]
    assert list(across[0].get_xdata()) == [1_260_000] * 2
    assert {t.get_text() for t in ax.texts} == {"rs0", "← g2"}
    assert len(ax.lines) == 2


def test_window_and_other_lead_and_labels():
    bulk, _, genotype = study()
    ax = al.pl.locus(bulk, genotype, "g0", window=50_000, variant="rs8", labels=["rs12", "rs0"])
    x = points(ax)[:, 0]
    assert (x.min(), x.max()) == (1_050_000, 1_150_000)
    assert {t.get_text() for t in ax.texts} >= {"rs8", "rs12"}
    assert "rs0" not in {t.get_text() for t in ax.texts}
    assert by_color(ax)[_LEAD].tolist() == [[1_080_000, bulk.uns["eqtl"]["pairs"]["neg_log10_p_value"].iloc[8]]]
    with pytest.raises(KeyError, match="variant 'rs0' is not among the 11 drawn for 'g0'"):
        al.pl.locus(bulk, genotype, "g0", window=50_000, variant="rs0")
    with pytest.raises(ValueError, match="must be a positive number of base pairs"):
        al.pl.locus(bulk, genotype, "g0", window=-1)
    with pytest.raises(ValueError, match="has a p-value and a position within 10 bp of its start"):
        al.pl.locus(bulk, genotype, "g0", window=10, variant=None, pairs=bulk.uns["eqtl"]["pairs"].iloc[:3])


def test_cells_and_pseudobulk_have_the_same_r_sq():
    bulk, cells, genotype = study()
    one, other = (by_color(al.pl.locus(adata, genotype, "g0")) for adata in (bulk, cells))
    assert one.keys() == other.keys()
    for color in one:
        np.testing.assert_array_equal(one[color], other[color])


def test_without_genotypes_there_are_no_colours():
    bulk, _, genotype = study()
    ax = al.pl.locus(bulk, None, "g0")
    assert ax.get_legend() is None
    assert set(by_color(ax)) == {_BINS[0], _LEAD}
    pairs = bulk.uns["eqtl"]["pairs"].drop(columns=["chrom", "pos"])
    assert len(points(al.pl.locus(bulk, genotype, "g0", pairs=pairs))) == 40
    with pytest.raises(KeyError, match="no column 'pos', and genotype.var has none either"):
        al.pl.locus(bulk, None, "g0", pairs=pairs)


def test_variants_without_r_sq_are_grey():
    bulk, _, genotype = study()
    genotype.X[:, 7] = 1.0
    genotype = genotype[:, [j for j in range(40) if j != 9]].copy()
    ax = al.pl.locus(bulk, genotype, "g0")
    pairs = bulk.uns["eqtl"]["pairs"]
    assert sorted(by_color(ax)[_UNKNOWN][:, 0]) == pairs["pos"].iloc[[7, 9]].tolist()
    assert ax.get_legend().get_texts()[-1].get_text() == "unknown"


def test_other_chromosomes_and_unknown_places_are_left_out():
    bulk, _, genotype = study()
    pairs = bulk.uns["eqtl"]["pairs"].copy()
    pairs["chrom"] = ["2"] * 5 + ["chr1"] * 35
    pairs.loc["39", "pos"] = -1
    pairs.loc["38", ["p_value", "neg_log10_p_value"]] = np.nan
    ax = al.pl.locus(bulk, genotype, "g0", pairs=pairs)
    assert len(points(ax)) == 33
    pairs["chrom"] = "3"
    with pytest.raises(ValueError, match="none of its 40 pairs has a p-value and a position on its chromosome"):
        al.pl.locus(bulk, genotype, "g0", pairs=pairs)


def test_a_gene_without_a_place():
    bulk, _, genotype = study()
    bulk.var = pd.DataFrame(index=bulk.var_names)
    ax = al.pl.locus(bulk, genotype, "g0")
    assert ax.get_title() == "g0"
    assert ax.get_xlabel() == "Position (Mb)"


def test_p_values_of_another_column_and_zero():
    bulk, _, genotype = study()
    pairs = bulk.uns["eqtl"]["pairs"].copy()
    pairs["p_interaction"] = np.linspace(1e-4, 1, 40)
    ax = al.pl.locus(bulk, genotype, "g0", pairs=pairs, p_value="p_interaction")
    np.testing.assert_allclose(np.sort(points(ax)[:, 1]), np.sort(-np.log10(pairs["p_interaction"])))
    pairs.loc["3", "p_interaction"] = 0.0
    with pytest.warns(UserWarning, match="1 pairs have p = 0 exactly, which has no place on a log axis"):
        assert len(points(al.pl.locus(bulk, genotype, "g0", pairs=pairs, p_value="p_interaction"))) == 39
    with pytest.raises(KeyError, match="p_value='p_joint': the table has no such column"):
        al.pl.locus(bulk, genotype, "g0", p_value="p_joint")


def test_r_sq_is_numpys_over_complete_pairs():
    rng = np.random.default_rng(0)
    z = rng.integers(0, 3, (25, 8)).astype(float)
    x = rng.integers(0, 3, 25).astype(float)
    z[rng.random(z.shape) < 0.2] = np.nan
    x[:3] = np.nan
    z[:, 5] = 1.0
    z[:, 6] = np.nan
    expected = []
    for column in z.T:
        both = np.isfinite(column) & np.isfinite(x)
        constant = both.sum() < 2 or np.ptp(column[both]) == 0
        expected.append(np.nan if constant else np.corrcoef(column[both], x[both])[0, 1] ** 2)
    np.testing.assert_allclose(squared_correlation(z, x), expected, rtol=1e-12)


def test_pairs_in_a_file(tmp_path):
    pytest.importorskip("pyarrow")
    bulk, _, genotype = study()
    path = tmp_path / "pairs.parquet"
    pairs = bulk.uns["eqtl"].pop("pairs")
    pairs.reset_index(drop=True).to_parquet(path)
    bulk.uns["eqtl"]["params"]["output"] = str(path)
    assert len(points(al.pl.locus(bulk, genotype, "g0"))) == 40
    assert al.pl.eqtl(bulk, genotype, "g0").get_title().startswith("g0 – rs0")


@pytest.mark.parametrize("size", [(2.6, 2.2), (4, 3), (12, 7)])
@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_nothing_leaves_the_figure(size, style):
    _, cells, genotype = study()
    with plt.style.context(style):
        for plot in (al.pl.eqtl, al.pl.locus):
            fig, ax = plt.subplots(figsize=size, layout="constrained")
            assert plot(cells, genotype, "g0", ax=ax) is ax
            fig.canvas.draw()
            frame = fig.bbox.padded(2)
            renderer = fig.canvas.get_renderer()
            shown = [
                t for t in (*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label) if t.get_visible() and t.get_text()
            ]
            for text in shown:
                box = text.get_window_extent(renderer)
                if text is not ax.yaxis.label:  # is longer than the lowest of these figures is high
                    assert frame.x0 <= box.x0, text
                    assert box.x1 <= frame.x1, text


def test_a_large_locus_is_rasterized():
    bulk, _, _ = study()
    rng = np.random.default_rng(0)
    m = 12_000
    pairs = pd.DataFrame(
        {
            "gene": "g0",
            "variant": [f"v{j}" for j in range(m)],
            "pos": rng.integers(1, 2_000_000, m),
            "p_value": rng.uniform(size=m),
        }
    )
    ax = al.pl.locus(bulk, None, "g0", pairs=pairs)
    assert scatters(ax)[0].get_rasterized()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", [al.pl.eqtl, al.pl.locus])
def test_errors_name_the_remedy(plot):
    bulk, cells, genotype = study()
    with pytest.raises(KeyError, match=re.escape("gene='g00': not in expression.var_names; did you mean 'g0'")):
        plot(bulk, genotype, "g00")
    with pytest.raises(TypeError, match="gene: must be a name in expression.var_names, received 3"):
        plot(bulk, genotype, 3)
    with pytest.raises(KeyError, match="key='other': no result of al.tl.map_eqtl there"):
        plot(bulk, genotype, "g0", key="other")
    with pytest.raises(KeyError, match="pairs: must have columns gene, variant and p_value, received gene"):
        plot(bulk, genotype, "g0", pairs=pd.DataFrame({"gene": ["g0"]}))
    with pytest.raises(ValueError, match="the table has no pair of it"):
        plot(bulk, genotype, "g1")
    bulk.uns["eqtl"] = {"params": {}}
    with pytest.raises(KeyError, match="holds no pairs"):
        plot(bulk, genotype, "g0")
    cells.uns["eqtl"]["params"] = {}
    with pytest.raises(ValueError, match="pass donor_key='donor'"):
        plot(cells, genotype, "g0")
    with pytest.raises(TypeError, match="ax: must be matplotlib Axes"):
        plot(study()[0], genotype, "g0", ax=3)


def test_bad_variant():
    bulk, _, genotype = study()
    with pytest.raises(KeyError, match="variant='rs99': not in genotype.var_names; did you mean"):
        al.pl.eqtl(bulk, genotype, "g0", variant="rs99")
    with pytest.raises(TypeError, match="variant: must be a name in genotype.var_names, received 3"):
        al.pl.eqtl(bulk, genotype, "g0", variant=3)
    genotype.X[:] = np.nan
    with pytest.raises(ValueError, match="gene='g0', variant='rs0': no donor has both a call and a value"):
        al.pl.eqtl(bulk, genotype, "g0")


def test_bad_colours_and_threshold():
    bulk, _, genotype = study()
    with pytest.raises(ValueError, match="palette: received 2 colours for five classes of r²"):
        al.pl.locus(bulk, genotype, "g0", palette=["red", "blue"])
    with pytest.raises(ValueError, match="threshold=5: expected a p-value in"):
        al.pl.locus(bulk, genotype, "g0", threshold=5)
    assert len(by_color(al.pl.locus(bulk, genotype, "g0", palette="viridis"))) >= 3


# --- contexts ---------------------------------------------------------------------------------------------------------


def two_contexts(seed=0):
    """As `study`, with two contexts: their p-values differ, and those of the interaction from the additive ones."""
    bulk, _, genotype = study(seed)
    pairs = bulk.uns["eqtl"]["pairs"]
    rng = np.random.default_rng(seed)
    parts = []
    for k, name in enumerate(("time", "st$te")):
        part = pairs.assign(context=name, beta=0.5 + k)
        part["p_value"] = 10.0 ** -rng.uniform(0, 2 + k, len(part))
        part["interaction_p_value"] = rng.uniform(size=len(part))
        parts.append(part.drop(columns="neg_log10_p_value"))
    table = pd.concat(parts, ignore_index=True)
    table["context"] = pd.Categorical(table["context"])
    bulk.uns["eqtl"]["pairs"] = table
    return bulk, genotype, table


def test_a_locus_is_of_one_context():
    bulk, genotype, table = two_contexts()
    for context in ("time", "st$te"):
        own = table[table["context"] == context]
        ax = al.pl.locus(bulk, genotype, "g0", context=context, p_value="interaction_p_value")
        np.testing.assert_allclose(np.sort(points(ax)[:, 1]), np.sort(-np.log10(own["interaction_p_value"])))
        assert ax.get_ylabel() == r"$-\log_{10}\,p$ (interaction," + "\xa0" + context.replace("$", r"\$") + ")"
        level = next(line for line in ax.lines if line.get_color() == "#d62728")
        np.testing.assert_allclose(level.get_ydata(), -np.log10(0.05 / 40))
    assert al.pl.locus(bulk, genotype, "g0", context="time").get_ylabel().endswith("(additive,\xa0time)")
    one = table[table["context"] == "time"]
    assert al.pl.locus(bulk, genotype, "g0", pairs=one).get_ylabel().endswith("(additive,\xa0time)")


def test_expression_by_genotype_has_the_numbers_of_one_context():
    bulk, genotype, table = two_contexts()
    for context, beta in (("time", "0.500"), ("st$te", "1.500")):
        own = table[table["context"] == context]
        title = al.pl.eqtl(bulk, genotype, "g0", context=context).get_title()
        assert own.loc[own["p_value"].idxmin(), "variant"] in title
        assert f"β\xa0=\xa0{beta}" in title
        assert title.endswith("context\xa0" + context.replace("$", r"\$"))


@pytest.mark.parametrize("plot", [al.pl.eqtl, al.pl.locus])
def test_contexts_must_be_named(plot):
    bulk, genotype, table = two_contexts()
    with pytest.raises(
        ValueError, match=re.escape("context=None: key='eqtl' has 2 contexts ('time', 'st$te'); choose")
    ):
        plot(bulk, genotype, "g0")
    with pytest.raises(ValueError, match="context=None: the table has 2 contexts"):
        plot(bulk, genotype, "g0", pairs=table)
    with pytest.raises(KeyError, match="context='tome': not among those of key='eqtl'; did you mean 'time'"):
        plot(bulk, genotype, "g0", context="tome")
    with pytest.raises(KeyError, match="context='time': key='eqtl' has no contexts; run al.tl.map_eqtl with inter"):
        plot(study()[0], genotype, "g0", context="time")


# --- symbols ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", [al.pl.eqtl, al.pl.locus])
def test_genes_by_symbol(plot):
    bulk, _, genotype = study()
    bulk.var["symbol"] = ["IL7R", None, "TWIN"]

    def shown(ax):
        ax.figure.canvas.draw()
        return ax.get_title() + "".join(text.get_text() for text in ax.texts)

    for gene in ("IL7R", "g0"):
        ax = plot(bulk, genotype, gene, gene_symbols="symbol")
        assert "IL7R" in shown(ax)
        assert "g0" not in shown(ax)
        np.testing.assert_array_equal(points(ax), points(plot(bulk, genotype, "g0")))
    with pytest.raises(
        KeyError, match="gene='IL7R': not in expression.var_names; it is in expression.var.'symbol'.: pass"
    ):
        plot(bulk, genotype, "IL7R")
    with pytest.raises(KeyError, match="gene='IL8R': neither in .* nor in expression.var_names; did you mean 'IL7R'"):
        plot(bulk, genotype, "IL8R", gene_symbols="symbol")
    with pytest.raises(
        KeyError, match="gene_symbols='symbols': no such column in expression.var; did you mean 'symbol'"
    ):
        plot(bulk, genotype, "IL7R", gene_symbols="symbols")
    bulk.var["symbol"] = pd.Categorical(["TWIN", "TWIN", "x"])
    with pytest.raises(
        ValueError, match=re.escape("gene='TWIN': 2 genes have it in expression.var['symbol'] ('g0', 'g1')")
    ):
        plot(bulk, genotype, "TWIN", gene_symbols="symbol")


def test_labels_of_a_locus():
    bulk, _, genotype = study()
    ax = al.pl.locus(bulk, genotype, "g0", labels="rs12")
    assert "rs12" in {t.get_text() for t in ax.texts}
    with pytest.raises(KeyError, match="labels: 'rs99' is no variant of this locus; did you mean"):
        al.pl.locus(bulk, genotype, "g0", labels=["rs12", "rs99"])


# --- a part of a scan -------------------------------------------------------------------------------------------------


def scan(m=60):
    rng = np.random.default_rng(3)
    dosages = rng.integers(0, 3, (40, m)).astype(float)
    dosages[:, 11] = np.where(rng.random(40) < 0.2, dosages[:, 11], dosages[:, 10])
    dosages[2, 11] = np.nan
    var = pd.DataFrame(
        {"chrom": np.repeat(["chr1", "chr2"], m // 2), "pos": np.tile(100_000 * np.arange(1, m // 2 + 1), 2)},
        index=[f"rs{j}" for j in range(m)],
    )
    p = rng.uniform(0.01, 1, m)
    p[10] = 1e-9
    p[20] = np.nan
    adata = ad.AnnData(dosages, var=var.assign(lmm_p_value=p, lmm_neg_log10_p_value=-np.log10(p)))
    adata.uns["lmm"] = {"association": {}, "phenotypes": np.array(["y"], dtype=object)}
    return adata


def test_a_region_of_a_scan():
    adata = scan()
    for region in ("1:500000-2,500,000", "chr1:500_000–2500000"):
        ax = al.pl.locus(adata, region=region)
        inside = adata.var[(adata.var["chrom"] == "chr1") & adata.var["pos"].between(5e5, 2.5e6)].dropna()
        assert len(inside) == 20
        np.testing.assert_array_equal(np.sort(points(ax)[:, 0]), inside["pos"])
        np.testing.assert_allclose(np.sort(points(ax)[:, 1]), np.sort(inside["lmm_neg_log10_p_value"]))
    r_sq = adata.to_df().corrwith(adata.to_df()["rs10"]) ** 2  # over complete pairs
    expected = {}
    for name in inside.index:
        color = _LEAD if name == "rs10" else _BINS[min(int(r_sq[name] * 5), 4)]
        expected.setdefault(color, []).append(float(adata.var["pos"][name]))
    assert {color: sorted(xy[:, 0]) for color, xy in by_color(ax).items()} == expected
    assert r_sq["rs11"] > 0.2
    assert ax.get_xlim() == (460_000, 2_540_000)  # and 2 %, so that a variant at the edge is drawn whole
    assert ax.get_xlabel() == "Chromosome 1 (Mb)"
    assert ax.get_ylabel() == r"$-\log_{10}\,p$"
    # 59 of 60 variants have a p-value.
    level = next(line for line in ax.lines if line.get_color() == "#d62728")
    np.testing.assert_allclose(level.get_ydata(), -np.log10(0.05 / 59))
    assert {t.get_text() for t in ax.texts} == {"rs10", "p = $8.5\\times10^{-4}$"}


def test_around_a_variant_of_a_scan():
    adata = scan()
    ax = al.pl.locus(adata, variant="rs40")
    np.testing.assert_array_equal(np.sort(points(ax)[:, 0]), 100_000 * np.arange(6, 17))
    assert by_color(ax)[_LEAD].tolist() == [[1_100_000, adata.var["lmm_neg_log10_p_value"]["rs40"]]]
    ax = al.pl.locus(adata, window=200_000)  # of the strongest
    np.testing.assert_array_equal(np.sort(points(ax)[:, 0]), 100_000 * np.arange(9, 14))


def test_a_reference_panel():
    adata = scan()
    panel = adata.copy()
    panel.X = np.nan_to_num(panel.X, nan=-9)
    del adata.X
    assert al.pl.locus(adata, variant="rs10").get_legend() is None
    with_panel, own = al.pl.locus(adata, panel, variant="rs10"), al.pl.locus(scan(), variant="rs10")
    for color, xy in by_color(own).items():
        np.testing.assert_array_equal(by_color(with_panel)[color], xy)


def test_several_phenotypes_of_a_scan():
    adata = scan()
    p = adata.var.pop("lmm_p_value").to_numpy()
    adata.var = adata.var.drop(columns="lmm_neg_log10_p_value")
    adata.varm["lmm_p_value"] = np.column_stack([p[::-1], p])
    adata.uns["lmm"]["phenotypes"] = np.array(["x", "y"], dtype=object)
    ax = al.pl.locus(adata, variant="rs10", phenotype="y")
    assert ax.get_title() == "y"
    np.testing.assert_allclose(points(ax)[:, 1].max(), 9)
    with pytest.raises(ValueError, match="phenotype=None: key='lmm' has 2 phenotypes"):
        al.pl.locus(adata, variant="rs10")


def test_bad_arguments_of_a_scan():
    adata = scan()
    for error, message, arguments in [
        (ValueError, "region='1:5': expected chromosome:start-end", {"region": "1:5"}),
        (ValueError, "region=5: expected chromosome:start-end", {"region": 5}),
        (ValueError, "region='1:9-5': must start before it ends", {"region": "1:9-5"}),
        (ValueError, "region='7:1-5': no variant is on chromosome '7'; known: '1', '2'", {"region": "7:1-5"}),
        (ValueError, "region='1:1-5': no variant there has a p-value", {"region": "1:1-5"}),
        (ValueError, "window=5: the region says how far", {"region": "1:1-5", "window": 5}),
        (ValueError, "window=-5: must be a positive number", {"window": -5}),
        (KeyError, "variant='rs400': not in expression.var_names; did you mean", {"variant": "rs400"}),
        (ValueError, "variant='rs20': has no p-value", {"variant": "rs20"}),
        (KeyError, "variant 'rs50' is not among the 20 drawn", {"variant": "rs50", "region": "1:500000-2500000"}),
        (KeyError, "adata.var has no column 'other_p_value'", {"key": "other"}),
        (ValueError, "context: does not go with a scan", {"context": "x"}),
        (ValueError, "p_value: does not go with a scan", {"p_value": "x"}),
        (ValueError, "region: does not go with a gene", {"gene": "rs1", "region": "1:1-5"}),
    ]:
        with pytest.raises(error, match=message):
            al.pl.locus(adata, **arguments)
    adata.var = adata.var.rename(columns={"pos": "bpos"})
    with pytest.raises(KeyError, match="expression.var has no column 'pos', which a locus needs .*did you mean 'bpos'"):
        al.pl.locus(adata)
    bulk, _, genotype = study()
    bulk.uns["eqtl"]["genes"] = pd.DataFrame({"gene": ["g0"]})
    with pytest.raises(
        ValueError, match="gene=None: the results of al.tl.map_eqtl are drawn gene by gene; name one, e.g. 'g0'"
    ):
        al.pl.locus(bulk, genotype)


# --- small pictures ---------------------------------------------------------------------------------------------------


def long_names():
    _, cells, genotype = study()
    cells.var_names = [f"ENSG0000010000{i}" for i in range(3)]
    pairs = cells.uns["eqtl"]["pairs"]
    pairs["gene"] = pd.Categorical(["ENSG00000100000"] * len(pairs))
    cells.layers["logcounts_of_cells"] = cells.layers["log"]
    cells.uns["eqtl"]["params"]["layer"] = "logcounts_of_cells"
    return cells, genotype


@pytest.mark.parametrize(
    ("size", "place"),
    [((3, 2.4), "left"), ((3, 2.4), "middle"), ((3, 2.4), "right"), ((6, 4), "middle"), ((10, 5), "left")],
)
def test_long_names_stay_inside(size, place):
    cells, genotype = long_names()
    start = {"left": 1_001_000, "middle": 1_190_000, "right": 1_385_000}[place]
    cells.var["start"], cells.var["end"] = start, start + 4_000
    with plt.style.context("default"):
        fig, axes = plt.subplots(2, 2, figsize=(2 * size[0], 2 * size[1]), layout="constrained")
        for ax in axes[:, 0]:
            al.pl.eqtl(cells, genotype, "ENSG00000100000", ax=ax)
        for ax in axes[:, 1]:
            al.pl.locus(cells, genotype, "ENSG00000100000", ax=ax)
        fig.canvas.draw()
    renderer = fig.canvas.get_renderer()
    boxes = {}
    for ax in axes.ravel():
        texts = [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts, *ax.get_xticklabels()]
        for text in texts:
            if text.get_visible() and text.get_text():
                boxes[ax, text] = text.get_window_extent(renderer)
    for (ax, text), box in boxes.items():
        frame = ax.get_window_extent(renderer)
        assert fig.bbox.x0 <= box.x0 < box.x1 <= fig.bbox.x1, text
        assert fig.bbox.y0 <= box.y0 < box.y1 <= fig.bbox.y1, text
        if text in ax.texts:
            assert frame.x0 - 1 <= box.x0 < box.x1 <= frame.x1 + 1, text
        if text is ax.yaxis.label:
            assert frame.y0 - 1 <= box.y0 < box.y1 <= frame.y1 + 1, text
        assert text.get_fontsize() >= 6
    for ax in axes.ravel():
        assert not overlap(ax, [text for one, text in boxes if one is ax])
    names = [t.get_text() for t in axes[0, 1].texts if "ENSG" in t.get_text()]
    assert names == ["ENSG00000100000 →"]
    # Of the lead's own label, no part lies on its diamond, nor on the line of the gene's start.
    ax = axes[0, 1]
    lead = next(t for t in ax.texts if t.get_text() == "rs0").get_window_extent(renderer)
    x, y = ax.transData.transform(lead_xy := scatters(ax)[-1].get_offsets()[0])
    r = 0.5 * np.sqrt(scatters(ax)[-1].get_sizes()[0]) * fig.dpi / 72
    assert lead_xy[0] == 1_000_000
    assert not (lead.x0 < x + r and lead.x1 > x - r and lead.y0 < y + r and lead.y1 > y - r)
    if place != "left":
        assert not lead.x0 < ax.transData.transform((start, 0))[0] < lead.x1


def test_text_that_the_user_sets_stays():
    _, cells, genotype = study()
    ax = al.pl.eqtl(cells, genotype, "g0", ax=plt.subplots(figsize=(2.5, 2.2), layout="constrained")[1])
    ax.figure.canvas.draw()
    assert ax.get_title().count("\n") > 1
    ax.set_title("mine and mine alone, however long it is")
    ax.yaxis.label.set_fontsize(12)
    ax.figure.canvas.draw()
    assert ax.get_title() == "mine and mine alone, however long it is"
    assert ax.yaxis.label.get_fontsize() == 12
    # In a larger figure the texts are whole again.
    ax = al.pl.eqtl(cells, genotype, "g0", ax=plt.subplots(figsize=(2.5, 2.2), layout="constrained")[1])
    whole, size = ax.get_title(), ax.yaxis.label.get_fontsize()
    ax.figure.canvas.draw()
    assert ax.yaxis.label.get_fontsize() < size
    ax.figure.set_size_inches(8, 6)
    ax.figure.canvas.draw()
    assert (ax.get_title(), ax.yaxis.label.get_fontsize()) == (whole, size)


def test_figures_can_be_pickled():
    import pickle

    _, cells, genotype = study()
    for plot in (al.pl.eqtl, al.pl.locus):
        figure = plot(cells, genotype, "g0").figure
        figure.canvas.draw()
        pickle.loads(pickle.dumps(figure)).canvas.draw()
