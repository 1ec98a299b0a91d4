"""The diffusion kernel of a weighted graph, from all or from the leading eigenvectors of its normalised adjacency."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.special import ive

from annlmm.model.eigen import (
    Spectrum,
    cut_to_share,
    doubling,
    from_eigenpairs,
    from_kernel,
    positive_part,
    within_reach,
)
from annlmm.model.low_rank import leading

Float = NDArray[np.float64]

BLOCK = 16  # copies of a multiple eigenvalue that are found, beside those of 0
PROBES = 16


def components(weights: Any) -> tuple[int, NDArray[np.int32]]:
    """The number of connected components, and each vertex's."""
    count, labels = connected_components(weights, directed=False)
    return int(count), labels


def normalized_adjacency(weights: Any, degree: Float) -> sparse.csr_array:
    """S = D^{−½} W D^{−½}, with eigenvalues in [−1, 1]; L = I − S is the normalised Laplacian."""
    root = sparse.diags_array(1.0 / np.sqrt(degree))
    return sparse.csr_array(root @ weights @ root)


def diffusion(s: sparse.csr_array, times: Float, rank: float | None) -> list[Spectrum]:
    """exp(−tL) for each t, from all eigenvectors of L = I − S."""
    n = s.shape[0]
    laplacian = from_kernel((sparse.eye_array(n) - s).toarray(), keep_null=True)
    vectors, values = laplacian.u[:, ::-1], laplacian.eigenvalues[::-1]
    return [from_eigenpairs(np.exp(-t * values), vectors, rank) for t in times]


def leading_diffusion(
    s: sparse.csr_array, times: Float, rank: float, degree: Float, labels: NDArray[np.int32]
) -> list[Spectrum] | None:
    """exp(−tL) for each t, from the eigenvectors of L with the smallest eigenvalues: those of I + S with the largest.

    The null vectors, √degree on each connected component, are known and given to the iterations. None if the most
    eigenvectors that are tried do not reach the share of the trace.
    """
    n = s.shape[0]
    start = np.zeros((n, labels.max() + 1))
    start[np.arange(n), labels] = np.sqrt(degree)
    by_share = not isinstance(rank, (int, np.integer))
    for k in doubling(n) if by_share else (int(rank),):
        if k < start.shape[1]:
            continue
        values, start = leading(lambda v: v + s @ v, n, k, start=start, block=BLOCK)
        kernels = np.exp(-times[:, None] * np.maximum(2.0 - values, 0.0))
        rest = remaining_trace(s, start, times)
        parts = [positive_part(f, start, float(f.sum() + r)) for f, r in zip(kernels, rest, strict=True)]
        if not by_share:
            return parts
        if all(part.explained >= rank for part in parts):
            return [cut_to_share(part, float(rank)) for part in parts]
        if any(within_reach(part, n) < rank for part in parts):
            return None
    return None


def remaining_trace(s: sparse.csr_array, u: Float, times: Float) -> Float:
    """The trace of exp(−tL) outside the span of u, for each t: Hutchinson's estimate from seeded vectors of signs.

    zᵀ exp(−tL) z = Σ_j c_j zᵀ T_j(S) z with the Chebyshev series c_j = (2 − δ_j0) e^{−t} I_j(t) (Abramowitz & Stegun
    9.6.34), whose terms beyond j = 7√t + 12 are below 1e-10.
    """
    z = np.random.default_rng(0).choice([-1.0, 1.0], (s.shape[0], PROBES))
    z -= u @ (u.T @ z)
    moments = np.empty(12 + int(np.ceil(7 * np.sqrt(times.max()))))
    now, following = z, s @ z
    for j in range(moments.size):
        moments[j] = np.einsum("ij,ij->", z, now) / PROBES
        now, following = following, 2 * (s @ following) - now
    order = np.arange(moments.size)
    return np.array([max(np.where(order == 0, 1, 2) * ive(order, t) @ moments, 0.0) for t in times])
