from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from annlmm._slots.access import check_adata, check_memory, hint
from annlmm._slots.relatedness import aligned
from annlmm._slots.schema import documents
from annlmm.model.eigen import from_kernel
from annlmm.pp._store import check_flag, check_kernel_key, store_dense


@documents("kernel", without="(groups)")
def kernel_precomputed(
    adata: AnnData,
    kernel: Any,
    *,
    rank: float | None = None,
    center: bool = False,
    scale: bool = False,
    key_added: str = "kernel",
    copy: bool = False,
) -> AnnData | None:
    """Store a kernel that exists already: a kinship matrix, a pedigree, a similarity.

    Parameters
    ----------
    adata
        Observations × features.
    kernel
        K, symmetric and positive semi-definite: a DataFrame (matched by name, in any order, extra rows ignored), an n × n array or
        sparse matrix in the order of `.obs`, or a key of `.obsp`.
    rank
        Eigenvectors to keep: all with a non-zero eigenvalue (None), that many (int), or enough for that share of the trace
        (fraction).
    center
        Centre K, H K H, now and after rows are dropped (as GEMMA does). Taken as given by default.
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
    ValueError
        If K is not square, finite, symmetric and positive semi-definite, has the wrong size, or lacks observations by name.
    KeyError
        If there is no such key in `.obsp`.

    Examples
    --------
    >>> import numpy as np
    >>> import annlmm as al
    >>> adata = al.datasets.gwas_cohort(n_obs=100, n_vars=50)
    >>> z = np.random.default_rng(0).standard_normal((100, 3))
    >>> al.pp.kernel_precomputed(adata, z @ z.T)
    >>> adata.obsm["kernel"].shape
    (100, 3)
    """
    check_adata(adata)
    key = check_kernel_key(adata, key_added)
    center, scale = check_flag("center", center), check_flag("scale", scale)
    name = repr(kernel) if isinstance(kernel, str) else type(kernel).__name__
    check_memory(
        adata.n_obs, adata.n_obs, "use a factor of it with al.pp.kernel_linear, or groups with al.pp.kernel_group"
    )
    k = _matrix(adata, kernel)
    if k.shape != (adata.n_obs, adata.n_obs):
        raise ValueError(f"kernel: must be {adata.n_obs} × {adata.n_obs} like adata.obs, received shape {k.shape}")
    if center:
        k = k.astype(np.float64)
        k = k - k.mean(axis=0) - k.mean(axis=1)[:, None] + k.mean()
    spectrum = from_kernel(k, rank)
    params = {"kernel": name, "rank": rank, "center": center}
    return store_dense(
        adata, key, spectrum, method="precomputed", params=params, centered=center, scale=scale, copy=copy
    )


def _matrix(adata: AnnData, kernel: Any) -> np.ndarray:
    if isinstance(kernel, str):
        if kernel not in adata.obsp:
            raise KeyError(f"kernel={kernel!r}: not in adata.obsp; {hint(kernel, adata.obsp)}")
        kernel = adata.obsp[kernel]
    if isinstance(kernel, pd.DataFrame):
        kernel = aligned(kernel, adata.obs_names, "kernel", "observations")
    if sparse.issparse(kernel):
        kernel = kernel.toarray()
    array = np.asarray(kernel)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"kernel: must hold real numbers, received dtype {array.dtype}")
    return array
