"""Kernels of ratings against plain NumPy and Python."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from leyden.rows import _ratings_kernels as kernels

COUNTS = hnp.arrays(np.int64, st.integers(1, 8), elements=st.integers(0, 50))
SEEDS = st.integers(0, 2**32 - 1)


def users(counts, seed, items=1000, twice=False):
    """Items of each user in order: all different, or some twice."""
    random = np.random.default_rng(seed)
    parts = [np.sort(random.choice(items, m, replace=twice)) for m in counts]
    return np.concatenate([*parts, []]).astype(np.int32)


@given(items=hnp.arrays(np.int32, st.integers(0, 70), elements=st.integers(0, 2**31 - 1)))
def test_halves_are_joined(items):
    out = np.empty(len(items), np.int32)
    largest = kernels.join_halves(items.astype(np.uint16), (items >> 16).astype(np.uint16), out)
    np.testing.assert_array_equal(out, items)
    assert largest == items.max(initial=0)
    assert kernels.widen(items.astype(np.uint16), out) == (items % 2**16).max(initial=0)
    np.testing.assert_array_equal(out, items % 2**16)


@given(
    levels=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=256, unique=True),
    seed=SEEDS,
)
def test_values_are_encoded_as_their_places_among_the_levels(levels, seed):
    levels = np.unique(np.array(levels, np.float32))
    values = np.random.default_rng(seed).choice(levels, 100)
    codes = np.empty(len(values), np.uint8)
    assert kernels.encode(values, levels, codes) == -1
    np.testing.assert_array_equal(levels[codes], values)
    table, out = np.full(256, np.nan, np.float32), np.empty(len(values), np.float32)
    table[: len(levels)] = levels
    kernels.look_up(codes, table, out)
    np.testing.assert_array_equal(out, values)


@given(place=st.integers(0, 99), value=st.sampled_from([0.25, -1, 11, np.nan, np.inf]))
def test_a_value_that_is_no_level_is_found(place, value):
    levels = np.arange(11, dtype=np.float32)
    values = np.random.default_rng(0).choice(levels, 100)
    values[place] = value
    assert kernels.encode(values, levels, np.empty(100, np.uint8)) == place


@given(counts=COUNTS, seed=SEEDS)
def test_items_are_counted(counts, seed):
    items, totals = users(counts, seed), np.zeros(1000, np.int64)
    assert kernels.count_items(counts, items, totals) == -1
    np.testing.assert_array_equal(totals, np.bincount(items, minlength=1000))


def test_items_out_of_order_or_range_are_found():
    totals = np.zeros(5, np.int64)
    for items in ([0, 1, 3, 3], [0, 1, 4, 2], [0, 1, 2, 5], [0, 1, -1, 3]):
        assert kernels.count_items(np.array([2, 0, 2]), np.array(items, np.int32), totals) == 2


@given(counts=hnp.arrays(np.int64, st.integers(1, 8), elements=st.integers(0, 200)), seed=SEEDS)
def test_items_are_numbered_again_and_sorted_with_their_values(counts, seed):
    items, random = users(counts, seed), np.random.default_rng(seed)
    values, number = random.random(len(items), np.float32), random.permutation(1000).astype(np.int32)
    ends = np.cumsum(counts)[:-1]
    expected = [
        sorted(zip(number[i], v, strict=True))
        for i, v in zip(np.split(items, ends), np.split(values, ends), strict=True)
    ]
    most = int(counts.max())
    kernels.renumber(counts, items, values, number, np.empty(most, np.uint64), np.empty(most, np.float32))
    assert list(zip(items, values, strict=True)) == [pair for user in expected for pair in user]


@given(counts=COUNTS, seed=SEEDS, rule=st.integers(0, 2), timed=st.booleans())
def test_duplicates_are_merged_by_their_rule(counts, seed, rule, timed):
    items, random = users(counts, seed, items=20, twice=True), np.random.default_rng(seed)
    n = len(items)
    values, rows = random.random(n, np.float32), np.arange(n)
    times = np.arange(n) * 10 if timed else np.empty(0, np.int64)
    expected: dict[tuple[int, int], list[int]] = {}
    for k, user in enumerate(np.repeat(np.arange(len(counts)), counts)):
        expected.setdefault((int(user), int(items[k])), []).append(k)
    fold = [lambda v: v[-1], sum, lambda v: sum(v) / len(v)][rule]
    merged, out = counts.copy(), [np.empty_like(a) for a in (items, values, times, rows)]
    kept = kernels.merge(merged, items, values, times, rows, rule, *out)
    assert kept == len(expected)
    of_user = np.repeat(np.arange(len(counts)), merged)
    assert list(zip(of_user, out[0][:kept], strict=True)) == list(expected)
    np.testing.assert_array_equal(
        out[1][:kept], np.array([fold(values[k].astype(float)) for k in expected.values()], np.float32)
    )
    np.testing.assert_array_equal(out[3][:kept], [k[-1] for k in expected.values()])
    if timed:
        np.testing.assert_array_equal(out[2][:kept], [10 * k[-1] for k in expected.values()])


@given(counts=COUNTS, seed=SEEDS, timed=st.booleans())
def test_the_last_of_each_user_is_found_by_time_and_then_by_row(counts, seed, timed):
    random, n = np.random.default_rng(seed), int(counts.sum())
    rows, held = random.permutation(n), np.empty(n, bool)
    times = random.integers(0, 5, n) if timed else np.empty(0, np.int64)
    kernels.last_of_users(counts, times, rows, held)
    of_user = np.repeat(np.arange(len(counts)), counts)
    key = times * n + rows if timed else rows
    assert held.sum() == (counts > 0).sum()
    for user in np.unique(of_user):
        assert key[held & (of_user == user)] == key[of_user == user].max()


def mixed(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


@given(counts=COUNTS, seed=SEEDS, user=st.integers(0, 2**40), share=st.integers(0, 2**64 - 1))
def test_ratings_are_drawn_by_a_hash_of_seed_user_and_item(counts, seed, user, share):
    items, golden = users(counts, seed), 0x9E3779B97F4A7C15
    held = np.empty(len(items), bool)
    kernels.draw(counts, items, user, np.uint64(seed), np.uint64(share), held)
    first = mixed((seed + golden) % 2**64)
    of_user = [user + int(i) for i in np.repeat(np.arange(len(counts)), counts)]
    keys = [mixed((first + golden * (u + 1)) % 2**64) for u in of_user]
    expected = [mixed((key + golden * (int(j) + 1)) % 2**64) < share for key, j in zip(keys, items, strict=True)]
    assert held.tolist() == expected


def test_draws_are_as_many_as_asked_for_whatever_the_user_and_the_item():
    counts, items = np.full(1000, 1000), np.tile(np.arange(1000, dtype=np.int32), 1000)
    held = np.empty(10**6, bool)
    kernels.draw(counts, items, 0, np.uint64(0), np.uint64(0.1 * 2**64), held)
    square = held.reshape(1000, 1000)
    for shares in (square.mean(axis=0), square.mean(axis=1)):
        assert abs(shares.mean() - 0.1) < 5 * 0.3 / 1000
        assert abs(shares - 0.1).max() < 5 * 0.3 / 1000**0.5


@given(counts=COUNTS, seed=SEEDS)
def test_counts_are_split_as_the_ratings_are(counts, seed):
    held = np.random.default_rng(seed).random(int(counts.sum())) < 0.3
    kept, out = np.empty_like(counts), np.empty_like(counts)
    kernels.split_counts(counts, held, kept, out)
    of_user = np.repeat(np.arange(len(counts)), counts)
    np.testing.assert_array_equal(out, np.bincount(of_user[held], minlength=len(counts)))
    np.testing.assert_array_equal(kept + out, counts)
