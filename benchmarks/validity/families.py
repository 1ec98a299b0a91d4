"""Size of the test of σ² = 0 under a family of kernels: the exact null of the best member beside combinations of the members' p-values.

Null genes on places with several length scales, and over cells of related donors with several shares of relatedness. A table in
benchmarks/results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _common import start
from _page import Page, parser
from anndata import AnnData

import annlmm as al

Float = NDArray[np.float64]

LEVELS = (0.05, 0.01, 0.001, 0.0001)
GENES, BLOCK = 200_000, 50_000
SCALES = {
    "5 length scales, 0.5 to 8": (0.5, 1.0, 2.0, 4.0, 8.0),
    "5 close ones, 1.5 to 2.5": (1.5, 1.75, 2.0, 2.25, 2.5),
    "2, 1 and 4": (1.0, 4.0),
}
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
EXACT, CAUCHY, BONFERRONI, SMALLEST = "exact null of the best", "Cauchy combination", "Bonferroni", "smallest p"
EACH = "members by themselves"


def places(scales: tuple[float, ...], genes: int) -> Iterator[AnnData]:
    """300 places in a square of side 20."""
    rng = np.random.default_rng([1, len(scales), int(10 * scales[0])])
    xy = rng.uniform(0, 20, (300, 2))
    yield from _blocks(300, genes, rng, lambda a: _with_places(a, xy, scales))


def _with_places(adata: AnnData, xy: Float, scales: tuple[float, ...]) -> None:
    adata.obsm["spatial"] = xy
    al.pp.kernel_rbf(adata, length_scale=scales)


def sibling_pairs(genes: int) -> Iterator[AnnData]:
    """200 cells of 20 donors, pairs of whom share half of the genome."""
    rng = np.random.default_rng(2)
    z = rng.standard_normal((20, 400))
    z[1::2] = 0.5 * z[::2] + np.sqrt(0.75) * z[1::2]
    codes = np.r_[np.arange(20), rng.integers(0, 20, 180)]
    yield from _blocks(200, genes, rng, lambda a: _with_donors(a, codes, z @ z.T / 400))


def _with_donors(adata: AnnData, codes: NDArray[np.int64], related: Float) -> None:
    import pandas as pd

    names = pd.Index([f"donor_{d}" for d in range(len(related))])
    adata.obs["donor"] = names[codes].to_numpy()
    frame = pd.DataFrame(related, index=names, columns=names)
    al.pp.kernel_group(adata, "donor", relatedness=frame, rho=SHARES)


def _blocks(n: int, genes: int, rng: np.random.Generator, prepare: Callable[[AnnData], None]) -> Iterator[AnnData]:
    first = AnnData(obs={"c": rng.standard_normal(n)})
    prepare(first)
    for _ in range(max(1, genes // BLOCK)):
        x = rng.standard_normal((n, min(BLOCK, genes)), dtype=np.float32)
        yield AnnData(x, obs=first.obs, obsm=first.obsm, uns=first.uns)


def combined(p: Float) -> dict[str, Float]:
    """Of the p-values of the members, genes × members. A p-value of 1 counts as 1 − 1/members in the Cauchy combination."""
    m = p.shape[1]
    t = 1 / np.tan(np.pi * np.where(p == 1, 1 - 1 / m, p))
    lowest = p.min(axis=1)
    return {
        CAUCHY: np.arctan2(1, t.mean(axis=1)) / np.pi,
        BONFERRONI: np.minimum(m * lowest, 1),
        SMALLEST: lowest,
    }


def p_values(adata: AnnData, seed: int) -> dict[str, Float]:
    al.tl.variance_components(adata, ["c"], rng=seed)
    members = np.asarray(adata.varm["varcomp_member_p_value"])
    return {EXACT: adata.var["varcomp_p_value"].to_numpy(), **combined(members), EACH: members}


def main() -> None:
    arguments = parser(__doc__).parse_args()
    start(arguments)
    begin = time.perf_counter()
    genes = 2000 if arguments.small else GENES
    report = Page(__file__, "Families of kernels", arguments)
    report.text(
        f"{genes:,} null genes per row, `al.tl.variance_components` with one covariate. *{EXACT}* is its p-value, from the simulated null of the largest likelihood "
        "ratio over the members; the others are made of the members' own p-values (`.varm[\"varcomp_member_p_value\"]`), which are in the last column as they are. Sizes over their nominal value; bold: above by more than "
        f"three binomial standard errors, italic: below. Null distributions are simulated anew for every {BLOCK:,} genes."
    )  # fmt: skip
    rows: dict[str, Iterator[AnnData]] = {
        f"300 places, {name}": places(scales, genes) for name, scales in SCALES.items()
    }
    rows["200 cells of 20 donors, related by pairs, 5 shares ρ"] = sibling_pairs(genes)
    found: dict[str, dict[str, list[list[float]]]] = {}
    for label, data_sets in rows.items():
        found[label] = {}
        for seed, adata in enumerate(data_sets):
            for name, p in p_values(adata, seed).items():
                found[label].setdefault(name, []).append([float(np.mean(p < level)) for level in LEVELS])
        print(f"{label}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    for i, level in enumerate(LEVELS):
        error = np.sqrt((1 - level) / (level * genes))
        report.text(f"Size at p < {level:g} over {level:g} (± {error:.3f}):")
        report.table("kernels", *found[next(iter(found))])
        for label, shares in found.items():
            ratios = [np.mean(share, axis=0)[i] / level for share in shares.values()]
            marks = ["**" if r > 1 + 3 * error else "*" if r < 1 - 3 * error else "" for r in ratios]
            report.row(label, *(f"{mark}{r:.2f}{mark}" for mark, r in zip(marks, ratios, strict=True)))
        report.end()
    report.write()


if __name__ == "__main__":
    main()
