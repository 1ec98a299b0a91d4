"""The picture of a locus."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ._style import elided, foreground, plain, root_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ._fit import Part

# LocusZoom's colours, which readers know: r² below 0.2, 0.4, 0.6, 0.8 and above; the lead; unknown.
BINS = ("#357ebd", "#46b8da", "#5cb85c", "#eea236", "#d43f3a")
LEAD = "#9632b8"
UNKNOWN = "#b8b8b8"
# Height of the gene, as a share of the axes.
_GENE = 0.955
# Axes of fewer inches have a smaller legend.
_NARROW = 3.5


def lead_area(area: float) -> float:
    """Area of the lead's diamond."""
    return 2.5 * max(area, 12.0)


def draw_points(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    r_sq: NDArray[np.float64] | None,
    colors: list[Any],
    area: float,
    lead: int,
) -> None:
    """Draw every variant, the lead as a diamond, with a legend of r²."""
    rest = np.arange(x.size) != lead
    kwargs: dict[str, Any] = {"s": area, "linewidths": 0, "rasterized": x.size > 10_000}
    if r_sq is None:
        ax.scatter(x[rest], y[rest], color=BINS[0], zorder=2, **kwargs)
    else:
        known = np.isfinite(r_sq)
        bins = np.minimum((np.nan_to_num(r_sq) * 5).astype(int), 4)
        groups = [(rest & ~known, UNKNOWN, "unknown")]
        groups += [(rest & known & (bins == b), colors[b], f"{0.2 * b:.1f}–{0.2 * (b + 1):.1f}") for b in range(5)]
        for b, (chosen, color, text) in enumerate(groups):
            if b or chosen.any():
                ax.scatter(x[chosen], y[chosen], color=color, zorder=2 + 0.1 * b, label=text, **kwargs)
        handles, texts = ax.get_legend_handles_labels()
        figure = root_figure(ax)
        # Beside the axes only where the figure makes room for it.
        beside = figure.get_layout_engine() is not None
        narrow = ax.get_window_extent().width < _NARROW * figure.dpi
        legend = ax.legend(
            handles[::-1],
            texts[::-1],
            title="$r^2$",
            loc="upper left" if beside else "best",
            bbox_to_anchor=(1.0, 1.0) if beside else (0.0, 0.0, 1.0, 0.92),
            frameon=not beside,
            framealpha=0.7,
            edgecolor="none",
            fontsize="x-small" if narrow else "small",
            title_fontsize="small" if narrow else None,
            handletextpad=0.0 if narrow else 0.2,
            borderaxespad=0.1 if narrow else None,
            labelspacing=0.3 if narrow else None,
        )
        for handle in legend.legend_handles:
            if handle is not None and hasattr(handle, "set_sizes"):
                handle.set_sizes([30.0])
    ax.scatter(x[lead], y[lead], s=lead_area(area), color=LEAD, marker="D", linewidths=0, zorder=4)


def draw_gene(ax: Axes, place: dict[str, Any], gene: str, x: NDArray[np.float64]) -> list[Part]:
    """Draw the gene at the top, or name it in the title where its place isn't known."""
    from ._fit import Beside, Wrapped

    if place["tss"] is None:
        ax.set_title(plain(gene), fontsize="medium")
        return [Wrapped(ax.title)]
    ink = foreground(ax)
    across = ax.get_xaxis_transform()
    tss = place["tss"]
    start, end = place["start"], place["end"]
    low, high = min(float(x.min()), tss), max(float(x.max()), tss)
    low, high = low - 0.02 * (high - low or 1e4), high + 0.02 * (high - low or 1e4)
    ax.set_xlim(low, high)
    ax.plot([tss, tss], [0.0, _GENE], transform=across, color=ink, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    if start is not None and end is not None:
        ax.plot(
            [start, end], [_GENE, _GENE], transform=across, color=ink, linewidth=4.0, solid_capstyle="butt", zorder=3
        )
    strand = place["strand"]
    # Beside the gene: beyond its far end, or on the other side of its start.
    body = [tss, *(v for v in (start, end) if v is not None and low <= v <= high)]
    label = ax.annotate(
        "",
        xy=(max(body), _GENE),
        xycoords=across,
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        color=ink,
        fontsize="small",
        zorder=6,
        parse_math=False,
    )
    name = Beside(label, elided(gene), {0: "", 1: "→", -1: "←"}[strand], min(body), max(body))
    label.set_text(name.whole)
    return [name]


def label_variants(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    names: NDArray[np.object_],
    chosen: list[int],
    tss: int | None,
    area: float,
) -> None:
    """Label some variants, the lead first."""
    from ._labels import label_points

    avoid = np.column_stack([x, y])
    top = ax.get_ylim()[1]
    if tss is not None:
        # Labels keep off the row of the gene and the line of its start.
        row = np.linspace(*ax.get_xlim(), 200)
        avoid = np.vstack([avoid, *[np.column_stack([row, np.full(200, top * h)]) for h in (0.93, 0.98)]])
    # Half the diagonal of the diamond.
    radii = [0.71 * lead_area(area) ** 0.5] + [2.0] * (len(chosen) - 1)
    texts = [str(names[j]) for j in chosen]
    walls = [] if tss is None else [float(tss)]
    label_points(ax, x[chosen], y[chosen], texts, avoid=avoid, color=foreground(ax), radii=radii, walls=walls)


def label_axes(ax: Axes, chrom: str | None, p_label: str) -> list[Part]:
    """Label the axes."""
    from matplotlib.ticker import FuncFormatter

    from ._chromosome_axis import _scaled
    from ._fit import Wrapped

    stop = ax.get_xlim()[1]
    unit, scale = next(u for u in (("Mb", 1e6), ("kb", 1e3), ("bp", 1.0)) if stop >= u[1] or u[1] == 1.0)
    ax.xaxis.set_major_formatter(FuncFormatter(partial(_scaled, scale=scale)))
    where = "Position" if chrom is None else f"Chromosome {plain(chrom)}"
    ax.set_xlabel(f"{where} ({unit})")
    ax.set_ylabel(p_label)
    return [Wrapped(ax.xaxis.label), Wrapped(ax.yaxis.label, "y", shrink=0.65)]
