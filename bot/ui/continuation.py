"""The message that answers /continue: in the queue, growing, and complete."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import discord

from bot.errors import UnavailableError
from bot.gpt2.requests import Progress, SamplingParams
from bot.text import Text, say
from bot.ui.buttons import Action, PersistentItem, button
from bot.ui.code import model_checksum
from bot.ui.limits import COMPONENTS, ELLIPSIS, LAYOUT_CHARACTERS, clip, length
from bot.ui.literal import bold, literal
from bot.ui.looking import CODE, INSIGHTS, look_inside
from bot.ui.packing import Passage, pack
from bot.ui.readback import attached, body, plain, survives, text_display
from bot.ui.standing import standing
from bot.ui.transcript import join_transcript, split_transcript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.gpt2.model_info import ModelInfo
    from bot.gpt2.requests import Continuation, ContinuationRequest, Sample, Update
    from bot.text import Translate

    _Container = discord.ui.Container["discord.ui.LayoutView"]

ACCENT: Final = discord.Colour(0x5865F2)
TRANSCRIPT_NAME: Final = "continuation.txt"

# Numbers of the text displays that are read back.
PROMPT_DISPLAY: Final = 1000
SAMPLE_DISPLAYS: Final = 1000  # and the sample's own number, from 1

# A longer prompt is shown once, above the samples.
_LONGEST_REPEATED_PROMPT: Final = 120
_MOST_REPEATED_LINES: Final = 2
_LONGEST_SMALL_PRINT: Final = 700
_OTHER_COMPONENTS: Final = 10  # container, small print, a row of five buttons, a row with a menu
_LONGEST_LABEL: Final = 250  # less than the prompt's share where ten long samples and all small print are beside it


@dataclass(frozen=True, slots=True)
class OwnedRequest:
    """A request and the person who owns its answer.

    Attributes:
        request: What the engine computes.
        owner: The asker's user id.
        prompt: The whole text; the request's prompt is the end of it that fits into the context.
        blurred: Whether the answer is hidden until clicked, because the prompt has an offensive sample in it.
    """

    request: ContinuationRequest
    owner: int
    prompt: str
    blurred: bool = False

    @property
    def unseen(self) -> int:
        """Number of characters at the beginning of the text that no longer fit into the context."""
        return len(self.prompt) - len(self.request.prompt)


@dataclass(frozen=True, slots=True)
class ContinuationAction(Action):
    """The state of a continuation's buttons; the text itself is read back from the message.

    Attributes:
        owner: The asker's user id.
        params: The settings of the samples.
        prompt_characters: Length of the prompt in the text that is read back.
        unseen: Number of characters at the beginning that did not fit into the context.
        model: The model's checksum, see `bot.ui.code.model_checksum`.
    """

    owner: int
    params: SamplingParams
    prompt_characters: int
    unseen: int
    model: int


@dataclass(frozen=True, slots=True)
class ContinueSample(ContinuationAction):
    """Continue a sample, which counts from 1."""

    NAME: ClassVar[str] = "continue"
    sample: int


@dataclass(frozen=True, slots=True)
class Reroll(ContinuationAction):
    """Draw again with another seed."""

    NAME: ClassVar[str] = "reroll"


@dataclass(frozen=True, slots=True)
class Edit(ContinuationAction):
    """Show a form with prompt and settings filled in."""

    NAME: ClassVar[str] = "edit"


@dataclass(frozen=True, slots=True)
class SubmitEdit(ContinuationAction):
    """Submit that form."""

    NAME: ClassVar[str] = "edited"


@dataclass(frozen=True, slots=True)
class ShowCode(ContinuationAction):
    """Show the program that reproduces the samples."""

    NAME: ClassVar[str] = "code"


@dataclass(frozen=True, slots=True)
class Insights(ContinuationAction):
    """Show how likely the model found the samples."""

    NAME: ClassVar[str] = "insights"


@dataclass(frozen=True, slots=True)
class Watch(ContinuationAction):
    """Show how a sample, which counts from 1, was written token by token."""

    NAME: ClassVar[str] = "watch"
    sample: int


@dataclass(frozen=True, slots=True)
class Look(ContinuationAction):
    """Look inside a sample, as the menu's value says."""

    NAME: ClassVar[str] = "look"


@dataclass(frozen=True, slots=True)
class Delete(Action):
    """Delete the message."""

    NAME: ClassVar[str] = "delete"
    owner: int


@dataclass(frozen=True, slots=True)
class Stop(Action):
    """Stop a continuation that is being computed.

    Attributes:
        owner: The asker's user id.
        interaction: The id of the interaction that asked.
    """

    NAME: ClassVar[str] = "stop"
    owner: int
    interaction: int


@dataclass(frozen=True, slots=True)
class Written:
    """The texts of a message, read back from it.

    Attributes:
        prompt: The whole prompt.
        samples: The continuations without it.
    """

    prompt: str
    samples: tuple[str, ...]

    def until(self, sample: int) -> str:
        """Return the whole text up to the end of a sample, which counts from 1.

        Raises:
            UnavailableError: There is no such sample.
        """
        if not 1 <= sample <= len(self.samples):
            raise _unreadable()
        return self.prompt + self.samples[sample - 1]


class ProgressLayout(discord.ui.LayoutView):
    """The samples so far, or the place in the queue, with a button that stops the request."""

    def __init__(self, asked: OwnedRequest, update: Update, stop: Stop, translate: Translate) -> None:
        super().__init__(timeout=None)
        small_print = f"-# {standing(asked.request, update).in_language(translate)}"
        texts = update.texts if isinstance(update, Progress) else ()
        passages = _Passages(asked, tuple((text, "") for text in texts), None, translate)
        container = _container(passages, small_print, [])
        container.spoiler = asked.blurred or (isinstance(update, Progress) and update.blurred)
        container.add_item(_row(button(stop, _label(say("Stop"), translate), style=discord.ButtonStyle.danger)))
        self.add_item(container)


class ContinuationLayout(discord.ui.LayoutView):
    """The prompt in bold, the samples plain with a Continue beside each, and the settings that reproduce them."""

    def __init__(
        self,
        asked: OwnedRequest,
        continuation: Continuation,
        model: ModelInfo,
        translate: Translate,
        *,
        late: bool = False,
    ) -> None:
        super().__init__(timeout=None)
        samples = tuple((sample.text, _ending(sample, translate)) for sample in continuation.samples)
        passages = _Passages(asked, samples, model, translate)
        lines = [*_notices(asked, continuation, late=late), footer(continuation, model)]
        small_print = "\n".join(f"-# {clip(line.in_language(translate), _LONGEST_SMALL_PRINT // 2)}" for line in lines)
        whole = _text_length(passages.whole) + length(small_print) <= LAYOUT_CHARACTERS
        self.attached = not (whole and survives(asked.prompt) and all(survives(text) for text, _ in samples))
        label = _label(say("Continue"), translate)
        buttons = [button(_action(ContinueSample, asked, model, number), label) for number in passages.numbers]
        container = _container(passages, small_print, buttons, attached=self.attached)
        container.spoiler = asked.blurred or any(sample.veil == "blurred" for sample in continuation.samples)
        looks = {INSIGHTS: (Insights, say("Insights")), CODE: (ShowCode, say("Show code"))}
        # The largest answers have room for the menu only if these two buttons become its options.
        sections, alone = 3 * len(samples), (passages.prompt is not None) + self.attached
        crowded = sections + alone + _OTHER_COMPONENTS > COMPONENTS
        more = {name: label for name, (_, label) in looks.items() if crowded}
        container.add_item(look_inside(_action(Look, asked, model), len(samples), translate, more))
        container.add_item(
            _row(
                button(
                    _action(Reroll, asked, model),
                    _label(say("Re-roll"), translate),
                    disabled=asked.request.params.greedy,
                ),
                button(_action(Edit, asked, model), _label(say("Edit"), translate)),
                *(
                    button(_action(kind, asked, model), _label(label, translate))
                    for kind, label in looks.values()
                    if not crowded
                ),
                button(Delete(asked.owner), _label(say("Delete"), translate), style=discord.ButtonStyle.danger),
            )
        )
        if len(samples) == 1:
            container.add_item(_row(button(_action(Watch, asked, model, 1), _label(say("Watch"), translate))))
        self.add_item(container)


def _action(kind: type[ContinuationAction], asked: OwnedRequest, model: ModelInfo, *more: int) -> ContinuationAction:
    return kind(asked.owner, asked.request.params, len(asked.prompt), asked.unseen, model_checksum(model), *more)


class _Passages:
    """The texts of the message: the samples, and the prompt if it is too long to repeat before each."""

    def __init__(
        self, asked: OwnedRequest, samples: Sequence[tuple[str, str]], model: ModelInfo | None, translate: Translate
    ) -> None:
        lines = asked.prompt.count("\n") + 1
        short = length(bold(asked.prompt)) <= _LONGEST_REPEATED_PROMPT and lines <= _MOST_REPEATED_LINES
        repeated = bool(samples) and short and not asked.unseen
        self.prompt = None if repeated else Passage(_prompt_label(asked, model, translate), asked.prompt)
        self.samples = [
            Passage(f"-# {number}", asked.prompt if repeated else ELLIPSIS, text, note)
            for number, (text, note) in enumerate(samples, 1)
        ]
        self.numbers = range(1, len(self.samples) + 1)

    @property
    def whole(self) -> list[str]:
        return [passage.whole for passage in self._all]

    def packed(self, budget: int) -> tuple[str | None, list[str]]:
        """Return the markdown of the prompt, if it stands alone, and of the samples."""
        texts = pack(self._all, budget)
        return (texts[0], texts[1:]) if self.prompt else (None, texts)

    @property
    def _all(self) -> list[Passage]:
        return [self.prompt, *self.samples] if self.prompt else self.samples


def _container(
    passages: _Passages, small_print: str, buttons: Sequence[PersistentItem], *, attached: bool = False
) -> _Container:
    """Return all but the last rows."""
    prompt, samples = passages.packed(LAYOUT_CHARACTERS - length(small_print))
    container: _Container = discord.ui.Container(accent_colour=ACCENT)
    if prompt is not None:
        container.add_item(discord.ui.TextDisplay(prompt, id=PROMPT_DISPLAY))
    for number, text in enumerate(samples, 1):
        display: discord.ui.TextDisplay[discord.ui.LayoutView]
        display = discord.ui.TextDisplay(text, id=SAMPLE_DISPLAYS + number)
        container.add_item(discord.ui.Section(display, accessory=buttons[number - 1]) if buttons else display)
    if attached:
        container.add_item(discord.ui.File(f"attachment://{TRANSCRIPT_NAME}"))
    container.add_item(discord.ui.TextDisplay(small_print))
    return container


def _row(*buttons: PersistentItem) -> discord.ui.ActionRow[Any]:
    return discord.ui.ActionRow(*buttons)


async def read_back(message: discord.Message | None, action: ContinuationAction) -> Written:
    """Read the texts of a message back exactly.

    Raises:
        UnavailableError: It cannot be read.
    """
    texts = None if message is None else await _texts(message)
    if not texts or any(len(text) < action.prompt_characters for text in texts):
        raise _unreadable()
    prompt = texts[0][: action.prompt_characters]
    return Written(prompt, tuple(text[action.prompt_characters :] for text in texts))


async def _texts(message: discord.Message) -> list[str]:
    """Return the prompt followed by each sample."""
    file = await attached(message, TRANSCRIPT_NAME)
    if file is not None:
        return split_transcript(file)
    prompt = text_display(message, PROMPT_DISPLAY)
    texts: list[str] = []
    while (content := text_display(message, SAMPLE_DISPLAYS + len(texts) + 1)) is not None:
        texts.append(body(content) if prompt is None else body(prompt) + body(content).removeprefix(ELLIPSIS))
    return texts


def transcript(asked: OwnedRequest, continuation: Continuation, model: ModelInfo, translate: Translate) -> discord.File:
    """Return all texts in full, as a file."""
    text = join_transcript(
        plain(footer(continuation, model).in_language(translate)),  # a file needs no escapes
        [asked.prompt + sample.text for sample in continuation.samples],
    )
    return discord.File(io.BytesIO(text.encode()), filename=TRANSCRIPT_NAME)


def _notices(asked: OwnedRequest, continuation: Continuation, *, late: bool) -> list[Text]:
    """Return why the samples are shorter than asked for."""
    if late:
        return [say("Stopped, because Discord gives me only 15 minutes for an answer.")]
    if continuation.stopped:
        most = asked.request.params.rows * asked.request.params.length
        return [say("Stopped after {done} of {all} tokens.", done=continuation.new_tokens, all=most)]
    return []


def footer(continuation: Continuation, model: ModelInfo) -> Text:
    """Return model, seed and settings, which reproduce the samples, and their cost."""
    request = continuation.request
    rate = continuation.new_tokens / continuation.seconds if continuation.seconds else 0.0
    cost = (
        say("1 token in {seconds:.1f} s ({rate:.0f} tokens/s)", seconds=continuation.seconds, rate=rate)
        if continuation.new_tokens == 1
        else say(
            "{tokens} tokens in {seconds:.1f} s ({rate:.0f} tokens/s)",
            tokens=continuation.new_tokens,
            seconds=continuation.seconds,
            rate=rate,
        )
    )
    if request.params.greedy:
        return say(
            "{model} · temperature 0 (greedy): every sample would be the same, so there is one · "
            "length {length} · {cost}",
            model=_named(model),
            length=request.params.length,
            cost=cost,
        )
    return say(
        "{model} · seed {seed} · samples {samples} · length {length} · temperature {temperature} · top_k {top_k} · "
        "top_p {top_p} · {cost}",
        model=_named(model),
        seed=request.seed,
        samples=request.params.samples,
        length=request.params.length,
        temperature=exact(request.params.temperature),
        top_k=request.params.top_k,
        top_p=exact(request.params.top_p),
        cost=cost,
    )


def exact(value: float) -> str:
    """Return the shortest decimal that is the same number, so that typing it again gives the same samples."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _named(model: ModelInfo) -> Text | str:
    """Return the model's name, with its precision if that changes the words."""
    if model.precision == "float32":
        return literal(model.name)
    return say(
        "{model} in {precision}, so not the exact words of float32",
        model=literal(model.name),
        precision=model.precision,
    )


def _prompt_label(asked: OwnedRequest, model: ModelInfo | None, translate: Translate) -> str:
    """Return the label of the prompt, with the number of characters that no longer fit into the context."""
    if not asked.unseen or model is None:
        return f"-# {say('Prompt').in_language(translate)}"
    text = say(
        "Prompt · the first {count:,} characters are omitted: {model} sees {context:,} tokens at once",
        count=asked.unseen,
        model=literal(model.name),
        context=model.context,
    )
    return f"-# {clip(text.in_language(translate), _LONGEST_LABEL)}"


def _ending(sample: Sample, translate: Translate) -> str:
    """Return the note under a sample that the model ended by itself, or that is hidden."""
    if sample.veil == "hidden":
        hidden = say("My operator's filter found this sample offensive, so it is hidden.")
        return f"-# {hidden.in_language(translate)}"
    return f"-# {say('GPT-2 ended the text here.').in_language(translate)}" if sample.ended else ""


def _label(text: Text, translate: Translate) -> str:
    return text.in_language(translate)


def _text_length(texts: Sequence[str]) -> int:
    return sum(map(length, texts))


def _unreadable() -> UnavailableError:
    return UnavailableError(say("I can't read the text of this message any more. Use /continue with it."))
