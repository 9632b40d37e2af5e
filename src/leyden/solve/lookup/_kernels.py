"""Groups of rows whose features are looked up in a table: their Schur complements, their residuals, their effects.

Group g has rows ``i`` with item ``j(i)`` and target ``y_i``; ``z_i = √δ ∘ f_j(i)`` are its whitened random features and
``x_i`` the sparse fixed features of the item. With ``M = Z Zᵀ + I``

    schur      S += Xᵀ M⁻¹ X,   t += Xᵀ M⁻¹ y,   log|M|
    certify    s += Xᵀ α,       α = M⁻¹ (y − X β) and how far off it is
    effects    u = δ ∘ Fᵀ α

Groups of few rows are solved one a lane, in float32, as those of :mod:`leyden.factor._als_kernels` are, whose vector
instructions these are. Others, and those that float32 is not certain to be enough for, are solved one by one in
float64: from M while they have fewer rows than features, from ``H = Zᵀ Z + I`` beyond (Woodbury), in which case
nothing is kept of a row, and a group may have any number of them.

``S`` is a lower triangle, row by row: entry (i, j) is at ``i (i + 1) / 2 + j``. Its last row is for nobody: lanes that
have no row to add to add there.
"""

# Numba functions, and intrinsics that are called without the context they are written with.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import njit

from leyden.factor._als_kernels import lane_entries
from leyden.factor._als_vectors import (
    dot_tile,
    gather_row,
    lanes_add,
    lanes_cholesky,
    lanes_fill,
    lanes_solve,
    lanes_transpose,
    prefetch_part,
)
from leyden.solve.lookup._vectors import combine_exactly, dot_exactly, lanes_inverse, lanes_square, prefetch_entry

#: Hash of the sources that are compiled into the kernels here; see :mod:`leyden.solve._kernels`.
COMPILED_FROM = "0d59385cf9b6051a"

#: Groups that are solved together.
LANES = 16
#: Rows that are asked for before the group they belong to is worked on: memory is far away.
PREFETCHED = 48
#: Rows of a large group that are summed before they are added to what came before: shorter sums round less.
CHUNK = 1024

#: Error, relative to a matrix itself, up to which float32 is used: for S, which is then corrected, and, a part of it,
#: for the residuals that it is corrected by.
SINGLE, FINER = 0.2, 16

U32, U64 = 2.0**-24, 2.0**-53

#: Sums over groups in :func:`schur`, and in :func:`certify`.
LOG_DETERMINANT, ERROR, PAIRS, ROWS = 0, 1, 2, 3
SQUARES, OBJECTIVE, EFFECTS, DEFECT, MATRIX, ROW_COUNT = 0, 1, 2, 3, 4, 5


@njit(nogil=True, cache=True, error_model="numpy")
def few_rows(width):
    """Rows up to which groups are solved one a lane."""
    return lane_entries(width)


@njit(nogil=True, cache=True, error_model="numpy")
def product_error(n, width, unit):
    """Of a computed M and its Cholesky factor: their distance to the true ones, in the norm of Frobenius, to tr M.

    A product of features rounds ``width + 9`` times, and ``|z_a·z_b| ≤ ‖z_a‖ ‖z_b‖``; a Cholesky factor n + 1 times,
    and ``|L| |Lᵀ|`` is at most tr M in that norm.
    """
    return 1.2 * unit * (width + n + 11)


@njit(nogil=True, cache=True, error_model="numpy")
def inverse_error(n, width, trace, inverse_trace, unit):
    """Of a computed ``M⁻¹``: η with ``(1 − η) M⁻¹ ⪯ M̂⁻¹ ⪯ (1 + η) M⁻¹``, as long as η is at most 3/2 SINGLE.

    ``L X = I + Φ`` with ``‖Φ‖ ≤ γ ‖L‖ ‖X‖`` in the norm of Frobenius, in which ``‖L‖² = tr M`` and ``‖X‖² = tr M⁻¹``,
    moves the inverse by a factor between ``(1 ∓ √(tr M) ‖Φ‖)²``; the rounding of ``XᵀX``, at most ``γ ‖X‖²``, by no
    more than ``γ ‖X‖² tr M`` times ``M⁻¹``, which is at least ``I / tr M``. That ``M ⪰ I`` is used throughout.
    """
    sums = 2 * (n + 4) * np.sqrt(inverse_trace) + (n + 2) * inverse_trace
    return 1.5 * trace * (product_error(n, width, unit) + 1.4 * unit * sums)


@njit(nogil=True, cache=True, error_model="numpy")
def _together(order, at, indptr, few):
    """How many groups from place ``at`` on share the lanes, and the rows of the largest of them, the last."""
    count, together = 0, 0
    while together < LANES and at + together < len(order):
        row = order[at + together]
        own = indptr[row + 1] - indptr[row]
        if own > few:
            break
        count = own
        together += 1
    return together, count


@njit(nogil=True, cache=True, error_model="numpy")
def _lane_products(
    order, at, together, count, indptr, indices, f, scale, gathered, tile, lane_k, ones, trace, codes, s
):  # fmt: skip
    """``M`` of the groups in the lanes, in tiles of 4 × 4 entries, and a bound on its trace.

    On the way what will be wanted is asked for: tables of groups to come, and entries of S, unless there is none.
    """
    width, one = f.shape[1], np.float32(1)
    tiles = (count + 3) // 4
    rounded = 4 * tiles
    distance = max(1, PREFETCHED // count)
    for l in range(together):
        row = order[at + l]
        first = indptr[row]
        own = indptr[row + 1] - first
        if at + l + distance < len(order):
            ahead = order[at + l + distance]
            for e in range(indptr[ahead], indptr[ahead + 1]):
                prefetch_part(f, indices[e], 0, width)
                if len(codes):
                    prefetch_entry(codes, indices[e])
        base = l * rounded
        for r in range(own):
            gather_row(f, indices[first + r], one, scale, gathered, base + r, width)
        if len(codes) and len(s):
            _ask(first, own, indices, codes, s)
        for r in range(own, rounded):
            for c in range(width):
                gathered[base + r, c] = 0
        number = l
        for i in range(tiles):
            for j in range(i + 1):
                dot_tile(gathered, base + 4 * i, base + 4 * j, width, tile, number)
                number += LANES
    for l in range(together, LANES):
        for t in range(l, LANES * (tiles * (tiles + 1) // 2), LANES):
            tile[t, :] = 0
    for t in range(tiles * (tiles + 1) // 2):
        lanes_transpose(tile, t, lane_k)
    for l in range(LANES):
        trace[l] = 0
    for i in range(tiles):
        for r in range(4):
            e = 8 * i * (i + 3) + 5 * r
            lanes_add(lane_k, e, ones, 0)
            for l in range(LANES):
                trace[l] += lane_k[e, l]
    for l in range(LANES):
        trace[l] *= 1.01


@njit(nogil=True, cache=True, error_model="numpy")
def _ask(first, own, indices, codes, s):
    """Ask for the entries of S of a group whose rows have one fixed feature each."""
    for a in range(first + 1, first + own):
        ca = np.int64(codes[indices[a]])
        base = ca * (ca + 1) // 2
        for b in range(first, a):
            cb = np.int64(codes[indices[b]])
            prefetch_entry(s, max(base + cb, cb * (cb + 1) // 2 + ca))


@njit(nogil=True, cache=True, error_model="numpy")
def _largest(values, first, last):
    """The largest absolute value, or what is not finite among them."""
    size = 0.0
    for e in range(first, last):
        v = abs(np.float64(values[e]))
        if not v <= 3.5e38:
            return np.inf
        size = max(size, v)
    return size


@njit(nogil=True, cache=True, error_model="numpy")
def schur(
    order, single, indptr, indices, values, f, scale, delta, codes, starts, columns, weights, s, t, totals, bad,
    gathered, tile, lane_k, lane_x, lane_y, lane_c, lane_base, trace, square, inverse, rows, small, local, where,
):  # fmt: skip
    """Add the groups of ``order``, in ascending order of their rows, to S, t and what is summed beside them.

    Parameters
    ----------
    order : int64
    single : float
        Error up to which float32 is used; zero for never.
    indptr, indices, values
        Groups, their items and targets (CSR).
    f : float32, shape (items, width)
        The table; zeros in the columns that fill the last vector.
    scale : float32, shape (width,)
    delta : float64, shape (width,)
        ``√δ`` and δ.
    codes : int64, shape (items,) or (0,)
        The fixed feature of an item where each has exactly one, of weight one.
    starts, columns, weights
        The fixed features of items (CSR).
    s : float64, shape ((p + 1) (p + 2) / 2,)
    t : float64, shape (p + 1, 4)
        ``Xᵀ M⁻¹ y``; a diagonal that bounds ``Σ |X|ᵀ |M⁻¹| |X|``; one that bounds rounding errors of large groups, in
        units of roundoff; rows of each column.
    totals : float64, shape (4,)
        ``Σ log|M|``, the largest relative error of an inverse, additions that an entry of S has seen at most, rows.
    bad : int64, shape (1,)
        The first group with a target that is not finite.
    gathered, ..., where
        Memory to work in.
    """
    width, p = f.shape[1], t.shape[0] - 1
    few = few_rows(width)
    ones = lane_y[-1:]
    lanes_fill(ones, 0, 1, np.float32(1))
    sizes, determinant, inverse_trace = np.ones(LANES), np.ones(LANES), np.zeros(LANES)
    at = 0
    while at < len(order):
        row = order[at]
        count = indptr[row + 1] - indptr[row]
        totals[ROWS] += count
        if count == 0:
            at += 1
            continue
        if single == 0 or count > few:
            _schur_alone(
                row, indptr, indices, values, f, delta, codes, starts, columns, weights, s, t, totals, bad,
                square, inverse, rows, small, local, where,
            )  # fmt: skip
            at += 1
            continue
        together, count = _together(order, at, indptr, few)
        _lane_products(
            order, at, together, count, indptr, indices, f, scale, gathered, tile, lane_k, ones, trace, codes, s
        )  # fmt: skip
        tiles = (count + 3) // 4
        lanes_fill(lane_y, 0, 4 * tiles, np.float32(0))
        for l in range(together):
            row = order[at + l]
            first, last = indptr[row], indptr[row + 1]
            totals[ROWS] += last - first if l else 0
            sizes[l] = _largest(values, first, last)
            factor = 1 / sizes[l] if 0 < sizes[l] < np.inf else 0.0
            for e in range(first, last):
                lane_y[e - first, l] = values[e] * factor
        lanes_cholesky(lane_k, tiles)
        for l in range(together):
            determinant[l] = 1.0
        for i in range(tiles):
            for r in range(4):
                for l in range(together):
                    determinant[l] *= np.float64(lane_k[8 * i * (i + 3) + 5 * r, l])
        lanes_solve(lane_k, tiles, lane_y)
        lanes_inverse(lane_k, tiles, lane_x)
        lanes_square(lane_x, tiles, lane_k)
        inverse_trace[:] = 0
        for i in range(tiles):
            for r in range(4):
                for l in range(together):
                    inverse_trace[l] += np.float64(lane_k[8 * i * (i + 3) + 5 * r, l])
        alone = 0
        for l in range(together):
            error = inverse_error(4 * tiles, width, np.float64(trace[l]), inverse_trace[l], U32)
            if error <= single and sizes[l] < np.inf:
                own = indptr[order[at + l] + 1] - indptr[order[at + l]]
                totals[ERROR] = max(totals[ERROR], error)
                totals[PAIRS] += own * own
                totals[LOG_DETERMINANT] -= 2 * np.log(determinant[l])
            else:
                alone |= 1 << l
        if len(codes):
            _fill_codes(together, 4 * tiles, alone, order, at, indptr, indices, codes, p, lane_c, lane_base)
            _scatter_lanes(together, count, order, at, indptr, lane_k, lane_y, lane_c, lane_base, sizes, s, t)
        else:
            for l in range(together):
                if not alone >> l & 1:
                    row = order[at + l]
                    _scatter_lane(
                        l, indptr[row], indptr[row + 1], indices, lane_k, lane_y, sizes[l], starts, columns, weights,
                        s, t,
                    )  # fmt: skip
        for l in range(together):
            if alone >> l & 1:
                _schur_alone(
                    order[at + l], indptr, indices, values, f, delta, codes, starts, columns, weights, s, t, totals,
                    bad, square, inverse, rows, small, local, where,
                )  # fmt: skip
        at += together
    for e in range(p * (p + 1) // 2, len(s)):
        s[e] = 0
    t[p, :] = 0


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_codes(together, rounded, alone, order, at, indptr, indices, codes, p, lane_c, lane_base):
    """Fixed features of the rows in the lanes, and where their rows of S begin; nobody's where there is no row."""
    for l in range(LANES):
        own = 0
        if l < together and not alone >> l & 1:
            first = indptr[order[at + l]]
            own = indptr[order[at + l] + 1] - first
            for r in range(own):
                c = np.int64(codes[indices[first + r]])
                lane_c[r, l] = c
                lane_base[r, l] = c * (c + 1) // 2
        for r in range(own, rounded):
            lane_c[r, l] = p
            lane_base[r, l] = p * (p + 1) // 2


@njit(nogil=True, cache=True, error_model="numpy")
def _scatter_lanes(together, count, order, at, indptr, lane_g, lane_y, lane_c, lane_base, sizes, s, t):
    """Add the inverses in the lanes, where each row has one fixed feature."""
    for a in range(count):
        i, r = a >> 2, a & 3
        row_of_tiles = 8 * i * (i + 1) + 4 * r
        for b in range(a):
            e = row_of_tiles + 16 * (b >> 2) + (b & 3)
            for l in range(LANES):
                ca, cb = lane_c[a, l], lane_c[b, l]
                # The larger of both is the place in the lower triangle.
                place = max(lane_base[a, l] + cb, lane_base[b, l] + ca)
                g = np.float64(lane_g[e, l])
                s[place] += g + g if ca == cb else g
        e = row_of_tiles + 16 * i + r
        for l in range(together):
            c, g = lane_c[a, l], np.float64(lane_g[e, l])
            row = order[at + l]
            s[lane_base[a, l] + c] += g
            t[c, 0] += sizes[l] * np.float64(lane_y[a, l])
            t[c, 1] += g * (indptr[row + 1] - indptr[row])
            t[c, 3] += 1


@njit(nogil=True, cache=True, error_model="numpy")
def _scatter_lane(l, first, last, indices, lane_g, lane_y, size, starts, columns, weights, s, t):
    """Add the inverse in one lane, with any fixed features."""
    for a in range(last - first):
        i, r = a >> 2, a & 3
        row_of_tiles = 8 * i * (i + 1) + 4 * r
        for b in range(a + 1):
            g = np.float64(lane_g[row_of_tiles + 16 * (b >> 2) + (b & 3), l])
            _add_pair(indices[first + a], indices[first + b], g, a == b, last - first, starts, columns, weights, s, t)
        alpha = size * np.float64(lane_y[a, l])
        for e in range(starts[indices[first + a]], starts[indices[first + a] + 1]):
            t[columns[e], 0] += weights[e] * alpha


@njit(nogil=True, cache=True, error_model="numpy")
def _add_pair(j, k, g, same, own, starts, columns, weights, s, t):
    """Add ``g x_j x_kᵀ``, and its transpose when it is of two rows, to S."""
    begin, end = starts[j], starts[j + 1]
    for d in range(begin, end):
        c, value = columns[d], g * weights[d]
        if same:
            t[c, 1] += value * weights[d] * own * (end - begin)
            t[c, 3] += 1
        for e in range(starts[k], d + 1 if same else starts[k + 1]):
            other = columns[e]
            place = max(c * (c + 1) // 2 + other, other * (other + 1) // 2 + c)
            s[place] += value * weights[e] * (2.0 if c == other and not same else 1.0)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _dot(a, i, b, j, first, last):
    total = 0.0
    for k in range(first, last):
        total += a[i, k] * b[j, k]
    return total


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _add_feature(f, j, factor, w, width):
    for c in range(width):
        w[c] += factor * np.float64(f[j, c])


@njit(nogil=True, cache=True, error_model="numpy")
def _cholesky(a, n):
    """``A = L Lᵀ`` in the lower triangle, in place."""
    for i in range(n):
        for j in range(i):
            a[i, j] = (a[i, j] - _dot(a, i, a, j, 0, j)) / a[j, j]
        a[i, i] = np.sqrt(a[i, i] - _dot(a, i, a, i, 0, i))


@njit(nogil=True, cache=True, error_model="numpy")
def _solve(a, n, y):
    """``y = (L Lᵀ)⁻¹ y``."""
    for i in range(n):
        total = y[i]
        for j in range(i):
            total -= a[i, j] * y[j]
        y[i] = total / a[i, i]
    for i in range(n - 1, -1, -1):
        y[i] /= a[i, i]
        for j in range(i):
            y[j] -= a[i, j] * y[i]


@njit(nogil=True, cache=True, error_model="numpy")
def _dual(first, n, indices, f, delta, square, rows):
    """M of a group and its Cholesky factor, in ``square``; the trace of M."""
    width = f.shape[1]
    trace = 0.0
    for a in range(n):
        for c in range(width):
            rows[a, c] = np.float64(f[indices[first + a], c]) * np.sqrt(delta[c])
        for b in range(a):
            square[a, b] = _dot(rows, a, rows, b, 0, width)
        square[a, a] = 1.0 + _dot(rows, a, rows, a, 0, width)
        trace += square[a, a]
    _cholesky(square, n)
    return trace


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _add_squares(x, count, h, width):
    """``h += xᵀ x``, the lower triangle, of some rows."""
    for i in range(width):
        for r in range(count):
            v = x[r, i]
            for k in range(i + 1):
                h[i, k] += v * x[r, k]


@njit(nogil=True, cache=True, error_model="numpy")
def _primal(first, n, indices, f, delta, square, inverse, rows):
    """``H = Zᵀ Z + I`` of a group and its Cholesky factor, in ``square``; the trace of H."""
    width = f.shape[1]
    square[:width, :width] = 0
    for i in range(width):
        square[i, i] = 1
    for start in range(0, n, CHUNK):
        part = inverse[:width, :width]
        part[:] = 0
        stop = min(start + CHUNK, n)
        for begin in range(start, stop, LANES):
            count = min(LANES, stop - begin)
            for r in range(count):
                for c in range(width):
                    rows[r, c] = np.float64(f[indices[first + begin + r], c]) * np.sqrt(delta[c])
            _add_squares(rows, count, part, width)
        for i in range(width):
            for k in range(i + 1):
                square[i, k] += part[i, k]
    trace = 0.0
    for i in range(width):
        trace += square[i, i]
    _cholesky(square, width)
    return trace


@njit(nogil=True, cache=True, error_model="numpy")
def _in_dual(n, width):
    """Whether a group is solved from M."""
    return n <= width or n <= few_rows(width)


@njit(nogil=True, cache=True, error_model="numpy")
def _schur_alone(
    row, indptr, indices, values, f, delta, codes, starts, columns, weights, s, t, totals, bad, square, inverse, rows,
    small, local, where,
):  # fmt: skip
    """One group in float64."""
    width, first = f.shape[1], indptr[row]
    n = indptr[row + 1] - first
    if not _largest(values, first, first + n) < np.inf:
        bad[0] = min(bad[0], row)
        return
    if _in_dual(n, width):
        trace = _dual(first, n, indices, f, delta, square, rows)
        totals[PAIRS] += n * n
        y = small[0]
        for a in range(n):
            y[a] = values[first + a]
            totals[LOG_DETERMINANT] += 2 * np.log(square[a, a])
        _solve(square, n, y)
        _inverse(square, n, inverse)
        inverse_trace = 0.0
        for a in range(n):
            inverse_trace += _dot(inverse, a, inverse, a, a, n)
        totals[ERROR] = max(totals[ERROR], inverse_error(n, width, trace, inverse_trace, U64))
        if len(codes):
            _scatter_alone(first, n, indices, codes, inverse, s, t)
        for a in range(n):
            for b in range(0 if len(codes) else a + 1):
                g = _dot(inverse, a, inverse, b, a, n)
                _add_pair(indices[first + a], indices[first + b], g, a == b, n, starts, columns, weights, s, t)
            for e in range(starts[indices[first + a]], starts[indices[first + a] + 1]):
                t[columns[e], 0] += weights[e] * y[a]
    else:
        _schur_large(
            first, n, indices, values, f, delta, starts, columns, weights, s, t, totals, square, inverse, rows, small,
            local, where,
        )  # fmt: skip


@njit(nogil=True, cache=True, error_model="numpy")
def _scatter_alone(first, n, indices, codes, x, s, t):
    """Add ``XᵀX`` of the rows of ``x``, which is ``M⁻¹``, where each row of the group has one fixed feature."""
    c = np.empty(n, np.int64)
    for a in range(n):
        c[a] = codes[indices[first + a]]
        base = c[a] * (c[a] + 1) // 2
        for b in range(a):
            g = _dot(x, a, x, b, a, n)
            s[max(base + c[b], c[b] * (c[b] + 1) // 2 + c[a])] += g + g if c[a] == c[b] else g
        g = _dot(x, a, x, a, a, n)
        s[base + c[a]] += g
        t[c[a], 1] += g * n
        t[c[a], 3] += 1


@njit(nogil=True, cache=True, error_model="numpy")
def _inverse(l, n, x):
    """Columns of ``L⁻¹`` in the rows of ``x``, by forward substitution."""
    for j in range(n):
        x[j, j] = 1 / l[j, j]
        for i in range(j + 1, n):
            x[j, i] = -_dot(l, i, x, j, j, i) / l[i, i]


@njit(nogil=True, cache=True, error_model="numpy")
def _schur_large(
    first, n, indices, values, f, delta, starts, columns, weights, s, t, totals, square, inverse, rows, small, local,
    where,
):  # fmt: skip
    """A group of more rows than features: ``XᵀX − (L⁻¹ZᵀX)ᵀ(L⁻¹ZᵀX)``."""
    width = f.shape[1]
    trace = _primal(first, n, indices, f, delta, square, inverse, rows)
    for i in range(width):
        totals[LOG_DETERMINANT] += 2 * np.log(square[i, i])
    totals[PAIRS] += n
    b, used, most = small[0], 0, 1
    b[:width] = 0
    for a in range(n):
        j = indices[first + a]
        _add_feature(f, j, np.float64(values[first + a]), b, width)
        most = max(most, starts[j + 1] - starts[j])
        for d in range(starts[j], starts[j + 1]):
            c = columns[d]
            if where[c, 0] < 0:
                where[c, 0], where[used, 1] = used, c
                local[used, :] = 0
                small[2, used] = 0
                small[3, used] = 0
                used += 1
            k = where[c, 0]
            _add_feature(f, j, weights[d], local[k], width)
            small[2, k] += weights[d] ** 2
            small[3, k] += 1
            t[c, 0] += weights[d] * values[first + a]
            for e in range(starts[j], d + 1):
                other = columns[e]
                s[max(c * (c + 1) // 2 + other, other * (other + 1) // 2 + c)] += weights[d] * weights[e]
    for c in range(width):
        b[c] *= np.sqrt(delta[c])
    for i in range(width):
        b[i] = (b[i] - _row_dot(square, i, b)) / square[i, i]
    for k in range(used):
        c = where[k, 1]
        for i in range(width):
            local[k, i] *= np.sqrt(delta[i])
        for i in range(width):
            local[k, i] = (local[k, i] - _row_dot(square, i, local[k])) / square[i, i]
        shared = 0.0
        for i in range(width):
            shared += local[k, i] * b[i]
        t[c, 0] -= shared
        rounding = small[3, k] * np.sqrt(trace) + (CHUNK + n / CHUNK + 2 * width + 16) * trace
        t[c, 2] += 4 * max(used, most) * rounding * small[2, k]
        t[c, 3] += small[3, k]
        for m in range(k + 1):
            other = where[m, 1]
            place = max(c * (c + 1) // 2 + other, other * (other + 1) // 2 + c)
            s[place] -= _dot(local, k, local, m, 0, width)
    for k in range(used):
        where[where[k, 1], 0] = -1


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _row_dot(a, i, y):
    """``a[i, :i] · y[:i]``."""
    total = 0.0
    for k in range(i):
        total += a[i, k] * y[k]
    return total


# ---------------------------------------------------------------- residuals


@njit(nogil=True, cache=True, error_model="numpy")
def certify(
    order, single, indptr, indices, values, f, scale, delta, codes, starts, columns, weights, beta, s, totals, bad,
    gathered, tile, lane_k, lane_y, trace, r64, a64, about, w, square, inverse, rows, small,
):  # fmt: skip
    """Add ``Xᵀα`` of the groups of ``order``, and what bounds its distance to ``Xᵀ M⁻¹ (y − Xβ)``.

    Parameters as of :func:`schur`, and

    Parameters
    ----------
    beta : float64, shape (p + 1,)
    s : float64, shape (p + 1, 3)
        ``Xᵀα``, ``|X|ᵀ|α|``, rows of each column.
    totals : float64, shape (6,)
        ``Σ y²``; ``Σ rᵀα``, r = y − Xβ; ``Σ ‖Zᵀα‖²``; the sum of squares of what bounds ``‖M^(−½) (r − M α)‖``;
        about ``Σ ‖Z‖² + ‖X‖²``; rows.
    """
    width = f.shape[1]
    few = few_rows(width)
    ones = lane_y[-1:]
    lanes_fill(ones, 0, 1, np.float32(1))
    at = 0
    while at < len(order):
        row = order[at]
        count = indptr[row + 1] - indptr[row]
        if count == 0:
            at += 1
            continue
        if single == 0 or count > few:
            _certify_alone(
                row, indptr, indices, values, f, delta, starts, columns, weights, beta, s, totals, bad, w,
                square, inverse, rows, small,
            )  # fmt: skip
            at += 1
            continue
        together, count = _together(order, at, indptr, few)
        _lane_products(
            order, at, together, count, indptr, indices, f, scale, gathered, tile, lane_k, ones, trace, codes, w[:0]
        )  # fmt: skip
        tiles = (count + 3) // 4
        lanes_cholesky(lane_k, tiles)
        lanes_fill(lane_y, 0, 4 * tiles, np.float32(0))
        for l in range(together):
            row = order[at + l]
            _residuals(
                indptr[row], indptr[row + 1], l, indices, values, codes, starts, columns, weights, beta, r64, about,
                lane_y,
            )  # fmt: skip
        lanes_solve(lane_k, tiles, lane_y)
        for l in range(together):
            row = order[at + l]
            _residuals_of_alpha(indptr[row], indptr[row + 1], l, indices, f, delta, r64, a64, about, lane_y, w)
        lanes_solve(lane_k, tiles, lane_y)
        slope = product_error(4 * tiles, width, U32) + 1.2 * U32 * (16 * tiles + 4)
        for l in range(together):
            row = order[at + l]
            if FINER * slope * trace[l] <= single and about[SCALE, l] < np.inf:
                _add_lane(
                    indptr[row], indptr[row + 1], l, 4 * tiles, indices, values, codes, starts, columns, weights, width,
                    slope, trace[l], r64, a64, about, lane_y, s, totals,
                )  # fmt: skip
            else:
                _certify_alone(
                    row, indptr, indices, values, f, delta, starts, columns, weights, beta, s, totals, bad, w,
                    square, inverse, rows, small,
                )  # fmt: skip
        at += together
    s[-1, :] = 0


@njit(nogil=True, cache=True, error_model="numpy")
def _residual(e, indices, values, starts, columns, weights, beta):
    """``y − x·β`` of a row, and the sum of the sizes of its terms."""
    j = indices[e]
    r = np.float64(values[e])
    size = abs(r)
    for d in range(starts[j], starts[j + 1]):
        term = weights[d] * beta[columns[d]]
        r -= term
        size += abs(term)
    return r, size


#: What is known of a lane: the scale of its right-hand side, norms of the terms of the residual, of ρ, and of Zᵀα.
SCALE, TERMS, RHO, EFFECT = 0, 1, 2, 3


@njit(nogil=True, cache=True, error_model="numpy")
def _residuals(first, last, l, indices, values, codes, starts, columns, weights, beta, r64, about, lane_y):
    """Residuals of a group, to be solved for in its lane."""
    size, squares = 0.0, 0.0
    for a in range(last - first):
        if len(codes):
            y, term = np.float64(values[first + a]), beta[codes[indices[first + a]]]
            r, terms = y - term, abs(y) + abs(term)
        else:
            r, terms = _residual(first + a, indices, values, starts, columns, weights, beta)
        r64[a, l] = r
        size = max(size, abs(r)) if abs(r) < np.inf else np.inf
        squares += terms * terms
    about[TERMS, l] = np.sqrt(squares)
    _scale_lane(last - first, l, size, r64, about, lane_y)


@njit(nogil=True, cache=True, error_model="numpy")
def _scale_lane(n, l, size, r64, about, lane_y):
    """A right-hand side in float32, of size one."""
    about[SCALE, l] = size
    factor = 1 / size if 0 < size < np.inf else 0.0
    for a in range(n):
        lane_y[a, l] = r64[a, l] * factor


@njit(nogil=True, cache=True, error_model="numpy")
def _residuals_of_alpha(first, last, l, indices, f, delta, r64, a64, about, lane_y, w):
    """α as the lanes have it, and ``ρ = r − M α`` in float64, to be solved for in its place."""
    width, n = f.shape[1], last - first
    for a in range(n):
        a64[a, l] = about[SCALE, l] * np.float64(lane_y[a, l])
    combine_exactly(f, indices, first, n, a64, l, w, width)
    about[EFFECT, l] = np.sqrt(_weigh(w, delta, width))
    squares, size = 0.0, 0.0
    for a in range(n):
        rho = r64[a, l] - a64[a, l] - dot_exactly(f, indices[first + a], w, width)
        squares += rho * rho
        size = max(size, abs(rho)) if abs(rho) < np.inf else np.inf
        r64[n + a, l] = rho
    about[RHO, l] = np.sqrt(squares)
    # A residual that is not finite makes its group one to be solved alone.
    about[SCALE, l] = size
    factor = 1 / size if 0 < size < np.inf else 0.0
    for a in range(n):
        lane_y[a, l] = r64[n + a, l] * factor


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _weigh(w, delta, width):
    """``w ← δ ∘ w``, and what was ``Σ δ w²``."""
    total = 0.0
    for c in range(width):
        total += delta[c] * w[c] * w[c]
        w[c] *= delta[c]
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _add_lane(
    first, last, l, rounded, indices, values, codes, starts, columns, weights, width, slope, trace, r64, a64, about,
    lane_y, s, totals,
):  # fmt: skip
    """The corrected α of a group in its lane, added up, and the bound on what is still wrong with it.

    The residual of α is ρ, known to the rounding of float64; that of α + δ is ``ρ − M δ = E δ``, where
    ``(M + E) δ = ρ`` is what float32 has solved.
    """
    n, root = last - first, np.sqrt(trace)
    entries, steps, before, after, residuals = 1, 0.0, 0.0, 0.0, 0.0
    objective, effects, squares = 0.0, 0.0, 0.0
    for a in range(n):
        j, r, y = indices[first + a], r64[a, l], np.float64(values[first + a])
        step = about[SCALE, l] * np.float64(lane_y[a, l])
        alpha = a64[a, l] + step
        steps += step * step
        before += a64[a, l] * a64[a, l]
        after += alpha * alpha
        residuals += r * r
        objective += r * alpha
        effects += alpha * (r - alpha)
        squares += y * y
        if len(codes):
            c = codes[j]
            s[c, 0] += alpha
            s[c, 1] += abs(alpha)
            s[c, 2] += 1
        else:
            entries = max(entries, _add_row(j, alpha, starts, columns, weights, s, totals))
    rounding = _rounding(n, width, entries, root, before, after, residuals, about[TERMS, l], about[EFFECT, l])
    defect = rounding + slope * trace * np.sqrt(steps) + 4 * U32 * about[RHO, l]
    totals[OBJECTIVE] += objective
    totals[EFFECTS] += effects
    totals[SQUARES] += squares
    totals[DEFECT] += defect * defect
    totals[MATRIX] += n if len(codes) else 0
    totals[MATRIX] += max(trace / 1.01 - rounded, 0.0)
    totals[ROW_COUNT] += n


@njit(nogil=True, cache=True, error_model="numpy")
def _rounding(n, width, entries, root, before, after, residuals, terms, effect):
    """Rounding of a residual computed in float64, in the norm of ``M⁻¹``.

    What rounding adds to ``v = Zᵀα`` counts as ``‖M^(−½) Z e‖ ≤ ‖e‖``, and the rest is no longer than it is.
    """
    products = (n + 6) * root * np.sqrt(before) + (width + 6) * root * effect
    sums = 3 * (np.sqrt(residuals) + np.sqrt(before)) + (root + 1) * np.sqrt(after) + (entries + 2) * terms
    return 1.1 * U64 * (products + sums)


@njit(nogil=True, cache=True, error_model="numpy")
def _add_row(j, alpha, starts, columns, weights, s, totals):
    """``s += α x`` for a row of item j; gives how many fixed features it has."""
    for d in range(starts[j], starts[j + 1]):
        c, term = columns[d], weights[d] * alpha
        s[c, 0] += term
        s[c, 1] += abs(term)
        s[c, 2] += 1
        totals[MATRIX] += weights[d] * weights[d]
    return starts[j + 1] - starts[j]


@njit(nogil=True, cache=True, error_model="numpy")
def _certify_alone(
    row, indptr, indices, values, f, delta, starts, columns, weights, beta, s, totals, bad, w, square, inverse, rows,
    small,
):  # fmt: skip
    """One group in float64."""
    width, first = f.shape[1], indptr[row]
    n = indptr[row + 1] - first
    if not _largest(values, first, first + n) < np.inf:
        bad[0] = min(bad[0], row)
        return
    if _in_dual(n, width):
        defect, trace = _certify_dual(
            first, n, indices, values, f, delta, starts, columns, weights, beta, s, totals, w, square, rows, small
        )
        trace -= n
    else:
        defect, trace = _certify_primal(
            first, n, indices, values, f, delta, starts, columns, weights, beta, s, totals, w, square, inverse, rows,
            small,
        )  # fmt: skip
        trace -= width
    totals[DEFECT] += defect * defect
    totals[MATRIX] += trace
    totals[ROW_COUNT] += n
    for e in range(first, first + n):
        totals[SQUARES] += np.float64(values[e]) ** 2


@njit(nogil=True, cache=True, error_model="numpy")
def _solve_dual(first, n, indices, values, f, delta, starts, columns, weights, beta, w, square, rows, small):
    """α of a group, corrected once, in ``small[1]``; ``small[0]`` has its residuals and ``small[2]`` what α leaves.

    Gives the trace of M, the norm of the terms of the residuals and that of ``Zᵀα``.
    """
    width = f.shape[1]
    trace = _dual(first, n, indices, f, delta, square, rows)
    r, alpha, rho = small[0], small[1], small[2]
    squares, effect = 0.0, 0.0
    for a in range(n):
        r[a], terms = _residual(first + a, indices, values, starts, columns, weights, beta)
        squares += terms * terms
        alpha[a], rho[a] = 0, r[a]
    for _ in range(2):
        _solve(square, n, rho)
        w[:] = 0
        for a in range(n):
            alpha[a] += rho[a]
            _add_feature(f, indices[first + a], alpha[a], w, width)
        effect = np.sqrt(_weigh(w, delta, width))
        for a in range(n):
            rho[a] = r[a] - alpha[a] - dot_exactly(f, indices[first + a], w, width)
    return trace, np.sqrt(squares), effect


@njit(nogil=True, cache=True, error_model="numpy")
def _certify_dual(
    first, n, indices, values, f, delta, starts, columns, weights, beta, s, totals, w, square, rows, small,
):  # fmt: skip
    """A group of fewer rows than features."""
    trace, terms, effect = _solve_dual(
        first, n, indices, values, f, delta, starts, columns, weights, beta, w, square, rows, small
    )
    r, alpha, rho = small[0], small[1], small[2]
    entries, squares, left, residuals = 1, 0.0, 0.0, 0.0
    for a in range(n):
        squares += alpha[a] * alpha[a]
        residuals += r[a] * r[a]
        left += rho[a] * rho[a]
        totals[OBJECTIVE] += r[a] * alpha[a]
        entries = max(entries, _add_row(indices[first + a], alpha[a], starts, columns, weights, s, totals))
    totals[EFFECTS] += effect * effect
    rounding = _rounding(n, f.shape[1], entries, np.sqrt(trace), squares, squares, residuals, terms, effect)
    return rounding + np.sqrt(left), trace


@njit(nogil=True, cache=True, error_model="numpy")
def _solve_primal(
    first, n, indices, values, f, delta, starts, columns, weights, beta, w, square, inverse, rows, small
):  # fmt: skip
    """``v = Zᵀα`` of a group, corrected once, in ``small[1]``; α follows from it row by row. Gives the trace of H."""
    width = f.shape[1]
    trace = _primal(first, n, indices, f, delta, square, inverse, rows)
    v, step = small[1], small[2]
    v[:width] = 0
    for _ in range(2):
        _effects_of(first, n, indices, values, f, delta, starts, columns, weights, beta, v, w, inverse[0])
        for c in range(width):
            step[c] = w[c] - v[c]
        _solve(square, width, step)
        for c in range(width):
            v[c] += step[c]
    return trace


@njit(nogil=True, cache=True, error_model="numpy")
def _effects_of(first, n, indices, values, f, delta, starts, columns, weights, beta, v, w, part):
    """``w = Zᵀ (r − Z v)``, summed in parts."""
    width = f.shape[1]
    u = np.empty(width)
    for c in range(width):
        u[c] = v[c] * np.sqrt(delta[c])
    w[:] = 0
    for start in range(first, first + n, CHUNK):
        part[:width] = 0
        for e in range(start, min(start + CHUNK, first + n)):
            r, _ = _residual(e, indices, values, starts, columns, weights, beta)
            _add_feature(f, indices[e], r - dot_exactly(f, indices[e], u, width), part, width)
        for c in range(width):
            w[c] += part[c]
    for c in range(width):
        w[c] *= np.sqrt(delta[c])


@njit(nogil=True, cache=True, error_model="numpy")
def _certify_primal(
    first, n, indices, values, f, delta, starts, columns, weights, beta, s, totals, w, square, inverse, rows, small,
):  # fmt: skip
    """A group of more rows than features, with ``α = r − Z v``: what is wrong with it is ``Z (v − Zᵀα)``."""
    width = f.shape[1]
    trace = _solve_primal(
        first, n, indices, values, f, delta, starts, columns, weights, beta, w, square, inverse, rows, small
    )
    v, u = small[1], small[2]
    _effects_of(first, n, indices, values, f, delta, starts, columns, weights, beta, v, w, inverse[0])
    left, effect = 0.0, 0.0
    for c in range(width):
        u[c] = v[c] * np.sqrt(delta[c])
        left += (v[c] - w[c]) ** 2
        effect += w[c] * w[c]
    entries, squares, sizes, residuals = 1, 0.0, 0.0, 0.0
    for e in range(first, first + n):
        r, terms = _residual(e, indices, values, starts, columns, weights, beta)
        alpha = r - dot_exactly(f, indices[e], u, width)
        squares += alpha * alpha
        residuals += r * r
        sizes += terms * terms
        totals[OBJECTIVE] += r * alpha
        entries = max(entries, _add_row(indices[e], alpha, starts, columns, weights, s, totals))
    totals[EFFECTS] += effect
    summed = CHUNK + n / CHUNK + 2.0
    rounding = _rounding(
        summed, width, entries, np.sqrt(trace), squares, squares, residuals, np.sqrt(sizes), np.sqrt(effect)
    )
    return rounding + 1.01 * np.sqrt(left), trace


@njit(nogil=True, cache=True, error_model="numpy")
def effects(
    indptr, indices, values, f, delta, starts, columns, weights, beta, out, w, square, inverse, rows, small
):  # fmt: skip
    """``u = δ ∘ Fᵀα`` of every group into a row of ``out``; of a group without rows, zero."""
    width = f.shape[1]
    for row in range(len(indptr) - 1):
        first = indptr[row]
        n = indptr[row + 1] - first
        if n == 0:
            w[:] = 0
        elif _in_dual(n, width):
            _solve_dual(first, n, indices, values, f, delta, starts, columns, weights, beta, w, square, rows, small)
        else:
            _solve_primal(
                first, n, indices, values, f, delta, starts, columns, weights, beta, w, square, inverse, rows, small
            )
            for c in range(width):
                w[c] = small[1, c] * np.sqrt(delta[c])
        for c in range(out.shape[1]):
            out[row, c] = w[c]
