"""p-values of null genes by permutation, with related and unrelated donors: are they uniform?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from _eqtl_related import FAMILY, effects, genotypes
from _page import Page
from _simulate import make_layout
from anndata import AnnData
from numpy.typing import NDArray
from scipy.special import stdtr

import annlmm as al

Float = NDArray[np.float64]

N_DONORS, DATA_SETS, GENES, VARIANTS, PERMUTATIONS, ICC = 100, 4, 1000, 2000, 1000, 0.3
LEVELS = (0.01, 0.05, 0.1, 0.5)
SMALL_LEVELS, WINDOW_VARIANTS, GENES_EACH = (0.1, 0.05, 0.01, 1e-3, 1e-4), 400, 5000
RELATED = {"relatedness": "kernel"}


def settings(genes: int, number: int) -> dict[str, tuple[AnnData, AnnData, str | None, dict[str, Any]]]:
    """Expression, genotype, donor key and options by name, of one data set."""
    found: dict[str, tuple[AnnData, AnnData, str | None, dict[str, Any]]] = {}
    for family, name in ((1, "unrelated donors"), (FAMILY, f"families of {FAMILY}")):
        genotype, places = genotypes(N_DONORS, genes, VARIANTS, 2, family, [number, family])
        rng = np.random.default_rng([number, family, 1])
        donor = make_layout(N_DONORS, rng).donor
        x = rng.standard_normal((donor.size, genes), dtype=np.float32) * np.float32(np.sqrt(1 - ICC))
        x += (np.sqrt(ICC) * effects(genotype, genes, family > 1, rng)).astype(np.float32)[donor]
        obs = pd.DataFrame({"donor_id": pd.Categorical.from_codes(donor, categories=genotype.obs_names)})
        cells = AnnData(x, obs=obs.set_axis(obs.index.astype(str), axis=0), var=places)
        bulk = al.pp.pseudobulk(cells, "donor_id")
        if family == 1:
            found[f"pseudobulk, {name}: least squares, labels permuted"] = bulk, genotype, None, {}
            found[f"cells, {name}: default, residuals permuted"] = cells, genotype, "donor_id", {}
        else:
            found[f"pseudobulk, {name}: K, residuals permuted"] = bulk, genotype, None, RELATED
            found[f"cells, {name}: K, residuals permuted"] = cells, genotype, "donor_id", RELATED
            found[f"pseudobulk, {name}: least squares, labels permuted"] = bulk, genotype, None, {}
    return found


def gene_level(report: Page, genes: int, data_sets: int) -> dict[str, Float]:
    """The table; p-values by setting."""
    from scipy.stats import kstest

    found: dict[str, list[pd.DataFrame]] = {}
    for number in range(data_sets):
        for name, (expression, genotype, donor, options) in settings(genes, number).items():
            al.tl.map_eqtl(expression, genotype, donor, permutations=PERMUTATIONS, rng=number, **options)
            found.setdefault(name, []).append(al.get.eqtl(expression, level="gene")[["p_beta", "p_acat"]].dropna())
    report.table(
        "data and test", "genes", *(f"p ≤ {level:g}" for level in LEVELS), "Kolmogorov–Smirnov", "its p", *(f"ACAT ≤ {level:g}" for level in LEVELS[:2])
    )  # fmt: skip
    out = {}
    for name, parts in found.items():
        table = pd.concat(parts)
        p, acat = table["p_beta"].to_numpy(), table["p_acat"].to_numpy()
        test = kstest(p, "uniform")
        shares = [f"{np.mean(p <= level) / level:.2f}" for level in LEVELS]
        combined = [f"{np.mean(acat <= level) / level:.2f}" for level in LEVELS[:2]]
        report.row(name, p.size, *shares, f"{test.statistic:.3f}", f"{test.pvalue:.2g}", *combined)
        out[name] = p
    report.end()
    return out


def combined(report: Page, windows: int) -> None:
    """The size of ACAT over windows in linkage disequilibrium: least squares of 5000 null genes each, by array operations alone."""
    from annlmm.model.combine import cauchy_combination

    genotype, _ = genotypes(N_DONORS, 50, VARIANTS, 2, 1, [0, 1])
    x = np.asarray(genotype.X, dtype=np.float64)
    x = np.where(np.isnan(x), np.nanmean(x, axis=0), x)
    x -= x.mean(axis=0)
    x /= np.sqrt((x * x).sum(axis=0))
    x = x[:, ~np.isnan(x).any(axis=0)]
    rng, df, p = np.random.default_rng(9), N_DONORS - 2, []
    for start in rng.integers(0, x.shape[1] - WINDOW_VARIANTS, windows):
        y = rng.standard_normal((GENES_EACH, N_DONORS))
        y -= y.mean(axis=1, keepdims=True)
        y /= np.sqrt((y * y).sum(axis=1, keepdims=True))
        r = y @ x[:, start : start + WINDOW_VARIANTS]
        p.append(cauchy_combination(2 * stdtr(df, -np.abs(r) * np.sqrt(df / (1 - r * r)))))
    found = np.concatenate(p)
    report.table("null genes", *(f"ACAT ≤ {level:g}" for level in SMALL_LEVELS))
    report.row(f"{found.size:,}", *(f"{np.mean(found <= a) / a:.2f} ± {np.sqrt((1 - a) / a / found.size):.2f}" for a in SMALL_LEVELS))  # fmt: skip
    report.end()
