"""The samples of a request while they are computed in the slots of a `bot.gpt2.local.slots.SlotRunner`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from bot.gpt2.local.sequences import PREFILL_CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from bot.gpt2.requests import ContinuationRequest


class SlotGroup:
    """The samples of one request in the slots of a `SlotRunner`; see `bot.gpt2.local.runner.Sequences`.

    Attributes:
        request: The accepted request.
        prompt: Its tokens.
        tokens: New tokens of each sample so far, as read by the host.
        places: The first of its places in the pool, and their number.
        slots: The first of its slots, and their number.
        noise: Its source of random numbers; None if it draws none.
        prefilled: Positions of the prompt in passes so far.
        drawn: Tokens of each sample drawn so far, of which the host may have read one less.
        fault: Why it cannot go on.
        released: Whether its places and slots may belong to another.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        request: ContinuationRequest,
        places: range,
        slots: range,
        device: torch.device,
        give_back: Callable[[SlotGroup], None],
    ) -> None:
        """Begin with nothing computed; `give_back` is called once, when the places and slots are free again."""
        self.request = request
        self.prompt = np.asarray(prompt_ids, dtype=np.int64)
        self.tokens: list[list[int]] = [[] for _ in range(request.params.rows)]
        self.places, self.slots = places, slots
        self.noise = None if request.params.greedy else torch.Generator(device).manual_seed(request.seed)
        self.prefilled = 0
        self.drawn = 0
        self.fault: Exception | None = None
        self.released = False
        self._give_back = give_back
        self._active = list(range(request.params.rows))

    @property
    def done(self) -> bool:
        """Return whether every sample has ended or has its full length."""
        return not self._active

    @property
    def rows(self) -> int:
        """Rows in a pass once the prompt is prefilled; samples that have ended stay, as in `generate`."""
        return self.request.params.rows

    @property
    def tokens_left(self) -> int:
        """The most tokens that a sample still lacks."""
        return max((self.request.params.length - len(self.tokens[sample]) for sample in self._active), default=0)

    @property
    def next_chunk(self) -> int:
        """Prompt positions in the next pass; 0 once the prompt is prefilled."""
        return min(PREFILL_CHUNK, self.prompt_left)

    @property
    def prompt_left(self) -> int:
        """Prompt positions that are not in a pass yet."""
        return len(self.prompt) - self.prefilled

    @property
    def prefilling(self) -> bool:
        """Return whether the prompt is not fully computed yet."""
        return self.prefilled < len(self.prompt)

    @property
    def finished(self) -> bool:
        """Return whether nothing is left to compute, though the host may not have read all of it."""
        return self.done or self.drawn == self.request.params.length

    def release(self) -> None:
        """Return its places and slots; the tokens stay."""
        if not self.released:
            self.released = True
            self._give_back(self)

    def accept(self, tokens: Sequence[int], end_tokens: Collection[int]) -> None:
        """Take a token for each sample; those of samples that have ended are dropped."""
        if any(tokens[sample] < 0 for sample in self._active):
            self.fault = FloatingPointError("the model computed values that are not finite")
            return
        for sample in self._active:
            self.tokens[sample].append(int(tokens[sample]))
        self._active = [
            sample
            for sample in self._active
            if self.tokens[sample][-1] not in end_tokens and len(self.tokens[sample]) < self.request.params.length
        ]


@dataclass(slots=True, eq=False)
class Draw:
    """A token for each sample of a group.

    Attributes:
        group: The samples.
        rows: Those of their logits; one for all after the prompt.
        numbers: The rows of their random numbers.
    """

    group: SlotGroup
    rows: range
    numbers: range
