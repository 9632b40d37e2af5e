"""The answers of a decomposition: what they hold, how they are certified, saved, verified."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Bound, Certificate
from leyden.engine.executor import Executor, as_executor
from leyden.engine.local import Local, single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine
from leyden.errors import DataError, OptionError
from leyden.factor.choose import Options
from leyden.factor.enclosure import Ceiling, Enclosure, Ritz, enclose, rayleigh_ritz
from leyden.factor.frame import Frame, power_near
from leyden.factor.left import Place, Project, Write, writing
from leyden.factor.reductions import BlockImage, Image
from leyden.plan import Plan
from leyden.rows import Rows
from leyden.rows import open as open_rows
from leyden.solution import Solution, Trace
from leyden.solve.measure import raise_nonfinite
from leyden.solve.reductions import U, gamma


@dataclass(frozen=True)
class Found:
    """What a method found: Ritz pairs, means of the rows as read, the frame, and what bounds the rest of the spectrum.

    ``estimate`` says that no residual was measured, for the one pass that was allowed.
    """

    ritz: Ritz
    mean: np.ndarray
    frame: Frame
    outside: float
    ceilings: tuple[Ceiling, ...] = ()
    estimate: bool = False


class SVD(Solution):
    """Leading singular triplets of a matrix, ``A ≈ U diag(s) Vt``.

    Attributes
    ----------
    s : ndarray, shape (k,)
        Singular values, descending.
    Vt : ndarray, shape (k, d)
        Right vectors in rows, the largest entry of each positive.
    U : ndarray or Rows, shape (n, k), or None
        Left vectors, if they were asked for: an array, or the rows of the file they were written to. The column of a
        singular value of zero is zero.
    lower, upper : ndarray, shape (k,)
        Certified enclosure of the singular values.
    residual : ndarray, shape (k,)
        Certified bound on ``‖Aᵀu − σv‖``, u being ``A v / σ`` as the certificate computed it; or on ``‖A v‖``, where
        that is less. Another rounding of u, that of ``U`` among them, may add ``u ‖A‖_F² / σ``.
    angle : ndarray, shape (k,)
        Certified bound on the sine of the angle between each row of ``Vt`` and the true vector; 1 where no gap between
        singular values can be shown.
    frobenius_norm : float
        ``‖A‖_F``.
    columns : tuple of str
    certificate, trace, plan
    """

    kind = "svd"
    U: Any = None

    def __init__(
        self,
        *,
        s: np.ndarray,
        vt: np.ndarray,
        enclosure: np.ndarray,
        residual: np.ndarray,
        angle: np.ndarray,
        frobenius_norm: float,
        mean: np.ndarray,
        deviation: np.ndarray,
        columns: tuple[str, ...],
        shape: tuple[int, int],
        options: dict[str, Any],
        certificate: Certificate,
        trace: Trace,
        plan: Plan,
    ):
        self.s, self.Vt, self.columns, self.shape = s, vt, columns, shape
        self.lower, self.upper = enclosure
        self.residual, self.angle, self.frobenius_norm = residual, angle, frobenius_norm
        self.certificate, self.trace, self.plan = certificate, trace, plan
        self._mean, self._deviation, self._options = mean, deviation, options

    # ------------------------------------------------------------ use

    @property
    def rank(self) -> int:
        """How many triplets."""
        return len(self.s)

    def _frame(self) -> Frame:
        """The matrix of the answer, its mean taken off before anything else."""
        unit = power_near(self.frobenius_norm)
        return Frame(self._mean, unit / self._deviation, unit, bool(self._options["centre"]))

    def _project(self, factors: np.ndarray, names: str) -> Project:
        frame = Frame(self._mean, 1 / self._deviation, 1.0, True)
        if self._options["sparse"]:
            frame = Frame(np.zeros_like(self._mean), 1 / self._deviation, 1.0, True)
            return Project(frame, self._mean / self._deviation, self.Vt.T * factors, names)
        return Project(frame, np.zeros_like(self._mean), self.Vt.T * factors, names)

    def left(self, rows: Any) -> Rows:
        """The left vectors of ``rows``, as rows (n, k) that are computed when they are read.

        ``U`` of the whole data without storing it, and the same map for rows that were not part of it.
        """
        return open_rows(rows).map(self._project(self._factors, "u"))

    @property
    def _factors(self) -> np.ndarray:
        """What columns of ``A V`` are multiplied by to be left vectors: zero where σ cannot be told from it."""
        alive = self.s > max(1e-13 * self.frobenius_norm, 1 / np.finfo(float).max)
        return np.where(alive, 1 / np.where(alive, self.s, 1.0), 0.0)

    def project(self, rows: Any) -> Rows:
        """``A V`` of these rows, as rows (m, k) that are computed when they are read."""
        return open_rows(rows).map(self._project(np.ones(self.rank), "score"))

    def transform(self, rows: Any) -> np.ndarray:
        """``A V`` of these rows, (m, k), in memory: rows of the matrix in the basis of the right vectors."""
        return _collected(self.project(rows))

    def write_left(self, engine: Engine, rows: Rows, path: str | os.PathLike | None) -> None:
        """Compute the left vectors of the data (the scores, of principal components) into :attr:`U`."""
        factors = self._factors if self.kind == "svd" else np.ones(self.rank)
        project = self._project(factors, "u")
        n, k = self.shape[0], self.rank
        # No part of this pass is kept: what is in memory, or in a file not yet there, is lost with the process.
        executor = Local() if path is None else engine.executor
        runs = Engine(engine.memory, engine.threads, engine.reserved, executor, None, engine.progress, engine.trace)
        if path is None:
            self.U = np.empty((n, k))
            place = Place(self.U, None)
            (gram,) = runs.sweep(rows, [Write(project, place)], "left vectors")
        else:
            with writing(path, (n, k)) as place:
                (gram,) = runs.sweep(rows, [Write(project, place)], "left vectors")
            self.U = open_rows(os.path.expanduser(path))
        if self.kind == "svd":
            alive = factors > 0
            gram = gram[np.ix_(alive, alive)]
            value = float(np.linalg.norm(gram - np.eye(len(gram))))
            bounds = {
                **self.certificate.bounds,
                "left_orthonormality": Bound(
                    "left_orthonormality", value, "‖UᵀU − I‖_F of the left vectors as written", "measured"
                ),
            }
            c = self.certificate
            self.certificate = Certificate(bounds, c.passes, c.nbytes, c.seeds, c.failures)

    # ------------------------------------------------------------ verify, save

    def verify(
        self,
        rows: Any,
        b: Any = None,
        *,
        weights: Any = None,
        memory: str | int | None = None,
        executor: Executor | None = None,
        progress: bool | None = False,
    ) -> Certificate:
        """Measure the certificate again from the right vectors, by one pass over the data, and left vectors by another.

        Whatever is saved is compared with the data: values, vectors, enclosures, residuals, angles, means, deviations,
        left vectors in memory, and the bounds of the certificate.
        """
        if b is not None or weights is not None:
            raise OptionError(f"a solution of {self.kind} has no targets and no weights")
        runs, shown = as_executor(executor), Progress(check.progress(progress))
        budget = runs.memory() if memory is None else check.memory(memory)
        rows = open_rows(rows)
        if rows.shape != self.shape:
            was, is_ = ("{:,} × {:,}".format(*shape) for shape in (self.shape, rows.shape))
            return Certificate({}, failures=(f"the data is {is_}; the solution is of {was}",))
        engine = Engine(budget, None, 8 * 6 * self.Vt.size, runs, progress=shown)
        frame = self._frame()
        if rows.is_sparse:
            frame = Frame(np.zeros_like(frame.shift), frame.scale, frame.unit, frame.centre)
        w = np.ascontiguousarray(self.Vt.T)
        with single_threaded_blas():
            reduction = BlockImage(frame, w, rows.shape[0], sparse=rows.is_sparse, remainder=True)
            (image,) = engine.sweep(rows, [reduction], "verify")
            if not (np.isfinite(image.s).all() and np.isfinite(image.raw)):
                raise_nonfinite(rows)
            ritz = rayleigh_ritz(w, image)
        found = enclose(ritz, self.rank)
        bounds = _bounds(ritz, found, self.rank, frame.unit, self._tolerance)
        failures = [
            *self._false_vectors(ritz, image, frame.unit),
            *self._false_enclosures(ritz, found, image, frame.unit),
            *self._false_columns(image, frame, rows.is_sparse),
            *self._false_claims(bounds),
            *self._false_left(rows),
        ]
        if self.columns != rows.columns:
            failures.append("the columns have other names than those that were factored")
        return Certificate(bounds, 1 + isinstance(self.U, np.ndarray), rows.stored_nbytes, failures=tuple(failures))

    @property
    def _tolerance(self) -> float | None:
        return None if self._options["estimate"] else self._options["tol"]

    # Whatever is compared is compared so that a NaN fails.

    def _false_vectors(self, ritz: Ritz, image: Image, unit: float) -> Iterator[str]:
        """What is wrong with the triplets: their own residuals count, not those of Ritz vectors of their span."""
        s, lower, v = self.s * unit, self.lower * unit, self.Vt.T
        raw = math.sqrt(image.raw)
        residual = np.linalg.norm(image.s - v * s**2, axis=0) - image.sum_unit * raw * image.lengths
        residual -= image.row_unit * image.raw
        with np.errstate(divide="ignore", invalid="ignore"):
            triplet = np.where(s > 0, residual / s, 0.0)
        triplet = np.minimum(triplet, np.sqrt(np.maximum(np.diag(image.m), 0.0)))
        if not ritz.orthonormality <= 1e-10:
            yield "the right vectors are not orthonormal"
        if not (triplet <= 1.1 * self.residual * unit + 4 * ritz.rounding * raw).all():
            yield "a triplet is claimed to be more precise than the data says"
        # The gaps of the saved enclosures, and that to zero of the last.
        above, below = np.append(np.inf, lower[:-1]), np.append(self.upper[1:], 0.0) * unit
        gap = np.minimum(above**2 - s**2, s**2 - below**2)
        needed = np.where(gap > 0, residual / np.where(gap > 0, gap, 1.0), 1.0)
        if not (np.minimum(needed, 1.0) <= 1.1 * self.angle + 1e-12).all():
            yield "an angle is claimed to be smaller than the data says"
        if self._options["estimate"]:
            return
        error = 4 * math.sqrt(len(s)) * (ritz.rounding + gamma(4 * len(s))) * raw
        known = 2 * np.maximum(s**2 - lower**2, 0.0)
        allowed = 1e-9 * np.outer(s, s) + error * np.add.outer(s, s) + np.maximum.outer(known, known) + error**2
        allowed += image.sum_unit * np.outer(image.lengths, image.lengths)
        allowed[np.logical_or.outer(lower <= 0, lower <= 0)] = np.inf
        np.fill_diagonal(allowed, np.inf)
        if not (np.abs(image.m) <= allowed).all():
            yield "the right vectors are not in their places"

    def _false_enclosures(self, ritz: Ritz, found: Enclosure, image: Image, unit: float) -> Iterator[str]:
        s, lower, upper = self.s * unit, self.lower * unit, self.upper * unit
        near, norm = 1 + 1e-12, math.sqrt(ritz.frobenius2)
        # A value whose lower bound is zero is not told from it.
        told = (lower > 0) & (not self._options["estimate"])
        known = np.where(told, np.maximum(ritz.sigma - lower, 0.0), upper - lower)
        slack = 1e-12 * norm + 1e-9 * ritz.sigma + 2 * (ritz.upper - ritz.lower) + known
        if not (np.abs(ritz.sigma - s) <= slack).all():
            yield "the singular values are not those of the data on these vectors"
        inside = (lower <= s * near) & (s <= upper * near)
        if not (inside & (found.lower <= upper * near) & (lower <= ritz.upper * near)).all():
            yield "an enclosure does not agree with the data"
        slack = 1e-9 * norm**2 + 2 * image.sum_unit * image.raw
        if not abs(ritz.frobenius2 - (self.frobenius_norm * unit) ** 2) <= slack:
            yield "the saved norm is not that of the data"

    def _false_columns(self, image: Image, frame: Frame, sparse: bool) -> Iterator[str]:
        """What is wrong with means and deviations."""
        centre, standardise = (bool(self._options[name]) for name in ("centre", "standardise"))
        if centre != (self.kind == "pca") or (standardise and not centre):
            yield f"the columns of a solution of {self.kind} are treated in another way"
        if not centre and self._mean.any():
            yield "means are saved that were not taken off"
        if not standardise and not (self._deviation == 1).all():
            yield "deviations are saved that columns were not divided by"
        n = self.shape[0]
        if centre:
            mean = image.mean / frame.scale
            raw = np.sqrt(image.squares / n + image.mean**2) / frame.scale
            drift = np.abs(mean - self._mean if sparse else mean)
            slack = 16 * U * np.abs(self._mean) + (1e-9 * np.sqrt(image.squares / n) / frame.scale)
            if not (drift <= slack + 4 * image.sum_unit * raw).all():
                yield "the saved means are not those of the data"
        if standardise:
            squares = image.squares / frame.unit**2
            slack = 1e-9 + 4 * image.sum_unit * (squares + n * (image.mean / frame.unit) ** 2)
            if not (np.abs(squares / (n - 1) - 1) <= slack).all():
                yield "the saved deviations are not those of the data"

    def _false_claims(self, found: dict[str, Bound]) -> Iterator[str]:
        """What the saved certificate says that its own arrays, or the data, contradict."""
        top, saved = float(self.lower[0]), self.certificate.bounds
        least = {
            "residual": _relative(float(self.residual.max()), top),
            "singular_values": _relative(float((self.upper - self.lower).max()), top),
            "frobenius_error": found["frobenius_error"].lower or 0.0,
            "spectral_error": found["spectral_error"].lower or 0.0,
            "orthonormality": found["orthonormality"].value / 1.1,
        }
        # A matrix of some rank is no shorter in the spectral norm than this share of its Frobenius norm.
        rank = max(min(self.shape) - self.rank, 1)
        flat = least["frobenius_error"] * self.frobenius_norm / math.sqrt(rank) * (1 - 1e-9)
        least["spectral_error"] = max(least["spectral_error"], _relative(flat, top) if top > 0 else 0.0)
        for name, value in least.items():
            bound = saved.get(name)
            if bound is None:
                yield f"{name}: the solution does not say"
            elif not value <= bound.value * (1 + 1e-9) + 1e-14 or bound.tolerance != found[name].tolerance:
                yield f"{name}: the solution claims {bound.value:.2e}, the data says {found[name].value:.2e}"
            elif not (bound.lower or 0.0) <= found[name].value * (1 + 1e-9) + 1e-14:
                yield f"{name}: the solution claims at least {bound.lower:.2e}, the data says {found[name].value:.2e}"

    def _false_left(self, rows: Rows) -> Iterator[str]:
        """What is wrong with left vectors or scores in memory, which are made again."""
        if not isinstance(self.U, np.ndarray):
            return
        vectors = self.left(rows) if self.kind == "svd" else self.project(rows)
        size = self.frobenius_norm + float(np.linalg.norm(self._mean / self._deviation))
        factors = self._factors if self.kind == "svd" else np.ones(self.rank)
        allowed = 8 * gamma(self.shape[1] + 8) * size * factors
        for start, made in _parts(vectors):
            if not (np.abs(made - self.U[start : start + len(made)]) <= allowed).all():
                yield "the left vectors are not those of the data"
                return
        claimed = self.certificate.bounds.get("left_orthonormality")
        if claimed is not None:
            alive = self.U[:, factors > 0]
            measured = float(np.linalg.norm(alive.T @ alive - np.eye(alive.shape[1])))
            if not measured <= claimed.value * (1 + 1e-6) + gamma(self.shape[0]) * self.rank:
                yield f"left_orthonormality: the solution claims {claimed.value:.2e}, the data says {measured:.2e}"

    def _problem(self) -> dict[str, Any]:
        return {
            "columns": list(self.columns),
            "shape": list(self.shape),
            "frobenius_norm": self.frobenius_norm,
            "options": self._options,
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "s": self.s,
            "Vt": self.Vt,
            "enclosure": np.array([self.lower, self.upper]),
            "residual": self.residual,
            "angle": self.angle,
            "mean": self._mean,
            "deviation": self._deviation,
        }
        if isinstance(self.U, np.ndarray):
            arrays["U"] = self.U
        return arrays

    @classmethod
    def _restore(
        cls, problem: dict[str, Any], arrays: dict[str, np.ndarray], certificate: Certificate, trace: Trace, plan: Plan
    ) -> SVD:
        n, d = (int(length) for length in problem["shape"])
        k = len(arrays["s"])
        expected = {
            "s": (k,), "Vt": (k, d), "enclosure": (2, k), "residual": (k,), "angle": (k,), "mean": (d,),
            "deviation": (d,), "U": (n, k),
        }  # fmt: skip
        for name, array in arrays.items():
            if array.dtype != np.float64 or array.shape != expected[name]:
                raise ValueError(f"{name}.npy is not an array of float64 of shape {expected[name]}")
            if name in ("s", "Vt", "mean", "deviation") and not np.isfinite(array).all():
                raise ValueError(f"{name}.npy holds values that are not finite")
            if np.isnan(array).any():
                raise ValueError(f"{name}.npy holds values that are no numbers")
        if not (arrays["deviation"] > 0).all():
            raise ValueError("deviation.npy holds values that are not positive")
        if not 0 <= float(problem["frobenius_norm"]) < math.inf:
            raise ValueError("the norm is not a number")
        left = arrays.pop("U", None)
        found = cls(
            s=arrays["s"],
            vt=arrays["Vt"],
            enclosure=arrays["enclosure"],
            residual=arrays["residual"],
            angle=arrays["angle"],
            frobenius_norm=float(problem["frobenius_norm"]),
            mean=arrays["mean"],
            deviation=arrays["deviation"],
            columns=tuple(problem["columns"]),
            shape=(n, d),
            options=dict(problem["options"]),
            certificate=certificate,
            trace=trace,
            plan=plan,
        )
        found.U = left
        return found

    def _title(self) -> str:
        return "singular value decomposition"

    def __str__(self) -> str:
        n, d = self.shape
        lines = [f"{self._title()}, {n:,} × {d:,}, rank {self.rank}"]
        lines += [
            f"σ{i + 1:<4} {self.s[i]:.9g}  in [{self.lower[i]:.9g}, {self.upper[i]:.9g}]"
            for i in range(min(self.rank, 5))
        ]
        if self.rank > 5:
            lines.append("…")
        return "\n".join([*lines, str(self.certificate), str(self.trace)])


class PrincipalComponents(SVD):
    """Principal components of observations in rows.

    The decomposition ``B ≈ U diag(s) Vt`` of the centred columns, with what statisticians call its parts. Attributes
    are those of :class:`SVD` (``U`` holds the scores ``B V`` if they were asked for), and

    Attributes
    ----------
    components : ndarray, shape (k, d)
        ``Vt``.
    explained_variance : ndarray, shape (k,)
        ``s² / (n − 1)``.
    explained_variance_ratio : ndarray, shape (k,)
        Shares of the variance of all columns.
    mean : ndarray, shape (d,)
    scale : ndarray, shape (d,)
        Standard deviation that each column was divided by, or ones.
    """

    kind = "pca"

    @property
    def components(self) -> np.ndarray:
        return self.Vt

    @property
    def mean(self) -> np.ndarray:
        return self._mean

    @property
    def scale(self) -> np.ndarray:
        return self._deviation

    @property
    def explained_variance(self) -> np.ndarray:
        return self.s**2 / (self.shape[0] - 1)

    @property
    def explained_variance_ratio(self) -> np.ndarray:
        if self.frobenius_norm == 0:
            return np.zeros(self.rank)
        return (self.s / self.frobenius_norm) ** 2

    def inverse_transform(self, scores: np.ndarray) -> np.ndarray:
        """Observations (m, d) that have these scores (m, k)."""
        return np.asarray(scores) @ self.Vt * self._deviation + self._mean

    def _title(self) -> str:
        return "principal components" + (" of scaled columns" if self._options["standardise"] else "")


def certify(found: Found, rows: Rows, options: Options, engine: Engine, plan: Plan) -> SVD:
    """The answer with its certificate, in the units of the data."""
    k, unit, frame = options.rank, found.frame.unit, found.frame
    ritz = found.ritz
    norm = 1.01 * math.sqrt(ritz.frobenius2) / unit
    if math.isinf(norm) or 0 < norm < 1e-300:
        what = "small that their norm underflows" if norm < 1 else "large that their norm overflows"
        raise DataError(f"values are so {what}", where=rows.source, hint="Rescale the data.")
    enclosure = enclose(ritz, k, found.outside, found.ceilings)
    bounds = _bounds(ritz, enclosure, k, unit, None if found.estimate else options.tol)
    seeds = {} if plan.method in ("gram", "outer") else {"start": options.seed}
    certificate = Certificate(bounds, 1, rows.stored_nbytes, seeds)
    engine.trace.remarks += [
        f"{bound.name} stayed at {bound.value:.1e}, above the {bound.tolerance:.0e} asked for"
        for bound in bounds.values()
        if not bound.holds
    ]
    kind = PrincipalComponents if options.centre else SVD
    return kind(
        s=ritz.sigma[:k] / unit,
        vt=np.ascontiguousarray(ritz.w[:, :k].T),
        enclosure=np.array([enclosure.lower, enclosure.upper]) / unit,
        residual=ritz.residual[:k] / unit,
        angle=enclosure.angle,
        frobenius_norm=math.sqrt(ritz.frobenius2) / unit,
        mean=frame.shift + found.mean / frame.scale if options.centre else np.zeros(frame.d),
        deviation=unit / frame.scale,
        columns=rows.columns,
        shape=rows.shape,
        options={
            "centre": options.centre,
            "standardise": options.standardise,
            "tol": options.tol,
            "estimate": found.estimate,
            "sparse": rows.is_sparse,
        },
        certificate=certificate,
        trace=engine.trace,
        plan=plan,
    )


def _relative(value: float, to: float) -> float:
    return value / to if to > 0 else 0.0 if value == 0 else math.inf


def _bounds(ritz: Ritz, enclosure: Enclosure, k: int, unit: float, tol: float | None) -> dict[str, Bound]:
    top = float(ritz.lower[0])
    norm = math.sqrt(ritz.within2[0]), math.sqrt(ritz.within2[1])

    residual = _relative(float(ritz.residual[:k].max()), top)
    width = _relative(float((enclosure.upper - enclosure.lower).max()), top)
    left2 = ritz.left2[1] + float((ritz.upper[k:] ** 2).sum())
    left2_low = ritz.left2[0] + float((ritz.lower[k:] ** 2).sum())
    sure = enclosure.confidence
    found = [
        Bound("residual", residual, "the largest ‖Aᵀu − σv‖ of a triplet, relative to σ_1", "rigorous", tol),
        Bound(
            "singular_values", width, "the longest enclosure of a singular value, relative to σ_1",
            "rigorous" if sure == 1 else "probabilistic", None, sure,
        ),
        Bound(
            "frobenius_error", _relative(math.sqrt(left2), norm[0]), "‖A − UΣVᵀ‖_F relative to ‖A‖_F", "rigorous",
            lower=_relative(math.sqrt(left2_low), norm[1]),
        ),
        Bound(
            "spectral_error", _relative(enclosure.spectral[1], top), "‖A − UΣVᵀ‖₂ relative to σ_1",
            "rigorous" if sure == 1 else "probabilistic", None, sure,
            lower=_relative(enclosure.spectral[0], float(enclosure.upper[0])),
        ),
        Bound("orthonormality", ritz.orthonormality, "‖VᵀV − I‖₂", "rigorous"),
        Bound("rounding", ritz.rounding, "rounding of AᵀAv in the certificate, relative to ‖A‖_F²", "rigorous"),
    ]  # fmt: skip
    return {bound.name: bound for bound in found}


def _parts(rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
    """All of some rows, a part at a time: where it starts, and what it is."""
    n, step = rows.shape[0], max(1, int(2**25 / max(rows.row_nbytes, 1)))
    buffer = rows.buffer(min(step, n))
    for start in range(0, n, step):
        data: Any = rows.read(start, min(start + step, n), buffer).data
        yield start, data
    rows.release()


def _collected(rows: Rows) -> np.ndarray:
    """All of some rows, in memory."""
    out = np.empty(rows.shape)
    for start, part in _parts(rows):
        out[start : start + len(part)] = part
    return out
