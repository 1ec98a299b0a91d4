"""Preprocessing: kernels."""

from annlmm.pp._kernel_graph import kernel_graph
from annlmm.pp._kernel_grm import kernel_grm
from annlmm.pp._kernel_group import kernel_group
from annlmm.pp._kernel_linear import kernel_linear
from annlmm.pp._kernel_precomputed import kernel_precomputed
from annlmm.pp._kernel_rbf import kernel_rbf

__all__ = [
    "kernel_graph",
    "kernel_grm",
    "kernel_group",
    "kernel_linear",
    "kernel_precomputed",
    "kernel_rbf",
]
