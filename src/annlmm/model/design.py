"""Fixed effects: an orthonormal basis of the design, with rank deficiency named."""

from __future__ import annotations

import re
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
    if np.ndim(x) != 2:
        raise ValueError(f"{argument}: must have two dimensions, rows and columns, received shape {np.shape(x)}")
    x = np.array(x, dtype=np.float64, order="F")
    n, p = x.shape
    names = tuple(names) if names is not None else tuple(f"x{j}" for j in range(p))
    if p == 0:
        raise ValueError(
            f"{argument}: received no columns; the model needs at least one fixed effect, add an intercept"
        )
    if not np.isfinite(x).all():
        bad = [names[j] for j in np.flatnonzero(~np.isfinite(x).all(axis=0))]
        raise ValueError(f"{argument} {named(bad)}: NaN or infinite values; drop these rows or impute them")
    norms = np.linalg.norm(x, axis=0)
    if (norms == 0).any():
        bad = [names[j] for j in np.flatnonzero(norms == 0)]
        raise ValueError(f"{argument} {named(bad)}: zero in every row that is used; drop it")
    if n < p:
        raise ValueError(f"{argument}: {p} columns for {n} rows; drop covariates or add observations")

    is_constant = np.ptp(x, axis=0) == 0
    if is_constant.any():
        first = int(np.flatnonzero(is_constant)[0])
        order = np.r_[first, np.delete(np.arange(p), first)]
        return _centred_design(x, names, x[:, order], [names[j] for j in order], argument)
    ones = np.ones(n)
    q, r = qr(x / norms, mode="economic")
    if np.linalg.norm(ones - q @ (q.T @ ones)) < COLLINEAR_TOLERANCE * np.sqrt(n):
        # A factor coded without an intercept: the constant is spanned, and one of these columns is redundant beside it.
        return _centred_design(x, names, np.column_stack([ones, x]), ["the constant", *names], argument, redundant=1)
    deficient = np.flatnonzero(np.abs(np.diagonal(r)) < COLLINEAR_TOLERANCE)
    if deficient.size:
        raise ValueError(_collinear_message(argument, list(names), r, deficient, np.zeros(p), p))
    return Design(x, names, np.ascontiguousarray(q), r * norms, spans_constant=False)


def _centred_design(
    x: Float, names: tuple[str, ...], columns: Float, labels: list[str], argument: str, *, redundant: int = 0
) -> Design:
    """Factorise with the columns centred on the first, a constant: an age in seconds then keeps all of its digits.

    `redundant` columns depend on the others by construction.
    """
    p = x.shape[1]
    means = columns.mean(axis=0)
    means[0] = 0.0
    centred = columns - means
    scale = np.linalg.norm(centred, axis=0)
    # What is left of a second constant is round-off, not a direction: scaled to more than 1e-9 of the original norm, it
    # stays below the tolerance.
    scale = np.maximum(scale, 1e-9 * np.linalg.norm(columns, axis=0))
    q, r = qr(centred / scale, mode="economic")
    independent = np.abs(np.diagonal(r)) >= COLLINEAR_TOLERANCE
    deficient = np.flatnonzero(~independent)
    if deficient.size > redundant:
        offsets = np.zeros_like(means) if redundant else means / scale
        raise ValueError(_collinear_message(argument, labels, r, deficient[redundant:], offsets, p))
    if deficient.size:  # the direction that stands for a redundant column is arbitrary: factorise again without it
        q, _ = qr((centred / scale)[:, independent], mode="economic")
    q = np.ascontiguousarray(q)
    x_means = x.mean(axis=0)
    r_factor = q.T @ (x - x_means) + np.outer(q.sum(axis=0), x_means)
    return Design(x, names, q, r_factor, spans_constant=True)


def _collinear_message(
    argument: str, labels: list[str], r: Float, bad: NDArray[np.intp], offsets: Float, p: int
) -> str:
    """Name a smallest set of columns that depend on each other: the first deficient one and those that make it up.

    `offsets` are the scaled means that centring took out: where they don't cancel, the constant takes part.
    """
    j = int(bad[0])
    kept = [i for i in range(j) if abs(r[i, i]) >= COLLINEAR_TOLERANCE]
    weights = solve_triangular(r[np.ix_(kept, kept)], r[kept, j])
    parts = weights * offsets[kept]
    constant = abs(offsets[j] - parts.sum()) > 1e-6 * (abs(offsets[j]) + np.abs(parts).sum())
    involved = {kept[i] for i in np.flatnonzero(np.abs(weights) > 1e-6)} | ({0} if constant else set())
    columns = [labels[i] for i in [*sorted(involved), j]]
    return f"{argument} {named(columns)} are collinear (rank {p - bad.size} of {p}); drop one"


def covariate_of(term: str) -> str:
    """The covariate that a column codes: `batch` of `batch[T.b]`, `X_pca` of `X_pca[3]`, `a:b` of `a[T.x]:b[T.y]`."""
    return re.sub(r"\[\d+\]$", "", re.sub(r"\[T\.[^:]*?\](?=:|$)", "", term))


def named(terms: Sequence[str]) -> str:
    """Columns in a message: several of a category, or many of an array, by the name of their covariate."""
    members: dict[str, list[str]] = {}
    for term in terms:
        members.setdefault(covariate_of(term), []).append(term)
    parts = []
    for covariate, columns in members.items():
        if len(columns) > (1 if "[T." in columns[0] else 3):
            parts.append(f"'{covariate}' ({len(columns)} columns)")
        else:
            parts.extend(f"'{column}'" for column in columns)
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
