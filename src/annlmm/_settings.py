"""Settings and logging, after scanpy's convention."""

from __future__ import annotations

import logging
import os
from numbers import Real

from annlmm.model.parallel import processors

logger = logging.getLogger("annlmm")
_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.INFO - 5, logging.DEBUG)
_NAMES = ("error", "warning", "info", "hint", "debug")
_FLAGS = ("progress",)
_NUMBERS = ("block_memory", "threads", "kernel_memory")


class Settings:
    """Package-wide settings, as `al.settings`.

    Attributes
    ----------
    verbosity : int
        0 errors, 1 warnings (default), 2 what was read, written and how long it took, 3 hints, 4 debug; or their names.
    progress : bool
        Whether long functions show a progress bar.
    block_memory : int
        Bytes that one block of features may take (default 256 MB).
    threads : int
        Threads of a scan (default: the processors that this process may use).
    kernel_memory : int
        Bytes that a dense n × n kernel may take before `rank=` is asked for (default half of the machine's memory).

    Examples
    --------
    >>> import annlmm as al
    >>> al.settings.verbosity = "info"
    >>> al.settings.verbosity
    2
    >>> al.settings.verbosity = 1
    """

    def __init__(self) -> None:
        self.progress = True
        self.block_memory = 2**28
        self.threads = processors()
        self.kernel_memory = _physical_memory() // 2
        self.verbosity = 1

    def __setattr__(self, name: str, value: object) -> None:
        if name in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, Real) or not 1 <= float(value) < float("inf"):
                unit = "" if name == "threads" else " of bytes, such as 2**30"
                raise ValueError(f"{name}: must be a positive number{unit}, received {value!r}")
            value = int(float(value))
        elif name in _FLAGS and not isinstance(value, bool):
            raise ValueError(f"{name}: must be True or False, received {value!r}")
        elif name not in (*_FLAGS, "verbosity", "_verbosity"):
            raise AttributeError(f"al.settings has no {name!r}; known: {', '.join(('verbosity', *_FLAGS, *_NUMBERS))}")
        super().__setattr__(name, value)

    @property
    def verbosity(self) -> int:
        return self._verbosity

    @verbosity.setter
    def verbosity(self, value: int | str) -> None:
        if isinstance(value, str):
            if value not in _NAMES:
                raise ValueError(f"verbosity: must be one of {', '.join(_NAMES)} or 0 to 4, received {value!r}")
            value = _NAMES.index(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(_LEVELS):
            raise ValueError(f"verbosity: must be one of {', '.join(_NAMES)} or 0 to 4, received {value!r}")
        self._verbosity = value
        logger.setLevel(_LEVELS[value])

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("verbosity", *_FLAGS, *_NUMBERS))
        return f"annlmm.settings({values})"


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 2**34


if not logger.handlers:
    _handler = logging.StreamHandler()
    _handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(_handler)
    logger.propagate = False

settings = Settings()
