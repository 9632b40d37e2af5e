"""A fitted kernel machine: predictions, what is known of their errors, and its verification."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Bound, Certificate
from leyden.engine.budget import thread_count
from leyden.engine.executor import as_executor
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine
from leyden.errors import DataError, OptionError
from leyden.kernel import generalisation
from leyden.kernel.distance import distance
from leyden.kernel.features import FeatureMap, Tile, times
from leyden.kernel.inputs import Standard
from leyden.kernel.kernels import Kernel
from leyden.kernel.maps import restore
from leyden.kernel.products import Features, Targets, wide
from leyden.kernel.quality import kernel_error
from leyden.kernel.split import Split
from leyden.kernel.variance import Posterior
from leyden.plan import Plan
from leyden.rows import Rows
from leyden.rows import open as open_rows
from leyden.solution import Solution, Trace

#: Rows that predictions are made for at once, by each thread.
BATCH = 4096

#: How much more than the saved certificate claims the same pass may find.
SLACK = 1.01


class KernelMachine(Solution):
    """``f(x) = offset + z(x)·w``.

    Attributes
    ----------
    w : float64, shape (D, outputs)
    targets : Targets
    standard : Standard
    kernel : Kernel
    map : FeatureMap
    loss : str
    regularization : float
        λ, relative to the number of rows that were fitted.
    columns : tuple of str
    objective : float
    path : float64, shape (p, 4)
        Each λ tried, the error on the rows held out (share of wrong classes, or residual relative to the target), and
        the kernel: the scale of the width, and which of ``widths``.
    scores, truths : float64, shape (m, outputs), or None
        Of the rows held out: f, and Y.
    labels : tuple of str, or None
        What the numbers of a target that is text stand for.
    given : bool
        Whether scales and widths were given, and not taken from the rows.
    posterior : Posterior, or None
        With ``variance=True``: what standard deviations are made of.
    """

    kind = "kernel_machine"

    def __init__(self, **values: Any):
        self.w: np.ndarray
        self.targets: Targets
        self.standard: Standard
        self.kernel: Kernel
        self.map: FeatureMap
        self.loss: str
        self.regularization: float
        self.weight: float
        self.rows: int
        self.columns: tuple[str, ...]
        self.names: tuple[str, ...]
        self.single: bool
        self.split: Split
        self.tol: float
        self.objective: float
        self.path: np.ndarray
        self.scores: np.ndarray | None
        self.truths: np.ndarray | None
        self.labels: tuple[str, ...] | None
        self.given: bool
        self.posterior: Posterior | None
        self.__dict__.update(values)
        self._calibration: generalisation.Calibration | None = None
        extra = generalisation.bounds(self.scores, self.truths, self.targets, len(self.path))
        known = dict(self.certificate.bounds)
        if extra and not set(extra) <= set(known):
            self.certificate = Certificate(
                {**known, **extra}, self.certificate.passes, self.certificate.nbytes, self.certificate.seeds,
                self.certificate.failures,
            )  # fmt: skip

    @property
    def classes(self) -> np.ndarray | None:
        """Labels, if the machine tells classes apart: as they were given."""
        if self.targets.classes is None or self.labels is None:
            return self.targets.classes
        return np.array(self.labels)[self.targets.classes.astype(int)]

    @property
    def features(self) -> int:
        """D."""
        return self.map.size

    # ------------------------------------------------------------ predictions

    def decision_function(self, x: Any, *, threads: int | None = None) -> np.ndarray:
        """Scores f of points.

        Parameters
        ----------
        x : Rows, array, sparse matrix, or path, shape (m, d)
        threads : int, optional

        Returns
        -------
        ndarray of float64, shape (m, outputs)
            One column for two classes, positive for the second.
        """
        return self._of_features(x, self._score, self.w.shape[1], threads)

    def _score(self, z: np.ndarray | Tile) -> np.ndarray:
        """Scores, of features in float64, so that one does not depend on the rows beside it."""
        return times(z, self.w) + self.targets.offset

    def _of_features(
        self, x: Any, function: Callable[[Any], np.ndarray], width: int, threads: int | None
    ) -> np.ndarray:
        """A function of the features of points, ``width`` numbers each, tile by tile."""
        rows = self._points(x)
        out = np.empty((rows.shape[0], width))
        features = Features(self.standard, self.map)

        def fill(first: int) -> None:
            block = rows.read(first, min(first + BATCH, rows.shape[0]))
            for span, z in features.tiles(block):
                out[first + span.start : first + span.stop] = function(wide(z))

        with single_threaded_blas(), ThreadPoolExecutor(threads or thread_count()) as pool:
            list(pool.map(fill, range(0, rows.shape[0], BATCH)))
        return out

    def predict(self, x: Any, *, return_std: bool = False, threads: int | None = None) -> Any:
        """Predicted targets, or labels.

        Parameters
        ----------
        x : Rows, array, sparse matrix, or path, shape (m, d)
        return_std : bool, default False
            Whether to give their standard deviations as well, which ``variance=True`` was to be asked for
            (:mod:`leyden.kernel.variance`): those of f, without the noise of a target, :attr:`noise`.
        threads : int, optional

        Returns
        -------
        ndarray, shape (m,) or (m, k), or two of them
            As the targets were given.
        """
        if return_std:
            known, outputs = self._posterior(), self.w.shape[1]
            both = self._of_features(
                x, lambda z: np.hstack([self._score(z), known.deviation(z)]), 2 * outputs, threads
            )  # fmt: skip
            means, deviations = both[:, :outputs], both[:, outputs:]
            return (means[:, 0], deviations[:, 0]) if self.single else (means, deviations)
        scores = self.decision_function(x, threads=threads)
        if self.classes is None:
            return scores[:, 0] if self.single else scores
        return self.classes[generalisation.labels(scores)]

    @property
    def noise(self) -> np.ndarray:
        """Standard deviation of each target about f, estimated: float64 (outputs,)."""
        return self._posterior().noise

    def _posterior(self) -> Posterior:
        if self.posterior is None:
            raise OptionError("standard deviations were not asked for", hint="Fit with variance=True.")
        return self.posterior

    def predict_proba(self, x: Any, *, threads: int | None = None) -> np.ndarray:
        """Probabilities of the classes, float64 (m, classes): scores calibrated on the rows held out.

        Raises
        ------
        OptionError
            If the machine tells no classes apart, or no rows were held out.
        """
        if self.classes is None:
            raise OptionError("a regression has no probabilities", hint="Fit with classify=True.")
        if self._calibration is None:
            if self.scores is None or self.truths is None or not len(self.scores):
                raise OptionError(
                    "probabilities are calibrated on rows that were held out, and none were",
                    hint="Fit with held_out=0.05, say.",
                )
            self._calibration = generalisation.calibrate(self.scores, self.truths)
        return self._calibration(self.decision_function(x, threads=threads))

    def interval(self, x: Any, *, confidence: float = 0.9, threads: int | None = None) -> np.ndarray:
        """Intervals in which targets lie with a probability, whatever their distribution (split conformal prediction).

        Of rows drawn as those that were fitted: the half-width is a quantile of the residuals of the rows held out
        (Vovk, Gammerman and Shafer 2005; Lei et al. 2018).

        Returns
        -------
        ndarray of float64, shape (m, 2) or (m, k, 2)
        """
        if self.classes is not None:
            raise OptionError("prediction intervals are for regressions")
        if self.scores is None or self.truths is None:
            raise OptionError("prediction intervals rest on rows held out, and none were", hint="Fit with held_out.")
        half = generalisation.conformal(np.abs(self.scores - self.truths), confidence)
        centre = self.decision_function(x, threads=threads)
        found = np.stack([centre - half, centre + half], axis=-1)
        return found[:, 0] if self.single else found

    def error(self, x: Any, y: Any = None, *, threads: int | None = None) -> float:
        """Share of wrong labels, or ``‖f − y‖ / ‖y‖``, of rows whose targets are known.

        Parameters
        ----------
        x : Rows, array, sparse matrix, or path, shape (m, d)
        y : array, shape (m,) or (m, k), optional
            Not needed of rows that carry a target.

        Raises
        ------
        DataError
            Of a label that no fitted row has: whatever is predicted would be wrong.
        """
        rows = open_rows(x, target=y, labels=self.classes is not None)
        if not rows.targets:
            raise OptionError("there is no target to compare with", where=rows.source)
        truth = np.concatenate(
            [
                np.array(rows.read(first, min(first + BATCH, rows.shape[0])).target, np.float64)
                for first in range(0, rows.shape[0], BATCH)
            ]
        )
        if self.classes is not None:
            return float(np.mean(self.predict(rows, threads=threads) != self._known(rows, truth[:, 0])))
        size = float(np.linalg.norm(truth))
        return float(np.linalg.norm(self.decision_function(rows, threads=threads) - truth)) / (size or 1.0)

    def _known(self, rows: Rows, numbers: np.ndarray) -> np.ndarray:
        """Labels by the numbers of a target, if all of them are classes of this machine."""
        classes: Any = self.classes
        if (rows.labels is None) != (self.labels is None):
            found, fitted = ("numbers", "text") if rows.labels is None else ("text", "numbers")
            raise DataError(f"the labels are {found}, and those that were fitted are {fitted}", where=rows.source)
        truth = numbers if rows.labels is None else np.array(rows.labels)[numbers.astype(int)]
        unknown = np.setdiff1d(truth, classes)
        if len(unknown):
            first, count = int(np.argmax(truth == unknown[0])), int(np.isin(truth, unknown).sum())
            label = unknown[0] if rows.labels is not None else f"{unknown[0]:g}"
            raise DataError(
                f"class {label} is none of the {len(classes)} that were fitted ({count:,} rows have such a class)",
                where=rows.locate(first),
                hint="Leave such rows out, or fit a machine that has seen the class.",
            )
        return truth

    def _points(self, x: Any) -> Rows:
        rows = open_rows(x)
        if rows.shape[1] != len(self.columns):
            extra = [name for name in rows.columns if name not in self.columns]
            missing = [name for name in self.columns if name not in rows.columns]
            named = not missing and set(self.columns) <= set(rows.columns)
            if named and extra:
                from leyden.rows import SelectColumns

                return rows.map(SelectColumns(self.columns))
            raise DataError(
                f"there are {rows.shape[1]:,} columns, and the machine was fitted to {len(self.columns):,}",
                where=rows.source,
            )
        return rows

    # ------------------------------------------------------------ what is known

    def features_for(self, error: float) -> int:
        """How many features would bring predictions about so near to those of infinitely many, relatively.

        By the ``D^-½`` of :mod:`leyden.kernel.resampling`, from the bound ``feature_error``.
        """
        known = self.certificate.bounds.get("feature_error")
        if known is None:
            raise OptionError("this machine says nothing of the error of its features")
        if not error > 0:
            raise OptionError(f"error={error} must be a positive number")
        needed = math.ceil(self.features * (known.value / error) ** 2)
        return needed + needed % 2

    def exact_distance(
        self, x: Any, y: Any = None, *, memory: str | int | None = None, threads: int | None = None, seed: int = 0
    ) -> Bound:
        """Distance of the predictions from those of the exact kernel machine (:mod:`leyden.kernel.distance`).

        Parameters
        ----------
        x : Rows, array, sparse matrix, or path, shape (n, d)
            The rows that the machine was fitted to; the distance is over those of them that were not held out.
        y : array, shape (n,) or (n, k), optional
            Not needed of rows that carry a target.
        memory : str or int, optional
        threads, seed : int, optional

        Returns
        -------
        Bound
            Rigorous of 10,000 rows or fewer, whose exact machine is computed; measured of more.
        """
        rows = open_rows(x, target=y, labels=self.labels is not None)
        if not rows.targets:
            raise OptionError("there is no target", where=rows.source)
        budget = as_executor(None).memory() if memory is None else check.memory(memory)
        return distance(self, self._points(rows), budget, threads or thread_count(), seed)

    def kernel_error(self, x: Any, *, pairs: int = 20_000, seed: int = 0) -> Bound:
        """Root mean square of ``z(x)·z(y) − k(x, y)`` over all pairs of rows, for the features that were drawn.

        Bounded from pairs that are drawn independently (:mod:`leyden.kernel.quality`).
        """
        return kernel_error(Features(self.standard, self.map), self.kernel, self._points(x), pairs, seed)

    def verify(
        self,
        rows: Any,
        b: Any = None,
        *,
        weights: Any = None,
        memory: str | int | None = None,
        executor: Any = None,
        progress: bool | None = False,
    ) -> Certificate:
        """The certificate again, from the data: one pass in float64, trusting no sum that was saved.

        The gap is bounded by ``‖∇P‖²/2λ`` and, of the squared loss, by the Hessian of the same sample of rows.
        """
        from leyden.kernel.verification import verified

        opened = open_rows(rows, target=b, weight=weights, labels=self.labels is not None)
        executor = as_executor(executor)
        budget = executor.memory() if memory is None else int(memory) if isinstance(memory, int) else memory
        engine = Engine(check.memory(budget), None, 0, executor, progress=Progress(progress))
        return verified(self, engine, opened)

    # ------------------------------------------------------------ saving

    def _problem(self) -> dict[str, Any]:
        return {
            "map": self.map.to_json(),
            "kernel": self.kernel.to_json(),
            "loss": self.loss,
            "regularization": self.regularization,
            "weight": self.weight,
            "rows": self.rows,
            "columns": list(self.columns),
            "names": list(self.names),
            "single": self.single,
            "held_out": self.split.share,
            "seed": self.split.seed,
            "tol": self.tol,
            "objective": self.objective,
            "given": self.given,
            "labels": self.labels,
            "classify": self.classes is not None,
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "w": self.w, "offset": self.targets.offset, "shift": self.standard.shift, "scale": self.standard.scale,
            "path": self.path, **{f"map_{name}": value for name, value in self.map.arrays().items()},
        }  # fmt: skip
        if self.targets.classes is not None:
            arrays["classes"] = self.targets.classes
        if self.scores is not None and self.truths is not None:
            arrays |= {"held_scores": self.scores, "held_truths": self.truths}
        if self.posterior is not None:
            arrays |= {"factor": self.posterior.factor, "noise": self.posterior.noise}
        return arrays

    @classmethod
    def _restore(
        cls, problem: dict[str, Any], arrays: dict[str, np.ndarray], certificate: Certificate, trace: Trace, plan: Plan
    ) -> KernelMachine:
        own = {name.removeprefix("map_"): value for name, value in arrays.items() if name.startswith("map_")}
        return cls(
            w=arrays["w"],
            targets=Targets(arrays["offset"], arrays.get("classes")),
            standard=Standard(arrays["shift"], arrays["scale"]),
            kernel=Kernel.from_json(problem["kernel"]),
            map=restore(problem["map"], own),
            loss=problem["loss"],
            regularization=problem["regularization"],
            weight=problem["weight"],
            rows=problem["rows"],
            columns=tuple(problem["columns"]),
            names=tuple(problem["names"]),
            single=problem["single"],
            split=Split(problem["held_out"], problem["seed"]),
            tol=problem["tol"],
            objective=problem["objective"],
            given=problem["given"],
            labels=None if problem["labels"] is None else tuple(problem["labels"]),
            posterior=Posterior(arrays["factor"], arrays["noise"]) if "factor" in arrays else None,
            path=arrays["path"],
            scores=arrays.get("held_scores"),
            truths=arrays.get("held_truths"),
            certificate=certificate,
            trace=trace,
            plan=plan,
        )

    def __repr__(self) -> str:
        what = f"{len(self.classes)} classes" if self.classes is not None else f"{self.w.shape[1]} targets"
        return f"<KernelMachine of {what} on {self.features:,} {self.map.name} features of a {self.kernel.name} kernel>"
