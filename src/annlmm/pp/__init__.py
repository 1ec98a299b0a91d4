"""Preprocessing: kernels, and expression for eQTL mapping."""

from annlmm.pp._inverse_normal import inverse_normal
from annlmm.pp._kernel_graph import kernel_graph
from annlmm.pp._kernel_grm import kernel_grm
from annlmm.pp._kernel_group import kernel_group
from annlmm.pp._kernel_linear import kernel_linear
from annlmm.pp._kernel_precomputed import kernel_precomputed
from annlmm.pp._kernel_rbf import kernel_rbf
from annlmm.pp._pseudobulk import pseudobulk

__all__ = [
    "inverse_normal",
    "kernel_graph",
    "kernel_grm",
    "kernel_group",
    "kernel_linear",
    "kernel_precomputed",
    "kernel_rbf",
    "pseudobulk",
]
