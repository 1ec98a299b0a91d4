"""Profile of the restricted likelihood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ._style import SERIES, foreground, get_axes, open_frame, p_text, plain

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def reml_profile(
    adata: AnnData,
    key: str = "lmm",
    *,
    phenotype: str | None = None,
    x: Literal["h_sq", "log_gamma"] = "h_sq",
    depth: float = 5.0,
    color: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""
    Draw the profile of the restricted log-likelihood of a null fit over h² (or log γ).

    The curve is ℓ(h²) − max ℓ with β and the scale profiled out, so that no constant matters. The optimum, the 95 %
    interval of the fit (shaded) and h² ± standard error are shown; a fit at a boundary or with a given γ is shown where
    it is. The x axis shows where the curve is within `depth` of its maximum.

    Parameters
    ----------
    adata
        Annotated data after :func:`annlmm.tl.fit_null`.
    key
        Key of the fit, as given to `key_added`.
    phenotype
        Which phenotype, where `key` holds several.
    x
        "h_sq" for h² = γ/(1 + γ), "log_gamma" for log γ = log σ²/τ².
    depth
        How far below its maximum the curve is followed, in units of log-likelihood.
    color
        Colour of the curve.
    ax
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        If `adata` holds no fit under `key`, or no such `phenotype`.
    ValueError
        If `x` is neither "h_sq" nor "log_gamma", `depth` is not positive, `key` holds several phenotypes and none is
        chosen, the fit has no kernel, or rows were dropped since.

    References
    ----------
    Patterson and Thompson (1971), *Biometrika* 58, 545–554.

    Examples
    --------
    >>> import annlmm as al, matplotlib.pyplot as plt
    >>> adata = al.datasets.gwas_cohort()
    >>> al.pp.kernel_grm(adata)
    >>> al.tl.fit_null(adata, "phenotype")
    >>> ax = al.pl.reml_profile(adata)
    >>> plt.close(ax.figure)
    """
    if x not in ("h_sq", "log_gamma"):
        raise ValueError(f"x={x!r}: expected 'h_sq' or 'log_gamma'")
    if not depth > 0.0:
        raise ValueError(f"depth={depth!r}: expected a positive difference of log-likelihood, e.g. depth=5")
    from annlmm.get import null_model

    model = null_model(adata, key, phenotype=phenotype)
    fit = _read_fit(adata, key, phenotype)

    def log_likelihood(t: float) -> float:
        return -model.compute_neg_log_reml(t)

    estimate = _log_gamma(float(fit["gamma"]))
    curve = trace_profile(log_likelihood, estimate, x=x, depth=depth)

    ax = get_axes(ax, (4.8, 3.8))
    ink = foreground(ax)
    line_color = SERIES[0] if color is None else color
    _draw_bounds(ax, curve, x, ink)
    low, high = (_from_h_sq(float(fit[f"h_sq_ci_{end}"]), x) for end in ("low", "high"))
    if not np.isnan(low + high) or (np.isinf(low) and np.isinf(high)):
        inside = (curve.x >= low) & (curve.x <= high)
        ends = np.clip([low, high], curve.x[0], curve.x[-1])
        shaded = np.sort(np.concatenate([curve.x[inside], ends]))
        top = np.interp(shaded, curve.x, curve.relative)
        ax.fill_between(shaded, -depth, top, color=line_color, alpha=0.25, linewidth=0, zorder=1)
    ax.plot(curve.x, curve.relative, color=line_color, linewidth=1.8, zorder=2)
    _draw_estimate(ax, curve, x, depth, line_color, ink)
    ax.set_ylim(-depth, 0.07 * depth)
    ax.set_xlabel(r"$h^2 = \sigma^2/(\sigma^2 + \tau^2)$" if x == "h_sq" else r"$\log\,\gamma = \log\,\sigma^2/\tau^2$")
    ax.set_ylabel("REML log-likelihood − maximum")
    title, subtitle = describe_fit(fit)
    if phenotype is not None:
        title = f"{plain(phenotype)}: {title}"
    ax.set_title(f"{title}\n{subtitle}" if subtitle else title, loc="left", fontsize="medium")
    open_frame(ax)
    return ax


@dataclass(frozen=True)
class Curve:
    """What is drawn: x ascending, and the log-likelihood relative to its maximum, each of shape (k,)."""

    x: NDArray[np.float64]
    relative: NDArray[np.float64]
    estimate: float
    """x of the fit; ±inf on the axis of log γ at a boundary."""
    at_estimate: float
    """Relative log-likelihood of the fit."""


def trace_profile(
    log_likelihood: Callable[[float], float], estimate: float, *, x: str = "h_sq", depth: float = 5.0, points: int = 241
) -> Curve:
    """
    Follow a profile where it is within `depth` of its maximum.

    Parameters
    ----------
    log_likelihood
        ℓ as a function of log γ in [−∞, ∞].
    estimate
        log γ of the fit, not necessarily the maximum (a given γ, an ML fit).
    x
        "h_sq" or "log_gamma": the axis on which points are equidistant.
    depth
        Where to stop.
    points
        Number of points.
    """
    grid = np.concatenate([[-np.inf], np.linspace(-30.0, 30.0, 121), [np.inf], [estimate]])
    grid = np.unique(grid)
    values = np.array([log_likelihood(t) for t in grid])
    values[np.isnan(values)] = -np.inf
    best = int(np.argmax(values))
    maximum = float(values[best])
    if 0 < best < grid.size - 1 and np.isfinite(grid[[best - 1, best + 1]]).all():
        from scipy.optimize import minimize_scalar

        found = minimize_scalar(
            lambda t: -log_likelihood(t),
            bounds=(grid[best - 1], grid[best + 1]),
            method="bounded",
            options={"xatol": 1e-10},
        )
        maximum = max(maximum, -float(found.fun))

    def height(t: float) -> float:
        return log_likelihood(t) - maximum

    seen = np.flatnonzero(values - maximum >= -depth)
    low = float(grid[seen[0]]) if seen[0] == 0 else _cross(height, grid[seen[0]], grid[seen[0] - 1], -depth)
    end = seen[-1]
    high = float(grid[end]) if end == grid.size - 1 else _cross(height, grid[end], grid[end + 1], -depth)
    if x == "h_sq":
        at = np.linspace(_h_sq(low), _h_sq(high), points)
        with np.errstate(divide="ignore"):
            log_gamma = np.log(at) - np.log1p(-at)
        log_gamma[0], log_gamma[-1] = low, high
    else:
        low = low if np.isfinite(low) else _plateau(grid, values, values[0], 1)
        high = high if np.isfinite(high) else _plateau(grid, values, values[-1], -1)
        at = log_gamma = np.linspace(low, high, points)
    place = _h_sq(estimate) if x == "h_sq" else estimate
    inside = np.isfinite(estimate) or x == "h_sq"
    if inside and at[0] <= place <= at[-1]:
        # The peak itself is a point of the curve.
        k = int(np.searchsorted(at, place))
        at, log_gamma = np.insert(at, k, place), np.insert(log_gamma, k, estimate)
        new = np.diff(at, prepend=-np.inf) > 1e-9 * (at[-1] - at[0])
        at, log_gamma = at[new], log_gamma[new]
    relative = np.array([height(t) for t in log_gamma])
    return Curve(at, relative, place, height(estimate))


def _cross(height: Callable[[float], float], inside: float, outside: float, level: float) -> float:
    """Bisect for the point where the height crosses a level; at an infinite end, walk outwards first."""
    if np.isinf(inside):
        return outside
    if np.isinf(outside):
        step = float(np.sign(outside))
        outside = inside + step
        while height(outside) >= level:
            inside, outside = outside, outside + 2.0 * (outside - inside)
            if abs(outside) > 600.0:
                return inside
    for _ in range(40):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if height(middle) >= level else (inside, middle)
    return inside


def _plateau(grid: NDArray[np.float64], values: NDArray[np.float64], end: float, direction: int) -> float:
    """Return a log γ beyond which the profile is flat to the eye."""
    inner = grid[1:-1][::direction]
    flat = np.abs(values[1:-1][::direction] - end) < 0.02
    first = int(np.argmin(flat)) if not flat.all() else inner.size // 2
    return float(inner[max(first - 1, 0)]) - 1.0 * direction


def _draw_bounds(ax: Axes, curve: Curve, x: str, ink: Any) -> None:
    left, right = float(curve.x[0]), float(curve.x[-1])
    margin = 0.04 * ((right - left) or 1.0)
    ax.set_xlim(left - margin, right + margin)
    if x == "h_sq":
        for bound in (0.0, 1.0):
            if left - margin < bound < right + margin:
                ax.axvline(bound, color=ink, linewidth=0.8, linestyle=(0, (2, 2)), alpha=0.6, zorder=0.5)


def _draw_estimate(ax: Axes, curve: Curve, x: str, depth: float, color: Any, ink: Any) -> None:
    place, height, marker = curve.estimate, curve.at_estimate, "o"
    if np.isinf(place):
        marker = "<" if place < 0 else ">"
        place = ax.get_xlim()[0 if place < 0 else 1]
    else:
        ax.plot([place, place], [-depth, height], color=ink, linewidth=0.8, zorder=1.5)
    ax.plot(
        [place],
        [height],
        marker=marker,
        markersize=7,
        color=color,
        markeredgecolor=ink,
        linestyle="none",
        zorder=4,
        clip_on=False,
    )


def describe_fit(fit: Mapping[str, Any]) -> tuple[str, str]:
    """
    Put a fit into words: h² ± standard error, and the interval with the p-value of σ² = 0.

    Examples
    --------
    >>> fit = {"h_sq": 0.609, "h_sq_standard_error": 0.033, "h_sq_ci_low": 0.545, "h_sq_ci_high": 0.671}
    >>> describe_fit(fit | {"h_sq_neg_log10_p_value": 2.0, "params": {"reml": True}})
    ('$h^2$ = 0.609 ± 0.033', '95 % CI 0.545–0.671, p = 0.01')
    """
    h_sq, error = float(fit["h_sq"]), float(fit["h_sq_standard_error"])
    low, high = float(fit["h_sq_ci_low"]), float(fit["h_sq_ci_high"])
    # Two digits of the standard error; without one, two of the width of the interval.
    scale = error if np.isfinite(error) and error > 0 else high - low
    digits = int(np.clip(1 - np.floor(np.log10(scale)), 2, 8)) if np.isfinite(scale) and scale > 0 else 3
    params = fit.get("params", {})
    title = f"$h^2$ = {h_sq:.{digits}f}"
    if np.isfinite(error):
        title += f" ± {error:.{digits}f}"
    elif fit.get("status") == "boundary":
        title += " (boundary)"
    elif fit.get("status") == "not_converged":
        title += " (not converged)"
    elif "gamma" in params:
        title += " (γ given)"
    if not params.get("reml", True):
        title += " (ML)"
    parts = []
    if np.isfinite(low) and np.isfinite(high):
        parts.append(f"95 % CI {low:.{digits}f}–{high:.{digits}f}")
    p = float(fit["h_sq_neg_log10_p_value"])
    if np.isfinite(p):
        parts.append(f"p = {p_text(p)}")
    return title, ", ".join(parts)


def _read_fit(adata: AnnData, key: str, phenotype: str | None) -> Mapping[str, Any]:
    entry = cast("Mapping[str, Any]", adata.uns[key])
    if "fits" not in entry:
        return entry
    scalars = cast("Mapping[str, Any]", entry["fits"].loc[phenotype].to_dict())
    return {**scalars, "params": entry["params"]}


def _log_gamma(gamma: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(gamma))


def _h_sq(log_gamma: float) -> float:
    return float(0.5 * (1.0 + np.tanh(0.5 * log_gamma)))


def _from_h_sq(h_sq: float, x: str) -> float:
    if x == "h_sq" or np.isnan(h_sq):
        return h_sq
    with np.errstate(divide="ignore"):
        return float(np.log(h_sq) - np.log1p(-h_sq))
