"""Variants against genes at each gene's own γ: y_g ~ N(x β + Xα, τ²(I + γ_g K)), many genes and variants at a time.

In the coordinates of `donor_space`, with W = 1/(1+γ_g μ) (genes × k′) and X̃ (variants × k′), all pairs are matrix products,

    num = (W∘Ỹ) X̃ᵀ,   den = W (X̃²)ᵀ,   RSS₀ = Σ Wỹ² + rest,   β = num/den,   R² = num²/(den RSS₀),

exact whatever γ_g. Degrees of freedom: n − p − 1, t² = (n−p−1) R²/(1−R²); or, where donors have several cells each, those of
`grouped`: T = R²(n−p), t² = ν₀x/(1−x), x = T/(1+ν₀), with ν₀ from two more products. With q = cμW, c = γ + 1/μ₁ (which keeps
q near 1 at any γ, 0 included), g = γ/c and means m₁, m₂ of q and q² under the weights Wx̃², the information on (σ², τ²) with
the variant in the model and the gradient of Var(β̂) are

    2𝓘₁₁ = Σq² − 2m₂ + m₁²,    2𝓘₁₂ = Σqd − 2(m₁ − gm₂) + m₁m₀,    2𝓘₂₂ = Σd² + n−p−k′ − 2(1 − 2gm₁ + g²m₂) + m₀²,
    d = W,    m₀ = 1 − gm₁,    ∇ ∝ (m₁, m₀),    ν₀ = 2/(∇ᵀ𝓘⁻¹∇)                       (`grouped.contrast_df`, pair by pair).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from annlmm.model.donor_space import DonorSpace
from annlmm.model.hypothesis import log_f_sf
from annlmm.model.responses import Responses
from annlmm.model.space import RemlSpace
from annlmm.model.statistics import FeatureStatistics

Float = NDArray[np.float64]
Index = NDArray[np.intp]

DEGREES = ("satterthwaite", "residual")


@dataclass(frozen=True)
class EqtlGenes:
    """G genes at the null.

    Attributes
    ----------
    y
        ỹ, k′ × G.
    rest
        ‖My‖² outside the coordinates, G.
    gamma
        γ̂ (a value that stands for ∞ where it is), G; NaN where there is no fit.
    """

    y: Float
    rest: Float
    gamma: Float

    def take(self, chosen: Index | slice) -> EqtlGenes:
        """Some of the genes."""
        return EqtlGenes(self.y[:, chosen], self.rest[chosen], self.gamma[chosen])


def place_genes(statistics: FeatureStatistics, fits: Responses, space: DonorSpace) -> EqtlGenes:
    """From the statistics of genes under independent donors (`u` = N^{−½}Zᵀ(My)) and their null fits."""
    y = space.place(statistics.u)
    rest = np.zeros_like(statistics.norm)
    if not space.complete:
        rest = np.maximum(statistics.norm - np.einsum("kg,kg->g", y, y), 0.0)
    return EqtlGenes(y, rest, finite_gamma(fits.gamma, space.mu[: space.k]))


def finite_gamma(gamma: Float, mu: Float) -> Float:
    """γ, with a value that stands for ∞: 1/(1+γμ) is then 1/(γμ) to rounding."""
    return np.where(np.isinf(gamma), 1e16 / mu.min(initial=np.inf), gamma)


@dataclass(frozen=True)
class PairRatios:
    """g genes × m variants.

    Attributes
    ----------
    num, den
        Of β; den is 1 × m where it is the same for all genes (least squares).
    nu
        ν₀ of `grouped`; None where the residual degrees of freedom are used.
    """

    num: Float
    den: Float
    nu: Float | None


class NullTests:
    """Some genes, ready for variants.

    Parameters
    ----------
    space
        Coordinates of the donors.
    genes
        In them; those without a fit give NaN.
    df_residual
        n − p.
    grouped
        Whether the degrees of freedom are those of the donors.
    """

    def __init__(self, space: DonorSpace, genes: EqtlGenes, df_residual: int, *, grouped: bool) -> None:
        self.space, self.genes, self.df_residual = space, genes, df_residual
        self.grouped = grouped and space.k > 0
        gamma = genes.gamma[:, None]
        self.w = 1.0 / (1.0 + gamma * space.mu)
        self.weighted = self.w * genes.y.T
        self.rss = np.einsum("gk,kg->g", self.weighted, genes.y) + genes.rest
        if self.grouped:
            scale = gamma + 1.0 / space.mu.max()
            q = scale * space.mu * self.w
            self.share = gamma / scale
            self.weights = (self.w * q, self.w * q * q)
            outside = df_residual - space.size
            traces = (q * q).sum(axis=1), (q * self.w).sum(axis=1), (self.w * self.w).sum(axis=1) + outside
            self.traces = tuple(trace[:, None] for trace in traces)

    @property
    def size(self) -> int:
        return self.rss.size

    def ratios(self, x: Float, norm: Float, square: Float | None = None) -> PairRatios:
        """Of variants (m × k′) with sums of squares `norm`; `square` are the squares where they are at hand."""
        num = self.weighted @ x.T
        if not self.space.k:
            return PairRatios(num, norm[None, :], None)
        square = x * x if square is None else square
        den = self.w @ square.T
        if not self.grouped:
            return PairRatios(num, den, None)
        with np.errstate(divide="ignore", invalid="ignore"):
            return PairRatios(num, den, self._df(den, *(weight @ square.T for weight in self.weights)))

    def _df(self, den: Float, m1: Float, m2: Float) -> Float:
        """ν₀ from den and the sums of q and q² under the weights Wx̃²."""
        m1 /= den
        m2 /= den
        g = self.share
        m0 = 1.0 - g * m1
        i11 = self.traces[0] - 2.0 * m2 + m1 * m1
        i12 = self.traces[1] - 2.0 * (m1 - g * m2) + m1 * m0
        i22 = self.traces[2] - 2.0 * (m0 - g * (m1 - g * m2)) + m0 * m0
        nu = (i11 * i22 - i12 * i12) / (m1 * m1 * i22 - 2.0 * m1 * m0 * i12 + m0 * m0 * i11)
        most = float(self.df_residual - 1)
        return np.where(np.isfinite(nu) & (nu > 0), np.minimum(nu, most), most)


@dataclass(frozen=True)
class PairTests:
    """Pairs of genes and variants; NaN where a pair has no test.

    Attributes
    ----------
    beta, standard_error
        Effect of one unit of the variant, in units of the gene.
    statistic, df
        t = β/SE and its degrees of freedom.
    log_p_value
        Natural log of the two-sided p-value; NaN also where the null's γ has absorbed the effect (T ≥ ν: γ is to be
        estimated again).
    """

    beta: Float
    standard_error: Float
    statistic: Float
    df: Float
    log_p_value: Float


def pair_tests(num: Float, den: Float, nu: Float | None, rss: Float, df_residual: int) -> PairTests:
    """Tests at the null's γ, of arrays of one shape."""
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = num / den
        r_sq = np.minimum(num * beta / rss, 1.0)
        if nu is None:
            df = np.full_like(beta, float(df_residual - 1))
            standard_error = np.sqrt(rss * (1.0 - r_sq) / (df * den))
            t = np.copysign(np.sqrt(df * r_sq / (1.0 - r_sq)), beta)
        else:
            # The standard error that goes with t, without dividing by β.
            df, x = nu, r_sq * df_residual / (1.0 + nu)
            x = np.where(x < 1.0, x, np.nan)
            standard_error = np.sqrt(rss / df_residual * (1.0 - x) * (1.0 + nu) / (nu * den))
            t = np.copysign(np.sqrt(nu * x / (1.0 - x)), beta)
    return PairTests(beta, standard_error, t, np.where(np.isnan(beta), np.nan, df), log_t_sf(t, df))


def log_t_sf(t: Float, df: Float) -> Float:
    """log P(|t_df| > |t|), finite where the probability itself underflows."""
    with np.errstate(divide="ignore"):
        out = np.log(2.0 * stdtr(df, -np.abs(t)))
    far = np.flatnonzero((out < -600) & np.isfinite(t))
    if far.size:
        out[far] = log_f_sf(t[far] ** 2, df[far])
    return np.asarray(out)


def variant_norms(x: Float) -> Float:
    """‖x̃‖² of variants, m × k′."""
    return np.einsum("mk,mk->m", x, x)


def check_degrees(space: RemlSpace, donors: DonorSpace) -> None:
    """A variant takes one more of the donors' dimensions, and leaves one."""
    if donors.dims < 2:
        raise ValueError(
            f"{donors.counts.size} donors and {space.p} fixed effects, {donors.counts.size - donors.dims} of them constant within "
            f"donors, leave {donors.dims} dimensions for variants; at least 2 are needed: drop covariates or add donors"
        )
