"""``AlternatingLeastSquares`` with the face of the package implicit: its objective, its lists, its files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array, csr_matrix, vstack

import leyden as ly
from leyden.estimators.implicit import AlternatingLeastSquares

USERS, ITEMS = 80, 20
ALPHA, LAMBDA = 2.0, 1.5


def plays(seed=0):
    random = np.random.default_rng(seed)
    return csr_matrix((random.random((USERS, ITEMS)) < 0.3) * random.integers(1, 6, (USERS, ITEMS)))


def fitted(**options):
    options = {"factors": 3, "alpha": ALPHA, "regularization": LAMBDA, "iterations": 500, "dtype": np.float64} | options
    model = AlternatingLeastSquares(**options)
    model.fit(plays(), show_progress=False)
    return model


@pytest.fixture(scope="module")
def model():
    return fitted()


def normal_equations(factors, values, alpha=ALPHA):
    """Of a row of values: ``(VᵀCV + λI) u = VᵀC p`` of Hu, Koren and Volinsky, in their words."""
    confidence = np.where(values > 0, alpha * values, 1.0)
    form = factors.T @ (confidence[:, None] * factors) + LAMBDA * np.eye(factors.shape[1])
    return form, factors.T @ (confidence * (values > 0))


def loss(model, x):
    """Twice the objective over the sum of the weights: the training loss of the package."""
    x, scores = x.toarray(), model.user_factors @ model.item_factors.T
    weights = np.where(x > 0, ALPHA * x, 1.0)
    penalty = LAMBDA * ((model.user_factors**2).sum() + (model.item_factors**2).sum())
    return ((weights * ((x > 0) - scores) ** 2).sum() + penalty) / weights.sum()


def test_users_solve_their_normal_equations(model):
    for u, values in zip(model.user_factors, plays().toarray(), strict=True):
        np.testing.assert_allclose(u, np.linalg.solve(*normal_equations(model.item_factors, values)), atol=1e-10)


def test_items_solve_theirs_as_nearly_as_is_certified(model):
    best = [np.linalg.solve(*normal_equations(model.user_factors, values)) for values in plays().toarray().T]
    assert model.certificate_.holds
    np.testing.assert_allclose(model.item_factors, best, atol=0.01)


def test_a_callback_is_told_the_loss_of_every_epoch(model):
    told = []
    again = AlternatingLeastSquares(3, LAMBDA, ALPHA, iterations=500, dtype=np.float64)
    again.fit(plays(), False, lambda *figures: told.append(figures))
    epochs, seconds, losses = zip(*told, strict=True)
    assert epochs == tuple(range(len(again.solution_.history)))
    assert min(seconds) > 0
    assert losses[-1] == pytest.approx(loss(model, plays()), rel=1e-4)


def test_no_more_epochs_are_made_than_iterations():
    model = fitted(iterations=2)
    assert len(model.solution_.history) == 2
    assert not model.certificate_.holds


def test_a_second_fit_goes_on_from_the_first():
    model = fitted()
    model.fit(plays(), show_progress=False)
    assert len(model.solution_.history) < len(fitted().solution_.history) / 2


@pytest.mark.parametrize(
    ("state", "seed"),
    [(None, 0), (3, 3), (np.random.RandomState(5), np.random.RandomState(5).randint(2**31 - 1))],
)
def test_the_seed_is_the_random_state(state, seed):
    np.testing.assert_array_equal(fitted(random_state=state).item_factors, fitted(random_state=seed).item_factors)


def test_a_generator_is_a_random_state():
    first, second = (fitted(random_state=np.random.default_rng(7)).item_factors for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_factors_are_of_the_type_asked_for():
    single = fitted(dtype=np.float32)
    assert single.item_factors.dtype == single.user_factors.dtype == np.float32
    ids, scores = single.recommend(0, plays()[0])
    assert (ids.dtype, scores.dtype) == (np.int32, np.float32)


def test_options_that_mean_nothing_here_change_nothing(model):
    other = fitted(use_native=False, use_cg=False, calculate_training_loss=True, num_threads=1)
    np.testing.assert_allclose(other.item_factors, model.item_factors, atol=1e-6)


@pytest.mark.parametrize("kind", [csr_array, coo_array, lambda x: csr_matrix(x, dtype=np.float32)])
def test_any_format_of_a_matrix_will_do(model, kind):
    x = kind(plays())
    np.testing.assert_array_equal(model.recalculate_user(np.arange(USERS), x), model.user_factors)


# ---------------------------------------------------------------- lists


@pytest.mark.parametrize("liked", [True, False])
def test_recommends_the_items_of_highest_score(model, liked):
    users, x = [3, 7, 70], plays()
    ids, scores = model.recommend(users, x[users], N=ITEMS, filter_already_liked_items=liked)
    for row, user in enumerate(users):
        expected = model.item_factors @ model.user_factors[user]
        left = np.flatnonzero(x.toarray()[user] == 0) if liked else np.arange(ITEMS)
        ordered = left[np.argsort(-expected[left])]
        assert ids[row].tolist() == ordered.tolist() + [-1] * (ITEMS - len(left))
        np.testing.assert_allclose(scores[row, : len(left)], expected[ordered], atol=1e-12)
        assert (scores[row, len(left) :] == -np.inf).all()
        one, its = model.recommend(user, x[user], N=5, filter_already_liked_items=liked)
        np.testing.assert_array_equal(one, ids[row, :5])
        np.testing.assert_array_equal(its, scores[row, :5])


def test_ratings_are_not_needed_for_a_list_that_leaves_none_out(model):
    ids, _ = model.recommend(4, None, N=3, filter_already_liked_items=False)
    assert ids.tolist() == np.argsort(-model.item_factors @ model.user_factors[4])[:3].tolist()


def test_a_list_can_be_among_some_items_or_without_some(model):
    x = plays()
    everything, scores = model.recommend(4, x[4], N=ITEMS)
    some = [9, 1, 4, 17, 11]
    ids, its = model.recommend(4, x[4], N=ITEMS, items=some)
    kept = np.isin(everything, some)
    assert ids.tolist() == everything[kept].tolist() + [-1] * (5 - kept.sum())
    np.testing.assert_array_equal(its[: kept.sum()], scores[kept])
    ids, its = model.recommend(4, x[4], N=5, filter_items=some)
    np.testing.assert_array_equal(ids, everything[~np.isin(everything, some)][:5])
    with pytest.raises(ly.OptionError, match="items and filter_items are two ways"):
        model.recommend(4, x[4], items=some, filter_items=some)


def test_somebody_new_is_known_by_their_items(model):
    new = csr_matrix(([1.0, 3.0], ([0, 0], [2, 5])), shape=(1, ITEMS))
    u = np.linalg.solve(*normal_equations(model.item_factors, new.toarray()[0]))
    np.testing.assert_allclose(model.recalculate_user(0, new), u, atol=1e-10)
    ids, scores = model.recommend(10**6, new, N=4, recalculate_user=True)
    np.testing.assert_allclose(scores, model.item_factors[ids] @ u, atol=1e-10)
    assert not np.isin([2, 5], ids).any()


@pytest.mark.parametrize("kind", ["item", "user"])
def test_similar_is_what_points_the_same_way(model, kind):
    factors = getattr(model, f"{kind}_factors")
    similar = getattr(model, f"similar_{kind}s")
    unit = factors / np.maximum(np.linalg.norm(factors, axis=1, keepdims=True), 1e-300)
    cosines = unit @ unit.T
    ids, scores = similar([3, 8], N=6)
    for row, number in enumerate([3, 8]):
        assert ids[row, 0] == number
        np.testing.assert_array_equal(ids[row], np.argsort(-cosines[number])[:6])
        np.testing.assert_allclose(scores[row], cosines[number, ids[row]], atol=1e-12)
        np.testing.assert_array_equal(similar(number, N=6)[0], ids[row])
    ids, _ = similar(3, N=6, **{f"{kind}s": [5, 6, 7]})
    assert sorted(ids) == [5, 6, 7]
    ids, _ = similar(3, N=6, **{f"filter_{kind}s": [3, 5]})
    assert not np.isin([3, 5], ids).any()


def test_an_explanation_adds_up_to_the_score(model):
    x = plays()
    score, parts, weights = model.explain(6, x, 2, N=ITEMS)
    assert score == pytest.approx(model.item_factors[2] @ model.user_factors[6], abs=1e-10)
    assert sum(part for _, part in parts) == pytest.approx(score)
    assert {item for item, _ in parts} == set(x[6].indices)
    assert [part for _, part in parts] == sorted((part for _, part in parts), reverse=True)
    assert model.explain(6, x, 2, weights, N=2)[:2] == (score, parts[:2])


# ---------------------------------------------------------------- what is new or has changed


def test_new_users_and_items_are_appended():
    model, x = fitted(), plays()
    model.partial_fit_users([1, USERS + 1], plays(seed=5)[[0, 1]])
    assert model.user_factors.shape == (USERS + 2, 3)
    np.testing.assert_array_equal(model.user_factors[USERS], 0)
    np.testing.assert_array_equal(model.user_factors[[1, USERS + 1]], model.recalculate_user([0, 1], plays(5)[[0, 1]]))
    grown = vstack([x, csr_matrix((2, ITEMS))]).T.tocsr()
    best = np.linalg.solve(*normal_equations(model.user_factors, grown[[4]].toarray()[0]))
    np.testing.assert_allclose(model.recalculate_item(4, grown[[4]]), best, atol=1e-10)
    found = model.similar_items(4, N=3, recalculate_item=True, item_users=grown[[4]])
    model.partial_fit_items([4, ITEMS], grown[[4, 4]])
    np.testing.assert_allclose(model.item_factors[[4, ITEMS]], [best, best], atol=1e-10)
    assert set(found[0]) & {4, *model.similar_items(4, N=4)[0]}


# ---------------------------------------------------------------- weights


def test_a_weight_of_one_is_taken_as_a_little_more():
    ones = plays()
    ones.data[:] = 1
    model = AlternatingLeastSquares(3, LAMBDA, iterations=500, dtype=np.float64)
    model.fit(ones, show_progress=False)
    assert model.certificate_.holds
    for u, values in zip(model.user_factors, ones.toarray(), strict=True):
        best = np.linalg.solve(*normal_equations(model.item_factors, values, alpha=1.0))
        np.testing.assert_allclose(u, best, atol=1e-3 * np.linalg.norm(best) + 1e-12)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.4, "row 2: a value of 0.4 weighs less than an entry that is not there, with alpha=2"),
        (0.0, "row 2: a value of 0 is no implicit feedback"),
        (-3.0, "row 2: a value of -3 is no implicit feedback"),
        (np.nan, "row 2: the value is nan"),
        (np.inf, "row 2: the value is inf"),
    ],
)
def test_values_that_would_weigh_less_than_nothing_are_refused(model, value, said):
    x = plays().astype(float)
    x.data[x.indptr[2]] = value
    for call in (AlternatingLeastSquares(3, alpha=ALPHA).fit, lambda x: model.recalculate_user(np.arange(USERS), x)):
        with pytest.raises(ly.DataError, match=said):
            call(x)


def test_the_alpha_that_is_proposed_will_do():
    x = plays().astype(float)
    x.data[5] = 0.03
    with pytest.raises(ly.DataError, match=r"Give alpha=33\.7 or more"):
        fitted().fit(x)
    AlternatingLeastSquares(3, 100.0, alpha=33.7).fit(x, show_progress=False)


# ---------------------------------------------------------------- files, and what can go wrong


def test_what_is_saved_is_loaded(tmp_path, model):
    model.save(tmp_path / "model")
    for place in (tmp_path / "model", str(tmp_path / "model.npz")):
        loaded = AlternatingLeastSquares.load(place)
        np.testing.assert_array_equal(loaded.item_factors, model.item_factors)
        assert (loaded.alpha, loaded.regularization, loaded.dtype) == (ALPHA, LAMBDA, np.float64)
        np.testing.assert_array_equal(loaded.recommend(3, plays()[3])[0], model.recommend(3, plays()[3])[0])
        np.testing.assert_array_equal(loaded.recalculate_user(3, plays()[3]), model.user_factors[3])


def test_what_is_not_a_model_is_refused(tmp_path):
    with pytest.raises(ly.DataError, match="there is no such file"):
        AlternatingLeastSquares.load(tmp_path / "gone")
    np.savez(tmp_path / "other", a=np.zeros(3))
    with pytest.raises(ly.DataError, match=r"other\.npz: this is no saved model"):
        AlternatingLeastSquares.load(tmp_path / "other")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(ly.DataError, match=r"broken\.npz: this is no saved model"):
        AlternatingLeastSquares.load(tmp_path / "broken")
    with pytest.raises(ly.DataError, match="cannot be written"):
        fitted().save(tmp_path / "gone" / "model")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, x: m.recommend(USERS, x[0]), "user 80 is not among the 80 of the model"),
        (lambda m, x: m.recommend(-1, x[0]), "user -1 is not among"),
        (lambda m, x: m.recommend("me", x[0]), "user me is not among"),
        (lambda m, x: m.recommend(0, x), r"the matrix is of shape \(80, 20\), not \(1, 20\)"),
        (lambda m, x: m.recommend(0, x[0].toarray()), "user_items is to be a sparse matrix"),
        (lambda m, x: m.recommend(0, x[0], items=[0, ITEMS]), "item 20 is not among the 20 of the model"),
        (lambda m, x: m.recommend(0, x[0], items=[]), "there is no item to choose among"),
        (lambda m, x: m.recommend(0, x[0], N=0), "k=0 must be a whole number"),
        (lambda m, x: m.similar_items(ITEMS), "item 20 is not among"),
        (lambda m, x: m.similar_users(USERS), "user 80 is not among"),
        (lambda m, x: m.explain(USERS, x, 0), "user 80 has no row"),
        (lambda m, x: m.explain(0, x, ITEMS), "item 20 is not among"),
        (lambda m, x: m.recalculate_user([0, 1], x[0]), "the matrix has 1 rows for 2 users"),
        (lambda m, x: m.recalculate_user(0, x[0, :7]), "the matrix has 7 columns; the factors are of 20"),
        (lambda m, x: AlternatingLeastSquares().recommend(0, x[0]), "there are no factors yet. Call fit first"),
        (lambda m, x: AlternatingLeastSquares(0).fit(x), "rank=0 must be a whole number"),
        (lambda m, x: AlternatingLeastSquares(regularization=0).fit(x), "regularization=0 must be a positive number"),
        (lambda m, x: AlternatingLeastSquares(alpha=0).fit(x), "alpha=0 must be a positive number"),
        (lambda m, x: AlternatingLeastSquares().fit(x.toarray()), "a ndarray is no sparse matrix"),
    ],
)
def test_bad_input_is_one_sentence(model, call, said):
    with pytest.raises(ly.errors.LeydenError, match=said):
        call(model, plays())


def test_the_package_itself_is_not_imported():
    code = "import sys, leyden.estimators.implicit; assert 'implicit' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
