"""Write .env.example from the declarations of `bot.config.Settings`: `python -m tools.env_example`."""

from __future__ import annotations

import textwrap
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Final

from bot.config import Settings

EXAMPLE: Final = Path(__file__).parents[1] / ".env.example"
LINE_CHARACTERS: Final = 120

HEADER: Final = """\
# Settings of GPT-2 for Discord. Copy this file to .env and fill in what you need; `make check` says what is wrong.
# A line that begins with "#NAME=" shows the default: remove the "#" to change it. A value in the process's environment
# wins over one in the file. Never commit .env or show it to anyone: it holds the token.
"""


def example() -> str:
    """Return the text of .env.example: every setting with its explanation and its default."""
    return "\n".join([HEADER, *map(_entry, fields(Settings))])


def _entry(setting: Field[Any]) -> str:
    explanation = textwrap.fill(
        setting.metadata["explanation"],
        LINE_CHARACTERS,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    default = written(setting.default)
    return f"{explanation}\n{'#' if default else ''}{setting.name.upper()}={default}\n"


def written(value: object) -> str:
    """Return a value as an operator writes it."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)


if __name__ == "__main__":
    EXAMPLE.write_text(example(), encoding="utf-8", newline="\n")
