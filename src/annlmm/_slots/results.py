"""Per-feature results to `.var` (or `.varm` for several phenotypes) and back to tidy tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import SCHEMA_VERSION, hint, storable, taken, write_slots
from annlmm._slots.schema import fields_of
from annlmm._slots.version import check_version, entry_of
from annlmm.model.association import STATUS, Association
from annlmm.model.hypothesis import TESTS

Float = NDArray[np.float64]


# Written only where γ is estimated again with the features.
REFIT_FIELDS = ("h_sq", "log_likelihood", "refit")


def association_fields(params: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Field names without the key, in the order of the schema: all, or those of an association with these `params`."""
    names = tuple(field.name.removeprefix("{key}_") for field in fields_of("associate") if field.slot == "var")
    if params is None:
        return names
    also = {f"{stem}_{test}" for test in np.asarray(params.get("also", ())) for stem in OTHER_TESTS}
    absent = set(REFIT_FIELDS) if str(params["variance"]) == "null" else set()
    return tuple(name for name in names if name not in absent and (_of_other_test(name) is None or name in also))


# Of a test that is not the first one asked for.
OTHER_TESTS = ("p_value", "neg_log10_p_value")


def _of_other_test(name: str) -> tuple[str, str] | None:
    """(attribute, test) of a field like `p_value_lrt`."""
    stem, _, test = name.rpartition("_")
    return (stem, test) if stem in OTHER_TESTS and test in TESTS else None


def adjust(p_value: Float) -> Float:
    """Benjamini–Hochberg over the finite p-values."""
    from scipy.stats import false_discovery_control

    adjusted = np.full_like(p_value, np.nan)
    tested = np.isfinite(p_value)
    if tested.any():
        adjusted[tested] = false_discovery_control(p_value[tested])
    return adjusted


def check_prefix(adata: AnnData, prefix: str, null_key: str) -> None:
    """The prefix must be that of the null model, of an earlier scan, or free."""
    entry = adata.uns.get(prefix)
    if prefix == null_key or entry is None:
        return
    if not isinstance(entry, Mapping) or "association" not in entry or "beta_covariance" in entry:
        raise taken(adata, prefix)


def write_association(
    adata: AnnData,
    prefix: str,
    tested: Mapping[str, Sequence[Association]],
    names: Sequence[str],
    params: Mapping[str, Any],
    *,
    null_key: str,
    loco_fits: pd.DataFrame | None = None,
) -> None:
    """Write the results of `associate`, the main test first; those of an earlier scan under the same prefix go."""
    results = next(iter(tested.values()))
    single = len(results) == 1
    slot, other = ("var", "varm") if single else ("varm", "var")
    slots: dict[tuple[str, str], Any] = {}
    written = association_fields({key: value for key, value in params.items() if value is not None})
    for name in written:
        if name == "status":
            texts = np.array(STATUS, dtype=object)[np.stack([result.status for result in results], axis=1)]
            first = pd.Categorical(texts[:, 0], categories=list(STATUS))
            value: Any = pd.Series(first, index=adata.var_names) if single else texts
        else:
            attribute, test = _of_other_test(name) or (name, None)
            columns = [
                adjust(result.p_value) if name == "p_adjusted" else getattr(result, attribute)
                for result in (results if test is None else tested[test])
            ]
            value = columns[0] if single else np.stack(columns, axis=1)
        slots[(slot, f"{prefix}_{name}")] = value
    entry = dict(adata.uns.get(prefix, {})) if prefix == null_key else {"phenotypes": list(names)}
    entry["schema_version"] = SCHEMA_VERSION
    entry["association"] = dict(params)
    entry.pop("loco_fits", None)
    if loco_fits is not None:
        entry["loco_fits"] = loco_fits
    slots[("uns", prefix)] = storable(entry)
    stale = [(other, f"{prefix}_{name}") for name in association_fields()]
    stale += [(slot, f"{prefix}_{name}") for name in association_fields() if name not in written]
    write_slots(adata, slots, remove=stale)


def read_association(adata: AnnData, key: str, phenotype: str | None = None) -> pd.DataFrame:
    """One row per feature (and phenotype)."""
    entry = entry_of(adata, key)
    if not isinstance(entry, Mapping) or "association" not in entry:
        known = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and "association" in v]
        raise KeyError(
            f"key={key!r}: no association there; run al.tl.associate(adata, key=...) first; {hint(key, known)}"
        )
    check_version(entry, key, "associate")
    phenotypes = np.asarray(entry.get("phenotypes", ()), dtype=object)
    names = [str(name) for name in phenotypes.ravel()]
    held = adata.varm.get(f"{key}_beta") if len(names) > 1 else None
    if (
        "variance" not in entry["association"]
        or not names
        or (held is not None and np.shape(held)[1:] != (len(names),))
    ):
        raise ValueError(
            f"key={key!r}: the parts of adata.uns[{key!r}] do not go together (was it edited?); run al.tl.associate again"
        )
    if phenotype is not None and phenotype not in names:
        raise KeyError(f"phenotype={phenotype!r}: not among those of key={key!r}; {hint(phenotype, names)}")
    fields = association_fields(entry["association"])
    slot = "var" if len(names) == 1 else "varm"
    gone = [f"{key}_{name}" for name in fields if f"{key}_{name}" not in getattr(adata, slot)]
    if gone:
        raise KeyError(f"key={key!r}: adata.{slot} lacks {', '.join(gone[:3])}; run al.tl.associate again")
    if len(names) == 1:
        table = pd.DataFrame({name: adata.var[f"{key}_{name}"] for name in fields}, index=adata.var_names)
        table["status"] = pd.Categorical(table["status"], categories=list(STATUS))
        return table
    tables = []
    for j, name in enumerate(names):
        if phenotype is not None and name != phenotype:
            continue
        table = pd.DataFrame(
            {field: np.asarray(adata.varm[f"{key}_{field}"])[:, j] for field in fields}, index=adata.var_names
        )
        table["status"] = pd.Categorical(table["status"], categories=list(STATUS))
        if phenotype is not None:
            return table
        table.insert(0, "phenotype", name)
        tables.append(table)
    long = pd.concat(tables)
    long["phenotype"] = pd.Categorical(long["phenotype"], categories=names)
    return long
