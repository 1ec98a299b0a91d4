"""Every gene as the response: `al.tl.differential` and `al.tl.variance_components` on 200,000 cells × 20,000 genes of 100 donors.

What the pass over X takes, and the fitting after it, per gene, beside FLASH-MM, airqtl, statsmodels and lme4 on a sample of the genes; then the
memory of 1,000,000 cells × 2000 genes. Rivals are installed at the first run (see _install.py) and run in processes of their own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from _common import Report, Times, gigabytes, interleaved, largest, parser, start
from _gene_data import COVARIATES, N_COVARIATES, TERM, design, study
from _install import CACHE, python_of, rscript
from _remote import Remote, Seconds, environment, peak_of, resident, serve
from anndata import AnnData

import annlmm as al

SAMPLE = 100
# Fits of lme4 and statsmodels.
FITS = 3

CALLS: dict[str, Callable[[AnnData], object]] = {
    "differential": lambda a: al.tl.differential(a, TERM, COVARIATES),
    'differential, df="kenward-roger"': lambda a: al.tl.differential(a, TERM, COVARIATES, df="kenward-roger"),
    "differential, moderate=True": lambda a: al.tl.differential(a, TERM, COVARIATES, moderate=True),
    "variance_components": lambda a: al.tl.variance_components(a, [*COVARIATES, TERM]),
}
MEASURED = ("differential", "variance_components")  # their memory


@dataclass
class Parts:
    """Seconds of one kind of call: until the pass over X, in it, and from its end to the return."""

    before: list[float] = field(default_factory=list)
    within: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    def of(self, name: str) -> Times:
        return Times(tuple(getattr(self, name)[1:]))  # the first call is not counted


@contextmanager
def watched() -> Iterator[list[float]]:
    """The start and the end of the pass of the calls within."""
    from annlmm.tl import _genes

    original = _genes.collect_statistics
    seen: list[float] = []

    def collect_statistics(*args: Any, **options: Any) -> Any:
        seen.append(time.perf_counter())
        found = original(*args, **options)
        seen.append(time.perf_counter())
        return found

    with patch.object(_genes, "collect_statistics", collect_statistics):
        yield seen


def in_parts(call: str, adata: AnnData, parts: Parts) -> Callable[[], Seconds]:
    """A side of `interleaved` that files its parts, and returns what comes after the pass."""

    def side() -> Seconds:
        begin = time.perf_counter()
        with watched() as seen:
            CALLS[call](adata)
            end = time.perf_counter()
        if len(seen) != 2:
            raise RuntimeError(f"{call}: {len(seen) // 2} passes instead of one")
        parts.before.append(seen[0] - begin)
        parts.within.append(seen[1] - seen[0])
        parts.after.append(end - seen[1])
        return Seconds(end - seen[1])

    return side


def write_sample(adata: AnnData, genes: np.ndarray, folder: Path) -> Path:
    """The sample for the rivals, the cells of a donor together: dense, and as FLASH-MM's sufficient statistics."""
    codes = adata.obs["donor"].astype(int).to_numpy()
    order = np.argsort(codes, kind="stable")
    x, y = design(adata.obs)[order], adata.X[:, genes].toarray()[order].astype(np.float64)
    cells = np.bincount(codes)
    starts = np.r_[0, np.cumsum(cells)[:-1]]
    file = folder / "sample.npz"
    np.savez(
        file, x=x, y=y, donor=codes[order], xx=x.T @ x, xy=x.T @ y, zx=np.add.reduceat(x, starts), zy=np.add.reduceat(y, starts),
        zz=np.diag(cells).astype(float), norm=np.einsum("ij,ij->j", y, y),
    )  # fmt: skip
    for name, values in {"x": x, "y": y[:, :FITS], "donor": codes[order].astype(np.int32)}.items():
        (folder / name).write_bytes(np.asfortranarray(values).tobytes("F"))
    return file


def lme4(folder: Path, shape: tuple[int, int], genes: int, threads: int) -> tuple[np.ndarray, str]:
    """The lines of _lme4.R as a table, and its versions."""
    command = [
        rscript(),
        Path(__file__).parent / "_lme4.R",
        folder,
        *(str(number) for number in (*shape, genes)),
    ]
    done = subprocess.run(command, env=environment(threads), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"_lme4.R ended with {done.returncode}:\n{done.stderr[-4000:]}")
    *rows, last = done.stdout.strip().splitlines()
    names = last.split()[1:]
    return np.array(
        [row.split() for row in rows], dtype=float
    ), f"lme4 {names[0]}, lmerTest {names[1]} (R {names[2]}), statsmodels"


def calls(adata: AnnData, report: Report, sides: dict[str, Callable[[], object]], runs: int) -> dict[str, Times]:
    """All calls and all rivals in turns; a table of the calls."""
    parts = {call: Parts() for call in CALLS}
    ours = {call: in_parts(call, adata, parts[call]) for call in CALLS}
    times = interleaved({**ours, **sides}, runs)
    report.text(
        "## The call\n\nBefore the pass: slots, design, the REML space. After it: estimates, standard errors, degrees of freedom, p-values, BH and writing "
        "to `.var`; the simulated null of σ² = 0 in `variance_components`, drawn once."
    )
    report.table("call", "before the pass", "pass over X", "after it", "µs per gene after it")
    for call in CALLS:
        part = parts[call]
        micro = 1e6 * part.of("after").median / adata.n_vars
        report.row(f"`{call}`", part.of("before"), part.of("within"), part.of("after"), f"{micro:.1f}")
    report.end()
    return times


def per_gene(report: Report, times: dict[str, Times], rivals: dict[str, int], n_vars: int, fits: np.ndarray) -> None:
    """Rivals (with the number of their genes) beside the calls."""
    report.text(
        f"## Per gene\n\nRivals' seconds over their genes, and annlmm's after the pass over its {n_vars:,}. FLASH-MM starts from its own sufficient statistics and gives standard errors, with n − p for "
        "degrees of freedom; airqtl gives variance components, and sums its dense cells in the same call: its minimiser alone is given too. lme4 and statsmodels fit cells; lmerTest "
        "adds Satterthwaite's degrees of freedom."
    )
    report.table("rival", "genes", "ms per gene", *(f"times faster: `{call}`" for call in CALLS))
    rows = {name: (genes, times[name].median / genes) for name, genes in rivals.items()}
    rows["lme4 `lmer`"] = len(fits), float(np.median(fits[:, 0]))
    rows["lme4 `lmer` and lmerTest"] = len(fits), float(np.median(fits[:, 1]))
    for name, (genes, seconds) in rows.items():
        report.row(name, genes, 1e3 * seconds, *(f"{seconds / (times[call].median / n_vars):,.0f}" for call in CALLS))
    report.end()


def agreement(report: Report, adata: AnnData, genes: np.ndarray, file: Path, fits: np.ndarray) -> None:
    """Largest differences over the sampled genes that both have inside the boundary."""
    theirs = np.load(file)
    al.tl.variance_components(adata, [*COVARIATES, TERM])
    al.tl.differential(adata, TERM, COVARIATES)
    al.tl.variance_components(adata, [*COVARIATES, TERM], reml=False, key_added="ml")
    table = al.get.differential(adata).iloc[genes]
    reml, ml = (al.get.variance_components(adata, key).iloc[genes] for key in ("varcomp", "ml"))
    sigma_sq, tau_sq = reml["sigma_sq"].to_numpy(), reml["tau_sq"].to_numpy()
    beta, se, df = (table[name].to_numpy() for name in ("beta", "standard_error", "df"))
    report.text(
        "## Agreement\n\nLargest difference over the genes with σ̂² > 0: of variances and standard errors relative, of estimates in standard errors. Rivals stop earlier: FLASH-MM at a gradient of "
        "1e-5 or after 50 steps, airqtl (full likelihood; it reports 0 where its minimiser fails) at a gradient of 0.2."
    )
    report.table("rival", "genes", "σ²", "τ²", "β", "standard error", "df", "remarks")

    def row(
        name: str, s: np.ndarray, t: np.ndarray, b: np.ndarray, e: np.ndarray, nu: np.ndarray | None, remark: str
    ) -> None:
        k = s.size
        inside = sigma_sq[:k] > 0
        one, other = [a[:k][inside] for a in (sigma_sq, tau_sq, beta, se)], [a[inside] for a in (s, t, b, e)]
        report.row(
            name, int(inside.sum()), largest(other[0] / one[0] - 1), largest(other[1] / one[1] - 1), largest((other[2] - one[2]) / one[3]),
            largest(other[3] / one[3] - 1), "" if nu is None else largest(nu[inside] / df[:k][inside] - 1), remark,
        )  # fmt: skip

    flash = [theirs[f"flash_{name}"] for name in ("sigma_sq", "tau_sq", "beta", "se")]
    late = int((theirs["flash_iterations"] >= 50).sum())
    row("FLASH-MM", *flash, None, f"{late} not converged, {int((flash[0] < 0).sum())} with σ̂² < 0")
    row("lme4", *fits[:, 2:6].T, fits[:, 6], "")
    row("statsmodels", *(theirs[f"statsmodels_{name}"] for name in ("sigma_sq", "tau_sq", "beta", "se")), None, "")
    gamma, zero = (ml["sigma_sq"] / ml["tau_sq"]).to_numpy(), theirs["airqtl_gamma"] < 1e-8
    both = (gamma > 0) & ~zero
    report.row(
        "airqtl", int(both.sum()), f"{largest(theirs['airqtl_gamma'][both] / gamma[both] - 1)} (of σ²/τ²)", "", "", "", "",
        f"{int((zero & (gamma > 0)).sum())} of {int((gamma > 0).sum())} reported as 0",
    )  # fmt: skip
    report.end()


def answer() -> None:
    """The process whose memory is measured: it makes its own cells."""

    def peak(n: int, m: int, donors: int, density: float) -> dict[str, float]:
        for call in CALLS.values():
            call(study(400, 40, 10, 0.2))
        adata = study(n, m, donors, density)
        size = sum(part.nbytes for part in (adata.X.data, adata.X.indices, adata.X.indptr))
        made, found = resident("VmHWM"), {}
        for call in MEASURED:
            begin = time.perf_counter()
            found[call] = peak_of(lambda call=call: CALLS[call](adata))["peak"]
            found[f"{call} seconds"] = time.perf_counter() - begin
        return {"x": size, "nnz": adata.X.nnz, "made": made, "loaded": resident(), **found}

    serve({"peak": peak})


def memory(report: Report, arguments: Any, n: int, m: int, density: float) -> None:
    with Remote([sys.executable, __file__, "--serve", "--threads", arguments.threads], environment(arguments.threads)) as remote:  # fmt: skip
        found = remote("peak", n=n, m=m, donors=100, density=density)
    report.text(
        f"## {n:,} cells × {m:,} genes\n\nSparse, float32, {found['nnz'] / 1e6:.0f} M stored ({gigabytes(found['x'])}), one call in a fresh process that made its cells in blocks of rows. Peak: the most "
        f"memory that the process held during the call, X and all libraries included; {gigabytes(found['loaded'])} are held after it, and making the data took "
        f"{gigabytes(found['made'])}."
    )
    report.table("call", "s", "peak")
    for call in MEASURED:
        report.row(f"`{call}`", f"{found[f'{call} seconds']:.1f}", gigabytes(found[call]))
    report.end()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rivals", type=Path, default=CACHE, help=f"folder of their environments (default {CACHE})")
    options.add_argument("--serve", action="store_true", help="internal: answer commands")
    arguments = options.parse_args()
    start(arguments)
    if arguments.serve:
        answer()
        return
    n, m, donors, sample = (3000, 200, 20, 10) if arguments.small else (200_000, 20_000, 100, SAMPLE)
    adata = study(n, m, donors, density=0.07)
    rng = np.random.default_rng(6)
    seen = np.flatnonzero(np.diff(adata.X.tocsc().indptr) > 0.01 * n) if arguments.small else np.arange(m)
    genes = np.sort(rng.choice(seen, sample, replace=False))
    with tempfile.TemporaryDirectory() as name:
        folder, here, env = Path(name), Path(__file__).parent, environment(arguments.threads)
        file = write_sample(adata, genes, folder)
        fits, lme4_version = lme4(folder, (n, N_COVARIATES + 2), FITS, arguments.threads)
        with Remote([python_of("genes", arguments.rivals), here / "_genes_worker.py", file], env) as remote:
            report = Report(__file__, arguments, remote("versions")["text"], lme4_version)
            report.text(
                f"Simulated log counts of {n:,} cells × {m:,} genes, float32 CSR, {adata.X.nnz / 1e6:.0f} M stored; {donors} donors of unequal sizes whose cells are mixed, "
                f"{N_COVARIATES} covariates of the cells; a condition of the donors is tested, p = {N_COVARIATES + 2} with the constant. Rivals: the same {sample} genes, drawn at random; "
                f"lme4 and statsmodels the first {FITS} of them."
            )
            sides = {
                "FLASH-MM `lmm`": remote.timed("flash"),
                "airqtl `heritability.estimate`": remote.timed("airqtl"),
                "airqtl, its minimiser alone": remote.timed("airqtl_optimiser"),
                "statsmodels `MixedLM`": remote.timed("statsmodels", gene=0),
            }
            times = calls(adata, report, sides, arguments.runs)
            per_gene(report, times, {name: 1 if "MixedLM" in name else sample for name in sides}, m, fits)
            remote("results", file=str(folder / "results.npz"), fits=FITS)
            agreement(report, adata, genes, folder / "results.npz", fits)
    del adata
    memory(report, arguments, *((5000, 100, 0.07) if arguments.small else (1_000_000, 2000, 0.07)))
    report.write()


if __name__ == "__main__":
    main()
