"""What a user may get wrong: each is refused by a message that names the argument, what was received and the remedy.

One table per function: (what, arguments, exception, message). `adata` is as it was afterwards. Covariates, kernels that
do not belong to their rows and incomplete slots have tables of their own in `test_covariates` and `test_views_and_subsets`.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from bad_input_cases import CASES
from bad_input_cases import prepared as prepared_pair
from helpers import cohort, relatedness, untouched
from scipy import sparse

import annlmm as al

N, M = 40, 12


def prepared() -> ad.AnnData:
    """Kernels `kernel` (group) and `grm`, null models `lmm`, `several` and `ols`, a scan; and columns to stumble over."""
    adata = cohort(N, M)
    rng = np.random.default_rng(0)
    al.pp.kernel_group(adata, "donor")
    al.pp.kernel_grm(adata, key_added="grm")
    al.tl.fit_null(adata, "y", gamma=1.0)
    al.tl.fit_null(adata, ["y", "y2"], gamma=1.0, key_added="several")
    al.tl.fit_null(adata, "y", kernel=None, key_added="ols")
    al.tl.associate(adata, key_added="scan")
    obs = adata.obs
    obs["unique"] = [f"u{i}" for i in range(N)]
    obs["same"] = "a"
    obs["nothing"] = np.nan
    obs["fraction"] = rng.uniform(size=N)
    obs["infinite"] = np.where(np.arange(N) == 2, np.inf, 1.0)
    obs["constant"] = 2.0
    obs["text"] = [str(i) for i in range(N)]
    obs["complex"] = obs["y"] * 1j
    obs["date"] = pd.date_range("2020-01-01", periods=N)
    obs["by_donor"] = obs["donor"].cat.codes.astype(float)
    obs["all"], obs["none"] = True, False
    obs["unknown"] = pd.array([True, None] * (N // 2), dtype="boolean")
    obs["early"], obs["late"] = np.where(np.arange(N) < 20, 1.0, np.nan), np.where(np.arange(N) < 20, np.nan, 1.0)
    obs["two"] = np.where(np.arange(N) < 2, rng.uniform(size=N), np.nan)
    adata.var["number"] = np.arange(M)
    adata.var["label"] = "a"
    adata.var["none"] = False
    adata.var["chrom"] = ["1", "2"] * (M // 2)
    adata.var["partly"] = pd.array(["1", None] * (M // 2), dtype="string")
    adata.obsm["nan"] = np.where(np.arange(2 * N).reshape(N, 2) == 5, np.nan, 1.0)
    adata.obsm["flat"] = np.ones((N, 2))
    adata.obsm["empty"] = np.zeros((N, 0))
    adata.obsm["twins"] = pd.DataFrame(rng.normal(size=(N, 2)), index=adata.obs_names, columns=["a", "a"])
    adata.obsm["words"] = pd.DataFrame({"w": ["x", "y"] * (N // 2)}, index=adata.obs_names)
    adata.obsp["square"] = np.eye(N)
    adata.uns["neighbors"] = {"params": {"n": 3}}
    adata.uns["list"] = [1, 2]
    adata.layers["objects"] = adata.X.astype(object)
    adata.layers["complex"] = adata.X * 1j
    adata.layers["infinite"] = np.where(adata.X > 1, np.inf, adata.X)
    adata.layers["minus"] = -adata.X
    adata.layers["constant"] = np.ones((N, M))
    adata.layers["missing"] = np.full((N, M), np.nan)
    return adata


@pytest.fixture(scope="module")
def original() -> ad.AnnData:
    al.settings.progress = False
    return prepared()


@pytest.fixture
def base(original) -> ad.AnnData:
    return original.copy()


def check(adata, call, error, message):
    with untouched(adata), pytest.raises(error, match=message) as caught:
        call()
    assert len(str(caught.value)) < 700, "a message is read"


KEYS = [
    ("key not text", {"key_added": 3}, TypeError, r"key_added: must be a string, received 3 of type int"),
    ("key empty", {"key_added": ""}, ValueError, r"key_added: must be a non-empty name without '/' or '\.' .*, received ''"),
    ("key slash", {"key_added": "a/b"}, ValueError, r"key_added: must be .* without '/' or '\.' .* received 'a/b'"),
    ("key dot", {"key_added": "a.b"}, ValueError, r"neither survives h5ad and zarr\), received 'a\.b'"),
    ("key in uns", {"key_added": "neighbors"}, ValueError, r"key_added='neighbors': adata\.uns\['neighbors'\] holds something else; choose another key"),
    ("key of a list", {"key_added": "list"}, ValueError, r"key_added='list': adata\.uns\['list'\] holds something else"),
]  # fmt: skip
KERNEL_KEYS = [
    *KEYS,
    ("key of a null model", {"key_added": "lmm"}, ValueError, r"key_added='lmm': adata\.uns\['lmm'\] holds something else"),
    ("key in obsm", {"key_added": "X_pca"}, ValueError, r"key_added='X_pca': adata\.obsm\['X_pca'\] holds something else|is the key of the factor itself"),
]  # fmt: skip


def masks(argument, axis, size):
    thing = "observation" if axis == "obs" else "feature"
    return [
        (f"{argument} misspelt", {argument: "chosem"}, KeyError, rf"{argument}='chosem': no such column in adata\.{axis}; (did you mean|known)"),
        (f"{argument} all False", {argument: np.zeros(size, dtype=bool)}, ValueError, rf"{argument}: selects nothing"),
        (f"{argument} column all False", {argument: "none"}, ValueError, rf"{argument}: selects nothing"),
        (f"{argument} numbers", {argument: np.arange(size)}, TypeError, rf"{argument}: must be boolean.* received dtype int64; compare first, e\.g\. adata\.{axis}\['x'\] == 'a'"),
        (f"{argument} text", {argument: np.full(size, "a")}, TypeError, rf"{argument}: must be boolean.* received dtype <U1"),
        (f"{argument} names", {argument: ["v1", "v2"]}, TypeError, rf"{argument}: must be boolean"),
        (f"{argument} True", {argument: True}, ValueError, rf"{argument}: must have {size} values, one per {thing}, received shape \(\)"),
        (f"{argument} short", {argument: np.ones(3, dtype=bool)}, ValueError, rf"{argument}: must have {size} values, one per {thing}, received shape \(3,\)"),
        (f"{argument} table", {argument: np.ones((size, 1), dtype=bool)}, ValueError, rf"received shape \({size}, 1\)"),
        (f"{argument} unaligned", {argument: pd.Series(np.ones(size, dtype=bool))}, ValueError, rf"{argument}: a Series is matched to adata\.{axis} by name, and its index lacks {size} of {size}, e\.g\. '.0'; align it, or pass .*to_numpy"),
        (f"{argument} twice", {argument: pd.Series(True, index=["v0", *[f"{'s' if axis == 'obs' else 'v'}{i}" for i in range(size)], "v0"])}, ValueError, r"its index has duplicated names; align it"),
        (f"{argument} with NA", {argument: pd.array([True, None] * (size // 2), dtype="boolean")}, TypeError, rf"{argument}: must be boolean, without missing values, received dtype boolean"),
        (f"{argument} with NA, Series", {argument: pd.Series([True, None] * (size // 2), index=[f"{'s' if axis == 'obs' else 'v'}{i}" for i in range(size)], dtype="boolean")}, ValueError, rf"{argument}: {size // 2} of {size} values are missing; decide for them, e\.g\. with \.fillna\(False\)"),
    ]  # fmt: skip


LAYERS = [
    ("layer misspelt", {"layer": "object"}, KeyError, r"layer='object': not in adata\.layers; did you mean 'objects'"),
    (
        "layer of objects",
        {"layer": "objects"},
        TypeError,
        r"layer 'objects': must hold real numbers, received dtype object",
    ),
    (
        "complex layer",
        {"layer": "complex"},
        TypeError,
        r"layer 'complex': must hold real numbers, received dtype complex128",
    ),
]
RANKS = [
    ("rank 0", {"rank": 0}, ValueError, r"rank: must be at least 1, received 0"),
    ("rank -2", {"rank": -2}, ValueError, r"rank: must be at least 1, received -2"),
    ("rank 1.5", {"rank": 1.5}, ValueError, r"rank: as a fraction of the trace must lie in \(0, 1\], received 1\.5"),
    ("rank 0.0", {"rank": 0.0}, ValueError, r"rank: as a fraction .* received 0\.0"),
    ("rank nan", {"rank": float("nan")}, ValueError, r"rank: as a fraction .* received nan"),
    ("rank text", {"rank": "5"}, TypeError, r"rank: must be None, an int or a fraction, received '5' of type str"),
    ("rank True", {"rank": True}, TypeError, r"rank: must be None, an int or a fraction, received True of type bool"),
]

GRM = [
    *KERNEL_KEYS, *LAYERS, *RANKS, *masks("mask_var", "var", M),
    ("maf 0.5", {"min_maf": 0.5}, ValueError, r"min_maf: must lie in \[0, 0\.5\), received 0\.5"),
    ("maf negative", {"min_maf": -0.1}, ValueError, r"min_maf: must lie in \[0, 0\.5\), received -0\.1"),
    ("maf text", {"min_maf": "0.05"}, ValueError, r"min_maf: must lie in \[0, 0\.5\), received '0\.05'"),
    ("maf nan", {"min_maf": float("nan")}, ValueError, r"min_maf: must lie in \[0, 0\.5\), received nan"),
    ("maf None", {"min_maf": None}, ValueError, r"min_maf: must lie in \[0, 0\.5\), received None"),
    ("center", {"center": 1}, TypeError, r"center: must be True or False, received 1"),
    ("standardize", {"standardize": "yes"}, TypeError, r"standardize: must be True or False, received 'yes'"),
    ("scale", {"scale": None}, TypeError, r"scale: must be True or False, received None"),
    ("infinite", {"layer": "infinite"}, ValueError, r"the variants hold infinite values; set missing calls to NaN"),
    ("negative", {"layer": "minus"}, ValueError, r"min_maf=0\.01: the values are not dosages \(they range from -2 to .*not 0 to 2\); missing calls must be NaN or named: missing_call=-2, if that is what -2 stands for"),
    ("constant", {"layer": "constant"}, ValueError, r"none of 12 variants is left: all are monomorphic"),
    ("missing", {"layer": "missing"}, ValueError, r"none of 12 variants is left: all are monomorphic"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "arguments", "error", "message"), GRM, ids=[case[0] for case in GRM])
def test_kernel_grm(base, what, arguments, error, message):
    check(base, lambda: al.pp.kernel_grm(base, **arguments), error, message)


DONORS = [f"d{i}" for i in range(8)]
RELATED = relatedness(DONORS)


def changed(frame, **cells):
    frame = frame.copy()
    for (i, j), value in cells["at"].items():
        frame.iloc[i, j] = value
    return frame


GROUP = [
    *KERNEL_KEYS[:-1],
    ("misspelt", {"groupby": "doner"}, KeyError, r"groupby='doner': no such column in adata\.obs; did you mean 'donor'"),
    ("not text", {"groupby": 3}, TypeError, r"groupby: must be the name of a column of adata\.obs, received 3 of type int"),
    ("a list", {"groupby": ["donor"]}, TypeError, r"groupby: must be the name of a column .* of type list"),
    ("unique", {"groupby": "unique"}, ValueError, r"groupby='unique': all 40 groups have one observation, which is the residual; name a column that repeats, or pass relatedness"),
    ("one group", {"groupby": "same"}, ValueError, r"groupby='same': 1 group; a random intercept needs at least two"),
    ("no labels", {"groupby": "nothing"}, ValueError, r"groupby='nothing': 0 groups; a random intercept needs at least two"),
    ("fractions", {"groupby": "fraction"}, TypeError, r"groupby='fraction': holds fractional numbers \(e\.g\. 0\.\d+\), not group labels; name a column of labels"),
    ("infinite label", {"groupby": "infinite"}, TypeError, r"groupby='infinite': holds fractional numbers \(e\.g\. inf\)"),
    ("scale", {"scale": 1}, TypeError, r"scale: must be True or False, received 1"),
    ("array", {"relatedness": RELATED.to_numpy()}, TypeError, r"relatedness: must be a DataFrame named by the groups, as al\.get\.kernel returns, received ndarray"),
    ("key", {"relatedness": "grm"}, TypeError, r"relatedness: must be a DataFrame .* received str"),
    ("lacks rows", {"relatedness": RELATED.iloc[:6]}, ValueError, r"relatedness: its rows lack 2 of 8 groups by name \('d6', 'd7'\)"),
    ("lacks columns", {"relatedness": RELATED.iloc[:, 1:]}, ValueError, r"relatedness: its columns lack 1 of 8 groups by name \('d0'\)"),
    ("lacks all", {"relatedness": relatedness(list("abc"))}, ValueError, r"relatedness: its rows lack 8 of 8 groups by name \('d0', 'd1', 'd2', 'd3', 'd4', …\)"),
    ("twice", {"relatedness": RELATED.loc[[*DONORS, "d0"], [*DONORS, "d0"]]}, ValueError, r"relatedness: duplicated names in its rows, e\.g\. 'd0'"),
    ("text", {"relatedness": RELATED.astype(str)}, TypeError, r"relatedness: must hold real numbers, received dtype (object|str)"),
    ("complex", {"relatedness": RELATED * 1j}, TypeError, r"relatedness: must hold real numbers, received dtype complex128"),
    ("NaN", {"relatedness": changed(RELATED, at={(2, 3): np.nan})}, ValueError, r"relatedness: NaN or infinite values in 1 of 8 rows; drop or impute them"),
    ("asymmetric", {"relatedness": changed(RELATED, at={(2, 3): 9.0})}, ValueError, r"relatedness: not symmetric .*pass \(K \+ K\.T\) / 2"),
    ("negative", {"relatedness": -RELATED}, ValueError, r"relatedness: not positive semi-definite .*K must be a covariance, e\.g\. Z @ Z\.T"),
    ("indefinite", {"relatedness": 1 - RELATED}, ValueError, r"relatedness: not positive semi-definite"),
    ("zero", {"relatedness": 0 * RELATED}, ValueError, r"relatedness: all values are zero; there is nothing to fit"),
    ("constant", {"relatedness": 0 * RELATED + 1, "scale": True}, ValueError, r"scale=True: the kernel is constant, its centred diagonal is zero; use scale=False"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "arguments", "error", "message"), GROUP, ids=[case[0] for case in GROUP])
def test_kernel_group(base, what, arguments, error, message):
    check(base, lambda: al.pp.kernel_group(base, **({"groupby": "donor"} | arguments)), error, message)


LINEAR = [
    *KERNEL_KEYS, *RANKS,
    ("misspelt", {"obsm": "X_pcs"}, KeyError, r"obsm='X_pcs': not in adata\.obsm; did you mean 'X_pca'"),
    ("obs column", {"obsm": "age"}, KeyError, r"obsm='age': not in adata\.obsm"),
    ("not text", {"obsm": np.ones((N, 2))}, TypeError, r"obsm: must be a key of adata\.obsm, received"),
    ("NaN", {"obsm": "nan"}, ValueError, r"obsm='nan': NaN or infinite values in 1 rows; drop or impute them"),
    ("constant", {"obsm": "flat"}, ValueError, r"obsm='flat': its columns are constant; there is no kernel to make"),
    ("own factor", {"obsm": "grm", "key_added": "grm"}, ValueError, r"key_added='grm': is the key of the factor itself; choose another"),
    ("constant standardised", {"obsm": "flat", "standardize": True, "center": False}, ValueError, r"obsm='flat': its columns are constant"),
    ("constant uncentred", {"obsm": "flat", "center": False}, ValueError, r"scale=True: the kernel is constant, its centred diagonal is zero; use scale=False"),
    ("empty", {"obsm": "empty"}, ValueError, r"adata\.obsm\['empty'\]: must have two dimensions and a column, received shape \(40, 0\)"),
    ("text", {"obsm": "words"}, TypeError, r"obsm 'w': must be numeric, received dtype"),
    ("center", {"center": "no"}, TypeError, r"center: must be True or False, received 'no'"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "arguments", "error", "message"), LINEAR, ids=[case[0] for case in LINEAR])
def test_kernel_linear(base, what, arguments, error, message):
    check(base, lambda: al.pp.kernel_linear(base, **({"obsm": "X_pca"} | arguments)), error, message)


K = relatedness([f"s{i}" for i in range(N)])
PRECOMPUTED = [
    *KERNEL_KEYS, *RANKS,
    ("misspelt", {"kernel": "squares"}, KeyError, r"kernel='squares': not in adata\.obsp; did you mean 'square'"),
    ("shape", {"kernel": np.eye(5)}, ValueError, r"kernel: must be 40 × 40 like adata\.obs, received shape \(5, 5\)"),
    ("vector", {"kernel": np.ones(N)}, ValueError, r"kernel: must be 40 × 40 like adata\.obs, received shape \(40,\)"),
    ("not square", {"kernel": sparse.eye(N, N + 1)}, ValueError, r"kernel: must be 40 × 40 .* received shape \(40, 41\)"),
    ("None", {"kernel": None}, TypeError, r"kernel: must hold real numbers, received dtype object"),
    ("text", {"kernel": K.astype(str)}, TypeError, r"kernel: must hold real numbers, received dtype (object|str)"),
    ("complex", {"kernel": K.to_numpy() * 1j}, TypeError, r"kernel: must hold real numbers, received dtype complex128"),
    ("lacks names", {"kernel": K.iloc[3:, 3:]}, ValueError, r"kernel: its rows lack 3 of 40 observations by name \('s0', 's1', 's2'\)"),
    ("other names", {"kernel": pd.DataFrame(K.to_numpy())}, ValueError, r"kernel: its rows lack 40 of 40 observations by name"),
    ("names twice", {"kernel": pd.concat([K, K.iloc[:1]])}, ValueError, r"kernel: duplicated names in its rows, e\.g\. 's0'"),
    ("NaN", {"kernel": changed(K, at={(2, 2): np.nan})}, ValueError, r"kernel: NaN or infinite values in 1 of 40 rows"),
    ("infinite", {"kernel": changed(K, at={(2, 2): np.inf})}, ValueError, r"kernel: NaN or infinite values in 1 of 40 rows"),
    ("asymmetric", {"kernel": changed(K, at={(2, 7): 3.0})}, ValueError, r"kernel: not symmetric"),
    ("indefinite", {"kernel": -K}, ValueError, r"kernel: not positive semi-definite"),
    ("zero", {"kernel": np.zeros((N, N))}, ValueError, r"kernel: all values are zero"),
    ("constant", {"kernel": np.ones((N, N)), "scale": True}, ValueError, r"scale=True: the kernel is constant"),
    ("center", {"center": 0}, TypeError, r"center: must be True or False, received 0"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "arguments", "error", "message"), PRECOMPUTED, ids=[case[0] for case in PRECOMPUTED])
def test_kernel_precomputed(base, what, arguments, error, message):
    check(base, lambda: al.pp.kernel_precomputed(base, **({"kernel": K} | arguments)), error, message)


FIT = [
    *KEYS, *masks("mask_obs", "obs", N),
    ("key of a kernel", {"key_added": "grm"}, ValueError, r"key_added='grm': adata\.uns\['grm'\] holds a kernel; choose another key"),
    ("key of its kernel", {"key_added": "kernel"}, ValueError, r"key_added='kernel': adata\.uns\['kernel'\] holds a kernel"),
    ("key of a scan", {"key_added": "scan"}, ValueError, r"key_added='scan': adata\.uns\['scan'\] holds results of associate"),
    ("own output", {"phenotype": "lmm_residual"}, ValueError, r"key_added='lmm': 'lmm_residual' is read by this fit and would be overwritten; choose another key"),
    ("own output in a list", {"phenotype": ["y", "lmm_blup"]}, ValueError, r"key_added='lmm': 'lmm_blup' is read by this fit"),
    ("own output as covariate", {"covariates": ["lmm_phenotype"]}, ValueError, r"key_added='lmm': 'lmm_phenotype' is read by this fit"),
    ("own output in a formula", {"covariates": "~ lmm_design"}, ValueError, r"key_added='lmm': 'lmm_design' is read by this fit"),
    ("misspelt", {"phenotype": "yy"}, KeyError, r"phenotype='yy': neither a column of adata\.obs nor a key of adata\.obsm; did you mean 'y"),
    ("misspelt in a list", {"phenotype": ["y", "weight"]}, KeyError, r"phenotype='weight': neither a column"),
    ("feature", {"phenotype": "v3"}, KeyError, r"phenotype='v3': is a feature, not a column of adata\.obs; copy it first"),
    ("values", {"phenotype": np.arange(N)}, TypeError, r"phenotype: must be a column of adata\.obs, a list of them, or a key of adata\.obsm, received array\(.* of type ndarray"),
    ("series", {"phenotype": pd.Series(np.arange(N))}, TypeError, r"phenotype: must be a column .* of type Series"),
    ("empty list", {"phenotype": []}, TypeError, r"phenotype: must be a column .* received \[\] of type list"),
    ("None", {"phenotype": None}, TypeError, r"phenotype: must be a column .* received None"),
    ("twice", {"phenotype": ["y", "y"]}, ValueError, r"phenotype: names must differ, received \['y', 'y'\]"),
    ("obsm in a list", {"phenotype": ["y", "X_pca"]}, ValueError, r"phenotype: a list must name columns of adata\.obs; pass an obsm key on its own"),
    ("twins", {"phenotype": "twins"}, ValueError, r"phenotype='twins': its columns must have different names, received \['a', 'a'\]"),
    ("empty obsm", {"phenotype": "empty"}, ValueError, r"adata\.obsm\['empty'\]: must have two dimensions and a column"),
    ("text", {"phenotype": "text"}, TypeError, r"phenotype='text': must be numeric, received dtype (object|str|category); make numbers of it, e\.g\. pd\.to_numeric\(column\)"),
    ("categories", {"phenotype": "sex"}, TypeError, r"phenotype='sex': must be numeric, received dtype category; make numbers of it, e\.g\. \(column == 'level'\)\.astype\(float\)"),
    ("date", {"phenotype": "date"}, TypeError, r"phenotype='date': must be numeric, received dtype datetime64"),
    ("complex", {"phenotype": "complex"}, TypeError, r"phenotype='complex': must be real, received dtype complex128"),
    ("text in obsm", {"phenotype": "words"}, TypeError, r"phenotype 'w': must be numeric"),
    ("infinite", {"phenotype": "infinite"}, ValueError, r"phenotype='infinite': 1 infinite values; set them to NaN to leave these rows out"),
    ("missing", {"phenotype": "nothing"}, ValueError, r"phenotype='nothing': all values are missing"),
    ("constant", {"phenotype": "constant"}, ValueError, r"phenotype 'constant': constant on the rows that are used; there is no variance to model"),
    ("constant in a list", {"phenotype": ["y", "constant"]}, ValueError, r"phenotype 'constant': constant on the rows"),
    ("constant within groups", {"phenotype": "by_donor"}, ValueError, r"phenotype 'by_donor': constant within the groups of 'kernel' .*fit it on one row per group"),
    ("no common row", {"phenotype": "early", "covariates": ["late"]}, ValueError, r"phenotype 'early': no row has it together with the covariates, the kernel and the mask; see which are missing"),
    ("masked out", {"phenotype": "early", "mask_obs": np.arange(N) >= 20}, ValueError, r"phenotype 'early': no row has it"),
    ("no degrees of freedom", {"phenotype": "two", "covariates": ["age"]}, ValueError, r"2 observations and 2 fixed effects leave 0 degrees of freedom; at least one is needed: drop covariates"),
    ("more covariates than rows", {"phenotype": "two", "covariates": ["age", "X_pca"]}, ValueError, r"covariates: 4 columns for 2 rows; drop covariates or add observations"),
    ("kernel misspelt", {"kernel": "kernal"}, KeyError, r"kernel='kernal': not in adata\.uns; make one first, .*; did you mean 'kernel'\?"),
    ("kernel of scanpy", {"kernel": "neighbors"}, ValueError, r"kernel='neighbors': adata\.uns\['neighbors'\] is not a kernel of annlmm; give the kernel another key_added"),
    ("kernel a null model", {"kernel": "ols"}, ValueError, r"kernel='ols': adata\.uns\['ols'\] is not a kernel"),
    ("several kernels", {"kernel": ["kernel", "grm"]}, TypeError, r"kernel: must be the key of a kernel or None, received \['kernel', 'grm'\] of type list; sums of several kernels are not available"),
    ("kernel values", {"kernel": np.eye(N)}, TypeError, r"kernel: must be the key of a kernel or None, received array"),
    ("kernel False", {"kernel": False}, TypeError, r"kernel: must be the key of a kernel or None, received False of type bool"),
    ("absorbed", {"covariates": ["donor"]}, ValueError, r"kernel: absorbed by the covariates \('donor' alone: .*drop 'donor', or use kernel=None"),
    ("reml", {"reml": "yes"}, TypeError, r"reml: must be True or False, received 'yes'"),
    ("gamma text", {"gamma": "1"}, TypeError, r"gamma: must be a number, received '1' of type str"),
    ("gamma True", {"gamma": True}, TypeError, r"gamma: must be a number, received True of type bool"),
    ("gamma list", {"gamma": [1.0]}, TypeError, r"gamma: must be a number, received \[1\.0\] of type list"),
    ("gamma negative", {"gamma": -0.5}, ValueError, r"gamma: must be at least 0 \(σ²/τ²\), received -0\.5"),
    ("gamma NaN", {"gamma": np.nan}, ValueError, r"gamma: must be at least 0 \(σ²/τ²\), received nan"),
    ("gamma infinite", {"gamma": np.inf}, ValueError, r"gamma: infinite \(h² = 1\) needs a kernel of full rank 39 .*this one has rank 7"),
    ("gamma without a kernel", {"gamma": 1.0, "kernel": None}, ValueError, r"gamma=1\.0: kernel=None is ordinary least squares, which has no σ²/τ²; leave gamma=None"),
    ("rng None", {"rng": None}, TypeError, r"rng: must be a whole number, the seed, received None"),
    ("rng generator", {"rng": np.random.default_rng(0)}, TypeError, r"rng: must be a whole number, the seed, received Generator"),
    ("rng fraction", {"rng": 1.5}, TypeError, r"rng: must be a whole number, the seed, received 1\.5 of type float"),
    ("rng negative", {"rng": -1}, ValueError, r"rng: must be at least 0, received -1"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "arguments", "error", "message"), FIT, ids=[case[0] for case in FIT])
def test_fit_null(base, what, arguments, error, message):
    check(base, lambda: al.tl.fit_null(base, **({"phenotype": "y"} | arguments)), error, message)


NULL_KEYS = [
    ("null misspelt", {"key": "lm"}, KeyError, r"key='lm': not in adata\.uns; run al\.tl\.fit_null\(adata, \.\.\., key_added='lm'\) first; did you mean 'lmm'"),
    ("null not text", {"key": 0}, TypeError, r"key: must be a string, received 0 of type int"),
    ("null of scanpy", {"key": "neighbors"}, ValueError, r"key='neighbors': adata\.uns\['neighbors'\] is not a null model of annlmm"),
    ("null a kernel", {"key": "kernel"}, ValueError, r"key='kernel': adata\.uns\['kernel'\] is not a null model of annlmm"),
    ("null a list", {"key": "list"}, ValueError, r"key='list': adata\.uns\['list'\] is not a null model"),
]  # fmt: skip
ASSOCIATE = [
    *NULL_KEYS, *KEYS, *LAYERS, *masks("mask_var", "var", M),
    ("key of a kernel overwritten", {"key_added": "grm"}, ValueError, r"key_added='grm': adata\.uns\['grm'\] holds a kernel; choose another key"),
    ("key of another null model", {"key_added": "ols"}, ValueError, r"key_added='ols': adata\.uns\['ols'\] holds a null model; choose another key"),
    ("test", {"test": "t"}, ValueError, r"test: must be one of 'wald', 'lrt', 'score', received 't'"),
    ("test None", {"test": None}, ValueError, r"test: must be one of .*, received None"),
    ("test of a list", {"test": ["wald", "Wald"]}, ValueError, r"test: must be one of .*, received 'Wald'"),
    ("variance", {"variance": "exact"}, ValueError, r"variance: must be one of 'null', .*received 'exact'"),
    ("missing", {"missing": "drop"}, ValueError, r"missing: must be one of 'mean', 'raise', received 'drop'"),
    ("df", {"df": "kenward"}, ValueError, r"df: must be one of 'satterthwaite', 'residual', received 'kenward'"),
    ("threshold", {"threshold": 0}, ValueError, r"threshold: must lie in \(0, 1\], received 0"),
    ("threshold text", {"threshold": "1e-4"}, ValueError, r"threshold: must lie in \(0, 1\], received '1e-4'"),
    ("infinite", {"layer": "infinite"}, ValueError, r"features 'v0', .* and \d+ more: infinite values; replace them or leave these out with mask_var"),
    ("NaN", {"layer": "missing", "missing": "raise"}, ValueError, r"features 'v0', 'v1', 'v2', 'v3', 'v4' and 7 more: missing values; use missing='mean'"),
    ("loco misspelt", {"loco": "chromosome"}, KeyError, r"loco='chromosome': no such column in adata\.var; did you mean 'chrom'"),
    ("loco not text", {"loco": True}, TypeError, r"loco: must be the name of a column of adata\.var, received True of type bool"),
    ("loco with missing", {"loco": "partly"}, ValueError, r"loco='partly': 6 features have no chromosome; label them"),
    ("loco of one", {"loco": "label"}, ValueError, r"loco='label': one chromosome, nothing is left for the kernel; use loco=None"),
    ("loco of groups", {"loco": "chrom"}, ValueError, r"loco='chrom': needs a null model with a kernel of al\.pp\.kernel_grm"),
    ("loco without a kernel", {"loco": "chrom", "key": "ols"}, ValueError, r"loco='chrom': needs a null model with a kernel"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "arguments", "error", "message"), ASSOCIATE, ids=[case[0] for case in ASSOCIATE])
def test_associate(base, what, arguments, error, message):
    check(base, lambda: al.tl.associate(base, **arguments), error, message)


GET = [
    ("association misspelt", lambda a: al.get.association(a, "scam"), KeyError, r"key='scam': no association there; run al\.tl\.associate\(adata, key=\.\.\.\) first; did you mean 'scan'"),
    ("association of a null model", lambda a: al.get.association(a), KeyError, r"key='lmm': no association there"),
    ("association of a kernel", lambda a: al.get.association(a, "kernel"), KeyError, r"key='kernel': no association there"),
    ("association of another phenotype", lambda a: al.get.association(a, "scan", phenotype="y2"), KeyError, r"phenotype='y2': not among those of key='scan'; did you mean 'y'"),
    *[(f"null model, {what}", lambda a, k=arguments: al.get.null_model(a, **k), error, message) for what, arguments, error, message in NULL_KEYS],
    ("null model without a kernel", lambda a: al.get.null_model(a, "ols"), ValueError, r"key='ols': fitted with kernel=None, ordinary least squares has no mixed model"),
    ("null model of several", lambda a: al.get.null_model(a, "several"), ValueError, r"phenotype: key='several' holds 2; name one of 'y', 'y2'"),
    ("null model of another phenotype", lambda a: al.get.null_model(a, "several", phenotype="y3"), KeyError, r"phenotype='y3': not among those of key='several'; did you mean"),
    ("kernel misspelt", lambda a: al.get.kernel(a, "gmr"), KeyError, r"kernel='gmr': not in adata\.uns; make one first"),
    ("kernel of a null model", lambda a: al.get.kernel(a, "lmm"), ValueError, r"kernel='lmm': adata\.uns\['lmm'\] is not a kernel of annlmm"),
    ("kernel not text", lambda a: al.get.kernel(a, None), TypeError, r"kernel: must be the key of a kernel or None, received None"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "call", "error", "message"), GET, ids=[case[0] for case in GET])
def test_get(base, what, call, error, message):
    check(base, lambda: call(base), error, message)


@pytest.fixture(scope="module")
def originals() -> tuple[ad.AnnData, ad.AnnData]:
    al.settings.progress = False
    return prepared_pair()


@pytest.mark.parametrize(
    ("function", "what", "call", "error", "message"), CASES, ids=[f"{case[0]}, {case[1]}" for case in CASES]
)
def test_other_functions(originals, function, what, call, error, message):
    a, g = (adata.copy() for adata in originals)
    with untouched(a), untouched(g), pytest.raises(error) as caught:
        call(a, g)
    text = str(caught.value.args[0]) if isinstance(caught.value, KeyError) else str(caught.value)
    assert message in text
    assert len(text) < 700, "a message is read"


FUNCTIONS = {
    "kernel_grm": al.pp.kernel_grm,
    "kernel_group": lambda a: al.pp.kernel_group(a, "donor"),
    "kernel_linear": lambda a: al.pp.kernel_linear(a, "X_pca"),
    "kernel_precomputed": lambda a: al.pp.kernel_precomputed(a, np.eye(N)),
    "fit_null": lambda a: al.tl.fit_null(a, "y"),
    "associate": al.tl.associate,
    "association": al.get.association,
    "null_model": al.get.null_model,
    "kernel": al.get.kernel,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_adata_itself(name):
    call = FUNCTIONS[name]
    for wrong in (pd.DataFrame({"y": [1.0]}), np.eye(3), None, "adata.h5ad"):
        with pytest.raises(TypeError, match=rf"adata: must be an AnnData, received {type(wrong).__name__}"):
            call(wrong)
    adata = cohort()
    with pytest.raises(ValueError, match="adata: has no observations"):
        call(adata[:0].copy())
    twins = cohort()
    twins.obs = pd.concat([twins.obs, twins.obs[["age"]]], axis=1)
    with pytest.raises(ValueError, match=r"adata\.obs: two columns are named 'age'; rename one"):
        call(twins)


def test_without_x():
    adata = cohort()
    adata.X = None
    for call in (al.pp.kernel_grm, al.tl.associate):
        if call is al.tl.associate:
            al.tl.fit_null(adata, "y", kernel=None)
        check(adata, lambda call=call: call(adata), ValueError, r"adata\.X is None; name a layer")
    with pytest.raises(KeyError, match=r"layer='counts': not in adata\.layers; there is none"):
        al.pp.kernel_grm(adata, layer="counts")


def test_too_few_rows_to_test_a_feature():
    adata = cohort()
    adata.obs["y"] = adata.obs["y"].where(np.arange(N) < 2)
    al.tl.fit_null(adata, "y", kernel=None)
    check(adata, lambda: al.tl.associate(adata), ValueError, r"testing a feature takes one more: at least 2 are needed")


def test_kernels_that_cannot_be_told_from_the_residual():
    adata = cohort()
    al.pp.kernel_precomputed(adata, np.eye(N))
    check(
        adata,
        lambda: al.tl.fit_null(adata, "y"),
        ValueError,
        r"cannot be told from the residual .* as for K = I\); use a kernel with structure",
    )
    al.pp.kernel_precomputed(adata, np.ones((N, N)))
    check(adata, lambda: al.tl.fit_null(adata, "y"), ValueError, r"absorbed by the covariates")
    al.tl.fit_null(adata, "y", gamma=1.0)  # nothing is estimated


def test_masked_arrays_are_refused():
    adata = cohort()
    adata.layers["masked"] = np.ma.masked_array(np.ones(adata.shape), mask=np.eye(*adata.shape, dtype=bool))
    al.tl.fit_null(adata, "y", kernel=None)
    check(
        adata, lambda: al.tl.associate(adata, layer="masked"), TypeError, r"layer 'masked': is a masked array, .*filled"
    )


def test_hints_leave_out_what_annlmm_wrote():
    adata = cohort()
    own = [*adata.obs.columns, "y_blup"]
    adata.obs["y_blup"] = 0.0  # a name like ours, without the others
    al.pp.kernel_grm(adata, key_added="grm")
    al.tl.fit_null(adata, "y", gamma=1.0, kernel="grm")
    al.tl.associate(adata)
    al.tl.variance_components(adata, kernel="grm")
    with pytest.raises(KeyError) as error:
        al.tl.fit_null(adata, "zzz")
    names = str(error.value).split("known: ")[1]
    assert names == ", ".join(map(repr, [*own, *(key for key in adata.obsm if key not in ("grm", "lmm_design"))])) + '"'
    with pytest.raises(
        KeyError, match="mask_var='zzz': no such column in adata.var; there is none|known: (?!.*lmm_|.*varcomp_)"
    ):
        al.tl.associate(adata, mask_var="zzz")
    with pytest.raises(KeyError, match="did you mean 'y_blup'"):
        al.tl.fit_null(adata, "lmm_blupp")


def test_the_tables_are_long_enough():
    others = [[case[1:] for case in CASES if case[0] == name] for name in dict.fromkeys(case[0] for case in CASES)]
    tables = (GRM, GROUP, LINEAR, PRECOMPUTED, FIT, ASSOCIATE, GET, *others)
    assert sum(len(table) for table in tables) > 450
    public = {
        f"{module.__name__.split('.')[-1]}.{name}"
        for module in (al.pp, al.tl, al.get, al.pl, al.io, al.datasets)
        for name in module.__all__
    }
    seen = {case[0] for case in CASES} | {
        "kernel_grm",
        "kernel_group",
        "kernel_linear",
        "kernel_precomputed",
        "fit_null",
        "associate",
    }
    seen |= {"get.kernel", "get.null_model", "get.association"}
    assert {name for name in public if name not in seen and name.split(".")[1] not in seen} == set()
    for table in tables:
        names = [case[0] for case in table]
        assert len(set(names)) == len(names)
