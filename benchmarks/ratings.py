"""Ratings made up: who rated what follows power laws, and there is something to learn in it.

Everything is made in blocks of users, each from the random numbers of its own number: the same seed gives the same
ratings, whatever was made before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

BLOCK = 25_000
ITEMS = 2**32
ROUNDS = 8


@dataclass(frozen=True)
class Explicit:
    """Ratings to learn from, ratings held out, and the standard deviation of the noise in both."""

    train: sp.csr_array
    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    noise: float

    def rmse(self, predicted: np.ndarray) -> float:
        """Of the held-out ratings."""
        return float(np.sqrt(np.mean((predicted.astype(np.float64) - self.ratings) ** 2)))


def implicit(users: int, items: int, mean: float, clusters: int, seed: int = 0) -> sp.csr_array:
    """Counts of what each user took: float32, sorted, no item twice in a row.

    Items belong to clusters and each user likes three of them: 48 %, 20 % and 12 % of what is first picked for a user
    comes from these, the rest from all items; items that would come twice are picked again from all. Popularity falls
    like 1/(rank + 1/200 of the items), among all items and within a cluster. Counts are 1 with probability 0.65 and
    fall like count^-2.5.

    Parameters
    ----------
    users, items : int
    mean : float
        Items per user; from mean/8 up, in a power law whose median is about half the mean.
    clusters : int
    seed : int
    """
    order = _random(seed, ITEMS).permutation(items)

    def block(rng: np.random.Generator, degree: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        liked = rng.integers(clusters, size=(len(degree), 3))

        def pick(rows: np.ndarray, first: bool) -> np.ndarray:
            anywhere = _popular(rng, len(rows), items)
            if not first:
                return order[anywhere]
            which = np.searchsorted([0.48, 0.68, 0.8], rng.random(len(rows)))
            cluster = liked[rows, np.minimum(which, 2)]
            within = _popular(rng, len(rows), items // clusters) * clusters + cluster
            return order[np.where(which == 3, anywhere, within)]

        keys = _distinct(degree, items, pick)
        counts = np.minimum(rng.random(len(keys)) ** (-1 / 1.5), 100)
        return keys, np.floor(counts).astype(np.float32)

    return _stacked(users, items, mean, seed, block)


def explicit(
    users: int,
    items: int,
    mean: float,
    *,
    rank: int = 10,
    centre: float = 3.5,
    signal: float = 0.7,
    noise: float = 0.75,
    held_out: float = 0.1,
    seed: int = 0,
) -> Explicit:
    """Ratings ``centre + u·v + noise``, normal all three; items by popularity, users as in :func:`implicit`.

    Parameters
    ----------
    users, items : int
    mean : float
        Ratings per user, held-out ones included.
    rank : int
        Length of u and v; each factor has 0.8 times the standard deviation of the one before it.
    centre : float
    signal, noise : float
        Standard deviations of u·v and of the noise.
    held_out : float
        Share of the ratings.
    seed : int
    """
    scale = 0.8 ** np.arange(rank)
    scale = np.sqrt(signal * scale / np.linalg.norm(scale))
    rng = _random(seed, ITEMS)
    order = rng.permutation(items)
    v = (rng.standard_normal((items, rank)) * scale).astype(np.float32)

    def block(rng: np.random.Generator, degree: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = (rng.standard_normal((len(degree), rank)) * scale).astype(np.float32)
        keys = _distinct(degree, items, lambda rows, first: order[_popular(rng, len(rows), items)])
        rows, columns = np.divmod(keys, items)
        ratings = centre + np.einsum("ij,ij->i", u[rows], v[columns])
        return keys, ratings + noise * rng.standard_normal(len(keys), dtype=np.float32)

    ratings = _stacked(users, items, mean, seed, block).tocoo()
    held = _random(seed, ITEMS + 1).random(ratings.nnz) < held_out
    row, column = ratings.coords
    train = sp.csr_array((ratings.data[~held], (row[~held], column[~held])), shape=(users, items))
    return Explicit(train, row[held], column[held], ratings.data[held], noise)


def _random(seed: int, block: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, block]))


def _stacked(users: int, items: int, mean: float, seed: int, block: Callable) -> sp.csr_array:
    """Blocks of users one below the other; ``block`` gives sorted keys ``user × items + item`` and values."""
    counts, indices, data = [np.zeros(1, np.int64)], [], []
    for i, start in enumerate(range(0, users, BLOCK)):
        rng = _random(seed, i)
        degree = _degrees(rng, min(BLOCK, users - start), items, mean)
        keys, values = block(rng, degree)
        row, column = np.divmod(keys, items)
        counts.append(np.bincount(row, minlength=len(degree)))
        indices.append(column.astype(np.int32))
        data.append(values)
    indptr = np.cumsum(np.concatenate(counts)).astype(np.int32)
    stacked = sp.csr_array((np.concatenate(data), np.concatenate(indices), indptr), shape=(users, items))
    stacked.has_canonical_format = True
    return stacked


def _degrees(rng: np.random.Generator, users: int, items: int, mean: float) -> np.ndarray:
    """Numbers of items: 1/8 of the mean for everyone, the rest by a Lomax law of exponent 2, to 1/4 of the items."""
    most = items / 4 / mean
    tail = np.minimum(rng.pareto(2.0, users), most) / (1 - 1 / (1 + most))
    degree = np.floor(mean * (1 / 8 + 7 / 8 * tail) + rng.random(users)).astype(np.int64)
    return np.clip(degree, 1, items // 4)


def _popular(rng: np.random.Generator, n: int, items: int) -> np.ndarray:
    """Items with probability proportional to 1/(item + items/200)."""
    flat = items / 200
    return np.minimum(flat * (1 + items / flat) ** rng.random(n) - flat, items - 1).astype(np.int64)


def _distinct(degree: np.ndarray, items: int, pick: Callable[[np.ndarray, bool], np.ndarray]) -> np.ndarray:
    """``degree`` different items for each user (a few less if they cannot be found in some rounds), as sorted keys."""
    keys = np.empty(0, np.int64)
    for i in range(ROUNDS):
        rows = np.repeat(np.arange(len(degree)), degree - np.bincount(keys // items, minlength=len(degree)))
        if not len(rows):
            break
        more = np.sort(rows * items + pick(rows, i == 0))
        keys = np.sort(np.concatenate([keys, more]), kind="stable")  # merges the two
        keys = keys[np.diff(keys, prepend=-1) > 0]
    return keys
