"""Pairs beyond memory: a parquet file in row groups, complete or not there at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Written and read as a whole: about 100 MB.
ROW_GROUP = 2**20


def pyarrow() -> Any:
    """The package, which is not a dependency."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "output: parquet files are written and read by pyarrow; install it: pip install pyarrow"
        ) from error
    return pyarrow


def check_output(output: Any) -> Path:
    """A path in a folder that exists."""
    if not isinstance(output, (str, os.PathLike)):
        raise TypeError(
            f"output: must be the path of a parquet file, received {output!r} of type {type(output).__name__}"
        )
    path = Path(output)
    if path.suffix != ".parquet":
        raise ValueError(f"output: must end in .parquet, received {str(output)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"output: the folder {str(path.parent)!r} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"output: {str(path)!r} is a folder")
    pyarrow()
    return path


class PairFile:
    """Tables with the same columns, one row group each, under a temporary name until the last one is written."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, path.with_name(f".{path.name}.{os.getpid()}.part")
        self._writer: Any = None

    def write(self, columns: Mapping[str, Any]) -> None:
        arrow = pyarrow()
        arrays = {name: _array(arrow, values) for name, values in columns.items()}
        table = arrow.table(arrays)
        if self._writer is None:
            self._writer = arrow.parquet.ParquetWriter(str(self.temporary), table.schema, compression="zstd")
        self._writer.write_table(table, row_group_size=ROW_GROUP)

    def close(self) -> None:
        """Give the file its name, in place of what had it."""
        self._writer.close()
        os.replace(self.temporary, self.path)

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._writer is not None:
            self._writer.close()
        self.temporary.unlink(missing_ok=True)


def _array(arrow: Any, values: Any) -> Any:
    if not isinstance(values, pd.Categorical):
        return arrow.array(np.asarray(values))
    codes = arrow.array(values.codes.astype(np.int32), mask=values.codes < 0)
    return arrow.DictionaryArray.from_arrays(
        codes, arrow.array([str(c) for c in values.categories], type=arrow.string())
    )


def read_pairs(path: Path, genes: Sequence[str] | None, highest: float | None) -> pd.DataFrame:
    """The pairs of some genes, or all, with p-values up to `highest`; only what may be among them is read."""
    arrow = pyarrow()
    if not path.is_file():
        raise FileNotFoundError(
            f"the pairs were written to {str(path)!r}, which is not there; pass path= if the file has moved, or run al.tl.map_eqtl again"
        )
    where: list[tuple[str, str, Any]] = []
    if genes is not None:
        where.append(("gene", "in", list(genes)))
    if highest is not None:
        where.append(("p_value", "<=", highest))
    table = arrow.parquet.read_table(str(path), filters=where or None).unify_dictionaries()
    frame = table.to_pandas()
    for name in frame:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            categories = pd.Index(np.asarray(frame[name].cat.categories, dtype=object))
            frame[name] = pd.Categorical.from_codes(frame[name].cat.codes, categories=categories)
    return frame
