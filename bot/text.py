"""Sentences for people, kept apart from the language they will be said in.

A `Text` is an English template with its values. Whoever shows it (see `bot.ui.locales`) looks the template up
in the reader's language first; `str()` of it is the English, which is what logs and tests read. Neither torch
nor Discord nor matplotlib is imported here, so that every layer may speak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from types import MappingProxyType

Translate = Callable[[str], str]
"""Maps an English template to the template in one language, or returns it unchanged."""


@dataclass(frozen=True, slots=True)
class Text:
    """One message to a person.

    Attributes:
        template: English, with `str.format` fields: ``"Layer {layer} does not exist."``. It is also the key
            under which translations are found, so it must be a literal where it is written.
        values: What goes into the fields; a value may itself be a `Text`.
        markup: Whether it is to be formatted, because nothing in it was written by others.
    """

    template: str
    values: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    markup: bool = False

    def in_language(self, translate: Translate) -> str:
        """The message with its template, and those of the texts inside it, put through `translate`."""
        values = {
            name: value.in_language(translate) if isinstance(value, Text) else value
            for name, value in self.values.items()
        }
        return translate(self.template).format(**values)

    def __str__(self) -> str:
        """The message in English."""
        return self.in_language(lambda template: template)


def placeholders(template: str) -> frozenset[str]:
    """The fields of a template as they are written there, format and all: ``{seconds:.1f}``.

    Raises:
        ValueError: It is not a template.
    """
    return frozenset(
        f"{{{name}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}}}"
        for _, name, form, conversion in Formatter().parse(template)
        if name is not None
    )


def say(template: str, /, **values: object) -> Text:
    """Make a `Text`. The template must be a literal: the catalogue of translations is collected from the calls."""
    return Text(template, MappingProxyType(values))
