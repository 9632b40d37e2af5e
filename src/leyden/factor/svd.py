r"""Truncated singular value decomposition and principal components: ``B ≈ U Σ Vᵀ`` of rows of any number.

The matrix B is that of the rows as given, or with centred and scaled columns (:mod:`leyden.factor.frame`). Everything
is computed from H = BᵀB, or its products with blocks of vectors; small singular values are measured on ``B V`` itself.

==========  ===========================================================  ====================================
method      how                                                          when
==========  ===========================================================  ====================================
gram        H whole, in one pass; its eigenvectors                       some thousands of columns or fewer
outer       ``B Bᵀ`` in memory                                           a few long rows
krylov      block Lanczos with a random start, a pass a block            any number of columns
sketch      Nyström's approximation of H from one block of products      ``passes=1``: an estimate
==========  ===========================================================  ====================================

The certificate (:mod:`leyden.factor.enclosure`) is computed from the image ``H V`` and the product ``(B V)ᵀ(B V)``,
measured in a last pass over the data, or, where the Gram matrix is right to more digits than were asked for, taken
from it with a bound on its rounding errors. Iterations stop when the certified residual of every triplet is below
``tol σ_1`` (the test of A. Stathopoulos, J. McCombs, "PRIMME", ACM Trans. Math. Softw. 37, 2010).
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from typing import Any

import numpy as np

from leyden import options as check
from leyden.engine.checkpoint import Checkpoint, as_checkpoint
from leyden.engine.executor import Executor, as_executor
from leyden.engine.fingerprint import fingerprint
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine, read_rate
from leyden.errors import DataError, OptionError
from leyden.factor.choose import METHODS, Options, capacity, choose, reserved_nbytes, width
from leyden.factor.decomposition import SVD, Found, PrincipalComponents, certify
from leyden.factor.enclosure import (
    Ceiling,
    Ritz,
    krylov_ceiling,
    orthonormality,
    rayleigh_ritz,
    remainder_norm,
    signs,
)
from leyden.factor.frame import Frame, bare, look
from leyden.factor.krylov import KrylovSpace, gaussian, orthonormal
from leyden.factor.left import check_target
from leyden.factor.reductions import BlockImage, FrameGram, Image
from leyden.plan import Plan, verb
from leyden.rows import Rows
from leyden.rows import open as open_rows
from leyden.solve.measure import raise_nonfinite
from leyden.solve.reductions import MeasuredGram, U, gamma

#: Share of the tolerance that block Lanczos stops at, for the certificate to confirm.
GOAL = 0.9

#: Probability with which a bound that rests on a random start may be wrong.
FAILURE = 1e-9

#: Squares below this lose digits to underflow, and so would all bounds that are relative to them.
LEAST_SQUARE = 2.0**-900

#: Share of a sum of squares that is rounding, once the mean was taken off it.
CANCELLED = 1e-12

#: Passes of block Lanczos after which a run gives up.
MAX_PASSES = 500


@verb
def svd(
    a: Any,
    rank: int,
    *,
    u: bool | str | os.PathLike = False,
    tol: float = 1e-6,
    method: str = "auto",
    passes: int | None = None,
    memory: str | int | None = None,
    threads: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Plan[SVD]:
    """The leading singular values and vectors of a matrix, certified.

    Parameters
    ----------
    a : Rows, array, sparse matrix, or path
        The matrix (n, d): anything :func:`leyden.open` takes; it may be larger than memory.
    rank : int
        How many triplets, from 1 to min(n, d).
    u : bool or path, default False
        Whether to compute the left vectors, in one more pass: into memory, or into the ``.npy`` file of this path.
        Without it, :meth:`SVD.left` makes them row by row when they are read.
    tol : float, default 1e-6
        What the residual of every triplet, ``‖Aᵀu − σv‖ / σ_1``, is certified to stay below.
    method : {"auto", "gram", "outer", "krylov", "sketch"}
        See :mod:`leyden.factor.svd`.
    passes : int, optional
        The most passes to make over the data. With ``passes=1`` the answer may be an estimate, whose enclosures hold.
    memory : str or int, optional
        Budget, as ``"2GB"`` or bytes; half of the free memory by default.
    threads : int, optional
        All processors by default. For a given ``method`` and budget the answer has the same bits whatever their number.
    seed : int, default 0
        Of the random start, below 2⁶⁴.
    checkpoint : path or Checkpoint, optional
        A folder to keep what has been done in; see :func:`leyden.lstsq`.
    executor : Executor, optional
        What runs the passes: ``leyden.Dask(client)`` for the workers of a cluster.
    progress : bool, optional
        Show passes while they run; by default on a terminal.

    Returns
    -------
    SVD

    Raises
    ------
    DataError, OptionError, BudgetError, CheckpointError
    Interrupted
        On Ctrl-C or SIGTERM, with a checkpoint; its message says how to go on.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> a = np.random.default_rng(0).standard_normal((1000, 20)) * 0.5 ** np.arange(20)
    >>> found = ly.svd(a, rank=3)
    >>> bool(np.allclose(found.s, np.linalg.svd(a, compute_uv=False)[:3])), found.certificate.holds
    (True, True)
    """
    return _plan(
        a, rank, u, centre=False, standardise=False, tol=tol, method=method, passes=passes, memory=memory,
        threads=threads, seed=seed, checkpoint=checkpoint, executor=executor, progress=progress,
    )  # fmt: skip


@verb
def pca(
    a: Any,
    rank: int,
    *,
    scale: bool = False,
    scores: bool | str | os.PathLike = False,
    tol: float = 1e-6,
    method: str = "auto",
    passes: int | None = None,
    memory: str | int | None = None,
    threads: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Plan[PrincipalComponents]:
    """Principal components: the singular value decomposition of the centred columns.

    The columns are centred while they are read; sparse ones are centred implicitly and stay sparse.

    Parameters
    ----------
    a : Rows, array, sparse matrix, or path
        Observations in rows (n, d).
    rank : int
        How many components.
    scale : bool, default False
        Whether to divide each column by its standard deviation (of n − 1), so that the components are those of the
        correlation matrix.
    scores : bool or path, default False
        Whether to compute the scores ``B V`` (n, rank): into memory, or into the ``.npy`` file of this path.
    tol, method, passes, memory, threads, seed, checkpoint, executor, progress
        As in :func:`svd`.

    Returns
    -------
    PrincipalComponents

    Raises
    ------
    DataError
        Of a column without variance, with ``scale``; and as :func:`svd`.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> x = np.random.default_rng(0).standard_normal(500)
    >>> found = ly.pca(np.column_stack([x, 2 * x + 1, 0 * x]), rank=1)
    >>> np.round(found.explained_variance_ratio, 6).tolist(), found.certificate.holds
    ([1.0], True)
    """
    return _plan(
        a, rank, scores, centre=True, standardise=check.flag("scale", scale), tol=tol, method=method, passes=passes,
        memory=memory, threads=threads, seed=seed, checkpoint=checkpoint, executor=executor, progress=progress,
    )  # fmt: skip


def _plan(
    a: Any,
    rank: int,
    left: bool | str | os.PathLike,
    *,
    centre: bool,
    standardise: bool,
    tol: float,
    method: str,
    passes: int | None,
    memory: str | int | None,
    threads: int | None,
    seed: int,
    checkpoint: str | os.PathLike | Checkpoint | None,
    executor: Executor | None,
    progress: bool | None,
) -> Plan[Any]:
    method = check.one_of("method", method, ("auto", *METHODS))
    passes = None if passes is None else check.whole("passes", passes, 1, MAX_PASSES)
    rows = open_rows(a)
    n, d = rows.shape
    if rows.has_weight:
        raise OptionError("rows with weights are not factored", where=rows.source, hint="Open them without weight=.")
    most = min(n, d)
    if not 1 <= check.whole("rank", rank, -(2**62), 2**62) <= most:
        raise OptionError(
            f"rank={rank} is not from 1 to {most:,}, the lesser of {n:,} rows and {d:,} columns", where=rows.source
        )
    if centre and n < 2:
        raise DataError("one row has no variance", where=rows.source, hint="Give at least two.")
    if isinstance(left, str | os.PathLike):
        check_target(left, rows)
    options = Options(
        rank=int(rank),
        centre=centre,
        standardise=standardise,
        tol=check.fraction("tol", tol),
        seed=check.seed(seed),
        memory=as_executor(executor).memory() if memory is None else check.memory(memory),
        threads=check.threads(threads),
        progress=check.progress(progress),
        checkpoint=as_checkpoint(checkpoint),
        executor=executor,
    )
    identity = {
        "verb": options.verb,
        "rank": options.rank,
        "scale": options.standardise,
        "tol": options.tol,
        "method": method,
        "passes": passes,
        "memory": None if memory is None else options.memory,
        "seed": options.seed,
        "left": str(left),
        "data": fingerprint(rows) if options.checkpoint else None,
    }
    begun = options.checkpoint.begun(identity) if options.checkpoint else None
    if begun:
        options = replace(options, memory=begun["memory"])
    frame = look(rows, centre=centre, memory=options.memory)
    if begun:
        chosen = Plan.from_json(begun)
    else:
        rate = math.inf if rows.in_memory else read_rate(rows, options.memory)
        density = _density(rows)
        chosen = choose(rows, options, frame, method, rate, density)
        if passes == 1 and chosen.method not in ("gram", "sketch"):
            chosen = choose(rows, options, frame, "sketch", rate, density)
    return replace(chosen, _run=lambda plan: _run(plan, rows, options, frame, identity, passes or MAX_PASSES, left))


def _density(rows: Rows) -> float:
    """Share of the entries that are stored."""
    if not rows.is_sparse:
        return 1.0
    return min(1.0, rows.row_nbytes / (rows.dtype.itemsize + 4) / rows.shape[1])


def _run(
    plan: Plan,
    rows: Rows,
    options: Options,
    frame: Frame,
    identity: dict[str, Any],
    passes: int,
    left: bool | str | os.PathLike,
) -> SVD:
    began = time.perf_counter()
    engine = Engine(
        options.memory,
        options.threads,
        reserved_nbytes(plan.method, rows, options),
        as_executor(options.executor),
        checkpoint=options.checkpoint,
        progress=Progress(options.progress),
    )
    with engine.running(identity, plan.to_json()), single_threaded_blas():
        run = _Run(engine, rows, options, frame, passes)
        found = {"gram": run.gram, "outer": run.outer, "krylov": run.krylov, "sketch": run.sketch}[plan.method]()
        answer = certify(found, rows, options, engine, plan)
        if left is not False:
            answer.write_left(engine, rows, None if left is True else left)
    engine.trace.seconds = time.perf_counter() - began + engine.spared
    return answer


class _Run:
    """One decomposition: what its methods share."""

    def __init__(self, engine: Engine, rows: Rows, options: Options, frame: Frame, passes: int):
        self.engine, self.rows, self.options, self.frame, self.passes = engine, rows, options, frame, passes
        self.n, self.d = rows.shape
        self.k, self.width = options.rank, width(options, rows)

    # ------------------------------------------------------------ passes

    def image(self, w: np.ndarray, label: str, *, graded: bool = True, remainder: bool = False) -> Image:
        """The image of W, measured in one pass."""
        sparse = self.rows.is_sparse
        reduction = BlockImage(self.frame, w, self.n, sparse=sparse, graded=graded, remainder=remainder)
        image: Image
        (image,) = self.engine.sweep(self.rows, [reduction], label)
        self.check_range(bool(np.isfinite(image.s).all()), image.raw, image.mean)
        return image

    def check_range(self, finite: bool, raw: float, mean: np.ndarray) -> None:
        """Refuse sums of squares that overflow or underflow."""
        if not (finite and np.isfinite(raw)):
            raise_nonfinite(self.rows)
        elif raw >= LEAST_SQUARE or not (raw > 0 or mean.any()):
            return
        what = "small" if raw < LEAST_SQUARE else "large"
        flows = "underflow" if raw < LEAST_SQUARE else "overflow"
        raise DataError(
            f"values are so {what} that their squares {flows}", where=self.rows.source, hint="Rescale the data."
        )

    def standardise(self, squares: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Deviations (d,) of the columns as read, from squares about the mean; a constant column is refused."""
        # What is left of a constant column by its shift, or by taking the mean off its sum of squares, is rounding.
        noise = self.n * (16 * U * np.abs(self.frame.shift) * self.frame.scale) ** 2
        if self.rows.is_sparse:
            noise += CANCELLED * (squares + self.n * mean**2)
        noise = np.maximum(noise, LEAST_SQUARE)
        flat = np.flatnonzero(~(squares > noise))
        if len(flat):
            names = ", ".join(f"'{self.rows.columns[j]}'" for j in flat[:3]) + (", …" if len(flat) > 3 else "")
            raise DataError(
                f"column {names} has no variance, and cannot be scaled to have one",
                where=self.rows.source,
                hint="Leave it out, or do not scale.",
            )
        return np.sqrt(squares / (self.n - 1))

    def enough(self, ritz: Ritz) -> bool:
        """Whether the leading triplets are what was asked for."""
        return bool((ritz.residual[: self.k] <= self.options.tol * ritz.lower[0]).all())

    def found(
        self, ritz: Ritz, image: Image, outside: float = math.inf, ceilings: list[Ceiling] | None = None
    ) -> Found:
        return Found(ritz, image.mean, self.frame, outside, tuple(ceilings or ()))

    # ------------------------------------------------------------ methods

    def gram(self) -> Found:
        """Eigenvectors of the whole Gram matrix; a second pass only where its rounding errors are in the way."""
        tile_rows = min(max(2**17 // self.d, 256), 4096)
        (measured,) = self.engine.sweep(self.rows, [FrameGram(self.frame, np.float64, tile_rows)], "Gram matrix")
        gram, mean, raw = self._centred(measured)
        self.check_range(bool(np.isfinite(measured.matrix).all()), raw, mean)
        if self.options.standardise:
            deviation = self.standardise(np.diag(gram).copy(), mean)
            gram /= np.outer(deviation, deviation)
            raw = float((np.diag(gram) + self.n * (mean / deviation) ** 2).sum())
            mean = mean / deviation
            self.frame = self.frame.standardised(deviation / self.frame.unit)
        total = max(float(np.trace(gram)), 0.0)
        l = min(self.k + EXTRA_PAIRS, self.d)
        theta, w, after = _leading(gram, l)
        outside = remainder_norm(gram, w, theta, after) if l < self.d else 0.0
        # Entries are right to `rounding` times the norms of their columns, so H is to that times the trace; what
        # centring takes off, a product of two sums, to twice that.
        centring = 2 * measured.rounding + 4 * gamma(16) if self.options.centre else 0.0
        error = 1.01 * (measured.rounding + centring) + gamma(self.d + l + 4)
        image = Image(
            gram @ w,
            w.T @ gram @ w,
            np.full(l, math.sqrt(raw)),
            total,
            raw,
            mean,
            np.diag(gram).copy(),
            None,
            error,
            gamma(self.d),
            graded=False,
        )
        ritz = rayleigh_ritz(w, image)
        outside += error * raw
        small = ritz.left2[1] < 1e-10 * total
        if self.passes == 1 or (self.enough(ritz) and not small and ritz.lower[self.k - 1] > 1e-4 * ritz.lower[0]):
            return self.found(ritz, image, outside)
        # Small singular values, and what is left beyond the last, are measured on B W itself.
        image = self.image(orthonormal(ritz.w), "certificate", remainder=small)
        return self.found(rayleigh_ritz(orthonormal(ritz.w), image), image, outside)

    def _centred(self, measured: MeasuredGram) -> tuple[np.ndarray, np.ndarray, float]:
        """Gram matrix of B, means of the rows as read, and the sum of squares before the mean was taken off."""
        d, matrix = self.d, measured.matrix
        raw = float(np.trace(matrix[:d, :d]))
        if not self.options.centre:
            return matrix, np.zeros(d), raw
        sums = matrix[:d, d]
        return matrix[:d, :d] - np.outer(sums, sums / self.n), sums / self.n, raw

    def outer(self) -> Found:
        """Eigenvectors of ``B Bᵀ``, with the rows in memory."""
        b = np.empty((self.n, self.d))
        step = max(1, int(2**25 / max(self.rows.row_nbytes, 1)))
        for start in range(0, self.n, step):
            data: Any = bare(self.rows.read(start, min(start + step, self.n))).data
            b[start : start + step] = data if isinstance(data, np.ndarray) else data.toarray()
        self.rows.release()
        if not np.isfinite(b).all():
            raise_nonfinite(self.rows)
        b -= self.frame.shift
        b *= self.frame.scale
        if self.options.centre:
            mean = b.mean(axis=0)
            if self.options.standardise:
                squares = ((b - mean) ** 2).sum(axis=0)
                deviation = self.standardise(squares, mean)
                self.frame = self.frame.standardised(deviation / self.frame.unit)
                b /= deviation
                mean = mean / deviation
            b -= mean
        l = min(self.width, self.n)
        products = b @ b.T
        theta, p, after = _leading(products, l)
        w = orthonormal(b.T @ p)
        del b
        image = self.image(w, "certificate")
        ritz = rayleigh_ritz(w, image)
        if not self.enough(ritz) and self.passes >= 4:
            return self.krylov(start=ritz.w, made=2)
        # B Bᵀ has the eigenvalues of H; in error are the products, and the rows they are made of.
        beyond = remainder_norm(products, p, theta, after) if l < self.n else 0.0
        beyond += (gamma(self.d + 4) + 32 * U) * image.raw
        return self.found(ritz, image, ceilings=[Ceiling(l, beyond, 1.0)])

    def krylov(self, start: np.ndarray | None = None, made: int = 0) -> Found:
        """Block Lanczos, and a last pass that certifies what it found; ``made`` passes were made before."""
        options, k = self.options, self.k
        if options.standardise and start is None:
            if self.passes < 3:
                raise OptionError("scaled columns take three passes at least", hint="Give passes=3, or do not scale.")
            made = 1
            zero = self.image(np.zeros((self.d, 1)), "column moments")
            deviation = self.standardise(zero.squares, zero.mean)
            self.frame = self.frame.standardised(deviation / self.frame.unit)
        room = capacity(self.rows, options)
        space = KrylovSpace(gaussian(self.d, self.width, options.seed) if start is None else start, room)
        goal = GOAL
        while True:
            made += 1
            image = self.image(space.block, "block Lanczos", graded=False)
            space.add(image.s, math.sqrt(image.s.shape[1]) * image.row_unit * image.raw)
            pairs = space.pairs(self.width)
            far = pairs.unconverged(k, options.tol)
            self.engine.trace.remarks.append(f"pass {made}: residual {far * options.tol:.1e}")
            last = space.invariant or made >= self.passes - 1
            if far <= goal or last:
                w = space.vectors(pairs)
                image = self.image(w, "certificate")
                ritz = rayleigh_ritz(w, image)
                made += 1
                if last or self.enough(ritz) or goal < 1e-3 * GOAL or made > self.passes - 2:
                    break
                goal *= 0.1
            if space.full:
                space.restart(max(k + 2, min(room - 2 * self.width, k + self.width)))
        l = w.shape[1]
        if start is not None or l == self.d:
            return self.found(ritz, image)
        failure = FAILURE / min(k + 1, l)
        ceilings = [
            krylov_ceiling(i, float(ritz.upper[i]) ** 2, self.d, self.width, space.steps, space.drift, failure)
            for i in range(min(k + 1, l))
        ]
        return self.found(ritz, image, ceilings=ceilings)

    def sketch(self) -> Found:
        r"""Nyström's approximation of H from one block of products (J. Tropp, A. Yurtsever, M. Udell, V. Cevher,
        "Fixed-rank approximation of a positive-semidefinite matrix from streaming data", 2017).

        ``Ĥ = S (QᵀS)⁻¹ Sᵀ ≼ H``, S = HQ, for any Q: hence ``λ_i(Ĥ) ≤ λ_i(H) ≤ λ_i(Ĥ) + tr(H − Ĥ)``, and
        ``‖H v − λ v‖ ≤ tr(H − Ĥ)`` for its eigenvectors. A shift by more than the rounding errors of S keeps it so.
        """
        if self.options.standardise:
            raise OptionError("scaled columns take two passes at least", hint="Give passes=3, or do not scale.")
        q = orthonormal(gaussian(self.d, self.width, self.options.seed))
        image = self.image(q, "sketch")
        l = self.width
        error = math.sqrt(l) * (image.row_unit + image.sum_unit + gamma(self.d + l)) * image.raw
        shift = 8 * error + np.finfo(float).tiny
        s = image.s + shift * q
        core = q.T @ s
        factor = np.linalg.cholesky((core + core.T) / 2)
        w, root, _ = np.linalg.svd(np.linalg.solve(factor, s.T).T, full_matrices=False)
        theta, slack = root**2 - shift, 4 * shift
        theta[theta < slack] = 0.0
        lower, upper = np.sqrt(np.maximum(theta - slack, 0.0)), np.sqrt(theta + slack)
        left = max(image.total + image.sum_unit * image.raw - float(theta.sum()), 0.0) + self.d * slack
        with np.errstate(divide="ignore"):
            residual = np.minimum(left / lower, np.sqrt(theta + left))
        total = max(image.total - image.sum_unit * image.raw, 0.0), image.total + image.sum_unit * image.raw
        ritz = Ritz(
            w * signs(w), np.sqrt(theta), lower, upper, residual, np.full(l, np.inf), image.total, total, (0.0, left),
            orthonormality(w), image.row_unit + image.sum_unit,
        )  # fmt: skip
        return Found(ritz, image.mean, self.frame, left, (), estimate=True)


#: Eigenvectors of a Gram matrix beyond those asked for: they carry the enclosures over a cluster at the last one.
EXTRA_PAIRS = 8


def _leading(h: np.ndarray, l: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The l leading eigenvalues, descending, and eigenvectors of a symmetric matrix; and the eigenvalue after them."""
    from scipy.linalg import eigh

    d = len(h)
    first = max(d - l - 1, 0)
    values, w = eigh(h, subset_by_index=[first, d - 1], driver="evr", check_finite=False)
    values, w = values[::-1], w[:, ::-1]
    after = float(values[l]) if len(values) > l else 0.0
    return np.maximum(values[:l], 0.0), np.ascontiguousarray(w[:, :l]), max(after, 0.0)
