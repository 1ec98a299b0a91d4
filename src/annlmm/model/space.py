"""The REML space: the eigendecomposition of M K M, in which the fixed effects have disappeared.

M = I − QQᵀ with Q an orthonormal basis of X. With T = UᵀQ = A cosθ Bᵀ (its SVD), the r vectors MU have the Gram matrix
I − TTᵀ = G², G = I − A(1 − sinθ)Aᵀ, so that MU G⁺ is orthonormal and

    M K M = (MU G⁺) [G S G] (MU G⁺)ᵀ = V diag(μ) Vᵀ,   V = MU G⁺ L,   G S G = L diag(μ) Lᵀ   (r × r).

Directions with sinθ = 0 (a donor-level covariate under a donor kernel, the intercept under groups) lie in span(X) and
are gone from the space. Working with G S G and not with S^½(I − TTᵀ)S^½ keeps V orthonormal to machine precision
however small μ becomes.

    log|XᵀV⁻¹X| + log|I+γK| − log|XᵀX| = log|I+γMKM|       (Patterson & Thompson 1971; Harville 1974)

so that an evaluation of the restricted likelihood is independent of p.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, svd

from annlmm.model.cached import cached_property
from annlmm.model.design import Design, covariate_of

Float = NDArray[np.float64]

# sin²θ below which a direction of U is taken to lie in span(X). By construction it is then 0 and comes out as about
# 1e-16 · p; a covariate that leaves the span by one part in 10⁵ (sin² = 1e-10) is still told apart.
IN_SPAN = 1e-12

# Cosines below which U is orthogonal to X: their squares, which is all that enters, are below rounding.
ORTHOGONAL = 1e-9


@dataclass(frozen=True)
class Angles:
    """T = UᵀQ (r × p) = A cosθ Bᵀ: how the fixed effects lie to the eigenbasis.

    Attributes
    ----------
    t
        r × p.
    a
        r × min(r, p) left singular vectors.
    sin
        min(r, p) sines, exactly 0 where a direction lies in both spans.
    complement
        p × p Gram matrix of the part of Q outside span(U): I − TᵀT, exactly zero where the sine is.
    cross
        p × r: what −Tᵀ is outside the common directions; cross @ (Uᵀ ỹ) = c_Qy for ỹ = My.
    complete
        Whether every vector orthogonal to X lies in span(U) (r = n, or the complement of U lies in span(X)).
    """

    t: Float
    a: Float
    sin: Float
    complement: Float
    cross: Float
    complete: bool


def make_angles(t: Float, n: int) -> Angles:
    """The angles between span(U) and span(Q) from T = UᵀQ."""
    r, p = t.shape
    a, cos, bt = svd(t, full_matrices=False)
    sin_sq = np.clip((1.0 - cos) * (1.0 + cos), 0.0, 1.0)
    sin_sq[sin_sq < IN_SPAN] = 0.0
    if r == n:
        sin_sq[:] = 0.0
    outside = np.eye(p) - bt.T @ bt if p > r else np.zeros((p, p))
    complement = np.zeros((p, p)) if r == n else (bt.T * sin_sq) @ bt + outside
    cross = -(bt.T * (cos * (sin_sq > 0))) @ a.T
    # dim(span(U) + span(X)) = n: nothing orthogonal to X is left outside M U. Then its image fills the REML space.
    orthogonal = int((sin_sq > 1.0 - IN_SPAN).sum()) + max(p - r, 0)
    return Angles(t, a, np.sqrt(sin_sq), complement, cross, complete=r == n or orthogonal == n - r)


@dataclass(frozen=True)
class RemlSpace:
    """M K M = V diag(μ) Vᵀ on the n − p dimensions orthogonal to X; decomposed when μ or V is first asked for.

    Attributes
    ----------
    n, p
        Observations and fixed effects.
    eigenvalues
        The r non-zero eigenvalues of K itself (maximum likelihood needs log|I+γK|).
    angles
        Of the fixed effects to the eigenbasis.
    terms, r_factor
        Names of the columns of X = Q R, and R (p × p): for messages.
    """

    n: int
    p: int
    eigenvalues: Float
    angles: Angles
    terms: tuple[str, ...] = field(default=(), kw_only=True)
    r_factor: Float | None = field(default=None, kw_only=True)

    @cached_property
    def _spectrum(self) -> tuple[Float, Float | None]:
        return _decompose(self.eigenvalues, self.angles, full_rank=self.eigenvalues.size == self.n)

    @property
    def mu(self) -> Float:
        """The k non-zero eigenvalues of M K M."""
        return self._spectrum[0]

    @property
    def rotation(self) -> Float:
        """r × k: Vᵀ a = rotationᵀ Uᵀ(M a)."""
        rotation = self._spectrum[1]
        return np.eye(self.k) if rotation is None else rotation

    def rotate(self, u: Float) -> Float:
        """Vᵀ a from u = Uᵀ(M a), a vector or r × m."""
        rotation = self._spectrum[1]
        return u if rotation is None else np.asarray((u.T @ rotation).T)

    def unrotate(self, v: Float) -> Float:
        """The r coefficients z with V v = M U z."""
        rotation = self._spectrum[1]
        return v if rotation is None else np.asarray(rotation @ v)

    @property
    def df_residual(self) -> int:
        return self.n - self.p

    @property
    def k(self) -> int:
        return self.mu.size

    @property
    def full(self) -> bool:
        """Whether M K M has full rank n − p, so that h² = 1 has a finite likelihood."""
        return self.k == self.df_residual


def make_space(t: Float, eigenvalues: Float, design: Design) -> RemlSpace:
    """The space from T = UᵀQ (r × p) and the eigenvalues of K (r)."""
    n, p = design.n, design.p
    if n - p < 1:
        raise ValueError(degrees_of_freedom_message(n, p))
    return RemlSpace(n, p, eigenvalues, make_angles(t, n), terms=design.names, r_factor=design.r_factor)


def _decompose(s: Float, angles: Angles, *, full_rank: bool) -> tuple[Float, Float | None]:
    """μ and the r × k rotation of Uᵀ(M a) to Vᵀ a; None for the identity."""
    a, sin = angles.a, angles.sin
    r = s.size
    # A centred kernel beside an intercept: U is orthogonal to X already, M K M = K.
    if r == 0 or np.abs(angles.t).max() < ORTHOGONAL:
        return s, None
    # G S G through the p angles: O(r²p), no r × r product.
    shrink = a * (1.0 - sin)
    sa = s[:, None] * a
    gsg = np.diag(s) - shrink @ sa.T - sa @ shrink.T + shrink @ (a.T @ sa) @ shrink.T
    in_span = sin == 0
    n_common = int(in_span.sum())
    # The common directions have eigenvalue 0; moved below every other one, so that they cannot mix with small μ.
    common = a[:, in_span]
    gsg -= s.max() * (common @ common.T)
    values, vectors = eigh((gsg + gsg.T) / 2, overwrite_a=True, driver="evd")
    values, vectors = values[n_common:], vectors[:, n_common:]
    nonzero = values > r * np.finfo(np.float64).eps * s.max()
    if full_rank:  # so has M K M on its n − p dimensions, however small the last eigenvalue is
        nonzero[:] = True
        values = np.maximum(values, np.finfo(np.float64).eps * s.min())
    mu, vectors = values[nonzero], vectors[:, nonzero]
    inverse = np.where(in_span, 1.0, 1.0 - 1.0 / np.where(in_span, 1.0, sin))
    rotation = vectors - (a * inverse) @ (a.T @ vectors)
    return mu, np.asfortranarray(rotation)


def degrees_of_freedom_message(n: int, p: int, needed: str = "at least one is needed") -> str:
    """What to say when too little is left to estimate the variance from."""

    def count(k: int, noun: str) -> str:
        return f"{k} {noun}" if k == 1 else f"{k} {noun}s"

    left = n - p
    return (
        f"{count(n, 'observation')} and {count(p, 'fixed effect')} leave {left} degree{'' if left == 1 else 's'} of freedom; "
        f"{needed}: drop covariates or add observations"
    )


def check_identifiable(space: RemlSpace, *, kernel: str = "kernel") -> None:
    """Refuse a kernel that the data cannot tell from the residual or that the covariates absorb.

    The information on h² is that of the spread of the n − p eigenvalues of M K M (zeros included) about their mean:
    Σ(μ − μ̄)² / ((n−p) μ̄²). K = I and K = 11ᵀ under an intercept have none.
    """
    if space.eigenvalues.size == 0:
        return
    df = space.df_residual
    mean = space.mu.sum() / df
    # What remains of K after the covariates, relative to K: donor dummies leave round-off of a donor kernel.
    if space.mu.sum() <= 1e-10 * space.eigenvalues.sum():
        who = _absorbing(space)
        names = " and ".join(map(repr, who))
        which = f"{names} {'alone' if len(who) == 1 else 'together'}: " if who else ""
        drop = f"drop {names}" if who and who != ["Intercept"] else "use a kernel with structure"
        raise ValueError(
            f"{kernel}: absorbed by the covariates ({which}nothing of it is left once they are projected out, as with donor "
            f"dummies under a donor kernel or a constant kernel under an intercept); {drop}, or use kernel=None"
        )
    spread = (np.sum((space.mu - mean) ** 2) + (df - space.k) * mean**2) / (df * mean**2)
    if spread < 1e-8:
        raise ValueError(
            f"{kernel}: cannot be told from the residual (its {df} eigenvalues after the covariates are equal to within "
            f"{np.sqrt(spread):.1g}, as for K = I); use a kernel with structure, or kernel=None"
        )


def _absorbing(space: RemlSpace) -> list[str]:
    """The covariate that leaves nothing of K, beside the intercept; where no one does by itself, a smallest set that does."""
    if space.r_factor is None:
        return []
    columns: dict[str, list[int]] = {}
    for j, term in enumerate(space.terms):
        columns.setdefault(covariate_of(term), []).append(j)
    scaled = space.r_factor / np.linalg.norm(space.r_factor, axis=0)

    def absorb(names: list[str]) -> bool:
        # X_g = Q R_g and Q_g = Q orth(R_g): tr(Q_gᵀ K Q_g) = Σ s (T orth(R_g))² is what they take of tr K.
        chosen = [j for name in names for j in columns[name]]
        taken = (
            space.eigenvalues @ (space.angles.t @ np.linalg.qr(scaled[:, chosen])[0]) ** 2 if chosen else np.zeros(1)
        )
        return bool(taken.sum() >= (1 - 1e-9) * space.eigenvalues.sum())

    constant = [name for name in columns if name == "Intercept"]
    others = [name for name in columns if name not in constant]
    if absorb(constant):
        return constant
    for name in others:
        if absorb([*constant, name]):
            return [name]
    kept = others
    for name in others:
        fewer = [other for other in kept if other != name]
        if absorb([*constant, *fewer]):
            kept = fewer
    return kept
