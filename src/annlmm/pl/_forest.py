"""A forest of estimates: one row each, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._style import elided, foreground, plain, root_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def draw_forest(
    ax: Axes,
    names: Sequence[str],
    estimate: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    *,
    colors: Sequence[Any],
    size: float,
    texts: Sequence[str],
) -> None:
    """
    Draw estimates from top to bottom, with lines from `low` to `high` where these are known.

    Parameters
    ----------
    ax
        Axes.
    names
        k names of the rows.
    estimate, low, high
        Shape (k,), NaN for ends that are unknown.
    colors
        k colours.
    size
        Area of a marker in points².
    texts
        What is written beyond the right end of each row; empty for nothing.
    """
    y = np.arange(len(names), dtype=np.float64)
    known = np.isfinite(low) & np.isfinite(high)
    shades = np.array(colors, dtype=object)
    ax.hlines(y[known], low[known], high[known], colors=shades[known].tolist(), linewidth=1.6, zorder=2)
    ax.scatter(estimate, y, s=size, c=shades.tolist(), linewidths=0, zorder=3)
    ax.set_yticks(y, [plain(elided(name, 32)) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)
    for row, text in zip(y, texts, strict=False):
        ax.annotate(
            text,
            xy=(1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            color=foreground(ax),
            annotation_clip=True,
        )


def forest_size(names: Sequence[str], texts: Sequence[str], row: float) -> tuple[float, float]:
    """Width and height of a figure in inches, with room for the names, the texts and 3 inches of picture."""
    longest = [max((len(elided(text, 32)) for text in of), default=0) for of in (names, texts)]
    return 3.2 + 0.085 * longest[0] + 0.075 * longest[1], 0.9 + row * max(len(names), 2)


def list_labels(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    texts: Sequence[str],
    *,
    curve: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """
    Name the first points of a falling curve in a list above the curve, with lines that don't cross.

    Parameters
    ----------
    ax
        Axes, with their limits set.
    x, y
        Points in data coordinates, each of shape (k,), falling.
    texts
        k names, of which as many are drawn as fit.
    curve
        x, and y of what the list should keep above, nearly falling.
    """
    from matplotlib.transforms import ScaledTranslation

    root = root_figure(ax)
    if not len(texts):
        return
    step = 11.0
    # A layout engine has yet to take its share for the labels of the axes.
    height = ax.bbox.height * 72.0 / root.dpi * (0.78 if root.get_layout_engine() is not None else 1.0)
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    best = (0, 0.0)
    for at in (0.08, 0.14, 0.22, 0.3, 0.4):
        right = curve[1][curve[0] >= x0 + at * (x1 - x0)]
        under = float(np.nanmax(right, initial=0.0)) if right.size else 0.0
        room = int((y1 - under) / (y1 - y0) * height / step - 0.5)
        if room > best[0]:
            best = (room, at)
        if room >= len(texts):
            break
    for row, text in enumerate(list(texts)[: best[0]]):
        place = ax.transAxes + ScaledTranslation(0.0, -(row + 0.5) * step / 72.0, root.dpi_scale_trans)
        ax.annotate(
            elided(text),
            xy=(x[row], y[row]),
            xytext=(best[1], 1.0),
            textcoords=place,
            va="center",
            fontsize="small",
            color=foreground(ax),
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": foreground(ax),
                "linewidth": 0.5,
                "shrinkA": 1.0,
                "shrinkB": 2.0,
                "relpos": (0.0, 0.5),
            },
            zorder=6,
        )


def limit_share(ax: Axes, axis: str, highest: float) -> None:
    """Set the limits of an axis of h²: from 0 to what is drawn, never far beyond 1."""
    top = min(1.0, 1.08 * highest) if highest > 0 else 1.0
    (ax.set_xlim if axis == "x" else ax.set_ylim)(-0.02 * top, 1.02 * top)
