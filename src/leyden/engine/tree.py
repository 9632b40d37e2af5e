"""The tree in which the states of segments are merged: an order that nothing but their number decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from leyden.engine.reduction import Reduction

#: One state a reduction.
States: TypeAlias = list[Any]
#: Level and position: node ``(level, i)`` holds the segments from ``i 2^level`` up to ``(i + 1) 2^level``.
Node: TypeAlias = tuple[int, int]


class MergeTree:
    """Merges the states of segments pairwise; a node without a right neighbour moves up as it is.

    Two children are merged as soon as both are there, so about one state a level is alive. What the tree holds at any
    moment is a checkpoint: its nodes, put into a new tree, lead to the same bits.

    Parameters
    ----------
    reductions : sequence of Reduction
    segments : int
        How many there are.
    nodes : dict of Node to States, optional
        What is there already.
    on_add : callable, optional
        Called, in the thread that added, after each addition.
    """

    def __init__(
        self,
        reductions: Sequence[Reduction[Any, Any]],
        segments: int,
        nodes: dict[Node, States] | None = None,
        on_add: Callable[[], None] = lambda: None,
    ):
        self._reductions, self.segments, self._on_add = reductions, segments, on_add
        self._nodes: dict[Node, States] = dict(nodes or {})
        self._lock = threading.Lock()

    def add(self, node: Node, states: States) -> None:
        """Give the states of a node: of one segment when its level is 0."""
        self._add(*node, states)
        self._on_add()

    def _add(self, level: int, i: int, states: States) -> None:
        while True:
            width = -(-self.segments // 2**level)
            if width == 1 or i < width - 1 or i % 2 == 1:
                with self._lock:
                    sibling = self._nodes.pop((level, i ^ 1), None)
                    if sibling is None:
                        self._nodes[level, i] = states
                        return
                left, right = (states, sibling) if i % 2 == 0 else (sibling, states)
                states = [r.merge(a, b) for r, a, b in zip(self._reductions, left, right, strict=True)]
            level, i = level + 1, i // 2

    def span(self, node: Node) -> range:
        """The segments of a node."""
        level, i = node
        return range(i << level, min((i + 1) << level, self.segments))

    def missing(self) -> list[int]:
        """Segments that no node holds, in order."""
        held = {segment for node in self._nodes for segment in self.span(node)}
        return [segment for segment in range(self.segments) if segment not in held]

    @contextmanager
    def still(self) -> Iterator[dict[Node, States]]:
        """The nodes, which stay as they are inside the context: whoever adds meanwhile waits.

        States that are being merged at the moment are in none of them.
        """
        with self._lock:
            yield self._nodes

    def result(self) -> States:
        """The states of all segments."""
        ((_, states),) = self._nodes.items()
        return states
