"""Targets, weights and groups that stay in their .npy files."""

import os
import pickle

import numpy as np
import pytest

import leyden as ly
from leyden.rows.stored import StoredArray

VALUES = np.random.default_rng(0).standard_normal((100, 3))


@pytest.mark.parametrize(
    "array",
    [
        VALUES,
        np.asfortranarray(VALUES),
        VALUES[:, 0],
        VALUES[:, :1],
        VALUES.astype(">f4"),
        (100 * VALUES).astype(np.int16),
        VALUES > 0,
        np.array(["one", "three"])[(VALUES[:, 0] > 0).astype(int)],
    ],
    ids=["rows", "columns", "vector", "column", "big-endian", "integers", "booleans", "text"],
)
def test_a_range_of_a_stored_array_is_that_of_the_array(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    stored = StoredArray(tmp_path / "a.npy")
    assert (stored.shape, stored.dtype, stored.ndim, len(stored)) == (array.shape, array.dtype, array.ndim, 100)
    for start, stop in ((0, 100), (17, 18), (40, 99)):
        np.testing.assert_array_equal(stored[start:stop], array[start:stop])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stored))[5:50], array[5:50])


@pytest.mark.parametrize("source", ["array", "file"])
def test_roles_in_files_are_those_in_memory(check_rows, tmp_path, source):
    roles = {"target": VALUES[:, :2].astype("f4"), "weight": np.arange(100), "group": np.arange(100) // 7}
    for name, values in roles.items():
        np.save(tmp_path / f"{name}.npy", values)
    np.save(tmp_path / "x.npy", VALUES)
    x = VALUES if source == "array" else tmp_path / "x.npy"
    rows = ly.open(x, **{name: tmp_path / f"{name}.npy" for name in roles})
    whole = check_rows(rows)
    given = ly.open(x, **roles)
    assert (rows.targets, rows.row_nbytes) == (given.targets, given.row_nbytes)
    for name in roles:
        np.testing.assert_array_equal(getattr(whole, name), getattr(given.read(0, 100), name))


def test_a_file_shortened_under_the_run_names_the_row(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    np.save(tmp_path / "y.npy", VALUES[:, 0])
    rows = ly.open(tmp_path / "x.npy", target=tmp_path / "y.npy")
    os.truncate(tmp_path / "y.npy", 128 + 8 * 60)
    rows.read(0, 60)
    with pytest.raises(ly.DataError, match=r"y\.npy: the file ends at row 60 of 100"):
        rows.read(50, 70)
