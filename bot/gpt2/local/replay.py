"""The computation of a continuation once more, with a record of what each token of one sample was drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bot.gpt2.local.sampling import drawn_from, make_noise
from bot.gpt2.local.sequences import SequenceGroup, advance

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import torch
    from numpy.typing import NDArray

    from bot.gpt2.model.loading import LoadedModel
    from bot.gpt2.requests import ContinuationRequest


class Step(NamedTuple):
    """One new token, and the numbers of every token in the vocabulary."""

    before: NDArray[np.float32]  # the model's probabilities
    after: NDArray[np.float32]  # those that the settings leave
    draws: NDArray[np.float32]  # those divided by the seed's random numbers: the largest is chosen
    chosen: int


def replay(
    model: LoadedModel, prompt_ids: Sequence[int], request: ContinuationRequest, sample: int, most: int
) -> Generator[None, None, list[Step]]:
    """Compute the first `most` tokens of a sample, which counts from 0; yield after each pass.

    All samples are computed, just as they were the first time: rounding must not change a token.
    """
    group = RecordedGroup(model, prompt_ids, request, sample)
    while not group.done and len(group.steps) < most and group.writing:
        advance(model.transformer, [group])
        yield
    return group.steps


class RecordedGroup(SequenceGroup):
    """The sequences of a request, one of which is recorded.

    Attributes:
        steps: Of the recorded sample so far.
    """

    def __init__(
        self, model: LoadedModel, prompt_ids: Sequence[int], request: ContinuationRequest, sample: int
    ) -> None:
        super().__init__(model.transformer, prompt_ids, request, model.endings.tokens)
        self.steps: list[Step] = []
        self._sample = sample
        rows, device = request.params.rows, model.transformer.device
        greedy = request.params.greedy
        self._noise = None if greedy else make_noise(request.seed, rows, model.info.vocabulary, device)

    @property
    def writing(self) -> bool:
        """Return whether the recorded sample has not ended."""
        return self._sample in self._active

    def accept(self, logits: torch.Tensor) -> tuple[int, int]:
        """See `SequenceGroup.accept`; nothing is drafted here."""
        row = self._active.index(self._sample)
        outcome = super().accept(logits)
        if len(logits):
            own = logits[row if len(logits) > 1 else 0]
            self.steps.append(self._record(own, self.tokens[self._sample][-1]))
        return outcome

    def _record(self, logits: torch.Tensor, chosen: int) -> Step:
        after = _array(drawn_from(logits[None], self.request.params)[0])
        draws = after
        if self._noise is not None:
            draws, kept = np.zeros_like(after), np.flatnonzero(after)
            draws[kept] = after[kept] / self._noise.at(self._sample, len(self.steps)).of(kept)
            for sample in range(self.request.params.rows):
                self._noise.forget(sample, len(self.steps) + 1)
        return Step(_array(logits.softmax(dim=-1)), after, draws, chosen)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array
