"""Blocks of genotypes in the order of their places, read once, in the coordinates of the donors."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from annlmm._settings import settings
from annlmm.blocks import fetch
from annlmm.model.donor_space import DonorSpace
from annlmm.model.eqtl_variants import MONOMORPHIC, RARE, UNCALLED, NotDosages, VariantBlock, project_calls, read_calls
from annlmm.model.parallel import map_blocks

Index = NDArray[np.intp]

# Variants that are made ready at a time, and what one takes meanwhile, relative to its dosages as float64.
WIDTH, COPIES = 2048, 6


class Genotypes:
    """Variants by their place in `order`.

    Parameters
    ----------
    adata, matrix
        Donors × variants.
    rows
        Those of the matched donors, increasing.
    order
        Columns.
    space
        Coordinates of the donors.
    min_maf, missing_call
        As of `al.tl.map_eqtl`.
    spans_constant
        Whether the fixed effects span the constant.
    keep_dosage
        Whether permutations need the dosages.
    """

    def __init__(
        self,
        adata: AnnData,
        matrix: Any,
        rows: Index,
        order: Index,
        space: DonorSpace,
        *,
        min_maf: float,
        missing_call: float | None,
        spans_constant: bool,
        keep_dosage: bool,
    ) -> None:
        self.adata, self.matrix, self.rows, self.order, self.space = adata, matrix, rows, order, space
        self.min_maf, self.missing_call = min_maf, missing_call
        self.spans_constant, self.keep_dosage = spans_constant, keep_dosage
        self._states: list[NDArray[np.int8]] = []  # of all that were read
        self._last: VariantBlock | None = None
        self._range = (0, 0)

    @property
    def most(self) -> int:
        """Variants that may be held at once."""
        numbers = self.space.size + (self.space.counts.size if self.keep_dosage else 0)
        return max(1, settings.block_memory // (8 * numbers * (settings.threads + 2)))

    def between(self, low: int, high: int) -> VariantBlock:
        """Variants low … high − 1 of the order; of those that the last call had too, nothing is read again."""
        start, stop = self._range
        parts = []
        if self._last is not None and start <= low < stop <= high:
            first = int(np.searchsorted(self._last.index, low))
            parts.append(self._last.slice(first, self._last.size))
            parts += self._read(stop, high) if stop < high else []
        else:
            parts += self._read(low, high)
        self._last, self._range = VariantBlock.join(parts), (low, high)
        return self._last

    def _read(self, low: int, high: int) -> list[VariantBlock]:
        """In the calling thread (readers of files need not be safe for threads), and made ready in all of them."""
        width = max(1, min(WIDTH, int(settings.block_memory // (8 * COPIES * self.rows.size))))
        starts = range(low, high, width) if high > low else (low,)
        parts = ((start, self._values(start, min(start + width, high))) for start in starts)
        return list(map_blocks(self._block, parts, settings.threads))

    def _values(self, low: int, high: int) -> NDArray[Any]:
        columns = self.order[low:high]
        increasing = np.argsort(columns, kind="stable")
        block = fetch(self.matrix, self.rows, columns[increasing])
        values = np.asarray(block.toarray() if sparse.issparse(block) else block)
        in_order = np.array_equal(increasing, np.arange(columns.size))
        return values if in_order else values[:, np.argsort(increasing)]

    def _block(self, part: tuple[int, NDArray[Any]]) -> VariantBlock:
        low, values = part
        try:
            calls = read_calls(values, self.min_maf, self.missing_call)
        except NotDosages as error:
            first, last = (str(self.adata.var_names[self.order[low + i]]) for i in (0, values.shape[1] - 1))
            raise ValueError(f"genotype: variants {first!r} to {last!r}: {error}") from None
        self._states.append(calls.state)
        index = np.arange(low, low + values.shape[1])
        return project_calls(calls, index, self.space, spans_constant=self.spans_constant, keep_dosage=self.keep_dosage)

    def report(self) -> str:
        """What was left out of what was read."""
        names = {
            MONOMORPHIC: "monomorphic",
            RARE: f"with a minor allele frequency below {self.min_maf:g}",
            UNCALLED: "without a call",
        }
        seen = np.bincount(np.concatenate([*self._states, np.zeros(0, np.int8)]), minlength=4)
        parts = [f"{seen[state]} {text}" for state, text in names.items() if seen[state]]
        return f"{seen.sum()} variants read" + (f", left out: {', '.join(parts)}" if parts else "")
