"""The scan at a fixed γ where U is as large as the data: half of the flops of a rotation.

With V = I + γK, V⁻¹ = I − U diag(1−w) Uᵀ and T = 2 triu(V⁻¹) − diag(V⁻¹),

    ⟨a, a⟩ = aᵀ T a,   ⟨Q, a⟩ = (V⁻¹Q)ᵀ a,   num = (V⁻¹(y − Xβ̂))ᵀ a,

a triangular and a skinny product.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cython_blas

from annlmm.model.association import Scan
from annlmm.model.basis import DenseBasis
from annlmm.model.design import Design
from annlmm.model.parallel import map_blocks

Float = NDArray[np.float64]

# V⁻¹ is good to a few 1e-16 of its norm: the smallest weight has that error times γ·s_max.
MAX_CONDITION = 1e5
# Rows of V⁻¹ per product when it is made.
PANEL = 256


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
    triangle
        n × n, T in its upper triangle, C order.
    linear
        n × (1 + p): V⁻¹(y − Xβ̂) and V⁻¹Q.
    """

    scan: Scan
    triangle: Float
    linear: Float

    def ratios(self, block: Float) -> Ratios:
        """num and den of every column of a dense block (n × b, any order), which is not changed."""
        norm = np.einsum("ij,ij->j", block, triangular_product(self.triangle, block))
        linear = self.linear.T @ block
        aq = linear[1:]
        den = norm - np.einsum("pj,pj->j", aq, self.scan.gls.qq_inverse @ aq)
        return Ratios(linear[:1], den[None], norm)


def triangular_scan(
    scan: Scan, my: Float, design: Design, basis: DenseBasis, threads: int = 1
) -> TriangularScan | None:
    """Prepare it, or None where the rotation is the better way: low rank, or γ so large that V⁻¹ loses digits."""
    gamma, n, u = scan.gls.gamma, basis.n, basis.u
    if 2 * basis.rank <= n or gamma * basis.s.max(initial=0.0) > MAX_CONDITION:
        return None
    shrinkage = 1.0 - scan.gls.w
    triangle = np.zeros((n, n))

    def panel(start: int) -> None:
        stop = start + PANEL
        np.matmul(u[start:stop] * (-2.0 * shrinkage), u[start:].T, out=triangle[start:stop, start:])

    # On threads of our own: those of BLAS spin for a while after a product, in the way of what follows.
    for _ in map_blocks(panel, range(0, n, PANEL), threads):
        pass
    diagonal = np.diag_indices(n)
    triangle[diagonal] = 1.0 + 0.5 * triangle[diagonal]
    right = np.column_stack([my - design.q @ scan.q_solved, design.q])
    linear = right - u @ (shrinkage[:, None] * (u.T @ right))
    return TriangularScan(scan, triangle, np.asfortranarray(linear))


def triangular_product(triangle: Float, block: Float) -> Float:
    """T a for the columns of a block, T in the upper triangle of an array in C order (what is below is not read)."""
    out = np.array(block, dtype=np.float64, order="C")
    n, b = out.shape
    # Fortran sees the transposes: outᵀ Tᵀ with a lower triangle.
    right, lower, no = ctypes.c_char(b"R"), ctypes.c_char(b"L"), ctypes.c_char(b"N")
    rows, columns, one = _INTEGER(n), _INTEGER(b), ctypes.c_double(1.0)
    if b:
        _DTRMM(
            *[ctypes.addressof(x) for x in (right, lower, no, no, columns, rows, one)],
            triangle.ctypes.data, ctypes.addressof(rows), out.ctypes.data, ctypes.addressof(columns),
        )  # fmt: skip
    return out


def _blas(name: str) -> tuple[Callable[..., None], type[ctypes._SimpleCData[int]]]:
    """A BLAS routine and its integer, as scipy offers them to Cython: unlike `scipy.linalg.blas`, without the GIL."""
    capsule, python = cython_blas.__pyx_capi__[name], ctypes.pythonapi
    signature = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", python))(capsule)
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", python))
    routine = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * signature.count(b"*"))(pointer(capsule, signature))
    return routine, ctypes.c_int if b" int *" in signature else ctypes.c_int64


_DTRMM, _INTEGER = _blas("dtrmm")
