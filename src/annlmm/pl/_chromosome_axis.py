"""The x axis of a genome. Imports matplotlib: import it late."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, Locator

from ._genome import UNPLACED
from ._style import plain, root_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ._genome import Layout


def draw_chromosome_axis(ax: Axes, layout: Layout) -> None:
    """Label the x axis with chromosomes, with one chromosome's positions, or with the order of `.var`."""
    start, stop = float(layout.starts[0]), float(layout.stops[-1])
    margin = 0.01 * (stop - start) if stop > start else 0.5
    ax.set_xlim(start - margin, stop + margin)
    if not layout.names:
        ax.set_xlabel("Feature (order of adata.var)")
    elif len(layout.names) == 1:
        name = plain(layout.names[0])
        where = "Features without a chromosome" if name == UNPLACED else f"Chromosome {name}"
        if layout.position_column is None or name == UNPLACED:
            ax.set_xlabel(f"{where} (order of adata.var)")
        else:
            unit, scale = next(u for u in (("Mb", 1e6), ("kb", 1e3), ("bp", 1.0)) if stop >= u[1] or u[1] == 1.0)
            ax.xaxis.set_major_formatter(FuncFormatter(partial(_scaled, scale=scale)))
            ax.set_xlabel(f"{where} ({unit})")
    else:
        centers = 0.5 * (layout.starts + layout.stops)
        widths = layout.stops - layout.starts
        ax.xaxis.set_major_locator(ChromosomeLocator(centers, widths, layout.names))
        ax.xaxis.set_major_formatter(FuncFormatter(partial(_nearest, centers=centers, names=layout.names)))
        ax.set_xlabel("Chromosome")


class ChromosomeLocator(Locator):
    """
    Ticks at the centres of chromosomes, without those whose labels would collide at the present size of the axes.

    The wider a chromosome, the sooner it gets its label; features without a place are always labelled. A long name
    (a contig) is left out where it is wider than what it names, unless all are.
    """

    def __init__(self, centers: NDArray[np.float64], widths: NDArray[np.float64], names: Sequence[str]) -> None:
        self.centers, self.widths, self.names = centers, widths, list(names)
        self.order = sorted(range(len(names)), key=lambda i: (names[i] != UNPLACED, -widths[i], i))
        self.em = [TextPath((0, 0), plain(name), size=100).get_extents().width / 100 for name in names]

    def __call__(self) -> list[float]:
        """Return the locations that fit between the limits of the axis."""
        low, high = sorted(self.axis.get_view_interval())
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Return the locations that fit between two limits."""
        axes = self.axis.axes
        root = root_figure(axes)
        pixels = axes.bbox.width / max(vmax - vmin, np.finfo(float).tiny)
        label = self.axis.majorTicks[0].label1 if self.axis.majorTicks else self.axis.get_offset_text()
        size = float(label.get_fontsize()) * root.dpi / 72
        visible = [i for i in self.order if vmin <= self.centers[i] <= vmax]
        fitting = [i for i in visible if len(self.names[i]) <= 3 or self.widths[i] * pixels >= self.em[i] * size]
        taken: list[tuple[float, float]] = []
        shown = []
        for i in fitting or visible:
            at, half = float(self.centers[i]) * pixels, 0.5 * (self.em[i] + 0.5) * size
            if all(at + half <= a or at - half >= b for a, b in taken):
                taken.append((at - half, at + half))
                shown.append(float(self.centers[i]))
        return sorted(shown)


def _scaled(value: float, _: int | None = None, *, scale: float) -> str:
    return f"{value / scale:.10g}"


def _nearest(value: float, _: int | None = None, *, centers: NDArray[np.float64], names: list[str]) -> str:
    return plain(names[int(np.argmin(np.abs(centers - value)))])
