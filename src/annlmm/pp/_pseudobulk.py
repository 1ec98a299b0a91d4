from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from annlmm._settings import logger, settings
from annlmm._slots.access import boolean_mask, check_adata, check_memory, feature_matrix, own_names, received
from annlmm._slots.kernel import group_labels
from annlmm.blocks import Limits, as_float, fetch, layout, plan

Float = NDArray[np.float64]
Index = NDArray[np.intp]
Func = Literal["mean", "sum"]


@overload
def pseudobulk(
    adata: AnnData,
    donor_key: str,
    *,
    by: None = None,
    layer: str | None = None,
    func: Func = "mean",
    min_cells: int = 5,
    mask_obs: Any = None,
) -> AnnData: ...
@overload
def pseudobulk(
    adata: AnnData,
    donor_key: str,
    *,
    by: str,
    layer: str | None = None,
    func: Func = "mean",
    min_cells: int = 5,
    mask_obs: Any = None,
) -> dict[str, AnnData]: ...
def pseudobulk(
    adata: AnnData,
    donor_key: str,
    *,
    by: str | None = None,
    layer: str | None = None,
    func: Func = "mean",
    min_cells: int = 5,
    mask_obs: Any = None,
) -> AnnData | dict[str, AnnData]:
    """Aggregate cells to donors × genes, for all cells or for each cell type.

    A layer over :func:`scanpy.get.aggregate` that also counts cells, leaves out donors with few of them, and keeps what is
    known about donors. The result is `expression` of :func:`annlmm.tl.map_eqtl` as it is.

    Parameters
    ----------
    adata
        Cells × genes, of any array type, on disk too: it is read once, in blocks.
    donor_key
        Column of `.obs` with the donors; cells without one are left out.
    by
        Column of `.obs` with cell types: one result each. None: one for all cells.
    layer
        Layer to aggregate; None: `.X`.
    func
        "mean", for normalised values such as log counts (in single-cell eQTL mapping it found more than sum and median [1]_);
        "sum", for counts, to be normalised afterwards.
    min_cells
        Donors with fewer cells (of the cell type) are left out: their mean is far less certain than that of the others.
    mask_obs
        Boolean column of `.obs`, or array: which cells to use.

    Returns
    -------
    AnnData or dict of AnnData
        Donors × genes, sorted by donor; with `by` a dict by cell type, without types in which no donor has `min_cells`. Each
        with

        `.X` : ndarray of float64
            Mean or sum over the cells of a donor.
        `.obs_names`
            The donors.
        `.obs["n_cells"]` : int64
            Cells per donor.
        `.obs[…]`
            Every column of `adata.obs` that is constant within the donors (over all cells used, of whatever type), such as age
            or sex; with `by` also the cell type. A column named "n_cells" isn't taken over, nor are those of a null model.
        `.var`
            As in `adata`, without the results of annlmm, which are those of cells: positions of genes stay.

    Raises
    ------
    KeyError
        `donor_key`, `by` or `layer` doesn't exist.
    TypeError
        The matrix doesn't hold real numbers, or an argument has the wrong type.
    ValueError
        `func` is unknown, or no donor has `min_cells` cells.

    References
    ----------
    .. [1] Cuomo et al. (2021), *Genome Biology* 22, 188.

    Examples
    --------
    >>> import annlmm as al
    >>> cells, genotype = al.datasets.sc_eqtl(20, 40, 12, n_vars=200, n_eqtl=4, n_secondary=0, n_interaction=2)
    >>> bulk = al.pp.pseudobulk(cells, "donor_id", layer="logcounts")
    >>> bulk.shape, list(bulk.obs)
    ((19, 12), ['age', 'sex', 'batch', 'n_cells'])

    One for each cell type:

    >>> types = al.pp.pseudobulk(cells, "donor_id", by="cell_type", layer="logcounts")
    >>> list(types)
    ['mature', 'progenitor']
    """
    check_adata(adata)
    if func not in ("mean", "sum"):
        raise ValueError(f"func: must be 'mean' or 'sum', received {func!r}")
    if isinstance(min_cells, bool) or not isinstance(min_cells, (int, np.integer)) or min_cells < 1:
        raise ValueError(f"min_cells: must be a whole number, at least 1, received {received(min_cells)}")
    if by is not None and by == donor_key:
        raise ValueError(f"by={by!r}: is the column of the donors; name one of cell types")
    matrix = feature_matrix(adata, layer)
    donor = group_labels(adata, donor_key, "donor_key")
    group = pd.Series("", index=donor.index) if by is None else group_labels(adata, by, "by")
    use = boolean_mask(adata, mask_obs, "obs", "mask_obs") & donor.notna().to_numpy() & group.notna().to_numpy()
    rows = np.flatnonzero(use)
    if not rows.size:
        raise ValueError(
            f"donor_key={donor_key!r}: no cell is left that has a donor{'' if by is None else ' and a type'}"
        )
    codes, of_type, of_donor = _number(group.iloc[rows], donor.iloc[rows])
    n_cells = np.bincount(codes)
    kept = n_cells >= min_cells
    if not kept.any():
        raise ValueError(f"min_cells={min_cells}: no donor has so many cells, the most are {n_cells.max()}; lower it")
    check_memory(of_donor.size, adata.n_vars, "aggregate fewer genes at a time")
    values = _sums(matrix, rows, codes, of_donor.size)
    if func == "mean":
        values /= n_cells[:, None]
    replaced = {"n_cells", by, *own_names(adata.obs.columns)}
    known = _of_donors(adata.obs.drop(columns=[c for c in adata.obs if c in replaced]), donor_key, donor, rows)
    var = adata.var.drop(columns=[c for c in adata.var if c in own_names(adata.var.columns)])
    results = {}
    for name in dict.fromkeys(of_type):
        these = np.flatnonzero(kept & (of_type == name))
        if these.size:
            obs = known.loc[of_donor[these].tolist()].assign(n_cells=n_cells[these].astype(np.int64))
            if by is not None:
                obs = obs.assign(**{by: pd.Categorical([name] * these.size)})
            results[name] = AnnData(X=values[these], obs=obs, var=var.copy())
    _tell(results, of_type, kept, adata.n_obs - rows.size, min_cells)
    return results if by is not None else results[""]


def _number(group: pd.Series, donor: pd.Series) -> tuple[Index, NDArray[np.object_], NDArray[np.object_]]:
    """Numbers of the pairs of group and donor that occur, sorted, and the group and the donor of each."""
    group_codes, groups = pd.factorize(group.to_numpy(dtype=object), sort=True)
    donor_codes, donors = pd.factorize(donor.to_numpy(dtype=object), sort=True)
    pairs, codes = np.unique(group_codes * len(donors) + donor_codes, return_inverse=True)
    return codes, groups[pairs // len(donors)], donors[pairs % len(donors)]


def _sums(matrix: Any, rows: Index, codes: Index, count: int) -> Float:
    """Sums over the rows of each group, block by block: scanpy takes neither files nor, before 1.12, dask."""
    total = np.zeros((count, matrix.shape[1]))
    limits = Limits(settings.block_memory, 1, count)
    for tile in plan(layout(matrix), rows, np.arange(matrix.shape[1]), limits):
        for block in tile.blocks:
            here = slice(block.start, block.stop)
            present, sums = _aggregate(as_float(fetch(matrix, rows[here], tile.columns)), codes[here])
            total[np.ix_(present, tile.columns)] += sums
    return total


def _aggregate(block: Any, codes: Index) -> tuple[Index, Float]:
    """Groups that occur in a block, and their sums."""
    import scanpy as sc

    if sparse.issparse(block):  # scanpy takes no sparse arrays before 1.12
        block = sparse.csr_matrix(block) if block.format == "csr" else sparse.csc_matrix(block)
    present, local = np.unique(codes, return_inverse=True)
    labels = pd.Categorical.from_codes(local, categories=pd.Index(present.astype(str)))
    frame = pd.DataFrame({"group": labels}, index=pd.RangeIndex(codes.size).astype(str))
    sums = sc.get.aggregate(AnnData(X=block, obs=frame), by="group", func="sum")
    return sums.obs_names.astype(np.intp).to_numpy(), np.asarray(sums.layers["sum"], dtype=np.float64)


def _of_donors(obs: pd.DataFrame, donor_key: str, donor: pd.Series, rows: Index) -> pd.DataFrame:
    """One row per donor: the columns that are constant within all of them, missing values being a value of their own."""
    obs, names = obs.iloc[rows].drop(columns=donor_key), donor.to_numpy()[rows]
    first = pd.Series(np.arange(rows.size)).groupby(names).first()
    at = first.loc[names].to_numpy()
    constant = []
    for name in obs.columns:
        codes = pd.factorize(obs[name])[0]
        if (codes == codes[at]).all():
            constant.append(name)
    left = [str(name) for name in obs.columns if name not in constant]
    if left:
        logger.info(f"pseudobulk: vary within donors and are left out: {', '.join(left)}")
    known = obs[constant].iloc[first.to_numpy()].set_axis(pd.Index(first.index, dtype=object), axis=0)
    for name in known.columns[[isinstance(dtype, pd.CategoricalDtype) for dtype in known.dtypes]]:
        known[name] = known[name].cat.remove_unused_categories()
    return known


def _tell(
    results: dict[str, AnnData], of_type: NDArray[np.object_], kept: NDArray[np.bool_], n_out: int, min_cells: int
) -> None:
    for name, bulk in results.items():
        few = int(((of_type == name) & ~kept).sum())
        logger.info(
            f"pseudobulk: {f'{name}: ' if name else ''}{int(bulk.obs['n_cells'].sum())} cells of {bulk.n_obs} donors"
            + (f", {few} donors with fewer than {min_cells} left out" if few else "")
        )
    gone = [name for name in dict.fromkeys(of_type) if name not in results]
    if gone:
        logger.warning(f"pseudobulk: no donor has {min_cells} cells of {', '.join(map(repr, gone))}: left out")
    if n_out:
        logger.info(f"pseudobulk: {n_out} cells left out by mask_obs or for want of a label")
