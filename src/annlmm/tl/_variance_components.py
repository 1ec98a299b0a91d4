from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import logger, settings
from annlmm._slots.access import boolean_mask, check_adata, check_key, feature_matrix, target
from annlmm._slots.design import design_matrix, read_covariates
from annlmm._slots.gene_results import check_result_key, write_gene_results
from annlmm._slots.kernel import Family, read_basis, read_family, usable_rows
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
    mask_text,
    member_statistics,
    spread,
    status_counts,
    usable_row_numbers,
)
from annlmm.tl._pass import Features


@documents("variance_components", family=True)
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
        Key of the kernel, or of a family of kernels (a list of length scales, diffusion times or ρ): every feature is then fitted under each
        member and takes the one that makes it most likely; its p-value accounts for the choice.
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
        group) or is absorbed by the covariates (as with one group), or a feature holds infinite values. Of a family this holds for
        every member.

    Notes
    -----
    Restricted likelihood: Patterson & Thompson (1971), in the eigenbasis of the kernel without the covariates. p-value of
    σ² = 0: Crainiceanu & Ruppert (2004), by importance sampling. A feature that is constant, or has no maximum of the
    likelihood because it is constant within every group, has NaN and says so in its status.

    The statistic of a family is the largest of its members' likelihood ratios, and its null distribution that of this largest, simulated from all
    members together. A family of groups reads `.X` once, another once per member. Dense members of full rank cost an eigendecomposition each and
    a simulation over all of their eigenvectors: ``rank=`` (100, or 0.99 of the trace) of `al.pp.kernel_rbf` and `al.pp.kernel_graph` speeds both.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.donors(n_donors=8, n_genes=30)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> al.tl.variance_components(adata, covariates="~ condition", layer="logcounts")
    >>> al.get.variance_components(adata).loc["gene_01", "status"]
    'ok'

    A family of spatial kernels, of which each gene takes the best:

    >>> slide = al.datasets.spatial(n_obs=200, n_genes=20, n_spatial=10)
    >>> al.pp.kernel_rbf(slide, length_scale=[100, 200, 400])
    >>> al.tl.variance_components(slide)
    >>> al.get.variance_components(slide)["parameter"].dropna().isin([100, 200, 400]).all().item()
    True
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
    family = read_family(adata, kernel)
    members = (kernel,) if family is None else family.members
    usable = boolean_mask(adata, mask_obs, "obs", "mask_obs") & asked.complete
    for member in members:
        usable &= usable_rows(adata, member)
    rows = usable_row_numbers(usable)
    x, terms = design_matrix(adata, asked, rows)
    design = make_design(x, terms)
    models = []
    for i, member in enumerate(members):
        basis = read_basis(adata, member, rows)
        check_groups(basis, kernel)
        name = member if family is None else f"{member} ({family.parameter}={family.values[i]:.4g})"
        models.append(NullModel(design, basis, reml=bool(reml), seed=int(rng), kernel=name))

    from annlmm.model.responses import coordinates, fit_responses
    from annlmm.model.responses_family import best_members, family_null

    fits, empty = [], np.zeros(columns.size, dtype=bool)
    every = member_statistics(Features(adata, matrix, missing), rows, columns, models, "variance_components")
    for model, (statistics, all_missing) in zip(models, every, strict=True):
        fits.append(fit_responses(model, coordinates(statistics, model.space), threads=settings.threads))
        empty |= all_missing
    null = family_null(models, threads=settings.threads) if len(models) > 1 else None
    chosen = best_members(fits, null)
    best = chosen.best
    status = np.full(adata.n_vars, MASKED, dtype=np.int8)
    status[columns] = np.where(empty, ALL_MISSING, best.status)
    p_value = _p_value(best.log_p_value)
    found = {
        "sigma_sq": best.sigma_sq,
        "tau_sq": best.tau_sq,
        "h_sq": best.h_sq,
        "h_sq_standard_error": best.h_sq_standard_error,
        "pve": best.pve,
        "log_likelihood": best.log_likelihood,
        "p_value": p_value,
        "neg_log10_p_value": -best.log_p_value / np.log(10.0) + 0.0,
        "p_adjusted": adjust(p_value),
    }
    each = {}
    if family is not None:
        found["parameter"] = np.where(chosen.member < 0, np.nan, family.values[chosen.member])
        each = {"member_log_likelihood": chosen.log_likelihood, "member_p_value": _p_value(chosen.log_p_value)}
    ranks = [model.basis.rank for model in models]
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
        "rank": ranks[0] if family is None else ranks,
        "parameter": None if family is None else family.parameter,
        "values": None if family is None else family.values,
        "n_fitted": int(np.isfinite(best.h_sq).sum()),
    }
    out = target(adata, copy)
    write_gene_results(
        out,
        "variance_components",
        key_added,
        {name: spread(value, columns, adata.n_vars) for name, value in found.items()},
        status,
        params,
        {name: spread(value, columns, adata.n_vars) for name, value in each.items()},
        () if family is None else family.members,
    )
    logger.info(
        f"variance_components: {columns.size} features on {rows.size} of {adata.n_obs} observations, {len(terms)} fixed effects, "
        f"{_described(kernel, family, ranks)}: {status_counts(status)}"
    )
    logger.info(f"    wrote .var['{key_added}_h_sq'], _sigma_sq, _p_value, … ({perf_counter() - start:.1f} s)")
    return out if copy else None


def _p_value(log_p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Never 0."""
    return np.maximum(np.exp(log_p), np.finfo(np.float64).tiny)


def _described(kernel: str, family: Family | None, ranks: list[int]) -> str:
    if family is None:
        return f"kernel {kernel!r} of rank {ranks[0]}"
    span = f"{min(ranks)} to {max(ranks)}" if len(set(ranks)) > 1 else f"{ranks[0]}"
    return f"the {len(ranks)} kernels of {kernel!r} of rank {span}"
