"""Vector instructions of alternating least squares: small dense algebra that stays in registers.

Each is an LLVM function for arrays of float32 or float64 whose rows are contiguous and a whole number of 64-byte
vectors long. ``LANES`` entries fill a vector: 16 of float32, 8 of float64.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from leyden.vectors import INT, function, row_pointer, splat

#: Rows and vectors of a tile whose sums stay in registers while any number of terms is added.
TILE_ROWS, TILE_VECTORS = 8, 3
#: Vectors of a single row that are worked on at once.
ROW_VECTORS = 4


class _Vectors:
    """What the functions here are written with: vectors of the entries of ``kind``, a two-dimensional array."""

    def __init__(self, context, builder, kind, width=64):
        self.context, self.builder = context, builder
        self.element = context.get_value_type(kind.dtype)
        self.nbytes = kind.dtype.bitwidth // 8
        self.lanes = width // self.nbytes
        self.vector = ir.VectorType(self.element, self.lanes)
        self.fused = function(builder, f"llvm.fma.v{self.lanes}f{8 * self.nbytes}", self.vector, [self.vector] * 3)

    def row(self, kind, value, index):
        return row_pointer(self.builder, self.context, kind, value, index, self.element)

    def at(self, row, j, k=0):
        place = self.builder.gep(row, [self.plus(j, self.lanes * k)])
        return self.builder.bitcast(place, self.vector.as_pointer())

    def plus(self, index, k):
        return self.builder.add(index, ir.Constant(INT, k)) if k else index

    def load(self, row, j, k=0):
        return self.builder.load(self.at(row, j, k), align=self.nbytes)

    def store(self, vector, row, j, k=0):
        self.builder.store(vector, self.at(row, j, k), align=self.nbytes)

    def splat(self, row, j):
        return splat(self.builder, self.builder.load(self.builder.gep(row, [j])), self.lanes)

    def fma(self, a, b, c):
        return self.builder.call(self.fused, [a, b, c])

    def zero(self):
        return ir.Constant(self.vector, [0.0] * self.lanes)

    @property
    def nothing(self):
        return ir.Constant(INT, 0)

    def one(self):
        return ir.Constant(self.vector, [1.0] * self.lanes)

    def root(self):
        return function(self.builder, f"llvm.sqrt.v{self.lanes}f{8 * self.nbytes}", self.vector, [self.vector])

    def shuffle(self, a, b, mask):
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), mask))

    def total(self, vector):
        """The sum of the entries, added in halves."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            moved = self.shuffle(vector, vector, [(k + lanes) % self.lanes for k in range(self.lanes)])
            vector = self.builder.fadd(vector, moved)
        return self.builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    def slots(self, values):
        return [cgutils.alloca_once_value(self.builder, value) for value in values]

    def count(self, last, step=1, first=0):
        first = first if isinstance(first, ir.Value) else ir.Constant(INT, first)
        return cgutils.for_range_slice(self.builder, first, last, ir.Constant(INT, step), intp=INT)


def _rank(rows: int, vectors: int, *, subtract: bool, width: int = 64):
    """An intrinsic: ``h[i:i+rows, j:j+vectors LANES] ±= x[k:k+count, i:i+rows]ᵀ x[k:k+count, j:j+vectors LANES]``.

    Vectors are of ``width`` bytes.
    """

    @intrinsic
    def kernel(_context, x, k, count, h, i, j):
        signature = types.void(x, types.intp, types.intp, h, types.intp, types.intp)

        def generate(context, builder, _sig, args):
            on = _Vectors(context, builder, x, width)
            _, first, many, _, row, column = args
            sums = [on.row(h, args[3], on.plus(row, r)) for r in range(rows)]
            held = on.slots([on.load(place, column, v) for place in sums for v in range(vectors)])
            with on.count(many) as (t, _):
                here = on.row(x, args[0], builder.add(first, t))
                entries = [on.load(here, column, v) for v in range(vectors)]
                for r in range(rows):
                    factor = on.splat(here, on.plus(row, r))
                    factor = builder.fneg(factor) if subtract else factor
                    for v in range(vectors):
                        slot = held[r * vectors + v]
                        builder.store(on.fma(factor, entries[v], builder.load(slot)), slot)
            for r, place in enumerate(sums):
                for v in range(vectors):
                    on.store(builder.load(held[r * vectors + v]), place, column, v)
            return context.get_dummy_value()

        return signature, generate

    return kernel


add_tile_3, add_tile_2, add_tile_1 = (_rank(TILE_ROWS, v, subtract=False) for v in (3, 2, 1))
subtract_tile_3, subtract_tile_2, subtract_tile_1 = (_rank(TILE_ROWS, v, subtract=True) for v in (3, 2, 1))
add_half_tile = _rank(TILE_ROWS, 1, subtract=False, width=32)
subtract_row_4, subtract_row_1 = (_rank(1, v, subtract=True) for v in (ROW_VECTORS, 1))


def _reduced(on, sums):
    """One vector of the sums of the entries of ``LANES`` vectors, in their order."""
    builder, lanes, shuffle = on.builder, on.lanes, on.shuffle

    # Each vector holds, for every owner, a run of lanes that are still to be added.
    held = [(value, [k]) for k, value in enumerate(sums)]
    while len(held) > 1:
        half = len(held) // 2
        run = lanes // len(held[0][1])
        merged = []
        for (a, owners), (b, others) in zip(held[:half], held[half:], strict=True):
            starts = [run * k for k in range(len(owners))] + [lanes + run * k for k in range(len(others))]
            low = [s + t for s in starts for t in range(run // 2)]
            high = [s + t + run // 2 for s in starts for t in range(run // 2)]
            merged.append((builder.fadd(shuffle(a, b, low), shuffle(a, b, high)), owners + others))
        held = merged
    value, owners = held[0]
    return shuffle(value, value, [owners.index(k) for k in range(lanes)])


def _dots(context, builder, args, b):
    """The 16 products of ``b[i:i+4, :width]`` with ``b[j:j+4, :width]``, row by row, as one or two vectors."""
    on = _Vectors(context, builder, b)
    left = [on.row(b, args[0], on.plus(args[1], r)) for r in range(4)]
    right = [on.row(b, args[0], on.plus(args[2], r)) for r in range(4)]
    held = on.slots([on.zero()] * 16)
    for slot in held:
        builder.store(on.zero(), slot)
    with on.count(args[3], on.lanes) as (k, _):
        entries = [on.load(row, k) for row in right]
        for r, row in enumerate(left):
            factor = on.load(row, k)
            for s, entry in enumerate(entries):
                slot = held[4 * r + s]
                builder.store(on.fma(factor, entry, builder.load(slot)), slot)
    totals = [builder.load(slot) for slot in held]
    return on, [_reduced(on, totals[first : first + on.lanes]) for first in range(0, 16, on.lanes)]


@intrinsic
def dot_tile(_context, b, i, j, width, out, r):
    """``out[r, :16] = b[i:i+4, :width] b[j:j+4, :width]ᵀ``, row by row; ``width`` a whole number of vectors."""
    signature = types.void(b, types.intp, types.intp, types.intp, out, types.intp)

    def generate(context, builder, _sig, args):
        on, sums = _dots(context, builder, args, b)
        place = on.row(out, args[4], args[5])
        for k, value in enumerate(sums):
            on.store(value, place, on.nothing, k)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def dot_square(_context, b, i, j, width, out):
    """``out[i:i+4, j:j+4] = b[i:i+4, :width] b[j:j+4, :width]ᵀ``; ``width`` a whole number of vectors."""
    signature = types.void(b, types.intp, types.intp, types.intp, out)

    def generate(context, builder, _sig, args):
        on, sums = _dots(context, builder, args, b)
        four = ir.VectorType(on.element, 4)
        for r in range(4):
            value, first = sums[4 * r // on.lanes], 4 * r % on.lanes
            mask = ir.Constant(ir.VectorType(ir.IntType(32), 4), [first + k for k in range(4)])
            place = builder.gep(on.row(out, args[4], on.plus(args[1], r)), [args[2]])
            place = builder.bitcast(place, four.as_pointer())
            builder.store(builder.shuffle_vector(value, value, mask), place, align=on.nbytes)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def gather_row(_context, f, i, factor, scale, b, r, width):
    """``b[r, :width] = factor f[i, :width] scale[:width]``; ``factor`` of the type of the entries."""
    signature = types.void(f, types.intp, f.dtype, scale, b, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, f)
        source, target = on.row(f, args[0], args[1]), on.row(b, args[4], args[5])
        factors = context.make_array(scale)(context, builder, args[3]).data
        times = splat(builder, args[2], on.lanes)
        with on.count(args[6], on.lanes) as (j, _):
            on.store(builder.fmul(on.load(source, j), builder.fmul(times, on.load(factors, j))), target, j)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def gather_part(_context, f, i, factor, scale, b, r, first, last):
    """``b[r, :last-first] = factor f[i, first:last] scale[first:last]``, a whole number of vectors."""
    signature = types.void(f, types.intp, f.dtype, scale, b, types.intp, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, f)
        source, target = on.row(f, args[0], args[1]), on.row(b, args[4], args[5])
        factors = context.make_array(scale)(context, builder, args[3]).data
        times = splat(builder, args[2], on.lanes)
        with on.count(args[7], on.lanes, args[6]) as (j, _):
            value = builder.fmul(on.load(source, j), builder.fmul(times, on.load(factors, j)))
            on.store(value, target, builder.sub(j, args[6]))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def scale_row(_context, h, k, factor, first, last):
    """``h[k, first:last] *= factor``, a whole number of vectors; ``factor`` of the type of the entries."""
    signature = types.void(h, types.intp, h.dtype, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, h)
        row, times = on.row(h, args[0], args[1]), splat(builder, args[2], on.lanes)
        with on.count(args[4], on.lanes, args[3]) as (j, _):
            on.store(builder.fmul(on.load(row, j), times), row, j)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def inverse_roots(_context, theta, penalty, scale, width):
    """``scale[:width] = (theta[:width] + penalty)^(-1/2)``; ``penalty`` of the type of the entries."""
    signature = types.void(theta, theta.dtype, scale, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, theta)
        source, target = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in ((theta, args[0]), (scale, args[2]))
        )
        root, one, added = on.root(), on.one(), splat(builder, args[1], on.lanes)
        with on.count(args[3], on.lanes) as (j, _):
            value = builder.call(root, [builder.fadd(on.load(source, j), added)])
            on.store(builder.fdiv(one, value), target, j)
        return context.get_dummy_value()

    return signature, generate


def _by_columns(on, width, columns):
    """``columns(j, vectors)`` of ``ROW_VECTORS`` vectors at a time, and of those that are left one by one."""
    builder, whole = on.builder, ir.Constant(INT, ROW_VECTORS * on.lanes)
    even = builder.mul(builder.sdiv(width, whole), whole)
    with on.count(even, ROW_VECTORS * on.lanes) as (j, _):
        columns(j, ROW_VECTORS)
    with on.count(width, on.lanes, even) as (j, _):
        columns(j, 1)


@intrinsic
def combine_rows(_context, b, first, count, a, stride, at, scale, out, r, width):
    """``out[r, :width] = scale[:width] Σ_k a[at + stride k] b[first + k, :width]`` for ``count`` rows; a, scale 1-d."""
    signature = types.void(
        b, types.intp, types.intp, a, types.intp, types.intp, scale, out, types.intp, types.intp
    )  # fmt: skip

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, b)
        factors = context.make_array(a)(context, builder, args[3]).data
        scales = context.make_array(scale)(context, builder, args[6]).data
        target = on.row(out, args[7], args[8])
        width = args[9]

        def columns(j, vectors):
            held = on.slots([on.zero()] * vectors)
            for slot in held:
                builder.store(on.zero(), slot)
            with on.count(args[2]) as (k, _):
                row = on.row(b, args[0], builder.add(args[1], k))
                factor = on.splat(factors, builder.add(args[5], builder.mul(args[4], k)))
                for v, slot in enumerate(held):
                    builder.store(on.fma(factor, on.load(row, j, v), builder.load(slot)), slot)
            for v, slot in enumerate(held):
                on.store(builder.fmul(builder.load(slot), on.load(scales, j, v)), target, j, v)

        _by_columns(on, width, columns)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_combination(_context, b, count, a, i, out, r, width):
    """``out[r, :width] += Σ_k a[i, k] b[k, :width]`` over ``count`` rows."""
    signature = types.void(b, types.intp, a, types.intp, out, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, b)
        factors, target, width = on.row(a, args[2], args[3]), on.row(out, args[4], args[5]), args[6]

        def columns(j, vectors):
            held = on.slots([on.zero()] * vectors)
            for v, slot in enumerate(held):
                builder.store(on.load(target, j, v), slot)
            with on.count(args[1]) as (k, _):
                row, factor = on.row(b, args[0], k), on.splat(factors, k)
                for v, slot in enumerate(held):
                    builder.store(on.fma(factor, on.load(row, j, v), builder.load(slot)), slot)
            for v, slot in enumerate(held):
                on.store(builder.load(slot), target, j, v)

        _by_columns(on, width, columns)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def row_axpy(_context, x, i, factor, y, r, first, last):
    """``y[r, first:last] += factor x[i, first:last]``, a whole number of vectors."""
    signature = types.void(x, types.intp, x.dtype, y, types.intp, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, x)
        source, target = on.row(x, args[0], args[1]), on.row(y, args[3], args[4])
        times = splat(builder, args[2], on.lanes)
        with on.count(args[6], on.lanes, args[5]) as (j, _):
            on.store(on.fma(times, on.load(source, j), on.load(target, j)), target, j)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_packed(_context, h, j, at, square, i, first, last):
    """``h[j, at:at+last-first] += square[i, first:last]``, a whole number of vectors; both of one type."""
    signature = types.void(h, types.intp, types.intp, square, types.intp, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, square)
        target = builder.gep(on.row(h, args[0], args[1]), [builder.sub(args[2], args[5])])
        source = on.row(square, args[3], args[4])
        with on.count(args[6], on.lanes, args[5]) as (k, _):
            on.store(builder.fadd(on.load(target, k), on.load(source, k)), target, k)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def row_dot(_context, x, i, y, r, first, last):
    """``x[i, first:last] · y[r, first:last]``, a whole number of vectors."""
    signature = x.dtype(x, types.intp, y, types.intp, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, x)
        a, b = on.row(x, args[0], args[1]), on.row(y, args[2], args[3])
        (held,) = on.slots([on.zero()])
        builder.store(on.zero(), held)
        with on.count(args[5], on.lanes, args[4]) as (j, _):
            builder.store(on.fma(on.load(a, j), on.load(b, j), builder.load(held)), held)
        return on.total(builder.load(held))

    return signature, generate


@intrinsic
def lanes_transpose(_context, tiles, t, k):
    """Entries of tile t, 16 a lane, as 16 vectors: ``k[16 t + e, l] = tiles[LANES t + l, e]``."""
    signature = types.void(tiles, types.intp, k)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, k)
        lanes = on.lanes
        first = builder.mul(args[1], ir.Constant(INT, lanes))
        target = builder.mul(args[1], ir.Constant(INT, 16))
        for part in range(0, 16, lanes):
            rows = [on.load(on.row(tiles, args[0], on.plus(first, l)), ir.Constant(INT, part)) for l in range(lanes)]
            step = lanes // 2
            while step:
                # Swap the blocks off the diagonal of each 2 × 2 square of blocks of `step` entries.
                low = [e if not e & step else e - step + lanes for e in range(lanes)]
                high = [e + step if not e & step else e + lanes for e in range(lanes)]
                for l in range(lanes):
                    if not l & step:
                        a, b = rows[l], rows[l + step]
                        rows[l], rows[l + step] = on.shuffle(a, b, low), on.shuffle(a, b, high)
                step //= 2
            for e, row in enumerate(rows):
                on.store(row, on.row(k, args[2], on.plus(target, part + e)), ir.Constant(INT, 0))
        return context.get_dummy_value()

    return signature, generate


def _tile(on, kind, value, i, j):
    """First row of tile (i, j), j ≤ i, of a lower triangle of tiles of 4 × 4 entries."""
    builder = on.builder
    number = builder.add(builder.sdiv(builder.mul(i, on.plus(i, 1)), ir.Constant(INT, 2)), j)
    return on.row(kind, value, builder.mul(number, ir.Constant(INT, 16)))


@intrinsic
def lanes_cholesky(_context, k, tiles):
    """Cholesky factors ``L Lᵀ`` of as many matrices as there are lanes, in place, in tiles of 4 × 4 entries.

    Entry (r, s) of tile (i, j), j ≤ i < ``tiles``, is row ``16 (i (i + 1) / 2 + j) + 4 r + s`` of ``k``. The diagonal
    becomes that of L, inverted; what stands above it is of no meaning.
    """
    signature = types.void(k, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, k)
        slots = on.slots([on.zero()] * 16)

        def place(start, e):
            return builder.bitcast(builder.gep(start, [ir.Constant(INT, on.lanes * e)]), on.vector.as_pointer())

        def entry(start, e):
            return builder.load(place(start, e), align=on.nbytes)

        def update(i, j, lower):
            """The 16 sums of tile (i, j), less the products of what is left of it."""
            own, left, right = (_tile(on, k, args[0], *at) for at in ((i, j), (i, on.nothing), (j, on.nothing)))
            for e in range(16):
                builder.store(entry(own, e), slots[e])
            with on.count(builder.mul(j, ir.Constant(INT, 4))) as (t, _):
                # Column t of a row of tiles: tile t / 4, column t mod 4.
                offset = builder.mul(
                    builder.add(
                        builder.mul(builder.sdiv(t, ir.Constant(INT, 4)), ir.Constant(INT, 16)),
                        builder.srem(t, ir.Constant(INT, 4)),
                    ),
                    ir.Constant(INT, on.lanes),
                )
                a_row, b_row = builder.gep(left, [offset]), builder.gep(right, [offset])
                a = [builder.fneg(entry(a_row, 4 * r)) for r in range(4)]
                b = [entry(b_row, 4 * c) for c in range(4)]
                for r in range(4):
                    for c in range(r + 1 if lower else 4):
                        builder.store(on.fma(a[r], b[c], builder.load(slots[4 * r + c])), slots[4 * r + c])
            return own, [builder.load(slot) for slot in slots]

        with on.count(args[1]) as (i, _):
            with on.count(i) as (j, _):
                own, x = update(i, j, False)
                diagonal = _tile(on, k, args[0], j, j)
                for c in range(4):
                    for d in range(c):
                        factor = builder.fneg(entry(diagonal, 4 * c + d))
                        for r in range(4):
                            x[4 * r + c] = on.fma(x[4 * r + d], factor, x[4 * r + c])
                    inverse = entry(diagonal, 5 * c)
                    for r in range(4):
                        x[4 * r + c] = builder.fmul(x[4 * r + c], inverse)
                for e in range(16):
                    builder.store(x[e], place(own, e), align=on.nbytes)
            own, x = update(i, i, True)
            for c in range(4):
                inverse = builder.fdiv(on.one(), builder.call(on.root(), [x[5 * c]]))
                x[5 * c] = inverse
                for r in range(c + 1, 4):
                    x[4 * r + c] = builder.fmul(x[4 * r + c], inverse)
                for r in range(c + 1, 4):
                    for d in range(c + 1, r + 1):
                        x[4 * r + d] = on.fma(builder.fneg(x[4 * r + c]), x[4 * d + c], x[4 * r + d])
            for e in range(16):
                builder.store(x[e], place(own, e), align=on.nbytes)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def lanes_solve(_context, k, tiles, y):
    """``y = (L Lᵀ)⁻¹ y`` of what :func:`lanes_cholesky` left, ``y`` (4 tiles, LANES); returns ``Σ (L⁻¹ y)²``."""
    signature = k.dtype(k, types.intp, y)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, k)
        four = ir.Constant(INT, 4)
        slots, (square,) = on.slots([on.zero()] * 4), on.slots([on.zero()])
        builder.store(on.zero(), square)

        def part(i, r):
            return on.row(y, args[2], on.plus(builder.mul(i, four), r))

        def entry(start, e):
            place = builder.gep(start, [ir.Constant(INT, on.lanes * e)])
            return builder.load(builder.bitcast(place, on.vector.as_pointer()), align=on.nbytes)

        with on.count(args[1]) as (i, _):
            for r in range(4):
                builder.store(on.load(part(i, r), on.nothing), slots[r])
            with on.count(i) as (j, _):
                tile = _tile(on, k, args[0], i, j)
                for c in range(4):
                    value = builder.fneg(on.load(part(j, c), on.nothing))
                    for r in range(4):
                        builder.store(on.fma(entry(tile, 4 * r + c), value, builder.load(slots[r])), slots[r])
            tile, x = _tile(on, k, args[0], i, i), [builder.load(slot) for slot in slots]
            for r in range(4):
                for c in range(r):
                    x[r] = on.fma(builder.fneg(entry(tile, 4 * r + c)), x[c], x[r])
                x[r] = builder.fmul(x[r], entry(tile, 5 * r))
                on.store(x[r], part(i, r), on.nothing)
                builder.store(on.fma(x[r], x[r], builder.load(square)), square)
        with on.count(args[1]) as (back, _):
            i = builder.sub(on.plus(args[1], -1), back)
            tile = _tile(on, k, args[0], i, i)
            x = [on.load(part(i, r), on.nothing) for r in range(4)]
            for r in reversed(range(4)):
                for c in range(r + 1, 4):
                    x[r] = on.fma(builder.fneg(entry(tile, 4 * c + r)), x[c], x[r])
                x[r] = builder.fmul(x[r], entry(tile, 5 * r))
                on.store(x[r], part(i, r), on.nothing)
            with on.count(i) as (j, _):
                tile = _tile(on, k, args[0], i, j)
                for c in range(4):
                    value = on.load(part(j, c), on.nothing)
                    for r in range(4):
                        value = on.fma(builder.fneg(entry(tile, 4 * r + c)), x[r], value)
                    on.store(value, part(j, c), on.nothing)
        return on.total(builder.load(square))

    return signature, generate


@intrinsic
def lanes_add(_context, k, i, y, j):
    """``k[i] += y[j]``, a vector each."""
    signature = types.void(k, types.intp, y, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, k)
        row = on.row(k, args[0], args[1])
        on.store(
            builder.fadd(on.load(row, on.nothing), on.load(on.row(y, args[2], args[3]), on.nothing)), row, on.nothing
        )
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def lanes_fill(_context, out, first, count, value):
    """``out[first:first+count] = value``, a vector each; ``value`` of the type of the entries."""
    signature = types.void(out, types.intp, types.intp, out.dtype)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, out)
        value = splat(builder, args[3], on.lanes)
        with on.count(args[2]) as (k, _):
            on.store(value, on.row(out, args[0], builder.add(args[1], k)), ir.Constant(INT, 0))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def prefetch_part(_context, f, i, first, last):
    """Ask for ``f[i, first:last]`` to be brought into the second-level cache: the first holds what is worked on."""
    signature = types.void(f, types.intp, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        on = _Vectors(context, builder, f)
        row = on.row(f, args[0], args[1])
        byte, small = ir.IntType(8).as_pointer(), ir.IntType(32)
        fetch = function(builder, "llvm.prefetch.p0", ir.VoidType(), [byte, small, small, small])
        with on.count(args[3], on.lanes, args[2]) as (j, _):
            place = builder.bitcast(builder.gep(row, [j]), byte)
            builder.call(fetch, [place, ir.Constant(small, 0), ir.Constant(small, 2), ir.Constant(small, 1)])
        return context.get_dummy_value()

    return signature, generate
