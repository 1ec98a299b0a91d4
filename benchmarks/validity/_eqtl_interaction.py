"""Genotype × context without an interaction, where the donors' slopes differ and where they don't; interactions that are found."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from _eqtl_power import COVARIATES, Found, linkage
from _eqtl_size import LEVELS as ALL_LEVELS
from _eqtl_size import WINDOW, Tally, null_cells
from _page import Page
from anndata import AnnData

import annlmm as al

LEVELS = ALL_LEVELS[:3]  # fewer pairs
DONORS, SLOPES = (50, 100, 200), (0.0, 0.005, 0.02)
ICC, BETWEEN = 0.1, 0.1
DATA_SETS, GENES, VARIANTS = 2, 1000, 250
RANDOM, TWO_STAGE, NONE = "random slope (default)", "two-stage", "donor intercept alone"
OPTIONS = {RANDOM: "random", TWO_STAGE: "two-stage", NONE: "none"}
POWER_GENES, POWER_EQTLS, POWER_VARIANTS, POWER_DATA_SETS = 300, 120, 2000, 2
POWER = ((100, 0.0), (100, 0.01), (100, 0.05))


def null_slopes(n_donors: int, slope: float, number: int, genes: int) -> Iterator[tuple[AnnData, AnnData]]:
    """As `null_cells`; a context of variance 1, a tenth of it between donors, whose slopes add `slope` times τ² to the variance of a gene."""
    for i, (expression, genotype) in enumerate(null_cells(n_donors, ICC, number, genes, VARIANTS)):
        rng = np.random.default_rng([zlib.crc32(f"slope {n_donors} {slope:g}".encode()), i])
        donor = expression.obs["donor_id"].cat.codes.to_numpy()
        context = np.sqrt(BETWEEN) * rng.standard_normal(n_donors)[donor] + np.sqrt(1 - BETWEEN) * rng.standard_normal(donor.size)  # fmt: skip
        spread = np.sqrt(slope * (1 - ICC))
        slopes = (spread * rng.standard_normal((n_donors, genes))).astype(np.float32)
        expression.X += slopes[donor] * context[:, None].astype(np.float32)
        expression.obs["context"] = context
        yield expression, genotype


def tally(data_sets: Iterator[tuple[AnnData, AnnData]]) -> Tally:
    found = Tally()
    for expression, genotype in data_sets:
        for method, slopes in OPTIONS.items():
            al.tl.map_eqtl(expression, genotype, "donor_id", window=WINDOW, interaction="context", donor_slopes=slopes)
            found.add(method, al.get.eqtl(expression), "interaction_p_value")
    return found


def simulated(n_donors: int, slope: float, number: int, genes: int) -> Found:
    """Half of the eQTLs of `al.datasets.sc_eqtl` interact with pseudotime."""
    found = Found()
    eqtls = POWER_EQTLS * genes // POWER_GENES
    for i in range(number):
        expression, genotype = al.datasets.sc_eqtl(
            n_donors, 50, genes, n_vars=POWER_VARIANTS, n_eqtl=eqtls, n_secondary=0, n_interaction=eqtls // 2, slope=slope, rng=100 + i
        )  # fmt: skip
        pairs = expression.uns["truth"]["pairs"]
        truth = pairs[pairs["interaction"] != 0].set_index("gene")["variant"]
        r_sq = linkage(genotype, truth)
        found.true.append(expression.var["interaction"].to_numpy())
        expression.X = expression.layers["logcounts"]
        for method, slopes in OPTIONS.items():
            al.tl.map_eqtl(
                expression, genotype, "donor_id", covariates=COVARIATES, interaction="pseudotime", donor_slopes=slopes
            )
            table = al.get.eqtl(expression, level="gene")
            found.add(method, table, truth, r_sq, prefix="interaction_")
    return found


def power(report: Page, rows: dict[tuple[int, float], Found]) -> None:
    report.table(
        "donors", "slope variance over τ²", "interactions", *(f"power, {method}" for method in OPTIONS), *(f"FDR, {method}" for method in OPTIONS)
    )  # fmt: skip
    for (n_donors, slope), found in rows.items():
        cells = [f"{found.power(m):.3f}" for m in OPTIONS] + [f"{found.fdr(m):.3f}" for m in OPTIONS]
        report.row(n_donors, f"{slope:g}", int(np.concatenate(found.true).sum()), *cells)
    report.end()
