"""Two AnnData of the same donors, expression and genotype: their rows are matched by name, never by order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import check_adata
from annlmm._slots.kernel import group_labels
from annlmm._slots.positions import Genes as Genes
from annlmm._slots.positions import Variants as Variants
from annlmm._slots.positions import gene_table as gene_table
from annlmm._slots.positions import share_chromosomes as share_chromosomes
from annlmm._slots.positions import variant_table as variant_table

Index = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Donors:
    """D donors that are in both, in the order of `genotype`.

    Attributes
    ----------
    names
        D names.
    genotype_rows
        Row of each donor in `genotype`; increasing.
    rows
        Rows of `expression` that are used (n); increasing.
    codes
        Donor of each of them, a number from 0 to D − 1.
    counts
        Rows per donor, all at least 1.
    only_expression, only_genotype
        Names that the other side lacks.
    without_rows
        Donors of both sides none of whose rows is usable.
    n_unlabelled
        Rows of `expression` without a donor.
    """

    names: pd.Index
    genotype_rows: Index
    rows: Index
    codes: Index
    counts: Index
    only_expression: tuple[str, ...]
    only_genotype: tuple[str, ...]
    without_rows: tuple[str, ...]
    n_unlabelled: int

    @property
    def row_of_donor(self) -> Index:
        """The row of `expression` of each donor, where each has one (pseudobulk)."""
        if self.counts.max(initial=0) > 1:
            raise ValueError(f"donors have up to {self.counts.max()} rows of expression each, not one")
        out = np.empty(self.counts.size, dtype=np.intp)
        out[self.codes] = self.rows
        return out

    def report(self) -> str:
        """What matched and what did not, in one line."""
        parts = [f"{self.counts.size} donors matched by name"]
        if self.counts.max(initial=0) > 1:
            parts[0] += f" ({self.rows.size} observations)"
        if self.only_expression:
            parts.append(f"{len(self.only_expression)} without a genotype ({_some(self.only_expression)})")
        if self.only_genotype:
            parts.append(f"{len(self.only_genotype)} without expression ({_some(self.only_genotype)})")
        if self.without_rows:
            parts.append(f"{len(self.without_rows)} without a usable observation ({_some(self.without_rows)})")
        if self.n_unlabelled:
            parts.append(f"{self.n_unlabelled} observations without a donor left out")
        return "; ".join(parts)


def match_donors(
    expression: AnnData,
    genotype: AnnData,
    donor_key: str | None = None,
    *,
    usable: Mask | None = None,
    minimum: int = 5,
) -> Donors:
    """Match the donors of two AnnData by name.

    Parameters
    ----------
    expression
        Donors × genes, or cells × genes with `donor_key`.
    genotype
        Donors × variants.
    donor_key
        Column of `expression.obs` with the donors' names (text, categories, whole numbers; missing: the row is left out);
        None: `expression.obs_names` are the donors.
    usable
        Rows of `expression` that may be used (complete covariates); None: all.
    minimum
        Fewest donors that will do.
    """
    check_adata(expression, "expression")
    check_adata(genotype, "genotype")
    names = pd.Index(genotype.obs_names.astype(str))
    _refuse_duplicates(names, "genotype.obs_names", "a donor has one row; average or drop the others")
    if donor_key is None:
        labels = pd.Series(expression.obs_names.astype(str).to_numpy(dtype=object))
        _refuse_duplicates(
            pd.Index(labels),
            "expression.obs_names",
            "without donor_key= each row is a donor; name the column of donors",
        )
    else:
        labels = group_labels(expression, donor_key, "donor_key", "expression").reset_index(drop=True)
    present = labels.notna().to_numpy(dtype=bool)
    if not present.any():
        raise ValueError(f"donor_key={donor_key!r}: all {present.size} values are missing")
    found = np.full(present.size, -1, dtype=np.intp)
    found[present] = names.get_indexer(pd.Index(labels[present]))
    here = pd.Index(labels[present].unique())
    matched = np.bincount(found[found >= 0], minlength=names.size) > 0
    if not matched.any():
        raise ValueError(_no_overlap(expression, genotype, here, names, donor_key))
    used = found >= 0 if usable is None else (found >= 0) & usable
    counts = np.bincount(found[used], minlength=names.size)
    kept = np.flatnonzero(counts)
    side = "expression.obs_names" if donor_key is None else f"expression.obs[{donor_key!r}]"
    if kept.size < minimum:
        lost = int(matched.sum()) - kept.size
        raise ValueError(
            f"genotype, expression: {kept.size} donors are in both{f' ({lost} more have no usable observation)' if lost else ''}, at least "
            f"{minimum} are needed; {side} has {here.size} ({_some(here)}), genotype.obs_names {names.size} ({_some(names)})"
            + _remedy(expression, genotype, here, names, donor_key)
        )
    number = np.cumsum(counts > 0) - 1
    rows = np.flatnonzero(used)
    return Donors(
        names=names[kept],
        genotype_rows=kept,
        rows=rows,
        codes=number[found[rows]],
        counts=counts[kept],
        only_expression=tuple(sorted(here[~here.isin(names)])),
        only_genotype=tuple(names[~matched]),
        without_rows=tuple(names[matched & (counts == 0)]),
        n_unlabelled=int((~present).sum()),
    )


def _refuse_duplicates(names: pd.Index, what: str, remedy: str) -> None:
    twice = names[names.duplicated()].unique()
    if twice.size:
        raise ValueError(f"{what}: {twice.size} names occur more than once ({_some(twice)}); {remedy}")


def _no_overlap(expression: AnnData, genotype: AnnData, here: pd.Index, names: pd.Index, donor_key: str | None) -> str:
    side = "expression.obs_names" if donor_key is None else f"expression.obs[{donor_key!r}]"
    return (
        f"genotype, expression: no donor is in both; {side} has {here.size} ({_some(here)}), "
        f"genotype.obs_names {names.size} ({_some(names)})"
    ) + (_remedy(expression, genotype, here, names, donor_key) or "; rename one of them")


_SHAPES: tuple[tuple[str, Callable[[pd.Index], pd.Index]], ...] = (
    ("without spaces around them", lambda x: x.str.strip()),
    ("in the same case", lambda x: x.str.lower()),
    ("without leading zeros", lambda x: x.str.replace(r"^0+(?=\d)", "", regex=True)),
    ("without what follows the last '_'", lambda x: x.str.replace(r"_[^_]*$", "", regex=True)),
    ("without what precedes the first '_'", lambda x: x.str.replace(r"^[^_]*_", "", regex=True)),
    ("without what follows the last '-'", lambda x: x.str.replace(r"-[^-]*$", "", regex=True)),
    ("without what precedes the first digit", lambda x: x.str.replace(r"^\D+(?=\d)", "", regex=True)),
)


def _remedy(expression: AnnData, genotype: AnnData, here: pd.Index, names: pd.Index, donor_key: str | None) -> str:
    """How the names might be made equal; what is suggested was tried, and matches more of them."""
    now = _overlap(here, names)
    for column in genotype.obs.columns:
        if _overlap(here, _texts(genotype.obs[column])) > max(now, here.size // 2):
            return (
                f"; genotype.obs[{column!r}] has these names: genotype.obs_names = genotype.obs[{column!r}].astype(str)"
            )
    for column in expression.obs.columns:
        if column != donor_key and _overlap(names, _texts(expression.obs[column])) > max(now, names.size // 2):
            return f"; expression.obs[{column!r}] has names of genotype.obs_names: pass donor_key={column!r}"
    if _overlap(here, genotype.var_names) > now:
        return "; genotype.var_names has these names: genotype must be donors × variants, pass genotype.T"
    for text, shape in _SHAPES:
        for what, left, right in (
            ("expression's", shape(here), names),
            ("genotype's", here, shape(names)),
            ("both sides'", shape(here), shape(names)),
        ):
            # Shortened names that are no longer different would match by accident.
            if left.is_unique and right.is_unique and _overlap(left, right) > max(now, min(here.size, names.size) // 2):
                return f"; {text}, {what} names would match: rename them"
    return ""


def _overlap(a: pd.Index, b: pd.Index) -> int:
    return int(a.isin(b).sum())


def _texts(column: pd.Series) -> pd.Index:
    return pd.Index(column.dropna().astype(str).unique())


def _some(names: pd.Index | tuple[str, ...], count: int = 3) -> str:
    return ", ".join(repr(str(name)) for name in names[:count]) + (", …" if len(names) > count else "")
