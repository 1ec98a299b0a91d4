"""Sums over rows: what features are reduced to, some rows at a time, before anything else is done with them.

Of a block A of features on some of the rows, with U, Q and My on the same rows:

    UᵀA (or the sums over groups),   QᵀA,   (My)ᵀA,   1ᵀA,   colsum(A²).

They add over rows and concatenate over columns, so that dense, sparse, stored and distributed features are one algorithm.
Directions of Q that lie in span(U) (the intercept and donor-level covariates under a donor kernel, everything under a
kernel of full rank) are not summed: with UᵀQ = A cosθ Bᵀ and cosθ = 1, Qb = Ua and (Qb)ᵀA = aᵀ(UᵀA).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import null_space

from annlmm.model.basis import Basis, DenseBasis, GroupCoordinates, GroupedBasis
from annlmm.model.design import Design
from annlmm.model.space import RemlSpace
from annlmm.model.statistics import UNSETTLED, FeatureStatistics, assemble

Float = NDArray[np.float64]
Index = NDArray[np.intp]
# Rows that are shifted at a time, at least: many more would cost page faults, many fewer the addition of their sums.
STRIP_ROWS = 256


@dataclass(frozen=True)
class Sums:
    """Of b features over some rows.

    Attributes
    ----------
    inside
        Uᵀa (r × b), or sums over groups (D × b).
    linear
        Products with the columns of `RowPart.linear`, l × b.
    square
        Σa², b.
    missing
        The same of the indicators of missing values, which count as 0 above; None where there are none.
    """

    inside: Float
    linear: Float
    square: Float
    missing: Sums | None = None

    def __add__(self, other: Sums) -> Sums:
        missing = self.missing if other.missing is None else other.missing
        if self.missing is not None and other.missing is not None:
            missing = self.missing + other.missing
        return Sums(self.inside + other.inside, self.linear + other.linear, self.square + other.square, missing)

    def take(self, start: int, stop: int) -> Sums:
        """Of some of the features."""
        missing = None if self.missing is None else self.missing.take(start, stop)
        return Sums(self.inside[:, start:stop], self.linear[:, start:stop], self.square[start:stop], missing)

    def scaled(self, factor: Float) -> Sums:
        """Of the features times `factor` (b)."""
        return Sums(self.inside * factor, self.linear * factor, self.square * factor**2)


@dataclass(frozen=True)
class RowPart:
    """The model on some of the rows.

    Attributes
    ----------
    linear
        n_b × l: the constant (where U is dense), directions of Q outside span(U), My.
    u
        n_b × r; None for groups.
    codes
        Group of each row; empty for a dense U.
    n_groups
        D.
    """

    linear: Float
    u: Float | None
    codes: Index
    n_groups: int

    def sums(self, block: Any, pivot: Float | None = None) -> Sums:
        """Reduce a block (n_b × b: numpy, CSR or CSC, float32 or float64, not changed), less `pivot` (b) if it is dense."""
        if sparse.issparse(block):
            sums = self._sparse(block)
            if np.isfinite(sums.square).all() or not np.isnan(block.data).any():
                return sums
            gaps = np.isnan(block.data)
            filled, gap = block.copy(), block.copy()
            filled.data[gaps], gap.data = 0.0, gaps.astype(block.data.dtype)
            return replace(self._sparse(filled), missing=self._sparse(gap))
        with np.errstate(invalid="ignore", over="ignore"):
            return self._filled(block, np.zeros(block.shape[1]) if pivot is None else pivot, shifted=pivot is not None)

    def _filled(self, block: Float, pivot: Float, *, shifted: bool) -> Sums:
        """With 0 for what is missing."""
        if self.u is None and block.flags.c_contiguous:
            from annlmm.model.dense_sums import group_sums  # compiles

            sums = Sums(*group_sums(block, self.codes, self.n_groups, self.linear, pivot))
        elif shifted:
            sums = self._in_strips(block, pivot)
        else:
            sums = self._dense(np.asarray(block, dtype=np.float64))
        columns = np.flatnonzero(~np.isfinite(sums.square))
        gaps = np.isnan(block[:, columns])
        if not gaps.any():
            return sums
        some = self._dense(np.where(gaps, 0.0, block[:, columns] - pivot[columns]))
        missing = Sums(np.zeros_like(sums.inside), np.zeros_like(sums.linear), np.zeros_like(sums.square))
        for out, part in ((sums, some), (missing, self._dense(gaps.astype(np.float64)))):
            out.inside[:, columns], out.linear[:, columns], out.square[columns] = part.inside, part.linear, part.square
        return replace(sums, missing=missing)

    def _in_strips(self, block: Float, pivot: Float) -> Sums:
        """Less the pivot, a few rows at a time: a copy of the whole block would cost more than the sums."""
        n = block.shape[0]
        height = max(STRIP_ROWS, 4 * (self.n_groups if self.u is None else self.u.shape[1]))
        height = -(-n // max(1, n // height))
        copy = np.empty((min(n, height), block.shape[1]))
        total: Sums | None = None
        for start in range(0, n, height):
            stop = min(n, start + height)
            strip = np.subtract(block[start:stop], pivot, out=copy[: stop - start])
            sums = self.part(start, stop)._dense(strip)
            total = sums if total is None else total + sums
        return self._dense(copy) if total is None else total

    def part(self, start: int, stop: int) -> RowPart:
        """Rows `start` to `stop`."""
        u = None if self.u is None else self.u[start:stop]
        return RowPart(self.linear[start:stop], u, self.codes[start:stop], self.n_groups)

    def _dense(self, block: Float) -> Sums:
        if self.u is not None:
            # A feature's coordinates lie together, which a refit goes along.
            inside = (block.T @ self.u).T
        else:
            n = block.shape[0]
            indicator = sparse.csr_array((np.ones(n), (self.codes, np.arange(n))), shape=(self.n_groups, n))
            inside = np.asarray(indicator @ block)
        return Sums(inside, self.linear.T @ block, np.einsum("ij,ij->j", block, block))

    def _sparse(self, block: Any) -> Sums:
        from annlmm.model.sparse_sums import dense_sums, group_sums  # compiles

        if self.u is not None:
            return Sums(*dense_sums(block, self.u, self.linear))
        return Sums(*group_sums(block, self.codes, self.n_groups, self.linear))


@dataclass(frozen=True)
class Reduction:
    """Q, My and K on all rows, and how sums over them become statistics.

    Attributes
    ----------
    rows
        The model on all rows.
    finisher
        From sums to statistics.
    spans_constant
        Whether features may be shifted freely.
    """

    rows: RowPart
    finisher: Finisher
    spans_constant: bool

    @property
    def size(self) -> int:
        """Numbers per feature in its sums."""
        rows = self.rows
        return rows.linear.shape[1] + 1 + (rows.n_groups if rows.u is None else rows.u.shape[1])


@dataclass(frozen=True)
class Finisher:
    """From the sums over all rows to `FeatureStatistics`; holds nothing as long as the rows.

    Attributes
    ----------
    space
        REML space.
    groups
        Coordinates in the span of the groups; None for a dense U.
    a, b
        r × k and p × k: Q b = U a, the directions of Q that are in span(U).
    b_out
        p × (p − k): the others.
    responses
        T.
    """

    space: RemlSpace
    groups: GroupCoordinates | None
    a: Float
    b: Float
    b_out: Float
    responses: int

    def __call__(self, sums: Sums) -> tuple[FeatureStatistics, NDArray[np.bool_]]:
        """Statistics, and which features they leave unsettled: nothing but missing values, an offset that costs digits."""
        with np.errstate(invalid="ignore", over="ignore"):
            if sums.missing is not None:
                sums = self._filled(sums, sums.missing)
            total = self._total(sums)
            if self.groups is None:
                u, grouped = sums.inside, None
            else:
                scaled = self.groups.scale(sums.inside)
                u, grouped = self.groups.rotate(scaled), self.groups.mostly_between(scaled, sums.square)
            first = sums.linear.shape[0] - self.responses
            out = sums.linear[first - self.b_out.shape[1] : first]
            q = self.b @ (self.a.T @ u) + self.b_out @ out
            y = np.ascontiguousarray(sums.linear[first:].T)
            features = assemble(u, q, y, sums.square, total, self.space, grouped)
            return features, ~(features.norm > UNSETTLED * sums.square)

    def _filled(self, sums: Sums, missing: Sums) -> Sums:
        """With the mean of what is there in place of what is missing."""
        count = missing.square
        mean = self._total(sums) / np.maximum(self.space.n - count, 1.0)
        return replace(sums, missing=None) + replace(missing.scaled(mean), square=count * mean**2)

    def _total(self, sums: Sums) -> Float:
        return sums.linear[0] if self.groups is None else sums.inside.sum(axis=0)


def make_reduction(my: Float, design: Design, basis: Basis, space: RemlSpace) -> Reduction:
    """Prepare the sums of features against X, K and the n × T responses `my`, free of X already."""
    angles = space.angles
    common = angles.sin == 0
    # sinθ is taken for 0 up to 1e-6; only where Qb = Ua to all digits may one stand for the other.
    apart = basis.expand(angles.a[:, common]) - design.q @ (angles.t.T @ angles.a[:, common])
    common[common] = np.linalg.norm(apart, axis=0) < 1e-12
    a = angles.a[:, common]
    b = angles.t.T @ a  # Bᵀ = cosθ⁻¹ Aᵀ T with cosθ = 1
    b_out = null_space(b.T) if common.any() else np.eye(design.p)
    outside = design.q @ b_out if common.any() else design.q
    if isinstance(basis, GroupedBasis):
        linear = np.column_stack([outside, my])
        rows = RowPart(np.ascontiguousarray(linear), None, basis.codes, basis.counts.size)
        groups: GroupCoordinates | None = basis.coordinates
    elif isinstance(basis, DenseBasis):
        linear = np.column_stack([np.ones(design.n), outside, my])
        rows, groups = RowPart(np.ascontiguousarray(linear), basis.u, np.zeros(0, dtype=np.intp), 0), None
    else:
        raise TypeError(f"no sums for a {type(basis).__name__}")
    return Reduction(rows, Finisher(space, groups, a, b, b_out, my.shape[1]), design.spans_constant)
