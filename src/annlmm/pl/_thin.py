"""Fewer points, the same picture: subsets of points that cover the same pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def thin_cloud(
    x: NDArray[np.float64], y: NDArray[np.float64], *, keep: int = 10_000, shape: tuple[int, int] = (1200, 500)
) -> NDArray[np.intp]:
    """
    Choose points of a cloud: the `keep` highest, and one per occupied cell of a grid over the picture.

    A cell is smaller than a marker, so that what is left out lies under what stays. Points are chosen, never moved.

    Parameters
    ----------
    x, y
        Coordinates, finite, each of shape (m,).
    keep
        How many of the highest points stay whatever their cell.
    shape
        Cells along x and y.

    Returns
    -------
    Ascending indices, shape (k,) with k ≤ keep + shape[0] · shape[1].
    """
    if x.size <= keep:
        return np.arange(x.size)
    chosen = np.zeros(x.size, dtype=bool)
    chosen[np.argpartition(y, x.size - keep)[x.size - keep :]] = True
    cell = _cells(x, shape[0]) * np.int32(shape[1]) + _cells(y, shape[1])
    owner = np.full(shape[0] * shape[1], -1, dtype=np.int64)
    owner[cell] = np.arange(x.size)
    chosen[owner[owner >= 0]] = True
    return np.flatnonzero(chosen)


def thin_curve(
    x: NDArray[np.float64], y: NDArray[np.float64], *, keep: int = 2_000, shape: tuple[int, int] = (1000, 1000)
) -> NDArray[np.intp]:
    """
    Choose points of a monotone curve that starts at its highest point: the first `keep`, then one per cell passed.

    Parameters
    ----------
    x, y
        Coordinates, finite and not increasing, each of shape (m,).
    keep
        How many of the first points stay.
    shape
        Cells along x and y.

    Returns
    -------
    Ascending indices, shape (k,) with k ≤ keep + shape[0] + shape[1].
    """
    if x.size <= keep:
        return np.arange(x.size)
    cell_x, cell_y = _cells(x, shape[0]), _cells(y, shape[1])
    chosen = np.zeros(x.size, dtype=bool)
    chosen[:keep] = True
    chosen[-1] = True
    chosen[1:] |= (np.diff(cell_x) != 0) | (np.diff(cell_y) != 0)
    return np.flatnonzero(chosen)


def _cells(values: NDArray[np.float64], count: int) -> NDArray[Any]:
    low, high = float(values.min()), float(values.max())
    scale = (count - 1) / (high - low) if high > low else 0.0
    return ((values - low) * scale).astype(np.int32)
