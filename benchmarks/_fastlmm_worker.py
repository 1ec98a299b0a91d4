"""FaST-LMM's `single_snp` on arrays in a .npz; runs in an environment that `_install.py` made."""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from _remote import clock, serve
from fastlmm.association import single_snp
from pysnptools.kernelreader import KernelData
from pysnptools.snpreader import SnpData
from threadpoolctl import threadpool_info

data = np.load(sys.argv[1])
n, m = data["g"].shape
iid = np.array([["0", f"i{i}"] for i in range(n)])
snps = SnpData(
    iid=iid,
    sid=np.array([f"s{j}" for j in range(m)]),
    val=np.asfortranarray(data["g"]),  # as FaST-LMM reads a file: the order that its blocks of SNPs want
    pos=np.column_stack([np.ones(m), np.arange(m), np.arange(m)]).astype(float),
)
pheno = SnpData(iid=iid, sid=np.array(["y"]), val=data["y"][:, None])
kernel = data["k"]


def frame(p: int, cache: "str | None"):
    covar = None
    if p > 1:
        covar = SnpData(iid=iid, sid=np.array([f"c{j}" for j in range(1, p)]), val=data["x"][:, 1:p].copy())
    k = KernelData(iid=iid, val=kernel.copy())
    return lambda: single_snp(
        snps, pheno, K0=k, covar=covar, leave_out_one_chrom=False, cache_file=cache, count_A1=False
    )


def scan(p: int) -> dict:
    """With the decomposition and h² in FaST-LMM's own cache file, which the first call writes."""
    cache = str(Path(sys.argv[1]).with_suffix(f".{p}.cache.npz"))
    return clock(frame(p, cache))


def whole(p: int) -> dict:
    """From the kernel: decomposition, h², scan."""
    return clock(frame(p, None))


def result(p: int, file: str) -> dict:
    table = frame(p, None)().sort_values("sid_index")
    np.savez(file, p_value=table["PValue"].to_numpy(), beta=table["SnpWeight"].to_numpy())
    return {"h_sq": float(table["Nullh2"].iloc[0])}


def versions() -> dict:
    blas = {f"{lib['internal_api']} {lib['version']}" for lib in threadpool_info() if lib["user_api"] == "blas"}
    return {"text": f"fastlmm {version('fastlmm')} (numpy {np.__version__}, {', '.join(sorted(blas))})"}


serve({"scan": scan, "whole": whole, "result": result, "versions": versions})
