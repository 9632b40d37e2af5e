"""Reading X, and the maps to scores and back: the same numbers from an array, a sparse matrix, a file and rows."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_array, random_array
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import leyden as ly

ESTIMATORS = [
    ly.PCA(3),
    ly.PCA(3, whiten=True),
    ly.PCA(3, scale=True),
    ly.PCA(3, whiten=True, scale=True),
    ly.TruncatedSVD(3),
]


@pytest.fixture(params=ESTIMATORS, ids=str)
def estimator(request):
    return clone(request.param)


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    return rng.standard_normal((300, 7)) * np.geomspace(3, 0.5, 7) + np.arange(7)


def test_a_file_and_rows_give_what_the_array_gives(tmp_path, x, estimator):
    np.save(tmp_path / "x.npy", x)
    expected = estimator.fit_transform(x)
    components = estimator.components_
    for source in (tmp_path / "x.npy", str(tmp_path / "x.npy"), ly.open(x)):
        scores = clone(estimator).fit(source).transform(source)
        assert isinstance(scores, ly.Rows)
        assert scores.columns == tuple(estimator.get_feature_names_out())
        np.testing.assert_allclose(scores.read(100, 200).data, expected[100:200], rtol=0, atol=1e-11)
        np.testing.assert_array_equal(clone(estimator).fit(source).components_, components)


def test_scores_of_sparse_rows_are_those_of_the_same_rows_dense(estimator):
    sparse = random_array((200, 8), density=0.3, rng=0, format="csr") + csr_array(np.eye(200, 8))
    dense = sparse.toarray()
    for fitted in (clone(estimator).fit(sparse), clone(estimator).fit(dense)):
        expected = clone(estimator).fit(dense).transform(dense)
        for x in (sparse, dense, ly.open(sparse), ly.open(dense)):
            scores = fitted.transform(x)
            scores = scores.read(0, 200).data if isinstance(scores, ly.Rows) else scores
            np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-11)


def test_all_components_lose_nothing(x, estimator):
    estimator.set_params(n_components=7).fit(x)
    np.testing.assert_allclose(estimator.inverse_transform(estimator.transform(x)), x, rtol=0, atol=1e-12)


def test_back_is_the_nearest_point_of_the_span(x, estimator):
    estimator.fit(x)
    near = estimator.inverse_transform(estimator.transform(x))
    again = estimator.inverse_transform(estimator.transform(near))
    np.testing.assert_allclose(again, near, rtol=0, atol=1e-12)
    rows = estimator.inverse_transform(estimator.transform(ly.open(x)))
    assert isinstance(rows, ly.Rows)
    assert rows.columns == ly.open(x).columns
    np.testing.assert_allclose(rows.read(0, 300).data, near, rtol=0, atol=1e-12)


def test_a_table_names_the_features(tmp_path, x, estimator):
    names = [f"height{j}" for j in range(7)]
    table = pa.table(dict(zip(names, x.T, strict=True)))
    pq.write_table(table, tmp_path / "x.parquet")
    estimator.fit(tmp_path / "x.parquet")
    assert list(estimator.feature_names_in_) == names
    assert estimator.inverse_transform(ly.open(x[:, :3])).columns == tuple(names)
    np.testing.assert_allclose(
        estimator.transform(table.to_pandas()), estimator.transform(ly.open(x)).read(0, 300).data
    )
    with pytest.raises(ly.DataError, match="other names, or another order"):
        estimator.transform(ly.open(table.select(names[::-1])))
    estimator.fit(x)
    assert not hasattr(estimator, "feature_names_in_")


def test_other_numbers_of_columns_are_refused(x, estimator):
    estimator.fit(x)
    for call in (estimator.transform, estimator.inverse_transform):
        for other in (np.ones((4, 6)), ly.open(np.ones((4, 6)))):
            with pytest.raises(ValueError, match="6"):
                call(other)


@pytest.mark.parametrize("wrong", [0, -1, 8, 2.0, 0.9, "mle", True])
def test_as_many_components_as_the_data_has_can_be_asked_for(x, estimator, wrong):
    with pytest.raises(ly.OptionError, match=r"n_components=.* is not a whole number from 1 to 7"):
        estimator.set_params(n_components=wrong).fit(x)


def test_none_asks_for_all(x, estimator):
    assert estimator.set_params(n_components=None).fit(x[:5]).components_.shape == (5, 7)


def test_options_reach_the_engine(x, estimator):
    state = np.random.RandomState(3)
    seed = np.random.RandomState(3).randint(np.iinfo(np.int32).max)
    estimator.set_params(method="krylov", tol=1e-9, memory="64MB", threads=1, random_state=state).fit(x)
    found = estimator.solution_
    assert found.plan.method == "krylov"
    assert found.plan.memory == 64_000_000
    assert found.certificate.bounds["residual"].tolerance == 1e-9
    assert found.certificate.seeds == {"start": seed}
    estimator.set_params(random_state=5).fit(x)
    assert estimator.certificate_.seeds == {"start": 5}


def test_the_certificate_is_one_that_the_data_confirms(tmp_path, x, estimator):
    estimator.fit(x)
    assert estimator.certificate_.holds
    assert ly.verify(estimator.solution_.save(tmp_path / "saved"), x).holds


def test_a_fitted_estimator_does_not_keep_the_data(estimator):
    x = np.random.default_rng(0).standard_normal((20_000, 7))
    assert len(pickle.dumps(estimator.fit(x))) < x.nbytes / 50


def test_goes_into_a_pipeline(x, estimator):
    second = ly.PCA(2)
    np.testing.assert_allclose(
        make_pipeline(estimator, second).fit_transform(x), second.fit_transform(estimator.transform(x)), atol=1e-12
    )
