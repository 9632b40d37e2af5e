"""What is particular to CSV files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.errors import DataError
from leyden.rows import csv, open
from leyden.solve.lstsq import lstsq


@pytest.fixture
def write(tmp_path):
    def write(text, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n\n"])
def test_line_ends_and_empty_lines(write, end, last):
    text = "a,b\n1,2\n\n3,4\n5,6" + last
    rows = open(write(text.replace("\n", end)))
    np.testing.assert_array_equal(rows.read(0, 3).data, [[1, 2], [3, 4], [5, 6]])
    assert rows.shape == (3, 2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["\n", "\r\n", "1,2\n", "3,4\r\n", "\n\n"]), max_size=20), st.sampled_from(["", "5,6"]))
def test_rows_are_counted_as_arrow_parses_them(lines, last):
    import pyarrow as pa
    from pyarrow import csv as pc

    text = ("".join(lines) + last).encode()
    options = pc.ReadOptions(column_names=["a", "b"])
    parsed = pc.read_csv(pa.BufferReader(text), read_options=options).num_rows if text.strip() else 0
    assert csv._count_rows(text) == parsed


def test_a_byte_order_mark_is_not_part_of_a_name(write):
    assert open(write("\ufeffa,b\n1,2\n")).columns == ("a", "b")


def test_whole_numbers_may_have_decimals_further_down(write, monkeypatch):
    monkeypatch.setattr(csv, "PIECE_NBYTES", 20)
    rows = open(write("a\n" + "1\n" * 50 + "0.5\n" + "1e3\n"))
    np.testing.assert_array_equal(rows.read(49, 52).data[:, 0], [1, 0.5, 1000])


def test_files_may_have_their_columns_in_any_order(write):
    write("a,b\n1,2\n", "x-1.csv")
    path = write("b,a\n4,3\n", "x-2.csv")
    np.testing.assert_array_equal(open(path.parent / "x-*.csv").read(0, 2).data, [[1, 2], [3, 4]])


def test_missing_values_and_text_in_quotes(write):
    rows = open(write('a,s\n1,"x, y"\nNA,\n3,"NA"\n'), categorical=["s"], nulls="mean")
    assert rows.columns == ("a", "s=NA", "s=x, y")
    np.testing.assert_array_equal(rows.read(0, 3).data, [[1, 0, 1], [2, 0, 0], [3, 1, 0]])


@pytest.mark.parametrize("spelling", ["", "NA", "N/A", "null", "NULL"])
def test_a_missing_number_is_null(write, spelling):
    rows = open(write(f"a,b\n1,1\n{spelling},1\n3,1\n"), nulls="drop")
    np.testing.assert_array_equal(rows.read(0, 2).data[:, 0], [1, 3])


@pytest.mark.parametrize("spelling", ["nan", "NaN", "-nan", "NAN"])
@pytest.mark.parametrize("nulls", ["error", "drop", "mean"])
@pytest.mark.parametrize("piece", [20, 1000])
def test_nan_is_a_number_and_never_null(write, monkeypatch, spelling, nulls, piece):
    monkeypatch.setattr(csv, "PIECE_NBYTES", piece)
    rows = open(write("a,y\n" + "1,2\n3,5\n" * 10 + f"{spelling},3\n"), target="y", nulls=nulls)
    assert np.isnan(rows.read(19, 21).data[1, 0])
    with pytest.raises(DataError, match=r"a\.csv, row 20: NaN in column 'a'"):
        lstsq(rows)


@pytest.mark.parametrize("spelling", ["nan", "NaN", "-nan", "1.#IND"])
def test_nan_in_a_column_of_text_is_null_unless_it_is_quoted(write, spelling):
    rows = open(write(f'a,s\n1,x\n2,{spelling}\nnan,"{spelling}"\n'), categorical=["s"], nulls="mean")
    assert set(rows.columns) == {"a", f"s={spelling}", "s=x"}
    np.testing.assert_array_equal(rows.read(0, 3).data[:, 0], [1, 2, np.nan])
    assert rows.read(1, 2).data[0, 1:].tolist() == [0, 0]


def test_a_name_that_looks_like_nan_is_a_name(write):
    assert open(write("s\nNan\nFernanda\n"), categorical=["s"], nulls="mean").columns == ("s=Fernanda", "s=Nan")


def test_codes_stay_as_they_are_written(write):
    rows = open(write("s\n01\n1\n10\n2\n"), categorical=["s"])
    assert rows.columns == ("s=01", "s=1", "s=2", "s=10")


def test_a_value_that_is_no_number_names_row_and_column(write, monkeypatch):
    monkeypatch.setattr(csv, "PIECE_NBYTES", 40)
    path = write("id,a\n" + "".join(f"{i},{i}.5\n" for i in range(100)) + "100,oops\n101,1\n")
    rows = open(path, columns=["a"])
    rows.read(0, 90)
    with pytest.raises(
        DataError, match=r"a\.csv, row 100: 'oops' in column 'a' is not a number, as the first rows are"
    ):
        rows.read(80, 102)
    np.testing.assert_array_equal(rows.read(5, 6).data, [[5.5]])


def test_a_row_with_too_few_values_is_named(write, monkeypatch):
    monkeypatch.setattr(csv, "PIECE_NBYTES", 40)
    rows = open(write("a,b\n" + "1,2\n" * 50 + "1\n" + "1,2\n"))
    with pytest.raises(DataError, match=r"a\.csv, row 50: the row has 1 values and there are 2 columns"):
        rows.read(0, 52)


def test_a_line_end_in_quotes_is_refused(write):
    with pytest.raises(DataError, match=r"a\.csv, row \d"):
        open(write('a,s\n1,"x"\n2,"y\nz"\n'), columns=["a"]).read(0, 3)


def test_a_changed_file_is_noticed(write):
    path = write("a\n1\n2\n")
    rows = open(path)
    path.write_text("a\n1\n2\n3\n")
    with pytest.raises(DataError, match=r"a\.csv: the file changed since it was opened"):
        rows.read(0, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the file is empty"),
        ("\n1,2\n", "the first line is empty"),
        ("a,b\n", r"the table is empty \(0 rows\)"),
        ("1,2\n3,4\n", "the first line holds numbers where column names should be"),
        ("a;b\n1;2\n", "the columns are separated by ';'"),
        ("a\tb\n1\t2\n", 'the columns are separated by .* Give format="tsv"'),
        ("a,a\n1,2\n", "two columns are named 'a'"),
        ("t\n2020-01-01\n", "column 't' holds dates or times"),
    ],
)
def test_what_is_not_a_table_is_refused(write, text, sentence):
    with pytest.raises(DataError, match=r"a\.csv: " + sentence):
        open(write(text))
