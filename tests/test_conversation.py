"""A conversation with the bot in its own process, through a Discord on loopback: live answers, lasting buttons."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.model.files import SHIPPED
from bot.gpt2.requests import ContinuationRequest, SamplingParams
from bot.ui.limits import COMPONENTS, LAYOUT_CHARACTERS, length
from bot.ui.literal import bold, literal
from bot.ui.readback import body
from bot.ui.transcript import split_transcript
from tests.loopback import BotProcess, LoopbackDiscord, User, rules
from tests.models import make_model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.loopback import Interaction, Message

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "Hello, I'm a language model,"
OUTDATED = "This button is from an older version of me and no longer works. Use the command again."
NOT_YOURS = "Only the person who ran this command, or someone who can manage messages, can do that."

WARM = (
    r"“warm” does not say temperature, top\_k and top\_p: write three numbers, as in "
    r"temperature 1, top\_k 50, top\_p 1."
)


def settings(model: Path | str) -> dict[str, str]:
    return {"GPT2_MODEL": str(model), "GPT2_THREADS": "1"}


@contextlib.asynccontextmanager
async def running(discord: LoopbackDiscord, model: Path, entry: str | None = None) -> AsyncIterator[BotProcess]:
    async with BotProcess(discord, env=settings(model), entry=entry) as bot:
        await bot.loaded()
        yield bot
        faults = [line for line in bot.stderr if '"level": "error"' in line or "Traceback" in line]
        assert faults == []


@pytest.fixture(scope="module")
def roomy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with a context for the longest prompt."""
    return make_model(tmp_path_factory.mktemp("models") / "roomy-gpt2", layers=1, context=8192, seed=3)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def discord() -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as server:
        server.server("Elsewhere", bot_is_member=False)
        yield server
    assert server.violations == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process(discord: LoopbackDiscord, roomy_model: Path) -> AsyncIterator[BotProcess]:
    async with running(discord, roomy_model) as bot:
        yield bot


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow_discord() -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord() as server:
        yield server
    assert server.violations == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow_process(slow_discord: LoopbackDiscord, roomy_model: Path) -> AsyncIterator[BotProcess]:
    async with running(slow_discord, roomy_model, entry=LEISURELY) as bot:
        yield bot


@pytest_asyncio.fixture(loop_scope="module", params=["tiny", SHIPPED])
async def loaded(request: pytest.FixtureRequest, tiny_model: Path) -> AsyncIterator[LocalEngine]:
    """An engine in this process, to compare with: one that writes control characters, which only a file can keep, and
    one that writes what a message can.
    """
    engine = LocalEngine(str(tiny_model) if request.param == "tiny" else SHIPPED, device="cpu", threads=1)
    await engine.start()
    yield engine
    await engine.close()


async def done(interaction: Interaction, within: float = 120) -> Message:
    """Wait for the whole answer, whose footer has the speed."""
    await interaction.until(lambda each: "tokens/s" in each.text, within=within, what="the footer")
    assert interaction.original is not None
    return interaction.original


async def refused(interaction: Interaction) -> str:
    """Return the private sentence that is the only answer."""
    message = await interaction.answered()
    assert message.ephemeral
    return message.content


async def ask(discord: LoopbackDiscord, **options: Any) -> Message:
    user, where = options.pop("user", None), options.pop("where", None)
    options = {"prompt": PROMPT, "seed": 42, "samples": 2, "length": 6, **options}
    return await done(await discord.slash("continue", options, user=user, where=where))


async def edit_form(discord: LoopbackDiscord, message: Message, user: User | None = None) -> Interaction:
    """Return the form that Edit opens."""
    form = await discord.component(message, label="Edit", user=user)
    await form.acknowledged()
    assert form.modal is not None
    return form


def displays(message: Message) -> list[str]:
    return [c["content"] for _, c in rules.walk(message.components) if c["type"] == rules.TEXT_DISPLAY]


def labels(message: Message) -> list[str]:
    return [button["label"] for button in message.buttons]


def seed_of(message: Message) -> int:
    (seed,) = re.findall(r"seed (\d+)", message.text)
    return int(seed)


def continue_button(message: Message, sample: int) -> str:
    return [button["custom_id"] for button in message.buttons if button["label"] == "Continue"][sample - 1]


LEISURELY: Final = "tests.loopback.leisurely:main"
LONG: Final = {"prompt": PROMPT, "seed": 1, "samples": 10, "length": 200}


class TestLive:
    @pytest.mark.usefixtures("slow_process")
    async def test_a_long_answer_grows_every_second(self, slow_discord: LoopbackDiscord) -> None:
        asked = await slow_discord.slash("continue", LONG)
        assert await asked.acknowledged() < 3
        message = await done(asked)
        _, *growing, last = message.revisions  # the first is "is thinking…"
        assert len(growing) >= 2, "too fast to be watched"
        gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(growing)]
        assert all(gap > 0.9 for gap in gaps), gaps
        for state in growing:
            buttons = [c for _, c in rules.walk(state.payload["components"]) if c["type"] == rules.BUTTON]
            assert [button["label"] for button in buttons] == ["Stop"]
        sizes = [len(state.text) for state in growing if "tokens" in state.text]
        assert sizes == sorted(sizes), "it grows"
        writing = next(state.text for state in growing if "in the queue" not in state.text)
        assert re.search(r"-# \d+ of 2000 tokens · about \d+ s to go", writing)
        assert "tokens/s" in last.text
        assert slow_discord.rate_limits.refused == 0

    @pytest.mark.usefixtures("slow_process")
    async def test_a_short_answer_does_not_flicker(self, slow_discord: LoopbackDiscord) -> None:
        message = await ask(slow_discord, samples=1, length=1)
        assert len(message.revisions) == 2, "“is thinking…” and the answer"
        assert re.search(r" · 1 token in \d", message.text)

    @pytest.mark.usefixtures("slow_process")
    async def test_stop_keeps_what_is_there(self, slow_discord: LoopbackDiscord) -> None:
        asked = await slow_discord.slash("continue", LONG)
        await asked.until(lambda each: " of 2000 tokens" in each.text, what="an answer that grows")
        assert asked.original is not None
        stranger = await slow_discord.component(asked.original, label="Stop", user=slow_discord.user("mallory"))
        assert await refused(stranger) == NOT_YOURS
        pressed = await slow_discord.component(asked.original, label="Stop")
        assert await pressed.acknowledged() < 3
        message = await done(asked)
        (count,) = re.findall(r"Stopped after (\d+) of 2000 tokens\.", message.text)
        assert 0 < int(count) < 2000
        assert "Continue" in labels(message)
        assert not pressed.messages or pressed.messages == [message], "nothing more is said"

    @pytest.mark.slow
    @pytest.mark.usefixtures("slow_process")
    async def test_thirty_concurrent_requests_are_all_answered(self, slow_discord: LoopbackDiscord) -> None:
        asked = [
            await slow_discord.slash(
                "continue", {"prompt": PROMPT, "seed": seed, "length": 30}, user=slow_discord.user(f"user{seed}")
            )
            for seed in range(30)
        ]
        for interaction in asked:
            assert await interaction.acknowledged() < 3
        messages = await asyncio.gather(*(done(interaction) for interaction in asked))
        assert slow_discord.rate_limits.refused == 0
        for seed, message in enumerate(messages):
            assert seed_of(message) == seed
            assert labels(message).count("Continue") == 5

    @pytest.mark.slow
    @pytest.mark.usefixtures("slow_process")
    async def test_a_lost_progress_edit_does_no_harm(self, slow_discord: LoopbackDiscord) -> None:
        fault = slow_discord.faults.add("PATCH", "@original", status=400, body={"message": "no", "code": 0}, count=1)
        message = await done(
            await slow_discord.slash("continue", {"prompt": PROMPT, "seed": 1, "samples": 10, "length": 60})
        )
        slow_discord.faults.clear()
        assert fault.hits == 1
        assert labels(message).count("Continue") == 10

    @pytest.mark.slow
    @pytest.mark.usefixtures("slow_process")
    async def test_an_answer_deleted_while_growing_is_abandoned(
        self, slow_discord: LoopbackDiscord, slow_process: BotProcess
    ) -> None:
        asked = await slow_discord.slash("continue", LONG)
        await asked.until(lambda each: each.original and each.original.buttons, what="a Stop button")
        assert asked.original is not None
        slow_discord.messages.delete(asked.original)
        await slow_process.logged("an interaction ended before it could be answered")
        assert asked.messages == []


class TestButtons:
    @pytest.mark.usefixtures("process")
    async def test_continue_works_on_its_own_samples(self, discord: LoopbackDiscord) -> None:
        message = await ask(discord)
        for _ in range(3):
            before = next(body(shown) for shown in displays(message) if shown.startswith("-# 2\n"))
            pressed = await discord.component(message, continue_button(message, 2), user=discord.user("somebody else"))
            message = await done(pressed)
            # There stands the prompt alone, or the first sample behind it.
            assert body(displays(message)[0]).startswith(before)
            assert labels(message).count("Continue") == 2

    @pytest.mark.usefixtures("process")
    async def test_reroll_keeps_all_but_the_seed(self, discord: LoopbackDiscord) -> None:
        message = await ask(discord, temperature=0.7, top_k=9, top_p=0.95)
        first = await done(await discord.component(message, label="Re-roll"))
        second = await done(await discord.component(first, label="Re-roll"))
        assert len({message.id, first.id, second.id}) == 3
        assert len({seed_of(message), seed_of(first), seed_of(second)}) == 3
        for each in (first, second):
            assert "samples 2 · length 6 · temperature 0.7 · top_k 9 · top_p 0.95" in each.text
            assert all(bold(PROMPT) in text for text in displays(each)[:-1])

    @pytest.mark.usefixtures("process")
    async def test_edit_shows_the_request_and_answers_changes(self, discord: LoopbackDiscord) -> None:
        message = await ask(discord, temperature=0.7)
        form = await edit_form(discord, message)
        filled = {part["label"]: part["component"].get("value") for part in form.modal["components"]}
        assert filled == {
            "Prompt": PROMPT,
            "Samples": "2",
            "Length in tokens": "6",
            "Seed": "42",
            "Temperature, top_k and top_p": "temperature 0.7, top_k 50, top_p 1",
        }
        unchanged = await done(await discord.modal(form))
        assert displays(unchanged)[:-1] == displays(message)[:-1], "the same words"
        typed = {
            "Prompt": "two\nlines",
            "Samples": " 1 ",
            "Length in tokens": "3",
            "Seed": "7",
            "Temperature, top_k and top_p": "0,5; 0; 0.25",
        }
        changed = await done(await discord.modal(form, typed))
        assert "seed 7 · samples 1 · length 3 · temperature 0.5 · top_k 0 · top_p 0.25" in changed.text
        assert bold("two\nlines") in changed.text

    @pytest.mark.usefixtures("process")
    @pytest.mark.parametrize(
        ("typed", "sentence"),
        [
            ({"Prompt": "  \n "}, "The prompt is empty: write at least one word."),
            ({"Samples": "five"}, "samples “five” is not a whole number."),
            ({"Samples": "11"}, "samples must be from 1 to 10, not 11."),
            ({"Length in tokens": "²"}, "length “²” is not a whole number."),
            ({"Seed": "-1"}, "seed “-1” is not a whole number."),
            ({"Seed": "4294967296"}, "seed must be from 0 to 4294967295, not 4294967296."),
            ({"Seed": "half \ud83d"}, "seed “half \ufffd” is not a whole number."),
            ({"Prompt": "a word\n", "Length in tokens": "99999"}, "length must be from 1 to 200, not 99999."),
            (
                {"Temperature, top_k and top_p": "warm"},
                WARM,
            ),
            ({"Temperature, top_k and top_p": "3 50 1"}, "temperature must be from 0.0 to 2.0, not 3.0."),
        ],
        ids=str,
    )
    async def test_what_cannot_be_is_refused_in_private(
        self, discord: LoopbackDiscord, typed: dict[str, str], sentence: str
    ) -> None:
        message = await ask(discord)
        form = await edit_form(discord, message)
        assert await refused(await discord.modal(form, typed)) == sentence

    @pytest.mark.usefixtures("process")
    async def test_form_refusals_name_the_translated_option(self, discord: LoopbackDiscord) -> None:
        form = await edit_form(discord, await ask(discord))
        for typed, sentence in (
            ({"Length in tokens": "201"}, "longueur doit aller de 1 à 200, pas 201."),
            ({"Samples": "dix"}, "échantillons \xab\xa0dix\xa0\xbb n\u2019est pas un nombre entier."),
        ):
            assert await refused(await discord.modal(form, typed, locale="fr")) == sentence

    @pytest.mark.usefixtures("process")
    async def test_forms_accept_full_width_numbers(self, discord: LoopbackDiscord) -> None:
        form = await edit_form(discord, await ask(discord))
        typed = {
            "Samples": "\uff13",
            "Length in tokens": "\u3000\uff12\uff10",
            "Seed": "\uff17",
            "Temperature, top_k and top_p": "\uff10\uff0e\uff15\uff0c\u3000\uff19\uff0c\uff10.\uff19",
        }
        message = await done(await discord.modal(form, typed))
        assert "seed 7 · samples 3 · length 20 · temperature 0.5 · top_k 9 · top_p 0.9 · " in message.text

    @pytest.mark.usefixtures("process")
    @pytest.mark.parametrize("number", [0.00001, 0.12345678901234568, 0.00012345678901234567, 5e-324], ids=str)
    async def test_a_form_takes_every_number_that_it_shows(self, discord: LoopbackDiscord, number: float) -> None:
        message = await ask(discord, temperature=number, top_p=number)
        form = await edit_form(discord, message)
        assert displays(await done(await discord.modal(form)))[:-1] == displays(message)[:-1], "the same words"

    @pytest.mark.usefixtures("process")
    @pytest.mark.parametrize("prompt", ["🎭" * 2001, "page\x0c and bell\x07"], ids=["long", "control characters"])
    async def test_an_oversized_prompt_stays_unless_replaced(self, discord: LoopbackDiscord, prompt: str) -> None:
        message = await ask(discord, prompt=prompt, samples=1)
        form = await edit_form(discord, message)
        field = form.modal["components"][0]
        assert "value" not in field["component"]
        assert field["description"] == "The current prompt is too long to show here. Leave this empty to keep it."
        (whole,) = split_transcript(message.attachments[0].content.decode())
        (again,) = split_transcript((await done(await discord.modal(form))).attachments[0].content.decode())
        assert again == whole, "the same words"
        assert whole.startswith(prompt)

    @pytest.mark.usefixtures("process")
    async def test_anyone_may_see_insights_and_code_in_private(self, discord: LoopbackDiscord) -> None:
        message, stranger = await ask(discord, prompt='It\'s "*quoted*"'), discord.user("mallory")
        code = await (await discord.component(message, label="Show code", user=stranger)).answered()
        assert code.ephemeral
        program = code.attachments[0].content.decode() if code.attachments else code.text
        assert "set_seed(42)" in program
        assert "max_new_tokens=6" in program
        insights = await (await discord.component(message, label="Insights", user=stranger)).answered()
        assert insights.ephemeral
        (picture,) = insights.attachments
        assert picture.content.startswith(b"\x89PNG")
        assert "Samples coloured by surprise: 2" in (picture.description or "")

    @pytest.mark.usefixtures("process")
    async def test_another_models_answer_has_no_program(self, discord: LoopbackDiscord) -> None:
        message = await ask(discord)
        for label in ("Show code", "Insights"):
            button = message.button(label)
            *most, _ = button["custom_id"].split(":")
            button["custom_id"] = ":".join([*most, "1"])
            sentence = await refused(await discord.component(message, button["custom_id"]))
            assert sentence.startswith("This was made with a different model; I now run roomy-gpt2.")

    @pytest.mark.usefixtures("process")
    async def test_strangers_may_neither_edit_nor_delete(self, discord: LoopbackDiscord) -> None:
        message, stranger = await ask(discord), discord.user("mallory")
        for label in ("Edit", "Delete"):
            assert await refused(await discord.component(message, label=label, user=stranger)) == NOT_YOURS
        rerolled = await done(await discord.component(message, label="Re-roll", user=stranger))
        await done(await discord.component(message, continue_button(message, 1), user=stranger))
        form = await edit_form(discord, rerolled, user=stranger)
        assert form.modal, "what a stranger has asked for is the stranger's"
        moderator = discord.user("moderator", manages_messages=True)
        await (await discord.component(message, label="Delete", user=moderator)).until(lambda _: message.deleted)

    @pytest.mark.usefixtures("process")
    @pytest.mark.parametrize("place", ["server", "dm", "group", "elsewhere"])
    @pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
    async def test_delete_works_everywhere(self, discord: LoopbackDiscord, place: str, private: bool) -> None:
        alice = discord.user()
        where = {
            "server": lambda: discord.channel,
            "dm": lambda: discord.dm(alice),
            "group": lambda: discord.group(alice, discord.user("bob")),
            "elsewhere": lambda: next(c for c in discord.channels.values() if c.guild and not c.guild.bot_is_member),
        }[place]()
        message = await ask(discord, where=where, private=private)
        rerolled = await done(await discord.component(message, label="Re-roll"))
        assert rerolled.ephemeral == message.ephemeral == private
        for each in (message, rerolled):
            await (await discord.component(each, label="Delete")).until(lambda _, m=each: m.deleted)

    @pytest.mark.usefixtures("process")
    async def test_double_presses_are_answered_once(self, discord: LoopbackDiscord) -> None:
        message = await ask(discord, samples=10, length=100)
        presses = [await discord.component(message, label="Re-roll") for _ in range(2)]
        await done(presses[0])
        assert await refused(presses[1]) == "You already pressed that; the answer is on its way."
        await done(await discord.component(message, label="Re-roll"))

    @pytest.mark.usefixtures("process")
    async def test_double_presses_of_watch_draw_one_animation(self, discord: LoopbackDiscord) -> None:
        message = await ask(discord, samples=1, length=8)
        presses = [await discord.component(message, label="Watch") for _ in range(2)]
        assert await refused(presses[1]) == "You already pressed that; the answer is on its way."
        await presses[0].until(lambda each: each.messages and each.messages[-1].attachments, what="an animation")
        (animation,) = presses[0].messages
        assert [each.filename for each in animation.attachments] == ["writing.gif"]

    @pytest.mark.usefixtures("process")
    async def test_double_deletes_are_silent(self, discord: LoopbackDiscord, process: BotProcess) -> None:
        message = await ask(discord)
        presses = [await discord.component(message, label="Delete") for _ in range(2)]
        for press in presses:
            await press.acknowledged()
        await presses[0].until(lambda _: message.deleted)
        assert all(not press.followups for press in presses)

    @pytest.mark.usefixtures("process")
    @pytest.mark.parametrize("custom_id", ["reroll.99:1:2", "reroll.1:1:2", "future.1:abc"])
    async def test_another_versions_button_answers_with_a_sentence(
        self, discord: LoopbackDiscord, custom_id: str
    ) -> None:
        message = await ask(discord)
        message.button("Re-roll")["custom_id"] = custom_id
        assert await refused(await discord.component(message, custom_id)) == OUTDATED

    @pytest.mark.usefixtures("process")
    async def test_a_deleted_messages_button_still_answers(self, discord: LoopbackDiscord) -> None:
        message = await ask(discord)
        discord.messages.delete(message)
        await done(await discord.component(message, message.button("Re-roll")["custom_id"], unchecked=True))


@pytest.mark.usefixtures("process")
async def test_slash_options_may_have_several_lines(discord: LoopbackDiscord) -> None:
    assert bold("two\nlines") in displays(await ask(discord, prompt="two\nlines"))[0]
    sentence = await refused(await discord.slash("weights matrix", {"name": "wte\nwpe", "rows": "0:\n5"}))
    assert "wte\nwpe" in sentence


class TestMessageMenu:
    MENU = "Continue with GPT-2"

    @pytest.mark.usefixtures("process")
    async def test_anybodys_message_is_continued_as_written(self, discord: LoopbackDiscord) -> None:
        text = "*Once* upon @everyone <#123> https://example.com\n> a time"
        asked = await discord.message_command(self.MENU, discord.post(text, author=discord.user("bob")))
        message = await done(asked)
        assert all(bold(text) in shown for shown in displays(message)[:-1])
        assert not message.pings

    @pytest.mark.usefixtures("process")
    async def test_it_is_read_as_people_see_it(self, discord: LoopbackDiscord) -> None:
        bob, carol = discord.user("bob"), User(210_000_000_000_000_001, "carol")
        alice = discord.user("alice")
        mentions = [bob.payload(), carol.payload() | {"global_name": None}]
        place = discord.channel
        text = (
            f"Hey <@{bob.id}> <@!{carol.id}> <@{alice.id}> <@{place.id}> <:pepe:{place.id}> <a:dance:{place.id}> "
            f"<#{place.id}> <#{bob.id}> <@&{discord.guild.id}> <@&{bob.id}> </weights list:{bob.id}> "
            f"<https://x.org/a_b> <t:1700000000:F> <t:1700000000> <t:9999999999999:R> `<@{bob.id}>` <3 <a b>"
        )
        seen = (
            "Hey @Bob @carol @Alice @unknown-user :pepe: :dance: #general #unknown @everyone @unknown-role "
            "/weights list https://x.org/a_b Tuesday, 14 November 2023 22:13 14 November 2023 22:13 "
            f"<t:9999999999999:R> `<@{bob.id}>` <3 <a b>"
        )
        forwarded = {
            "type": 0,
            "content": text,
            "embeds": [],
            "attachments": [],
            "timestamp": "2026-01-01T00:00:00+00:00",
            "edited_timestamp": None,
            "flags": 0,
            "mentions": mentions,
            "mention_roles": [],
        }
        webhook = {"webhook_id": "210000000000000002", "application_id": "210000000000000003", "mentions": mentions}
        for written in (
            discord.post(text, mentions=mentions),
            discord.post("", message_snapshots=[{"message": forwarded}], flags=1 << 14),
            discord.post(text, author=User(210_000_000_000_000_002, "Luna of Bob", bot=True), **webhook),
        ):
            message = await done(await discord.message_command(self.MENU, written))
            assert bold(seen) in displays(message)[0]
            assert not message.pings

    @pytest.mark.usefixtures("process")
    async def test_the_question_of_a_poll_is_text(self, discord: LoopbackDiscord) -> None:
        poll = {"question": {"text": "Tea or coffee?"}, "answers": [], "expiry": "2027-01-01T00:00:00+00:00"}
        message = await done(await discord.message_command(self.MENU, discord.post("", poll=poll)))
        assert bold("Tea or coffee?") in message.text

    @pytest.mark.usefixtures("process")
    async def test_what_has_no_text_is_refused(self, discord: LoopbackDiscord) -> None:
        picture = discord.post("", files={"cat.png": b"\x89PNG"})
        for message in (picture, discord.post("\u200b"), discord.post(" ")):
            sentence = await refused(await discord.message_command(self.MENU, message))
            assert sentence == "That message has no text to continue. Choose another one."

    @pytest.mark.usefixtures("process")
    async def test_a_bots_message_is_refused(self, discord: LoopbackDiscord) -> None:
        other = discord.post("I am a bot", author=discord.bot)
        for message in (other, await ask(discord)):
            sentence = await refused(await discord.message_command(self.MENU, message))
            assert sentence == "That was written by a bot. Choose a person's message; my own have Continue buttons."


class TestSize:
    @pytest.mark.usefixtures("process")
    async def test_the_largest_answer_fits(self, discord: LoopbackDiscord) -> None:
        prompt = ("*All* the `world's` a stage, " * 300)[:5999] + "!"
        message = await ask(discord, prompt=prompt, samples=10, length=200, top_k=0)
        assert len([1 for _ in rules.walk(message.components)]) <= COMPONENTS
        assert sum(map(length, displays(message))) <= LAYOUT_CHARACTERS
        texts = split_transcript(message.attachments[0].content.decode())
        assert len(texts) == 10
        assert all(text.startswith(prompt) and len(text) > len(prompt) for text in texts)
        # Continue works from the whole text, and a form has no room for so long a prompt.
        longer = await done(await discord.component(message, continue_button(message, 7)))
        again = split_transcript(longer.attachments[0].content.decode())
        assert all(text.startswith(texts[6]) for text in again)
        form = await edit_form(discord, message)
        assert "value" not in form.modal["components"][0]["component"]
        edited = await done(await discord.modal(form, {"Samples": "1", "Length in tokens": "2"}))
        (kept,) = split_transcript(edited.attachments[0].content.decode())
        assert kept.startswith(prompt)

    @pytest.mark.usefixtures("process")
    async def test_inexactly_shown_answers_have_a_file(self, discord: LoopbackDiscord) -> None:
        message = await ask(discord, prompt="bell\x07 and page\x0c")
        texts = split_transcript(message.attachments[0].content.decode())
        assert all(text.startswith("bell\x07 and page\x0c") for text in texts)
        rerolled = await done(await discord.component(message, label="Re-roll"))
        texts = split_transcript(rerolled.attachments[0].content.decode())
        assert all(text.startswith("bell\x07 and page\x0c") for text in texts)


@pytest_asyncio.fixture(loop_scope="module")
async def own_discord() -> AsyncIterator[LoopbackDiscord]:
    """Run a Discord for tests that start processes of their own."""
    async with LoopbackDiscord() as server:
        yield server
    assert server.violations == []


class TestRestart:
    @pytest.mark.slow
    async def test_every_button_and_form_works_after_a_kill(
        self, own_discord: LoopbackDiscord, loaded: LocalEngine
    ) -> None:
        prompt = "*Two* lines:"
        async with BotProcess(own_discord, env=settings(loaded.model_name)) as bot:
            await bot.ready()
            message = await ask(own_discord, prompt=prompt)
            edit = await own_discord.component(message, label="Edit")
            await edit.acknowledged()
            form = await own_discord.slash("continue", {"samples": 1, "length": 3, "seed": 5})
            await form.acknowledged()
            await bot.kill()
        async with BotProcess(own_discord, env=settings(loaded.model_name)) as bot:
            await bot.loaded()
            sample = (await loaded.continuation(ContinuationRequest(prompt, SamplingParams(42, 2, 6)))).samples[1].text
            continued = await done(await own_discord.component(message, continue_button(message, 2)))
            further = await loaded.continuation(
                ContinuationRequest(prompt + sample, SamplingParams(seed_of(continued), 2, 6))
            )
            for text in (each.text for each in further.samples):
                assert any(literal(text) in shown for shown in displays(continued))
            rerolled = await done(await own_discord.component(message, label="Re-roll"))
            assert all(bold(prompt) in shown for shown in displays(rerolled)[:-1])
            edited = await done(await own_discord.modal(edit, {"Samples": "1"}))
            assert "samples 1" in edited.text
            prompted = await done(await own_discord.modal(form, {"Prompt": "late"}))
            assert "seed 5 · samples 1 · length 3" in prompted.text
            await (await own_discord.component(message, label="Delete")).until(lambda _: message.deleted)

    @pytest.mark.slow
    async def test_stop_after_a_kill_says_that_nothing_runs(
        self, own_discord: LoopbackDiscord, roomy_model: Path
    ) -> None:
        async with BotProcess(own_discord, env=settings(roomy_model), entry=LEISURELY) as bot:
            await bot.loaded()
            asked = await own_discord.slash("continue", {"prompt": PROMPT, "samples": 10, "length": 200})
            await asked.until(lambda each: each.original and each.original.buttons, what="a Stop button")
            await bot.kill()
        async with BotProcess(own_discord, env=settings(roomy_model)) as bot:
            await bot.ready()
            assert asked.original is not None
            pressed = await own_discord.component(asked.original, label="Stop")
            assert await refused(pressed) == "This is no longer running."
