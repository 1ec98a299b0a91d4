"""Variants of the matched donors: missing calls filled, filtered by frequency, into the coordinates of the donors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annlmm.model.design import COLLINEAR_TOLERANCE
from annlmm.model.donor_space import DonorSpace
from annlmm.model.dosages import ROUNDING, not_dosages

Float = NDArray[np.float64]
Index = NDArray[np.intp]

KEPT, MONOMORPHIC, RARE, UNCALLED = range(4)


class NotDosages(ValueError):
    """Values that are not dosages: why, and what to do."""


@dataclass(frozen=True)
class Calls:
    """b variants on D donors.

    Attributes
    ----------
    dosage
        b × D, a variant to a row, missing calls filled with the mean of those that are there.
    maf
        Of the donors with a call; NaN where the values are not dosages.
    n_called
        Donors with a call.
    state
        `KEPT`, or why not.
    """

    dosage: Float
    maf: Float
    n_called: Index
    state: NDArray[np.int8]


def read_calls(block: NDArray[Any], min_maf: float, missing_call: float | None) -> Calls:
    """From the values as they are stored (D × b, of any type of number; not changed).

    Parameters
    ----------
    min_maf
        Lowest minor allele frequency that is kept; above 0 the values must be dosages, 0 to 2 (`not_dosages`).
    missing_call
        Value that stands for a missing call, besides NaN.
    """
    dosage = np.array(block.T, dtype=np.float64, order="C")
    if missing_call is not None:
        dosage[dosage == missing_call] = np.nan
    total = dosage.sum(axis=1)
    low, high = dosage.min(axis=1), dosage.max(axis=1)
    n_called = np.full(total.size, dosage.shape[1])
    gaps = np.flatnonzero(np.isnan(total))
    if gaps.size:
        part = dosage[gaps]
        missing = np.isnan(part)
        n_called[gaps] -= missing.sum(axis=1)
        total[gaps] = np.where(missing, 0.0, part).sum(axis=1)
        low[gaps] = np.where(missing, np.inf, part).min(axis=1)
        high[gaps] = np.where(missing, -np.inf, part).max(axis=1)
    called = n_called > 0
    if np.isinf(low[called]).any() or np.isinf(high[called]).any():
        raise NotDosages("infinite values; set missing calls to NaN")
    dosages = (low >= -ROUNDING) & (high <= 2 + ROUNDING)
    reason = not_dosages(dosage[called & ~dosages], min_maf)
    if reason is not None:
        raise NotDosages(reason)
    mean = total / np.maximum(n_called, 1)
    if gaps.size:
        dosage[gaps] = np.where(missing, mean[gaps, None], part)
    with np.errstate(invalid="ignore"):
        maf = np.where(dosages & called, np.maximum(np.minimum(mean, 2.0 - mean), 0.0) / 2.0, np.nan)
        state = np.where(maf < min_maf, RARE, KEPT).astype(np.int8)
    state[~(high > low)] = MONOMORPHIC
    state[~called] = UNCALLED
    return Calls(dosage, maf, n_called, state)


@dataclass(frozen=True)
class VariantBlock:
    """m variants that are tested, one to a row.

    Attributes
    ----------
    index
        Their numbers, increasing.
    x
        x̃, m × k′.
    norm
        ‖x̃‖², m; NaN where a variant is a combination of the covariates.
    maf, n_called
        Of the donors with a call, and their number.
    dosage
        Centred dosages, m × D; None where nothing needs them.
    """

    index: Index
    x: Float
    norm: Float
    maf: Float
    n_called: Index
    dosage: Float | None

    @property
    def size(self) -> int:
        return self.index.size

    def slice(self, start: int, stop: int) -> VariantBlock:
        """Variants `start` to `stop`, without a copy."""
        part = slice(start, stop)
        dosage = None if self.dosage is None else self.dosage[part]
        return VariantBlock(
            self.index[part], self.x[part], self.norm[part], self.maf[part], self.n_called[part], dosage
        )

    @staticmethod
    def join(blocks: list[VariantBlock]) -> VariantBlock:
        """One after the other."""
        if len(blocks) == 1:
            return blocks[0]
        values = {
            name: np.concatenate([getattr(block, name) for block in blocks])
            for name in ("index", "x", "norm", "maf", "n_called")
        }
        dosages = [block.dosage for block in blocks if block.dosage is not None]
        return VariantBlock(**values, dosage=np.concatenate(dosages) if dosages else None)


def project_calls(
    calls: Calls, index: Index, space: DonorSpace, *, spans_constant: bool, keep_dosage: bool
) -> VariantBlock:
    """Those that are kept, in the coordinates of the donors; `index` numbers all of them. The calls are used up."""
    kept = np.flatnonzero(calls.state == KEPT)
    dosage = calls.dosage if kept.size == index.size else calls.dosage[kept]
    if spans_constant:
        # An offset is the constant's.
        dosage -= dosage.mean(axis=1)[:, None]
    square = np.einsum("md,d,md->m", dosage, space.counts, dosage)
    x = space.project(dosage, overwrite=not keep_dosage)
    norm = np.einsum("mk,mk->m", x, x)
    norm[norm <= COLLINEAR_TOLERANCE**2 * square] = np.nan
    return VariantBlock(index[kept], x, norm, calls.maf[kept], calls.n_called[kept], dosage if keep_dosage else None)
