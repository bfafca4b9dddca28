"""The bot in other languages: complete, within Discord's limits, and spoken to who reads them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import discord
import polib
import pytest
import structlog

from bot.text import say
from bot.ui.information import invitation
from bot.ui.locales import DESCRIPTION_CONTEXT, NAME_CONTEXT, Catalogue
from tests.cogs.conftest import Server, server, texts  # noqa: F401 # a fixture
from tests.loopback import openapi, rules
from tools import translations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bot.client import GPT2Client

LANGUAGES = ("de", "es-ES", "fr", "ja", "pt-BR")
SENTENCE = "Only the owner of this bot can do that."
EMPTY = "The prompt is empty: write at least one word."
GERMAN_EMPTY = "Der Prompt ist leer: Schreib mindestens ein Wort."


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.shipped()


@pytest.fixture(scope="module")
def tree() -> list[dict[str, Any]]:
    return asyncio.run(translations.command_tree())


@pytest.fixture(scope="module")
def sent(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Return the commands as the bot sends them to Discord, in all languages."""
    return asyncio.run(translations.command_tree(catalogue))


@pytest.fixture
def reader_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give SimCord's users, who read English, another language."""
    read = discord.Interaction._from_data

    def choose(locale: str) -> None:
        monkeypatch.setattr(
            discord.Interaction, "_from_data", lambda self, data: read(self, {**data, "locale": locale})
        )

    return choose


class TestCatalogues:
    def test_there_are_five_languages(self, catalogue: Catalogue) -> None:
        assert set(LANGUAGES) <= catalogue.locales

    def test_every_text_is_translated_within_discords_limits(self, tree: list[dict[str, Any]]) -> None:
        """If this fails: `make translations`, and translate what it lists."""
        messages = [*translations.named(tree), *translations.spoken()]
        files = {locale: translations.FOLDER / f"{locale}.po" for locale in LANGUAGES}
        faults = {
            locale: translations.faults(locale, polib.pofile(str(file), encoding="utf-8"), messages, tree)
            for locale, file in files.items()
        }
        assert not any(faults.values()), faults

    @pytest.mark.parametrize("locale", LANGUAGES)
    def test_every_language_is_told_apart_from_english(self, locale: str, catalogue: Catalogue) -> None:
        assert catalogue.say(say(SENTENCE), locale) != SENTENCE
        assert catalogue.look_up(DESCRIPTION_CONTEXT, "Look at what GPT-2 has learned", locale)

    def test_latin_american_spanish_falls_back_to_spains(self, catalogue: Catalogue) -> None:
        assert catalogue.say(say(SENTENCE), "es-419") == catalogue.say(say(SENTENCE), "es-ES") != SENTENCE
        assert catalogue.look_up(NAME_CONTEXT, "weights", discord.Locale.latin_american_spanish) == "pesos"

    @pytest.mark.parametrize("locale", ["en-US", "en-GB", "fi", "", "xx"])
    def test_every_other_language_is_english(self, locale: str, catalogue: Catalogue) -> None:
        assert catalogue.say(say(SENTENCE), locale) == SENTENCE
        assert catalogue.look_up(NAME_CONTEXT, "weights", locale) is None
        assert catalogue.command_name("weights list", locale) == "weights list"

    def test_a_text_without_a_translation_is_english(self, catalogue: Catalogue) -> None:
        assert catalogue.say(say("Nobody translated {this}.", this=1), "de") == "Nobody translated 1."
        assert catalogue.look_up(DESCRIPTION_CONTEXT, "Nobody translated this.", "de") is None
        assert catalogue.translate_to("de")("") == ""

    def test_an_unchanged_name_is_not_sent(self, catalogue: Catalogue) -> None:
        assert catalogue.look_up(NAME_CONTEXT, "top_k", "ja") is None

    def test_a_command_is_called_as_discord_shows_it(self, catalogue: Catalogue) -> None:
        assert catalogue.command_name("weights list", "de") == "gewichte liste"


class TestDamage:
    """A damaged file costs its language, or the one text; it never stops the bot."""

    SOUND = f'msgid "{SENTENCE}"\nmsgstr "Vide."\n'

    @pytest.mark.parametrize(
        "damaged",
        [
            b"\xff\xfe\x00 not UTF-8",
            b"<<<<<<< HEAD\n=======\n",
            b'msgid "a"\n\nmsgstr "b"\nmsgstr\n',
            f'msgid "{SENTENCE}"\nmsgstr "Le"er."\n'.encode(),
        ],
    )
    def test_an_unreadable_file_affects_only_its_language(self, damaged: bytes, tmp_path: Path) -> None:
        (tmp_path / "de.po").write_bytes(damaged)
        (tmp_path / "fr.po").write_text(self.SOUND, encoding="utf-8")
        (tmp_path / "notes.txt").write_text("no catalogue", encoding="utf-8")
        with structlog.testing.capture_logs() as logged:
            read = Catalogue.read(tmp_path)
        assert [(entry["log_level"], entry["file"]) for entry in logged] == [("warning", "de.po")]
        assert read.say(say(SENTENCE), "de") == SENTENCE
        assert read.say(say(SENTENCE), "fr") == "Vide."

    @pytest.mark.parametrize(
        "translation", ["{count} von", "{0} {limit}", "{count", "{count!r} {limit}", "{count:d} {limit}", "{count} {x}"]
    )
    def test_translations_without_their_placeholders_are_ignored(self, translation: str, tmp_path: Path) -> None:
        english = "{count} of {limit}"
        entries = f'{self.SOUND}\nmsgid "{english}"\nmsgstr "{translation}"\n'
        (tmp_path / "de.po").write_text(entries, encoding="utf-8")
        with structlog.testing.capture_logs() as logged:
            read = Catalogue.read(tmp_path)
        assert [entry["texts"] for entry in logged] == [[english]]
        assert read.say(say("{count} of {limit}", count=1, limit=2), "de") == "1 of 2"
        assert read.say(say(SENTENCE), "de") == "Vide."

    def test_an_empty_file_is_english(self, tmp_path: Path) -> None:
        (tmp_path / "de.po").touch()
        assert Catalogue.read(tmp_path).say(say(SENTENCE), "de") == SENTENCE

    def test_an_unfinished_translation_is_english(self, tmp_path: Path) -> None:
        (tmp_path / "de.po").write_text(f"#, fuzzy\n{self.SOUND}", encoding="utf-8")
        assert Catalogue.read(tmp_path).say(say(SENTENCE), "de") == SENTENCE

    def test_without_any_file_all_is_english(self, tmp_path: Path) -> None:
        assert Catalogue.read(tmp_path / "nowhere").locales == frozenset()


class TestCommandsAsSentToDiscord:
    def test_discord_takes_them(self, sent: list[dict[str, Any]]) -> None:
        assert rules.command_complaints(sent) == []
        description = openapi.load()
        if description is None:
            pytest.skip("Discord's description is not beside the checkout")
        for command in sent:
            assert description.schema_complaints("ApplicationCommandUpdateRequest", command) == []

    def test_every_command_is_translated_in_every_language(self, sent: list[dict[str, Any]]) -> None:
        for command in sent:
            key = (
                "description_localizations" if command["type"] == 1 else "name_localizations"
            )  # menus have a name alone
            assert {*LANGUAGES, "es-419"} <= command[key].keys(), command["name"]
        weights = next(command for command in sent if command["name"] == "weights")
        assert weights["name_localizations"] == {
            "de": "gewichte",
            "es-419": "pesos",
            "es-ES": "pesos",
            "fr": "poids",
            "ja": "重み",
            "pt-BR": "pesos",
        }

    def test_options_and_choices_are_named_too(self, sent: list[dict[str, Any]]) -> None:
        weights = next(command for command in sent if command["name"] == "weights")
        positional = next(command for command in weights["options"] if command["name"] == "positional")
        view = next(option for option in positional["options"] if option["name"] == "view")
        assert view["name_localizations"]["de"] == "ansicht"
        assert [choice["name_localizations"]["ja"] for choice in view["choices"]] == [
            "ヒートマップ",
            "折れ線",
            "類似度",
            "らせん",
        ]
        assert [choice["value"] for choice in view["choices"]] == ["heatmap", "lines", "similarity", "helix"], (
            "what arrives stays the same"
        )


class TestInDiscord:
    async def test_refusals_are_german_and_logs_english(
        self,
        server: Server,  # noqa: F811
        reader_of: Callable[[str], None],
    ) -> None:
        reader_of("de")
        assert await server.refusal("continue", prompt="\u200b") == GERMAN_EMPTY
        (error,) = server.env.errors
        assert str(getattr(error, "original", error)) == EMPTY

    async def test_refusals_name_options_as_discord_shows_them(
        self,
        server: Server,  # noqa: F811
        reader_of: Callable[[str], None],
    ) -> None:
        reader_of("fr")
        refusal = await server.refusal("weights matrix", name="wpe", rows="5:2")
        assert refusal.startswith("lignes «\u00a05:2\u00a0» est vide\u00a0:")

    async def test_captions_and_alt_texts_are_in_german(
        self,
        server: Server,  # noqa: F811
        reader_of: Callable[[str], None],
    ) -> None:
        reader_of("de")
        result = await server.slash("weights attention", layer=2)
        (caption,) = texts(result.response)
        assert "Schicht 2 (h.1 im Code): Die Zeilen sind die Eingabe der Schicht" in caption
        (attachment,) = result.response.attachments
        assert attachment.description.startswith("Attention-Gewichte von Schicht 2")

    async def test_pictures_are_the_same_in_every_language(
        self,
        server: Server,  # noqa: F811
        reader_of: Callable[[str], None],
    ) -> None:
        pictures = []
        for locale in ("en-US", "ja"):
            reader_of(locale)
            result = await server.slash("weights positional")
            pictures.append(await result.response.attachments[0].read())
        assert pictures[0] == pictures[1]

    async def test_footers_name_options_as_discord_shows_them(
        self,
        server: Server,  # noqa: F811
        reader_of: Callable[[str], None],
    ) -> None:
        reader_of("de")
        shown = texts((await server.slash("continue", prompt="Hello", seed=7, length=3)).response)
        assert "seed 7 · samples 5 · länge 3 · temperatur 1 · top_k 50 · top_p 1 · 15 Token in" in shown[-1]

    async def test_the_table_of_parameters_is_in_german(
        self,
        server: Server,  # noqa: F811
        reader_of: Callable[[str], None],
    ) -> None:
        reader_of("de")
        table = "\n".join(texts((await server.slash("weights list", filter="c_attn")).response))
        assert "transformer.h.*.attn.c_attn.weight" in table
        assert "das State-Dict" in table
        assert "attached file" not in table

    async def test_help_is_in_japanese(
        self,
        server: Server,  # noqa: F811
        reader_of: Callable[[str], None],
    ) -> None:
        reader_of("ja")
        first, commands = texts((await server.slash("help")).response)
        assert first.startswith("GPT-2、2019年の言語モデルです。")
        assert "シード" in first
        assert "GPT-2で文章の続きを書きます。一度に何通りも。" in commands
        assert "Continue a text" not in commands

    @pytest.mark.parametrize("locale", [*LANGUAGES, "es-419"])
    async def test_everything_else_arrives_too(
        self,
        locale: str,
        server: Server,  # noqa: F811
        reader_of: Callable[[str], None],
        simcord_bot: GPT2Client,
    ) -> None:
        reader_of(locale)
        form = (await server.slash("continue")).modal
        title = simcord_bot.catalogue.say(say("Continue a text with GPT-2"), locale)
        assert form["title"] == title != "Continue a text with GPT-2"
        about = await server.slash("about")
        (button,) = about.response.components[1]["components"]
        assert button["label"] != "Add me"
        assert button["url"] == invitation(simcord_bot.application_id)
        greedy = await server.slash("continue", prompt="Hello", temperature=0.0, length=2)
        assert "every sample" not in texts(greedy.response)[-1]
        lines = await server.slash("weights positional", view="lines", style="article")
        assert "learned" not in "\n".join(texts(lines.response))
        vector = await server.slash("weights matrix", name="ln_f.bias")
        assert "standard deviation" not in "\n".join(texts(vector.response))
        assert server.env.errors == []
