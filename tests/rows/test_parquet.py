"""What is particular to Parquet files."""

import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import leyden as ly
from leyden.errors import DataError
from leyden.rows import open
from leyden.rows.parquet import ParquetRows


def test_the_shape_comes_from_the_footers_alone(tmp_path, table, monkeypatch):
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    monkeypatch.setattr(ParquetRows, "_batches", None)
    rows = open(tmp_path / "a.parquet", columns=["distance", "seats"])
    assert rows.shape == (1000, 2)
    np.testing.assert_array_equal(rows.piece_starts, np.arange(0, 1001, 100))
    assert 0 < rows.stored_nbytes < (tmp_path / "a.parquet").stat().st_size


def test_consecutive_reads_of_a_thread_decode_each_row_group_once(tmp_path, table, monkeypatch):
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=250)
    rows = open(tmp_path / "a.parquet", columns=["distance"])
    begun = []
    batches = rows._batches
    monkeypatch.setattr(rows, "_batches", lambda piece, *rest: begun.append(piece) or batches(piece, *rest))

    def half(first):
        for start in range(first, first + 500, 30):
            rows.read(start, min(start + 30, first + 500))

    for first in (0, 500):
        thread = threading.Thread(target=half, args=(first,))
        thread.start()
        thread.join()
    assert begun == [0, 1, 2, 3]
    rows.read(600, 610)
    rows.read(300, 310)
    assert begun == [0, 1, 2, 3, 2, 1]


def test_memory_is_bounded_by_a_batch_and_not_by_a_row_group(tmp_path):
    n, d = 150_000, 6
    values = np.random.default_rng(0).standard_normal((d, n))
    table = pa.table({f"x{j}": column for j, column in enumerate(values)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=n, use_dictionary=False, data_page_size=1 << 16)
    del table
    rows = open(tmp_path / "a.parquet")
    buffer = rows.buffer(1000)
    before, most = pa.total_allocated_bytes(), 0
    for start in range(0, n, 1000):
        rows.read(start, start + 1000, buffer)
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < n * d * 8 // 2


@pytest.mark.parametrize(
    "options",
    [
        {"use_dictionary": False, "compression": "none"},
        {"compression": "zstd"},
        {"use_dictionary": False, "data_page_size": 1 << 18, "max_rows_per_page": 1 << 30},
    ],
)
@pytest.mark.parametrize("row_group_size", [5_000, 60_000])
def test_decoding_takes_no_more_memory_than_is_reckoned_with(tmp_path, options, row_group_size):
    values = np.random.default_rng(0).standard_normal((20, 60_000))
    table = pa.table({f"x{j}": column for j, column in enumerate(values)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=row_group_size, **options)
    del table
    rows = open(tmp_path / "a.parquet")
    buffer = rows.buffer(1000)
    before, most = pa.total_allocated_bytes(), 0
    for start in range(0, 60_000, 1000):
        rows.read(start, start + 1000, buffer)
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < rows.reader_nbytes(1000)
    rows.release()
    assert pa.total_allocated_bytes() <= before


def test_pieces_are_as_long_as_row_groups(tmp_path, table):
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    assert open(tmp_path / "a.parquet", columns=["distance"]).piece_rows == 300
    pq.write_table(table.slice(0, 500), tmp_path / "b.parquet", row_group_size=500)
    mixed = open(tmp_path / "?.parquet", columns=["distance"])
    assert 100 < mixed.piece_rows < 500
    assert mixed.map(ly.Intercept()).piece_rows == mixed.piece_rows


def test_folder_list_and_glob_are_the_same_rows(tmp_path, table):
    pq.write_table(table.slice(0, 400), tmp_path / "a.parquet")
    pq.write_table(table.slice(400), tmp_path / "b.parquet")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "notes.txt").write_text("not data")
    whole = table["distance"].to_numpy()
    for source in (tmp_path, [tmp_path / "a.parquet", str(tmp_path / "b.parquet")], str(tmp_path / "?.parquet")):
        np.testing.assert_array_equal(open(source, columns=["distance"]).read(0, 1000).data[:, 0], whole)


def test_a_row_is_located_in_its_file(tmp_path, table):
    for i in range(3):
        pq.write_table(table, tmp_path / f"part-{i}.parquet", row_group_size=300)
    rows = open(tmp_path / "*.parquet", columns=["distance"])
    assert rows.locate(0) == f"{tmp_path / 'part-0.parquet'}, row 0"
    assert rows.locate(2999) == f"{tmp_path / 'part-2.parquet'}, row 999"
    assert repr(rows).startswith("<Rows 3,000 × 1 float64 dense from ")


def test_numbers_of_different_types_are_one_column(tmp_path):
    pq.write_table(pa.table({"a": pa.array([1, 2], pa.int16())}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [0.5, None]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": pa.nulls(1)}), tmp_path / "2.parquet")
    rows = open(tmp_path, nulls="mean")
    np.testing.assert_allclose(rows.read(0, 5).data[:, 0], [1, 2, 0.5, 3.5 / 3, 3.5 / 3])


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ({"a": [1.0], "c": [1.0]}, r"b\.parquet: column 'b' is missing, and .*a\.parquet has it"),
        ({"a": ["x"], "b": [1.0]}, r"b\.parquet: column 'a' holds string, and in .*a\.parquet it holds double"),
        ({"a": [1.0], "b": [1.0], "c": [1.0]}, r"a\.parquet: column 'c' is missing, and .*b\.parquet has it"),
    ],
)
def test_files_that_differ_are_refused(tmp_path, second, sentence):
    pq.write_table(pa.table({"a": [1.0], "b": [1.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table(second), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=sentence):
        open(tmp_path)


def test_text_may_be_stored_as_dictionary_in_some_files(tmp_path):
    pq.write_table(pa.table({"s": ["x", "y"]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"s": pa.array(["z", "x"]).dictionary_encode()}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"s": pa.array(["y"], pa.large_string())}), tmp_path / "2.parquet")
    rows = open(tmp_path, categorical="auto")
    np.testing.assert_array_equal(rows.read(0, 5).data, np.eye(3)[[0, 1, 2, 0, 1]])


def test_empty_row_groups_and_files_are_skipped(tmp_path):
    empty = pa.table({"a": pa.array([], pa.float64())})
    pq.write_table(empty, tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [1.0]}), tmp_path / "1.parquet")
    assert open(tmp_path).read(0, 1).data == [[1.0]]
    with pytest.raises(DataError, match=r"0\.parquet: the table is empty \(0 rows\)"):
        open(tmp_path / "0.parquet")


def test_a_truncated_file_is_refused(tmp_path, table):
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.parquet: this is not a complete Parquet file .* It may be truncated"):
        open(path, columns=["distance"])


def test_damage_inside_a_file_names_the_row_group(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"a": np.random.default_rng(0).random(1000)}), path, row_group_size=500, use_dictionary=False
    )
    rows = open(path)
    damaged = bytearray(path.read_bytes())
    begin = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    damaged[begin : begin + 20] = b"\xff" * 20
    path.write_bytes(bytes(damaged))
    rows.read(0, 500)
    with pytest.raises(DataError, match=r"a\.parquet: row group 1 cannot be read"):
        rows.read(400, 600)
    rows.read(0, 500)


def test_a_file_written_anew_is_noticed(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": np.arange(10.0)}), path)
    rows = open(path)
    pq.write_table(pa.table({"a": np.arange(9.0)}), path)
    with pytest.raises(DataError, match=r"a\.parquet: the file changed since it was opened"):
        rows.read(0, 5)


def test_names_with_dots_and_commas(tmp_path):
    pq.write_table(pa.table({"a.b": [1.0, 2.0], "c, d": [3.0, 4.0]}), tmp_path / "a.parquet")
    np.testing.assert_array_equal(open(tmp_path / "a.parquet", target="c, d").read(0, 2).data, [[1.0], [2.0]])
