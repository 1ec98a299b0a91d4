from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData

from annlmm._slots.access import check_adata
from annlmm._slots.fit import phenotype_number, read_null
from annlmm._slots.kernel import read_basis
from annlmm.model.lmm import LinearMixedModel
from annlmm.model.summary import Known, VarianceTest


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
        Low rank where the kernel is. A fit by maximum likelihood, or with γ given, is held at its γ. Its `repr` and its `summary()`
        are tables of the fixed effects and variance components, with the names of the terms, and the interval and p-value of h².

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
    >>> model = al.get.null_model(adata)
    >>> model.low_rank
    True
    >>> model.summary().fixed_effects["estimate"].round(2).to_dict()
    {'Intercept': 5.57}
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
    seed, test = int(stored.params.get("rng", 0)), _variance_test(adata.uns[key], j)
    model._known = Known(stored.names[j], stored.terms, stored.kernel, seed, test)
    if stored.reml and not stored.gamma_fixed:
        model.fit()
    else:
        with np.errstate(divide="ignore"):
            model.fit(log_gamma=float(np.log(stored.gamma[j])))
    scale = model.sigma_sq if np.isinf(stored.gamma[j]) else model.tau_sq
    stored.check_unchanged(j, scale * (y.size - x.shape[1]))
    return model


def _variance_test(entry: Mapping[str, Any], j: int) -> VarianceTest | None:
    """As it was stored; None where it was not simulated."""
    found = entry["fits"].iloc[j] if "fits" in entry else entry
    low, high, log10 = (
        float(found.get(name, np.nan)) for name in ("h_sq_ci_low", "h_sq_ci_high", "h_sq_neg_log10_p_value")
    )
    return None if np.isnan(log10) else VarianceTest(low, high, -log10 * np.log(10.0))
