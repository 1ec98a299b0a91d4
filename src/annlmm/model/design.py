"""Fixed effects: an orthonormal basis of the design, with rank deficiency named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr, solve_triangular

Float = NDArray[np.float64]

# A column whose residual on the columns before it is below this fraction of its norm is called collinear. Float32 input
# that is collinear in exact arithmetic leaves about 1e-7; covariates that differ by one part in a million still pass.
COLLINEAR_TOLERANCE = 3e-7


@dataclass(frozen=True)
class Design:
    """X = Q R with QᵀQ = I, columns centred before the factorisation where X spans the constant.

    Attributes
    ----------
    x
        n × p fixed effects, float64.
    names
        The p terms.
    q
        n × p orthonormal basis of the span of X.
    r_factor
        p × p with X = q @ r_factor (triangular up to the centring).
    spans_constant
        Whether the constant vector lies in the span of X: then y and the features may be shifted freely.
    """

    x: Float
    names: tuple[str, ...]
    q: Float
    r_factor: Float
    spans_constant: bool

    @property
    def n(self) -> int:
        return self.x.shape[0]

    @property
    def p(self) -> int:
        return self.x.shape[1]

    @property
    def log_det_xtx(self) -> float:
        return 2.0 * float(np.linalg.slogdet(self.r_factor)[1])

    def residualise(self, a: Float) -> Float:
        """M a = a − Q Qᵀ a; twice, since one pass loses the digits that a large fitted part takes."""
        a = a - self.q @ (self.q.T @ a)
        return np.asarray(a - self.q @ (self.q.T @ a))


def make_design(x: Float, names: Sequence[str] | None = None, *, argument: str = "covariates") -> Design:
    """Factorise the fixed effects.

    Parameters
    ----------
    x
        n × p, finite.
    names
        Names of the columns, for messages and tables; `x0`, `x1`, … if absent.
    argument
        What to call `x` in a message.

    Raises
    ------
    ValueError
        If `x` is not finite, has no column, has a zero column, or is rank deficient (the columns are named).
    """
    x = np.array(x, dtype=np.float64, order="F", ndmin=2)
    n, p = x.shape
    names = tuple(names) if names is not None else tuple(f"x{j}" for j in range(p))
    if p == 0:
        raise ValueError(
            f"{argument}: received no columns; the model needs at least one fixed effect, add an intercept"
        )
    if not np.isfinite(x).all():
        bad = [names[j] for j in np.flatnonzero(~np.isfinite(x).all(axis=0))]
        raise ValueError(f"{argument} {_quoted(bad)}: NaN or infinite values; drop these rows or impute them")
    norms = np.linalg.norm(x, axis=0)
    if (norms == 0).any():
        bad = [names[j] for j in np.flatnonzero(norms == 0)]
        raise ValueError(f"{argument} {_quoted(bad)}: zero in every row that is used; drop it")
    if n < p:
        raise ValueError(f"{argument}: {p} columns for {n} rows; drop covariates or add observations")

    constant = np.ptp(x, axis=0) == 0
    pivot = int(np.flatnonzero(constant)[0]) if constant.any() else None
    # Centred on the constant column first: an age in seconds or a year of birth then keeps all of its digits.
    # X = C T with T unit triangular: C = X − 1 mᵀ except in the constant column, T adds mⱼ/c of that column.
    centred, means = x.copy(order="F"), np.zeros(p)
    if pivot is not None:
        free = np.arange(p) != pivot
        means[free] = x[:, free].mean(axis=0)
        centred -= means
    scale = np.linalg.norm(centred, axis=0)
    scale[scale == 0] = 1.0
    # Relative to the original norm: what is left of a second constant column is round-off, not a direction.
    scale = np.maximum(scale, norms * 64 * np.finfo(np.float64).eps)
    order = np.arange(p) if pivot is None else np.r_[pivot, np.delete(np.arange(p), pivot)]
    q, r = qr((centred / scale)[:, order], mode="economic")
    deficient = np.flatnonzero(np.abs(np.diagonal(r)) < COLLINEAR_TOLERANCE)
    if deficient.size:
        raise ValueError(_collinear_message(argument, names, r, order, deficient))
    r_full = np.zeros((p, p))
    r_full[:, order] = r * scale[order]
    if pivot is not None:
        r_full += np.outer(r_full[:, pivot], means) / x[0, pivot]
    if pivot is not None:
        spans = True
    else:
        ones = np.ones(n)
        spans = bool(np.linalg.norm(ones - q @ (q.T @ ones)) < COLLINEAR_TOLERANCE * np.sqrt(n))
    return Design(x, names, np.ascontiguousarray(q), r_full, spans)


def _collinear_message(
    argument: str, names: tuple[str, ...], r: Float, order: NDArray[np.intp], bad: NDArray[np.intp]
) -> str:
    """Name a smallest set of columns that depend on each other: the first deficient one and those that make it up."""
    j = int(bad[0])
    kept = [i for i in range(j) if i not in set(bad.tolist())]
    weights = solve_triangular(r[np.ix_(kept, kept)], r[kept, j]) if kept else np.zeros(0)
    involved = [kept[i] for i in np.flatnonzero(np.abs(weights) > 1e-6)]
    if not involved:  # nothing is left of it once it is centred: a second constant
        involved = [0]
    columns = [names[order[i]] for i in [*involved, j]]
    return f"{argument} {_quoted(columns)} are collinear (rank {len(names) - bad.size} of {len(names)}); drop one"


def _quoted(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
