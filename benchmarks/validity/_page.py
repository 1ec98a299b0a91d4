"""A page of tables without timings, and the command line of the scripts that write one."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

from _common import RESULTS, Report, blas, machine, packages


class Page(Report):
    """`benchmarks/results/NAME.md`; the name is the script's unless it is given."""

    def __init__(self, script: str, title: str, arguments: argparse.Namespace, name: str | None = None) -> None:
        own = Path(script).stem
        self.name, self.arguments, self.lines = name or own, arguments, []
        self.text(f"# {title}")
        self.text(
            f"`python benchmarks/validity/{own}.py`: {machine()}; Python {platform.python_version()}, {packages()}; {blas()}."
        )


def parser(description: str | None) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--small", action="store_true", help="few genes, to see that it works; nothing is written")
    options.add_argument("--threads", type=int, default=1, help="of BLAS and of annlmm (default 1)")
    options.add_argument("--output", type=Path, help=f"folder instead of {RESULTS.name}")
    return options


def marked(ratio: float, error: float, expected: float = 1.0) -> str:
    """A number beside what it should be; bold: above by more than three standard errors, italic: below."""
    mark = "**" if ratio > expected + 3 * error else "*" if ratio < expected - 3 * error else ""
    return f"{mark}{ratio:.2f}{mark}" if ratio < 100 else f"{mark}{ratio:,.0f}{mark}"
