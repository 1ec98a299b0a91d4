from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from annlmm._settings import logger, settings
from annlmm._slots.access import check_adata, check_key, check_memory, feature_matrix, received, target, write_slots
from annlmm.blocks import column_blocks

Float = NDArray[np.float64]


def inverse_normal(
    adata: AnnData,
    *,
    layer: str | None = None,
    key_added: str | None = None,
    offset: float = 3 / 8,
    copy: bool = False,
) -> AnnData | None:
    r"""Replace each feature's values by normal quantiles of their ranks.

    .. math:: z_i = \Phi^{-1}\!\left(\frac{r_i - c}{n - 2c + 1}\right)

    with r the ranks 1 to n among the values of a feature that are present. Outliers lose their weight, and the residuals of a
    model come nearer to normal; effects are then in standard deviations.

    Parameters
    ----------
    adata
        Observations (donors, as a rule) × features.
    layer
        Layer to transform; None: `.X`.
    key_added
        Layer to write to; None: where the values came from.
    offset
        c, in [0, 1): 3/8 is Blom's [1]_, 1/2 Rankit's, 0 van der Waerden's. Blom's makes z close to the expected order
        statistics of a normal sample.
    copy
        Return a new AnnData instead of writing to this one.

    Returns
    -------
    None, or with `copy` the new AnnData. Written is

    `.X`, or ``.layers[layer]`` or ``.layers[key_added]`` : ndarray of float64, n_obs × n_vars
        z. Equal values get the quantile of their mean rank, a constant feature therefore 0 throughout; missing values stay NaN
        and count nowhere. Always dense: zeros of a sparse matrix get a rank too.

    Raises
    ------
    KeyError
        `layer` doesn't exist.
    MemoryError
        The dense result exceeds ``al.settings.kernel_memory``.
    TypeError
        The matrix doesn't hold real numbers, or an argument has the wrong type.
    ValueError
        `offset` lies outside its range, values are infinite, or the result would go into a file.

    Notes
    -----
    Ranks of many zeros are ties: transform what few zeros are left in, such as means over cells (:func:`annlmm.pp.pseudobulk`),
    not counts of cells. The transform gives no exact normality of residuals where covariates matter [2]_.

    References
    ----------
    .. [1] Blom (1958), *Statistical Estimates and Transformed Beta-Variables*.
    .. [2] Beasley, Erickson and Allison (2009), *Behavior Genetics* 39, 580–595.

    Examples
    --------
    >>> import anndata as ad, annlmm as al, numpy as np
    >>> adata = ad.AnnData(np.array([[3.0, 7.0], [1000.0, 7.0], [1.0, 7.0]]))
    >>> al.pp.inverse_normal(adata)
    >>> adata.X.round(3).tolist()
    [[0.0, 0.0], [0.869, 0.0], [-0.869, 0.0]]
    """
    check_adata(adata)
    if isinstance(offset, bool) or not isinstance(offset, (int, float, np.integer, np.floating)):
        raise TypeError(f"offset: must be a number, received {received(offset)}")
    if not 0 <= offset < 1:
        raise ValueError(f"offset: must be in [0, 1), e.g. 3/8, received {offset!r}")
    if key_added is not None:
        check_key(key_added)
    place = layer if key_added is None else key_added
    if place is None and adata.isbacked and not copy:
        raise ValueError(
            "adata is backed: writing to .X would change the file; name a layer with key_added=, or load it with adata.to_memory()"
        )
    matrix = feature_matrix(adata, layer)
    check_memory(adata.n_obs, adata.n_vars, "transform fewer features at a time")
    z = _transformed(adata, matrix, float(offset))
    out = adata.to_memory(copy=True) if copy and adata.isbacked else target(adata, copy)
    if place is not None:
        write_slots(out, {("layers", place): z})
    else:
        if out.is_view:
            # anndata 0.12 would write .X of a view into its parent.
            out._init_as_actual(out.copy())
        out.X = z
    logger.info(
        f"inverse_normal: {adata.n_vars} features\n    wrote {'.X' if place is None else f'.layers[{place!r}]'}"
    )
    return out if copy else None


def _transformed(adata: AnnData, matrix: Any, offset: float) -> Float:
    n, m = matrix.shape
    z = np.empty((n, m))
    width = max(1, int(settings.block_memory // (32 * n)))
    for block in column_blocks(matrix, np.arange(n), np.arange(m), width):
        values = block.array.toarray() if sparse.issparse(block.array) else block.array
        if np.isinf(values).any():
            first = str(adata.var_names[block.columns[np.isinf(values).any(axis=0)][0]])
            raise ValueError(f"feature {first!r}: infinite values; set them to NaN to leave them out")
        z[:, block.columns] = normal_quantiles(values, offset)
    return z


def normal_quantiles(values: Float, offset: float) -> Float:
    """Φ⁻¹((r − c)/(n − 2c + 1)) down each column, r the mean ranks of what isn't NaN."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(values, axis=0, nan_policy="omit"), dtype=np.float64)
    n = np.count_nonzero(~np.isnan(values), axis=0)
    return np.asarray(ndtri((ranks - offset) / (n - 2 * offset + 1)))
