"""Plots. Every function returns a :class:`matplotlib.axes.Axes` and accepts `ax`."""

from ._eqtl import eqtl
from ._locus import locus
from ._manhattan import manhattan
from ._qq import qq
from ._reml_profile import reml_profile

__all__ = ["eqtl", "locus", "manhattan", "qq", "reml_profile"]
