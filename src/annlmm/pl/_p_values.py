"""P-values of any table, for the plots that need nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from annlmm._slots.access import hint, received

from ._read import phenotype_names, read_neg_log10_p, to_float, warn_of_zeros

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    Series = tuple[list[str | None], list[NDArray[np.float64]]]


_MOST_SERIES = 10


def read_series(data: Any, key: str | Sequence[str] | None, phenotype: str | Sequence[str] | None) -> Series:
    """
    Read -log10 p of one or several series, each with its name (None where one needs no name).

    Parameters
    ----------
    data
        AnnData, DataFrame, mapping of names to p-values, or p-values.
    key
        Keys of results in AnnData, columns of a DataFrame.
    phenotype
        Phenotypes of results in AnnData.
    """
    import pandas as pd
    from anndata import AnnData

    if isinstance(data, AnnData):
        return _from_adata(data, "lmm" if key is None else key, phenotype)
    if phenotype is not None:
        raise ValueError(f"phenotype={phenotype!r}: only results in AnnData have phenotypes; leave phenotype=None")
    if isinstance(data, pd.DataFrame):
        columns = ["p_value"] if key is None else [key] if isinstance(key, str) else list(key)
        if not columns:
            raise ValueError("key=[]: expected at least one column of p-values")
        _check_count("key", columns)
        series = [_from_table(data, column) for column in columns]
        return [None] if len(columns) == 1 else list(columns), series
    if key is not None:
        raise ValueError(f"key={key!r}: names results in AnnData or columns of a DataFrame; leave key=None")
    if isinstance(data, Mapping):
        if not data:
            raise ValueError("received an empty dict; expected {name: p-values}")
        _check_count("p-values", list(data))
        return [str(name) for name in data], [check_p_values(p, f"{str(name)!r}") for name, p in data.items()]
    return [None], [check_p_values(data, "p-values")]


def _from_adata(adata: AnnData, key: str | Sequence[str], phenotype: str | Sequence[str] | None) -> Series:
    keys = [key] if isinstance(key, str) else list(key)
    if not keys:
        raise ValueError("key=[]: expected at least one key of results")
    wanted: list[tuple[str, str | None]] = []
    for one in keys:
        if phenotype is None:
            in_key: Sequence[str | None] = phenotype_names(adata, one) or [None]
        else:
            in_key = [phenotype] if isinstance(phenotype, str) else list(phenotype)
        wanted += [(one, name) for name in in_key]
    _check_count("key" if len(keys) > _MOST_SERIES else f"phenotype={phenotype!r}", wanted)
    series = []
    for one, name in wanted:
        values = read_neg_log10_p(adata, one, name)
        series.append(values[np.isfinite(values)])
    if len(keys) == 1:
        return [name for _, name in wanted], series
    several = {one for one, _ in wanted if sum(one == other for other, _ in wanted) > 1}
    return [f"{one}, {name}" if one in several else one for one, name in wanted], series


def _check_count(argument: str, series: Sequence[Any]) -> None:
    if len(series) > _MOST_SERIES:
        raise ValueError(
            f"{argument}: {len(series)} series in one picture cannot be told apart; choose at most {_MOST_SERIES}"
        )


def _from_table(table: Any, column: str) -> NDArray[np.float64]:
    if column not in table:
        raise KeyError(f"key={column!r}: the table has no such column; {hint(str(column), table.columns)}")
    exact = f"neg_log10_{column}"
    if exact in table:
        values = to_float(table[exact])
        return _drawable(values, f"column {column!r}")
    return check_p_values(table[column], f"column {column!r}")


def check_p_values(p: Any, what: str) -> NDArray[np.float64]:
    """
    Return -log10 p of p-values, without the missing ones.

    Examples
    --------
    >>> check_p_values([0.1, float("nan"), 1.0], "p")
    array([1., 0.])
    """
    import pandas as pd

    try:
        values = to_float(p) if isinstance(p, pd.Series) else np.asarray(p, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what}: expected AnnData, a table, or numbers in [0, 1], received {received(p)}") from error
    if values.ndim != 1:
        raise ValueError(
            f"{what}: expected one dimension, received shape {values.shape}; pass a dict of columns, {{name: p-values}}"
        )
    wrong = (values < 0.0) | (values > 1.0)
    if wrong.any():
        raise ValueError(
            f"{what}: {int(wrong.sum())} values are outside [0, 1], e.g. {values[wrong][0]:g}; expected p, not −log₁₀ p or a statistic"
        )
    with np.errstate(divide="ignore"):
        return _drawable(-np.log10(values) + 0.0, what)


def _drawable(values: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    warn_of_zeros(values, f"{what}: {{}}", stacklevel=6)
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError(f"{what}: holds no p-value above 0")
    return values
