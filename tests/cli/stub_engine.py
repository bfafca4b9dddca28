"""A process for the bench that says it computes on a GPU: the other side of `EngineProcess`, without a model."""

from __future__ import annotations

import json
import sys


def answer(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    engine, _, device, precision, _ = sys.argv[1:]
    answer(f"the GPU of {device} in {precision}")
    for line in sys.stdin:
        peak = [100.0, None if engine == "llama.cpp" else 2048.4]
        answer(peak if json.loads(line) == "memory" else [0.5, None])
