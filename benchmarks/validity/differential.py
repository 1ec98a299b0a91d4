"""Calibration of `al.tl.differential`: null genes, a condition of the donors (and one of the cells), few and many donors of unequal sizes.

How often p < 0.05, 0.01 and 0.001 beside the nominal size, for every choice of degrees of freedom and for the tests that are in use;
bias of the variance components and coverage of the interval of h². Tables, and a figure, in benchmarks/results.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _common import RESULTS, Report, blas, machine, packages, start
from _figure import draw
from _methods import INTERVAL_DATA_SETS, LEVELS, METHODS, PSEUDOBULK, Components, Tally, p_values
from _simulate import Counts, Layout, gaussian, make_layout, mixed

ICCS = (0.0, 0.01, 0.05, 0.1, 0.3)
GENES = 5000
# Data sets of GENES genes, each with donors of its own sizes.
DATA_SETS = {"Gaussian": {8: 40, 20: 30, 100: 20}, "log-normalised counts": {8: 8, 20: 8, 100: 3}}
OF_CELLS = {8: 10, 20: 10}
MIXED = {8: 40, 20: 20}
INTERVAL_GENES = 150
HIGH_ICC = 0.25


class Page(Report):
    """A page of tables without timings."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.name, self.arguments, self.lines = "differential", arguments, []
        self.text("# Calibration of differential expression")
        self.text(
            f"`python benchmarks/validity/differential.py`: {machine()}; Python {platform.python_version()}, {packages()}; {blas()}."
        )


def layouts(kind: str, n_donors: int, icc: float | str, number: int) -> Iterator[tuple[Layout, np.random.Generator]]:
    """Data sets of one setting, each from a seed of its own."""
    name = zlib.crc32(f"{kind} {n_donors} {icc}".encode())
    for i in range(number):
        rng = np.random.default_rng([name, i])
        yield make_layout(n_donors, rng), rng


def donor_condition(
    kind: str, n_donors: int, icc: float, number: int, genes: int, counts: Counts | None
) -> tuple[Tally, Components]:
    tally, components = Tally(), Components()
    for i, (layout, rng) in enumerate(layouts(kind, n_donors, icc, number)):
        x = gaussian(layout, np.full(genes, icc), rng) if counts is None else counts.genes(layout, icc, genes, rng)
        adata = layout.annotated(x)
        tally.add(p_values(adata, layout, "ill"))
        components.add(adata)
        if counts is None and i < INTERVAL_DATA_SETS:
            components.add_intervals(adata, icc, min(INTERVAL_GENES, genes))
    return tally, components


def size_tables(report: Page, rows: dict[str, Tally], methods: tuple[str, ...]) -> None:
    """One table per level; bold: above nominal by more than three binomial standard errors, italic: below."""
    for i, level in enumerate(LEVELS):
        report.text(f"Size at p < {level:g} over {level:g}:")
        report.table("donors, ICC", "genes", "error", *methods)
        for label, tally in rows.items():
            cells = []
            for method in methods:
                ratio, error = tally.ratio(method)[i], tally.error(method)[i]
                mark = "**" if ratio > 1 + 3 * error else "*" if ratio < 1 - 3 * error else ""
                cells.append(f"{mark}{ratio:.2f}{mark}" if ratio < 100 else f"{mark}{ratio:.0f}{mark}")
            report.row(label, tally.tested[methods[0]], f"±{tally.error(methods[0])[i]:.3f}", *cells)
        report.end()


def verdicts(report: Page, tallies: dict[tuple[int, float], Tally]) -> None:
    """Every setting and level at once: how far each method is from nominal."""
    report.text(
        "Over all settings and levels of these tables: how many sizes are above nominal by more than two and by more than three binomial standard errors "
        "(chance alone: 2.3 % and 0.13 %), how many below with ICC ≥ 0.05, and the range."
    )
    report.table(
        "test", "sizes", "above by 2", "above by 3", "largest", "below by 2, ICC ≥ 0.05", "smallest, ICC ≥ 0.05"
    )
    for method in METHODS:
        ratio = np.array([t.ratio(method) for t in tallies.values()])
        z = (ratio - 1) / np.array([t.error(method) for t in tallies.values()])
        clear = np.array([icc >= 0.05 for _, icc in tallies])
        report.row(
            method, z.size, int((z > 2).sum()), int((z > 3).sum()), f"{ratio.max():.2f}×",
            f"{int((z[clear] < -2).sum())} of {z[clear].size}", f"{ratio[clear].min():.2f}×",
        )  # fmt: skip
    report.end()


def component_rows(report: Page, found: dict[tuple[int, float], Components], *, intervals: bool) -> None:
    columns = ["donors", "ICC", "mean ĥ²", "share with σ̂² = 0", "mean σ̂² / σ² − 1", "mean τ̂² / τ² − 1"]
    report.table(*columns[: None if intervals else 4], *(["coverage"] if intervals else []))
    for (d, icc), components in found.items():
        cells = [d, f"{icc:g}", f"{components.mean('h_sq')[0]:.4f}", f"{components.at_zero:.3f}"]
        if intervals:
            sigma, tau = components.mean("sigma_sq"), components.mean("tau_sq")
            cells += [
                f"{sigma[0] / icc - 1:+.3f} ± {sigma[1] / icc:.3f}" if icc else f"(mean σ̂² {sigma[0]:.4f})",
                f"{tau[0] / (1 - icc) - 1:+.4f} ± {tau[1] / (1 - icc):.4f}",
                "{:.3f} ± {:.3f}".format(*components.coverage),
            ]
        report.row(*cells)
    report.end()


def whole(report: Page, arguments: argparse.Namespace) -> None:
    """Genes that share one ICC, Gaussian and counts."""
    genes = 300 if arguments.small else GENES
    for kind, data_sets in DATA_SETS.items():
        counts = Counts(np.random.default_rng(0)) if kind != "Gaussian" else None
        tallies, components = {}, {}
        for d, number in data_sets.items():
            for icc in ICCS:
                found = donor_condition(kind, d, icc, 1 if arguments.small else number, genes, counts)
                tallies[d, icc], components[d, icc] = found
                print(f"{kind}, {d} donors, ICC {icc:g}", file=sys.stderr)
        stem = "differential" if counts is None else "differential_counts"
        report.text(f"## {kind[0].upper()}{kind[1:]}\n\n![Size over nominal]({stem}.png)")
        size_tables(report, {f"{d}, {icc:g}": tally for (d, icc), tally in tallies.items()}, METHODS)
        verdicts(report, tallies)
        if counts is None:
            report.text(
                f"Variance components with the condition as a covariate (REML, never negative), and how often the 95 % interval of h² of `al.tl.fit_null` holds "
                f"the true value ({INTERVAL_DATA_SETS} × {INTERVAL_GENES} genes per row; the responses of one call share the simulated null)."
            )
        else:
            report.text("What log-normalisation makes of the ICC that was asked for (to first order):")
        component_rows(report, components, intervals=counts is None)
        if not arguments.small or arguments.output is not None:
            name = "Null genes, a condition of the donors, 10 to 300 cells per donor"
            draw(tallies, f"{name}\n({kind})", report.folder / f"{stem}.png")


def cell_condition(report: Page, arguments: argparse.Namespace) -> None:
    report.text(
        "## A condition of the cells\n\nGaussian; active and resting cells in every donor, in shares that differ (Beta(2, 2))."
    )
    rows = {}
    for d, number in OF_CELLS.items():
        for icc in ICCS:
            tally = rows[f"{d}, {icc:g}"] = Tally()
            for layout, rng in layouts("cells", d, icc, 1 if arguments.small else number):
                x = gaussian(layout, np.full(300 if arguments.small else GENES, icc), rng)
                tally.add(p_values(layout.annotated(x), layout, "active"))
    size_tables(report, rows, tuple(m for m in METHODS if m != PSEUDOBULK))


def genes_that_differ(report: Page, arguments: argparse.Namespace) -> None:
    report.text(
        f"## Genes of different ICC\n\nGaussian, a condition of the donors; ICC 0 in half of the genes, Beta(1, 9) in the others. `moderate=True` learns σ²/τ² from "
        f"{GENES} genes: its size is nominal over all of them, not in those with the largest ICC."
    )
    rows = {}
    for d, number in MIXED.items():
        names = {f"{d}, all": None, f"{d}, ICC = 0": 0, f"{d}, 0 < ICC < {HIGH_ICC}": 1, f"{d}, ICC ≥ {HIGH_ICC}": 2}
        for name in names:
            rows[name] = Tally()
        for layout, rng in layouts("mixed", d, "mixed", 1 if arguments.small else number):
            icc = mixed(300 if arguments.small else GENES, rng)
            found = p_values(layout.annotated(gaussian(layout, icc, rng)), layout, "ill")
            part = np.where(icc == 0, 0, np.where(icc < HIGH_ICC, 1, 2))
            for name, number_of in names.items():
                rows[name].add(found, slice(None) if number_of is None else part == number_of)
    size_tables(report, rows, METHODS)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--small", action="store_true", help="few genes, to see that it works; nothing is written")
    options.add_argument("--threads", type=int, default=2, help="of BLAS and of annlmm (default 2)")
    options.add_argument("--output", type=Path, help=f"folder instead of {RESULTS.name}")
    arguments = options.parse_args()
    start(arguments)
    begin = time.perf_counter()
    report = Page(arguments)
    report.text(
        f"Data sets of {GENES} null genes each (moderation learns from one data set), every one with donors of new sizes: lognormal, 10 to 300 cells, median 55. "
        "Half of the donors have the condition. *Pseudobulk* is least squares on the unweighted means of the donors (a t-test with one variance); *t-test on cells* takes cells as independent; "
        "*residual df* is the mixed model with n − p degrees of freedom. Sizes are given over their nominal value with the binomial standard error of a test that has it; "
        "bold: above by more than three of them, italic: below."
    )
    whole(report, arguments)
    cell_condition(report, arguments)
    genes_that_differ(report, arguments)
    print(f"{time.perf_counter() - begin:.0f} s", file=sys.stderr)
    report.write()


if __name__ == "__main__":
    main()
