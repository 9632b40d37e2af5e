"""Vector instructions of Fourier features: projections turned to sines and cosines before they leave registers."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from leyden.vectors import INT, function, splat, wide_registers

#: Entries of a vector, rows and vectors of a tile: its sums, two vectors of frequencies and a factor fill 32 registers
#: of 64 bytes, or 16 of 32.
LANES, TILE_ROWS, TILE_VECTORS = (16, 12, 2) if wide_registers() else (8, 6, 2)
#: Frequencies of a tile.
PANEL = LANES * TILE_VECTORS

#: ``cos(π r) ≈ Σ c_k r²ᵏ`` and ``sin(π r) ≈ r Σ s_k r²ᵏ`` for |r| ≤ ½, minimax by Remez' exchange: wrong by less than
#: 4.7e-8 and 3.4e-9, when half a unit in the last place of one is 6e-8.
COSINE = (0.9999999534666968, -4.934792858675628, 4.058411914163459, -1.33188016119871, 0.21969679847098889)
SINE = (3.141592580044678, -5.167706878924772, 2.5500313772630094, -0.5980451740453556, 0.07722012883276938)


def turned(builder, p, size):
    """Vectors of ``size cos(π p)`` and ``size sin(π p)``.

    Whole numbers are taken off exactly, and whether they are odd is the sign of both.
    """
    vector, wholes = p.type, ir.VectorType(ir.IntType(32), LANES)
    fused = function(builder, f"llvm.fma.v{LANES}f32", vector, [vector] * 3)

    def polynomial(terms, z):
        found = ir.Constant(vector, [terms[-1]] * LANES)
        for term in terms[-2::-1]:
            found = builder.call(fused, [found, z, ir.Constant(vector, [term] * LANES)])
        return found

    turns = builder.call(function(builder, f"llvm.rint.v{LANES}f32", vector, [vector]), [p])
    r = builder.fsub(p, turns)
    odd = builder.shl(builder.fptosi(turns, wholes), ir.Constant(wholes, [31] * LANES))
    signed = builder.bitcast(builder.xor(odd, builder.bitcast(size, wholes)), vector)
    z = builder.fmul(r, r)
    return builder.fmul(polynomial(COSINE, z), signed), builder.fmul(polynomial(SINE, z), builder.fmul(r, signed))


@intrinsic
def turn_tile(_context, x, group, w, panel, scale, out, row, cosines, sines):
    """``scale cos(π p)`` and ``scale sin(π p)`` of the projections ``p = x w`` of TILE_ROWS rows on PANEL frequencies.

    ``x`` float32 (groups, d, TILE_ROWS) and ``w`` float32 (panels, d, PANEL), contiguous; ``out`` float32, rows
    contiguous: the cosines go to its columns from ``cosines``, the sines to those from ``sines``, rows from ``row``.
    Frequencies are in half turns, so that whole numbers are taken off exactly.
    """
    signature = types.void(
        x, types.intp, w, types.intp, types.float32, out, types.intp, types.intp, types.intp
    )  # fmt: skip

    def generate(context, builder, _sig, args):
        single = ir.FloatType()
        vector = ir.VectorType(single, LANES)
        fused = function(builder, f"llvm.fma.v{LANES}f32", vector, [vector] * 3)

        def constant(value):
            return ir.Constant(vector, [value] * LANES)

        def fma(a, b, c):
            return builder.call(fused, [a, b, c])

        xs, ws, outs = (context.make_array(kind)(context, builder, args[k]) for k, kind in ((0, x), (2, w), (5, out)))
        depth = cgutils.unpack_tuple(builder, ws.shape)[1]
        left = builder.gep(xs.data, [builder.mul(args[1], builder.mul(depth, ir.Constant(INT, TILE_ROWS)))])
        right = builder.gep(ws.data, [builder.mul(args[3], builder.mul(depth, ir.Constant(INT, PANEL)))])

        # Sums live in values that the loop hands on, not in memory.
        before = builder.basic_block
        loop, done = builder.append_basic_block("project"), builder.append_basic_block("turn")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(INT)
        k.add_incoming(ir.Constant(INT, 0), before)
        sums = []
        for _ in range(TILE_ROWS * TILE_VECTORS):
            total = builder.phi(vector)
            total.add_incoming(constant(0.0), before)
            sums.append(total)
        here = builder.gep(right, [builder.mul(k, ir.Constant(INT, PANEL))])
        entries = [
            builder.load(
                builder.bitcast(builder.gep(here, [ir.Constant(INT, LANES * v)]), vector.as_pointer()), align=4
            )
            for v in range(TILE_VECTORS)
        ]
        there = builder.gep(left, [builder.mul(k, ir.Constant(INT, TILE_ROWS))])
        added = []
        for i in range(TILE_ROWS):
            factor = splat(builder, builder.load(builder.gep(there, [ir.Constant(INT, i)])), LANES)
            added += [fma(factor, entries[v], sums[TILE_VECTORS * i + v]) for v in range(TILE_VECTORS)]
        following = builder.add(k, ir.Constant(INT, 1))
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
        k.add_incoming(following, loop)
        for total, value in zip(sums, added, strict=True):
            total.add_incoming(value, loop)
        builder.position_at_end(done)

        size = splat(builder, args[4], LANES)
        stride = cgutils.unpack_tuple(builder, outs.strides)[0]
        for i in range(TILE_ROWS):
            address = builder.add(
                builder.ptrtoint(outs.data, INT),
                builder.mul(stride, builder.add(args[6], ir.Constant(INT, i))),
            )
            line = builder.inttoptr(address, single.as_pointer())
            for v in range(TILE_VECTORS):
                p = added[TILE_VECTORS * i + v]
                cosine, sine = turned(builder, p, size)
                for value, first in ((cosine, args[7]), (sine, args[8])):
                    place = builder.gep(line, [builder.add(first, ir.Constant(INT, LANES * v))])
                    builder.store(value, builder.bitcast(place, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate
