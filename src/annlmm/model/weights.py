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

from annlmm.model.basis import Basis, DenseBasis, GroupBasis
from annlmm.model.design import Design, make_design
from annlmm.model.eigen import Spectrum, from_factor, from_kernel

Float = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class WeightedGroupBasis(Basis):
    """R Z K_d Zᵀ R for groups.

    Attributes
    ----------
    codes
        n group numbers in 0 … D−1, each group present.
    root
        n square roots of the weights, positive.
    relatedness
        K_d, D × D; None for independent groups.
    """

    codes: Index
    root: Float
    relatedness: Float | None = None

    @property
    def n(self) -> int:
        return self.codes.size

    @cached_property
    def counts(self) -> Float:
        """Sums of weights per group."""
        return np.bincount(self.codes, weights=self.root**2).astype(np.float64)

    @cached_property
    def _indicator(self) -> Any:
        """(RZ)ᵀ, D × n."""
        return sparse.csr_matrix((self.root, (self.codes, np.arange(self.n))), shape=(self.counts.size, self.n))

    @cached_property
    def _spectrum(self) -> Spectrum | None:
        if self.relatedness is None:
            return None
        root = np.sqrt(self.counts)
        return from_kernel(root[:, None] * self.relatedness * root, argument="relatedness")

    @property
    def eigenvalues(self) -> Float:
        return self.counts if self._spectrum is None else self._spectrum.eigenvalues

    def project(self, a: Any) -> Float:
        sums = self._indicator @ a
        sums = np.asarray(sums.toarray() if sparse.issparse(sums) else sums, dtype=np.float64)
        scaled = (sums.T / np.sqrt(self.counts)).T
        return scaled if self._spectrum is None else self._spectrum.u.T @ scaled

    def expand(self, v: Float) -> Float:
        levels = v if self._spectrum is None else self._spectrum.u @ v
        return np.asarray(((levels.T / np.sqrt(self.counts)).T[self.codes].T * self.root).T)

    def restrict(self, kept: Index) -> WeightedGroupBasis:
        present, codes = np.unique(self.codes[kept], return_inverse=True)
        related = None if self.relatedness is None else self.relatedness[np.ix_(present, present)]
        return WeightedGroupBasis(codes.astype(np.intp), self.root[kept], related)


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
