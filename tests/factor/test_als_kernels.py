"""Kernels of alternating least squares against plain NumPy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden import vectors
from leyden.factor import _als_kernels, _als_vectors
from leyden.factor.half_step import Entries, HalfStep, padded

DTYPES = [np.float32, np.float64]
MODELS = {
    "explicit": [1.0, 0.0, 0.0, 1.0],
    "centred": [1.0, 0.0, -3.5, 1.0],
    "implicit": [0.0, 2.0, 1.0, 2.0],
    "background": [1.0, 0.0, 1.0, 0.0],
}
#: Numbers of entries of rows: at the edges of vectors, of the rows that share them, and of the primal.
EDGES = [0, 0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 66, 79, 80, 81, 100, 129, 208, 209, 260]


def lanes(dtype):
    return 64 // np.dtype(dtype).itemsize


def rows_of(counts, columns, rng, *, positive=True):
    """Sparse rows with these numbers of entries."""
    indices = [np.sort(rng.choice(columns, count, replace=False)) for count in counts]
    values = rng.random(sum(counts)) + 0.1 if positive else rng.standard_normal(sum(counts))
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return sp.csr_array(
        (values.astype(np.float32), np.concatenate(indices).astype(np.int32), indptr), (len(counts), columns)
    )


def ridge(a, model, f, form, penalties, shift):
    """The rows of :func:`leyden.factor._als_kernels.half_step`, and the sum of their least values."""
    out, least = np.zeros((a.shape[0], f.shape[1])), 0.0
    for i in range(a.shape[0]):
        entries = slice(a.indptr[i], a.indptr[i + 1])
        j, value = a.indices[entries], a.data[entries].astype(float)
        if len(j) == 0:
            continue
        w = model[0] + model[1] * value
        t = (model[2] + model[3] * value) / w - shift[j]
        h = (f[j].T * w) @ f[j] + form + penalties[len(j)] * np.eye(f.shape[1])
        out[i] = np.linalg.solve(h, f[j].T @ (w * t))
        least += 0.5 * float(w @ (t - f[j] @ out[i]) ** 2) + 0.5 * out[i] @ (h - (f[j].T * w) @ f[j]) @ out[i]
    return out, least


def test_compiled_kernels_are_of_these_sources():
    sources = b"".join(Path(module.__file__).read_bytes() for module in (_als_vectors, vectors))
    assert hashlib.sha256(sources).hexdigest()[:16] == _als_kernels.COMPILED_FROM


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [16, 48, 80, 112, 208])
@pytest.mark.parametrize("kind", MODELS)
def test_half_steps_are_ridge_regressions_for_any_number_of_entries(dtype, width, kind):
    rng = np.random.default_rng(width)
    columns, model = 300, np.array(MODELS[kind])
    a = rows_of(rng.permutation(EDGES), columns, rng)
    active = width - 5
    f = np.zeros((columns, width), dtype)
    f[:, :active] = rng.standard_normal((columns, active)) / np.sqrt(active)
    theta = np.zeros(width)
    if kind in ("implicit", "background"):
        theta[:active] = 3 * rng.random(active)
    penalties = 0.3 + rng.random(max(EDGES) + 1)
    shift = rng.standard_normal(columns) if kind == "centred" else np.zeros(columns)
    expected, least = ridge(a, model, f.astype(float), np.diag(theta), penalties, shift)
    out = np.full((a.shape[0], width), np.nan, dtype)
    entries = Entries.of(a.indptr, a.indices, a.data)
    found = HalfStep(width, dtype, 1)(entries, model, f, theta, penalties, out, shift if kind == "centred" else None)
    rounding = 1e-11 if dtype == np.float64 else 3e-4
    assert np.abs(out - expected).max() < rounding * np.abs(expected).max()
    assert (out[:, active:] == 0).all()
    assert abs(found - least) < 3 * rounding * abs(least)


def improved(a, model, f, form, penalties, shift, start, subspace):
    """Rows of many entries with each block of factors at its best in turn, those of few at their best; and the sum."""
    out, least = ridge(a, model, f, form, penalties, shift)
    for i in range(a.shape[0]):
        entries = slice(a.indptr[i], a.indptr[i + 1])
        j, value = a.indices[entries], a.data[entries].astype(float)
        if len(j) <= _als_kernels.subspace_entries(subspace, f.shape[1]):
            continue
        w = model[0] + model[1] * value
        t = (model[2] + model[3] * value) / w - shift[j]
        d = form + penalties[len(j)] * np.eye(f.shape[1])
        best, u = out[i].copy(), start[i].copy()
        for p in range(0, f.shape[1], subspace):
            block = slice(p, p + subspace)
            b = f[j][:, block]
            right = b.T @ (w * (t - f[j] @ u)) - d[block] @ u
            u[block] += np.linalg.solve((b.T * w) @ b + d[block, block], right)
        value = lambda x, w=w, t=t, d=d, j=j: 0.5 * float(w @ (t - f[j] @ x) ** 2) + 0.5 * x @ d @ x  # noqa: E731
        assert value(u) <= value(start[i])
        least += value(u) - value(best)
        out[i] = u
    return out, least


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "subspace"), [(48, 16), (80, 32), (112, 48), (64, 64)])
@pytest.mark.parametrize("kind", MODELS)
def test_subspaces_are_blocks_of_factors_at_their_best_in_turn(dtype, width, subspace, kind):
    rng = np.random.default_rng(width)
    columns, model, active = 300, np.array(MODELS[kind]), width - 11
    a = rows_of(rng.permutation([*EDGES, 24, 25, 48, 49, 96, 97]), columns, rng)
    f = np.zeros((columns, width), dtype)
    f[:, :active] = rng.standard_normal((columns, active)) / np.sqrt(active)
    theta, penalties = np.where(np.arange(width) < active, 3 * rng.random(width), 0.0), 0.3 + rng.random(261)
    shift = rng.standard_normal(columns) if kind == "centred" else np.zeros(columns)
    start = np.zeros((a.shape[0], width))
    start[:, :active] = rng.standard_normal((a.shape[0], active))
    expected, value = improved(a, model, f.astype(float), np.diag(theta), penalties, shift, start, subspace)
    solve, entries = (
        HalfStep(width, dtype, 1, subspace=subspace, active=active),
        Entries.of(a.indptr, a.indices, a.data),
    )
    out, given = start.astype(dtype), shift if kind == "centred" else None
    found = solve(entries, model, f, theta, penalties, out, given)
    rounding = 1e-10 if dtype == np.float64 else 1e-3
    assert np.abs(out - expected).max() < rounding * np.abs(expected).max()
    assert abs(found - value) < rounding * abs(value)
    assert (out[:, active:] == 0).all()
    exactly = solve(entries, model, f, theta, penalties, out, given, exact=True)
    assert exactly <= found * (1 + rounding)
    assert np.isclose(exactly, ridge(a, model, f.astype(float), np.diag(theta), penalties, shift)[1], rtol=rounding)


@given(st.integers(0, 2**32), st.sampled_from([16, 32]), st.sampled_from(DTYPES))
@settings(max_examples=40)
def test_rows_do_not_depend_on_those_they_are_solved_beside(seed, width, dtype):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 90, int(rng.integers(1, 60)))
    a, f = rows_of(counts, 100, rng), rng.standard_normal((100, width)).astype(dtype)
    model, penalties = np.array(MODELS["explicit"]), np.linspace(0.5, 1.0, 91)
    solve, theta = HalfStep(width, dtype, 1), np.zeros(width)
    together = np.zeros((len(counts), width), dtype)
    solve(Entries.of(a.indptr, a.indices, a.data), model, f, theta, penalties, together)
    for i in rng.permutation(len(counts))[:8]:
        alone, row = np.zeros((1, width), dtype), a[[i]]
        solve(Entries.of(row.indptr, row.indices, row.data), model, f, theta, penalties, alone)
        assert np.allclose(
            alone[0], together[i], rtol=1e-9 if dtype == np.float64 else 2e-3, atol=1e-4 * (dtype == np.float32)
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [16, 48, 112])
def test_threads_do_not_change_a_bit_of_a_half_step(dtype, width):
    rng = np.random.default_rng(0)
    a = rows_of(rng.integers(0, 150, 500), 200, rng)
    entries, f = Entries.of(a.indptr, a.indices, a.data), rng.standard_normal((200, width)).astype(dtype)
    found = []
    for threads in (1, 2, 3):
        out = np.zeros((500, width), dtype)
        least = HalfStep(width, dtype, threads)(
            entries, np.array(MODELS["implicit"]), f, np.ones(width), np.full(151, 0.1), out
        )
        found.append((out, least))
    for out, least in found[1:]:
        assert (out == found[0][0]).all()
        assert least == found[0][1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", MODELS)
def test_nonnegative_half_steps_satisfy_the_conditions_of_optimality(dtype, kind):
    rng = np.random.default_rng(3)
    columns, width, active = 150, 32, 20
    a = rows_of([0, 1, 2, 5, 20, 64, 65, 140], columns, rng)
    f = np.zeros((columns, width), dtype)
    f[:, :active] = rng.random((columns, active))
    form = np.zeros((width, width))
    if kind in ("implicit", "background"):
        form = 0.2 * (f.T @ f).astype(float)
    model, penalties = np.array(MODELS[kind]), np.full(141, 0.5)
    out = np.zeros((a.shape[0], width), dtype)
    HalfStep(width, dtype, 1, active)(Entries.of(a.indptr, a.indices, a.data), model, f, form, penalties, out)
    assert (out >= 0).all()
    assert (out[:, active:] == 0).all()
    for i in range(a.shape[0]):
        entries = slice(a.indptr[i], a.indptr[i + 1])
        j, w = a.indices[entries], model[0] + model[1] * a.data[entries].astype(float)
        if len(j) == 0:
            assert not out[i].any()
            continue
        t, g, u = (model[2] + model[3] * a.data[entries].astype(float)) / w, f[j].astype(float), out[i].astype(float)
        slope = (form + 0.5 * np.eye(width)) @ u - g.T @ (w * (t - g @ u))
        size = np.abs(g.T @ (w * t)).max() * (1e-10 if dtype == np.float64 else 1e-3)
        assert (slope[:active] > -size).all()
        assert (np.abs(slope[u > 0]) < size).all()


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_ratings_grouped_by_item_are_the_transpose(seed):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    a = rows_of(rng.integers(0, m + 1, n), m, rng)
    found = Entries.of(a.indptr, a.indices, a.data).transposed(m)
    expected = a.T.tocsr()
    expected.sort_indices()
    assert (found.indptr == expected.indptr).all()
    assert (found.indices == expected.indices).all()
    assert (found.values == expected.data).all()
    assert (np.diff(found.counts[found.order]) >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [16, 32, 48, 80, 96, 128, 208])
def test_the_triangle_of_a_matrix_and_solutions_with_it(dtype, size):
    rng = np.random.default_rng(size)
    x = rng.standard_normal((2 * size, size))
    h = x.T @ x / size + np.eye(size)
    square = np.triu(h).astype(dtype)
    inverse, b, y = np.zeros(size, dtype), rng.standard_normal((1, size)).astype(dtype), np.zeros((1, size), dtype)
    right = b.copy()
    _als_kernels.cholesky(square, size, inverse, lanes(dtype))
    rounding = 1e-13 if dtype == np.float64 else 3e-5
    assert np.allclose(np.triu(square), np.linalg.cholesky(h).T, atol=10 * rounding)
    assert np.allclose(inverse, 1 / np.diag(square), rtol=rounding)
    _als_kernels.triangular_solves(square, size, inverse, b, y, lanes(dtype))
    assert np.allclose(y[0], np.linalg.solve(h, right[0].astype(float)), atol=30 * rounding)


@pytest.mark.parametrize("size", [8, 24, 40, 72])
def test_sizes_that_are_half_vectors_in_float32(size):
    h = np.eye(size) + 0.5
    square, inverse = np.triu(h), np.zeros(size)
    _als_kernels.cholesky(square, size, inverse, 8)
    assert np.allclose(np.triu(square), np.linalg.cholesky(h).T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [16, 32, 48, 96, 208])
@pytest.mark.parametrize("kind", MODELS)
def test_normal_equations_of_items_and_their_newton_steps(dtype, width, kind):
    rng = np.random.default_rng(width)
    model, m, base, active = np.array(MODELS[kind]), 9, 3, width - 3
    parts = [rows_of(rng.integers(0, m + 1, n), m, rng) for n in (70, 1, 130)]
    a = sp.vstack(parts, format="csr")
    n = a.shape[0]
    u, v = rng.standard_normal((n, width)).astype(dtype) / 4, rng.standard_normal((m, width)).astype(dtype) / 4
    shift = rng.standard_normal(n).astype(dtype) if kind == "centred" else np.empty(0, dtype)
    columns = np.zeros((len(parts), m + 1), np.int64)
    rows, values = np.zeros(a.nnz, np.int32), np.zeros(a.nnz, np.float32)
    firsts = np.cumsum([0] + [part.shape[0] for part in parts])[:-1].astype(np.int64)
    starts = np.cumsum([0] + [part.nnz for part in parts])[:-1].astype(np.int64)
    for p, part in enumerate(parts):
        here = slice(starts[p], starts[p] + part.nnz)
        _als_kernels.transpose(
            part.indptr.astype(np.int64), part.indices, part.data, columns[p], rows[here], values[here], firsts[p],
            np.empty((3, part.nnz), np.int32),
        )  # fmt: skip
    packed = _als_kernels.packed_starts(width)
    h, gradient = np.ones((m - base, packed[-1]), dtype), np.ones((m - base, width))
    work = np.zeros((width, width), dtype), np.zeros((64, width), dtype), np.zeros((3, max(width, 64)), dtype)
    _als_kernels.add_items(
        base, m, base, columns, starts, rows, values, model, shift, u, v, h, gradient, *work, lanes(dtype)
    )  # fmt: skip
    rounding = 1e-11 if dtype == np.float64 else 2e-4
    form = np.zeros((width, width))
    form[:active, :active] = 0.3
    nu = 1.0 + rng.random(m - base)
    expected, forms = np.zeros((m - base, width)), np.zeros((m - base, width, width))
    dense, there = a.toarray(), np.zeros(a.shape, bool)
    there[np.repeat(np.arange(n), np.diff(a.indptr)), a.indices] = True
    for j in range(base, m):
        i = np.flatnonzero(there[:, j])
        x, w = u[i].astype(float), model[0] + model[1] * dense[i, j].astype(float)
        t = (model[2] + model[3] * dense[i, j].astype(float)) / w - (shift[i] if len(shift) else 0)
        forms[j - base] = (x.T * w) @ x
        expected[j - base] = x.T @ (w * (t - x @ v[j].astype(float)))
        for k in range(width):
            found = h[j - base, packed[k] + k % 16 : packed[k + 1]] - 1
            assert np.allclose(found, forms[j - base, k, k:], atol=10 * rounding * max(1, len(i)))
    assert np.allclose(gradient - 1, expected, atol=30 * rounding * n)
    step, decrement = np.full((m - base, width), np.nan, dtype), np.zeros(1)
    gradient = -expected
    for j in range(m - base):
        for k in range(width):
            h[j, packed[k] : packed[k + 1]] = forms[j, k, k - k % 16 :]
    square, small = np.zeros((width, width), dtype), np.zeros((3, width), dtype)
    _als_kernels.newton_items(
        0, m - base, h, gradient, form.astype(dtype), nu, active, square, small, step, decrement, lanes(dtype)
    )  # fmt: skip
    gain = 0.0
    for j in range(m - base):
        whole = (forms[j] + form + nu[j] * np.eye(width))[:active, :active]
        best = np.linalg.solve(whole, gradient[j, :active])
        gain += 0.5 * best @ gradient[j, :active]
        assert np.allclose(step[j, :active], best, atol=10 * rounding * np.abs(best).max())
        assert (step[j, active:] == 0).all()
    assert np.isclose(decrement[0], gain, rtol=10 * rounding)


def test_nonnegative_newton_steps_lower_the_form_by_what_they_say():
    rng = np.random.default_rng(5)
    width, active, m = 32, 20, 6
    packed, x = _als_kernels.packed_starts(width), rng.standard_normal((m, 60, width))
    forms = np.einsum("jik,jil->jkl", x, x)
    h = np.stack([np.concatenate([form[k, k - k % 16 :] for k in range(width)]) for form in forms])
    v = np.zeros((m, width))
    v[:, :active] = np.maximum(rng.standard_normal((m, active)), 0)
    gradient, nu, before, decrement = 5 * rng.standard_normal((m, width)), 1 + rng.random(m), v.copy(), np.zeros(1)
    assert packed[-1] == h.shape[1]
    _als_kernels.newton_items_nonnegative(
        0, m, h, gradient, np.zeros((width, width)), nu, active, np.zeros((width, width)), np.zeros((3, width)), v,
        decrement, 8,
    )  # fmt: skip
    gain = 0.0
    for j in range(m):
        form, step = forms[j] + nu[j] * np.eye(width), v[j] - before[j]
        slope = gradient[j] + form @ step
        assert (v[j] >= 0).all()
        assert (slope[:active] > -1e-8).all()
        assert (np.abs(slope[v[j] > 0]) < 1e-8).all()
        gain -= gradient[j] @ step + 0.5 * step @ form @ step
    assert gain > 0
    assert np.isclose(decrement[0], gain)
    assert (v[:, active:] == 0).all()


def test_factors_are_padded_to_whole_vectors():
    assert [padded(rank) for rank in (1, 15, 16, 17, 64)] == [16, 16, 16, 32, 64]
