"""The texts collected for translation, and the faults that the check finds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import polib
import pytest

from bot.ui.locales import DESCRIPTION_CONTEXT, NAME_CONTEXT
from tools import translations
from tools.translations import Message

if TYPE_CHECKING:
    from pathlib import Path

TREE: list[dict[str, Any]] = [
    {
        "type": 1,
        "name": "show",
        "description": "Shows.",
        "options": [
            {
                "type": 1,
                "name": "all",
                "description": "Shows all.",
                "options": [
                    {"type": 4, "name": "rows", "description": "How many"},
                    {"type": 3, "name": "style", "description": "How", "choices": [{"name": "clear", "value": "c"}]},
                ],
            }
        ],
    },
    {"type": 3, "name": "Show this", "options": []},
]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "b.py").write_text("raise Refusal(say('Twice.'))\nsay('{count} rows', count=3)\n", encoding="utf-8")
    (tmp_path / "a.py").write_text(
        "say(\n    'in '\n    'two parts')\nsay('Twice.')\nsay('{outer}', outer=say('inner'))\n"
        "self.say(text)\nButton(label=say('Press').in_language(translate), url=say('long'))\n",
        encoding="utf-8",
    )
    return tmp_path


def entries(**translated: str) -> list[polib.POEntry]:
    return [polib.POEntry(msgid=text, msgstr=translation) for text, translation in translated.items()]


class TestCollecting:
    def test_texts_are_collected_once_in_order(self, code: Path) -> None:
        found = translations.spoken([code])
        assert [each.text for each in found] == [
            "in two parts", "Twice.", "{outer}", "inner", "Press", "long", "{count} rows"
        ]  # fmt: skip
        assert found[1].places == ("a.py", "b.py")

    def test_a_text_for_a_button_has_the_limit_of_buttons(self, code: Path) -> None:
        limits = {each.text: each.limit for each in translations.spoken([code])}
        assert limits["Press"] == 80
        assert limits["long"] == 2000

    def test_a_computed_template_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.py").write_text("\nsay(f'{x}')\n", encoding="utf-8")
        with pytest.raises(translations.NotALiteralError, match=r"a\.py:2: "):
            translations.spoken([tmp_path])

    def test_commands_options_and_choices_are_found(self) -> None:
        found = translations.named(TREE)
        assert [(each.text, each.places) for each in found if each.context == NAME_CONTEXT] == [
            ("show", ("/show",)),
            ("all", ("/show all",)),
            ("rows", ("/show all rows",)),
            ("style", ("/show all style",)),
            ("clear", ("/show all style: clear",)),
            ("Show this", ("Show this",)),
        ]
        assert {each.text for each in found if each.typed} == {"show", "all", "rows", "style"}
        assert [each.text for each in found if each.context == DESCRIPTION_CONTEXT] == [
            "Shows.", "Shows all.", "How many", "How"
        ]  # fmt: skip

    def test_the_bots_own_tree_needs_no_discord(self) -> None:
        names = {command["name"] for command in asyncio.run(translations.command_tree())}
        assert {"continue", "weights", "about", "help"} <= names


class TestUpdate:
    def test_translations_are_kept_and_obsolete_texts_dropped(self) -> None:
        old = [*entries(kept="behalten", gone="weg"), polib.POEntry(msgctxt=NAME_CONTEXT, msgid="kept", msgstr="name")]
        messages = [Message(None, "new", 9, places=("a.py",)), Message(None, "kept", 9), Message(NAME_CONTEXT, "x", 9)]
        file = translations.updated("de", messages, old)
        assert [(entry.msgid, entry.msgstr) for entry in file] == [("new", ""), ("kept", "behalten"), ("x", "")]

    def test_a_second_update_changes_nothing(self) -> None:
        messages = [Message(None, "a\nb “c” \\ " + "long " * 40, 999, places=("a.py", "b-c.py"))]
        once = str(translations.updated("ja", messages, entries(x="y")))
        again = str(translations.updated("ja", messages, polib.pofile(once, encoding="utf-8")))
        assert once == again

    def test_remarks_of_translators_stay(self) -> None:
        old = [polib.POEntry(msgid="a", msgstr="b", tcomment="not sure", flags=["fuzzy"])]
        (entry,) = translations.updated("de", [Message(None, "a", 9)], old)
        assert entry.tcomment == "not sure"
        assert entry.fuzzy


class TestFaults:
    @pytest.mark.parametrize(
        ("message", "translation", "fault"),
        [
            (Message(None, "a", 9), "", "missing: 'a'"),
            (Message(None, "a", 3), "abcd", "4 characters, at most 3"),
            (Message(None, "{a:.1f}", 99), "{a:.2f}", "different fields"),
            (Message(None, "{a}", 99), "{b}", "different fields"),
            (Message(None, "{a}", 99), "{a", "not a template"),
            (Message(NAME_CONTEXT, "a", 32, typed=True), "zwei Wörter", "not a name that Discord accepts"),
            (Message(NAME_CONTEXT, "a", 32, typed=True), "Groß", "not a name that Discord accepts"),
            (Message(NAME_CONTEXT, "a", 32, typed=True), "was?", "not a name that Discord accepts"),
            (Message(None, "rows", 99), "Reihen", "typed as 'zeilen'"),
            (Message(None, "/show all helps", 99), "/show all hilft", "typed as '/zeige alles'"),
        ],
    )
    def test_each_is_named(self, message: Message, translation: str, fault: str) -> None:
        names = {"show": "zeige", "all": "alles", "rows": "zeilen"}
        file = [polib.POEntry(msgctxt=NAME_CONTEXT, msgid=text, msgstr=name) for text, name in names.items()]
        file.append(polib.POEntry(msgctxt=message.context, msgid=message.text, msgstr=translation))
        known = [message, *(Message(NAME_CONTEXT, text, 32) for text in names)]
        (found,) = translations.faults("de", file, known, TREE)
        assert fault in found

    def test_obsolete_unfinished_and_unknown_language(self) -> None:
        assert translations.faults("de", entries(a="b"), [], []) == ["obsolete: 'a'"]
        assert translations.faults("tlh", [], [], []) == ["Discord does not support this language"]
        fuzzy = polib.POEntry(msgid="a", msgstr="b", flags=["fuzzy"])
        assert translations.faults("de", [fuzzy], [Message(None, "a", 9)], []) == ["missing: 'a'"]

    def test_two_options_of_one_command_may_not_share_a_name(self) -> None:
        names = {"rows": "stil", "style": "stil"}
        file = [polib.POEntry(msgctxt=NAME_CONTEXT, msgid=text, msgstr=name) for text, name in names.items()]
        found = translations.faults("de", file, [Message(NAME_CONTEXT, text, 32) for text in names], TREE)
        assert found == ["2 names below /show all are 'stil'"]

    @pytest.mark.parametrize("name", ["à-propos", "続き", "échantillons", "top_k", "ワーク", "l'eau", "ไทย"])
    def test_names_that_discord_accepts(self, name: str) -> None:
        assert translations.is_typable(name)

    @pytest.mark.parametrize("name", ["", "À", "a b", "a.b", "🎭", "x" * 33, "e\u0301"])
    def test_names_that_discord_refuses(self, name: str) -> None:
        assert not translations.is_typable(name)


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def _small(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async def tree() -> list[dict[str, Any]]:
            return TREE

        monkeypatch.setattr(translations, "ROOT", tmp_path)
        monkeypatch.setattr(translations, "FOLDER", tmp_path)
        monkeypatch.setattr(translations, "command_tree", tree)
        monkeypatch.setattr(translations, "spoken", lambda: [Message(None, "Hello", 9)])

    def test_a_language_is_begun_filled_in_and_found_complete(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert translations.main(["it"]) == 1
        assert "it.po: 0 of 11 texts\n  missing: 'show'" in capsys.readouterr().out
        path = tmp_path / "it.po"
        file = polib.pofile(str(path), encoding="utf-8", wrapwidth=0)
        for entry in file:
            entry.msgstr = entry.msgid.lower()
        path.write_text(str(file), encoding="utf-8")
        assert translations.main(["--check"]) == 0
        assert translations.main([]) == 0
        assert path.read_text(encoding="utf-8") == str(file)

    def test_a_check_only_reports(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "it.po"
        path.write_text('msgid "Hello"\nmsgstr "Ciao"\n', encoding="utf-8")
        assert translations.main(["--check"]) == 1
        assert path.read_text(encoding="utf-8") == 'msgid "Hello"\nmsgstr "Ciao"\n'
        assert "missing: 'show'" in capsys.readouterr().out
