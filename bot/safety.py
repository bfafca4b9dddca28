"""Care for what GPT-2 writes, where the host wants it: samples that a classifier takes for offensive are veiled.

The classifier is alt-profanity-check, a linear model over words and pairs of words of English comments (the extra
"safety"). It reads no context and no other language; docs/hosting.md says what that means.
"""

from __future__ import annotations

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import structlog

from bot.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.config import SafetyMode

THRESHOLD: Final = 0.8
"""From which probability on a text counts as offensive; at 0.5, the classifier's own, plain words are taken for it."""

WINDOW_WORDS: Final = 20
"""A text is judged in overlapping pieces of so many words: to the classifier, many clean words outweigh a bad one."""

log = structlog.get_logger(__name__)


class Safety:
    """Says which texts are offensive, on a thread of its own: scikit-learn is not for the event loop.

    Args:
        mode: What is to become of such texts; "off" is for not asking.

    Raises:
        SettingsError: The classifier is wanted and not installed.
    """

    def __init__(self, mode: SafetyMode = "off") -> None:
        self.mode: SafetyMode = mode
        self._lane = ThreadPoolExecutor(max_workers=1, thread_name_prefix="safety")
        self._probabilities: Any = None  # of being offensive, for each of a list of texts
        if mode != "off":
            self._probabilities = self._lane.submit(_classifier).result()

    async def offensive(self, texts: Sequence[str]) -> tuple[bool, ...]:
        """Whether the classifier takes each text for offensive; none, where it is off."""
        if self._probabilities is None or not texts:
            return (False,) * len(texts)
        return await asyncio.get_running_loop().run_in_executor(self._lane, self._judge, list(texts))

    def close(self) -> None:
        """End the thread."""
        self._lane.shutdown(wait=True, cancel_futures=True)

    def _judge(self, texts: list[str]) -> tuple[bool, ...]:
        pieces = [(index, piece) for index, text in enumerate(texts) for piece in windows(text)]
        probabilities = self._probabilities([piece for _, piece in pieces])
        found = {
            index for (index, _), probability in zip(pieces, probabilities, strict=True) if probability >= THRESHOLD
        }
        return tuple(index in found for index in range(len(texts)))


def windows(text: str) -> list[str]:
    """The text in pieces of `WINDOW_WORDS` words, each beginning in the middle of the one before; at least one."""
    words, half = text.split(), WINDOW_WORDS // 2
    starts = range(0, max(len(words) - half, 1), half)
    return [" ".join(words[start : start + WINDOW_WORDS]) for start in starts]


def _classifier() -> Any:
    try:
        return importlib.import_module("profanity_check").predict_prob
    except ImportError as error:
        raise SettingsError(
            ["SAFETY needs its extra: python -m pip install -c constraints.txt -e .[safety], or set it to off."]
        ) from error
