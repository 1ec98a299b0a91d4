"""Colours and axes shared by the plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# The first ten of scanpy's default_20, copied because importing scanpy takes seconds.
SERIES = (
    "#1f77b4",
    "#ff7f0e",
    "#279e68",
    "#d62728",
    "#aa40fc",
    "#8c564b",
    "#e377c2",
    "#b5bd61",
    "#17becf",
    "#aec7e8",
)
ALTERNATING = ("#1f77b4", "#8cb8de")
HIGHLIGHT = "#ff7f0e"
THRESHOLD = "#d62728"
SUGGESTIVE = "#8c8c8c"
# Below zero, not significant, above zero.
NOT_SIGNIFICANT = "#a9a9a9"
DIRECTIONS = ("#1f77b4", NOT_SIGNIFICANT, "#d62728")


def get_axes(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    """Return `ax`, or the axes of a new figure whose layout never clips a label."""
    import matplotlib.pyplot as plt

    if ax is not None:
        if not hasattr(ax, "plot"):
            raise TypeError(f"ax: must be matplotlib Axes, received {type(ax).__name__}; e.g. plt.subplots()[1]")
        return ax

    return plt.subplots(figsize=figsize, layout="constrained")[1]


def root_figure(ax: Axes) -> Any:
    """Return the figure that axes are in, not the subfigure."""
    try:
        return ax.get_figure(root=True)
    except TypeError:  # matplotlib 3.9
        return ax.figure.figure


def foreground(ax: Axes) -> Any:
    """Return the colour of the axes' own lines, which fits the style (light or dark) that the axes were made in."""
    return ax.spines["bottom"].get_edgecolor()


def open_frame(ax: Axes) -> None:
    """Hide the top and right spines."""
    ax.spines[["top", "right"]].set_visible(False)


def whole_ticks(axis: Axis) -> None:
    """Place ticks at multiples of 1, 2 and 5, not of 2.5."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10]))


def point_size(n_points: int) -> float:
    """Return a marker area (points²) that shrinks from 30 for a handful of points to 4 for a million."""
    return float(min(30.0, max(4.0, 36.0 * (max(n_points, 1) / 30.0) ** -0.2)))


def plain(text: str) -> str:
    """Escape the dollar signs of a name, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def elided(text: Any, max_length: int = 24) -> str:
    """
    Replace the middle of a long text by an ellipsis.

    Examples
    --------
    >>> elided("chr1:1234567:ACGTACGTACGT:A", 15)
    'chr1:12…TACGT:A'
    """
    text = str(text)
    if len(text) <= max_length:
        return text
    tail = (max_length - 1) // 2
    return f"{text[: max_length - 1 - tail]}…{text[-tail:]}"


def scientific(neg_log10: float) -> str:
    r"""
    Write a p-value, however small, as a mantissa of two digits and a power of ten.

    Examples
    --------
    >>> scientific(-np.log10(3.2e-9)), scientific(400.0)
    ('$3.2\\times10^{-9}$', '$10^{-400}$')
    """
    power = np.ceil(neg_log10 - 1e-9)
    mantissa = f"{10.0 ** (power - neg_log10):.2g}"
    if mantissa == "10":
        mantissa, power = "1", power - 1
    return rf"$10^{{{-power:.0f}}}$" if mantissa == "1" else rf"${mantissa}\times10^{{{-power:.0f}}}$"


def palette_colors(
    palette: str | Sequence[str] | None, default: Sequence[str], argument: str, count: int = 2
) -> list[Any]:
    """Return the colours meant by a colour, the name of a colormap (`count` of it), a sequence, or None (`default`)."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, is_color_like

    if palette is None:
        return list(default)
    if isinstance(palette, str):
        if is_color_like(palette):
            return [palette]
        if palette in colormaps:
            colormap = colormaps[palette]
            if isinstance(colormap, ListedColormap) and colormap.N <= 20:
                return [colormap(i) for i in range(colormap.N)]
            return [colormap(0.15 + 0.6 * i / max(count - 1, 1)) for i in range(count)]
        raise ValueError(
            f"{argument}={palette!r} is neither a colour nor the name of a colormap; "
            f"pass a list of colours, e.g. {argument}=['tab:blue', 'tab:gray']"
        )
    colors = list(palette)
    wrong = [c for c in colors if not is_color_like(c)]
    if wrong or not colors:
        received = f"{wrong[0]!r}, which is not a colour" if wrong else "an empty sequence"
        raise ValueError(f"{argument}: received {received}; pass a list of colours, e.g. ['tab:blue', 'tab:gray']")
    return colors


def label_level(ax: Axes, level: float, text: str, color: Any) -> None:
    """Write on a horizontal line, at the left end inside the axes, legible over points."""
    from matplotlib.patheffects import withStroke

    ax.annotate(
        text,
        xy=(0.0, level),
        xycoords=("axes fraction", "data"),
        xytext=(3, 1),
        textcoords="offset points",
        ha="left",
        va="bottom",
        color=color,
        fontsize="x-small",
        path_effects=[withStroke(linewidth=2.0, foreground=ax.get_facecolor())],
        zorder=6,
    )


def p_text(neg_log10: float) -> str:
    """
    Write a p-value as people do: 0.032, then powers of ten.

    Examples
    --------
    >>> p_text(1.5), p_text(8.0)
    ('0.032', '$10^{-8}$')
    """
    return scientific(neg_log10) if neg_log10 > 3 else f"{10.0**-neg_log10:.2g}"


def legend_above(ax: Axes) -> None:
    """Draw the legend above the axes: every corner of the picture may hold points."""
    from matplotlib.transforms import ScaledTranslation

    lift = ax.transAxes + ScaledTranslation(0.0, 12.0 / 72.0, root_figure(ax).dpi_scale_trans)
    legend = ax.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        bbox_transform=lift,
        ncols=2,
        frameon=False,
        fontsize="small",
        handletextpad=0.1,
        columnspacing=1.0,
        borderaxespad=0.0,
        borderpad=0.0,
    )
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([30.0])
