"""Null fits to and from their slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.special import stdtr

from annlmm._slots.access import SCHEMA_VERSION, hint, storable, taken, write_slots
from annlmm._slots.kernel import read_basis
from annlmm._slots.schema import fields_of
from annlmm._slots.version import check_version
from annlmm.model.design import make_design
from annlmm.model.null import NullFit, NullModel

Float = NDArray[np.float64]
Index = NDArray[np.intp]

SCALARS = (
    "sigma_sq", "tau_sq", "gamma", "log_gamma", "h_sq", "h_sq_standard_error", "h_sq_ci_low", "h_sq_ci_high", "h_sq_p_value",
    "h_sq_neg_log10_p_value", "h_sq_p_value_mixture", "pve", "pve_standard_error", "log_likelihood", "aic", "n_obs", "rank", "status",
)  # fmt: skip


# What a null model is read from, besides its params and tables.
_READ = ("gamma", "sigma_sq", "tau_sq", "n_obs")


@dataclass(frozen=True)
class FittedPhenotype:
    """One response with its fit and the rows it used."""

    name: str
    rows: Index
    fit: NullFit
    blup: Float
    residual: Float


@dataclass(frozen=True)
class StoredNull:
    """A null model as read back: X, the responses and their γ.

    Attributes
    ----------
    names, terms
        Of the phenotypes and of the columns of X.
    x, y
        n_obs × p and n_obs × T on all rows of adata, NaN where not used.
    gamma
        T fitted ratios.
    rss
        T residual sums of squares at them (for γ = ∞ in units of K), by which a later call sees that it reads what was fitted.
    params
        As stored.
    """

    key: str
    names: tuple[str, ...]
    terms: tuple[str, ...]
    x: Float
    y: Float
    gamma: Float
    rss: Float
    params: dict[str, Any]

    @property
    def kernel(self) -> str | None:
        return str(self.params["kernel"]) if "kernel" in self.params else None

    @property
    def reml(self) -> bool:
        return bool(self.params["reml"])

    @property
    def gamma_fixed(self) -> bool:
        return "gamma" in self.params

    def patterns(self) -> list[tuple[Index, list[int]]]:
        """Phenotypes that use the same rows, together: (rows, numbers of the phenotypes)."""
        return missingness_patterns(~np.isnan(self.y))

    def check_unchanged(self, j: int, rss: float, condition: float = 1.0) -> None:
        """The kernel, the phenotype and the design give the residual that the fit had, by a V of this condition number."""
        rounding = float(np.finfo(np.float64).eps) * self.x.shape[0] * condition
        if not abs(rss - self.rss[j]) <= max(1e-6, rounding) * self.rss[j]:
            raise ValueError(
                f"key={self.key!r}: the kernel, the phenotype or the design changed since {self.names[j]!r} was fitted (residual sum of squares "
                f"{self.rss[j]:.6g} then, {rss:.6g} now); run al.tl.fit_null again"
            )

    def model(self, adata: AnnData, rows: Index, *, reml: bool | None = None) -> NullModel:
        design = make_design(self.x[rows], self.terms)
        basis = read_basis(adata, self.kernel, rows)
        return NullModel(
            design, basis, reml=self.reml if reml is None else reml, identifiable=False, kernel=self.kernel or "kernel"
        )


def missingness_patterns(present: NDArray[np.bool_]) -> list[tuple[Index, list[int]]]:
    """Columns of an n × T mask grouped by which rows they have."""
    groups: dict[bytes, list[int]] = {}
    for j in range(present.shape[1]):
        groups.setdefault(np.packbits(present[:, j]).tobytes(), []).append(j)
    return [(np.flatnonzero(present[:, members[0]]), members) for members in groups.values()]


def scalars_of(fit: NullFit) -> dict[str, Any]:
    """The scalar fields of the schema."""
    with np.errstate(divide="ignore"):
        log_gamma = float(np.log(fit.gamma))
    derived = {"log_gamma": log_gamma, "h_sq_neg_log10_p_value": -fit.h_sq_log_p_value / np.log(10.0) + 0.0}
    return {name: derived[name] if name in derived else getattr(fit, name) for name in SCALARS}


def beta_table(fit: NullFit, terms: Sequence[str]) -> pd.DataFrame:
    t = fit.beta / fit.beta_standard_error
    return pd.DataFrame(
        {
            "term": pd.Categorical(list(terms), categories=list(terms)),
            "estimate": fit.beta,
            "standard_error": fit.beta_standard_error,
            "statistic": t,
            "df": fit.beta_df,
            "p_value": 2.0 * stdtr(fit.beta_df, -np.abs(t)),
        },
        index=[str(term) for term in terms],
    )


def write_null(
    adata: AnnData,
    key: str,
    fitted: Sequence[FittedPhenotype],
    x: Float,
    y: Float,
    terms: tuple[str, ...],
    params: Mapping[str, Any],
) -> None:
    """Write everything that `fit_null` sets; what an earlier fit left under the same key goes."""
    names = [f.name for f in fitted]
    tables = [beta_table(f.fit, terms) for f in fitted]
    entry: dict[str, Any] = {"params": dict(params), "phenotypes": names, "schema_version": SCHEMA_VERSION}
    if len(fitted) == 1:
        entry |= scalars_of(fitted[0].fit)
        entry["beta"], entry["beta_covariance"] = tables[0], fitted[0].fit.beta_covariance
    else:
        rows = [scalars_of(f.fit) for f in fitted]
        fits = pd.DataFrame(rows, index=pd.Index(names))
        fits["status"] = pd.Categorical(fits["status"])
        entry["fits"] = fits
        long = pd.concat(
            [table.assign(phenotype=name) for name, table in zip(names, tables, strict=True)], ignore_index=True
        )
        long["term"] = pd.Categorical(long["term"], categories=list(terms))
        long["phenotype"] = pd.Categorical(long["phenotype"], categories=names)
        entry["beta"] = long.set_axis(long.index.astype(str), axis=0)[["phenotype", *tables[0].columns]]
        entry["beta_covariance"] = np.stack([f.fit.beta_covariance for f in fitted])
    columns = {name: np.full((adata.n_obs, len(fitted)), np.nan) for name in ("blup", "residual")}
    for j, f in enumerate(fitted):
        columns["blup"][f.rows, j], columns["residual"][f.rows, j] = f.blup, f.residual
    columns["phenotype"] = y
    slot, other = ("obs", "obsm") if len(fitted) == 1 else ("obsm", "obs")
    slots: dict[tuple[str, str], Any] = {("uns", key): storable(entry), ("obsm", f"{key}_design"): x}
    for name, values in columns.items():
        slots[(slot, f"{key}_{name}")] = values[:, 0] if len(fitted) == 1 else values
    remove = [(other, f"{key}_{name}") for name in columns]
    if "association" in adata.uns.get(key, {}):  # of the fit before, and its features' results with it
        fields = [field.name.format(key=key) for field in fields_of("associate") if field.slot == "var"]
        remove += [(axis, field) for axis in ("var", "varm") for field in fields]
    write_slots(adata, slots, remove=remove)


def check_null_key(adata: AnnData, key: str, variables: Sequence[str]) -> None:
    """The key must not be that of something else, nor the fields those that are read."""
    entry = adata.uns.get(key)
    if entry is not None and not (isinstance(entry, Mapping) and "beta_covariance" in entry):
        raise taken(adata, key)
    for name in variables:
        if name in {f"{key}_{field}" for field in ("design", "phenotype", "blup", "residual")}:
            raise ValueError(
                f"key_added={key!r}: {name!r} is read by this fit and would be overwritten; choose another key"
            )


def read_null(adata: AnnData, key: str) -> StoredNull:
    """The null model under `key`, on the rows that adata has now."""
    if not isinstance(key, str):
        raise TypeError(f"key: must be a string, received {key!r} of type {type(key).__name__}")
    entry = adata.uns.get(key)
    if entry is None:
        nulls = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and "beta_covariance" in v]
        holder = next((k for k in nulls if key in map(str, np.asarray(adata.uns[k].get("phenotypes", ())))), None)
        remedy = hint(key, nulls) if holder is None else f"it is a phenotype of key={holder!r}: pass phenotype={key!r}"
        raise KeyError(
            f"key={key!r}: not in adata.uns; run al.tl.fit_null(adata, ..., key_added={key!r}) first; {remedy}"
        )
    if not isinstance(entry, Mapping) or not {"phenotypes", "schema_version"} <= entry.keys() or _scan_only(entry):
        raise ValueError(
            f"key={key!r}: adata.uns[{key!r}] is not a null model of annlmm; give al.tl.fit_null another key_added"
        )
    lacking = {"params", "beta", "beta_covariance", *(() if "fits" in entry else _READ)} - entry.keys()
    if lacking:
        raise ValueError(
            f"key={key!r}: adata.uns[{key!r}] is incomplete ({', '.join(sorted(lacking))}; was it edited, or merged in a concatenation?); "
            "run al.tl.fit_null again"
        )
    check_version(entry, key, "fit_null")
    names = tuple(map(str, np.asarray(entry["phenotypes"])))
    single = "fits" not in entry
    lacking = {"reml"} - entry["params"].keys() | ({"term"} - set(entry["beta"]))
    if lacking or not (single or (set(_READ) <= set(entry["fits"]) and len(entry["fits"]) == len(names))):
        raise ValueError(
            f"key={key!r}: the parts of adata.uns[{key!r}] do not go together (was it edited?); run al.tl.fit_null again"
        )
    slot = adata.obs if single else adata.obsm
    if f"{key}_design" not in adata.obsm or f"{key}_phenotype" not in slot:
        raise KeyError(
            f"key={key!r}: adata.obsm['{key}_design'] or '{key}_phenotype' is gone; run al.tl.fit_null again"
        )
    x = np.asarray(adata.obsm[f"{key}_design"], dtype=np.float64)
    y = np.asarray(slot[f"{key}_phenotype"], dtype=np.float64).reshape(adata.n_obs, -1)
    fits = pd.DataFrame({name: [entry[name]] for name in _READ}) if single else entry["fits"]
    now, then = (~np.isnan(y)).sum(axis=0), fits["n_obs"].to_numpy(dtype=int)
    if not np.array_equal(now, then):
        raise ValueError(
            f"key={key!r}: fitted on {', '.join(map(str, then[:5]))} rows, {', '.join(map(str, now[:5]))} of them are here now; "
            "run al.tl.fit_null again on these rows"
        )
    terms, params = tuple(dict.fromkeys(map(str, entry["beta"]["term"]))), dict(entry["params"])
    if x.shape[1] != len(terms) or y.shape[1] != len(names):
        raise ValueError(
            f"key={key!r}: adata.obsm['{key}_design'] has {x.shape[1]} columns for {len(terms)} terms, '{key}_phenotype' has {y.shape[1]} for "
            f"{len(names)} phenotypes (edited?); run al.tl.fit_null again"
        )
    gamma, sigma_sq, tau_sq = (fits[name].to_numpy(dtype=np.float64) for name in ("gamma", "sigma_sq", "tau_sq"))
    scale = np.where(np.isinf(gamma), sigma_sq, tau_sq)
    rss = scale * (now - len(terms) if params["reml"] else now)
    return StoredNull(key, names, terms, x, y, gamma, rss, params)


def _scan_only(entry: Mapping[str, Any]) -> bool:
    """Results of `associate` under a key of their own."""
    return "association" in entry and not {"params", "beta", "beta_covariance"} & entry.keys()


def phenotype_number(stored: StoredNull, phenotype: str | None) -> int:
    """Which of the stored phenotypes is meant."""
    if phenotype is None:
        if len(stored.names) > 1:
            raise ValueError(
                f"phenotype: key={stored.key!r} holds {len(stored.names)}; name one of {', '.join(map(repr, stored.names[:10]))}"
            )
        return 0
    if phenotype not in stored.names:
        raise KeyError(
            f"phenotype={phenotype!r}: not among those of key={stored.key!r}; {hint(phenotype, stored.names)}"
        )
    return stored.names.index(phenotype)
