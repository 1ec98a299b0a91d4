"""Phenotypes and covariates from `.obs` and `.obsm`: which rows are complete, and the design matrix on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import hint, numeric, received
from annlmm._slots.formula import check_formula

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Phenotypes:
    """T responses on all rows of adata, NaN where missing."""

    names: tuple[str, ...]
    values: Float


def read_phenotypes(adata: AnnData, phenotype: Any) -> Phenotypes:
    """An obs column, a list of them, or an obsm key."""
    if isinstance(phenotype, str):
        if phenotype in adata.obs.columns:
            return Phenotypes(
                (phenotype,), _finite(numeric(adata.obs[phenotype], _named(phenotype)), _named(phenotype))[:, None]
            )
        if phenotype in adata.obsm:
            frame = obsm_frame(adata, phenotype)
            if not frame.columns.is_unique:
                raise ValueError(
                    f"phenotype={phenotype!r}: its columns must have different names, received {list(frame)}"
                )
            columns = [_finite(numeric(frame[c], f"phenotype {c!r}"), f"phenotype {c!r}") for c in frame.columns]
            return Phenotypes(tuple(map(str, frame.columns)), np.stack(columns, axis=1))
        if phenotype in adata.var_names:
            raise KeyError(
                f"phenotype={phenotype!r}: is a feature, not a column of adata.obs; copy it first: "
                f"adata.obs[{phenotype!r}] = adata.obs_vector({phenotype!r})"
            )
        raise KeyError(
            f"phenotype={phenotype!r}: neither a column of adata.obs nor a key of adata.obsm; {hint(phenotype, _known(adata))}"
        )
    if isinstance(phenotype, Sequence) and phenotype and all(isinstance(name, str) for name in phenotype):
        if len(set(phenotype)) < len(phenotype):
            raise ValueError(f"phenotype: names must differ, received {list(phenotype)}")
        parts = [read_phenotypes(adata, name) for name in phenotype]
        if any(len(part.names) > 1 for part in parts):
            raise ValueError("phenotype: a list must name columns of adata.obs; pass an obsm key on its own")
        return Phenotypes(tuple(phenotype), np.concatenate([part.values for part in parts], axis=1))
    raise TypeError(
        f"phenotype: must be a column of adata.obs, a list of them, or a key of adata.obsm, received {received(phenotype)}"
    )


def _named(phenotype: str) -> str:
    return f"phenotype={phenotype!r}"


def _finite(values: Float, name: str) -> Float:
    if np.isinf(values).any():
        raise ValueError(
            f"{name}: {int(np.isinf(values).sum())} infinite values; set them to NaN to leave these rows out"
        )
    if np.isnan(values).all():
        raise ValueError(f"{name}: all values are missing")
    return values


def obsm_frame(adata: AnnData, key: str) -> pd.DataFrame:
    """An obsm entry as named columns: its own, or key[0], key[1] and so on."""
    value = adata.obsm[key]
    if isinstance(value, pd.DataFrame) and value.shape[1]:
        return value.set_axis([str(c) for c in value.columns], axis=1)
    array = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"adata.obsm[{key!r}]: must have two dimensions and a column, received shape {array.shape}")
    names = [key] if array.shape[1] == 1 else [f"{key}[{j}]" for j in range(array.shape[1])]
    return pd.DataFrame(array, index=adata.obs_names, columns=names)


def obsm_column(adata: AnnData, name: str, argument: str, owner: str = "adata") -> pd.Series | None:
    """One column of an obsm entry, X_pca[0] or frame[name]; None where there is no such entry."""
    part = re.fullmatch(r"(.+)\[([^\]]*)\]", name)
    if part is None or part[1] not in adata.obsm:
        return None
    frame = obsm_frame(adata, part[1])
    for column in (name, part[2], *([part[1]] if part[2] == "0" else [])):
        if column in frame:
            return frame[column].rename(name)
    raise KeyError(f"{argument}: {owner}.obsm[{part[1]!r}] has the columns {', '.join(map(repr, frame))}")


@dataclass(frozen=True)
class Covariates:
    """What the user asked for, before rows are chosen.

    Attributes
    ----------
    names
        Columns of obs, keys of obsm or columns of these, where they were listed.
    formula
        The user's formula, evaluated once, at fit; None if names were listed.
    variables
        Columns of obs and keys of obsm that either of them uses.
    complete
        Per row of adata: whether every variable that is used is present.
    owner, also
        What the user calls adata, and names that would have been found elsewhere.
    """

    names: tuple[str, ...]
    formula: str | None
    variables: tuple[str, ...]
    complete: Mask
    owner: str = "adata"
    also: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return self.formula if self.formula is not None else "~ " + " + ".join(["1", *self.names])


def nowhere(owner: str, also: Sequence[str]) -> str:
    return f"neither a column of {owner}.obs nor a key of {owner}.obsm" + (", nor in genotype" if also else "")


def read_covariates(adata: AnnData, covariates: Any, owner: str = "adata", also: tuple[str, ...] = ()) -> Covariates:
    """Names of obs columns and obsm keys, or a formula; which rows have all of them."""
    if covariates is None:
        return Covariates((), None, (), np.ones(adata.n_obs, dtype=bool))
    if isinstance(covariates, str) and "~" in covariates:
        formula = covariates.strip()
        if not formula.startswith("~"):
            raise ValueError(
                f"covariates={covariates!r}: a formula has no left-hand side here, the phenotype is its own argument; start it with '~'"
            )
        random = re.search(r"\([^()|]*\|\s*(\w+)\s*\)", formula)
        if random:
            raise ValueError(
                f"covariates={formula!r}: {random.group()} is a random effect; make it the kernel, "
                f"al.pp.kernel_group(adata, {random.group(1)!r}), and leave it out of the formula"
            )
        check_formula(formula, {*map(str, adata.obs.columns), *adata.obsm})
        variables = _variables(adata, formula)
        row = next((found for key in adata.obsm for found in _subscripts(key, formula) if key in variables), None)
        if row is not None:
            raise ValueError(
                f"covariates={formula!r}: {row[0]!r} is a row in a formula; write {row[1]}[:, {row[2]}] for the column, or list names: [..., '{row[1]}[{row[2]}]']"
            )
        return Covariates((), formula, variables, _complete(adata, variables), owner, also)
    names = (covariates,) if isinstance(covariates, str) else covariates
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"covariates: must be names of obs columns or obsm keys, or a formula such as '~ age + C(sex)', received {received(covariates)}"
        )
    for name in names:
        found = name in adata.obs.columns or name in adata.obsm
        if not found and obsm_column(adata, name, f"covariates: {name!r}", owner) is None:
            if re.search(r"[+*:]|\b[CQ]\(", name):
                raise KeyError(f"covariates: {name!r} is no name; a formula begins with '~', as in '~ {name.strip()}'")
            raise KeyError(
                f"covariates: {name!r} is {nowhere(owner, also)}; {hint(name.partition('[')[0], dict.fromkeys([*_known(adata), *also]))}"
            )
    if len(set(names)) < len(names):
        raise ValueError(f"covariates: names must differ, received {list(names)}")
    used = [name if name in adata.obs.columns or name in adata.obsm else name.rpartition("[")[0] for name in names]
    return Covariates(tuple(names), None, tuple(dict.fromkeys(used)), _complete(adata, names), owner, also)


def _subscripts(key: str, formula: str) -> list[tuple[str, str, str]]:
    """Where a formula has one number in brackets after the name of a matrix: the text, the name and the number."""
    return [(found[0], key, found[1]) for found in re.finditer(rf"\b{re.escape(key)}\s*\[\s*(\d+)\s*\]", formula)]


def _obsm_part(adata: AnnData, name: str) -> pd.DataFrame:
    """All columns of an obsm entry, or one."""
    column = None if name in adata.obsm else obsm_column(adata, name, "covariates")
    return obsm_frame(adata, name) if column is None else column.to_frame()


def _variables(adata: AnnData, formula: str) -> tuple[str, ...]:
    """Every obs column and obsm key whose name occurs in the formula.

    formulaic's own list misses the arguments of transforms (poly, bs); a name too many costs nothing but its missing rows.
    """
    quoted = set(re.findall(r"`([^`]+)`", formula)) | {
        q[1:-1] for q in re.findall(r"Q\(\s*('[^']*'|\"[^\"]*\")", formula)
    }
    code = re.sub(r"`[^`]+`|'[^']*'|\"[^\"]*\"", " ", formula)
    words = set(re.findall(r"[^\W\d]\w*\b(?!\s*(?:\(|=[^=]))", code))  # no functions, no names of arguments
    return tuple(name for name in [*map(str, adata.obs.columns), *adata.obsm] if name in quoted or name in words)


def _complete(adata: AnnData, names: Sequence[str]) -> Mask:
    complete = np.ones(adata.n_obs, dtype=bool)
    for name in names:
        present = adata.obs[name].notna() if name in adata.obs.columns else _obsm_part(adata, name).notna().all(axis=1)
        complete &= present.to_numpy(dtype=bool)
    return complete


def design_matrix(adata: AnnData, covariates: Covariates, rows: NDArray[np.intp]) -> tuple[Float, tuple[str, ...]]:
    """X (n_rows × p) and its terms: an intercept first, categories coded with their first level dropped."""
    if covariates.formula is None:
        x, terms = _from_names(adata, covariates.names, rows)
    else:
        x, terms = _from_formula(adata, covariates, covariates.formula, rows)
    twice = next((term for term in terms if terms.count(term) > 1), None)
    if twice is not None:
        raise ValueError(f"covariates: two terms are named {twice!r}; rename one of the columns")
    return x, terms


def _from_names(adata: AnnData, names: Sequence[str], rows: NDArray[np.intp]) -> tuple[Float, tuple[str, ...]]:
    columns: list[Float] = [np.ones(rows.size)]
    terms = ["Intercept"]
    for name in names:
        if name in adata.obs.columns:
            column = adata.obs[name].iloc[rows]
            if _is_label(column):
                levels = _as_category(column, name)
                coded = levels.cat.codes.to_numpy()
                for code, level in enumerate(levels.cat.categories[1:], start=1):
                    columns.append((coded == code).astype(np.float64))
                    terms.append(f"{name}[T.{level}]")
                continue
            columns.append(numeric(column, f"covariates {name!r}"))
            terms.append(name)
        else:
            frame = _obsm_part(adata, name).iloc[rows]
            columns.extend(_obsm_columns(frame).T)
            terms.extend(map(str, frame.columns))
    return np.stack(columns, axis=1), tuple(terms)


def _obsm_columns(frame: pd.DataFrame) -> Float:
    return np.stack([numeric(frame.iloc[:, j], f"covariates {c!r}") for j, c in enumerate(frame)], axis=1)


def _is_label(column: pd.Series) -> bool:
    dtype = column.dtype
    if isinstance(dtype, (pd.CategoricalDtype, pd.StringDtype)):
        return True
    return pd.api.types.is_object_dtype(dtype) and any(isinstance(v, str) for v in column)


def _as_category(column: pd.Series, name: str) -> pd.Series:
    """Categories that occur, in their own order (alphabetical for text)."""
    levels = column.astype("category").cat.remove_unused_categories()
    categories = levels.cat.categories
    if len(categories) == 1:
        raise ValueError(
            f"covariates: {name!r} has one level ({categories[0]!r}) on the {len(column)} rows that are used; drop it"
        )
    if len(categories) > max(len(column) / 2, 2):
        raise ValueError(
            f"covariates: {name!r} has {len(categories)} levels for {len(column)} rows; is it an identifier? Group with al.pp.kernel_group instead"
        )
    return levels


def _from_formula(
    adata: AnnData, covariates: Covariates, formula: str, rows: NDArray[np.intp]
) -> tuple[Float, tuple[str, ...]]:
    from formulaic import Formula, ModelMatrices
    from formulaic.errors import FormulaicError

    frame, context = _evaluation(adata, covariates.variables, rows)
    try:
        matrix = Formula(formula).get_model_matrix(frame, context=context, na_action="ignore")
    except (FormulaicError, SyntaxError, TypeError, ValueError, KeyError) as error:
        # formulaic marks the place with terminal colours
        reason = " ".join(re.sub(r"\x1b\[[\d;]*m|[⧛⧚]", "", str(error)).split())
        raise ValueError(f"covariates={formula!r}: {_explained(covariates, formula, reason, _known(adata))}") from error
    if isinstance(matrix, ModelMatrices):
        raise ValueError(f"covariates={formula!r}: has several parts; join them with '+'")
    if matrix.shape[0] != rows.size:
        raise ValueError(f"covariates={formula!r}: gives {matrix.shape[0]} rows for {rows.size}; it must not drop any")
    return np.asarray(matrix, dtype=np.float64), tuple(map(str, matrix.columns))


def _explained(covariates: Covariates, formula: str, reason: str, known: list[str]) -> str:
    """What formulaic says, in the terms of the user: which name it does not know, and what it may have meant."""
    owner, known = covariates.owner, list(dict.fromkeys([*known, *covariates.also]))
    quote = next(
        (f"; write `{name}` in backticks" for name in known if not name.isidentifier() and name in formula), ""
    )
    unknown = re.search(r"`([^`]+)` is not present|name '(\w+)' is not defined", reason)
    if unknown is None:
        return (
            f"{reason}{quote}"
            if quote
            else f"{reason}; name columns of {owner}.obs or keys of {owner}.obsm ({hint('', known)}), `in backticks` if they hold spaces"
        )
    name = unknown.group(1) or unknown.group(2)
    if re.search(rf"\b{re.escape(name)}\s*\(", formula):
        return f"{name!r} is no function that a formula knows; there are those of numpy (np.log1p) and formulaic (C, log, poly, bs, scale)"
    return f"{name!r} is {nowhere(owner, covariates.also)}{quote or f'; {hint(name, known)}'}"


def _known(adata: AnnData) -> list[str]:
    """What a covariate or phenotype may be: columns of obs, and keys of obsm but those of kernels."""
    kernels = {key for key, entry in adata.uns.items() if isinstance(entry, Mapping) and "kind" in entry}
    return [*map(str, adata.obs.columns), *(str(key) for key in adata.obsm if key not in kernels)]


def _evaluation(
    adata: AnnData, variables: Sequence[str], rows: NDArray[np.intp]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What a formula may use: its columns of obs (not others, which might be called `C` or `log`), and obsm as arrays.

    Text comes as categories of the levels that occur, everything else as numbers: formulaic takes `string` columns for
    numbers, `object` columns for categories, and codes levels that are absent.
    """
    frame = adata.obs[[name for name in variables if name in adata.obs.columns]].iloc[rows].copy()
    context: dict[str, Any] = {"np": np, "numpy": np}
    for name in variables:
        if name not in frame.columns:
            context[name] = _obsm_columns(obsm_frame(adata, name).iloc[rows])
        elif _is_label(frame[name]):
            frame[name] = _as_category(frame[name], name)
        elif not isinstance(frame[name].dtype, np.dtype) or frame[name].dtype.kind not in "fiub":
            kind = getattr(frame[name].dtype, "kind", "O")
            values = numeric(frame[name], f"covariates {name!r}")
            # C(...) of a nullable integer has the levels 0 and 1, not 0.0 and 1.0
            frame[name] = values.astype({"i": np.int64, "u": np.int64, "b": np.bool_}.get(kind, np.float64))
    return frame, context
