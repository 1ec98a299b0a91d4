"""One pass over a dense block, row by row: sums over groups, products with a few vectors and squares, less a pivot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from annlmm.model.sparse_sums import compiled

Float = NDArray[np.float64]
Index = NDArray[np.intp]
# Worked on at once, so that a sum is fetched and put back once for so many rows.
ROWS = 4


def group_sums(
    block: NDArray[np.floating], codes: Index, n_groups: int, linear: Float, pivot: Float
) -> tuple[Float, Float, Float]:
    """Sums over groups (D × b), products with `linear` (l × b) and sums of squares (b) of an n × b block less `pivot` (b).

    The block lies row after row, in float32 or float64; the sums are float64.
    """
    m = block.shape[1]
    groups, products, square = np.zeros((n_groups, m)), np.zeros((linear.shape[1], m)), np.zeros(m)
    _group_rows(block, codes, linear, pivot, groups, products, square)
    return groups, products, square


@compiled
def _group_rows(block, codes, linear, pivot, groups, products, square):  # type: ignore[no-untyped-def]
    n, m = block.shape
    v = np.zeros((ROWS, m))
    v0, v1, v2, v3 = v
    for start in range(0, n, ROWS):
        for k in range(ROWS):
            value = v[k]
            if start + k < n:
                row, group = block[start + k], groups[codes[start + k]]
                for j in range(m):
                    value[j] = np.float64(row[j]) - pivot[j]
                    group[j] += value[j]
            else:
                value[:] = 0.0
        for j in range(m):
            square[j] += v0[j] * v0[j] + v1[j] * v1[j] + v2[j] * v2[j] + v3[j] * v3[j]
        weights = linear[start : start + ROWS]
        last = weights.shape[0] - 1
        for c in range(linear.shape[1]):
            w0, w1, w2, w3 = weights[0, c], weights[min(1, last), c], weights[min(2, last), c], weights[last, c]
            product = products[c]
            for j in range(m):
                product[j] += w0 * v0[j] + w1 * v1[j] + w2 * v2[j] + w3 * v3[j]
