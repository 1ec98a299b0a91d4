"""One term of the design tested on many genes: where it lies, and generalised least squares at each gene's own γ.

With the covariates X₀ projected out, in the REML space of X₀ (V₀, μ₀), the q columns of the term and a gene have coordinates
D = V₀ᵀM₀X₁ and v₀ = V₀ᵀy, and parts E and e outside V₀. At γ, with w = 1/(1+γμ₀),

    A = Dᵀ diag(w) D + EᵀE,   b = Dᵀ diag(w) v₀ + Eᵀy,   β̂ = A⁻¹ b,   Cov(β̂) = τ² A⁻¹

(the covariates' own coefficients don't enter: β̂ and its covariance are those of the whole model). E is exactly zero for a
condition of the donors under a donor kernel. The derivatives of Cov(β̂) in (σ², τ²) are A⁻¹A_σA⁻¹ and A⁻¹A_τA⁻¹,

    A_σ = Dᵀ diag(μ₀w²) D,   A_τ = Dᵀ diag(w²) D + EᵀE.

γ̂ comes from the REML space of [X₀, X₁], reached from the statistics of the genes on X₀ by taking out Q₁, the orthonormal basis of M₀X₁.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from annlmm.model.association import COLLINEAR, OK
from annlmm.model.basis import Basis
from annlmm.model.design import COLLINEAR_TOLERANCE, Design, make_design
from annlmm.model.null import NullModel
from annlmm.model.responses import Coordinates, Responses, coordinates
from annlmm.model.statistics import FeatureStatistics

Float = NDArray[np.float64]

# Share of a column's sum of squares outside V₀ that is rounding: the squares of 1e-16 times the passes of a projection.
NOTHING_OUTSIDE = 1e-24


@dataclass(frozen=True)
class Term:
    """The tested columns beside the covariates.

    Attributes
    ----------
    covariates, model
        Models of X₀ and of [X₀, X₁].
    d
        V₀ᵀM₀X₁, k₀ × q.
    outside
        n × l, the columns of E that are not zero: genes are multiplied by them in the pass over X.
    columns
        Which of the q these are.
    r_factor
        q × q, M₀X₁ = Q₁ r_factor.
    u_q
        UᵀQ₁, r × q.
    """

    covariates: NullModel
    model: NullModel
    d: Float
    outside: Float
    columns: NDArray[np.intp]
    r_factor: Float
    u_q: Float

    @property
    def q(self) -> int:
        return self.d.shape[1]

    @property
    def gram(self) -> Float:
        """EᵀE, q × q."""
        out = np.zeros((self.q, self.q))
        out[np.ix_(self.columns, self.columns)] = self.outside.T @ self.outside
        return out


def make_term(design: Design, x: Float, basis: Basis, names: Sequence[str], *, reml: bool, kernel: str) -> Term:
    """Join the columns of the term to the covariates.

    Parameters
    ----------
    design, basis
        X₀ and K.
    x, names
        n × q and its terms.

    Raises
    ------
    ValueError
        If they are collinear with the covariates.
    """
    whole = make_design(np.column_stack([design.x, x]), [*design.names, *names])
    # An offset of the term is the constant's.
    centred = x - x.mean(axis=0) if design.spans_constant else x
    residual = design.residualise(centred)
    scale = np.linalg.norm(residual, axis=0)
    q, r = np.linalg.qr(residual / scale)
    q = design.residualise(q)
    # The basis of the covariates first, so that the rest of it is the term's.
    q_whole = np.column_stack([design.q, q])
    whole = replace(whole, q=q_whole, r_factor=q_whole.T @ whole.x)
    covariates = NullModel(design, basis, reml=reml, identifiable=False, kernel=kernel)
    model = NullModel(whole, basis, reml=reml, identifiable=False, kernel=kernel)
    space = covariates.space
    d = space.rotate(basis.project(residual))
    outside = residual - design.residualise(basis.expand(space.unrotate(d)))
    columns = np.flatnonzero((outside**2).sum(axis=0) > NOTHING_OUTSIDE * scale**2)
    if space.full:
        columns = columns[:0]
    return Term(covariates, model, d, outside[:, columns], columns, r * scale, basis.project(q))


@dataclass(frozen=True)
class Genes:
    """Genes beside a term.

    Attributes
    ----------
    v
        V₀ᵀy, k₀ × m.
    cross
        Eᵀy, q × m.
    whole
        The same genes in the REML space of the whole model.
    """

    v: Float
    cross: Float
    whole: Coordinates


def place_genes(term: Term, features: FeatureStatistics) -> Genes:
    """From the statistics of genes on the covariates, with `term.outside` as what they are multiplied by."""
    space = term.covariates.space
    v = space.rotate(features.u)
    cross = np.zeros((term.q, v.shape[1]))
    cross[term.columns] = features.y.T
    # g = Q₁ᵀy leaves the gene.
    g = np.linalg.solve(term.r_factor.T, term.d.T @ v + cross)
    norm = np.maximum(features.norm - np.einsum("qj,qj->j", g, g), 0.0)
    whole = coordinates(replace(features, u=features.u - term.u_q @ g, norm=norm), term.model.space)
    explained = (whole.status == OK) & (norm <= COLLINEAR_TOLERANCE**2 * features.norm)
    whole.status[explained] = COLLINEAR
    return Genes(v, cross, whole)


@dataclass(frozen=True)
class Estimates:
    """Generalised least squares for b genes, in units of τ² = 1 where a variance is meant.

    Attributes
    ----------
    beta
        b × q.
    unscaled
        A⁻¹, b × q × q.
    by_sigma, by_tau
        A_σ and A_τ, b × q × q.
    third
        Σ μ₀²w³dd′, Σ μ₀w³dd′ and Σ w³dd′ + EᵀE (3 × b × q × q), for Kenward and Roger.
    expected, observed
        Information on (σ², τ²) times τ⁴: its three elements (3 × b).
    tau_sq
        τ̂² (of a γ̂ that stands for ∞ where it is), b.
    at_boundary
        Whether γ̂ is 0 or ∞, b.
    """

    beta: Float
    unscaled: Float
    by_sigma: Float
    by_tau: Float
    third: Float
    expected: Float
    observed: Float
    tau_sq: Float
    at_boundary: NDArray[np.bool_]


def estimate(term: Term, genes: Genes, fits: Responses, chosen: NDArray[np.intp], *, third: bool) -> Estimates:
    """Everything about β̂ of the chosen genes at their γ̂; `third` also what Kenward and Roger need."""
    gamma = fits.gamma[chosen]
    at_one = np.isinf(gamma)
    mu_0, mu = term.covariates.space.mu, term.model.space.mu
    tau_sq = fits.tau_sq[chosen]
    if at_one.any():  # a γ that stands for ∞ to rounding
        gamma = np.where(at_one, 1e16 / mu.min(initial=np.inf), gamma)
        tau_sq = np.where(at_one, fits.sigma_sq[chosen] / gamma, tau_sq)
    w = 1.0 / (1.0 + np.multiply.outer(mu_0, gamma))
    mw = mu_0[:, None] * w
    rows, columns = np.triu_indices(term.q)
    products = (term.d[:, rows] * term.d[:, columns]).T

    def gram(weights: Float, outside: float = 1.0) -> Float:
        """Dᵀ diag(weights) D + EᵀE per gene."""
        out = np.empty((gamma.size, term.q, term.q))
        values = (products @ weights).T
        out[:, rows, columns] = values
        out[:, columns, rows] = values
        return out + outside * term.gram

    a = gram(w)
    # Scaled to a unit diagonal: columns may have any units.
    scale = 1.0 / np.sqrt(np.einsum("jqq->jq", a))
    both = scale[:, :, None] * scale[:, None, :]
    unscaled = np.linalg.inv(a * both) * both
    unscaled = (unscaled + unscaled.swapaxes(1, 2)) / 2
    right = term.d.T @ (w * genes.v[:, chosen]) + genes.cross[:, chosen]
    third_sums = np.empty((0, gamma.size, term.q, term.q))
    if third:
        third_sums = np.stack([gram(mw * mw * w, 0.0), gram(mw * w * w, 0.0), gram(w * w * w)])
    expected, observed = _information(term.model, genes.whole, chosen, gamma, tau_sq)
    return Estimates(
        beta=np.einsum("jpq,qj->jp", unscaled, right),
        unscaled=unscaled,
        by_sigma=gram(mw * w, 0.0),
        by_tau=gram(w * w),
        third=third_sums,
        expected=expected,
        observed=observed,
        tau_sq=tau_sq,
        at_boundary=(gamma == 0) | at_one,
    )


def _information(
    model: NullModel, genes: Coordinates, chosen: NDArray[np.intp], gamma: Float, tau_sq: Float
) -> tuple[Float, Float]:
    """Expected and observed information on (σ², τ²) times τ⁴ (`satterthwaite.variance_information`), elements 11, 12, 22."""
    space = model.space

    def half_traces(eigenvalues: Float, n: int) -> Float:
        w = 1.0 / (1.0 + np.multiply.outer(eigenvalues, gamma))
        mw = eigenvalues[:, None] * w
        elements = (mw * mw).sum(axis=0), (mw * w).sum(axis=0), (w * w).sum(axis=0) + (n - eigenvalues.size)
        return 0.5 * np.stack(elements)

    w = 1.0 / (1.0 + np.multiply.outer(space.mu, gamma))
    mw = space.mu[:, None] * w
    y_sq = genes.v[:, chosen] ** 2 * w / tau_sq
    quadratic = np.stack(
        [
            np.einsum("kj,kj,kj->j", y_sq, mw, mw),
            np.einsum("kj,kj,kj->j", y_sq, mw, w),
            np.einsum("kj,kj,kj->j", y_sq, w, w) + genes.rest[chosen] / tau_sq,
        ]
    )
    expected = half_traces(space.mu, space.df_residual)
    traces = expected if model.reml else half_traces(space.eigenvalues, space.n)
    return expected, quadratic - traces
