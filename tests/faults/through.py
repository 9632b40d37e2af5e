"""Rows in which things go wrong."""

from __future__ import annotations

from leyden.engine.budget import FILE_BLOCK_NBYTES
from leyden.rows import Rows

COPIED = (
    "shape", "dtype", "columns", "targets", "has_weight", "has_group", "is_sparse", "decodes",
    "stored_nbytes", "source", "files", "held", "locate",
)  # fmt: skip


class Through(Rows):
    """The rows of another stream, read through functions of a test, in blocks of a given length.

    Parameters
    ----------
    rows : Rows
    block_rows : int
        Rows that a sweep reads at a time, given a budget of a gigabyte.
    before : callable
        Called with the range before it is read; may sleep, raise, or kill.
    after : callable
        Called with the block that was read; gives the one that is passed on.
    """

    def __init__(self, rows, block_rows, before=lambda start, stop: None, after=lambda block: block):
        self.rows, self.before, self.after = rows, before, after
        for name in COPIED:
            setattr(self, name, getattr(rows, name))
        # A sweep fills blocks of so many bytes: rows that seem long make short blocks.
        self.row_nbytes = FILE_BLOCK_NBYTES / block_rows

    def buffer(self, rows):
        return self.rows.buffer(rows)

    def read(self, start, stop, buffer=None):
        self.before(start, stop)
        return self.after(self.rows.read(start, stop, buffer))
