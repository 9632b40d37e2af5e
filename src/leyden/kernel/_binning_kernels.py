"""Kernels of random binning. Each has a plain NumPy twin in the tests."""

from __future__ import annotations

import numpy as np
from numba import njit

#: Points that a grid's hashes are computed of at a time: the sums stay in the cache.
CHUNK = 1024

options = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**options)
def bins(x, inverse, shift, multiplier, bits, out):
    """The slots of points in all grids: ``out[p, i] = p 2^bits + slot``.

    The cell of a point is ``⌊x_j inverse_pj + shift_pj⌋``, and its slot the first bits of a hash of that: a multilinear
    form modulo 2³² (Carter and Wegman 1979) and the finalizer of MurmurHash3 (Appleby), which mixes its bits.

    Parameters
    ----------
    x : float32, shape (d, m)
    inverse, shift : float32, shape (P, d)
    multiplier : uint32, shape (P, d)
    out : int32, shape (P, m)
    """
    d, m = x.shape
    sums = np.empty(CHUNK, np.uint32)
    down = np.uint32(32 - bits)
    for first in range(0, m, CHUNK):
        count = min(CHUNK, m - first)
        for p in range(len(inverse)):
            for i in range(count):
                sums[i] = np.uint32(p)
            for j in range(d):
                scale, start, times = inverse[p, j], shift[p, j], multiplier[p, j]
                for i in range(count):
                    cell = np.int32(np.floor(x[j, first + i] * scale + start))
                    sums[i] = np.uint32(sums[i] + np.uint32(np.uint32(cell) * times))
            base = np.int32(p << bits)
            for i in range(count):
                h = sums[i]
                h = np.uint32(h ^ (h >> np.uint32(16)))
                h = np.uint32(h * np.uint32(0x85EBCA6B))
                h = np.uint32(h ^ (h >> np.uint32(13)))
                h = np.uint32(h * np.uint32(0xC2B2AE35))
                h = np.uint32(h ^ (h >> np.uint32(16)))
                out[p, first + i] = base + np.int32(h >> down)


@njit(**options)
def gather(places, value, w, out):
    """``out[i] += value Σ_p w[places[p, i]]``: grid by grid, whose weights then are near."""
    k = w.shape[1]
    for p in range(places.shape[0]):
        for i in range(places.shape[1]):
            for c in range(k):
                out[i, c] += w[places[p, i], c]
    for i in range(out.shape[0]):
        for c in range(k):
            out[i, c] *= value


@njit(**options)
def scatter(places, value, q, total):
    """``total[places[p, i]] += value q[i]``."""
    k = q.shape[1]
    for p in range(places.shape[0]):
        for i in range(places.shape[1]):
            for c in range(k):
                total[places[p, i], c] += value * q[i, c]
