"""One server, one channel, one member, and the real client in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from bot.errors import UserError
from bot.ui.limits import CUSTOM_ID_CHARACTERS
from tests.loopback import rules

if TYPE_CHECKING:
    import simcord
    from simcord import InteractionResult, ResponseMessage


@dataclass
class Server:
    """A server as a member sees it."""

    env: simcord.Env
    channel: simcord.ChannelHandle
    member: simcord.MemberActor

    async def slash(self, name: str, /, **options: Any) -> InteractionResult:
        return await self.member.slash(self.channel, name, **options)

    @property
    def acknowledgements(self) -> list[Any]:
        """Return the bodies of the first responses to interactions, in order, without empty fields."""
        bodies = (call.json for call in self.env.http_requests if call.path.endswith("/callback"))
        return [{key: value for key, value in body.items() if value} for body in bodies]

    async def refusal(self, name: str, /, **options: Any) -> str:
        """Run a command that is refused, check that only a private sentence remains, and return it."""
        result = await self.slash(name, **options)
        message = result.response or result.followups[0]
        assert message.ephemeral, "a refusal is private"
        assert not message.components
        assert not message.attachments
        assert self.acknowledgements[-1]["type"] == 4, "refused at once, before anyone saw the bot think"
        errors = [getattr(error, "original", error) for error in self.env.errors]
        assert all(isinstance(error, UserError) for error in errors), errors
        return message.content


@pytest.fixture
def server(simcord_env: simcord.Env) -> Server:
    guild = simcord_env.create_guild()
    return Server(simcord_env, guild.create_text_channel("general"), guild.add_member(simcord_env.create_user("alice")))


def components(message: ResponseMessage) -> list[dict[str, Any]]:
    """Return every component of a message, parents first."""
    return [component for _, component in rules.walk(message.components)]


def labelled(message: ResponseMessage, label: str) -> str:
    """Return the custom_id of a button."""
    (found,) = (each["custom_id"] for each in components(message) if each.get("label") == label)
    assert len(found) <= CUSTOM_ID_CHARACTERS
    return str(found)


def texts(message: ResponseMessage) -> list[str]:
    """Return the texts of a Components V2 message."""
    return [each["content"] for each in components(message) if each["type"] == rules.TEXT_DISPLAY]
