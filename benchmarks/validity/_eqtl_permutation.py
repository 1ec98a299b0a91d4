"""p-values of null genes by permutation, with related and unrelated donors: are they uniform?"""

from __future__ import annotations

from typing import Any

import numpy as np
from _page import Page
from anndata import AnnData
from numpy.typing import NDArray

import annlmm as al

Float = NDArray[np.float64]

N_DONORS, GENES, VARIANTS, PERMUTATIONS = 100, 1500, 2000, 1000
COVARIATES = ["age", "sex"]
LEVELS = (0.01, 0.05, 0.1, 0.5)
RELATED = {"relatedness": "kernel"}


def settings(genes: int) -> dict[str, tuple[AnnData, AnnData, str | None, dict[str, Any]]]:
    """Expression, genotype, donor key and options by name."""
    found: dict[str, tuple[AnnData, AnnData, str | None, dict[str, Any]]] = {}
    size = {"n_vars": VARIANTS, "n_eqtl": 0, "n_secondary": 0, "n_interaction": 0, "icc": 0.3}
    for name, options in {
        "unrelated donors": {},
        "families of 4, polygenic": {"family_size": 4, "rho": 1.0},
    }.items():
        cells, genotype = al.datasets.sc_eqtl(N_DONORS, 30, genes, **size, **options, rng=7)
        al.pp.kernel_grm(genotype)
        bulk = al.pp.pseudobulk(cells, "donor_id", layer="logcounts", min_cells=1)
        cells.X = cells.layers["logcounts"]
        if not options:
            found[f"pseudobulk, {name}: least squares, labels permuted"] = bulk, genotype, None, {}
            found[f"cells, {name}: default, residuals permuted"] = cells, genotype, "donor_id", {}
        else:
            found[f"pseudobulk, {name}: K, residuals permuted"] = bulk, genotype, None, RELATED
            found[f"cells, {name}: K, residuals permuted"] = cells, genotype, "donor_id", RELATED
            found[f"pseudobulk, {name}: least squares, labels permuted"] = bulk, genotype, None, {}
    return found


def gene_level(report: Page, genes: int) -> dict[str, Float]:
    """The table; p-values by setting."""
    from scipy.stats import kstest

    report.table(
        "data and test", "genes", *(f"p ≤ {level:g}" for level in LEVELS), "Kolmogorov–Smirnov", "its p", *(f"ACAT ≤ {level:g}" for level in LEVELS[:2])
    )  # fmt: skip
    found = {}
    for name, (expression, genotype, donor, options) in settings(genes).items():
        al.tl.map_eqtl(
            expression, genotype, donor, covariates=COVARIATES, permutations=PERMUTATIONS, **options,
        )  # fmt: skip
        table = al.get.eqtl(expression, level="gene")
        p, acat = (table[column].dropna().to_numpy() for column in ("p_beta", "p_acat"))
        test = kstest(p, "uniform")
        shares = [f"{np.mean(p <= level) / level:.2f}" for level in LEVELS]
        report.row(
            name, p.size, *shares, f"{test.statistic:.3f}", f"{test.pvalue:.2g}", *(f"{np.mean(acat <= level) / level:.2f}" for level in LEVELS[:2])
        )  # fmt: skip
        found[name] = p
    report.end()
    return found
