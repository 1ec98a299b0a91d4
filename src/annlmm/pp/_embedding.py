from __future__ import annotations

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._slots.access import hint, numeric, received
from annlmm._slots.design import obsm_frame


def check_embedding(adata: AnnData, obsm: str, key: str) -> None:
    """A key of `.obsm`, and not the one that the kernel is written to."""
    if not isinstance(obsm, str):
        raise TypeError(f"obsm: must be a key of adata.obsm, received {received(obsm)}")
    if obsm not in adata.obsm:
        raise KeyError(f"obsm={obsm!r}: not in adata.obsm; {hint(obsm, adata.obsm)}")
    if obsm == key:
        raise ValueError(f"key_added={key!r}: is the key of the factor itself; choose another")


def embedding(adata: AnnData, obsm: str) -> NDArray[np.float64]:
    """An array of `.obsm` as n × m float64 without gaps."""
    frame = obsm_frame(adata, obsm)
    z = np.stack([numeric(frame[c], f"obsm {c!r}") for c in frame.columns], axis=1)
    if not np.isfinite(z).all():
        raise ValueError(
            f"obsm={obsm!r}: NaN or infinite values in {int((~np.isfinite(z)).any(axis=1).sum())} rows; drop or impute them"
        )
    return z
