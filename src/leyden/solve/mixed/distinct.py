"""Different values of a stream, in memory of their number."""

from __future__ import annotations

import numpy as np

#: Values that are held until it is looked which of them are new.
HELD = 2**17


class Distinct:
    """Different whole numbers of a stream, which are sorted now and then.

    Sorting waits until as many numbers have come as are known, so each takes part in a few sorts.
    """

    def __init__(self) -> None:
        self._known = np.empty(0, np.int64)
        self._new: list[np.ndarray] = []
        self._held = 0

    def add(self, values: np.ndarray) -> None:
        """More numbers, in any order."""
        values = np.unique(values).astype(np.int64, copy=False)
        self._new.append(values)
        self._held += len(values)
        if self._held > max(HELD, len(self._known)):
            self._merge()

    @property
    def nbytes(self) -> int:
        """Memory for what is known so far, and for sorting more into it."""
        return 6 * self._known.nbytes

    def _merge(self) -> None:
        self._known = np.unique(np.concatenate([self._known, *self._new]))
        self._new, self._held = [], 0

    def values(self) -> np.ndarray:
        """All, in increasing order."""
        self._merge()
        return self._known
