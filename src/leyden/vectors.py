"""Kernels written in vector instructions, where a compiler would not find them by itself.

numba hands loops to LLVM, which may not reorder sums and cannot know that two arrays do not overlap. What is written
here says so in LLVM's own terms; on processors with narrower registers LLVM splits the vectors.
"""

from __future__ import annotations

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

INT = ir.IntType(64)

#: Rows and columns that ``rank_update`` works on at once: 24 broadcast factors and 6 vectors of rows fill 32 registers.
UPDATE_ROWS, UPDATE_COLUMNS = 6, 4


def wide_registers() -> bool:
    """Whether this processor has the thirty-two 64-byte registers that ``rank_update`` is laid out for."""
    return bool(binding.get_host_cpu_features().get("avx512f", False))


def function(builder, name, result, arguments):
    """The LLVM function or intrinsic of that name."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def splat(builder, value, lanes):
    """A vector with ``value`` in every lane."""
    vector = ir.VectorType(value.type, lanes)
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def row_pointer(builder, context, kind, value, index, element):
    """Pointer to the first entry of row ``index`` of a two-dimensional array."""
    struct = context.make_array(kind)(context, builder, value)
    stride = cgutils.unpack_tuple(builder, struct.strides)[0]
    address = builder.add(builder.ptrtoint(struct.data, INT), builder.mul(index, stride))
    return builder.inttoptr(address, element.as_pointer())


@intrinsic
def rank_update(_context, t, r, out, i, first, last):
    """``out[i:i+4, first:last] += t[r:r+6, i:i+4]ᵀ t[r:r+6, first:last]``, fused multiply-adds in vectors of 64 bytes.

    ``t`` and ``out`` float32 or float64, both of one type, rows contiguous; ``last - first`` a multiple of the entries
    that a vector holds.
    """
    signature = types.void(t, types.intp, out, types.intp, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        element = context.get_value_type(t.dtype)
        nbytes = t.dtype.bitwidth // 8
        lanes = 64 // nbytes
        vector = ir.VectorType(element, lanes)
        fused = function(builder, f"llvm.fma.v{lanes}f{8 * nbytes}", vector, [vector] * 3)

        def pointers(kind, value, start, count):
            places = [builder.add(start, ir.Constant(INT, k)) for k in range(count)]
            return [row_pointer(builder, context, kind, value, place, element) for place in places]

        rows = pointers(t, args[0], args[1], UPDATE_ROWS)
        sums = pointers(out, args[2], args[3], UPDATE_COLUMNS)
        columns = [builder.add(args[3], ir.Constant(INT, c)) for c in range(UPDATE_COLUMNS)]
        factors = [[splat(builder, builder.load(builder.gep(row, [c])), lanes) for row in rows] for c in columns]
        step = ir.Constant(INT, lanes)
        with cgutils.for_range_slice(builder, args[4], args[5], step, intp=INT) as (j, _):

            def at(pointer, j=j):
                return builder.bitcast(builder.gep(pointer, [j]), vector.as_pointer())

            entries = [builder.load(at(row), align=nbytes) for row in rows]
            for factor, place in zip(factors, sums, strict=True):
                total = builder.load(at(place), align=nbytes)
                for f, entry in zip(factor, entries, strict=True):
                    total = builder.call(fused, [f, entry, total])
                builder.store(total, at(place), align=nbytes)
        return context.get_dummy_value()

    return signature, generate
