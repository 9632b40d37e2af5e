"""Reductions: mergeable folds over row blocks."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np

from leyden.rows.base import Block

S = TypeVar("S")
R = TypeVar("R")


class Reduction(ABC, Generic[S, R]):
    """A monoid over row blocks: ``start`` is neutral, ``merge`` is associative to rounding.

    One reduction object serves many threads: what belongs to a fold lives in its state, what belongs to a thread in
    :class:`Scratch`.
    """

    @abstractmethod
    def start(self) -> S:
        """The state of no rows."""

    @abstractmethod
    def update(self, state: S, block: Block) -> S:
        """The state with the rows of ``block`` added; may reuse ``state``."""

    @abstractmethod
    def merge(self, a: S, b: S) -> S:
        """The state of the rows of ``a`` followed by those of ``b``; may reuse either."""

    @abstractmethod
    def finish(self, state: S) -> R:
        """The result."""

    @property
    @abstractmethod
    def state_nbytes(self) -> int:
        """Memory that one state takes."""

    @property
    def scratch_nbytes(self) -> int:
        """Memory that one thread needs besides its state."""
        return 0


class Scratch(threading.local):
    """Arrays that a thread makes once and reuses: first touch of memory costs more than the arithmetic done in it."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """An array with arbitrary contents; the same memory for the same name and shape."""
        found = self._arrays.get(name)
        if found is None or found.shape != shape or found.dtype != dtype:
            found = self._arrays[name] = np.empty(shape, dtype)
        return found

    def __reduce__(self) -> tuple[type[Scratch], tuple[()]]:
        return Scratch, ()
