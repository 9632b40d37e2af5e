"""Feature maps by name.

================ ===============================================================================================
auto             for kernels of the Euclidean distance sorf from SORF_INPUTS columns on, orthogonal below; orthogonal
                 for those of angles, plain for others of differences, tensorsketch for polynomial ones
orthogonal       :class:`leyden.kernel.fourier.Fourier`, and :class:`leyden.kernel.arccos.ArcCos` of arc-cosine kernels
plain            the same, frequencies or directions independent
sorf             :class:`leyden.kernel.sorf.Sorf`: orthogonal nearly, at a price that does not grow with the columns
qmc              as orthogonal, at the points of a Sobol' sequence
binning          :class:`leyden.kernel.binning.Binning`: of the Laplacian kernel; ``size`` counts its grids
nystroem         :class:`leyden.kernel.nystroem.Nystroem`: of any kernel; ``size`` is how many centres it has at most
nystroem-uniform the same, centres drawn uniformly
tensorsketch     :class:`leyden.kernel.tensorsketch.TensorSketch`: of polynomial kernels
================ ===============================================================================================
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from leyden.errors import OptionError
from leyden.kernel import nystroem, tensorsketch
from leyden.kernel.arccos import ArcCos
from leyden.kernel.binning import BITS, Binning, bits_for
from leyden.kernel.features import FeatureMap
from leyden.kernel.fourier import DRAWS, Fourier
from leyden.kernel.kernels import ARCCOS, Kernel
from leyden.kernel.nystroem import Nystroem
from leyden.kernel.points import Points
from leyden.kernel.sorf import Sorf
from leyden.kernel.tensorsketch import TensorSketch

NAMES = (*DRAWS, "sorf", "binning", *nystroem.NAMES, "tensorsketch")

#: Columns from which structured frequencies are the default.
SORF_INPUTS = 128


def chosen(name: str, kernel: Kernel, inputs: int) -> str:
    """The map that is meant."""
    if name != "auto":
        return name
    if kernel.name == "polynomial":
        return "tensorsketch"
    if kernel.radial:
        return "sorf" if inputs >= SORF_INPUTS else "orthogonal"
    return "orthogonal" if kernel.name in ARCCOS else "plain"


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
        return (ArcCos if kernel.name in ARCCOS else Fourier)(kernel, inputs, size, seed, name)
    if name == "sorf":
        return Sorf(kernel, inputs, size, seed)
    if name in nystroem.NAMES:
        return nystroem.drawn(name, kernel, size, seed, sample)
    if name == "tensorsketch":
        return TensorSketch(kernel, inputs, size, seed)
    if name == "binning":
        bits = BITS if sample is None else bits_for(kernel, inputs, size, seed, sample)
        return Binning(kernel, inputs, size, seed, bits)
    raise OptionError(f"map={name!r} is not one of auto, {', '.join(NAMES)}")


def sampled(name: str, size: int) -> int:
    """How many points such a map had better be made of."""
    return nystroem.CANDIDATES * size if name in nystroem.NAMES else 0


def flops(name: str, kernel: Kernel, inputs: int, size: int) -> float:
    """What the features of a point will cost, about."""
    if name in nystroem.NAMES:
        return nystroem.flops(inputs, size)
    if kernel.name == "polynomial":
        return tensorsketch.flops(kernel.degree, inputs, size)
    return size * ((3 * math.log2(inputs) if chosen(name, kernel, inputs) == "sorf" else inputs) + 40.0)


def drawing_flops(name: str, inputs: int, size: int, sample: int) -> float:
    """What drawing such a map from a sample will cost; nothing to speak of where no points are looked at."""
    return nystroem.drawing_flops(name, inputs, size, sample) if name in nystroem.NAMES else 0.0


def nbytes(name: str, kernel: Kernel, inputs: int, size: int, sample: int) -> tuple[float, float, float]:
    """Memory that such a map will take beside d numbers a feature, drawing it from a sample, and a thread's tiles."""
    if name in nystroem.NAMES:
        kept, drawing = nystroem.kept_nbytes(inputs, size), nystroem.drawing_nbytes(name, inputs, size, sample)
        return kept, drawing, nystroem.scratch_nbytes(size)
    return 0.0, 0.0, tensorsketch.scratch_nbytes(size) if kernel.name == "polynomial" else 0.0


def restore(data: dict[str, Any], arrays: dict[str, np.ndarray]) -> FeatureMap:
    """A map from what :meth:`FeatureMap.to_json` and :meth:`FeatureMap.arrays` gave."""
    kernel = Kernel.from_json(data["kernel"])
    if data["map"] == "points":
        return Points(kernel, arrays["points"])
    if data["map"] == "sorf":
        return Sorf(kernel, data["inputs"], data["size"], data["seed"])
    if data["map"] == "nystroem":
        return Nystroem(kernel, arrays["centres"], arrays["inverse"], data["draw"])
    if data["map"] == "tensorsketch":
        return TensorSketch(kernel, data["inputs"], data["size"], data["seed"])
    if data["map"] == "arccos":
        return ArcCos(kernel, data["inputs"], data["size"], data["seed"], data["draw"])
    if data["map"] == "binning":
        return Binning(kernel, data["inputs"], data["grids"], data["seed"], data["bits"])
    return Fourier(kernel, data["inputs"], data["size"], data["seed"], data["draw"])
