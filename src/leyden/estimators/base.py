"""What transformers share: reading X; and decompositions the maps to scores and back, in memory or row by row."""

from __future__ import annotations

import os
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from leyden.errors import DataError, OptionError
from leyden.factor.decomposition import SVD
from leyden.rows import Rows, Scale
from leyden.rows import open as open_rows
from leyden.rows.base import Block, RowMap


class Transformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What transformers share: reading X from wherever it is, and the seed."""

    random_state: Any
    n_features_in_: int

    #: Rows that a fit needs at least.
    _min_samples = 1

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _read(self, X: Any, *, reset: bool) -> Any:
        """X as Rows if it is in files or Rows already; otherwise as scikit-learn checks arrays and sparse matrices."""
        if not is_stream(X):
            least = self._min_samples if reset else 1
            return validate_data(
                self, X, reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32], ensure_min_samples=least
            )
        rows = open_rows(X)
        named = has_names(rows)
        if reset:
            self.n_features_in_ = rows.shape[1]
            self.__dict__.pop("feature_names_in_", None)
            if named:
                self.feature_names_in_ = np.array(rows.columns, dtype=object)
        elif named and tuple(getattr(self, "feature_names_in_", rows.columns)) != rows.columns:
            raise DataError(
                "the columns have other names, or another order, than those that were fitted", where=rows.source
            )
        return rows

    def _seed(self) -> int:
        state = 0 if self.random_state is None else self.random_state
        seed = state if isinstance(state, Integral) else check_random_state(state).randint(np.iinfo(np.int32).max)
        return int(seed)


class Decomposition(Transformer):
    """Rows of a matrix in coordinates ``(X − mean) / scale · components.T · stretch``, and back."""

    solution_: SVD

    def fit(self, X: Any, y: Any = None) -> Any:
        """Find the components of X.

        Parameters
        ----------
        X : array-like, sparse matrix, path or Rows, shape (n_samples, n_features)
            Anything :func:`leyden.open` takes; what is in files may be larger than memory.
        y : Ignored

        Returns
        -------
        self
        """
        X = self._read(X, reset=True)
        self._fit(X, self._rank(*X.shape))
        self.certificate_ = self.solution_.certificate
        return self

    def _fit(self, X: Any, rank: int) -> None:
        raise NotImplementedError

    def transform(self, X: Any) -> Any:
        """Scores: X in the basis of the components.

        Parameters
        ----------
        X : array-like, sparse matrix, path or Rows, shape (n_samples, n_features)

        Returns
        -------
        ndarray or Rows, shape (n_samples, n_components)
            Rows, which are computed when they are read, of a path or Rows.
        """
        check_is_fitted(self)
        X = self._read(X, reset=False)
        if isinstance(X, Rows):
            scores = self.solution_.project(X).map(Scale(scale=self._stretch))
            return open_rows(scores, columns=list(self.get_feature_names_out()))
        return self.solution_.transform(X) * self._stretch

    def inverse_transform(self, X: Any) -> Any:
        """The observations that have these scores.

        Parameters
        ----------
        X : array-like, path or Rows, shape (n_samples, n_components)

        Returns
        -------
        ndarray or Rows, shape (n_samples, n_features)
            Rows, which are computed when they are read, of a path or Rows.
        """
        check_is_fitted(self)
        solution = self.solution_
        back = (1 / np.where(self._stretch > 0, self._stretch, np.inf))[:, None] * solution.Vt * self._scale
        observed = open_rows(X).map(Observe(back, self._mean, self._names))
        return observed if is_stream(X) else observed.read(0, len(observed)).data

    # ------------------------------------------------------------ what an estimator adds to its solution

    @property
    def _stretch(self) -> np.ndarray:
        """What scores are multiplied by, (k,)."""
        return np.ones(self.solution_.rank)

    @property
    def _mean(self) -> np.ndarray:
        return np.zeros(self.n_features_in_)

    @property
    def _scale(self) -> np.ndarray:
        return np.ones(self.n_features_in_)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(getattr(self, "feature_names_in_", self.solution_.columns))

    @property
    def _n_features_out(self) -> int:
        return self.solution_.rank

    # ------------------------------------------------------------ options

    def _rank(self, n: int, d: int) -> int:
        """How many components were asked for; None stands for all."""
        most, asked = min(n, d), self.n_components
        if asked is None:
            return most
        if not isinstance(asked, int | np.integer) or isinstance(asked, bool) or not 1 <= asked <= most:
            raise OptionError(
                f"n_components={asked!r} is not a whole number from 1 to {most:,}, "
                f"the lesser of n_samples={n} and n_features={d}"
            )
        return int(asked)

    @property
    def _options(self) -> dict[str, Any]:
        """The arguments that the functions take by the same names; no ``random_state`` is their default seed."""
        names = ("tol", "method", "passes", "memory", "threads", "checkpoint", "progress")
        return {**{name: getattr(self, name) for name in names}, "seed": self._seed()}


def is_stream(X: Any) -> bool:
    """Whether X is read block by block: in files, or Rows already."""
    return isinstance(X, str | os.PathLike | Rows)


def has_names(rows: Rows) -> bool:
    """Whether columns have names to hold anybody to, and are not only numbered."""
    return rows.columns != tuple(f"x{j}" for j in range(rows.shape[1]))


@dataclass(frozen=True, eq=False)
class Observe(RowMap):
    """Observations ``y W + mean`` of scores y.

    Parameters
    ----------
    w : ndarray, shape (k, d)
    mean : ndarray, shape (d,)
    names : tuple of str
    """

    w: np.ndarray
    mean: np.ndarray
    names: tuple[str, ...]

    def bind(self, rows: Rows) -> Observe:
        if rows.shape[1] != len(self.w):
            raise DataError(f"there are {rows.shape[1]:,} scores for {len(self.w):,} components", where=rows.source)
        return self

    def __call__(self, block: Block) -> Block:
        data: Any = block.data
        return block.with_data(data @ self.w + self.mean)

    def sparse(self, sparse: bool) -> bool:
        return False

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        return self.names

    def dtype(self, dtype: np.dtype) -> np.dtype:
        return np.dtype(np.float64)
