"""``leyden demo``: real data, then data larger than the memory allowed."""

from __future__ import annotations


def demo() -> None:
    """Two solves from start to certificate: real flights, and a matrix of several gigabytes."""
