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


def get_axes(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    """Return `ax`, or the axes of a new figure whose layout never clips a label."""
    import matplotlib.pyplot as plt

    if ax is not None:
        if not hasattr(ax, "plot"):
            raise TypeError(f"ax: must be matplotlib Axes, received {type(ax).__name__}; e.g. plt.subplots()[1]")
        return ax

    return plt.subplots(figsize=figsize, layout="constrained")[1]


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
