"""Vector instructions of small inverses, one in each lane; beside those of :mod:`leyden.factor._als_vectors`."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from leyden.factor._als_vectors import _tile, _Vectors
from leyden.vectors import INT, function, row_pointer, splat


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


@intrinsic
def prefetch_entry(_context, s, i):
    """Ask for ``s[i]``, to be written to, to be brought into the second-level cache."""
    signature = types.void(s, types.intp)

    def generate(context, builder, _sig, args):
        byte, small = ir.IntType(8).as_pointer(), ir.IntType(32)
        fetch = function(builder, "llvm.prefetch.p0", ir.VoidType(), [byte, small, small, small])
        data = context.make_array(s)(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(fetch, [place, ir.Constant(small, 1), ir.Constant(small, 2), ir.Constant(small, 1)])
        return context.get_dummy_value()

    return signature, generate


#: Entries of a vector of float64, and vectors of sums that stay in registers.
WIDE, HELD = 8, 8


class _Wide:
    """Rows of a float32 table, read as vectors of float64."""

    def __init__(self, context, builder, kind, value):
        self.context, self.builder, self.kind, self.value = context, builder, kind, value
        self.vector = ir.VectorType(ir.DoubleType(), WIDE)
        self.narrow = ir.VectorType(ir.FloatType(), WIDE)
        self.fused = function(builder, f"llvm.fma.v{WIDE}f64", self.vector, [self.vector] * 3)

    def zero(self):
        return ir.Constant(self.vector, [0.0] * WIDE)

    def row(self, index):
        return row_pointer(self.builder, self.context, self.kind, self.value, index, ir.FloatType())

    def _place(self, pointer, j, k, vector):
        j = self.builder.add(j, ir.Constant(INT, WIDE * k)) if k else j
        return self.builder.bitcast(self.builder.gep(pointer, [j]), vector.as_pointer())

    def entries(self, row, j, k):
        loaded = self.builder.load(self._place(row, j, k, self.narrow), align=4)
        return self.builder.fpext(loaded, self.vector)

    def load(self, pointer, j, k):
        return self.builder.load(self._place(pointer, j, k, self.vector), align=8)

    def store(self, value, pointer, j, k):
        self.builder.store(value, self._place(pointer, j, k, self.vector), align=8)

    def fma(self, a, b, c):
        return self.builder.call(self.fused, [a, b, c])

    def columns(self, width, body):
        """``body(j, vectors)`` for all columns: many vectors at once, then two."""
        builder = self.builder
        whole = ir.Constant(INT, HELD * WIDE)
        even = builder.mul(builder.sdiv(width, whole), whole)
        for first, last, vectors in ((ir.Constant(INT, 0), even, HELD), (even, width, 2)):
            step = ir.Constant(INT, vectors * WIDE)
            with cgutils.for_range_slice(builder, first, last, step, intp=INT) as (j, _):
                body(j, vectors)


@intrinsic
def combine_exactly(_context, f, indices, first, count, a, l, w, width):
    """``w[:width] = Σ_k a[k, l] f[indices[first + k], :width]`` in float64; ``f`` float32, whole vectors wide."""
    signature = types.void(f, indices, types.intp, types.intp, a, types.intp, w, types.intp)

    def generate(context, builder, _sig, args):
        on = _Wide(context, builder, f, args[0])
        which = context.make_array(indices)(context, builder, args[1]).data
        target = context.make_array(w)(context, builder, args[6]).data

        def body(j, vectors):
            held = [cgutils.alloca_once_value(builder, on.zero()) for _ in range(vectors)]
            for slot in held:
                builder.store(on.zero(), slot)
            with cgutils.for_range(builder, args[3], intp=INT) as loop:
                place = builder.load(builder.gep(which, [builder.add(args[2], loop.index)]))
                row = on.row(builder.sext(place, INT))
                value = row_pointer(builder, context, a, args[4], loop.index, ir.DoubleType())
                factor = splat(builder, builder.load(builder.gep(value, [args[5]])), WIDE)
                for v, slot in enumerate(held):
                    builder.store(on.fma(factor, on.entries(row, j, v), builder.load(slot)), slot)
            for v, slot in enumerate(held):
                on.store(builder.load(slot), target, j, v)

        on.columns(args[7], body)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def dot_exactly(_context, f, i, w, width):
    """``f[i, :width] · w[:width]`` in float64; ``f`` float32, whole vectors wide."""
    signature = types.float64(f, types.intp, w, types.intp)

    def generate(context, builder, _sig, args):
        on = _Wide(context, builder, f, args[0])
        row, other = on.row(args[1]), context.make_array(w)(context, builder, args[2]).data
        held = [cgutils.alloca_once_value(builder, on.zero()) for _ in range(4)]
        for slot in held:
            builder.store(on.zero(), slot)

        def body(j, vectors):
            for v in range(vectors):
                slot = held[v % len(held)]
                builder.store(on.fma(on.entries(row, j, v), on.load(other, j, v), builder.load(slot)), slot)

        on.columns(args[3], body)
        a, b, c, d = (builder.load(slot) for slot in held)
        total = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
        for lanes in (4, 2, 1):
            mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDE), [(k + lanes) % WIDE for k in range(WIDE)])
            total = builder.fadd(total, builder.shuffle_vector(total, total, mask))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return signature, generate
