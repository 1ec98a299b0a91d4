"""The figure: false positives over their expected number, by method, over the ICC; one column per number of donors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _methods import CELLS, KENWARD_ROGER, LEVELS, METHODS, MODERATED, PSEUDOBULK, RESIDUAL, SATTERTHWAITE, Tally

# Okabe and Ito's palette; filled markers for the tests of annlmm that are meant to be used.
STYLE = {
    SATTERTHWAITE: ("#0072B2", "o", "-", "annlmm, Satterthwaite (default)"),
    MODERATED: ("#009E73", "D", "-", "annlmm, moderate=True"),
    KENWARD_ROGER: ("#56B4E9", "s", "-", "annlmm, Kenward–Roger"),
    PSEUDOBULK: ("#999999", "P", "--", "t-test on donor means (pseudobulk)"),
    RESIDUAL: ("#E69F00", "^", "--", "mixed model, n − p degrees of freedom"),
    CELLS: ("#D55E00", "X", "--", "t-test on cells"),
}
LOWEST = 0.02
DODGE = 0.11


def draw(tallies: dict[tuple[int, float], Tally], title: str, file: Path) -> None:
    """Write the figure of one kind of data; `tallies` by donors and ICC."""
    from matplotlib.figure import Figure

    donors = sorted({d for d, _ in tallies})
    iccs = sorted({icc for _, icc in tallies})
    at = np.arange(len(iccs))
    figure = Figure(figsize=(3.3 * len(donors) + 0.6, 8.8))
    figure.subplots_adjust(left=0.1, right=0.985, top=0.9, bottom=0.135, wspace=0.06, hspace=0.12)
    axes = figure.subplots(len(LEVELS), len(donors), sharex=True, sharey="row", squeeze=False)
    highest = [1.4 * max(t.ratio(m)[i] for t in tallies.values() for m in t.below) for i in range(len(LEVELS))]
    for i, level in enumerate(LEVELS):
        for j, d in enumerate(donors):
            ax = axes[i, j]
            error = 1.96 * tallies[d, iccs[0]].error(SATTERTHWAITE)[i]
            ax.axhspan(max(1 - error, LOWEST), 1 + error, color="0.87", lw=0, zorder=0, label="95 % of nominal tests")
            ax.axhline(1, color="0.3", lw=1, zorder=1)
            for k, name in enumerate(reversed(METHODS)):
                color, marker, line, label = STYLE[name]
                beside = at + DODGE * (len(METHODS) / 2 - k - 0.5)  # where methods agree each is still seen
                ratio = np.array([tallies[d, icc].ratio(name)[i] for icc in iccs])
                inside = np.maximum(ratio, LOWEST)
                ax.plot(
                    beside, inside, line, color=color, lw=1.3, marker=marker, ms=5.5, mec="white", mew=0.5, label=label
                )
                below = ratio < LOWEST
                ax.plot(beside[below], inside[below], "v", color=color, ms=6, clip_on=False)
            ax.set_yscale("log")
            ax.set_ylim(LOWEST, highest[i])
            ax.set_xticks(at, [f"{icc:g}" for icc in iccs])
            ax.yaxis.set_major_formatter("{x:g}×")
            ax.grid(axis="y", color="0.93", lw=0.6)
            ax.set_axisbelow(True)
            ax.spines[["top", "right"]].set_visible(False)
            if i == 0:
                ax.set_title(f"{d} donors", fontsize=11)
            if j == 0:
                ax.set_ylabel(f"false positives at p < {level:g}\nover their expected number")
            if i == len(LEVELS) - 1:
                ax.set_xlabel("share of variance between donors (ICC)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="lower center", ncols=3, frameon=False, fontsize=9.5)
    figure.suptitle(title, fontsize=12, y=0.975)
    figure.savefig(file, dpi=160)
