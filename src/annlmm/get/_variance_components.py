from __future__ import annotations

import pandas as pd
from anndata import AnnData

from annlmm._slots.access import check_adata
from annlmm._slots.gene_results import read_gene_results


def variance_components(adata: AnnData, key: str = "varcomp", *, members: bool = False) -> pd.DataFrame:
    """Results of `al.tl.variance_components` as a table.

    Parameters
    ----------
    adata
        With variance components under `key`.
    key
        Their prefix.
    members
        Of a family of kernels each member by itself, in long form with a column `member`.

    Returns
    -------
    DataFrame
        Indexed by the features, in the order of `.var`: sigma_sq, tau_sq, h_sq, h_sq_standard_error, pve, log_likelihood, parameter (of a family),
        p_value, neg_log10_p_value, p_adjusted, status. With `members`: member, log_likelihood, p_value.

    Raises
    ------
    KeyError
        If there are none under `key`.
    ValueError
        If members are asked for and there was one kernel.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.donors(n_donors=8, n_genes=30)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> al.tl.variance_components(adata, layer="logcounts")
    >>> al.get.variance_components(adata).shape
    (30, 10)
    """
    return read_gene_results(check_adata(adata), "variance_components", key, each=members)
