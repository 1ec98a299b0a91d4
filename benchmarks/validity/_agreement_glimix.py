"""glimix-core's `LMM` and its `fast_scan` on every .npz of a folder; runs in an environment that `_install.py` made."""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from glimix_core.lmm import LMM

for file in sorted(Path(sys.argv[1]).glob("design_*.npz")):
    data = np.load(file)
    found = {}
    for name, restricted in (("reml", True), ("ml", False)):
        model = LMM(data["y"], data["x"], ((data["u"],), data["s"]), restricted=restricted)
        model.fit(verbose=False)
        found |= {
            f"{name}_variances": [model.v0, model.v1],
            f"{name}_delta": model.delta,
            f"{name}_lml": model.lml(),
            f"{name}_beta": model.beta,
            f"{name}_se": np.sqrt(np.diagonal(model.beta_covariance)),
        }
        if restricted:
            scanner = model.get_fast_scanner()
            scan = scanner.fast_scan(data["g"], verbose=False)
            found |= {
                "chi_sq": 2 * (scan["lml"] - scanner.null_lml()),
                "effect": scan["effsizes1"],
                "effect_se": scan["effsizes1_se"],
            }
    np.savez(file.with_name(f"glimix_{file.name}"), **found)
print(f"glimix-core {version('glimix-core')}")
