"""A kernel as a picture, beside its eigenvalues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from annlmm._slots.access import check_adata, hint

from ._style import SERIES, SUGGESTIVE, elided, get_axes, open_frame, plain, root_figure

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from annlmm.model.basis import Basis

# Cells along a side of the picture; more than the pixels of an axes of 3 inches are not seen.
_MOST_CELLS = 600
_MOST_NAMES = 30


def kernel(
    adata: AnnData,
    key: str = "kernel",
    *,
    groupby: str | None = None,
    order: Literal["hierarchical", "obs"] = "hierarchical",
    scree: bool = True,
    cmap: str | None = None,
    limit: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""
    Draw a kernel K as a picture, observations ordered so that alike ones stand together, beside its eigenvalues.

    More than 600 observations are drawn as means over blocks of K, which are computed from the eigenvectors: K itself
    is never formed, and 100,000 cells take seconds. Colours end at the 99.5 % quantile of the cells off the
    diagonal, so that a large diagonal doesn't hide what is between observations; for groups at the largest value.

    Parameters
    ----------
    adata
        With a kernel under `key` (`al.pp.kernel_*`).
    key
        Of the kernel.
    groupby
        Column of `.obs` whose groups stand together and are named. None: the groups of a group kernel, else none.
    order
        "hierarchical": by clustering (Ward) in the coordinates of the kernel, within groups. "obs": as in `.obs`, within
        groups.
    scree
        Whether the eigenvalues are drawn, on axes of their own to the right, for which `ax` makes room.
    cmap
        Name of a colormap. None: "viridis" for kernels without negative values, "RdBu_r" about zero otherwise.
    limit
        Value at which the colours end. None: as above.
    ax
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    The axes of the picture. Those of the eigenvalues and of the colour bar are the next in `ax.figure.axes`.

    Raises
    ------
    KeyError
        If there is no kernel under `key`, or no such column.
    ValueError
        If `key` names a family of kernels (name one of its members), the eigenvectors do not belong to `adata`, or an
        argument is unknown.

    Examples
    --------
    >>> import annlmm as al, matplotlib.pyplot as plt
    >>> adata = al.datasets.gwas_cohort(n_obs=100, n_vars=200)
    >>> al.pp.kernel_grm(adata)
    >>> ax = al.pl.kernel(adata)
    >>> ax.images[0].get_array().shape
    (100, 100)
    >>> plt.close(ax.figure)
    """
    from annlmm._slots.kernel import kernel_entry, read_basis, usable_rows

    from ._kernel_order import averaged, hierarchical_order

    check_adata(adata)
    if order not in ("hierarchical", "obs"):
        raise ValueError(f"order={order!r}: expected 'hierarchical' or 'obs'")
    if limit is not None and not limit > 0.0:
        raise ValueError(f"limit={limit!r}: expected a positive value of K, or None")
    entry = kernel_entry(adata, key)
    rows = np.flatnonzero(usable_rows(adata, key))
    if groupby is None and entry["kind"] == "groups":
        groupby = str(entry["groupby"])
    codes, names = _groups(adata, groupby, rows)
    basis = read_basis(adata, key, rows)
    if basis.rank == 0:
        raise ValueError(f"kernel={key!r}: is zero on these {rows.size} observations")
    inner = hierarchical_order(basis) if order == "hierarchical" else np.arange(rows.size)
    if "relatedness" in entry and order == "hierarchical" and groupby == entry["groupby"]:
        codes, names = _by_first(codes, names, inner)
    place = inner[np.argsort(codes[inner], kind="stable")]
    edges = np.unique(np.linspace(0, rows.size, min(rows.size, _MOST_CELLS) + 1).round().astype(np.intp))
    values = averaged(basis, place, edges)

    ax = get_axes(ax, (7.4, 3.8) if scree else (4.6, 3.8))
    beside = _make_room(ax) if scree else None
    image = _draw_image(ax, values, rows.size, cmap, limit, groups=entry["kind"] == "groups")
    _name_groups(ax, codes, names, rows.size)
    ax.set_xlabel(f"{rows.size:,} observations")
    ax.set_title(plain(elided(key)), fontsize="medium")
    bar = ax.get_figure().colorbar(image, ax=ax, fraction=0.046, pad=0.03, extend=_extend(image, values))
    bar.ax.set_title("K", fontsize="small")
    bar.outline.set_visible(False)
    if beside is not None:
        _draw_scree(beside, basis)
    return ax


def _groups(adata: AnnData, groupby: str | None, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], list[str]]:
    """Group of each row (missing labels last) and the names, in the order of categories."""
    import pandas as pd

    if groupby is None:
        return np.zeros(rows.size, dtype=np.intp), []
    if groupby not in adata.obs:
        raise KeyError(f"groupby={groupby!r}: no such column in adata.obs; {hint(str(groupby), adata.obs.columns)}")
    column = adata.obs[groupby].iloc[rows].astype("category").cat.remove_unused_categories()
    names = [str(name) for name in column.cat.categories]
    codes = np.array(column.cat.codes, dtype=np.intp)
    if (codes < 0).any():
        names.append("missing")
        codes[codes < 0] = len(names) - 1
    if len(names) > rows.size / 2 and pd.api.types.is_numeric_dtype(column.cat.categories.dtype):
        raise ValueError(f"groupby={groupby!r}: holds {len(names)} different numbers, not groups")
    return codes, names


def _by_first(codes: NDArray[np.intp], names: list[str], order: NDArray[np.intp]) -> tuple[NDArray[np.intp], list[str]]:
    """Groups numbered as they come in an order of the rows."""
    found, first = np.unique(codes[order], return_index=True)
    sequence = found[np.argsort(first)]
    number = np.empty(len(names), dtype=np.intp)
    number[sequence] = np.arange(sequence.size)
    return number[codes], [names[i] for i in sequence]


def _make_room(ax: Axes) -> Axes:
    """Split the place of axes in two, for the picture and the eigenvalues."""
    figure = ax.get_figure()
    spec = ax.get_subplotspec()
    free = root_figure(ax).get_layout_engine() is None
    if spec is None:
        x0, y0, width, height = ax.get_position().bounds
        ax.set_position((x0, y0, 0.6 * width, height))
        return cast("Axes", figure.add_axes((x0 + 0.74 * width, y0, 0.26 * width, height)))
    # Without a layout engine nothing else keeps the numbers of one from the other.
    parts = spec.subgridspec(1, 2, width_ratios=(1.9, 1.0), wspace=0.6 if free else None)
    ax.set_subplotspec(parts[0])
    return cast("Axes", figure.add_subplot(parts[1]))


def _draw_image(
    ax: Axes, values: NDArray[np.float64], n: int, cmap: str | None, limit: float | None, *, groups: bool
) -> AxesImage:
    off = values[~np.eye(len(values), dtype=bool)] if len(values) > 1 else values.ravel()
    largest = float(np.abs(values).max())
    if limit is None:
        limit = largest if groups else float(np.quantile(np.abs(off), 0.995))
        limit = limit if limit > 1e-9 * largest else largest
    signed = float(values.min()) < -1e-9 * largest
    image = ax.imshow(
        values,
        cmap=cmap or ("RdBu_r" if signed else "viridis"),
        vmin=-limit if signed else 0.0,
        vmax=limit,
        extent=(0, n, n, 0),
        aspect="equal",
        rasterized=True,
    )
    ax.set_xticks([])
    ax.set_yticks([])
    return image


def _extend(image: AxesImage, values: NDArray[np.float64]) -> Any:
    low, high = image.get_clim()
    below, above = values.min() < (low or 0.0) - 1e-9, values.max() > (high or 0.0) * (1 + 1e-9)
    return ("both" if above else "min") if below else ("max" if above else "neither")


def _name_groups(ax: Axes, codes: NDArray[np.intp], names: list[str], n: int) -> None:
    if len(names) < 2:
        return
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    starts = ends - np.diff(ends, prepend=0)
    centers = 0.5 * (starts + ends)
    # As many names as there is room for, in the order of their groups.
    shown: list[int] = []
    for i in range(len(names)):
        if not shown or centers[i] - centers[shown[-1]] >= n / _MOST_NAMES:
            shown.append(i)
    if len(shown) < len(names) and len(names) > _MOST_NAMES:
        ax.set_ylabel(f"{len(names):,} groups")
        return
    ax.set_yticks(centers[shown], [plain(elided(names[i])) for i in shown], fontsize="small")
    ax.tick_params(axis="y", length=0)
    for end in ends[:-1].tolist():
        ax.axhline(end, color=SUGGESTIVE, linewidth=0.5)
        ax.axvline(end, color=SUGGESTIVE, linewidth=0.5)


def _draw_scree(ax: Axes, basis: Basis) -> None:
    s = np.sort(basis.eigenvalues)[::-1]
    share = s / s.sum()
    rank = np.arange(1, s.size + 1)
    few = s.size <= 30
    shown = np.arange(s.size) if s.size <= 500 else np.unique(np.geomspace(1, s.size, 500).round().astype(np.intp)) - 1
    ax.plot(rank[shown], s[shown], color=SERIES[0], linewidth=1.5, marker="o" if few else None, markersize=3.5)
    if not few:
        ax.set_xscale("log")
    if s[0] > 30.0 * s[-1]:
        ax.set_yscale("log")
        ax.set_ylim(max(0.5 * float(s[-1]), 1e-6 * float(s[0])), 2.0 * float(s[0]))
    else:
        ax.set_ylim(0.0, 1.08 * float(s[0]))
    if few:
        from matplotlib.ticker import MaxNLocator

        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    most = int(np.searchsorted(np.cumsum(share), 0.9 - 1e-12)) + 1
    ax.set_title(f"Eigenvalues: {s.size:,},\n90 % of the trace in {most:,}", fontsize="small")
    ax.set_xlabel("Rank")
    open_frame(ax)
