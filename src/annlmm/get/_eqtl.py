from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from annlmm._slots.access import check_adata, hint, received
from annlmm._slots.eqtl import LEVELS, named_in_var, read_eqtl, run_of, with_unknown_positions
from annlmm._slots.eqtl_interaction import check_interaction, of_same, prefixed
from annlmm._slots.parquet import read_pairs
from annlmm.model.eqtl_interaction import TESTS


def eqtl(
    adata: AnnData,
    key: str = "eqtl",
    *,
    level: str = "pair",
    gene: str | Sequence[str] | None = None,
    max_p_value: float | None = None,
    max_q_value: float | None = None,
    test: str = "additive",
    context: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Results of `al.tl.map_eqtl` as a table.

    Parameters
    ----------
    adata
        `expression`, with a result under `key`.
    key
        Of the result.
    level
        'pair': one row per gene and variant. 'gene': one row per gene, with its best variant. 'signal': one row per independent
        signal of a gene, after ``conditional=True``.
    gene
        One gene or several, by their names in ``adata.var_names``.
    max_p_value
        Rows with p-values up to this.
    max_q_value
        Rows of genes with q-values up to this. Of pairs these are all of the gene's, not its significant ones: add `max_p_value`.
    test
        Whose p-values and q-values these are: 'additive', or with ``interaction=`` also 'interaction' and 'joint'.
    context
        One of several contexts.
    path
        Of the file with the pairs, where they were written to one that has moved since.

    Returns
    -------
    DataFrame
        As described in `al.tl.map_eqtl`. `pos` is a nullable integer where a variant may be missing (``level="gene"``) or without a
        position. Chromosomes are written without "chr".

    Raises
    ------
    KeyError
        If there is no result under `key`, no such gene or context, or no test of an interaction.
    FileNotFoundError
        If the pairs are in a file that is gone.
    ValueError
        If that file is now of another run, or an argument is no valid choice.

    Examples
    --------
    >>> import annlmm as al
    >>> cells, genotype = al.datasets.sc_eqtl(30, 20, 12, n_vars=300, n_eqtl=4, n_secondary=0, n_interaction=0)
    >>> al.tl.map_eqtl(cells, genotype, "donor_id", layer="logcounts")
    >>> al.get.eqtl(cells, max_p_value=1e-3)["gene"].nunique() <= 12
    True
    """
    check_adata(adata)
    if level not in LEVELS:
        raise ValueError(f"level: must be one of {', '.join(map(repr, LEVELS))}, received {level!r}")
    if test not in TESTS:
        raise ValueError(f"test: must be one of {', '.join(map(repr, TESTS))}, received {test!r}")
    for name, value in (("max_p_value", max_p_value), ("max_q_value", max_q_value)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float, np.number))):
            raise TypeError(f"{name}: must be a number, received {received(value)}")
    if gene is not None and not isinstance(gene, Iterable):
        raise TypeError(f"gene: must be a name or a list of names, received {received(gene)}")
    table, genes = read_eqtl(adata, key, level, None if path is None else Path(path))
    check_interaction(genes, key, test, context)
    chosen = None
    if gene is not None:
        chosen = [gene] if isinstance(gene, str) else [str(name) for name in gene]
        for name in chosen:
            if name not in genes.index:
                remedy = named_in_var(adata, name) or hint(name, genes.index)
                raise KeyError(f"gene={name!r}: not among the genes of key={key!r}; {remedy}")
    found = genes if context is None else genes[genes["context"] == context]
    if max_q_value is not None:
        found = found[found[prefixed(test, "q_value")] <= max_q_value]
        chosen = list(found.index) if chosen is None else [name for name in chosen if name in set(found.index)]
    if isinstance(table, Path):
        # Filtered while it is read, where that is of the first p-value.
        table = read_pairs(table, chosen, max_p_value if test == "additive" else None, run_of(adata, key))
    if chosen is not None:
        table = table[table["gene"].isin(chosen)]
    if context is not None:
        table = table[table["context"] == context]
    if max_q_value is not None and "context" in table:
        table = table[of_same(table, found)]
    if max_p_value is not None:
        table = table[table[prefixed(test, "p_value")] <= max_p_value]
    table = with_unknown_positions(table, always=level == "gene")
    return table if level == "gene" else table.reset_index(drop=True)
