"""Results of eQTL mapping to `.uns` and back: pairs of genes and variants, and genes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import logger
from annlmm._slots.access import SCHEMA_VERSION, hint, storable, taken, write_slots
from annlmm._slots.pair import Genes, Variants
from annlmm._slots.parquet import ROW_GROUP, PairFile
from annlmm._slots.results import adjust
from annlmm._slots.version import check_version, entry_of
from annlmm.model.association import STATUS
from annlmm.model.combine import storey_q_value
from annlmm.model.eqtl_cis import Pairs
from annlmm.model.eqtl_conditional import Signal
from annlmm.model.eqtl_genes import SMALLEST, GeneLevel

Float = NDArray[np.float64]
Index = NDArray[np.intp]

# Of a gene: those of `STATUS`, and why it was not tested against any variant.
GENE_STATUS = (*STATUS, "unplaced", "no_variants")
UNPLACED, NO_VARIANTS = len(STATUS), len(STATUS) + 1
LEVELS = ("pair", "gene", "signal")


def coded(codes: Index, names: Any) -> pd.Categorical:
    """Categories in the order in which they appear; −1 is missing."""
    found, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    order = order[found[order] >= 0]
    place = np.full(found.size, -1, dtype=np.intp)
    place[order] = np.arange(order.size)
    return pd.Categorical.from_codes(place[inverse], categories=pd.Index(np.asarray(names, dtype=object)[found[order]]))


@dataclass(frozen=True)
class PairColumns:
    """What is known of genes and variants, beside the numbers of a test.

    Attributes
    ----------
    genes, variants
        Their tables, over the same chromosomes where they are placed.
    trans
        Whether pairs may lie on different chromosomes.
    """

    genes: Genes
    variants: Variants
    trans: bool

    def of_variants(self, gene: Index, variant: Index) -> dict[str, Any]:
        """Place and alleles of variants, −1 for none; the distance is missing where there is none."""
        variants, none = self.variants, variant < 0
        out: dict[str, Any] = {"variant": coded(variant, variants.names)}
        if self.genes.placed.any() and variants.placed.any():
            chrom, pos = np.where(none, -1, variants.chrom[variant]), np.where(none, -1, variants.pos[variant])
            out["chrom"] = pd.Categorical.from_codes(chrom, categories=pd.Index(list(variants.chromosomes)))
            out["pos"] = pos
            near = (chrom >= 0) & (chrom == self.genes.chrom[gene]) & (pos >= 0) & (self.genes.tss[gene] >= 0)
            distance = self.genes.distance(gene, pos)
            out["distance"] = np.where(near, distance, np.nan) if self.trans or none.any() else distance
        for name in ("a0", "a1"):
            alleles = getattr(variants, name)
            if alleles is not None:
                codes, names = pd.factorize(alleles[variant])
                out[name] = coded(np.where(none, -1, codes), names)
        return out

    def of_pairs(self, pairs: Pairs) -> dict[str, Any]:
        """All columns of pairs."""
        return {
            "gene": coded(pairs.gene, self.genes.names),
            **self.of_variants(pairs.gene, pairs.variant),
            "maf": pairs.maf,
            "n": pairs.n.astype(np.int64),
            "beta": pairs.beta,
            "standard_error": pairs.standard_error,
            "statistic": pairs.statistic,
            "df": pairs.df,
            "p_value": p_values(pairs.log_p_value),
            "neg_log10_p_value": -pairs.log_p_value / np.log(10.0) + 0.0,
            "status": pd.Categorical.from_codes(pairs.status, categories=pd.Index(list(STATUS))),
        }


class PairSink:
    """Takes pairs (of `kind`) as they come; holds them, or a row group of them where there is a file."""

    def __init__(self, columns: PairColumns, path: Path | None, kind: Any = Pairs) -> None:
        self.kind, self.columns, self.held, self.n_held, self.n_pairs = kind, columns, [kind.empty()], 0, 0
        self.file = None if path is None else PairFile(path)

    def add(self, pairs: Any) -> None:
        self.held.append(pairs)
        self.n_held += pairs.size
        self.n_pairs += pairs.size
        if self.file is not None and self.n_held >= ROW_GROUP:
            self._flush(self.file)

    def _flush(self, file: PairFile) -> None:
        file.write(self.columns.of_pairs(self.kind.join(self.held)))
        self.held, self.n_held = [self.kind.empty()], 0

    def finish(self, n_tests: int | None = None) -> pd.DataFrame | None:
        """All pairs; None where they are in the file, which then is complete but not yet under its name.

        With the number of tests, Benjamini and Hochberg's p-values over these, of which the pairs are the smallest.
        """
        if self.file is None:
            columns = self.columns.of_pairs(self.kind.join(self.held))
            if n_tests is not None:
                status = columns.pop("status")
                columns |= {"p_adjusted": _adjust_kept(columns["p_value"], n_tests), "status": status}
            return pd.DataFrame(columns, copy=False)
        if self.n_held or not self.n_pairs:
            self._flush(self.file)
        return None

    @property
    def run(self) -> str | None:
        """What tells the pairs in the file from those of another run; None where there is no file."""
        return None if self.file is None else self.file.run

    def close(self) -> None:
        """Give the file its name."""
        if self.file is not None:
            self.file.close()

    def abort(self) -> None:
        if self.file is not None:
            self.file.abort()


def _adjust_kept(p: Float, n_tests: int) -> Float:
    """Benjamini–Hochberg for the smallest p-values of `n_tests`."""
    order = np.argsort(p)[::-1]
    out = np.empty_like(p)
    out[order] = np.minimum(np.minimum.accumulate(p[order] * n_tests / np.arange(p.size, 0, -1)), 1.0)
    return out


def p_values(log_p: Float) -> Float:
    """Never 0: what underflows is the smallest float."""
    return np.maximum(np.exp(log_p), SMALLEST)


def gene_frame(
    level: GeneLevel, columns: PairColumns, chosen: Index, status: NDArray[np.int8], fitted: Mapping[str, Float]
) -> tuple[pd.DataFrame, float]:
    """One row per gene in `chosen`, and the estimated share of genes without an eQTL.

    Parameters
    ----------
    level
        Of all genes of `expression`.
    status
        Of the chosen genes, an index into `GENE_STATUS`.
    fitted
        γ and h² of the chosen genes, or nothing for least squares.
    """
    names = np.asarray(columns.genes.names, dtype=object)[chosen]
    own = {name: getattr(level, name)[chosen] for name in vars(level)}
    best = p_values(own["log_p_value"])
    out: dict[str, Any] = {"gene": names, "n_variants": own["n_variants"].astype(np.int64)}
    out |= columns.of_variants(chosen, own["variant"])
    for name in ("maf", "beta", "standard_error", "statistic", "df"):
        out[name] = own[name]
    out["p_value"], out["neg_log10_p_value"] = best, -own["log_p_value"] / np.log(10.0) + 0.0
    if columns.trans:
        overall = out["p_bonferroni"] = np.minimum(best * own["n_variants"], 1.0)
    else:
        overall = out["p_acat"] = own["p_acat"]
        if np.isfinite(own["p_beta"]).any():
            for name in ("p_permutation", "p_beta", "permutation_df", "beta_shape1", "beta_shape2"):
                out[name] = own[name]
            overall = own["p_beta"]
    out["p_adjusted"] = adjust(overall)
    out["q_value"], pi0 = storey_q_value(overall)
    out |= fitted
    out["status"] = pd.Categorical.from_codes(status, categories=pd.Index(list(GENE_STATUS)))
    return pd.DataFrame(out, index=pd.Index(names)), pi0


def signal_frame(columns: PairColumns, signals: list[list[Signal]]) -> pd.DataFrame:
    """One row per gene and signal, in the order of their selection."""
    every = [signal for own in signals for signal in own]
    table = columns.of_pairs(Pairs.join([Pairs.empty(), *(signal.pair for signal in every)]))
    ranks = [np.arange(1, len(own) + 1) for own in signals]
    out = {"gene": table.pop("gene"), "rank": np.concatenate([np.zeros(0, dtype=np.int64), *ranks])}
    status = table.pop("status")
    return pd.DataFrame(
        out | table | {"p_gene": np.array([signal.p_gene for signal in every], dtype=np.float64), "status": status}
    )


def check_eqtl_key(adata: AnnData, key: str) -> None:
    """The key must be free, or that of an earlier mapping."""
    entry = adata.uns.get(key)
    if entry is not None and not _is_eqtl(entry):
        raise taken(adata, key)


def tell_shared(adata: AnnData, key: str, path: Path) -> None:
    """Warn of results under other keys whose pairs are in this file, which will be replaced."""
    for other, entry in adata.uns.items():
        if other != key and _is_eqtl(entry) and str(entry["params"].get("output", "")) == str(path.resolve()):
            logger.warning(
                f"output: {str(path)!r} holds the pairs of key={other!r}, which will be replaced; give each key an output= of its own"
            )


def _is_eqtl(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "genes" in entry and "params" in entry


def write_eqtl(adata: AnnData, key: str, params: Mapping[str, Any], tables: Mapping[str, pd.DataFrame | None]) -> None:
    """Write the parameters and the tables that there are; what was under the key goes."""
    entry = {"params": dict(params), **tables, "schema_version": SCHEMA_VERSION}
    write_slots(adata, {("uns", key): storable(entry)})


def read_eqtl(adata: AnnData, key: str, level: str, path: Path | None) -> tuple[pd.DataFrame | Path, pd.DataFrame]:
    """The table of a level, or the file that holds it, and that of the genes."""
    entry = entry_of(adata, key)
    if not _is_eqtl(entry):
        known = [k for k, v in adata.uns.items() if _is_eqtl(v)]
        raise KeyError(
            f"key={key!r}: no eQTL there; run al.tl.map_eqtl(expression, genotype, key_added={key!r}) first; {hint(key, known)}"
        )
    check_version(entry, key, "map_eqtl")
    genes = entry["genes"].copy()
    if level == "gene":
        return genes, genes
    if level == "signal":
        if "signals" not in entry:
            raise KeyError(f"level='signal': key={key!r} has none; run al.tl.map_eqtl with conditional=True")
        return entry["signals"].copy(), genes
    if "pairs" in entry:
        return entry["pairs"].copy(), genes
    if path is None and "output" not in entry["params"]:
        raise ValueError(
            f"key={key!r}: adata.uns[{key!r}] is incomplete (pairs; was it edited?); pass path= of the file, or run al.tl.map_eqtl again"
        )
    return Path(str(entry["params"]["output"])) if path is None else path, genes


def run_of(adata: AnnData, key: str) -> str | None:
    """The run whose pairs are in a file, where it was noted."""
    run = adata.uns[key]["params"].get("run")
    return None if run is None else str(run)


def with_unknown_positions(table: pd.DataFrame, *, always: bool) -> pd.DataFrame:
    """The position as a nullable integer, missing where it is stored as −1; a table of placed variants alone stays as it is."""
    if "pos" in table and (always or (table["pos"] < 0).any()):
        pos = table["pos"].astype("Int64")
        return table.assign(pos=pos.mask(pos < 0))
    return table


def named_in_var(adata: AnnData, name: str) -> str:
    """Where a name that is none of `.var_names` stands in a column of `.var`, for a message; "" if nowhere."""
    for column in adata.var.columns:
        values = adata.var[column]
        if not isinstance(values.dtype, (pd.CategoricalDtype, pd.StringDtype)) and values.dtype != object:
            continue
        own = [str(found) for found in adata.var_names[values.astype(object).eq(name).to_numpy(dtype=bool)]]
        if own:
            return f"found in adata.var[{column!r}]: pass gene={(own if len(own) > 1 else own[0])!r}"
    return ""
