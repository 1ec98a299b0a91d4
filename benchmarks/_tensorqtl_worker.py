"""tensorQTL on donors and genotypes of a folder; runs in an environment that `_install.py` made."""

import contextlib
import io
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _remote import clock, serve

with contextlib.redirect_stdout(io.StringIO()):  # a word about R, which is for q-values only
    from tensorqtl import cis

folder, window = Path(sys.argv[1]), int(sys.argv[2])
dosage = np.load(folder / "dosage.npy")  # variants × donors
expression = np.load(folder / "expression.npy")  # genes × donors
donors = [f"donor_{d}" for d in range(dosage.shape[1])]
genes = pd.read_csv(folder / "genes.csv", index_col=0).rename(columns={"chrom": "chr", "start": "pos"})
variants = pd.read_csv(folder / "variants.csv", index_col=0)
genotype = pd.DataFrame(dosage, index=variants.index, columns=donors)
phenotype = pd.DataFrame(expression, index=genes.index, columns=donors)
covariates = pd.DataFrame(np.load(folder / "covariates.npy"), index=donors)


def map_nominal() -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        cis.map_nominal(
            genotype, variants, phenotype, genes, "pairs", covariates, window=window, output_dir=str(folder), verbose=False
        )  # fmt: skip


def map_cis(number: int, count: int) -> pd.DataFrame:
    with contextlib.redirect_stdout(io.StringIO()):
        return cis.map_cis(
            genotype, variants, phenotype.iloc[:number], genes.iloc[:number], covariates, nperm=count, window=window, seed=1,
            verbose=False, warn_monomorphic=False,
        )  # fmt: skip


def nominal() -> dict:
    return clock(map_nominal)


def permutations(number: int, count: int) -> dict:
    return clock(lambda: map_cis(number, count))


def results(number: int, count: int) -> dict:
    """Pairs are where the last `nominal` wrote them."""
    pairs = pd.concat(pd.read_parquet(file) for file in sorted(folder.glob("pairs.cis_qtl_pairs.*.parquet")))
    pairs[["phenotype_id", "variant_id", "pval_nominal", "slope", "slope_se"]].to_csv(folder / "pairs.csv", index=False)
    map_cis(number, count)["pval_beta"].to_csv(folder / "genes_p.csv")
    return {}


def versions() -> dict:
    return {"text": f"tensorQTL {version('tensorqtl')} (torch {torch.__version__}, numpy {np.__version__})"}


serve({f.__name__: f for f in (nominal, permutations, results, versions)})
