"""Doubled arithmetic against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from leyden import doubled

U = Fraction(1, 2**53)
moderate = st.floats(-1e100, 1e100).filter(lambda v: v == 0 or abs(v) > 1e-100)


@njit
def _two_sum(a, b):
    return doubled.two_sum(a, b)


@njit
def _two_product(a, b):
    return doubled.two_product(a, b)


@njit
def _add(ah, al, bh, bl):
    return doubled.add(ah, al, bh, bl)


@njit
def _dot_row(a, i, x, k, m):
    return doubled.dot_row(a, i, x, k, m)


@given(moderate, moderate)
def test_two_sum_and_two_product_lose_nothing(a, b):
    s, e = _two_sum(a, b)
    assert Fraction(s) + Fraction(e) == Fraction(a) + Fraction(b)
    p, e = _two_product(a, b)
    assert Fraction(p) + Fraction(e) == Fraction(a) * Fraction(b)


@given(moderate, moderate, st.floats(-1, 1), st.floats(-1, 1))
def test_adding_doubled_numbers_errs_by_four_units_squared(a, b, la, lb):
    la, lb = a * la * 2.0**-54, b * lb * 2.0**-54
    h, l = _add(a, la, b, lb)
    exact = sum(map(Fraction, (a, la, b, lb)))
    assert abs(Fraction(h) + Fraction(l) - exact) <= 4 * U**2 * (abs(Fraction(a)) + abs(Fraction(b)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [2, 15, 16, 17, 64, 167])
def test_a_dot_product_that_cancels_keeps_its_digits(dtype, length):
    rng = np.random.default_rng(length)
    a = (rng.standard_normal((3, length)) * 10.0 ** rng.uniform(-8, 8, length)).astype(dtype)
    x = rng.standard_normal((2, length)) * 10.0 ** rng.uniform(-8, 8, length)
    x[1, -1] = -(a[2, :-1].astype(float) @ x[1, :-1]) / float(a[2, -1])
    h, l = _dot_row(a, 2, x, 1, length)
    terms = [Fraction(float(v)) * Fraction(float(w)) for v, w in zip(a[2], x[1], strict=True)]
    bound = (length / 16 + 24) ** 2 * U**2 * sum(map(abs, terms))
    assert abs(Fraction(float(h)) + Fraction(float(l)) - sum(terms)) <= bound


def test_rows_with_a_stride_are_dotted_where_they_stand():
    a = np.arange(96.0).reshape(3, 32)[:, :16]
    x = np.ones((1, 16))
    assert _dot_row(a, 1, x, 0, 16) == (a[1].sum(), 0.0)


def test_accumulate_and_subtract_product_match_fractions():
    rng = np.random.default_rng(0)
    hi, lo = rng.standard_normal((4, 2)), rng.standard_normal((4, 2)) * 1e-17
    a, x = rng.standard_normal(4), rng.standard_normal((4, 2))
    before = [[Fraction(h) + Fraction(l) for h, l in zip(*rows, strict=True)] for rows in zip(hi, lo, strict=True)]
    doubled.subtract_product(hi, lo, a, x)
    doubled.accumulate(hi, lo, np.ones((4, 2)), np.full((4, 2), 1e-20))
    for i in range(4):
        for j in range(2):
            exact = before[i][j] - Fraction(a[i]) * Fraction(x[i, j]) + 1 + Fraction(1e-20)
            assert abs(Fraction(hi[i, j]) + Fraction(lo[i, j]) - exact) <= 64 * U**2
