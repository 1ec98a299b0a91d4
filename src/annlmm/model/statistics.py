"""Sufficient statistics of a block of features: all that a test at any γ needs of it.

They concatenate over columns; a block is dense (n × b) or CSC, in float64, with missing values already filled.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm.model.basis import Projection
from annlmm.model.design import COLLINEAR_TOLERANCE, Design
from annlmm.model.space import ORTHOGONAL, RemlSpace

Float = NDArray[np.float64]


# Where less than this share of Σa² is left once the fixed effects are out, too many digits of it may be gone: at most
# four are lost above it.
UNSETTLED = 1e-4


@dataclass(frozen=True)
class FeatureStatistics:
    """Of b features ã = Ma, the fixed effects projected out.

    Attributes
    ----------
    u
        Uᵀã, r × b.
    y
        ãᵀ(My), b × T for T responses.
    norm
        ‖ã‖².
    outside
        c_ãã = ‖ã‖² − ‖Uᵀã‖², exactly 0 where nothing orthogonal to X is outside U.
    constant, collinear
        Per feature: no variation; a linear combination of the fixed effects.
    grouped
        Per feature: constant, or nearly so, within the groups of a group kernel.
    """

    u: Float
    y: Float
    norm: Float
    outside: Float
    constant: NDArray[np.bool_]
    collinear: NDArray[np.bool_]
    grouped: NDArray[np.bool_]

    def take(self, chosen: NDArray[np.intp]) -> FeatureStatistics:
        """Some of the features."""
        return FeatureStatistics(
            self.u[:, chosen],
            self.y[chosen],
            self.norm[chosen],
            self.outside[chosen],
            self.constant[chosen],
            self.collinear[chosen],
            self.grouped[chosen],
        )

    def blank(self, size: int) -> FeatureStatistics:
        """Zeros for `size` features of the same kernel and responses, to be filled."""
        per_feature = {f.name: np.zeros(size, getattr(self, f.name).dtype) for f in fields(self)}
        return FeatureStatistics(
            **per_feature | {"u": np.zeros((len(self.u), size)), "y": np.zeros((size, self.y.shape[1]))}
        )

    def assign(self, positions: NDArray[np.intp], part: FeatureStatistics) -> None:
        """Fill in the statistics of some features."""
        self.u[:, positions] = part.u
        for f in fields(self):
            if f.name != "u":
                getattr(self, f.name)[positions] = getattr(part, f.name)


def shift_columns(block: Any) -> Any:
    """Subtract each column's first value, so that an offset costs no digits; sparse columns only where no zero is implicit.

    For use where the design spans the constant. Changes `block` in place and returns it.
    """
    if sparse.issparse(block):
        n = block.shape[0]
        full = np.flatnonzero(np.diff(block.indptr) == n)
        for j in full:
            values = block.data[block.indptr[j] : block.indptr[j + 1]]
            values -= values[0]
        return block
    block -= block[0].copy()
    return block


def feature_statistics(block: Any, my: Float, design: Design, basis: Projection, space: RemlSpace) -> FeatureStatistics:
    """Statistics of a block, shifted by the caller's leave (it may be overwritten).

    Parameters
    ----------
    block
        n × b float64, dense or CSC.
    my
        n × T, responses with the fixed effects projected out.
    """
    if design.spans_constant:
        block = shift_columns(block)
    square, total, q, y = _sums(block, my, design)
    grouped = basis.constant_within(block, square)
    if sparse.issparse(block):
        return assemble(basis.project(block), q, y, square, total, space, grouped)
    residual = design.residualise(block)
    return of_residual(basis.project(residual), residual, my, square, total, space, grouped)


def _sums(block: Any, my: Float, design: Design) -> tuple[Float, Float, Float, Float]:
    """Σa², Σa, Qᵀa and aᵀ(My)."""
    if sparse.issparse(block):
        square = np.asarray(block.multiply(block).sum(axis=0)).ravel()
        total = np.asarray(block.sum(axis=0)).ravel()
        return square, total, np.asarray((block.T @ design.q).T), np.asarray(block.T @ my)
    return np.einsum("ij,ij->j", block, block), block.sum(axis=0), design.q.T @ block, block.T @ my


def assemble(
    u: Float,
    q: Float,
    y: Float,
    square: Float,
    total: Float,
    space: RemlSpace,
    grouped: NDArray[np.bool_] | None = None,
) -> FeatureStatistics:
    """From the raw sums Uᵀa, Qᵀa, yᵀa, Σa², Σa: the fixed effects leave by differences, which cost digits."""
    t = space.angles.t
    u = u if np.abs(t).max(initial=0.0) < ORTHOGONAL else u - (q.T @ t.T).T
    return _statistics(u, square - np.einsum("pj,pj->j", q, q), y, square, total, space, grouped)


def of_residual(
    u: Float,
    residual: Float,
    my: Float,
    square: Float,
    total: Float,
    space: RemlSpace,
    grouped: NDArray[np.bool_] | None = None,
) -> FeatureStatistics:
    """From ã = Ma itself (n × b) with u = Uᵀã, and Σa², Σa before the projection."""
    norm = np.einsum("ij,ij->j", residual, residual)
    return _statistics(u, norm, residual.T @ my, square, total, space, grouped)


def _statistics(
    u: Float,
    left: Float,
    y: Float,
    square: Float,
    total: Float,
    space: RemlSpace,
    grouped: NDArray[np.bool_] | None,
) -> FeatureStatistics:
    constant = square - total**2 / space.n <= COLLINEAR_TOLERANCE**2 * square
    collinear = left <= COLLINEAR_TOLERANCE**2 * square
    outside = np.zeros_like(square) if space.angles.complete else np.maximum(left - np.einsum("rj,rj->j", u, u), 0.0)
    grouped = np.zeros(square.size, dtype=bool) if grouped is None else grouped
    return FeatureStatistics(u, y, left, outside, constant, collinear, grouped)
