"""Compiled kernels of ratings: decoding and encoding planes, merging duplicates, splitting, numbering again.

Each has a plain NumPy twin in the tests.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Rules for ratings of one item by one user, in the order of :data:`leyden.rows.ingest_merge.RULES`.
LAST, SUM, MEAN = 0, 1, 2


@njit(nogil=True, cache=True)
def join_halves(low, high, out):
    """``out = low + 2¹⁶ high``, int32 of uint16 and uint8 or uint16; the largest."""
    largest = np.int32(0)
    for k in range(len(out)):
        out[k] = np.int32(low[k]) | (np.int32(high[k]) << np.int32(16))
        largest = max(largest, out[k])
    return largest


@njit(nogil=True, cache=True)
def widen(low, out):
    """``out = low``, int32 of uint16; the largest."""
    largest = np.int32(0)
    for k in range(len(out)):
        out[k] = low[k]
        largest = max(largest, out[k])
    return largest


@njit(nogil=True, cache=True)
def look_up(codes, levels, out):
    """``out = levels[codes]``, float32 of uint8; ``levels`` (256,)."""
    for k in range(len(out)):
        out[k] = levels[codes[k]]


@njit(nogil=True, cache=True)
def encode(values, levels, codes):
    """``codes`` with ``levels[codes] = values``, for increasing levels; the first place that has no level, or -1.

    Levels are often as far apart as half stars are: a level is first looked for where it would be then.
    """
    n = len(levels)
    scale = (n - 1) / (levels[-1] - levels[0]) if n > 1 else 0.0
    for k in range(len(values)):
        guess = (values[k] - levels[0]) * scale + 0.5
        if 0 <= guess < n and levels[int(guess)] == values[k]:
            codes[k] = int(guess)
            continue
        low, high = 0, n
        while low < high:
            middle = (low + high) >> 1
            if levels[middle] < values[k]:
                low = middle + 1
            else:
                high = middle
        if low == n or levels[low] != values[k]:
            return k
        codes[k] = low
    return -1


@njit(nogil=True, cache=True)
def count_items(counts, items, totals):
    """Add each user's items to ``totals``; the first user with an item that is out of range or order, or -1."""
    k = 0
    for i in range(len(counts)):
        before = -1
        for _ in range(counts[i]):
            j = items[k]
            if j <= before or j >= len(totals):
                return i
            totals[j] += 1
            before = j
            k += 1
    return -1


@njit(nogil=True, cache=True)
def _sort(keys, count):
    """Sort the first ``count`` keys: by insertion when they are few."""
    if count > 40:
        keys[:count].sort()
        return
    for a in range(1, count):
        key = keys[a]
        b = a
        while b and keys[b - 1] > key:
            keys[b] = keys[b - 1]
            b -= 1
        keys[b] = key


@njit(nogil=True, cache=True)
def renumber(counts, items, values, number, keys, kept):
    """``items = number[items]`` and each user's ratings sorted by item again, in place.

    ``keys`` uint64 and ``kept`` float32, each as long as the longest user.
    """
    start = 0
    for i in range(len(counts)):
        m = counts[i]
        for k in range(m):
            keys[k] = (np.uint64(number[items[start + k]]) << np.uint64(32)) | np.uint64(k)
            kept[k] = values[start + k]
        _sort(keys, m)
        for k in range(m):
            items[start + k] = keys[k] >> np.uint64(32)
            values[start + k] = kept[keys[k] & np.uint64(0xFFFFFFFF)]
        start += m


@njit(nogil=True, cache=True)
def merge(counts, items, values, times, rows, rule, out_items, out_values, out_times, out_rows):
    """Ratings with those of one item by one user made one; how many there are then.

    Each user's ratings come sorted by item, time and row; ``times`` is empty when there are none. Of ratings made one
    the last gives time and row, and with the rule ``LAST`` the value. ``counts`` become those of the merged ratings.
    The outputs may be the inputs.
    """
    start, n = 0, 0
    timed = len(times) > 0
    for i in range(len(counts)):
        stop, first = start + counts[i], n
        while start < stop:
            end, total = start + 1, np.float64(values[start])
            while end < stop and items[end] == items[start]:
                total += values[end]
                end += 1
            item, value = items[start], values[end - 1]
            if rule == SUM:
                value = total
            elif rule == MEAN:
                value = total / (end - start)
            out_items[n], out_values[n], out_rows[n] = item, value, rows[end - 1]
            if timed:
                out_times[n] = times[end - 1]
            n += 1
            start = end
        counts[i] = n - first
    return n


@njit(nogil=True, cache=True)
def _after(times, rows, timed, a, b):
    if timed and times[a] != times[b]:
        return times[a] > times[b]
    return rows[a] > rows[b]


@njit(nogil=True, cache=True)
def last_of_users(counts, times, rows, held):
    """``held`` is true for the latest rating of each user, by time where there are times, and by row."""
    start = 0
    timed = len(times) > 0
    for i in range(len(counts)):
        if counts[i]:
            last = start
            for k in range(start, start + counts[i]):
                held[k] = False
                if _after(times, rows, timed, k, last):
                    last = k
            held[last] = True
        start += counts[i]


@njit(nogil=True, cache=True)
def _mixed(x):
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(nogil=True, cache=True)
def draw(counts, items, user, seed, threshold, held):
    """``held`` is true where the hash of seed, user and item is below ``threshold``; ``user`` numbers the first one.

    Each rating is drawn by itself: the same whatever others there are, in whatever blocks.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    start = 0
    for i in range(len(counts)):
        key = _mixed(_mixed(seed + golden) + golden * np.uint64(user + i + 1))
        for k in range(start, start + counts[i]):
            held[k] = _mixed(key + golden * np.uint64(items[k] + 1)) < threshold
        start += counts[i]


@njit(nogil=True, cache=True)
def split_counts(counts, held, kept, out):
    """How many of each user's ratings are kept, and how many held out."""
    start = 0
    for i in range(len(counts)):
        m = 0
        for k in range(start, start + counts[i]):
            m += held[k]
        out[i], kept[i] = m, counts[i] - m
        start += counts[i]
