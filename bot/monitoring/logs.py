"""Logging: structlog's events and the standard library's records in one format, on standard error.

A terminal gets aligned, coloured text; anything else gets one JSON object a line.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

from bot.config import Secret

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

    from bot.config import LogFormat, LogLevel

# Libraries whose INFO lines are noise; their warnings are kept.
_QUIETER = ("discord.http", "httpx", "httpx2", "httpcore", "httpcore2", "huggingface_hub", "filelock", "asyncio")
# At DEBUG it prints the gateway's events, which hold users' texts and interaction tokens.
_GATEWAY = "discord.gateway"
# At start it warns about each Noto font that gives its regular weight another number, and then uses it all the same.
_FONTS = "matplotlib.font_manager"
_FONT_WEIGHT = "findfont: Failed to find font weight"
# It logs a traceback when suggestions for an option do not reach Discord, which no operator can change.
_COMMANDS = "discord.app_commands.tree"
_AUTOCOMPLETE = "Ignoring exception in autocomplete"

# This bot has no voice; discord.py warns at every start that packages for it are not installed.
_CLIENT = "discord.client"
_NO_VOICE = "voice will NOT be supported"


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
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderer(human=human)],
        )
    )
    logging.basicConfig(handlers=[handler], force=True)
    set_level(level)
    logging.getLogger(_FONTS).addFilter(_is_not_font_weight)
    logging.getLogger(_COMMANDS).addFilter(_is_not_unreachable_autocomplete)
    logging.getLogger(_CLIENT).addFilter(_is_not_about_voice)
    logging.captureWarnings(capture=True)


def set_level(level: LogLevel) -> None:
    """Log this level and the more severe ones from now on; libraries that say too much stay quieter."""
    logging.getLogger().setLevel(level)
    for name in _QUIETER:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.getLogger(_GATEWAY).setLevel(max(logging.INFO, logging.getLogger().level))


def _is_not_font_weight(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_FONT_WEIGHT)


def _is_not_about_voice(record: logging.LogRecord) -> bool:
    return not str(record.msg).endswith(_NO_VOICE)


def _is_not_unreachable_autocomplete(record: logging.LogRecord) -> bool:
    if not str(record.msg).startswith(_AUTOCOMPLETE):
        return True
    import discord  # noqa: PLC0415 # it logged this, so it is loaded; other commands need not wait 0.3 s for it

    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (discord.HTTPException, OSError))


def _without_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace secrets by their repr; they are strings, which the renderers would print."""
    return {name: repr(value) if isinstance(value, Secret) else value for name, value in event.items()}


def _renderer(*, human: bool) -> list[Processor]:
    if human:
        # Not the default, Rich's tracebacks, which show local variables: the token and users' texts.
        return [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
