"""The REML space as variants see it: vectors that are constant within donors, whatever the number of cells.

Cells are z = Z x with x one value per donor, N = ZᵀZ the cells per donor and U₀ = ZN^{−½}. With T = U₀ᵀQ = A cosθ Bᵀ and
G = I − A(1 − sinθ)Aᵀ as in `space`, the vectors M U₀ have the Gram matrix G², and every orthonormal L ⟂ {a: sinθ = 0} gives
an orthonormal basis M U₀ G⁺L of M Z ℝᴰ, in which

    x̃ = LᵀG N^½ x,      ỹ = LᵀG⁺ N^{−½}Zᵀ(My),      ⟨MZx, My⟩ = x̃ᵀỹ,      ‖MZx‖² = ‖x̃‖².

L is chosen so that the basis diagonalises MKM: first V with its eigenvalues μ (K = Z K_d Zᵀ, or any K where each donor is one row),
then whatever K leaves, with μ = 0. Nothing of a variant is outside, so that no test needs more than these D numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space
from scipy.linalg.blas import dgemm

from annlmm.model.basis import GroupBasis
from annlmm.model.null import NullModel
from annlmm.model.space import make_angles

Float = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class DonorSpace:
    """Coordinates of D donors.

    Attributes
    ----------
    counts
        Cells per donor, D.
    mu
        k′ eigenvalues of MKM in these coordinates: k of them positive, then zeros.
    k
        Of them positive.
    dims
        Dimensions that are left of the D once the fixed effects are out.
    complete
        Whether nothing orthogonal to X is outside (each donor is one row): then genes have no rest either.
    to_variant, to_gene
        D × k′: N^½GL and N^{−½}-scaled sums to coordinates, G⁺L; None where L = I (least squares, k′ = D).
    a, sin
        D × q left singular vectors of T, and the sines.
    """

    counts: Float
    mu: Float
    k: int
    dims: int
    complete: bool
    to_variant: Float | None
    to_gene: Float | None
    a: Float
    sin: Float

    @property
    def size(self) -> int:
        """k′, the numbers per variant and per gene."""
        return self.mu.size

    def project(self, x: Float, *, overwrite: bool = False) -> Float:
        """x̃ of m variants, one to a row (m × D to m × k′)."""
        if self.to_variant is not None:
            return np.asarray(x @ self.to_variant)
        if not len(x):
            return np.zeros((0, self.size))
        z = x if overwrite else x.copy()
        if self.counts.max() > 1:
            z *= np.sqrt(self.counts)
        # z −= ((z A)(1 − sinθ)) Aᵀ, in place.
        fitted = (z @ self.a) * (1.0 - self.sin)
        out = dgemm(-1.0, np.asfortranarray(self.a), fitted.T, beta=1.0, c=z.T, overwrite_c=True)
        return np.asarray(out.T)

    def place(self, sums: Float) -> Float:
        """ỹ (k′ × G) from N^{−½}Zᵀ(My) (D × G)."""
        if self.to_gene is not None:
            return np.asarray(self.to_gene.T @ sums)
        with np.errstate(divide="ignore"):
            inverse = np.where(self.sin == 0, 0.0, 1.0 / self.sin)
        return np.asarray(sums + self.a @ ((inverse - 1.0)[:, None] * (self.a.T @ sums)))


def make_donor_space(model: NullModel, codes: Index, *, orthonormal: bool = False) -> DonorSpace:
    """The coordinates of donors under a model.

    Parameters
    ----------
    model
        Of groups that are the donors, without a kernel, or of any kernel where each donor is one row.
    codes
        Donor of each row, 0 … D−1, each present.
    orthonormal
        Whether an orthonormal basis is needed for least squares over cells too, where L = I would do.
    """
    counts = np.bincount(codes).astype(np.float64)
    root, q = np.sqrt(counts), model.design.q
    sums = np.stack([np.bincount(codes, weights=column) for column in q.T], axis=1)
    angles = make_angles(sums / root[:, None], codes.size)
    n_common = int((angles.sin == 0).sum())
    # One row to a donor: U₀ = I, and every direction of X is common.
    dims = counts.size - n_common
    a, sin = angles.a, angles.sin
    shrink = (a * (1.0 - sin)) @ a.T
    space = model.space
    common = a[:, sin == 0]
    plain = DonorSpace(counts, np.zeros(counts.size), 0, dims, dims == space.df_residual, None, None, a, sin)
    if not space.k and not (orthonormal and counts.max() > 1):
        return plain
    if counts.max() == 1:
        to_gene = model.basis.expand(space.rotation)[np.argsort(codes)]
    elif isinstance(model.basis, GroupBasis):
        w = model.basis.coordinates.w
        # G⁺ times the eigenvectors L; groups are numbered as donors are.
        to_gene = space.rotation if w is None else w @ space.rotation
    else:
        to_gene = np.zeros((counts.size, 0))
    to_gene = to_gene - common @ (common.T @ to_gene)
    basis = to_gene - shrink @ to_gene
    if space.k < dims:
        rest = null_space(np.column_stack([basis, common]).T)
        inverse = np.where(sin == 0, 1.0, 1.0 / np.where(sin == 0, 1.0, sin))
        to_gene = np.column_stack([to_gene, rest + a @ ((inverse - 1.0)[:, None] * (a.T @ rest))])
        basis = np.column_stack([basis, rest])
    mu = np.concatenate([space.mu, np.zeros(basis.shape[1] - space.k)])
    to_variant = np.ascontiguousarray(root[:, None] * (basis - shrink @ basis))
    return replace(plain, mu=mu, k=space.k, to_variant=to_variant, to_gene=np.asfortranarray(to_gene))
