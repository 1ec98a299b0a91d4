"""One pass over the features of any array type, on threads or as a dask graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from annlmm._settings import logger, settings
from annlmm.blocks import Layout, Limits, Tile, as_float, fetch, layout, plan
from annlmm.model.parallel import map_blocks
from annlmm.model.scan import UnusableFeatures, among
from annlmm.model.statistics import FeatureStatistics
from annlmm.model.sums import Reduction, Sums

Index = NDArray[np.intp]
Float = NDArray[np.float64]
Result = TypeVar("Result")

# Columns per task where statistics are turned into results.
FINISH_WIDTH = 2048


@dataclass(frozen=True)
class Features:
    """Where the features come from, and what to do with missing values."""

    adata: AnnData
    matrix: Any
    missing: str

    @property
    def refuse_missing(self) -> bool:
        return self.missing == "raise"


def one_pass(
    features: Features,
    rows: Index,
    columns: Index,
    reduction: Reduction,
    whole: Callable[[Any], Result],
    finish: Callable[[Sums], tuple[Result, Index]],
    again: Callable[[Any], Result],
    description: str,
) -> Iterator[tuple[Index, Result]]:
    """(columns, result) of all columns, some at a time.

    Parameters
    ----------
    reduction
        The model on `rows`.
    whole
        From a block on all rows (numpy, CSR, CSC) to its result.
    finish
        From sums over all rows to a result and the positions of the features that have to be read again.
    again
        From such features on all rows to their result.
    description
        For the progress bar.
    """
    how = layout(features.matrix)
    # Only one thread at a time reads a stored matrix: one more keeps all processors at work.
    limits = Limits(settings.block_memory, settings.threads + (not how.in_memory), reduction.size)
    with named_features(features.adata), _progress(columns.size, description) as advance:
        if type(features.matrix).__module__.split(".")[0] == "dask":
            finished = _on_dask(features, rows, columns, reduction, finish, limits, advance)
        else:
            tiles = list(plan(how, rows, columns, limits)) if columns.size else []
            if all(len(tile.blocks) == 1 for tile in tiles) and not _by_row(how):
                yield from _whole_columns(features, rows, tiles, whole, limits.threads, advance)
                return
            finished = _over_rows(features, rows, tiles, reduction, finish, how, limits.threads, advance)
        unsettled = []
        for chosen, (result, positions) in finished:
            yield chosen, result
            unsettled.append(chosen[positions])
        yield from _again(features, rows, np.concatenate([*unsettled, np.zeros(0, np.intp)]), again, limits)


def collect_statistics(
    features: Features,
    rows: Index,
    columns: Index,
    reduction: Reduction,
    again: Callable[[Any], tuple[FeatureStatistics, NDArray[np.bool_]]],
    description: str,
) -> tuple[FeatureStatistics, NDArray[np.bool_]]:
    """Statistics of all `columns` in their order, and which of them hold nothing but missing values.

    Parameters
    ----------
    reduction
        The model on `rows`.
    again
        From a few features on all rows, which their sums leave unsettled, to their statistics.
    """
    # Per feature: 1 where values are missing, 2 where all are. By themselves: `finish` travels to other processes, what is as long as the rows does not.
    finisher, refuse = reduction.finisher, features.refuse_missing

    def finish(sums: Sums) -> tuple[tuple[FeatureStatistics, NDArray[np.int8]], Index]:
        if refuse and sums.missing is not None:
            raise UnusableFeatures("missing", np.flatnonzero(sums.missing.square))
        statistics, unsettled = finisher(sums)
        gaps = np.zeros(unsettled.size) if sums.missing is None else sums.missing.square
        return (statistics, (gaps > 0).astype(np.int8)), np.flatnonzero(unsettled)

    def carefully(block: Any) -> tuple[FeatureStatistics, NDArray[np.int8]]:
        part, empty = again(block)
        return part, 2 * empty.astype(np.int8)

    def whole(block: Any) -> tuple[FeatureStatistics, NDArray[np.int8]]:
        (statistics, gaps), unsettled = finish(reduction.rows.sums(block))
        if unsettled.size:
            with among(unsettled):
                part, part_gaps = carefully(block[:, unsettled])
            statistics.assign(unsettled, part)
            gaps[unsettled] = np.maximum(gaps[unsettled], part_gaps)
        return statistics, gaps

    nothing, _ = finisher(reduction.rows.sums(np.zeros((rows.size, 0))))
    total, gaps = nothing.blank(columns.size), np.zeros(columns.size, dtype=np.int8)
    for chosen, (part, part_gaps) in one_pass(
        features, rows, columns, reduction, whole, finish, carefully, description
    ):
        place = np.searchsorted(columns, chosen)
        total.assign(place, part)
        gaps[place] = np.maximum(gaps[place], part_gaps)
    some = int((gaps == 1).sum())
    if some:
        logger.warning(
            f"{description}: {some} of {columns.size} features have missing values, which are filled with the feature's mean: this draws effects "
            "and shares of variance towards 0; leave such rows or features out, or pass missing='raise'"
        )
    return total, gaps == 2


def _by_row(how: Layout) -> bool:
    return how.sparse and how.by_row


def _whole_columns(
    features: Features,
    rows: Index,
    tiles: list[Tile],
    whole: Callable[[Any], Result],
    threads: int,
    advance: Callable[[float], None],
) -> Iterator[tuple[Index, Result]]:
    def task(tile: Tile) -> tuple[Index, Result]:
        with among(tile.columns):
            return tile.columns, whole(as_float(fetch(features.matrix, rows, tile.columns)))

    for columns, result in map_blocks(task, tiles, threads):
        advance(columns.size)
        yield columns, result


def _over_rows(
    features: Features,
    rows: Index,
    tiles: list[Tile],
    reduction: Reduction,
    finish: Callable[[Sums], tuple[Result, Index]],
    how: Layout,
    threads: int,
    advance: Callable[[float], None],
) -> Iterator[tuple[Index, tuple[Result, Index]]]:
    """Sums of one tile after the other; in each, the threads share the rows, then the columns."""
    for tile in tiles:
        pivot = _pivot(features.matrix, rows, tile.columns) if reduction.spans_constant and not how.sparse else None

        def sums_of(block: Any, tile: Tile = tile, pivot: Float | None = pivot) -> tuple[float, Sums]:
            values = as_float(fetch(features.matrix, rows[block.start : block.stop], tile.columns), single=True)
            share = (block.stop - block.start) / rows.size
            return share, reduction.rows.part(block.start, block.stop).sums(values, pivot)

        total: Sums | None = None
        for share, sums in map_blocks(sums_of, tile.blocks, threads):
            total = sums if total is None else total + sums
            advance(share * tile.columns.size)
        if total is None:
            continue

        def finished(start: int, tile: Tile = tile, total: Sums = total) -> tuple[Index, tuple[Result, Index]]:
            columns = tile.columns[start : start + FINISH_WIDTH]
            with among(columns):
                return columns, finish(total.take(start, start + FINISH_WIDTH))

        yield from map_blocks(finished, range(0, tile.columns.size, FINISH_WIDTH), settings.threads)


def _on_dask(
    features: Features,
    rows: Index,
    columns: Index,
    reduction: Reduction,
    finish: Callable[[Sums], tuple[Result, Index]],
    limits: Limits,
    advance: Callable[[float], None],
) -> Iterator[tuple[Index, tuple[Result, Index]]]:
    """Batches of columns whose sums fit into memory; within a batch the scheduler does as it likes."""
    from dask.base import compute

    from annlmm.blocks._dask import reduced_tiles

    pivot = _pivot(features.matrix, rows, columns) if reduction.spans_constant and columns.size else None
    width = max(1, limits.memory // (2 * 8 * limits.statistics * (limits.threads + 1)))

    def run(batch: list[tuple[Index, Any]]) -> Iterator[tuple[Index, tuple[Result, Index]]]:
        for chosen, result in zip((chosen for chosen, _ in batch), compute(*(task for _, task in batch)), strict=True):
            advance(chosen.size)
            yield chosen, result

    batch: list[tuple[Index, Any]] = []
    held = 0
    task = _Finish(finish)
    for chosen, delayed in reduced_tiles(features.matrix, rows, columns, width, reduction.rows.part, pivot, task):
        if batch and held + chosen.size > 2 * width:
            yield from run(batch)
            batch, held = [], 0
        batch.append((chosen, delayed))
        held += chosen.size
    yield from run(batch)


@dataclass(frozen=True)
class _Finish:
    """`finish`, with the columns for what it may have to say about them; travels to other processes."""

    finish: Callable[[Sums], Any]

    def __call__(self, sums: Sums, columns: Index) -> Any:
        with among(columns):
            return self.finish(sums)


def _again(
    features: Features, rows: Index, columns: Index, again: Callable[[Any], Result], limits: Limits
) -> Iterator[tuple[Index, Result]]:
    """Read a few columns on all rows."""
    columns = np.sort(columns)
    width = max(1, limits.memory // (4 * 8 * (rows.size + limits.statistics)))
    for start in range(0, columns.size, width):
        chosen = columns[start : start + width]
        with among(chosen):
            yield chosen, again(as_float(fetch(features.matrix, rows, chosen)))


def _pivot(matrix: Any, rows: Index, columns: Index) -> Float | None:
    """The first row, to be subtracted from dense features: offsets then cost no digits."""
    first = fetch(matrix, rows[:1], columns)
    if sparse.issparse(first):
        return None
    values = np.asarray(first, dtype=np.float64)[0]
    return np.where(np.isfinite(values), values, 0.0)


@contextmanager
def named_features(adata: AnnData) -> Iterator[None]:
    """Turn numbers of unusable features into a message with their names."""
    try:
        yield
    except UnusableFeatures as error:
        names = [repr(str(adata.var_names[j])) for j in error.positions]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        what = f"feature{'s' if len(names) > 1 else ''} {', '.join(names[:5])}{more}: {error.problem} values"
        remedy = "replace them or leave" if error.problem == "infinite" else "use missing='mean' or leave"
        raise ValueError(f"{what}; {remedy} these out with mask_var") from None


@contextmanager
def _progress(total: int, description: str) -> Iterator[Callable[[float], None]]:
    """A bar with rate and remaining time, from the third second on."""
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=description, unit=" features", disable=not settings.progress, delay=3.0) as bar:
        done = 0.0

        def advance(share: float) -> None:
            nonlocal done
            done += share
            bar.update(round(done) - bar.n)

        yield advance
