"""The global optimum of the profile over γ in [0, ∞]: a grid that cannot miss a minimum, then safeguarded Newton."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annlmm.model.profile import Profile

Float = NDArray[np.float64]

# f is analytic in |Im log γ| < π (its singularities are the negative real γ), so nothing in it is narrower than a few
# units of log γ; a step of ¼ brackets every sign change of f′.
GRID_STEP = 0.25

MESSAGES = {
    "ok": "Newton's method met its tolerance at an interior optimum.",
    "boundary": "The optimum is on the boundary: h² = 0, h² = 1 or one of the bounds that were given.",
    "not_converged": "Newton's method did not meet its tolerance; raise maxiter, or check that K is not nearly singular.",
}


@dataclass(frozen=True)
class SearchResult:
    """The optimum.

    Attributes
    ----------
    gamma
        In [0, ∞].
    value
        f at it.
    converged
        Whether Newton met its tolerance.
    boundary
        Whether the optimum is h² = 0, h² = 1 or a bound that was asked for.
    n_evaluations
        Of the derivatives.
    """

    gamma: float
    value: float
    converged: bool
    boundary: bool
    n_evaluations: int

    @property
    def status(self) -> str:
        """'ok', 'boundary' or 'not_converged'."""
        return "not_converged" if not self.converged else "boundary" if self.boundary else "ok"

    @property
    def message(self) -> str:
        """The status in words, with what can be done."""
        return MESSAGES[self.status]


def log_gamma_grid(mu: Float, step: float = GRID_STEP, outside: int = 0) -> Float:
    """log γ from 1e-3/μ_max to 1e3/μ_min: below and above, f differs from its limits by what a line describes.

    With few dimensions outside K their sum of squares can be near 0 and the optimum far out: P(χ²_m < ε) ∝ ε^{m/2}, so
    that 23/m more units miss one draw in 10⁵.
    """
    low, high = np.log(1e-3 / mu.max()), np.log(1e3 / mu.min()) + (23.0 / outside if outside else 0.0)
    return np.linspace(low, high, int(np.ceil((high - low) / step)) + 1)


def minimise(
    profile: Profile, bounds: tuple[float, float] | None = None, *, tol: float = 1e-10, maxiter: int = 500
) -> SearchResult:
    """Minimise f over γ.

    Parameters
    ----------
    profile
        The objective.
    bounds
        Of log γ. None searches everything, h² = 0 and h² = 1 included; then the result is invariant to the scale of K.
    tol
        Width of log γ (or relative width of γ, 1/γ at the ends) at which Newton stops.
    maxiter
        Newton and bisection steps per minimum.
    """
    if profile.mu.size == 0:
        return SearchResult(0.0, profile.value(0.0), converged=True, boundary=True, n_evaluations=0)
    if bounds is None:
        grid = log_gamma_grid(profile.mu)
        if not profile.full and profile.log_derivatives(grid[-1])[0] < 0:
            # Far out S ≈ rest + Σ ỹ²/(γμ), whose optimum is γ = (n−p−k) Σ(ỹ²/μ) / (k · rest).
            k = profile.mu.size
            far = np.log((profile.df_residual - k) / k * np.sum(profile.y_sq / profile.mu) / profile.rest) + 2.0
            grid = np.r_[grid, np.arange(grid[-1] + GRID_STEP, max(far, grid[-1] + 1.0), GRID_STEP)]
    else:
        grid = np.linspace(bounds[0], bounds[1], max(int(np.ceil((bounds[1] - bounds[0]) / GRID_STEP)) + 1, 2))
    candidates: list[SearchResult] = []
    slopes = [profile.log_derivatives(t)[0] for t in grid]
    n_evaluations = len(slopes)

    def refine(
        derivatives: Callable[[float], tuple[float, float]],
        low: float,
        high: float,
        to_gamma: Callable[[float], float],
        scale: float,
    ) -> None:
        nonlocal n_evaluations
        root, used, converged = _root(derivatives, low, high, tol * scale, maxiter)
        n_evaluations += used
        gamma = to_gamma(root)
        candidates.append(SearchResult(gamma, profile.value(gamma), converged, boundary=False, n_evaluations=0))

    for i in np.flatnonzero((np.array(slopes[:-1]) < 0) & (np.array(slopes[1:]) >= 0)):
        refine(profile.log_derivatives, grid[i], grid[i + 1], lambda t: float(np.exp(t)), 1.0)
    if bounds is None:
        first, last = float(np.exp(grid[0])), float(np.exp(-grid[-1]))
        candidates.append(SearchResult(0.0, profile.value(0.0), True, True, 0))
        if slopes[0] >= 0 and profile.gamma_derivatives(0.0)[0] < 0:
            refine(profile.gamma_derivatives, 0.0, first, float, first)
        if profile.at_one:
            candidates.append(SearchResult(np.inf, profile.value(np.inf), True, True, 0))
            if slopes[-1] < 0 and profile.inverse_derivatives(0.0)[0] < 0:
                refine(profile.inverse_derivatives, 0.0, last, lambda d: 1.0 / d, last)
    else:
        for t, inward in ((bounds[0], slopes[0] >= 0), (bounds[1], slopes[-1] <= 0)):
            if inward:
                gamma = float(np.exp(t))
                candidates.append(SearchResult(gamma, profile.value(gamma), True, True, 0))
    best = min(candidates, key=lambda c: c.value)
    return SearchResult(best.gamma, best.value, best.converged, best.boundary, n_evaluations)


def bounded_minimum(profile: Profile, name: str = "phenotype") -> SearchResult:
    """`minimise` over everything; an error where the likelihood has no maximum."""
    found = minimise(profile)
    if found.gamma == 0 and unbounded(profile):
        raise ValueError(
            f"{name}: the full likelihood has no maximum, it grows without bound as h² → 1 (a centred kernel leaves the "
            "residual nothing along the constant, which the intercept takes); use reml=True, and test='wald'"
        )
    return found


def unbounded(profile: Profile) -> bool:
    """Whether f falls without end as γ → ∞: nothing of y, but a part of the determinant, is outside K (ML only)."""
    if profile.at_one or not profile.full or not profile.mu.size:
        return False
    end = float(log_gamma_grid(profile.mu)[-1])
    return profile.log_derivatives(end)[0] < 0 and profile.value(float(np.exp(end))) < profile.value(0.0)


def _root(
    derivatives: Callable[[float], tuple[float, float]], low: float, high: float, tol: float, maxiter: int
) -> tuple[float, int, bool]:
    """The zero of f′ in [low, high], f′(low) < 0 ≤ f′(high): Newton, bisection where it leaves the bracket."""
    x = 0.5 * (low + high)
    for i in range(maxiter):
        first, second = derivatives(x)
        if first < 0:
            low = x
        else:
            high = x
        step = x - first / second if second > 0 else np.nan
        new = step if low < step < high else 0.5 * (low + high)
        # The last Newton step is quadratic: its length squared is the error that is left.
        if abs(new - x) <= tol or first == 0:
            return new if first != 0 else x, i + 1, True
        x = new
    return x, maxiter, False
