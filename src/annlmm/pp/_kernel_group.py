from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from annlmm._settings import logger
from annlmm._slots.access import check_adata, target
from annlmm._slots.kernel import group_labels, write_group_kernel
from annlmm._slots.schema import documents
from annlmm.model.basis import GroupBasis
from annlmm.model.eigen import from_kernel
from annlmm.pp._kernel_precomputed import aligned
from annlmm.pp._store import check_flag, check_kernel_key


@documents("kernel", without="(dense)")
def kernel_group(
    adata: AnnData,
    groupby: str,
    *,
    relatedness: pd.DataFrame | None = None,
    scale: bool = False,
    key_added: str = "kernel",
    copy: bool = False,
) -> AnnData | None:
    """A random intercept per group (donor, batch, plate): K = Z K_d Zᵀ, lme4's ``(1 | group)`` for K_d = I.

    Only the grouping is stored; no n × n or n × r matrix is made.

    Parameters
    ----------
    adata
        Observations (cells) × features.
    groupby
        Column of `.obs` with the group labels; rows without a label are left out of the fits.
    relatedness
        K_d, groups × groups, e.g. ``al.get.kernel(genotype)``: matched by name, extra groups ignored. Independent groups if None.
    scale
        Divide by the mean diagonal of the centred kernel. By default not: σ² is then lme4's variance between groups and h² the
        intraclass correlation.
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
        If there is no such column.
    ValueError
        If there are fewer than two groups, every group has one observation (and no relatedness), or `relatedness` lacks a group
        (named), is not symmetric or not positive semi-definite.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.donors(n_donors=6, n_genes=30)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> adata.uns["kernel"]["groups"].size
    6
    """
    check_adata(adata)
    key, scale = check_kernel_key(adata, key_added), check_flag("scale", scale)
    labels = group_labels(adata, groupby)
    present = labels.notna().to_numpy(dtype=bool)
    codes, groups = pd.factorize(labels[present], sort=True)
    if len(groups) < 2:
        raise ValueError(
            f"groupby={groupby!r}: {len(groups)} group{'s' if len(groups) != 1 else ''}; a random intercept needs at least two"
        )
    if relatedness is None and len(groups) == codes.size:
        raise ValueError(
            f"groupby={groupby!r}: all {codes.size} groups have one observation, which is the residual; name a column that repeats, or pass relatedness"
        )
    related = None
    if relatedness is not None:
        if not isinstance(relatedness, pd.DataFrame):
            raise TypeError(
                f"relatedness: must be a DataFrame named by the groups, as al.get.kernel returns, received {type(relatedness).__name__}"
            )
        related = np.asarray(aligned(relatedness, pd.Index(groups), "relatedness", "groups"), dtype=np.float64)
        from_kernel(related, argument="relatedness")
    trace = GroupBasis(codes.astype(np.intp), related).trace_scale
    if scale:
        if not trace > 1e-12 * np.abs(np.diagonal(related) if related is not None else 1.0).max():
            raise ValueError("scale=True: the kernel is constant, its centred diagonal is zero; use scale=False")
        related = (np.eye(len(groups)) if related is None else related) / trace
        trace = 1.0
    out = target(adata, copy)
    params = {"groupby": groupby, "relatedness": relatedness is not None, "scale": scale}
    write_group_kernel(out, key, groupby, [str(g) for g in groups], related, params, trace)
    missing = int((~present).sum())
    logger.info(
        f"kernel_group: {codes.size} observations in {len(groups)} groups of {groupby!r}"
        f"{f', {missing} without a label left out' if missing else ''}\n    wrote .uns[{key!r}]"
    )
    return out if copy else None
