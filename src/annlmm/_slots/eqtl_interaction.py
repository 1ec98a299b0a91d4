"""Results of eQTL mapping with contexts: the columns of pairs and genes for the interaction and for both effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annlmm._slots.eqtl import PairColumns, gene_frame
from annlmm.model.eqtl_genes import GeneLevel
from annlmm.model.eqtl_interaction import TESTS
from annlmm.model.eqtl_interaction_cis import InteractionPairs

Float = NDArray[np.float64]
Index = NDArray[np.intp]

# What a gene's best variant of a test has in the table.
OF_BEST = ("variant", "beta", "standard_error", "statistic", "df", "p_value", "neg_log10_p_value")
OF_GENE = ("p_acat", "p_adjusted", "q_value")


@dataclass(frozen=True)
class InteractionColumns(PairColumns):
    """Columns of pairs with contexts.

    Attributes
    ----------
    contexts
        Their names.
    """

    contexts: tuple[str, ...]

    def of_pairs(self, pairs: Any) -> dict[str, Any]:
        found: InteractionPairs = pairs
        columns = super().of_pairs(found.of_test("additive"))
        status = columns.pop("status")
        gene = {"gene": columns.pop("gene"), "context": self.categorical(found.context)}
        for test in TESTS[1:]:
            own = super().of_pairs(found.of_test(test))
            for name in ("beta", "standard_error", "statistic", "df", "p_value", "neg_log10_p_value"):
                if test == "interaction" or name not in ("beta", "standard_error"):
                    columns[prefixed(test, name)] = own[name]
        return gene | columns | {"status": status}

    def categorical(self, codes: Index) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, categories=pd.Index(list(self.contexts), dtype=object))


def prefixed(test: str, name: str) -> str:
    """The column of a test: −log₁₀ of column x is neg_log10_x, as the plots have it."""
    if test == "additive":
        return name
    return f"neg_log10_{test}_p_value" if name == "neg_log10_p_value" else f"{test}_{name}"


def interaction_gene_frame(
    levels: list[dict[str, GeneLevel]],
    columns: InteractionColumns,
    chosen: Index,
    status: list[NDArray[np.int8]],
    fitted: list[Mapping[str, Float]],
) -> tuple[pd.DataFrame, dict[str, Float]]:
    """One row per context and gene in `chosen`, and the share of genes without an effect by test and context.

    Parameters
    ----------
    levels
        Of each context, `GeneLevel` of all genes by test.
    status, fitted
        As of `gene_frame`, of each context.
    """
    frames, pi0 = [], {f"pi0_{test}": np.ones(len(levels)) for test in TESTS}
    for j, level in enumerate(levels):
        found = {}
        for test in TESTS:
            found[test], pi0[f"pi0_{test}"][j] = gene_frame(level[test], columns, chosen, status[j], fitted[j])
        parts: dict[str, Any] = {}
        for name, values in found["additive"].items():
            parts[str(name)] = values
            if name == "gene":
                parts["context"] = columns.categorical(np.full(len(values), j))
            if name == "q_value":
                parts |= {
                    prefixed(test, own): found[test][own]
                    for test in TESTS[1:]
                    for own in (*OF_BEST, *OF_GENE)
                    if test == "interaction" or own not in ("beta", "standard_error")
                }
        frame = pd.DataFrame(parts, index=found["additive"].index)
        frames.append(frame)
    return _stacked(frames), pi0


def _stacked(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One below the other; categories of names are those of all."""
    if len(frames) == 1:
        return frames[0]
    for name in frames[0]:
        if isinstance(frames[0][name].dtype, pd.CategoricalDtype):
            categories = frames[0][name].cat.categories
            for frame in frames[1:]:
                categories = categories.union(frame[name].cat.categories, sort=False)
            for frame in frames:
                frame[name] = frame[name].cat.set_categories(categories)
    return pd.concat(frames)


def check_interaction(genes: pd.DataFrame, key: str, test: str, context: str | None) -> None:
    """A test of an interaction, or a context, that is there."""
    if "context" not in genes:
        if test == "additive" and context is None:
            return
        asked = f"context={context!r}" if test == "additive" else f"test={test!r}"
        raise KeyError(f"{asked}: key={key!r} has no contexts; run al.tl.map_eqtl with interaction=")
    known = list(map(str, genes["context"].cat.categories))
    if context is not None and context not in known:
        raise KeyError(f"context={context!r}: not among those of key={key!r}, which are {', '.join(map(repr, known))}")


def of_same(table: pd.DataFrame, genes: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows of a table that are of one of these genes with the same context."""
    pairs = pd.MultiIndex.from_arrays([table["gene"].astype(str), table["context"].astype(str)])
    known = pd.MultiIndex.from_arrays([genes["gene"].astype(str), genes["context"].astype(str)])
    return np.asarray(pairs.isin(known))
