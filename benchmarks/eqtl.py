"""`al.tl.map_eqtl`: all pairs over 200,000 cells beside airqtl, windows of 500 donors beside tensorQTL, memory of 1,000,000 cells.

Rivals are installed at the first run (see _install.py) and run in processes of their own, which take turns with ours.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from _common import Report, Times, gigabytes, interleaved, largest, parser, start
from _eqtl_data import COVARIATES, DONOR, FAMILY, WINDOW, bulk, cells, genotypes_of
from _install import CACHE, python_of
from _remote import Remote, environment, peak_of, resident, serve
from anndata import AnnData

import annlmm as al

THRESHOLD = 1e-4
PERMUTATIONS = 1000
PARITY = {"df": "residual", "variance": "null"}


@dataclass(frozen=True)
class Sizes:
    """Cells, genes, donors and variants of the three parts; so many genes are permuted."""

    cells: tuple[int, int, int, int] = (200_000, 500, 100, 1000)
    bulk: tuple[int, int, int] = (500, 2000, 150_000)
    genes_permuted: int = 200
    memory: tuple[int, int, int, int] = (1_000_000, 2000, 100, 10_000)


SMALL = Sizes((4000, 30, 20, 60), (60, 40, 3000), 10, (5000, 40, 20, 300))
# Of the values of all genes; the fewest cells of a gene.
DENSITY, SEEN = 0.07, 0.01


def all_pairs(adata: AnnData, genotype: AnnData, **options: Any) -> None:
    al.tl.map_eqtl(adata, genotype, DONOR, window=None, covariates=COVARIATES, **{"threshold": THRESHOLD} | options)


def windows(expression: AnnData, genotype: AnnData, **options: Any) -> None:
    al.tl.map_eqtl(expression, genotype, window=WINDOW, min_maf=0.0, covariates=COVARIATES, **options)


@contextmanager
def watched() -> Iterator[list[float]]:
    """Seconds of the passes over the cells of the calls within."""
    import annlmm.tl._eqtl_setup as place

    original, seen = place.gene_statistics, []

    def gene_statistics(*args: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        try:
            return original(*args, **options)
        finally:
            seen.append(time.perf_counter() - begin)

    with patch.object(place, "gene_statistics", gene_statistics):
        yield seen


def over_cells(report: Report, arguments: Any, sizes: Sizes) -> None:
    """All pairs beside airqtl."""
    n, m, n_donors, n_vars = sizes.cells
    adata = cells(n, m + m // 2, n_donors, DENSITY)
    seen = np.flatnonzero(adata.X.getnnz(axis=0) > SEEN * n)[:m]  # airqtl stops at a gene without a fit
    adata = adata[:, seen].copy()
    genotype = genotypes_of(adata, n_vars)
    dense = adata.copy()
    dense.X = adata.X.toarray()
    all_pairs(adata, genotype, threshold=1.0, **PARITY)
    ours, genes = al.get.eqtl(adata), al.get.eqtl(adata, level="gene")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        codes = adata.obs[DONOR].cat.codes.to_numpy()
        order = np.argsort(codes, kind="stable")
        given = {
            "y": np.ascontiguousarray(dense.X[order].T, dtype=np.float64),
            "x": np.ascontiguousarray(genotype.X.T, dtype=np.float64),
            "c": np.stack([np.ones(n), *(adata.obs[name].to_numpy()[order] for name in COVARIATES)]),
            "cells": np.bincount(codes),
            "gamma": genes["gamma"].to_numpy(),
        }
        for key, values in given.items():
            np.save(folder / f"{key}.npy", values)
        del given
        worker = [python_of("eqtl", arguments.rivals), Path(__file__).parent / "_airqtl_worker.py", folder, THRESHOLD]
        with Remote(worker, environment(arguments.threads)) as remote:
            report.text(
                f"## All pairs over cells\n\n{n:,} mixed cells × {m:,} genes ({adata.X.nnz / (n * m):.1%} stored), {n_donors} donors, {n_vars:,} variants, {len(COVARIATES)} covariates of the cells. Ours is the whole "
                "call: donors matched, the pass over the cells, the null model of every gene, all tests, the pairs below 1e-4 and λ_GC. "
                f"{remote('versions')['text']}: `association.multi_linear` alone, in float64, on dense cells that are sorted by donor already and with our γ, without "
                'its null fits; its p-values are from χ² (its default) or, with `h0="beta"`, exact given γ as ours; `bsx` variants at a time, by default 128.'
            )
            sides: dict[str, Callable[[], object]] = {
                "CSR, `residual`": lambda: all_pairs(adata, genotype, **PARITY),
                "CSR, default": lambda: all_pairs(adata, genotype),
                "dense, `residual`": lambda: all_pairs(dense, genotype, **PARITY),
                "airqtl": remote.timed("airqtl"),
                f"airqtl, `bsx={n_vars}`": remote.timed("airqtl", block=n_vars),
                'airqtl, `h0="beta"`': remote.timed("airqtl", h0="beta"),
            }
            with watched() as passes:
                times = interleaved(sides, arguments.runs)
            remote("results", file=str(folder / "results.npz"))
        rivals = [side for side in sides if side.startswith("airqtl")]
        report.table("annlmm", "s", "of it the pass", "beside", "s", "times faster")
        own = [side for side in sides if side not in rivals]
        for i, side in enumerate(own):
            passed = Times(tuple(passes[i :: len(own)][1:]))
            for rival in rivals:
                ratio = times[rival].median / times[side].median
                report.row(side, times[side], passed, rival, times[rival], f"{ratio:.1f}")
        report.end()
        agreement_cells(report, ours, genes, genotype, folder / "results.npz")


def agreement_cells(report: Report, ours: pd.DataFrame, genes: pd.DataFrame, genotype: AnnData, file: Path) -> None:
    theirs = np.load(file)
    at = genes.index.get_indexer(ours["gene"]), genotype.var_names.get_indexer(ours["variant"])
    log_p = -ours["neg_log10_p_value"].to_numpy()
    report.text(
        "Agreement at the same γ, over all pairs: largest difference of the estimates in standard errors, and of p-values in log10, with the pair's smallest p-value "
        "beside it for scale. airqtl takes differences of large sums, and its χ² has n for degrees of freedom."
    )
    report.table("rival", "pairs", "β", "log10 p", "smallest p")
    with np.errstate(divide="ignore"):
        for name, key in (("airqtl", "p_chi_sq"), ('airqtl, `h0="beta"`', "p_value")):
            other = np.log10(theirs[key][at])
            both = np.isfinite(other)
            beta = (theirs["beta"][at] - ours["beta"]) / ours["standard_error"]
            report.row(name, int(both.sum()), largest(beta), largest((other - log_p)[both]), f"{10 ** log_p.min():.1e}")
    report.end()


def over_donors(report: Report, arguments: Any, sizes: Sizes) -> None:
    """Windows beside tensorQTL, and permutations."""
    n_donors, m, n_vars = sizes.bulk
    expression, genotype = bulk(n_donors, m, n_vars)
    al.pp.kernel_grm(genotype, mask_var=np.arange(n_vars) % 10 == 0)
    related = {"relatedness": "kernel"}
    # Neighbours, as they are where all genes are permuted: ours share the permuted variants.
    permuted = {"mask_var": np.arange(m) < sizes.genes_permuted, "permutations": PERMUTATIONS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "dosage.npy", np.ascontiguousarray(genotype.X.T))
        np.save(folder / "expression.npy", np.ascontiguousarray(expression.X.T))
        np.save(folder / "covariates.npy", expression.obs[COVARIATES].to_numpy())
        expression.var[["chrom", "start"]].to_csv(folder / "genes.csv")
        genotype.var.to_csv(folder / "variants.csv")
        worker = [python_of("eqtl", arguments.rivals), Path(__file__).parent / "_tensorqtl_worker.py", folder, WINDOW]
        with Remote(worker, environment(arguments.threads)) as remote:
            file = folder / "ours.parquet"
            sides: dict[str, Callable[[], object]] = {
                "least squares, parquet": lambda: windows(expression, genotype, output=file),
                "least squares, in memory": lambda: windows(expression, genotype),
                "with K, parquet": lambda: windows(expression, genotype, output=file, **related),
                'with K, `variance="null"`, parquet': lambda: windows(expression, genotype, output=file, variance="null", **related),
                "tensorQTL": remote.timed("nominal"),
            }  # fmt: skip
            windows(expression, genotype)
            ours = al.get.eqtl(expression)
            report.text(
                f"## Windows over donors\n\n{n_donors} donors (families of {FAMILY}) × {m:,} genes, {n_vars:,} variants as int8, {len(ours) / m:,.0f} in the window of a gene on average, {len(COVARIATES)} covariates. "
                f"{remote('versions')['text']}: `cis.map_nominal`, float32, least squares, all pairs written to parquet. Ours in float64; K is the donors' GRM, its decomposition "
                f'and the null model of every gene are part of the call, and γ is estimated again for pairs with p < {THRESHOLD:g} unless it is `variance="null"`. tensorQTL has no K.'
            )
            times = interleaved(sides, arguments.runs)
            compare(report, times, "tensorQTL")
            sides = {
                "least squares": lambda: windows(expression, genotype, **permuted),
                "with K": lambda: windows(expression, genotype, **permuted, **related),
                "tensorQTL": remote.timed("permutations", number=sizes.genes_permuted, count=PERMUTATIONS),
            }
            report.text(
                f"### Permutations\n\n{PERMUTATIONS} of each of the first {sizes.genes_permuted} genes, float32 on both sides, with the beta approximation. `cis.map_cis` permutes the "
                "donors of the expression and gives the best variant of a gene; ours permutes those of the genotypes (with K the whitened residuals), and gives all pairs too."
            )
            compare(report, interleaved(sides, arguments.runs), "tensorQTL")
            windows(expression, genotype, **permuted)
            remote("results", number=sizes.genes_permuted, count=PERMUTATIONS)
        theirs = pd.read_csv(folder / "pairs.csv").set_index(["phenotype_id", "variant_id"])
        agreement_bulk(report, ours, theirs, al.get.eqtl(expression, level="gene"), pd.read_csv(folder / "genes_p.csv"))


def compare(report: Report, times: dict[str, Times], rival: str) -> None:
    report.table("annlmm", "s", "beside", "s", "times faster")
    for side in times:
        if side != rival:
            report.row(side, times[side], rival, times[rival], f"{times[rival].median / times[side].median:.1f}")
    report.end()


def agreement_bulk(
    report: Report, ours: pd.DataFrame, theirs: pd.DataFrame, genes: pd.DataFrame, permuted: pd.DataFrame
) -> None:
    pairs = pd.MultiIndex.from_arrays([ours["gene"].astype(str), ours["variant"].astype(str)])
    if len(theirs) != len(pairs) or not pairs.isin(theirs.index).all():
        raise RuntimeError(f"{len(pairs)} pairs here, {len(theirs)} there")
    other = theirs.loc[pairs]
    beta = (other["slope"].to_numpy() - ours["beta"]) / ours["standard_error"]
    log_p = -ours["neg_log10_p_value"].to_numpy()
    share = np.log10(other["pval_nominal"].to_numpy()) / log_p - 1
    chance = log_p < -1  # a p-value near 1 has no log to compare
    both = genes["p_beta"].reindex(permuted["phenotype_id"])
    apart = np.abs(np.log10(both.to_numpy()) - np.log10(permuted["pval_beta"].to_numpy()))
    report.text(
        "Agreement, least squares: largest difference of the estimates in standard errors, and of log10 p relative, where p < 0.1; of the gene-level p-values the median and largest difference "
        "in log10, with other permutations on either side."
    )
    report.table("rival", "pairs", "β", "log10 p", "genes", "log10 of p by permutation: median", "largest")
    report.row(
        "tensorQTL", len(pairs), largest(beta), largest(share[chance]), len(both), f"{np.median(apart):.3f}", f"{apart.max():.2f}"
    )  # fmt: skip
    report.end()


CALLS = {"all pairs": {"window": None}, "windows": {"window": WINDOW}}


def answer() -> None:
    """The process whose memory is measured: it makes its own cells."""

    def peak(n: int, m: int, donors: int, n_vars: int) -> dict[str, float]:
        def call(adata: AnnData, genotype: AnnData, options: dict[str, Any]) -> None:
            al.tl.map_eqtl(adata, genotype, DONOR, covariates=COVARIATES, **options)

        tried = cells(400, 20, 10, 0.3)
        for options in CALLS.values():
            call(tried, genotypes_of(tried, 50), options)
        adata = cells(n, m, donors, DENSITY)
        genotype = genotypes_of(adata, n_vars)
        size = sum(part.nbytes for part in (adata.X.data, adata.X.indices, adata.X.indptr))
        made, found = resident("VmHWM"), {}
        for name, options in CALLS.items():
            begin = time.perf_counter()
            found[name] = peak_of(lambda options=options: call(adata, genotype, options))["peak"]
            found[f"{name} seconds"] = time.perf_counter() - begin
            found[f"{name} pairs"] = adata.uns["eqtl"]["params"].get("n_tests", adata.uns["eqtl"]["params"]["n_pairs"])
        return {"x": size, "nnz": adata.X.nnz, "made": made, "loaded": resident(), **found}

    serve({"peak": peak})


def memory(report: Report, arguments: Any, sizes: Sizes) -> None:
    n, m, donors, n_vars = sizes.memory
    command = [sys.executable, __file__, "--serve", "--threads", arguments.threads]
    with Remote(command, environment(arguments.threads)) as remote:
        found = remote("peak", n=n, m=m, donors=donors, n_vars=n_vars)
    report.text(
        f"## {n:,} cells × {m:,} genes\n\nSparse, float32, {found['nnz'] / 1e6:.0f} M stored ({gigabytes(found['x'])}), {donors} donors, {n_vars:,} variants, {len(COVARIATES)} covariates of the cells; one call of "
        "the default in a fresh process that made its cells in blocks of rows. Peak: the most memory that the process held during the call, X and all libraries included; "
        f"{gigabytes(found['loaded'])} are held after it, and making the data took {gigabytes(found['made'])}."
    )
    report.table("call", "pairs", "s", "peak")
    for name in CALLS:
        report.row(name, f"{found[f'{name} pairs']:,}", f"{found[f'{name} seconds']:.1f}", gigabytes(found[name]))
    report.end()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rivals", type=Path, default=CACHE, help=f"folder of their environments (default {CACHE})")
    options.add_argument("--serve", action="store_true", help="internal: answer commands")
    arguments = options.parse_args()
    start(arguments)
    if arguments.serve:
        answer()
        return
    sizes = SMALL if arguments.small else Sizes()
    report = Report(__file__, arguments)
    report.lines[0] = "# eQTL mapping"
    over_cells(report, arguments, sizes)
    over_donors(report, arguments, sizes)
    memory(report, arguments, sizes)
    report.write()


if __name__ == "__main__":
    main()
