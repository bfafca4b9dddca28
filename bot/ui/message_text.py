"""The text of somebody's message as people see it: names instead of ids, the forwarded text, the question of a poll."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import discord

# In code Discord shows markup as it is written.
_MARKUP: Final = re.compile(
    r"""
      ```.*?``` | ``.*?`` | `[^`]*`
    | < (?: @!?(?P<user>\d{15,20})
          | @&(?P<role>\d{15,20})
          | \#(?P<channel>\d{15,20})
          | a?(?P<emoji>:\w{1,32}:)\d{15,20}
          | (?P<command>/[^\n:<>]{1,98}):\d{15,20}
          | t:(?P<time>-?\d{1,13})(?::(?P<style>[a-zA-Z]))?
          | (?P<link>https?://[^\s<>]+) ) >
    """,
    re.DOTALL | re.VERBOSE,
)
_TIMES: Final = {"t": "%H:%M", "T": "%H:%M:%S", "d": "%d/%m/%Y", "D": "%d %B %Y", "F": "%A, %d %B %Y %H:%M"}
_DATE_AND_TIME: Final = "%d %B %Y %H:%M"


def by_a_program(message: discord.Message) -> bool:
    """Return whether a bot wrote a message; not if a person did through a webhook, as with PluralKit."""
    # An app's answers to interactions come through a webhook that has the app's own id.
    answer = message.interaction_metadata is not None or message.webhook_id == message.application_id
    return message.author.bot and (message.webhook_id is None or answer)


def text_of(interaction: discord.Interaction, message: discord.Message) -> str:
    """Return the text of a message from whose menu a command was chosen; "" if it has none."""
    forwarded = "\n".join(snapshot.content for snapshot in message.message_snapshots)
    poll = message.poll.question if message.poll else ""
    names = _Names(interaction, message)
    return _MARKUP.sub(names.seen, message.content or forwarded or poll or "")


class _Names:
    """The names behind the ids in a message. No intent makes them known, so those that came with it must do."""

    def __init__(self, interaction: discord.Interaction, message: discord.Message) -> None:
        self._interaction = interaction
        self._users = {int(user["id"]): _display_name(user) for user in _mentioned(interaction, message)}
        self._users[interaction.user.id] = interaction.user.display_name

    def seen(self, match: re.Match[str]) -> str:
        """Return what people see of a match of `_MARKUP`."""
        guild, shown = self._interaction.guild, match[match.lastgroup or 0]
        match match.lastgroup:
            case "user":
                return f"@{self._users.get(int(shown), 'unknown-user')}"
            case "role":
                role = guild.get_role(int(shown)) if guild else None
                return f"@{role.name.removeprefix('@') if role else 'unknown-role'}"
            case "channel":
                channel = guild.get_channel_or_thread(int(shown)) if guild else None
                return f"#{channel.name if channel else 'unknown'}"
            case "time" | "style":
                return _date(match) or match[0]
            case _:
                return shown


def _mentioned(interaction: discord.Interaction, message: discord.Message) -> Iterator[Mapping[str, Any]]:
    """Yield the users whom a message or a message forwarded in it mentions; discord.py drops the latter."""
    data = cast("Mapping[str, Any]", interaction.data or {})
    raw = data.get("resolved", {}).get("messages", {}).get(str(message.id), {})
    for each in (raw, *(snapshot["message"] for snapshot in raw.get("message_snapshots", ()))):
        yield from each.get("mentions", ())


def _display_name(user: Mapping[str, Any]) -> str:
    nick = (user.get("member") or {}).get("nick")
    return str(nick or user.get("global_name") or user["username"])


def _date(match: re.Match[str]) -> str | None:
    """Return a date in UTC and in English; Discord shows each reader their own."""
    try:
        time = dt.datetime.fromtimestamp(int(match["time"]), dt.UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return time.strftime(_TIMES.get(match["style"] or "", _DATE_AND_TIME))
