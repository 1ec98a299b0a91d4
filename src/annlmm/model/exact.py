"""Tests at a γ of their own: the refit of each feature turned into the statistics that are reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from annlmm.model.association import BOUNDARY, NOT_CONVERGED, OK, Association, Scan, feature_status
from annlmm.model.grouped import GroupedFeatures, contrast_df, screened
from annlmm.model.hypothesis import chi_square_log_sf, log_f_sf
from annlmm.model.profile import LOG_2PI, make_profile
from annlmm.model.response import Response
from annlmm.model.rotation import Rotated
from annlmm.model.search import bounded_minimum
from annlmm.model.space import RemlSpace, degrees_of_freedom_message
from annlmm.model.statistics import FeatureStatistics

if TYPE_CHECKING:
    from annlmm.model.refit import Refitter

Float = NDArray[np.float64]


@dataclass(frozen=True)
class ExactScan:
    """One response, γ estimated again with each feature.

    Attributes
    ----------
    space
        REML space of the null.
    refitter
        REML for the Wald test, ML for the likelihood ratio.
    null_value
        f at the null's own maximum-likelihood γ (for the likelihood ratio).
    """

    space: RemlSpace
    refitter: Refitter
    null_value: float

    def coordinates(self, features: FeatureStatistics, response: int = 0) -> tuple[Float, Float, Float]:
        """Vᵀa (k × b), and c_aa and c_ay outside V (b), exactly 0 where V spans the space."""
        v = self.space.rotate(features.u)
        if self.space.full:
            return v, np.zeros(v.shape[1]), np.zeros(v.shape[1])
        outside = np.maximum(features.norm - np.einsum("kj,kj->j", v, v), 0.0)
        return v, outside, features.y[:, response] - self.refitter.y @ v

    def test(self, features: FeatureStatistics, response: int = 0) -> Association:
        """Wald by REML, likelihood ratio by ML (GEMMA's p_wald and p_lrt)."""
        v, outside, cross = self.coordinates(features, response)
        status = feature_status(features, features.norm)
        # A copy where it is to be written to.
        rows = np.array(v.T, order="C", copy=None if (status == OK).all() else True)
        return self.test_rotated(Rotated(rows, features.norm, outside, cross[:, None], features.grouped, status))

    def test_rotated(self, features: Rotated, response: int = 0) -> Association:
        """The same of features that are in the REML space already; `v` of those that are not tested is overwritten."""
        space, refitter = self.space, self.refitter
        v, outside, cross, status = features.v, features.outside, features.cross[:, response], features.status.copy()
        bad = status != OK
        if bad.any():
            v[bad], outside, cross = 1.0, np.where(bad, 1.0, outside), np.where(bad, 0.0, cross)
        fit = refitter.fit(v, outside, cross)
        n, df = space.n, space.df_residual - 1
        beta = fit.b / fit.a
        r_sq = np.clip(fit.b * beta / fit.c, 0.0, 1.0)
        rss = fit.c * (1.0 - r_sq)
        at_one = np.isinf(fit.gamma)
        variance = rss / df  # τ², or σ² where γ = ∞
        with np.errstate(divide="ignore", invalid="ignore"):
            f = df * r_sq / (1.0 - r_sq)
            ratio = np.maximum(self.null_value - fit.value, 0.0)
            chi_sq = -n * np.log1p(-r_sq) if refitter.reml else ratio
            log_p = log_f_sf(f, df) if refitter.reml else chi_square_log_sf(ratio)
            sigma_sq = np.where(at_one, variance, fit.gamma * variance)
            h_sq = np.where(at_one, 1.0, fit.gamma / (1.0 + fit.gamma))
        n_effective = refitter.n_effective
        # A constant of the feature: its own −½log‖ã‖² in the restricted likelihood, as ½log|XᵀX| of the null.
        shift = np.log(features.norm, where=~bad, out=np.zeros_like(beta)) if refitter.reml else 0.0
        log_likelihood = -0.5 * (n_effective * (LOG_2PI + 1.0 - np.log(n_effective)) + fit.value - shift)
        statistic, nu = (f, np.full_like(beta, float(df))) if refitter.reml else (ratio, np.full_like(beta, np.nan))
        grouped = np.flatnonzero(features.grouped & ~bad & ~at_one)
        if refitter.reml and grouped.size:
            inside = v[grouped, : space.k].T
            nu[grouped] = self._grouped_df(inside, outside, cross, beta, variance, fit.gamma, grouped)
            log_p[grouped] = log_f_sf(f[grouped], nu[grouped])
        values = {
            "beta": beta,
            "standard_error": np.sqrt(variance / fit.a),
            "statistic": statistic,
            "df": nu,
            "chi_sq": chi_sq,
            "sigma_sq": sigma_sq,
            "tau_sq": np.where(at_one, 0.0, variance),
            "p_value": np.exp(log_p),
            "neg_log10_p_value": -log_p / np.log(10.0),
            "h_sq": h_sq,
            "log_likelihood": log_likelihood,
        }
        status[~bad & ((fit.gamma == 0) | at_one)] = BOUNDARY
        status[~bad & ~fit.converged] = NOT_CONVERGED
        bad |= np.isnan(fit.gamma)
        return Association(**{k: np.where(bad, np.nan, x) for k, x in values.items()}, refit=~bad, status=status)

    def _grouped_df(
        self, v: Float, outside: Float, cross: Float, beta: Float, tau_sq: Float, gamma: Float, chosen: NDArray[np.intp]
    ) -> Float:
        """Satterthwaite degrees of freedom of group-constant features, from the observed information in the interior."""
        outside, cross, beta, tau_sq = outside[chosen], cross[chosen], beta[chosen], tau_sq[chosen]
        y, rest = self.refitter.y, self.refitter.rest
        observed = (
            (y[:, None] - v * beta) / np.sqrt(tau_sq),
            (cross - beta * outside) / np.sqrt(tau_sq),
            (rest - 2 * beta * cross + beta**2 * outside) / tau_sq,
        )
        grouped = GroupedFeatures(v, outside)
        return contrast_df(grouped, self.space.mu, self.space.df_residual, gamma[chosen], observed)


def make_exact_scan(space: RemlSpace, response: Response, *, reml: bool, name: str = "phenotype") -> ExactScan:
    """The refit of one response: REML (Wald) or ML (likelihood ratio, with the null's maximum)."""
    from annlmm.model.refit import make_refitter  # compiles with numba, which most sessions don't need

    refitter = make_refitter(space, response.y_tilde, response.rest, reml=reml)
    profile = make_profile(space, response.y_tilde, response.rest, reml=False)
    null_value = np.nan if reml else bounded_minimum(profile, name).value
    return ExactScan(space, refitter, null_value)


def check_refit(space: RemlSpace) -> None:
    """With one degree of freedom left beside a feature, the restricted likelihood of γ is constant: log r²/(1+γμ) + log(1+γμ)."""
    if space.df_residual < 3:
        needed = "estimating γ again with each feature takes at least 3 (variance='null' takes 2)"
        raise ValueError(degrees_of_freedom_message(space.n, space.p, needed))


def grouped_tests(
    scan: Scan, exact: ExactScan, features: FeatureStatistics, response: int, result: Association, threshold: float
) -> None:
    """Replace the Wald tests of group-constant features, in place, by those on the degrees of freedom of the groups.

    Below `threshold` γ is estimated again: with few groups of unequal size T/ν is no Beta variable in its far tail (with 10
    groups p-values below 1e-5 came eight times too often).
    """
    chosen = np.flatnonzero(features.grouped & (result.status == OK))
    if not chosen.size or np.isinf(scan.gamma):
        return
    part = features.take(chosen)
    v, outside, _ = exact.coordinates(part, response)
    nu = contrast_df(
        GroupedFeatures(v, outside), scan.space.mu, scan.space.df_residual, np.full(chosen.size, scan.gamma)
    )
    r_sq = -np.expm1(-result.chi_sq[chosen] / scan.space.n)
    f, log_p, x = screened(r_sq, nu, scan.space.df_residual)
    result.df[chosen], result.statistic[chosen] = nu, f
    result.p_value[chosen], result.neg_log10_p_value[chosen] = np.exp(log_p), -log_p / np.log(10.0)
    # The standard error that goes with F: β²/F, from T = R²(n−p) without dividing by β.
    null_tau_sq = scan.rss / scan.space.df_residual
    den = result.tau_sq[chosen] / result.standard_error[chosen] ** 2
    result.standard_error[chosen] = np.sqrt(null_tau_sq * (1.0 - x) * (1.0 + nu) / (nu * den))
    strong = np.flatnonzero(np.isnan(x) | (result.p_value[chosen] < threshold))
    if strong.size:
        result.assign(chosen[strong], exact.test(part.take(strong), response))
