"""glimix-core's `fast_scan` on arrays in a .npz; runs in an environment that `_install.py` made."""

import sys
from functools import cache
from importlib.metadata import version

import numpy as np
from _remote import clock, serve
from glimix_core.lmm import LMM
from threadpoolctl import threadpool_info

data = np.load(sys.argv[1])
y, g = data["y"], data["g"]
decomposition = ((data["u"],), data["s"])


@cache
def fitted(p: int):
    model = LMM(y, data["x"][:, :p], decomposition, restricted=True)
    model.fit(verbose=False)
    return model, model.get_fast_scanner()


def scan(p: int) -> dict:
    """The scan alone, with decomposition, variances and scanner made before."""
    scanner = fitted(p)[1]
    return clock(lambda: scanner.fast_scan(g, verbose=False))


def result(p: int, file: str) -> dict:
    model, scanner = fitted(p)
    found = scanner.fast_scan(g, verbose=False)
    np.savez(file, chi_sq=2 * (found["lml"] - scanner.null_lml()), beta=found["effsizes1"])
    return {"h_sq": 1 - float(model.delta)}


def versions() -> dict:
    blas = {f"{lib['internal_api']} {lib['version']}" for lib in threadpool_info() if lib["user_api"] == "blas"}
    return {"text": f"glimix-core {version('glimix-core')} (numpy {np.__version__}, {', '.join(sorted(blas))})"}


serve({"scan": scan, "result": result, "versions": versions})
