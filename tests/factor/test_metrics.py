"""Ranking metrics against every order of what ties, and intervals against what they should hold."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.errors import DataError, OptionError
from leyden.factor import _ranking_kernels
from leyden.factor.metrics import RankingMetrics, SquaredErrors, UserMean, ranking_metrics, squared_errors
from leyden.factor.ranking import HeldOutRanks, held_out_ranks

seeds = st.integers(0, 2**32)
CUTS = [1, 2, 3, 5, 100]


def of_order(order, held, k):
    """Recall, NDCG, hit and reciprocal rank of one list."""
    ranks = [r for r, j in enumerate(order, 1) if j in held]
    ideal = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(held)) + 1))
    hits = [r for r in ranks if r <= k]
    gained = sum(1 / math.log2(r + 1) for r in hits)
    return len(hits) / min(k, len(held)), gained / ideal, bool(hits), 1 / ranks[0]


def of_user(scores, held, k):
    """The same, in the mean over all orders that agree with the scores."""
    groups = [[j for j, s in scores.items() if s == value] for value in sorted(set(scores.values()), reverse=True)]
    orders = itertools.product(*(itertools.permutations(group) for group in groups))
    return np.mean([of_order([*itertools.chain(*order)], held, k) for order in orders], axis=0)


def ranks_of(scores, held, excluded):
    """Ranks by their definition, of factors that are the scores."""
    return held_out_ranks(np.eye(len(scores)), scores.T, sp.csr_array(held), exclude=sp.csr_array(excluded))


@settings(max_examples=60)
@given(seeds)
def test_metrics_are_means_over_the_orders_of_what_ties(seed):
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(1, 5)), int(rng.integers(1, 7))
    scores = rng.integers(0, rng.integers(1, 5), (m, n)).astype(float)
    held = rng.random((m, n)) < 0.4
    excluded = (rng.random((m, n)) < 0.2) & ~held
    found = ranking_metrics(ranks_of(scores, held, excluded), CUTS)
    users = np.flatnonzero(held.any(axis=1))
    assert found.users == len(users)
    assert found.items == held.sum()
    for k in CUTS:
        expected = np.zeros((0, 4))
        for i in users:
            left = {j: scores[i, j] for j in range(n) if not excluded[i, j]}
            expected = np.vstack([expected, of_user(left, set(np.flatnonzero(held[i])), k)])
        means = found.recall[k], found.ndcg[k], found.hit_rate[k], found.reciprocal_rank
        for mean, values in zip(means, expected.T, strict=True):
            assert np.isclose(mean.total, values.sum(), rtol=1e-13, atol=1e-13)
            assert np.isclose(mean.squares, (values**2).sum(), rtol=1e-13, atol=1e-13)


@given(st.integers(0, 200), st.integers(1, 300), st.integers(1, 300))
def test_the_first_of_some_in_a_random_order(above, tied, count):
    count = min(count, tied)
    places = range(1, tied - count + 2)
    chances = [math.comb(tied - j, count - 1) / math.comb(tied, count) for j in places]
    assert math.isclose(math.fsum(chances), 1)
    expected = math.fsum(p / (above + j) for p, j in zip(chances, places, strict=True))
    assert math.isclose(_ranking_kernels.first_reciprocal(above, tied, count), expected, rel_tol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_the_first_of_a_catalogue_that_ties(count):
    whole = _ranking_kernels.first_reciprocal(0, 250_000, count)
    by_terms = count / 250_000 + (1 - count / 250_000) * _ranking_kernels.first_reciprocal(1, 249_999, count)
    assert math.isclose(whole, by_terms, rel_tol=1e-10)


def test_a_constant_model_is_as_good_as_chance():
    n, k = 1000, 10
    held = sp.random_array((200, n), density=0.003, rng=np.random.default_rng(0), format="csr")
    found = ranking_metrics(held_out_ranks(np.ones((200, 3)), np.ones((n, 3)), held), [k])
    per_user = np.diff(held.indptr)[np.diff(held.indptr) > 0]
    assert np.isclose(found.recall[k].mean, np.mean(per_user * k / n / np.minimum(per_user, k)))
    missed = [math.comb(n - c, k) / math.comb(n, k) for c in per_user]
    assert np.isclose(found.hit_rate[k].mean, 1 - np.mean(missed))


def test_a_perfect_model_has_nothing_to_gain():
    held = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]])
    found = ranking_metrics(ranks_of(held + 0.1 * np.arange(6), held, np.zeros((2, 6))), [1, 2, 4])
    for k in (1, 2, 4):
        assert np.isclose([found.recall[k].mean, found.ndcg[k].mean, found.hit_rate[k].mean], 1).all()
    assert found.reciprocal_rank.mean == 1


@given(seeds)
def test_metrics_of_batches_merge_to_those_of_all(seed):
    rng = np.random.default_rng(seed)
    scores, held = rng.integers(0, 4, (9, 8)).astype(float), rng.random((9, 8)) < 0.3
    none = np.zeros_like(held)
    whole = ranking_metrics(ranks_of(scores, held, none), CUTS)
    parts = [ranking_metrics(ranks_of(scores[part], held[part], none[part]), CUTS) for part in (slice(4), slice(4, 9))]
    merged = parts[0].merge(parts[1])
    assert merged.items == whole.items
    assert merged.users == whole.users
    for k in CUTS:
        assert np.isclose(merged.ndcg[k].total, whole.ndcg[k].total)
        assert np.isclose(merged.recall[k].squares, whole.recall[k].squares)
    assert np.isclose(merged.reciprocal_rank.total, whole.reciprocal_rank.total)


def test_metrics_at_other_cutoffs_do_not_merge():
    ranks = ranks_of(np.ones((1, 2)), np.eye(1, 2), np.zeros((1, 2)))
    with pytest.raises(OptionError, match=r"metrics at \[1\] and at \[2\] are not the same metrics"):
        ranking_metrics(ranks, [1]).merge(ranking_metrics(ranks, [2]))


def test_metrics_survive_json():
    ranks = ranks_of(np.ones((2, 3)), np.eye(2, 3), np.zeros((2, 3)))
    found = ranking_metrics(ranks, [1, 2])
    assert RankingMetrics.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    nobody = ranking_metrics(HeldOutRanks(np.zeros(3, np.int64), *np.zeros((4, 0), np.int64)), [1])
    assert RankingMetrics.from_json(json.loads(json.dumps(nobody.to_json(), allow_nan=False))) == nobody


def test_metrics_print_as_a_table():
    ranks = ranks_of(np.arange(6.0).reshape(2, 3), np.eye(2, 3), np.zeros((2, 3)))
    assert str(ranking_metrics(ranks, [2])).splitlines() == [
        "2 held-out items of 2 users; mean ± standard error [95 % interval]",
        "  recall@2         0.5000 ± 0.5000  [0.0945, 0.9055]",
        "  NDCG@2           0.3155 ± 0.3155  [0.0721, 0.7321]",
        "  hit rate@2       0.5000 ± 0.5000  [0.0945, 0.9055]",
        "  reciprocal rank  0.4167 ± 0.0833  [0.3085, 0.5335]",
    ]


def test_cutoffs_are_lengths():
    ranks = ranks_of(np.ones((1, 2)), np.eye(1, 2), np.zeros((1, 2)))
    with pytest.raises(OptionError, match="cutoffs=0 must be a whole number"):
        ranking_metrics(ranks, [5, 0])
    assert list(ranking_metrics(ranks, [5, 1, 5]).recall) == [1, 5]


def test_the_interval_of_hits_is_that_of_wilson():
    low, high = UserMean(200, 15.0, 15.0).interval
    for p in (low, high):
        assert math.isclose(abs(0.075 - p), 1.959963984540054 * math.sqrt(p * (1 - p) / 200), rel_tol=1e-12)


@pytest.mark.parametrize("mean", [UserMean(0, 0.0, 0.0), UserMean(1, 0.3, 0.09), UserMean(5, 0.0, 0.0)])
def test_few_users_tell_little(mean):
    low, high = mean.interval
    assert 0 <= low <= 0.3
    assert 0.4 < high <= 1


def test_the_interval_of_many_users_is_the_normal_one():
    values = np.random.default_rng(0).beta(2, 5, 10**6)
    mean = UserMean(len(values), values.sum(), (values**2).sum())
    assert np.isclose(mean.standard_error, values.std(ddof=1) / 1000, rtol=1e-9)
    half = 1.959963984540054 * mean.standard_error
    assert np.allclose(mean.interval, (mean.mean - half, mean.mean + half), atol=1e-3 * half)


@pytest.mark.parametrize("kind", ["hits", "rare hits", "gains", "reciprocals"])
def test_intervals_hold_the_mean_about_as_often_as_they_say(kind):
    rng = np.random.default_rng(1)
    draw, truth = {
        "hits": (lambda: rng.random((2000, 300)) < 0.3, 0.3),
        "rare hits": (lambda: rng.random((2000, 300)) < 0.02, 0.02),
        "gains": (lambda: rng.beta(0.2, 2, (2000, 300)), 1 / 11),
        "reciprocals": (lambda: 1 / rng.integers(1, 51, (2000, 300)), np.mean(1 / np.arange(1, 51))),
    }[kind]
    values = draw().astype(float)
    sums = zip(values.sum(axis=1), (values**2).sum(axis=1), strict=True)
    intervals = np.array([UserMean(300, *pair).interval for pair in sums])
    held = ((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).mean()
    assert 0.93 < held < 0.97


@settings(max_examples=60)
@given(seeds, st.sampled_from([np.float32, np.float64]), st.sampled_from([np.float32, np.float64, np.int64]))
def test_sums_of_squared_errors(seed, dtype, kind):
    rng = np.random.default_rng(seed)
    m, n, d = int(rng.integers(1, 30)), int(rng.integers(1, 30)), int(rng.integers(1, 20))
    u, v = rng.standard_normal((m, d)).astype(dtype), rng.standard_normal((n, d)).astype(dtype)
    held = rng.random((m, n)) < 0.3
    ratings = np.where(held, rng.integers(0, 6, (m, n)), 0).astype(kind)
    rows, columns = np.nonzero(held)
    matrix = sp.csr_array((ratings[held], columns, np.append(0, np.cumsum(held.sum(axis=1)))), shape=(m, n))
    a, b = rng.standard_normal(m), rng.standard_normal(n)
    found = squared_errors(u, v, matrix, user_offset=a, item_offset=b)
    errors = (ratings - (u.astype(float) @ v.T.astype(float) + a[:, None] + b)) * held
    each, count = (errors**2).sum(axis=1), held.sum(axis=1)
    assert found.users == (count > 0).sum()
    assert found.ratings == len(rows)
    expected = each.sum(), (count**2).sum(), (count * each).sum(), (each**2).sum()
    assert np.allclose([found.total, found.counts2, found.cross, found.total2], expected, rtol=1e-12)
    if found.users > 1:
        users, mean = found.users, each.sum() / count.sum()
        variance = users / (users - 1) * ((each - mean * count) ** 2).sum() / count.sum() ** 2
        assert np.isclose(found.standard_error, math.sqrt(variance / mean) / 2, rtol=1e-6)


def test_squared_errors_are_the_same_to_the_bit_whatever_the_threads():
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((5000, 10)), rng.standard_normal((50, 10))
    held = sp.random_array((5000, 50), density=0.1, rng=rng, format="csr")
    assert len({squared_errors(u, v, held, threads=t) for t in (1, 2, 7)}) == 1


def test_squared_errors_of_batches_merge_to_those_of_all():
    rng = np.random.default_rng(0)
    u, v, held = rng.standard_normal((9, 2)), rng.standard_normal((5, 2)), sp.random_array((9, 5), density=0.5, rng=rng)
    held = sp.csr_array(held)
    whole = squared_errors(u, v, held)
    merged = squared_errors(u[:4], v, held[:4]).merge(squared_errors(u[4:], v, held[4:]))
    assert (merged.users, merged.ratings) == (whole.users, whole.ratings)
    assert np.isclose(merged.rmse, whole.rmse)
    assert np.isclose(merged.standard_error, whole.standard_error)
    assert SquaredErrors.from_json(json.loads(json.dumps(whole.to_json(), allow_nan=False))) == whole


def test_the_interval_of_the_rmse_knows_that_errors_of_a_user_go_together():
    rng = np.random.default_rng(2)
    users, each, held = 300, 10, 0
    for _ in range(400):
        # A user's ratings are all off by much or all by little; users with more ratings are off by less.
        count = rng.integers(1, 2 * each, users)
        size = rng.choice([0.2, 2.0], users) / np.sqrt(count)
        square = size**2 * rng.chisquare(count)
        sums = square.sum(), (count**2).sum(), (count * square).sum(), (square**2).sum()
        low, high = SquaredErrors(users, int(count.sum()), *map(float, sums)).interval
        held += low <= math.sqrt(0.5 * (0.2**2 + 2.0**2) / each) <= high
    assert 0.91 < held / 400 < 0.985


def test_squared_errors_print_in_one_line():
    held = sp.csr_array(np.array([[4.0, 0.0], [0.0, 5.0]]))
    found = squared_errors([[1.0], [2.0]], [[3.0], [3.0]], held)
    assert str(found) == "2 held-out ratings of 2 users; RMSE 1.0000 ± 0.0000 [95 % interval 1.0000, 1.0000]"


def test_without_ratings_there_is_no_error_to_tell():
    nothing = squared_errors(np.ones((2, 1)), np.ones((3, 1)), sp.csr_array((2, 3)))
    assert math.isnan(nothing.rmse)
    assert nothing.interval == (0.0, math.inf)
    assert SquaredErrors.from_json(json.loads(json.dumps(nothing.to_json(), allow_nan=False))) == nothing


def test_what_cannot_be_compared_is_refused():
    u, v = np.ones((2, 1)), np.ones((3, 1))
    held = sp.csr_array(np.array([[1, 0, np.nan], [0, 0, 0]]))
    with pytest.raises(DataError, match="held_out: a rating is not a finite number"):
        squared_errors(u, v, held)
    with pytest.raises(DataError, match="user_factors, row 0, column 0"):
        squared_errors(u * np.nan, v, sp.csr_array(np.eye(2, 3)))
    with pytest.raises(DataError, match=r"user_offset: its shape is \(3,\), not \(2,\)"):
        squared_errors(u, v, held, user_offset=np.ones(3))
