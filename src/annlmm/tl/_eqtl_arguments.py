"""Checks of the arguments of `map_eqtl`."""

from __future__ import annotations

from typing import Any

import numpy as np

from annlmm._slots.access import received
from annlmm.model.eqtl_interaction import SLOPES


def check_choice(argument: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{argument}: must be one of {', '.join(map(repr, choices))}, received {value!r}")


def default_df(df: str | None, several: bool) -> str:
    """The rule for the degrees of freedom: what was asked for; else that of donors over cells, and that of `associate` without."""
    return df or ("satterthwaite" if several else "residual")


def check_number(argument: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """A number in [low, high], or (low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{argument}: must be a number, received {received(value)}")
    if not (low < value <= high if open_low else low <= value <= high):
        raise ValueError(f"{argument}: must lie in {'(' if open_low else '['}{low:g}, {high:g}], received {value!r}")
    return float(value)


def check_whole(argument: str, value: Any, low: int) -> int:
    """A whole number."""
    whole = isinstance(value, (int, np.integer)) or (
        isinstance(value, (float, np.floating)) and float(value).is_integer()
    )
    if isinstance(value, bool) or not whole:
        raise TypeError(f"{argument}: must be a whole number, received {received(value)}")
    if value < low:
        raise ValueError(f"{argument}: must be at least {low}, received {value}")
    return int(value)


def check_window(window: Any) -> int | None:
    """Base pairs on either side, or None."""
    return None if window is None else check_whole("window", window, 0)


def check_permutations(permutations: Any, window: int | None) -> int:
    count = check_whole("permutations", permutations, 0)
    if count and window is None:
        raise ValueError(f"permutations={count}: are of the variants in a window; with window=None pass permutations=0")
    if 0 < count < 100:
        raise ValueError(
            f"permutations={count}: too few for the beta approximation; 1000 are usual, at least 100 are needed"
        )
    return count


def check_conditional(conditional: Any, window: int | None) -> None:
    if not isinstance(conditional, (bool, np.bool_)):
        raise TypeError(f"conditional: must be True or False, received {received(conditional)}")
    if conditional and window is None:
        raise ValueError("conditional=True: signals are those in a window; with window=None pass conditional=False")


def check_interaction(
    donor_slopes: Any, *, window: int | None, permutations: int, conditional: bool, reml: bool
) -> None:
    """What goes with contexts."""
    check_choice("donor_slopes", donor_slopes, SLOPES)
    if window is None:
        raise ValueError("interaction: is tested for the variants in a window; with window=None leave interaction out")
    if permutations:
        raise ValueError(
            f"permutations={permutations}: neither labels nor residuals of donors are exchangeable under an interaction; with interaction= pass "
            "permutations=0, genes have the combination of their p-values (ACAT)"
        )
    if conditional:
        raise ValueError(
            "conditional=True: signals are those of additive effects; with interaction= pass conditional=False"
        )
    if not reml:
        raise ValueError(
            "reml=False: models with contexts are fitted by restricted likelihood; with interaction= pass reml=True"
        )
