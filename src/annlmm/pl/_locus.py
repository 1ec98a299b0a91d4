"""P-values along a locus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from annlmm._slots.access import hint

from ._linkage import linkage_of_all, linkage_of_matched
from ._locus_draw import BINS, draw_gene, draw_points, label_axes, label_variants
from ._locus_read import read_gene_locus, read_scan_locus
from ._manhattan import _line
from ._pairs import find_gene, stored_argument
from ._style import (
    THRESHOLD,
    get_axes,
    label_level,
    open_frame,
    p_text,
    palette_colors,
    plain,
    point_size,
    whole_ticks,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ._locus_read import Locus


def locus(
    expression: AnnData,
    genotype: AnnData | None = None,
    gene: str | None = None,
    *,
    variant: str | None = None,
    region: str | None = None,
    key: str | None = None,
    phenotype: str | None = None,
    context: str | None = None,
    gene_symbols: str | None = None,
    pairs: pd.DataFrame | None = None,
    p_value: str = "p_value",
    window: float | None = None,
    threshold: float | Literal["auto"] | None = "auto",
    labels: str | Sequence[str] = (),
    donor_key: str | None = None,
    genotype_layer: str | None = None,
    palette: str | Sequence[str] | None = None,
    size: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""
    Draw −log₁₀ p of the variants of a locus, coloured by their linkage disequilibrium with the strongest.

    The locus is that of a gene, with the results of :func:`annlmm.tl.map_eqtl`; or, without a gene, a part of a scan by
    :func:`annlmm.tl.associate`: a region, the surroundings of a variant, or those of the strongest of all.

    Parameters
    ----------
    expression
        After :func:`annlmm.tl.map_eqtl`; `.var` has chrom, start, end and strand. Without a gene: observations × variants
        after :func:`annlmm.tl.associate`; `.var` has chrom and pos.
    genotype
        Donors × variants, for r²: the squared correlation of dosages over the donors that are in both and have both calls.
        None: no colours. Without a gene: a reference panel with the same names of variants; None: `expression` itself.
    gene
        Name of the gene, or its symbol where `gene_symbols` is given. None: results of a scan.
    variant
        The variant that is labelled and that r² refers to; None: the one with the smallest p-value.
    region
        Part of the genome to draw of a scan, "chromosome:start-end" in base pairs. None: the surroundings of `variant`.
    key
        Key of the results; None: "eqtl" for a gene, "lmm" for a scan.
    phenotype
        Which phenotype of a scan, where `key` holds several.
    context
        Which context of a gene's results, where there are several.
    gene_symbols
        Column of `expression.var` with symbols, by which the gene may be named and is shown.
    pairs
        Table of pairs to use instead. None: those of the results, in `.uns` or in the file that they were written to.
    p_value
        Column of the table of pairs with the p-values, where it has several.
    window
        Draw variants up to so many base pairs from the start of the gene, None: all of its pairs on its chromosome; or from
        the variant of a scan, None: 500,000.
    threshold
        p-value of the line. "auto": 0.05 divided by the number of variants tested for the gene, or in the scan (at most
        one million). None: no line.
    labels
        Names of other variants to label, of those that are drawn.
    donor_key, genotype_layer
        Column of donors, and layer of genotypes; None: those that the results were made with.
    palette
        Colours of r² in five classes, low to high, or the name of a colormap.
    size
        Area of a marker in points²; None: by the number of variants.
    ax
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    The axes. A gene lies at the top, its start is the dashed line; the arrow shows its strand.

    Raises
    ------
    KeyError
        If the gene, a variant, the results, a context, a phenotype or a column do not exist.
    ValueError
        If there is nothing to draw, several contexts, phenotypes or genes are meant and none is named, too few donors are
        in both, an argument does not go with a gene (or with a scan), or a p-value is outside (0, 1].

    Examples
    --------
    >>> import annlmm as al, matplotlib.pyplot as plt, numpy as np, pandas as pd
    >>> cells, genotype = al.datasets.sc_eqtl(30, 5, 12, n_vars=200, n_eqtl=4, n_secondary=0, n_interaction=0)
    >>> near = genotype.var[genotype.var["chrom"] == "1"]
    >>> p = np.random.default_rng(0).uniform(size=len(near))
    >>> pairs = pd.DataFrame({"gene": "gene_01", "variant": near.index, "pos": near["pos"], "p_value": p})
    >>> ax = al.pl.locus(cells, genotype, "gene_01", pairs=pairs, donor_key="donor_id")
    >>> ax.get_xlabel()
    'Chromosome 1 (kb)'
    >>> plt.close(ax.figure)

    A part of a scan:

    >>> adata = al.datasets.gwas_cohort(100, 200)
    >>> al.tl.fit_null(adata, "phenotype", kernel=None)
    >>> al.tl.associate(adata)
    >>> ax = al.pl.locus(adata, region="1:1-5,000,000")
    >>> ax.get_xlabel()
    'Chromosome 1 (Mb)'
    >>> plt.close(ax.figure)
    """
    others = {"context": context, "gene_symbols": gene_symbols, "pairs": pairs, "donor_key": donor_key}
    if gene is None:
        _refuse(others | {"p_value": None if p_value == "p_value" else p_value}, "a scan; name a gene, or leave it out")
        found = read_scan_locus(expression, key=key, phenotype=phenotype, variant=variant, region=region, window=window)
        shown, most = "", 1_000_000
    else:
        _refuse({"region": region, "phenotype": phenotype}, "a gene; leave gene=None for a scan, or leave it out")
        gene, shown = find_gene(expression, gene, gene_symbols)
        key = "eqtl" if key is None else key
        found = read_gene_locus(
            expression, genotype, gene, key=key, pairs=pairs, p_value=p_value, context=context, window=window
        )
        most = found.n_tested
    line = _line(threshold, "threshold", 0.05 / max(min(found.n_tested, most), 1))
    lead = _lead(found, variant, gene or str(region or variant))
    also = _also(found, labels, lead)
    if gene is None:
        r_sq = _linkage_of_scan(expression, genotype, key or "lmm", genotype_layer, found, lead)
    else:
        r_sq = _linkage_of_gene(expression, genotype, str(key), donor_key, genotype_layer, found, lead)
    colors = palette_colors(palette, BINS, "palette", 5)
    if len(colors) < 5 and r_sq is not None:
        raise ValueError(
            f"palette: received {len(colors)} colours for five classes of r²; pass five, or a colormap's name"
        )

    from ._labels import fit

    ax = get_axes(ax, (7.0, 3.8))
    parts = fit(ax)
    area = point_size(found.y.size) if size is None else size
    draw_points(ax, found.x, found.y, r_sq, colors, area, lead)
    ax.set_ylim(0.0, (1.3 if gene is not None else 1.2) * max(float(found.y.max()), line or 0.0, 1.0))
    if gene is not None:
        parts += draw_gene(ax, found.place, shown, found.x)
    if found.limits is not None:
        ax.set_xlim(*found.limits)
    if found.title is not None:
        ax.set_title(plain(found.title))
    if line is not None:
        ax.axhline(line, color=THRESHOLD, linewidth=0.8, zorder=1.5)
        label_level(ax, line, f"p = {p_text(line)}", THRESHOLD)
    label_variants(ax, found.x, found.y, found.names, [lead, *also], found.place["tss"], area)
    parts += label_axes(ax, found.place["chrom"], found.p_label)
    open_frame(ax)
    whole_ticks(ax.xaxis)
    whole_ticks(ax.yaxis)
    return ax


def _refuse(arguments: Mapping[str, Any], why: str) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name}: does not go with {why}")


def _lead(found: Locus, variant: str | None, where: str) -> int:
    if variant is None:
        return int(np.argmax(found.y))
    place = np.flatnonzero(found.names == variant)
    if not place.size:
        raise KeyError(
            f"variant {variant!r} is not among the {found.names.size} drawn for {where!r}; {hint(str(variant), found.names)}"
        )
    return int(place[0])


def _also(found: Locus, labels: str | Sequence[str], lead: int) -> list[int]:
    """Variants to label beside the lead; one that exists and isn't drawn is none."""
    labels = [labels] if isinstance(labels, str) else list(labels)
    known = set(found.known.tolist())
    for label in labels:
        if label not in known:
            raise KeyError(f"labels: {label!r} is no variant of this locus; {hint(str(label), found.names)}")
    chosen = np.flatnonzero(np.isin(found.names, np.array(labels, dtype=object)))
    return [int(j) for j in chosen if j != lead]


def _linkage_of_gene(
    expression: AnnData,
    genotype: AnnData | None,
    key: str,
    donor_key: str | None,
    layer: str | None,
    found: Locus,
    lead: int,
) -> NDArray[np.float64] | None:
    if genotype is None:
        return None
    donor_key = stored_argument(expression, key, "donor_key", donor_key)
    layer = stored_argument(expression, key, "genotype_layer", layer)
    return linkage_of_matched(expression, genotype, donor_key, layer, found.names, lead)


def _linkage_of_scan(
    adata: AnnData, panel: AnnData | None, key: str, layer: str | None, found: Locus, lead: int
) -> NDArray[np.float64] | None:
    if panel is not None:
        return linkage_of_all(panel, layer, found.names, lead, coded=True)
    layer = stored_argument(adata, key, "layer", layer, "association")
    if layer is None and adata.X is None:
        return None
    return linkage_of_all(adata, layer, found.names, lead, coded=False)
