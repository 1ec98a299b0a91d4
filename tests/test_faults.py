"""What goes wrong around the package: interrupts, full disks, damaged files, too little memory, no cache, forks.

Interrupts of every array type are in `test_array_types`, dying workers in `test_distributed`.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from bad_input_cases import prepared
from helpers import cohort, untouched
from threadpoolctl import threadpool_info

import annlmm as al


@pytest.fixture(scope="module")
def originals() -> tuple[ad.AnnData, ad.AnnData]:
    al.settings.progress = False
    return prepared()


@pytest.fixture
def pair(originals) -> tuple[ad.AnnData, ad.AnnData]:
    expression, genotype = originals
    return expression.copy(), genotype.copy()


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("annlmm")]


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


# ------------------------------------------------------------------------------------------- interrupts

# What each function calls on the way, and the call; `a` is expression, `g` genotype, `p` a folder.
LONG = {
    "kernel_grm": ("annlmm.pp._store.dense_slots", lambda a, g, p: al.pp.kernel_grm(g)),
    "kernel_linear": ("annlmm.pp._store.dense_slots", lambda a, g, p: al.pp.kernel_linear(a, "X_pca")),
    "kernel_rbf": ("annlmm.pp._store.dense_slots", lambda a, g, p: al.pp.kernel_rbf(a, "X_pca", length_scale=[1, 2])),
    "kernel_graph": ("annlmm.pp._store.dense_slots", lambda a, g, p: al.pp.kernel_graph(a, "ring")),
    "kernel_precomputed": ("annlmm.pp._store.dense_slots", lambda a, g, p: al.pp.kernel_precomputed(a, np.eye(40))),
    "kernel_group": ("annlmm.pp._kernel_group.group_slots", lambda a, g, p: al.pp.kernel_group(a, "donor")),
    "pseudobulk": ("annlmm.pp._pseudobulk.fetch", lambda a, g, p: al.pp.pseudobulk(a, "donor")),
    "inverse_normal": ("annlmm.pp._inverse_normal.normal_quantiles", lambda a, g, p: al.pp.inverse_normal(a)),
    "fit_null": ("annlmm._slots.fit.beta_table", lambda a, g, p: al.tl.fit_null(a, ["y", "y2"])),
    "associate": ("annlmm.tl._pass.fetch", lambda a, g, p: al.tl.associate(a)),
    "associate, refit": ("annlmm.tl._pass.fetch", lambda a, g, p: al.tl.associate(a, variance="refit")),
    "variance_components": ("annlmm.tl._pass.fetch", lambda a, g, p: al.tl.variance_components(a)),
    "differential": ("annlmm.tl._pass.fetch", lambda a, g, p: al.tl.differential(a, "sex")),
    "differential, tests": ("annlmm._slots.gene_results.names_of", lambda a, g, p: al.tl.differential(a, "sex")),
    "map_eqtl": ("annlmm.tl._eqtl_genotype.fetch", lambda a, g, p: al.tl.map_eqtl(a, g, "donor")),
    "map_eqtl, in a thread": ("annlmm.tl._eqtl_genotype.read_calls", lambda a, g, p: al.tl.map_eqtl(a, g, "donor")),
    "map_eqtl, a file": (
        "annlmm.tl._map_eqtl.gene_frame",
        lambda a, g, p: al.tl.map_eqtl(a, g, "donor", output=p / "pairs.parquet"),
    ),
    "map_eqtl, all pairs": (
        "annlmm.tl._eqtl_run.numbered",
        lambda a, g, p: al.tl.map_eqtl(a, g, "donor", window=None, threshold=1.0),
    ),
    "map_eqtl, signals": (
        "annlmm.tl._eqtl_run.independent_signals",
        lambda a, g, p: al.tl.map_eqtl(a, g, "donor", conditional=True, fdr=1.0),
    ),
    "map_eqtl, contexts": (
        "annlmm.tl._eqtl_interaction.interaction_gene_frame",
        lambda a, g, p: al.tl.map_eqtl(a, g, "donor", interaction="age", output=p / "pairs.parquet"),
    ),
    "map_eqtl, contexts in a thread": (
        "annlmm.tl._eqtl_interaction.InteractionMapper.test",
        lambda a, g, p: al.tl.map_eqtl(a, g, "donor", interaction="age"),
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_an_interrupt_leaves_nothing_behind(pair, tmp_path, monkeypatch, name):
    place, call = LONG[name]
    blas, reached = blas_threads(), []

    def interrupted(*arguments, **options):
        reached.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted)
    monkeypatch.setattr(al.settings, "threads", 2)
    with untouched(pair[0]), untouched(pair[1]), pytest.raises(KeyboardInterrupt):
        call(*pair, tmp_path)
    assert reached, "the call went another way"
    assert list(tmp_path.iterdir()) == []
    assert our_threads() == []
    assert blas_threads() == blas


@pytest.mark.parametrize(
    ("column", "call"),
    [
        ("lmm_p_value", lambda a: al.tl.associate(a, test="lrt")),
        ("lmm_residual", lambda a: al.tl.fit_null(a, "y3")),
        ("de_status", lambda a: al.tl.differential(a, "level")),
        ("varcomp_h_sq", lambda a: al.tl.variance_components(a)),
    ],
)
def test_an_interrupt_between_two_columns_leaves_the_result_that_was_there(pair, monkeypatch, column, call):
    real = pd.DataFrame.__setitem__

    def interrupted(frame, key, value):
        if isinstance(key, str) and key == column:
            raise KeyboardInterrupt
        real(frame, key, value)

    monkeypatch.setattr(pd.DataFrame, "__setitem__", interrupted)
    with untouched(pair[0]), pytest.raises(KeyboardInterrupt):
        call(pair[0])


def test_an_interrupt_of_a_write_leaves_a_field_that_is_new_or_goes(pair, monkeypatch):
    """Several phenotypes after one: columns of `.obs` go, arrays of `.obsm` come."""
    a = pair[0]
    real = pd.DataFrame.__delitem__

    def interrupted(frame, key):
        if key == "lmm_phenotype":
            raise KeyboardInterrupt
        real(frame, key)

    monkeypatch.setattr(pd.DataFrame, "__delitem__", interrupted)
    with untouched(a), pytest.raises(KeyboardInterrupt):
        al.tl.fit_null(a, ["y", "y2"])


# ------------------------------------------------------------------------------------------- files that cannot be written


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("when", ["open", "write", "close"])
@pytest.mark.parametrize("options", [{}, {"interaction": "age"}, {"window": None, "threshold": 1.0}])
def test_a_full_disk(pair, tmp_path, monkeypatch, when, options):
    import pyarrow.parquet as pq

    path = tmp_path / "pairs.parquet"
    path.write_bytes(b"of an earlier run")
    if when == "open":
        monkeypatch.setattr(Path, "touch", full)
    else:
        monkeypatch.setattr(pq.ParquetWriter, "write_table" if when == "write" else "close", full)
        monkeypatch.setattr(pq.ParquetWriter, "close", full)  # it writes the footer, in `abort` too
        monkeypatch.setattr(pq.ParquetWriter, "__del__", lambda self: self.is_open and pytest.fail("tries again"))
    with (
        untouched(pair[0]),
        pytest.raises(OSError, match=r"output: '.*pairs\.parquet' cannot be written \(No space left"),
    ):
        al.tl.map_eqtl(*pair, "donor", output=path, **options)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(path.name, b"of an earlier run")]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that nobody can write to")
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_computed(pair, monkeypatch):
    monkeypatch.setattr("annlmm.tl._map_eqtl.set_up", None)
    with untouched(pair[0]), pytest.raises(OSError, match=r"output: '/proc/pairs\.parquet' cannot be written"):
        al.tl.map_eqtl(*pair, "donor", output="/proc/pairs.parquet")


# ------------------------------------------------------------------------------------------- files that are damaged


@pytest.fixture
def mapped(pair, tmp_path):
    al.tl.map_eqtl(*pair, "donor", output=tmp_path / "pairs.parquet")
    return pair[0], tmp_path / "pairs.parquet"


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "middle", "footer"])
def test_damaged_pairs(mapped, damage):
    a, path = mapped
    whole = bytearray(path.read_bytes())
    if damage == "middle":
        whole[4:400] = os.urandom(396)
    if damage == "footer":
        whole[-60:-8] = b"\xff" * 52
    path.write_bytes(
        {"truncated": bytes(whole[: len(whole) // 2]), "empty": b"", "text": b"gene,variant\n"}.get(
            damage, bytes(whole)
        )
    )
    message = (
        r"path: '.*pairs\.parquet' is no parquet file of al\.tl\.map_eqtl, or a damaged one .*; copy it again, or run"
    )
    with untouched(a), pytest.raises(ValueError, match=message):
        al.get.eqtl(a)


def test_pairs_of_another_program(mapped):
    a, path = mapped
    pd.DataFrame({"gene": ["v1"], "slope": [1.0]}).to_parquet(path)
    with pytest.raises(
        ValueError, match=r"has no column 'p_value', 'variant'; name the file that al\.tl\.map_eqtl wrote"
    ):
        al.get.eqtl(a)
    pd.DataFrame({"gene": [1], "variant": [2], "p_value": ["small"]}).to_parquet(path)
    with pytest.raises(ValueError, match="is no parquet file of al.tl.map_eqtl"):
        al.get.eqtl(a, max_p_value=0.5)


def test_pairs_that_are_gone(mapped):
    a, path = mapped
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"which is not there; pass path= if the file has moved"):
        al.get.eqtl(a)


@pytest.mark.parametrize("call", [al.tl.associate, al.tl.variance_components, lambda a: al.tl.differential(a, "sex")])
def test_a_backed_file_with_a_damaged_chunk(tmp_path, call):
    """What h5py says reaches the user; what was computed before that is not written."""
    adata = cohort(400, 60)
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, "y", gamma=1.0)
    path = tmp_path / "backed.h5ad"
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        x = file.create_dataset("X", data=adata.X, chunks=(100, 20), compression="gzip")
        x.attrs["encoding-type"], x.attrs["encoding-version"] = "array", "0.2.0"
        chunk = x.id.get_chunk_info(9)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    backed = ad.read_h5ad(path, backed="r")
    before = set(backed.var), set(backed.uns)
    with pytest.raises(OSError, match="(?i)filter|read"):
        call(backed)
    assert (set(backed.var), set(backed.uns)) == before
    assert our_threads() == []
    backed.file.close()


def test_a_text_file_that_was_cut_off(tmp_path):
    path = tmp_path / "geno.txt.gz"
    path.write_bytes(gzip.compress(b"rs1 A G 0 1 2\n" * 5000)[:-20])
    with pytest.raises(ValueError, match=r"`genotypes`: geno\.txt\.gz is a damaged gzip file .* Copy it again"):
        al.io.read_bimbam(path)
    path = tmp_path / "geno.txt"
    path.write_bytes(b"rs1 A G 0 1 2\nrs2 A G 0 1")
    with pytest.raises(ValueError, match=r"line 2 of geno\.txt \(rs2\) has 2 dosages, the lines before have 3"):
        al.io.read_bimbam(path)


# ------------------------------------------------------------------------------------------- memory


MEMORY = {
    "kernel_grm": (lambda a, g: al.pp.kernel_grm(a, min_maf=0), "rank="),
    "kernel_graph": (lambda a, g: al.pp.kernel_graph(a, "ring"), "rank="),
    "kernel_rbf": (lambda a, g: al.pp.kernel_rbf(a, "X_pca", length_scale=1e-3), "rank="),
    "inverse_normal": (lambda a, g: al.pp.inverse_normal(a), "fewer features at a time"),
    "pseudobulk": (lambda a, g: al.pp.pseudobulk(a, "donor"), "fewer genes at a time"),
    "get.kernel": (lambda a, g: al.get.kernel(a), "subset adata first"),
    "map_eqtl": (lambda a, g: al.tl.map_eqtl(a, g, "donor"), "output='pairs.parquet'"),
}


@pytest.mark.parametrize("name", MEMORY)
def test_what_would_not_fit_is_refused_with_a_remedy(pair, monkeypatch, name):
    call, remedy = MEMORY[name]
    monkeypatch.setattr(al.settings, "kernel_memory", 500)
    with untouched(pair[0]), pytest.raises(MemoryError, match=rf"more than al\.settings\.kernel_memory .*{remedy}"):
        call(*pair)


@pytest.mark.parametrize("call", [al.tl.variance_components, lambda a: al.tl.differential(a, "sex")])
def test_block_memory_bounds_what_genes_take(monkeypatch, call):
    n, m, memory = 4000, 600, 3_000_000
    adata = cohort(n, 2)
    whole = ad.AnnData(np.random.default_rng(0).normal(size=(n, m)), obs=adata.obs)
    whole.obs["donor"] = pd.Categorical([f"d{i % 20}" for i in range(n)])
    al.pp.kernel_group(whole, "donor")
    call(whole)  # compiles
    monkeypatch.setattr(al.settings, "block_memory", memory)
    monkeypatch.setattr(al.settings, "threads", 2)
    tracemalloc.start()
    call(whole)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The bound of the scans (`test_array_types`), 20 coordinates per gene, and grids of some 200 γ for 600 genes in the fit.
    assert peak <= 1.5 * memory + 60 * 8 * (n + m) + 8 * 600 * 200 * 4, f"{peak / 1e6:.1f} MB"
    assert peak < whole.X.nbytes


# ------------------------------------------------------------------------------------------- other processes

RUN = """
import json, os, sys, warnings
import numba.core.caching as caching
if "no cache" in sys.argv:
    caching.CacheImpl._locator_classes = []
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import annlmm as al, numpy as np
    from annlmm.model import responses_newton
told = sum("NUMBA_CACHE_DIR" in str(w.message) for w in caught)
al.settings.progress = False

def work(seed):
    rng = np.random.default_rng(seed)
    import anndata as ad, pandas as pd
    adata = ad.AnnData(rng.normal(size=(60, 40)), obs=pd.DataFrame({"donor": [f"d{i % 6}" for i in range(60)]}, index=map(str, range(60))))
    al.pp.kernel_group(adata, "donor")
    al.tl.variance_components(adata)
    return [float(v) for v in adata.var["varcomp_h_sq"]]

if __name__ == "__main__":
    if "no cache" in sys.argv:
        from annlmm.model.compiled import njit
        print(json.dumps({"told": told, "here": [njit(cache=True)(lambda x: x + 1)(1)]}))
        sys.exit()
    out = {"here": work(1)}
    if "processes" in sys.argv:
        import multiprocessing, threading
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        with ThreadPoolExecutor(2) as threads:
            busy = [threads.submit(work, 1) for _ in range(4)]
            for method in ("fork", "spawn"):
                with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
                    out[method] = list(pool.map(work, [1, 1]))
            out["threads"] = [task.result() for task in busy]
    print(json.dumps(out))
"""


def run(folder, *arguments, **environment):
    script = folder / "run.py"
    script.write_text(RUN)
    env = os.environ | {"PYTHONWARNINGS": "ignore", "OPENBLAS_NUM_THREADS": "1"} | environment
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    return run(tmp_path_factory.mktemp("processes"), "processes", OMP_NUM_THREADS="1")


def test_threads_and_processes_at_once(processes):
    """Fork while threads are at work, and spawn: all end, with the same digits."""
    for name in ("fork", "spawn", "threads"):
        for values in processes[name]:
            assert values == processes["here"], name


def test_omp_num_threads_changes_nothing(processes, tmp_path):
    four = run(tmp_path, OMP_NUM_THREADS="4", OPENBLAS_NUM_THREADS="4")
    # Sums of BLAS in another order: 60 terms, some 1e-15 of the result each, on a flat likelihood.
    np.testing.assert_allclose(four["here"], processes["here"], rtol=1e-9, atol=1e-12)


def test_without_a_folder_for_compiled_code(tmp_path):
    """A read-only installation without a home: the package works, and says why it is slow."""
    out = run(tmp_path, "no cache")
    assert out["told"] >= 1
    assert out["here"] == [2]


def test_another_error_of_the_compiler_is_not_taken_for_the_cache(monkeypatch):
    from annlmm.model import compiled

    def fails(**options):
        raise RuntimeError("something else")

    monkeypatch.setattr(compiled.numba, "njit", fails)
    with pytest.raises(RuntimeError, match="something else"):
        compiled.njit(cache=True)(len)
