"""Write constraints.txt and requirements.txt: `make lock`.

constraints.txt has the exact version of every package that this project needs, all extras included, as installed in the
virtual environment that runs this. Packages for other platforms (Windows, a newer Python, CUDA) may be missing here;
their lines, which have a marker, are kept.

requirements.txt has the packages of a running bot with the hashes of all their files in the index, for every system. It
omits PyTorch and the packages of its CUDA build: the right build differs between machines, and an index of CPU builds
has its own files.
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
"""The extras of a bot on Discord; the others are for the demo, for clusters and for development."""

HEADER: Final = """\
# The exact version of everything this project needs, all extras included, for `pip install -c constraints.txt`.
# Made by `make lock` from the versions in .venv. To raise them: `.venv/bin/python -m pip install --upgrade …`,
# `make lock`, `.ci/run`.
#
# torch: on Linux, PyPI's build brings CUDA, several gigabytes. README says how to take the CPU build.
"""
REQUIREMENTS_HEADER: Final = """\
# What running the bot needs but PyTorch, for `pip install --require-hashes -r requirements.txt`. Made by `make lock`.
# PyTorch is installed after it, with -c constraints.txt: which of its builds is right differs from machine to machine.

"""
ELSEWHERE: Final = """\

# Needed only where the marker says; those for Linux only by torch's CUDA build.
"""


def main() -> None:
    """Rewrite both files."""
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
    """Return the pins of a running bot for all systems, with the hashes of their files.

    Raises:
        subprocess.CalledProcessError: uv failed.
    """
    options = [*(f"--extra={extra}" for extra in RUNNING), *(f"--no-emit-package={name}" for name in without)]
    options += ["--constraint", str(CONSTRAINTS), "--generate-hashes", "--universal", "--python-version", "3.11"]
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    compiled = subprocess.run(
        [*command, *options, "pyproject.toml"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return compiled.stdout


def pins(project: str) -> Iterator[str]:
    """Yield ``name==version`` of every package that `project` needs here, its own extras included.

    Raises:
        importlib.metadata.PackageNotFoundError: A needed package is not installed.
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
        # The public version: "+cpu" would exclude every other build of torch.
        yield f"{distribution.name}=={Version(distribution.version).public}"


def requirements(name: str) -> Iterator[Requirement]:
    """Return the requirements that an installed package declares."""
    return map(Requirement, metadata.requires(name) or ())


def is_for_elsewhere(line: str) -> bool:
    """Return whether a line of a constraints file has a marker."""
    return ";" in line and not line.startswith("#")


def is_for_cuda(line: str) -> bool:
    """Return whether only PyTorch's CUDA build needs the package in a line of a constraints file."""
    return bool(re.search(r'platform_system == "Linux"', line))


def _name(pin: str) -> str:
    return canonicalize_name(pin.partition("==")[0])


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


if __name__ == "__main__":
    main()
