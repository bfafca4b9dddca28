"""`python -m bot setup`: asks for what a bot needs, checks it, writes it to `.env` and prints the invitation.

`.env` is written last and in one step, so that Ctrl-C leaves everything as it was.
"""

from __future__ import annotations

import getpass
import io
import os
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dotenv.parser

from bot import config
from bot.cli.check import check, invite_link
from bot.config import Secret, Settings, Values
from bot.errors import ExitCode, SettingsError
from bot.installation import program
from bot.monitoring import logs

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADING: Final = "# Settings of GPT-2 for Discord; docs/settings.md explains all of them. Show this file to nobody.\n"
_TOKEN_PAGE: Final = "https://discord.com/developers/applications → your application → Bot → Reset Token"  # noqa: S105
_QUESTIONS: Final = {
    "GPT2_MODEL": "Model: a name on the Hugging Face hub, a folder, or the name of the model that ships with the bot",
    "GPT2_CACHE": "Folder for downloads",
    "JOURNAL": "File that keeps accepted requests until they are answered, or off",
}


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers from the command line, which are not asked for.

    Attributes:
        token_stdin: Whether standard input holds the token and nothing else.
        settings: Values by the names of their settings.
    """

    token_stdin: bool
    settings: Mapping[str, str]


def setup(answers: Answers, path: Path | None = None) -> ExitCode:
    """Write a `.env` file, check its settings, and print the link that adds the bot to a server.

    The file keeps what it already has and is not asked for. A failed check (the hub may be unreachable) does not lose
    the answers: they are written all the same.

    Args:
        answers: Those from the command line. The others are asked for if standard input is a terminal.
        path: The file; `.env` in the working directory by default.

    Raises:
        SettingsError: The answers are no valid settings, or the file cannot be read or written; nothing has changed.
    """
    path = path or Path(".env")
    try:
        before = config.environment(path if path.exists() else None)
        given = _given(answers, before)
        settings = config.parse(Values({**before, **given}, before.faults), token_required=True)
        logs.configure(settings.log_level, settings.log_format)
        code = check(settings)
        _write(path, given)
    except (KeyboardInterrupt, EOFError):
        print("\nNothing was changed.")
        return ExitCode.OK
    print(f"\nWrote {path}, which only you can read. Add the bot to a server: {invite_link(settings.discord_token)}")
    if code:
        print(f"Some checks failed: see above. After a fix, run `{program()} check`, then `{program()} run`.")
    else:
        print(f"Start it with `{program()} run`.")
    return code


def _given(answers: Answers, before: Mapping[str, str]) -> dict[str, str]:
    """Return the answers from the command line and, on a terminal, from its user."""
    given = dict(answers.settings)
    if answers.token_stdin:
        return {"DISCORD_TOKEN": sys.stdin.read().strip(), **given}
    if not sys.stdin.isatty():
        return given
    if not before.get("DISCORD_TOKEN_FILE"):
        given["DISCORD_TOKEN"] = _asked_token(before.get("DISCORD_TOKEN", ""))
    for name, question in _QUESTIONS.items():
        if name not in given and (answer := _asked(name, question, before.get(name, ""))):
            given[name] = answer
    return given


def _asked_token(present: str) -> str:
    print(f"The bot's token is at {_TOKEN_PAGE}.")
    keep = ", or Enter to keep the present one" if present else ""
    while True:
        token = getpass.getpass(f"Token (hidden{keep}): ").strip() or present
        fault = config.token_fault(Secret(token))
        if not fault:
            return token
        print(fault)


def _asked(name: str, question: str, present: str) -> str:
    """Ask until the answer can be used; an empty one keeps the present value or the default."""
    setting = next(each for each in fields(Settings) if each.name == name.lower())
    shown = present or setting.default or "Hugging Face's own"
    while True:
        answer = input(f"{question} [{shown}]: ").strip()
        try:
            if answer:
                setting.metadata["parser"](answer)
        except ValueError as fault:
            print(f"{name} {fault}")
        else:
            return answer


def _write(path: Path, given: Mapping[str, str]) -> None:
    """Replace the file by one with the given values, readable for its owner only.

    Raises:
        SettingsError: The folder is not writable, or a value cannot be written so that it is read as it was given.
    """
    target = path.resolve()  # a link stays one
    try:
        text = target.read_text(encoding="utf-8-sig") if target.exists() else _HEADING
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}-")  # with mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(_updated(text, given))
            _verify(temporary, given)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError([f"{path} cannot be written: {error.strerror}."]) from error


def _updated(text: str, given: Mapping[str, str]) -> str:
    """Return the text of a `.env` file with these values, each in place of its former line or at the end."""
    left, parts = dict(given), []
    for binding in dotenv.parser.parse_stream(io.StringIO(text)):
        if binding.key not in given:
            parts.append(binding.original.string)
        elif binding.key in left:  # and not a repetition, which would win
            parts.append(_line(binding.key, left.pop(binding.key)))
    if parts and not parts[-1].endswith("\n"):
        parts.append("\n")
    return "".join([*parts, *(_line(name, value) for name, value in left.items())])


def _line(name: str, value: str) -> str:
    return f"{name}='{value}'\n" if "#" in value else f"{name}={value}\n"


def _verify(file: Path, given: Mapping[str, str]) -> None:
    read = config.environment(file)
    lost = [name for name in given if name not in os.environ and read.get(name) != given[name]]
    if lost or read.faults:
        raise SettingsError([f"{name} has characters that .env cannot hold: choose another." for name in lost])
