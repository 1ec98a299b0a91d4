"""The interface: `column_blocks(x, rows, columns, width)`; one file registers each family of array types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Block:
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


@singledispatch
def column_blocks(x: Any, rows: Index, columns: Index, width: int) -> Iterator[Block]:
    """Yield the blocks of `columns` of `x` on `rows`, at most `width` columns at a time."""
    raise TypeError(
        f"the matrix is a {type(x).__module__}.{type(x).__qualname__}, which can't be scanned; "
        "load it as a numpy array or a scipy sparse matrix (adata.to_memory())"
    )


@column_blocks.register(np.ndarray)
def _dense(x: NDArray[Any], rows: Index, columns: Index, width: int) -> Iterator[Block]:
    everything = rows.size == x.shape[0] and bool((rows == np.arange(rows.size)).all())
    for start in range(0, columns.size, width):
        chosen = columns[start : start + width]
        contiguous = chosen.size == chosen[-1] - chosen[0] + 1
        part = x[:, chosen[0] : chosen[-1] + 1] if contiguous else x[:, chosen]
        yield Block(chosen, np.asarray(part if everything else part[rows], dtype=np.float64))


@column_blocks.register(sparse.csr_matrix)
@column_blocks.register(sparse.csr_array)
@column_blocks.register(sparse.csc_matrix)
@column_blocks.register(sparse.csc_array)
def _sparse(x: Any, rows: Index, columns: Index, width: int) -> Iterator[Block]:
    if columns.size < x.shape[1]:
        x = x[:, columns]
    if not (rows.size == x.shape[0] and bool((rows == np.arange(rows.size)).all())):
        x = x[rows]
    x = x.tocsc()
    for start in range(0, columns.size, width):
        part = x[:, start : start + width]
        yield Block(columns[start : start + width], part.astype(np.float64, copy=False))
