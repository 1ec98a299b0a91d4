"""Calibration and power of `al.tl.map_eqtl`: degrees of freedom, permutations, cells beside pseudobulk, genotype × context.

Tables and a figure in benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _eqtl_interaction as interaction
import _eqtl_permutation as permutation
import _eqtl_power as power
import _eqtl_related as related
import _eqtl_size as size
import numpy as np
from _common import start
from _eqtl_figure import draw
from _page import Page, parser


def said(text: str) -> None:
    """What is done, and the processor's seconds until then."""
    print(f"{text}: {time.process_time():.0f} s", file=sys.stderr)


def false_positives(report: Page, small: bool) -> dict[tuple[int, float], size.Tally]:
    number, genes = (1, 30) if small else (size.DATA_SETS, size.GENES)
    report.text(
        f"## Degrees of freedom\n\nNull genes × {size.VARIANTS} independent variants with a frequency of 0.1 to 0.5, all pairs; {number} data sets of {genes} genes, each with donors of new sizes (lognormal, 10 to 300 cells, "
        "median 55). Gaussian genes of one ICC, or log-normalised counts (`al.datasets.sc_eqtl` without eQTLs, about 50 cells per donor, ICC 0.2 on average; variants there are in linkage disequilibrium). "
        "*Residual df* is n − p − 1 over cells, at the null's γ (what airqtl computes) or with γ estimated again for every pair. *Pseudobulk* is least squares on the donors' means, *cells, least squares* "
        "takes cells for independent. The default estimates γ again below 1e-4 at the null's γ: there a pair has to be below the level twice. The standard error is that between genes, since the pairs of a gene share its γ̂, and no less than the binomial one."
    )
    found, rows = {}, {}
    for n_donors in size.DONORS:
        for icc in size.ICCS:
            rows[f"{n_donors}, {icc:g}"] = found[n_donors, icc] = size.tally(size.null_cells(n_donors, icc, number, genes))  # fmt: skip
            said(f"size, {n_donors} donors, ICC {icc:g}")
        counts = size.null_counts(n_donors, 1, genes)
        rows[f"{n_donors}, counts"] = size.tally(counts, ["age", "sex", "batch"])
        said(f"size, {n_donors} donors, counts")
    size.tables(report, rows, what="donors, ICC")
    number, genes = (1, 30) if small else (related.DATA_SETS, related.GENES)
    report.text(
        f"### Pseudobulk of related donors\n\nFamilies of {related.FAMILY}, h² = {related.H_SQ} of their GRM, {number} data sets of {genes} genes × {related.VARIANTS} variants in linkage disequilibrium; Gaussian. "
        "The GRM as K, with the degrees of freedom of cells or, by `variance`, n − p − 1 as in `al.tl.associate`; and least squares, which knows of no relatives."
    )
    rows = {str(n_donors): related.tally(n_donors, number, genes) for n_donors in related.DONORS}
    size.tables(report, rows, tuple(related.OPTIONS), what="donors")
    said("size, related donors")
    return found


def permutations(report: Page, small: bool) -> dict[str, np.ndarray]:
    number, genes = (1, 30) if small else (permutation.DATA_SETS, permutation.GENES)
    report.text(
        f"## Permutations\n\n{permutation.N_DONORS} donors, {number} data sets of {genes} null genes, Gaussian with an ICC of {permutation.ICC}, cells per donor as above (pseudobulk: their means), windows of some 400 variants in linkage disequilibrium; the gene-level p-value (`p_beta`) of "
        f"{permutation.PERMUTATIONS} permutations. Effects of the donors are independent, or in families of {related.FAMILY} follow their GRM, which is then K. Shares of p-values below a level over the level "
        f"(standard error {np.sqrt(0.99 / 0.01 / (number * genes)):.2f} at 0.01, {np.sqrt(0.95 / 0.05 / (number * genes)):.2f} at 0.05, {np.sqrt(0.9 / 0.1 / (number * genes)):.2f} at 0.1, {np.sqrt(1 / (number * genes)):.2f} at 0.5), and of the combination of the gene's p-values (ACAT), which is meant for small levels."
    )
    found = permutation.gene_level(report, genes, number)
    report.text(
        f"ACAT over windows of {permutation.WINDOW_VARIANTS} such variants and more null genes, least squares: shares over the level. Its Cauchy tail is exact in the limit of small p, whatever the dependence; at these levels the dependence of neighbours still shows."
    )
    permutation.combined(report, 2 if small else 80)
    said("permutations")
    return found


def powers(report: Page, small: bool) -> dict[tuple[int, int | str], power.Found]:
    number, genes = (1, 40) if small else (power.DATA_SETS, power.GENES)
    report.text(
        f"## Cells or pseudobulk\n\n`al.datasets.sc_eqtl`: {number} data sets of {genes} genes, {power.EQTLS * genes // power.GENES} with an eQTL of 0.2 to 0.5 natural logs per allele; log-normalised counts, cells with a donor intercept, pseudobulk their unweighted means by least squares, of all donors or of those with five cells or more (the default of `al.pp.pseudobulk`), all with "
        f"{', '.join(power.COVARIATES)}. Cells per donor vary with a coefficient of variation of 0.5 around the number given, or (*{power.UNEVEN}*) are lognormal with median 20 and standard deviation 1.5 of the log. Power: genes with an eQTL whose q (Storey's, of ACAT) is at most {power.FDR}, and the difference to the better pseudobulk over the "
        f"same genes; FDR: the others among those called, mean over data sets; *best variant*: of the eQTLs found, how often it has r² ≥ {power.LINKED} with the causal one."
    )
    found = {}
    for n_donors, which in power.SETTINGS:
        found[n_donors, which] = power.simulated(n_donors, which, number, genes)
        said(f"power, {n_donors} donors, {which} cells")
    power.table(report, found)
    verdict(report, found)
    return found


def verdict(report: Page, found: dict[tuple[int, int | str], power.Found]) -> None:
    """What the table says, from its numbers."""
    alike, better, worse = [], [], []
    for (n_donors, which), own in found.items():
        apart, error = own.difference(power.CELLS, own.better())
        rows = better if apart > 2 * error else worse if apart < -2 * error else alike
        rows.append(f"{n_donors} × {which} ({apart:+.3f})")
    parts = [
        f"{text}: {', '.join(rows)}"
        for text, rows in (
            ("Pseudobulk is as good, to two standard errors, with", alike),
            ("Cells find more with", better),
            ("Pseudobulk finds more with", worse),
        )
        if rows
    ]
    report.text("Donors × cells per donor (difference of the powers). " + ". ".join(parts) + ".")


def interactions(report: Page, small: bool) -> dict[tuple[int, float], size.Tally]:
    number, genes = (1, 30) if small else (interaction.DATA_SETS, interaction.GENES)
    report.text(
        f"## Genotype × context\n\nNo interaction: Gaussian genes (ICC {interaction.ICC}) of {number} data sets of {genes} genes × {interaction.VARIANTS} variants, donors of sizes as above; a context of the cells with a tenth of its variance between donors. The donors' slopes on it "
        "add the given multiple of τ² to the variance of a gene. Sizes of the interaction's p-value over their nominal value, by `donor_slopes`."
    )
    found = {}
    for n_donors in interaction.DONORS:
        for slope in interaction.SLOPES:
            found[n_donors, slope] = interaction.tally(interaction.null_slopes(n_donors, slope, number, genes))
            said(f"interaction, {n_donors} donors, slope {slope:g}")
    rows = {f"{n_donors}, {slope:g}": tally for (n_donors, slope), tally in found.items()}
    size.tables(
        report, rows, tuple(interaction.OPTIONS), levels=interaction.LEVELS, what="donors, slope variance over τ²"
    )
    number, genes = (1, 40) if small else (interaction.POWER_DATA_SETS, interaction.POWER_GENES)
    report.text(
        f"Interactions of `al.datasets.sc_eqtl` with pseudotime (0.6 to 1.2 natural logs per allele from its beginning to its end), 50 cells per donor, {number} data sets of {genes} genes; a gene is called where the q of its interaction is at most {power.FDR}. "
        "A false discovery rate above that is no gain of power."
    )
    powers = {}
    for n_donors, slope in interaction.POWER:
        powers[n_donors, slope] = interaction.simulated(n_donors, slope, number, genes)
        said(f"interaction, power, slope {slope:g}")
    interaction.power(report, powers)
    return found


def main() -> None:
    arguments: argparse.Namespace = parser(__doc__).parse_args()
    start(arguments)
    report = Page(
        __file__, "Calibration and power of eQTL mapping", arguments, "eqtl_validity"
    )  # eqtl.md has the timings
    report.text(
        "![Size, permutations, power, interactions](eqtl_validity.png)\n\nSizes are given over their nominal value; bold: above by more than three standard errors, italic: below."
    )
    found = [part(report, arguments.small) for part in (false_positives, permutations, powers, interactions)]
    if not arguments.small or arguments.output is not None:
        draw(*found, report.folder / f"{report.name}.png")
    report.write()
    said("all")


if __name__ == "__main__":
    main()
