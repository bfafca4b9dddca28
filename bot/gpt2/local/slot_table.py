"""The inputs of a pass in fixed memory: what each row computes and sees, and which tokens are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from bot.gpt2.model import kernels
from bot.gpt2.model.device import pinned_zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.gpt2.local.slot_group import Draw, SlotGroup

PASS_ROWS: Final = (*range(1, 9), 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 224)
"""Numbers of rows of a pass; others are filled up."""

MAX_ROWS: Final = PASS_ROWS[-1]
"""The most rows of a pass: samples and positions of prompts."""

SLOTS: Final = 128
"""The most samples of all requests."""

BUFFERS: Final = 2
"""Of what travels between host and device: one for a pass that is computed, one for the next."""

SCRATCH: Final = 0
"""The place of the rows that fill up a pass."""

# The fields of a row in the table, and of a draw in its own, as the kernels read them.
_POSITION, _START, _PROMPT, _OWN, _STRIDE, _FIRST, _PLACE, _SOURCE = range(8)
_ROW, _SLOT, _NOISE, _TOP_K, _SCALE = range(5)


class PassInputs:
    """What a pass reads on the device, and the host's copies of it.

    Attributes:
        tokens: int64 [SLOTS + MAX_ROWS]: the newest token of each slot, then the prompts' tokens of this pass.
        draws: int64 [fields, SLOTS].
        hosts: All but the slots, for one pass and for the next.
    """

    def __init__(self, device: torch.device) -> None:
        self.hosts = [HostInputs(device) for _ in range(BUFFERS)]
        self._memory = torch.zeros(SLOTS + len(self.hosts[0].memory), dtype=torch.int64, device=device)
        self.tokens = self._memory[: SLOTS + MAX_ROWS]
        _, self._rows, self.draws = _split(self._memory[SLOTS:])

    def upload(self, buffer: int) -> None:
        """Copy one of `hosts` to the device."""
        self._memory[SLOTS:].copy_(self.hosts[buffer].memory, non_blocking=True)

    def first(self, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the first rows' tokens and positions, int64 [rows] each, and their table for attention."""
        table = self._rows[:, :rows]
        return self.tokens.index_select(0, table[_SOURCE]), table[_POSITION], table[:_SOURCE]


class HostInputs:
    """The table of a pass in the host's memory.

    Attributes:
        memory: int64, in the layout of `_split`.
    """

    def __init__(self, device: torch.device) -> None:
        self.memory = pinned_zeros(sum(_SIZES), device)
        self._tokens, self._rows, self._draws = (part.numpy() for part in _split(self.memory))

    def add_rows(self, group: SlotGroup, first: int) -> int:
        """Write the rows of a group from row `first` on, and return the row behind them."""
        prompt, chunk = len(group.prompt), group.next_chunk
        end = first + (chunk or group.rows)
        table = self._rows[:, first:end]
        table[_START], table[_PROMPT] = group.places.start, prompt
        if chunk:
            positions = np.arange(group.prefilled, group.prefilled + chunk)
            self._tokens[first:end] = group.prompt[positions]
            table[_POSITION], table[_PLACE] = positions, group.places.start + positions
            table[_OWN], table[_STRIDE], table[_FIRST] = 0, 0, group.prefilled  # it sees its prompt only
            table[_SOURCE] = np.arange(SLOTS + first, SLOTS + end)
        else:
            samples = np.arange(group.rows)
            table[_POSITION] = table[_FIRST] = prompt + group.drawn - 1
            table[_OWN], table[_STRIDE] = group.places.start + prompt + samples, group.rows
            table[_PLACE] = table[_OWN] + (group.drawn - 1) * group.rows
            table[_SOURCE] = group.slots.start + samples
        return end

    def fill_up(self, first: int, end: int) -> None:
        """Write rows that nobody needs: position 0 of a text in the place that nobody owns."""
        self._rows[:, first:end] = SCRATCH
        self._rows[_PROMPT, first:end] = 1

    def add_draws(self, draws: Sequence[Draw]) -> int:
        """Write the table of draws, and return their number."""
        end = 0
        for draw in draws:
            group, params = draw.group, draw.group.request.params
            first, end = end, end + group.rows
            table = self._draws[:, first:end]
            table[_ROW], table[_SLOT], table[_NOISE] = draw.rows, group.slots, draw.numbers
            table[_TOP_K] = kernels.GREEDY if params.greedy else params.top_k
            table[_SCALE] = _bits_of_inverse(1.0 if params.greedy else params.temperature)
        return end


_SIZES: Final = [MAX_ROWS, (_SOURCE + 1) * MAX_ROWS, (_SCALE + 1) * SLOTS]


def _split(memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the tokens of the prompts, the table of the rows and that of the draws."""
    tokens, rows, draws = torch.split(memory, _SIZES)
    return tokens, rows.view(-1, MAX_ROWS), draws.view(-1, SLOTS)


def attend_in_pool(
    qkv: torch.Tensor, cache: torch.Tensor, table: torch.Tensor, scale: float, heads: int
) -> torch.Tensor:
    """Compute `bot.gpt2.model.kernels.Kernels.attend` with PyTorch's operations."""
    width = cache.shape[1] // 2
    positions, starts, prompts, own, strides, firsts, stored = table.unsqueeze(2)
    keys = torch.arange(int(positions.max()) + 1, device=qkv.device)
    places = torch.where(keys < prompts, starts + keys, own + (keys - prompts) * strides)
    rows = torch.arange(len(qkv), device=qkv.device).unsqueeze(1) - positions + keys
    seen, here = keys <= positions, (keys >= firsts) & (keys <= positions)
    pairs = cache[torch.where(seen & ~here, places, SCRATCH)]
    pairs = torch.where(here.unsqueeze(2), qkv[torch.where(here, rows, 0), width:], pairs)
    pairs = pairs.view(*seen.shape, 2, heads, -1)
    scores = torch.einsum("rhs,rkhs->rhk", qkv[:, :width].view(len(qkv), heads, -1) * scale, pairs[:, :, 0])
    weights = scores.masked_fill(~seen.unsqueeze(1), -torch.inf).softmax(dim=-1)
    cache.index_copy_(0, stored.squeeze(1), qkv[:, width:])
    return torch.einsum("rhk,rkhs->rhs", weights, pairs[:, :, 1]).flatten(1)


def _bits_of_inverse(temperature: float) -> int:
    """Return the bits of 1 / temperature in float32; PyTorch multiplies by that when it divides by a number on CUDA."""
    return int((np.float32(1) / np.float32(temperature)).view(np.int32))
