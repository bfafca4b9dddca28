"""The speed of the engine on a machine, beside Transformers' and the memory's; see `benchmarks.gpu`."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from benchmarks.gpu_machine import LARGE, MIB, SMALL, timed
from bot.errors import OperatorError
from bot.gpt2.requests import ContinuationRequest, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gpu_machine import Machine
    from bot.cli.bench_baselines import Transformers
    from bot.gpt2.local.engine import LocalEngine

_COPIES: Final = 10


class Case(NamedTuple):
    """Requests that arrive at once, to be measured."""

    name: str
    requests: list[ContinuationRequest]


async def speed(machine: Machine) -> list[str]:
    """Measure tokens a second, interleaved with Transformers, and the distance from the memory's limit."""
    long = ContinuationRequest(machine.long_prompt(), SamplingParams(0, 1, machine.scale.one.length))
    cases = [
        *(Case(str(workload), workload.requests()) for workload in machine.scale.workloads),
        Case(f"prompt of {machine.scale.prompt}, {machine.scale.one}", [long]),
    ]
    bandwidth = _bandwidth(machine)
    machine.collect()
    rows, limits = [], [f"The memory copies {bandwidth / 1e9:.0f} GB/s, reads and writes together."]
    for name, precision, asked, compared in (
        (SMALL, "float32", cases, True),
        (LARGE, "float32", [Case(str(machine.scale.one), machine.scale.one.requests())], True),
        (SMALL, "float16", cases, False),
        (SMALL, "bfloat16", cases, False),
    ):
        try:
            engine = await machine.engine(name, precision)
        except OperatorError as error:
            rows.append(f"| {name} | {precision} | refused: {error} | – | – | – |")
            continue
        rows += await _rows(machine, engine, asked, f"{name} | {precision}", name if compared else "")
        limits.append(f"{name}, {precision}, {await _share_of_limit(machine, engine, bandwidth)}")
    return [
        "| model | precision | workload | Transformers, tokens/s | engine, tokens/s | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        *(f"- {limit}" for limit in limits),
    ]


async def _rows(
    machine: Machine, engine: LocalEngine, cases: Sequence[Case], label: str, baseline_model: str
) -> list[str]:
    """Measure the cases, and return a row of the table for each; `baseline_model` is Transformers' or empty."""
    baseline = machine.transformers(baseline_model) if baseline_model else None
    ours: dict[str, list[float]] = {case.name: [] for case in cases}
    theirs: dict[str, list[float]] = {case.name: [] for case in cases}
    for case in cases:  # to warm up
        await timed(engine, case.requests)
        if baseline:
            baseline.generate(case.requests[0], min_new_tokens=case.requests[0].params.length)
    for _ in range(machine.rounds):
        for case in cases:
            if baseline:
                theirs[case.name].append(_transformers_speed(machine, baseline, case.requests))
            machine.synchronize()
            tokens, seconds = await timed(engine, case.requests)
            ours[case.name].append(tokens / seconds)
    rows = []
    for case in cases:
        our = statistics.median(ours[case.name])
        their = statistics.median(theirs[case.name]) if baseline else None
        compared = f"{their:.1f} | {our:.1f} | {our / their:.2f}×" if their else f"– | {our:.1f} | –"
        rows.append(f"| {label} | {case.name} | {compared} |")
    del baseline
    machine.collect()
    return rows


def _transformers_speed(machine: Machine, baseline: Transformers, requests: Sequence[ContinuationRequest]) -> float:
    """Return Transformers' tokens a second for the requests, one after another."""
    machine.synchronize()
    began = time.perf_counter()
    for request in requests:
        baseline.generate(request, min_new_tokens=request.params.length)
    seconds = time.perf_counter() - began
    return sum(request.params.samples * request.params.length for request in requests) / seconds


async def _share_of_limit(machine: Machine, engine: LocalEngine, bandwidth: float) -> str:
    """Compare the time for a token of one sample with the time to read all weights once."""
    info = await engine.model()
    bytes_each = torch.finfo(getattr(torch, info.precision)).bits // 8
    size = bytes_each * (info.parameters - info.context * info.width)  # of the positions one row is read
    measured = []
    for seed in range(machine.rounds + 1):
        short, long = [
            await timed(engine, [ContinuationRequest("Hello", SamplingParams(seed, 1, length))])
            for length in (machine.scale.one.length, machine.scale.stream.length)
        ]
        if seed and long[0] > short[0]:  # the first warms up; both may have ended at the same token
            measured.append((long[1] - short[1]) / (long[0] - short[0]))
    if not measured:
        return "one sample: every sample ended early"
    token, limit = statistics.median(measured), size / bandwidth
    return (
        f"one sample, {1000 * token:.2f} ms a token; reading {size / MIB:.0f} MiB of weights would take "
        f"{1000 * limit:.2f} ms: {limit / token:.0%} of the memory's limit"
    )


def _bandwidth(machine: Machine) -> float:
    """Measure how many bytes a second the memory reads and writes while it copies."""
    source = torch.zeros(machine.scale.copied, dtype=torch.uint8, device=machine.device)
    target = torch.zeros_like(source)
    machine.synchronize()
    began = time.perf_counter()
    for _ in range(_COPIES):
        target.copy_(source)
    machine.synchronize()
    return 2 * _COPIES * machine.scale.copied / (time.perf_counter() - began)
