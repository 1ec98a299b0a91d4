"""Association in structured cohorts: λ_GC and size without a kernel, with principal components, with the kernel and leaving a chromosome out; power of the last two.

Balding–Nichols populations and families of `al.datasets.gwas_cohort`, phenotypes with a polygenic part and an environment of the
population. Tables and a figure in benchmarks/results.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from _common import start
from _page import Page, marked, parser
from _structure_figure import figure
from anndata import AnnData
from numpy.typing import NDArray
from scipy.stats import chi2

import annlmm as al

Float = NDArray[np.float64]

N_OBS, N_VARS, N_CHROM = 500, 4000, 10
COHORTS, PHENOTYPES = 4, 50
LEVELS = (0.05, 0.001, 0.0001)
POWER_LEVEL = 1e-5
H_SQ, ENVIRONMENT = 0.4, 0.2
# Each of the strong variants, one on each chromosome that has effects, explains this share of the variance.
STRONG = 0.03
N_COMPONENTS = 10
STRUCTURES = {
    "unrelated, one population": {"n_populations": 1, "family_size": 1},
    "5 populations, F_ST 0.05": {"n_populations": 5, "family_size": 1},
    "families of 4": {"n_populations": 1, "family_size": 4},
    "5 populations, families of 4": {"n_populations": 5, "family_size": 4},
}
NOTHING, COMPONENTS, KERNEL, LOCO = "no kernel", f"{N_COMPONENTS} components", "kernel", "LOCO"
BOTH = f"LOCO, {N_COMPONENTS} components"
METHODS = (NOTHING, COMPONENTS, KERNEL, LOCO, BOTH)


@dataclass
class Found:
    """Of one structure.

    Attributes
    ----------
    gc
        Per method, λ_GC of the null variants, phenotype by phenotype.
    below
        Per method, shares of null variants below `LEVELS` (phenotypes × levels).
    hits
        Per method, strong variants below `POWER_LEVEL`, phenotypes × variants.
    tested
        Null variants per phenotype.
    quantiles
        Per method, the p-values of all null variants, sorted.
    """

    gc: dict[str, list[Float]] = field(default_factory=dict)
    below: dict[str, list[Float]] = field(default_factory=dict)
    hits: dict[str, list[Float]] = field(default_factory=dict)
    strong_chi_sq: dict[str, list[Float]] = field(default_factory=dict)
    tested: int = 0
    p_values: dict[str, list[Float]] = field(default_factory=dict)

    def add(self, method: str, p: Float, null: NDArray[np.bool_], strong: NDArray[np.intp]) -> None:
        """p: variants × phenotypes."""
        own, of_strong = p[null], p[strong]
        if not (np.isfinite(own).all() and np.isfinite(of_strong).all()):
            raise RuntimeError(f"{method}: p-values are missing")
        self.gc.setdefault(method, []).append(chi2.isf(np.median(own, axis=0), 1) / chi2.median(1))
        self.below.setdefault(method, []).append(np.stack([np.mean(own < level, axis=0) for level in LEVELS], axis=1))
        self.hits.setdefault(method, []).append((of_strong < POWER_LEVEL).T.astype(float))
        self.strong_chi_sq.setdefault(method, []).append(chi2.isf(of_strong, 1).T)
        self.p_values.setdefault(method, []).append(own.ravel())
        self.tested = len(own)

    def size(self, method: str, i: int) -> str:
        shares = np.concatenate(self.below[method])[:, i]
        level = LEVELS[i]
        binomial = np.sqrt((1 - level) / (level * shares.size * self.tested))
        error = max(shares.std(ddof=1) / np.sqrt(shares.size) / level, binomial)
        return f"{marked(shares.mean() / level, error)} ± {error:.2f}"


def cohort(structure: str, seed: int, n_obs: int, n_vars: int) -> AnnData:
    """Genotypes of at least two alleles each."""
    adata = al.datasets.gwas_cohort(n_obs, n_vars, n_chrom=N_CHROM, fst=0.05, rng=seed, **STRUCTURES[structure])
    adata = adata[:, adata.X.std(axis=0) > 0].copy()
    adata.X = adata.X.astype(np.float64)
    return adata


def phenotypes(adata: AnnData, number: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Write `.obsm["phenotypes"]`; the variants without any effect (even chromosomes) and the strong ones.

    The variants of odd chromosomes have polygenic effects, new ones for every phenotype; one on each of them has a strong effect.
    """
    z = (adata.X - adata.X.mean(axis=0)) / adata.X.std(axis=0)
    chromosome = adata.var["chrom"].astype(int).to_numpy()
    null = chromosome % 2 == 0
    maf = np.minimum(adata.X.mean(axis=0) / 2, 1 - adata.X.mean(axis=0) / 2)
    strong = np.array([rng.choice(np.flatnonzero((chromosome == c) & (maf > 0.2))) for c in np.unique(chromosome[~null])])  # fmt: skip
    polygenic = z[:, ~null] @ rng.standard_normal(((~null).sum(), number)) / np.sqrt((~null).sum())
    population = adata.obs["population"].cat.codes.to_numpy()
    environment = rng.standard_normal((population.max() + 1, number))[population]
    remaining = 1 - H_SQ - STRONG * strong.size - ENVIRONMENT
    y = np.sqrt(H_SQ) * polygenic + np.sqrt(ENVIRONMENT) * environment
    y += np.sqrt(STRONG) * z[:, strong] @ rng.choice([-1.0, 1.0], (strong.size, number))
    adata.obsm["phenotypes"] = y + np.sqrt(remaining) * rng.standard_normal(y.shape)
    return null, strong


def p_values(adata: AnnData) -> dict[str, Float]:
    al.pp.kernel_grm(adata, min_maf=0)
    order = np.argsort(-adata.uns["kernel"]["eigenvalues"])[:N_COMPONENTS]
    adata.obsm["components"] = np.asarray(adata.obsm["kernel"][:, order])
    found = {}
    for method in METHODS:
        al.tl.fit_null(
            adata,
            "phenotypes",
            covariates=["components"] if method in (COMPONENTS, BOTH) else None,
            kernel=None if method in (NOTHING, COMPONENTS) else "kernel",
        )
        al.tl.associate(adata, loco="chrom" if method in (LOCO, BOTH) else None)
        found[method] = np.asarray(adata.varm["lmm_p_value"])
    return found


def simulated(structure: str, cohorts: int, number: int, n_obs: int, n_vars: int) -> Found:
    found = Found()
    for seed in range(cohorts):
        adata = cohort(structure, 100 + seed, n_obs, n_vars)
        null, strong = phenotypes(adata, number, np.random.default_rng([seed, len(structure)]))
        for method, p in p_values(adata).items():
            found.add(method, p, null, strong)
    return found


def tables(report: Page, found: dict[str, Found]) -> None:
    report.text(f"## Null variants\n\nλ_GC: mean over phenotypes, ± its standard error, and standard deviation; sizes over their nominal value. One λ_GC of {next(iter(found.values())).tested:,} variants of a calibrated test varies with a standard deviation of about {1.7 / np.sqrt(next(iter(found.values())).tested):.3f} by itself where variants are independent.")  # fmt: skip
    report.table("structure", "test", "λ_GC", "standard deviation", *(f"p < {level:g}" for level in LEVELS))
    for structure, own in found.items():
        for method in METHODS:
            gc = np.concatenate(own.gc[method])
            error = gc.std(ddof=1) / np.sqrt(gc.size)
            report.row(structure, method, f"{marked(gc.mean(), error)} ± {error:.3f}", f"{gc.std(ddof=1):.3f}", *(own.size(method, i) for i in range(len(LEVELS))))  # fmt: skip
    report.end()
    ranges = {m: [float(np.concatenate(own.gc[m]).mean()) for own in found.values()] for m in METHODS}
    report.text(
        "Mean λ_GC over the structures: "
        + ", ".join(f"{m} {min(r):.2f} to {max(r):.2f}" for m, r in ranges.items())
        + ". The GRM of all variants holds the one that is tested, which takes a part of its effect (proximal contamination)."
    )
    report.text(
        f"## Power\n\nThe strong variants ({STRONG:g} of the variance each, one on each odd chromosome): the share with p < {POWER_LEVEL:g}, their mean χ² (of the p-value), and the difference of LOCO to the kernel of all variants, ± its standard error. Without a kernel p-values of a structured cohort are no measure of power."
    )
    report.table("structure", "variants", *(f"{m}: power, χ²" for m in METHODS), "LOCO − kernel, power", "χ², ratio")
    for structure, own in found.items():
        hits, chi_sq = ({m: np.concatenate(x[m]) for m in METHODS} for x in (own.hits, own.strong_chi_sq))
        apart = (hits[LOCO] - hits[KERNEL]).mean(axis=1)
        report.row(
            structure, hits[LOCO].size, *(f"{hits[m].mean():.3f}, {chi_sq[m].mean():.1f}" for m in METHODS),
            f"{apart.mean():+.3f} ± {apart.std(ddof=1) / np.sqrt(apart.size):.3f}", chi_sq[LOCO].mean() / chi_sq[KERNEL].mean(),
        )  # fmt: skip
    report.end()


def main() -> None:
    arguments = parser(__doc__).parse_args()
    start(arguments)
    small = arguments.small
    cohorts, number, n_obs, n_vars = (1, 4, 120, 400) if small else (COHORTS, PHENOTYPES, N_OBS, N_VARS)
    report = Page(__file__, "Structured cohorts", arguments)
    report.text(
        f"![λ_GC, quantiles, power](structure.png)\n\n{cohorts} cohorts × {number} phenotypes per structure: {n_obs} donors × {n_vars:,} variants on {N_CHROM} chromosomes, Balding–Nichols frequencies, no linkage disequilibrium within populations. "
        f"A phenotype has polygenic effects of all variants of the odd chromosomes ({H_SQ:g} of the variance), a strong one on each of these ({STRONG:g} each), an environment of the population ({ENVIRONMENT:g}; with one population, a constant) and noise; the variants of the even chromosomes have no effect and are the null ones. *{NOTHING}*: least squares; "
        f'*{COMPONENTS}*: the leading eigenvectors of the GRM as covariates; *{KERNEL}*: the GRM of all variants; *{LOCO}*: `al.tl.associate(loco="chrom")`; *{BOTH}*: the same with the components as covariates. Wald test at the null\'s γ. Bold: above by more than three standard errors (those between phenotypes, which in a cohort share their genotypes), italic: below.'
    )
    found = {}
    for structure in STRUCTURES:
        found[structure] = simulated(structure, cohorts, number, n_obs, n_vars)
        print(f"{structure}: {time.process_time():.0f} s", file=sys.stderr)
    tables(report, found)
    if not small or arguments.output is not None:
        figure(found, METHODS, report.folder / f"{report.name}.png")
    report.text(f"Time: {time.process_time() / 60:.1f} minutes of the processor.")
    report.write()


if __name__ == "__main__":
    main()
