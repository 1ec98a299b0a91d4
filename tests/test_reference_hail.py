"""Hail 0.2.93, the last release that had `LinearMixedModel`: its outputs on eleven simulated inputs, and its tiny case.

data/hail_0_2_93.npz holds, per case, the input (`py px s pa`, for low rank `y X A` too), what Hail returned (`out/…`) and
the root of the analytic derivative of the restricted likelihood (`ref/…`), which is not Hail's.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import annlmm as al

Case = dict[str, np.ndarray]


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    with np.load(Path(__file__).parent / "data" / "hail_0_2_93.npz") as file:
        for key in file.files:
            name, field = key.split("/", 1)
            cases.setdefault(name, {})[field] = file[key]
    return cases


CASES = _cases()
LOW_RANK = [name for name in CASES if "y" in CASES[name]]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def build(case: Case) -> al.LinearMixedModel:
    return al.LinearMixedModel(case["py"], case["px"], case["s"], case.get("y"), case.get("X"))


def fitted(case: Case, log_gamma: float | None = None) -> al.LinearMixedModel:
    model = build(case)
    model.fit(log_gamma)
    return model


def test_all_eleven_cases_are_there():
    assert len(CASES) == 11
    assert len(LOW_RANK) == 6


def test_fit_agrees_with_hail(case):
    model = fitted(case)
    assert model.status == "ok"
    # Hail stops its search at xatol = 1e-8 of bounded Brent, which leaves up to 2e-7 in log γ and a quarter of it in h².
    assert model.log_gamma == pytest.approx(case["out/log_gamma"], rel=0, abs=1e-6)
    assert model.h_sq == pytest.approx(case["out/h_sq"], rel=0, abs=3e-7)
    # Hail's SE is a parabola through log γ ± 1e-4.
    assert model.h_sq_standard_error == pytest.approx(case["out/h_sq_standard_error"], rel=1e-4)


def test_fit_agrees_with_the_analytic_root(case):
    model = fitted(case)
    # Both are roots of the same derivative to float64: 1e-9, reached to 2e-14.
    assert model.log_gamma == pytest.approx(case["ref/log_gamma_root"], rel=0, abs=1e-9)
    assert model.h_sq == pytest.approx(case["ref/h_sq_root"], rel=0, abs=1e-9)
    # 1e-9 absolute: the reference takes the curvature by a difference, off by up to 1.1e-9 of the SE (the next test).
    assert model.h_sq_standard_error == pytest.approx(case["ref/h_sq_se_root"], rel=0, abs=1e-9)


def exact_root(mpmath: ModuleType, case: Case, start: float) -> tuple[Any, Any]:
    """log γ̂ and SE(h²) by Newton on Hail's formula for the restricted likelihood, in 40 digits."""
    s = [mpmath.mpf(float(v)) for v in case["s"]]
    rotated = np.column_stack([case["px"], case["py"]])
    p = rotated.shape[1] - 1
    z = mpmath.matrix(rotated.tolist())
    outside, n = mpmath.zeros(p + 1), len(s)
    if "y" in case:
        full = mpmath.matrix(np.column_stack([case["X"], case["y"]]).tolist())
        outside, n = full.T * full - z.T * z, full.rows

    def criterion(t):
        gamma = mpmath.exp(t)
        weighted = mpmath.matrix([[z[i, j] / (1 + gamma * s[i]) for j in range(p + 1)] for i in range(z.rows)])
        m = z.T * weighted + outside
        xx, xy = m[:p, :p], m[:p, p]
        rss = m[p, p] - (xy.T * mpmath.lu_solve(xx, xy))[0]
        log_det = mpmath.fsum(mpmath.log(1 + gamma * v) for v in s)
        return mpmath.log(mpmath.det(xx)) + log_det + (n - p) * mpmath.log(rss)

    t, step = mpmath.mpf(start), mpmath.mpf(10) ** -9
    for _ in range(2):  # from a start that is good to 1e-6, quadratic convergence leaves nothing after two steps
        below, here, above = criterion(t - step), criterion(t), criterion(t + step)
        curvature = (above - 2 * here + below) / step**2
        t -= (above - below) / (2 * step) / curvature
    h = 1 / (1 + mpmath.exp(-t))
    return t, h * (1 - h) * mpmath.sqrt(2 / curvature)


@pytest.mark.parametrize("name", ["full_n50_p1", "low_n50_p3", "trunc_n300_p3_r60"])
def test_fit_agrees_with_forty_digits(name):
    mpmath = pytest.importorskip("mpmath")
    case = CASES[name]
    model = fitted(case)
    with mpmath.workdps(40):
        log_gamma, standard_error = exact_root(mpmath, case, float(case["out/log_gamma"]))
        # Round-off of float64 sums over a few hundred terms; 4e-15 is reached.
        assert abs(model.log_gamma - log_gamma) < 1e-12
        assert abs(model.h_sq_standard_error / standard_error - 1) < 1e-12
        # `ref/h_sq_se_root` is the side that is off, by up to 1.1e-9 relative (trunc_n300_p3_r60).
        assert abs(case["ref/h_sq_se_root"] / standard_error - 1) < 2e-9


def test_parameters_at_hails_log_gamma(case):
    model = fitted(case, float(case["out/log_gamma"]))
    # The same linear algebra at the same γ: round-off only.
    for name in ("beta", "sigma_sq", "tau_sq", "gamma", "h_sq"):
        np.testing.assert_allclose(getattr(model, name), case[f"out/{name}"], rtol=1e-9, err_msg=name)


def test_alternatives_at_hails_log_gamma(case):
    table = fitted(case, float(case["out/log_gamma"])).fit_alternatives(case["pa"], case.get("A"))
    # Hail's χ² is n log of a ratio near 1: it keeps 7 digits where χ² is smallest, and more elsewhere.
    for name in ("beta", "sigma_sq", "chi_sq", "p_value"):
        np.testing.assert_allclose(table[name], case[f"out/alt_{name}"], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("log_gamma", [-6.0, -1.0, 0.0, 2.5])
def test_neg_log_reml_is_hails_formula(case, log_gamma):
    gamma = np.exp(log_gamma)
    d = 1 / (case["s"] + 1 / gamma)
    z = np.column_stack([case["px"], case["py"]])
    m = (z.T * d) @ z
    log_det_d, n, p = np.log(d).sum(), d.size, z.shape[1] - 1
    if "y" in case:
        full = np.column_stack([case["X"], case["y"]])
        m += gamma * (full.T @ full - z.T @ z)
        log_det_d += (len(full) - n) * log_gamma
        n = len(full)
    beta = np.linalg.solve(m[:p, :p], m[:p, p])
    sigma_sq = (m[p, p] - m[:p, p] @ beta) / (n - p)
    expected = 0.5 * (np.linalg.slogdet(m[:p, :p])[1] - log_det_d + (n - p) * np.log(sigma_sq))
    value, *parameters = build(case).compute_neg_log_reml(log_gamma, return_parameters=True)
    # The difference of the two cross-products costs the plain formula up to five digits.
    assert value == pytest.approx(expected, rel=1e-10)
    for ours, plain in zip(parameters, (beta, sigma_sq, sigma_sq / gamma), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-10)


# ------------------------------------------------------------------------------------------------------ the tiny case

Y = np.array([0.0, 1.0, 8.0, 9.0])
X = np.array([[1.0, 0.0], [1.0, 2.0], [1.0, 1.0], [1.0, 4.0]])
Z = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 4.0], [2.0, 4.0, 8.0]])
X_STAR = np.array([[1.0], [0.0], [1.0], [0.0]])


def tiny(how: str) -> tuple[al.LinearMixedModel, np.ndarray]:
    if how == "from_kinship":
        return al.LinearMixedModel.from_kinship(Y, X, Z @ Z.T)
    if how == "from_random_effects":
        return al.LinearMixedModel.from_random_effects(Y, X, Z)
    values, vectors = np.linalg.eigh(Z @ Z.T)
    if how == "constructor, full rank":
        p = vectors.T
        return al.LinearMixedModel(p @ Y, p @ X, np.maximum(values, 0.0)), p
    p = vectors[:, 1:].T
    return al.LinearMixedModel(p @ Y, p @ X, values[1:], Y, X), p


@pytest.mark.parametrize(
    ("how", "low_rank"),
    [
        ("constructor, full rank", False),
        ("constructor, low rank", True),
        ("from_kinship", False),
        ("from_random_effects", True),
    ],
)
def test_tiny_case(how, low_rank):
    model, p = tiny(how)
    assert (model.low_rank, model.n, model.f, model.r) == (low_rank, 4, 2, 3 if low_rank else 4)
    model.fit(log_gamma=np.log(2.0))
    table = model.fit_alternatives(p @ X_STAR, X_STAR if low_rank else None)
    # Seven decimals are printed.
    np.testing.assert_allclose(model.beta, [0.1784473, -1.7752028], rtol=0, atol=5.1e-8)
    assert model.sigma_sq == pytest.approx(6.1506373, rel=0, abs=5.1e-8)
    assert model.tau_sq == pytest.approx(6.1506373 / 2, rel=0, abs=5.1e-8)
    assert model.compute_neg_log_reml(np.log(2.0)) == pytest.approx(4.5036159, rel=0, abs=5.1e-8)
    assert table.loc[0, "beta"] == pytest.approx(7.6666667, rel=0, abs=5.1e-8)
    assert table.loc[0, "chi_sq"] == pytest.approx(0.5703171, rel=0, abs=5.1e-8)


# --------------------------------------------------------------------------------------------- one model, several forms


def test_low_rank_equals_full_rank_when_the_kernel_has_that_rank():
    case = CASES["low_n300_p8"]
    n, m = case["X"].shape[0], 9
    z = np.random.default_rng(5).standard_normal((n, m))
    y = case["y"] + z @ np.random.default_rng(6).standard_normal(m)
    low, p_low = al.LinearMixedModel.from_random_effects(y, case["X"], z)
    full, p_full = al.LinearMixedModel.from_kinship(y, case["X"], z @ z.T)
    assert (low.low_rank, low.r, full.low_rank, full.r) == (True, m, False, n)
    low.fit()
    full.fit()
    # Exactly the same model: round-off, amplified by the eigendecomposition of the n × n kernel.
    for name in ("log_gamma", "h_sq", "h_sq_standard_error", "sigma_sq", "tau_sq", "beta"):
        np.testing.assert_allclose(getattr(low, name), getattr(full, name), rtol=1e-9, err_msg=name)
    assert low.compute_neg_log_reml(0.3) == pytest.approx(full.compute_neg_log_reml(0.3), rel=1e-12)
    a = case["A"]
    np.testing.assert_allclose(
        low.fit_alternatives(p_low @ a, a), full.fit_alternatives(p_full @ a), rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize("name", ["full_n300_p3", "low_n300_p8"])
@pytest.mark.parametrize("partition_size", [None, 1, 5, 24, 1000])
def test_dask_partitions_equal_the_in_memory_form(name, partition_size):
    da = pytest.importorskip("dask.array")
    case = CASES[name]
    model = fitted(case)
    a = case.get("A")
    lazy_a = None if a is None else da.from_array(np.ascontiguousarray(a.T), chunks=(7, 100))
    lazy_pa = da.from_array(np.ascontiguousarray(case["pa"].T), chunks=(10, 30))
    table = model.fit_alternatives(lazy_pa, lazy_a, partition_size=partition_size)
    expected = model.fit_alternatives(case["pa"], a)
    assert table.index.equals(expected.index)
    # Another width of the matrix products: round-off.
    np.testing.assert_allclose(table, expected, rtol=1e-9, atol=1e-12)


def test_stored_arrays_equal_the_in_memory_form(tmp_path):
    da = pytest.importorskip("dask.array")
    case = CASES["low_donor_n300_p2_q12"]
    model = fitted(case)
    for name, field in (("pa", "pa"), ("a", "A")):
        da.from_array(np.ascontiguousarray(case[field].T), chunks=(10, -1)).to_zarr(str(tmp_path / f"{name}.zarr"))
    table = model.fit_alternatives(str(tmp_path / "pa.zarr"), str(tmp_path / "a.zarr"), partition_size=7)
    np.testing.assert_allclose(table, model.fit_alternatives(case["pa"], case["A"]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_script_for_hail_runs_after_changing_the_import(name):
    case = CASES[name]
    low = "y" in case
    model = build(case)
    assert (model.low_rank, model.n, model.f, model.r) == (low, len(case["X" if low else "px"]), *case["px"].T.shape)
    for field in ("py", "px", "s"):  # eigenvalues of −1e-16 are set to zero
        np.testing.assert_allclose(getattr(model, field), case[field], rtol=0, atol=1e-14, err_msg=field)
    assert model.beta is model.sigma_sq is model.h_sq is model.h_sq_standard_error is model.optimize_result is None

    model.fit()
    assert model.beta.shape == (model.f,)
    assert model.gamma == pytest.approx(model.sigma_sq / model.tau_sq)
    assert model.log_gamma == pytest.approx(np.log(model.gamma))
    assert model.h_sq == pytest.approx(model.sigma_sq / (model.sigma_sq + model.tau_sq))
    assert model.optimize_result.success
    assert model.optimize_result.x == pytest.approx(model.log_gamma)
    assert model.optimize_result.fun == pytest.approx(model.compute_neg_log_reml(model.log_gamma))

    table = model.fit_alternatives_numpy(case["pa"], case.get("A"))
    assert table.index.name == "idx"
    assert {"beta", "sigma_sq", "chi_sq", "p_value"} <= set(table.columns)
    # Hail's table is at its own log γ, up to 1.6e-7 away; β and χ² of a feature without effect are small differences.
    for field in ("beta", "sigma_sq", "chi_sq", "p_value"):
        np.testing.assert_allclose(table[field], case[f"out/alt_{field}"], rtol=1e-6, atol=1e-7, err_msg=field)

    likelihood = model.h_sq_normalized_lkhd()
    h = np.arange(1, 100) / 100
    shifted = np.array([-model.compute_neg_log_reml(t) for t in np.log(h / (1 - h))])
    expected = np.exp(shifted - shifted.max())
    assert np.isnan(likelihood[[0, 100]]).all()
    np.testing.assert_allclose(likelihood[1:100], expected / expected.sum(), rtol=1e-9)

    model.fit(log_gamma=2.0)  # raises in Hail
    assert model.log_gamma == 2.0
    assert model.h_sq_standard_error is None
