r"""Implicit feedback with the face of the package implicit (0.7): change the import, and nothing else.

    from leyden.estimators.implicit import AlternatingLeastSquares

The objective is that of the package, with ``c = alpha value`` where there is a value and without one added:

.. math:: F(U, V) = ½ Σ_{(i,j)∈Ω} c_{ij} (1 − u_i·v_j)² + ½ Σ_{(i,j)∉Ω} (u_i·v_j)² + ½ λ (‖U‖² + ‖V‖²).

Half-steps are exact, epochs are accelerated, and :attr:`AlternatingLeastSquares.certificate_` says how good the factors
are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from leyden import options as check
from leyden.certificate import Certificate
from leyden.engine.budget import thread_count
from leyden.errors import DataError, OptionError
from leyden.factor.als import plan
from leyden.factor.als_result import ALSResult, Model
from leyden.factor.objective import Objective
from leyden.factor.ranking import top_k
from leyden.rows.sparse import is_sparse

#: What an entry of weight one is weighed as. What is solved are weights beyond those of entries that are not there:
#: with none there is nothing to solve, and with less than this float32 loses the objective in its own constant.
LEAST_WEIGHT = 1.001

#: What a model is saved as, in files that the package implicit reads as well.
SAVED = (
    "user_factors", "item_factors", "regularization", "factors", "num_threads", "iterations", "use_native", "use_cg",
    "calculate_training_loss", "alpha",
)  # fmt: skip


class AlternatingLeastSquares:
    """Matrix factorization of implicit feedback: the class of that name of the package implicit, certified.

    Parameters
    ----------
    factors : int, default 100
    regularization : float, default 0.01
        λ; above zero.
    alpha : float, default 1
        What values are multiplied with to become weights. These are to be one or more, the weight of an entry that is
        not there; below 1.001 they count as 1.001.
    dtype : {float32, float64}
        Of the factors that are handed out. What is computed in is chosen by what the certificate needs.
    use_native, use_cg : bool
        Ignored: half-steps are compiled, and exact.
    iterations : int, default 15
        The most epochs to make; fewer where the certificate holds before.
    calculate_training_loss : bool
        Ignored: the loss is always known, and handed to ``callback``.
    num_threads : int, default 0
        All processors with 0.
    random_state : int, RandomState, Generator, optional
        The seed; 0 without one.

    Attributes
    ----------
    user_factors : ndarray, shape (users, factors)
        The best ones for these item factors.
    item_factors : ndarray, shape (items, factors)
    certificate_ : Certificate
    solution_ : ALSResult
        In float64, without the ratings. Neither is there after :meth:`load`.

    See Also
    --------
    leyden.ALS : The same with scikit-learn's face, and all options.

    Notes
    -----
    What differs from the package: negative values (dislikes) and weights below one are refused, a list of which fewer
    than N items are left ends with −1 and −∞, and there is no ``to_gpu``.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_matrix
    >>> from leyden.estimators.implicit import AlternatingLeastSquares
    >>> plays = csr_matrix(np.array([[3, 1, 0, 0], [2, 4, 0, 1], [0, 0, 5, 2], [0, 0, 2, 0]]))
    >>> model = AlternatingLeastSquares(factors=2, alpha=10.0)
    >>> model.fit(plays, show_progress=False)
    >>> ids, scores = model.recommend(3, plays[3], N=1)
    >>> ids
    array([3], dtype=int32)
    """

    certificate_: Certificate
    solution_: ALSResult

    def __init__(
        self,
        factors: int = 100,
        regularization: float = 0.01,
        alpha: float = 1.0,
        dtype: Any = np.float32,
        use_native: bool = True,
        use_cg: bool = True,
        iterations: int = 15,
        calculate_training_loss: bool = False,
        num_threads: int = 0,
        random_state: Any = None,
    ):
        self.factors = factors
        self.regularization = regularization
        self.alpha = alpha
        self.dtype = np.dtype(dtype)
        self.use_native = use_native
        self.use_cg = use_cg
        self.iterations = iterations
        self.calculate_training_loss = calculate_training_loss
        self.num_threads = num_threads
        self.random_state = random_state
        self.user_factors: np.ndarray | None = None
        self.item_factors: np.ndarray | None = None

    def fit(
        self,
        user_items: Any,
        show_progress: bool = True,
        callback: Callable[[int, float, float], Any] | None = None,
    ) -> None:
        """Find the factors, from those that are there already if there are any.

        Parameters
        ----------
        user_items : sparse matrix, shape (users, items)
        show_progress : bool, default True
        callback : callable, optional
            Called when all is done, for each epoch, with its number, the mean seconds of one, and the loss after it
            (twice F, over the sum of all weights).
        """
        began = time.perf_counter()
        ratings = self._weighed(user_items)
        start: Any = "random" if self.item_factors is None else self.item_factors
        self.solution_ = found = plan(
            ratings, self.factors, self._objective(), start=start, epochs=self.iterations, threads=self._threads(),
            seed=self._seed(), progress=None if show_progress else False,
        ).run()  # fmt: skip
        found._ratings = None  # a fitted estimator does not keep the data
        self.certificate_ = found.certificate
        self.item_factors = found.item_factors.astype(self.dtype)
        self.user_factors = found.model.solve(ratings, self._threads() or thread_count()).astype(self.dtype)
        if callback:
            n, m = ratings.shape
            weights = self.alpha * float(ratings.sum(dtype=np.float64)) + n * m - ratings.nnz
            seconds = (time.perf_counter() - began) / len(found.history)
            for epoch, reached in enumerate(found.history):
                callback(epoch, seconds, 2 * reached["after"] / weights)

    # ------------------------------------------------------------ lists

    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Any = None,
        recalculate_user: bool = False,
        items: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The N items of highest score for a user, or for each of several.

        Parameters
        ----------
        userid : int, or sequence of int
        user_items : sparse matrix, shape (users asked for, items)
            A row for each of ``userid``. It may be None where it is not needed.
        N : int, default 10
        filter_already_liked_items : bool, default True
            Whether to leave out what is in ``user_items``.
        filter_items : sequence of int, optional
            More items to leave out, of every list.
        recalculate_user : bool, default False
            Whether to find the users' factors from ``user_items``.
        items : sequence of int, optional
            The only items to choose among.

        Returns
        -------
        ids : ndarray of int32, shape (N,), or (users, N)
        scores : ndarray
        """
        users, factors = np.atleast_1d(userid), self._fitted()
        liked = None
        if filter_already_liked_items or recalculate_user:
            liked = self._rows_of(user_items, len(users), len(factors))
        found = self.recalculate_user(users, liked) if recalculate_user else self._taken("user", users)
        exclude = liked if filter_already_liked_items else None
        return self._listed(found, factors, N, np.ndim(userid) == 0, filter_items, items, exclude, "item")

    def similar_items(
        self,
        itemid: Any,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: Any = None,
        filter_items: Any = None,
        items: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The N items whose factors point most nearly the same way, the item itself among them, and the cosines.

        Parameters
        ----------
        itemid : int, or sequence of int
        N : int, default 10
        recalculate_item : bool, default False
            Whether to find the factors of ``itemid`` from ``item_users``.
        item_users : sparse matrix, shape (items asked for, users), optional
        filter_items : sequence of int, optional
            Items to leave out.
        items : sequence of int, optional
            The only items to choose among.

        Returns
        -------
        ids : ndarray of int32, shape (N,), or (items asked for, N)
        cosines : ndarray
        """
        asked = np.atleast_1d(itemid)
        found = self.recalculate_item(asked, item_users) if recalculate_item else self._taken("item", asked)
        single = np.ndim(itemid) == 0
        return self._listed(_unit(found), _unit(self._fitted()), N, single, filter_items, items, None, "item")

    def similar_users(
        self, userid: Any, N: int = 10, filter_users: Any = None, users: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`similar_items`, of users."""
        found = _unit(self._taken("user", np.atleast_1d(userid)))
        single = np.ndim(userid) == 0
        return self._listed(found, _unit(self._fitted("user")), N, single, filter_users, users, None, "user")

    def explain(
        self, userid: int, user_items: Any, itemid: int, user_weights: Any = None, N: int = 10
    ) -> tuple[float, list[tuple[int, float]], Any]:
        """What each item that a user has chosen adds to the score of another, exactly (Hu et al. 2008, § 5).

        Parameters
        ----------
        userid : int
            A row of ``user_items``.
        user_items : sparse matrix, shape (users, items)
        itemid : int
        user_weights : tuple, optional
            What an earlier call for this user gave.
        N : int, default 10

        Returns
        -------
        score : float
            Of factors that are found from ``user_items``.
        contributions : list of (int, float)
            The N largest: items and what they add.
        user_weights : tuple
            Cholesky factor of the user's normal equations.
        """
        factors = self._fitted().astype(np.float64)
        (item,) = self._taken("item", np.array([itemid])).astype(np.float64)
        if not (is_sparse(user_items) and 0 <= userid < user_items.shape[0]):
            raise DataError(f"user {userid} has no row in user_items")
        row = self._weighed(csr_array(user_items)[[userid]], len(factors))
        weights, v = self.alpha * row.data.astype(np.float64), factors[row.indices]
        if user_weights is None:
            form = factors.T @ factors + (v.T * (weights - 1)) @ v + self.regularization * np.eye(factors.shape[1])
            user_weights = cho_factor(form)
        adds = weights * (v @ cho_solve(user_weights, item))
        most = np.argsort(-adds, kind="stable")[:N]
        return float(adds.sum()), [(int(row.indices[e]), float(adds[e])) for e in most], user_weights

    # ------------------------------------------------------------ factors of what is new or has changed

    def recalculate_user(self, userid: Any, user_items: Any) -> np.ndarray:
        """Factors of users from these ratings, a row for each of ``userid``; nothing is stored."""
        return self._recalculated(userid, user_items, self._fitted(), "user")

    def recalculate_item(self, itemid: Any, item_users: Any) -> np.ndarray:
        """Factors of items from these ratings, a row for each of ``itemid``; nothing is stored."""
        return self._recalculated(itemid, item_users, self._fitted("user"), "item")

    def partial_fit_users(self, userids: Any, user_items: Any) -> None:
        """Recalculate users and store them; those beyond the last one are appended."""
        found = self.recalculate_user(np.atleast_1d(userids), user_items)
        self.user_factors = _stored(self._fitted("user"), np.atleast_1d(userids), found)

    def partial_fit_items(self, itemids: Any, item_users: Any) -> None:
        """Recalculate items and store them; those beyond the last one are appended."""
        found = self.recalculate_item(np.atleast_1d(itemids), item_users)
        self.item_factors = _stored(self._fitted(), np.atleast_1d(itemids), found)

    # ------------------------------------------------------------ files

    def save(self, fileobj_or_path: Any) -> None:
        """Write a ``.npz`` file, which the package implicit can load."""
        self._fitted()
        state = {name: getattr(self, name) for name in SAVED}
        if isinstance(self.random_state, Integral):
            state["random_state"] = self.random_state
        try:
            np.savez(fileobj_or_path, dtype=self.dtype.name, **state)
        except OSError as error:
            where = str(fileobj_or_path)
            raise DataError(f"the file cannot be written ({error.strerror})", where=where) from None

    @classmethod
    def load(cls, fileobj_or_path: Any) -> AlternatingLeastSquares:
        """Read what :meth:`save` wrote, or that of the package implicit."""
        place = fileobj_or_path
        if isinstance(place, (str, os.PathLike)) and not os.fspath(place).endswith(".npz"):
            place = os.fspath(place) + ".npz"
        try:
            with np.load(place, allow_pickle=False) as data:
                state = {name: data[name] for name in data.files}
            found = cls(**{name: state[name].item() for name in (*SAVED[2:], "dtype")})
            found.random_state = state["random_state"].item() if "random_state" in state else None
            found.user_factors, found.item_factors = state["user_factors"], state["item_factors"]
        except FileNotFoundError:
            raise DataError("there is no such file", where=str(place)) from None
        except Exception as error:
            raise DataError(f"this is no saved model ({error})", where=str(place)) from None
        return found

    # ------------------------------------------------------------ ratings and options

    def _objective(self) -> Objective:
        regularization, alpha = (
            check.positive(name, getattr(self, name)) for name in ("regularization", "alpha")
        )  # fmt: skip
        return Objective(regularization, implicit=True, alpha=alpha, base=0.0)

    def _weighed(self, matrix: Any, columns: int | None = None) -> csr_array:
        """CSR of values that weigh as much as what is not there, or more."""
        if not is_sparse(matrix):
            raise DataError(f"a {type(matrix).__name__} is no sparse matrix", hint="Give a scipy.sparse.csr_matrix.")
        found = csr_array(matrix, dtype=np.float64, copy=True)
        if columns is not None and found.shape[1] != columns:
            raise DataError(f"the matrix has {found.shape[1]:,} columns; the factors are of {columns:,}")
        found.sum_duplicates()
        weights = check.positive("alpha", self.alpha) * found.data
        wrong = ~(np.isfinite(weights) & (weights >= 1))
        if wrong.any():
            entry = int(np.argmax(wrong))
            row = int(np.searchsorted(found.indptr, entry, side="right")) - 1
            value = found.data[entry]
            if not np.isfinite(value):
                raise DataError(f"the value is {value:g}", where=f"row {row}", hint="Remove such entries first.")
            if value <= 0:
                raise DataError(
                    f"a value of {value:g} is no implicit feedback", where=f"row {row}", hint="Leave such entries out."
                )
            raise DataError(
                f"a value of {value:g} weighs less than an entry that is not there, with alpha={self.alpha:g}",
                where=f"row {row}",
                hint=f"Give alpha={1.01 / found.data[found.data > 0].min():.3g} or more, or use "
                "leyden.ALS(implicit=True), where weights are 1 + alpha value.",
            )
        found.data = np.maximum(weights, LEAST_WEIGHT) / self.alpha
        return found

    def _rows_of(self, matrix: Any, rows: int, columns: int) -> Any:
        if not is_sparse(matrix):
            raise DataError("user_items is to be a sparse matrix", hint="Give user_items[userid].")
        if matrix.shape != (rows, columns):
            raise DataError(
                f"the matrix is of shape {matrix.shape}, not {(rows, columns)}: a row for each that is asked for",
                hint="Give user_items[userid].",
            )
        return csr_array(matrix)

    def _recalculated(self, ids: Any, matrix: Any, others: np.ndarray, kind: str) -> np.ndarray:
        ratings, count = self._weighed(matrix, len(others)), np.size(ids)
        if ratings.shape[0] != count:
            raise DataError(f"the matrix has {ratings.shape[0]:,} rows for {count:,} {kind}s")
        v = np.asarray(others, np.float64)
        model = Model(self._objective(), v, np.zeros(len(v), np.int64), 1, count, False)
        found = model.solve(ratings, self._threads() or thread_count()).astype(self.dtype)
        return found[0] if np.ndim(ids) == 0 else found

    def _listed(
        self, asked: np.ndarray, factors: np.ndarray, N: int, single: bool, left_out: Any, among: Any, exclude: Any,
        kind: str,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """The N of highest score for each row that is asked for."""
        chosen = None
        if among is not None:
            if left_out is not None and len(left_out):
                raise OptionError(f"{kind}s and filter_{kind}s are two ways to say one thing", hint="Leave one out.")
            chosen = np.unique(among)
            self._within(kind, chosen)
            N = min(N, len(chosen))
        elif left_out is not None and len(left_out):
            chosen = np.setdiff1d(np.arange(len(factors)), left_out)
        if chosen is not None:
            if not len(chosen):
                raise OptionError(f"there is no {kind} to choose among")
            factors, exclude = factors[chosen], None if exclude is None else exclude[:, chosen]
        found, scores = top_k(asked, factors, N, exclude=exclude, threads=self._threads())
        if chosen is not None:
            found = np.where(found < 0, -1, chosen[found])
        ids, scores = found.astype(np.int32), scores.astype(self.dtype)
        return (ids[0], scores[0]) if single else (ids, scores)

    def _taken(self, kind: str, ids: np.ndarray) -> np.ndarray:
        self._within(kind, ids)
        return self._fitted(kind)[ids]

    def _within(self, kind: str, ids: np.ndarray) -> None:
        count = len(self._fitted(kind))
        wrong = ids[(ids < 0) | (ids >= count)] if ids.dtype.kind in "iu" else ids
        if len(wrong):
            raise DataError(f"{kind} {wrong[0]} is not among the {count:,} of the model")

    def _fitted(self, kind: str = "item") -> np.ndarray:
        found = self.item_factors if kind == "item" else self.user_factors
        if found is None:
            raise OptionError("there are no factors yet", hint="Call fit first.")
        return found

    def _threads(self) -> int | None:
        return check.threads(self.num_threads or None)

    def _seed(self) -> int:
        state = self.random_state
        if state is None or isinstance(state, Integral):
            return int(state or 0)
        if isinstance(state, np.random.Generator):
            return int(state.integers(2**31))
        return int(state.randint(np.iinfo(np.int32).max))


def _unit(factors: np.ndarray) -> np.ndarray:
    """Rows of length one, but for those of zeros."""
    found = np.asarray(factors, np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: np.ndarray = found / np.where(lengths > 0, lengths, 1.0)
    return unit


def _stored(factors: np.ndarray, ids: np.ndarray, found: np.ndarray) -> np.ndarray:
    """A copy with these rows, and zeros in those that were not there."""
    stored = np.zeros((max(len(factors), int(ids.max()) + 1), factors.shape[1]), factors.dtype)
    stored[: len(factors)] = factors
    stored[ids] = found
    return stored
