"""Scans of `LinearMixedModel`: features as columns of P A in memory, or as rows of stored arrays through dask."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annlmm.model.association import OK, UNTESTED, Association, Scan
from annlmm.model.design import COLLINEAR_TOLERANCE
from annlmm.model.parallel import map_blocks, processors
from annlmm.model.rotated import ROUNDING, RotatedData, WeightedData

Float = NDArray[np.float64]
COLUMNS = ("beta", "sigma_sq", "chi_sq", "p_value", "standard_error")
# A block that has to be converted; products of narrower ones than this are slow.
BLOCK_BYTES, NARROW = 2**28, 1024


def alternatives_table(data: RotatedData, scan: Scan, pa: NDArray[Any], a: NDArray[Any] | None) -> pd.DataFrame:
    """Test the columns of `pa` (r × m), with `a` (n × m) for a low-rank model, a block of columns at a time."""
    m, threads = pa.shape[1], processors()
    weighted = data.weighted(scan)
    # Several blocks to a thread, so that none waits for the last one.
    width = max(1, min(BLOCK_BYTES // (8 * (data.s.size + data.y.size)), max(NARROW, -(-m // (4 * threads)))))

    def part(i: int) -> Float:
        return _block(data, weighted, pa[:, i : i + width], None if a is None else a[:, i : i + width])

    parts = list(map_blocks(part, range(0, m, width), threads))
    table = np.concatenate(parts) if parts else np.zeros((0, len(COLUMNS)))
    return pd.DataFrame(table, columns=list(COLUMNS), index=pd.RangeIndex(m, name="idx"))


def _block(data: RotatedData, weighted: WeightedData, pa: NDArray[Any], a: NDArray[Any] | None) -> Float:
    """The five columns of one block: as it is, then once more with care for the features that this leaves unsettled."""
    scan = weighted.scan
    rotated = np.asarray(pa, dtype=np.float64)
    features = rotated if a is None else np.asarray(a, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        num, den, unsettled = weighted.ratios(rotated, features)
    table = _columns(scan.finish(num, den, np.where(unsettled, UNTESTED, OK).astype(np.int8), "lrt"))
    again = np.flatnonzero(unsettled)
    if again.size:
        rotated, features = rotated[:, again], features[:, again]
        # One bad value makes one bad feature: its columns are zeroed for the products and NaN in the table.
        bad = ~(np.isfinite(rotated).all(axis=0) & np.isfinite(features).all(axis=0))
        rotated = np.where(bad, 0.0, rotated)
        features = rotated if a is None else np.where(bad, 0.0, features)
        part = _columns(
            scan.test(
                data.features(rotated, features, ROUNDING if pa.dtype.itemsize >= 8 else COLLINEAR_TOLERANCE), "lrt"
            )
        )
        part[bad] = np.nan
        table[again] = part
    return table


def _columns(result: Association) -> Float:
    return np.stack([getattr(result, name) for name in COLUMNS], axis=1)


def is_lazy(value: Any) -> bool:
    """Whether features come as a dask array or as the path of a zarr array."""
    return isinstance(value, (str, PathLike)) or type(value).__module__.split(".")[0] == "dask"


def _stored(name: str, path: str | PathLike[str]) -> Any:
    import dask.array as da

    try:
        return da.from_zarr(path)
    except (OSError, ValueError, TypeError, KeyError) as error:  # zarr's own derive from these
        raise ValueError(f"{name}: {str(path)!r} is not the path of a zarr array ({error})") from error


def dask_alternatives(data: RotatedData, scan: Scan, pa: Any, a: Any, partition_size: int | None) -> pd.DataFrame:
    """Test the rows of (P A)ᵀ, m × r, with Aᵀ, m × n, one task per `partition_size` rows, on dask's current scheduler."""
    try:
        import dask.array as da
    except ImportError as error:
        raise ImportError(
            "features in dask or zarr arrays need dask; install it with: pip install 'annlmm[lazy]'"
        ) from error

    arrays = []
    for name, value, width in (("pa", pa, data.s.size), ("a", a, data.y.size)):
        if value is None:
            continue
        array = _stored(name, value) if isinstance(value, (str, PathLike)) else da.asarray(value)
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

    weighted = data.weighted(scan)

    def task(*blocks: NDArray[Any]) -> Float:
        return _block(data, weighted, blocks[0].T, blocks[1].T if len(blocks) > 1 else None)

    table = da.map_blocks(
        task, *arrays, dtype=np.float64, chunks=(arrays[0].chunks[0], (len(COLUMNS),)), meta=np.zeros((0, 0))
    )
    return pd.DataFrame(np.asarray(table.compute()), columns=list(COLUMNS), index=pd.RangeIndex(m, name="idx"))
