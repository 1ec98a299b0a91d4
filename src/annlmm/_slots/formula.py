"""What a formula may say. It is Python to formulaic; here it is columns, numbers, operators and functions by name."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Collection, Iterator

import numpy as np

# Of numpy, beside its elementwise functions: nothing that reads, writes, calls or makes arrays of a given size.
_NUMPY = frozenset((
    "where", "clip", "round", "nan_to_num", "isin", "digitize", "interp", "searchsorted", "quantile", "percentile", "mean",
    "median", "std", "var", "min", "max", "sum", "average", "ptp", "nanmean", "nanmedian", "nanstd", "nanvar", "nanmin", "nanmax",
    "nansum", "nanquantile", "cumsum", "polyval", "select", "array", "asarray", "pi", "e", "inf", "nan", "float32", "float64",
    "int8", "int16", "int32", "int64", "bool_",
))  # fmt: skip
_BUILTINS = frozenset(("abs", "bool", "float", "int", "len", "max", "min", "pow", "round", "sum"))
_CONTRASTS = frozenset(("helmert", "poly", "sum", "treatment", "SAS", "diff", "custom"))
_NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.operator,
    ast.unaryop, ast.boolop, ast.cmpop, ast.Tuple, ast.List, ast.Dict, ast.Subscript, ast.Slice, ast.Call, ast.keyword, ast.Attribute,
)  # fmt: skip


def check_formula(formula: str, columns: Collection[str]) -> None:
    """Refuse what is neither a column nor one of the functions that only compute.

    Parameters
    ----------
    formula
        Beginning with '~'.
    columns
        Names that it may use: those of a column win over functions of Python.

    Raises
    ------
    ValueError
        With the part that would have been evaluated. What does not parse is left to formulaic, which says where.
    """
    from formulaic.errors import FormulaicError
    from formulaic.parser.algos.tokenize import tokenize
    from formulaic.parser.types import Token

    try:
        tokens = list(tokenize(formula))
    except FormulaicError:  # raised again, with what is wrong, where formulaic reads it
        return
    for token in tokens:
        dotted = token.kind is Token.Kind.NAME and "." in token.token and token.token not in columns
        if token.kind is Token.Kind.PYTHON or dotted:
            for part in _refused(token.token, columns):
                raise ValueError(
                    f"covariates={formula!r}: {part} is not evaluated; a formula may use columns, numbers, operators, transforms such as "
                    "C, log, poly and bs, and elementwise functions of numpy (np.sqrt, np.where, …); compute anything else first, as a "
                    "column of adata.obs"
                )


def _refused(code: str, columns: Collection[str]) -> Iterator[str]:
    """The parts of an expression that are not allowed, as they were written."""
    from formulaic.transforms import TRANSFORMS

    # Column names in backticks, outside of strings; whoever hides a quote behind a backslash is not read at all.
    plain = re.sub(r"('[^']*'|\"[^\"]*\")|`[^`]*`", lambda found: found[1] or "_quoted", code)
    try:
        tree = ast.parse(plain.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield repr(code[:60])
        return
    if "\\" in code or re.search("['\"`]", "".join(_strings(tree))):
        yield f"{code[:60]!r} (a quote or a backslash within a string)"
        return
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        text = repr(ast.unparse(node)[:60]) if isinstance(node, ast.expr) else repr(code[:60])
        if not isinstance(node, _NODES):
            yield text
        elif isinstance(node, ast.Name):
            known = node.id in TRANSFORMS or node.id in _BUILTINS or (node.id in columns and id(node) not in called)
            # A name that nothing has is formulaic's to report; those of Python itself would be found.
            if not known and (node.id.startswith("__") or node.id in vars(builtins)):
                yield text
        elif isinstance(node, ast.Attribute):
            if not _plain_attribute(node):
                yield text
        elif id(node) in called and not isinstance(node, (ast.Name, ast.Attribute)):
            yield text


def _strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            yield str(node.value) if isinstance(node.value, str) else "'"


def _plain_attribute(node: ast.Attribute) -> bool:
    """`np.log`, `contr.sum`: one step from a name that is known, to something that only computes."""
    if not isinstance(node.value, ast.Name):
        return False
    if node.value.id in ("np", "numpy"):
        return node.attr in _NUMPY or isinstance(getattr(np, node.attr, None), np.ufunc)
    return node.value.id == "contr" and node.attr in _CONTRASTS
