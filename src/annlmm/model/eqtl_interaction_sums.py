"""One pass over the cells for genotype × context: sums over donors of a gene, and of the gene times each context.

With c̃_j the deviation of context j from its donors' means, Z_j = diag(c̃_j) Z and S_j = Z_jᵀZ_j (D × D, diagonal),

    u = [N^{−½}Zᵀ, S_1^{−½}Z_1ᵀ, S_2^{−½}Z_2ᵀ, …] My,      ((1+J)D numbers per gene)

is all that a model with a random intercept and a random slope per donor needs besides ‖My‖²: cells are read once for all contexts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm.model.basis import GroupCoordinates, Projection
from annlmm.model.cached import cached_property
from annlmm.model.design import Design
from annlmm.model.space import RemlSpace, make_angles
from annlmm.model.sums import Finisher, Reduction, RowPart, Sums

Float = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class ContextBasis(Projection):
    """[ZN^{−½}, Z_1S_1^{−½}, …]: what genes are projected on. Contexts need not be orthogonal to each other.

    Attributes
    ----------
    codes
        Donor of each row.
    deviations
        n × J, c̃_j; each sums to zero within donors.
    """

    codes: Index
    deviations: Float

    @property
    def n(self) -> int:
        return self.codes.size

    @cached_property
    def counts(self) -> Float:
        return np.bincount(self.codes).astype(np.float64)

    @cached_property
    def spreads(self) -> Float:
        """s_dj = Σ c̃_j² over the cells of a donor, J × D."""
        squares = [np.bincount(self.codes, column**2, self.counts.size) for column in self.deviations.T]
        return np.stack(squares) if squares else np.zeros((0, self.counts.size))

    @property
    def eigenvalues(self) -> Float:
        return np.concatenate([self.counts, self.spreads.ravel()])

    @cached_property
    def coordinates(self) -> ContextCoordinates:
        return ContextCoordinates(self.counts, None, self.spreads)

    def project(self, a: Any) -> Float:
        columns = [np.ones(self.n), *self.deviations.T]
        sums = [weighted_sums(a, self.codes, column, self.counts.size) for column in columns]
        return self.coordinates.scale(np.concatenate(sums))


@dataclass(frozen=True)
class ContextCoordinates(GroupCoordinates):
    """From sums over donors, with and without contexts, to coordinates.

    Attributes
    ----------
    spreads
        J × D; coordinates of donors without spread are 0.
    """

    spreads: Float

    def scale(self, sums: Float) -> Float:
        of = np.concatenate([self.counts, self.spreads.ravel()])
        inverse = np.where(of > 0, 1.0 / np.sqrt(np.where(of > 0, of, 1.0)), 0.0)
        return np.asarray((sums.T * inverse).T)

    def mostly_between(self, scaled: Float, square: Float) -> NDArray[np.bool_]:
        return np.zeros(square.size, dtype=bool)


def weighted_sums(a: Any, codes: Index, weights: Float, n_groups: int) -> Float:
    """Sums of a (n, or n × b, dense or sparse) times `weights` over groups."""
    indicator = sparse.csr_array((weights, (codes, np.arange(codes.size))), shape=(n_groups, codes.size))
    sums = indicator @ a
    return np.asarray(sums.toarray() if sparse.issparse(sums) else sums, dtype=np.float64)


@dataclass(frozen=True)
class ContextRowPart(RowPart):
    """Some of the rows, with the contexts on them.

    Attributes
    ----------
    deviations
        n_b × J.
    """

    deviations: Float

    def part(self, start: int, stop: int) -> ContextRowPart:
        rows = super().part(start, stop)
        return ContextRowPart(rows.linear, None, rows.codes, rows.n_groups, self.deviations[start:stop])

    def sums(self, block: Any, pivot: Float | None = None) -> Sums:
        sums = super().sums(block, pivot)
        if not self.deviations.shape[1]:
            return sums
        if sparse.issparse(block):
            gaps = np.isnan(block.data) if sums.missing is not None else None
            values = block if gaps is None else _like(block, np.where(gaps, 0.0, block.data))
            missing = None if gaps is None else _like(block, gaps.astype(np.float64))
        else:
            gaps = np.isnan(block) if sums.missing is not None else None
            values = block if pivot is None else block - pivot
            values = values if gaps is None else np.where(gaps, 0.0, values)
            missing = None if gaps is None else gaps.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            out = replace(sums, inside=np.concatenate([sums.inside, *map(self._times(values), self.deviations.T)]))
            if sums.missing is None:
                return out
            gap = np.concatenate([sums.missing.inside, *map(self._times(missing), self.deviations.T)])
        return replace(out, missing=replace(sums.missing, inside=gap))

    def _times(self, values: Any) -> Any:
        """From a context to the sums of values times it."""
        if not sparse.issparse(values):
            return lambda column: weighted_sums(values, self.codes, column, self.n_groups)
        from annlmm.model.sparse_sums import group_sums  # compiles

        major = np.repeat(np.arange(values.indptr.size - 1), np.diff(values.indptr))
        rows = major if values.format == "csr" else values.indices
        nothing = np.zeros((self.codes.size, 1))
        return lambda column: group_sums(_like(values, values.data * column[rows]), self.codes, self.n_groups, nothing)[
            0
        ]


def _like(block: Any, data: Float) -> Any:
    return type(block)((data, block.indices, block.indptr), shape=block.shape)


@dataclass(frozen=True)
class ContextFinisher(Finisher):
    """Of sums of which the first D are those over donors."""

    def _total(self, sums: Sums) -> Float:
        size = self.groups.counts.size if self.groups is not None else 0
        return np.asarray(sums.inside[:size].sum(axis=0))


def make_context_reduction(design: Design, basis: ContextBasis) -> tuple[Reduction, RemlSpace]:
    """How genes are summed against X and the donors; the space says how X lies to the donors (T = `angles.t`)."""
    t = basis.project(design.q)
    space = RemlSpace(design.n, design.p, basis.eigenvalues, make_angles(t, design.n + t.shape[0]))
    linear = np.ascontiguousarray(design.q)
    rows = ContextRowPart(linear, None, basis.codes, basis.counts.size, basis.deviations)
    # Every direction of Q is summed: those in the span of the donors are few.
    nothing = np.zeros((t.shape[0], 0)), np.zeros((design.p, 0))
    finisher = ContextFinisher(space, basis.coordinates, *nothing, np.eye(design.p), 0)
    return Reduction(rows, finisher, design.spans_constant), space
