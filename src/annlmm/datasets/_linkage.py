"""Genotypes in linkage disequilibrium, for the simulations of loci."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Correlation of the latent haplotypes falls by a factor e over so many base pairs …
_LENGTH = 300_000
# … and to this, at hotspots of recombination, so many base pairs apart on average.
_ACROSS_HOTSPOT = 0.3
_BETWEEN_HOTSPOTS = 250_000


def linked_dosages(
    random: np.random.Generator,
    population: NDArray[np.int64],
    family: NDArray[np.int64],
    chrom: NDArray[np.integer],
    pos: NDArray[np.int64],
    fst: float,
) -> NDArray[np.int8]:
    r"""Simulate siblings of parents whose haplotypes are thresholded Gaussian chains along each chromosome.

    A haplotype carries the allele of variant j where :math:`z_j < \Phi^{-1}(p_j)`, with p_j the frequency in its
    population and :math:`z_j = \varrho_j z_{j-1} + (1-\varrho_j^2)^{1/2} \varepsilon_j`,
    :math:`\varrho_j = \exp(-\text{gap}_j / L)`. Half of the variants share the frequency of the one before, as mutations on
    one branch do, and which allele is counted is up to chance. A parent passes one of its two haplotypes on, the same
    between two hotspots.

    Parameters
    ----------
    population, family
        Of each donor, both in contiguous runs.
    chrom, pos
        Of each variant, sorted.
    fst
        Variance of the frequencies over populations is :math:`F_{ST}\,p(1-p)` (Balding and Nichols).

    Returns
    -------
    Donors × variants.
    """
    from scipy.special import ndtri

    n_populations = int(population[-1]) + 1
    population_of_family = population[np.searchsorted(family, np.arange(family[-1] + 1))]
    n, shape = len(family), (2, 2, len(population_of_family))  # parents, their haplotypes, families
    new_chromosome = np.r_[True, np.diff(chrom) != 0]
    gap = np.r_[0, np.diff(pos)]
    hotspot = new_chromosome | (random.random(pos.size) < -np.expm1(-gap / _BETWEEN_HOTSPOTS))
    correlation = np.exp(-np.maximum(gap, 0) / _LENGTH) * np.where(hotspot, _ACROSS_HOTSPOT, 1.0)
    correlation[new_chromosome] = 0.0
    again = (random.random(pos.size) < 0.5) & ~hotspot
    flipped = random.random(pos.size) < 0.5

    z, cut = np.zeros(shape), np.zeros(len(population_of_family))
    passed = np.zeros((2, n), dtype=np.intp)
    dosages = np.empty((n, pos.size), dtype=np.int8)
    for j, rho in enumerate(correlation):
        z = rho * z + np.sqrt(1 - rho * rho) * random.standard_normal(shape)
        if hotspot[j]:
            passed = random.integers(0, 2, (2, n))
        if not again[j]:
            frequency = np.full(n_populations, random.uniform(0.1, 0.9))
            if fst > 0:
                frequency = random.beta(frequency * (1 - fst) / fst, (1 - frequency) * (1 - fst) / fst)
            cut = ndtri(frequency)[population_of_family]
        allele = z < cut
        count = allele[0, passed[0], family].astype(np.int8) + allele[1, passed[1], family]
        dosages[:, j] = 2 - count if flipped[j] else count
    return dosages
