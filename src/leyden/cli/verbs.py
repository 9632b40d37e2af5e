"""From a function of option dataclasses to a command; from an exception to one sentence and a status."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

import typer

from leyden.errors import Interrupted, LeydenError

FAILED, WRONG_INPUT, BUG, INTERRUPTED = 1, 2, 3, 130

# Errors name the arguments of the library; on the command line the same arguments are options.
_ARGUMENT = re.compile(
    r"\b(target|weight|columns|categorical|drop_first|nulls|format|ridge|tol|forward_tol|method|rank|scale|left|passes|memory|threads|seed|scheduler|workers|q|user|item|value|time|duplicates|holdout|out|max_rank|regularization|scaling|implicit|alpha|background|biases|nonnegative|gap|epochs|start|fixed|random|group|weights|covariance|missing|intervals|level|absorb|vcov|cluster|random_out|plot|classify|variance|features|held_out)="
    r"""(?:\[\.\.\.\]|\[?(?:'([^']*)'|"([^"]*)")\]?|([\w.+-]*\w)?)"""
)


def verb(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer: parameters that are dataclasses become one option a field, and errors become sentences."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if is_dataclass(kind) and isinstance(kind, type)}

    @functools.wraps(command)
    def run(**values: Any) -> None:
        debug = bool(values.get("debug"))
        made = {name: kind(**{f.name: values.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        with one_sentence(debug):
            command(**made, **values)

    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _field_parameters(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
    made: Any = run
    made.__signature__ = inspect.Signature(parameters)
    made.__annotations__ = {p.name: p.annotation for p in parameters}
    return made


def _field_parameters(kind: type) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]


@contextmanager
def one_sentence(debug: bool) -> Iterator[None]:
    """Turn what goes wrong inside into one sentence on standard error and a status, unless ``debug``."""
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise  # typer ends quietly when nobody reads what is printed
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, Interrupted):
            _leave(str(interrupt), 128 + interrupt.signal)
        _leave("interrupted", INTERRUPTED)
    except Exception as error:  # what is no error of ours, nor of the system, is a bug
        if debug:
            raise
        if isinstance(error, LeydenError):
            _leave(as_typed(str(error)), WRONG_INPUT)
        if isinstance(error, OSError):
            place = f"{error.filename}: " if error.filename else ""
            _leave(f"{place}{error.strerror or error}.", WRONG_INPUT)
        said = " ".join(str(error).split())[:200]
        _leave(
            f"this is a bug in Leyden ({type(error).__name__}: {said}). Run it again with --debug to see where.", BUG
        )


def as_typed(sentence: str) -> str:
    """A sentence that names arguments of the library, in the words of the command line: ``--nulls mean``."""

    def option(match: re.Match[str]) -> str:
        value = next((group for group in match.groups()[1:] if group and group != "True"), "")
        return f"--{match[1].replace('_', '-')} {value}".rstrip()

    return _ARGUMENT.sub(option, sentence)


def _leave(sentence: str, status: int) -> None:
    typer.echo(typer.style("leyden: ", fg=typer.colors.RED, bold=True) + sentence, err=True)
    raise typer.Exit(status) from None
