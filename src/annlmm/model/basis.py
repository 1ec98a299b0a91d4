"""One interface over the representations of K = U S Uᵀ: a dense U, or groups whose U is never formed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm.model.cached import cached_property
from annlmm.model.eigen import Spectrum, from_factor, from_kernel

Float = NDArray[np.float64]
Index = NDArray[np.intp]

# Share of a feature's variation within groups below which its test is one of groups. Satterthwaite's degrees of freedom
# are right on either side; what is to be told apart is a genotype with a few imputed or mislabelled cells (a few
# hundredths) from a feature of cells (about one).
MOSTLY_BETWEEN = 0.1


class Projection(ABC):
    """What features are projected on: r columns U (n × r), each with an eigenvalue."""

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of observations."""

    @property
    @abstractmethod
    def eigenvalues(self) -> Float:
        """The r eigenvalues."""

    @property
    def rank(self) -> int:
        return self.eigenvalues.size

    @abstractmethod
    def project(self, a: Any) -> Float:
        """Uᵀ a for a vector or an n × m block, dense or scipy sparse."""

    def constant_within(self, block: Any, square: Float) -> NDArray[np.bool_]:
        """Which columns of a block (with sums of squares `square`) vary mostly between groups; none where there are none."""
        return np.zeros(square.size, dtype=bool)


class Basis(Projection):
    """An orthonormal eigenbasis U of a kernel K = U S Uᵀ with its non-zero eigenvalues, which are positive."""

    @abstractmethod
    def expand(self, v: Float) -> Float:
        """U v for a vector or an r × m block."""

    @abstractmethod
    def restrict(self, kept: Index) -> Basis:
        """The basis of K[kept, kept], exactly."""

    @cached_property
    def trace_scale(self) -> float:
        """t: mean diagonal of the centred kernel H K H, the variance that K gives to a unit (GEMMA's trace_G)."""
        ones = self.project(np.ones(self.n))
        s = self.eigenvalues
        return float((s.sum() - s @ ones**2 / self.n) / self.n)


@dataclass(frozen=True)
class DenseBasis(Basis):
    """U is kept as an array.

    Attributes
    ----------
    u
        n × r, orthonormal columns.
    s
        The r eigenvalues.
    centered
        Whether restricting to some rows centres the kernel again (genetic relationship matrices).
    """

    u: Float
    s: Float
    centered: bool = False

    @property
    def n(self) -> int:
        return self.u.shape[0]

    @property
    def eigenvalues(self) -> Float:
        return self.s

    def project(self, a: Any) -> Float:
        if sparse.issparse(a):
            return np.asarray((a.T @ self.u).T)
        return np.asarray(self.u.T @ a)

    def expand(self, v: Float) -> Float:
        return np.asarray(self.u @ v)

    def restrict(self, kept: Index) -> DenseBasis:
        if np.array_equal(kept, np.arange(self.n)):
            return self
        if not self.rank:
            return no_kernel(kept.size)
        return restrict_rows(self.u[kept], self.s, centered=self.centered)


def restrict_rows(u_kept: Float, s: Float, *, centered: bool) -> DenseBasis:
    """K[kept, kept] = F Fᵀ with F = U[kept] √S, centred again where the kernel is: F ← H F."""
    factor = u_kept * np.sqrt(s)
    if centered:
        factor -= factor.mean(axis=0)
    spectrum = from_factor(factor)
    return DenseBasis(spectrum.u, spectrum.eigenvalues, centered)


@dataclass(frozen=True)
class GroupCoordinates:
    """From sums over groups to Uᵀa.

    Attributes
    ----------
    counts
        D rows per group.
    w
        D × r eigenvectors W of N^½ K_d N^½; None for the identity.
    """

    counts: Float
    w: Float | None

    def scale(self, sums: Float) -> Float:
        """N^{−½} × the sums over groups (D × b): coordinates in the span of Z."""
        return (sums.T / np.sqrt(self.counts)).T

    def rotate(self, scaled: Float) -> Float:
        """Uᵀa from these."""
        return scaled if self.w is None else np.asarray(self.w.T @ scaled)

    def mostly_between(self, scaled: Float, square: Float) -> NDArray[np.bool_]:
        """Which features, with sums of squares `square`, vary mostly between groups."""
        total = np.sqrt(self.counts) @ scaled
        within = square - np.einsum("dj,dj->j", scaled, scaled)
        return np.asarray(within <= MOSTLY_BETWEEN * (square - total**2 / self.counts.sum()))


class GroupedBasis(Basis):
    """K = Z K_d Zᵀ with one non-zero per row of Z: U = Z N^{−½} W, N = ZᵀZ diagonal, N^½ K_d N^½ = W S Wᵀ, never n × r.

    Attributes
    ----------
    codes
        n group numbers in 0 … D−1, each group present.
    relatedness
        K_d, D × D; None for independent groups (K_d = I).
    """

    codes: Index
    relatedness: Float | None

    @property
    @abstractmethod
    def counts(self) -> Float:
        """The diagonal of N."""

    @property
    @abstractmethod
    def _indicator(self) -> Any:
        """Zᵀ, D × n."""

    @property
    def n(self) -> int:
        return self.codes.size

    @cached_property
    def _spectrum(self) -> Spectrum | None:
        if self.relatedness is None:
            return None
        root = np.sqrt(self.counts)
        return from_kernel(root[:, None] * self.relatedness * root, argument="relatedness")

    @property
    def eigenvalues(self) -> Float:
        return self.counts if self._spectrum is None else self._spectrum.eigenvalues

    @cached_property
    def coordinates(self) -> GroupCoordinates:
        """How sums over groups become coordinates."""
        return GroupCoordinates(self.counts, None if self._spectrum is None else self._spectrum.u)

    def _scaled_sums(self, a: Any) -> Float:
        sums = self._indicator @ a
        return self.coordinates.scale(np.asarray(sums.toarray() if sparse.issparse(sums) else sums, dtype=np.float64))

    def project(self, a: Any) -> Float:
        return self.coordinates.rotate(self._scaled_sums(a))

    def expand(self, v: Float) -> Float:
        levels = v if self._spectrum is None else self._spectrum.u @ v
        return np.asarray((levels.T / np.sqrt(self.counts)).T[self.codes])

    def _kept_groups(self, kept: Index) -> tuple[Index, Float | None]:
        """Codes and K_d of the groups that some rows have."""
        present, codes = np.unique(self.codes[kept], return_inverse=True)
        related = None if self.relatedness is None else self.relatedness[np.ix_(present, present)]
        return codes.astype(np.intp), related


@dataclass(frozen=True)
class GroupBasis(GroupedBasis):
    """Groups whose rows count the same: Z is an indicator, N holds the rows per group."""

    codes: Index
    relatedness: Float | None = None

    @cached_property
    def counts(self) -> Float:
        return np.bincount(self.codes).astype(np.float64)

    @cached_property
    def _indicator(self) -> Any:
        n = self.n
        return sparse.csr_matrix((np.ones(n), (self.codes, np.arange(n))), shape=(self.counts.size, n))

    def constant_within(self, block: Any, square: Float) -> NDArray[np.bool_]:
        return self.coordinates.mostly_between(self._scaled_sums(block), square)

    def restrict(self, kept: Index) -> GroupBasis:
        """Recount the groups and drop the empty ones; never centred (σ² stays the variance between groups)."""
        return self if np.array_equal(kept, np.arange(self.n)) else GroupBasis(*self._kept_groups(kept))


def no_kernel(n: int) -> DenseBasis:
    """Rank zero: ordinary least squares through the same code."""
    return DenseBasis(np.zeros((n, 0)), np.zeros(0))
