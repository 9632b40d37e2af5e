"""A fitted mixed model: what it holds, how it prints, how it is saved, how it is verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Certificate
from leyden.errors import OptionError
from leyden.plan import Plan
from leyden.rows.ids import Ids
from leyden.solution import Solution, Trace
from leyden.solve.mixed.certify import System
from leyden.solve.mixed.intervals import Intervals, profile, wald


@dataclass(frozen=True)
class RandomEffects:
    """What is known of the random effects of one grouping.

    Attributes
    ----------
    group : str
    columns : tuple of str
        The coefficients that each group has.
    blocks : tuple of (str, int)
        Structure and size of the blocks of their covariance.
    ids : Ids
        Of the groups.
    covariance : ndarray, shape (k, k)
        ``σ² Δ``: of the coefficients of a group.
    effects : ndarray, shape (groups, k)
        Best linear unbiased predictions.
    uncertainty : ndarray, shape (groups, k, k)
        Covariance of ``u − û``, the fixed effects being estimated as well.
    edge : bool
        Whether the covariance is on the edge of what is possible.
    """

    group: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[str, int], ...]
    ids: Ids
    covariance: np.ndarray
    effects: np.ndarray
    uncertainty: np.ndarray
    edge: bool

    @property
    def deviations(self) -> np.ndarray:
        """Standard deviations of the coefficients."""
        return np.sqrt(np.diag(self.covariance))

    def places(self, group_ids: Any) -> np.ndarray:
        """The numbers of groups; truth values and whole floats name them as they do in the data."""
        ids = np.asarray(group_ids)
        whole = ids.dtype.kind == "f" and bool((np.abs(ids) < 2.0**63).all()) and bool((ids == np.floor(ids)).all())
        return self.ids.index(ids.astype(np.int64) if whole or ids.dtype.kind == "b" else group_ids)


@dataclass(frozen=True)
class LikelihoodRatio:
    """A likelihood-ratio test of a model against a larger one.

    Attributes
    ----------
    statistic : float
    df : int
        Parameters that the larger one has more.
    p_value : float
        By the χ² distribution; of one variance, by the mixture that has half of its weight at zero (Self and Liang,
        JASA 82, 1987).
    note : str
        Which distribution.
    """

    statistic: float
    df: int
    p_value: float
    note: str

    def __str__(self) -> str:
        return f"likelihood ratio {self.statistic:.4g} on {self.df} df, p = {self.p_value:.3g} ({self.note})"


class MixedModel(Solution):
    """Solution of :func:`leyden.mixed`.

    Attributes
    ----------
    formula : str
    method : str
        "REML" or "ML".
    fixed : dict from str to float
        Estimates of the fixed effects.
    standard_errors : dict from str to float
        Of the fixed effects, given the covariances.
    covariance_fixed : ndarray, shape (p, p)
    groupings : dict from str to RandomEffects
    sigma2 : float
        Variance of the noise.
    log_likelihood : float
        Restricted, if the method is REML.
    n : int
        Rows of a positive weight.
    parameters : int
        Fixed effects, parameters of covariances that were estimated, and σ².
    certificate, trace, plan
        As of every solution.

    Examples
    --------
    >>> import numpy as np, leyden as ly, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> g = rng.integers(0, 30, 600)
    >>> data = pd.DataFrame({"x": rng.standard_normal(600), "g": g})
    >>> data["y"] = 1 + 2 * data.x + rng.standard_normal(30)[g] + rng.standard_normal(600)
    >>> model = ly.mixed("y ~ x + (1 | g)", data)
    >>> round(model.fixed["x"], 1), model.random([3, 4]).shape, model.certificate.holds
    (1.9, (2, 1), True)
    """

    kind = "mixed"

    def __init__(
        self,
        *,
        formula: str,
        target: str,
        method: str,
        names: tuple[str, ...],
        beta: np.ndarray,
        covariance_fixed: np.ndarray,
        groupings: dict[str, RandomEffects],
        sigma2: float,
        log_likelihood: float,
        n: int,
        parameters: int,
        theta: np.ndarray,
        given: bool,
        options: Mapping[str, Any],
        certificate: Certificate,
        trace: Trace,
        plan: Plan,
        system: System | None = None,
        objective: Any = None,
    ):
        self.formula, self.target, self.method, self.names, self.beta = formula, target, method, names, beta
        self.covariance_fixed, self.groupings, self.sigma2 = covariance_fixed, groupings, sigma2
        self.log_likelihood, self.n, self.parameters, self.theta = log_likelihood, n, parameters, theta
        self.given, self.options = given, dict(options)
        self.certificate, self.trace, self.plan = certificate, trace, plan
        self.system, self.objective = system, objective

    # ---------------------------------------------------------------- fixed effects

    @property
    def fixed(self) -> dict[str, float]:
        return dict(zip(self.names, map(float, self.beta), strict=True))

    @property
    def standard_errors(self) -> dict[str, float]:
        return dict(zip(self.names, map(float, np.sqrt(np.diag(self.covariance_fixed))), strict=True))

    @property
    def z_values(self) -> dict[str, float]:
        """Estimates in units of their standard errors."""
        errors = self.standard_errors
        return {name: value / errors[name] for name, value in self.fixed.items()}

    @property
    def p_values(self) -> dict[str, float]:
        """Two-sided, by the normal distribution."""
        from scipy.special import ndtr

        return {name: float(2 * ndtr(-abs(z))) for name, z in self.z_values.items()}

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return 2 * self.parameters - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """The Bayesian criterion of Schwarz."""
        return float(np.log(self.n)) * self.parameters - 2 * self.log_likelihood

    def confidence_intervals(self, *, level: float = 0.95, method: str = "wald") -> Intervals:
        """Confidence intervals of the fixed effects and of the variances.

        Parameters
        ----------
        level : float, default 0.95
        method : {"wald", "profile"}
            Wald: fixed effects by their standard errors, standard deviations and correlations by the curvature of the
            likelihood, on the scale of logarithms and of Fisher's transform. Profile: where twice the log-likelihood
            (of maximum likelihood) falls by a quantile of χ²; takes some evaluations of the likelihood for each end.

        Raises
        ------
        OptionError
            If the method is "profile", or there are variances, and this model was loaded from a folder.
        """
        level = check.fraction("level", level)
        method = check.one_of("method", method, ("wald", "profile"))
        return (wald if method == "wald" else profile)(self, level)

    # ---------------------------------------------------------------- random effects

    def _grouping(self, group: str | None) -> RandomEffects:
        if group is None:
            if len(self.groupings) != 1:
                raise OptionError(
                    f"there are {len(self.groupings)} groupings",
                    hint=f"Give group=, one of {', '.join(self.groupings)}.",
                )
            return next(iter(self.groupings.values()))
        if group not in self.groupings:
            raise OptionError(
                f"there is no grouping '{group}'", hint=f"There are {', '.join(self.groupings) or 'none'}."
            )
        return self.groupings[group]

    def random(self, group_ids: Any = None, group: str | None = None) -> np.ndarray:
        """Predicted coefficients of groups.

        Parameters
        ----------
        group_ids : array_like, shape (m,), optional
            As they are in the data; all groups, in the order of their ids, when it is not given.
        group : str, optional
            Which grouping, when there are several.

        Returns
        -------
        ndarray of float64, shape (m, k)
            In the order of ``groupings[group].columns``.

        Raises
        ------
        DataError
            If an id is not known.
        """
        found = self._grouping(group)
        return found.effects.copy() if group_ids is None else found.effects[found.places(group_ids)]

    def random_covariance(self, group_ids: Any = None, group: str | None = None) -> np.ndarray:
        """Covariances of the errors ``u − û`` of predicted coefficients, shape (m, k, k).

        Arguments are as of :meth:`random`. They are of best linear unbiased prediction: that the fixed effects are
        estimated is in them, that the covariances are estimated is not (Henderson 1975).
        """
        found = self._grouping(group)
        return found.uncertainty.copy() if group_ids is None else found.uncertainty[found.places(group_ids)]

    def write_random(self, path: Any, group: str | None = None) -> None:
        """Write the coefficients of all groups, and their standard errors, as a Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        found = self._grouping(group)
        errors = np.sqrt(np.einsum("gkk->gk", found.uncertainty))
        columns: dict[str, Any] = {found.group: found.ids.take(np.arange(len(found.ids)))}
        for j, name in enumerate(found.columns):
            columns[name], columns[f"{name} (standard error)"] = found.effects[:, j], errors[:, j]
        pq.write_table(pa.table(columns), path)

    def predict(self, data: Any, *, random: bool = True) -> np.ndarray:
        """The target that the model expects of each row of a table, shape (m,).

        Parameters
        ----------
        data : data frame or path
            With the columns of the model but its target.
        random : bool, default True
            Whether to add the coefficients of the groups; those that are not known add nothing.
        """
        if self.system is None:
            raise OptionError("this model was loaded from a folder and cannot read formulas", hint="Fit it again.")
        from leyden.solve.mixed.design import predictions

        return predictions(self, data, random)

    # ---------------------------------------------------------------- comparison

    def likelihood_ratio(self, smaller: MixedModel) -> LikelihoodRatio:
        """Test a smaller model, nested in this one, against it.

        Raises
        ------
        OptionError
            If the likelihoods cannot be compared: other rows, or restricted ones of different fixed effects.
        """
        from scipy.stats import chi2

        df = self.parameters - smaller.parameters
        if self.n != smaller.n or self.target != smaller.target:
            raise OptionError("the models are of different rows or targets")
        if self.method != smaller.method:
            raise OptionError("one model is by REML and the other by ML", hint="Fit both by the same method.")
        if self.method == "REML" and self.names != smaller.names:
            raise OptionError(
                "restricted likelihoods of different fixed effects cannot be compared", hint='Fit with method="ML".'
            )
        if df <= 0:
            raise OptionError("the other model is not smaller", hint="Ask the larger model about the smaller one.")
        statistic = max(2 * (self.log_likelihood - smaller.log_likelihood), 0.0)
        p_value = float(chi2.sf(statistic, df))
        variances = self._variances - smaller._variances
        if df == variances == 1:
            return LikelihoodRatio(statistic, df, p_value / 2, "half χ² with 1 df, half zero: a variance")
        note = "χ², which is on the safe side for variances" if variances else "χ²"
        return LikelihoodRatio(statistic, df, p_value, note)

    @property
    def _variances(self) -> int:
        return sum(len(grouping.columns) for grouping in self.groupings.values())

    # ---------------------------------------------------------------- printing

    def summary(self, *, level: float = 0.95) -> str:
        """The model as statisticians print it."""
        from leyden.solve.mixed.summary import summary

        return summary(self, level)

    def __str__(self) -> str:
        return f"{self.summary()}\n\n{self.certificate}"

    def __repr__(self) -> str:
        return f"<MixedModel {self.formula}: {self.n:,} rows, {self.method} {self.log_likelihood:.6g}>"

    # ---------------------------------------------------------------- saving and verifying

    def verify(self, *data: Any, **options: Any) -> Certificate:
        from leyden.solve.mixed.model import verify

        if data[1:] != (None,) * len(data[1:]) or options.pop("weights", None) is not None:
            raise OptionError("a mixed model names its target and weights itself", hint="Give the table alone.")
        return verify(self, data[0], **options)

    def _problem(self) -> dict[str, Any]:
        return {
            "formula": self.formula,
            "target": self.target,
            "method": self.method,
            "names": list(self.names),
            "sigma2": self.sigma2,
            "log_likelihood": self.log_likelihood,
            "n": self.n,
            "parameters": self.parameters,
            "given": self.given,
            "options": self.options,
            "groupings": [
                {"group": g.group, "columns": list(g.columns), "blocks": [list(b) for b in g.blocks], "edge": g.edge}
                for g in self.groupings.values()
            ],
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"beta": self.beta, "covariance_fixed": self.covariance_fixed, "theta": self.theta}
        for i, g in enumerate(self.groupings.values()):
            ids = g.ids.take(np.arange(len(g.ids)))
            arrays |= {
                f"covariance_{i}": g.covariance,
                f"effects_{i}": g.effects,
                f"uncertainty_{i}": g.uncertainty,
                f"ids_{i}": ids if ids.dtype.kind == "i" else ids.astype(np.str_),
            }
        return arrays

    @classmethod
    def _restore(
        cls, problem: dict[str, Any], arrays: dict[str, np.ndarray], certificate: Certificate, trace: Trace, plan: Plan
    ) -> MixedModel:
        groupings = {}
        for i, g in enumerate(problem.pop("groupings")):
            ids = arrays[f"ids_{i}"]
            groupings[g["group"]] = RandomEffects(
                g["group"], tuple(g["columns"]), tuple((kind, k) for kind, k in g["blocks"]),
                Ids.of(ids if ids.dtype.kind == "i" else ids.astype(object), g["group"]),
                arrays[f"covariance_{i}"], arrays[f"effects_{i}"], arrays[f"uncertainty_{i}"], g["edge"],
            )  # fmt: skip
        return cls(
            **{**problem, "names": tuple(problem["names"])},
            beta=arrays["beta"],
            covariance_fixed=arrays["covariance_fixed"],
            theta=arrays["theta"],
            groupings=groupings,
            certificate=certificate,
            trace=trace,
            plan=plan,
        )
