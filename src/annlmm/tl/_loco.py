"""Leave one chromosome out: each chromosome is tested with the kernel of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import logger
from annlmm._slots.access import boolean_mask, check_memory, feature_matrix, hint
from annlmm._slots.fit import StoredNull, scalars_of
from annlmm._slots.kernel import kernel_entry, read_basis
from annlmm._variants import Variants
from annlmm.model.association import Association
from annlmm.model.basis import DenseBasis
from annlmm.model.design import make_design
from annlmm.model.eigen import from_kernel
from annlmm.model.null import NullModel
from annlmm.tl._pass import Features
from annlmm.tl._scan import ScanOptions, run_scan

Float = NDArray[np.float64]


def check_loco(adata: AnnData, stored: StoredNull, loco: str) -> tuple[pd.Series, dict[str, Any]]:
    """The chromosome of every feature, and the arguments of the genetic kernel that is to be left out of."""
    if not isinstance(loco, str):
        raise TypeError(
            f"loco: must be the name of a column of adata.var, received {loco!r} of type {type(loco).__name__}"
        )
    if loco not in adata.var.columns:
        raise KeyError(f"loco={loco!r}: no such column in adata.var; {hint(loco, adata.var.columns)}")
    chromosome = adata.var[loco]
    if chromosome.isna().any():
        raise ValueError(
            f"loco={loco!r}: {int(chromosome.isna().sum())} features have no chromosome; label them, e.g. 'unplaced'"
        )
    if chromosome.nunique() < 2:
        raise ValueError(f"loco={loco!r}: one chromosome, nothing is left for the kernel; use loco=None")
    entry = kernel_entry(adata, stored.kernel) if stored.kernel is not None else {}
    if entry.get("method") != "grm":
        raise ValueError(
            f"loco={loco!r}: needs a null model with a kernel of al.pp.kernel_grm, made of the variants of this adata; "
            f"kernel {stored.kernel!r} is not one"
        )
    params = dict(entry["params"])
    if params.get("mask_var") == "array":
        raise ValueError(
            f"loco={loco!r}: kernel {stored.kernel!r} was made with mask_var as an array, which is not stored; name a column of adata.var"
        )
    if "rank" in params:
        raise ValueError(
            f"loco={loco!r}: kernel {stored.kernel!r} was truncated (rank={params['rank']}); make it with rank=None"
        )
    if stored.gamma_fixed:
        raise ValueError(
            f"loco={loco!r}: the null model has a given gamma; each chromosome needs a γ of its own, fit it without gamma="
        )
    if int(entry["n_obs"]) != adata.n_obs:
        raise ValueError(
            f"loco={loco!r}: kernel {stored.kernel!r} was made of {int(entry['n_obs'])} observations, {adata.n_obs} are here; compute it again"
        )
    check_memory(2 * adata.n_obs, adata.n_obs, "use loco=None")
    return chromosome.astype(str), params


def loco_scan(
    adata: AnnData,
    stored: StoredNull,
    chromosome: pd.Series,
    params: dict[str, Any],
    features: Features,
    columns: NDArray[np.intp],
    options: ScanOptions,
    results: dict[str, list[Association]],
) -> pd.DataFrame:
    """Test every chromosome at the null of the others; the null fits, one row per chromosome and phenotype.

    K of the others is the sum over all variants less that of the chromosome: two passes over the variants and one
    eigendecomposition per chromosome (and set of rows).
    """
    matrix = feature_matrix(adata, str(params["layer"]) if "layer" in params else None)
    mask = boolean_mask(adata, str(params["mask_var"]) if "mask_var" in params else None, "var", "mask_var")
    center, standardize, scale = bool(params["center"]), bool(params["standardize"]), bool(params["scale"])

    missing_call = float(params["missing_call"]) if "missing_call" in params else None

    def variants(chosen: NDArray[np.bool_]) -> Variants:
        columns, min_maf = np.flatnonzero(chosen & mask), float(params["min_maf"])
        return Variants(matrix, adata.n_obs, columns, min_maf, center, standardize, missing_call)

    total, n_variants = variants(np.ones(adata.n_vars, dtype=bool)).gram()
    _check_unchanged(adata, stored, total / max(n_variants, 1), scale, features)
    table = []
    labels = chromosome.to_numpy()
    for name in dict.fromkeys(labels[columns]):
        here = labels == name
        own, n_own = variants(here).gram()
        if n_own == n_variants:
            raise ValueError(f"loco: no variant of the kernel is outside chromosome {name!r}")
        kernel = (total - own) / (n_variants - n_own)
        if scale:
            kernel = _scaled(kernel)
        for rows, members in stored.patterns():
            model = NullModel(make_design(stored.x[rows], stored.terms), _basis(kernel, rows, center), reml=stored.reml)
            gammas = np.full(len(stored.names), np.nan)
            for j in members:
                fit = model.fit(stored.y[rows, j], simulate=False, name=f"phenotype {stored.names[j]!r}")
                gammas[j] = fit.gamma
                table.append({"chromosome": name, "phenotype": stored.names[j], **scalars_of(fit)})
            chosen = columns[here[columns]]
            run_scan(model, stored, rows, members, gammas, features, chosen, options, results, check=False)
        logger.info(
            f"associate: chromosome {name}, {int(here[columns].sum())} features at the kernel of the other {n_variants - n_own} variants"
        )
    fits = pd.DataFrame(table)
    for column in ("chromosome", "phenotype", "status"):
        fits[column] = pd.Categorical(fits[column], categories=list(dict.fromkeys(fits[column])))
    return fits.set_axis(fits.index.astype(str), axis=0)


def _scaled(kernel: Float) -> Float:
    return np.asarray(kernel / (np.trace(kernel) / len(kernel) - kernel.mean()))


def _check_unchanged(adata: AnnData, stored: StoredNull, kernel: Float, scale: bool, features: Features) -> None:
    """The variants still make the kernel of the null model, and its phenotypes and design are those that were fitted."""
    basis = read_basis(adata, stored.kernel, np.arange(adata.n_obs))
    z = np.random.default_rng(0).standard_normal(adata.n_obs)
    then = basis.expand(basis.eigenvalues * basis.project(z))
    now = (_scaled(kernel) if scale else kernel) @ z
    if not np.linalg.norm(now - then) <= 1e-6 * np.linalg.norm(then):
        raise ValueError(
            f"loco: the variants of adata do not make kernel {stored.kernel!r} (some were dropped or changed since); compute it again, "
            "and fit the null model again"
        )
    nothing = np.zeros(0, dtype=np.intp)
    for rows, members in stored.patterns():
        options = ScanOptions(("wald",), "null", 1.0, "residual")
        run_scan(stored.model(adata, rows), stored, rows, members, stored.gamma.copy(), features, nothing, options, {})


def _basis(kernel: Float, rows: NDArray[np.intp], center: bool) -> DenseBasis:
    k = kernel[np.ix_(rows, rows)]
    if center:
        k = k - k.mean(axis=0) - k.mean(axis=1)[:, None] + k.mean()
    spectrum = from_kernel(k)
    return DenseBasis(spectrum.u, spectrum.eigenvalues, center)
