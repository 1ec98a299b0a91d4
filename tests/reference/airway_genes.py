"""The 12 genes of sc_small_airway as a table for genes.R: python airway_genes.py <h5ad> <reference tsv> <output csv>."""

import sys

import anndata as ad
import numpy as np
import pandas as pd

path, reference, out = sys.argv[1:]
genes = pd.read_csv(reference, sep="\t")["gene"]
adata = ad.read_h5ad(path)
adata = adata[adata.obs["celltype"] == "Secretory cell"]
counts = adata[:, genes].X.toarray()
table = pd.DataFrame(np.log1p(1e4 * counts / adata.obs["nCount_RNA"].to_numpy()[:, None]), columns=genes)
table["Genotype"], table["pig"] = adata.obs["Genotype"].to_numpy(), adata.obs["orig.ident"].to_numpy()
table.to_csv(out, index=False, float_format="%.17g")
