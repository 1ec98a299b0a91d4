"""The figure: false positives by number of donors, quantiles of p-values by permutation, power of cells and pseudobulk, interactions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import _eqtl_interaction as interaction
import numpy as np
from _eqtl_power import CELLS, ENOUGH, METHODS, PSEUDOBULK, Found
from _eqtl_size import DEFAULT, LEVELS, NULL, REFIT, Tally
from _eqtl_size import PSEUDOBULK as BULK
from numpy.typing import NDArray

Float = NDArray[np.float64]

# Okabe and Ito's palette.
SIZES = {
    DEFAULT: ("#0072B2", "o", "annlmm, default"),
    BULK: ("#999999", "P", "pseudobulk, least squares"),
    NULL: ("#E69F00", "^", "n − p degrees of freedom, null γ"),
    REFIT: ("#D55E00", "X", "n − p degrees of freedom, refit"),
}
SLOPES = {
    interaction.RANDOM: ("#0072B2", "o"),
    interaction.TWO_STAGE: ("#009E73", "D"),
    interaction.NONE: ("#D55E00", "X"),
}
# In the order of `_eqtl_permutation.settings`.
QUANTILES = {
    "pseudobulk, unrelated": "#0072B2",
    "cells, unrelated": "#56B4E9",
    "pseudobulk, families, K": "#009E73",
    "cells, families, K": "#CC79A7",
    "pseudobulk, families, least squares": "#D55E00",
}
POWERS = {CELLS: ("#0072B2", "o", -0.18), PSEUDOBULK: ("#999999", "P", 0.0), ENOUGH: ("#E69F00", "^", 0.18)}
ICC, LEVEL = 0.05, 2
LOWEST = 0.02


def draw(
    sizes: dict[tuple[int, float], Tally],
    p_values: dict[str, Float],
    powers: dict[tuple[int, int | str], Found],
    slopes: dict[tuple[int, float], Tally],
    file: Path,
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.6, 9.6))
    axes = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.07, right=0.985, top=0.95, bottom=0.07, wspace=0.2, hspace=0.3)
    _sizes(axes[0, 0], sizes)
    _quantiles(axes[0, 1], p_values)
    _powers(axes[1, 0], powers)
    _slopes(axes[1, 1], slopes)
    for ax in axes.flat:
        ax.grid(axis="y", color="0.93", lw=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=160)


def _nominal(ax: Any, error: float) -> None:
    ax.axhspan(max(1 - 1.96 * error, LOWEST), 1 + 1.96 * error, color="0.87", lw=0, zorder=0)
    ax.axhline(1, color="0.3", lw=1, zorder=1)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}×")
    ax.yaxis.set_minor_formatter("")


def _sizes(ax: Any, tallies: dict[tuple[int, float], Tally]) -> None:
    donors = sorted({d for d, _ in tallies})
    at, level = np.arange(len(donors)), LEVELS[LEVEL]
    chosen = [tallies[d, ICC] for d in donors]
    binomial = np.sqrt((1 - level) / (level * chosen[0].tested[DEFAULT]))
    _nominal(ax, float(binomial))
    for k, (method, (color, marker, label)) in enumerate(SIZES.items()):
        ratio = np.array([found.ratio(method)[LEVEL] for found in chosen])
        error = 1.96 * np.array([found.error(method)[LEVEL] for found in chosen])
        low = np.minimum(error, np.maximum(ratio - LOWEST, 0))
        ax.errorbar(
            at + 0.09 * (k - 1.5), np.maximum(ratio, LOWEST), (low, error), color=color, marker=marker, ms=7, lw=1.2, mec="white", label=label
        )  # fmt: skip
    ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5])
    ax.set_xticks(at, [str(d) for d in donors])
    ax.set_xlabel("donors")
    ax.set_ylabel(f"false positives at p < {level:g}\nover their expected number")
    ax.set_title(f"A variant of the donors, null genes of cells (ICC {ICC:g})", fontsize=11)
    ax.legend(frameon=False, fontsize=9)


def _quantiles(ax: Any, p_values: dict[str, Float]) -> None:
    size = max(p.size for p in p_values.values())
    expected = -np.log10((np.arange(size) + 0.5) / size)
    # 95 % of uniform order statistics: Beta(i, n + 1 − i).
    from scipy.stats import beta

    rank = np.arange(1, size + 1)
    ax.fill_between(
        expected, -np.log10(beta.ppf(0.025, rank, size + 1 - rank)), -np.log10(beta.ppf(0.975, rank, size + 1 - rank)), color="0.87", lw=0
    )  # fmt: skip
    ax.plot([0, expected[0]], [0, expected[0]], color="0.3", lw=1)
    for p, (name, color) in zip(p_values.values(), QUANTILES.items(), strict=True):
        own = -np.log10((np.arange(p.size) + 0.5) / p.size)
        ax.plot(own, -np.log10(np.sort(p)), ".", ms=4, color=color, label=name)
    ax.set_ylim(0, 1.7 * expected[0])
    ax.set_xlabel("expected −log10 p")
    ax.set_ylabel("−log10 p of the gene, by permutation")
    ax.set_title("Permutations, null genes", fontsize=11)
    ax.legend(frameon=False, fontsize=8, loc="lower right", markerscale=2)


def _powers(ax: Any, rows: dict[tuple[int, int | str], Found]) -> None:
    at = np.arange(len(rows))
    for method in METHODS:
        color, marker, beside = POWERS[method]
        power = np.array([found.power(method) for found in rows.values()])
        number = np.array([np.concatenate(found.true).sum() for found in rows.values()])
        error = 1.96 * np.sqrt(power * (1 - power) / number)
        ax.errorbar(at + beside, power, error, fmt=marker, color=color, ms=7, mec="white", label=method)
    ax.set_xticks(at, [f"{which}\n{d}" for d, which in rows])
    ax.set_ylim(0, 1)
    ax.set_xlabel("cells per donor, donors")
    ax.set_ylabel("genes with an eQTL found at q ≤ 0.05")
    ax.set_title("Power", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="lower right")


def _slopes(ax: Any, tallies: dict[tuple[int, float], Tally]) -> None:
    settings = sorted(tallies, key=lambda key: (key[1], key[0]))
    at = np.arange(len(settings)) + np.repeat(np.arange(len({s for _, s in settings})), len({d for d, _ in settings}))
    level = LEVELS[1]
    first = tallies[settings[0]]
    _nominal(ax, float(np.sqrt((1 - level) / (level * first.tested[interaction.RANDOM]))))
    for k, (method, (color, marker)) in enumerate(SLOPES.items()):
        ratio = np.array([tallies[key].ratio(method)[1] for key in settings])
        error = 1.96 * np.array([tallies[key].error(method)[1] for key in settings])
        ax.errorbar(at + 0.2 * (k - 1), ratio, error, fmt=marker, color=color, ms=7, mec="white", label=method)
    ax.set_xticks(at, [f"{d}\n{s:g}" for d, s in settings])
    ax.set_xlabel("donors, variance of the donors' slopes over τ²")
    ax.set_ylabel(f"false positives at p < {level:g}\nover their expected number")
    ax.set_title("Genotype × context without an interaction", fontsize=11)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
