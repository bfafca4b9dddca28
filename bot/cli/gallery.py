"""`python -m bot gallery PROMPT`: every picture of a prompt in a folder, with a page that shows them.

For teachers: the page needs no network, server or script, and has the program behind each picture.
"""

from __future__ import annotations

import contextlib
import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bot import exhibits, programs
from bot.errors import ExitCode, OperatorError, UserError
from bot.figures import Picture, Renderer
from bot.gpt2.local.engine import LocalEngine
from bot.gpt2.model_info import POSITIONAL_EMBEDDING
from bot.gpt2.questions import (
    AblationQuestion,
    AttentionQuestion,
    ComparisonQuestion,
    HeadQuestion,
    InductionQuestion,
    InsightsQuestion,
    LensQuestion,
    NextTokensQuestion,
    SurpriseQuestion,
    TokensQuestion,
)
from bot.gpt2.requests import ContinuationRequest, SamplingParams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from bot.config import Settings
    from bot.exhibits import Exhibit
    from bot.gpt2.engine import Engine
    from bot.gpt2.model_info import ModelInfo
    from bot.gpt2.requests import Continuation

SEED: Final = 42
SAMPLES: Final = 3
LENGTH: Final = 24  # tokens of each sample
LENS_TOKENS: Final = 10
LINES: Final = 150  # positions

PAGE: Final = "index.html"


class GalleryError(OperatorError):
    """An unusable prompt, or a folder that cannot be written."""

    exit_code = ExitCode.SETTINGS


@dataclass(frozen=True, slots=True)
class Piece:
    """One picture of the gallery.

    Attributes:
        name: The name of its file and of its section on the page.
        title: The section's heading.
        exhibit: Returns the exhibit, or raises a `UserError` with the reason why there is none.
    """

    name: str
    title: str
    exhibit: Callable[[], Awaitable[Exhibit[Any]]]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page: a picture with its program, or the reason why there is none."""

    piece: Piece
    picture: Picture | None
    program: str = ""
    reason: str = ""


async def gallery(settings: Settings, prompt: str, folder: Path, *, second: str = "") -> ExitCode:
    """Write the pictures and the page, and print their place.

    Args:
        settings: The model, and how it computes.
        prompt: The text that the pictures show.
        folder: Their folder; created if missing.
        second: Another prompt to compare with, if any.

    Raises:
        OperatorError: The model cannot be loaded, or the folder cannot be written.
    """
    try:
        async with opened(settings) as (engine, renderer):
            model = await engine.model()
            continuation = await sampled(engine, prompt)
            sections = [await _made(piece, engine, renderer) for piece in pieces(engine, model, continuation, second)]
    except UserError as error:
        raise GalleryError(str(error)) from error
    _write(folder, sections, _page(model, continuation, sections))
    print(f"{sum(each.picture is not None for each in sections)} pictures: open {folder / PAGE}")
    return ExitCode.OK


def _write(folder: Path, sections: Sequence[Section], page: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in sections:
            if each.picture:
                (folder / f"{each.piece.name}.png").write_bytes(each.picture.file)
        (folder / PAGE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise GalleryError(f"The gallery cannot be written to {folder}: {error}") from error


async def sampled(engine: Engine, prompt: str) -> Continuation:
    """Return the samples at the top of the gallery.

    Raises:
        InvalidInputError: The prompt is empty or too long.
    """
    context = (await engine.model()).context
    return await engine.continuation(
        ContinuationRequest(prompt, SamplingParams(SEED, SAMPLES, min(LENGTH, context // 4)))
    )


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[LocalEngine, Renderer]]:
    """Yield an engine with its model loaded and a renderer with its fonts; close them in reverse."""
    async with contextlib.AsyncExitStack() as stack:
        engine = LocalEngine(
            settings.gpt2_model,
            device=settings.gpt2_device,
            precision=settings.gpt2_precision,
            threads=settings.gpt2_threads,
            cache=settings.gpt2_cache,
            draft=settings.gpt2_draft,
        )
        stack.push_async_callback(engine.close)
        renderer = Renderer()
        stack.callback(renderer.close)
        await engine.start()
        await renderer.warm()
        yield engine, renderer


def pieces(engine: Engine, model: ModelInfo, continuation: Continuation, second: str = "") -> list[Piece]:
    """Return all pictures of a prompt and of the model."""
    prompt = continuation.request.prompt
    samples = tuple(sample.token_ids for sample in continuation.samples)
    params = SamplingParams(temperature=0.7, top_p=0.9)

    async def notable_head() -> tuple[int, int]:
        """Return layer and head of the head with the most attention on the previous token."""
        scores = (await engine.introspect(AttentionQuestion(prompt))).scores["previous"]
        layer, head = np.unravel_index(np.nanargmax(scores), scores.shape)
        return int(layer) + 1, int(head) + 1

    async def its_attention() -> Exhibit[Any]:
        return exhibits.attention_head(HeadQuestion(prompt, *await notable_head()), "raw", model)

    async def its_absence() -> Exhibit[Any]:
        return exhibits.ablation(AblationQuestion(prompt, (await notable_head(),)), model)

    async def positions(draw: Callable[..., Exhibit[Any]], *options: Any, last: int | None = None) -> Exhibit[Any]:
        most = min(last or model.context, model.context)
        return draw(await engine.select(POSITIONAL_EMBEDDING, f"0:{most}", ":"), *options, model)

    async def attention(draw: Callable[..., Exhibit[Any]], window: str | None, *options: Any) -> Exhibit[Any]:
        layer = min(2, model.layers)  # the tutorial's
        return draw(await engine.select(model.attention_parameter(layer), window, window), layer, *options, model)

    async def asked(draw: Callable[..., Exhibit[Any]], question: type, *options: Any, **more: Any) -> Exhibit[Any]:
        return draw(question(prompt, **more), *options, model)

    found = [
        Piece("tokens", "Tokens", lambda: asked(exhibits.token_split, TokensQuestion)),
        Piece("surprise", "Surprise", lambda: asked(exhibits.surprise, SurpriseQuestion)),
        Piece("next-token", "The next token", lambda: asked(exhibits.next_tokens, NextTokensQuestion, params=params)),
        Piece("lens", "The logit lens", lambda: asked(exhibits.lens, LensQuestion, last=LENS_TOKENS)),
        Piece("attention", "Attention of all heads", lambda: asked(exhibits.attention_grid, AttentionQuestion, "raw")),
        Piece(
            "attention-without-sink",
            "Attention without the first token",
            lambda: asked(exhibits.attention_grid, AttentionQuestion, "removed"),
        ),
        Piece("head", "The head that looks most at the previous token", its_attention),
        Piece("ablation", "The model without that head", its_absence),
        Piece(
            "insights",
            "The samples above, measured",
            lambda: asked(exhibits.insights, InsightsQuestion, samples=samples),
        ),
        Piece("induction", "Induction heads", lambda: _now(exhibits.induction(InductionQuestion(), model))),
        Piece("positions", "Positional embeddings", lambda: positions(exhibits.positional_heatmap, "clear")),
        Piece(
            "positions-lines",
            "Three dimensions of them",
            lambda: positions(exhibits.positional_lines, (0, 1, 2), "clear", last=LINES),
        ),
        Piece("positions-similarity", "Similarity of positions", lambda: positions(exhibits.positional_similarity)),
        Piece("positions-helix", "The curve of the positions", lambda: positions(exhibits.positional_helix)),
        Piece("weights-attention", "Attention weights", lambda: attention(exhibits.attention_slice, None, "clear")),
        Piece("weights-heads", "The heads in Q, K and V", lambda: attention(exhibits.attention_heads, ":")),
    ]
    if second:
        found.insert(
            4,
            Piece(
                "comparison", "Two prompts", lambda: _now(exhibits.compare(ComparisonQuestion(prompt, second), model))
            ),
        )
    return found


async def _now(exhibit: Exhibit[Any]) -> Exhibit[Any]:
    return exhibit


async def _made(piece: Piece, engine: Engine, renderer: Renderer) -> Section:
    try:
        exhibit = await piece.exhibit()
        return Section(piece, await exhibit.picture(engine, renderer), exhibit.program)
    except UserError as error:
        return Section(piece, None, reason=str(error))


def _page(model: ModelInfo, continuation: Continuation, sections: Sequence[Section]) -> str:
    prompt = html.escape(continuation.request.prompt)
    links = "\n".join(f'<li><a href="#{each.piece.name}">{html.escape(each.piece.title)}</a></li>' for each in sections)
    samples = "\n".join(
        f'<li dir="auto"><b>{prompt}</b>{html.escape(sample.text)}</li>' for sample in continuation.samples
    )
    return _TEMPLATE.format(
        style=_STYLE,
        model=html.escape(model.name),
        size=f"{model.parameters / 1e6:.1f}",
        layers=model.layers,
        heads=model.heads,
        prompt=prompt,
        links=links,
        seed=continuation.request.seed,
        samples=samples,
        program=_program(programs.continuation(continuation.request, model)),
        pieces="\n".join(_html(each) for each in sections),
    )


def _html(section: Section) -> str:
    name, title = section.piece.name, html.escape(section.piece.title)
    if section.picture is None:
        return f'<section id="{name}">\n<h2>{title}</h2>\n<p>{html.escape(section.reason)}</p>\n</section>'
    alt = html.escape(str(section.picture.alt))
    width, height = section.picture.size
    first, *rest = (html.escape(str(text)) for text in section.picture.caption)
    more = f"\n<p>{' '.join(rest)}</p>" if rest else ""
    return (
        f'<section id="{name}">\n<h2>{title}</h2>\n<figure>\n'
        f'<a href="{name}.png"><img src="{name}.png" alt="{alt}" loading="lazy" '
        f'width="{width}" height="{height}"></a>\n'
        f'<figcaption dir="auto">\n<p class="lead">{first}</p>{more}\n</figcaption>\n</figure>\n'
        f"{_program(section.program)}\n</section>"
    )


def _program(source: str) -> str:
    code = f'<pre tabindex="0"><code>{html.escape(source)}</code></pre>'
    return f"<details>\n<summary>The program</summary>\n{code}\n</details>"


_STYLE: Final = """
:root { color-scheme: light dark;
  --ink: #1e1f22; --ground: #ffffff; --soft: #f2f3f5; --faint: #53565c; --link: #0b57c4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dbdee1; --ground: #1e1f22; --soft: #2b2d31; --faint: #a9adb5; --link: #8ab8ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 0 0 .75rem; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, pre:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
section { margin-top: 3rem; }
blockquote { margin: 1rem 0; padding: .75rem 1rem; border-left: 4px solid var(--link); background: var(--soft);
  white-space: pre-wrap; }
nav ul { columns: 16rem; padding-left: 1.2rem; }
ol li { white-space: pre-wrap; margin-bottom: .75rem; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; border-radius: 8px; }
figcaption p { margin: .5rem 0 0; color: var(--faint); font-size: .9rem; }
figcaption p.lead { color: var(--ink); font-size: 1rem; }
details { margin-top: .75rem; }
summary { cursor: pointer; width: max-content; padding: .25rem 0; color: var(--link); }
pre { margin: .25rem 0 0; padding: 1rem; overflow-x: auto; border-radius: 8px; background: var(--soft);
  font: .85rem/1.5 ui-monospace, monospace; overflow-wrap: normal; }
"""

_TEMPLATE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Inside {model}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>What {model} does with a prompt</h1>
<p>{size} million parameters, {layers} layers of {heads} heads. Every picture has the program that draws it again.</p>
<blockquote dir="auto">{prompt}</blockquote>
<nav aria-label="Pictures">
<ul>
<li><a href="#samples">Samples</a></li>
{links}
</ul>
</nav>
</header>
<main>
<section id="samples">
<h2>Samples, seed {seed}</h2>
<ol>
{samples}
</ol>
{program}
</section>
{pieces}
</main>
</body>
</html>
"""
