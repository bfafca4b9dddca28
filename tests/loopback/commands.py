"""Application commands: what the bot has synced, and what a person may therefore type."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.loopback import rules
from tests.loopback.errors import unknown_command
from tests.loopback.world import Channel, User, snowflake

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAT_INPUT, USER_MENU, MESSAGE_MENU = 1, 2, 3
STRING, INTEGER, BOOLEAN, USER, CHANNEL, ROLE, MENTIONABLE, NUMBER, ATTACHMENT = range(3, 12)
STRING_LIMIT = 6000
_LARGEST = 2**53 - 1


class RefusedByDiscord(Exception):  # noqa: N818 - what a person's client would say before anything is sent
    """A person's input that Discord's own client would not send; ``unchecked=True`` sends it all the same."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command as typed: the ``data`` of its interaction."""

    data: dict[str, Any]


class CommandStore:
    """The commands of one application, everywhere (guild 0) and for single servers."""

    def __init__(self, application_id: int) -> None:
        self._application_id = application_id
        self._scopes: dict[int, dict[int, dict[str, Any]]] = {}
        self.syncs = 0

    def all(self, guild_id: int = 0) -> list[dict[str, Any]]:
        """Return the commands of a scope, in the order in which they were made."""
        return list(self._scopes.get(guild_id, {}).values())

    def get(self, identifier: int, guild_id: int = 0) -> dict[str, Any]:
        """Return one command, or refuse with 10063."""
        command = self._scopes.get(guild_id, {}).get(identifier)
        if command is None:
            raise unknown_command()
        return command

    def replace_all(self, bodies: list[dict[str, Any]], guild_id: int = 0) -> list[dict[str, Any]]:
        """Make ``bodies`` the scope's commands; one that was there by name and type keeps its id."""
        old = {(command["type"], command["name"]): command for command in self.all(guild_id)}
        made = [self._make(body, guild_id, old.get((body.get("type") or CHAT_INPUT, body["name"]))) for body in bodies]
        self._scopes[guild_id] = {int(command["id"]): command for command in made}
        self.syncs += 1
        return made

    def upsert(self, body: dict[str, Any], guild_id: int = 0) -> tuple[dict[str, Any], bool]:
        """Make one command, or overwrite its namesake; also return whether it is new."""
        key = (body.get("type") or CHAT_INPUT, body["name"])
        old = next((c for c in self.all(guild_id) if (c["type"], c["name"]) == key), None)
        made = self._make(body, guild_id, old)
        self._scopes.setdefault(guild_id, {})[int(made["id"])] = made
        self.syncs += 1
        return made, old is None

    def edit(self, identifier: int, body: dict[str, Any], guild_id: int = 0) -> dict[str, Any]:
        """Change the given fields of one command."""
        old = self.get(identifier, guild_id)
        made = self._make(old | body, guild_id, old)
        self._scopes[guild_id][identifier] = made
        self.syncs += 1
        return made

    def delete(self, identifier: int, guild_id: int = 0) -> None:
        """Take one command away."""
        self.get(identifier, guild_id)
        del self._scopes[guild_id][identifier]
        self.syncs += 1

    def _make(self, body: dict[str, Any], guild_id: int, old: dict[str, Any] | None) -> dict[str, Any]:
        """Return a command as Discord stores it.

        What is false, null or empty in an option is left out of the answer, as Discord leaves it out: a bot that
        compares what it has with what Discord has meets this.
        """
        kind = body.get("type") or CHAT_INPUT
        permissions = body.get("default_member_permissions")
        made: dict[str, Any] = {
            "id": old["id"] if old else str(snowflake()),
            "application_id": str(self._application_id),
            "version": "0",
            "default_member_permissions": None if permissions is None else str(permissions),
            "type": kind,
            "name": body["name"],
            "name_localizations": body.get("name_localizations"),
            "description": body.get("description") or "",
            "description_localizations": body.get("description_localizations"),
            "dm_permission": body.get("dm_permission") is not False,
            "contexts": sorted(body["contexts"]) if body.get("contexts") else None,
            "integration_types": sorted(body.get("integration_types") or [0]),
            "nsfw": bool(body.get("nsfw")),
        }
        if body.get("options"):
            made["options"] = [_stored_option(option) for option in body["options"]]
        if guild_id:
            made["guild_id"] = str(guild_id)
        unchanged = old is not None and {**old, "version": "0"} == made
        made["version"] = old["version"] if old is not None and unchanged else str(snowflake())
        return made

    def find(self, name: str, kind: int, channel: Channel) -> dict[str, Any] | None:
        """Return the command a person means where they are; a server's own goes before the general one."""
        scopes = ([channel.guild.id] if channel.guild is not None else []) + [0]
        for scope in scopes:
            for command in self.all(scope):
                if command["type"] == kind and command["name"] == name:
                    return command
        return None

    def names(self) -> list[str]:
        """Return all names, for a message that says what there is."""
        return sorted(command["name"] for scope in self._scopes.values() for command in scope.values())

    def refuse_place(self, command: dict[str, Any], channel: Channel) -> None:
        """Refuse a command where Discord does not offer it."""
        contexts = command["contexts"]
        if contexts is not None and channel.context not in contexts:
            raise RefusedByDiscord(f"{command['name']} is not offered in context {channel.context}, only {contexts}")
        if contexts is None and not command["dm_permission"] and channel.guild is None:
            raise RefusedByDiscord(f"{command['name']} is not offered outside servers")
        if not channel.bot_is_there and 1 not in command["integration_types"]:
            raise RefusedByDiscord(f"{command['name']} cannot be installed to a user")

    def invoke(
        self,
        path: str,
        options: Mapping[str, Any],
        channel: Channel,
        *,
        focused: str | None = None,
        unchecked: bool = False,
    ) -> Invocation:
        """Return the ``data`` of a slash command typed as ``path`` ("weights attention") with these options.

        Args:
            path: The command's name, then its group's and subcommand's, if any.
            options: Values by option name; a User for an option of type user.
            channel: Where it is typed.
            focused: The option that autocomplete is asked for.
            unchecked: Whether what Discord would refuse is sent all the same.
        """
        name, *rest = path.split()
        command = self.find(name, CHAT_INPUT, channel)
        if command is None:
            if not unchecked:
                raise RefusedByDiscord(f"no command /{name}; there are {self.names()}")
            command = {"id": "0", "name": name, "type": CHAT_INPUT, "options": []}
        elif not unchecked:
            self.refuse_place(command, channel)
        schema, nesting = _descend(command, rest, unchecked=unchecked)
        resolved: dict[str, dict[str, Any]] = {}
        filled = _fill(path, schema, options, resolved, focused=focused, unchecked=unchecked)
        for step in reversed(nesting):
            filled = [{"name": step["name"], "type": step["type"], "options": filled}]
        data: dict[str, Any] = {"id": command["id"], "name": name, "type": CHAT_INPUT, "options": filled}
        data |= {"resolved": resolved} if resolved else {}
        data |= {"guild_id": command["guild_id"]} if "guild_id" in command else {}
        return Invocation(data)


def _stored_option(option: dict[str, Any]) -> dict[str, Any]:
    stored = {key: copy.deepcopy(value) for key, value in option.items() if value not in (None, False, [], {})}
    for key in ("name_localizations", "description_localizations"):
        stored.setdefault(key, None)
    for choice in stored.get("choices", ()):
        choice.setdefault("name_localizations", None)
    if "options" in stored:
        stored["options"] = [_stored_option(inner) for inner in stored["options"]]
    return stored


def without_localizations(command: dict[str, Any]) -> dict[str, Any]:
    """Return a command as GET gives it unless ``with_localizations`` asks for more."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if not k.endswith("_localizations")}
        return [strip(item) for item in value] if isinstance(value, list) else value

    stripped: dict[str, Any] = strip(command)
    return stripped


def _descend(
    command: dict[str, Any], names: list[str], *, unchecked: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the options of a subcommand, and the groups and subcommand on the way to it."""
    options: list[dict[str, Any]] = command.get("options", [])
    nesting: list[dict[str, Any]] = []
    for name in names:
        step = next((o for o in options if o["name"] == name and o["type"] in {rules.SUBCOMMAND, rules.GROUP}), None)
        if step is None:
            if not unchecked:
                raise RefusedByDiscord(f"/{command['name']} has no {name!r}; it has {[o['name'] for o in options]}")
            step = {"name": name, "type": rules.SUBCOMMAND}
        nesting.append(step)
        options = step.get("options", [])
    if not unchecked and any(option["type"] in {rules.SUBCOMMAND, rules.GROUP} for option in options):
        raise RefusedByDiscord(f"/{command['name']} needs one of its subcommands: {[o['name'] for o in options]}")
    return options, nesting


def _fill(
    path: str,
    schema: list[dict[str, Any]],
    values: Mapping[str, Any],
    resolved: dict[str, dict[str, Any]],
    *,
    focused: str | None,
    unchecked: bool,
) -> list[dict[str, Any]]:
    """Return the options of an interaction, in the order in which the command declares them."""
    known = {option["name"]: option for option in schema}
    if not unchecked:
        if unknown := [name for name in values if name not in known]:
            raise RefusedByDiscord(f"/{path} has no option {unknown}; it has {list(known)}")
        missing = [o["name"] for o in schema if o.get("required") and o["name"] not in values]
        if missing and focused is None:
            raise RefusedByDiscord(f"/{path} needs {missing}")
    filled = []
    for name in [name for name in known if name in values] + [name for name in values if name not in known]:
        option = known.get(name) or {"name": name, "type": _kind(values[name])}
        value = values[name]
        if name == focused:
            if not unchecked and not option.get("autocomplete"):
                raise RefusedByDiscord(f"/{path} {name} has no autocomplete")
            # What is being typed arrives as text, for numbers too.
            filled.append({"name": name, "type": option["type"], "value": str(value), "focused": True})
            continue
        if not unchecked:
            _refuse_value(f"/{path} {name}", option, value)
        if isinstance(value, User):
            resolved.setdefault("users", {})[str(value.id)] = value.payload()
            value = str(value.id)
        filled.append({"name": name, "type": option["type"], "value": value})
    return filled


def _kind(value: object) -> int:
    for kind, python in ((BOOLEAN, bool), (INTEGER, int), (NUMBER, float), (USER, User)):
        if isinstance(value, python):
            return kind
    return STRING


def _refuse_value(what: str, option: dict[str, Any], value: object) -> None:
    """Refuse a value that Discord's client or gateway would refuse."""
    kind = option["type"]
    right = {
        STRING: isinstance(value, str),
        INTEGER: isinstance(value, int) and not isinstance(value, bool),
        BOOLEAN: isinstance(value, bool),
        NUMBER: isinstance(value, (int, float)) and not isinstance(value, bool),
        USER: isinstance(value, User),
    }
    if kind not in right:
        raise NotImplementedError(f"{what}: options of type {kind} are not covered")
    if not right[kind]:
        raise RefusedByDiscord(f"{what}: {value!r} does not suit type {kind}")
    if option.get("choices") and value not in [choice["value"] for choice in option["choices"]]:
        raise RefusedByDiscord(f"{what}: {value!r} is none of {[choice['value'] for choice in option['choices']]}")
    if isinstance(value, str):
        least, most = max(1, option.get("min_length", 1)), option.get("max_length", STRING_LIMIT)
        if not least <= len(value) <= most:
            raise RefusedByDiscord(f"{what}: {len(value)} characters, {least} to {most} are allowed")
        if rules.lone_surrogates(value):
            raise RefusedByDiscord(f"{what}: a slash option holds no lone surrogates")
    elif isinstance(value, (int, float)) and kind in {INTEGER, NUMBER}:
        least, most = option.get("min_value", -_LARGEST), option.get("max_value", _LARGEST)
        if not least <= value <= most:
            raise RefusedByDiscord(f"{what}: {value}, {least} to {most} are allowed")
