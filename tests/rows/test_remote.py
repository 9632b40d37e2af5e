"""Remote files, by way of fsspec: the same rows as from a disk; what cannot be read is said."""

import fsspec
import numpy as np
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import leyden as ly
from leyden.errors import DataError, OptionError
from leyden.rows.open import open
from leyden.rows.remote import stat

X = np.random.default_rng(0).standard_normal((500, 3))


@pytest.fixture
def memory(tmp_path, table):
    """A file system in memory with the table in several formats, and the same files on disk."""
    fs = fsspec.filesystem("memory")
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", X[:, 0])
    csv.write_csv(table, tmp_path / "t.csv")
    (tmp_path / "parts").mkdir()
    for part in range(2):
        pq.write_table(table.slice(500 * part, 500), tmp_path / "parts" / f"{part}.parquet", row_group_size=200)
    (tmp_path / "a.svm").write_text("".join(f"{i % 2} 1:{i}.5 3:2\n" for i in range(300)))
    for file in tmp_path.rglob("*.*"):
        fs.pipe(f"/{file.relative_to(tmp_path)}", file.read_bytes())
    yield tmp_path
    fs.rm("/", recursive=True)


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("a.npy", {"target": 1}),
        ("t.csv", {"target": "delay", "columns": ["distance", "seats"]}),
        ("parts/*.parquet", {"target": "delay", "columns": ["distance", "carrier"], "categorical": "auto"}),
        ("parts", {"target": "delay", "columns": ["distance", "seats"]}),
        ("a.svm", {}),
    ],
)
def test_remote_rows_are_those_of_the_disk(memory, check_rows, source, options):
    there, here = open(f"memory://{source}", **options), open(str(memory / source), **options)
    assert (there.shape, there.columns, there.stored_nbytes) == (here.shape, here.columns, here.stored_nbytes)
    whole, expected = check_rows(there), here.read(0, here.shape[0])
    difference = whole.data - expected.data
    assert abs(difference).max() == 0
    np.testing.assert_array_equal(whole.target, expected.target)


def test_a_problem_with_a_remote_target_is_solved(memory):
    solution = ly.lstsq(open("memory://a.npy", target="memory://b.npy"))
    np.testing.assert_allclose(solution.x, [1, 0, 0], atol=1e-14)


def test_a_remote_file_that_changes_is_noticed(memory):
    before = stat("memory://a.npy")
    fsspec.filesystem("memory").pipe("/a.npy", (memory / "a.npy").read_bytes())
    assert stat("memory://a.npy") != before
    assert stat(str(memory / "a.npy")) == ((memory / "a.npy").stat().st_size, (memory / "a.npy").stat().st_mtime_ns)


def test_a_remote_file_that_ends_too_early(memory):
    rows, fs = open("memory://a.npy"), fsspec.filesystem("memory")
    fs.pipe("/a.npy", (memory / "a.npy").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"memory://a\.npy: the file ends at row 203 of 500"):
        rows.read(0, 500)
    with pytest.raises(DataError, match=r"this is not a complete \.npy file \(5,000 bytes of 12,128\)"):
        open("memory://a.npy")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("memory://nothing.npy", r"memory://nothing\.npy: there is no such data file\. Check the address"),
        ("memory://no*.parquet", r"there is no such data file"),
        ("nonsense://a.npy", r"nonsense://a\.npy: nonsense:// cannot be read \(Protocol not known: nonsense\)"),
        ("s3://bucket/a.parquet", r"the package that reads s3:// is not installed\. Install s3fs"),
        ("memory://m.mtx", r"a remote mtx file cannot be read in pieces\. Copy it to a disk"),
    ],
)
def test_what_cannot_be_read_is_said(memory, monkeypatch, source, said):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    fsspec.filesystem("memory").pipe("/m.mtx", b"")
    with pytest.raises((DataError, OptionError), match=said):
        open(source)


def test_a_parquet_file_that_is_none(memory):
    fsspec.filesystem("memory").pipe("/bad.parquet", b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"memory://bad\.parquet: this is not a complete Parquet file"):
        open("memory://bad.parquet")


def test_without_fsspec_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(OptionError, match=r"fsspec, which is not installed\. pip install 'leyden\[remote\]'"):
        open("https://example.org/a.npy")
