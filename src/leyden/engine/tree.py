"""The tree in which the states of segments are merged: an order that nothing but their number decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    due : callable, optional
        Tells whether it is time for nodes that are made elsewhere to be brought here, so that they are kept. Without
        it only the result matters.
    """

    def __init__(
        self,
        reductions: Sequence[Reduction[Any, Any]],
        segments: int,
        nodes: dict[Node, States] | None = None,
        on_add: Callable[[MergeTree], None] = lambda tree: None,
        due: Callable[[], bool] | None = None,
    ):
        self._reductions, self.segments, self._on_add, self.due = reductions, segments, on_add, due
        self._nodes: dict[Node, States] = dict(nodes or {})
        self._changed = threading.Condition()
        self._adding, self._still = 0, False

    def add(self, node: Node, states: States) -> None:
        """Give the states of a node: of one segment when its level is 0."""
        self.extend({node: states})

    def extend(self, nodes: Mapping[Node, States]) -> None:
        """Give the states of several nodes, as one addition."""
        with self._changed:
            self._changed.wait_for(lambda: not self._still)
            self._adding += 1
        try:
            for node, states in nodes.items():
                self._add(node, states)
        finally:
            with self._changed:
                self._adding -= 1
                self._changed.notify_all()
        self._on_add(self)

    def _add(self, node: Node, states: States) -> None:
        while True:
            level, i = node = self.settled(node)
            with self._changed:
                sibling = self._nodes.pop((level, i ^ 1), None)
                if sibling is None:
                    self._nodes[node] = states
                    return
            left, right = (states, sibling) if i % 2 == 0 else (sibling, states)
            states = merge(self._reductions, left, right)
            node = level + 1, i // 2

    def settled(self, node: Node) -> Node:
        """The same node moved up to where it has a neighbour to be merged with, or to the root."""
        level, i = node
        while i > 0 and i % 2 == 0 and i == (self.segments - 1) >> level:
            level, i = level + 1, i // 2
        return level, i

    def span(self, node: Node) -> range:
        """The segments of a node."""
        level, i = node
        return range(i << level, min((i + 1) << level, self.segments))

    def missing(self) -> list[int]:
        """Segments that no node holds, in order."""
        held = {segment for node in self._nodes for segment in self.span(node)}
        return [segment for segment in range(self.segments) if segment not in held]

    def pieces(self, segments: Sequence[int], level: Callable[[int], int]) -> list[Node]:
        """The fewest nodes that hold ``segments`` (in order) and nothing else.

        A node is of at most the ``level`` of the number of segments that are left.
        """
        nodes: list[Node] = []
        at = 0
        while at < len(segments):
            first, run = segments[at], level(len(segments) - at)
            if first:
                run = min(run, (first & -first).bit_length() - 1)
            while True:
                span = self.span((run, first >> run))
                last = at + len(span) - 1
                if last < len(segments) and segments[last] == span[-1]:
                    break
                run -= 1
            nodes.append((run, first >> run))
            at = last + 1
        return nodes

    @contextmanager
    def still(self) -> Iterator[dict[Node, States]]:
        """The nodes, which stay as they are inside the context: merges are finished first, and who adds waits."""
        with self._changed:
            self._changed.wait_for(lambda: not self._still)
            self._still = True
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._adding == 0)
            yield self._nodes
        finally:
            with self._changed:
                self._still = False
                self._changed.notify_all()

    def result(self) -> States:
        """The states of all segments."""
        ((_, states),) = self._nodes.items()
        return states


def merge(reductions: Sequence[Reduction[Any, Any]], left: States, right: States) -> States:
    """The states of two neighbours as those of one node; may reuse those on the left."""
    return [reduction.merge(a, b) for reduction, a, b in zip(reductions, left, right, strict=True)]
