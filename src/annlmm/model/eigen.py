"""Kernels and factors to an eigenbasis: symmetry, positive semi-definiteness, rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, svd

from annlmm.model.low_rank import leading

Float = NDArray[np.float64]

ITERATE_ABOVE = 2000  # observations
MOST_FOR_SHARE = 1000  # eigenvectors


@dataclass(frozen=True)
class Spectrum:
    """The non-zero part of an eigendecomposition, largest eigenvalue first.

    Attributes
    ----------
    u
        n × r orthonormal eigenvectors, Fortran order (made for uᵀ @ A).
    eigenvalues
        The r eigenvalues kept, positive.
    n_clipped
        Negative eigenvalues within round-off that were set to zero.
    explained
        Share of the trace that the kept eigenvalues carry.
    """

    u: Float
    eigenvalues: Float
    n_clipped: int
    explained: float

    def scaled(self, factor: float) -> Spectrum:
        return replace(self, eigenvalues=self.eigenvalues * factor)


def from_kernel(
    kernel: NDArray[np.floating], rank: float | None = None, *, argument: str = "kernel", keep_null: bool = False
) -> Spectrum:
    """Eigendecompose a symmetric positive semi-definite n × n kernel; with `keep_null`, its null vectors too (eigenvalue 0).

    Raises
    ------
    ValueError
        If the kernel is not square, not finite, not symmetric, zero, or has an eigenvalue that is negative beyond
        round-off.
    """
    k = np.asarray(kernel)
    if k.ndim != 2 or k.shape[0] != k.shape[1]:
        raise ValueError(f"{argument}: must be a square matrix, received shape {k.shape}")
    precision = np.finfo(k.dtype if k.dtype in (np.float32, np.float16) else np.float64).eps
    k = k.astype(np.float64)
    if not np.isfinite(k).all():
        rows = int((~np.isfinite(k)).any(axis=1).sum())
        raise ValueError(f"{argument}: NaN or infinite values in {rows} of {k.shape[0]} rows; drop or impute them")
    size = np.abs(k).max(initial=0.0)
    if size == 0:
        raise ValueError(f"{argument}: all values are zero; there is nothing to fit")
    # Kernels read from text or made in float32 are symmetric to their own precision only.
    asymmetry = np.abs(k - k.T).max() / size
    if asymmetry > max(1e-6, 16 * precision):
        raise ValueError(
            f"{argument}: not symmetric (K and its transpose differ by up to {asymmetry:.2g} of the largest value); "
            "pass (K + K.T) / 2 if the difference is meant to be noise"
        )
    values, vectors = eigh((k + k.T) / 2, overwrite_a=True, driver="evd")
    # Perturbing every entry by its precision moves an eigenvalue by about √n · precision · ‖K‖ (Weyl, random signs).
    slack = max(1e-8, 10 * np.sqrt(k.shape[0]) * precision) * values[-1]
    if values[0] < -slack:
        raise ValueError(
            f"{argument}: not positive semi-definite (smallest eigenvalue {values[0]:.4g}, largest {values[-1]:.4g}); "
            "K must be a covariance, e.g. Z @ Z.T"
        )
    zero = k.shape[0] * precision * values[-1]
    n_clipped = int((values < 0).sum())
    if keep_null:
        values = np.where(values > zero, values, 0.0)
        return Spectrum(np.asfortranarray(vectors[:, ::-1]), values[::-1].copy(), n_clipped, 1.0)
    return _select(values[::-1], vectors[:, ::-1], zero, rank, n_clipped=n_clipped, argument=argument)


def from_factor(factor: Float, rank: float | None = None, *, argument: str = "kernel") -> Spectrum:
    """Eigendecompose K = F Fᵀ from its n × m factor."""
    n, m = factor.shape
    if m >= n:
        return from_kernel(factor @ factor.T, rank, argument=argument)
    if not np.isfinite(factor).all():
        raise ValueError(f"{argument}: NaN or infinite values; drop or impute these rows")
    # The thin SVD, not FᵀF: its vectors stay orthonormal down to the smallest singular value.
    u, root, _ = svd(factor, full_matrices=False, overwrite_a=False)
    if root.max(initial=0.0) == 0:
        raise ValueError(f"{argument}: all values are zero; there is nothing to fit")
    values = root**2
    zero = m * np.finfo(np.float64).eps * values[0]
    return _select(values, u, zero, rank, n_clipped=0, argument=argument)


def from_operator(
    multiply: Callable[[Float], Float], n: int, rank: int, trace: float, *, argument: str = "kernel"
) -> Spectrum:
    """The leading eigenvectors of an n × n kernel that is only known by its product with blocks of vectors."""
    return positive_part(*leading(multiply, n, min(rank, n)), trace, argument)


def low_rank(
    multiply: Callable[[Float], Float], n: int, rank: float | None, trace: float, *, argument: str = "kernel"
) -> Spectrum | None:
    """The leading eigenvectors for a rank far below n, as int or as share of the trace, without an n × n matrix.

    None where an eigendecomposition of the whole kernel is the better or the only way (`is_low_rank`), or where the
    most eigenvectors that are tried (`doubling`) do not reach the share.
    """
    if not is_low_rank(rank, n):
        return None
    if isinstance(rank, (int, np.integer)):
        return from_operator(multiply, n, int(rank), trace, argument=argument)
    start, share = None, float(rank or 0)
    for k in doubling(n):
        values, start = leading(multiply, n, k, start=start)
        part = positive_part(values, start, trace, argument)
        if part.explained >= share or part.eigenvalues.size < k:
            return cut_to_share(part, share)
        if within_reach(part, n) < share:
            return None
    return None


def is_low_rank(rank: float | None, n: int) -> bool:
    """Whether `rank` asks for so few of many eigenvectors that iterations beat LAPACK: below n/10 of n > 2000."""
    check_rank(rank)
    if rank is None or n <= ITERATE_ABOVE:
        return False
    return rank < n // 10 if isinstance(rank, (int, np.integer)) else rank < 1


def doubling(n: int) -> Iterator[int]:
    """Numbers of eigenvectors to try for a share of the trace: 64, 128, … up to a tenth of all, or 1000."""
    most = min(n // 10, MOST_FOR_SHARE)
    k = min(64, most)
    while k < most:
        yield k
        k *= 2
    yield most


def within_reach(part: Spectrum, n: int) -> float:
    """The share that the most eigenvectors that are tried can explain: those to come are not larger than the last."""
    more = max(doubling(n)) - part.eigenvalues.size
    return part.explained * (1 + more * float(part.eigenvalues[-1]) / float(part.eigenvalues.sum()))


def cut_to_share(part: Spectrum, share: float) -> Spectrum:
    """The first eigenpairs that together explain `share` of the trace, of which `part` explains its `explained`."""
    reached = part.explained * np.cumsum(part.eigenvalues) / part.eigenvalues.sum()
    kept = min(int(np.searchsorted(reached, share * (1 - 1e-12))) + 1, reached.size)
    return Spectrum(
        np.asfortranarray(part.u[:, :kept]), part.eigenvalues[:kept].copy(), part.n_clipped, float(reached[kept - 1])
    )


def positive_part(values: Float, vectors: Float, trace: float, argument: str = "kernel") -> Spectrum:
    """Leading eigenpairs, less those that are zero to rounding."""
    if not values[0] > 0:
        raise ValueError(f"{argument}: all values are zero; there is nothing to fit")
    positive = values > vectors.shape[0] * np.finfo(np.float64).eps * values[0]
    kept = np.ascontiguousarray(values[positive])
    # Beyond the round-off of the trace there is no more than all.
    explained = min(1.0, float(kept.sum() / trace))
    return Spectrum(np.asfortranarray(vectors[:, positive]), kept, int((values < 0).sum()), explained)


def from_eigenpairs(values: Float, vectors: Float, rank: float | None = None, *, argument: str = "kernel") -> Spectrum:
    """A kernel by all its n eigenvalues (descending, not negative) and their vectors."""
    zero = values.size * np.finfo(np.float64).eps * values[0]
    return _select(values, vectors, zero, rank, n_clipped=0, argument=argument)


def _select(
    values: Float, vectors: Float, zero: float, rank: float | None, *, n_clipped: int, argument: str
) -> Spectrum:
    positive = int((values > zero).sum())
    kept = min(positive, resolve_rank(values[:positive], rank))
    explained = float(values[:kept].sum() / values[:positive].sum())
    return Spectrum(np.asfortranarray(vectors[:, :kept]), np.ascontiguousarray(values[:kept]), n_clipped, explained)


def resolve_rank(values: Float, rank: float | None) -> int:
    """How many of the descending eigenvalues `rank` asks for: None all, an int that many, a fraction that share of the trace."""
    check_rank(rank)
    if rank is None:
        return values.size
    if isinstance(rank, (int, np.integer)):
        return int(rank)
    share = np.cumsum(values) / values.sum()
    return min(int(np.searchsorted(share, float(rank) * (1 - 1e-12))) + 1, values.size)


def check_rank(rank: float | None) -> None:
    """None, a positive int or a fraction of the trace."""
    if rank is None:
        return
    if isinstance(rank, bool) or not isinstance(rank, (int, float, np.integer, np.floating)):
        raise TypeError(f"rank: must be None, an int or a fraction, received {rank!r} of type {type(rank).__name__}")
    if isinstance(rank, (int, np.integer)):
        if rank < 1:
            raise ValueError(f"rank: must be at least 1, received {rank}; pass kernel=None to `fit_null` for no kernel")
    elif not 0 < rank <= 1:
        raise ValueError(f"rank: as a fraction of the trace must lie in (0, 1], received {rank}")
