"""The association scan beside the bare product U.T @ G, and beside a loop over features.

The whole call is timed: reading the slots, preparing γ, the scan, p-values, writing `.var`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from anndata import AnnData
from scipy.stats import chi2
from threadpoolctl import threadpool_info

import annlmm as al

RUNS = 5


def median(function: Callable[[], object]) -> float:
    """Median seconds of `RUNS` calls after one that is not counted."""
    function()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[RUNS // 2]


def cohort(n: int, m: int) -> AnnData:
    """Dosages of the size of the heterogeneous-stock mice (n = 1410, m = 12,226), float64, C order."""
    rng = np.random.default_rng(0)
    x = rng.binomial(2, rng.uniform(0.1, 0.5, m), (n, m)).astype(np.float64)
    adata = AnnData(x)
    adata.obs["y"] = x[:, :50] @ rng.standard_normal(50) * 0.2 + rng.standard_normal(n)
    for j in range(9):
        adata.obs[f"c{j}"] = rng.standard_normal(n)
    al.pp.kernel_grm(adata, min_maf=0)
    al.tl.fit_null(adata, "y")
    al.tl.fit_null(adata, "y", covariates=[f"c{j}" for j in range(9)], key_added="ten")
    return adata


def scan_rows() -> list[tuple[str, float, str, float]]:
    adata = cohort(1410, 12_226)
    u, g = np.asfortranarray(adata.obsm["kernel"]), adata.X
    out = np.empty((u.shape[1], g.shape[1]))
    product = median(lambda: u.T @ g)
    into = median(lambda: np.matmul(u.T, g, out=out))
    rows = [("`matmul(U.T, G, out=)`", into, "`U.T @ G`", product)]
    for label, key, options in (
        ("fixed γ, p = 1", "lmm", {}),
        ("fixed γ, p = 10", "ten", {}),
        ('`variance="screen"`, p = 1', "lmm", {"variance": "screen"}),
        ('`variance="refit"`, p = 1', "lmm", {"variance": "refit"}),
        ('`variance="refit"`, p = 10', "ten", {"variance": "refit"}),
    ):
        rows.append((label, median(lambda k=key, o=options: al.tl.associate(adata, k, **o)), "`U.T @ G`", product))
    return rows


def loop(model: al.LinearMixedModel, pa: np.ndarray, a: np.ndarray | None) -> np.ndarray:
    """One feature at a time, each with its own small solve: the algorithm of Hail's class."""
    gamma, n, p = model.gamma, model.n, model.f
    d = 1.0 / (model.s + 1.0 / gamma)
    px, py = model.px, model.py
    outside = gamma if model.low_rank else 0.0
    xdx, xdy, ydy = px.T @ (d[:, None] * px), px.T @ (d * py), py @ (d * py)
    if model.low_rank:
        x, y = model.x, model.y
        xdx = xdx + outside * (x.T @ x - px.T @ px)
        xdy = xdy + outside * (x.T @ y - px.T @ py)
        ydy = ydy + outside * (y @ y - py @ py)
    rss0 = ydy - xdy @ np.linalg.solve(xdx, xdy)
    out = np.empty((pa.shape[1], 2))
    z, zy = np.empty((p + 1, p + 1)), np.empty(p + 1)
    for j in range(pa.shape[1]):
        v = pa[:, j]
        dv = d * v
        ax, ay, aa = dv @ px, dv @ py, dv @ v
        if model.low_rank:
            w = a[:, j]
            ax, ay = ax + outside * (w @ x - v @ px), ay + outside * (w @ y - v @ py)
            aa = aa + outside * (w @ w - v @ v)
        z[0, 0], z[0, 1:], z[1:, 0], z[1:, 1:] = aa, ax, ax, xdx
        zy[0], zy[1:] = ay, xdy
        beta = np.linalg.solve(z, zy)
        chi_sq = n * np.log(rss0 / (ydy - beta @ zy))
        out[j] = beta[0], chi2.sf(chi_sq, 1)
    return out


def hail_rows() -> list[tuple[str, float, str, float]]:
    rng = np.random.default_rng(0)
    rows = []
    for label, n, r, m in (
        ("`fit_alternatives`, full rank, n = 1000, m = 10,000", 1000, 1000, 10_000),
        ("`fit_alternatives`, low rank, n = 20,000, r = 100, m = 2000", 20_000, 100, 2000),
    ):
        x, a = np.column_stack([np.ones(n), rng.standard_normal(n)]), rng.standard_normal((n, m))
        z = rng.standard_normal((n, r))
        y = z @ rng.standard_normal(r) / np.sqrt(r) + rng.standard_normal(n)
        model, p = al.LinearMixedModel.from_random_effects(y, x, z)
        model.fit()
        pa, low = np.ascontiguousarray(p @ a), a if model.low_rank else None
        ours = model.fit_alternatives(pa, low)
        theirs = loop(model, pa, low)
        np.testing.assert_allclose(ours["beta"], theirs[:, 0], rtol=1e-6, atol=1e-9)
        rows.append(
            (label, median(lambda v=(model, pa, low): v[0].fit_alternatives(v[1], v[2])), "loop over features",
             median(lambda v=(model, pa, low): loop(*v)))
        )  # fmt: skip
    return rows


def main() -> None:
    al.settings.progress = False
    blas = ", ".join(
        f"{lib['internal_api']} {lib['version']} ({lib.get('architecture', '?')})"
        for lib in threadpool_info()
        if lib["user_api"] == "blas"
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("annlmm", "numpy", "scipy", "numba"))
    lines = [
        "# Scan",
        "",
        f"`python benchmarks/scan.py`: Python {platform.python_version()}, {packages}; {blas}; {al.settings.threads} threads; medians of {RUNS}.",
        "",
        "Mouse size (n = 1410, m = 12,226, full rank) for `al.tl.associate`, whole calls.",
        "",
        "| annlmm | s | beside | s | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for label, seconds, rival, other in [*scan_rows(), *hail_rows()]:
        lines.append(f"| {label} | {seconds:.3f} | {rival} | {other:.3f} | {seconds / other:.2f} |")
        print(lines[-1], flush=True)
    target = Path(__file__).parent / "results" / "scan.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
