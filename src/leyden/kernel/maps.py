"""Feature maps by name.

===============  ===============================================================================================
auto             for kernels of the Euclidean distance sorf from SORF_INPUTS columns on, orthogonal below; plain for
                 the others
orthogonal       :class:`leyden.kernel.fourier.Fourier`
plain            the same, frequencies independent
sorf             :class:`leyden.kernel.sorf.Sorf`: orthogonal nearly, at a price that does not grow with the columns
qmc              the same, frequencies at the points of a Sobol' sequence
binning          :class:`leyden.kernel.binning.Binning`: of the Laplacian kernel; ``size`` counts its grids
===============  ===============================================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np

from leyden.errors import OptionError
from leyden.kernel.binning import BITS, Binning, bits_for
from leyden.kernel.features import FeatureMap
from leyden.kernel.fourier import DRAWS, Fourier
from leyden.kernel.kernels import Kernel
from leyden.kernel.points import Points
from leyden.kernel.sorf import Sorf

NAMES = (*DRAWS, "sorf", "binning")

#: Columns from which structured frequencies are the default.
SORF_INPUTS = 128


def chosen(name: str, kernel: Kernel, inputs: int) -> str:
    """The map that is meant."""
    if name != "auto":
        return name
    return "plain" if not kernel.radial else "sorf" if inputs >= SORF_INPUTS else "orthogonal"


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
    name = chosen(name, kernel, inputs)
    if name in DRAWS:
        return Fourier(kernel, inputs, size, seed, name)
    if name == "sorf":
        return Sorf(kernel, inputs, size, seed)
    if name == "binning":
        bits = BITS if sample is None else bits_for(kernel, inputs, size, seed, sample)
        return Binning(kernel, inputs, size, seed, bits)
    raise OptionError(f"map={name!r} is not one of auto, {', '.join(NAMES)}")


def restore(data: dict[str, Any], arrays: dict[str, np.ndarray]) -> FeatureMap:
    """A map from what :meth:`FeatureMap.to_json` and :meth:`FeatureMap.arrays` gave."""
    kernel = Kernel.from_json(data["kernel"])
    if data["map"] == "points":
        return Points(kernel, arrays["points"])
    if data["map"] == "sorf":
        return Sorf(kernel, data["inputs"], data["size"], data["seed"])
    if data["map"] == "binning":
        return Binning(kernel, data["inputs"], data["grids"], data["seed"], data["bits"])
    return Fourier(kernel, data["inputs"], data["size"], data["seed"], data["draw"])
