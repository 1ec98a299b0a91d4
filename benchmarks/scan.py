"""The dense scan beside the bare product U.T @ G, and `LinearMixedModel.fit_alternatives` beside a loop over features.

The whole call is timed: reading the slots, preparing γ, the scan, p-values, writing `.var`.
"""

from __future__ import annotations

import numpy as np
from _common import COMPARISON, Report, interleaved, largest, parser, start
from _data import cohort
from scipy.stats import chi2

import annlmm as al


def scans(report: Report, n: int, m: int, runs: int) -> None:
    adata = cohort(n, m)
    adata.layers["float32"] = adata.X.astype(np.float32)
    u, g = np.asfortranarray(adata.obsm["kernel"]), adata.X
    out = np.empty((u.shape[1], g.shape[1]))
    report.text(
        f"`al.tl.associate`, whole calls: n = {n}, m = {m}, float64 dosages of `al.datasets.gwas_cohort`, GRM of rank {u.shape[1]}; "
        "p counts the constant."
    )
    calls = {
        "fixed γ, p = 1": ("lmm", {}),
        "fixed γ, p = 10": ("ten", {}),
        "fixed γ, p = 1, float32 dosages": ("lmm", {"layer": "float32"}),
        "fixed γ, p = 1, score test": ("lmm", {"test": "score"}),
        '`variance="screen"`, p = 1': ("lmm", {"variance": "screen"}),
        '`variance="refit"`, p = 1': ("lmm", {"variance": "refit"}),
        '`variance="refit"`, p = 1, ML (`test="lrt"`)': ("lmm", {"variance": "refit", "test": "lrt"}),
        '`variance="refit"`, p = 10': ("ten", {"variance": "refit"}),
    }
    sides = {name: lambda k=key, o=options: al.tl.associate(adata, k, **o) for name, (key, options) in calls.items()}
    times = interleaved(
        {"product": lambda: u.T @ g, "into": lambda: np.matmul(u.T, g, out=out), **sides},
        runs,
    )
    report.table(*COMPARISON, "to `matmul(out=)`")
    for name in calls:
        ours, product = times[name], times["product"]
        report.row(name, ours, "`U.T @ G`", product, ours.median / product.median, ours.median / times["into"].median)
    into = times["into"]
    report.row("`matmul(U.T, G, out=)`", into, "`U.T @ G`", product, into.median / product.median, 1.0)
    report.end()


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


def alternatives(report: Report, sizes: dict[str, tuple[int, int, int]], runs: int) -> None:
    report.text(
        "`LinearMixedModel.fit_alternatives` at the sizes of Hail's tests, beside a loop over features with a solve for each, "
        "as Hail's class does it. Δβ is the largest difference, in standard errors."
    )
    report.table(*COMPARISON, "Δβ")
    rng = np.random.default_rng(0)
    for label, (n, r, m) in sizes.items():
        x, a = np.column_stack([np.ones(n), rng.standard_normal(n)]), rng.standard_normal((n, m))
        z = rng.standard_normal((n, r))
        y = z @ rng.standard_normal(r) / np.sqrt(r) + rng.standard_normal(n)
        model, projection = al.LinearMixedModel.from_random_effects(y, x, z)
        model.fit()
        pa, low = np.ascontiguousarray(projection @ a), a if model.low_rank else None
        ours = model.fit_alternatives(pa, low)
        difference = largest((ours["beta"] - loop(model, pa, low)[:, 0]) / ours["standard_error"])
        times = interleaved(
            {
                "annlmm": lambda v=(model, pa, low): v[0].fit_alternatives(v[1], v[2]),
                "loop": lambda v=(model, pa, low): loop(*v),
            },
            runs,
        )
        own, other = times["annlmm"], times["loop"]
        report.row(
            f"{label}: n = {n}, r = {r}, m = {m}",
            own,
            "loop over features",
            other,
            own.median / other.median,
            difference,
        )
    report.end()


def main() -> None:
    arguments = parser(__doc__).parse_args()
    start(arguments)
    report = Report(__file__, arguments)
    small = arguments.small
    scans(report, *((200, 1000) if small else (1410, 12_226)), arguments.runs)
    sizes = {
        "full rank": (200, 200, 500) if small else (1000, 1000, 10_000),
        "low rank": (1000, 20, 100) if small else (20_000, 100, 2000),
    }
    alternatives(report, sizes, arguments.runs)
    report.write()


if __name__ == "__main__":
    main()
