"""The answers to /about and /help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import discord

from bot.text import say
from bot.ui.continuation import ACCENT
from bot.ui.literal import literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from bot.gpt2.model_info import ModelInfo
    from bot.text import Text, Translate


@dataclass(frozen=True, slots=True)
class Status:
    """How the bot is doing.

    Attributes:
        versions: Of the bot and of the libraries that decide what it answers, by name.
        started: When the process started.
        waiting: Continuations accepted and not yet answered.
        tokens_per_second: Of the last continuations; None before the first.
        servers: How many servers it is in, as far as this process knows.
        invitation: The link that adds it to a server or an account.
        source: Where its code can be read, or None.
    """

    versions: Mapping[str, str]
    started: datetime
    waiting: int
    tokens_per_second: float | None
    servers: int
    invitation: str
    source: str | None


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One command as /help shows it.

    Attributes:
        name: Whole, such as "weights list".
        mention: What becomes a link that types the command, or its name in code where Discord's id is not known.
        description: In the reader's language.
    """

    name: str
    mention: str
    description: str


def invitation(application_id: int) -> str:
    """The link that adds the bot to a server or an account. It asks for no permissions: answers need none."""
    return discord.utils.oauth_url(
        application_id, permissions=discord.Permissions.none(), scopes=("bot", "applications.commands")
    )


class AboutLayout(discord.ui.LayoutView):
    """The model, the state of the bot, and how to have it elsewhere."""

    def __init__(self, model: ModelInfo, status: Status, translate: Translate) -> None:
        super().__init__(timeout=None)
        lines = [*_model_lines(model), *_status_lines(status)]
        container: discord.ui.Container[AboutLayout] = discord.ui.Container(accent_colour=ACCENT)
        container.add_item(discord.ui.TextDisplay("## GPT-2"))
        container.add_item(discord.ui.TextDisplay("\n".join(line.in_language(translate) for line in lines)))
        container.add_item(discord.ui.Separator())
        container.add_item(discord.ui.TextDisplay(_versions(status)))
        self.add_item(container)
        self.add_item(_links(status, translate))


class HelpLayout(discord.ui.LayoutView):
    """One line a command, and where to begin."""

    def __init__(self, commands: Sequence[CommandLine], example: str, translate: Translate) -> None:
        super().__init__(timeout=None)
        beginning = say(
            "I am GPT-2, a language model from 2019. I go on with a text you begin, and I show what I have learned. "
            "Begin with {example}: the same seed gives the same words, here and on your own computer.",
            example=say("`/continue prompt:{example} seed:42`", example=example),
        )
        lines = "\n".join(f"{command.mention} {literal(command.description)}" for command in commands)
        container: discord.ui.Container[HelpLayout] = discord.ui.Container(accent_colour=ACCENT)
        container.add_item(discord.ui.TextDisplay(beginning.in_language(translate)))
        container.add_item(discord.ui.Separator())
        container.add_item(discord.ui.TextDisplay(lines))
        self.add_item(container)


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
                "⚠️ Its file holds only a part of the model; {count} parameters are random, so its text is noise.",
                count=len(model.missing),
            )
        )
    return lines


def _status_lines(status: Status) -> list[Text]:
    speed = (
        say("{rate:.0f} tokens/s", rate=status.tokens_per_second)
        if status.tokens_per_second is not None
        else say("not measured yet")
    )
    return [
        say("**Speed** {speed} · **Waiting** {waiting}", speed=speed, waiting=status.waiting),
        say(
            "**Started** {since} · **Servers** {servers}",
            since=discord.utils.format_dt(status.started, "R"),
            servers=status.servers,
        ),
        say("I keep nothing of what you write, and I see only what you send me with a command."),
    ]


def _versions(status: Status) -> str:
    return "-# " + " · ".join(f"{literal(name)} {version}" for name, version in status.versions.items())


def _links(status: Status, translate: Translate) -> discord.ui.ActionRow[AboutLayout]:
    row: discord.ui.ActionRow[AboutLayout] = discord.ui.ActionRow()
    row.add_item(discord.ui.Button(label=say("Add me").in_language(translate), url=status.invitation))
    if status.source:
        row.add_item(discord.ui.Button(label=say("Source code").in_language(translate), url=status.source))
    return row
