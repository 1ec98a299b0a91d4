"""What a locus is drawn from: pairs of a gene, or a scan."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from annlmm._slots.access import check_adata, hint

from ._pairs import neg_log10, p_label, read_pairs
from ._read import phenotype_names, read_neg_log10_p, to_float

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

_REGION = re.compile(r"(.+):([\d,_]+)[-–]([\d,_]+)")
# Base pairs on either side of the lead of a scan, LocusZoom's flank.
_FLANK = 500_000.0
_MARGIN = 0.02


@dataclass(frozen=True)
class Locus:
    """Variants to draw."""

    names: NDArray[np.object_]
    """Shape (m,)."""
    x: NDArray[np.float64]
    """Positions in base pairs, shape (m,)."""
    y: NDArray[np.float64]
    """−log₁₀ p, shape (m,)."""
    known: NDArray[np.object_]
    """Names of all variants, those that are not drawn included."""
    n_tested: int
    """Tests of the gene, or of the scan."""
    place: dict[str, Any]
    """chrom, and for a gene start, end, strand and tss (None where unknown)."""
    limits: tuple[float, float] | None
    """Of the x axis; None: as far as there are variants."""
    p_label: str
    """Label of the y axis."""
    title: str | None


def read_gene_locus(
    expression: AnnData,
    genotype: AnnData | None,
    gene: str,
    *,
    key: str,
    pairs: pd.DataFrame | None,
    p_value: str,
    context: str | None,
    window: float | None,
) -> Locus:
    """Read the pairs of a gene."""
    table, context = read_pairs(expression, key, gene, pairs, context)
    known, n_tested = _names(table), int(np.isfinite(neg_log10(table, p_value)).sum())
    place = _gene_place(expression, gene)
    table = _placed(table, genotype, place, gene, window, p_value)
    y = neg_log10(table, p_value)
    return Locus(
        _names(table), to_float(table["pos"]), y, known, n_tested, place, None, p_label(p_value, context), None
    )


def _names(table: pd.DataFrame) -> NDArray[np.object_]:
    return np.asarray(table["variant"].astype(str).to_numpy(dtype=object))


def read_scan_locus(
    adata: AnnData,
    *,
    key: str | None,
    phenotype: str | None,
    variant: str | None,
    region: str | None,
    window: float | None,
) -> Locus:
    """Read the variants of a scan in a region, or around one of them."""
    from annlmm._slots.positions import chromosome_name, variant_table

    check_adata(adata, "expression")
    _refuse_eqtl(adata, key)
    key = "lmm" if key is None else key
    values = read_neg_log10_p(adata, key, phenotype)
    for name in ("chrom", "pos"):
        if name not in adata.var:
            raise KeyError(
                f"expression.var has no column {name!r}, which a locus needs (chrom, pos); rename yours "
                f"({hint(name, adata.var.columns)})"
            )
    variants = variant_table(adata, positions=False)
    usable = variants.placed & np.isfinite(values)
    names = np.asarray(variants.names.to_numpy(dtype=object))
    if region is not None:
        if window is not None:
            raise ValueError(f"window={window!r}: the region says how far to draw; leave one of the two")
        chrom, low, high = _parse(region)
        if chromosome_name(chrom) not in variants.chromosomes:
            raise ValueError(
                f"region={region!r}: no variant is on chromosome {chrom!r}; {hint(chromosome_name(chrom), variants.chromosomes)}"
            )
        code = variants.chromosomes.index(chromosome_name(chrom))
    else:
        lead = _lead_of_scan(names, values, usable, variant)
        flank = _FLANK if window is None else window
        if not flank > 0:
            raise ValueError(f"window={window!r}: must be a positive number of base pairs, or None")
        code, pos = int(variants.chrom[lead]), float(variants.pos[lead])
        there = variants.pos[usable & (variants.chrom == code)]
        low, high = max(pos - flank, float(there.min())), min(pos + flank, float(there.max()))
    drawn = np.flatnonzero(usable & (variants.chrom == code) & (variants.pos >= low) & (variants.pos <= high))
    if not drawn.size:
        raise ValueError(f"region={region!r}: no variant there has a p-value")
    several = phenotype_names(adata, key)
    title = None if several is None else str(phenotype or several[0])
    place = {"chrom": variants.chromosomes[code], "start": None, "end": None, "tss": None, "strand": 0}
    x, n_tested = variants.pos[drawn].astype(np.float64), int(np.isfinite(values).sum())
    margin = _MARGIN * (high - low or 1e4)  # a variant at the edge is drawn whole
    return Locus(
        names[drawn], x, values[drawn], names, n_tested, place, (low - margin, high + margin), p_label(), title
    )


def _refuse_eqtl(adata: AnnData, key: str | None) -> None:
    """Say that a gene is missing where there are results of genes and none of a scan."""
    entry = adata.uns.get("eqtl" if key is None else key)
    scan = f"{'lmm' if key is None else key}_p_value"
    if isinstance(entry, Mapping) and "genes" in entry and scan not in adata.var and scan not in adata.varm:
        example = str(entry["genes"]["gene"].iloc[0])
        raise ValueError(f"gene=None: the results of al.tl.map_eqtl are drawn gene by gene; name one, e.g. {example!r}")


def _parse(region: str) -> tuple[str, float, float]:
    match = _REGION.fullmatch(region.strip()) if isinstance(region, str) else None
    if match is None:
        raise ValueError(
            f"region={region!r}: expected chromosome:start-end in base pairs, e.g. '1:1,000,000-2,000,000'"
        )
    low, high = (float(re.sub("[,_]", "", text) or "nan") for text in match.groups()[1:])
    if not low < high:
        raise ValueError(f"region={region!r}: must start before it ends")
    return match[1], low, high


def _lead_of_scan(
    names: NDArray[np.object_], values: NDArray[np.float64], usable: NDArray[np.bool_], variant: str | None
) -> int:
    if variant is None:
        if not usable.any():
            raise ValueError("expression.var: no variant has a p-value, a chromosome and a position")
        return int(np.argmax(np.where(usable, values, -1.0)))
    place = np.flatnonzero(names == variant)
    if not place.size:
        raise KeyError(f"variant={variant!r}: not in expression.var_names; {hint(str(variant), names)}")
    if not usable[place[0]]:
        raise ValueError(f"variant={variant!r}: has no p-value, or no chromosome and position")
    return int(place[0])


def _gene_place(expression: AnnData, gene: str) -> dict[str, Any]:
    """Chromosome, start, end, strand and transcription start of the gene; None where unknown."""
    from annlmm._slots.pair import gene_table

    table = gene_table(expression[:, [gene]], positions=False)
    known = {name: int(getattr(table, name)[0]) for name in ("start", "end", "tss")}
    place: dict[str, Any] = {name: value if value >= 0 else None for name, value in known.items()}
    chrom = int(table.chrom[0])
    return place | {"chrom": table.chromosomes[chrom] if chrom >= 0 else None, "strand": int(table.strand[0])}


def _placed(
    table: pd.DataFrame,
    genotype: AnnData | None,
    place: dict[str, Any],
    gene: str,
    window: float | None,
    p_value: str,
) -> pd.DataFrame:
    """Pairs to draw: with a p-value above 0, and a position on the gene's chromosome."""
    from annlmm._slots.positions import chromosome_name

    for name in ("chrom", "pos"):
        if name not in table and genotype is not None and name in genotype.var:
            found = genotype.var_names.get_indexer(table["variant"].astype(str))
            column = genotype.var[name].astype(object).to_numpy()[found]
            table = table.assign(**{name: np.where(found >= 0, column, np.nan)})
    if "pos" not in table:
        raise KeyError("pairs: no column 'pos', and genotype.var has none either; a locus needs positions")
    pos, y = to_float(table["pos"].astype(np.float64)), neg_log10(table, p_value)
    if np.isposinf(y).any():
        # A point at infinity would be dropped by matplotlib without a word.
        warnings.warn(
            f"gene={gene!r}: {int(np.isposinf(y).sum())} pairs have p = 0 exactly, which has no place on a log axis; they are not drawn",
            UserWarning,
            stacklevel=4,
        )
    drawn = np.isfinite(pos) & (pos >= 0) & np.isfinite(y)
    if "chrom" in table and place["chrom"] is not None:
        chrom = table["chrom"].astype(object).map(chromosome_name)
        drawn &= (chrom == place["chrom"]).to_numpy()
    if window is not None:
        if place["tss"] is None:
            raise ValueError(f"window={window!r}: expression.var has no start of {gene!r}; leave window=None")
        if not window > 0:
            raise ValueError(f"window={window!r}: must be a positive number of base pairs, or None")
        drawn &= np.abs(pos - place["tss"]) <= window
    if not drawn.any():
        raise ValueError(
            f"gene={gene!r}: none of its {drawn.size} pairs has a p-value and a position "
            + ("on its chromosome" if window is None else f"within {window:,.0f} bp of its start")
        )
    return table.assign(pos=pos)[drawn]
