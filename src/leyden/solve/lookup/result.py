"""The answer of a mixed model with features by lookup: shared coefficients, and those of any group when asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Certificate
from leyden.engine.budget import thread_count
from leyden.engine.executor import Executor, as_executor
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine
from leyden.errors import DataError, OptionError
from leyden.factor.survey import as_ratings
from leyden.plan import Plan
from leyden.rows import Rows
from leyden.rows.ids import Ids
from leyden.solution import Solution, Trace
from leyden.solve.lookup import _kernels as _lookup_kernels
from leyden.solve.lookup.certificate import Assessment, Factor, assess
from leyden.solve.lookup.passes import Complement, Residual, Residuals, Schur, memory_of
from leyden.solve.lookup.problem import Features, Table

kernels: Any = _lookup_kernels

#: Groups whose coefficients are computed at once.
BATCH = 20_000

#: Relative difference of figures computed twice, in float32 and in another order, that is no cause for doubt.
AGREE = 1e-5


@dataclass(frozen=True, eq=False)
class Model:
    """What the coefficients of a group follow from, with the rows of the group.

    Attributes
    ----------
    table : Table
    features : Features
        All columns, in the user's order.
    kept : int64
        Those whose coefficients are sought; the others are zero.
    beta : float64, shape (p,)
    ridge : float
    groups, rows, most : int
        How many there are, and rows of the largest group.
    single : bool
        Whether groups were solved in float32.
    """

    table: Table
    features: Features
    kept: np.ndarray
    beta: np.ndarray
    ridge: float
    groups: int
    rows: int
    most: int
    single: bool

    def effects(self, matrix: Any) -> np.ndarray:
        """Coefficients (groups, k) of the groups in the rows of a CSR matrix, in float64."""
        found = self.multipliers(matrix)
        return found if self.table.root is None else found @ self.table.root.T

    def multipliers(self, matrix: Any) -> np.ndarray:
        """As :meth:`effects`, of the table as it is kept."""
        table, features = self.table, self.features
        indptr = np.asarray(matrix.indptr, np.int64)
        out = np.zeros((len(indptr) - 1, table.k))
        memory = memory_of(table.f.shape[1], 0, int(np.diff(indptr).max(initial=0)))
        kernels.effects(
            indptr, np.asarray(matrix.indices, np.int32), np.asarray(matrix.data), table.f, table.delta,
            features.starts, features.columns, features.weights, np.append(self.beta, 0.0), out,
            *(np.zeros(*memory[name]) for name in ("w", "square", "inverse", "rows", "small")),
        )  # fmt: skip
        return out

    def original(self, items: np.ndarray) -> np.ndarray:
        """Rows of the table in whitened coordinates, float64."""
        table = self.table
        rows: np.ndarray = table.f[items, : table.k].astype(np.float64) * np.sqrt(table.delta[: table.k])
        return rows


class PersonalisedRegressions(Solution):
    """Coefficients shared by all groups, and of each group: ``y = x·β + z·u_g + ε``.

    Those of groups are not kept: they are computed from their rows when they are asked for.

    Attributes
    ----------
    beta : ndarray, shape (p,)
        Shared coefficients, in the order of the columns; zero for those that the data says nothing of.
    fixed : dict of str to float
        The same by name.
    undetermined : tuple of str
        Names of columns that no row has, or that are sums of others.
    covariance : ndarray, shape (k,) or (k, k)
        Δ, or its diagonal if it has nothing else.
    residual_variance : float
        σ²: the objective divided by the rows less the shared coefficients.
    log_likelihood : float
        At the maximum over β and σ², Δ being as given.
    standard_errors : ndarray, shape (p,)
        ``σ (S⁻¹)_jj^½``; NaN where undetermined.
    ratings : Rows
        The rows of the groups. A result that was loaded opens the store it was made from, if that is still there;
        assign :attr:`ratings` otherwise.
    certificate, trace, plan
    """

    kind = "lookup_mixed"

    def __init__(
        self,
        *,
        model: Model,
        complement: Complement,
        objective: float,
        tol: float,
        certificate: Certificate,
        trace: Trace,
        plan: Plan[Any],
        source: str = "",
    ):
        self.model, self.complement, self.objective, self.tol = model, complement, objective, tol
        self.certificate, self.trace, self.plan = certificate, trace, plan
        self._ratings: Rows | None = None
        self._source = source

    # ------------------------------------------------------------ estimates

    @property
    def beta(self) -> np.ndarray:
        return self.model.beta

    @property
    def fixed(self) -> dict[str, float]:
        return dict(zip(self.model.features.names, self.beta.tolist(), strict=True))

    @property
    def undetermined(self) -> tuple[str, ...]:
        kept = set(self.model.kept.tolist())
        return tuple(name for j, name in enumerate(self.model.features.names) if j not in kept)

    @property
    def covariance(self) -> np.ndarray:
        root = self.model.table.root
        return self.model.table.delta[: self.model.table.k] if root is None else root @ root.T

    @property
    def residual_variance(self) -> float:
        return self.objective / max(self.model.rows - len(self.model.kept), 1)

    @property
    def log_likelihood(self) -> float:
        n = self.model.rows
        if self.objective == 0:
            return math.inf
        return -0.5 * (n * math.log(2 * math.pi * self.objective / n) + self.complement.log_determinant + n)

    @cached_property
    def _factor(self) -> Factor:
        return Factor(self.complement, self.model.ridge)

    @cached_property
    def standard_errors(self) -> np.ndarray:
        errors = np.full(len(self.beta), np.nan)
        errors[self.model.kept] = np.sqrt(self.residual_variance * self._factor.variances)
        return errors

    # ------------------------------------------------------------ groups

    @property
    def ratings(self) -> Rows:
        if self._ratings is None:
            if not (self._source and Path(self._source).exists()):
                raise OptionError(
                    "the rows this was made from are not at hand", hint="Open them, and assign result.ratings."
                )
            self.ratings = as_ratings(self._source)
        assert self._ratings is not None
        return self._ratings

    @ratings.setter
    def ratings(self, rows: Any) -> None:
        rows = as_ratings(rows)
        if failure := self._unlike(rows):
            raise DataError(failure, where=rows.source)
        self._ratings = rows

    def _unlike(self, rows: Rows) -> str:
        n, m = rows.shape
        if (n, m) == (self.model.groups, len(self.model.table.f)):
            return ""
        return f"the data is of {n:,} groups and {m:,} items; the solution of {self.model.groups:,} and " + (
            f"{len(self.model.table.f):,}"
        )

    def _numbers(self, kind: str, ids: Any) -> np.ndarray:
        """The numbers of ids; one that is not there is refused."""
        found = getattr(self.ratings, "users" if kind == "group" else "items", None)
        n = self.model.groups if kind == "group" else len(self.model.table.f)
        known = found if isinstance(found, Ids) else Ids.identity(n, kind)
        numbers = known.index(np.atleast_1d(ids), unknown=-1)
        if (numbers < 0).any():
            wrong = np.atleast_1d(np.asarray(ids, object))[int(np.argmax(numbers < 0))]
            some = ", ".join(repr(one) for one in known.take(np.arange(min(3, len(known)))).tolist())
            raise DataError(
                f"{kind} {wrong!r} is not among the {len(known):,} there are", hint=f"Some that are: {some}."
            )
        return numbers

    def _rows_of(self, number: int) -> Any:
        rows = self.ratings
        return rows.read(number, number + 1, rows.buffer(1)).data

    def random(self, ids: Any) -> np.ndarray:
        """Coefficients (len(ids), k) of groups, in the order asked for, from their rows; zero for one without any.

        Raises
        ------
        DataError
            Of an id that is not there.
        """
        numbers = self._numbers("group", ids)
        return np.concatenate([np.zeros((0, self.model.table.k)), *(self._effect(int(g)) for g in numbers)])

    def _effect(self, number: int) -> np.ndarray:
        return self.model.effects(self._rows_of(number))

    def random_covariance(self, group: Any) -> np.ndarray:
        """Covariance (k, k) of the error of a group's coefficients, that of β included.

        ``σ² (Λ H⁻¹ Λᵀ + C S⁻¹ Cᵀ)`` with ``C = Λ H⁻¹ Zᵀ X`` (G. K. Robinson, "That BLUP is a good thing", 1991).
        """
        model, k = self.model, self.model.table.k
        items = np.asarray(self._rows_of(int(self._numbers("group", group)[0])).indices)
        z = model.original(items)
        inverse = np.linalg.inv(z.T @ z + np.eye(k))
        x = model.features.chosen(model.kept).matrix()[items]
        c = inverse @ (x.T @ z).T
        covariance = self.residual_variance * (inverse + c @ self._factor.covariance() @ c.T)
        root = model.table.root if model.table.root is not None else np.diag(np.sqrt(model.table.delta[:k]))
        found: np.ndarray = root @ covariance @ root.T
        return found

    def predict(self, groups: Any, items: Any) -> Any:
        """``x·β + z·u_g`` for pairs of a group and an item, by their ids: a number, or an array for arrays."""
        single = np.ndim(groups) == 0 and np.ndim(items) == 0
        groups, items = np.broadcast_arrays(np.atleast_1d(groups), np.atleast_1d(items))
        asked, which = np.unique(self._numbers("group", groups), return_inverse=True)
        numbers = self._numbers("item", items)
        v = np.concatenate([self.model.multipliers(self._rows_of(int(g))) for g in asked])[which.ravel()]
        f = self.model.table.f[numbers, : self.model.table.k].astype(np.float64)
        found = self.model.features.matrix()[numbers] @ self.beta + np.einsum("ij,ij->i", f, v)
        return float(found[0]) if single else found

    def stream(self, path: str | os.PathLike, *, threads: int | None = None, progress: bool | None = False) -> Path:
        """Write the coefficients of all groups as a Parquet file with columns ``group`` and ``coefficients`` (a list).

        A row group has those of 20,000 groups; a few are in memory at once. The file is there when it is complete.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        target, rows = Path(os.path.expanduser(path)), self.ratings
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        ids = getattr(rows, "users", None) or Ids.identity(self.model.groups, "group")
        count = check.threads(threads) or thread_count()
        shown = Progress(check.progress(progress))
        writer = None
        try:
            with shown.sweep("coefficients of groups", rows.shape[0], rows.stored_nbytes) as on_rows:
                for first, effects in self._effects(count):
                    column = pa.FixedSizeListArray.from_arrays(pa.array(effects.ravel()), effects.shape[1])
                    named = pa.array(ids.take(np.arange(first, first + len(effects))))
                    table = pa.table({"group": named, "coefficients": column})
                    writer = writer or pq.ParquetWriter(partial, table.schema, use_dictionary=False)
                    writer.write_table(table)
                    on_rows(len(effects))
            if writer:
                writer.close()
                partial.replace(target)
        except OSError as error:
            raise DataError(f"the file cannot be written ({error.strerror})", where=str(target)) from None
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _effects(self, threads: int) -> Iterator[tuple[int, np.ndarray]]:
        """First group and coefficients of batches, in order, computed by threads."""
        rows, n = self.ratings, self.model.groups

        def batch(first: int) -> np.ndarray:
            last = min(first + BATCH, n)
            return self.model.effects(rows.read(first, last, rows.buffer(last - first)).data)

        with ThreadPoolExecutor(threads) as pool:
            starts = list(range(0, n, BATCH))
            ahead = [pool.submit(batch, first) for first in starts[: 2 * threads]]
            for k, first in enumerate(starts):
                effects = ahead.pop(0).result()
                if k + 2 * threads < len(starts):
                    ahead.append(pool.submit(batch, starts[k + 2 * threads]))
                yield first, effects

    # ------------------------------------------------------------ verify, save

    def verify(
        self,
        rows: Any,
        b: Any = None,
        *,
        weights: Any = None,
        memory: str | int | None = None,
        executor: Executor | None = None,
        progress: bool | None = False,
    ) -> Certificate:
        """Make both passes again, and compare what they say of β with what is claimed."""
        if b is not None or weights is not None:
            raise OptionError("a solution of mixed has its targets in the rows, and no weights")
        runs, shown = as_executor(executor), Progress(check.progress(progress))
        budget = runs.memory() if memory is None else check.memory(memory)
        rows, model = as_ratings(rows, memory), self.model
        if failure := self._unlike(rows):
            return Certificate({}, failures=(failure,))
        if not (np.isfinite(model.beta).all() and np.isfinite(model.table.f).all()):
            return Certificate({}, failures=("the saved coefficients, or the table, are not finite",))
        features = model.features.chosen(model.kept)
        engine = Engine(budget, None, nbytes(model.table, model.features), runs, progress=shown)
        most = max(model.most, int(getattr(rows, "max_count", 0)) or largest(rows))
        how = model.table, features, most, model.single
        complement, residual = both(engine, rows, Schur(*how), Residuals(*how, model.beta[model.kept]))
        if complement.bad >= 0:
            return Certificate({}, failures=(f"{rows.locate(complement.bad)}: a target is not finite",))
        try:
            factor = Factor(complement, model.ridge)
        except DataError as error:
            return Certificate({}, failures=(str(error),))
        found = assess(factor, model.beta[model.kept], residual, self.tol, correct=False)
        failures = self._doubts(found, complement, residual)
        return Certificate(found.bounds, 1, rows.stored_nbytes, {}, tuple(failures))

    def _doubts(self, found: Assessment, complement: Complement, residual: Residual) -> list[str]:
        """What the solution claims and the data does not bear out."""
        failures = []
        if residual.rows != self.model.rows:
            failures.append(f"the data has {residual.rows:,} rows; the solution is of {self.model.rows:,}")
        for name, bound in found.bounds.items():
            claim = self.certificate.bounds.get(name)
            if claim is None:
                failures.append(f"the saved certificate lacks {name}")
            elif claim.tolerance != bound.tolerance:
                failures.append(f"{name}: the tolerances recorded do not agree")
            elif found.energy > 0 and not claim.value >= 0.99 * bound.value * found.least / found.energy:
                failures.append(f"{name}: the solution claims {claim.value:.3e}, the data says {bound.value:.3e}")
        pairs = {
            "objective": (self.objective, found.objective),
            "log-determinant": (self.complement.log_determinant, complement.log_determinant),
        }
        for name, (claimed, true) in pairs.items():
            if not abs(claimed - true) <= AGREE * (abs(true) + self.model.rows * AGREE):
                failures.append(f"{name}: the solution says {claimed:.9g}, the data {true:.9g}")
        size = np.sqrt(np.abs(np.diag(complement.s)))
        if (
            complement.s.shape != self.complement.s.shape
            or not (np.abs(self.complement.s - complement.s) <= AGREE * np.outer(size, size)).all()
        ):
            failures.append("the saved Schur complement, which standard errors rest on, is not that of the data")
        return failures

    def _problem(self) -> dict[str, Any]:
        model, complement = self.model, self.complement
        return {
            "names": list(model.features.names),
            "k": model.table.k,
            "ridge": model.ridge,
            "groups": model.groups,
            "rows": model.rows,
            "most": model.most,
            "single": model.single,
            "objective": self.objective,
            "log_determinant": complement.log_determinant,
            "error": complement.error,
            "tol": self.tol,
            "source": self._place(),
        }

    def _place(self) -> str:
        """Where the store of the rows is; empty when they are in memory."""
        folder = getattr(self._ratings, "folder", None)
        return os.path.abspath(folder) if folder else self._source

    def _arrays(self) -> dict[str, np.ndarray]:
        model, table = self.model, self.model.table
        arrays = {
            "beta": model.beta,
            "kept": model.kept,
            "table": np.ascontiguousarray(table.f[:, : table.k]),
            "delta": table.delta[: table.k],
            "starts": model.features.starts,
            "columns": model.features.columns,
            "weights": model.features.weights,
            "schur": self.complement.s,
            "right_side": self.complement.t,
            "slack": self.complement.slack,
        }
        return arrays if table.root is None else {**arrays, "root": table.root}

    @classmethod
    def _restore(
        cls,
        problem: dict[str, Any],
        arrays: dict[str, np.ndarray],
        certificate: Certificate,
        trace: Trace,
        plan: Plan[Any],
    ) -> PersonalisedRegressions:
        beta, kept, f, k = arrays["beta"], arrays["kept"], arrays["table"], problem["k"]
        starts, columns, weights = arrays["starts"], arrays["columns"], arrays["weights"]
        p, names = len(beta), tuple(problem["names"])
        if (
            f.ndim != 2 or f.shape[1] != k or f.dtype != np.float32 or starts.shape != (len(f) + 1,)
            or arrays["delta"].shape != (k,) or (arrays["delta"] < 0).any()
            or columns.shape != weights.shape or len(columns) != starts[-1] or (np.diff(starts) < 0).any()
            or starts[0] != 0 or (len(columns) and not 0 <= columns.min() <= columns.max() < p)
            or len(names) != p or beta.dtype != np.float64 or beta.ndim != 1
            or len(np.unique(kept)) != len(kept) or (len(kept) and not 0 <= kept.min() <= kept.max() < p)
            or arrays["schur"].shape != (len(kept), len(kept)) or arrays["slack"].shape != kept.shape
        ):  # fmt: skip
            raise ValueError("table, features and coefficients do not fit")
        complement = Complement(
            arrays["schur"], arrays["right_side"], arrays["slack"], problem["error"], problem["log_determinant"],
            problem["rows"], -1,
        )  # fmt: skip
        model = Model(
            Table.of(f, arrays["delta"], arrays.get("root"), k), Features(starts, columns, weights, p, names), kept,
            beta, problem["ridge"], problem["groups"], problem["rows"], problem["most"], problem["single"],
        )  # fmt: skip
        return cls(
            model=model,
            complement=complement,
            objective=problem["objective"],
            tol=problem["tol"],
            certificate=certificate,
            trace=trace,
            plan=plan,
            source=problem["source"],
        )

    def __repr__(self) -> str:
        model = self.model
        held = "certified" if self.certificate.holds else "NOT certified"
        return (
            f"<PersonalisedRegressions {model.groups:,} groups × {model.table.k} coefficients, {len(model.kept):,} "
            f"shared, {model.rows:,} rows, {held}>"
        )


def nbytes(table: Table, features: Features) -> int:
    """Memory that the model takes beside what passes do."""
    p = features.p
    return table.f.nbytes + 2 * features.nbytes + 5 * 8 * p * p


def both(engine: Engine, rows: Rows, schur: Schur, residuals: Residuals) -> tuple[Complement, Residual]:
    """What two reductions find in one pass."""
    with single_threaded_blas():
        complement, residual = engine.sweep(rows, [schur, residuals], "verify")
    return complement, residual


def largest(rows: Rows) -> int:
    """Rows of the largest group, by a look at all of them."""
    most, length = 0, max(1, int(2**25 / max(rows.row_nbytes, 1)))
    buffer = rows.buffer(min(length, rows.shape[0]))
    for start in range(0, rows.shape[0], length):
        data: Any = rows.read(start, min(start + length, rows.shape[0]), buffer).data
        most = max(most, int(np.diff(data.indptr).max(initial=0)))
    return most
