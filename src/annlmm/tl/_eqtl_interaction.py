"""`map_eqtl(interaction=)`: genotype × context, from two AnnData to tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from tqdm.auto import tqdm

from annlmm._settings import logger, settings
from annlmm._slots.access import target
from annlmm._slots.design import design_matrix
from annlmm._slots.eqtl import PairSink, write_eqtl
from annlmm._slots.eqtl_interaction import InteractionColumns, interaction_gene_frame
from annlmm._slots.kernel import usable_rows
from annlmm._slots.pair import Donors, Genes, Variants, match_donors
from annlmm._slots.relatedness import check_kernel_key
from annlmm.model.association import ALL_MISSING, BOUNDARY, COLLINEAR, CONSTANT, NOT_CONVERGED, OK
from annlmm.model.basis import Basis, GroupBasis, no_kernel
from annlmm.model.design import Design, make_design
from annlmm.model.donor_space import DonorSpace, make_donor_space
from annlmm.model.eqtl import check_degrees
from annlmm.model.eqtl_cis import Windows, tiles
from annlmm.model.eqtl_genes import GeneLevel
from annlmm.model.eqtl_interaction import TESTS, make_block, place_context
from annlmm.model.eqtl_interaction_cis import ContextFits, InteractionMapper, InteractionPairs, fit_context
from annlmm.model.eqtl_interaction_fit import upper_bounds
from annlmm.model.eqtl_interaction_sums import ContextBasis, make_context_reduction
from annlmm.model.eqtl_variants import VariantBlock
from annlmm.model.null import NullModel
from annlmm.model.parallel import map_blocks
from annlmm.model.scan import clean_copy
from annlmm.model.statistics import FeatureStatistics, feature_statistics
from annlmm.tl._eqtl_arguments import default_df
from annlmm.tl._eqtl_genotype import Genotypes
from annlmm.tl._eqtl_interaction_context import DonorContexts, read_contexts, sources, split_contexts
from annlmm.tl._eqtl_places import check_pairs, cis_windows, gene_status
from annlmm.tl._eqtl_setup import DEFAULT, Default, _basis, donor_covariates, names_of, with_donor_covariates
from annlmm.tl._pass import Features, collect_statistics

Float = NDArray[np.float64]
Index = NDArray[np.intp]

# Variants × rows that are tested at a time: some ten arrays of them are made.
TILE = 2**19
# The q-value at which genes are counted in the log.
SHOWN = 0.05


@dataclass(frozen=True)
class InteractionSetup:
    """The null model of every gene with every context.

    Attributes
    ----------
    donors, contexts
        Those that are used.
    space
        Coordinates of the donors without a kernel, for what is collinear with the covariates.
    fits, status
        Of each context; the status of each gene.
    spans_constant, several, intercept
        Whether the design spans the constant, donors have several rows, and there is a kernel.
    covariates, kernel
        As text.
    """

    donors: Donors
    contexts: DonorContexts
    space: DonorSpace
    fits: list[ContextFits]
    status: list[NDArray[np.int8]]
    spans_constant: bool
    several: bool
    intercept: bool
    covariates: str
    kernel: str


def set_up_interaction(
    expression: AnnData,
    genotype: AnnData,
    donor_key: str | None,
    interaction: Any,
    covariates: Any,
    kernel: str | Default | None,
    relatedness: Any,
    features: Features,
    columns: Index,
    *,
    slopes: str,
) -> InteractionSetup:
    """Match, split the contexts, read the cells once, and fit every gene of `columns` with each context."""
    if relatedness is not None and kernel is not DEFAULT:
        raise ValueError(
            f"relatedness: says what the kernel of the donors is, and so does kernel={kernel!r}; pass one of them"
        )
    annotated = with_donor_covariates(expression, genotype, donor_key, covariates)
    asked = donor_covariates(annotated, genotype, donor_key, covariates)
    with_contexts = with_donor_covariates(expression, genotype, donor_key, sources(interaction))
    contexts = read_contexts(with_contexts, interaction, names_of(genotype))
    usable = asked.complete & contexts.complete
    if isinstance(kernel, str):
        check_kernel_key(expression, genotype, kernel)
        usable = usable & usable_rows(expression, kernel)
    donors = match_donors(expression, genotype, donor_key, usable=usable)
    lacking = int((asked.complete & ~contexts.complete).sum())
    more = f"; {lacking} observations without a value of {', '.join(contexts.names)} left out" if lacking else ""
    logger.info(f"map_eqtl: {donors.report()}{more}")
    x, terms = design_matrix(annotated, asked, donors.rows)
    split, design = split_contexts(contexts, donors.rows, donors.codes, make_design(x, terms))
    if split.between:
        logger.info(
            f"    constant within donors: {', '.join(split.between)}; without slopes, and tested as what donors differ in"
        )
    basis, described = _basis(expression, genotype, kernel, relatedness, donors)
    named = kernel if isinstance(kernel, str) else "relatedness" if relatedness is not None else "kernel"
    NullModel(design, basis, kernel=named)  # refuses a kernel that cannot be told from the residual
    space = make_donor_space(NullModel(design, no_kernel(design.n)), donors.codes)
    check_degrees(NullModel(design, no_kernel(design.n)).space, space)
    statistics, status, t, context_basis = _sums(features, donors, columns, design, split)
    related, intercept = _relatedness(basis, donors), basis.rank > 0
    main, size = make_block(context_basis.counts, related), donors.counts.size
    fits, all_status = [], []
    for j, place in enumerate(split.place):
        within = place >= 0
        part = slice((1 + place) * size, (2 + place) * size)
        placed = place_context(
            main,
            make_block(context_basis.spreads[place], related) if within else None,
            None if within else split.donor[j],
            (t[:size], t[part] if within else None),
            (statistics.u[:size], statistics.u[part] if within else None),
            statistics.norm,
            design.n,
            intercept=intercept,
            slopes=slopes,
        )
        fits.append(fit_context(placed, status == OK))
        all_status.append(_fit_status(fits[-1], status))
    return InteractionSetup(
        donors, split, space, fits, all_status, design.spans_constant, bool(donors.counts.max() > 1), intercept, asked.text, described
    )  # fmt: skip


def _sums(
    features: Features, donors: Donors, columns: Index, design: Design, contexts: DonorContexts
) -> tuple[FeatureStatistics, NDArray[np.int8], Float, ContextBasis]:
    """The cells, read once: statistics and status of the genes, coordinates of X."""
    basis = ContextBasis(donors.codes, contexts.deviation)
    reduction, space = make_context_reduction(design, basis)
    nothing = np.zeros((donors.rows.size, 0))

    def again(block: Any) -> tuple[FeatureStatistics, NDArray[np.bool_]]:
        filled, empty = clean_copy(block, refuse_missing=features.refuse_missing)
        return feature_statistics(filled, nothing, design, basis, space), empty

    statistics, empty = collect_statistics(features, donors.rows, columns, reduction, again, "map_eqtl: genes")
    status = np.where(statistics.collinear, COLLINEAR, OK)
    status = np.where(empty, ALL_MISSING, np.where(statistics.constant, CONSTANT, status)).astype(np.int8)
    return statistics, status, space.angles.t, basis


def _relatedness(basis: Basis, donors: Donors) -> Float | None:
    """K_d; None for independent donors and for least squares."""
    if isinstance(basis, GroupBasis) and donors.counts.max() > 1:
        return basis.relatedness
    if not basis.rank:
        return None
    u = basis.expand(np.eye(basis.rank))[np.argsort(donors.codes)]
    return np.asarray((u * basis.eigenvalues) @ u.T)


def _fit_status(fits: ContextFits, status: NDArray[np.int8]) -> NDArray[np.int8]:
    out, kappa = status.copy(), fits.placed.strata.kappa
    fine = status == OK
    with np.errstate(invalid="ignore"):
        edge = ((fits.gamma <= 0) | (fits.gamma >= upper_bounds(kappa))).any(axis=1)
    out[fine & edge] = BOUNDARY
    out[fine & ~fits.converged] = NOT_CONVERGED
    return out


def run_interactions(
    mapper: InteractionMapper,
    setup: InteractionSetup,
    place: Index,
    windows: Windows,
    genotypes: Genotypes,
    sink: PairSink,
    levels: list[dict[str, GeneLevel]],
) -> None:
    """Test every gene of `windows` against its variants with every context, into `sink` and `levels`."""

    def items() -> Iterator[tuple[int, VariantBlock]]:
        for tile in tiles(windows, genotypes.most):
            block = genotypes.between(int(tile.low.min()), int(tile.high.max()))
            for gene, low, high in zip(tile.gene, tile.low, tile.high, strict=True):
                first, last = np.searchsorted(block.index, [low, high])
                yield int(gene), block.slice(int(first), int(last))

    def test(item: tuple[int, VariantBlock]) -> list[InteractionPairs]:
        gene, block = item
        g = int(place[gene])
        width = max(64, TILE // setup.fits[0].placed.strata.size)
        parts = [block.slice(start, min(start + width, block.size)) for start in range(0, block.size, width)]
        return [
            InteractionPairs.join(
                [mapper.test(fits, g, gene, j, float(setup.contexts.scale[j]), part) for part in parts]
            )
            for j, fits in enumerate(setup.fits)
            if parts
        ]

    with tqdm(total=windows.gene.size, desc="map_eqtl", unit=" genes", disable=not settings.progress, delay=3.0) as bar:
        for found in map_blocks(test, items(), settings.threads):
            for j, pairs in enumerate(found):
                numbered = InteractionPairs(**(vars(pairs) | {"variant": genotypes.order[pairs.variant]}))
                for name in TESTS:
                    levels[j][name].put(int(numbered.gene[0]), numbered.of_test(name))
                sink.add(numbered)
            bar.update(1)


def map_interactions(
    expression: AnnData,
    genotype: AnnData,
    *,
    setup: InteractionSetup,
    matrix: Any,
    columns: Index,
    places: tuple[Genes, Variants, str],
    params: dict[str, Any],
    path: Any,
    key_added: str,
    copy: bool,
) -> AnnData | None:
    """The pairs and tables of a setup, written to the slots; `params` are the arguments of `map_eqtl`."""
    start = perf_counter()
    genes, variants, note = places
    names = InteractionColumns(genes, variants, False, setup.contexts.names)
    grouped = setup.intercept and default_df(params["df"], setup.several) == "satterthwaite"
    mapper = InteractionMapper(grouped, params["variance"], params["threshold"])
    testable = np.isin(setup.status[0], (OK, BOUNDARY, NOT_CONVERGED))
    windows, order = cis_windows(genes, variants, columns[testable], params["window"])
    check_pairs(windows.n_pairs * len(setup.fits), path)
    genotypes = Genotypes(
        genotype, matrix, setup.donors.genotype_rows, order, setup.space,
        min_maf=params["min_maf"], missing_call=params["missing_call"], spans_constant=setup.spans_constant, keep_dosage=True,
    )  # fmt: skip
    levels = [{test: GeneLevel.empty(expression.n_vars) for test in TESTS} for _ in setup.fits]
    place = np.searchsorted(columns, np.arange(expression.n_vars))
    sink = PairSink(names, path, InteractionPairs)
    try:
        run_interactions(mapper, setup, place, windows, genotypes, sink, levels)
        pairs = sink.finish()
        status = [
            gene_status(own, genes, level["additive"], columns, trans=False)
            for own, level in zip(setup.status, levels, strict=True)
        ]
        table, pi0 = interaction_gene_frame(levels, names, columns, status, [_variances(fits) for fits in setup.fits])
        sink.close()
    except BaseException:
        sink.abort()
        raise
    params = params | {
        "covariates": setup.covariates,
        "kernel": setup.kernel,
        "interaction": setup.contexts.names,
        "interaction_between": setup.contexts.between,
        "variance": params["variance"] if setup.intercept else "null",
        "df": "satterthwaite" if grouped else "residual",
        "n_donors": int(setup.donors.counts.size),
        "n_obs": int(setup.donors.rows.size),
        "n_pairs": sink.n_pairs,
        "run": sink.run,
        **pi0,
    }
    out = target(expression, copy)
    write_eqtl(out, key_added, params, {"pairs": pairs, "genes": table})
    report = "; ".join(text for text in (note, genotypes.report()) if text)
    counts = ", ".join(
        f"{int((own['interaction_q_value'] <= SHOWN).sum())} with {name}"
        for name, own in table.groupby("context", observed=True)
    )
    logger.info(f"    {report}")
    tested = np.any([np.isin(own, (OK, BOUNDARY)) for own in status], axis=0)
    logger.info(
        f"    {int(tested.sum())} of {columns.size} genes mapped ({setup.kernel}): {sink.n_pairs} pairs; genes with an interaction at q ≤ {SHOWN:g}: {counts}"
    )
    logger.info(f"    wrote .uns[{key_added!r}]{f' and {path}' if path else ''} ({perf_counter() - start:.1f} s)")
    return out if copy else None


def _variances(fits: ContextFits) -> dict[str, Float]:
    """γ of intercepts and slopes, those that there are."""
    names = ("gamma", "gamma_slope")[: fits.gamma.shape[1]]
    return {name: fits.gamma[:, j] for j, name in enumerate(names)}
