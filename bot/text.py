"""Translatable texts for users.

A `Text` is an English template with its values. `bot.ui.locales` looks the template up in the reader's language; for
logs and tests, `str()` of a `Text` is the English. This module imports neither torch nor Discord nor matplotlib, so
every layer can use it.
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
    """One message to a user.

    Attributes:
        template: English, with `str.format` fields: ``"Layer {layer} does not exist."``. It is also the key of the
            translations, so it must be a literal.
        values: Values of the fields; a value may itself be a `Text`.
        markup: Whether Discord may format it, because no part of it was written by others.
    """

    template: str
    values: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    markup: bool = False

    def in_language(self, translate: Translate) -> str:
        """Return the message with its template, and those of the texts inside it, put through `translate`."""
        values = {
            name: value.in_language(translate) if isinstance(value, Text) else value
            for name, value in self.values.items()
        }
        return translate(self.template).format(**values)

    def __str__(self) -> str:
        """Return the message in English."""
        return self.in_language(lambda template: template)


def placeholders(template: str) -> frozenset[str]:
    """Return the fields of a template as they are written, formats included: ``{seconds:.1f}``.

    Raises:
        ValueError: The text is not a template.
    """
    return frozenset(
        f"{{{name}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}}}"
        for _, name, form, conversion in Formatter().parse(template)
        if name is not None
    )


def say(template: str, /, **values: object) -> Text:
    """Return a `Text`. The template must be a literal, because the translations are collected from the calls."""
    return Text(template, MappingProxyType(values))
