"""The way of a dense block into the REML space, where a test at any γ is a sum: one matrix product.

num = Σ w ãỹ + c_ay,   den = Σ w ã² + c_aa,   w = 1/(1+γμ).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from annlmm.model.association import OK, UNTESTED
from annlmm.model.basis import DenseBasis
from annlmm.model.design import Design
from annlmm.model.space import RemlSpace
from annlmm.model.statistics import UNSETTLED

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Rotated:
    """b features in the REML space.

    Attributes
    ----------
    v
        Vᵀa in the first k columns of a b × k or wider array in C order.
    norm
        ‖ã‖², b.
    outside
        c_aa, b; exactly 0 where V spans the space.
    cross
        c_ay, b × T for T responses.
    grouped
        Per feature: constant, or nearly so, within the groups of a group kernel.
    status
        Per feature; what is not OK is not tested.
    """

    v: Float
    norm: Float
    outside: Float
    cross: Float
    grouped: NDArray[np.bool_]
    status: NDArray[np.int8]

    def take(self, chosen: NDArray[np.intp]) -> Rotated:
        """Some of the features, copied."""
        return Rotated(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class Rotation:
    """V, Q and what of the responses is outside V.

    Attributes
    ----------
    right
        n × (k + p + T); without the last T where V spans the space.
    mu
        Eigenvalues, k.
    y
        ỹ, k × T.
    k, p, responses
        Columns of V and Q, and T.
    full
        Whether V spans the space.
    """

    right: Float
    mu: Float
    y: Float
    k: int
    p: int
    responses: int
    full: bool

    def __call__(self, block: Float) -> Rotated:
        """Rotate the columns of a block (n × b); those whose offset costs too many digits get the status UNTESTED."""
        product = block.T @ self.right
        v, q, cross = np.split(product, [self.k, self.k + self.p], axis=1)
        inside, fitted = np.einsum("jk,jk->j", v, v), np.einsum("jp,jp->j", q, q)
        if self.full:
            norm, square = inside, inside + fitted
            outside, cross = np.zeros_like(norm), np.zeros((norm.size, self.responses))
        else:
            square = np.einsum("ij,ij->j", block, block)
            norm = square - fitted
            outside = np.maximum(norm - inside, 0.0)
        settled = norm > UNSETTLED * square
        status = np.where(settled, OK, UNTESTED).astype(np.int8)
        return Rotated(product, norm, outside, cross, np.zeros_like(settled), status)

    def ratios(self, features: Rotated, gamma: float, response: int = 0) -> tuple[Float, Float]:
        """num and den at one γ."""
        v, w = features.v[:, : self.k], 1.0 / (1.0 + gamma * self.mu)
        return v @ (w * self.y[:, response]) + features.cross[:, response], (v * v) @ w + features.outside


def make_rotation(my: Float, design: Design, basis: DenseBasis, space: RemlSpace) -> Rotation:
    """Prepare it for the n × T responses `my`, free of X: V = M U G⁺ L as in `space`."""
    k, p, n_outside = space.k, space.p, 0 if space.full else my.shape[1]
    right = np.empty((space.n, k + p + n_outside))
    v, q, outside = np.split(right, [k, k + p], axis=1)
    orthogonal = space.mu is space.eigenvalues  # G⁺ L = I
    projected = np.matmul(design.q, -space.angles.t.T, out=v if orthogonal else None)
    projected += basis.u
    if not orthogonal:
        np.matmul(projected, space.rotation, out=v)
        v -= design.q @ (design.q.T @ v)  # again, since G⁺ magnifies rounding
    q[:] = design.q
    y = v.T @ my
    if n_outside:
        outside[:] = my - v @ y
    return Rotation(right, space.mu, y, k, p, my.shape[1], space.full)
