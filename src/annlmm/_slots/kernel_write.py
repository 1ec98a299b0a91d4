"""Kernels and families of kernels to `.obsm` and `.uns`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import SCHEMA_VERSION, check_key, storable, write_slots
from annlmm._slots.kernel import family_of, own_members, probe
from annlmm.model.eigen import Spectrum

Float = NDArray[np.float64]
Slots = dict[tuple[str, str], Any]


def names_digest(names: pd.Index) -> str:
    """A digest of the observation names that does not depend on their order."""
    total = 0
    for name in names:
        total += int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=8).digest(), "little")
    return f"{total % 2**64:016x}"


def dense_slots(
    adata: AnnData,
    key: str,
    spectrum: Spectrum,
    *,
    method: str,
    params: Mapping[str, Any],
    centered: bool,
    trace_scale: float,
    family: str | None = None,
) -> Slots:
    """U for `.obsm[key]` and the rest for `.uns[key]`."""
    entry = {
        "kind": "dense",
        "method": method,
        "params": dict(params),
        "eigenvalues": spectrum.eigenvalues,
        "centered": centered,
        "trace_scale": trace_scale,
        "explained": spectrum.explained,
        "n_clipped": spectrum.n_clipped,
        "n_obs": adata.n_obs,
        "digest": names_digest(adata.obs_names),
        "probe": np.sort(probe(spectrum.u, spectrum.eigenvalues)),
        "family": family,
        "schema_version": SCHEMA_VERSION,
    }
    return {("obsm", key): np.ascontiguousarray(spectrum.u), ("uns", key): storable(entry)}


def group_slots(
    adata: AnnData,
    key: str,
    groupby: str,
    groups: list[str],
    relatedness: Float | None,
    params: Mapping[str, Any],
    trace_scale: float,
    family: str | None = None,
) -> Slots:
    """The groups, not their eigenvectors, for `.uns[key]`."""
    entry = {
        "kind": "groups",
        "method": "group",
        "params": dict(params),
        "groupby": groupby,
        "groups": groups,
        "relatedness": relatedness,
        "centered": False,
        "trace_scale": trace_scale,
        "n_obs": adata.n_obs,
        "family": family,
        "schema_version": SCHEMA_VERSION,
    }
    return {("uns", key): storable(entry)}


def family_slots(
    adata: AnnData, key: str, members: list[Slots], *, method: str, parameter: str, params: Mapping[str, Any]
) -> Slots:
    """Kernels that differ in one parameter, and for `.uns[key]` their list."""
    entry = {
        "kind": "family",
        "method": method,
        "params": dict(params),
        "parameter": parameter,
        "members": [member_key(key, i) for i in range(len(members))],
        "n_obs": adata.n_obs,
        "schema_version": SCHEMA_VERSION,
    }
    return {slot: value for member in members for slot, value in member.items()} | {("uns", key): storable(entry)}


def member_key(key: str, i: int) -> str:
    """The key of a family's i-th kernel."""
    return f"{key}_{i}"


def write_kernel(adata: AnnData, key: str, slots: Slots) -> None:
    """Write a kernel or a family in the place of what was under its key, the members of a family included."""
    before = adata.uns.get(key)
    gone = [key, *(own_members(adata, key, before) if isinstance(before, Mapping) else ())]
    gone += [member for slot, member in slots if slot == "uns"]
    stale = [(slot, name) for name in dict.fromkeys(gone) for slot in ("obsm", "uns") if (slot, name) not in slots]
    write_slots(adata, slots, remove=stale)


def check_kernel_key(adata: AnnData, key: str, n_members: int = 0) -> str:
    """The key, and those of the members of a family, must not be that of something else in `.uns` or `.obsm`."""
    check_key(key)
    for name in (key, *(member_key(key, i) for i in range(n_members))):
        entry = adata.uns.get(name)
        what = f"key_added={key!r}: " + (f"its member {name!r} is taken; " if name != key else "")
        if entry is not None and not (isinstance(entry, Mapping) and "kind" in entry):
            raise ValueError(f"{what}adata.uns[{name!r}] holds something else; choose another key")
        if name in adata.obsm and entry is None:
            raise ValueError(f"{what}adata.obsm[{name!r}] holds something else; choose another key")
        if name != key and entry is not None and family_of(entry) != key:
            raise ValueError(f"{what}adata.uns[{name!r}] is a kernel of its own; choose another key")
    return key
