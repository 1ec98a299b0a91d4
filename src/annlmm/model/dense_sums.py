"""One pass over a dense block, row by row: sums over groups, products with a few vectors and squares, less a pivot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from annlmm.model.sparse_sums import compiled

Float = NDArray[np.float64]
Index = NDArray[np.intp]


def group_sums(
    block: NDArray[np.floating], codes: Index, n_groups: int, linear: Float, pivot: Float
) -> tuple[Float, Float, Float]:
    """Sums over groups (D × b), products with `linear` (l × b) and sums of squares (b) of an n × b block less `pivot` (b).

    The block lies row after row.
    """
    m = block.shape[1]
    groups, products, square = np.zeros((n_groups, m)), np.zeros((linear.shape[1], m)), np.zeros(m)
    _group_rows(block, codes, linear, pivot, groups, products, square)
    return groups, products, square


@compiled
def _group_rows(block, codes, linear, pivot, groups, products, square):  # type: ignore[no-untyped-def]
    for i in range(block.shape[0]):
        row, group = block[i], groups[codes[i]]
        for j in range(row.size):
            v = np.float64(row[j]) - pivot[j]
            group[j] += v
            square[j] += v * v
        for c in range(linear.shape[1]):
            weight, product = linear[i, c], products[c]
            for j in range(row.size):
                product[j] += weight * (np.float64(row[j]) - pivot[j])
