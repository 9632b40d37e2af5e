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


def fused_vectors() -> bool:
    """Whether this processor has fused multiply-adds in registers of 32 bytes or more."""
    features = binding.get_host_cpu_features()
    return bool(features.get("avx2", False) and features.get("fma", False))


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


#: Rows that ``rank_subtract`` changes at once, and those of ``w`` it subtracts: 24 factors and 3 rows in registers.
SUBTRACT_ROWS, SUBTRACT_COLUMNS = 3, 8


@intrinsic
def rank_subtract(_context, t, r, w, i, first, last):
    """``t[r:r+3, first:last] -= t[r:r+3, i:i+8] w[i:i+8, first:last]``, as :func:`rank_update` adds."""
    signature = types.void(t, types.intp, w, types.intp, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        element = context.get_value_type(t.dtype)
        nbytes = t.dtype.bitwidth // 8
        lanes = 64 // nbytes
        vector = ir.VectorType(element, lanes)
        fused = function(builder, f"llvm.fma.v{lanes}f{8 * nbytes}", vector, [vector] * 3)

        def pointers(kind, value, start, count):
            places = [builder.add(start, ir.Constant(INT, k)) for k in range(count)]
            return [row_pointer(builder, context, kind, value, place, element) for place in places]

        rows = pointers(t, args[0], args[1], SUBTRACT_ROWS)
        terms = pointers(w, args[2], args[3], SUBTRACT_COLUMNS)
        columns = [builder.add(args[3], ir.Constant(INT, c)) for c in range(SUBTRACT_COLUMNS)]
        factors = [
            [splat(builder, builder.fneg(builder.load(builder.gep(row, [c]))), lanes) for c in columns] for row in rows
        ]
        step = ir.Constant(INT, lanes)
        with cgutils.for_range_slice(builder, args[4], args[5], step, intp=INT) as (j, _):

            def at(pointer, j=j):
                return builder.bitcast(builder.gep(pointer, [j]), vector.as_pointer())

            entries = [builder.load(at(term), align=nbytes) for term in terms]
            totals = [builder.load(at(row), align=nbytes) for row in rows]
            for c, entry in enumerate(entries):
                totals = [builder.call(fused, [f[c], entry, total]) for f, total in zip(factors, totals, strict=True)]
            for row, total in zip(rows, totals, strict=True):
                builder.store(total, at(row), align=nbytes)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def column_products(_context, t, m, i, c, out):
    """``out[:8] = t[:m, i:i+8]ᵀ t[:m, c]``, float64, rows of ``t`` contiguous and ``m`` a multiple of UPDATE_ROWS."""
    signature = types.void(t, types.intp, types.intp, types.intp, out)

    def generate(context, builder, _sig, args):
        double = ir.DoubleType()
        vector = ir.VectorType(double, SUBTRACT_COLUMNS)
        fused = function(builder, f"llvm.fma.v{SUBTRACT_COLUMNS}f64", vector, [vector] * 3)
        zero = ir.Constant(vector, [0.0] * SUBTRACT_COLUMNS)
        # As many sums as there are rows in a step, so that no addition waits for another.
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(UPDATE_ROWS)]
        start, step = ir.Constant(INT, 0), ir.Constant(INT, UPDATE_ROWS)
        with cgutils.for_range_slice(builder, start, args[1], step, intp=INT) as (r, _):
            for k, held in enumerate(sums):
                row = row_pointer(builder, context, t, args[0], builder.add(r, ir.Constant(INT, k)), double)
                factor = splat(builder, builder.load(builder.gep(row, [args[3]])), SUBTRACT_COLUMNS)
                entries = builder.load(builder.bitcast(builder.gep(row, [args[2]]), vector.as_pointer()), align=8)
                builder.store(builder.call(fused, [factor, entries, builder.load(held)]), held)
        totals = [builder.load(held) for held in sums]
        while len(totals) > 1:
            totals = [builder.fadd(*totals[k : k + 2]) for k in range(0, len(totals) - 1, 2)] + (
                totals[-1:] if len(totals) % 2 else []
            )
        pointer = context.make_array(out)(context, builder, args[4]).data
        builder.store(totals[0], builder.bitcast(pointer, vector.as_pointer()), align=8)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def column_reflect(_context, t, m, i, c, factor, w):
    """``t[:m, c] *= factor`` and then ``t[:m, i:i+8] -= t[:m, c] w[:8]``, with zero for column ``c`` itself in ``w``.

    Types as of :func:`column_products`.
    """
    signature = types.void(t, types.intp, types.intp, types.intp, types.float64, w)

    def generate(context, builder, _sig, args):
        double = ir.DoubleType()
        vector = ir.VectorType(double, SUBTRACT_COLUMNS)
        fused = function(builder, f"llvm.fma.v{SUBTRACT_COLUMNS}f64", vector, [vector] * 3)
        pointer = context.make_array(w)(context, builder, args[5]).data
        terms = builder.fneg(builder.load(builder.bitcast(pointer, vector.as_pointer()), align=8))
        start, step = ir.Constant(INT, 0), ir.Constant(INT, UPDATE_ROWS)
        with cgutils.for_range_slice(builder, start, args[1], step, intp=INT) as (r, _):
            for k in range(UPDATE_ROWS):
                row = row_pointer(builder, context, t, args[0], builder.add(r, ir.Constant(INT, k)), double)
                place = builder.bitcast(builder.gep(row, [args[2]]), vector.as_pointer())
                own = builder.gep(row, [args[3]])
                entry = builder.fmul(builder.load(own), args[4])
                entries = builder.call(
                    fused, [splat(builder, entry, SUBTRACT_COLUMNS), terms, builder.load(place, align=8)]
                )
                builder.store(entries, place, align=8)
                builder.store(entry, own)
        return context.get_dummy_value()

    return signature, generate


#: Entries of a row that ``scatter_rows`` works on at once.
SCATTER_LANES = 8


@intrinsic
def scatter_rows(_context, a, first, count, high, low, weight, hi, lo, moments):
    """Add ``aᵀ (high + low)`` of a few rows to the doubled ``hi + lo``, and their weighted moments.

    ``a`` (m, d) float32 or float64: its rows from ``first`` up to ``first + count`` are meant. ``high``, ``low`` and
    ``weight`` (count,); ``hi``, ``lo`` (s,) and ``moments`` (2, s) float64 with s at least d and a multiple of
    SCATTER_LANES. Row by row ``hi + lo`` takes the product with TwoSum, whose errors ``lo`` collects; ``moments`` takes
    ``weight a`` and ``weight a²``. Sums of SCATTER_LANES columns stay in registers for all rows.
    """
    signature = types.void(a, types.intp, types.intp, high, low, weight, hi, lo, moments)

    def generate(context, builder, _sig, args):
        element, double = context.get_value_type(a.dtype), ir.DoubleType()
        nbytes = a.dtype.bitwidth // 8
        lanes = SCATTER_LANES
        wide, narrow = ir.VectorType(double, lanes), ir.VectorType(element, lanes)
        fused = function(builder, f"llvm.fma.v{lanes}f64", wide, [wide] * 3)
        matrix = context.make_array(a)(context, builder, args[0])
        width = cgutils.unpack_tuple(builder, matrix.shape)[1]
        factors = [
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip((high, low, weight), args[3:6], strict=True)
        ]
        sums = [
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip((hi, lo), args[6:8], strict=True)
        ]
        sums += [row_pointer(builder, context, moments, args[8], ir.Constant(INT, k), double) for k in range(2)]

        def columns(j, load):
            places = [builder.bitcast(builder.gep(pointer, [j]), wide.as_pointer()) for pointer in sums]
            held = [cgutils.alloca_once_value(builder, builder.load(place, align=8)) for place in places]
            with cgutils.for_range(builder, args[2], intp=INT) as loop:
                row = row_pointer(builder, context, a, args[0], builder.add(args[1], loop.index), element)
                entry = load(builder.bitcast(builder.gep(row, [j]), narrow.as_pointer()))
                if element != double:
                    entry = builder.fpext(entry, wide)
                h, l, w = (splat(builder, builder.load(builder.gep(f, [loop.index])), lanes) for f in factors)
                total, rest, one, two = (builder.load(slot) for slot in held)
                product = builder.fmul(entry, h)
                error = builder.call(fused, [entry, h, builder.fneg(product)])
                new = builder.fadd(total, product)
                z = builder.fsub(new, total)
                lost = builder.fadd(builder.fsub(total, builder.fsub(new, z)), builder.fsub(product, z))
                rest = builder.fadd(rest, builder.fadd(builder.call(fused, [entry, l, error]), lost))
                weighted = builder.fmul(entry, w)
                results = new, rest, builder.fadd(one, weighted), builder.call(fused, [weighted, entry, two])
                for slot, value in zip(held, results, strict=True):
                    builder.store(value, slot)
            for slot, place in zip(held, places, strict=True):
                builder.store(builder.load(slot), place, align=8)

        even = builder.and_(width, ir.Constant(INT, -lanes))
        step = ir.Constant(INT, lanes)
        with cgutils.for_range_slice(builder, ir.Constant(INT, 0), even, step, intp=INT) as (j, _):
            columns(j, lambda pointer: builder.load(pointer, align=nbytes))
        with builder.if_then(builder.icmp_signed("<", even, width)):
            mask = lanes_below(builder, builder.sub(width, even), lanes)
            columns(even, lambda pointer: masked_load(builder, pointer, nbytes, mask, narrow))
        return context.get_dummy_value()

    return signature, generate


def lanes_below(builder, count, lanes):
    """The mask of the first ``count`` lanes."""
    numbers = ir.Constant(ir.VectorType(INT, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, splat(builder, count, lanes))


def masked_load(builder, pointer, align, mask, vector):
    """Lanes under the mask from memory, zeros elsewhere; memory outside the mask is not touched."""
    name = f"llvm.masked.load.v{vector.count}f{8 * align}.p0"
    load = function(builder, name, vector, [pointer.type, ir.IntType(32), mask.type, vector])
    zero = ir.Constant(vector, [0.0] * vector.count)
    return builder.call(load, [pointer, ir.Constant(ir.IntType(32), align), mask, zero])
