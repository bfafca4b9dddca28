"""Reading a text back, exactly, from the bot's own message, which is its only storage.

`plain` is the inverse of `literal` and `bold`. A text that they change (see `survives`), or that is too long for the
message, belongs into an attached file, which `attached` fetches.
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

# Discord strips white space, of a kind that it does not document, from the end of a text. This character is invisible
# and not stripped.
_GUARD: Final = "\u200b"
_MARK: Final = re.compile(r"\\(?P<itself>.)|\*\*", re.DOTALL)
# A line of small print is ours, since `literal` escapes those of the text.
_SMALL_PRINT: Final = re.compile(r"\A-# .*(?:\n|\Z)|\n-# .*\Z")


def plain(markdown: str) -> str:
    """Undo `literal` and `bold`, also for several results in a row."""
    return _MARK.sub(lambda match: match["itself"] or "", markdown)


def guarded(markdown: str) -> str:
    """Protect the end of a markdown text from being stripped by Discord."""
    last = markdown[-1:]
    return markdown + _GUARD if last.isspace() or not last.isprintable() else markdown


def body(content: str) -> str:
    """Return the text of a text display without small print in its first and last line and without the guard."""
    markdown = _SMALL_PRINT.sub("", content)
    return plain(markdown.removesuffix(_GUARD))


def survives(text: str) -> bool:
    """Return whether `plain` restores a text from `literal`, which shows control characters as pictures."""
    return plain(literal(text)) == text


def text_display(message: discord.Message, number: int) -> str | None:
    """Return the content of the text display with this component id, or None if there is none."""
    for component in _walk(message.components):
        if isinstance(component, discord.TextDisplay) and component.id == number:
            return component.content
    return None


def is_blurred(message: discord.Message | None) -> bool:
    """Return whether a message is hidden behind a spoiler."""
    return message is not None and any(
        isinstance(component, discord.Container) and component.spoiler for component in message.components
    )


def was_asked_by(message: discord.Message | None, user: discord.abc.User) -> bool:
    """Return whether the message answers what this person did; Discord says so with every press."""
    metadata = message.interaction_metadata if message else None
    return metadata is not None and metadata.user.id == user.id


async def attached(message: discord.Message, filename: str) -> str | None:
    """Download the text of an attached file; return None if the message has no file of this name.

    Raises:
        UnavailableError: Discord no longer serves the file.
    """
    file = next((each for each in _files(message) if each[0] == filename), None)
    if file is None:
        return None
    try:
        # The item's own `read` fails: discord.py 2.7.1 gives items inside a container no connection.
        content = await message._state.http.get_from_cdn(file[1])  # noqa: SLF001
        return content.decode("utf-8")
    except (discord.DiscordException, aiohttp.ClientError, OSError, ValueError) as error:
        # The error's text may quote the address, with which anybody can read the file.
        log.info("cannot read an attached file", message=message.id, error=type(error).__name__)
        raise UnavailableError(
            say("The whole text is in {file}, which Discord no longer gives me.", file=filename)
        ) from None


def _files(message: discord.Message) -> Iterator[tuple[str, str]]:
    """Yield the name and the address of each file. A message's attachments lack those that a component shows."""
    yield from ((each.filename, each.url) for each in message.attachments)
    for component in _walk(message.components):
        if isinstance(component, discord.FileComponent):
            yield component.name or "", component.media.url


def _walk(components: Iterable[discord.Component]) -> Iterator[discord.Component]:
    for component in components:
        yield component
        yield from _walk(getattr(component, "children", ()))
