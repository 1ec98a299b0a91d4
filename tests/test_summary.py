"""`summary()` and `repr` of fitted models: numbers against independent ones, text as it reads; `fit_null(variance_test=False)`."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from helpers import assert_same, cohort, messages
from scipy import stats

import annlmm as al

TESTED = ("h_sq_ci_low", "h_sq_ci_high", "h_sq_p_value", "h_sq_neg_log10_p_value", "h_sq_p_value_mixture")


def small(seed=3, n=30, gamma=1.5):
    """A model of full rank, with its y, X and K."""
    rng = np.random.default_rng(seed)
    x = oracle.design(rng, n, 3)
    z = rng.standard_normal((n, 2 * n)) / 2
    y = oracle.response(rng, x, z @ z.T, gamma)
    model, p = al.LinearMixedModel.from_kinship(y, x, z @ z.T)
    return model, p, y, x, z @ z.T


@pytest.fixture(scope="module")
def grouped():
    adata = cohort()
    al.pp.kernel_group(adata, "donor", key_added="donors")
    al.tl.fit_null(adata, "y", covariates="~ age + C(sex)", kernel="donors", rng=4)
    return adata


class TestTables:
    def test_fixed_effects_are_those_that_were_stored(self, grouped):
        table, stored = al.get.null_model(grouped).summary().fixed_effects, grouped.uns["lmm"]["beta"]
        assert list(table.index) == list(stored["term"])
        for name in ("estimate", "standard_error", "df", "statistic", "p_value"):
            # γ is found again from rotated data: its optimum is known to the root of machine precision.
            np.testing.assert_allclose(table[name], stored[name], rtol=1e-6, err_msg=name)

    def test_intervals_are_those_of_t(self, grouped):
        table = al.get.null_model(grouped).summary().fixed_effects
        low, high = stats.t.interval(0.95, table["df"], loc=table["estimate"], scale=table["standard_error"])
        np.testing.assert_allclose(table["ci_low"], low, rtol=1e-10)
        np.testing.assert_allclose(table["ci_high"], high, rtol=1e-10)

    def test_the_variance_test_is_the_one_that_was_stored(self, grouped):
        """Not simulated again: fit_null's seed is not the default, and its digits are kept."""
        summary, entry = al.get.null_model(grouped).summary(), grouped.uns["lmm"]
        row = summary.variance_components.loc["h_sq"]
        assert row["ci_low"] == entry["h_sq_ci_low"]
        assert row["ci_high"] == entry["h_sq_ci_high"]
        # Through a logarithm and back.
        assert summary.h_sq_p_value == pytest.approx(entry["h_sq_p_value"], rel=1e-12)
        assert row["standard_error"] == pytest.approx(entry["h_sq_standard_error"], rel=1e-6)

    def test_standard_errors_of_variances_are_the_inverse_hessian(self):
        model, _, y, x, k = small()
        model.fit()
        theta = np.array([model.sigma_sq, model.tau_sq])
        q = np.linalg.qr(x, mode="complete")[0][:, x.shape[1] :]

        def log_likelihood(sigma_sq, tau_sq):
            return stats.multivariate_normal.logpdf(q.T @ y, cov=q.T @ (sigma_sq * k + tau_sq * np.eye(y.size)) @ q)

        # Fourth root of machine precision, the best step of a second difference, whose error is its square: 1e-7 of the curvature,
        # and a hundred times that where the two components are correlated.
        step = 2e-4 * theta
        hessian = np.empty((2, 2))
        for i in range(2):
            for j in range(2):
                value = 0.0
                for a in (-1, 1):
                    for b in (-1, 1):
                        at = theta + a * step * (np.arange(2) == i) + b * step * (np.arange(2) == j)
                        value += a * b * log_likelihood(*at)
                hessian[i, j] = value / (4 * step[i] * step[j])
        expected = np.sqrt(np.diagonal(np.linalg.inv(-hessian)))
        table = model.summary(variance_test=False).variance_components
        np.testing.assert_allclose(table.loc[["sigma_sq", "tau_sq"], "standard_error"], expected, rtol=1e-4)

    def test_they_agree_with_that_of_h_sq(self):
        """By the delta method: the curvature of a profile is the inverse of the information's inverse."""
        model, *_ = small()
        model.fit()
        summary = model.summary(variance_test=False)
        from annlmm.model.satterthwaite import variance_information

        observed = variance_information(model._data.profile, model.sigma_sq, model.tau_sq, at_boundary=False).observed
        gradient = np.array([model.tau_sq, -model.sigma_sq]) / (model.sigma_sq + model.tau_sq) ** 2
        by_delta = np.sqrt(gradient @ np.linalg.solve(observed, gradient))
        # The derivative at the optimum is 1e-8 rather than 0.
        assert by_delta == pytest.approx(summary.variance_components.loc["h_sq", "standard_error"], rel=1e-6)

    def test_a_given_gamma(self):
        """Only the scale is estimated: n − p degrees of freedom, and a χ² for it."""
        model, _, y, x, k = small()
        model.fit(log_gamma=0.3)
        summary = model.summary()
        assert (summary.fixed_effects["df"] == 27).all()
        variances = summary.variance_components
        np.testing.assert_allclose(
            variances["standard_error"][:2], variances["estimate"][:2] * np.sqrt(2 / 27), rtol=1e-12
        )
        assert np.isnan(variances.loc["h_sq", ["standard_error", "ci_low", "ci_high"]].to_numpy(float)).all()
        assert np.isnan(summary.h_sq_p_value)
        v = np.exp(0.3) * k + np.eye(30)
        beta = np.linalg.solve(x.T @ np.linalg.solve(v, x), x.T @ np.linalg.solve(v, y))
        # Condition numbers of K and X, each below 1e4, times machine precision.
        np.testing.assert_allclose(summary.fixed_effects["estimate"], beta, rtol=1e-8)

    def test_a_boundary_has_no_standard_errors(self):
        rng = np.random.default_rng(11)
        z = rng.standard_normal((40, 5))
        x = np.ones((40, 1))
        # orthogonal to Z: less variance along K than anywhere else
        y = rng.standard_normal(40)
        y -= z @ np.linalg.lstsq(z, y, rcond=None)[0]
        model, _ = al.LinearMixedModel.from_random_effects(y, x, z)
        model.fit()
        assert model.status == "boundary"
        summary = model.summary()
        assert summary.variance_components["standard_error"].isna().all()
        assert summary.variance_components.loc["h_sq", "ci_low"] == 0.0
        assert summary.h_sq_p_value == 1.0
        assert "nan" not in str(summary).lower()

    def test_bounds_have_no_variance_test(self):
        model, *_ = small()
        model.fit(bounds=(-1.0, 0.0))
        assert np.isnan(model.summary().h_sq_p_value)
        assert "REML, γ within bounds" in str(model.summary())

    def test_it_is_simulated_once(self, monkeypatch):
        model, *_ = small()
        model.fit()
        first = model.summary()
        monkeypatch.setattr("annlmm.model.summary.make_variance_null", None)
        assert str(model.summary()) == str(first) == repr(model)
        model.fit()
        assert "σ² = 0" not in repr(model)

    def test_an_unfitted_model_has_none(self):
        with pytest.raises(ValueError, match=r"the null model is not fitted; call fit\(\) first"):
            small()[0].summary()


class TestText:
    def test_it_reads_like_a_table(self, grouped):
        text = repr(al.get.null_model(grouped))
        entry = grouped.uns["lmm"]
        lines = text.split("\n")
        assert lines[0].strip() == "Linear mixed model, y ~ N(Xβ, σ²K + τ²I)"
        assert lines[1] == 82 * "="
        assert all(len(line) <= 82 and line == line.rstrip() for line in lines)
        assert lines[2].split() == ["Response:", "y", "Observations:", "40"]
        assert lines[3].split() == ["Kernel:", "donors,", "rank", "8", "Fixed", "effects:", "3"]
        assert lines[4].split()[:2] == ["Method:", "REML"]
        assert lines[4].endswith(f"{entry['log_likelihood']:.2f} (restricted)")
        assert lines[5].split() == ["Status:", entry["status"], "AIC:", f"{entry['aic']:.2f}"]
        assert lines[7].split() == ["Fixed", "effects", "estimate", "std.", "error", "df", "P>|t|", "[0.025", "0.975]"]
        age = entry["beta"].loc["age"]
        assert lines[10].split()[:5] == [
            "age",
            f"{age['estimate']:.4g}",
            f"{age['standard_error']:.4g}",
            f"{age['df']:.1f}",
            f"{age['p_value']:.3g}",
        ]
        assert lines[15].startswith("σ² (donors) ")
        assert lines[17].split() == [
            "h²",
            "=",
            "σ²/(σ²+τ²)",
            *(f"{entry[f'h_sq{name}']:.4g}" for name in ("", "_standard_error", "_ci_low", "_ci_high")),
        ]
        assert lines[19].startswith(f"σ² = 0: p = {entry['h_sq_p_value']:.3g} (exact restricted")
        assert len(lines) == 21

    def test_html(self, grouped):
        html = al.get.null_model(grouped)._repr_html_()
        assert html.count("<table") == html.count("</table>") == 3
        assert "C(sex)[T.m]" in html
        assert "P&gt;|t|" in html
        assert small()[0]._repr_html_() is None

    def test_names_without_anndata(self):
        model, *_ = small()
        model.fit()
        text = str(model.summary(variance_test=False))
        for word in ("x0", "x2", "σ² (K)", "K, rank 30"):
            assert word in text

    def test_long_names_widen_the_table(self):
        adata = cohort()
        adata.obs["a_covariate_with_a_name_that_is_long"] = adata.obs["age"]
        al.pp.kernel_group(adata, "donor")
        al.tl.fit_null(adata, "y", covariates=["a_covariate_with_a_name_that_is_long"], gamma=1.0)
        lines = str(al.get.null_model(adata)).split("\n")
        # what stands under "estimate" ends where it does
        assert len({line.index("estimate") for line in lines if "estimate" in line}) == 1
        assert max(map(len, lines)) == len(lines[1])


class TestWithoutVarianceTest:
    def test_only_the_simulated_fields_are_missing(self):
        adata = cohort()
        al.pp.kernel_group(adata, "donor")
        al.tl.fit_null(adata, "y", covariates="age", rng=4)
        with_test, obs = adata.uns["lmm"], adata.obs.copy()
        al.tl.fit_null(adata, "y", covariates="age", variance_test=False, rng=4)
        without = adata.uns["lmm"]
        assert all(np.isnan(without[name]) for name in TESTED)
        assert not any(np.isnan(with_test[name]) for name in TESTED)
        for name in with_test:
            if name not in TESTED:
                assert_same(without[name], with_test[name], name)
        assert_same(adata.obs, obs)
        # simulated later, by the seed of the fit
        summary = al.get.null_model(adata).summary()
        assert summary.h_sq_p_value == pytest.approx(with_test["h_sq_p_value"], rel=1e-6)
        assert summary.variance_components.loc["h_sq", "ci_high"] == pytest.approx(with_test["h_sq_ci_high"], rel=1e-4)

    def test_nothing_is_simulated(self, monkeypatch):
        monkeypatch.setattr("annlmm.model.null.make_variance_null", None)
        adata = cohort()
        al.pp.kernel_group(adata, "donor")
        al.tl.fit_null(adata, ["y", "y2", "y3"], variance_test=False)
        assert np.isnan(adata.uns["lmm"]["fits"]["h_sq_p_value"]).all()
        assert "σ² = 0" not in repr(al.get.null_model(adata, phenotype="y2"))

    @pytest.mark.parametrize("value", [1, None, "no"])
    def test_it_is_a_flag(self, value):
        with pytest.raises(TypeError, match="variance_test: must be True or False, received"):
            al.tl.fit_null(cohort(), "y", kernel=None, variance_test=value)

    def test_what_comes_after_works(self):
        adata = cohort()
        al.pp.kernel_grm(adata)
        al.tl.fit_null(adata, "y", variance_test=False)
        al.tl.associate(adata)
        al.tl.fit_null(adata, "y", key_added="full")
        al.tl.associate(adata, "full")
        for name in ("beta", "p_value"):
            np.testing.assert_array_equal(adata.var[f"lmm_{name}"], adata.var[f"full_{name}"])
        with messages() as seen:
            al.tl.fit_null(adata, "y", variance_test=False)
        assert seen[0].startswith("INFO fit_null: y on 40 of 40 observations")
