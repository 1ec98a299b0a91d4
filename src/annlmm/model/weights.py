"""Known precision weights: V = σ²K + τ²D with D = diag(1/weights) is, on rows multiplied by √weights, the model itself.

With R = diag(√weights): R y ~ N(R X β, σ² R K R + τ² I). For groups R K R = (RZ) K_d (RZ)ᵀ has one non-zero per row still, and
(RZ)ᵀ(RZ) = N_w is diagonal, the sums of weights: N_w^½ K_d N_w^½ = W S Wᵀ, U = R Z N_w^{−½} W, never n × r.

A feature a enters as R a. Its sums over rows are those of R²a with vectors divided by √weights, (R⁻¹u)ᵀ(R²a) = uᵀ(R a), and
Zᵀ(R²a) = (RZ)ᵀ(R a) over groups, so that features are multiplied a block at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm.model.basis import Basis, DenseBasis, GroupBasis, GroupedBasis
from annlmm.model.cached import cached_property
from annlmm.model.design import Design, make_design
from annlmm.model.eigen import from_factor
from annlmm.model.sums import Reduction, RowPart, Sums

Float = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class WeightedGroupBasis(GroupedBasis):
    """R Z K_d Zᵀ R for groups; N holds the sums of weights.

    Attributes
    ----------
    root
        n square roots of the weights, positive.
    """

    codes: Index
    root: Float
    relatedness: Float | None = None

    @cached_property
    def counts(self) -> Float:
        return np.bincount(self.codes, weights=self.root**2).astype(np.float64)

    @cached_property
    def _indicator(self) -> Any:
        """(RZ)ᵀ, D × n."""
        return sparse.csr_matrix((self.root, (self.codes, np.arange(self.n))), shape=(self.counts.size, self.n))

    def expand(self, v: Float) -> Float:
        return np.asarray((super().expand(v).T * self.root).T)

    def restrict(self, kept: Index) -> WeightedGroupBasis:
        codes, related = self._kept_groups(kept)
        return WeightedGroupBasis(codes, self.root[kept], related)


def weigh_basis(basis: Basis, root: Float) -> Basis:
    """The basis of R K R."""
    if not basis.rank:
        return basis
    if isinstance(basis, GroupBasis):
        return WeightedGroupBasis(basis.codes, root, basis.relatedness)
    if isinstance(basis, DenseBasis):
        spectrum = from_factor(root[:, None] * basis.u * np.sqrt(basis.s))
        return DenseBasis(spectrum.u, spectrum.eigenvalues)
    raise TypeError(f"no weights for a {type(basis).__name__}")


def weigh_design(design: Design, root: Float) -> Design:
    """The design of R X."""
    return make_design(root[:, None] * design.x, design.names)


@dataclass(frozen=True)
class WeightedRowPart(RowPart):
    """R on some of the rows.

    Attributes
    ----------
    linear, u
        Divided by √weights.
    weights
        n_b.
    """

    weights: Float

    def part(self, start: int, stop: int) -> WeightedRowPart:
        rows = super().part(start, stop)
        return WeightedRowPart(rows.linear, rows.u, rows.codes, rows.n_groups, self.weights[start:stop])

    def sums(self, block: Any, pivot: Float | None = None) -> Sums:
        """Of R a, for features that are not weighted yet.

        Where values are missing, Σ(R a)² is NaN: what belongs in their place is a mean without weights, which takes another look.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            if sparse.issparse(block):
                major = np.repeat(np.arange(block.indptr.size - 1), np.diff(block.indptr))
                rows, columns = (major, block.indices) if block.format == "csr" else (block.indices, major)
                data = block.data * self.weights[rows]
                weighted = type(block)((data, block.indices, block.indptr), shape=block.shape)
                square = np.bincount(columns, block.data * data, block.shape[1]).astype(np.float64)
            else:
                shifted = block if pivot is None else block - pivot
                weighted = shifted * self.weights[:, None]
                square = np.einsum("ij,ij->j", shifted, weighted)
            return replace(super().sums(weighted), square=square, missing=None)


def weigh_reduction(reduction: Reduction, root: Float, *, spans_constant: bool) -> Reduction:
    """Sums of R a from features without weights; `spans_constant` says whether these may be shifted."""
    rows = reduction.rows
    u = None if rows.u is None else rows.u / root[:, None]
    weighted = WeightedRowPart(rows.linear / root[:, None], u, rows.codes, rows.n_groups, root**2)
    return replace(reduction, rows=weighted, spans_constant=spans_constant)


def weigh_features(block: Any, root: Float) -> Any:
    """R a of features on all rows, dense or sparse."""
    return block.multiply(root[:, None]).tocsc() if sparse.issparse(block) else block * root[:, None]
