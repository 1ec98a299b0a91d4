"""A scan: blocks of features through the statistics to the tests, for one or several responses at their null γ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm.model.association import ALL_MISSING, OK, UNTESTED, Association, Scan
from annlmm.model.basis import Basis, DenseBasis
from annlmm.model.design import Design
from annlmm.model.exact import ExactScan, grouped_tests
from annlmm.model.space import RemlSpace
from annlmm.model.statistics import UNSETTLED, FeatureStatistics, feature_statistics, raw_statistics
from annlmm.model.triangular import TriangularScan, triangular_scan

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


class ScanEngine:
    """Everything that blocks of features need, for one or several responses on the same rows.

    A block is first tested as it is: nothing of it is copied or changed. Features that this cannot settle (missing
    values, an offset that costs digits, a constant, a combination of the covariates) show in the sums themselves; these
    alone are copied, filled, shifted and tested again.

    Parameters
    ----------
    design, basis
        X and K.
    my
        n × T responses with the fixed effects projected out.
    scans
        One prepared scan at the null's γ per response.
    exact
        One refit per response: for every feature with ``variance="refit"``, for those below a threshold with "screen", and
        for group-constant features whose effect the null's γ has absorbed.
    test
        'wald', 'lrt' or 'score'.
    variance
        'null', 'refit' or 'screen'.
    threshold
        p-value below which "screen" refits.
    grouped_df
        Whether group-constant features are tested on the degrees of freedom of their groups.
    """

    def __init__(
        self,
        design: Design,
        basis: Basis,
        my: Float,
        scans: list[Scan],
        exact: list[ExactScan],
        *,
        test: str = "wald",
        variance: str = "null",
        threshold: float = 0.0,
        grouped_df: bool = True,
    ) -> None:
        self.design, self.basis, self.my, self.scans, self.exact = design, basis, my, scans, exact
        self.test_name, self.variance, self.threshold = test, variance, threshold
        self.grouped_df = grouped_df and test == "wald"
        self.triangular: TriangularScan | None = None
        if len(scans) == 1 and isinstance(basis, DenseBasis) and variance != "refit":
            self.triangular = triangular_scan(scans[0], my[:, 0], design, basis)

    @property
    def space(self) -> RemlSpace:
        return self.scans[0].space

    def __call__(self, block: tuple[NDArray[np.intp], Any]) -> tuple[NDArray[np.intp], list[Association]]:
        """Test a (columns, array) pair; the columns come back with the results."""
        return block[0], self.test(block[1])

    def test(self, block: Any) -> list[Association]:
        """Test the columns of a block (n × b, dense or CSC, float64); it is not changed."""
        if self.triangular is not None and not sparse.issparse(block):
            ratios = self.triangular.ratios(block)
            unsettled = ~(ratios.den[0] > UNSETTLED * ratios.norm)
            status = np.where(unsettled, UNTESTED, OK).astype(np.int8)
            results = [self.scans[0].finish(ratios.num[0], ratios.den[0], status, self.test_name)]
        else:
            features, unsettled = raw_statistics(block, self.my, self.design, self.basis, self.space)
            settled = np.flatnonzero(~unsettled)
            results = [Association.empty(unsettled.size, UNTESTED) for _ in self.scans]
            for result, part in zip(results, self._evaluate(features.take(settled)), strict=True):
                result.assign(settled, part)
        again = np.flatnonzero(unsettled)
        if again.size:
            for result, part in zip(results, self._carefully(block[:, again]), strict=True):
                result.assign(again, part)
        if self.variance == "screen":
            self._screen(block, results)
        return results

    def _evaluate(self, features: FeatureStatistics) -> list[Association]:
        """Every response against features whose statistics are final."""
        if not self.grouped_df:
            features = replace(features, grouped=np.zeros_like(features.grouped))
        if self.variance == "refit" and self.test_name != "score":
            return [exact.test(features, t) for t, exact in enumerate(self.exact)]
        results = [scan.test(features, self.test_name, t) for t, scan in enumerate(self.scans)]
        if features.grouped.any():
            for t, (scan, exact, result) in enumerate(zip(self.scans, self.exact, results, strict=True)):
                grouped_tests(scan, exact, features, t, result)
        return results

    def _carefully(self, block: Any) -> list[Association]:
        """The same for a few columns, with missing values filled and offsets removed first."""
        features, empty = self._careful_features(block)
        results = self._evaluate(features)
        for result in results:
            result.status[empty] = ALL_MISSING
        return results

    def _careful_features(self, block: Any) -> tuple[FeatureStatistics, NDArray[np.bool_]]:
        block = block.copy() if sparse.issparse(block) else np.array(block, order="C")
        filled, _, empty = fill_missing(block)
        return feature_statistics(filled, self.my, self.design, self.basis, self.space), empty

    def _screen(self, block: Any, results: list[Association]) -> None:
        """Refit what is below the threshold."""
        for t, result in enumerate(results):
            chosen = np.flatnonzero((result.p_value < self.threshold) & ~result.refit)
            if chosen.size:
                features, _ = self._careful_features(block[:, chosen])
                if not self.grouped_df:
                    features = replace(features, grouped=np.zeros_like(features.grouped))
                result.assign(chosen, self.exact[t].test(features, t))
