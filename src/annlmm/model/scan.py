"""A scan: features through their sums and statistics to the tests, for one or several responses at their null γ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm.model.association import ALL_MISSING, CONSTANT, OK, UNTESTED, Association, Scan
from annlmm.model.basis import Basis, DenseBasis, Projection
from annlmm.model.cached import cached_property
from annlmm.model.design import Design
from annlmm.model.exact import ExactScan, grouped_tests
from annlmm.model.rotation import Rotated, Rotation, make_rotation
from annlmm.model.space import RemlSpace
from annlmm.model.statistics import UNSETTLED, FeatureStatistics, feature_statistics
from annlmm.model.sums import Finisher, Reduction, Sums, make_reduction
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


@dataclass(frozen=True)
class FeatureTests:
    """One test of features against every response.

    Attributes
    ----------
    test
        'wald', 'lrt' or 'score'.
    variance
        'null', 'refit' or 'screen'.
    scans
        One prepared scan at the null's γ per response.
    exact
        One refit per response: for every feature with ``variance="refit"``, for those below a threshold with "screen" and, if
        they are group-constant, in any case.
    threshold
        That p-value.
    grouped_df
        Whether group-constant features are tested on the degrees of freedom of their groups.
    """

    test: str
    variance: str
    scans: list[Scan]
    exact: list[ExactScan]
    threshold: float = 0.0
    grouped_df: bool = True

    def evaluate(self, features: FeatureStatistics) -> list[Association]:
        """Every response against features whose statistics are final."""
        features = self._visible_groups(features)
        if self.variance == "refit" and self.test != "score":
            return [exact.test(features, t) for t, exact in enumerate(self.exact)]
        results = [scan.test(features, self.test, t) for t, scan in enumerate(self.scans)]
        if features.grouped.any():
            for t, (scan, exact, result) in enumerate(zip(self.scans, self.exact, results, strict=True)):
                grouped_tests(scan, exact, features, t, result, self.threshold)
        if self.variance == "screen":
            for t, result in enumerate(results):
                below = self.below(result)
                if below.size:
                    result.assign(below, self.exact[t].test(features.take(below), t))
        return results

    def below(self, result: Association) -> NDArray[np.intp]:
        """Features that a screen is to refit."""
        return np.flatnonzero((result.p_value < self.threshold) & ~result.refit)

    def refit(self, features: FeatureStatistics, response: int) -> Association:
        """The exact test of one response."""
        return self.exact[response].test(self._visible_groups(features), response)

    def _visible_groups(self, features: FeatureStatistics) -> FeatureStatistics:
        if self.grouped_df and self.test == "wald":
            return features
        return replace(features, grouped=np.zeros_like(features.grouped))


@dataclass(frozen=True)
class Evaluator:
    """From the sums of features to their tests; holds nothing as long as the rows, so that it travels to other processes.

    The results of all responses of the first test come first, then those of the second.
    """

    finisher: Finisher
    tests: list[FeatureTests]
    refuse_missing: bool = False

    def __call__(self, sums: Sums) -> tuple[list[Association], NDArray[np.intp]]:
        """Results, and the features that the sums leave unsettled."""
        if self.refuse_missing and sums.missing is not None:
            raise UnusableFeatures("missing", np.flatnonzero(sums.missing.square))
        features, unsettled = self.finisher(sums)
        if not unsettled.any():
            return self.evaluate(features), np.zeros(0, dtype=np.intp)
        settled = np.flatnonzero(~unsettled)
        parts = self.evaluate(features.take(settled))
        results = [Association.empty(unsettled.size, UNTESTED) for _ in parts]
        for result, part in zip(results, parts, strict=True):
            result.assign(settled, part)
        return results, np.flatnonzero(unsettled)

    def evaluate(self, features: FeatureStatistics) -> list[Association]:
        """All tests of all responses."""
        return [result for tests in self.tests for result in tests.evaluate(features)]


class UnusableFeatures(ValueError):
    """Features that hold what cannot be tested: 'infinite' or 'missing' values."""

    def __init__(self, problem: str, positions: NDArray[np.intp]) -> None:
        super().__init__(problem, positions)
        self.problem, self.positions = problem, positions


@contextmanager
def among(columns: NDArray[np.intp]) -> Iterator[None]:
    """Say which of a wider range of features are unusable, not which of a block."""
    try:
        yield
    except UnusableFeatures as error:
        raise UnusableFeatures(error.problem, columns[error.positions]) from None


class ScanEngine:
    """Everything that features need, for one or several responses on the same rows.

    Features are first reduced to sums as they are: nothing is copied or changed. Those that this cannot settle (an
    offset that costs digits, a constant, a combination of the covariates, nothing but missing values) show in the sums
    themselves; these alone are copied, filled, shifted and tested again.

    Parameters
    ----------
    design, basis
        X and K.
    my
        n × T responses with the fixed effects projected out.
    tests
        What is tested.
    refuse_missing
        Raise `UnusableFeatures` where values are missing.
    """

    def __init__(
        self,
        design: Design,
        basis: Basis,
        my: Float,
        tests: list[FeatureTests],
        *,
        refuse_missing: bool = False,
        threads: int = 1,
    ) -> None:
        self.design, self.basis, self.my = design, basis, my
        self.space: RemlSpace = tests[0].scans[0].space
        self.reduction: Reduction = make_reduction(my, design, basis, self.space)
        self.evaluator = Evaluator(self.reduction.finisher, tests, refuse_missing)
        self.tests, self.threads = tests, threads
        self._lock = Lock()

    @cached_property
    def dense(self) -> Callable[[Float], tuple[list[Association], NDArray[np.intp]]] | None:
        """The way of dense blocks; None where that of the sums is as good. Made when the first one comes: it is as large as U."""
        tests, basis = self.tests, self.basis
        if not isinstance(basis, DenseBasis):
            return None
        first = tests[0].scans[0]
        # One response at one γ: the rotation is not needed.
        alone = len(tests[0].scans) == 1 and all(
            each.scans[0].gamma == first.gamma and each.variance != "refit" for each in tests
        )
        triangular = triangular_scan(first, self.my[:, 0], self.design, basis, self.threads) if alone else None
        if triangular is not None:
            return partial(self._triangular, triangular)
        # Without a refit the Schur term on X is there too, which at full rank costs less than V.
        if tests[0].variance == "refit" or 2 * basis.rank <= basis.n:
            return partial(self._rotated, make_rotation(self.my, self.design, basis, self.space))
        return None

    def test(self, block: Any) -> list[Association]:
        """Test a block of features on all rows (n × b: numpy, CSR or CSC); it is not changed."""
        with self._lock:
            dense = None if sparse.issparse(block) else self.dense
        if dense is None:
            return self._settled(block, *self.evaluator(self.reduction.rows.sums(block)))
        # What is missing is filled first: a product with it would have to be repeated.
        with np.errstate(invalid="ignore", over="ignore"):
            gaps = np.flatnonzero(~np.isfinite(np.ones(block.shape[0]) @ block))
        if not gaps.size:
            return self._settled(block, *dense(block))
        with among(gaps):
            filled, empty = clean_copy(block[:, gaps], refuse_missing=self.evaluator.refuse_missing)
        block = np.array(block, dtype=np.float64)
        block[:, gaps] = filled
        results = self._settled(block, *dense(block))
        for result in results:
            result.status[gaps[empty]] = ALL_MISSING
        return results

    def _settled(self, block: Any, results: list[Association], unsettled: NDArray[np.intp]) -> list[Association]:
        """The results, with those of unsettled features replaced."""
        if unsettled.size:
            with among(unsettled):
                parts = self.carefully(block[:, unsettled])
            for result, part in zip(results, parts, strict=True):
                result.assign(unsettled, part)
        return results

    def carefully(self, block: Any) -> list[Association]:
        """The same for a few features, with missing values filled and offsets removed first."""
        if self.design.spans_constant and not sparse.issparse(block):
            varying = np.flatnonzero(((block != block[0]) | ~np.isfinite(block[0])).any(axis=0))
            if varying.size < block.shape[1]:  # constants need no test
                return self._some(block, varying)
        features, empty = self._careful_features(block)
        results = self.evaluator.evaluate(features)
        for result in results:
            result.status[empty] = ALL_MISSING
        return results

    def _some(self, block: Float, varying: NDArray[np.intp]) -> list[Association]:
        """`carefully` for some features of a block, of which the others are constant."""
        results = [Association.empty(block.shape[1], CONSTANT) for tests in self.evaluator.tests for _ in tests.scans]
        if varying.size:
            with among(varying):
                parts = self.carefully(block[:, varying])
            for result, part in zip(results, parts, strict=True):
                result.assign(varying, part)
        return results

    def _triangular(self, triangular: TriangularScan, block: Float) -> tuple[list[Association], NDArray[np.intp]]:
        """Without statistics; a screen makes those of the features that it refits."""
        with np.errstate(invalid="ignore", over="ignore"):
            ratios = triangular.ratios(block)
        unsettled = ~(ratios.den[0] > UNSETTLED * ratios.norm)
        status = np.where(unsettled, UNTESTED, OK).astype(np.int8)
        results = []
        for tests in self.evaluator.tests:
            result = tests.scans[0].finish(ratios.num[0], ratios.den[0], status, tests.test)
            below = tests.below(result) if tests.variance == "screen" else np.zeros(0, dtype=np.intp)
            if below.size:
                result.assign(below, tests.refit(self._careful_features(block[:, below])[0], 0))
            results.append(result)
        return results, np.flatnonzero(unsettled)

    def _rotated(self, rotation: Rotation, block: Float) -> tuple[list[Association], NDArray[np.intp]]:
        """Straight into the REML space."""
        with np.errstate(invalid="ignore", over="ignore"):
            features = rotation(block)
            results = [
                tests.exact[t].test_rotated(features, t)
                if tests.variance == "refit" and tests.test != "score"
                else self._at_null(tests, rotation, features, t)
                for tests in self.evaluator.tests
                for t in range(rotation.responses)
            ]
        return results, np.flatnonzero(features.status == UNTESTED)

    def _at_null(self, tests: FeatureTests, rotation: Rotation, features: Rotated, response: int) -> Association:
        """One test at the γ of the null; a screen refits from where the features are."""
        scan = tests.scans[response]
        num, den = rotation.ratios(features, scan.gls.gamma, response)
        result = scan.finish(num, den, features.status.copy(), tests.test)
        below = tests.below(result) if tests.variance == "screen" else np.zeros(0, dtype=np.intp)
        if below.size:
            result.assign(below, tests.exact[response].test_rotated(features.take(below), response))
        return result

    def _careful_features(self, block: Any) -> tuple[FeatureStatistics, NDArray[np.bool_]]:
        refuse = self.evaluator.refuse_missing
        return careful_statistics(block, self.my, self.design, self.basis, self.space, refuse_missing=refuse)


def clean_copy(block: Any, *, refuse_missing: bool = False) -> tuple[Any, NDArray[np.bool_]]:
    """A float64 copy of features (numpy or CSC) with the mean for what is missing, and which of them are all missing.

    Raises `UnusableFeatures` for infinite values, and for missing ones if they are refused.
    """
    if sparse.issparse(block):
        block = block.tocsc().astype(np.float64)
        block.sum_duplicates()
        of_column = np.repeat(np.arange(block.shape[1]), np.diff(block.indptr))
        infinite = np.bincount(of_column[np.isinf(block.data)], minlength=block.shape[1]) > 0
    else:
        block = np.array(block, dtype=np.float64, order="C")
        infinite = np.isinf(block).any(axis=0)
    if infinite.any():
        raise UnusableFeatures("infinite", np.flatnonzero(infinite))
    filled, counts, empty = fill_missing(block)
    if refuse_missing and counts.any():
        raise UnusableFeatures("missing", np.flatnonzero(counts))
    return filled, empty


def careful_statistics(
    block: Any, my: Float, design: Design, basis: Projection, space: RemlSpace, *, refuse_missing: bool = False
) -> tuple[FeatureStatistics, NDArray[np.bool_]]:
    """Statistics of a few features from a copy that is filled and shifted, and which of them are all missing."""
    filled, empty = clean_copy(block, refuse_missing=refuse_missing)
    return feature_statistics(filled, my, design, basis, space), empty
