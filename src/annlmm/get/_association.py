from __future__ import annotations

import pandas as pd
from anndata import AnnData

from annlmm._slots.access import check_adata
from annlmm._slots.results import read_association


def association(adata: AnnData, key: str = "lmm", *, phenotype: str | None = None) -> pd.DataFrame:
    """Results of `al.tl.associate` as a table.

    Parameters
    ----------
    adata
        With an association under `key`.
    key
        Its prefix.
    phenotype
        One of several phenotypes; all of them, in long form with a column `phenotype`, if None.

    Returns
    -------
    DataFrame
        Indexed by the features, in the order of `.var`: beta, standard_error, statistic, df, chi_sq, sigma_sq, tau_sq, p_value,
        neg_log10_p_value, p_adjusted, status; h_sq, log_likelihood and refit where γ was estimated again, and the p-values of
        further tests (``p_value_lrt``, …) where several were asked for.

    Raises
    ------
    KeyError
        If there is no association under `key`, or no such phenotype in it.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.gwas_cohort(n_obs=100, n_vars=50)
    >>> al.tl.fit_null(adata, "phenotype", kernel=None)
    >>> al.tl.associate(adata)
    >>> al.get.association(adata).shape
    (50, 11)
    """
    return read_association(check_adata(adata), key, phenotype)
