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
    # FLASH-MM imports scipy without asking for it
    "genes": ("flash-mm==0.1.0", "statsmodels==0.15.0", "scipy", "threadpoolctl", "airqtl==0.1.1", "normalisr==1.0.0"),
    # tensorQTL imports pandas-plink (numpy below 2, which newer pyarrow refuses) and writes parquet without asking for them
    "eqtl": (
        "torch==2.13.0", "tensorqtl==1.0.10", "pandas-plink==2.3.2", "pyarrow==20.0.0", "threadpoolctl", "airqtl==0.1.1", "normalisr==1.0.0",
    ),
}  # fmt: skip
# What their estimates and tests never import is left out: snakemake, goatools and more, and for estimates torch.
ALONE = {"airqtl==0.1.1", "normalisr==1.0.0"}


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
        for alone in (False, True):
            packages = [name for name in RIVALS[rival] if (name in ALONE) == alone]
            options = ["--no-deps"] if alone else []
            if packages:
                subprocess.run([python, "-m", "pip", "install", "-qqq", *options, *packages], check=True)
        done.write_text(wanted)
    return python


def gemma() -> str:
    """The GEMMA on the PATH, installed with apt-get if there is none."""
    if shutil.which("gemma") is None:
        _apt_get("gemma")
    found = shutil.which("gemma")
    if found is None:
        raise RuntimeError("GEMMA could not be installed with apt-get; put the program gemma on the PATH")
    return found


def rscript() -> str:
    """An Rscript that has lme4 and lmerTest, installed with apt-get where they are missing."""
    loads = ["-e", "suppressPackageStartupMessages({library(lme4); library(lmerTest)})"]
    found = shutil.which("Rscript")
    if found is None or subprocess.run([found, *loads], capture_output=True, check=False).returncode:
        _apt_get("r-base-core", "r-cran-lme4", "r-cran-lmertest")
        found = shutil.which("Rscript")
    if found is None:
        raise RuntimeError("R could not be installed with apt-get; put Rscript with lme4 and lmerTest on the PATH")
    return found


def _apt_get(*packages: str) -> None:
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", *packages]):
        subprocess.run([*as_root, *command], check=True, stdout=subprocess.DEVNULL)
