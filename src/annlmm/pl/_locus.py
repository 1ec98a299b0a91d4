"""P-values along the locus of a gene."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from annlmm._slots.access import hint

from ._manhattan import _line, _short
from ._pairs import neg_log10, read_dosages, read_pairs, stored_argument
from ._read import to_float
from ._style import THRESHOLD, foreground, get_axes, open_frame, palette_colors, plain, point_size, whole_ticks

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# LocusZoom's colours, which readers know: r² below 0.2, 0.4, 0.6, 0.8 and above; the lead; unknown.
_BINS = ("#357ebd", "#46b8da", "#5cb85c", "#eea236", "#d43f3a")
_LEAD = "#9632b8"
_UNKNOWN = "#b8b8b8"
# Height of the gene, as a share of the axes.
_GENE = 0.955


def locus(
    expression: AnnData,
    genotype: AnnData | None,
    gene: str,
    *,
    variant: str | None = None,
    key: str = "eqtl",
    pairs: pd.DataFrame | None = None,
    p_value: str = "p_value",
    window: float | None = None,
    threshold: float | Literal["auto"] | None = "auto",
    labels: Sequence[str] = (),
    donor_key: str | None = None,
    genotype_layer: str | None = None,
    palette: str | Sequence[str] | None = None,
    size: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""
    Draw −log₁₀ p of the variants around a gene, coloured by their linkage disequilibrium with the strongest.

    Parameters
    ----------
    expression
        After :func:`annlmm.tl.map_eqtl`; `.var` has chrom, start, end and strand.
    genotype
        Donors × variants, for r²: the squared correlation of dosages over the donors that are in both and have both calls.
        None: no colours.
    gene
        Name of the gene.
    variant
        The variant that is labelled and that r² refers to; None: the one with the smallest p-value.
    key
        Key of the results in `expression.uns`.
    pairs
        Table of pairs to use instead. None: those of the results, in `.uns` or in the file that they were written to.
    p_value
        Column of the table with the p-values, where it has several.
    window
        Draw variants up to so many base pairs from the start of the gene; None: all of its pairs on its chromosome.
    threshold
        p-value of the line. "auto": 0.05 divided by the number of variants tested for the gene. None: no line.
    labels
        Names of other variants to label, of those that are drawn.
    donor_key, genotype_layer
        Column of donors, and layer of genotypes; None: those that the results were made with.
    palette
        Colours of r² in five classes, low to high, or the name of a colormap.
    size
        Area of a marker in points²; None: by the number of variants.
    ax
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    The axes. The gene lies at the top, its start is the dashed line; the arrow shows its strand.

    Raises
    ------
    KeyError
        If the gene, a variant, the results or a column do not exist.
    ValueError
        If the gene has no pair with a p-value and a position, too few donors are in both, or a p-value is outside (0, 1].

    Examples
    --------
    >>> import annlmm as al, matplotlib.pyplot as plt, numpy as np, pandas as pd
    >>> cells, genotype = al.datasets.sc_eqtl(30, 5, 12, n_vars=200, n_eqtl=4, n_secondary=0, n_interaction=0)
    >>> near = genotype.var[genotype.var["chrom"] == "1"]
    >>> p = np.random.default_rng(0).uniform(size=len(near))
    >>> pairs = pd.DataFrame({"gene": "gene_01", "variant": near.index, "pos": near["pos"], "p_value": p})
    >>> ax = al.pl.locus(cells, genotype, "gene_01", pairs=pairs, donor_key="donor_id")
    >>> ax.get_xlabel()
    'Chromosome 1 (kb)'
    >>> plt.close(ax.figure)
    """
    table = read_pairs(expression, key, gene, pairs)
    line = _line(threshold, "threshold", 0.05 / max(int(np.isfinite(neg_log10(table, p_value)).sum()), 1))
    place = _gene_place(expression, gene)
    table = _placed(table, genotype, place, gene, window, p_value)
    x, y = to_float(table["pos"]), neg_log10(table, p_value)
    names = table["variant"].astype(str).to_numpy(dtype=object)
    lead = _lead(names, y, variant, gene)
    also = np.flatnonzero(np.isin(names, [labels] if isinstance(labels, str) else list(labels)))
    r_sq = None
    if genotype is not None:
        donor_key = stored_argument(expression, key, "donor_key", donor_key)
        layer = stored_argument(expression, key, "genotype_layer", genotype_layer)
        r_sq = _linkage(expression, genotype, donor_key, layer, names, lead)
    colors = palette_colors(palette, _BINS, "palette", 5)
    if len(colors) < 5 and r_sq is not None:
        raise ValueError(
            f"palette: received {len(colors)} colours for five classes of r²; pass five, or a colormap's name"
        )

    ax = get_axes(ax, (7.0, 3.8))
    area = point_size(y.size) if size is None else size
    _scatter(ax, x, y, r_sq, colors, area, lead)
    top = max(float(y.max()), line or 0.0, 1.0)
    ax.set_ylim(0.0, 1.3 * top)
    _draw_gene(ax, place, gene, x)
    if line is not None:
        _draw_line(ax, line)
    _label(ax, x, y, names, [lead, *also[also != lead].tolist()], place, top)
    _axis(ax, place)
    open_frame(ax)
    whole_ticks(ax.xaxis)
    whole_ticks(ax.yaxis)
    return ax


def _gene_place(expression: AnnData, gene: str) -> dict[str, Any]:
    """Chromosome, start, end, strand and transcription start of the gene; None where unknown."""
    from annlmm._slots.pair import gene_table

    table = gene_table(expression[:, [gene]], positions=False)
    known = {name: int(getattr(table, name)[0]) for name in ("start", "end", "tss")}
    place: dict[str, Any] = {name: value if value >= 0 else None for name, value in known.items()}
    chrom = int(table.chrom[0])
    return place | {"chrom": table.chromosomes[chrom] if chrom >= 0 else None, "strand": int(table.strand[0])}


def _placed(
    table: pd.DataFrame,
    genotype: AnnData | None,
    place: dict[str, Any],
    gene: str,
    window: float | None,
    p_value: str,
) -> pd.DataFrame:
    """Pairs to draw: with a p-value above 0, and a position on the gene's chromosome."""
    from annlmm._slots.positions import chromosome_name

    for name in ("chrom", "pos"):
        if name not in table and genotype is not None and name in genotype.var:
            found = genotype.var_names.get_indexer(table["variant"].astype(str))
            column = genotype.var[name].astype(object).to_numpy()[found]
            table = table.assign(**{name: np.where(found >= 0, column, np.nan)})
    if "pos" not in table:
        raise KeyError("pairs: no column 'pos', and genotype.var has none either; a locus needs positions")
    pos, y = to_float(table["pos"].astype(np.float64)), neg_log10(table, p_value)
    if np.isposinf(y).any():
        # A point at infinity would be dropped by matplotlib without a word.
        warnings.warn(
            f"gene={gene!r}: {int(np.isposinf(y).sum())} pairs have p = 0 exactly, which has no place on a log axis; they are not drawn",
            UserWarning,
            stacklevel=3,
        )
    drawn = np.isfinite(pos) & (pos >= 0) & np.isfinite(y)
    if "chrom" in table and place["chrom"] is not None:
        chrom = table["chrom"].astype(object).map(chromosome_name)
        drawn &= (chrom == place["chrom"]).to_numpy()
    if window is not None:
        if place["tss"] is None:
            raise ValueError(f"window={window!r}: expression.var has no start of {gene!r}; leave window=None")
        if not window > 0:
            raise ValueError(f"window={window!r}: must be a positive number of base pairs, or None")
        drawn &= np.abs(pos - place["tss"]) <= window
    if not drawn.any():
        raise ValueError(
            f"gene={gene!r}: none of its {drawn.size} pairs has a p-value and a position "
            + ("on its chromosome" if window is None else f"within {window:,.0f} bp of its start")
        )
    return table.assign(pos=pos)[drawn]


def _lead(names: NDArray[np.object_], y: NDArray[np.float64], variant: str | None, gene: str) -> int:
    if variant is None:
        return int(np.argmax(y))
    place = np.flatnonzero(names == variant)
    if not place.size:
        raise KeyError(
            f"variant {variant!r} is not among the {names.size} drawn for {gene!r}; {hint(str(variant), names)}"
        )
    return int(place[0])


def _linkage(
    expression: AnnData,
    genotype: AnnData,
    donor_key: str | None,
    layer: str | None,
    names: NDArray[np.object_],
    lead: int,
) -> NDArray[np.float64]:
    """r² with the lead over matched donors, NaN where a variant is absent from `genotype` or does not vary."""
    from annlmm._slots.pair import match_donors

    donors = match_donors(expression, genotype, donor_key, minimum=2)
    columns = genotype.var_names.get_indexer(names)
    r_sq = np.full(names.size, np.nan)
    if columns[lead] < 0:
        return r_sq
    present = columns >= 0
    unique, inverse = np.unique(columns[present], return_inverse=True)
    dosages = read_dosages(genotype, layer, unique, donors)
    r_sq[present] = squared_correlation(dosages, dosages[:, np.searchsorted(unique, columns[lead])])[inverse]
    return r_sq


def squared_correlation(z: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Return r² of each column of `z` with `x` over the rows in which both are present; NaN where one of them is constant.

    Examples
    --------
    >>> squared_correlation(np.array([[0.0, 1.0], [1.0, np.nan], [2.0, 1.0]]), np.array([2.0, 1.0, 0.0]))
    array([ 1., nan])
    """
    both = np.isfinite(z) & np.isfinite(x)[:, None]
    n = np.maximum(both.sum(axis=0), 1)
    x, z = np.where(both, np.nan_to_num(x)[:, None], 0.0), np.where(both, np.nan_to_num(z), 0.0)
    x = np.where(both, x - x.sum(axis=0) / n, 0.0)
    z = np.where(both, z - z.sum(axis=0) / n, 0.0)
    # Rounding leaves a constant about 1e-32.
    scale = (x * x).sum(axis=0) * (z * z).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 1e-20, (x * z).sum(axis=0) ** 2 / scale, np.nan)


def _scatter(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    r_sq: NDArray[np.float64] | None,
    colors: list[Any],
    area: float,
    lead: int,
) -> None:
    rest = np.arange(x.size) != lead
    kwargs: dict[str, Any] = {"s": area, "linewidths": 0, "rasterized": x.size > 10_000}
    if r_sq is None:
        ax.scatter(x[rest], y[rest], color=_BINS[0], zorder=2, **kwargs)
    else:
        known = np.isfinite(r_sq)
        bins = np.minimum((np.nan_to_num(r_sq) * 5).astype(int), 4)
        groups = [(rest & ~known, _UNKNOWN, "unknown")]
        groups += [(rest & known & (bins == b), colors[b], f"{0.2 * b:.1f}–{0.2 * (b + 1):.1f}") for b in range(5)]
        for b, (chosen, color, text) in enumerate(groups):
            if b or chosen.any():
                ax.scatter(x[chosen], y[chosen], color=color, zorder=2 + 0.1 * b, label=text, **kwargs)
        handles, texts = ax.get_legend_handles_labels()
        legend = ax.legend(
            handles[::-1],
            texts[::-1],
            title="$r^2$",
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
            fontsize="small",
            handletextpad=0.2,
        )
        for handle in legend.legend_handles:
            if handle is not None and hasattr(handle, "set_sizes"):
                handle.set_sizes([30.0])
    ax.scatter(x[lead], y[lead], s=2.5 * max(area, 12.0), color=_LEAD, marker="D", linewidths=0, zorder=4)


def _draw_gene(ax: Axes, place: dict[str, Any], gene: str, x: NDArray[np.float64]) -> None:
    if place["tss"] is None:
        ax.set_title(plain(gene), fontsize="medium")
        return
    from ._labels import elide

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
    forward = place["strand"] >= 0
    right = tss < 0.5 * (low + high)
    arrow = {0: "", 1: " →", -1: " ←"}[place["strand"]]
    # Beside the gene: beyond its far end, or on the other side of its start.
    body = [tss, *(v for v in (start, end) if v is not None and low <= v <= high)]
    ax.annotate(
        plain(elide(gene, 24)) + arrow if forward else arrow.strip() + " " + plain(elide(gene, 24)),
        xy=(max(body) if right else min(body), _GENE),
        xycoords=across,
        xytext=(5 if right else -5, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="center",
        color=ink,
        fontsize="small",
        zorder=6,
    )


def _draw_line(ax: Axes, line: float) -> None:
    from matplotlib.patheffects import withStroke

    ax.axhline(line, color=THRESHOLD, linewidth=0.8, zorder=1.5)
    ax.annotate(
        f"p = {_short(10.0**-line)}",
        xy=(0.0, line),
        xycoords=("axes fraction", "data"),
        xytext=(3, 1),
        textcoords="offset points",
        ha="left",
        va="bottom",
        color=THRESHOLD,
        fontsize="x-small",
        path_effects=[withStroke(linewidth=2.0, foreground=ax.get_facecolor())],
        zorder=6,
    )


def _label(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    names: NDArray[np.object_],
    chosen: list[int],
    place: dict[str, Any],
    top: float,
) -> None:
    from ._labels import label_points

    avoid = np.column_stack([x, y])
    if place["tss"] is not None:
        # Labels keep off the row of the gene and the line of its start.
        row = np.linspace(*ax.get_xlim(), 200)
        avoid = np.vstack([avoid, *[np.column_stack([row, np.full(200, 1.3 * top * h)]) for h in (0.93, 0.98)]])
        avoid = np.vstack([avoid, np.column_stack([np.full(200, place["tss"]), np.linspace(0.0, 1.3 * top, 200)])])
    label_points(ax, x[chosen], y[chosen], [str(names[j]) for j in chosen], avoid=avoid, color=foreground(ax))


def _axis(ax: Axes, place: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter

    from ._chromosome_axis import _scaled

    stop = ax.get_xlim()[1]
    unit, scale = next(u for u in (("Mb", 1e6), ("kb", 1e3), ("bp", 1.0)) if stop >= u[1] or u[1] == 1.0)
    ax.xaxis.set_major_formatter(FuncFormatter(partial(_scaled, scale=scale)))
    where = "Position" if place["chrom"] is None else f"Chromosome {plain(place['chrom'])}"
    ax.set_xlabel(f"{where} ({unit})")
    ax.set_ylabel(r"$-\log_{10}\,p$")
