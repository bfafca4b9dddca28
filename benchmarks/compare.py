"""`python -m bot bench` with more engines: Transformers, CTranslate2, llama.cpp and this bot's own.

    python -m benchmarks.compare --model FOLDER --rounds 3

CTranslate2 and llama.cpp take part if their packages are installed (`ctranslate2`; `llama-cpp-python` and `gguf`).
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from bot.cli import bench
from bot.config import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES: Final = {"transformers": "transformers", "ctranslate2": "ctranslate2", "llama.cpp": "llama_cpp", "bot": "bot"}
"""The engines in the order of the table, and the package that each needs."""


def installed() -> tuple[str, ...]:
    """Return the engines whose packages are installed."""
    return tuple(engine for engine, package in PACKAGES.items() if find_spec(package))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="gpt2", help="a hub name or a folder (gpt2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0 is PyTorch's default")
    options = parser.parse_args(arguments)
    settings = Settings(gpt2_model=options.model, gpt2_threads=options.threads)
    return bench.bench(settings, rounds=options.rounds, engines=installed(), process="benchmarks.baselines")


if __name__ == "__main__":
    sys.exit(main())
