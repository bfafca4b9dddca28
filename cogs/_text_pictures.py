"""The pictures of one text: each leads to its neighbours, and to the others of the same text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from bot import exhibits, figures, programs
from bot.gpt2.model_info import parse_heads
from bot.gpt2.questions import (
    AblationQuestion,
    AttentionQuestion,
    HeadQuestion,
    LensQuestion,
    NextTokensQuestion,
    SurpriseQuestion,
    TokensQuestion,
)
from bot.gpt2.requests import SamplingParams
from bot.text import Text, say
from bot.ui import looking
from bot.ui.buttons import Action
from bot.ui.code import model_checksum
from bot.ui.moves import Option
from bot.ui.parameters import model_notes
from bot.ui.prompts import Prompts
from bot.ui.written import WrittenText
from cogs._pictures import TextPicture

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from bot.exhibits import Exhibit
    from bot.figures import Notable, Sink
    from bot.gpt2.model_info import ModelInfo
    from bot.text import Translate
    from bot.ui.moves import Controls
    from cogs._pictures import Drawn

LENS_COLUMNS = 10


@dataclass(frozen=True, slots=True)
class Split(TextPicture):
    """The tokens of a text."""

    NAME: ClassVar[str] = "split"

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.token_split(TokensQuestion(prompts[0]), model)

    def add_controls(self, controls: Controls, drawn: Drawn) -> None:  # noqa: ARG002
        """See `TextPicture.add_controls`."""
        add_views(controls, self)


@dataclass(frozen=True, slots=True)
class Grid(TextPicture):
    """The attention maps of all heads."""

    NAME: ClassVar[str] = "grid"

    sink: str = "raw"

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.attention_grid(AttentionQuestion(prompts[0]), cast("Sink", self.sink), model)

    def add_controls(self, controls: Controls, drawn: Drawn) -> None:
        """See `TextPicture.add_controls`."""
        shape = (drawn.model.layers, drawn.model.heads)
        notable = figures.strongest_heads(drawn.answer.scores, shape)
        controls.menu(
            say("Open a notable head"),
            [Option(_name(each), Head(self.model, each.layer + 1, each.head + 1, self.sink)) for each in notable],
        )
        _add_layers(controls, drawn, lambda layer: Head(self.model, layer, 1, self.sink))
        add_views(controls, self)
        controls.button(*_toggled(self.sink, lambda sink: replace(self, sink=sink)))


@dataclass(frozen=True, slots=True)
class Head(TextPicture):
    """The attention map of one head."""

    NAME: ClassVar[str] = "head"

    layer: int = 1
    head: int = 1
    sink: str = "raw"

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.attention_head(HeadQuestion(prompts[0], self.layer, self.head), cast("Sink", self.sink), model)

    def add_controls(self, controls: Controls, drawn: Drawn) -> None:
        """See `TextPicture.add_controls`."""
        _add_layers(controls, drawn, lambda layer: replace(self, layer=layer), self.layer)
        controls.numbers(
            say("Head"),
            drawn.model.heads,
            self.head,
            lambda head: say("Head {head}", head=head),
            lambda head: replace(self, head=head),
        )
        add_views(controls, self)
        controls.button(*_toggled(self.sink, lambda sink: replace(self, sink=sink)))
        controls.button(say("All heads"), Grid(self.model, self.sink), "🔲")
        controls.action(say("Silence this head"), Silence(self.model, self.layer, self.head), "🔇")


@dataclass(frozen=True, slots=True)
class Silence(Action):
    """Show what changes without the head of the picture above the button."""

    NAME: ClassVar[str] = "silence"

    model: int
    layer: int
    head: int


@dataclass(frozen=True, slots=True)
class Ablation(TextPicture):
    """The model without some heads.

    Attributes:
        heads: As `parse_heads` reads them.
    """

    NAME: ClassVar[str] = "ablate"

    heads: str = "1.1"

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.ablation(AblationQuestion(prompts[0], parse_heads(self.heads)), model)

    def add_controls(self, controls: Controls, drawn: Drawn) -> None:  # noqa: ARG002
        """See `TextPicture.add_controls`."""
        add_views(controls, self)


@dataclass(frozen=True, slots=True)
class Surprise(TextPicture):
    """The surprise of each token.

    A long text is shown in windows: the last one, or one that begins with a token or ends before one.
    """

    NAME: ClassVar[str] = "surprise"
    VERSION: ClassVar[int] = 2
    EARLIER: ClassVar[Mapping[str, int]] = {"1": 1}

    first: int | None = None
    until: int | None = None

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.surprise(SurpriseQuestion(prompts[0]), model, first=self.first, until=self.until)

    def add_controls(self, controls: Controls, drawn: Drawn) -> None:
        """See `TextPicture.add_controls`."""
        shown, tokens = cast("range", drawn.picture.shown), len(drawn.answer.tokens)
        earlier = Surprise(self.model, until=shown.start) if shown.start else None
        later = Surprise(self.model, first=shown.stop) if shown.stop < tokens else None
        add_views(controls, self)
        _add_window(controls, earlier, later)


@dataclass(frozen=True, slots=True)
class Lens(TextPicture):
    """The next-token predictions of every layer, at the last positions of a text or at those before `until`."""

    NAME: ClassVar[str] = "lens"
    VERSION: ClassVar[int] = 2
    EARLIER: ClassVar[Mapping[str, int]] = {"1": 1}

    until: int | None = None

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.lens(LensQuestion(prompts[0], LENS_COLUMNS, self.until), model)

    def add_controls(self, controls: Controls, drawn: Drawn) -> None:
        """See `TextPicture.add_controls`."""
        shown, tokens = drawn.answer.positions, len(drawn.answer.tokens)
        earlier = Lens(self.model, max(shown.start, LENS_COLUMNS)) if shown.start else None
        later = Lens(self.model, min(shown.stop + LENS_COLUMNS, tokens)) if shown.stop < tokens else None
        add_views(controls, self)
        _add_window(controls, earlier, later)


@dataclass(frozen=True, slots=True)
class Next(TextPicture):
    """The next-token probabilities, after a prompt and the tokens that were written after it.

    Those tokens stand at the end of the message's text; see `WrittenText` for `lengths` and `tail`.
    """

    NAME: ClassVar[str] = "next"
    VERSION: ClassVar[int] = 2
    EARLIER: ClassVar[Mapping[str, int]] = {"1": 4}

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    lengths: str = ""
    tail: str = ""

    def exhibit(self, model: ModelInfo, *prompts: str) -> Exhibit[Any]:
        """See `TextPicture.exhibit`."""
        return exhibits.next_tokens(self.question(WrittenText.read(prompts[0], self.lengths, self.tail)), model)

    def question(self, text: WrittenText) -> NextTokensQuestion:
        """Return the question about a text."""
        return NextTokensQuestion(text.prompt, self.params(), written=text.pieces)

    async def program(
        self, exhibit: Exhibit[Any], model: ModelInfo, introspect: Callable[[Any], Awaitable[Any]]
    ) -> str:
        """See `TextPicture.program`. Only the engine knows the ids of the written tokens."""
        written = (await introspect(exhibit.source)).written.ids if self.lengths else ()
        return programs.next_tokens(exhibit.source, model, written)

    def params(self, seed: int | None = None) -> SamplingParams:
        """Return the settings."""
        return SamplingParams(seed, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

    def resolved(self, drawn: Drawn) -> Next:
        """See `TextPicture.resolved`."""
        text, model = self._text(drawn), model_checksum(drawn.model)
        return Next(model, self.temperature, self.top_k, self.top_p, text.lengths, text.tail)

    def prompts(self, drawn: Drawn, translate: Translate) -> Prompts:
        """See `TextPicture.prompts`."""
        text = self._text(drawn)
        return Prompts([text.text], translate, text.written)

    def add_controls(self, controls: Controls, drawn: Drawn) -> None:
        """See `TextPicture.add_controls`."""
        state = (self.model, self.temperature, self.top_k, self.top_p, self.lengths, self.tail)
        candidates = drawn.answer.candidates
        labelled = zip(candidates.ids, candidates.pieces, drawn.answer.before, strict=True)
        controls.menu(
            say("Write a token"),
            [
                Option(f"{figures.token_label(piece)} · {share:.1%}", ChooseNext(*state, token))
                for token, piece, share in labelled
            ],
        )
        add_views(controls, self)
        controls.button(say("Let GPT-2 draw"), DrawNext(*state), "🎲")
        controls.button(say("Undo"), UndoNext(*state) if self.lengths else None, "↩️")

    def _text(self, drawn: Drawn) -> WrittenText:
        """Return the text that the picture shows, with a token more or less than the message has."""
        before = WrittenText.read(drawn.texts[0], self.lengths, self.tail)
        return WrittenText.of(before.prompt, drawn.answer.written.pieces)


@dataclass(frozen=True, slots=True)
class ChooseNext(Next):
    """Write a token, given by its id."""

    NAME: ClassVar[str] = "choose"
    VERSION: ClassVar[int] = 1
    EARLIER: ClassVar[Mapping[str, int]] = {}

    token: int = 0

    def question(self, text: WrittenText) -> NextTokensQuestion:
        """See `Next.question`."""
        return NextTokensQuestion(text.prompt, self.params(), written=text.pieces, chosen=self.token)


@dataclass(frozen=True, slots=True)
class DrawNext(Next):
    """Write a token that is drawn with the settings, as /continue draws the first token of one sample."""

    NAME: ClassVar[str] = "draw"
    VERSION: ClassVar[int] = 1
    EARLIER: ClassVar[Mapping[str, int]] = {}

    seed: int | None = None  # known when the button is pressed

    def seeded(self, seed: int) -> DrawNext:
        """See `TextPicture.seeded`."""
        return replace(self, seed=seed)

    def question(self, text: WrittenText) -> NextTokensQuestion:
        """See `Next.question`."""
        return NextTokensQuestion(text.prompt, self.params(self.seed), written=text.pieces, draw=True)

    def notes(self, drawn: Drawn) -> Sequence[Text]:
        """See `TextPicture.notes`."""
        drew = say(
            "GPT-2 drew “{token}” ({share}) with seed {seed}.",
            token=figures.token_label(drawn.answer.written.pieces[-1]),
            share=f"{drawn.answer.share:.1%}",
            seed=self.seed,
        )
        return [drew, *model_notes(drawn.model)]


@dataclass(frozen=True, slots=True)
class UndoNext(Next):
    """Take back the last token."""

    NAME: ClassVar[str] = "undo"
    VERSION: ClassVar[int] = 1
    EARLIER: ClassVar[Mapping[str, int]] = {}

    def question(self, text: WrittenText) -> NextTokensQuestion:
        """See `Next.question`."""
        return NextTokensQuestion(text.prompt, self.params(), written=text.pieces[:-1])


VIEWS: Final[Mapping[str, type[TextPicture]]] = {
    "attention": Grid,
    "surprise": Surprise,
    "lens": Lens,
    "tokens": Split,
    "next": Next,
}
"""The pictures of `bot.ui.looking.VIEWS`."""


def add_views(controls: Controls, shown: TextPicture) -> None:
    """Add the menu that leads to the other pictures of the same text."""
    options = [Option(looking.VIEWS[name], view(shown.model), view is type(shown)) for name, view in VIEWS.items()]
    controls.menu(say("See this text another way"), options)


def _add_layers(controls: Controls, drawn: Drawn, target: Any, current: int = 0) -> None:
    controls.numbers(
        say("Open a layer"), drawn.model.layers, current, lambda layer: say("Layer {layer}", layer=layer), target
    )


def _add_window(controls: Controls, earlier: TextPicture | None, later: TextPicture | None) -> None:
    """Add the buttons that move a window, unless it has the whole text."""
    if earlier or later:
        controls.button(say("Earlier"), earlier, "⬅️")
        controls.button(say("Later"), later, "➡️")


def _toggled(sink: str, target: Any) -> tuple[Text, TextPicture, str]:
    """Return the button that removes the attention on the first token or shows it."""
    if sink == "raw":
        return say("Remove first token"), target("removed"), "✂️"
    return say("Show first token"), target("raw"), "👁️"


def _name(notable: Notable) -> Text:
    """Return a head with what it does."""
    head, share = f"{notable.layer + 1}.{notable.head + 1}", f"{notable.score:.0%}"
    match notable.kind.key:
        case "previous":
            return say("{head} · previous token {share}", head=head, share=share)
        case "induction":
            return say("{head} · induction {share}", head=head, share=share)
        case "same":
            return say("{head} · same token {share}", head=head, share=share)
        case _:
            return say("{head} · first token {share}", head=head, share=share)
