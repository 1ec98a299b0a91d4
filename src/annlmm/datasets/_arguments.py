"""Checks of arguments shared by the simulations."""

from __future__ import annotations

import numpy as np


def generator(rng: object) -> np.random.Generator:
    """A Generator from a seed, or the Generator itself."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        if rng < 0:
            raise ValueError(f"`rng` must be a non-negative integer or a numpy Generator, got {rng}.")
        return np.random.default_rng(int(rng))
    raise TypeError(f"`rng` must be an integer or a numpy Generator, got {rng!r} ({type(rng).__name__}).")


def integer(value: object, name: str, low: int, high: int | None = None, why: str = "") -> int:
    """An integer within its bounds, both included."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer, got {value!r} ({type(value).__name__}).")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"`{name}` must be {bounds}{why}, got {value}.")
    return int(value)


def fraction(value: object, name: str, *, zero: bool = True, one: bool = True) -> float:
    """A number between 0 and 1; `zero` and `one` say whether the ends are allowed."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number, got {value!r} ({type(value).__name__}).")
    number = float(value)
    if not (0 <= number <= 1) or (number == 0 and not zero) or (number == 1 and not one):
        bounds = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
        raise ValueError(f"`{name}` must lie in {bounds}, got {value}.")
    return number
