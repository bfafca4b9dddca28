"""The samples of a request while they are computed in the slots of a `bot.gpt2.local.slots.SlotRunner`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from bot.gpt2.local.runner import Sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from bot.gpt2.requests import ContinuationRequest


class SlotGroup(Sequences):
    """The samples of one request in the slots of a `SlotRunner`; see `bot.gpt2.local.runner.Sequences`.

    Attributes:
        prompt: Its tokens.
        places: The first of its places in the pool, and their number.
        slots: The first of its slots, and their number.
        noise: Its source of random numbers; None if it draws none.
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
        super().__init__(len(prompt_ids), request)
        self.prompt = np.asarray(prompt_ids, dtype=np.int64)
        self.places, self.slots = places, slots
        self.noise = None if request.params.greedy else torch.Generator(device).manual_seed(request.seed)
        self.drawn = 0
        self.fault: Exception | None = None
        self.released = False
        self._give_back = give_back

    @property
    def rows(self) -> int:
        """Rows in a pass once the prompt is prefilled; samples that have ended stay, as in `generate`."""
        return self.request.params.rows

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
        self._drop_ended(end_tokens)


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
