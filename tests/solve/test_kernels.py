"""Every kernel beside its plain NumPy twin, and beside exact arithmetic where it promises that."""

import hashlib
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.truth import exact

from leyden import doubled, vectors
from leyden.rows import Block
from leyden.solve import _kernels
from leyden.solve.coordinates import Coordinates
from leyden.solve.reductions import TSQR, Gradient, Gram, ProductGram, SparseSignSketch, TileGram, TriangleFold

NOTHING = np.empty(0)


def test_compiled_kernels_are_of_these_sources():
    sources = b"".join(Path(module.__file__).read_bytes() for module in (doubled, vectors))
    assert hashlib.sha256(sources).hexdigest()[:16] == _kernels.COMPILED_FROM


def case(seed, m=37, d=11, k=2, intercept=True, dtype=np.float64, weighted=True):
    """Data, targets, weights, and coordinates with a scale of powers of two."""
    rng = np.random.default_rng(seed)
    p = d + intercept
    a = rng.standard_normal((m, d)).astype(dtype)
    shift = rng.standard_normal(p + k)
    if intercept:
        shift[d] = 0
    coordinates = Coordinates(d, k, intercept, 0.3, shift, np.exp2(rng.integers(-3, 4, p + k)))
    return a, rng.standard_normal((m, k)), rng.exponential(size=m) if weighted else None, coordinates


def working(a, b, w, c):
    """Working rows by their definition."""
    ones = [np.ones((len(a), 1))] if c.intercept else []
    rows = (np.hstack([a.astype(float), *ones, b]) - c.shift) * c.scale
    return rows if w is None else np.sqrt(w)[:, None] * rows


cases = st.builds(
    case,
    st.integers(0, 2**32 - 1),
    m=st.integers(1, 70),
    d=st.integers(1, 40),
    k=st.integers(1, 3),
    intercept=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    weighted=st.booleans(),
)


@settings(deadline=None, max_examples=40)
@given(cases)
def test_pack_writes_working_rows_dense_and_sparse(problem):
    a, b, w, c = problem
    a = np.where(np.abs(a) > 0.7, a, 0)
    root = NOTHING if w is None else np.sqrt(w)
    expected = working(a, b, w, c)
    out = np.full(expected.shape, np.nan)
    _kernels.pack_dense(a, b, root, c.shift, c.scale, c.intercept, out)
    np.testing.assert_allclose(out, expected, rtol=1e-14, atol=1e-14)
    s = sp.csr_array(a)
    out = np.full(expected.shape, np.nan)
    _kernels.pack_sparse(s.data, s.indices, s.indptr, c.d, b, root, c.shift, c.scale, c.intercept, out)
    np.testing.assert_allclose(out, expected, rtol=1e-14, atol=1e-14)


@settings(deadline=None, max_examples=40)
@given(cases)
def test_gram_of_the_working_rows(problem):
    a, b, w, c = problem
    expected = working(a, b, w, c).T @ working(a, b, w, c)
    block = Block(0, np.ascontiguousarray(a), b, w)
    for dtype, rtol in ((np.float64, 1e-13), (np.float32, 1e-5)):
        gram = Gram(c, dtype, tile_rows=16)
        size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        found = gram.finish(gram.update(gram.start(), block)).matrix
        assert (np.abs(found - expected) <= rtol * size).all()


def pieces(a, b, w, lengths):
    """Blocks of these lengths, over and over, until the rows are used up."""
    start = 0
    rows = a.shape[0]
    while start < rows:
        for length in lengths:
            part = slice(start, min(start + length, rows))
            if part.stop > part.start:
                yield Block(start, a[part], b[part], None if w is None else w[part])
            start += length


@settings(deadline=None, max_examples=15)
@given(cases, st.lists(st.integers(1, 30), min_size=1, max_size=4), st.booleans())
def test_a_gram_matrix_is_right_to_the_bound_it_states_whatever_the_blocks(problem, lengths, sparse):
    a, b, w, c = problem
    if sparse:
        c = Coordinates(c.d, c.k, c.intercept, 0.0, np.where(np.arange(len(c.shift)) < c.d, 0.0, c.shift), c.scale)
    blocks = list(pieces(sp.csr_array(a) if sparse else np.ascontiguousarray(a), b, w, lengths))
    ones = [np.ones((len(a), 1))] if c.intercept else []
    rows = np.hstack([a.astype(float), *ones, b])
    design = [[(mp.mpf(v) - mp.mpf(s)) * mp.mpf(f) for v, s, f in zip(row, c.shift, c.scale, strict=True)]
              for row in rows.tolist()]  # fmt: skip
    weights = [mp.mpf(1)] * len(a) if w is None else [mp.mpf(v) for v in w.tolist()]
    q = rows.shape[1]
    truth = np.array(
        [[mp.fsum(u * r[i] * r[j] for u, r in zip(weights, design, strict=True)) for j in range(q)] for i in range(q)]
    )
    for dtype in (np.float64,) if sparse else (np.float64, np.float32):
        gram = Gram(c, dtype, tile_rows=16)
        states = [gram.update(gram.start(), block) for block in blocks]
        while len(states) > 1:
            states = [gram.merge(*states[:2]), *states[2:]]
        found = gram.finish(states[0])
        for i in range(q):
            for j in range(q):
                allowed = found.rounding * mp.sqrt(truth[i, i] * truth[j, j])
                assert abs(mp.mpf(float(found.matrix[i, j])) - truth[i, j]) <= allowed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("q", [0, 1, 4, 7, 8, 51, 64, 401])
@pytest.mark.parametrize("m", [1, 5, 6, 20])
def test_the_gram_matrix_of_a_tile_is_that_of_its_rows_alone(m, q, dtype):
    rng = np.random.default_rng(m * 1000 + q)
    tile = TileGram(20, q, dtype)
    rows = rng.standard_normal((m, q)).astype(dtype)
    tile.memory()[:, :q] = np.nan
    tile.memory()[:m, :q] = rows
    found = tile.product(m)[:q, :q]
    allowed = np.finfo(dtype).eps * m * (np.abs(rows).T.astype(float) @ np.abs(rows))
    assert (np.abs(np.triu(found - rows.T.astype(float) @ rows)) <= np.triu(allowed)).all()


@settings(deadline=None, max_examples=30)
@given(cases)
def test_gram_of_sparse_rows(problem):
    a, b, w, c = problem
    shift = c.shift.copy()
    shift[: c.d] = 0
    c = Coordinates(c.d, c.k, c.intercept, 0.0, shift, c.scale)
    a = np.where(np.abs(a) > 0.7, a, 0)
    expected = working(a, b, w, c).T @ working(a, b, w, c)
    gram = Gram(c, np.float64)
    found = gram.finish(gram.update(gram.start(), Block(0, sp.csr_array(a), b, w))).matrix
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


@settings(deadline=None, max_examples=30)
@given(cases, st.booleans(), st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_the_gradient_is_right_to_the_bound_it_states(problem, sparse, lengths):
    a, b, w, c = problem
    rng = np.random.default_rng(0)
    x, x0 = rng.standard_normal((c.d, c.k)), rng.standard_normal(c.k)
    x0 = x0 if c.intercept else np.zeros(c.k)
    data = sp.csr_array(a) if sparse else np.ascontiguousarray(a)
    gradient = Gradient(x, x0, intercept=c.intercept, sparse=sparse)
    states = [gradient.start()]
    for block in pieces(data, b, w, lengths):
        states = [gradient.merge(states[0], gradient.update(gradient.start(), block))]
    found = gradient.finish(states[0])
    design = exact(np.hstack([a, np.ones((len(a), 1))]) if c.intercept else a)
    weights = [mp.mpf(float(v)) for v in (np.ones(len(a)) if w is None else w)]
    for t in range(c.k):
        unknowns = exact(np.concatenate([x[:, t], x0[t : t + 1]]) if c.intercept else x[:, t])
        r = exact(b[:, t]) - design * unknowns
        size = [abs(mp.mpf(float(v))) for v in b[:, t]]
        for i in range(len(a)):
            size[i] += mp.fsum(abs(design[i, j] * unknowns[j]) for j in range(c.p))
        for j in range(c.p):
            truth = mp.fsum(weights[i] * design[i, j] * r[i] for i in range(len(a)))
            allowed = mp.fsum(
                weights[i] * abs(design[i, j]) * (found.residual_unit * size[i] + found.sum_unit * abs(r[i]))
                for i in range(len(a))
            )
            assert abs(mp.mpf(float(found.hi[j, t])) + mp.mpf(float(found.lo[j, t])) - truth) <= allowed
        assert found.rr[t] == pytest.approx(
            float(mp.fsum(u * v * v for u, v in zip(weights, r, strict=True))), rel=1e-12
        )
    np.testing.assert_allclose(found.bb, (b**2 * np.array(weights, float)[:, None]).sum(axis=0), rtol=1e-12)
    total = mp.fsum(weights)
    for j in range(c.p):
        norm = mp.sqrt(mp.fsum(u * design[i, j] ** 2 for i, u in enumerate(weights)))
        assert abs(mp.mpf(float(found.norms[j])) - norm) <= found.plain_unit * norm
        if j < c.d:
            mean = mp.fsum(u * design[i, j] for i, u in enumerate(weights)) / total
            assert abs(mp.mpf(float(found.means[j])) - mean) <= found.plain_unit * norm / mp.sqrt(total)


@settings(deadline=None, max_examples=20)
@given(cases)
def test_the_product_gram_is_right_however_ill_conditioned(problem):
    a, _, w, c = problem
    rng = np.random.default_rng(1)
    x = np.triu(rng.standard_normal((c.p, c.p)))
    expected = (working(a, np.zeros((len(a), c.k)), w, c)[:, : c.p]) @ x
    for kernel in (True, False):
        reduction = ProductGram(c, x, exact=kernel)
        found = reduction.finish(reduction.update(reduction.start(), Block(0, np.ascontiguousarray(a), None, w))).matrix
        np.testing.assert_allclose(found, expected.T @ expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max() ** 2)


def test_an_entry_of_the_exact_product_survives_total_cancellation():
    a = np.array([[1.0, 1.0 + 2.0**-50]])
    x = np.array([[2.0**60], [-(2.0**60)]])
    out, scratch = np.empty((1, 1)), np.empty((2, 1))
    _kernels.multiply_doubled(a, np.zeros(2), np.ones(2), NOTHING, False, x, scratch[0], scratch[1], out)
    assert out[0, 0] == -(2.0**10)


def test_tsqr_folds_to_the_factor_of_all_rows():
    a, b, w, c = case(3, m=500, d=6)
    reduction = TSQR(c)
    states = [
        reduction.update(reduction.start(), Block(i, a[i : i + 100], b[i : i + 100], w[i : i + 100]))
        for i in range(0, 500, 100)
    ]
    r = reduction.finish(
        reduction.merge(reduction.merge(states[0], states[1]), reduction.merge(states[2], reduction.merge(*states[3:])))
    )
    rows = working(a, b, w, c)
    np.testing.assert_allclose(r.T @ r, rows.T @ rows, rtol=1e-12, atol=1e-12 * np.abs(rows.T @ rows).max())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.lists(st.integers(1, 90), min_size=1, max_size=4),
    st.integers(0, 10**6),
    st.sampled_from([1.0, 1e-170, 1e-300, 1e140]),
)
def test_folding_into_a_triangle_is_a_backward_stable_qr(q, lengths, seed, scale):
    """The triangle is R of exactly the rows, each column moved by a few roundings of its norm (Higham, §19.3)."""
    rng = np.random.default_rng(seed)
    fold = TriangleFold(q)
    rows = [rng.standard_normal((m, q)) * np.exp2(rng.integers(-30, 30, q)) for m in lengths]
    for part in rows:
        part[:, rng.integers(q)] *= scale
        part[:, rng.random(q) < 0.1] = 0.0
    r = np.zeros((q, q))
    for part in rows:
        fold.memory()[: len(part), :q] = part
        r = fold.fold(r, len(part))
    whole = np.vstack(rows)
    assert not np.tril(r, -1).any()
    sizes = np.exp2(np.round(np.log2(np.maximum(np.abs(whole).max(axis=0), 1e-300))))
    expected, found = np.linalg.qr(whole / sizes, mode="r"), r / sizes
    np.testing.assert_allclose(found.T @ found, expected.T @ expected, rtol=0, atol=1e-14 * len(whole))
    assert not r[:, ~whole.any(axis=0)].any()


@pytest.mark.parametrize("q", [1, 8, 9, 30])
def test_two_triangles_are_folded_into_one_and_the_second_stays(q):
    rng = np.random.default_rng(q)
    a, b = (np.triu(rng.standard_normal((q, q))) for _ in range(2))
    expected, before = np.linalg.qr(np.vstack([a, b]), mode="r"), b.copy()
    merged = TSQR(Coordinates(q, 0, False, 0.0, np.zeros(q), np.ones(q))).merge(a, b)
    np.testing.assert_allclose(np.abs(merged), np.abs(expected), rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(b, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_the_triangle(value):
    fold = TriangleFold(20)
    tile = fold.memory()[:50, :20]
    tile[:] = np.random.default_rng(0).standard_normal((50, 20))
    tile[30, 11] = value
    with np.errstate(all="ignore"):
        assert not np.isfinite(fold.fold(np.zeros((20, 20)), 50)).all()


def test_a_sketch_is_the_same_from_any_blocks_in_any_order():
    a, b, w, c = case(4, m=5000, d=6)
    reduction = SparseSignSketch(c, seed=7)

    def block(start, stop):
        return Block(start, a[start:stop], b[start:stop], w[start:stop])

    whole = reduction.finish(reduction.update(reduction.start(), block(0, 5000)))
    parts = reduction.start()
    for start, stop in ((3000, 5000), (0, 17), (1500, 3000), (17, 1500)):
        parts = reduction.merge(parts, reduction.update(reduction.start(), block(start, stop)))
    np.testing.assert_allclose(reduction.finish(parts), whole, rtol=1e-12, atol=1e-12)
    assert not np.allclose(SparseSignSketch(c, seed=8).update(np.zeros_like(whole), block(0, 5000)), whole)


def test_a_sketch_embeds_the_column_space():
    rng = np.random.default_rng(5)
    q, _ = np.linalg.qr(rng.standard_normal((4000, 20)))
    c = Coordinates(20, 0, False, 0.0, np.zeros(20), np.ones(20))
    worst = []
    for seed in range(20):
        reduction = SparseSignSketch(c, seed)
        sketched = reduction.finish(reduction.update(reduction.start(), Block(0, q, np.empty((4000, 0)))))
        s = np.linalg.svd(sketched, compute_uv=False)
        worst.append((s[-1], s[0]))
    low, high = np.array(worst).T
    assert low.min() > 0.2
    assert high.max() < 1.9
    assert abs(np.mean(low**2 + high**2) / 2 - 1) < 0.5
