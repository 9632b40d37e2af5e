"""Kernels of mixed models with features by lookup against plain NumPy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from leyden import vectors
from leyden.factor import _als_vectors
from leyden.factor._als_vectors import lanes_cholesky
from leyden.rows.base import Block
from leyden.solve.lookup import _kernels as _lookup_kernels
from leyden.solve.lookup import _vectors as _lookup_vectors
from leyden.solve.lookup._vectors import combine_exactly, dot_exactly, lanes_inverse, lanes_square
from leyden.solve.lookup.passes import Residuals, Schur
from leyden.solve.lookup.problem import fixed_features, random_features

#: Rows of groups: at the edges of vectors, of the groups that share them, and of the primal.
EDGES = [0, 0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 66, 79, 80, 81, 129, 260]


def test_compiled_kernels_are_of_these_sources():
    sources = b"".join(Path(module.__file__).read_bytes() for module in (_lookup_vectors, _als_vectors, vectors))
    assert hashlib.sha256(sources).hexdigest()[:16] == _lookup_kernels.COMPILED_FROM


@njit
def inverses(k, tiles, x, g):
    lanes_cholesky(k, tiles)
    lanes_inverse(k, tiles, x)
    lanes_square(x, tiles, g)


@njit
def exactly(f, indices, first, n, a, l, w):
    combine_exactly(f, indices, first, n, a, l, w, f.shape[1])
    return dot_exactly(f, indices[first], w, f.shape[1])


def place(a, b):
    """Where entry (a, b), b ≤ a, is among tiles of 4 × 4 entries."""
    i, j = a // 4, b // 4
    return 16 * (i * (i + 1) // 2 + j) + 4 * (a % 4) + b % 4


@pytest.mark.parametrize("tiles", [1, 2, 3, 7])
def test_inverses_in_lanes_are_those_of_the_matrices(tiles):
    n, rng = 4 * tiles, np.random.default_rng(tiles)
    z = rng.standard_normal((16, n, n))
    m = z @ z.transpose(0, 2, 1) + np.eye(n)
    k = np.zeros((8 * tiles * (tiles + 1), 16), np.float32)
    for a in range(n):
        for b in range(4 * (a // 4) + 4):
            k[place(a, b)] = m[:, a, b]
    x, g = np.zeros_like(k), np.zeros_like(k)
    inverses(k, tiles, x, g)
    expected = np.linalg.inv(m)
    for a in range(n):
        for b in range(a + 1):
            np.testing.assert_allclose(g[place(a, b)], expected[:, a, b], atol=1e-4)


@pytest.mark.parametrize("width", [16, 48, 64, 112, 144])
def test_sums_over_table_rows_are_those_of_float64(width):
    rng = np.random.default_rng(width)
    f, a, w = rng.standard_normal((30, width)).astype(np.float32), rng.standard_normal((9, 16)), np.empty(width)
    indices = rng.integers(0, 30, 12).astype(np.int32)
    found = exactly(f, indices, 3, 9, a, 5, w)
    expected = a[:, 5] @ f[indices[3:]].astype(np.float64)
    np.testing.assert_allclose(w, expected, rtol=1e-13, atol=1e-13)
    assert abs(found - f[indices[3]].astype(np.float64) @ expected) < 1e-12


def fixed_of(kind, items, p, rng):
    """Fixed features of items: one category each, or several numbers."""
    codes = np.concatenate([np.arange(p), rng.integers(0, p, items - p)])
    if kind == "codes":
        return codes
    x = sp.random_array((items, p), density=0.3, format="csr", rng=rng)
    return x + sp.csr_array((np.ones(items), (np.arange(items), codes)), (items, p))


def problem(counts, k, kind, covariance, seed, items=40, p=6):
    """Groups, which may name an item twice, the table and the fixed features."""
    rng = np.random.default_rng(seed)
    indices = np.concatenate([np.sort(rng.integers(0, items, count)) for count in counts]).astype(np.int32)
    values = (5 + 2 * rng.standard_normal(len(indices))).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    groups = sp.csr_array((values, indices, indptr), (len(counts), items))
    table = random_features(rng.standard_normal((items, k)) / np.sqrt(k), items, covariance, False)
    return groups, table, fixed_features(fixed_of(kind, items, p, rng), items)


def twin(groups, table, features, beta):
    """Schur complement, right-hand side, log-determinant; gradient and objective of β; all of them one by one."""
    x, p = features.matrix().toarray(), features.p
    s, t, logarithm, gradient, objective = np.zeros((p, p)), np.zeros(p), 0.0, np.zeros(p), 0.0
    for g in range(groups.shape[0]):
        span = slice(groups.indptr[g], groups.indptr[g + 1])
        j, y = groups.indices[span], groups.data[span].astype(float)
        z = table.f[j].astype(float) * np.sqrt(table.delta)
        m = z @ z.T + np.eye(len(j))
        inverse = np.linalg.inv(m)
        r = y - x[j] @ beta
        s += x[j].T @ inverse @ x[j]
        t += x[j].T @ inverse @ y
        logarithm += np.linalg.slogdet(m)[1]
        gradient += x[j].T @ inverse @ r
        objective += r @ inverse @ r
    return s, t, logarithm, gradient, objective


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("kind", ["codes", "numbers"])
@pytest.mark.parametrize("k", [1, 20, 100])
def test_passes_are_their_definitions_for_groups_of_any_size(single, kind, k):
    rng = np.random.default_rng(k)
    groups, table, features = problem(rng.permutation(EDGES), k, kind, 2.0, k)
    beta = rng.standard_normal(features.p)
    s, t, logarithm, gradient, objective = twin(groups, table, features, beta)
    how = table, features, max(EDGES), single
    schur, residuals = Schur(*how), Residuals(*how, beta)
    found = schur.finish(schur.update(schur.start(), Block(0, groups)))
    rounding = 3e-6 if single else 1e-12
    np.testing.assert_allclose(found.s, s, atol=rounding * np.abs(s).max())
    np.testing.assert_allclose(found.t, t, atol=rounding * np.abs(t).max())
    assert abs(found.log_determinant - logarithm) < rounding * abs(logarithm)
    assert found.rows == sum(EDGES)
    left = residuals.finish(residuals.update(residuals.start(), Block(0, groups)))
    np.testing.assert_allclose(left.s, gradient, atol=1e-7 * np.abs(gradient).max())
    assert abs(left.objective - objective) < 1e-9 * objective
    assert left.squares == pytest.approx(float((groups.data.astype(float) ** 2).sum()))


@given(
    st.integers(0, 2**32),
    st.sampled_from([1e-6, 1.0, 30.0, 1e3, 1e6]),
    st.booleans(),
    st.sampled_from(["codes", "numbers"]),
)
@settings(max_examples=40)
def test_what_is_proved_of_sums_is_true(seed, covariance, single, kind):
    """``low Ŝ ⪯ S ⪯ high Ŝ``, and gradients within their defect, for any covariance."""
    rng = np.random.default_rng(seed)
    counts = rng.choice(EDGES[:-4], 30)
    groups, table, features = problem(counts, 20, kind, covariance, seed)
    beta = rng.standard_normal(features.p)
    s, _, _, gradient, _ = twin(groups, table, features, beta)
    how = table, features, 80, single
    schur, residuals = Schur(*how), Residuals(*how, beta)
    found = schur.finish(schur.update(schur.start(), Block(0, groups)))
    # What NumPy's own inverses are off by.
    own = 1e-14 * (1 + covariance) * 100
    lower = found.s - np.diag(found.slack) - (1 + found.error) * s
    upper = found.s + np.diag(found.slack) - (1 - found.error) * s
    size = np.abs(s).max()
    assert np.linalg.eigvalsh(lower)[-1] <= own * size
    assert np.linalg.eigvalsh(upper)[0] >= -own * size
    left = residuals.finish(residuals.update(residuals.start(), Block(0, groups)))
    missed = np.abs(left.s - gradient)
    allowed = left.rounding + left.defect * np.sqrt(np.diag(s)) * (1 + own)
    assert (missed <= allowed + own * np.abs(groups.data).sum()).all()


@pytest.mark.parametrize("single", [True, False])
def test_groups_do_not_depend_on_those_they_are_solved_beside(single):
    groups, table, features = problem([5] * 3 + [9] * 40 + [12] * 7, 20, "codes", 1.0, 0)
    schur = Schur(table, features, 12, single)
    together = schur.finish(schur.update(schur.start(), Block(0, groups)))
    alone = schur.start()
    for g in range(groups.shape[0]):
        alone = schur.update(alone, Block(g, groups[[g]]))
    np.testing.assert_allclose(schur.finish(alone).s, together.s, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [3, 70, 300])
def test_the_first_group_with_a_target_that_is_no_number_is_found(single, value, count):
    groups, table, features = problem([4, count, 5, count], 20, "codes", 1.0, 0)
    groups.data[[groups.indptr[2] - 1, groups.indptr[4] - 1]] = value
    how = table, features, 300, single
    for reduction in (Schur(*how), Residuals(*how, np.zeros(6))):
        assert reduction.finish(reduction.update(reduction.start(), Block(10, groups))).bad == 11
