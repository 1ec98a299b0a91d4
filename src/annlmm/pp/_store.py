"""What the kernels share: the checks, the scale, the write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData

from annlmm._settings import logger
from annlmm._slots.access import check_key, received, target
from annlmm._slots.kernel import write_dense_kernel
from annlmm.model.basis import DenseBasis
from annlmm.model.eigen import Spectrum


def check_kernel_key(adata: AnnData, key: str) -> str:
    """The key must not be that of something else in `.uns`."""
    check_key(key)
    entry = adata.uns.get(key)
    if entry is not None and not (isinstance(entry, Mapping) and "kind" in entry):
        raise ValueError(f"key_added={key!r}: adata.uns[{key!r}] holds something else; choose another key")
    if key in adata.obsm and entry is None:
        raise ValueError(f"key_added={key!r}: adata.obsm[{key!r}] holds something else; choose another key")
    return key


def store_dense(
    adata: AnnData,
    key: str,
    spectrum: Spectrum,
    *,
    method: str,
    params: Mapping[str, Any],
    centered: bool,
    scale: bool,
    copy: bool,
) -> AnnData | None:
    """Scale to t = 1 if asked for, write, tell."""
    trace = DenseBasis(spectrum.u, spectrum.eigenvalues).trace_scale
    if scale:
        if not trace > 1e-12 * spectrum.eigenvalues.max():
            raise ValueError("scale=True: the kernel is constant, its centred diagonal is zero; use scale=False")
        spectrum, trace = spectrum.scaled(1.0 / trace), 1.0
    out = target(adata, copy)
    write_dense_kernel(
        out, key, spectrum, method=method, params=dict(params) | {"scale": scale}, centered=centered, trace_scale=trace
    )
    if spectrum.n_clipped:
        logger.info(f"kernel_{method}: {spectrum.n_clipped} negative eigenvalues within round-off set to zero")
    logger.info(
        f"kernel_{method}: {adata.n_obs} observations, rank {spectrum.eigenvalues.size}"
        f"{f' ({100 * spectrum.explained:.1f} % of the trace)' if spectrum.explained < 1 else ''}\n    wrote .obsm[{key!r}] and .uns[{key!r}]"
    )
    return out if copy else None


def check_flag(argument: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{argument}: must be True or False, received {received(value)}")
    return bool(value)
