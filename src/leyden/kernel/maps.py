"""Feature maps by name.

===============  ===============================================================================================
auto             orthogonal for kernels of the Euclidean distance, plain for the others
orthogonal       :class:`leyden.kernel.fourier.Fourier`
plain            the same, frequencies independent
qmc              the same, frequencies at the points of a Sobol' sequence
===============  ===============================================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np

from leyden.errors import OptionError
from leyden.kernel.features import FeatureMap
from leyden.kernel.fourier import DRAWS, Fourier
from leyden.kernel.kernels import Kernel


def make(
    name: str, kernel: Kernel, inputs: int, size: int, seed: int = 0, *, sample: np.ndarray | None = None
) -> FeatureMap:
    """A map of points (inputs) to ``size`` features.

    Parameters
    ----------
    name : str
    kernel : Kernel
    inputs, size, seed : int
    sample : float32, shape (s, inputs), optional
        Standardised points, for maps that are made of some.
    """
    if name == "auto":
        name = "orthogonal" if kernel.radial else "plain"
    if name in DRAWS:
        return Fourier(kernel, inputs, size, seed, name)
    raise OptionError(f"map={name!r} is not one of auto, {', '.join(DRAWS)}")


def restore(data: dict[str, Any], arrays: dict[str, np.ndarray]) -> FeatureMap:
    """A map from what :meth:`FeatureMap.to_json` and :meth:`FeatureMap.arrays` gave."""
    kernel = Kernel.from_json(data["kernel"])
    return Fourier(kernel, data["inputs"], data["size"], data["seed"], data["draw"])
