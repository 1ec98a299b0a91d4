"""Scans of `LinearMixedModel`: features as columns of P A in memory, or as rows of stored arrays through dask."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annlmm.model.association import Scan
from annlmm.model.rotated import RotatedData

Float = NDArray[np.float64]
COLUMNS = ("beta", "sigma_sq", "chi_sq", "p_value", "standard_error")
BLOCK_BYTES = 2**27


def alternatives_table(data: RotatedData, scan: Scan, pa: NDArray[Any], a: NDArray[Any] | None) -> pd.DataFrame:
    """Test the columns of `pa` (r × m), with `a` (n × m) for a low-rank model, a block of columns at a time."""
    m = pa.shape[1]
    width = max(1, BLOCK_BYTES // (8 * (data.s.size + data.y.size)))
    parts = [
        _block(data, scan, pa[:, i : i + width], None if a is None else a[:, i : i + width]) for i in range(0, m, width)
    ]
    table = np.concatenate(parts) if parts else np.zeros((0, len(COLUMNS)))
    return pd.DataFrame(table, columns=list(COLUMNS), index=pd.RangeIndex(m, name="idx"))


def _block(data: RotatedData, scan: Scan, pa: NDArray[Any], a: NDArray[Any] | None) -> Float:
    """The five columns of one block."""
    pa = np.array(pa, dtype=np.float64, order="C")
    a = pa if a is None else np.array(a, dtype=np.float64, order="C")
    # One bad value makes one bad feature: its columns are zeroed for the products and NaN in the table.
    bad = ~(np.isfinite(pa).all(axis=0) & np.isfinite(a).all(axis=0))
    pa[:, bad] = 0.0
    a[:, bad] = 0.0
    result = scan.test(data.features(pa, a), "lrt")
    table = np.stack([getattr(result, name) for name in COLUMNS], axis=1)
    table[bad] = np.nan
    return table


def is_lazy(value: Any) -> bool:
    """Whether features come as a dask array or as the path of a zarr array."""
    return isinstance(value, (str, PathLike)) or type(value).__module__.split(".")[0] == "dask"


def dask_alternatives(data: RotatedData, scan: Scan, pa: Any, a: Any, partition_size: int | None) -> pd.DataFrame:
    """Test the rows of (P A)ᵀ, m × r, with Aᵀ, m × n, one task per `partition_size` rows, on dask's current scheduler."""
    try:
        import dask.array as da
    except ImportError as error:
        raise ImportError(
            "features in dask or zarr arrays need dask; install it with: pip install 'annlmm[lazy]'"
        ) from error

    if partition_size is not None and (
        isinstance(partition_size, bool) or not isinstance(partition_size, (int, np.integer)) or partition_size < 1
    ):
        raise ValueError(f"partition_size: must be a positive number of features, received {partition_size!r}")
    arrays = []
    for name, value, width in (("pa", pa, data.s.size), ("a", a, data.y.size)):
        if value is None:
            continue
        array = da.from_zarr(value) if isinstance(value, (str, PathLike)) else da.asarray(value)
        if array.ndim != 2 or array.shape[1] != width:
            raise ValueError(
                f"{name}: a lazy array has features as rows and must have shape (m, {width}), received {array.shape}"
            )
        arrays.append(array)
    m = arrays[0].shape[0]
    if arrays[-1].shape[0] != m:
        raise ValueError(f"a: must have {m} rows (features) to go with pa, received {arrays[-1].shape[0]}")
    rows: Any = partition_size if partition_size is not None else arrays[0].chunks[0]
    arrays = [array.rechunk((rows, -1)) for array in arrays]

    def task(*blocks: NDArray[Any]) -> Float:
        return _block(data, scan, blocks[0].T, blocks[1].T if len(blocks) > 1 else None)

    table = da.map_blocks(
        task, *arrays, dtype=np.float64, chunks=(arrays[0].chunks[0], (len(COLUMNS),)), meta=np.zeros((0, 0))
    )
    return pd.DataFrame(np.asarray(table.compute()), columns=list(COLUMNS), index=pd.RangeIndex(m, name="idx"))
