"""Look-ups with messages, views, and values that survive h5ad and zarr on both stacks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData, ImplicitModificationWarning
from numpy.typing import NDArray

from annlmm._settings import logger, settings
from annlmm._slots.lazy import is_lazy, load_annotations
from annlmm._slots.schema import fields_of

SCHEMA_VERSION = 1

_short = Repr()
_short.maxstring = _short.maxother = 80


def check_adata(adata: Any, argument: str = "adata") -> AnnData:
    if not isinstance(adata, AnnData):
        raise TypeError(f"{argument}: must be an AnnData, received {type(adata).__name__}")
    if adata.n_obs == 0:
        raise ValueError(f"{argument}: has no observations")
    if is_lazy(adata):
        load_annotations(adata)
    for axis in ("obs", "var"):
        columns = getattr(adata, axis).columns
        if not columns.is_unique:
            raise ValueError(
                f"{argument}.{axis}: two columns are named {columns[columns.duplicated()][0]!r}; rename one"
            )
    return adata


def target(adata: AnnData, copy: bool) -> AnnData:
    """What the results are written to: a copy, or the object itself; a view becomes actual, and the user is told."""
    if copy:
        return adata.copy()
    if adata.is_view:
        logger.warning(
            "adata is a view: the results are written to it, which makes it a copy; its parent is not changed"
        )
    return adata


def write_slots(adata: AnnData, slots: Mapping[tuple[str, str], Any], remove: Iterable[tuple[str, str]] = ()) -> None:
    """Write {(slot, key): value} at once; every value is complete before the first is written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        # A hundred columns, of ten scans, are no reason to copy the frame.
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
        remove = [(slot, key) for slot, key in remove if key in getattr(adata, slot)]
        frames = {slot: getattr(adata, slot).copy(deep=False) for slot in ("obs", "var")}
        touched = [(slot, key) for slot, key in [*remove, *slots] if slot not in frames]
        before = {(slot, key): getattr(adata, slot).get(key) for slot, key in touched}
        try:
            for slot, key in remove:
                del getattr(adata, slot)[key]
            for (slot, key), value in slots.items():
                getattr(adata, slot)[key] = value
        except BaseException:  # an interrupt leaves all of it or nothing
            adata.obs, adata.var = frames["obs"], frames["var"]
            for (slot, key), value in before.items():
                if value is not None:
                    getattr(adata, slot)[key] = value
                elif key in getattr(adata, slot):
                    del getattr(adata, slot)[key]
            raise


def received(value: Any) -> str:
    """A value as a message shows it: arrays and long lists are cut."""
    return f"{' '.join(_short.repr(value).split())} of type {type(value).__name__}"


def check_memory(rows: int, columns: int, remedy: str) -> None:
    """Refuse a dense matrix beyond `settings.kernel_memory`, before it is made."""
    needed = 8 * rows * columns
    if needed > settings.kernel_memory:
        raise MemoryError(
            f"a dense {rows} × {columns} matrix takes {_size(needed)}, more than al.settings.kernel_memory "
            f"({_size(settings.kernel_memory)}); {remedy}"
        )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**29 else f"{n_bytes / 2**20:.3g} MiB"


def check_key(key: Any, argument: str = "key_added") -> str:
    """A key that h5ad and zarr can store."""
    if not isinstance(key, str):
        raise TypeError(f"{argument}: must be a string, received {received(key)}")
    if not key or "/" in key or "." in key:
        raise ValueError(
            f"{argument}: must be a non-empty name without '/' or '.' (neither survives h5ad and zarr), received {key!r}"
        )
    return key


def check_missing_call(missing_call: Any) -> float | None:
    """A number, or None."""
    if missing_call is None:
        return None
    if isinstance(missing_call, bool) or not isinstance(missing_call, (int, float, np.number)):
        raise TypeError(
            f"missing_call: must be the number that stands for a missing call, such as -9, received {received(missing_call)}"
        )
    return float(missing_call)


def hint(name: str, known: Iterable[str]) -> str:
    """What the user may have meant; our own fields only where there is nothing else."""
    known = [str(k) for k in known if k is not None]  # anndata 0.13 lists X among the layers, as None
    own = own_names(known)
    known = [k for k in known if k not in own] or known
    close = get_close_matches(str(name), known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return f"known: {', '.join(map(repr, known[:10]))}{', …' if len(known) > 10 else ''}" if known else "there is none"


# Slots, the functions that write to them, and fields that each of them writes whatever was asked for.
_TOGETHER = (
    (("obs", "obsm"), ("fit_null",), ("_blup", "_residual", "_phenotype")),
    (
        ("var",),
        ("associate", "variance_components", "differential"),
        ("_neg_log10_p_value", "_p_value", "_p_adjusted", "_status"),
    ),
)


def own_names(names: Iterable[Any]) -> set[str]:
    """Those of our results among the names of columns: the fields of every key that has the ones that always come together.

    By name and not from `.uns`, which a subset or a concatenation may have lost.
    """
    present = {str(name) for name in names}
    own: set[str] = set()
    for slots, owners, always in _TOGETHER:
        fields = [f.name.removeprefix("{key}") for owner in owners for f in fields_of(owner) if f.slot in slots]
        keys = {name.removesuffix(always[0]) for name in present if name.endswith(always[0])}
        own |= {k + field for k in keys if all(k + one in present for one in always) for field in fields}
    return own & present


def boolean_mask(adata: AnnData, mask: Any, axis: str, argument: str) -> NDArray[np.bool_]:
    """A mask from the name of a boolean column, or a boolean array; None means everything."""
    frame: pd.DataFrame = getattr(adata, axis)
    size = len(frame)
    if mask is None:
        return np.ones(size, dtype=bool)
    values: Any = mask
    if isinstance(mask, str):
        if mask not in frame.columns:
            raise KeyError(f"{argument}={mask!r}: no such column in adata.{axis}; {hint(mask, frame.columns)}")
        values = frame[mask]
    elif isinstance(mask, pd.Series) and not mask.index.equals(frame.index):
        values = _by_name(mask, frame.index, axis, argument)
    if isinstance(values, pd.Series) and values.isna().any():
        raise ValueError(
            f"{argument}: {int(values.isna().sum())} of {size} values are missing; decide for them, e.g. with .fillna(False)"
        )
    array = np.asarray(values)
    if array.dtype == object and all(isinstance(v, (bool, np.bool_)) for v in array.ravel()):
        array = array.astype(bool)
    if array.dtype != bool:
        raise TypeError(
            f"{argument}: must be boolean, without missing values, received dtype {getattr(values, 'dtype', array.dtype)}; compare first, e.g. adata.{axis}['x'] == 'a', or adata.{axis}_names.isin([...]) for names"
        )
    if array.shape != (size,):
        raise ValueError(
            f"{argument}: must have {size} values, one per {'observation' if axis == 'obs' else 'feature'}, received shape {array.shape}"
        )
    if not array.any():
        raise ValueError(f"{argument}: selects nothing")
    return array


def _by_name(mask: pd.Series, names: pd.Index, axis: str, argument: str) -> pd.Series:
    """A Series in the order of `names`; every one of them must be there, once."""
    lacking = names[~names.isin(mask.index)]
    if len(lacking) or not mask.index.is_unique:
        why = f"lacks {len(lacking)} of {len(names)}, e.g. {lacking[0]!r}" if len(lacking) else "has duplicated names"
        raise ValueError(
            f"{argument}: a Series is matched to adata.{axis} by name, and its index {why}; align it, or pass its values with .to_numpy()"
        )
    return mask.reindex(names)


def feature_matrix(adata: AnnData, layer: str | None) -> Any:
    """`.X` or a layer, which must hold real numbers."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"layer={layer!r}: not in adata.layers; {hint(layer, adata.layers)}")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError("adata.X is None; name a layer")
    if isinstance(matrix, np.ma.MaskedArray):
        name = "adata.X" if layer is None else f"layer {layer!r}"
        raise TypeError(
            f"{name}: is a masked array, whose mask would be lost; make its masked values NaN, .filled(np.nan)"
        )
    name = "adata.X" if layer is None else f"layer {layer!r}"
    if matrix.dtype.kind not in "fiub":
        raise TypeError(f"{name}: must hold real numbers, received dtype {matrix.dtype}")
    if tuple(matrix.shape) != adata.shape:  # anndata does not compare them where the matrix stays in the file
        raise ValueError(
            f"{name}: stored as {tuple(matrix.shape)} for {adata.shape} names; the file is damaged, write it again"
        )
    return matrix


def numeric(values: Any, name: str) -> NDArray[np.float64]:
    """One column as float64 with NaN for missing; text, categories and dates are refused."""
    series = pd.Series(values)
    if isinstance(series.dtype, pd.CategoricalDtype) or not (
        pd.api.types.is_numeric_dtype(series.dtype) or pd.api.types.is_bool_dtype(series.dtype)
    ):
        if series.dtype == object:
            converted = pd.to_numeric(series, errors="coerce")
            if converted.notna().sum() == series.notna().sum() and not any(isinstance(v, str) for v in series):
                return np.asarray(converted.to_numpy(dtype=np.float64))
        parsed = pd.to_numeric(series.astype(object), errors="coerce")
        text = series.notna().any() and parsed.notna().sum() == series.notna().sum()
        remedy = "pd.to_numeric(column)" if text else "(column == 'level').astype(float)"
        raise TypeError(f"{name}: must be numeric, received dtype {series.dtype}; make numbers of it, e.g. {remedy}")
    if series.dtype.kind == "c":
        raise TypeError(f"{name}: must be real, received dtype {series.dtype}")
    return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))


def storable(value: Any) -> Any:
    """A value that h5ad and zarr round-trip on both stacks: None goes, sequences of names become string arrays."""
    if isinstance(value, Mapping):
        return {str(k): storable(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return (
            np.array([str(v) for v in value], dtype=object)
            if value and isinstance(value[0], str)
            else np.asarray(value)
        )
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    return value


# What tells the entries of `.uns` that are ours from each other.
_MARKS = {
    "kind": "a kernel",
    "beta_covariance": "a null model",
    "association": "results of associate",
    "variance_components": "results of variance_components",
    "differential": "results of differential",
    "pairs": "results of map_eqtl",
}


def taken(adata: AnnData, key: str) -> ValueError:
    """The error of a key whose entry of `.uns` is another function's, or someone else's."""
    entry = adata.uns[key]
    marks = [what for mark, what in _MARKS.items() if isinstance(entry, Mapping) and mark in entry]
    what = marks[0] if marks else "something else"
    return ValueError(f"key_added={key!r}: adata.uns[{key!r}] holds {what}; choose another key")
