"""Null genes of cells from several donors: donors of very different sizes, and a condition that has no effect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

import annlmm as al

Float = NDArray[np.float64]
Index = NDArray[np.intp]

SMALLEST, LARGEST = 10, 300
DISPERSION = 0.3
LEAST_COUNT, GREATEST_COUNT = 0.5, 20.0


@dataclass(frozen=True)
class Layout:
    """Donors and cells, the cells of a donor together.

    Attributes
    ----------
    cells
        Cells of each donor.
    ill
        Condition of each donor.
    active
        Condition of each cell, of which donors have different shares.
    """

    cells: Index
    ill: NDArray[np.bool_]
    active: NDArray[np.bool_]

    @property
    def donor(self) -> Index:
        return np.repeat(np.arange(self.cells.size), self.cells)

    @property
    def starts(self) -> Index:
        return np.r_[0, np.cumsum(self.cells)[:-1]]

    def means(self, x: NDArray[np.floating]) -> Float:
        """Means of the donors."""
        return np.add.reduceat(x, self.starts, axis=0, dtype=np.float64) / self.cells[:, None]

    def annotated(self, x: NDArray[np.floating]) -> AnnData:
        """Cells × genes with the kernel of the donors."""
        adata = AnnData(x)
        adata.obs["donor"] = self.donor.astype(str)
        adata.obs["ill"], adata.obs["active"] = self.ill[self.donor], self.active
        al.pp.kernel_group(adata, "donor")
        return adata


def make_layout(n_donors: int, rng: np.random.Generator) -> Layout:
    """Cells per donor lognormal within [10, 300] (median 55), half of the donors ill, Beta(2, 2) of a donor's cells active."""
    cells = np.clip(rng.lognormal(np.log(55), 0.9, n_donors), SMALLEST, LARGEST).astype(np.intp)
    ill = rng.permutation(np.arange(n_donors) % 2 == 0)
    active = rng.random(cells.sum()) < np.repeat(rng.beta(2, 2, n_donors), cells)
    return Layout(cells, ill, active)


def gaussian(layout: Layout, icc: Float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Genes of total variance 1, of which the share `icc` (one per gene) is between donors."""
    x = rng.standard_normal((layout.cells.sum(), icc.size), dtype=np.float32)
    x *= np.sqrt(1 - icc).astype(np.float32)
    effects = (np.sqrt(icc) * rng.standard_normal((layout.cells.size, icc.size))).astype(np.float32)
    for start, size, effect in zip(layout.starts, layout.cells, effects, strict=True):
        x[start : start + size] += effect
    return x


def mixed(n_genes: int, rng: np.random.Generator) -> Float:
    """ICCs that differ between genes: none in half of them, Beta(1, 9) in the others."""
    return rng.beta(1, 9, n_genes) * (rng.random(n_genes) < 0.5)


class Counts:
    """Negative binomial counts, normalised to the same total and log1p-transformed.

    The donors' factors are lognormal. Their variance is chosen so that, to first order, the share `icc` of the variance of
    log1p is between donors, whatever the mean of the gene: s² = icc/(1−icc) · Var(y | donor)/(dE y/d log m)².
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._log_mean = np.linspace(np.log(LEAST_COUNT) - 0.5, np.log(GREATEST_COUNT) + 0.5, 25)
        size = (100_000, 1)
        depth = _depth(size, rng)
        y = np.log1p(_draw(np.exp(self._log_mean) * depth, rng) / depth)
        # Cubics in log m, without the noise of the draws.
        self._variance = np.polynomial.Polynomial.fit(self._log_mean, y.var(axis=0), 3)
        self._slope = np.polynomial.Polynomial.fit(self._log_mean, y.mean(axis=0), 4).deriv()

    def genes(self, layout: Layout, icc: float, n_genes: int, rng: np.random.Generator) -> NDArray[np.float32]:
        log_mean = rng.uniform(np.log(LEAST_COUNT), np.log(GREATEST_COUNT), n_genes)
        s = np.sqrt(icc / (1 - icc) * self._variance(log_mean)) / self._slope(log_mean)
        factor = np.exp(log_mean + s * rng.standard_normal((layout.cells.size, n_genes)) - s**2 / 2)
        depth = _depth((layout.cells.sum(), 1), rng)
        parts = [
            _draw(factor[d] * depth[start : start + size], rng)
            for d, (start, size) in enumerate(zip(layout.starts, layout.cells, strict=True))
        ]
        return _log_normalised(np.concatenate(parts))


def _depth(size: tuple[int, int], rng: np.random.Generator) -> Float:
    return rng.lognormal(0.0, 0.35, size)


def _draw(mean: Float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Counts of variance m + φm²."""
    shape = 1 / DISPERSION
    return rng.negative_binomial(shape, shape / (shape + mean)).astype(np.float32)


def _log_normalised(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    import scanpy as sc

    adata = AnnData(sparse.csr_matrix(counts))
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    return adata.X.toarray()
