"""Tools: fit the null model, test features, map eQTLs."""

from annlmm.tl._associate import associate
from annlmm.tl._differential import differential
from annlmm.tl._fit_null import fit_null
from annlmm.tl._map_eqtl import map_eqtl
from annlmm.tl._variance_components import variance_components

__all__ = ["associate", "differential", "fit_null", "map_eqtl", "variance_components"]
