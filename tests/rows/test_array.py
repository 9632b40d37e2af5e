"""Rows over arrays in memory."""

import numpy as np
import pytest

from leyden.errors import DataError
from leyden.rows import open

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32, np.uint8, np.bool_, ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_range_is_part_of_the_whole(check_rows, dtype, order):
    array = np.asarray(RANDOM.integers(0, 2, (300, 4)), dtype=dtype, order=order)
    rows = open(array, target=RANDOM.random(300), weight=np.ones(300, np.float32), group=np.arange(300) // 7)
    whole = check_rows(rows)
    np.testing.assert_array_equal(whole.data, array)
    assert rows.dtype.isnative


def test_blocks_are_views():
    array = RANDOM.random((10, 3))
    assert np.shares_memory(open(array).read(2, 5).data, array)


def test_several_targets_have_names():
    rows = open(np.ones((5, 2)), target=np.ones((5, 3)))
    assert rows.targets == ("target0", "target1", "target2")
    assert rows.read(0, 5).target.shape == (5, 3)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.ones(3), "array: an array of 1 dimensions is not a table"),
        (np.ones((2, 2, 2)), "array: an array of 3 dimensions is not a table"),
        (np.ones((0, 3)), r"array: the table is empty \(0 rows, 3 columns\)"),
        (np.ones((3, 0)), r"array: the table is empty \(3 rows, 0 columns\)"),
        (np.ones((2, 2), complex), "array: the data is complex"),
        (np.array([["a"]]), "array: the data holds values of type <U1, not numbers"),
        (np.ones((2, 2), "m8[s]"), r"array: the data holds dates or times \(timedelta64\[s\]\), not numbers"),
        (np.ones((2, 2), object), r"the data holds Python objects, not numbers\. Convert it first: numpy\.asarray"),
    ],
)
def test_what_is_not_a_matrix_of_numbers_is_refused(array, sentence):
    with pytest.raises(DataError, match=sentence):
        open(array)


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        ({"target": np.ones(4)}, "array: the target has 4 rows and the data has 3"),
        ({"target": np.ones((3, 2, 1))}, "array: the target must be one or two numeric dimensions"),
        ({"target": np.ones(3, complex)}, "array: the target is complex"),
        ({"target": np.ones(3, "m8[s]")}, "array: the target holds dates or times"),
        ({"target": np.ones(3, "M8[D]")}, "array: the target holds dates or times"),
        ({"weight": np.ones(3, "m8[s]")}, "array: the weight holds dates or times"),
        ({"target": [1, 2, "x"]}, "array: the target holds values of type <U"),
        ({"target": np.array([1, 2, 3], object)}, r"the target holds Python objects, not numbers\. Convert it first"),
        ({"target": [1, None, 3]}, "the target holds Python objects, not numbers"),
        ({"target": [[1], [2, 3], [4]]}, r"the target cannot be seen as an array \(its rows have different lengths"),
        ({"group": [[1], [2, 3], [4]]}, r"the group cannot be seen as an array \(its rows have different lengths"),
        ({"weight": np.ones(4)}, "array: the weight has 4 rows and the data has 3"),
        ({"weight": np.ones((3, 2))}, "array: the weight has 2 columns, not one"),
        ({"group": [1, 2]}, "array: the group has 2 rows and the data has 3"),
        ({"group": np.ones((3, 2))}, "array: the group has 2 dimensions, not one"),
    ],
)
def test_a_role_that_does_not_fit_is_refused(roles, sentence):
    with pytest.raises(DataError, match=sentence):
        open(np.ones((3, 2)), **roles)
