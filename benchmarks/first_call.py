"""Seconds of `import annlmm` and of the first `al.tl.associate` after it, in fresh processes.

With an empty folder for numba's compiled code (as after the installation) and with the one that the process before has filled.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

CALLS = {
    "dense": "dense X, fixed γ",
    "refit": 'dense X, `variance="refit"`',
    "sparse": "sparse X, donors",
    "low_rank": "sparse X, dense U",
}


def first(kind: str) -> None:
    """Print the seconds of the import, and of the first and the second call."""
    begin = time.perf_counter()
    import annlmm as al

    imported = time.perf_counter() - begin
    al.settings.progress = False
    if kind in ("dense", "refit"):
        adata = al.datasets.gwas_cohort(n_obs=200, n_vars=1000)
        al.pp.kernel_grm(adata)
        al.tl.fit_null(adata, "phenotype")
    else:
        adata = al.datasets.donors(n_donors=20, n_genes=300)
        if kind == "sparse":
            al.pp.kernel_group(adata, "donor_id")
        else:
            adata.obsm["X_pca"] = adata.layers["log_rate"][:, :10]
            al.pp.kernel_linear(adata, "X_pca")
        al.tl.fit_null(adata, "phenotype")
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        al.tl.associate(adata, variance="refit" if kind == "refit" else "null")
        seconds.append(time.perf_counter() - begin)
    print(imported, *seconds)


def measured(kind: str, cache: str, threads: int) -> tuple[float, ...]:
    from _remote import environment

    env = {**environment(threads), "NUMBA_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, __file__, "--first", kind], env=env, check=True, capture_output=True, text=True
    )
    return tuple(map(float, done.stdout.split()))


def main() -> None:
    from _common import Report, Times, parser, start

    arguments = parser(__doc__).parse_args()
    start(arguments)
    report = Report(__file__, arguments)
    report.text(
        "Small data (200 × 1000 dense, about 1000 × 300 sparse): what is left is loading and compiling. Medians over fresh processes, in pairs: "
        "the first with an empty `NUMBA_CACHE_DIR`, the second with what the first wrote. The null model is fitted between import and call."
    )
    report.table(
        "call", "import", "first, nothing compiled", "first, compiled code cached", "second", "files in the cache"
    )
    for kind, label in CALLS.items():
        cold, warm, written = [], [], 0
        for _ in range(arguments.runs):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(measured(kind, cache, arguments.threads))
                written = max(written, sum(len(files) for _, _, files in os.walk(cache)))
                warm.append(measured(kind, cache, arguments.threads))
        imports, first_warm, second = (Times(tuple(column)) for column in zip(*warm, strict=True))
        report.row(label, imports, Times(tuple(c[1] for c in cold)), first_warm, second, written)
    report.end()
    report.write()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--first"]:
        first(sys.argv[2])
    else:
        main()
