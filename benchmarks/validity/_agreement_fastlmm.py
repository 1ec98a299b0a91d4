"""FaST-LMM's `single_snp` on every .npz of a folder; runs in an environment that `_install.py` made."""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from fastlmm.association import single_snp
from pysnptools.kernelreader import KernelData
from pysnptools.snpreader import SnpData

for file in sorted(Path(sys.argv[1]).glob("design_*.npz")):
    data = np.load(file)
    n, m = data["g"].shape
    iid = np.array([["0", f"i{i}"] for i in range(n)])
    snps = SnpData(
        iid=iid,
        sid=np.array([f"s{j}" for j in range(m)]),
        val=np.asfortranarray(data["g"]),
        pos=np.column_stack([np.ones(m), np.arange(m), np.arange(m)]).astype(float),
    )
    pheno = SnpData(iid=iid, sid=np.array(["y"]), val=data["y"][:, None])
    p = data["x"].shape[1]
    covar = None
    if p > 1:
        covar = SnpData(iid=iid, sid=np.array([f"c{j}" for j in range(1, p)]), val=data["x"][:, 1:].copy())
    kernel = KernelData(iid=iid, val=data["centred"].copy())
    table = single_snp(snps, pheno, K0=kernel, covar=covar, leave_out_one_chrom=False, count_A1=False)
    table = table.sort_values("sid_index")
    np.savez(
        file.with_name(f"fastlmm_{file.name}"),
        p_value=table["PValue"].to_numpy(),
        beta=table["SnpWeight"].to_numpy(),
        standard_error=table["SnpWeightSE"].to_numpy(),
        h_sq=table["Nullh2"].iloc[0],
    )
print(f"fastlmm {version('fastlmm')}")
