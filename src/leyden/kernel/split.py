"""Rows that are kept out of a fit, so that what is said of unseen data was measured on some."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leyden.rows.base import Block


@dataclass(frozen=True)
class Split:
    """A share of the rows, each by a hash of its number and the seed.

    Attributes
    ----------
    share : float
        Of the rows, held out.
    seed : int
    """

    share: float
    seed: int

    def rows_fitted(self, block: Block) -> np.ndarray:
        """Which rows of a block are fitted, bool (m,)."""
        return ~self._mask(block)

    def fitted(self, block: Block) -> Block:
        """The rows of a block that are fitted."""
        return block if self.share <= 0 else select(block, ~self._mask(block))

    def held_out(self, block: Block) -> Block:
        """The rows of a block that are not."""
        return select(block, self._mask(block))

    def _mask(self, block: Block) -> np.ndarray:
        if self.share <= 0:
            return np.zeros(block.rows, bool)
        return chosen(block.start, block.rows, self.seed ^ 0x5851F42D4C957F2D, self.share)


def select(block: Block, mask: np.ndarray) -> Block:
    """Some rows of a block."""
    data: Any = block.data
    return replace(
        block,
        data=data[np.flatnonzero(mask)],
        target=None if block.target is None else block.target[mask],
        weight=None if block.weight is None else block.weight[mask],
        group=None if block.group is None else block.group[mask],
    )


def chosen(first: int, count: int, seed: int, share: float) -> np.ndarray:
    """Which of the rows from ``first`` are in a sample."""
    return np.ones(count, bool) if share >= 1 else hashes(first, count, seed) < np.uint64(share * 2.0**64)


def folds_of(block: Block, folds: int, seed: int) -> np.ndarray:
    """The fold of each row of a block."""
    return (hashes(block.start, block.rows, seed ^ 0x2545F4914F6CDD1D) % np.uint64(folds)).astype(np.intp)


def hashes(first: int, count: int, seed: int) -> np.ndarray:
    """Random bits for the rows from ``first``, uint64."""
    return hash_of(np.arange(first, first + count), seed)


def hash_of(numbers: np.ndarray, seed: int) -> np.ndarray:
    """Random bits for rows by their numbers (Steele, Lea and Flood 2014), uint64."""
    with np.errstate(over="ignore"):
        h = numbers.astype(np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
    return h ^ (h >> np.uint64(31))
