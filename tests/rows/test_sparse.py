"""Rows over sparse matrices in memory."""

import numpy as np
import pytest
import scipy.sparse as sp

from leyden.errors import DataError
from leyden.rows import open

RANDOM = np.random.default_rng(0)


@pytest.mark.filterwarnings("ignore:Constructing a DIA")
@pytest.mark.parametrize("format", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
@pytest.mark.parametrize("kind", [sp.random_array, sp.random])
def test_any_range_is_part_of_the_whole(check_rows, format, kind):
    shape = ((200, 15),) if kind is sp.random_array else (200, 15)
    matrix = kind(*shape, density=0.2, format=format, rng=1)
    rows = open(matrix, target=RANDOM.random(200), weight=RANDOM.random(200))
    assert rows.is_sparse
    whole = check_rows(rows)
    np.testing.assert_array_equal(whole.data.toarray(), matrix.toarray())


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_blocks_are_views_of_data_and_indices(index):
    a = sp.random_array((50, 9), density=0.3, format="csr", rng=2)
    a.indices, a.indptr = a.indices.astype(index), a.indptr.astype(index)
    rows = open(a)
    block = rows.read(10, 20).data
    assert np.shares_memory(block.data, a.data)
    assert np.shares_memory(block.indices, rows.matrix.indices)
    np.testing.assert_array_equal((block @ np.ones(9)), (a @ np.ones(9))[10:20])


def test_duplicates_are_summed_and_the_matrix_given_is_left_alone():
    a = sp.csr_array((np.array([1.0, 2.0, 4.0]), np.array([1, 0, 1]), np.array([0, 3])), shape=(1, 2))
    block = open(a).read(0, 1).data
    np.testing.assert_array_equal(block.toarray(), [[2.0, 5.0]])
    np.testing.assert_array_equal(block.indices, [0, 1])
    np.testing.assert_array_equal(a.indices, [1, 0, 1])


def test_npz_as_scipy_saves_it(tmp_path, check_rows):
    a = sp.random_array((60, 9), density=0.3, format="csr", rng=3)
    sp.save_npz(tmp_path / "a.npz", a)
    np.testing.assert_array_equal(check_rows(open(tmp_path / "a.npz")).data.toarray(), a.toarray())


def test_npz_with_one_array(tmp_path, check_rows):
    np.savez(tmp_path / "a.npz", X=np.eye(4))
    np.testing.assert_array_equal(check_rows(open(tmp_path / "a.npz")).data, np.eye(4))


def test_npz_with_several_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(4), y=np.ones(4))
    with pytest.raises(DataError, match=r"a\.npz: the archive holds 2 arrays \(X, y\)"):
        open(tmp_path / "a.npz")


def test_a_broken_npz_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    sp.save_npz(path, sp.eye_array(100, format="csr"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"a\.npz: this is not a complete \.npz file"):
        open(path)


@pytest.mark.parametrize(
    ("matrix", "sentence"),
    [
        (sp.coo_array(np.ones(3)), "a sparse array of 1 dimensions"),
        (sp.csr_array((0, 3)), "the table is empty"),
        (sp.csr_array((3, 3), dtype=complex), "the data is complex"),
    ],
)
def test_what_is_not_a_matrix_of_numbers_is_refused(matrix, sentence):
    with pytest.raises(DataError, match=f"sparse matrix: {sentence}"):
        open(matrix)


def test_an_index_out_of_range_is_refused():
    a = sp.csr_array(np.eye(3))
    a.indices[1] = 7
    with pytest.raises(DataError, match="sparse matrix: the sparse matrix is not valid"):
        open(a)
