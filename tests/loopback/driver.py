"""What people do: typing commands, pressing buttons, filling in forms. Each becomes a faithful INTERACTION_CREATE."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

from tests.loopback import interactions, rules
from tests.loopback.commands import MESSAGE_MENU, CommandStore, RefusedByDiscord
from tests.loopback.messages import Draft, Message, Upload
from tests.loopback.world import (
    ATTACHMENT_LIMIT,
    BOT_DM_CONTEXT,
    DM_CHANNEL,
    GROUP_CHANNEL,
    Channel,
    Guild,
    User,
    shard_of,
    snowflake,
    text_channel,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.loopback.changes import Changes
    from tests.loopback.gateway import Gateway
    from tests.loopback.interactions import Interaction, InteractionDesk
    from tests.loopback.messages import MessageStore


class Driver:
    """The people of the small Discord. LoopbackDiscord inherits it and brings what it needs."""

    application_id: int
    bot: User
    users: dict[str, User]
    guilds: list[Guild]
    channels: dict[int, Channel]
    channel: Channel
    commands: CommandStore
    messages: MessageStore
    desk: InteractionDesk
    gateway: Gateway
    changes: Changes

    # People and places

    def user(self, name: str = "alice", *, manages_messages: bool = False) -> User:
        """Return the person of that name, who comes into being when first named."""
        key = f"{name} {manages_messages}"
        if key not in self.users:
            self.users[key] = User(snowflake(), name, manages_messages=manages_messages)
        return self.users[key]

    def server(self, name: str, *, bot_is_member: bool = True, locale: str = "en-US") -> Channel:
        """Make a server with one text channel and return that channel.

        A shard hears of it when it next identifies; make it before the bot starts. With ``bot_is_member=False`` the
        app is there only by people who installed it for themselves.
        """
        guild = Guild(snowflake(), name, locale, bot_is_member)
        self.guilds.append(guild)
        return self._add(text_channel(guild))

    def text_channel(self, guild: Guild, name: str, *, nsfw: bool = False) -> Channel:
        """Add a channel to a server; like the server, before the bot starts."""
        return self._add(text_channel(guild, name, nsfw=nsfw))

    def dm(self, user: User) -> Channel:
        """Return a person's DM with the bot."""
        for channel in self.channels.values():
            if channel.context == BOT_DM_CONTEXT and channel.recipients == (user,):
                return channel
        return self._add(Channel(snowflake(), DM_CHANNEL, recipients=(user,)))

    def group(self, *users: User) -> Channel:
        """Make a group DM without the bot, where its people use it by their own installation."""
        return self._add(Channel(snowflake(), GROUP_CHANNEL, "group", recipients=users))

    def _add(self, channel: Channel) -> Channel:
        self.channels[channel.id] = channel
        return channel

    def post(
        self,
        content: str,
        *,
        author: User | None = None,
        where: Channel | None = None,
        files: Mapping[str, bytes] | None = None,
        **more: Any,
    ) -> Message:
        """Let a person write a message, for a menu command to be used on; ``more`` are fields of the message object."""
        channel = where or self.channel
        uploads = [Upload(f"files[{i}]", name, data) for i, (name, data) in enumerate((files or {}).items())]
        draft = self.messages.draft(channel, {"content": content}, uploads)
        message = Message(snowflake(), channel, author or self.user(), Draft(), more=more)
        self.messages.settle(message, draft)
        return message

    async def synced(self, *names: str, within: float = 20.0) -> None:
        """Wait until the bot has registered commands: those named, or any."""

        def there() -> bool:
            known = self.commands.names()
            return bool(known) and set(names) <= set(known)

        await self.changes.until(there, within=within, what=f"commands {names or 'of any name'} registered")

    # Deeds

    async def slash(
        self,
        command: str,
        options: Mapping[str, Any] | None = None,
        *,
        user: User | None = None,
        where: Channel | None = None,
        locale: str = "en-US",
        unchecked: bool = False,
    ) -> Interaction:
        """Type a slash command.

        Args:
            command: Its name, with group and subcommand after it: "weights attention".
            options: Values by option name; the server knows the types from what the bot has synced.
            user: Who types; ``discord.user()`` by default.
            where: The channel; ``discord.channel`` by default.
            locale: The language of their client.
            unchecked: Send what Discord's own client would refuse, too.

        Raises:
            RefusedByDiscord: If Discord would not send it.
        """
        place = where or self.channel
        invoked = self.commands.invoke(command, options or {}, place, unchecked=unchecked)
        return await self._dispatch(interactions.COMMAND, invoked.data, user, place, locale)

    async def autocomplete(
        self,
        command: str,
        option: str,
        typed: str,
        options: Mapping[str, Any] | None = None,
        *,
        user: User | None = None,
        where: Channel | None = None,
        locale: str = "en-US",
        unchecked: bool = False,
    ) -> Interaction:
        """Type part of an option; ``(await it.acknowledged(), it.choices)`` is what is offered."""
        place = where or self.channel
        values = {**(options or {}), option: typed}
        invoked = self.commands.invoke(command, values, place, focused=option, unchecked=unchecked)
        return await self._dispatch(interactions.AUTOCOMPLETE, invoked.data, user, place, locale)

    async def message_command(
        self,
        name: str,
        message: Message,
        *,
        user: User | None = None,
        locale: str = "en-US",
        unchecked: bool = False,
    ) -> Interaction:
        """Choose an entry of a message's menu."""
        command = self.commands.find(name, MESSAGE_MENU, message.channel)
        if command is None:
            if not unchecked:
                raise RefusedByDiscord(f"no menu entry {name!r}; there are {self.commands.names()}")
            command = {"id": "0", "name": name}
        elif not unchecked:
            self.commands.refuse_place(command, message.channel)
        target = str(message.id)
        data: dict[str, Any] = {"id": command["id"], "name": name, "type": MESSAGE_MENU, "target_id": target}
        data["resolved"] = {"messages": {target: message.payload()}}
        return await self._dispatch(interactions.COMMAND, data, user, message.channel, locale)

    async def component(
        self,
        message: Message,
        custom_id: str | None = None,
        *,
        label: str | None = None,
        values: Sequence[str] | None = None,
        user: User | None = None,
        locale: str = "en-US",
        unchecked: bool = False,
    ) -> Interaction:
        """Press a button, or choose from a menu, of a message.

        Args:
            message: The message.
            custom_id: Which component; or
            label: The button's label.
            values: What is chosen, for a select menu.
            user: Who does it; for an ephemeral message its viewer by default.
            locale: The language of their client.
            unchecked: Use what is disabled, absent, deleted or for other eyes, too.
        """
        person = user or message.viewer or self.user()
        if label is not None:
            custom_id = message.button(label)["custom_id"]
        found = next((c for _, c in rules.walk(message.components) if c.get("custom_id") == custom_id), None)
        if not unchecked:
            _refuse_press(message, found, custom_id, person)
        kind = found["type"] if found else rules.BUTTON
        data: dict[str, Any] = {"component_type": kind, "custom_id": custom_id, "id": found["id"] if found else 1}
        if values is not None:
            data["values"] = list(values)
        return await self._dispatch(interactions.COMPONENT, data, person, message.channel, locale, message)

    async def modal(
        self,
        shown: Interaction,
        values: Mapping[str, Any] | None = None,
        *,
        user: User | None = None,
        locale: str = "en-US",
        unchecked: bool = False,
    ) -> Interaction:
        """Send the form that an interaction showed.

        Args:
            shown: The interaction whose answer was the form.
            values: What is typed, by the field's ``custom_id`` or label; a list for a select menu. A field that is
                not named keeps what the form was prefilled with.
            user: The sender; by default the person who was shown the form.
            locale: The language of their client.
            unchecked: Send what breaks the form's own lengths and requirements, too.
        """
        await shown.acknowledged()
        if shown.modal is None:
            raise RefusedByDiscord(f"no form was shown: {shown}")
        data = {
            "custom_id": shown.modal["custom_id"],
            "components": _submit(shown.modal["components"], dict(values or {}), unchecked=unchecked),
        }
        person = user or shown.user
        return await self._dispatch(interactions.MODAL_SUBMIT, data, person, shown.channel, locale, shown.source)

    async def _dispatch(
        self,
        kind: int,
        data: dict[str, Any],
        user: User | None,
        place: Channel,
        locale: str,
        source: Message | None = None,
    ) -> Interaction:
        person = user or (place.recipients[0] if place.recipients else self.user())
        shard = shard_of(place, self.gateway.shard_count)
        if kind in {interactions.COMPONENT, interactions.MODAL_SUBMIT}:
            await self.gateway.settle(shard)
        payload = self._envelope(kind, data, person, place, locale)
        if source is not None:
            payload["message"] = source.payload()
        interaction = self.desk.open(kind, person, place, payload, source)
        interaction.sent_at = asyncio.get_running_loop().time()
        await self.gateway.dispatch(shard, "INTERACTION_CREATE", payload)
        return interaction

    def _envelope(self, kind: int, data: dict[str, Any], user: User, place: Channel, locale: str) -> dict[str, Any]:
        """Return what an interaction says besides what was done."""
        guild = place.guild
        payload: dict[str, Any] = {
            "application_id": str(self.application_id),
            "type": kind,
            "version": 1,
            "data": copy.deepcopy(data),
            "channel_id": str(place.id),
            "channel": place.payload(user),
            "locale": locale,
            "context": place.context,
            "entitlements": [],
            "attachment_size_limit": ATTACHMENT_LIMIT,
            "app_permissions": str(guild.bot_permissions if guild is not None else User(0, "").permissions()),
        }
        if guild is None:
            payload["user"] = user.payload()
            in_bot_dm = place.context == BOT_DM_CONTEXT
            payload["authorizing_integration_owners"] = {"0": "0"} if in_bot_dm else {"1": str(user.id)}
            return payload
        member = user.member_payload() | {"user": user.payload(), "permissions": str(user.permissions())}
        payload |= {"member": member, "guild_id": str(guild.id), "guild_locale": guild.locale}
        payload["guild"] = {"id": str(guild.id), "locale": guild.locale, "features": []}
        payload["authorizing_integration_owners"] = {"0": str(guild.id)} if guild.bot_is_member else {"1": str(user.id)}
        return payload


def _refuse_press(message: Message, found: dict[str, Any] | None, custom_id: str | None, user: User) -> None:
    if message.deleted:
        raise RefusedByDiscord("the message is deleted")
    if found is None:
        known = [c["custom_id"] for _, c in rules.walk(message.components) if c.get("custom_id")]
        raise RefusedByDiscord(f"the message has no component {custom_id!r}, only {known}")
    if found.get("disabled"):
        raise RefusedByDiscord(f"{custom_id!r} is disabled")
    if message.viewer is not None and message.viewer != user:
        raise RefusedByDiscord(f"only {message.viewer.name} sees the message")


def _submit(components: list[dict[str, Any]], values: dict[str, Any], *, unchecked: bool) -> list[dict[str, Any]]:
    """Return a form's components as their sending reports them."""
    numbers = iter(range(1, 1000))
    sent: list[dict[str, Any]] = []
    for component in components:
        number = component.get("id") or next(numbers)
        if component["type"] == rules.ROW:
            inner = [_submit_field(item, None, values, next(numbers), unchecked) for item in component["components"]]
            sent.append({"type": rules.ROW, "id": number, "components": inner})
        elif component["type"] == rules.LABEL:
            field = _submit_field(component["component"], component["label"], values, next(numbers), unchecked)
            sent.append({"type": rules.LABEL, "id": number, "component": field})
        else:
            sent.append({"type": component["type"], "id": number})
    if values and not unchecked:
        raise RefusedByDiscord(f"the form has no fields {list(values)}")
    return sent


def _submit_field(
    field: dict[str, Any],
    label: str | None,
    values: dict[str, Any],
    number: int,
    unchecked: bool,
) -> dict[str, Any]:
    prefilled = field.get("value") or ""
    if field["type"] in rules.SELECTS:
        prefilled = [option["value"] for option in field.get("options", ()) if option.get("default")]
    elif field["type"] == 23:  # checkbox
        prefilled = bool(field.get("default"))
    value = prefilled
    for key in (field["custom_id"], label or field.get("label")):
        if key in values:
            value = values.pop(key)
    key = "values" if isinstance(value, list) else "value"
    if not unchecked:
        _refuse_field(field, value)
    return {"type": field["type"], "id": field.get("id") or number, "custom_id": field["custom_id"], key: value}


def _refuse_field(field: dict[str, Any], value: Any) -> None:
    required = field.get("required") is not False
    if value in ("", []):
        if required and field["type"] != 23:
            raise RefusedByDiscord(f"the field {field['custom_id']!r} is required")
        return
    if isinstance(value, str):
        least, most = field.get("min_length") or 0, field.get("max_length") or 4000
        if not least <= len(value) <= most:
            raise RefusedByDiscord(f"{field['custom_id']!r}: {len(value)} characters, {least} to {most} are allowed")
    elif isinstance(value, list):
        allowed = {option["value"] for option in field.get("options", ())}
        if field["type"] == rules.STRING_SELECT and not set(value) <= allowed:
            raise RefusedByDiscord(f"{field['custom_id']!r}: {value} are not all among {sorted(allowed)}")
