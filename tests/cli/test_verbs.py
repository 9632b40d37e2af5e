"""From an exception to one sentence and a status."""

from __future__ import annotations

import pytest
import typer

from leyden.cli.verbs import as_typed, one_sentence
from leyden.errors import OptionError


def status_and_sentence(error, capsys):
    with pytest.raises(typer.Exit) as left, one_sentence(debug=False):
        raise error
    return left.value.exit_code, capsys.readouterr().err


def test_an_error_of_the_user_has_status_2(capsys):
    error = OptionError("this is wrong", where="f.csv", hint="Do that.")
    assert status_and_sentence(error, capsys) == (2, "leyden: f.csv: this is wrong. Do that.\n")


def test_an_error_of_the_system_has_status_2_and_its_file(capsys):
    error = PermissionError(13, "Permission denied", "f.csv")
    assert status_and_sentence(error, capsys) == (2, "leyden: f.csv: Permission denied.\n")


def test_an_interrupt_has_status_130_and_one_line(capsys):
    assert status_and_sentence(KeyboardInterrupt(), capsys) == (130, "leyden: interrupted\n")


def test_a_bug_has_status_3_and_says_so_in_one_line(capsys):
    status, said = status_and_sentence(ZeroDivisionError("two\nlines"), capsys)
    assert status == 3
    assert said.count("\n") == 1
    assert "bug" in said
    assert "ZeroDivisionError: two lines" in said
    assert "--debug" in said


def test_debug_shows_the_error_itself():
    with pytest.raises(OptionError), one_sentence(debug=True):
        raise OptionError("this is wrong")


@pytest.mark.parametrize(
    ("library", "typed"),
    [
        ("Add categorical=['kind'] to it", "Add --categorical kind to it"),
        ("leave it out with columns=[...].", "leave it out with --columns."),
        ('Give at least memory="12MB".', "Give at least --memory 12MB."),
        ("with nulls='drop' the", "with --nulls drop the"),
        ("tol=2.5 must lie", "--tol 2.5 must lie"),
        ("method='x' is not", "--method x is not"),
        ("give format=.", "give --format."),
        ("drop_first= and nulls= are", "--drop-first and --nulls are"),
        ("column=value", "column=value"),
    ],
)
def test_arguments_of_the_library_are_named_as_options(library, typed):
    assert as_typed(library) == typed
