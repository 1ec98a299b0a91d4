"""One scan: a prepared null model and its phenotypes against blocks of features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from annlmm._settings import settings
from annlmm._slots.fit import StoredNull
from annlmm.blocks import column_blocks
from annlmm.model.association import Association, Scan, make_scan
from annlmm.model.basis import GroupBasis
from annlmm.model.exact import ExactScan, make_exact_scan
from annlmm.model.null import NullModel
from annlmm.model.parallel import map_blocks
from annlmm.model.response import residual_of
from annlmm.model.scan import ScanEngine
from annlmm.model.search import bounded_minimum


@dataclass(frozen=True)
class Features:
    """Where the features come from, and what to do with missing values."""

    adata: AnnData
    matrix: Any
    missing: str


@dataclass(frozen=True)
class ScanOptions:
    """What is tested and how: the arguments of `al.tl.associate`."""

    test: str
    variance: str
    threshold: float
    df: str


def run_scan(
    model: NullModel,
    stored: StoredNull,
    rows: NDArray[np.intp],
    members: list[int],
    gammas: NDArray[np.float64],
    features: Features,
    columns: NDArray[np.intp],
    options: ScanOptions,
    results: list[Association],
    *,
    check: bool = True,
) -> None:
    """Test `columns` against the phenotypes `members` at `gammas`, into `results`.

    `gammas` is changed where the test takes another γ than the null model's; `check` compares the null with what was stored.
    """
    scans, exact, my = _scans(model, stored, rows, members, options, gammas, check=check)
    engine = ScanEngine(
        model.design,
        model.basis,
        my,
        scans,
        exact,
        test=options.test,
        variance=options.variance if model.basis.rank else "null",  # least squares has no γ to estimate
        threshold=options.threshold,
        grouped_df=options.df == "satterthwaite",
    )
    blocks = _checked_blocks(features, rows, columns, model)
    for chosen, parts in map_blocks(engine, blocks, settings.threads):
        for j, part in zip(members, parts, strict=True):
            results[j].assign(chosen, part)


def _scans(
    model: NullModel,
    stored: StoredNull,
    rows: NDArray[np.intp],
    members: list[int],
    options: ScanOptions,
    gammas: NDArray[np.float64],
    *,
    check: bool,
) -> tuple[list[Scan], list[ExactScan], NDArray[np.float64]]:
    """One prepared scan (and refit, where one may be needed) per phenotype, and the phenotypes without the covariates."""
    scans, exact, residuals = [], [], []
    # GEMMA's score test takes the maximum-likelihood γ of the null.
    likelihood = (
        NullModel(model.design, model.basis, reml=False, identifiable=False, kernel=model.kernel)
        if options.test == "score" and stored.reml
        else model
    )
    for j in members:
        y = stored.y[rows, j]
        gamma, name = float(gammas[j]), f"phenotype {stored.names[j]!r}"
        if likelihood is not model and not stored.gamma_fixed:
            gammas[j] = bounded_minimum(likelihood.profile(likelihood.response(y)), name).gamma
        my, _ = residual_of(y, model.design)
        u = model.basis.project(my)
        rest = my - model.basis.expand(u)
        scan = make_scan(model.space, u, float(rest @ rest), gamma)
        if check:
            stored.check_unchanged(j, scan.rss * (scan.gls.gamma if np.isinf(gamma) else 1.0))
        if gammas[j] != gamma:
            scan = make_scan(model.space, u, float(rest @ rest), float(gammas[j]))
        scans.append(scan)
        residuals.append(my)
        if model.basis.rank and (options.variance != "null" or isinstance(model.basis, GroupBasis)):
            exact.append(make_exact_scan(model.space, model.response(y), reml=options.test == "wald", name=name))
    return scans, exact, np.stack(residuals, axis=1)


def _checked_blocks(
    features: Features, rows: NDArray[np.intp], columns: NDArray[np.intp], model: NullModel
) -> Iterator[tuple[NDArray[np.intp], Any]]:
    """Blocks of features with a progress bar; infinite values, and missing ones if not wanted, are refused by name."""
    from tqdm.auto import tqdm

    # Blocks in flight: a block (and its conversion) with its rotation of at most r rows.
    rows_in_memory = (0 if sparse.issparse(features.matrix) else rows.size) + model.basis.rank + 2 * model.design.p + 16
    width = max(1, int(settings.block_memory // (8 * rows_in_memory * (settings.threads + 1))))
    # Several blocks to a thread, so that none waits for the last one.
    width = min(width, max(256, -(-columns.size // (4 * settings.threads))))
    with tqdm(total=columns.size, desc="associate", unit=" features", disable=not settings.progress, delay=3.0) as bar:
        for block in column_blocks(features.matrix, rows, columns, width):
            sparse_block = sparse.issparse(block.array)
            values = block.array.data if sparse_block else block.array
            with np.errstate(invalid="ignore", over="ignore"):
                total = values.sum()
            if not np.isfinite(total) and np.isinf(values).any():
                raise ValueError(
                    f"{_features(features.adata, block, np.isinf)}: infinite values; replace them or leave these out with mask_var"
                )
            if features.missing == "raise" and np.isnan(values).any():
                raise ValueError(
                    f"{_features(features.adata, block, np.isnan)}: missing values; use missing='mean' or leave these out with mask_var"
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
