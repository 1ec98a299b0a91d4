"""Dask arrays, with numpy or sparse chunks: a pass over them is a graph, run by whichever scheduler is the current one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, reduce
from operator import add
from typing import Any

import dask.array as da
import numpy as np
from dask.base import compute
from dask.delayed import delayed
from scipy import sparse

from annlmm.blocks._layout import Index, Layout, as_float, fetch, layout

# Sums that one task adds up: few enough to hold, many enough for a shallow tree.
FAN_IN = 8


@layout.register(da.Array)
def _layout(x: Any) -> Layout:
    if any(np.isnan(size) for axis in x.chunks for size in axis):
        raise ValueError("the matrix is a dask array with unknown chunk sizes; call its .compute_chunk_sizes() first")
    chunk = (max(x.chunks[0], default=1), max(x.chunks[1], default=1))
    return Layout(tuple(x.shape), x.dtype.itemsize, in_memory=False, chunk=chunk)


@fetch.register(da.Array)
def _fetch(x: Any, rows: Index, columns: Index) -> Any:
    # Chunk by chunk, so that no more than what is wanted of each is held at once.
    edges_r, edges_c = _edges(x.chunks[0]), _edges(x.chunks[1])
    chunks, take = x.to_delayed(), delayed(_take)
    grid = [
        [take(chunks[i, j], local_r, local_c) for j, _, local_c in _split(columns, edges_c)]
        for i, _, local_r in _split(rows, edges_r)
    ]
    if not grid or not grid[0]:
        return np.zeros((rows.size, columns.size), dtype=x.dtype)
    parts = compute(grid)[0]
    if sparse.issparse(parts[0][0]):
        return sparse.csc_array(sparse.block_array(parts, format="csc"))
    return np.block(parts)


def reduced_tiles(
    x: Any,
    rows: Index,
    columns: Index,
    width: int,
    part: Callable[[int, int], Any],
    pivot: Any,
    finish: Callable[..., Any],
) -> Iterator[tuple[Index, Any]]:
    """(columns, task) per range of columns: the sums over all row chunks, finished.

    Parameters
    ----------
    part
        part(start, stop).sums(block, pivot) are the sums over some of the rows; they add.
    pivot
        A value per column (aligned with `columns`) to subtract from dense chunks, or None.
    finish
        From (sums, columns) to what is wanted; small enough to travel, as its result.
    """
    chunks = x.to_delayed()
    by_row = _split(rows, _edges(x.chunks[0]))
    parts = [part(where.start, where.stop) for _, where, _ in by_row]
    for j, place, local in _split(columns, _edges(x.chunks[1])):
        for start in range(0, local.size, width):
            some = local[start : start + width]
            chosen = columns[place][start : start + width]
            shift = None if pivot is None else pivot[place][start : start + width]
            sums = [
                delayed(partial(_chunk_sums, part=rows_part, rows=local_rows, columns=some, pivot=shift))(chunks[i, j])
                for (i, _, local_rows), rows_part in zip(by_row, parts, strict=True)
            ]
            while len(sums) > 1:
                sums = [delayed(_total)(sums[k : k + FAN_IN]) for k in range(0, len(sums), FAN_IN)]
            yield chosen, delayed(partial(finish, columns=chosen))(sums[0])


def _edges(sizes: tuple[int, ...]) -> Index:
    return np.r_[0, np.cumsum(sizes)].astype(np.intp)


def _split(wanted: Index, edges: Index) -> list[tuple[int, slice, Index]]:
    """Per chunk that holds any of the increasing numbers: its number, their positions among all, their numbers in it."""
    cuts = np.searchsorted(wanted, edges)
    return [
        (k, slice(int(cuts[k]), int(cuts[k + 1])), wanted[cuts[k] : cuts[k + 1]] - edges[k])
        for k in range(edges.size - 1)
        if cuts[k + 1] > cuts[k]
    ]


def _take(chunk: Any, rows: Index, columns: Index) -> Any:
    if not isinstance(chunk, np.ndarray) and not sparse.issparse(chunk):
        chunk = chunk.tocsr() if hasattr(chunk, "tocsr") else np.asarray(chunk)
    return fetch(chunk, rows, columns)


def _chunk_sums(chunk: Any, *, part: Any, rows: Index, columns: Index, pivot: Any) -> Any:
    block = as_float(_take(chunk, rows, columns))
    return part.sums(block, None if sparse.issparse(block) else pivot)


def _total(sums: list[Any]) -> Any:
    return reduce(add, sums)
