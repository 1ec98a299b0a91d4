"""Tests of a term on many genes: t of one coefficient or contrast, F of several, on degrees of freedom of one's choice.

Satterthwaite: ν = 2v²/(gᵀ𝓘⁻¹g) as in `satterthwaite`, for all genes. Several coefficients (Fai & Cornelius 1996, as lmerTest): with
Cov(β̂) = P diag(λ) Pᵀ, F is the mean of t_m² = (Pᵀβ̂)²_m/λ_m; equal ν_m are the degrees of freedom; with any ν_m ≤ 2 they are 2; else E = Σ ν_m/(ν_m−2)
is q times the mean of F(q, ν), ν = 2E/(E−q).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincc

from annlmm.model.hypothesis import log_betainc_tail, log_f_sf
from annlmm.model.kenward_roger import adjusted_covariance, inverse_information, joint_test, single_df
from annlmm.model.parallel import map_blocks
from annlmm.model.responses import CHUNK, Responses
from annlmm.model.responses_term import Estimates, Genes, Term, estimate

Float = NDArray[np.float64]

DEGREES = ("satterthwaite", "kenward-roger", "residual")


@dataclass(frozen=True)
class Coefficients:
    """Estimates with their variances, degrees of freedom and natural logs of two-sided p-values; arrays of one shape."""

    beta: Float
    variance: Float
    df: Float
    log_p_value: Float

    @property
    def standard_error(self) -> Float:
        return np.asarray(np.sqrt(self.variance))

    @property
    def t(self) -> Float:
        return self.beta / self.standard_error


@dataclass(frozen=True)
class TermTests:
    """Tests of m genes; NaN where there is no fit.

    Attributes
    ----------
    single
        The coefficient or contrast, m; None for a joint test.
    levels
        The q coefficients, m × q, for a joint test.
    f, f_df, f_log_p_value
        F, its denominator degrees of freedom and the log of its p-value, for a joint test.
    """

    single: Coefficients | None
    levels: Coefficients | None
    f: Float
    f_df: Float
    f_log_p_value: Float

    @property
    def statistic(self) -> Float:
        """t or F."""
        return self.f if self.single is None else self.single.t

    @property
    def df(self) -> Float:
        return self.f_df if self.single is None else self.single.df

    @property
    def log_p_value(self) -> Float:
        return self.f_log_p_value if self.single is None else self.single.log_p_value


def run_term_tests(
    term: Term, genes: Genes, fits: Responses, *, contrast: Float | None, df: str, threads: int = 1
) -> TermTests:
    """Test every gene that has a fit.

    Parameters
    ----------
    contrast
        q weights of one linear contrast; None tests all q coefficients.
    df
        One of `DEGREES`.
    """
    m, q = fits.gamma.size, term.q
    if contrast is None and q == 1:
        contrast = np.ones(1)
    width = 1 if contrast is not None else q
    values = np.full((4, m, width), np.nan)
    joint = np.full((3, m), np.nan)
    chosen = np.flatnonzero(np.isfinite(fits.tau_sq) & (fits.tau_sq + fits.sigma_sq > 0))

    def test(part: NDArray[np.intp]) -> None:
        found = estimate(term, genes, fits, part, third=df == "kenward-roger")
        tester = _Tester(term, found, df if term.model.space.k else "residual")
        for j, weights in enumerate([contrast] if contrast is not None else np.eye(q)):
            values[:, part, j] = tester.single(weights)
        if contrast is None:
            joint[:, part] = tester.joint()

    parts = [chosen[start : start + CHUNK] for start in range(0, chosen.size, CHUNK)]
    for _ in map_blocks(test, parts, threads):
        pass
    if contrast is not None:
        return TermTests(Coefficients(*values[:, :, 0]), None, *joint)
    return TermTests(None, Coefficients(*values), *joint)


@dataclass(frozen=True)
class _Tester:
    term: Term
    found: Estimates
    df: str

    @property
    def covariance(self) -> Float:
        """Cov(β̂) in units of τ², b × q × q."""
        if self.df == "kenward-roger":
            return adjusted_covariance(self.found, inverse_information(self.found.expected))
        return self.found.unscaled

    def single(self, weights: Float) -> tuple[Float, Float, Float, Float]:
        """Estimate, variance, degrees of freedom and log p of one contrast."""
        found = self.found
        variance = found.tau_sq * ((self.covariance @ weights) @ weights)
        if self.df == "kenward-roger":
            nu = single_df(found, inverse_information(found.expected), weights)
        elif self.df == "satterthwaite":
            nu = self._satterthwaite(np.broadcast_to(weights, found.beta.shape))
        else:
            nu = np.full(variance.size, np.inf)
        estimate, nu = found.beta @ weights, self._capped(nu)
        return estimate, variance, nu, log_f_sf(estimate**2 / variance, nu)

    def joint(self) -> tuple[Float, Float, Float]:
        """F, its denominator degrees of freedom and log p."""
        found, q = self.found, self.term.q
        if self.df == "kenward-roger":
            f, nu = joint_test(found, inverse_information(found.expected))
        else:
            values, vectors = np.linalg.eigh(found.unscaled)
            f = (np.einsum("jqm,jq->jm", vectors, found.beta) ** 2 / (values * found.tau_sq[:, None])).mean(axis=1)
            nu = np.full(f.size, np.inf)
            if self.df == "satterthwaite":
                nu = joint_df(np.stack([self._capped(self._satterthwaite(vectors[:, :, m])) for m in range(q)], axis=1))
        nu = self._capped(nu)
        return f, nu, log_f_sf_joint(f, q, nu)

    def _capped(self, nu: Float) -> Float:
        """At most n − p, which is also what an estimate that depends on no variance ratio has."""
        n_p = float(self.term.model.space.df_residual)
        return np.where(np.isfinite(nu) & (nu > 0), np.minimum(nu, n_p), n_p)

    def _satterthwaite(self, weights: Float) -> Float:
        """ν of one contrast (b × q) by the boundary rule of `satterthwaite.satterthwaite_df`."""
        found = self.found
        z = np.einsum("jpq,jq->jp", found.unscaled, weights)
        v = np.einsum("jq,jq->j", z, weights)
        g1, g2 = (np.einsum("jp,jpq,jq->j", z, by, z) for by in (found.by_sigma, found.by_tau))

        def nu(information: Float) -> Float:
            i11, i12, i22 = information
            with np.errstate(divide="ignore", invalid="ignore"):
                spread = (g1**2 * i22 - 2 * g1 * g2 * i12 + g2**2 * i11) / (i11 * i22 - i12**2)
                return np.where(spread > 0, 2.0 * v**2 / spread, np.inf)

        expected, (o11, o12, o22) = nu(found.expected), found.observed
        with np.errstate(invalid="ignore"):
            definite = (o11 > 0) & (o22 > 0) & (o11 * o22 - o12**2 > 0)
        return np.where(definite & ~found.at_boundary, nu(found.observed), expected)


def joint_df(each: Float) -> Float:
    """Denominator degrees of freedom of F from those of its q parts (b × q)."""
    q = each.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        e = (each / (each - 2.0)).sum(axis=1)
        nu = np.where((each <= 2.0).any(axis=1), 2.0, 2.0 * e / (e - q))
    same = (np.abs(np.diff(each, axis=1)) < 1e-8).all(axis=1)
    return np.where(same, each.mean(axis=1), nu)


def log_f_sf_joint(f: Float, q: int, df: Float) -> Float:
    """log P(F(q, df) > f) = log I_x(df/2, q/2), x = df/(df + q f), finite where the probability itself underflows."""
    if q == 1:
        return log_f_sf(f, df)
    a, b = df / 2.0, q / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = df / (df + q * f), 1.0 / (1.0 + df / (q * f))
        # From whichever of x and y = 1 − x is small.
        upper = np.where(x < 0.5, betainc(a, b, x), betaincc(b, a, y))
        out = np.log(upper)
    tail = np.flatnonzero((out < -600) & np.isfinite(f))
    if tail.size:
        out[tail] = log_betainc_tail(a[tail], b, x[tail], y[tail])
    return np.asarray(out)
