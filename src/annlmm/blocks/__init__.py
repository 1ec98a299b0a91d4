"""Blocks of feature columns from whatever holds them: float64, on the rows that are used, dense or CSC."""

from annlmm.blocks._columns import Block, column_blocks

__all__ = ["Block", "column_blocks"]
