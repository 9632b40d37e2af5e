"""Reductions: mergeable folds over row blocks."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from leyden import aligned
from leyden.rows.base import Block

S = TypeVar("S")
R = TypeVar("R")


class Reduction(ABC, Generic[S, R]):
    """A monoid over row blocks: ``start`` is neutral, ``merge`` is associative to rounding.

    One reduction object serves many threads: what belongs to a fold lives in its state, what belongs to a thread in
    :class:`Scratch`. It is pickled to travel to other processes, and so are its states. A state is an array, or a
    dataclass of arrays and numbers: :meth:`to_arrays` and :meth:`from_arrays` then know how to keep it on disk.

    Attributes
    ----------
    parallel : bool
        Whether ``update`` works on a block with threads of its own: one block is then folded at a time, into one state,
        as suits a state too large to be had several times.
    block_nbytes : int
        Bytes that a block had better have; zero leaves it to the layout.
    """

    parallel = False
    block_nbytes = 0

    @abstractmethod
    def start(self) -> S:
        """The state of no rows."""

    @abstractmethod
    def update(self, state: S, block: Block) -> S:
        """The state with the rows of ``block`` added; may reuse ``state``."""

    @abstractmethod
    def merge(self, a: S, b: S) -> S:
        """The state of the rows of ``a`` followed by those of ``b``; may reuse ``a``, and leaves ``b`` as it is."""

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

    def to_arrays(self, state: S) -> dict[str, np.ndarray]:
        """The state as named arrays."""
        if isinstance(state, np.ndarray):
            return {"state": state}
        if is_dataclass(state):
            return {field.name: np.asarray(getattr(state, field.name)) for field in fields(state)}
        raise TypeError(f"a state of type {type(state).__name__} is neither an array nor a dataclass")

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> S:
        """Inverse of :meth:`to_arrays`."""
        kind: Any = type(self.start())
        if kind is np.ndarray:
            return arrays["state"]  # type: ignore[return-value]  # S is an array
        values = {name: array.item() if array.ndim == 0 else array for name, array in arrays.items()}
        return kind(**values)


def digest(reductions: Sequence[Reduction[Any, Any]]) -> str:
    """A hash of all that reductions compute with: two runs whose digests agree compute the same sums."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype}{value.shape}".encode())
            found.update(np.ascontiguousarray(value).data)
        elif isinstance(value, list | tuple):
            found.update(f"{len(value)}".encode())
            for item in value:
                add(item)
        elif hasattr(value, "__dict__") and not isinstance(value, Scratch):
            found.update(type(value).__qualname__.encode())
            for name, item in sorted(vars(value).items()):
                found.update(name.encode())
                add(item)
        elif not isinstance(value, Scratch):
            found.update(repr(value).encode())

    add(list(reductions))
    return found.hexdigest()


class Scratch(threading.local):
    """Arrays that a thread makes once and reuses: first touch of memory costs more than the arithmetic done in it."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """An array with arbitrary contents; the same memory for the same name and shape."""
        found = self._arrays.get(name)
        if found is None or found.shape != shape or found.dtype != dtype:
            found = self._arrays[name] = aligned.empty(shape, dtype)
        return found

    def zeros(self, name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """As :meth:`array`, with zeros when it is first made."""
        found = self._arrays.get(name)
        if found is None or found.shape != shape or found.dtype != dtype:
            found = self._arrays[name] = aligned.zeros(shape, dtype)
        return found

    def __reduce__(self) -> tuple[type[Scratch], tuple[()]]:
        return Scratch, ()
