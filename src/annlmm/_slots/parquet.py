"""Pairs beyond memory: a parquet file in row groups, complete or not there at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Written and read as a whole: about 100 MB.
ROW_GROUP = 2**20
# Where the digest of the pairs stands in the metadata of the file.
RUN = b"annlmm_run"


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
    trial = _temporary(path)
    try:  # before anything is computed
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _unwritable(path: Path, error: OSError) -> OSError:
    """The same error, with the argument and the remedy."""
    reason = error.strerror or str(error)
    text = f"output: {str(path)!r} cannot be written ({reason}); free space or name another folder. Nothing was left there, adata is unchanged"
    return type(error)(error.errno, text) if error.errno is not None else OSError(text)


class PairFile:
    """Tables with the same columns, one row group each, under a temporary name until the last one is written."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, _temporary(path)
        self._writer: Any = None
        self._digest = hashlib.blake2b(digest_size=8)

    @property
    def run(self) -> str:
        """Digest of what was written: names, effects and p-values. The same run again has the same."""
        return self._digest.hexdigest()

    def write(self, columns: Mapping[str, Any]) -> None:
        arrow = pyarrow()
        arrays = {name: _array(arrow, values) for name, values in columns.items()}
        table = arrow.table(arrays)
        try:
            if self._writer is None:
                self._writer = arrow.parquet.ParquetWriter(str(self.temporary), table.schema, compression="zstd")
            self._writer.write_table(table, row_group_size=ROW_GROUP)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        for name, values in columns.items():
            if name in ("gene", "variant", "context"):
                self._digest.update("\0".join(map(str, values.categories)).encode())
                self._digest.update(np.ascontiguousarray(values.codes, dtype=np.int32).data)
            elif name.endswith(("beta", "p_value")) and not name.startswith("neg_log10"):
                self._digest.update(np.ascontiguousarray(values, dtype=np.float64).data)

    def close(self) -> None:
        """Give the file its name, in place of what had it."""
        try:
            self._writer.add_key_value_metadata({RUN.decode(): self.run})
            self._writer.close()
            os.replace(self.temporary, self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def abort(self) -> None:
        """Leave nothing behind."""
        try:
            if self._writer is not None:
                try:
                    self._writer.close()
                except OSError:  # it writes the footer, for which a full disk has no room; once is enough
                    self._writer.is_open = False
        finally:
            self.temporary.unlink(missing_ok=True)


def _array(arrow: Any, values: Any) -> Any:
    if not isinstance(values, pd.Categorical):
        return arrow.array(np.asarray(values))
    codes = arrow.array(values.codes.astype(np.int32), mask=values.codes < 0)
    return arrow.DictionaryArray.from_arrays(
        codes, arrow.array([str(c) for c in values.categories], type=arrow.string())
    )


def read_pairs(path: Path, genes: Sequence[str] | None, highest: float | None, run: str | None = None) -> pd.DataFrame:
    """The pairs of some genes, or all, with p-values up to `highest`; only what may be among them is read.

    With `run` they must be those of that run (`PairFile.run`); earlier files do not say, and are taken.
    """
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
    try:
        with arrow.parquet.ParquetFile(str(path)) as file:
            names = set(file.schema_arrow.names)
            written = (file.metadata.metadata or {}).get(RUN)
        if lacking := {"gene", "variant", "p_value"} - names:
            raise ValueError(
                f"path: {str(path)!r} has no column {', '.join(map(repr, sorted(lacking)))}; name the file that al.tl.map_eqtl wrote (output=)"
            )
        if run is not None and written is not None and written.decode() != run:
            raise ValueError(
                f"path: {str(path)!r} holds the pairs of another run of al.tl.map_eqtl, which had the same output=; run it again with an output= of "
                "its own, or pass path= of the right file"
            )
        table = arrow.parquet.read_table(str(path), filters=where or None).unify_dictionaries()
        # What a file says about pandas (its index, its types) is not ours to follow.
        frame = table.replace_schema_metadata(None).to_pandas()
    except (arrow.ArrowException, OSError, MemoryError) as error:
        raise ValueError(
            f"path: {str(path)!r} is no parquet file of al.tl.map_eqtl, or a damaged one ({' '.join(str(error).split())[:200]}); copy it "
            "again, or run al.tl.map_eqtl again"
        ) from error
    for name in frame:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            categories = pd.Index(np.asarray(frame[name].cat.categories, dtype=object))
            frame[name] = pd.Categorical.from_codes(frame[name].cat.codes, categories=categories)
    return frame
