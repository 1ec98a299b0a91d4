"""`al.pp.kernel_group` with the relatedness of donors and `rho`: ρG + (1−ρ)I, alone and in families."""

from __future__ import annotations

import anndata as ad
import numpy as np
import oracle
import pandas as pd
import pytest
from helpers import assert_same, cohort, messages, portable, relatedness, untouched
from oracle import group_kernel

import annlmm as al
from annlmm._slots.kernel import read_family

DONORS = [f"d{i}" for i in range(8)]


def genotypes(names=DONORS, m=80, seed=0):
    """A donors × variants AnnData with its relationship matrix."""
    adata = cohort(10 * len(names), m, seed=seed)[: len(names)].copy()
    adata.obs_names = names
    al.pp.kernel_grm(adata)
    return adata


def stored(adata, key="kernel"):
    return al.get.kernel(adata, key).to_numpy()


def codes(adata):
    return adata.obs["donor"].cat.codes.to_numpy()


def test_takes_the_kernel_of_a_donors_anndata():
    """In another order, with donors of whom there are no cells."""
    donors = genotypes(["x", *DONORS[::-1], "y"])
    adata = cohort()
    al.pp.kernel_group(adata, "donor", relatedness=al.get.kernel(donors))
    g = al.get.kernel(donors).loc[DONORS, DONORS].to_numpy()
    np.testing.assert_allclose(stored(adata), group_kernel(codes(adata), g), rtol=0, atol=1e-14)
    assert list(adata.uns["kernel"]["groups"]) == DONORS
    assert "rho" not in adata.uns["kernel"]["params"]


@pytest.mark.parametrize("names", [range(8), [float(i) for i in range(8)]], ids=["int", "float"])
def test_donors_that_are_numbers(names):
    adata = cohort()
    adata.obs["donor"] = pd.Series(np.asarray(list(names))[codes(adata)], index=adata.obs_names)
    donors = genotypes([str(i) for i in range(8)])
    al.pp.kernel_group(adata, "donor", relatedness=al.get.kernel(donors), rho=0.3)
    g = 0.3 * al.get.kernel(donors).to_numpy() + 0.7 * np.eye(8)
    np.testing.assert_allclose(
        stored(adata), group_kernel(adata.obs["donor"].to_numpy().astype(int), g), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("rho", [0, 0.0, 0.25, 1, 1.0, np.float32(0.5)])
@pytest.mark.parametrize("scale", [False, True])
def test_rho_mixes_relatedness_with_independent_donors(rho, scale):
    adata = cohort()
    g = relatedness(DONORS)
    al.pp.kernel_group(adata, "donor", relatedness=g, rho=rho, scale=scale)
    k = group_kernel(codes(adata), float(rho) * g.to_numpy() + (1 - float(rho)) * np.eye(8))
    h = oracle.centring(40)
    t = np.trace(h @ k @ h) / 40
    np.testing.assert_allclose(stored(adata), k / (t if scale else 1), rtol=1e-13, atol=1e-14)
    entry = adata.uns["kernel"]
    assert entry["params"]["rho"] == float(rho)
    assert entry["trace_scale"] == pytest.approx(1.0 if scale else t, rel=1e-12)


def test_rho_of_one_is_the_default_and_of_zero_independent_donors():
    adata = cohort()
    g = relatedness(DONORS)
    for key, options in {"default": {}, "one": {"rho": 1.0}, "zero": {"rho": 0.0}}.items():
        al.pp.kernel_group(adata, "donor", relatedness=g, key_added=key, **options)
    al.pp.kernel_group(adata, "donor", key_added="independent")
    np.testing.assert_array_equal(adata.uns["one"]["relatedness"], adata.uns["default"]["relatedness"])
    np.testing.assert_array_equal(stored(adata, "zero"), stored(adata, "independent"))
    for key in ("zero", "independent"):
        al.tl.fit_null(adata, "y", kernel=key, key_added=f"on_{key}")
    for field in ("sigma_sq", "tau_sq", "log_likelihood"):
        assert adata.uns["on_zero"][field] == pytest.approx(adata.uns["on_independent"][field], rel=1e-10)


@pytest.mark.parametrize("rows", [np.arange(40)[::-1], np.arange(5, 26)], ids=["permuted", "some"])
def test_a_subset_is_the_subset(rows):
    adata = cohort()
    al.pp.kernel_group(adata, "donor", relatedness=relatedness(DONORS), rho=0.4)
    np.testing.assert_allclose(stored(adata[rows].copy()), stored(adata)[np.ix_(rows, rows)], rtol=0, atol=1e-14)


def test_fit_null_is_the_oracles():
    adata = cohort(120)
    names = [f"d{i}" for i in range(24)]
    g = relatedness(names).to_numpy()
    rng = np.random.default_rng(2)
    donor = adata.obs["donor"].astype(str).str[1:].astype(int).to_numpy()
    k = 0.5 * g + 0.5 * np.eye(24)
    adata.obs["y"] = 2 * (np.linalg.cholesky(k) @ rng.standard_normal(24))[donor] + rng.standard_normal(120)
    al.pp.kernel_group(adata, "donor", relatedness=pd.DataFrame(g, names, names), rho=0.5)
    al.tl.fit_null(adata, "y", covariates=["age"])
    expected = oracle.fit(
        adata.obs["y"].to_numpy(), np.column_stack([np.ones(120), adata.obs["age"]]), group_kernel(donor, k)
    )
    # compared values find a minimum to the root of the round-off of the likelihood
    assert adata.uns["lmm"]["gamma"] == pytest.approx(expected.gamma, rel=1e-5)
    assert adata.uns["lmm"]["log_likelihood"] == pytest.approx(expected.log_likelihood, abs=1e-8)


# ------------------------------------------------------------------------------------------- families

RHO = [0.0, 0.25, 0.5, 1.0]


def test_a_family_is_its_kernels_one_by_one():
    adata = cohort()
    g = relatedness(DONORS)
    with messages() as seen:
        al.pp.kernel_group(adata, "donor", relatedness=g, rho=RHO)
    assert seen == [
        "INFO kernel_group: 40 observations in 8 groups of 'donor'",
        "INFO     wrote the family .uns['kernel'] of 'kernel_0' to 'kernel_3'",
    ]
    found = read_family(adata, "kernel")
    assert found.members == ("kernel_0", "kernel_1", "kernel_2", "kernel_3")
    assert found.parameter == "rho"
    np.testing.assert_array_equal(found.values, RHO)
    entry = adata.uns["kernel"]
    assert (entry["kind"], entry["method"]) == ("family", "group")
    assert {k: entry["params"][k] for k in ("groupby", "relatedness", "scale")} == {"groupby": "donor", "relatedness": True, "scale": False}  # fmt: skip
    for key, rho in zip(found.members, RHO, strict=True):
        al.pp.kernel_group(adata, "donor", relatedness=g, rho=rho, key_added="single")
        member = dict(adata.uns[key])
        assert member.pop("family") == "kernel"
        assert_same(member, dict(adata.uns["single"]))


def test_a_family_where_one_kernel_is_needed():
    adata = cohort()
    al.pp.kernel_group(adata, "donor", relatedness=relatedness(DONORS), rho=[0, 0.5])
    message = r"kernel='kernel': is a family of 2 kernels, and one is needed; name it by its rho: 'kernel_0' \(0\), 'kernel_1' \(0\.5\)"
    for call in (lambda: al.tl.fit_null(adata, "y"), lambda: al.get.kernel(adata)):
        with untouched(adata), pytest.raises(ValueError, match=message):
            call()
    al.tl.fit_null(adata, "y", kernel="kernel_1")


def test_a_family_takes_the_place_of_a_dense_one():
    adata = cohort()
    al.pp.kernel_linear(adata, "X_pca")
    al.pp.kernel_group(adata, "donor", relatedness=relatedness(DONORS), rho=[0, 1])
    assert set(adata.obsm) == {"X_pca"}
    al.pp.kernel_linear(adata, "X_pca")
    assert not {"kernel_0", "kernel_1"} & set(adata.uns)


@pytest.mark.parametrize("fmt", ["h5ad", "zarr"])
def test_a_family_round_trips(fmt, tmp_path):
    adata = cohort()
    al.pp.kernel_group(adata, "donor", relatedness=relatedness(DONORS), rho=[0.0, 1.0])
    getattr(adata, f"write_{fmt}")(tmp_path / f"a.{fmt}")
    read = getattr(ad, f"read_{fmt}")(tmp_path / f"a.{fmt}")
    assert portable(read) == portable(adata)
    assert read_family(read, "kernel").members == ("kernel_0", "kernel_1")
    al.tl.fit_null(read, "y", kernel="kernel_1")


# ------------------------------------------------------------------------------------------- bad input


def single():
    adata = cohort()
    adata.obs["own"] = adata.obs_names
    return adata


G = relatedness(DONORS)
BAD = [
    ({"relatedness": al.get.kernel(genotypes([f"p{i}" for i in range(8)]))}, ValueError,
     r"relatedness: its rows lack 8 of 8 groups by name \('d0', 'd1', 'd2', 'd3', 'd4', …\), they are named 'p0', 'p1', 'p2', 'p3', 'p4', …; add or rename rows and columns, or leave out the observations, with a missing label in 'donor'"),
    ({"relatedness": G.drop(index=["d3", "d6"], columns=["d3", "d6"])}, ValueError, r"relatedness: its rows lack 2 of 8 groups by name \('d3', 'd6'\), they are named 'd0'"),
    ({"relatedness": G, "rho": -0.1}, ValueError, r"rho: must be between 0 and 1, received -0\.1"),
    ({"relatedness": G, "rho": 1.1}, ValueError, r"rho: must be between 0 and 1, received 1\.1"),
    ({"relatedness": G, "rho": np.nan}, ValueError, r"rho: must be between 0 and 1, received nan"),
    ({"relatedness": G, "rho": [0.5, 2]}, ValueError, r"rho: must be between 0 and 1, received 2"),
    ({"relatedness": G, "rho": [0.5, 0.5]}, ValueError, r"rho: a value is listed twice"),
    ({"relatedness": G, "rho": []}, ValueError, r"rho: an empty list; pass a number, or several for a family of kernels"),
    ({"relatedness": G, "rho": "half"}, TypeError, r"rho: must be a number or a list of numbers, received 'half' of type str"),
    ({"rho": 0.5}, ValueError, r"rho: weighs a relatedness matrix against independent groups; pass relatedness=, or leave it out"),
    ({"rho": [0.5, 1]}, ValueError, r"rho: weighs a relatedness matrix against independent groups"),
    ({"groupby": "own", "relatedness": relatedness([f"s{i}" for i in range(40)]), "rho": [0.0, 0.5]}, ValueError,
     r"groupby='own': all 40 groups have one observation, which is the residual; name a column that repeats, or pass relatedness with rho above 0"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input(arguments, error, message):
    adata = single()
    with untouched(adata), pytest.raises(error, match=message):
        al.pp.kernel_group(adata, **({"groupby": "donor"} | arguments))


def test_one_observation_per_donor_with_relatedness():
    """A kernel of relatives needs no repeats."""
    adata = single()
    al.pp.kernel_group(adata, "own", relatedness=relatedness(list(adata.obs_names)), rho=0.8)
    expected = 0.8 * relatedness(list(adata.obs_names)).to_numpy() + 0.2 * np.eye(40)
    np.testing.assert_allclose(stored(adata), expected, rtol=0, atol=1e-14)
