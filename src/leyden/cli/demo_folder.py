"""Where the demo's large matrix and the checkpoint of its solve are, so that after a kill -9 the next start goes on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leyden.engine.checkpoint import Checkpoint
from leyden.engine.registry import cache_folder
from leyden.errors import LeydenError

#: Seconds to wait for the solve of a demo that was killed: it ends after the block it is in.
PATIENCE = 30.0


@dataclass(frozen=True)
class DemoFolder:
    """A folder with a matrix, a target, a note that both are complete, and a checkpoint.

    Parameters
    ----------
    path : Path
    """

    path: Path

    @classmethod
    def of_this_user(cls) -> DemoFolder:
        """The one folder that every demo of this user looks into."""
        return cls(cache_folder() / "demo")

    @property
    def data(self) -> Path:
        return self.path / "matrix.npy"

    @property
    def target(self) -> Path:
        return self.path / "target.npy"

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.path / "checkpoint")

    @property
    def _note(self) -> Path:
        return self.path / "complete.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context in which no other demo uses the folder.

        Raises
        ------
        LeydenError
            If one does.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / "lock", "w")  # noqa: SIM115  # only opening it is tried
        except OSError as error:
            raise LeydenError(
                f"the demo cannot write here ({error.strerror})",
                where=str(self.path),
                hint="Name another folder in LEYDEN_CACHE_DIR.",
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LeydenError(
                    "another demo is running", where=str(self.path), hint="Wait for it, or end it."
                ) from None
            self._wait_for_solve()
            yield

    def _wait_for_solve(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while (who := self.checkpoint.holder()) is not None:
            if time.monotonic() > deadline:
                raise LeydenError(f"the solve of an earlier demo is still running ({who})", hint="End it first.")
            time.sleep(0.1)

    def complete(self, about: Any) -> None:
        """Note that matrix and target are whole, and what they are."""
        partial = self._note.with_suffix(".partial")
        partial.write_text(json.dumps(about))
        partial.replace(self._note)

    def found(self) -> Any:
        """What the matrix and the target here are; None when they are not whole."""
        try:
            return json.loads(self._note.read_text()) if self.data.exists() and self.target.exists() else None
        except (OSError, ValueError):
            return None

    @property
    def has_run(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.checkpoint.document() is not None

    def clear(self) -> int:
        """Remove all of it but the lock; gives the bytes that this freed."""
        freed = self.checkpoint.remove()
        # The note first: it must not outlive what it is about.
        for path in (self._note, self._note.with_suffix(".partial"), self.data, self.target):
            with contextlib.suppress(FileNotFoundError):
                size = os.stat(path).st_size
                path.unlink()
                freed += size
        return freed
