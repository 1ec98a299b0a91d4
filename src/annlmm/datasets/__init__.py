"""Seeded simulations whose truth is stored in ``.uns["truth"]``."""

from annlmm.datasets._donors import donors
from annlmm.datasets._gwas_cohort import gwas_cohort
from annlmm.datasets._sc_eqtl import sc_eqtl
from annlmm.datasets._spatial import spatial

__all__ = ["donors", "gwas_cohort", "sc_eqtl", "spatial"]
