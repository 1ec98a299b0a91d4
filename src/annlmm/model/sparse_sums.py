"""One pass over the stored values of a sparse block, by rows (CSR) or by columns (CSC); zeros cost nothing.

Inside, the loop over what a value contributes to is contiguous: the columns of a row that share a group, the r columns of U,
the l columns that are always summed and the square. Indices are unsigned, which spares the check for negative ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from annlmm.model.compiled import njit

Float = NDArray[np.float64]
Index = NDArray[np.intp]
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}  # a bare fastmath=True would delete the NaN
# numba's check for zero divisors would stop vectorisation.
compiled = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
# Accumulators of a feature are whole vector registers.
LANES = 8
# Accumulators that are worked on at once stay in the second-level cache, and so do the rows that are read for them.
TILE_BYTES = 2**19
BATCH_ROWS = 128


def group_sums(block: Any, codes: Index, n_groups: int, linear: Float) -> tuple[Float, Float, Float]:
    """Sums over groups (D × b), products with `linear` (l × b) and sums of squares (b) of an n × b block."""
    m, width = block.shape[1], linear.shape[1]
    if block.format == "csr":
        # Of a width that is known when it is compiled, so that the loop over it is unrolled.
        inside, sums = np.zeros((n_groups, m)), np.zeros((m, width + 1))
        fine = _group_rows(block.indptr, block.indices, block.data, codes, linear, inside, sums, (0.0,) * width)
    else:
        inside, sums = np.zeros((m, n_groups)), np.zeros((m, width + 1))
        fine = _group_columns(block.indptr, block.indices, block.data, codes, linear, inside, sums)
        inside = np.ascontiguousarray(inside.T)
    if not fine:
        return group_sums(_canonical(block), codes, n_groups, linear)
    return inside, np.ascontiguousarray(sums[:, :width].T), sums[:, width].copy()


def dense_sums(block: Any, u: Float, linear: Float) -> tuple[Float, Float, Float]:
    """Uᵀa (r × b), products with `linear` (l × b) and sums of squares (b) of an n × b block."""
    rank, width = u.shape[1], linear.shape[1]
    lanes = -(-(rank + width) // LANES) * LANES
    sums, square = np.zeros((block.shape[1], lanes)), np.zeros(block.shape[1])
    u = np.ascontiguousarray(u)  # may be stored either way; the passes go along its rows
    stored = block.indptr, block.indices, block.data
    if block.format == "csr":
        fine = _dense_rows(*stored, u, linear, sums, square, max(LANES, TILE_BYTES // (8 * lanes)))
    else:
        fine = _dense_columns(*stored, u, linear, sums, square)
    if not fine:
        return dense_sums(_canonical(block), u, linear)
    return np.ascontiguousarray(sums[:, :rank].T), np.ascontiguousarray(sums[:, rank : rank + width].T), square


def _canonical(block: Any) -> Any:
    """Entries that are there twice add up before they are squared; the passes see them as they go."""
    block = block.copy()
    block.has_canonical_format = False
    block.sum_duplicates()
    return block


@compiled
def _group_rows(indptr, indices, data, codes, linear, groups, sums, lanes):  # type: ignore[no-untyped-def]
    width = len(lanes)
    weights = np.zeros(width)
    increasing = True
    for i in range(indptr.size - 1):
        group = groups[codes[i]]
        for c in range(width):
            weights[c] = linear[i, c]
        last = indices.dtype.type(-1)
        for e in range(np.uintp(indptr[i]), np.uintp(indptr[i + 1])):
            column = indices[e]
            increasing &= column > last
            last = column
            j = np.uintp(column)
            v = np.float64(data[e])
            group[j] += v
            for c in range(width):
                sums[j, c] += v * weights[c]
            sums[j, width] += v * v
    return increasing


@compiled
def _group_columns(indptr, indices, data, codes, linear, groups, sums):  # type: ignore[no-untyped-def]
    width = linear.shape[1]
    increasing = True
    for j in range(indptr.size - 1):
        group, target = groups[j], sums[j]
        last = indices.dtype.type(-1)
        for e in range(np.uintp(indptr[j]), np.uintp(indptr[j + 1])):
            row = indices[e]
            increasing &= row > last
            last = row
            i = np.uintp(row)
            v = np.float64(data[e])
            group[np.uintp(codes[i])] += v
            target[width] += v * v
            for c in range(width):
                target[c] += v * linear[i, c]
    return increasing


@compiled
def _dense_rows(indptr, indices, data, u, linear, sums, square, tile):  # type: ignore[no-untyped-def]
    width, rank, m = linear.shape[1], u.shape[1], square.size
    weights = np.zeros((BATCH_ROWS, sums.shape[1]))
    position = np.zeros(BATCH_ROWS, dtype=np.uintp)
    increasing = True
    for start in range(0, indptr.size - 1, BATCH_ROWS):
        stop = min(indptr.size - 1, start + BATCH_ROWS)
        for i in range(start, stop):
            weights[i - start, :rank] = u[i]
            weights[i - start, rank : rank + width] = linear[i]
            position[i - start] = indptr[i]
            for e in range(np.uintp(indptr[i]) + np.uintp(1), np.uintp(indptr[i + 1])):
                increasing &= indices[e] > indices[e - np.uintp(1)]
        if not increasing:
            return False  # the tiles are found by bisection
        for right in range(tile, m + tile, tile):
            for i in range(start, stop):
                first, end = position[i - start], np.uintp(indptr[i + 1])
                if right < m:
                    low = first
                    while low < end:
                        middle = (low + end) >> np.uintp(1)
                        if indices[middle] < right:
                            low = middle + np.uintp(1)
                        else:
                            end = middle
                    position[i - start] = end
                weight = weights[i - start]
                for e in range(first, end):
                    j = np.uintp(indices[e])
                    v = np.float64(data[e])
                    target = sums[j]
                    for c in range(weight.size):
                        target[c] += v * weight[c]
                    square[j] += v * v
    return increasing


@compiled
def _dense_columns(indptr, indices, data, u, linear, sums, square):  # type: ignore[no-untyped-def]
    width, rank = linear.shape[1], u.shape[1]
    increasing = True
    for j in range(indptr.size - 1):
        inside, outside = sums[j, :rank], sums[j, rank : rank + width]
        last = indices.dtype.type(-1)
        for e in range(np.uintp(indptr[j]), np.uintp(indptr[j + 1])):
            row = indices[e]
            increasing &= row > last
            last = row
            i = np.uintp(row)
            v = np.float64(data[e])
            vector, weights = u[i], linear[i]
            for c in range(rank):
                inside[c] += v * vector[c]
            for c in range(width):
                outside[c] += v * weights[c]
            square[j] += v * v
    return increasing
