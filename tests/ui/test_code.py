"""The private answer that shows a program."""

from __future__ import annotations

import pytest

from bot.errors import InvalidInputError
from bot.ui.code import PROGRAM_NAME, CodeLayout, check_model, model_checksum
from bot.ui.limits import MESSAGE_CHARACTERS
from tests.programs.test_source import model


def contents(layout: CodeLayout) -> list[str]:
    return [getattr(item, "content", "") for item in layout.walk_children()]


def test_a_program_stands_in_a_code_block() -> None:
    layout = CodeLayout("print(1)\n", str)
    assert "```py\nprint(1)\n```" in contents(layout)
    assert not layout.files


@pytest.mark.parametrize("program", ['prompt = "```"\n', "x" * (MESSAGE_CHARACTERS - 8), "😀" * 1000])
def test_a_long_or_fenced_program_is_a_file(program: str) -> None:
    layout = CodeLayout(program, str)
    (file,) = layout.files
    assert file.filename == PROGRAM_NAME
    assert file.fp.read().decode() == program
    assert not any("```" in text for text in contents(layout))


def test_the_longest_that_fits_is_a_code_block() -> None:
    layout = CodeLayout("x" * (MESSAGE_CHARACTERS - 9), str)
    assert not layout.files
    assert max(map(len, contents(layout))) == MESSAGE_CHARACTERS


def test_another_models_button_is_refused() -> None:
    check_model(model_checksum(model()), model())
    with pytest.raises(InvalidInputError, match="I now run distilgpt2"):
        check_model(model_checksum(model()), model(name="distilgpt2"))
