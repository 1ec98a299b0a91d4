"""A linear mixed model from rotated data, with numpy alone: the class that Hail had."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult

from annlmm.model.alternatives import alternatives_table, dask_alternatives, is_lazy
from annlmm.model.association import make_scan
from annlmm.model.design import Design, make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.null import check_gamma, fixed_effects, h_sq_of, standard_error_log_gamma, variance_components
from annlmm.model.profile import Profile, make_profile
from annlmm.model.response import Response, residual_of, rotated_response
from annlmm.model.search import minimise
from annlmm.model.space import RemlSpace, check_identifiable, degrees_of_freedom_message, make_space
from annlmm.model.statistics import FeatureStatistics, assemble

Float = NDArray[np.float64]

# Hail's default; it means the whole range, h² = 0 and h² = 1 included, in K's own scale.
DEFAULT_BOUNDS = (-8.0, 8.0)


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
    >>> model.fit_alternatives(p @ x_star[:, None]).round(4)[["beta", "chi_sq"]]
           beta  chi_sq
    idx
    0    7.6667  0.5703
    """

    def __init__(
        self, py: ArrayLike, px: ArrayLike, s: ArrayLike, y: ArrayLike | None = None, x: ArrayLike | None = None
    ) -> None:
        if (y is None) != (x is None):
            given, missing = ("x", "y") if y is None else ("y", "x")
            raise ValueError(
                f"received '{given}' without '{missing}'; pass both for a low-rank model, neither for a full-rank one"
            )
        self.py = _array("py", py, 1)
        self.px = _array("px", px, 2)
        self.s = _array("s", s, 1)
        self.r, self.f = self.px.shape
        if self.py.size != self.r or self.s.size != self.r:
            raise ValueError(
                f"py, px and s must have one row per eigenvector, received shapes {self.py.shape}, {self.px.shape} and {self.s.shape}"
            )
        if not (self.s > 0).any():
            raise ValueError(f"s: none of the {self.r} eigenvalues is positive; there is no random effect to fit")
        if self.s.min() < -1e-8 * self.s.max():
            raise ValueError(
                f"s: {int((self.s < 0).sum())} negative eigenvalues (smallest {self.s.min():.4g}); K must be positive semi-definite"
            )
        if self.f == 0:
            raise ValueError("px: received no columns; the model needs at least one fixed effect, add an intercept")
        np.maximum(self.s, 0.0, out=self.s)  # round-off of an eigendecomposition
        self.low_rank = y is not None
        self.y: Float | None = None
        self.x: Float | None = None
        self.n = self.r
        if y is not None and x is not None:
            self.y, self.x = _array("y", y, 1), _array("x", x, 2)
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
        self._design: Design = make_design(
            self.px if self.x is None else self.x, argument="px" if self.x is None else "x"
        )
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
        self._fitted = False

    def __repr__(self) -> str:
        kind = f"low rank {self.r}" if self.low_rank else "full rank"
        head = f"LinearMixedModel: {self.n} observations, {self.f} fixed effects, {kind}"
        if not self._fitted:
            return head + ", not fitted"
        se = self.h_sq_standard_error
        spread = "" if se is None or np.isnan(se) else f" ± {se:.4f}"
        return f"{head}\n  h² {self.h_sq:.4f}{spread}   σ² {self.sigma_sq:.5g}   τ² {self.tau_sq:.5g}   status {self.status}"

    @cached_property
    def _t(self) -> Float:
        """UᵀQ from PX, X = QR."""
        return np.asarray(np.linalg.solve(self._design.r_factor.T, self.px.T).T)

    @cached_property
    def _positive(self) -> NDArray[np.bool_]:
        """Eigenvectors with a non-zero eigenvalue: the others are part of the complement."""
        return self.s > self.s.size * np.finfo(np.float64).eps * max(self.s.max(initial=0.0), 0.0)

    @cached_property
    def _space(self) -> RemlSpace:
        return make_space(self._t[self._positive], self.s[self._positive], self._design)

    @cached_property
    def _my(self) -> Float:
        """My, in rotated coordinates for a full-rank model."""
        return residual_of(self.py if self.y is None else self.y, self._design)[0]

    def feature_statistics(self, pa: Float, a: Float) -> FeatureStatistics:
        """Sufficient statistics of features from P A (r × b) and A (n × b; P A again for a full-rank model)."""
        square = np.einsum("ij,ij->j", a, a)
        y, q = a.T @ self._my[:, None], self._design.q.T @ a
        return assemble(pa[self._positive], q, y, square, np.zeros_like(square), self._design, self._space)

    @cached_property
    def _response(self) -> Response:
        keep = self._positive
        y = self.py if self.y is None else self.y
        rotated = rotated_response(self.py[keep], self.px[keep], y, self._design, self._space)
        if rotated.my_sq <= 1e-20 * max(float(np.sum(rotated.q_y**2)), np.finfo(np.float64).tiny):
            raise ValueError("y: constant or a linear combination of the fixed effects; there is no variance to model")
        return rotated

    @cached_property
    def _profile(self) -> Profile:
        response = self._response
        return make_profile(self._space, response.y_tilde, response.rest, reml=True)

    def compute_neg_log_reml(
        self, log_gamma: float, return_parameters: bool = False
    ) -> float | tuple[float, Float, float, float]:
        """Negative log REML at log γ, up to a constant of n, p and X.

        Add ½((n−p)(1 + log 2π) − log|XᵀX|) for the true negative restricted log-likelihood.

        Parameters
        ----------
        log_gamma
            log(σ²/τ²), in [−∞, ∞).
        return_parameters
            Whether to return β, σ² and τ² too.

        Returns
        -------
        float or (float, ndarray, float, float)
            The value, or the value with β (p,), σ² and τ².
        """
        gamma = _gamma_of(log_gamma, self._space)
        profile, df = self._profile, self._space.df_residual
        # f = (n−p) log RSS + log|I+γMKM|, and log|XᵀV⁻¹X| + log|V| = log|I+γMKM| + log|XᵀX|.
        value = 0.5 * (profile.value(gamma) - df * np.log(df) + self._design.log_det_xtx)
        if not return_parameters:
            return float(value)
        sigma_sq, tau_sq = variance_components(profile, gamma)
        return float(value), self._beta_at(gamma), sigma_sq, tau_sq

    def _beta_at(self, gamma: float) -> Float:
        return fixed_effects(self._design, self._space, self._response, self._profile, gamma, fixed=True)[0]

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
        if log_gamma is not None:
            gamma, status, standard_error = _gamma_of(log_gamma, self._space), "ok", None
        else:
            low, high = _check_bounds(bounds)
            if not tol > 0 or maxiter < 1:
                raise ValueError(f"tol and maxiter: must be positive, received {tol} and {maxiter}")
            check_identifiable(self._space, kernel="s")
            profile = self._profile
            if not self._space.full and self._response.rest <= 1e-12 * self._response.my_sq:
                raise ValueError(
                    "y: lies in the span of the eigenvectors given, so that nothing is left for the residual; the likelihood has no maximum"
                )
            found = minimise(profile, None if (low, high) == DEFAULT_BOUNDS else (low, high), tol=tol, maxiter=maxiter)
            gamma = found.gamma
            status = "not_converged" if not found.converged else "boundary" if found.boundary else "ok"
            se = np.nan if status == "boundary" else standard_error_log_gamma(profile, gamma)
            h_sq = h_sq_of(gamma)
            standard_error = h_sq * (1.0 - h_sq) * se
            with np.errstate(divide="ignore"):
                self.optimize_result = OptimizeResult(
                    x=float(np.log(gamma)),
                    fun=self.compute_neg_log_reml(float(np.log(gamma))),
                    success=status != "not_converged",
                    status=status,
                    message=_MESSAGES[status],
                    nfev=found.n_evaluations,
                )
        self.sigma_sq, self.tau_sq = variance_components(self._profile, gamma)
        self.beta = self._beta_at(gamma)
        self.gamma = gamma
        with np.errstate(divide="ignore"):
            self.log_gamma = float(np.log(gamma)) if log_gamma is None else float(log_gamma)
        self.h_sq = h_sq_of(gamma)
        self.h_sq_standard_error = standard_error
        self.status = status
        self._fitted = True

    def h_sq_normalized_lkhd(self) -> Float:
        """The restricted likelihood over h² = 0, 0.01, …, 1, normalised to sum 1 over the 99 interior points.

        Returns
        -------
        ndarray
            101 values, NaN at both ends.
        """
        h = np.arange(1, 100) / 100
        log_likelihood = -0.5 * self._profile.values(h / (1 - h))
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
        if not self._fitted or self.gamma is None:
            raise ValueError("the null model is not fitted; call fit() first")
        if (a is None) == self.low_rank:
            raise ValueError(
                "a: required for a low-rank model, pass the features themselves beside P A"
                if self.low_rank
                else "a: not used by a full-rank model, pass P A alone"
            )
        scan = make_scan(self._space, self._response, self._profile, self.gamma)
        if is_lazy(pa) or is_lazy(a):
            return dask_alternatives(self, scan, pa, a, partition_size)
        pa = _features("pa", pa)
        if pa.shape[0] != self.r:
            raise ValueError(f"pa: must have {self.r} rows (one per eigenvector), received shape {pa.shape}")
        if a is not None:
            a = _features("a", a)
            if a.shape != (self.n, pa.shape[1]):
                raise ValueError(f"a: must have shape {(self.n, pa.shape[1])} to go with pa, received {a.shape}")
        return alternatives_table(self, scan, pa, a)

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
        y, x, k = _array("y", y, 1), _array("x", x, 2), _array("k", k, 2)
        _same_rows(y, x, k=k)
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
        y, x, z = _array("y", y, 1), _array("x", x, 2), _array("z", z, 2)
        _same_rows(y, x, z=z)
        if not 0 < max_condition_number < 1:
            raise ValueError(f"max_condition_number: must lie in (0, 1), received {max_condition_number}")
        u, root, _ = np.linalg.svd(z, full_matrices=False)
        if root.max(initial=0.0) == 0:
            raise ValueError("z: all values are zero; there is no random effect")
        s = root**2
        kept = s > max_condition_number * s[0]
        p, s = np.ascontiguousarray(u[:, kept].T), s[kept]
        if s.size == y.size:
            return cls(p @ y, p @ x, s), p
        return cls(p @ y, p @ x, s, y, x), p


_MESSAGES = {
    "ok": "Newton's method met its tolerance at an interior optimum.",
    "boundary": "The optimum is on the boundary: h² = 0, h² = 1 or one of the bounds that were given.",
    "not_converged": "Newton's method did not meet its tolerance; raise maxiter, or check that K is not nearly singular.",
}


def _array(name: str, value: ArrayLike, ndim: int) -> Float:
    """A float64 copy, so that the model never shares memory with its input."""
    given = np.asarray(value)
    if given.dtype.kind not in "fiub":
        raise TypeError(f"{name}: must be real numbers, received dtype {given.dtype}")
    if given.ndim != ndim:
        raise ValueError(f"{name}: must have {ndim} dimension{'s' if ndim > 1 else ''}, received shape {given.shape}")
    array = np.array(given, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name}: {int((~np.isfinite(array)).sum())} NaN or infinite values; drop or impute these rows"
        )
    return array


def _features(name: str, value: ArrayLike) -> Float:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: must be real numbers, received dtype {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name}: must have 2 dimensions (features are columns), received shape {array.shape}")
    return array


def _same_rows(y: Float, x: Float, **other: Float) -> None:
    (name, third), *_ = other.items()
    if not len(y) == len(x) == len(third):
        raise ValueError(
            f"y, x and {name} must have the same number of rows, received {len(y)}, {len(x)} and {len(third)}"
        )


def _gamma_of(log_gamma: float, space: RemlSpace) -> float:
    if (
        isinstance(log_gamma, bool)
        or not isinstance(log_gamma, (int, float, np.integer, np.floating))
        or np.isnan(log_gamma)
    ):
        raise ValueError(f"log_gamma: must be a number, received {log_gamma!r}")
    with np.errstate(over="ignore"):
        return check_gamma(float(np.exp(log_gamma)), space)


def _check_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(b) for b in bounds)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"bounds: must be two finite numbers, the lower one first, received {bounds!r}")
    return low, high
