"""Places of genes and variants from `.var`: chromosomes under one name, unknown positions as such."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import hint, numeric

Index = NDArray[np.intp]
Integer = NDArray[np.int64]

UNKNOWN = -1
"""Code of an unknown chromosome, and an unknown position."""
_MISSING = {"", "0", ".", "-1", "-9", "nan", "none", "na", "<na>"}
_MITOCHONDRIAL = {"M": "MT", "MITO": "MT"}
_PLINK_CODES = {"23": "X", "24": "Y", "25": "XY", "26": "MT"}
_STRANDS = {"+": 1, "1": 1, "1.0": 1, "-": -1, "−": -1, "-1": -1, "-1.0": -1, ".": 0, "*": 0, "0": 0, "": 0}


@dataclass(frozen=True)
class Variants:
    """m variants, in the order of `genotype.var`.

    Attributes
    ----------
    names
        `genotype.var_names`, which must differ.
    chromosomes
        Names of the chromosomes: without "chr", X, Y and MT in capitals.
    chrom
        Number of each variant's chromosome among these, −1 unknown.
    pos
        Base pairs, −1 unknown.
    a0, a1
        Alleles as text ("" where missing), of which `genotype` counts a1; None: no such column.
    """

    names: pd.Index
    chromosomes: tuple[str, ...]
    chrom: Index
    pos: Integer
    a0: NDArray[np.object_] | None
    a1: NDArray[np.object_] | None

    @property
    def placed(self) -> NDArray[np.bool_]:
        return (self.chrom >= 0) & (self.pos >= 0)

    def on(self, chromosomes: tuple[str, ...]) -> Variants:
        """The same with chromosomes numbered in another list of names."""
        return replace(self, chromosomes=chromosomes, chrom=_renumber(self.chrom, self.chromosomes, chromosomes))


@dataclass(frozen=True)
class Genes:
    """G genes, in the order of `expression.var`.

    Attributes
    ----------
    names
        `expression.var_names`, which must differ.
    chromosomes, chrom
        As of `Variants`.
    start, end
        Base pairs, −1 unknown; without a column `end`, it is −1.
    strand
        1 or −1; 0 where it isn't known.
    tss
        Transcription start: `end` on the reverse strand, otherwise `start`; −1 unknown.
    """

    names: pd.Index
    chromosomes: tuple[str, ...]
    chrom: Index
    start: Integer
    end: Integer
    strand: NDArray[np.int8]
    tss: Integer

    @property
    def placed(self) -> NDArray[np.bool_]:
        return (self.chrom >= 0) & (self.tss >= 0)

    def on(self, chromosomes: tuple[str, ...]) -> Genes:
        """The same with chromosomes numbered in another list of names."""
        return replace(self, chromosomes=chromosomes, chrom=_renumber(self.chrom, self.chromosomes, chromosomes))

    def distance(self, gene: Index, pos: Integer) -> Integer:
        """Base pairs from the start of a gene to a position, positive downstream: the sign follows the strand."""
        return (pos - self.tss[gene]) * np.where(self.strand[gene] < 0, -1, 1)


def variant_table(genotype: AnnData, *, positions: bool = True) -> Variants:
    """Places and alleles of variants; without `positions`, columns chrom and pos may be absent (all unknown)."""
    var = _unique(genotype, "genotype")
    if positions:
        _require(var, ("chrom", "pos"), "genotype")
    chrom, chromosomes = _chromosomes(var)
    pos = _positions(var, "pos", "genotype")
    if positions and not ((chrom >= 0) & (pos >= 0)).any():
        raise ValueError("genotype.var: no variant has both a chromosome and a position; window=None needs none")
    a0, a1 = (_texts(var[name]) if name in var else None for name in ("a0", "a1"))
    return Variants(pd.Index(genotype.var_names.astype(str)), chromosomes, chrom, pos, a0, a1)


def gene_table(expression: AnnData, *, positions: bool = True) -> Genes:
    """Places of genes; without `positions`, columns chrom and start may be absent (all unknown)."""
    var = _unique(expression, "expression")
    if positions:
        _require(var, ("chrom", "start"), "expression")
    chrom, chromosomes = _chromosomes(var)
    start, end = (_positions(var, name, "expression") for name in ("start", "end"))
    strand = _strand(var)
    if "end" not in var and (strand < 0).any() and "start" in var:
        raise KeyError(
            "expression.var: has genes on the reverse strand and no column 'end', where they begin; add it, or drop 'strand' to "
            "measure distances from 'start'"
        )
    backwards = (start >= 0) & (end >= 0) & (start > end)
    if backwards.any():
        name = str(expression.var_names[np.flatnonzero(backwards)[0]])
        raise ValueError(
            f"expression.var: 'start' is beyond 'end' in {int(backwards.sum())} genes, e.g. {name!r}; 'start' is the smaller on "
            "either strand, as in GTF files"
        )
    tss = np.where(strand < 0, end, start)
    if positions and not ((chrom >= 0) & (tss >= 0)).any():
        raise ValueError("expression.var: no gene has both a chromosome and a start; window=None needs none")
    return Genes(pd.Index(expression.var_names.astype(str)), chromosomes, chrom, start, end, strand, tss)


def share_chromosomes(genes: Genes, variants: Variants) -> tuple[Genes, Variants, str]:
    """Both tables over one list of chromosomes, and a line on what has none in common.

    Where one side writes X, Y, XY, MT and the other PLINK's 23 to 26, the numbers become letters.
    """
    gene_names, variant_names = _lettered(genes.chromosomes, variants.chromosomes)
    chromosomes = tuple(dict.fromkeys([*variant_names, *gene_names]))
    shared = set(gene_names) & set(variant_names)
    if not shared:
        raise ValueError(
            f"expression.var['chrom'], genotype.var['chrom']: no chromosome is in both ({_some(genes.chromosomes)} and "
            f"{_some(variants.chromosomes)}; 'chr1' and '1' are the same); rename one of them"
        )
    genes = replace(genes, chromosomes=tuple(gene_names)).on(chromosomes)
    variants = replace(variants, chromosomes=tuple(variant_names)).on(chromosomes)
    parts = []
    for what, table, other in (("genes", genes, variant_names), ("variants", variants, gene_names)):
        alone = np.array([name not in other for name in chromosomes] + [False])
        unknown, elsewhere = int((~table.placed).sum()), int((alone[table.chrom] & table.placed).sum())
        if unknown:
            parts.append(f"{unknown} {what} without a position")
        if elsewhere:
            parts.append(f"{elsewhere} {what} on chromosomes that the other side lacks")
    stranded = int((genes.placed & (genes.strand == 0)).sum())
    if stranded:
        parts.append(f"{stranded} genes without a strand, taken for '+'")
    return genes, variants, "; ".join(parts)


def chromosome_name(name: object) -> str:
    """A chromosome without "chr", without the ".0" that a missing value left on it; X, Y, XY, MT in capitals; "" if missing.

    Examples
    --------
    >>> [chromosome_name(name) for name in ("chr1", "7.0", "chrM", "x", ".", "KI270721.1")]
    ['1', '7', 'MT', 'X', '', 'KI270721.1']
    """
    text = re.sub(r"^(\d+)\.0$", r"\1", str(name).strip())
    text = re.sub(r"^chr(?:omosome)?[ _]?(?=.)", "", text, flags=re.IGNORECASE)
    if text.lower() in _MISSING:
        return ""
    upper = text.upper()
    return _MITOCHONDRIAL.get(upper, upper if upper in ("X", "Y", "XY", "MT", "Z", "W") else text)


def _lettered(left: Iterable[str], right: Iterable[str]) -> tuple[list[str], list[str]]:
    left, right = list(left), list(right)

    def translate(names: list[str], other: list[str]) -> list[str]:
        # A number that the other side has too, or whose letter is here already, means itself.
        return [
            _PLINK_CODES[name]
            if name in _PLINK_CODES
            and name not in other
            and _PLINK_CODES[name] in other
            and _PLINK_CODES[name] not in names
            else name
            for name in names
        ]

    return translate(left, right), translate(right, left)


def _renumber(codes: Index, old: tuple[str, ...], new: tuple[str, ...]) -> Index:
    place = {name: i for i, name in enumerate(new)}
    lookup = np.array([place.get(name, UNKNOWN) for name in old] + [UNKNOWN], dtype=np.intp)
    return lookup[codes]


def _unique(adata: AnnData, argument: str) -> pd.DataFrame:
    names = adata.var_names
    if not names.is_unique:
        raise ValueError(
            f"{argument}.var_names: names must differ, {names[names.duplicated()][0]!r} occurs more than once; "
            f"{argument}.var_names_make_unique() adds suffixes"
        )
    return adata.var


def _require(var: pd.DataFrame, columns: tuple[str, ...], argument: str) -> None:
    for name in columns:
        if name not in var:
            raise KeyError(
                f"{argument}.var has no column {name!r}, which cis windows need ({', '.join(columns)}); rename yours "
                f"({hint(name, var.columns)}), or pass window=None to test all pairs"
            )


def _chromosomes(var: pd.DataFrame) -> tuple[Index, tuple[str, ...]]:
    if "chrom" not in var:
        return np.full(len(var), UNKNOWN, dtype=np.intp), ()
    # Text is handled once per chromosome, not once per variant.
    codes, raw = pd.factorize(var["chrom"])
    names = [chromosome_name(name) for name in raw]
    unique = tuple(dict.fromkeys(name for name in names if name))
    place = {name: i for i, name in enumerate(unique)}
    lookup = np.array([place.get(name, UNKNOWN) for name in names] + [UNKNOWN], dtype=np.intp)
    return lookup[codes], unique


def _positions(var: pd.DataFrame, column: str, argument: str) -> Integer:
    """Whole numbers, −1 for whatever is missing or negative (PLINK and GEMMA write −9, or 0 for a chromosome)."""
    if column not in var:
        return np.full(len(var), UNKNOWN, dtype=np.int64)
    name, levels = f"{argument}.var[{column!r}]", var[column].dtype
    if isinstance(levels, (pd.CategoricalDtype, pd.StringDtype)) or any(
        isinstance(v, str) for v in var[column].iloc[:100]
    ):
        raise TypeError(
            f"{name}: must be numeric, received text (dtype {levels}); {name} = pd.to_numeric({name}.astype(object), errors='coerce')"
        )
    values = numeric(var[column], name)
    known = np.isfinite(values) & (values >= 0)
    whole = np.where(known, values, UNKNOWN).astype(np.int64)
    if (whole[known] != values[known]).any():
        raise ValueError(f"{argument}.var[{column!r}]: holds fractions; positions are whole base pairs")
    return whole


def _strand(var: pd.DataFrame) -> NDArray[np.int8]:
    if "strand" not in var:
        return np.zeros(len(var), dtype=np.int8)
    codes, raw = pd.factorize(var["strand"])
    unknown = [value for value in raw if str(value).strip() not in _STRANDS]
    if unknown:
        raise ValueError(f"expression.var['strand']: must be '+', '-' or missing, received {unknown[0]!r}")
    lookup = np.array([_STRANDS[str(value).strip()] for value in raw] + [0], dtype=np.int8)
    return lookup[codes]


def _texts(column: pd.Series) -> NDArray[np.object_]:
    codes, raw = pd.factorize(column)
    return np.array([*map(str, raw), ""], dtype=object)[codes]


def _some(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:count])) + (", …" if len(names) > count else "") or "none"
