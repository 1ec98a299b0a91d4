"""Known precision weights: V = σ²K + τ²D with D = diag(1/weights) is, on rows multiplied by √weights, the model itself.

With R = diag(√weights): R y ~ N(R X β, σ² R K R + τ² I). For groups R K R = (RZ) K_d (RZ)ᵀ has one non-zero per row still, and
(RZ)ᵀ(RZ) = N_w is diagonal, the sums of weights: N_w^½ K_d N_w^½ = W S Wᵀ, U = R Z N_w^{−½} W, never n × r.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm.model.basis import Basis, DenseBasis, GroupBasis, GroupedBasis
from annlmm.model.design import Design, make_design
from annlmm.model.eigen import from_factor

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
