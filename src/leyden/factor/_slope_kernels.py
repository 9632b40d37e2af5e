"""The compiled slope of the objective in the factors of items; its plain NumPy twin is in the tests."""

# Numba functions, and intrinsics that are called without the context they are written with.
# mypy: ignore-errors

from __future__ import annotations

from numba import njit

from leyden.factor._als_vectors import prefetch_part, row_axpy, row_dot

#: Hash of the sources that are compiled into the kernel here; see :mod:`leyden.solve._kernels`.
COMPILED_FROM = "4dc802fab9fe5657"

#: Ratings whose terms are summed in the precision of the factors, and ratings that are asked for ahead.
TOGETHER, ASKED = 64, 24


@njit(nogil=True, cache=True, error_model="numpy")
def slopes(begin, end, indptr, indices, values, model, u, v, bias, shared, penalties, nonnegative, part, memory, out):
    """``out[j] = ‖∇_j‖² / ν_j`` of the items ``begin`` to ``end``.

    With ``h = w t − w u·v`` of each rating, ``∇_j = ν_j v_j + S v_j − Σ_i h_ij u_i``.

    Parameters
    ----------
    indptr : int64, shape (items + 1,)
    indices, values : shape (ratings,)
        Users and values, by item.
    model : float64, shape (4,)
        ``w = model[0] + model[1] value`` and ``w t = model[2] + model[3] value``.
    u, v : shapes (users, width) and (items, width), of one type
    bias : int
        The column of the biases, each of which stands for itself times one; −1 without.
    shared : float64, shape (width, width) or (0, 0)
        S, the form that all items share.
    penalties : float64, shape (most ratings + 1,)
        ν by the number of ratings.
    nonnegative : bool
        Whether what would lead below zero does not count.
    part, memory : shape (1, width) of the type of u, and float64 (width,)
        Memory to work in.
    out : float64, shape (items,)
    """
    width = v.shape[1]
    for j in range(begin, end):
        first, last = indptr[j], indptr[j + 1]
        penalty = penalties[last - first]
        for k in range(width):
            memory[k] = penalty * v[j, k]
        for k in range(len(shared)):
            for l in range(width):
                memory[l] += shared[k, l] * v[j, k]
        total = 0.0
        for start in range(first, last, TOGETHER):
            for k in range(width):
                part[0, k] = 0
            for e in range(start, min(start + TOGETHER, last)):
                i = indices[e]
                if e + ASKED < len(indices):
                    prefetch_part(u, indices[e + ASKED], 0, width)
                score = row_dot(u, i, v, j, 0, width)
                if bias >= 0:
                    score += u[i, bias] + v[j, bias] - u[i, bias] * v[j, bias]
                h = model[2] + model[3] * values[e] - (model[0] + model[1] * values[e]) * score
                total += h
                row_axpy(u, i, u.dtype.type(h), part, 0, 0, width)
            for k in range(width):
                memory[k] -= part[0, k]
        if bias >= 0:
            memory[bias] = penalty * v[j, bias] - total
        square = 0.0
        for k in range(width):
            slope = memory[k]
            if nonnegative and v[j, k] <= 0:
                slope = min(slope, 0.0)
            square += slope * slope
        out[j] = square / penalty
