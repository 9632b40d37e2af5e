"""Plans: what will be done, what it will cost on this machine, and why this way and not another.

``leyden.plan.lstsq(...)`` and its siblings return a :class:`Plan` without running it.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache, wraps
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from leyden.engine.budget import format_bytes
from leyden.engine.registry import cache_folder
from leyden.errors import OptionError

P = ParamSpec("P")
S = TypeVar("S")


@dataclass(frozen=True)
class PassPlan:
    """One predicted pass over the data."""

    name: str
    nbytes: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class Plan(Generic[S]):
    """A chosen algorithm with its predicted cost; ``run()`` executes it.

    Attributes
    ----------
    verb : str
        What is computed: ``"lstsq"``.
    data : str
        The rows it will read.
    method : str
    reasons : tuple of str
        Why this method.
    alternatives : tuple of (str, float, str)
        Other methods, their predicted seconds, and why they were not chosen.
    passes : tuple of PassPlan
    memory : int
        The budget, in bytes.
    peak : int
        Predicted peak of what the run allocates, in bytes.
    algebra : PassPlan
        What is computed between the passes, on matrices of the size of the answer; it reads no data.
    """

    verb: str
    data: str
    method: str
    reasons: tuple[str, ...]
    alternatives: tuple[tuple[str, float, str], ...]
    passes: tuple[PassPlan, ...]
    memory: int
    peak: int
    algebra: PassPlan = PassPlan("dense algebra", 0, 0.0, 0.0)
    _run: Callable[[Plan[S]], S] | None = field(default=None, repr=False, compare=False)

    @property
    def seconds(self) -> float:
        """Predicted wall time."""
        return sum(p.seconds for p in (*self.passes, self.algebra))

    @property
    def flops(self) -> float:
        """Predicted floating-point operations."""
        return sum(p.flops for p in (*self.passes, self.algebra))

    @property
    def nbytes(self) -> int:
        """Bytes that will be read."""
        return sum(p.nbytes for p in self.passes)

    def run(self) -> S:
        """Execute the plan and return its Solution, whose own plan does not keep the data."""
        if self._run is None:
            raise OptionError("this plan is that of a solution, and has no data to run on", hint="Plan again.")
        return self._run(replace(self, _run=None))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "verb": self.verb,
            "data": self.data,
            "method": self.method,
            "reasons": list(self.reasons),
            "alternatives": [list(a) for a in self.alternatives],
            "passes": [asdict(p) for p in self.passes],
            "algebra": asdict(self.algebra),
            "memory": self.memory,
            "peak": self.peak,
            "seconds": self.seconds,
            "flops": self.flops,
            "nbytes": self.nbytes,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Inverse of :meth:`to_json`, without the means to run."""
        return cls(
            data["verb"],
            data["data"],
            data["method"],
            tuple(data["reasons"]),
            tuple((name, seconds, why) for name, seconds, why in data["alternatives"]),
            tuple(PassPlan(**p) for p in data["passes"]),
            data["memory"],
            data["peak"],
            PassPlan(**data["algebra"]),
        )

    def __str__(self) -> str:
        lines = [f"{self.verb} {self.data}", f"method  {self.method}"]
        lines += [f"        {reason}" for reason in self.reasons]
        done = 0
        for p, alike in itertools.groupby(self.passes):
            first, done = done + 1, done + len(list(alike))
            number, each = (f"pass {first}", "") if first == done else (f"pass {first}–{done}", " each")
            lines.append(
                f"{number}  {p.name:<28} {format_bytes(p.nbytes):>8}  {p.flops:8.2e} flops  {p.seconds:7.2f} s{each}"
            )
        if self.algebra.seconds >= 0.05 * self.seconds:
            lines.append(
                f"between {self.algebra.name:<37}  {self.algebra.flops:8.2e} flops  {self.algebra.seconds:7.2f} s"
            )
        lines.append(
            f"total   {len(self.passes)} passes, {format_bytes(self.nbytes)} read, {self.flops:.2e} flops, "
            f"about {self.seconds:.2g} s; peak {format_bytes(self.peak)} of {format_bytes(self.memory)}"
        )
        lines += [f"not     {name} (about {seconds:.2g} s): {why}" for name, seconds, why in self.alternatives]
        return "\n".join(lines)


class Verb(Protocol[P, S]):
    """A function that plans and runs; ``plan`` takes the same arguments and runs nothing."""

    plan: Callable[P, Plan[S]]

    def __call__(self, *args: P.args, **options: P.kwargs) -> S: ...


def verb(plan: Callable[P, Plan[S]]) -> Verb[P, S]:
    """Make of a function that plans the one that users call: it runs the plan, and has ``plan`` as an attribute.

    The arguments of a verb are thus written, checked and explained in one place.
    """

    @wraps(plan)
    def run(*args: P.args, **options: P.kwargs) -> S:
        return plan(*args, **options).run()

    made: Any = run
    made.plan, made.__signature__ = plan, inspect.signature(plan).replace(return_annotation=inspect.Signature.empty)
    return made


@dataclass(frozen=True)
class Machine:
    """Measured rates of one thread of this machine.

    Attributes
    ----------
    gram32, gram64 : float
        Flops a second in forming AᵀA tile by tile, counting 2 m d² for a tile.
    qr : float
        Flops a second in Householder QR, counting 2 m d².
    gradient : float
        Entries a second in the doubled gradient.
    copy : float
        Bytes a second read from 8 MB of memory, which a large cache may hold. More would not fit small budgets, and no
        pass is bound by it.
    """

    gram32: float
    gram64: float
    qr: float
    gradient: float
    copy: float


@cache
def machine() -> Machine:
    """This machine's rates: measured once, kept in the user's cache folder."""
    path = cache_folder() / "machine.json"
    key = f"4 {platform.node()} {platform.processor()} {platform.machine()} {os.cpu_count()}"
    try:
        saved = json.loads(path.read_text())
        if saved.pop("key") == key:
            return Machine(**saved)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    measured = _measure()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"key": key, **asdict(measured)}, indent=1))
        partial.replace(path)
    except OSError:
        pass  # Without a cache folder the second that measuring takes is spent again.
    return measured


def _measure() -> Machine:
    import numpy as np

    from leyden.engine.local import single_threaded_blas
    from leyden.solve import _kernels
    from leyden.solve.reductions import TileGram, TriangleFold

    rng = np.random.default_rng(0)
    m, d = 4096, 128
    a64 = rng.standard_normal((m, d))
    a32 = a64.astype(np.float32)

    def gram(a: Any) -> Callable[[], None]:
        tile = TileGram(512, d, a.dtype)

        def run() -> None:
            for i in range(0, m, 512):
                tile.memory()[:512, :d] = a[i : i + 512]
                tile.product(512)

        return run

    triangle, r = TriangleFold(d), np.zeros((d, d))

    def qr() -> None:
        triangle.memory()[:512, :d] = a64[:512]
        triangle.fold(r, 512)

    b, x, gh, gl = np.ones((m, 1)), *(np.zeros((1, d)) for _ in range(3))

    def gradient() -> None:
        _kernels.gradient_dense(a32, b, np.empty(0), x, np.zeros(1), gh, gl, np.zeros((4, 1)), np.zeros((2, d)))

    def rate(run: Callable[[], Any], work: float) -> float:
        run()
        best, spent = np.inf, 0.0
        while spent < 0.12:
            began = time.perf_counter()
            run()
            seconds = time.perf_counter() - began
            best, spent = min(best, seconds), spent + seconds
        return work / best

    large = np.ones(2**20)
    with single_threaded_blas():
        return Machine(
            gram32=rate(gram(a32), 2 * m * d * d),
            gram64=rate(gram(a64), 2 * m * d * d),
            qr=rate(qr, 2 * 512 * d * d),
            gradient=rate(gradient, m * d),
            copy=rate(large.sum, large.nbytes),
        )


def lstsq(*args: Any, **options: Any) -> Plan:
    """How :func:`leyden.lstsq` would solve the problem; takes the same arguments, runs nothing."""
    from leyden.solve.lstsq import lstsq

    return lstsq.plan(*args, **options)


def svd(*args: Any, **options: Any) -> Plan:
    """How :func:`leyden.svd` would factor the rows; takes the same arguments, runs nothing."""
    from leyden.factor.svd import svd

    return svd.plan(*args, **options)


def pca(*args: Any, **options: Any) -> Plan:
    """How :func:`leyden.pca` would find the components; takes the same arguments, runs nothing."""
    from leyden.factor.svd import pca

    return pca.plan(*args, **options)


def qr(*args: Any, **options: Any) -> Plan:
    """How :func:`leyden.qr` would factor the rows; takes the same arguments, runs nothing."""
    from leyden.factor.qr import qr

    return qr.plan(*args, **options)


def als(*args: Any, **options: Any) -> Plan:
    """How :func:`leyden.als` would factor ratings; takes the same arguments, runs nothing."""
    from leyden.factor.als import als

    return als.plan(*args, **options)


def mixed(*args: Any, **options: Any) -> Plan:
    """How :func:`leyden.mixed` would fit the model; takes the same arguments, runs nothing."""
    from leyden.solve.mixed.model import mixed

    return mixed.plan(*args, **options)


def kernel_machine(*args: Any, **options: Any) -> Plan:
    """How :func:`leyden.kernel_machine` would fit the machine; takes the same arguments, runs nothing."""
    from leyden.kernel.machine import kernel_machine

    return kernel_machine.plan(*args, **options)
