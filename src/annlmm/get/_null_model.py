from __future__ import annotations

import numpy as np
from anndata import AnnData

from annlmm._slots.access import check_adata
from annlmm._slots.fit import phenotype_number, read_null
from annlmm._slots.kernel import read_basis
from annlmm.model.lmm import LinearMixedModel


def null_model(adata: AnnData, key: str = "lmm", *, phenotype: str | None = None) -> LinearMixedModel:
    """The null model of `al.tl.fit_null` as a fitted `LinearMixedModel` on the rows that were used.

    Parameters
    ----------
    adata
        With a null model under `key`.
    key
        Of the null model.
    phenotype
        Which one, if it holds several.

    Returns
    -------
    LinearMixedModel
        Low rank where the kernel is. A fit by maximum likelihood, or with γ given, is held at its γ.

    Raises
    ------
    KeyError
        If there is no null model under `key`, or no such phenotype in it.
    ValueError
        If it was fitted without a kernel, or rows were dropped since.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.donors(n_donors=6, n_genes=30)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> al.tl.fit_null(adata, "phenotype")
    >>> al.get.null_model(adata).low_rank
    True
    """
    stored = read_null(check_adata(adata), key)
    j = phenotype_number(stored, phenotype)
    if stored.kernel is None:
        raise ValueError(
            f"key={key!r}: fitted with kernel=None, ordinary least squares has no mixed model; see al.tl.fit_null"
        )
    rows = np.flatnonzero(~np.isnan(stored.y[:, j]))
    basis = read_basis(adata, stored.kernel, rows)
    y, x = stored.y[rows, j], stored.x[rows]
    py, px, s = basis.project(y), basis.project(x), basis.eigenvalues
    model = LinearMixedModel(py, px, s) if basis.rank == basis.n else LinearMixedModel(py, px, s, y, x)
    if stored.reml and not stored.gamma_fixed:
        model.fit()
    else:
        with np.errstate(divide="ignore"):
            model.fit(log_gamma=float(np.log(stored.gamma[j])))
    scale = model.sigma_sq if np.isinf(stored.gamma[j]) else model.tau_sq
    stored.check_unchanged(j, scale * (y.size - x.shape[1]))
    return model
