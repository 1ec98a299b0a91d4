from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from annlmm._settings import logger
from annlmm._slots.access import check_adata, check_memory, hint, received
from annlmm._slots.schema import documents
from annlmm.model.eigen import Spectrum, check_rank, is_low_rank
from annlmm.model.graph import components, diffusion, leading_diffusion, normalized_adjacency
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
def kernel_graph(
    adata: AnnData,
    obsp: str = "connectivities",
    *,
    diffusion_time: float | Sequence[float] = 10.0,
    rank: float | None = None,
    scale: bool = True,
    key_added: str = "kernel",
    copy: bool = False,
) -> AnnData | None:
    """The diffusion kernel K = exp(−tL) of a neighbourhood graph: what a random walk soon reaches is alike.

    L = I − D^{−½} W D^{−½} is the normalised Laplacian of the graph with weights W and degrees D = diag(W 1).

    Parameters
    ----------
    adata
        Observations × features.
    obsp
        Key of W in `.obsp`, n × n, symmetric and not negative: the connectivities of `scanpy.pp.neighbors`, or of a
        spatial graph. A diagonal is ignored.
    diffusion_time
        t, the expected number of steps of the walk. A list makes a family: one kernel per time, under
        ``f"{key_added}_{i}"``.
    rank
        Eigenvectors to keep: all with a non-zero eigenvalue (None), that many (int), or enough for that share of the
        trace (fraction). A rank far below n of more than 2000 observations makes no n × n matrix (block Lanczos).
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
        If there is no such key in `.obsp`.
    ValueError
        If W is not symmetric, holds negative, NaN or infinite values, or observations without a neighbour; or `rank` is
        smaller than the number of connected components, each of which has an eigenvector of the largest eigenvalue.
    MemoryError
        If the n × n matrix does not fit `al.settings.kernel_memory`; pass `rank`.

    Notes
    -----
    Kondor and Lafferty (2002); Smola and Kondor (2003). With the transition probabilities P_t(i, j) of a walk that
    moves at rate 1 to neighbours in proportion to W, K_ij = √(D_i/D_j) P_t(i, j); on a line or a square lattice of
    neighbours it tends to the squared-exponential kernel with l² = t or t/2. L has eigenvalues between 0 and 2, hence K
    is positive definite. The kernel is not centred, neither here nor when rows are dropped. Between connected
    components the covariance is 0.

    Where no n × n matrix is made, the trace outside the leading eigenvectors is estimated from 16 random vectors
    (Hutchinson): `explained` is good to about two digits then.

    Examples
    --------
    >>> import numpy as np
    >>> import annlmm as al
    >>> adata = al.datasets.gwas_cohort(n_obs=100, n_vars=50)
    >>> ring = np.eye(100, k=1) + np.eye(100, k=99)
    >>> adata.obsp["connectivities"] = ring + ring.T
    >>> al.pp.kernel_graph(adata, rank=20)
    >>> adata.obsm["kernel"].shape
    (100, 20)
    """
    check_adata(adata)
    scale = check_flag("scale", scale)
    check_rank(rank)
    check_rank_memory(adata.n_obs, rank)
    times, several = one_or_several("diffusion_time", diffusion_time, 0.0, np.inf, open_low=True)
    key = check_kernel_key(adata, key_added, times.size if several else 0)
    weights, degree = _weights(adata, obsp)
    n_components, labels = components(weights)
    if isinstance(rank, (int, np.integer)) and rank < n_components:
        raise ValueError(
            f"rank={rank}: the graph has {n_components} connected components, each with an eigenvector of the largest eigenvalue; pass at least {n_components}"
        )
    if n_components > 1:
        sizes = np.sort(np.bincount(labels))[::-1]
        shown = ", ".join(map(str, sizes[:5])) + (", …" if sizes.size > 5 else "")
        logger.warning(
            f"kernel_graph: the graph obsp={obsp!r} falls into {n_components} components of {shown} observations; between them the kernel is 0"
        )
    spectra = _spectra(normalized_adjacency(weights, degree), times, rank, degree, labels)
    params = {"obsp": obsp, "rank": rank}
    if several:
        return store_dense_family(
            adata,
            key,
            spectra,
            method="graph",
            parameter="diffusion_time",
            values=times,
            params=params,
            scale=scale,
            copy=copy,
        )
    params |= {"diffusion_time": float(times[0])}
    return store_dense(adata, key, spectra[0], method="graph", params=params, centered=False, scale=scale, copy=copy)


def _spectra(
    s: Any, times: NDArray[np.float64], rank: float | None, degree: NDArray[np.float64], labels: NDArray[np.int32]
) -> list[Spectrum]:
    n = s.shape[0]
    remedy = f"pass rank= (an int below {n // 10}) for its leading eigenvectors"
    if rank is not None and is_low_rank(rank, n):
        few = leading_diffusion(s, times, rank, degree, labels)
        if few is not None:
            return few
        remedy = too_little_share(n, rank, "a longer diffusion_time")
    check_memory(n, n, remedy)
    return diffusion(s, times, rank)


def _weights(adata: AnnData, obsp: str) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """W without its diagonal, and its row sums."""
    if not isinstance(obsp, str):
        raise TypeError(f"obsp: must be a key of adata.obsp, received {received(obsp)}")
    if obsp not in adata.obsp:
        raise KeyError(
            f"obsp={obsp!r}: not in adata.obsp; make a graph first, e.g. scanpy.pp.neighbors(adata); {hint(obsp, adata.obsp)}"
        )
    w = adata.obsp[obsp]
    if w.dtype.kind not in "fiub":
        raise TypeError(f"obsp={obsp!r}: must hold real numbers, received dtype {w.dtype}")
    w = sparse.csr_array(w).astype(np.float64)
    if not np.isfinite(w.data).all():
        raise ValueError(
            f"obsp={obsp!r}: {int((~np.isfinite(w.data)).sum())} values are NaN or infinite; set them to 0"
        )
    if (w.data < 0).any():
        raise ValueError(
            f"obsp={obsp!r}: {int((w.data < 0).sum())} values are negative; weights of a graph are similarities, 0 for no edge"
        )
    w = w - sparse.diags_array(w.diagonal())
    difference = abs(w - w.T)
    # float32 weights are symmetric to their own precision only.
    if difference.nnz and difference.max() > 1e-6 * w.max():
        raise ValueError(
            f"obsp={obsp!r}: not symmetric (W and its transpose differ by up to {difference.max():.2g}); pass the connectivities, "
            "not the distances, of scanpy.pp.neighbors, or (W + W.T) / 2"
        )
    w = sparse.csr_array((w + w.T) / 2)
    w.eliminate_zeros()
    degree = np.asarray(w.sum(axis=1)).ravel()
    alone = np.flatnonzero(degree == 0)
    if alone.size:
        names = ", ".join(map(repr, adata.obs_names[alone[:5]]))
        raise ValueError(
            f"obsp={obsp!r}: {alone.size} of {adata.n_obs} observations have no neighbour ({names}{', …' if alone.size > 5 else ''}); "
            "drop them, or compute the graph again after subsetting, with more neighbours"
        )
    return w, degree
