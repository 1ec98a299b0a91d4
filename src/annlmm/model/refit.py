"""The exact test: γ estimated again with each feature in the model (GEMMA's; Zhou & Stephens 2012).

In the REML space of the null's X, with ã, ỹ the coordinates of a feature and of the response, and the parts outside V,

    A(γ) = Σ w ã² + c_aa,   B(γ) = Σ w ãỹ + c_ay,   C(γ) = Σ w ỹ² + c_yy,   RSS₁ = C − B²/A,
    f(γ) = N log RSS₁ + Σ log(1+γλ) [+ log A],

N = n−p−1, λ = μ and with log A for REML; N = n, λ the eigenvalues of K and without it for ML.

As in `search`, every sign change of f′ on a grid is refined by Newton's method. Both start on a thinned spectrum: w = 1/(1+γμ)
is so smooth in log μ that interpolation from a few nodes μ̂ stands for the many eigenvalues in a bin,

    Σ w(μᵢ) cᵢ ≈ Σ w(μ̂ₘ) ĉₘ,   ĉₘ = Σ Lₘ(log μᵢ) cᵢ        (Lₘ: Lagrange's polynomials);

the last step, and what is reported, is that of μ itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annlmm.model.refit_kernels import TABLE_STEP, WIDENED, Likelihood, Spectrum, refine, tabulate
from annlmm.model.search import log_gamma_grid
from annlmm.model.space import RemlSpace

Float = NDArray[np.float64]
Index = NDArray[np.intp]

# f is analytic in |Im log γ| < π: a step of ½ brackets every sign change of f′.
GRID_STEP = 0.5
# Beyond the grid there is one more interval: γμ < 1e-6 at its far end on the left, h² = 0 but for rounding; likewise on
# the right.
MARGIN = 7.0
# Bins of log μ, and Chebyshev nodes in each: the interpolation is good to 2e-7 of w.
BIN_WIDTH, BIN_NODES = 0.7, 6


@dataclass(frozen=True)
class Refit:
    """The optimum for every feature of a block.

    Attributes
    ----------
    gamma
        In [0, ∞]; NaN where the likelihood has no maximum.
    a, b, c
        A, B and C at it (in units of K, times γ, where γ = ∞).
    value
        f at it.
    converged
        Whether Newton met its tolerance.
    """

    gamma: Float
    a: Float
    b: Float
    c: Float
    value: Float
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class Refitter:
    """What every block shares.

    Attributes
    ----------
    y
        ỹ.
    model
        f but for the feature.
    spectrum, thinned
        μ and μ̂.
    bins
        The first eigenvalue of each bin, and k.
    lagrange
        Lₘ at every eigenvalue, `BIN_NODES` × k.
    """

    y: Float
    model: Likelihood
    spectrum: Spectrum
    thinned: Spectrum
    bins: Index
    lagrange: Float

    @property
    def reml(self) -> bool:
        """Whether log A counts."""
        return self.model.reml

    @property
    def rest(self) -> float:
        """c_yy."""
        return self.model.rest

    @property
    def n_effective(self) -> float:
        """N."""
        return self.model.n

    def fit(self, features: Float, outside: Float, cross: Float) -> Refit:
        """Maximise the likelihood for each row of `features`, with c_aa (b) and c_ay (b).

        The array is b × k or wider, in C order; what follows the first k columns is not read.
        """
        out = np.empty((6, features.shape[0]))
        spectra = (self.spectrum, self.thinned, self.bins, self.lagrange)
        refine(features, self.y, *spectra, outside, cross, self.model, out)
        gamma, a, b, c, value, converged = out
        return Refit(gamma, a, b, c, value, converged > 0)


@dataclass(frozen=True)
class RefitSpace:
    """What all responses share.

    Attributes
    ----------
    space
        REML space of the null.
    model
        f but for the feature and the response (`rest` is 0).
    nodes, bins, lagrange
        As of `thin`.
    """

    space: RemlSpace
    model: Likelihood
    nodes: Float
    bins: Index
    lagrange: Float

    def refitter(self, y_tilde: Float, rest: float) -> Refitter:
        """For one response."""
        rest = 0.0 if self.space.full else rest
        model = self.model._replace(rest=rest)

        def spectrum(mu: Float, y_sq: Float) -> Spectrum:
            odds = np.multiply.outer(np.exp(model.grid), mu)
            w = 1.0 / (1.0 + odds)
            slope = -odds * w * w
            return Spectrum(mu, y_sq, w, slope, w @ y_sq + rest, slope @ y_sq)

        y_sq = y_tilde**2
        thin_sq = np.add.reduceat(self.lagrange * y_sq, self.bins[:-1], axis=1).T.ravel()
        spectra = spectrum(self.space.mu, y_sq), spectrum(self.nodes, thin_sq)
        return Refitter(y_tilde, model, *spectra, self.bins, self.lagrange)


def make_refitter(space: RemlSpace, y_tilde: Float, rest: float, *, reml: bool) -> Refitter:
    """For one response; REML for the Wald test, ML for the likelihood ratio."""
    return make_refit_space(space, reml=reml).refitter(y_tilde, rest)


def make_refit_space(space: RemlSpace, *, reml: bool) -> RefitSpace:
    """For any response."""
    mu, lam = space.mu, space.mu if reml else space.eigenvalues
    at_one = space.full and (reml or lam.size == space.n)
    inner = log_gamma_grid(mu, GRID_STEP, 0 if space.full else space.df_residual - space.k)
    grid = np.concatenate([[inner[0] - MARGIN], inner, [inner[-1] + MARGIN]])
    table = np.empty((3, int(np.ceil((grid[-1] - grid[0] + 2 * WIDENED) / TABLE_STEP)) + 2))
    tabulate(lam, grid[0] - WIDENED, table)
    odds = np.multiply.outer(np.exp(grid), lam)
    model = Likelihood(
        n=float(space.df_residual - 1 if reml else space.n),
        reml=reml,
        rest=0.0,
        grid=grid,
        table=table,
        logdet_slope=(odds / (1.0 + odds)).sum(axis=1),
        logdet_one=float(np.log(lam).sum()) if at_one else np.inf,
        unbounded=space.full and not at_one,
    )
    bins, nodes, lagrange = thin(mu)
    return RefitSpace(space, model, nodes, bins, lagrange)


def thin(mu: Float) -> tuple[Index, Float, Float]:
    """Bins of neighbours in `mu` (sorted either way), the nodes that stand for each, and Lₘ at every eigenvalue."""
    log_mu = np.log(mu)
    bin_of = np.abs(log_mu - log_mu[0]) // BIN_WIDTH
    first = np.flatnonzero(np.diff(bin_of, prepend=-1.0))
    centre = log_mu[0] + np.sign(log_mu[-1] - log_mu[0]) * (bin_of + 0.5) * BIN_WIDTH
    node = np.cos((np.arange(BIN_NODES) + 0.5) * np.pi / BIN_NODES) * BIN_WIDTH / 2
    apart = log_mu - centre - node[:, None]
    lagrange = np.stack(
        [np.prod(np.delete(apart, m, axis=0).T / np.delete(node[m] - node, m), axis=1) for m in range(BIN_NODES)]
    )
    return np.append(first, mu.size), np.exp(centre[first][:, None] + node).ravel(), lagrange
