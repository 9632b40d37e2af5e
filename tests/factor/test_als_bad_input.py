"""What can be wrong with ratings, and what is merely unusual: a sentence for the one, a certificate for the other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array, hstack

import leyden as ly

FEEDBACK = [{}, {"implicit": True}, {"implicit": True, "background": 0.1}]
METHODS = ["resident", "streamed"]


def ratings(value=None):
    """Ratings 1 to 5 of 7 items by 9 users, one of which is ``value``."""
    random = np.random.default_rng(0)
    x = csr_array((random.random((9, 7)) < 0.6) * random.integers(1, 6, (9, 7)).astype(float))
    if value is not None:
        x.data[x.indptr[4]] = value
    return x


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", FEEDBACK, ids=str)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, "a rating is NaN. Remove such ratings first."),
        (np.inf, "a rating is infinity. Remove"),
        (-np.inf, "a rating is infinity. Remove"),
        (1e60, "a rating of 1e+60 is beyond float32. Scale the ratings."),
    ],
)
def test_a_rating_that_is_no_number_is_named(value, said, options, method):
    with pytest.raises(ly.DataError) as caught:
        ly.als(ratings(value), 2, method=method, **options)
    assert str(caught.value).startswith(f"sparse matrix, row 4: {said}")


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_implicit_values_must_weigh_something(value):
    with pytest.raises(ly.DataError, match=f"row 4: an implicit value of {value:g}: it would weigh nothing, or less"):
        ly.als(ratings(value), 2, implicit=True)
    assert ly.als(ratings(value), 2, 1.0, implicit=True, background=0.1).certificate.holds
    assert ly.als(ratings(value), 2, 1.0).certificate.holds


@pytest.mark.parametrize("regularization", [0, -1, np.nan, np.inf, "none"])
def test_a_regularization_is_needed(regularization):
    unseen = hstack([ratings(), csr_array((9, 1))])
    with pytest.raises(ly.OptionError, match=r"regularization=\S+ must be a positive number"):
        ly.als(unseen, 2, regularization)


def test_a_regularization_that_is_lost_in_rounding_is_said():
    with pytest.raises(ly.DataError, match=r"the factors are not finite: .* Give a larger regularization"):
        ly.als(ratings(), 2, 1e-300)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [*FEEDBACK, {"biases": True}], ids=str)
def test_an_item_that_nobody_has_rated_has_no_factors(options, method):
    found = ly.als(hstack([ratings(), csr_array((9, 2))]), 2, 1.0, method=method, **options)
    assert found.certificate.holds
    np.testing.assert_allclose(found.item_factors[7:], 0, atol=1e-3)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_data_without_users_or_items_is_empty(shape):
    with pytest.raises(ly.DataError, match=r"the table is empty"):
        ly.als(csr_array(shape), 2)


def test_data_without_ratings_is_said():
    with pytest.raises(ly.DataError, match="there are no ratings"):
        ly.als(csr_array((4, 3)), 2)


@pytest.mark.parametrize("data", [np.ones((3, 4)), [1, 2], None, 7])
def test_what_is_no_ratings_is_said(data):
    with pytest.raises(ly.DataError, match=r"cannot be seen as ratings\. Give files, a table"):
        ly.als(data, 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [*FEEDBACK, {"biases": True}, {"nonnegative": True, "tol": 0.1}], ids=str)
@pytest.mark.parametrize(("shape", "rank"), [((1, 5), 2), ((5, 1), 2), ((1, 1), 2), ((9, 7), 2), ((9, 7), 20)], ids=str)
def test_constant_ratings_of_any_shape_are_factored(shape, rank, options, method):
    found = ly.als(csr_array(np.full(shape, 3.0)), rank, 1.0, method=method, **options)
    assert found.certificate.holds
    assert found.rank == rank
    assert ly.als(csr_array(np.full(shape, 3.0)), "auto", 1.0, method=method).certificate.holds


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [*FEEDBACK, {"nonnegative": True}], ids=str)
def test_where_the_penalty_is_too_large_for_any_factors_there_are_none(options, method):
    found = ly.als(ratings(), 2, 500.0, method=method, **options)
    np.testing.assert_array_equal(found.item_factors, 0)
    assert found.certificate.holds
    assert found.certificate.duality_gap < 1e-12
    assert len(found.history) < 40


# ---------------------------------------------------------------- ids

USERS = np.array([2**31, 2**31 + 1, 2**62, -5, 2**40])
ITEMS = np.array([2**33, 2**33 + 1, 7])


@pytest.fixture(scope="module")
def found():
    return ly.als(ly.open_ratings((np.repeat(USERS, 3), np.tile(ITEMS, 5), np.arange(15.0) + 1)), 2, 1.0)


def test_ids_may_be_any_whole_numbers_of_64_bits(found):
    for user in USERS.tolist():
        items, scores = found.recommend(user, 3, exclude_seen=False)
        assert set(items.tolist()) == set(ITEMS.tolist())
        np.testing.assert_allclose(scores, found.predict(np.full(3, user), items), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda f: f.recommend(8), r"user 8 is not among the 5 users of the ratings\. Some that are: -5, 2147483648"),
        (lambda f: f.user_factors([2**62, 8]), "user 8 is not among the 5 users"),
        (lambda f: f.predict(8, 7), "user 8 is not among the 5 users"),
        (lambda f: f.predict(2**62, 8), "item 8 is not among the 3 items"),
        (lambda f: f.similar_items(8), "item 8 is not among the 3 items"),
        (lambda f: f.recommend_new([7, 8]), "item 8 is not among the 3 items"),
        (lambda f: f.recommend(2**63), "the user ids are uint64"),
        (lambda f: f.recommend(2**70), "one of the user ids is beyond 64 bits"),
        (lambda f: f.recommend("me"), "users have whole numbers for ids, and these are text"),
        (lambda f: f.recommend(1.5), "the user ids are float64"),
        (lambda f: f.recommend(None), "one of the user ids is null"),
        (lambda f: f.recommend(2**62, 0), "k=0 must be a whole number"),
        (lambda f: f.recommend_new([7], [np.nan]), "a value is not a finite number"),
        (lambda f: f.recommend_new([7], [1, 2]), r"there are 1 items, and values of shape \(2,\): give one for each"),
        (lambda f: f.recommend_new([7, 7]), "an item is given twice"),
        (lambda f: f.evaluate(), r"no ratings were held out\. Open them with holdout="),
        (lambda f: f.evaluate(csr_array((5, 3))), "nothing is held out"),
        (lambda f: f.evaluate(csr_array((2, 3))), "what is held out is of other users or items"),
        (lambda f: f.evaluate(csr_array(([np.nan], ([0], [0])), shape=(5, 3))), "a rating is not a finite number"),
    ],
)
def test_what_cannot_be_asked_is_said(found, call, said):
    with pytest.raises(ly.errors.LeydenError, match=said):
        call(found)


@pytest.mark.parametrize(("holdout", "said"), [(1e-3, "holds nothing out of 5"), (1 - 1e-6, "leaves nothing of 5")])
def test_a_split_with_an_empty_part_is_refused(holdout, said):
    with pytest.raises(ly.OptionError, match=rf"{said} ratings\. Give another fraction"):
        ly.open_ratings((np.arange(5), np.arange(5), np.ones(5)), holdout=holdout)
    with pytest.raises(ly.OptionError, match=r"holdout='last' leaves nothing of 5 ratings"):
        ly.open_ratings((np.arange(5), np.arange(5), np.ones(5), np.arange(5)), holdout="last")
