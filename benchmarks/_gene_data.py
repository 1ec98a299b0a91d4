"""Sparse cells × genes with an effect of the donor on every gene, drawn in blocks of cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _data import annotation, covariates, donors
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

import annlmm as al

N_COVARIATES = 5
TERM, COVARIATES = "ill", covariates(N_COVARIATES)
BLOCK = 2000


def cells_of_donors(codes: NDArray[np.int64], m: int, density: float, seed: int = 0) -> sparse.csr_matrix:
    """Log counts, float32 CSR with int32 indices.

    A gene is seen in a cell with a probability that differs between genes (`density` on average) and, by a lognormal factor of
    the gene, between donors: in half of the genes not at all.
    """
    rng = np.random.default_rng(seed)
    base = np.minimum(density * rng.gamma(1.0, 1.0, m), 0.6)
    spread = np.where(rng.random(m) < 0.5, 0.0, rng.uniform(0.0, 0.6, m))
    factor = np.exp(spread * rng.standard_normal((codes.max() + 1, m)) - spread**2 / 2)
    probability = np.minimum(base * factor, 0.95).astype(np.float32)
    probability *= np.float32(density / probability.mean())
    lengths, indices, data = [np.zeros(1, dtype=np.int64)], [], []
    for begin in range(0, codes.size, BLOCK):
        block = codes[begin : begin + BLOCK]
        seen = rng.random((block.size, m), dtype=np.float32) < probability[block]
        lengths.append(np.count_nonzero(seen, axis=1))
        indices.append(np.nonzero(seen)[1].astype(np.int32))
        data.append(np.log1p(rng.geometric(0.6, indices[-1].size)).astype(np.float32))
    indptr = np.cumsum(np.concatenate(lengths)).astype(np.int32)
    shape = (codes.size, m)
    # One list after the other, so that what is concatenated is not there three times.
    values = np.concatenate(data)
    del data
    return sparse.csr_matrix((values, np.concatenate(indices), indptr), shape=shape)


def study(n: int, m: int, n_donors: int, density: float) -> AnnData:
    """Cells of `n_donors` donors of unequal sizes, mixed; five covariates of the cells, a condition of the donors, their kernel."""
    codes = donors(n, n_donors, together=False)
    obs = annotation(codes, N_COVARIATES)
    obs[TERM] = np.random.default_rng(5).permutation(np.arange(n_donors) % 2 == 0)[codes]
    adata = AnnData(cells_of_donors(codes, m, density), obs=obs)
    al.pp.kernel_group(adata, "donor")
    return adata


def design(obs: pd.DataFrame) -> NDArray[np.float64]:
    """Constant, covariates and, last, the condition."""
    return np.column_stack([np.ones(len(obs)), obs[COVARIATES], obs[TERM].astype(float)])
