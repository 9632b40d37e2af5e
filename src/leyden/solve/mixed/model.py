"""Linear mixed models: ``y = X β + Σ_t Z_t u_t + ε`` with ``u_t ~ N(0, σ² Δ_t)`` for every group, ``ε ~ N(0, σ² / w)``.

One pass finds coordinates, one sums cross-products (:mod:`leyden.solve.mixed.products`); the covariances are estimated
from these alone (:mod:`leyden.solve.mixed.likelihood`, :mod:`leyden.solve.mixed.estimate`); one more pass certifies the
coefficients (:mod:`leyden.solve.mixed.certify`), and another one corrects them where that is not enough.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from leyden import options as check
from leyden.certificate import Bound, Certificate
from leyden.engine.budget import format_bytes, layout, reading_nbytes
from leyden.engine.checkpoint import Checkpoint, as_checkpoint
from leyden.engine.executor import Executor, as_executor
from leyden.engine.fingerprint import fingerprint
from leyden.engine.local import single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine
from leyden.errors import BudgetError, DataError, OptionError
from leyden.plan import PassPlan, Plan, machine, verb
from leyden.rows.base import Rows, find_nonfinite
from leyden.rows.open import are_paths, column_names, is_frame
from leyden.rows.roles import WithRoles
from leyden.rows.table import TableRows
from leyden.solve.mixed.certify import Assessment, Coefficients, Gradient, System
from leyden.solve.mixed.design import Design, design
from leyden.solve.mixed.elimination import products
from leyden.solve.mixed.estimate import Covariance, Objective, estimate
from leyden.solve.mixed.formula import ModelFormula, from_lists, parse
from leyden.solve.mixed.likelihood import Likelihood
from leyden.solve.mixed.products import Coordinates, CrossProducts, NotFiniteError, Triangle
from leyden.solve.mixed.result import MixedModel, RandomEffects

#: Passes that may correct the coefficients.
MAX_CORRECTIONS = 4

#: By how much ``−2 ℓ`` may still fall where it is called largest.
STATIONARY = 1e-6

#: Matrices of all shared columns that a likelihood and its gradient are made with.
WORK = 8

#: Shared columns up to which crossed intercepts of given variances are factored rather than solved for by iterations.
MOST_FACTORED = 10_000

#: Likelihoods that an estimate takes, about, for a plan.
EVALUATIONS = 30


@dataclass(frozen=True)
class Options:
    """How a mixed model is fitted."""

    method: str
    covariance: Any
    tol: float
    memory: int
    threads: int | None
    progress: bool | None
    checkpoint: Checkpoint | None
    executor: Executor | None


@verb
def mixed(
    model: Any,
    data: Any = None,
    *,
    target: Any = None,
    fixed: Sequence[str] | None = None,
    random: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    group: Any = None,
    absorb: Sequence[str] | str | None = None,
    weights: Any = None,
    covariance: Any = "estimate",
    method: str = "REML",
    vcov: str = "iid",
    cluster: Sequence[str] | str | None = None,
    missing: str = "error",
    intercept: bool = False,
    ridge: float = 0.0,
    tol: float | None = None,
    memory: str | int | None = None,
    threads: int | None = None,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Plan[Any]:
    """Fit a linear mixed model and certify its coefficients.

    Also regressions with absorbed factors (``absorb``), and personalised regressions whose features are looked up by
    item (``random`` as a table).

    Parameters
    ----------
    model : str, or data
        A formula, ``"y ~ x + (1 + x | g)"``: what stands in brackets before a bar are coefficients that each group
        behind it has of its own. Without a formula, the data, and the model in ``target``, ``fixed``, ``random`` and
        ``group``.
    data : data frame, path, glob or list of paths, Rows, or mapping of arrays
        A table; of text columns, the levels are coded against the first one, as formulas do.
    target : str, optional
        The column to explain. Rows that were opened with a target need none.
    fixed, random : list of str, optional
        Columns, or terms of a formula, that all rows share, and that each group has coefficients of its own for. Each
        list is the right-hand side of a formula: there is an intercept unless the list has a ``"0"``. Without
        ``random`` there is a random intercept. For several groupings, a mapping from groups to lists.
    group : str, optional
        The column of the groups, text or whole numbers; ``"school:class"`` for combinations.
    absorb : list of str, optional
        Factors whose levels each have a coefficient, without a penalty, as many as there are:
        ``"wage ~ tenure | worker + firm"`` says the same. There are no random terms then, and all rows are in memory.
    weights : str, optional
        A column of weights, zero or more: the noise of a row has variance σ² / w.
    covariance : str, number, array or mapping
        What the coefficients of a group vary like. "estimate" (or "full"): any covariance, estimated; "diagonal":
        uncorrelated; "identity": uncorrelated with one variance. A number, a vector or a matrix gives Δ, the covariance
        relative to σ². A mapping gives one of these for each grouping.
    method : {"REML", "ML"}
        Restricted, or plain, maximum likelihood.
    vcov : {"iid", "hetero", "cluster"}
        With ``absorb``: standard errors for errors of one variance, robust to heteroskedasticity (HC1), or to
        correlation within clusters (CRV1; Cameron, Gelbach, Miller 2011), with the factors for small samples of fixest.
    cluster : str or list of str, optional
        One column of clusters or two.
    missing : {"error", "drop"}
        What to do about rows with missing values.
    intercept, ridge
        Of personalised regressions.
    tol : float, optional
        What the certificate must reach: by default 1e-10, with absorbed factors 1e-8, for personalised regressions
        1e-6.
    memory, threads, checkpoint, executor, progress
        As in :func:`leyden.lstsq`.

    Returns
    -------
    MixedModel
        With absorbed factors a FixedEffects, of ratings a PersonalisedRegressions.

    Raises
    ------
    DataError, OptionError, BudgetError, CheckpointError
    Interrupted
        On Ctrl-C or SIGTERM, with a checkpoint.

    Notes
    -----
    **Features by lookup.** When ``model`` holds ratings (anything :func:`leyden.als` takes: a store, a sparse matrix)
    and ``random`` is an array of shape (items, k), every user has a regression of k coefficients on the features of the
    items rated: a row is a rating and takes a few bytes, however long its features are. ``fixed`` are then categories
    of items, (items,) or (items, m) whole numbers, or features, ``covariance`` is given, and ``intercept`` gives each
    user one.

    Likelihoods, estimates and standard errors are those of Bates, Mächler, Bolker and Walker (J. Stat. Softw. 67(1),
    2015). Nothing is sorted and nothing is written to the disk: what memory must hold are the codes of the groups and,
    for the grouping with the most coefficients, k (k + shared) numbers for each group.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> rng = np.random.default_rng(0)
    >>> shop = rng.integers(0, 20, 400)
    >>> data = {"price": rng.random(400), "shop": shop}
    >>> data["sales"] = 5 - 2 * data["price"] + rng.standard_normal(20)[shop] + 0.5 * rng.standard_normal(400)
    >>> model = ly.mixed(data, target="sales", fixed=["price"], group="shop")
    >>> sorted(model.fixed)
    ['Intercept', 'price']
    >>> model.random([7]).shape
    (1, 1)
    """
    means: dict[str, Any] = {"memory": memory, "threads": threads, "checkpoint": checkpoint, "executor": executor}
    if random is not None and not isinstance(random, str | Mapping) and np.ndim(random) == 2:
        from leyden.solve.lookup.model import lookup_mixed

        return lookup_mixed.plan(
            model, random, fixed=fixed, covariance=covariance, intercept=intercept, ridge=ridge,
            tol=1e-6 if tol is None else tol, progress=progress, **means,
        )  # fmt: skip
    options = Options(
        method=check.one_of("method", str(method).upper(), ("REML", "ML")),
        covariance=covariance,
        tol=check.fraction("tol", 1e-10 if tol is None else tol),
        memory=as_executor(executor).memory() if memory is None else check.memory(memory),
        threads=check.threads(threads),
        progress=check.progress(progress),
        checkpoint=as_checkpoint(checkpoint),
        executor=executor,
    )
    missing = check.one_of("missing", missing, ("error", "drop"))
    formula, table, weight = _model(model, data, target, fixed, random, group, absorb, weights)
    kept: dict[str, Any] = {
        "missing": missing,
        "weights": weight,
        "tol": options.tol,
        "model": formula.to_json(),
    }
    clusters = [cluster] if isinstance(cluster, str) else list(cluster or ())
    built = prepared(formula, table, weight, missing, options.memory, clusters=clusters)
    if formula.absorb:
        from leyden.solve.absorb.model import plan

        _refuse_unused(means)
        kept |= {"clusters": clusters, "tol": 1e-8 if tol is None else options.tol}
        return plan(built, vcov, kept, options.memory, options.threads, options.progress)
    if clusters or vcov != "iid":
        raise OptionError("vcov= and cluster= are for absorbed factors", hint="Leave them out.")
    covariances = _structures(built, options.covariance)
    if (penalties := _crossed(built, covariances, options.memory)) is not None:
        from leyden.solve.absorb.model import plan

        _refuse_unused(means)
        kept |= {"clusters": [], "penalties": penalties, "tol": 1e-8 if tol is None else options.tol}
        return plan(built, "iid", kept, options.memory, options.threads, options.progress)
    identity = {
        "verb": "mixed",
        "formula": str(formula),
        "method": options.method,
        "covariance": [[list(blocks), None if factor is None else factor.tolist()] for blocks, factor in covariances],
        "memory": None if memory is None else options.memory,
        **kept,
        "data": fingerprint(built.rows) if options.checkpoint else None,
    }
    begun = options.checkpoint.begun(identity) if options.checkpoint else None
    if begun:
        options = replace(options, memory=begun["memory"])
        chosen: Plan[MixedModel] = Plan.from_json(begun)
    else:
        chosen = _plan(built, options)
    return replace(chosen, _run=lambda plan: _run(plan, built, covariances, options, identity, kept))


def _refuse_unused(means: Mapping[str, Any]) -> None:
    """Conjugate gradients over rows in memory are neither saved on the way nor shared out among machines."""
    for name in ("checkpoint", "executor"):
        if means[name] is not None:
            raise OptionError(f"{name}= is not for absorbed factors, or crossed ones of this size, which are in memory")


# ---------------------------------------------------------------- what is asked


def prepared(
    formula: ModelFormula, table: Any, weight: str | None, missing: str, memory: int, *, clusters: Sequence[str] = ()
) -> Design:
    """The design of a formula for a table, which has a term that groups rows."""
    if not formula.random and not formula.absorb:
        raise OptionError("there is no random term", hint="Add one, like (1 | group), or use leyden.lstsq.")
    if formula.random and formula.absorb:
        raise OptionError("absorbed factors beside random terms are not fitted", hint="Leave one of them out.")
    return design(formula, table, weight=weight, clusters=clusters, missing=missing, memory=memory)


def _model(
    model: Any, data: Any, target: Any, fixed: Any, random: Any, group: Any, absorb: Any, weights: Any
) -> tuple[ModelFormula, Any, str | None]:
    """The formula, a table that it can be read from, and the column of the weights."""
    written = isinstance(model, str) and "~" in model
    if written and data is None:
        raise OptionError("there is a formula and no data", hint='Call mixed("y ~ x + (1 | g)", data).')
    if written and any(part is not None for part in (target, fixed, random, group)):
        raise OptionError("the formula says what target=, fixed=, random= and group= would", hint="Leave them out.")
    if not written and data is not None:
        raise OptionError(f"'{model}' is no formula", hint="Write it like 'y ~ x + (1 | group)'.")
    arrays = {"target": target, "group": group, "weights": weights}
    table, named = as_table(data if written else model, arrays)
    weight = named["weights"]
    factors = [absorb] if isinstance(absorb, str) else list(absorb or ())
    if written:
        formula = parse(model)
        if factors:
            formula = replace(formula, absorb=(*formula.absorb, *(tuple(name.split(":")) for name in factors)))
    else:
        known = column_names(table)
        formula = _listed(known, named["target"], fixed, random, named["group"], factors)
    return formula, table, weight


def _listed(
    known: Sequence[str], target: Any, fixed: Any, random: Any, group: Any, absorb: Sequence[str]
) -> ModelFormula:
    if target is None:
        raise OptionError("there is no target", hint="Give target=, or a formula.")
    fixed = [] if fixed is None else [fixed] if isinstance(fixed, str) else list(fixed)
    if isinstance(random, Mapping):
        if group is not None:
            raise OptionError("random= names the groups already", hint="Leave out group=.")
        terms = {
            str(name): [columns] if isinstance(columns, str) else list(columns) for name, columns in random.items()
        }
    elif absorb and group is None and random is None:
        terms = {}
    else:
        if group is None:
            raise OptionError("there are no groups", hint="Give group=, the column whose values are the groups.")
        columns = [] if random is None else [random] if isinstance(random, str) else list(random)
        terms = {str(group): columns}
    for name in (*fixed, *(name for columns in terms.values() for name in columns)):
        if not isinstance(name, str):
            raise OptionError(f"{name!r} is no name of a column", hint="Columns are named by text.")
    return from_lists(str(target), fixed, terms, absorb, known)


def as_table(data: Any, roles: Mapping[str, Any]) -> tuple[Any, dict[str, str | None]]:
    """Something with named columns, to which roles that are arrays are added, and the name of each role's column."""
    import pyarrow as pa

    named = {role: value for role, value in roles.items() if value is None or isinstance(value, str)}
    arrays = {role: value for role, value in roles.items() if role not in named}
    if isinstance(data, Mapping):
        try:
            data = pa.table(
                {str(name): pa.array(np.asarray(column), from_pandas=True) for name, column in data.items()}
            )
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise DataError(f"the columns make no table ({str(error).splitlines()[0]})") from None
    if isinstance(data, Rows):
        data, own = _columns_of(data, named)
        named = {role: own.get(role) if value is None else value for role, value in named.items()}
    if not is_frame(data) and not (are_paths(data) and not arrays):
        if are_paths(data):
            raise OptionError(f"{next(iter(arrays))}= is an array, and the data is in files", hint="Name a column.")
        array = np.asarray(data)
        if array.ndim != 2 or array.dtype == object:
            raise DataError(
                f"a {type(data).__name__} cannot be seen as a table", hint="Give a data frame, a path or an array."
            )
        data = pa.table({f"x{j}": array[:, j] for j in range(array.shape[1])})
    if arrays:
        data = data if isinstance(data, pa.Table) else pa.table(data)
        for role, values in arrays.items():
            column = np.asarray(values)
            if column.ndim != 1 or len(column) != data.num_rows:
                raise DataError(f"{role}= has shape {column.shape} and the data has {data.num_rows:,} rows")
            named[role] = role if role not in data.column_names else f"{role}="
            data = data.append_column(named[role], pa.array(column))
    return data, named


def _columns_of(rows: Rows, named: Mapping[str, str | None]) -> tuple[Any, dict[str, str]]:
    """The columns of rows and of their roles as a table, and what their roles are called in it."""
    import pyarrow as pa

    roles: dict[str, str] = {}
    inner = rows.rows if isinstance(rows, WithRoles) else rows
    if isinstance(inner, TableRows) and inner is rows:
        choice = inner.choice
        if len(choice.targets) == 1:
            roles["target"] = choice.targets[0]
        roles |= {role: name for role, name in (("weights", choice.weight), ("group", choice.group)) if name}
        table = getattr(inner, "_table", None)
        if table is not None:
            return table, roles
        if rows.files:
            return list(rows.files), roles
    if rows.is_sparse:
        raise DataError("sparse rows are no table", where=rows.source, hint="Give a data frame or a path.")
    block = rows.read(0, rows.shape[0])
    data = np.asarray(block.data)
    columns = {name: pa.array(data[:, j]) for j, name in enumerate(rows.columns)}
    parts = (("target", block.target), ("weights", block.weight), ("group", block.group))
    for role, values in parts:
        if values is not None and named.get(role) is None:
            name = rows.targets[0] if role == "target" else role
            columns[name], roles[role] = pa.array(values[:, 0] if values.ndim == 2 else values), name
    return pa.table(columns), roles


def _structures(built: Design, asked: Any) -> list[tuple[tuple[tuple[str, int], ...], np.ndarray | None]]:
    """Blocks of the covariance of each term, and Λ where the covariance is given."""
    found: list[tuple[tuple[tuple[str, int], ...], np.ndarray | None]] = []
    by_group = asked if isinstance(asked, Mapping) else None
    if by_group is not None:
        strange = [name for name in by_group if name not in [term.name for term in built.random]]
        if strange:
            names = ", ".join(term.name for term in built.random)
            raise OptionError(f"covariance= names '{strange[0]}', which is no grouping", hint=f"There are {names}.")
    for term in built.random:
        value = asked if by_group is None else by_group.get(term.name, "estimate")
        if isinstance(value, str):
            kind = check.one_of("covariance", value, ("estimate", "full", "diagonal", "identity"))
            blocks = {
                "identity": (("identity", term.k),),
                "diagonal": (("full", 1),) * term.k,
            }.get(kind, term.blocks)
            if term.size >= built.rows.shape[0]:
                raise DataError(
                    f"the {len(term.groups):,} groups of '{term.name}' have {term.size:,} coefficients and there are "
                    f"{built.rows.shape[0]:,} rows: their variance cannot be told from the noise",
                    where=built.rows.source,
                    hint="Leave out coefficients, or give their covariance=.",
                )
            found.append((blocks, None))
        else:
            found.append(((("given", term.k),), _root(value, term.k, term.name)))
    return found


def _root(value: Any, k: int, name: str) -> np.ndarray:
    """Λ of a covariance that is given as a number, a vector of variances or a matrix."""
    wrong = OptionError(
        f"the covariance of '{name}' must be a number, {k} variances or a symmetric matrix {k} × {k}, no less than 0"
    )
    try:
        given = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise wrong from None
    if given.ndim < 2:
        if given.ndim == 1 and given.shape != (k,):
            raise wrong
        given = np.diag(np.broadcast_to(given, k).copy())
    if given.shape != (k, k) or not np.isfinite(given).all() or not np.allclose(given, given.T):
        raise wrong
    values, vectors = np.linalg.eigh(given)
    if values.min() < -1e-12 * max(values.max(), 0.0):
        raise wrong
    return vectors * np.sqrt(np.maximum(values, 0.0))


# ---------------------------------------------------------------- the plan


def _crossed(built: Design, covariances: Sequence[Any], memory: int) -> dict[str, float] | None:
    """Penalties of crossed random intercepts whose variances are given, when what they share is too much to factor.

    They are then solved for by conjugate gradients, as absorbed factors are.
    """
    if len(built.random) < 2 or built.wide or any(term.columns != ("Intercept",) for term in built.random):
        return None
    if any(factor is None or factor[0, 0] == 0 for _, factor in covariances):
        return None
    shared = sum(term.size for term in built.random[1:]) + built.p + 1
    if shared <= MOST_FACTORED and WORK * 8 * shared**2 < memory / 2:
        return None
    return {
        term.name: float(1 / factor[0, 0] ** 2) for term, (_, factor) in zip(built.random, covariances, strict=True)
    }


def _plan(built: Design, options: Options) -> Plan[MixedModel]:
    rows, p = built.rows, built.p
    n, d = rows.shape
    first, *others = built.terms
    shared = sum(term.free for term in others) + p + 1
    # Of the cells nothing is known yet: at least the part of the shared columns must fit.
    fits = WORK * 8 * shared**2 < options.memory
    state = CrossProducts(built, Coordinates.unknown(built)).state_nbytes if fits else 8 * shared**2
    if not fits or 2 * state + WORK * 8 * shared**2 > options.memory:
        raise BudgetError(
            f"the sums of {len(first.groups):,} groups of '{first.name}', with {first.k} coefficients each and "
            f"{shared:,} that they share, take {format_bytes(state)}",
            hint=f'Give at least memory="{(2.5 * state + WORK * 8 * shared**2) / 1e6:.0f}MB", or fewer coefficients.',
        )
    rates = machine()

    def one(label: str, flops: float) -> PassPlan:
        return PassPlan(label, rows.stored_nbytes, flops, max(rows.stored_nbytes / 2e9, 2 * flops / rates.gram64))

    width = sum(term.k for term in others) + p + 1
    passes = (
        one("QR of [X y Z]", 2.0 * n * (d + 1) ** 2),
        one("cross-products", 2.0 * n * (first.k * (first.k + width) + width**2)),
        one("gradient, certificate", 40.0 * n * d),
    )
    evaluation = len(first.groups) * (4.0 * first.k**2 * shared + 2.0 * first.k * shared**2) + shared**3
    algebra = PassPlan("likelihoods", 0, EVALUATIONS * evaluation, EVALUATIONS * 3 * evaluation / rates.gram64)
    kept = n * rows.row_nbytes if rows.in_memory else 0
    groups = "; ".join(f"{len(term.groups):,} of {term.name} × {term.k}" for term in built.random)
    effects = p + sum(term.free for term in built.wide)
    cut = layout(rows, [Triangle(p, d)], options.memory, options.threads)
    peak = (
        kept
        + sum(codes.nbytes for codes in built.rows.held)
        + 2 * state
        + cut.threads * reading_nbytes(rows, cut.block_rows)
    )
    return Plan(
        "mixed",
        f"{rows.source}: {n:,} rows, {effects:,} fixed effects, groups {groups}",
        f"cross-products, {options.method}",
        (
            f"likelihoods come from sums of {format_bytes(state)}, made in one pass",
            "the rows are kept in memory" if rows.in_memory else "the rows are made again in every pass",
        ),
        (),
        passes,
        options.memory,
        int(peak),
        algebra,
    )


# ---------------------------------------------------------------- the run


def _run(
    plan: Plan[MixedModel],
    built: Design,
    covariances: Sequence[Any],
    options: Options,
    identity: Mapping[str, Any],
    kept: Mapping[str, Any],
) -> MixedModel:
    began = time.perf_counter()
    engine = _engine(built, options)
    with engine.running(identity, plan.to_json()), single_threaded_blas():
        coordinates, sums = _sums(engine, built)
        objective = _objective(built, coordinates, sums, covariances, options.method)
        found = estimate(objective)
        system = System(built, coordinates, objective.likelihood, objective.factors(found.theta), found.solved)
        coefficients, assessed, passes = _certified(engine, system, options.tol)
    bounds = dict(assessed.bounds)
    if len(found.theta):
        bounds["stationarity"] = _stationarity(found.decrement)
    engine.trace.remarks.append(f"{found.evaluations} likelihoods")
    engine.trace.seconds = time.perf_counter() - began + engine.spared
    certificate = Certificate(bounds, passes, passes * built.rows.stored_nbytes)
    for bound in bounds.values():
        if not bound.holds:
            engine.trace.remarks.append(f"{bound.name} stayed at {bound.value:.1e}, above {bound.tolerance:.0e}")
    return _result(system, coefficients, found, certificate, engine, plan, options, kept, objective)


def _engine(built: Design, options: Options) -> Engine:
    kept = built.rows.shape[0] * built.rows.row_nbytes if built.rows.in_memory else 0
    return Engine(
        options.memory,
        options.threads,
        int(min(kept + sum(codes.nbytes for codes in built.rows.held), options.memory / 2)),
        as_executor(options.executor),
        checkpoint=options.checkpoint,
        progress=Progress(options.progress),
    )


def _sums(engine: Engine, built: Design) -> tuple[Coordinates, dict[str, np.ndarray]]:
    rows = built.rows
    try:
        (triangle,) = engine.sweep(rows, [Triangle(built.p, rows.shape[1])], "QR of [X y Z]")
    except NotFiniteError:
        raise find_nonfinite(rows, 2**14) or DataError("a number is not finite", where=rows.source) from None
    coordinates = Coordinates.of(triangle, built)
    p, r = built.p, coordinates.r
    if abs(r[p, p]) <= 1e-13 * np.linalg.norm(r[:, p]):
        raise DataError(
            f"the fixed effects fit '{built.formula.target}' exactly: nothing is left for the groups", where=rows.source
        )
    (sums,) = engine.sweep(rows, [CrossProducts(built, coordinates)], "cross-products")
    return coordinates, sums


def _objective(
    built: Design, coordinates: Coordinates, sums: dict[str, np.ndarray], covariances: Sequence[Any], method: str
) -> Objective:
    terms = built.random
    widths, groups = [term.k for term in terms], [len(term.groups) for term in terms]
    likelihood = Likelihood(products(sums), sums["c"], coordinates, widths, groups, method == "REML")
    return Objective(
        likelihood,
        [
            Covariance(blocks, _positive(np.linalg.norm(z, axis=0)), z, factor)
            for (blocks, factor), z in zip(covariances, coordinates.z, strict=False)
        ],
    )


def _positive(norms: np.ndarray) -> np.ndarray:
    return np.where(norms > 0, norms, 1.0)


def _certified(engine: Engine, system: System, tol: float) -> tuple[Coefficients, Assessment, int]:
    """Coefficients that the certificate holds for, corrected as long as that helps."""
    coefficients = system.coefficients()
    best: tuple[Coefficients, Assessment] | None = None
    passes = 0
    while passes < MAX_CORRECTIONS:
        passes += 1
        (gradient,) = engine.sweep(
            system.design.rows, [Gradient(system.design, coefficients)], "gradient, certificate", keep=False
        )
        found = system.assess(coefficients, gradient, tol)
        if best is None or found.error < best[1].error:
            best = coefficients, found
        else:
            break
        if all(bound.holds for bound in found.bounds.values()):
            break
        coefficients = found.better
    assert best is not None
    return *best, passes


def _stationarity(decrement: float) -> Bound:
    return Bound(
        "stationarity",
        decrement,
        "how much −2 log-likelihood could still fall, to second order",
        "measured",
        STATIONARY,
        relative=False,
    )


def _result(
    system: System,
    coefficients: Coefficients,
    found: Any,
    certificate: Certificate,
    engine: Engine,
    plan: Plan[MixedModel],
    options: Options,
    kept: Mapping[str, Any],
    objective: Objective,
) -> MixedModel:
    built = system.design
    sigma2 = system.sigma2
    inverse = _inverse(system)
    root = system.fixed_root(inverse)
    names: list[str] = list(built.fixed)
    beta = [coefficients.beta]
    for term, own in zip(built.wide, coefficients.effects[len(built.random) :], strict=True):
        levels = term.groups.ids.take(np.arange(term.reference, len(term.groups)))
        names += [f"{term.columns[0]}[{'T.' * term.reference}{level}]" for level in levels]
        beta.append(own[term.reference :, 0])
    groupings = {}
    for t, (term, uncertainty) in enumerate(zip(built.random, system.uncertainties(inverse), strict=True)):
        factor = system.factors[t]
        groupings[term.name] = RandomEffects(
            term.name, term.columns, objective.covariances[t].blocks, term.groups.ids, sigma2 * factor @ factor.T,
            coefficients.effects[t], sigma2 * uncertainty, found.edge[t],
        )  # fmt: skip
    in_order = {term.name: groupings[term.name] for term in built.formula.random}
    return MixedModel(
        formula=str(built.formula),
        target=built.formula.target,
        method=options.method,
        names=tuple(names),
        beta=np.concatenate(beta),
        covariance_fixed=sigma2 * root @ root.T,
        groupings=in_order,
        sigma2=sigma2,
        log_likelihood=-found.solved.value / 2,
        n=system.coordinates.n,
        parameters=len(names) + len(found.theta) + 1,
        theta=found.theta,
        given=all(c.factor is not None for c in objective.covariances),
        options={
            **kept,
            "covariance": [
                [term.name, [list(block) for block in c.blocks], None if c.factor is None else c.factor.tolist()]
                for term, c in zip(built.random, objective.covariances, strict=True)
            ],
        },
        certificate=certificate,
        trace=engine.trace,
        plan=plan,
        system=system,
        objective=objective,
    )


# ---------------------------------------------------------------- verification


def verify(model: MixedModel, data: Any, **given: Any) -> Certificate:
    """The certificate of a model, computed again from the data."""
    memory = given.get("memory")
    options = Options(
        method=model.method,
        covariance=None,
        tol=model.options["tol"],
        memory=as_executor(given.get("executor")).memory() if memory is None else check.memory(memory),
        threads=None,
        progress=check.progress(given.get("progress")),
        checkpoint=None,
        executor=given.get("executor"),
    )
    table, _ = as_table(data, {})
    saved = model.options
    formula = ModelFormula.from_json(saved["model"])
    built = design(formula, table, weight=saved["weights"], missing=saved["missing"], memory=options.memory)
    if different := _differences(model, built):
        return Certificate({}, failures=different)
    covariances = [
        (tuple((kind, k) for kind, k in blocks), None if factor is None else np.array(factor))
        for _, blocks, factor in saved["covariance"]
    ]
    engine = _engine(built, options)
    with single_threaded_blas():
        coordinates, sums = _sums(engine, built)
        objective = _objective(built, coordinates, sums, covariances, model.method)
        solved = objective.solve(model.theta)
        if solved is None:
            return Certificate({}, failures=("the likelihood cannot be computed at the saved covariances",))
        system = System(built, coordinates, objective.likelihood, objective.factors(model.theta), solved)
        held = system.restored(*_saved(model, built))
        (gradient,) = engine.sweep(built.rows, [Gradient(built, held)], "gradient, certificate")
        bounds = system.assess(held, gradient, options.tol).bounds
        if len(model.theta):
            bounds["stationarity"] = _stationarity(decrement(objective, model.theta))
    failures: list[str] = [
        f"the saved certificate claims {name} ≤ {claimed.value:.1e} and it is {bounds[name].value:.1e}"
        for name, claimed in model.certificate.bounds.items()
        if name in bounds and claimed.holds and not bounds[name].holds
    ]
    if abs(solved.value / -2 - model.log_likelihood) > 1e-8 * abs(model.log_likelihood):
        failures.append(f"the log-likelihood is {-solved.value / 2:.8g} and {model.log_likelihood:.8g} was saved")
    sigma2 = system.sigma2
    if not np.isclose(sigma2, model.sigma2, rtol=1e-8):
        failures.append(f"the variance of the noise is {sigma2:.8g} and {model.sigma2:.8g} was saved")
    failures += _other_covariances(model, system)
    return Certificate(bounds, 3, 3 * built.rows.stored_nbytes, failures=tuple(failures))


def _other_covariances(model: MixedModel, system: System) -> list[str]:
    """Which of the saved covariances are not those that the data has at the saved parameters."""
    sigma2, inverse = system.sigma2, _inverse(system)
    root = system.fixed_root(inverse)
    found = [] if _alike(model.covariance_fixed, sigma2 * root @ root.T) else ["the fixed effects"]
    for term, factor, own in zip(system.design.random, system.factors, system.uncertainties(inverse), strict=True):
        saved = model.groupings[term.name]
        if not _alike(saved.covariance, sigma2 * factor @ factor.T):
            found.append(f"the coefficients of '{term.name}'")
        if not _alike(saved.uncertainty, sigma2 * own):
            found.append(f"the errors of the coefficients of '{term.name}'")
    return [f"the covariance of {what} is another one than was saved" for what in found]


def _alike(saved: np.ndarray, found: np.ndarray) -> bool:
    """Whether covariances agree to rounding, each entry beside the deviations that it belongs to."""
    if saved.shape != found.shape:
        return False
    deviations = np.sqrt(np.abs(np.diagonal(found, axis1=-2, axis2=-1)))
    return bool((np.abs(saved - found) <= 1e-6 * deviations[..., :, None] * deviations[..., None, :]).all())


def _inverse(system: System) -> np.ndarray:
    """``L⁻¹`` of the shared part."""
    low = system.solved.low[:-1, :-1]
    return np.asarray(solve_triangular(low, np.eye(len(low)), lower=True))


def _saved(model: MixedModel, built: Design) -> tuple[list[np.ndarray], np.ndarray]:
    """The effects of all terms, and the fixed effects that have columns."""
    effects, at = [model.groupings[term.name].effects for term in built.random], built.p
    for term in built.wide:
        effects.append(np.append(np.zeros(int(term.reference)), model.beta[at : at + term.free])[:, None])
        at += term.free
    return effects, model.beta[: built.p]


def decrement(objective: Objective, theta: np.ndarray) -> float:
    """By how much ``−2 ℓ`` could fall from these parameters, to second order."""
    from leyden.solve.mixed.estimate import curvature

    return curvature(objective.both, theta)[1]


def _differences(model: MixedModel, built: Design) -> tuple[str, ...]:
    """Why model and data do not belong together."""
    if built.fixed != model.names[: built.p] or built.p + sum(t.free for t in built.wide) != len(model.names):
        return ("the data makes other fixed effects than the model has",)
    for term in built.random:
        own = model.groupings.get(term.name)
        if own is None or own.effects.shape != (len(term.groups), term.k):
            return (f"the data has other groups of '{term.name}' than the model",)
        every = np.arange(len(own.ids))
        if not np.array_equal(own.ids.take(every), term.groups.ids.take(every)):
            return (f"the data has other groups of '{term.name}' than the model",)
    return ()
