"""From whatever holds a matrix to rows."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from leyden.errors import DataError, OptionError
from leyden.rows import SelectColumns, open

X = np.arange(12.0).reshape(4, 3)


def test_lists_are_arrays():
    np.testing.assert_array_equal(open([[1, 2], [3, 4]], target=[5, 6]).read(0, 2).data, [[1, 2], [3, 4]])


def test_rows_are_rows(check_rows):
    rows = open(X)
    assert open(rows) is rows
    again = open(open(X, target=[1, 2, 3, 4]), target=[5, 6, 7, 8], weight=[1, 1, 1, 1])
    np.testing.assert_array_equal(check_rows(again).target[:, 0], [5, 6, 7, 8])
    assert again.has_weight


def test_anything_with_an_arrow_stream_is_a_table():
    class Frame:
        def __arrow_c_stream__(self, requested_schema=None):
            return pa.table({"a": [1.0, 2.0], "y": [3.0, 4.0]}).__arrow_c_stream__(requested_schema)

    rows = open(Frame(), target="y")
    assert (rows.columns, rows.targets) == (("a",), ("y",))


def test_one_arrow_column_is_not_a_table():
    with pytest.raises(DataError, match="a ChunkedArray is one column and cannot be seen as a table"):
        open(pa.chunked_array([[1.0, 2.0]]))


def test_a_series_of_pandas_is_a_target_and_not_a_table():
    pd = pytest.importorskip("pandas")
    assert open(X, target=pd.Series([1, 2, 3, 4])).read(0, 4).target.tolist() == [[1], [2], [3], [4]]
    with pytest.raises(DataError, match=r"one column|1 dimensions"):
        open(pd.Series([1.0, 2.0]))
    with pytest.raises(DataError, match="the target holds dates or times"):
        open(X, target=pd.Series(pd.to_timedelta([1, 2, 3, 4])))


@pytest.mark.parametrize("target", [np.ones((4, 1)), [[1], [2], [3], [4]], "column.npy"])
def test_a_target_of_shape_n_1_is_a_column(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    np.save("column.npy", np.ones((4, 1)))
    for source in (X, sp.csr_array(X), open(X)):
        assert open(source, target=target).column_target
        assert open(source, target=target).map(SelectColumns([0])).column_target


@pytest.mark.parametrize("target", [np.ones(4), [1, 2, 3, 4], 0, "x1", np.ones((4, 2))])
def test_any_other_target_is_not(target):
    assert not open(X, target=target).column_target


@pytest.mark.parametrize("target", [1, -2, "x1", np.int64(1)])
@pytest.mark.parametrize("stored", ["array", "npy", "sparse"])
def test_a_column_by_number_is_split_off_as_the_target(tmp_path, check_rows, target, stored):
    np.save(tmp_path / "a.npy", X)
    source = {"array": X, "npy": tmp_path / "a.npy", "sparse": sp.csr_array(X)}[stored]
    rows = open(source, target=target)
    assert (rows.columns, rows.targets) == (("x0", "x2"), ("x1",))
    whole = check_rows(rows)
    np.testing.assert_array_equal(whole.data if stored != "sparse" else whole.data.toarray(), X[:, [0, 2]])
    np.testing.assert_array_equal(whole.target[:, 0], X[:, 1])


def test_columns_are_chosen_or_named():
    assert open(X, columns=[2, 0]).read(0, 1).data.tolist() == [[2.0, 0.0]]
    assert open(X, columns=["x2"]).read(0, 1).data.tolist() == [[2.0]]
    assert open(X, columns=["a", "b", "c"]).columns == ("a", "b", "c")
    with pytest.raises(OptionError, match="there is no column 'a'"):
        open(X, columns=["a", "b"])


@pytest.mark.parametrize("source", [X, X.astype(np.int32), sp.csr_array(X)])
def test_another_type(source, check_rows):
    assert open(source, dtype="float32").dtype == np.float32
    check_rows(open(source, dtype="float32"))


def test_format_is_for_other_endings(tmp_path):
    (tmp_path / "data.txt").write_text("a,b\n1,2\n")
    assert open(tmp_path / "data.txt", format="csv").shape == (1, 2)
    with pytest.raises(DataError, match=r"data\.txt: the ending '.txt' is not known\. Known endings are \.npy"):
        open(tmp_path / "data.txt")
    with pytest.raises(OptionError, match=r"format='excel' is not known\. The formats are csv, mtx"):
        open(tmp_path / "data.txt", format="excel")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.parquet", "a.csv", "a.svm", "a.mtx"])
def test_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: there is no such file"):
        open(tmp_path / name)


def test_sources_without_files(tmp_path):
    with pytest.raises(DataError, match=r"\*\.csv: no file matches"):
        open(tmp_path / "*.csv")
    with pytest.raises(DataError, match=r"there is no data file in this folder\. Known endings"):
        open(tmp_path)


def test_solutions_saved_among_the_data_and_hidden_folders_are_not_data(tmp_path):
    np.save(tmp_path / "a.npy", X)
    for folder in ("solution", ".solution.partial", "_temporary"):
        (tmp_path / "deep" / folder).mkdir(parents=True)
        np.save(tmp_path / "deep" / folder / "x.npy", X)
    (tmp_path / "deep" / "solution" / "solution.json").write_text("{}")
    assert open(tmp_path).shape == X.shape
    with pytest.raises(DataError, match=r"solution: this is the folder of a saved solution, not data"):
        open(tmp_path / "deep" / "solution")


def test_the_files_of_a_folder_are_read_in_order(tmp_path):
    for i, name in enumerate(("a/2.csv", "a/1.csv", "b.csv", "a.csv")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"x\n{i}\n")
    assert open(tmp_path).read(0, 4).data[:, 0].tolist() == [1, 0, 3, 2]


def test_files_of_two_formats(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    np.save(tmp_path / "b.npy", X)
    with pytest.raises(DataError, match=r"b\.npy: this file is npy, and .*a\.csv is csv"):
        open(tmp_path)
    np.save(tmp_path / "c.npy", X)
    with pytest.raises(OptionError, match="2 npy files cannot be opened as one"):
        open(tmp_path / "*.npy")


def test_compressed_text_is_refused(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.csv\.gz: a compressed file cannot be read from the middle"):
        open(tmp_path / "a.csv.gz")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"categorical": ["x0"]}, "array: categorical=, drop_first= and nulls= are for tables"),
        ({"nulls": "mean"}, "are for tables"),
        ({"target": "y"}, "target='y' is neither an array nor a .npy file. Columns have names in tables only"),
        ({"target": 3}, "there is no column 3: there are 3"),
        ({"target": "nothere.npy"}, r"nothere\.npy: there is no such file for the target"),
        ({"dtype": "int32"}, "dtype='int32' cannot be used"),
    ],
)
def test_options_that_do_not_apply(options, sentence):
    with pytest.raises((OptionError, DataError), match=sentence):
        open(X, **options)


@pytest.mark.parametrize("source", [None, object(), {"a": 1}, [[1], [1, 2]]])
def test_what_is_not_a_matrix(source):
    with pytest.raises(DataError, match=r"cannot be seen as a matrix|different lengths"):
        open(source)


def test_importing_is_light():
    code = "import sys, leyden.rows; print([m for m in ('pyarrow', 'sklearn', 'numba', 'pandas') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
