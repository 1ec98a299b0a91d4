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


def donors_with_fit() -> AnnData:
    """Cells of 12 donors, dense log counts in X, with a donor kernel and a null model."""
    adata = al.datasets.donors(n_donors=12, cells_per_donor=25, n_genes=40, rng=5)
    adata.X = np.asarray(adata.layers["logcounts"].toarray(), dtype=np.float64)
    for layer in list(adata.layers):
        if layer is not None:
            del adata.layers[layer]
    al.pp.kernel_group(adata, "donor_id")
    al.tl.fit_null(adata, "phenotype", covariates=["age", "batch"], gamma=0.5)
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


def assert_same(now: Any, then: Any, where: str = "adata") -> None:
    """Equal in value, dtype and type."""
    if isinstance(then, Mapping):
        assert set(now) == set(then), f"{where}: keys {set(now) ^ set(then)}"
        for key in then:
            assert_same(now[key], then[key], f"{where}[{key!r}]")
    elif isinstance(then, pd.DataFrame):
        pd.testing.assert_frame_equal(now, then, check_exact=True, obj=where)
    elif sparse.issparse(then):
        assert type(now) is type(then), where
        assert_same(now.toarray(), then.toarray(), where)
    elif isinstance(then, np.ndarray):
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


def everything() -> AnnData:
    """Every field of the schema: kernels, null models and associations of all kinds, with all statuses."""
    adata = cohort(40, 14)
    adata.X[:, 1], adata.X[:, 2], adata.X[:, 3] = 1.0, adata.obs["age"], np.nan
    adata.var["genotype"] = np.arange(14) > 3
    adata.var["chrom"] = pd.Categorical(["1"] * 9 + ["X"] * 5)
    donors = list(adata.obs["donor"].cat.categories)
    al.pp.kernel_grm(adata, "genotype")
    al.pp.kernel_linear(adata, "X_pca", key_added="linear")
    al.pp.kernel_precomputed(adata, np.eye(40) + 0.5, rank=39, key_added="given")
    al.pp.kernel_group(adata, "donor", key_added="groups")
    al.pp.kernel_group(adata, "donor", relatedness=relatedness([*donors, "other"]), key_added="related")
    al.pp.kernel_rbf(adata, "X_pca", length_scale=[0.5, 2.0], key_added="spatial")
    al.tl.fit_null(adata, "y", covariates="~ age + C(sex)", kernel="groups")
    al.tl.fit_null(
        adata, ["y", "y2"], covariates=["age", "batch"], kernel="related", mask_obs="kept", key_added="several"
    )
    al.tl.fit_null(adata, "y2", kernel=None, key_added="ols")
    al.tl.fit_null(adata, "y3", gamma=0.0, reml=False, key_added="given_gamma")
    al.tl.fit_null(adata, ["y", "y2"], key_added="genomic")
    some = np.arange(14) < 13
    al.tl.associate(adata, mask_var=some)
    al.tl.associate(adata, "several", mask_var=some)
    al.tl.associate(adata, variance="refit", key_added="refit")
    al.tl.associate(adata, "several", test="lrt", variance="screen", key_added="screen")
    al.tl.associate(adata, "several", test=["wald", "lrt", "score"], key_added="three")
    al.tl.associate(adata, test=["score", "wald"], variance="refit", key_added="two")
    al.tl.associate(adata, "genomic", loco="chrom")
    al.tl.variance_components(adata, "age", kernel="groups", mask_var=some)
    al.tl.variance_components(adata, "age", kernel="spatial", mask_var=some, key_added="scales")
    al.tl.differential(adata, "sex", "age", kernel="groups", mask_var=some, moderate=True)
    al.tl.differential(adata, "batch", "age", kernel="related", key_added="joint")
    adata.var["start"] = 1000 * np.arange(14)
    genotype = AnnData(np.random.default_rng(1).binomial(2, 0.4, (len(donors), 6)).astype(float))
    genotype.obs_names = donors
    genotype.var["chrom"], genotype.var["pos"], genotype.var["a1"] = "1", 1500 * np.arange(6), list("ACGTAC")
    al.tl.map_eqtl(adata, genotype, "donor", permutations=100, conditional=True, fdr=1.0)
    al.tl.map_eqtl(adata, genotype, "donor", window=None, threshold=0.5, key_added="trans")
    al.tl.map_eqtl(adata, genotype, "donor", interaction="age", key_added="slopes")
    return adata


def portable(adata: AnnData) -> dict[str, Any]:
    """Every value of adata with its dtype, by its path, as JSON holds it: text is text, however it is stored."""
    flat: dict[str, Any] = {}

    def add(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key in value:
                add(f"{path}/{key}", value[key])
        elif isinstance(value, pd.DataFrame):
            flat[path] = ["DataFrame", [str(c) for c in value.columns], [str(i) for i in value.index]]
            for column in value:
                add(f"{path}/{column}", value[column].array)
        elif isinstance(value, pd.Categorical):
            flat[path] = ["category", bool(value.ordered), [str(c) for c in value.categories], value.codes.tolist()]
        elif isinstance(value, pd.api.extensions.ExtensionArray):
            add(path, np.asarray(value))
        elif isinstance(value, np.ndarray) and value.dtype.kind in "OTU":
            flat[path] = ["text", list(value.shape), [str(v) for v in value.ravel()]]
        elif isinstance(value, np.ndarray) and value.ndim:
            flat[path] = [value.dtype.name, list(value.shape), [repr(v) for v in value.ravel().tolist()]]
        else:
            value = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
            flat[path] = [type(value).__name__, repr(value)]

    whole = {
        slot: {key: getattr(adata, slot)[key] for key in getattr(adata, slot) if key is not None} for slot in SLOTS
    }
    add("", {"X": adata.X, "obs": adata.obs, "var": adata.var, **whole})
    return flat


def work_again(adata: AnnData) -> None:
    """The functions on what was read: the stored scans come out again."""
    for key, options in (
        ("lmm", {"mask_var": np.arange(14) < 13}),
        ("several", {"mask_var": np.arange(14) < 13}),
        ("genomic", {"loco": "chrom"}),
    ):
        before = al.get.association(adata, key)
        al.tl.associate(adata, key, **options)
        after = al.get.association(adata, key)
        assert after["status"].tolist() == before["status"].tolist()
        for name in ("beta", "p_value"):  # another BLAS may have made it
            np.testing.assert_allclose(after[name], before[name], rtol=1e-7)
    for key in ("kernel", "linear", "given", "groups", "related"):
        assert al.get.kernel(adata, key).shape == (40, 40)
        al.tl.fit_null(adata, "y", kernel=key, gamma=1.0, key_added=f"on_{key}")
    for key, phenotype in (("lmm", None), ("several", "y2"), ("given_gamma", None)):
        al.get.null_model(adata, key, phenotype=phenotype)
    al.tl.fit_null(adata, ["y2", "y3"], kernel="related", gamma=1.0)
    al.tl.associate(adata)
