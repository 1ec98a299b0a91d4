"""GEMMA as a whole process, on BIMBAM files."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from _install import gemma
from _remote import environment


@dataclass(frozen=True)
class Gemma:
    """A data set on disk in GEMMA's formats, and the program to run on it."""

    folder: Path
    threads: int

    def write(self, g: np.ndarray, y: np.ndarray, x: np.ndarray, k: np.ndarray) -> None:
        """Dosages (n × m, whole numbers), phenotype, covariates with the constant, kinship with all digits."""
        with (self.folder / "genotypes").open("w") as file:
            for j, row in enumerate(np.ascontiguousarray(g.T.astype(np.int8)).astype("U1")):
                file.write(f"s{j}, A, G, {', '.join(row)}\n")
        np.savetxt(self.folder / "phenotype", y, fmt="%.17g")
        np.savetxt(self.folder / "kinship", k, fmt="%.17g", delimiter="\t")
        for p in (1, x.shape[1]):
            np.savetxt(self.folder / f"covariates_{p}", x[:, :p], fmt="%.17g", delimiter="\t")

    def run(self, p: int) -> None:
        """`gemma -lmm 1`: read, decompose, fit, scan, write; without its filter on the allele frequency."""
        files = [str(self.folder / name) for name in ("genotypes", "phenotype", "kinship", f"covariates_{p}")]
        command = [gemma(), *(part for pair in zip(("-g", "-p", "-k", "-c"), files, strict=True) for part in pair)]
        done = subprocess.run(
            [*command, "-lmm", "1", "-maf", "0", "-outdir", str(self.folder), "-o", f"out_{p}"],
            env=environment(self.threads), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"GEMMA ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")

    def table(self, p: int) -> pd.DataFrame:
        """GEMMA's results; `index` is the column of each SNP."""
        found = pd.read_csv(self.folder / f"out_{p}.assoc.txt", sep="\t")
        return found.set_index(found["rs"].str.removeprefix("s").astype(int))

    def own_timers(self, p: int) -> float:
        """Seconds that GEMMA's log gives for UᵀX and the optimisation: its scan without files and decomposition."""
        log = (self.folder / f"out_{p}.log.txt").read_text()
        minutes = re.findall(r"^## +time on (?:calculating UtX|optimization) = (\S+) min", log, flags=re.M)
        if len(minutes) != 2:
            raise RuntimeError(f"GEMMA's log has other timers than expected:\n{log}")
        return 60 * sum(map(float, minutes))


def version() -> str:
    text = subprocess.run([gemma(), "-h"], capture_output=True, text=True, check=False)
    found = re.search(r"GEMMA (\d\S*)", text.stdout + text.stderr)
    return f"GEMMA {found[1] if found else 'of unknown version'}"
