"""The classic tables of lme4 and nlme: (1 | group) is a group kernel, σ² the variance between groups.

R's REML criterion is −2ℓ without ½log|XᵀX|: −2ℓ_R = −2ℓ + log|XᵀX|. Sources: the examples of lme4, MixedModels.jl and nlme
(Pinheiro & Bates 2000), degrees of freedom from lmerTest where it is said.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.optimize import minimize_scalar

import annlmm as al

pytestmark = pytest.mark.realdata

# name: response, fixed effect, groups, levels of the groups
MODELS = {
    "dyestuff": ("Yield", None, "Batch", 6),
    "dyestuff2": ("Yield", None, "Batch", 6),
    "rail": ("travel", None, "Rail", 6),
    "ergostool": ("effort", "X_contrasts", "Subject", 9),
    "machines": ("score", "Machine", "Worker", 6),
    "orthodont": ("distance", "age", "Subject", 11),
    "sleepstudy": ("Reaction", "Days", "Subject", 18),
    "insteval": ("y", "service", "d", 1128),
}
Fit = Callable[..., AnnData]


def read(folder: Path, name: str) -> AnnData:
    table = pd.read_csv(next(folder.glob(f"{name}.csv*")))
    if name == "orthodont":
        table = table[table["Sex"] == "Female"]
    adata = AnnData(obs=table.set_axis(table.index.astype(str), axis=0))
    if name == "ergostool":  # R's contrasts for the ordered types T1 to T4, as in nlme's print
        contrasts = np.array([[-1, -1, -1], [1, -1, -1], [0, 2, -1], [0, 0, 3]], dtype=np.float64)
        levels = adata.obs["Type"].str[1:].astype(int).to_numpy() - 1
        adata.obsm["X_contrasts"] = contrasts[levels]
    return adata


@pytest.fixture(scope="module")
def fit(realdata_dir: Path) -> Fit:
    """fit(name, **arguments of fit_null): the data set with its null model, made once."""
    done: dict[Any, AnnData] = {}

    def fit(name: str, **arguments: Any) -> AnnData:
        key = name, *sorted(arguments.items())
        if key not in done:
            response, fixed, groups, n_groups = MODELS[name]
            adata = read(realdata_dir / "classic_lme", name)
            al.pp.kernel_group(adata, groups)
            assert len(adata.uns["kernel"]["groups"]) == n_groups
            al.tl.fit_null(adata, response, covariates=fixed, **arguments)
            done[key] = adata
        return done[key]

    return fit


def r_criterion(adata: AnnData, *, reml: bool = True) -> float:
    """−2ℓ in R's convention."""
    x = adata.obsm["lmm_design"]
    return -2 * adata.uns["lmm"]["log_likelihood"] + (np.linalg.slogdet(x.T @ x)[1] if reml else 0.0)


def last_digit(value: float, decimals: int) -> object:
    """As printed: half a unit of the last decimal."""
    return pytest.approx(value, rel=0, abs=0.51 * 10.0**-decimals)


# ------------------------------------------------------------------------------------------------- criterion by criterion


@pytest.mark.parametrize(
    ("name", "arguments", "criterion"),
    [
        ("dyestuff", {}, 319.654276842342),
        ("dyestuff", {"gamma": 1.0}, 319.792389042002),
        ("dyestuff", {"gamma": 0.0}, 326.023232155879),
        ("dyestuff", {"reml": False}, 327.32705988112673),
        ("dyestuff2", {"reml": False}, 162.87303665382575),
        ("sleepstudy", {}, 1786.4650854),
        ("sleepstudy", {"reml": False}, 1794.0786430),
    ],
)
def test_criterion(fit, name, arguments, criterion):
    # Printed to 10 decimals or more of which float64 carries 12 digits; 7 decimals for sleepstudy.
    tolerance = 5.1e-8 if name == "sleepstudy" else 1e-10
    assert r_criterion(fit(name, **arguments), reml=arguments.get("reml", True)) == pytest.approx(
        criterion, rel=0, abs=tolerance
    )


@pytest.mark.parametrize(
    ("name", "reml", "log_likelihood", "decimals"),
    [
        ("rail", True, -61.089, 3),
        ("rail", False, -64.28, 2),
        ("ergostool", True, -63.743, 3),
        ("machines", True, -143.44, 2),
        ("orthodont", True, -70.609, 3),
        ("orthodont", False, -69.015, 3),
    ],
)
def test_log_likelihood(fit, name, reml, log_likelihood, decimals):
    assert -r_criterion(fit(name, reml=reml), reml=reml) / 2 == last_digit(log_likelihood, decimals)


@pytest.mark.parametrize(
    ("name", "reml", "groups", "residual", "decimals"),
    [
        ("rail", True, 24.805, 4.0208, (3, 4)),
        ("rail", False, 22.624, 4.0208, (3, 4)),
        ("ergostool", True, 1.3325, 1.1003, (4, 4)),
        ("machines", True, 5.1466, 3.1616, (4, 4)),
        ("orthodont", True, 2.0685, 0.78003, (4, 5)),
    ],
)
def test_standard_deviations(fit, name, reml, groups, residual, decimals):
    null = fit(name, reml=reml).uns["lmm"]
    assert np.sqrt(null["sigma_sq"]) == last_digit(groups, decimals[0])
    assert np.sqrt(null["tau_sq"]) == last_digit(residual, decimals[1])
    assert null["status"] == "ok"


@pytest.mark.parametrize(
    ("name", "reml", "estimates", "standard_errors", "decimals"),
    [
        ("dyestuff2", False, [5.6656], [0.6669857396443264], (4, 12)),
        ("rail", True, [66.5], [10.171], (4, 3)),
        ("ergostool", True, [10.25, 1.9444, 0.092593, -0.342593], None, (4, 0)),
        ("machines", True, [52.3556, 7.9667, 13.9167], None, (4, 0)),
        ("orthodont", True, [17.3727, 0.4795], [0.85874, 0.05259], (4, 5)),
        ("sleepstudy", True, [251.405105, 10.467286], [9.746716, 0.804221], (6, 6)),
    ],
)
def test_fixed_effects(fit, name, reml, estimates, standard_errors, decimals):
    beta = fit(name, reml=reml).uns["lmm"]["beta"]
    assert list(beta["estimate"]) == [last_digit(value, decimals[0]) for value in estimates]
    if standard_errors is not None:
        assert list(beta["standard_error"]) == [last_digit(value, decimals[1]) for value in standard_errors]


# ---------------------------------------------------------------------------------------------------- θ and the boundary


def balanced(adata: AnnData, name: str, *, reml: bool) -> tuple[float, float]:
    """σ² and τ² of a balanced design with an interior optimum, from its analysis of variance."""
    response, fixed, groups, n_groups = MODELS[name]
    y, x = adata.obs[response], np.zeros(adata.n_obs) if fixed is None else adata.obs[fixed]
    size = adata.n_obs // n_groups
    within_y, within_x = (v - v.groupby(adata.obs[groups]).transform("mean") for v in (y, pd.Series(x, index=y.index)))
    residual = within_y if fixed is None else within_y - within_x * (within_x @ within_y) / (within_x @ within_x)
    df = adata.n_obs - n_groups - (fixed is not None) * reml
    tau_sq = residual @ residual / df
    between = y.groupby(adata.obs[groups]).mean().var(ddof=int(reml))
    return between - tau_sq / size, tau_sq


@pytest.mark.parametrize(
    ("name", "reml"), [("dyestuff", True), ("dyestuff", False), ("rail", True), ("sleepstudy", True)]
)
def test_variances_in_closed_form(fit, name, reml):
    null = fit(name, reml=reml).uns["lmm"]
    # σ² is a difference of two mean squares: a few units of round-off.
    assert (null["sigma_sq"], null["tau_sq"]) == pytest.approx(balanced(fit(name), name, reml=reml), rel=1e-10)


def test_dyestuff(fit):
    null = fit("dyestuff").uns["lmm"]
    assert null["sigma_sq"] == last_digit(1764.05, 2)
    assert np.sqrt(null["tau_sq"]) == last_digit(49.5101, 4)
    assert null["beta"].loc["Intercept", "estimate"] == pytest.approx(1527.5, rel=1e-12)
    assert null["beta_covariance"][0, 0] == last_digit(375.7167, 4)


def test_dyestuff_maximum_likelihood(fit):
    null = fit("dyestuff", reml=False).uns["lmm"]
    # θ = √γ, where lme4's and MixedModels' optimisers stop within 1e-7 of the maximum (3.8e-8 here; ours is the closed form).
    assert np.sqrt(null["gamma"]) == pytest.approx(0.7525806540, rel=1e-7)
    assert null["beta"].loc["Intercept", "standard_error"] == pytest.approx(17.694552929, rel=1e-7)
    assert np.sqrt(null["tau_sq"]) == pytest.approx(49.51010035, rel=1e-7)


def test_sleepstudy_variances(fit):
    null = fit("sleepstudy").uns["lmm"]
    # σ² ∝ θ², and lme4's θ is good to 1e-7: it prints 1378.1784, the closed form is 1378.17851.
    assert null["sigma_sq"] == pytest.approx(1378.1784, rel=2e-7)
    assert null["tau_sq"] == last_digit(960.4566, 4)


@pytest.mark.parametrize("reml", [True, False])
def test_dyestuff2_is_on_the_boundary(fit, reml):
    null = fit("dyestuff2", reml=reml).uns["lmm"]
    assert null["status"] == "boundary"
    assert null["gamma"] == null["sigma_sq"] == null["h_sq"] == 0.0
    assert null["h_sq_p_value"] == 1.0
    assert np.isnan(null["h_sq_standard_error"])
    y = fit("dyestuff2").obs["Yield"]
    assert null["tau_sq"] == pytest.approx(y.var(ddof=1 if reml else 0), rel=1e-12)
    if not reml:  # as printed, to float64
        assert np.sqrt(null["tau_sq"]) == pytest.approx(3.6532313513746537, rel=1e-12)


# --------------------------------------------------------------------------------------------------- degrees of freedom


@pytest.mark.parametrize(
    ("name", "df", "tolerance"),
    [
        # lmerTest: summary(lmer(Reaction ~ Days + (1 | Subject), sleepstudy)) prints four decimals.
        ("sleepstudy", [22.8102, 161.0], 5.1e-5),
        # Balanced designs, where Satterthwaite is exact and equals nlme's DF: groups − 1 between, n − groups − terms within.
        ("dyestuff", [5.0], 1e-8),
        ("rail", [5.0], 1e-8),
        ("machines", [None, 46.0, 46.0], 1e-8),
        ("ergostool", [None, 24.0, 24.0, 24.0], 1e-8),
        ("orthodont", [None, 32.0], 1e-8),
    ],
)
def test_satterthwaite_degrees_of_freedom(fit, name, df, tolerance):
    ours = fit(name).uns["lmm"]["beta"]["df"]
    for value, expected in zip(ours, df, strict=True):
        if expected is not None:
            assert value == pytest.approx(expected, rel=0, abs=tolerance)


def test_t_statistics_of_sleepstudy(fit):
    beta = fit("sleepstudy").uns["lmm"]["beta"]
    assert list(beta["statistic"]) == [last_digit(25.7938, 4), last_digit(13.0154, 4)]  # lmerTest, as above


# ------------------------------------------------------------------------------------------------------------- insteval


def test_insteval_against_group_sums(fit):
    """73,421 ratings of 1128 lecturers: the restricted likelihood from group sums alone, (I+γZZᵀ)⁻¹ per lecturer."""
    adata = fit("insteval")
    null, obs = adata.uns["lmm"], adata.obs
    columns = pd.DataFrame({"one": 1.0, "service": obs["service"], "y": obs["y"], "d": obs["d"]})
    n = len(columns)
    assert (n, null["rank"], null["status"]) == (73421, 1128, "ok")
    sums = columns.groupby("d").sum().to_numpy()
    gram = columns[["one", "service", "y"]].T.to_numpy() @ columns[["one", "service", "y"]].to_numpy()
    counts = sums[:, 0]

    def solve(log_gamma: float) -> tuple[float, np.ndarray, np.ndarray, float]:
        gamma = np.exp(log_gamma)
        m = gram - (sums.T * (gamma / (1 + gamma * counts))) @ sums
        xx, xy = m[:2, :2], m[:2, 2]
        beta = np.linalg.solve(xx, xy)
        tau_sq = (m[2, 2] - xy @ beta) / (n - 2)
        criterion = (
            (n - 2) * (np.log(2 * np.pi * tau_sq) + 1) + np.log1p(gamma * counts).sum() + np.linalg.slogdet(xx)[1]
        )
        return criterion, beta, tau_sq * np.linalg.inv(xx), tau_sq

    best = minimize_scalar(lambda t: solve(t)[0], bounds=(-6, 2), method="bounded", options={"xatol": 1e-10})
    # A search on values finds log γ to the root of float64's 1e-16 · 2.4e5 over the curvature (~600): 1e-7.
    assert np.log(null["gamma"]) == pytest.approx(best.x, rel=0, abs=1e-6)
    criterion, beta, covariance, tau_sq = solve(np.log(null["gamma"]))
    # At the same γ: round-off of sums over 73,421 rows.
    assert r_criterion(adata) == pytest.approx(criterion, rel=1e-11)
    np.testing.assert_allclose(null["beta"]["estimate"], beta, rtol=1e-9)
    np.testing.assert_allclose(null["beta_covariance"], covariance, rtol=1e-9)
    assert null["tau_sq"] == pytest.approx(tau_sq, rel=1e-10)
    assert null["sigma_sq"] == pytest.approx(tau_sq * null["gamma"], rel=1e-10)
    assert null["h_sq_p_value"] > 0
    assert null["h_sq_ci_low"] < null["h_sq"] < null["h_sq_ci_high"]
