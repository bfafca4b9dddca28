"""The workloads that the bench measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bot.gpt2.requests import ContinuationRequest, SamplingParams

PROMPT: Final = "Hello, I'm a language model,"


@dataclass(frozen=True, slots=True)
class Workload:
    """A number of equal requests that arrive at once.

    Attributes:
        users: Number of requests.
        samples: Samples of each request.
        length: New tokens of each sample.
    """

    users: int
    samples: int
    length: int

    def __str__(self) -> str:
        """Describe it for a heading: users if several, samples, length."""
        one = f"{self.samples} × {self.length}"
        return one if self.users == 1 else f"{self.users} users × {one}"

    @property
    def tokens(self) -> int:
        """Number of new tokens in all."""
        return self.users * self.samples * self.length

    def requests(self) -> list[ContinuationRequest]:
        """Return the requests, which differ in seed and prompt only."""
        return [
            ContinuationRequest(f"{PROMPT} number {seed}", SamplingParams(seed, self.samples, self.length))
            for seed in range(self.users)
        ]


WORKLOADS: Final = (Workload(1, 1, 22), Workload(1, 5, 22), Workload(16, 5, 40))
