"""The tested term of a design: a column of `.obs`, its levels, its reference and a contrast of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import logger
from annlmm._slots.access import hint, numeric, received
from annlmm._slots.design import _is_label

Float = NDArray[np.float64]
# Whole numbers of so many values are often the codes of groups.
FEW_CODES = 10
MISSING_TEXTS = ("", "nan", "na", "n/a", "none", "null", "<na>")


@dataclass(frozen=True)
class CodedTerm:
    """The columns that a term adds to the design.

    Attributes
    ----------
    values
        n_rows × q: a number, or indicators of the levels but the reference.
    names
        Its q terms.
    levels
        The q levels, each compared with the reference; empty for a number.
    reference
        None for a number.
    contrast
        q weights of the one contrast that is tested, or None.
    contrast_text
        For the parameters: 'a - b', or the weights in words.
    """

    values: Float
    names: tuple[str, ...]
    levels: tuple[str, ...]
    reference: str | None
    contrast: Float | None
    contrast_text: str | None


def term_column(adata: AnnData, term: Any) -> pd.Series:
    """The column of a term."""
    if not isinstance(term, str):
        raise TypeError(f"term: must be the name of a column of adata.obs, received {received(term)}")
    if term not in adata.obs.columns:
        if "~" in term or "(" in term:
            raise KeyError(
                f"term={term!r}: must name one column of adata.obs; formulas go into covariates, and make a category of what C(...) would code"
            )
        raise KeyError(f"term={term!r}: no such column in adata.obs; {hint(term, adata.obs.columns)}")
    return adata.obs[term]


def code_term(adata: AnnData, term: str, rows: NDArray[np.intp], reference: Any, contrast: Any) -> CodedTerm:
    """Code the term on the rows that are used."""
    column = term_column(adata, term).iloc[rows]
    if not _is_label(column):
        for argument, value in (("reference", reference), ("contrast", contrast)):
            if value is not None:
                raise ValueError(
                    f"{argument}={value!r}: {term!r} is a number, which has no levels; make it a category first, e.g. .astype(str).astype('category')"
                )
        values = numeric(column, f"term={term!r}")
        if not np.isfinite(values).all():
            raise ValueError(f"term={term!r}: infinite values; set them to NaN to leave these rows out")
        if np.ptp(values) == 0:
            raise ValueError(
                f"term={term!r}: is {values[0]:g} in all {values.size} rows that are used; there is nothing to compare"
            )
        distinct = np.unique(values)
        if 2 < distinct.size <= FEW_CODES and (distinct == np.floor(distinct)).all():
            logger.warning(
                f"differential: {term!r} is a number with {distinct.size} whole values and is tested as a slope, per unit; if they stand for groups, "
                f"make a category of it, adata.obs[{term!r}].astype('category')"
            )
        return CodedTerm(values[:, None], (term,), (), None, None, None)
    categories = column.astype("category").cat.remove_unused_categories()
    levels = [str(level) for level in categories.cat.categories]
    if len(levels) == 1:
        raise ValueError(
            f"term={term!r}: has one level ({levels[0]!r}) on the {rows.size} rows that are used; there is nothing to compare"
        )
    if len(levels) > max(len(column) / 2, 2):
        raise ValueError(f"term={term!r}: has {len(levels)} levels for {rows.size} rows; is it an identifier?")
    missing = [level for level in levels if level.strip().lower() in MISSING_TEXTS]
    if missing:
        logger.warning(
            f"differential: {missing[0]!r} is a level of {term!r} like the others; if it stands for a missing value, make it NaN"
        )
    if reference is not None and contrast is not None:
        logger.warning(f"differential: reference={reference!r} does not change what is tested where contrast= is given")
    base = levels[0] if reference is None else _level(reference, levels, term, "reference")
    others = [level for level in levels if level != base]
    codes = np.array([levels.index(level) for level in others])
    values = (categories.cat.codes.to_numpy()[:, None] == codes).astype(np.float64)
    weights, text = _contrast(contrast, levels, term)
    return CodedTerm(
        values,
        tuple(f"{term}[T.{level}]" for level in others),
        tuple(others),
        base,
        None if weights is None else np.array([weights[level] for level in others]),
        text,
    )


def _level(value: Any, levels: list[str], term: str, argument: str) -> str:
    if str(value) not in levels:
        raise ValueError(
            f"{argument}={value!r}: not a level of {term!r} on the rows that are used; {hint(str(value), levels)}"
        )
    return str(value)


def _contrast(contrast: Any, levels: list[str], term: str) -> tuple[dict[str, float] | None, str | None]:
    """Weights of all levels, from (a, b) for a − b or {level: weight}."""
    if contrast is None:
        return None, None
    if isinstance(contrast, Mapping):
        given = {_level(key, levels, term, "contrast"): value for key, value in contrast.items()}
        if not all(
            isinstance(v, (int, float, np.number)) and not isinstance(v, bool) and np.isfinite(v)
            for v in given.values()
        ):
            raise TypeError(f"contrast: the weights must be finite numbers, received {received(contrast)}")
        weights = {level: float(given.get(level, 0.0)) for level in levels}
        text = " + ".join(f"{weight:g} {level}" for level, weight in weights.items() if weight)
    elif isinstance(contrast, (list, tuple)) and len(contrast) == 2:
        first, second = (_level(value, levels, term, "contrast") for value in contrast)
        weights = dict.fromkeys(levels, 0.0)
        weights[first] += 1.0
        weights[second] -= 1.0
        text = f"{first} - {second}"
    else:
        raise TypeError(
            f"contrast: must be a pair of levels (a, b), for a − b, or weights of levels such as {{'a': 1, 'b': -0.5, 'c': -0.5}}, received {received(contrast)}"
        )
    total = sum(abs(weight) for weight in weights.values())
    if total == 0:
        raise ValueError(f"contrast: all weights of {term!r} are zero")
    if abs(sum(weights.values())) > 1e-9 * total:
        raise ValueError(
            f"contrast: the weights must add to zero, received {weights}, which add to {sum(weights.values()):g}"
        )
    return weights, text
