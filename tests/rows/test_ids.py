"""Ids: numbers to ids and back, in memory and in a file."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.errors import DataError
from leyden.rows import ids as module
from leyden.rows.ids import Ids, IdsWriter

INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60, unique=True)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=60, unique=True)


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_IDS", 7)
        yield


def written(ids, folder):
    ids.write(folder / "ids.arrow")
    return ids if ids.kind == "number" else Ids.read(folder / "ids.arrow", ids.what, len(ids))


@given(values=INTEGERS | TEXTS)
def test_every_id_has_its_number_and_every_number_its_id(tmp_path_factory, values):
    for ids in (made := Ids.of(values, "item"), written(made, tmp_path_factory.mktemp("ids"))):
        assert ids.take(np.arange(len(values))).tolist() == values
        np.testing.assert_array_equal(ids.index(values[::-1]), np.arange(len(values))[::-1])
        assert ids.take(ids.order()).tolist() == sorted(values)


@given(values=INTEGERS | TEXTS, others=INTEGERS)
def test_what_is_not_there_is_unknown(tmp_path_factory, values, others):
    others = others if isinstance(values[0], int) else [str(other) for other in others]
    expected = [values.index(other) if other in values else -1 for other in others]
    for ids in (made := Ids.of(values, "item"), written(made, tmp_path_factory.mktemp("ids"))):
        np.testing.assert_array_equal(ids.index(others, unknown=-1), expected)


@given(values=INTEGERS | TEXTS, lengths=st.lists(st.integers(0, 9), max_size=20))
def test_ids_that_come_in_order_are_kept_as_they_come(tmp_path_factory, values, lengths):
    values = sorted(values)
    for path in (None, tmp_path_factory.mktemp("ids") / "ids.arrow"):
        with IdsWriter(path, "user") as writer:
            for start, stop in zip(np.cumsum([0, *lengths]), [*np.cumsum(lengths), len(values)], strict=True):
                writer.append(module.as_values(values[start:stop], "user"))
        assert writer.ids.take(np.arange(len(values))).tolist() == values
        assert writer.ids.index(values).tolist() == list(range(len(values)))


def test_ids_that_are_the_numbers_take_no_memory_and_no_file(tmp_path):
    with IdsWriter(tmp_path / "ids.arrow", "user") as writer:
        writer.append(np.arange(50))
    assert writer.ids.kind == Ids.of(np.arange(50), "user").kind == "number"
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(writer.ids.index([3, 49]), [3, 49])
    np.testing.assert_array_equal(writer.ids.index([-1, 50], unknown=-7), [-7, -7])
    with pytest.raises(DataError, match=r"user 50 is not among the 50 users\. Give unknown=-1"):
        writer.ids.index([7, 50])


def test_ids_out_of_order_are_never_written(tmp_path):
    with IdsWriter(tmp_path / "ids.arrow", "user") as writer:
        writer.append(np.array([1, 5]))
        with pytest.raises(ValueError, match="the user ids do not come in order"):
            writer.append(np.array([4, 6]))


def test_ids_of_a_file_can_be_pickled(tmp_path):
    ids = written(Ids.of(["b", "c", "a"], "item"), tmp_path)
    again = pickle.loads(pickle.dumps(ids))
    assert again.index(["a", "b"]).tolist() == [2, 0]
    assert repr(again) == "<Ids of 3 items with text ids>"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (np.array([2, 1], np.uint8), [1, 0]),
        (pa.array([2, 1]), [1, 0]),
        (pa.chunked_array([[2], [1]]), [1, 0]),
        (pa.array([2, 1]).dictionary_encode(), [1, 0]),
        (np.array([2, 1], object), [1, 0]),
        (2, [1]),
        ([], []),
    ],
)
def test_ids_may_be_given_in_many_ways(given, found):
    assert Ids.of([1, 2, 7], "user").index(given).tolist() == found


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([5], "user 5 is not among the 3 users"),
        (["1"], "users have whole numbers for ids, and these are text"),
        ([1.5], "the user ids are float64, neither whole numbers of 64 bits nor text"),
        ([1, "a"], "users have whole numbers for ids, and these are text"),
        (np.array([1, "a"], object), "the user ids are int and str, neither"),
        ([2**63], "neither whole numbers of 64 bits nor text"),
        ([[1]], "the user ids have 2 dimensions, not one"),
        (pa.array([1, None]), "one of the user ids is null"),
        (np.array([True]), "the user ids are bool, neither"),
    ],
)
def test_what_is_no_id_is_said(given, sentence):
    with pytest.raises(DataError, match=sentence):
        Ids.of([1, 2, 7], "user").index(given)


@pytest.mark.parametrize("number", [-1, 3])
def test_a_number_that_is_not_there_is_said(number):
    with pytest.raises(DataError, match=f"there is no user number {number} among 3"):
        Ids.of(["a", "b", "c"], "user").take([0, number])


def test_a_number_that_is_no_whole_number_is_said():
    with pytest.raises(DataError, match="numbers of users are whole numbers, not float64"):
        Ids.identity(3, "user").take([0.5])


def test_a_text_that_is_not_there_is_named():
    with pytest.raises(DataError, match="item 'plum' is not among the 2 items"):
        Ids.of(["fig", "pear"], "item").index(["fig", "plum"])


def test_a_shortened_file_is_noticed(tmp_path):
    path = tmp_path / "ids.arrow"
    Ids.of(np.arange(100)[::-1], "item").write(path)
    with pytest.raises(DataError, match=r"ids\.arrow: the file holds 100 ids of 99"):
        Ids.read(path, "item", 99)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"ids\.arrow: this is not a complete file of ids"):
        Ids.read(path, "item", 100)
    path.unlink()
    with pytest.raises(DataError, match=r"ids\.arrow: there is no such file"):
        Ids.read(path, "item", 100)
