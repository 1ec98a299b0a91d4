"""h5ad files that stay on disk: `al.tl.associate` on `ad.read_h5ad(backed="r")` beside a plain read and beside the same in memory.

The floor is the larger of two times: h5py reading the matrix once, in order, in pieces of 64 MiB, into one buffer; and `al.tl.associate` on the
matrix in memory. Each side is a process of its own. "dropped" means that the pages of the file were taken out of the page cache before every call
(posix_fadvise after fsync; what a virtual machine's host holds stays), "warm" that the file had been read before.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from _common import Report, gigabytes, interleaved, parser, start
from _data import add_models, annotation, cells, donors
from _remote import Remote, Seconds, clock, environment, peak_of, serve
from anndata import AnnData

import annlmm as al

PIECE = 2**26
RANK = 20
KEYS = ("intercept", f"rank_{RANK}")


def skeleton(n: int, m: int) -> tuple[AnnData, dict[str, str]]:
    """All but the matrix, with null models."""
    adata = AnnData(
        obs=annotation(donors(n, 100, together=False)), var=pd.DataFrame(index=[f"gene_{j}" for j in range(m)])
    )
    return adata, add_models(adata, (RANK,))


def write_dense(adata: AnnData, file: Path, chunk_rows: int | None) -> None:
    """A float64 matrix, contiguous or in chunks of rows, as anndata writes it; made and written some rows at a time."""
    n, m = adata.shape
    adata.write_h5ad(file)
    rng = np.random.default_rng(5)
    mean, step = rng.gamma(2.0, 1.0, m), max(1, PIECE // (8 * m))
    step = step if chunk_rows is None else max(chunk_rows, step // chunk_rows * chunk_rows)
    with h5py.File(file, "r+") as stored:
        if "X" in stored:
            del stored["X"]
        x = stored.create_dataset("X", (n, m), np.float64, chunks=None if chunk_rows is None else (chunk_rows, m))
        x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for begin in range(0, n, step):
            end = min(begin + step, n)
            x[begin:end] = mean + rng.standard_normal((end - begin, m))
    sync(file)


def sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def drop(file: Path) -> None:
    """Take the file's pages out of the page cache."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def plain_read(file: Path) -> None:
    with h5py.File(file, "r") as stored:
        x = stored["X"]
        for dataset in [x] if isinstance(x, h5py.Dataset) else [x["data"], x["indices"], x["indptr"]]:
            step = max(1, PIECE // (dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))))
            if dataset.chunks:
                step = max(1, step // dataset.chunks[0]) * dataset.chunks[0]
            buffer = np.empty((step, *dataset.shape[1:]), dtype=dataset.dtype)
            for begin in range(0, dataset.shape[0], step):
                size = min(step, dataset.shape[0] - begin)
                dataset.read_direct(buffer, np.s_[begin : begin + size], np.s_[:size])


def answer(mode: str, file: Path) -> None:
    """A process that measures itself: `read`, `backed` or `memory`."""
    if mode == "read":
        serve({"run": lambda: clock(lambda: plain_read(file))})
        return
    tiny = AnnData(np.random.default_rng(0).standard_normal((300, 40)), obs=annotation(donors(300, 10, together=False)))
    for name in add_models(tiny, ranks=(3,)):
        al.tl.associate(tiny, name)
    adata = ad.read_h5ad(file, backed="r" if mode == "backed" else None)

    def run(key: str) -> dict[str, float]:
        begin = time.perf_counter()
        found = peak_of(lambda: al.tl.associate(adata, key))
        return {**found, "seconds": time.perf_counter() - begin}

    def statistics(key: str) -> dict[str, list[float]]:
        return {"beta": adata.var[f"{key}_beta"].tolist(), "se": adata.var[f"{key}_standard_error"].tolist()}

    serve({"run": run, "statistics": statistics})


def measure(report: Report, file: Path, label: str, size: int, models: dict[str, str], threads: int, runs: int) -> None:
    env = environment(threads)
    command = [sys.executable, __file__, "--threads", threads, "--file", file, "--serve"]
    with (
        Remote([*command, "read"], env) as read,
        Remote([*command, "backed"], env) as backed,
        Remote([*command, "memory"], env) as memory,
    ):
        for key in KEYS:
            peaks: list[dict[str, int]] = []

            def on_disk(key: str = key, peaks: list[dict[str, int]] = peaks) -> Seconds:
                peaks.append(backed("run", key=key))
                return Seconds(peaks[-1]["seconds"])

            def dropped(function: Callable[[], Seconds]) -> Callable[[], Seconds]:
                def call() -> Seconds:
                    drop(file)
                    return function()

                return call

            plain, inside = read.timed("run"), memory.timed("run", key=key)
            warm = interleaved({"backed": on_disk, "read": plain, "memory": inside}, runs)
            cold = interleaved({"backed": dropped(on_disk), "read": dropped(plain)}, runs)
            difference = compare(backed("statistics", key=key), memory("statistics", key=key))
            peak, before = max(p["peak"] for p in peaks), peaks[0]["before"]
            for cache, times in (("warm", warm), ("dropped", cold)):
                floor = max(times["read"].median, warm["memory"].median)
                report.row(
                    f"{label}, {gigabytes(size)}", models[key], cache, times["backed"], times["read"], warm["memory"],
                    times["backed"].median / floor, gigabytes(peak), gigabytes(peak - before), difference,
                )  # fmt: skip


def compare(ours: dict[str, list[float]], other: dict[str, list[float]]) -> str:
    """Largest |Δβ|/se over the features; NaN must be in the same places."""
    first, second, se = (np.array(values, dtype=float) for values in (ours["beta"], other["beta"], other["se"]))
    if not (np.isnan(first) == np.isnan(second)).all() or np.isnan(first).all():
        raise RuntimeError("the scan on disk and the one in memory disagree about which features can be tested")
    return f"{np.nanmax(np.abs(first - second) / se):.0e}"


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--folder", type=Path, help="where the file is written (default: the system's temporary folder)"
    )
    options.add_argument("--serve", choices=("read", "backed", "memory"), help="internal")
    options.add_argument("--file", type=Path, help="internal")
    arguments = options.parse_args()
    start(arguments)
    if arguments.serve:
        answer(arguments.serve, arguments.file)
        return
    n, m = (5000, 300) if arguments.small else (200_000, 4000)
    where = arguments.folder or Path(tempfile.gettempdir())
    needed, free = int(1.2 * 8 * n * m), shutil.disk_usage(where).free
    if free < needed:
        raise SystemExit(f"{where} has {gigabytes(free)} free, {gigabytes(needed)} are needed; pass --folder")
    report = Report(__file__, arguments, *(f"{module.__name__} {module.__version__}" for module in (h5py,)))
    adata, models = skeleton(n, m)
    chunk = 256
    report.text(
        f"Matrices of {n} × {m}: float64 dense, contiguous or in chunks of {chunk} rows, and float32 CSR with 7 % of the entries, none compressed. The floor is "
        f"max(plain read, in memory). Peak: highest resident memory of the process in any of the calls; `al.settings.block_memory` is "
        f"{al.settings.block_memory / 2**20:.0f} MiB. Δβ: largest difference to the result in memory, in standard errors."
    )
    report.table(
        "file", "model", "page cache", "backed, s", "plain read, s", "in memory, s", "backed / floor", "peak", "peak − before", "Δβ"
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=where) as folder:
        file = Path(folder) / "x.h5ad"
        for label, rows in (("dense, contiguous", None), (f"dense, chunks of {chunk} rows", chunk)):
            write_dense(adata, file, rows)
            measure(report, file, label, 8 * n * m, models, arguments.threads, arguments.runs)
            file.unlink()
        adata.X = cells(n, m, 0.07, "float32")
        adata.write_h5ad(file)
        sync(file)
        size = adata.X.data.nbytes + adata.X.indices.nbytes
        adata.X = None
        measure(report, file, "CSR", size, models, arguments.threads, arguments.runs)
    report.end()
    report.write()


if __name__ == "__main__":
    main()
