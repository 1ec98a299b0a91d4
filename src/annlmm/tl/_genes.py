"""Genes as responses: what `variance_components` and `differential` share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annlmm._settings import logger
from annlmm._slots.access import received
from annlmm.blocks import fetch
from annlmm.model.association import STATUS
from annlmm.model.basis import Basis, GroupBasis
from annlmm.model.null import NullModel
from annlmm.model.scan import clean_copy
from annlmm.model.statistics import FeatureStatistics, feature_statistics, shift_columns
from annlmm.model.sums import make_reduction
from annlmm.model.weights import weigh_features, weigh_reduction
from annlmm.tl._pass import Features, collect_statistics

MISSING = ("mean", "raise")
# Rows and columns that are looked at before a pass.
CORNER = 200
# Logarithms of counts end far below.
LOG_COUNTS = 30.0
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
    warn_of_counts(features, rows, columns, description)
    reduction = make_reduction(my, model.design, model.basis, model.space)
    if root is not None:
        reduction = weigh_reduction(reduction, root, spans_constant=shift)

    def again(block: Any) -> tuple[FeatureStatistics, NDArray[np.bool_]]:
        filled, empty = clean_copy(block, refuse_missing=features.refuse_missing)
        if root is not None:
            filled = weigh_features(shift_columns(filled) if shift else filled, root)
        return feature_statistics(filled, my, model.design, model.basis, model.space), empty

    return collect_statistics(features, rows, columns, reduction, again, description)


def warn_of_counts(features: Features, rows: Index, columns: Index, description: str) -> None:
    """Say so where a corner of the features is whole numbers, or too large for logarithms: a transform was probably forgotten."""
    if not rows.size or not columns.size:
        return
    corner = fetch(features.matrix, rows[:CORNER], columns[:CORNER])
    values = np.asarray(corner.data if sparse.issparse(corner) else corner, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size or values.min() < 0:
        return
    if values.max() > 2 and (values == np.floor(values)).all():
        logger.warning(
            f"{description}: the features look like counts (whole numbers from 0 to {values.max():.0f}); transform them first "
            "(sc.pp.normalize_total, sc.pp.log1p), or name the layer that is, e.g. layer='logcounts'"
        )
    elif values.max() > LOG_COUNTS and (values == 0).mean() + _stored_zeros(corner) > 0.05:
        logger.warning(
            f"{description}: the features look like normalised counts without logarithms (0 to {values.max():.4g}); take them first "
            "(sc.pp.log1p), or name the layer that has them, e.g. layer='logcounts'"
        )


def _stored_zeros(corner: Any) -> float:
    """Share of zeros that a sparse matrix does not store."""
    return 1.0 - corner.nnz / max(corner.shape[0] * corner.shape[1], 1) if sparse.issparse(corner) else 0.0


def member_statistics(
    features: Features, rows: Index, columns: Index, models: Sequence[NullModel], description: str
) -> Iterator[tuple[FeatureStatistics, NDArray[np.bool_]]]:
    """Statistics under one kernel of a family after the other, and which features are missing altogether.

    Kernels of groups differ in what is made of the same sums, so that one pass over the features serves all. Dense ones have no
    sums in common: a pass each holds the statistics of one at a time, and multiplies as often as one pass for all would.
    """
    nothing = np.zeros((rows.size, 0))
    first = models[0]
    if len(models) == 1 or not isinstance(first.basis, GroupBasis):
        for i, model in enumerate(models):
            which = f"{description} ({i + 1} of {len(models)})" if len(models) > 1 else description
            yield gene_statistics(features, rows, columns, model, nothing, which)
        return
    independent = NullModel(first.design, GroupBasis(first.basis.codes), identifiable=False)
    statistics, empty = gene_statistics(features, rows, columns, independent, nothing, description)
    for model in models:
        u = model.basis.coordinates.rotate(statistics.u)  # type: ignore[attr-defined]
        yield replace(statistics, u=u), empty
