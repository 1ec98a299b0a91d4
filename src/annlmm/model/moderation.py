"""Empirical-Bayes tests: what is uncertain with few groups, the variance ratio γ, is learnt from all genes.

Given γ the test of a coefficient is exact: β̂(γ)/SE(γ) ~ t on n − p degrees of freedom, independent of the direction of the residual, on
which alone the restricted likelihood L(γ) depends. With a prior π on a grid of γ, found by maximum likelihood from all
genes (Kiefer & Wolfowitz 1956, by EM), and a gene's posterior P(γ) ∝ π(γ) L(γ),

    p = Σ_γ P(γ) · P(|t_{n−p}| > |β̂(γ)|/SE(γ)),

which is uniform under the null over genes whose γ follow π. limma's moderation (Smyth 2004) of the squared standard
errors on their Satterthwaite degrees of freedom is not: near σ² = 0 they are no multiples of χ², and its size is several times nominal.

The standard error and degrees of freedom that are reported match the first two moments of 1/v, v the variance of β̂: the
law of 1/v given the data is that of χ²_{n−p}/((n−p) SE²(γ)) over the posterior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from annlmm.model.hypothesis import log_f_sf
from annlmm.model.parallel import map_blocks
from annlmm.model.responses_term import Genes, Term
from annlmm.model.responses_tests import Coefficients, TermTests, log_f_sf_joint

Float = NDArray[np.float64]

# From a γ that differs from 0 in no way that data could show to one where nothing but K is left: a gene beyond the last
# node would be tested at a γ far too low. Wider steps are above nominal with 100 groups, narrower ones change nothing.
LOWEST, HIGHEST, STEP = 0.02, 1e5, 0.2
# Genes of every γ that the prior counts beside those that are there, over the whole grid: few genes don't settle it.
PSEUDO_GENES = 5.0
MAX_STEPS = 300
CHUNK = 512


@dataclass(frozen=True)
class Prior:
    """Weights of a grid of γ, 0 among them."""

    gamma: Float
    weight: Float


@dataclass(frozen=True)
class _Nodes:
    """What all genes share at each of G nodes of γ: w, w₀, A⁻¹ and Σ log(1+γμ)."""

    gamma: Float
    w: Float
    w_term: Float
    unscaled: Float
    logdet: Float


def moderated_tests(
    term: Term, genes: Genes, chosen: NDArray[np.intp], *, contrast: Float | None, threads: int = 1
) -> tuple[TermTests, Prior]:
    """Test the chosen genes; NaN for the others.

    Parameters
    ----------
    contrast
        q weights of one linear contrast; None tests all q coefficients.
    """
    m, q = genes.v.shape[1], term.q
    if contrast is None and q == 1:
        contrast = np.ones(1)
    nodes = _nodes(term)
    likelihood = np.empty((nodes.gamma.size, chosen.size))
    parts = [slice(start, start + CHUNK) for start in range(0, chosen.size, CHUNK)]

    def evaluate(part: slice) -> None:
        log_likelihood = _log_likelihood(term, genes, nodes, chosen[part])[0]
        likelihood[:, part] = np.exp(log_likelihood - log_likelihood.max(axis=0))

    for _ in map_blocks(evaluate, parts, threads):
        pass
    prior = Prior(nodes.gamma, _weights(likelihood))
    values = np.full((4, m, 1 if contrast is not None else q), np.nan)
    joint = np.full((3, m), np.nan)

    def test(part: slice) -> None:
        columns = chosen[part]
        found = _Posterior(term, genes, nodes, prior, columns)
        for j, weights in enumerate([contrast] if contrast is not None else np.eye(q)):
            values[:, columns, j] = found.single(weights)
        if contrast is None:
            joint[:, columns] = found.joint()

    for _ in map_blocks(test, parts, threads):
        pass
    if contrast is not None:
        return TermTests(Coefficients(*values[:, :, 0]), None, *joint), prior
    return TermTests(None, Coefficients(*values), *joint), prior


def _nodes(term: Term) -> _Nodes:
    mu, mu_0 = term.model.space.mu, term.covariates.space.mu
    log_gamma = np.arange(np.log(LOWEST / mu.max()), np.log(HIGHEST / mu.min()) + STEP, STEP)
    gamma = np.r_[0.0, np.exp(log_gamma)]
    scaled = np.multiply.outer(gamma, mu)
    w_term = 1.0 / (1.0 + np.multiply.outer(gamma, mu_0))
    a = np.einsum("gk,kp,kq->gpq", w_term, term.d, term.d) + term.gram
    return _Nodes(gamma, 1.0 / (1.0 + scaled), w_term, np.linalg.inv(a), np.log1p(scaled).sum(axis=1))


def _log_likelihood(term: Term, genes: Genes, nodes: _Nodes, chosen: NDArray[np.intp]) -> tuple[Float, Float]:
    """ℓ(γ) up to a constant and τ̂²(γ), G × b each."""
    n = term.model.space.df_residual
    rss = nodes.w @ genes.whole.v[:, chosen] ** 2 + genes.whole.rest[chosen]
    return -0.5 * (n * np.log(rss) + nodes.logdet[:, None]), rss / n


def _weights(likelihood: Float) -> Float:
    """The prior by EM: π ← share of the genes' posteriors, with a few genes of every γ beside them."""
    nodes, m = likelihood.shape
    weight = np.full(nodes, 1.0 / nodes)
    for _ in range(MAX_STEPS):
        new = weight * (likelihood @ (1.0 / (weight @ likelihood)))
        new = (new + PSEUDO_GENES / nodes) / (m + PSEUDO_GENES)
        step = np.abs(new - weight).max()
        weight = new
        if step < 1e-6:
            break
    return weight


class _Posterior:
    """Some genes at every node, with the posterior weights of the nodes."""

    def __init__(self, term: Term, genes: Genes, nodes: _Nodes, prior: Prior, chosen: NDArray[np.intp]) -> None:
        self.n, self.q, self.nodes = term.model.space.df_residual, term.q, nodes
        log_likelihood, self.tau_sq = _log_likelihood(term, genes, nodes, chosen)
        log_weight = log_likelihood + np.log(prior.weight)[:, None]
        self.log_weight = log_weight - logsumexp(log_weight, axis=0)
        loadings = (nodes.w_term[:, None, :] * term.d.T).reshape(-1, term.d.shape[0])
        right = (loadings @ genes.v[:, chosen]).reshape(nodes.gamma.size, self.q, -1) + genes.cross[:, chosen]
        self.right, self.beta = right, nodes.unscaled @ right

    def _mean(self, values: Float) -> Float:
        return np.einsum("gj,gj->j", np.exp(self.log_weight), values)

    def single(self, weights: Float) -> tuple[Float, Float, Float, Float]:
        """Posterior mean, variance, degrees of freedom and log p of one contrast."""
        estimate = np.einsum("gqj,q->gj", self.beta, weights)
        variance = self.tau_sq * np.einsum("gpq,p,q->g", self.nodes.unscaled, weights, weights)[:, None]
        log_p = logsumexp(self.log_weight + log_f_sf(estimate**2 / variance, self.n), axis=0)
        precision, df = self._moments(1.0 / variance)
        return self._mean(estimate), 1.0 / precision, df, log_p

    def joint(self) -> tuple[Float, Float, Float]:
        """Posterior mean of F, denominator degrees of freedom and log p of all q coefficients."""
        f = np.einsum("gqj,gqj->gj", self.beta, self.right) / (self.q * self.tau_sq)
        df = np.full(f.shape, float(self.n))
        log_p = logsumexp(self.log_weight + log_f_sf_joint(f, self.q, df), axis=0)
        return *self._moments(f), log_p

    def _moments(self, precision: Float) -> tuple[Float, Float]:
        """E(1/v) and the ν of a χ²_ν/ν with the same ratio of moments, at most n − p."""
        first = self._mean(precision)
        second = self._mean(precision**2) * (1.0 + 2.0 / self.n)
        return first, np.minimum(2.0 * first**2 / (second - first**2), self.n)
