"""Type I error of every test of `al.tl.associate` over n, p, h² and kernel, and what estimating γ again is worth at matched size.

Tables and a figure in benchmarks/results.
"""

from __future__ import annotations

import sys
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from _association_figure import figure
from _association_tests import (
    CERTAIN,
    EVERY,
    GROUPED,
    LEVELS,
    LRT,
    LRT_REFIT,
    METHODS,
    REFIT,
    SCORE,
    WALD,
    Pair,
    Tally,
    make_pair,
    p_of,
    r_squared,
    refitter_of,
    rotated,
    run_all,
    run_grouped,
)
from _common import largest, start
from _page import Page, parser
from _spaces import covariates, gamma_of, groups, low_rank, null_model, relatedness
from anndata import AnnData
from numpy.typing import NDArray

import annlmm as al
from annlmm.model.basis import Basis
from annlmm.model.statistics import feature_statistics

Float = NDArray[np.float64]

SIZES, FIXED, H_SQS = (50, 200, 1000), (1, 5, 20), (0.0, 0.3, 0.9)
GROUPS = {50: 10, 200: 20, 1000: 50}
KERNELS = ("groups", "GRM", "low rank")
# Share of a feature's variance that follows K: all of it for a SNP, half for a gene of cells.
FOLLOWS = {"groups": 0.5, "GRM": 1.0, "low rank": 0.5}
RESPONSES, FEATURES, BLOCK = 1000, 1000, 100
POWER_P, POWER_RESPONSES, POWER_H_SQS = 5, 2000, (0.3, 0.9)
# Noncentrality at the true γ: power of one half at a level of 0.001, and at 0.05.
EFFECTS = {0.001: 3.29, 0.05: 1.96}


def seed_of(*parts: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(" ".join(map(str, parts)).encode()))


def basis_of(kernel: str, n: int) -> Basis:
    rng = seed_of(kernel, n)
    if kernel == "groups":
        sizes = np.maximum(rng.multinomial(n, rng.dirichlet(np.full(GROUPS[n], 4.0))), 2)
        sizes[np.argmax(sizes)] += n - sizes.sum()
        return groups(sizes)
    return relatedness(n) if kernel == "GRM" else low_rank(n, n // 5, rng)


def responses(pair: Pair, h_sq: float, number: int, rng: np.random.Generator) -> Float:
    """(n−p) × number, σ² = γ, τ² = 1."""
    mu = pair.mu
    return np.sqrt(1.0 + gamma_of(h_sq) * mu)[:, None] * rng.standard_normal((mu.size, number))


def features(pair: Pair, kernel: str, number: int, rng: np.random.Generator) -> Float:
    mu, share = pair.mu, FOLLOWS[kernel]
    return np.sqrt(share * mu + 1.0 - share) * rng.standard_normal((number, mu.size))


def null_tests(kernel: str, n: int, p: int, h_sq: float, number: int, m: int) -> Tally:
    pair, found = make_pair(null_model(basis_of(kernel, n), p, seed_of("x", n, p))), Tally()
    rng = seed_of(kernel, n, p, h_sq)
    for _ in range(0, number, min(BLOCK, number)):
        y = responses(pair, h_sq, min(BLOCK, number), rng)
        run_all(pair, y, features(pair, kernel, m, rng), found, keep=p == POWER_P and h_sq in POWER_H_SQS)
    return found


def grouped_tests(n: int, p: int, h_sq: float, number: int, m: int) -> Tally:
    """A variable of the groups, on their rows."""
    basis = basis_of("groups", n)
    model, found = null_model(basis, p, seed_of("x", n, p)), Tally()
    pair = make_pair(model)
    rng = seed_of("constant", n, p, h_sq)
    for _ in range(0, number, min(BLOCK, number)):
        shape = (basis.counts.size, min(BLOCK, number))
        y = np.sqrt(gamma_of(h_sq)) * rng.standard_normal(shape)[basis.codes] + rng.standard_normal((n, shape[1]))
        my = model.design.residualise(y)
        block = rng.standard_normal((basis.counts.size, m))[basis.codes]
        run_grouped(pair, my, feature_statistics(block, my, model.design, basis, model.space), found)
    return found


def powers(kernel: str, n: int, h_sq: float, nulls: Tally, number: int) -> dict[float, tuple[Float, Float, Float]]:
    """Per level, which of the responses are found at the true γ, at the null's and with γ estimated again."""
    pair = make_pair(null_model(basis_of(kernel, n), POWER_P, seed_of("x", n, POWER_P)))
    found = {}
    for level, effect in EFFECTS.items():
        rng = seed_of("power", kernel, n, h_sq, level)
        y, a = responses(pair, h_sq, number, rng), features(pair, kernel, number, rng)
        w = 1.0 / (1.0 + gamma_of(h_sq) * pair.mu)
        y += effect / np.sqrt((a * a) @ w) * a.T
        gamma, _ = pair.gammas(y)
        known = np.concatenate([p_of("wald", pair, r_squared(pair, y[:, [j]], a[[j]], np.array([gamma_of(h_sq)])))[0] for j in range(number)])  # fmt: skip
        null = np.concatenate([p_of("wald", pair, r_squared(pair, y[:, [j]], a[[j]], gamma[[j]]))[0] for j in range(number)])  # fmt: skip
        refit = np.concatenate([refitter_of(pair, y[:, j], reml=True).test_rotated(rotated(pair, a[[j]], y[:, j])).p_value for j in range(number)])  # fmt: skip
        found[level] = known < level, null < nulls.cut(WALD, level), refit < nulls.cut(REFIT, level)
    return found


def same_as_associate() -> dict[str, float]:
    """The largest difference of log10 p between the batches here and `al.tl.associate`, per kernel."""
    n, m, found = 200, 300, {}
    for kernel in KERNELS:
        rng, basis = seed_of("same", kernel), basis_of(kernel, n)
        design = covariates(n, 3, rng)
        adata = AnnData(rng.standard_normal((n, m)), obs=pd.DataFrame(design.x[:, 1:], columns=["c0", "c1"], index=[f"r{i}" for i in range(n)]))  # fmt: skip
        adata.obs["y"] = basis.expand(np.sqrt(basis.eigenvalues) * rng.standard_normal(basis.rank)) + rng.standard_normal(n)  # fmt: skip
        if kernel == "groups":
            adata.obs["group"] = pd.Categorical(basis.codes.astype(str))
            al.pp.kernel_group(adata, "group")
        else:
            al.pp.kernel_precomputed(adata, basis.expand(basis.expand(np.diag(basis.eigenvalues)).T))
        al.tl.fit_null(adata, "y", covariates=["c0", "c1"])
        al.tl.associate(adata, test=["wald", "lrt", "score"])
        for test in ("wald", "lrt"):
            al.tl.associate(adata, test=test, variance="refit", key_added=f"{test}_refit")
        theirs = {
            WALD: adata.var["lmm_p_value"], LRT: adata.var["lmm_p_value_lrt"], SCORE: adata.var["lmm_p_value_score"],
            REFIT: adata.var["wald_refit_p_value"], LRT_REFIT: adata.var["lrt_refit_p_value"],
        }  # fmt: skip
        model = null_model(basis, 3, seed_of("same", kernel))
        pair = make_pair(model)
        my = design.residualise(adata.obs["y"].to_numpy())
        ours = in_batch(pair, my, np.asarray(adata.X))
        found[kernel] = max(float(largest(np.log10(theirs[name].to_numpy()) - np.log10(p))) for name, p in ours.items())
    return found


def in_batch(pair: Pair, my: Float, x: Float) -> dict[str, Float]:
    """p-values of one response by the functions of the simulation."""
    model = pair.reml
    v, rest = orthonormal(model)
    y = np.r_[v.T @ my, rest.T @ my][:, None]
    a = (model.design.residualise(x).T @ np.column_stack([v, rest])).copy()
    gamma, gamma_ml = pair.gammas(y)
    at_null = r_squared(pair, y, a, gamma)
    found = {WALD: p_of("wald", pair, at_null)[:, 0], LRT: p_of("lrt", pair, at_null)[:, 0]}
    found[SCORE] = p_of("score", pair, r_squared(pair, y, a, gamma_ml))[:, 0]
    for method, reml in ((REFIT, True), (LRT_REFIT, False)):
        exact = refitter_of(pair, y[:, 0], reml=reml)
        found[method] = exact.test_rotated(rotated(pair, a, y[:, 0])).p_value
    return found


def orthonormal(model) -> tuple[Float, Float]:
    """V, and a basis of what is orthogonal to it and to X."""
    space = model.space
    v = np.column_stack([model.design.residualise(model.basis.expand(space.unrotate(e))) for e in np.eye(space.k)])
    whole = np.linalg.qr(np.column_stack([model.design.q, v]), mode="complete")[0]
    return v, whole[:, space.p + space.k :]


def size_tables(report: Page, tallies: dict[tuple[str, int, int, float], Tally]) -> None:
    for i, level in enumerate(LEVELS):
        report.text(f"Size at p < {level:g} over {level:g}, h² = {', '.join(f'{h:g}' for h in H_SQS)}:")
        report.table("kernel", "n", "p", "error", *METHODS)
        for kernel, n, p in dict.fromkeys(key[:3] for key in tallies):
            own = [tallies[kernel, n, p, h] for h in H_SQS]
            error = max(tally.error(WALD, i) for tally in own)
            report.row(kernel, n, p, f"±{error:.3f}", *(", ".join(t.cell(m, i) for t in own) for m in METHODS))
        report.end()


def summary(report: Page, tallies: dict[tuple[str, int, int, float], Tally]) -> None:
    """Smallest and largest ratio of each test, by n and level."""
    report.text("Smallest and largest size over its nominal value, over kernels, p and h²:")
    report.table("level", "n", *METHODS)
    for i, level in enumerate(LEVELS):
        for n in dict.fromkeys(key[1] for key in tallies):
            cells = []
            for method in METHODS:
                ratios = [t.ratio(method, i) for key, t in tallies.items() if key[1] == n and t.shown(method)]
                cells.append("–".join(f"{r:.2f}" if r < 100 else f"{r:,.0f}" for r in (min(ratios), max(ratios))))
            report.row(f"{level:g}", n, *cells)
    report.end()


def grouped_tables(report: Page, tallies: dict[tuple[int, int, float], Tally]) -> None:
    for i, level in enumerate(LEVELS):
        report.text(f"Size at p < {level:g} over {level:g}, h² = {', '.join(f'{h:g}' for h in H_SQS)}:")
        report.table("groups", "n", "p", "error", *GROUPED)
        for n, p in dict.fromkeys(key[:2] for key in tallies):
            own = [tallies[n, p, h] for h in H_SQS]
            error = max(tally.error(GROUPED[0], i) for tally in own)
            report.row(GROUPS[n], n, p, f"±{error:.3f}", *(", ".join(t.cell(m, i) for t in own) for m in GROUPED))
        report.end()


def power_table(report: Page, found: dict[tuple[str, int, float], dict[float, tuple[Float, Float, Float]]]) -> None:
    report.table("kernel", "n", "h²", *(f"{text}, size {level:g}" for level in EFFECTS for text in ("γ known", "null's γ", "refit", "refit − null's γ")))  # fmt: skip
    for (kernel, n, h_sq), levels in found.items():
        cells: list[str] = []
        for known, null, refit in levels.values():
            apart = refit.astype(float) - null
            cells += [f"{known.mean():.3f}", f"{null.mean():.3f}", f"{refit.mean():.3f}", f"{apart.mean():+.3f} ± {apart.std() / np.sqrt(apart.size):.3f}"]  # fmt: skip
        report.row(kernel, n, f"{h_sq:g}", *cells)
    report.end()


def said(text: str) -> None:
    """What is done, and the processor's seconds until then."""
    print(f"{text}: {time.process_time():.0f} s", file=sys.stderr)


def main() -> None:
    arguments = parser(__doc__).parse_args()
    start(arguments)
    small = arguments.small
    number, m, p_values = (20, 100, (5,)) if small else (RESPONSES, FEATURES, FIXED)
    sizes = (50, 200) if small else SIZES
    report = Page(__file__, "Tests of association: size and power", arguments)
    report.text(
        f"![Size of the tests](association.png)\n\n{number:,} null responses × {m:,} features per cell (features drawn anew for every {BLOCK} responses), Gaussian, in the REML space: num, den and p-values by the registry of tests, refits by `model.exact`. *Groups*: {', '.join(f'{GROUPS[n]} of {n} rows' for n in sizes)}, unequal; half of a feature's variance is "
        "between groups. *GRM*: donors in families of 3 and five populations, rank n − 1; features follow K, as SNPs do. *Low rank*: an embedding of n/5 columns; half of a feature's variance follows K. p counts the constant. h² in the order 0, 0.3, 0.9. "
        f"Where γ is estimated again, it is for all features with p < {CERTAIN} at the null's γ and for one in {EVERY} of the others, which counts {EVERY} times. Sizes over their nominal value; bold: above by more than three standard errors (those between responses, whose tests share γ̂), italic: below; *error*: the "
        "largest of the Wald test's three."
    )
    same = same_as_associate()
    report.text("Beside `al.tl.associate`, 300 features each, the largest difference of log10 p over the five tests: " + ", ".join(f"{kernel} {value:.0e}" for kernel, value in same.items()) + ".")  # fmt: skip
    if max(same.values()) > 1e-6:
        raise RuntimeError(f"the batches are not al.tl.associate: {same}")
    tallies = {}
    for kernel in KERNELS:
        for n in sizes:
            for p in p_values:
                for h_sq in H_SQS:
                    tallies[kernel, n, p, h_sq] = null_tests(kernel, n, p, h_sq, number, m)
            said(f"{kernel}, n = {n}")
    report.text("## Features of the rows")
    summary(report, tallies)
    size_tables(report, tallies)
    refused = {key: tally.refused.get(SCORE, 0) for key, tally in tallies.items() if tally.refused.get(SCORE, 0)}
    pairs = sum(tally.refused.get(LRT_REFIT, 0) for tally in tallies.values())
    report.text(
        f"Responses whose full likelihood has no maximum (a centred kernel of full rank under a constant, `fit_null(reml=False)` refuses them): {sum(refused.values())} of {number * len(tallies):,}"
        f"{'' if not refused else ', at most ' + str(max(refused.values())) + ' in a cell'}; left out of *score* and *lrt, refit*, and – where they are more than a tenth. Refits without a maximum: {pairs:,}, counted as not below any level."
    )
    grouped = {}
    for n in sizes:
        for p in p_values:
            for h_sq in H_SQS:
                grouped[n, p, h_sq] = grouped_tests(n, p, h_sq, number, m)
        said(f"features of groups, n = {n}")
    report.text(
        "## Features of the groups\n\nConstant within the groups of the kernel (a genotype or treatment of the donor over cells), Wald test, by `df` and `variance`. The covariates are those of the rows. *Null* is the null's γ alone: with 10 groups, p-values near the largest statistic that it allows are too small. `al.tl.associate` therefore estimates γ again below 1e-4 whatever `variance` is, which is *screen*, the default of `al.tl.map_eqtl`."
    )
    grouped_tables(report, grouped)
    found = {}
    for kernel in KERNELS:
        for n in sizes:
            for h_sq in POWER_H_SQS:
                key = kernel, n, POWER_P, h_sq
                found[kernel, n, h_sq] = powers(kernel, n, h_sq, tallies[key], 50 if small else POWER_RESPONSES)
        said(f"power, {kernel}")
    report.text(
        f"## Power at matched size\n\nWald test, p = {POWER_P}, {50 if small else POWER_RESPONSES:,} responses per row and level, each with a feature of noncentrality {', '.join(f'{e:g} (size {level:g})' for level, e in EFFECTS.items())} at the true γ. The p-value that counts as found is the quantile of the null tests above, so that each test has exactly the size."
    )
    power_table(report, found)
    if not small or arguments.output is not None:
        figure(tallies, grouped, report.folder / f"{report.name}.png")
    report.text(f"Time: {time.process_time() / 60:.1f} minutes of the processor.")
    report.write()
    said("all")


if __name__ == "__main__":
    main()
