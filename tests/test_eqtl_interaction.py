"""Genotype × context: the model against dense n × n formulas on expanded cells, and its size."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from scipy import optimize, stats

from annlmm.model.design import make_design
from annlmm.model.eqtl_interaction import make_block, place_context
from annlmm.model.eqtl_interaction_cis import InteractionMapper, fit_context
from annlmm.model.eqtl_interaction_fit import evaluate
from annlmm.model.eqtl_interaction_sums import ContextBasis, make_context_reduction
from annlmm.model.eqtl_variants import VariantBlock

CASES = ("identity", "grm", "cell_covariate", "grm_cell_covariate", "constant", "constant_grm", "intercept_only", "ols")


class Data:
    """Genes on cells with a context; K's n × n and variants expanded for the oracle."""

    def __init__(self, case, seed=0, d=14, genes=3, variants=4, slope=0.5, effect=0.4):
        rng = np.random.default_rng(seed)
        self.case, self.d = case, d
        counts = rng.integers(3, 9, d)
        self.codes = rng.permutation(np.repeat(np.arange(d), counts))
        n = self.n = self.codes.size
        related = oracle.random_kernel(rng, d) if "grm" in case else None
        context = rng.standard_normal(n) + rng.standard_normal(d)[self.codes]
        mean = np.bincount(self.codes, context) / counts
        self.constant = case.startswith("constant")
        self.context = mean if self.constant else None
        deviation = np.zeros(n) if self.constant else context - mean[self.codes]
        columns = [np.ones(n), rng.standard_normal(d)[self.codes], mean[self.codes]]
        if not self.constant:
            columns.append(deviation)
        if "cell_covariate" in case:
            columns += [rng.standard_normal(n) + 0.5 * deviation, rng.standard_normal(n)]
        self.x = np.column_stack(columns)
        self.dosage = rng.binomial(2, 0.4, (variants, d)).astype(float)
        self.dosage[:, 0], self.dosage[:, 1] = 0, 2
        root = np.eye(d) if related is None else np.linalg.cholesky(related)
        draw = rng.standard_normal((4, d, genes))
        self.product = (mean[self.codes] if self.constant else deviation) * self.dosage[:, self.codes]
        self.y = 20 + rng.standard_normal((n, genes)) + (root @ draw[0])[self.codes]
        self.y += np.sqrt(slope) * (root @ draw[1])[self.codes] * deviation[:, None]
        self.y += effect * (self.dosage[0, self.codes] + self.product[0])[:, None] * np.arange(genes)
        z = (self.codes[:, None] == np.arange(d)).astype(float)
        k = np.eye(d) if related is None else related
        self.kernels = []
        if case != "ols":
            self.kernels.append(z @ k @ z.T)
            if not self.constant and case != "intercept_only":
                self.kernels.append((z * deviation[:, None]) @ k @ (z * deviation[:, None]).T)
        self.related, self.deviation, self.counts = related, deviation, counts

    def place(self, slopes=None):
        design = make_design(self.x)
        contexts = self.deviation[:, None][:, : 0 if self.constant else 1]
        basis = ContextBasis(self.codes, contexts)
        reduction, space = make_context_reduction(design, basis)
        self.statistics, unsettled = reduction.finisher(reduction.rows.sums(self.y, self.y[0]))
        assert not unsettled.any()
        main = make_block(basis.counts, self.related)
        t, u = space.angles.t, self.statistics.u
        slope = None if self.constant else make_block(basis.spreads[0], self.related)
        if slopes is None:
            slopes = "none" if self.case == "intercept_only" else "random"
        return place_context(
            main, slope, self.context, np.split(t, len(t) // self.d), np.split(u, len(u) // self.d), self.statistics.norm, self.n,
            intercept=self.case != "ols", slopes=slopes,
        )  # fmt: skip

    @property
    def block(self):
        m = len(self.dosage)
        centred = self.dosage - self.dosage.mean(axis=1)[:, None]
        return VariantBlock(np.arange(m), centred[:, :0], np.ones(m), np.full(m, 0.4), np.full(m, self.d), centred)

    def test(self, g, fits, **options):
        mapper = InteractionMapper(
            **({"satterthwaite": self.case != "ols", "variance": "null", "threshold": 1e-4} | options)
        )
        return mapper.test(fits, g, g, 0, 1.0, self.block)

    def designs(self, j):
        """X + g and X + g + g × c."""
        one = np.column_stack([self.x, self.dosage[j, self.codes]])
        return one, np.column_stack([one, self.product[j]])


def covariance(data, gamma):
    return np.eye(data.n) + sum((g * k for g, k in zip(gamma, data.kernels, strict=True)), np.zeros((data.n, data.n)))


def dense_fit(y, x, v):
    """β, τ²A⁻¹, RSS at a given V (up to τ²), and −2ℓ of the restricted likelihood without its constants."""
    inverse = np.linalg.inv(v)
    a = np.linalg.inv(x.T @ inverse @ x)
    beta = a @ x.T @ inverse @ y
    e = y - x @ beta
    rss, df = e @ inverse @ e, len(y) - x.shape[1]
    value = df * np.log(rss) + np.linalg.slogdet(v)[1] - np.linalg.slogdet(a)[1]
    return beta, a, rss, value


def brute_force(y, x, data):
    """The maximum of the restricted likelihood over γ ≥ 0 by many starts of L-BFGS-B in √γ."""
    best = None
    for start in np.array(np.meshgrid(*[[0.05, 0.7, 2.0]] * len(data.kernels))).reshape(len(data.kernels), -1).T:
        found = optimize.minimize(
            lambda root: dense_fit(y, x, covariance(data, root**2))[3],
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000},
        )
        if best is None or found.fun < best.fun:
            best = found
    return best.x**2, best.fun


def dense_satterthwaite(y, x, data, gamma, contrasts, *, expected):
    """ν of each contrast at γ: 3 × 3 information by n × n products."""
    v_inverse = np.linalg.inv(covariance(data, gamma))
    a = np.linalg.inv(x.T @ v_inverse @ x)
    p = v_inverse - v_inverse @ x @ a @ x.T @ v_inverse
    parts = [*data.kernels, np.eye(data.n)]
    tau_sq = y @ p @ y / (data.n - x.shape[1])
    information = 0.5 * np.array([[np.trace(p @ k @ p @ other) for other in parts] for k in parts])
    if not expected:
        information = np.array([[y @ p @ k @ p @ o @ p @ y for o in parts] for k in parts]) / tau_sq - information
    out = []
    for weights in contrasts:
        u = v_inverse @ x @ a @ weights
        gradient = np.array([u @ k @ u for k in parts])
        out.append(2 * (weights @ a @ weights) ** 2 / (gradient @ np.linalg.solve(information, gradient)))
    return np.array(out)


@pytest.mark.parametrize("case", CASES)
class TestAgainstDense:
    def test_likelihood_and_its_derivatives(self, case):
        """At given variances; derivatives against differences of the dense likelihood."""
        data = Data(case)
        placed = data.place()
        strata = placed.strata
        parts = len(data.kernels)
        assert len(strata.kappa) == parts
        gamma = np.array([0.6, 0.3])[:parts]
        offsets = []
        for g in range(3):
            y, rest = placed.genes.take(g)
            gradient, hessian, expected = np.zeros(parts), np.zeros((parts, parts)), np.zeros((parts, parts))

            def value(at, y=y, rest=rest, out=(gradient, hessian, expected)):
                return evaluate(y, strata.t, rest, strata.kappa, at, float(strata.df_residual), *out)

            dense = dense_fit(data.y[:, g], data.x, covariance(data, gamma))[3]
            offsets.append(dense - value(gamma))
            kept = gradient.copy(), hessian.copy()
            for c in range(parts):
                step = 1e-5 * np.eye(parts)[c]
                up, low = value(gamma + step), value(gamma - step)
                # Central differences of f (about 100, 1e-14 of it rounding): error 1e-10 + rounding 1e-12/1e-5.
                assert kept[0][c] == pytest.approx((up - low) / 2e-5, rel=1e-6, abs=1e-6)
                value(gamma + step)
                upper = gradient.copy()
                value(gamma - step)
                np.testing.assert_allclose(kept[1][c], (upper - gradient) / 2e-5, rtol=1e-6, atol=1e-6)
        # log|XᵀX| is all that differs: X is orthonormal here.
        np.testing.assert_allclose(offsets, np.linalg.slogdet(data.x.T @ data.x)[1], rtol=1e-9)

    def test_null(self, case):
        """γ̂ by REML: no lower a likelihood than brute force, and its estimates."""
        data = Data(case)
        if not data.kernels:
            return
        fits = fit_context(data.place(), np.ones(3, dtype=bool))
        assert fits.converged.all()
        for g in range(3):
            gamma, best = brute_force(data.y[:, g], data.x, data)
            value = dense_fit(data.y[:, g], data.x, covariance(data, fits.gamma[g]))[3]
            # Both stop within about 1e-12 of the optimum's value, rounding of n × n inverses included.
            assert value <= best + 1e-10
            # f is flat to second order: what brute force knows of γ is about √1e-12.
            np.testing.assert_allclose(fits.gamma[g], gamma, rtol=1e-5, atol=1e-5)

    def test_at_the_null(self, case):
        """Additive, interaction and joint at the γ of the null: estimates, standard errors and expected degrees of freedom."""
        data = Data(case, effect=0.05)
        fits = fit_context(data.place(), np.ones(3, dtype=bool))
        some = 0
        for g in range(3):
            found = data.test(g, fits)
            plain = data.test(g, fits, satterthwaite=False)
            gamma = fits.gamma[g]
            v = covariance(data, gamma)
            y = data.y[:, g]
            rss_0 = dense_fit(y, data.x, v)[2]
            for j in range(4):
                one, two = data.designs(j)
                p = data.x.shape[1]
                beta_1, a_1, rss_1, _ = dense_fit(y, one, v)
                beta_2, a_2, rss_2, _ = dense_fit(y, two, v)
                # The bound that is asked for; what is seen is 1e-11.
                for name, value in {
                    "beta": beta_1[-1],
                    "standard_error": np.sqrt(a_1[-1, -1] * rss_1 / (data.n - p - 1)),
                    "df": data.n - p - 1,
                    "interaction_beta": beta_2[-1],
                    "interaction_standard_error": np.sqrt(a_2[-1, -1] * rss_2 / (data.n - p - 2)),
                    "interaction_df": data.n - p - 2,
                    "joint_statistic": (rss_0 - rss_2) / 2 / (rss_2 / (data.n - p - 2)),
                    "joint_df": data.n - p - 2,
                }.items():
                    assert getattr(plain, name)[j] == pytest.approx(value, rel=1e-8), name
                f = plain.joint_statistic[j]
                assert np.exp(plain.joint_log_p_value[j]) == pytest.approx(stats.f.sf(f, 2, data.n - p - 2), rel=1e-8)
                if not data.kernels:
                    continue
                nu_1 = dense_satterthwaite(y, one, data, gamma, [np.eye(p + 1)[-1]], expected=True)[0]
                # g alone is the contrast of the model with both that is not correlated with the product.
                alone = np.eye(p + 2)[-2] - np.eye(p + 2)[-1] * a_2[-2, -1] / a_2[-1, -1]
                nu_2 = dense_satterthwaite(y, two, data, gamma, [alone, np.eye(p + 2)[-1]], expected=True)
                t = []
                for nu, beta, a, rss, df, name in (
                    (nu_1, beta_1[-1], a_1[-1, -1], rss_0, data.n - p, ""),
                    (nu_2[1], beta_2[-1], a_2[-1, -1], rss_1, data.n - p - 1, "interaction_"),
                    (nu_2[0], beta_1[-1], a_1[-1, -1], rss_0, data.n - p, None),
                ):
                    share = beta**2 / a / rss * df / (1 + nu)
                    t.append(np.sqrt(nu * share / (1 - share)) if share < 1 else np.nan)
                    if name is None or not share < 1:
                        continue
                    some += 1
                    # A ratio of differences of sums over n² entries leaves eight digits.
                    assert getattr(found, name + "df")[j] == pytest.approx(nu, rel=1e-7)
                    assert abs(getattr(found, name + "statistic")[j]) == pytest.approx(t[-1], rel=1e-7)
                    p_value = stats.beta.sf(share, 0.5, nu / 2)
                    assert np.exp(getattr(found, name + "log_p_value")[j]) == pytest.approx(p_value, rel=1e-6)
                if np.isfinite(t).all():
                    assert found.joint_statistic[j] == pytest.approx((t[1] ** 2 + t[2] ** 2) / 2, rel=1e-7)
        assert some > 10 or not data.kernels

    def test_refit(self, case):
        """γ estimated again: everything by brute force."""
        data = Data(case, variants=2)
        if not data.kernels:
            return
        fits = fit_context(data.place(), np.ones(3, dtype=bool))
        for g in range(3):
            y = data.y[:, g]
            found = data.test(g, fits, variance="refit")
            for j in range(2):
                one, two = data.designs(j)
                p = data.x.shape[1]
                for x, contrasts in ((one, 1), (two, 2)):
                    gamma, _ = brute_force(y, x, data)
                    gamma[gamma < 1e-9] = 0
                    beta, a, rss, _ = dense_fit(y, x, covariance(data, gamma))
                    tau_sq = rss / (data.n - x.shape[1])
                    name = "" if contrasts == 1 else "interaction_"
                    # γ̂ of brute force is good to 1e-6 and everything here smooth in it.
                    assert getattr(found, name + "beta")[j] == pytest.approx(beta[-1], rel=1e-5)
                    se = np.sqrt(a[-1, -1] * tau_sq)
                    assert getattr(found, name + "standard_error")[j] == pytest.approx(se, rel=1e-5)
                    last = np.eye(x.shape[1])[-1]
                    nu = dense_satterthwaite(y, x, data, gamma, [last], expected=bool((gamma == 0).any()))[0]
                    nu = min(nu, data.n - x.shape[1])
                    assert getattr(found, name + "df")[j] == pytest.approx(nu, rel=1e-4)
                # F of the model with both, from its covariance.
                part = np.ix_([p, p + 1], [p, p + 1])
                f = beta[-2:] @ np.linalg.solve(a[part] * tau_sq, beta[-2:]) / 2
                assert found.joint_statistic[j] == pytest.approx(f, rel=1e-5)
                p_value = stats.f.sf(found.joint_statistic[j], 2, found.joint_df[j])
                assert np.exp(found.joint_log_p_value[j]) == pytest.approx(p_value, rel=1e-8)


@pytest.mark.parametrize("case", ["identity", "grm_cell_covariate"])
def test_two_stages(case):
    """Slopes by least squares on dummies of donors, then REML and generalised least squares of them on the genotype."""
    data = Data(case, d=20)
    placed = data.place("two-stage")
    fits = fit_context(placed, np.ones(3, dtype=bool))
    dummies = (data.codes[:, None] == np.arange(data.d)).astype(float)
    cells = np.column_stack([dummies, dummies * data.deviation[:, None], data.x[:, 4:]])
    spread = np.bincount(data.codes, data.deviation**2)
    related = np.eye(data.d) if data.related is None else data.related
    for g in range(3):
        slopes = np.linalg.lstsq(cells, data.y[:, g], rcond=None)[0][data.d : 2 * data.d]
        null, every = data.test(g, fits), data.test(g, fits, variance="refit")
        for found, refit in ((null, False), (every, True)):
            for j in range(4):
                x = np.column_stack([np.ones(data.d), data.dosage[j]])

                def value(log_gamma, x):
                    return dense_fit(slopes, x, np.exp(log_gamma) * related + np.diag(1 / spread))[3]  # noqa: B023

                fitted = x if refit else x[:, :1]
                grid = np.linspace(-12, 18, 300)
                start = grid[np.argmin([value(t, fitted) for t in grid])]
                best = optimize.minimize_scalar(
                    lambda t: value(t, fitted),  # noqa: B023
                    bounds=(start - 0.2, start + 0.2),
                    method="bounded",
                    options={"xatol": 1e-10},
                ).x
                beta, a, rss, _ = dense_fit(slopes, x, np.exp(best) * related + np.diag(1 / spread))
                t = beta[1] / np.sqrt(a[1, 1] * rss / (data.d - 2))
                # γ̂ is known to about 1e-6 where f is flat to second order.
                assert found.interaction_beta[j] == pytest.approx(beta[1], rel=1e-5)
                assert found.interaction_statistic[j] == pytest.approx(t, rel=1e-5)
                assert found.interaction_df[j] == data.d - 2
                p_value = 2 * stats.t.sf(abs(t), data.d - 2)
                assert np.exp(found.interaction_log_p_value[j]) == pytest.approx(p_value, rel=1e-4)
                f = (found.statistic[j] ** 2 + found.interaction_statistic[j] ** 2) / 2
                assert found.joint_statistic[j] == pytest.approx(f, rel=1e-12)


def test_two_stages_know_products_with_covariates_of_donors():
    """A covariate of donors × context acts on slopes, hence is in the second stage."""
    data = Data("identity", d=20)
    data.x = np.column_stack([data.x, data.x[:, 1] * data.deviation])
    placed = data.place("two-stage")
    assert placed.slopes.strata.t.shape == (20, 2)
    plain = Data("identity", d=20)
    assert plain.place("two-stage").slopes.strata.t.shape == (20, 1)


def simulated(seed, slope, slopes, genes=200, variants=50, d=60, cells=60):
    """p-values of null variants against genes whose donors differ in their slopes, by model."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(d), np.maximum(rng.poisson(cells * rng.gamma(4, 0.25, d)), 3))
    counts = np.bincount(codes)
    context = rng.standard_normal(codes.size)
    deviation = context - (np.bincount(codes, context) / counts)[codes]
    deviation /= np.sqrt(np.mean(deviation**2))
    y = rng.standard_normal((codes.size, genes)) + np.sqrt(0.2) * rng.standard_normal((d, genes))[codes]
    y += np.sqrt(slope) * rng.standard_normal((d, genes))[codes] * deviation[:, None]
    design = make_design(np.column_stack([np.ones(codes.size), deviation]))
    basis = ContextBasis(codes, deviation[:, None])
    reduction, space = make_context_reduction(design, basis)
    found = reduction.finisher(reduction.rows.sums(y))[0]
    dosage = rng.binomial(2, rng.uniform(0.2, 0.5, (variants, 1)), (variants, d)).astype(float)
    dosage -= dosage.mean(axis=1)[:, None]
    block = VariantBlock(
        np.arange(variants), dosage[:, :0], np.ones(variants), np.full(variants, 0.3), np.full(variants, d), dosage
    )
    placed = place_context(
        make_block(basis.counts, None), make_block(basis.spreads[0], None), None, np.split(space.angles.t, 2),
        np.split(found.u, 2), found.norm, codes.size, intercept=True, slopes=slopes,
    )  # fmt: skip
    fits = fit_context(placed, np.ones(genes, dtype=bool))
    mapper = InteractionMapper(True, "screen", 1e-3)
    tested = [mapper.test(fits, g, g, 0, 1.0, block) for g in range(genes)]
    return {
        name: np.exp(np.concatenate([getattr(pairs, name) for pairs in tested]))
        for name in ("log_p_value", "interaction_log_p_value", "joint_log_p_value")
    }


@pytest.mark.parametrize("slopes", ["random", "two-stage", "none"])
def test_size(slopes):
    """A slope variance of 1 % of τ²: nominal by default and in two stages, far too many with a donor intercept alone."""
    every = [simulated(seed, 0.01, slopes) for seed in range(2)]
    for name in every[0]:
        p = np.concatenate([found[name] for found in every])
        for level in (0.05, 0.01, 1e-3):
            size, error = np.mean(p < level), np.sqrt(level * (1 - level) / p.size)
            if slopes != "none" or name == "log_p_value":
                # 20,000 tests; those of one gene share its γ̂, hence four standard errors and not three, and 20 % for what is
                # approximate about the degrees of freedom.
                assert size < level + 4 * error + 0.2 * level, (name, level, size / level)
                assert size > level - 4 * error - 0.3 * level, (name, level, size / level)
            elif name == "interaction_log_p_value":
                assert size > {0.05: 2, 0.01: 3, 1e-3: 6}[level] * level
