"""Correct digits of the whole model on hard cases, against its dense definition at 80 digits (mpmath).

Every number stands before the digits that one rounding of the input leaves (2⁻⁵² of y, X, features and of the norm of K),
measured with the same oracle: that is what can be asked of any algorithm in float64. The oracle (`mp_oracle`) and the cases
(`hard_cases`) are those of `tests/test_digits.py`.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import numpy as np
from _common import Report, blas, machine, packages
from _common import parser as common_parser

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import hard_cases as hard
from mp_oracle import digits, log_chi_square_tail, log_f_tail, mp

import annlmm as al
from annlmm.model.eqtl import log_t_sf
from annlmm.model.hypothesis import chi_square_log_sf, log_f_sf

NULL = {
    "γ": "gamma", "σ²": "sigma_sq", "τ²": "tau_sq", "h²": "h_sq", "SE(h²)": "h_sq_standard_error", "β": "beta",
    "SE(β)": "standard_error", "df of β": "df", "log-likelihood": "log_likelihood",
}  # fmt: skip
SCANS = [name for name in hard.FUNCTIONS if name.startswith(("associate", "map_eqtl"))]
ALTERNATIVE = {
    "β of a feature": "alternative_beta",
    "its SE": "alternative_standard_error",
    "its χ²": "alternative_chi_sq",
}


class Digits(Report):
    """A page without timings."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.name, self.arguments, self.lines = "digits", arguments, []
        self.text("# Correct digits")
        self.text(
            f"`python benchmarks/digits.py`: {machine()}; Python {platform.python_version()}, {packages()}, {packages(['mpmath'])}; {blas()}."
        )


def pair(got: float, possible: float) -> str:
    return f"{got:.1f} / {possible:.1f}"


def measured(name: str, function: str) -> tuple[dict[str, float], dict[str, float]] | str:
    """Correct and attainable digits of each quantity, or why there are none."""
    case = case_of(name)
    package, oracle = hard.FUNCTIONS[function]
    try:
        got = package(case)
    except ValueError as error:
        return f"refused: {str(error).split(';')[0]}"
    exact = oracle(case)
    return hard.correct(got, exact), hard.attainable(case, oracle, exact)


CASES: dict[str, hard.Case] = {}


def case_of(name: str) -> hard.Case:
    if name not in CASES:
        CASES[name] = hard.CASES[name](name)
    return CASES[name]


def null_fits(report: Report, names: list[str], function: str, columns: dict[str, str]) -> None:
    report.table("case", *columns)
    for name in names:
        if function == "variance_components" and case_of(name).gamma is not None:
            continue
        found = measured(name, function)
        if isinstance(found, str):
            report.row(name, found, *[""] * (len(columns) - 1))
        else:
            correct, possible = found
            report.row(name, *(pair(correct[q], possible[q]) if q in correct else "" for q in columns.values()))
    report.end()


def scans(report: Report, names: list[str]) -> None:
    for quantity, label in (("beta", "β"), ("standard_error", "SE"), ("neg_log10_p_value", "−log₁₀ p")):
        functions = [name for name in SCANS if quantity == "neg_log10_p_value" or "wald" in name or "map_eqtl" in name]
        report.text(f"{label} of the features (the fewest digits of them):")
        report.table("case", *functions)
        for name in names:
            cells = []
            for function in functions:
                key = (name, function)
                if key not in MEASURED:
                    held = case_of(name).gamma is not None and ("refit" in function or "map_eqtl" in function)
                    flat = case_of(name).n == case_of(name).x.shape[1] + 2 and "refit" in function
                    MEASURED[key] = "" if held or flat else measured(name, function)
                found = MEASURED[key]
                cells.append(found if isinstance(found, str) else pair(found[0][quantity], found[1][quantity]))
            report.row(name, *cells)
        report.end()


MEASURED: dict[tuple[str, str], tuple[dict[str, float], dict[str, float]] | str] = {}


def probabilities(report: Report) -> None:
    """The tails themselves, over statistics and degrees of freedom."""
    report.table(
        "function",
        "degrees of freedom",
        "−log₁₀ p from",
        "to",
        "fewest digits of log p",
        "fewest digits of p above 10⁻³⁰⁰",
    )
    for name, function, exact in (
        ("log_f_sf", log_f_sf, lambda f, df: log_f_tail(f, df)),
        (
            "log_t_sf",
            lambda f, df: log_t_sf(np.sqrt(f), df),
            lambda f, df: log_f_tail(mp.sqrt(mp.mpf(float(f))) ** 2, df),
        ),
    ):
        for df in (1.0, 2.5, 10.0, 300.0, 20_000.0):
            f = np.logspace(-6, 12 if df < 100 else 7, 37)
            row(report, name, f"{df:g}", function(f, np.full(f.size, df)), [exact(v, df) for v in f])
    x = np.logspace(-6, 7, 37)
    row(report, "chi_square_log_sf", "–", chi_square_log_sf(x), [log_chi_square_tail(v) for v in x])
    report.end()


def row(report: Report, name: str, df: str, got: np.ndarray, exact: list[object]) -> None:
    logs = np.array([float(e) for e in exact])
    size = -logs / np.log(10)
    plain = size < 300
    report.row(
        name, df, f"{size.min():.2g}", f"{size.max():.3g}",
        min(digits(g, e) for g, e in zip(got, exact, strict=True)),
        min(digits(np.exp(g), mp.exp(e)) for g, e in zip(got[plain], np.array(exact, dtype=object)[plain], strict=True)),
    )  # fmt: skip


def tails(report: Report) -> None:
    report.table("n", "kernel", "test", "−log₁₀ p", "correct digits")
    for n, groups, noise in hard.TAILS:
        adata, exact = hard.tail(n, groups, noise)
        for test in ("wald", "lrt", "score"):
            got, expected = hard.tail_answers(adata, exact, test)
            kernel = "none" if groups is None else f"{groups} groups, γ held at {hard.TAIL_GAMMA}"
            report.row(n, kernel, test, f"{got:.1f}", digits(got, expected))
    report.end()


def variance_test(report: Report, small: bool) -> None:
    report.table("−log₁₀ p, exact", "−log₁₀ p of `fit_null`", "p over exact p, seeds 0, 1, 2")
    for log10_p in (1, 3, 10) if small else (0.5, 1, 2, 3, 6, 10, 30, 100, 300, 1000):
        adata, f = hard.balanced(log10_p)
        found = []
        for seed in range(3):
            al.tl.fit_null(adata, "y", rng=seed)
            found.append(adata.uns["lmm"]["h_sq_neg_log10_p_value"])
        exact = float(-log_f_tail(f, 594, 5) / mp.log(10))
        report.row(f"{exact:.3f}", f"{found[0]:.3f}", ", ".join(f"{10 ** (exact - value):.3f}" for value in found))
    report.end()


def main() -> None:
    options = common_parser(__doc__)
    arguments = options.parse_args()
    al.settings.threads, al.settings.progress, al.settings.verbosity = 1, False, "error"
    report = Digits(arguments)
    names = list(hard.CASES)[:2] if arguments.small else list(hard.CASES)
    report.text(
        "Each cell: correct significant digits / those that one rounding of the input leaves (the fewest of two draws). At most 16."
    )
    report.text(
        "Less than that is left in three places. A refit stops where Newton's next step would leave 10⁻⁹ of log γ: 11 to 13 digits "
        "of β and its tests. Tests of a feature that is the phenotype itself but for 10⁻³ or 10⁻⁶ of it are made of 1 − R², which has then lost 6 or 12 digits; "
        "their p-values are below 10⁻⁴⁰ all the same, and β keeps its digits. `LinearMixedModel.fit` stops within `tol=1e-8` of log γ, as Hail did: 8 digits at least."
    )
    report.text("## Null fit: `al.tl.fit_null`")
    null_fits(report, names, "fit_null", NULL)
    report.text("## Every feature as a response: `al.tl.variance_components`")
    columns = {k: v for k, v in NULL.items() if k in ("σ²", "τ²", "h²", "SE(h²)", "log-likelihood")}
    null_fits(report, names, "variance_components", columns)
    report.text("## `al.LinearMixedModel`")
    kept = ("γ", "σ²", "τ²", "h²", "SE(h²)", "β")
    null_fits(report, names, "LinearMixedModel", {k: NULL[k] for k in kept} | ALTERNATIVE)
    report.text("## Features: `al.tl.associate`, `al.tl.map_eqtl`")
    scans(report, names)
    report.text("## Probabilities")
    probabilities(report)
    report.text("## Strong features of many observations: `al.tl.associate`")
    tails(report)
    report.text(
        "## The simulated p-value of σ² = 0 in balanced groups, where it is that of F: 6 groups of 100, `al.tl.fit_null`"
    )
    variance_test(report, arguments.small)
    report.write()


if __name__ == "__main__":
    main()
