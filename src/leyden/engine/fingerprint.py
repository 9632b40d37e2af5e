"""The fingerprint of data: what tells one set of rows from another without reading all of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from leyden.engine.budget import MEMORY_BLOCK_NBYTES, thread_count
from leyden.errors import DataError
from leyden.rows.base import Block, Rows
from leyden.rows.remote import is_remote, stat

#: Places where data in files is sampled, and rows looked at in each.
PLACES, PLACE_ROWS = 8, 16


def fingerprint(rows: Rows) -> dict[str, Any]:
    """Names, shape, type, files with their sizes and times, and a hash of numbers.

    Of rows that are read from files, or made by a function, a few are hashed. What is in memory has no time of change,
    so all of it is hashed: the whole data, or a target and weights beside a file.
    """
    n, d = rows.shape
    in_memory = not rows.files and rows.stored_nbytes > 0
    found = hashlib.sha256("\0".join([*rows.columns, "", *rows.targets]).encode())
    for part in [_all(rows)] if in_memory else [_sample(rows), *map(_whole, rows.held)]:
        found.update(part)
    return {
        "shape": [n, d],
        "dtype": str(rows.dtype),
        "files": [[path if is_remote(path) else os.path.abspath(path), *stamp(path)[:2]] for path in rows.files],
        "hash": found.hexdigest(),
    }


def stamp(path: str) -> tuple[int, int, int]:
    """Size, time of change and identity of a file: when they are the same, so is the file."""
    if is_remote(path):
        return (*stat(path), 0)
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"the file cannot be read any more ({error.strerror})", where=path) from None
    return found.st_size, found.st_mtime_ns, found.st_ino


def difference(kept: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What tells two fingerprints apart; empty when they are the same."""
    if kept["shape"] != now["shape"]:
        was, is_ = ("{:,} × {:,}".format(*data["shape"]) for data in (kept, now))
        return f"it was {was} and is {is_}"
    before, after = ({path: rest for path, *rest in data["files"]} for data in (kept, now))
    for path, rest in after.items():
        if path not in before:
            return f"{path} is not part of it"
        if before[path] != rest:
            return f"{path} has changed since"
    if missing := sorted(set(before) - set(after)):
        return f"{missing[0]} is missing"
    return "" if kept == now else "rows, columns or numbers have changed"


def changed_files(kept: Mapping[str, Any]) -> str:
    """Which file of a fingerprint is not what it was, as a sentence; empty when none is known to be."""
    for path, *rest in kept["files"]:
        try:
            if list(stamp(path)[:2]) != rest:
                return f"{path} has changed"
        except DataError:
            return f"{path} is gone"
    return ""


def _sample(rows: Rows) -> bytes:
    n = rows.shape[0]
    length = min(PLACE_ROWS, n)
    starts = sorted({place * (n - length) // (PLACES - 1) for place in range(PLACES)})
    return b"".join(_hash(_arrays(rows.read(start, start + length))) for start in starts)


def _all(rows: Rows) -> bytes:
    n = rows.shape[0]
    length = max(1, int(MEMORY_BLOCK_NBYTES / max(rows.row_nbytes, 1)))

    def part(start: int) -> bytes:
        return _hash(_arrays(rows.read(start, min(start + length, n))))

    with ThreadPoolExecutor(thread_count()) as pool:
        return b"".join(pool.map(part, range(0, n, length)))


def _whole(array: np.ndarray) -> bytes:
    length = max(1, MEMORY_BLOCK_NBYTES // max(array[:1].nbytes, 1))
    with ThreadPoolExecutor(thread_count()) as pool:
        return b"".join(pool.map(lambda i: _hash([array[i : i + length]]), range(0, len(array), length)))


def _arrays(block: Block) -> list[np.ndarray]:
    data = block.data
    parts = [data] if isinstance(data, np.ndarray) else [data.data, data.indices, data.indptr]
    codes = block.group if block.group is not None and block.group.dtype.kind in "iu" else None
    return [part for part in (*parts, block.target, block.weight, codes) if part is not None]


def _hash(arrays: Iterable[np.ndarray]) -> bytes:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.digest()
