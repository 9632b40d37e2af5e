"""Random features by themselves: those of the machines, from an array, a sparse matrix, a file and rows."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import leyden as ly
from leyden.kernel.kernels import PRODUCT, RADIAL

BINS = ly.RandomFeatures(features=30, kernel="laplacian", map="binning")
ESTIMATORS = [
    ly.RandomFeatures(features=60, random_state=3),
    ly.RandomFeatures(features=60, map="qmc", width=2.0),
    BINS,
]


@parametrize_with_checks([ly.RandomFeatures(features=50), ly.RandomFeatures(features=50, map="plain", width=1.5), BINS])
def test_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(params=ESTIMATORS, ids=str)
def estimator(request):
    return clone(request.param)


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    return rng.standard_normal((300, 5)) * np.geomspace(3, 0.5, 5) + np.arange(5)


def dense(z):
    return z if isinstance(z, np.ndarray) else z.toarray()


@pytest.mark.parametrize("name", ["orthogonal", "plain", "qmc", "sorf", "binning", "nystroem", "nystroem-uniform"])
def test_features_are_those_of_a_machine_with_the_same_parameters(x, name):
    given = {"features": 40, "kernel": "laplacian" if name == "binning" else "gaussian", "map": name, "random_state": 5}
    found, machine = ly.RandomFeatures(**given).fit(x), ly.KernelRidge(**given).fit(x, x[:, 0]).solution_
    assert found.width_ == machine.kernel.width
    assert found.map_.name == machine.map.name
    np.testing.assert_array_equal(dense(found.transform(x)), machine.map(machine.standard(x)))


@pytest.mark.parametrize("kernel", [*RADIAL, *PRODUCT])
@pytest.mark.parametrize("width", [2.0, [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_inner_products_are_nearly_the_kernel_of_standardised_points(x, kernel, width):
    found = ly.RandomFeatures(features=8000, kernel=kernel, width=width, map="auto").fit(x)
    z, points = found.transform(x).astype(float), (x - x.mean(axis=0)) / x.std(axis=0)
    exact = found.kernel_(points, points)
    assert np.abs(z @ z.T - exact).max() < 0.08 * exact.max()


def test_the_median_width_is_that_of_distances(x):
    points = (x - x.mean(axis=0)) / x.std(axis=0)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    assert ly.RandomFeatures(features=2).fit(x).width_ == pytest.approx(np.median(distances[distances > 0]), rel=0.05)
    alone = ly.RandomFeatures(features=2, standardize=False).fit(points)
    assert alone.width_ == pytest.approx(np.median(distances[distances > 0]), rel=0.05)


def test_random_bins_are_few_among_many(x):
    z = clone(BINS).fit_transform(x)
    assert sp.issparse(z)
    assert z.format == "csr"
    assert z.has_sorted_indices
    assert (np.diff(z.indptr) == 30).all()
    assert (z.data == np.float32(1 / np.sqrt(30))).all()
    z.check_format(full_check=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_features_do_not_depend_on_threads_or_on_the_rows_beside(estimator, threads):
    x = np.random.default_rng(0).standard_normal((9001, 4))
    whole = estimator.fit(x).transform(x)
    again = clone(estimator).set_params(threads=threads).fit(x)
    np.testing.assert_array_equal(dense(again.transform(x)[5000:5010]), dense(whole[5000:5010]))
    np.testing.assert_array_equal(dense(again.transform(x[5000:5010])), dense(whole[5000:5010]))


def test_sparse_points_have_the_features_of_the_same_points_dense(estimator):
    sparse = sp.random_array((200, 8), density=0.3, rng=0, format="csr")
    estimator.fit(sparse)
    np.testing.assert_array_equal(
        dense(estimator.transform(sparse)), dense(estimator.transform(sparse.toarray()))
    )  # fmt: skip


def test_a_file_and_rows_give_what_the_array_gives(tmp_path, x, estimator):
    np.save(tmp_path / "x.npy", x)
    expected = dense(estimator.fit_transform(x))
    for source in (tmp_path / "x.npy", str(tmp_path / "x.npy"), ly.open(x)):
        rows = clone(estimator).fit(source).transform(source)
        assert isinstance(rows, ly.Rows)
        np.testing.assert_array_equal(dense(rows.read(100, 200).data), expected[100:200])


@pytest.fixture
def table(tmp_path):
    """A Parquet file in several row groups, its points, and their target."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-2, 2, (6000, 3))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * rng.standard_normal(6000)
    columns = {"height": x[:, 0], "late": y, "depth": x[:, 1], "width": x[:, 2]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=1000)
    return tmp_path / "x.parquet", x, y


@pytest.mark.parametrize("memory", ["200MB", "2GB"])
def test_least_squares_on_features_of_a_file_is_kernel_ridge_regression(table, memory):
    path, x, y = table
    found, penalty = ly.RandomFeatures(features=200, width=1.0).fit(x), 1e-5
    rows = found.rows(ly.open(path, target="late"))
    sol = ly.lstsq(rows, ridge=penalty * len(x), intercept=True, memory=memory)
    assert sol.certificate.holds
    dense = Ridge(alpha=penalty * len(x), solver="svd").fit(found.transform(x).astype(float), y)
    np.testing.assert_allclose(sol.x, dense.coef_, rtol=0, atol=1e-8 * np.abs(dense.coef_).max())


def test_that_is_what_a_kernel_machine_certifies(table):
    path, x, y = table
    found, penalty = ly.RandomFeatures(features=200, width=1.0).fit(x), 1e-5
    rows = found.rows(ly.open(path, columns=["height", "depth", "width"]))
    sol = ly.lstsq(rows, y - y.mean(), ridge=penalty * len(x))
    machine = ly.KernelRidge(features=200, width=1.0, regularization=penalty, tol=1e-8, method="gram").fit(x, y)
    worst = np.abs(found.transform(x).astype(float) @ sol.x + y.mean() - machine.predict(x)).max()
    assert worst <= machine.certificate_.bounds["score_error"].value
    assert worst < 1e-3 * y.std()


def test_components_of_features_of_a_file_are_those_of_the_features(table):
    path, x, _ = table
    found = ly.RandomFeatures(features=100).fit(x)
    rows, z = found.rows(ly.open(path, target="late")), found.transform(x).astype(float)
    components, factored = ly.pca(rows, rank=5), ly.svd(rows, rank=5)
    assert components.certificate.holds
    assert factored.certificate.holds
    np.testing.assert_allclose(components.explained_variance, PCA(5).fit(z).explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(factored.s, np.linalg.svd(z, compute_uv=False)[:5], rtol=1e-6)


def test_columns_of_a_table_are_known_by_their_names(table):
    path, x, _ = table
    names = ["height", "depth", "width"]
    found = ly.RandomFeatures(features=40).fit(ly.open(path, columns=names))
    assert found.feature_names_in_.tolist() == names
    expected = found.rows(x).read(0, len(x)).data
    for rows in (found.transform(path), found.rows(ly.open(path, columns=names[::-1]))):
        np.testing.assert_array_equal(rows.read(0, len(x)).data, expected)
    with pytest.raises(ly.DataError, match="there is no column 'height', which was fitted"):
        found.rows(ly.open(path, columns=["depth", "width", "late"]))


def test_output_may_be_a_table_where_it_is_dense(x):
    found = ly.RandomFeatures(features=4).set_output(transform="pandas")
    table = found.fit_transform(x)
    assert table.columns.tolist() == [f"randomfeatures{j}" for j in range(4)] == found.get_feature_names_out().tolist()
    assert (table.dtypes == np.float32).all()


def test_a_linear_model_on_features_is_a_kernel_method(x):
    y = np.sin(x[:, 0] / 3) * x[:, 4]
    model = make_pipeline(ly.RandomFeatures(features=300, width=2.0), Ridge(alpha=1e-3)).fit(x, y)
    assert model.score(x, y) > 0.98
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize(
    "estimator", [ly.RandomFeatures(features=200, random_state=seed) for seed in range(5)] + [BINS], ids=str
)
def test_the_kernel_error_bounds_that_of_all_pairs(estimator, x):
    z = dense(estimator.fit_transform(x)).astype(float)
    points = (x - x.mean(axis=0)) / x.std(axis=0)
    truth = np.sqrt(((z @ z.T - estimator.kernel_(points, points)) ** 2).mean())
    bound = estimator.kernel_error(x, pairs=100_000)
    assert truth <= bound.value < truth + 0.05
    assert bound.confidence == 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 7}, "7 Fourier features are not pairs of a sine and a cosine. Ask for 8."),
        ({"features": 0}, "features=0 must be a whole number"),
        ({"kernel": "wavelet"}, "kernel='wavelet' is not one of"),
        ({"map": "wavelet"}, "map='wavelet' is not one of"),
        ({"map": "binning"}, "random bins are of the Laplacian kernel"),
        ({"width": "learned"}, "widths are learned from a target"),
        ({"width": -1}, "width=-1 must be a positive number"),
        ({"width": [1.0, 2.0]}, "there are 2 widths for 5 columns"),
        ({"standardize": 1}, "standardize=1 must be True or False"),
        ({"threads": 0}, "threads=0 must be a whole number"),
    ],
)
def test_what_cannot_be_done_is_said(x, options, message):
    with pytest.raises(ly.OptionError, match=message):
        ly.RandomFeatures(**options).fit(x)


def test_other_columns_than_were_fitted_are_refused(x, estimator):
    estimator.fit(x)
    with pytest.raises(ly.DataError, match="there are 4 columns, and the features were fitted to 5"):
        estimator.rows(x[:, :4])
    with pytest.raises(ly.DataError, match="column 'x2'"):
        estimator.fit(ly.open(np.where(np.arange(5) == 2, np.nan, x)))
