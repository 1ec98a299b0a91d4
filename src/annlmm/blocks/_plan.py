"""How a pass over a matrix is cut: column by column where a block can hold all rows, otherwise over rows.

Statistics add over rows and concatenate over columns. A tile is a range of columns whose statistics (r + l numbers per
column) are held at once; its blocks are read one after the other and cover the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from annlmm.blocks._layout import Index, Layout

# Fewer columns than this make slow products and short reads: rows are cut instead.
NARROW = 256


@dataclass(frozen=True)
class Limits:
    """What a pass may hold.

    Attributes
    ----------
    memory
        Bytes, all blocks in flight and their statistics together.
    threads
        Blocks that are worked on at once.
    statistics
        Numbers per column that the statistics of a block take.
    """

    memory: int
    threads: int
    statistics: int


@dataclass(frozen=True)
class Block:
    """Positions among the rows that are used, start to stop."""

    start: int
    stop: int


@dataclass(frozen=True)
class Tile:
    """Columns, and the blocks of rows that make up their statistics."""

    columns: Index
    blocks: tuple[Block, ...]


def plan(how: Layout, rows: Index, columns: Index, limits: Limits) -> Iterator[Tile]:
    """Cut a pass over `rows` × `columns` so that it keeps to `limits` and reads what is stored together at once."""
    n, m, flight = rows.size, columns.size, limits.threads + 1
    # Statistics of the blocks in flight and their total take half of the memory, what is read the other half.
    widest = max(1, limits.memory // (2 * 8 * limits.statistics * (flight + 1)))
    if how.indptr is not None:
        if how.by_row:
            yield from _by_row(how, rows, columns, min(widest, m), limits)
        else:
            # Columns of which half of the memory holds the stored values at their mean density.
            each = (how.itemsize + 12) * max(1.0, float(how.indptr[-1]) / max(1, how.shape[1]))
            fits = int(limits.memory / (2 * each * flight))
            yield from _whole(n, columns, _narrow(min(widest, fits), m, limits))
        return
    # Whole columns: as they lie, as float64, and rotated.
    width = limits.memory // (8 * (n * how.copies + limits.statistics) * flight)
    needed = min(m, how.chunk[1] if how.chunk[1] > 1 else NARROW)
    if width >= needed or limits.statistics >= n:
        width = max(1, width)
        if how.chunk[1] > 1:
            width = max(1, width // how.chunk[1]) * how.chunk[1] if width >= how.chunk[1] else width
        yield from _whole(n, columns, _narrow(width, m, limits))
        return
    width = min(widest, m)
    values = limits.memory // (2 * 8 * how.copies * flight)
    height = max(1, values // width)
    tall, wide = how.chunk
    if height < tall:
        # A chunk is decoded as a whole, once: rather fewer columns, and no less than one chunk.
        width = min(width, max(wide, values // tall // wide * wide))
        height = tall
    elif tall > 1:
        height = height // tall * tall
    elif how.in_memory:
        height = min(height, -(-n // (4 * limits.threads)))
    # Cut where chunks end.
    edges = np.unique(rows // height if tall > 1 else np.arange(n) // height, return_index=True)[1]
    blocks = _blocks(edges, n)
    for start in range(0, m, width):
        yield Tile(columns[start : start + width], blocks)


def _narrow(width: int, m: int, limits: Limits) -> int:
    """Several blocks to a thread, so that none waits for the last one."""
    return min(max(1, width), max(NARROW, -(-m // (4 * limits.threads))))


def _whole(n: int, columns: Index, width: int) -> Iterator[Tile]:
    for start in range(0, columns.size, width):
        yield Tile(columns[start : start + width], (Block(0, n),))


def _by_row(how: Layout, rows: Index, columns: Index, width: int, limits: Limits) -> Iterator[Tile]:
    """Row ranges with equal numbers of stored values, as many as memory asks for and each thread needs."""
    indptr = np.asarray(how.indptr)
    stored = np.cumsum(indptr[rows + 1] - indptr[rows], dtype=np.int64)
    total = int(stored[-1]) if stored.size else 0
    # A block in memory is a view, unless columns are picked.
    each = how.itemsize + 4 + (0 if how.in_memory and columns.size == how.shape[1] else how.itemsize + 4)
    count = -(-total * each * 2 * (limits.threads + 1) // limits.memory)
    count = max(limits.threads if how.in_memory else 1, int(count))
    cuts = np.searchsorted(stored, np.linspace(0, total, count + 1)[1:-1], side="right")
    blocks = _blocks(np.unique(np.r_[0, cuts]), rows.size)
    for start in range(0, columns.size, width):
        yield Tile(columns[start : start + width], blocks)


def _blocks(edges: Index, n: int) -> tuple[Block, ...]:
    ends = [int(e) for e in edges if e < n] + [n]
    return tuple(Block(a, b) for a, b in pairwise(ends))
