"""Seeded simulations whose truth is stored in ``.uns["truth"]``."""

from annlmm.datasets._donors import donors
from annlmm.datasets._gwas_cohort import gwas_cohort

__all__ = ["donors", "gwas_cohort"]
