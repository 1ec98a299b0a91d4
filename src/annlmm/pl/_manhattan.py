"""Manhattan plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ._features import check_n_labels, label_column, label_texts, read_highlight
from ._genome import lay_out
from ._read import phenotype_names, read_neg_log10_p
from ._style import (
    ALTERNATING,
    HIGHLIGHT,
    SUGGESTIVE,
    THRESHOLD,
    foreground,
    get_axes,
    open_frame,
    palette_colors,
    plain,
    point_size,
    whole_ticks,
)
from ._thin import thin_cloud

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ._genome import Layout


def manhattan(
    adata: AnnData,
    key: str = "lmm",
    *,
    phenotype: str | None = None,
    chrom: str | None = "chrom",
    pos: str | None = "pos",
    threshold: float | Literal["auto"] | None = "auto",
    suggestive: float | Literal["auto"] | None = "auto",
    n_labels: int = 10,
    labels: str | None = None,
    gene_symbols: str | None = None,
    label_window: float | None = None,
    palette: str | Sequence[str] | None = None,
    highlight: str | Sequence[str] | None = None,
    size: float | None = None,
    thin: bool = True,
    ax: Axes | None = None,
) -> Axes:
    r"""
    Draw the Manhattan plot of a scan: −log₁₀ p of every tested feature along the genome.

    Chromosomes stand in natural order (1, 2, …, 10, X, Y, MT; with or without "chr"), or in the order of an ordered
    categorical. Features without a place are drawn last, as chromosome "?". The strongest feature of each locus beyond
    `threshold` is labelled.

    Parameters
    ----------
    adata
        Annotated data after :func:`annlmm.tl.associate`.
    key
        Key of the results, as given to `key_added`.
    phenotype
        Which phenotype, where `key` holds several.
    chrom
        Column of `.var` with the chromosome. None, or no column "chrom": features are drawn in the order of `.var`.
    pos
        Column of `.var` with the position in base pairs. Where there is no column "pos", "start" is taken. None, or
        neither: the order of `.var` within each chromosome.
    threshold
        p-value of the line of significance. "auto": 0.05 divided by the number of tested features, at most one
        million of them, which gives the customary 5e-8 for a dense scan of the human genome. None: no line.
    suggestive
        p-value of the second line. "auto": the p-value expected once per scan [1]_, 20 times that of "auto" for
        `threshold`. None: no line.
    n_labels
        Label at most so many loci; only those beyond `threshold`, or any when `threshold` is None. A label that
        finds no free place near its point is left out.
    labels
        Column of `.var` with the text of the labels; None, or missing text: the names of the features.
    gene_symbols
        Column of `.var` with symbols by which `highlight` may name genes, and which are their labels unless `labels` is given.
    label_window
        Only the strongest feature within so many base pairs on either side is labelled. None: 1,000,000 for variants
        and 0 for genes (positions from "start").
    palette
        Colours of the chromosomes in turn: a colour, several, or the name of a colormap.
    highlight
        Features drawn in another colour on top: names, or a boolean column of `.var`.
    size
        Area of a marker in points²; None: by the number of features.
    thin
        Leave out points that lie under others (the 10,000 strongest always stay), so that ten million are drawn in
        seconds.
    ax
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    The axes. −log₁₀ p that dwarf the rest of the picture are tamed by
    `ax.set_yscale("symlog", linthresh=10)`.

    Raises
    ------
    KeyError
        If `adata` holds no results under `key`, or a named column, phenotype or feature does not exist.
    TypeError
        If positions are not numbers, or a column for `highlight` is not boolean.
    ValueError
        If `key` holds several phenotypes and none is chosen, no feature was tested, a p-value is outside (0, 1], or a
        colour is unknown.

    References
    ----------
    .. [1] Lander and Kruglyak (1995), *Nature Genetics* 11, 241–247.

    Examples
    --------
    >>> import anndata as ad, annlmm as al, matplotlib.pyplot as plt, numpy as np, pandas as pd
    >>> p = np.random.default_rng(0).uniform(size=300)
    >>> p[40] = 1e-9
    >>> var = pd.DataFrame({"chrom": np.repeat(["1", "2", "X"], 100), "pos": np.tile(np.arange(100) * 1e6, 3)})
    >>> var = var.assign(lmm_p_value=p, lmm_neg_log10_p_value=-np.log10(p)).rename(index="rs{}".format)
    >>> ax = al.pl.manhattan(ad.AnnData(np.zeros((2, 300)), var=var))
    >>> [text.get_text() for text in ax.texts if text.get_text().startswith("rs")]
    ['rs40']
    >>> plt.close(ax.figure)
    """
    values, n_labels = read_neg_log10_p(adata, key, phenotype), check_n_labels(n_labels)
    rows = np.flatnonzero(np.isfinite(values))
    y = values[rows]
    lines = {
        "threshold": _line(threshold, "threshold", 0.05 / min(rows.size, 1_000_000)),
        "suggestive": _line(suggestive, "suggestive", 1.0 / min(rows.size, 1_000_000)),
    }
    layout = lay_out(adata.var, rows, chrom, pos)
    labels = label_column(adata, labels, gene_symbols)
    marked = read_highlight(adata, highlight, gene_symbols)[rows]
    if label_window is None:
        label_window = 1e6 if layout.position_column is not None and layout.position_column != "start" else 0.0
    colors = palette_colors(palette, ALTERNATING, "palette")

    ax = get_axes(ax, (10.0, 4.0))
    shown = thin_cloud(layout.x, y) if thin else np.arange(rows.size)
    area = point_size(rows.size) if size is None else size
    _scatter(ax, layout, y, shown, marked, colors, area)
    has_labels = _annotate(ax, adata, rows, layout, y, shown, lines["threshold"], n_labels, labels, label_window)
    _draw_lines(ax, lines)

    top = max([float(y.max()), *(line for line in lines.values() if line is not None)])
    ax.set_ylim(0.0, top * (1.15 if has_labels else 1.06) or 1.0)
    from ._chromosome_axis import draw_chromosome_axis

    draw_chromosome_axis(ax, layout)
    ax.set_ylabel(r"$-\log_{10}\,p$")
    if phenotype_names(adata, key) is not None:
        ax.set_title(plain(str(phenotype or adata.uns[key]["phenotypes"][0])))
    open_frame(ax)
    whole_ticks(ax.yaxis)
    return ax


def _line(value: float | str | None, argument: str, automatic: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        if value != "auto":
            raise ValueError(f"{argument}={value!r}: expected a p-value such as 5e-8, 'auto' or None")
        value = automatic
    if not 0.0 < value <= 1.0:
        raise ValueError(
            f"{argument}={value!r}: expected a p-value in (0, 1], e.g. {argument}=5e-8 (not its −log₁₀), 'auto' or None"
        )
    return float(-np.log10(value))


def _scatter(
    ax: Axes,
    layout: Layout,
    y: NDArray[np.float64],
    shown: NDArray[np.intp],
    marked: NDArray[np.bool_],
    colors: list[Any],
    area: float,
) -> None:
    kwargs: dict[str, Any] = {"linewidths": 0, "rasterized": shown.size > 10_000}
    turn = layout.block[shown] % len(colors)
    for i, color in enumerate(colors):
        of_color = shown[turn == i]
        if of_color.size:
            ax.scatter(layout.x[of_color], y[of_color], s=area, color=color, zorder=2, **kwargs)
    if marked.any():
        ax.scatter(layout.x[marked], y[marked], s=1.8 * area, color=HIGHLIGHT, zorder=4, **kwargs)


def _annotate(
    ax: Axes,
    adata: AnnData,
    rows: NDArray[np.intp],
    layout: Layout,
    y: NDArray[np.float64],
    shown: NDArray[np.intp],
    line: float | None,
    n_labels: int,
    labels: str | None,
    window: float,
) -> bool:
    tops = find_loci(layout.x, layout.block, y, minimum=line, window=window, count=n_labels)
    if not tops.size:
        return False
    from ._labels import label_points

    texts = label_texts(adata, rows[tops], labels)
    avoid = np.column_stack([layout.x[shown], y[shown]])
    label_points(ax, layout.x[tops], y[tops], texts, avoid=avoid, color=foreground(ax))
    return True


def find_loci(
    x: NDArray[np.float64],
    block: NDArray[np.intp],
    y: NDArray[np.float64],
    *,
    minimum: float | None,
    window: float,
    count: int,
) -> NDArray[np.intp]:
    """
    Find the strongest feature of each of the strongest loci.

    Parameters
    ----------
    x, block, y
        Position, chromosome and strength of each feature, each of shape (m,).
    minimum
        Least strength.
    window
        Features of one chromosome within this distance of a stronger one belong to its locus.
    count
        At most so many loci.

    Returns
    -------
    Indices, the strongest first.
    """
    left = np.flatnonzero(y >= minimum) if minimum is not None else np.arange(y.size)
    tops: list[np.intp] = []
    while left.size and len(tops) < count:
        top = left[np.argmax(y[left])]
        tops.append(top)
        near = (block[left] == block[top]) & (np.abs(x[left] - x[top]) <= window) if window > 0 else left == top
        left = left[~near]
    return np.array(tops, dtype=np.intp)


def _draw_lines(ax: Axes, lines: dict[str, float | None]) -> None:
    # The upper text sits above its line and the lower below: they never touch, however close the lines.
    drawn = [(name, line) for name, line in lines.items() if line is not None]
    drawn.sort(key=lambda item: -item[1])
    for (name, line), va in zip(drawn, ("bottom", "top"), strict=False):
        color = THRESHOLD if name == "threshold" else SUGGESTIVE
        dashes = "-" if name == "threshold" else (0, (4, 3))
        ax.axhline(line, color=color, linewidth=0.8, linestyle=dashes, zorder=3)
        ax.annotate(
            _short(10.0**-line),
            xy=(1.0, line),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            ha="left",
            va=va if len(drawn) > 1 else "center",
            annotation_clip=True,
            color=color,
            fontsize="x-small",
        )


def _short(p: float) -> str:
    # The margin is narrow: 5e-8, not 5e-08 nor 5.0e-8.
    return f"{p:.2g}" if p >= 1e-3 else f"{p:.1e}".replace(".0e", "e").replace("e-0", "e-")
