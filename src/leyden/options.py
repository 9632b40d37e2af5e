"""The options of the verbs, checked: each comes back as a plain value, or is refused in one sentence.

Numbers may be Python's or NumPy's, arrays without dimensions included; a truth value is not a number.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from leyden.engine.budget import parse_memory
from leyden.errors import OptionError

MAX_SEED = 2**64 - 1

#: More threads than any machine has processors.
MAX_THREADS = 2**16


def zero_or_more(name: str, value: Any) -> float:
    """A finite number, zero or more."""
    return _number(name, value, "must be a number, zero or more", lambda number: 0 <= number < math.inf)


def positive(name: str, value: Any) -> float:
    """A finite number above zero."""
    return _number(name, value, "must be a positive number", lambda number: 0 < number < math.inf)


def fraction(name: str, value: Any) -> float:
    """A number between zero and one, both excluded."""
    return _number(name, value, "must be a number between 0 and 1", lambda number: 0 < number < 1)


def whole(name: str, value: Any, least: int, most: int) -> int:
    """A whole number from ``least`` to ``most``."""
    number = _scalar(value)
    if not (isinstance(number, int | np.integer) and least <= number <= most):
        raise _refused(name, value, f"must be a whole number from {least:,} to {most:,}")
    return int(number)


def seed(value: Any) -> int:
    """A seed of the counter-based generator: 64 bits."""
    return whole("seed", value, 0, MAX_SEED)


def threads(value: Any) -> int | None:
    """A number of threads; None is all processors."""
    return None if value is None else whole("threads", value, 1, MAX_THREADS)


def memory(value: Any) -> int:
    """A budget in bytes, from an amount as people write it or a number; None is half of the free memory."""
    wrong, hint = "is not an amount", 'Write it like "512MB" or "2GB".'
    if value is not None and not isinstance(value, str):
        value = int(_number("memory", value, wrong, lambda number: 1 <= number < math.inf, hint))
    try:
        return parse_memory(value)
    except OverflowError:
        raise _refused("memory", value, wrong, hint) from None


def flag(name: str, value: Any) -> bool:
    """True or False."""
    array = np.asarray(value) if isinstance(value, bool | np.bool_ | np.ndarray) else None
    if array is None or array.ndim or array.dtype != bool:
        raise _refused(name, value, "must be True or False")
    return bool(array)


def progress(value: Any) -> bool | None:
    """Whether to show progress; None leaves it to whether there is a terminal."""
    return None if value is None else flag("progress", value)


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of some words."""
    if not (isinstance(value, str) and value in choices):
        raise _refused(name, value, f"is not one of {', '.join(choices)}")
    return value


def _number(name: str, value: Any, wrong: str, right: Callable[[float], bool], hint: str | None = None) -> float:
    scalar = _scalar(value)
    try:
        number = float(scalar) if isinstance(scalar, Real) else math.nan
    except OverflowError:
        number = math.inf
    if not right(number):
        raise _refused(name, value, wrong, hint)
    return number


def _scalar(value: Any) -> Any:
    """The value, out of an array without dimensions; None for what only looks like a number."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    return None if isinstance(value, bool | np.timedelta64) else value


def _refused(name: str, value: Any, wrong: str, hint: str | None = None) -> OptionError:
    return OptionError(f"{name}={_shown(value)} {wrong}", hint=hint)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def _shown(value: Any) -> str:
    """The value on one line of moderate length."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python does not write out integers of thousands of digits
        return "…"
