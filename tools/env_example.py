"""Write .env.example and docs/settings.md from `bot.config.Settings`: `python -m tools.env_example`."""

from __future__ import annotations

import re
import textwrap
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Final

from bot.config import Settings

ROOT: Final = Path(__file__).parents[1]
EXAMPLE: Final = ROOT / ".env.example"
PAGE: Final = ROOT / "docs" / "settings.md"
LINE_CHARACTERS: Final = 120

HEADER: Final = """\
# Settings of GPT-2 for Discord. Copy this file to .env and fill in what you need; `make check` says what is wrong.
# A line that begins with "#NAME=" shows the default: remove the "#" to change it. A value in the process's environment
# wins over one in the file. Never commit .env or show it to anyone: it holds the token.
"""
PAGE_HEADER: Final = """\
<!-- Made by `python -m tools.env_example` from bot/config.py. -->

# Settings

Each setting is a variable of the environment or a line `NAME=value` in `.env`, in the folder where you start the bot
(`--env-file` names another file). The environment wins over the file, and both are read once, at start. All but the
token have a default. `python -m bot setup` writes the most important ones, `python -m bot check` tests all of them, and
[hosting.md](hosting.md#settings) has the details of the file.

| setting | default | meaning |
| --- | --- | --- |
"""


def example() -> str:
    """Return the text of .env.example: every setting with its explanation and its default."""
    return "\n".join([HEADER, *map(_entry, fields(Settings))])


def page() -> str:
    """Return the text of docs/settings.md: the same as a table, with links to the pages that explanations name."""
    return PAGE_HEADER + "".join(map(_row, fields(Settings)))


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


def _row(setting: Field[Any]) -> str:
    default = written(setting.default)
    explanation = re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", setting.metadata["explanation"])
    explanation = re.sub(r"https://[^\s|]+[\w/]", r"<\g<0>>", explanation)
    return f"| `{setting.name.upper()}` | {f'`{default}`' if default else ''} | {explanation} |\n"


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
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
