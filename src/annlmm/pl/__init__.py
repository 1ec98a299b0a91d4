"""Plots. Every function returns a :class:`matplotlib.axes.Axes` and accepts `ax`."""

from ._manhattan import manhattan
from ._qq import qq
from ._reml_profile import reml_profile

__all__ = ["manhattan", "qq", "reml_profile"]
