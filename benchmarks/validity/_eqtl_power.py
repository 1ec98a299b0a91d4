"""Genes with an eQTL that are found, and how many of those found have none: cells beside pseudobulk."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from _page import Page
from anndata import AnnData
from numpy.typing import NDArray

import annlmm as al

Bool = NDArray[np.bool_]

GENES, EQTLS, VARIANTS, DATA_SETS = 400, 150, 2000, 3
FDR, LINKED = 0.05, 0.8
COVARIATES = ["age", "sex", "batch"]
UNEVEN = "2–1000"
SETTINGS = ((50, 10), (50, 50), (100, 5), (100, 20), (100, 100), (100, UNEVEN), (200, 10), (200, UNEVEN))
CELLS, PSEUDOBULK, ENOUGH = "cells", "pseudobulk", "pseudobulk, min_cells=5"
METHODS = (CELLS, PSEUDOBULK, ENOUGH)


@dataclass
class Found:
    """Over the data sets of one setting.

    Attributes
    ----------
    true
        Whether each gene has an eQTL.
    called
        Per method, whether its q ≤ 0.05.
    linked
        Per method, over the genes with an eQTL that are called: whether the best variant is the causal one or has r² ≥ 0.8 with it.
    """

    true: list[Bool] = field(default_factory=list)
    called: dict[str, list[Bool]] = field(default_factory=dict)
    linked: dict[str, list[Bool]] = field(default_factory=dict)

    def add(self, method: str, table: pd.DataFrame, truth: pd.Series, r_sq: pd.DataFrame, prefix: str = "") -> None:
        called = table[f"{prefix}q_value"].to_numpy() <= FDR
        self.called.setdefault(method, []).append(called)
        hits = table[called & table.index.isin(truth.index)]
        best = [r_sq.at[gene, variant] for gene, variant in zip(hits.index, hits[f"{prefix}variant"], strict=True)]
        self.linked.setdefault(method, []).append(np.array(best) >= LINKED)

    def power(self, method: str) -> float:
        return float(np.concatenate(self.called[method])[np.concatenate(self.true)].mean())

    def fdr(self, method: str) -> float:
        """Mean over data sets, 0 where nothing is called."""
        shares = [(called & ~true).sum() / max(called.sum(), 1) for called, true in zip(self.called[method], self.true, strict=True)]  # fmt: skip
        return float(np.mean(shares))

    def share_linked(self, method: str) -> str:
        linked = np.concatenate(self.linked[method])
        return f"{linked.mean():.2f}" if linked.size else "–"

    def better(self) -> str:
        """The pseudobulk of more power."""
        return max(METHODS[1:], key=self.power)

    def difference(self, one: str, other: str) -> tuple[float, float]:
        """Of the powers, over the same genes, and its standard error."""
        true = np.concatenate(self.true)
        apart = np.concatenate(self.called[one])[true].astype(float) - np.concatenate(self.called[other])[true]
        return float(apart.mean()), float(apart.std() / np.sqrt(apart.size))


def cells_per_donor(which: int | str, n_donors: int, rng: np.random.Generator) -> int | list[int]:
    if which != UNEVEN:
        return int(which)
    return np.clip(np.exp(rng.normal(np.log(20), 1.5, n_donors)), 2, 1000).astype(int).tolist()


def simulated(n_donors: int, which: int | str, number: int, genes: int) -> Found:
    found = Found()
    for i in range(number):
        rng = np.random.default_rng([n_donors, len(str(which)), i])
        expression, genotype = al.datasets.sc_eqtl(
            n_donors, cells_per_donor(which, n_donors, rng), genes, n_vars=VARIANTS, n_eqtl=EQTLS * genes // GENES, n_secondary=0,
            n_interaction=0, rng=rng,
        )  # fmt: skip
        truth = expression.uns["truth"]["pairs"].set_index("gene")["variant"]
        r_sq = linkage(genotype, truth)
        found.true.append(expression.var["eqtl"].to_numpy())
        expression.X = expression.layers["logcounts"]
        for method in METHODS:
            of, donor = expression, "donor_id"
            if method != CELLS:
                of, donor = al.pp.pseudobulk(expression, "donor_id", min_cells=1 if method == PSEUDOBULK else 5), None
            al.tl.map_eqtl(of, genotype, donor, covariates=COVARIATES)
            found.add(method, al.get.eqtl(of, level="gene"), truth, r_sq)
    return found


def linkage(genotype: AnnData, truth: pd.Series) -> pd.DataFrame:
    """r² of each variant with the causal one of each gene."""
    x = np.where(np.isnan(genotype.X), np.nanmean(genotype.X, axis=0), genotype.X).astype(np.float64)
    x -= x.mean(axis=0)
    x /= np.maximum(np.sqrt((x * x).sum(axis=0)), 1e-12)
    causal = x[:, genotype.var_names.get_indexer(truth)]
    return pd.DataFrame((causal.T @ x) ** 2, index=truth.index, columns=genotype.var_names)


def table(report: Page, rows: dict[tuple[int, int | str], Found]) -> None:
    report.table(
        "donors", "cells per donor", "eQTLs", *(f"power, {method}" for method in METHODS), "cells − pseudobulk", *(f"FDR, {method}" for method in METHODS),
        *(f"best variant, {method}" for method in METHODS),
    )  # fmt: skip
    for (n_donors, which), found in rows.items():
        apart = "{:+.3f} ± {:.3f}".format(*found.difference(CELLS, found.better()))
        report.row(
            n_donors, which, int(np.concatenate(found.true).sum()), *(f"{found.power(m):.3f}" for m in METHODS), apart,
            *(f"{found.fdr(m):.3f}" for m in METHODS), *(found.share_linked(m) for m in METHODS),
        )  # fmt: skip
    report.end()
