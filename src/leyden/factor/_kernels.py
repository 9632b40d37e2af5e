"""Compiled kernels of the factorizations. Each has a plain NumPy twin in the tests."""

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from leyden.vectors import INT, function, row_pointer, splat

#: Hash of the sources that are compiled into the kernels here; see :mod:`leyden.solve._kernels`.
COMPILED_FROM = "0edcd5ab53ec007c"

#: Entries of a vector, and vectors of a row that are worked on at once: their sums stay in registers.
LANES, AT_ONCE = 8, 6


@njit(nogil=True, cache=True, error_model="numpy")
def pack_moments(a, shift, scale, out, moments):
    """``out = (a − shift) scale`` of a dense tile (m, d); column sums and squares are added to ``moments`` (2, d)."""
    m, d = a.shape
    for i in range(m):
        for j in range(d):
            v = (a[i, j] - shift[j]) * scale[j]
            out[i, j] = v
            moments[0, j] += v
            moments[1, j] += v * v


def _row_kernel(vectors: int, *, transposed: bool):
    """An intrinsic for ``vectors`` vectors of a row: a gather from rows of W, or a scatter to rows of S."""

    @intrinsic
    def kernel(_context, data, indices, scale, first, last, matrix, y, i, j):
        signature = types.void(data, indices, scale, types.intp, types.intp, matrix, y, types.intp, types.intp)

        def generate(context, builder, _sig, args):
            double = ir.DoubleType()
            vector = ir.VectorType(double, LANES)
            fused = function(builder, f"llvm.fma.v{LANES}f64", vector, [vector] * 3)
            values, columns, factors = (
                context.make_array(kind)(context, builder, value).data
                for kind, value in zip((data, indices, scale), args[:3], strict=True)
            )
            row = builder.gep(row_pointer(builder, context, y, args[6], args[7], double), [args[8]])

            def places(start):
                return [
                    builder.bitcast(builder.gep(start, [ir.Constant(INT, LANES * u)]), vector.as_pointer())
                    for u in range(vectors)
                ]

            held = [cgutils.alloca_once(builder, vector) for _ in range(vectors)]
            for slot, place in zip(held, places(row), strict=True):
                builder.store(
                    builder.load(place, align=8) if transposed else ir.Constant(vector, [0.0] * LANES), slot
                )  # fmt: skip
            with cgutils.for_range_slice(builder, args[3], args[4], ir.Constant(INT, 1), intp=INT) as (e, _):
                c = builder.load(builder.gep(columns, [e]))
                c = builder.sext(c, INT) if c.type != INT else c
                start = builder.gep(row_pointer(builder, context, matrix, args[5], c, double), [args[8]])
                value = builder.load(builder.gep(values, [e]))
                if value.type != double:
                    value = builder.fpext(value, double)
                v = splat(builder, builder.fmul(value, builder.load(builder.gep(factors, [c]))), LANES)
                for slot, place in zip(held, places(start), strict=True):
                    there = builder.load(place, align=8)
                    if transposed:
                        builder.store(builder.call(fused, [v, builder.load(slot), there]), place, align=8)
                    else:
                        builder.store(builder.call(fused, [v, there, builder.load(slot)]), slot)
            if not transposed:
                for slot, place in zip(held, places(row), strict=True):
                    builder.store(builder.load(slot), place, align=8)
            return context.get_dummy_value()

        return signature, generate

    return kernel


_gather, _gather_one = (_row_kernel(vectors, transposed=False) for vectors in (AT_ONCE, 1))
_scatter, _scatter_one = (_row_kernel(vectors, transposed=True) for vectors in (AT_ONCE, 1))


@njit(nogil=True, cache=True, error_model="numpy")
def image_sparse(data, indices, indptr, scale, w, y, s, moments):
    """``y = A w`` and ``s += Aᵀ y`` of a CSR tile (m, d) with columns scaled, row by row.

    ``w`` and ``s`` (d, l), ``y`` (m, l) float64, l a multiple of LANES; column sums and squares of A are added to
    ``moments`` (2, d).
    """
    width = w.shape[1]
    wide = width - width % (LANES * AT_ONCE)
    for i in range(len(indptr) - 1):
        first, last = indptr[i], indptr[i + 1]
        for e in range(first, last):
            v = data[e] * scale[indices[e]]
            moments[0, indices[e]] += v
            moments[1, indices[e]] += v * v
        for j in range(0, wide, LANES * AT_ONCE):
            _gather(data, indices, scale, first, last, w, y, i, j)
        for j in range(wide, width, LANES):
            _gather_one(data, indices, scale, first, last, w, y, i, j)
        for j in range(0, wide, LANES * AT_ONCE):
            _scatter(data, indices, scale, first, last, s, y, i, j)
        for j in range(wide, width, LANES):
            _scatter_one(data, indices, scale, first, last, s, y, i, j)
