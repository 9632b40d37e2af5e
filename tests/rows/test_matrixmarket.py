"""Rows over Matrix Market files."""

import gzip

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from leyden.errors import DataError
from leyden.rows import open


@pytest.mark.parametrize("name", ["a.mtx", "a.mtx.gz"])
def test_coordinates_are_sparse_rows(tmp_path, check_rows, name):
    matrix = sp.random_array((40, 7), density=0.3, rng=0)
    scipy.io.mmwrite(tmp_path / "a.mtx", matrix)
    if name.endswith("gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / "a.mtx").read_bytes()))
    whole = check_rows(open(tmp_path / name, target=np.arange(40)))
    np.testing.assert_allclose(whole.data.toarray(), matrix.toarray(), rtol=1e-14)


def test_an_array_is_dense_rows(tmp_path, check_rows):
    scipy.io.mmwrite(tmp_path / "a.mtx", np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(check_rows(open(tmp_path / "a.mtx")).data, np.arange(12.0).reshape(4, 3))


def test_symmetric_files_are_filled(tmp_path):
    matrix = sp.csr_array(np.array([[2.0, 1.0], [1.0, 0.0]]))
    scipy.io.mmwrite(tmp_path / "a.mtx", matrix, symmetry="symmetric")
    np.testing.assert_array_equal(open(tmp_path / "a.mtx").read(0, 2).data.toarray(), matrix.toarray())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not a complete Matrix Market file"),
        ("hello\n", "not a complete Matrix Market file"),
        ("%%MatrixMarket matrix coordinate real general\n3 3 2\n1 1 1.0\n", "not a complete Matrix Market file"),
        ("%%MatrixMarket matrix coordinate real general\n3 3 1\n4 1 1.0\n", "not a complete Matrix Market file"),
        ("%%MatrixMarket matrix coordinate complex general\n1 1 1\n1 1 1 2\n", "the data is complex"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, text, sentence):
    path = tmp_path / "a.mtx"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.mtx: .*{sentence}"):
        open(path)
