"""Checks of what a user of `LinearMixedModel` passes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from annlmm.model.null import check_gamma
from annlmm.model.space import RemlSpace

Float = NDArray[np.float64]


def real_array(name: str, value: ArrayLike, ndim: int) -> Float:
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


def feature_array(name: str, value: ArrayLike) -> Float:
    """Features as columns; NaN is allowed and stays with its feature."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: must be real numbers, received dtype {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name}: must have 2 dimensions (features are columns), received shape {array.shape}")
    return array


def same_rows(y: Float, x: Float, **other: Float) -> None:
    """Refuse inputs of different lengths."""
    (name, third), *_ = other.items()
    if not len(y) == len(x) == len(third):
        raise ValueError(
            f"y, x and {name} must have the same number of rows, received {len(y)}, {len(x)} and {len(third)}"
        )


def gamma_of(log_gamma: float, space: RemlSpace) -> float:
    """γ of a log γ that was given, −∞ included."""
    if (
        isinstance(log_gamma, bool)
        or not isinstance(log_gamma, (int, float, np.integer, np.floating))
        or np.isnan(log_gamma)
    ):
        raise ValueError(f"log_gamma: must be a number, received {log_gamma!r}")
    with np.errstate(over="ignore"):
        return check_gamma(float(np.exp(float(log_gamma))), space)


def gamma_log(gamma: float) -> float:
    """log γ, −∞ for 0."""
    with np.errstate(divide="ignore"):
        return float(np.log(gamma))


def check_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    """Two finite, increasing numbers."""
    try:
        low, high = (float(b) for b in bounds)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"bounds: must be two finite numbers, the lower one first, received {bounds!r}")
    return low, high


def check_steps(tol: float, maxiter: int) -> None:
    """A positive tolerance and number of steps."""
    if isinstance(tol, bool) or not isinstance(tol, (int, float, np.integer, np.floating)) or not tol > 0:
        raise ValueError(f"tol: must be a positive number, received {tol!r}")
    if isinstance(maxiter, bool) or not isinstance(maxiter, (int, np.integer)) or maxiter < 1:
        raise ValueError(f"maxiter: must be a positive whole number, received {maxiter!r}")


def check_partition_size(partition_size: int | None) -> None:
    """A positive number of features, or None."""
    if partition_size is None:
        return
    if isinstance(partition_size, bool) or not isinstance(partition_size, (int, np.integer)) or partition_size < 1:
        raise ValueError(f"partition_size: must be a positive number of features, received {partition_size!r}")


def eigenvalue_array(name: str, value: ArrayLike) -> Float:
    """Eigenvalues of a covariance: round-off below zero is set to zero."""
    s = real_array(name, value, 1)
    if not (s > 0).any():
        raise ValueError(f"{name}: none of the {s.size} eigenvalues is positive; there is no random effect to fit")
    if s.min() < -1e-8 * s.max():
        negative = int((s < 0).sum())
        raise ValueError(
            f"{name}: {negative} negative eigenvalues (smallest {s.min():.4g}); K must be positive semi-definite"
        )
    return np.maximum(s, 0.0)


def factor_rotation(z: Float, max_condition_number: float) -> tuple[Float, Float]:
    """P (r × n) and the eigenvalues of ZZᵀ above `max_condition_number` times the largest."""
    if not 0 < max_condition_number < 1:
        raise ValueError(f"max_condition_number: must lie in (0, 1), received {max_condition_number}")
    u, root, _ = np.linalg.svd(z, full_matrices=False)
    if root.max(initial=0.0) == 0:
        raise ValueError("z: all values are zero; there is no random effect")
    s = root**2
    kept = s > max_condition_number * s[0]
    return np.ascontiguousarray(u[:, kept].T), s[kept]
