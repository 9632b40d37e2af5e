"""Arrays that begin on a cache line.

NumPy's begin anywhere. A row of factors, or a vector of 64 bytes, then lies on one line more than it needs to: where
memory is far away, or every load is a vector, each line counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Bytes of a cache line, and of the longest vector.
LINE = 64


def empty(shape: int | tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """An array with arbitrary contents."""
    return _on_a_line(np.empty, shape, np.dtype(dtype))


def zeros(shape: int | tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """An array of zeros."""
    return _on_a_line(np.zeros, shape, np.dtype(dtype))


def copy(a: np.ndarray, dtype: Any = None) -> np.ndarray:
    """The same numbers, of another type if one is given, in rows one after the other."""
    found = empty(a.shape, a.dtype if dtype is None else dtype)
    found[...] = a
    return found


def _on_a_line(make: Any, shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    nbytes = int(np.prod(shape)) * dtype.itemsize
    memory: np.ndarray = make(nbytes + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return memory[first : first + nbytes].view(dtype).reshape(shape)
