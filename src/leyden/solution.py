"""Solutions: an answer with its certificate, its history and its plan; saved as plain files that anybody can verify."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leyden.certificate import Certificate
from leyden.errors import SolutionError
from leyden.plan import Plan

FORMAT = 1

_KINDS = {"lstsq": "leyden.solve.least_squares:LeastSquares"}


@dataclass(frozen=True)
class PassRecord:
    """One pass that was made: what it computed, rows and bytes read, wall seconds, threads."""

    name: str
    rows: int
    nbytes: int
    seconds: float
    threads: int


@dataclass
class Trace:
    """What happened, pass by pass, with remarks in between.

    Attributes
    ----------
    passes : list of PassRecord
    remarks : list of str
        Decisions made on the way, for people.
    seconds : float
        Wall time of the whole run.
    """

    passes: list[PassRecord] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"passes": [asdict(p) for p in self.passes], "remarks": self.remarks, "seconds": self.seconds}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trace:
        """Inverse of :meth:`to_json`."""
        return cls([PassRecord(**p) for p in data["passes"]], list(data["remarks"]), data["seconds"])

    def __str__(self) -> str:
        lines = []
        for i, p in enumerate(self.passes, 1):
            rate = f"{p.nbytes / max(p.seconds, 1e-9) / 1e9:.2f} GB/s"
            lines.append(f"pass {i}  {p.name:<28} {p.rows:>12,} rows  {p.seconds:7.2f} s  {rate}")
        return "\n".join([*lines, *self.remarks, f"total   {self.seconds:.2f} s"])


class Solution(ABC):
    """An answer with its certificate.

    Attributes
    ----------
    kind : str
        The verb that made it.
    certificate : Certificate
    trace : Trace
    plan : Plan
    """

    kind: str
    certificate: Certificate
    trace: Trace
    plan: Plan

    @abstractmethod
    def _problem(self) -> dict[str, Any]:
        """Plain values that say what was solved."""

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """The numbers of the answer, and the witnesses its verification starts from."""

    @classmethod
    @abstractmethod
    def _restore(
        cls, problem: dict[str, Any], arrays: dict[str, np.ndarray], certificate: Certificate, trace: Trace, plan: Plan
    ) -> Solution:
        """Inverse of ``_problem`` and ``_arrays``."""

    @abstractmethod
    def verify(
        self, rows: Any, *, memory: str | int | None = None, executor: Any = None, progress: bool | None = False
    ) -> Certificate:
        """Compute the certificate again, from the data, trusting nothing that was saved."""

    def save(
        self, folder: str | os.PathLike, *, overwrite: bool = True, documents: Mapping[str, Any] | None = None
    ) -> Path:
        """Write a folder with ``solution.json`` and one ``.npy`` a named array; nothing in it executes when loaded.

        The folder appears complete or not at all.

        Parameters
        ----------
        folder : path
        overwrite : bool, default True
            Whether to replace a solution that is there already. Anything else is never replaced.
        documents : mapping, optional
            Plain values to keep beside the solution, each in a file ``NAME.json`` of its own.

        Raises
        ------
        SolutionError
            If the folder cannot be written, or exists and is not a solution.
        """
        import leyden

        target = Path(folder)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        is_solution = (target / "solution.json").exists()
        foreign = sorted(f.name for f in target.iterdir() if f.suffix not in (".json", ".npy")) if is_solution else []
        if foreign:
            raise SolutionError(
                f"this folder holds {foreign[0]} beside the solution, which would be lost",
                where=str(target),
                hint="Move it, or name another folder.",
            )
        if target.exists() and not (is_solution and overwrite) and not (target.is_dir() and not any(target.iterdir())):
            raise SolutionError("this folder exists and is not a solution", where=str(target), hint="Name another one.")
        document = {
            "format": FORMAT,
            "leyden": leyden.__version__,
            "kind": self.kind,
            "problem": self._problem(),
            "certificate": self.certificate.to_json(),
            "trace": self.trace.to_json(),
            "plan": self.plan.to_json(),
        }
        try:
            partial.mkdir(parents=True)
            for name, array in self._arrays().items():
                np.save(partial / f"{name}.npy", array, allow_pickle=False)
            for name, values in {**(documents or {}), "solution": document}.items():
                (partial / f"{name}.json").write_text(json.dumps(values, indent=1))
            if target.exists():
                shutil.rmtree(target)
            partial.replace(target)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise SolutionError(f"the solution could not be written ({error.strerror})", where=str(target)) from None
        return target


def load(folder: str | os.PathLike) -> Solution:
    """Read a solution that :meth:`Solution.save` wrote.

    Raises
    ------
    SolutionError
        If the folder is missing, damaged, or of another format.
    """
    path = Path(folder)
    try:
        document = json.loads((path / "solution.json").read_text())
        if document["format"] != FORMAT:
            raise SolutionError(f"format {document['format']} is not one this version reads", where=str(path))
        module, name = _KINDS[document["kind"]].split(":")
        arrays = {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        return getattr(importlib.import_module(module), name)._restore(
            document["problem"],
            arrays,
            Certificate.from_json(document["certificate"]),
            Trace.from_json(document["trace"]),
            Plan.from_json(document["plan"]),
        )
    except FileNotFoundError as error:
        missing = Path(error.filename).name if error.filename else "solution.json"
        raise SolutionError(f"there is no solution here: {missing} is missing", where=str(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError) as error:
        if isinstance(error, SolutionError):
            raise
        raise SolutionError(f"the solution is damaged ({type(error).__name__}: {error})", where=str(path)) from None


def verify(solution: Solution | str | os.PathLike, rows: Any, **options: Any) -> Certificate:
    """Recompute the certificate of a solution from the data, by an independent pass.

    Parameters
    ----------
    solution : Solution or path
    rows : Rows or anything :func:`leyden.open` takes
        The data that was solved, with the same roles.
    **options
        ``memory``, ``executor`` and ``progress``, as in :func:`leyden.lstsq`.

    Returns
    -------
    Certificate
        ``holds`` is False when a bound asked for is not met, when the saved certificate claims more than is true, or
        when solution and data do not belong together.
    """
    if not isinstance(solution, Solution):
        solution = load(solution)
    return solution.verify(rows, **options)
