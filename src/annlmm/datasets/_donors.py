from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from annlmm.datasets._arguments import fraction, generator, integer

_BETA = {"Intercept": 5.0, "condition[T.disease]": 1.0}
# Variance of a gene's log rate over cells, donor and cell part together.
_GENE_VARIANCE = 0.4
# Counts of a cell of mean depth in genes that are not simulated.
_OTHER_COUNTS = 10_000
# Beta(10 icc, 10 (1 - icc)): genes differ in their icc, with standard deviation 0.12 around 0.2.
_ICC_CONCENTRATION = 10.0


def donors(
    n_donors: int = 20,
    cells_per_donor: int | Sequence[int] = 50,
    n_genes: int = 200,
    *,
    icc: float = 0.2,
    n_de: int = 20,
    rng: int | np.random.Generator = 0,
) -> AnnData:
    r"""Simulate single cells of several donors under two conditions, cells × genes.

    The log rate of gene g in cell c of donor d is Gaussian, the linear mixed model itself,

    .. math::
        \eta_{cg} = \mu_g + \beta_g [\text{disease}_d] + \delta_g [\text{batch\_2}_c] + \kappa_g\, \text{cell\_score}_c
        + u_{dg} + e_{cg}, \qquad u_{dg} \sim N(0, \sigma_g^2), \quad e_{cg} \sim N(0, \tau_g^2),

    and the counts are Poisson with rate :math:`s_c \exp(\eta_{cg})`, s_c the depth of the cell. The genes are a small
    part of a transcriptome of about 10,000 counts per cell. Each cell also has a quantitative phenotype
    :math:`y_c = 5 + [\text{disease}_d] + u_d + e_c` with :math:`\operatorname{Var}(u_d) =` `icc` and
    :math:`\operatorname{Var}(e_c) = 1 -` `icc`.

    Parameters
    ----------
    n_donors
        Number of donors, at least 4; every other one has the disease.
    cells_per_donor
        Mean number of cells per donor, whose numbers then vary with a coefficient of variation around 0.5; or the
        number of each donor.
    n_genes
        Number of genes.
    icc
        Intraclass correlation in [0, 1): of the phenotype exactly, of the genes' log rates on average (they vary from
        gene to gene; all are 0 with ``icc=0``). :math:`\sigma_g^2 + \tau_g^2 = 0.4` for every gene.
    n_de
        Number of genes with a condition effect of 0.8 to 1.5 (natural log), of either sign.
    rng
        Seed, or a Generator (which is advanced).

    Returns
    -------
    AnnData of cells × n_genes with

    `.X` : csr_matrix of float32
        Counts.
    `.layers["logcounts"]` : csr_matrix of float32
        ``log1p(1e4 * counts / total_counts)``.
    `.layers["log_rate"]` : ndarray of float32
        :math:`\eta_{cg}`, for which the truth below holds exactly. Counting adds variance within donors: on
        ``logcounts`` the icc is lower, most of all for weakly expressed genes.
    `.obs["donor_id"]` : categorical
        The cells of a donor stand together.
    `.obs["condition"]` : categorical (control, disease); `.obs["age"]` : float64
        Constant within donors; age has no effect on anything.
    `.obs["batch"]` : categorical (batch_1, batch_2); `.obs["cell_score"]` : float64
        Cell-level covariates: independent of donor and condition, with effects on genes but not on the phenotype.
    `.obs["total_counts"]` : int64
        Counts of the cell over its whole transcriptome.
    `.obs["phenotype"]` : float64
    `.var["true_sigma_sq"]`, `.var["true_tau_sq"]`, `.var["true_icc"]` : float64
        Of the log rate.
    `.var["de"]` : bool; `.var["true_effect"]` : float64
        Whether the condition has an effect, and :math:`\beta_g`.
    `.var["true_effect_batch"]`, `.var["true_effect_cell_score"]` : float64
        :math:`\delta_g` and :math:`\kappa_g`.
    `.uns["truth"]` : dict
        Of the phenotype: ``h_sq`` (= icc), ``sigma_sq``, ``tau_sq``, ``beta_terms`` and ``beta`` of the formula
        ``~ condition``, ``donor_effects`` (:math:`u_d` in the order of the categories of ``donor_id``). Of the genes:
        ``de_genes`` and ``de_effects``.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type or lies outside its range.

    Examples
    --------
    >>> import annlmm as al
    >>> adata = al.datasets.donors(n_donors=6, cells_per_donor=[5, 9, 4, 7, 6, 8], n_genes=30, n_de=3)
    >>> adata.shape
    (39, 30)
    >>> adata.obs.groupby("donor_id", observed=True)["condition"].first().tolist()[:2]
    ['control', 'disease']
    >>> len(adata.uns["truth"]["de_genes"])
    3
    """
    n_donors = integer(n_donors, "n_donors", 4)
    n_genes = integer(n_genes, "n_genes", 1)
    n_de = integer(n_de, "n_de", 0, n_genes, " (n_genes)")
    icc = fraction(icc, "icc", one=False)
    cells = _cells(cells_per_donor, n_donors)
    random = generator(rng)
    if isinstance(cells, int):
        cells = np.maximum(random.poisson(cells * random.gamma(4, 0.25, n_donors)), 1)

    donor = np.repeat(np.arange(n_donors, dtype=np.int64), cells)
    n_cells = len(donor)
    disease = np.arange(n_donors) % 2
    age = random.integers(200, 801, n_donors) / 10
    batch = random.integers(0, 2, n_cells)
    cell_score = random.standard_normal(n_cells)

    var = _genes(random, n_genes, icc, n_de)
    log_rate = random.normal(0, 1, n_genes) + (
        disease[donor, None] * var["true_effect"].to_numpy()
        + batch[:, None] * var["true_effect_batch"].to_numpy()
        + cell_score[:, None] * var["true_effect_cell_score"].to_numpy()
        + (np.sqrt(var["true_sigma_sq"].to_numpy()) * random.standard_normal((n_donors, n_genes)))[donor]
        + np.sqrt(var["true_tau_sq"].to_numpy()) * random.standard_normal((n_cells, n_genes))
    )
    depth = np.exp(0.3 * random.standard_normal(n_cells))
    counts = random.poisson(depth[:, None] * np.exp(log_rate))
    # The whole transcriptome normalises: by these genes alone, every real effect would push the others the other way.
    total = counts.sum(axis=1) + random.poisson(depth * _OTHER_COUNTS)
    logcounts = np.log1p(1e4 * counts / total[:, None])

    donor_effects = np.sqrt(icc) * random.standard_normal(n_donors)
    phenotype = (
        _BETA["Intercept"]
        + _BETA["condition[T.disease]"] * disease[donor]
        + donor_effects[donor]
        + np.sqrt(1 - icc) * random.standard_normal(n_cells)
    )

    width = len(str(n_donors))
    names = [f"donor_{d + 1:0{width}d}" for d in range(n_donors)]
    obs = pd.DataFrame(
        {
            "donor_id": pd.Categorical.from_codes(donor, categories=pd.Index(names)),
            "condition": pd.Categorical.from_codes(disease[donor], categories=pd.Index(["control", "disease"])),
            "age": age[donor],
            "batch": pd.Categorical.from_codes(batch, categories=pd.Index(["batch_1", "batch_2"])),
            "cell_score": cell_score,
            "total_counts": total,
            "phenotype": phenotype,
        },
        index=pd.Index([f"cell_{c + 1:0{len(str(n_cells))}d}" for c in range(n_cells)]),
    )
    de = var["de"].to_numpy()
    truth = {
        "h_sq": icc,
        "sigma_sq": icc,
        "tau_sq": 1 - icc,
        "beta_terms": np.array(list(_BETA), dtype=object),
        "beta": np.array(list(_BETA.values())),
        "donor_effects": donor_effects,
        "de_genes": var.index[de].to_numpy(dtype=object),
        "de_effects": var["true_effect"].to_numpy()[de],
    }
    return AnnData(
        X=sparse.csr_matrix(counts, dtype=np.float32),
        obs=obs,
        var=var,
        uns={"truth": truth},
        layers={
            "logcounts": sparse.csr_matrix(logcounts, dtype=np.float32),
            "log_rate": log_rate.astype(np.float32),
        },
    )


def _cells(cells_per_donor: int | Sequence[int], n_donors: int) -> int | NDArray[np.int64]:
    if isinstance(cells_per_donor, (int, np.integer)):
        return integer(cells_per_donor, "cells_per_donor", 1)
    if isinstance(cells_per_donor, (str, bytes)) or not isinstance(cells_per_donor, (Sequence, np.ndarray)):
        raise TypeError(
            f"`cells_per_donor` must be an integer or a list of {n_donors} integers (n_donors), got "
            f"{cells_per_donor!r} ({type(cells_per_donor).__name__})."
        )
    if len(cells_per_donor) != n_donors:
        raise ValueError(
            f"`cells_per_donor` must be an integer or hold {n_donors} integers (n_donors), got {len(cells_per_donor)}."
        )
    return np.array([integer(cells, f"cells_per_donor[{d}]", 1) for d, cells in enumerate(cells_per_donor)])


def _genes(random: np.random.Generator, n_genes: int, icc: float, n_de: int) -> pd.DataFrame:
    """True parameters of each gene."""
    gene_icc = np.zeros(n_genes)
    if icc > 0:
        gene_icc = random.beta(_ICC_CONCENTRATION * icc, _ICC_CONCENTRATION * (1 - icc), n_genes)
    effect = random.uniform(0.8, 1.5, n_genes) * (2 * random.integers(0, 2, n_genes) - 1)
    de = np.zeros(n_genes, dtype=bool)
    de[random.permutation(n_genes)[:n_de]] = True
    return pd.DataFrame(
        {
            "true_sigma_sq": _GENE_VARIANCE * gene_icc,
            "true_tau_sq": _GENE_VARIANCE * (1 - gene_icc),
            "true_icc": gene_icc,
            "de": de,
            "true_effect": np.where(de, effect, 0.0),
            "true_effect_batch": random.normal(0, 0.2, n_genes),
            "true_effect_cell_score": random.normal(0, 0.2, n_genes),
        },
        index=pd.Index([f"gene_{g + 1:0{len(str(n_genes))}d}" for g in range(n_genes)]),
    )
