from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from anndata import AnnData

from annlmm._settings import logger
from annlmm._slots.access import boolean_mask, check_adata, check_key, feature_matrix, target
from annlmm._slots.fit import StoredNull, read_null
from annlmm._slots.results import check_prefix, write_association
from annlmm._slots.schema import documents
from annlmm.model.association import MASKED, STATUS, Association
from annlmm.model.hypothesis import TESTS
from annlmm.model.parallel import one_blas_thread
from annlmm.tl._loco import check_loco, loco_scan
from annlmm.tl._pass import Features
from annlmm.tl._scan import ScanOptions, run_scan

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
    test: str | Sequence[str] = "wald",
    variance: str = "null",
    threshold: float = 1e-4,
    df: str = "satterthwaite",
    loco: str | None = None,
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
        Layer to take the features from instead of `.X`. Both may be a numpy array, a scipy CSR or CSC matrix, on disk (backed
        h5ad, HDF5, zarr) or a dask array, which runs on the current dask scheduler or cluster. Sparse input is never made
        dense or centred; `al.settings.block_memory` bounds what is held at once.
    mask_var
        Features to test: a boolean column of `.var` or a boolean array; the others get the status 'masked'.
    test
        'wald' (F on 1 and n−p−1 degrees of freedom, exact given γ), 'lrt' (χ², the test of Hail; anticonservative below a few
        hundred observations) or 'score' (GEMMA's p_score, at the maximum-likelihood γ: re-estimated if the null model is REML).
        A list, e.g. ``["wald", "lrt", "score"]``: all of them in one pass; the first is the one that all fields belong to, the
        p-values of the others are written beside it.
    variance
        'null': γ stays as in the null model (EMMAX, P3D, Hail). 'refit': it is estimated again with each feature, by REML for
        the Wald test and by ML for the likelihood ratio (GEMMA's p_wald and p_lrt); the score test needs none. 'screen':
        as 'null', then as 'refit' for p-values below `threshold`.
    threshold
        p-value below which 'screen' refits, and in any case features that are tested on the degrees of freedom of groups (see `df`).
    df
        Degrees of freedom of the Wald test of features that vary mostly between the groups of a group kernel (a genotype or
        a treatment of the donor, over cells, also with a few imputed cells): 'satterthwaite', which follow the number of groups, or 'residual', the n−p−1
        of all other features, whose size is wrong for them in both directions (for comparison with other programs).
    loco
        Column of `.var` with the chromosome: each chromosome is tested at a null model of its own, with the kernel of the
        variants on the others, so that a variant does not compete with itself in the kernel. The null model must be one of
        `al.pp.kernel_grm` on this adata; its settings are used. Costs one eigendecomposition per chromosome; the fits go to
        ``.uns[key]['loco_fits']``.
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
    tests = _tests(test)
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

    chromosome, kernel_params = check_loco(adata, stored, loco) if loco is not None else (None, {})

    results = {name: [Association.empty(adata.n_vars, MASKED) for _ in stored.names] for name in tests}
    options = ScanOptions(tests, variance, float(threshold), df)
    features = Features(adata, matrix, missing)
    gammas, fits = stored.gamma.copy(), None
    _warn_small(stored, tests)
    if chromosome is not None:
        fits = loco_scan(adata, stored, chromosome, kernel_params, features, columns, options, results)
    else:
        with one_blas_thread():
            for rows, members in stored.patterns():
                model = stored.model(adata, rows)
                run_scan(model, stored, rows, members, gammas, features, columns, options, results)

    params = {
        "null": key,
        "test": tests[0],
        "also": tests[1:] or None,
        "variance": variance,
        "threshold": float(threshold),
        "df": df,
        "missing": missing,
        "layer": layer,
        "mask_var": mask_var if isinstance(mask_var, str) else None if mask_var is None else "array",
        "loco": loco,
        "gamma": None if loco else gammas,
        "n_tested": int(sum(np.isfinite(result.p_value).sum() for result in results[tests[0]])),
    }
    out = target(adata, copy)
    write_association(out, prefix, results, stored.names, params, null_key=key, loco_fits=fits)
    counts = np.bincount(np.concatenate([result.status for result in results[tests[0]]]), minlength=len(STATUS))
    summary = ", ".join(f"{count} {status}" for status, count in zip(STATUS, counts, strict=True) if count)
    logger.info(
        f"associate: {', '.join(tests)} test of {columns.size} features with {', '.join(stored.names[:3])}: {summary}"
    )
    logger.info(
        f"    wrote .{'var' if len(stored.names) == 1 else 'varm'}['{prefix}_beta'], _standard_error, _p_value, … ({perf_counter() - start:.1f} s)"
    )
    return out if copy else None


def _tests(test: str | Sequence[str]) -> tuple[str, ...]:
    """The tests that are asked for, the main one first."""
    tests = tuple(test) if isinstance(test, (list, tuple)) else (test,)
    for name in tests:
        _check_choice("test", name, TESTS)
    if not tests or len(set(tests)) < len(tests):
        raise ValueError(f"test: must name each test once, received {test!r}")
    return tests


def _warn_small(stored: StoredNull, tests: tuple[str, ...]) -> None:
    left = min(rows.size for rows, _ in stored.patterns()) - len(stored.terms)
    if "lrt" in tests and left < 200:
        logger.warning(
            f"test='lrt': {left} residual degrees of freedom; the χ² approximation is anticonservative below 200 "
            "(1.5 times the nominal size at 0.05 and 18 times at 5e-8 for n = 50, p = 8); test='wald' is exact given γ"
        )


def _check_choice(argument: str, value: Any, choices: Any) -> None:
    if not isinstance(value, str) or value not in tuple(choices):
        raise ValueError(f"{argument}: must be one of {', '.join(map(repr, choices))}, received {value!r}")
