from __future__ import annotations

import numpy as np
from anndata import AnnData

from annlmm._slots.access import check_adata, check_memory, hint, numeric, received
from annlmm._slots.design import obsm_frame
from annlmm._slots.schema import documents
from annlmm.model.eigen import from_factor
from annlmm.pp._store import check_flag, check_kernel_key, store_dense


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
        Eigenvectors to keep: all with a non-zero eigenvalue (None), that many (int), or enough for that share of the trace
        (fraction).
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
    if not isinstance(obsm, str):
        raise TypeError(f"obsm: must be a key of adata.obsm, received {received(obsm)}")
    if obsm not in adata.obsm:
        raise KeyError(f"obsm={obsm!r}: not in adata.obsm; {hint(obsm, adata.obsm)}")
    if obsm == key:
        raise ValueError(f"key_added={key!r}: is the key of the factor itself; choose another")
    frame = obsm_frame(adata, obsm)
    check_memory(adata.n_obs, min(adata.n_obs, frame.shape[1]), "reduce its columns first")
    z = np.stack([numeric(frame[c], f"obsm {c!r}") for c in frame.columns], axis=1)
    if not np.isfinite(z).all():
        raise ValueError(
            f"obsm={obsm!r}: NaN or infinite values in {int((~np.isfinite(z)).any(axis=1).sum())} rows; drop or impute them"
        )
    varies = np.ptp(z, axis=0) > 0  # centring leaves the round-off of a constant
    if center:
        z = np.where(varies, z - z.mean(axis=0), 0.0)
    if standardize:
        z = z[:, varies] / z[:, varies].std(axis=0)
    if not z.any():
        raise ValueError(f"obsm={obsm!r}: its columns are constant; there is no kernel to make")
    spectrum = from_factor(z / np.sqrt(z.shape[1]), rank)
    params = {"obsm": obsm, "rank": rank, "center": center, "standardize": standardize}
    return store_dense(adata, key, spectrum, method="linear", params=params, centered=center, scale=scale, copy=copy)
