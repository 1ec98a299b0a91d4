"""Sparse cells × genes: `al.tl.associate` beside scipy's sparse products, and the memory that it takes.

Whole calls are timed: the γ of the null model, p-values and writing `.var` included. scipy gets whichever of its forms is fastest:
the groups as a CSR matrix of groups × cells, and the other factor in the precision of X (its sums are then in that precision; annlmm's are float64).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
from _common import COMPARISON, Report, gigabytes, interleaved, parser, start
from _data import add_models, annotation, cells, donors
from _remote import Remote, environment, peak_of, resident, serve
from anndata import AnnData
from scipy import sparse

import annlmm as al

DONORS = 100
RANKS = (20, 100)


def product_rows(report: Report, adata: AnnData, models: dict[str, str], label: str, runs: int) -> None:
    x, dtype = adata.X, adata.X.dtype
    codes = adata.obs["donor"].cat.codes.to_numpy()
    n = adata.n_obs
    z = sparse.csr_matrix((np.ones(n, dtype), codes, np.arange(n + 1)), shape=(n, codes.max() + 1))
    groups = z.T.tocsr()
    products = {"`Z.T @ A` (Z.T as CSR)": lambda: groups @ x}
    if dtype != np.float64:
        groups64 = groups.astype(np.float64)
        products["`Z.T @ A` (Z.T as CSR, float64)"] = lambda: groups64 @ x
    sides = {key: lambda k=key: al.tl.associate(adata, k) for key in ("intercept", "covariates")}
    times = interleaved({**sides, **products}, runs)
    for key in sides:
        for name in products:
            report.compare(f"{label}, {models[key]}", times[key], name, times[name])
    for r in RANKS:
        u = np.ascontiguousarray(adata.obsm[f"dense_{r}"])
        factors = {name: u.astype(name) for name in dict.fromkeys([str(dtype), "float64"])}
        products = {f"`A.T @ U` ({name})": lambda v=v: x.T @ v for name, v in factors.items()}
        times = interleaved({"annlmm": lambda k=f"rank_{r}": al.tl.associate(adata, k), **products}, runs)
        for name in products:
            report.compare(f"{label}, {models[f'rank_{r}']}", times["annlmm"], name, times[name])
        del products, factors, u


def memory_rows(report: Report, file: Path, models: dict[str, str], label: str, threads: int) -> None:
    """Each model in a fresh process that holds X and nothing else of its size."""
    for key, name in models.items():
        with Remote([sys.executable, __file__, "--serve", file, "--threads", threads], environment(threads)) as remote:
            found = remote("peak", key=key)
        above = found["peak"] - found["empty"]
        report.row(
            f"{label}, {name}", gigabytes(found["x"]), gigabytes(found["before"]), gigabytes(found["peak"]),
            above / found["x"], f"{(found['peak'] - found['before']) / 1e6:.0f} MB", f"{found['results'] / 1e6:.1f} MB",
        )  # fmt: skip


def answer(file: Path) -> None:
    """The process whose memory is measured."""

    def peak(key: str) -> dict[str, int]:
        # What numba and imports take once must not count as memory of the scan.
        tiny = AnnData(cells(300, 40, 0.2, "float32"), obs=annotation(donors(300, 10, together=False)))
        for name in add_models(tiny, ranks=(3,)):
            al.tl.associate(tiny, name)
        empty = resident()
        adata = ad.read_h5ad(file)
        for name in {f"dense_{r}" for r in RANKS} - {key.replace("rank", "dense")}:
            del adata.obsm[name]
        x = adata.X
        size = x.data.nbytes + x.indices.nbytes + x.indptr.nbytes
        columns = adata.var.columns
        found = peak_of(lambda: al.tl.associate(adata, key))
        results = int(adata.var.drop(columns=columns).memory_usage(index=False).sum())
        return {**found, "empty": empty, "x": size, "results": results}

    serve({"peak": peak})


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--serve", type=Path, help="internal: answer commands about the file")
    arguments = options.parse_args()
    start(arguments)
    if arguments.serve:
        answer(arguments.serve)
        return
    n, m, density = (5000, 300, 0.07) if arguments.small else (200_000, 5000, 0.07)
    report = Report(__file__, arguments)
    report.text(
        f"Simulated log counts of {n} cells × {m} genes, CSR with int32 indices, {density:.0%} of the entries stored on average; {DONORS} donors of unequal sizes, "
        "their cells mixed or together; whole calls of `al.tl.associate` at the γ of the null model."
    )
    report.table(*COMPARISON)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for dtype, together in (("float32", False), ("float32", True), ("float64", False)):
            codes = donors(n, DONORS, together=together)
            adata = AnnData(cells(n, m, density, dtype), obs=annotation(codes))
            models = add_models(adata, RANKS)
            label = f"{dtype}, {adata.X.nnz / 1e6:.1f} M stored, donors {'together' if together else 'mixed'}"
            product_rows(report, adata, models, label, arguments.runs)
            if not together:
                files[label] = Path(folder) / f"{dtype}.h5ad"
                adata.write_h5ad(files[label])
            del adata
        report.end()
        report.text(
            "Memory, each in a fresh process: resident with X loaded, highest during the call (VmHWM, set back before the call), and that peak less the "
            f"process without X, over the size of X (data, indices, indptr). `al.settings.block_memory` is {al.settings.block_memory / 2**20:.0f} MiB."
        )
        report.table("call", "X", "resident before", "peak", "(peak − without X) / X", "peak − before", "results")
        for label, file in files.items():
            memory_rows(report, file, models, label, arguments.threads)
        report.end()
    report.write()


if __name__ == "__main__":
    main()
