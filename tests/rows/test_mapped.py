"""Maps of rows: scaling, an intercept, a choice of columns; dense and sparse, alone and one after another."""

import numpy as np
import pytest
import scipy.sparse as sp

import leyden as ly
from leyden.errors import OptionError
from leyden.rows import Intercept, RowMap, Scale, SelectColumns, open

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((200, 5))
SPARSE = sp.random_array((200, 5), density=0.4, format="csr", rng=0)
SHIFT, SCALE = RANDOM.standard_normal(5), RANDOM.random(5) + 0.5

MAPS = [
    (Scale(SHIFT, SCALE), lambda a: (a - SHIFT) * SCALE),
    (Scale(scale=SCALE), lambda a: a * SCALE),
    (Scale(0.0, 2.0), lambda a: a * 2),
    (Intercept(), lambda a: np.column_stack([a, np.ones(len(a))])),
    (SelectColumns(["x3", "x0"]), lambda a: a[:, [3, 0]]),
    (SelectColumns([-1, 2, 1]), lambda a: a[:, [4, 2, 1]]),
]


@pytest.mark.parametrize(("f", "expected"), MAPS)
def test_maps_of_dense_rows(check_rows, f, expected):
    before = X.copy()
    whole = check_rows(open(X, target=X[:, 0], weight=np.ones(200)).map(f))
    np.testing.assert_array_equal(whole.data, expected(X))
    np.testing.assert_array_equal(whole.target[:, 0], X[:, 0])
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(("f", "expected"), MAPS[1:])
def test_maps_of_sparse_rows(check_rows, f, expected):
    before = SPARSE.copy()
    whole = check_rows(open(SPARSE, target=X[:, 0]).map(f))
    np.testing.assert_array_equal(whole.data.toarray(), expected(SPARSE.toarray()))
    np.testing.assert_array_equal(SPARSE.toarray(), before.toarray())


def test_maps_of_a_file_one_after_another(tmp_path, check_rows):
    np.save(tmp_path / "a.npy", X.astype(np.float32))
    rows = open(tmp_path / "a.npy").map(Scale(SHIFT, SCALE)).map(SelectColumns([1, 4])).map(Intercept())
    assert rows.columns == ("x1", "x4", "intercept")
    assert rows.dtype == np.float32
    whole = check_rows(rows)
    np.testing.assert_allclose(whole.data[:, :2], ((X - SHIFT) * SCALE)[:, [1, 4]], rtol=1e-5, atol=1e-6)
    assert rows.locate(7) == f"{tmp_path / 'a.npy'}, row 7"


def test_mapped_blocks_land_in_the_buffer():
    rows = open(X).map(Intercept())
    buffer = rows.buffer(50)
    assert np.shares_memory(rows.read(0, 50, buffer).data, buffer[1])


def test_whole_numbers_become_float64_when_scaled():
    rows = open(np.arange(6).reshape(3, 2)).map(Scale(0.5, 2.0))
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows.read(0, 3).data, (np.arange(6).reshape(3, 2) - 0.5) * 2)


def test_a_map_may_make_sparse_rows_dense(check_rows):
    class Densify(RowMap):
        def __call__(self, block):
            return block.with_data(block.data.toarray())

        def columns(self, columns):
            return columns

        def sparse(self, sparse):
            return False

    rows = open(SPARSE).map(Densify())
    assert not rows.is_sparse
    np.testing.assert_array_equal(rows.read(3, 9, rows.buffer(6)).data, SPARSE.toarray()[3:9])


@pytest.mark.parametrize("options", [{"map": "orthogonal"}, {"map": "binning", "kernel": "laplacian"}])
@pytest.mark.parametrize("points", [X, SPARSE], ids=["dense", "sparse"])
def test_random_features_of_rows(check_rows, options, points):
    found = ly.RandomFeatures(features=20, **options).fit(points)
    rows = found.rows(open(points, target=X[:, 0], weight=np.ones(200)))
    assert rows.columns == tuple(found.get_feature_names_out())
    assert rows.dtype == np.float32
    assert rows.is_sparse == (options["map"] == "binning")
    whole, expected = check_rows(rows).data, found.transform(points)
    if rows.is_sparse:
        whole, expected = whole.toarray(), expected.toarray()
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize(
    ("rows", "f", "sentence"),
    [
        (SPARSE, Scale(SHIFT), "sparse matrix: sparse rows cannot be shifted: every zero would become a stored number"),
        (X, Scale(np.ones(4)), r"shift has shape \(4,\) and the rows have 5 columns"),
        (X, Scale(0.0, np.ones((5, 1))), "scale has shape"),
        (X, SelectColumns(["x9"]), r"array: there is no column 'x9'\. Did you mean"),
        (X, SelectColumns([5]), "array: there is no column 5: there are 5"),
        (X, SelectColumns([0, "x0"]), "column 'x0' is asked for twice"),
        (X, SelectColumns([]), "no columns are left"),
    ],
)
def test_what_cannot_be_done_is_said(rows, f, sentence):
    with pytest.raises(OptionError, match=sentence):
        open(rows).map(f)


def test_one_intercept_is_enough():
    with pytest.raises(OptionError, match="there is a column named 'intercept' already"):
        open(X).map(Intercept()).map(Intercept())
