"""The squared-exponential kernel of coordinates: its matrix, its products, and its exact factor in few dimensions."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.spatial.distance import cdist, pdist

Float = NDArray[np.float64]

# Features whose product is below this on every observation are left out; together they stay below 1e-12 of K_ii = 1.
_NEGLIGIBLE = 1e-16


def representable(x: Float, length_scale: float) -> float:
    """A length scale whose squares are numbers; beyond 1e±100 of the extent K is the identity or constant to rounding."""
    extent = float(np.ptp(x, axis=0).max())
    return float(np.clip(length_scale, 1e-100 * extent, 1e100 * extent))


def middle_scale(x: Float, most: int = 2000) -> float:
    """The geometric mean of the median distance between observations and the median distance to the nearest one.

    Of those at different places, and of a seeded sample of the observations where there are more than `most`.
    """
    sample = x
    if x.shape[0] > most:
        sample = x[np.random.default_rng(0).choice(x.shape[0], most, replace=False)]
    nearest = np.empty(sample.shape[0])
    for i, point in enumerate(sample):
        d = cdist(point[None], x)[0]
        nearest[i] = d[d > 0].min()
    between = pdist(sample)
    return float(np.sqrt(np.median(nearest) * np.median(between[between > 0])))


def rbf_matrix(x: Float, y: Float, length_scale: float) -> Float:
    """exp(−‖xᵢ − yⱼ‖²/(2l²)), from differences: products of coordinates far from 0 would cancel."""
    d = cdist(x, y, "sqeuclidean")
    d *= -0.5 / length_scale**2
    return np.asarray(np.exp(d, out=d))


def rbf_multiply(x: Float, length_scale: float, v: Float, block_rows: int) -> Float:
    """K v for an n × b block, some rows of K at a time."""
    out = np.empty((x.shape[0], v.shape[1]))
    for i in range(0, x.shape[0], block_rows):
        out[i : i + block_rows] = rbf_matrix(x[i : i + block_rows], x, length_scale) @ v
    return out


def rbf_factor(x: Float, length_scale: float, most: int) -> Float | None:
    """F (n × m) with K = F Fᵀ to 1e-12, in O(n m); None if it takes more than `most` columns.

    K is the product over dimensions of kernels of one coordinate, each an entire function that Chebyshev interpolation
    at some nodes z reproduces to rounding (Trefethen, Approximation Theory and Approximation Practice, chapter 8):
    K = B G Bᵀ with G = k(z, z) and B the interpolation from the nodes to the observations. G = E Λ Eᵀ gives the features
    B E √Λ of one coordinate, and their products over the coordinates are those of all.
    """
    spread = np.ptp(x, axis=0)
    x, spread = x[:, spread > 0], spread[spread > 0]
    # One coordinate takes more features than its range holds length scales.
    if np.log(np.maximum(spread / length_scale, 1.0)).sum() > np.log(max(most, 1)):
        return None
    factor = np.ones((x.shape[0], 1))
    for column, width in zip(x.T, spread, strict=True):
        features = _features(2 * (column - column.min()) / width - 1, width / (2 * length_scale))
        size = np.outer((factor**2).max(axis=0), (features**2).max(axis=0))
        left, right = np.nonzero(size > _NEGLIGIBLE)
        if left.size > most:
            return None
        wide = factor[:, left]
        for j in range(0, left.size, 256):  # without another array of this size
            wide[:, j : j + 256] *= features[:, right[j : j + 256]]
        factor = wide
    return factor


def _features(z: Float, steepness: float) -> Float:
    """Features of exp(−½ steepness² (z − z′)²) on [−1, 1].

    The coefficients of T_j fall like exp(−j²/(2 steepness²)), hence below 1e-16 beyond j = 8.6 steepness; 20 more for a
    flat kernel.
    """
    nodes = chebyshev.chebpts1(20 + int(8.6 * steepness))
    values, vectors = eigh(np.exp(-0.5 * (steepness * (nodes[:, None] - nodes)) ** 2))
    kept = values > _NEGLIGIBLE * values[-1]
    degree = nodes.size - 1
    at_nodes = vectors[:, kept] * np.sqrt(values[kept])
    return np.asarray(chebyshev.chebvander(z, degree) @ np.linalg.solve(chebyshev.chebvander(nodes, degree), at_nodes))
