"""Moderation of samples, if the operator wants it: those that a classifier finds offensive are blurred or hidden.

The classifier is alt-profanity-check, a linear model over words and pairs of words of English comments (the extra
"safety"). It knows neither context nor other languages; docs/hosting.md explains the consequences.
"""

from __future__ import annotations

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bot.errors import InvalidInputError, NotInstalledError
from bot.gpt2.requests import Progress
from bot.installation import install_command
from bot.text import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bot.config import SafetyMode
    from bot.gpt2.engine import Ticket
    from bot.gpt2.requests import Continuation, ContinuationRequest, Sample, Update

THRESHOLD: Final = 0.8
"""The probability from which a text counts as offensive. The classifier's own, 0.5, flags many harmless words."""

WINDOW_WORDS: Final = 20
"""Words in each of the overlapping windows that are classified: in a longer text, clean words outweigh a bad one."""


class Moderation:
    """A classifier for offensive texts, on a thread of its own, since scikit-learn would block the event loop.

    Args:
        mode: "spoiler" blurs offensive samples, "hide" removes them, "off" classifies nothing.

    Raises:
        NotInstalledError: The mode needs the classifier, which is not installed.
    """

    def __init__(self, mode: SafetyMode = "off") -> None:
        self.mode: SafetyMode = mode
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="moderation")
        self._probabilities: Any = None  # maps a list of texts to the probabilities that they are offensive
        if mode != "off":
            self._probabilities = self._executor.submit(_load_classifier).result()

    async def classify(self, texts: Sequence[str]) -> tuple[bool, ...]:
        """Return for each text whether it is offensive; False for all if the mode is "off"."""
        if self._probabilities is None or not texts:
            return (False,) * len(texts)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._classify, list(texts))

    def moderate(self, ticket: Ticket) -> Ticket:
        """Return the ticket with its offensive texts blurred or hidden."""
        return ticket if self.mode == "off" else ModeratedTicket(ticket, self)

    async def should_blur(self, text: str) -> bool:
        """Return whether an answer that continues this text is blurred, whatever its samples are."""
        return self.mode == "spoiler" and (await self.classify([text]))[0]

    async def blurs_written(self, text: str) -> bool:
        """Return whether a text that grew token by token is to be blurred.

        Raises:
            InvalidInputError: It is to be hidden, so it may not grow this way.
        """
        if not (text and (await self.classify([text]))[0]):
            return False
        if self.mode == "hide":
            raise InvalidInputError(say("My operator's filter finds the text offensive then. Choose another token."))
        return True

    async def moderate_progress(self, update: Progress) -> Progress:
        """Return the part of an update that may be shown."""
        offensive = await self.classify(update.texts)
        if self.mode == "spoiler":
            return replace(update, blurred=any(offensive))
        return replace(
            update, texts=tuple("" if bad else text for text, bad in zip(update.texts, offensive, strict=True))
        )

    async def moderate_continuation(self, continuation: Continuation) -> Continuation:
        """Return the part of a continuation that may be shown."""
        offensive = await self.classify([sample.text for sample in continuation.samples])
        pairs = zip(continuation.samples, offensive, strict=True)
        return replace(continuation, samples=tuple(self._veiled(sample) if bad else sample for sample, bad in pairs))

    def _veiled(self, sample: Sample) -> Sample:
        if self.mode == "spoiler":
            return replace(sample, veil="blurred")
        return replace(sample, text="", veil="hidden")

    def close(self) -> None:
        """Stop the thread."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _classify(self, texts: list[str]) -> tuple[bool, ...]:
        pieces = [(index, piece) for index, text in enumerate(texts) for piece in windows(text)]
        probabilities = self._probabilities([piece for _, piece in pieces])
        offensive = {
            index for (index, _), probability in zip(pieces, probabilities, strict=True) if probability >= THRESHOLD
        }
        return tuple(index in offensive for index in range(len(texts)))


class ModeratedTicket:
    """A ticket whose updates and result are moderated; see `bot.gpt2.engine.Ticket`."""

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
            yield await self._moderation.moderate_progress(update) if isinstance(update, Progress) else update

    async def result(self) -> Continuation:
        """See `Ticket.result`."""
        return await self._moderation.moderate_continuation(await self._ticket.result())

    def stop(self) -> None:
        """See `Ticket.stop`."""
        self._ticket.stop()

    def abandon(self) -> None:
        """See `Ticket.abandon`."""
        self._ticket.abandon()


def windows(text: str) -> list[str]:
    """Split a text into at least one window of `WINDOW_WORDS` words, each half overlapping the one before."""
    words, half = text.split(), WINDOW_WORDS // 2
    starts = range(0, max(len(words) - half, 1), half)
    return [" ".join(words[start : start + WINDOW_WORDS]) for start in starts]


def _load_classifier() -> Any:
    try:
        return importlib.import_module("profanity_check").predict_prob
    except ImportError as error:
        raise NotInstalledError(f"SAFETY needs its extra: {install_command('safety')}. Or set it to off.") from error
