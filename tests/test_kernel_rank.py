"""`rank=`: block Lanczos against LAPACK, the share of the trace that is explained, and the refusal of what does not fit memory."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import cohort, untouched
from scipy import sparse

import annlmm as al
from annlmm.model import low_rank as module
from annlmm.model.eigen import cut_to_share, doubling, from_kernel, is_low_rank, low_rank
from annlmm.model.low_rank import basis_size, leading

N = 300


def with_spectrum(values, seed=0):
    """A matrix with these eigenvalues and random eigenvectors."""
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    return (q * values) @ q.T


def steep():
    return 0.7 ** np.arange(N)


def flat():
    return np.linspace(1.0, 2.0, N)


def clustered():
    return np.r_[np.full(30, 2.0), np.full(20, 1.0), np.full(N - 50, 0.1)]


def bulk():
    """A few large ones, then the bulk that the eigenvalues of a relationship matrix make."""
    z = np.random.default_rng(1).standard_normal((N, 2 * N))
    return np.r_[np.linalg.eigvalsh(z @ z.T / (2 * N))[:-4], [5.0, 8.0, 9.0, 40.0]]


def deficient():
    return np.r_[np.arange(1.0, 8.0), np.zeros(N - 7)]


def indefinite():
    return np.linspace(-3.0, 1.0, N)


SPECTRA = [steep, flat, clustered, bulk, deficient, indefinite]


# A block finds no more copies of an eigenvalue than it has vectors.
CASES = [
    (f, k, b) for f in SPECTRA for k in (1, 12, 40, N) for b in (None, 1, 16) if f is not clustered or not b or k == 1
]


@pytest.mark.parametrize(("spectrum", "k", "block"), CASES)
def test_leading_is_lapacks(spectrum, k, block):
    values = np.sort(spectrum())[::-1]
    matrix = with_spectrum(values)
    theta, u = leading(lambda v: matrix @ v, N, k, block=block)
    norm = np.abs(values).max()
    # An eigenvalue of a vector with residual r ≤ 1e-10 ‖K‖ is within r of one of K (Weyl), to first order in it.
    np.testing.assert_allclose(theta, values[:k], atol=1e-10 * norm)
    assert np.linalg.norm(matrix @ u - u * theta, axis=0).max() <= 1.01e-10 * norm
    np.testing.assert_allclose(u.T @ u, np.eye(k), atol=1e-12)


def test_copies_of_an_eigenvalue_are_all_found():
    """30 copies of the largest: single vectors may miss some; a block of more than k does not, nor does one that is told."""
    values = clustered()
    matrix = with_spectrum(values)
    for options in ({}, {"block": 31}, {"start": np.linalg.eigh(matrix)[1][:, -30:], "block": 16}):
        theta, _ = leading(lambda v: matrix @ v, N, 45 if "start" in options else 40, **options)
        np.testing.assert_allclose(theta[:40], values[:40], atol=1e-10)


def test_a_disconnected_matrix():
    """Blocks of the same matrix: every eigenvalue has 20 copies."""
    one = with_spectrum(np.r_[np.arange(1.0, 6.0), np.zeros(10)])
    matrix = sparse.block_diag([sparse.csr_array(one)] * 20).tocsr()
    theta, u = leading(lambda v: matrix @ v, 300, 50)
    np.testing.assert_allclose(theta, np.repeat([5.0, 4.0, 3.0], 20)[:50], atol=1e-9)
    assert np.linalg.norm(matrix @ u - u * theta, axis=0).max() < 1e-9


def test_leading_repeats_exactly():
    matrix = with_spectrum(bulk())
    first, second = (leading(lambda v: matrix @ v, N, 9) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_a_start_saves_products():
    matrix = with_spectrum(bulk())
    columns = []

    def multiply(v):
        columns.append(v.shape[1])
        return matrix @ v

    _, u = leading(multiply, N, 9)
    without = sum(columns)
    columns.clear()
    theta, _ = leading(multiply, N, 9, start=u)
    assert sum(columns) < without / 2
    np.testing.assert_allclose(theta, np.sort(bulk())[::-1][:9], atol=1e-8)


def test_memory_is_bounded():
    widest = []

    def multiply(v):
        widest.append(v.shape[1])
        return matrix @ v

    matrix = with_spectrum(flat())
    leading(multiply, N, 4, block=2)
    assert max(widest) == 2
    assert basis_size(N, 4, 2) == 48
    assert basis_size(10, 8) == 10
    assert basis_size(10**6, 500) == 3 * 562


def test_what_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "MOST_STEPS", 2)
    matrix = with_spectrum(flat())
    with pytest.raises(
        np.linalg.LinAlgError, match="the 5 leading eigenvectors of 300 did not converge in 2 steps; pass another rank"
    ):
        leading(lambda v: matrix @ v, N, 5)


# ------------------------------------------------------------------------------------------- which way


@pytest.mark.parametrize(
    ("rank", "n", "expected"),
    [(None, 5000, False), (5, 2000, False), (5, 2001, True), (199, 2001, True), (200, 2001, False), (0.5, 2001, True), (1.0, 2001, False), (0.5, 2000, False)],
)  # fmt: skip
def test_iterations_are_for_a_rank_far_below_n(rank, n, expected):
    assert is_low_rank(rank, n) is expected


def test_numbers_that_are_tried_for_a_share():
    assert list(doubling(2001)) == [64, 128, 200]
    assert list(doubling(30_000)) == [64, 128, 256, 512, 1000]


N_LARGE = 2100


@pytest.fixture(scope="module")
def large():
    """A factor of a kernel whose eigenvalues fall slowly: 150 of them."""
    rng = np.random.default_rng(3)
    z = rng.standard_normal((N_LARGE, 150)) * 0.97 ** np.arange(150)
    return z, np.linalg.svd(z, compute_uv=False) ** 2


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_a_share_of_the_trace(large, share):
    z, values = large
    part = low_rank(lambda v: z @ (z.T @ v), N_LARGE, share, values.sum())
    expected = int(np.searchsorted(np.cumsum(values) / values.sum(), share)) + 1
    assert part.eigenvalues.size == expected
    assert part.explained == pytest.approx(values[:expected].sum() / values.sum(), rel=1e-9)
    assert part.explained >= share
    np.testing.assert_allclose(part.eigenvalues, values[:expected], rtol=1e-8)


def test_a_share_that_takes_too_many():
    """Of 210 the largest carry a tenth: the caller has to find another way."""
    assert low_rank(lambda v: v * np.linspace(1, 1.1, N_LARGE)[:, None], N_LARGE, 0.5, 1.05 * N_LARGE) is None


def test_an_int_keeps_that_many(large):
    z, values = large
    part = low_rank(lambda v: z @ (z.T @ v), N_LARGE, np.int64(7), values.sum())
    np.testing.assert_allclose(part.eigenvalues, values[:7], rtol=1e-9)
    assert part.explained == pytest.approx(values[:7].sum() / values.sum(), rel=1e-9)
    assert low_rank(lambda v: z @ (z.T @ v), N_LARGE, None, 1.0) is None


def test_a_cut_at_the_whole_share():
    spectrum = from_kernel(with_spectrum(np.array([4.0, 3.0, 2.0, 1.0])))
    assert cut_to_share(spectrum, 0.7).eigenvalues.size == 2
    assert cut_to_share(spectrum, 0.71).eigenvalues.size == 3
    assert cut_to_share(spectrum, 1.0).explained == pytest.approx(1.0)


# ------------------------------------------------------------------------------------------- the kernels


def wide(n, m, seed=4):
    adata = cohort(n, 3)
    adata.obsm["wide"] = np.random.default_rng(seed).standard_normal((n, m)) * 0.99 ** np.arange(m)
    return adata


@pytest.mark.parametrize("rank", [6, 0.2])
def test_linear_of_more_columns_than_many_rows(rank):
    """No n × n matrix is made, and the leading eigenvectors are those of the naive one."""
    adata = wide(2100, 2200)
    z = adata.obsm["wide"] - adata.obsm["wide"].mean(axis=0)
    values, vectors = np.linalg.eigh(z @ z.T / 2200)
    values, vectors = values[::-1], vectors[:, ::-1]
    al.settings.kernel_memory = 8 * 2100 * 2200
    al.pp.kernel_linear(adata, "wide", rank=rank, scale=False)
    entry, u = adata.uns["kernel"], adata.obsm["kernel"]
    r = u.shape[1]
    assert r == (6 if rank == 6 else int(np.searchsorted(np.cumsum(values) / values.sum(), 0.2)) + 1)
    # residuals below 1e-10 ‖K‖ over gaps of about a hundredth of it
    np.testing.assert_allclose(entry["eigenvalues"], values[:r], rtol=1e-9)
    np.testing.assert_allclose(np.abs((u * vectors[:, :r]).sum(axis=0)), 1.0, atol=1e-9)
    assert entry["explained"] == pytest.approx(values[:r].sum() / values.sum(), rel=1e-9)
    assert entry["params"]["rank"] == rank


def test_linear_of_more_columns_than_few_rows():
    adata = wide(60, 200)
    al.pp.kernel_linear(adata, "wide", rank=0.5, scale=False)
    z = adata.obsm["wide"] - adata.obsm["wide"].mean(axis=0)
    values = np.linalg.eigvalsh(z @ z.T / 200)[::-1]
    r = int(np.searchsorted(np.cumsum(values) / values.sum(), 0.5)) + 1
    np.testing.assert_allclose(adata.uns["kernel"]["eigenvalues"], values[:r], rtol=1e-9)
    assert adata.uns["kernel"]["explained"] == pytest.approx(values[:r].sum() / values.sum(), rel=1e-9)


def ring(n):
    edges = sparse.diags_array([np.ones(n - 1), [1.0]], offsets=[1, n - 1])
    return sparse.csr_matrix(edges + edges.T)


def placed(n):
    adata = cohort(n, 3)
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 1, (n, 2))
    adata.obsm["wide"] = np.random.default_rng(0).standard_normal((n, n + 1))
    adata.obsp["connectivities"] = ring(n)
    return adata


CALLS = {
    "rbf": lambda adata, **options: al.pp.kernel_rbf(adata, length_scale=0.01, **options),
    "graph": lambda adata, **options: al.pp.kernel_graph(adata, **options),
    "linear": lambda adata, **options: al.pp.kernel_linear(adata, "wide", **options),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_dense_kernel_beyond_memory_is_refused_with_rank_named(name):
    adata = placed(50)
    al.settings.kernel_memory = 8 * 50 * 49
    with (
        untouched(adata),
        pytest.raises(
            MemoryError, match=r"a dense 50 × 50 matrix .*al\.settings\.kernel_memory.*; pass rank= \(an int below 5\)"
        ),
    ):
        CALLS[name](adata)


@pytest.mark.parametrize("name", CALLS)
def test_eigenvectors_beyond_memory_are_refused(name):
    adata = placed(2010)
    al.settings.kernel_memory = 8 * 2010 * 500
    with untouched(adata), pytest.raises(MemoryError, match=r"a dense 2010 × 800 matrix .*; pass a smaller rank="):
        CALLS[name](adata, rank=200)


@pytest.mark.parametrize("name", ["rbf", "graph"])
def test_a_share_beyond_memory_is_refused_with_an_int_named(name):
    adata = placed(2010)
    al.settings.kernel_memory = 8 * 2010 * 2009
    with (
        untouched(adata),
        pytest.raises(
            MemoryError,
            match=r"its leading 201 eigenvectors carry less than rank=0\.99 of the trace; pass rank= as an int",
        ),
    ):
        CALLS[name](adata, rank=0.99)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("rank", "error", "message"), [
    (0, ValueError, "rank: must be at least 1, received 0"),
    (1.5, ValueError, r"rank: as a fraction of the trace must lie in \(0, 1\], received 1\.5"),
    ("all", TypeError, "rank: must be None, an int or a fraction, received 'all' of type str"),
    (True, TypeError, "rank: must be None, an int or a fraction, received True"),
])  # fmt: skip
def test_a_rank_that_is_none(name, rank, error, message):
    adata = placed(30)
    with untouched(adata), pytest.raises(error, match=message):
        CALLS[name](adata, rank=rank)
