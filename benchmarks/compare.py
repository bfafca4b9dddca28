"""`python -m bot bench` with more engines: Transformers, CTranslate2, llama.cpp, vLLM and this bot's own.

    python -m benchmarks.compare --model FOLDER --rounds 3

The others take part if their packages are installed (`ctranslate2`; `llama-cpp-python` and `gguf`; `vllm`), vLLM only
on a GPU.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, cast, get_args

import torch

from bot.cli import bench
from bot.config import Device, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.config import Precision

PACKAGES: Final = {
    "transformers": "transformers",
    "ctranslate2": "ctranslate2",
    "llama.cpp": "llama_cpp",
    "vllm": "vllm",
    "bot": "bot",
}
"""The engines in the order of the table, and the package that each needs."""


def installed(device: str = "cpu") -> tuple[str, ...]:
    """Return the engines whose packages are installed and that compute on a device."""
    lacking = set() if device != "cpu" and torch.cuda.is_available() else {"vllm"}
    return tuple(engine for engine, package in PACKAGES.items() if engine not in lacking and find_spec(package))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="gpt2", help="a hub name or a folder (gpt2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0 is PyTorch's default")
    parser.add_argument("--device", choices=get_args(Device), default="auto", help="auto is CUDA if there is any")
    parser.add_argument("--precision", default="float32", help="float32, float16 or bfloat16 (float32)")
    parser.add_argument("--engines", metavar="NAMES", help="only these beside Transformers, such as vllm,bot")
    options = parser.parse_args(arguments)
    settings = Settings(
        gpt2_model=options.model,
        gpt2_device=options.device,
        gpt2_precision=cast("Precision", options.precision),
        gpt2_threads=options.threads,
    )
    chosen = {bench.BASELINE, *(options.engines.split(",") if options.engines else PACKAGES)}
    if unknown := chosen - PACKAGES.keys():
        parser.error(f"no engine {', '.join(sorted(unknown))}")
    engines = [engine for engine in installed(options.device) if engine in chosen]
    return bench.bench(settings, rounds=options.rounds, engines=engines, process="benchmarks.baselines")


if __name__ == "__main__":
    sys.exit(main())
