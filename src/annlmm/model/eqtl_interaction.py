"""Genotype × context over cells, as a model of a few numbers per donor.

y = Xβ + g α + (g∘c̃) θ + Z u + Z_c v + e,   u ~ N(0, σ_u² K_d),  v ~ N(0, σ_v² K_d),  e ~ N(0, τ² I),

g constant within donors, c̃ = c − c̄_d the deviation of the context from its donor's mean, Z_c = diag(c̃) Z. With N = ZᵀZ and S = Z_cᵀZ_c,
both diagonal, U₀ = ZN^{−½} and U₁ = Z_cS^{−½} are orthonormal together (U₀ᵀU₁ = 0, since c̃ sums to zero in every donor), and with

    N^½K_dN^½ = W₀ diag(κ_u) W₀ᵀ,    S^½K_dS^½ = W₁ diag(κ_v) W₁ᵀ       (K_d = I: κ_u = N, κ_v = S, W = I)

the covariance is diagonal on [U₀W₀, U₁W₁] and τ² elsewhere:

    1/w = 1 + γ_u κ_u + γ_v κ_v,   γ_u = σ_u²/τ²,  γ_v = σ_v²/τ².

g has coordinates W₀ᵀN^½g in the first block, g∘c̃ has W₁ᵀS^½g in the second, nothing else. With X's coordinates T, and what X has outside
as rows of its own (κ = 0), cells are r = D + D′ + p_o rows of a weighted regression, and n − r residual dimensions whose sum of squares is `rest`.
Exact, whatever n. A context that is constant within donors has no second block: g∘c has W₀ᵀN^½(g∘c) in the first one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

Float = NDArray[np.float64]
Index = NDArray[np.intp]

# sin²θ below which a direction of X lies in the span of the donors (as in `space`).
IN_SPAN = 1e-12
TESTS = ("additive", "interaction", "joint")
SLOPES = ("random", "two-stage", "none")


@dataclass(frozen=True)
class Block:
    """Donors in one block of coordinates: D′ of them, N^½ or S^½, and W with its eigenvalues κ.

    Attributes
    ----------
    donors
        Those with any weight.
    root
        √n_d or √s_d.
    w
        D′ × D′; None for the identity.
    kappa
        D′, not negative.
    """

    donors: Index
    root: Float
    w: Float | None
    kappa: Float

    def rotate(self, scaled: Float) -> Float:
        """From U₀ᵀa or U₁ᵀa (all D donors × b) to coordinates."""
        own = scaled[self.donors]
        return own if self.w is None else np.asarray(self.w.T @ own)

    def place(self, x: Float) -> Float:
        """Of donor-level x (m × D), that is Wᵀ root∘x, m × D′."""
        own = x[:, self.donors] * self.root
        return own if self.w is None else np.asarray(own @ self.w)


def make_block(weights: Float, relatedness: Float | None) -> Block:
    """From the diagonal of N or S, and K_d."""
    donors = np.flatnonzero(weights > 0)
    root = np.sqrt(weights[donors])
    if relatedness is None:
        return Block(donors, root, None, weights[donors])
    kernel = root[:, None] * relatedness[np.ix_(donors, donors)] * root
    values, vectors = eigh((kernel + kernel.T) / 2)
    return Block(donors, root, vectors, np.maximum(values, 0.0))


@dataclass(frozen=True)
class Strata:
    """Rows of the weighted regression for one context.

    Attributes
    ----------
    main, slope
        The two blocks; `slope` is None where the context is constant within donors.
    context
        c_d in that case, D.
    t
        r × p coordinates of the fixed effects, full column rank.
    kappa
        J × r, one row per variance component.
    n
        Cells (dimensions of y), n − r of them outside these rows.
    """

    main: Block | None
    slope: Block | None
    context: Float | None
    t: Float
    kappa: Float
    n: int

    @property
    def size(self) -> int:
        return self.t.shape[0]

    @property
    def df_residual(self) -> int:
        return self.n - self.t.shape[1]

    def features(self, x: Float) -> tuple[Float, Float]:
        """Coordinates of g and of g × context, m × r each, for dosages m × D."""
        main, product = np.zeros((len(x), self.size)), np.zeros((len(x), self.size))
        first = 0
        if self.main is not None:
            first = self.main.donors.size
            main[:, :first] = self.main.place(x)
            if self.context is not None:
                product[:, :first] = self.main.place(x * self.context)
        if self.slope is not None:
            product[:, first : first + self.slope.donors.size] = self.slope.place(x)
        return main, product


@dataclass(frozen=True)
class StrataGenes:
    """G genes: coordinates (r × G), sum of squares outside (G)."""

    y: Float
    rest: Float

    def take(self, g: int) -> tuple[Float, float]:
        return self.y[:, g], float(self.rest[g])


@dataclass(frozen=True)
class Outside:
    """What X has outside the donors' blocks, as rows of its own: X₀ = O R with R = diag(sinθ) Vᵀ.

    Attributes
    ----------
    rows
        R, p_o × p.
    from_inside
        p_o × r_B: Oᵀ(My) from the coordinates of My, −diag(1/sinθ) Vᵀ T_Bᵀ, since Qᵀ(My) = 0.
    fitted
        r_B × p_o: T_B V diag(1/sinθ), what the fixed effects estimated outside amount to inside.
    common
        p × (p − p_o): directions of Q that lie in the span of the donors.
    """

    rows: Float
    from_inside: Float
    fitted: Float
    common: Float


def outside_of(t: Float) -> Outside:
    """From T = BᵀQ of an orthonormal basis Q of X."""
    p = t.shape[1]
    _, cos, vt = np.linalg.svd(t, full_matrices=True)
    cos = np.concatenate([cos, np.zeros(p - cos.size)])
    sin_sq = np.clip((1.0 - cos) * (1.0 + cos), 0.0, 1.0)
    out = sin_sq > IN_SPAN
    sin, v = np.sqrt(sin_sq[out]), vt[out].T
    fitted = (t @ v) / sin
    return Outside(sin[:, None] * v.T, -fitted.T, fitted, vt[~out].T)


@dataclass(frozen=True)
class Placed:
    """A context with the genes on it.

    Attributes
    ----------
    strata, genes
        Rows.
    slopes
        Where they are asked for, the donors' slopes by themselves: the second block, √s_d b_d of variance σ_v²κ_v + τ², D′ observations.
    """

    strata: Strata
    genes: StrataGenes
    slopes: Placed | None = None


def place_context(
    main: Block,
    slope: Block | None,
    context: Float | None,
    t: tuple[Float, Float | None],
    u: tuple[Float, Float | None],
    norm: Float,
    n: int,
    *,
    intercept: bool,
    slopes: str,
) -> Placed:
    """Rows and genes of one context.

    Parameters
    ----------
    t, u
        [ZN^{−½}, Z_cS^{−½}]ᵀ of Q (D × p each) and of My (D × G each).
    norm
        ‖My‖², G.
    n
        Cells.
    intercept
        Whether donors have a random intercept (False: least squares, then without slopes too).
    slopes
        One of `SLOPES`.
    """
    blocks = [main] if slope is None else [main, slope]
    inside_t = np.concatenate([block.rotate(part) for block, part in zip(blocks, t, strict=False) if part is not None])
    inside_y = np.concatenate([block.rotate(part) for block, part in zip(blocks, u, strict=False) if part is not None])
    outside = outside_of(inside_t)
    y = np.concatenate([inside_y, outside.from_inside @ inside_y])
    rest = np.maximum(norm - np.einsum("rg,rg->g", y, y), 0.0)
    size = y.shape[0]
    rest = rest if n > size else np.zeros_like(rest)
    kappa = []
    if intercept:
        kappa.append(_padded(main.kappa, 0, size))
        if slope is not None and slopes != "none":
            kappa.append(_padded(slope.kappa, main.kappa.size, size))
    strata = Strata(
        main,
        slope,
        context,
        np.concatenate([inside_t, outside.rows]),
        np.stack(kappa) if kappa else np.zeros((0, size)),
        n,
    )
    genes = StrataGenes(np.asfortranarray(y), rest)
    if slopes != "two-stage" or slope is None:
        return Placed(strata, genes)
    # Stage 1: a slope per donor, the other fixed effects as estimated within donors beside all intercepts and slopes.
    first = main.kappa.size
    own = inside_y[first:] - outside.fitted[first:] @ (outside.from_inside @ inside_y)
    # Stage 2: of X, what acts on slopes: the context itself, and products of it with covariates of donors.
    x = _basis(inside_t[first:] @ outside.common)
    own = own - x @ (x.T @ own)
    second = Strata(None, slope, None, x, slope.kappa[None], slope.kappa.size)
    return Placed(strata, genes, Placed(second, StrataGenes(np.asfortranarray(own), np.zeros(own.shape[1]))))


def _basis(columns: Float) -> Float:
    """Orthonormal, of their span."""
    u, size, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, size > 1e-7 * size.max(initial=0.0)])


def _padded(kappa: Float, first: int, size: int) -> Float:
    out = np.zeros(size)
    out[first : first + kappa.size] = kappa
    return out
