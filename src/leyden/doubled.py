"""Doubled arithmetic: float64 operations whose rounding errors are kept.

A *doubled* number is an unevaluated sum ``hi + lo`` of two float64, about 106 bits. It rests on two error-free
transformations, ``a + b = s + e`` (Knuth's TwoSum) and ``a * b = p + e`` (one fused multiply-add), and on the dot
product of Ogita, Rump and Oishi, which returns ``x·y`` with error at most ``u |x·y| + (n u)² |x|·|y|`` [1]_.

A pass that dots and scatters every row in doubled arithmetic takes two to three times a plain one in memory, and no
longer where reading from a disk sets the pace.

References
----------
.. [1] T. Ogita, S. M. Rump, S. Oishi, "Accurate sum and dot product", SIAM J. Sci. Comput. 26(6), 2005.
"""

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from leyden.vectors import INT, function, lanes_below, masked_load, row_pointer

#: Lanes that ``dot_row`` sums side by side: one AVX-512 vector, two AVX2 ones.
LANES = 8

_DOUBLE = ir.DoubleType()


@intrinsic
def fma(_context, a, b, c):
    """``a * b + c`` rounded once."""
    signature = types.float64(types.float64, types.float64, types.float64)
    return signature, lambda _ctx, builder, _sig, args: builder.fma(*args)


@njit(inline="always")
def two_sum(a, b):
    """``(s, e)`` with ``s = fl(a + b)`` and ``s + e = a + b`` exactly."""
    s = a + b
    z = s - a
    return s, (a - (s - z)) + (b - z)


@njit(inline="always")
def two_product(a, b):
    """``(p, e)`` with ``p = fl(a * b)`` and ``p + e = a * b`` exactly."""
    p = a * b
    return p, fma(a, b, -p)


@njit(inline="always")
def add(ah, al, bh, bl):
    """Sum of two doubled numbers, error at most ``4 u² (|a| + |b|)``."""
    s, e = two_sum(ah, bh)
    e += al + bl
    h = s + e
    return h, e - (h - s)


def _vector_two_sum(builder, a, b):
    s = builder.fadd(a, b)
    z = builder.fsub(s, a)
    return s, builder.fadd(builder.fsub(a, builder.fsub(s, z)), builder.fsub(b, z))


def _halves(builder, vector, lanes):
    nothing = ir.Constant(vector.type, ir.Undefined)
    half = lanes // 2
    pick = [ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(i * half, (i + 1) * half))) for i in (0, 1)]
    return [builder.shuffle_vector(vector, nothing, mask) for mask in pick]


@intrinsic
def dot_row(_context, a, i, x, k, d):
    """``(hi, lo)`` of ``sum(a[i, j] * x[k, j] for j < d)``; ``a`` float32 or float64, ``x`` float64, rows contiguous.

    Written in vector instructions because a compiler may not reorder TwoSum: LANES independent doubled sums run side by
    side, the last few entries under a mask, and are folded pairwise at the end.
    """
    signature = types.UniTuple(types.float64, 2)(a, types.intp, x, types.intp, types.intp)

    def generate(ctx, builder, sig, args):
        element = ctx.get_value_type(a.dtype)
        wide, narrow = ir.VectorType(_DOUBLE, LANES), ir.VectorType(element, LANES)
        fused = function(builder, f"llvm.fma.v{LANES}f64", wide, [wide] * 3)

        a_row = row_pointer(builder, ctx, a, args[0], args[1], element)
        x_row, length = row_pointer(builder, ctx, x, args[2], args[3], _DOUBLE), args[4]
        zero = ir.Constant(wide, [0.0] * LANES)
        sums, errors = (cgutils.alloca_once_value(builder, zero) for _ in range(2))

        def accumulate(av, xv):
            if element != _DOUBLE:
                av = builder.fpext(av, wide)
            product = builder.fmul(av, xv)
            rest = builder.call(fused, [av, xv, builder.fneg(product)])
            total, error = _vector_two_sum(builder, builder.load(sums), product)
            builder.store(total, sums)
            builder.store(builder.fadd(builder.load(errors), builder.fadd(rest, error)), errors)

        def at(pointer, j, vector):
            return builder.bitcast(builder.gep(pointer, [j]), vector.as_pointer())

        even = builder.and_(length, ir.Constant(INT, -LANES))
        step = ir.Constant(INT, LANES)
        align = 4 if element != _DOUBLE else 8
        with cgutils.for_range_slice(builder, ir.Constant(INT, 0), even, step, intp=INT) as (j, _):
            accumulate(builder.load(at(a_row, j, narrow), align=align), builder.load(at(x_row, j, wide), align=8))
        with builder.if_then(builder.icmp_signed("<", even, length)):
            mask = lanes_below(builder, builder.sub(length, even), LANES)
            accumulate(
                masked_load(builder, at(a_row, even, narrow), align, mask, narrow),
                masked_load(builder, at(x_row, even, wide), 8, mask, wide),
            )
        s, e, lanes = builder.load(sums), builder.load(errors), LANES
        while lanes > 1:
            (s0, s1), (e0, e1) = _halves(builder, s, lanes), _halves(builder, e, lanes)
            s, error = _vector_two_sum(builder, s0, s1)
            e = builder.fadd(builder.fadd(e0, e1), error)
            lanes //= 2
        first = ir.Constant(ir.IntType(32), 0)
        pair = [builder.extract_element(v, first) for v in (s, e)]
        return ctx.make_tuple(builder, sig.return_type, pair)

    return signature, generate


@njit(nogil=True, cache=True, error_model="numpy")
def accumulate(hi, lo, bh, bl):
    """Add the doubled array ``bh + bl`` to ``hi + lo`` in place; all of one shape, two-dimensional."""
    for i in range(hi.shape[0]):
        for j in range(hi.shape[1]):
            hi[i, j], lo[i, j] = add(hi[i, j], lo[i, j], bh[i, j], bl[i, j])


@njit(nogil=True, cache=True, error_model="numpy")
def subtract_product(hi, lo, a, x):
    """``hi + lo -= a x`` in place; ``a`` (m,) and ``x`` (m, k) float64, product kept exactly."""
    for i in range(hi.shape[0]):
        for j in range(hi.shape[1]):
            p, e = two_product(a[i], x[i, j])
            hi[i, j], lo[i, j] = add(hi[i, j], lo[i, j], -p, -e)
