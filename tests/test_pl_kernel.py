"""The picture of a kernel: values, order and eigenvalues."""

from __future__ import annotations

import itertools

import matplotlib

matplotlib.use("agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import annlmm as al
from annlmm._slots.kernel import read_basis
from annlmm.pl._kernel_order import averaged, hierarchical_order


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cohort() -> ad.AnnData:
    adata = al.datasets.gwas_cohort(n_obs=120, n_vars=300)
    al.pp.kernel_grm(adata)
    adata.obs["site"] = pd.Categorical(np.array(["north", "south", "west"])[np.arange(120) % 3])
    return adata


def cells(n=200, n_donors=7, seed=0, relatedness=False) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    donor = rng.integers(0, n_donors, n)
    adata = ad.AnnData(np.zeros((n, 2), dtype=np.float32), obs=pd.DataFrame(index=[f"c{i}" for i in range(n)]))
    adata.obs["donor"] = [f"d{i}" for i in donor]
    related = None
    if relatedness:
        z = rng.normal(size=(n_donors, 30))
        z[1::2] += 2 * rng.normal(size=30)
        names = [f"d{i}" for i in range(n_donors)]
        related = pd.DataFrame(z @ z.T / 30, index=names, columns=names)
    al.pp.kernel_group(adata, "donor", relatedness=related)
    return adata


def drawn(ax) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def test_few_observations_are_drawn_one_by_one(cohort):
    k = al.get.kernel(cohort).to_numpy()
    ax = al.pl.kernel(cohort, order="obs")
    # Sums of 120 products of eigenvectors, in another order: round-off of some 1e-15 of the largest eigenvalue.
    np.testing.assert_allclose(drawn(ax), k, atol=1e-12 * np.abs(k).max() * 120)
    order = hierarchical_order(read_basis(cohort, "kernel", np.arange(120)))
    assert sorted(order) == list(range(120))
    np.testing.assert_allclose(drawn(al.pl.kernel(cohort)), k[np.ix_(order, order)], atol=1e-10)


def test_colours_end_off_the_diagonal(cohort):
    ax = al.pl.kernel(cohort)
    k = drawn(ax)
    limit = np.quantile(np.abs(k[~np.eye(120, dtype=bool)]), 0.995)
    np.testing.assert_allclose(ax.images[0].get_clim(), (-limit, limit))
    assert ax.images[0].get_cmap().name == "RdBu_r"
    assert al.pl.kernel(cohort, limit=0.3, cmap="PuOr").images[0].get_clim() == (-0.3, 0.3)
    image = al.pl.kernel(cells()).images[0]
    assert image.get_clim() == pytest.approx((0.0, 1.0))
    assert image.get_cmap().name == "viridis"


@pytest.mark.parametrize("relatedness", [False, True])
def test_means_over_blocks(relatedness):
    adata = cells(1000, relatedness=relatedness)
    k = al.get.kernel(adata).to_numpy()
    basis = read_basis(adata, "kernel", np.arange(1000))
    order = hierarchical_order(basis)
    edges = np.array([0, 13, 200, 201, 1000])
    expected = np.array(
        [
            [k[np.ix_(order[a:b], order[c:d])].mean() for c, d in itertools.pairwise(edges)]
            for a, b in itertools.pairwise(edges)
        ]
    )
    np.testing.assert_allclose(averaged(basis, order, edges), expected, atol=1e-12)
    ax = al.pl.kernel(adata)
    assert drawn(ax).shape == (600, 600)
    assert ax.images[0].get_extent() == [0, 1000, 1000, 0]
    assert ax.get_xlabel() == "1,000 observations"


def test_alike_ones_stand_together():
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 5, 2500)
    adata = ad.AnnData(np.zeros((2500, 1), dtype=np.float32))
    adata.obsm["X_pca"] = 20 * rng.normal(size=(5, 6))[cluster] + rng.normal(size=(2500, 6))
    al.pp.kernel_linear(adata, "X_pca")
    # More than are clustered, so that the rest stands beside its nearest.
    order = hierarchical_order(read_basis(adata, "kernel", np.arange(2500)))
    assert sorted(order) == list(range(2500))
    assert (np.diff(cluster[order]) != 0).sum() == 4


def test_groups_stand_together_and_are_named(cohort):
    adata = cells()
    ax = al.pl.kernel(adata)
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"d{i}" for i in range(7)]
    counts = adata.obs["donor"].value_counts().sort_index().to_numpy()
    np.testing.assert_allclose(ax.get_yticks(), np.cumsum(counts) - counts / 2)
    blocks = np.repeat(np.arange(7), counts)
    np.testing.assert_allclose(drawn(ax), blocks[:, None] == blocks, atol=1e-12)
    ax = al.pl.kernel(cohort, groupby="site")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["north", "south", "west"]
    k = al.get.kernel(cohort).to_numpy()
    sites = (cohort.obs["site"] == "north").to_numpy()
    assert drawn(ax)[:40, :40].sum() == pytest.approx(k[np.ix_(sites, sites)].sum())


def test_related_groups_follow_the_tree():
    adata = cells(300, relatedness=True)
    names = [t.get_text() for t in al.pl.kernel(adata).get_yticklabels()]
    assert sorted(names) == [f"d{i}" for i in range(7)]
    odd = [int(name[1]) % 2 for name in names]
    assert np.abs(np.diff(odd)).sum() == 1
    ax = al.pl.kernel(adata, order="obs")
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"d{i}" for i in range(7)]


def test_rows_without_a_group_are_left_out_and_others_are_missing(cohort):
    adata = cells()
    adata.obs.loc["c3", "donor"] = np.nan
    assert drawn(al.pl.kernel(adata)).shape == (199, 199)
    other = cohort.copy()
    other.obs.loc[other.obs_names[:5], "site"] = np.nan
    ax = al.pl.kernel(other, groupby="site")
    assert [t.get_text() for t in ax.get_yticklabels()][-1] == "missing"


def test_many_groups_are_counted():
    ax = al.pl.kernel(cells(2000, n_donors=150))
    assert ax.get_ylabel() == "150 groups"
    assert len(ax.get_yticks()) == 0


def test_a_subset_is_the_kernel_of_its_rows(cohort):
    part = cohort[np.arange(119, 60, -1)].copy()
    ax = al.pl.kernel(part, order="obs")
    np.testing.assert_allclose(drawn(ax), al.get.kernel(part).to_numpy(), atol=1e-10)


def test_eigenvalues(cohort):
    ax = al.pl.kernel(cohort)
    scree = ax.figure.axes[1]
    s = cohort.uns["kernel"]["eigenvalues"]
    np.testing.assert_allclose(scree.lines[0].get_ydata(), s)
    most = int(np.searchsorted(np.cumsum(s) / s.sum(), 0.9)) + 1
    assert scree.get_title() == f"Eigenvalues: {s.size},\n90 % of the trace in {most}"
    assert (scree.get_xscale(), scree.get_yscale()) == ("log", "log")
    few = al.pl.kernel(cells()).figure.axes[1]
    assert (few.get_xscale(), few.get_yscale()) == ("linear", "linear")
    assert len(al.pl.kernel(cohort, scree=False).figure.axes) == 2


def test_ten_thousand_observations_need_no_matrix(monkeypatch):
    rng = np.random.default_rng(0)
    adata = ad.AnnData(np.zeros((10_000, 1), dtype=np.float32))
    adata.obsm["X_pca"] = rng.normal(size=(10_000, 5))
    al.pp.kernel_linear(adata, "X_pca")
    monkeypatch.setattr(al.settings, "kernel_memory", 2**22)
    with pytest.raises(MemoryError):
        al.get.kernel(adata)
    assert drawn(al.pl.kernel(adata)).shape == (600, 600)


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_axes_of_any_kind(cohort, style):
    before = cohort.copy()
    with plt.style.context(style):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3))
        assert al.pl.kernel(cohort, ax=axes[0]) is axes[0]
        figure.canvas.draw()
        scree = figure.axes[2]
        assert axes[0].get_position().x1 < scree.get_position().x0
        assert scree.get_position().x1 < axes[1].get_position().x0
        figure = plt.figure()
        free = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        assert al.pl.kernel(cohort, ax=free) is free
        figure.canvas.draw()
        assert figure.axes[1].get_position().x1 == pytest.approx(0.9)
        figure = plt.figure(layout="constrained")
        ax = figure.subfigures(1, 2)[1].add_subplot()
        assert al.pl.kernel(cohort, ax=ax) is ax
        figure.canvas.draw()
    pd.testing.assert_frame_equal(cohort.obs, before.obs)
    np.testing.assert_array_equal(cohort.obsm["kernel"], before.obsm["kernel"])


def test_errors(cohort):
    with pytest.raises(KeyError, match="kernel='grm': not in adata.uns; make one first"):
        al.pl.kernel(cohort, "grm")
    with pytest.raises(KeyError, match="groupby='sites': no such column in adata.obs; did you mean 'site'"):
        al.pl.kernel(cohort, groupby="sites")
    with pytest.raises(ValueError, match="groupby='age': holds .* different numbers, not groups"):
        al.pl.kernel(cohort, groupby="age")
    with pytest.raises(ValueError, match="order='none': expected 'hierarchical' or 'obs'"):
        al.pl.kernel(cohort, order="none")
    with pytest.raises(ValueError, match="limit=0: expected a positive value"):
        al.pl.kernel(cohort, limit=0)
    with pytest.raises(TypeError, match="ax: must be matplotlib Axes"):
        al.pl.kernel(cohort, ax=3)
    spots = al.datasets.spatial(100)
    al.pp.kernel_rbf(spots, "spatial", length_scale=[50.0, 100.0], key_added="scales")
    with pytest.raises(ValueError, match="kernel='scales': is a family of 2 kernels"):
        al.pl.kernel(spots, "scales")
