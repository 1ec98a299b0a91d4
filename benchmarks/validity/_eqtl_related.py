"""Null genes of related donors, as cells or one value per donor; false positives of pseudobulk with their kernel, by `variance`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from _eqtl_size import WINDOW, Tally
from anndata import AnnData
from numpy.typing import NDArray

import annlmm as al

Float = NDArray[np.float64]

DONORS, DATA_SETS, GENES, VARIANTS, FAMILY, H_SQ = (50, 100, 200), 2, 1000, 1000, 4, 0.3
RELATED = {"relatedness": "kernel"}
OPTIONS = {
    '`df="satterthwaite"`': {"df": "satterthwaite", **RELATED},
    "n − p − 1, screen (default)": RELATED,
    'n − p − 1, `variance="null"`': {"variance": "null", **RELATED},
    'n − p − 1, `variance="refit"`': {"variance": "refit", **RELATED},
    "least squares": {},
}


def genotypes(
    n_donors: int, genes: int, variants: int, n_chrom: int, family: int, seed: list[int]
) -> tuple[AnnData, pd.DataFrame]:
    """Donors × variants in linkage disequilibrium with their GRM, and places of genes among them."""
    cells, genotype = al.datasets.sc_eqtl(
        n_donors, 1, genes, n_vars=variants, n_chrom=n_chrom, n_eqtl=0, n_secondary=0, n_interaction=0, family_size=family,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    al.pp.kernel_grm(genotype)
    return genotype, cells.var[["chrom", "start", "end", "strand"]]


def effects(genotype: AnnData, genes: int, related: bool, rng: np.random.Generator) -> Float:
    """Of the donors, donors × genes: N(0, K) with K the GRM, or N(0, I)."""
    z = rng.standard_normal((genotype.n_obs, genes))
    if not related:
        return z
    values, vectors = np.linalg.eigh(al.get.kernel(genotype).to_numpy())
    return (vectors * np.sqrt(np.maximum(values, 0))) @ z


def tally(n_donors: int, number: int, genes: int) -> Tally:
    found = Tally()
    for expression, genotype in null_families(n_donors, number, genes):
        for name, options in OPTIONS.items():
            al.tl.map_eqtl(expression, genotype, window=WINDOW, **options)
            found.add(name, al.get.eqtl(expression))
    return found


def null_families(n_donors: int, number: int, genes: int) -> Iterator[tuple[AnnData, AnnData]]:
    """One value per donor, y ~ N(0, h²K + (1−h²)I)."""
    for i in range(number):
        genotype, places = genotypes(n_donors, genes, VARIANTS, 1, FAMILY, [n_donors, i])
        rng = np.random.default_rng([n_donors, i, 1])
        y = np.sqrt(H_SQ) * effects(genotype, genes, True, rng)
        y += np.sqrt(1 - H_SQ) * rng.standard_normal((n_donors, genes))
        yield AnnData(y, obs=pd.DataFrame(index=genotype.obs_names), var=places), genotype
