"""Regressions with absorbed factors as users meet them: from a formula and a table to estimates and a page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Certificate
from leyden.engine.budget import format_bytes
from leyden.errors import BudgetError, DataError, OptionError
from leyden.plan import PassPlan, Plan
from leyden.rows.base import find_nonfinite
from leyden.rows.ids import Ids
from leyden.solution import PassRecord, Solution, Trace
from leyden.solve.absorb.absorb import Absorbed, absorb
from leyden.solve.absorb.sandwich import Covariance
from leyden.solve.mixed.design import Design
from leyden.solve.mixed.groups import Groups, codes_of

#: Names of covariance matrices, and what they are called here.
KINDS = {"iid": "iid", "hetero": "HC1", "HC1": "HC1", "cluster": "CRV1", "CRV1": "CRV1"}

INTERCEPT = "Intercept"

#: Rows a second that a plan counts with: grouped, projected, certified.
ROWS_A_SECOND = 2e6

#: Rows at a time, where a column is gone through.
SLICE = 2**16


@dataclass(frozen=True)
class Effects:
    """What was absorbed of one factor.

    Attributes
    ----------
    factor : str
    ids : Ids
        Of its levels.
    effects : ndarray, shape (levels,)
        Where effects are only determined together: those whose mean over each connected part is zero, for every factor
        but the one of the most levels.
    """

    factor: str
    ids: Ids
    effects: np.ndarray


class FixedEffects(Solution):
    """Solution of :func:`leyden.mixed` with absorbed factors, or with crossed random intercepts of given variances.

    Attributes
    ----------
    formula : str
    fixed : dict from str to float
        Coefficients of the covariates.
    dropped : tuple of str
        Covariates that are combinations of the factors and of those before them; they have no coefficient.
    standard_errors : dict from str to float
    covariance_fixed : ndarray, shape (p, p)
    vcov : str
        "iid", "HC1" or "CRV1".
    degrees_of_freedom : int
        Of Student's t.
    clusters : tuple of int
        How many, of each cluster variable and for two of their combinations.
    absorbed : dict from str to Effects
    n : int
        Rows of a positive weight.
    parameters : int
        Covariates, and levels that are determined by themselves.
    components : int or None
        Connected parts of the two factors with the most levels.
    singletons : int
        Rows that are alone in a level of an absorbed factor.
    rss, r2, r2_within : float
        Sum of squares, and what part of it the model explains, of the target and of what the factors leave of it.
    certificate, trace, plan
        As of every solution.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> rng = np.random.default_rng(0)
    >>> worker, firm = rng.integers(0, 200, 2000), rng.integers(0, 20, 2000)
    >>> data = {"worker": worker, "firm": firm, "tenure": rng.random(2000)}
    >>> data["wage"] = 3 * data["tenure"] + rng.random(200)[worker] + rng.random(20)[firm]
    >>> model = ly.mixed("wage ~ tenure | worker + firm", data, vcov="cluster", cluster="firm")
    >>> round(model.fixed["tenure"], 6), model.components, model.certificate.holds
    (3.0, 1, True)
    """

    kind = "fixed_effects"

    def __init__(
        self,
        *,
        formula: str,
        names: tuple[str, ...],
        dropped: tuple[str, ...],
        beta: np.ndarray,
        covariance_fixed: np.ndarray,
        vcov: str,
        degrees_of_freedom: int,
        clusters: tuple[int, ...],
        absorbed: dict[str, Effects],
        n: int,
        parameters: int,
        components: int | None,
        singletons: int,
        rss: float,
        r2: float,
        r2_within: float,
        options: Mapping[str, Any],
        certificate: Certificate,
        trace: Trace,
        plan: Plan,
    ):
        self.formula, self.names, self.dropped, self.beta = formula, names, dropped, beta
        self.covariance_fixed, self.vcov, self.degrees_of_freedom = covariance_fixed, vcov, degrees_of_freedom
        self.clusters, self.absorbed, self.n, self.parameters = clusters, absorbed, n, parameters
        self.components, self.singletons, self.rss, self.r2, self.r2_within = components, singletons, rss, r2, r2_within
        self.options, self.certificate, self.trace, self.plan = dict(options), certificate, trace, plan

    @property
    def fixed(self) -> dict[str, float]:
        return dict(zip(self.names, map(float, self.beta), strict=True))

    @property
    def standard_errors(self) -> dict[str, float]:
        return dict(zip(self.names, map(float, np.sqrt(np.diag(self.covariance_fixed))), strict=True))

    @property
    def t_values(self) -> dict[str, float]:
        """Coefficients in units of their standard errors."""
        errors = self.standard_errors
        return {name: value / errors[name] if errors[name] else np.inf for name, value in self.fixed.items()}

    @property
    def p_values(self) -> dict[str, float]:
        """Two-sided, by Student's distribution."""
        from scipy.special import stdtr

        return {name: float(2 * stdtr(self.degrees_of_freedom, -abs(t))) for name, t in self.t_values.items()}

    def confidence_intervals(self, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Intervals of the coefficients by Student's distribution."""
        from scipy.special import stdtrit

        width = float(stdtrit(self.degrees_of_freedom, (1 + check.fraction("level", level)) / 2))
        errors = self.standard_errors
        return {name: (b - width * errors[name], b + width * errors[name]) for name, b in self.fixed.items()}

    def effects(self, ids: Any = None, factor: str | None = None) -> np.ndarray:
        """Effects of levels of an absorbed factor.

        Parameters
        ----------
        ids : array_like, shape (m,), optional
            As they are in the data; all levels, in the order of their ids, when it is not given.
        factor : str, optional
            Which one, when there are several.

        Returns
        -------
        ndarray of float64, shape (m,)
        """
        if factor is None and len(self.absorbed) != 1:
            names = ", ".join(self.absorbed)
            raise OptionError(f"there are {len(self.absorbed)} factors", hint=f"Give factor=, one of {names}.")
        if factor is not None and factor not in self.absorbed:
            raise OptionError(f"there is no factor '{factor}'", hint=f"There are {', '.join(self.absorbed)}.")
        found = self.absorbed[factor] if factor is not None else next(iter(self.absorbed.values()))
        return found.effects.copy() if ids is None else found.effects[found.ids.index(ids)]

    def random(self, group_ids: Any = None, group: str | None = None) -> np.ndarray:
        """Predicted intercepts of groups, shape (m, 1), as of :class:`leyden.MixedModel`; see :meth:`effects`."""
        return self.effects(group_ids, group)[:, None]

    def summary(self, *, level: float = 0.95) -> str:
        """The model as econometricians print it."""
        from leyden.solve.mixed.summary import table

        errors, t, p = self.standard_errors, self.t_values, self.p_values
        ends = self.confidence_intervals(level=level)
        low, high = f"[{(1 - level) / 2:.3g}".replace("0.", "."), f"{(1 + level) / 2:.3g}]".replace("0.", ".")
        rows: list[tuple[str, ...]] = [("", "estimate", "std. error", "t", "p", low, high)]
        for name, value in self.fixed.items():
            shown = "<.0001" if p[name] < 1e-4 else f"{p[name]:.4f}"
            interval = (f"{end:.5g}" for end in ends[name])
            rows.append((name, f"{value:.6g}", f"{errors[name]:.4g}", f"{t[name]:.3f}", shown, *interval))
        counts = ", ".join(f"{count:,}" for count in self.clusters)
        robust = {
            "iid": "errors of one variance",
            "HC1": "robust to heteroskedasticity (HC1)",
            "CRV1": f"clusters of {' and '.join(self.options['clusters'])} ({counts})",
        }[self.vcov]
        levels = ", ".join(f"{name} {len(e.ids):,}" for name, e in self.absorbed.items())
        penalties = self.options.get("penalties")
        if penalties is not None:
            given = ", ".join(f"{name} {1 / value:.4g}" for name, value in penalties.items())
            robust = f"generalised least squares; variances relative to that of the noise: {given}"
        lines = [
            "Least squares with absorbed factors"
            if penalties is None
            else "Crossed random intercepts, variances given",
            f"  {self.formula}",
            f"  {self.n:,} rows; levels: {levels}; {self.parameters:,} parameters",
            f"  standard errors: {robust}",
        ]
        if penalties is None:
            lines.append(f"  R² {self.r2:.4f}, within {self.r2_within:.4f}")
        if self.components is not None and self.components > 1:
            lines.append(f"  {self.components:,} connected parts: effects of different parts cannot be compared")
        if self.singletons:
            lines.append(f"  {self.singletons:,} rows are alone in a level and say nothing about the coefficients")
        if self.dropped:
            lines.append(f"  left out, being combinations of the factors and others: {', '.join(self.dropped)}")
        return "\n".join([*lines, "", *table(rows)])

    def __str__(self) -> str:
        return f"{self.summary()}\n\n{self.certificate}"

    def __repr__(self) -> str:
        return f"<FixedEffects {self.formula}: {self.n:,} rows, {self.parameters:,} parameters>"

    def verify(self, *data: Any, **options: Any) -> Certificate:
        """Absorb again from the data, and compare."""
        from leyden.solve.mixed.formula import ModelFormula
        from leyden.solve.mixed.model import as_table, prepared

        if data[1:] != (None,) * len(data[1:]) or options.pop("weights", None) is not None:
            raise OptionError("a model names its target and weights itself", hint="Give the table alone.")
        saved, memory = self.options, check.memory(options.get("memory"))
        table, _ = as_table(data[0], {})
        formula = ModelFormula.from_json(saved["model"])
        built = prepared(formula, table, saved["weights"], saved["missing"], memory, clusters=saved["clusters"])
        again = fit(built, self.vcov, saved, self.plan, memory, None, options.get("progress"))
        return replace(again.certificate, failures=tuple(self._differences(again)))

    def _differences(self, again: FixedEffects) -> list[str]:
        """What is not as it was found from the data."""
        if again.names != self.names or {n: len(e.ids) for n, e in again.absorbed.items()} != {
            n: len(e.ids) for n, e in self.absorbed.items()
        }:
            return ["the data makes another model"]
        found = []
        tol = 10 * self.options["tol"]
        scale = np.sqrt(np.diag(again.covariance_fixed)) + np.abs(again.beta)
        if len(scale) and not (np.abs(again.beta - self.beta) <= tol * scale).all():
            worst = int(np.argmax(np.abs(again.beta - self.beta) / scale))
            found.append(f"{self.names[worst]} is {again.beta[worst]:.10g} and {self.beta[worst]:.10g} was saved")
        if not np.allclose(again.covariance_fixed, self.covariance_fixed, rtol=1e-6, atol=0):
            found.append("the covariance of the coefficients is another one")
        for name, own in self.absorbed.items():
            other = again.absorbed[name].effects
            # Effects are right to the tolerance in the fits; where levels hardly meet, each by itself less.
            if not np.allclose(own.effects, other, rtol=1e-6, atol=1e-6 * max(float(np.abs(other).max()), 1e-300)):
                found.append(f"the effects of {name} are others")
        return found

    def _problem(self) -> dict[str, Any]:
        plain = ("formula", "vcov", "degrees_of_freedom", "n", "parameters", "components", "singletons")
        values = {name: getattr(self, name) for name in (*plain, "rss", "r2", "r2_within", "options")}
        lists = {name: list(getattr(self, name)) for name in ("names", "dropped", "clusters")}
        return {**values, **lists, "factors": list(self.absorbed)}

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"beta": self.beta, "covariance_fixed": self.covariance_fixed}
        for i, own in enumerate(self.absorbed.values()):
            ids = own.ids.take(np.arange(len(own.ids)))
            arrays[f"effects_{i}"] = own.effects
            arrays[f"ids_{i}"] = ids if ids.dtype.kind == "i" else ids.astype(np.str_)
        return arrays

    @classmethod
    def _restore(
        cls, problem: dict[str, Any], arrays: dict[str, np.ndarray], certificate: Certificate, trace: Trace, plan: Plan
    ) -> FixedEffects:
        absorbed = {}
        for i, name in enumerate(problem.pop("factors")):
            ids = arrays[f"ids_{i}"]
            known = Ids.of(ids if ids.dtype.kind == "i" else ids.astype(object), name)
            absorbed[name] = Effects(name, known, arrays[f"effects_{i}"])
        lists: dict[str, Any] = {name: tuple(problem.pop(name)) for name in ("names", "dropped", "clusters")}
        return cls(
            **problem,
            **lists,
            beta=arrays["beta"],
            covariance_fixed=arrays["covariance_fixed"],
            absorbed=absorbed,
            certificate=certificate,
            trace=trace,
            plan=plan,
        )


def plan(
    built: Design,
    vcov: str,
    kept: Mapping[str, Any],
    memory: int,
    threads: int | None,
    progress: bool | None,
) -> Plan[FixedEffects]:
    """How a design with absorbed factors is fitted.

    Raises
    ------
    OptionError, DataError, BudgetError
    """
    kind = KINDS[check.one_of("vcov", vcov, tuple(KINDS))]
    clusters = built.clusters
    factors = [*built.absorbed, *(term.groups for term in built.random)]
    if (kind == "CRV1") != bool(clusters):
        which = "cluster= names no column" if kind == "CRV1" else "cluster= is for vcov='cluster'"
        raise OptionError(which, hint="Give both, or neither.")
    if len(clusters) > 2:
        raise OptionError(f"there are {len(clusters)} cluster variables", hint="Give one or two.")
    rows = built.rows
    if not rows.in_memory:
        taken = format_bytes(rows.shape[0] * rows.row_nbytes)
        raise BudgetError(
            f"absorbing factors takes all rows in memory, and they take {taken}", hint="Give more with memory=."
        )
    n = rows.shape[0]
    seconds = n * (1 + built.p) / ROWS_A_SECOND
    levels = ", ".join(f"{len(factor):,} of {factor.name}" for factor in factors)
    passes = ("sums by level", "products", "certificate")
    return Plan(
        "mixed",
        f"{rows.source}: {n:,} rows, {built.p} columns, absorbed {levels}",
        "conjugate gradients on the Schur complement of the largest factor",
        ("nothing of the length of the rows is made but the cells in which levels meet",),
        (),
        tuple(PassPlan(name, rows.stored_nbytes, 10.0 * n * (1 + built.p), seconds / 3) for name in passes),
        memory,
        int(n * (2 * rows.row_nbytes + 4 * len(factors) + 12)),
        _run=lambda made: fit(built, kind, kept, made, memory, threads, progress),
    )


def fit(
    built: Design,
    kind: str,
    kept: Mapping[str, Any],
    made: Plan[Any],
    memory: int,
    threads: int | None,
    progress: bool | None,
) -> FixedEffects:
    """The regression."""
    began = time.perf_counter()
    rows = built.rows
    penalties = kept.get("penalties")
    factors = built.absorbed if penalties is None else tuple(term.groups for term in built.random)
    columns = [j for j, name in enumerate(built.fixed) if name != INTERCEPT or penalties is not None]
    names = tuple(built.fixed[j] for j in columns)
    y, weight = rows.target, rows.weight
    try:
        found = absorb(
            y, rows.parts(columns), codes_of(factors), weights=weight, tol=kept["tol"],
            memory=memory, threads=threads, progress=progress, names=names,
            penalties=None if penalties is None else [penalties[factor.name] for factor in factors],
        )  # fmt: skip
    except DataError as error:
        raise find_nonfinite(rows, 2**14) or error from None
    beta = found.coefficients[found.kept]
    if penalties is None:
        covariance = found.covariance(kind, codes_of(built.clusters) or None)
    else:
        covariance = _generalised(found, len(beta))
    total = _spread(y, weight)
    within = found.rss + float(beta @ found.gram @ beta)
    seconds = time.perf_counter() - began
    return FixedEffects(
        formula=str(built.formula),
        names=tuple(names[j] for j in found.kept),
        dropped=found.dropped,
        beta=beta,
        covariance_fixed=covariance.matrix,
        vcov=kind,
        degrees_of_freedom=int(covariance.degrees_of_freedom),
        clusters=tuple(int(count) for count in covariance.clusters),
        absorbed=_named(factors, found),
        n=found.observations,
        parameters=found.parameters + len(beta),
        components=None if found.components is None else found.components.count,
        singletons=found.singletons,
        rss=found.rss,
        r2=1 - found.rss / total if total > 0 else 1.0,
        r2_within=1 - found.rss / within if within > 0 else 1.0,
        options=kept,
        certificate=found.certificate,
        trace=_trace(built, found, seconds),
        plan=made,
    )


def _generalised(found: Absorbed, p: int) -> Covariance:
    """Of generalised least squares: σ² from the objective, and the products of what random intercepts leave of x."""
    degrees = found.observations - p
    if degrees <= 0:
        raise DataError(f"{found.observations:,} rows leave no degrees of freedom to {p:,} coefficients")
    return Covariance(found.objective / degrees * np.linalg.inv(found.gram), "iid", p, degrees)


def _named(factors: Sequence[Groups], found: Absorbed) -> dict[str, Effects]:
    return {f.name: Effects(f.name, f.ids, effects) for f, effects in zip(factors, found.effects, strict=True)}


def _spread(y: np.ndarray, weight: np.ndarray | None) -> float:
    """``Σ w (y − ȳ)²``."""
    mean = float(y.mean() if weight is None else y @ weight / weight.sum())
    total = 0.0
    for first in range(0, len(y), SLICE):
        centred = y[first : first + SLICE] - mean
        total += float(centred @ (centred if weight is None else weight[first : first + SLICE] * centred))
    return total


def _trace(built: Design, found: Absorbed, seconds: float) -> Trace:
    n, nbytes = built.rows.shape[0], built.rows.stored_nbytes
    steps = {name: spent for name, spent in found.seconds.items() if name != "all"}
    records = [PassRecord(name, n, nbytes, spent, 0) for name, spent in steps.items()]
    remark = f"{found.iterations} iterations of conjugate gradients, preconditioner {found.preconditioner}"
    return Trace(records, [remark], seconds)
