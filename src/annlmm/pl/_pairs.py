"""What the plots of eQTLs read: the pairs of one gene, dosages, and expression per donor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from annlmm._slots.access import check_adata, feature_matrix, hint, received

from ._features import check_symbols, column_with, label_texts
from ._read import one_of, to_float
from ._style import elided, plain

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from annlmm._slots.pair import Donors


class NoPairError(ValueError):
    """The table has no pair of the gene."""


def read_pairs(
    expression: AnnData, key: str, gene: str, pairs: pd.DataFrame | None, context: str | None
) -> tuple[pd.DataFrame, str | None]:
    """
    Read the pairs of a gene, of one context.

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
    context
        One of several contexts; None where there is one or none.

    Returns
    -------
    The pairs, and the name of their context (None where there is none).

    Raises
    ------
    KeyError
        If there are no such results, or no such context.
    ValueError
        If the table has no pair of the gene, or several contexts of which none is named.
    """
    table = "the table" if pairs is not None else f"key={key!r}"
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
        raise NoPairError(
            f"gene={gene!r}: the table has no pair of it; it has no variant in its window, or none was kept"
        )
    return _of_context(of_gene, table, context)


def _of_context(pairs: pd.DataFrame, table: str, context: str | None) -> tuple[pd.DataFrame, str | None]:
    if "context" not in pairs:
        if context is not None:
            raise KeyError(f"context={context!r}: {table} has no contexts; run al.tl.map_eqtl with interaction=")
        return pairs, None
    known = [str(name) for name in pairs["context"].astype(object).unique()]
    context = known[one_of("context", context, known, table)]
    return pairs[(pairs["context"].astype(str) == context).to_numpy()], context


def p_label(p_value: str = "p_value", context: str | None = None) -> str:
    r"""
    Label the axis of −log₁₀ p, with the test and the context where there are several.

    Examples
    --------
    >>> p_label("interaction_p_value", "cond")
    '$-\\log_{10}\\,p$ (interaction,\xa0cond)'
    """
    test = p_value.removesuffix("p_value").rstrip("_") or ("additive" if context is not None else "")
    of = ",\u00a0".join(plain(elided(part)) for part in (test, context) if part)
    return r"$-\log_{10}\,p$" + (f" ({of})" if of else "")


def _from_file(expression: AnnData, key: str, gene: str) -> pd.DataFrame:
    """The pairs of a gene where they were written to a file."""
    from pathlib import Path

    from annlmm._slots.eqtl import run_of
    from annlmm._slots.parquet import read_pairs as read_file

    output = stored_argument(expression, key, "output", None)
    if output is None:
        raise KeyError(f"key={key!r}: expression.uns[{key!r}] holds no pairs; run al.tl.map_eqtl again, or pass pairs=")
    return read_file(Path(output), [gene], None, run_of(expression, key))


def find_gene(expression: AnnData, gene: str, gene_symbols: str | None) -> tuple[str, str]:
    """The gene's name in `.var_names`, and how it is shown: by its symbol where there is a column of these."""
    check_adata(expression, "expression")
    check_symbols(expression, gene_symbols, "expression")
    names = expression.var_names
    if not isinstance(gene, str):
        raise TypeError(f"gene: must be a name in expression.var_names, received {received(gene)}")
    if gene_symbols is None:
        if gene not in names:
            column = column_with(expression.var, gene)
            remedy = (
                hint(gene, names)
                if column is None
                else f"it is in expression.var[{column!r}]: pass gene_symbols={column!r}"
            )
            raise KeyError(f"gene={gene!r}: not in expression.var_names; {remedy}")
        return gene, gene
    symbols = expression.var[gene_symbols].astype(object)
    own = [str(name) for name in names[symbols.isin([gene]).to_numpy()]]
    if len(own) > 1:
        shown = ", ".join(map(repr, own[:5])) + (", …" if len(own) > 5 else "")
        raise ValueError(
            f"gene={gene!r}: {len(own)} genes have it in expression.var[{gene_symbols!r}] ({shown}); pass one of these names"
        )
    if own:
        return own[0], gene
    if gene not in names:
        known = symbols.dropna().astype(str)
        raise KeyError(
            f"gene={gene!r}: neither in expression.var[{gene_symbols!r}] nor in expression.var_names; {hint(gene, known)}"
        )
    place = np.array([names.get_loc(gene)], dtype=np.intp)
    return gene, label_texts(expression, place, gene_symbols)[0]


def neg_log10(pairs: pd.DataFrame, column: str = "p_value") -> NDArray[np.float64]:
    """−log₁₀ p of each pair: stored, or computed; NaN where there is none."""
    if f"neg_log10_{column}" in pairs:
        return to_float(pairs[f"neg_log10_{column}"])
    if column not in pairs:
        raise KeyError(f"p_value={column!r}: the table has no such column; {hint(column, pairs.columns)}")
    with np.errstate(divide="ignore"):
        return -np.log10(to_float(pairs[column]))


def stored_argument(expression: AnnData, key: str, name: str, given: Any, field: str = "params") -> Any:
    """An argument, or where it is None what the results under `key` were made with."""
    if given is not None:
        return given
    entry = expression.uns.get(key)
    params = entry.get(field) if isinstance(entry, Mapping) else None
    value = params.get(name) if isinstance(params, Mapping) else None
    return None if value is None else str(value)


def read_dosages(
    genotype: AnnData, layer: str | None, variants: NDArray[np.intp], donors: Donors
) -> NDArray[np.float64]:
    """Dosages of some variants (columns, in any order) for matched donors, NaN where missing (a negative code is missing)."""
    order = np.sort(variants)
    found = read_columns(feature_matrix(genotype, layer), order)[donors.genotype_rows]
    found = found[:, np.searchsorted(order, variants)]
    found[~(found >= 0)] = np.nan
    return found


def donor_means(expression: AnnData, layer: str | None, gene: str, donors: Donors) -> NDArray[np.float64]:
    """Mean of a gene over the rows of each donor."""
    column = np.array([expression.var_names.get_loc(gene)], dtype=np.intp)
    values = read_columns(feature_matrix(expression, layer), column)[donors.rows, 0]
    return np.bincount(donors.codes, weights=values, minlength=donors.counts.size) / donors.counts


def read_columns(matrix: Any, columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """Some columns (increasing) of any array type."""
    part = matrix[:, columns]
    part = part.compute() if hasattr(part, "compute") else part
    return np.array(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64)
