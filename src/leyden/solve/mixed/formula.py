"""Formulas of mixed models: ``y ~ x + C(origin) + (1 + x | carrier)``.

Random terms stand in brackets with a bar, as in lme4 (Bates, Mächler, Bolker, Walker, J. Stat. Softw. 67(1), 2015); a
double bar keeps the coefficients of a group uncorrelated. Groups may be combined, ``(1 | school:class)``, or nested,
``(1 | school/class)``. What stands behind a bar outside brackets is absorbed, as in fixest: ``y ~ x | worker + firm``.
The rest is read by formulaic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyden.errors import OptionError


@dataclass(frozen=True)
class RandomTerm:
    """Coefficients that each group has of its own.

    Attributes
    ----------
    columns : str
        The right-hand side of a formula: ``"1 + x"``.
    group : tuple of str
        The columns whose combinations are the groups.
    correlated : bool
        Whether the coefficients of a group may be correlated, unless something else is asked for.
    """

    columns: str
    group: tuple[str, ...]
    correlated: bool = True

    @property
    def name(self) -> str:
        """What people call the grouping."""
        return ":".join(self.group)


@dataclass(frozen=True)
class ModelFormula:
    """A model in words.

    Attributes
    ----------
    target : str
        An expression of columns.
    fixed : str
        The right-hand side of a formula.
    random : tuple of RandomTerm
    absorb : tuple of tuple of str
        Factors whose levels each have a coefficient without a penalty.
    """

    target: str
    fixed: str
    random: tuple[RandomTerm, ...] = ()
    absorb: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a mapping that any name of a column survives in."""
        random = [[term.columns, list(term.group), term.correlated] for term in self.random]
        return {"target": self.target, "fixed": self.fixed, "random": random, "absorb": list(map(list, self.absorb))}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> ModelFormula:
        """Inverse of :meth:`to_json`."""
        random = tuple(RandomTerm(columns, tuple(group), correlated) for columns, group, correlated in saved["random"])
        return cls(saved["target"], saved["fixed"], random, tuple(map(tuple, saved["absorb"])))

    def __str__(self) -> str:
        bars = ["||" if not term.correlated else "|" for term in self.random]
        random = [f"({t.columns} {bar} {t.name})" for t, bar in zip(self.random, bars, strict=True)]
        absorbed = f" | {' + '.join(':'.join(factor) for factor in self.absorb)}" if self.absorb else ""
        return f"{self.target} ~ {' + '.join([self.fixed, *random])}{absorbed}"


def parse(formula: str) -> ModelFormula:
    """Read a formula.

    Raises
    ------
    OptionError
        If it is not one.
    """
    from formulaic.errors import FormulaicError
    from formulaic.parser.algos.tokenize import tokenize

    try:
        tokens = list(tokenize(formula))
    except FormulaicError as error:
        raise _wrong(formula, str(error)) from None
    sides = _split(tokens, "~")
    if len(sides) != 2 or not all(sides):
        raise _wrong(formula, "it needs a target, a tilde and what explains it")
    parts = _split(sides[1], "|")
    if len(parts) > 2:
        raise _wrong(formula, "it has two bars outside brackets")
    fixed, random = _separate(formula, parts[0])
    absorb = tuple(_factors(formula, part) for part in _split(parts[1], "+")) if len(parts) == 2 else ()
    return ModelFormula(_text(formula, sides[0]), _text(formula, fixed) or "1", random, absorb)


def from_lists(
    target: str,
    fixed: Sequence[str],
    random: Mapping[str, Sequence[str]],
    absorb: Sequence[str],
    known: Collection[str] = (),
) -> ModelFormula:
    """The model of lists of columns, or of expressions: each list is the right-hand side of a formula.

    Names among ``known`` are columns whatever they look like.
    """

    def names(group: str) -> tuple[str, ...]:
        return (group,) if group in known else tuple(group.split(":"))

    def total(columns: Sequence[str]) -> str:
        return " + ".join(quoted(name, known) for name in columns) or "1"

    terms = tuple(RandomTerm(total(columns), names(group)) for group, columns in random.items())
    return ModelFormula(quoted(target, known), total(fixed), terms, tuple(names(name) for name in absorb))


def quoted(name: str, known: Collection[str]) -> str:
    """A name as formulas have it: a column that is no Python name stands between backticks."""
    return f"`{name}`" if name in known and not name.isidentifier() else name


def _split(tokens: Sequence[Any], operator: str) -> list[list[Any]]:
    """Tokens between operators of one kind outside brackets."""
    parts: list[list[Any]] = [[]]
    depth = 0
    for token in tokens:
        depth += _turn(token)
        if depth == 0 and token.kind.name == "OPERATOR" and token.token == operator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _turn(token: Any) -> int:
    return {"(": 1, ")": -1}.get(token.token, 0) if token.kind.name == "CONTEXT" else 0


def _separate(formula: str, tokens: Sequence[Any]) -> tuple[list[Any], tuple[RandomTerm, ...]]:
    """The tokens of the fixed part, and the random terms."""
    fixed: list[Any] = []
    random: list[RandomTerm] = []
    for term in _split(tokens, "+"):
        inner = term[1:-1] if term and _turn(term[0]) == 1 and _turn(term[-1]) == -1 else []
        bar = next((bar for bar in ("|", "||") if len(_split(inner, bar)) == 2), None)
        if bar is None:
            if any(token.token in ("|", "||") and token.kind.name == "OPERATOR" for token in term):
                raise _wrong(formula, f"'{_text(formula, term)}' is no random term: write (columns | group)")
            fixed += [*([_Plus()] if fixed else []), *term]
            continue
        columns, group = _split(inner, bar)
        nested = _split(group, "/")
        names = [_factors(formula, part) for part in nested]
        for depth in range(len(names)):
            combined = tuple(name for part in names[: depth + 1] for name in part)
            random.append(RandomTerm(_text(formula, columns) or "1", combined, bar == "|"))
    return fixed, tuple(random)


class _Plus:
    """A plus sign between terms that did not stand side by side."""

    token, source_start, source_end = "+", -1, -1

    class kind:  # as in a token
        name = "OPERATOR"


def _factors(formula: str, tokens: Sequence[Any]) -> tuple[str, ...]:
    """Names joined by colons."""
    parts = _split(tokens, ":")
    if any(len(part) != 1 or part[0].kind.name != "NAME" for part in parts):
        raise _wrong(formula, f"'{_text(formula, tokens)}' is no name of a column that groups rows")
    return tuple(part[0].token for part in parts)


def _text(formula: str, tokens: Sequence[Any]) -> str:
    """What the tokens are in the formula."""
    return " ".join(
        "+" if token.source_start < 0 else formula[token.source_start : token.source_end + 1] for token in tokens
    )


def _wrong(formula: str, why: str) -> OptionError:
    return OptionError(
        f"the formula '{formula}' cannot be read: {why}", hint="Write it like 'y ~ x + (1 + x | group)'."
    )
