"""Subsets, permutations, concatenations, edits, views and backed objects: exact, or refused, and never the parent."""

from __future__ import annotations

import anndata as ad
import numpy as np
import oracle
import pandas as pd
import pytest
from helpers import assert_same, cohort, messages, relatedness, snapshot, untouched

import annlmm as al

KERNELS = [
    "grm",
    "linear",
    "precomputed",
    "low rank",
    "rbf",
    "graph",
    "group",
    "relatedness",
    "scaled group",
    "half related",
]
VIEW = "WARNING adata is a view: the results are written to it, which makes it a copy; its parent is not changed"


def with_kernel(name, n=40, seed=0):
    adata = cohort(n, 60, seed=seed)
    if name == "grm":
        al.pp.kernel_grm(adata)
    elif name == "linear":
        al.pp.kernel_linear(adata, "X_pca")
    elif name in ("precomputed", "low rank"):
        al.pp.kernel_precomputed(adata, relatedness(list(adata.obs_names)), rank=7 if name == "low rank" else None)
    elif name == "rbf":
        al.pp.kernel_rbf(adata, "X_pca", length_scale=1.0)
    elif name == "graph":
        distance = np.linalg.norm(adata.obsm["X_pca"][:, None] - adata.obsm["X_pca"], axis=2)
        adata.obsp["w"] = np.exp(-distance) - np.eye(n)
        al.pp.kernel_graph(adata, "w", diffusion_time=1.0)
    else:
        donors = list(adata.obs["donor"].cat.categories)
        related = relatedness(donors) if name in ("relatedness", "half related") else None
        rho = 0.5 if name == "half related" else None
        al.pp.kernel_group(adata, "donor", relatedness=related, rho=rho, scale=name == "scaled group")
    return adata


def fit(adata, **options):
    al.tl.fit_null(adata, "y", **({"covariates": ["age", "sex"], "gamma": 0.8} | options))
    return adata.uns["lmm"]


def restricted(adata, rows):
    """K[rows, rows], centred again where the kernel is."""
    k = al.get.kernel(adata).to_numpy()[np.ix_(rows, rows)]
    if adata.uns["kernel"]["centered"]:
        h = oracle.centring(rows.size)
        k = h @ k @ h
    return k


ROWS = {
    "first": np.arange(25),
    "some": np.flatnonzero(np.random.default_rng(2).uniform(size=40) < 0.6),
    "few": np.array([3, 9, 17, 20, 31, 38]),
    "permuted": np.random.default_rng(3).permutation(40),
    "some, permuted": np.random.default_rng(4).permutation(40)[:22],
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("which", ROWS)
def test_the_kernel_of_a_subset_is_the_subset_of_the_kernel(name, which):
    adata, rows = with_kernel(name), ROWS[which]
    expected = restricted(adata, rows)
    part = adata[rows].copy()
    k = al.get.kernel(part)
    # an SVD and back
    np.testing.assert_allclose(k, expected, atol=1e-12)
    assert list(k.index) == list(part.obs_names)
    # twice is as good as once
    again = part[::2].copy()
    np.testing.assert_allclose(al.get.kernel(again), restricted(part, np.arange(0, rows.size, 2)), atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("which", ["some", "permuted", "some, permuted"])
def test_a_fit_after_subsetting_is_the_fit_of_the_restricted_kernel(name, which):
    """Equal to a new AnnData with the kernel K[kept, kept], in every field."""
    adata, rows = with_kernel(name), ROWS[which]
    part = adata[rows].copy()
    entry = fit(part)
    al.tl.associate(part)
    fresh = cohort(40, 60)[rows].copy()
    al.pp.kernel_precomputed(fresh, restricted(adata, rows), rank=None)
    expected = fit(fresh)
    al.tl.associate(fresh)
    # the same model through another eigendecomposition
    for field in ("tau_sq", "sigma_sq", "log_likelihood", "pve", "aic"):
        assert entry[field] == pytest.approx(expected[field], rel=1e-9), field
    np.testing.assert_allclose(entry["beta"]["estimate"], expected["beta"]["estimate"], rtol=1e-8)
    np.testing.assert_allclose(part.obs["lmm_blup"], fresh.obs["lmm_blup"], atol=1e-9)
    for field in ("beta", "standard_error", "tau_sq", "chi_sq"):
        np.testing.assert_allclose(part.var[f"lmm_{field}"], fresh.var[f"lmm_{field}"], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["grm", "relatedness"])
def test_the_estimates_after_subsetting_are_the_oracles(name):
    adata, rows = with_kernel(name), ROWS["some"]
    part = adata[rows].copy()
    entry = fit(part, gamma=None)
    x = np.column_stack([np.ones(rows.size), part.obs["age"], part.obs["sex"] == "m"]).astype(float)
    expected = oracle.fit(part.obs["y"].to_numpy(), x, restricted(adata, rows))
    # compared values find a minimum to 1e-7; a boundary is one
    assert entry["gamma"] == pytest.approx(expected.gamma, rel=1e-6, abs=1e-5)
    assert entry["log_likelihood"] == pytest.approx(expected.log_likelihood, abs=1e-9)


@pytest.mark.parametrize("name", KERNELS)
def test_subsetting_and_a_mask_are_the_same(name):
    adata, rows = with_kernel(name), ROWS["some"]
    mask = np.isin(np.arange(40), rows)
    masked = fit(adata, mask_obs=mask)
    part = fit(adata[rows].copy())
    for field in ("tau_sq", "log_likelihood", "pve", "rank", "n_obs"):
        assert part[field] == pytest.approx(masked[field], rel=1e-10), field


def test_a_permutation_after_the_fit_moves_with_its_rows():
    adata = with_kernel("grm")
    fit(adata)
    al.tl.associate(adata)
    moved = adata[ROWS["permuted"]].copy()
    al.tl.associate(moved, key_added="again")
    np.testing.assert_allclose(moved.var["again_p_value"], adata.var["lmm_p_value"], rtol=1e-9)
    assert al.get.null_model(moved).tau_sq == pytest.approx(al.get.null_model(adata).tau_sq, rel=1e-9)


@pytest.mark.parametrize("name", ["grm", "group"])
def test_rows_that_the_fit_did_not_use_may_go(name):
    adata = with_kernel(name)
    adata.obs.loc[adata.obs_names[:6], "y"] = np.nan
    fit(adata)
    al.tl.associate(adata)
    part = adata[3:].copy()
    al.tl.associate(part, key_added="again")
    np.testing.assert_allclose(part.var["again_p_value"], adata.var["lmm_p_value"], rtol=1e-8)


@pytest.mark.parametrize("phenotype", ["y", ["y", "y2"]])
def test_rows_that_the_fit_used_may_not(phenotype):
    adata = with_kernel("group")
    al.tl.fit_null(adata, phenotype, gamma=1.0)
    part = adata[3:].copy()
    counts = ", ".join(str(adata.obs[name].notna().sum()) for name in ("y", "y2")[: 1 if phenotype == "y" else 2])
    message = rf"key='lmm': fitted on {counts} rows, 37.* of them are here now; run al\.tl\.fit_null again"
    for call in (al.tl.associate, lambda a: al.get.null_model(a, phenotype="y")):
        with untouched(part), pytest.raises(ValueError, match=message):
            call(part)


def test_features_may_go_and_be_permuted():
    adata = with_kernel("grm")
    fit(adata)
    al.tl.associate(adata)
    columns = np.random.default_rng(0).permutation(60)[:17]
    part = adata[:, columns].copy()
    al.tl.associate(part, key_added="again")
    np.testing.assert_allclose(part.var["again_beta"], part.var["lmm_beta"], rtol=1e-10)


# ------------------------------------------------------------------------------------------- what doesn't belong together


def concatenated(rank, merge, n_a, n_b):
    """Rows of two AnnDatas, each with a kernel of its own."""
    parts = []
    for seed, n in ((1, n_a), (2, n_b)):
        adata = cohort(40, 60, seed=seed)
        adata.obs_names = [f"{seed}_{name}" for name in adata.obs_names]
        al.pp.kernel_grm(adata, rank=rank)
        parts.append(adata[:n])
    return ad.concat(parts, uns_merge=merge)


@pytest.mark.parametrize("rank", [None, 10, 2])
@pytest.mark.parametrize(("n_a", "n_b"), [(40, 40), (20, 20), (15, 15), (39, 1), (3, 2), (1, 39)])
def test_concatenated_parts_are_refused(rank, n_a, n_b):
    both = concatenated(rank, "first", n_a, n_b)
    for call in (fit, al.get.kernel):
        with (
            untouched(both),
            pytest.raises(
                ValueError,
                match=r"adata\.obsm\['kernel'\] does not belong to adata\.uns\['kernel'\]: .* compute the kernel again",
            ),
        ):
            call(both)


@pytest.mark.parametrize("merge", ["same", "unique"])
def test_what_a_merge_leaves_of_a_kernel_is_refused(merge):
    both = concatenated(None, merge, 20, 20)
    assert "kind" in both.uns["kernel"]
    with (
        untouched(both),
        pytest.raises(
            ValueError, match=r"adata\.uns\['kernel'\] is incomplete \(.*eigenvalues.*merged in a concatenation"
        ),
    ):
        fit(both)


def test_without_its_description_there_is_no_kernel():
    both = concatenated(None, None, 20, 20)
    with untouched(both), pytest.raises(KeyError, match=r"kernel='kernel': not in adata\.uns; make one first"):
        fit(both)


@pytest.mark.parametrize("merge", ["same", "first"])
def test_parts_of_one_cohort_may_be_put_together_again(merge):
    adata = with_kernel("grm")
    whole = fit(adata.copy())
    again = ad.concat([adata[25:], adata[:25]], uns_merge=merge)
    assert fit(again)["tau_sq"] == pytest.approx(whole["tau_sq"], rel=1e-10)
    partly = ad.concat([adata[30:], adata[:5]], uns_merge=merge)
    expected = fit(adata[np.r_[30:40, 0:5]].copy())
    assert fit(partly)["tau_sq"] == pytest.approx(expected["tau_sq"], rel=1e-10)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_a_row_twice_is_a_row_twice():
    """K[kept, kept] of rows that repeat is a legal kernel, but not the decomposition of as many rows as there were."""
    adata = with_kernel("precomputed")
    rows = np.r_[0:20, 0:5]
    part = adata[rows].copy()
    np.testing.assert_allclose(al.get.kernel(part), restricted(adata, rows), atol=1e-12)
    rows = np.r_[0:39, 0]
    same_size = adata[rows].copy()
    with pytest.raises(ValueError, match="does not belong to"):
        al.get.kernel(same_size)


def test_groups_of_other_cells_need_no_kernel_of_their_own():
    """Groups are read from obs: cells of other donors are other groups, unless their relatedness is needed."""
    a, b = (with_kernel("group", seed=seed) for seed in (1, 2))
    b.obs["donor"] = b.obs["donor"].cat.rename_categories(lambda name: f"other_{name}")
    both = ad.concat([a, b], uns_merge="first", index_unique="-")
    assert fit(both)["rank"] == 16
    a, b = (with_kernel("relatedness", seed=seed) for seed in (1, 2))
    b.obs["donor"] = b.obs["donor"].cat.rename_categories(lambda name: f"other_{name}")
    both = ad.concat([a, b], uns_merge="first", index_unique="-")
    with (
        untouched(both),
        pytest.raises(ValueError, match=r"8 groups are not in its relatedness matrix \(other_d0, .* …\); compute"),
    ):
        fit(both)
    for name in ("relatedness", "scaled group"):
        a, b = with_kernel(name, seed=1), with_kernel(name, seed=2)[:39]
        if name == "relatedness":
            b.uns["kernel"]["relatedness"] = 2 * b.uns["kernel"]["relatedness"]
        both = ad.concat([a, b], uns_merge="same", index_unique="-")
        if name == "scaled group":
            both.uns["kernel"].pop("relatedness", None)
        with untouched(both), pytest.raises(ValueError, match=r"adata\.uns\['kernel'\] is incomplete \(relatedness; "):
            fit(both)


def edit_obsm(adata, change):
    adata.obsm["kernel"] = change(np.array(adata.obsm["kernel"]))


def edit_uns(adata, **changes):
    adata.uns["kernel"] = dict(adata.uns["kernel"]) | changes


def without(adata, field):
    adata.uns["kernel"] = {k: v for k, v in adata.uns["kernel"].items() if k != field}


def one_entry(u, value):
    u[3, 2] = value
    return u


BELONGS = r"adata\.obsm\['kernel'\] does not belong to adata\.uns\['kernel'\]"
EDITS = {
    "scaled": (lambda a: edit_obsm(a, lambda u: 1.1 * u), ValueError, BELONGS),
    "one entry": (lambda a: edit_obsm(a, lambda u: one_entry(u, u[3, 2] + 1e-3)), ValueError, BELONGS),
    "nan": (lambda a: edit_obsm(a, lambda u: one_entry(u, np.nan)), ValueError, BELONGS),
    "zero": (lambda a: edit_obsm(a, np.zeros_like), ValueError, BELONGS),
    "other": (lambda a: edit_obsm(a, lambda u: np.linalg.qr(u[:, ::-1])[0]), ValueError, BELONGS),
    "fewer columns": (
        lambda a: edit_obsm(a, lambda u: u[:, :5]),
        ValueError,
        BELONGS + ": 5 eigenvectors and 39 eigenvalues",
    ),
    "more columns": (lambda a: edit_obsm(a, lambda u: np.c_[u, u]), ValueError, "78 eigenvectors and 39 eigenvalues"),
    "gone": (lambda a: a.obsm.pop("kernel"), KeyError, r"adata\.obsm\['kernel'\] is gone; compute the kernel again"),
    "eigenvalues": (lambda a: edit_uns(a, eigenvalues=2 * a.uns["kernel"]["eigenvalues"]), ValueError, BELONGS),
    "negative": (lambda a: edit_uns(a, eigenvalues=-a.uns["kernel"]["eigenvalues"]), ValueError, BELONGS),
    "nan eigenvalue": (lambda a: edit_uns(a, eigenvalues=np.full(39, np.nan)), ValueError, BELONGS),
    "fewer eigenvalues": (
        lambda a: edit_uns(a, eigenvalues=np.ones(3)),
        ValueError,
        "39 eigenvectors and 3 eigenvalues",
    ),
    "kind": (lambda a: edit_uns(a, kind="other"), ValueError, r"is incomplete \(kind; was it edited"),
    "no eigenvalues": (lambda a: without(a, "eigenvalues"), ValueError, r"is incomplete \(eigenvalues; was it edited"),
    "no probe": (lambda a: without(a, "probe"), ValueError, r"is incomplete \(probe; was it edited"),
    "no kind": (lambda a: without(a, "kind"), ValueError, r"adata\.uns\['kernel'\] is not a kernel of annlmm"),
    "text": (lambda a: a.uns.update(kernel="text"), ValueError, r"adata\.uns\['kernel'\] is not a kernel of annlmm"),
    "gone from uns": (lambda a: a.uns.pop("kernel"), KeyError, r"kernel='kernel': not in adata\.uns; make one first"),
    "later": (
        lambda a: edit_uns(a, schema_version=99),
        ValueError,
        r"written by a later annlmm \(schema 99\); update annlmm",
    ),
    "of more rows": (
        lambda a: edit_uns(a, n_obs=20, probe=a.uns["kernel"]["probe"][:20]),
        ValueError,
        "made of 20 observations, 40 are here",
    ),
}


@pytest.mark.parametrize("what", EDITS)
@pytest.mark.parametrize("rows", [slice(None), slice(5, 30)])
def test_an_edited_kernel_is_refused(what, rows):
    adata = with_kernel("grm")
    change, error, message = EDITS[what]
    change(adata)
    part = adata[rows].copy()
    if what == "of more rows" and part.n_obs < 40:
        message = "25 are here"
    if what == "one entry" or what == "nan":
        part = adata[:30].copy()
    with untouched(part), pytest.raises(error, match=message):
        fit(part)


def test_an_edit_that_changes_nothing_is_none():
    adata = with_kernel("grm")
    expected = fit(adata.copy())["tau_sq"]
    adata.obs_names = [f"renamed {name}" for name in adata.obs_names]
    assert fit(adata)["tau_sq"] == pytest.approx(expected, rel=1e-12)
    adata.obsm["kernel"] = pd.DataFrame(adata.obsm["kernel"], index=adata.obs_names)
    assert fit(adata)["tau_sq"] == pytest.approx(expected, rel=1e-12)
    # seven digits of the eigenvectors
    adata.obsm["kernel"] = adata.obsm["kernel"].to_numpy(dtype=np.float32)
    assert fit(adata)["tau_sq"] == pytest.approx(expected, rel=1e-5)
    assert fit(adata[5:30].copy())["n_obs"] == 25


CHANGES = {
    "kernel": lambda a: al.pp.kernel_group(a, "donor"),
    "kernel of other variants": lambda a: al.pp.kernel_grm(a, np.arange(60) < 40),
    "phenotype": lambda a: a.obs.update({"lmm_phenotype": a.obs["lmm_phenotype"] + np.arange(40) / 40}),
    "design": lambda a: a.obsm.update(lmm_design=a.obsm["lmm_design"] + np.arange(40)[:, None] / 40 * [0, 1, 0]),
    "gamma": lambda a: a.uns.update(lmm=dict(a.uns["lmm"]) | {"gamma": 3.0}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_since_the_fit_is_refused(what):
    """γ̂ belongs to one kernel, one phenotype and one design; with others the tests would be wrong without a sign."""
    adata = with_kernel("grm")
    fit(adata)
    CHANGES[what](adata)
    message = (
        r"key='lmm': the kernel, the phenotype or the design changed since 'y' was fitted \(residual sum of squares "
    )
    for call in (al.tl.associate, al.get.null_model):
        with untouched(adata), pytest.raises(ValueError, match=message):
            call(adata)
    for test in ("lrt", "score"):
        with untouched(adata), pytest.raises(ValueError, match=message):
            al.tl.associate(adata, test=test)
    fit(adata)
    al.tl.associate(adata)


def test_labels_that_changed_since_the_fit_are_refused():
    adata = with_kernel("group")
    fit(adata)
    adata.obs["donor"] = adata.obs["donor"].to_numpy()[::-1]
    with untouched(adata), pytest.raises(ValueError, match="the kernel, the phenotype or the design changed"):
        al.tl.associate(adata)


LOCO_CHANGES = {
    "features dropped": (
        lambda a: a[:, 5:].copy(),
        r"loco: the variants of adata do not make kernel 'kernel' \(some were dropped",
    ),
    "features changed": (lambda a: a, "loco: the variants of adata do not make kernel 'kernel'"),
    "phenotype": (lambda a: a, "the kernel, the phenotype or the design changed since 'y' was fitted"),
    "rows dropped": (lambda a: a[a.obs["y"].notna()].copy(), r"made of 40 observations, 37 are here; compute it again"),
}


@pytest.mark.parametrize("what", LOCO_CHANGES)
def test_leaving_one_chromosome_out_of_what_changed_is_refused(what):
    """Its kernels are made of the variants again: they must be those of the null model's kernel."""
    adata = with_kernel("grm")
    adata.var["chrom"] = np.where(np.arange(60) < 30, "1", "2")
    adata.obs.loc[adata.obs_names[:3], "y"] = np.nan
    al.tl.fit_null(adata, "y")
    al.tl.associate(adata, loco="chrom")
    change, message = LOCO_CHANGES[what]
    changed = change(adata)
    if what == "features changed":
        changed.X[:, 3] = changed.X[:, 40]
    if what == "phenotype":
        changed.obs["lmm_phenotype"] = changed.obs["lmm_phenotype"] ** 2
    with untouched(changed), pytest.raises(ValueError, match=message):
        al.tl.associate(changed, loco="chrom")


INCOMPLETE = {
    "params": r"adata\.uns\['lmm'\] is incomplete \(params; was it edited, or merged in a concatenation\?\); run al\.tl\.fit_null again",
    "tau_sq": r"incomplete \(tau_sq; ",
    "n_obs": r"incomplete \(n_obs; ",
    "beta": r"incomplete \(beta; ",
    "phenotypes": r"is not a null model of annlmm",
}


@pytest.mark.parametrize("field", INCOMPLETE)
def test_an_incomplete_null_model_is_refused(field):
    adata = with_kernel("group")
    fit(adata)
    adata.uns["lmm"] = {k: v for k, v in adata.uns["lmm"].items() if k != field}
    with untouched(adata), pytest.raises(ValueError, match=INCOMPLETE[field]):
        al.tl.associate(adata)


def test_an_edited_null_model_is_refused():
    adata = with_kernel("group")
    fit(adata)
    later, gone, wide = adata.copy(), adata.copy(), adata.copy()
    later.uns["lmm"]["schema_version"] = 99
    del gone.obsm["lmm_design"]
    wide.obsm["lmm_design"] = np.ones((40, 7))
    for edited, error, message in (
        (later, ValueError, r"key='lmm': written by a later annlmm \(schema 99\); update annlmm"),
        (gone, KeyError, r"adata\.obsm\['lmm_design'\] or 'lmm_phenotype' is gone; run al\.tl\.fit_null again"),
        (wide, ValueError, r"adata\.obsm\['lmm_design'\] has 7 columns for 3 terms, .*; run al\.tl\.fit_null again"),
    ):
        with untouched(edited), pytest.raises(error, match=message):
            al.tl.associate(edited)


def test_null_models_of_two_cohorts_are_not_one():
    parts = []
    for seed in (1, 2):
        adata = cohort(40, 5, seed=seed)
        adata.obs_names = [f"{seed}_{name}" for name in adata.obs_names]
        al.tl.fit_null(adata, "y", kernel=None)
        parts.append(adata[:20])
    both = ad.concat(parts, uns_merge="first")  # 20 + 20 rows, as many as either had
    with untouched(both), pytest.raises(ValueError, match="the kernel, the phenotype or the design changed"):
        al.tl.associate(both)
    both = ad.concat(parts, uns_merge="same")
    with untouched(both), pytest.raises(ValueError, match="is incomplete"):
        al.tl.associate(both)


# ------------------------------------------------------------------------------------------- views

CALLS = {
    "kernel_grm": lambda a, **k: al.pp.kernel_grm(a, key_added="new", **k),
    "kernel_group": lambda a, **k: al.pp.kernel_group(a, "donor", key_added="new", **k),
    "kernel_group over it": lambda a, **k: al.pp.kernel_group(a, "donor", **k),
    "kernel_linear": lambda a, **k: al.pp.kernel_linear(a, "X_pca", key_added="new", **k),
    "kernel_precomputed": lambda a, **k: al.pp.kernel_precomputed(a, np.eye(a.n_obs), key_added="new", **k),
    "fit_null": lambda a, **k: al.tl.fit_null(a, "y", gamma=1.0, key_added="new", **k),
    "fit_null again": lambda a, **k: al.tl.fit_null(a, "y2", gamma=0.5, **k),
    "fit_null of several": lambda a, **k: al.tl.fit_null(a, ["y", "y2"], gamma=0.5, **k),
    "associate": lambda a, **k: al.tl.associate(a, **k),
    "associate elsewhere": lambda a, **k: al.tl.associate(a, key_added="new", **k),
}


@pytest.fixture
def parent():
    adata = with_kernel("grm")
    adata.obs.loc[adata.obs_names[30:], "y"] = np.nan
    al.tl.fit_null(adata, "y", gamma=1.0)
    al.tl.associate(adata)
    return adata


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("subset", [np.s_[:30], np.s_[:, :20], np.s_[np.arange(30)[::-1], np.arange(9)]])
def test_a_view_is_written_to_and_its_parent_is_not(parent, call, subset):
    view = parent[subset]
    shown = snapshot(view)
    assert view.is_view
    with untouched(parent), messages("warning") as seen:
        CALLS[call](view)
    assert seen == [VIEW]
    assert not view.is_view
    assert_same(snapshot(view)["X"], shown["X"])
    for key, entry in view.uns.items():
        assert entry is not parent.uns.get(key)
    if call == "fit_null again":
        assert "association" not in view.uns["lmm"]
        assert "lmm_beta" not in view.var
    if call == "kernel_group over it":
        assert "kernel" not in view.obsm
    # what was written is the view's own
    view.uns["kernel"]["method"] = "edited"
    view.uns["lmm"]["params"]["kernel"] = "edited"
    assert parent.uns["kernel"]["method"] == "grm"
    assert parent.uns["lmm"]["params"]["kernel"] == "kernel"


@pytest.mark.parametrize("call", CALLS)
def test_a_copy_of_a_view_leaves_both_as_they_are(parent, call):
    view = parent[:30]
    with untouched(parent), untouched(view), messages("warning") as seen:
        copied = CALLS[call](view, copy=True)
    assert seen == []
    assert view.is_view
    assert not copied.is_view
    assert copied.n_obs == 30
    written = view.copy()
    CALLS[call](written)
    assert_same(snapshot(copied), snapshot(written))


@pytest.mark.parametrize("call", ["kernel_grm", "fit_null", "associate"])
def test_a_view_that_is_refused_stays_a_view(parent, call):
    view = parent[:30]
    bad = {
        "kernel_grm": lambda: al.pp.kernel_grm(view, "nope"),
        "fit_null": lambda: al.tl.fit_null(view, "nope"),
        "associate": lambda: al.tl.associate(view, "nope"),
    }
    with untouched(parent), untouched(view), messages("warning") as seen, pytest.raises(KeyError):
        bad[call]()
    assert view.is_view
    assert seen == []


def test_getters_leave_a_view_a_view(parent):
    view = parent[:30]
    al.get.kernel(view)
    al.get.association(view)
    al.get.null_model(view)
    assert view.is_view


def test_results_on_a_view_are_those_of_its_copy(parent):
    view, copied = parent[:30], parent[:30].copy()
    for adata in (view, copied):
        al.tl.fit_null(adata, "y", covariates=["age", "X_pca"], gamma=1.0)
        al.tl.associate(adata)
    assert_same(snapshot(view), snapshot(copied))


# ------------------------------------------------------------------------------------------- backed


@pytest.mark.parametrize("store", ["dense", "sparse"])
def test_a_backed_object_fits_and_is_not_copied(tmp_path, store):
    from scipy import sparse

    adata = with_kernel("grm")
    if store == "sparse":
        adata.X = sparse.csr_matrix(adata.X)
    adata.write_h5ad(tmp_path / "backed.h5ad")
    backed = ad.read_h5ad(tmp_path / "backed.h5ad", backed="r")
    try:
        assert backed.isbacked
        al.pp.kernel_group(backed, "donor", key_added="groups")
        for kernel in ("kernel", "groups"):
            al.tl.fit_null(backed, "y", kernel=kernel, gamma=1.0)
        assert backed.uns["lmm"]["n_obs"] == 40
        with pytest.raises(ValueError, match=r"to_memory"):
            al.tl.fit_null(backed, "y", gamma=1.0, copy=True)
        al.tl.associate(loaded := backed.to_memory())
        assert (loaded.var["lmm_status"] == "ok").all()
    finally:
        backed.file.close()
