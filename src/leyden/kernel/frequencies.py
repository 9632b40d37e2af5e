r"""Frequencies of Fourier features: draws from the distribution of a kernel (:mod:`leyden.kernel.kernels`).

===========  ===========================================================================================================
orthogonal   blocks of d frequencies along the columns of a random rotation, their lengths drawn as if they were
             independent: the same kernel, and for the Gaussian one a smaller variance (Yu, Suresh, Choromanski,
             Holtmann-Rice and Kumar 2016)
plain        independent draws (Rahimi and Recht 2007)
qmc          points of a scrambled Sobol' sequence, in place of independent uniform numbers (Avron, Sindhwani, Yang and
             Mahoney 2016): for few columns
===========  ===========================================================================================================

Frequencies come in blocks, each from a counter-based generator of its own (Philox, Salmon et al. 2011): a block can be
made again anywhere, and the first frequencies are the same whatever their number.
"""

from __future__ import annotations

import math

import numpy as np

from leyden.kernel.kernels import RADIAL, Kernel

#: Frequencies that independent draws are made at a time.
BLOCK = 256


def generator(seed: int, block: int, what: int = 0) -> np.random.Generator:
    """The random numbers of a block."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, (what << 48) + block], np.uint64)))


def plain(kernel: Kernel, d: int, count: int, seed: int) -> np.ndarray:
    """Independent frequencies, float64 (d, count), in radians."""
    parts = []
    for block in range(-(-count // BLOCK)):
        random = generator(seed, block)
        if kernel.name == "laplacian":
            w = random.standard_cauchy((d, BLOCK))
        elif kernel.name == "cauchy":
            w = random.laplace(size=(d, BLOCK))
        else:
            w = random.standard_normal((d, BLOCK)) * stretch(kernel, random, BLOCK)
        parts.append(w)
    return _scaled(kernel, np.concatenate(parts, axis=1)[:, :count])


def orthogonal(kernel: Kernel, d: int, count: int, seed: int) -> np.ndarray:
    """Frequencies orthogonal to one another in blocks of d, float64 (d, count), in radians."""
    parts = []
    for block in range(-(-count // d)):
        random = generator(seed, block)
        q, r = np.linalg.qr(random.standard_normal((d, d)))
        # Signs that make the rotation uniformly distributed (Mezzadri 2007).
        q *= np.sign(np.diag(r))
        lengths = np.sqrt(random.chisquare(d, d)) * stretch(kernel, random, d)
        parts.append(q * lengths)
    return _scaled(kernel, np.concatenate(parts, axis=1)[:, :count])


def quasi(kernel: Kernel, d: int, count: int, seed: int) -> np.ndarray:
    """Frequencies at the points of a scrambled Sobol' sequence, float64 (d, count), in radians."""
    from scipy.special import ndtri
    from scipy.stats import chi2
    from scipy.stats.qmc import Sobol

    degrees = RADIAL.get(kernel.name, math.inf)
    extra = int(math.isfinite(degrees))
    points = Sobol(d + extra, rng=np.random.default_rng(seed)).random(2 ** math.ceil(math.log2(count)))[:count]
    u = np.clip(points.T, 1e-16, 1 - 1e-16)
    if kernel.name == "laplacian":
        w = np.tan(math.pi * (u - 0.5))
    elif kernel.name == "cauchy":
        w = np.sign(u - 0.5) * -np.log1p(-np.abs(2 * u - 1))
    else:
        w = ndtri(u[:d])
        if extra:
            w = w * np.sqrt(degrees / chi2.ppf(u[d], degrees))
    return _scaled(kernel, w)


def stretch(kernel: Kernel, random: np.random.Generator, count: int) -> np.ndarray:
    """What turns normal frequencies into those of a Matérn kernel: Student's t is normal over an independent χ."""
    degrees = RADIAL[kernel.name]
    return np.sqrt(degrees / random.chisquare(degrees, count)) if math.isfinite(degrees) else np.ones(count)


def _scaled(kernel: Kernel, w: np.ndarray) -> np.ndarray:
    return w / (kernel.width if np.ndim(kernel.width) == 0 else np.asarray(kernel.width)[:, None])
