"""`al.pp.kernel_graph` against the matrix exponential, on small graphs and large ones, whole and in pieces."""

from __future__ import annotations

import anndata as ad
import numpy as np
import oracle
import pytest
from helpers import cohort, messages, portable, untouched
from scipy import sparse
from scipy.linalg import block_diag, expm

import annlmm as al
from annlmm._slots.kernel import read_family
from annlmm.model.graph import components, diffusion, leading_diffusion, normalized_adjacency, remaining_trace

# The eigenvalues of L, in [0, 2], are good to n · 2e-16, hence those of exp(−tL) ≤ 1 to t n 2e-16; t ≤ 50, n ≤ 60.
EXACT = {"rtol": 0, "atol": 2e-12}


def weights(n=40, k=4, seed=0):
    """A symmetric graph of nearest neighbours with weights in (0, 1]; connected for the seeds used."""
    x = np.random.default_rng(seed).uniform(size=(n, 2))
    d = np.linalg.norm(x[:, None] - x, axis=2)
    w = np.exp(-d / d.mean())
    kept = d <= np.sort(d, axis=1)[:, k][:, None]
    w = np.where(kept | kept.T, w, 0.0)
    np.fill_diagonal(w, 0.0)
    return w


def laplacian(w):
    degree = w.sum(axis=1)
    return np.eye(len(w)) - w / np.sqrt(np.outer(degree, degree))


def linked(w):
    adata = cohort(w.shape[0])
    adata.obsp["connectivities"] = w
    return adata


def stored(adata, key="kernel"):
    return al.get.kernel(adata, key).to_numpy()


def mean_diagonal(k):
    h = oracle.centring(len(k))
    return np.trace(h @ k @ h) / len(k)


# ------------------------------------------------------------------------------------------- the matrix


@pytest.mark.parametrize("t", [0.01, 1.0, 10.0, 50.0])
def test_is_the_matrix_exponential(t):
    w = weights()
    adata = linked(w)
    al.pp.kernel_graph(adata, diffusion_time=t, scale=False)
    k = stored(adata)
    np.testing.assert_allclose(k, expm(-t * laplacian(w)), **EXACT)
    entry = adata.uns["kernel"]
    assert (entry["eigenvalues"] > 0).all()
    assert entry["eigenvalues"][0] == pytest.approx(1.0, rel=1e-12)
    assert (entry["method"], entry["centered"]) == ("graph", False)
    assert entry["params"] == {"obsp": "connectivities", "diffusion_time": t, "scale": False}


def test_is_the_walk_with_its_ends_weighted():
    """K_ij = √(D_i/D_j) P_t(i, j), P_t the transition probabilities of a walk of rate 1: rows of P_t sum to 1."""
    w = weights()
    degree = w.sum(axis=1)
    adata = linked(w)
    al.pp.kernel_graph(adata, scale=False)
    k = stored(adata)
    assert adata.uns["kernel"]["params"]["diffusion_time"] == 10.0
    p = k * np.sqrt(degree / degree[:, None])
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-11)
    np.testing.assert_allclose(p, expm(10.0 * (w / degree[:, None] - np.eye(40))), rtol=0, atol=1e-11)


def test_tends_to_the_squared_exponential_on_a_ring():
    """A walk on a line has variance t: exp(−d²/(2t)), with corrections of order 1/t."""
    w = np.eye(300, k=1) + np.eye(300, k=299)
    adata = linked(w + w.T)
    al.pp.kernel_graph(adata, diffusion_time=200.0, scale=False)
    k = stored(adata)
    d = np.arange(60)
    np.testing.assert_allclose(k[100, 100 + d] / k[100, 100], np.exp(-(d**2) / 400), rtol=0, atol=0.005)


def test_tends_to_the_squared_exponential_on_a_lattice():
    """A walk on a square lattice has variance t/2 in either direction: exp(−d²/t)."""
    line = np.eye(24, k=1) + np.eye(24, k=23)
    line += line.T
    adata = linked(np.kron(line, np.eye(24)) + np.kron(np.eye(24), line))
    al.pp.kernel_graph(adata, diffusion_time=24.0, scale=False)
    k = stored(adata)[0].reshape(24, 24) / stored(adata)[0, 0]
    d = np.minimum(np.arange(24), 24 - np.arange(24))
    # corrections of order 1/t, at the largest distance those of walks around the torus
    np.testing.assert_allclose(k, np.exp(-(d[:, None] ** 2 + d**2) / 24), rtol=0, atol=0.02)


STORAGE = {
    "array": np.asarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "float32": lambda w: sparse.csr_matrix(w.astype(np.float32)),
    "with a diagonal": lambda w: w + np.diag(np.arange(40.0)),
    "with stored zeros": lambda w: sparse.csr_matrix((np.ones(1600), (np.repeat(np.arange(40), 40), np.tile(np.arange(40), 40)))).multiply(w).tocsr(),
}  # fmt: skip


@pytest.mark.parametrize("kind", STORAGE)
def test_weights_of_any_storage(kind):
    w = weights()
    adata = linked(STORAGE[kind](w))
    with untouched(adata, besides="kernel"):
        al.pp.kernel_graph(adata, scale=False)
    # float32 weights have seven digits
    np.testing.assert_allclose(
        stored(adata), expm(-10 * laplacian(w)), rtol=0, atol=1e-6 if kind == "float32" else 2e-12
    )


@pytest.mark.parametrize("dtype", [bool, np.int64])
def test_weights_of_one(dtype):
    w = (weights() > 0).astype(dtype)
    adata = linked(sparse.csr_matrix(w))
    al.pp.kernel_graph(adata, scale=False)
    np.testing.assert_allclose(stored(adata), expm(-10 * laplacian(w.astype(float))), **EXACT)


@pytest.mark.parametrize("c", [1e-9, 1e9])
def test_the_scale_of_the_weights_does_not_matter(c):
    adata = linked(weights())
    al.pp.kernel_graph(adata)
    adata.obsp["other"] = weights() * c
    al.pp.kernel_graph(adata, "other", key_added="scaled")
    np.testing.assert_allclose(stored(adata, "scaled"), stored(adata), rtol=0, atol=1e-11)


@pytest.mark.parametrize("scale", [True, False, None])
def test_the_scale_law(scale):
    adata = linked(weights())
    k = expm(-10 * laplacian(weights()))
    al.pp.kernel_graph(adata, **({} if scale is None else {"scale": scale}))
    t = mean_diagonal(k) if scale is False else 1.0
    np.testing.assert_allclose(stored(adata), k * t / mean_diagonal(k), rtol=0, atol=1e-10)
    assert adata.uns["kernel"]["trace_scale"] == pytest.approx(t, rel=1e-10)


@pytest.mark.parametrize("rank", [5, 0.5, 0.95])
def test_rank_keeps_the_leading_part(rank):
    adata = linked(weights())
    values = np.linalg.eigvalsh(expm(-10 * laplacian(weights())))[::-1]
    al.pp.kernel_graph(adata, rank=rank, scale=False)
    kept = 5 if rank == 5 else int(np.searchsorted(np.cumsum(values) / values.sum(), rank)) + 1
    entry = adata.uns["kernel"]
    np.testing.assert_allclose(entry["eigenvalues"], values[:kept], **EXACT)
    assert entry["explained"] == pytest.approx(values[:kept].sum() / values.sum(), rel=1e-11)


# ------------------------------------------------------------------------------------------- pieces


def pieces():
    return block_diag(weights(20, seed=1), weights(12, seed=2), weights(8, 3, seed=3))


def test_a_disconnected_graph_is_its_pieces():
    adata = linked(pieces())
    with messages("warning") as seen:
        al.pp.kernel_graph(adata, scale=False)
    assert seen == [
        "WARNING kernel_graph: the graph obsp='connectivities' falls into 3 components of 20, 12, 8 observations; between them the kernel is 0"
    ]
    expected = block_diag(*(expm(-10 * laplacian(weights(n, k, s))) for n, k, s in ((20, 4, 1), (12, 4, 2), (8, 3, 3))))
    np.testing.assert_allclose(stored(adata), expected, **EXACT)
    np.testing.assert_allclose(adata.uns["kernel"]["eigenvalues"][:3], 1.0, rtol=1e-12)


def test_a_connected_graph_gives_no_warning():
    with messages("warning") as seen:
        al.pp.kernel_graph(linked(weights()))
    assert not seen


def test_a_rank_below_the_number_of_pieces():
    adata = linked(pieces())
    message = r"rank=2: the graph has 3 connected components, each with an eigenvector of the largest eigenvalue; pass at least 3"
    with untouched(adata), pytest.raises(ValueError, match=message):
        al.pp.kernel_graph(adata, rank=2)
    with messages("error"):
        al.pp.kernel_graph(adata, rank=3)
    assert adata.obsm["kernel"].shape == (40, 3)


# ------------------------------------------------------------------------------------------- large graphs


def blobs(sizes, spread, seed=0, k=10):
    """A graph of the k nearest neighbours of points in clusters."""
    from sklearn.neighbors import kneighbors_graph

    rng = np.random.default_rng(seed)
    x = np.vstack([centre + spread * rng.standard_normal((n, 5)) for n, centre in zip(sizes, rng.standard_normal((len(sizes), 5)) * 4, strict=True)])  # fmt: skip
    w = kneighbors_graph(x, k, mode="connectivity")
    return sparse.csr_matrix((w + w.T) / 2)


def prepared(w):
    degree = np.asarray(w.sum(axis=1)).ravel()
    count, labels = components(w)
    return normalized_adjacency(w, degree), degree, count, labels


@pytest.fixture(scope="module", params=["one piece", "many pieces"])
def large(request):
    """2400 vertices, and the eigenvalues of L by LAPACK."""
    w = blobs([300] * 8, 1.5) if request.param == "one piece" else blobs([60] * 40, 0.02)
    s, degree, count, labels = prepared(w)
    assert (count == 1) == (request.param == "one piece")
    values, vectors = np.linalg.eigh(np.eye(2400) - s.toarray())
    return w, (s, degree, labels), np.maximum(values, 0.0), vectors


@pytest.mark.parametrize("t", [3.0, 30.0])
def test_a_small_rank_of_a_large_graph(large, t):
    """No n × n matrix, and every copy of a multiple eigenvalue."""
    w, _, values, vectors = large
    adata = ad.AnnData(obsp={"connectivities": w})
    al.settings.kernel_memory = 8 * 2400 * 800
    with messages("error"):
        al.pp.kernel_graph(adata, diffusion_time=t, rank=60, scale=False)
    entry, u = adata.uns["kernel"], adata.obsm["kernel"]
    expected = np.exp(-t * values)
    # residuals of 1e-10 · 2 in the eigenvalues of L
    np.testing.assert_allclose(entry["eigenvalues"], expected[:60], rtol=2e-10 * t)
    np.testing.assert_allclose(u.T @ u, np.eye(60), atol=1e-12)
    # 16 vectors of signs: deviation √(2 Σf²/16) of the rest of the trace, Σf, in units of the whole
    rest = expected[60:]
    assert entry["explained"] == pytest.approx(expected[:60].sum() / expected.sum(), abs=4 * np.sqrt(rest @ rest / 8) / expected.sum())  # fmt: skip
    gap = values[60] - values[59]
    if gap > 1e-6:  # K_60 itself, where it is unique
        whole = (vectors[:, :60] * expected[:60]) @ vectors[:100, :60].T
        low = (u * entry["eigenvalues"]) @ u[:100].T
        np.testing.assert_allclose(low, whole, rtol=0, atol=1e-8)


@pytest.mark.parametrize("t", [1.0, 10.0, 300.0])
def test_the_remaining_trace(large, t):
    _, (s, _, _), values, vectors = large
    f = np.exp(-t * values[50:])
    estimate = remaining_trace(s, vectors[:, :50], np.array([t]))[0]
    # the deviation of Hutchinson's estimate, and the terms of the series that are left out
    assert estimate == pytest.approx(f.sum(), abs=4 * np.sqrt(f @ f / 8) + 2400 * 1e-9)
    nothing = np.zeros((2400, 0))
    f = np.exp(-t * values)
    assert remaining_trace(s, nothing, np.array([t]))[0] == pytest.approx(f.sum(), abs=4 * np.sqrt(f @ f / 8) + 1e-5)


def test_a_share_of_a_large_graph(large):
    _, (s, degree, labels), values, _ = large
    times = np.array([10.0, 40.0])
    parts = leading_diffusion(s, times, 0.5, degree, labels)
    for t, part in zip(times, parts, strict=True):
        f = np.exp(-t * values)
        reached = f[: part.eigenvalues.size].sum() / f.sum()
        assert part.explained >= 0.5
        assert reached == pytest.approx(part.explained, abs=0.05)  # see above
        np.testing.assert_allclose(part.eigenvalues, f[: part.eigenvalues.size], rtol=2e-10 * t)
    assert leading_diffusion(s, np.array([0.01]), 0.9, degree, labels) is None


def test_many_copies_of_the_same_piece():
    """120 triangles and 700 pairs: eigenvalues 0, 3/2 and 2 of L, with 820, 240 and 700 copies."""
    triangle, pair = (sparse.csr_array(1.0 - np.eye(size)) for size in (3, 2))
    w = sparse.block_diag([triangle] * 120 + [pair] * 700 + [sparse.csr_array(weights(300))]).tocsr()
    s, degree, count, labels = prepared(w)
    assert count == 821
    part = leading_diffusion(s, np.array([1.0]), 830, degree, labels)[0]
    expected = np.sort(np.linalg.eigvalsh(laplacian(weights(300))))[1:10]
    np.testing.assert_allclose(part.eigenvalues[:821], 1.0, rtol=1e-9)
    np.testing.assert_allclose(part.eigenvalues[821:], np.exp(-expected), rtol=1e-9)


def test_times_share_their_eigenvectors(large):
    _, (s, degree, labels), _, _ = large
    short, long = leading_diffusion(s, np.array([5.0, 50.0]), 50, degree, labels)
    np.testing.assert_array_equal(short.u[:, : long.u.shape[1]], long.u)
    dense = diffusion(s, np.array([5.0, 50.0]), 50)
    for part, whole in zip((short, long), dense, strict=True):
        np.testing.assert_allclose(part.eigenvalues, whole.eigenvalues, rtol=1e-8)


# ------------------------------------------------------------------------------------------- use

ROWS = {
    "some": np.flatnonzero(np.random.default_rng(2).uniform(size=40) < 0.6),
    "permuted": np.random.default_rng(3).permutation(40),
    "some, permuted": np.random.default_rng(4).permutation(40)[:22],
}


@pytest.mark.parametrize("rank", [None, 7])
@pytest.mark.parametrize("which", ROWS)
def test_the_kernel_of_a_subset_is_the_subset_of_the_kernel(which, rank):
    """Of the graph that it was made of: not the kernel of the graph that is left."""
    adata, rows = linked(weights()), ROWS[which]
    al.pp.kernel_graph(adata, rank=rank)
    expected = stored(adata)[np.ix_(rows, rows)]
    np.testing.assert_allclose(stored(adata[rows].copy()), expected, rtol=0, atol=1e-12)


def test_fit_null_is_the_oracles():
    adata = linked(weights(60))
    k = expm(-10 * laplacian(weights(60)))
    k /= mean_diagonal(k)
    adata.obs["y"] += np.linalg.cholesky(k + 1e-9 * np.eye(60)) @ np.random.default_rng(5).standard_normal(60) * 3
    al.pp.kernel_graph(adata)
    al.tl.fit_null(adata, "y", covariates=["age"])
    expected = oracle.fit(adata.obs["y"].to_numpy(), np.column_stack([np.ones(60), adata.obs["age"]]), k)
    entry = adata.uns["lmm"]
    assert 0.05 < entry["h_sq"] < 0.999
    # compared values find a minimum to the root of the round-off of the likelihood
    assert entry["gamma"] == pytest.approx(expected.gamma, rel=1e-5)
    assert entry["log_likelihood"] == pytest.approx(expected.log_likelihood, abs=1e-8)


def test_the_connectivities_of_scanpy():
    """Real cells: the kernel of `sc.pp.neighbors`, which most genes follow."""
    import scanpy as sc

    adata = sc.datasets.pbmc68k_reduced()
    al.pp.kernel_graph(adata, scale=False)
    w = adata.obsp["connectivities"].toarray()
    np.testing.assert_allclose(stored(adata), expm(-10 * laplacian(w)), rtol=0, atol=1e-11)
    adata.obs["gene"] = adata.raw[:, "CST3"].X.toarray().ravel()  # a marker of monocytes
    al.tl.fit_null(adata, "gene")
    assert adata.uns["lmm"]["h_sq"] > 0.5
    assert adata.uns["lmm"]["h_sq_p_value"] < 1e-6


def test_a_family_of_times(tmp_path):
    adata = linked(weights())
    al.pp.kernel_graph(adata, diffusion_time=[1.0, 10.0, 100.0], rank=12, key_added="walks")
    found = read_family(adata, "walks")
    assert found.parameter == "diffusion_time"
    np.testing.assert_array_equal(found.values, [1.0, 10.0, 100.0])
    for key, t in zip(found.members, found.values, strict=True):
        al.pp.kernel_graph(adata, diffusion_time=float(t), rank=12)
        np.testing.assert_allclose(stored(adata, key), stored(adata), rtol=0, atol=1e-12)
        assert adata.uns[key]["params"]["diffusion_time"] == t
    with pytest.raises(ValueError, match=r"kernel='walks': is a family of 3 kernels.*'walks_1' \(10\)"):
        al.get.kernel(adata, "walks")
    adata.write_h5ad(tmp_path / "a.h5ad")
    read = ad.read_h5ad(tmp_path / "a.h5ad")
    assert portable(read) == portable(adata)
    al.tl.fit_null(read, "y", kernel="walks_2")


def test_a_copy_leaves_adata_as_it_is():
    adata = linked(weights())
    with untouched(adata):
        copied = al.pp.kernel_graph(adata, copy=True)
    assert "kernel" in copied.uns


# ------------------------------------------------------------------------------------------- bad input


def spoilt():
    adata = linked(weights())
    w = weights()
    changed = {
        "asymmetric": (slice(3, 4), slice(9, 10), 0.7),
        "negative": (slice(0, 2), slice(0, 2), -0.1),
        "nan": (slice(5, 6), slice(5, 6), np.nan),
        "infinite": (slice(5, 7), slice(5, 7), np.inf),
    }
    for key, (i, j, value) in changed.items():
        other = w.copy()
        other[i, j] = value
        adata.obsp[key] = sparse.csr_matrix(other) if key != "nan" else other
    alone = w.copy()
    alone[[4, 17]], alone[:, [4, 17]] = 0.0, 0.0
    adata.obsp["alone"] = alone
    adata.obsp["empty"] = sparse.csr_matrix((40, 40))
    adata.obsp["complex"] = w * 1j
    adata.obsm["taken"] = np.ones((40, 1))
    return adata


BAD = [
    ({"obsp": "connectivity"}, KeyError, r"obsp='connectivity': not in adata\.obsp; make a graph first, e\.g\. scanpy\.pp\.neighbors\(adata\); did you mean 'connectivities'"),
    ({"obsp": np.eye(40)}, TypeError, r"obsp: must be a key of adata\.obsp, received"),
    ({"obsp": "asymmetric"}, ValueError, r"obsp='asymmetric': not symmetric \(W and its transpose differ by up to 0\.7\); pass the connectivities, not the distances"),
    ({"obsp": "negative"}, ValueError, r"obsp='negative': 4 values are negative; weights of a graph are similarities"),
    ({"obsp": "nan"}, ValueError, r"obsp='nan': 1 values are NaN or infinite; set them to 0"),
    ({"obsp": "infinite"}, ValueError, r"obsp='infinite': 4 values are NaN or infinite; set them to 0"),
    ({"obsp": "alone"}, ValueError, r"obsp='alone': 2 of 40 observations have no neighbour \('s4', 's17'\); drop them, or compute the graph again"),
    ({"obsp": "empty"}, ValueError, r"obsp='empty': 40 of 40 observations have no neighbour \('s0', 's1', 's2', 's3', 's4', …\)"),
    ({"obsp": "complex"}, TypeError, r"obsp='complex': must hold real numbers, received dtype complex128"),
    ({"diffusion_time": 0}, ValueError, r"diffusion_time: must be a positive, finite number, received 0"),
    ({"diffusion_time": np.inf}, ValueError, r"diffusion_time: must be a positive, finite number, received inf"),
    ({"diffusion_time": [1, -1]}, ValueError, r"diffusion_time: must be positive, finite numbers, received -1"),
    ({"diffusion_time": None}, TypeError, r"diffusion_time: must be a number or a list of numbers, received None"),
    ({"scale": "yes"}, TypeError, r"scale: must be True or False, received 'yes'"),
    ({"key_added": "taken"}, ValueError, r"key_added='taken': adata\.obsm\['taken'\] holds something else"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD, ids=[str(case[0])[:40] for case in BAD])
def test_bad_input(arguments, error, message):
    adata = spoilt()
    with untouched(adata), pytest.raises(error, match=message):
        al.pp.kernel_graph(adata, **arguments)
