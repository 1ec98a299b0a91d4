"""Names and annotation columns of variants shared by the readers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique

from annlmm.io._text import MISSING

UNKNOWN_POSITION = -9
"""GEMMA's and, in .bim files, PLINK's code for a variant without a position."""


def unique_names(names: Sequence[str], argument: str, stacklevel: int) -> pd.Index[str]:
    """Variant ids as an index; repeated ones get anndata's suffixes -1, -2, … and a warning."""
    index = pd.Index(names)
    repeated = index[index.duplicated()].unique()
    if len(repeated) == 0:
        return index
    examples = ", ".join(map(repr, repeated[:3])) + (", …" if len(repeated) > 3 else "")
    warnings.warn(
        f"`{argument}`: {len(repeated)} variant ids occur more than once ({examples}); "
        "the later ones get the suffix -1, -2, … in `var_names`.",
        UserWarning,
        stacklevel=stacklevel + 1,
    )
    unique: pd.Index[str] = make_index_unique(index)
    return unique


def chromosomes(values: Sequence[str]) -> pd.Categorical[str]:
    """Chromosomes with their categories in order of appearance; NA becomes a missing value."""
    names = [value for value in dict.fromkeys(values) if value not in MISSING]
    return _categorical(values, names)


def allele_columns(a0: Sequence[str], a1: Sequence[str]) -> dict[str, pd.Categorical[str]]:
    """Both allele columns over one set of categories, so that they can be compared with each other."""
    categories = sorted({*a0, *a1})
    return {"a0": _categorical(a0, categories), "a1": _categorical(a1, categories)}


def _categorical(values: Sequence[str], categories: Sequence[str]) -> pd.Categorical[str]:
    codes = {category: code for code, category in enumerate(categories)}
    found = np.array([codes.get(value, -1) for value in values], dtype=np.int64)
    return pd.Categorical.from_codes(found, categories=pd.Index(categories))
