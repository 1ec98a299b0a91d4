"""What the AnnData tests share: a small cohort, snapshots, captured messages, comparison by value and type.

Imported as `helpers` (pytest's `pythonpath`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import annlmm as al

SLOTS = ("layers", "obsm", "varm", "obsp", "uns")


def cohort(n: int = 40, m: int = 12, *, seed: int = 0) -> AnnData:
    """n observations of n / 5 donors (not sorted by donor) × m dosages, with an effect of the donor on y."""
    rng = np.random.default_rng(seed)
    adata = AnnData(rng.binomial(2, rng.uniform(0.2, 0.5, m), (n, m)).astype(float))
    adata.obs_names = [f"s{i}" for i in range(n)]
    adata.var_names = [f"v{j}" for j in range(m)]
    donor = rng.permutation(np.arange(n) % (n // 5))
    adata.obs["donor"] = pd.Categorical([f"d{d}" for d in donor])
    adata.obs["age"] = rng.uniform(20, 80, n)
    adata.obs["sex"] = pd.Categorical(rng.choice(["f", "m"], n))
    adata.obs["batch"] = rng.choice(["a", "b", "c"], n)
    effect = rng.standard_normal(n // 5)[donor]
    adata.obs["y"] = 3 + effect + 0.03 * adata.obs["age"] + rng.standard_normal(n)
    for name in ("y2", "y3"):
        adata.obs[name] = np.where(rng.uniform(size=n) < 0.15, np.nan, rng.standard_normal(n) + effect)
    adata.obs["kept"] = rng.uniform(size=n) < 0.8
    adata.obsm["X_pca"] = rng.standard_normal((n, 2))
    adata.var["chosen"] = rng.uniform(size=m) < 0.7
    return adata


def relatedness(names: list[str], seed: int = 1) -> pd.DataFrame:
    """A positive definite matrix with these names."""
    z = np.random.default_rng(seed).standard_normal((len(names), 2 * len(names)))
    return pd.DataFrame(z @ z.T / z.shape[1], index=names, columns=names)


def snapshot(adata: AnnData) -> dict[str, Any]:
    """Everything that adata holds, copied."""
    whole = {slot: {key: getattr(adata, slot)[key] for key in getattr(adata, slot)} for slot in SLOTS}
    return deepcopy({"X": adata.X, "obs": adata.obs, "var": adata.var, **whole})


@contextmanager
def untouched(adata: AnnData, besides: str | None = None) -> Iterator[None]:
    """What is inside changes nothing of adata, or nothing besides what it writes to the slots under one key."""
    before = snapshot(adata)
    yield
    after = snapshot(adata)
    if besides is not None:
        assert any(besides in after[slot] and besides not in before[slot] for slot in SLOTS)
        for slot in SLOTS:
            after[slot].pop(besides, None)
    assert_same(after, before)


def assert_same(now: Any, then: Any, where: str = "adata", *, strings: bool = False) -> None:
    """Equal in value, dtype and type; with `strings`, arrays of text may differ in how they store it."""
    if isinstance(then, Mapping):
        assert set(now) == set(then), f"{where}: keys {set(now) ^ set(then)}"
        for key in then:
            assert_same(now[key], then[key], f"{where}[{key!r}]", strings=strings)
    elif isinstance(then, pd.DataFrame):
        index = {"check_index_type": not strings, "check_column_type": not strings}
        pd.testing.assert_frame_equal(now, then, check_exact=True, obj=where, **index)
    elif sparse.issparse(then):
        assert type(now) is type(then), where
        assert_same(now.toarray(), then.toarray(), where)
    elif isinstance(then, np.ndarray):
        if strings and then.dtype.kind in "OTU":
            assert now.dtype.kind in "OTU", f"{where}: {now.dtype}"
            assert now.astype(object).tolist() == then.astype(object).tolist(), where
            return
        assert now.dtype == then.dtype, f"{where}: {now.dtype} is not {then.dtype}"
        np.testing.assert_array_equal(now, then, err_msg=where)
    elif isinstance(then, (float, np.floating)):
        assert isinstance(now, (float, np.floating)), where
        assert now == then or (np.isnan(now) and np.isnan(then)), where
    else:
        kinds = next((k for k in ((bool, np.bool_), (int, np.integer), (str,)) if isinstance(then, k)), (type(then),))
        assert isinstance(now, kinds), f"{where}: {type(now)} is not {type(then)}"
        assert now == then, where


@contextmanager
def messages(verbosity: int | str = "info") -> Iterator[list[str]]:
    """The package's messages at this verbosity, as 'LEVEL text'."""
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
    logger = logging.getLogger("annlmm")
    before = al.settings.verbosity
    logger.addHandler(handler)
    al.settings.verbosity = verbosity
    try:
        yield seen
    finally:
        logger.removeHandler(handler)
        al.settings.verbosity = before
