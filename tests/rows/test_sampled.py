"""A part of some rows: runs of consecutive ones, evenly spread."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import leyden as ly
from leyden.rows.sampled import SampledRows


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 50), st.integers(0, 2**32))
def test_reads_of_any_range_are_the_rows_of_the_sample(n, stride, run, seed):
    rng = np.random.default_rng(seed)
    whole = sp.csr_array(rng.integers(1, 9, (n, 7)) * (rng.random((n, 7)) < 0.4).astype(float))
    if stride > n:
        stride = n
    part = SampledRows(ly.open(whole), stride, run)
    length = max(1, min(run, n // stride))
    chosen = np.concatenate([np.arange(s, min(s + length, n)) for s in range(0, n, length * stride)])
    assert part.shape == (len(chosen), 7)
    first = int(rng.integers(0, len(chosen)))
    last = int(rng.integers(first + 1, len(chosen) + 1))
    block = part.read(first, last, part.buffer(last - first))
    assert block.start == first
    assert (block.data.toarray() == whole.toarray()[chosen[first:last]]).all()


def test_dense_rows_are_sampled_in_the_same_way():
    whole = np.arange(60.0).reshape(20, 3)
    part = SampledRows(ly.open(whole), 4, 2)
    assert (part.read(0, part.shape[0]).data == whole[[0, 1, 8, 9, 16, 17]]).all()


def test_an_error_names_the_row_of_the_whole():
    part = SampledRows(ly.open(np.arange(60.0).reshape(20, 3)), 4, 2)
    assert part.locate(2).endswith("row 8")


@pytest.mark.parametrize("stride", [1, 3])
def test_a_sweep_over_a_sample_sees_each_of_its_rows_once(stride):
    whole = np.random.default_rng(0).standard_normal((1000, 4))
    part = SampledRows(ly.open(whole), stride, 10)
    kept = np.concatenate([whole[s : s + 10] for s in range(0, 1000, 10 * stride)])
    assert np.allclose(ly.svd(part, 4).s, np.linalg.svd(kept, compute_uv=False))
