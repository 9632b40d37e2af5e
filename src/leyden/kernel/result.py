"""A fitted kernel machine: predictions, what is known of their errors, and its verification."""

from __future__ import annotations

from typing import Any

import numpy as np

from leyden.certificate import Bound, Certificate
from leyden.engine.budget import thread_count
from leyden.engine.executor import as_executor
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine
from leyden.errors import DataError, OptionError
from leyden.kernel import generalisation
from leyden.kernel.features import FeatureMap
from leyden.kernel.inputs import Standard
from leyden.kernel.kernels import Kernel
from leyden.kernel.maps import restore
from leyden.kernel.products import Features, Targets
from leyden.kernel.split import Split
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
    path : float64, shape (p, 2)
        Each λ tried, and the error on the rows held out: share of wrong classes, or residual relative to the target.
    scores, truths : float64, shape (m, outputs), or None
        Of the rows held out: f, and Y.
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
        """Labels, if the machine tells classes apart."""
        return self.targets.classes

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
        rows = self._points(x)
        out = np.empty((rows.shape[0], self.w.shape[1]))
        features = Features(self.standard, self.map)
        from concurrent.futures import ThreadPoolExecutor

        from leyden.engine.local import single_threaded_blas

        def fill(first: int) -> None:
            block = rows.read(first, min(first + BATCH, rows.shape[0]))
            for span, z in features.tiles(block):
                # In float64, so that a score does not depend on the rows beside it.
                out[first + span.start : first + span.stop] = z.astype(np.float64) @ self.w

        with single_threaded_blas(), ThreadPoolExecutor(threads or thread_count()) as pool:
            list(pool.map(fill, range(0, rows.shape[0], BATCH)))
        out += self.targets.offset
        return out

    def predict(self, x: Any, *, threads: int | None = None) -> np.ndarray:
        """Predicted targets, or labels.

        Parameters
        ----------
        x : Rows, array, sparse matrix, or path, shape (m, d)
        threads : int, optional

        Returns
        -------
        ndarray, shape (m,) or (m, k)
            As the targets were given.
        """
        scores = self.decision_function(x, threads=threads)
        if self.classes is None:
            return scores[:, 0] if self.single else scores
        return self.classes[generalisation.labels(scores)]

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
            Not needed of rows that carry a target. A label that was not fitted is wrong whatever is predicted.
        """
        rows = open_rows(x, target=y)
        if not rows.targets:
            raise OptionError("there is no target to compare with", where=rows.source)
        truth = np.concatenate(
            [
                np.array(rows.read(first, min(first + BATCH, rows.shape[0])).target, np.float64)
                for first in range(0, rows.shape[0], BATCH)
            ]
        )
        if self.classes is not None:
            return float(np.mean(self.predict(rows, threads=threads) != truth[:, 0]))
        size = float(np.linalg.norm(truth))
        return float(np.linalg.norm(self.decision_function(rows, threads=threads) - truth)) / (size or 1.0)

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

    def kernel_error(self, x: Any, *, pairs: int = 20_000, seed: int = 0) -> Bound:
        """Root mean square of ``z(x)·z(y) − k(x, y)`` over pairs of points, for the frequencies that were drawn.

        A mean over sampled pairs, with the empirical Bernstein bound of Maurer and Pontil (2009).
        """
        rows = self._points(x)
        random = np.random.default_rng([seed, 5])
        count = min(rows.shape[0], 2000)
        chosen = np.sort(random.choice(rows.shape[0], count, replace=False))
        points = self.standard(_take(rows, chosen))
        first, second = random.integers(0, count, (2, pairs))
        z = self.map(points)
        approximate = np.einsum("ij,ij->i", z[first], z[second], dtype=np.float64)
        exact = np.array(
            [self.kernel(points[i : i + 1], points[j : j + 1])[0, 0] for i, j in zip(first, second, strict=True)]
        )
        square = (approximate - exact) ** 2
        return generalisation.bernstein("kernel_error", square, 4.0)

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

        opened = open_rows(rows, target=b, weight=weights)
        executor = as_executor(executor)
        budget = executor.memory() if memory is None else int(memory) if isinstance(memory, int) else memory
        from leyden import options as check

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
            "classify": self.classes is not None,
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "w": self.w, "offset": self.targets.offset, "shift": self.standard.shift, "scale": self.standard.scale,
            "path": self.path, **{f"map_{name}": value for name, value in self.map.arrays().items()},
        }  # fmt: skip
        if self.classes is not None:
            arrays["classes"] = self.classes
        if self.scores is not None and self.truths is not None:
            arrays |= {"held_scores": self.scores, "held_truths": self.truths}
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


def _take(rows: Rows, numbers: np.ndarray) -> Any:
    """Some rows, dense."""
    parts = []
    for i in numbers.tolist():
        data: Any = rows.read(i, i + 1).data
        parts.append(np.array(data if isinstance(data, np.ndarray) else data.toarray()))
    return np.concatenate(parts)
