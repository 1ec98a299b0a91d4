"""The linear mixed model for AnnData: y ~ N(Xβ, σ²K + τ²I)."""

from importlib.metadata import version

from annlmm import datasets, get, io, pl, pp, tl
from annlmm._settings import settings
from annlmm.model.lmm import LinearMixedModel

__version__ = version("annlmm")

__all__ = ["LinearMixedModel", "datasets", "get", "io", "pl", "pp", "settings", "tl"]
