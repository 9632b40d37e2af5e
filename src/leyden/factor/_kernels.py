"""Compiled kernels of the factorizations. Each has a plain NumPy twin in the tests."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def pack_moments(a, shift, scale, out, moments):
    """``out = (a − shift) scale`` of a dense tile (m, d); its column sums and squares are added to ``moments`` (2, d)."""
    m, d = a.shape
    for i in range(m):
        for j in range(d):
            v = (a[i, j] - shift[j]) * scale[j]
            out[i, j] = v
            moments[0, j] += v
            moments[1, j] += v * v


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def multiply_sparse(data, indices, indptr, scale, w, y, moments):
    """``y = A w`` of a CSR tile (m, d) with columns scaled, ``w`` (d, l), ``y`` (m, l); sums and squares to ``moments``."""
    width = w.shape[1]
    for i in range(len(indptr) - 1):
        for l in range(width):
            y[i, l] = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            v = data[e] * scale[j]
            moments[0, j] += v
            moments[1, j] += v * v
            for l in range(width):
                y[i, l] += v * w[j, l]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def multiply_transposed_sparse(data, indices, indptr, scale, y, s):
    """``s += Aᵀ y`` of a CSR tile (m, d) with columns scaled, ``y`` (m, l), ``s`` (d, l) float64."""
    width = y.shape[1]
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            v = data[e] * scale[j]
            for l in range(width):
                s[j, l] += v * y[i, l]
