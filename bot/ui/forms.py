"""Forms (Discord calls them modals), for what a slash option cannot hold.

A form's custom_id is an `Action` (see `bot.ui.buttons`): one that was opened before a restart can be sent after it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import discord

from bot.errors import InvalidInputError
from bot.gpt2.requests import SamplingParams
from bot.gpt2.validation import well_formed
from bot.text import Text, say
from bot.ui.buttons import Action
from bot.ui.continuation import exact
from bot.ui.limits import FORM_TITLE_CHARACTERS, TEXT_INPUT_CHARACTERS, clip, length
from bot.ui.readback import survives

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot.text import Translate
    from bot.ui.continuation import SubmitEdit

_PROMPT: Final = "prompt"
_SAMPLES: Final = "samples"
_LENGTH: Final = "length"
_SEED: Final = "seed"
_SAMPLING: Final = "sampling"

_SHORT_CHARACTERS: Final = 60
_SAMPLING_CHARACTERS: Final = 100  # three numbers as `exact` writes them, and what they are called
_NUMBER: Final = r"(?P<{}>\d{{1,5}}(?:[.,]\d{{1,20}})?(?:e-\d{{1,3}})?)"
_SAMPLING_FORM: Final = re.compile(
    r"\s*(?:temperature)?\s*[:=]?\s*"
    + _NUMBER.format("temperature")
    + r"[\s,;·]+(?:top_k)?\s*[:=]?\s*(?P<top_k>\d{1,9})[\s,;·]+(?:top_p)?\s*[:=]?\s*"
    + _NUMBER.format("top_p")
    + r"\s*",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class SubmitPrompt(Action):
    """The form that /continue shows if it was given no prompt, sent."""

    NAME: ClassVar[str] = "ask"

    params: SamplingParams = field(default_factory=SamplingParams)
    private: bool = False


@dataclass(frozen=True, slots=True)
class SubmitPromptTo(SubmitPrompt):
    """The same form, sent, where the command chose a model, given by its checksum."""

    NAME: ClassVar[str] = "askmodel"

    model: int = 0


@dataclass(frozen=True, slots=True)
class SubmitAttention(Action):
    """The form that asks for words to show the attention to, sent."""

    NAME: ClassVar[str] = "askattention"


class PromptForm(discord.ui.Modal):
    """Asks for a prompt of several lines; `prompt` stands in it already."""

    def __init__(self, action: Action, title: Text, translate: Translate, prompt: str = "") -> None:
        super().__init__(title=_title(title, translate), custom_id=action.custom_id)
        self.add_item(_prompt_field(translate, prompt))


class EditForm(discord.ui.Modal):
    """Shows a prompt and its settings, to be changed. Discord gives a form room for five fields."""

    def __init__(self, form: SubmitEdit, prompt: str | None, translate: Translate) -> None:
        """Fill the form in. A prompt of None, or one that a field cannot hold, stays unless another is typed."""
        super().__init__(title=_title(say("Change prompt and settings"), translate), custom_id=form.custom_id)
        params = form.params
        sampling = f"temperature {exact(params.temperature)}, top_k {params.top_k}, top_p {exact(params.top_p)}"
        self.add_item(_prompt_field(translate, prompt if prompt is None or _can_be_held(prompt) else None))
        self.add_item(_field(_SAMPLES, say("Samples"), str(params.samples), translate))
        self.add_item(_field(_LENGTH, say("Length in tokens"), str(params.length), translate))
        self.add_item(_field(_SEED, say("Seed"), str(params.seed), translate))
        self.add_item(_field(_SAMPLING, say("Temperature, top_k and top_p"), sampling, translate, _SAMPLING_CHARACTERS))


async def show(interaction: discord.Interaction, form: discord.ui.Modal) -> None:
    """Show a form; it is forgotten at once, for its custom_id says what it is about."""
    await interaction.response.send_modal(form)
    form.stop()  # or discord.py would keep it until it is sent, which may be never


def typed_prompt(interaction: discord.Interaction) -> str:
    """Return the prompt that was typed."""
    return _typed(interaction).get(_PROMPT, "")


def typed_settings(interaction: discord.Interaction) -> SamplingParams:
    """Return the settings that were typed into the form for editing.

    Raises:
        InvalidInputError: Something is not a number, or out of its range.
    """
    values = _typed(interaction)
    # As a Japanese keyboard writes them, digits, points and commas are wider characters than ASCII's.
    sampling = _SAMPLING_FORM.fullmatch(unicodedata.normalize("NFKC", values.get(_SAMPLING, "")))
    if sampling is None:
        raise InvalidInputError(
            say(
                "“{text}” does not say temperature, top_k and top_p: write three numbers, as in {example}.",
                text=clip(values.get(_SAMPLING, ""), _SHORT_CHARACTERS),
                example="temperature 1, top_k 50, top_p 1",
            )
        )
    return SamplingParams(
        _whole(values, _SEED, say("seed")),
        _whole(values, _SAMPLES, say("samples")),
        _whole(values, _LENGTH, say("length")),
        _decimal(sampling["temperature"]),
        int(sampling["top_k"]),
        _decimal(sampling["top_p"]),
    )


def _whole(values: Mapping[str, str], name: str, what: Text) -> int:
    text = values.get(name, "").strip()
    # Ten digits are more than the largest seed has, and far from the size at which int() itself refuses.
    if not (text.isdecimal() and len(text) <= 10):  # noqa: PLR2004
        raise InvalidInputError(
            say("{what} “{text}” is not a whole number.", what=what, text=clip(text, _SHORT_CHARACTERS))
        )
    return int(text)


def _decimal(text: str) -> float:
    return float(text.replace(",", "."))


def _typed(interaction: discord.Interaction) -> dict[str, str]:
    """Return the values of all fields by custom_id."""
    data = cast("dict[str, Any]", interaction.data or {})
    return dict(_values(data.get("components", ())))


def _values(components: Sequence[Any]) -> list[tuple[str, str]]:
    found = []
    for component in components:
        if "component" in component:  # a label
            found += _values([component["component"]])
        elif "components" in component:
            found += _values(component["components"])
        elif "custom_id" in component:
            found.append((component["custom_id"], well_formed(str(component.get("value") or ""))))
    return found


def _can_be_held(prompt: str) -> bool:
    """Return whether a field returns the prompt unchanged; control characters may be lost there."""
    return length(prompt) <= TEXT_INPUT_CHARACTERS and survives(prompt)


def _prompt_field(translate: Translate, prompt: str | None = "") -> discord.ui.Label[Any]:
    description = (
        say("The current prompt is too long to show here. Leave this empty to keep it.")
        if prompt is None
        else say("The beginning of a text, as many lines as you like")
    )
    return discord.ui.Label(
        text=say("Prompt").in_language(translate),
        description=description.in_language(translate),
        component=discord.ui.TextInput(
            custom_id=_PROMPT,
            style=discord.TextStyle.paragraph,
            default=prompt,
            required=prompt is not None,
            max_length=TEXT_INPUT_CHARACTERS,
        ),
    )


def _field(
    custom_id: str, name: Text, value: str, translate: Translate, most: int = _SHORT_CHARACTERS
) -> discord.ui.Label[Any]:
    return discord.ui.Label(
        text=name.in_language(translate),
        component=discord.ui.TextInput(custom_id=custom_id, default=value, max_length=most),
    )


def _title(title: Text, translate: Translate) -> str:
    return clip(title.in_language(translate), FORM_TITLE_CHARACTERS)
