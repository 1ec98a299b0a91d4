"""A process that answers commands, so that both sides of a comparison can take turns. Standard library only: rivals run it in their own environments."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Seconds(float):
    """A time that a function took elsewhere, measured there."""


def environment(threads: int) -> dict[str, str]:
    """This environment with that many threads for every BLAS and OpenMP."""
    return {**os.environ, **dict.fromkeys(VARIABLES, str(threads)), "PYTHONWARNINGS": "ignore"}


class Remote:
    """Another Python process that runs `serve`; calling it sends a command and waits for the answer."""

    def __init__(self, command: Sequence[str | Path], env: dict[str, str]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 — closed by __exit__
        self._process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env=env, text=True,
        )  # fmt: skip

    def __call__(self, name: str, **arguments: Any) -> Any:
        process = self._process
        with contextlib.suppress(BrokenPipeError):  # its last words are in the error below
            process.stdin.write(json.dumps([name, arguments]) + "\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{self._errors.read()[-4000:]}")
        return json.loads(answer)

    def timed(self, name: str, **arguments: Any) -> Callable[[], Seconds]:
        """The command as a side of `_common.interleaved`."""
        return lambda: Seconds(self(name, **arguments)["seconds"])

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def serve(commands: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer commands until the input ends; what else is printed goes to the error stream."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        name, arguments = json.loads(line)
        out.write(json.dumps(commands[name](**arguments)) + "\n")
        out.flush()


def clock(function: Callable[[], object]) -> dict[str, float]:
    start = time.perf_counter()
    function()
    return {"seconds": time.perf_counter() - start}


def resident(field: str = "VmRSS") -> int:
    """Bytes of memory that this process holds now (VmRSS), or held at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak_of(function: Callable[[], object]) -> dict[str, int]:
    """The highest resident memory while the function runs, in bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS
    before = resident()
    function()
    return {"before": before, "peak": resident("VmHWM")}
