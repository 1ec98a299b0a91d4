"""Plots. Every function returns a :class:`matplotlib.axes.Axes` and accepts `ax`."""

from ._eqtl import eqtl
from ._heritability import heritability
from ._kernel import kernel
from ._locus import locus
from ._manhattan import manhattan
from ._qq import qq
from ._reml_profile import reml_profile
from ._variance_components import variance_components
from ._volcano import volcano

__all__ = [
    "eqtl",
    "heritability",
    "kernel",
    "locus",
    "manhattan",
    "qq",
    "reml_profile",
    "variance_components",
    "volcano",
]
