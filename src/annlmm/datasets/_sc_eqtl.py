from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from annlmm.datasets._arguments import fraction, generator, integer
from annlmm.datasets._donors import _GENE_VARIANCE, _ICC_CONCENTRATION, _OTHER_COUNTS, _cells
from annlmm.datasets._gwas_cohort import _numbered, _structure, _variants
from annlmm.datasets._linkage import linked_dosages

_SPACING = 5_000
_MIN_CAUSAL_MAF = 0.1
_CIS, _CIS_SECONDARY = 100_000, 500_000
# Share of pseudotime's variance that lies between donors.
_BETWEEN = 0.1
_N_BATCHES = 3
# Genes are drawn some at a time: memory stays bounded, and the order of the draws is part of the result.
_BLOCK = 100

Float = NDArray[np.float64]


def sc_eqtl(
    n_donors: int = 100,
    cells_per_donor: int | Sequence[int] = 50,
    n_genes: int = 100,
    *,
    n_vars: int = 2000,
    n_chrom: int = 2,
    n_eqtl: int = 30,
    n_secondary: int = 5,
    n_interaction: int = 10,
    icc: float = 0.2,
    rho: float = 0.0,
    slope: float = 0.01,
    n_populations: int = 1,
    fst: float = 0.05,
    family_size: int = 1,
    missing: float = 0.01,
    rng: int | np.random.Generator = 0,
) -> tuple[AnnData, AnnData]:
    r"""Simulate single cells of genotyped donors with known eQTLs: cells × genes and donors × variants.

    Genotypes are in linkage disequilibrium over some 100 kb. The log rate of gene g in cell c of donor d is

    .. math::
        \eta_{cg} = \mu_g + \sum_j x_{dj}\,(\beta_{gj} + \theta_{gj} s_c) + (\kappa_g + b_{dg})\, s_c
        + \text{age}_d + \text{sex}_d + \text{batch}_d + u_{dg} + e_{cg},

    with x the dosages about their means, :math:`s_c = \text{pseudotime}_c - ½`, and

    .. math::
        u_g \sim N(0, \sigma_g^2(\rho K + (1 - \rho) I)), \qquad b_{dg} \sim N(0, \omega_g^2), \qquad
        e_{cg} \sim N(0, \tau_g^2),

    where K is the standardised GRM of the variants, the default of :func:`annlmm.pp.kernel_grm` (``min_maf=0``). Counts
    are Poisson with rate :math:`d_c \exp(\eta_{cg})`, :math:`d_c` the depth of the cell; the genes are a small part of a
    transcriptome of about 10,000 counts per cell.

    Parameters
    ----------
    n_donors
        Number of donors, at least 4.
    cells_per_donor
        Mean number of cells per donor, whose numbers then vary with a coefficient of variation around 0.5; or the
        number of each donor.
    n_genes, n_vars, n_chrom
        Numbers of genes, of variants (5 kb apart on average) and of chromosomes (which hold equally many of both).
    n_eqtl
        Number of genes with an eQTL: a variant within 100 kb of the start of the gene (the nearest, if none is), with a
        minor allele frequency of 0.1 or more and :math:`|\beta|` of 0.2 to 0.5 (natural log).
    n_secondary
        How many of these have a second one within 500 kb: of those variants, the least correlated with the first.
    n_interaction
        How many of these interact with pseudotime, at their first variant: :math:`|\theta|` of 0.6 to 1.2.
    icc
        Share of the donors in :math:`\sigma_g^2 + \tau_g^2 = 0.4`, in [0, 1), on average over genes.
    rho
        Share of the donor effect that follows the genotypes, in [0, 1]: small effects of every variant, which related
        donors share, and which inflate tests without K among unrelated donors too.
    slope
        Variance that the donors' slopes :math:`b_{dg}` add, in [0, 1), relative to :math:`\tau_g^2`:
        :math:`\omega_g^2 = 12 \cdot \text{slope} \cdot \tau_g^2`, since pseudotime has a variance of 1/12. It makes a
        genotype × pseudotime test with a donor intercept alone anticonservative.
    n_populations, fst, family_size
        Structure of the donors as in :func:`annlmm.datasets.gwas_cohort`; by default unrelated and of one population.
    missing
        Fraction of calls that are missing at random in the genotypes, in [0, 1). Expression is made from the complete
        calls.
    rng
        Seed, or a Generator (which is advanced).

    Returns
    -------
    expression : AnnData of cells × n_genes, with

        `.X` : csr_matrix of float32
            Counts.
        `.layers["logcounts"]` : csr_matrix of float32
            ``log1p(1e4 * counts / total_counts)``.
        `.layers["log_rate"]` : ndarray of float32
            :math:`\eta_{cg}`, for which the truth holds exactly.
        `.obs["donor_id"]` : categorical
            The cells of a donor stand together.
        `.obs["pseudotime"]` : float64
            Uniform in (0, 1) over all cells; about a tenth of its variance lies between donors.
        `.obs["cell_type"]` : categorical (progenitor, mature)
            Pseudotime below ½, or above.
        `.obs["age"]` : float64; `.obs["sex"]`, `.obs["batch"]` : categorical
            Constant within donors.
        `.obs["total_counts"]` : int64
            Counts of the cell over its whole transcriptome.
        `.var["chrom"]` : categorical; `.var["start"]`, `.var["end"]` : int64; `.var["strand"]` : categorical (+, -)
            A gene begins at `start` on the forward strand and at `end` on the reverse.
        `.var["true_sigma_sq"]`, `.var["true_tau_sq"]`, `.var["true_slope_variance"]` : float64
            :math:`\sigma_g^2, \tau_g^2, \omega_g^2`.
        `.var["eqtl"]`, `.var["interaction"]` : bool
            Whether a gene has an eQTL, and whether it interacts with pseudotime.
        `.uns["truth"]` : dict
            ``pairs``: DataFrame with gene, variant, beta, interaction (:math:`\theta`, per unit of pseudotime) and rank
            (1, or 2 for a second one), in the order of the genes; ``icc``, ``rho``, ``slope``.
    genotype : AnnData of n_donors × n_vars, with

        `.X` : ndarray of float32
            Number of copies (0, 1, 2) of ``.var["a1"]``; NaN where missing.
        `.obs["population"]`, `.obs["family"]`, `.obs["sex"]` : categorical; `.obs["age"]` : float64
            Donors have the same names, ages and sexes as in `expression`.
        `.var["chrom"]` : categorical; `.var["pos"]` : int64; `.var["a0"]`, `.var["a1"]` : categorical
            Alleles are A, C, G or T.
        `.var["causal"]` : bool
            Whether a variant is in ``pairs``.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or lies outside its range, or a gene has no variant to choose from.

    Examples
    --------
    >>> import annlmm as al
    >>> expression, genotype = al.datasets.sc_eqtl(20, 10, 12, n_vars=200, n_eqtl=4, n_secondary=1, n_interaction=2)
    >>> expression.n_vars, genotype.shape
    (12, (20, 200))
    >>> expression.obs["donor_id"].cat.categories.equals(genotype.obs_names)
    True
    >>> expression.uns["truth"]["pairs"]["gene"].nunique()
    4
    """
    n_donors = integer(n_donors, "n_donors", 4)
    n_genes = integer(n_genes, "n_genes", 1)
    n_vars = integer(n_vars, "n_vars", 2)
    n_chrom = integer(n_chrom, "n_chrom", 1, min(n_genes, n_vars), " (n_genes, n_vars)")
    n_eqtl = integer(n_eqtl, "n_eqtl", 0, n_genes, " (n_genes)")
    n_secondary = integer(n_secondary, "n_secondary", 0, n_eqtl, " (n_eqtl)")
    n_interaction = integer(n_interaction, "n_interaction", 0, n_eqtl, " (n_eqtl)")
    n_populations = integer(n_populations, "n_populations", 1, n_donors, " (n_donors)")
    family_size = integer(family_size, "family_size", 1)
    icc, fst, slope, missing = (
        fraction(value, name, one=False)
        for value, name in ((icc, "icc"), (fst, "fst"), (slope, "slope"), (missing, "missing"))
    )
    rho = fraction(rho, "rho")
    cells = _cells(cells_per_donor, n_donors)
    random = generator(rng)

    population, family = _structure(n_donors, n_populations, family_size)
    variants = _variants(random, n_vars, n_chrom)
    chrom = variants["chrom"].cat.codes.to_numpy()
    variants["pos"] = _positions(random, chrom, n_chrom)
    dosages = linked_dosages(random, population, family, chrom, variants["pos"].to_numpy(), fst)
    genes = _genes(random, n_genes, variants["chrom"], variants["pos"].to_numpy())
    pairs = _pairs(random, genes, variants, dosages, n_eqtl, n_secondary, n_interaction)

    if isinstance(cells, int):
        cells = np.maximum(random.poisson(cells * random.gamma(4, 0.25, n_donors)), 1)
    donors = _donors(random, n_donors)
    cell_obs = _cell_obs(random, donors, cells)
    gene_icc = np.zeros(n_genes)
    if icc > 0:
        gene_icc = random.beta(_ICC_CONCENTRATION * icc, _ICC_CONCENTRATION * (1 - icc), n_genes)
    genes["true_sigma_sq"] = _GENE_VARIANCE * gene_icc
    genes["true_tau_sq"] = _GENE_VARIANCE * (1 - gene_icc)
    genes["true_slope_variance"] = 12 * slope * genes["true_tau_sq"]

    expression = _expression(random, cell_obs, donors, genes, dosages, pairs, rho)
    expression.uns["truth"] = {"pairs": _named(pairs, genes, variants), "icc": icc, "rho": rho, "slope": slope}
    variants["causal"] = np.isin(np.arange(n_vars), pairs["variant"])
    x = dosages.astype(np.float32)
    if missing > 0:
        x[random.random(x.shape) < missing] = np.nan
    cohort = donors[["age", "sex"]].assign(
        population=_numbered("population", population), family=_numbered("family", family)
    )
    return expression, AnnData(X=x, obs=cohort, var=variants)


def _positions(random: np.random.Generator, chrom: NDArray[np.integer], n_chrom: int) -> NDArray[np.int64]:
    gap = random.geometric(1 / _SPACING, chrom.size)
    pos = np.empty(chrom.size, dtype=np.int64)
    for c in range(n_chrom):
        pos[chrom == c] = np.cumsum(gap[chrom == c])
    return pos


def _genes(random: np.random.Generator, n_genes: int, chrom: pd.Series, pos: NDArray[np.int64]) -> pd.DataFrame:
    """Genes spread over the range of the variants of each chromosome, in the order of the genome."""
    categories = chrom.cat.categories
    codes = np.arange(n_genes, dtype=np.int64) * len(categories) // n_genes
    middle = np.empty(n_genes, dtype=np.int64)
    for c in range(len(categories)):
        here = pos[chrom.cat.codes.to_numpy() == c]
        middle[codes == c] = np.sort(random.integers(here[0], here[-1] + 1, int((codes == c).sum())))
    length = random.integers(5_000, 100_000, n_genes)
    start = np.maximum(middle - length // 2, 1)
    return pd.DataFrame(
        {
            "chrom": pd.Categorical.from_codes(codes, categories=categories),
            "start": start,
            "end": start + length,
            "strand": pd.Categorical.from_codes(random.integers(0, 2, n_genes), categories=pd.Index(["+", "-"])),
        },
        index=pd.Index([f"gene_{g + 1:0{len(str(n_genes))}d}" for g in range(n_genes)]),
    )


def _pairs(
    random: np.random.Generator,
    genes: pd.DataFrame,
    variants: pd.DataFrame,
    dosages: NDArray[np.int8],
    n_eqtl: int,
    n_secondary: int,
    n_interaction: int,
) -> pd.DataFrame:
    """Numbers of gene and variant of each eQTL, and its effects."""
    frequency = dosages.mean(axis=0, dtype=np.float64) / 2
    usable = np.minimum(frequency, 1 - frequency) >= _MIN_CAUSAL_MAF
    tss = np.where(genes["strand"] == "-", genes["end"], genes["start"])
    gene_chrom, chrom = genes["chrom"].cat.codes.to_numpy(), variants["chrom"].cat.codes.to_numpy()
    chosen = random.permutation(len(genes))[:n_eqtl]
    rows: list[tuple[int, int, int]] = []
    for k, g in enumerate(chosen.tolist()):
        candidates = np.flatnonzero(usable & (chrom == gene_chrom[g]))
        if candidates.size < 1 + (k < n_secondary):
            raise ValueError(
                f"n_eqtl: chromosome {genes['chrom'].iloc[g]!r} has {candidates.size} variants with a minor allele frequency of "
                f"{_MIN_CAUSAL_MAF} or more to choose from; raise `n_vars` or `n_donors`, or lower `n_eqtl`, `n_secondary`"
            )
        distance = np.abs(variants["pos"].to_numpy()[candidates] - tss[g])
        near = candidates[distance <= max(_CIS, int(distance.min()))]
        first = int(near[random.integers(near.size)])
        rows.append((g, first, 1))
        if k < n_secondary:
            second = candidates[distance <= max(_CIS_SECONDARY, int(np.partition(distance, 1)[1]))]
            second = second[second != first]
            rows.append((g, int(second[np.argmin(_squared_correlation(dosages, first, second))]), 2))
    pairs = pd.DataFrame(rows, columns=["gene", "variant", "rank"], dtype=np.int64)
    sign = 2 * random.integers(0, 2, (2, len(rows))) - 1
    pairs["beta"] = sign[0] * random.uniform(0.2, 0.5, len(rows))
    interacts = pairs["gene"].isin(random.permutation(chosen)[:n_interaction]) & (pairs["rank"] == 1)
    pairs["interaction"] = np.where(interacts, sign[1] * random.uniform(0.6, 1.2, len(rows)), 0.0)
    genes["eqtl"] = np.isin(np.arange(len(genes)), chosen)
    genes["interaction"] = np.isin(np.arange(len(genes)), pairs["gene"][interacts])
    return pairs.sort_values(["gene", "rank"], ignore_index=True)


def _squared_correlation(dosages: NDArray[np.int8], one: int, others: NDArray[np.int64]) -> Float:
    """r² from integer sums: no rounding depends on the machine."""
    n, x, z = len(dosages), dosages[:, one].astype(np.int64), dosages[:, others].astype(np.int64)
    covariance = n * (x @ z) - x.sum() * z.sum(axis=0)
    variance = (n * (z * z).sum(axis=0) - z.sum(axis=0) ** 2) * (n * (x @ x) - x.sum() ** 2)
    return np.asarray(covariance.astype(np.float64) ** 2 / variance)


def _donors(random: np.random.Generator, n_donors: int) -> pd.DataFrame:
    batch = random.permutation(np.arange(n_donors) % _N_BATCHES)
    return pd.DataFrame(
        {
            "age": random.integers(200, 801, n_donors) / 10,
            "sex": pd.Categorical.from_codes(random.integers(0, 2, n_donors), categories=pd.Index(["female", "male"])),
            "batch": pd.Categorical.from_codes(
                batch, categories=pd.Index([f"batch_{b + 1}" for b in range(_N_BATCHES)])
            ),
        },
        index=pd.Index([f"donor_{d + 1:0{len(str(n_donors))}d}" for d in range(n_donors)]),
    )


def _cell_obs(random: np.random.Generator, donors: pd.DataFrame, cells: NDArray[np.int64]) -> pd.DataFrame:
    from scipy.special import ndtr

    donor = np.repeat(np.arange(len(donors), dtype=np.int64), cells)
    between, within = random.standard_normal(len(donors)), random.standard_normal(donor.size)
    # Rounded because the last bit of a normal probability depends on the machine.
    pseudotime = np.round(ndtr(np.sqrt(_BETWEEN) * between[donor] + np.sqrt(1 - _BETWEEN) * within), 9)
    types = pd.Categorical.from_codes((pseudotime > 0.5).astype(int), categories=pd.Index(["progenitor", "mature"]))
    names = pd.Index([f"cell_{c + 1:0{len(str(donor.size))}d}" for c in range(donor.size)])
    donor_id = pd.Categorical.from_codes(donor, categories=donors.index)
    own = pd.DataFrame({"donor_id": donor_id, "pseudotime": pseudotime, "cell_type": types}, index=names)
    return pd.concat([own, donors.iloc[donor].set_axis(names, axis=0)], axis=1)


def _expression(
    random: np.random.Generator,
    obs: pd.DataFrame,
    donors: pd.DataFrame,
    genes: pd.DataFrame,
    dosages: NDArray[np.int8],
    pairs: pd.DataFrame,
    rho: float,
) -> AnnData:
    donor = obs["donor_id"].cat.codes.to_numpy()
    s = obs["pseudotime"].to_numpy() - 0.5
    covariates = np.column_stack([(donors["age"] - 50) / 20, donors["sex"] == "male", pd.get_dummies(donors["batch"])])
    polygenic = dosages - dosages.mean(axis=0, dtype=np.float64)
    polygenic = polygenic[:, polygenic.any(axis=0)]
    polygenic /= polygenic.std(axis=0) * np.sqrt(polygenic.shape[1])
    depth = np.exp(0.3 * random.standard_normal(donor.size))
    log_rate = np.empty((donor.size, len(genes)), dtype=np.float32)
    counts = []
    for start in range(0, len(genes), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(genes)))
        width = block.stop - block.start
        sigma, tau, omega = (
            np.sqrt(genes[f"true_{name}"].to_numpy()[block]) for name in ("sigma_sq", "tau_sq", "slope_variance")
        )
        follows = polygenic @ random.standard_normal((polygenic.shape[1], width))
        of_donor = sigma * (np.sqrt(rho) * follows + np.sqrt(1 - rho) * random.standard_normal((len(donors), width)))
        of_donor += covariates @ random.normal(0, 0.1, (covariates.shape[1], width)) + random.normal(0, 1, width)
        of_slope = random.normal(0, 0.5, width) + omega * random.standard_normal((len(donors), width))
        for g, variant, beta, theta in pairs[["gene", "variant", "beta", "interaction"]].itertuples(index=False):
            if block.start <= g < block.stop:
                x = dosages[:, variant] - dosages[:, variant].mean(dtype=np.float64)
                of_donor[:, g - start] += beta * x
                of_slope[:, g - start] += theta * x
        eta = of_donor[donor] + of_slope[donor] * s[:, None] + tau * random.standard_normal((donor.size, width))
        # Rounded because the last bits of a matrix product depend on the machine.
        eta = np.round(eta, 6)
        log_rate[:, block] = eta
        counts.append(sparse.csr_matrix(random.poisson(depth[:, None] * np.exp(eta)).astype(np.float32)))
    matrix = sparse.csr_matrix(sparse.hstack(counts, format="csr"))
    # The whole transcriptome normalises: by these genes alone, every real effect would push the others the other way.
    total = np.asarray(matrix.sum(axis=1)).ravel().astype(np.int64) + random.poisson(depth * _OTHER_COUNTS)
    logcounts = matrix.copy()
    logcounts.data = np.log1p(1e4 * matrix.data / np.repeat(total, np.diff(matrix.indptr))).astype(np.float32)
    layers = {"logcounts": logcounts, "log_rate": log_rate}
    return AnnData(X=matrix, obs=obs.assign(total_counts=total), var=genes, layers=layers)


def _named(pairs: pd.DataFrame, genes: pd.DataFrame, variants: pd.DataFrame) -> pd.DataFrame:
    """Names for numbers, as text that h5ad and zarr keep."""
    names = {
        "gene": genes.index[pairs["gene"]].to_numpy(dtype=object),
        "variant": variants.index[pairs["variant"]].to_numpy(dtype=object),
    }
    return pairs.assign(**names).set_axis(pairs.index.astype(str), axis=0)[
        ["gene", "variant", "beta", "interaction", "rank"]
    ]
