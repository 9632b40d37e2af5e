"""Compiled half-steps of alternating least squares. Each has a plain NumPy twin in the tests.

A half-step solves, for every row i with entries j ∈ Ω_i, the ridge regression

    u_i = argmin_u  ½ Σ_j w_ij (t_ij − u·f_j)² + ½ uᵀ D_i u,      D_i = diag(θ) + λ_i I,

where f_j are rows of the other side's factors. With ``b_j = D_i^(−½) f_j``, rows of B, it is

    dual      (B Bᵀ + W⁻¹) a = t,   u = D_i^(−½) Bᵀ a              n_i × n_i, for rows of few entries
    primal    (I + Bᵀ W B) x = Bᵀ W t,   u = D_i^(−½) x            d × d

and its least value is ½ tᵀa. Both are the same numbers (Woodbury). Rows come sorted by their number of entries; those
of few are solved as many at a time as a vector has lanes.

Where rows have more entries than a few and the rank is large, the primal problem may be solved a subspace at a time:
blocks of factors one after the other, each at its best with the others held (Rendle, Krichene, Zhang, Koren 2021,
iALS++). A row of n entries then takes n d s instead of n d² products for blocks of s factors, and is better than it
was, if not at its best.
"""

# Numba functions, and intrinsics that are called without the context they are written with.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import njit

from leyden.factor._als_vectors import (
    add_combination,
    add_half_tile,
    add_packed,
    add_tile_1,
    add_tile_2,
    add_tile_3,
    combine_rows,
    dot_square,
    dot_tile,
    gather_part,
    gather_row,
    inverse_roots,
    lanes_add,
    lanes_cholesky,
    lanes_fill,
    lanes_solve,
    lanes_transpose,
    prefetch_part,
    row_axpy,
    row_dot,
    scale_row,
    subtract_row_1,
    subtract_row_4,
    subtract_tile_1,
    subtract_tile_2,
    subtract_tile_3,
)

#: Hash of the sources that are compiled into the kernels here; see :mod:`leyden.solve._kernels`.
COMPILED_FROM = "4dc802fab9fe5657"

#: Rows of a tile, entries of a lane problem, and rows gathered at once for a primal problem.
TILE, LANE_ENTRIES, GATHERED = 8, 64, 64
#: Entries that are asked for before the row they belong to is worked on: memory is far away.
PREFETCHED = 48
#: Entries ahead of the one worked on that are asked for, where rows are worked on one by one.
ASKED = 16
#: Ranges of columns that ratings are sorted into first, to be grouped by column.
COLUMN_RANGES = 128
#: Bytes of the gathered rows of the problems in all lanes: a good part of a second-level cache.
LANE_NBYTES = 600_000


@njit(nogil=True, cache=True, error_model="numpy")
def lane_entries(width):
    """Entries up to which rows are solved one a lane."""
    return min(LANE_ENTRIES, LANE_NBYTES // (64 * width))


@njit(nogil=True, cache=True, error_model="numpy")
def subspace_entries(subspace, width):
    """Entries up to which rows are solved in the dual even if others are improved in subspaces: it takes no longer."""
    return max(3 * subspace // 2, lane_entries(width))


@njit(nogil=True, cache=True, error_model="numpy")
def transpose(indptr, indices, values, columns, rows, out, first, spare):
    """Ratings grouped by column: a counting sort, rows in ascending order. ``columns`` comes in as zeros.

    Memory far away is written by the line. Ratings are therefore put into a few ranges of columns first, each of which
    is written from its beginning to its end, and a range at a time into their places.

    Parameters
    ----------
    first : int
        The number of the first row.
    spare : int32, shape (3, ratings)
        Memory to work in.
    """
    m = len(columns) - 1
    for j in indices:
        columns[j + 1] += 1
    for j in range(m):
        columns[j + 1] += columns[j]
    bits = 0
    while m >> bits > COLUMN_RANGES:
        bits += 1
    ends = np.empty((m >> bits) + 1, np.int64)
    for b in range(len(ends)):
        ends[b] = columns[min(b << bits, m)]
    which, who, what = spare[0], spare[1], spare[2].view(np.float32)
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            at = ends[j >> bits]
            ends[j >> bits] = at + 1
            which[at], who[at], what[at] = j, first + i, values[e]
    for e in range(len(indices)):
        at = columns[which[e]]
        columns[which[e]] = at + 1
        rows[at], out[at] = who[e], what[e]
    for j in range(m, 0, -1):
        columns[j] = columns[j - 1]
    columns[0] = 0


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _rank_add(x, count, h, width, lanes, f, indices, ahead, last, begin, end):
    """``h += x[:count]ᵀ x[:count]``, upper triangle by tiles.

    On the way ``f[indices[ahead:last], begin:end]`` are asked for: what is gathered next.
    """
    for i in range(0, width, TILE):
        stop = min(ahead + (last - ahead) * TILE // (width - i), last)
        for e in range(ahead, stop):
            prefetch_part(f, indices[e], begin, end)
        ahead = stop
        j = i - i % lanes
        while width - j >= 3 * lanes:
            add_tile_3(x, 0, count, h, i, j)
            j += 3 * lanes
        if width - j >= 2 * lanes:
            add_tile_2(x, 0, count, h, i, j)
        elif width - j >= lanes:
            add_tile_1(x, 0, count, h, i, j)


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _rank_add_upper(x, count, h, width, lanes, f, indices, ahead, last, begin, end):
    """As :func:`_rank_add`, of the first ``width`` columns, a multiple of TILE, and nothing but the upper triangle.

    Where a tile is half a vector, half a vector it is.
    """
    for i in range(0, width, TILE):
        stop = min(ahead + (last - ahead) * TILE // (width - i), last)
        for e in range(ahead, stop):
            prefetch_part(f, indices[e], begin, end)
        ahead = stop
        j = i
        if j % lanes:
            add_half_tile(x, 0, count, h, i, j)
            j += TILE
        while width - j >= 3 * lanes:
            add_tile_3(x, 0, count, h, i, j)
            j += 3 * lanes
        if width - j >= 2 * lanes:
            add_tile_2(x, 0, count, h, i, j)
            j += 2 * lanes
        elif width - j >= lanes:
            add_tile_1(x, 0, count, h, i, j)
            j += lanes
        if j < width:
            add_half_tile(x, 0, count, h, i, j)


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _rank_subtract(h, p, count, first, last, size, lanes):
    """``h[first:last] -= h[p:p+count, first:last]ᵀ h[p:p+count]``, upper triangle by tiles."""
    for i in range(first, last, TILE):
        j = i - i % lanes
        while size - j >= 3 * lanes:
            subtract_tile_3(h, p, count, h, i, j)
            j += 3 * lanes
        if size - j >= 2 * lanes:
            subtract_tile_2(h, p, count, h, i, j)
        elif size - j >= lanes:
            subtract_tile_1(h, p, count, h, i, j)


@njit(nogil=True, cache=True, error_model="numpy")
def cholesky(h, size, inverse, lanes):
    """``h = RᵀR`` in place, in the upper triangle of h (size, size); reciprocals of the diagonal in ``inverse``.

    ``size`` is a whole number of vectors; what stands below the diagonal is overwritten with numbers of no meaning.
    """
    for p in range(0, size, 16):
        end = min(p + 16, size)
        for q in range(p, end, TILE):
            for k in range(q, q + TILE):
                j = k - k % lanes
                if k > q:
                    at = j
                    while size - at >= 4 * lanes:
                        subtract_row_4(h, q, k - q, h, k, at)
                        at += 4 * lanes
                    while at < size:
                        subtract_row_1(h, q, k - q, h, k, at)
                        at += lanes
                inverse[k] = 1 / np.sqrt(h[k, k])
                scale_row(h, k, inverse[k], j, size)
            if q + TILE < end:
                _rank_subtract(h, q, TILE, q + TILE, end, size, lanes)
        _rank_subtract(h, p, end - p, end, size, size, lanes)


@njit(nogil=True, cache=True, error_model="numpy")
def triangular_solves(h, size, inverse, b, y, lanes):
    """``y[0, :size] = (RᵀR)⁻¹ b[0, :size]`` of what :func:`cholesky` left; ``b`` is overwritten."""
    for k in range(size):
        value = b[0, k] * inverse[k]
        row_axpy(h, k, -value, b, 0, k - k % lanes, size)
        y[0, k] = value
    for k in range(size):
        b[0, k] = 0
    for k in range(size - 1, -1, -1):
        b[0, k] = (y[0, k] - row_dot(h, k, b, 0, k - k % lanes, size)) * inverse[k]
    for k in range(size):
        y[0, k] = b[0, k]


@njit(nogil=True, cache=True, error_model="numpy")
def half_step(
    order, begin, end, indptr, indices, values, model, shift, f, theta, penalties, out, value,
    gathered, square, small, lane_k, lane_t, tile, scale, subspace, left, active, lanes,
):  # fmt: skip
    """Solve the rows ``order[begin:end]``, sorted by their number of entries, into rows of ``out``.

    Parameters
    ----------
    order : int64, rows in ascending order of their number of entries
    indptr, indices, values
        The ratings (CSR).
    model : float64 (4,)
        ``w = model[0] + model[1] value`` and ``w t = model[2] + model[3] value``.
    shift : float, shape (others,) or (0,)
        What is taken off t of each entry, by its index.
    f : shape (others, width)
        The other side's factors; zeros in the columns that fill the last vector.
    theta : shape (width,)
    penalties : shape (most entries + 1,)
        λ of a row by its number of entries.
    out : shape (rows, width)
    value : float64, shape (1,)
        The least values of the rows are added to it.
    gathered, square, small, lane_k, lane_t, tile, scale
        Memory to work in; see :func:`memory`.
    subspace : int
        Factors that rows of many entries are improved at a time from what ``out`` holds, a whole number of vectors;
        0 to have all rows at their best.
    left : shape (2, most entries) with ``subspace``
        Memory to work in.
    active : int
        Columns of f from here on are zeros; a multiple of TILE.
    lanes : int
    """
    width = f.shape[1]
    few, many = lane_entries(width), subspace_entries(subspace, width)
    known = -1
    at = begin
    while at < end:
        row = order[at]
        count = indptr[row + 1] - indptr[row]
        if count == 0:
            for k in range(width):
                out[row, k] = 0
            at += 1
            continue
        if count > few:
            if count != known:
                inverse_roots(theta, penalties[count], scale, width)
                known = count
            following = order[at + 1] if at + 1 < len(order) else -1
            if subspace and count > many:
                value[0] += _subspaces(
                    row, following, indptr, indices, values, model, shift, f, out, gathered, square, small, scale,
                    subspace, left, active, lanes,
                )  # fmt: skip
            elif count <= width:
                value[0] += _dual(
                    row, following, indptr, indices, values, model, shift, f, out, gathered, square, small, scale, lanes
                )  # fmt: skip
            else:
                value[0] += _primal(
                    row, following, indptr, indices, values, model, shift, f, out, gathered, square, small, scale,
                    active, lanes,
                )  # fmt: skip
            at += 1
            continue
        together = 1
        while together < lanes and at + together < end:
            other = order[at + together]
            more = indptr[other + 1] - indptr[other]
            if more > few:
                break
            count = more
            together += 1
        known = _dual_lanes(
            order, at, together, count, known, indptr, indices, values, model, shift, f, theta, penalties, out, value,
            gathered, lane_k, lane_t, tile, scale, lanes,
        )  # fmt: skip
        at += together


@njit(nogil=True, cache=True, error_model="numpy")
def _dual_lanes(
    order, at, together, count, known, indptr, indices, values, model, shift, f, theta, penalties, out, value,
    gathered, lane_k, lane_t, tile, scale, lanes,
):  # fmt: skip
    """Dual problems of at most ``count`` entries, one a lane."""
    width, one = f.shape[1], f.dtype.type(1)
    tiles = (count + 3) // 4
    rounded = 4 * tiles
    distance = max(1, PREFETCHED // count)
    # The reciprocal of the weight, when it is the same for all.
    even = 0.0 if model[1] else 1 / model[0]
    diagonal, flat = lane_t[rounded : 2 * rounded], lane_t.ravel()
    lanes_fill(lane_t, 0, rounded, one - one)
    lanes_fill(diagonal, 0, rounded, one)
    for l in range(together):
        row = order[at + l]
        first = indptr[row]
        own = indptr[row + 1] - first
        if own != known:
            inverse_roots(theta, penalties[own], scale, width)
            known = own
        if at + l + distance < len(order):
            ahead = order[at + l + distance]
            for e in range(indptr[ahead], indptr[ahead + 1]):
                prefetch_part(f, indices[e], 0, width)
        base = l * rounded
        for r in range(own):
            e = first + r
            gather_row(f, indices[e], one, scale, gathered, base + r, width)
            weight = even if even else 1 / (model[0] + model[1] * values[e])
            t = (model[2] + model[3] * values[e]) * weight
            if len(shift):
                t -= shift[indices[e]]
            diagonal[r, l] = weight
            lane_t[r, l] = t
        for r in range(own, rounded):
            scale_row(gathered, base + r, one - one, 0, width)
        number = l
        for i in range(tiles):
            for j in range(i + 1):
                dot_tile(gathered, base + 4 * i, base + 4 * j, width, tile, number)
                number += lanes
    for l in range(together, lanes):
        for t in range(l, lanes * (tiles * (tiles + 1) // 2), lanes):
            tile[t, :] = 0
    for t in range(tiles * (tiles + 1) // 2):
        lanes_transpose(tile, t, lane_k)
    for i in range(tiles):
        for r in range(4):
            lanes_add(lane_k, 8 * i * (i + 3) + 5 * r, diagonal, 4 * i + r)
    lanes_cholesky(lane_k, tiles)
    value[0] += 0.5 * np.float64(lanes_solve(lane_k, tiles, lane_t))
    for l in range(together):
        row = order[at + l]
        own = indptr[row + 1] - indptr[row]
        if own != known:
            inverse_roots(theta, penalties[own], scale, width)
            known = own
        combine_rows(gathered, l * rounded, own, flat, lanes, l, scale, out, row, width)
    return known


@njit(nogil=True, cache=True, error_model="numpy")
def _dual(row, following, indptr, indices, values, model, shift, f, out, gathered, square, small, scale, lanes):
    """The dual problem of one row."""
    width, first = f.shape[1], indptr[row]
    count = indptr[row + 1] - first
    size = count + -count % lanes
    one = f.dtype.type(1)
    for r in range(count):
        gather_row(f, indices[first + r], one, scale, gathered, r, width)
    ahead, stop = indptr[row + 1], indptr[row + 1]
    if following >= 0:
        ahead, stop = indptr[following], indptr[following + 1]
    for i in range(0, size, 4):
        until = min(ahead + (stop - ahead) * 4 // (size - i), stop)
        for e in range(ahead, until):
            prefetch_part(f, indices[e], 0, width)
        ahead = until
        for j in range(i, size, 4):
            dot_square(gathered, i, j, width, square)
    for i in range(size):
        for k in range(i - i % lanes, i):
            square[i, k] = 0  # read with the vector that the diagonal is in, and of no meaning: it must be finite
    for r in range(count, size):
        for s in range(size):
            square[r, s] = 0
            square[s, r] = 0
        square[r, r] = 1
        small[0, r] = 0
    for r in range(count):
        v = values[first + r]
        w = model[0] + model[1] * v
        t = (model[2] + model[3] * v) / w
        if len(shift):
            t -= shift[indices[first + r]]
        square[r, r] += 1 / w
        small[0, r] = t
        small[3, r] = t
    cholesky(square, size, small[1], lanes)
    triangular_solves(square, size, small[1], small[0:1], small[2:3], lanes)
    least = 0.0
    for r in range(count):
        least += 0.5 * np.float64(small[3, r]) * small[2, r]
    combine_rows(gathered, 0, count, small[2], 1, 0, scale, out, row, width)
    return least


@njit(nogil=True, cache=True, error_model="numpy")
def _primal(
    row, following, indptr, indices, values, model, shift, f, out, gathered, square, small, scale, active, lanes
):
    """The primal problem of one row, its entries gathered GATHERED at a time."""
    width, first, last = f.shape[1], indptr[row], indptr[row + 1]
    for i in range(width):
        for k in range(i - i % lanes, width):
            square[i, k] = 0
        square[i, i] = 1
        small[0, i] = 0
    squares = 0.0
    ones = small[3]
    for k in range(width):
        ones[k] = 1
    for start in range(first, last, GATHERED):
        count = min(GATHERED, last - start)
        for r in range(count):
            e = start + r
            v = values[e]
            w = model[0] + model[1] * v
            t = (model[2] + model[3] * v) / w
            if len(shift):
                t -= shift[indices[e]]
            squares += 0.5 * w * t * t
            root = f.dtype.type(np.sqrt(w))
            gather_row(f, indices[e], root, scale, gathered, r, width)
            small[1, r] = root * t
        combine_rows(gathered, 0, count, small[1], 1, 0, ones, small, 2, width)
        for k in range(width):
            small[0, k] += small[2, k]
        ahead, stop = start + count, last
        if ahead == last and following >= 0:
            ahead, stop = indptr[following], indptr[following + 1]
        _rank_add_upper(
            gathered, count, square, active, lanes, f, indices, ahead, min(ahead + GATHERED, stop), 0, width
        )  # fmt: skip
    for k in range(width):
        small[3, k] = small[0, k]
    cholesky(square, width, small[1], lanes)
    triangular_solves(square, width, small[1], small[0:1], small[2:3], lanes)
    least = squares
    for k in range(width):
        least -= 0.5 * np.float64(small[3, k]) * small[2, k]
        out[row, k] = small[2, k] * scale[k]
    return least


@njit(nogil=True, cache=True, error_model="numpy")
def _subspaces(
    row, following, indptr, indices, values, model, shift, f, out, gathered, square, small, scale, subspace, left,
    active, lanes,
):  # fmt: skip
    """The primal problem of one row improved from ``out[row]``, ``subspace`` factors at a time; its value then.

    With ``x = D^½ u`` and residuals ``r = t − F u``, the best step of the factors p:q alone is

        (I + B_pqᵀ W B_pq) s = B_pqᵀ W r − x_pq,    and the value falls by ½ s·(B_pqᵀ W r − x_pq).

    The residuals are brought up to date when the next factors are gathered.
    """
    width, first, last = f.shape[1], indptr[row], indptr[row + 1]
    value = 0.0
    for k in range(width):
        small[3, k] = out[row, k] / scale[k]
        value += 0.5 * np.float64(small[3, k]) ** 2
    for p in range(0, active, subspace):
        q = min(p + subspace, width)
        size, before = q - p, max(p - subspace, 0)
        for i in range(size):
            for k in range(i - i % lanes, size):
                square[i, k] = 0
            square[i, i] = 1
            small[0, i] = -small[3, p + i]
        for start in range(first, last, GATHERED):
            count = min(GATHERED, last - start)
            for r in range(count):
                e = start + r
                j = indices[e]
                if p:
                    left[0, e - first] -= row_dot(f, j, small, 4, before, p)
                else:
                    w = model[0] + model[1] * values[e]
                    t = (model[2] + model[3] * values[e]) / w
                    if len(shift):
                        t -= shift[j]
                    t -= row_dot(f, j, out, row, 0, width)
                    value += 0.5 * w * t * t
                    left[0, e - first] = t
                    left[1, e - first] = np.sqrt(w)
                root = left[1, e - first]
                gather_part(f, j, root, scale, gathered, r, p, q)
                small[1, r] = root * left[0, e - first]
            add_combination(gathered, count, small, 1, small, 0, size)
            ahead, stop, begin, end = start + count, last, before, q if p else width
            if ahead == last and q < width:
                ahead, begin, end = first, p, min(q + subspace, width)
            elif ahead == last and following >= 0:
                ahead, stop, begin, end = indptr[following], indptr[following + 1], 0, width
            stop = min(ahead + GATHERED, stop)
            _rank_add_upper(gathered, count, square, min(size, active - p), lanes, f, indices, ahead, stop, begin, end)
        for k in range(size):
            small[5, k] = small[0, k]
        cholesky(square, size, small[1], lanes)
        triangular_solves(square, size, small[1], small[0:1], small[2:3], lanes)
        for k in range(size):
            value -= 0.5 * np.float64(small[5, k]) * small[2, k]
            small[3, p + k] += small[2, k]
            small[4, p + k] = small[2, k] * scale[p + k]
    for k in range(width):
        out[row, k] = small[3, k] * scale[k]
    return value


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _add(sums, k, value):
    """Add to the doubled number ``sums[0, k] + sums[1, k]`` (Knuth's TwoSum)."""
    total = sums[0, k] + value
    z = total - sums[0, k]
    sums[1, k] += (sums[0, k] - (total - z)) + (value - z)
    sums[0, k] = total


@njit(nogil=True, cache=True, error_model="numpy")
def evaluate(
    indptr, indices, values, whole, unobserved, u, v, theta, shared, penalties, scales, x, low, sums, missing, gradient,
    image, rest, y, left, bias, nonnegative, kept, most, spread,
):  # fmt: skip
    """What a certificate needs of some users' ratings, in float64.

    With ``g_ij = ω (τ − u·v)`` of the entries of Ω and ``h_ij = g_ij + α₀ u·v``, what is added is

    ==========================  =========================================================================
    ``sums[:, 0]``              ``½ Σ ω (τ − u·v)²``
    ``sums[:, 1]``              ``Σ (u·v)²``
    ``sums[:, 2]``, ``[:, 3]``  ``Σ g τ``, ``Σ g² / ω``
    ``sums[:, 4]``              ``Σ_i (Σ_j g_ij)² / λ_i``, with biases
    ``sums[:, 5]``, ``[:, 6]``  ``Σ ω τ²``, ``Σ ω ‖u‖² ‖v‖²``
    ``sums[:, 7]``, ``[:, 8]``  ``Σ h² / (λ ν)``, and with the terms of each row times ``(n_i + d + 8)²``
    ``missing`` (d,)            squares of ``(λ_i u_i + α₀ VᵀV u_i − Σ_j h_ij v_j) / √λ_i``
    ``gradient`` (items, d)     ``Σ_i h_ij u_i``
    ``image`` (items, b)        ``Σ_i h_ij y_i / √λ_i`` of ``y_i = (Σ_j h_ij x_j − α₀ low u_i) / √λ_i``
    ``rest`` (d, b)             ``Σ_i u_i y_iᵀ / √λ_i``
    ``spread`` (items,)         ``Σ_i |h_ij|``
    ==========================  =========================================================================

    and ``most[0]`` becomes the largest ``Σ_j |h_ij| / λ_i``.

    Parameters
    ----------
    u : float64, shape (rows, d)
        With biases, columns ``bias`` and ``bias + 1`` are the user's bias and one; those of v one and the item's.
    v : float64, shape (items, d)
    theta : float64, shape (d,)
        α₀ VᵀV where that is diagonal.
    shared : float64, shape (d, d)
        α₀ VᵀV with ``nonnegative``, when ``theta`` is zero.
    scales : float64, shape (items, 2)
        ‖v‖² and 1/ν of each item.
    x : float64, shape (items, b)
    low : float64, shape (d, b)
        ``Vᵀ x``.
    y, left : float64, shape (1, b), (1, d)
        Memory to work in.
    bias : int
        Where the biases are; -1 without.
    nonnegative : bool
        Whether users are the best ones that are zero or more: what of their gradient would lead below does not count.
    kept : float64, shape (ratings,)
        Takes h of each rating.
    """
    d, b = v.shape[1], x.shape[1]
    for i in range(len(indptr) - 1):
        first, last = indptr[i], indptr[i + 1]
        if first == last:
            continue
        penalty = penalties[last - first]
        root = 1 / np.sqrt(penalty)
        for k in range(d):
            left[0, k] = (penalty + theta[k]) * u[i, k]
        for k in range(b):
            y[0, k] = 0.0
        if unobserved:
            for k in range(d):
                row_axpy(low, k, -unobserved * u[i, k], y, 0, 0, b)
        total = loss = squares = along = dual = targets = reach = sizes = absolute = 0.0
        length = row_dot(u, i, u, i, 0, d)
        for e in range(first, last):
            j = indices[e]
            if e + ASKED < len(indices):
                ahead = indices[e + ASKED]
                prefetch_part(v, ahead, 0, d)
                prefetch_part(gradient, ahead, 0, d)
            score = row_dot(u, i, v, j, 0, d)
            omega = whole[0] + whole[1] * values[e]
            tau = (whole[2] + whole[3] * values[e]) / omega
            g = omega * (tau - score)
            h = g + unobserved * score
            absolute += abs(h)
            spread[j] += abs(h)
            targets += omega * tau * tau
            reach += omega * length * scales[j, 0]
            sizes += h * h * scales[j, 1]
            loss += 0.5 * omega * (tau - score) ** 2
            squares += score * score
            along += g * tau
            dual += g * g / omega
            total += g
            row_axpy(v, j, -h, left, 0, 0, d)
            row_axpy(u, i, h, gradient, j, 0, d)
            row_axpy(x, j, h, y, 0, 0, b)
            kept[e] = h
        _add(sums, 0, loss)
        _add(sums, 1, squares)
        _add(sums, 2, along)
        _add(sums, 3, dual)
        _add(sums, 5, targets)
        _add(sums, 6, reach)
        _add(sums, 7, sizes / penalty)
        _add(sums, 8, sizes / penalty * float(last - first + d + 8) ** 2)
        for k in range(b):
            y[0, k] *= root
        if bias >= 0:
            left[0, bias] = penalty * u[i, bias] - total
            left[0, bias + 1] = 0.0
            _add(sums, 4, total * total / penalty)
        if nonnegative:
            for k in range(d):
                row_axpy(shared, k, u[i, k], left, 0, 0, d)
            for k in range(d):
                if u[i, k] <= 0:
                    left[0, k] = min(left[0, k], 0.0)
        for k in range(d):
            missing[k] += (root * left[0, k]) ** 2
        most[0] = max(most[0], absolute / penalty)
        if b == 0:
            continue
        for k in range(d):
            row_axpy(y, 0, root * u[i, k], rest, k, 0, b)
        for e in range(first, last):
            row_axpy(y, 0, root * kept[e], image, indices[e], 0, b)


@njit(nogil=True, cache=True, error_model="numpy")
def image_kept(indptr, indices, kept, unobserved, u, penalties, x, low, image, rest, y):
    """The ``image`` and the ``rest`` of :func:`evaluate`, of residuals h that were kept."""
    d, b = low.shape[0], x.shape[1]
    for i in range(len(indptr) - 1):
        first, last = indptr[i], indptr[i + 1]
        if first == last:
            continue
        root = 1 / np.sqrt(penalties[last - first])
        for k in range(b):
            y[0, k] = 0.0
        if unobserved:
            for k in range(d):
                row_axpy(low, k, -unobserved * u[i, k], y, 0, 0, b)
        for e in range(first, last):
            row_axpy(x, indices[e], kept[e], y, 0, 0, b)
        for k in range(b):
            y[0, k] *= root
        if unobserved:
            for k in range(d):
                row_axpy(y, 0, root * u[i, k], rest, k, 0, b)
        for e in range(first, last):
            row_axpy(y, 0, root * kept[e], image, indices[e], 0, b)


@njit(nogil=True, cache=True, error_model="numpy")
def image(indptr, indices, values, form, x, out, y):
    """``out += HᵀH x`` of rows with entries ``form[0] + form[1] value``; x, out (items, b) and y (1, b) of one type."""
    b = x.shape[1]
    for i in range(len(indptr) - 1):
        for k in range(b):
            y[0, k] = 0
        for e in range(indptr[i], indptr[i + 1]):
            row_axpy(x, indices[e], x.dtype.type(form[0] + form[1] * values[e]), y, 0, 0, b)
        for e in range(indptr[i], indptr[i + 1]):
            row_axpy(y, 0, x.dtype.type(form[0] + form[1] * values[e]), out, indices[e], 0, b)


@njit(nogil=True, cache=True, error_model="numpy")
def packed_starts(width):
    """Where each row of a packed upper triangle begins: row i holds the columns from ``i - i % 16`` on."""
    starts = np.empty(width + 1, np.int64)
    starts[0] = 0
    for i in range(width):
        starts[i + 1] = starts[i] + width - i + i % 16
    return starts


@njit(nogil=True, cache=True, error_model="numpy")
def _chunk(end, columns, starts, rows, values, item, part, entry, who, what):
    """The next users who rated ``item``, and their ratings; how many, and the item, part and entry that follow.

    The ratings of an item come in chunks of GATHERED, the last of which may be shorter, or empty.
    """
    count = 0
    while item < end and part < len(starts):
        last = starts[part] + columns[part, item + 1]
        if entry < 0:
            entry = starts[part] + columns[part, item]
        taken = min(GATHERED - count, last - entry)
        for e in range(entry, entry + taken):
            who[count], what[count] = rows[e], values[e]
            count += 1
        entry += taken
        if entry < last:
            return count, item, part, entry
        part, entry = part + 1, -1
    return count, item + 1, 0, -1


@njit(nogil=True, cache=True, error_model="numpy")
def add_items(
    begin, end, base, columns, starts, rows, values, model, shift, u, v, h, gradient, square, gathered, small,
    lanes,
):  # fmt: skip
    """Add the ratings of a block of users to the normal equations of the items ``begin`` to ``end``.

    With ``g = w (t − u·v)`` of each rating, ``h[j] += Σ w u uᵀ`` and ``gradient[j] += Σ g u``; the latter as what is
    left of ``Σ w t u`` when ``Σ w u uᵀ v`` is taken off.

    Parameters
    ----------
    base : int
        The item of the first row of ``h`` and ``gradient``.
    columns : int64, shape (parts, items + 1)
        The ratings of item j by users of part p are ``starts[p] + columns[p, j]`` and on, up to that of j + 1.
    starts : int64, shape (parts,)
        Where the ratings of a part begin.
    rows, values : shape (ratings,)
        User and value.
    shift : shape (users,) or (0,)
        What is taken off t of each rating, by its user.
    u : shape (users, width)
    v : shape (items, width)
    h : shape (some items, packed)
        Upper triangles, packed as :func:`packed_starts` says.
    gradient : float64, shape (some items, width)
    square, gathered, small : shapes (width, width), (GATHERED, width), (3, max(width, GATHERED))
        Memory to work in.
    """
    width, one = u.shape[1], u.dtype.type(1)
    for k in range(small.shape[1]):
        small[2, k] = 1
    # Users are looked up a chunk ahead, and asked for while the chunk before them is worked on.
    who, what = np.empty((2, GATHERED), np.int64), np.empty((2, GATHERED), values.dtype)
    root, inverse = np.sqrt(model[0]), 1 / model[0]
    now, item, part, entry = 0, begin, 0, -1
    held, item, part, entry = _chunk(end, columns, starts, rows, values, item, part, entry, who[now], what[now])
    for j in range(begin, end):
        for i in range(width):
            scale_row(square, i, one - one, i - i % 16, width)
        scale_row(small, 0, one - one, 0, width)
        empty = True
        while True:
            empty = empty and held == 0
            for r in range(held):
                i, value = who[now, r], what[now, r]
                if model[1]:
                    w = model[0] + model[1] * value
                    root, inverse = np.sqrt(w), 1 / w
                t = (model[2] + model[3] * value) * inverse
                if len(shift):
                    t -= shift[i]
                gather_row(u, i, u.dtype.type(root), small[2], gathered, r, width)
                small[1, r] = root * t
            following, at, part, entry = _chunk(
                end, columns, starts, rows, values, item, part, entry, who[1 - now], what[1 - now]
            )  # fmt: skip
            if held:
                _rank_add(gathered, held, square, width, lanes, u, who[1 - now], 0, following, 0, width)
                add_combination(gathered, held, small, 1, small, 0, width)
            else:
                for r in range(following):
                    prefetch_part(u, who[1 - now, r], 0, width)
            held, now = following, 1 - now
            more, item = item == j, at
            if not more:
                break
        if empty:
            continue
        at = 0
        for i in range(width):
            k = i - i % 16
            add_packed(h, j - base, at, square, i, k, width)
            at += width - k
            # On the diagonal the whole square of a vector is there; what is right of it stands for what is below.
            k = i - i % lanes
            small[0, i] -= row_dot(square, i, v, j, k, width)
            row_axpy(square, i, -v[j, i], small, 0, k + lanes, width)
        for k in range(width):
            gradient[j - base, k] += small[0, k]


@njit(nogil=True, cache=True, error_model="numpy")
def newton_items(begin, end, h, gradient, shared, nu, active, square, small, step, decrement, lanes):
    """``step[j] = (H_j + shared + ν_j I)⁻¹ gradient[j]`` of items, and ``½ gradient·step`` added to ``decrement``.

    Parameters
    ----------
    shared : shape (width, width)
    nu : shape (items,)
    active : int
        Columns from here on are fixed: their steps are zero.
    """
    width = square.shape[0]
    for j in range(begin, end):
        at = 0
        for i in range(width):
            first = i - i % 16
            for k in range(first, width):
                square[i, k] = h[j, at + k - first] + shared[i, k]
            at += width - first
            square[i, i] += nu[j]
            small[0, i] = gradient[j, i]
        for i in range(active, width):
            for k in range(i):
                square[k, i] = 0
            for k in range(i - i % 16, width):
                square[i, k] = 0
            square[i, i] = 1
            small[0, i] = 0
        cholesky(square, width, small[1], lanes)
        triangular_solves(square, width, small[1], small[0:1], small[2:3], lanes)
        for k in range(width):
            step[j, k] = small[2, k]
            if k < active:
                decrement[0] += 0.5 * small[2, k] * gradient[j, k]


@njit(nogil=True, cache=True, error_model="numpy")
def _descend(square, width, active, r, u, i, sweeps):
    """Coordinate descent on ``½ uᵀ S u − bᵀ u``, u ≥ 0, from ``u[i]`` with ``r = b − S u`` in ``r[0]``."""
    most = 0.0
    for k in range(active):
        most = max(most, abs(r[0, k]) / np.sqrt(square[k, k]))
    for _ in range(sweeps):
        moved = 0.0
        for k in range(active):
            step = max(r[0, k] / square[k, k], -u[i, k])
            if step != 0:
                u[i, k] += step
                row_axpy(square, k, -step, r, 0, 0, width)
                moved = max(moved, abs(step) * np.sqrt(square[k, k]))
        if moved <= 4e-7 * most if u.itemsize == 4 else moved <= 1e-14 * most:
            break


#: Sweeps of coordinate descent over the factors of one row at most.
SWEEPS = 1000


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _mirror(square, width):
    """What is above the diagonal, below it."""
    for i in range(width):
        for k in range(i):
            square[i, k] = square[k, i]


@njit(nogil=True, cache=True, error_model="numpy")
def half_step_nonnegative(
    order, begin, end, indptr, indices, values, model, shift, f, shared, penalties, out, value,
    gathered, square, small, active, lanes,
):  # fmt: skip
    """As :func:`half_step`, with factors that are zero or more, and the form ``shared`` (width, width) for all rows.

    Cyclic coordinate descent from the row that ``out`` holds (Franc, Hlavac, Navara 2005), whose columns from
    ``active`` on stay zero.
    """
    width = f.shape[1]
    for k in range(width):
        small[3, k] = 1
    for at in range(begin, end):
        row = order[at]
        first, last = indptr[row], indptr[row + 1]
        if first == last:
            for k in range(width):
                out[row, k] = 0
            continue
        penalty = penalties[last - first]
        for i in range(width):
            for k in range(width):
                square[i, k] = shared[i, k]
            square[i, i] += penalty
            small[0, i] = 0
        squares = 0.0
        for start in range(first, last, GATHERED):
            count = min(GATHERED, last - start)
            for r in range(count):
                e = start + r
                w = model[0] + model[1] * values[e]
                t = (model[2] + model[3] * values[e]) / w
                if len(shift):
                    t -= shift[indices[e]]
                squares += 0.5 * w * t * t
                root = f.dtype.type(np.sqrt(w))
                gather_row(f, indices[e], root, small[3], gathered, r, width)
                small[1, r] = root * t
            add_combination(gathered, count, small, 1, small, 0, width)
            _rank_add(gathered, count, square, width, lanes, f, indices, last, last, 0, width)
        _mirror(square, width)
        for k in range(width):
            small[2, k] = small[0, k]
        for k in range(active):
            if out[row, k] > 0:
                row_axpy(square, k, -out[row, k], small, 0, 0, width)
            else:
                out[row, k] = 0
        _descend(square, width, active, small, out, row, SWEEPS)
        least = squares
        for k in range(active):
            least -= 0.5 * np.float64(out[row, k]) * (np.float64(small[2, k]) + small[0, k])
        value[0] += least


@njit(nogil=True, cache=True, error_model="numpy")
def newton_items_nonnegative(begin, end, h, gradient, shared, nu, active, square, small, v, decrement, lanes):
    """Items ``begin`` to ``end`` at their best, zero or more, for the users that ``h`` and ``gradient`` are of.

    ``v`` is changed in place, and what F is lowered by added to ``decrement``.
    """
    width = square.shape[0]
    for j in range(begin, end):
        at = 0
        for i in range(width):
            first = i - i % 16
            for k in range(first, width):
                square[i, k] = h[j, at + k - first] + shared[i, k]
            at += width - first
            square[i, i] += nu[j]
        _mirror(square, width)
        for k in range(width):
            small[0, k] = -gradient[j, k]
            small[1, k] = -gradient[j, k]
            small[2, k] = v[j, k]
        _descend(square, width, active, small, v, j, SWEEPS)
        for k in range(active):
            # F(v) − F(v + s) = ½ s·(r + r'), with r and r' the negative gradients before and after.
            decrement[0] += 0.5 * np.float64(v[j, k] - small[2, k]) * (np.float64(small[1, k]) + small[0, k])
