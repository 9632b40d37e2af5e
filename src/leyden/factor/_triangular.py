"""Compiled kernels of the QR factorization. Each has a plain NumPy twin in the tests."""

from __future__ import annotations

from numba import njit

from leyden.doubled import fma, two_sum

#: Hash of leyden/doubled.py, which is compiled into the kernels here, as in :mod:`leyden.solve._kernels`.
COMPILED_FROM = "ad17d3b3424642f9"

#: Rows of R that are applied to all rows of a tile before the next ones are read: a cache of the processor's own holds
#: them. A multiple of four.
PANEL = 16


@njit(nogil=True, cache=True, error_model="numpy")
def solve_rows(a, r):
    """``a ← a R⁻¹`` for a tile (m, d) and an upper triangular R (d, d), by substitution.

    Every entry is ``(a_ij − Σ_{l<j} y_il r_lj) / r_jj``, one fused multiply-add after the other in the order of l: a
    row has the same bits in whatever tile it stands, which no BLAS promises.
    """
    m, d = a.shape
    even = m - m % 2
    for first in range(0, d, PANEL):
        last = min(first + PANEL, d)
        for i in range(0, even, 2):
            _solve_two(a[i], a[i + 1], r, first, last)
        for i in range(even, m):
            _solve_one(a[i], r, first, last)


@njit(inline="always")
def _solve_two(a, b, r, first, last):
    """Entries ``first`` to ``last`` of two rows, taken off those that follow, four at a time."""
    d = len(a)
    for l in range(first, last - 3, 4):
        _solve_four(a, r, l)
        _solve_four(b, r, l)
        r0, r1, r2, r3 = r[l], r[l + 1], r[l + 2], r[l + 3]
        a0, a1, a2, a3 = -a[l], -a[l + 1], -a[l + 2], -a[l + 3]
        b0, b1, b2, b3 = -b[l], -b[l + 1], -b[l + 2], -b[l + 3]
        for j in range(l + 4, d):
            a[j] = fma(a3, r3[j], fma(a2, r2[j], fma(a1, r1[j], fma(a0, r0[j], a[j]))))
            b[j] = fma(b3, r3[j], fma(b2, r2[j], fma(b1, r1[j], fma(b0, r0[j], b[j]))))
    for l in range(last - (last - first) % 4, last):
        _solve_single(a, r, l, d)
        _solve_single(b, r, l, d)


@njit(inline="always")
def _solve_one(a, r, first, last):
    for l in range(first, last):
        _solve_single(a, r, l, len(a))


@njit(inline="always")
def _solve_four(a, r, l):
    for i in range(l, l + 4):
        _solve_single(a, r, i, l + 4)


@njit(inline="always")
def _solve_single(a, r, l, end):
    y = a[l] / r[l, l]
    a[l] = y
    for j in range(l + 1, end):
        a[j] = fma(-y, r[l, j], a[j])


@njit(nogil=True, cache=True, error_model="numpy")
def largest(a):
    """The largest absolute value of a matrix."""
    top = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            top = max(top, abs(a[i, j]))
    return top


@njit(nogil=True, cache=True, error_model="numpy")
def split(a, shift, high, low):
    """``a = high + low`` exactly, ``high`` rounded to the last place of ``shift`` = 1.5 · 2^k; sums of squares of ``a``
    and ``low``.
    """
    total, rest = 0.0, 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            v = a[i, j]
            h = (v + shift) - shift
            l = v - h
            high[i, j] = h
            low[i, j] = l
            total += v * v
            rest += l * l
    return total, rest


@njit(nogil=True, cache=True, error_model="numpy")
def add_doubled(hi, lo, exact, small):
    """Add ``exact + small + smallᵀ`` to the upper triangle of the doubled ``hi + lo``; all (d, d)."""
    for i in range(hi.shape[0]):
        for j in range(i, hi.shape[0]):
            s, e = two_sum(hi[i, j], exact[i, j])
            hi[i, j] = s
            lo[i, j] += e + (small[i, j] + small[j, i])


@njit(nogil=True, cache=True, error_model="numpy")
def add_squares(a, product, correction, sums):
    """Add the squares of ``a − product − correction`` and of ``a``, column by column, to ``sums`` (2, d)."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            e = (a[i, j] - product[i, j]) - correction[i, j]
            sums[0, j] += e * e
            sums[1, j] += a[i, j] * a[i, j]
