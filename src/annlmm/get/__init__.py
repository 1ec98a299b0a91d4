"""Results as tidy tables and models."""

from annlmm.get._association import association
from annlmm.get._kernel import kernel
from annlmm.get._null_model import null_model

__all__ = ["association", "kernel", "null_model"]
