"""Formulas of mixed models."""

from __future__ import annotations

import pytest

import leyden as ly
from leyden.solve.mixed.formula import RandomTerm, from_lists, parse


@pytest.mark.parametrize(
    ("formula", "fixed", "random"),
    [
        ("y ~ x + (1 | g)", "x", [RandomTerm("1", ("g",))]),
        ("y ~ (1 + x | g) + x * z", "x * z", [RandomTerm("1 + x", ("g",))]),
        ("y ~ x + (0 + x || g)", "x", [RandomTerm("0 + x", ("g",), False)]),
        ("y ~ x + (1 | a:b)", "x", [RandomTerm("1", ("a", "b"))]),
        ("y ~ x + (1 | a/b)", "x", [RandomTerm("1", ("a",)), RandomTerm("1", ("a", "b"))]),
        ("y ~ (1 | g)", "1", [RandomTerm("1", ("g",))]),
        ("y ~ log(`a b`) + (1 | `the group`)", "log(`a b`)", [RandomTerm("1", ("the group",))]),
        ("y ~ (x + z) * c + (1 | g)", "(x + z) * c", [RandomTerm("1", ("g",))]),
    ],
)
def test_random_terms_stand_in_brackets_with_a_bar(formula, fixed, random) -> None:
    found = parse(formula)
    assert found.fixed.replace(" ", "") == fixed.replace(" ", "")
    assert list(found.random) == random


def test_what_stands_behind_a_bar_outside_brackets_is_absorbed() -> None:
    assert parse("y ~ x | worker + firm:year").absorb == (("worker",), ("firm", "year"))


@pytest.mark.parametrize("formula", ["y ~ x + (1 + x | g) + (1 || s:t)", "y ~ 0 + x | a + b", "log(y) ~ (1 | g)"])
def test_a_formula_is_what_it_prints(formula: str) -> None:
    assert parse(str(parse(formula))) == parse(formula)


@pytest.mark.parametrize(
    ("formula", "sentence"),
    [
        ("y", "needs a target, a tilde"),
        ("~ x", "needs a target, a tilde"),
        ("y ~ x | a | b", "two bars outside brackets"),
        ("y ~ x + (1 | 3)", "'3' is no name of a column"),
        ("y ~ x - (1 | g)", "is no random term"),
        ("y ~ x + (1 | g", "cannot be read"),
    ],
)
def test_what_is_no_formula_is_said(formula: str, sentence: str) -> None:
    with pytest.raises(ly.OptionError, match=sentence):
        parse(formula)


def test_lists_are_right_hand_sides() -> None:
    found = from_lists("y", ["x", "a b"], {"g": ["x"], "s:t": []}, ["w"], {"x", "a b"})
    assert str(found) == "y ~ x + `a b` + (x | g) + (1 | s:t) | w"
