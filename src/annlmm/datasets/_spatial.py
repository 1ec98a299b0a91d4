from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from annlmm.datasets._arguments import fraction, generator, integer

# Variance of a gene's log rate over spots, spatial part and noise together.
_GENE_VARIANCE = 0.4
# Counts of a spot of mean depth in genes that are not simulated.
_OTHER_COUNTS = 10_000
# Beta(10 h_sq, 10 (1 - h_sq)): spatial genes differ in their share, with standard deviation 0.14 around 0.3.
_SHARE_CONCENTRATION = 10.0
# Distance of neighbouring spots in µm, Visium's.
_SPACING = 100.0
_FREQUENCIES = 200
_PATTERNS = ["none", "gradient", "hot_spots", "smooth"]


def spatial(
    n_obs: int = 1000,
    n_genes: int = 200,
    *,
    n_spatial: int = 60,
    h_sq: float = 0.3,
    length_scales: Sequence[float] = (150.0, 300.0, 600.0),
    rng: int | np.random.Generator = 0,
) -> AnnData:
    r"""Simulate a slide of spots on which some genes vary in space, spots × genes.

    Spots lie on a hexagonal lattice, 100 µm apart, within a tissue of irregular outline. The log rate of gene g in spot
    c is the sum of its mean, a pattern f of the place and independent noise,

    .. math::
        \eta_{cg} = \mu_g + \sqrt{0.4\, h_g}\; f_g(c) + \sqrt{0.4\,(1 - h_g)}\; e_{cg}, \qquad e_{cg} \sim N(0, 1),

    where f has mean 0 and mean square 1 over the spots, so that :math:`h_g` is the share of the variance that is
    spatial (0 for the other genes). The counts are Poisson with rate :math:`s_c \exp(\eta_{cg})`, s_c the depth of the
    spot, which does not depend on the place. The genes are a small part of a transcriptome of about 10,000 counts per
    spot. The patterns, in equal parts as far as `n_spatial` allows:

    - *smooth*, for each length scale l: a stationary Gaussian field with covariance :math:`\exp(-d^2/2l^2)`, the kernel
      of :func:`annlmm.pp.kernel_rbf`;
    - *gradient*: linear, in a direction of its own;
    - *hot_spots*: one to four round spots of 100 to 250 µm (standard deviation of a Gaussian profile) with higher
      expression than the rest.

    Parameters
    ----------
    n_obs
        Number of spots, at least 10.
    n_genes
        Number of genes.
    n_spatial
        Number of spatially variable genes among them.
    h_sq
        Mean of :math:`h_g` over the spatial genes, in (0, 1); it varies from gene to gene.
    length_scales
        The l of the smooth patterns, in µm.
    rng
        Seed, or a Generator (which is advanced).

    Returns
    -------
    AnnData of n_obs × n_genes with

    `.X` : csr_matrix of float32
        ``log1p(1e4 * counts / total_counts)``.
    `.layers["counts"]` : csr_matrix of float32
    `.layers["log_rate"]` : ndarray of float32
        :math:`\eta_{cg}`, for which the truth below holds exactly. Counting adds independent noise: in `.X` the spatial
        share is lower, most of all for weakly expressed genes.
    `.obsm["spatial"]` : ndarray of float64, n_obs × 2
        Places in µm, with the centre of the slide at 0.
    `.obs["total_counts"]` : int64
        Counts of the spot over its whole transcriptome.
    `.var["spatial"]` : bool
    `.var["pattern"]` : categorical (none, gradient, hot_spots, smooth)
    `.var["true_length_scale"]` : float64
        Of a smooth pattern, in µm, else NaN.
    `.var["true_h_sq"]` : float64
        :math:`h_g`.
    `.uns["truth"]` : dict
        ``spatial_genes`` and their ``patterns``, ``length_scales`` (NaN where there is none) and ``h_sq``.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or lies outside its range.

    Notes
    -----
    A field is the sum of 200 random waves whose frequencies are drawn from the spectral density of its covariance
    (Rahimi and Recht 2007).

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.spatial(n_obs=100, n_genes=20, n_spatial=5)
    >>> adata.shape, adata.obsm["spatial"].shape
    ((100, 20), (100, 2))
    >>> sorted(adata.uns["truth"]["patterns"])
    ['gradient', 'hot_spots', 'smooth', 'smooth', 'smooth']
    """
    n_obs = integer(n_obs, "n_obs", 10)
    n_genes = integer(n_genes, "n_genes", 1)
    n_spatial = integer(n_spatial, "n_spatial", 0, n_genes, " (n_genes)")
    h_sq = fraction(h_sq, "h_sq", zero=False, one=False)
    scales = _length_scales(length_scales)
    random = generator(rng)

    places = _places(n_obs)
    var = _genes(random, n_genes, n_spatial, h_sq, scales)
    share = var["true_h_sq"].to_numpy()
    log_rate = random.normal(0, 1, n_genes) + np.sqrt(_GENE_VARIANCE * (1 - share)) * random.standard_normal(
        (n_obs, n_genes)
    )
    for g in np.flatnonzero(var["spatial"]):
        pattern = _pattern(random, places, var["pattern"].iloc[g], var["true_length_scale"].iloc[g])
        log_rate[:, g] += np.sqrt(_GENE_VARIANCE * share[g]) * (pattern - pattern.mean()) / pattern.std()
    # Rounded because the last bits of a matrix product depend on the machine.
    log_rate = np.round(log_rate, 6)
    depth = np.exp(0.3 * random.standard_normal(n_obs))
    counts = random.poisson(depth[:, None] * np.exp(log_rate))
    # The whole transcriptome normalises: by these genes alone, a pattern would show, upside down, in all others.
    total = counts.sum(axis=1) + random.poisson(depth * _OTHER_COUNTS)

    known = var[var["spatial"]]
    truth = {
        "spatial_genes": known.index.to_numpy(dtype=object),
        "patterns": known["pattern"].to_numpy(dtype=object),
        "length_scales": known["true_length_scale"].to_numpy(),
        "h_sq": known["true_h_sq"].to_numpy(),
    }
    return AnnData(
        X=sparse.csr_matrix(np.log1p(1e4 * counts / total[:, None]), dtype=np.float32),
        obs=pd.DataFrame(
            {"total_counts": total}, index=pd.Index([f"spot_{c + 1:0{len(str(n_obs))}d}" for c in range(n_obs)])
        ),
        var=var,
        uns={"truth": truth},
        obsm={"spatial": places},
        layers={"counts": sparse.csr_matrix(counts, dtype=np.float32), "log_rate": log_rate.astype(np.float32)},
    )


def _length_scales(given: object) -> NDArray[np.float64]:
    try:
        scales = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        scales = np.empty(0)
    if isinstance(given, (str, bytes)) or scales.ndim != 1 or scales.size == 0:
        raise TypeError(f"`length_scales` must be a list of numbers in µm, got {given!r} ({type(given).__name__}).")
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError(f"`length_scales` must be positive and finite, got {given!r}.")
    return scales


def _places(n_obs: int) -> NDArray[np.float64]:
    """The n_obs points of a hexagonal lattice that an irregular outline, blown up, meets first."""
    reach = int(2 * np.sqrt(n_obs)) + 5
    row, column = (part.ravel() for part in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    lattice = _SPACING * np.column_stack([column + 0.5 * (row % 2), np.sqrt(0.75) * row])
    angle = np.arctan2(lattice[:, 1], lattice[:, 0])
    outline = 1 + 0.15 * np.cos(2 * angle + 0.5) + 0.08 * np.sin(3 * angle)
    met = np.round(np.hypot(*lattice.T) / outline, 6)
    chosen = np.sort(np.argsort(met, kind="stable")[:n_obs])
    return lattice[chosen] - lattice[chosen].mean(axis=0)


def _genes(
    random: np.random.Generator, n_genes: int, n_spatial: int, h_sq: float, scales: NDArray[np.float64]
) -> pd.DataFrame:
    """Pattern and spatial share of each gene."""
    kinds = [*(("smooth", scale) for scale in scales), ("gradient", np.nan), ("hot_spots", np.nan)]
    pattern = np.full(n_genes, "none", dtype=object)
    length_scale, share = np.full(n_genes, np.nan), np.zeros(n_genes)
    chosen = random.permutation(n_genes)[:n_spatial]
    share[chosen] = random.beta(_SHARE_CONCENTRATION * h_sq, _SHARE_CONCENTRATION * (1 - h_sq), n_spatial)
    for i, g in enumerate(chosen):
        pattern[g], length_scale[g] = kinds[i % len(kinds)]
    return pd.DataFrame(
        {
            "spatial": share > 0,
            "pattern": pd.Categorical(pattern, categories=pd.Index(_PATTERNS)),
            "true_length_scale": length_scale,
            "true_h_sq": share,
        },
        index=pd.Index([f"gene_{g + 1:0{len(str(n_genes))}d}" for g in range(n_genes)]),
    )


def _pattern(
    random: np.random.Generator, places: NDArray[np.float64], pattern: str, length_scale: float
) -> NDArray[np.float64]:
    """One realisation at the places, not yet standardised."""
    if pattern == "smooth":
        phase = places @ (random.standard_normal((2, _FREQUENCIES)) / length_scale)
        return np.cos(phase) @ random.standard_normal(_FREQUENCIES) + np.sin(phase) @ random.standard_normal(
            _FREQUENCIES
        )
    if pattern == "gradient":
        angle = random.uniform(0, 2 * np.pi)
        return places @ np.array([np.cos(angle), np.sin(angle)])
    centres = places[random.integers(0, len(places), random.integers(1, 5))]
    radius = random.uniform(1.0, 2.5, len(centres)) * _SPACING
    distance_sq = ((places[:, None, :] - centres) ** 2).sum(axis=2)
    return np.exp(-distance_sq / (2 * radius**2)).sum(axis=1)
