"""Products whose entries are the same bits wherever they stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.engine.reduction import Scratch
from leyden.kernel.multiply import BLOCK, Matrix


def product(x, matrix):
    out = np.empty((len(x), matrix.shape[1]), np.float32)
    matrix.multiply(x, out, Scratch())
    return out


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, BLOCK), inner=st.integers(1, 80), columns=st.integers(1, 120))
def test_products_are_those_of_plain_numpy(rows, inner, columns):
    x, w = normal(rows, inner), normal(inner, columns, seed=1)
    room = inner * 6e-8 * (np.abs(x) @ np.abs(w)) + 1e-30
    assert (np.abs(product(x, Matrix(w)) - x.astype(float) @ w) <= room).all()


@pytest.mark.parametrize("inner", [1, 30, 700])
def test_a_row_does_not_depend_on_those_beside_it(inner):
    x, matrix = normal(BLOCK, inner), Matrix(normal(inner, 75, seed=1))
    whole = product(x, matrix)
    for span in (slice(0, 1), slice(5, 6), slice(7, 40), slice(BLOCK - 13, BLOCK)):
        assert np.array_equal(product(x[span], matrix), whole[span])


def test_a_column_does_not_depend_on_those_beside_it():
    x, w = normal(20, 50), normal(50, 90, seed=1)
    assert np.array_equal(product(x, Matrix(w))[:, 33:70], product(x, Matrix(w[:, 33:70])))


@pytest.mark.parametrize("size", [1, 17, 200])
def test_what_is_below_a_triangle_is_left_out(size):
    x, w = normal(50, size), np.triu(normal(size, size, seed=1))
    assert np.array_equal(product(x, Matrix(w, triangular=True)), product(x, Matrix(w)))
