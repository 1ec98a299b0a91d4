"""The simulated data of the benchmarks."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

import annlmm as al


def covariates(number: int) -> list[str]:
    return [f"c{j}" for j in range(number)]


def cohort(n: int, m: int, *, n_covariates: int = 9) -> AnnData:
    """Donors × variants of `al.datasets.gwas_cohort` as float64 with a full-rank GRM, and null models `lmm` and `ten`.

    The default sizes of the callers are those of the heterogeneous-stock mice with a phenotype (n = 1410, m = 12,226).
    """
    adata = al.datasets.gwas_cohort(n_obs=n, n_vars=m)
    adata.X = adata.X.astype(np.float64)
    rng = np.random.default_rng(1)
    for name in covariates(n_covariates):
        adata.obs[name] = rng.standard_normal(n)
    al.pp.kernel_grm(adata, min_maf=0)
    al.tl.fit_null(adata, "phenotype")
    al.tl.fit_null(adata, "phenotype", covariates=covariates(n_covariates), key_added="ten")
    return adata


def cells(n: int, m: int, density: float, dtype: str, seed: int = 0) -> sparse.csr_matrix:
    """Log counts of cells × genes, CSR with int32 indices; genes differ in how often they are seen.

    A gene is seen in a cell with probability `density` on average over genes; rows are drawn in chunks, so that no n × m array is made.
    """
    rng = np.random.default_rng(seed)
    probability = np.minimum(density * rng.gamma(1.0, 1.0, m), 0.9)
    probability = np.minimum(probability * density / probability.mean(), 1.0).astype(np.float32)
    lengths, indices, data = [np.zeros(1, dtype=np.int64)], [], []
    for begin in range(0, n, 2000):
        seen = rng.random((min(2000, n - begin), m), dtype=np.float32) < probability
        lengths.append(np.count_nonzero(seen, axis=1))
        indices.append(np.nonzero(seen)[1].astype(np.int32))
        data.append(np.log1p(rng.geometric(0.6, indices[-1].size)).astype(dtype))
    indptr = np.cumsum(np.concatenate(lengths)).astype(np.int32)
    return sparse.csr_matrix((np.concatenate(data), np.concatenate(indices), indptr), shape=(n, m))


def donors(n: int, number: int, *, together: bool, seed: int = 1) -> NDArray[np.int64]:
    """The donor of each cell, of very different sizes; the cells of a donor stand together or are mixed."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(number, n, p=rng.dirichlet(np.full(number, 4.0)))
    codes[:number] = np.arange(number)
    return np.sort(codes) if together else rng.permutation(codes)


def annotation(codes: NDArray[np.int64], n_covariates: int = 5, seed: int = 2) -> pd.DataFrame:
    """`.obs` of cells: donor, covariates `c0`… that vary within donors, and a phenotype with an effect of the donor."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame({name: rng.standard_normal(codes.size) for name in covariates(n_covariates)})
    obs["donor"] = pd.Categorical(codes.astype(str))
    obs["y"] = 0.6 * rng.standard_normal(codes.max() + 1)[codes] + rng.standard_normal(codes.size)
    obs.index = obs.index.astype(str)
    return obs


def add_models(adata: AnnData, ranks: tuple[int, ...] = ()) -> dict[str, str]:
    """Null models of cells: donors with an intercept and with five covariates, dense kernels of these ranks.

    Returns what each key is.
    """
    al.pp.kernel_group(adata, "donor", key_added="donors")
    al.tl.fit_null(adata, "y", kernel="donors", key_added="intercept")
    al.tl.fit_null(adata, "y", covariates=covariates(5), kernel="donors", key_added="covariates")
    number = adata.obs["donor"].cat.categories.size
    models = {
        "intercept": f"{number} donors, intercept",
        "covariates": f"{number} donors, 5 cell covariates",
    }
    rng = np.random.default_rng(3)
    for r in ranks:
        adata.obsm[f"X_{r}"] = rng.standard_normal((adata.n_obs, r))
        al.pp.kernel_linear(adata, f"X_{r}", key_added=f"dense_{r}")
        del adata.obsm[f"X_{r}"]
        al.tl.fit_null(adata, "y", kernel=f"dense_{r}", key_added=f"rank_{r}")
        models[f"rank_{r}"] = f"dense U, r = {r}"
    return models
