"""One small table, and what every source of rows must keep."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest


@pytest.fixture
def table():
    """1,000 rows of numbers of several types and two columns of text."""
    random = np.random.default_rng(0)
    n = 1000
    return pa.table(
        {
            "distance": random.standard_normal(n),
            "seats": pa.array(random.integers(0, 300, n), pa.int64()),
            "late": pa.array(random.integers(0, 2, n).astype(bool)),
            "carrier": pa.array(random.choice(["UA", "AA", "DL"], n)),
            "origin": pa.array(random.choice(["JFK", "LGA"], n)),
            "weight": random.random(n) + 0.5,
            "crew": pa.array(random.integers(0, 20, n), pa.int64()),
            "delay": random.standard_normal(n),
        }
    )


def dense(data):
    return data if isinstance(data, np.ndarray) else data.toarray()


def assert_same(block, whole, start, stop):
    """A block equals rows ``start`` to ``stop`` of the whole, and has the types that are promised."""
    assert block.start == start
    assert block.rows == stop - start
    np.testing.assert_array_equal(dense(block.data), dense(whole.data[start:stop]))
    if isinstance(block.data, np.ndarray):
        assert block.data.flags.c_contiguous
    else:
        assert block.data.has_sorted_indices
        block.data.check_format(full_check=True)
    for role in ("target", "weight", "group"):
        part, all_of_it = getattr(block, role), getattr(whole, role)
        assert (part is None) == (all_of_it is None)
        if part is not None:
            np.testing.assert_array_equal(part, all_of_it[start:stop])
    if block.target is not None:
        assert block.target.dtype == np.float64
        assert block.target.ndim == 2
    if block.weight is not None:
        assert block.weight.dtype == np.float64
        assert block.weight.shape == (block.rows,)


@pytest.fixture
def check_rows():
    """Check that any range of the rows, in any order, thread or process, is a part of the same whole."""

    def check(rows, ranges=40, seed=0):
        n = rows.shape[0]
        whole = rows.read(0, n)
        assert whole.data.shape == rows.shape
        assert whole.data.dtype == rows.dtype
        assert isinstance(whole.data, np.ndarray) != rows.is_sparse
        assert len(rows.columns) == rows.shape[1]
        assert (whole.target is None) == (not rows.targets)
        assert (whole.weight is not None, whole.group is not None) == (rows.has_weight, rows.has_group)
        assert rows.row_nbytes > 0
        whole = type(whole)(
            0, whole.data.copy(), *(None if a is None else a.copy() for a in (whole.target, whole.weight, whole.group))
        )
        random = np.random.default_rng(seed)
        starts = random.integers(0, n, ranges)
        stops = [int(random.integers(start + 1, n + 1)) for start in starts]
        buffer = rows.buffer(n)
        for start, stop in zip(map(int, starts), stops, strict=True):
            assert_same(rows.read(start, stop), whole, start, stop)
            assert_same(rows.read(start, stop, buffer), whole, start, stop)

        def sequence(first):
            own = rows.buffer(37)
            for start in range(first, n, 4 * 37):
                for begin in range(start, min(start + 37, n), 10):
                    end = min(begin + 10, start + 37, n)
                    assert_same(rows.read(begin, end, own), whole, begin, end)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(sequence, (0, 37, 74, 111)))
        again = pickle.loads(pickle.dumps(rows))
        assert_same(again.read(n // 2, n), whole, n // 2, n)
        assert again.columns == rows.columns
        return whole

    return check
