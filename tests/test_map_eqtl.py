"""`al.tl.map_eqtl` and `al.get.eqtl`: against `associate` on expanded cells, least squares and themselves."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import oracle
import pandas as pd
import pytest
from helpers import assert_same, messages, relatedness, snapshot, untouched
from scipy import sparse, stats

import annlmm as al

NUMBERS = ["maf", "beta", "standard_error", "statistic", "df", "p_value", "neg_log10_p_value"]


@pytest.fixture(scope="module")
def data():
    """Cells in random order and genotypes in another order of donors, with a donor on either side that the other lacks."""
    cells, genotype = al.datasets.sc_eqtl(
        24, 15, 10, n_vars=120, n_chrom=2, n_eqtl=4, n_secondary=0, n_interaction=0, missing=0.03, rng=3
    )
    rng = np.random.default_rng(0)
    cells.X = cells.layers["logcounts"].toarray().astype(np.float64)
    for layer in list(cells.layers):
        if layer is not None:
            del cells.layers[layer]
    cells.obs["score"] = rng.standard_normal(cells.n_obs)
    donors = list(genotype.obs_names)
    cells = cells[cells.obs["donor_id"] != donors[0]][
        rng.permutation((cells.obs["donor_id"] != donors[0]).sum())
    ].copy()
    genotype = genotype[[d for d in rng.permutation(donors) if d != donors[5]]].copy()
    return cells, genotype


@pytest.fixture
def cells(data):
    return data[0].copy()


@pytest.fixture
def genotype(data):
    return data[1].copy()


@pytest.fixture
def bulk(cells):
    return al.pp.pseudobulk(cells, "donor_id", min_cells=1)


def pairs_of(expression, genotype, *args, **options):
    out = al.tl.map_eqtl(expression, genotype, *args, copy=True, **options)
    return al.get.eqtl(out)


def by_pair(table):
    return table.set_index([table["gene"].astype(str), table["variant"].astype(str)])[NUMBERS].sort_index()


def assert_same_tests(one, other, rtol=1e-9):
    one, other = by_pair(one), by_pair(other)
    assert one.index.equals(other.index)
    for name in NUMBERS:
        # What is summed in another order; p-values multiply the error of t by t².
        np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=1e-14, err_msg=name)


def expanded(cells, genotype):
    """Cells × variants, with missing calls filled by the mean over donors, and genes as phenotypes."""
    donors = genotype.obs_names.get_indexer(cells.obs["donor_id"])
    kept = donors >= 0
    used = np.unique(donors[kept])
    dosage = np.array(genotype.X, dtype=np.float64)
    mean = np.nanmean(dosage[used], axis=0)
    dosage = np.where(np.isnan(dosage), mean, dosage)
    obs = cells.obs[kept].copy()
    for gene in cells.var_names:
        obs[gene] = np.asarray(cells.X)[kept, cells.var_names.get_loc(gene)]
    return ad.AnnData(dosage[donors[kept]], obs=obs, var=genotype.var[[]].copy())


class TestAgainstAssociate:
    @pytest.mark.parametrize("variance", ["null", "screen", "refit"])
    @pytest.mark.parametrize("df", ["satterthwaite", "residual"])
    def test_cells(self, cells, genotype, variance, df):
        """The tests of `associate` on genotypes expanded to cells, gene by gene."""
        # At the null's γ `associate` would refit below the threshold all the same, where degrees of freedom are those of donors.
        options = {"variance": variance, "df": df, "threshold": 0.01 if variance != "null" else 1e-300}
        found = pairs_of(cells, genotype, "donor_id", covariates="~ age + score", min_maf=0.1, **options)
        wide = expanded(cells, genotype)
        al.pp.kernel_group(wide, "donor_id")
        for gene in ["gene_01", "gene_04", "gene_09"]:
            al.tl.fit_null(wide, gene, covariates="~ age + score")
            al.tl.associate(wide, **options)
            rows = found[found["gene"] == gene].set_index("variant")
            expected = al.get.association(wide).loc[rows.index]
            # Both are exact; γ̂ is found to 1e-12 and the sums run over cells there and donors here.
            np.testing.assert_allclose(rows["beta"], expected["beta"], rtol=1e-7)
            np.testing.assert_allclose(rows["standard_error"], expected["standard_error"], rtol=1e-7)
            np.testing.assert_allclose(rows["statistic"] ** 2, expected["statistic"], rtol=1e-6, atol=1e-12)
            np.testing.assert_allclose(rows["df"], expected["df"], rtol=1e-6)
            np.testing.assert_allclose(rows["p_value"], expected["p_value"], rtol=1e-6)
            assert rows["status"].astype(str).tolist() == expected["status"].astype(str).tolist()

    @pytest.mark.parametrize("variance", ["null", "screen", "refit"])
    def test_pseudobulk_with_a_kinship(self, bulk, genotype, variance):
        kinship = relatedness(list(genotype.obs_names))
        options = {"variance": variance, "threshold": 0.01}
        found = pairs_of(bulk, genotype, covariates=["age"], relatedness=kinship, min_maf=0.1, **options)
        shared = [name for name in bulk.obs_names if name in set(genotype.obs_names)]
        donors = genotype[shared].copy()
        dosage = np.array(donors.X, dtype=np.float64)
        donors.X = np.where(np.isnan(dosage), np.nanmean(dosage, axis=0), dosage)
        donors.obs["age"] = bulk[shared].obs["age"]
        al.pp.kernel_precomputed(donors, kinship)
        for gene in ["gene_01", "gene_04", "gene_09"]:
            donors.obs["y"] = bulk[shared].to_df()[gene]
            al.tl.fit_null(donors, "y", covariates=["age"])
            al.tl.associate(donors, **options)
            rows = found[found["gene"] == gene].set_index("variant")
            expected = al.get.association(donors).loc[rows.index]
            np.testing.assert_allclose(rows["beta"], expected["beta"], rtol=1e-7)
            np.testing.assert_allclose(rows["standard_error"], expected["standard_error"], rtol=1e-7)
            np.testing.assert_allclose(rows["df"], expected["df"])
            np.testing.assert_allclose(rows["p_value"], expected["p_value"], rtol=1e-6)
            h_sq = donors.uns["lmm"]["h_sq"]
            assert al.get.eqtl(
                al.tl.map_eqtl(bulk, genotype, covariates=["age"], relatedness=kinship, copy=True), level="gene"
            ).loc[gene, "h_sq"] == pytest.approx(h_sq, abs=1e-7)

    @pytest.mark.parametrize("variance", ["null", "refit"])
    def test_donor_degrees_of_freedom_on_pseudobulk(self, bulk, genotype, variance):
        """`df="satterthwaite"`: expected information at the null's γ, lmerTest's observed information at a γ of its own."""
        kinship = relatedness(list(genotype.obs_names))
        options = {"variance": variance, "df": "satterthwaite", "relatedness": kinship, "min_maf": 0.1}
        out = al.tl.map_eqtl(bulk, genotype, covariates=["age"], copy=True, **options)
        assert out.uns["eqtl"]["params"]["df"] == "satterthwaite"
        found, level = al.get.eqtl(out), al.get.eqtl(out, level="gene")
        shared = [name for name in bulk.obs_names if name in set(genotype.obs_names)]
        dosage = np.array(genotype[shared].X, dtype=np.float64)
        dosage = np.where(np.isnan(dosage), np.nanmean(dosage, axis=0), dosage)
        k = kinship.loc[shared, shared].to_numpy()
        contrast, compared = np.array([0.0, 0.0, 1.0]), 0
        for gene, rows in found[found["gene"].isin(level.index[:3])].groupby("gene", observed=True):
            y = bulk[shared].to_df()[gene].to_numpy(dtype=np.float64)
            for row in rows.iloc[::2].itertuples():
                snp = dosage[:, genotype.var_names.get_loc(row.variant)]
                x = np.column_stack([np.ones(len(shared)), bulk[shared].obs["age"], snp])
                fit = oracle.fit(y, x, k) if variance == "refit" else None
                gamma = level.loc[gene, "gamma"] if fit is None else fit.gamma
                if row.p_value < 1e-4 or not 1e-3 < gamma < 1e3:
                    continue  # the null's γ refitted where T ≥ ν; bounds are tested in test_exact
                if fit is None:
                    nu = oracle.satterthwaite(y, x, k, contrast, gamma, 1.0, expected=True)
                else:
                    nu = oracle.satterthwaite(y, x, k, contrast, fit.sigma_sq, fit.tau_sq)
                # γ̂ of the oracle is good to 1e-6 or so, and ν is a ratio of its second derivatives.
                assert row.df == pytest.approx(min(nu, len(shared) - 3), rel=1e-4)
                assert row.p_value == pytest.approx(2 * stats.t.sf(abs(row.statistic), row.df), rel=1e-9)
                compared += 1
        assert compared > 10


class TestLeastSquares:
    def lstsq(self, y, x, dosage):
        full = np.column_stack([x, dosage])
        beta, rss, _, _ = np.linalg.lstsq(full, y, rcond=None)
        df = y.size - full.shape[1]
        se = np.sqrt(rss[0] / df * np.linalg.inv(full.T @ full)[-1, -1])
        return beta[-1], se, 2 * stats.t.sf(abs(beta[-1] / se), df)

    def test_pseudobulk_is_least_squares_by_default(self, bulk, genotype):
        found = pairs_of(bulk, genotype, covariates=["age", "sex"])
        shared = [name for name in bulk.obs_names if name in set(genotype.obs_names)]
        part, donors = bulk[shared], genotype[shared]
        x = np.column_stack([np.ones(len(shared)), part.obs["age"], part.obs["sex"].cat.codes])
        for _, row in found.iloc[::37].iterrows():
            dosage = np.array(donors[:, row["variant"]].X, dtype=float).ravel()
            dosage = np.where(np.isnan(dosage), np.nanmean(dosage), dosage)
            expected = self.lstsq(part[:, row["gene"]].X.ravel(), x, dosage)
            np.testing.assert_allclose(row[["beta", "standard_error", "p_value"]].astype(float), expected, rtol=1e-8)
        assert_same_tests(found, pairs_of(bulk, genotype, covariates=["age", "sex"], kernel=None))

    def test_cells_only_where_it_is_asked_for(self, cells, genotype):
        with messages("warning") as seen:
            found = pairs_of(cells, genotype, "donor_id", covariates=["score"], kernel=None)
        assert any("takes the cells of a donor for independent" in text for text in seen)
        wide = expanded(cells, genotype)
        x = np.column_stack([np.ones(wide.n_obs), wide.obs["score"]])
        for _, row in found.iloc[::61].iterrows():
            dosage = wide[:, row["variant"]].X.ravel()
            expected = self.lstsq(wide.obs[row["gene"]].to_numpy(), x, dosage)
            np.testing.assert_allclose(row[["beta", "standard_error", "p_value"]].astype(float), expected, rtol=1e-8)
        out = al.tl.map_eqtl(cells, genotype, "donor_id", kernel=None, copy=True)
        assert "gamma" not in al.get.eqtl(out, level="gene")
        assert out.uns["eqtl"]["params"]["kernel"] == "least squares"
        default = al.tl.map_eqtl(cells, genotype, "donor_id", copy=True)
        assert default.uns["eqtl"]["params"]["kernel"] == "independent donors"
        assert default.uns["eqtl"]["params"]["df"] == "satterthwaite"

    def test_pseudobulk_with_a_column_of_donors(self, bulk, genotype):
        named = bulk.copy()
        named.obs["who"] = named.obs_names
        named.obs_names = [f"row{i}" for i in range(named.n_obs)]
        assert_same_tests(pairs_of(named, genotype, "who"), pairs_of(bulk, genotype))


class TestKernels:
    def test_a_stored_donor_kernel(self, cells, genotype):
        kinship = relatedness(list({*genotype.obs_names, *cells.obs["donor_id"]}))
        al.pp.kernel_group(cells, "donor_id", relatedness=kinship, key_added="related")
        found = pairs_of(cells, genotype, "donor_id", kernel="related")
        assert_same_tests(found, pairs_of(cells, genotype, "donor_id", relatedness=kinship))
        al.pp.kernel_group(cells, "donor_id", key_added="donors")
        assert_same_tests(pairs_of(cells, genotype, "donor_id", kernel="donors"), pairs_of(cells, genotype, "donor_id"))

    def test_a_share_of_relatedness(self, cells, genotype):
        kinship = relatedness(list({*genotype.obs_names, *cells.obs["donor_id"]}))
        mixed = 0.3 * kinship + 0.7 * pd.DataFrame(np.eye(len(kinship)), kinship.index, kinship.columns)
        al.pp.kernel_group(cells, "donor_id", relatedness=kinship, rho=0.3, key_added="mixed")
        found = pairs_of(cells, genotype, "donor_id", kernel="mixed")
        assert_same_tests(found, pairs_of(cells, genotype, "donor_id", relatedness=mixed))

    def test_groups_of_donors(self, cells, genotype):
        """A kernel of batches that donors are nested in is K_d of ones within batches."""
        al.pp.kernel_group(cells, "batch", key_added="batches")
        batch = cells.obs.groupby("donor_id", observed=True)["batch"].first()
        blocks = pd.DataFrame(
            (batch.to_numpy()[:, None] == batch.to_numpy()).astype(float), list(batch.index), list(batch.index)
        )
        found = pairs_of(cells, genotype, "donor_id", kernel="batches", variance="null")
        assert_same_tests(found, pairs_of(cells, genotype, "donor_id", relatedness=blocks, variance="null"), rtol=1e-6)

    def test_relatedness_by_key(self, cells, genotype):
        al.pp.kernel_grm(genotype, min_maf=0.05)
        found = pairs_of(cells, genotype, "donor_id", relatedness="kernel")
        assert_same_tests(found, pairs_of(cells, genotype, "donor_id", relatedness=al.get.kernel(genotype)))

    def test_any_kernel_of_pseudobulk(self, bulk, genotype):
        shared = bulk[[name for name in bulk.obs_names if name in set(genotype.obs_names)]].copy()
        kinship = relatedness(list(shared.obs_names))
        al.pp.kernel_precomputed(shared, kinship, key_added="given")
        found = pairs_of(shared, genotype, kernel="given")
        assert_same_tests(found, pairs_of(shared, genotype, relatedness=kinship))

    def test_refused(self, cells, genotype):
        cells.obsm["X_pca"] = np.random.default_rng(0).standard_normal((cells.n_obs, 3))
        al.pp.kernel_linear(cells, "X_pca", key_added="linear")
        cells.obs["plate"] = np.arange(cells.n_obs) % 3
        al.pp.kernel_group(cells, "plate", key_added="plates")
        for key in ("linear", "plates"):
            with pytest.raises(ValueError, match=f"kernel='{key}': varies within donors"):
                al.tl.map_eqtl(cells, genotype, "donor_id", kernel=key)
        kinship = relatedness(list(genotype.obs_names))
        with pytest.raises(
            ValueError, match="relatedness: says what the kernel of the donors is, and so does kernel=None"
        ):
            al.tl.map_eqtl(cells, genotype, "donor_id", kernel=None, relatedness=kinship)
        with pytest.raises(ValueError, match="relatedness: its rows lack 1 of"):
            al.tl.map_eqtl(cells, genotype, "donor_id", relatedness=kinship.iloc[1:, 1:])
        with pytest.raises(TypeError, match="relatedness: must be a DataFrame"):
            al.tl.map_eqtl(cells, genotype, "donor_id", relatedness=kinship.to_numpy())
        al.pp.kernel_grm(genotype, key_added="grm")
        for options in ({}, {"interaction": "score"}):
            with pytest.raises(KeyError, match="kernel='grm': .* genotype has it: pass relatedness='grm'"):
                al.tl.map_eqtl(cells, genotype, "donor_id", kernel="grm", **options)
        with pytest.raises(KeyError, match="relatedness='plates': .* expression has it: pass kernel='plates'"):
            al.tl.map_eqtl(cells, genotype, "donor_id", relatedness="plates")
        with pytest.raises(KeyError, match="relatedness='gmr': .* did you mean 'grm'"):
            al.tl.map_eqtl(cells, genotype, "donor_id", relatedness="gmr")


class TestInput:
    def test_order_of_rows_and_donors(self, cells, genotype):
        rng = np.random.default_rng(1)
        found = pairs_of(cells, genotype, "donor_id", covariates=["score", "sex"])
        shuffled = cells[rng.permutation(cells.n_obs)].copy(), genotype[rng.permutation(genotype.n_obs)].copy()
        assert_same_tests(pairs_of(*shuffled, "donor_id", covariates=["score", "sex"]), found, rtol=1e-8)

    def test_order_of_variants_and_genes(self, cells, genotype):
        rng = np.random.default_rng(1)
        found = pairs_of(cells, genotype, "donor_id", window=300_000)
        shuffled = cells[:, rng.permutation(cells.n_vars)].copy(), genotype[:, rng.permutation(genotype.n_vars)].copy()
        assert_same_tests(pairs_of(*shuffled, "donor_id", window=300_000), found, rtol=1e-8)

    def test_missing_calls(self, bulk, genotype):
        """The mean of the matched donors with a call, whose numbers are n and whose frequency is maf."""
        found = pairs_of(bulk, genotype).set_index("variant")
        matched = genotype[genotype.obs_names.isin(bulk.obs_names)]
        dosage = np.array(matched.X, dtype=np.float64)
        called = (~np.isnan(dosage)).sum(axis=0)
        mean = np.nanmean(dosage, axis=0)
        expected = pd.DataFrame({"n": called, "maf": np.minimum(mean, 2 - mean) / 2}, index=genotype.var_names)
        assert called.min() < matched.n_obs
        np.testing.assert_array_equal(found["n"], expected.loc[found.index, "n"])
        np.testing.assert_allclose(found["maf"], expected.loc[found.index, "maf"], rtol=1e-12)
        filled = genotype.copy()
        filled.X = np.where(np.isnan(genotype.X), mean.astype(np.float64), genotype.X.astype(np.float64))
        other = pairs_of(bulk, filled).set_index("variant")
        np.testing.assert_allclose(found["p_value"], other["p_value"], rtol=1e-9)

    def test_integers_with_a_code_for_missing(self, cells, genotype):
        coded = genotype.copy()
        coded.X = np.where(np.isnan(genotype.X), -9, genotype.X).astype(np.int8)
        assert_same_tests(
            pairs_of(cells, coded, "donor_id", missing_call=-9), pairs_of(cells, genotype, "donor_id"), rtol=1e-7
        )
        with pytest.raises(
            ValueError, match=r"they range from -9 to 2, not 0 to 2\); .* named: missing_call=-9, if"
        ) as error:
            al.tl.map_eqtl(cells, coded, "donor_id")
        assert "min_maf=0" not in str(error.value)

    @pytest.mark.parametrize("code", [-9, -1, -127, 9])
    @pytest.mark.parametrize("dtype", [np.int16, np.float32])
    def test_codes_of_missing_calls_are_no_dosages(self, cells, genotype, code, dtype):
        """Whatever min_maf is: one that is not named would be the strongest genotype there is."""
        coded = genotype.copy()
        coded.X = np.where(np.isnan(genotype.X), code, genotype.X).astype(dtype)
        for options in ({"min_maf": 0}, {"min_maf": 0.05}, {"min_maf": 0, "missing_call": -5}):
            with (
                untouched(cells),
                pytest.raises(ValueError, match=f"genotype: variants .* named: missing_call={code}, if"),
            ):
                al.tl.map_eqtl(cells, coded, "donor_id", **options)
        found = pairs_of(cells, coded, "donor_id", min_maf=0, missing_call=code)
        assert_same_tests(found, pairs_of(cells, genotype, "donor_id", min_maf=0), rtol=1e-7)

    def test_variants_that_are_no_dosages(self, cells, genotype):
        """Standardised ones are tested with min_maf=0: p-values know neither the unit nor the origin of a variant."""
        found = pairs_of(cells, genotype, "donor_id", min_maf=0)
        dosage = np.array(genotype.X, dtype=np.float64)
        standard = genotype.copy()
        standard.X = (dosage - np.nanmean(dosage, axis=0)) / np.maximum(np.nanstd(dosage, axis=0), 0.1)
        with pytest.raises(ValueError, match="not dosages .* variants that are standardised already need min_maf=0"):
            al.tl.map_eqtl(cells, standard, "donor_id")
        other = pairs_of(cells, standard, "donor_id", min_maf=0)
        assert other["maf"].isna().any()
        np.testing.assert_allclose(other["p_value"], found["p_value"], rtol=1e-7)  # as of the orders of rows above
        rounded = genotype.copy()
        rounded.X = np.where(dosage == 2, 2 + 1e-7, dosage)  # as sums of probabilities in single precision
        left, right = (by_pair(pairs_of(cells, made, "donor_id", min_maf=0.04)) for made in (rounded, genotype))
        np.testing.assert_allclose(left["p_value"], right["p_value"], atol=1e-6)  # dosages moved by 1e-7

    @pytest.mark.parametrize("kind", ["csr", "csc", "float32", "dask", "dask_sparse", "backed", "zarr"])
    def test_storage(self, cells, genotype, tmp_path, kind):
        found = pairs_of(cells, genotype, "donor_id")
        other = []
        for i, adata in enumerate((cells, genotype)):
            copy = adata.copy()
            if kind in ("csr", "csc"):
                copy.X = getattr(sparse, f"{kind}_matrix")(adata.X)
            elif kind == "float32":
                copy.X = adata.X.astype(np.float32)
            elif kind.startswith("dask"):
                import dask.array as da

                copy.X = da.from_array(np.asarray(adata.X), chunks=(7, 3))
                if kind == "dask_sparse":
                    copy.X = copy.X.map_blocks(sparse.csr_matrix)
            elif kind == "backed":
                copy.write_h5ad(tmp_path / f"{i}.h5ad")
                copy = ad.read_h5ad(tmp_path / f"{i}.h5ad", backed="r")
            else:
                import zarr

                group = zarr.open_group(str(tmp_path / f"{i}.zarr"), mode="w")
                ad.io.write_elem(group, "X", np.asarray(adata.X))
                copy.layers["stored"] = group["X"]
            other.append(copy)
        options = {"layer": "stored", "genotype_layer": "stored"} if kind == "zarr" else {}
        expression = other[0]
        al.tl.map_eqtl(expression, other[1], "donor_id", **options)
        # float32 rounds y at 6e-8.
        assert_same_tests(al.get.eqtl(expression), found, rtol=1e-4 if kind == "float32" else 1e-8)
        if kind == "backed":
            for adata in other:
                adata.file.close()

    def test_blocks_do_not_matter(self, cells, genotype):
        found = pairs_of(cells, genotype, "donor_id")
        al.settings.block_memory = 20_000
        assert_same_tests(pairs_of(cells, genotype, "donor_id"), found)
        trans = pairs_of(cells, genotype, "donor_id", window=None, threshold=1.0)
        assert len(trans) > len(found)

    def test_covariates_of_the_genotype(self, cells, genotype):
        """Genetic principal components are taken from where they are, by donor."""
        genotype.obsm["X_pca"] = np.random.default_rng(0).standard_normal((genotype.n_obs, 2))
        genotype.obs["ancestry"] = pd.Categorical(np.where(np.arange(genotype.n_obs) % 3, "a", "b"))
        own = cells[cells.obs["donor_id"].isin(genotype.obs_names)].copy()
        place = genotype.obs_names.get_indexer(own.obs["donor_id"])
        own.obsm["X_pca"] = genotype.obsm["X_pca"][place]
        own.obs["ancestry"] = genotype.obs["ancestry"].to_numpy()[place]
        for covariates in (["score", "X_pca", "ancestry"], "~ score + X_pca + C(ancestry)"):
            found = pairs_of(cells, genotype, "donor_id", covariates=covariates)
            assert_same_tests(found, pairs_of(own, genotype, "donor_id", covariates=covariates))
        for covariates, error in ((["X_umap"], KeyError), ("~ X_umap", ValueError), (["X_umap[0]"], KeyError)):
            unknown = r"neither a column of expression.obs nor a key of expression.obsm, nor in genotype; did you mean 'X_pca'"
            with pytest.raises(error, match=unknown):
                al.tl.map_eqtl(cells, genotype, "donor_id", covariates=covariates)

    def test_one_column_of_a_matrix(self, cells, genotype):
        genotype.obsm["X_pca"] = np.random.default_rng(0).standard_normal((genotype.n_obs, 3))
        genotype.obs["second"] = genotype.obsm["X_pca"][:, 1]
        found = pairs_of(cells, genotype, "donor_id", covariates=["score", "X_pca[1]"])
        assert_same_tests(found, pairs_of(cells, genotype, "donor_id", covariates=["score", "second"]))
        assert_same_tests(found, pairs_of(cells, genotype, "donor_id", covariates="~ score + X_pca[:, 1]"))
        with pytest.raises(ValueError, match=r"'X_pca\[1\]' is a row in a formula; write X_pca\[:, 1\] for the column"):
            al.tl.map_eqtl(cells, genotype, "donor_id", covariates="~ score + X_pca[1]")
        with pytest.raises(KeyError, match=r"'X_pca\[3\]': expression.obsm\['X_pca'\] has the columns 'X_pca\[0\]'"):
            al.tl.map_eqtl(cells, genotype, "donor_id", covariates=["X_pca[3]"])

    def test_a_name_on_both_sides_is_told(self, cells, genotype):
        rng = np.random.default_rng(0)
        cells.obsm["X_pca"] = rng.standard_normal((cells.n_obs, 2))
        alone = pairs_of(cells, genotype, "donor_id", covariates=["X_pca"])
        genotype.obsm["X_pca"] = rng.standard_normal((genotype.n_obs, 2))
        with messages() as seen:
            found = pairs_of(cells, genotype, "donor_id", covariates=["X_pca"])
        assert_same_tests(found, alone)
        assert any(
            "X_pca: in expression.obsm and in genotype.obsm; that of expression is used" in text for text in seen
        )

    def test_the_donor_is_no_covariate(self, cells, genotype):
        for covariates in (["score", "donor_id"], "~ score + C(donor_id)"):
            for options in ({}, {"interaction": "score"}, {"kernel": None}):
                with pytest.raises(
                    ValueError, match="'donor_id' is donor_key, .*: the donor is the random effect"
                ) as error:
                    al.tl.map_eqtl(cells, genotype, "donor_id", covariates=covariates, **options)
                assert len(str(error.value)) < 250

    def test_rows_without_a_covariate_are_left_out(self, cells, genotype):
        gaps = cells.copy()
        gaps.obs.loc[gaps.obs_names[::3], "score"] = np.nan
        found = pairs_of(gaps, genotype, "donor_id", covariates=["score"])
        kept = cells[np.arange(cells.n_obs) % 3 > 0].copy()
        assert_same_tests(found, pairs_of(kept, genotype, "donor_id", covariates=["score"]))

    def test_missing_expression(self, cells, genotype):
        cells.X[3, 2] = np.nan
        assert np.isfinite(pairs_of(cells, genotype, "donor_id")["p_value"]).all()
        with pytest.raises(ValueError, match=f"{cells.var_names[2]!r}: missing values"):
            al.tl.map_eqtl(cells, genotype, "donor_id", missing="raise")


class TestPlaces:
    def test_windows_and_distances(self, cells, genotype):
        found = pairs_of(cells, genotype, "donor_id", window=400_000)
        for gene, rows in found.groupby("gene", observed=True):
            var = cells.var.loc[gene]
            tss, sign = (var["end"], -1) if var["strand"] == "-" else (var["start"], 1)
            near = (genotype.var["chrom"].astype(str) == str(var["chrom"])) & (
                (genotype.var["pos"] - tss).abs() <= 400_000
            )
            assert set(rows["variant"]) <= set(genotype.var_names[near])
            np.testing.assert_array_equal(rows["distance"], (rows["pos"] - tss) * sign)
            np.testing.assert_array_equal(rows["pos"], genotype.var.loc[rows["variant"], "pos"])
            assert rows["a1"].astype(str).tolist() == genotype.var.loc[rows["variant"], "a1"].astype(str).tolist()
        assert found["distance"].min() < 0 < found["distance"].max()

    def test_status_of_genes(self, cells, genotype):
        names = cells.var_names
        cells.X[:, 2] = 1.0
        cells.var["chrom"] = cells.var["chrom"].astype(str)
        cells.var.loc[names[3], "chrom"] = np.nan
        cells.var.loc[names[4], "chrom"] = "X"
        cells.X[:, 5] = np.nan
        al.tl.map_eqtl(cells, genotype, "donor_id", mask_var=np.arange(10) > 0)
        table = al.get.eqtl(cells, level="gene")
        assert list(table.index) == list(names[1:])
        assert table.loc[names[2:6], "status"].tolist() == ["constant", "unplaced", "no_variants", "all_missing"]
        assert table["status"].iloc[[0, 5, 6]].isin(["ok", "boundary"]).all()
        assert (table.loc[names[2:6], "n_variants"] == 0).all()
        assert table.loc[names[2:6], ["variant", "p_value", "q_value", "p_acat"]].isna().all(axis=None)
        pairs = al.get.eqtl(cells)
        assert not set(pairs["gene"]) & set(names[[0, 2, 3, 4, 5]])
        assert table["pos"].dtype == "Int64"
        assert table["pos"].isna().equals(table["distance"].isna())
        assert table["pos"].isna().equals(table["variant"].isna())
        assert pairs["pos"].dtype == np.int64

    def test_variants_without_a_position(self, cells, genotype):
        genotype.var["pos"] = genotype.var["pos"].astype(float)
        genotype.var.loc[genotype.var_names[:7], "pos"] = np.nan
        pairs = pairs_of(cells, genotype, "donor_id", window=None, threshold=1.0)
        assert pairs["pos"].dtype == "Int64"
        assert set(pairs.loc[pairs["pos"].isna(), "variant"]) <= set(genotype.var_names[:7])
        assert (pairs["pos"].dropna() > 0).all()
        assert pairs["pos"].isna().any()

    def test_trans_equals_cis_with_a_huge_window(self, cells, genotype):
        one = genotype.copy()
        one.var["chrom"] = "1"
        cells.var["chrom"] = "1"
        cis = pairs_of(cells, one, "donor_id", window=10**9)
        trans = pairs_of(cells, one, "donor_id", window=None, threshold=1.0, variance="null")
        cis_null = pairs_of(cells, one, "donor_id", window=10**9, variance="null")
        assert_same_tests(trans, cis_null)
        for threshold in (1e-2, 1e-4):
            kept = pairs_of(cells, one, "donor_id", window=None, threshold=threshold)
            refitted = pairs_of(cells, one, "donor_id", window=10**9, threshold=threshold)
            assert_same_tests(
                kept, refitted[(refitted["p_value"] < threshold) & (cis_null["p_value"] < threshold).to_numpy()]
            )
        assert len(cis) == cells.n_vars * cis["variant"].nunique()

    def test_trans_counts(self, cells, genotype):
        out = al.tl.map_eqtl(cells, genotype, "donor_id", window=None, threshold=1e-3, copy=True)
        everything = pairs_of(cells, genotype, "donor_id", window=None, threshold=1.0, variance="null")
        params, pairs, genes = (out.uns["eqtl"][name] for name in ("params", "pairs", "genes"))
        assert params["n_tests"] == len(everything) == genes["n_variants"].sum()
        assert (pairs["p_value"] < 1e-3).all()
        # On other chromosomes there is no distance.
        same = pairs["chrom"].astype(str).to_numpy() == cells.var.loc[pairs["gene"], "chrom"].astype(str).to_numpy()
        assert np.array_equal(pairs["distance"].notna(), same)
        lambda_gc = stats.chi2.isf(everything["p_value"].median(), 1) / stats.chi2.ppf(0.5, 1)
        assert params["lambda_gc"] == pytest.approx(lambda_gc, abs=0.01)  # bins of 0.004, Wallace's 1e-3
        null = al.tl.map_eqtl(cells, genotype, "donor_id", window=None, threshold=1e-3, variance="null", copy=True)
        pairs = null.uns["eqtl"]["pairs"].sort_values("p_value")
        adjusted = stats.false_discovery_control(np.sort(everything["p_value"]))[: len(pairs)]
        # Beyond the pairs that are kept a smaller adjusted value might follow.
        assert (pairs["p_adjusted"].to_numpy() >= adjusted - 1e-12).all()
        bonferroni = null.uns["eqtl"]["genes"]["p_bonferroni"]
        lowest = everything.groupby("gene", observed=True)["p_value"].min()
        np.testing.assert_allclose(bonferroni, np.minimum(lowest * genes["n_variants"], 1)[bonferroni.index], rtol=1e-7)

    def test_trans_needs_no_positions(self, cells, genotype):
        found = pairs_of(cells, genotype, "donor_id", window=None, threshold=0.01)
        cells.var, genotype.var = cells.var[[]], genotype.var[["a1"]]
        bare = pairs_of(cells, genotype, "donor_id", window=None, threshold=0.01)
        assert list(bare.columns[:4]) == ["gene", "variant", "a1", "maf"]
        assert_same_tests(bare, found)
        with pytest.raises(KeyError, match=r"'chrom'.*window=None"):
            al.tl.map_eqtl(cells, genotype, "donor_id")


class TestGenes:
    def test_table(self, cells, genotype):
        al.tl.map_eqtl(cells, genotype, "donor_id")
        table, pairs = al.get.eqtl(cells, level="gene"), al.get.eqtl(cells)
        for gene, row in table.iterrows():
            own = pairs[pairs["gene"] == gene].reset_index(drop=True)
            best = own.loc[own["p_value"].idxmin()]
            assert row["n_variants"] == len(own)
            for name in ("variant", "pos", "distance", "beta", "p_value", "df", "maf"):
                assert row[name] == best[name]
            combined = stats.cauchy.sf(stats.cauchy.isf(own["p_value"]).mean())
            assert row["p_acat"] == pytest.approx(combined, rel=1e-9)
        np.testing.assert_allclose(table["p_adjusted"], stats.false_discovery_control(table["p_acat"]))
        np.testing.assert_allclose(table["q_value"], table["p_adjusted"])  # ten genes say nothing of π₀
        assert "p_beta" not in table

    def test_finds_the_truth(self, cells, genotype):
        al.tl.map_eqtl(cells, genotype, "donor_id", covariates=["age", "sex"])
        table = al.get.eqtl(cells, level="gene")
        causal = set(cells.uns["truth"]["pairs"]["gene"])
        best = set(table["p_acat"].nsmallest(2).index)
        assert best <= causal

    @pytest.mark.parametrize("how", ["cells", "bulk", "related"])
    def test_permutations(self, cells, bulk, genotype, how):
        options = {"permutations": 300, "rng": 1}
        if how == "cells":
            out = al.tl.map_eqtl(cells, genotype, "donor_id", covariates=["sex"], copy=True, **options)
            again = al.tl.map_eqtl(cells, genotype, "donor_id", covariates=["sex"], copy=True, **options)
        else:
            if how == "related":
                options["relatedness"] = relatedness(list(genotype.obs_names))
            out = al.tl.map_eqtl(bulk, genotype, covariates=["sex"], copy=True, **options)
            again = al.tl.map_eqtl(bulk, genotype, covariates=["sex"], copy=True, **options)
        table = al.get.eqtl(out, level="gene")
        pd.testing.assert_frame_equal(table, al.get.eqtl(again, level="gene"))
        assert table["p_permutation"].between(1 / 301, 1).all()
        # The approximation smooths the counts of 300 permutations: binomial SE 0.03 at a half.
        middle = table["p_permutation"].between(0.05, 0.95)
        assert (table["p_beta"] - table["p_permutation"])[middle].abs().max() < 0.1
        np.testing.assert_allclose(table["p_adjusted"], stats.false_discovery_control(table["p_beta"]))
        assert (table["beta_shape2"] > 1).all()


class TestSignals:
    @pytest.fixture(scope="class")
    @classmethod
    def two(cls):
        """Cells of 120 donors with four genes that have two eQTLs each."""
        return al.datasets.sc_eqtl(
            120, 12, 6, n_vars=90, n_chrom=1, n_eqtl=4, n_secondary=4, n_interaction=0, icc=0.05, missing=0, rng=3
        )

    @pytest.mark.parametrize("permutations", [0, 200])
    def test_each_is_the_best_given_those_before(self, two, permutations):
        cells, genotype = two
        options = {"layer": "log_rate", "variance": "screen", "permutations": permutations}
        out = al.tl.map_eqtl(cells, genotype, "donor_id", conditional=True, copy=True, **options)
        signals, genes = al.get.eqtl(out, level="signal"), al.get.eqtl(out, level="gene")
        assert set(signals["gene"]) == set(genes.index[genes["q_value"] <= 0.05])
        cut = out.uns["eqtl"]["params"]["threshold_gene"]
        overall = "p_beta" if permutations else "p_acat"
        assert (signals["p_gene"] <= cut * (1 + 1e-9)).all()
        assert cut == genes.loc[genes["q_value"] <= 0.05, overall].max()
        first = signals[signals["rank"] == 1].set_index("gene")
        np.testing.assert_allclose(first["p_value"], genes.loc[first.index, "p_value"], rtol=1e-9)
        np.testing.assert_allclose(first["p_gene"], genes.loc[first.index, overall], rtol=1e-9)
        assert signals["rank"].max() == 2
        for gene, rows in signals.groupby("gene", observed=True):
            given = cells.copy()
            names = []
            for _, row in rows.iterrows():
                if names:  # from cells, with the variants as covariates of cells
                    again = al.tl.map_eqtl(given, genotype, "donor_id", covariates=names, copy=True, layer="log_rate")
                    best = al.get.eqtl(again, level="gene").loc[gene]
                    assert best["variant"] == row["variant"]
                    for name in ("beta", "standard_error", "p_value"):
                        assert row[name] == pytest.approx(best[name], rel=1e-6)
                    if not permutations:
                        assert row["p_gene"] == pytest.approx(best["p_acat"], rel=1e-6)
                place = genotype.obs_names.get_indexer(given.obs["donor_id"])
                given.obs[row["variant"]] = np.asarray(genotype[:, row["variant"]].X, dtype=float).ravel()[place]
                names.append(row["variant"])

    def test_finds_the_truth(self, two):
        cells, genotype = two
        bulk = al.pp.pseudobulk(cells, "donor_id", layer="log_rate", min_cells=1)
        al.tl.map_eqtl(bulk, genotype, conditional=True)
        signals = al.get.eqtl(bulk, level="signal")
        truth = cells.uns["truth"]["pairs"]
        assert set(truth["gene"]) <= set(signals["gene"])
        assert (signals.loc[signals["gene"].isin(truth["gene"]), "gene"].value_counts().loc[truth["gene"]] == 2).all()

    def test_errors(self, two):
        cells, genotype = two
        with pytest.raises(ValueError, match="conditional=True: signals are those in a window"):
            al.tl.map_eqtl(cells, genotype, "donor_id", window=None, conditional=True)
        with pytest.raises(TypeError, match="conditional: must be True or False"):
            al.tl.map_eqtl(cells, genotype, "donor_id", conditional="yes")
        out = al.tl.map_eqtl(cells, genotype, "donor_id", copy=True)
        with pytest.raises(KeyError, match="level='signal': key='eqtl' has none"):
            al.get.eqtl(out, level="signal")


class TestOutput:
    def test_parquet(self, cells, genotype, tmp_path):
        pytest.importorskip("pyarrow")
        path = tmp_path / "pairs.parquet"
        path.write_bytes(b"what was there")
        al.tl.map_eqtl(cells, genotype, "donor_id", output=path)
        assert "pairs" not in cells.uns["eqtl"]
        inside = al.tl.map_eqtl(cells, genotype, "donor_id", copy=True)
        pd.testing.assert_frame_equal(al.get.eqtl(cells), al.get.eqtl(inside))
        pd.testing.assert_frame_equal(al.get.eqtl(cells, level="gene"), al.get.eqtl(inside, level="gene"))
        for options in (
            {"gene": "gene_02"},
            {"max_p_value": 0.05},
            {"gene": ["gene_01", "gene_02"], "max_p_value": 0.1},
        ):
            left, right = al.get.eqtl(cells, **options), al.get.eqtl(inside, **options)
            assert len(left) == len(right) > 0
            assert_same_tests(left, right)
        moved = path.rename(tmp_path / "elsewhere.parquet")
        with pytest.raises(FileNotFoundError, match="pass path="):
            al.get.eqtl(cells)
        assert len(al.get.eqtl(cells, path=moved)) == cells.uns["eqtl"]["params"]["n_pairs"]
        assert [p.name for p in tmp_path.iterdir()] == ["elsewhere.parquet"]

    @pytest.mark.parametrize("options", [{}, {"interaction": "score"}, {"window": None, "threshold": 0.1}])
    def test_pairs_of_another_run_are_refused(self, cells, genotype, tmp_path, options):
        arrow = pytest.importorskip("pyarrow.parquet")
        path = tmp_path / "pairs.parquet"
        options = options | {"output": path}
        al.tl.map_eqtl(cells, genotype, "donor_id", key_added="one", **options)
        one = al.get.eqtl(cells, "one")
        with messages("warning") as seen:
            al.tl.map_eqtl(cells, genotype, "donor_id", key_added="two", **options)
        assert any("holds the pairs of key='one', which will be replaced" in text for text in seen)
        pd.testing.assert_frame_equal(al.get.eqtl(cells, "one"), one)  # the same run again
        al.tl.map_eqtl(cells, genotype, "donor_id", key_added="two", covariates=["age"], **options)
        assert len(al.get.eqtl(cells, "two"))
        for given in ({}, {"path": path}):
            with pytest.raises(
                ValueError, match="holds the pairs of another run of al.tl.map_eqtl.*output= of its own"
            ):
                al.get.eqtl(cells, "one", **given)
        al.get.eqtl(cells, "one", level="gene")
        earlier = arrow.read_table(path)
        arrow.write_table(earlier.replace_schema_metadata(None), path)  # as an earlier release wrote it
        assert len(al.get.eqtl(cells, "one")) == len(al.get.eqtl(cells, "two"))

    def test_row_groups(self, cells, genotype, tmp_path, monkeypatch):
        arrow = pytest.importorskip("pyarrow.parquet")
        monkeypatch.setattr("annlmm._slots.eqtl.ROW_GROUP", 100)
        path = str(tmp_path / "pairs.parquet")
        al.tl.map_eqtl(cells, genotype, "donor_id", output=path)
        assert arrow.ParquetFile(path).num_row_groups > 3
        inside = al.tl.map_eqtl(cells, genotype, "donor_id", copy=True)
        pd.testing.assert_frame_equal(al.get.eqtl(cells), al.get.eqtl(inside))

    def test_nothing_is_left_of_a_failure(self, cells, genotype, tmp_path):
        pytest.importorskip("pyarrow")
        path = tmp_path / "pairs.parquet"
        path.write_bytes(b"what was there")
        genotype.X[:, -3:] = 7.0
        with untouched(cells), pytest.raises(ValueError, match="not dosages"):
            al.tl.map_eqtl(cells, genotype, "donor_id", output=path)
        assert path.read_bytes() == b"what was there"
        assert [p.name for p in tmp_path.iterdir()] == ["pairs.parquet"]

    @pytest.mark.parametrize(("output", "error", "match"), [
        (3, TypeError, "output: must be the path"),
        ("pairs.csv", ValueError, r"must end in \.parquet"),
        ("no_such_folder/pairs.parquet", FileNotFoundError, "does not exist"),
    ])  # fmt: skip
    def test_bad_paths(self, cells, genotype, output, error, match):
        with pytest.raises(error, match=match):
            al.tl.map_eqtl(cells, genotype, "donor_id", output=output)

    def test_without_pyarrow(self, cells, genotype, tmp_path, monkeypatch):
        import builtins

        original = builtins.__import__

        def refuse(name, *args, **kwargs):
            if name.startswith("pyarrow"):
                raise ImportError(name)
            return original(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)
        with untouched(cells), pytest.raises(ImportError, match="pip install pyarrow"):
            al.tl.map_eqtl(cells, genotype, "donor_id", output=tmp_path / "x.parquet")

    def test_beyond_memory(self, cells, genotype):
        al.settings.kernel_memory = 10_000
        with pytest.raises(MemoryError, match="output='pairs.parquet'"):
            al.tl.map_eqtl(cells, genotype, "donor_id")

    @pytest.mark.parametrize("kind", ["h5ad", "zarr"])
    def test_round_trip(self, cells, genotype, tmp_path, kind):
        al.tl.map_eqtl(cells, genotype, "donor_id")
        al.tl.map_eqtl(cells, genotype, "donor_id", window=None, threshold=0.01, key_added="trans")
        getattr(cells, f"write_{kind}")(tmp_path / f"x.{kind}")
        back = getattr(ad, f"read_{kind}")(tmp_path / f"x.{kind}")
        for key in ("eqtl", "trans"):
            for level in ("pair", "gene"):
                now, then = al.get.eqtl(back, key, level=level), al.get.eqtl(cells, key, level=level)
                assert list(now.columns) == list(then.columns)
                pd.testing.assert_frame_equal(
                    now.astype({"gene": str}),
                    then.astype({"gene": str}),
                    check_categorical=False,
                    check_index_type=False,
                )
            assert dict(back.uns[key]["params"]) == dict(cells.uns[key]["params"])


@pytest.fixture(scope="module")
def mapped(data):
    return al.tl.map_eqtl(data[0], data[1], "donor_id", copy=True)


class TestGetter:
    def test_filters(self, mapped):
        whole, genes = al.get.eqtl(mapped), al.get.eqtl(mapped, level="gene")
        assert list(al.get.eqtl(mapped, gene="gene_02")["gene"].unique()) == ["gene_02"]
        assert len(al.get.eqtl(mapped, max_p_value=0.01)) == (whole["p_value"] <= 0.01).sum()
        cut = genes["q_value"].median()
        some = set(genes.index[genes["q_value"] <= cut])
        assert set(al.get.eqtl(mapped, max_q_value=cut)["gene"]) == some
        assert set(al.get.eqtl(mapped, level="gene", max_q_value=cut).index) == some

    def test_is_a_copy(self, mapped):
        table = al.get.eqtl(mapped)
        table["beta"] = 0.0
        assert mapped.uns["eqtl"]["pairs"]["beta"].abs().max() > 0

    def test_errors(self, mapped):
        with pytest.raises(KeyError, match=r"key='other': no eQTL there.*did you mean|key='other'"):
            al.get.eqtl(mapped, "other")
        with pytest.raises(KeyError, match="gene='gene_2': not among the genes"):
            al.get.eqtl(mapped, gene="gene_2")
        named = mapped.copy()
        named.var["symbol"] = ["ACTB", "CD4", "CD4", *(f"X{i}" for i in range(7))]
        named.var["entrez"] = pd.Categorical([f"e{i}" for i in range(10)])
        for gene, own in (("ACTB", "'gene_01'"), ("CD4", r"\['gene_02', 'gene_03'\]"), ("e4", "'gene_05'")):
            column = "entrez" if gene == "e4" else "symbol"
            with pytest.raises(KeyError, match=rf"gene='{gene}'.*found in adata.var\['{column}'\]: pass gene={own}"):
                al.get.eqtl(named, gene=gene)
        with pytest.raises(ValueError, match="level: must be one of 'pair', 'gene'"):
            al.get.eqtl(mapped, level="pairs")


class TestConventions:
    def test_columns(self, cells, genotype):
        al.tl.map_eqtl(cells, genotype, "donor_id")
        pairs = cells.uns["eqtl"]["pairs"]
        assert list(pairs) == [
            "gene", "variant", "chrom", "pos", "distance", "a0", "a1", "maf", "n", "beta", "standard_error", "statistic", "df",
            "p_value", "neg_log10_p_value", "status",
        ]  # fmt: skip
        for name in ("gene", "variant", "chrom", "a0", "a1", "status"):
            assert isinstance(pairs[name].dtype, pd.CategoricalDtype)
        assert set(cells.uns["eqtl"]) == {"params", "pairs", "genes", "schema_version"}

    def test_copy_and_view(self, cells, genotype):
        before = snapshot(cells)
        out = al.tl.map_eqtl(cells, genotype, "donor_id", copy=True)
        assert_same(snapshot(cells), before)
        view = cells[:, :5]
        with messages("warning") as seen:
            al.tl.map_eqtl(view, genotype, "donor_id")
        assert any("adata is a view" in text for text in seen)
        assert "eqtl" not in cells.uns
        part = al.get.eqtl(out)
        assert_same_tests(al.get.eqtl(view), part[part["gene"].isin(cells.var_names[:5])])

    def test_a_key_that_is_taken(self, cells, genotype):
        cells.uns["mine"] = {"a": 1}
        with (
            untouched(cells),
            pytest.raises(ValueError, match="key_added='mine': adata.uns\\['mine'\\] holds something else"),
        ):
            al.tl.map_eqtl(cells, genotype, "donor_id", key_added="mine")
        al.tl.map_eqtl(cells, genotype, "donor_id", window=None)
        al.tl.map_eqtl(cells, genotype, "donor_id")  # of its own: replaced
        assert cells.uns["eqtl"]["params"]["window"] == 1_000_000

    def test_says_what_it_did(self, cells, genotype):
        with messages() as seen:
            al.tl.map_eqtl(cells, genotype, "donor_id")
        text = "\n".join(seen)
        assert re.search(r"22 donors matched by name \(\d+ observations\); 1 without a genotype", text)
        assert re.search(
            r"variants read, left out: \d+ monomorphic, \d+ with a minor allele frequency below 0.05", text
        )
        assert "genes mapped (independent donors)" in text
        assert "wrote .uns['eqtl']" in text

    @pytest.mark.parametrize(("options", "error", "match"), [
        ({"window": -1}, ValueError, "window: must be at least 0"),
        ({"window": "1Mb"}, TypeError, "window: must be a whole number"),
        ({"min_maf": 0.6}, ValueError, r"min_maf: must lie in \[0, 0.5\]"),
        ({"threshold": 0}, ValueError, r"threshold: must lie in \(0, 1\]"),
        ({"variance": "exact"}, ValueError, "variance: must be one of 'null', 'screen', 'refit'"),
        ({"df": "kenward-roger"}, ValueError, "df: must be one of"),
        ({"permutations": 10}, ValueError, "permutations=10: too few"),
        ({"permutations": 1000, "window": None}, ValueError, "permutations=1000: are of the variants in a window"),
        ({"missing_call": "NA"}, TypeError, "missing_call: must be the number"),
        ({"layer": "counts"}, KeyError, "layer='counts'"),
        ({"kernel": "kernel"}, KeyError, r"kernel='kernel': not in expression.uns; make one of the donors, al.pp.kernel_group\(expression, "),
        ({"covariates": "~ age + nonsense"}, ValueError, "nonsense"),
        ({"relatedness": "kernel"}, KeyError, r"relatedness='kernel': not in genotype.uns; make it first: al.pp.kernel_grm\(genotype, "),
        ({"rng": -1}, ValueError, "rng: must be at least 0"),
    ])  # fmt: skip
    def test_bad_arguments(self, cells, genotype, options, error, match):
        with untouched(cells), untouched(genotype), pytest.raises(error, match=match):
            al.tl.map_eqtl(cells, genotype, "donor_id", **options)

    def test_no_donor_matches(self, cells, genotype):
        genotype.obs_names = [f"other{i}" for i in range(genotype.n_obs)]
        with pytest.raises(ValueError, match="no donor is in both"):
            al.tl.map_eqtl(cells, genotype, "donor_id")

    def test_threads_do_not_matter(self, cells, genotype):
        threads = al.settings.threads
        try:
            al.settings.threads = 1
            one = pairs_of(cells, genotype, "donor_id")
            al.settings.threads = 3
            pd.testing.assert_frame_equal(pairs_of(cells, genotype, "donor_id"), one)
        finally:
            al.settings.threads = threads
