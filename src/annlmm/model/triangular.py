"""The scan at a fixed γ where U is as large as the data: half of the flops of a rotation.

With V = I + γK and V⁻¹ = RᵀR (R upper triangular: the Cholesky factor of V⁻¹ = I − U diag(1 − w) Uᵀ),

    ⟨a, a⟩ = ‖R a‖²,   ⟨Q, a⟩ = (V⁻¹Q)ᵀ a,   num = (V⁻¹(y − Xβ̂))ᵀ a,

a triangular product and a skinny one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpotrf

from annlmm.model.association import Scan
from annlmm.model.basis import DenseBasis
from annlmm.model.design import Design
from annlmm.model.trmm import times_transposed

Float = NDArray[np.float64]

# Beyond this γ·s_max the smallest weight is lost in the Cholesky factor's rounding.
MAX_CONDITION = 1e6


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
        # (R A)ᵀ = Aᵀ Rᵀ in a copy of Aᵀ, which lies as the product needs it where A is C-ordered.
        product = times_transposed(np.array(block.T, dtype=np.float64, order="F"), self.r)
        norm = np.einsum("ji,ji->j", product, product)
        linear = self.linear.T @ block
        aq = linear[1:]
        den = norm - np.einsum("pj,pj->j", aq, self.scan.gls.qq_inverse @ aq)
        return Ratios(linear[:1], den[None], norm)


def triangular_scan(scan: Scan, my: Float, design: Design, basis: DenseBasis) -> TriangularScan | None:
    """Prepare it, or None where the rotation is the better way: low rank, or γ so large that the factor loses digits."""
    gamma, s = scan.gls.gamma, basis.s
    if 2 * basis.rank <= basis.n or gamma * s.max(initial=0.0) > MAX_CONDITION:
        return None
    shrunk = basis.u * np.sqrt(gamma * s * scan.gls.w)  # U √(1 − w)
    inverse = dsyrk(-1.0, shrunk)
    inverse[np.diag_indices(basis.n)] += 1.0
    r, failed = dpotrf(inverse, lower=0, clean=1, overwrite_a=1)
    if failed:
        raise LinAlgError("the eigenvectors of the kernel are not orthonormal; compute the kernel again")
    linear = np.column_stack([my - design.q @ scan.q_solved, design.q])
    linear -= shrunk @ (shrunk.T @ linear)
    return TriangularScan(scan, r, np.asfortranarray(linear))
