"""Kernels of the sums of a mixed model: cross-products of groups, and the gradient in doubled arithmetic."""

from __future__ import annotations

from math import log

from numba import njit

from leyden.doubled import add, two_product, two_sum


@njit(nogil=True, cache=True, error_model="numpy")
def add_groups(codes, z, places, values, dense, a, b, part, parts):
    """Add the rows of some groups: ``A_g += z zᵀ`` and ``B_g += z [values at places | dense]``.

    Group g belongs to part ``g parts // groups``, so that several threads add to different groups, each in the order of
    the rows.

    Parameters
    ----------
    codes : int32, shape (m,)
    z : float64, shape (m, k)
    places : int64, shape (m, e)
        Columns of the shared part that hold ``values``, shape (m, e); a negative place is none.
    dense : float64, shape (m, q)
        The last q columns of the shared part.
    a : float64, shape (groups, k, k)
    b : float64, shape (groups, k, shared)
    """
    groups, k, shared = b.shape
    e, q = places.shape[1], dense.shape[1]
    first, last = groups * part // parts, groups * (part + 1) // parts
    for i in range(len(codes)):
        g = codes[i]
        if g < first or g >= last:
            continue
        for u in range(k):
            zu = z[i, u]
            for v in range(u + 1):
                a[g, u, v] += zu * z[i, v]
            for s in range(e):
                if places[i, s] >= 0:
                    b[g, u, places[i, s]] += zu * values[i, s]
            for s in range(q):
                b[g, u, shared - q + s] += zu * dense[i, s]


@njit(nogil=True, cache=True, error_model="numpy")
def add_shared(places, values, dense, c):
    """``C += s sᵀ`` for the shared part s of every row but the product of dense with dense; the lower triangle."""
    shared, e, q = c.shape[0], places.shape[1], dense.shape[1]
    for i in range(len(places)):
        for s in range(e):
            row, value = places[i, s], values[i, s]
            if row < 0:
                continue
            for t in range(s + 1):
                if places[i, t] >= 0:
                    c[row, places[i, t]] += value * values[i, t]
            for t in range(q):
                c[shared - q + t, row] += dense[i, t] * value


@njit(nogil=True, cache=True, error_model="numpy")
def residuals(data, y, weight, beta, p, codes, starts, widths, effects, offsets, hi, lo, magnitude):
    """Residuals ``y − x·β − Σ z_t·u_t`` in doubled arithmetic, and the size of what was summed.

    Parameters
    ----------
    data : float64, shape (m, d)
    y, weight : float64, shape (m,)
        An empty weight is one.
    beta : float64, shape (p,)
    codes : int32, shape (m, terms)
    starts, widths : int64, shape (terms,)
        Where the columns of a term stand in ``data``, and how many they are.
    effects : float64, shape (all,)
        Effects of all terms, those of a group together; a term's begin at ``offsets``.
    hi, lo, magnitude : float64, shape (m,)
        Out: residuals, and ``|y| + |x|·|β| + Σ |z_t|·|u_t|``.

    Returns
    -------
    float
        ``Σ w r²``.
    float
        ``Σ w magnitude²``.
    """
    total, size = 0.0, 0.0
    for i in range(len(y)):
        h, l, m = y[i], 0.0, abs(y[i])
        for j in range(p):
            f, e = two_product(data[i, j], -beta[j])
            h, l = add(h, l, f, e)
            m += abs(f)
        for t in range(len(starts)):
            at = offsets[t] + codes[i, t] * widths[t]
            for j in range(widths[t]):
                f, e = two_product(data[i, starts[t] + j], -effects[at + j])
                h, l = add(h, l, f, e)
                m += abs(f)
        hi[i], lo[i], magnitude[i] = h, l, m
        w = weight[i] if len(weight) else 1.0
        total += w * h * h
        size += w * m * m
    return total, size


@njit(nogil=True, cache=True, error_model="numpy")
def add_gradient(data, weight, p, codes, starts, widths, offsets, hi, lo, gh, gl, part, parts):
    """Add ``Σ w x r`` and, of each group, ``Σ w z r`` in doubled arithmetic to ``gh + gl``.

    Entry j of the fixed effects stands at j, and the effects of terms behind them; an entry belongs to the part of its
    group, those of fixed effects to the first one.
    """
    for i in range(len(hi)):
        w = weight[i] if len(weight) else 1.0
        rh, rl = two_product(w, hi[i])
        rl += w * lo[i]
        rh, rl = two_sum(rh, rl)
        if part == 0:
            for j in range(p):
                f, e = two_product(data[i, j], rh)
                gh[j], gl[j] = add(gh[j], gl[j], f, e + data[i, j] * rl)
        for t in range(len(starts)):
            if codes[i, t] % parts != part:
                continue
            at = p + offsets[t] + codes[i, t] * widths[t]
            for j in range(widths[t]):
                x = data[i, starts[t] + j]
                f, e = two_product(x, rh)
                gh[at + j], gl[at + j] = add(gh[at + j], gl[at + j], f, e + x * rl)


@njit(nogil=True, cache=True, error_model="numpy")
def eliminate(a, b, factor, out, shrunk, begin, end):
    """Whiten some groups: rows ``L⁻¹ Λᵀ B_g`` with ``L Lᵀ = I + Λᵀ A_g Λ``; gives ``Σ log |L Lᵀ|``.

    Parameters
    ----------
    a : float64, shape (groups, k, k)
        Lower triangles.
    b : float64, shape (groups, k, shared)
    factor : float64, shape (k, k)
        Λ.
    out : float64, shape ((end − begin) k, shared)
        The whitened rows.
    shrunk : float64, shape (k, 2 k)
        Memory to work in.
    """
    k, shared = b.shape[1], b.shape[2]
    logdet = 0.0
    for g in range(begin, end):
        for u in range(k):
            for v in range(k):
                s = 0.0
                for t in range(k):
                    s += (a[g, u, t] if t <= u else a[g, t, u]) * factor[t, v]
                shrunk[u, k + v] = s
        for u in range(k):
            for v in range(u + 1):
                s = 1.0 if u == v else 0.0
                for t in range(k):
                    s += factor[t, u] * shrunk[t, k + v]
                shrunk[u, v] = s
        for u in range(k):
            for v in range(u + 1):
                s = shrunk[u, v]
                for t in range(v):
                    s -= shrunk[u, t] * shrunk[v, t]
                if u == v:
                    if s <= 0.0:
                        return float("nan")
                    shrunk[u, u] = s**0.5
                else:
                    shrunk[u, v] = s / shrunk[v, v]
        product = 1.0
        for u in range(k):
            product *= shrunk[u, u]
            if product > 1e100:
                logdet += log(product)
                product = 1.0
        logdet += log(product)
        first = (g - begin) * k
        for u in range(k):
            for s in range(shared):
                value = 0.0
                for t in range(k):
                    value += factor[t, u] * b[g, t, s]
                for t in range(u):
                    value -= shrunk[u, t] * out[first + t, s]
                out[first + u, s] = value / shrunk[u, u]
    return 2.0 * logdet


@njit(nogil=True, cache=True, error_model="numpy")
def shrinkage(a, factor, k_out, work):
    """``K = Λ (I + Λᵀ A Λ)⁻¹ Λᵀ`` of one group; ``work`` has shape (2, k, k)."""
    k = len(factor)
    low, solved = work[0], work[1]
    for u in range(k):
        for v in range(k):
            s = 0.0
            for t in range(k):
                s += (a[u, t] if t <= u else a[t, u]) * factor[t, v]
            solved[u, v] = s
    for u in range(k):
        for v in range(u + 1):
            s = 1.0 if u == v else 0.0
            for t in range(k):
                s += factor[t, u] * solved[t, v]
            low[u, v] = s
    for u in range(k):
        for v in range(u + 1):
            s = low[u, v]
            for t in range(v):
                s -= low[u, t] * low[v, t]
            low[u, v] = s**0.5 if u == v else s / low[v, v]
    for c in range(k):  # L⁻¹ Λᵀ
        for u in range(k):
            s = factor[c, u]
            for t in range(u):
                s -= low[u, t] * solved[t, c]
            solved[u, c] = s / low[u, u]
    for u in range(k):
        for v in range(u + 1):
            s = 0.0
            for t in range(k):
                s += solved[t, u] * solved[t, v]
            k_out[u, v] = s
            k_out[v, u] = s


@njit(nogil=True, cache=True, error_model="numpy")
def slopes(a, b, factor, fitted, begin, end, sum_aj, out, work):
    """What the derivative by ``Δ = Λ Λᵀ`` is made of: ``Σ A − A K A`` added to, and rows ``B − A K B`` of each group.

    Parameters
    ----------
    a : float64, shape (groups, k, k)
    b : float64, shape (groups, k, shared)
    factor : float64, shape (k, k)
    fitted : float64, shape (k, k)
        Memory for K.
    sum_aj : float64, shape (k, k)
    out : float64, shape ((end − begin) k, shared)
    work : float64, shape (4, k, k)
    """
    k, shared = b.shape[1], b.shape[2]
    whole, ak = work[2], work[3]
    for g in range(begin, end):
        shrinkage(a[g], factor, fitted, work)
        for u in range(k):
            for v in range(k):
                whole[u, v] = a[g, u, v] if v <= u else a[g, v, u]
        for u in range(k):
            for v in range(k):
                s = 0.0
                for t in range(k):
                    s += whole[u, t] * fitted[t, v]
                ak[u, v] = s
        for u in range(k):
            for v in range(k):
                s = whole[u, v]
                for t in range(k):
                    s -= ak[u, t] * whole[t, v]
                sum_aj[u, v] += s
        first = (g - begin) * k
        for u in range(k):
            for s in range(shared):
                value = b[g, u, s]
                for t in range(k):
                    value -= ak[u, t] * b[g, t, s]
                out[first + u, s] = value


@njit(nogil=True, cache=True, error_model="numpy")
def effects_of(a, right, factor, begin, end, out, fitted, work):
    """``u_g = K_g right_g`` of some groups; ``right`` and ``out`` have shape (groups, k)."""
    k = len(factor)
    for g in range(begin, end):
        shrinkage(a[g], factor, fitted, work)
        for u in range(k):
            s = 0.0
            for t in range(k):
                s += fitted[u, t] * right[g, t]
            out[g, u] = s


@njit(nogil=True, cache=True, error_model="numpy")
def covariances_of(a, numbers, factor, out, work):
    """``K_g`` of the groups of these numbers: ``out`` has shape (len(numbers), k, k)."""
    for i in range(len(numbers)):
        shrinkage(a[numbers[i]], factor, out[i], work)


@njit(nogil=True, cache=True, error_model="numpy")
def substitute(a, factor, h, out, begin, end, work, transposed):
    """``L⁻¹ h_g``, or ``L⁻ᵀ h_g``, of some groups, with ``L Lᵀ = I + Λᵀ A_g Λ``; h and out have shape (groups, k)."""
    k = len(factor)
    low, whole = work[0], work[1]
    for g in range(begin, end):
        for u in range(k):
            for v in range(k):
                s = 0.0
                for t in range(k):
                    s += (a[g, u, t] if t <= u else a[g, t, u]) * factor[t, v]
                whole[u, v] = s
        for u in range(k):
            for v in range(u + 1):
                s = 1.0 if u == v else 0.0
                for t in range(k):
                    s += factor[t, u] * whole[t, v]
                for t in range(v):
                    s -= low[u, t] * low[v, t]
                low[u, v] = s**0.5 if u == v else s / low[v, v]
        if transposed:
            for u in range(k - 1, -1, -1):
                s = h[g, u]
                for t in range(u + 1, k):
                    s -= low[t, u] * out[g, t]
                out[g, u] = s / low[u, u]
        else:
            for u in range(k):
                s = h[g, u]
                for t in range(u):
                    s -= low[u, t] * out[g, t]
                out[g, u] = s / low[u, u]


@njit(nogil=True, cache=True, error_model="numpy")
def add_cells(codes, z, places, values, dense, a, starts, columns, cells, tail, part, parts):
    """As :func:`add_groups`, products with ``values`` added to cells, those with ``dense`` to the tail.

    Parameters
    ----------
    starts : int64, shape (groups + 1,)
    columns : int32, shape (cells,)
        In increasing order for each group; a negative place is none of them.
    cells : float64, shape (cells, k)
    tail : float64, shape (groups, k, q)
    """
    groups, k, q = tail.shape
    e = places.shape[1]
    first, last = groups * part // parts, groups * (part + 1) // parts
    for i in range(len(codes)):
        g = codes[i]
        if g < first or g >= last:
            continue
        for u in range(k):
            zu = z[i, u]
            for v in range(u + 1):
                a[g, u, v] += zu * z[i, v]
            for s in range(q):
                tail[g, u, s] += zu * dense[i, s]
        for s in range(e):
            place = places[i, s]
            if place < 0:
                continue
            low, high = starts[g], starts[g + 1]
            while high - low > 1:
                middle = (low + high) // 2
                if columns[middle] <= place:
                    low = middle
                else:
                    high = middle
            for u in range(k):
                cells[low, u] += z[i, u] * values[i, s]


@njit(nogil=True, cache=True, error_model="numpy")
def _factor_block(a, factor, low):
    """``L Lᵀ = I + Λᵀ A Λ`` of one group into the first k columns of ``low`` (k, 2 k); False where it has none."""
    k = len(factor)
    for u in range(k):
        for v in range(k):
            s = 0.0
            for t in range(k):
                s += (a[u, t] if t <= u else a[t, u]) * factor[t, v]
            low[u, k + v] = s
    for u in range(k):
        for v in range(u + 1):
            s = 1.0 if u == v else 0.0
            for t in range(k):
                s += factor[t, u] * low[t, k + v]
            for t in range(v):
                s -= low[u, t] * low[v, t]
            if u == v:
                if s <= 0.0:
                    return False
                low[u, u] = s**0.5
            else:
                low[u, v] = s / low[v, v]
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def whiten_cells(a, starts, cells, tail, factor, white_cells, white_tail, low, begin, end):
    """``L⁻¹ Λᵀ B_g`` of some groups; gives ``Σ log|L Lᵀ|``."""
    k, q = len(factor), tail.shape[2]
    logdet = 0.0
    for g in range(begin, end):
        if not _factor_block(a[g], factor, low):
            return float("nan")
        for u in range(k):
            logdet += log(low[u, u])
        for c in range(starts[g], starts[g + 1]):
            for u in range(k):
                s = 0.0
                for t in range(k):
                    s += factor[t, u] * cells[c, t]
                for t in range(u):
                    s -= low[u, t] * white_cells[c, t]
                white_cells[c, u] = s / low[u, u]
        for c in range(q):
            for u in range(k):
                s = 0.0
                for t in range(k):
                    s += factor[t, u] * tail[g, t, c]
                for t in range(u):
                    s -= low[u, t] * white_tail[g, t, c]
                white_tail[g, u, c] = s / low[u, u]
    return 2.0 * logdet


@njit(nogil=True, cache=True, error_model="numpy")
def add_cell_products(starts, columns, cells, tail, total, sparse, first, last):
    """``Σ B̃ᵀ B̃`` for the rows ``first:last`` of it that are columns of cells, the lower triangle, and tail by cells."""
    groups, k, q = tail.shape
    for g in range(groups):
        for i in range(starts[g], starts[g + 1]):
            row = columns[i]
            if row < first or row >= last:
                continue
            for j in range(starts[g], i + 1):
                s = 0.0
                for u in range(k):
                    s += cells[i, u] * cells[j, u]
                total[row, columns[j]] += s
            for c in range(q):
                s = 0.0
                for u in range(k):
                    s += cells[i, u] * tail[g, u, c]
                total[sparse + c, row] += s


@njit(nogil=True, cache=True, error_model="numpy")
def slope_cells(a, starts, cells, tail, factor, out_cells, out_tail, sum_aj, begin, end, work):
    """As :func:`slopes` for cells: ``Σ A − A K A``, and ``B − A K B`` of some groups, which begin at 0 in ``out``."""
    k, q = len(factor), tail.shape[2]
    whole, ak, fitted = work[2], work[3], work[4]
    for g in range(begin, end):
        shrinkage(a[g], factor, fitted, work)
        for u in range(k):
            for v in range(k):
                whole[u, v] = a[g, u, v] if v <= u else a[g, v, u]
        for u in range(k):
            for v in range(k):
                s = 0.0
                for t in range(k):
                    s += whole[u, t] * fitted[t, v]
                ak[u, v] = s
        for u in range(k):
            for v in range(k):
                s = whole[u, v]
                for t in range(k):
                    s -= ak[u, t] * whole[t, v]
                sum_aj[u, v] += s
        at = starts[begin]
        for c in range(starts[g], starts[g + 1]):
            for u in range(k):
                s = cells[c, u]
                for t in range(k):
                    s -= ak[u, t] * cells[c, t]
                out_cells[c - at, u] = s
        for c in range(q):
            for u in range(k):
                s = tail[g, u, c]
                for t in range(k):
                    s -= ak[u, t] * tail[g, t, c]
                out_tail[g - begin, u, c] = s


@njit(nogil=True, cache=True, error_model="numpy")
def cell_quadratics(starts, columns, cells, tail, form, sparse, out):
    """``B_g F B_gᵀ`` added to ``out`` (groups, k, k); the first cell is that of ``starts[0]``."""
    groups, k, q = tail.shape
    origin = starts[0]
    for g in range(groups):
        for i in range(starts[g], starts[g + 1]):
            row = columns[i]
            for u in range(k):
                # (F Bᵀ) at this column, cell by cell and then the tail.
                s = 0.0
                for j in range(starts[g], starts[g + 1]):
                    s += form[row, columns[j]] * cells[j - origin, u]
                for c in range(q):
                    s += form[row, sparse + c] * tail[g, u, c]
                for v in range(k):
                    out[g, v, u] += cells[i - origin, v] * s
        for c in range(q):
            for u in range(k):
                s = 0.0
                for j in range(starts[g], starts[g + 1]):
                    s += form[sparse + c, columns[j]] * cells[j - origin, u]
                for d in range(q):
                    s += form[sparse + c, sparse + d] * tail[g, u, d]
                for v in range(k):
                    out[g, v, u] += tail[g, v, c] * s
