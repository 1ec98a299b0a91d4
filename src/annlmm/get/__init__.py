"""Results as tidy tables and models."""

from annlmm.get._association import association
from annlmm.get._differential import differential
from annlmm.get._eqtl import eqtl
from annlmm.get._kernel import kernel
from annlmm.get._null_model import null_model
from annlmm.get._variance_components import variance_components

__all__ = ["association", "differential", "eqtl", "kernel", "null_model", "variance_components"]
