"""Logging: structlog's events and the standard library's records, both as one kind of line on standard error.

A person at a terminal gets aligned, coloured text; anything else gets one JSON object a line.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import discord
import structlog

from bot.config import Secret

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

    from bot.config import LogFormat, LogLevel

# Chatty libraries: their own warnings still come through.
_QUIETER = ("discord.http", "httpx", "httpx2", "httpcore", "httpcore2", "huggingface_hub", "filelock", "asyncio")
# At DEBUG it prints the gateway's events: what people write, and the tokens that answer their interactions.
_TELLTALE = "discord.gateway"
# For each font of Noto's that calls its regular weight by another number, one warning at the start; it is used all the
# same, and nothing is to be done about it.
_FONTS = "matplotlib.font_manager"
_OTHER_WEIGHT = "findfont: Failed to find font weight"
# Where suggestions for an option do not reach Discord, which nobody can do anything about, it writes a traceback.
_COMMANDS = "discord.app_commands.tree"
_SUGGESTIONS = "Ignoring exception in autocomplete"


def configure(level: LogLevel, form: LogFormat) -> None:
    """Set up logging for the whole process; called once, by the command line."""
    human = form == "human" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _without_secrets,
        structlog.processors.TimeStamper(fmt="iso", utc=not human),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_ending(human=human)],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _QUIETER:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.getLogger(_TELLTALE).setLevel(max(logging.INFO, logging.getLogger().level))
    logging.getLogger(_FONTS).addFilter(_matters)
    logging.getLogger(_COMMANDS).addFilter(_is_unexpected)
    logging.captureWarnings(capture=True)
    # This bot has no voice; discord.py would otherwise warn at every start that it could not have one.
    discord.VoiceClient.warn_nacl = False
    discord.VoiceClient.warn_dave = False


def _matters(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_OTHER_WEIGHT)


def _is_unexpected(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not (str(record.msg).startswith(_SUGGESTIONS) and isinstance(error, (discord.HTTPException, OSError)))


def _without_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Secrets are strings, which both kinds of line would write as they are."""
    return {name: repr(value) if isinstance(value, Secret) else value for name, value in event.items()}


def _ending(*, human: bool) -> list[Processor]:
    if human:
        # The default, Rich's tracebacks, would show local variables: the token, and what people write.
        return [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
