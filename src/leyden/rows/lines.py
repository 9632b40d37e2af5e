"""Text files with a row a line, cut at line ends into pieces that can be parsed each by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from leyden.rows.remote import explained, open_binary


@dataclass(frozen=True)
class Piece:
    """Whole lines of a file: its bytes ``begin`` to ``end``, holding ``rows`` rows of which the first is ``first``."""

    file: int
    begin: int
    end: int
    first: int
    rows: int


def cut(path: str, begin: int, nbytes: int) -> Iterator[tuple[int, bytes]]:
    """From byte ``begin`` on, runs of whole lines of about ``nbytes`` bytes, each with the byte it begins at."""
    with reading(path) as file:
        file.seek(begin)
        while lines := file.read(nbytes):
            lines += file.readline()
            yield begin, lines
            begin += len(lines)


def read_piece(path: str, piece: Piece) -> bytes:
    """The lines of a piece."""
    with reading(path) as file:
        file.seek(piece.begin)
        return file.read(piece.end - piece.begin)


@contextmanager
def reading(path: str) -> Iterator[Any]:
    """A context with the file opened for reading bytes, in which what goes wrong with it is said in one sentence."""
    with explained(path), open_binary(path) as file:
        yield file
