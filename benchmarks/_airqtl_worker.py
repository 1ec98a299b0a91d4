"""airqtl on cells and genotypes of a folder; runs in an environment that `_install.py` made."""

import io
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from _remote import clock, serve
from airqtl import association

folder, threshold = Path(sys.argv[1]), float(sys.argv[2])
y = np.load(folder / "y.npy")  # genes × cells, the cells of a donor together
x, c, cells, gamma = (np.load(folder / f"{name}.npy") for name in ("x", "c", "cells", "gamma"))
kernel = cells.astype(float), np.diag(cells**-0.5)  # eigenvalues and eigenvectors of ZZ' on donors
names = np.arange(len(x)).astype(str), np.arange(len(y)).astype(str)


def scan(fmt, h0: str, block: int = 128) -> None:
    association.multi_linear(x, y, c, cells, *kernel, gamma, io.StringIO(), fmt, bsx=block, device="cpu", h0=h0)


def airqtl(h0: str = "chi2", block: int = 128) -> dict:
    """With its own formatter, which keeps the pairs below the threshold; 128 variants at a time are its default."""
    return clock(lambda: scan(partial(association.fmt1, None, names, pcut=threshold, cis=None), h0, block))


def results(file: str) -> dict:
    """Of all pairs, genes × variants."""
    kept = {}

    def keep(h0, id_x, id_y, s0, l0, b, s, r, p):
        kept.setdefault(h0, []).append((b[:, :, 0], p))
        return []

    for h0 in ("chi2", "beta"):
        scan(partial(keep, h0), h0)
    beta, p = (np.concatenate(parts, axis=1) for parts in zip(*kept["beta"], strict=True))
    np.savez(file, beta=beta, p_value=p, p_chi_sq=np.concatenate([p for _, p in kept["chi2"]], axis=1))
    return {}


def versions() -> dict:
    return {"text": f"airqtl {version('airqtl')} (torch {torch.__version__}, numpy {np.__version__})"}


serve({f.__name__: f for f in (airqtl, results, versions)})
