"""Variance of the kernel against the residual variance of every feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from annlmm._slots.access import check_adata

from ._features import check_n_labels, label_column, label_texts, read_highlight
from ._style import (
    HIGHLIGHT,
    NOT_SIGNIFICANT,
    SERIES,
    SUGGESTIVE,
    foreground,
    get_axes,
    legend_above,
    open_frame,
    palette_colors,
    point_size,
)
from ._thin import thin_cloud

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_SHARES = (0.01, 0.1, 0.5, 0.9)


def variance_components(
    adata: AnnData,
    key: str = "varcomp",
    *,
    fdr: float | None = 0.05,
    n_labels: int = 10,
    labels: str | None = None,
    gene_symbols: str | None = None,
    palette: str | Sequence[str] | None = None,
    highlight: str | Sequence[str] | None = None,
    size: float | None = None,
    thin: bool = True,
    ax: Axes | None = None,
) -> Axes:
    r"""
    Draw the variance of the kernel σ² of every feature against its residual variance τ², on log axes.

    Features of the same h² = σ²/(σ² + τ²) lie on a line of slope one; some are drawn. Estimates that are zero have no
    place on a log axis: they are drawn as triangles at the edge.

    Parameters
    ----------
    adata
        Annotated data after :func:`annlmm.tl.variance_components`.
    key
        Key of the results, as given to `key_added`.
    fdr
        False discovery rate at which a feature is coloured, by its adjusted p-value of σ² = 0. None: all are.
    n_labels
        Name at most so many of the coloured features, those with the largest h².
    labels
        Column of `.var` with the text of the labels; None, or missing text: the names of the features.
    gene_symbols
        Column of `.var` with symbols by which `highlight` may name genes, and which are their labels unless `labels` is given.
    palette
        Two colours, of what is significant and what isn't, or the name of a colormap.
    highlight
        Features drawn in another colour on top: names, or a boolean column of `.var`.
    size
        Area of a marker in points²; None: by the number of features.
    thin
        Leave out points that lie under others (the 10,000 with the largest σ² always stay).
    ax
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If `adata` holds no results under `key`, or a named column or feature does not exist.
    TypeError
        If a column for `highlight` is not boolean.
    ValueError
        If no feature was fitted, or an argument is out of range.

    Examples
    --------
    >>> import annlmm as al, matplotlib.pyplot as plt
    >>> adata = al.datasets.donors(n_donors=8, n_genes=30)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> al.tl.variance_components(adata, layer="logcounts")
    >>> ax = al.pl.variance_components(adata)
    >>> ax.get_xscale(), ax.get_yscale()
    ('log', 'log')
    >>> plt.close(ax.figure)
    """
    from matplotlib.ticker import LogFormatter

    from annlmm.get import variance_components as read

    check_adata(adata)
    n_labels = check_n_labels(n_labels)
    if fdr is not None and not 0.0 < fdr < 1.0:
        raise ValueError(f"fdr={fdr!r}: expected a false discovery rate in (0, 1), e.g. fdr=0.05, or None")
    table = read(adata, key)
    sigma_sq, tau_sq = (table[name].to_numpy(dtype=np.float64) for name in ("sigma_sq", "tau_sq"))
    rows = np.flatnonzero(np.isfinite(sigma_sq) & np.isfinite(tau_sq))
    if not rows.size:
        raise ValueError(
            f"key={key!r}: none of the {sigma_sq.size} features was fitted; adata.var[{key + '_status'!r}] says why"
        )
    labels = label_column(adata, labels, gene_symbols)
    marked = read_highlight(adata, highlight, gene_symbols)[rows]
    significant = np.ones(rows.size, dtype=bool)
    if fdr is not None:
        significant = (table["p_adjusted"].iloc[rows] <= fdr).to_numpy()
    colors = palette_colors(palette, (SERIES[0], NOT_SIGNIFICANT), "palette", 2)
    colors = colors if len(colors) > 1 else [colors[0], NOT_SIGNIFICANT]

    x, x_limits = _with_floor(tau_sq[rows])
    y, y_limits = _with_floor(sigma_sq[rows])
    shape = np.where(sigma_sq[rows] <= 0, 1, np.where(tau_sq[rows] <= 0, 2, 0))
    shown = thin_cloud(np.log10(x), np.log10(y)) if thin else np.arange(rows.size)
    ax = get_axes(ax, (5.0, 4.4))
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.6)))
    ax.set_xlim(*x_limits)
    ax.set_ylim(*y_limits)
    _draw_shares(ax)
    area = point_size(rows.size) if size is None else size
    _scatter(ax, x, y, shown, shape, significant, colors, area, fdr)
    if marked.any():
        ax.scatter(x[marked], y[marked], s=1.8 * area, color=HIGHLIGHT, linewidths=0, zorder=4)
    h_sq = table["h_sq"].to_numpy(dtype=np.float64)[rows]
    top = np.flatnonzero(significant)
    top = top[np.argsort(-h_sq[top], kind="stable")][:n_labels]
    if top.size:
        from ._labels import label_points

        avoid = np.column_stack([x[shown], y[shown]])
        label_points(ax, x[top], y[top], label_texts(adata, rows[top], labels), avoid=avoid, color=foreground(ax))
    ax.set_xlabel(r"Residual variance $\tau^2$")
    ax.set_ylabel(r"Variance of the kernel $\sigma^2$")
    open_frame(ax)
    return ax


def _with_floor(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Values with zeros moved to the lower end of a log axis, and the limits of that axis."""
    positive = values[values > 0]
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (0.5, 2.0)
    # One outlier by many orders of magnitude (a hardly expressed gene) leaves no room for the others.
    low = max(low, float(np.quantile(positive, 0.01)) / 100.0) if positive.size else low
    pad = max((high / low) ** 0.05, 1.15)
    floor = low / pad if (values < low).any() else low
    left, right = floor / pad, high * pad
    # At least one and a half decades, in which there is a power of ten to read.
    wider = max((10.0**1.5 / (right / left)) ** 0.5, 1.0)
    return np.maximum(values, floor), (left / wider, right * wider)


def _draw_shares(ax: Axes) -> None:
    """Lines of constant h², each named where it leaves the axes."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    for share in _SHARES:
        ratio = share / (1.0 - share)
        low, high = max(x0, y0 / ratio), min(x1, y1 / ratio)
        if not low < high:
            continue
        ax.plot([low, high], [ratio * low, ratio * high], color=SUGGESTIVE, linewidth=0.8, alpha=0.7, zorder=1)
        right = ratio * x1 <= y1
        ax.annotate(
            (r"$h^2$ = " if share == _SHARES[-1] else "") + f"{share:g}",
            xy=(high, ratio * high),
            xytext=(3, 0) if right else (0, 2),
            textcoords="offset points",
            ha="left" if right else "center",
            va="center" if right else "bottom",
            color=SUGGESTIVE,
            fontsize="x-small",
        )


def _scatter(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    shown: NDArray[np.intp],
    shape: NDArray[np.intp],
    significant: NDArray[np.bool_],
    colors: list[Any],
    area: float,
    fdr: float | None,
) -> None:
    for which in (False, True):
        text = (
            None
            if fdr is None
            else f"FDR {'≤' if which else '>'} {100 * fdr:.3g} %: {int((significant == which).sum()):,}"
        )
        for mark, (marker, factor) in enumerate((("o", 1.0), ("v", 1.3), ("<", 1.3))):
            chosen = shown[(significant[shown] == which) & (shape[shown] == mark)]
            if chosen.size:
                ax.scatter(
                    x[chosen],
                    y[chosen],
                    s=factor * area,
                    marker=marker,
                    color=colors[0] if which else colors[1],
                    linewidths=0,
                    zorder=2 + which,
                    rasterized=shown.size > 10_000,
                    label=text,
                )
                text = None
    if fdr is not None:
        legend_above(ax)
