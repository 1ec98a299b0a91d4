"""The null fit: y ~ N(Xβ, σ²K + τ²I) at the global (restricted) maximum likelihood, or at a γ that is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from annlmm.model.basis import Basis
from annlmm.model.cached import cached_property
from annlmm.model.design import Design
from annlmm.model.gls import make_gls
from annlmm.model.profile import Profile, make_profile
from annlmm.model.response import Response, make_response, residual_of
from annlmm.model.satterthwaite import satterthwaite_df, variance_information
from annlmm.model.search import bounded_minimum
from annlmm.model.space import RemlSpace, check_identifiable, make_space
from annlmm.model.variance_test import RlrtNull, VarianceNull, make_variance_null

Float = NDArray[np.float64]


@dataclass(frozen=True)
class NullFit:
    """The fitted null model; h² = γ/(1+γ), σ² = γτ².

    Attributes
    ----------
    beta, beta_covariance, beta_df
        p fixed effects, their covariance, Satterthwaite degrees of freedom.
    sigma_sq, tau_sq, gamma
        Variance components and their ratio; γ in [0, ∞].
    h_sq_standard_error
        From the curvature of the profile; NaN on a boundary or where γ was given.
    h_sq_ci_low, h_sq_ci_high
        Ends of the 95 % interval.
    h_sq_log_p_value, h_sq_p_value_mixture
        Natural log of the RLRT p-value of σ² = 0; the p-value of the ½χ²₀ + ½χ²₁ mixture.
    pve, pve_standard_error
        σ²t/(σ²t+τ²), t the mean diagonal of the centred kernel.
    log_likelihood, aic
        True restricted or full log-likelihood; −2ℓ + 2(p + 2).
    status
        'ok', 'boundary' or 'not_converged'.
    """

    beta: Float
    beta_covariance: Float
    beta_df: Float
    sigma_sq: float
    tau_sq: float
    gamma: float
    h_sq_standard_error: float
    h_sq_ci_low: float
    h_sq_ci_high: float
    h_sq_log_p_value: float
    h_sq_p_value_mixture: float
    pve: float
    pve_standard_error: float
    log_likelihood: float
    aic: float
    n_obs: int
    rank: int
    reml: bool
    gamma_fixed: bool
    status: str

    @property
    def h_sq(self) -> float:
        return h_sq_of(self.gamma)

    @property
    def beta_standard_error(self) -> Float:
        return np.asarray(np.sqrt(np.diagonal(self.beta_covariance)))

    @property
    def h_sq_p_value(self) -> float:
        """Never 0: log p-values below the smallest float are reported as that float."""
        return float(np.maximum(np.exp(self.h_sq_log_p_value), np.finfo(np.float64).tiny))


def h_sq_of(gamma: float) -> float:
    """h² = γ/(1+γ)."""
    return 1.0 if np.isinf(gamma) else gamma / (1.0 + gamma)


class NullModel:
    """Rows, covariates and kernel joined once; every response on them shares the space and the simulated nulls.

    Parameters
    ----------
    design, basis
        X and K on the same n rows.
    reml
        Restricted or full maximum likelihood.
    identifiable
        Raise where the data cannot tell K from the residual; not needed where γ is given.
    seed
        Of the simulated nulls.
    """

    def __init__(
        self,
        design: Design,
        basis: Basis,
        *,
        reml: bool = True,
        identifiable: bool = True,
        seed: int = 0,
        kernel: str = "kernel",
    ) -> None:
        if basis.n != design.n:
            raise ValueError(
                f"{kernel}: {basis.n} rows, but the covariates have {design.n}; both must be on the same observations"
            )
        self.design, self.basis, self.reml, self.seed, self.kernel = design, basis, reml, seed, kernel
        self.space = make_space(basis.project(design.q), basis.eigenvalues, design)
        if identifiable:
            check_identifiable(self.space, kernel=kernel)

    @cached_property
    def variance_null(self) -> VarianceNull:
        return make_variance_null(make_profile(self.space, np.zeros(self.space.k), 0.0, reml=self.reml), self.seed)

    @cached_property
    def rlrt(self) -> RlrtNull:
        return self.variance_null.rlrt()

    def response(self, y: Float, *, name: str = "phenotype") -> Response:
        """Project y; refuse one that is constant or explained by the covariates."""
        if not np.isfinite(y).all():
            raise ValueError(f"{name}: {int((~np.isfinite(y)).sum())} NaN or infinite values; drop these rows")
        response = make_response(y, self.design, self.basis, self.space)
        size = float(np.sum((y - y[0]) ** 2)) if self.design.spans_constant else float(y @ y)
        if response.my_sq <= 1e-20 * max(size, float(y @ y) * 1e-10):
            what = "constant" if np.ptp(y) == 0 else "a linear combination of the covariates"
            raise ValueError(f"{name}: {what} on the rows that are used; there is no variance to model")
        # Nothing of y varies within groups: τ² = 0 fits perfectly and the likelihood has no maximum.
        if not self.space.full and self.space.k and response.rest < 1e-12 * response.my_sq:
            raise ValueError(
                f"{name}: constant within the groups of {self.kernel!r} (or in the span of its {self.space.k} eigenvectors), so that "
                "nothing is left for the residual; fit it on one row per group (aggregate first), or turn the question round: "
                "test its effect on each feature (al.tl.differential)"
            )
        return response

    def profile(self, response: Response) -> Profile:
        return make_profile(self.space, response.y_tilde, response.rest, reml=self.reml)

    def fit(self, y: Float, gamma: float | None = None, *, simulate: bool = True, name: str = "phenotype") -> NullFit:
        """Fit one response.

        Parameters
        ----------
        y
            n values, finite.
        gamma
            σ²/τ² to hold fixed, in [0, ∞]; estimated if None.
        simulate
            Whether to report the simulated interval and p-value of h² (NaN otherwise).
        """
        response = self.response(y, name=name)
        profile = self.profile(response)
        if gamma is None:
            found = bounded_minimum(profile, name)
            gamma_hat, value = found.gamma, found.value
            status = found.status if self.space.k else "ok"
        else:
            gamma_hat, status = check_gamma(gamma, self.space), "ok"
            value = profile.value(gamma_hat)
            if np.isinf(gamma_hat) and not profile.at_one:
                raise ValueError(
                    "gamma: infinite (h² = 1) has no full likelihood here, it grows without bound towards it; use reml=True"
                )
        fixed = gamma is not None
        se_log_gamma = (
            np.nan
            if fixed or status == "boundary" or not self.space.k
            else standard_error_log_gamma(profile, gamma_hat)
        )
        h_sq = h_sq_of(gamma_hat)
        t = self.basis.trace_scale
        pve = 1.0 if np.isinf(gamma_hat) else gamma_hat * t / (1.0 + gamma_hat * t)

        low = high = log_p = mixture = np.nan
        if self.space.k and not fixed and simulate:
            ratio = max(profile.value(0.0) - value, 0.0)
            low, high = (h_sq_of(g) for g in self.variance_null.interval(profile, gamma_hat, value))
            log_p = float(self.rlrt.log_p_value(ratio))
            mixture = 1.0 if ratio == 0 else float(0.5 * erfc(np.sqrt(ratio / 2)))
        log_likelihood = profile.log_likelihood(gamma_hat)
        sigma_sq, tau_sq = variance_components(profile, gamma_hat)
        beta, covariance, df = fixed_effects(self.design, self.space, response, profile, gamma_hat, fixed=fixed)
        return NullFit(
            beta=beta,
            beta_covariance=covariance,
            beta_df=df,
            sigma_sq=sigma_sq,
            tau_sq=tau_sq,
            gamma=gamma_hat,
            # 1 − h² as 1/(1+γ), which keeps its digits near h² = 1.
            h_sq_standard_error=h_sq / (1.0 + gamma_hat) * se_log_gamma,
            h_sq_ci_low=low,
            h_sq_ci_high=high,
            h_sq_log_p_value=log_p,
            h_sq_p_value_mixture=mixture,
            pve=pve,
            pve_standard_error=pve / (1.0 + gamma_hat * t) * se_log_gamma,
            log_likelihood=log_likelihood,
            aic=-2.0 * log_likelihood + 2.0 * (self.space.p + (1 if fixed or not self.space.k else 2)),
            n_obs=self.space.n,
            rank=self.space.eigenvalues.size,
            reml=self.reml,
            gamma_fixed=fixed,
            status=status,
        )

    def predict_random(self, y: Float, gamma: float) -> tuple[Float, Float]:
        """BLUP of the random effect, γK(I+γK)⁻¹(y − Xβ̂), and the residual y − Xβ̂ − BLUP (Robinson 1991)."""
        response = make_response(y, self.design, self.basis, self.space)
        my, _ = residual_of(y, self.design)
        gls = make_gls(self.space, gamma)
        b = gls.solve_q(response.u, self.space)
        error = my - self.design.q @ b
        shrunk = (1.0 - gls.w) * (response.u - self.space.angles.t @ b)
        blup = self.basis.expand(shrunk)
        return blup, error - blup


def check_gamma(gamma: float, space: RemlSpace) -> float:
    """A γ that was given: 0.0 and ∞ are values like any other, where the model has them."""
    if not isinstance(gamma, (int, float, np.integer, np.floating)) or isinstance(gamma, bool):
        raise TypeError(f"gamma: must be a number, received {gamma!r} of type {type(gamma).__name__}")
    if not gamma >= 0:
        raise ValueError(f"gamma: must be at least 0 (σ²/τ²), received {gamma}")
    if np.isinf(gamma) and not (space.full and space.k):
        raise ValueError(
            f"gamma: infinite (h² = 1) needs a kernel of full rank {space.df_residual} after the covariates; this one has rank {space.k}"
        )
    return float(gamma)


def standard_error_log_gamma(profile: Profile, gamma: float) -> float:
    """SE(log γ̂) = √(2/f″), from the derivative in whichever of γ, log γ, 1/γ is well scaled there."""
    size = gamma * profile.mu
    if size.max() < 1e-3:
        curvature = profile.gamma_derivatives(gamma)[1] * gamma**2
    elif size.min() > 1e3 and profile.at_one:
        curvature = profile.inverse_derivatives(1.0 / gamma)[1] / gamma**2
    else:
        curvature = profile.log_derivatives(float(np.log(gamma)))[1]
    return float(np.sqrt(2.0 / curvature)) if curvature > 0 else np.nan


def variance_components(profile: Profile, gamma: float) -> tuple[float, float]:
    """σ² and τ² at γ: RSS over n − p (REML) or n (ML)."""
    scale = profile.rss(gamma) / profile.n_effective
    return (scale, 0.0) if np.isinf(gamma) else (gamma * scale, scale)


def fixed_effects(
    design: Design, space: RemlSpace, response: Response, profile: Profile, gamma: float, *, fixed: bool
) -> tuple[Float, Float, Float]:
    """β̂, its covariance and Satterthwaite degrees of freedom in the columns of X."""
    gls = make_gls(space, gamma)
    at_boundary = gamma == 0 or bool(np.isinf(gamma))
    gamma = gls.gamma
    tau_sq = profile.rss(gamma) / profile.n_effective
    beta = np.asarray(np.linalg.solve(design.r_factor, response.q_y + gls.solve_q(response.u, space)))
    r_inverse = np.linalg.inv(design.r_factor)
    unscaled = r_inverse @ gls.qq_inverse @ r_inverse.T
    if fixed or not space.k:  # nothing but the scale is estimated
        return beta, tau_sq * unscaled, np.full(space.p, float(space.df_residual))
    # dC/dσ² = C [XᵀV⁻¹KV⁻¹X] C and dC/dτ² = C [XᵀV⁻²X] C; V = τ²(I+γK), so that both carry τ⁻⁴ · τ⁴.
    t, s, w = space.angles.t, space.eigenvalues, gls.w
    loadings = gls.qq_inverse @ r_inverse.T
    by_sigma = (t.T * (s * w**2)) @ t
    by_tau = (t.T * w**2) @ t + space.angles.complement
    gradient = np.stack([np.einsum("im,ij,jm->m", loadings, d, loadings) for d in (by_sigma, by_tau)], axis=1)
    information = variance_information(profile, gamma * tau_sq, tau_sq, at_boundary=at_boundary)
    df = satterthwaite_df(tau_sq * np.diagonal(unscaled), gradient, information, space.df_residual)
    return beta, tau_sq * unscaled, np.minimum(df, space.df_residual)
