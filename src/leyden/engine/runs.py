"""The runs that left checkpoints: what each was doing, how far it is, and whether it can go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leyden.engine import registry
from leyden.engine.checkpoint import Checkpoint, version_difference
from leyden.engine.fingerprint import changed_files
from leyden.errors import CheckpointError


@dataclass(frozen=True)
class Run:
    """One checkpoint.

    Attributes
    ----------
    folder : Path
    verb, data : str
    number, planned : int
        The pass it is in, and how many were planned.
    share : float
        Of the rows of that pass that are done.
    began_at, saved_at : float or None
        Seconds since the epoch.
    holder : str or None
        The process that works on it now.
    obstacle : str
        Why it cannot go on; empty when it can.
    nbytes : int
        What it takes on disk.
    """

    folder: Path
    verb: str
    data: str
    number: int
    planned: int
    share: float
    began_at: float | None
    saved_at: float | None
    holder: str | None
    obstacle: str
    nbytes: int


def find() -> list[Run]:
    """All runs that are kept in a folder which is still there."""
    found = []
    for folder in registry.folders():
        checkpoint = Checkpoint(folder)
        try:
            found.append(_describe(checkpoint))
        except CheckpointError as error:
            found.append(Run(folder, "", "", 0, 0, 0.0, None, None, None, error.what, 0))
        except (KeyError, TypeError, AttributeError, ZeroDivisionError):
            found.append(Run(folder, "", "", 0, 0, 0.0, None, None, None, "it is damaged", checkpoint.nbytes()))
    return found


def clean(run: Run) -> int:
    """Remove a run on which nobody works; gives the bytes this freed.

    Raises
    ------
    CheckpointError
        If somebody works on it after all, or the folder holds something else by now.
    """
    return Checkpoint(run.folder).remove()


def _describe(checkpoint: Checkpoint) -> Run:
    document, last, holder = checkpoint.document(), checkpoint.last(), checkpoint.holder()
    if document is None:
        obstacle = "" if holder else "it had not begun"
        return Run(checkpoint.folder, "", "", 0, 0, 0.0, None, None, holder, obstacle, checkpoint.nbytes())
    identity, decided = document["identity"], document["decided"]
    number, share = (last.number, last.done / last.rows) if last else (1, 0.0)
    return Run(
        checkpoint.folder,
        str(identity.get("verb", "")),
        str(decided.get("data", "")),
        number,
        max(len(decided.get("passes", ())), number),
        share,
        document.get("began"),
        last.saved_at if last else None,
        holder,
        version_difference(document) or changed_files(identity["data"]),
        checkpoint.nbytes(),
    )
