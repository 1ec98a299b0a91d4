"""A scan: blocks of features through the statistics to the tests, for one or several responses at their null γ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm.model.association import ALL_MISSING, Association, Scan
from annlmm.model.basis import Basis
from annlmm.model.design import Design
from annlmm.model.statistics import feature_statistics

Float = NDArray[np.float64]


def fill_missing(block: Any) -> tuple[Any, NDArray[np.intp], NDArray[np.bool_]]:
    """Replace NaN by the column's mean over the rows where it is present, in place.

    Returns the block, the number of missing values per column and whether a column has nothing else.
    """
    n = block.shape[0]
    if sparse.issparse(block):
        missing = np.isnan(block.data)
        if not missing.any():
            return block, np.zeros(block.shape[1], dtype=np.intp), np.zeros(block.shape[1], dtype=bool)
        of_column = np.repeat(np.arange(block.shape[1]), np.diff(block.indptr))
        counts = np.bincount(of_column[missing], minlength=block.shape[1])
        sums = np.bincount(of_column, weights=np.where(missing, 0.0, block.data), minlength=block.shape[1])
        means = sums / np.maximum(n - counts, 1)
        block.data[missing] = means[of_column[missing]]
        return block, counts, counts == n
    missing = np.isnan(block)
    counts = missing.sum(axis=0)
    if counts.any():
        columns = np.flatnonzero(counts)
        part, gaps = block[:, columns], missing[:, columns]
        # About the first present value, so that a column with an offset keeps its digits.
        pivot = part[np.argmin(gaps, axis=0), np.arange(columns.size)]
        present = np.where(gaps, 0.0, part - pivot)
        means = pivot + present.sum(axis=0) / np.maximum(n - counts[columns], 1)
        block[:, columns] = np.where(gaps, np.where(counts[columns] == n, 0.0, means), part)
    return block, counts, counts == n


def scan_blocks(
    blocks: Iterable[tuple[NDArray[np.intp], Any]],
    my: Float,
    scans: list[Scan],
    tests: list[str],
    design: Design,
    basis: Basis,
) -> Iterator[tuple[NDArray[np.intp], list[Association]]]:
    """Test every feature of every block against every response.

    Parameters
    ----------
    blocks
        (columns, n × b array) pairs; the arrays may be overwritten.
    my
        n × T responses with the fixed effects projected out.
    scans, tests
        One prepared scan and one name of a test per response.
    """
    for columns, array in blocks:
        filled, _, empty = fill_missing(array)
        features = feature_statistics(filled, my, design, basis, scans[0].space)
        results = [
            scan.test(features, test, response) for response, (scan, test) in enumerate(zip(scans, tests, strict=True))
        ]
        for result in results:
            result.status[empty] = ALL_MISSING
        yield columns, results
