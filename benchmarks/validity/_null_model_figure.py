"""The figure of `null_model.py`: coverage, estimates, size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from null_model import Coverage, Size

# Okabe and Ito's palette.
COLORS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7")
MARKERS = ("o", "s", "D", "^", "v")
LOWEST = 0.2


def figure(
    found: dict[tuple[str, float], Coverage], tests: dict[str, Size], levels: tuple[float, ...], file: Path
) -> None:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(15.6, 4.9))
    axes = picture.subplots(1, 3)
    picture.subplots_adjust(left=0.045, right=0.99, top=0.92, bottom=0.13, wspace=0.2)
    labels = list(tests)
    h_sqs = list(dict.fromkeys(h for _, h in found))
    _coverage(axes[0], found, labels, h_sqs)
    _estimates(axes[1], found, labels, h_sqs)
    _sizes(axes[2], tests, levels)
    for ax in axes:
        ax.grid(axis="y", color="0.93", lw=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    picture.savefig(file, dpi=160)


def _coverage(ax, found, labels, h_sqs) -> None:
    ax.axhspan(94, 96, color="0.9", lw=0, label="95 ± 1 %")
    ax.axhline(95, color="0.3", lw=1)
    at = np.arange(len(h_sqs))
    for k, (label, color, marker) in enumerate(zip(labels, COLORS, MARKERS, strict=True)):
        beside = at + 0.14 * (k - 2)
        own = [found[label, h] for h in h_sqs]
        inside = np.array([100 * c.inside.mean() for c in own])
        error = np.array([196 * c.error(c.inside) for c in own])
        ax.errorbar(beside, inside, error, fmt=marker, color=color, ms=6.5, mec="white", label=label)
        chi_square = np.array([100 * c.inside_chi_square.mean() for c in own])
        ax.plot(beside, chi_square, marker, color=color, ms=6.5, mfc="none", mew=1.2)
    ax.plot([], [], "o", color="0.4", mfc="none", mew=1.2, label="open: χ² cut of 3.84")
    ax.set_xticks(at, [f"{h:g}" for h in h_sqs])
    ax.set_xlabel("h²")
    ax.set_ylabel("coverage of the interval, %")
    ax.set_title("The 95 % interval of h²", fontsize=11)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
    ax.legend(frameon=False, fontsize=8.5, ncols=3, loc="upper center")


def _estimates(ax, found, labels, h_sqs) -> None:
    at = np.arange(len(h_sqs))
    for k, (label, color, marker) in enumerate(zip(labels, COLORS, MARKERS, strict=True)):
        beside = at + 0.14 * (k - 2)
        own = [found[label, h].h_sq for h in h_sqs]
        mean = np.array([h.mean() for h in own])
        low, high = np.array([np.quantile(h, (0.05, 0.95)) for h in own]).T
        ax.vlines(beside, low, high, color=color, lw=1.4)
        ax.plot(beside, mean, marker, color=color, ms=6.5, mec="white")
    ax.hlines(h_sqs, at - 0.42, at + 0.42, color="0.3", lw=1)
    ax.set_xticks(at, [f"{h:g}" for h in h_sqs])
    ax.set_xlabel("h²")
    ax.set_ylabel("ĥ²: mean, 5 to 95 %")
    ax.set_title("Estimates", fontsize=11)


def _sizes(ax, tests, levels) -> None:
    at = np.arange(len(levels))
    ax.axhline(1, color="0.3", lw=1)
    for k, (own, color, marker) in enumerate(zip(tests.values(), COLORS, MARKERS, strict=True)):
        beside = at + 0.14 * (k - 2)
        for shares, face in ((own.exact, color), (own.mixture, "none")):
            ratio = shares.mean(axis=0) / np.array(levels)
            error = 1.96 * np.array([own.error(shares, i) for i in range(len(levels))])
            shown = np.maximum(ratio, LOWEST)
            low = np.minimum(error, np.maximum(ratio - LOWEST, 0))
            ax.errorbar(beside, shown, (low, error), fmt=marker, color=color, ms=6.5, mfc=face, mec="white" if face == color else color, lw=1)  # fmt: skip
    ax.set_yscale("log")
    ax.set_yticks([0.2, 0.5, 1, 2])
    ax.yaxis.set_major_formatter("{x:g}×")
    ax.yaxis.set_minor_formatter("")
    ax.set_xticks(at, [f"{level:g}" for level in levels])
    ax.set_xlabel("level")
    ax.set_ylabel("false positives over their expected number")
    ax.set_title("The test of σ² = 0 (open: ½χ²₀ + ½χ²₁)", fontsize=11)
