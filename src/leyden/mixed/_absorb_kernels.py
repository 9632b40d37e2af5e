"""Compiled kernels of absorption. Each has a plain NumPy twin in the tests.

Columns travel four at a time: a row of :data:`LANES` float64 is half a cache line, and one gather serves all of them.
Weights come as an array and a ``mask``: entry ``k & mask``, so that weights that are all one are an array of one entry
and the mask 0; any others have the mask −1.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Right-hand sides that are worked on at once.
LANES = 4

_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def count(codes, first, last, weights, mask, counts):
    """Add to ``counts`` the rows of each level in ``first:last`` whose weight is not zero; least and largest code."""
    low, high = np.int64(2**62), np.int64(-1)
    for k in range(first, last):
        c = np.int64(codes[k])
        low, high = min(low, c), max(high, c)
        if c >= 0 and c < len(counts) and weights[k & mask] != 0:
            counts[c] += 1
    return low, high


@_compiled
def place(codes, payload, weights, mask, first, last, places, out, out_weights):
    """Write ``payload[k]`` and its weight to where the next row of its level goes; ``places`` moves on."""
    for k in range(first, last):
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
        if mask:
            total = 0.0
            for k in range(indptr[i], indptr[i + 1]):
                total += weights[k]
            out[i] = total
        else:
            out[i] = indptr[i + 1] - indptr[i]


@_compiled
def schur_diagonal(indptr, index, weights, mask, inverse, first, last, total, out):
    """Add to ``total`` the weights of each level of one other factor, to ``out`` the diagonal of its complement."""
    for i in range(first, last):
        for k in range(indptr[i], indptr[i + 1]):
            j, w = index[k], weights[k & mask]
            total[j] += w
            out[j] += w - w * (w * inverse[i])


@_compiled
def schur_product(indptr, index, weights, mask, inverse, first, last, z, out):
    """Add ``(D − Cᵀ D₀⁻¹ C) z`` of the rows ``first:last`` of one other factor, in terms of differences.

    ``indptr`` (rows + 1,), ``index`` (cells,), ``inverse`` (rows,) of D₀ with its penalty, ``z`` and ``out`` (levels, 4).
    """
    for i in range(first, last):
        begin, end = indptr[i], indptr[i + 1]
        t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
        for k in range(begin, end):
            j, w = index[k], weights[k & mask]
            t0 += w * z[j, 0]
            t1 += w * z[j, 1]
            t2 += w * z[j, 2]
            t3 += w * z[j, 3]
        f = inverse[i]
        t0 *= f
        t1 *= f
        t2 *= f
        t3 *= f
        for k in range(begin, end):
            j, w = index[k], weights[k & mask]
            out[j, 0] += w * (z[j, 0] - t0)
            out[j, 1] += w * (z[j, 1] - t1)
            out[j, 2] += w * (z[j, 2] - t2)
            out[j, 3] += w * (z[j, 3] - t3)


@_compiled
def schur_product_many(indptr, index, weights, mask, inverse, first, last, z, out):
    """As :func:`schur_product` for any number of other factors: ``index`` is (cells, factors − 1)."""
    factors = index.shape[1]
    for i in range(first, last):
        begin, end = indptr[i], indptr[i + 1]
        t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
        for k in range(begin, end):
            w = weights[k & mask]
            for f in range(factors):
                j = index[k, f]
                t0 += w * z[j, 0]
                t1 += w * z[j, 1]
                t2 += w * z[j, 2]
                t3 += w * z[j, 3]
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
                s0 += z[j, 0]
                s1 += z[j, 1]
                s2 += z[j, 2]
                s3 += z[j, 3]
            for f in range(factors):
                j = index[k, f]
                out[j, 0] += w * s0
                out[j, 1] += w * s1
                out[j, 2] += w * s2
                out[j, 3] += w * s3


@_compiled
def schur_right_side(indptr, index, weights, mask, inverse, first, last, b, out):
    """Subtract ``Cᵀ D₀⁻¹ b`` of the rows ``first:last`` from ``out``; ``index`` (cells, factors − 1), ``b`` (rows, 4)."""
    for i in range(first, last):
        f = inverse[i]
        t0, t1, t2, t3 = f * b[i, 0], f * b[i, 1], f * b[i, 2], f * b[i, 3]
        for k in range(indptr[i], indptr[i + 1]):
            w = weights[k & mask]
            for g in range(index.shape[1]):
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
        j, w = codes[first + k], weights[(first + k) & mask]
        out[j, 0] += w * values[k, column]
        out[j, 1] += w * values[k, column + 1]
        out[j, 2] += w * values[k, column + 2]
        out[j, 3] += w * values[k, column + 3]


@_compiled
def subtract_effects(values, column, codes, first, effects):
    """Subtract the rows ``codes[first:]`` of ``effects`` from ``values[:, column:column+4]``."""
    for k in range(len(values)):
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
def step_diagonal(x, r, p, s, alpha, inverse, z, out):
    """``x += α p``, ``r −= α s``, ``z = inverse · r``, and ``out = rᵀz``."""
    a0, a1, a2, a3 = alpha[0], alpha[1], alpha[2], alpha[3]
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    for k in range(len(x)):
        x[k, 0] += a0 * p[k, 0]
        x[k, 1] += a1 * p[k, 1]
        x[k, 2] += a2 * p[k, 2]
        x[k, 3] += a3 * p[k, 3]
        r0, r1 = r[k, 0] - a0 * s[k, 0], r[k, 1] - a1 * s[k, 1]
        r2, r3 = r[k, 2] - a2 * s[k, 2], r[k, 3] - a3 * s[k, 3]
        r[k, 0], r[k, 1], r[k, 2], r[k, 3] = r0, r1, r2, r3
        d = inverse[k]
        z[k, 0], z[k, 1], z[k, 2], z[k, 3] = d * r0, d * r1, d * r2, d * r3
        t0 += d * r0 * r0
        t1 += d * r1 * r1
        t2 += d * r2 * r2
        t3 += d * r3 * r3
    out[0], out[1], out[2], out[3] = t0, t1, t2, t3


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
def merge_parts(parts, diagonal, z, out, s):
    """``out = Σ parts + diagonal · z`` and ``s = zᵀ out``; ``parts`` (k, levels, 4)."""
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    for k in range(len(out)):
        d = diagonal[k]
        s0, s1, s2, s3 = d * z[k, 0], d * z[k, 1], d * z[k, 2], d * z[k, 3]
        for c in range(len(parts)):
            s0 += parts[c, k, 0]
            s1 += parts[c, k, 1]
            s2 += parts[c, k, 2]
            s3 += parts[c, k, 3]
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
                out[places[b]], out_weights[places[b]] = a, w
                places[a] += 1
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
