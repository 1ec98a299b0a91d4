"""The same input gives the same bits: in a second run, with more threads of ours or of BLAS, in smaller blocks; seeds are honoured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from helpers import cohort
from scipy import sparse
from threadpoolctl import threadpool_limits

import annlmm as al

M = 60


def data() -> AnnData:
    adata = cohort(80, M)
    adata.var["start"] = 1000 * np.arange(M)
    adata.var["chrom"] = "1"
    al.pp.kernel_group(adata, "donor", key_added="groups")
    al.pp.kernel_linear(adata, "X_pca")
    al.pp.kernel_grm(adata, key_added="grm")
    return adata


def genotype(adata: AnnData) -> AnnData:
    donors = list(adata.obs["donor"].cat.categories)
    out = AnnData(np.random.default_rng(1).binomial(2, 0.4, (len(donors), 30)).astype(float))
    out.obs_names = donors
    out.var["chrom"], out.var["pos"] = "1", 2000 * np.arange(30)
    return out


def fit_null(adata: AnnData, rng: int = 0) -> pd.DataFrame:
    al.tl.fit_null(adata, ["y", "y2"], covariates="age", kernel="grm", rng=rng)
    return adata.uns["lmm"]["fits"]


def associate(variance: str, kernel: str):
    def run(adata: AnnData, rng: int = 0) -> pd.DataFrame:
        al.tl.fit_null(adata, "y", covariates="age", kernel=kernel)
        al.tl.associate(adata, variance=variance)
        return al.get.association(adata)

    return run


def variance_components(adata: AnnData, rng: int = 0) -> pd.DataFrame:
    al.tl.variance_components(adata, "age", kernel="groups", rng=rng)
    return al.get.variance_components(adata)


def differential(adata: AnnData, rng: int = 0) -> pd.DataFrame:
    al.tl.differential(adata, "sex", "age", kernel="groups", moderate=True)
    return al.get.differential(adata)


def map_eqtl(adata: AnnData, rng: int = 0) -> pd.DataFrame:
    al.tl.map_eqtl(adata, genotype(adata), "donor", permutations=100, rng=rng)
    return al.get.eqtl(adata, level="gene")


RUNS = {
    "fit_null": fit_null,
    "associate": associate("null", "grm"),
    "associate, low rank": associate("null", "kernel"),
    "associate, groups": associate("null", "groups"),
    "associate, refit": associate("refit", "grm"),
    "variance_components": variance_components,
    "differential": differential,
    "map_eqtl": map_eqtl,
}
SIMULATED = {
    "fit_null": {
        "h_sq_ci_low", "h_sq_ci_high", "h_sq_p_value", "h_sq_neg_log10_p_value",
    },
    "variance_components": {"p_value", "neg_log10_p_value", "p_adjusted"},
    "map_eqtl": {"p_permutation", "p_beta", "permutation_df", "beta_shape1", "beta_shape2", "p_adjusted", "q_value"},
}  # fmt: skip


@contextmanager
def settings(threads: int = 1, block_memory: int | None = None) -> Iterator[None]:
    before = al.settings.threads, al.settings.block_memory
    al.settings.threads = threads
    if block_memory is not None:
        al.settings.block_memory = block_memory
    try:
        yield
    finally:
        al.settings.threads, al.settings.block_memory = before


def assert_close(got: pd.DataFrame, expected: pd.DataFrame, rtol: float) -> None:
    """The same texts and NaN, numbers to `rtol` (0: the same bits)."""
    pd.testing.assert_frame_equal(got, expected, check_exact=rtol == 0, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", RUNS)
def test_a_second_run_gives_the_same_bits(name):
    with settings():
        assert_close(RUNS[name](data()), RUNS[name](data()), 0)


@pytest.mark.parametrize("name", RUNS)
def test_threads_and_blocks(name):
    """12 digits, since products over other blocks add up in another order: n = 80 terms, cond(V) < 100; 9 where Newton ends.

    Degrees of freedom are quotients of second derivatives of the likelihood.
    """
    rtol = 1e-12 if name.startswith(("fit_null", "associate")) and "refit" not in name else 1e-9
    with settings():
        expected = RUNS[name](data())
    with settings(threads=2):
        assert_close(RUNS[name](data()), expected, rtol)
    with settings(threads=2, block_memory=20_000):
        assert_close(RUNS[name](data()), expected, rtol)
    with settings(), threadpool_limits(2, "blas"):
        assert_close(RUNS[name](data()), expected, rtol)


@pytest.mark.parametrize("name", ["associate", "associate, low rank", "associate, groups", "variance_components"])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asfortranarray])
def test_array_types(name, kind):
    """Sums about 0 and not about the first row: an offset of a few standard deviations costs a digit."""

    def converted() -> AnnData:
        adata = data()
        adata.X = kind(adata.X)
        return adata

    with settings():
        assert_close(RUNS[name](converted()), RUNS[name](data()), 1e-11)


@pytest.mark.parametrize("name", SIMULATED)
def test_seeds(name):
    """The same seed gives the same bits, another one other simulated values and nothing else."""
    with settings():
        first, again, other = RUNS[name](data(), 3), RUNS[name](data(), 3), RUNS[name](data(), 4)
    assert_close(again, first, 0)
    simulated = [column for column in first if column in SIMULATED[name]]
    assert_close(other.drop(columns=simulated), first.drop(columns=simulated), 0)
    assert not other[simulated].equals(first[simulated])
