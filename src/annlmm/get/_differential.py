from __future__ import annotations

import pandas as pd
from anndata import AnnData

from annlmm._slots.access import check_adata
from annlmm._slots.gene_results import read_gene_results


def differential(adata: AnnData, key: str = "de", *, levels: bool = False) -> pd.DataFrame:
    """Results of `al.tl.differential` as a table.

    Parameters
    ----------
    adata
        With a result under `key`.
    key
        Its prefix.
    levels
        The levels of a factor that was tested by F, each against the reference, in long form with a column `level`.

    Returns
    -------
    DataFrame
        Indexed by the features, in the order of `.var`: beta and standard_error (unless several levels were tested by F),
        statistic (t or F), df, p_value, neg_log10_p_value, p_adjusted, h_sq, status. With `levels`: level, beta,
        standard_error, statistic (t), df, p_value.

    Raises
    ------
    KeyError
        If there is no result under `key`.
    ValueError
        If levels are asked for and one coefficient was tested.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.donors(n_donors=8, n_genes=30)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> al.tl.differential(adata, "condition", layer="logcounts")
    >>> al.get.differential(adata).shape
    (30, 9)
    """
    return read_gene_results(check_adata(adata), "differential", key, each=levels)
