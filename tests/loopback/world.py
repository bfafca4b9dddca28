"""Who and where: the people, servers and channels of the small Discord."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any

DISCORD_EPOCH_MS = 1_420_070_400_000
MANAGE_MESSAGES = 1 << 13
# View channel, send messages, embed links, attach files, read history, use application commands.
ORDINARY = 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 31
ATTACHMENT_LIMIT = 10 * 1024 * 1024

TEXT_CHANNEL, DM_CHANNEL, GROUP_CHANNEL = 0, 1, 3
GUILD_CONTEXT, BOT_DM_CONTEXT, PRIVATE_CONTEXT = 0, 1, 2

_sequence = itertools.count()


def snowflake() -> int:
    """Return a new id: the time in its upper bits, as Discord's are, and never twice the same."""
    return (int(time.time() * 1000) - DISCORD_EPOCH_MS) << 22 | next(_sequence) % (1 << 22)


@dataclass(frozen=True, slots=True)
class User:
    """A person, or a bot.

    Attributes:
        id: The snowflake.
        name: The user name; also shown as the display name.
        bot: Whether this is a bot.
        manages_messages: Whether they may delete others' messages in servers.
    """

    id: int
    name: str
    bot: bool = False
    manages_messages: bool = False

    def payload(self) -> dict[str, Any]:
        """Return the user object."""
        return {
            "id": str(self.id),
            "username": self.name,
            "global_name": None if self.bot else self.name.title(),
            "discriminator": "0",
            "avatar": None,
            "bot": self.bot,
            "public_flags": 0,
            "flags": 0,
            "primary_guild": None,
        }

    def permissions(self) -> int:
        """Return the permission bits they have in a server's channels."""
        return ORDINARY | (MANAGE_MESSAGES if self.manages_messages else 0)

    def member_payload(self) -> dict[str, Any]:
        """Return the member object without its user."""
        return {
            "roles": [],
            "joined_at": "2024-01-01T00:00:00+00:00",
            "premium_since": None,
            "deaf": False,
            "mute": False,
            "pending": False,
            "nick": None,
            "avatar": None,
            "banner": None,
            "flags": 0,
            "communication_disabled_until": None,
        }


@dataclass(slots=True, eq=False)
class Guild:
    """A server; ``bot_is_member`` is False where the app is installed to users alone."""

    id: int
    name: str
    locale: str = "en-US"
    bot_is_member: bool = True
    bot_permissions: int = ORDINARY
    channels: list[Channel] = field(default_factory=list)

    def payload(self, bot: User) -> dict[str, Any]:
        """Return the guild object of GUILD_CREATE."""
        return {
            "id": str(self.id),
            "name": self.name,
            "icon": None,
            "owner_id": str(self.id),
            "preferred_locale": self.locale,
            "unavailable": False,
            "large": False,
            "member_count": 2,
            "joined_at": "2024-01-01T00:00:00+00:00",
            "verification_level": 0,
            "default_message_notifications": 0,
            "explicit_content_filter": 0,
            "mfa_level": 0,
            "nsfw_level": 0,
            "premium_tier": 0,
            "afk_timeout": 300,
            "system_channel_flags": 0,
            "features": [],
            "roles": [self._everyone()],
            "emojis": [],
            "stickers": [],
            "channels": [channel.payload() for channel in self.channels],
            "threads": [],
            "members": [bot.member_payload() | {"user": bot.payload()}],
            "presences": [],
            "voice_states": [],
            "stage_instances": [],
            "guild_scheduled_events": [],
            "soundboard_sounds": [],
        }

    def _everyone(self) -> dict[str, Any]:
        return {
            "id": str(self.id),
            "name": "@everyone",
            "color": 0,
            "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
            "hoist": False,
            "icon": None,
            "unicode_emoji": None,
            "position": 0,
            "permissions": str(self.bot_permissions),
            "managed": False,
            "mentionable": False,
            "flags": 0,
        }


@dataclass(slots=True, eq=False)
class Channel:
    """A place to type in: a server's text channel, a DM with the bot, or a group or DM without the bot."""

    id: int
    kind: int
    name: str = ""
    guild: Guild | None = None
    recipients: tuple[User, ...] = ()
    nsfw: bool = False

    @property
    def context(self) -> int:
        """Return the interaction context: 0 server, 1 DM with the bot, 2 private channel."""
        if self.guild is not None:
            return GUILD_CONTEXT
        return BOT_DM_CONTEXT if self.kind == DM_CHANNEL and not self.name else PRIVATE_CONTEXT

    @property
    def bot_is_there(self) -> bool:
        """Return whether the bot itself sees this channel, and so whether its own token opens it."""
        return self.guild.bot_is_member if self.guild is not None else self.context == BOT_DM_CONTEXT

    def payload(self, user: User | None = None) -> dict[str, Any]:
        """Return the channel object, with ``user``'s permissions where an interaction asks for them."""
        common: dict[str, Any] = {"id": str(self.id), "type": self.kind, "last_message_id": None, "flags": 0}
        if self.guild is None:
            common["recipients"] = [person.payload() for person in self.recipients]
            if self.kind == GROUP_CHANNEL:
                common |= {"name": self.name, "icon": None, "owner_id": str(self.recipients[0].id)}
            return common
        common |= {
            "guild_id": str(self.guild.id),
            "name": self.name,
            "topic": None,
            "position": 0,
            "nsfw": self.nsfw,
            "rate_limit_per_user": 0,
            "parent_id": None,
            "permission_overwrites": [],
        }
        if user is not None:
            common["permissions"] = str(user.permissions())
        return common


def text_channel(guild: Guild, name: str = "general", *, nsfw: bool = False) -> Channel:
    """Add a text channel to a server."""
    channel = Channel(snowflake(), TEXT_CHANNEL, name, guild, nsfw=nsfw)
    guild.channels.append(channel)
    return channel


def shard_of(channel: Channel, count: int) -> int:
    """Return the shard that hears of a channel; private ones, and servers without the bot, are shard 0's."""
    if channel.guild is None or not channel.guild.bot_is_member:
        return 0
    return (channel.guild.id >> 22) % count
