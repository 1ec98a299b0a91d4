"""Kernels in `.obsm`/`.obs` and `.uns` to a `Basis` on the rows that are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import check_memory, hint, received
from annlmm._slots.version import check_version
from annlmm.model.basis import Basis, DenseBasis, GroupBasis, no_kernel, restrict_rows

Float = NDArray[np.float64]
Index = NDArray[np.intp]


# What an entry cannot be read without; a merge of `.uns` in a concatenation drops what differs between the parts.
_NEEDED = {
    "dense": ("eigenvalues", "centered", "n_obs", "probe"),
    "groups": ("groupby", "groups", "params"),
    "family": ("members", "parameter", "params"),
}


def probe(u: Float, eigenvalues: Float) -> Float:
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


@dataclass(frozen=True)
class Family:
    """Kernels that differ in one parameter.

    Attributes
    ----------
    members
        Their keys.
    parameter
        The name of what differs: `length_scale`, `diffusion_time`, `rho`.
    values
        Its value in each of them.
    """

    members: tuple[str, ...]
    parameter: str
    values: Float


def read_family(adata: AnnData, key: Any, argument: str = "kernel") -> Family | None:
    """The family under a key; None where there is a single kernel."""
    entry = adata.uns.get(key) if isinstance(key, str) else None
    if not isinstance(entry, Mapping) or str(entry.get("kind")) != "family":
        kernel_entry(adata, key, argument)
        return None
    _check_entry(entry, key, argument)
    family = _family(entry)
    lacking = sorted(set(family.members) - set(own_members(adata, key, entry)))
    if lacking:
        raise ValueError(
            f"{argument}={key!r}: a family of {len(family.members)} kernels, of which {', '.join(map(repr, lacking))} "
            f"{'is' if len(lacking) == 1 else 'are'} gone or replaced; compute the family again"
        )
    return family


def own_members(adata: AnnData, key: str, entry: Mapping[str, Any]) -> list[str]:
    """The members of a family that are still here."""
    listed = [str(name) for name in np.asarray(entry["members"])] if "members" in entry else []
    return [name for name in listed if family_of(adata.uns.get(name)) == key]


def family_of(entry: Any) -> str | None:
    return str(entry["family"]) if isinstance(entry, Mapping) and "family" in entry else None


def _family(entry: Mapping[str, Any]) -> Family:
    parameter = str(entry["parameter"])
    values = np.asarray(entry["params"][parameter], dtype=np.float64)
    return Family(tuple(str(name) for name in np.asarray(entry["members"])), parameter, values)


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
    _check_entry(entry, key, argument)
    if entry["kind"] == "family":
        family = _family(entry)
        listed = ", ".join(f"{name!r} ({value:.4g})" for name, value in zip(family.members, family.values, strict=True))
        raise ValueError(
            f"{argument}={key!r}: is a family of {len(family.members)} kernels, and one is needed; name it by its {family.parameter}: {listed}"
        )
    return dict(entry)


def _check_entry(entry: Mapping[str, Any], key: str, argument: str) -> None:
    check_version(entry, key, "kernel", argument)
    lacking = [name for name in _NEEDED.get(str(entry["kind"]), ("kind",)) if name not in entry]
    if not lacking and entry["kind"] == "groups" and "relatedness" not in entry:
        lacking = ["relatedness"] if entry["params"].get("relatedness") or entry["params"].get("scale") else []
    if lacking or str(entry["kind"]) not in _NEEDED:
        raise ValueError(
            f"{argument}={key!r}: adata.uns[{key!r}] is incomplete ({', '.join(lacking) or 'kind'}; was it edited, or merged in a concatenation?); "
            "compute the kernel again"
        )
    if not _agree(entry):
        raise ValueError(
            f"{argument}={key!r}: the parts of adata.uns[{key!r}] do not go together (was it edited?); compute the kernel again"
        )


def _agree(entry: Mapping[str, Any]) -> bool:
    """Lengths that must be equal are."""
    kind = str(entry["kind"])
    if kind == "dense":
        return np.ndim(entry["eigenvalues"]) == 1 and np.shape(entry["probe"]) == (int(entry["n_obs"]),)
    if kind == "family":
        values = entry["params"].get(str(entry["parameter"]))
        return (
            isinstance(values, np.ndarray) and values.dtype.kind in "fiu" and values.shape == np.shape(entry["members"])
        )
    related, groups = entry.get("relatedness"), pd.Index(np.asarray(entry["groups"]))
    size = len(groups)
    return related is None or (
        groups.is_unique and np.shape(related) == (size, size) and bool(np.isfinite(related).all())
    )


def group_labels(adata: AnnData, groupby: str, argument: str = "groupby", name: str = "adata") -> pd.Series:
    """Labels as strings, missing ones as NaN; `name` is what the caller calls `adata`."""
    if not isinstance(groupby, str):
        raise TypeError(f"{argument}: must be the name of a column of {name}.obs, received {received(groupby)}")
    if groupby not in adata.obs.columns:
        raise KeyError(f"{argument}={groupby!r}: no such column in {name}.obs; {hint(groupby, adata.obs.columns)}")
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
        return DenseBasis(u, s, bool(entry["centered"]))
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
    if not (s > 0).all() or not _belongs(probe(u, s), np.asarray(entry["probe"], dtype=np.float64)):
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


def read_kernel_matrix(adata: AnnData, key: str, argument: str = "kernel") -> pd.DataFrame:
    """K itself on all rows of adata."""
    kernel_entry(adata, key, argument)
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
