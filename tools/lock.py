"""Write constraints.txt and requirements.txt.

constraints.txt has the exact version of every package that this project needs, with all its extras: those of the
virtual environment that runs this (`make lock`). What is needed only elsewhere (on Windows, on a newer Python, for
CUDA) may be missing here; its lines, the ones with a marker, are kept as they stand.

requirements.txt has, of what running the bot needs, the hashes of all files that the index has for these versions, of
wheels for every system. PyTorch is left out, and what only its CUDA build needs: which of its builds is right differs
from machine to machine, and an index of CPU builds has files of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT: Final = "gpt2-for-discord"
ROOT: Final = Path(__file__).parent.parent
CONSTRAINTS: Final = ROOT / "constraints.txt"
REQUIREMENTS: Final = ROOT / "requirements.txt"
RUNNING: Final = ("safety", "sentry")
"""The extras of a bot that runs on Discord; the others are for trying it, for several machines, and for development."""

HEADER: Final = """\
# The exact version of everything this project needs, all extras included, for `pip install -c constraints.txt`.
# Made by `make lock` from the versions in .venv. To raise them: `.venv/bin/python -m pip install --upgrade …`,
# `make lock`, `.ci/run`.
#
# torch: on Linux its default build brings CUDA, several gigabytes. A host without a GPU can take the CPU build: make
# .venv with `python3 -m venv .venv` and install this version of torch into it in the way that pytorch.org's "Get
# started" page gives for "CPU". `make demo`, `make run` and `make test` then keep it.
"""
REQUIREMENTS_HEADER: Final = """\
# What running the bot needs but PyTorch, for `pip install --require-hashes -r requirements.txt`. Made by `make lock`.
# PyTorch is installed after it, with -c constraints.txt: which of its builds is right differs from machine to machine.

"""
ELSEWHERE: Final = """\

# Needed only where the marker says; the many for Linux by torch's CUDA build alone.
"""


def main() -> None:
    """Rewrite the file."""
    pinned = sorted(pins(PROJECT), key=_name)
    before = CONSTRAINTS.read_text(encoding="utf-8").splitlines() if CONSTRAINTS.is_file() else ()
    here = set(map(_name, pinned))
    kept = sorted(line for line in before if is_for_elsewhere(line) and _name(line) not in here)
    CONSTRAINTS.write_text("\n".join([HEADER, *pinned, ELSEWHERE, *kept, ""]), encoding="utf-8")
    sys.stdout.write(f"{CONSTRAINTS.name}: {len(pinned)} packages here, {len(kept)} only elsewhere\n")
    text = hashed(without=["torch", *map(_name, filter(is_for_cuda, kept))])
    REQUIREMENTS.write_text(REQUIREMENTS_HEADER + text, encoding="utf-8")
    sys.stdout.write(f"{REQUIREMENTS.name}: {text.count('==')} packages, {text.count('--hash')} hashes\n")


def hashed(*, without: Sequence[str]) -> str:
    """The pins of what running the bot needs, for all systems, with the hashes of their files.

    Raises:
        subprocess.CalledProcessError: uv, whose work it is, could not do it.
    """
    options = [*(f"--extra={extra}" for extra in RUNNING), *(f"--no-emit-package={name}" for name in without)]
    options += ["--constraint", str(CONSTRAINTS), "--generate-hashes", "--universal", "--python-version", "3.11"]
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    made = subprocess.run([*command, *options, "pyproject.toml"], cwd=ROOT, check=True, capture_output=True, text=True)
    return made.stdout


def pins(project: str) -> Iterator[str]:
    """``name==version`` of everything that `project` needs here, its own extras included.

    Raises:
        importlib.metadata.PackageNotFoundError: Something that is needed is not installed.
    """
    extras = frozenset(metadata.metadata(project).get_all("Provides-Extra") or ())
    waiting, seen = [(project, extras)], set[tuple[str, str]]()
    names = dict[str, str]()
    while waiting:
        name, wanted = waiting.pop()
        for extra in {"", *wanted}:
            if (canonicalize_name(name), extra) in seen:
                continue
            seen.add((canonicalize_name(name), extra))
            found = [each for each in requirements(name) if _applies(each, extra)]
            waiting += [(each.name, frozenset(each.extras)) for each in found]
            names |= {canonicalize_name(each.name): each.name for each in found}
    for canonical in names.keys() - {canonicalize_name(project)}:
        distribution = metadata.distribution(canonical)
        # The public version: "+cpu" would shut out every other build of torch.
        yield f"{distribution.name}=={Version(distribution.version).public}"


def requirements(name: str) -> Iterator[Requirement]:
    """What an installed package says it needs."""
    return map(Requirement, metadata.requires(name) or ())


def is_for_elsewhere(line: str) -> bool:
    """Whether a line of a constraints file holds a marker."""
    return ";" in line and not line.startswith("#")


def is_for_cuda(line: str) -> bool:
    """Whether a line of a constraints file is for PyTorch's CUDA build alone."""
    return bool(re.search(r'platform_system == "Linux"', line))


def _name(pin: str) -> str:
    return canonicalize_name(pin.partition("==")[0])


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


if __name__ == "__main__":
    main()
