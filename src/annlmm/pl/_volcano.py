"""Volcano plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._effects import read_effects
from ._features import check_n_labels, label_column, label_texts, read_highlight
from ._style import (
    DIRECTIONS,
    HIGHLIGHT,
    SUGGESTIVE,
    THRESHOLD,
    elided,
    foreground,
    get_axes,
    label_level,
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


def volcano(
    adata: AnnData,
    key: str = "de",
    *,
    level: str | None = None,
    phenotype: str | None = None,
    fdr: float | None = 0.05,
    min_effect: float = 0.0,
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
    Draw a volcano plot: −log₁₀ p of every tested feature against its effect β.

    Features that are significant are coloured by the sign of β, counted above the axes, and the strongest are named.
    The line lies at the p-value below which the false discovery rate is `fdr` by Benjamini and Hochberg's rule, over
    the features drawn: α k/m, where k of m features are significant (α/m where none is).

    Parameters
    ----------
    adata
        Annotated data after :func:`annlmm.tl.differential` or :func:`annlmm.tl.associate`.
    key
        Key of the results, as given to `key_added`.
    level
        Which level, where `key` tests several against a reference: its β and p, not those of the F test.
    phenotype
        Which phenotype, where `key` holds several.
    fdr
        False discovery rate at which a feature is significant. None: no line; all are significant.
    min_effect
        Only features with an effect of at least this size count as significant.
    n_labels
        Name at most so many of the significant features.
    labels
        Column of `.var` with the text of the labels; None, or missing text: the names of the features.
    gene_symbols
        Column of `.var` with symbols by which `highlight` may name genes, and which are their labels unless `labels` is given.
    palette
        Three colours: of β < 0, of features that are not significant, of β > 0; or the name of a colormap.
    highlight
        Features drawn in another colour on top: names, or a boolean column of `.var`.
    size
        Area of a marker in points²; None: by the number of features.
    thin
        Leave out points that lie under others (the 10,000 strongest always stay).
    ax
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    The axes. Features that are not significant and whose β is far beyond all others (rare variants, hardly expressed
    genes) are drawn as triangles at the edge, so that they don't squeeze the picture.

    Raises
    ------
    KeyError
        If `adata` holds no results under `key`, or a named column, level, phenotype or feature does not exist.
    TypeError
        If a column for `highlight` is not boolean.
    ValueError
        If `key` holds several levels or phenotypes and none is chosen, no feature was tested, or an argument is out of
        range.

    References
    ----------
    Benjamini and Hochberg (1995), *Journal of the Royal Statistical Society* B 57, 289–300.

    Examples
    --------
    >>> import annlmm as al, matplotlib.pyplot as plt
    >>> adata = al.datasets.donors(n_donors=12, cells_per_donor=20, n_genes=60)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> al.tl.differential(adata, "condition", layer="logcounts")
    >>> ax = al.pl.volcano(adata)
    >>> ax.get_xlabel()
    'β of condition (against control)'
    >>> plt.close(ax.figure)
    """
    if fdr is not None and not 0.0 < fdr < 1.0:
        raise ValueError(f"fdr={fdr!r}: expected a false discovery rate in (0, 1), e.g. fdr=0.05, or None for no line")
    n_labels = check_n_labels(n_labels)
    if not min_effect >= 0.0:
        raise ValueError(f"min_effect={min_effect!r}: expected a size of |β|, 0 or more")
    effects = read_effects(adata, key, level=level, phenotype=phenotype)
    rows = np.flatnonzero(np.isfinite(effects.beta) & np.isfinite(effects.neg_log10_p))
    if not rows.size:
        raise ValueError(f"key={key!r}: no feature has both an effect and a p-value above 0")
    x, y = effects.beta[rows], effects.neg_log10_p[rows]
    labels = label_column(adata, labels, gene_symbols)
    marked = read_highlight(adata, highlight, gene_symbols)[rows]
    colors = palette_colors(palette, DIRECTIONS, "palette", 3)
    if len(colors) < 3:
        raise ValueError(
            f"palette: received {len(colors)} colours for β < 0, not significant, β > 0; pass three, or a colormap's name"
        )
    line = None if fdr is None else fdr_line(y, fdr)
    significant = (np.abs(x) >= min_effect) & (x != 0.0)
    if line is not None:
        significant &= y >= line

    ax = get_axes(ax, (5.0, 4.4))
    limit = _limit(x, significant)
    beyond = np.abs(x) > limit
    place = np.clip(x, -limit, limit)
    shown = thin_cloud(place, y) if thin else np.arange(rows.size)
    area = point_size(rows.size) if size is None else size
    group = np.where(significant, np.where(x < 0, 0, 2), 1)
    _scatter(ax, place, y, shown, group, beyond, colors, area)
    if marked.any():
        ax.scatter(place[marked], y[marked], s=1.8 * area, color=HIGHLIGHT, linewidths=0, zorder=4)
    _draw_lines(ax, line, fdr, min_effect)
    _set_limits(ax, place, y, line, n_labels > 0 and significant.any())
    _count(ax, group, colors)
    top = np.flatnonzero(significant)
    top = top[np.argsort(-y[top], kind="stable")][:n_labels]
    if top.size:
        from ._labels import label_points

        avoid = np.column_stack([place[shown], y[shown]])
        if line is not None:
            # And off the text of the line.
            low, high = ax.get_xlim()
            avoid = np.vstack([avoid, [(low + share * (high - low), line * 1.02) for share in np.linspace(0, 0.13, 8)]])
        label_points(ax, place[top], y[top], label_texts(adata, rows[top], labels), avoid=avoid, color=foreground(ax))
    ax.set_xlabel(_describe(effects.entry, level, phenotype))
    ax.set_ylabel(r"$-\log_{10}\,p$")
    open_frame(ax)
    whole_ticks(ax.yaxis)
    return ax


def fdr_line(neg_log10_p: NDArray[np.float64], fdr: float) -> float:
    """
    Return the −log₁₀ p from which on features are significant at a false discovery rate.

    With k the largest rank such that p₍ₖ₎ ≤ α k/m (Benjamini and Hochberg), it is that of α k/m, or of α/m where there
    is none.

    Examples
    --------
    >>> round(10 ** -fdr_line(-np.log10(np.array([0.01, 0.02, 0.5, 0.9])), 0.05), 12)
    0.025
    """
    m = neg_log10_p.size
    limits = np.log10(m) - np.log10(fdr * np.arange(1, m + 1))
    passed = np.flatnonzero(np.sort(neg_log10_p)[::-1] >= limits - 1e-12)
    return float(limits[passed[-1] if passed.size else 0] - 1e-12)


def _limit(x: NDArray[np.float64], significant: NDArray[np.bool_]) -> float:
    """How far |β| is drawn in place: all that is significant, and nearly all of the rest."""
    size = np.abs(x)
    farthest = float(size.max())
    usual = max(2.0 * float(np.quantile(size, 0.99)), 1.1 * float(size[significant].max(initial=0.0)))
    return usual if 0.0 < usual < farthest else farthest


def _scatter(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    shown: NDArray[np.intp],
    group: NDArray[np.intp],
    beyond: NDArray[np.bool_],
    colors: list[Any],
    area: float,
) -> None:
    rasterized = shown.size > 10_000
    for which, zorder in ((1, 2), (0, 3), (2, 3)):
        inside = shown[(group[shown] == which) & ~beyond[shown]]
        if inside.size:
            ax.scatter(
                x[inside], y[inside], s=area, color=colors[which], linewidths=0, zorder=zorder, rasterized=rasterized
            )
    for marker, side in (("<", x < 0), (">", x > 0)):
        out = shown[beyond[shown] & side[shown]]
        if out.size:
            ax.scatter(x[out], y[out], s=1.5 * area, color=colors[1], marker=marker, linewidths=0, zorder=2)


def _draw_lines(ax: Axes, line: float | None, fdr: float | None, min_effect: float) -> None:
    ax.axvline(0.0, color=foreground(ax), linewidth=0.8, alpha=0.4, zorder=1)
    if min_effect > 0.0:
        for side in (-min_effect, min_effect):
            ax.axvline(side, color=SUGGESTIVE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    if line is not None and fdr is not None:
        ax.axhline(line, color=THRESHOLD, linewidth=0.8, zorder=1.5)
        label_level(ax, line, f"FDR {100 * fdr:.3g} %", THRESHOLD)


def _set_limits(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], line: float | None, labelled: bool) -> None:
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    margin = 0.06 * (high - low) or 1.0
    ax.set_xlim(low - margin, high + margin)
    top = max(float(y.max()), 0.0 if line is None else line)
    ax.set_ylim(0.0, top * (1.15 if labelled else 1.08) or 1.0)


def _count(ax: Axes, group: NDArray[np.intp], colors: list[Any]) -> None:
    for which, text, where in ((0, "β < 0", "left"), (2, "β > 0", "right")):
        ax.set_title(
            f"{text}: {int((group == which).sum()):,}",
            loc=where,  # type: ignore[arg-type]
            fontsize="small",
            color=colors[which],
        )


def _describe(entry: Mapping[str, Any], level: str | None, phenotype: str | None) -> str:
    """What β is the effect of, as far as the results say."""
    params = entry.get("differential")
    if isinstance(params, Mapping):
        term, reference, contrast = (params.get(name) for name in ("term", "reference", "contrast"))
        if level is not None:
            return plain(f"β of {elided(term)}: {elided(level)} against {elided(reference)}")
        if contrast is not None:
            return plain(f"β of {elided(term)}: {elided(contrast, 40)}")
        if reference is not None:
            return plain(f"β of {elided(term)} (against {elided(reference)})")
        return plain(f"β of {elided(term)}")
    names = [str(name) for name in entry.get("phenotypes", ())]
    if phenotype is None and len(names) == 1:
        phenotype = names[0]
    return "β" if phenotype is None else plain(f"β on {elided(phenotype)}")
