"""Pictures against stored ones, without text, so that fonts don't matter.

``python tests/test_pl_images.py`` draws the stored ones again; look at them before they are committed.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.legend import Legend
from matplotlib.text import Text
from scipy import stats

import annlmm as al

BASELINE = Path(__file__).parent / "baseline"
SIZE, DPI = (4.0, 3.0), 60
# Root mean square difference of the pixels, of 255. matplotlib 3.9.0 and 3.11.2 draw the same to the last pixel, but for
# images, where the borders of cells move by a pixel (5.5); what `test_the_comparison_sees` changes differs by 5 and more,
# in the image by 44.
TOLERANCE = dict.fromkeys(
    ("qq", "manhattan", "volcano", "heritability", "forest", "variance_components", "reml_profile"), 1.0
) | {"kernel": 8.0}


def uniform(n: int, step: float = 0.6180339887498949) -> np.ndarray:
    """Numbers that look random and are the same wherever they are computed."""
    return (np.arange(1, n + 1) * step) % 1.0


def features(n: int) -> AnnData:
    adata = AnnData(np.zeros((2, n), dtype=np.float32), var=pd.DataFrame(index=[f"rs{i}" for i in range(n)]))
    u, v = uniform(n), uniform(n, 0.7548776662466927)
    adata.var["chrom"] = pd.Categorical(np.repeat(["1", "2", "3"], -(-n // 3))[:n])
    adata.var["pos"] = np.tile(np.arange(-(-n // 3)) * 1000, 3)[:n]
    beta = 4 * (u - 0.5) ** 3 + 0.3 * (v - 0.5)
    neg_log10 = np.minimum(40 * beta**2 + -np.log10(v) * 0.8, 12)
    adata.var["lmm_beta"], adata.var["lmm_p_value"], adata.var["lmm_neg_log10_p_value"] = (
        beta,
        10.0**-neg_log10,
        neg_log10,
    )
    h_sq = np.where(u < 0.2, 0.0, 0.7 * u**3)
    p = np.where(h_sq > 0, 10.0 ** (-30 * h_sq), 1.0)
    found = {
        "sigma_sq": h_sq * (0.1 + 3 * v**3),
        "tau_sq": (1 - h_sq) * (0.1 + 3 * v**3),
        "h_sq": h_sq,
        "h_sq_standard_error": np.where(h_sq > 0, 0.02 + 0.2 * h_sq, np.nan),
        "pve": h_sq,
        "log_likelihood": 0.0,
        "p_value": p,
        "neg_log10_p_value": -np.log10(p),
        "p_adjusted": stats.false_discovery_control(p),
    }
    for name, value in found.items():
        adata.var[f"varcomp_{name}"] = value
    adata.var["varcomp_status"] = pd.Categorical(["ok"] * n)
    adata.uns["varcomp"] = {"variance_components": {}, "schema_version": 1}
    return adata


def cells() -> AnnData:
    donor = np.repeat(np.arange(12), 2 + np.arange(12) % 2)
    adata = AnnData(np.zeros((donor.size, 1), dtype=np.float32), obs=pd.DataFrame(index=map(str, range(donor.size))))
    adata.obs["donor"] = [f"d{i:02d}" for i in donor]
    names = [f"d{i:02d}" for i in range(12)]
    related = 0.8 ** np.abs(np.subtract.outer(np.arange(12), np.arange(12)))
    al.pp.kernel_group(adata, "donor", relatedness=pd.DataFrame(related, index=names, columns=names))
    adata.obs["phenotype"] = np.sin(donor) + 2 * uniform(donor.size)
    return adata


def draw(name: str, **changes: object) -> np.ndarray:
    """Pixels (height × width × 3) of a plot with all text removed."""
    figure = plt.figure(figsize=SIZE, dpi=DPI)
    ax = figure.add_axes((0.06, 0.06, 0.88, 0.88))
    if name == "qq":
        al.pl.qq(features(3000), ax=ax, **changes)
    elif name == "manhattan":
        al.pl.manhattan(features(1500), ax=ax, **{"n_labels": 0, **changes})
    elif name == "volcano":
        al.pl.volcano(features(500), "lmm", ax=ax, **{"n_labels": 0, **changes})
    elif name == "heritability":
        al.pl.heritability(features(200), ax=ax, **{"n_labels": 0, **changes})
    elif name == "forest":
        al.pl.heritability(features(200), ax=ax, **{"n_features": 12, **changes})
    elif name == "variance_components":
        al.pl.variance_components(features(300), ax=ax, **{"n_labels": 0, **changes})
    elif name == "kernel":
        al.pl.kernel(cells(), ax=ax, **changes)
    else:
        adata = cells()
        al.tl.fit_null(adata, "phenotype")
        al.pl.reml_profile(adata, ax=ax, **changes)
    for legend in figure.findobj(Legend):
        legend.remove()  # its place depends on the width of its text
    for text in figure.findobj(Text):
        text.set_visible(False)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)
    plt.close(figure)
    return pixels


def stored(name: str) -> np.ndarray:
    return np.round(255 * plt.imread(BASELINE / f"{name}.png")[..., :3]).astype(float)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.sqrt(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("name", TOLERANCE)
def test_looks_as_stored(name, tmp_path):
    with plt.style.context("default"):
        drawn = draw(name)
    found = difference(drawn, stored(name))
    if found > TOLERANCE[name]:
        plt.imsave(tmp_path / f"{name}.png", drawn.astype(np.uint8))
    assert found <= TOLERANCE[name], f"compare {tmp_path / name}.png with {BASELINE / name}.png"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("qq", {"band": None}),
        ("manhattan", {"suggestive": None, "threshold": 1e-3}),
        ("volcano", {"fdr": 0.9}),
        ("heritability", {"fdr": 1e-4}),
        ("forest", {"n_features": 11}),
        ("variance_components", {"size": 10.0}),
        ("kernel", {"cmap": "magma"}),
        ("reml_profile", {"depth": 4.0}),
    ],
)
def test_the_comparison_sees(name, change):
    with plt.style.context("default"):
        assert difference(draw(name, **change), stored(name)) > 2 * TOLERANCE[name]


if __name__ == "__main__":
    BASELINE.mkdir(exist_ok=True)
    with plt.style.context("default"):
        for each in TOLERANCE:
            plt.imsave(BASELINE / f"{each}.png", draw(each).astype(np.uint8))
