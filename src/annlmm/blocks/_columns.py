"""Whole columns, some at a time: for what needs a feature on all rows at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from annlmm.blocks._layout import Index, fetch, layout


@dataclass(frozen=True)
class ColumnBlock:
    """Some columns, on the rows that are used.

    Attributes
    ----------
    columns
        Their numbers in the whole matrix.
    array
        n_rows × b, float64, dense or CSC; may be a view of the matrix itself and must not be changed.
    """

    columns: Index
    array: Any


def column_blocks(x: Any, rows: Index, columns: Index, width: int) -> Iterator[ColumnBlock]:
    """Yield the blocks of `columns` of `x` on `rows`, at most `width` columns at a time."""
    how = layout(x)
    if how.sparse and how.by_row and how.in_memory and columns.size > width:
        x = fetch(x, rows, columns).tocsc()
        rows, local = np.arange(rows.size), np.arange(columns.size)
    else:
        local = columns
    for start in range(0, columns.size, width):
        array = fetch(x, rows, local[start : start + width])
        if sparse.issparse(array):
            array = array.tocsc().astype(np.float64, copy=False)
        yield ColumnBlock(
            columns[start : start + width],
            np.asarray(array, dtype=np.float64) if isinstance(array, np.ndarray) else array,
        )
