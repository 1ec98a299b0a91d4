"""From two AnnData to the model of eQTL mapping: matched donors, covariates, kernel, and all genes at the null."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from annlmm._settings import logger, settings
from annlmm._slots.design import Covariates, design_matrix, obsm_frame, read_covariates
from annlmm._slots.kernel import usable_rows
from annlmm._slots.pair import Donors, match_donors
from annlmm._slots.relatedness import check_kernel_key, donor_basis, read_relatedness, stored_basis
from annlmm.model.association import ALL_MISSING
from annlmm.model.basis import Basis, GroupBasis, no_kernel
from annlmm.model.design import make_design
from annlmm.model.donor_space import DonorSpace, make_donor_space
from annlmm.model.eqtl import EqtlGenes, check_degrees, place_genes
from annlmm.model.eqtl_permutation import Permutations
from annlmm.model.null import NullModel
from annlmm.model.responses import Responses, coordinates, fit_responses
from annlmm.tl._genes import gene_statistics
from annlmm.tl._pass import Features

Index = NDArray[np.intp]


class Default(Enum):
    """Stands for an argument that was left out, where None has a meaning of its own."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "<default>"


DEFAULT = Default.DEFAULT


@dataclass(frozen=True)
class Setup:
    """The null model of every gene.

    Attributes
    ----------
    donors
        Those in both, and their rows.
    model
        Covariates and kernel on these rows.
    space
        Coordinates of the donors.
    genes, fits, status
        The genes that are mapped, in `space`, their null fits and status.
    covariates
        As text.
    kernel
        In words.
    """

    donors: Donors
    model: NullModel
    space: DonorSpace
    genes: EqtlGenes
    fits: Responses
    status: NDArray[np.int8]
    covariates: str
    kernel: str

    @property
    def several(self) -> bool:
        """Whether donors have several rows: cells."""
        return bool(self.donors.counts.max() > 1)

    def null_fits(self) -> dict[str, NDArray[np.float64]]:
        """γ and h² of the genes; nothing for least squares."""
        return {"gamma": self.fits.gamma, "h_sq": self.fits.h_sq} if self.space.k else {}


@dataclass(frozen=True)
class Permute:
    """Makes permutations: of the donors' labels where they are exchangeable, of the whitened coordinates elsewhere.

    Attributes
    ----------
    count, seed
        Of the permutations.
    q
        D × p basis of the fixed effects, where labels are permuted.
    spans_constant
        Whether it spans the constant.
    """

    count: int
    seed: int
    q: NDArray[np.float64] | None
    spans_constant: bool

    def __call__(self, space: DonorSpace, q: NDArray[np.float64] | None) -> Permutations | None:
        if not self.count:
            return None
        return Permutations(
            space, self.count, np.random.default_rng(self.seed), q=q, spans_constant=self.spans_constant
        )


def make_permute(setup: Setup, count: int, seed: int) -> Permute:
    design, labels = setup.model.design, bool(count) and not setup.space.k and not setup.several
    q = design.q[np.argsort(setup.donors.codes)] if labels else None
    return Permute(count, seed, q, design.spans_constant)


def set_up(
    expression: AnnData,
    genotype: AnnData,
    donor_key: str | None,
    covariates: Any,
    kernel: str | Default | None,
    relatedness: Any,
    features: Features,
    columns: Index,
    *,
    reml: bool,
    orthonormal: bool,
) -> Setup:
    """Match, fit, and place every gene of `columns`; `orthonormal` coordinates are those that may be permuted."""
    if relatedness is not None and kernel is not DEFAULT:
        raise ValueError(
            f"relatedness: says what the kernel of the donors is, and so does kernel={kernel!r}; pass one of them"
        )
    annotated = with_donor_covariates(expression, genotype, donor_key, covariates)
    asked = donor_covariates(annotated, genotype, donor_key, covariates)
    usable = asked.complete
    if isinstance(kernel, str):
        check_kernel_key(expression, genotype, kernel)
        usable = usable & usable_rows(expression, kernel)
    donors = match_donors(expression, genotype, donor_key, usable=usable)
    logger.info(f"map_eqtl: {donors.report()}")
    x, terms = design_matrix(annotated, asked, donors.rows)
    basis, described = _basis(expression, genotype, kernel, relatedness, donors)
    design, named = (
        make_design(x, terms),
        kernel if isinstance(kernel, str) else "relatedness" if relatedness is not None else "kernel",
    )
    model = NullModel(design, basis, reml=reml, kernel=named)
    space = make_donor_space(model, donors.codes, orthonormal=orthonormal)
    check_degrees(model.space, space)
    independent = NullModel(design, GroupBasis(donors.codes), identifiable=False)
    statistics, empty = gene_statistics(
        features, donors.rows, columns, independent, np.zeros((donors.rows.size, 0)), "map_eqtl: genes"
    )
    if donors.counts.max() > 1:
        u = basis.coordinates.rotate(statistics.u) if isinstance(basis, GroupBasis) else statistics.u[:0]
    else:
        u = basis.project(statistics.u[donors.codes])
    fits = fit_responses(
        model, coordinates(replace(statistics, u=u), model.space), simulate=False, threads=settings.threads
    )
    status = np.where(empty, ALL_MISSING, fits.status).astype(np.int8)
    return Setup(donors, model, space, place_genes(statistics, fits, space), fits, status, asked.text, described)


def _basis(
    expression: AnnData, genotype: AnnData, kernel: str | Default | None, relatedness: Any, donors: Donors
) -> tuple[Basis, str]:
    """The kernel on the rows that are used, and what it is."""
    cells = donors.counts.max() > 1
    if kernel is None:
        if cells:
            logger.warning(
                "kernel=None: least squares over cells takes the cells of a donor for independent, and far too many variants "
                "for associated; leave kernel out for a random intercept per donor"
            )
        return no_kernel(donors.rows.size), "least squares"
    if isinstance(kernel, str):
        return stored_basis(expression, kernel, donors), f"kernel {kernel!r}"
    related = None if relatedness is None else read_relatedness(relatedness, expression, genotype, donors)
    what = "least squares on donors" if not cells else "independent donors"
    return donor_basis(donors.codes, related), what if related is None else "related donors"


def names_of(genotype: AnnData) -> tuple[str, ...]:
    """What covariates and contexts may be, beside those of `expression`."""
    return (*map(str, genotype.obs.columns), *map(str, genotype.obsm))


def donor_covariates(annotated: AnnData, genotype: AnnData, donor_key: str | None, covariates: Any) -> Covariates:
    """Covariates of cells and donors (of `with_donor_covariates`), without the donor itself."""
    asked = read_covariates(annotated, covariates, "expression", names_of(genotype))
    if donor_key is not None and donor_key in asked.variables:
        raise ValueError(
            f"covariates: {donor_key!r} is donor_key, and a fixed effect of the donor leaves nothing of a variant, which is constant within donors; "
            "leave it out: the donor is the random effect"
        )
    return asked


def with_donor_covariates(expression: AnnData, genotype: AnnData, donor_key: str | None, covariates: Any) -> AnnData:
    """`expression`, or its annotations and those covariates that only `genotype` has (such as genetic principal components)."""
    asked = [covariates] if isinstance(covariates, str) else covariates if isinstance(covariates, (list, tuple)) else []
    words = {word for text in asked if isinstance(text, str) for word in (text, *re.findall(r"[^\W\d]\w*", text))}
    known = {*map(str, expression.obs.columns), *expression.obsm}
    both = sorted(word for word in words if word in expression.obsm and word in genotype.obsm)
    if both:
        logger.info(f"map_eqtl: {', '.join(both)}: in expression.obsm and in genotype.obsm; that of expression is used")
    lacking = sorted(word for word in words - known if word in genotype.obs.columns or word in genotype.obsm)
    if not lacking:
        return expression
    donors = match_donors(expression, genotype, donor_key)
    row = np.full(expression.n_obs, -1, dtype=np.intp)
    row[donors.rows] = donors.genotype_rows[donors.codes]
    obs, obsm = expression.obs.copy(), {key: expression.obsm[key] for key in expression.obsm}
    for name in lacking:
        source = genotype.obs[[name]] if name in genotype.obs.columns else obsm_frame(genotype, name)
        # A row of no donor has none.
        taken = source.set_axis(np.arange(len(source)), axis=0).reindex(row).set_axis(obs.index, axis=0)
        if name in genotype.obs.columns:
            obs[name] = taken[name]
        else:
            obsm[name] = taken
    return AnnData(obs=obs, obsm=obsm)
