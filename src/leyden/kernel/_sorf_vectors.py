"""Vector instructions of structured orthogonal features: Hadamard transforms in registers, and what becomes of them."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from leyden.kernel._fourier_vectors import LANES, turned
from leyden.vectors import INT, function, splat

#: Vectors that are transformed together, half of the registers there are (:func:`leyden.vectors.wide_registers`), and
#: their entries.
VECTORS = LANES
CHUNK = LANES * VECTORS

#: Rounds of signs and transforms.
TRANSFORMS = 3

#: Logarithm of LANES.
LEVELS = LANES.bit_length() - 1


def _at(context, builder, kind, value, offset, vector):
    """Pointer to the vector that begins at an entry of a contiguous array."""
    pointer = context.make_array(kind)(context, builder, value).data
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def _hadamard(builder, held, width):
    """Vectors times the Hadamard matrix, without a factor, of every ``width`` of them."""
    vector = held[0].type
    wholes = ir.VectorType(ir.IntType(32), LANES)
    nothing = ir.Constant(vector, ir.Undefined)
    fused = function(builder, f"llvm.fma.v{LANES}f32", vector, [vector] * 3)
    for level in range(LEVELS):
        step = 1 << level
        turn = ir.Constant(wholes, [i ^ step for i in range(LANES)])
        side = ir.Constant(vector, [-1.0 if i & step else 1.0 for i in range(LANES)])
        held = [builder.call(fused, [x, side, builder.shuffle_vector(x, nothing, turn)]) for x in held]
    return _butterflies(builder, held, width)


def _butterflies(builder, held, width):
    step = 1
    while step < width:
        held = [
            builder.fsub(held[v ^ step], x) if v & step else builder.fadd(x, held[v ^ step]) for v, x in enumerate(held)
        ]
        step *= 2
    return held


def _transform(width, rounds):
    """An intrinsic that ``rounds`` times multiplies VECTORS vectors by signs and transforms every ``width`` of them."""

    @intrinsic
    def mix(_context, source, begin, signs, place, target, there):
        """``target[there:there+CHUNK] = H S … H S source[begin:begin+CHUNK]``, all float32 and contiguous.

        H is the Hadamard matrix, without a factor, of parts of ``width LANES`` entries; ``signs`` from ``place`` are
        those of one part, one round after the other, and every part has the same.
        """
        signature = types.void(source, types.intp, signs, types.intp, target, types.intp)

        def generate(context, builder, _sig, args):
            vector = ir.VectorType(ir.FloatType(), LANES)

            def place(kind, value, first, number):
                offset = builder.add(first, ir.Constant(INT, LANES * number))
                return _at(context, builder, kind, value, offset, vector)

            held = [builder.load(place(source, args[0], args[1], v), align=4) for v in range(VECTORS)]
            for turn in range(rounds):
                sign = [builder.load(place(signs, args[2], args[3], turn * width + v), align=4) for v in range(width)]
                held = _hadamard(builder, [builder.fmul(x, sign[v % width]) for v, x in enumerate(held)], width)
            for v, x in enumerate(held):
                builder.store(x, place(target, args[4], args[5], v), align=4)
            return context.get_dummy_value()

        return signature, generate

    return mix


#: Of parts of a quarter, a half or all of a chunk: all rounds at once; and one round of a part of more than a chunk.
rotate_quarters, rotate_halves, rotate_all = (_transform(VECTORS >> k, TRANSFORMS) for k in (2, 1, 0))
mix_chunk = _transform(VECTORS, 1)


def _across(ways):
    """An intrinsic for the levels of a transform between ``ways`` chunks."""

    @intrinsic
    def cross(_context, target, begin, step):
        """Vectors of ``target`` from ``begin``, ``begin + step`` and so on become their Hadamard transform."""
        signature = types.void(target, types.intp, types.intp)

        def generate(context, builder, _sig, args):
            vector = ir.VectorType(ir.FloatType(), LANES)
            places = [
                _at(
                    context, builder, target, args[0],
                    builder.add(args[1], builder.mul(args[2], ir.Constant(INT, way))), vector,
                )
                for way in range(ways)
            ]  # fmt: skip
            held = _butterflies(builder, [builder.load(place, align=4) for place in places], ways)
            for x, place in zip(held, places, strict=True):
                builder.store(x, place, align=4)
            return context.get_dummy_value()

        return signature, generate

    return cross


cross_two, cross_four = _across(2), _across(4)


@intrinsic
def turn_vector(_context, p, begin, lengths, place, scale, out, row, cosines, sines):
    """``scale cos(π p ℓ)`` and ``scale sin(π p ℓ)`` of LANES entries of p, times as many of ℓ, into a row of ``out``.

    ``p`` and ``lengths`` float32, contiguous, entries from ``begin`` and ``place``; cosines go to the columns of
    ``out`` from ``cosines``, sines to those from ``sines``.
    """
    signature = types.void(
        p, types.intp, lengths, types.intp, types.float32, out, types.intp, types.intp, types.intp
    )  # fmt: skip

    def generate(context, builder, _sig, args):
        vector, wholes = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)
        held = builder.load(_at(context, builder, p, args[0], args[1], vector), align=4)
        length = builder.load(_at(context, builder, lengths, args[2], args[3], vector), align=4)
        size = builder.bitcast(splat(builder, args[4], LANES), wholes)
        outs = context.make_array(out)(context, builder, args[5])
        stride = cgutils.unpack_tuple(builder, outs.strides)[0]
        address = builder.add(builder.ptrtoint(outs.data, INT), builder.mul(stride, args[6]))
        line = builder.inttoptr(address, ir.FloatType().as_pointer())
        for value, first in zip(
            turned(builder, builder.fmul(held, length), builder.bitcast(size, vector)), args[7:], strict=True
        ):
            pointer = builder.bitcast(builder.gep(line, [first]), vector.as_pointer())
            builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    return signature, generate
