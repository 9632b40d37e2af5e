"""The answer of alternating least squares: what it holds, how it is used, certified, saved, verified."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Bound, Certificate
from leyden.engine.executor import Executor, as_executor
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine
from leyden.errors import DataError, OptionError
from leyden.factor.half_step import Entries, HalfStep, padded
from leyden.factor.held_out import HeldOut, Metrics, disagreements, foretold, held_out_of, ratings_of, restored
from leyden.factor.left import Write, check_target, writing
from leyden.factor.metrics import CUTOFFS
from leyden.factor.objective import Objective
from leyden.factor.optimality import Gap, gap, right_singular_vectors
from leyden.factor.ranking import top_k
from leyden.factor.survey import as_ratings, survey
from leyden.plan import Plan
from leyden.rows import Rows
from leyden.rows.base import Block, RowMap
from leyden.rows.ids import Ids
from leyden.rows.sparse import csr_block
from leyden.solution import Solution, Trace

#: Users whose factors are computed at once.
BATCH = 20_000

#: Passes of block Lanczos with which a certificate is verified: as many as it can have been made with.
VERIFY_PASSES = 200


@dataclass(frozen=True)
class Model:
    """Item factors and what makes user factors of them.

    Attributes
    ----------
    objective : Objective
    v : ndarray of float64, shape (items, rank) or (items, rank + 1)
        With biases the last column is the items'.
    item_counts : int64, shape (items,)
    most : int
        Ratings of the user who has the most.
    users : int
    biases : bool
    nonnegative : bool
    """

    objective: Objective
    v: np.ndarray
    item_counts: np.ndarray
    most: int
    users: int
    biases: bool
    nonnegative: bool = False

    @property
    def rank(self) -> int:
        return self.v.shape[1] - self.biases

    @property
    def factors(self) -> np.ndarray:
        """Without the biases."""
        return self.v[:, : self.rank]

    @property
    def item_bias(self) -> np.ndarray | None:
        return self.v[:, self.rank] if self.biases else None

    def user_penalties(self, most: int) -> np.ndarray:
        """λ by the number of ratings."""
        return self.objective.penalties(max(most, self.most), len(self.v))

    @property
    def item_penalties(self) -> np.ndarray:
        """ν."""
        counts = self.item_counts
        return self.objective.penalties(int(counts.max(initial=0)), self.users)[counts]

    @cached_property
    def _features(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """What users are solved against: features, shared diagonal, the rotation back, item biases."""
        f = np.zeros((len(self.v), padded(self.rank + self.biases)))
        q = np.eye(self.rank) if self.nonnegative else right_singular_vectors(self.factors)
        f[:, : self.rank] = self.factors @ q
        form = self.objective.unobserved * (f.T @ f)
        theta = form if self.nonnegative else np.diag(form).copy()
        if self.biases:
            f[:, self.rank] = 1.0
        return f, theta, q, self.item_bias

    def solve(self, matrix: Any, threads: int = 1) -> np.ndarray:
        """Factors of the users in the rows of a CSR matrix: (rows, rank), or (rows, rank + 1) with their biases."""
        entries = Entries.of(matrix.indptr, matrix.indices, matrix.data)
        f, theta, q, shift = self._features
        u = np.zeros((len(entries.order), f.shape[1]))
        penalties = self.user_penalties(int(entries.counts.max(initial=0)))
        HalfStep(f.shape[1], np.dtype(np.float64), threads, self.rank if self.nonnegative else 0)(
            entries, self.objective.model, f, theta, penalties, u, shift
        )
        u[:, : self.rank] = u[:, : self.rank] @ q.T
        return u[:, : self.v.shape[1]]


@dataclass(frozen=True, eq=False)
class UserFactors(RowMap):
    """The factors of users, made of their ratings when they are read."""

    model: Model

    @property
    def w(self) -> np.ndarray:
        """Of the shape that a map of linear combinations would have."""
        return self.model.v

    def __call__(self, block: Block) -> Block:
        return block.with_data(self.model.solve(block.data))

    def into(self, block: Block, out: np.ndarray) -> Block:
        out[:] = self.model.solve(block.data)
        return block.with_data(out)

    def sparse(self, sparse: bool) -> bool:
        return False

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(f"u{k}" for k in range(self.model.rank))
        return (*names, "bias") if self.model.biases else names

    def dtype(self, dtype: np.dtype) -> np.dtype:
        return np.dtype(np.float64)


class ALSResult(Solution):
    """Factors of users and items, ``R ≈ U Vᵀ``.

    Only item factors are kept: those of users are computed from their ratings when they are asked for.

    Attributes
    ----------
    item_factors : ndarray, shape (items, rank)
    item_bias : ndarray, shape (items,), or None
    mean : float
        Of explicit ratings, with biases or ``centre``; zero without.
    rank : int
    history : list of dict
        What is known of each epoch, a row each, as ``pandas.DataFrame(found.history)`` takes it; see below.
    held_out : SquaredErrors, RankingMetrics, or None
        How well these factors foretell what was held out, of the sample of users that epochs are judged by.
    ratings : Rows or None
        What was factored: needed for everything that concerns known users. A result that was loaded opens the store it
        was made from, if that is still there; assign :attr:`ratings` otherwise.
    certificate, trace, plan

    Notes
    -----
    Keys of a row of ``history``; certificates and held-out ratings are not looked at after every epoch.

    ``epoch``, ``users``
        Its number, and the users it was made on.
    ``before``, ``after``
        The objective at the item factors the epoch began with, and at those it ended with, users the same: those that
        are best for the former.
    ``gradient_norm``, ``stationarity``
        ``‖E^(−½) ∇φ‖`` at the beginning, and relative to the norm of the factors, as in the certificate.
        Not of users that were improved in subspaces; of large problems in memory, of every fourth epoch.
    ``newton_decrement``
        ``(before − after) / before``: what half a Newton step in the items gained.
    ``step``
        How far items moved, relative to their norm.
    ``taken_back``
        One where the extrapolation had gone too far.
    ``rmse``, or ``recall@k``, ``ndcg@k``, ``hr@k``, ``mrr``
        Of held-out ratings, at the factors the epoch ended with, with ``_low`` and ``_high``, the ends of a 95 %
        confidence interval.
    ``certified_objective``, ``certified_stationarity``, ``duality_gap``, ``confidence``
        What the certificate says of the factors the epoch ended with, in float64.
    """

    kind = "als"

    def __init__(
        self,
        *,
        model: Model,
        tol: float,
        gap: float | None,
        seed: int,
        history: list[dict[str, float]],
        certificate: Certificate,
        trace: Trace,
        plan: Plan[Any],
        source: str = "",
        held_out: Metrics | None = None,
    ):
        self.held_out = held_out
        self.model, self.tol, self.gap, self.seed, self.history = model, tol, gap, seed, history
        self.certificate, self.trace, self.plan = certificate, trace, plan
        self._ratings: Rows | None = None
        self._source = source

    @property
    def item_factors(self) -> np.ndarray:
        return self.model.factors

    @property
    def item_bias(self) -> np.ndarray | None:
        return self.model.item_bias

    @property
    def mean(self) -> float:
        return self.model.objective.mean

    @property
    def rank(self) -> int:
        return self.model.rank

    # ------------------------------------------------------------ users and items by their ids

    @property
    def ratings(self) -> Rows:
        if self._ratings is None:
            if not (self._source and Path(self._source).exists()):
                raise OptionError(
                    "the ratings this was made from are not at hand", hint="Open them, and assign result.ratings."
                )
            self.ratings = as_ratings(self._source)
        assert self._ratings is not None
        return self._ratings

    @ratings.setter
    def ratings(self, rows: Any) -> None:
        rows = as_ratings(rows)
        if rows.shape != (self.model.users, len(self.model.v)):
            raise DataError(
                "these are ratings of {:,} users and {:,} items".format(*rows.shape)
                + f"; the factors are of {self.model.users:,} and {len(self.model.v):,}",
                where=rows.source,
            )
        self._ratings = rows

    def _ids(self, kind: str) -> Ids:
        found = getattr(self.ratings, kind, None) if self._ratings is not None or self._source else None
        n = self.model.users if kind == "users" else len(self.model.v)
        return found if isinstance(found, Ids) else Ids.identity(n, kind[:-1])

    def _numbers(self, kind: str, ids: Any) -> np.ndarray:
        """The numbers of ids; one that is not there is refused."""
        known = self._ids(kind)
        numbers = known.index(np.atleast_1d(ids), unknown=-1)
        if (numbers < 0).any():
            wrong = np.atleast_1d(np.asarray(ids, object))[int(np.argmax(numbers < 0))]
            some = ", ".join(repr(one) for one in known.take(np.arange(min(3, len(known)))).tolist())
            raise DataError(
                f"{kind[:-1]} {wrong!r} is not among the {len(known):,} {kind} of the ratings",
                hint=f"Some that are: {some}.",
            )
        return numbers

    def _batches(self) -> Iterator[tuple[np.ndarray, Any, np.ndarray]]:
        """All users: their numbers, their ratings, their factors."""
        rows, n = self.ratings, self.model.users
        buffer = rows.buffer(min(BATCH, n))
        for first in range(0, n, BATCH):
            numbers = np.arange(first, min(first + BATCH, n))
            data = rows.read(first, int(numbers[-1]) + 1, buffer).data
            yield numbers, data, self.model.solve(data)

    # ------------------------------------------------------------ factors

    def user_factors(self, ids: Any = None) -> np.ndarray:
        """Factors of users, (users, rank), in the order asked for; of all users, in the order of the ratings, without.

        Raises
        ------
        DataError
            Of an id that is not among those of the ratings.
        """
        if ids is None:
            return np.concatenate([u[:, : self.rank] for _, _, u in self._batches()])
        numbers = self._numbers("users", ids)
        return self.model.solve(ratings_of(self.ratings, numbers))[:, : self.rank]

    def users(self, rows: Any = None) -> Rows:
        """The factors of all users (of other ratings of the same items) as rows that are made when they are read."""
        return (self.ratings if rows is None else as_ratings(rows)).map(UserFactors(self.model))

    def write_user_factors(
        self, path: str | os.PathLike, *, memory: str | int | None = None, progress: bool | None = False
    ) -> Rows:
        """Compute the factors of all users into a ``.npy`` file, (users, rank [+ 1]) float64, in one pass."""
        check_target(path, self.ratings)
        runs = as_executor(None)
        budget = runs.memory() if memory is None else check.memory(memory)
        engine = Engine(budget, None, 0, runs, progress=Progress(check.progress(progress)))
        with writing(path, (self.model.users, self.model.v.shape[1])) as place:
            engine.sweep(self.ratings, [Write(UserFactors(self.model), place)], "user factors")
        from leyden.rows import open as open_rows

        return open_rows(os.path.expanduser(path))

    def fold_in(self, items: Any, values: Any = None) -> np.ndarray:
        """Factors (rank,) of a user who is not among the ratings, from some of theirs.

        Parameters
        ----------
        items : sequence of ids
        values : array_like, optional
            Ones by default.
        """
        matrix = self._row(items, values)
        return self.model.solve(matrix)[0, : self.rank]

    def _row(self, items: Any, values: Any) -> Any:
        numbers = self._numbers("items", items)
        values = np.ones(len(numbers), np.float32) if values is None else np.asarray(values, np.float32)
        if values.shape != numbers.shape:
            raise DataError(f"there are {len(numbers)} items, and values of shape {values.shape}: give one for each")
        if not np.isfinite(values).all():
            raise DataError("a value is not a finite number")
        if self.model.objective.implicit and self.model.objective.background is None and (values <= 0).any():
            raise DataError("an implicit value must be above zero")
        if len(np.unique(numbers)) < len(numbers):
            raise DataError("an item is given twice")
        order = np.argsort(numbers)
        pointers = np.array([0, len(numbers)], np.int64)
        return csr_block(values[order], numbers[order].astype(np.int32), pointers, (1, len(self.model.v)))

    # ------------------------------------------------------------ use

    def predict(self, users: Any, items: Any) -> Any:
        """Scores of pairs of a user and an item, by their ids: a number, or an array for arrays."""
        single = np.ndim(users) == 0 and np.ndim(items) == 0
        users, items = np.broadcast_arrays(np.atleast_1d(users), np.atleast_1d(items))
        asked, which = np.unique(self._numbers("users", users), return_inverse=True)
        numbers = self._numbers("items", items)
        u = self.model.solve(ratings_of(self.ratings, asked))
        scores = np.einsum("ij,ij->i", u[which][:, : self.rank], self.item_factors[numbers]) + self.mean
        if self.item_bias is not None:
            scores += u[which, self.rank] + self.item_bias[numbers]
        return float(scores[0]) if single else scores

    def recommend(self, user: Any, k: int = 10, *, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The k items of highest score for a user, or for each of several: ids and scores.

        Returns
        -------
        items : ndarray, shape (k,), or (users, k)
            Fewer, or −1 and None, where fewer are left.
        scores : ndarray of float64
        """
        single = np.ndim(user) == 0
        seen = ratings_of(self.ratings, self._numbers("users", user))
        found, scores = self._top(seen, k, exclude_seen)
        return self._named(found[0], scores[0]) if single else (self._take(found), scores)

    def recommend_new(
        self, items: Any, values: Any = None, k: int = 10, *, exclude_seen: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`recommend`, for somebody who is not among the ratings."""
        found, scores = self._top(self._row(items, values), k, exclude_seen)
        return self._named(found[0], scores[0])

    def _top(self, seen: Any, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        u = self.model.solve(seen)
        found, scores = top_k(
            u[:, : self.rank], self.item_factors, k, exclude=seen if exclude_seen else None, item_offset=self.item_bias
        )
        return found, scores + (u[:, self.rank :] + self.mean if self.model.biases else self.mean)

    def _named(self, numbers: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        there = numbers >= 0
        return self._ids("items").take(numbers[there]), scores[there]

    def _take(self, numbers: np.ndarray) -> np.ndarray:
        ids = self._ids("items").take(np.maximum(numbers, 0).ravel()).reshape(numbers.shape)
        if (numbers < 0).any():
            nobody: Any = -1 if ids.dtype.kind in "iu" else None
            ids = np.where(numbers < 0, nobody, ids)
        return ids

    def write_recommendations(self, path: str | os.PathLike, k: int = 10, *, exclude_seen: bool = True) -> Path:
        """The k best items of every user as a Parquet file with columns user, item, score and rank."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        target = Path(os.path.expanduser(path))
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        writer = None
        try:
            for numbers, seen, _ in self._batches():
                found, scores = self._top(seen, k, exclude_seen)
                there = found >= 0
                table = pa.table(
                    {
                        "user": np.repeat(self._ids("users").take(numbers), there.sum(axis=1)),
                        "item": self._ids("items").take(found[there]),
                        "score": scores[there],
                        "rank": np.broadcast_to(np.arange(1, k + 1, dtype=np.int32), found.shape)[there],
                    }
                )
                writer = writer or pq.ParquetWriter(partial, table.schema)
                writer.write_table(table)
            if writer:
                writer.close()
                partial.replace(target)
        except OSError as error:
            raise DataError(f"the file cannot be written ({error.strerror})", where=str(target)) from None
        finally:
            partial.unlink(missing_ok=True)
        return target

    def similar_items(self, item: Any, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The k items whose factors point most nearly the same way, and the cosines."""
        number = int(self._numbers("items", [item])[0])
        lengths = np.linalg.norm(self.item_factors, axis=1)
        if lengths[number] == 0:
            raise DataError(f"item {item} has no ratings to be compared by")
        unit = self.item_factors / np.where(lengths > 0, lengths, 1.0)[:, None]
        itself = csr_block(np.ones(1, np.float32), np.array([number], np.int32), np.array([0, 1]), (1, len(unit)))
        found, cosines = top_k(unit[number : number + 1], unit, k, exclude=itself)
        return self._named(found[0], cosines[0])

    # ------------------------------------------------------------ evaluation

    def evaluate(self, held_out: Any = None, cutoffs: tuple[int, ...] = CUTOFFS) -> Any:
        """How well held-out ratings are foretold, with confidence intervals.

        Parameters
        ----------
        held_out : Ratings or sparse matrix, optional
            Those that were set apart when the ratings were opened, by default. Ratings are found by the ids of their
            users and items; a matrix is of shape (users, items).
        cutoffs : tuple of int
            Of ranking metrics.

        Returns
        -------
        SquaredErrors or RankingMetrics
            Root mean square error of explicit ratings; recall, NDCG, hit rate and MRR, over the full catalogue without
            the items a user has rated, of implicit ones.
        """
        held = held_out_of(self.ratings, held_out)
        if held is None:
            raise OptionError("no ratings were held out", hint="Open them with holdout=, or give held_out=.")
        total: Metrics | None = None
        for numbers, seen, u in self._batches():
            there: Any = held.read(int(numbers[0]), int(numbers[-1]) + 1, held.buffer(len(numbers))).data
            if not there.nnz:
                continue
            found = foretold(self.model, u, seen, there, cutoffs)
            total = found if total is None else total.merge(found)  # type: ignore[arg-type]
        if total is None:
            raise DataError("nothing is held out", where=held.source)
        return total

    # ------------------------------------------------------------ verify, save

    def verify(
        self,
        rows: Any,
        b: Any = None,
        *,
        weights: Any = None,
        held_out: Any = None,
        memory: str | int | None = None,
        executor: Executor | None = None,
        progress: bool | None = False,
    ) -> Certificate:
        """Measure the certificate again from the ratings and the item factors alone.

        What the solution says of held-out ratings is measured again where those are given, or are part of the ratings;
        False leaves them out.
        """
        if b is not None or weights is not None:
            raise OptionError("a solution of als has no targets and no weights")
        runs, shown = as_executor(executor), Progress(check.progress(progress))
        budget = runs.memory() if memory is None else check.memory(memory)
        rows = as_ratings(rows)
        model = self.model
        if rows.shape != (model.users, len(model.v)):
            return Certificate(
                {},
                failures=(
                    f"the data is of {rows.shape[0]:,} users and {rows.shape[1]:,} items; "
                    f"the solution of {model.users:,} and {len(model.v):,}",
                ),
            )
        if not np.isfinite(model.v).all():
            return Certificate({}, failures=("the saved factors are not finite",))
        engine = Engine(budget, None, 0, runs, progress=shown)
        failures = self._denied(rows, held_out)
        with single_threaded_blas():
            seen = survey(engine, rows, model.objective)
            if not np.array_equal(seen.item_counts, model.item_counts):
                failures.append("the data has other numbers of ratings than what was solved")
            if model.objective.mean and abs(seen.mean - self.mean) > 1e-9 * (1 + abs(seen.mean)):
                failures.append("the data has another mean than what was solved")
            claimed = self.certificate.bounds.get("duality_gap")
            enough = self.gap or (claimed.value if claimed else 0.0)
            found = gap(
                engine, rows, model.objective, model.v, model.user_penalties(seen.most), model.item_penalties,
                biases=model.biases, nonnegative=model.nonnegative,
                passes=VERIFY_PASSES, enough=enough, seed=self.seed + 1, label="verify",
            )  # fmt: skip
        certificate = certified(found, self.tol, self.gap, rows, found.passes + 1, self.seed + 1)
        for name, bound in certificate.bounds.items():
            claim = self.certificate.bounds.get(name)
            if claim is None:
                failures.append(f"the saved certificate lacks {name}")
            elif claim.tolerance != bound.tolerance:
                failures.append(f"{name}: the tolerances recorded do not agree")
            elif not claim.value >= (0.99 if name == "duality_gap" else 1 - 1e-6) * _least(bound, found) - 1e-12:
                failures.append(f"{name}: the solution claims {claim.value:.3e}, the data says {bound.value:.3e}")
        return Certificate(
            certificate.bounds, certificate.passes, certificate.nbytes, certificate.seeds, tuple(failures)
        )

    def _denied(self, rows: Rows, held_out: Any) -> list[str]:
        """What held-out ratings deny of what the solution says of them."""
        held = held_out_of(rows, held_out)
        if self.held_out is None and held_out is not None and held is not None:
            raise OptionError("this solution says nothing of held-out ratings", hint="Leave held_out= out.")
        if self.held_out is None or held is None:
            return []
        return disagreements(self.held_out, HeldOut(rows, held, self.seed).metrics(self.model))

    def _problem(self) -> dict[str, Any]:
        return {
            "objective": asdict(self.model.objective),
            "most": self.model.most,
            "users": self.model.users,
            "biases": self.model.biases,
            "nonnegative": self.model.nonnegative,
            "tol": self.tol,
            "gap": self.gap,
            "seed": self.seed,
            "history": self.history,
            "held_out": None if self.held_out is None else self.held_out.to_json(),
            "source": self._place(),
        }

    def _place(self) -> str:
        """Where the store of the ratings is; empty when they are in memory."""
        folder = getattr(self._ratings, "folder", None)
        return os.path.abspath(folder) if folder else self._source

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"factors": self.model.v, "item_counts": self.model.item_counts}

    @classmethod
    def _restore(
        cls,
        problem: dict[str, Any],
        arrays: dict[str, np.ndarray],
        certificate: Certificate,
        trace: Trace,
        plan: Plan[Any],
    ) -> ALSResult:
        v, counts = arrays["factors"], arrays["item_counts"]
        if v.ndim != 2 or counts.shape != (len(v),) or counts.dtype.kind != "i" or v.dtype != np.float64:
            raise ValueError("factors and counts do not fit")
        model = Model(
            Objective(**problem["objective"]),
            v,
            counts,
            problem["most"],
            problem["users"],
            problem["biases"],
            problem["nonnegative"],
        )
        return cls(
            model=model,
            tol=problem["tol"],
            gap=problem["gap"],
            seed=problem["seed"],
            history=problem["history"],
            certificate=certificate,
            trace=trace,
            plan=plan,
            source=problem["source"],
            held_out=restored(problem.get("held_out")),
        )

    def __repr__(self) -> str:
        kind = "implicit" if self.model.objective.implicit else "explicit"
        held = "certified" if self.certificate.holds else "NOT certified"
        return f"<ALSResult {self.model.users:,} users × {len(self.model.v):,} items, rank {self.rank}, {kind}, {held}>"


def _least(bound: Bound, found: Gap) -> float:
    """What a true claim of this bound cannot be below: of what rests on a random start, what that found from below."""
    lower = {"duality_gap": found.least, "dual_norm": found.outside[0]}
    return lower.get(bound.name, bound.value)


def certified(found: Gap, tol: float, wanted: float | None, rows: Rows, passes: int, seed: int) -> Certificate:
    """The certificate that figures of optimality amount to."""
    e = found.evaluated
    attainable = 0.5 * (e.stationarity * e.norm) ** 2
    bounds = [
        Bound(
            "stationarity",
            e.stationarity,
            "norm of the gradient in users and items, relative to that of the factors, each scaled by its penalty",
            "measured",
            tol,
        ),
        Bound(
            "duality_gap",
            found.value,
            "distance of the objective to its least value over factors of any rank, relative to it",
            "probabilistic" if found.confidence < 1 else "measured",
            wanted,
            found.confidence,
        ),
        Bound(
            "objective",
            e.value,
            "the objective at these factors, and a lower bound of what any factors can reach",
            "probabilistic" if found.confidence < 1 else "measured",
            None,
            found.confidence,
            relative=False,
            lower=e.value * (1 - min(found.value, 1.0)),
        ),
        Bound(
            "newton_decrement",
            attainable / e.value if e.value > 0 else 0.0,
            "upper bound of what a half-step of users or of items could still lower the objective by, relative to it",
            "measured",
        ),
        Bound(
            "dual_norm",
            found.norm,
            "upper bound of the spectral norm of the scaled residuals: one where no further factor would help",
            "probabilistic" if found.confidence < 1 else "measured",
            None,
            found.confidence,
            relative=False,
            lower=max(found.outside[0], 0.0),
        ),
    ]
    return Certificate({b.name: b for b in bounds}, passes, passes * rows.stored_nbytes, {"gap": seed})
