"""Compiled kernels of ranking and of held-out errors. Each has a plain NumPy twin in the tests.

Shapes: m users and n items of d factors; a tile holds the approximate scores of some users and ``w`` consecutive items.
Sparse patterns are CSR: row pointers (m + 1,) into sorted column indices.
"""

# mypy: ignore-errors
# The types here are those of numba.

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from leyden.vectors import INT, row_pointer, splat

#: Hash of the sources that are compiled into the kernels here; see :mod:`leyden.solve._kernels`.
COMPILED_FROM = "0edcd5ab53ec007c"

#: Scores that are compared at once, a bit each, and sums that a product of rows is made of.
BITS, LANES = 64, 8

#: Squares between these have lost nothing to the ends of the range.
TINY, HUGE = 1e-250, 1e300


def _compare(relation: str):
    """An intrinsic: bit b of the result tells whether ``scores[i, j + b] relation bound``, for all BITS of them."""

    @intrinsic
    def kernel(_context, scores, i, j, bound):
        signature = types.uint64(scores, types.intp, types.intp, scores.dtype)

        def generate(context, builder, _sig, args):
            element, nbytes = context.get_value_type(scores.dtype), scores.dtype.bitwidth // 8
            row = row_pointer(builder, context, scores, args[0], args[1], element)
            place = builder.bitcast(builder.gep(row, [args[2]]), ir.VectorType(element, BITS).as_pointer())
            held = builder.load(place, align=nbytes)
            found = builder.fcmp_ordered(relation, held, splat(builder, args[3], BITS))
            return builder.bitcast(found, ir.IntType(BITS))

        return signature, generate

    return kernel


_above, _at_least = _compare(">"), _compare(">=")


@intrinsic
def _count(_context, mask):
    """How many bits are set."""
    return types.int64(types.uint64), lambda _c, builder, _s, args: builder.ctpop(args[0])


@intrinsic
def _lowest(_context, mask):
    """The place of the lowest bit of a mask that is not zero."""
    return types.int64(types.uint64), lambda _c, builder, _s, args: builder.cttz(args[0], cgutils.true_bit)


@njit(nogil=True, cache=True, error_model="numpy")
def _bits_above(scores, i, j, width, bound):
    """Bit b tells whether ``scores[i, j + b] > bound``; there are no scores from ``width`` on."""
    if width - j >= BITS:
        return _above(scores, i, j, bound)
    mask = np.uint64(0)
    for b in range(width - j):
        if scores[i, j + b] > bound:
            mask |= np.uint64(1) << np.uint64(b)
    return mask


@njit(nogil=True, cache=True, error_model="numpy")
def _bits_at_least(scores, i, j, width, bound):
    """As :func:`_bits_above`, for ``scores[i, j + b] >= bound``."""
    if width - j >= BITS:
        return _at_least(scores, i, j, bound)
    mask = np.uint64(0)
    for b in range(width - j):
        if scores[i, j + b] >= bound:
            mask |= np.uint64(1) << np.uint64(b)
    return mask


@intrinsic
def _products(_context, users, i, items, j, last, out):
    """``out[l] = Σ u[i, f] v[j, f]`` over ``f = l, l + LANES, …`` below ``last``, one after the other in float64.

    ``users`` and ``items`` float32 or float64, ``last`` a multiple of LANES, ``out`` (LANES,) float64.
    """
    signature = types.void(users, types.intp, items, types.intp, types.intp, out)

    def generate(context, builder, _sig, args):
        element, nbytes = context.get_value_type(users.dtype), users.dtype.bitwidth // 8
        narrow, wide = (ir.VectorType(kind, LANES) for kind in (element, ir.DoubleType()))
        rows = (
            row_pointer(builder, context, users, args[0], args[1], element),
            row_pointer(builder, context, items, args[2], args[3], element),
        )
        held = cgutils.alloca_once_value(builder, ir.Constant(wide, [0.0] * LANES))
        with cgutils.for_range_slice(builder, ir.Constant(INT, 0), args[4], ir.Constant(INT, LANES), intp=INT) as (
            f,
            _,
        ):
            places = (builder.bitcast(builder.gep(row, [f]), narrow.as_pointer()) for row in rows)
            u, v = (builder.load(place, align=nbytes) for place in places)
            if narrow != wide:
                u, v = builder.fpext(u, wide), builder.fpext(v, wide)
            builder.store(builder.fadd(builder.load(held), builder.fmul(u, v)), held)
        place = context.make_array(out)(context, builder, args[5]).data
        builder.store(builder.load(held), builder.bitcast(place, wide.as_pointer()), align=8)
        return context.get_dummy_value()

    return signature, generate


@njit(nogil=True, cache=True, error_model="numpy")
def score(users, i, items, j, offset, sums):
    """``u_i · v_j``, plus the offset of item j if there are any, in float64: LANES sums side by side, added in pairs.

    The order is fixed: the score of a pair is one number, whoever computes it. ``sums`` (LANES,) is scratch.
    """
    d = users.shape[1]
    even = d - d % LANES
    _products(users, i, items, j, even, sums)
    for f in range(even, d):
        sums[f - even] += np.float64(users[i, f]) * np.float64(items[j, f])
    total = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))
    return total + offset[j] if offset.size else total


@njit(nogil=True, cache=True, error_model="numpy")
def row_norms(a, out):
    """Lengths of the rows of ``a`` (m, d) in float64, whatever their scale; NaN where a row is not finite."""
    sums, nothing = np.empty(LANES), np.empty(0)
    for i in range(a.shape[0]):
        total = score(a, i, a, i, nothing, sums)
        out[i] = math.sqrt(total) if TINY < total < HUGE else _scaled_norm(a, i)


@njit(nogil=True, cache=True, error_model="numpy")
def _scaled_norm(a, i):
    """The length of row i where its square may be out of range."""
    largest = 0.0
    for f in range(a.shape[1]):
        size = abs(np.float64(a[i, f]))
        if not size < np.inf:
            return np.nan
        largest = max(largest, size)
    total = 0.0
    for f in range(a.shape[1]):
        part = a[i, f] / largest if largest > 0 else 0.0
        total += part * part
    return largest * math.sqrt(total)


@njit(nogil=True, cache=True, error_model="numpy")
def _holds(indices, first, last, j):
    """Whether the sorted ``indices[first:last]`` hold j."""
    below, end = first, last
    while below < end:
        middle = (below + end) // 2
        if indices[middle] < j:
            below = middle + 1
        else:
            end = middle
    return below < last and indices[below] == j


@njit(nogil=True, cache=True, error_model="numpy")
def _precedes(s, j, t, l):
    """Whether score s of item j ranks before score t of item l."""
    return s > t or (s == t and j < l)


@njit(nogil=True, cache=True, error_model="numpy")
def _sift_down(scores, indices, length):
    """Restore a heap whose root is the last in rank, after the root was replaced."""
    at = 0
    while 2 * at + 1 < length:
        child = 2 * at + 1
        if child + 1 < length and _precedes(scores[child], indices[child], scores[child + 1], indices[child + 1]):
            child += 1
        if not _precedes(scores[at], indices[at], scores[child], indices[child]):
            break
        scores[at], scores[child] = scores[child], scores[at]
        indices[at], indices[child] = indices[child], indices[at]
        at = child


@njit(nogil=True, cache=True, error_model="numpy")
def _sift_up(scores, indices, at):
    """Restore the same heap after the entry ``at`` was added."""
    while at > 0:
        parent = (at - 1) // 2
        if not _precedes(scores[parent], indices[parent], scores[at], indices[at]):
            break
        scores[at], scores[parent] = scores[parent], scores[at]
        indices[at], indices[parent] = indices[parent], indices[at]
        at = parent


@njit(nogil=True, cache=True, error_model="numpy")
def _below(x, tile):
    """A number of the tile's type that is no more than x, and x itself where it is zero."""
    return tile.dtype.type(x - abs(x) * (2 * np.finfo(tile.dtype).eps))


@njit(nogil=True, cache=True, error_model="numpy")
def select(tile, users, items, first, offset, margin, begin, end, excluded, best, found, filled):
    """Put the items of a tile that are among the first k of a user so far into the user's heap.

    Parameters
    ----------
    tile : float32 or float64, shape (m, w)
        Approximate scores of the items from ``first`` on, each in error by at most ``margin`` (m,) of its user.
    users, items : shapes (m, d), (n, d)
    first : int
    offset : float64, shape (n,) or (0,)
    margin : float64, shape (m,)
    begin, end, excluded
        Where in ``excluded`` the items to leave out of each user are, in ascending order.
    best, found, filled : shapes (m, k), (m, k), (m,)
        Scores and items of each heap, and how many it holds. Tiles come in the order of their items.
    """
    m, width = tile.shape
    k, sums = best.shape[1], np.empty(LANES)
    for i in range(m):
        full = filled[i] == k
        bound = _below(best[i, 0] - margin[i], tile) if full else tile.dtype.type(-np.inf)
        for start in range(0, width, BITS):
            left = _bits_above(tile, i, start, width, bound)
            while left:
                place = start + _lowest(left)
                left &= left - np.uint64(1)
                if not tile[i, place] > bound:
                    continue
                j = first + place
                exact = score(users, i, items, j, offset, sums)
                if (full and not exact > best[i, 0]) or _holds(excluded, begin[i], end[i], j):
                    continue
                if full:
                    best[i, 0], found[i, 0] = exact, j
                    _sift_down(best[i], found[i], k)
                else:
                    best[i, filled[i]], found[i, filled[i]] = exact, j
                    _sift_up(best[i], found[i], filled[i])
                    filled[i] += 1
                    full = filled[i] == k
                if full:
                    bound = _below(best[i, 0] - margin[i], tile)


@njit(nogil=True, cache=True, error_model="numpy")
def order(best, found, filled):
    """Sort every heap, first in rank first."""
    for i in range(best.shape[0]):
        for last in range(filled[i] - 1, 0, -1):
            best[i, 0], best[i, last] = best[i, last], best[i, 0]
            found[i, 0], found[i, last] = found[i, last], found[i, 0]
            _sift_down(best[i], found[i], last)


@njit(nogil=True, cache=True, error_model="numpy")
def begin_ranks(
    users, items, offset, begin, end, held, excluded_begin, excluded_end, excluded, target, twin, above, tied
):
    """Score the held-out items, and count the excluded ones against them: what :func:`rank` will count too much.

    Parameters
    ----------
    users, items, offset
        As in :func:`select`.
    begin, end, held
        Where in ``held`` the held-out items of each user are, in ascending order.
    excluded_begin, excluded_end, excluded
        The same of the items that are no candidates.
    target : float64, shape (held-out items,)
        Takes their scores.
    twin : int64, shape (held-out items,)
        Takes a held-out item of the same user and score to stand for all of these: their ranks are the same.
    above, tied : int64, shape (held-out items,)
        Take minus the number of excluded items that score higher, and the same.

    Returns
    -------
    int
        A user of whom an item is both held out and excluded, or −1.
    """
    sums = np.empty(LANES)
    for i in range(len(begin)):
        for q in range(begin[i], end[i]):
            target[q] = score(users, i, items, held[q], offset, sums)
            twin[q], above[q], tied[q] = q, 0, 0
        places = begin[i] + np.argsort(target[begin[i] : end[i]])
        for p in range(1, len(places)):
            if target[places[p]] == target[places[p - 1]]:
                twin[places[p]] = twin[places[p - 1]]
        for e in range(excluded_begin[i], excluded_end[i]):
            j = excluded[e]
            if _holds(held, begin[i], end[i], j):
                return i
            exact = score(users, i, items, j, offset, sums)
            for q in range(begin[i], end[i]):
                above[q] -= exact > target[q]
                tied[q] -= exact == target[q]
    return -1


@njit(nogil=True, cache=True, error_model="numpy")
def rank(tile, users, items, first, offset, margin, begin, end, target, twin, above, tied):
    """Add to ``above`` and ``tied`` how many items of a tile score higher than each held-out item, and the same.

    Parameters as in :func:`select` and :func:`begin_ranks`. An item is scored again where its approximate score does
    not tell; with a margin of zero, that of a user without factors, it always does.
    """
    m, width = tile.shape
    sums = np.empty(LANES)
    for i in range(m):
        for q in range(begin[i], end[i]):
            if twin[q] != q:
                continue
            low, high = _below(target[q] - margin[i], tile), -_below(-target[q] - margin[i], tile)
            higher = same = 0
            for start in range(0, width, BITS):
                possible = _bits_at_least(tile, i, start, width, low)
                if possible == 0:
                    continue
                certain = _bits_above(tile, i, start, width, high)
                higher += _count(certain)
                left = possible & ~certain
                if margin[i] == 0:
                    same += _count(left)
                    continue
                while left:
                    exact = score(users, i, items, first + start + _lowest(left), offset, sums)
                    left &= left - np.uint64(1)
                    higher += exact > target[q]
                    same += exact == target[q]
            above[q] += higher
            tied[q] += same
        for q in range(begin[i], end[i]):
            above[q], tied[q] = above[twin[q]], tied[twin[q]]


@njit(nogil=True, cache=True, error_model="numpy")
def _harmonic(n):
    """``1 + 1/2 + … + 1/n``."""
    if n < 64:
        total = 0.0
        for r in range(n, 0, -1):
            total += 1 / r
        return total
    s = 1 / np.float64(n) ** 2
    return math.log(n) + np.euler_gamma + 0.5 / n - s * (1 / 12 - s * (1 / 120 - s / 252))


@njit(nogil=True, cache=True, error_model="numpy")
def first_reciprocal(above, tied, count):
    """The mean of ``1 / (above + J)``, J the first place of ``count`` items in a random order of ``tied``.

    ``P(J = j) = C(tied − j, count − 1) / C(tied, count)``. With nothing above, the sum over j is that of a harmonic
    number: ``Σ_j C(t − j, c − 1) / j = C(t, c − 1) (H_t − H_{c−1})``.
    """
    if above == 0:
        return count / (tied - count + 1) * (_harmonic(tied) - _harmonic(count - 1))
    chance, mean = count / tied, 0.0
    for j in range(1, tied - count + 2):
        mean += chance / (above + j)
        chance *= (tied - j - count + 1) / max(tied - j, 1)
    return mean


@njit(nogil=True, cache=True, error_model="numpy")
def user_metrics(begin, end, above, tied, cutoffs, gains, out):
    """Expected metrics of users over a random order of the items that tie, see :mod:`leyden.factor.metrics`.

    Parameters
    ----------
    begin, end : int64, shape (m,)
        Where the held-out items of each user are; none has no items.
    above, tied : int64, shape (held-out items,)
    cutoffs : int64, shape (c,)
    gains : float64, shape (1 + largest cutoff,)
        ``gains[k] = Σ_{r ≤ k} 1 / log₂(r + 1)``.
    out : float64, shape (m, 3 c + 1)
        Takes recall, NDCG and hit rate at each cutoff, and the reciprocal rank.
    """
    cuts = len(cutoffs)
    out[:] = 0
    for i in range(len(begin)):
        held = end[i] - begin[i]
        out[i, 2 * cuts : 3 * cuts] = 1
        places = begin[i] + np.argsort(above[begin[i] : end[i]])
        at = 0
        while at < held:
            g, t, count = above[places[at]], tied[places[at]], 1
            while at + count < held and above[places[at + count]] == g:
                count += 1
            if at == 0:
                out[i, 3 * cuts] = first_reciprocal(g, t, count)
            for c in range(cuts):
                k = cutoffs[c]
                inside = min(max(k - g, 0), t)
                if inside == 0:
                    continue
                out[i, c] += count * inside / t / min(held, k)
                out[i, cuts + c] += count * (gains[g + inside] - gains[g]) / t / gains[min(held, k)]
                for e in range(count):
                    out[i, 2 * cuts + c] *= max(t - inside - e, 0) / (t - e)
            at += count
        for c in range(2 * cuts, 3 * cuts):
            out[i, c] = 1 - out[i, c]


@njit(nogil=True, cache=True, error_model="numpy")
def squared_errors(users, items, user_offset, item_offset, begin, end, held, ratings, out):
    """Sums over users of the squared errors S of the n held-out ratings of one: ``n, S, n², n S, S²`` and a count.

    Parameters
    ----------
    users, items : shapes (m, d), (n, d)
    user_offset, item_offset : float64, shapes (m,) or (0,), (n,) or (0,)
    begin, end, held, ratings
        Where in ``held`` and ``ratings`` the held-out items of each user and their ratings are.
    out : float64, shape (6,)
        Is added to.
    """
    sums = np.empty(LANES)
    for i in range(len(begin)):
        total, count = 0.0, np.float64(end[i] - begin[i])
        for q in range(begin[i], end[i]):
            predicted = score(users, i, items, held[q], item_offset, sums)
            if user_offset.size:
                predicted += user_offset[i]
            error = ratings[q] - predicted
            total += error * error
        if count:
            out[0] += 1
            out[1] += count
            out[2] += total
            out[3] += count * count
            out[4] += count * total
            out[5] += total * total
