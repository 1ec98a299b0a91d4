"""The scan at a fixed γ where U is as large as the data: half of the flops of a rotation.

With V = I + γK and V⁻¹ = RᵀR (R upper triangular: the Cholesky factor of U diag(w) Uᵀ + (I − UUᵀ)),

    ⟨a, a⟩ = ‖R a‖²,   ⟨Q, a⟩ = (V⁻¹Q)ᵀ a,   num = (V⁻¹(y − Xβ̂))ᵀ a,

a triangular product in panels of rows and one skinny product; nothing of a block is copied or changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky

from annlmm.model.association import Scan
from annlmm.model.basis import DenseBasis
from annlmm.model.design import Design

Float = NDArray[np.float64]

# Beyond this γ·s_max the smallest weight is lost in the Cholesky factor's rounding.
MAX_CONDITION = 1e6
# Rows of R per product: small enough for little work above the diagonal, large enough for BLAS.
PANEL = 128


@dataclass(frozen=True)
class Ratios:
    """num and den (1 × b) of a block, and ⟨a, a⟩ (b) before the fixed effects are taken out."""

    num: Float
    den: Float
    norm: Float


@dataclass(frozen=True)
class TriangularScan:
    """One response at one γ.

    Attributes
    ----------
    scan
        The response and γ.
    r
        n × n upper triangular with RᵀR = V⁻¹.
    linear
        n × (1 + p): V⁻¹(y − Xβ̂) and V⁻¹Q.
    """

    scan: Scan
    r: Float
    linear: Float

    def ratios(self, block: Float) -> Ratios:
        """num and den of every column of a dense block (n × b, any order)."""
        n = self.r.shape[0]
        norm = np.zeros(block.shape[1])
        for i in range(0, n, PANEL):
            panel = self.r[i : i + PANEL, i:] @ block[i:]
            norm += np.einsum("ij,ij->j", panel, panel)
        linear = self.linear.T @ block
        aq = linear[1:]
        den = norm - np.einsum("pj,pj->j", aq, self.scan.gls.qq_inverse @ aq)
        return Ratios(linear[:1], den[None], norm)


def triangular_scan(scan: Scan, my: Float, design: Design, basis: DenseBasis) -> TriangularScan | None:
    """Prepare it, or None where the rotation is the better way: low rank, or γ so large that the factor loses digits."""
    gamma, s = scan.gls.gamma, basis.s
    if 2 * basis.rank <= basis.n or gamma * s.max(initial=0.0) > MAX_CONDITION:
        return None
    root = basis.u * np.sqrt(scan.gls.w)
    inverse = root @ root.T
    if basis.rank < basis.n:
        inverse -= basis.u @ basis.u.T
        inverse[np.diag_indices(basis.n)] += 1.0
    r = cholesky(inverse, overwrite_a=False, check_finite=False)
    residual = my - design.q @ scan.q_solved
    linear = inverse @ np.column_stack([residual, design.q])
    return TriangularScan(scan, r, np.asfortranarray(linear))
