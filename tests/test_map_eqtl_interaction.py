"""`al.tl.map_eqtl(interaction=)` and `al.get.eqtl(test=)`: against least squares on expanded cells, themselves and the truth."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import messages, relatedness, untouched
from scipy import sparse

import annlmm as al
from annlmm.model.combine import cauchy_combination

NUMBERS = [
    "beta", "standard_error", "statistic", "df", "p_value", "interaction_beta", "interaction_standard_error", "interaction_statistic",
    "interaction_df", "interaction_p_value", "neg_log10_interaction_p_value", "joint_statistic", "joint_df", "joint_p_value",
]  # fmt: skip


@pytest.fixture(scope="module")
def data():
    """Cells in random order, genotypes in another order of donors."""
    cells, genotype = al.datasets.sc_eqtl(
        20, 15, 8, n_vars=80, n_chrom=2, n_eqtl=4, n_secondary=0, n_interaction=2, missing=0.03, rng=3
    )
    rng = np.random.default_rng(0)
    cells.X = cells.layers["log_rate"].astype(np.float64)
    for layer in list(cells.layers):
        if layer is not None:
            del cells.layers[layer]
    cells.obs["score"] = rng.standard_normal(cells.n_obs)
    cells.obsm["X_pca"] = rng.standard_normal((cells.n_obs, 2))
    codes = cells.obs["donor_id"].cat.codes.to_numpy()
    cells.obs["status"] = pd.Categorical(np.where(codes % 2 == 1, "case", "control"), categories=["control", "case"])
    cells = cells[rng.permutation(cells.n_obs)].copy()
    return cells, genotype[rng.permutation(genotype.n_obs)].copy()


@pytest.fixture
def cells(data):
    return data[0].copy()


@pytest.fixture
def genotype(data):
    return data[1].copy()


def pairs_of(expression, genotype, *args, **options):
    out = al.tl.map_eqtl(expression, genotype, *args, copy=True, **({"interaction": "pseudotime"} | options))
    return al.get.eqtl(out)


def by_pair(table, context=None):
    if context is not None:
        table = table[table["context"] == context]
    return table.set_index([table["gene"].astype(str), table["variant"].astype(str)])[NUMBERS].sort_index()


def assert_close(one, other, rtol=1e-6):
    """Up to where two searches of the same γ̂ end."""
    pd.testing.assert_frame_equal(by_pair(one), by_pair(other), rtol=rtol, atol=1e-12)


def expanded(cells, genotype, variant):
    """Dosages of the cells, with the mean for missing calls."""
    dosage = genotype.X[:, genotype.var_names.get_loc(variant)].astype(float)
    dosage[np.isnan(dosage)] = np.nanmean(dosage)
    return pd.Series(dosage, genotype.obs_names)[cells.obs["donor_id"].astype(str)].to_numpy()


def least_squares(y, x, columns):
    """t of the last of them, and F of the last two, by numpy."""
    whole = np.column_stack([x, *columns])
    beta, rss, *_ = np.linalg.lstsq(whole, y, rcond=None)
    df = len(y) - whole.shape[1]
    se = np.sqrt(rss[0] / df * np.linalg.inv(whole.T @ whole)[-1, -1])
    null = np.linalg.lstsq(x, y, rcond=None)[1][0]
    return beta[-1], beta[-1] / se, (null - rss[0]) / len(columns) / (rss[0] / df)


class TestMapEqtl:
    def test_planted_interactions(self):
        cells, genotype = al.datasets.sc_eqtl()
        al.tl.map_eqtl(
            cells, genotype, "donor_id", layer="log_rate", covariates=["age", "sex", "batch"], interaction="pseudotime"
        )
        found = al.get.eqtl(cells, level="gene", test="interaction", max_q_value=0.05)
        truth = cells.uns["truth"]["pairs"].query("interaction != 0").set_index("gene")
        # At q = 0.05 of ten: all are strong, one false one in a while.
        assert set(found.index) >= set(truth.index)
        assert len(found) <= len(truth) + 2
        same = found.loc[truth.index, "interaction_variant"].astype(str) == truth["variant"].astype(str)
        assert same.mean() > 0.6  # linkage puts a neighbour first now and then
        pairs = al.get.eqtl(cells).set_index(["gene", "variant"])
        pairs.index = pairs.index.set_levels([level.astype(str) for level in pairs.index.levels])
        for gene, row in truth.iterrows():
            own = pairs.loc[(gene, row["variant"])]
            # The truth is of log rates, without noise of counts: within four standard errors.
            assert abs(own["interaction_beta"] - row["interaction"]) < 4 * own["interaction_standard_error"]

    @pytest.mark.parametrize("context", ["pseudotime", "status"])
    def test_least_squares_on_expanded_cells(self, cells, genotype, context):
        """kernel=None, a context that varies within donors and one that does not."""
        with messages("warning"):
            table = pairs_of(cells, genotype, "donor_id", interaction=context, covariates=["score"], kernel=None)
        c = (cells.obs["status"] == "case").to_numpy(float) if context == "status" else cells.obs[context].to_numpy()
        mean = cells.obs.assign(c=c).groupby("donor_id", observed=True)["c"].transform("mean").to_numpy()
        tested = mean if context == "status" else c - mean
        x = [np.ones(cells.n_obs), cells.obs["score"], mean, *([] if context == "status" else [tested])]
        for row in table.sample(12, random_state=0).itertuples():
            g = expanded(cells, genotype, row.variant)
            y = cells[:, row.gene].X.ravel()
            beta, t, f = least_squares(y, np.column_stack(x), [g, g * tested])
            # Cells hold fifteen digits; sums of a few hundred of them lose two or three, the F a difference.
            np.testing.assert_allclose(
                [row.interaction_beta, row.interaction_statistic, row.joint_statistic], [beta, t, f], rtol=1e-8
            )
            assert row.interaction_df == row.joint_df == cells.n_obs - len(x) - 2
            assert row.beta == pytest.approx(np.linalg.lstsq(np.column_stack([*x, g]), y, rcond=None)[0][-1], rel=1e-8)

    def test_pseudobulk(self, cells, genotype):
        """Donors × genes: least squares, or with a kernel equal to the cells' of one cell each."""
        bulk = al.pp.pseudobulk(cells, "donor_id", min_cells=1)
        bulk.obs["age"] = cells.obs.groupby("donor_id", observed=True)["age"].first()[bulk.obs_names].to_numpy()
        table = pairs_of(bulk, genotype, interaction="age")
        age = bulk.obs["age"].to_numpy()
        for row in table.sample(8, random_state=0).itertuples():
            g = pd.Series(expanded(cells, genotype, row.variant), cells.obs["donor_id"].astype(str).to_numpy())
            g = g.groupby(level=0).first()[bulk.obs_names].to_numpy()
            _, t, f = least_squares(
                np.asarray(bulk[:, row.gene].X).ravel(), np.column_stack([np.ones(len(g)), age]), [g, g * age]
            )
            assert row.interaction_statistic == pytest.approx(t, rel=1e-8)
            assert row.joint_statistic == pytest.approx(f, rel=1e-8)
            assert row.joint_df == bulk.n_obs - 4
        related = relatedness(list(genotype.obs_names))
        out = al.tl.map_eqtl(bulk, genotype, interaction="age", relatedness=related, copy=True)
        assert out.uns["eqtl"]["params"]["df"] == "residual"
        assert np.isfinite(al.get.eqtl(out, level="gene")["gamma"]).all()

    def test_order_of_rows_and_donors(self, cells, genotype):
        one = pairs_of(cells, genotype, "donor_id", variance="refit")
        rng = np.random.default_rng(5)
        other = cells[rng.permutation(cells.n_obs)].copy(), genotype[rng.permutation(genotype.n_obs)].copy()
        assert_close(one, pairs_of(*other, "donor_id", variance="refit"))

    def test_unit_of_the_context(self, cells, genotype):
        one = pairs_of(cells, genotype, "donor_id")
        cells.obs["minutes"] = 5.0 + 1000 * cells.obs["pseudotime"]
        other = pairs_of(cells, genotype, "donor_id", interaction="minutes")
        for name in ("interaction_beta", "interaction_standard_error"):
            other[name] *= 1000
        assert_close(one, other)

    def test_context_among_the_covariates(self, cells, genotype):
        one = pairs_of(cells, genotype, "donor_id", covariates=["age"])
        assert_close(one, pairs_of(cells, genotype, "donor_id", covariates=["pseudotime", "age"]))

    @pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_matrix, np.asfortranarray])
    def test_array_types(self, cells, genotype, make):
        cells.X[cells.X < 0.5] = 0
        one = pairs_of(cells, genotype, "donor_id")
        cells.X = make(cells.X)
        assert_close(one, pairs_of(cells, genotype, "donor_id"))

    @pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
    def test_missing_values_of_genes(self, cells, genotype, make):
        cells.X[3:9, 1], cells.X[5, 2] = np.nan, np.nan
        filled = cells.copy()
        filled.X = np.where(np.isnan(cells.X), np.nanmean(cells.X, axis=0), cells.X)
        cells.X = make(cells.X)
        assert_close(pairs_of(cells, genotype, "donor_id"), pairs_of(filled, genotype, "donor_id"))
        with untouched(cells), pytest.raises(ValueError, match="missing values"):
            al.tl.map_eqtl(cells, genotype, "donor_id", interaction="pseudotime", missing="raise")

    def test_in_parts(self, cells, genotype):
        """Sums over rows in parts, as for matrices that do not fit."""
        dask = pytest.importorskip("dask.array")
        one = pairs_of(cells, genotype, "donor_id")
        cells.X = dask.from_array(cells.X, chunks=(70, 3))
        assert_close(one, pairs_of(cells, genotype, "donor_id"))

    def test_missing_contexts_are_left_out_and_told(self, cells, genotype):
        lacking = np.random.default_rng(1).uniform(size=cells.n_obs) < 0.1
        fewer = cells[~lacking].copy()
        cells.obs.loc[lacking, "pseudotime"] = np.nan
        with messages() as seen:
            one = pairs_of(cells, genotype, "donor_id")
        assert any(f"{lacking.sum()} observations without a value of pseudotime left out" in text for text in seen)
        assert_close(one, pairs_of(fewer, genotype, "donor_id"))

    def test_several_contexts(self, cells, genotype):
        """All are covariates, one is tested at a time."""
        out = al.tl.map_eqtl(cells, genotype, "donor_id", interaction="X_pca", copy=True)
        assert out.uns["eqtl"]["params"]["interaction"].tolist() == ["X_pca[0]", "X_pca[1]"]
        table, genes = al.get.eqtl(out), al.get.eqtl(out, level="gene")
        assert list(genes["context"].cat.categories) == ["X_pca[0]", "X_pca[1]"]
        assert len(genes) == 2 * cells.n_vars
        second = cells.obsm["X_pca"][:, 1]
        mean = pd.Series(second).groupby(cells.obs["donor_id"].to_numpy(), observed=True).transform("mean").to_numpy()
        cells.obs["mean"], cells.obs["within"] = mean, second - mean
        one = pairs_of(cells, genotype, "donor_id", interaction="X_pca[0]", covariates=["mean", "within"])
        assert_close(table[table["context"] == "X_pca[0]"], one)
        only = al.get.eqtl(out, context="X_pca[1]", gene="gene_1")
        assert (only["context"] == "X_pca[1]").all()
        assert set(only["gene"]) == {"gene_1"}
        mixed = al.tl.map_eqtl(cells, genotype, "donor_id", interaction=["pseudotime", "status"], copy=True)
        assert mixed.uns["eqtl"]["params"]["interaction_between"].tolist() == ["status"]
        slopes = al.get.eqtl(mixed, level="gene").groupby("context", observed=True)["gamma_slope"].count()
        assert slopes.tolist() == [cells.n_vars, 0]

    def test_context_of_donors(self, cells, genotype):
        """Two levels are 0 and 1; degrees of freedom are those of the donors; annotations of `genotype` will do."""
        with messages() as seen:
            one = pairs_of(cells, genotype, "donor_id", interaction="status")
        assert any("constant within donors: status" in text for text in seen)
        # Of 20 donors; a gene with a small γ̂ has a few more, since its cells tell something about the error too.
        assert one["interaction_df"].median() < 18
        assert one["interaction_df"].max() < 0.2 * cells.n_obs
        of_donor = cells.obs.groupby("donor_id", observed=True)["status"].first()
        genotype.obs["disease"] = (of_donor[genotype.obs_names] == "case").to_numpy(float)
        other = pairs_of(cells, genotype, "donor_id", interaction="disease")
        assert_close(one, other)

    def test_product_that_is_collinear(self, cells, genotype):
        """Carriers among the cases alone: g × status is g."""
        of_donor = (cells.obs.groupby("donor_id", observed=True)["status"].first() == "case")[genotype.obs_names]
        genotype.X[:, 0] = of_donor.to_numpy(float) * (np.arange(20) % 3 > 0)
        genotype.X[:, 1] = of_donor.to_numpy(float)
        table = pairs_of(cells, genotype, "donor_id", interaction="status", variance="refit").set_index("variant")
        product, all_of_it = (table.loc[genotype.var_names[j]] for j in (0, 1))
        assert np.isfinite(product["p_value"]).all()
        assert product[["interaction_p_value", "joint_p_value"]].isna().all(axis=None)
        assert (all_of_it["status"] == "collinear").all()
        assert all_of_it[["p_value", "interaction_p_value", "joint_p_value"]].isna().all(axis=None)

    def test_related_donors(self, cells, genotype):
        related = relatedness(list(genotype.obs_names))
        one = pairs_of(cells, genotype, "donor_id", relatedness=related)
        al.pp.kernel_group(cells, "donor_id", relatedness=related)
        assert_close(one, pairs_of(cells, genotype, "donor_id", kernel="kernel"))

    def test_slopes(self, cells, genotype):
        found = {
            slopes: pairs_of(cells, genotype, "donor_id", donor_slopes=slopes, variance="null")
            for slopes in ("random", "two-stage", "none")
        }
        pd.testing.assert_frame_equal(
            by_pair(found["random"]).iloc[:, :5], by_pair(found["two-stage"]).iloc[:, :5], rtol=1e-6
        )
        assert (found["two-stage"]["interaction_df"] == 18).all()
        # Without slopes nothing but the residual is left for the interaction.
        assert found["none"]["interaction_df"].min() > 10 * found["random"]["interaction_df"].median() / 2
        beta = [by_pair(table)["interaction_beta"] for table in found.values()]
        assert all(np.corrcoef(beta[0], other)[0, 1] > 0.8 for other in beta[1:])

    def test_getter(self, cells, genotype, tmp_path):
        al.tl.map_eqtl(cells, genotype, "donor_id", interaction="pseudotime")
        table, genes = al.get.eqtl(cells), al.get.eqtl(cells, level="gene")
        for test in ("interaction", "joint"):
            p = f"{test}_p_value"
            below = al.get.eqtl(cells, test=test, max_p_value=0.01)
            assert len(below) == (table[p] <= 0.01).sum() > 0
            cut = float(genes[f"{test}_q_value"].median())
            some = al.get.eqtl(cells, test=test, max_q_value=cut)
            assert set(some["gene"]) == set(genes.index[genes[f"{test}_q_value"] <= cut])
            best = table.loc[table.groupby("gene", observed=True)[p].idxmin()].set_index("gene")
            np.testing.assert_array_equal(best.loc[genes.index, p], genes[p])
            assert list(best.loc[genes.index, "variant"].astype(str)) == list(genes[f"{test}_variant"].astype(str))
            combined = table.groupby("gene", observed=True)[p].agg(lambda values: float(cauchy_combination(values)))
            np.testing.assert_allclose(genes[f"{test}_p_acat"], combined[genes.index], rtol=1e-9)
        with pytest.raises(ValueError, match="test: must be one of 'additive', 'interaction', 'joint'"):
            al.get.eqtl(cells, test="both")
        with pytest.raises(KeyError, match="context='time': not among those of key='eqtl', which are 'pseudotime'"):
            al.get.eqtl(cells, context="time")
        al.tl.map_eqtl(cells, genotype, "donor_id", key_added="plain")
        with pytest.raises(KeyError, match="test='joint': key='plain' has no contexts; run al.tl.map_eqtl with inter"):
            al.get.eqtl(cells, "plain", test="joint")
        al.pl.locus(cells, genotype, "gene_1", p_value="interaction_p_value")

    def test_parquet(self, cells, genotype, tmp_path):
        pytest.importorskip("pyarrow")
        al.tl.map_eqtl(cells, genotype, "donor_id", interaction="X_pca")
        held = al.get.eqtl(cells, test="interaction", max_p_value=0.1)
        al.tl.map_eqtl(cells, genotype, "donor_id", interaction="X_pca", output=tmp_path / "pairs.parquet")
        read = al.get.eqtl(cells, test="interaction", max_p_value=0.1)
        pd.testing.assert_frame_equal(read, held, check_dtype=False, check_categorical=False)

    def test_genes_that_were_not_tested_are_not_counted(self, cells, genotype):
        """As without contexts."""
        cells.var["start"] = cells.var["start"].astype(float)
        cells.var.loc[cells.var_names[[1, 4]], ["start", "end"]] = np.nan
        counted = []
        for options in ({}, {"interaction": ["pseudotime", "status"]}):
            with messages() as seen:
                al.tl.map_eqtl(cells, genotype, "donor_id", **options)
            counted.append(re.findall(r"(\d+) of 8 genes mapped", "\n".join(seen)))
        assert counted == [["6"], ["6"]]
        assert al.get.eqtl(cells, level="gene")["pos"].isna().sum() == 2 * 2

    @pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
    def test_round_trip(self, cells, genotype, tmp_path, suffix):
        al.tl.map_eqtl(cells, genotype, "donor_id", interaction=["pseudotime", "status"])
        path = tmp_path / f"cells.{suffix}"
        getattr(cells, f"write_{suffix}")(path)
        again = getattr(ad, f"read_{suffix}")(path)
        for level in ("pair", "gene"):
            pd.testing.assert_frame_equal(
                al.get.eqtl(again, level=level),
                al.get.eqtl(cells, level=level),
                check_dtype=False,
                check_categorical=False,
            )
        assert list(again.uns["eqtl"]["params"]["interaction"]) == ["pseudotime", "status"]

    @pytest.mark.parametrize(("options", "error", "match"), [
        ({"interaction": "time"}, KeyError, "interaction='time': neither a column of expression.obs nor a key of expression.obsm, nor in genotype; did you"),
        ({"interaction": "X_pca[7]"}, KeyError, r"interaction='X_pca\[7\]': expression.obsm\['X_pca'\] has the columns"),
        ({"interaction": 3}, TypeError, "interaction: must be a column"),
        ({"interaction": []}, TypeError, "interaction: must be a column"),
        ({"interaction": ["score", "score"]}, ValueError, "interaction: contexts must differ"),
        ({"interaction": "batch"}, ValueError, "interaction='batch': has 3 levels"),
        ({"interaction": "one"}, ValueError, "interaction='one': one value on the"),
        ({"interaction": "infinite"}, ValueError, "interaction='infinite': 1 infinite values"),
        ({"interaction": "few"}, ValueError, "interaction='few': varies within 2 donors"),
        ({"donor_slopes": "fixed"}, ValueError, "donor_slopes: must be one of 'random', 'two-stage', 'none'"),
        ({"window": None}, ValueError, "interaction: is tested for the variants in a window"),
        ({"permutations": 100}, ValueError, "permutations=100: neither labels"),
        ({"conditional": True}, ValueError, "conditional=True: signals are those of additive effects"),
        ({"reml": False}, ValueError, "reml=False: models with contexts"),
        ({"kernel": "kernel", "relatedness": "kernel"}, ValueError, "relatedness: says what the kernel"),
    ])  # fmt: skip
    def test_errors(self, cells, genotype, options, error, match):
        cells.obs["one"] = 3.5
        cells.obs["infinite"] = np.where(np.arange(cells.n_obs) == 4, np.inf, 0.0)
        donor = cells.obs["donor_id"].cat.codes.to_numpy()
        cells.obs["few"] = donor + np.where(donor < 2, cells.obs["score"], 0.0)
        with untouched(cells), untouched(genotype), pytest.raises(error, match=match):
            al.tl.map_eqtl(cells, genotype, "donor_id", **({"interaction": "pseudotime"} | options))
