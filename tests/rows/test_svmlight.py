"""Rows over svmlight files."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import dump_svmlight_file

from leyden.errors import DataError
from leyden.rows import open, svmlight

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(svmlight, "PIECE_NBYTES", 1000)


@pytest.mark.parametrize("zero_based", [True, False])
def test_any_range_is_part_of_the_whole(tmp_path, check_rows, zero_based):
    matrix = sp.random(300, 10, density=0.3, format="csr", rng=1)
    matrix = sp.hstack([np.ones((300, 1)), matrix, np.ones((300, 1))], format="csr")
    labels = RANDOM.standard_normal(300)
    dump_svmlight_file(matrix[:200], labels[:200], str(tmp_path / "a-0.svm"), zero_based=zero_based)
    dump_svmlight_file(matrix[200:], labels[200:], str(tmp_path / "a-1.svm"), zero_based=zero_based)
    rows = open(tmp_path / "*.svm")
    assert rows.shape == (300, 12)
    whole = check_rows(rows)
    np.testing.assert_allclose(whole.data.toarray(), matrix.toarray(), rtol=1e-14)
    np.testing.assert_allclose(whole.target[:, 0], labels, rtol=1e-14)
    assert rows.locate(250) == f"{tmp_path / 'a-1.svm'}, row 50"


def test_comments_empty_lines_and_empty_rows(tmp_path):
    path = tmp_path / "a.svmlight"
    path.write_text("# made by hand\n1 2:5 # first\n\n-1\n3 1:7")
    rows = open(path)
    np.testing.assert_array_equal(rows.read(0, 3).data.toarray(), [[0, 5], [0, 0], [7, 0]])
    np.testing.assert_array_equal(rows.read(1, 3).target[:, 0], [-1, 3])


def test_another_target_and_type(tmp_path):
    path = tmp_path / "a.libsvm"
    path.write_text("1 1:5\n2 2:1\n")
    rows = open(path, target=[7, 8], dtype="float32")
    assert rows.targets == ("target",)
    assert rows.read(0, 2).data.dtype == np.float32
    np.testing.assert_array_equal(rows.read(0, 2).target[:, 0], [7, 8])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 1:2\n" * 500 + "1 1:x\n", r", row 500: this is not a row in svmlight format: '1 1:x'"),
        ("1 1:2\n1 5:1 3:2\n", r", row 1: .*sorted"),
        ("1 1:2\nyes 1:2\n", r", row 1: this is not a row in svmlight format: 'yes 1:2'"),
        ("1 99999999999:1\n", ", row 0: this is not a row"),
        ("# nothing\n", r": the table is empty \(0 rows\)"),
        ("1\n2\n", ": no row has an entry, so there are no columns"),
    ],
)
def test_what_is_not_svmlight_is_refused(tmp_path, text, sentence):
    path = tmp_path / "a.svm"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.svm" + sentence):
        open(path)


def test_a_changed_file_is_noticed(tmp_path):
    path = tmp_path / "a.svm"
    path.write_text("1 1:2 2:3\n1 2:4\n")
    rows = open(path)
    path.write_text("1 1:2 9:3\n1 2:4\n")
    with pytest.raises(DataError, match=r"a\.svm: the file changed since it was opened"):
        rows.read(0, 2)
