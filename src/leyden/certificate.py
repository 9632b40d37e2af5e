"""Certificates: what is known about how wrong an answer can be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: ``rigorous``: true up to the stated rounding. ``measured``: rests on a quantity measured from the data.
#: ``probabilistic``: holds with the stated probability. ``conditional``: rests on a named assumption.
Grade = Literal["rigorous", "measured", "probabilistic", "conditional"]


@dataclass(frozen=True)
class Bound:
    """One certified statement.

    Attributes
    ----------
    name : str
    value : float
        The bound; infinity when nothing could be certified.
    meaning : str
        One sentence that says what is bounded by ``value``.
    grade : Grade
    tolerance : float or None
        What was asked for; None when the bound is only reported.
    confidence : float
        Probability with which the statement holds; 1 unless the grade is probabilistic.
    relative : bool
        Whether ``value`` is relative.
    lower : float or None
        For a quantity that is enclosed rather than bounded: it lies between ``lower`` and ``value``.
    """

    name: str
    value: float
    meaning: str
    grade: Grade
    tolerance: float | None = None
    confidence: float = 1.0
    relative: bool = True
    lower: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the bound is within the tolerance asked (or, with none asked, is a number at all)."""
        return not math.isnan(self.value) and (self.tolerance is None or self.value <= self.tolerance)


@dataclass(frozen=True)
class Certificate:
    """All bounds on one answer, and what they cost.

    Attributes
    ----------
    bounds : mapping from name to Bound
    passes : int
        Passes over the data that the certificate alone needed.
    nbytes : int
        Bytes those passes read.
    seeds : mapping from name to int
        Seeds of whatever was random.
    failures : tuple of str
        Sentences on what does not hold although no bound says so (changed data, a tampered file).
    """

    bounds: Mapping[str, Bound]
    passes: int = 0
    nbytes: int = 0
    seeds: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """The verdict: every bound is within the tolerance asked, and nothing else failed."""
        return bool(self.bounds) and not self.failures and all(bound.holds for bound in self.bounds.values())

    def _value(self, name: str) -> float | None:
        bound = self.bounds.get(name)
        return bound.value if bound else None

    @property
    def backward_error(self) -> float | None:
        """Relative size of the smallest known change of the data for which the answer is exact."""
        return self._value("backward_error")

    @property
    def forward_error_bound(self) -> float | None:
        """Bound on the relative distance to the exact solution."""
        return self._value("forward_error")

    @property
    def duality_gap(self) -> float | None:
        """Bound on the relative distance of the objective to its minimum (ridge only)."""
        return self._value("duality_gap")

    @property
    def orthogonality(self) -> float | None:
        """Bound on the distance of ``QᵀQ`` from the identity (QR factorizations)."""
        return self._value("orthogonality")

    def to_json(self) -> dict[str, Any]:
        """Plain values; infinities become None."""
        bounds = {name: asdict(bound) for name, bound in self.bounds.items()}
        for bound in bounds.values():
            bound["value"] = bound["value"] if math.isfinite(bound["value"]) else None
        return {
            "holds": self.holds,
            "bounds": bounds,
            "passes": self.passes,
            "nbytes": self.nbytes,
            "seeds": dict(self.seeds),
            "failures": list(self.failures),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Certificate:
        """Inverse of :meth:`to_json`."""
        bounds = {
            name: Bound(**{**bound, "value": math.inf if bound["value"] is None else bound["value"]})
            for name, bound in data["bounds"].items()
        }
        return cls(bounds, data["passes"], data["nbytes"], data["seeds"], tuple(data["failures"]))

    def __str__(self) -> str:
        width = max((len(b.name) for b in self.bounds.values()), default=0)
        lines = [f"certificate {'HOLDS' if self.holds else 'DOES NOT HOLD'}"]
        for bound in self.bounds.values():
            asked = (
                ""
                if bound.tolerance is None
                else f"  (asked {bound.tolerance:.0e}{'' if bound.holds else ', NOT MET'})"
            )
            sure = f", but for a probability of {1 - bound.confidence:.0e}" if bound.grade == "probabilistic" else ""
            below = "" if bound.lower is None else f" (≥ {bound.lower:.2e})"
            lines.append(
                f"  {bound.name:<{width}}  ≤ {bound.value:<8.2e}{below} {bound.grade}{sure}{asked}: {bound.meaning}"
            )
        lines += [f"  {failure}" for failure in self.failures]
        return "\n".join(lines)
