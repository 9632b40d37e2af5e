"""Random features, with scikit-learn's face."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted

from leyden import options as check
from leyden.certificate import Bound
from leyden.engine.budget import thread_count
from leyden.engine.executor import as_executor
from leyden.engine.sweep import Engine
from leyden.errors import DataError, OptionError
from leyden.estimators.base import Transformer, has_names, is_stream
from leyden.kernel.expansion import Expand, draw, expanded
from leyden.kernel.features import FeatureMap
from leyden.kernel.inputs import as_width
from leyden.kernel.kernels import NAMES, Kernel
from leyden.kernel.machine import FEATURES, GRIDS, MAX_FEATURES
from leyden.kernel.quality import kernel_error
from leyden.rows import Rows, SelectColumns
from leyden.rows import open as open_rows


class RandomFeatures(Transformer):
    """Features ``z(x)`` whose inner products are a kernel, on average over their draw, as a scikit-learn transformer.

    What is linear in them is a kernel method: any linear model, principal components, k-means.

    Parameters
    ----------
    features : int, optional
        D (2000 by default), or of random bins (``map="binning"``) the number of grids (50).
    kernel : {"gaussian", "laplacian", "matern12", "matern32", "matern52", "cauchy"}
        See :mod:`leyden.kernel.kernels`.
    width : "median", float, or array of shape (n_features_in_,)
        How far apart points are alike, in units of the standardised columns: the median distance of pairs, one for all
        columns, or one for each.
    map : str, default "auto"
        How features are drawn: see :mod:`leyden.kernel.maps`.
    standardize : bool, default True
        Whether columns are brought to mean zero (unless sparse) and variance one first.
    random_state : int, RandomState, optional
    threads : int, optional
        All processors by default. The features have the same bits whatever their number.

    Attributes
    ----------
    width_ : float or ndarray, shape (n_features_in_,)
    map_ : FeatureMap
        What was drawn, of standardised points: its ``name``, ``size`` and ``bound`` on the length of z
        (:mod:`leyden.kernel.features`).
    kernel_ : Kernel
        What its inner products are about, of standardised points.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Where the columns have names.

    See Also
    --------
    KernelRidge, KernelClassifier : Machines on such features that never store them, with certificates.

    Notes
    -----
    With the same parameters they are the features of :class:`KernelRidge`, of 40,000 rows or 5,000 features at most;
    beyond, its median width rests on another sample.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> X = np.random.default_rng(0).standard_normal((500, 3))
    >>> found = ly.RandomFeatures(features=400).fit(X)
    >>> Z = found.transform(X)
    >>> Z.shape, Z.dtype.name, found.map_.name
    ((500, 400), 'float32', 'orthogonal')
    >>> found.kernel_error(X).value < 0.1
    True
    """

    kernel_: Kernel
    map_: FeatureMap

    def __init__(
        self,
        features: int | None = None,
        *,
        kernel: str = "gaussian",
        width: Any = "median",
        map: str = "auto",
        standardize: bool = True,
        random_state: Any = None,
        threads: int | None = None,
    ):
        self.features = features
        self.kernel = kernel
        self.width = width
        self.map = map
        self.standardize = standardize
        self.random_state = random_state
        self.threads = threads

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> RandomFeatures:
        """Find the scale of the columns and the width, in one pass, and draw the features.

        Parameters
        ----------
        X : array-like, sparse matrix, path or Rows, shape (n_samples, n_features_in_)
            Anything :func:`leyden.open` takes; what is in files may be larger than memory.
        y : Ignored

        Returns
        -------
        self
        """
        if isinstance(self.width, str) and self.width == "learned":
            raise OptionError(
                "widths are learned from a target, and random features have none",
                hint='Fit a KernelRidge(width="learned"), and give its solution_.kernel.width.',
            )
        default = GRIDS if self.map == "binning" else FEATURES
        options = {
            "name": self.map,
            "kernel": Kernel(check.one_of("kernel", self.kernel, NAMES)),
            "width": as_width(self.width, ("median",)),
            "size": default if self.features is None else check.whole("features", self.features, 1, MAX_FEATURES),
            "standardize": check.flag("standardize", self.standardize),
        }
        rows = open_rows(self._read(X, reset=True))
        executor = as_executor(None)
        engine = Engine(executor.memory(), check.threads(self.threads), 0, executor)
        self._features, self.kernel_ = draw(engine, rows, **options, seed=self._seed())
        self.map_, self.width_ = self._features.map, self.kernel_.width
        return self

    def transform(self, X: Any) -> Any:
        """The features of X.

        Parameters
        ----------
        X : array-like, sparse matrix, path or Rows, shape (n_samples, n_features_in_)

        Returns
        -------
        ndarray of float32, csr_array or Rows, shape (n_samples, D)
            CSR of random bins; Rows, whose features are made when they are read, of a path or Rows.
        """
        check_is_fitted(self)
        if is_stream(X):
            return self.rows(X)
        return expanded(self._features, self._read(X, reset=False), check.threads(self.threads) or thread_count())

    def rows(self, data: Any) -> Rows:
        """The features of data as rows: made block by block in every pass that reads them, and never stored.

        Parameters
        ----------
        data : Rows, array, sparse matrix, data frame or path
            Anything :func:`leyden.open` takes. Target and weights that it was opened with stay with it. Of a table,
            columns that were not fitted are left out.

        Returns
        -------
        Rows, shape (n, D)

        Examples
        --------
        Kernel ridge regression as least squares, of data of any size:

        >>> import numpy as np, leyden as ly
        >>> X = np.random.default_rng(0).uniform(-2, 2, (1000, 2))
        >>> found = ly.RandomFeatures(features=200, width=0.5).fit(X)
        >>> sol = ly.lstsq(found.rows(ly.open(X, target=np.sin(3 * X[:, 0]))), ridge=1e-3)
        >>> sol.x.shape, sol.certificate.holds
        ((200,), True)
        """
        check_is_fitted(self)
        return self._opened(data).map(Expand(self._features, tuple(self.get_feature_names_out())))

    def kernel_error(self, X: Any, *, pairs: int = 20_000) -> Bound:
        """Root mean square of ``z(x)·z(y) − k(x, y)`` over all pairs of rows of X, for the features that were drawn.

        Bounded, with 99% confidence, from pairs that are drawn independently (:mod:`leyden.kernel.quality`).

        Parameters
        ----------
        X : Rows, array, sparse matrix, data frame or path
        pairs : int, default 20,000
        """
        check_is_fitted(self)
        pairs = check.whole("pairs", pairs, 2, 10**9)
        return kernel_error(self._features, self.kernel_, self._opened(X), pairs, self._seed())

    def _opened(self, data: Any) -> Rows:
        """Rows of the columns that were fitted."""
        rows = open_rows(data)
        names = tuple(getattr(self, "feature_names_in_", rows.columns))
        if names != rows.columns and has_names(rows):
            missing = [name for name in names if name not in rows.columns]
            if missing:
                raise DataError(f"there is no column '{missing[0]}', which was fitted", where=rows.source)
            return rows.map(SelectColumns(names))
        if rows.shape[1] != self.n_features_in_:
            raise DataError(
                f"there are {rows.shape[1]:,} columns, and the features were fitted to {self.n_features_in_:,}",
                where=rows.source,
            )
        return rows

    @property
    def _n_features_out(self) -> int:
        return self.map_.size
