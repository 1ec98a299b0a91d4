"""Calibration of `al.tl.fit_null`: coverage of the interval of h², bias of its estimate, size of the test of σ² = 0.

Groups of unequal sizes and a full-rank GRM. Tables and a figure in benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from _common import start
from _null_model_figure import figure
from _page import Page, marked, parser
from _spaces import draw, gamma_of, group_sizes, groups, null_model, relatedness
from numpy.typing import NDArray
from scipy.special import erfc

from annlmm.model.basis import Basis
from annlmm.model.null import NullModel
from annlmm.model.profile import make_profile
from annlmm.model.responses import fit_responses

Float = NDArray[np.float64]

GROUPS = (8, 20, 100, 500)
H_SQS = (0.0, 0.05, 0.5, 0.95)
LEVELS = (0.05, 0.01, 0.001, 0.0001, 0.00001)
DONORS = 300
P = 2
# Every seed draws its own null distributions, as another call of fit_null with another rng would.
SEEDS, INTERVALS, ENDS = 20, 2000, 50
NULL_SEEDS, NULLS, BLOCK = 20, 200_000, 20_000
CHI_SQUARE = 3.841458820694124


@dataclass(frozen=True)
class Coverage:
    """Of one kernel and h².

    Attributes
    ----------
    inside, inside_chi_square
        Shares of the intervals that hold h², per seed.
    below, above
        Shares of all intervals that end below h² or begin above it.
    ends, differ
        Number of intervals whose ends were computed; how many of these decide otherwise than `inside` does.
    width
        Their mean width.
    h_sq
        All estimates.
    """

    inside: Float
    inside_chi_square: Float
    below: float
    above: float
    ends: int
    differ: int
    width: float
    h_sq: Float

    def error(self, shares: Float) -> float:
        """Standard error of a mean share: that between the seeds, and no less than the binomial one."""
        mean = shares.mean()
        return float(max(shares.std(ddof=1) / np.sqrt(shares.size), np.sqrt(mean * (1 - mean) / self.h_sq.size)))


@dataclass(frozen=True)
class Size:
    """Of the test of σ² = 0: the shares below `LEVELS` (seeds × levels) by its p-value and by the mixture; its p at one statistic per level and seed."""

    exact: Float
    mixture: Float
    same: Float
    nulls: int

    def error(self, shares: Float, i: int) -> float:
        """Of the ratio to the level."""
        level = LEVELS[i]
        between = shares[:, i].std(ddof=1) / np.sqrt(len(shares)) / level
        return float(max(between, np.sqrt((1 - level) / (level * self.nulls))))

    def spread(self, i: int) -> float:
        """Relative standard deviation of a p-value near the level, from seed to seed."""
        return float(self.same[:, i].std(ddof=1) / self.same[:, i].mean())


def kernels() -> dict[str, Basis]:
    found: dict[str, Basis] = {
        f"{number} groups": groups(group_sizes(number, np.random.default_rng([1, number]))) for number in GROUPS
    }
    return {**found, f"GRM, {DONORS} donors": relatedness(DONORS)}


def model_of(basis: Basis, seed: int) -> NullModel:
    """The same covariates for every seed."""
    return null_model(basis, P, np.random.default_rng(2), seed=seed)


def coverage(basis: Basis, h_sq: float, seeds: int, number: int, n_ends: int) -> Coverage:
    """By the interval's definition, that LR(γ₀) is at most its quantile at the true γ₀; the ends themselves of the first `n_ends` per seed."""
    gamma = gamma_of(h_sq)
    inside, excess, estimates, ends = [], [], [], []
    for seed in range(seeds):
        model = model_of(basis, seed)
        drawn = draw(model, h_sq, number, np.random.default_rng([3, seed, int(100 * h_sq), basis.n]))
        estimate = fit_responses(model, drawn, simulate=False).gamma
        if not np.isfinite(drawn.v).all() or np.isnan(estimate).any():
            raise RuntimeError("estimates are missing")
        profiles = [make_profile(model.space, drawn.v[:, j], float(drawn.rest[j]), reml=True) for j in range(number)]
        lowest = np.array([profile.value(float(g)) for profile, g in zip(profiles, estimate, strict=True)])
        excess.append(np.array([profile.value(gamma) for profile in profiles]) - lowest)
        inside.append(excess[-1] <= model.variance_null.quantile(gamma))
        estimates.append(estimate)
        ends.append([model.variance_null.interval(profiles[j], float(estimate[j]), float(lowest[j])) for j in range(n_ends)])  # fmt: skip
    found, held, h = np.array(inside), np.array(estimates), np.array(ends)
    with np.errstate(invalid="ignore"):
        as_h_sq, estimated = (np.where(np.isinf(g), 1.0, g / (1.0 + g)) for g in (h, held))
    by_ends = (h[:, :, 0] <= gamma) & (gamma <= h[:, :, 1])
    return Coverage(
        inside=found.mean(axis=1),
        inside_chi_square=np.mean(np.array(excess) <= CHI_SQUARE, axis=1),
        # Every interval holds its estimate.
        below=float(np.mean(~found & (held < gamma))),
        above=float(np.mean(~found & (held > gamma))),
        ends=by_ends.size,
        differ=int(np.sum(by_ends != found[:, :n_ends])),
        width=float((as_h_sq[:, :, 1] - as_h_sq[:, :, 0]).mean()),
        h_sq=estimated.ravel(),
    )


def size(basis: Basis, seeds: int, number: int) -> Size:
    """p-values of null responses, each seed with its own simulated null."""
    exact, mixture, same = (
        np.zeros((seeds, len(LEVELS))),
        np.zeros((seeds, len(LEVELS))),
        np.empty((seeds, len(LEVELS))),
    )
    levels = np.array(LEVELS)
    cuts = None
    for seed in range(seeds):
        model = model_of(basis, seed)
        rng = np.random.default_rng([4, seed, basis.n])
        if cuts is None:
            null = model.rlrt
            cuts = null.statistic[np.searchsorted(null.log_tail, np.log(levels))]
        same[seed] = np.exp(model.rlrt.log_p_value(cuts))
        block = min(BLOCK, number)
        for _ in range(number // block):
            ratio = fit_responses(model, draw(model, 0.0, block, rng), simulate=False).likelihood_ratio
            p = np.exp(model.rlrt.log_p_value(ratio))
            own = np.where(ratio > 0, 0.5 * erfc(np.sqrt(ratio / 2)), 1.0)
            if not np.isfinite(p).all():
                raise RuntimeError("p-values are missing")
            exact[seed] += (p[:, None] < levels).sum(axis=0)
            mixture[seed] += (own[:, None] < levels).sum(axis=0)
        exact[seed] /= number // block * block
        mixture[seed] /= number // block * block
    return Size(exact, mixture, same, seeds * number)


def intervals(report: Page, small: bool) -> dict[tuple[str, float], Coverage]:
    seeds, number, ends = (2, 40, 10) if small else (SEEDS, INTERVALS, ENDS)
    total = seeds * number
    report.text(
        f"## The 95 % interval of h²\n\n{total:,} responses per row ({seeds} seeds of the simulated null, {number:,} each): whether the likelihood ratio at the true h² is at most its simulated quantile there, which is what the interval collects. The ends themselves, which interpolate that quantile, are computed of {seeds * ends:,} per row: *mean width*, and *differ*: how many of these decide otherwise. *χ² cut*: coverage of the profile likelihood cut at 3.84, as is usual. *At 0*, *at 1*: shares of estimates on "
        f"the boundary. The standard error of a coverage is {100 * np.sqrt(0.05 * 0.95 / total):.2f} points, or more where the seeds differ by more; the aim is 95 ± 1 %."
    )
    report.table("kernel", "h²", "coverage, %", "error", "interval below h², %", "above, %", "mean width", "differ", "χ² cut, %", "mean of ĥ²", "bias", "median", "standard deviation", "at 0", "at 1")  # fmt: skip
    found = {}
    for label, basis in kernels().items():
        for h_sq in H_SQS:
            own = found[label, h_sq] = coverage(basis, h_sq, seeds, number, ends)
            mean, error, estimates = 100 * own.inside.mean(), 100 * own.error(own.inside), own.h_sq
            bias = estimates.mean() - h_sq
            report.row(
                label, f"{h_sq:g}", marked(mean, error, 95.0), f"±{error:.2f}", 100 * own.below, 100 * own.above, f"{own.width:.3f}", own.differ,
                marked(100 * own.inside_chi_square.mean(), 100 * own.error(own.inside_chi_square), 95.0), f"{estimates.mean():.3f}",
                f"{bias:+.3f} ± {estimates.std() / np.sqrt(estimates.size):.3f}", f"{np.median(estimates):.3f}", f"{estimates.std():.3f}",
                f"{np.mean(estimates == 0):.3f}", f"{np.mean(estimates == 1):.3f}",
            )  # fmt: skip
        said(f"intervals, {label}")
    report.end()
    return found


def sizes(report: Page, small: bool) -> dict[str, Size]:
    seeds, number = (2, 2000) if small else (NULL_SEEDS, NULLS)
    report.text(
        f"## The test of σ² = 0\n\n{seeds * number:,} null responses per kernel, {number:,} for each of {seeds} seeds of the simulated null. Sizes over their nominal value by `h_sq_p_value`, and by the mixture ½χ²₀ + ½χ²₁ (`h_sq_p_value_mixture`). "
        "*From seed to seed*: relative standard deviation of the p-value of one response at that level, which is what another `rng` changes."
    )
    names = [f"{level:g}" for level in LEVELS]
    report.table("kernel", "p-value", *(f"p < {name}" for name in names))
    found = {}
    for label, basis in kernels().items():
        own = found[label] = size(basis, seeds, number)
        for name, shares in (("simulated null", own.exact), ("mixture of χ²", own.mixture)):
            cells = [
                f"{marked(shares[:, i].mean() / level, own.error(shares, i))} ± {own.error(shares, i):.3f}"
                for i, level in enumerate(LEVELS)
            ]
            report.row(label, name, *cells)
        said(f"sizes, {label}")
    report.end()
    report.table("kernel", *(f"from seed to seed, p = {name}" for name in names))
    for label, own in found.items():
        report.row(label, *(f"{100 * own.spread(i):.1f} %" for i in range(len(LEVELS))))
    report.end()
    return found


def verdict(report: Page, found: dict[tuple[str, float], Coverage], tests: dict[str, Size]) -> None:
    """What the tables say, from their numbers."""
    values = [100 * own.inside.mean() for own in found.values()]
    off = [
        f"{label} at h² = {h:g} ({100 * own.inside.mean():.1f} %)"
        for (label, h), own in found.items()
        if not 94 <= 100 * own.inside.mean() <= 96
    ]
    where = f"outside 95 ± 1 %: {', '.join(off)}" if off else "all within 95 ± 1 %"
    apart = {
        (label, level): (own.exact[:, i].mean() / level, own.error(own.exact, i))
        for label, own in tests.items()
        for i, level in enumerate(LEVELS)
    }
    beyond = [f"{label} at {level:g} ({r:.2f} ± {e:.2f})" for (label, level), (r, e) in apart.items() if abs(r - 1) > 3 * e]  # fmt: skip
    mixture = [own.mixture[:, i].mean() / level for own in tests.values() for i, level in enumerate(LEVELS)]
    report.text(
        f"Coverage of the simulated interval is {min(values):.1f} to {max(values):.1f} % ({where}). The size of the simulated-null test is {min(r for r, _ in apart.values()):.2f} to {max(r for r, _ in apart.values()):.2f} of nominal, "
        f"more than three standard errors off {'nowhere' if not beyond else 'for ' + ', '.join(beyond)}; that of the mixture {min(mixture):.2f} to {max(mixture):.2f}."
    )


def said(text: str) -> None:
    """What is done, and the processor's seconds until then."""
    print(f"{text}: {time.process_time():.0f} s", file=sys.stderr)


def main() -> None:
    arguments: argparse.Namespace = parser(__doc__).parse_args()
    start(arguments)
    report = Page(__file__, "The null model: interval, bias and test of h²", arguments)
    basis = kernels()
    rows = ", ".join(f"{b.n:,} ({label})" for label, b in basis.items())
    report.text(
        f"![Coverage, estimates, size](null_model.png)\n\nRestricted maximum likelihood, the constant and one covariate of the rows. Groups of unequal sizes (lognormal, median 8, 2 to 40 rows), or the GRM of donors in families of 3 and five populations, whose rank is full "
        f"(h² = 1 is possible). Rows: {rows}. Responses are drawn in the REML space and fitted by `model.responses.fit_responses`; intervals and p-values are those of `model.variance_test`, as in `al.tl.fit_null`. Bold: above by more than three standard errors, italic: below."
    )
    found = intervals(report, arguments.small)
    tests = sizes(report, arguments.small)
    verdict(report, found, tests)
    if not arguments.small or arguments.output is not None:
        figure(found, tests, LEVELS, report.folder / f"{report.name}.png")
    report.text(f"Time: {time.process_time() / 60:.1f} minutes of the processor.")
    report.write()
    said("all")


if __name__ == "__main__":
    main()
