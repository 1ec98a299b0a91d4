from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import logger
from annlmm._slots.access import boolean_mask, check_adata, check_memory, check_missing_call, feature_matrix
from annlmm._slots.schema import documents
from annlmm._variants import Variants
from annlmm.model.eigen import Spectrum, from_factor, from_kernel, from_operator
from annlmm.pp._store import check_flag, check_kernel_key, store_dense

Float = NDArray[np.float64]


@documents("kernel", without="(groups)")
def kernel_grm(
    adata: AnnData,
    mask_var: Any = None,
    *,
    min_maf: float = 0.01,
    missing_call: float | None = None,
    center: bool = True,
    standardize: bool = True,
    layer: str | None = None,
    rank: float | None = None,
    scale: bool = True,
    key_added: str = "kernel",
    copy: bool = False,
) -> AnnData | None:
    """The genetic relationship matrix K = ZZᵀ/m of donors × variants.

    Missing calls are replaced by the variant's mean; monomorphic variants are dropped.

    Parameters
    ----------
    adata
        Donors × variants; dosages (0 to 2) in `.X` or `layer`, NaN (or `missing_call`) for a missing call, dense or sparse.
    mask_var
        Variants to use: a boolean column of `.var` or a boolean array; e.g. all but one chromosome.
    min_maf
        Variants with a minor allele frequency below it are left out. 0 keeps all, and takes variants that are centred or
        standardised already; where outside of 0 to 2 there are only whole numbers, negative or beyond 8 (−9, −1, 255), they are
        refused as codes of missing calls.
    missing_call
        Number that stands for a missing call, besides NaN: −9 or −127, say, in a matrix of integers.
    center
        Subtract each variant's mean, now and after rows are dropped.
    standardize
        Divide each variant by its standard deviation (GCTA, FaST-LMM, Hail's `realized_relationship_matrix`); False is
        GEMMA's ``-gk 1``.
    layer
        Layer to use instead of `.X`.
    rank
        Eigenvectors to keep: all with a non-zero eigenvalue (None), that many (int), or enough for that share of the trace
        (fraction). With an int far below n no n × n matrix is made (Lanczos).
    scale
        Divide K by the mean diagonal of the centred kernel, so that σ² is the variance of a typical donor.
    key_added
        Key of the kernel.
    copy
        Return a copy with the kernel, leaving `adata` as it is.

    Returns
    -------
    AnnData or None
        A copy if `copy`, otherwise None, with the fields set:

    {fields}

    Raises
    ------
    KeyError
        If the layer or the mask is not there.
    ValueError
        If the values are not dosages (see `min_maf`), or no variant is left.
    MemoryError
        If a dense kernel does not fit `al.settings.kernel_memory`; pass `rank`.

    Notes
    -----
    Patterson et al. (2006); Yang et al. (2011), GCTA; VanRaden (2008). The standard deviation is that of the data (denominator n), not
    √(2p(1−p)).

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.gwas_cohort(n_obs=100, n_vars=500)
    >>> al.pp.kernel_grm(adata, mask_var=adata.var["chrom"] != "1")
    >>> adata.uns["kernel"]["method"]
    'grm'
    """
    check_adata(adata)
    key = check_kernel_key(adata, key_added)
    center, standardize, scale = (
        check_flag("center", center),
        check_flag("standardize", standardize),
        check_flag("scale", scale),
    )
    if isinstance(min_maf, bool) or not isinstance(min_maf, (int, float, np.number)) or not 0 <= min_maf < 0.5:
        raise ValueError(f"min_maf: must lie in [0, 0.5), received {min_maf!r}")
    missing_call = check_missing_call(missing_call)
    matrix = feature_matrix(adata, layer)
    columns = np.flatnonzero(boolean_mask(adata, mask_var, "var", "mask_var"))
    n = adata.n_obs
    few = isinstance(rank, (int, np.integer)) and not isinstance(rank, bool) and 0 < rank < n // 10 and n > 2000
    variants = Variants(matrix, n, columns, float(min_maf), center, standardize, missing_call)
    if few:
        kept, total = variants.count()
        _check_kept(kept, columns.size, min_maf)
        spectrum = from_operator(lambda v: variants.multiply(v) / kept, n, int(rank or 0), total / kept)
    else:
        check_memory(n, min(n, columns.size), f"pass rank= (an int below {n // 10}) for its leading eigenvectors")
        spectrum, kept = _decompose(variants, n, columns.size, rank, min_maf)
    others = "" if kept == columns.size else f", the others are monomorphic or below min_maf={min_maf}"
    logger.info(f"kernel_grm: {kept} of {columns.size} variants used{others}")
    params = {
        "mask_var": mask_var if isinstance(mask_var, str) else None if mask_var is None else "array",
        "min_maf": float(min_maf),
        "missing_call": missing_call,
        "center": center,
        "standardize": standardize,
        "layer": layer,
        "rank": rank,
        "n_variants": kept,
    }
    return store_dense(adata, key, spectrum, method="grm", params=params, centered=center, scale=scale, copy=copy)


def _decompose(variants: Variants, n: int, m: int, rank: float | None, min_maf: float) -> tuple[Spectrum, int]:
    """From the n × n matrix, or from the n × m factor where that is narrower."""
    if m < n:
        blocks = list(variants)
        kept = sum(z.shape[1] for z in blocks)
        _check_kept(kept, m, min_maf)
        return from_factor(np.concatenate(blocks, axis=1) / np.sqrt(kept), rank), kept
    k, kept = variants.gram()
    _check_kept(kept, m, min_maf)
    return from_kernel(k / kept, rank), kept


def _check_kept(kept: int, m: int, min_maf: float) -> None:
    if kept == 0:
        raise ValueError(f"none of {m} variants is left: all are monomorphic or below min_maf={min_maf}")
