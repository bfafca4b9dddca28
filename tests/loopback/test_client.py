"""The server against the real discord.py, in its own process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.loopback import RefusedByDiscord

if TYPE_CHECKING:
    from tests.loopback import LoopbackDiscord

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_defers_and_answers_with_a_file(discord: LoopbackDiscord) -> None:
    interaction = await discord.slash("do draw", {"text": "cat"})
    assert 0 < await interaction.acknowledged() < 3
    assert interaction.callback_type == 5
    message = await interaction.answered()
    assert message.content == "cat 3"
    assert not message.ephemeral
    assert not message.loading
    (picture,) = message.attachments
    assert picture.description == "alt cat"
    assert picture.dimensions == (3, 2)
    async with aiohttp.ClientSession() as session, session.get(picture.url) as response:
        assert await response.read() == picture.content
    assert [revision.payload["flags"] for revision in message.revisions] == [128, 0]


async def test_private_answers_stay_private(discord: LoopbackDiscord) -> None:
    bob = discord.user("bob")
    interaction = await discord.slash("do draw", {"text": "cat", "private": True, "size": 7}, user=bob)
    message = await interaction.answered()
    assert message.ephemeral
    assert message.viewer is bob
    assert message.content == "cat 7"


async def test_autocomplete_offers_choices(discord: LoopbackDiscord) -> None:
    interaction = await discord.autocomplete("do pick", "name", "w")
    await interaction.acknowledged()
    assert interaction.choices is not None
    assert [choice["value"] for choice in interaction.choices] == ["wte", "wpe"]


async def test_context_and_locale_arrive(discord: LoopbackDiscord) -> None:
    alice = discord.user()
    for where in (discord.dm(alice), discord.group(alice), discord.guilds[1].channels[0]):
        interaction = await discord.slash("do pick", {"name": "wpe"}, where=where, locale="de")
        assert (await interaction.answered()).content == "picked wpe de"


async def test_buttons_edit_the_message(discord: LoopbackDiscord) -> None:
    panel = await (await discord.slash("do panel")).answered()
    assert panel.text == "fresh"
    pressed = await discord.component(panel, label="Again")
    assert await pressed.answered() is panel
    assert pressed.callback_type == 7
    assert panel.text == "edited"
    pressed = await discord.component(panel, label="Slow")
    await pressed.until(lambda _: panel.text == "step 2")
    assert [revision.text for revision in panel.revisions] == ["fresh", "edited", "step 0", "step 1", "step 2"]
    with pytest.raises(RefusedByDiscord, match="disabled"):
        await discord.component(panel, "off")
    with pytest.raises(RefusedByDiscord, match="no component"):
        await discord.component(panel, "gone")


async def test_forms_are_shown_and_sent(discord: LoopbackDiscord) -> None:
    panel = await (await discord.slash("do panel")).answered()
    shown = await discord.component(panel, label="Edit")
    with pytest.raises(RefusedByDiscord, match="required"):
        await discord.modal(shown)
    with pytest.raises(RefusedByDiscord, match="21 characters"):
        await discord.modal(shown, {"Prompt": "x" * 21})
    sent = await discord.modal(shown, {"Prompt": "two\nlines"})
    answer = await sent.answered()
    assert answer.content == "form: two\nlines"
    assert answer.ephemeral


async def test_forms_are_submitted_after_being_shown(discord: LoopbackDiscord) -> None:
    for number in range(20):
        shown = await discord.slash("do form")
        sent = await discord.modal(shown, {"prompt": str(number)})
        assert (await sent.answered(within=5)).content == f"form: {number}"


async def test_menu_commands_get_their_message(discord: LoopbackDiscord) -> None:
    said = discord.post("Call me Ishmael.", author=discord.user("herman"))
    interaction = await discord.message_command("Quote", said)
    assert (await interaction.answered()).content == "> Call me Ishmael."


async def test_errors_reach_the_user(discord: LoopbackDiscord) -> None:
    interaction = await discord.slash("do boom")
    message = await interaction.answered()
    assert message.ephemeral
    assert message.content == "sorry: boom"


async def test_followups_and_deletion(discord: LoopbackDiscord) -> None:
    interaction = await discord.slash("do chatter")
    last = await interaction.followed_up(2)
    assert last.ephemeral
    assert interaction.original is not None
    await interaction.until(lambda i: i.original is not None and i.original.deleted)
    assert interaction.text == "follow-up 0\nfollow-up 1"


async def test_user_installs_have_five_followups(discord: LoopbackDiscord) -> None:
    interaction = await discord.slash("do chatter", {"count": 4}, where=discord.guilds[1].channels[0])
    await interaction.followed_up(4)
    interaction = await discord.slash("do chatter", {"count": 6}, where=discord.guilds[1].channels[0])
    await interaction.until(lambda _: discord.violations)
    assert [violation.kind for violation in discord.take_violations()] == ["too many follow-ups"]


async def test_what_discord_refuses_is_not_sent(discord: LoopbackDiscord) -> None:
    for options, why in (
        ({}, "needs"),
        ({"text": "cat", "colour": "red"}, "no option"),
        ({"text": ""}, "0 characters"),
        ({"text": "x" * 101}, "101 characters"),
        ({"text": "cat", "size": 11}, "1 to 10"),
        ({"text": "cat", "size": "3"}, "type 4"),
    ):
        with pytest.raises(RefusedByDiscord, match=why):
            await discord.slash("do draw", options)
    with pytest.raises(RefusedByDiscord, match="no command"):
        await discord.slash("dance")
    with pytest.raises(RefusedByDiscord, match="needs one of its subcommands"):
        await discord.slash("do")
    interaction = await discord.slash("do draw", {"text": "cat", "size": 11}, unchecked=True)
    assert (await interaction.answered()).content.startswith(("cat 11", "sorry"))


@pytest.mark.parametrize(
    ("kind", "text", "code"),
    [(4, "x" * 2001, 50035), (4, " ", 50006), (99, "x", 50035), (7, "x", 50035)],
)
async def test_a_bad_body_is_caught(discord: LoopbackDiscord, kind: int, text: str, code: int) -> None:
    interaction = await discord.slash("do raw", {"kind": kind, "text": text})
    await interaction.until(lambda _: discord.violations)
    (violation,) = discord.take_violations()
    assert violation.kind == "invalid body"
    assert violation.request is not None
    assert violation.request.answer["code"] == code
    assert interaction.callback is None


async def test_a_file_that_nothing_shows_is_noticed(discord: LoopbackDiscord) -> None:
    message = await (await discord.slash("do gallery")).answered()
    (violation,) = discord.take_violations()
    assert violation.kind == "unseen file"
    assert "unseen.png" in violation.detail
    assert [item.filename for item in message.attachments] == ["seen.png", "unseen.png"]
    assert [item["filename"] for item in message.payload()["attachments"]] == ["unseen.png"]
    assert message.components[0]["items"][0]["media"]["url"] == message.attachments[0].url


async def test_a_late_acknowledgement_is_refused(discord: LoopbackDiscord) -> None:
    discord.desk.window_seconds = 0.2
    try:
        interaction = await discord.slash("do late", {"seconds": 0.3})
        await interaction.until(lambda _: discord.violations)
    finally:
        discord.desk.window_seconds = 3.0
    assert [violation.kind for violation in discord.take_violations()] == ["acknowledged late"]
    assert discord.requests[-1].answer["code"] == 10062


async def test_every_request_is_logged_and_validated(discord: LoopbackDiscord) -> None:
    before = len(discord.requests)
    await (await discord.slash("do draw", {"text": "cat"})).answered()
    await discord.changes.until(lambda: discord.requests[-1].seconds, within=5, what="the edit answered")
    callback, edit = discord.requests[before:]
    if discord.validates:  # the templates are the description's
        assert callback.template == "/interactions/{interaction_id}/{interaction_token}/callback"
    assert callback.path.endswith("/callback")
    assert edit.body["attachments"] == [{"id": 0, "filename": "picture.png", "description": "alt cat"}]
    assert [upload.field for upload in edit.uploads] == ["files[0]"]
    assert callback.validated is edit.validated is discord.validates


async def test_the_servers_own_answers_satisfy_the_description(discord: LoopbackDiscord) -> None:
    if discord.api_description is None:
        pytest.skip("Discord's description is not beside the checkout")
    await (await discord.slash("do draw", {"text": "cat"})).answered()
    panel = await (await discord.slash("do panel")).answered()
    await (await discord.component(panel, label="Slow")).answered()
    await (await discord.slash("do gallery")).answered()
    discord.take_violations()
    checked = 0
    for request in discord.requests:
        operation = discord.api_description.operation(request.method, request.path)
        if operation is not None and request.status is not None:
            found = discord.api_description.response_complaints(operation, request.status, request.answer)
            assert found == [], request
            checked += 1
    assert checked > 8


async def test_a_busy_api_is_waited_for(discord: LoopbackDiscord) -> None:
    limited = discord.faults.add("PATCH", "/messages/", status=429, retry_after=0.05)
    slow = discord.faults.add("POST", "/callback", delay=0.05)
    interaction = await discord.slash("do draw", {"text": "cat"})
    assert (await interaction.answered()).content == "cat 3"
    assert limited.hits == slow.hits == 1
    assert interaction.seconds is not None
    assert interaction.seconds >= 0.05


async def test_a_lost_response_has_taken_effect(discord: LoopbackDiscord) -> None:
    lost = discord.faults.add("POST", "/callback", drop=True, after=True)
    interaction = await discord.slash("do pick", {"name": "wpe"})
    assert (await interaction.answered()).content == "picked wpe en-US"
    # To the bot it failed: its error handler answers once more.
    await interaction.until(lambda _: discord.violations)
    assert [violation.kind for violation in discord.take_violations()] == ["acknowledged twice"]
    assert lost.hits == 1
