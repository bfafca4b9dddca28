"""Buttons that survive a restart: their custom_ids, and unknown ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import discord
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import InvalidInputError
from bot.text import say
from bot.ui.buttons import Action, Actions, OutdatedError, button
from bot.ui.limits import CUSTOM_ID_CHARACTERS
from tests.cogs.conftest import Server, server  # noqa: F401 # a fixture

if TYPE_CHECKING:
    from bot.client import GPT2Client

OUTDATED = "This button is from an older version of me and no longer works. Use the command again."


@dataclass(frozen=True, slots=True)
class Sample(Action):
    """One field of each kind."""

    NAME: ClassVar[str] = "sample"
    VERSION: ClassVar[int] = 3

    owner: int
    share: float
    private: bool
    word: str


@dataclass(frozen=True, slots=True)
class Bare(Action):
    """An action that says all by its name."""

    NAME: ClassVar[str] = "bare"


class Pressed:
    """As much of an interaction as the registry looks at."""

    def __init__(self, custom_id: str) -> None:
        self.data = {"custom_id": custom_id}


async def carried_out(custom_id: str) -> Action:
    actions, done = Actions(), []

    async def note(_: Any, action: Action) -> None:
        done.append(action)

    actions.on(Sample, note)
    actions.on(Bare, note)
    await actions.dispatch(Pressed(custom_id))
    (action,) = done
    return action


_samples = st.builds(
    Sample,
    owner=st.integers(0, 2**64 - 1),
    share=st.floats(0, 2),
    private=st.booleans(),
    word=st.text(st.sampled_from(":%.3A25aé日 \n"), max_size=12),
)


@given(action=_samples | st.builds(Bare))
async def test_custom_ids_decode_to_the_same_action(action: Action) -> None:
    assert await carried_out(action.custom_id) == action
    assert len(action.custom_id) <= CUSTOM_ID_CHARACTERS


@given(custom_id=st.text(max_size=100) | st.from_regex(r"(sample|bare)\.[0-9]{1,2}(:[^:]{0,9}){0,5}", fullmatch=True))
async def test_garbage_is_outdated_or_decodes_exactly(custom_id: str) -> None:
    try:
        action = await carried_out(custom_id)
    except OutdatedError:
        return
    assert action.custom_id == custom_id


@pytest.mark.parametrize(
    "custom_id",
    [
        "",
        "x" * 100,
        "sample.2:1:0.5:0:w",
        "sample.4:1:0.5:0:w",
        "sample.3",
        "sample.3:1:0.5:0",
        "sample.3:1:0.5:0:w:w",
        "sample.3:-1:0.5:0:w",
        "sample.3: 1:0.5:0:w",
        "sample.3:1_0:0.5:0:w",
        "sample.3:ZZ:0.5:0:w",
        "sample.3:1:half:0:w",
        "sample.3:1:0.5:2:w",
        "sample.٣:1:0.5:0:w",
        "bare.1:",
        "bare.01",
        "other.1",
    ],
)
async def test_non_canonical_custom_ids_are_outdated(custom_id: str) -> None:
    with pytest.raises(OutdatedError):
        await carried_out(custom_id)


def test_a_custom_id_is_held_to_discords_limit() -> None:
    room = CUSTOM_ID_CHARACTERS - len(Sample(0, 1.0, private=False, word="").custom_id)
    assert len(Sample(0, 1.0, private=False, word="x" * room).custom_id) == CUSTOM_ID_CHARACTERS
    for word in ("x" * (room + 1), "x" * (room - 2) + ":", "x" * (room - 1) + "😀"):
        with pytest.raises(OverflowError):
            _ = Sample(0, 1.0, private=False, word=word).custom_id


def test_what_no_custom_id_can_say_is_refused() -> None:
    with pytest.raises(ValueError):
        _ = Sample(-1, 1.0, private=False, word="").custom_id


def test_a_long_label_is_cut() -> None:
    assert button(Bare(), "x" * 81).item.label == "x" * 79 + "…"


async def press(server: Server, action: Action | str, bot: GPT2Client) -> Any:  # noqa: F811
    """Press a button that the bot has posted."""
    view = discord.ui.LayoutView()
    item = button(action, "Press") if isinstance(action, Action) else discord.ui.Button(label="x", custom_id=action)
    view.add_item(discord.ui.Container(discord.ui.Section("A text", accessory=item)))
    message = await bot.get_channel(server.channel.id).send(view=view)
    return await server.member.click(message, custom_id=item.custom_id)


@pytest.mark.parametrize("custom_id", ["gone.1:5", "bare.7", "bare.1:x:y:z"])
async def test_an_unknown_button_answers_with_a_sentence(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
    custom_id: str,
) -> None:
    await server.env.settle()
    simcord_bot.actions.on(Bare, never)
    result = await press(server, custom_id, simcord_bot)
    assert result.response.content == OUTDATED
    assert result.response.ephemeral


async def test_what_an_action_refuses_is_a_private_sentence(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
) -> None:
    async def refuse(*_: Any) -> None:
        raise InvalidInputError(say("Not *you*."))

    await server.env.settle()
    simcord_bot.actions.on(Bare, refuse)
    result = await press(server, Bare(), simcord_bot)
    assert result.response.content == "Not \\*you\\*."
    assert result.response.ephemeral


async def test_a_failed_action_shows_the_logs_reference(
    server: Server,  # noqa: F811
    simcord_bot: GPT2Client,
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    await server.env.settle()
    simcord_bot.actions.on(Bare, broken)
    with structlog.testing.capture_logs() as logged:
        result = await press(server, Bare(), simcord_bot)
    (entry,) = [entry for entry in logged if entry["event"] == "a command failed"]
    assert entry["command"] == "button bare"
    assert result.response.content.endswith(f"this reference: {entry['reference']}.")
    assert result.response.ephemeral


async def never(*_: Any) -> None:
    pytest.fail("this must not be carried out")
