"""Every error that a user can meet: what is wrong, where, and what to do about it.

Each is one sentence for a person. ``where`` names the place in the data (file, row, column) and ``hint`` the next thing
to type; the command line prints all three and leaves with status 2.
"""

from __future__ import annotations

from typing import Any


class LeydenError(Exception):
    """Something a user can put right.

    Parameters
    ----------
    what : str
        What is wrong, in one sentence.
    where : str, optional
        The file, row or column it was found at.
    hint : str, optional
        What to do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None):
        self.what, self.where, self.hint = what, where, hint
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.what, self.where, self.hint)

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}" if self.where else self.what
        if not sentence.endswith((".", "!", "?")):
            sentence += "."
        return f"{sentence} {self.hint}" if self.hint else sentence


def _again(kind: type[LeydenError], what: str, where: str | None, hint: str | None) -> LeydenError:
    return kind(what, where=where, hint=hint)


class DataError(LeydenError, ValueError):
    """The data is missing, damaged, of the wrong kind, or changed since it was first read."""


class OptionError(LeydenError, ValueError):
    """An argument cannot be used, alone or with the others."""


class BudgetError(LeydenError, MemoryError):
    """The memory budget is too small for what was asked."""


class SolutionError(LeydenError, ValueError):
    """A saved solution cannot be read, or cannot be written where it was asked to go."""


class CheckpointError(LeydenError, ValueError):
    """A checkpoint cannot be written, or is not one of this run."""


class ClusterError(LeydenError, RuntimeError):
    """The scheduler of a cluster, or too many of its workers, were lost in the middle of a pass."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C, or SIGTERM) and left a checkpoint; the message says how to go on.

    Parameters
    ----------
    message : str
    signal : int
        The number of the signal.
    """

    def __init__(self, message: str, signal: int):
        super().__init__(message, signal)
        self.message, self.signal = message, signal

    def __str__(self) -> str:
        return self.message
