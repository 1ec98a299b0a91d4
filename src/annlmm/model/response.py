"""A response in the coordinates of the model: projected off the fixed effects, onto the eigenbasis and the REML space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from annlmm.model.basis import Basis
from annlmm.model.design import Design
from annlmm.model.space import RemlSpace

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """One y, or one column of y.

    Attributes
    ----------
    q_y
        Qᵀy, p.
    u
        Uᵀ(My), r.
    y_tilde
        Vᵀy, k.
    rest
        ‖My − V Vᵀy‖², exactly 0 where V spans the REML space.
    my_sq
        ‖My‖².
    """

    q_y: Float
    u: Float
    y_tilde: Float
    rest: float
    my_sq: float


def residual_of(y: Float, design: Design) -> tuple[Float, Float]:
    """My and Qᵀy; y is shifted by its first value where X spans the constant, so that an offset costs no digits."""
    pivot = y[0] if design.spans_constant else 0.0
    shifted = y - pivot
    q_y = design.q.T @ shifted
    my = design.residualise(shifted)
    if pivot:
        q_y = q_y + pivot * design.q.sum(axis=0)
    return np.asarray(my), np.asarray(q_y)


def make_response(y: Float, design: Design, basis: Basis, space: RemlSpace) -> Response:
    """Project y; the sum of squares outside V is that of the explicit residual, not a difference of two sums."""
    my, q_y = residual_of(y, design)
    u = basis.project(my)
    y_tilde = space.rotate(u)
    rest = 0.0
    if not space.full:
        outside = my - design.residualise(basis.expand(space.unrotate(y_tilde)))
        rest = float(outside @ outside)
    return Response(q_y, u, y_tilde, rest, float(my @ my))


def rotated_response(py: Float, px: Float, y: Float, design: Design, space: RemlSpace) -> Response:
    """The same from rotated data, P y and P X, where U itself is not at hand (`LinearMixedModel`).

    For a full-rank model the rotated data are the data: `design` is made of P X and `y` is P y.
    """
    my, q_y = residual_of(y, design)
    u = py - px @ np.linalg.solve(design.r_factor, q_y)
    y_tilde = space.rotate(u)
    rest = 0.0 if space.full else max(float(my @ my - y_tilde @ y_tilde), 0.0)
    return Response(q_y, u, y_tilde, rest, float(my @ my))
