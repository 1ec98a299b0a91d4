"""Numpy arrays and scipy sparse matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm.blocks._layout import Index, Layout, fetch, is_range, layout

SPARSE = (sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.csc_array)


@layout.register(np.ndarray)
def _dense_layout(x: NDArray[Any]) -> Layout:
    return Layout(x.shape, x.dtype.itemsize, in_memory=True, copies=1 if x.dtype == np.float64 else 2)


@fetch.register(np.ndarray)
def _fetch_dense(x: NDArray[Any], rows: Index, columns: Index) -> NDArray[Any]:
    if not columns.size or not rows.size:
        return np.zeros((rows.size, columns.size), dtype=x.dtype)
    part = x[rows[0] : rows[-1] + 1] if is_range(rows) else x
    part = part[:, columns[0] : columns[-1] + 1] if is_range(columns) else part[:, columns]
    return np.asarray(part if is_range(rows) else part[rows])


def _sparse_layout(x: Any) -> Layout:
    return Layout(x.shape, x.dtype.itemsize, in_memory=True, indptr=x.indptr, by_row=x.format == "csr")


def _fetch_sparse(x: Any, rows: Index, columns: Index) -> Any:
    major, minor = (rows, columns) if x.format == "csr" else (columns, rows)
    part = compressed_range(x, major)
    if minor.size == x.shape[1 if x.format == "csr" else 0]:
        return part
    return part[:, minor] if x.format == "csr" else part[minor]


def compressed_range(x: Any, major: Index) -> Any:
    """Rows of a CSR or columns of a CSC matrix; a range of them is a view."""
    by_row = x.format == "csr"
    if not is_range(major):
        return x[major] if by_row else x[:, major]
    start, stop = int(major[0]), int(major[-1]) + 1
    first, last = int(x.indptr[start]), int(x.indptr[stop])
    shape = (major.size, x.shape[1]) if by_row else (x.shape[0], major.size)
    part = type(x)(shape, dtype=x.dtype)
    # Given to the constructor, short views of long arrays would be copied.
    part.data, part.indices = x.data[first:last], x.indices[first:last]
    part.indptr = x.indptr[start : stop + 1] - x.indptr[start]
    return part


for _type in SPARSE:
    layout.register(_type, _sparse_layout)
    fetch.register(_type, _fetch_sparse)
