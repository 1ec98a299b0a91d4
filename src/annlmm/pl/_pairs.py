"""What the plots of eQTLs read: the pairs of one gene, dosages, and expression per donor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from annlmm._slots.access import feature_matrix, hint, received

from ._read import to_float

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from annlmm._slots.pair import Donors


def read_pairs(expression: AnnData, key: str, gene: str, pairs: pd.DataFrame | None) -> pd.DataFrame:
    """
    Read the pairs of a gene.

    Parameters
    ----------
    expression
        After :func:`annlmm.tl.map_eqtl`.
    key
        Key of the results.
    gene
        Name of the gene.
    pairs
        A table to read instead of the one in `.uns`.

    Raises
    ------
    KeyError
        If `expression` has no such gene, or no such results.
    ValueError
        If the table has no pair of the gene.
    """
    check_gene(expression, gene)
    if pairs is None:
        entry = expression.uns.get(key)
        if not isinstance(entry, Mapping):
            raise KeyError(
                f"key={key!r}: no result of al.tl.map_eqtl there; run al.tl.map_eqtl(expression, genotype, key_added={key!r}) first"
            )
        pairs = entry["pairs"] if "pairs" in entry else _from_file(expression, key, gene)
    if not {"gene", "variant", "p_value"} <= set(pairs.columns):
        raise KeyError(
            f"pairs: must have columns gene, variant and p_value, received {', '.join(map(str, pairs.columns))}"
        )
    of_gene = pairs[(pairs["gene"] == gene).to_numpy()]
    if not len(of_gene):
        raise ValueError(
            f"gene={gene!r}: the table has no pair of it; it has no variant in its window, or none was kept"
        )
    return of_gene


def _from_file(expression: AnnData, key: str, gene: str) -> pd.DataFrame:
    """The pairs of a gene where they were written to a file."""
    from pathlib import Path

    from annlmm._slots.parquet import read_pairs as read_file

    output = stored_argument(expression, key, "output", None)
    if output is None:
        raise KeyError(f"key={key!r}: expression.uns[{key!r}] holds no pairs; run al.tl.map_eqtl again, or pass pairs=")
    return read_file(Path(output), [gene], None)


def check_gene(expression: AnnData, gene: str) -> None:
    """Refuse what is no name of a gene."""
    if not isinstance(gene, str):
        raise TypeError(f"gene: must be a name in expression.var_names, received {received(gene)}")
    if gene not in expression.var_names:
        raise KeyError(f"gene={gene!r}: not in expression.var_names; {hint(gene, expression.var_names)}")


def neg_log10(pairs: pd.DataFrame, column: str = "p_value") -> NDArray[np.float64]:
    """−log₁₀ p of each pair: stored, or computed; NaN where there is none."""
    if f"neg_log10_{column}" in pairs:
        return to_float(pairs[f"neg_log10_{column}"])
    if column not in pairs:
        raise KeyError(f"p_value={column!r}: the table has no such column; {hint(column, pairs.columns)}")
    with np.errstate(divide="ignore"):
        return -np.log10(to_float(pairs[column]))


def stored_argument(expression: AnnData, key: str, name: str, given: Any) -> Any:
    """An argument, or where it is None what the results under `key` were made with."""
    if given is not None:
        return given
    entry = expression.uns.get(key)
    params = entry.get("params") if isinstance(entry, Mapping) else None
    value = params.get(name) if isinstance(params, Mapping) else None
    return None if value is None else str(value)


def read_dosages(
    genotype: AnnData, layer: str | None, variants: NDArray[np.intp], donors: Donors
) -> NDArray[np.float64]:
    """Dosages of some variants (columns, in any order) for matched donors, NaN where missing (a negative code is missing)."""
    order = np.sort(variants)
    found = _columns(feature_matrix(genotype, layer), order)[donors.genotype_rows]
    found = found[:, np.searchsorted(order, variants)]
    found[~(found >= 0)] = np.nan
    return found


def donor_means(expression: AnnData, layer: str | None, gene: str, donors: Donors) -> NDArray[np.float64]:
    """Mean of a gene over the rows of each donor."""
    column = np.array([expression.var_names.get_loc(gene)], dtype=np.intp)
    values = _columns(feature_matrix(expression, layer), column)[donors.rows, 0]
    return np.bincount(donors.codes, weights=values, minlength=donors.counts.size) / donors.counts


def _columns(matrix: Any, columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """Some columns (increasing) of any array type."""
    part = matrix[:, columns]
    part = part.compute() if hasattr(part, "compute") else part
    return np.array(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64)
