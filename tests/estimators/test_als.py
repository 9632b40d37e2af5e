"""``ALS``: the factors of :func:`leyden.als`, for rows of anybody."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array, csr_matrix
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import leyden as ly

KINDS = [
    ly.ALS(3, regularization=1.0),
    ly.ALS(3, regularization=0.1, scaling=1.0, biases=True),
    ly.ALS(3, regularization=10.0, implicit=True, alpha=2.0),
    ly.ALS(3, regularization=5.0, implicit=True, background=0.3),
    ly.ALS(3, regularization=1.0, nonnegative=True, tol=0.1),
]


@pytest.fixture(params=KINDS, ids=str)
def estimator(request):
    return clone(request.param)


def ratings(users=200, items=40, seed=0):
    """Ratings 1 to 5 of items by users that three factors explain but for a little."""
    random = np.random.default_rng(seed)
    values = random.random((users, 3)) @ np.random.default_rng(99).random((3, items)) * 2
    values = np.clip(np.round(values + 0.1 * random.standard_normal(values.shape)), 1, 5)
    return csr_array(np.where(random.random(values.shape) < 0.5, values, 0))


def test_is_what_the_function_finds(estimator):
    x = ratings()
    fitted = estimator.set_params(random_state=3, threads=1).fit(x)
    options = fitted.get_params()
    rank, _ = options.pop("n_components"), options.pop("random_state")
    found = ly.als(x, rank, **options, seed=3)
    np.testing.assert_array_equal(fitted.components_, found.item_factors.T)
    np.testing.assert_array_equal(fitted.item_bias_, np.zeros(40) if found.item_bias is None else found.item_bias)
    np.testing.assert_allclose(fitted.transform(x)[:, :3], found.user_factors(), rtol=0, atol=1e-12)
    assert fitted.mean_ == found.mean
    assert fitted.n_epochs_ == len(found.history)
    assert fitted.certificate_.holds
    users, items = np.divmod(np.arange(0, x.shape[0] * 40, 7), 40)
    np.testing.assert_allclose(fitted.scores(x)[users, items], found.predict(users, items), rtol=0, atol=1e-12)


def test_zeros_of_a_dense_array_are_not_rated(estimator):
    x = ratings()
    sparse, dense = clone(estimator).fit(x), clone(estimator).fit(x.toarray())
    np.testing.assert_array_equal(sparse.components_, dense.components_)
    np.testing.assert_array_equal(sparse.transform(x), dense.transform(x.toarray()))


@pytest.mark.parametrize("other", [csr_matrix, coo_array, lambda x: csr_array(x, dtype=np.float32)])
def test_any_format_of_a_matrix_will_do(estimator, other):
    x = ratings()
    estimator.fit(x)
    components = estimator.components_
    np.testing.assert_array_equal(clone(estimator).fit(other(x)).components_, components)
    np.testing.assert_array_equal(estimator.transform(other(x)), estimator.transform(x))


def test_a_zero_that_is_stored_is_a_rating():
    x = ratings()
    x.data[:] -= 3
    assert (x.data == 0).any()
    fitted = ly.ALS(2, regularization=1.0, biases=True).fit(x)
    assert fitted.mean_ == pytest.approx(x.data.mean(), abs=1e-6)


def test_entries_that_are_stored_twice_are_one_rating():
    x = ratings()
    twice = csr_array((200, 40))
    twice.indptr, twice.indices = 2 * x.indptr, np.repeat(x.indices, 2)
    twice.data = np.repeat(x.data / 2, 2)
    fitted = ly.ALS(2, regularization=1.0).fit(x)
    np.testing.assert_array_equal(fitted.transform(twice), fitted.transform(x))


def test_users_are_the_solution_of_their_ridge_regressions():
    x = ratings()
    fitted = ly.ALS(3, regularization=0.7, scaling=0.5).fit(x)
    u = fitted.transform(x[:5])
    for i in range(5):
        seen = x[[i]].indices
        v = fitted.components_.T[seen]
        expected = np.linalg.solve(v.T @ v + 0.7 * len(seen) ** 0.5 * np.eye(3), v.T @ x[[i]].data)
        np.testing.assert_allclose(u[i], expected, rtol=1e-9)


def test_there_and_back(estimator):
    x = ratings()
    fitted = estimator.fit(x)
    u = fitted.transform(x)
    assert u.shape == (200, 4 if estimator.biases else 3)
    assert len(fitted.get_feature_names_out()) == u.shape[1]
    np.testing.assert_array_equal(fitted.inverse_transform(u), fitted.scores(x))
    with pytest.raises(ly.DataError, match="7 columns for"):
        fitted.inverse_transform(np.ones((2, 7)))


@pytest.mark.parametrize("exclude", [True, False])
def test_recommends_the_items_of_highest_score(estimator, exclude):
    x = ratings()
    fitted = estimator.fit(x)
    items, found = fitted.recommend(x[:20], k=40, exclude_seen=exclude)
    scores = fitted.scores(x[:20])
    if exclude:
        scores[x[:20].toarray() != 0] = -np.inf
    left = np.isfinite(scores).sum(axis=1)
    for i in range(20):
        assert (items[i, left[i] :] == -1).all()
        assert sorted(items[i, : left[i]]) == np.flatnonzero(np.isfinite(scores[i])).tolist()
        np.testing.assert_allclose(found[i, : left[i]], np.sort(scores[i])[::-1][: left[i]], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(scores[i, items[i, : left[i]]], found[i, : left[i]], rtol=1e-12, atol=1e-12)


def test_the_score_of_explicit_ratings_is_minus_their_root_mean_square_error():
    x = ratings()
    fitted = ly.ALS(3, regularization=1.0, biases=True).fit(x)
    held = csr_array(np.where((np.random.default_rng(1).random((200, 40)) < 0.1), x.toarray(), 0))
    rest = csr_array(np.where(held.toarray() > 0, 0, x.toarray()))
    there = held.toarray() > 0
    expected = -np.sqrt(np.mean((fitted.scores(rest) - held.toarray())[there] ** 2))
    assert fitted.score(rest, held_out=held) == pytest.approx(expected, rel=1e-9)
    assert -1.5 < fitted.score(x) < -0.1


def test_without_ratings_to_foretell_a_part_is_drawn():
    x = ratings()
    fitted = ly.ALS(3, regularization=1.0, random_state=1).fit(x)
    rest, held = fitted._split(x)
    np.testing.assert_array_equal((rest + held).toarray(), x.toarray())
    assert rest.nnz + held.nnz == x.nnz
    assert 0.15 < held.nnz / x.nnz < 0.25
    assert fitted.score(x) == fitted.score(rest, held_out=held)
    assert fitted.score(x) != fitted.set_params(random_state=2).score(x)
    one = csr_array(([4.0], ([0], [3])), shape=(1, 40))
    assert fitted.score(one) == -4.0


def test_the_score_of_implicit_feedback_is_the_gain_of_the_first_hundred():
    x = ratings()
    for estimator in KINDS[2:4]:
        fitted = clone(estimator).fit(x)
        assert 0 < fitted.score(x) < 1
        best = csr_array((np.ones(200), (np.arange(200), fitted.recommend(x, k=1)[0][:, 0])), shape=(200, 40))
        assert fitted.score(x, held_out=best) == pytest.approx(1)


def test_cross_validation_finds_a_better_regularization():
    x = ratings(users=400)
    search = GridSearchCV(ly.ALS(3, biases=True), {"regularization": [0.3, 300.0]}, cv=3).fit(x)
    assert search.best_params_ == {"regularization": 0.3}
    assert ly.ALS(3, regularization=0.3, biases=True).fit(x).score(ratings(seed=5)) > -0.8


def test_goes_into_a_pipeline(estimator):
    x = ratings()
    pca = ly.PCA(2)
    expected = pca.fit_transform(estimator.fit_transform(x))
    np.testing.assert_allclose(make_pipeline(estimator, pca).fit_transform(x), expected, atol=1e-12)


def test_the_rank_that_is_sufficient_is_found():
    fitted = ly.ALS("auto", regularization=30.0).fit(ratings())
    assert fitted.n_components_ == fitted.transform(ratings()).shape[1]
    assert fitted.certificate_.duality_gap <= 1e-6


def test_a_fitted_estimator_does_not_keep_the_data(estimator):
    x = ratings(users=20_000)
    assert len(pickle.dumps(estimator.fit(x))) < x.data.nbytes / 10


def test_the_certificate_is_one_that_the_data_confirms(tmp_path, estimator):
    x = ratings()
    estimator.fit(x)
    assert ly.verify(estimator.solution_.save(tmp_path / "s"), x).holds


def test_a_fitted_estimator_is_as_good_after_pickling(estimator):
    x = ratings()
    estimator.fit(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).transform(x), estimator.transform(x))


def test_values_that_would_weigh_nothing_are_refused():
    x = ratings()
    fitted = ly.ALS(3, regularization=10.0, implicit=True).fit(x)
    x.data[5] = -1
    for call in (fitted.transform, fitted.recommend, fitted.score, fitted.scores, clone(fitted).fit):
        with pytest.raises(ly.DataError, match="implicit value of -1"):
            call(x)


def test_other_items_are_refused(estimator):
    fitted = estimator.fit(ratings())
    with pytest.raises(ValueError, match="39 features"):
        fitted.transform(ratings()[:, :39])
    with pytest.raises(ly.DataError, match="held_out has 100 rows, and X has 200"):
        fitted.score(ratings(), held_out=ratings(users=100))


def test_options_are_those_of_the_function():
    with pytest.raises(ly.OptionError, match="biases are for explicit ratings"):
        ly.ALS(2, implicit=True, biases=True).fit(ratings())
    with pytest.raises(ly.OptionError, match="rank=0 must be a whole number"):
        ly.ALS(0).fit(ratings())
    state = np.random.RandomState(3)
    seed = np.random.RandomState(3).randint(np.iinfo(np.int32).max)
    fitted = ly.ALS(2, regularization=1.0, random_state=state).fit(ratings())
    expected = ly.ALS(2, regularization=1.0, random_state=seed).fit(ratings())
    np.testing.assert_array_equal(fitted.components_, expected.components_)
