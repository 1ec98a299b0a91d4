"""The leading eigenpairs of an operator that is known by its products with blocks of vectors: block Lanczos."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, qr, svd

Float = NDArray[np.float64]

TOLERANCE = 1e-10
MOST_STEPS = 2000


def leading(
    multiply: Callable[[Float], Float], n: int, k: int, *, start: Float | None = None, block: int | None = None
) -> tuple[Float, Float]:
    """The k algebraically largest eigenvalues of a symmetric n × n operator, descending, and their vectors.

    Block Lanczos (Golub & Underwood 1977) from seeded random vectors, fully orthogonalised, with the thick restart of
    Wu & Simon (2000). With a basis B of what was visited, T = BᵀKB = S Θ Sᵀ and K B_last = B T_last + Q R (B_last the
    latest block), the Ritz vectors B s have residuals ‖R s_last‖; they must fall below 1e-10 ‖K‖. Iterations of single
    vectors (ARPACK) can miss copies of a multiple eigenvalue, which disconnected graphs and square lattices have; a
    block finds as many copies as it has vectors.

    Parameters
    ----------
    multiply
        K @ block for n × b blocks.
    n, k
        Size of K; eigenpairs wanted, at most n.
    start
        Vectors that are known to be in or near the wanted span.
    block
        Random vectors of a block. By default more than k, for fewest products, where each costs a pass over the data; a
        small number costs fewest operations.

    Raises
    ------
    numpy.linalg.LinAlgError
        If they do not converge.
    """
    width = min(n, k + max(8, k // 8))
    size = min(n, block or width)
    new = np.random.default_rng(0).standard_normal((n, size))
    if start is not None:
        room = size if block else max(size - start.shape[1], 8)
        new = np.hstack([start, new[:, : min(room, n - start.shape[1])]])
    most = min(n, max(basis_size(n, k, block), new.shape[1] + width))
    basis = np.empty((n, most + new.shape[1]), order="F")
    t = np.zeros((basis.shape[1], basis.shape[1]))
    new, _ = _orthonormal(new, basis[:, :0], 0.0)
    m, next_look, norm = 0, k, 0.0
    for _ in range(MOST_STEPS):
        done, m = m, m + new.shape[1]
        basis[:, done:m] = new
        image = multiply(new)
        norm = max(norm, float(np.linalg.norm(image, axis=0).max()))
        t[:m, done:m] = basis[:, :m].T @ image
        t[done:m, :m] = t[:m, done:m].T
        image -= basis[:, :m] @ t[:m, done:m]
        new, r = _orthonormal(image, basis[:, :m], 1e-13 * norm)
        full = m + new.shape[1] > most
        if m >= next_look or full or not new.shape[1]:
            next_look = m + max(size, m // 16)
            theta, s = eigh(t[:m, :m], driver="evd")
            theta, s = theta[::-1], s[:, ::-1]
            residual = np.linalg.norm(r @ s[done:m, :k], axis=0)
            if m >= k and (residual <= TOLERANCE * np.abs(theta).max()).all():
                return theta[:k], basis[:, :m] @ s[:, :k]
            if not new.shape[1]:  # an invariant subspace with fewer than k vectors
                new = np.random.default_rng(m).standard_normal((n, min(size, n - m)))
                new, _ = _orthonormal(new, basis[:, :m], 0.0)
            elif full:
                kept = min(m, width + (most - width) // 3)
                basis[:, :kept] = basis[:, :m] @ s[:, :kept]
                t[:kept, :kept] = np.diag(theta[:kept])
                m, next_look = kept, 0
    raise np.linalg.LinAlgError(
        f"the {k} leading eigenvectors of {n} did not converge in {MOST_STEPS} steps; pass another rank"
    )


def basis_size(n: int, k: int, block: int | None = None) -> int:
    """How many vectors of length n are kept: more of them take fewer products, and more memory."""
    width = k + max(8, k // 8)
    return min(n, max(3 * width, min((4 if block else 8) * width, 800)))


def _orthonormal(block: Float, basis: Float, negligible: float) -> tuple[Float, Float]:
    """Q, R with block = QR + what lies in the span of the basis, less directions that are shorter than `negligible`."""
    q, r = qr(block - basis @ (basis.T @ block), mode="economic")
    left, size, right = svd(r)
    kept = size > max(negligible, 1e-14 * size.max(initial=0.0))
    q = q @ left[:, kept]
    r = size[kept, None] * right[kept]
    leak = basis.T @ q
    q = q - basis @ leak  # twice is enough
    if np.abs(leak).max(initial=0.0) > 1e-8:
        q, again = qr(q, mode="economic")
        r = again @ r
    return q, r
