"""The p-values of every method on one data set of null genes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from _simulate import Float, Layout
from anndata import AnnData
from numpy.typing import NDArray

import annlmm as al

LEVELS = (0.05, 0.01, 0.001)
SATTERTHWAITE, MODERATED, KENWARD_ROGER = "Satterthwaite", "moderated", "Kenward–Roger"
RESIDUAL, PSEUDOBULK, CELLS = "residual df", "pseudobulk", "t-test on cells"

OPTIONS = {
    SATTERTHWAITE: {},
    MODERATED: {"moderate": True},
    KENWARD_ROGER: {"df": "kenward-roger"},
    RESIDUAL: {"df": "residual"},
    CELLS: {"kernel": None},
}
METHODS = (SATTERTHWAITE, MODERATED, KENWARD_ROGER, PSEUDOBULK, RESIDUAL, CELLS)
INTERVAL_DATA_SETS = 4


def p_values(adata: AnnData, layout: Layout, term: str) -> dict[str, Float]:
    """By method; pseudobulk for a condition of the donors only."""
    found = {}
    for name, options in OPTIONS.items():
        al.tl.differential(adata, term, **options)
        found[name] = adata.var["de_p_value"].to_numpy()
    if term == "ill":
        found[PSEUDOBULK] = pseudobulk(adata.X, layout)
    return found


def pseudobulk(x: NDArray[np.floating], layout: Layout) -> Float:
    """Least squares on the means of the donors, unweighted: the t-test with one variance."""
    from scipy.stats import ttest_ind

    means = layout.means(x)
    return ttest_ind(means[layout.ill], means[~layout.ill]).pvalue


@dataclass
class Tally:
    """Counts over the data sets of one setting.

    Attributes
    ----------
    below
        Per method, how many p-values are below each of `LEVELS`.
    tested
        Genes per method.
    """

    below: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    tested: dict[str, int] = field(default_factory=dict)

    def add(self, found: dict[str, Float], chosen: NDArray[np.bool_] | slice = slice(None)) -> None:
        for name, p in found.items():
            p = p[chosen]
            if not np.isfinite(p).all():
                raise RuntimeError(f"{name}: p-values are missing")
            self.below[name] = self.below.get(name, 0) + np.array([np.sum(p < level) for level in LEVELS])
            self.tested[name] = self.tested.get(name, 0) + p.size

    def ratio(self, name: str) -> Float:
        """Size over its nominal value, per level."""
        return self.below[name] / (self.tested[name] * np.array(LEVELS))

    def error(self, name: str) -> Float:
        """Binomial standard error of `ratio` where the size is nominal."""
        level = np.array(LEVELS)
        return np.sqrt((1 - level) / (level * self.tested[name]))


@dataclass
class Components:
    """Estimates of the variance components, and coverage of the interval of h², over data sets.

    Attributes
    ----------
    sigma_sq, tau_sq, h_sq, at_zero
        Per gene; `at_zero` where σ² is estimated as 0.
    covered
        Per gene with an interval: whether it holds the true h².
    """

    sigma_sq: list[Float] = field(default_factory=list)
    tau_sq: list[Float] = field(default_factory=list)
    h_sq: list[Float] = field(default_factory=list)
    covered: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, adata: AnnData) -> None:
        al.tl.variance_components(adata, "~ ill")
        table = al.get.variance_components(adata)
        for name in ("sigma_sq", "tau_sq", "h_sq"):
            getattr(self, name).append(table[name].to_numpy())

    def add_intervals(self, adata: AnnData, icc: float, n_genes: int) -> None:
        """One model for all responses: they share its simulated null, a few milliseconds per gene."""
        adata.obsm["genes"] = adata.X[:, :n_genes].astype(np.float64)
        al.tl.fit_null(adata, "genes", covariates="~ ill")
        fits = adata.uns["lmm"]["fits"]
        covered = (fits["h_sq_ci_low"] <= icc) & (icc <= fits["h_sq_ci_high"])
        self.covered.append(covered.to_numpy())

    def mean(self, name: str) -> tuple[float, float]:
        """Mean and its standard error."""
        values = np.concatenate(getattr(self, name))
        return float(values.mean()), float(values.std() / np.sqrt(values.size))

    @property
    def at_zero(self) -> float:
        return float(np.mean(np.concatenate(self.sigma_sq) == 0))

    @property
    def coverage(self) -> tuple[float, float]:
        covered = np.concatenate(self.covered)
        return float(covered.mean()), float(np.sqrt(0.95 * 0.05 / covered.size))
