"""A linear mixed model from rotated data, with numpy alone: the class that Hail had."""

from __future__ import annotations

import warnings
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult

from annlmm.model.alternatives import alternatives_table, dask_alternatives, is_lazy
from annlmm.model.checks import (
    check_bounds,
    check_partition_size,
    check_steps,
    eigenvalue_array,
    factor_rotation,
    feature_array,
    gamma_log,
    gamma_of,
    real_array,
    same_rows,
)
from annlmm.model.design import make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.null import fixed_effects, h_sq_of, standard_error_log_gamma, variance_components
from annlmm.model.rotated import RotatedData
from annlmm.model.search import minimise
from annlmm.model.space import check_identifiable, degrees_of_freedom_message
from annlmm.model.summary import Fit, How, Known, Summary

Float = NDArray[np.float64]

# Hail's default; it means the whole range, h² = 0 and h² = 1 included, in K's own scale.
DEFAULT_BOUNDS = (-8.0, 8.0)
NOT_FITTED = "the null model is not fitted; call fit() first"


class LinearMixedModel:
    r"""Linear mixed model y ~ N(Xβ, σ²K + τ²I) from data rotated by the eigenvectors of K = USUᵀ, P = Uᵀ.

    Full rank: (P y, P X, S) with P n × n. Low rank: (P_r y, P_r X, S_r, y, X) with P_r r × n, r < n, the eigenvectors
    with non-zero eigenvalues (or the leading ones). γ = σ²/τ², h² = γ/(1+γ).

    Parameters
    ----------
    py
        (r,) rotated response.
    px
        (r, p) rotated fixed effects.
    s
        (r,) eigenvalues of the kernel, not negative.
    y, x
        (n,) response and (n, p) fixed effects: both for a low-rank model, neither for a full-rank one.

    Attributes
    ----------
    low_rank : bool
    n, f, r : int
        Observations, fixed effects, eigenvectors.
    py, px, s, y, x
        Copies of the input, float64 (`y` and `x` are None for a full-rank model).
    beta : ndarray
        (p,) fixed effects at the fit; None before it, as are the following.
    sigma_sq, tau_sq, gamma, log_gamma, h_sq : float
        Fitted variance components, σ²/τ², its log, σ²/(σ²+τ²).
    h_sq_standard_error : float
        From the analytic curvature of the profile; None if γ was given, NaN on a boundary.
    optimize_result : scipy.optimize.OptimizeResult
        Of an unconstrained fit: x (log γ), fun (negative log REML, shifted as in `compute_neg_log_reml`), success, status,
        message.
    status : str
        'ok', 'boundary' (h² = 0, h² = 1 or one of `bounds`) or 'not_converged'.

    Raises
    ------
    TypeError, ValueError
        If shapes disagree, values are not finite, X is rank deficient (the columns are named), no degrees of freedom are
        left, or only one of `y` and `x` is given.

    Notes
    -----
    The method is that of Lippert et al. (2011), as in Hail's class of the same name; the differences from it are listed
    in the documentation (from Hail to annlmm).

    Examples
    --------
    >>> import numpy as np
    >>> import annlmm as al
    >>> y = np.array([0.0, 1.0, 8.0, 9.0])
    >>> x = np.array([[1.0, 0.0], [1.0, 2.0], [1.0, 1.0], [1.0, 4.0]])
    >>> z = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 4.0], [2.0, 4.0, 8.0]])
    >>> model, p = al.LinearMixedModel.from_kinship(y, x, z @ z.T)
    >>> model.fit(log_gamma=np.log(2.0))
    >>> model.beta.round(4)
    array([ 0.1784, -1.7752])
    >>> x_star = np.array([1.0, 0.0, 1.0, 0.0])
    >>> test = model.fit_alternatives(p @ x_star[:, None])
    >>> float(test.loc[0, "beta"].round(4)), float(test.loc[0, "chi_sq"].round(4))
    (7.6667, 0.5703)
    """

    def __init__(
        self, py: ArrayLike, px: ArrayLike, s: ArrayLike, y: ArrayLike | None = None, x: ArrayLike | None = None
    ) -> None:
        if (y is None) != (x is None):
            given, missing = ("x", "y") if y is None else ("y", "x")
            raise ValueError(
                f"received '{given}' without '{missing}'; pass both for a low-rank model, neither for a full-rank one"
            )
        self.py = real_array("py", py, 1)
        self.px = real_array("px", px, 2)
        self.s = eigenvalue_array("s", s)
        self.r, self.f = self.px.shape
        if self.py.size != self.r or self.s.size != self.r:
            raise ValueError(
                f"py, px and s must have one row per eigenvector, received shapes {self.py.shape}, {self.px.shape} and {self.s.shape}"
            )
        if self.f == 0:
            raise ValueError("px: received no columns; the model needs at least one fixed effect, add an intercept")
        self.low_rank = y is not None
        self.y: Float | None = None
        self.x: Float | None = None
        self.n = self.r
        if y is not None and x is not None:
            self.y, self.x = real_array("y", y, 1), real_array("x", x, 2)
            self.n = self.y.size
            if self.x.shape != (self.n, self.f):
                raise ValueError(f"x: must have shape {(self.n, self.f)} to go with y and px, received {self.x.shape}")
            if self.n <= self.r:
                raise ValueError(
                    f"low rank needs more observations than eigenvectors, received n = {self.n} and r = {self.r}; "
                    "for a full-rank model pass neither y nor x"
                )
        if self.n - self.f < 1:
            raise ValueError(degrees_of_freedom_message(self.n, self.f))
        argument, fixed, response = (
            ("px", self.px, self.py) if self.x is None or self.y is None else ("x", self.x, self.y)
        )
        self._data = RotatedData(self.py, self.px, self.s, response, make_design(fixed, argument=argument))
        self._known = Known("y", tuple(f"x{i}" for i in range(self.f)), "K")
        self._reset()

    def _reset(self) -> None:
        self.beta: Float | None = None
        self.sigma_sq: float | None = None
        self.tau_sq: float | None = None
        self.gamma: float | None = None
        self.log_gamma: float | None = None
        self.h_sq: float | None = None
        self.h_sq_standard_error: float | None = None
        self.optimize_result: OptimizeResult | None = None
        self.status: str | None = None
        self._fit: Fit | None = None

    def __repr__(self) -> str:
        if self._fit is not None:
            return str(self._fit.summary())
        kind = f"low rank {self.r}" if self.low_rank else "full rank"
        return f"LinearMixedModel: {self.n} observations, {self.f} fixed effects, {kind}, not fitted"

    def _repr_html_(self) -> str | None:
        return None if self._fit is None else self._fit.summary()._repr_html_()

    def summary(self, *, variance_test: bool = True) -> Summary:
        """The fitted model as tables of fixed effects and variance components: text, HTML in a notebook, DataFrames.

        Parameters
        ----------
        variance_test
            Whether to simulate the interval of h² and the p-value of σ² = 0 of a fit over all γ (a second, once). Without it, as in
            the `repr`, they are there if they are known: from `al.tl.fit_null`, or from an earlier call.

        Raises
        ------
        ValueError
            If the model is not fitted.
        """
        if self._fit is None:
            raise ValueError(NOT_FITTED)
        return self._fit.summary(simulate=variance_test)

    @overload
    def compute_neg_log_reml(self, log_gamma: float, return_parameters: Literal[False] = False) -> float: ...
    @overload
    def compute_neg_log_reml(
        self, log_gamma: float, return_parameters: Literal[True]
    ) -> tuple[float, Float, float, float]: ...
    def compute_neg_log_reml(
        self, log_gamma: float, return_parameters: bool = False
    ) -> float | tuple[float, Float, float, float]:
        """Negative log REML at log γ, up to a constant of n, p and X.

        Add ½((n−p)(1 + log 2π) − log|XᵀX|) for the true negative restricted log-likelihood.

        Parameters
        ----------
        log_gamma
            log(σ²/τ²), in [−∞, ∞]; the value is infinite at ∞ unless K has full rank after the fixed effects.
        return_parameters
            Whether to return β, σ² and τ² too.

        Returns
        -------
        float or (float, ndarray, float, float)
            The value, or the value with β (p,), σ² and τ².
        """
        if log_gamma == np.inf and not self._data.space.full and not return_parameters:
            return np.inf
        gamma = gamma_of(log_gamma, self._data.space)
        profile, df = self._data.profile, self._data.space.df_residual
        # f = (n−p) log RSS + log|I+γMKM|, and log|XᵀV⁻¹X| + log|V| = log|I+γMKM| + log|XᵀX|.
        value = 0.5 * (profile.value(gamma) - df * np.log(df) + self._data.design.log_det_xtx)
        if not return_parameters:
            return float(value)
        sigma_sq, tau_sq = variance_components(profile, gamma)
        return float(value), self._beta_at(gamma), sigma_sq, tau_sq

    def _beta_at(self, gamma: float) -> Float:
        return fixed_effects(
            self._data.design, self._data.space, self._data.response, self._data.profile, gamma, fixed=True
        )[0]

    def fit(
        self,
        log_gamma: float | None = None,
        bounds: tuple[float, float] = DEFAULT_BOUNDS,
        tol: float = 1e-8,
        maxiter: int = 500,
    ) -> None:
        """Fit by restricted maximum likelihood, or at a given log γ.

        Parameters
        ----------
        log_gamma
            log(σ²/τ²) to hold fixed, 0.0 included; estimated if None.
        bounds
            Of log γ. The default means the whole range, h² = 0 and h² = 1 included, whatever the scale of K; any other pair
            is taken as given. An optimum at a bound is a result, with `status` 'boundary'.
        tol
            Precision of log γ.
        maxiter
            Steps of the optimiser.

        Notes
        -----
        Sets `beta`, `sigma_sq`, `tau_sq`, `gamma`, `log_gamma`, `h_sq`, `h_sq_standard_error`, `status` and, unless
        `log_gamma` is given, `optimize_result`. Whatever an earlier fit set is replaced.

        Raises
        ------
        ValueError
            If the kernel cannot be told from the residual or is absorbed by the fixed effects, the bounds are not
            increasing, or the likelihood has no maximum since nothing of y is left outside K.
        """
        self._reset()
        how: How = "given"
        if log_gamma is not None:
            gamma, status, standard_error = gamma_of(log_gamma, self._data.space), "ok", None
        else:
            limits = check_bounds(bounds)
            check_steps(tol, maxiter)
            check_identifiable(self._data.space, kernel="s")
            self._data.check_residual()
            found = minimise(self._data.profile, None if limits == DEFAULT_BOUNDS else limits, tol=tol, maxiter=maxiter)
            gamma, status = found.gamma, found.status
            how = "estimated" if limits == DEFAULT_BOUNDS else "bounded"
            if status == "not_converged":
                warnings.warn(found.message, RuntimeWarning, stacklevel=2)
            curvature = np.nan if status == "boundary" else standard_error_log_gamma(self._data.profile, gamma)
            standard_error = h_sq_of(gamma) / (1.0 + gamma) * curvature
            x = gamma_log(gamma)
            self.optimize_result = OptimizeResult(
                x=x,
                fun=self.compute_neg_log_reml(x),
                success=found.converged,
                status=status,
                message=found.message,
                nfev=found.n_evaluations,
            )
        self.sigma_sq, self.tau_sq = variance_components(self._data.profile, gamma)
        self.beta = self._beta_at(gamma)
        self.gamma = gamma
        self.log_gamma = gamma_log(gamma) if log_gamma is None else float(log_gamma)
        self.h_sq = h_sq_of(gamma)
        self.h_sq_standard_error = standard_error
        self.status = status
        self._fit = Fit(self._data, gamma, standard_error, status, how, self._known)

    def h_sq_normalized_lkhd(self) -> Float:
        """The restricted likelihood over h² = 0, 0.01, …, 1, normalised to sum 1 over the 99 interior points.

        Returns
        -------
        ndarray
            101 values, NaN at both ends.
        """
        h = np.arange(1, 100) / 100
        log_likelihood = -0.5 * self._data.profile.values(h / (1 - h))
        likelihood = np.exp(log_likelihood - log_likelihood.max())
        return np.concatenate([[np.nan], likelihood / likelihood.sum(), [np.nan]])

    def fit_alternatives(self, pa: Any, a: Any = None, partition_size: int | None = None) -> pd.DataFrame:
        """Test each column of A as one more fixed effect by the likelihood ratio at the null model's γ.

        Parameters
        ----------
        pa
            (r, m) rotated features P A. Also a dask array of (P A)ᵀ, shape (m, r), or the path of a zarr array of that
            shape, as Hail's stored block matrices: the features are then its rows.
        a
            (n, m) features, required for a low-rank model and forbidden for a full-rank one; Aᵀ (m, n) in the form that
            `pa` has, where that is lazy.
        partition_size
            Features per task of the lazy form; the array's own row chunks if None.

        Returns
        -------
        DataFrame
            Indexed by `idx`, the feature's number: `beta`, `sigma_sq` (RSS₁/(n−p−1) on the scale of σ²), `chi_sq`
            (n log(RSS₀/RSS₁)), `p_value` (χ²₁), `standard_error`. NaN where a feature has NaN or infinite values, or is a linear
            combination of the fixed effects.

        Raises
        ------
        ValueError
            If the model is not fitted, shapes disagree, or n − p − 1 < 1.
        """
        if self._fit is None or self.gamma is None:
            raise ValueError(NOT_FITTED)
        if (a is None) == self.low_rank:
            raise ValueError(
                "a: required for a low-rank model, pass the features themselves beside P A"
                if self.low_rank
                else "a: not used by a full-rank model, pass P A alone"
            )
        scan = self._data.scan(self.gamma)
        check_partition_size(partition_size)
        if is_lazy(pa) or is_lazy(a):
            return dask_alternatives(self._data, scan, pa, a, partition_size)
        pa = feature_array("pa", pa)
        if pa.shape[0] != self.r:
            raise ValueError(f"pa: must have {self.r} rows (one per eigenvector), received shape {pa.shape}")
        if a is not None:
            a = feature_array("a", a)
            if a.shape != (self.n, pa.shape[1]):
                raise ValueError(f"a: must have shape {(self.n, pa.shape[1])} to go with pa, received {a.shape}")
        return alternatives_table(self._data, scan, pa, a)

    fit_alternatives_numpy = fit_alternatives

    @classmethod
    def from_kinship(cls, y: ArrayLike, x: ArrayLike, k: ArrayLike) -> tuple[LinearMixedModel, Float]:
        """Build a full-rank model from a kinship matrix.

        Parameters
        ----------
        y, x, k
            (n,) response, (n, p) fixed effects, (n, n) symmetric positive semi-definite kernel.

        Returns
        -------
        model : LinearMixedModel
        p : ndarray
            (n, n), rows the eigenvectors of `k`, largest eigenvalue first.
        """
        y, x, k = real_array("y", y, 1), real_array("x", x, 2), real_array("k", k, 2)
        same_rows(y, x, k=k)
        spectrum = from_kernel(k, argument="k", keep_null=True)
        p = np.ascontiguousarray(spectrum.u.T)
        return cls(p @ y, p @ x, spectrum.eigenvalues), p

    @classmethod
    def from_random_effects(
        cls, y: ArrayLike, x: ArrayLike, z: ArrayLike, max_condition_number: float = 1e-10
    ) -> tuple[LinearMixedModel, Float]:
        """Build a model from the design of the random effects, K = ZZᵀ; low rank where Z has fewer columns than rows.

        Parameters
        ----------
        y, x, z
            (n,) response, (n, p) fixed effects, (n, m) random-effect design.
        max_condition_number
            Eigenvalues of ZZᵀ at or below this fraction of the largest are dropped.

        Returns
        -------
        model : LinearMixedModel
        p : ndarray
            (r, n), rows the eigenvectors of ZZᵀ, largest eigenvalue first.
        """
        y, x, z = real_array("y", y, 1), real_array("x", x, 2), real_array("z", z, 2)
        same_rows(y, x, z=z)
        p, s = factor_rotation(z, max_condition_number)
        if s.size == y.size:
            return cls(p @ y, p @ x, s), p
        return cls(p @ y, p @ x, s, y, x), p
