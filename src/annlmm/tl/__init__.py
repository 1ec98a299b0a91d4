"""Tools: fit the null model, test features."""

from annlmm.tl._associate import associate
from annlmm.tl._fit_null import fit_null

__all__ = ["associate", "fit_null"]
