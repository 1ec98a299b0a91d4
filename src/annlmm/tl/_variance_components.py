from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
from anndata import AnnData

from annlmm._settings import logger, settings
from annlmm._slots.access import boolean_mask, check_adata, check_key, feature_matrix, target
from annlmm._slots.design import design_matrix, read_covariates
from annlmm._slots.gene_results import check_result_key, write_gene_results
from annlmm._slots.kernel import read_basis, usable_rows
from annlmm._slots.results import adjust
from annlmm._slots.schema import documents
from annlmm.model.association import ALL_MISSING, MASKED
from annlmm.model.design import make_design
from annlmm.model.null import NullModel
from annlmm.tl._genes import (
    check_groups,
    check_missing,
    check_reml,
    check_seed,
    gene_statistics,
    mask_text,
    spread,
    status_counts,
    usable_row_numbers,
)
from annlmm.tl._pass import Features


@documents("variance_components")
def variance_components(
    adata: AnnData,
    covariates: Any = None,
    *,
    kernel: str = "kernel",
    reml: bool = True,
    layer: str | None = None,
    mask_obs: Any = None,
    mask_var: Any = None,
    missing: str = "mean",
    rng: int = 0,
    key_added: str = "varcomp",
    copy: bool = False,
) -> AnnData | None:
    """Variance components of every feature: y ~ N(Xβ, σ²K + τ²I) with each column of `.X` as y.

    Under a donor kernel h² is the share of a gene's variance between donors (lme4's ``gene ~ X + (1 | donor)``), under a
    spatial or graph kernel the share that the kernel explains. All features share X and K and are fitted together, each at
    the global optimum of its own likelihood, h² = 0 and h² = 1 included.

    Parameters
    ----------
    adata
        Observations × features with a kernel (`al.pp.kernel_*`). Counts should be transformed first, e.g. log-normalised.
    covariates
        Names of `.obs` columns and `.obsm` keys, or a formula in them such as ``"~ age + C(sex)"``, as in `al.tl.fit_null`.
    kernel
        Key of the kernel.
    reml
        Restricted (default) or full maximum likelihood.
    layer
        Layer to take the features from instead of `.X`.
    mask_obs
        Rows to use: a boolean column of `.obs` or a boolean array. Rows with a missing covariate or group are left out.
    mask_var
        Features to fit: a boolean column of `.var` or a boolean array; the others get the status 'masked'.
    missing
        'mean' fills the missing values of a feature with its mean over the rows used; 'raise' refuses them by name.
    rng
        Seed of the simulated null distribution behind the p-values, which all features share.
    key_added
        Prefix of the fields.
    copy
        Return a copy with the fields, leaving `adata` as it is.

    Returns
    -------
    AnnData or None
        A copy if `copy`, otherwise None, with the fields set:

    {fields}

    Raises
    ------
    KeyError
        If a covariate, the kernel, the layer or a mask is not there.
    TypeError
        If they have the wrong type.
    ValueError
        If the covariates are collinear (they are named), the kernel cannot be told from the residual (as with one row per
        group) or is absorbed by the covariates (as with one group), or a feature holds infinite values.

    Notes
    -----
    Restricted likelihood: Patterson & Thompson (1971), in the eigenbasis of the kernel without the covariates. p-value of
    σ² = 0: Crainiceanu & Ruppert (2004), by importance sampling. A feature that is constant, or has no maximum of the
    likelihood because it is constant within every group, has NaN and says so in its status.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.donors(n_donors=8, n_genes=30)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> al.tl.variance_components(adata, covariates="~ condition", layer="logcounts")
    >>> al.get.variance_components(adata).loc["gene_01", "status"]
    'ok'
    """
    start = perf_counter()
    check_adata(adata)
    check_key(key_added)
    check_result_key(adata, key_added, "variance_components")
    check_reml(reml)
    check_seed(rng)
    if kernel is None:
        raise TypeError("kernel: must be the key of a kernel, received None; without one there is a single variance")
    check_missing(missing)
    matrix = feature_matrix(adata, layer)
    mask = boolean_mask(adata, mask_var, "var", "mask_var")
    columns = np.flatnonzero(mask)
    asked = read_covariates(adata, covariates)
    usable = boolean_mask(adata, mask_obs, "obs", "mask_obs") & asked.complete & usable_rows(adata, kernel)
    rows = usable_row_numbers(usable)
    x, terms = design_matrix(adata, asked, rows)
    basis = read_basis(adata, kernel, rows)
    check_groups(basis, kernel)
    model = NullModel(make_design(x, terms), basis, reml=bool(reml), seed=int(rng), kernel=kernel)

    from annlmm.model.responses import coordinates, fit_responses

    nothing = np.zeros((rows.size, 0))
    statistics, empty = gene_statistics(
        Features(adata, matrix, missing), rows, columns, model, nothing, "variance_components"
    )
    fits = fit_responses(model, coordinates(statistics, model.space), threads=settings.threads)
    status = np.full(adata.n_vars, MASKED, dtype=np.int8)
    status[columns] = np.where(empty, ALL_MISSING, fits.status)
    log_p = fits.log_p_value
    p_value = np.maximum(np.exp(log_p), np.finfo(np.float64).tiny)
    found = {
        "sigma_sq": fits.sigma_sq,
        "tau_sq": fits.tau_sq,
        "h_sq": fits.h_sq,
        "h_sq_standard_error": fits.h_sq_standard_error,
        "pve": fits.pve,
        "log_likelihood": fits.log_likelihood,
        "p_value": p_value,
        "neg_log10_p_value": -log_p / np.log(10.0) + 0.0,
        "p_adjusted": adjust(p_value),
    }
    params = {
        "covariates": asked.text,
        "kernel": kernel,
        "reml": bool(reml),
        "layer": layer,
        "mask_obs": mask_text(mask_obs),
        "mask_var": mask_text(mask_var),
        "missing": missing,
        "rng": int(rng),
        "n_obs": int(rows.size),
        "rank": int(basis.rank),
        "n_fitted": int(np.isfinite(fits.h_sq).sum()),
    }
    out = target(adata, copy)
    values = {name: spread(value, columns, adata.n_vars) for name, value in found.items()}
    write_gene_results(out, "variance_components", key_added, values, status, params)
    logger.info(
        f"variance_components: {columns.size} features on {rows.size} of {adata.n_obs} observations, {len(terms)} fixed effects, kernel "
        f"{kernel!r} of rank {basis.rank}: {status_counts(status)}"
    )
    logger.info(f"    wrote .var['{key_added}_h_sq'], _sigma_sq, _p_value, … ({perf_counter() - start:.1f} s)")
    return out if copy else None
