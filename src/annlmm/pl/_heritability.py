"""h² of phenotypes or of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from annlmm._slots.access import check_adata, hint

from ._features import check_n_labels, find_names, label_column, label_texts
from ._forest import draw_forest, forest_size, limit_share, list_labels
from ._style import (
    NOT_SIGNIFICANT,
    SERIES,
    foreground,
    get_axes,
    legend_above,
    open_frame,
    palette_colors,
    point_size,
)
from ._thin import thin_curve

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_MOST_ROWS = 60
_FEW = 30
_MOST_BARS = 600


def heritability(
    adata: AnnData,
    key: str | Sequence[str] | None = None,
    *,
    phenotype: str | Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    n_features: int | None = None,
    fdr: float | None = 0.05,
    n_labels: int = 10,
    labels: str | None = None,
    gene_symbols: str | None = None,
    values: bool = True,
    palette: str | Sequence[str] | None = None,
    size: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""
    Draw h², the share of the variance that belongs to the kernel, with its uncertainty.

    Of null fits: a forest of phenotypes or keys, with the 95 % intervals of the fits. Of features: up to 30 as a forest,
    the largest h² first, more as a curve over their rank; the bars are the estimate ± its standard error, where there is
    one (none at h² = 0). Features are coloured where their test of σ² = 0 is significant at `fdr`.

    Parameters
    ----------
    adata
        Annotated data after :func:`annlmm.tl.fit_null` or :func:`annlmm.tl.variance_components`.
    key
        Key of the results; several keys of null fits are drawn together. None: "varcomp" if it is there, else "lmm".
    phenotype
        Which phenotypes of the null fits; None: all.
    features
        Names of the features to draw, from top to bottom; at most 60.
    n_features
        Draw only so many features, those with the largest h².
    fdr
        False discovery rate at which a feature is coloured, by its adjusted p-value. None: all are.
    n_labels
        Name at most so many features on the curve, those with the largest h².
    labels
        Column of `.var` with the names to show; None, or missing text: those of the features.
    gene_symbols
        Column of `.var` with symbols by which `features` may name genes, and which are their labels unless `labels` is given.
    values
        Whether h² and its interval are written beside the rows of a forest of null fits.
    palette
        Two colours, of what is significant and what isn't, or the name of a colormap.
    size
        Area of a marker in points²; None: by the number of points.
    ax
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If `adata` holds no results under `key`, or a named phenotype, feature or column does not exist.
    ValueError
        If nothing was fitted, `key` mixes fits and features, there are too many rows, or an argument is out of range.

    Examples
    --------
    >>> import annlmm as al, matplotlib.pyplot as plt
    >>> adata = al.datasets.donors(n_donors=8, n_genes=30)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> al.tl.variance_components(adata, layer="logcounts")
    >>> ax = al.pl.heritability(adata, n_features=5)
    >>> len(ax.get_yticklabels())
    5
    >>> plt.close(ax.figure)
    """
    check_adata(adata)
    _check_numbers(n_features, fdr)
    n_labels = check_n_labels(n_labels)
    keys = _keys(adata, key)
    kinds = {_kind(adata, one) for one in keys}
    colors = palette_colors(palette, (SERIES[0], NOT_SIGNIFICANT), "palette", 2)
    colors = colors if len(colors) > 1 else [colors[0], NOT_SIGNIFICANT]
    if kinds == {"fit"}:
        if features is not None or n_features is not None:
            argument = "features" if features is not None else "n_features"
            raise ValueError(f"{argument}: key={keys[0]!r} is a null fit of phenotypes; name those with phenotype=")
        return _draw_fits(ax, _read_fits(adata, keys, phenotype), colors[0], size, values)
    if len(keys) > 1:
        raise ValueError(
            f"key={keys!r}: results of features are drawn one key at a time (several keys of null fits together)"
        )
    if phenotype is not None:
        raise ValueError(f"phenotype={phenotype!r}: key={keys[0]!r} holds features; name those with features=")
    labels = label_column(adata, labels, gene_symbols)
    table, rows = _read_features(adata, keys[0], features, n_features, gene_symbols)
    significant = np.ones(len(table), dtype=bool) if fdr is None else (table["p_adjusted"] <= fdr).to_numpy()
    if features is not None or len(table) <= _FEW:
        return _draw_few(ax, adata, table, rows, significant, labels, colors, size)
    return _draw_many(ax, adata, table, rows, significant, fdr, n_labels, labels, colors, size)


def _check_numbers(n_features: int | None, fdr: float | None) -> None:
    if n_features is not None and not n_features >= 1:
        raise ValueError(f"n_features={n_features!r}: expected a positive number, or None for all")
    if fdr is not None and not 0.0 < fdr < 1.0:
        raise ValueError(f"fdr={fdr!r}: expected a false discovery rate in (0, 1), e.g. fdr=0.05, or None")


def _keys(adata: AnnData, key: str | Sequence[str] | None) -> list[str]:
    if key is None:
        return ["varcomp" if "varcomp" in adata.uns or "lmm" not in adata.uns else "lmm"]
    keys = [key] if isinstance(key, str) else list(key)
    if not keys:
        raise ValueError("key=[]: expected at least one key of results")
    return keys


def _kind(adata: AnnData, key: str) -> str:
    entry = adata.uns.get(key)
    if isinstance(entry, Mapping):
        if "variance_components" in entry:
            return "features"
        if "h_sq" in entry or "fits" in entry:
            return "fit"
    known = [
        k
        for k, v in adata.uns.items()
        if isinstance(v, Mapping) and ({"variance_components", "h_sq", "fits"} & set(map(str, v)))
    ]
    raise KeyError(
        f"key={key!r}: no fit there; run al.tl.variance_components(adata, key_added={key!r}) or "
        f"al.tl.fit_null(adata, ..., key_added={key!r}) first; {hint(str(key), known)}"
    )


def _read_fits(adata: AnnData, keys: list[str], phenotype: str | Sequence[str] | None) -> pd.DataFrame:
    """One row per key and phenotype: h_sq, h_sq_ci_low, h_sq_ci_high, indexed by its name."""
    import pandas as pd

    wanted = None if phenotype is None else [phenotype] if isinstance(phenotype, str) else list(phenotype)
    fields = ["h_sq", "h_sq_ci_low", "h_sq_ci_high"]
    parts = []
    for key in keys:
        entry = adata.uns[key]
        names = [str(name) for name in entry["phenotypes"]]
        if "fits" in entry:
            part = entry["fits"].loc[names, fields].astype(np.float64)
        else:
            part = pd.DataFrame([[float(entry[field]) for field in fields]], index=names, columns=fields)
        if entry["params"].get("kernel") is None:
            part.loc[:] = np.nan
        for name in wanted or ():
            if name not in part.index:
                raise KeyError(f"phenotype={name!r}: not among those of key={key!r}; {hint(str(name), names)}")
        part = part if wanted is None else part.loc[wanted]
        if len(keys) > 1:
            part = part.rename(index={name: key if len(names) == 1 else f"{key}, {name}" for name in names})
        parts.append(part)
    table = pd.concat(parts)
    if len(table) > _MOST_ROWS:
        raise ValueError(
            f"phenotype={phenotype!r}: {len(table)} rows are more than can be read; choose at most {_MOST_ROWS}"
        )
    if table["h_sq"].isna().all():
        raise ValueError(f"key={keys[0]!r}: has no h²; it was fitted with kernel=None")
    return table


def _draw_fits(ax: Axes | None, table: pd.DataFrame, color: Any, size: float | None, values: bool) -> Axes:
    estimate, low, high = (table[name].to_numpy(dtype=np.float64) for name in ("h_sq", "h_sq_ci_low", "h_sq_ci_high"))
    texts = [_interval(*row) for row in zip(estimate, low, high, strict=True)] if values else []
    names = [str(name) for name in table.index]
    ax = get_axes(ax, forest_size(names, texts, 0.3))
    area = 36.0 if size is None else size
    draw_forest(ax, names, estimate, low, high, colors=[color] * len(names), size=area, texts=texts)
    limit_share(ax, "x", float(np.nanmax([estimate, high])))
    _zero(ax)
    with_interval = bool(np.isfinite(low + high).any())
    ax.set_xlabel("$h^2$ and 95 % interval" if with_interval else "$h^2$")
    open_frame(ax)
    return ax


def _interval(estimate: float, low: float, high: float) -> str:
    if not np.isfinite(estimate):
        return "no kernel"
    return f"{estimate:.2f}" + (f" ({low:.2f}–{high:.2f})" if np.isfinite(low + high) else "")


def _zero(ax: Axes) -> None:
    ax.axvline(0.0, color=foreground(ax), linewidth=0.8, alpha=0.4, zorder=1)


def _read_features(
    adata: AnnData, key: str, features: Sequence[str] | None, n_features: int | None, gene_symbols: str | None
) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """Results of the features to draw, in order, and their places in `.var`."""
    from annlmm.get import variance_components

    table = variance_components(adata, key)
    h_sq = table["h_sq"].to_numpy()
    if features is not None:
        if n_features is not None:
            raise ValueError(f"n_features={n_features!r}: features are named already; leave one of the two")
        rows = find_names(adata, features, "features", "pass names of features", gene_symbols)
        if rows.size > _MOST_ROWS:
            raise ValueError(
                f"features: {rows.size} rows are more than can be read; pass at most {_MOST_ROWS}, or n_features="
            )
        unfitted = rows[np.isnan(h_sq[rows])]
        if unfitted.size:
            name = adata.var_names[unfitted[0]]
            raise ValueError(
                f"features: {unfitted.size} of {rows.size} were not fitted, e.g. {name!r} "
                f"(status {str(table['status'].iloc[unfitted[0]])!r}); leave them out"
            )
    else:
        rows = np.flatnonzero(np.isfinite(h_sq))
        if not rows.size:
            raise ValueError(
                f"key={key!r}: none of the {h_sq.size} features was fitted; adata.var[{key + '_status'!r}] says why"
            )
        rows = rows[np.argsort(-h_sq[rows], kind="stable")][:n_features]
    if not rows.size:
        raise ValueError("features=[]: expected at least one name")
    return table.iloc[rows], rows


def _bars(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    h_sq, error = (table[name].to_numpy(dtype=np.float64) for name in ("h_sq", "h_sq_standard_error"))
    # h² is a share: a bar ends where there is nothing beyond.
    return h_sq, np.maximum(h_sq - error, 0.0), np.minimum(h_sq + error, 1.0)


def _draw_few(
    ax: Axes | None,
    adata: AnnData,
    table: pd.DataFrame,
    rows: NDArray[np.intp],
    significant: NDArray[np.bool_],
    labels: str | None,
    colors: list[Any],
    size: float | None,
) -> Axes:
    h_sq, low, high = _bars(table)
    names = label_texts(adata, rows, labels)
    ax = get_axes(ax, forest_size(names, [], 0.24))
    shades = [colors[0] if yes else colors[1] for yes in significant.tolist()]
    draw_forest(
        ax,
        names,
        h_sq,
        low,
        high,
        colors=shades,
        size=point_size(rows.size) if size is None else size,
        texts=[],
    )
    limit_share(ax, "x", float(np.nanmax([h_sq, high])))
    _zero(ax)
    ax.set_xlabel("$h^2$ ± standard error")
    open_frame(ax)
    return ax


def _draw_many(
    ax: Axes | None,
    adata: AnnData,
    table: pd.DataFrame,
    rows: NDArray[np.intp],
    significant: NDArray[np.bool_],
    fdr: float | None,
    n_labels: int,
    labels: str | None,
    colors: list[Any],
    size: float | None,
) -> Axes:
    h_sq, low, high = _bars(table)
    rank = np.arange(1, rows.size + 1, dtype=np.float64)
    ax = get_axes(ax, (6.0, 3.8))
    area = point_size(rows.size) if size is None else size
    shown = thin_curve(rank, h_sq)
    # More bars than pixels would be a blot.
    bars = np.unique(np.linspace(0, rows.size - 1, min(rows.size, _MOST_BARS)).round().astype(np.intp))
    bars = bars[np.isfinite(low[bars])]
    for which in (False, True):
        chosen = bars[significant[bars] == which]
        ax.vlines(
            rank[chosen],
            low[chosen],
            high[chosen],
            colors=colors[0] if which else colors[1],
            linewidth=1.2 if rows.size <= 100 else 0.8,
            alpha=0.35,
            zorder=1,
            rasterized=True,
        )
        points = shown[significant[shown] == which]
        if points.size:
            text = _count(which, int((significant == which).sum()), fdr)
            color = colors[0] if which else colors[1]
            ax.scatter(rank[points], h_sq[points], s=area, color=color, linewidths=0, zorder=2 + which, label=text)
    ax.set_xlim(-0.015 * rows.size, 1.015 * rows.size)
    limit_share(ax, "y", float(np.nanmax([h_sq, high])))
    if fdr is not None:
        legend_above(ax)
    count = min(n_labels, rows.size)
    reach = np.where(np.isnan(high), h_sq, high)
    list_labels(ax, rank[:count], h_sq[:count], label_texts(adata, rows[:count], labels), curve=(rank, reach))
    ax.set_xlabel("Rank of the feature")
    ax.set_ylabel("$h^2$ ± standard error")
    open_frame(ax)
    return ax


def _count(significant: bool, count: int, fdr: float | None) -> str:
    if fdr is None:
        return f"{count:,}"
    return f"FDR {'≤' if significant else '>'} {100 * fdr:.3g} %: {count:,}"
