"""Kernels of Fourier features."""

from __future__ import annotations

import numpy as np
from numba import njit

from leyden.kernel._fourier_vectors import PANEL, TILE_ROWS, turn_tile

#: The first digits of the hash of what this file is compiled from, beside itself: numba looks for changes in it alone.
COMPILED_FROM = "d2b7d5b834e33569"

options = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**options)
def pack(x, packed):
    """The rows of ``x`` (m, d), float32, as (groups, d, TILE_ROWS); zeros fill up the last."""
    m, d = x.shape
    for g in range(packed.shape[0]):
        first = g * TILE_ROWS
        for i in range(TILE_ROWS):
            if first + i < m:
                for k in range(d):
                    packed[g, k, i] = x[first + i, k]
            else:
                for k in range(d):
                    packed[g, k, i] = 0.0


@njit(**options)
def fourier(packed, m, w, frequencies, scale, out, spare):
    """Pairs ``[cos(π x w) | sin(π x w)] scale`` of ``m`` packed rows, into ``out`` (m, 2 frequencies).

    ``w`` (panels, d, PANEL) as :func:`panels` has it. ``spare`` float32 (TILE_ROWS, at least 2 PANEL): for rows and
    frequencies that do not fill a tile.
    """
    for p in range(w.shape[0]):
        first = min(p * PANEL, max(frequencies - PANEL, 0))
        narrow = frequencies < PANEL
        for g in range(packed.shape[0]):
            row = g * TILE_ROWS
            if row + TILE_ROWS <= m and not narrow:
                turn_tile(packed, g, w, p, scale, out, row, first, frequencies + first)
            else:
                turn_tile(packed, g, w, p, scale, spare, 0, 0, PANEL)
                for i in range(min(TILE_ROWS, m - row)):
                    for j in range(min(PANEL, frequencies)):
                        out[row + i, first + j] = spare[i, j]
                        out[row + i, frequencies + first + j] = spare[i, PANEL + j]


def panels(w):
    """Frequencies ``w`` (d, f), in half turns, as :func:`fourier` takes them: the last panel begins early enough."""
    d, f = w.shape
    count = -(-f // PANEL)
    packed = np.zeros((count, d, PANEL), np.float32)
    for p in range(count):
        first = min(p * PANEL, max(f - PANEL, 0))
        part = w[:, first : first + PANEL]
        packed[p, :, : part.shape[1]] = part
    return packed
