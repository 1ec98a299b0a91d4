"""One scan: a prepared null model and its phenotypes against blocks of features."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from annlmm._settings import settings
from annlmm._slots.fit import StoredNull
from annlmm.model.association import Association, make_scan
from annlmm.model.basis import GroupBasis
from annlmm.model.exact import ExactScan, check_refit, make_exact_scan
from annlmm.model.null import NullModel
from annlmm.model.response import residual_of
from annlmm.model.scan import FeatureTests, ScanEngine
from annlmm.model.search import bounded_minimum
from annlmm.tl._pass import Features, one_pass

Float = NDArray[np.float64]
Index = NDArray[np.intp]


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
    rows: Index,
    members: list[int],
    gammas: Float,
    features: Features,
    columns: Index,
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
    projected = [_project(model, stored.y[rows, j]) for j in members]
    null_gammas = gammas.copy()
    if check:
        for j, (_, u, outside) in zip(members, projected, strict=True):
            scan = make_scan(model.space, u, outside, float(null_gammas[j]))
            scale = scan.gls.gamma if np.isinf(scan.gamma) else 1.0
            stored.check_unchanged(j, scan.rss * scale, _condition(model, scan.gls.w))
    tests = []
    for k, test in enumerate(options.tests):
        at = gammas if k == 0 else null_gammas.copy()
        if test == "score" and stored.reml and not stored.gamma_fixed:
            _maximum_likelihood(model, stored, rows, members, at)
        scans = [
            make_scan(model.space, u, outside, float(at[j]))
            for j, (_, u, outside) in zip(members, projected, strict=True)
        ]
        exact = _exact(model, stored, rows, members, test, variance)
        tests.append(FeatureTests(test, variance, scans, exact, options.threshold, options.df == "satterthwaite"))
    my = np.stack([residual for residual, _, _ in projected], axis=1)
    engine = ScanEngine(
        model.design, model.basis, my, tests, refuse_missing=features.refuse_missing, threads=settings.threads
    )
    for chosen, parts in one_pass(
        features, rows, columns, engine.reduction, engine.test, engine.evaluator, engine.carefully, "associate"
    ):
        for (test, j), part in zip(product(options.tests, members), parts, strict=True):
            results[test][j].assign(chosen, part)


def _condition(model: NullModel, w: Float) -> float:
    """Of V = I + γK from its inverse eigenvalues, which are 1 outside K."""
    outside = 1.0 if model.basis.rank < model.basis.n else 0.0
    return float(max(w.max(initial=outside), outside) / w.min(initial=1.0))


def _project(model: NullModel, y: Float) -> tuple[Float, Float, float]:
    """My, Uᵀ(My) and the sum of squares of My outside U."""
    my, _ = residual_of(y, model.design)
    u = model.basis.project(my)
    rest = my - model.basis.expand(u)
    return my, u, float(rest @ rest)


def _maximum_likelihood(model: NullModel, stored: StoredNull, rows: Index, members: list[int], gammas: Float) -> None:
    """Put the maximum-likelihood γ of the null, which GEMMA's score test takes, in place of the restricted one."""
    likelihood = NullModel(model.design, model.basis, reml=False, identifiable=False, kernel=model.kernel)
    for j in members:
        profile = likelihood.profile(likelihood.response(stored.y[rows, j]))
        gammas[j] = bounded_minimum(profile, _named(stored, j)).gamma


def _exact(
    model: NullModel, stored: StoredNull, rows: Index, members: list[int], test: str, variance: str
) -> list[ExactScan]:
    """One refit per phenotype, where one may be needed."""
    if not model.basis.rank or (variance == "null" and not isinstance(model.basis, GroupBasis)):
        return []
    if variance != "null" and test == "wald":
        check_refit(model.space)
    return [
        make_exact_scan(model.space, model.response(stored.y[rows, j]), reml=test == "wald", name=_named(stored, j))
        for j in members
    ]


def _named(stored: StoredNull, j: int) -> str:
    return f"phenotype {stored.names[j]!r}"
