"""Points as kernels see them: columns on one scale, and the width at which their distances tell something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import options as check
from leyden.errors import OptionError
from leyden.kernel.frequencies import generator
from leyden.kernel.kernels import Kernel

#: Pairs of points whose distances are looked at.
PAIRS = 4096


@dataclass(frozen=True, eq=False)
class Standard:
    """Columns shifted and scaled: ``x -> (x − shift) scale``.

    Attributes
    ----------
    shift, scale : float64, shape (d,)
    """

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def none(cls, d: int) -> Standard:
        """Columns as they are."""
        return cls(np.zeros(d), np.ones(d))

    def into(self, data: Any, out: np.ndarray) -> None:
        """The rows of an array or a sparse matrix, standardised in float64 and rounded once, into float32 ``out``."""
        dense = data if isinstance(data, np.ndarray) else data.toarray()
        np.subtract(dense, self.shift, out=out, casting="same_kind", dtype=np.float64)
        np.multiply(out, self.scale, out=out, casting="same_kind", dtype=np.float64)

    def __call__(self, data: Any) -> np.ndarray:
        """Standardised rows, float32."""
        out = np.empty(data.shape, np.float32)
        self.into(data, out)
        return out


def as_width(width: Any, names: tuple[str, ...]) -> Any:
    """A way to find widths, by name, a positive number, or one for each column."""
    if isinstance(width, str):
        return check.one_of("width", width, names)
    if np.ndim(width) == 0:
        return check.positive("width", width)
    array = np.asarray(width, np.float64)
    if array.ndim != 1 or not (np.isfinite(array) & (array > 0)).all():
        raise OptionError("width is to be a positive number, or one for each column")
    return array


def median_width(name: str, points: np.ndarray, seed: int = 0) -> float:
    """The median distance of pairs of standardised points (m, d), as the kernel of that name measures distance.

    One when all points are the same. Pairs of equal points do not count.
    """
    random = generator(seed, 0, what=1)
    first, second = random.integers(0, len(points), (2, PAIRS))
    distances = Kernel(name).distances(points[first], points[second])
    distances = distances[distances > 0]
    return float(np.median(distances)) if len(distances) else 1.0
