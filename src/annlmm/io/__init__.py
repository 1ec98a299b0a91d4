"""Readers of genotype and kinship files: donors × variants as AnnData, kinship as a DataFrame."""

from annlmm.io._read_bimbam import read_bimbam
from annlmm.io._read_gemma_kinship import read_gemma_kinship
from annlmm.io._read_plink import read_plink

__all__ = ["read_bimbam", "read_gemma_kinship", "read_plink"]
