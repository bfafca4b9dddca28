"""The errors of the program. Their text is written for the one who will read it.

`UserError` and its children are for the person who typed a command: shown as they are, never logged as a fault.
`OperatorError` and its children are for the one who runs the bot: one sentence on what is wrong and how to mend it,
each with the exit code that tells a supervisor whether starting again can help.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.text import Text


class ExitCode(enum.IntEnum):
    """How the process ended, after BSD's sysexits.h. README, "Exit codes", tells a host what each asks for."""

    OK = 0
    CRASHED = 1  # unexpected: start again
    USAGE = 2  # argparse's own: the command line is wrong
    MODEL_INVALID = 65  # EX_DATAERR: the model's files cannot be used; starting again changes nothing
    NOT_INSTALLED = 69  # EX_UNAVAILABLE: an extra of this project is missing; starting again changes nothing
    UNREACHABLE = 75  # EX_TEMPFAIL: the hub or the cluster is out of reach, or Discord hung up: start again later
    TOKEN = 77  # EX_NOPERM: Discord refused the token; starting again changes nothing
    SETTINGS = 78  # EX_CONFIG: settings are missing or wrong; starting again changes nothing


class UserError(Exception):
    """What a person asked for cannot be done; `text` tells them why and what to do."""

    def __init__(self, text: Text) -> None:
        super().__init__(str(text))
        self.text = text


class InvalidInputError(UserError):
    """A value that a person gave cannot be used."""


class UnavailableError(UserError):
    """The request is sound, but the bot cannot serve it now."""


class ModelNotLoadedError(UnavailableError):
    """The model could not be loaded, so nothing that needs it can be answered."""

    def __init__(self) -> None:
        super().__init__(
            say("GPT-2 could not be loaded here, so I can't answer this. Whoever hosts me finds the reason in my log.")
        )


class OperatorError(Exception):
    """The program cannot go on, for a reason that its host can mend."""

    exit_code = ExitCode.CRASHED


class SettingsError(OperatorError):
    """Settings are missing or wrong; every fault is named in one message."""

    exit_code = ExitCode.SETTINGS

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in self.faults)
        super().__init__(f"These settings need attention (environment or .env):\n{lines}")


class NotInstalledError(OperatorError):
    """Something that was asked for needs an extra of this project."""

    exit_code = ExitCode.NOT_INSTALLED


class TokenError(OperatorError):
    """Discord refused the bot's token."""

    exit_code = ExitCode.TOKEN


class ModelInvalidError(OperatorError):
    """The model's files are missing, damaged or not GPT-2."""

    exit_code = ExitCode.MODEL_INVALID


class UnreachableError(OperatorError):
    """A server that the bot needs (the hub, the cluster) could not be reached; a later start may succeed.

    Discord is waited for instead, and ends the bot so only where it refuses more than can be waited for.
    """

    exit_code = ExitCode.UNREACHABLE
