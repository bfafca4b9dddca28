"""GPT-2 for Discord: seeded continuations that anyone can repeat, and pictures of what the model has learned."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

# `cogs` is beside this package in a checkout. A wheel has it in `_installed` (see setup.py), because other bots have a
# `cogs` in the same site-packages.
_INSIDE = Path(__file__).parent / "_installed"
_COGS_FOLDER = str(_INSIDE if _INSIDE.is_dir() else Path(__file__).parents[1])
if _COGS_FOLDER not in sys.path[:1]:
    sys.path.insert(0, _COGS_FOLDER)

try:
    __version__ = metadata.version("gpt2-for-discord")
except metadata.PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
