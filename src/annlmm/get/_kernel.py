from __future__ import annotations

import pandas as pd
from anndata import AnnData

from annlmm._slots.access import check_adata
from annlmm._slots.kernel import read_kernel_matrix


def kernel(adata: AnnData, key: str = "kernel") -> pd.DataFrame:
    """A stored kernel K = U S Uᵀ as an n × n table.

    Parameters
    ----------
    adata
        With a kernel under `key` (`al.pp.kernel_*`).
    key
        Of the kernel.

    Returns
    -------
    DataFrame
        Observations × observations, float64, symmetric, on the scale on which it is stored; rows without a group label are
        left out. Pass it as ``relatedness=`` of `al.pp.kernel_group`.

    Raises
    ------
    KeyError
        If there is no kernel under `key`.
    ValueError
        If the eigenvectors do not belong to it (after a concatenation).
    MemoryError
        If the table does not fit `al.settings.kernel_memory`.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.gwas_cohort(n_obs=100, n_vars=50)
    >>> al.pp.kernel_grm(adata)
    >>> al.get.kernel(adata).shape
    (100, 100)
    """
    return read_kernel_matrix(check_adata(adata), key)
