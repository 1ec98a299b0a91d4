"""p-values of a gene's best variant by permutation, with the beta approximation (FastQTL; Ongen et al. 2016).

The statistic is the largest r² = num²/(den ‖y*‖²) over the gene's variants, y* the gene without the fixed effects. What is
permuted has to be exchangeable:

*Unrelated donors, one row each, no kernel*: the donors' labels of the genotypes, with the fixed effects projected out of
every permuted variant: num = (πx)ᵀMy, den = ‖Mπx‖².

*A kernel, or cells*: V^{−½} makes the coordinates of the gene uncorrelated with equal variances in the dimensions that the
fixed effects leave; these are permuted, y* = W^½ỹ against x* = W^½x̃ (Huh & Jhun 2001). Of cells only what varies between donors
is whitened and permuted: no variant reaches further.

With p(r²; ν) = P(Beta(½, ν/2) > r²), ν is learnt so that the permuted p have the first shape 1 of a beta distribution (by its
moments), then both shapes by maximum likelihood; the gene's p-value is P(Beta(a, b) < p(r²; ν)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, polygamma, psi, stdtr

from annlmm.model.donor_space import DonorSpace
from annlmm.model.eqtl import NullTests
from annlmm.model.eqtl_variants import VariantBlock

Float = NDArray[np.float64]
Single = NDArray[np.float32]
Index = NDArray[np.intp]

# ν is looked for within this factor of the degrees of freedom that there are.
DF_RANGE = 20.0


@dataclass(frozen=True)
class GenePermutation:
    """Of one gene.

    Attributes
    ----------
    p_permutation
        (1 + permutations that are as strong) / (1 + permutations).
    p_beta
        By the approximation, which goes beyond 1/permutations.
    df, shape1, shape2
        ν, a and b.
    """

    p_permutation: float
    p_beta: float
    df: float
    shape1: float
    shape2: float


NONE = GenePermutation(np.nan, np.nan, np.nan, np.nan, np.nan)


class Permutations:
    """The same permutations for all genes; products in single precision, which is 1e-6 of r².

    Parameters
    ----------
    space
        Coordinates of the donors; where `labels` are not permuted, orthonormal ones (`to_gene` is there).
    q
        D × p orthonormal basis of the fixed effects, where labels are permuted.
    count
        B.
    spans_constant
        Whether the fixed effects span the constant (variants are centred).
    """

    def __init__(
        self, space: DonorSpace, count: int, rng: np.random.Generator, *, q: Float | None, spans_constant: bool
    ) -> None:
        self.space, self.labels = space, q is not None
        size = space.counts.size if self.labels else space.size
        self.order = np.stack([rng.permutation(size) for _ in range(count)], axis=1)  # size × B
        self.q: Single | None = None
        if q is not None:
            if spans_constant:  # centred variants have no part along it, permuted or not
                q = _without_constant(q)
            self.q = np.ascontiguousarray(q.T[:, self.order].transpose(1, 0, 2), dtype=np.float32)  # D × p × B

    @property
    def count(self) -> int:
        return self.order.shape[1]

    def denominators(self, block: VariantBlock) -> Single | None:
        """den of permuted labels (m × B), which genes share; None where den does not change."""
        if self.q is None or block.dosage is None:
            return None
        x = block.dosage.astype(np.float32)
        den = np.repeat(np.einsum("md,md->m", x, x)[:, None], self.count, axis=1)
        for j in range(self.q.shape[1]):
            product = x @ self.q[:, j]
            den -= product * product
        return den

    def strongest(self, tests: NullTests, g: int, block: VariantBlock, den: Float, shared: Single | None) -> Float:
        """The largest permuted r² of gene `g` of `tests` (B); `den` and `shared` are those of the block's variants."""
        y, w = tests.genes.y[:, g], tests.w[g]
        if self.labels:
            x, y_star = block.dosage, y
            right = y[self.order]
        else:
            x, root = block.x, np.sqrt(w)
            y_star = root * y
            right = root[:, None] * y_star[self.order]
        good = np.flatnonzero(np.isfinite(block.norm))
        if x is None or not good.size:
            return np.full(self.count, np.nan)
        if good.size < block.size:
            x, den, shared = x[good], den[good], None if shared is None else shared[good]
        num = x.astype(np.float32) @ right.astype(np.float32)
        num *= num
        num /= den[:, None].astype(np.float32) if shared is None else shared
        return np.asarray(num.max(axis=0), dtype=np.float64) / float(y_star @ y_star)

    def test(
        self, tests: NullTests, g: int, block: VariantBlock, num: Float, den: Float, shared: Single | None
    ) -> GenePermutation:
        """The gene-level p-values of gene `g`."""
        if not np.isfinite(block.norm).any():
            return NONE
        y = tests.genes.y[:, g]
        total = float(y @ (tests.w[g] * y))
        observed = float(np.nanmax(num * num / den)) / total
        return beta_approximation(observed, self.strongest(tests, g, block, den, shared), float(self.space.dims - 1))


def _without_constant(q: Float) -> Float:
    """An orthonormal basis of what the columns of q span besides the constant, which is among it."""
    centred = q - q.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(u[:, s > 0.5])  # singular values are 1, and one 0


def beta_approximation(observed: float, permuted: Float, df: float) -> GenePermutation:
    """From the largest r² and those of the permutations; `df` is what ν would be for one variant."""
    permuted = np.clip(permuted, 1e-12, 1.0 - 1e-7)
    share = (1.0 + float((permuted >= observed).sum())) / (1.0 + permuted.size)
    learnt = learn_df(permuted, df)
    p = np.clip(p_of(permuted, learnt), 1e-300, 1.0 - 1e-12)
    a, b = fit_beta(p)
    p_observed = float(p_of(np.array(min(observed, 1.0)), learnt))
    return GenePermutation(share, float(betainc(a, b, p_observed)), learnt, a, b)


def p_of(r_sq: Float, df: float) -> Float:
    """P(Beta(½, ν/2) > r²)."""
    with np.errstate(divide="ignore"):
        return np.asarray(2.0 * stdtr(df, -np.sqrt(df * r_sq / (1.0 - r_sq))))


def learn_df(permuted: Float, df: float) -> float:
    """ν at which the permuted p-values have the moments of a beta distribution with first shape 1."""

    def excess(log_df: float) -> float:
        return float(np.log(_moments(p_of(permuted, float(np.exp(log_df))))[0]))

    low, high = np.log(df / DF_RANGE), np.log(df * DF_RANGE)
    ends = excess(low), excess(high)
    if not (np.isfinite(ends).all() and ends[0] * ends[1] < 0):
        return df
    return float(np.exp(brentq(excess, low, high, xtol=1e-6)))


def _moments(p: Float) -> tuple[float, float]:
    """Shapes of a beta distribution from mean and variance."""
    mean, variance = float(p.mean()), float(p.var(ddof=1))
    both = mean * (1.0 - mean) / variance - 1.0
    return mean * both, (1.0 - mean) * both


def fit_beta(p: Float) -> tuple[float, float]:
    """Shapes by maximum likelihood: ψ(a) − ψ(a+b) = mean log p, ψ(b) − ψ(a+b) = mean log(1−p), by Newton's method."""
    target = np.array([np.log(p).mean(), np.log1p(-p).mean()])
    shapes = np.maximum(_moments(p), 1e-3)
    for _ in range(50):
        both = shapes.sum()
        error = psi(shapes) - psi(both) - target
        hessian = np.diag(polygamma(1, shapes)) - polygamma(1, both)
        # In log(shape), in which the steps stay positive.
        step = np.linalg.solve(hessian * shapes, error)
        shapes = shapes * np.exp(-np.clip(step, -2.0, 2.0))
        if np.abs(step).max() < 1e-10:
            break
    return float(shapes[0]), float(shapes[1])
