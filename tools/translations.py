"""Keep bot/locale/*.po in step with the code: `make translations`; `--check` only reports differences.

Texts come from the literals in `say(…)` calls and from the command tree as the bot sends it to Discord. New texts are
added without a translation, obsolete ones are removed, and the order is that of the code.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import discord
import polib

from bot.client import GPT2Client
from bot.command_sync import command_payload
from bot.gpt2.lazy_engine import Source
from bot.gpt2.models import Models
from bot.text import placeholders
from bot.ui.limits import CHOICE_CHARACTERS, FORM_TITLE_CHARACTERS, MESSAGE_CHARACTERS
from bot.ui.locales import DESCRIPTION_CONTEXT, NAME_CONTEXT, Catalogue
from cogs import COGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "bot" / "locale"
SOURCES: Final = (ROOT / "bot", ROOT / "cogs")

NAME_CHARACTERS: Final = 32
DESCRIPTION_CHARACTERS: Final = 100

# Discord's limits for the texts given to keywords of these callees.
_KEYWORD_LIMITS: Final = {
    ("__init__", "title"): FORM_TITLE_CHARACTERS,
    ("Button", "label"): 80,
    ("Label", "text"): 45,
    ("Label", "description"): 100,
    ("Select", "placeholder"): 150,
    ("SelectOption", "label"): 100,
    ("SelectOption", "description"): 100,
    ("TextInput", "placeholder"): 100,
}

_TOP: Final = frozenset({discord.AppCommandType.chat_input.value})
_NESTED: Final = frozenset(
    {discord.AppCommandOptionType.subcommand.value, discord.AppCommandOptionType.subcommand_group.value}
)

Key = tuple[str | None, str]
Payload = dict[str, Any]  # a command, group, option or choice as sent to Discord


@dataclass(frozen=True, slots=True)
class Message:
    """A text to translate.

    Attributes:
        context: The gettext context: the kind of a command's text, or None for a text of the bot.
        text: The English.
        limit: Maximum characters of a translation.
        typed: Whether people type it as a name, for which Discord has rules.
        places: The files or commands that use it.
    """

    context: str | None
    text: str
    limit: int
    typed: bool = False
    places: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """The identity of the message: gettext's context and id."""
        return self.context, self.text


class NotALiteralError(Exception):
    """A call of `say` whose template is not a literal."""


def spoken(folders: Iterable[Path] = SOURCES) -> list[Message]:
    """Return the texts in `say(…)` calls, in the order of the files and of their lines."""
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return _merged(message for path in files for message in _spoken_in(path))


async def command_tree(catalogue: Catalogue | None = None) -> list[Payload]:
    """Return the commands as the bot sends them to Discord, in English and the languages of a catalogue."""
    nothing: Any = None  # no command runs, so neither engine nor renderer is needed
    # With several models, commands have all of their options.
    several = Models(nothing, "one", [Source("another", lambda: nothing)])
    client = GPT2Client(nothing, nothing, catalogue or Catalogue({}), COGS, models=several, sync_commands=False)
    await client.setup_hook()
    return await command_payload(client.tree)


def named(commands: Iterable[Payload]) -> list[Message]:
    """Return names and descriptions of commands, options and choices, in the order of the tree."""
    return _merged(message for command in commands for message in _named_in(command, ""))


def updated(locale: str, messages: Iterable[Message], old: Iterable[polib.POEntry]) -> polib.POFile:
    """Return the catalogue of a language with exactly these messages and its present translations of them."""
    known: dict[Key, polib.POEntry] = {(entry.msgctxt, entry.msgid): entry for entry in old}
    file = polib.POFile(wrapwidth=0)  # one line a text, for readable diffs
    file.header = "What GPT-2 for Discord says, kept in step with its code by `make translations`."
    file.metadata = {
        "Project-Id-Version": "gpt2-for-discord",
        "Language": locale,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Transfer-Encoding": "8bit",
    }
    for message in messages:
        entry = known.get(message.key)
        file.append(
            polib.POEntry(
                msgctxt=message.context,
                msgid=message.text,
                msgstr=entry.msgstr if entry else "",
                tcomment=entry.tcomment if entry else "",
                flags=entry.flags if entry else [],
                comment=", ".join(message.places) if message.context else "",
                occurrences=[] if message.context else [(place, "") for place in message.places],
            )
        )
    return file


def faults(
    locale: str, entries: Iterable[polib.POEntry], messages: Sequence[Message], tree: Sequence[Payload]
) -> list[str]:
    """Return the faults that keep a language incomplete or that Discord would reject, one line each."""
    translations: dict[Key, str] = {
        (entry.msgctxt, entry.msgid): "" if entry.fuzzy else entry.msgstr for entry in entries if not entry.obsolete
    }
    found = [] if locale in {str(each) for each in discord.Locale} else ["Discord does not support this language"]
    found += [f"missing: {message.text!r}" for message in messages if not translations.get(message.key)]
    found += [f"obsolete: {text!r}" for _, text in translations.keys() - {message.key for message in messages}]
    for message in messages:
        if translation := translations.get(message.key):
            found += [f"{fault}: {message.text!r} → {translation!r}" for fault in _faults_of(message, translation)]
    names = {text: translation for (context, text), translation in translations.items() if context == NAME_CONTEXT}
    replies = {text: translation for (context, text), translation in translations.items() if not context}
    return [*found, *_ambiguous("", tree, names), *_misnamed(tree, names, replies)]


def is_typable(name: str) -> bool:
    """Return whether Discord accepts the name of a command or option: letters, digits, - _ ' and lower case."""
    allowed = all(character in "-_'" or unicodedata.category(character)[0] in "LN" for character in name)
    return allowed and name == name.lower() and 1 <= len(name) <= NAME_CHARACTERS


def main(arguments: Sequence[str] | None = None) -> int:
    """Update the files, or check them; return 1 if a translation is missing or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.translations", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, and report faults")
    parser.add_argument("new", nargs="*", metavar="LOCALE", help="add another of Discord's languages, such as it")
    chosen = parser.parse_args(arguments)
    tree = asyncio.run(command_tree())
    messages = [*named(tree), *spoken()]
    complete = True
    for path in sorted({*FOLDER.glob("*.po"), *(FOLDER / f"{locale}.po" for locale in chosen.new)}):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        entries = list(polib.pofile(before, encoding="utf-8")) if before else []
        file = updated(path.stem, messages, entries)
        after = str(file)
        if not chosen.check:
            path.write_text(after, encoding="utf-8", newline="\n")
        found = faults(path.stem, entries if chosen.check else file, messages, tree)
        if chosen.check and not found and before != after:
            found = ["not in the order of the code: run `make translations`"]
        done = sum(bool(entry.translated()) for entry in file)
        print(f"{path.relative_to(ROOT)}: {done} of {len(messages)} texts", *found, sep="\n  ")
        complete = complete and not found
    return 0 if complete else 1


def _spoken_in(path: Path) -> Iterator[Message]:
    place = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    for argument, limit in _said(ast.parse(path.read_text(encoding="utf-8")), MESSAGE_CHARACTERS):
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            raise NotALiteralError(f"{place}:{argument.lineno}: the template of say() must be a literal")
        yield Message(None, argument.value, limit, places=(place,))


def _said(node: ast.AST, limit: int) -> Iterator[tuple[ast.expr, int]]:
    """Yield the first argument of each ``say(…)`` below a node, with Discord's limit for it there."""
    if not isinstance(node, ast.Call):
        for child in ast.iter_child_nodes(node):
            yield from _said(child, limit)
        return
    callee = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
    if isinstance(node.func, ast.Name) and callee == "say":
        yield node.args[0], limit
    for part in (node.func, *node.args):
        yield from _said(part, limit)
    for keyword in node.keywords:
        yield from _said(keyword.value, _KEYWORD_LIMITS.get((str(callee), str(keyword.arg)), limit))


def _named_in(node: Payload, parents: str) -> Iterator[Message]:
    """Yield the texts of a command or option and of its own options and choices."""
    menu = not parents and node["type"] != discord.AppCommandType.chat_input.value
    place = f"{parents} {node['name']}" if parents else node["name"] if menu else f"/{node['name']}"
    yield Message(NAME_CONTEXT, node["name"], NAME_CHARACTERS, typed=not menu, places=(place,))
    if node.get("description"):
        yield Message(DESCRIPTION_CONTEXT, node["description"], DESCRIPTION_CHARACTERS, places=(place,))
    for choice in node.get("choices", ()):
        yield Message(NAME_CONTEXT, choice["name"], CHOICE_CHARACTERS, places=(f"{place}: {choice['name']}",))
    for option in node.get("options", ()):
        yield from _named_in(option, place)


def _merged(messages: Iterable[Message]) -> list[Message]:
    """Return each text once, at its first place, with all its places and the strictest of its limits."""
    found: dict[Key, Message] = {}
    for message in messages:
        first = found.get(message.key, message)
        found[message.key] = replace(
            first,
            limit=min(first.limit, message.limit),
            typed=first.typed or message.typed,
            places=tuple(dict.fromkeys(first.places + message.places)),
        )
    return list(found.values())


def _faults_of(message: Message, translation: str) -> Iterator[str]:
    if len(translation) > message.limit:
        yield f"{len(translation)} characters, at most {message.limit}"
    if message.typed and not is_typable(translation):
        yield "not a name that Discord accepts"
    if message.context is None:
        try:
            if placeholders(translation) != placeholders(message.text):
                yield "different fields"
        except ValueError:
            yield "not a template"


def _ambiguous(parents: str, siblings: Sequence[Payload], names: Mapping[str, str]) -> Iterator[str]:
    """Yield names that two commands or two options of one command would share."""
    for name, count in Counter(names.get(each["name"]) or each["name"] for each in siblings).items():
        if count > 1:
            yield f"{count} names below /{parents.rstrip()} are {name!r}"
    for each in siblings:
        for kind in ("options", "choices"):
            yield from _ambiguous(f"{parents}{each['name']} ", each.get(kind, []), names)


def _misnamed(tree: Iterable[Payload], names: Mapping[str, str], replies: Mapping[str, str]) -> Iterator[str]:
    """Yield texts that name a command or an option differently from Discord."""
    paths = [(f"/{path}", f"/{_in(names, path)}") for path in _paths(tree)]
    for text, translation in replies.items():
        if translation and names.get(text, translation) != translation:
            yield f"typed as {names[text]!r}: {text!r} → {translation!r}"
        for english, path in paths:
            if translation and english in text and path not in translation:
                yield f"typed as {path!r}: {text!r} → {translation!r}"


def _paths(tree: Iterable[Payload], parents: str = "") -> Iterator[str]:
    """Yield the qualified name of every slash command: "weights list"."""
    kinds = _NESTED if parents else _TOP
    for each in tree:
        below = list(_paths(each.get("options", ()), f"{parents}{each['name']} "))
        if each["type"] in kinds:
            yield from below or [f"{parents}{each['name']}"]


def _in(names: Mapping[str, str], path: str) -> str:
    return " ".join(names.get(word) or word for word in path.split(" "))


if __name__ == "__main__":
    raise SystemExit(main())
