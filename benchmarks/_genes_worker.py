"""FLASH-MM, airqtl and statsmodels on the genes of a .npz; runs in an environment that `_install.py` made."""

import sys
import time
from importlib.metadata import version

import numpy as np
import scipy.optimize
from _remote import clock, serve
from airqtl import heritability
from flash_mm import lmm
from statsmodels.regression.mixed_linear_model import MixedLM
from threadpoolctl import threadpool_info

data = dict(np.load(sys.argv[1]))
sums = [data[name] for name in ("xx", "xy", "zx", "zy", "zz", "norm")]
n, d = data["x"].shape[0], data["zz"].shape[0]
genes = data["y"].shape[1]
dense, covariates = np.ascontiguousarray(data["y"].T), np.ascontiguousarray(data["x"].T)
cells = np.diag(data["zz"]).astype(int)
kernel = cells.astype(float), np.diag(cells**-0.5)  # eigenvalues and eigenvectors of ZZ' on donors
inside = [0.0]


def timed_minimize(*args, **kwargs):
    start = time.perf_counter()
    try:
        return minimize(*args, **kwargs)
    finally:
        inside[0] += time.perf_counter() - start


minimize, scipy.optimize.minimize = scipy.optimize.minimize, timed_minimize


def fit_flash():
    """From its sufficient statistics: coefficients, standard errors, p-values and their covariances."""
    return lmm(*sums, n=n, d=d, method="REML")


def fit_airqtl():
    """From the cells, which it sums over donors first."""
    return heritability.estimate(dense, covariates, cells, *kernel)


def fit_statsmodels(gene: int):
    return MixedLM(data["y"][:, gene], data["x"], data["donor"]).fit(reml=True)


def flash() -> dict:
    return clock(fit_flash)


def airqtl() -> dict:
    return clock(fit_airqtl)


def airqtl_optimiser() -> dict:
    """Within scipy's minimiser alone."""
    inside[0] = 0.0
    fit_airqtl()
    return {"seconds": inside[0]}


def statsmodels(gene: int) -> dict:
    return clock(lambda: fit_statsmodels(gene))


def results(file: str, fits: int) -> dict:
    found = fit_flash()
    theta, iterations = np.asarray(found["theta"]), np.asarray(found["niter"])
    alone = [fit_statsmodels(gene) for gene in range(fits)]
    np.savez(
        file, flash_sigma_sq=theta[0], flash_tau_sq=theta[1], flash_beta=np.asarray(found["coef"])[-1],
        flash_se=np.asarray(found["se"])[-1], flash_iterations=iterations, airqtl_gamma=fit_airqtl()[1],
        statsmodels_sigma_sq=[float(np.asarray(f.cov_re)[0, 0]) for f in alone], statsmodels_tau_sq=[f.scale for f in alone],
        statsmodels_beta=[f.fe_params[-1] for f in alone], statsmodels_se=[f.bse_fe[-1] for f in alone],
    )  # fmt: skip
    return {}


def versions() -> dict:
    blas = {f"{lib['internal_api']} {lib['version']}" for lib in threadpool_info() if lib["user_api"] == "blas"}
    names = ("FLASH-MM", "airqtl", "statsmodels")
    return {
        "text": f"{', '.join(f'{x} {version(x)}' for x in names)} (numpy {np.__version__}, {', '.join(sorted(blas))})"
    }


serve({f.__name__: f for f in (flash, airqtl, airqtl_optimiser, statsmodels, results, versions)})
