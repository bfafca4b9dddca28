"""Reading a text back from the bot's own message, exactly as it was written: the bot has no other memory of it.

`plain` is the inverse of `literal` and `bold`. What they cannot keep (`survives` tells), and what a message has no room
for, belongs into an attached file beside it, which `attached` fetches.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import aiohttp
import discord
import structlog

from bot.errors import UnavailableError
from bot.text import say
from bot.ui.literal import literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

log = structlog.get_logger(__name__)

# Discord takes white space away at the end of what it is given, and what else it takes for that it does not say. This
# is invisible, and stays.
_GUARD: Final = "\u200b"
_MARK: Final = re.compile(r"\\(?P<itself>.)|\*\*", re.DOTALL)
# A line of small print: ours, since `literal` escapes one that was in the text.
_SMALL_PRINT: Final = re.compile(r"\A-# .*(?:\n|\Z)|\n-# .*\Z")


def plain(markdown: str) -> str:
    """The text of which `literal` or `bold`, or several of them in a row, made this."""
    return _MARK.sub(lambda match: match["itself"] or "", markdown)


def guarded(markdown: str) -> str:
    """`markdown` such that Discord takes nothing away from its end."""
    last = markdown[-1:]
    return markdown + _GUARD if last.isspace() or not last.isprintable() else markdown


def body(content: str) -> str:
    """The text in a text display, without a first and a last line of small print, and without the guard."""
    markdown = _SMALL_PRINT.sub("", content)
    return plain(markdown.removesuffix(_GUARD))


def survives(text: str) -> bool:
    """Whether `text` can be read back from what `literal` makes of it: control characters are shown as pictures."""
    return plain(literal(text)) == text


def text_display(message: discord.Message, number: int) -> str | None:
    """The content of the text display that has this component id; None where the message has none such."""
    for component in _walk(message.components):
        if isinstance(component, discord.TextDisplay) and component.id == number:
            return component.content
    return None


def is_blurred(message: discord.Message | None) -> bool:
    """Whether a message is shown after a click."""
    return message is not None and any(
        isinstance(component, discord.Container) and component.spoiler for component in message.components
    )


async def attached(message: discord.Message, filename: str) -> str | None:
    """The text of an attached file; None where the message has none of this name.

    Raises:
        UnavailableError: Discord does not hand it out any more.
    """
    file = next((each for each in _files(message) if each[0] == filename), None)
    if file is None:
        return None
    try:
        # Not by the item's own `read`: discord.py 2.7.1 gives what is inside a container no connection to read with.
        content = await message._state.http.get_from_cdn(file[1])  # noqa: SLF001
        return content.decode("utf-8")
    except (discord.DiscordException, aiohttp.ClientError, OSError, ValueError) as error:
        # Its text may quote the file's address, with which anybody can read it.
        log.info("an attached file could not be read", message=message.id, error=type(error).__name__)
        raise UnavailableError(
            say("The whole text is in {file}, which Discord does not give me any more.", file=filename)
        ) from None


def _files(message: discord.Message) -> Iterator[tuple[str, str]]:
    """Name and address of each file; Discord leaves those that a component shows out of a message's attachments."""
    yield from ((each.filename, each.url) for each in message.attachments)
    for component in _walk(message.components):
        if isinstance(component, discord.FileComponent):
            yield component.name or "", component.media.url


def _walk(components: Iterable[discord.Component]) -> Iterator[discord.Component]:
    for component in components:
        yield component
        yield from _walk(getattr(component, "children", ()))
