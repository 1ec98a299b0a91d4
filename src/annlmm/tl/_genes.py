"""Genes as responses: what `variance_components` and `differential` share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm._settings import settings
from annlmm._slots.access import received
from annlmm.blocks import column_blocks
from annlmm.model.association import STATUS
from annlmm.model.basis import Basis, GroupBasis
from annlmm.model.null import NullModel
from annlmm.model.scan import among, clean_copy
from annlmm.model.statistics import FeatureStatistics, feature_statistics, shift_columns
from annlmm.tl._pass import Features, collect_statistics, named_features

MISSING = ("mean", "raise")
Float = NDArray[np.float64]
Index = NDArray[np.intp]


def check_reml(reml: Any) -> None:
    if not isinstance(reml, (bool, np.bool_)):
        raise TypeError(f"reml: must be True or False, received {reml!r}")


def check_seed(rng: Any) -> None:
    if isinstance(rng, bool) or not isinstance(rng, (int, np.integer)):
        raise TypeError(f"rng: must be a whole number, the seed, received {received(rng)}")
    if rng < 0:
        raise ValueError(f"rng: must be at least 0, received {rng}")


def check_missing(missing: Any) -> None:
    if missing not in MISSING:
        raise ValueError(f"missing: must be one of {', '.join(map(repr, MISSING))}, received {missing!r}")


def usable_row_numbers(usable: NDArray[np.bool_]) -> Index:
    """Rows that are used; an error if there are none."""
    if not usable.any():
        raise ValueError("no row has all covariates, a value of the kernel and the mask; see which are missing")
    return np.flatnonzero(usable)


def check_groups(basis: Basis, kernel: str) -> None:
    """Two groups at least."""
    if isinstance(basis, GroupBasis) and basis.counts.size < 2:
        raise ValueError(
            f"kernel={kernel!r}: one group on the {basis.n} rows that are used; a variance between groups needs at least two, "
            "see mask_obs and missing covariates, or test without a random effect (kernel=None of al.tl.differential)"
        )


def mask_text(mask: Any) -> str | None:
    """A mask as it is stored: the name of its column, or that it was an array."""
    return mask if isinstance(mask, str) else None if mask is None else "array"


def spread(values: Float, columns: Index, size: int) -> Float:
    """Values of some features among all of them, NaN elsewhere (the first axis)."""
    out = np.full((size, *values.shape[1:]), np.nan)
    out[columns] = values
    return out


def status_counts(status: NDArray[np.int8]) -> str:
    counts = np.bincount(status, minlength=len(STATUS))
    return ", ".join(f"{count} {name}" for name, count in zip(STATUS, counts, strict=True) if count)


def gene_statistics(
    features: Features,
    rows: Index,
    columns: Index,
    model: NullModel,
    my: Float,
    description: str,
    *,
    root: Float | None = None,
    shift: bool = False,
) -> tuple[FeatureStatistics, NDArray[np.bool_]]:
    """Statistics of `columns` on `rows` against the model and n × T vectors `my`, and which are missing altogether.

    With `root`, the square roots of weights, rows are multiplied by them, once the features are shifted if they may be.
    """
    if root is None:
        return collect_statistics(features, rows, columns, model, my, description)
    width = max(1, int(settings.block_memory // (32 * (rows.size + model.basis.rank + 16))))
    parts, empty = [], []
    for block in column_blocks(features.matrix, rows, columns, width):
        with named_features(features.adata), among(block.columns):
            filled, all_missing = clean_copy(block.array, refuse_missing=features.refuse_missing)
        filled = shift_columns(filled) if shift else filled
        weighted = filled.multiply(root[:, None]).tocsc() if sparse.issparse(filled) else filled * root[:, None]
        parts.append(feature_statistics(weighted, my, model.design, model.basis, model.space))
        empty.append(all_missing)
    total, start = parts[0].blank(columns.size), 0
    for part in parts:
        total.assign(np.arange(start, start + part.norm.size), part)
        start += part.norm.size
    return total, np.concatenate(empty)
