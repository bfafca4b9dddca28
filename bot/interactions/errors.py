"""Errors that end an interaction, and their explanations for the person who asked."""

from __future__ import annotations

from typing import Final

import discord
from discord import app_commands

from bot.errors import UserError
from bot.text import Text, say

_UNKNOWN_MESSAGE: Final = 10008
_UNKNOWN_WEBHOOK: Final = 10015
_UNKNOWN_INTERACTION: Final = 10062
_ALREADY_ACKNOWLEDGED: Final = 40060
_TOKEN_EXPIRED: Final = 50027  # 15 minutes after the interaction
# The answer was deleted, or the interaction is over: no answer can be shown any more.
_OVER: Final = frozenset(
    {_UNKNOWN_MESSAGE, _UNKNOWN_WEBHOOK, _UNKNOWN_INTERACTION, _ALREADY_ACKNOWLEDGED, _TOKEN_EXPIRED}
)


def cause(error: Exception) -> Exception:
    """Return the error that a command raised, without discord.py's wrapper."""
    if isinstance(error, app_commands.CommandInvokeError):
        return error.original
    return error


def expired(error: Exception) -> bool:
    """Return whether it is too late for any answer."""
    return isinstance(error, discord.HTTPException) and error.code in _OVER


def explanation(error: Exception) -> Text | None:
    """Return the explanation of an error that its user can act on, or None for a bug."""
    match error:
        case UserError():
            return error.text
        case app_commands.TransformerError():
            return say("The value “{value}” can't be used here. Choose one that Discord suggests.", value=error.value)
        case app_commands.CommandNotFound() | app_commands.CommandSignatureMismatch():
            return say("This command has changed. Reload Discord (Ctrl+R, or restart the app) and try again.")
        case app_commands.CheckFailure():
            return say("You can't use this command.")
        case _:
            return None
