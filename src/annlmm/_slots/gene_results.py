"""Results of genes as responses to `.var` (and `.varm` for the levels of a factor or the members of a family), and back to tidy tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import SCHEMA_VERSION, hint, storable, taken, write_slots
from annlmm._slots.schema import fields_of
from annlmm._slots.version import check_version, entry_of
from annlmm.model.association import STATUS

Float = NDArray[np.float64]

# What a feature can have several of: the entry with their names, the prefix of their fields, and fields of `.var` that there are without
# and only with several.
_SEVERAL = {
    "differential": ("levels", "level", ("beta", "standard_error"), ()),
    "variance_components": ("members", "member", (), ("parameter",)),
}


def names_of(owner: str, slot: str = "var") -> tuple[str, ...]:
    """Field names without the key, in the order of the schema."""
    return tuple(field.name.removeprefix("{key}_") for field in fields_of(owner) if field.slot == slot)


def check_result_key(adata: AnnData, key: str, owner: str) -> None:
    """The key must be free, or that of an earlier result of the same function."""
    entry = adata.uns.get(key)
    if entry is not None and not (isinstance(entry, Mapping) and owner in entry):
        raise taken(adata, key)


def write_gene_results(
    adata: AnnData,
    owner: str,
    key: str,
    values: Mapping[str, Float],
    status: NDArray[np.int8],
    params: Mapping[str, Any],
    each: Mapping[str, Float] | None = None,
    several: tuple[str, ...] = (),
) -> None:
    """Write one row per feature of adata, and arrays where a feature has several values; what was there under the key goes.

    Parameters
    ----------
    values
        Arrays of n_vars by the names of the schema, all but the status.
    each
        Arrays of n_vars × levels (or members) by the names of the schema.
    several
        Names of the levels or members.
    """
    slots: dict[tuple[str, str], Any] = {("var", f"{key}_{name}"): value for name, value in values.items()}
    texts = pd.Categorical(np.array(STATUS, dtype=object)[status], categories=list(STATUS))
    slots[("var", f"{key}_status")] = pd.Series(texts, index=adata.var_names)
    slots |= {("varm", f"{key}_{name}"): value for name, value in (each or {}).items()}
    entry: dict[str, Any] = {owner: dict(params), "schema_version": SCHEMA_VERSION}
    if each:
        entry[_SEVERAL[owner][0]] = several
    slots[("uns", key)] = storable(entry)
    everything = [(slot, f"{key}_{name}") for slot in ("var", "varm") for name in names_of(owner, slot)]
    write_slots(adata, slots, remove=[place for place in everything if place not in slots])


def read_gene_results(adata: AnnData, owner: str, key: str, *, each: bool = False) -> pd.DataFrame:
    """One row per feature; with `each` one per feature and level of a factor or member of a family."""
    entry = entry_of(adata, key)
    if not isinstance(entry, Mapping) or owner not in entry:
        known = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and owner in v]
        raise KeyError(
            f"key={key!r}: no result of al.tl.{owner} there; run al.tl.{owner}(adata, ..., key_added={key!r}) first; {hint(key, known)}"
        )
    check_version(entry, key, owner)
    several, prefix, _, _ = _SEVERAL[owner]
    if each and several not in entry:
        raise ValueError(f"{several}=True: {_ALONE[several].format(key=key)}")
    slot = "varm" if each else "var"
    held = getattr(adata, slot)
    # Fields that this result has: some are absent where there are several, others where there are not.
    names = [name for name in names_of(owner, slot) if f"{key}_{name}" in held]
    gone = [name for name in _needed(owner, entry, slot) if name not in names]
    if gone:
        raise KeyError(
            f"key={key!r}: adata.{slot} lacks {', '.join(f'{key}_{n}' for n in gone[:3])}; run al.tl.{owner} again"
        )
    if not each:
        table = pd.DataFrame({name: held[f"{key}_{name}"] for name in names}, index=adata.var_names)
        table["status"] = pd.Categorical(table["status"], categories=list(STATUS))
        return table
    which = [str(name) for name in np.asarray(entry[several])]
    parts = []
    for j, name_of_one in enumerate(which):
        columns = {name.removeprefix(f"{prefix}_"): np.asarray(held[f"{key}_{name}"])[:, j] for name in names}
        part = pd.DataFrame(columns, index=adata.var_names)
        part.insert(0, prefix, name_of_one)
        parts.append(part)
    long = pd.concat(parts)
    long[prefix] = pd.Categorical(long[prefix], categories=which)
    return long


_ALONE = {
    "levels": "{key!r} tests one coefficient, which is in the table itself; levels are those of a factor with three or more",
    "members": "{key!r} was fitted under one kernel; members are those of a family",
}


def _needed(owner: str, entry: Mapping[str, Any], slot: str) -> tuple[str, ...]:
    several, _, without, only = _SEVERAL[owner]
    absent = without if several in entry else only
    return tuple(name for name in names_of(owner, slot) if not (slot == "var" and name in absent))
