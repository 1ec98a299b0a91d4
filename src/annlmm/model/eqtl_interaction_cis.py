"""Genes against the variants in their windows, with one context: the null's (γ_u, γ_v) for all pairs, estimated again where it matters."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from annlmm.model.association import BOUNDARY, COLLINEAR, NOT_CONVERGED, OK
from annlmm.model.design import COLLINEAR_TOLERANCE
from annlmm.model.eqtl import PairTests, log_t_sf
from annlmm.model.eqtl_cis import Pairs
from annlmm.model.eqtl_interaction import Placed
from annlmm.model.eqtl_interaction_fit import fit_from, fit_null, upper_bounds
from annlmm.model.eqtl_interaction_tests import GeneRows, InteractionTests, joint_test, screen, wald
from annlmm.model.eqtl_variants import VariantBlock
from annlmm.model.responses_tests import joint_df

Float = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class InteractionPairs:
    """Tests of pairs with contexts, one after the other.

    Attributes
    ----------
    gene, variant, context
        Their numbers.
    beta, standard_error, statistic, df, log_p_value
        Of the variant.
    interaction_beta, interaction_standard_error, interaction_statistic, interaction_df, interaction_log_p_value
        Of variant × context given the variant, per unit of the context.
    joint_statistic, joint_df, joint_log_p_value
        F of both.
    maf, n
        Minor allele frequency and number of the donors with a call.
    status
        Index into `association.STATUS`.
    """

    gene: Index
    variant: Index
    context: Index
    beta: Float
    standard_error: Float
    statistic: Float
    df: Float
    log_p_value: Float
    interaction_beta: Float
    interaction_standard_error: Float
    interaction_statistic: Float
    interaction_df: Float
    interaction_log_p_value: Float
    joint_statistic: Float
    joint_df: Float
    joint_log_p_value: Float
    maf: Float
    n: Index
    status: NDArray[np.int8]

    @property
    def size(self) -> int:
        return self.gene.size

    def of_test(self, test: str) -> Pairs:
        """One of the tests alone."""
        nothing = np.full(self.size, np.nan)
        first = "" if test == "additive" else f"{test}_"
        names = ("beta", "standard_error", "statistic", "df", "log_p_value")
        values = {name: getattr(self, first + name, nothing) for name in names}
        return Pairs(self.gene, self.variant, **values, maf=self.maf, n=self.n, status=self.status)

    def take(self, chosen: Index | slice) -> InteractionPairs:
        return InteractionPairs(*(getattr(self, f.name)[chosen] for f in fields(self)))

    @staticmethod
    def join(parts: list[InteractionPairs]) -> InteractionPairs:
        return InteractionPairs(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(InteractionPairs))
        )

    @staticmethod
    def empty() -> InteractionPairs:
        whole = {"gene": np.intp, "variant": np.intp, "context": np.intp, "n": np.intp, "status": np.int8}
        return InteractionPairs(
            **{f.name: np.zeros(0, whole.get(f.name, np.float64)) for f in fields(InteractionPairs)}
        )


@dataclass(frozen=True)
class ContextFits:
    """Null models of G genes with one context.

    Attributes
    ----------
    placed
        Rows and genes.
    gamma
        G × J, NaN where there is no fit.
    converged
        Whether the steps came to an end, G.
    slopes
        The same of the donors' slopes by themselves; None where they are not asked for.
    """

    placed: Placed
    gamma: Float
    converged: NDArray[np.bool_]
    slopes: ContextFits | None = None


def fit_context(placed: Placed, fitted: NDArray[np.bool_]) -> ContextFits:
    """(γ_u, γ_v) of the genes that can be fitted."""
    strata, genes = placed.strata, placed.genes
    gamma = np.full((fitted.size, len(strata.kappa)), np.nan)
    ended = np.zeros(fitted.size, dtype=bool)
    gamma[fitted], ended[fitted] = fit_null(genes.y[:, fitted], strata.t, genes.rest[fitted], strata.kappa, strata.n)
    slopes = None if placed.slopes is None else fit_context(placed.slopes, fitted)
    return ContextFits(placed, gamma, ended, slopes)


@dataclass(frozen=True)
class InteractionMapper:
    """What every pair is tested with.

    Attributes
    ----------
    satterthwaite
        Whether degrees of freedom are those of the donors.
    variance, threshold
        As of `eqtl_cis.Mapper`.
    """

    satterthwaite: bool
    variance: str
    threshold: float

    def test(
        self, fits: ContextFits, g: int, gene: int, context: int, scale: float, block: VariantBlock
    ) -> InteractionPairs:
        """One gene (number g of `fits`) against the variants of a block, which holds dosages.

        Parameters
        ----------
        gene, context
            Their numbers in the result.
        scale
            Units of the context to one of its standard deviation, in which it is tested.
        """
        dosage = np.array(block.dosage, dtype=np.float64)
        dosage[np.isnan(block.norm)] = np.nan
        main, product = fits.placed.strata.features(dosage)
        tests = screen(_rows(fits, g), main, product, satterthwaite=self.satterthwaite)
        if fits.slopes is not None:
            # What is tested is in the place of g, and there is no product.
            slope = fits.slopes.placed.strata.features(dosage)[1]
            alone = screen(_rows(fits.slopes, g), slope, np.zeros_like(slope), satterthwaite=False).additive
            tests = _beside(tests.additive, alone)
        status = np.where(np.isfinite(tests.additive.beta), OK, COLLINEAR).astype(np.int8)
        if not (fits.converged[g] and (fits.slopes is None or fits.slopes.converged[g])):
            status[status == OK] = NOT_CONVERGED
        for i in self._again(tests, status):
            new, status[i] = self._refit(fits, g, main[i], product[i], dosage[i : i + 1])
            tests.assign(int(i), new)
        a, z = tests.additive, tests.interaction
        return InteractionPairs(
            np.full(block.size, gene), block.index, np.full(block.size, context),
            a.beta, a.standard_error, a.statistic, a.df, a.log_p_value,
            z.beta / scale, z.standard_error / scale, z.statistic, z.df, z.log_p_value,
            tests.joint.statistic, tests.joint.df, tests.joint.log_p_value,
            block.maf, block.n_called, status,
        )  # fmt: skip

    def _again(self, tests: InteractionTests, status: NDArray[np.int8]) -> Index:
        """Pairs for which γ is estimated again."""
        present = status != COLLINEAR
        if self.variance == "refit":
            return np.flatnonzero(present)
        additive, interaction, joint = tests.additive, tests.interaction, tests.joint
        # NaN: the null's γ has absorbed the effect, whatever was asked for.
        again = np.isnan(additive.log_p_value)
        again |= np.isfinite(interaction.beta) & (np.isnan(interaction.log_p_value) | np.isnan(joint.log_p_value))
        if self.variance == "screen":
            for part in (additive, interaction, joint):
                again |= part.log_p_value < np.log(self.threshold)
        return np.flatnonzero(present & again)

    def _refit(
        self, fits: ContextFits, g: int, main: Float, product: Float, dosage: Float
    ) -> tuple[InteractionTests, int]:
        """γ estimated again with g, and with g and the product."""
        (additive,), flag, gamma = self._fitted(fits, g, fits.gamma[g], main[:, None])
        if fits.slopes is not None:
            slope = fits.slopes.placed.strata.features(dosage)[1].T
            (interaction,), also, _ = self._fitted(fits.slopes, g, fits.slopes.gamma[g], slope, satterthwaite=False)
            return _beside(additive, interaction), max(flag, also)
        rows = _rows(fits, g, gamma, main[:, None])
        left, whole = rows.features(product[None])[0], rows.root * product
        if not left @ left > COLLINEAR_TOLERANCE**2 * (whole @ whole):
            nothing = np.full(1, np.nan)
            untested = PairTests(*(nothing.copy() for _ in range(5)))
            return InteractionTests(additive, untested, joint_test(nothing, nothing, nothing)), flag
        (beside, interaction), also, _ = self._fitted(fits, g, gamma, np.column_stack([main, product]))
        df = joint_df(np.stack([beside.df, interaction.df], axis=1))
        joint = joint_test(beside.statistic, interaction.statistic, df)
        return InteractionTests(additive, interaction, joint), max(flag, also)

    def _fitted(
        self, fits: ContextFits, g: int, start: Float, columns: Float, *, satterthwaite: bool = True
    ) -> tuple[list[PairTests], int, Float]:
        """Tests of the columns, each given those before it, the status and γ̂."""
        strata = fits.placed.strata
        y, rest = fits.placed.genes.take(g)
        gamma, ended = fit_from(y, np.column_stack([strata.t, columns]), rest, strata.kappa, strata.n, start)
        edge = bool(((gamma <= 0) | (gamma >= upper_bounds(strata.kappa))).any())
        found = wald(
            _rows(fits, g, gamma, columns), columns.shape[1], at_boundary=edge,
            satterthwaite=satterthwaite and self.satterthwaite,
        )  # fmt: skip
        tests = []
        for beta, standard_error, df in zip(*(values[:, None] for values in found), strict=True):
            t = beta / standard_error
            tests.append(PairTests(beta, standard_error, t, df, log_t_sf(t, df)))
        return tests, NOT_CONVERGED if not ended else BOUNDARY if edge else OK, gamma


def _rows(fits: ContextFits, g: int, gamma: Float | None = None, columns: Float | None = None) -> GeneRows:
    """One gene, at its γ or another, perhaps with more columns."""
    strata = fits.placed.strata
    t = strata.t if columns is None else np.column_stack([strata.t, columns])
    return GeneRows(strata, *fits.placed.genes.take(g), fits.gamma[g] if gamma is None else gamma, t)


def _beside(additive: PairTests, interaction: PairTests) -> InteractionTests:
    """Jointly, of estimates from donors' means and from their slopes, which are independent."""
    df = joint_df(np.stack([additive.df, interaction.df], axis=1))
    return InteractionTests(additive, interaction, joint_test(additive.statistic, interaction.statistic, df))
