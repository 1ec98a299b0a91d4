"""A fitted model as tables: what `LinearMixedModel.summary()` returns, as text, as HTML and as DataFrames.

Standard errors of (σ², τ²) are from the inverse of the observed information on them, 𝓘⁻¹, of the restricted likelihood; with
γ given only the scale is estimated, (n−p) τ̂²/τ² ~ χ²_{n−p}, so that SE(τ̂²) = τ̂² √(2/(n−p)). On a boundary they are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from annlmm.model.null import fixed_effects, h_sq_of, variance_components
from annlmm.model.profile import Profile
from annlmm.model.rotated import RotatedData
from annlmm.model.satterthwaite import variance_information
from annlmm.model.variance_test import make_variance_null

Float = NDArray[np.float64]
How = Literal["estimated", "bounded", "given"]

# Characters of a column of numbers, and of a table whose names are short.
NUMBER, WIDTH = 11, 82
_FIXED = {
    "estimate": "estimate",
    "standard_error": "std. error",
    "df": "df",
    "p_value": "P>|t|",
    "ci_low": "[0.025",
    "ci_high": "0.975]",
}
_VARIANCE = {name: title for name, title in _FIXED.items() if name not in ("df", "p_value")}
_FORMAT = {"df": ".1f", "p_value": ".3g"}
_TESTED = "exact restricted likelihood-ratio test, simulated"
_METHOD = {"estimated": "REML", "bounded": "REML, γ within bounds", "given": "γ given"}


@dataclass(frozen=True)
class VarianceTest:
    """Ends of the 95 % interval of h², and the natural log of the p-value of σ² = 0."""

    low: float
    high: float
    log_p: float


@dataclass(frozen=True)
class Known:
    """What is known besides the data: names, the seed of simulations, and the variance test of REML over all γ if it was simulated."""

    response: str
    terms: tuple[str, ...]
    kernel: str
    seed: int = 0
    test: VarianceTest | None = None


@dataclass(frozen=True, repr=False)
class Summary:
    """A fitted linear mixed model as tables; `print` shows them as text, a notebook as HTML.

    Attributes
    ----------
    model : dict
        Response, observations, kernel, log-likelihood, status and so on, as text.
    fixed_effects : DataFrame
        One row per term: estimate, standard_error, df (Satterthwaite), statistic (t), p_value, ci_low, ci_high (95 %).
    variance_components : DataFrame
        Rows sigma_sq, tau_sq and h_sq: estimate, standard_error, and for h_sq the 95 % interval.
    h_sq_p_value : float
        Exact restricted likelihood-ratio test of σ² = 0; NaN where it was not simulated.
    """

    model: Mapping[str, str]
    fixed_effects: pd.DataFrame
    variance_components: pd.DataFrame
    h_sq_p_value: float

    def __str__(self) -> str:
        fixed = [("Fixed effects", *_FIXED.values()), *self._fixed_rows()]
        variances = [("Variance", *_VARIANCE.values()), *self._variance_rows()]
        first = max(WIDTH - 6 * NUMBER, *(len(name) for name, *_ in (*fixed, *variances)))
        double, single = "=" * (first + 6 * NUMBER), "-" * (first + 6 * NUMBER)

        def line(name: str, *cells: str) -> str:
            return (name.ljust(first) + "".join(cell.rjust(NUMBER) for cell in cells)).rstrip()

        lines = ["Linear mixed model, y ~ N(Xβ, σ²K + τ²I)".center(len(double)).rstrip(), double]
        lines += self._head(len(double))
        lines += [double, line(*fixed[0]), single, *(line(*row) for row in fixed[1:])]
        below = [line(name, *cells[:2], "", "", *cells[2:]) for name, *cells in variances]
        lines += [double, below[0], single, *below[1:]]
        lines += [single, self._test(), double] if self._test() else [double]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        items = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self.model.items()
        )
        tables = [
            pd.DataFrame([cells for _, *cells in rows], index=[name for name, *_ in rows], columns=list(head)).to_html()
            for rows, head in ((self._fixed_rows(), _FIXED.values()), (self._variance_rows(), _VARIANCE.values()))
        ]
        test = f"<p>{escape(self._test())}</p>" if self._test() else ""
        return f"<div><b>Linear mixed model</b><table>{items}</table>{''.join(tables)}{test}</div>"

    def _fixed_rows(self) -> list[tuple[str, ...]]:
        return [
            (str(name), *(_number(row[column], _FORMAT.get(column, ".4g")) for column in _FIXED))
            for name, row in self.fixed_effects.iterrows()
        ]

    def _variance_rows(self) -> list[tuple[str, ...]]:
        labels = {
            "sigma_sq": f"σ² ({self.model['Kernel'].rsplit(', rank', 1)[0]})",
            "tau_sq": "τ² (residual)",
            "h_sq": "h² = σ²/(σ²+τ²)",
        }
        return [
            (labels[str(name)], *(_number(row[column]) for column in _VARIANCE))
            for name, row in self.variance_components.iterrows()
        ]

    def _head(self, width: int) -> list[str]:
        items = [f"{name}:".ljust(17) + text for name, text in self.model.items()]
        half = (len(items) + 1) // 2
        left, right = items[:half], [*items[half:], ""][:half]
        room = max(width // 2, *(len(item) + 2 for item in left))
        return [(a.ljust(room) + b).rstrip() for a, b in zip(left, right, strict=True)]

    def _test(self) -> str:
        return "" if np.isnan(self.h_sq_p_value) else f"σ² = 0: p = {self.h_sq_p_value:.3g} ({_TESTED})"


def _number(value: float, form: str = ".4g") -> str:
    return "" if np.isnan(value) else format(value, form)


def standard_errors(profile: Profile, gamma: float) -> Float:
    """Of (σ̂², τ̂²) at an interior optimum."""
    observed = variance_information(profile, *variance_components(profile, gamma), at_boundary=False).observed
    # On a unit diagonal, since σ² and τ² have the units of different kernels.
    scale = np.sqrt(np.abs(np.diagonal(observed)))
    correlation = observed / np.outer(scale, scale)
    if not (np.diagonal(observed) > 0).all() or not np.linalg.det(correlation) > 0:
        return np.full(2, np.nan)
    return np.asarray(np.sqrt(np.diagonal(np.linalg.inv(correlation))) / scale)


@dataclass
class Fit:
    """A model at its γ, with what is known of its variance test."""

    data: RotatedData
    gamma: float
    h_sq_standard_error: float | None
    status: str
    how: How
    known: Known

    def __post_init__(self) -> None:
        self.test = self.known.test if self.how == "estimated" else None

    def simulate(self) -> None:
        """The interval of h² and the p-value of σ² = 0 (`variance_test.py`), once; a γ that was given, or looked for within bounds, has none."""
        if self.how != "estimated" or self.test is not None:
            return
        profile = self.data.profile
        null, value = make_variance_null(profile, self.known.seed), profile.value(self.gamma)
        low, high = (h_sq_of(g) for g in null.interval(profile, self.gamma, value))
        self.test = VarianceTest(low, high, float(null.rlrt().log_p_value(max(profile.value(0.0) - value, 0.0))))

    def summary(self, *, simulate: bool = False) -> Summary:
        """The tables, with the variance test where it is known or asked for."""
        if simulate:
            self.simulate()
        log_likelihood = self.data.profile.log_likelihood(self.gamma)
        n_variances = 1 if self.how == "given" else 2
        model = {
            "Response": self.known.response,
            "Kernel": f"{self.known.kernel}, rank {self.data.space.eigenvalues.size}",
            "Method": _METHOD[self.how],
            "Status": self.status,
            "Observations": str(self.data.space.n),
            "Fixed effects": str(self.data.space.p),
            "Log-likelihood": f"{log_likelihood:.2f} (restricted)",
            "AIC": f"{-2.0 * log_likelihood + 2.0 * (self.data.space.p + n_variances):.2f}",
        }
        log_p = np.nan if self.test is None else self.test.log_p
        # Never 0, and NaN stays NaN.
        p_value = float(np.maximum(np.exp(log_p), np.finfo(np.float64).tiny))
        return Summary(model, self._fixed_effects(), self._variance_components(), p_value)

    def _fixed_effects(self) -> pd.DataFrame:
        data, given = self.data, self.how == "given"
        beta, covariance, df = fixed_effects(
            data.design, data.space, data.response, data.profile, self.gamma, fixed=given
        )
        error = np.sqrt(np.diagonal(covariance))
        statistic, half = beta / error, stdtrit(df, 0.975) * error
        columns = {
            "estimate": beta,
            "standard_error": error,
            "df": df,
            "statistic": statistic,
            "p_value": 2.0 * stdtr(df, -np.abs(statistic)),
            "ci_low": beta - half,
            "ci_high": beta + half,
        }
        return pd.DataFrame(columns, index=list(self.known.terms))

    def _variance_components(self) -> pd.DataFrame:
        profile = self.data.profile
        sigma_sq, tau_sq = variance_components(profile, self.gamma)
        if self.how == "given":
            errors = np.array([sigma_sq, tau_sq]) * np.sqrt(2.0 / profile.df_residual)
        else:
            errors = np.full(2, np.nan) if self.status == "boundary" else standard_errors(profile, self.gamma)
        of_h = np.nan if self.h_sq_standard_error is None else self.h_sq_standard_error
        low, high = (np.nan, np.nan) if self.test is None else (self.test.low, self.test.high)
        columns = {
            "estimate": [sigma_sq, tau_sq, h_sq_of(self.gamma)],
            "standard_error": [*errors, of_h],
            "ci_low": [np.nan, np.nan, low],
            "ci_high": [np.nan, np.nan, high],
        }
        return pd.DataFrame(columns, index=["sigma_sq", "tau_sq", "h_sq"])
