"""Rivals, each in an environment of its own; made at the first run, used again later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "annlmm-benchmarks"
RIVALS = {
    "fastlmm": ("fastlmm==0.6.13", "six", "threadpoolctl"),  # pysnptools 0.5.15 imports six without asking for it
    "glimix": ("glimix-core==3.1.14", "threadpoolctl"),
}


def python_of(rival: str, folder: Path = CACHE) -> Path:
    """The interpreter of a rival's environment under `folder`, installed from PyPI if it is not there."""
    home = folder / rival
    python = home / "bin" / "python"
    done = home / "complete"
    wanted = "\n".join(RIVALS[rival])
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(RIVALS[rival])} into {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qqq", *RIVALS[rival]], check=True)
        done.write_text(wanted)
    return python


def gemma() -> str:
    """The GEMMA on the PATH, installed with apt-get if there is none."""
    if shutil.which("gemma") is None:
        as_root = [] if os.geteuid() == 0 else ["sudo"]
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "gemma"]):
            subprocess.run([*as_root, *command], check=True, stdout=subprocess.DEVNULL)
    found = shutil.which("gemma")
    if found is None:
        raise RuntimeError("GEMMA could not be installed with apt-get; put the program gemma on the PATH")
    return found
