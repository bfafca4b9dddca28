"""Translations of replies and of the commands themselves, from gettext's .po files.

Each language is one file, `bot/locale/<Discord's locale>.po`, which `make translations` keeps in step with the code.
Texts without a translation stay English. So do logs, and the words inside pictures, which are drawn once for all
readers. Names and descriptions of commands are in the same files under a message context of their own.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING, Final

import discord
import polib
import structlog
from discord import app_commands

from bot.text import placeholders

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

    from bot.text import Text, Translate

NAME_CONTEXT: Final = "command name"
DESCRIPTION_CONTEXT: Final = "command description"

# Latin American Spanish uses the nearest catalogue.
_FALLBACKS: Final = {"es-419": "es-ES"}

log = structlog.get_logger(__name__)


class Catalogue:
    """The translations into every language.

    Args:
        languages: By Discord's locale, the translations by context (None for replies) and English text.
    """

    def __init__(self, languages: Mapping[str, Mapping[tuple[str | None, str], str]]) -> None:
        self._languages = languages

    @classmethod
    @functools.cache
    def shipped(cls) -> Catalogue:
        """Read the catalogue that ships with the bot, once."""
        return cls.read(resources.files("bot") / "locale")

    @classmethod
    def read(cls, folder: Traversable) -> Catalogue:
        """Read the .po files in a folder. Damaged entries are logged and stay English."""
        files = [file for file in folder.iterdir() if file.name.endswith(".po")] if folder.is_dir() else []
        return cls({file.name.removesuffix(".po"): _translations(file) for file in files})

    @property
    def locales(self) -> frozenset[str]:
        """Discord's locales that have translations; English needs none."""
        return frozenset(self._languages)

    def translate_to(self, locale: discord.Locale | str) -> Translate:
        """Return a function that translates English templates into the language of `locale`."""
        language = self._language(locale)
        return lambda template: language.get((None, template), template)

    def say(self, text: Text, locale: discord.Locale | str) -> str:
        """Return a text in the language of `locale`."""
        return text.in_language(self.translate_to(locale))

    def look_up(self, context: str, message: str, locale: discord.Locale | str) -> str | None:
        """Return the translation of a command's name or description, or None if it does not differ from the English."""
        found = self._language(locale).get((context, message))
        return found if found != message else None

    def command_name(self, name: str, locale: discord.Locale | str) -> str:
        """Return a command's qualified name, such as "weights list", in the language of `locale`."""
        return " ".join(self.look_up(NAME_CONTEXT, word, locale) or word for word in name.split(" "))

    def _language(self, locale: discord.Locale | str) -> Mapping[tuple[str | None, str], str]:
        name = str(locale)
        return self._languages.get(name) or self._languages.get(_FALLBACKS.get(name, "")) or {}


class CommandTranslator(app_commands.Translator):
    """A translator of the names and descriptions of commands, options and choices."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,
    ) -> str | None:
        """Return a translation for discord.py, or None to keep the English."""
        place = app_commands.TranslationContextLocation
        described = context.location in {
            place.command_description,
            place.group_description,
            place.parameter_description,
        }
        return self._catalogue.look_up(DESCRIPTION_CONTEXT if described else NAME_CONTEXT, string.message, locale)


def _translations(file: Traversable) -> dict[tuple[str | None, str], str]:
    """Return the translations in a file by context and English text; none if the file is unreadable."""
    try:
        entries = polib.pofile(file.read_text(encoding="utf-8"), encoding="utf-8").translated_entries()
    except (OSError, ValueError) as error:  # polib raises OSError for syntax errors
        log.warning("ignoring an unreadable language file", file=file.name, error=str(error))
        return {}
    usable = [entry for entry in entries if entry.msgctxt or _fits(entry.msgid, entry.msgstr)]
    if len(usable) < len(entries):
        damaged = [entry.msgid for entry in entries if entry not in usable]
        log.warning("ignoring translations without the placeholders of their text", file=file.name, texts=damaged)
    return {(entry.msgctxt, entry.msgid): entry.msgstr for entry in usable}


def _fits(template: str, translation: str) -> bool:
    """Return whether a translation has the placeholders of its template."""
    try:
        return placeholders(translation) == placeholders(template)
    except ValueError:
        return False
