from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
from anndata import AnnData

from annlmm._settings import logger
from annlmm._slots.access import boolean_mask, check_adata, check_key, check_missing_call, feature_matrix, target
from annlmm._slots.eqtl import PairColumns, PairSink, check_eqtl_key, gene_frame, signal_frame, tell_shared, write_eqtl
from annlmm._slots.parquet import check_output
from annlmm._slots.schema import documents
from annlmm.model.eqtl import DEGREES
from annlmm.model.eqtl_cis import VARIANCES, Mapper
from annlmm.model.eqtl_genes import GeneLevel
from annlmm.model.exact import check_refit
from annlmm.tl._eqtl_arguments import (
    check_choice,
    check_conditional,
    check_interaction,
    check_number,
    check_permutations,
    check_window,
    default_df,
)  # fmt: skip
from annlmm.tl._eqtl_genotype import Genotypes
from annlmm.tl._eqtl_interaction import map_interactions, set_up_interaction
from annlmm.tl._eqtl_places import check_pairs, cis_windows, gene_status, place_both
from annlmm.tl._eqtl_run import run_cis, run_conditional, run_trans
from annlmm.tl._eqtl_setup import DEFAULT, Default, make_permute, set_up
from annlmm.tl._genes import check_missing, check_reml, check_seed, mask_text
from annlmm.tl._pass import Features


@documents("map_eqtl")
def map_eqtl(
    expression: AnnData,
    genotype: AnnData,
    donor_key: str | None = None,
    *,
    layer: str | None = None,
    genotype_layer: str | None = None,
    mask_var: Any = None,
    window: int | None = 1_000_000,
    min_maf: float = 0.05,
    covariates: Any = None,
    kernel: str | Default | None = DEFAULT,
    relatedness: Any = None,
    interaction: Any = None,
    donor_slopes: str = "random",
    reml: bool = True,
    variance: str = "screen",
    threshold: float = 1e-4,
    df: str | None = None,
    missing: str = "mean",
    missing_call: float | None = None,
    permutations: int = 0,
    rng: int = 0,
    conditional: bool = False,
    fdr: float = 0.05,
    output: Any = None,
    key_added: str = "eqtl",
    copy: bool = False,
) -> AnnData | None:
    """Map expression quantitative trait loci: every gene against the variants near it, in cells or pseudobulk.

    y ~ N(Xβ + xα, σ²K + τ²I) for each gene, x a variant, with γ = σ²/τ² of the gene's own null model. Over cells K says which
    cells share a donor (and how donors are related); the cells are read once, and every test is made of one number per donor,
    exactly: genotypes are never expanded to cells.

    Parameters
    ----------
    expression
        Donors × genes (pseudobulk, as `al.pp.pseudobulk` makes it), or cells × genes with `donor_key`. Counts should be
        transformed first. `.var` has chrom, start and, where genes lie on the reverse strand, end and strand.
    genotype
        Donors × variants: dosages of allele a1, 0 to 2, of any array type (dense, sparse, integers, on disk, dask). NaN are
        missing calls; they are filled with the mean over the matched donors that have one. `.var` has chrom, pos and perhaps
        a0, a1. Donors are matched by name, whatever their order.
    donor_key
        Column of ``expression.obs`` with the donor; None where ``expression.obs_names`` are the donors.
    layer, genotype_layer
        Layers to use instead of `.X`.
    mask_var
        Genes to map: a boolean column of ``expression.var`` or a boolean array.
    window
        Base pairs on either side of the transcription start (`end` on the reverse strand). None: all genes against all
        variants (trans); then only pairs with p-values below `threshold` are kept, and of the others their number and λ_GC.
    min_maf
        Lowest minor allele frequency among the matched donors with a call. Monomorphic variants are never tested. 0 also takes
        variants that are centred or standardised already; where outside of 0 to 2 there are only whole numbers, negative or beyond 8 (−9,
        −1, 255), they are refused as codes of missing calls.
    covariates
        Names of columns of ``expression.obs`` and keys of its `.obsm` (or one column of it, ``"X_pca[0]"``), or a formula in them, as in
        `al.tl.fit_null`; of cells or of donors. Names that only `genotype` has, such as genetic principal components in its `.obsm`, are
        taken from there.
    kernel
        Left out: over cells a random intercept per donor, on pseudobulk ordinary least squares. Otherwise the key of a kernel of
        `expression`: over cells one of `al.pp.kernel_group` of the donors, on pseudobulk any. None: ordinary least squares,
        which takes the cells of a donor for independent.
    relatedness
        Of the donors, in place of `kernel`: a DataFrame named by them, such as ``al.get.kernel(genotype)``, or the key of a
        kernel in `genotype`.
    interaction
        Contexts that a variant's effect may depend on: a column of ``expression.obs`` (a number such as pseudotime, or of two levels), a key
        of its `.obsm` (every column is a context), one column of it (``"X_pca[0]"``), or a list of these. Every variant is then
        tested by itself (additive), its product with the context given both (interaction), and the two together (joint), one context at a
        time; all contexts are covariates. A context that varies within donors is split into the donor's mean, a covariate, and the
        deviation from it, whose product with the variant is tested.
    donor_slopes
        How donors differ in their response to a context that varies within them: 'random', a random slope per donor beside the
        intercept, of a variance that is estimated; 'two-stage', one slope per donor, regressed on the genotype, for the interaction;
        'none', which takes slopes for equal and finds far too many interactions where they are not.
    reml
        Restricted (default) or full maximum likelihood for the null models.
    variance
        'null': γ stays as in the gene's null model; with few donors of unequal size p-values far below 1e-4 are then too small. 'screen': as 'null', then γ is estimated again, by REML, for pairs with
        p-values below `threshold`. 'refit': it is estimated again for every pair (with ``window=None`` for those that are kept).
    threshold
        p-value below which 'screen' refits, and with ``window=None`` pairs are kept.
    df
        Degrees of freedom of t: 'satterthwaite', which follow what the donors say of γ̂, or 'residual', n−p−1. Left out: the
        former over cells, where n−p−1 is wrong in both directions; the latter on pseudobulk, as in `al.tl.associate` and GEMMA. With
        a kernel on pseudobulk and fewer than some hundred donors 'satterthwaite' is the better calibrated (see the page on eQTL). Without a kernel they are the same.
    missing
        'mean' fills the missing values of a gene with its mean over the rows used; 'raise' refuses them by name.
    missing_call
        Number that stands for a missing call, besides NaN: −9 or −127, say, in a matrix of integers.
    permutations
        Number of permutations for the gene-level p-value (1000 is usual); 0: the combination of a gene's p-values (ACAT) alone.
    rng
        Seed of the permutations.
    conditional
        Whether to look for independent signals of the genes with q ≤ `fdr`, by forward selection: the best variant becomes a
        covariate, γ is estimated again, and so on while the gene's p-value, by permutation or ACAT, is at most the largest
        of the genes with q ≤ `fdr`.
    fdr
        See `conditional`.
    output
        Path of a parquet file for the pairs, written as they come, instead of `.uns`: for more of them than fit into memory.
        Needs pyarrow.
    key_added
        Under which the fields are written.
    copy
        Return a copy of `expression` with the fields, leaving it as it is.

    Returns
    -------
    AnnData or None
        A copy of `expression` if `copy`, otherwise None, with the fields set:

    {fields}

    Raises
    ------
    KeyError
        If a column, layer, covariate or kernel is not there.
    TypeError
        If something has the wrong type.
    ValueError
        If no donors match or fewer than five, no chromosome is in both, covariates are collinear, the kernel varies within
        donors or cannot be told from the residual, or genotypes are not dosages.
    MemoryError
        If the pairs would take more than ``al.settings.kernel_memory`` and `output` is not given.

    Notes
    -----
    Variance components of all genes: Patterson & Thompson (1971). Tests at the null's γ: Kang et al. (2010); degrees of freedom:
    Satterthwaite (1946), jointly Fai & Cornelius (1996). Permutations with beta approximation: Ongen et al. (2016), FastQTL; with a kernel or over cells of the
    whitened residuals (Huh & Jhun 2001). Combination of p-values: Liu & Xie (2020). q-values: Storey (2002).

    Examples
    --------
    >>> import annlmm as al
    >>> cells, genotype = al.datasets.sc_eqtl(30, 20, 12, n_vars=300, n_eqtl=4, n_secondary=0, n_interaction=0)
    >>> al.tl.map_eqtl(cells, genotype, "donor_id", layer="logcounts", covariates=["age", "sex"])
    >>> al.get.eqtl(cells, level="gene").shape[0]
    12
    >>> al.tl.map_eqtl(cells, genotype, "donor_id", layer="logcounts", interaction="pseudotime", key_added="context")
    >>> al.get.eqtl(cells, "context", level="gene", test="interaction", max_q_value=1.0).shape[0]
    12
    """
    start = perf_counter()
    check_adata(expression, "expression")
    check_adata(genotype, "genotype")
    check_eqtl_key(expression, check_key(key_added))
    window = check_window(window)
    trans = window is None
    min_maf = check_number("min_maf", min_maf, 0.0, 0.5)
    threshold = check_number("threshold", threshold, 0.0, 1.0, open_low=True)
    check_choice("variance", variance, VARIANCES)
    if df is not None:
        check_choice("df", df, DEGREES)
    check_reml(reml)
    check_missing(missing)
    check_seed(rng)
    missing_call = check_missing_call(missing_call)
    permutations = check_permutations(permutations, window)
    check_conditional(conditional, window)
    fdr = check_number("fdr", fdr, 0.0, 1.0, open_low=True)
    path = None if output is None else check_output(output)
    if path is not None:
        tell_shared(expression, key_added, path)
    matrix, dosages = feature_matrix(expression, layer), feature_matrix(genotype, genotype_layer)
    columns = np.flatnonzero(boolean_mask(expression, mask_var, "var", "mask_var"))
    genes, variants, note = place_both(expression, genotype, trans=trans)
    features = Features(expression, matrix, missing)
    if interaction is not None:
        check_interaction(
            donor_slopes, window=window, permutations=permutations, conditional=bool(conditional), reml=bool(reml)
        )
        contexts = set_up_interaction(
            expression, genotype, donor_key, interaction, covariates, kernel, relatedness, features, columns,
            slopes=donor_slopes,
        )  # fmt: skip
        given = {
            "donor_key": donor_key, "layer": layer, "genotype_layer": genotype_layer, "mask_var": mask_text(mask_var),
            "window": window, "min_maf": min_maf, "variance": variance, "threshold": threshold, "df": df, "missing": missing,
            "missing_call": missing_call, "donor_slopes": donor_slopes, "output": None if path is None else str(path.resolve()),
        }  # fmt: skip
        return map_interactions(
            expression, genotype, setup=contexts, matrix=dosages, columns=columns, places=(genes, variants, note),
            params=given, path=path, key_added=key_added, copy=copy,
        )  # fmt: skip
    names = PairColumns(genes, variants, trans)

    setup = set_up(
        expression, genotype, donor_key, covariates, kernel, relatedness, features, columns,
        reml=bool(reml), orthonormal=permutations > 0,
    )  # fmt: skip
    if variance != "null" and setup.space.k:
        check_refit(setup.model.space)
    grouped = setup.space.k > 0 and default_df(df, setup.several) == "satterthwaite"
    mapper = Mapper(setup.model.space, setup.space, grouped, variance, threshold)
    fitted = np.flatnonzero(np.isfinite(setup.genes.gamma))
    level = GeneLevel.empty(expression.n_vars)
    windows, order = cis_windows(genes, variants, columns[fitted], window)
    check_pairs(windows.n_pairs, path)
    permute = make_permute(setup, permutations, int(rng))
    genotypes = Genotypes(
        genotype, dosages, setup.donors.genotype_rows, order, setup.space,
        min_maf=min_maf, missing_call=missing_call, spans_constant=setup.model.design.spans_constant,
        keep_dosage=permute.q is not None,
    )  # fmt: skip
    found: dict[str, Any] = {}
    sink = PairSink(names, path)
    try:
        if trans:
            summary = run_trans(mapper, setup.genes.take(fitted), columns[fitted], genotypes, sink, level)
            found |= {"n_tests": int(summary.n_tests.sum()), "lambda_gc": summary.lambda_gc}
        else:
            place = np.searchsorted(columns, np.arange(expression.n_vars))
            run_cis(mapper, setup.genes, place, windows, genotypes, permute(setup.space, permute.q), sink, level)
        pairs = sink.finish(found.get("n_tests"))
        status = gene_status(setup.status, genes, level, columns, trans=trans)
        table, found["pi0"] = gene_frame(level, names, columns, status, setup.null_fits())
        tables: dict[str, Any] = {"pairs": pairs, "genes": table}
        note = "; ".join(text for text in (note, genotypes.report()) if text)
        if conditional:
            p_gene = table["p_beta" if permutations else "p_acat"].to_numpy()
            chosen = table["q_value"].to_numpy() <= fdr
            own = windows.of(columns[chosen])
            found["threshold_gene"] = cut = float(p_gene[chosen].max(initial=0.0))
            signals = run_conditional(
                mapper, setup.genes, place, own, genotypes, permute, permute.q, cut, reml=bool(reml)
            )
            tables["signals"] = signal_frame(names, signals)
        sink.close()
    except BaseException:
        sink.abort()
        raise
    params = {
        "donor_key": donor_key,
        "layer": layer,
        "genotype_layer": genotype_layer,
        "mask_var": mask_text(mask_var),
        "window": window,
        "min_maf": min_maf,
        "covariates": setup.covariates,
        "kernel": setup.kernel,
        "reml": bool(reml),
        "variance": variance if setup.space.k else "null",
        "threshold": threshold,
        "df": "satterthwaite" if grouped else "residual",
        "missing": missing,
        "missing_call": missing_call,
        "permutations": permutations,
        "rng": int(rng),
        "conditional": conditional,
        "fdr": fdr if conditional else None,
        "output": None if path is None else str(path.resolve()),
        "n_donors": int(setup.donors.counts.size),
        "n_obs": int(setup.donors.rows.size),
        "n_pairs": sink.n_pairs,
        "run": sink.run,
        **found,
    }
    out = target(expression, copy)
    write_eqtl(out, key_added, params, tables)
    logger.info(f"    {note}")
    kept = f" of {found['n_tests']} with p < {threshold:g}, λ_GC {found['lambda_gc']:.3f}" if trans else ""
    logger.info(
        f"    {table['status'].isin(['ok', 'boundary']).sum()} of {columns.size} genes mapped ({setup.kernel}): {sink.n_pairs} pairs{kept}, "
        f"{int((table['q_value'] <= fdr).sum())} genes with q ≤ {fdr:g}"
        + (f", {len(tables['signals'])} signals" if conditional else "")
    )
    logger.info(f"    wrote .uns[{key_added!r}]{f' and {path}' if path else ''} ({perf_counter() - start:.1f} s)")
    return out if copy else None
