"""Data rotated by the eigenvectors of K, P = Uᵀ, where U itself is not at hand: the state behind `LinearMixedModel`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from annlmm.model.association import Scan, make_scan
from annlmm.model.cached import cached_property
from annlmm.model.design import Design
from annlmm.model.profile import Profile, make_profile
from annlmm.model.response import Response, residual_of, rotated_response
from annlmm.model.space import RemlSpace, make_space
from annlmm.model.statistics import UNSETTLED, FeatureStatistics, of_residual

Float = NDArray[np.float64]
# Of A at a time: they stay in cache from one product to the next.
ROWS = 128
# A multiple of the machine precision, beyond what a product of any length that occurs loses, relative to the norm.
ROUNDING = 1e-12


@dataclass(frozen=True)
class WeightedData:
    """⟨a, b⟩ = Σ w (Pa)(Pb), or for a low-rank model aᵀb − Σ (1−w)(Pa)(Pb).

    Attributes
    ----------
    scan
        The response and γ.
    weights
        (r,) w, or w − 1.
    inside, outside
        What P A (r × (1 + p)) and, for a low-rank model, A (n × (1 + p)) are multiplied with for ⟨y − Xβ̂, a⟩ and ⟨Q, a⟩.
    """

    scan: Scan
    weights: Float
    inside: Float
    outside: Float | None

    def ratios(self, pa: Float, a: Float) -> tuple[Float, Float, NDArray[np.bool_]]:
        """num and den of every feature as it is, and which of them this leaves unsettled: bad values, a lack of digits."""
        total = norm = np.einsum("i,ij,ij->j", self.weights, pa, pa)
        linear = self.inside.T @ pa
        if self.outside is not None:
            total = np.zeros_like(norm)
            for i in range(0, a.shape[0], ROWS):
                part = a[i : i + ROWS]
                total += np.einsum("ij,ij->j", part, part)
                linear += self.outside[i : i + ROWS].T @ part
            norm = norm + total
        num, aq = linear[0], linear[1:]
        den = norm - np.einsum("pj,pj->j", aq, self.scan.gls.qq_inverse @ aq)
        return num, den, ~((den > UNSETTLED * total) & np.isfinite(num))


@dataclass(frozen=True)
class RotatedData:
    """P y, P X and S, with the data themselves for a low-rank model.

    Attributes
    ----------
    py, px, s
        (r,), (r, p) and (r,).
    y
        (n,) the response; P y again for a full-rank model, whose rotated data are the data.
    design
        Of X, or of P X for a full-rank model.
    """

    py: Float
    px: Float
    s: Float
    y: Float
    design: Design

    @cached_property
    def _positive(self) -> NDArray[np.bool_]:
        """Eigenvectors with a non-zero eigenvalue: the others are part of the complement."""
        return self.s > self.s.size * np.finfo(np.float64).eps * self.s.max()

    @cached_property
    def space(self) -> RemlSpace:
        """The REML space, from UᵀQ = P X R⁻¹."""
        t = np.asarray(np.linalg.solve(self.design.r_factor.T, self.px.T).T, dtype=np.float64)
        return make_space(t[self._positive], self.s[self._positive], self.design)

    @cached_property
    def _rotated_intercept(self) -> Float | None:
        """P 1 of a full-rank model: the column of P X whose norm is √n, as P preserves it; None if there is none."""
        n = self.px.shape[0]
        found = np.flatnonzero(np.abs(np.einsum("ij,ij->j", self.px, self.px) - n) <= 1e-10 * n)
        return self.px[:, found[0]] if found.size else None

    @cached_property
    def _my(self) -> Float:
        return residual_of(self.y, self.design)[0]

    @cached_property
    def response(self) -> Response:
        """The response in the coordinates of the model."""
        keep = self._positive
        rotated = rotated_response(self.py[keep], self.px[keep], self.y, self.design, self.space)
        if rotated.my_sq <= 1e-20 * max(float(np.sum(rotated.q_y**2)), np.finfo(np.float64).tiny):
            raise ValueError("y: constant or a linear combination of the fixed effects; there is no variance to model")
        return rotated

    @cached_property
    def profile(self) -> Profile:
        """The restricted likelihood of γ."""
        return make_profile(self.space, self.response.y_tilde, self.response.rest, reml=True)

    def check_residual(self) -> None:
        """Refuse a response that K explains entirely."""
        if not self.space.full and self.response.rest <= 1e-12 * self.response.my_sq:
            raise ValueError(
                "y: lies in the span of the eigenvectors given, so that nothing is left for the residual and the "
                "likelihood has no maximum; give more eigenvectors, or fewer repeated observations"
            )

    def scan(self, gamma: float) -> Scan:
        """The tests of features at γ."""
        u = self.response.u
        return make_scan(self.space, u, max(self.response.my_sq - float(u @ u), 0.0), gamma)

    def weighted(self, scan: Scan) -> WeightedData:
        """V⁻¹(y − Xβ̂) and V⁻¹Q at the γ of `scan`, for features as they are."""
        keep, w = self._positive, scan.gls.w
        right = np.column_stack([self._my - self.design.q @ scan.q_solved, self.design.q])
        if self.y is self.py:
            weights = np.ones_like(self.s)
            weights[keep] = w
            return WeightedData(scan, weights, weights[:, None] * right, None)
        t = self.space.angles.t
        weights, inside = np.zeros_like(self.s), np.zeros((self.s.size, right.shape[1]))
        weights[keep] = w - 1.0
        inside[keep] = (w - 1.0)[:, None] * np.column_stack([self.response.u - t @ scan.q_solved, t])
        return WeightedData(scan, weights, inside, right)

    def features(self, pa: Float, a: Float, rounding: float = ROUNDING) -> FeatureStatistics:
        """Sufficient statistics of features from P A (r × b) and A (n × b; P A again for a full-rank model).

        `rounding` is the error of P A relative to its norm.
        """
        # An offset, or anything else in the span of X, costs digits: the features are projected themselves, not their sums.
        if self.design.spans_constant and self.y is not self.py:
            rotated_ones = self.px @ np.linalg.solve(self.design.r_factor, self.design.q.sum(axis=0))
            pa, a = pa - np.outer(rotated_ones, a[0]), a - a[0]
        whole = np.einsum("ij,ij->j", a, a)
        if self.y is self.py and self._rotated_intercept is not None:
            ones = self._rotated_intercept
            pa = a = a - np.outer(ones, ones @ a / (ones @ ones))
        q = self.design.q.T @ a
        residual = self.design.residualise(a)
        keep = self._positive
        u = residual[keep] if self.y is self.py else pa[keep] - self.px[keep] @ np.linalg.solve(self.design.r_factor, q)
        square = np.einsum("ij,ij->j", a, a)
        found = of_residual(u, residual, self._my[:, None], square, np.zeros_like(square), self.space)
        # Once the offset is out, what is left of a constant is the rounding of the product P A.
        return replace(found, collinear=found.collinear | (found.norm <= rounding**2 * whole))
