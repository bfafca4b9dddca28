"""Care for what GPT-2 writes, where the host wants it: samples that a classifier takes for offensive are veiled.

The classifier is alt-profanity-check, a linear model over words and pairs of words of English comments (the extra
"safety"). It reads no context and no other language; docs/hosting.md says what that means.
"""

from __future__ import annotations

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bot.errors import NotInstalledError
from bot.gpt2.requests import Progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bot.config import SafetyMode
    from bot.gpt2.engine import Ticket
    from bot.gpt2.requests import Continuation, ContinuationRequest, Sample, Update

THRESHOLD: Final = 0.8
"""From which probability on a text counts as offensive; at 0.5, the classifier's own, plain words are taken for it."""

WINDOW_WORDS: Final = 20
"""A text is judged in overlapping pieces of so many words: to the classifier, many clean words outweigh a bad one."""


class Moderation:
    """Says which texts are offensive, on a thread of its own: scikit-learn is not for the event loop.

    Args:
        mode: What is to become of such texts; "off" is for not asking.

    Raises:
        NotInstalledError: The classifier is wanted and not installed.
    """

    def __init__(self, mode: SafetyMode = "off") -> None:
        self.mode: SafetyMode = mode
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="moderation")
        self._probabilities: Any = None  # of being offensive, for each of a list of texts
        if mode != "off":
            self._probabilities = self._executor.submit(_classifier).result()

    async def offensive(self, texts: Sequence[str]) -> tuple[bool, ...]:
        """Whether the classifier takes each text for offensive; none, where it is off."""
        if self._probabilities is None or not texts:
            return (False,) * len(texts)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._judge, list(texts))

    def moderate(self, ticket: Ticket) -> Ticket:
        """The same ticket, all texts of which are veiled where they are offensive."""
        return ticket if self.mode == "off" else ModeratedTicket(ticket, self)

    async def blurs(self, text: str) -> bool:
        """Whether an answer that goes on from this is to be blurred, whatever its samples are."""
        return self.mode == "spoiler" and (await self.offensive([text]))[0]

    async def progress(self, update: Progress) -> Progress:
        """What may be seen of samples that grow."""
        offensive = await self.offensive(update.texts)
        if self.mode == "spoiler":
            return replace(update, blurred=any(offensive))
        return replace(
            update, texts=tuple("" if bad else text for text, bad in zip(update.texts, offensive, strict=True))
        )

    async def continuation(self, continuation: Continuation) -> Continuation:
        """What may be seen of samples that are done."""
        offensive = await self.offensive([sample.text for sample in continuation.samples])
        pairs = zip(continuation.samples, offensive, strict=True)
        return replace(continuation, samples=tuple(self._veiled(sample) if bad else sample for sample, bad in pairs))

    def _veiled(self, sample: Sample) -> Sample:
        if self.mode == "spoiler":
            return replace(sample, veil="blurred")
        return replace(sample, text="", veil="hidden")

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _judge(self, texts: list[str]) -> tuple[bool, ...]:
        pieces = [(index, piece) for index, text in enumerate(texts) for piece in windows(text)]
        probabilities = self._probabilities([piece for _, piece in pieces])
        found = {
            index for (index, _), probability in zip(pieces, probabilities, strict=True) if probability >= THRESHOLD
        }
        return tuple(index in found for index in range(len(texts)))


class ModeratedTicket:
    """A ticket whose offensive texts are veiled before anybody sees them; see `bot.gpt2.engine.Ticket`."""

    def __init__(self, ticket: Ticket, moderation: Moderation) -> None:
        self._ticket = ticket
        self._moderation = moderation

    @property
    def request(self) -> ContinuationRequest:
        """See `Ticket.request`."""
        return self._ticket.request

    async def updates(self) -> AsyncIterator[Update]:
        """See `Ticket.updates`."""
        async for update in self._ticket.updates():
            yield await self._moderation.progress(update) if isinstance(update, Progress) else update

    async def result(self) -> Continuation:
        """See `Ticket.result`."""
        return await self._moderation.continuation(await self._ticket.result())

    def stop(self) -> None:
        """See `Ticket.stop`."""
        self._ticket.stop()

    def abandon(self) -> None:
        """See `Ticket.abandon`."""
        self._ticket.abandon()


def windows(text: str) -> list[str]:
    """The text in pieces of `WINDOW_WORDS` words, each beginning in the middle of the one before; at least one."""
    words, half = text.split(), WINDOW_WORDS // 2
    starts = range(0, max(len(words) - half, 1), half)
    return [" ".join(words[start : start + WINDOW_WORDS]) for start in starts]


def _classifier() -> Any:
    try:
        return importlib.import_module("profanity_check").predict_prob
    except ImportError as error:
        raise NotInstalledError(
            "SAFETY needs its extra: python -m pip install -c constraints.txt -e .[safety], or set it to off."
        ) from error
