from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import logger
from annlmm._slots.access import check_adata, target
from annlmm._slots.kernel import group_labels
from annlmm._slots.kernel_write import Slots, family_slots, group_slots, member_key, write_kernel
from annlmm._slots.relatedness import aligned
from annlmm._slots.schema import documents
from annlmm.model.basis import GroupBasis
from annlmm.model.eigen import from_kernel
from annlmm.pp._store import check_flag, check_kernel_key, one_or_several, tell_family

Float = NDArray[np.float64]

# Values of a column of floats that are labels (a plate, a donor's number beside missing ones) without a doubt.
FEW = 20


@documents("kernel", without="(dense)", family=True)
def kernel_group(
    adata: AnnData,
    groupby: str,
    *,
    relatedness: pd.DataFrame | None = None,
    rho: float | Sequence[float] | None = None,
    scale: bool = False,
    key_added: str = "kernel",
    copy: bool = False,
) -> AnnData | None:
    """A random intercept per group (donor, batch, plate): K = Z K_d Zᵀ, lme4's ``(1 | group)`` for K_d = I.

    With the relatedness G of the groups, K_d = ρG + (1−ρ)I: of the variance between groups, the share ρ follows G.
    Only the grouping is stored; no n × n or n × r matrix is made.

    Parameters
    ----------
    adata
        Observations (cells) × features.
    groupby
        Column of `.obs` with the group labels; rows without a label are left out of the fits. A column of floats with many
        values is taken for labels too, with a warning. The labels are read when the kernel is used: change them, and the kernel
        has changed.
    relatedness
        G, groups × groups, e.g. ``al.get.kernel(genotype)`` of a donors × variants AnnData: matched by name, extra
        groups ignored. Independent groups (K_d = I) if None.
    rho
        ρ, between 0 (independent groups) and 1 (K_d = G, also if None). At 1, whatever else donors differ in must pass
        for genetic. A list makes a family: one kernel per ρ, under ``f"{key_added}_{i}"``.
    scale
        Divide by the mean diagonal of the centred kernel. By default not: σ² is then lme4's variance between groups and
        h² the intraclass correlation.
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
        If there is no such column.
    ValueError
        If there are fewer than two groups, every group has one observation (and no relatedness, or ρ = 0),
        `relatedness` lacks a group (named), is not symmetric or not positive semi-definite, or `rho` is not between 0
        and 1 or has no relatedness to weigh.

    Notes
    -----
    Let G have a mean diagonal of 1, as `al.pp.kernel_grm` makes it (`scale=True`): σ² is then the variance between
    groups at any ρ, and ρ the heritable share of it.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.donors(n_donors=6, n_genes=30)
    >>> al.pp.kernel_group(adata, "donor_id")
    >>> adata.uns["kernel"]["groups"].size
    6

    Donors related by their genotypes, in half of what they differ in:

    >>> donors = al.datasets.gwas_cohort(n_obs=6, n_vars=200)
    >>> donors.obs_names = adata.uns["kernel"]["groups"]
    >>> al.pp.kernel_grm(donors)
    >>> al.pp.kernel_group(adata, "donor_id", relatedness=al.get.kernel(donors), rho=0.5)
    """
    check_adata(adata)
    scale = check_flag("scale", scale)
    shares, several = (np.ones(1), False) if rho is None else one_or_several("rho", rho, 0.0, 1.0)
    key = check_kernel_key(adata, key_added, shares.size if several else 0)
    if rho is not None and relatedness is None:
        raise ValueError(
            "rho: weighs a relatedness matrix against independent groups; pass relatedness=, or leave it out"
        )
    labels = group_labels(adata, groupby)
    present = labels.notna().to_numpy(dtype=bool)
    codes, groups = pd.factorize(labels[present], sort=True)
    if len(groups) < 2:
        raise ValueError(
            f"groupby={groupby!r}: {len(groups)} group{'s' if len(groups) != 1 else ''}; a random intercept needs at least two"
        )
    if len(groups) == codes.size and (relatedness is None or 0.0 in shares):
        what = "name a column that repeats, or pass relatedness" + ("" if relatedness is None else " with rho above 0")
        raise ValueError(
            f"groupby={groupby!r}: all {codes.size} groups have one observation, which is the residual; {what}"
        )
    if pd.api.types.is_float_dtype(adata.obs[groupby].dtype) and len(groups) > max(FEW, codes.size / 10):
        logger.warning(
            f"kernel_group: {groupby!r} is a column of numbers with {len(groups)} values in {codes.size} observations, each of which becomes a "
            f"group. A measurement is a covariate, or a place: al.pp.kernel_rbf. If these are labels: adata.obs[{groupby!r}].astype('category')"
        )
    g = None if relatedness is None else _matched(relatedness, pd.Index(groups), groupby)
    params = {"groupby": groupby, "relatedness": g is not None, "scale": scale}
    members: list[Slots] = []
    for i, share in enumerate(shares):
        related = None if g is None else share * g + (1 - share) * np.eye(len(groups)) if share < 1 else g
        related, trace = _scaled(codes.astype(np.intp), related, scale)
        own = params if rho is None else params | {"rho": float(share)}
        name, family = (member_key(key, i), key) if several else (key, None)
        members.append(group_slots(adata, name, groupby, [str(x) for x in groups], related, own, trace, family))
    out = target(adata, copy)
    slots = members[0]
    if several:
        slots = family_slots(out, key, members, method="group", parameter="rho", params=params | {"rho": shares})
    write_kernel(out, key, slots)
    missing = int((~present).sum())
    logger.info(
        f"kernel_group: {codes.size} observations in {len(groups)} groups of {groupby!r}"
        f"{f', {missing} without a label left out' if missing else ''}"
        + (f"\n    wrote .uns[{key!r}]" if not several else "")
    )
    if several:
        tell_family(key, len(members))
    return out if copy else None


def _matched(relatedness: pd.DataFrame, groups: pd.Index, groupby: str) -> Float:
    """G in the order of the groups."""
    if not isinstance(relatedness, pd.DataFrame):
        raise TypeError(
            f"relatedness: must be a DataFrame named by the groups, as al.get.kernel returns, received {type(relatedness).__name__}"
        )
    names = relatedness.index.astype(str)
    lacking = groups[~groups.isin(names)]
    if len(lacking):
        raise ValueError(
            f"relatedness: its rows lack {len(lacking)} of {len(groups)} groups by name ({_some(lacking)}), they are named {_some(names)}; "
            f"add or rename rows and columns, or leave out the observations, with a missing label in {groupby!r}"
        )
    related = np.asarray(aligned(relatedness, groups, "relatedness", "groups"), dtype=np.float64)
    from_kernel(related, argument="relatedness")
    return related


def _some(names: pd.Index) -> str:
    return ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")


def _scaled(codes: NDArray[np.intp], related: Float | None, scale: bool) -> tuple[Float | None, float]:
    """K_d, divided by t if asked for, and t."""
    basis = GroupBasis(codes, related)
    trace = basis.trace_scale
    if not scale:
        return related, trace
    if not trace > 1e-12 * (np.abs(np.diagonal(related)).max() if related is not None else 1.0):
        raise ValueError("scale=True: the kernel is constant, its centred diagonal is zero; use scale=False")
    return (np.eye(basis.counts.size) if related is None else related) / trace, 1.0
