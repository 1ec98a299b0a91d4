"""Text input shared by the readers: every error names the argument, the file and the line."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

MISSING = frozenset({"NA", "na", "NaN", "nan"})
"""Spellings of a missing number."""


def as_path(path: object, argument: str) -> Path:
    """A path given by the user, with ``~`` expanded; TypeError where it is no path."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`{argument}` must be a path (str or os.PathLike), got {type(path).__name__}.")
    return Path(os.fspath(path)).expanduser()


def existing_file(path: object, argument: str, remedy: str) -> Path:
    """`path` as a Path to an existing file; FileNotFoundError with the remedy otherwise."""
    file = as_path(path, argument)
    if not file.is_file():
        found = "is a folder" if file.is_dir() else "does not exist"
        raise FileNotFoundError(f"`{argument}`: {str(file)!r} {found}. {remedy}")
    return file


@contextmanager
def open_text(path: Path, argument: str) -> Iterator[TextIO]:
    """Open a text file, gzipped or not (told by its first two bytes, not by its name)."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if zipped else raw
        try:
            yield io.TextIOWrapper(stream, encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"`{argument}`: {path.name} is not a text file ({error}).") from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"`{argument}`: {path.name} is a damaged gzip file ({error}). Copy it again.") from error


def split_lines(path: Path, argument: str, *, commas: bool) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line; only the end of the file may be blank.

    Fields are separated by blanks or tabs, with `commas` by commas too (GEMMA's rule for BIMBAM files).
    """
    blank = 0
    with open_text(path, argument) as lines:
        for number, line in enumerate(lines, 1):
            fields = (line.replace(",", " ") if commas else line).split()
            if not fields:
                blank = blank or number
                continue
            if blank:
                raise ValueError(f"`{argument}`: line {blank} of {path.name} is blank. Remove it.")
            yield number, fields


def read_columns(
    path: Path, argument: str, names: Sequence[str], *, at_least: int, at_most: int | None, commas: bool = False
) -> list[list[str]]:
    """The columns of a table without header, as text; every line must have the same number of fields.

    `names` describes the columns in error messages; `at_least` and `at_most` bound their number.
    """
    columns: list[list[str]] = []
    for number, fields in split_lines(path, argument, commas=commas):
        if not columns:
            if len(fields) < at_least or (at_most is not None and len(fields) > at_most):
                wanted = f"{at_least}" if at_most == at_least else f"at least {at_least}"
                if at_most is not None and at_most > at_least:
                    wanted = f"{at_least} to {at_most}"
                raise ValueError(
                    f"`{argument}`: {path.name} must have {wanted} columns ({', '.join(names)}), "
                    f"line {number} has {len(fields)}: {' '.join(fields)[:80]!r}."
                )
            columns = [[] for _ in fields]
        elif len(fields) != len(columns):
            raise ValueError(
                f"`{argument}`: line {number} of {path.name} has {len(fields)} fields, the lines before have "
                f"{len(columns)}: {' '.join(fields)[:80]!r}."
            )
        for column, field in zip(columns, fields, strict=True):
            column.append(field)
    if not columns:
        raise ValueError(f"`{argument}`: {path.name} is empty.")
    return columns


def in_line(what: str, path: Path, line: int) -> str:
    """The place of a field of a column, for `to_float` and `to_int`."""
    return f"{what} in line {line} of {path.name}"


def in_column(what: str, path: Path, line: int, column: int) -> str:
    """The place of a field of a line, for `to_float`."""
    return f"{what} {column} in line {line} of {path.name}"


def to_float(
    fields: Sequence[str], place: Callable[[int], str], *, missing_allowed: bool = True
) -> NDArray[np.float64]:
    """Numbers from text, with NA as NaN. `place` names the 1-based place of a field in error messages."""
    try:
        values = np.array(fields, dtype=np.float64)
        suspicious = not np.isfinite(values).all()
    except ValueError:
        values = np.empty(len(fields))
        suspicious = True
    if suspicious:
        for index, field in enumerate(fields):
            if field in MISSING and missing_allowed:
                values[index] = np.nan
                continue
            try:
                values[index] = float(field)
            except ValueError:
                values[index] = np.nan
            if not np.isfinite(values[index]):
                allowed = " or NA" if missing_allowed else ""
                raise ValueError(f"{place(index + 1)} must be a finite number{allowed}, got {field!r}.")
    return values


def to_int(fields: Sequence[str], place: Callable[[int], str]) -> NDArray[np.int64]:
    """Integers from text. `place` names the 1-based place of a field in error messages."""
    try:
        return np.array([int(field) for field in fields], dtype=np.int64)
    except (ValueError, OverflowError):
        for index, field in enumerate(fields):
            try:
                np.int64(int(field))
            except (ValueError, OverflowError):
                raise ValueError(f"{place(index + 1)} must be an integer, got {field!r}.") from None
        raise


def float_dtype(dtype: DTypeLike) -> np.dtype[np.floating]:
    """float32 or float64; integers are refused because they cannot hold a missing call."""
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"`dtype` must be float32 or float64, got {dtype!r}.") from None
    if found not in (np.float32, np.float64):
        raise ValueError(f"`dtype` must be float32 or float64 (a missing call is NaN), got {found}.")
    return found
