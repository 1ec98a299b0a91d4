"""Array types: how `.X` lies, is cut and is read. `layout` and `fetch` are the interface; one file registers each family."""

from annlmm.blocks import _memory  # noqa: F401 – registers numpy and scipy
from annlmm.blocks._columns import ColumnBlock, column_blocks
from annlmm.blocks._layout import Layout, as_float, fetch, layout
from annlmm.blocks._plan import Limits, Tile, plan

__all__ = ["ColumnBlock", "Layout", "Limits", "Tile", "as_float", "column_blocks", "fetch", "layout", "plan"]
