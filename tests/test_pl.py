"""Plots: what is drawn where, checked on the artists."""

from __future__ import annotations

import itertools
import subprocess
import sys

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import PathCollection
from scipy import stats

import annlmm as al
from annlmm.pl._genome import lay_out, sort_chromosomes
from annlmm.pl._manhattan import find_loci
from annlmm.pl._qq import genomic_inflation, null_band
from annlmm.pl._reml_profile import describe_fit, trace_profile
from annlmm.pl._thin import thin_cloud, thin_curve


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def scan(neg_log10, *, key="lmm", **columns) -> AnnData:
    """Results as `al.tl.associate` leaves them."""
    neg_log10 = np.asarray(neg_log10, dtype=float)
    var = pd.DataFrame(columns, index=[f"rs{i}" for i in range(neg_log10.size)])
    var[f"{key}_p_value"] = 10.0**-neg_log10
    var[f"{key}_neg_log10_p_value"] = neg_log10
    return AnnData(np.zeros((2, neg_log10.size), dtype=np.float32), var=var)


def genome(m=2000, n_chrom=5, seed=0, hits=()) -> AnnData:
    """Uniform p-values on chromosomes of 100 Mb, and hits (index, −log10 p)."""
    rng = np.random.default_rng(seed)
    values = -np.log10(rng.uniform(size=m))
    for index, value in hits:
        values[index] = value
    per = -(-m // n_chrom)
    chrom = np.repeat([str(i + 1) for i in range(n_chrom)], per)[:m]
    pos = np.tile(np.linspace(1, 1e8, per).astype(int), n_chrom)[:m]
    return scan(values, chrom=chrom, pos=pos)


def several(m=3000) -> AnnData:
    """Results of three phenotypes, the second with other rows untested."""
    p = np.random.default_rng(1).uniform(size=(m, 3))
    p[:, 2] **= 2
    p[:500, 1] = np.nan
    adata = AnnData(np.zeros((2, m), dtype=np.float32), var=pd.DataFrame(index=[f"rs{i}" for i in range(m)]))
    adata.varm["lmm_p_value"] = p
    adata.varm["lmm_neg_log10_p_value"] = -np.log10(p)
    adata.uns["lmm"] = {"phenotypes": np.array(["height", "weight", "cost in $"])}
    return adata


def points(ax) -> np.ndarray:
    """All points of the scatters, in order of drawing."""
    return np.vstack([c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)])


def labels_of(ax) -> list:
    return [t for t in ax.texts if t.get_visible() and t.get_text().startswith(("rs", "GENE", "chr", "$"))]


def texts_of(ax) -> set[str]:
    return {t.get_text() for t in labels_of(ax)}


def legend_texts(ax) -> list[str]:
    return [t.get_text() for t in ax.get_legend().get_texts()]


def x_ticks(ax) -> list[str]:
    ax.figure.canvas.draw()
    return [t.get_text() for t in ax.get_xticklabels()]


def boxes(ax, artists):
    renderer = ax.figure.canvas.get_renderer()
    return [a.get_window_extent(renderer) for a in artists]


# --- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", [al.pl.qq, al.pl.manhattan])
def test_missing_results_name_the_remedy(plot):
    adata = AnnData(np.zeros((2, 3)))
    message = r"key='de': adata.var has no column 'de_p_value'; run al.tl.differential\(adata, term\) first"
    with pytest.raises(KeyError, match=message):
        plot(adata, "de")


@pytest.mark.parametrize("plot", [al.pl.qq, al.pl.manhattan])
def test_nothing_tested(plot):
    with pytest.raises(ValueError, match=r"none of the 4 features has a p-value; adata.var\['lmm_status'\] says why"):
        plot(scan(np.full(4, np.nan)))


def test_phenotype_must_be_chosen_for_manhattan():
    with pytest.raises(
        ValueError, match="phenotype=None: key='lmm' has 3 phenotypes .*choose one, e.g. phenotype='height'"
    ):
        al.pl.manhattan(several())


def test_unknown_phenotype():
    with pytest.raises(KeyError, match="phenotype='bmi': not among those of key='lmm'; known: 'height', 'weight'"):
        al.pl.manhattan(several(), phenotype="bmi")
    with pytest.raises(KeyError, match="phenotype='bmi': key='lmm' holds one phenotype; leave phenotype=None"):
        al.pl.manhattan(genome(), phenotype="bmi")


def test_phenotype_names_missing():
    adata = several()
    del adata.uns["lmm"]
    with pytest.raises(KeyError, match=r"adata.uns\['lmm'\]\['phenotypes'\] with their names is missing"):
        al.pl.qq(adata)


def test_phenotype_selects_its_column():
    adata = several()
    ax = al.pl.manhattan(adata, phenotype="weight", thin=False)
    drawn = points(ax)
    np.testing.assert_array_equal(drawn[:, 0], np.arange(500, 3000))
    np.testing.assert_array_equal(drawn[:, 1], adata.varm["lmm_neg_log10_p_value"][500:, 1])
    assert ax.get_title() == "weight"


def test_p_values_alone_suffice():
    adata = genome(100)
    del adata.var["lmm_neg_log10_p_value"]
    np.testing.assert_allclose(
        np.sort(points(al.pl.manhattan(adata))[:, 1]), np.sort(-np.log10(adata.var["lmm_p_value"])), rtol=1e-14
    )


def test_p_of_zero_is_reported():
    adata = genome(100)
    adata.var["lmm_p_value"] = np.where(np.arange(100) < 2, 0.0, adata.var["lmm_p_value"])
    del adata.var["lmm_neg_log10_p_value"]
    with pytest.warns(UserWarning, match="key='lmm': 2 features have p = 0 exactly"):
        ax = al.pl.manhattan(adata)
    assert len(points(ax)) == 98


def test_p_below_the_smallest_float_is_drawn():
    adata = genome(500, hits=[(7, 400.0)])
    assert adata.var["lmm_p_value"].iloc[7] == 0.0
    for plot in (al.pl.qq, al.pl.manhattan):
        ax = plot(adata)
        assert points(ax)[:, 1].max() == 400.0
        assert ax.get_ylim()[1] > 400.0


def test_import_is_light():
    code = "import sys, annlmm.pl; print([m for m in ('matplotlib.pyplot', 'matplotlib.axes', 'seaborn') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --- thinning ----------------------------------------------------------------------------------------------------------


def test_thin_cloud_keeps_the_top_and_every_cell():
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 3e9, 200_000), rng.exponential(size=200_000)
    chosen = thin_cloud(x, y, keep=500, shape=(100, 50))
    assert np.all(np.diff(chosen) > 0)
    assert chosen.size <= 500 + 100 * 50
    assert set(np.argsort(y)[-500:]) <= set(chosen)

    def cells(i):
        return set(
            zip(
                ((x[i] - x.min()) * (99 / np.ptp(x))).astype(int),
                ((y[i] - y.min()) * (49 / np.ptp(y))).astype(int),
                strict=True,
            )
        )

    assert cells(chosen) == cells(np.arange(x.size))


def test_thin_cloud_of_few_or_equal_points():
    assert thin_cloud(np.arange(5.0), np.arange(5.0)).tolist() == [0, 1, 2, 3, 4]
    same = np.ones(100)
    assert np.isin(thin_cloud(same, same, keep=3), np.arange(100)).all()


def test_thin_curve_keeps_the_top_and_leaves_no_gap():
    y = np.sort(np.random.default_rng(3).exponential(size=300_000))[::-1]
    x = -np.log10(np.arange(1, y.size + 1) / (y.size + 1))
    chosen = thin_curve(x, y, keep=100, shape=(400, 400))
    assert chosen[:100].tolist() == list(range(100))
    assert chosen[-1] == y.size - 1
    assert chosen.size <= 100 + 800
    # Two neighbours are never more than a cell apart unless they are neighbours in the data.
    jump = (np.abs(np.diff(x[chosen])) > 2 * np.ptp(x) / 399) & (np.diff(chosen) > 1)
    assert not jump.any()


@pytest.mark.parametrize("plot", [al.pl.qq, al.pl.manhattan])
def test_thinning_never_moves_points(plot):
    adata = genome(150_000, seed=4)
    thinned, full = points(plot(adata)), points(plot(adata, thin=False))
    assert len(full) == 150_000
    assert len(thinned) < 100_000
    assert set(map(tuple, thinned)) <= set(map(tuple, full))
    top = np.sort(full[:, 1])[-1000:]
    np.testing.assert_array_equal(np.sort(thinned[:, 1])[-1000:], top)


def test_many_points_are_rasterised():
    many, few = (al.pl.manhattan(genome(m)) for m in (50_000, 500))
    assert many.collections[0].get_rasterized()
    assert not few.collections[0].get_rasterized()


# --- qq ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 999, 1000])
def test_inflation_is_the_ratio_of_medians(m):
    p = np.random.default_rng(m).beta(0.8, 1.0, size=m)
    expected = np.median(stats.chi2.isf(p, 1)) / stats.chi2.ppf(0.5, 1)
    assert genomic_inflation(-np.log10(p)) == pytest.approx(expected, rel=1e-10)
    al.pl.qq(scan(-np.log10(p)))


def test_inflation_beyond_the_smallest_float():
    # χ²₁ tail: log p = −χ²/2 − ½log(πχ²/2) (1 + O(1/χ²)).
    chi_sq = genomic_inflation(np.array([1000.0])) * stats.chi2.ppf(0.5, 1)
    assert -chi_sq / 2 - 0.5 * np.log(np.pi * chi_sq / 2) == pytest.approx(-1000 * np.log(10), rel=1e-6)


def test_band_is_exact_at_the_ends():
    x, low, high = null_band(1000, 0.9)
    # The smallest of m: P(p₁ > t) = (1 − t)^m; the largest: t^m.
    assert 10.0 ** -high[0] == pytest.approx(1 - 0.95 ** (1 / 1000), rel=1e-9)
    assert 10.0 ** -low[0] == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-9)
    assert 10.0 ** -low[-1] == pytest.approx(0.95 ** (1 / 1000), rel=1e-9)
    assert x[0] == pytest.approx(np.log10(1001))
    assert np.all(low < high)


@pytest.mark.parametrize("coverage", [0.95, 0.8])
def test_band_covers_as_it_says(coverage):
    m, n = 200, 4000
    x, low, high = null_band(m, coverage)
    rank = np.rint(10.0**-x * (m + 1)).astype(int)
    observed = -np.log10(np.sort(np.random.default_rng(5).uniform(size=(n, m)), axis=1))[:, rank - 1]
    covered = ((observed >= low) & (observed <= high)).mean(axis=0)
    # Five binomial standard errors, for some 100 ranks.
    assert np.abs(covered - coverage).max() < 5 * np.sqrt(coverage * (1 - coverage) / n)


def test_band_of_ten_million_is_finite():
    assert all(np.isfinite(part).all() for part in null_band(10_000_000, 0.95))


def test_qq_positions_and_legend():
    p = np.array([0.5, 0.001, np.nan, 0.2, 0.9])
    ax = al.pl.qq(scan(-np.log10(p)))
    drawn = points(ax)
    np.testing.assert_allclose(drawn[:, 0], -np.log10(np.array([1, 2, 3, 4]) / 5))
    np.testing.assert_allclose(drawn[:, 1], -np.log10([0.001, 0.2, 0.5, 0.9]))
    first, second = legend_texts(ax)
    inflation = np.median(stats.chi2.isf([0.5, 0.001, 0.2, 0.9], 1)) / stats.chi2.ppf(0.5, 1)
    assert first.endswith(f" = {inflation:.3f}")
    assert second == "95 % null band"


def test_qq_without_band():
    ax = al.pl.qq(genome(), band=None)
    assert len(legend_texts(ax)) == 1
    assert [type(c) for c in ax.collections] == [PathCollection]


@pytest.mark.parametrize("band", [0, 1, 95, -0.1])
def test_qq_band_is_a_probability(band):
    with pytest.raises(ValueError, match=rf"band={band}: expected a coverage in \(0, 1\)"):
        al.pl.qq(genome(), band=band)


def test_qq_overlays_keys():
    adata = genome(1000)
    for key in ("a", "b"):
        adata.var[f"{key}_p_value"] = adata.var["lmm_p_value"]
    ax = al.pl.qq(adata, ["lmm", "a", "b"], label=["LMM", "OLS", "cost in $"], color="viridis")
    texts = legend_texts(ax)
    assert [t.split(":")[0] for t in texts[:3]] == ["LMM", "OLS", r"cost in \$"]
    scatters = [c for c in ax.collections if isinstance(c, PathCollection)]
    assert len({tuple(c.get_facecolor()[0]) for c in scatters}) == 3
    assert legend_texts(al.pl.qq(adata, ["lmm", "a"]))[1].startswith("a: ")


def test_qq_overlays_phenotypes():
    ax = al.pl.qq(several())
    scatters = [c for c in ax.collections if isinstance(c, PathCollection)]
    assert len(scatters) == 3
    # The first expected value is log10(m + 1), with m that phenotype's own number of tests.
    np.testing.assert_allclose([c.get_offsets()[0, 0] for c in scatters], np.log10([3001, 2501, 3001]))
    assert [t.split(":")[0] for t in legend_texts(ax)[:3]] == ["height", "weight", r"cost in \$"]
    ax.figure.canvas.draw()


def test_qq_refuses_what_does_not_match():
    adata = several()
    with pytest.raises(ValueError, match="label: received 1 for 3 series"):
        al.pl.qq(adata, label="x")
    with pytest.raises(ValueError, match="color: received 2 for 3 series"):
        al.pl.qq(adata, color=["r", "b"])
    with pytest.raises(ValueError, match="color='blurple' is neither a colour nor the name of a colormap"):
        al.pl.qq(adata, color="blurple")
    with pytest.raises(ValueError, match=r"key=\[\]: expected at least one key"):
        al.pl.qq(adata, [])
    adata.varm["lmm_p_value"] = np.ones((adata.n_vars, 11))
    adata.uns["lmm"] = {"phenotypes": np.array([f"p{i}" for i in range(11)])}
    with pytest.raises(ValueError, match="11 series in one picture cannot be told apart; choose at most 10"):
        al.pl.qq(adata)


# --- genome ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "X", "2", "MT", "1", "Y"], ["1", "2", "10", "X", "Y", "MT"]),
        (["scaffold_10", "2", "scaffold_9", "X"], ["2", "X", "scaffold_9", "scaffold_10"]),
        (["V", "IX", "II", "I", "X", "IV", "XVI", "MT", "III"], ["I", "II", "III", "IV", "V", "IX", "X", "XVI", "MT"]),
        (["3R", "2R", "X", "2L", "4", "3L"], ["2L", "2R", "3L", "3R", "4", "X"]),
        (["W", "Z", "1"], ["1", "Z", "W"]),
    ],
)
def test_chromosomes_sort_naturally(names, expected):
    assert sort_chromosomes(names) == expected


@pytest.mark.parametrize("kind", ["object", "category", "string"])
def test_chromosomes_stand_in_order(kind):
    adata = scan(np.ones(6), chrom=["chr10", "chrX", "chr2", "chr1", "chrMT", "chr2"], pos=[5, 5, 9, 5, 5, 1])
    adata.var["chrom"] = adata.var["chrom"].astype(kind)
    layout = lay_out(adata.var, np.arange(6), "chrom", "pos")
    assert layout.names == ["1", "2", "10", "X", "MT"]
    assert np.argsort(layout.x).tolist() == [3, 5, 2, 0, 1, 4]
    assert np.all(layout.starts[1:] > layout.stops[:-1])


def test_integer_chromosomes():
    layout = lay_out(scan(np.ones(3), chrom=[10, 2, 1], pos=[1, 1, 1]).var, np.arange(3), "chrom", "pos")
    assert layout.names == ["1", "2", "10"]


def test_ordered_categories_are_respected():
    adata = scan(
        np.ones(3), chrom=pd.Categorical(["a", "b", "c"], categories=["c", "a", "b"], ordered=True), pos=[1, 1, 1]
    )
    assert lay_out(adata.var, np.arange(3), "chrom", "pos").names == ["c", "a", "b"]


def test_distances_are_base_pairs():
    adata = scan(np.ones(12), chrom=["1"] * 6 + ["2"] * 6, pos=[10, 20, 40, 50, 60, 110] * 2)
    x = lay_out(adata.var, np.arange(12), "chrom", "pos").x
    for part in (x[:6], x[6:]):
        np.testing.assert_allclose(np.diff(part), [10, 20, 10, 10, 50])


def test_untested_chromosomes_take_no_room():
    values = np.ones(20)
    values[10:] = np.nan
    adata = scan(values, chrom=["1"] * 10 + ["2"] * 10, pos=list(range(10)) * 2)
    assert al.pl.manhattan(adata).get_xlabel() == "Chromosome 1 (bp)"


def test_features_without_a_place_come_last():
    adata = scan(np.ones(8), chrom=["1", "0", None, "2", "2", "1", "1", "2"], pos=[1.0, 0, 3, 4, np.nan, 8, 9, 9])
    with pytest.warns(UserWarning, match="3 of 8 tested features have no place in .* drawn last, as chromosome '\\?'"):
        ax = al.pl.manhattan(adata)
    assert x_ticks(ax) == ["1", "2", "?"]
    assert len(points(ax)) == 8


def test_order_of_var_without_chromosomes():
    ax = al.pl.manhattan(scan(np.arange(1.0, 6.0)))
    np.testing.assert_array_equal(np.sort(points(ax)[:, 0]), np.arange(5))
    assert ax.get_xlabel() == "Feature (order of adata.var)"
    assert al.pl.manhattan(genome(), chrom=None).get_xlabel() == "Feature (order of adata.var)"


def test_genes_have_starts():
    adata = scan(np.ones(4), chrom=["1", "1", "2", "2"], start=[5, 50, 5, 50])
    assert np.diff(np.sort(points(al.pl.manhattan(adata))[:, 0]))[0] == 45


def test_wrong_columns_are_named():
    with pytest.raises(KeyError, match="chrom='seqname': adata.var has no such column .*pass chrom=None"):
        al.pl.manhattan(genome(), chrom="seqname")
    with pytest.raises(KeyError, match="pos='bp': adata.var has no such column"):
        al.pl.manhattan(genome(), pos="bp")
    adata = genome()
    adata.var["pos"] = adata.var["pos"].astype(str)
    with pytest.raises(TypeError, match=r"pos='pos': adata.var\['pos'\] has dtype .*pandas.to_numeric"):
        al.pl.manhattan(adata)


# --- manhattan ---------------------------------------------------------------------------------------------------------


def test_colours_alternate():
    adata = genome(500, n_chrom=5)
    ax = al.pl.manhattan(adata, palette=["red", "blue"])
    red, blue = ax.collections[:2]
    assert len(red.get_offsets()) == 300
    assert len(blue.get_offsets()) == 200
    with pytest.raises(ValueError, match="palette: received 'blurple', which is not a colour"):
        al.pl.manhattan(adata, palette=["red", "blurple"])


def heights(ax) -> list[float]:
    return sorted(float(line.get_ydata()[0]) for line in ax.lines)


def test_thresholds():
    np.testing.assert_allclose(heights(al.pl.manhattan(genome(2000))), -np.log10([1 / 2000, 0.05 / 2000]))
    adata = genome(100)
    assert heights(al.pl.manhattan(adata, threshold=None, suggestive=None)) == []
    ax = al.pl.manhattan(adata, threshold=5e-8, suggestive=None)
    np.testing.assert_allclose(heights(ax), -np.log10(5e-8))
    assert ax.get_ylim()[1] > -np.log10(5e-8)
    assert [t.get_text() for t in ax.texts] == ["5e-8"]


def test_auto_threshold_is_that_of_the_human_genome_for_dense_scans():
    adata = scan(np.random.default_rng(0).exponential(size=1_200_000) / np.log(10))
    np.testing.assert_allclose(heights(al.pl.manhattan(adata)), -np.log10([1e-6, 5e-8]))


@pytest.mark.parametrize("value", [0, -1.0, 7.3, "bonferroni"])
def test_thresholds_are_p_values(value):
    with pytest.raises(ValueError, match=f"threshold={value!r}: expected a p-value"):
        al.pl.manhattan(genome(), threshold=value)


def test_texts_of_close_lines_do_not_overlap():
    ax = al.pl.manhattan(genome(500, hits=[(3, 400.0)]))
    ax.figure.canvas.draw()
    upper, lower = boxes(ax, [t for t in ax.texts if not t.get_text().startswith("rs")])
    assert upper.y0 >= lower.y1 - 1e-6


def test_one_label_per_locus():
    adata = genome(2000, hits=[(100, 30.0), (101, 20.0), (300, 25.0), (500, 12.0)])
    assert texts_of(al.pl.manhattan(adata)) == {"rs100", "rs300", "rs500"}
    assert texts_of(al.pl.manhattan(adata, n_labels=2)) == {"rs100", "rs300"}
    assert texts_of(al.pl.manhattan(adata, label_window=0)) == {"rs100", "rs101", "rs300", "rs500"}
    assert texts_of(al.pl.manhattan(adata, n_labels=0)) == set()
    assert texts_of(al.pl.manhattan(adata, threshold=1e-15)) == {"rs100", "rs300"}
    assert len(labels_of(al.pl.manhattan(genome(2000), threshold=None, n_labels=3))) == 3


def test_loci_end_at_chromosomes():
    x, block, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1]), np.array([5.0, 9.0, 8.0, 7.0])
    assert find_loci(x, block, y, minimum=None, window=10.0, count=9).tolist() == [1, 2]
    assert find_loci(x, block, y, minimum=None, window=0.0, count=9).tolist() == [1, 2, 3, 0]
    assert find_loci(x, block, y, minimum=99.0, window=0.0, count=9).tolist() == []


def test_label_text_comes_from_a_column():
    adata = genome(2000, hits=[(100, 30.0), (300, 25.0), (500, 12.0)])
    adata.var["gene"] = ["."] * 2000
    adata.var.iloc[100, adata.var.columns.get_loc("gene")] = "GENE$A$"
    adata.var.iloc[300, adata.var.columns.get_loc("gene")] = None
    ax = al.pl.manhattan(adata, labels="gene")
    assert texts_of(ax) == {"GENE$A$", "rs300", "rs500"}
    ax.figure.canvas.draw()
    with pytest.raises(KeyError, match="labels='symbol': adata.var has no such column"):
        al.pl.manhattan(adata, labels="symbol")


@pytest.mark.parametrize("figsize", [(4, 2), (7, 3), (14, 5)])
@pytest.mark.parametrize("width", [4, 60])
@pytest.mark.parametrize("dpi", [60, 200])
def test_labels_never_overlap_nor_leave_the_axes(figsize, width, dpi):
    rng = np.random.default_rng(6)
    hits = [(int(i), float(v)) for i, v in zip(rng.choice(5000, 30), rng.uniform(8, 40, 30), strict=True)]
    adata = genome(5000, n_chrom=22, hits=[*hits, (0, 39.0), (4999, 41.0)])
    adata.var["gene"] = [f"GENE{i}".ljust(width, "G") for i in range(5000)]
    ax = al.pl.manhattan(adata, labels="gene", n_labels=20, ax=plt.figure(figsize=figsize, dpi=dpi).add_subplot())
    ax.figure.canvas.draw()
    shown = labels_of(ax)
    assert shown
    if figsize[0] == 14 and width == 4:
        assert len(shown) == 20
    placed = boxes(ax, shown)
    for i, box in enumerate(placed):
        assert not any(box.overlaps(other) for other in placed[:i])
        assert ax.bbox.x0 <= box.x0
        assert box.x1 <= ax.bbox.x1 + 1e-6
        assert box.y1 <= ax.bbox.y1 + 1e-6


def test_labels_that_cannot_be_read_are_left_out():
    # A crowd in a small picture: few labels near their points rather than all of them somewhere.
    adata = genome(20_000, n_chrom=22, hits=[(i * 600, 10.0 + i % 7) for i in range(30)])
    ax = al.pl.manhattan(adata, n_labels=30, ax=plt.figure(figsize=(3, 2)).add_subplot())
    ax.figure.canvas.draw()
    shown = labels_of(ax)
    assert 3 < len(shown) < 25
    for label in shown:
        box = label.get_window_extent()
        x, y = ax.transData.transform(label.xy)
        distance = np.hypot(max(box.x0 - x, x - box.x1, 0), max(box.y0 - y, y - box.y1, 0))
        assert distance <= 5.5 * box.height


def test_labels_follow_the_figure():
    hits = [(i, 20.0 + 0.1 * i) for i in range(0, 400, 40)]
    ax = al.pl.manhattan(genome(400, n_chrom=1, hits=hits), label_window=0)
    ax.figure.canvas.draw()
    wide = len(labels_of(ax))
    ax.figure.set_size_inches(1.6, 1.2)
    ax.figure.canvas.draw()
    assert len(labels_of(ax)) < wide
    ax.figure.set_size_inches(10, 4)
    ax.figure.canvas.draw()
    assert len(labels_of(ax)) == wide == 10
    ax.set_ylim(0, 21.5)
    ax.figure.canvas.draw()
    for box in boxes(ax, [t for t in labels_of(ax) if t.xy[1] < 21.5]):
        assert box.y1 <= ax.bbox.y1 + 1e-6


def test_labels_avoid_points():
    adata = genome(2000, hits=[(1000, 20.0), *((i, 21.0) for i in (994, 995, 996, 1004, 1005, 1006))])
    ax = al.pl.manhattan(adata, n_labels=1)
    ax.figure.canvas.draw()
    (box,) = boxes(ax, labels_of(ax))
    pixels = ax.transData.transform(points(ax))
    assert not box.count_contains(pixels)


@pytest.mark.parametrize("width", [3, 6, 12])
def test_chromosome_ticks_do_not_collide(width):
    names = [str(i) for i in range(1, 23)] + ["X", "Y", "MT"] + [f"GL0000{i}.1" for i in range(20)]
    size = np.r_[np.linspace(250, 50, 22), 155, 57, 0.02, np.full(20, 0.3)] * 1e6
    chrom = np.repeat(names, 20)
    pos = (np.tile(np.linspace(0, 1, 20), len(names)) * np.repeat(size, 20)).astype(int)
    ax = al.pl.manhattan(
        scan(np.ones(chrom.size), chrom=chrom, pos=pos), ax=plt.figure(figsize=(width, 3)).add_subplot()
    )
    shown = x_ticks(ax)
    assert "1" in shown
    assert sort_chromosomes(shown) == shown
    if width == 12:
        assert {str(i) for i in range(1, 15)} | {"X"} <= set(shown)
    placed = boxes(ax, ax.get_xticklabels())
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(placed))
    layout = lay_out(pd.DataFrame({"chrom": chrom, "pos": pos}), np.arange(chrom.size), "chrom", "pos")
    for name, tick in zip(shown, ax.get_xticks(), strict=True):
        inside = layout.x[chrom == name]
        assert inside.min() <= tick <= inside.max()


def test_contigs_alone_are_labelled():
    names = [f"contig_{i}" for i in range(300)]
    ax = al.pl.manhattan(scan(np.ones(600), chrom=np.repeat(names, 2), pos=[1, 100] * 300))
    assert 3 < len(x_ticks(ax)) < 20


def test_highlight():
    adata = genome(300)
    adata.var["causal"] = np.arange(300) % 100 == 0
    for highlight in ("causal", ["rs0", "rs100", "rs200"]):
        drawn = al.pl.manhattan(adata, highlight=highlight).collections[2].get_offsets()
        np.testing.assert_array_equal(drawn[:, 1], adata.var["lmm_neg_log10_p_value"].iloc[[0, 100, 200]])
    assert len(al.pl.manhattan(adata, highlight="rs7").collections[2].get_offsets()) == 1
    with pytest.raises(KeyError, match="highlight: 1 of 2 names are not in adata.var_names: 'rsX'"):
        al.pl.manhattan(adata, highlight=["rs1", "rsX"])
    with pytest.raises(
        TypeError, match=r"highlight='pos': adata.var\['pos'\] has dtype int64; expected a boolean column"
    ):
        al.pl.manhattan(adata, highlight="pos")


def test_given_axes_are_used_and_adata_untouched():
    adata = genome(300)
    before = adata.copy()
    figure, axes = plt.subplots(1, 2)
    assert al.pl.qq(adata, ax=axes[0]) is axes[0]
    assert al.pl.manhattan(adata, ax=axes[1]) is axes[1]
    assert plt.get_fignums() == [figure.number]
    pd.testing.assert_frame_equal(adata.var, before.var)


def test_dark_style():
    with plt.style.context("dark_background"):
        ax = al.pl.manhattan(genome(2000, hits=[(5, 20.0)]))
        assert labels_of(ax)[0].get_color() in ("w", "white", (1.0, 1.0, 1.0, 1.0))


# --- REML profile ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> AnnData:
    adata = al.datasets.gwas_cohort(n_obs=200, n_vars=400)
    al.pp.kernel_grm(adata)
    al.tl.fit_null(adata, "phenotype", covariates=["age", "sex"])
    return adata


def curve_of(ax):
    return max(ax.lines, key=lambda line: len(line.get_xdata()))


def test_profile_is_that_of_the_model(fitted):
    ax = al.pl.reml_profile(fitted)
    x, y = curve_of(ax).get_data()
    model = al.get.null_model(fitted, "lmm")
    inner = (x > 0.01) & (x < 0.99)
    log_gamma = np.log(x[inner]) - np.log1p(-x[inner])
    truth = -np.array([model.compute_neg_log_reml(t) for t in log_gamma])
    # A difference of log-likelihoods, the optimum's being a sum of 200 terms: round-off near 1e-11.
    np.testing.assert_allclose(y[inner], truth + model.compute_neg_log_reml(model.log_gamma), atol=1e-8)
    assert y.max() == pytest.approx(0.0, abs=1e-8)
    assert x[np.argmax(y)] == pytest.approx(fitted.uns["lmm"]["h_sq"])
    assert (y >= -5.0 - 1e-3).all()


def test_profile_states_the_fit(fitted):
    fit = fitted.uns["lmm"]
    ax = al.pl.reml_profile(fitted)
    assert f"{fit['h_sq']:.2f}" in ax.get_title(loc="left")
    assert "95 % CI" in ax.get_title(loc="left")
    shaded = ax.collections[0].get_paths()[0].vertices
    x = curve_of(ax).get_xdata()
    assert shaded[:, 0].min() == pytest.approx(max(fit["h_sq_ci_low"], x[0]))
    assert shaded[:, 0].max() == pytest.approx(min(fit["h_sq_ci_high"], x[-1]))


def test_profile_over_log_gamma(fitted):
    ax = al.pl.reml_profile(fitted, x="log_gamma")
    x, y = curve_of(ax).get_data()
    assert x[np.argmax(y)] == pytest.approx(fitted.uns["lmm"]["log_gamma"])


def test_profile_of_a_boundary_fit(fitted):
    adata = fitted.copy()
    # Residuals of a fit carry no more of the kernel than chance: a permuted phenotype mostly has h² = 0.
    for seed in range(20):
        adata.obs["noise"] = np.random.default_rng(seed).normal(size=adata.n_obs)
        al.tl.fit_null(adata, "noise")
        if adata.uns["lmm"]["h_sq"] == 0.0:
            break
    assert adata.uns["lmm"]["h_sq"] == 0.0
    ax = al.pl.reml_profile(adata)
    assert "(boundary)" in ax.get_title(loc="left")
    marker = next(line for line in ax.lines if line.get_marker() == "o")
    assert (marker.get_xdata()[0], marker.get_ydata()[0]) == (0.0, pytest.approx(0.0, abs=1e-9))
    assert not marker.get_clip_on()
    assert ax.get_xlim()[0] < 0.0
    ax = al.pl.reml_profile(adata, x="log_gamma")
    marker = next(line for line in ax.lines if line.get_marker() == "<")
    assert marker.get_xdata()[0] == pytest.approx(ax.get_xlim()[0])


def test_profile_of_a_given_gamma(fitted):
    adata = fitted.copy()
    al.tl.fit_null(adata, "phenotype", covariates=["age", "sex"], gamma=0.25)
    ax = al.pl.reml_profile(adata)
    assert "(γ given)" in ax.get_title(loc="left")
    marker = next(line for line in ax.lines if line.get_marker() == "o")
    assert marker.get_xdata()[0] == pytest.approx(0.2)
    assert marker.get_ydata()[0] < 0.0
    assert curve_of(ax).get_ydata().max() == pytest.approx(0.0, abs=1e-4)


def test_profile_of_an_ml_fit(fitted):
    adata = fitted.copy()
    al.tl.fit_null(adata, "phenotype", covariates=["age", "sex"], reml=False)
    ax = al.pl.reml_profile(adata)
    assert "(ML)" in ax.get_title(loc="left")
    marker = next(line for line in ax.lines if line.get_marker() == "o")
    assert marker.get_xdata()[0] == pytest.approx(adata.uns["lmm"]["h_sq"])
    # The restricted likelihood has its maximum elsewhere.
    assert -0.5 < marker.get_ydata()[0] < 0.0


def test_profile_of_one_of_several_phenotypes(fitted):
    adata = fitted.copy()
    adata.obs["other"] = adata.obs["phenotype"] + np.random.default_rng(0).normal(size=adata.n_obs)
    al.tl.fit_null(adata, ["phenotype", "other"])
    ax = al.pl.reml_profile(adata, phenotype="other")
    assert ax.get_title(loc="left").startswith(
        f"other: $h^2$ = {adata.uns['lmm']['fits'].loc['other', 'h_sq']:.2f}"[:18]
    )
    with pytest.raises(ValueError, match="phenotype: key='lmm' holds 2; name one of 'phenotype', 'other'"):
        al.pl.reml_profile(adata)
    with pytest.raises(KeyError, match="phenotype='bmi': not among those of key='lmm'"):
        al.pl.reml_profile(adata, phenotype="bmi")


def test_profile_of_a_low_rank_kernel():
    adata = al.datasets.donors(n_donors=6, n_genes=20)
    al.pp.kernel_group(adata, "donor_id")
    al.tl.fit_null(adata, "phenotype")
    x, y = curve_of(al.pl.reml_profile(adata)).get_data()
    assert np.isfinite(y).all()
    assert x[-1] < 1.0


def test_profile_needs_a_kernel(fitted):
    adata = fitted.copy()
    al.tl.fit_null(adata, "phenotype", kernel=None)
    with pytest.raises(ValueError, match="key='lmm': fitted with kernel=None"):
        al.pl.reml_profile(adata)


@pytest.mark.parametrize("x", ["h_sq", "log_gamma"])
@pytest.mark.parametrize(("center", "width"), [(0.0, 1.0), (3.3, 1e-3), (-12.0, 2.0), (9.0, 0.2)])
def test_trace_follows_peaks_of_any_width(center, width, x):
    curve = trace_profile(lambda t: -0.5 * ((np.clip(t, -99, 99) - center) / width) ** 2, center, x=x)
    assert curve.relative.max() == pytest.approx(0.0, abs=1e-6)
    ends = center + np.array([-1, 1]) * width * np.sqrt(10.0)
    expected = ends if x == "log_gamma" else 1 / (1 + np.exp(-ends))
    np.testing.assert_allclose([curve.x[0], curve.x[-1]], expected, rtol=1e-6)
    assert np.all(np.diff(curve.x) > 0)


def test_trace_of_a_flat_profile_reaches_both_ends():
    curve = trace_profile(lambda t: 0.0, 0.0)
    assert (curve.x[0], curve.x[-1]) == (0.0, 1.0)
    assert np.isfinite(trace_profile(lambda t: 0.0, -np.inf, x="log_gamma").x).all()


def test_trace_where_one_end_is_no_model():
    curve = trace_profile(lambda t: -np.inf if t == np.inf else -np.logaddexp(0.0, t), -np.inf)
    assert curve.x[0] == 0.0
    assert curve.at_estimate == pytest.approx(0.0, abs=1e-9)
    assert curve.relative[-1] == pytest.approx(-5.0, abs=1e-6)


def test_describe_fit():
    fit = {
        "h_sq": 0.6088,
        "h_sq_standard_error": 0.0328,
        "h_sq_ci_low": 0.545,
        "h_sq_ci_high": 0.671,
        "h_sq_neg_log10_p_value": 400.0,
    }
    assert describe_fit(fit) == ("$h^2$ = 0.609 ± 0.033", r"95 % CI 0.545–0.671, p = $10^{-400}$")
    boundary = fit | {
        "h_sq": 0.0,
        "h_sq_standard_error": np.nan,
        "h_sq_ci_low": 0.0,
        "h_sq_ci_high": 0.28,
        "h_sq_neg_log10_p_value": 0.0,
    }
    assert describe_fit(boundary | {"status": "boundary"}) == ("$h^2$ = 0.00 (boundary)", "95 % CI 0.00–0.28, p = 1")
    assert describe_fit(fit | {"params": {"reml": False}})[0].endswith("(ML)")


def test_profile_errors(fitted):
    with pytest.raises(KeyError, match="key='null': .*run al.tl.fit_null"):
        al.pl.reml_profile(fitted, "null")
    with pytest.raises(ValueError, match="x='gamma': expected 'h_sq' or 'log_gamma'"):
        al.pl.reml_profile(fitted, x="gamma")
    with pytest.raises(ValueError, match="depth=0: expected a positive difference"):
        al.pl.reml_profile(fitted, depth=0)


# --- with the real scan ------------------------------------------------------------------------------------------------


def test_after_associate(fitted):
    adata = fitted.copy()
    al.tl.associate(adata)
    tested = np.isfinite(adata.var["lmm_p_value"].to_numpy())
    assert len(points(al.pl.manhattan(adata))) == tested.sum()
    assert len(points(al.pl.qq(adata))) == tested.sum()
    ax = al.pl.manhattan(adata, highlight="causal", phenotype="phenotype")
    assert x_ticks(ax) == ["1", "2", "3", "4", "5"]


def test_after_associate_with_several_phenotypes(fitted):
    adata = fitted.copy()
    adata.obs["other"] = np.random.default_rng(0).normal(size=adata.n_obs)
    al.tl.fit_null(adata, ["phenotype", "other"])
    al.tl.associate(adata, key_added="scan")
    assert [t.split(":")[0] for t in legend_texts(al.pl.qq(adata, "scan"))[:2]] == ["phenotype", "other"]
    assert al.pl.manhattan(adata, "scan", phenotype="other").get_title() == "other"
