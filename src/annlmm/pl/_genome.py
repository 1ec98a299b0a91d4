"""Places on the genome: order of chromosomes, and the x coordinate of every feature."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._read import to_float

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

UNPLACED = "?"
_SPECIAL = {"x": 0, "z": 0, "y": 1, "w": 1, "xy": 2, "par": 2, "m": 3, "mt": 3, "mito": 3}
_ROMAN = re.compile(r"(?=[ivx])(x{0,3})(ix|iv|v?i{0,3})", re.IGNORECASE)


def sort_chromosomes(names: Iterable[str]) -> list[str]:
    """
    Sort chromosomes as a reader expects them: 1, 2, …, 10, X, Y, MT, then contigs; also I, II, III, IV.

    Examples
    --------
    >>> sort_chromosomes(["X", "10", "2", "MT", "1"])
    ['1', '2', '10', 'X', 'MT']
    """
    names = list(names)
    roman = "II" in {n.upper() for n in names} and not any(n[:1].isdigit() for n in names)

    def place(name: str) -> tuple[Any, ...]:
        lower = name.lower()
        if roman and (match := _ROMAN.fullmatch(lower)):
            tens, ones = match.groups()
            value = {"": 0, "i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9}[ones]
            return (0, 10 * len(tens) + value, "")
        if match := re.fullmatch(r"(\d+)([a-z]?)", lower):
            return (0, int(match[1]), match[2])
        if lower in _SPECIAL:
            return (1, _SPECIAL[lower], lower)
        parts = tuple((0, int(t), "") if t.isdigit() else (1, 0, t) for t in re.findall(r"\d+|\D+", lower))
        return (2, 0, "", parts)

    return sorted(names, key=place)


@dataclass(frozen=True)
class Layout:
    """Where features lie on the x axis."""

    x: NDArray[np.float64]
    """Coordinate of each feature, shape (m,)."""
    block: NDArray[np.intp]
    """Index into `names`, shape (m,)."""
    names: list[str]
    """Chromosomes in order; empty when features are drawn in the order of `.var`."""
    starts: NDArray[np.float64]
    """First x of each chromosome."""
    stops: NDArray[np.float64]
    """Last x of each chromosome."""
    position_column: str | None
    """The column that x comes from."""


def lay_out(var: pd.DataFrame, rows: NDArray[np.intp], chrom: str | None, pos: str | None) -> Layout:
    """
    Give every drawn feature its x coordinate.

    Parameters
    ----------
    var
        `adata.var`.
    rows
        Features to be drawn, shape (m,).
    chrom, pos
        Columns of `var`, or None.

    Raises
    ------
    KeyError
        If `chrom` or `pos` names a column that does not exist (the defaults may be absent).
    TypeError
        If the positions are not numbers.
    """
    chrom = _find(var, chrom, "chrom", ("chrom",), "the features in the order of adata.var")
    if chrom is None:
        x = rows.astype(np.float64)
        return Layout(x, np.zeros(rows.size, dtype=np.intp), [], x[:1], x[-1:], None)
    pos = _find(var, pos, "pos", ("pos", "start"), "each chromosome's features in the order of adata.var")
    block, names = _read_chromosomes(var[chrom], rows)
    position = _read_positions(var, pos, rows)
    block[np.isnan(position)] = -1
    n_unplaced = int((block < 0).sum())
    if n_unplaced:
        columns = f"adata.var[{chrom!r}]" + ("" if pos is None else f" and adata.var[{pos!r}]")
        warnings.warn(
            f"{n_unplaced} of {rows.size} tested features have no place in {columns}; "
            f"they are drawn last, as chromosome {UNPLACED!r}",
            UserWarning,
            stacklevel=3,
        )
        names = [*names, UNPLACED]
        block[block < 0] = len(names) - 1
    used = np.flatnonzero(np.bincount(block, minlength=len(names)))
    block = np.searchsorted(used, block)
    names = [names[i] for i in used]
    if pos is None:
        position = np.zeros(rows.size)
    for i, name in enumerate(names):
        if pos is None or name == UNPLACED:
            inside = np.flatnonzero(block == i)
            position[inside] = np.arange(inside.size)
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    np.minimum.at(low, block, position)
    np.maximum.at(high, block, position)
    if names[-1] == UNPLACED and pos is not None and len(names) > 1:
        # Ranks next to base pairs: the unplaced get the density of the placed.
        n_placed = max(rows.size - n_unplaced, 1)
        step = max(float((high - low)[:-1].sum()), 1.0) / n_placed
        last = block == len(names) - 1
        position[last] *= step
        high[-1] *= step
    if len(names) == 1:
        return Layout(position, block, names, low, high, pos)
    span = high - low
    total = max(float(span.sum()), 1.0)
    gap = total * min(0.006, 0.1 / len(names))
    # Too few features to show how long their chromosome is: room as for so many elsewhere, with them in the middle.
    count = np.bincount(block)
    room = np.maximum(span, np.where(count < 5, total * count / rows.size, 0.5 * gap))
    low, span = low - 0.5 * (room - span), room
    starts = np.concatenate([[0.0], np.cumsum(span[:-1] + gap)])
    return Layout(position + (starts - low)[block], block, names, starts, starts + span, pos)


def _find(
    var: pd.DataFrame, column: str | None, argument: str, defaults: tuple[str, ...], otherwise: str
) -> str | None:
    if column is None or column in var:
        return column
    if column != defaults[0]:
        shown = ", ".join(map(repr, list(var.columns)[:12])) or "none"
        raise KeyError(
            f"{argument}={column!r}: adata.var has no such column (it has {shown}); "
            f"name another, or pass {argument}=None to draw {otherwise}"
        )
    return next((name for name in defaults if name in var), None)


def _read_chromosomes(column: pd.Series[Any], rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], list[str]]:
    import pandas as pd

    from annlmm._slots.positions import chromosome_name

    # Text is handled once per chromosome, not once per feature.
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, raw = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, raw = pd.factorize(column)
    codes = np.asarray(codes)[rows]
    stripped = [chromosome_name(name) for name in raw]
    present = np.zeros(len(stripped), dtype=bool)
    present[codes[codes >= 0]] = True
    unique = list(dict.fromkeys(name for name, here in zip(stripped, present, strict=True) if name and here))
    ordered = isinstance(column.dtype, pd.CategoricalDtype) and bool(column.dtype.ordered)
    names = unique if ordered else sort_chromosomes(unique)
    place = {name: i for i, name in enumerate(names)}
    lookup = np.array([place.get(name, -1) for name in stripped] + [-1], dtype=np.intp)
    return lookup[codes], names


def _read_positions(var: pd.DataFrame, pos: str | None, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    import pandas as pd

    if pos is None:
        return np.zeros(rows.size)
    column = var[pos]
    if not pd.api.types.is_numeric_dtype(column.dtype):
        raise TypeError(
            f"pos={pos!r}: adata.var[{pos!r}] has dtype {column.dtype}, not a number; "
            f"convert it with pandas.to_numeric, or pass pos=None"
        )
    return to_float(column)[rows]
