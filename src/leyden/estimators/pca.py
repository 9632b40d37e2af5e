"""Principal component analysis, with scikit-learn's face."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from leyden.engine.checkpoint import Checkpoint
from leyden.estimators.base import Decomposition
from leyden.factor.decomposition import PrincipalComponents
from leyden.factor.svd import pca


class PCA(Decomposition):
    """Principal components of any number of rows, certified: :func:`leyden.pca` as a scikit-learn transformer.

    Parameters
    ----------
    n_components : int, optional
        How many; by default as many as the lesser of rows and columns.
    whiten : bool, default False
        Whether scores have a variance of one. Those of a component without variance are zero.
    scale : bool, default False
        Whether to divide each column by its standard deviation (of n − 1).
    tol, method, passes, memory, threads, checkpoint, progress
        As in :func:`leyden.pca`.
    random_state : int, RandomState, optional
        The seed; by default that of :func:`leyden.pca`.

    Attributes
    ----------
    components_ : ndarray, shape (n_components_, n_features)
    explained_variance_, explained_variance_ratio_ : ndarray, shape (n_components_,)
    singular_values_ : ndarray, shape (n_components_,)
        Of the centred (and scaled) columns.
    mean_ : ndarray, shape (n_features,)
    scale_ : ndarray, shape (n_features,)
        Standard deviation that each column was divided by, or ones.
    noise_variance_ : float
        Mean variance of the components left out.
    n_components_, n_features_in_, n_samples_ : int
    feature_names_in_ : ndarray of str, shape (n_features,)
        Where the columns have names.
    certificate_ : Certificate
    solution_ : PrincipalComponents

    See Also
    --------
    leyden.pca : The function, whose answer is ``solution_``.

    Notes
    -----
    Sparse X is centred implicitly and stays sparse.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> X = np.array([[-1, -1], [-2, -1], [-3, -2], [1, 1], [2, 1], [3, 2]])
    >>> found = ly.PCA(n_components=2).fit(X)
    >>> np.round(found.explained_variance_ratio_, 4).tolist(), found.certificate_.holds
    ([0.9924, 0.0076], True)
    """

    solution_: PrincipalComponents
    _min_samples = 2

    def __init__(
        self,
        n_components: int | None = None,
        *,
        whiten: bool = False,
        scale: bool = False,
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
        self.whiten = whiten
        self.scale = scale
        self.tol = tol
        self.method = method
        self.passes = passes
        self.memory = memory
        self.threads = threads
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.progress = progress

    def _fit(self, X: Any, rank: int) -> None:
        n, d = X.shape
        self.solution_ = found = pca(X, rank, scale=self.scale, **self._options)
        self.components_, self.singular_values_ = found.components, found.s
        self.explained_variance_ = found.explained_variance
        self.explained_variance_ratio_ = found.explained_variance_ratio
        self.mean_, self.scale_ = found.mean, found.scale
        self.n_components_, self.n_samples_ = found.rank, n
        left = max(found.frobenius_norm**2 / (n - 1) - float(self.explained_variance_.sum()), 0.0)
        self.noise_variance_ = left / (min(n, d) - rank) if rank < min(n, d) else 0.0

    @property
    def _stretch(self) -> np.ndarray:
        found = self.solution_
        if not self.whiten:
            return np.ones(found.rank)
        n, d = found.shape
        alive = found.s > max(n, d) * np.finfo(float).eps * found.frobenius_norm
        return np.divide(np.sqrt(n - 1), found.s, where=alive, out=np.zeros(found.rank))

    @property
    def _mean(self) -> np.ndarray:
        return self.solution_.mean

    @property
    def _scale(self) -> np.ndarray:
        return self.solution_.scale
