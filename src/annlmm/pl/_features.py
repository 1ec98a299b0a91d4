"""Features that a plot marks or names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from annlmm._slots.access import hint

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray


def read_highlight(
    adata: AnnData, highlight: str | Sequence[str] | None, gene_symbols: str | None = None
) -> NDArray[np.bool_]:
    """Which features are meant by names or by a boolean column of `.var`, shape (n_vars,)."""
    if highlight is None:
        return np.zeros(adata.n_vars, dtype=bool)
    if isinstance(highlight, str) and highlight in adata.var:
        column = adata.var[highlight]
        if column.dtype not in ("bool", "boolean"):
            raise TypeError(
                f"highlight={highlight!r}: adata.var[{highlight!r}] has dtype {column.dtype}; "
                f"expected a boolean column or a list of names"
            )
        return np.array(column.to_numpy(dtype=bool, na_value=False))
    mask = np.zeros(adata.n_vars, dtype=bool)
    remedy = "pass names of features or a boolean column of adata.var"
    mask[find_names(adata, highlight, "highlight", remedy, gene_symbols)] = True
    return mask


def find_names(
    adata: AnnData, names: str | Sequence[str], argument: str, remedy: str, gene_symbols: str | None = None
) -> NDArray[np.intp]:
    """Places of features in `.var`, in the order in which they are named; of a symbol, all that have it."""
    names = [names] if isinstance(names, str) else list(names)
    if gene_symbols is not None:
        of_symbol: dict[str, list[int]] = {}
        for place, symbol in enumerate(adata.var[gene_symbols].astype(object)):
            of_symbol.setdefault(symbol, []).append(place)
        own = {name: adata.var_names.get_indexer_for([name]).tolist() for name in names if name not in of_symbol}
        found = [of_symbol.get(name, own.get(name, [-1])) for name in names]
        places = np.array([place for part in found for place in part], dtype=np.intp)
        absent = [name for name in own if own[name][0] < 0]
    else:
        places = adata.var_names.get_indexer_for(names)
        absent = [name for name in names if name not in adata.var_names]
    if absent:
        where = f"adata.var[{gene_symbols!r}] or " if gene_symbols is not None else ""
        shown = ", ".join(map(repr, absent[:5])) + (", …" if len(absent) > 5 else "")
        column = None if gene_symbols is not None else column_with(adata.var, absent[0])
        if column is not None:
            remedy = f"{absent[0]!r} is in adata.var[{column!r}]: pass gene_symbols={column!r}"
        raise KeyError(
            f"{argument}: {len(absent)} of {len(names)} names are not in {where}adata.var_names: {shown}; {remedy}"
        )
    return np.asarray(places, dtype=np.intp)


def check_n_labels(n_labels: Any) -> int:
    """A whole number; below 0 counts as none."""
    if isinstance(n_labels, bool) or not isinstance(n_labels, (int, np.integer)):
        raise TypeError(f"n_labels: must be a whole number, received {n_labels!r}")
    return max(int(n_labels), 0)


def column_with(var: pd.DataFrame, name: object) -> str | None:
    """The first column of text that holds a name; None where there is none."""
    import pandas as pd

    for column in var.columns:
        values = var[column]
        text = isinstance(values.dtype, (pd.CategoricalDtype, pd.StringDtype)) or values.dtype == object
        if text and values.astype(object).isin([name]).any():
            return str(column)
    return None


def check_symbols(adata: AnnData, gene_symbols: str | None, argument: str = "adata") -> None:
    """Refuse a column of symbols that does not exist."""
    if gene_symbols is not None and gene_symbols not in adata.var:
        raise KeyError(
            f"gene_symbols={gene_symbols!r}: no such column in {argument}.var; {hint(gene_symbols, adata.var.columns)}"
        )


def label_column(adata: AnnData, labels: str | None, gene_symbols: str | None) -> str | None:
    """The column that labels are taken from; refuse one that does not exist."""
    check_symbols(adata, gene_symbols)
    if labels is None:
        return gene_symbols
    if labels not in adata.var:
        raise KeyError(
            f"labels={labels!r}: adata.var has no such column; name one, or leave labels=None for adata.var_names"
        )
    return labels


def label_texts(adata: AnnData, rows: NDArray[np.intp], labels: str | None) -> list[str]:
    """Texts of some features: those of a column, names where it is missing or None."""
    texts = [str(name) for name in adata.var_names[rows]]
    if labels is None:
        return texts
    column = adata.var[labels].iloc[rows]
    return [
        name if missing or str(text).strip() in ("", ".") else str(text)
        for text, missing, name in zip(column, column.isna(), texts, strict=True)
    ]
