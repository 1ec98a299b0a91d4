"""The interface: `layout(x)` says how a matrix lies, `fetch(x, rows, columns)` reads a part of it; one file per family of types."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]

# Where the types of packages that may never be needed are registered: top-level package → file.
_LATER = {"h5py": "_stored", "zarr": "_stored", "anndata": "_stored", "dask": "_dask"}


@dataclass(frozen=True)
class Layout:
    """How a matrix lies in memory or on disk.

    Attributes
    ----------
    shape
        Rows and columns.
    itemsize
        Bytes of a value as it lies.
    in_memory
        Whether reading a part costs no more than touching it.
    chunk
        Dense: rows and columns that are read together.
    indptr
        Sparse: where each row (or column) begins among the stored values; None if dense.
    by_row
        Sparse: whether rows, not columns, are stored one after the other.
    copies
        Dense: how often a block is in memory while it is read and converted to float64.
    """

    shape: tuple[int, int]
    itemsize: int
    in_memory: bool
    chunk: tuple[int, int] = (1, 1)
    indptr: NDArray[Any] | None = None
    by_row: bool = True
    copies: int = 2

    @property
    def sparse(self) -> bool:
        return self.indptr is not None


@singledispatch
def layout(x: Any) -> Layout:
    """How `x` lies."""
    _register(x)
    return layout.dispatch(type(x))(x)


@singledispatch
def fetch(x: Any, rows: Index, columns: Index) -> Any:
    """The values of `x` on `rows` × `columns` (both increasing), as numpy array, CSR or CSC; may be a view of `x` itself."""
    _register(x)
    return fetch.dispatch(type(x))(x, rows, columns)


def _register(x: Any) -> None:
    """Import the file that knows the type of `x`, or say that none does."""
    default = layout.dispatch(object)
    packages = {cls.__module__.split(".")[0] for cls in type(x).__mro__}
    for package in packages & _LATER.keys():
        import_module(f"annlmm.blocks.{_LATER[package]}")
    if layout.dispatch(type(x)) is default:
        raise TypeError(
            f"the matrix is a {type(x).__module__}.{type(x).__qualname__}, which can't be scanned; "
            "load it as a numpy array or a scipy sparse matrix (adata.to_memory())"
        )


def is_range(index: Index) -> bool:
    """Whether increasing numbers leave none out."""
    return index.size > 0 and int(index[-1]) - int(index[0]) == index.size - 1


def as_float(array: Any, *, single: bool = False) -> Any:
    """Float64 of a numpy array; sparse values, and others if `single`, may stay float32, which is exact and half as large."""
    if isinstance(array, np.ndarray):
        return np.asarray(array, dtype=np.float32 if single and array.dtype == np.float32 else np.float64)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
