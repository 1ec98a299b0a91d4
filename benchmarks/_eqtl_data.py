"""Cells or donors with genotypes: expression that some variants change, genes and variants with places."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _data import annotation, covariates, donors
from _gene_data import cells_of_donors
from anndata import AnnData
from numpy.typing import NDArray

DONOR = "donor"
N_COVARIATES = 5
COVARIATES = covariates(N_COVARIATES)
# Base pairs between neighbours: 20,000 genes, and variants of a frequency of 0.05 or more, on 3 Gb.
GENE_SPACING, VARIANT_SPACING = 150_000, 2_000
WINDOW = 1_000_000
FAMILY = 4
LOWEST_MAF = 0.12
STRENGTH = 0.3


def cells(n: int, m: int, n_donors: int, density: float) -> AnnData:
    """Sparse log counts of mixed cells, with five covariates of the cells and places of the genes."""
    codes = donors(n, n_donors, together=False)
    adata = AnnData(cells_of_donors(codes, m, density), obs=annotation(codes, N_COVARIATES))
    _place_genes(adata, 1)
    return adata


def genotypes_of(adata: AnnData, n_vars: int, seed: int = 8) -> AnnData:
    """Donors × variants; every tenth variant follows the donors' means of one gene, so that p-values of all sizes occur."""
    rng = np.random.default_rng(seed)
    codes = adata.obs[DONOR].cat.codes.to_numpy()
    names = adata.obs[DONOR].cat.categories
    maf = rng.uniform(LOWEST_MAF, 0.5, n_vars)
    latent = rng.standard_normal((len(names), n_vars))
    for j, gene in zip(range(0, n_vars, 10), rng.permutation(adata.n_vars), strict=False):
        means = np.bincount(codes, adata.X[:, gene].toarray().ravel()) / np.bincount(codes)
        spread = means.std()
        if spread > 0:
            share = rng.uniform(0.0, 0.8)
            latent[:, j] = np.sqrt(share) * (means - means.mean()) / spread + np.sqrt(1 - share) * latent[:, j]
    rank = (latent.argsort(axis=0).argsort(axis=0) + 0.5) / len(names)
    dosage = (rank > (1 - maf) ** 2).astype(np.float32) + (rank > 1 - maf**2)
    return AnnData(dosage, obs=pd.DataFrame(index=pd.Index(names)), var=_variants(n_vars, 1))


def bulk(n_donors: int, m: int, n_vars: int) -> tuple[AnnData, AnnData]:
    """Donors × genes (float64) and donors × variants (int8), two chromosomes, families of four siblings.

    A family shares three tenths of the variance of a gene; every third gene follows one variant near it.
    """
    rng = np.random.default_rng(9)
    dosage = _siblings(n_donors, n_vars, rng)
    names = pd.Index([f"donor_{d}" for d in range(n_donors)])
    obs = pd.DataFrame(rng.standard_normal((n_donors, N_COVARIATES)), index=names, columns=COVARIATES)
    family = np.arange(n_donors) // FAMILY
    y = np.sqrt(0.3) * rng.standard_normal((family[-1] + 1, m))[family]
    y += np.sqrt(0.7) * rng.standard_normal((n_donors, m)) + obs.to_numpy() @ rng.normal(0, 0.2, (N_COVARIATES, m))
    expression = AnnData(y, obs=obs, var=pd.DataFrame(index=pd.Index([f"gene_{g}" for g in range(m)])))
    genotype = AnnData(dosage, obs=pd.DataFrame(index=names), var=_variants(n_vars, 2))
    _place_genes(expression, 2, n_vars * VARIANT_SPACING // m)
    for g in range(0, m, 3):
        near = genotype.var["chrom"].to_numpy() == expression.var["chrom"].iloc[g]
        near &= np.abs(genotype.var["pos"].to_numpy() - expression.var["start"].iloc[g]) < 100_000
        if near.any():
            y[:, g] += STRENGTH * dosage[:, rng.choice(np.flatnonzero(near))]
    return expression, genotype


def _siblings(n_donors: int, n_vars: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """Each child one haplotype of either parent, variant by variant."""
    maf = rng.uniform(LOWEST_MAF, 0.5, n_vars).astype(np.float32)
    dosage = np.empty((n_donors, n_vars), dtype=np.int8)
    for start in range(0, n_donors, FAMILY):
        haplotypes = rng.random((2, 2, n_vars), dtype=np.float32) < maf
        for row in range(start, min(start + FAMILY, n_donors)):
            first = rng.random((2, n_vars), dtype=np.float32) < 0.5
            dosage[row] = np.where(first, haplotypes[:, 0], haplotypes[:, 1]).sum(axis=0)
    return dosage


def _place_genes(adata: AnnData, n_chrom: int, spacing: int = GENE_SPACING) -> None:
    chrom, place = _places(adata.n_vars, n_chrom, spacing)
    adata.var["chrom"], adata.var["start"] = chrom, place


def _variants(n_vars: int, n_chrom: int) -> pd.DataFrame:
    chrom, place = _places(n_vars, n_chrom, VARIANT_SPACING)
    return pd.DataFrame({"chrom": chrom, "pos": place}, index=pd.Index([f"variant_{j}" for j in range(n_vars)]))


def _places(number: int, n_chrom: int, spacing: int) -> tuple[pd.Categorical, NDArray[np.int64]]:
    """Evenly on chromosomes of equal length."""
    each = -(-number // n_chrom)
    code, place = np.divmod(np.arange(number, dtype=np.int64), each)
    names = pd.Index([f"chr{c + 1}" for c in range(n_chrom)])
    return pd.Categorical.from_codes(code, categories=names), spacing // 2 + place * spacing
