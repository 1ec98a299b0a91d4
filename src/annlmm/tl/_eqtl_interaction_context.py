"""Contexts of `map_eqtl(interaction=)`: from columns of `.obs` and `.obsm` to means and deviations of donors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import hint, numeric, received
from annlmm._slots.design import nowhere, obsm_column, obsm_frame
from annlmm.model.design import COLLINEAR_TOLERANCE, Design, make_design

Float = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Contexts:
    """J contexts on all rows of `expression`, NaN where missing."""

    names: tuple[str, ...]
    values: Float

    @property
    def complete(self) -> NDArray[np.bool_]:
        return np.asarray(~np.isnan(self.values).any(axis=1))


def context_names(interaction: Any) -> tuple[str, ...]:
    """What was asked for: a name or several."""
    names = (interaction,) if isinstance(interaction, str) else interaction
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            "interaction: must be a column of expression.obs, a key of its .obsm ('X_pca', or one column of it: 'X_pca[0]'), or a list "
            f"of these, received {received(interaction)}"
        )
    return tuple(names)


def sources(interaction: Any) -> list[str]:
    """The columns of `.obs` and keys of `.obsm` that these names mean."""
    return [re.sub(r"\[[^\]]*\]$", "", name) for name in context_names(interaction)] + [*context_names(interaction)]


def read_contexts(adata: AnnData, interaction: Any, also: tuple[str, ...] = ()) -> Contexts:
    """Of `expression` (`also` are the names that `genotype` has): numbers, truth values, or categories of two levels (0 and 1 in their order)."""
    names: list[str] = []
    columns: list[Float] = []
    for name in context_names(interaction):
        if name in adata.obs.columns:
            found = {name: adata.obs[name]}
        else:
            found = _of_obsm(adata, name, also)
        for label, column in found.items():
            names.append(str(label))
            columns.append(_numbers(column, f"interaction={label!r}"))
    if len(set(names)) < len(names):
        raise ValueError(f"interaction: contexts must differ, received {names}")
    return Contexts(tuple(names), np.stack(columns, axis=1))


def _of_obsm(adata: AnnData, name: str, also: tuple[str, ...]) -> dict[Any, pd.Series]:
    if name in adata.obsm:
        frame = obsm_frame(adata, name)
        return {column: frame[column] for column in frame}
    column = obsm_column(adata, name, f"interaction={name!r}", "expression")
    if column is not None:
        return {name: column}
    known = dict.fromkeys([*adata.obs.columns, *adata.obsm, *also])
    raise KeyError(f"interaction={name!r}: {nowhere('expression', also)}; {hint(name.partition('[')[0], known)}")


def _numbers(column: pd.Series, argument: str) -> Float:
    levels = column.dtype
    if isinstance(levels, (pd.CategoricalDtype, pd.StringDtype)) or (
        pd.api.types.is_object_dtype(levels) and any(isinstance(value, str) for value in column)
    ):
        coded = column.astype("category").cat.remove_unused_categories()
        categories = list(map(str, coded.cat.categories))
        if len(categories) != 2:
            raise ValueError(
                f"{argument}: has {len(categories)} levels ({', '.join(map(repr, categories[:5]))}); a context is a number or has two levels: "
                "make a column of 0 and 1 for each level to be tested"
            )
        codes = coded.cat.codes.to_numpy()
        return np.where(codes < 0, np.nan, codes.astype(np.float64))
    values = numeric(column, argument)
    if np.isinf(values).any():
        raise ValueError(
            f"{argument}: {int(np.isinf(values).sum())} infinite values; set them to NaN to leave these rows out"
        )
    return values


@dataclass(frozen=True)
class DonorContexts:
    """Contexts on the rows that are used, in standard deviations.

    Attributes
    ----------
    names
        J of them.
    deviation
        n × J′, from the donors' means, one column for each context that varies within donors.
    place
        Column of `deviation` of each context; −1 where it is constant within donors.
    donor
        J × D, its values per donor in that case.
    scale
        Units to one standard deviation, J.
    """

    names: tuple[str, ...]
    deviation: Float
    place: tuple[int, ...]
    donor: Float
    scale: Float

    @property
    def between(self) -> tuple[str, ...]:
        """Those that are constant within donors."""
        return tuple(name for name, place in zip(self.names, self.place, strict=True) if place < 0)


def split_contexts(contexts: Contexts, rows: Index, codes: Index, design: Design) -> tuple[DonorContexts, Design]:
    """Donors' means and deviations from them, and the design with both of every context (where it does not have them yet).

    What is tested for a context that varies within donors is the product with the deviation; its mean is a covariate. A context that
    varies between donors alone is its mean.
    """
    counts = np.bincount(codes)
    deviations: list[Float] = []
    place, donor, scale = [], np.zeros((len(contexts.names), counts.size)), np.zeros(len(contexts.names))
    for j, name in enumerate(contexts.names):
        values = contexts.values[rows, j]
        values = values - values.mean()
        total = float(np.sqrt(values @ values))
        if not total > COLLINEAR_TOLERANCE * np.linalg.norm(contexts.values[rows, j]):
            raise ValueError(
                f"interaction={name!r}: one value on the {rows.size} rows that are used; nothing can interact with it"
            )
        mean = np.bincount(codes, values) / counts
        within = values - mean[codes]
        # Once more: what is left of the means is rounding of them.
        within -= (np.bincount(codes, within) / counts)[codes]
        if within @ within <= (COLLINEAR_TOLERANCE * total) ** 2:
            scale[j] = total / np.sqrt(rows.size)
            donor[j] = mean / scale[j]
            place.append(-1)
            parts = {name: donor[j][codes]}
        else:
            scale[j] = np.sqrt(within @ within / rows.size)
            place.append(len(deviations))
            deviations.append(within / scale[j])
            varying = int((np.bincount(codes, within**2) > 0).sum())
            if varying < 5:
                raise ValueError(
                    f"interaction={name!r}: varies within {varying} donors; slopes need five at least (its mean over the cells of a donor may be a "
                    "context of its own)"
                )
            parts = {f"{name} (mean of the donor)": mean[codes] / scale[j], f"{name} (within donors)": deviations[-1]}
        for term, column in parts.items():
            design = _joined(design, column, term)
    stacked = np.stack(deviations, axis=1) if deviations else np.zeros((rows.size, 0))
    return DonorContexts(contexts.names, stacked, tuple(place), donor, scale), design


def _joined(design: Design, column: Float, name: str) -> Design:
    """With a column, unless its span has it."""
    left = design.residualise(column)
    # Columns are in standard deviations: a mean that differs less than this between donors is rounding.
    if not left @ left > (10.0 * COLLINEAR_TOLERANCE) ** 2 * max(float(column @ column), 1e-6 * column.size):
        return design
    return make_design(np.column_stack([design.x, column]), [*design.names, name])
