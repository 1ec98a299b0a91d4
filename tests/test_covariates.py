"""Covariates of `al.tl.fit_null`: names and formulas, types, missing values, levels, what is refused, what is never run."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import cohort, untouched
from scipy import sparse

import annlmm as al


def fit(adata, covariates, phenotype="y", key="lmm", **options):
    """The fixed effects at γ = 1, where nothing is simulated: the table indexed by term, and the design that was used."""
    al.tl.fit_null(adata, phenotype, covariates=covariates, gamma=1.0, key_added=key, **options)
    return adata.uns[key]["beta"].set_index("term")["estimate"], adata.obsm[f"{key}_design"]


@pytest.fixture
def adata():
    adata = cohort(60)
    al.pp.kernel_group(adata, "donor")
    return adata


def columns(adata, *terms):
    """A design by hand: an intercept and these columns."""
    return np.column_stack([np.ones(adata.n_obs), *terms]).astype(float)


@pytest.mark.parametrize(
    ("names", "formula"),
    [
        (None, "~ 1"),
        ([], "~"),
        ("age", "~ age"),
        (["age", "sex"], "~ age + sex"),
        (("age", "sex", "batch"), "~ age + C(sex) + C(batch)"),
        (["X_pca"], "~ X_pca"),
        (["age", "X_pca", "batch"], "~ age + X_pca + batch"),
    ],
)
def test_names_and_formula_are_the_same_fit(adata, names, formula):
    by_name, x = fit(adata, names)
    by_formula, z = fit(adata, formula, key="formula")
    np.testing.assert_array_equal(z, x)
    np.testing.assert_array_equal(by_formula, by_name)
    assert [t.replace("C(", "").replace(")", "") for t in by_formula.index] == list(by_name.index)
    assert adata.uns["lmm"]["tau_sq"] == adata.uns["formula"]["tau_sq"]


def test_designs_by_hand(adata):
    obs, pca = adata.obs, adata.obsm["X_pca"]
    male, b, c = obs["sex"] == "m", obs["batch"] == "b", obs["batch"] == "c"
    adata.obs["with space"] = obs["age"] ** 2
    adata.obsm["frame"] = pd.DataFrame(pca, index=adata.obs_names, columns=["first", "second"])
    adata.obsm["one"] = pca[:, :1]
    adata.obsm["sparse"] = sparse.csr_matrix(pca)
    age = obs["age"].to_numpy()
    designs = {
        "~ age * C(sex)": {"age": age, "C(sex)[T.m]": male, "age:C(sex)[T.m]": age * male},
        "~ np.log(age)": {"np.log(age)": np.log(age)},
        "~ log(age) + I(age ** 2)": {"log(age)": np.log(age), "I(age ** 2)": age**2},
        "~ `with space`": {"with space": age**2},
        "~ Q('with space') + age": {"Q('with space')": age**2, "age": age},
        "~ C(batch, contr.treatment('b'))": {
            "C(batch, contr.treatment('b'))[T.a]": ~b & ~c,
            "C(batch, contr.treatment('b'))[T.c]": c,
        },
        "~ age:X_pca": {"age:X_pca[0]": age * pca[:, 0], "age:X_pca[1]": age * pca[:, 1]},
        "~ X_pca[:, 1]": {"X_pca[:, 1]": pca[:, 1]},
        "~ frame": {"frame[0]": pca[:, 0], "frame[1]": pca[:, 1]},
        "~ sparse": {"sparse[0]": pca[:, 0], "sparse[1]": pca[:, 1]},
        "~ one": {"one[0]": pca[:, 0]},
    }
    for formula, expected in designs.items():
        _, x = fit(adata, formula)
        np.testing.assert_allclose(x, columns(adata, *expected.values()), rtol=1e-14, err_msg=formula)
        assert list(adata.uns["lmm"]["beta"]["term"]) == ["Intercept", *expected], formula
    for names, terms in {
        ("frame",): ["first", "second"],
        ("one",): ["one"],
        ("sparse", "age"): ["sparse[0]", "sparse[1]", "age"],
        ("with space", "batch"): ["with space", "batch[T.b]", "batch[T.c]"],
    }.items():
        fit(adata, names)
        assert list(adata.uns["lmm"]["beta"]["term"]) == ["Intercept", *terms]


def test_without_an_intercept_the_space_is_the_same(adata):
    fit(adata, "~ C(sex) + age")
    _, x = fit(adata, "~ 0 + C(sex) + age", key="cells")
    assert list(adata.uns["cells"]["beta"]["term"]) == ["C(sex)[f]", "C(sex)[m]", "age"]
    assert x[:, :2].sum() == adata.n_obs
    # the same span in another basis: the restricted likelihood, with its ½ log|XᵀX|, does not change either
    for field in ("tau_sq", "log_likelihood"):
        assert adata.uns["cells"][field] == pytest.approx(adata.uns["lmm"][field], rel=1e-12)
    np.testing.assert_allclose(adata.obs["cells_residual"], adata.obs["lmm_residual"], atol=1e-12)
    _, x = fit(adata, "~ age - 1", key="through_zero")
    assert x.shape == (60, 1)


@pytest.mark.parametrize("transform", ["poly(age, 2)", "bs(age, df=4)", "center(age)", "scale(age)"])
def test_stateful_transforms_see_the_rows_that_are_used(adata, transform):
    """A transform that looks at the whole column must not look at rows that are left out."""
    adata.obs.loc[adata.obs_names[:10], "y"] = np.nan
    adata.obs.loc[adata.obs_names[:10], "age"] = 1e6
    _, x = fit(adata, f"~ {transform}")
    part = adata[10:].copy()
    _, z = fit(part, f"~ {transform}")
    np.testing.assert_array_equal(x[10:], z)
    assert np.isnan(x[:10]).all()


# ------------------------------------------------------------------------------------------- types

NUMBERS = np.arange(60) % 4
FLAGS = np.arange(60) % 3 == 0


@pytest.mark.parametrize("dtype", ["int8", "float32", "Int64", "UInt8", "Float64", "object"])
@pytest.mark.parametrize("formula", [False, True])
def test_numbers_of_any_type(adata, dtype, formula):
    adata.obs["dose"] = pd.Series(NUMBERS, index=adata.obs_names).astype(dtype)
    _, x = fit(adata, "~ dose" if formula else ["dose"])
    np.testing.assert_array_equal(x, columns(adata, NUMBERS))
    assert list(adata.uns["lmm"]["beta"]["term"]) == ["Intercept", "dose"]
    if formula:
        fit(adata, "~ C(dose)")
        point = ".0" if dtype in ("float32", "Float64", "object") else ""
        assert list(adata.uns["lmm"]["beta"]["term"])[1:] == [f"C(dose)[T.{j}{point}]" for j in (1, 2, 3)]


@pytest.mark.parametrize("dtype", ["bool", "boolean", "object"])
@pytest.mark.parametrize("formula", [False, True])
def test_flags_of_any_type(adata, dtype, formula):
    adata.obs["flag"] = pd.Series(FLAGS, index=adata.obs_names).astype(dtype)
    _, x = fit(adata, "~ flag" if formula else ["flag"])
    np.testing.assert_array_equal(x, columns(adata, FLAGS))


TEXT = np.array(["c", "a", "b"], dtype=object)[np.arange(60) % 3]


@pytest.mark.parametrize("dtype", ["object", "string", "category", "str", "unused", "ordered", "own order"])
@pytest.mark.parametrize("formula", [None, "~ kind", "~ C(kind)"])
def test_text_of_any_type(adata, dtype, formula):
    """Levels in alphabetical order, or in that of the categories; the first that occurs is the baseline."""
    kind = pd.Series(TEXT, index=adata.obs_names, dtype=object)
    categories = {"unused": ["Z", "a", "aa", "b", "c"], "ordered": ["a", "b", "c"], "own order": ["b", "c", "a"]}.get(
        dtype
    )
    typed = (
        pd.Categorical(kind, categories=categories, ordered=dtype == "ordered") if categories else kind.astype(dtype)
    )
    adata.obs["kind"] = typed
    levels = ["b", "c", "a"] if dtype == "own order" else ["a", "b", "c"]
    _, x = fit(adata, formula or ["kind"])
    np.testing.assert_array_equal(x, columns(adata, kind == levels[1], kind == levels[2]))
    assert [t[-4:] for t in adata.uns["lmm"]["beta"]["term"][1:]] == [f"T.{level}]" for level in levels[1:]]


@pytest.mark.parametrize(
    "dtype", ["object", "string", "category", "Int64", "Float64", "boolean", "float", "object flags"]
)
@pytest.mark.parametrize("formula", [None, "~ v", "~ C(v)", "~ `v`", "~ Q('v')"])
def test_rows_with_a_missing_value_are_left_out(adata, dtype, formula):
    """Never coded as the baseline, which is what formulaic does if it is let."""
    values = {
        "object": TEXT,
        "string": TEXT,
        "category": TEXT,
        "boolean": FLAGS,
        "object flags": FLAGS.astype(object),
    }.get(dtype, NUMBERS)
    v = pd.Series(values, index=adata.obs_names).astype(dtype.split()[0])
    missing = np.arange(60) % 7 == 0
    adata.obs["v"] = v.where(~missing, None if dtype.startswith("object") else np.nan if dtype == "float" else pd.NA)
    assert adata.obs["v"].isna().sum() == missing.sum()
    _, x = fit(adata, formula or ["v"])
    np.testing.assert_array_equal(np.isnan(x).any(axis=1), missing)
    assert adata.uns["lmm"]["n_obs"] == (~missing).sum()
    part = adata[~missing].copy()
    _, z = fit(part, formula or ["v"])
    np.testing.assert_array_equal(x[~missing], z)


def test_rows_with_a_missing_value_in_obsm_are_left_out(adata):
    adata.obsm["X_pca"][[3, 4], [0, 1]] = np.nan
    for covariates in (["X_pca"], "~ X_pca", "~ age:X_pca", "~ X_pca[:, 0]"):
        _, x = fit(adata, covariates)
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(x).any(axis=1)), [3, 4])


def test_only_variables_of_the_formula_cost_rows(adata):
    """Functions, names of arguments and strings are not columns, though obs may have columns of these names."""
    for name in ("log", "C", "df", "Q", "m"):
        adata.obs[name] = np.nan
    for formula in ("~ np.log(age) + C(sex)", "~ log(age)", "~ bs(age, df=4)", "~ C(sex, contr.treatment('m'))"):
        fit(adata, formula)
        assert adata.uns["lmm"]["n_obs"] == 60, formula


def test_levels_that_only_occur_in_rows_left_out(adata):
    adata.obs["batch"] = pd.Categorical(np.where(np.arange(60) < 10, "a", adata.obs["batch"].replace("a", "b")))
    adata.obs.loc[adata.obs_names[:10], "y"] = np.nan
    for covariates in (["batch"], "~ batch", "~ C(batch)"):
        _, x = fit(adata, covariates)
        np.testing.assert_array_equal(x[10:], columns(adata, adata.obs["batch"] == "c")[10:])
        np.testing.assert_array_equal(np.isnan(x).any(axis=1), np.arange(60) < 10)
    # the same through the mask
    adata.obs["y"] = np.random.default_rng(0).standard_normal(60)
    fit(adata, ["batch"], mask_obs=np.arange(60) >= 10)
    assert list(adata.uns["lmm"]["beta"]["term"]) == ["Intercept", "batch[T.c]"]


def test_several_phenotypes_share_the_coding(adata):
    """A level that one of them lacks is named, with the phenotype."""
    adata.obs["y2"] = np.where(adata.obs["batch"] == "c", np.nan, adata.obs["y"])
    fit(adata, ["batch"], "y2")
    with (
        untouched(adata),
        pytest.raises(
            ValueError,
            match=r"phenotype 'y2': covariates 'batch\[T\.c\]': zero in every row that is used; drop it, or fit 'y2' by itself",
        ),
    ):
        fit(adata, ["batch"], ["y", "y2"])


# ------------------------------------------------------------------------------------------- refused


def collinear(adata):
    adata.obs["months"] = 12 * adata.obs["age"]
    adata.obs["ones"] = 1.0
    adata.obs["zeros"] = 0.0
    adata.obs["infinite"] = np.where(np.arange(60) == 3, np.inf, 1.0)
    adata.obs["identifier"] = adata.obs_names
    adata.obs["date"] = pd.date_range("2020-01-01", periods=60)
    adata.obs["one level"] = "a"
    adata.obs["complex"] = adata.obs["age"] * 1j
    adata.obsm["text"] = pd.DataFrame({"t": ["a", "b"] * 30}, index=adata.obs_names)
    adata.obsm["more"] = pd.DataFrame({"age": adata.obs["y2"].fillna(0)}, index=adata.obs_names)
    adata.obsm["none"] = np.zeros((60, 0))
    adata.obsm["cube"] = np.zeros((60, 2, 2))


REFUSED = [
    (["age", "months"], ValueError, r"covariates 'age' and 'months' are collinear \(rank 2 of 3\); drop one"),
    ("~ age + months", ValueError, r"covariates 'age' and 'months' are collinear"),
    (["ones"], ValueError, r"covariates 'Intercept' and 'ones' are collinear"),
    (["zeros"], ValueError, r"covariates 'zeros': zero in every row that is used; drop it"),
    (["infinite"], ValueError, r"covariates 'infinite': NaN or infinite values"),
    ("~ np.exp(infinite)", ValueError, r"covariates 'np\.exp\(infinite\)': NaN or infinite values"),
    ("~ sex + C(sex)", ValueError, r"covariates 'sex\[T\.m\]' and 'C\(sex\)\[T\.m\]' are collinear"),
    (["y"], ValueError, r"phenotype 'y': a linear combination of the covariates on the rows that are used"),
    (
        ["identifier"],
        ValueError,
        r"covariates: 'identifier' has 60 levels for 60 rows; is it an identifier\?.*kernel_group",
    ),
    ("~ identifier", ValueError, r"covariates: 'identifier' has 60 levels for 60 rows"),
    ("~ age + C(identifier)", ValueError, r"covariates: 'identifier' has 60 levels for 60 rows"),
    (["one level"], ValueError, r"covariates: 'one level' has one level \('a'\) on the 60 rows that are used; drop it"),
    ("~ `one level`", ValueError, r"covariates: 'one level' has one level"),
    (["date"], TypeError, r"covariates 'date': must be numeric, received dtype datetime64"),
    ("~ date", TypeError, r"covariates 'date': must be numeric, received dtype datetime64"),
    (["complex"], TypeError, r"covariates 'complex': must be real, received dtype complex128"),
    (["text"], TypeError, r"covariates 't': must be numeric"),
    ("~ text", TypeError, r"covariates 't': must be numeric"),
    (["age", "more"], ValueError, r"covariates: two terms are named 'age'; rename one"),
    (["none"], ValueError, r"adata\.obsm\['none'\]: must have two dimensions and a column, received shape \(60, 0\)"),
    (
        ["cube"],
        ValueError,
        r"adata\.obsm\['cube'\]: must have two dimensions and a column, received shape \(60, 2, 2\)",
    ),
    (
        ["agee"],
        KeyError,
        r"covariates: 'agee' is neither a column of adata\.obs nor a key of adata\.obsm; did you mean 'age'",
    ),
    ("gender", KeyError, r"covariates: 'gender' is neither"),
    (["age", "age"], ValueError, r"covariates: names must differ, received \['age', 'age'\]"),
    (3, TypeError, r"covariates: must be names of obs columns or obsm keys, or a formula .* received 3 of type int"),
    (["age", 3], TypeError, r"covariates: must be names .* received \['age', 3\] of type list"),
    (pd.DataFrame({"age": [1]}), TypeError, r"covariates: must be names .* of type DataFrame"),
    (
        "y ~ age",
        ValueError,
        r"a formula has no left-hand side here, the phenotype is its own argument; start it with '~'",
    ),
    (
        "~ nope",
        ValueError,
        r"covariates='~ nope': 'nope' is neither a column of adata\.obs nor a key of adata\.obsm; (known|did you mean)",
    ),
    ("~ sex + agee", ValueError, r"covariates='~ sex \+ agee': 'agee' is neither a column .*; did you mean 'age'"),
    (
        "~ np.log(agee)",
        ValueError,
        r"covariates='~ np\.log\(agee\)': 'agee' is neither a column .*; did you mean 'age'",
    ),
    ("~ poly(agee, 2)", ValueError, r"covariates='~ poly\(agee, 2\)': 'agee' is neither a column"),
    ("~ logarithm(age)", ValueError, r"'logarithm' is no function that a formula knows; .* numpy \(np\.log1p\)"),
    ("~ one level", ValueError, r"Missing operator between `one` and `level`.*; write `one level` in backticks"),
    ("~ age +", ValueError, r"covariates='~ age \+': Operator `\+` has .* ~ age \+; name columns"),
    ("~ age ~ sex", ValueError, r"covariates='~ age ~ sex': Operator `~` is incorrectly used"),
    ("~ age | sex", ValueError, r"covariates='~ age \| sex': has several parts; join them with '\+'"),
    ("~ .", ValueError, r"covariates='~ \.': "),
    ("~ 0", ValueError, r"covariates: received no columns; the model needs at least one fixed effect"),
    ("~ np.array([1, 2, 3])", ValueError, r"covariates='~ np\.array\(\[1, 2, 3\]\)': Length of values \(3\)"),
    ("~ lag(age)", ValueError, r"covariates 'lag\(age\)': NaN or infinite values"),
    ("~ C(donor) + C(donor):C(batch):X_pca", ValueError, r"covariates .*: zero in every row that is used; drop it"),
]


@pytest.mark.parametrize(("covariates", "error", "message"), REFUSED, ids=[str(case[0])[:40] for case in REFUSED])
def test_refused_with_a_reason(adata, covariates, error, message):
    collinear(adata)
    with untouched(adata), pytest.raises(error, match=message):
        fit(adata, covariates)


def test_an_identifier_is_refused_before_its_columns_are_made():
    n = 100_000  # the dummies would take 75 GiB
    adata = ad.AnnData(obs=pd.DataFrame({"y": np.arange(n) % 7}, index=np.arange(n).astype(str)))
    adata.obs["id"] = adata.obs_names
    for covariates in (["id"], "~ C(id)"):
        with pytest.raises(ValueError, match="has 100000 levels for 100000 rows; is it an identifier"):
            al.tl.fit_null(adata, "y", covariates=covariates, kernel=None)


# ------------------------------------------------------------------------------------------- never run

ATTACK = "~ np.lib.format.open_memmap({path!r}, 'w+', shape=(60,)) + np.save({path!r}, age)"


@pytest.mark.parametrize("fmt", ["h5ad", "zarr"])
def test_a_formula_from_a_file_is_never_evaluated(adata, tmp_path, fmt):
    evil = tmp_path / "executed.npy"
    al.tl.fit_null(adata, "y", covariates="~ age + C(sex)")
    al.tl.associate(adata)
    expected = al.get.association(adata)
    text = ATTACK.format(path=str(evil))
    with pytest.raises(ValueError, match="is not evaluated"):
        al.tl.fit_null(adata, "y", covariates=text, kernel=None, copy=True)
    assert not evil.exists()
    adata.uns["lmm"]["params"]["covariates"] = text
    adata.uns["lmm"]["params"]["phenotype"] = text
    adata.uns["lmm"]["beta"]["term"] = adata.uns["lmm"]["beta"]["term"].cat.rename_categories({"age": text})
    path = tmp_path / f"stored.{fmt}"
    getattr(adata, f"write_{fmt}")(path)
    stored = getattr(ad, f"read_{fmt}")(path)
    assert stored.uns["lmm"]["params"]["covariates"] == text
    for test in ("wald", "lrt", "score"):
        al.tl.associate(stored, test=test)
    al.tl.associate(stored)
    al.get.null_model(stored)
    al.get.kernel(stored)
    pd.testing.assert_frame_equal(al.get.association(stored), expected, check_index_type=False)
    assert not evil.exists()
    # a new fit takes the formula of its caller
    al.tl.fit_null(stored, "y", covariates="~ age + C(sex)", gamma=1.0)
    assert not evil.exists()


def test_a_formula_sees_adata_and_numpy_only(adata):
    secret = 1.0
    with untouched(adata), pytest.raises(ValueError, match="'secret' is neither a column of adata.obs"):
        fit(adata, "~ age + secret")
    assert secret == 1.0
