"""Tests of g, of g × context given g, and of both, for one gene and many variants.

Rows are whitened, x̂ = (I − QQᵀ) √w∘x with Q an orthonormal basis of √w∘T, and ẑ = ẑ₀ − ĝ (ĝᵀẑ₀)/(ĝᵀĝ) is the product of g and
context less g. For each of f ∈ {g, z},

    num = f̂ᵀŷ,   den = f̂ᵀf̂,   β = num/den,   t_f² as in `eqtl` (residual degrees of freedom, or Satterthwaite's),

t_g without the product in the model, t_z with g in it. At γ of the null and with information on (σ_u², σ_v², τ²) that is expected,

    k_a(f, f′) = Σ κ_a w f̂ f̂′,    N_ab(f) = Σ κ_aκ_b w² f̂² − (Qᵀ κ_a w f̂)ᵀ(Qᵀ κ_b w f̂)            (κ = 1 for τ²)
    2𝓘_ab = tr(PV_aPV_b) − 2 Σ_f N_ab(f)/den_f + Σ_ff′ k_a(f,f′) k_b(f,f′)/(den_f den_f′),
    ν_f = 2/(∇ᵀ𝓘⁻¹∇),   ∇_a = k_a(f, f)/den_f,

over f = g for the additive test, and both for the others. Jointly, F = (t_g² + t_z²)/2 with t_g, t_z uncorrelated: g and z are the parts of
the two-dimensional hypothesis (Fai & Cornelius 1996) that do not depend on the unit of the context; degrees of freedom from ν_g and ν_z as in
`responses_tests`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from annlmm.model.design import COLLINEAR_TOLERANCE
from annlmm.model.eqtl import PairTests, pair_tests
from annlmm.model.eqtl_interaction import Strata
from annlmm.model.responses_tests import joint_df, log_f_sf_joint

Float = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Joint:
    """F on 2 and `df` degrees of freedom; NaN where it has no value."""

    statistic: Float
    df: Float
    log_p_value: Float


@dataclass(frozen=True)
class InteractionTests:
    """m variants of one gene and context: g, g × context given g, both."""

    additive: PairTests
    interaction: PairTests
    joint: Joint

    def assign(self, at: int, other: InteractionTests) -> None:
        """The tests of one variant."""
        for part in fields(self):
            mine, new = getattr(self, part.name), getattr(other, part.name)
            for f in fields(mine):
                getattr(mine, f.name)[at] = getattr(new, f.name)[0]


def joint_test(first: Float, second: Float, df: Float) -> Joint:
    """Of two uncorrelated t."""
    f = (first**2 + second**2) / 2.0
    df = np.where(np.isnan(f), np.nan, df)
    return Joint(f, df, log_f_sf_joint(f, 2, df))


class GeneRows:
    """One gene at its γ, whitened.

    Parameters
    ----------
    strata
        Rows.
    y, rest
        The gene on them (r) and outside.
    gamma
        One per variance component.
    t
        Fixed effects, if not those of `strata`.
    """

    def __init__(self, strata: Strata, y: Float, rest: float, gamma: Float, t: Float | None = None) -> None:
        t = strata.t if t is None else t
        w = 1.0 / (1.0 + gamma @ strata.kappa)
        self.root, self.rest, self.gamma = np.sqrt(w), rest, gamma
        self.q, self.r = np.linalg.qr(self.root[:, None] * t)
        self.scaled = self.root * y
        self.y = self._residual(self.scaled[None])[0]
        self.rss = float(self.y @ self.y) + rest
        self.df_residual = strata.n - t.shape[1]
        self.outside = strata.n - strata.size
        # κ_a w, with τ² last.
        self.kappa = np.concatenate([strata.kappa * w, w[None]])
        self.parts = len(self.kappa)

    def _residual(self, x: Float) -> Float:
        return np.asarray(x - (x @ self.q) @ self.q.T)

    def features(self, x: Float) -> Float:
        """x̂ of m features, one to a row."""
        return self._residual(x * self.root)

    def null_traces(self) -> Float:
        """tr(PV_aPV_b), c × c."""
        squares = self.kappa[:, None] * self.kappa[None]
        inside = np.einsum("abr,rp->abp", squares, self.q**2).sum(axis=2)
        products = np.einsum("rp,ar,rq->apq", self.q, self.kappa, self.q)
        out = squares.sum(axis=2) - 2.0 * inside + np.einsum("apq,bpq->ab", products, products)
        out[-1, -1] += self.outside
        return np.asarray(out)

    def quadratic(self) -> Float:
        """yᵀPV_aPV_bPy, c × c."""
        ky = self.kappa * self.y
        inside = ky @ self.q
        out = ky @ ky.T - inside @ inside.T
        out[-1, -1] += self.rest
        return np.asarray(out)

    def cross(self, f: Float, other: Float) -> Float:
        """k_a(f, f′), c × m."""
        return np.asarray(self.kappa @ (f * other).T)

    def own(self, f: Float) -> Float:
        """N_ab(f), c × c × m."""
        c = self.parts
        out = np.empty((c, c, len(f)))
        inside = [(f * self.kappa[a]) @ self.q for a in range(c)]
        square = f * f
        for a in range(c):
            for b in range(a + 1):
                out[a, b] = out[b, a] = square @ (self.kappa[a] * self.kappa[b]) - np.einsum(
                    "mp,mp->m", inside[a], inside[b]
                )
        return out


def degrees_of_freedom(information: Float, gradient: Float, most: float) -> Float:
    """ν = 2/(∇ᵀ𝓘⁻¹∇) of m contrasts with ∇ (c × m) relative to their variance and 𝓘 (c × c × m), at most `most`."""
    matrices = np.moveaxis(information, -1, 0)
    scale = 1.0 / np.sqrt(np.maximum(np.einsum("maa->ma", matrices), np.finfo(np.float64).tiny))
    inverse = np.linalg.pinv(matrices * scale[:, :, None] * scale[:, None, :], rcond=1e-12, hermitian=True)
    scaled = gradient.T * scale
    with np.errstate(divide="ignore", invalid="ignore"):
        nu = 2.0 / np.einsum("ma,mab,mb->m", scaled, inverse, scaled)
    return np.where(np.isfinite(nu) & (nu > 0), np.minimum(nu, most), most)


def screen(rows: GeneRows, main: Float, product: Float, *, satterthwaite: bool) -> InteractionTests:
    """All variants at the null's γ; NaN where it has absorbed the effect, and where g or the product is collinear.

    Parameters
    ----------
    main, product
        Coordinates of g and of g × context, m × r.
    """
    g, z = rows.features(main), rows.features(product)
    size_g, size_z = np.einsum("mr,mr->m", g, g), np.einsum("mr,mr->m", z, z)
    smallest = COLLINEAR_TOLERANCE**2 * np.einsum("mr,r,mr->m", product, rows.root**2, product)
    with np.errstate(divide="ignore", invalid="ignore"):
        z -= (np.einsum("mr,mr->m", g, z) / size_g)[:, None] * g
        den_z = np.einsum("mr,mr->m", z, z)
        den_z = np.where(den_z > np.maximum(smallest, COLLINEAR_TOLERANCE**2 * size_z), den_z, np.nan)
        num_g, num_z = g @ rows.y, z @ rows.y
        rss_g = rows.rss - num_g**2 / size_g
    df = rows.df_residual
    if not (satterthwaite and rows.parts > 1):
        additive = pair_tests(num_g, size_g, None, np.full_like(num_g, rows.rss), df)
        interaction = pair_tests(num_z, den_z, None, rss_g, df - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            left = rss_g - num_z**2 / den_z
            statistic = np.maximum(rows.rss - left, 0.0) / 2.0 / (left / (df - 2))
        return InteractionTests(
            additive,
            interaction,
            Joint(statistic, np.full_like(statistic, df - 2.0), log_f_sf_joint(statistic, 2, np.array(df - 2.0))),
        )
    traces = rows.null_traces()[:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        k_g, k_z, k_gz = rows.cross(g, g) / size_g, rows.cross(z, z) / den_z, rows.cross(g, z)
        k_gz = k_gz / np.sqrt(size_g * den_z)
        with_g = traces - 2.0 * rows.own(g) / size_g + k_g[:, None] * k_g
        both = with_g - 2.0 * rows.own(z) / den_z + k_z[:, None] * k_z + 2.0 * k_gz[:, None] * k_gz
    tested, fine = np.isfinite(size_g) & (size_g > 0), np.isfinite(den_z)
    nu = np.full((3, num_g.size), np.nan)
    nu[0, tested] = degrees_of_freedom(with_g[:, :, tested] / 2.0, k_g[:, tested], df - 1.0)
    nu[1, fine] = degrees_of_freedom(both[:, :, fine] / 2.0, k_z[:, fine], df - 2.0)
    nu[2, fine] = degrees_of_freedom(both[:, :, fine] / 2.0, k_g[:, fine], df - 2.0)
    additive = pair_tests(num_g, size_g, nu[0], np.full_like(num_g, rows.rss), df)
    interaction = pair_tests(num_z, den_z, nu[1], rss_g, df - 1)
    beside = pair_tests(num_g, size_g, nu[2], np.full_like(num_g, rows.rss), df)
    joint = joint_test(beside.statistic, interaction.statistic, joint_df(nu[[2, 1]].T))
    return InteractionTests(additive, interaction, joint)


def wald(rows: GeneRows, contrasts: int, *, at_boundary: bool, satterthwaite: bool) -> tuple[Float, Float, Float]:
    """β, SE and ν of the last columns of T, each given those before it, at γ̂ of the model with all of them.

    Satterthwaite's degrees of freedom by the rule of `satterthwaite`: observed information in the interior, expected on a boundary and where
    the observed one is not positive definite.
    """
    p = rows.q.shape[1]
    tau_sq = rows.rss / rows.df_residual
    beta, standard_error, nu = np.empty(contrasts), np.empty(contrasts), np.full(contrasts, float(rows.df_residual))
    # The columns of Q are the fixed effects, each less those before it.
    fitted = rows.q.T @ rows.scaled
    for i, j in enumerate(range(p - contrasts, p)):
        beta[i], standard_error[i] = fitted[j] / rows.r[j, j], np.sqrt(tau_sq) / abs(rows.r[j, j])
    if satterthwaite and rows.parts > 1:
        expected = rows.null_traces() / 2.0
        observed = rows.quadratic() / tau_sq - expected
        use = expected if at_boundary or not _definite(observed) else observed
        gradient = np.stack([rows.kappa @ rows.q[:, j] ** 2 for j in range(p - contrasts, p)], axis=1)
        many = np.repeat(use[:, :, None], contrasts, axis=2)
        nu = degrees_of_freedom(many, gradient, float(rows.df_residual))
    return beta, standard_error, nu


def _definite(matrix: Float) -> bool:
    diagonal = np.diagonal(matrix)
    if not (diagonal > 0).all():
        return False
    scale = 1.0 / np.sqrt(diagonal)
    return bool(np.linalg.eigvalsh(matrix * np.outer(scale, scale))[0] > 1e-10)
