"""Rows made orthonormal: kernels against NumPy, and what a pass measures against exact arithmetic."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import mpmath as mp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.truth import exact, norm

from leyden import doubled
from leyden.factor import _triangular
from leyden.factor.orthogonal import BITS, TILE, Basis, FactorGram, product, split
from leyden.rows.base import Block

seeds = st.integers(0, 2**32 - 1)


def upper(rng, d, decades=0.0):
    r = np.triu(rng.standard_normal((d, d))) / np.sqrt(d)
    np.fill_diagonal(r, 10.0 ** -np.linspace(0, decades, d))
    return r


def test_compiled_kernels_are_of_this_source():
    source = Path(doubled.__file__).read_bytes()
    assert hashlib.sha256(source).hexdigest()[:16] == _triangular.COMPILED_FROM


@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_rows_are_solved_for(seed, m, d):
    rng = np.random.default_rng(seed)
    a, r = rng.standard_normal((m, d)), upper(rng, d, 6)
    y = a.copy()
    _triangular.solve_rows(y, r)
    gap = np.abs(y @ r - a)
    assert (gap <= 1e-15 * (d + 4) * (np.abs(y) @ np.abs(r) + np.abs(a))).all()


@given(seeds, st.integers(2, 40), st.integers(1, 70), st.data())
def test_a_row_has_the_same_bits_in_any_tile(seed, m, d, data):
    rng = np.random.default_rng(seed)
    a, r = rng.standard_normal((m, d)), upper(rng, d, 14)
    first = data.draw(st.integers(0, m - 1))
    last = data.draw(st.integers(first + 1, m))
    whole, part = a.copy(), a[first:last].copy()
    _triangular.solve_rows(whole, r)
    _triangular.solve_rows(part, r)
    np.testing.assert_array_equal(whole[first:last], part)


@given(seeds, st.integers(1, 20), st.floats(-100, 100))
def test_parts_add_up_and_products_of_high_parts_are_exact(seed, d, decades):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((TILE, d)) * 10.0**decades
    high, low = split(a, BITS)
    np.testing.assert_array_equal(high + low, a)
    np.testing.assert_array_equal(high.T @ high, high[::-1].T @ high[::-1])
    assert np.abs(low).max() <= 2.0**-BITS * np.abs(a).max()


def test_kernels_do_what_numpy_does():
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 30, 7))
    assert _triangular.largest(a) == np.abs(a).max()
    high, low = np.empty_like(a), np.empty_like(a)
    sums = _triangular.split(a, 1.5 * 2.0**32, high, low)
    np.testing.assert_array_equal(high, (a + 1.5 * 2.0**32) - 1.5 * 2.0**32)
    np.testing.assert_array_equal(low, a - high)
    np.testing.assert_allclose(sums, [(a**2).sum(), (low**2).sum()])
    squares = np.zeros((2, 7))
    _triangular.add_squares(a, b, c, squares)
    np.testing.assert_allclose(squares, [((a - b - c) ** 2).sum(axis=0), (a**2).sum(axis=0)])
    hi, lo, exact_part, small = rng.standard_normal((4, 5, 5))
    expected = np.triu(hi + lo + exact_part + small + small.T)
    _triangular.add_doubled(hi, lo, exact_part, small)
    np.testing.assert_allclose(np.triu(hi + lo), expected, rtol=1e-14)


@settings(max_examples=100)
@given(seeds, st.integers(1, 6), st.floats(0, 15))
def test_the_error_of_a_product_in_parts_is_bounded(seed, p, decades):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((p, p)), upper(rng, p, decades)
    hi, lo, error = product(a, b)
    assert norm(exact(a) * exact(b) - exact(hi) - exact(lo)) <= error
    assert error <= 1e-18 * p * np.linalg.norm(a) * np.linalg.norm(b)


@settings(max_examples=150)
@given(seeds, st.integers(1, 60), st.integers(1, 5), st.floats(0, 15), st.lists(st.integers(1, 59), max_size=4))
def test_what_a_pass_measures_is_bounded_by_what_it_says(seed, n, d, decades, cuts):
    rng = np.random.default_rng(seed)
    r = upper(rng, d, decades)
    a = rng.standard_normal((n, d)) @ r
    basis = Basis(np.ones(d), r)
    reduction = FactorGram(basis, np.ones(d), r)
    state = None
    edges = [0, *sorted({cut for cut in cuts if cut < n}), n]
    for first, last in itertools.pairwise(edges):
        part = reduction.update(reduction.start(), Block(first, a[first:last]))
        state = part if state is None else reduction.merge(state, part)
    found = reduction.finish(state)
    y = a.copy()
    _triangular.solve_rows(y, r)
    exact_y, exact_a = exact(y), exact(a)
    assert norm(exact_y.T * exact_y - exact(found.hi) - exact(found.lo)) <= found.error
    assert found.error <= 1e-17 * np.linalg.norm(y) ** 2
    residual = exact_a - exact_y * exact(r)
    for j in range(d):
        true = norm(residual[:, j])
        assert true <= found.residual[j]
        assert found.residual[j] <= true * (1 + mp.mpf(10) ** -9) + 1e-18 * np.linalg.norm(y) * np.linalg.norm(r)
        assert found.column_norms[j] <= norm(exact_a[:, j])
