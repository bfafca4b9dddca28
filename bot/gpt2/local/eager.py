"""Passes by PyTorch's operations one by one, on any device."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from bot.gpt2.local.runner import Pass
from bot.gpt2.local.sequences import SequenceGroup, advance, cache_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bot.gpt2.local.drafting import Drafter
    from bot.gpt2.model.transformer import Transformer
    from bot.gpt2.requests import ContinuationRequest
    from bot.gpt2.throughput import Throughput

CACHE_BYTES: Final = 256 * 2**20
"""Size limit of all KV caches together; 80 samples of 40 tokens of GPT-2 small take 236 MiB."""


class EagerRunner:
    """Computes the requests' passes, each with keys and values of its own; see `bot.gpt2.local.runner.Runner`."""

    def __init__(
        self,
        transformer: Transformer,
        end_tokens: Collection[int],
        cost: Throughput,
        drafter: Drafter | None = None,
        memory: int = CACHE_BYTES,
    ) -> None:
        """Take the measured cost of passes, and how many bytes all requests' keys and values may take together."""
        self.cost = cost
        self.memory = memory
        self._transformer = transformer
        self._end_tokens = end_tokens
        self._drafter = drafter

    def start(self, prompt_ids: Sequence[int], request: ContinuationRequest) -> SequenceGroup:
        """See `Runner.start`."""
        return SequenceGroup(self._transformer, prompt_ids, request, self._end_tokens)

    def fits(self, running: Sequence[SequenceGroup], prompt_tokens: int, request: ContinuationRequest) -> bool:
        """See `Runner.fits`."""
        used = sum(group.cache_bytes for group in running)
        return used + cache_bytes(self._transformer.config, prompt_tokens, request) <= self.memory

    def advance(self, groups: Sequence[SequenceGroup]) -> Pass:
        """See `Runner.advance`."""
        drafting = self._drafter.propose(groups) if self._drafter else 0.0
        rows, began = sum(group.next_rows for group in groups), time.perf_counter()
        compared, equal = advance(self._transformer, groups)
        if self._drafter:
            self._drafter.record(rows, time.perf_counter() - began, compared, equal)
        exact = self._drafter.exact_seconds(rows) if self._drafter else self.cost.baseline_seconds(rows)
        return Pass(rows, drafting + exact, compared, equal)

    def repeat(self, group: SequenceGroup) -> None:
        """See `Runner.repeat`."""
        advance(self._transformer, [group])
