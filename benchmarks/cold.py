"""Files read from the disk and not from the page cache, on a machine with more memory than they are long.

Pages are dropped as they are read, in the plain read that sets the pace as well as in what is measured.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np


def _forget(fd: int, offset: int = 0, length: int = 0) -> None:
    os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def cold_file(path: Path) -> int:
    """The file opened, with none of it in the page cache."""
    fd = os.open(path, os.O_RDONLY)
    _forget(fd)
    return fd


def plain_read(path: Path) -> float:
    """Bytes a second of reading the file once from the disk, straight into one buffer."""
    fd = cold_file(path)
    buffer, done = np.empty(2**24, np.uint8), 0
    began = time.perf_counter()
    while count := os.preadv(fd, [buffer], done):
        _forget(fd, done, count)
        done += count
    os.close(fd)
    return done / (time.perf_counter() - began)


def cold_rows(path: Path, **roles: Any):
    """The rows of a ``.npy`` file, whose pages are dropped from the page cache as they are read."""
    from leyden.rows.npy import NpyRows

    file = cold_file(path)

    class Cold(NpyRows):
        def read(self, start, stop, buffer=None):
            block = super().read(start, stop, buffer)
            stride = self.shape[1] * self.dtype.itemsize
            _forget(file, 128 + start * stride, (stop - start) * stride)
            return block

    return Cold(path, **roles)
