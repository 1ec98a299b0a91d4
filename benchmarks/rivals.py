"""`al.tl.associate` beside FaST-LMM, glimix-core and GEMMA on the same simulated cohort of the size of the HS mice.

Rivals are installed at the first run (see _install.py). FaST-LMM and glimix-core run in processes of their own and take turns with
annlmm; they time the call itself. GEMMA is timed as a whole process, from its files to its table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _common import COMPARISON, Report, Times, interleaved, largest, parser, start
from _data import cohort, covariates
from _gemma import Gemma
from _gemma import version as gemma_version
from _install import CACHE, python_of
from _remote import Remote, environment
from anndata import AnnData
from scipy.stats import chi2

import annlmm as al

N_COVARIATES = 9
NULLS = {1: "lmm", 1 + N_COVARIATES: "ten"}


def fixed_gamma(adata: AnnData, report: Report, remotes: dict[str, Remote], runs: int) -> None:
    """Whole calls at the γ of the null model; the rivals without their decomposition and their fit."""
    report.text(
        "## At the γ of the null model\n\n"
        "`al.tl.associate` is the whole call: slots read, scan, p-values, results written to `.var`. FaST-LMM's `single_snp` has its decomposition "
        "and h² from its cache file; glimix-core's `fast_scan` has its scanner made before and gives no p-values."
    )
    report.table(*COMPARISON)
    u, g = np.asfortranarray(adata.obsm["kernel"]), adata.X
    for p, key in NULLS.items():
        sides: dict[str, Callable[[], object]] = {
            "annlmm": lambda k=key: al.tl.associate(adata, k),
            "`U.T @ G`": lambda: u.T @ g,
            "FaST-LMM `single_snp`": remotes["fastlmm"].timed("scan", p=p),
            "glimix-core `fast_scan`": remotes["glimix"].timed("scan", p=p),
        }
        times = interleaved(sides, runs)
        for name, theirs in times.items():
            if name != "annlmm":
                report.compare(f"p = {p}", times["annlmm"], name, theirs)
    report.end()


def from_the_kernel(adata: AnnData, k: np.ndarray, report: Report, remotes: dict[str, Remote], runs: int) -> None:
    """Everything from a kinship matrix: decomposition, null model, scan."""
    report.text("## From the kinship matrix\n\nDecomposition, null model (with the test of h² in annlmm) and scan.")
    report.table(*COMPARISON)
    for p in NULLS:
        times = interleaved(
            {
                "annlmm": lambda p=p: all_steps(adata, k, p, "null"),
                "FaST-LMM": remotes["fastlmm"].timed("whole", p=p),
            },
            runs,
        )
        report.compare(f"p = {p}", times["annlmm"], "FaST-LMM `single_snp`", times["FaST-LMM"])
    report.end()


def all_steps(adata: AnnData, k: np.ndarray, p: int, variance: str) -> None:
    al.pp.kernel_precomputed(adata, k, center=True, key_added="given")
    al.tl.fit_null(adata, "phenotype", covariates=covariates(p - 1) or None, kernel="given", key_added="steps")
    al.tl.associate(adata, "steps", variance=variance)


def refit(adata: AnnData, k: np.ndarray, gemma: Gemma, report: Report, runs: int) -> None:
    """γ estimated again with each feature: GEMMA's exact test."""
    report.text(
        '## γ re-estimated with every feature\n\n`variance="refit"` beside `gemma -lmm 1`, a whole process on BIMBAM files with the kinship given; '
        "the same with decomposition and null model on our side; and beside what GEMMA's log gives for UᵀX and the optimisation alone."
    )
    report.table(*COMPARISON)
    u, g = np.asfortranarray(adata.obsm["kernel"]), adata.X
    for p, key in NULLS.items():
        own: list[float] = []

        def process(p: int = p, own: list[float] = own) -> None:
            gemma.run(p)
            own.append(gemma.own_timers(p))

        times = interleaved(
            {
                "refit": lambda k=key: al.tl.associate(adata, k, variance="refit", key_added=f"{k}_refit"),
                "steps": lambda p=p: all_steps(adata, k, p, "refit"),
                "product": lambda: u.T @ g,
                "gemma": process,
            },
            runs,
        )
        report.compare(f"scan, p = {p}", times["refit"], "`U.T @ G`", times["product"])
        report.compare(f"scan, p = {p}", times["refit"], "`gemma -lmm 1`, process", times["gemma"])
        report.compare(f"kernel, null model, scan, p = {p}", times["steps"], "`gemma -lmm 1`, process", times["gemma"])
        report.compare(f"scan, p = {p}", times["refit"], "GEMMA's own timers", Times(tuple(own[1:])))
    report.end()


def agreement(adata: AnnData, report: Report, remotes: dict[str, Remote], gemma: Gemma, folder: Path) -> None:
    """Every feature of every rival; at the rival's own γ where it is fixed, so that only the scan is compared."""
    report.text(
        "## Agreement\n\nLargest difference over all features. FaST-LMM and glimix-core stop their search for γ earlier than annlmm: "
        "their p-values are compared at the γ that they report, and the difference of the two γ is given beside. GEMMA prints seven digits."
    )
    report.table("rival", "p", "features", "max Δ log10 p", "of γ, relative", "of β, in standard errors")
    for p, key in NULLS.items():
        names, gamma = covariates(p - 1) or None, adata.uns[key]["gamma"]
        for rival in ("fastlmm", "glimix"):
            file = folder / f"{rival}_{p}.npz"
            h_sq = remotes[rival]("result", p=p, file=str(file))["h_sq"]
            theirs, at = np.load(file), h_sq / (1 - h_sq)
            al.tl.fit_null(adata, "phenotype", covariates=names, gamma=at, key_added="theirs")
            al.tl.associate(adata, "theirs", test="wald" if rival == "fastlmm" else "lrt")
            ours = -adata.var["theirs_neg_log10_p_value"]
            log_p = np.log10(theirs["p_value"]) if rival == "fastlmm" else chi2.logsf(theirs["chi_sq"], 1) / np.log(10)
            # FaST-LMM's weight is that of the standardised SNP.
            scale = adata.X.std(axis=0) if rival == "fastlmm" else 1.0
            beta = (theirs["beta"] / scale - adata.var["theirs_beta"]) / adata.var["theirs_standard_error"]
            report.row(rival, p, adata.n_vars, largest(ours - log_p), largest(at / gamma - 1), largest(beta))
        table, ours = gemma.table(p), adata.var
        ours = ours.iloc[table.index]
        h_sq = ours[f"{key}_refit_h_sq"]
        inside = (table["l_remle"] > 2e-5) & (table["l_remle"] < 5e4)  # GEMMA searches in [1e-5, 1e5]
        report.row(
            f"GEMMA ({int((~inside).sum())} at its bounds of λ)",
            p,
            len(table),
            largest(np.log10(table["p_wald"]) + ours[f"{key}_refit_neg_log10_p_value"].to_numpy()),
            largest(((h_sq / (1 - h_sq)).to_numpy() / table["l_remle"] - 1)[inside]),
            # GEMMA counts the first allele that the file names, as annlmm does the dosage
            largest((table["beta"] - ours[f"{key}_refit_beta"].to_numpy()) / table["se"]),
        )
    report.end()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rivals", type=Path, default=CACHE, help=f"folder of their environments (default {CACHE})")
    arguments = options.parse_args()
    start(arguments)
    n, m = (200, 1000) if arguments.small else (1410, 12_226)
    adata = cohort(n, m, n_covariates=N_COVARIATES)
    k = al.get.kernel(adata).to_numpy()
    x = np.column_stack([np.ones(n), adata.obs[covariates(N_COVARIATES)]])
    y = adata.obs["phenotype"].to_numpy()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "data.npz"
        slots = adata.uns["kernel"]
        np.savez(file, g=adata.X, y=y, x=x, k=k, u=adata.obsm["kernel"], s=slots["eigenvalues"])
        gemma = Gemma(folder, arguments.threads)
        gemma.write(adata.X, y, x, k)
        here, env = Path(__file__).parent, environment(arguments.threads)
        with (
            Remote([python_of("fastlmm", arguments.rivals), here / "_fastlmm_worker.py", file], env) as fastlmm,
            Remote([python_of("glimix", arguments.rivals), here / "_glimix_worker.py", file], env) as glimix,
        ):
            remotes = {"fastlmm": fastlmm, "glimix": glimix}
            versions = [remote("versions")["text"] for remote in remotes.values()]
            report = Report(__file__, arguments, *versions, gemma_version())
            report.text(
                f"Cohort of `al.datasets.gwas_cohort(n_obs={n}, n_vars={m})`, float64, GRM of rank {adata.obsm['kernel'].shape[1]}; "
                "p counts the constant."
            )
            fixed_gamma(adata, report, remotes, arguments.runs)
            from_the_kernel(adata, k, report, remotes, arguments.runs)
            refit(adata, k, gemma, report, arguments.runs)
            agreement(adata, report, remotes, gemma, folder)
    report.write()


if __name__ == "__main__":
    main()
