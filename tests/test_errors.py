from __future__ import annotations

import inspect

import pytest

from bot import errors
from bot.errors import ExitCode, OperatorError, SettingsError, UserError
from bot.text import say

# Meanings of <sysexits.h>; docs/troubleshooting.md, "Exit codes", and units of supervisors name the numbers.
PUBLISHED = {
    "OK": 0,
    "CRASHED": 1,
    "USAGE": 2,
    "MODEL_INVALID": 65,
    "NOT_INSTALLED": 69,
    "UNREACHABLE": 75,
    "TOKEN": 77,
    "SETTINGS": 78,
}


def kinds_of(base: type[Exception]) -> list[type[Exception]]:
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, base)]


def test_exit_codes_are_the_published_ones() -> None:
    assert {code.name: code.value for code in ExitCode} == PUBLISHED


def test_only_errors_that_a_restart_may_cure_share_an_exit_code() -> None:
    codes = [kind.exit_code for kind in kinds_of(OperatorError) if issubclass(kind, OperatorError)]
    assert {code for code in codes if codes.count(code) > 1} == {ExitCode.UNREACHABLE}
    assert ExitCode.OK not in codes


def test_no_error_is_for_both_user_and_operator() -> None:
    assert not set(kinds_of(UserError)) & set(kinds_of(OperatorError))


def test_user_errors_keep_their_text_and_read_in_english() -> None:
    text = say("Layer {layer} does not exist.", layer=13)
    error = UserError(text)
    assert error.text is text
    assert str(error) == "Layer 13 does not exist."


def test_a_missing_model_is_explained() -> None:
    assert "could not be loaded" in str(errors.ModelNotLoadedError())
    assert isinstance(errors.ModelNotLoadedError(), errors.UnavailableError)


def test_settings_errors_list_every_fault_on_a_line() -> None:
    error = SettingsError(["A is wrong.", "B is missing."])
    assert error.faults == ("A is wrong.", "B is missing.")
    assert str(error).splitlines()[1:] == ["  - A is wrong.", "  - B is missing."]


@pytest.mark.parametrize("kind", kinds_of(Exception), ids=lambda kind: kind.__name__)
def test_every_error_has_one_kind_of_reader(kind: type[Exception]) -> None:
    assert issubclass(kind, (UserError, OperatorError))
    assert kind.__doc__
