"""What the kernels share: the checks, the scale, the write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import logger
from annlmm._slots.access import check_memory, received, target
from annlmm._slots.kernel_write import (
    Slots,
    dense_slots,
    family_slots,
    member_key,
    write_kernel,
)
from annlmm._slots.kernel_write import check_kernel_key as check_kernel_key
from annlmm.model.basis import DenseBasis
from annlmm.model.eigen import Spectrum, doubling, is_low_rank
from annlmm.model.low_rank import basis_size


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
    slots = _scaled_slots(adata, key, spectrum, scale, method=method, params=params, centered=centered)
    out = target(adata, copy)
    write_kernel(out, key, slots)
    _tell(adata, spectrum, method, wrote=f"\n    wrote .obsm[{key!r}] and .uns[{key!r}]")
    return out if copy else None


def store_dense_family(
    adata: AnnData,
    key: str,
    spectra: Sequence[Spectrum],
    *,
    method: str,
    parameter: str,
    values: NDArray[np.float64],
    params: Mapping[str, Any],
    scale: bool,
    copy: bool,
) -> AnnData | None:
    """The same for kernels that differ in `parameter`, each scaled on its own."""
    members: list[Slots] = []
    for i, (spectrum, value) in enumerate(zip(spectra, values, strict=True)):
        own = dict(params) | {parameter: float(value)}
        name = f"{parameter}={value:.4g}: "
        slots = _scaled_slots(
            adata, member_key(key, i), spectrum, scale, name, method=method, params=own, centered=False, family=key
        )
        members.append(slots)
    out = target(adata, copy)
    every = dict(params) | {parameter: values, "scale": scale}
    write_kernel(out, key, family_slots(out, key, members, method=method, parameter=parameter, params=every))
    for spectrum, value in zip(spectra, values, strict=True):
        _tell(adata, spectrum, method, f"{parameter}={value:.4g}, ")
    tell_family(key, len(members))
    return out if copy else None


def tell_family(key: str, n_members: int) -> None:
    logger.info(f"    wrote the family .uns[{key!r}] of {member_key(key, 0)!r} to {member_key(key, n_members - 1)!r}")


def _scaled_slots(
    adata: AnnData,
    key: str,
    spectrum: Spectrum,
    scale: bool,
    name: str = "",
    *,
    params: Mapping[str, Any],
    **entry: Any,
) -> Slots:
    trace = DenseBasis(spectrum.u, spectrum.eigenvalues).trace_scale
    if scale:
        if not trace > 1e-12 * spectrum.eigenvalues.max():
            raise ValueError(f"{name}scale=True: the kernel is constant, its centred diagonal is zero; use scale=False")
        spectrum, trace = spectrum.scaled(1.0 / trace), 1.0
    return dense_slots(adata, key, spectrum, params=dict(params) | {"scale": scale}, trace_scale=trace, **entry)


def _tell(adata: AnnData, spectrum: Spectrum, method: str, name: str = "", wrote: str = "") -> None:
    if spectrum.n_clipped:
        logger.info(f"kernel_{method}: {name}{spectrum.n_clipped} eigenvalues are zero but for round-off: left out")
    logger.info(
        f"kernel_{method}: {name}{adata.n_obs} observations, rank {spectrum.eigenvalues.size}"
        f"{f' ({100 * spectrum.explained:.1f} % of the trace)' if spectrum.explained < 1 else ''}{wrote}"
    )


def check_rank_memory(n: int, rank: float | None) -> None:
    """Refuse more eigenvectors than memory takes while they are found by iterations."""
    if isinstance(rank, (int, np.integer)) and is_low_rank(rank, n):
        check_memory(n, basis_size(n, int(rank)), "pass a smaller rank=")


def too_little_share(n: int, rank: float, otherwise: str) -> str:
    """The remedy where iterations did not reach a share of the trace."""
    return f"its leading {max(doubling(n))} eigenvectors carry less than rank={rank} of the trace; pass rank= as an int, or {otherwise}"


def check_flag(argument: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{argument}: must be True or False, received {received(value)}")
    return bool(value)


def one_or_several(
    argument: str, value: Any, low: float, high: float, *, open_low: bool = False
) -> tuple[NDArray[np.float64], bool]:
    """A parameter's values, and whether a list of them was given, which makes a family."""
    several = isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) > 0
    items = list(value) if several else [value]
    if not items:
        raise ValueError(f"{argument}: an empty list; pass a number, or several for a family of kernels")
    for item in items:
        if isinstance(item, (bool, np.bool_)) or not isinstance(item, (int, float, np.integer, np.floating)):
            raise TypeError(f"{argument}: must be a number or a list of numbers, received {received(item)}")
        if not (low < item if open_low else low <= item) or not item <= high or not np.isfinite(item):
            span = f"between {low:g} and {high:g}"
            if open_low:
                span = "positive, finite numbers" if several else "a positive, finite number"
            raise ValueError(f"{argument}: must be {span}, received {item!r}")
    values = np.array(items, dtype=np.float64)
    if np.unique(values).size < values.size:
        raise ValueError(f"{argument}: a value is listed twice, received {received(value)}")
    return values, several
