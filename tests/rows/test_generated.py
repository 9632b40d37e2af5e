"""Rows made by a function."""

import numpy as np
import pytest
import scipy.sparse as sp

from leyden.errors import DataError, OptionError
from leyden.rows import Block, generated, philox


def index_rows(start, stop):
    i = np.arange(start, stop)
    return np.column_stack([i, i**2])


def index_rows_and_targets(start, stop):
    return index_rows(start, stop).astype(np.float32), np.arange(2 * start, 2 * stop).reshape(-1, 2)


def index_blocks(start, stop):
    i = np.arange(start, stop)
    return Block(start, sp.diags_array(i + 1.0, shape=(len(i), 3), offsets=0), weight=i, group=i // 3)


def noise(start, stop, random):
    x = random.standard_normal((stop - start, 3))
    return x, x.sum(axis=1)


@pytest.mark.filterwarnings("ignore:Constructing a DIA")
@pytest.mark.parametrize(("function", "d"), [(index_rows, 2), (index_rows_and_targets, 2)])
def test_any_range_is_part_of_the_whole(check_rows, function, d):
    whole = check_rows(generated(function, 200, d))
    np.testing.assert_array_equal(whole.data, index_rows(0, 200))


def test_blocks_carry_weights_and_groups():
    rows = generated(index_blocks, 100, 3)
    assert (rows.is_sparse, rows.has_weight, rows.has_group) == (True, True, True)
    block = rows.read(10, 12)
    np.testing.assert_array_equal(block.weight, [10.0, 11.0])
    assert block.weight.dtype == np.float64
    np.testing.assert_array_equal(block.data.toarray(), [[11, 0, 0], [0, 12, 0]])


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_a_seed_makes_every_range_again_bit_for_bit(check_rows, chunk):
    rows = generated(noise, 300, 3, seed=5, chunk=chunk)
    check_rows(rows)
    again = generated(noise, 300, 3, seed=5, chunk=chunk)
    np.testing.assert_array_equal(rows.read(123, 250).data, again.read(0, 300).data[123:250])
    assert (generated(noise, 300, 3, seed=6, chunk=chunk).read(0, 300).data != rows.read(0, 300).data).all()


@pytest.mark.parametrize("length", [17, 64, 100, 128])
def test_consecutive_reads_make_each_chunk_once(length):
    made = []

    def counted(start, stop, random):
        made.append((start, stop))
        return noise(start, stop, random)

    rows = generated(counted, 300, 3, seed=5, chunk=64)
    made.clear()
    buffer = rows.buffer(length)
    for start in range(0, 300, length):
        block = rows.read(start, min(start + length, 300), buffer)
        assert np.shares_memory(block.data, buffer)
    assert made == [(0, 64), (64, 128), (128, 192), (192, 256), (256, 300)]


def test_without_a_seed_no_call_makes_more_rows_than_asked_for():
    made = []

    def counted(start, stop):
        made.append(stop - start)
        return index_rows(start, stop)

    rows = generated(counted, 10_000, 2, chunk=300)
    rows.read(0, 1000)
    rows.read(9_900, 10_000)
    assert made == [1, 300, 300, 300, 100, 100]


def test_chunks_of_random_numbers_are_independent_of_their_order():
    first = philox(3, 10).random(4)
    philox(3, 9).random(100)
    np.testing.assert_array_equal(philox(3, 10).random(4), first)
    assert not np.array_equal(philox(3, 11).random(4), first)
    assert not np.array_equal(philox(-3, 10).random(4), first)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (
            lambda start, stop: np.ones((stop - start, 5)),
            r"rows 0 to 1: the function made shape \(1, 5\)",
        ),
        (lambda start, stop: np.ones(2), r"made shape \(2,\)"),
        (lambda start, stop: np.array([["a", "b"]]), "made <U1, not real numbers"),
        (lambda start, stop: np.ones((1, 2), complex), "made complex128, not real numbers"),
        (lambda start, stop: (np.ones((1, 2)), np.ones(7)), "rows 0 to 1: the target has 7 rows"),
    ],
)
def test_a_function_that_makes_something_else_is_refused(function, sentence):
    with pytest.raises(DataError, match=sentence):
        generated(function, 10, 2)


def test_a_function_that_changes_its_mind_is_refused():
    rows = generated(lambda start, stop: sp.eye_array(1, 2) if start else np.ones((stop, 2)), 10, 2)
    with pytest.raises(DataError, match="row 3: the function made rows of another kind than its first ones"):
        rows.read(3, 4)


@pytest.mark.parametrize(
    "options",
    [{"n": 0}, {"d": 0}, {"chunk": 0}, {"columns": ["a"]}, {"targets": ["y"]}],
)
def test_impossible_shapes_and_names_are_refused(options):
    with pytest.raises(OptionError):
        generated(index_rows, **{"n": 10, "d": 2, **options})
