"""Kernels in `.obsm`/`.obs` and `.uns`, and back to a `Basis` on the rows that are used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import SCHEMA_VERSION, check_memory, hint, received, storable, write_slots
from annlmm.model.basis import Basis, DenseBasis, GroupBasis, no_kernel, restrict_rows
from annlmm.model.eigen import Spectrum

Float = NDArray[np.float64]
Index = NDArray[np.intp]


def names_digest(names: pd.Index) -> str:
    """A digest of the observation names that does not depend on their order."""
    total = 0
    for name in names:
        total += int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=8).digest(), "little")
    return f"{total % 2**64:016x}"


# What an entry cannot be read without; a merge of `.uns` in a concatenation drops what differs between the parts.
_NEEDED = {"dense": ("eigenvalues", "centered", "n_obs", "probe"), "groups": ("groupby", "groups", "params")}


def _probe(u: Float, eigenvalues: Float) -> Float:
    """U(z + log s) for a fixed z: one value per row, which no foreign or edited row has."""
    z = np.random.default_rng(0).standard_normal(eigenvalues.size)
    return np.asarray(u @ (z + np.log(eigenvalues)))


def _belongs(probe: Float, stored: Float) -> bool:
    """Whether every row is one of those that the kernel was made of; all of them, if their number is the same."""
    # Eigenvectors that were rounded to float32 are off by 1e-8 of the largest value.
    tolerance = 1e-6 * float(np.abs(stored).max())
    if probe.size == stored.size:
        return bool((np.abs(np.sort(probe) - stored) <= tolerance).all())
    i = np.searchsorted(stored, probe)
    nearest = np.minimum(np.abs(np.r_[stored, np.inf][i] - probe), np.abs(np.r_[-np.inf, stored][i] - probe))
    return bool((nearest <= tolerance).all())


def write_dense_kernel(
    adata: AnnData,
    key: str,
    spectrum: Spectrum,
    *,
    method: str,
    params: Mapping[str, Any],
    centered: bool,
    trace_scale: float,
) -> None:
    """Write U to `.obsm[key]` and the rest to `.uns[key]`, replacing what was there."""
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
        "probe": np.sort(_probe(spectrum.u, spectrum.eigenvalues)),
        "schema_version": SCHEMA_VERSION,
    }
    write_slots(adata, {("obsm", key): np.ascontiguousarray(spectrum.u), ("uns", key): storable(entry)})


def write_group_kernel(
    adata: AnnData,
    key: str,
    groupby: str,
    groups: list[str],
    relatedness: Float | None,
    params: Mapping[str, Any],
    trace_scale: float,
) -> None:
    """Write the groups, not their eigenvectors, to `.uns[key]`."""
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
        "schema_version": SCHEMA_VERSION,
    }
    write_slots(adata, {("uns", key): storable(entry)}, remove=[("obsm", key)])


def kernel_entry(adata: AnnData, key: Any, argument: str = "kernel") -> dict[str, Any]:
    """The stored description of a kernel."""
    if not isinstance(key, str):
        raise TypeError(
            f"{argument}: must be the key of a kernel or None, received {received(key)}; sums of several kernels are not available"
        )
    entry = adata.uns.get(key)
    if entry is None:
        kernels = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and "kind" in v]
        raise KeyError(
            f"{argument}={key!r}: not in adata.uns; make one first, e.g. al.pp.kernel_group(adata, 'donor_id', key_added={key!r}); {hint(key, kernels)}"
        )
    if not isinstance(entry, Mapping) or "kind" not in entry:
        raise ValueError(
            f"{argument}={key!r}: adata.uns[{key!r}] is not a kernel of annlmm; give the kernel another key_added"
        )
    if int(entry.get("schema_version", 0)) > SCHEMA_VERSION:
        raise ValueError(
            f"{argument}={key!r}: written by a later annlmm (schema {int(entry['schema_version'])}); update annlmm"
        )
    lacking = [name for name in _NEEDED.get(str(entry["kind"]), ("kind",)) if name not in entry]
    if not lacking and entry["kind"] == "groups" and "relatedness" not in entry:
        lacking = ["relatedness"] if entry["params"].get("relatedness") or entry["params"].get("scale") else []
    if lacking or str(entry["kind"]) not in _NEEDED:
        raise ValueError(
            f"{argument}={key!r}: adata.uns[{key!r}] is incomplete ({', '.join(lacking) or 'kind'}; was it edited, or merged in a concatenation?); "
            "compute the kernel again"
        )
    return dict(entry)


def group_labels(adata: AnnData, groupby: str, argument: str = "groupby") -> pd.Series:
    """Labels as strings, missing ones as NaN."""
    if not isinstance(groupby, str):
        raise TypeError(f"{argument}: must be the name of a column of adata.obs, received {received(groupby)}")
    if groupby not in adata.obs.columns:
        raise KeyError(f"{argument}={groupby!r}: no such column in adata.obs; {hint(groupby, adata.obs.columns)}")
    column = adata.obs[groupby]
    codes, values = pd.factorize(column)
    names = [_label(value, f"{argument}={groupby!r}") for value in values]
    return pd.Series(
        np.array([*names, np.nan], dtype=object)[codes], index=column.index
    )  # the code of a missing one is −1


def _label(value: Any, name: str) -> str:
    """A group's name; whole numbers are written without a point, as which type they may be stored."""
    if not isinstance(value, (float, np.floating)):
        return str(value)
    if not float(value).is_integer():
        raise TypeError(
            f"{name}: holds fractional numbers (e.g. {float(value)}), not group labels; name a column of labels"
        )
    return str(int(value))


def usable_rows(adata: AnnData, key: str | None) -> NDArray[np.bool_]:
    """Rows for which the kernel has a value: all but those without a group label."""
    if key is None:
        return np.ones(adata.n_obs, dtype=bool)
    entry = kernel_entry(adata, key)
    if entry["kind"] == "groups":
        return np.asarray(group_labels(adata, str(entry["groupby"])).notna())
    return np.ones(adata.n_obs, dtype=bool)


def read_basis(adata: AnnData, key: str | None, rows: Index) -> Basis:
    """The eigenbasis of K[rows, rows], exactly, also where adata has been subset or permuted since."""
    if key is None:
        return no_kernel(rows.size)
    entry = kernel_entry(adata, key)
    if entry["kind"] == "groups":
        return _read_groups(adata, key, entry, rows)
    u, s = _dense_slots(adata, key, entry)
    exact = np.asarray(adata.obsm[key]).dtype == np.float64  # once rounded, U is no longer orthonormal
    if exact and rows.size == int(entry["n_obs"]) == adata.n_obs:
        return DenseBasis(np.asfortranarray(u), s, bool(entry["centered"]))
    return restrict_rows(u[rows], s, centered=bool(entry["centered"]))


def _dense_slots(adata: AnnData, key: str, entry: Mapping[str, Any]) -> tuple[Float, Float]:
    s = np.asarray(entry["eigenvalues"], dtype=np.float64)
    if key not in adata.obsm:
        raise KeyError(f"kernel={key!r}: adata.obsm[{key!r}] is gone; compute the kernel again")
    u = np.asarray(adata.obsm[key], dtype=np.float64)
    stale = f"kernel={key!r}: adata.obsm[{key!r}] does not belong to adata.uns[{key!r}]"
    remedy = "(was this AnnData concatenated, or its slots overwritten?); compute the kernel again"
    if u.ndim != 2 or u.shape[1] != s.size:
        raise ValueError(f"{stale}: {u.shape[-1]} eigenvectors and {s.size} eigenvalues {remedy}")
    if adata.n_obs > int(entry["n_obs"]):
        raise ValueError(f"{stale}: made of {int(entry['n_obs'])} observations, {adata.n_obs} are here {remedy}")
    if not (s > 0).all() or not _belongs(_probe(u, s), np.asarray(entry["probe"], dtype=np.float64)):
        raise ValueError(f"{stale}: its rows are not those that the kernel was made of {remedy}")
    return u, s


def _read_groups(adata: AnnData, key: str, entry: Mapping[str, Any], rows: Index) -> GroupBasis:
    labels = group_labels(adata, str(entry["groupby"])).iloc[rows]
    related = entry.get("relatedness")
    if related is None:
        return GroupBasis(pd.factorize(labels, sort=True)[0].astype(np.intp))
    groups = pd.Index([str(g) for g in np.asarray(entry["groups"])])
    codes = groups.get_indexer(pd.Index(labels))
    if (codes < 0).any():
        unknown = sorted(set(labels[codes < 0]))
        raise ValueError(
            f"kernel={key!r}: {len(unknown)} groups are not in its relatedness matrix ({', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}); compute the kernel again"
        )
    present, codes = np.unique(codes, return_inverse=True)
    return GroupBasis(codes.astype(np.intp), np.asarray(related, dtype=np.float64)[np.ix_(present, present)])


def read_kernel_matrix(adata: AnnData, key: str) -> pd.DataFrame:
    """K itself on all rows of adata."""
    kernel_entry(adata, key)
    rows = np.flatnonzero(usable_rows(adata, key))
    check_memory(rows.size, rows.size, "subset adata first")
    basis = read_basis(adata, key, rows)
    names = adata.obs_names[rows]
    if isinstance(basis, GroupBasis):
        related = np.eye(basis.counts.size) if basis.relatedness is None else basis.relatedness
        k = related[np.ix_(basis.codes, basis.codes)]
    else:
        u, s = basis.expand(np.eye(basis.rank)), basis.eigenvalues
        k = (u * s) @ u.T
    return pd.DataFrame((k + k.T) / 2, index=names, columns=names)
