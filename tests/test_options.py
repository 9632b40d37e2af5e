"""An option is a plain value that makes sense, or one sentence that names it."""

from fractions import Fraction

import numpy as np
import pytest

import leyden as ly

A, B = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 2.0, 3.0])

HUGE = 10**400

WRONG = {
    "ridge": [
        -1.0,
        np.nan,
        np.inf,
        HUGE,
        10**5000,
        "1",
        None,
        True,
        [1.0],
        np.array([1.0]),
        1j,
        np.timedelta64(1, "s"),
    ],
    "tol": [0, 1, -1e-3, np.nan, "x", None, HUGE, np.array([1e-14])],
    "forward_tol": [0, -1, np.nan, np.inf, "x", [1e-8]],
    "seed": [-1, 2**64, HUGE, 1.0, "1", None, True, np.array([1])],
    "threads": [0, -2, 1.0, "2", HUGE, True, [2]],
    "memory": ["lots", 0, -1, 0.5, np.nan, 1.5e400, HUGE, [], True, "9" * 400 + "GB", np.array([1e9])],
    "method": ["magic", 3, None, ["auto"], np.array(["auto", "tsqr"])],
    "intercept": ["no", 1, None, [True], np.array([True])],
    "progress": ["no", 1],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, id=f"{name}-{i}") for name, values in WRONG.items() for i, value in enumerate(values)],
)
@pytest.mark.parametrize("verb", [ly.lstsq, ly.plan.lstsq])
def test_what_makes_no_sense_is_refused_in_a_sentence(verb, name, value):
    with pytest.raises(ly.OptionError, match=rf"^{name}=.* (must be|is not) ") as error:
        verb(A, B, **{name: value})
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"memory": np.nan}, {"memory": []}, {"progress": "no"}])
def test_verification_checks_its_options_too(options):
    with pytest.raises(ly.OptionError, match=f"^{next(iter(options))}="):
        ly.verify(ly.lstsq(A, B), ly.open(A, target=B), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"ridge": np.float32(0.5)},
        {"ridge": np.array(2)},
        {"ridge": Fraction(1, 2)},
        {"tol": np.array(1e-10), "forward_tol": np.float32(1e-6)},
        {"seed": np.uint64(2**63 - 1), "method": "sketch"},
        {"seed": np.uint64(2**64 - 1)},
        {"seed": np.int8(3), "threads": np.int64(2)},
        {"memory": np.int64(10**9)},
        {"memory": 1e9},
        {"memory": 10**30},
        {"intercept": np.bool_(True), "progress": np.False_},
        {"intercept": np.array(True)},
        {"method": np.str_("tsqr")},
    ],
)
def test_numbers_of_numpy_are_numbers_and_the_solution_can_be_saved(tmp_path, options):
    solution = ly.lstsq(A, B, **options)
    assert solution.certificate.holds
    assert ly.load(solution.save(tmp_path / "solution")).certificate == solution.certificate


def test_options_are_checked_before_the_data_is_opened():
    with pytest.raises(ly.OptionError, match="tol"):
        ly.lstsq("there is no such file", tol=2)
