from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import logger, settings
from annlmm._slots.access import boolean_mask, check_adata, check_key, feature_matrix, hint, numeric, received, target
from annlmm._slots.design import design_matrix, read_covariates
from annlmm._slots.gene_results import check_result_key, write_gene_results
from annlmm._slots.kernel import read_basis, usable_rows
from annlmm._slots.results import adjust
from annlmm._slots.schema import documents
from annlmm._slots.term import CodedTerm, code_term, term_column
from annlmm.model.association import ALL_MISSING, MASKED
from annlmm.model.basis import Basis
from annlmm.model.design import Design, make_design
from annlmm.model.space import check_identifiable
from annlmm.model.weights import weigh_basis, weigh_design
from annlmm.tl._genes import (
    check_groups,
    check_missing,
    check_reml,
    gene_statistics,
    mask_text,
    spread,
    status_counts,
    usable_row_numbers,
)
from annlmm.tl._pass import Features

Float = NDArray[np.float64]
DEGREES = ("satterthwaite", "kenward-roger", "residual")


@documents("differential")
def differential(
    adata: AnnData,
    term: str,
    covariates: Any = None,
    *,
    reference: str | None = None,
    contrast: Any = None,
    kernel: str | None = "kernel",
    df: str = "satterthwaite",
    reml: bool = True,
    weights: str | None = None,
    moderate: bool = False,
    layer: str | None = None,
    mask_obs: Any = None,
    mask_var: Any = None,
    missing: str = "mean",
    key_added: str = "de",
    copy: bool = False,
) -> AnnData | None:
    """Test one term of the design on every feature, y ~ N(x β + Xα, σ²K + τ²I) with each column of `.X` as y.

    Under a donor kernel this is lme4's ``gene ~ condition + covariates + (1 | donor)`` with lmerTest's tests: a condition of
    the donors (disease, treatment arm, genotype) is compared with the variation between donors, on degrees of freedom that
    follow the number of donors and not that of cells. All features are fitted together, each with variance components of
    its own.

    Parameters
    ----------
    adata
        Observations × features with a kernel (`al.pp.kernel_group` for donors). Counts should be transformed first, e.g.
        log-normalised.
    term
        Column of `.obs` to test. Numbers and booleans have one coefficient, the effect of one unit; text and categories one per
        level, compared with the reference. Three or more levels are tested together by F. It must not be among the covariates.
    covariates
        Names of `.obs` columns and `.obsm` keys, or a formula in them such as ``"~ age + C(sex)"``, as in `al.tl.fit_null`.
    reference
        Level that the others are compared with; the first of its categories (of text: the first by alphabet) if None.
    contrast
        Test one contrast of the levels instead: ``("b", "a")`` for b − a, or weights that add to zero such as
        ``{"a": -1, "b": 0.5, "c": 0.5}``.
    kernel
        Key of the kernel; None for ordinary least squares, which takes cells as independent.
    df
        Degrees of freedom: 'satterthwaite' (lmerTest's; from the expected information where σ² is estimated as 0, where lmerTest's are
        anticonservative), 'kenward-roger' (with the adjusted covariance of the estimates; pbkrtest's) or 'residual', the n − p
        that are wrong for a condition of the donors (for comparison with other programs).
    reml
        Restricted (default) or full maximum likelihood.
    weights
        Column of `.obs` with known precisions: the residual variance of a row is τ²/weight.
    moderate
        Learn the distribution of σ²/τ² from all features (empirical Bayes) and average each feature's test, exact given σ²/τ²,
        over its posterior. With few donors this gains power and keeps the size over all features tested; in features
        whose σ²/τ² is unusually large for them it does not. For hundreds of features or more.
    layer
        Layer to take the features from instead of `.X`.
    mask_obs
        Rows to use: a boolean column of `.obs` or a boolean array. Rows with a missing term, covariate, weight or group are left out.
    mask_var
        Features to test: a boolean column of `.var` or a boolean array; the others get the status 'masked'.
    missing
        'mean' fills the missing values of a feature with its mean over the rows used; 'raise' refuses them by name.
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
        If the term, a covariate, the kernel, the layer or a mask is not there.
    TypeError
        If they have the wrong type.
    ValueError
        If the term is constant, collinear with the covariates (they are named), or leaves nothing of the kernel, as when every
        donor has a value of its own; if the kernel cannot be told from the residual; or a feature holds infinite values.

    Notes
    -----
    Satterthwaite (1946), Giesbrecht & Burns (1985), for several coefficients Fai & Cornelius (1996); Kenward & Roger (1997);
    Kuznetsova et al. (2017), lmerTest. With ``moderate=True`` the p-value is the average over the posterior; the estimate is its posterior
    mean, standard_error and df match the moments of the inverse variance. A feature that is constant or explained by the design has NaN and says so in its status; with status 'boundary'
    (σ² estimated as 0) it is tested like any other.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.donors(n_donors=8, n_genes=30)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> al.tl.differential(adata, "condition", ["batch", "cell_score"], reference="control", layer="logcounts")
    >>> set(al.get.differential(adata)["status"]) <= {"ok", "boundary"}
    True
    """
    start = perf_counter()
    check_adata(adata)
    check_key(key_added)
    check_result_key(adata, key_added, "differential")
    check_reml(reml)
    check_missing(missing)
    if df not in DEGREES:
        raise ValueError(f"df: must be one of {', '.join(map(repr, DEGREES))}, received {df!r}")
    if df == "kenward-roger" and not reml:
        raise ValueError(
            "df='kenward-roger': is defined for restricted maximum likelihood; use reml=True, or df='satterthwaite'"
        )
    _check_moderate(moderate, kernel, df, reml)
    column = term_column(adata, term)
    matrix = feature_matrix(adata, layer)
    mask = boolean_mask(adata, mask_var, "var", "mask_var")
    columns = np.flatnonzero(mask)
    asked = read_covariates(adata, covariates)
    if term in asked.variables:
        raise ValueError(
            f"covariates: {term!r} is the term that is tested, which enters the design by itself; leave it out"
        )
    usable = boolean_mask(adata, mask_obs, "obs", "mask_obs") & asked.complete & usable_rows(adata, kernel)
    precision = _weights(adata, weights)
    usable &= column.notna().to_numpy(dtype=bool) & ~np.isnan(precision)
    rows = usable_row_numbers(usable)
    coded = code_term(adata, term, rows, reference, contrast)
    x, terms = design_matrix(adata, asked, rows)
    basis = read_basis(adata, kernel, rows)
    check_groups(basis, kernel or "kernel")
    design = make_design(x, terms)
    if coded.levels and not design.spans_constant:
        raise ValueError(
            f"covariates={asked.text!r}: without an intercept the levels of {term!r} have nothing to be compared with; leave out '0 +'"
        )

    from annlmm.model.responses import fit_responses
    from annlmm.model.responses_term import make_term, place_genes
    from annlmm.model.responses_tests import run_term_tests

    root = np.sqrt(precision[rows]) if weights is not None else None
    _check_term(design, coded, term)
    weighed = _weighed(design, coded.values, basis, root)
    whole = make_term(*weighed, coded.names, reml=bool(reml), kernel=kernel or "kernel")
    _check_kernel(whole, coded, term, kernel or "kernel", basis)
    statistics, empty = gene_statistics(
        Features(adata, matrix, missing), rows, columns, whole.covariates, whole.outside, "differential",
        root=root, shift=design.spans_constant,
    )  # fmt: skip
    genes = place_genes(whole, statistics)
    fits = fit_responses(whole.model, genes.whole, simulate=False, threads=settings.threads)
    prior = None
    if moderate:
        from annlmm.model.moderation import moderated_tests

        fitted = np.flatnonzero(np.isfinite(fits.gamma))
        tests, prior = moderated_tests(whole, genes, fitted, contrast=coded.contrast, threads=settings.threads)
    else:
        tests = run_term_tests(whole, genes, fits, contrast=coded.contrast, df=df, threads=settings.threads)

    log_p = tests.log_p_value
    p_value = np.exp(log_p)
    found = {
        "statistic": tests.statistic,
        "df": tests.df,
        "p_value": p_value,
        "neg_log10_p_value": -log_p / np.log(10.0) + 0.0,
        "p_adjusted": adjust(p_value),
        "h_sq": np.where(np.isnan(tests.statistic), np.nan, fits.h_sq),
    }
    if tests.single is not None:
        found = {"beta": tests.single.beta, "standard_error": tests.single.standard_error} | found
    levels = {}
    if tests.levels is not None:
        each = tests.levels
        levels = {
            "level_beta": each.beta,
            "level_standard_error": each.standard_error,
            "level_statistic": each.t,
            "level_df": each.df,
            "level_p_value": np.exp(each.log_p_value),
        }
    status = np.full(adata.n_vars, MASKED, dtype=np.int8)
    status[columns] = np.where(empty, ALL_MISSING, fits.status)
    params = {
        "term": term,
        "reference": coded.reference,
        "contrast": coded.contrast_text,
        "covariates": asked.text,
        "kernel": kernel,
        "df": None if moderate else df,
        "numerator_df": 1 if tests.single is not None else len(coded.names),
        "reml": bool(reml),
        "weights": weights,
        "moderate": bool(moderate),
        "prior_gamma": None if prior is None else prior.gamma,
        "prior_weight": None if prior is None else prior.weight,
        "layer": layer,
        "mask_obs": mask_text(mask_obs),
        "mask_var": mask_text(mask_var),
        "missing": missing,
        "n_obs": int(rows.size),
        "rank": int(basis.rank),
        "n_tested": int(np.isfinite(p_value).sum()),
    }
    out = target(adata, copy)
    write_gene_results(
        out,
        "differential",
        key_added,
        {name: spread(value, columns, adata.n_vars) for name, value in found.items()},
        status,
        params,
        {name: spread(value, columns, adata.n_vars) for name, value in levels.items()},
        coded.levels,
    )
    what = coded.contrast_text or (
        f"{', '.join(coded.levels[:4])} against {coded.reference}" if coded.levels else "per unit"
    )
    logger.info(
        f"differential: {term} ({what}) in {columns.size} features on {rows.size} of {adata.n_obs} observations, kernel {kernel!r} of "
        f"rank {basis.rank}: {status_counts(status)}"
    )
    logger.info(f"    wrote .var['{key_added}_statistic'], _df, _p_value, … ({perf_counter() - start:.1f} s)")
    return out if copy else None


def _check_moderate(moderate: Any, kernel: str | None, df: str, reml: bool) -> None:
    if not isinstance(moderate, (bool, np.bool_)):
        raise TypeError(f"moderate: must be True or False, received {moderate!r}")
    if not moderate:
        return
    if kernel is None:
        raise ValueError("moderate=True: shares what is known of σ²/τ², which kernel=None doesn't have; name a kernel")
    if df != "satterthwaite" or not reml:
        raise ValueError(
            f"moderate=True: has degrees of freedom of its own, from the restricted likelihood; leave df and reml as they are, received df={df!r}, reml={reml}"
        )


def _weights(adata: AnnData, weights: Any) -> Float:
    """The precision of every row, 1 without weights, NaN where it is missing."""
    if weights is None:
        return np.ones(adata.n_obs)
    if not isinstance(weights, str):
        raise TypeError(f"weights: must be the name of a column of adata.obs, received {received(weights)}")
    if weights not in adata.obs.columns:
        raise KeyError(f"weights={weights!r}: no such column in adata.obs; {hint(weights, adata.obs.columns)}")
    values = numeric(adata.obs[weights], f"weights={weights!r}")
    bad = int(np.sum(~np.isnan(values) & ~((values > 0) & np.isfinite(values))))
    if bad:
        raise ValueError(
            f"weights={weights!r}: {bad} values are zero, negative or infinite; leave these rows out with mask_obs, or set them to NaN"
        )
    return values


def _weighed(design: Design, values: Float, basis: Basis, root: Float | None) -> tuple[Design, Float, Basis]:
    """Design and term of the model on rows multiplied by √weights, and its basis."""
    if root is None:
        return design, values, basis
    return weigh_design(design, root), values * root[:, None], weigh_basis(basis, root)


def _check_term(design: Design, coded: CodedTerm, term: str) -> None:
    """The term must not be a combination of the covariates."""
    try:
        make_design(np.column_stack([design.x, coded.values]), [*design.names, *coded.names])
    except ValueError as error:
        reason = str(error).removeprefix("covariates ")
        raise ValueError(f"term={term!r}: its effect cannot be told from that of the covariates: {reason}") from error


def _check_kernel(whole: Any, coded: CodedTerm, term: str, kernel: str, basis: Basis) -> None:
    """Something of the kernel must be left beside the term, and be told from the residual."""
    space, without = whole.model.space, whole.covariates.space
    if space.mu.sum() <= 1e-10 * space.eigenvalues.sum() < without.mu.sum():
        values = len(coded.levels) + 1 if coded.levels else np.unique(coded.values).size
        raise ValueError(
            f"term={term!r}: leaves nothing of {kernel!r} (rank {basis.rank}, {values} values of the term): with a value of its own for every "
            "group, or too few groups, the variation between groups that it is to be compared with cannot be estimated; use more groups "
            "or fewer levels and covariates, or a term that varies within groups (kernel=None takes all rows as independent)"
        )
    check_identifiable(space, kernel=kernel)
