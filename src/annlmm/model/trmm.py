"""BLAS's triangular product without the global lock of the interpreter, which scipy's own wrapper holds."""

from __future__ import annotations

from ctypes import CFUNCTYPE, POINTER, byref, c_char, c_double, c_int, c_void_p
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@cache
def _dtrmm() -> Any:
    """dtrmm(side, uplo, transa, diag, m, n, alpha, a, lda, b, ldb) of scipy.linalg.cython_blas."""
    from numba.extending import get_cython_function_address

    number, text = POINTER(c_int), POINTER(c_char)
    prototype = CFUNCTYPE(
        None, text, text, text, text, number, number, POINTER(c_double), c_void_p, number, c_void_p, number
    )
    return prototype(get_cython_function_address("scipy.linalg.cython_blas", "dtrmm"))


def times_transposed(b: Float, r: Float) -> Float:
    """B ← B Rᵀ in place, for B (m × n) and R (n × n, upper triangular), both F-ordered float64."""
    m, n = b.shape
    if not (b.flags.f_contiguous and r.flags.f_contiguous and b.dtype == r.dtype == np.float64 and r.shape == (n, n)):
        raise ValueError("b and r: must be F-ordered float64 of matching shapes")
    if b.size:
        rows, columns = c_int(m), c_int(n)
        ones = byref(c_double(1.0))
        side, uplo, transa, diag = (byref(c_char(letter)) for letter in (b"R", b"U", b"T", b"N"))
        _dtrmm()(
            side, uplo, transa, diag, byref(rows), byref(columns), ones, r.ctypes.data, byref(columns), b.ctypes.data, byref(rows)
        )  # fmt: skip
    return b
