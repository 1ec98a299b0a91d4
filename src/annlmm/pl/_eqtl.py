"""Expression by genotype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from annlmm._slots.access import hint, received

from ._pairs import NoPairError, donor_means, find_gene, neg_log10, read_dosages, read_pairs, stored_argument
from ._style import SERIES, elided, foreground, get_axes, open_frame, p_text, palette_colors, plain, point_size

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_LONGEST_ALLELE = 4
# Fractional parts of its multiples are spread evenly, however many.
_GOLDEN = 0.6180339887498949


def eqtl(
    expression: AnnData,
    genotype: AnnData,
    gene: str,
    *,
    variant: str | None = None,
    key: str = "eqtl",
    context: str | None = None,
    gene_symbols: str | None = None,
    pairs: pd.DataFrame | None = None,
    donor_key: str | None = None,
    layer: str | None = None,
    genotype_layer: str | None = None,
    color: str | None = None,
    size: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""
    Draw the expression of a gene by the genotype at a variant: a point per donor, a box per number of alleles.

    Cells are averaged within donors, since a donor is one observation of a genotype. Values are drawn as they are, without
    adjustment for covariates; β and p in the title are those of :func:`annlmm.tl.map_eqtl`, with them, and of all its donors
    (the title says how many, where they are not those that are drawn).

    Parameters
    ----------
    expression
        Donors × genes, or cells × genes, after :func:`annlmm.tl.map_eqtl` (without it, `variant` must be given).
    genotype
        Donors × variants; donors are matched by name.
    gene
        Name of the gene, or its symbol where `gene_symbols` is given.
    variant
        Name of the variant; None: the one with the smallest p-value.
    key
        Key of the results in `expression.uns`.
    context
        Whose β and p are written, where the results are of several contexts.
    gene_symbols
        Column of `expression.var` with symbols, by which the gene may be named and is shown.
    pairs
        Table of pairs to use instead. None: those of the results, in `.uns` or in the file that they were written to.
    donor_key, layer, genotype_layer
        Column of donors, layers of expression and genotypes; None: those that the results were made with.
    color
        Colour of the points.
    size
        Area of a marker in points²; None: by the number of donors.
    ax
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    The axes. x is the number of copies of allele a1 (imputed dosages lie between whole numbers, and in the nearest box).

    Raises
    ------
    KeyError
        If the gene, the variant, the results, a context, a layer or a column do not exist.
    ValueError
        If there are several contexts and none is named, several genes have the symbol, too few donors are in both, the gene has no pair, or no donor has both a call and a value.

    Examples
    --------
    >>> import annlmm as al, matplotlib.pyplot as plt
    >>> cells, genotype = al.datasets.sc_eqtl(30, 20, 12, n_vars=200, n_eqtl=4, n_secondary=0, n_interaction=0)
    >>> pair = cells.uns["truth"]["pairs"].iloc[0]
    >>> ax = al.pl.eqtl(
    ...     cells, genotype, pair["gene"], variant=pair["variant"], donor_key="donor_id", layer="logcounts"
    ... )
    >>> len(ax.get_xticks())
    3
    >>> plt.close(ax.figure)
    """
    from annlmm._slots.pair import match_donors

    from ._fit import Ticks, Wrapped
    from ._labels import fit

    gene, shown = find_gene(expression, gene, gene_symbols)
    row, context = _find_pair(expression, gene, variant, key, pairs, context)
    variant = str(row["variant"]) if row is not None else str(variant)
    if variant not in genotype.var_names:
        raise KeyError(f"variant={variant!r}: not in genotype.var_names; {hint(variant, genotype.var_names)}")
    donor_key = stored_argument(expression, key, "donor_key", donor_key)
    layer = stored_argument(expression, key, "layer", layer)
    donors = match_donors(expression, genotype, donor_key, minimum=1)
    y = donor_means(expression, layer, gene, donors)
    column = np.array([genotype.var_names.get_loc(variant)], dtype=np.intp)
    x = read_dosages(genotype, stored_argument(expression, key, "genotype_layer", genotype_layer), column, donors)[:, 0]
    drawn = np.isfinite(x) & np.isfinite(y)
    if not drawn.any():
        raise ValueError(f"gene={gene!r}, variant={variant!r}: no donor has both a call and a value")
    x, y = x[drawn], y[drawn]
    colors = palette_colors(color, SERIES, "color")

    ax = get_axes(ax, (3.8, 3.9))
    copies = np.rint(x).astype(np.intp)
    levels = np.arange(max(2, int(copies.max())) + 1)
    _boxes(ax, y, copies, levels)
    ax.scatter(
        _spread(x, y, copies),
        y,
        s=point_size(y.size) if size is None else size,
        color=colors[0],
        linewidths=0,
        alpha=0.8,
        zorder=2,
        rasterized=y.size > 10_000,
    )
    a0, a1 = (str(genotype.var[name].iloc[column[0]]) if name in genotype.var else "" for name in ("a0", "a1"))
    ax.set_xlim(-0.5, levels[-1] + 0.5)
    ticks = [f"{_genotype(k, a0, a1)}\nn = {int((copies == k).sum())}" for k in levels.tolist()]
    ax.set_xticks(levels, ticks)
    ax.set_xlabel(_variant_label(genotype, variant, a0, a1))
    what = [] if layer is None else [plain(layer)]
    if donors.counts.max() > 1:
        what = [" of ".join(["donor mean", *what])]
    ax.set_ylabel("\n".join(["Expression", *(f"({text})" for text in what)]))
    ax.set_title(_title(shown, variant, row, a1, y.size, context), fontsize="small")
    open_frame(ax)
    fit(ax).extend(
        [
            Wrapped(ax.title),
            Wrapped(ax.xaxis.label, shrink=0.85),
            Wrapped(ax.yaxis.label, "y", shrink=0.65),
            Ticks(ticks, ax.get_xticklabels()[0]),
        ]
    )
    return ax


def _find_pair(
    expression: AnnData, gene: str, variant: str | None, key: str, pairs: pd.DataFrame | None, context: str | None
) -> tuple[pd.Series[Any] | None, str | None]:
    """The row of the table to be drawn (None where the table is not there or lacks the variant), and its context."""
    if variant is not None and not isinstance(variant, str):
        raise TypeError(f"variant: must be a name in genotype.var_names, received {received(variant)}")
    if variant is not None and pairs is None and key not in expression.uns:
        return None, None
    try:
        of_gene, context = read_pairs(expression, key, gene, pairs, context)
    except NoPairError:
        if variant is None:
            raise
        return None, None
    values = neg_log10(of_gene)
    if variant is None:
        if np.isnan(values).all():
            raise ValueError(f"gene={gene!r}: none of its {values.size} pairs has a p-value; name a variant")
        return of_gene.iloc[int(np.nanargmax(values))], context
    place = np.flatnonzero((of_gene["variant"] == variant).to_numpy())
    return (of_gene.iloc[place[0]] if place.size else None), context


def _boxes(ax: Axes, y: NDArray[np.float64], copies: NDArray[np.intp], levels: NDArray[np.intp]) -> None:
    ink = foreground(ax)
    present = [k for k in levels.tolist() if (copies == k).any()]
    line = {"color": ink, "linewidth": 0.9}
    ax.boxplot(
        [y[copies == k] for k in present],
        positions=present,
        widths=0.55,
        showfliers=False,
        manage_ticks=False,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops={"color": ink, "linewidth": 1.8},
        zorder=3,
    )


def _spread(x: NDArray[np.float64], y: NDArray[np.float64], copies: NDArray[np.intp]) -> NDArray[np.float64]:
    """Points of equal dosage side by side; neighbours in height far apart, the same each time."""
    out = x.copy()
    for k in np.unique(copies):
        here = np.flatnonzero(copies == k)
        rank = np.empty(here.size)
        rank[np.argsort(y[here], kind="stable")] = np.arange(here.size)
        whole = x[here] == copies[here]
        out[here] += np.where(whole, 0.36 * ((rank * _GOLDEN + 0.5) % 1 - 0.5), 0.0) if here.size > 1 else 0.0
    return out


def _genotype(copies: int, a0: str, a1: str) -> str:
    if not a0 or not a1 or max(len(a0), len(a1)) > _LONGEST_ALLELE or copies > 2:
        return str(copies)
    return plain("/".join([a0] * (2 - copies) + [a1] * copies))


def _variant_label(genotype: AnnData, variant: str, a0: str, a1: str) -> str:
    from annlmm._slots.positions import chromosome_name

    text = plain(elided(variant))
    row = genotype.var.loc[variant]
    if "chrom" in row and "pos" in row and np.issubdtype(type(row["pos"]), np.number) and row["pos"] >= 0:
        text += f" ({plain(chromosome_name(row['chrom']) or '?')}:{int(row['pos']):,})"
    if _genotype(1, a0, a1) == "1":
        text += f"\ncopies of {plain(elided(a1)) or 'a1'}"
    return text


def _title(gene: str, variant: str, row: pd.Series[Any] | None, a1: str, drawn: int, context: str | None) -> str:
    # Lines that are too long for the axes are broken at spaces, but not at those that forbid it.
    text = plain(f"{elided(gene)} – {elided(variant)}")
    if row is None:
        return text
    numbers = []
    beta, error = (float(row.get(name, np.nan)) for name in ("beta", "standard_error"))
    if np.isfinite(beta):
        numbers.append(_estimate(beta, error).replace(" ", "\u00a0"))
        if a1 and len(a1) <= _LONGEST_ALLELE:
            numbers[0] += f" per\u00a0{plain(a1)}"
    value = float(neg_log10(row.to_frame().T)[0])
    if np.isfinite(value):
        numbers.append(f"p\u00a0=\u00a0{p_text(value)}")
    if numbers and context is not None:
        numbers.append(f"context\u00a0{plain(elided(context))}")
    mapped = float(row.get("n", np.nan))
    if numbers and np.isfinite(mapped) and mapped != drawn:
        numbers[-1] += f"\n(all {mapped:.0f} donors of the map; {drawn} drawn)"
    return text + ("\n" + ", ".join(numbers) if numbers else "")


def _estimate(beta: float, error: float) -> str:
    """β with as many decimals as its standard error has with two digits."""
    if not (np.isfinite(error) and 1e-4 < error < 100):
        return f"β = {beta:.2g}".replace("-", "−")
    decimals = max(0, 1 - int(np.floor(np.log10(error))))
    return f"β = {beta:.{decimals}f} ± {error:.{decimals}f}".replace("-", "−")
