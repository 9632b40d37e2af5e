"""Solutions: an answer with its certificate, its history and its plan; saved as plain files that anybody can verify."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leyden.certificate import Certificate
from leyden.errors import SolutionError
from leyden.plan import Plan

FORMAT = 2

_KINDS = {
    "lstsq": "leyden.solve.least_squares:LeastSquares",
    "mixed": "leyden.solve.mixed.result:MixedModel",
    "fixed_effects": "leyden.solve.absorb.model:FixedEffects",
    "svd": "leyden.factor.decomposition:SVD",
    "pca": "leyden.factor.decomposition:PrincipalComponents",
    "qr": "leyden.factor.triangular:QR",
    "als": "leyden.factor.als_result:ALSResult",
    "kernel_machine": "leyden.kernel.result:KernelMachine",
    "lookup_mixed": "leyden.solve.lookup.result:PersonalisedRegressions",
}


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
    def verify(self, *data: Any, **options: Any) -> Certificate:
        """Compute the certificate again from the data, trusting nothing saved; arguments as of :func:`verify`."""

    def save(
        self, folder: str | os.PathLike, *, overwrite: bool = True, documents: Mapping[str, Any] | None = None
    ) -> Path:
        """Write a folder with ``solution.json`` and one ``.npy`` a named array; nothing in it executes when loaded.

        The folder appears complete or not at all. Where it is a link to a folder, that folder is written.

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

        target = free_place(folder, overwrite=overwrite)
        document = {
            "format": FORMAT,
            "leyden": leyden.__version__,
            "kind": self.kind,
            "problem": self._problem(),
            "certificate": self.certificate.to_json(),
            "trace": self.trace.to_json(),
            "plan": self.plan.to_json(),
        }
        mark = uuid.uuid4().hex[:8]
        partial, replaced = (target.with_name(f".{target.name}.{mark}.{what}") for what in ("partial", "replaced"))
        try:
            partial.mkdir(parents=True)
            for name, array in self._arrays().items():
                np.save(partial / f"{name}.npy", array, allow_pickle=False)
            for name, values in {**(documents or {}), "solution": document}.items():
                (partial / f"{name}.json").write_text(json.dumps(values, indent=1))
            _synchronise(partial)
            if target.exists():
                target.replace(replaced)
            partial.replace(target)
        except BaseException as error:
            if replaced.exists() and not target.exists():
                replaced.replace(target)
            shutil.rmtree(partial, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            raise SolutionError(f"the solution could not be written ({error.strerror})", where=str(target)) from None
        shutil.rmtree(replaced, ignore_errors=True)
        return Path(folder)


def free_place(folder: str | os.PathLike, *, overwrite: bool = True) -> Path:
    """The real path of a folder that a solution can be saved in: one that is not there yet, is empty, or is a solution.

    Raises
    ------
    SolutionError
        If anything else could be lost.
    """
    try:
        target = Path(folder).resolve()
        is_solution = (target / "solution.json").exists()
        inside = sorted(target.iterdir()) if target.is_dir() else []
        taken = target.exists() and not target.is_dir()
        here = Path.cwd().is_relative_to(target)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SolutionError(
            f"this folder cannot be used ({why})", where=str(folder), hint="Name another one."
        ) from None
    if here:
        raise SolutionError(
            "a solution takes the place of its folder, which cannot be the current one or one above it",
            where=str(target),
            hint="Name a folder inside it.",
        )
    if taken or (inside and not is_solution):
        raise SolutionError("this folder exists and is not a solution", where=str(target), hint="Name another one.")
    if is_solution and not overwrite:
        raise SolutionError("there is a solution here already", where=str(target), hint="Name another folder.")
    foreign = [file.name for file in inside if file.suffix not in (".json", ".npy")]
    if foreign:
        raise SolutionError(
            f"this folder holds {foreign[0]} beside the solution, which would be lost",
            where=str(target),
            hint="Move it, or name another folder.",
        )
    return target


def _synchronise(folder: Path) -> None:
    """Have the files of a folder on the disk before another folder gives way to it."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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


def verify(
    solution: Solution | str | os.PathLike,
    rows: Any,
    b: Any = None,
    *,
    weights: Any = None,
    memory: str | int | None = None,
    executor: Any = None,
    progress: bool | None = False,
) -> Certificate:
    """Recompute the certificate of a solution from the data, by an independent pass.

    Parameters
    ----------
    solution : Solution or path
    rows : Rows or anything :func:`leyden.open` takes
        The data that was solved.
    b : array, shape (n,) or (n, k), optional
        Its targets; not needed when the rows carry a target.
    weights : array, shape (n,), optional
        The weights that were used, unless the rows carry them.
    memory : str or int, optional
        Budget, as ``"2GB"`` or bytes; half of the free memory by default.
    executor : Executor, optional
        What runs the pass, as in :func:`leyden.lstsq`.
    progress : bool, optional
        Show the pass while it runs; None does so on a terminal.

    Returns
    -------
    Certificate
        ``holds`` is False when a bound asked for is not met, when the saved certificate claims more than is true, or
        when solution and data do not belong together.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> a, b = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 2.0, 3.0])
    >>> sol = ly.lstsq(a, b)
    >>> ly.verify(sol, a, b).holds
    True
    >>> b[0] += 1e-9
    >>> ly.verify(sol, a, b).holds
    False
    """
    if not isinstance(solution, Solution):
        solution = load(solution)
    return solution.verify(rows, b, weights=weights, memory=memory, executor=executor, progress=progress)
