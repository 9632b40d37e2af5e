"""Kernels of the factorizations against plain NumPy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from leyden import vectors
from leyden.factor import _kernels


def test_compiled_kernels_are_of_this_source():
    assert hashlib.sha256(Path(vectors.__file__).read_bytes()).hexdigest()[:16] == _kernels.COMPILED_FROM


@given(st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]), st.sampled_from([np.float32, np.float64]))
def test_packed_rows_are_shifted_and_scaled(seed, dtype, out_dtype):
    rng = np.random.default_rng(seed)
    m, d = int(rng.integers(1, 20)), int(rng.integers(1, 20))
    a, shift, scale = rng.standard_normal((m, d)).astype(dtype), rng.standard_normal(d), 2.0 ** rng.integers(-3, 3, d)
    out, moments = np.empty((m, d), out_dtype), rng.standard_normal((2, d))
    expected = (a.astype(float) - shift) * scale
    sums = moments + np.array([expected.sum(axis=0), (expected**2).sum(axis=0)])
    _kernels.pack_moments(a, shift, scale, out, moments)
    assert (out == expected.astype(out_dtype)).all()
    assert np.allclose(moments, sums, rtol=1e-13)


@pytest.mark.parametrize("width", [8, 16, 40, 48, 56, 96, 104])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_image_of_sparse_rows(width, index, dtype):
    rng = np.random.default_rng(width)
    m, d = 37, 23
    a = sp.random_array((m, d), density=0.2, rng=rng, format="csr", dtype=np.float64)
    scale, w = 2.0 ** rng.integers(-3, 3, d), rng.standard_normal((d, width))
    data, indices, indptr = a.data.astype(dtype), a.indices.astype(index), a.indptr.astype(np.int64)
    b = sp.csr_array((data.astype(float), indices, indptr), shape=(m, d)).toarray() * scale
    y, s, moments = np.full((m, width), np.nan), rng.standard_normal((d, width)), np.zeros((2, d))
    before = s.copy()
    _kernels.image_sparse(data, indices, indptr, scale, w, y, s, moments)
    assert np.allclose(y, b @ w, atol=1e-13)
    assert np.allclose(s - before, b.T @ (b @ w), atol=1e-12)
    assert np.allclose(moments, [b.sum(axis=0), (b**2).sum(axis=0)], atol=1e-13)


def test_rows_without_entries_have_no_image():
    a = sp.csr_array((5, 4))
    y, s, moments = np.full((5, 8), np.nan), np.zeros((4, 8)), np.zeros((2, 4))
    _kernels.image_sparse(a.data, a.indices, a.indptr.astype(np.int64), np.ones(4), np.ones((4, 8)), y, s, moments)
    assert not y.any()
    assert not s.any()
