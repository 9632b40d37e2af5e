"""Left vectors and scores: rows multiplied by the right vectors, made when they are read, or written to a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leyden.engine.reduction import Reduction, Scratch
from leyden.errors import DataError, OptionError, SolutionError
from leyden.factor.frame import Frame, bare
from leyden.rows import Rows
from leyden.rows.base import Block, RowMap
from leyden.rows.stored import StoredArray
from leyden.solve.reductions import Sum


@dataclass(frozen=True, eq=False)
class Project(RowMap):
    """The rows of B multiplied by a matrix: ``y = ((a − shift) scale − mean) W``.

    Parameters
    ----------
    frame : Frame
    mean : ndarray, shape (d,)
        Of the rows as read.
    w : ndarray, shape (d, k)
    names : str
        Before the number of each column.
    """

    frame: Frame
    mean: np.ndarray
    w: np.ndarray
    names: str = "u"

    def bind(self, rows: Rows) -> Project:
        if rows.shape[1] != len(self.w):
            raise DataError(
                f"the rows have {rows.shape[1]:,} columns, and the vectors {len(self.w):,} entries", where=rows.source
            )
        return self

    def __call__(self, block: Block) -> Block:
        return self.into(block, np.empty((block.rows, self.w.shape[1])))

    def into(self, block: Block, out: np.ndarray) -> Block:
        data: Any = bare(block).data
        scaled = self.frame.scale[:, None] * self.w
        if isinstance(data, np.ndarray):
            np.matmul(data - self.frame.shift, scaled, out=out)
        else:
            out[:] = data @ scaled
            out -= self.frame.shift @ scaled
        out -= self.mean @ self.w
        return block.with_data(out)

    def sparse(self, sparse: bool) -> bool:
        return False

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{self.names}{i}" for i in range(self.w.shape[1]))

    def dtype(self, dtype: np.dtype) -> np.dtype:
        return np.dtype(np.float64)


class Place:
    """Where rows are written: an array in memory, or the ``.npy`` file of a path. It is no part of what is computed.

    The file is written and not mapped: its pages would count as memory of the process.
    """

    __slots__ = ("_fd", "_lock", "_offset", "array", "path")

    def __init__(self, array: np.ndarray | None, path: str | None):
        self.array, self.path, self._lock = array, path, threading.Lock()
        self._fd, self._offset = -1, 0

    def __repr__(self) -> str:
        return f"Place({self.path!r})"

    def __reduce__(self) -> Any:
        return Place, (None, self.path)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Put rows where they belong."""
        if self.array is not None:
            self.array[start : start + len(rows)] = rows
            return
        assert self.path is not None
        with self._lock:
            if self._fd < 0:
                self._offset = StoredArray(self.path).offset
                self._fd = os.open(self.path, os.O_WRONLY)
        data: Any = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], self._offset + start * len(data) // len(rows) + done)
        except OSError as error:
            raise SolutionError(f"the file cannot be written ({error.strerror})", where=self.path) from None


class Write(Reduction[Sum, np.ndarray]):
    """Writes mapped rows, and returns their Gram matrix (k, k), measured on what was written.

    Writing the same rows again changes nothing, so a part of a pass may be repeated.

    Parameters
    ----------
    project : row map of a matrix ``w``
    place : Place
    """

    TILE = 1024

    def __init__(self, project: Any, place: Place):
        self.project, self.place = project, place
        self._scratch = Scratch()

    @property
    def state_nbytes(self) -> int:
        return 8 * self.project.w.shape[1] ** 2

    @property
    def scratch_nbytes(self) -> int:
        d, k = self.project.w.shape
        return 8 * self.TILE * (2 * d + k)

    def start(self) -> Sum:
        k = self.project.w.shape[1]
        return Sum(np.zeros((k, k)))

    def update(self, state: Sum, block: Block) -> Sum:
        for first in range(0, block.rows, self.TILE):
            part = Block(block.start + first, block.data[first : first + self.TILE])
            out = self._scratch.array("out", (self.TILE, self.project.w.shape[1]))[: part.rows]
            y: Any = self.project.into(part, out).data
            self.place.write(part.start, y)
            state.matrix += y.T @ y
            state.additions += 1
        return state

    def merge(self, a: Sum, b: Sum) -> Sum:
        return a.merge(b)

    def finish(self, state: Sum) -> np.ndarray:
        return state.matrix


def check_target(path: str | os.PathLike, rows: Rows) -> None:
    """Refuse a path that rows cannot be written to, or that the data is read from, before the work is done.

    Raises
    ------
    OptionError
    """
    target = Path(os.path.expanduser(path))
    if target.suffix != ".npy":
        raise OptionError("rows are written to a .npy file", where=str(path), hint="Name it so.")
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK)) or target.is_dir():
        raise OptionError("this file cannot be written", where=str(path), hint="Name another one.")
    for other in rows.files:
        with suppress(OSError):  # one of them is not there, or not here
            if target.samefile(other):
                raise OptionError("the data would be written over", where=str(path), hint="Name another file.")


@contextmanager
def writing(path: str | os.PathLike, shape: tuple[int, int]) -> Iterator[Place]:
    """A context in which rows are written to a ``.npy`` file, which is there when they all are, and not before."""
    partial = created(path, shape)
    try:
        yield Place(None, str(partial))
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(Path(os.path.expanduser(path)))
    finally:
        partial.unlink(missing_ok=True)


def created(path: str | os.PathLike, shape: tuple[int, int]) -> Path:
    """A new ``.npy`` file of this shape beside ``path``, to be renamed to it once it is complete.

    Raises
    ------
    SolutionError
        If it cannot be written, or would not fit.
    """
    target = Path(os.path.expanduser(path))
    if target.suffix != ".npy":
        raise SolutionError("the rows are written to a .npy file", where=str(target), hint="Name it so.")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float64, shape=shape)
        offset = int(array.offset)
        del array
        with open(partial, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, offset + 8 * shape[0] * shape[1])
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SolutionError(f"the file cannot be written ({error.strerror})", where=str(target)) from None
    return partial
