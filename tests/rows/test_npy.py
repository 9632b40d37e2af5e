"""Rows over .npy files."""

import errno
import os

import numpy as np
import pytest

from leyden.errors import DataError
from leyden.rows import open
from leyden.solve.lstsq import lstsq

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int16, np.bool_])
def test_any_range_is_part_of_the_whole(tmp_path, check_rows, dtype):
    array = RANDOM.integers(0, 2, (500, 3)).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", np.arange(500.0))
    whole = check_rows(open(tmp_path / "a.npy", target=tmp_path / "b.npy"))
    np.testing.assert_array_equal(whole.data, array)
    np.testing.assert_array_equal(whole.target[:, 0], np.arange(500.0))


def test_reads_land_in_the_buffer(tmp_path):
    np.save(tmp_path / "a.npy", RANDOM.random((20, 3)))
    rows = open(tmp_path / "a.npy")
    buffer = rows.buffer(8)
    assert np.shares_memory(rows.read(4, 12, buffer).data, buffer)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((100, 3)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"a\.npy: this is not a complete \.npy file .* truncated"):
        open(path)


def test_a_file_cut_while_it_is_read_names_the_row(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((100, 3)))
    rows = open(path)
    with path.open("r+b") as file:
        file.truncate(128 + 50 * 24 + 5)
    rows.read(0, 50)
    with pytest.raises(DataError, match=r"a\.npy: the file ends at row 50 of 100"):
        rows.read(40, 60)


def test_a_read_error_names_the_file_and_the_row(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.ones((100, 3)))
    rows = open(tmp_path / "a.npy", target=np.ones(100))
    preadv = os.preadv

    def failing(fd, buffers, offset):
        if offset + len(buffers[0]) <= 128 + 50 * 24:
            return preadv(fd, buffers, offset)
        if offset >= 128 + 50 * 24:
            raise OSError(errno.EIO, "Input/output error")
        return preadv(fd, [buffers[0][: 128 + 50 * 24 - offset]], offset)

    monkeypatch.setattr(os, "preadv", failing)
    sentence = r"a\.npy: the file cannot be read from row 50 on \(Input/output error\)"
    with pytest.raises(DataError, match=sentence):
        rows.read(40, 60)
    with pytest.raises(DataError, match=sentence):
        lstsq(rows)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.asfortranarray(RANDOM.random((5, 3))), "column by column"),
        (np.ones((5, 3), ">f8"), "other byte order"),
        (np.ones((0, 3)), "the table is empty"),
        (np.array([[None]]), "not a complete"),
    ],
)
def test_what_cannot_be_streamed_is_refused(tmp_path, array, sentence):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=sentence):
        open(tmp_path / "a.npy")
