"""Rows with other roles: a target, weight or group from an array, or a target split off the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from leyden.errors import OptionError
from leyden.rows.array import Roles
from leyden.rows.base import Block, Rows
from leyden.rows.mapped import MappedRows, SelectColumns, positions


class WithRoles(Rows):
    """The rows of another stream, with the roles that are given here in place of its own.

    Parameters
    ----------
    rows : Rows
    target, weight, group : array_like, optional
        One value for each row.
    """

    def __init__(self, rows: Rows, *, target: Any = None, weight: Any = None, group: Any = None):
        self.rows = rows
        self._roles = Roles(target, weight, group, rows.shape[0], rows.source)
        self.shape, self.dtype, self.columns, self.source = rows.shape, rows.dtype, rows.columns, rows.source
        self.is_sparse, self.in_memory, self.decodes = rows.is_sparse, rows.in_memory, rows.decodes
        self.targets = self._roles.names or rows.targets
        self.column_target = self._roles.column_target if target is not None else rows.column_target
        self.labels = rows.labels if target is None else None
        self.has_weight, self.has_group = weight is not None or rows.has_weight, group is not None or rows.has_group
        self.row_nbytes = rows.row_nbytes + self._roles.row_nbytes
        self.stored_nbytes, self.piece_rows = rows.stored_nbytes, rows.piece_rows
        self.files, self.held = (*rows.files, *self._roles.files), (*rows.held, *self._roles.held)

    def buffer(self, rows: int) -> Any:
        return self.rows.buffer(rows)

    def reader_nbytes(self, rows: int) -> float:
        return self.rows.reader_nbytes(rows) + self._roles.reader_nbytes(rows)

    def release(self) -> None:
        self.rows.release()

    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        block = self.rows.read(start, stop, buffer)
        target, weight, group = self._roles.read(start, stop)
        return Block(
            start,
            block.data,
            block.target if target is None else target,
            block.weight if weight is None else weight,
            block.group if group is None else group,
        )

    def locate(self, row: int) -> str:
        return self.rows.locate(row)


class SplitTarget(MappedRows):
    """The rows of another stream, with some of its columns as the target.

    Parameters
    ----------
    rows : Rows
    target : sequence of str or int
        Names or positions of the target's columns.
    """

    def __init__(self, rows: Rows, target: Sequence[str | int]):
        self._target = np.array(positions(target, rows.columns, rows.source))
        others = [j for j in range(rows.shape[1]) if j not in self._target]
        if not others:
            raise OptionError("no columns are left beside the target", where=rows.source)
        super().__init__(rows, SelectColumns(others))
        self.targets, self.column_target = tuple(rows.columns[j] for j in self._target), False
        self.row_nbytes += 8 * len(self._target)

    def _mapped(self, block: Block, own: np.ndarray | None) -> Block:
        split: Any = block.data[:, self._target]
        target = np.ascontiguousarray(split.toarray() if self.is_sparse else split, dtype=np.float64)
        return replace(super()._mapped(block, own), target=target)
