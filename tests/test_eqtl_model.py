"""The model of eQTL mapping against dense n × n formulas on expanded cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
from scipy import stats

from annlmm.model.basis import DenseBasis, GroupBasis, no_kernel
from annlmm.model.combine import FEWEST, cauchy_combination, storey_q_value
from annlmm.model.design import make_design
from annlmm.model.donor_space import make_donor_space
from annlmm.model.eigen import from_kernel
from annlmm.model.eqtl import NullTests, check_degrees, log_t_sf, pair_tests, place_genes
from annlmm.model.eqtl_cis import Mapper, Pairs, Windows, make_windows, runs, tiles
from annlmm.model.eqtl_conditional import Step, independent_signals
from annlmm.model.eqtl_genes import GeneLevel
from annlmm.model.eqtl_permutation import Permutations, beta_approximation, fit_beta, learn_df, p_of
from annlmm.model.eqtl_trans import BINS, HIGHEST, TransSummary, TransTests
from annlmm.model.eqtl_variants import MONOMORPHIC, RARE, UNCALLED, NotDosages, VariantBlock, project_calls, read_calls
from annlmm.model.null import NullModel
from annlmm.model.responses import coordinates, fit_responses
from annlmm.model.statistics import feature_statistics

CASES = ("identity", "grm", "low_rank", "centred", "cells_ols", "bulk", "bulk_low_rank", "bulk_ols")


class Data:
    """Genes on cells (or donors), and the same for the oracle: K n × n, variants expanded."""

    def __init__(self, case, seed=0, d=16, genes=5, variants=7, donor_covariate=True):
        rng = np.random.default_rng(seed)
        bulk = case.startswith("bulk")
        counts = np.ones(d, dtype=int) if bulk else rng.integers(2, 9, d)
        self.codes = rng.permutation(np.repeat(np.arange(d), counts))
        self.n, self.d, self.case = self.codes.size, d, case
        related = None
        if case in ("grm", "bulk"):
            related = oracle.random_kernel(rng, d)
        elif case in ("low_rank", "bulk_low_rank"):
            related = oracle.random_kernel(rng, d, rank=7)
        elif case == "centred":
            h = oracle.centring(d)
            related = h @ oracle.random_kernel(rng, d) @ h
        columns = [np.ones(self.n)]
        if donor_covariate:
            columns.append(rng.standard_normal(d)[self.codes])
        if not bulk:
            columns.append(rng.standard_normal(self.n))
        self.x = np.column_stack(columns)
        self.dosage = rng.binomial(2, 0.4, (d, variants)).astype(float)
        root = np.eye(d) if related is None else np.linalg.cholesky(related + 1e-10 * np.eye(d))
        size = np.linspace(0.5, 1.5, genes)
        self.y = 50 + rng.standard_normal((self.n, genes)) + (root @ rng.standard_normal((d, genes)) * size)[self.codes]
        self.y += 0.4 * self.dosage[self.codes, :1] * np.arange(genes)
        self.k = np.zeros((self.n, self.n)) if case.endswith("ols") else oracle.group_kernel(self.codes, related)
        if case.endswith("ols"):
            basis = no_kernel(self.n)
        elif bulk:
            spectrum = from_kernel(self.k)
            basis = DenseBasis(spectrum.u, spectrum.eigenvalues)
        else:
            basis = GroupBasis(self.codes, related)
        self.fit(make_design(self.x), basis)

    def fit(self, design, basis, orthonormal=False):
        self.model = NullModel(design, basis)
        independent = NullModel(design, GroupBasis(self.codes), identifiable=False)
        found = feature_statistics(self.y.copy(), np.zeros((self.n, 0)), design, independent.basis, independent.space)
        if isinstance(basis, GroupBasis):
            u = basis.coordinates.rotate(found.u)
        else:
            u = basis.project(found.u[self.codes]) if basis.rank else found.u[:0]
        self.fits = fit_responses(self.model, coordinates(replace(found, u=u), self.model.space), simulate=False)
        self.space = make_donor_space(self.model, self.codes, orthonormal=orthonormal)
        self.genes = place_genes(found, self.fits, self.space)

    @property
    def df_residual(self):
        return self.model.space.df_residual

    def block(self, keep_dosage=False):
        calls = read_calls(self.dosage, 0.0, None)
        m = self.dosage.shape[1]
        return project_calls(calls, np.arange(m), self.space, spans_constant=True, keep_dosage=keep_dosage)

    def mapper(self, variance="null", grouped=False, threshold=1e-4):
        return Mapper(self.model.space, self.space, grouped, variance, threshold)

    def all_pairs(self, **options):
        """Every gene against every variant: arrays of genes × variants."""
        m = self.dosage.shape[1]
        genes = self.y.shape[1]
        windows = Windows(np.arange(genes), np.zeros(genes, dtype=int), np.full(genes, m))
        pairs = Pairs.join([pairs for pairs, _ in self.mapper(**options).cis(self.genes, windows, self.block())])
        assert np.array_equal(pairs.gene.reshape(genes, m)[:, 0], np.arange(genes))
        return {name: value.reshape(genes, m) for name, value in vars(pairs).items()}


@pytest.mark.parametrize("case", CASES)
class TestAgainstDense:
    def test_null(self, case):
        data = Data(case)
        for g in range(data.y.shape[1]):
            best = oracle.fit(data.y[:, g], data.x, data.k)
            gamma = data.fits.gamma[g]
            if np.isinf(gamma):  # the oracle's grid ends at e¹²
                assert best.gamma > 1e5
                continue
            value = oracle.log_likelihood(data.y[:, g], data.x, data.k, gamma)[0]
            # The oracle's Brent search stops within 1e-12 of its own optimum in log γ: ours is no lower.
            assert value >= best.log_likelihood - 1e-9
            assert gamma == pytest.approx(best.gamma, rel=1e-5, abs=1e-5)

    def test_additive(self, case):
        data = Data(case)
        found = data.all_pairs()
        for g in range(data.y.shape[1]):
            gamma = data.genes.gamma[g]
            if np.isinf(data.fits.gamma[g]):
                continue  # 1e8 beyond what n × n inverses can do
            beta, se, f, p, _, _ = oracle.associate(data.y[:, g], data.x, data.k, data.dosage[data.codes], gamma)
            # The bound that the issue asks for; what is seen is 1e-11.
            np.testing.assert_allclose(found["beta"][g], beta, rtol=1e-8)
            np.testing.assert_allclose(found["standard_error"][g], se, rtol=1e-8)
            np.testing.assert_allclose(found["statistic"][g] ** 2, f, rtol=1e-8)
            np.testing.assert_allclose(np.exp(found["log_p_value"][g]), p, rtol=1e-8)
            assert (found["df"][g] == data.n - data.x.shape[1] - 1).all()


@pytest.mark.parametrize("case", ["identity", "grm", "low_rank", "centred"])
class TestDonorDegreesOfFreedom:
    def test_expected_information(self, case):
        """ν₀ is Satterthwaite's from the expected information, by dense matrices, at γ of the null."""
        data = Data(case)
        tests = NullTests(data.space, data.genes, data.df_residual, grouped=True)
        block = data.block()
        nu = tests.ratios(block.x, block.norm).nu
        contrast = np.eye(data.x.shape[1] + 1)[-1]
        for g in range(data.y.shape[1]):
            for j in range(block.size):
                x = np.column_stack([data.x, data.dosage[data.codes, j]])
                gamma = float(data.genes.gamma[g])
                dense = oracle.satterthwaite(data.y[:, g], x, data.k, contrast, gamma, 1.0, expected=True)
                # A ratio of differences of sums over n² entries: eight digits of the oracle's are left.
                assert nu[g, j] == pytest.approx(min(dense, data.df_residual - 1), rel=1e-7)

    def test_screen(self, case):
        """T/ν on Beta(½, ν₀/2); t, SE and p agree with each other."""
        data = Data(case)
        found = data.all_pairs(grouped=True)
        residual = data.all_pairs()
        some = 0
        for g in range(data.y.shape[1]):
            total = oracle.associate(data.y[:, g], data.x, data.k, data.dosage[data.codes], data.genes.gamma[g])
            df = data.df_residual - 1
            r_sq = total[2] / (total[2] + df)
            nu = found["df"][g]
            share = r_sq * data.df_residual / (1 + nu)
            fine = np.flatnonzero((share < 1) & (found["beta"][g] == residual["beta"][g]))  # not refitted
            some += fine.size
            p = stats.beta.sf(share[fine], 0.5, nu[fine] / 2)
            np.testing.assert_allclose(np.exp(found["log_p_value"][g][fine]), p, rtol=1e-8)
            t = found["beta"][g] / found["standard_error"][g]
            np.testing.assert_allclose(found["statistic"][g], t, rtol=1e-10)
            np.testing.assert_allclose(np.exp(found["log_p_value"][g]), 2 * stats.t.sf(np.abs(t), nu), rtol=1e-8)
        assert some > 20

    def test_refit(self, case):
        """γ, β, SE and the Satterthwaite degrees of freedom with the variant in the model."""
        data = Data(case, genes=3, variants=4)
        found = data.all_pairs(variance="refit", grouped=True)
        for g in range(3):
            for j in range(4):
                x = np.column_stack([data.x, data.dosage[data.codes, j]])
                best = oracle.fit(data.y[:, g], x, data.k)
                # γ̂ of the oracle is good to 1e-6, and β, SE and ν are smooth in it.
                assert found["beta"][g, j] == pytest.approx(best.beta[-1], rel=1e-6)
                assert found["standard_error"][g, j] == pytest.approx(np.sqrt(best.beta_covariance[-1, -1]), rel=1e-6)
                expected = best.gamma == 0
                nu = oracle.satterthwaite(
                    data.y[:, g], x, data.k, np.eye(x.shape[1])[-1], best.sigma_sq, best.tau_sq, expected=expected
                )
                if 0 < nu < data.df_residual - 1:
                    assert found["df"][g, j] == pytest.approx(nu, rel=1e-4)


@pytest.mark.parametrize("case", ["bulk", "bulk_low_rank"])
def test_refit_of_donors(case):
    data = Data(case, genes=3, variants=4)
    found = data.all_pairs(variance="refit")
    for g in range(3):
        for j in range(4):
            x = np.column_stack([data.x, data.dosage[data.codes, j]])
            best = oracle.fit(data.y[:, g], x, data.k)
            if best.gamma > 1e4:
                continue
            assert found["beta"][g, j] == pytest.approx(best.beta[-1], rel=1e-6)
            assert found["standard_error"][g, j] == pytest.approx(np.sqrt(best.beta_covariance[-1, -1]), rel=1e-6)
            assert found["df"][g, j] == data.df_residual - 1


def test_screen_refits_below_the_threshold_only():
    data = Data("identity", seed=3)
    null, every = data.all_pairs(grouped=True), data.all_pairs(grouped=True, variance="refit")
    mixed = data.all_pairs(grouped=True, variance="screen", threshold=0.05)
    below = null["log_p_value"] < np.log(0.05)
    assert 0 < below.sum() < below.size
    for name in ("beta", "standard_error", "statistic", "df", "log_p_value"):
        np.testing.assert_array_equal(mixed[name][~below], null[name][~below])
        np.testing.assert_allclose(mixed[name][below], every[name][below], rtol=1e-12)


def test_absorbed_effect_is_refitted_whatever_was_asked_for():
    """With a variant that explains all of what donors' means differ in, T ≥ ν at the null's γ."""
    data = Data("identity", genes=1)
    within = np.random.default_rng(0).standard_normal(data.n)
    within -= (np.bincount(data.codes, within) / np.bincount(data.codes))[data.codes]
    data.x = np.ones((data.n, 1))
    data.y = within[:, None] + 3 * data.dosage[data.codes, :1]
    data.fit(make_design(data.x), GroupBasis(data.codes))
    found, every = data.all_pairs(grouped=True), data.all_pairs(grouped=True, variance="refit")
    tests = data.mapper(grouped=True).null_tests(data.genes)
    block = data.block()
    ratios = tests.ratios(block.x, block.norm)
    assert np.isnan(
        pair_tests(ratios.num, ratios.den, ratios.nu, tests.rss[:, None], data.df_residual).log_p_value[0, 0]
    )
    assert found["log_p_value"][0, 0] == every["log_p_value"][0, 0] < np.log(1e-4)
    assert found["beta"][0, 0] == pytest.approx(3, rel=1e-9)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("orthonormal", [False, True])
def test_inner_products_of_donors_and_genes(case, orthonormal):
    data = Data(case)
    data.fit(data.model.design, data.model.basis, orthonormal)
    m = np.eye(data.n) - data.x @ np.linalg.pinv(data.x)
    x, my = m @ data.dosage[data.codes], m @ data.y
    block = data.block()
    np.testing.assert_allclose(block.x @ data.genes.y, x.T @ my, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(block.x @ block.x.T, x.T @ x, rtol=1e-9, atol=1e-9)
    inside = np.einsum("kg,kg->g", data.genes.y, data.genes.y)
    np.testing.assert_allclose(inside + data.genes.rest, (my**2).sum(axis=0), rtol=1e-10)
    # K in these coordinates is diagonal.
    np.testing.assert_allclose((block.x * data.space.mu) @ data.genes.y, x.T @ data.k @ my, rtol=1e-8, atol=1e-8)
    assert data.space.complete == case.startswith("bulk")


def test_an_offset_costs_no_digits():
    data, shifted = Data("identity"), Data("identity")
    shifted.y = shifted.y + 1e7
    shifted.fit(make_design(shifted.x), GroupBasis(shifted.codes))
    one, other = data.all_pairs(), shifted.all_pairs()
    # 1e7 leaves nine of the sixteen digits of y.
    np.testing.assert_allclose(other["statistic"], one["statistic"], rtol=1e-6)


def test_too_few_donors_for_the_covariates():
    data = Data("identity", d=4, donor_covariate=True)
    data.x = np.column_stack([data.x, np.random.default_rng(1).standard_normal(4)[data.codes]])
    data.fit(make_design(data.x), GroupBasis(data.codes))
    with pytest.raises(
        ValueError, match=r"4 donors and 4 fixed effects, 3 of them constant within donors, leave 1 dimension"
    ):
        check_degrees(data.model.space, data.space)


def test_variant_among_the_covariates_is_collinear():
    data = Data("grm")
    data.x = np.column_stack([data.x, data.dosage[data.codes, 2]])
    data.fit(make_design(data.x), data.model.basis)
    found = data.all_pairs(grouped=True)
    assert (found["status"][:, 2] == 2).all()
    assert np.isnan(found["log_p_value"][:, 2]).all()
    assert np.isfinite(np.delete(found["log_p_value"], 2, axis=1)).all()


class TestCalls:
    def test_missing_calls_get_the_mean(self):
        values = np.array([[0.0, np.nan], [1.0, 2.0], [np.nan, 0.0], [1.0, 1.0]])
        calls = read_calls(values, 0.05, None)
        np.testing.assert_allclose(calls.dosage, [[0, 1, 2 / 3, 1], [1, 2, 0, 1]])
        np.testing.assert_allclose(calls.maf, [1 / 3, 0.5])
        assert calls.n_called.tolist() == [3, 3]
        assert np.isnan(values[2, 0])  # not changed

    def test_filters(self):
        values = np.zeros((20, 4), dtype=np.int8)
        values[0, 1], values[:, 2], values[:7, 3] = 1, -9, 2
        calls = read_calls(values, 0.05, -9)
        assert calls.state.tolist() == [MONOMORPHIC, RARE, UNCALLED, 0]
        assert calls.maf[3] == pytest.approx(0.35)

    def test_major_allele_counted(self):
        values = np.full((10, 1), 2.0)
        values[0] = 0
        assert read_calls(values, 0.05, None).maf[0] == pytest.approx(0.1)

    def test_values_that_are_not_dosages(self):
        values = np.random.default_rng(0).standard_normal((10, 2))
        with pytest.raises(NotDosages, match="not 0 to 2"):
            read_calls(values, 0.05, None)
        calls = read_calls(values, 0.0, None)
        assert np.isnan(calls.maf).all()
        assert (calls.state == 0).all()
        with pytest.raises(NotDosages, match="infinite"):
            read_calls(np.array([[0.0], [np.inf]]), 0.0, None)


class TestWindows:
    def draw(self, seed=0, m=200, genes=30):
        rng = np.random.default_rng(seed)
        chrom, pos = rng.integers(-1, 3, m), rng.integers(0, 1000, m)
        gene_chrom, gene_pos = rng.integers(0, 4, genes), rng.integers(0, 1000, genes)
        return chrom, pos, gene_chrom, gene_pos

    @pytest.mark.parametrize("window", [0, 50, 10_000])
    def test_against_all_pairs(self, window):
        chrom, pos, gene_chrom, gene_pos = self.draw()
        genes = np.arange(1, 30)
        windows, order = make_windows(gene_chrom, gene_pos, genes, chrom, pos, window)
        assert sorted(windows.gene) == genes.tolist()
        assert (np.diff(windows.low) >= 0).all()
        assert (np.diff(windows.high) >= 0).all()
        for gene, low, high in zip(windows.gene, windows.low, windows.high, strict=True):
            near = (chrom == gene_chrom[gene]) & (np.abs(pos - gene_pos[gene]) <= window)
            assert sorted(order[low:high]) == np.flatnonzero(near).tolist()

    @pytest.mark.parametrize("most", [1, 30, 1000])
    def test_tiles_and_runs_leave_nothing_out(self, most):
        chrom, pos, gene_chrom, gene_pos = self.draw(1)
        windows, _ = make_windows(gene_chrom, gene_pos, np.arange(30), chrom, pos, 100)
        parts = list(tiles(windows, most))
        assert np.array_equal(np.concatenate([part.gene for part in parts]), windows.gene)
        assert all(part.gene.size == 1 or part.high[-1] - part.low[0] <= most for part in parts)
        assert np.array_equal(np.concatenate([run.gene for part in parts for run in runs(part)]), windows.gene)


class TestTrans:
    @pytest.mark.parametrize(
        ("case", "grouped"), [("identity", True), ("identity", False), ("bulk", False), ("bulk_ols", False)]
    )
    @pytest.mark.parametrize("variance", ["null", "screen"])
    def test_equals_all_windows(self, case, grouped, variance):
        data = Data(case, genes=6, variants=300, seed=5)
        threshold = 0.02
        options = {"grouped": grouped, "variance": variance, "threshold": threshold}
        found = data.all_pairs(**options)
        summary = TransSummary.empty(6)
        kept = TransTests(data.mapper(**options), data.genes, np.arange(6))(data.block(), summary)
        pairs = Pairs.join(kept)
        screen = data.all_pairs(grouped=grouped)["log_p_value"] < np.log(threshold)
        expected = screen & (found["log_p_value"] < np.log(threshold))
        assert expected.sum() > 5
        assert {(g, j) for g, j in zip(pairs.gene, pairs.variant, strict=True)} == set(
            zip(*np.nonzero(expected), strict=True)
        )
        at = pairs.gene, pairs.variant
        for name in ("beta", "standard_error", "statistic", "df", "log_p_value"):
            # The same sums in another order.
            np.testing.assert_allclose(getattr(pairs, name), found[name][at], rtol=1e-9, err_msg=name)
        assert (summary.n_tests == 300).all()
        assert summary.histogram.sum() == 1800

    def test_lambda(self):
        data = Data("identity", genes=6, variants=300, seed=5)
        found = data.all_pairs(grouped=True)
        summary = TransSummary.empty(6)
        TransTests(data.mapper(grouped=True), data.genes, np.arange(6))(data.block(), summary)
        exact = stats.chi2.isf(np.exp(np.median(found["log_p_value"])), 1) / stats.chi2.ppf(0.5, 1)
        # Wallace's z² at the median is good to 1e-3 for ν ≥ 8, and here ν is 10 to 20; bins are 0.004 wide.
        assert summary.lambda_gc == pytest.approx(exact, abs=0.02)

    @pytest.mark.parametrize("place", [0, 1, 5])
    def test_lambda_when_all_is_in_one_bin(self, place):
        """The middle of that bin."""
        summary = TransSummary.empty(1)
        summary.histogram[place] = 10
        assert summary.lambda_gc == pytest.approx((place + 0.5) * HIGHEST / BINS / stats.chi2.ppf(0.5, 1), rel=1e-12)

    def test_best_of_genes_without_a_pair_that_is_kept(self):
        data = Data("bulk_ols", genes=4, variants=50)
        found = data.all_pairs()
        level, summary = GeneLevel.empty(4), TransSummary.empty(4)
        TransTests(data.mapper(threshold=1e-12), data.genes, np.arange(4))(data.block(), summary)
        summary.into(level, np.arange(50))
        assert np.array_equal(level.variant, found["log_p_value"].argmin(axis=1))
        np.testing.assert_allclose(level.log_p_value, found["log_p_value"].min(axis=1), rtol=1e-9)
        assert (level.n_variants == 50).all()


class TestPermutations:
    def test_labels_are_least_squares_of_permuted_genotypes(self):
        data = Data("bulk_ols")
        q = data.model.design.q[np.argsort(data.codes)]
        permutations = Permutations(data.space, 20, np.random.default_rng(0), q=q, spans_constant=True)
        block, tests = data.block(keep_dosage=True), data.mapper().null_tests(data.genes)
        found = permutations.strongest(tests, 1, block, block.norm, permutations.denominators(block))
        m = np.eye(data.n) - data.x @ np.linalg.pinv(data.x)
        my = m @ data.y[:, 1]
        inverse = np.argsort(permutations.order, axis=0)
        for b in range(20):
            x = m @ data.dosage[inverse[:, b]][data.codes]
            r_sq = (x.T @ my) ** 2 / (x**2).sum(axis=0) / (my @ my)
            assert found[b] == pytest.approx(r_sq.max(), rel=1e-5)  # single precision

    def test_whitened_is_uncorrelated_with_equal_variances(self):
        """Cov(W^½ỹ) = τ² I for y ~ N(Xβ, γK + I), by the exact covariance."""
        data = Data("grm", genes=1)
        gamma = float(data.genes.gamma[0])
        m = np.eye(data.n) - data.x @ np.linalg.pinv(data.x)
        # ỹ = Bᵀy with B = M U₀ G⁺ L.
        z = (data.codes[:, None] == np.arange(data.d)) / np.sqrt(data.space.counts)
        b = m @ z @ data.space.to_gene
        white = b / np.sqrt(1 + gamma * data.space.mu)
        covariance = white.T @ (gamma * data.k + np.eye(data.n)) @ white
        np.testing.assert_allclose(covariance, np.eye(data.space.dims), atol=1e-10)

    def test_whitened_r_squared(self):
        data = Data("low_rank", genes=2)
        permutations = Permutations(data.space, 15, np.random.default_rng(1), q=None, spans_constant=True)
        tests, block = data.mapper().null_tests(data.genes), data.block()
        ratios = tests.ratios(block.x, block.norm)
        found = permutations.strongest(tests, 1, block, ratios.den[1], None)
        root = np.sqrt(tests.w[1])
        y, x = root * data.genes.y[:, 1], root * block.x
        for b in range(15):
            moved = y[permutations.order[:, b]]
            r_sq = (x @ moved) ** 2 / (x**2).sum(axis=1) / (y @ y)
            assert found[b] == pytest.approx(r_sq.max(), rel=1e-5)

    @pytest.mark.parametrize("case", ["bulk_ols", "bulk", "identity", "cells_ols"])
    def test_uniform_under_the_null(self, case):
        """p_permutation and p_beta of 150 genes without an eQTL, 30 donors."""
        rng = np.random.default_rng(7)
        data = Data(case, d=30, genes=150, variants=20, seed=11)
        data.y = rng.standard_normal(data.y.shape)
        if case != "cells_ols":
            data.y += data.d**0.5 * 0.2 * rng.standard_normal((data.d, 150))[data.codes]
        data.fit(data.model.design, data.model.basis, orthonormal=True)
        labels = case == "bulk_ols"
        q = data.model.design.q[np.argsort(data.codes)] if labels else None
        permutations = Permutations(data.space, 200, rng, q=q, spans_constant=True)
        windows = Windows(np.arange(150), np.zeros(150, dtype=int), np.full(150, 20))
        found = list(data.mapper().cis(data.genes, windows, data.block(keep_dosage=labels), permutations))
        for name in ("p_permutation", "p_beta"):
            p = np.array([getattr(permutation, name) for _, permutation in found])
            # A true uniform fails this once in a thousand seeds; the seed is fixed.
            assert stats.kstest(p, "uniform").pvalue > 1e-3, name

    def test_beta_approximation(self):
        rng = np.random.default_rng(0)
        permuted = rng.beta(0.5, 30, (2000, 25)).max(axis=1)
        df = learn_df(permuted, 50.0)
        p = p_of(permuted, df)
        mean, variance = p.mean(), p.var(ddof=1)
        assert mean * (mean * (1 - mean) / variance - 1) == pytest.approx(1, abs=1e-4)
        a, b = fit_beta(p)
        np.testing.assert_allclose((a, b), stats.beta.fit(p, floc=0, fscale=1)[:2], rtol=1e-6)
        assert df == pytest.approx(60, rel=0.1)  # r² of one variant is Beta(½, 60/2)
        assert b == pytest.approx(25, rel=0.15)  # independent variants
        observed = 0.3
        found = beta_approximation(observed, permuted, 50.0)
        exact = 1 - (1 - stats.beta.sf(observed, 0.5, 30)) ** 25
        assert found.p_beta == pytest.approx(exact, rel=0.5)  # far beyond the 1/2000 of counting
        assert found.p_permutation == 1 / 2001


class TestConditional:
    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("orthonormal", [False, True])
    def test_a_variant_as_covariate(self, case, orthonormal):
        """The step in the coordinates of donors is a new model of all cells with the variant in X, twice over."""
        data, g = Data(case, seed=2), 3
        data.fit(data.model.design, data.model.basis, orthonormal)
        grouped = not case.startswith("bulk") and case != "cells_ols"
        step = Step(data.mapper(grouped=grouped), data.genes.take(slice(g, g + 1)), data.block(), None)
        for j in (4, 1):
            step = step.given(j, reml=True)
            fresh = Data(case, seed=2)
            fresh.x = np.column_stack([data.x, data.dosage[data.codes, j]])
            data.x = fresh.x
            fresh.fit(make_design(fresh.x), data.model.basis, orthonormal)
            windows = Windows(np.array([0]), np.array([0]), np.array([7]))
            found = next(step.mapper.cis(step.gene, windows, step.block))[0]
            expected = {name: value[g] for name, value in fresh.all_pairs(grouped=grouped).items()}
            if np.isinf(fresh.fits.gamma[g]):
                assert step.gene.gamma[0] > 1e6
                continue
            # Both γ̂ are found to 1e-10 of log γ; the two paths round differently.
            assert step.gene.gamma[0] == pytest.approx(fresh.genes.gamma[g], rel=1e-7, abs=1e-9)
            assert step.mapper.donors.dims == fresh.space.dims
            for name in ("beta", "standard_error", "df", "log_p_value"):
                np.testing.assert_allclose(getattr(found, name), expected[name], rtol=1e-6, atol=1e-8, err_msg=name)
            assert np.array_equal(found.status, expected["status"])

    def test_selection(self):
        """Three effects are found in the order of their strength, and a copy of a variant is not another signal."""
        rng = np.random.default_rng(1)
        data = Data("identity", d=60, variants=30, genes=1, seed=4, donor_covariate=False)
        data.dosage[:, 7] = data.dosage[:, 3]
        effects = np.zeros(30)
        effects[[3, 11, 20]] = 1.5, -1.0, 0.7
        donors = data.dosage @ effects + 0.5 * rng.standard_normal(60)
        data.y = donors[data.codes, None] + 0.5 * rng.standard_normal((data.n, 1))
        data.fit(data.model.design, data.model.basis)
        step = Step(data.mapper(variance="screen", grouped=True), data.genes, data.block(), None)
        signals = independent_signals(step, 0, lambda space, q: None, 1e-3, reml=True)
        assert [int(signal.pair.variant[0]) for signal in signals] == [3, 11, 20]
        assert all(signal.p_gene <= 1e-3 for signal in signals)
        assert len(independent_signals(step, 0, lambda space, q: None, 1e-3, reml=True, most=2)) == 2

    @pytest.mark.parametrize("case", ["bulk_ols", "bulk", "identity"])
    def test_permutations_at_every_step(self, case):
        data = Data(case, d=40, variants=15, genes=1, seed=6)
        data.y = data.y + 3 * data.dosage[data.codes, 2:3] + 2 * data.dosage[data.codes, 9:10]
        data.fit(data.model.design, data.model.basis, orthonormal=True)
        q = data.model.design.q[np.argsort(data.codes)] if case == "bulk_ols" else None

        def permute(space, q):
            return Permutations(space, 200, np.random.default_rng(0), q=q, spans_constant=True)

        step = Step(data.mapper(), data.genes, data.block(keep_dosage=q is not None), q)
        signals = independent_signals(step, 0, permute, 1e-3, reml=True)
        assert {int(signal.pair.variant[0]) for signal in signals} == {2, 9}


class TestCombination:
    def test_acat(self):
        rng = np.random.default_rng(0)
        p = rng.uniform(size=(50, 8))
        p[0], p[1, 0], p[2, 0] = 0.5, 1e-12, 1e-5
        exact = stats.cauchy.sf(stats.cauchy.isf(p).mean(axis=1))
        np.testing.assert_allclose(cauchy_combination(p, axis=1), exact, rtol=1e-9)
        np.testing.assert_allclose(cauchy_combination(p.T, axis=0), exact, rtol=1e-9)

    def test_tiny(self):
        p = np.array([1e-300, 0.3, 0.8])
        assert cauchy_combination(p) == pytest.approx(3e-300, rel=1e-9)  # one of three tests

    def test_one_is_guarded(self):
        expected = cauchy_combination(np.array([1e-6, 0.75, 0.4, 0.7]))
        # An effect of 0 that comes out as 1e-15 of its standard error has a p of 1 but for rounding: the same.
        for one in (1.0, 1 - 1e-16, 1 - 1e-14):
            assert cauchy_combination(np.array([1e-6, one, 0.4, 0.7])) == pytest.approx(expected)
        # Next to 1 nothing is changed: such a p is evidence for the null, and counts as what it is.
        near = np.array([1e-6, 1 - 1e-9, 0.4, 0.7])
        assert cauchy_combination(near) == pytest.approx(stats.cauchy.sf(stats.cauchy.isf(near).mean()), rel=1e-6)

    def test_missing_and_single(self):
        assert cauchy_combination(np.array([np.nan, 0.03])) == 0.03
        assert cauchy_combination(np.array([1.0])) == 1.0
        assert np.isnan(cauchy_combination(np.array([np.nan, np.nan])))

    def test_storey_at_the_ends(self):
        q, pi0 = storey_q_value(np.full(3, np.nan))
        assert (np.isnan(q).all(), pi0) == (True, 1.0)
        # No p-value is large, which says nothing about how many nulls there are: those of Benjamini and Hochberg.
        p = np.linspace(1e-4, 0.04, FEWEST)
        q, pi0 = storey_q_value(p)
        assert pi0 == 1.0
        np.testing.assert_allclose(q, stats.false_discovery_control(p), rtol=1e-12)

    def test_storey(self):
        rng = np.random.default_rng(0)
        p = np.concatenate([rng.uniform(size=700), rng.beta(0.1, 10, 300), [np.nan]])
        q, pi0 = storey_q_value(p)
        known = p[:-1]
        m = known.size
        lam = np.arange(1, 20) * 0.05
        each = np.array([(known >= cut).mean() / (1 - cut) for cut in lam])
        w = np.array([(known >= cut).sum() for cut in lam])
        error = w / (m**2 * (1 - lam) ** 2) * (1 - w / m) + (each - np.quantile(each, 0.1)) ** 2
        assert pi0 == pytest.approx(each[error.argmin()])
        assert 0.6 < pi0 < 0.8
        for j in (0, 750, 999):
            below = [pi0 * m * t / (known <= t).sum() for t in known if t >= known[j]]
            assert q[j] == pytest.approx(min(below))
        assert np.isnan(q[-1])

    def test_storey_of_few_is_bh(self):
        p = np.random.default_rng(0).uniform(size=FEWEST - 1) ** 3
        q, pi0 = storey_q_value(p)
        assert pi0 == 1
        np.testing.assert_allclose(q, stats.false_discovery_control(p), rtol=1e-12)

    def test_log_t(self):
        t, df = np.array([0.0, -2.0, 5.0, 80.0, 1e6]), np.array([3.0, 40.5, 7.0, 300.0, 2000.0])
        exact = np.log(2) + stats.t.logsf(np.abs(t), df)
        np.testing.assert_allclose(log_t_sf(t, df)[:3], exact[:3], rtol=1e-12, atol=1e-15)
        # log p = −420 and −10⁴: the log of the tail's leading term, checked by mpmath elsewhere (log_f_sf).
        assert np.isfinite(log_t_sf(t, df)).all()
        assert log_t_sf(t, df)[3] == pytest.approx(exact[3], rel=1e-9)


def test_blocks_join_and_slice():
    data = Data("bulk_ols")
    block = data.block(keep_dosage=True)
    again = VariantBlock.join([block.slice(0, 3), block.slice(3, block.size)])
    for name, value in vars(block).items():
        np.testing.assert_array_equal(getattr(again, name), value)
