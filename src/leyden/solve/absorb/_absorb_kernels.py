"""Compiled kernels of absorption. Each has a plain NumPy twin in the tests.

Columns travel four at a time: a row of :data:`LANES` float64 is half a cache line, and one gather serves all of them.
Weights come as an array and a ``mask``: entry ``k & mask``, so that weights that are all one are an array of one entry
and the mask 0; any others have the mask −1.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from leyden.solve.absorb._prefetch import AHEAD, prefetch_row
from leyden.solve.absorb._random import random

#: Hash of the sources that are compiled into the kernels here. Numba keeps what it compiled for as long as this file
#: stays as it is, and looks at no other: when they change, a test asks for the new hash to be written here.
COMPILED_FROM = "f422fa986771a9c8"

#: Right-hand sides that are worked on at once.
LANES = 4

_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def count(codes, first, last, weights, mask, counts):
    """Add to ``counts`` the rows of each level in ``first:last`` whose weight is not zero."""
    for k in range(first, last):
        prefetch_row(counts, codes[min(k + AHEAD, last - 1)])
        if weights[k & mask] != 0:
            counts[codes[k]] += 1


@_compiled
def place(codes, payload, weights, mask, first, last, places, out, out_weights):
    """Write ``payload[k]`` and its weight to where the next row of its level goes; ``places`` moves on."""
    for k in range(first, last):
        # What is at a place that is AHEAD away is needed when that place is known, which is nearer.
        prefetch_row(places, codes[min(k + AHEAD, last - 1)])
        prefetch_row(out, places[codes[min(k + AHEAD // 2, last - 1)]])
        w = weights[k & mask]
        if w != 0:
            at = places[codes[k]]
            places[codes[k]] = at + 1
            out[at] = payload[k]
            if mask:
                out_weights[at] = w


@_compiled
def distinct(indptr, index, first, last, seen, counts):
    """How many different values ``index`` has in each of the rows ``first:last``; ``seen`` holds −1 to begin with."""
    for i in range(first, last):
        found = 0
        for k in range(indptr[i], indptr[i + 1]):
            if seen[index[k]] != i:
                seen[index[k]] = i
                found += 1
        counts[i] = found


@_compiled
def merge_cells(indptr, index, weights, mask, first, last, seen, merged, out, out_weights):
    """Rows ``first:last`` with equal entries of ``index`` added up, in the order in which they first occur."""
    for i in range(first, last):
        begin, here = merged[i], merged[i]
        for k in range(indptr[i], indptr[i + 1]):
            j = index[k]
            if seen[j] >= begin:
                out_weights[seen[j]] += weights[k & mask]
            else:
                seen[j] = here
                out[here] = j
                out_weights[here] = weights[k & mask]
                here += 1


@_compiled
def level_weights(indptr, weights, mask, first, last, out):
    """Sum of the weights of each row in ``first:last``."""
    for i in range(first, last):
        total = 0.0
        for k in range(indptr[i], indptr[i + 1]):
            total += weights[k & mask]
        out[i] = total


@_compiled
def schur_diagonal(indptr, index, weights, mask, inverse, first, last, total, out):
    """Add to ``total`` the weights of each level of one other factor, to ``out`` the diagonal of its complement."""
    for i in range(first, last):
        for k in range(indptr[i], indptr[i + 1]):
            prefetch_row(total, index[min(k + AHEAD, len(index) - 1)])
            prefetch_row(out, index[min(k + AHEAD, len(index) - 1)])
            j, w = index[k], weights[k & mask]
            total[j] += w
            out[j] += w - w * (w * inverse[i])


@_compiled
def schur_product(indptr, index, weights, mask, inverse, first, last, lines):
    """Add ``(D − Cᵀ D₀⁻¹ C) z`` of the rows ``first:last`` of one other factor, in terms of differences.

    ``indptr`` (rows + 1,), ``index`` (cells,), ``inverse`` (rows,) of D₀ with its penalty. ``lines`` (levels, 8) holds
    z in the first four columns and takes the sums in the others: both on one line of the cache.
    """
    for i in range(first, last):
        begin, end = indptr[i], indptr[i + 1]
        t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
        for k in range(begin, end):
            prefetch_row(lines, index[min(k + AHEAD, len(index) - 1)])
            j, w = index[k], weights[k & mask]
            t0 += w * lines[j, 0]
            t1 += w * lines[j, 1]
            t2 += w * lines[j, 2]
            t3 += w * lines[j, 3]
        f = inverse[i]
        t0 *= f
        t1 *= f
        t2 *= f
        t3 *= f
        for k in range(begin, end):
            j, w = index[k], weights[k & mask]
            lines[j, 4] += w * (lines[j, 0] - t0)
            lines[j, 5] += w * (lines[j, 1] - t1)
            lines[j, 6] += w * (lines[j, 2] - t2)
            lines[j, 7] += w * (lines[j, 3] - t3)


@_compiled
def schur_product_many(indptr, index, weights, mask, inverse, first, last, lines):
    """As :func:`schur_product` for any number of other factors: ``index`` is (cells, factors − 1)."""
    factors = index.shape[1]
    for i in range(first, last):
        begin, end = indptr[i], indptr[i + 1]
        t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
        for k in range(begin, end):
            w = weights[k & mask]
            for f in range(factors):
                prefetch_row(lines, index[min(k + AHEAD, len(index) - 1), f])
                j = index[k, f]
                t0 += w * lines[j, 0]
                t1 += w * lines[j, 1]
                t2 += w * lines[j, 2]
                t3 += w * lines[j, 3]
        s = inverse[i]
        t0 *= s
        t1 *= s
        t2 *= s
        t3 *= s
        for k in range(begin, end):
            w = weights[k & mask]
            s0, s1, s2, s3 = -t0, -t1, -t2, -t3
            for f in range(factors):
                j = index[k, f]
                s0 += lines[j, 0]
                s1 += lines[j, 1]
                s2 += lines[j, 2]
                s3 += lines[j, 3]
            for f in range(factors):
                j = index[k, f]
                lines[j, 4] += w * s0
                lines[j, 5] += w * s1
                lines[j, 6] += w * s2
                lines[j, 7] += w * s3


@_compiled
def spread(z, lines):
    """z to the first four columns of ``lines``, zeros to the others."""
    for k in range(len(z)):
        lines[k, 0], lines[k, 1], lines[k, 2], lines[k, 3] = z[k, 0], z[k, 1], z[k, 2], z[k, 3]
        lines[k, 4] = lines[k, 5] = lines[k, 6] = lines[k, 7] = 0.0


@_compiled
def schur_right_side(indptr, index, weights, mask, inverse, first, last, b, out):
    """Subtract ``Cᵀ D₀⁻¹ b`` of the rows ``first:last`` from ``out``; ``index`` is (cells, factors − 1)."""
    for i in range(first, last):
        f = inverse[i]
        t0, t1, t2, t3 = f * b[i, 0], f * b[i, 1], f * b[i, 2], f * b[i, 3]
        for k in range(indptr[i], indptr[i + 1]):
            w = weights[k & mask]
            for g in range(index.shape[1]):
                prefetch_row(out, index[min(k + AHEAD, len(index) - 1), g])
                j = index[k, g]
                out[j, 0] -= w * t0
                out[j, 1] -= w * t1
                out[j, 2] -= w * t2
                out[j, 3] -= w * t3


@_compiled
def back_substitute(indptr, index, weights, mask, inverse, first, last, b, z, out):
    """``out = D₀⁻¹ (b − C z)`` of the rows ``first:last``."""
    for i in range(first, last):
        t0, t1, t2, t3 = b[i, 0], b[i, 1], b[i, 2], b[i, 3]
        for k in range(indptr[i], indptr[i + 1]):
            w = weights[k & mask]
            for g in range(index.shape[1]):
                prefetch_row(z, index[min(k + AHEAD, len(index) - 1), g])
                j = index[k, g]
                t0 -= w * z[j, 0]
                t1 -= w * z[j, 1]
                t2 -= w * z[j, 2]
                t3 -= w * z[j, 3]
        f = inverse[i]
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = f * t0, f * t1, f * t2, f * t3


@_compiled
def level_sums(values, column, weights, mask, codes, first, out):
    """Add ``w · values[:, column:column+4]`` to the rows ``codes[first:]`` of ``out``."""
    for k in range(len(values)):
        prefetch_row(out, codes[min(first + k + AHEAD, len(codes) - 1)])
        j, w = codes[first + k], weights[(first + k) & mask]
        out[j, 0] += w * values[k, column]
        out[j, 1] += w * values[k, column + 1]
        out[j, 2] += w * values[k, column + 2]
        out[j, 3] += w * values[k, column + 3]


@_compiled
def subtract_effects(values, column, codes, first, effects):
    """Subtract the rows ``codes[first:]`` of ``effects`` from ``values[:, column:column+4]``."""
    for k in range(len(values)):
        prefetch_row(effects, codes[min(first + k + AHEAD, len(codes) - 1)])
        j = codes[first + k]
        values[k, column] -= effects[j, 0]
        values[k, column + 1] -= effects[j, 1]
        values[k, column + 2] -= effects[j, 2]
        values[k, column + 3] -= effects[j, 3]


@_compiled
def dots(a, b, out):
    """``out[c] = a[:, c] · b[:, c]``."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for k in range(len(a)):
        s0 += a[k, 0] * b[k, 0]
        s1 += a[k, 1] * b[k, 1]
        s2 += a[k, 2] * b[k, 2]
        s3 += a[k, 3] * b[k, 3]
    out[0], out[1], out[2], out[3] = s0, s1, s2, s3


@_compiled
def add_scaled(x, alpha, p):
    """``x += p · alpha``, a factor a lane."""
    a0, a1, a2, a3 = alpha[0], alpha[1], alpha[2], alpha[3]
    for k in range(len(x)):
        x[k, 0] += a0 * p[k, 0]
        x[k, 1] += a1 * p[k, 1]
        x[k, 2] += a2 * p[k, 2]
        x[k, 3] += a3 * p[k, 3]


@_compiled
def scale_add(p, beta, z):
    """``p = z + beta · p``, a factor a lane."""
    b0, b1, b2, b3 = beta[0], beta[1], beta[2], beta[3]
    for k in range(len(p)):
        p[k, 0] = z[k, 0] + b0 * p[k, 0]
        p[k, 1] = z[k, 1] + b1 * p[k, 1]
        p[k, 2] = z[k, 2] + b2 * p[k, 2]
        p[k, 3] = z[k, 3] + b3 * p[k, 3]


@_compiled
def merge_lines(lines, diagonal, z, first, last, out, s):
    """``out = Σ lines[:, :, 4:] + diagonal · z`` of the levels ``first:last``, and ``s = zᵀ out`` of them."""
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    for k in range(first, last):
        d = diagonal[k]
        s0, s1, s2, s3 = d * z[k, 0], d * z[k, 1], d * z[k, 2], d * z[k, 3]
        for c in range(len(lines)):
            s0 += lines[c, k, 4]
            s1 += lines[c, k, 5]
            s2 += lines[c, k, 6]
            s3 += lines[c, k, 7]
        out[k, 0], out[k, 1], out[k, 2], out[k, 3] = s0, s1, s2, s3
        t0 += s0 * z[k, 0]
        t1 += s1 * z[k, 1]
        t2 += s2 * z[k, 2]
        t3 += s3 * z[k, 3]
    s[0], s[1], s[2], s[3] = t0, t1, t2, t3


@_compiled
def pair_counts(indptr, index, counts):
    """How many neighbours each level has through the rows of a CSR structure, with repeats."""
    for i in range(len(indptr) - 1):
        others = indptr[i + 1] - indptr[i] - 1
        for k in range(indptr[i], indptr[i + 1]):
            counts[index[k]] += others


@_compiled
def pair_fill(indptr, index, weights, mask, inverse, places, out, out_weights):
    """The edges ``w w' / d`` between all levels that meet in a row, both ways."""
    for i in range(len(indptr) - 1):
        for k in range(indptr[i], indptr[i + 1]):
            a, wa = index[k], weights[k & mask] * inverse[i]
            for m in range(indptr[i], k):
                b, w = index[m], wa * weights[m & mask]
                out[places[a]], out_weights[places[a]] = b, w
                places[a] += 1
                out[places[b]], out_weights[places[b]] = a, w
                places[b] += 1


@_compiled
def excess(indptr, index, weights, mask, inverse, penalty, out):
    """Add ``w λ / (d + λ)``: what ties the levels of the other factor to zero through a penalised one."""
    for i in range(len(indptr) - 1):
        for k in range(indptr[i], indptr[i + 1]):
            out[index[k]] += weights[k & mask] * (penalty * inverse[i])


@_compiled
def laplacian_product(indptr, index, weights, diagonal, first, last, z, out, s):
    """``out[j] = diagonal z[j] + Σ w (z[j] − z[k])`` of the rows ``first:last`` of a graph, and ``s = zᵀ out``."""
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    for j in range(first, last):
        z0, z1, z2, z3 = z[j, 0], z[j, 1], z[j, 2], z[j, 3]
        d = diagonal[j]
        s0, s1, s2, s3 = d * z0, d * z1, d * z2, d * z3
        for k in range(indptr[j], indptr[j + 1]):
            i, w = index[k], weights[k]
            s0 += w * (z0 - z[i, 0])
            s1 += w * (z1 - z[i, 1])
            s2 += w * (z2 - z[i, 2])
            s3 += w * (z3 - z[i, 3])
        out[j, 0], out[j, 1], out[j, 2], out[j, 3] = s0, s1, s2, s3
        t0 += s0 * z0
        t1 += s1 * z1
        t2 += s2 * z2
        t3 += s3 * z3
    s[0], s[1], s[2], s[3] = t0, t1, t2, t3


@_compiled
def sort_rows(indptr, index, weights):
    """The cells of every row by ascending weight, in place."""
    for i in range(len(indptr) - 1):
        begin, end = indptr[i], indptr[i + 1]
        if end - begin > 32:
            order = np.argsort(weights[begin:end], kind="mergesort")
            index[begin:end] = index[begin:end][order]
            weights[begin:end] = weights[begin:end][order]
            continue
        for k in range(begin + 1, end):
            j, w = index[k], weights[k]
            m = k - 1
            while m >= begin and weights[m] > w:
                index[m + 1], weights[m + 1] = index[m], weights[m]
                m -= 1
            index[m + 1], weights[m + 1] = j, w


@_compiled
def _drawn(indptr, i, k, sums, seed):
    """The cell after k that cell k of row i is joined to, with a probability in proportion to its weight."""
    begin, last = indptr[i], indptr[i + 1] - 1
    remain = (1.0 - random(seed, k)) * sums[k + 1 - begin]
    low, high = k + 1, last
    while low < high:
        middle = (low + high + 1) // 2
        if sums[middle - begin] >= remain:
            low = middle
        else:
            high = middle - 1
    return low


@_compiled
def _tails(indptr, weights, mask, i, sums):
    """Weights of row i summed from its end; a longer array where they do not fit."""
    count = indptr[i + 1] - indptr[i]
    if count + 1 > len(sums):
        sums = np.empty(2 * (count + 1))
    sums[count] = 0.0
    for k in range(count - 1, -1, -1):
        sums[k] = sums[k + 1] + weights[(indptr[i] + k) & mask]
    return sums


@_compiled
def tree_counts(indptr, index, weights, mask, seed, counts):
    """Neighbours each level has when every row is replaced by a random tree; see :func:`tree_fill`."""
    sums = np.empty(64)
    for i in range(len(indptr) - 1):
        sums = _tails(indptr, weights, mask, i, sums)
        for k in range(indptr[i], indptr[i + 1] - 1):
            counts[index[k]] += 1
            counts[index[_drawn(indptr, i, k, sums, seed)]] += 1


@_compiled
def tree_fill(indptr, index, weights, mask, inverse, seed, places, out, out_weights):
    """The edges of random trees whose expectation is the clique of each row, both ways.

    As in :mod:`leyden.solve.absorb.approximate_cholesky`, in the order of the cells, that of their weights.
    """
    sums = np.empty(64)
    for i in range(len(indptr) - 1):
        sums = _tails(indptr, weights, mask, i, sums)
        for k in range(indptr[i], indptr[i + 1] - 1):
            a, b = index[k], index[_drawn(indptr, i, k, sums, seed)]
            w = weights[k & mask] * sums[k + 1 - indptr[i]] * inverse[i]
            out[places[a]], out_weights[places[a]] = b, w
            places[a] += 1
            out[places[b]], out_weights[places[b]] = a, w
            places[b] += 1


@_compiled
def add_cliques(indptr, index, weights, mask, inverse, first, last, out):
    """Add ``−w w' / d`` of the rows ``first:last`` to a dense matrix."""
    for i in range(first, last):
        for k in range(indptr[i], indptr[i + 1]):
            w = weights[k & mask] * inverse[i]
            for m in range(indptr[i], indptr[i + 1]):
                out[index[k], index[m]] -= w * weights[m & mask]


@_compiled
def scale_rows(r, inverse, z):
    """``z = inverse · r``, a factor a row."""
    for k in range(len(r)):
        d = inverse[k]
        z[k, 0], z[k, 1], z[k, 2], z[k, 3] = d * r[k, 0], d * r[k, 1], d * r[k, 2], d * r[k, 3]


@_compiled
def unite(a, b, levels, weights, mask, sets, used):
    """Join level ``a[i]`` with level ``b[i]``, counted after ``levels`` others, for every row with a weight.

    ``sets`` holds a representative of the set of every level, each its own to begin with, and the last one in the end.
    """
    for k in range(len(a)):
        if weights[k & mask] == 0:
            continue
        x, y = np.int64(a[k]), levels + np.int64(b[k])
        used[x] = used[y] = True
        while sets[x] != x:
            sets[x] = sets[sets[x]]
            x = sets[x]
        while sets[y] != y:
            sets[y] = sets[sets[y]]
            y = sets[y]
        if x < y:
            sets[y] = x
        elif y < x:
            sets[x] = y
    for k in range(len(sets)):
        sets[k] = sets[sets[k]]


@_compiled
def mark(codes, levels, weights, mask, first, last, out):
    """Set ``out`` for the rows ``first:last`` with a weight whose level is marked."""
    for k in range(first, last):
        if levels[codes[k]] and weights[k & mask] != 0:
            out[k] = True


@_compiled
def subtract_from(e, codes, first, effects):
    """Subtract the effects of levels ``codes[first:]`` from ``e``."""
    for k in range(len(e)):
        prefetch_row(effects, codes[min(first + k + AHEAD, len(codes) - 1)])
        e[k] -= effects[codes[first + k]]


@_compiled
def add_to_levels(e, weights, mask, codes, first, out):
    """Add ``w e`` to the levels ``codes[first:]`` of ``out``."""
    for k in range(len(e)):
        prefetch_row(out, codes[min(first + k + AHEAD, len(codes) - 1)])
        out[codes[first + k]] += weights[(first + k) & mask] * e[k]
