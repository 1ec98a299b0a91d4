"""One scan: a prepared null model and its phenotypes against blocks of features."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from annlmm._settings import settings
from annlmm._slots.fit import StoredNull
from annlmm.model.association import Association, Scan, make_scan
from annlmm.model.basis import GroupBasis
from annlmm.model.exact import ExactScan, make_exact_scan
from annlmm.model.null import NullModel
from annlmm.model.response import residual_of
from annlmm.model.scan import FeatureTests, ScanEngine
from annlmm.model.search import bounded_minimum
from annlmm.tl._pass import Features, one_pass


@dataclass(frozen=True)
class ScanOptions:
    """What is tested and how: the arguments of `al.tl.associate`."""

    tests: tuple[str, ...]
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
    results: dict[str, list[Association]],
    *,
    check: bool = True,
) -> None:
    """Test `columns` against the phenotypes `members` at `gammas`, into the `results` of each test.

    `gammas` is changed where the first test takes another γ than the null model's; `check` compares the null with what was
    stored.
    """
    variance = options.variance if model.basis.rank else "null"  # least squares has no γ to estimate
    tests, null_gammas = [], gammas.copy()
    for k, test in enumerate(options.tests):
        at = gammas if k == 0 else null_gammas.copy()
        scans, exact, my = _scans(model, stored, rows, members, test, variance, at, check=check)
        tests.append(FeatureTests(test, variance, scans, exact, options.threshold, options.df == "satterthwaite"))
    engine = ScanEngine(
        model.design, model.basis, my, tests, refuse_missing=features.refuse_missing, threads=settings.threads
    )
    for chosen, parts in one_pass(
        features, rows, columns, engine.reduction, engine.test, engine.evaluator, engine.carefully, "associate"
    ):
        for (test, j), part in zip(product(options.tests, members), parts, strict=True):
            results[test][j].assign(chosen, part)


def _scans(
    model: NullModel,
    stored: StoredNull,
    rows: NDArray[np.intp],
    members: list[int],
    test: str,
    variance: str,
    gammas: NDArray[np.float64],
    *,
    check: bool,
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
        if model.basis.rank and (variance != "null" or isinstance(model.basis, GroupBasis)):
            exact.append(make_exact_scan(model.space, model.response(y), reml=test == "wald", name=name))
    return scans, exact, np.stack(residuals, axis=1)
