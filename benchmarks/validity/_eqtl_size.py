"""False positives of every choice of degrees of freedom: null genes of cells against variants of their donors."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from _page import Page
from _simulate import gaussian, make_layout
from anndata import AnnData
from numpy.typing import NDArray

import annlmm as al

Float = NDArray[np.float64]

LEVELS = (0.05, 0.001, 0.0001, 0.00001)
DONORS = (50, 100, 200)
ICCS = (0.0, 0.05, 0.3)
DATA_SETS, GENES, VARIANTS = 3, 1000, 1000
WINDOW = 10**9  # all of one chromosome: every pair is reported
DEFAULT, NULL, REFIT = "Satterthwaite, screen (default)", "residual df, null γ", "residual df, refit"
PSEUDOBULK, CELLS = "pseudobulk, least squares", "cells, least squares"
OPTIONS = {
    DEFAULT: {},
    NULL: {"df": "residual", "variance": "null"},
    REFIT: {"df": "residual", "variance": "refit"},
    CELLS: {"kernel": None},
}
METHODS = (DEFAULT, NULL, REFIT, PSEUDOBULK, CELLS)


@dataclass
class Tally:
    """Counts over the data sets of one setting.

    Attributes
    ----------
    below
        Per method and data set, p-values below each of `LEVELS`, gene by gene (levels × genes).
    tested
        Pairs per method.
    """

    below: dict[str, list[Float]] = field(default_factory=dict)
    tested: dict[str, int] = field(default_factory=dict)

    def add(self, method: str, pairs: pd.DataFrame, column: str = "p_value") -> None:
        p, gene = pairs[column].to_numpy(), pairs["gene"].cat.codes.to_numpy()
        if not np.isfinite(p).all():
            raise RuntimeError(f"{method}: p-values are missing")
        self.below.setdefault(method, []).append(np.stack([np.bincount(gene, p < level) for level in LEVELS]))
        self.tested[method] = self.tested.get(method, 0) + p.size

    def ratio(self, method: str) -> Float:
        """Size over its nominal value, per level."""
        counts = np.concatenate(self.below[method], axis=1)
        return counts.sum(axis=1) / (self.tested[method] * np.array(LEVELS))

    def error(self, method: str) -> Float:
        """Standard error of `ratio`: that between genes, whose pairs share γ̂, and no less than the binomial one."""
        counts, level = np.concatenate(self.below[method], axis=1), np.array(LEVELS)
        between = counts.std(axis=1, ddof=1) * np.sqrt(counts.shape[1]) / (self.tested[method] * level)
        return np.maximum(between, np.sqrt((1 - level) / (level * self.tested[method])))

    def cell(self, method: str, i: int) -> str:
        """The ratio at one level; bold: above 1 by more than three standard errors, italic: below."""
        ratio, error = self.ratio(method)[i], self.error(method)[i]
        mark = "**" if ratio > 1 + 3 * error else "*" if ratio < 1 - 3 * error else ""
        return f"{mark}{ratio:.2f}{mark}" if ratio < 100 else f"{mark}{ratio:.0f}{mark}"


def null_cells(
    n_donors: int, icc: float, number: int, genes: int, variants: int = VARIANTS
) -> Iterator[tuple[AnnData, AnnData]]:
    """Gaussian genes of donors of new sizes (lognormal, 10 to 300 cells), and variants that are independent of each other."""
    name = zlib.crc32(f"eqtl {n_donors} {icc:g}".encode())
    for i in range(number):
        rng = np.random.default_rng([name, i])
        layout = make_layout(n_donors, rng)
        donors = pd.Index([f"donor_{d}" for d in range(n_donors)])
        obs = pd.DataFrame({"donor_id": pd.Categorical.from_codes(layout.donor, categories=donors)})
        obs.index = obs.index.astype(str)
        x = gaussian(layout, np.full(genes, icc), rng)
        expression = AnnData(x, obs=obs, var=_places(genes, "gene", "start"))
        dosage = rng.binomial(2, rng.uniform(0.1, 0.5, variants), (n_donors, variants)).astype(np.float32)
        yield expression, AnnData(dosage, obs=pd.DataFrame(index=donors), var=_places(variants, "variant", "pos"))


def null_counts(n_donors: int, number: int, genes: int) -> Iterator[tuple[AnnData, AnnData]]:
    """Log-normalised counts of `al.datasets.sc_eqtl` without eQTLs; genes differ in their ICC, variants are in linkage disequilibrium."""
    for i in range(number):
        expression, genotype = al.datasets.sc_eqtl(
            n_donors, 50, genes, n_vars=VARIANTS, n_chrom=1, n_eqtl=0, n_secondary=0, n_interaction=0, rng=1000 + i
        )
        expression.X = expression.layers["logcounts"]
        yield expression, genotype


def _places(number: int, name: str, column: str) -> pd.DataFrame:
    index = pd.Index([f"{name}_{i}" for i in range(number)])
    return pd.DataFrame({"chrom": pd.Categorical(["1"] * number), column: np.arange(1, number + 1)}, index=index)


def tally(data_sets: Iterator[tuple[AnnData, AnnData]], covariates: list[str] | None = None) -> Tally:
    found = Tally()
    for expression, genotype in data_sets:
        for method in METHODS:
            of, donor = expression, "donor_id"
            if method == PSEUDOBULK:
                of, donor = al.pp.pseudobulk(expression, "donor_id"), None
            options = OPTIONS.get(method, {})
            al.tl.map_eqtl(of, genotype, donor, window=WINDOW, covariates=covariates, **options)
            found.add(method, al.get.eqtl(of))
    return found


def tables(
    report: Page,
    rows: dict[str, Tally],
    methods: Sequence[str] = METHODS,
    *,
    levels: Sequence[float] = LEVELS,
    what: str,
) -> None:
    """One table per level; `what` says what names the rows."""
    for i, level in enumerate(levels):
        report.text(f"Size at p < {level:g} over {level:g}:")
        report.table(what, "pairs", "error", *methods)
        for label, found in rows.items():
            cells = [found.cell(method, i) for method in methods]
            report.row(label, f"{found.tested[methods[0]]:,}", f"±{found.error(methods[0])[i]:.3f}", *cells)
        report.end()
