"""The reading options kept beside a saved solution, so that it can be verified without giving them again.

``data.json`` holds the data as it was named, and the arguments of :func:`leyden.open`. Paths among them are relative to
the folder: a solution and its data can move together.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leyden.errors import SolutionError
from leyden.solution import free_place

if TYPE_CHECKING:
    from leyden.cli.mixed import Table
    from leyden.cli.options import Reading
    from leyden.cli.ratings import Feedback
    from leyden.engine.checkpoint import Checkpoint
    from leyden.solution import Solution

NAME = "data"
FORMAT = 1

_ROLES = ("target", "weight")


def check_free(folder: Path) -> None:
    """Refuse a folder that could not be saved to, before the work is done."""
    parent = next(parent for parent in free_place(folder).parents if parent.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise SolutionError("nothing can be written here", where=str(parent), hint="Name another folder.")


def save(solution: Solution, folder: Path, reading: Reading | Feedback | Table, checkpoint: Checkpoint | None) -> None:
    """Save a solution with the options its data was read with; what goes wrong says that a checkpoint has the work."""
    try:
        solution.save(folder, documents={NAME: document(folder, reading)})
    except SolutionError as error:
        if checkpoint is None:
            raise
        hint = f"The work is kept in {checkpoint.folder}: make room, or name another folder, and do the same again."
        raise SolutionError(error.what, where=error.where, hint=hint) from None


def document(folder: Path, reading: Reading | Feedback | Table) -> dict[str, Any]:
    """How the data was read, to be kept as ``data.json`` beside the solution in ``folder``."""
    given = {
        name: os.path.relpath(_real(value), os.path.realpath(folder)) if name in _ROLES and _is_file(value) else value
        for name, value in reading.given.items()
    }
    return {"format": FORMAT, "data": reading.data, "open": given}


def read(folder: Path) -> dict[str, Any]:
    """The arguments of :func:`leyden.open` kept in ``folder``; none when nothing was kept."""
    given = _kept(folder)[1]
    for name in _ROLES:
        if _is_file(given.get(name)):
            given[name] = os.path.normpath(os.path.join(os.path.realpath(folder), given[name]))
    return given


def data(folder: Path) -> list[str]:
    """The data as it was named; nothing when nothing was kept."""
    return _kept(folder)[0]


def _kept(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """What ``data.json`` holds."""
    path = folder / f"{NAME}.json"
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            raise SolutionError(f"format {document['format']} is not one this version reads", where=str(path))
        return [str(name) for name in document["data"]], dict(document["open"])
    except FileNotFoundError:
        return [], {}
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, SolutionError):
            raise
        raise SolutionError(
            "the record of how the data was read is damaged",
            where=str(path),
            hint="Delete it, and give the options of the data on the command line.",
        ) from None


def _real(path: str) -> str:
    """A path without links but its last part, which may be one."""
    folder, name = os.path.split(os.path.expanduser(path))
    return os.path.join(os.path.realpath(folder), name)


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and value.lower().endswith(".npy") and "://" not in value
