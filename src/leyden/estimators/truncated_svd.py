"""Truncated singular value decomposition, with scikit-learn's face."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from leyden import options as check
from leyden.engine.checkpoint import Checkpoint
from leyden.engine.executor import as_executor
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine
from leyden.estimators.base import Decomposition
from leyden.factor.decomposition import SVD
from leyden.factor.frame import look
from leyden.factor.reductions import BlockImage
from leyden.factor.svd import svd
from leyden.rows import Rows
from leyden.rows import open as open_rows


class TruncatedSVD(Decomposition):
    """Leading singular vectors of any number of rows, certified: :func:`leyden.svd` as a scikit-learn transformer.

    Parameters
    ----------
    n_components : int, default 2
        How many; None for as many as the lesser of rows and columns.
    tol, method, passes, memory, threads, checkpoint, progress
        As in :func:`leyden.svd`.
    random_state : int, RandomState, optional
        The seed; by default that of :func:`leyden.svd`.

    Attributes
    ----------
    components_ : ndarray, shape (n_components, n_features)
        Right singular vectors.
    singular_values_ : ndarray, shape (n_components,)
    explained_variance_ : ndarray, shape (n_components,)
        Variance of the scores, of n as scikit-learn has it.
    explained_variance_ratio_ : ndarray, shape (n_components,)
        Relative to the variance of all columns.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features,)
        Where the columns have names.
    certificate_ : Certificate
    solution_ : SVD

    See Also
    --------
    leyden.svd : The function, whose answer is ``solution_``.

    Notes
    -----
    The columns are not centred, so their variances take a pass of their own after the decomposition.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> from scipy.sparse import random_array
    >>> X = random_array((100, 30), density=0.1, rng=0)
    >>> found = ly.TruncatedSVD(n_components=3).fit(X)
    >>> found.transform(X).shape, found.certificate_.holds
    ((100, 3), True)
    """

    def __init__(
        self,
        n_components: int | None = 2,
        *,
        tol: float = 1e-6,
        method: str = "auto",
        passes: int | None = None,
        memory: str | int | None = None,
        threads: int | None = None,
        random_state: Any = None,
        checkpoint: str | os.PathLike | Checkpoint | None = None,
        progress: bool | None = None,
    ):
        self.n_components = n_components
        self.tol = tol
        self.method = method
        self.passes = passes
        self.memory = memory
        self.threads = threads
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.progress = progress

    def _fit(self, X: Any, rank: int) -> None:
        rows = open_rows(X)
        self.solution_ = found = svd(rows, rank, **self._options)
        self.components_, self.singular_values_ = found.Vt, found.s
        self.explained_variance_, total = self._variances(rows, found)
        self.explained_variance_ratio_ = self.explained_variance_ / (total or 1.0)

    def _variances(self, rows: Rows, found: SVD) -> tuple[np.ndarray, float]:
        """Variances of the scores (k,), and of all columns together, in one pass."""
        executor = as_executor(None)
        memory = executor.memory() if self.memory is None else check.memory(self.memory)
        frame = look(rows, centre=True, memory=memory)
        engine = Engine(memory, self.threads, executor=executor, progress=Progress(self.progress))
        reduction = BlockImage(frame, found.Vt.T, rows.shape[0], sparse=rows.is_sparse)
        with single_threaded_blas():
            (image,) = engine.sweep(rows, [reduction], "variances")
        unit2 = frame.unit**2 * rows.shape[0]
        return np.diag(image.m) / unit2, image.total / unit2
