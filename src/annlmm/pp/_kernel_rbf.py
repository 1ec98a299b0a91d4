from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import logger, settings
from annlmm._slots.access import check_adata, check_memory
from annlmm._slots.schema import documents
from annlmm.model.eigen import Spectrum, check_rank, from_factor, from_kernel, is_low_rank, low_rank
from annlmm.model.rbf import middle_scale, rbf_factor, rbf_matrix, rbf_multiply, representable
from annlmm.pp._embedding import check_embedding, embedding
from annlmm.pp._store import (
    check_flag,
    check_kernel_key,
    check_rank_memory,
    one_or_several,
    store_dense,
    store_dense_family,
    too_little_share,
)


@documents("kernel", without="(groups)", family=True)
def kernel_rbf(
    adata: AnnData,
    obsm: str = "spatial",
    *,
    length_scale: float | Sequence[float] | None = None,
    rank: float | None = None,
    scale: bool = True,
    key_added: str = "kernel",
    copy: bool = False,
) -> AnnData | None:
    """The squared-exponential kernel K_ij = exp(−d_ij²/(2l²)) of coordinates: what is near is alike.

    Parameters
    ----------
    adata
        Observations × features.
    obsm
        Key of the coordinates, n × m: of a tissue, a pseudotime, an embedding. d is their Euclidean distance.
    length_scale
        l, in the unit of the coordinates: at a distance of l the correlation is 0.61, at 2l it is 0.14. If None, half
        way (on a log scale) between neighbours and the whole: the geometric mean of the median distance to the nearest
        observation and the median distance between observations. A list makes a family: one kernel per length scale,
        under ``f"{key_added}_{i}"``.
    rank
        Eigenvectors to keep: all with a non-zero eigenvalue (None), that many (int), or enough for that share of the
        trace (fraction).
    scale
        Divide K by the mean diagonal of the centred kernel, so that σ² is the variance of a typical observation.
    key_added
        Key of the kernel or of the family.
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
        If there is no such key in `.obsm`.
    ValueError
        If the coordinates hold NaN or infinite values or are all the same, or a length scale is not positive or so far above
        their extent that K is 1 everywhere.
    MemoryError
        If the n × n matrix does not fit `al.settings.kernel_memory`; pass `rank` or a larger length scale.

    Notes
    -----
    The kernel of SpatialDE (Svensson et al. 2018), whose grid of length scales, from half the smallest to twice the
    largest distance, has the default about in its middle. It is not centred, neither here nor when rows are dropped.

    In up to about three dimensions and with length scales that are not small against their extent, K has few
    eigenvalues above rounding. Then a factor of it, exact to 1e-12, is computed by Chebyshev interpolation, in time and
    memory linear in n; no n × n matrix is made. Otherwise a rank far below n of more than 2000 observations is found by
    block Lanczos iterations, on K where it fits the memory, else on blocks of its rows, made anew.

    Examples
    --------
    >>> import numpy as np
    >>> import annlmm as al
    >>> adata = al.datasets.gwas_cohort(n_obs=100, n_vars=50)
    >>> adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 10, (100, 2))
    >>> al.pp.kernel_rbf(adata, length_scale=2.0)
    >>> al.pp.kernel_rbf(adata, length_scale=[1.0, 2.0, 4.0], key_added="scales")
    >>> list(adata.uns["scales"]["members"])
    ['scales_0', 'scales_1', 'scales_2']
    """
    check_adata(adata)
    scale = check_flag("scale", scale)
    check_rank(rank)
    check_rank_memory(adata.n_obs, rank)
    given, several = (
        (None, False)
        if length_scale is None
        else one_or_several("length_scale", length_scale, 0.0, np.inf, open_low=True)
    )
    key = check_kernel_key(adata, key_added, given.size if given is not None and several else 0)
    check_embedding(adata, obsm, key)
    x = embedding(adata, obsm)
    if not np.ptp(x, axis=0).any():
        raise ValueError(f"obsm={obsm!r}: all observations have the same coordinates; there is no kernel to make")
    values = _heuristic(x) if given is None else given
    _check_extent(x, values, obsm)
    spectra = [_spectrum(x, representable(x, float(value)), rank) for value in values]
    params = {"obsm": obsm, "rank": rank}
    if several:
        return store_dense_family(
            adata,
            key,
            spectra,
            method="rbf",
            parameter="length_scale",
            values=values,
            params=params,
            scale=scale,
            copy=copy,
        )
    params |= {"length_scale": float(values[0])}
    return store_dense(adata, key, spectra[0], method="rbf", params=params, centered=False, scale=scale, copy=copy)


def _check_extent(x: NDArray[np.float64], values: NDArray[np.float64], obsm: str) -> None:
    """Refuse length scales at which K is 1 everywhere, to rounding: for large l its centred diagonal is ‖x − x̄‖² / l²."""
    extent = float(np.linalg.norm(np.ptp(x, axis=0)))
    spread = float(x.var(axis=0).sum())
    for value in values[np.sqrt(spread) / values <= np.sqrt(2e-12 * len(x))]:
        raise ValueError(
            f"length_scale={value:g}: the coordinates of obsm={obsm!r} extend over {extent:.4g} only, so that the kernel is 1 everywhere; "
            f"it is in their unit, and between the distance of neighbours and the extent, such as {middle_scale(x):.4g} (the default)"
        )


def _heuristic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    value = middle_scale(x)
    logger.info(f"kernel_rbf: length_scale={value:.4g}, between the distance to the nearest and the median distance")
    return np.array([value])


def _spectrum(x: NDArray[np.float64], length_scale: float, rank: float | None) -> Spectrum:
    """From a narrow factor, else by iterations, else from the n × n matrix."""
    n, memory = x.shape[0], settings.kernel_memory
    iterates = is_low_rank(rank, n)
    direct = min(n // 2, int(memory / (3 * 8 * n)))  # an SVD takes two more arrays of this size
    factor = rbf_factor(x, length_scale, min(n // 2, int(memory / (8 * n))) if iterates else direct)
    few: Spectrum | None
    if factor is not None:
        few = low_rank(lambda v: factor @ (factor.T @ v), n, rank, float(n))
        if few is None and factor.shape[1] <= direct:
            return from_factor(factor, rank)
    elif iterates and 8 * n * n <= memory:
        whole = rbf_matrix(x, x, length_scale)
        few = low_rank(lambda v: whole @ v, n, rank, float(n))
    else:
        rows = max(1, int(settings.block_memory / (8 * n)))
        few = low_rank(lambda v: rbf_multiply(x, length_scale, v, rows), n, rank, float(n))
    if few is not None:
        return few
    remedy = f"pass rank= (an int below {n // 10}) for its leading eigenvectors, or a larger length_scale"
    if iterates:
        remedy = too_little_share(n, rank or 0, "a larger length_scale")
    check_memory(n, n, remedy)
    return from_kernel(rbf_matrix(x, x, length_scale), rank)
