"""Cost of `al.tl.associate` against n, m, r, covariates, phenotypes and stored entries: a table and log-log panels.

The slope is that of log seconds on log size over the larger half of the sizes. Theory: one product Uᵀ[features], n·m·r, and work proportional to m beside it;
so 1 for n, m, r and stored entries, 2 for n = r, and between 0 and 1, nearing 1, for covariates and phenotypes, which share the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from _common import Report, Times, interleaved, parser, start
from _data import cells, covariates, donors
from anndata import AnnData

import annlmm as al

NULL, REFIT, PRODUCT = "fixed γ", 'variance="refit"', "U.T @ G"


@dataclass(frozen=True)
class Panel:
    """One quantity that grows."""

    name: str
    fixed: str
    sizes: tuple[int, ...]
    make: Callable[[int], AnnData]
    theory: str


def dense(n: int, m: int, r: int, p: int = 1, phenotypes: int = 1) -> AnnData:
    """Features of rank-r kernel (r = n: full), p columns of X with the constant; γ is given, since the fit is not measured."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({name: rng.standard_normal(n) for name in covariates(p - 1)}, index=map(str, range(n)))
    adata = AnnData(rng.standard_normal((n, m)), obs=obs)
    adata.obsm["X_z"] = rng.standard_normal((n, r if r < n else 2 * n))
    adata.obsm["traits"] = rng.standard_normal((n, phenotypes))
    al.pp.kernel_linear(adata, "X_z")
    del adata.obsm["X_z"]
    al.tl.fit_null(adata, "traits", covariates=covariates(p - 1) or None, gamma=1.0)
    return adata


def stored(n: int, m: int) -> AnnData:
    """Sparse cells × genes of 100 donors."""
    rng = np.random.default_rng(0)
    codes = donors(n, 100, together=False)
    obs = pd.DataFrame(
        {"donor": pd.Categorical(codes.astype(str)), "y": rng.standard_normal(n)}, index=map(str, range(n))
    )
    adata = AnnData(cells(n, m, 0.07, "float32"), obs=obs)
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, "y", gamma=0.5)
    return adata


def panels(small: bool) -> Iterator[Panel]:
    def sizes(first: int, number: int) -> tuple[int, ...]:
        return tuple(first * 2**k for k in range(3 if small else number))

    k = 10 if small else 1  # everything that is held fixed shrinks, too
    n, m, r = 2000 // k, 4000 // k, 100 // k
    yield Panel("n", f"m = {n}, r = {r}", sizes(1000 // k, 7), lambda size: dense(size, n, r), "1")
    yield Panel("m", f"n = {n}, r = {r}", sizes(1000 // k, 7), lambda size: dense(n, size, r), "1")
    yield Panel("r", f"n = {2 * n}, m = {m}", sizes(50 // k, 6), lambda size: dense(2 * n, m, size), "1")
    yield Panel("n = r", f"m = {2 * m}", sizes(250 // k, 4), lambda size: dense(size, 2 * m, size), "2")
    base = f"n = {n}, m = {m}, r = {r}"
    yield Panel("columns of X", base, sizes(1, 6), lambda size: dense(n, m, r, size), "0 to 1")
    yield Panel("phenotypes", base, sizes(1, 6), lambda size: dense(n, m, r, 1, size), "0 to 1")
    cell_sizes = sizes(10_000 // k, 5)
    yield Panel("cells", f"CSR, 7 % of m = {n}, 100 donors", cell_sizes, lambda size: stored(size, n), "1")


def measure(panel: Panel, size: int, runs: int) -> dict[str, Times]:
    adata = panel.make(size)
    sides: dict[str, Callable[[], object]] = {
        NULL: lambda: al.tl.associate(adata),
        REFIT: lambda: al.tl.associate(adata, variance="refit"),
    }
    if isinstance(adata.X, np.ndarray):
        u = np.asfortranarray(adata.obsm["kernel"])
        sides[PRODUCT] = lambda: u.T @ adata.X
    return interleaved(sides, runs)


def slope(sizes: tuple[int, ...], seconds: list[float]) -> float:
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(seconds[half:]), 1)[0])


def draw(results: list[tuple[Panel, dict[str, list[float]]]], report: Report) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(12, 6), layout="constrained")
    styles = {NULL: ("C0", "o"), REFIT: ("C1", "s"), PRODUCT: ("0.55", "^")}
    for ax, (panel, seconds) in zip(axes.flat, results, strict=False):
        ends = sorted(seconds, key=lambda name: seconds[name][-1])
        for name, values in seconds.items():
            color, marker = styles[name]
            ax.loglog(panel.sizes, values, color=color, marker=marker, markersize=4)
            ax.annotate(
                f"{slope(panel.sizes, values):.2f}",
                (panel.sizes[-1], values[-1]),
                xytext=(5, 10 * (ends.index(name) / max(1, len(ends) - 1) - 0.5)),  # lines often end close together
                textcoords="offset points",
                color=color,
                fontsize=8,
                va="center",
            )
        ax.set_xticks(panel.sizes, [f"{size // 1000}k" if size % 1000 == 0 else str(size) for size in panel.sizes])
        ax.minorticks_off()
        ax.set_title(panel.fixed, fontsize=9)
        ax.set_xlabel(panel.name)
        ax.set_xlim(panel.sizes[0] / 1.3, panel.sizes[-1] * (panel.sizes[-1] / panel.sizes[0]) ** 0.2)
        ax.grid(color="0.9", which="major")
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("seconds")
    for ax in axes.flat[len(results) :]:
        ax.set_axis_off()
        for name, (color, marker) in styles.items():
            ax.plot([], [], color=color, marker=marker, label=name if name != PRODUCT else "the bare product U.T @ G")
        ax.legend(loc="center", frameon=False, title="slopes stand beside the lines")
    figure.savefig(report.folder / "scaling.png", dpi=150)
    plt.close(figure)


def main() -> None:
    arguments = parser(__doc__).parse_args()
    start(arguments)
    report = Report(__file__, arguments)
    report.text(
        "Whole calls of `al.tl.associate`; one phenotype and an intercept where nothing else is said; float64 dense, float32 sparse."
    )
    results = []
    slopes = []
    report.table("grows", "size", "fixed", NULL, REFIT, "`U.T @ G`")
    for panel in panels(arguments.small):
        seconds: dict[str, list[float]] = {}
        for size in panel.sizes:
            times = measure(panel, size, arguments.runs)
            for name, found in times.items():
                seconds.setdefault(name, []).append(found.median)
            report.row(panel.name, size, panel.fixed, *(times.get(name, "") for name in (NULL, REFIT, PRODUCT)))
        results.append((panel, seconds))
        slopes.append((panel, {name: slope(panel.sizes, values) for name, values in seconds.items()}))
    report.end()
    report.table("grows", "slope in theory", NULL, REFIT, "`U.T @ G`")
    for panel, found in slopes:
        report.row(panel.name, panel.theory, *(found.get(name, "") for name in (NULL, REFIT, PRODUCT)))
    report.end()
    if not arguments.small or arguments.output:
        report.text("![Seconds against each size, log-log](scaling.png)")
        draw(results, report)
    report.write()


if __name__ == "__main__":
    main()
