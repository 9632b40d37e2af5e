"""Executors: what runs a pass. The threads of this process, unless another one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

from leyden.engine.budget import Layout
from leyden.engine.local import Local
from leyden.engine.reduction import Reduction
from leyden.engine.tree import MergeTree
from leyden.errors import OptionError
from leyden.rows.base import Rows


@runtime_checkable
class Executor(Protocol):
    """What runs a pass: :class:`~leyden.engine.local.Local` or :class:`~leyden.engine.dask.Dask`."""

    def fold(
        self,
        rows: Rows,
        reductions: Sequence[Reduction[Any, Any]],
        layout: Layout,
        tree: MergeTree,
        on_rows: Callable[[int], None] = ...,
        on_remark: Callable[[str], None] = ...,
    ) -> None:
        """Fold the segments of ``layout`` that ``tree`` has not, and add them to it.

        ``on_rows`` hears how many more rows are done, ``on_remark`` what a user should know of the run.
        """

    def memory(self) -> int:
        """The budget, in bytes for each process, when none is given."""


_current: ContextVar[Executor | None] = ContextVar("leyden_executor", default=None)


@contextmanager
def executor(runs: Executor) -> Iterator[Executor]:
    """A context in which passes are run by ``runs`` unless a call names another executor.

    Parameters
    ----------
    runs : Executor
        For instance ``leyden.Dask(client)``. It is not closed at the end.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> from leyden.engine.local import Local
    >>> with ly.executor(Local()):
    ...     ly.lstsq(np.eye(3), np.ones(3)).certificate.holds
    True
    """
    token = _current.set(as_executor(runs))
    try:
        yield runs
    finally:
        _current.reset(token)


def current() -> Executor:
    """The executor of the innermost :func:`executor` context; outside of any, the threads of this process."""
    return _current.get() or Local()


def as_executor(given: Any) -> Executor:
    """What an argument ``executor=`` stands for."""
    if given is None:
        return current()
    if not isinstance(given, Executor):
        raise OptionError(f"executor={given!r} cannot run a pass", hint="Give leyden.Dask(client).")
    return given
