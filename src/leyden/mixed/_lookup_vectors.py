"""Vector instructions of small inverses, one in each lane; beside those of :mod:`leyden.factor._als_vectors`."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from leyden.factor._als_vectors import _tile, _Vectors
from leyden.vectors import INT


def _place(on, start, e):
    builder = on.builder
    return builder.bitcast(builder.gep(start, [ir.Constant(INT, on.lanes * e)]), on.vector.as_pointer())


def _entry(on, start, e):
    return on.builder.load(_place(on, start, e), align=on.nbytes)


@intrinsic
def lanes_inverse(_context, k, tiles, x):
    """``x = L⁻¹`` of what :func:`leyden.factor._als_vectors.lanes_cholesky` left in ``k``, in tiles of the same order.

    Each column by forward substitution, so that ``|L X − I| ≤ γ |L| |X|`` (Higham, Accuracy and Stability, §14.2).
    Entries above the diagonal are zero; those on it are not inverted.
    """
    signature = types.void(k, types.intp, x)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, k)
        slots = on.slots([on.zero()] * 16)

        def substitute(diagonal, target):
            """The tile in ``slots``, solved by the tile of L on the diagonal and stored."""
            t = [builder.load(slot) for slot in slots]
            for r in range(4):
                for d in range(r):
                    factor = builder.fneg(_entry(on, diagonal, 4 * r + d))
                    for c in range(4):
                        t[4 * r + c] = on.fma(factor, t[4 * d + c], t[4 * r + c])
                inverse = _entry(on, diagonal, 5 * r)
                for c in range(4):
                    t[4 * r + c] = builder.fmul(inverse, t[4 * r + c])
            for e in range(16):
                builder.store(t[e], _place(on, target, e), align=on.nbytes)

        with on.count(args[1]) as (j, _):
            for e in range(16):
                builder.store(on.zero() if e % 5 else on.one(), slots[e])
            substitute(_tile(on, k, args[0], j, j), _tile(on, x, args[2], j, j))
            with on.count(args[1], 1, on.plus(j, 1)) as (i, _):
                for slot in slots:
                    builder.store(on.zero(), slot)
                with on.count(i, 1, j) as (t, _):
                    left, right = _tile(on, k, args[0], i, t), _tile(on, x, args[2], t, j)
                    for d in range(4):
                        a = [builder.fneg(_entry(on, left, 4 * r + d)) for r in range(4)]
                        b = [_entry(on, right, 4 * d + c) for c in range(4)]
                        for r in range(4):
                            for c in range(4):
                                slot = slots[4 * r + c]
                                builder.store(on.fma(a[r], b[c], builder.load(slot)), slot)
                substitute(_tile(on, k, args[0], i, i), _tile(on, x, args[2], i, j))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def lanes_square(_context, x, tiles, g):
    """``g = Xᵀ X`` of lower triangular X, tiles on and below the diagonal."""
    signature = types.void(x, types.intp, g)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, x)
        slots = on.slots([on.zero()] * 16)
        with on.count(args[1]) as (i, _), on.count(on.plus(i, 1)) as (j, _):
            for slot in slots:
                builder.store(on.zero(), slot)
            with on.count(args[1], 1, i) as (t, _):
                left, right = _tile(on, x, args[0], t, i), _tile(on, x, args[0], t, j)
                for d in range(4):
                    a = [_entry(on, left, 4 * d + r) for r in range(4)]
                    b = [_entry(on, right, 4 * d + c) for c in range(4)]
                    for r in range(4):
                        for c in range(4):
                            slot = slots[4 * r + c]
                            builder.store(on.fma(a[r], b[c], builder.load(slot)), slot)
            target = _tile(on, g, args[2], i, j)
            for e in range(16):
                builder.store(builder.load(slots[e]), _place(on, target, e), align=on.nbytes)
        return context.get_dummy_value()

    return signature, generate
