"""Text files with a row a line, cut at line ends into pieces that can be parsed each by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from leyden.errors import DataError
from leyden.rows.remote import open_binary


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
    with open_text(path) as file:
        file.seek(begin)
        while lines := file.read(nbytes):
            lines += file.readline()
            yield begin, lines
            begin += len(lines)


def read_piece(path: str, piece: Piece) -> bytes:
    """The lines of a piece."""
    with open_text(path) as file:
        file.seek(piece.begin)
        return file.read(piece.end - piece.begin)


def open_text(path: str) -> Any:
    """The file opened for reading bytes."""
    try:
        return open_binary(path)
    except FileNotFoundError:
        raise DataError("there is no such file", where=path) from None
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror})", where=path) from None
