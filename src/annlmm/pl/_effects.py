"""Effects and p-values of the features, of one coefficient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from annlmm._slots.access import check_adata

from ._read import one_of, phenotype_names, read_neg_log10_p, to_float, warn_of_zeros

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Effects:
    """β and −log₁₀ p of one coefficient, NaN where a feature was not tested."""

    beta: NDArray[np.float64]
    """Shape (n_vars,)."""
    neg_log10_p: NDArray[np.float64]
    """Shape (n_vars,)."""
    entry: Mapping[str, Any]
    """What `.uns` says of the results; empty where nothing."""


def read_effects(adata: AnnData, key: str, *, level: str | None, phenotype: str | None) -> Effects:
    """
    Read β and −log₁₀ p of every feature.

    Parameters
    ----------
    adata
        Annotated data after :func:`annlmm.tl.differential` or :func:`annlmm.tl.associate`.
    key
        Key of the results.
    level, phenotype
        One of several levels or phenotypes; None where there is one.
    """
    check_adata(adata)
    if not isinstance(key, str):
        raise TypeError(f"key={key!r}: expected the name of one result (str), got {type(key).__name__}")
    found = adata.uns.get(key)
    entry: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    if f"{key}_level_beta" in adata.varm:
        return Effects(*_of_level(adata, key, level, entry), entry)
    if level is not None:
        raise ValueError(f"level={level!r}: key={key!r} holds one coefficient; leave level=None")
    neg_log10_p = read_neg_log10_p(adata, key, phenotype)
    names = phenotype_names(adata, key)
    field = f"{key}_beta"
    if field not in (adata.var if names is None else adata.varm):
        raise KeyError(
            f"key={key!r}: adata.var has no column {field!r}, so that there are p-values and no effects; "
            f"a volcano plot needs the results of al.tl.differential or al.tl.associate"
        )
    if names is None:
        return Effects(to_float(adata.var[field]), neg_log10_p, entry)
    column = 0 if phenotype is None else names.index(phenotype)
    return Effects(np.asarray(adata.varm[field], dtype=np.float64)[:, column], neg_log10_p, entry)


def _of_level(
    adata: AnnData, key: str, level: str | None, entry: Mapping[str, Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    names = [str(name) for name in np.asarray(entry.get("levels", ()))]
    if not names:
        raise KeyError(f"key={key!r}: adata.uns[{key!r}]['levels'] is missing; run al.tl.differential again")
    column = one_of("level", level, names, f"key={key!r}")
    p = np.asarray(adata.varm[f"{key}_level_p_value"], dtype=np.float64)[:, column]
    with np.errstate(divide="ignore"):
        neg_log10_p = -np.log10(p)
    warn_of_zeros(neg_log10_p, f"level={level!r}: {{}} features", stacklevel=5)
    return np.asarray(adata.varm[f"{key}_level_beta"], dtype=np.float64)[:, column], neg_log10_p
