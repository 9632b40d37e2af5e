"""Matrix factorization, with scikit-learn's face."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from leyden import options as check
from leyden.engine.budget import thread_count
from leyden.engine.checkpoint import Checkpoint
from leyden.errors import DataError
from leyden.factor.als import als
from leyden.factor.als_result import ALSResult
from leyden.factor.metrics import ranking_metrics, squared_errors
from leyden.factor.objective import Objective
from leyden.factor.ranking import held_out_ranks, top_k

#: Share of each row's ratings that a score foretells from the others.
HELD_OUT = 0.2

#: Length of the list that implicit feedback is scored by, as in the literature on it.
CUTOFF = 100


class ALS(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Matrix factorization of ratings, certified: :func:`leyden.als` as a scikit-learn transformer.

    Rows are users and columns items. Every stored entry of a sparse X is a rating, a stored zero as well; of a dense X
    every entry but zeros, which stand for what has not been rated.

    Parameters
    ----------
    n_components : int or "auto", default 64
        Number of factors; see ``rank`` of :func:`leyden.als`.
    regularization, scaling, implicit, alpha, background, biases, centre, nonnegative
        As in :func:`leyden.als`.
    tol, gap, epochs, start, accelerate, subspace, max_rank, method, memory, threads, checkpoint, progress
        As in :func:`leyden.als`.
    random_state : int, RandomState, optional
        The seed; by default that of :func:`leyden.als`.

    Attributes
    ----------
    components_ : ndarray, shape (n_components_, n_features)
        Factors of the items.
    item_bias_ : ndarray, shape (n_features,)
        Zeros without ``biases``.
    mean_ : float
        Of the ratings with ``biases`` or ``centre``; zero without.
    n_components_, n_features_in_, n_epochs_ : int
    feature_names_in_ : ndarray of str, shape (n_features,)
        Where the columns have names.
    certificate_ : Certificate
    solution_ : ALSResult
        Without the ratings: assign ``solution_.ratings`` for what needs them.

    See Also
    --------
    leyden.als : The function, whose answer is ``solution_``, for ratings in files and of any number.
    leyden.estimators.implicit.AlternatingLeastSquares : The face of the package implicit.

    Notes
    -----
    Users are not learned: :meth:`transform` finds the factors of any rows, exactly, from their ratings. So an estimator
    that is fitted on some users is scored on others, and cross-validation splits users.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> from scipy.sparse import csr_array
    >>> X = csr_array(np.array([[5.0, 4.0, 0.0], [4.0, 0.0, 1.0], [0.0, 2.0, 5.0], [5.0, 0.0, 1.0]]))
    >>> found = ly.ALS(n_components=1, regularization=0.1).fit(X)
    >>> items, scores = found.recommend(X[[0]], k=1)
    >>> items, found.certificate_.holds
    (array([[2]]), True)
    """

    solution_: ALSResult

    def __init__(
        self,
        n_components: int | str = 64,
        *,
        regularization: float = 0.1,
        scaling: float = 0.0,
        implicit: bool = False,
        alpha: float = 1.0,
        background: float | None = None,
        biases: bool = False,
        centre: bool = False,
        nonnegative: bool = False,
        tol: float = 1e-3,
        gap: float | None = None,
        epochs: int = 100,
        start: str | np.ndarray = "random",
        accelerate: bool = True,
        subspace: int | str | None = "auto",
        max_rank: int = 256,
        method: str = "auto",
        memory: str | int | None = None,
        threads: int | None = None,
        random_state: Any = None,
        checkpoint: str | os.PathLike | Checkpoint | None = None,
        progress: bool | None = None,
    ):
        self.n_components = n_components
        self.regularization = regularization
        self.scaling = scaling
        self.implicit = implicit
        self.alpha = alpha
        self.background = background
        self.biases = biases
        self.centre = centre
        self.nonnegative = nonnegative
        self.tol = tol
        self.gap = gap
        self.epochs = epochs
        self.start = start
        self.accelerate = accelerate
        self.subspace = subspace
        self.max_rank = max_rank
        self.method = method
        self.memory = memory
        self.threads = threads
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.progress = progress

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any = None) -> ALS:
        """Find the factors of the items.

        Parameters
        ----------
        X : sparse matrix or array-like, shape (n_users, n_items)
        y : Ignored

        Returns
        -------
        self
        """
        options = self.get_params(deep=False)
        rank = options.pop("n_components")
        del options["random_state"]
        self.solution_ = found = als(self._ratings(X, reset=True), rank, **options, seed=self._seed())
        found._ratings = None  # a fitted estimator does not keep the data
        self.components_ = found.item_factors.T
        self.item_bias_ = np.zeros(self.n_features_in_) if found.item_bias is None else found.item_bias
        self.mean_, self.n_components_, self.n_epochs_ = found.mean, found.rank, len(found.history)
        self.certificate_ = found.certificate
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Factors of users, from their ratings.

        Parameters
        ----------
        X : sparse matrix or array-like, shape (n_users, n_items)
            Of anybody, not only of whom it was fitted on.

        Returns
        -------
        ndarray, shape (n_users, n_components_)
            With ``biases`` one more column: those of the users.
        """
        check_is_fitted(self)
        return self._users(self._ratings(X, reset=False))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Scores of all items for users of these factors.

        Parameters
        ----------
        X : array-like, shape (n_users, n_components_ [+ 1])
            As :meth:`transform` gives them.

        Returns
        -------
        ndarray, shape (n_users, n_items)
        """
        check_is_fitted(self)
        u = check_array(X, dtype=np.float64)
        if u.shape[1] != self._n_features_out:
            raise DataError(f"there are {u.shape[1]:,} columns for {self._n_features_out:,} factors")
        offset = u[:, self.n_components_ :] + self.mean_ if self.biases else self.mean_
        return u[:, : self.n_components_] @ self.components_ + self.item_bias_ + offset

    def scores(self, X: Any) -> np.ndarray:
        """Scores of all items for users, from their ratings: those foretold, or how likely they are to be chosen.

        Parameters
        ----------
        X : sparse matrix or array-like, shape (n_users, n_items)

        Returns
        -------
        ndarray, shape (n_users, n_items)
            Dense: for many users and items see :meth:`recommend`.
        """
        return self.inverse_transform(self.transform(X))

    def recommend(self, X: Any, k: int = 10, *, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The k items of highest score for each user, exactly, without the scores of all in memory.

        Parameters
        ----------
        X : sparse matrix or array-like, shape (n_users, n_items)
        k : int, default 10
        exclude_seen : bool, default True
            Whether to leave out the items that a user has rated.

        Returns
        -------
        items : ndarray of int64, shape (n_users, k)
            Columns of X; −1 where fewer are left.
        scores : ndarray of float64, shape (n_users, k)
        """
        check_is_fitted(self)
        ratings = self._ratings(X, reset=False)
        u = self._users(ratings)
        items, scores = top_k(
            u[:, : self.n_components_], self.components_.T, k, exclude=ratings if exclude_seen else None,
            item_offset=self.item_bias_, threads=self.threads,
        )  # fmt: skip
        return items, scores + (u[:, self.n_components_ :] + self.mean_ if self.biases else self.mean_)

    def score(self, X: Any, y: Any = None, *, held_out: Any = None) -> float:
        """How well some ratings of users are foretold from their others: the larger, the better.

        Parameters
        ----------
        X : sparse matrix or array-like, shape (n_users, n_items)
        y : Ignored
        held_out : sparse matrix, shape (n_users, n_items), optional
            Ratings of these users to foretell from X. Without it they are a fifth of those of X, drawn by
            ``random_state``, which :meth:`transform` does not see then.

        Returns
        -------
        float
            Minus the root mean square error of explicit ratings; of implicit feedback the NDCG of the first hundred
            items, among all that are not in X.
        """
        check_is_fitted(self)
        ratings = self._ratings(X, reset=False)
        if held_out is None:
            ratings, held = self._split(ratings)
        else:
            held = self._ratings(held_out, reset=False)
        if held.shape != ratings.shape:
            raise DataError(f"held_out has {held.shape[0]:,} rows, and X has {ratings.shape[0]:,}")
        u = self._users(ratings)
        factors, items = u[:, : self.n_components_], self.components_.T
        if self.solution_.model.objective.implicit:
            ranks = held_out_ranks(factors, items, held, exclude=ratings, threads=self.threads)
            return ranking_metrics(ranks, (CUTOFF,)).ndcg[CUTOFF].mean
        own = u[:, self.n_components_] if self.biases else np.zeros(len(u))
        offsets = {"user_offset": own + self.mean_, "item_offset": self.item_bias_}
        return -squared_errors(factors, items, held, **offsets, threads=self.threads).rmse

    # ------------------------------------------------------------ ratings

    def _ratings(self, X: Any, *, reset: bool) -> Any:
        """X as CSR in float64, each rating of which can be weighed."""
        x = validate_data(self, X, reset=reset, accept_sparse="csr", dtype=np.float64)
        x = csr_array(x)
        if not x.has_canonical_format:
            x = x.copy()
            x.sum_duplicates()
        if not reset:
            check_weights(self.solution_.model.objective, x)
        return x

    def _users(self, ratings: Any) -> np.ndarray:
        return self.solution_.model.solve(ratings, check.threads(self.threads) or thread_count())

    def _split(self, ratings: Any) -> tuple[Any, Any]:
        """What is left of ratings, and those held out: a share of them, but at least one."""
        draws = np.random.Generator(np.random.Philox(key=self._seed())).random(ratings.nnz)
        out = draws <= max(HELD_OUT, draws.min(initial=1.0))
        entries, users = ratings.tocoo(), ratings.shape

        def part(which: np.ndarray) -> Any:
            rows, columns = (axis[which] for axis in entries.coords)
            return csr_array((entries.data[which], (rows, columns)), shape=users)

        return part(~out), part(out)

    def _seed(self) -> int:
        state = 0 if self.random_state is None else self.random_state
        return int(state if isinstance(state, Integral) else check_random_state(state).randint(np.iinfo(np.int32).max))

    @property
    def _n_features_out(self) -> int:
        return self.n_components_ + bool(self.biases)


def check_weights(objective: Objective, ratings: Any) -> None:
    """Refuse values of implicit feedback that would weigh no more than what is not there."""
    constant, slope = objective.model[:2]
    wrong = constant + slope * ratings.data <= 0
    if wrong.any():
        value = ratings.data[int(np.argmax(wrong))]
        raise DataError(f"an implicit value of {value:g} would weigh nothing, or less", hint="Leave such entries out.")
