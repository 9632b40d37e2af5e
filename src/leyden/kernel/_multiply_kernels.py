"""Products of float32 matrices whose entries are the same bits whatever rows and columns are beside them.

BLAS sums in an order that depends on where a row is in what it is given, and on how many threads it has. Here each
entry is a chain of fused multiply-adds in the order of the inner dimension; some rows and columns are in registers at
once.
"""

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from leyden.vectors import INT, function, splat, wide_registers

#: Entries of a vector and rows of a tile, of two vectors a row: sums, entries and a factor fill 32 or 16 registers.
LANES, ROWS, VECTORS = (16, 12, 2) if wide_registers() else (8, 6, 2)
#: Columns of a tile.
PANEL = LANES * VECTORS

options = {"nogil": True, "cache": True, "error_model": "numpy"}


@intrinsic
def multiply_tile(_context, x, group, w, panel, depth, out, row, first):
    """``out[row : row + ROWS, first : first + PANEL] = x[group, :depth]ᵀ w[panel, :depth]``.

    ``x`` float32 (groups, k, ROWS) and ``w`` float32 (panels, k, PANEL), contiguous; ``out`` float32, rows contiguous.
    """
    signature = types.void(x, types.intp, w, types.intp, types.intp, out, types.intp, types.intp)

    def generate(context, builder, _sig, args):
        single = ir.FloatType()
        vector = ir.VectorType(single, LANES)
        fused = function(builder, f"llvm.fma.v{LANES}f32", vector, [vector] * 3)
        xs, ws, outs = (context.make_array(kind)(context, builder, args[k]) for k, kind in ((0, x), (2, w), (5, out)))
        inner = cgutils.unpack_tuple(builder, ws.shape)[1]
        left = builder.gep(xs.data, [builder.mul(args[1], builder.mul(inner, ir.Constant(INT, ROWS)))])
        right = builder.gep(ws.data, [builder.mul(args[3], builder.mul(inner, ir.Constant(INT, PANEL)))])

        # Sums live in values that the loop hands on, not in memory.
        before = builder.basic_block
        loop, done = builder.append_basic_block("multiply"), builder.append_basic_block("store")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(INT)
        k.add_incoming(ir.Constant(INT, 0), before)
        sums = []
        for _ in range(ROWS * VECTORS):
            total = builder.phi(vector)
            total.add_incoming(ir.Constant(vector, [0.0] * LANES), before)
            sums.append(total)
        here = builder.gep(right, [builder.mul(k, ir.Constant(INT, PANEL))])
        entries = [
            builder.load(
                builder.bitcast(builder.gep(here, [ir.Constant(INT, LANES * v)]), vector.as_pointer()), align=4
            )
            for v in range(VECTORS)
        ]
        there = builder.gep(left, [builder.mul(k, ir.Constant(INT, ROWS))])
        added = []
        for i in range(ROWS):
            factor = splat(builder, builder.load(builder.gep(there, [ir.Constant(INT, i)])), LANES)
            added += [builder.call(fused, [factor, entries[v], sums[VECTORS * i + v]]) for v in range(VECTORS)]
        following = builder.add(k, ir.Constant(INT, 1))
        builder.cbranch(builder.icmp_signed("<", following, args[4]), loop, done)
        k.add_incoming(following, loop)
        for total, value in zip(sums, added, strict=True):
            total.add_incoming(value, loop)
        builder.position_at_end(done)

        stride = cgutils.unpack_tuple(builder, outs.strides)[0]
        for i in range(ROWS):
            start = builder.mul(stride, builder.add(args[6], ir.Constant(INT, i)))
            line = builder.inttoptr(builder.add(builder.ptrtoint(outs.data, INT), start), single.as_pointer())
            for v in range(VECTORS):
                place = builder.gep(line, [builder.add(args[7], ir.Constant(INT, LANES * v))])
                builder.store(added[VECTORS * i + v], builder.bitcast(place, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate


@njit(**options)
def pack(x, packed):
    """The rows of ``x`` (m, k), float32, as (groups, k, ROWS); zeros fill up the last."""
    m, k = x.shape
    for g in range(-(-m // ROWS)):
        for i in range(ROWS):
            row = g * ROWS + i
            if row < m:
                for j in range(k):
                    packed[g, j, i] = x[row, j]
            else:
                for j in range(k):
                    packed[g, j, i] = 0.0


@njit(**options)
def multiply(packed, m, w, depths, out, spare):
    """The product of ``m`` packed rows and the columns of ``w`` (panels, k, PANEL) into ``out`` (m, columns).

    ``depths`` int64 (panels,): how many of the inner dimension each panel has, from the first; at least one. ``spare``
    float32 (ROWS, PANEL): for rows and columns that do not fill a tile.
    """
    columns = out.shape[1]
    for p in range(w.shape[0]):
        first = p * PANEL
        for g in range(-(-m // ROWS)):
            row = g * ROWS
            if row + ROWS <= m and first + PANEL <= columns:
                multiply_tile(packed, g, w, p, depths[p], out, row, first)
            else:
                multiply_tile(packed, g, w, p, depths[p], spare, 0, 0)
                for i in range(min(ROWS, m - row)):
                    for j in range(min(PANEL, columns - first)):
                        out[row + i, first + j] = spare[i, j]
