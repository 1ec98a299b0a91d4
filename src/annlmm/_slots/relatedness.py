"""The kernel of donors: what of `expression` or `genotype` says how their random effects are related."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import hint, received
from annlmm._slots.kernel import read_basis, read_kernel_matrix
from annlmm._slots.pair import Donors
from annlmm.model.basis import Basis, DenseBasis, GroupBasis, no_kernel
from annlmm.model.eigen import from_kernel

Float = NDArray[np.float64]
Index = NDArray[np.intp]


def aligned(frame: pd.DataFrame, names: pd.Index, argument: str, what: str) -> NDArray[Any]:
    """A square table in the order of `names`, matched by name."""
    rows, columns = frame.index.astype(str), frame.columns.astype(str)
    for axis, labels in (("rows", rows), ("columns", columns)):
        if not labels.is_unique:
            raise ValueError(f"{argument}: duplicated names in its {axis}, e.g. {labels[labels.duplicated()][0]!r}")
        lacking = names[~names.isin(labels)]
        if len(lacking):
            shown = ", ".join(map(repr, lacking[:5]))
            raise ValueError(
                f"{argument}: its {axis} lack {len(lacking)} of {len(names)} {what} by name ({shown}{', …' if len(lacking) > 5 else ''})"
            )
    values = frame.to_numpy()
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{argument}: must hold real numbers, received dtype {values.dtype}")
    return np.asarray(values[np.ix_(rows.get_indexer(names), columns.get_indexer(names))])


def _kernels(adata: AnnData) -> list[str]:
    return [key for key, entry in adata.uns.items() if isinstance(entry, Mapping) and "kind" in entry]


def check_kernel_key(expression: AnnData, genotype: AnnData, key: str) -> None:
    """A kernel of `expression`, not one that only `genotype` has."""
    if key in expression.uns:
        return
    if key in _kernels(genotype):
        raise KeyError(f"kernel={key!r}: not in expression.uns; genotype has it: pass relatedness={key!r}")
    raise KeyError(
        f"kernel={key!r}: not in expression.uns; make one of the donors, al.pp.kernel_group(expression, donor_key, key_added={key!r}), or leave "
        f"kernel out for a random intercept per donor; {hint(key, _kernels(expression))}"
    )


def read_relatedness(relatedness: Any, expression: AnnData, genotype: AnnData, donors: Donors) -> Float:
    """K_d of the matched donors, from a table or the key of a kernel in `genotype`."""
    if isinstance(relatedness, str):
        if relatedness not in genotype.uns:
            remedy = (
                f"expression has it: pass kernel={relatedness!r}"
                if relatedness in _kernels(expression)
                else f"make it first: al.pp.kernel_grm(genotype, key_added={relatedness!r}); {hint(relatedness, _kernels(genotype))}"
            )
            raise KeyError(f"relatedness={relatedness!r}: not in genotype.uns; {remedy}")
        relatedness = read_kernel_matrix(genotype, relatedness, "relatedness")
    if not isinstance(relatedness, pd.DataFrame):
        raise TypeError(
            "relatedness: must be a DataFrame named by the donors, as al.get.kernel(genotype) returns, or the key of a kernel in "
            f"genotype, received {received(relatedness)}"
        )
    return aligned(relatedness, donors.names, "relatedness", "donors").astype(np.float64)


def donor_basis(codes: Index, related: Float | None) -> Basis:
    """K = Z K_d Zᵀ; where each donor is one row, K_d itself, and least squares if there is none."""
    if np.bincount(codes).max() > 1:
        return GroupBasis(codes, related)
    if related is None:
        return no_kernel(codes.size)
    spectrum = from_kernel(related[np.ix_(codes, codes)], argument="relatedness")
    return DenseBasis(spectrum.u, spectrum.eigenvalues)


def stored_basis(expression: AnnData, key: str, donors: Donors) -> Basis:
    """A kernel of `expression`: any where each donor is one row; over cells one that is constant within donors."""
    basis = read_basis(expression, key, donors.rows)
    if donors.counts.max() == 1:
        return basis
    group = np.full(donors.counts.size, -1, dtype=np.intp)
    if isinstance(basis, GroupBasis):
        group[donors.codes] = basis.codes
    if not isinstance(basis, GroupBasis) or not np.array_equal(group[donors.codes], basis.codes):
        raise ValueError(
            f"kernel={key!r}: varies within donors; over cells it must be one of al.pp.kernel_group with the donors (or what they "
            "are grouped by) as groups, which may be related; leave kernel out for a random intercept per donor, or aggregate "
            "first (al.pp.pseudobulk)"
        )
    related = np.eye(basis.counts.size) if basis.relatedness is None else basis.relatedness
    independent = basis.relatedness is None and np.unique(group).size == group.size
    return GroupBasis(donors.codes, None if independent else related[np.ix_(group, group)])
