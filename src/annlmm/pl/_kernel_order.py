"""An order of observations in which those that a kernel calls alike stand together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from annlmm.model.basis import Basis

# Of more observations, so many are clustered, and the others stand beside the nearest of them.
_CLUSTERED = 1_500
# Of a kernel of high rank, so many leading coordinates tell what is near.
_COORDINATES = 30


def hierarchical_order(basis: Basis) -> NDArray[np.intp]:
    """
    Order observations by a hierarchical clustering (Ward) of their coordinates U S^½.

    The distance of two observations is that of the kernel, d² = Kᵢᵢ + Kⱼⱼ − 2 Kᵢⱼ, exactly so where the rank is at most
    30, else of its 30 leading eigenvectors, which leaves out noise. Independent groups stay in their order.

    Parameters
    ----------
    basis
        Of n observations.

    Returns
    -------
    A permutation of the observations, shape (n,).
    """
    from annlmm.model.basis import GroupedBasis

    if isinstance(basis, GroupedBasis):
        # All rows of a group are at one place; independent groups are equally far from each other.
        _, first, group = np.unique(basis.codes, return_index=True, return_inverse=True)
        rank = group if basis.relatedness is None else _leaf_ranks(_leading(basis)[first])[group]
    else:
        rank = _leaf_ranks(_leading(basis))
    return np.argsort(rank, kind="stable")


def _leading(basis: Basis) -> NDArray[np.float64]:
    """The leading columns of U S^½."""
    k = min(basis.rank, _COORDINATES)
    leading = np.argsort(-basis.eigenvalues, kind="stable")[:k]
    unit = np.zeros((basis.rank, k))
    unit[leading, np.arange(k)] = np.sqrt(basis.eigenvalues[leading])
    return basis.expand(unit)


def _leaf_ranks(points: NDArray[np.float64]) -> NDArray[np.intp]:
    """Place of each point among the leaves of the tree; points that are not clustered share that of the nearest."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial import cKDTree
    from scipy.spatial.distance import pdist

    n = len(points)
    if n < 2:
        return np.zeros(n, dtype=np.intp)
    chosen = np.arange(n)
    if n > _CLUSTERED:
        chosen = np.random.default_rng(0).choice(n, _CLUSTERED, replace=False)
    rank = np.empty(chosen.size, dtype=np.intp)
    rank[leaves_list(linkage(pdist(points[chosen]), "ward"))] = np.arange(chosen.size)
    if chosen.size == n:
        return rank
    # Near enough: exact neighbours among some tens of coordinates cost ten times as much.
    return rank[np.asarray(cKDTree(points[chosen]).query(points, eps=0.5)[1])]


def averaged(basis: Basis, order: NDArray[np.intp], edges: NDArray[np.intp]) -> NDArray[np.float64]:
    """
    Return the means of K over blocks of ordered observations, without K itself.

    With M the matrix that averages over blocks, M K Mᵀ = (M U) S (M U)ᵀ.

    Parameters
    ----------
    basis
        Of n observations.
    order
        Permutation, shape (n,).
    edges
        Where blocks begin, and n, shape (b + 1,).

    Returns
    -------
    Shape (b, b).
    """
    from scipy import sparse

    size = np.diff(edges)
    block = np.repeat(np.arange(size.size), size)
    means = sparse.csr_matrix((1.0 / size[block], (order, block)), shape=(order.size, size.size))
    projected = np.asarray(basis.project(means))
    return np.asarray((projected.T * basis.eigenvalues) @ projected)
