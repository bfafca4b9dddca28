"""The answers to /about and /help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import discord

from bot.text import say
from bot.ui.continuation import ACCENT
from bot.ui.first_steps import first_steps
from bot.ui.literal import literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from bot.gpt2.model_info import ModelInfo
    from bot.text import Text, Translate


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the bot.

    Attributes:
        versions: The versions of the bot and of the libraries on which its answers depend, by name.
        started: The start of the process.
        waiting: The number of continuations that are accepted and not answered yet.
        tokens_per_second: The speed of the last continuations; None before the first.
        acceptance: The share of drafted tokens that the model accepted; None without drafts.
        servers: The number of servers that this process serves.
        invitation: The link that adds the bot to a server or an account.
        source: The address of its source code, or None.
        newer_version: The version of a newer release, if one is known.
        models: Where there are several, whether each is loaded, by name; the default one first.
    """

    versions: Mapping[str, str]
    started: datetime
    waiting: int
    tokens_per_second: float | None
    acceptance: float | None
    servers: int
    invitation: str
    source: str | None
    newer_version: str | None
    models: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command's line in /help.

    Attributes:
        name: The qualified name, such as "weights list".
        mention: A mention that types the command when clicked, or its name as code if its id is unknown.
        description: Its description in the reader's language.
    """

    name: str
    mention: str
    description: str


def invitation(application_id: int) -> str:
    """Return the link that adds the bot to a server or an account. Answers need no permissions, so it asks for none."""
    return discord.utils.oauth_url(
        application_id, permissions=discord.Permissions.none(), scopes=("bot", "applications.commands")
    )


class AboutLayout(discord.ui.LayoutView):
    """The model, the state of the bot, and the link that adds it elsewhere."""

    def __init__(self, model: ModelInfo, status: Status, translate: Translate) -> None:
        super().__init__(timeout=None)
        lines = [*_model_lines(model), *_choice_lines(status.models), *_status_lines(status)]
        container: discord.ui.Container[AboutLayout] = discord.ui.Container(accent_colour=ACCENT)
        container.add_item(discord.ui.TextDisplay("## GPT-2"))
        container.add_item(discord.ui.TextDisplay("\n".join(line.in_language(translate) for line in lines)))
        container.add_item(discord.ui.Separator())
        container.add_item(discord.ui.TextDisplay(_versions(status)))
        self.add_item(container)
        self.add_item(_links(status, translate))


class HelpLayout(discord.ui.LayoutView):
    """An introduction and one line for each command."""

    def __init__(self, commands: Sequence[CommandLine], translate: Translate) -> None:
        super().__init__(timeout=None)
        introduction = say(
            "I am GPT-2, a language model from 2019. I continue text that you start, and I show what I have learned. "
            "Begin with a button below: the same seed gives the same words, here and on your own computer."
        )
        lines = "\n".join(f"{command.mention} {literal(command.description)}" for command in commands)
        container: discord.ui.Container[HelpLayout] = discord.ui.Container(accent_colour=ACCENT)
        container.add_item(discord.ui.TextDisplay(introduction.in_language(translate)))
        container.add_item(discord.ui.Separator())
        container.add_item(discord.ui.TextDisplay(lines))
        self.add_item(container)
        self.add_item(first_steps(translate))


def _model_lines(model: ModelInfo) -> list[Text]:
    lines = [
        say(
            "**Model** {name}: {parameters:,} parameters in {layers} layers with {heads} heads each, "
            "context {context} tokens, on {device}",
            name=literal(model.name),
            parameters=model.parameters,
            layers=model.layers,
            heads=model.heads,
            context=model.context,
            device=model.device.upper(),
        )
    ]
    if model.missing:
        lines.append(
            say(
                "⚠️ Its file holds only part of the model: {count} parameters are random, so its text is noise.",
                count=len(model.missing),
            )
        )
    return lines


def _choice_lines(models: Mapping[str, bool]) -> list[Text]:
    if not models:
        return []
    absent = [literal(name) for name, ready in models.items() if not ready]
    lines = [
        say(
            "**All models** {models}: choose one with the option model, the first is the default",
            models=", ".join(map(literal, models)),
        )
    ]
    if absent:
        lines.append(say("Loaded when somebody asks: {models}", models=", ".join(absent)))
    return lines


def _status_lines(status: Status) -> list[Text]:
    if status.tokens_per_second is None:
        speed = say("not measured yet")
    elif status.acceptance is None:
        speed = say("{rate:.0f} tokens/s", rate=status.tokens_per_second)
    else:
        speed = say(
            "{rate:.0f} tokens/s, {share:.0%} of drafted tokens accepted",
            rate=status.tokens_per_second,
            share=status.acceptance,
        )
    lines = [
        say("**Speed** {speed} · **Waiting** {waiting}", speed=speed, waiting=status.waiting),
        say(
            "**Started** {since} · **Servers** {servers}",
            since=discord.utils.format_dt(status.started, "R"),
            servers=status.servers,
        ),
        say("I keep nothing you write, and I see only what you send me with a command."),
    ]
    if status.newer_version:
        lines.append(say("A newer version of me exists: {version}.", version=status.newer_version))
    return lines


def _versions(status: Status) -> str:
    return "-# " + " · ".join(f"{literal(name)} {version}" for name, version in status.versions.items())


def _links(status: Status, translate: Translate) -> discord.ui.ActionRow[AboutLayout]:
    row: discord.ui.ActionRow[AboutLayout] = discord.ui.ActionRow()
    row.add_item(discord.ui.Button(label=say("Add me").in_language(translate), url=status.invitation))
    if status.source:
        row.add_item(discord.ui.Button(label=say("Source code").in_language(translate), url=status.source))
    return row
