"""Annotations of a lazy AnnData (`anndata.experimental.read_lazy`) in memory; `.X` and the layers stay where they are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
from anndata import AnnData, ImplicitModificationWarning

from annlmm._settings import logger


def is_lazy(adata: AnnData) -> bool:
    """Whether `.obs` or `.var` are not in memory."""
    return not (isinstance(adata.obs, pd.DataFrame) and isinstance(adata.var, pd.DataFrame))


def load_annotations(adata: AnnData) -> None:
    """Replace lazy `.obs`, `.var`, frames of `.obsm` and entries that annlmm wrote to `.uns` by what they hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        for axis in ("obs", "var"):
            frame = getattr(adata, axis)
            if not isinstance(frame, pd.DataFrame):
                setattr(adata, axis, frame.to_memory())
        for key in list(adata.obsm):
            if hasattr(adata.obsm[key], "to_memory"):
                adata.obsm[key] = adata.obsm[key].to_memory()
        for key, entry in list(adata.uns.items()):
            if isinstance(entry, Mapping) and "schema_version" in entry:
                adata.uns[key] = _in_memory(entry)
    logger.info("lazy AnnData: .obs, .var and annlmm's entries of .uns were loaded; .X stays on disk")


def _in_memory(value: Any) -> Any:
    if hasattr(value, "to_memory"):  # a frame, which is also a mapping
        return value.to_memory()
    if isinstance(value, Mapping):
        return {key: _in_memory(part) for key, part in value.items()}
    return value.compute() if hasattr(value, "compute") else value  # a dask array
