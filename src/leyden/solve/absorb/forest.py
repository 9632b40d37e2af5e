r"""Spanning forests of a graph: its connected parts, and a bound on energies that needs no eigenvalue.

For a Laplacian ``S = Bᵀ W B`` of edges with weights W and a right-hand side g in its range,

    gᵀ S⁺ g = min { Σ_e f_e² / w_e :  Bᵀ f = g },

the least energy of a flow that carries g (Thomson's principle). Any flow bounds it from above, so does the one along a
spanning forest, which is unique and is found from the leaves to the roots. Diagonal terms are edges to a ground that
takes in any amount. Shallow trees give the smaller energies: they grow breadth first, from the ground where there
is one, from the level with the most edges where there is none.

The graph of a Schur complement that was not formed is walked through its cells: levels of the factor that was
eliminated are vertices as well, with nothing of their own to carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from leyden import aligned
from leyden.solve.absorb import _absorb_kernels
from leyden.solve.absorb._prefetch import AHEAD, prefetch_row
from leyden.solve.absorb.cells import ONES, Cells

kernels: Any = _absorb_kernels

#: Hash of the sources that are compiled into the functions here from other files; see ``_absorb_kernels``.
COMPILED_FROM = "019729f817192b6b"

_compiled = njit(nogil=True, cache=True, error_model="numpy")

#: Vertices that are no child of another: one that begins a tree, and one that hangs on the ground.
ROOT, GROUND = -1, -2


@dataclass(frozen=True)
class Forest:
    """A spanning forest.

    Attributes
    ----------
    order : int32
        Vertices, parents before their children.
    parent : int32, shape (vertices,)
        :data:`ROOT` and :data:`GROUND` where there is none.
    weight : float64, shape (vertices,)
        Of the edge to the parent, or to the ground.
    label : int32, shape (vertices,)
        Number of the connected part each vertex is in, the ground joining nothing.
    parts : int
    """

    order: np.ndarray
    parent: np.ndarray
    weight: np.ndarray
    label: np.ndarray
    parts: int

    def energy(self, g: np.ndarray) -> np.ndarray:
        """Upper bounds on ``gᵀ S⁺ g``, g of shape (levels, 4) with the levels first among the vertices."""
        flow = aligned.zeros((len(self.parent), g.shape[1]))
        flow[: len(g)] = g
        out = np.zeros(g.shape[1])
        _carry(self.order, self.parent, self.weight, flow, out)
        return out


def forest_of_graph(graph: Cells, ground: np.ndarray) -> Forest:
    """Of the graph of levels that are joined directly."""
    start = _starts(np.diff(graph.indptr), ground)
    return Forest(*_walk_graph(graph.indptr, graph.index, graph.weights, ground, start))


def forest_of_cells(cells: Cells, ground: np.ndarray) -> Forest:
    """Of levels that are joined by rows of cells; the rows are vertices after them."""
    size = len(ground)
    counts = np.zeros(size, np.int64)
    kernels.count(cells.index, 0, len(cells), ONES, 0, counts)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    rows = np.empty(len(cells), np.int32)
    _transpose(cells.indptr, cells.index, indptr[:-1].copy(), rows)
    return Forest(*_walk_cells(*cells.arrays, indptr, rows, ground, _starts(counts, ground)))


def _starts(counts: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Where to look for vertices that begin a tree: on the ground, then by the number of edges, the most first."""
    most = int(np.argmax(counts)) if len(counts) else 0
    rest = np.arange(len(counts), dtype=np.int32)
    if np.any(ground > 0):
        return np.argsort(-ground, kind="stable").astype(np.int32)
    rest[0], rest[most] = rest[most], rest[0]
    return rest


@_compiled
def _transpose(indptr, index, places, rows):
    """Rows of the cells of each level."""
    for i in range(len(indptr) - 1):
        for k in range(indptr[i], indptr[i + 1]):
            prefetch_row(rows, places[index[min(k + AHEAD, len(index) - 1)]])
            j = index[k]
            rows[places[j]] = i
            places[j] += 1


@_compiled
def _walk_graph(indptr, index, weights, ground, start):
    """Breadth first; the arrays of :class:`Forest`."""
    n = len(ground)
    order, parent = np.empty(n, np.int32), np.full(n, ROOT, np.int32)
    weight, label = np.zeros(n), np.full(n, -1, np.int32)
    seen = np.zeros(n, np.bool_)
    done, end = 0, 0
    for v in start:
        if ground[v] > 0:
            seen[v], parent[v], weight[v] = True, GROUND, ground[v]
            order[end] = v
            end += 1
    at = 0
    while True:
        while done < end:
            v = order[done]
            done += 1
            for k in range(indptr[v], indptr[v + 1]):
                u = index[k]
                if not seen[u]:
                    seen[u], parent[u], weight[u] = True, v, weights[k]
                    order[end] = u
                    end += 1
        while at < n and seen[start[at]]:
            at += 1
        if at == n:
            break
        seen[start[at]] = True
        order[end] = start[at]
        end += 1
    parts = _number(order, parent, label, n)
    return order, parent, weight, label, parts


@_compiled
def _number(order, parent, label, levels):
    """Give every vertex the number of its tree; how many trees there are."""
    parts = 0
    for v in order:
        if parent[v] < 0:
            label[v] = parts
            parts += 1
        else:
            label[v] = label[parent[v]]
    return parts


@_compiled
def _walk_cells(indptr, index, weights, mask, back, rows, ground, start):
    """Breadth first through levels and rows of cells in turn, until all levels are found.

    Rows are numbered after the levels.
    """
    n, m = len(ground), len(indptr) - 1
    order, parent = np.empty(n + m, np.int32), np.full(n + m, ROOT, np.int32)
    weight, label = np.zeros(n + m), np.full(n + m, -1, np.int32)
    seen = np.zeros(n + m, np.bool_)
    done, end = 0, 0
    for v in start:
        if ground[v] > 0:
            seen[v], parent[v], weight[v] = True, GROUND, ground[v]
            order[end] = v
            end += 1
    at, missing = 0, n
    for v in range(n):
        missing -= seen[v] or back[v] == back[v + 1]
    while True:
        while done < end and missing > 0:
            v = order[done]
            done += 1
            if v >= n:
                continue
            for k in range(back[v], back[v + 1]):
                i = rows[k]
                if seen[n + i]:
                    continue
                seen[n + i], parent[n + i] = True, v
                order[end] = n + i
                end += 1
                for c in range(indptr[i], indptr[i + 1]):
                    u = index[c]
                    if u == v:
                        weight[n + i] = weights[c & mask]
                    elif not seen[u]:
                        seen[u], parent[u], weight[u] = True, n + i, weights[c & mask]
                        order[end] = u
                        end += 1
                        missing -= 1
        while at < n and seen[start[at]]:
            at += 1
        if at == n:
            break
        seen[start[at]] = True
        order[end] = start[at]
        end += 1
        missing -= back[start[at]] < back[start[at] + 1]
    order = order[:end].copy()
    parts = _number(order, parent, label, n)
    return order, parent, weight, label, parts


@_compiled
def _carry(order, parent, weight, flow, out):
    """Carry what every vertex has to its parent, the last first; ``out`` the energy of it."""
    for k in range(len(order) - 1, -1, -1):
        v = order[k]
        u, w = parent[v], weight[v]
        if u == ROOT:
            continue
        for c in range(flow.shape[1]):
            f = flow[v, c]
            out[c] += f * f / w
            if u >= 0:
                flow[u, c] += f
