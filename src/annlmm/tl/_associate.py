from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from annlmm._settings import logger, settings
from annlmm._slots.access import boolean_mask, check_adata, check_key, feature_matrix, target
from annlmm._slots.fit import StoredNull, read_null
from annlmm._slots.results import check_prefix, write_association
from annlmm._slots.schema import documents
from annlmm.blocks import column_blocks
from annlmm.model.association import MASKED, STATUS, Association, Scan, make_scan
from annlmm.model.basis import GroupBasis
from annlmm.model.exact import ExactScan, make_exact_scan
from annlmm.model.hypothesis import TESTS
from annlmm.model.null import NullModel
from annlmm.model.parallel import map_blocks
from annlmm.model.response import residual_of
from annlmm.model.scan import ScanEngine
from annlmm.model.search import minimise

VARIANCES = ("null", "refit", "screen")
DEGREES = ("satterthwaite", "residual")
MISSING = ("mean", "raise")


@documents("associate")
def associate(
    adata: AnnData,
    key: str = "lmm",
    *,
    layer: str | None = None,
    mask_var: Any = None,
    test: str = "wald",
    variance: str = "null",
    threshold: float = 1e-4,
    df: str = "satterthwaite",
    missing: str = "mean",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Test every feature (column of `.X`) for association with the phenotype of a null model, at the null's γ.

    Parameters
    ----------
    adata
        Observations × features with a null model (`al.tl.fit_null`).
    key
        Of the null model.
    layer
        Layer to take the features from instead of `.X`: a numpy array or a scipy CSR/CSC matrix. Sparse input is never made
        dense or centred.
    mask_var
        Features to test: a boolean column of `.var` or a boolean array; the others get the status 'masked'.
    test
        'wald' (F on 1 and n−p−1 degrees of freedom, exact given γ), 'lrt' (χ², the test of Hail; anticonservative below a few
        hundred observations) or 'score' (GEMMA's p_score, at the maximum-likelihood γ: re-estimated if the null model is REML).
    variance
        'null': γ stays as in the null model (EMMAX, P3D, Hail). 'refit': it is estimated again with each feature, by REML for
        the Wald test and by ML for the likelihood ratio (GEMMA's p_wald and p_lrt); the score test needs none. 'screen':
        as 'null', then as 'refit' for p-values below `threshold`.
    threshold
        p-value below which 'screen' refits.
    df
        Degrees of freedom of the Wald test of features that are constant within the groups of a group kernel (a genotype or
        a treatment of the donor, over cells): 'satterthwaite', which follow the number of groups, or 'residual', the n−p−1
        of all other features, whose size is wrong for them in both directions (for comparison with other programs).
    missing
        'mean' fills the missing values of a feature with its mean over the rows used; 'raise' refuses them by name.
    key_added
        Prefix of the fields; `key` if None.
    copy
        Return a copy with the fields, leaving `adata` as it is.

    Returns
    -------
    AnnData or None
        A copy if `copy`, otherwise None, with the fields set (in `.varm`, features × phenotypes, for several phenotypes):

    {fields}

    Raises
    ------
    KeyError
        If the null model, the layer or the mask is not there.
    TypeError
        If the matrix has a type that cannot be scanned.
    ValueError
        If a feature holds infinite values (or NaN with ``missing='raise'``), rows were dropped since the fit, or fewer than two
        degrees of freedom are left.

    Notes
    -----
    Kang et al. (2010), EMMAX; Zhou & Stephens (2012), GEMMA; degrees of freedom: Satterthwaite (1946). A feature that is constant or a linear combination of the covariates
    has NaN and says so in its status.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.gwas_cohort(n_obs=200, n_vars=500)
    >>> al.pp.kernel_grm(adata)
    >>> al.tl.fit_null(adata, "phenotype", covariates="~ age + C(sex)")
    >>> al.tl.associate(adata)
    >>> al.get.association(adata).nsmallest(3, "p_value").shape
    (3, 11)
    """
    start = perf_counter()
    check_adata(adata)
    _check_choice("test", test, TESTS)
    _check_choice("variance", variance, VARIANCES)
    _check_choice("df", df, DEGREES)
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.number)) or not 0 < threshold <= 1:
        raise ValueError(f"threshold: must lie in (0, 1], received {threshold!r}")
    _check_choice("missing", missing, MISSING)
    stored = read_null(adata, key)
    prefix = check_key(key if key_added is None else key_added)
    check_prefix(adata, prefix, key)
    matrix = feature_matrix(adata, layer)
    mask = boolean_mask(adata, mask_var, "var", "mask_var")
    columns = np.flatnonzero(mask)

    results: list[Association] = [Association.empty(adata.n_vars, MASKED) for _ in stored.names]
    gammas = stored.gamma.copy()
    for rows, members in stored.patterns():
        model = stored.model(adata, rows)
        if test == "lrt" and model.space.df_residual < 200:
            logger.warning(
                f"test='lrt': {model.space.df_residual} residual degrees of freedom; the χ² approximation is anticonservative below 200 "
                "(1.5 times the nominal size at 0.05 and 18 times at 5e-8 for n = 50, p = 8); test='wald' is exact given γ"
            )
        scans, exact, my = _scans(model, stored, rows, members, test, variance, gammas)
        blocks = _checked_blocks(adata, matrix, rows, columns, model, missing)
        engine = ScanEngine(
            model.design,
            model.basis,
            my,
            scans,
            exact,
            test=test,
            variance=variance,
            threshold=float(threshold),
            grouped_df=df == "satterthwaite",
        )
        for chosen, parts in map_blocks(engine, blocks, settings.threads):
            for j, part in zip(members, parts, strict=True):
                results[j].assign(chosen, part)

    params = {
        "null": key,
        "test": test,
        "variance": variance,
        "threshold": float(threshold) if variance == "screen" else None,
        "df": df,
        "missing": missing,
        "layer": layer,
        "mask_var": mask_var if isinstance(mask_var, str) else None if mask_var is None else "array",
        "gamma": gammas,
        "n_tested": int(sum((result.status == 0).sum() for result in results)),
    }
    out = target(adata, copy)
    write_association(out, prefix, results, stored.names, params, null_key=key)
    counts = np.bincount(np.concatenate([result.status for result in results]), minlength=len(STATUS))
    summary = ", ".join(f"{count} {status}" for status, count in zip(STATUS, counts, strict=True) if count)
    logger.info(f"associate: {test} test of {columns.size} features with {', '.join(stored.names[:3])}: {summary}")
    logger.info(
        f"    wrote .{'var' if len(stored.names) == 1 else 'varm'}['{prefix}_beta'], _standard_error, _p_value, … ({perf_counter() - start:.1f} s)"
    )
    return out if copy else None


def _check_choice(argument: str, value: Any, choices: Any) -> None:
    if value not in tuple(choices):
        raise ValueError(f"{argument}: must be one of {', '.join(map(repr, choices))}, received {value!r}")


def _scans(
    model: NullModel,
    stored: StoredNull,
    rows: NDArray[np.intp],
    members: list[int],
    test: str,
    variance: str,
    gammas: NDArray[np.float64],
) -> tuple[list[Scan], list[ExactScan], NDArray[np.float64]]:
    """One prepared scan (and refit, where one may be needed) per phenotype, and the phenotypes without the covariates."""
    scans, exact, residuals = [], [], []
    # GEMMA's score test takes the maximum-likelihood γ of the null.
    likelihood = (
        NullModel(model.design, model.basis, reml=False, identifiable=False, kernel=model.kernel)
        if test == "score" and stored.reml
        else model
    )
    for j in members:
        y = stored.y[rows, j]
        if likelihood is not model and not stored.gamma_fixed:
            gammas[j] = minimise(likelihood.profile(likelihood.response(y))).gamma
        my, _ = residual_of(y, model.design)
        u = model.basis.project(my)
        rest = my - model.basis.expand(u)
        null = make_scan(model.space, u, float(rest @ rest), float(stored.gamma[j]))
        stored.check_unchanged(j, null.rss * (null.gls.gamma if np.isinf(null.gamma) else 1.0))
        changed = gammas[j] != stored.gamma[j]
        scans.append(make_scan(model.space, u, float(rest @ rest), float(gammas[j])) if changed else null)
        residuals.append(my)
        if variance != "null" or isinstance(model.basis, GroupBasis):
            exact.append(make_exact_scan(model.space, model.response(y), reml=test == "wald"))
    return scans, exact, np.stack(residuals, axis=1)


def _checked_blocks(
    adata: AnnData, matrix: Any, rows: NDArray[np.intp], columns: NDArray[np.intp], model: NullModel, missing: str
) -> Iterator[tuple[NDArray[np.intp], Any]]:
    """Blocks of features with a progress bar; infinite values, and missing ones if not wanted, are refused by name."""
    from tqdm.auto import tqdm

    # Blocks in flight: a block (and its conversion) with its rotation of at most r rows.
    rows_in_memory = (0 if sparse.issparse(matrix) else rows.size) + model.basis.rank + 2 * model.design.p + 16
    width = max(1, int(settings.block_memory // (8 * rows_in_memory * (settings.threads + 1))))
    with tqdm(total=columns.size, desc="associate", unit=" features", disable=not settings.progress, delay=3.0) as bar:
        for block in column_blocks(matrix, rows, columns, width):
            sparse_block = sparse.issparse(block.array)
            values = block.array.data if sparse_block else block.array
            with np.errstate(invalid="ignore", over="ignore"):
                total = values.sum()
            if not np.isfinite(total) and np.isinf(values).any():
                raise ValueError(
                    f"{_features(adata, block, np.isinf)}: infinite values; replace them or leave these out with mask_var"
                )
            if missing == "raise" and np.isnan(values).any():
                raise ValueError(
                    f"{_features(adata, block, np.isnan)}: missing values; use missing='mean' or leave these out with mask_var"
                )
            yield block.columns, block.array
            bar.update(block.columns.size)


def _features(adata: AnnData, block: Any, test: Any) -> str:
    """'features …' for those of a block whose values meet `test`."""
    if sparse.issparse(block.array):
        bad = np.unique(np.repeat(np.arange(block.columns.size), np.diff(block.array.indptr))[test(block.array.data)])
    else:
        bad = np.flatnonzero(test(block.array).any(axis=0))
    names = [repr(str(adata.var_names[block.columns[j]])) for j in bad]
    return f"feature{'s' if len(names) > 1 else ''} {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
