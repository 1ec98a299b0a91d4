"""What the plots read from AnnData: -log10 p of one scan."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

# Functions that write under these keys unless they are told otherwise.
_WRITERS = {"de": "al.tl.differential(adata, term)", "varcomp": "al.tl.variance_components(adata)"}


def phenotype_names(adata: AnnData, key: str) -> list[str] | None:
    """Return the names of the phenotypes of `key`, or None when its results are columns of `.var`."""
    from annlmm._slots.access import check_adata

    check_adata(adata)
    if f"{key}_p_value" in adata.var or f"{key}_p_value" not in adata.varm:
        return None
    fit = adata.uns.get(key, {})
    if "phenotypes" not in fit:
        raise KeyError(
            f"key={key!r}: adata.varm[{key + '_p_value'!r}] has one column per phenotype, but "
            f"adata.uns[{key!r}]['phenotypes'] with their names is missing; run al.tl.associate(adata, key={key!r}) again"
        )
    return [str(name) for name in fit["phenotypes"]]


def read_neg_log10_p(adata: AnnData, key: str, phenotype: str | None = None) -> NDArray[np.float64]:
    """
    Read -log10 p of every feature, NaN where a feature was not tested.

    Parameters
    ----------
    adata
        Annotated data after :func:`annlmm.tl.associate`.
    key
        Key of the results.
    phenotype
        One of several phenotypes; None where there is one.

    Returns
    -------
    Array of shape (n_vars,).

    Raises
    ------
    KeyError
        If `adata` has no p-values under `key`, or `phenotype` is not among them.
    ValueError
        If there are several phenotypes and `phenotype` is None, or if no feature has a p-value.
    """
    if not isinstance(key, str):
        raise TypeError(f"key={key!r}: expected the name of one result (str), got {type(key).__name__}")
    names = phenotype_names(adata, key)
    if names is None:
        values = _from_var(adata, key, phenotype)
    else:
        values = _from_varm(adata, key, phenotype, names)
    warn_of_zeros(values, f"key={key!r}: {{}} features", stacklevel=4)
    values[~np.isfinite(values)] = np.nan
    if np.isnan(values).all():
        raise ValueError(
            f"key={key!r}: none of the {values.size} features has a p-value; adata.var[{key + '_status'!r}] says why"
        )
    return values


def _from_var(adata: AnnData, key: str, phenotype: str | None) -> NDArray[np.float64]:
    if f"{key}_p_value" not in adata.var:
        raise KeyError(
            f"key={key!r}: adata.var has no column {key + '_p_value'!r}; run {_WRITERS.get(key) or f'al.tl.associate(adata, key={key!r})'} first"
        )
    if phenotype is not None:
        fitted = _fitted_phenotype(adata, key)
        if phenotype != fitted:
            raise KeyError(
                f"phenotype={phenotype!r}: key={key!r} holds one phenotype"
                f"{'' if fitted is None else f' ({fitted!r})'}; leave phenotype=None"
            )
    field = f"{key}_neg_log10_p_value"
    if field in adata.var:
        return to_float(adata.var[field])
    return _neg_log10(to_float(adata.var[f"{key}_p_value"]))


def _from_varm(adata: AnnData, key: str, phenotype: str | None, names: list[str]) -> NDArray[np.float64]:
    column = one_of("phenotype", phenotype, names, f"key={key!r}")
    field = f"{key}_neg_log10_p_value"
    if field in adata.varm:
        return np.array(_column(adata.varm[field], column))
    return _neg_log10(_column(adata.varm[f"{key}_p_value"], column))


def one_of(argument: str, value: str | None, names: list[str], where: str) -> int:
    """The place of `value` among the names; None is the only one."""
    from annlmm._slots.access import hint

    if value is None and len(names) == 1:
        return 0
    if value is None:
        shown = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
        raise ValueError(
            f"{argument}=None: {where} has {len(names)} {argument}s ({shown}); choose one, e.g. {argument}={names[0]!r}"
        )
    if value not in names:
        raise KeyError(f"{argument}={value!r}: not among those of {where}; {hint(str(value), names)}")
    return names.index(value)


def warn_of_zeros(values: NDArray[np.float64], what: str, *, stacklevel: int) -> None:
    """A point at −log₁₀ p = ∞ would be dropped by matplotlib without a word; `what` has a place for the number."""
    n_zero = int(np.isposinf(values).sum())
    if n_zero:
        warnings.warn(
            f"{what.format(n_zero)} have p = 0 exactly, which has no place on a log axis; they are not drawn",
            UserWarning,
            stacklevel=stacklevel,
        )


def to_float(column: pd.Series[Any]) -> NDArray[np.float64]:
    """Copy a numeric column, NaN where a value is missing."""
    # Not Series.to_numpy: with na_value it builds the hash table of the names, seconds for ten million.
    return np.array(column.array.to_numpy(dtype=np.float64, na_value=np.nan))


def _column(values: Any, column: int) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)[:, column]


def _neg_log10(p: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return -np.log10(p)


def _fitted_phenotype(adata: AnnData, key: str) -> str | None:
    names = adata.uns.get(key, {}).get("phenotypes", ())
    return str(names[0]) if len(names) == 1 else None
