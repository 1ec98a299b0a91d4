"""Quantile-quantile plot of p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._p_values import read_series
from ._style import SERIES, foreground, get_axes, open_frame, palette_colors, plain, point_size, whole_ticks
from ._thin import thin_curve

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray


def qq(
    adata: AnnData | pd.DataFrame | Mapping[str, ArrayLike] | ArrayLike,
    key: str | Sequence[str] | None = None,
    *,
    phenotype: str | Sequence[str] | None = None,
    band: float | None = 0.95,
    label: str | Sequence[str] | None = None,
    color: str | Sequence[str] | None = None,
    size: float | None = None,
    thin: bool = True,
    ax: Axes | None = None,
) -> Axes:
    r"""
    Draw observed against expected −log₁₀ p, with the band of the null hypothesis and the inflation factor λ.

    The i-th smallest of m independent uniform p-values is Beta(i, m + 1 − i): its mean i/(m + 1) is the expected
    value, its quantiles are the band, exact at each point [1]_. λ is the median of the χ²₁ quantiles of p divided by
    that of the χ²₁ distribution [2]_: above 1, too many small p-values (confounding, a wrong null, or polygenicity).

    Parameters
    ----------
    adata
        Annotated data after :func:`annlmm.tl.associate` (or another test of features), or p-values from anywhere: a
        table, a one-dimensional array, or a dict of arrays to overlay. Missing ones (NaN) are left out.
    key
        Key of the results, or column of the table, or several to overlay. None: "lmm", or "p_value" of a table. A
        column `neg_log10_…` of the table is used where there is one.
    phenotype
        Which phenotypes, where `key` holds several; None: all, up to ten.
    band
        Coverage of the band at each point; None: no band.
    label
        Names in the legend, one per series.
    color
        Colours, one per series, or the name of a colormap.
    size
        Area of a marker in points²; None: by the number of features.
    thin
        Leave out points that lie under others (the 2,000 strongest always stay), so that ten million are drawn in
        seconds. λ and the expected values always use all.
    ax
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If `adata` holds no results under `key`, or no such `phenotype` or column.
    TypeError
        If what is given instead of AnnData is no table and not of numbers.
    ValueError
        If `band` is not a probability, no feature was tested, p-values are outside [0, 1], there are more than ten
        series, or the numbers of labels or colours do not match.

    References
    ----------
    .. [1] Quesenberry and Hales (1980), *Journal of Statistical Computation and Simulation* 11, 41–53.
    .. [2] Devlin and Roeder (1999), *Biometrics* 55, 997–1004.

    Examples
    --------
    >>> import anndata as ad, annlmm as al, matplotlib.pyplot as plt, numpy as np, pandas as pd
    >>> p = (np.arange(999) + 0.5) / 999
    >>> var = pd.DataFrame({"lmm_p_value": p, "lmm_neg_log10_p_value": -np.log10(p)}).rename(index=str)
    >>> ax = al.pl.qq(ad.AnnData(np.zeros((2, 999)), var=var))
    >>> ax.get_legend().get_texts()[0].get_text()
    '$\\lambda_\\mathrm{GC}$ = 1.000'
    >>> ax = al.pl.qq({"this": p, "that": p**2})  # p-values from anywhere
    >>> plt.close("all")
    """
    if band is not None and not 0.0 < band < 1.0:
        raise ValueError(f"band={band!r}: expected a coverage in (0, 1), e.g. band=0.95, or None for no band")
    names, series = read_series(adata, key, phenotype)
    names = _match_labels(label, names)
    colors = _match_colors(color, len(series))

    ax = get_axes(ax, (4.4, 4.2))
    ink = foreground(ax)
    sizes = sorted({observed.size for observed in series})
    limit_x, limit_y = float(np.log10(sizes[-1] + 1)), 0.0
    if band is not None:
        # Bands of nearly equal sizes coincide: one of them is enough.
        distinct = [m for i, m in enumerate(sizes) if i == 0 or m > 1.1 * sizes[i - 1]]
        for i, m in enumerate(distinct):
            x, low, high = null_band(m, band)
            text = f"{100 * band:.4g} % null band" if i == 0 else "_nolegend_"
            ax.fill_between(x, low, high, color=ink, alpha=0.15, linewidth=0, zorder=1, label=text)
            limit_y = max(limit_y, float(high.max()))
    ax.plot([0.0, limit_x], [0.0, limit_x], color=ink, linewidth=0.8, zorder=1.5)
    for name, observed, point_color in zip(names, series, colors, strict=True):
        observed = np.sort(observed)[::-1]
        m = observed.size
        expected = -np.log10(np.arange(1, m + 1) / (m + 1))
        shown = thin_curve(expected, observed) if thin else np.arange(m)
        inflation = rf"$\lambda_\mathrm{{GC}}$ = {genomic_inflation(observed):.3f}"
        ax.scatter(
            expected[shown],
            observed[shown],
            s=point_size(m) if size is None else size,
            color=point_color,
            linewidths=0,
            zorder=2,
            rasterized=shown.size > 10_000,
            label=inflation if name is None else f"{plain(name)}: {inflation}",
        )
        limit_y = max(limit_y, float(observed[0]))
    ax.set_xlim(0.0, 1.04 * limit_x)
    ax.set_ylim(0.0, 1.06 * max(limit_y, limit_x))
    ax.set_xlabel(r"Expected $-\log_{10}\,p$")
    ax.set_ylabel(r"Observed $-\log_{10}\,p$")
    _draw_legend(ax)
    open_frame(ax)
    whole_ticks(ax.xaxis)
    whole_ticks(ax.yaxis)
    return ax


def genomic_inflation(neg_log10_p: NDArray[np.float64]) -> float:
    """
    Return λ: the median of the χ²₁ quantiles of p over the median of χ²₁; exact for p below 1e-308 too.

    Parameters
    ----------
    neg_log10_p
        −log₁₀ p, finite, shape (m,).

    Examples
    --------
    >>> round(genomic_inflation(-np.log10(np.array([0.1, 0.5, 0.9]))), 12)
    1.0
    """
    from scipy.special import ndtri_exp

    m = neg_log10_p.size
    middle = np.partition(neg_log10_p, [(m - 1) // 2, m // 2])[[(m - 1) // 2, m // 2]]
    # χ² = Φ⁻¹(p/2)², from log p so that nothing underflows.
    chi_sq = ndtri_exp(np.append(-middle * np.log(10.0), np.log(0.5)) - np.log(2.0)) ** 2
    return float(0.5 * (chi_sq[0] + chi_sq[1]) / chi_sq[2])


def null_band(m: int, coverage: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """
    Return expected value and quantiles of −log₁₀ of ordered uniform p-values, at ranks dense on the log scale.

    Parameters
    ----------
    m
        Number of p-values.
    coverage
        Probability between the lower and the upper quantile.

    Returns
    -------
    Expected −log₁₀ p (descending), lower and upper limit, each of shape (k,).
    """
    from scipy.special import betaincinv

    rank = np.unique(np.round(np.geomspace(1, m, 300)))
    tail = 0.5 * (1.0 - coverage)
    low, high = (-np.log10(betaincinv(rank, m + 1 - rank, q)) for q in (1.0 - tail, tail))
    return -np.log10(rank / (m + 1)), low, high


def _match_labels(label: str | Sequence[str] | None, names: list[str | None]) -> list[str | None]:
    if label is None:
        return names
    labels = [label] if isinstance(label, str) else list(label)
    if len(labels) != len(names):
        raise ValueError(f"label: received {len(labels)} for {len(names)} series; pass one label per series")
    return [str(text) for text in labels]


def _match_colors(color: str | Sequence[str] | None, n_series: int) -> list[Any]:
    colors = palette_colors(color, SERIES, "color", n_series)
    if len(colors) < n_series:
        raise ValueError(f"color: received {len(colors)} for {n_series} series; pass one colour per series")
    return colors[:n_series]


def _draw_legend(ax: Axes) -> None:
    handles, texts = ax.get_legend_handles_labels()
    # The band is drawn first but explained last.
    order = sorted(range(len(texts)), key=lambda i: texts[i].endswith("% null band"))
    legend = ax.legend(
        [handles[i] for i in order],
        [texts[i] for i in order],
        loc="best",
        frameon=False,
        fontsize="small",
        handletextpad=0.4,
    )
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([30.0])
