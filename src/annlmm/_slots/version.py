"""What is read back from `.uns`: its version, and that every field has the type that the schema gives it.

A file may have been edited, or written by another release: what a later one wrote is refused, what an earlier one wrote is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from annlmm._slots.access import SCHEMA_VERSION, received
from annlmm._slots.schema import fields_of

# What is read of the parameters, and may be absent.
_PARAMS = {
    "kernel": "str",
    "reml": "bool",
    "gamma": "float",
    "scale": "bool",
    "standardize": "bool",
    "min_maf": "float",
    "rng": "int",
    "missing_call": "float",
    "variance": "str",
    "also": "str array",
    "output": "str",
    "run": "str",
    "donor_key": "str",
    "layer": "str",
    "genotype_layer": "str",
}
# Of a null model they are as many as phenotypes, of an association too; of variance components as many as members.
_SEVERAL = {("association", "gamma"): "float64"}


def check_version(entry: Mapping[str, Any], key: str, owner: str, argument: str = "key") -> None:
    """Refuse an entry of `.uns` of a later version, or one whose fields are not what `owner` writes."""
    where = f"{argument}={key!r}: adata.uns[{key!r}]"
    version = _scalar(entry.get("schema_version", 1))  # none at all: the first
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"{where}['schema_version'] must be a whole number from 1{_edited(version)}")
    if version > SCHEMA_VERSION:
        raise ValueError(f"{argument}={key!r}: written by a later annlmm (schema {version}); update annlmm")
    for field in fields_of(owner):
        if field.slot != "uns" or field.name not in entry:
            continue
        value = entry[field.name]
        if not _has_type(value, field.dtype):
            raise ValueError(f"{where}[{field.name!r}] must be a {field.dtype}{_edited(value)}")
        if field.dtype != "dict":
            continue
        for name, dtype in _PARAMS.items():
            dtype = _SEVERAL.get((field.name, name), dtype)
            if name in value and not _has_type(value[name], dtype):
                raise ValueError(f"{where}[{field.name!r}][{name!r}] must be a {dtype}{_edited(value[name])}")


def entry_of(adata: AnnData, key: Any) -> Any:
    """What is under a key of `.uns`, or None."""
    if not isinstance(key, str):
        raise TypeError(f"key: must be a string, received {received(key)}")
    return adata.uns.get(key)


def _edited(value: Any) -> str:
    found = " ".join(repr(value).split())
    return f", found {found[:60]}{'…' if len(found) > 60 else ''} (was it edited?); make it again"


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0 else value


def _has_type(value: Any, dtype: str) -> bool:
    if dtype == "dict":
        return isinstance(value, Mapping)
    if dtype == "DataFrame":
        return isinstance(value, pd.DataFrame)
    if dtype == "float64":
        return isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind in "fiu"
    if dtype == "str array":
        return isinstance(value, (np.ndarray, pd.api.extensions.ExtensionArray)) and value.ndim == 1 and _texts(value)
    one = _scalar(value)
    if dtype == "float":
        return isinstance(one, (int, float)) and not isinstance(one, bool)
    return isinstance(one, {"str": str, "int": int, "bool": bool}[dtype]) and (dtype == "bool" or one is not True)


def _texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in np.asarray(values, dtype=object))
