"""The figure of `association.py`: size by number of rows, per kernel, at two levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _association_tests import GROUPED, LEVELS, LRT, LRT_REFIT, REFIT, SCORE, SCREEN, WALD, Tally

# Okabe and Ito's palette.
ROWS = {
    WALD: ("#0072B2", "o"),
    SCREEN: ("#56B4E9", "s"),
    REFIT: ("#009E73", "D"),
    LRT: ("#D55E00", "^"),
    LRT_REFIT: ("#E69F00", "v"),
    SCORE: ("#CC79A7", "p"),
}
OF_GROUPS = dict(zip(GROUPED, (("#0072B2", "o"), ("#56B4E9", "s"), ("#009E73", "D"), ("#E69F00", "^"), ("#D55E00", "v")), strict=True))  # fmt: skip
SHOWN = (1, 3)
LOWEST = 0.02
H_SQ = 0.3


def figure(
    rows: dict[tuple[str, int, int, float], Tally], grouped: dict[tuple[int, int, float], Tally], file: Path
) -> None:
    """One column per kernel and one for features of the groups; p = 5, h² = 0.3, smallest to largest n."""
    from matplotlib.figure import Figure

    kernels = list(dict.fromkeys(key[0] for key in rows))
    p = sorted({key[2] for key in rows})[len({key[2] for key in rows}) // 2]
    sizes = sorted({key[1] for key in rows})
    picture = Figure(figsize=(15.6, 8.4))
    axes = picture.subplots(len(SHOWN), len(kernels) + 1, sharex=True, sharey="row", squeeze=False)
    picture.subplots_adjust(left=0.06, right=0.99, top=0.94, bottom=0.15, wspace=0.06, hspace=0.1)
    for i, level in enumerate(SHOWN):
        for j, kernel in enumerate([*kernels, None]):
            own = [grouped[n, p, H_SQ] if kernel is None else rows[kernel, n, p, H_SQ] for n in sizes]
            _panel(axes[i, j], own, OF_GROUPS if kernel is None else ROWS, level)
            axes[i, j].set_xticks(range(len(sizes)), [str(n) for n in sizes])
            if i == 0:
                axes[i, j].set_title("features of the groups" if kernel is None else kernel, fontsize=11)
            if i == len(SHOWN) - 1:
                axes[i, j].set_xlabel("rows")
        axes[i, 0].set_ylabel(f"false positives at p < {LEVELS[level]:g}\nover their expected number")
    for ax, x in ((axes[0, 0], 0.37), (axes[0, -1], 0.86)):
        handles, labels = ax.get_legend_handles_labels()
        picture.legend(handles, labels, loc="lower center", bbox_to_anchor=(x, 0.0), ncols=3 if x < 0.5 else 2, frameon=False, fontsize=9.5)  # fmt: skip
    picture.suptitle(f"Size, h² = {H_SQ:g}, {p} fixed effects", fontsize=12, y=0.995)
    picture.savefig(file, dpi=160)


def _panel(ax: Any, tallies: list[Tally], style: dict[str, tuple[str, str]], level: int) -> None:
    first = next(iter(style))
    error = 1.96 * np.mean([tally.error(first, level) for tally in tallies])
    ax.axhspan(max(1 - error, LOWEST), 1 + error, color="0.9", lw=0, zorder=0)
    ax.axhline(1, color="0.3", lw=1, zorder=1)
    at = np.arange(len(tallies))
    for k, (method, (color, marker)) in enumerate(style.items()):
        kept = [t for t in range(len(tallies)) if tallies[t].shown(method)]
        ratio = np.array([tallies[t].ratio(method, level) for t in kept])
        spread = 1.96 * np.array([tallies[t].error(method, level) for t in kept])
        low = np.minimum(spread, np.maximum(ratio - LOWEST, 0))
        beside = at[kept] + 0.12 * (k - (len(style) - 1) / 2)
        ax.errorbar(beside, np.maximum(ratio, LOWEST), (low, spread), fmt=marker, color=color, ms=6.5, mec="white", lw=1.1, label=method)  # fmt: skip
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}×")
    ax.grid(axis="y", color="0.93", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
