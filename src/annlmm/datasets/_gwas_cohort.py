from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from annlmm.datasets._arguments import fraction, generator, integer

_BETA = {"Intercept": 10.0, "age": 0.02, "C(sex)[T.male]": 0.5}
# Variants are drawn block by block: memory stays bounded, and the order of the draws is part of the result.
_BLOCK = 1000
_MIN_CAUSAL_MAF = 0.1


def gwas_cohort(
    n_obs: int = 500,
    n_vars: int = 2000,
    *,
    n_chrom: int = 5,
    h_sq: float = 0.5,
    n_causal: int = 3,
    causal_share: float = 0.6,
    n_populations: int = 5,
    fst: float = 0.05,
    family_size: int = 3,
    missing: float = 0.0,
    rng: int | np.random.Generator = 0,
) -> AnnData:
    r"""Simulate a structured cohort with a heritable quantitative trait, donors × variants.

    Donors come from populations that drifted apart (Balding–Nichols: allele frequencies Beta-distributed around an
    ancestral one in [0.1, 0.9] with variance :math:`F_{ST}\,p(1-p)`) and in families of full siblings. Variants are
    independent given the parents: there is no linkage disequilibrium. With M the centred dosages, the phenotype is

    .. math::
        y = 10 + 0.02\,\text{age} + 0.5\,[\text{male}] + \sum_{j \in C} m_j b_j + \sum_{j \notin C} m_j a_j + e,
        \qquad e \sim N(0, \tau^2 I)

    with few strong causal variants C, each of which explains exactly the same variance (m_j is column j of M), and a
    polygenic background of all the others, :math:`a_j \sim N(0, v_j)` with equal expected variance for each. The
    background is therefore a draw from :math:`N(0, \sigma_b^2 K)` with K the standardised GRM of these variants, the
    default of :func:`annlmm.pp.kernel_grm`.

    Parameters
    ----------
    n_obs, n_vars, n_chrom
        Numbers of donors, of variants and of chromosomes (which hold equally many variants).
    h_sq
        Heritability in [0, 1]: :math:`\sigma^2/(\sigma^2+\tau^2)` with :math:`\sigma^2+\tau^2 = 1`, where
        :math:`\sigma^2` counts the strong variants and the background, and the effects of age and sex count nowhere. It
        is the parameter of the simulation (of :func:`annlmm.tl.fit_null` with the scaled GRM of all variants); the
        estimate of a cohort scatters around it.
    n_causal
        Number of strong causal variants, spread over the chromosomes, with a minor allele frequency of 0.1 or more
        where the chromosome has such.
    causal_share
        Their share of :math:`\sigma^2`, in [0, 1]; each has ``h_sq * causal_share / n_causal``: by default 10 %, which
        a scan of 500 donors finds.
    n_populations, fst
        Number of populations (of equal size but for rounding) and their differentiation, in [0, 1).
    family_size
        Full siblings per family; 1 for unrelated donors. The last family of a population may be smaller.
    missing
        Fraction of calls that are missing at random in `.X`, in [0, 1). The phenotype is made from the complete calls.
    rng
        Seed, or a Generator (which is advanced).

    Returns
    -------
    AnnData of n_obs donors × n_vars variants with

    `.X` : ndarray of float32, n_obs × n_vars
        Number of copies (0, 1, 2) of ``.var["a1"]``; NaN where missing.
    `.obs["phenotype"]` : float64
        Rounded to 6 decimals.
    `.obs["age"]` : float64; `.obs["sex"]` : categorical (female, male)
        The covariates: 20 to 80 years, to 0.1.
    `.obs["population"]`, `.obs["family"]` : categorical
    `.var["chrom"]` : categorical; `.var["pos"]` : int64; `.var["a0"]`, `.var["a1"]` : categorical
        As :func:`annlmm.io.read_plink` returns them; a1 is the counted, effect allele.
    `.var["true_effect"]` : float64; `.var["causal"]` : bool
        True effect per copy of a1 (:math:`b_j` or :math:`a_j`); whether the variant is one of the strong ones.
    `.uns["truth"]` : dict
        ``h_sq``, ``sigma_sq`` (= h_sq), ``sigma_sq_background``, ``tau_sq`` (= 1 − h_sq); ``beta_terms`` and ``beta``
        of the formula ``~ age + C(sex)``; ``causal_variants``, ``causal_effects`` (per copy of a1) and
        ``causal_variance`` (explained by each), in the order of the genome, empty where `n_causal`, `causal_share` or
        `h_sq` is 0.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or lies outside its range.

    Notes
    -----
    The same arguments and seed give the same bits with every numpy ≥ 2.0 whose random streams are the same. Source:
    Balding and Nichols, Genetica 96, 3 (1995).

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.gwas_cohort(n_obs=60, n_vars=100, n_causal=2)
    >>> adata.shape
    (60, 100)
    >>> adata.uns["truth"]["h_sq"]
    0.5
    >>> adata.var.loc[adata.uns["truth"]["causal_variants"], "causal"].tolist()
    [True, True]
    """
    n_obs = integer(n_obs, "n_obs", 2)
    n_vars = integer(n_vars, "n_vars", 1)
    n_chrom = integer(n_chrom, "n_chrom", 1, n_vars, " (n_vars)")
    n_causal = integer(n_causal, "n_causal", 0, n_vars, " (n_vars)")
    n_populations = integer(n_populations, "n_populations", 1, n_obs, " (n_obs)")
    family_size = integer(family_size, "family_size", 1)
    h_sq = fraction(h_sq, "h_sq")
    causal_share = fraction(causal_share, "causal_share")
    fst = fraction(fst, "fst", one=False)
    missing = fraction(missing, "missing", one=False)
    random = generator(rng)

    population, family = _structure(n_obs, n_populations, family_size)
    dosages = _dosages(random, population, family, n_vars, fst)
    var = _variants(random, n_vars, n_chrom)

    # Mean of the squared centred dosages of each variant, from integer counts: no rounding depends on the machine.
    ones, twos = (np.count_nonzero(dosages == copies, axis=0).astype(np.int64) for copies in (1, 2))
    count = ones + 2 * twos
    variance = (n_obs * (ones + 4 * twos) - count**2) / n_obs**2
    if h_sq == 0 or causal_share == 0:
        n_causal = 0
    maf = np.minimum(count, 2 * n_obs - count) / (2 * n_obs)
    causal = _choose_causal(random, var["chrom"].cat.codes.to_numpy(), maf, n_causal)
    sigma_sq_causal = h_sq * causal_share if n_causal else 0.0
    effect = _effects(random, variance, causal, sigma_sq_causal, h_sq - sigma_sq_causal)

    age = random.integers(200, 801, n_obs) / 10
    male = random.random(n_obs) < 0.5
    noise = np.sqrt(1 - h_sq) * random.standard_normal(n_obs)
    genetic = _times(dosages, effect) - float(count @ effect) / n_obs
    # Rounded because the last bits of a matrix product depend on the machine.
    phenotype = np.round(_BETA["Intercept"] + _BETA["age"] * age + _BETA["C(sex)[T.male]"] * male + genetic + noise, 6)

    x = dosages.astype(np.float32)
    if missing > 0:
        for block in _blocks(n_vars):
            x[:, block][random.random((n_obs, block.stop - block.start)) < missing] = np.nan
    var["true_effect"] = effect
    var["causal"] = np.isin(np.arange(n_vars), causal)
    width = len(str(n_obs - 1))
    obs = pd.DataFrame(
        {
            "phenotype": phenotype,
            "age": age,
            "sex": pd.Categorical.from_codes(male.astype(int), categories=pd.Index(["female", "male"])),
            "population": _numbered("population", population),
            "family": _numbered("family", family),
        },
        index=pd.Index([f"donor_{i:0{width}d}" for i in range(n_obs)]),
    )
    truth = {
        "h_sq": h_sq,
        "sigma_sq": h_sq,
        "sigma_sq_background": h_sq - sigma_sq_causal,
        "tau_sq": 1 - h_sq,
        "beta_terms": np.array(list(_BETA), dtype=object),
        "beta": np.array(list(_BETA.values())),
        "causal_variants": var.index[causal].to_numpy(dtype=object),
        "causal_effects": effect[causal],
        "causal_variance": np.full(n_causal, sigma_sq_causal / max(n_causal, 1)),
    }
    return AnnData(X=x, obs=obs, var=var, uns={"truth": truth})


def _blocks(n_vars: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, n_vars)) for start in range(0, n_vars, _BLOCK)]


def _structure(n_obs: int, n_populations: int, family_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Population and family of each donor, both in contiguous runs."""
    population = np.arange(n_obs, dtype=np.int64) * n_populations // n_obs
    first = np.searchsorted(population, population)
    new = (np.arange(n_obs) - first) % family_size == 0
    return population, np.cumsum(new, dtype=np.int64) - 1


def _dosages(
    random: np.random.Generator,
    population: NDArray[np.int64],
    family: NDArray[np.int64],
    n_vars: int,
    fst: float,
) -> NDArray[np.int8]:
    """Siblings of parents from their population's allele frequencies, which drifted from common ones."""
    n_populations = int(population[-1]) + 1
    population_of_family = population[np.searchsorted(family, np.arange(family[-1] + 1))]
    dosages = np.empty((len(family), n_vars), dtype=np.int8)
    for block in _blocks(n_vars):
        size = block.stop - block.start
        frequency = np.broadcast_to(random.uniform(0.1, 0.9, size), (n_populations, size))
        if fst > 0:
            frequency = random.beta(frequency * (1 - fst) / fst, (1 - frequency) * (1 - fst) / fst)
        child = np.zeros((len(family), size), dtype=np.int8)
        for _ in ("mother", "father"):
            alleles = [random.random((len(population_of_family), size)) < frequency[population_of_family] for _ in "12"]
            first_is_passed = random.random((len(family), size)) < 0.5
            child += np.where(first_is_passed, alleles[0][family], alleles[1][family])
        dosages[:, block] = child
    return dosages


def _variants(random: np.random.Generator, n_vars: int, n_chrom: int) -> pd.DataFrame:
    chrom = np.arange(n_vars, dtype=np.int64) * n_chrom // n_vars
    pos = np.empty(n_vars, dtype=np.int64)
    gap = random.integers(1_000, 100_000, n_vars)
    for c in range(n_chrom):
        pos[chrom == c] = np.cumsum(gap[chrom == c])
    letters = pd.Index(list("ACGT"))
    a0 = random.integers(0, 4, n_vars)
    a1 = (a0 + random.integers(1, 4, n_vars)) % 4
    width = len(str(n_vars))
    return pd.DataFrame(
        {
            "chrom": pd.Categorical.from_codes(chrom, categories=pd.Index([str(c + 1) for c in range(n_chrom)])),
            "pos": pos,
            "a0": pd.Categorical.from_codes(a0, categories=letters),
            "a1": pd.Categorical.from_codes(a1, categories=letters),
        },
        index=pd.Index([f"snp_{j + 1:0{width}d}" for j in range(n_vars)]),
    )


def _choose_causal(
    random: np.random.Generator, chrom: NDArray[np.integer], maf: NDArray[np.float64], n_causal: int
) -> NDArray[np.int64]:
    polymorphic = int(np.count_nonzero(maf > 0))
    if n_causal > polymorphic:
        raise ValueError(
            f"`n_causal` must be at most the number of variants that vary among the donors ({polymorphic} here), got "
            f"{n_causal}. Raise `n_vars` or `n_obs`."
        )
    free = maf > 0
    turn = random.permutation(int(chrom[-1]) + 1)
    chosen: list[int] = []
    for k in range(n_causal):
        candidates = np.flatnonzero(free & (maf >= _MIN_CAUSAL_MAF) & (chrom == turn[k % len(turn)]))
        if len(candidates) == 0:
            candidates = np.flatnonzero(free)
        chosen.append(int(candidates[random.integers(len(candidates))]))
        free[chosen[-1]] = False
    return np.array(sorted(chosen), dtype=np.int64)


def _effects(
    random: np.random.Generator,
    variance: NDArray[np.float64],
    causal: NDArray[np.int64],
    sigma_sq_causal: float,
    sigma_sq_background: float,
) -> NDArray[np.float64]:
    effect = random.standard_normal(len(variance))
    background = variance > 0
    background[causal] = False
    count = int(np.count_nonzero(background))
    if count == 0 and sigma_sq_background > 0:
        raise ValueError(
            "`n_causal` leaves no variant that varies among the donors for the polygenic background. Take fewer, raise "
            "`n_vars` or `n_obs`, or pass `causal_share=1`."
        )
    effect[background] *= np.sqrt(sigma_sq_background / max(count, 1) / variance[background])
    effect[~background] = 0.0
    if len(causal):
        sign = 2 * random.integers(0, 2, len(causal)) - 1
        effect[causal] = sign * np.sqrt(sigma_sq_causal / len(causal) / variance[causal])
    return effect


def _times(dosages: NDArray[np.int8], effect: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros(dosages.shape[0])
    for block in _blocks(len(effect)):
        total += dosages[:, block].astype(np.float64) @ effect[block]
    return total


def _numbered(prefix: str, codes: NDArray[np.int64]) -> pd.Categorical[str]:
    count = int(codes[-1]) + 1
    width = len(str(count))
    return pd.Categorical.from_codes(codes, categories=pd.Index([f"{prefix}_{i + 1:0{width}d}" for i in range(count)]))
