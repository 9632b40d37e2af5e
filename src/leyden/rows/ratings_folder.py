"""The folder of a store: which one can be written, and how a new one takes the place of another.

A store is written in a hidden folder beside its place, locked by its process, and renamed when it is complete. What a
process that was killed leaves there is removed by the next one that writes to the same place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leyden.errors import DataError

#: What a folder must hold to be a store, and what else may be in it.
DOCUMENT = "ratings.json"
HELD_OUT = "held_out"
PLANES = ("items.low", "items.high", "values", "levels", "counts", "starts", "item_counts")
FILES = {DOCUMENT, HELD_OUT, "users.arrow", "items.arrow", *(f"{name}.npy" for name in PLANES)}


def is_store(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a store of ratings."""
    return os.path.isfile(os.path.join(folder, DOCUMENT))


def seems_store(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a store of ratings, or part of one."""
    return is_store(folder) or os.path.isfile(os.path.join(folder, "items.low.npy"))


def free_place(folder: str | os.PathLike) -> Path:
    """The real path of a folder that a store can be written to: one not there yet, empty, or itself a store.

    Raises
    ------
    DataError
        If anything else could be lost, or nothing can be written there.
    """
    try:
        target = Path(folder).expanduser().resolve()
        inside = sorted(target.iterdir()) if target.is_dir() else []
        taken = target.exists() and not target.is_dir()
        here = Path.cwd().is_relative_to(target)
        above = next(parent for parent in target.parents if parent.exists())
    except (OSError, RuntimeError, TypeError, ValueError, StopIteration) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"this folder cannot be used ({why})", where=str(folder), hint="Name another one.") from None
    if here:
        raise DataError(
            "a store takes the place of its folder, which cannot be the current one or one above it",
            where=str(target),
            hint="Name a folder inside it.",
        )
    if taken or (inside and not is_store(target)):
        raise DataError("this folder exists and is no store of ratings", where=str(target), hint="Name another one.")
    if foreign := [file.name for file in inside if file.name not in FILES]:
        raise DataError(
            f"this folder holds {foreign[0]} beside the ratings, which would be lost",
            where=str(target),
            hint="Move it, or name another folder.",
        )
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise DataError("nothing can be written here", where=str(above), hint="Name another folder.")
    return target


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A context with a new hidden folder beside ``target``, on the same disk; what is in it at the end is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{glob_escape(target.name)}.*.partial"):
        _remove_if_left(left)
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def glob_escape(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _remove_if_left(folder: Path) -> None:
    """Remove a folder that no process works in."""
    with contextlib.suppress(OSError):
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def put(new: Path, target: Path) -> None:
    """Let a complete folder take the place of ``target``, which gives way only now."""
    _synchronise(new)
    replaced = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.replaced")
    try:
        if target.exists():
            target.replace(replaced)
        new.replace(target)
    except BaseException:
        if replaced.exists() and not target.exists():
            replaced.replace(target)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _synchronise(folder: Path) -> None:
    """Have all files below a folder on the disk."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
