"""Bad input of the functions that `test_bad_input` has no table of its own for.

Each case is (function, what is wrong, the call, its exception, a part of its message); `a` is expression, `g` genotype.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from helpers import cohort, relatedness
from scipy import sparse

import annlmm as al

N, M = 40, 12


def prepared() -> tuple[ad.AnnData, ad.AnnData]:
    """Cells of 8 donors with a result of every function, the donors' genotypes, and columns to stumble over."""
    adata = cohort(N, M)
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, "y", gamma=1.0)
    al.tl.fit_null(adata, ["y", "y2"], gamma=1.0, key_added="several")
    al.tl.associate(adata, "several")
    al.tl.associate(adata)
    few = np.arange(M) < 3
    al.tl.variance_components(adata, mask_var=few)
    al.tl.differential(adata, "sex", mask_var=few)
    obs = adata.obs
    obs["same"] = "a"
    obs["nothing"] = np.nan
    obs["none"] = False
    obs["text"] = [str(i) for i in range(N)]
    obs["date"] = pd.date_range("2020-01-01", periods=N)
    obs["infinite"] = np.where(np.arange(N) == 2, np.inf, 1.0)
    obs["constant"] = 2.0
    obs["weight"] = np.arange(N) - 1.0
    obs["level"] = pd.Categorical(["a", "b", "c", "c"] * (N // 4), categories=["c", "b", "a", "unused"], ordered=True)
    obs["twin"] = obs["age"] * 2 + 1
    obs["donor2"] = obs["donor"].astype(str)
    adata.var["chrom"] = "1"
    adata.var["start"] = 1000 * np.arange(M)
    adata.obsm["nan"] = np.where(np.arange(2 * N).reshape(N, 2) == 5, np.nan, 1.0)
    adata.obsm["flat"] = np.ones((N, 2))
    adata.obsm["empty"] = np.zeros((N, 0))
    line = np.eye(N, k=1) + np.eye(N, k=1 - N)
    ring = line + line.T
    adata.obsp["ring"] = sparse.csr_matrix(ring)
    adata.obsp["lonely"] = ring * (np.arange(N) != 3) * (np.arange(N) != 3)[:, None]
    adata.obsp["minus"], adata.obsp["nan"] = -ring, np.where(ring > 0, np.nan, 0)
    adata.obsp["directed"], adata.obsp["complex"] = np.eye(N, k=1), ring * 1j
    adata.obsp["two"] = np.kron(np.eye(2), np.ones((N // 2, N // 2)))
    adata.layers["infinite"] = np.where(adata.X > 1, np.inf, adata.X)
    adata.layers["complex"] = adata.X * 1j
    adata.layers["objects"] = adata.X.astype(object)
    donors = list(obs["donor"].cat.categories)
    genotype = ad.AnnData(np.random.default_rng(1).binomial(2, 0.4, (len(donors), 6)).astype(float))
    genotype.obs_names = donors
    genotype.var_names = [f"rs{j}" for j in range(6)]
    genotype.var["chrom"], genotype.var["pos"], genotype.var["a1"] = "1", 1500 * np.arange(6), list("ACGTAC")
    genotype.layers["minus"] = genotype.X - 9
    genotype.layers["infinite"] = np.where(genotype.X > 1, np.inf, genotype.X)
    al.pp.kernel_grm(genotype)
    al.tl.map_eqtl(adata, genotype, "donor")
    return adata, genotype


def without(adata, column):
    adata = adata.copy()
    del adata.var[column]
    return adata


def with_var(adata, **columns):
    adata = adata.copy()
    for name, values in columns.items():
        adata.var[name] = values
    return adata


def renamed(adata, names):
    adata = adata.copy()
    adata.obs_names = names
    return adata


def with_gap(adata):
    adata = adata.copy()
    adata.X[3, 2] = np.nan
    return adata


R = np.random.default_rng(0)
YY, XX = R.normal(size=12), np.c_[np.ones(12), R.normal(size=12)]
KK, ZZ = relatedness([str(i) for i in range(12)]).to_numpy(), R.normal(size=(12, 3))


def lmm():
    return al.LinearMixedModel.from_kinship(YY, XX, KK)[0]


def low():
    return al.LinearMixedModel.from_random_effects(YY, XX, ZZ)[0]


def fitted(model):
    model.fit()
    return model


CASES = [
    ('inverse_normal', 'layer misspelt', lambda a, g: al.pp.inverse_normal(a, layer="infinit"), KeyError, "layer='infinit': not in adata.layers"),
    ('inverse_normal', 'infinite', lambda a, g: al.pp.inverse_normal(a, layer="infinite"), ValueError, "feature 'v0': infinite values; set them to NaN to leave them out"),
    ('inverse_normal', 'complex', lambda a, g: al.pp.inverse_normal(a, layer="complex"), TypeError, "layer 'complex': must hold real numbers, received dtype complex128"),
    ('inverse_normal', 'objects', lambda a, g: al.pp.inverse_normal(a, layer="objects"), TypeError, "layer 'objects': must hold real numbers, received dtype object"),
    ('inverse_normal', 'offset 1', lambda a, g: al.pp.inverse_normal(a, offset=1), ValueError, 'offset: must be in [0, 1), e.g. 3/8, received 1'),
    ('inverse_normal', 'offset text', lambda a, g: al.pp.inverse_normal(a, offset="3/8"), TypeError, "offset: must be a number, received '3/8' of type str"),
    ('inverse_normal', 'offset nan', lambda a, g: al.pp.inverse_normal(a, offset=np.nan), ValueError, 'offset: must be in [0, 1), e.g. 3/8, received nan'),
    ('inverse_normal', 'key slash', lambda a, g: al.pp.inverse_normal(a, key_added="a/b"), ValueError, "key_added: must be a non-empty name without '/' or '.' (neither survives h5ad and zarr), received 'a/b'"),
    ('kernel_graph', 'misspelt', lambda a, g: al.pp.kernel_graph(a, "rings"), KeyError, "obsp='rings': not in adata.obsp; make a graph first, e.g. scanpy.pp.neighbors(adata)"),
    ('kernel_graph', 'not text', lambda a, g: al.pp.kernel_graph(a, 3), TypeError, 'obsp: must be a key of adata.obsp, received 3 of type int'),
    ('kernel_graph', 'negative', lambda a, g: al.pp.kernel_graph(a, "minus"), ValueError, "obsp='minus': 80 values are negative; weights of a graph are similarities, 0 for no edge"),
    ('kernel_graph', 'NaN', lambda a, g: al.pp.kernel_graph(a, "nan"), ValueError, "obsp='nan': 80 values are NaN or infinite; set them to 0"),
    ('kernel_graph', 'directed', lambda a, g: al.pp.kernel_graph(a, "directed"), ValueError, "obsp='directed': not symmetric (W and its transpose differ by up to 1); pass the connectivities, not the distances, of scanpy.pp.neighbors, or (W + W.T) / 2"),
    ('kernel_graph', 'alone', lambda a, g: al.pp.kernel_graph(a, "lonely"), ValueError, "obsp='lonely': 1 of 40 observations have no neighbour ('s3'); drop them, or compute the graph again after subsetting, with more neighbours"),
    ('kernel_graph', 'complex', lambda a, g: al.pp.kernel_graph(a, "complex"), TypeError, "obsp='complex': must hold real numbers, received dtype complex128"),
    ('kernel_graph', 'time 0', lambda a, g: al.pp.kernel_graph(a, "ring", diffusion_time=0), ValueError, 'diffusion_time: must be a positive, finite number, received 0'),
    ('kernel_graph', 'time inf', lambda a, g: al.pp.kernel_graph(a, "ring", diffusion_time=np.inf), ValueError, 'diffusion_time: must be a positive, finite number, received inf'),
    ('kernel_graph', 'time text', lambda a, g: al.pp.kernel_graph(a, "ring", diffusion_time="10"), TypeError, "diffusion_time: must be a number or a list of numbers, received '10' of type str"),
    ('kernel_graph', 'time empty', lambda a, g: al.pp.kernel_graph(a, "ring", diffusion_time=[]), ValueError, 'diffusion_time: an empty list; pass a number, or several for a family of kernels'),
    ('kernel_graph', 'time twice', lambda a, g: al.pp.kernel_graph(a, "ring", diffusion_time=[1, 1]), ValueError, 'diffusion_time: a value is listed twice, received [1, 1] of type list'),
    ('kernel_graph', 'rank below components', lambda a, g: al.pp.kernel_graph(a, "two", rank=1), ValueError, 'rank=1: the graph has 2 connected components, each with an eigenvector of the largest eigenvalue; pass at least 2'),
    ('kernel_graph', 'key dot', lambda a, g: al.pp.kernel_graph(a, "ring", key_added="a.b"), ValueError, "key_added: must be a non-empty name without '/' or '.' (neither survives h5ad and zarr), received 'a.b'"),
    ('kernel_graph', 'key taken', lambda a, g: al.pp.kernel_graph(a, "ring", key_added="lmm"), ValueError, "key_added='lmm': adata.uns['lmm'] holds something else; choose another key"),
    ('kernel_rbf', 'misspelt', lambda a, g: al.pp.kernel_rbf(a, "X_pc"), KeyError, "obsm='X_pc': not in adata.obsm"),
    ('kernel_rbf', 'NaN', lambda a, g: al.pp.kernel_rbf(a, "nan"), ValueError, "obsm='nan': NaN or infinite values in 1 rows; drop or impute them"),
    ('kernel_rbf', 'flat', lambda a, g: al.pp.kernel_rbf(a, "flat"), ValueError, "obsm='flat': all observations have the same coordinates; there is no kernel to make"),
    ('kernel_rbf', 'empty', lambda a, g: al.pp.kernel_rbf(a, "empty"), ValueError, "adata.obsm['empty']: must have two dimensions and a column, received shape (40, 0)"),
    ('kernel_rbf', 'scale negative', lambda a, g: al.pp.kernel_rbf(a, "X_pca", length_scale=-1), ValueError, 'length_scale: must be a positive, finite number, received -1'),
    ('kernel_rbf', 'scale nan', lambda a, g: al.pp.kernel_rbf(a, "X_pca", length_scale=np.nan), ValueError, 'length_scale: must be a positive, finite number, received nan'),
    ('kernel_rbf', 'scale True', lambda a, g: al.pp.kernel_rbf(a, "X_pca", length_scale=True), TypeError, 'length_scale: must be a number or a list of numbers, received True of type bool'),
    ('kernel_rbf', 'scale huge', lambda a, g: al.pp.kernel_rbf(a, "X_pca", length_scale=1e300), ValueError, "length_scale=1e+300: the coordinates of obsm='X_pca' extend over"),
    ('kernel_rbf', 'rank 0', lambda a, g: al.pp.kernel_rbf(a, "X_pca", rank=0), ValueError, 'rank: must be at least 1, received 0; pass kernel=None to `fit_null` for no kernel'),
    ('kernel_rbf', 'own factor', lambda a, g: al.pp.kernel_rbf(a, "X_pca", key_added="X_pca"), ValueError, "key_added='X_pca': adata.obsm['X_pca'] holds something else; choose another key"),
    ('kernel_group', 'rho 2', lambda a, g: al.pp.kernel_group(a, "donor", rho=2, relatedness=al.get.kernel(g)), ValueError, 'rho: must be between 0 and 1, received 2'),
    ('kernel_group', 'rho alone', lambda a, g: al.pp.kernel_group(a, "donor", rho=0.5), ValueError, 'rho: weighs a relatedness matrix against independent groups; pass relatedness=, or leave it out'),
    ('kernel_group', 'date', lambda a, g: al.pp.kernel_group(a, "date"), ValueError, "groupby='date': all 40 groups have one observation, which is the residual; name a column that repeats, or pass relatedness"),
    ('pseudobulk', 'misspelt', lambda a, g: al.pp.pseudobulk(a, "doner"), KeyError, "donor_key='doner': no such column in adata.obs"),
    ('pseudobulk', 'by misspelt', lambda a, g: al.pp.pseudobulk(a, "donor", by="cell"), KeyError, "by='cell': no such column in adata.obs"),
    ('pseudobulk', 'by donor', lambda a, g: al.pp.pseudobulk(a, "donor", by="donor"), ValueError, "by='donor': is the column of the donors; name one of cell types"),
    ('pseudobulk', 'func', lambda a, g: al.pp.pseudobulk(a, "donor", func="median"), ValueError, "func: must be 'mean' or 'sum', received 'median'"),
    ('pseudobulk', 'min_cells', lambda a, g: al.pp.pseudobulk(a, "donor", min_cells=0), ValueError, 'min_cells: must be a whole number, at least 1, received 0 of type int'),
    ('pseudobulk', 'min_cells text', lambda a, g: al.pp.pseudobulk(a, "donor", min_cells="5"), ValueError, "min_cells: must be a whole number, at least 1, received '5' of type str"),
    ('pseudobulk', 'too many', lambda a, g: al.pp.pseudobulk(a, "donor", min_cells=1000), ValueError, 'min_cells=1000: no donor has so many cells, the most are 5; lower it'),
    ('pseudobulk', 'no labels', lambda a, g: al.pp.pseudobulk(a, "nothing"), ValueError, "donor_key='nothing': no cell is left that has a donor"),
    ('pseudobulk', 'mask', lambda a, g: al.pp.pseudobulk(a, "donor", mask_obs="none"), ValueError, 'mask_obs: selects nothing'),
    ('pseudobulk', 'fractions', lambda a, g: al.pp.pseudobulk(a, "age"), TypeError, "donor_key='age': holds fractional numbers (e.g."),
    ('pseudobulk', 'complex', lambda a, g: al.pp.pseudobulk(a, "donor", layer="complex"), TypeError, "layer 'complex': must hold real numbers, received dtype complex128"),
    ('variance_components', 'kernel None', lambda a, g: al.tl.variance_components(a, kernel=None), TypeError, 'kernel: must be the key of a kernel, received None; without one there is a single variance'),
    ('variance_components', 'kernel misspelt', lambda a, g: al.tl.variance_components(a, kernel="kernl"), KeyError, "kernel='kernl': not in adata.uns; make one first, e.g. al.pp.kernel_group(adata, 'donor_id', key_added='kernl')"),
    ('variance_components', 'covariate misspelt', lambda a, g: al.tl.variance_components(a, "aeg"), KeyError, "covariates: 'aeg' is neither a column of adata.obs nor a key of adata.obsm"),
    ('variance_components', 'collinear', lambda a, g: al.tl.variance_components(a, ["age", "twin"]), ValueError, "covariates 'Intercept', 'age' and 'twin' are collinear (rank 2 of 3); drop one"),
    ('variance_components', 'constant covariate', lambda a, g: al.tl.variance_components(a, ["age", "constant"]), ValueError, "covariates 'Intercept' and 'constant' are collinear (rank 2 of 3); drop one"),
    ('variance_components', 'infinite covariate', lambda a, g: al.tl.variance_components(a, ["infinite"]), ValueError, "covariates 'infinite': NaN or infinite values; drop these rows or impute them"),
    ('variance_components', 'date covariate', lambda a, g: al.tl.variance_components(a, ["date"]), TypeError, "covariates 'date': must be numeric, received dtype datetime64"),
    ('variance_components', 'missing covariate', lambda a, g: al.tl.variance_components(a, ["nothing"]), ValueError, 'no row has all covariates, a value of the kernel and the mask; see which are missing'),
    ('variance_components', 'infinite', lambda a, g: al.tl.variance_components(a, layer="infinite"), ValueError, "features 'v0', 'v1', 'v2', 'v3', 'v4' and 7 more: infinite values; replace them or leave these out with mask_var"),
    ('variance_components', 'missing raise', lambda a, g: al.tl.variance_components(with_gap(a), missing="raise"), ValueError, "feature 'v2': missing values; use missing='mean' or leave these out with mask_var"),
    ('variance_components', 'missing', lambda a, g: al.tl.variance_components(a, missing="drop"), ValueError, "missing: must be one of 'mean', 'raise', received 'drop'"),
    ('variance_components', 'reml', lambda a, g: al.tl.variance_components(a, reml=1), TypeError, 'reml: must be True or False, received 1'),
    ('variance_components', 'rng', lambda a, g: al.tl.variance_components(a, rng=None), TypeError, 'rng: must be a whole number, the seed, received None of type NoneType'),
    ('variance_components', 'absorbed', lambda a, g: al.tl.variance_components(a, ["donor2"]), ValueError, "kernel: absorbed by the covariates ('donor2' alone: nothing of it is left once they are projected out, as with donor dummies under a donor kernel or a constant kernel und"),
    ('variance_components', 'key of a null model', lambda a, g: al.tl.variance_components(a, key_added="lmm"), ValueError, "key_added='lmm': adata.uns['lmm'] holds a null model; choose another key"),
    ('variance_components', 'one group', lambda a, g: al.tl.variance_components(a, mask_obs=np.asarray(a.obs["donor"] == "d0")), ValueError, "kernel='kernel': one group on the 5 rows that are used; a variance between groups needs at least two, see mask_obs and missing covariates, or test without a random effect"),
    ('variance_components', 'layer misspelt', lambda a, g: al.tl.variance_components(a, layer="logcounts"), KeyError, "layer='logcounts': not in adata.layers"),
    ('differential', 'misspelt', lambda a, g: al.tl.differential(a, "sexx"), KeyError, "term='sexx': no such column in adata.obs"),
    ('differential', 'not text', lambda a, g: al.tl.differential(a, ["sex"]), TypeError, "term: must be the name of a column of adata.obs, received ['sex'] of type list"),
    ('differential', 'formula', lambda a, g: al.tl.differential(a, "~ sex"), KeyError, "term='~ sex': must name one column of adata.obs; formulas go into covariates, and make a category of what C(...) would code"),
    ('differential', 'constant', lambda a, g: al.tl.differential(a, "constant"), ValueError, "term='constant': is 2 in all 40 rows that are used; there is nothing to compare"),
    ('differential', 'same', lambda a, g: al.tl.differential(a, "same"), ValueError, "term='same': has one level ('a') on the 40 rows that are used; there is nothing to compare"),
    ('differential', 'all missing', lambda a, g: al.tl.differential(a, "nothing"), ValueError, 'no row has all covariates, a value of the kernel and the mask; see which are missing'),
    ('differential', 'infinite', lambda a, g: al.tl.differential(a, "infinite"), ValueError, "term='infinite': infinite values; set them to NaN to leave these rows out"),
    ('differential', 'date', lambda a, g: al.tl.differential(a, "date"), TypeError, "term='date': must be numeric, received dtype datetime64"),
    ('differential', 'identifier', lambda a, g: al.tl.differential(a, "text"), ValueError, "term='text': has 40 levels for 40 rows; is it an identifier?"),
    ('differential', 'its own covariate', lambda a, g: al.tl.differential(a, "sex", ["sex"]), ValueError, "covariates: 'sex' is the term that is tested, which enters the design by itself; leave it out"),
    ('differential', 'twin covariate', lambda a, g: al.tl.differential(a, "age", ["twin"]), ValueError, "term='age': its effect cannot be told from that of the covariates: 'Intercept', 'twin' and 'age' are collinear (rank 2 of 3); drop one"),
    ('differential', 'the donor', lambda a, g: al.tl.differential(a, "donor2"), ValueError, "term='donor2': leaves nothing of 'kernel' (rank 8, 8 values of the term): with a value of its own for every group, or too few groups, the variation between groups that it"),
    ('differential', 'reference', lambda a, g: al.tl.differential(a, "sex", reference="x"), ValueError, "reference='x': not a level of 'sex' on the rows that are used"),
    ('differential', 'unused reference', lambda a, g: al.tl.differential(a, "level", reference="unused"), ValueError, "reference='unused': not a level of 'level' on the rows that are used"),
    ('differential', 'reference of a number', lambda a, g: al.tl.differential(a, "age", reference="x"), ValueError, "reference='x': 'age' is a number, which has no levels; make it a category first, e.g. .astype(str).astype('category')"),
    ('differential', 'contrast text', lambda a, g: al.tl.differential(a, "level", contrast="a-b"), TypeError, "contrast: must be a pair of levels (a, b), for a − b, or weights of levels such as {'a': 1, 'b': -0.5, 'c': -0.5}, received 'a-b' of type str"),
    ('differential', 'contrast level', lambda a, g: al.tl.differential(a, "level", contrast=("a", "z")), ValueError, "contrast='z': not a level of 'level' on the rows that are used"),
    ('differential', 'contrast sum', lambda a, g: al.tl.differential(a, "level", contrast={"a": 1, "b": 1}), ValueError, "contrast: the weights must add to zero, received {'c': 0.0, 'b': 1.0, 'a': 1.0}, which add to 2"),
    ('differential', 'contrast zero', lambda a, g: al.tl.differential(a, "level", contrast=("a", "a")), ValueError, "contrast: all weights of 'level' are zero"),
    ('differential', 'contrast nan', lambda a, g: al.tl.differential(a, "level", contrast={"a": np.nan, "b": 1}), TypeError, "contrast: the weights must be finite numbers, received {'a': nan, 'b': 1} of type dict"),
    ('differential', 'df', lambda a, g: al.tl.differential(a, "sex", df="kenward"), ValueError, "df: must be one of 'satterthwaite', 'kenward-roger', 'residual', received 'kenward'"),
    ('differential', 'df ml', lambda a, g: al.tl.differential(a, "sex", df="kenward-roger", reml=False), ValueError, "df='kenward-roger': is defined for restricted maximum likelihood; use reml=True, or df='satterthwaite'"),
    ('differential', 'weights misspelt', lambda a, g: al.tl.differential(a, "sex", weights="w"), KeyError, "weights='w': no such column in adata.obs"),
    ('differential', 'weights negative', lambda a, g: al.tl.differential(a, "sex", weights="weight"), ValueError, "weights='weight': 2 values are zero, negative or infinite; leave these rows out with mask_obs, or set them to NaN"),
    ('differential', 'weights values', lambda a, g: al.tl.differential(a, "sex", weights=np.ones(N)), TypeError, 'weights: must be the name of a column of adata.obs, received array([1., 1., 1., 1., 1., 1., 1., 1.,...1., 1., 1., 1., 1., 1., 1., 1.]) of type ndarray'),
    ('differential', 'moderate', lambda a, g: al.tl.differential(a, "sex", moderate=1), TypeError, 'moderate: must be True or False, received 1'),
    ('differential', 'moderate without kernel', lambda a, g: al.tl.differential(a, "sex", moderate=True, kernel=None), ValueError, "moderate=True: shares what is known of σ²/τ², which kernel=None doesn't have; name a kernel"),
    ('differential', 'no intercept', lambda a, g: al.tl.differential(a, "sex", "~ 0 + age"), ValueError, "covariates='~ 0 + age': without an intercept the levels of 'sex' have nothing to be compared with; leave out '0 +'"),
    ('differential', 'key of a kernel', lambda a, g: al.tl.differential(a, "sex", key_added="kernel"), ValueError, "key_added='kernel': adata.uns['kernel'] holds a kernel; choose another key"),
    ('differential', 'key slash', lambda a, g: al.tl.differential(a, "sex", key_added="a/b"), ValueError, "key_added: must be a non-empty name without '/' or '.' (neither survives h5ad and zarr), received 'a/b'"),
    ('differential', 'mask_obs nothing', lambda a, g: al.tl.differential(a, "sex", mask_obs="none"), ValueError, 'mask_obs: selects nothing'),
    ('map_eqtl', 'genotype path', lambda a, g: al.tl.map_eqtl(a, "genotype.h5ad", "donor"), TypeError, 'genotype: must be an AnnData, received str'),
    ('map_eqtl', 'donor_key misspelt', lambda a, g: al.tl.map_eqtl(a, g, "doner"), KeyError, "donor_key='doner': no such column in expression.obs"),
    ('map_eqtl', 'donor_key list', lambda a, g: al.tl.map_eqtl(a, g, ["donor"]), TypeError, "donor_key: must be the name of a column of expression.obs, received ['donor'] of type list"),
    ('map_eqtl', 'donor_key missing', lambda a, g: al.tl.map_eqtl(a, g, "nothing"), ValueError, "donor_key='nothing': all 40 values are missing"),
    ('map_eqtl', 'donor_key number', lambda a, g: al.tl.map_eqtl(a, g, "age"), TypeError, "donor_key='age': holds fractional numbers (e.g."),
    ('map_eqtl', 'no donors in common', lambda a, g: al.tl.map_eqtl(a, renamed(g, [f"x{i}" for i in range(8)]), "donor"), ValueError, "genotype, expression: no donor is in both; expression.obs['donor'] has 8 ('d2', 'd4', 'd1', …), genotype.obs_names 8 ('x0', 'x1', 'x2', …); without what precedes the firs"),
    ('map_eqtl', 'too few', lambda a, g: al.tl.map_eqtl(a, g[:3].copy(), "donor"), ValueError, "genotype, expression: 3 donors are in both, at least 5 are needed; expression.obs['donor'] has 8 ('d2', 'd4', 'd1', …), genotype.obs_names 3 ('d0', 'd1', 'd2')"),
    ('map_eqtl', 'without donor_key', lambda a, g: al.tl.map_eqtl(a, g), ValueError, "genotype, expression: no donor is in both; expression.obs_names has 40 ('s0', 's1', 's2', …), genotype.obs_names 8 ('d0', 'd1', 'd2', …); expression.obs['donor'] has name"),
    ('map_eqtl', 'no chromosomes', lambda a, g: al.tl.map_eqtl(a, without(g, "chrom"), "donor"), KeyError, "genotype.var has no column 'chrom', which cis windows need (chrom, pos); rename yours"),
    ('map_eqtl', 'other chromosomes', lambda a, g: al.tl.map_eqtl(a, with_var(g, chrom="7"), "donor"), ValueError, "expression.var['chrom'], genotype.var['chrom']: no chromosome is in both ('1' and '7'; 'chr1' and '1' are the same); rename one of them"),
    ('map_eqtl', 'fractional positions', lambda a, g: al.tl.map_eqtl(a, with_var(g, pos=g.var["pos"] + 0.5), "donor"), ValueError, "genotype.var['pos']: holds fractions; positions are whole base pairs"),
    ('map_eqtl', 'start beyond end', lambda a, g: al.tl.map_eqtl(with_var(a, end=a.var["start"] - 10), g, "donor"), ValueError, "expression.var: 'start' is beyond 'end' in 11 genes, e.g. 'v1'; 'start' is the smaller on either strand, as in GTF files"),
    ('map_eqtl', 'not dosages', lambda a, g: al.tl.map_eqtl(a, g, "donor", genotype_layer="minus"), ValueError, "genotype: variants 'rs0' to 'rs5': the values are not dosages (they range from -9 to -7, not 0 to 2); missing calls must be NaN or named: missing_call=-9, if that is what -9 stands for"),
    ('map_eqtl', 'infinite dosages', lambda a, g: al.tl.map_eqtl(a, g, "donor", genotype_layer="infinite"), ValueError, "genotype: variants 'rs0' to 'rs5': infinite values; set missing calls to NaN"),
    ('map_eqtl', 'window negative', lambda a, g: al.tl.map_eqtl(a, g, "donor", window=-1), ValueError, 'window: must be at least 0, received -1'),
    ('map_eqtl', 'window text', lambda a, g: al.tl.map_eqtl(a, g, "donor", window="1Mb"), TypeError, "window: must be a whole number, received '1Mb' of type str"),
    ('map_eqtl', 'window fraction', lambda a, g: al.tl.map_eqtl(a, g, "donor", window=0.5), TypeError, 'window: must be a whole number, received 0.5 of type float'),
    ('map_eqtl', 'maf', lambda a, g: al.tl.map_eqtl(a, g, "donor", min_maf=0.6), ValueError, 'min_maf: must lie in [0, 0.5], received 0.6'),
    ('map_eqtl', 'maf nan', lambda a, g: al.tl.map_eqtl(a, g, "donor", min_maf=np.nan), ValueError, 'min_maf: must lie in [0, 0.5], received nan'),
    ('map_eqtl', 'threshold', lambda a, g: al.tl.map_eqtl(a, g, "donor", threshold=0), ValueError, 'threshold: must lie in (0, 1], received 0'),
    ('map_eqtl', 'variance', lambda a, g: al.tl.map_eqtl(a, g, "donor", variance="exact"), ValueError, "variance: must be one of 'null', 'screen', 'refit', received 'exact'"),
    ('map_eqtl', 'df', lambda a, g: al.tl.map_eqtl(a, g, "donor", df="kr"), ValueError, "df: must be one of 'satterthwaite', 'residual', received 'kr'"),
    ('map_eqtl', 'permutations few', lambda a, g: al.tl.map_eqtl(a, g, "donor", permutations=10), ValueError, 'permutations=10: too few for the beta approximation; 1000 are usual, at least 100 are needed'),
    ('map_eqtl', 'permutations trans', lambda a, g: al.tl.map_eqtl(a, g, "donor", permutations=100, window=None), ValueError, 'permutations=100: are of the variants in a window; with window=None pass permutations=0'),
    ('map_eqtl', 'conditional trans', lambda a, g: al.tl.map_eqtl(a, g, "donor", conditional=True, window=None), ValueError, 'conditional=True: signals are those in a window; with window=None pass conditional=False'),
    ('map_eqtl', 'missing_call', lambda a, g: al.tl.map_eqtl(a, g, "donor", missing_call="NA"), TypeError, "missing_call: must be the number that stands for a missing call, such as -9, received 'NA' of type str"),
    ('map_eqtl', 'rng', lambda a, g: al.tl.map_eqtl(a, g, "donor", rng="0"), TypeError, "rng: must be a whole number, the seed, received '0' of type str"),
    ('map_eqtl', 'fdr', lambda a, g: al.tl.map_eqtl(a, g, "donor", fdr=2), ValueError, 'fdr: must lie in (0, 1], received 2'),
    ('map_eqtl', 'collinear', lambda a, g: al.tl.map_eqtl(a, g, "donor", covariates=["age", "twin"]), ValueError, "covariates 'Intercept', 'age' and 'twin' are collinear (rank 2 of 3); drop one"),
    ('map_eqtl', 'kernel misspelt', lambda a, g: al.tl.map_eqtl(a, g, "donor", kernel="kernl"), KeyError, "kernel='kernl': not in expression.uns; make one of the donors, al.pp.kernel_group(expression, donor_key, key_added='kernl')"),
    ('map_eqtl', 'kernel and relatedness', lambda a, g: al.tl.map_eqtl(a, g, "donor", kernel="kernel", relatedness="kernel"), ValueError, "relatedness: says what the kernel of the donors is, and so does kernel='kernel'; pass one of them"),
    ('map_eqtl', 'relatedness array', lambda a, g: al.tl.map_eqtl(a, g, "donor", relatedness=np.eye(8)), TypeError, 'relatedness: must be a DataFrame named by the donors, as al.get.kernel(genotype) returns, or the key of a kernel in genotype, received array([[1., 0., 0., 0., 0., 0., 0.,'),
    ('map_eqtl', 'relatedness misspelt', lambda a, g: al.tl.map_eqtl(a, g, "donor", relatedness="grm"), KeyError, "relatedness='grm': not in genotype.uns; make it first: al.pp.kernel_grm(genotype, key_added='grm')"),
    ('map_eqtl', 'interaction misspelt', lambda a, g: al.tl.map_eqtl(a, g, "donor", interaction="agee"), KeyError, "interaction='agee': neither a column of expression.obs nor a key of expression.obsm"),
    ('map_eqtl', 'interaction text', lambda a, g: al.tl.map_eqtl(a, g, "donor", interaction="text"), ValueError, "interaction='text': has 40 levels ('0', '1', '10', '11', '12'); a context is a number or has two levels: make a column of 0 and 1 for each level to be tested"),
    ('map_eqtl', 'interaction constant', lambda a, g: al.tl.map_eqtl(a, g, "donor", interaction="constant"), ValueError, "interaction='constant': one value on the 40 rows that are used; nothing can interact with it"),
    ('map_eqtl', 'interaction infinite', lambda a, g: al.tl.map_eqtl(a, g, "donor", interaction="infinite"), ValueError, "interaction='infinite': 1 infinite values; set them to NaN to leave these rows out"),
    ('map_eqtl', 'interaction missing', lambda a, g: al.tl.map_eqtl(a, g, "donor", interaction="nothing"), ValueError, "genotype, expression: 0 donors are in both (8 more have no usable observation), at least 5 are needed; expression.obs['donor'] has 8 ('d2', 'd4', 'd1', …), genotype.obs_n"),
    ('map_eqtl', 'interaction number', lambda a, g: al.tl.map_eqtl(a, g, "donor", interaction=3), TypeError, "interaction: must be a column of expression.obs, a key of its .obsm ('X_pca', or one column of it: 'X_pca[0]'), or a list of these, received 3 of type int"),
    ('map_eqtl', 'interaction trans', lambda a, g: al.tl.map_eqtl(a, g, "donor", interaction="age", window=None), ValueError, 'interaction: is tested for the variants in a window; with window=None leave interaction out'),
    ('map_eqtl', 'interaction permutations', lambda a, g: al.tl.map_eqtl(a, g, "donor", interaction="age", permutations=100), ValueError, 'permutations=100: neither labels nor residuals of donors are exchangeable under an interaction; with interaction= pass permutations=0, genes have the combination of their'),
    ('map_eqtl', 'output type', lambda a, g: al.tl.map_eqtl(a, g, "donor", output=3), TypeError, 'output: must be the path of a parquet file, received 3 of type int'),
    ('map_eqtl', 'output suffix', lambda a, g: al.tl.map_eqtl(a, g, "donor", output="pairs.csv"), ValueError, "output: must end in .parquet, received 'pairs.csv'"),
    ('map_eqtl', 'output folder', lambda a, g: al.tl.map_eqtl(a, g, "donor", output="no/such/folder/pairs.parquet"), FileNotFoundError, "output: the folder 'no/such/folder' does not exist"),
    ('map_eqtl', 'key of a kernel', lambda a, g: al.tl.map_eqtl(a, g, "donor", key_added="kernel"), ValueError, "key_added='kernel': adata.uns['kernel'] holds a kernel; choose another key"),
    ('map_eqtl', 'infinite expression', lambda a, g: al.tl.map_eqtl(a, g, "donor", layer="infinite"), ValueError, "features 'v0', 'v1', 'v2', 'v3', 'v4' and 7 more: infinite values; replace them or leave these out with mask_var"),
    ('map_eqtl', 'layer misspelt', lambda a, g: al.tl.map_eqtl(a, g, "donor", layer="logcount"), KeyError, "layer='logcount': not in adata.layers"),
    ('get.eqtl', 'misspelt', lambda a, g: al.get.eqtl(a, "eqtls"), KeyError, "key='eqtls': no eQTL there; run al.tl.map_eqtl(expression, genotype, key_added='eqtls') first"),
    ('get.eqtl', 'level', lambda a, g: al.get.eqtl(a, level="pairs"), ValueError, "level: must be one of 'pair', 'gene', 'signal', received 'pairs'"),
    ('get.eqtl', 'test', lambda a, g: al.get.eqtl(a, test="both"), ValueError, "test: must be one of 'additive', 'interaction', 'joint', received 'both'"),
    ('get.eqtl', 'gene', lambda a, g: al.get.eqtl(a, gene="v99"), KeyError, "gene='v99': not among the genes of key='eqtl'"),
    ('get.eqtl', 'no contexts', lambda a, g: al.get.eqtl(a, context="age"), KeyError, "context='age': key='eqtl' has no contexts; run al.tl.map_eqtl with interaction="),
    ('get.eqtl', 'no signals', lambda a, g: al.get.eqtl(a, level="signal"), KeyError, "level='signal': key='eqtl' has none; run al.tl.map_eqtl with conditional=True"),
    ('get.eqtl', 'of a null model', lambda a, g: al.get.eqtl(a, "lmm"), KeyError, "key='lmm': no eQTL there; run al.tl.map_eqtl(expression, genotype, key_added='lmm') first"),
    ('get.eqtl', 'key not text', lambda a, g: al.get.eqtl(a, 3), TypeError, 'key: must be a string, received 3 of type int'),
    ('get.eqtl', 'p text', lambda a, g: al.get.eqtl(a, max_p_value="small"), TypeError, "max_p_value: must be a number, received 'small' of type str"),
    ('get.eqtl', 'q text', lambda a, g: al.get.eqtl(a, max_q_value="small"), TypeError, "max_q_value: must be a number, received 'small' of type str"),
    ('get.eqtl', 'gene number', lambda a, g: al.get.eqtl(a, gene=3), TypeError, 'gene: must be a name or a list of names, received 3 of type int'),
    ('get.differential', 'misspelt', lambda a, g: al.get.differential(a, "dee"), KeyError, "key='dee': no result of al.tl.differential there; run al.tl.differential(adata, ..., key_added='dee') first"),
    ('get.differential', 'no levels', lambda a, g: al.get.differential(a, levels=True), ValueError, "levels=True: 'de' tests one coefficient, which is in the table itself; levels are those of a factor with three or more"),
    ('get.differential', 'of variance components', lambda a, g: al.get.differential(a, "varcomp"), KeyError, "key='varcomp': no result of al.tl.differential there; run al.tl.differential(adata, ..., key_added='varcomp') first"),
    ('get.differential', 'key list', lambda a, g: al.get.differential(a, ["de"]), TypeError, "key: must be a string, received ['de'] of type list"),
    ('get.variance_components', 'misspelt', lambda a, g: al.get.variance_components(a, "varcom"), KeyError, "key='varcom': no result of al.tl.variance_components there; run al.tl.variance_components(adata, ..., key_added='varcom') first"),
    ('get.variance_components', 'no members', lambda a, g: al.get.variance_components(a, members=True), ValueError, "members=True: 'varcomp' was fitted under one kernel; members are those of a family"),
    ('get.variance_components', 'key not text', lambda a, g: al.get.variance_components(a, 3), TypeError, 'key: must be a string, received 3 of type int'),
    ('get.association', 'key not text', lambda a, g: al.get.association(a, 3), TypeError, 'key: must be a string, received 3 of type int'),
    ('LinearMixedModel', 'y NaN', lambda a, g: al.LinearMixedModel.from_kinship(np.r_[np.nan, YY[1:]], XX, KK), ValueError, 'y: 1 NaN or infinite values; drop or impute these rows'),
    ('LinearMixedModel', 'y complex', lambda a, g: al.LinearMixedModel.from_kinship(YY * 1j, XX, KK), TypeError, 'y: must be real numbers, received dtype complex128'),
    ('LinearMixedModel', 'y object', lambda a, g: al.LinearMixedModel.from_kinship(YY.astype(object), XX, KK), TypeError, 'y: must be real numbers, received dtype object'),
    ('LinearMixedModel', 'y text', lambda a, g: al.LinearMixedModel.from_kinship(["a"] * 12, XX, KK), TypeError, 'y: must be real numbers, received dtype'),
    ('LinearMixedModel', 'y matrix', lambda a, g: al.LinearMixedModel.from_kinship(YY[:, None], XX, KK), ValueError, 'y: must have 1 dimension, received shape (12, 1)'),
    ('LinearMixedModel', 'x infinite', lambda a, g: al.LinearMixedModel.from_kinship(YY, XX * np.inf, KK), ValueError, 'x: 24 NaN or infinite values; drop or impute these rows'),
    ('LinearMixedModel', 'x collinear', lambda a, g: al.LinearMixedModel.from_kinship(YY, XX[:, [0, 1, 1]], KK), ValueError, "px 'x1' and 'x2' are collinear (rank 2 of 3); drop one"),
    ('LinearMixedModel', 'x zero', lambda a, g: al.LinearMixedModel.from_kinship(YY, np.zeros((12, 1)), KK), ValueError, "px 'x0': zero in every row that is used; drop it"),
    ('LinearMixedModel', 'x no columns', lambda a, g: al.LinearMixedModel.from_kinship(YY, np.zeros((12, 0)), KK), ValueError, 'px: received no columns; the model needs at least one fixed effect, add an intercept'),
    ('LinearMixedModel', 'lengths', lambda a, g: al.LinearMixedModel.from_kinship(YY[:-1], XX, KK), ValueError, 'y, x and k must have the same number of rows, received 11, 12 and 12'),
    ('LinearMixedModel', 'n = p', lambda a, g: al.LinearMixedModel.from_kinship(YY[:2], XX[:2], KK[:2, :2]), ValueError, '2 observations and 2 fixed effects leave 0 degrees of freedom; at least one is needed: drop covariates or add observations'),
    ('LinearMixedModel', 'k not square', lambda a, g: al.LinearMixedModel.from_kinship(YY, XX, KK[:, :5]), ValueError, 'k: must be a square matrix, received shape (12, 5)'),
    ('LinearMixedModel', 'k asymmetric', lambda a, g: al.LinearMixedModel.from_kinship(YY, XX, np.triu(KK)), ValueError, 'k: not symmetric (K and its transpose differ by up to'),
    ('LinearMixedModel', 'k indefinite', lambda a, g: al.LinearMixedModel.from_kinship(YY, XX, -KK), ValueError, 'k: not positive semi-definite (smallest eigenvalue -'),
    ('LinearMixedModel', 'k zero', lambda a, g: al.LinearMixedModel.from_kinship(YY, XX, 0 * KK), ValueError, 'k: all values are zero; there is nothing to fit'),
    ('LinearMixedModel', 'k NaN', lambda a, g: al.LinearMixedModel.from_kinship(YY, XX, KK * np.nan), ValueError, 'k: 144 NaN or infinite values; drop or impute these rows'),
    ('LinearMixedModel', 'k = I', lambda a, g: fitted(al.LinearMixedModel.from_kinship(YY, XX, np.eye(12))[0]), ValueError, 's: cannot be told from the residual (its 10 eigenvalues after the covariates are equal to within'),
    ('LinearMixedModel', 'z zero', lambda a, g: al.LinearMixedModel.from_random_effects(YY, XX, 0 * ZZ), ValueError, 'z: all values are zero; there is no random effect'),
    ('LinearMixedModel', 'z condition', lambda a, g: al.LinearMixedModel.from_random_effects(YY, XX, ZZ, max_condition_number=2), ValueError, 'max_condition_number: must lie in (0, 1), received 2'),
    ('LinearMixedModel', 'y without x', lambda a, g: al.LinearMixedModel(YY[:3], XX[:3], np.ones(3), y=YY), ValueError, "received 'y' without 'x'; pass both for a low-rank model, neither for a full-rank one"),
    ('LinearMixedModel', 's negative', lambda a, g: al.LinearMixedModel(YY, XX, -np.arange(1.0, 13.0)), ValueError, 's: none of the 12 eigenvalues is positive; there is no random effect to fit'),
    ('LinearMixedModel', 's zero', lambda a, g: al.LinearMixedModel(YY, XX, np.zeros(12)), ValueError, 's: none of the 12 eigenvalues is positive; there is no random effect to fit'),
    ('LinearMixedModel', 's short', lambda a, g: al.LinearMixedModel(YY, XX, np.ones(3)), ValueError, 'py, px and s must have one row per eigenvector, received shapes (12,), (12, 2) and (3,)'),
    ('LinearMixedModel', 'y constant', lambda a, g: fitted(al.LinearMixedModel.from_kinship(np.ones(12), XX, KK)[0]), ValueError, 'y: constant or a linear combination of the fixed effects; there is no variance to model'),
    ('LinearMixedModel', 'log_gamma text', lambda a, g: lmm().fit(log_gamma="0"), ValueError, "log_gamma: must be a number, received '0'"),
    ('LinearMixedModel', 'log_gamma nan', lambda a, g: lmm().fit(log_gamma=np.nan), ValueError, 'log_gamma: must be a number, received nan'),
    ('LinearMixedModel', 'log_gamma inf low rank', lambda a, g: low().fit(log_gamma=np.inf), ValueError, 'gamma: infinite (h² = 1) needs a kernel of full rank 10 after the covariates; this one has rank 3'),
    ('LinearMixedModel', 'bounds', lambda a, g: lmm().fit(bounds=(3, -3)), ValueError, 'bounds: must be two finite numbers, the lower one first, received (3, -3)'),
    ('LinearMixedModel', 'bounds one', lambda a, g: lmm().fit(bounds=3), ValueError, 'bounds: must be two finite numbers, the lower one first, received 3'),
    ('LinearMixedModel', 'tol', lambda a, g: lmm().fit(tol=0), ValueError, 'tol: must be a positive number, received 0'),
    ('LinearMixedModel', 'maxiter', lambda a, g: lmm().fit(maxiter=0.5), ValueError, 'maxiter: must be a positive whole number, received 0.5'),
    ('LinearMixedModel', 'not fitted', lambda a, g: lmm().fit_alternatives(ZZ), ValueError, 'the null model is not fitted; call fit() first'),
    ('LinearMixedModel', 'pa rows', lambda a, g: fitted(lmm()).fit_alternatives(ZZ[:5]), ValueError, 'pa: must have 12 rows (one per eigenvector), received shape (5, 3)'),
    ('LinearMixedModel', 'pa vector', lambda a, g: fitted(lmm()).fit_alternatives(ZZ[:, 0]), ValueError, 'pa: must have 2 dimensions (features are columns), received shape (12,)'),
    ('LinearMixedModel', 'pa text', lambda a, g: fitted(lmm()).fit_alternatives(ZZ.astype(str).astype(object)), TypeError, 'pa: must be real numbers, received dtype object'),
    ('LinearMixedModel', 'pa complex', lambda a, g: fitted(lmm()).fit_alternatives(ZZ * 1j), TypeError, 'pa: must be real numbers, received dtype complex128'),
    ('LinearMixedModel', 'a of full rank', lambda a, g: fitted(lmm()).fit_alternatives(ZZ, ZZ), ValueError, 'a: not used by a full-rank model, pass P A alone'),
    ('LinearMixedModel', 'a missing', lambda a, g: fitted(low()).fit_alternatives(ZZ[:3]), ValueError, 'a: required for a low-rank model, pass the features themselves beside P A'),
    ('LinearMixedModel', 'a shape', lambda a, g: fitted(low()).fit_alternatives(ZZ[:3], ZZ[:5]), ValueError, 'a: must have shape (12, 3) to go with pa, received (5, 3)'),
    ('LinearMixedModel', 'partition', lambda a, g: fitted(lmm()).fit_alternatives(ZZ, partition_size=0), ValueError, 'partition_size: must be a positive number of features, received 0'),
    ('LinearMixedModel', 'zarr missing', lambda a, g: fitted(lmm()).fit_alternatives("no_such.zarr"), ValueError, "pa: 'no_such.zarr' is not the path of a zarr array"),
    ('pl.manhattan', 'no scan', lambda a, g: al.pl.manhattan(a, "scan"), KeyError, "key='scan': adata.var has no column 'scan_p_value'; run al.tl.associate(adata, key='scan') first"),
    ('pl.manhattan', 'threshold', lambda a, g: al.pl.manhattan(a, threshold=5), ValueError, "threshold=5: expected a p-value in (0, 1], e.g. threshold=5e-8 (not its −log₁₀), 'auto' or None"),
    ('pl.manhattan', 'labels', lambda a, g: al.pl.manhattan(a, labels="genes"), KeyError, "labels='genes': adata.var has no such column; name one, or leave labels=None for adata.var_names"),
    ('pl.manhattan', 'highlight', lambda a, g: al.pl.manhattan(a, highlight=["v99"]), KeyError, "highlight: 1 of 1 names are not in adata.var_names: 'v99'; pass names of features or a boolean column of adata.var"),
    ('pl.manhattan', 'chrom', lambda a, g: al.pl.manhattan(a, chrom="chromosome"), KeyError, "chrom='chromosome': adata.var has no such column"),
    ('pl.manhattan', 'several', lambda a, g: al.pl.manhattan(a, "several"), ValueError, "phenotype=None: key='several' has 2 phenotypes ('y', 'y2'); choose one, e.g. phenotype='y'"),
    ('pl.manhattan', 'phenotype', lambda a, g: al.pl.manhattan(a, "several", phenotype="y9"), KeyError, "phenotype='y9': not among those of key='several'; did you mean 'y' or 'y2'?"),
    ('pl.manhattan', 'key list', lambda a, g: al.pl.manhattan(a, ["lmm"]), TypeError, "key=['lmm']: expected the name of one result (str), got list"),
    ('pl.qq', 'no scan', lambda a, g: al.pl.qq(a, "scan"), KeyError, "key='scan': adata.var has no column 'scan_p_value'; run al.tl.associate(adata, key='scan') first"),
    ('pl.qq', 'no keys', lambda a, g: al.pl.qq(a, []), ValueError, 'key=[]: expected at least one key of results'),
    ('pl.qq', 'band', lambda a, g: al.pl.qq(a, band=95), ValueError, 'band=95: expected a coverage in (0, 1), e.g. band=0.95, or None for no band'),
    ('pl.qq', 'labels', lambda a, g: al.pl.qq(a, label=["a", "b"]), ValueError, 'label: received 2 for 1 series; pass one label per series'),
    ('pl.reml_profile', 'misspelt', lambda a, g: al.pl.reml_profile(a, "lm"), KeyError, "key='lm': not in adata.uns; run al.tl.fit_null(adata, ..., key_added='lm') first"),
    ('pl.reml_profile', 'x', lambda a, g: al.pl.reml_profile(a, x="gamma"), ValueError, "x='gamma': expected 'h_sq' or 'log_gamma'"),
    ('pl.reml_profile', 'depth', lambda a, g: al.pl.reml_profile(a, depth=-1), ValueError, 'depth=-1: expected a positive difference of log-likelihood, e.g. depth=5'),
    ('pl.reml_profile', 'several', lambda a, g: al.pl.reml_profile(a, "several"), ValueError, "phenotype: key='several' holds 2; name one of 'y', 'y2'"),
    ('pl.eqtl', 'gene', lambda a, g: al.pl.eqtl(a, g, "v99"), KeyError, "gene='v99': not in expression.var_names"),
    ('pl.eqtl', 'variant', lambda a, g: al.pl.eqtl(a, g, "v1", variant="rs99"), KeyError, "variant='rs99': not in genotype.var_names"),
    ('pl.eqtl', 'variant type', lambda a, g: al.pl.eqtl(a, g, "v1", variant=3), TypeError, 'variant: must be a name in genotype.var_names, received 3 of type int'),
    ('pl.locus', 'gene', lambda a, g: al.pl.locus(a, g, "v99"), KeyError, "gene='v99': not in expression.var_names"),
    ('pl.locus', 'window', lambda a, g: al.pl.locus(a, g, "v1", window=-5), ValueError, 'window=-5: must be a positive number of base pairs, or None'),
    ('pl.locus', 'key', lambda a, g: al.pl.locus(a, g, "v1", key="eqtls"), KeyError, "key='eqtls': no result of al.tl.map_eqtl there; run al.tl.map_eqtl(expression, genotype, key_added='eqtls') first"),
    ('pl.heritability', 'misspelt', lambda a, g: al.pl.heritability(a, "varcom"), KeyError, "key='varcom': no fit there; run al.tl.variance_components(adata, key_added='varcom')"),
    ('pl.kernel', 'misspelt', lambda a, g: al.pl.kernel(a, "kernl"), KeyError, "kernel='kernl': not in adata.uns; make one first"),
    ('pl.kernel', 'of a null model', lambda a, g: al.pl.kernel(a, "lmm"), ValueError, "kernel='lmm': adata.uns['lmm'] is not a kernel of annlmm"),
    ('pl.volcano', 'misspelt', lambda a, g: al.pl.volcano(a, "dee"), KeyError, "key='dee': adata.var has no column 'dee_p_value'"),
    ('pl.volcano', 'of a kernel', lambda a, g: al.pl.volcano(a, "kernel"), KeyError, "key='kernel': adata.var has no column 'kernel_p_value'"),
    ('settings', 'unknown', lambda a, g: setattr(al.settings, "thread", 2), AttributeError, "al.settings has no 'thread'"),
    ('settings', 'threads', lambda a, g: setattr(al.settings, "threads", 0), ValueError, 'threads: must be a positive number, received 0'),
    ('settings', 'memory', lambda a, g: setattr(al.settings, "kernel_memory", "1GB"), ValueError, "kernel_memory: must be a positive number of bytes, such as 2**30, received '1GB'"),
    ('settings', 'memory nan', lambda a, g: setattr(al.settings, "block_memory", float("nan")), ValueError, 'block_memory: must be a positive number of bytes, such as 2**30, received nan'),
    ('settings', 'progress', lambda a, g: setattr(al.settings, "progress", 1), ValueError, 'progress: must be True or False, received 1'),
    ('settings', 'verbosity', lambda a, g: setattr(al.settings, "verbosity", "loud"), ValueError, "verbosity: must be one of error, warning, info, hint, debug or 0 to 4, received 'loud'"),
    ('settings', 'verbosity 9', lambda a, g: setattr(al.settings, "verbosity", 9), ValueError, 'verbosity: must be one of error, warning, info, hint, debug or 0 to 4, received 9'),
    ('datasets.donors', 'n_donors', lambda a, g: al.datasets.donors(n_donors=0), ValueError, '`n_donors` must be at least 4, got 0.'),
    ('datasets.donors', 'rng', lambda a, g: al.datasets.donors(rng="0"), TypeError, "`rng` must be an integer or a numpy Generator, got '0' (str)."),
    ('datasets.donors', 'icc', lambda a, g: al.datasets.donors(icc=2.0), ValueError, '`icc` must lie in [0, 1), got 2.0.'),
    ('datasets.gwas_cohort', 'n_obs', lambda a, g: al.datasets.gwas_cohort(n_obs=-1), ValueError, '`n_obs` must be at least 2, got -1.'),
    ('datasets.gwas_cohort', 'n_vars text', lambda a, g: al.datasets.gwas_cohort(n_vars="10"), TypeError, "`n_vars` must be an integer, got '10' (str)."),
    ('datasets.gwas_cohort', 'h_sq', lambda a, g: al.datasets.gwas_cohort(h_sq=1.5), ValueError, '`h_sq` must lie in [0, 1], got 1.5.'),
    ('datasets.spatial', 'n_spatial', lambda a, g: al.datasets.spatial(n_genes=5, n_spatial=9), ValueError, '`n_spatial` must be between 0 and 5 (n_genes), got 9.'),
    ('datasets.sc_eqtl', 'n_donors', lambda a, g: al.datasets.sc_eqtl(2), ValueError, '`n_donors` must be at least 4, got 2.'),
    ('datasets.sc_eqtl', 'cells', lambda a, g: al.datasets.sc_eqtl(10, [1, 2]), ValueError, '`cells_per_donor` must be an integer or hold 10 integers (n_donors), got 2.'),
    ('datasets.sc_eqtl', 'rng', lambda a, g: al.datasets.sc_eqtl(rng=1.5), TypeError, '`rng` must be an integer or a numpy Generator, got 1.5 (float).'),
    ('io.read_plink', 'missing', lambda a, g: al.io.read_plink("no_such"), FileNotFoundError, "`path`: 'no_such.bed' does not exist. Give the path of the .bed file, with or without its suffix."),
    ('io.read_plink', 'type', lambda a, g: al.io.read_plink(3), TypeError, '`path` must be a path (str or os.PathLike), got int.'),
    ('io.read_plink', 'gz', lambda a, g: al.io.read_plink("x.bed.gz"), ValueError, '`path`: x.bed.gz is compressed; a .bed is read in place. Decompress it first (gunzip).'),
    ('io.read_plink', 'dtype', lambda a, g: al.io.read_plink("x", dtype="int8"), ValueError, '`dtype` must be float32 or float64 (a missing call is NaN), got int8.'),
    ('io.read_bimbam', 'missing', lambda a, g: al.io.read_bimbam("no_such.txt"), FileNotFoundError, "`genotypes`: 'no_such.txt' does not exist. Give the path of a text file, gzipped or not."),
    ('io.read_gemma_kinship', 'missing', lambda a, g: al.io.read_gemma_kinship("no_such.txt"), FileNotFoundError, "`path`: 'no_such.txt' does not exist. Give the .cXX.txt (or .sXX.txt) that `gemma -gk` wrote."),
    ('io.read_gemma_kinship', 'type', lambda a, g: al.io.read_gemma_kinship(None), TypeError, '`path` must be a path (str or os.PathLike), got NoneType.'),
]  # fmt: skip
