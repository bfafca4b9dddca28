"""The errors of the program, each with a text for its reader.

`UserError` and its children are for the person who used a command: shown as they are, never logged as a fault.
`OperatorError` and its children are for the person who runs the bot: one sentence on the fault and its cure, and the
exit code that tells a supervisor whether a restart can help.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from bot.text import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.text import Text


class ExitCode(enum.IntEnum):
    """Exit codes after BSD's sysexits.h; README, "Exit codes", explains them to operators."""

    OK = 0
    CRASHED = 1  # unexpected: restart
    USAGE = 2  # argparse's own: the command line is wrong
    MODEL_INVALID = 65  # EX_DATAERR: the model's files cannot be used; a restart does not help
    NOT_INSTALLED = 69  # EX_UNAVAILABLE: an extra of this project is missing; a restart does not help
    UNREACHABLE = 75  # EX_TEMPFAIL: hub, cluster or GPU is out of reach, or Discord hung up: restart later
    TOKEN = 77  # EX_NOPERM: Discord refused the token; a restart does not help
    SETTINGS = 78  # EX_CONFIG: settings are missing or wrong; a restart does not help


class UserError(Exception):
    """A request that cannot be carried out; `text` tells its user why and what to do."""

    def __init__(self, text: Text) -> None:
        super().__init__(str(text))
        self.text = text


class InvalidInputError(UserError):
    """A value from a user that cannot be used."""


class UnavailableError(UserError):
    """A valid request that the bot cannot serve now."""


class ModelNotLoadedError(UnavailableError):
    """A request that needs the model, which could not be loaded."""

    def __init__(self) -> None:
        super().__init__(
            say("GPT-2 could not be loaded, so I can't answer this. My operator can find the reason in the log.")
        )


class OperatorError(Exception):
    """A reason to stop the program, which its operator can remove."""

    exit_code = ExitCode.CRASHED


class SettingsError(OperatorError):
    """Missing or wrong settings; one message lists every fault."""

    exit_code = ExitCode.SETTINGS

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in self.faults)
        super().__init__(f"These settings need attention (environment or .env):\n{lines}")


class NotInstalledError(OperatorError):
    """A feature whose extra of this project is not installed."""

    exit_code = ExitCode.NOT_INSTALLED


class TokenError(OperatorError):
    """A bot token that Discord refused."""

    exit_code = ExitCode.TOKEN


class ModelInvalidError(OperatorError):
    """Model files that are missing, damaged or not GPT-2."""

    exit_code = ExitCode.MODEL_INVALID


class UnreachableError(OperatorError):
    """A server that the bot needs (the hub, the cluster) and cannot reach; a later start may succeed.

    The bot waits for Discord instead, and ends with this error only if Discord closes the connection for good.
    """

    exit_code = ExitCode.UNREACHABLE


class DeviceError(OperatorError):
    """A GPU that cannot be used, perhaps because another process fills or holds it; a later start may succeed."""

    exit_code = ExitCode.UNREACHABLE


class DeviceLostError(DeviceError):
    """A GPU that failed while it computed. This process can no longer use it, a new one probably can."""
