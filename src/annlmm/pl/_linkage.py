"""Linkage disequilibrium with one variant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from annlmm._slots.access import feature_matrix

from ._pairs import read_columns, read_dosages

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def linkage_of_matched(
    expression: AnnData,
    genotype: AnnData,
    donor_key: str | None,
    layer: str | None,
    names: NDArray[np.object_],
    lead: int,
) -> NDArray[np.float64]:
    """r² with the lead over the donors in both, NaN where a variant is absent from `genotype` or does not vary."""
    from annlmm._slots.pair import match_donors

    donors = match_donors(expression, genotype, donor_key, minimum=2)
    return _linkage(genotype, names, lead, lambda columns: read_dosages(genotype, layer, columns, donors))


def linkage_of_all(
    genotype: AnnData, layer: str | None, names: NDArray[np.object_], lead: int, *, coded: bool
) -> NDArray[np.float64]:
    """r² with the lead over all rows; where dosages are `coded`, negative ones are missing."""

    def read(columns: NDArray[np.intp]) -> NDArray[np.float64]:
        found = read_columns(feature_matrix(genotype, layer), columns)
        if coded:
            found[found < 0] = np.nan
        return found

    return _linkage(genotype, names, lead, read)


def _linkage(
    genotype: AnnData,
    names: NDArray[np.object_],
    lead: int,
    read: Callable[[NDArray[np.intp]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    columns = genotype.var_names.get_indexer(names)
    r_sq = np.full(names.size, np.nan)
    if columns[lead] < 0:
        return r_sq
    present = columns >= 0
    unique, inverse = np.unique(columns[present], return_inverse=True)
    dosages = read(unique)
    r_sq[present] = squared_correlation(dosages, dosages[:, np.searchsorted(unique, columns[lead])])[inverse]
    return r_sq


def squared_correlation(z: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Return r² of each column of `z` with `x` over the rows in which both are present; NaN where one of them is constant.

    Examples
    --------
    >>> squared_correlation(np.array([[0.0, 1.0], [1.0, np.nan], [2.0, 1.0]]), np.array([2.0, 1.0, 0.0]))
    array([ 1., nan])
    """
    both = np.isfinite(z) & np.isfinite(x)[:, None]
    n = np.maximum(both.sum(axis=0), 1)
    x, z = np.where(both, np.nan_to_num(x)[:, None], 0.0), np.where(both, np.nan_to_num(z), 0.0)
    x = np.where(both, x - x.sum(axis=0) / n, 0.0)
    z = np.where(both, z - z.sum(axis=0) / n, 0.0)
    # Rounding leaves a constant about 1e-32.
    scale = (x * x).sum(axis=0) * (z * z).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(scale > 1e-20, (x * z).sum(axis=0) ** 2 / scale, np.nan)
