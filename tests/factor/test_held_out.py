"""Held-out ratings after every epoch: what the answer would say of them, found by their ids, saved, verified."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import leyden as ly
from leyden.errors import DataError, OptionError
from leyden.factor import held_out
from leyden.factor.held_out import HeldOut, figures, held_out_of

USERS, ITEMS = 150, 40


def table(implicit=False, seed=0):
    """Users, items and values."""
    rng = np.random.default_rng(seed)
    seen = rng.random((USERS, ITEMS)) < 0.4
    scores = rng.standard_normal((USERS, 3)) @ rng.standard_normal((ITEMS, 3)).T
    scores += 0.2 * rng.standard_normal(scores.shape)
    user, item = np.nonzero(seen & ((scores > 0) | (not implicit)))
    return user, item, (1 + np.floor(np.abs(scores)) if implicit else scores)[user, item]


def split(implicit=False):
    return ly.open_ratings(table(implicit), holdout=0.2)


@pytest.mark.parametrize("options", [{"biases": True}, {"centre": True}, {"implicit": True}, {"nonnegative": True}])
def test_an_epoch_foretells_what_an_answer_of_as_many_epochs_does(options):
    ratings = split("implicit" in options)
    found = ly.als(ratings, 3, 2.0, **options, tol=1e-9, epochs=4)
    for row in found.history:
        answer = ly.als(ratings, 3, 2.0, **options, tol=1e-9, epochs=int(row["epoch"]))
        if "taken_back" not in row:
            for name, value in figures(answer.evaluate()).items():
                assert np.isclose(row[name], value, rtol=1e-6, atol=1e-12), name
            assert figures(answer.held_out) == figures(answer.evaluate())


def test_a_row_of_the_history_is_made_of_numbers_alone():
    for row in ly.als(split(), 3, 2.0).history:
        assert all(type(value) is float for value in row.values())
        assert row["rmse_low"] <= row["rmse"] <= row["rmse_high"]


def test_metrics_of_rankings_have_the_names_of_the_field():
    row = ly.als(split(True), 3, 5.0, implicit=True).history[-1]
    assert {"recall@10", "ndcg@100_low", "hr@20_high", "mrr"} <= row.keys()


def test_it_is_only_looked_at_as_often_as_asked_for():
    found = ly.als(split(), 3, 2.0, tol=1e-9, epochs=5, accelerate=False, evaluate_every=2)
    assert [("rmse" in row) for row in found.history] == [False, True, False, True, False]
    with pytest.raises(OptionError, match="evaluate_every"):
        ly.als(split(), 3, evaluate_every=0)


def test_nothing_is_looked_at_where_nothing_was_held_out_or_asked_for():
    for found in (ly.als(ly.open_ratings(table()), 3, 2.0), ly.als(split(), 3, 2.0, held_out=False)):
        assert found.held_out is None
        assert not any("rmse" in row for row in found.history)


def test_epochs_do_not_depend_on_what_is_held_out():
    ratings = split()
    with_it, without = ly.als(ratings, 3, 2.0), ly.als(ratings, 3, 2.0, held_out=False)
    np.testing.assert_array_equal(with_it.item_factors, without.item_factors)


def test_of_many_users_a_sample_is_looked_at_the_same_one_every_time(monkeypatch):
    monkeypatch.setattr(held_out, "SAMPLED_USERS", 50)
    ratings = split()
    found = ly.als(ratings, 3, 2.0)
    sample = HeldOut(ratings, ratings.held_out, 0)
    assert figures(sample.metrics(found.model)) == figures(found.held_out)
    assert 30 < found.held_out.users <= 50 < found.evaluate().users
    assert found.history[-1]["rmse"] == found.held_out.rmse
    # By the book: scores of the users in the sample, and of no others.
    users = np.sort(np.random.Generator(np.random.Philox(key=[0, USERS])).choice(USERS, 50, replace=False))
    apart = ratings.held_out.read(0, USERS).data[users].tocoo()
    said = found.user_factors()[users][apart.coords[0]] * found.item_factors[apart.coords[1]]
    assert np.isclose(np.sqrt(np.mean((said.sum(axis=1) - apart.data) ** 2)), found.held_out.rmse, rtol=1e-6)


def test_held_out_ratings_are_found_by_their_ids():
    user, item, value = table()
    apart = np.random.default_rng(1).random(len(user)) < 0.2
    names = np.array([f"u{i:03}" for i in range(USERS)]), np.array([f"i{j}" for j in range(ITEMS)])
    train = ly.open_ratings((names[0][user[~apart]], names[1][item[~apart]], value[~apart]))
    # In another order, and with some of somebody who is not known.
    order = np.random.default_rng(2).permutation(np.flatnonzero(apart))
    test = ly.open_ratings(
        (
            np.append(names[0][user[order]], ["nobody"]),
            np.append(names[1][item[order]], ["i0"]),
            np.append(value[order], 3.0),
        )
    )
    found = ly.als(train, 3, 2.0, held_out=test)
    errors = found.predict(names[0][user[order]], names[1][item[order]]) - value[order]
    assert np.isclose(found.held_out.rmse, np.sqrt(np.mean(errors**2)), rtol=1e-6)
    assert found.held_out.ratings == apart.sum()
    assert found.evaluate(test).rmse == found.held_out.rmse
    strangers = ly.open_ratings((["x", "y"], ["i0", "i1"], [1.0, 2.0]))
    with pytest.raises(DataError, match="none of the held-out ratings"):
        ly.als(train, 3, held_out=strangers)


def test_a_matrix_of_another_shape_is_refused():
    a = sp.csr_array(np.ones((4, 3)))
    with pytest.raises(DataError, match="other users or items"):
        ly.als(a, 1, held_out=sp.csr_array(np.ones((4, 2))))
    assert held_out_of(ly.open(a), sp.csr_array(np.ones((4, 3)))).shape == (4, 3)


@pytest.mark.parametrize("implicit", [False, True])
def test_what_is_said_of_held_out_ratings_is_saved_and_verified(tmp_path, implicit):
    ratings = split(implicit)
    found = ly.als(ratings, 3, 5.0, implicit=implicit)
    found.save(tmp_path / "s")
    again = ly.load(tmp_path / "s")
    assert figures(again.held_out) == figures(found.held_out)
    assert again.history == found.history
    assert again.verify(ratings).holds
    flattered = type(found.held_out).from_json(found.held_out.to_json() | ({} if implicit else {"total": 1e-3}))
    if implicit:
        flattered = type(flattered)(
            {**flattered.recall, 10: type(flattered.recall[10])(flattered.users, flattered.users, flattered.users)},
            flattered.ndcg, flattered.hit_rate, flattered.reciprocal_rank, flattered.items,
        )  # fmt: skip
    again.held_out = flattered
    said = again.verify(ratings)
    assert not said.holds
    assert ("recall@10" if implicit else "rmse") in " ".join(said.failures)
    assert again.verify(ratings, held_out=False).holds


def test_a_solution_that_says_nothing_of_held_out_ratings_is_not_verified_by_them():
    ratings = split()
    found = ly.als(ratings, 3, 5.0, held_out=False)
    assert found.verify(ratings).holds
    with pytest.raises(OptionError, match="says nothing of held-out"):
        found.verify(ratings, held_out=ratings.held_out)
