"""`numba.njit` that also works where no folder can hold what it compiles (a read-only installation without a home)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numba


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """The decorator; without its cache, and a warning once, where numba finds no place for it."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(**options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
        warnings.warn(
            "numba finds no folder to keep compiled code in, so that every session compiles it again (seconds); set the environment "
            "variable NUMBA_CACHE_DIR to a folder that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
        return numba.njit(**options | {"cache": False})(function)

    return decorate
