"""Cases that cost digits, the package's answers to them, and the digits that rounding of the input alone leaves.

What can be asked of an algorithm in float64 is the exact answer to a slightly different input. `attainable` measures with
the oracle what one rounding of the input does: y, X and the features move by ± 1 ulp (2⁻⁵² of each value), K by 2⁻⁵² of its
norm, a factor by 2⁻⁵² of its values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData
from mp_oracle import Exact, digits, log_f_tail
from numpy.typing import NDArray

import annlmm as al

Float = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
ASSOCIATE = ("beta", "standard_error", "statistic", "neg_log10_p_value")


@dataclass(frozen=True)
class Case:
    """Data of one case.

    Attributes
    ----------
    x
        n × p, an intercept first.
    a
        n × m features, dosages.
    k
        The kernel; None for none.
    gamma
        What γ is held at; None: it is estimated.
    """

    name: str
    y: Float
    x: Float
    a: Float
    k: Float | None
    gamma: float | None = None

    @property
    def n(self) -> int:
        return self.y.size

    @property
    def fixed(self) -> list[int]:
        return list(range(self.x.shape[1]))

    @property
    def response(self) -> int:
        return self.x.shape[1]

    @property
    def features(self) -> range:
        return range(self.response + 1, self.response + 1 + self.a.shape[1])

    @cached_property
    def exact(self) -> Exact:
        return Exact(np.column_stack([self.x, self.y, self.a]), kernel=self.k)

    @cached_property
    def fitted(self) -> AnnData:
        """With the package's null model."""
        adata = cohort(self)
        kernel = None if self.k is None else "kernel"
        al.tl.fit_null(adata, "y", covariates=covariates(self), gamma=self.gamma, kernel=kernel)
        return adata

    @cached_property
    def neighbours(self) -> list[Case]:
        return [self.moved(np.random.default_rng(seed)) for seed in range(2)]

    def moved(self, rng: np.random.Generator) -> Case:
        """The input after one more rounding."""

        def rounded(values: Float) -> Float:
            return values * (1 + EPS * rng.choice([-1.0, 1.0], values.shape))

        x = rounded(self.x)
        x[:, 0] = self.x[:, 0]
        k = self.k
        if k is not None:
            noise = rng.standard_normal(k.shape)
            noise = np.tril(noise) + np.tril(noise, -1).T
            # ‖a symmetric Gaussian matrix‖ is 2√n.
            k = k + noise * (EPS * np.linalg.norm(k, 2) / (2 * np.sqrt(self.n)))
        return replace(self, y=rounded(self.y), x=x, a=rounded(self.a), k=k)


Answers = dict[str, object]


def exact_null(case: Case) -> Answers:
    return case.exact.fit(case.fixed, case.response, case.gamma)


def exact_tests(case: Case, kind: str) -> Answers:
    """`ASSOCIATE` of all features; kind is test and variance, such as 'wald null'."""
    test, variance = kind.split()
    exact, fixed, y = case.exact, case.fixed, case.response
    if test == "score":
        gamma = exact.gamma_hat(fixed, y, reml=False) if case.gamma is None else case.gamma
        rows = [exact.score_test(gamma, fixed, a, y) for a in case.features]
    elif variance == "refit":
        rows = [
            exact.wald(exact.gamma_hat([*fixed, a], y), fixed, a, y) if test == "wald" else exact.lrt_refit(fixed, a, y)
            for a in case.features
        ]
    else:
        gamma = exact.gamma_hat(fixed, y) if case.gamma is None else case.gamma
        rows = [getattr(exact, test)(gamma, fixed, a, y) for a in case.features]
    return {name: [row[name] for row in rows] for name in ASSOCIATE if name in rows[0]}


def cohort(case: Case) -> AnnData:
    """With the kernel, taken as it is."""
    adata = AnnData(case.a.copy())
    adata.obs_names = [f"s{i}" for i in range(case.n)]
    adata.var_names = [f"v{j}" for j in range(case.a.shape[1])]
    adata.obs["y"] = case.y
    for j in case.fixed[1:]:
        adata.obs[f"x{j}"] = case.x[:, j]
    if case.k is not None:
        al.pp.kernel_precomputed(adata, case.k)
    return adata


def covariates(case: Case) -> list[str]:
    return [f"x{j}" for j in case.fixed[1:]]


def fit_null(case: Case) -> Answers:
    adata = case.fitted
    found = adata.uns["lmm"]
    beta = found["beta"]
    return {
        **{name: found[name] for name in ("gamma", "sigma_sq", "tau_sq", "h_sq", "log_likelihood")},
        "beta": beta["estimate"].to_numpy(),
        "standard_error": beta["standard_error"].to_numpy(),
        "h_sq_standard_error": found["h_sq_standard_error"],
        "df": beta["df"].to_numpy(),
    }


def associate(case: Case, kind: str) -> Answers:
    test, variance = kind.split()
    adata = case.fitted
    al.tl.associate(adata, test=test, variance=variance)
    return {name: adata.var[f"lmm_{name}"].to_numpy() for name in ASSOCIATE}


def variance_components(case: Case) -> Answers:
    """y as a gene."""
    adata = cohort(case)
    genes = AnnData(case.y[:, None].copy(), obs=adata.obs, obsm=dict(adata.obsm), uns=dict(adata.uns))
    al.tl.variance_components(genes, covariates(case))
    names = ("sigma_sq", "tau_sq", "h_sq", "h_sq_standard_error", "log_likelihood")
    return {name: float(genes.var[f"varcomp_{name}"].iloc[0]) for name in names}


def map_eqtl(case: Case, variance: str) -> Answers:
    """y as a gene of donors, the features as variants."""
    adata = cohort(case)
    genes = AnnData(case.y[:, None].copy(), obs=adata.obs, obsm=dict(adata.obsm), uns=dict(adata.uns))
    genes.var_names = ["gene"]
    place = pd.DataFrame({"chrom": "1", "start": [1000]}, index=["gene"])
    genes.var = place
    genotype = AnnData(case.a.copy(), obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=adata.var_names))
    genotype.var["chrom"], genotype.var["pos"] = "1", 1000 + np.arange(genotype.n_vars)
    al.tl.map_eqtl(
        genes, genotype, covariates=covariates(case), kernel=None if case.k is None else "kernel", variance=variance, df="residual",
        min_maf=0.0,
    )  # fmt: skip
    pairs = al.get.eqtl(genes).set_index("variant").loc[list(adata.var_names)]
    return {
        "beta": pairs["beta"].to_numpy(),
        "standard_error": pairs["standard_error"].to_numpy(),
        "statistic": pairs["statistic"].to_numpy() ** 2,
        "neg_log10_p_value": pairs["neg_log10_p_value"].to_numpy(),
    }


def mixed_model(case: Case) -> Answers:
    """`LinearMixedModel` from K."""
    model, p = al.LinearMixedModel.from_kinship(case.y, case.x, case.k)
    model.fit(None if case.gamma is None else float(np.log(case.gamma)))
    table = model.fit_alternatives(p @ case.a)
    return {
        **{name: getattr(model, name) for name in ("gamma", "sigma_sq", "tau_sq", "h_sq", "beta")},
        "h_sq_standard_error": model.h_sq_standard_error,
        "alternative_beta": table["beta"].to_numpy(),
        "alternative_standard_error": table["standard_error"].to_numpy(),
        "alternative_chi_sq": table["chi_sq"].to_numpy(),
    }


def exact_mixed_model(case: Case) -> Answers:
    null, wald, lrt = exact_null(case), exact_tests(case, "wald null"), exact_tests(case, "lrt null")
    return {
        **null,
        "alternative_beta": wald["beta"],
        "alternative_standard_error": wald["standard_error"],
        "alternative_chi_sq": lrt["statistic"],
    }


def correct(got: Answers, exact: Answers) -> dict[str, float]:
    """Correct digits of every quantity that both have."""
    return {name: digits(got[name], exact[name]) for name in exact if got.get(name) is not None}


def attainable(case: Case, answers: Callable[[Case], Answers], exact: Answers, times: int = 2) -> dict[str, float]:
    """Digits of every quantity that survive one more rounding of the input, the fewest of `times` draws."""
    found = dict.fromkeys(exact, 16.0)
    for seed in range(times):
        moved = answers(case.neighbours[seed])
        for name, value in moved.items():
            as_array = np.array(value if isinstance(value, list) else [value], dtype=object)
            found[name] = min(found[name], digits(as_array, exact[name]))
    return found


FUNCTIONS: dict[str, tuple[Callable[[Case], Answers], Callable[[Case], Answers]]] = {
    "fit_null": (fit_null, exact_null),
    "LinearMixedModel": (mixed_model, exact_mixed_model),
    "variance_components": (variance_components, exact_null),
    **{
        f"associate, {kind}": (
            lambda case, kind=kind: associate(case, kind),
            lambda case, kind=kind: exact_tests(case, kind),
        )
        for kind in ("wald null", "lrt null", "score null", "wald refit", "lrt refit")
    },
    **{
        f"map_eqtl, {variance}": (
            lambda case, variance=variance: map_eqtl(case, variance),
            lambda case, variance=variance: exact_tests(case, f"wald {variance}"),
        )
        for variance in ("null", "refit")
    },
}


def make(
    name: str, *, n: int = 18, p: int = 3, gamma: float | None = None, true_gamma: float = 2.0, seed: int = 21,
    spectrum: tuple[float, float] | None = None, scale: float = 1.0, features: int = 2,
) -> Case:  # fmt: skip
    """y ~ N(Xβ, γK + I) under K = ZZᵀ/n; or under one whose eigenvalues fall from 10^first to 10^last of `spectrum`."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, 2 * n))
    k = z @ z.T / (2 * n)
    if spectrum is not None:
        u = np.linalg.qr(z[:, :n])[0]
        k = (u * np.logspace(*spectrum, n)) @ u.T
        k = (k + k.T) / 2
    x = np.column_stack([np.ones(n), rng.standard_normal((n, p - 1))])
    values, vectors = np.linalg.eigh(k)
    noise = vectors @ (np.sqrt(1 + true_gamma * np.maximum(values, 0)) * rng.standard_normal(n))
    a = rng.binomial(2, 0.4, (n, features)) + rng.uniform(0, 0.05, (n, features))
    y = x @ np.arange(1.0, p + 1) + noise + a @ np.r_[0.5, np.full(features - 1, -1.0)]
    return Case(name, y, x, np.minimum(a, 2.0), k * scale, gamma)


def collinear(name: str, condition: float) -> Case:
    """Two covariates that differ by 1/condition."""
    case = make(name)
    case.x[:, 2] = case.x[:, 1] + case.x[:, 2] / condition
    return case


def offset(name: str, size: float) -> Case:
    """A covariate of the size 1 about `size`, as an age in seconds: the condition number of X is `size`."""
    case = make(name)
    case.x[:, 1] += size
    return case


def strong(name: str, noise: float) -> Case:
    """The phenotype is the first feature but for `noise`."""
    case = make(name, true_gamma=0.5)
    return replace(case, y=case.y * noise + case.a[:, 0])


CASES: dict[str, Callable[[str], Case]] = {
    "plain": make,
    "γ held at 10⁻¹²": lambda name: make(name, gamma=1e-12),
    "γ held at 10⁻⁶": lambda name: make(name, gamma=1e-6),
    "γ held at 10⁶": lambda name: make(name, gamma=1e6),
    "γ held at 10¹²": lambda name: make(name, gamma=1e12),
    "K × 10¹², γ̂ of 10⁻¹²": lambda name: make(name, scale=1e12),
    "K × 10⁻¹², γ̂ of 10¹²": lambda name: make(name, scale=1e-12),
    "y × 10¹²": lambda name: replace(make(name), y=make(name).y * 1e12),
    "y × 10⁻¹²": lambda name: replace(make(name), y=make(name).y * 1e-12),
    "y + 10⁷": lambda name: replace(make(name), y=make(name).y + 1e7),
    "X nearly collinear, condition 10⁴": lambda name: collinear(name, 1e4),
    "X nearly collinear, condition 10⁶": lambda name: collinear(name, 1e6),
    "X with an offset of 10⁵": lambda name: offset(name, 1e5),
    "X with an offset of 10¹⁰": lambda name: offset(name, 1e10),
    "eigenvalues of K from 1 to 10⁻⁶": lambda name: make(name, spectrum=(0, -6), true_gamma=100.0),
    "eigenvalues of K from 1 to 10⁻¹²": lambda name: make(name, spectrum=(0, -12), true_gamma=100.0),
    "the same, γ held at 10¹²": lambda name: make(name, spectrum=(0, -12), true_gamma=100.0, gamma=1e12),
    "n = p + 2": lambda name: make(name, n=7, p=5, seed=6, true_gamma=1.0, features=1),
    "n = p + 3": lambda name: make(name, n=8, p=5, seed=12, true_gamma=1.0, features=1),
    "h² = 1": lambda name: make(name, seed=6),
    "feature that is y to 10⁻³": lambda name: strong(name, 1e-3),
    "feature that is y to 10⁻⁶": lambda name: strong(name, 1e-6),
}

# p-values far in the tail come from many observations: (n, groups or None, share of y that is noise).
TAILS = ((3000, 12, 0.3), (3000, 12, 0.03), (20000, None, 0.3), (20000, None, 0.003))
TAIL_GAMMA = 0.7


def tail(n: int, groups: int | None, noise: float) -> tuple[AnnData, Exact]:
    """A strong feature, without a kernel or over groups at γ = `TAIL_GAMMA`."""
    rng = np.random.default_rng(0)
    a = rng.binomial(2, 0.4, n).astype(float)
    x = np.column_stack([np.ones(n), rng.standard_normal(n)])
    codes = None if groups is None else np.arange(n) % groups
    y = a + noise * (rng.standard_normal(n) + (0 if codes is None else rng.standard_normal(groups)[codes])) + x[:, 1]
    adata = AnnData(a[:, None].copy())
    adata.obs_names = [f"s{i}" for i in range(n)]
    adata.obs["y"], adata.obs["x1"] = y, x[:, 1]
    if codes is not None:
        adata.obs["group"] = pd.Categorical([f"g{c}" for c in codes])
        al.pp.kernel_group(adata, "group")
    return adata, Exact(np.column_stack([x, y, a]), groups=codes)


def tail_answers(adata: AnnData, exact: Exact, test: str) -> tuple[float, object]:
    """−log₁₀ p of the package and of the oracle."""
    grouped = "group" in adata.obs
    gamma = TAIL_GAMMA if grouped else None
    if "lmm" not in adata.uns:
        al.tl.fit_null(adata, "y", covariates="x1", kernel="kernel" if grouped else None, gamma=gamma)
    al.tl.associate(adata, test=test)
    of = {"wald": exact.wald, "lrt": exact.lrt, "score": exact.score_test}[test]
    expected = of(gamma or 0, [0, 1], 3, 2)["neg_log10_p_value"]
    return float(adata.var["lmm_neg_log10_p_value"].iloc[0]), expected


def balanced(log10_p: float, groups: int = 6, size: int = 100) -> tuple[AnnData, float]:
    """One-way data, balanced: the likelihood ratio of σ² = 0 is monotone in F, whose p-value is about 10^−log10_p."""
    rng = np.random.default_rng(1)
    df = groups * (size - 1)
    between = np.repeat(np.linspace(-1, 1, groups), size)
    within = rng.standard_normal((groups, size))
    within -= within.mean(axis=1, keepdims=True)
    within = within.ravel()
    f = _f_of(log10_p, groups - 1, df)
    y = between * np.sqrt(f * (groups - 1) * (within @ within) / df / (between @ between)) + within
    adata = AnnData(np.zeros((y.size, 1)))
    adata.obs_names = [f"s{i}" for i in range(y.size)]
    adata.obs["y"], adata.obs["group"] = y, pd.Categorical(np.repeat([f"g{i}" for i in range(groups)], size))
    al.pp.kernel_group(adata, "group")
    means = y.reshape(groups, size).mean(axis=1)
    ms_between = size * np.sum((means - y.mean()) ** 2) / (groups - 1)
    return adata, float(ms_between / (np.sum((y - np.repeat(means, size)) ** 2) / df))


def _f_of(log10_p: float, numerator: int, df: int) -> float:
    low, high = 1.0, 1e6
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if -log_f_tail(middle, df, numerator) < log10_p * np.log(10) else (low, middle)
    return float(low)
