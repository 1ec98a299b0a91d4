"""Agreement of annlmm with GEMMA, FaST-LMM, glimix-core and lme4 with lmerTest on 20 random designs each: every number that both report.

Rivals are installed at the first run (see ../_install.py). Tables in benchmarks/results.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from _agreement_designs import NUMBER, SNPS, Cohort, cohort, grouped
from _common import start
from _gemma import Gemma
from _gemma import version as gemma_version
from _install import CACHE, gemma, python_of, rscript
from _page import Page, parser
from _remote import environment
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

import annlmm as al

Float = NDArray[np.float64]
HERE = Path(__file__).resolve().parent
LOG10 = np.log(10.0)
# GEMMA searches λ in [1e-5, 1e5].
BOUNDS = 2e-5, 5e4


@dataclass
class Differences:
    """Of one rival, quantity by quantity: the largest of each design and the number of values."""

    found: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, ours: ArrayLike, theirs: ArrayLike, *, unit: ArrayLike | None = None, kind: str) -> None:
        """`kind` says in what; relative to `unit`, or to ours where it is None and `kind` is 'relative'."""
        a, b = (np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (ours, theirs))
        if a.shape != b.shape:
            raise RuntimeError(f"{name}: {a.shape} and {b.shape}")
        if not a.size:
            return
        by = np.abs(a) if unit is None and kind == "relative" else np.ones(1) if unit is None else np.abs(np.atleast_1d(unit))  # fmt: skip
        apart = np.abs(a - b) / by
        if not np.isfinite(apart).all():
            raise RuntimeError(f"{name}: values are missing")
        self.found.setdefault(name, []).append(float(apart.max()))
        self.values[name] = self.values.get(name, 0) + a.size
        self.kinds[name] = kind

    def table(self, report: Page) -> None:
        report.table("quantity", "difference", "designs", "values", "largest", "median design")
        for name, own in self.found.items():
            report.row(name, self.kinds[name], len(own), self.values[name], f"{max(own):.1e}", f"{np.median(own):.1e}")
        report.end()


def null_of(adata: AnnData, design: Cohort, *, reml: bool = True, gamma: float | None = None, key: str = "lmm") -> dict:
    al.tl.fit_null(adata, "y", covariates=design.covariates or None, reml=reml, gamma=gamma, key_added=key)
    return adata.uns[key]


def beside_gemma(design: Cohort, folder: Path, found: Differences, counts: dict[str, int]) -> None:
    """`gemma -lmm 4` and its log."""
    run = Gemma(folder, 1)
    p = design.x.shape[1]
    run.write(design.g, design.y, design.x, design.k)
    files = [str(folder / name) for name in ("genotypes", "phenotype", "kinship", f"covariates_{p}")]
    command = [gemma(), *(part for pair in zip(("-g", "-p", "-k", "-c"), files, strict=True) for part in pair)]
    call([*command, "-lmm", "4", "-maf", "0", "-outdir", str(folder), "-o", f"out_{p}"])
    table, log = run.table(p), (folder / f"out_{p}.log.txt").read_text()
    adata = design.annotated()
    null = null_of(adata, design)
    al.tl.associate(adata, variance="refit")
    wald = adata.var.iloc[table.index]
    gammas = (wald["lmm_h_sq"] / (1 - wald["lmm_h_sq"])).to_numpy()
    inside = within(table["l_remle"].to_numpy())
    counts["REML λ of a SNP at a bound"] = counts.get("REML λ of a SNP at a bound", 0) + int((~inside).sum())
    # GEMMA counts the first allele that the file names, as annlmm does the dosage.
    table, wald = table[inside], wald[inside]
    found.add("β of a SNP", wald["lmm_beta"], table["beta"], unit=wald["lmm_standard_error"], kind="standard errors")
    found.add("its standard error", wald["lmm_standard_error"], table["se"], kind="relative")
    found.add("λ with the SNP, REML", gammas[inside], table["l_remle"], kind="relative")
    found.add("p, Wald", wald["lmm_neg_log10_p_value"], -np.log10(table["p_wald"]), kind="log10 p")
    if not within(np.array([null["gamma"]]))[0]:
        counts["null at a bound"] = counts.get("null at a bound", 0) + 1
        return
    found.add("σ² of the null (vg)", null["sigma_sq"], number(log, "vg estimate in the null model"), kind="relative")
    found.add("τ² of the null (ve)", null["tau_sq"], number(log, "ve estimate in the null model"), kind="relative")
    found.add("pve", null["pve"], number(log, "pve estimate in the null model"), kind="absolute")
    found.add("its standard error (pve)", null["pve_standard_error"], number(log, r"se\(pve\) in the null model"), kind="absolute")  # fmt: skip
    found.add("ℓ of the null, REML", null["log_likelihood"], number(log, "REMLE log-likelihood in the null model"), kind="absolute")  # fmt: skip
    beta = null["beta"]
    found.add("fixed effects", beta["estimate"], numbers(log, "beta estimate in the null model"), unit=beta["standard_error"], kind="standard errors")  # fmt: skip
    found.add("their standard errors", beta["standard_error"], numbers(log, r"se\(beta\)"), kind="relative")
    # With a centred kernel the full likelihood grows without bound: GEMMA takes the end of its range where that is higher.
    end = null_of(adata, design, reml=False, gamma=1e5, key="end")["log_likelihood"]
    own = number(log, "MLE log-likelihood in the null model")
    try:
        ml = null_of(adata, design, reml=False, key="ml")
    except ValueError:  # no interior maximum
        ml = None
    if ml is None or end > ml["log_likelihood"]:
        found.add("ℓ of the null, ML, both at λ = 1e5", end, own, kind="absolute")
        which = (
            "no interior maximum of the null's full likelihood" if ml is None else "the null's ML λ at GEMMA's bound"
        )
        counts[which] = counts.get(which, 0) + 1
        return
    found.add("ℓ of the null, ML", ml["log_likelihood"], own, kind="absolute")
    al.tl.associate(adata, test=["lrt", "score"], variance="refit", key_added="full")
    at = within(table["l_mle"].to_numpy())
    counts["ML λ of a SNP at a bound"] = counts.get("ML λ of a SNP at a bound", 0) + int((~at).sum())
    full = adata.var.iloc[table.index]
    found.add("p, score", full["full_neg_log10_p_value_score"], -np.log10(table["p_score"]), kind="log10 p")
    table, full = table[at], full[at]
    found.add("λ with the SNP, ML", full["full_h_sq"] / (1 - full["full_h_sq"]), table["l_mle"], kind="relative")
    found.add("ℓ with the SNP, ML", full["full_log_likelihood"], table["logl_H1"], kind="absolute")
    found.add("p, likelihood ratio", full["full_neg_log10_p_value"], -np.log10(table["p_lrt"]), kind="log10 p")


def beside_fastlmm(design: Cohort, theirs: dict[str, Float], found: Differences, counts: dict[str, int]) -> None:
    """At FaST-LMM's own h², so that only the tests are compared; its h² beside ours."""
    adata = design.annotated()
    null = null_of(adata, design)
    t = scale_of(design)
    h_sq = float(theirs["h_sq"])
    ours = null["gamma"] * t / (1 + null["gamma"] * t)
    found.add("h²", ours, h_sq, kind="absolute")
    null_of(adata, design, gamma=h_sq / (1 - h_sq) / t, key="theirs")
    al.tl.associate(adata, "theirs")
    var = adata.var
    # FaST-LMM's weights are those of the standardised SNP.
    sd = design.g.std(axis=0)
    found.add("p at its h²", var["theirs_neg_log10_p_value"], -np.log10(theirs["p_value"]), kind="log10 p")
    found.add("β of a SNP at its h²", var["theirs_beta"], theirs["beta"] / sd, unit=var["theirs_standard_error"], kind="standard errors")  # fmt: skip
    found.add("its standard error", var["theirs_standard_error"], theirs["standard_error"] / sd, kind="relative")
    al.tl.associate(adata)
    found.add("p, each at its own h²", adata.var["lmm_neg_log10_p_value"], -np.log10(theirs["p_value"]), kind="log10 p")


def beside_glimix(design: Cohort, theirs: dict[str, Float], found: Differences, counts: dict[str, int]) -> None:
    """`LMM` with restricted and with full likelihood; `fast_scan` at its own δ."""
    adata = design.annotated()
    for name, reml in (("REML", True), ("ML", False)):
        low = name.lower()
        try:
            null = null_of(adata, design, reml=reml, key=low)
        except ValueError:
            counts["designs without a maximum of the full likelihood"] = counts.get("designs without a maximum of the full likelihood", 0) + 1  # fmt: skip
            continue
        if null["status"] != "ok":
            counts[f"{name}: estimates on the boundary"] = counts.get(f"{name}: estimates on the boundary", 0) + 1
            continue
        v0, v1 = theirs[f"{low}_variances"]
        found.add(f"σ², {name}", null["sigma_sq"], v0, kind="relative")
        found.add(f"τ², {name}", null["tau_sq"], v1, kind="relative")
        found.add(f"ℓ, {name}", null["log_likelihood"], float(theirs[f"{low}_lml"]), kind="absolute")
        beta = null["beta"]
        found.add(f"fixed effects, {name}", beta["estimate"], theirs[f"{low}_beta"], unit=beta["standard_error"], kind="standard errors")  # fmt: skip
        found.add(f"their standard errors, {name}", beta["standard_error"], theirs[f"{low}_se"], kind="relative")
    delta = float(theirs["reml_delta"])
    null_of(adata, design, gamma=(1 - delta) / delta, key="theirs")
    al.tl.associate(adata, "theirs", test="lrt")
    found.add("p, likelihood ratio at its δ", adata.var["theirs_neg_log10_p_value"], -chi2.logsf(theirs["chi_sq"], 1) / LOG10, kind="log10 p")  # fmt: skip
    found.add("β of a SNP at its δ", adata.var["theirs_beta"], theirs["effect"], unit=adata.var["theirs_standard_error"], kind="standard errors")  # fmt: skip


def beside_lme4(seed: int, rows: dict[str, Float], found: Differences, counts: dict[str, int]) -> None:
    """lmerTest's `lmer` and its table of coefficients."""
    design = grouped(seed)
    adata = design.annotated()
    for key, reml in (("reml", True), ("ml", False)):
        al.tl.fit_null(adata, "y", covariates=design.covariates or None, reml=reml, key_added=key)
    reml, ml = adata.uns["reml"], adata.uns["ml"]
    # R leaves ½log|XᵀX| out of the restricted likelihood.
    x = np.column_stack([np.ones(design.y.size), design.x])
    shift = 0.5 * np.linalg.slogdet(x.T @ x)[1]
    found.add("ℓ, REML (R's + ½ log det XᵀX)", reml["log_likelihood"], rows["logLik"][0] + shift, kind="absolute")
    found.add("ℓ, ML", ml["log_likelihood"], rows["logLik"][1], kind="absolute")
    if reml["status"] != "ok" or ml["status"] != "ok":
        counts["designs with σ̂² = 0"] = counts.get("designs with σ̂² = 0", 0) + 1
        return
    beta = reml["beta"]
    for name, fit, variances in (("REML", reml, rows["variances"]), ("ML", ml, rows["variancesML"])):
        found.add(f"σ², {name}", fit["sigma_sq"], variances[0], kind="relative")
        found.add(f"τ², {name}", fit["tau_sq"], variances[1], kind="relative")
    found.add("β", beta["estimate"], rows["Estimate"], unit=beta["standard_error"], kind="standard errors")
    found.add("its standard error", beta["standard_error"], rows["StdError"], kind="relative")
    found.add("Satterthwaite's degrees of freedom", beta["df"], rows["df"], kind="relative")
    found.add("p", -np.log10(beta["p_value"]), -np.log10(rows["Prt"]), kind="log10 p")


def within(ratio: Float) -> NDArray[np.bool_]:
    return np.asarray((ratio > BOUNDS[0]) & (ratio < BOUNDS[1]))


def scale_of(design: Cohort) -> float:
    """The mean diagonal of the centred kernel, by which FaST-LMM divides it."""
    return float(np.trace(design.centred) / design.y.size)


def number(log: str, what: str) -> float:
    return numbers(log, what)[0]


def numbers(log: str, what: str) -> list[float]:
    found = re.search(rf"^## {what} =\s+(.+)$", log, re.M)
    if not found:
        raise RuntimeError(f"GEMMA's log has no {what}:\n{log}")
    return [float(text) for text in found[1].split()]


def call(command: list[str | Path]) -> str:
    done = subprocess.run(list(map(str, command)), env=environment(1), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def lme4_rows(folder: Path, designs: int) -> tuple[list[dict[str, Float]], str]:
    """Per design, the lines of _agreement_lme4.R; and the versions."""
    *lines, last = call([rscript(), HERE / "_agreement_lme4.R", folder, designs]).strip().splitlines()
    found: list[dict[str, Float]] = [{} for _ in range(designs)]
    for line in lines:
        i, name, *values = line.split()
        found[int(i)][name] = np.array(values, dtype=float)
    names = last.split()[1:]
    return found, f"lme4 {names[0]}, lmerTest {names[1]} (R {names[2]})"


def said(counts: dict[str, int]) -> str:
    return "Left out: " + ("nothing." if not counts else ", ".join(f"{name}: {count}" for name, count in counts.items()) + ".")  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rivals", type=Path, default=CACHE, help=f"folder of their environments (default {CACHE})")
    arguments = options.parse_args()
    start(arguments)
    designs = 3 if arguments.small else NUMBER
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cohorts = [cohort(seed) for seed in range(designs)]
        for seed, design in enumerate(cohorts):
            design.write(folder / f"design_{seed}.npz")
            grouped(seed).table.to_csv(folder / f"design_{seed}.csv", index=False, float_format="%.17g")
        versions = [
            call([python_of(rival, arguments.rivals), HERE / f"_agreement_{rival}.py", folder]).strip().splitlines()[-1]
            for rival in ("fastlmm", "glimix")
        ]
        rows, lme4_version = lme4_rows(folder, designs)
        report = Page(__file__, "Agreement with other programs", arguments)
        sizes = [design.x.shape for design in cohorts]
        report.text(
            f"{', '.join([gemma_version(), *versions, lme4_version])}. {designs} random designs each. Cohorts: {min(n for n, _ in sizes)} to {max(n for n, _ in sizes)} donors, {min(p for _, p in sizes)} to {max(p for _, p in sizes)} fixed effects, unrelated to families of four, one to five populations, h² of 0.1 to 0.7, "
            f"{SNPS} SNPs tested that are no part of the kinship; covariates and y in random units, y with an offset. *Largest*: over all designs and values; *median design*: the median of each design's largest. Differences of log-likelihoods are absolute (GEMMA's log gives six digits), "
            "those of p-values of log10 p."
        )
        found, counts = Differences(), dict[str, int]()
        for design in cohorts:
            beside_gemma(design, folder, found, counts)
        report.text(
            f'## GEMMA\n\n`gemma -lmm 4` beside `fit_null` and `associate(variance="refit")`. GEMMA prints seven digits (six in its log), stops at a relative change of λ of 1e-5 and searches λ in [1e-5, 1e5]; with a centred kinship of full rank the full likelihood grows without bound as λ does, so that GEMMA\'s λ of '
            f"ML may be the end of its range, where annlmm takes the interior maximum or refuses. {said(counts)}"
        )
        found.table(report)
        for title, text, compare, prefix in (
            ("FaST-LMM", "`single_snp` beside `fit_null` and `associate`. FaST-LMM's search for h² stops earlier.", beside_fastlmm, "fastlmm"),
            ("glimix-core", "`LMM` and `fast_scan` beside `fit_null` and `associate(test=\"lrt\")`.", beside_glimix, "glimix"),
        ):  # fmt: skip
            found, counts = Differences(), {}
            for seed, design in enumerate(cohorts):
                compare(design, dict(np.load(folder / f"{prefix}_design_{seed}.npz")), found, counts)
            report.text(f"## {title}\n\n{text} {said(counts)}")
            found.table(report)
        found, counts = Differences(), {}
        for seed in range(designs):
            beside_lme4(seed, rows[seed], found, counts)
        report.text(
            f"## lme4 and lmerTest\n\n`lmer` with its default tolerances, on 6 to 60 groups of 2 to 40 rows with up to five covariates of rows and of groups. {said(counts)}"
        )
        found.table(report)
    report.text(f"Time: {time.process_time() / 60:.1f} minutes of the processor, without the rivals.")
    report.write()


if __name__ == "__main__":
    main()
