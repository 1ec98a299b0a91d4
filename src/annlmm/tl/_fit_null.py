from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from anndata import AnnData

from annlmm._settings import logger, settings
from annlmm._slots.access import boolean_mask, check_adata, check_key, received, target
from annlmm._slots.design import Covariates, Phenotypes, design_matrix, read_covariates, read_phenotypes
from annlmm._slots.fit import FittedPhenotype, check_null_key, missingness_patterns, write_null
from annlmm._slots.kernel import read_basis, usable_rows
from annlmm._slots.schema import documents
from annlmm.model.design import Design, make_design
from annlmm.model.null import NullModel
from annlmm.model.search import MESSAGES


@documents("fit_null")
def fit_null(
    adata: AnnData,
    phenotype: str | Sequence[str],
    *,
    covariates: str | Sequence[str] | None = None,
    kernel: str | None = "kernel",
    reml: bool = True,
    gamma: float | None = None,
    mask_obs: Any = None,
    variance_test: bool = True,
    rng: int = 0,
    key_added: str = "lmm",
    copy: bool = False,
) -> AnnData | None:
    """Fit the null model y ~ N(Xβ, σ²K + τ²I): variance components, heritability and fixed effects.

    The restricted likelihood is maximised globally over γ = σ²/τ², h² = 0 and h² = 1 included, with analytic derivatives;
    the result does not change with the scale of the kernel or the origin of the phenotype.

    Parameters
    ----------
    adata
        Observations × features; the features are not used.
    phenotype
        A numeric column of `.obs`, a list of them, or a key of `.obsm`. Rows where it is NaN are left out, for each
        phenotype on its own.
    covariates
        Names of `.obs` columns and `.obsm` keys, or a formula in them such as ``"~ age + C(sex) + X_pca"``. An intercept is
        included (in a formula, unless ``0 +``). Categories are coded with their first level that occurs dropped. Rows with a
        missing covariate are left out. A formula may use columns, operators, formulaic's transforms and elementwise functions of numpy; nothing else is evaluated.
    kernel
        Key of a kernel made by `al.pp.kernel_*`; None for ordinary least squares.
    reml
        Restricted (default) or full maximum likelihood.
    gamma
        σ²/τ² to hold fixed, in [0, ∞], instead of estimating it.
    mask_obs
        Rows to use: a boolean column of `.obs` or a boolean array.
    variance_test
        Whether to simulate the interval and the p-value of h², most of the time of a fit (about a second for each set of rows). False
        leaves ``h_sq_ci_low``, ``h_sq_ci_high`` and the p-values of h² NaN; ``al.get.null_model(adata).summary()`` simulates them later.
    rng
        Seed of the simulated null distributions behind the interval and the p-value of h².
    key_added
        Under which the fields are written.
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
        If the phenotype, a covariate, the kernel or the mask is not there.
    TypeError
        If they have the wrong type, e.g. a phenotype of text.
    ValueError
        If the covariates are collinear (they are named), no degrees of freedom are left, the phenotype is constant or explained
        by the covariates, or the kernel cannot be told from the residual or is absorbed by the covariates.

    Notes
    -----
    Restricted likelihood: Patterson & Thompson (1971); through the eigenbasis: Kang et al. (2008), Lippert et al. (2011).
    p-value of σ² = 0: Crainiceanu & Ruppert (2004), by importance sampling. Degrees of freedom: Satterthwaite (1946).
    `pve` is GEMMA's (Zhou & Stephens 2012).

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.gwas_cohort(n_obs=200, n_vars=500)
    >>> al.pp.kernel_grm(adata)
    >>> al.tl.fit_null(adata, "phenotype", covariates="~ age + C(sex)")
    >>> adata.uns["lmm"]["status"]
    'ok'
    >>> list(adata.uns["lmm"]["beta"]["term"])
    ['Intercept', 'age', 'C(sex)[T.male]']
    """
    from tqdm.auto import tqdm

    start = perf_counter()
    check_adata(adata)
    check_key(key_added)
    for argument, value in (("reml", reml), ("variance_test", variance_test)):
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{argument}: must be True or False, received {value!r}")
    if isinstance(rng, bool) or not isinstance(rng, (int, np.integer)):
        raise TypeError(f"rng: must be a whole number, the seed, received {received(rng)}")
    if rng < 0:
        raise ValueError(f"rng: must be at least 0, received {rng}")
    if kernel is None and gamma is not None:
        raise ValueError(
            f"gamma={gamma!r}: kernel=None is ordinary least squares, which has no σ²/τ²; leave gamma=None"
        )
    responses = read_phenotypes(adata, phenotype)
    asked = read_covariates(adata, covariates)
    check_null_key(adata, key_added, [*([phenotype] if isinstance(phenotype, str) else phenotype), *asked.variables])
    usable = boolean_mask(adata, mask_obs, "obs", "mask_obs") & asked.complete & usable_rows(adata, kernel)
    present = ~np.isnan(responses.values) & usable[:, None]
    x, terms = _design(adata, responses, asked, present)

    fitted: list[FittedPhenotype | None] = [None] * len(responses.names)
    hidden = not settings.progress or len(fitted) == 1
    with tqdm(total=len(fitted), desc="fit_null", unit=" phenotypes", disable=hidden, delay=3.0) as progress:
        for used, members in missingness_patterns(present):
            model = NullModel(
                _checked_design(x[used], terms, responses, members),
                read_basis(adata, kernel, used),
                reml=bool(reml),
                identifiable=gamma is None,
                seed=rng,
                kernel=kernel or "kernel",
            )
            for j in members:
                y = responses.values[used, j]
                fit = model.fit(y, gamma, simulate=bool(variance_test), name=f"phenotype {responses.names[j]!r}")
                fitted[j] = FittedPhenotype(responses.names[j], used, fit, *model.predict_random(y, fit.gamma))
                progress.update()

    done = [f for f in fitted if f is not None]
    params = {
        "phenotype": phenotype if isinstance(phenotype, str) else list(phenotype),
        "covariates": asked.text,
        "kernel": kernel,
        "reml": bool(reml),
        "gamma": gamma if gamma is None else float(gamma),
        "mask_obs": mask_obs if isinstance(mask_obs, str) else None if mask_obs is None else "array",
        "rng": int(rng),
    }
    out = target(adata, copy)
    write_null(out, key_added, done, x, np.where(present, responses.values, np.nan), terms, params)
    for f in done:
        if f.fit.status == "not_converged":
            logger.warning(f"fit_null: {f.name}: {MESSAGES['not_converged']}")
        if kernel is None:
            logger.info(
                f"fit_null: {f.name} on {f.rows.size} of {adata.n_obs} observations, {len(terms)} fixed effects, least squares"
            )
            continue
        se = "" if np.isnan(f.fit.h_sq_standard_error) else f" ± {f.fit.h_sq_standard_error:.4f}"
        logger.info(
            f"fit_null: {f.name} on {f.rows.size} of {adata.n_obs} observations, {len(terms)} fixed effects, kernel {kernel!r} of rank "
            f"{f.fit.rank}: h² = {f.fit.h_sq:.4f}{se} ({f.fit.status})"
        )
    logger.info(
        f"    wrote .uns[{key_added!r}], .obsm['{key_added}_design'], '{key_added}_phenotype', _blup, _residual ({perf_counter() - start:.1f} s)"
    )
    return out if copy else None


def _design(
    adata: AnnData, responses: Phenotypes, asked: Covariates, present: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """X on all rows of adata, NaN in those that no phenotype uses, and its terms."""
    counts = present.sum(axis=0)
    if (counts == 0).any():
        name = responses.names[int(np.argmin(counts))]
        raise ValueError(
            f"phenotype {name!r}: no row has it together with the covariates, the kernel and the mask; see which are missing"
        )
    rows = np.flatnonzero(present.any(axis=1))
    values, terms = design_matrix(adata, asked, rows)
    x = np.full((adata.n_obs, values.shape[1]), np.nan)
    x[rows] = values
    return x, terms


def _checked_design(x: np.ndarray, terms: tuple[str, ...], responses: Phenotypes, members: list[int]) -> Design:
    try:
        return make_design(x, terms)
    except ValueError as error:
        if len(responses.names) == 1:
            raise
        name = responses.names[members[0]]
        raise ValueError(
            f"phenotype {name!r}: {error}, or fit {name!r} by itself: several phenotypes share the levels and columns of their covariates"
        ) from error
