r"""Approximate Cholesky factorization of a graph Laplacian, a preconditioner for conjugate gradients.

Eliminating a vertex v with edges of weight ``w_1 … w_k``, ``W = Σ w_i + c`` in all, leaves a clique with weights
``w_i w_j / W`` between its neighbours. Gao, Kyng and Spielman [1]_ put a random tree in its place: neighbours are taken
by ascending weight, and each chooses one of those after it, j with probability ``w_j / s_i``, ``s_i = Σ_{j>i} w_j``;
the edge gets the weight ``w_i s_i / W``. Its expectation is the clique. k edges become k − 1, so that the factor stays
sparse; with one or two neighbours nothing is random, and trees and chains are eliminated exactly. What a diagonal adds
to the Laplacian is an edge of weight c to a ground that is never eliminated.

Vertices are eliminated by ascending degree, as it is just then, edges that run side by side counted one by one until
one of their ends is eliminated and they are added up.

Random numbers are counted by elimination: same seed, same factor.

References
----------
.. [1] Y. Gao, R. Kyng, D. A. Spielman, "Robust and practical solution of Laplacian equations by approximate
   elimination", arXiv:2303.00709, 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from leyden.solve.absorb._random import random
from leyden.solve.absorb.cells import Cells

_compiled = njit(nogil=True, cache=True, error_model="numpy")

#: Hash of the source that is compiled into the functions here from another file; see ``_absorb_kernels``.
COMPILED_FROM = "9646cbf07790b7b7"

#: Degrees that have a bucket of their own in the queue; higher ones share one for each doubling.
EXACT_DEGREES = 128
#: Neighbours up to which they are sorted by insertion.
SHORT = 32


@dataclass(frozen=True)
class ApproximateCholesky:
    """``L D Lᵀ`` of a permuted Laplacian, L unit lower triangular.

    Attributes
    ----------
    place : int32, shape (n,)
        When each vertex is eliminated.
    indptr : int64, shape (n + 1,)
    rows : int32
        Places of the entries below the diagonal of each column.
    entries : float64
        Those entries, their sign changed.
    inverse : float64, shape (n,)
        Of the diagonal D; 0 for the last vertex of a part that is not tied to the ground.
    """

    place: np.ndarray
    indptr: np.ndarray
    rows: np.ndarray
    entries: np.ndarray
    inverse: np.ndarray

    def solve(self, r: np.ndarray, z: np.ndarray) -> None:
        """``z = (L D Lᵀ)⁺ r``, four columns."""
        work = np.empty_like(r)
        _solve(self.place, self.indptr, self.rows, self.entries, self.inverse, r, work, z)


def approximate_cholesky(graph: Cells, ground: np.ndarray, seed: int) -> ApproximateCholesky:
    """Factor the Laplacian of a graph plus a diagonal.

    Parameters
    ----------
    graph : Cells
        Edges of each vertex, both ways, none of them twice.
    ground : float64, shape (n,)
        The diagonal, zero or more.
    seed : int
    """
    found = _eliminate(graph.indptr, graph.index, graph.weights, ground, np.uint64(seed))
    return ApproximateCholesky(*found)


@_compiled
def _bucket(degree):
    """Bucket of the queue that a degree belongs to."""
    if degree < EXACT_DEGREES:
        return degree
    bucket = EXACT_DEGREES
    degree //= EXACT_DEGREES
    while degree > 1:
        degree //= 2
        bucket += 1
    return bucket


@_compiled
def _take_out(v, bucket, first, following, preceding):
    """Take a vertex out of its bucket."""
    after, before = following[v], preceding[v]
    if before >= 0:
        following[before] = after
    else:
        first[bucket] = after
    if after >= 0:
        preceding[after] = before


@_compiled
def _put_in(v, bucket, first, following, preceding):
    """Put a vertex in front of a bucket."""
    following[v], preceding[v] = first[bucket], -1
    if first[bucket] >= 0:
        preceding[first[bucket]] = v
    first[bucket] = v


@_compiled
def _half_edges(indptr, index, weights):
    """Every edge as two halves, ``2e`` and ``2e + 1``: the vertex it leads to, and the next half of the same vertex."""
    n = len(indptr) - 1
    count = indptr[n] // 2
    to, following = np.empty(2 * count, np.int32), np.empty(2 * count, np.int64)
    weight = np.empty(count)
    head, degree = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    e = 0
    for a in range(n):
        for k in range(indptr[a], indptr[a + 1]):
            b = index[k]
            if b <= a:
                continue
            weight[e] = weights[k]
            to[2 * e], to[2 * e + 1] = b, a
            following[2 * e], following[2 * e + 1] = head[a], head[b]
            head[a], head[b] = 2 * e, 2 * e + 1
            degree[a] += 1
            degree[b] += 1
            e += 1
    return to, following, weight, head, degree


@_compiled
def _sort_by_weight(halves, neighbours, sizes, count):
    """Sort the first ``count`` of three arrays by the third."""
    if count > SHORT:
        order = np.argsort(sizes[:count], kind="mergesort")
        halves[:count] = halves[:count][order]
        neighbours[:count] = neighbours[:count][order]
        sizes[:count] = sizes[:count][order]
        return
    for i in range(1, count):
        h, u, w = halves[i], neighbours[i], sizes[i]
        j = i - 1
        while j >= 0 and sizes[j] > w:
            halves[j + 1], neighbours[j + 1], sizes[j + 1] = halves[j], neighbours[j], sizes[j]
            j -= 1
        halves[j + 1], neighbours[j + 1], sizes[j + 1] = h, u, w


@_compiled
def _longer(array, count):
    out = np.empty(count, array.dtype)
    out[: len(array)] = array
    return out


@_compiled
def _fewer(u, degree, lowest, queue):
    """One edge less for a vertex; the lowest bucket that may now hold one."""
    first, after, before = queue
    old = _bucket(degree[u])
    degree[u] -= 1
    new = _bucket(degree[u])
    if new != old:
        _take_out(u, old, first, after, before)
        _put_in(u, new, first, after, before)
    return min(lowest, new)


@_compiled
def _more(u, degree, queue):
    """One edge more for a vertex."""
    first, after, before = queue
    old = _bucket(degree[u])
    degree[u] += 1
    if _bucket(degree[u]) != old:
        _take_out(u, old, first, after, before)
        _put_in(u, _bucket(degree[u]), first, after, before)


@_compiled
def _chosen(sums, i, count, uniform):
    """The neighbour after i that a number in [0, 1) chooses, with a probability in proportion to its weight."""
    remain = (1.0 - uniform) * sums[i + 1]
    low, high = i + 1, count - 1
    while low < high:
        middle = (low + high + 1) // 2
        if sums[middle] >= remain:
            low = middle
        else:
            high = middle - 1
    return low


@_compiled
def _gather(v, edges, degree, lowest, queue, slot, halves, neighbours, sizes):
    """Neighbours of a vertex, edges side by side added up; how many, their weight, and the lowest bucket."""
    to, following, weight, head = edges
    count, total, h = 0, 0.0, head[v]
    while h >= 0:
        w, u, onward = weight[h >> 1], to[h], following[h]
        if w > 0:
            total += w
            if slot[u] < 0:
                halves[count], neighbours[count], sizes[count] = h, u, w
                slot[u] = count
                count += 1
            else:
                sizes[slot[u]] += w
                weight[h >> 1] = 0.0
                lowest = _fewer(u, degree, lowest, queue)
        h = onward
    for i in range(count):
        slot[neighbours[i]] = -1
    return count, total, lowest


@_compiled
def _replace(count, total, seed, drawn, edges, tied, degree, lowest, queue, halves, neighbours, sizes, sums):
    """A random tree in the place of the clique between neighbours, sorted; the ground is neighbour −1."""
    to, following, weight, head = edges
    sums[count] = 0.0
    for i in range(count - 1, -1, -1):
        sums[i] = sums[i + 1] + sizes[i]
    for i in range(count):
        u, h, t, new = neighbours[i], halves[i], np.int64(-2), 0.0
        if i + 1 < count:
            t = neighbours[_chosen(sums, i, count, random(seed, drawn + i))]
            new = sizes[i] * sums[i + 1] / total
        if u >= 0 and t >= 0 and new > 0:
            # The half at u stays where it is and leads to t; the other moves to t and leads to u.
            weight[h >> 1] = new
            to[h ^ 1], to[h] = t, u
            following[h], head[t] = head[t], h
            _more(t, degree, queue)
            continue
        if t == -1:
            tied[u] += new
        if u == -1 and t >= 0:
            tied[t] += new
        if u >= 0:
            weight[h >> 1] = 0.0
            lowest = _fewer(u, degree, lowest, queue)
    return lowest


@_compiled
def _eliminate(indptr, index, weights, ground, seed):
    """Eliminate all vertices; the arrays of :class:`ApproximateCholesky`."""
    n = len(indptr) - 1
    to, following, weight, head, degree = _half_edges(indptr, index, weights)
    edges, tied = (to, following, weight, head), ground.copy()
    first = np.full(EXACT_DEGREES + 64, -1, np.int64)
    queue = (first, np.empty(n, np.int64), np.empty(n, np.int64))
    for v in range(n - 1, -1, -1):
        _put_in(v, _bucket(degree[v]), *queue)
    place, slot = np.empty(n, np.int32), np.full(n, -1, np.int64)
    columns, inverse = np.zeros(n + 1, np.int64), np.zeros(n)
    rows, entries = np.empty(len(weight) + n, np.int32), np.empty(len(weight) + n)
    halves, neighbours, sizes, sums = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64), np.empty(65)
    filled, lowest, drawn = np.int64(0), np.int64(0), np.int64(0)
    for step in range(n):
        while first[lowest] < 0:
            lowest += 1
        v = first[lowest]
        _take_out(v, lowest, *queue)
        place[v] = step
        if degree[v] + 1 > len(halves):
            room = 2 * (degree[v] + 1)
            halves, neighbours = np.empty(room, np.int64), np.empty(room, np.int64)
            sizes, sums = np.empty(room), np.empty(room + 1)
        count, total, lowest = _gather(v, edges, degree, lowest, queue, slot, halves, neighbours, sizes)
        total += tied[v]
        if filled + count > len(rows):
            rows, entries = _longer(rows, 2 * (filled + count)), _longer(entries, 2 * (filled + count))
        for i in range(count):
            rows[filled + i], entries[filled + i] = neighbours[i], sizes[i] / total
        filled += count
        columns[step + 1] = filled
        inverse[step] = 1.0 / total if total > 0 else 0.0
        if tied[v] > 0:
            halves[count], neighbours[count], sizes[count] = -1, -1, tied[v]
            count += 1
        _sort_by_weight(halves, neighbours, sizes, count)
        lowest = _replace(
            count, total, seed, drawn, edges, tied, degree, lowest, queue, halves, neighbours, sizes, sums
        )
        drawn += count
    rows, entries = rows[:filled].copy(), entries[:filled].copy()
    for k in range(filled):
        rows[k] = place[rows[k]]
    return place, columns, rows, entries, inverse


@_compiled
def _solve(place, indptr, rows, entries, inverse, r, y, z):
    """Forward and back substitution in the order of elimination, four columns at once."""
    n = len(place)
    for v in range(n):
        s = place[v]
        y[s, 0], y[s, 1], y[s, 2], y[s, 3] = r[v, 0], r[v, 1], r[v, 2], r[v, 3]
    for s in range(n):
        y0, y1, y2, y3 = y[s, 0], y[s, 1], y[s, 2], y[s, 3]
        for k in range(indptr[s], indptr[s + 1]):
            t, f = rows[k], entries[k]
            y[t, 0] += f * y0
            y[t, 1] += f * y1
            y[t, 2] += f * y2
            y[t, 3] += f * y3
        d = inverse[s]
        y[s, 0], y[s, 1], y[s, 2], y[s, 3] = d * y0, d * y1, d * y2, d * y3
    for i in range(n):
        s = n - 1 - i
        y0, y1, y2, y3 = y[s, 0], y[s, 1], y[s, 2], y[s, 3]
        for k in range(indptr[s], indptr[s + 1]):
            t, f = rows[k], entries[k]
            y0 += f * y[t, 0]
            y1 += f * y[t, 1]
            y2 += f * y[t, 2]
            y3 += f * y[t, 3]
        y[s, 0], y[s, 1], y[s, 2], y[s, 3] = y0, y1, y2, y3
    for v in range(n):
        s = place[v]
        z[v, 0], z[v, 1], z[v, 2], z[v, 3] = y[s, 0], y[s, 1], y[s, 2], y[s, 3]
