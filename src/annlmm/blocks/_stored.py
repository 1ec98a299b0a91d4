"""Matrices on disk: HDF5 and zarr arrays, and the sparse groups that anndata writes, as `backed="r"` hands them over."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import zarr
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray
from scipy import sparse

from annlmm.blocks._layout import Index, Layout, fetch, is_range, layout

# Bytes that are read at once where rows or columns with gaps between them are wanted.
READ_BYTES = 2**26


@layout.register(h5py.Dataset)
@layout.register(zarr.Array)
def _dense_layout(x: Any) -> Layout:
    # Contiguous HDF5 has no chunks: rows lie one after the other.
    # zarr holds the chunks as they are stored and decoded beside the array that it puts together.
    copies = 4 if isinstance(x, zarr.Array) else 2
    return Layout(tuple(x.shape), x.dtype.itemsize, in_memory=False, chunk=tuple(x.chunks or (1, 1)), copies=copies)


@fetch.register(h5py.Dataset)
@fetch.register(zarr.Array)
def _fetch_dense(x: Any, rows: Index, columns: Index) -> NDArray[Any]:
    if not rows.size or not columns.size:
        return np.empty((rows.size, columns.size), dtype=x.dtype)
    left, right = int(columns[0]), int(columns[-1]) + 1
    if is_range(rows) and is_range(columns):
        return np.asarray(x[int(rows[0]) : int(rows[-1]) + 1, left:right])
    out = np.empty((rows.size, columns.size), dtype=x.dtype)
    height = max(1, READ_BYTES // (x.dtype.itemsize * (right - left)))
    for start in range(0, rows.size, height):
        wanted = rows[start : start + height]
        # What lies between the rows and columns that are wanted is read with them: picking them on disk is far slower.
        part = np.asarray(x[int(wanted[0]) : int(wanted[-1]) + 1, left:right])
        if not is_range(wanted):
            part = part[wanted - wanted[0]]
        out[start : start + height] = part if is_range(columns) else part[:, columns - left]
    return out


@layout.register(CSRDataset)
@layout.register(CSCDataset)
def _sparse_layout(x: Any) -> Layout:
    indptr = np.asarray(x.group["indptr"][:])
    stored, needed = indptr.size - 1, x.shape[0 if x.format == "csr" else 1]
    values = min(x.group["data"].shape[0], x.group["indices"].shape[0])
    if stored != needed or not (indptr[0] == 0 and (np.diff(indptr) >= 0).all() and indptr[-1] <= values):
        raise ValueError(
            f"the stored sparse matrix is damaged: shape {tuple(x.shape)}, an indptr of {stored} {'rows' if x.format == 'csr' else 'columns'} "
            f"up to {int(indptr[-1]) if indptr.size else 0}, {values} values; write the file again"
        )
    return Layout(tuple(x.shape), x.dtype.itemsize, in_memory=False, indptr=indptr, by_row=x.format == "csr")


@fetch.register(CSRDataset)
@fetch.register(CSCDataset)
def _fetch_sparse(x: Any, rows: Index, columns: Index) -> Any:
    by_row = x.format == "csr"
    major, minor = (rows, columns) if by_row else (columns, rows)
    group, width = x.group, x.shape[1 if by_row else 0]
    kind = sparse.csr_array if by_row else sparse.csc_array
    parts = [kind((0, width) if by_row else (width, 0), dtype=x.dtype)]
    if major.size:
        indptr = np.asarray(group["indptr"][int(major[0]) : int(major[-1]) + 2], dtype=np.int64)
        parts = [
            _read_range(group, indptr, major[piece] - major[0], minor, width, kind)
            for piece in _pieces(major, indptr, x.dtype.itemsize + 4)
        ]
    if len(parts) == 1:
        return parts[0]
    return sparse.vstack(parts, format="csr") if by_row else sparse.hstack(parts, format="csc")


def _pieces(major: Index, indptr: NDArray[np.int64], bytes_each: int) -> list[slice]:
    """Ranges of `major` of at most READ_BYTES with what lies between; one piece where nothing does."""
    if is_range(major):
        return [slice(0, major.size)]
    pieces, start = [], 0
    local = major - major[0]
    for k in range(1, major.size + 1):
        if k == major.size or (indptr[local[k] + 1] - indptr[local[start]]) * bytes_each > READ_BYTES:
            pieces.append(slice(start, k))
            start = k
    return pieces


def _read_range(group: Any, indptr: NDArray[np.int64], local: Index, minor: Index, width: int, kind: Any) -> Any:
    """Rows (or columns) `local` of a compressed group, whose `indptr` begins with the first one that is wanted at all."""
    here = indptr[local[0] : local[-1] + 2]
    data = np.asarray(group["data"][int(here[0]) : int(here[-1])])
    indices = np.asarray(group["indices"][int(here[0]) : int(here[-1])])
    by_row = kind is sparse.csr_array
    count = here.size - 1
    shape = (count, width) if by_row else (width, count)
    part = kind((data, indices, (here - here[0]).astype(indices.dtype)), shape=shape)
    if local.size < count:
        part = part[local - local[0]] if by_row else part[:, local - local[0]]
    if minor.size == width:
        return part
    return part[:, minor] if by_row else part[minor]
