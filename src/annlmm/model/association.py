"""Association of features with a response at the null model's γ: y ~ N(aβ + Xα, τ²(I+γK)), one feature at a time.

With ⟨·,·⟩ of `gls` and everything orthogonal to X by ordinary least squares first (Frisch–Waugh–Lovell; Kang et al. 2010,
EMMAX; Zhou & Stephens 2012, eq. 3–4):

    num = ⟨ã,ỹ⟩ − ⟨ã,Q⟩⟨Q,Q⟩⁻¹⟨Q,ỹ⟩,   den = ⟨ã,ã⟩ − ⟨ã,Q⟩⟨Q,Q⟩⁻¹⟨Q,ã⟩,   β = num/den,
    RSS₁ = RSS₀ − num²/den,   SE² = RSS₁/((n−p−1) den),   R² = num²/(den RSS₀).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from annlmm.model.gls import Gls, make_gls
from annlmm.model.hypothesis import TESTS
from annlmm.model.space import RemlSpace, degrees_of_freedom_message
from annlmm.model.statistics import FeatureStatistics

Float = NDArray[np.float64]

STATUS = ("ok", "constant", "collinear", "all_missing", "masked", "boundary", "not_converged")
OK, CONSTANT, COLLINEAR, ALL_MISSING, MASKED, BOUNDARY, NOT_CONVERGED = range(len(STATUS))
UNTESTED = len(STATUS)  # for the time being


@dataclass(frozen=True)
class Association:
    """Tests of m features; NaN where `status` is not ok (an index into `STATUS`).

    Attributes
    ----------
    beta, standard_error
        Effect of one unit of the feature, in units of y.
    statistic, df
        Of the test that was asked for, and its denominator degrees of freedom (NaN for χ²).
    chi_sq
        Likelihood ratio n log(RSS₀/RSS₁), always.
    sigma_sq, tau_sq
        Variance components with the feature in the model, RSS₁/(n−p−1) split by γ.
    p_value, neg_log10_p_value
        The second survives where the first underflows.
    h_sq, log_likelihood
        With the feature in the model, where γ is estimated again; NaN otherwise.
    refit
        Whether it was.
    """

    beta: Float
    standard_error: Float
    statistic: Float
    df: Float
    chi_sq: Float
    sigma_sq: Float
    tau_sq: Float
    p_value: Float
    neg_log10_p_value: Float
    h_sq: Float
    log_likelihood: Float
    refit: NDArray[np.bool_]
    status: NDArray[np.int8]

    @staticmethod
    def empty(size: int, status: int) -> Association:
        """All NaN, to be filled."""
        columns = {f.name: np.full(size, np.nan) for f in fields(Association) if f.name not in ("refit", "status")}
        return Association(**columns, refit=np.zeros(size, dtype=bool), status=np.full(size, status, dtype=np.int8))

    def assign(self, columns: NDArray[np.intp], part: Association) -> None:
        """Fill in the results of some features."""
        for f in fields(Association):
            getattr(self, f.name)[columns] = getattr(part, f.name)


@dataclass(frozen=True)
class Scan:
    """One response at one γ, ready for blocks of features."""

    space: RemlSpace
    gls: Gls
    u_y: Float
    q_solved: Float
    rss: float
    gamma: float

    @property
    def df_residual(self) -> int:
        """Of the alternative: n − p − 1."""
        return self.space.df_residual - 1

    def ratios(self, features: FeatureStatistics, response: int = 0) -> tuple[Float, Float]:
        """num and den of every feature."""
        u, gls, space = features.u, self.gls, self.space
        weighted = (u.T * gls.w).T
        aq = gls.cross(u, space)
        num = self.u_y @ weighted - self.q_solved @ aq
        if not space.angles.complete:
            num = num + features.y[:, response] - self.u_y @ u
        den = np.einsum("rj,rj->j", weighted, u) + features.outside - np.einsum("pj,pq,qj->j", aq, gls.qq_inverse, aq)
        return np.asarray(num), np.asarray(den)

    def test(self, features: FeatureStatistics, test: str = "wald", response: int = 0) -> Association:
        """Test every feature of a block."""
        num, den = self.ratios(features, response)
        return self.finish(num, den, feature_status(features, den), test)

    def finish(self, num: Float, den: Float, status: NDArray[np.int8], test: str) -> Association:
        """From num and den to everything that is reported; NaN where the status is not ok."""
        bad = status != OK
        num, den = np.where(bad, np.nan, num), np.where(bad, np.nan, den)
        n, df = self.space.n, self.df_residual
        beta = num / den
        # RSS₁/RSS₀ = 1 − R²; a feature equal to y leaves nothing.
        r_sq = np.minimum(num * beta / self.rss, 1.0)
        tau_sq = self.rss * (1.0 - r_sq) / df
        with np.errstate(divide="ignore"):
            chi_sq = -n * np.log1p(-r_sq)
        result = TESTS[test](r_sq, n, self.space.p)
        at_one = np.isinf(self.gamma)
        return Association(
            beta=beta,
            standard_error=np.sqrt(tau_sq / den),
            statistic=result.statistic,
            df=np.where(bad, np.nan, result.df),
            chi_sq=chi_sq,
            sigma_sq=self.gls.gamma * tau_sq,
            tau_sq=tau_sq * 0.0 if at_one else tau_sq,
            p_value=np.exp(result.log_p_value),
            neg_log10_p_value=-result.log_p_value / np.log(10.0),
            h_sq=np.full_like(beta, np.nan),
            log_likelihood=np.full_like(beta, np.nan),
            refit=np.zeros(beta.size, dtype=bool),
            status=status,
        )


def feature_status(features: FeatureStatistics, den: Float) -> NDArray[np.int8]:
    """'ok', 'constant' or 'collinear' per feature; `den` is what is left of its sum of squares."""
    status = np.where(features.collinear | ~(den > 0), COLLINEAR, OK).astype(np.int8)
    status[features.constant & features.collinear] = CONSTANT
    return status


def make_scan(space: RemlSpace, u_y: Float, outside: float, gamma: float) -> Scan:
    """Prepare the tests of features against one response at γ.

    Parameters
    ----------
    u_y
        Uᵀ(My), r.
    outside
        c_ỹỹ = ‖My − U Uᵀ My‖².
    """
    if space.df_residual < 2:
        needed = "testing a feature takes one more: at least 2 are needed"
        raise ValueError(degrees_of_freedom_message(space.n, space.p, needed))
    gls = make_gls(space, gamma)
    cross = gls.cross(u_y, space)
    solved = gls.qq_inverse @ cross
    rss = float(np.sum(gls.w * u_y**2) + (0.0 if space.angles.complete else outside) - cross @ solved)
    return Scan(space, gls, u_y, solved, rss, gamma)
