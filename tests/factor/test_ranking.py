"""The best k and the ranks of held-out items, against sorting all scores; kernels against plain NumPy."""

from __future__ import annotations

import hashlib
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden import vectors
from leyden.errors import DataError, OptionError
from leyden.factor import _ranking_kernels, ranking
from leyden.factor.ranking import held_out_ranks, top_k

NOTHING = np.empty(0)


def score(u, v, offset=0.0):
    """The score of two rows, by its definition."""
    products = u.astype(float) * v.astype(float)
    even = len(products) - len(products) % 8
    lanes = np.zeros(8)
    for part in products[:even].reshape(-1, 8):
        lanes += part
    lanes[: len(products) - even] += products[even:]
    while len(lanes) > 1:
        lanes = lanes[::2] + lanes[1::2]
    return lanes[0] + offset


def all_scores(u, v, offset=None):
    offset = np.zeros(len(v)) if offset is None else offset
    return np.array([[score(a, b, o) for b, o in zip(v, offset, strict=True)] for a in u]).reshape(len(u), len(v))


def best(scores, k, excluded):
    """Indices and scores of the first k: a stable sort, and what is excluded taken out."""
    m = len(scores)
    indices, values = np.full((m, k), -1), np.full((m, k), -np.inf)
    for i in range(m):
        left = [j for j in np.argsort(-scores[i], kind="stable") if not excluded[i, j]][:k]
        indices[i, : len(left)], values[i, : len(left)] = left, scores[i, left]
    return indices, values


KINDS = ["normal", "ties", "near ties", "constant", "spread", "tiny", "cold"]


def case(seed, kind=None, dtype=None):
    """Factors, offsets or none, and a pattern; of kinds that tie, nearly tie, or lie far apart."""
    rng = np.random.default_rng(seed)
    kind = kind or KINDS[rng.integers(len(KINDS))]
    dtype = dtype or [np.float32, np.float64][rng.integers(2)]
    m, n, d = int(rng.integers(1, 12)), int(rng.integers(1, 200)), int(rng.integers(1, 20))
    u, v = rng.standard_normal((m, d)), rng.standard_normal((n, d))
    if kind == "ties":
        u, v = np.round(u), np.round(v)
    elif kind == "near ties":
        v = v[rng.integers(0, n, n)[rng.integers(0, 3, n).clip(max=n - 1)]] * (1 + 1e-7 * rng.integers(-2, 3, (n, 1)))
    elif kind == "constant":
        v = np.repeat(v[:1], n, axis=0)
    elif kind == "spread":
        u, v = u * 10.0 ** rng.integers(-12, 12, (m, 1)), v * 10.0 ** rng.integers(-12, 12, (n, 1))
    elif kind == "tiny":
        size = 1e-22 if dtype == np.float32 else 1e-161
        u, v = u * size, v * size
    elif kind == "cold":
        u, v = u * (rng.random((m, 1)) < 0.5), v * (rng.random((n, 1)) < 0.5)
    offset = [None, rng.standard_normal(n), np.round(rng.standard_normal(n)), np.zeros(n)][rng.integers(4)]
    pattern = rng.random((m, n)) < [0, 0.1, 0.9, 1][rng.integers(4)]
    return u.astype(dtype), v.astype(dtype), offset, pattern


@pytest.fixture
def tiles(monkeypatch):
    def choose(users, nbytes):
        monkeypatch.setattr(ranking, "TILE_USERS", users)
        monkeypatch.setattr(ranking, "TILE_NBYTES", nbytes)

    return choose


seeds = st.integers(0, 2**32)


def test_compiled_kernels_are_of_this_source():
    assert hashlib.sha256(Path(vectors.__file__).read_bytes()).hexdigest()[:16] == _ranking_kernels.COMPILED_FROM


@given(seeds, st.sampled_from([np.float32, np.float64]))
def test_a_score_is_the_sum_in_its_order(seed, dtype):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(0, 70))
    u, v = rng.standard_normal((2, 3, d)).astype(dtype)
    offset, sums = rng.standard_normal(3), np.empty(8)
    assert _ranking_kernels.score(u, 1, v, 2, offset, sums) == score(u[1], v[2], offset[2])
    assert _ranking_kernels.score(u, 2, v, 0, NOTHING, sums) == score(u[2], v[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_lengths_of_rows_of_any_scale(dtype, size):
    a = (np.random.default_rng(0).standard_normal((6, 11)) * size).astype(dtype)
    a[2], a[4, 3], a[5, 0] = 0, np.nan, -np.inf
    norms = np.empty(6)
    _ranking_kernels.row_norms(a, norms)
    truth = np.linalg.norm(a[:4].astype(np.longdouble), axis=1)
    assert np.allclose(norms[:4], truth.astype(float), rtol=1e-14, atol=0)
    assert np.isnan(norms[4:]).all()


def test_lengths_of_rows_whose_squares_are_out_of_range():
    norms = np.empty(3)
    _ranking_kernels.row_norms(np.array([[3e-200, 4e-200], [3e200, 4e200], [5e-324, 0]]), norms)
    assert np.allclose(norms, [5e-200, 5e200, 5e-324], rtol=1e-14, atol=0)


@settings(max_examples=300)
@given(
    seeds, st.integers(1, 250), st.sampled_from([1, 3]), st.sampled_from([1, 5, 256]), st.sampled_from([8, 700, 2**20])
)
def test_the_best_are_the_first_of_a_stable_sort(seed, k, threads, users, nbytes):
    u, v, offset, excluded = case(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "TILE_USERS", users)
        patch.setattr(ranking, "TILE_NBYTES", nbytes)
        indices, scores = top_k(u, v, k, exclude=sp.csr_array(excluded), item_offset=offset, threads=threads)
    expected = best(all_scores(u, v, offset), k, excluded)
    assert indices.dtype == np.int64
    assert (indices == expected[0]).all()
    assert (scores == expected[1]).all()


@settings(max_examples=300)
@given(seeds, st.sampled_from([1, 3]), st.sampled_from([1, 5, 256]), st.sampled_from([8, 700, 2**20]))
def test_ranks_count_the_candidates_above_and_those_that_tie(seed, threads, users, nbytes):
    u, v, offset, excluded = case(seed)
    rng = np.random.default_rng(seed)
    held = (rng.random(excluded.shape) < rng.choice([0.05, 0.5])) & ~excluded
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "TILE_USERS", users)
        patch.setattr(ranking, "TILE_NBYTES", nbytes)
        options = {"exclude": sp.csr_array(excluded), "item_offset": offset, "threads": threads}
        ranks = held_out_ranks(u, v, sp.csr_array(held), **options)
    scores = all_scores(u, v, offset)
    assert (ranks.indptr == np.append(0, np.cumsum(held.sum(axis=1)))).all()
    for q, (i, j) in enumerate(np.argwhere(held)):
        candidates = scores[i, ~excluded[i]]
        assert ranks.items[q] == j
        assert ranks.scores[q] == scores[i, j]
        assert ranks.above[q] == (candidates > scores[i, j]).sum()
        assert ranks.tied[q] == (candidates == scores[i, j]).sum()


def test_scores_are_those_of_exact_arithmetic_to_rounding():
    u, v, _, _ = case(0, "normal", np.float32)
    indices, scores = top_k(u, v, 3)
    for i in range(len(u)):
        for j, found in zip(indices[i], scores[i], strict=True):
            truth = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(u[i], v[j], strict=True))
            assert abs(found - truth) <= 1e-14 * np.linalg.norm(u[i]) * np.linalg.norm(v[j])


def test_the_order_of_items_closer_than_the_factors_can_say_in_their_type():
    u = np.full((1, 3), 1e4, dtype=np.float32)
    v = np.array([[1, 1, 1], [1, 1, 1 + 2**-23], [1, 1 + 2**-22, 1], [1, 1, 1]], dtype=np.float32)
    assert len(set((u @ v.T).ravel())) < 3
    indices, _ = top_k(u, v, 4)
    assert indices.tolist() == [[2, 1, 0, 3]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_larger_problem_whatever_the_tiles_and_threads(dtype, tiles):
    rng = np.random.default_rng(3)
    u, v = rng.standard_normal((300, 24)).astype(dtype), rng.standard_normal((5000, 24)).astype(dtype)
    seen = sp.random_array((300, 5000), density=0.02, rng=rng, format="csr")
    held = sp.random_array((300, 5000), density=0.001, rng=rng, format="csr")
    held = sp.csr_array(held - held.multiply(seen != 0))
    held.eliminate_zeros()
    first = top_k(u, v, 20, exclude=seen), held_out_ranks(u, v, held, exclude=seen)
    dense = u.astype(float) @ v.T.astype(float)
    dense[seen.toarray() != 0] = -np.inf
    assert (first[0][0] == np.argsort(-dense, axis=1, kind="stable")[:, :20]).all()
    rows, columns = np.nonzero(held.toarray())
    assert (first[1].above == [(dense[i] > dense[i, j]).sum() for i, j in zip(rows, columns, strict=True)]).all()
    for threads, users, nbytes in ((1, 7, 4096), (2, 100, 2**16), (5, 300, 2**24)):
        tiles(users, nbytes)
        again = (
            top_k(u, v, 20, exclude=seen, threads=threads),
            held_out_ranks(u, v, held, exclude=seen, threads=threads),
        )
        assert (again[0][0] == first[0][0]).all()
        assert (again[0][1] == first[0][1]).all()
        assert (again[1].above == first[1].above).all()
        assert (again[1].tied == first[1].tied).all()


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_patterns_of_any_sparse_format(index):
    u, v = np.ones((2, 1)), np.arange(5.0)[:, None]
    a = sp.csr_array(np.array([[0, 0, 0, 1, 1], [1, 0, 0, 0, 0]]))
    a.indices, a.indptr = a.indices.astype(index), a.indptr.astype(index)
    for pattern in (a, a.tocsc(), a.tocoo(), a.astype(bool), sp.csr_matrix(a)):
        assert top_k(u, v, 2, exclude=pattern)[0].tolist() == [[2, 1], [4, 3]]


def test_a_stored_zero_is_an_entry():
    seen = sp.csr_array((np.zeros(1), np.array([1]), np.array([0, 1])), shape=(1, 2))
    assert top_k([[1.0]], [[1.0], [2.0]], 1, exclude=seen)[0] == [[0]]


def test_one_item():
    assert [a.tolist() for a in top_k([[2]], [[3]], 1)] == [[[0]], [[6.0]]]


def test_factors_of_any_type():
    u, v = np.array([[1, 2]], dtype=np.int64), np.array([[1, 0], [0, 1]], dtype=np.float16)
    assert [a.tolist() for a in top_k(u, v, 2)] == [[[1, 0]], [[2.0, 1.0]]]
    assert top_k(u.astype(np.float32), v.astype(np.float64), 1)[0] == [[1]]


def test_without_factors_the_offset_decides():
    indices, scores = top_k(np.empty((2, 0)), np.empty((3, 0)), 2, item_offset=[1.0, 3.0, 2.0])
    assert indices.tolist() == [[1, 2]] * 2
    assert scores.tolist() == [[3.0, 2.0]] * 2


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_nobody_and_nothing(shape):
    m, n = shape
    u, v, pattern = np.ones((m, 2)), np.ones((n, 2)), sp.csr_array((m, n))
    indices, scores = top_k(u, v, 3, exclude=pattern)
    assert indices.shape == scores.shape == (m, 3)
    assert (indices == -1).all()
    assert len(held_out_ranks(u, v, pattern).above) == 0


def test_factors_mapped_from_files(tmp_path):
    u, v, _, _ = case(5, "normal", np.float32)
    np.save(tmp_path / "u.npy", u)
    np.save(tmp_path / "v.npy", v)
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("u.npy", "v.npy")]
    held = sp.csr_array(np.eye(len(u), len(v)))
    assert (top_k(*mapped, 5)[0] == top_k(u, v, 5)[0]).all()
    assert (held_out_ranks(*mapped, held).above == held_out_ranks(u, v, held).above).all()


def test_scores_of_a_tile_are_all_that_is_in_memory():
    u, v = np.ones((2000, 2), dtype=np.float32), np.arange(40_000, dtype=np.float32).reshape(-1, 2)
    top_k(u[:2], v, 1, threads=2)
    tracemalloc.start()
    top_k(u, v, 1, threads=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * ranking.TILE_NBYTES + 2**20 < u.shape[0] * v.shape[0] * 4 / 10


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_factors_that_are_not_finite_are_refused_where_they_are(value):
    u, v = np.ones((400, 3)), np.ones((5, 3))
    u[311, 2] = value
    with pytest.raises(DataError, match=r"user_factors, row 311, column 2: -?(nan|inf) is not a finite number"):
        top_k(u, v, 1)
    with pytest.raises(DataError, match=r"item_factors, row 311, column 2"):
        top_k(v, u, 1)
    with pytest.raises(DataError, match=r"item_offset\[1\]: a number is not finite"):
        top_k(v, v, 1, item_offset=[0, value, 0, 0, 0])


@pytest.mark.parametrize("name", ["item_offset", "factors"])
def test_scores_out_of_range_are_refused(name):
    u = np.full((1, 2), 1e19 if name == "factors" else 1, dtype=np.float32)
    offset = [1e38] if name == "item_offset" else None
    with pytest.raises(DataError, match=r"may not be numbers of float32.*float64"):
        top_k(u, u * 2, 1, item_offset=offset)
    assert top_k(u.astype(float), u * 2, 1, item_offset=offset)[0] == [[0]]
    with pytest.raises(DataError, match="may not be numbers of float64"):
        top_k([[1e200]], [[1e200]], 1)


def test_what_does_not_fit_is_refused():
    u, v = np.ones((2, 3)), np.ones((4, 3))
    with pytest.raises(DataError, match="user_factors has 3 columns, item_factors 2"):
        top_k(u, v[:, :2], 1)
    with pytest.raises(DataError, match=r"user_factors: an array of shape \(3,\) is not a matrix"):
        top_k(u[0], v, 1)
    with pytest.raises(DataError, match=r"item_factors: .*complex"):
        top_k(u, v * 1j, 1)
    with pytest.raises(DataError, match=r"item_offset: its shape is \(2,\), not \(4,\)"):
        top_k(u, v, 1, item_offset=[1, 2])
    with pytest.raises(DataError, match=r"exclude: its shape is \(4, 2\), not \(2, 4\)"):
        top_k(u, v, 1, exclude=sp.csr_array((4, 2)))
    with pytest.raises(DataError, match="held_out: ndarray is not a sparse matrix"):
        held_out_ranks(u, v, np.ones((2, 4)))
    with pytest.raises(OptionError, match="k=0 must be a whole number"):
        top_k(u, v, 0)


def test_an_item_that_is_held_out_and_excluded_is_refused():
    pattern = sp.csr_array(np.array([[0, 0], [0, 0], [0, 1]]))
    with pytest.raises(DataError, match="user row 2: an item is both held out and excluded"):
        held_out_ranks(np.ones((3, 1)), np.ones((2, 1)), pattern, exclude=pattern)
