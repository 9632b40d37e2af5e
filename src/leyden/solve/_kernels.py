"""Compiled kernels of least squares. Each has a plain NumPy twin in the tests.

Shapes: m rows, d data columns, p = d (+ 1 with an intercept) unknowns, k targets.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from leyden.doubled import add, dot_row, fma, two_product, two_sum
from leyden.vectors import (
    SCATTER_LANES,
    SUBTRACT_COLUMNS,
    SUBTRACT_ROWS,
    UPDATE_COLUMNS,
    UPDATE_ROWS,
    column_products,
    column_reflect,
    rank_subtract,
    rank_update,
    scatter_rows,
)

#: Hash of the sources that are compiled into the kernels here. Numba keeps what it compiled for as long as this file
#: stays as it is, and looks at no other: when they change, a test asks for the new hash to be written here.
COMPILED_FROM = "a8b6a97999034176"

#: Rows whose gradient is summed before the sum is folded into that of the tile: the second-order error of a doubled sum
#: grows with the square of its length, that of adding doubled numbers only with their count.
FLUSH = 16


@njit(nogil=True, cache=True, error_model="numpy")
def pack_dense(a, b, sqrt_w, shift, scale, intercept, out):
    """Working rows ``[(a - shift) scale, 1 scale, (b - shift) scale] sqrt_w`` of a dense tile.

    ``a`` (m, d), ``b`` (m, k), ``sqrt_w`` (m,) or empty for ones, ``shift`` and ``scale`` (p + k,), ``out`` (m, p + k).
    """
    m, d = a.shape
    p = d + intercept
    for i in range(m):
        w = sqrt_w[i] if sqrt_w.size else 1.0
        for j in range(d):
            out[i, j] = (a[i, j] - shift[j]) * (scale[j] * w)
        if intercept:
            out[i, d] = scale[d] * w
        for t in range(b.shape[1]):
            out[i, p + t] = (b[i, t] - shift[p + t]) * (scale[p + t] * w)


@njit(nogil=True, cache=True, error_model="numpy")
def pack_sparse(data, indices, indptr, d, b, sqrt_w, shift, scale, intercept, out):
    """As :func:`pack_dense`, from the arrays of a CSR tile."""
    p = d + intercept
    for i in range(len(indptr) - 1):
        w = sqrt_w[i] if sqrt_w.size else 1.0
        for j in range(d):
            out[i, j] = -shift[j] * (scale[j] * w)
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            out[i, j] = (data[e] - shift[j]) * (scale[j] * w)
        if intercept:
            out[i, d] = scale[d] * w
        for t in range(b.shape[1]):
            out[i, p + t] = (b[i, t] - shift[p + t]) * (scale[p + t] * w)


@njit(nogil=True, cache=True, error_model="numpy")
def add_upper(gram, tile):
    """Add the upper triangle of ``tile`` (q, q), float32 or float64, to that of ``gram`` (q, q) float64."""
    for i in range(gram.shape[0]):
        for j in range(i, gram.shape[0]):
            gram[i, j] += tile[i, j]


@njit(nogil=True, cache=True, error_model="numpy")
def gram_tile(tile, out, q):
    """``out = tileᵀ tile`` of the first ``q`` columns, upper triangle.

    ``tile`` (m, s) and ``out`` (s, s) float32 or float64, m a multiple of UPDATE_ROWS and s of 64 bytes; what is beyond
    column ``q`` is zero. The blocks that ``rank_update`` works on are short enough for BLAS to spend much of its time
    on arranging them.
    """
    s = tile.shape[1]
    lanes = 64 // tile.itemsize
    out[:] = 0.0
    for r in range(0, tile.shape[0], UPDATE_ROWS):
        for i in range(0, q, UPDATE_COLUMNS):
            rank_update(tile, r, out, i, i // lanes * lanes, s)


#: Columns that are reduced together in :func:`fold_triangle`.
PANEL = SUBTRACT_COLUMNS

#: Sums of squares in this range have lost nothing to underflow or overflow.
LEAST_SQUARE, LARGEST_SQUARE = 1e-280, 1e280


@njit(nogil=True, cache=True, error_model="numpy")
def fold_triangle(r, tile, triangular, w):
    """``r`` becomes the triangular factor of ``[r; tile]``, by Householder reflections in panels of PANEL columns.

    ``r`` (q, q) upper triangular; ``tile`` (m, s) with q columns and zeros beyond, m a multiple of UPDATE_ROWS and s of
    PANEL, is used up; ``w`` (s, s) is scratch. With ``triangular`` the tile has zeros below its diagonal, which take no
    time. A reflection leaves the rows of ``r`` but its own as they are (LAPACK's dtpqrt); those of a panel act on the
    rest of the columns as ``I - V Tᵀ Vᵀ`` (Schreiber, Van Loan, SIAM J. Sci. Stat. Comput. 10(1), 1989).
    """
    q, s = r.shape[0], tile.shape[1]
    t = np.zeros((PANEL, PANEL))
    for i in range(0, q, PANEL):
        m = tile.shape[0]
        if triangular:
            m = min(m, -(-(i + PANEL) // UPDATE_ROWS) * UPDATE_ROWS)
        _reduce_panel(r, tile, i, m, t)
        if i + PANEL >= q:
            break
        first = i + PANEL
        w[i:first, first:] = 0.0
        for k in range(0, m, UPDATE_ROWS):
            for c in range(i, first, UPDATE_COLUMNS):
                rank_update(tile, k, w, c, first, s)
        for a in range(PANEL - 1, -1, -1):
            for j in range(first, q):
                w[i + a, j] = t[a, a] * (w[i + a, j] + r[i + a, j])
            for b in range(a):
                for j in range(first, q):
                    w[i + a, j] += t[b, a] * (w[i + b, j] + r[i + b, j])
        for a in range(PANEL):
            for j in range(first, q):
                r[i + a, j] -= w[i + a, j]
        for k in range(0, m, SUBTRACT_ROWS):
            rank_subtract(tile, k, w, i, first, s)


@njit(nogil=True, cache=True, error_model="numpy")
def _reduce_panel(r, tile, i, m, t):
    """Reflections of PANEL columns from ``i`` on: their vectors in place of the columns, and T of ``I - V T Vᵀ``."""
    dots, products = np.empty(PANEL), np.empty(PANEL)
    for k in range(min(PANEL, r.shape[0] - i)):
        c = i + k
        column_products(tile, m, i, c, dots)
        scale = 1.0
        if not LEAST_SQUARE < dots[k] < LARGEST_SQUARE:
            scale = _power_of_two(r[c, c], tile, c, m)
            if scale != 1.0:
                for row in range(m):
                    tile[row, c] *= scale
                column_products(tile, m, i, c, dots)
        if dots[k] == 0.0:
            t[: k + 1, k] = 0.0
            continue
        alpha = r[c, c] * scale
        beta = -np.copysign(np.hypot(alpha, np.sqrt(dots[k])), alpha)
        tau = (beta - alpha) / beta
        inverse = 1.0 / (alpha - beta)
        r[c, c] = beta / scale
        for j in range(PANEL):
            dots[j] *= inverse
        for j in range(k + 1, min(PANEL, r.shape[0] - i)):
            dots[j] = tau * (dots[j] + r[c, i + j])
            r[c, i + j] -= dots[j]
        for j in range(k + 1):
            products[j], dots[j] = dots[j], 0.0
        column_reflect(tile, m, i, c, inverse, dots)
        # Of the vectors only what is in the tile has common entries.
        for a in range(k):
            total = 0.0
            for b in range(a, k):
                total += t[a, b] * products[b]
            t[a, k] = -tau * total
        t[k, k] = tau


@njit(nogil=True, cache=True, error_model="numpy")
def _power_of_two(alpha, tile, c, m):
    """What brings the largest of ``alpha`` and a column near one; one where all are zero, or one is not finite."""
    largest = abs(alpha)
    for row in range(m):
        largest = max(largest, abs(tile[row, c]))
    if largest == 0.0 or not np.isfinite(largest):
        return 1.0
    return np.ldexp(1.0, min(-int(np.floor(np.log2(largest))), 1000))


@njit(nogil=True, cache=True, error_model="numpy")
def gram_sparse(data, indices, indptr, d, b, sqrt_w, shift, scale, intercept, columns, values, gram):
    """Add the upper triangle of the Gram matrix of a CSR tile's working rows to ``gram`` (p + k, p + k).

    Columns of the data must be sorted within a row and not shifted. ``columns`` and ``values`` are scratch of length
    p + k.
    """
    p = d + intercept
    for i in range(len(indptr) - 1):
        w = sqrt_w[i] if sqrt_w.size else 1.0
        count = 0
        for e in range(indptr[i], indptr[i + 1]):
            columns[count] = indices[e]
            values[count] = data[e] * (scale[indices[e]] * w)
            count += 1
        if intercept:
            columns[count] = d
            values[count] = scale[d] * w
            count += 1
        for t in range(b.shape[1]):
            columns[count] = p + t
            values[count] = (b[i, t] - shift[p + t]) * (scale[p + t] * w)
            count += 1
        for x in range(count):
            v = values[x]
            row = columns[x]
            for y in range(x, count):
                gram[row, columns[y]] += v * values[y]


@njit(inline="always")
def _residual(b, intercept, sh, sl, weight):
    """Doubled ``weight (b - intercept - s)`` and the plain ``weight r²``."""
    h, l = two_sum(b, -intercept)
    h, l = add(h, l, -sh, -sl)
    square = weight * h * h
    if weight != 1.0:
        ph, pl = two_product(weight, h)
        pl += weight * l
        h = ph + pl
        l = pl - (h - ph)
    return h, l, square


@njit(inline="always")
def _flush(gh, gl, hi, lo):
    for j in range(len(gh)):
        gh[j], gl[j] = add(gh[j], gl[j], hi[j], lo[j])
        hi[j] = 0.0
        lo[j] = 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def gradient_dense(a, b, w, x, x0, gh, gl, sums, moments):
    """Add ``Aᵀ W r`` of ``r = b - x0 - A x`` to the doubled ``gh + gl``, four sums to the rows of ``sums``, and two.

    These are ``Σ w r²``, ``Σ w b²``, ``Σ w b``, ``Σ w``, and for each column ``Σ w a`` and ``Σ w a²``.

    ``a`` (m, d) float32 or float64, ``b`` (m, k), ``w`` (m,) or empty for ones, ``x`` (k, d), ``x0`` (k,), ``gh`` and
    ``gl`` (k, p), ``sums`` (4, k), ``moments`` (2, d). With p = d + 1 the last entry of the gradient is ``Σ w r``.
    """
    m, d = a.shape
    p = gh.shape[1]
    padded = (p // SCATTER_LANES + 1) * SCATTER_LANES
    hi, lo = np.zeros(padded), np.zeros(padded)
    tile_h, tile_l = np.zeros(p), np.zeros(p)
    tile_moments = np.zeros((2, padded))
    rh, rl, rw = np.empty(FLUSH), np.empty(FLUSH), np.empty(FLUSH)
    for t in range(len(x)):
        for first in range(0, m, FLUSH):
            last = min(first + FLUSH, m)
            rr = 0.0
            bb = 0.0
            bs = 0.0
            ws = 0.0
            # All residuals of the run first: the products of one row then overlap the folding of the one before.
            for i in range(first, last):
                sh, sl = dot_row(a, i, x, t, d)
                weight = w[i] if w.size else 1.0
                rh[i - first], rl[i - first], square = _residual(b[i, t], x0[t], sh, sl, weight)
                rw[i - first] = weight
                rr += square
                bb += weight * b[i, t] * b[i, t]
                bs += weight * b[i, t]
                ws += weight
            scatter_rows(a, first, last - first, rh, rl, rw, hi, lo, tile_moments)
            if p > d:
                for i in range(last - first):
                    hi[d], f = two_sum(hi[d], rh[i])
                    lo[d] += f + rl[i]
            _flush(tile_h, tile_l, hi, lo)
            sums[0, t] += rr
            sums[1, t] += bb
            sums[2, t] += bs
            sums[3, t] += ws
        _flush(gh[t], gl[t], tile_h, tile_l)
        if t == 0:
            for j in range(d):
                moments[0, j] += tile_moments[0, j]
                moments[1, j] += tile_moments[1, j]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def gradient_plain(a, b, w, x, x0, gradient):
    """Add ``Aᵀ W r`` to ``gradient`` (k, p) in float64; arguments as of :func:`gradient_dense`."""
    m, d = a.shape
    for t in range(len(x)):
        total = 0.0
        for i in range(m):
            s = 0.0
            for j in range(d):
                s += np.float64(a[i, j]) * x[t, j]
            r = b[i, t] - x0[t] - s
            if w.size:
                r *= w[i]
            total += r
            for j in range(d):
                gradient[t, j] += np.float64(a[i, j]) * r
        if gradient.shape[1] > d:
            gradient[t, d] += total


@njit(nogil=True, cache=True, error_model="numpy")
def gradient_sparse(data, indices, indptr, d, b, w, x, x0, run, gh, gl, sums, moments):
    """As :func:`gradient_dense`, from the arrays of a CSR tile.

    Folding a sum visits every column: it is done once in ``run`` rows.
    """
    p = gh.shape[1]
    hi, lo = np.zeros(p), np.zeros(p)
    tile_h, tile_l = np.zeros(p), np.zeros(p)
    m = len(indptr) - 1
    for t in range(len(x)):
        for first in range(0, m, run):
            rr = 0.0
            bb = 0.0
            bs = 0.0
            ws = 0.0
            for i in range(first, min(first + run, m)):
                sh = 0.0
                sl = 0.0
                for n in range(indptr[i], indptr[i + 1]):
                    q, e = two_product(np.float64(data[n]), x[t, indices[n]])
                    sh, f = two_sum(sh, q)
                    sl += e + f
                weight = w[i] if w.size else 1.0
                h, l, square = _residual(b[i, t], x0[t], sh, sl, weight)
                rr += square
                bb += weight * b[i, t] * b[i, t]
                bs += weight * b[i, t]
                ws += weight
                for n in range(indptr[i], indptr[i + 1]):
                    v = np.float64(data[n])
                    q, e = two_product(v, h)
                    j = indices[n]
                    hi[j], f = two_sum(hi[j], q)
                    lo[j] += fma(v, l, e) + f
                    if t == 0:
                        moments[0, j] += weight * v
                        moments[1, j] += weight * v * v
                if p > d:
                    hi[d], f = two_sum(hi[d], h)
                    lo[d] += f + l
            _flush(tile_h, tile_l, hi, lo)
            sums[0, t] += rr
            sums[1, t] += bb
            sums[2, t] += bs
            sums[3, t] += ws
        _flush(gh[t], gl[t], tile_h, tile_l)


@njit(nogil=True, cache=True, error_model="numpy")
def multiply_doubled(a, shift, scale, sqrt_w, intercept, x, hi, lo, out):
    """``out = sqrt_w (working rows of a) X``, each entry rounded from a doubled sum.

    ``a`` (m, d) dense float32 or float64, ``x`` (p, r) with working row l of ``a`` meeting row l of ``x``. Shifting is
    exact (TwoSum), scaling is exact when ``scale`` holds powers of two, and the weight multiplies the finished entry,
    so ``out`` is right to a few units in its last place however ill-conditioned the product. ``hi``, ``lo`` (r,) are
    scratch.
    """
    m, d = a.shape
    r = x.shape[1]
    for i in range(m):
        for j in range(r):
            hi[j] = 0.0
            lo[j] = 0.0
        for l in range(d + intercept):
            if l < d:
                ch, cl = two_sum(np.float64(a[i, l]), -shift[l])
                ch *= scale[l]
                cl *= scale[l]
            else:
                ch = scale[l]
                cl = 0.0
            if ch != 0.0:
                for j in range(r):
                    p = ch * x[l, j]
                    e = fma(ch, x[l, j], -p)
                    s = hi[j] + p
                    z = s - hi[j]
                    lo[j] += fma(cl, x[l, j], e) + ((hi[j] - (s - z)) + (p - z))
                    hi[j] = s
        weight = sqrt_w[i] if sqrt_w.size else 1.0
        for j in range(r):
            out[i, j] = (hi[j] + lo[j]) * weight


@njit(nogil=True, cache=True, error_model="numpy")
def scatter_signed(tile, targets, signs, sketch):
    """Add each row of ``tile`` (m, q), signed, to the rows ``targets`` (m, zeta) of ``sketch`` (s, q)."""
    for i in range(tile.shape[0]):
        for z in range(targets.shape[1]):
            h = targets[i, z]
            if signs[i, z]:
                for j in range(tile.shape[1]):
                    sketch[h, j] += tile[i, j]
            else:
                for j in range(tile.shape[1]):
                    sketch[h, j] -= tile[i, j]


@njit(nogil=True, cache=True, error_model="numpy")
def multiply_transposed(x, hi, lo):
    """Doubled ``Xᵀ B`` of ``B = hi + lo`` (p, k) and ``x`` (p, r), as two (r, k) arrays."""
    p, r = x.shape
    k = hi.shape[1]
    oh, ol = np.zeros((r, k)), np.zeros((r, k))
    for l in range(p):
        for j in range(r):
            for t in range(k):
                q, e = two_product(x[l, j], hi[l, t])
                s, f = two_sum(oh[j, t], q)
                oh[j, t] = s
                ol[j, t] += f + fma(x[l, j], lo[l, t], e)
    return oh, ol
