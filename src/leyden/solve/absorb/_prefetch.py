"""An instruction to fetch a row of an array that will be needed soon.

Levels come in any order: every row of a table asks for a line of memory that is nowhere near. A processor that is told
of it some dozen rows before has it when it is needed; one that is not waits, for it does not see far enough ahead past
the branches of short loops.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from leyden.vectors import function, row_pointer

#: How many entries ahead.
AHEAD = 24


@intrinsic
def prefetch_row(_context, a, i):
    """Fetch the line that row ``i`` of ``a`` begins on, or entry ``i`` of a vector; it need not exist."""
    signature = types.void(a, types.intp)

    def generate(context, builder, _sig, args):
        element = context.get_value_type(a.dtype)
        byte = ir.IntType(8).as_pointer()
        place = builder.bitcast(row_pointer(builder, context, a, args[0], args[1], element), byte)
        word = ir.IntType(32)
        fetch = function(builder, "llvm.prefetch.p0", ir.VoidType(), [byte, word, word, word])
        builder.call(fetch, [place, ir.Constant(word, 1), ir.Constant(word, 3), ir.Constant(word, 1)])
        return context.get_dummy_value()

    return signature, generate
