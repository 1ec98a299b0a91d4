from __future__ import annotations

import numpy as np
from anndata import AnnData

from annlmm._slots.access import check_adata, check_memory
from annlmm._slots.design import obsm_frame
from annlmm._slots.schema import documents
from annlmm.model.eigen import check_rank, from_factor, is_low_rank, low_rank
from annlmm.pp._embedding import check_embedding, embedding
from annlmm.pp._store import check_flag, check_kernel_key, check_rank_memory, store_dense


@documents("kernel", without="(groups)")
def kernel_linear(
    adata: AnnData,
    obsm: str,
    *,
    center: bool = True,
    standardize: bool = False,
    rank: float | None = None,
    scale: bool = True,
    key_added: str = "kernel",
    copy: bool = False,
) -> AnnData | None:
    """The linear kernel K = ZZᵀ/m of an embedding or a set of random covariates in `.obsm`.

    Parameters
    ----------
    adata
        Observations × features.
    obsm
        Key of Z, n × m: e.g. principal components.
    center
        Centre the columns of Z.
    standardize
        Divide them by their standard deviation, so that each contributes the same.
    rank
        Eigenvectors to keep: all with a non-zero eigenvalue (None), that many (int), or enough for that share of the
        trace (fraction). Where Z has more columns than rows, a rank far below n of more than 2000 observations makes no
        n × n matrix (block Lanczos).
    scale
        Divide K by the mean diagonal of the centred kernel, so that σ² is the variance of a typical observation.
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
        If there is no such key in `.obsm`.
    ValueError
        If Z holds NaN or infinite values, or is constant.
    MemoryError
        If Z, or K where Z has more columns than rows, does not fit `al.settings.kernel_memory`.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.gwas_cohort(n_obs=100, n_vars=50)
    >>> adata.obsm["X_env"] = adata.X[:, :3]
    >>> al.pp.kernel_linear(adata, "X_env")
    >>> adata.obsm["kernel"].shape
    (100, 3)
    """
    check_adata(adata)
    key = check_kernel_key(adata, key_added)
    center, standardize, scale = (
        check_flag("center", center),
        check_flag("standardize", standardize),
        check_flag("scale", scale),
    )
    check_rank(rank)
    check_embedding(adata, obsm, key)
    n, m = adata.n_obs, obsm_frame(adata, obsm).shape[1]
    few = m >= n and is_low_rank(rank, n)
    remedy = f"pass rank= (an int below {n // 10}) for its leading eigenvectors, or " if m >= n else ""
    if few:
        check_rank_memory(n, rank)
    check_memory(n, m if few else min(n, m), f"{remedy}reduce its columns first")
    z = embedding(adata, obsm)
    varies = np.ptp(z, axis=0) > 0  # centring leaves the round-off of a constant
    if center:
        z = np.where(varies, z - z.mean(axis=0), 0.0)
    if standardize:
        z = z[:, varies] / z[:, varies].std(axis=0)
    if not z.any():
        raise ValueError(f"obsm={obsm!r}: its columns are constant; there is no kernel to make")
    z /= np.sqrt(z.shape[1])
    spectrum = low_rank(lambda v: z @ (z.T @ v), n, rank, float(np.einsum("ij,ij->", z, z))) if few else None
    spectrum = from_factor(z, rank) if spectrum is None else spectrum
    params = {"obsm": obsm, "rank": rank, "center": center, "standardize": standardize}
    return store_dense(adata, key, spectrum, method="linear", params=params, centered=center, scale=scale, copy=copy)
