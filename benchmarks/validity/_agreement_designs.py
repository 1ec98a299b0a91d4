"""Random designs that annlmm and another program both analyse: cohorts with a GRM, and rows of groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

import annlmm as al

Float = NDArray[np.float64]

NUMBER, SNPS, BACKGROUND = 20, 50, 1500


@dataclass(frozen=True)
class Cohort:
    """Phenotype, covariates with the constant first, kinship and the dosages that are tested (not part of it)."""

    y: Float
    x: Float
    k: Float
    g: Float

    @property
    def covariates(self) -> list[str]:
        return [f"c{j}" for j in range(1, self.x.shape[1])]

    @property
    def centred(self) -> Float:
        """K as GEMMA has it."""
        k = self.k - self.k.mean(axis=0)
        return k - k.mean(axis=1)[:, None]

    def annotated(self) -> AnnData:
        """With the kernel centred."""
        obs = pd.DataFrame(self.x[:, 1:], columns=self.covariates, index=[f"i{i}" for i in range(self.y.size)])
        adata = AnnData(self.g.copy(), obs=obs.assign(y=self.y))
        al.pp.kernel_precomputed(adata, self.k, center=True)
        return adata

    def write(self, file: Path) -> None:
        adata = self.annotated()
        np.savez(file, y=self.y, x=self.x, k=self.k, g=self.g, centred=self.centred, u=adata.obsm["kernel"], s=adata.uns["kernel"]["eigenvalues"])  # fmt: skip


def cohort(seed: int) -> Cohort:
    """60 to 400 donors, 1 to 8 fixed effects, unrelated to families of four in one to five populations, any unit and origin of y."""
    rng = np.random.default_rng([5, seed])
    n, p = int(rng.integers(60, 401)), int(rng.integers(1, 9))
    adata = al.datasets.gwas_cohort(
        n, SNPS * 2 + BACKGROUND, n_populations=int(rng.integers(1, 6)), family_size=int(rng.integers(1, 5)), rng=int(rng.integers(2**31))
    )  # fmt: skip
    dosage = adata.X.astype(np.float64)
    frequency = dosage.mean(axis=0) / 2
    common = np.flatnonzero(np.minimum(frequency, 1 - frequency) > 0.1)
    tested, others = common[:SNPS], common[SNPS:]
    z = (dosage[:, others] - dosage[:, others].mean(axis=0)) / dosage[:, others].std(axis=0)
    k = z @ z.T / others.size
    x = np.column_stack([np.ones(n), rng.standard_normal((n, p - 1)) * 10.0 ** rng.uniform(-2, 2, p - 1)])
    h_sq = rng.uniform(0.1, 0.7)
    y = np.sqrt(h_sq / others.size) * z @ rng.standard_normal(others.size) + np.sqrt(1 - h_sq) * rng.standard_normal(n)
    y += 0.3 * dosage[:, tested[:5]] @ rng.standard_normal(5)
    y = 10.0 ** rng.uniform(-2, 2) * (y + rng.uniform(-10, 10))
    return Cohort(y, x, k, dosage[:, tested])


@dataclass(frozen=True)
class Grouped:
    """Phenotype, covariates without the constant (of the rows, then of the groups) and the group of each row."""

    y: Float
    x: Float
    codes: NDArray[np.int64]

    @property
    def covariates(self) -> list[str]:
        return [f"c{j}" for j in range(1, self.x.shape[1] + 1)]

    @property
    def table(self) -> pd.DataFrame:
        frame = pd.DataFrame(self.x, columns=self.covariates)
        return frame.assign(y=self.y, group=np.char.add("g", self.codes.astype(str)))

    def annotated(self) -> AnnData:
        frame = self.table
        frame.index = frame.index.astype(str)
        adata = AnnData(np.zeros((self.y.size, 1)), obs=frame.assign(group=pd.Categorical(frame["group"])))
        al.pp.kernel_group(adata, "group")
        return adata


def grouped(seed: int) -> Grouped:
    """6 to 60 groups of 2 to 40 rows, up to three covariates of the rows and two of the groups."""
    rng = np.random.default_rng([6, seed])
    sizes = rng.integers(2, int(rng.integers(3, 41)), int(rng.integers(6, 61)))
    codes = np.repeat(np.arange(sizes.size), sizes)
    of_rows = rng.standard_normal((codes.size, int(rng.integers(0, 4))))
    of_groups = rng.standard_normal((sizes.size, int(rng.integers(0, 3))))[codes]
    x = np.column_stack([of_rows, of_groups])
    h_sq = rng.uniform(0.05, 0.8)
    y = x @ rng.normal(0, 0.3, x.shape[1]) + np.sqrt(h_sq) * rng.standard_normal(sizes.size)[codes]
    y += np.sqrt(1 - h_sq) * rng.standard_normal(codes.size) + rng.uniform(-10, 10)
    return Grouped(10.0 ** rng.uniform(-2, 2) * y, x, codes)
