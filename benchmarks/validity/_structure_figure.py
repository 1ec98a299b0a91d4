"""The figure of `structure.py`: λ_GC by structure and test, quantiles of null variants, χ² of the strong ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from structure import Found

# Okabe and Ito's palette.
COLORS = ("#D55E00", "#E69F00", "#56B4E9", "#0072B2", "#009E73")
MARKERS = ("^", "s", "D", "o", "v")


def figure(found: dict[str, Found], methods: tuple[str, ...], file: Path) -> None:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(15.6, 4.9))
    axes = picture.subplots(1, 3)
    picture.subplots_adjust(left=0.045, right=0.99, top=0.92, bottom=0.15, wspace=0.18)
    _gc(axes[0], found, methods)
    _quantiles(axes[1], list(found.items())[-1], methods)
    _strong(axes[2], found, methods)
    for ax in axes:
        ax.grid(axis="y", color="0.93", lw=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    picture.savefig(file, dpi=160)


def _names(ax: Any, found: dict[str, Found]) -> None:
    ax.set_xticks(range(len(found)), [name.replace(", ", ",\n") for name in found], fontsize=9)


def _gc(ax: Any, found: dict[str, Found], methods: tuple[str, ...]) -> None:
    ax.axhline(1, color="0.3", lw=1)
    for k, (method, color, marker) in enumerate(zip(methods, COLORS, MARKERS, strict=True)):
        for at, own in enumerate(found.values()):
            gc = np.concatenate(own.gc[method])
            x = at + 0.16 * (k - 2)
            ax.vlines(x, *np.quantile(gc, (0.05, 0.95)), color=color, lw=1.4)
            ax.plot(x, gc.mean(), marker, color=color, ms=7, mec="white", label=method if at == 0 else None)
    ax.set_yscale("log")
    ax.set_yticks([0.8, 1, 1.5, 2, 3, 5, 10])
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    _names(ax, found)
    ax.set_ylabel("λ_GC of null variants: mean, 5 to 95 %")
    ax.set_title("Inflation", fontsize=11)
    ax.set_ylim(0.75, 14)
    ax.legend(frameon=False, fontsize=9, loc="upper left")


def _quantiles(ax: Any, of: tuple[str, Found], methods: tuple[str, ...]) -> None:
    from scipy.stats import beta

    name, found = of
    size = np.concatenate(found.p_values[methods[0]]).size
    # All of the tail, and ever fewer below.
    rank = np.unique(np.round(np.logspace(0, np.log10(size), 400)).astype(int))
    expected = -np.log10((rank - 0.5) / size)
    ax.fill_between(expected, -np.log10(beta.ppf(0.025, rank, size + 1 - rank)), -np.log10(beta.ppf(0.975, rank, size + 1 - rank)), color="0.87", lw=0)  # fmt: skip
    ax.plot([0, expected[0]], [0, expected[0]], color="0.3", lw=1)
    for method, color, marker in zip(methods, COLORS, MARKERS, strict=True):
        p = np.sort(np.concatenate(found.p_values[method]))[rank - 1]
        ax.plot(expected, -np.log10(p), marker, ms=4, color=color, mec="none", label=method)
    ax.set_ylim(0, 2 * expected[0])
    ax.set_xlabel("expected −log10 p")
    ax.set_ylabel("−log10 p")
    ax.set_title(f"Null variants, {name}", fontsize=11)


def _strong(ax: Any, found: dict[str, Found], methods: tuple[str, ...]) -> None:
    for k, (method, color, marker) in enumerate(zip(methods, COLORS, MARKERS, strict=True)):
        for at, own in enumerate(found.values()):
            hits = np.concatenate(own.hits[method]).mean(axis=1)
            x, error = at + 0.16 * (k - 2), 1.96 * hits.std(ddof=1) / np.sqrt(hits.size)
            ax.errorbar(x, hits.mean(), error, fmt=marker, color=color, ms=7, mec="white")
    _names(ax, found)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("strong variants with p < 1e-5")
    ax.set_title("Power", fontsize=11)
