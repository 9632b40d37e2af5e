"""Kernel machines on random features, with scikit-learn's face."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from leyden.engine.checkpoint import Checkpoint
from leyden.errors import DataError
from leyden.kernel import generalisation
from leyden.kernel.machine import kernel_machine
from leyden.kernel.result import KernelMachine
from leyden.rows import Rows
from leyden.rows import open as open_rows


class _Machine(BaseEstimator):
    """What the estimators share: reading, and the call of :func:`leyden.kernel_machine`."""

    solution_: KernelMachine

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _solve(self, X: Any, y: Any, **options: Any) -> None:
        names = (
            "features", "kernel", "degree", "constant", "width", "scale", "map", "standardize", "held_out", "tol",
            "method", "memory", "threads", "checkpoint", "progress",
        )  # fmt: skip
        given = {name: getattr(self, name) for name in names} | options
        self._keep(kernel_machine(X, y, **given, seed=self._seed()))

    def _keep(self, solution: KernelMachine) -> None:
        self.solution_ = solution
        self.certificate_ = solution.certificate
        self.n_features_in_ = len(solution.columns)

    def _seed(self) -> int:
        state = 0 if self.random_state is None else self.random_state
        seed = state if isinstance(state, Integral) else check_random_state(state).randint(np.iinfo(np.int32).max)
        return int(seed)

    def _fitting(self, X: Any, y: Any, **checks: Any) -> tuple[Any, Any]:
        """X and y as scikit-learn checks arrays; X as Rows if it is a path or Rows, which may carry the target."""
        if not isinstance(X, str | os.PathLike | Rows):
            return validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], **checks)
        rows = open_rows(X, target=y, labels=isinstance(self, ClassifierMixin))
        if not rows.targets:
            raise DataError("there is no target", where=rows.source, hint="Give y, or open the rows with target=.")
        return rows, None

    def _points(self, X: Any) -> Any:
        check_is_fitted(self)
        if isinstance(X, str | os.PathLike | Rows):
            return X
        return validate_data(self, X, reset=False, accept_sparse="csr", dtype=[np.float64, np.float32])


class KernelRidge(RegressorMixin, _Machine):
    """Kernel ridge regression at linear cost, certified: :func:`leyden.kernel_machine` as a scikit-learn regressor.

    Minimises ``½ Σ (f(x_i) − y_i)² + ½ λ n ‖f‖²`` over functions of D random features.

    Parameters
    ----------
    features : int or "exact", optional
        Random features, D (2000 by default), or grids of bins (50); or the kernel itself, of rows that fit in memory
        (:mod:`leyden.kernel.exact`).
    kernel, degree, constant, width, scale, map, regularization, standardize, variance
        As in :func:`leyden.kernel_machine`.
    tol, method, memory, threads, checkpoint, progress
        As in :func:`leyden.kernel_machine`.
    held_out : float, default 0
        Share of the rows that prediction intervals rest on, and that are not fitted.
    random_state : int, RandomState, optional

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features,)
        Where the columns have names.
    regularization_ : float
        λ, relative to the number of rows.
    certificate_ : Certificate
    solution_ : KernelMachine

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-2, 2, (1000, 2))
    >>> y = np.sin(3 * X[:, 0]) * X[:, 1]
    >>> found = ly.KernelRidge(features=400, width=0.5).fit(X, y)
    >>> bool(found.score(X, y) > 0.99), found.certificate_.holds
    (True, True)
    """

    def __init__(
        self,
        features: int | str | None = None,
        *,
        kernel: str = "gaussian",
        degree: int = 3,
        constant: float = 1.0,
        width: Any = "median",
        scale: float | Sequence[float] = 1.0,
        map: str = "auto",
        regularization: float = 1e-6,
        standardize: bool = True,
        held_out: float = 0.0,
        variance: bool = False,
        tol: float = 1e-2,
        method: str = "auto",
        memory: str | int | None = None,
        threads: int | None = None,
        random_state: Any = None,
        checkpoint: str | os.PathLike | Checkpoint | None = None,
        progress: bool | None = None,
    ):
        self.features = features
        self.variance = variance
        self.kernel = kernel
        self.degree = degree
        self.constant = constant
        self.width = width
        self.scale = scale
        self.map = map
        self.regularization = regularization
        self.standardize = standardize
        self.held_out = held_out
        self.tol = tol
        self.method = method
        self.memory = memory
        self.threads = threads
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.progress = progress

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KernelRidge:
        """Fit the regression.

        Parameters
        ----------
        X : array-like, sparse matrix, path or Rows, shape (n_samples, n_features)
            What is in files may be larger than memory.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs), or column name
            Not needed of Rows that carry a target.
        sample_weight : array-like, shape (n_samples,), optional

        Returns
        -------
        self
        """
        X, y = self._fitting(X, y, multi_output=True, y_numeric=True)
        self._solve(X, y, **self._penalties(), variance=self.variance, weights=sample_weight)
        self.regularization_ = self.solution_.regularization
        return self

    def _penalties(self) -> dict[str, Any]:
        return {"regularization": self.regularization}

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predicted targets, float64 (n_samples,) or (n_samples, n_outputs); with ``return_std`` their standard
        deviations as well, which rest on ``variance=True`` (:meth:`leyden.KernelMachine.predict`)."""
        X = self._points(X)
        return self.solution_.predict(X, return_std=return_std, threads=self.threads)

    def interval(self, X: Any, confidence: float = 0.9) -> np.ndarray:
        """Prediction intervals, (n_samples, 2); see :meth:`leyden.KernelMachine.interval`."""
        X = self._points(X)
        return self.solution_.interval(X, confidence=confidence, threads=self.threads)


class KernelRidgeCV(KernelRidge):
    """Kernel ridge regression whose width and penalty are chosen by cross-validation, exactly and from one pass.

    Widths and scales share it as far as there is memory for their Gram matrices.

    Parameters
    ----------
    features : int, default 2000
    regularizations : sequence of float
        The λ to choose from.
    folds : int, default 5
        The Gram matrix of each fold is kept, of D² numbers.
    widths : sequence, optional
        Of widths to choose from as well, each as ``width`` is given; in place of it.
    kernel, degree, constant, width, scale, map, standardize, held_out, variance
        As in :class:`KernelRidge`.
    tol, memory, threads, random_state, checkpoint, progress
        As in :class:`KernelRidge`.

    Attributes
    ----------
    regularization_ : float
        The λ chosen.
    width_ : float or ndarray, shape (n_features,)
        The width chosen, in units of the standardised columns.
    path_ : ndarray, shape (n_regularizations, 2)
        Each λ and its cross-validated squared error, relative to the variance, with that width and scale.
    errors_ : ndarray, shape (n_widths * n_scales, n_regularizations)
        The error of each width at each scale with each λ, in the order of ``path_``.
    certificate_, solution_
        As of :class:`KernelRidge`.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-2, 2, (1000, 1))
    >>> y = np.sin(3 * X[:, 0]) + 0.3 * rng.standard_normal(1000)
    >>> found = ly.KernelRidgeCV(features=200, width=0.5, regularizations=[1e-4, 1e-1, 10.0]).fit(X, y)
    >>> found.regularization_
    0.0001
    """

    def __init__(
        self,
        features: int | None = None,
        *,
        regularizations: Sequence[float] = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
        folds: int = 5,
        widths: Sequence[Any] | None = None,
        kernel: str = "gaussian",
        degree: int = 3,
        constant: float = 1.0,
        width: Any = "median",
        scale: float | Sequence[float] = 1.0,
        map: str = "auto",
        standardize: bool = True,
        held_out: float = 0.0,
        variance: bool = False,
        tol: float = 1e-2,
        memory: str | int | None = None,
        threads: int | None = None,
        random_state: Any = None,
        checkpoint: str | os.PathLike | Checkpoint | None = None,
        progress: bool | None = None,
    ):
        self.features = features
        self.variance = variance
        self.regularizations = regularizations
        self.folds = folds
        self.widths = widths
        self.kernel = kernel
        self.degree = degree
        self.constant = constant
        self.width = width
        self.scale = scale
        self.map = map
        self.standardize = standardize
        self.held_out = held_out
        self.tol = tol
        self.memory = memory
        self.threads = threads
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.progress = progress

    method = "gram"

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KernelRidgeCV:
        """Fit the regression with the width and the penalty that predict best; arguments as of :class:`KernelRidge`.

        The Gram matrices of the folds of one width or scale take one pass, whatever the penalties, and share it with
        those of others as far as there is memory.
        """
        X, y = self._fitting(X, y, multi_output=True, y_numeric=True)
        self._solve(
            X, y, **self._penalties(), widths=self.widths, variance=self.variance, weights=sample_weight
        )  # fmt: skip
        found = self.solution_
        self.errors_ = found.path[:, 1].reshape(-1, len(np.unique(found.path[:, 0])))
        self.width_ = found.kernel.width
        self.regularization_ = found.regularization
        return self

    def _penalties(self) -> dict[str, Any]:
        return {"regularization": self.regularizations, "folds": self.folds}

    @property
    def path_(self) -> np.ndarray:
        check_is_fitted(self)
        path = self.solution_.path
        chosen = int(path[:, 1].argmin()) // self.errors_.shape[1]
        return path.reshape(-1, self.errors_.shape[1], 4)[chosen, :, :2]


class KernelClassifier(ClassifierMixin, _Machine):
    """Kernel classification at linear cost, certified: one machine a class against the rest.

    Parameters
    ----------
    features : int, optional
        Random features, D (2000 by default), or grids of bins (50).
    loss : {"squared", "logistic", "squared_hinge"}
    kernel, degree, constant, width, scale, map, regularization, standardize
        As in :func:`leyden.kernel_machine`.
    tol, method, memory, threads, checkpoint, progress
        As in :func:`leyden.kernel_machine`.
    held_out : float, default 0
        Share of the rows that is not fitted: probabilities are calibrated on it, and the error is bounded by it. With
        none, probabilities are calibrated on the rows that were fitted, and are too sure of themselves.
    random_state : int, RandomState, optional

    Attributes
    ----------
    classes_ : ndarray
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features,)
        Where the columns have names.
    certificate_ : Certificate
    solution_ : KernelMachine

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((2000, 2))
    >>> y = np.where((X**2).sum(axis=1) < 1.4, "near", "far")
    >>> found = ly.KernelClassifier(features=200, held_out=0.1).fit(X, y)
    >>> found.predict([[0.0, 0.0], [2.0, 2.0]]).tolist(), found.certificate_.holds
    (['near', 'far'], True)
    """

    def __init__(
        self,
        features: int | None = None,
        *,
        loss: str = "squared",
        kernel: str = "gaussian",
        degree: int = 3,
        constant: float = 1.0,
        width: Any = "median",
        scale: float | Sequence[float] = 1.0,
        map: str = "auto",
        regularization: float | Sequence[float] = 1e-6,
        standardize: bool = True,
        held_out: float = 0.0,
        tol: float = 1e-2,
        method: str = "auto",
        memory: str | int | None = None,
        threads: int | None = None,
        random_state: Any = None,
        checkpoint: str | os.PathLike | Checkpoint | None = None,
        progress: bool | None = None,
    ):
        self.features = features
        self.loss = loss
        self.kernel = kernel
        self.degree = degree
        self.constant = constant
        self.width = width
        self.scale = scale
        self.map = map
        self.regularization = regularization
        self.standardize = standardize
        self.held_out = held_out
        self.tol = tol
        self.method = method
        self.memory = memory
        self.threads = threads
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.progress = progress

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KernelClassifier:
        """Fit the machines.

        Parameters
        ----------
        X : array-like, sparse matrix, path or Rows, shape (n_samples, n_features)
        y : array-like, shape (n_samples,), or column name
            Labels of any type; in files, numbers or text.
        sample_weight : array-like, shape (n_samples,), optional

        Returns
        -------
        self
        """
        X, y = self._fitting(X, y)
        labels, codes = None, None
        if y is not None:
            check_classification_targets(y)
            labels, codes = np.unique(y, return_inverse=True)
            if len(labels) < 2:
                raise DataError(f"the target has one class only, {labels[0]}: there is nothing to tell apart")
        self._solve(X, codes, classify=True, loss=self.loss, regularization=self.regularization, weights=sample_weight)
        found = self.solution_
        self.classes_: Any = found.classes if labels is None else labels[np.asarray(found.classes, int)]
        self.calibration_ = None
        if codes is not None and (found.scores is None or not len(found.scores)):
            columns = np.arange(found.targets.outputs) + (found.targets.outputs == 1)
            truths = np.where(codes[:, None] == columns, 1.0, -1.0)
            self.calibration_ = generalisation.calibrate(found.decision_function(X, threads=self.threads), truths)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores, float64 (n_samples,) for two classes and (n_samples, n_classes) for more."""
        X = self._points(X)
        scores = self.solution_.decision_function(X, threads=self.threads)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Predicted labels, (n_samples,)."""
        X = self._points(X)
        return self.classes_[generalisation.labels(self.solution_.decision_function(X, threads=self.threads))]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Calibrated probabilities, float64 (n_samples, n_classes)."""
        X = self._points(X)
        if self.calibration_ is None:
            return self.solution_.predict_proba(X, threads=self.threads)
        return self.calibration_(self.solution_.decision_function(X, threads=self.threads))
