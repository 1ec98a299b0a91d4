"""Command line, timing, versions and tables of every benchmark."""

from __future__ import annotations

import argparse
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from _remote import Seconds
from threadpoolctl import threadpool_info, threadpool_limits

import annlmm as al

RESULTS = Path(__file__).parent / "results"


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every script has."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--small", action="store_true", help="small data, to see that it works; nothing is written")
    found.add_argument("--threads", type=int, default=2, help="of BLAS and of annlmm, and of every rival (default 2)")
    found.add_argument("--runs", type=int, default=5, help="of which the median is taken (default 5)")
    found.add_argument("--output", type=Path, help="folder for the table instead of benchmarks/results")
    return found


def start(arguments: argparse.Namespace) -> None:
    """Set the threads of this process and take the progress bar away."""
    threadpool_limits(arguments.threads)
    al.settings.threads = arguments.threads
    al.settings.progress, al.settings.verbosity = False, "error"


@dataclass(frozen=True)
class Times:
    """Seconds of several calls of one side."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({min(self.seconds):.3g}–{max(self.seconds):.3g})"


def interleaved(sides: Mapping[str, Callable[[], object]], runs: int) -> dict[str, Times]:
    """Time every side `runs` times, in turns, after a call of each that is not counted.

    In turns, so that a change of the machine's load meets all sides; a side that returns `Seconds` has measured itself in its own process.
    """
    for function in sides.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, function in sides.items():
            begin = time.perf_counter()
            returned = function()
            elapsed = time.perf_counter() - begin
            seconds[name].append(float(returned) if isinstance(returned, Seconds) else elapsed)
            del returned
    return {name: Times(tuple(values)) for name, values in seconds.items()}


class Report:
    """A Markdown page of tables, printed as it grows and written at the end."""

    def __init__(self, script: str, arguments: argparse.Namespace, *extra: str) -> None:
        self.name = Path(script).stem
        self.arguments = arguments
        self.lines: list[str] = []
        title = self.name.replace("_", " ").capitalize()
        self.text(f"# {title}")
        self.text(
            f"`python benchmarks/{self.name}.py`: {machine()}; Python {platform.python_version()}, {packages()}"
            f"{''.join(', ' + text for text in extra)}; {blas()}; {arguments.threads} threads on every side; "
            f"medians of {arguments.runs} calls in turns (smallest–largest), after one that is not counted. Seconds."
        )

    def text(self, paragraph: str) -> None:
        self._add(paragraph, "")

    def table(self, *names: str) -> None:
        self._add("| " + " | ".join(names) + " |", "|" + " --- |" * len(names))

    def row(self, *cells: object) -> None:
        self._add("| " + " | ".join(map(_cell, cells)) + " |")

    def end(self) -> None:
        """Close a table."""
        self._add("")

    def _add(self, *lines: str) -> None:
        self.lines.extend(lines)
        print(*lines, sep="\n", flush=True)

    def write(self) -> None:
        """Write the page, unless the data were small and no folder was asked for."""
        if self.arguments.small and self.arguments.output is None:
            return
        (self.folder / f"{self.name}.md").write_text("\n".join(self.lines).rstrip() + "\n", encoding="utf-8")

    @property
    def folder(self) -> Path:
        folder = self.arguments.output or RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def compare(self, label: str, ours: Times, rival: str, theirs: Times) -> None:
        """A row of annlmm beside a rival: label, seconds, rival, seconds, ratio."""
        self.row(label, ours, rival, theirs, ours.median / theirs.median)


COMPARISON = ("annlmm", "s", "beside", "s", "ratio")


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def packages(names: Sequence[str] = ("annlmm", "numpy", "scipy", "numba", "anndata")) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


def blas() -> str:
    """The BLAS libraries that are loaded, with the kernel each chose."""
    libraries = {
        f"{lib['internal_api']} {lib['version']} ({lib.get('architecture', '?')})"
        for lib in threadpool_info()
        if lib["user_api"] == "blas"
    }
    return ", ".join(sorted(libraries))


def machine() -> str:
    """Processor, cores and memory."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M)):
        name = " ".join(found[1].split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def gigabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f} GB"


def largest(values: Any) -> str:
    """The largest magnitude in a few digits; an empty or undefined comparison is an error, not a zero."""
    value = float(np.max(np.abs(values)))
    if not np.isfinite(value):
        raise RuntimeError("a comparison has missing values")
    return f"{value:.1e}"
