"""Kernels of structured orthogonal features."""

from __future__ import annotations

from numba import njit

from leyden.kernel._fourier_vectors import LANES
from leyden.kernel._sorf_vectors import (
    CHUNK,
    TRANSFORMS,
    cross_four,
    cross_two,
    mix_chunk,
    rotate_all,
    rotate_halves,
    rotate_quarters,
    turn_vector,
)

#: The first digits of the hash of what this file is compiled from, beside itself: numba looks for changes in it alone.
COMPILED_FROM = "395200190ed522b5"

options = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**options)
def rotate(source, signs, place, target, size):
    """``target = H S₃ H S₂ H S₁ source`` of parts of ``size`` entries, a power of two from CHUNK / 4 on."""
    if 4 * size == CHUNK:
        rotate_quarters(source, 0, signs, place, target, 0)
    elif 2 * size == CHUNK:
        rotate_halves(source, 0, signs, place, target, 0)
    elif size == CHUNK:
        rotate_all(source, 0, signs, place, target, 0)
    else:
        for turn in range(TRANSFORMS):
            for begin in range(0, size, CHUNK):
                at = place + turn * size + begin
                if turn == 0:
                    mix_chunk(source, begin, signs, at, target, begin)
                else:
                    mix_chunk(target, begin, signs, at, target, begin)
            step = CHUNK
            while step < size:
                ways = 4 if 2 * step < size else 2
                for begin in range(0, size, ways * step):
                    for i in range(begin, begin + step, LANES):
                        if ways == 4:
                            cross_four(target, i, step)
                        else:
                            cross_two(target, i, step)
                step *= ways


@njit(**options)
def features(x, inverse, signs, lengths, frequencies, scale, out, points, line, spare):
    """Pairs ``[cos(π p ℓ) | sin(π p ℓ)] scale`` with ``p = H S₃ H S₂ H S₁ (x ∘ inverse)``, into ``out``
    (m, 2 frequencies).

    ``x`` (m, d) and ``inverse`` (d,); ``signs`` (blocks, 3, size) and ``lengths`` (blocks, size), of which each block
    has its own. ``points`` and ``line`` are work memory of ``max(size, CHUNK)`` numbers, ``spare`` of (1, 2 LANES).
    All is float32.
    """
    m, d = x.shape
    blocks, size = lengths.shape
    together = max(CHUNK // size, 1)
    flat, long = signs.reshape(-1), lengths.reshape(-1)
    points[:] = 0.0
    for first in range(0, m, together):
        count = min(together, m - first)
        for r in range(count):
            for k in range(d):
                points[r * size + k] = x[first + r, k] * inverse[k]
        for b in range(blocks):
            rotate(points, flat, TRANSFORMS * b * size, line, size)
            wide = min(size, frequencies - b * size)
            whole = wide // LANES * LANES
            for r in range(count):
                for v in range(0, whole, LANES):
                    column = b * size + v
                    turn_vector(line, r * size + v, long, column, scale, out, first + r, column, frequencies + column)
                if whole < wide:
                    column = b * size + whole
                    turn_vector(line, r * size + whole, long, column, scale, spare, 0, 0, LANES)
                    for j in range(wide - whole):
                        out[first + r, column + j] = spare[0, j]
                        out[first + r, frequencies + column + j] = spare[0, LANES + j]
