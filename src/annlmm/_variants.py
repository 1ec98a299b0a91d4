"""Variants as a genetic relationship matrix takes them: filled, filtered, centred and standardised, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm._settings import settings
from annlmm.blocks import column_blocks
from annlmm.model.dosages import not_dosages
from annlmm.model.scan import fill_missing

Float = NDArray[np.float64]


class Variants:
    """Blocks of standardised variants, n × b, made anew at each pass.

    Parameters
    ----------
    matrix
        Donors × variants.
    n
        Donors.
    columns
        Variants to use.
    min_maf, center, standardize, missing_call
        As of `al.pp.kernel_grm`.
    """

    def __init__(
        self,
        matrix: Any,
        n: int,
        columns: NDArray[np.intp],
        min_maf: float,
        center: bool,
        standardize: bool,
        missing_call: float | None = None,
    ) -> None:
        self.matrix, self.rows, self.columns = matrix, np.arange(n), columns
        self.min_maf, self.center, self.standardize, self.missing_call = min_maf, center, standardize, missing_call
        self.width = max(1, int(settings.block_memory // (8 * 4 * n)))

    def __iter__(self) -> Iterator[Float]:
        from tqdm.auto import tqdm

        with tqdm(
            total=self.columns.size, desc="kernel_grm", unit=" variants", disable=not settings.progress, delay=3.0
        ) as bar:
            for block in column_blocks(self.matrix, self.rows, self.columns, self.width):
                yield self._standardised(block.array)
                bar.update(block.columns.size)

    def _standardised(self, array: Any) -> Float:
        z: Float = array.toarray() if sparse.issparse(array) else np.array(array, order="C")
        if np.isinf(z).any():
            raise ValueError("the variants hold infinite values; set missing calls to NaN")
        if self.missing_call is not None:
            z[z == self.missing_call] = np.nan
        reason = not_dosages(z, self.min_maf)
        if reason is not None:
            raise ValueError(f"min_maf={self.min_maf:g}: {reason}")
        z, _, empty = fill_missing(z)
        mean = z.mean(axis=0)
        keep = ~empty & (np.ptp(z, axis=0) > 0)
        if self.min_maf > 0:
            keep &= np.minimum(mean, 2 - mean) / 2 >= self.min_maf
        z, mean = z[:, keep], mean[keep]
        if self.center or self.standardize:
            centred = z - mean
            if self.standardize:
                deviation = np.sqrt(np.einsum("ij,ij->j", centred, centred) / z.shape[0])
                return (centred if self.center else z) / deviation
            return centred
        return z

    def count(self) -> tuple[int, float]:
        """Variants that are kept, and the trace of ZZᵀ."""
        sizes = [(z.shape[1], float(np.einsum("ij,ij->", z, z))) for z in self]
        return sum(m for m, _ in sizes), sum(trace for _, trace in sizes)

    def multiply(self, v: Float) -> Float:
        """ZZᵀ v."""
        out = np.zeros_like(v)
        for z in self:
            out += z @ (z.T @ v)
        return out

    def gram(self) -> tuple[Float, int]:
        """ZZᵀ (n × n), not divided by the number of variants, and that number."""
        n = self.rows.size
        k, kept = np.zeros((n, n)), 0
        for z in self:
            k += z @ z.T
            kept += z.shape[1]
        return k, kept
