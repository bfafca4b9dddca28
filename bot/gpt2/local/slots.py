"""Passes in fixed shapes, which a GPU computes as one CUDA graph.

A pass of GPT-2 small keeps a GPU busy for half a millisecond, but starting its hundreds of operations from Python
takes ten times as long. So the operations of a pass are recorded once, for several numbers of rows, and replayed by a
single call. All that differs from pass to pass lies in memory that stays where it is:

- Keys and values of all requests lie in one pool of places. A request owns a range: first come the positions of its
  prompt, then its samples' first tokens, then their second ones, and so on.
- A table says for each row of the pass its token, its position and which places it sees.
- The newest token of each sample lies in a slot. A draw writes it there, and the next pass reads it from there.

So the tokens need not pass through Python. They are copied to the host meanwhile and read one pass late; a sample that
has ended is computed once more than needed, and the result is dropped.

A row is one position, be it of a prompt or of a sample, and has the same bits whatever rows are around it, since every
kernel treats rows by themselves (`bot.gpt2.model.kernels`). On other devices the same code runs without a recording.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
import torch

from bot.gpt2.local import calibration
from bot.gpt2.local.ranges import Ranges
from bot.gpt2.local.runner import Pass
from bot.gpt2.local.sampling import drawn_from
from bot.gpt2.local.slot_group import Draw, SlotGroup
from bot.gpt2.local.slot_table import (
    BUFFERS,
    MAX_ROWS,
    PASS_ROWS,
    SCRATCH,
    SLOTS,
    HostInputs,
    PassInputs,
    attend_in_pool,
)
from bot.gpt2.model import kernels
from bot.gpt2.model.attention import query_scales
from bot.gpt2.model.device import pinned_zeros
from bot.gpt2.model.shapes import position_bytes
from bot.gpt2.requests import MAX_LENGTH, MAX_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from transformers import GPT2Config

    from bot.gpt2.model.transformer import Transformer
    from bot.gpt2.requests import ContinuationRequest

PLACES: Final = 12_288
"""Positions whose keys and values are kept, where there is memory for so many: 0.9 GB for GPT-2 small."""

_MEMORY_SHARE: Final = 0.5  # of what is free on the device, for the pool

log = structlog.get_logger(__name__)


def slots_work(config: GPT2Config) -> bool:
    """Return whether the kernels serve a model on the current CUDA device."""
    size = config.n_embd // config.n_head
    suitable = size <= kernels.SIZE_LIMIT and config.n_positions <= kernels.CONTEXT_LIMIT
    return suitable and kernels.compiled() is not None


@dataclass(slots=True)
class _Launched:
    """A pass whose tokens are not read yet.

    Attributes:
        groups: Those that drew a token.
        buffer: Which of the host's buffers takes the tokens.
        event: Recorded behind the copy; None off CUDA.
    """

    groups: list[SlotGroup]
    buffer: int
    event: torch.cuda.Event | None


class SlotRunner:
    """Computes passes of all requests in fixed shapes; see `bot.gpt2.local.runner.Runner`.

    Attributes:
        device: Of the model.
        cost: Its passes' durations on an idle machine.
        logits: Those of the last pass, float32 [rows, vocabulary]; of fewer rows, the first.
    """

    def __init__(self, transformer: Transformer, end_tokens: Collection[int], places: int | None = None) -> None:
        """Reserve the pool and, on CUDA, record the passes.

        Args:
            transformer: The model.
            end_tokens: Tokens that end a sample.
            places: Positions in the pool; None takes what the device's memory allows.

        Raises:
            torch.OutOfMemoryError: The device's memory is too small.
        """
        config = transformer.config
        self.device = transformer.device
        self._transformer = transformer
        self._end_tokens = end_tokens
        self._config = config
        self._scales = query_scales(config)
        places = places or self._choose_places()
        self._pool = torch.zeros(config.n_layer, places, 2 * config.n_embd, device=self.device)
        self._places = Ranges(range(SCRATCH + 1, places))
        self._slots = Ranges(range(SLOTS))
        self._inputs = PassInputs(self.device)
        self._read = [pinned_zeros(SLOTS, self.device) for _ in range(BUFFERS)]
        self._buffer = 0
        self.logits = torch.zeros(MAX_ROWS, config.vocab_size, device=self.device)
        self._noise = torch.ones(SLOTS, config.vocab_size, device=self.device)
        self._unread: _Launched | None = None
        self._kernels = kernels.compiled() if self.device.type == "cuda" else None
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if self._kernels:
            self._record()
        self.cost = calibration.measure(self._time, rows=(2, 32))[0].throughput()

    def start(self, prompt_ids: Sequence[int], request: ContinuationRequest) -> SlotGroup:
        """See `Runner.start`.

        Raises:
            MemoryError: It does not fit.
        """
        places = self._places.take(_places_needed(len(prompt_ids), request))
        slots = self._slots.take(request.params.rows)
        if places is None or slots is None:
            for taken, ranges in ((places, self._places), (slots, self._slots)):
                if taken is not None:
                    ranges.give_back(taken)
            raise MemoryError("the pool of keys and values is full")
        return SlotGroup(prompt_ids, request, places, slots, self.device, self._give_back)

    def fits(self, _: Sequence[SlotGroup], prompt_tokens: int, request: ContinuationRequest) -> bool:
        """See `Runner.fits`."""
        needed = _places_needed(prompt_tokens, request)
        return self._places.longest >= needed and self._slots.longest >= request.params.rows

    def _give_back(self, group: SlotGroup) -> None:
        """Take back the places and slots of a group; passes that use them come before any that a new owner is in."""
        self._places.give_back(group.places)
        self._slots.give_back(group.slots)

    @torch.inference_mode()
    def advance(self, groups: Sequence[SlotGroup]) -> Pass:
        """See `Runner.advance`."""
        for group in groups:
            if group.fault:
                raise group.fault
        computed = [group for group in groups if not group.finished]
        before, self._unread = self._unread, None
        rows = 0
        try:
            if computed:
                rows, self._unread = self._launch(computed)
        finally:
            if before:
                self._accept(before)
        return Pass(rows, self.cost.baseline_seconds(rows))

    def repeat(self, group: SlotGroup) -> None:
        """See `Runner.repeat`."""
        self.advance([group])

    def _launch(self, groups: Sequence[SlotGroup]) -> tuple[int, _Launched]:
        """Start a pass and return its number of rows; the groups' progress changes only if that worked."""
        self._buffer = (self._buffer + 1) % BUFFERS
        host = self._inputs.hosts[self._buffer]
        rows, draws = _plan(groups, host)
        size = next(size for size in PASS_ROWS if size >= rows)
        host.fill_up(rows, size)
        by_kernel = [draw for draw in draws if self._kernels and draw.group.request.params.top_p == 1.0]
        drawn = host.add_draws(by_kernel)
        self._inputs.upload(self._buffer)
        self._run(size)
        for draw in draws:
            if draw.group.noise:
                self._noise[draw.numbers.start : draw.numbers.stop].exponential_(1, generator=draw.group.noise)
        read = self._read[self._buffer]
        if self._kernels and drawn:
            draws_table = self._inputs.draws[:, :drawn]
            self._kernels.draw(self.logits, self._noise, draws_table, self._inputs.tokens, read)
        for draw in draws:
            if draw not in by_kernel:
                self._draw(draw, read)
        event = None
        if self.device.type == "cuda":
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # the worker sleeps while it waits
            event.record()
        for group in groups:
            group.prefilled += group.next_chunk
        for draw in draws:
            draw.group.drawn += 1
        return rows, _Launched([draw.group for draw in draws], self._buffer, event)

    def _accept(self, launched: _Launched) -> None:
        """Wait for a pass and hand its tokens to the groups."""
        if launched.event:
            launched.event.synchronize()
        tokens = self._read[launched.buffer].tolist()
        for group in launched.groups:
            if not (group.released or group.fault):
                group.accept(tokens[group.slots.start : group.slots.stop], self._end_tokens)

    def _run(self, rows: int) -> None:
        """Compute the logits of the first rows of the table."""
        if rows in self._graphs:
            self._graphs[rows].replay()
        else:
            self._compute(rows)

    def _compute(self, rows: int) -> None:
        tokens, positions, table = self._inputs.first(rows)
        heads, longest = self._config.n_head, self._config.n_positions

        def attend(layer: int, qkv: torch.Tensor) -> torch.Tensor:
            if self._kernels:
                return self._kernels.attend(qkv, self._pool[layer], table, self._scales[layer], heads, longest)
            return attend_in_pool(qkv, self._pool[layer], table, self._scales[layer], heads)

        logits = self._transformer.logits(self._transformer.hidden(tokens, positions, attend))
        self.logits[:rows].copy_(logits)

    def _draw(self, draw: Draw, read: torch.Tensor) -> None:
        """Draw the tokens of a group with PyTorch's operations, as Transformers does."""
        group, params = draw.group, draw.group.request.params
        slots = slice(group.slots.start, group.slots.stop)
        try:
            logits = self.logits[draw.rows.start : draw.rows.stop].expand(params.rows, -1)
            scores = drawn_from(logits, params)
            if not params.greedy:
                scores = scores / self._noise[draw.numbers.start : draw.numbers.stop]
            self._inputs.tokens[slots] = torch.where(logits.isfinite().all(dim=-1), scores.argmax(dim=-1), -1)
            read[slots].copy_(self._inputs.tokens[slots], non_blocking=True)
        except RuntimeError as error:  # out of memory; its random numbers are used up, so it cannot be repeated
            group.fault = error

    def _record(self) -> None:
        """Record a CUDA graph for each number of rows."""
        began, pool = time.perf_counter(), torch.cuda.graph_pool_handle()
        log.info("recording CUDA graphs", passes=len(PASS_ROWS), places=len(self._pool[0]))
        self._inputs.hosts[0].fill_up(0, MAX_ROWS)
        self._inputs.upload(0)
        with torch.inference_mode():
            for rows in reversed(PASS_ROWS):  # the largest first, as the others then use its memory
                self._compute(rows)  # loads what must not be loaded while it is recorded
                graph = torch.cuda.CUDAGraph()
                # Other threads may use the device meanwhile: another model of this process computes or loads.
                with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                    self._compute(rows)
                self._graphs[rows] = graph
        log.info("recorded CUDA graphs", seconds=round(time.perf_counter() - began, 2))

    def _time(self, rows: int) -> None:
        """Compute a pass of so many rows that nobody needs, and wait for it."""
        with torch.inference_mode():
            self._run(next(size for size in PASS_ROWS if size >= rows))
            self.logits[0, 0].item()

    def _choose_places(self) -> int:
        """Return how many positions the pool gets: the largest request must fit."""
        largest: int = self._config.n_positions + MAX_SAMPLES * MAX_LENGTH
        if self.device.type != "cuda":
            return largest
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(min(PLACES, int(_MEMORY_SHARE * free) // position_bytes(self._config)), largest)


def _plan(groups: Sequence[SlotGroup], host: HostInputs) -> tuple[int, list[Draw]]:
    """Write the groups' rows to the table; return their number and the tokens to draw."""
    rows = numbers = 0
    draws = []
    for group in groups:
        first, rows = rows, host.add_rows(group, rows)
        if group.next_chunk == group.prompt_left:  # nothing of the prompt is left behind this pass
            logits = range(rows - 1 if group.prefilling else first, rows)
            draws.append(Draw(group, logits, range(numbers, numbers + group.rows)))
            numbers += group.rows
    return rows, draws


def _places_needed(prompt_tokens: int, request: ContinuationRequest) -> int:
    return prompt_tokens + request.params.rows * request.params.length
