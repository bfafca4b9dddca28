"""Print the notes of a release, and refuse a tag that does not fit the project: `python -m tools.release v0.1.0`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


def notes(tag: str, version: str, changelog: str) -> str:
    """Return the changelog's section for a version.

    Raises:
        ValueError: The tag is not the version's, or the changelog has no dated section for it, or an empty one.
    """
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, but pyproject.toml has the version {version}")
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}\n"
    found = re.search(rf"{heading}(.*?)(?=^## |\Z)", changelog, flags=re.MULTILINE | re.DOTALL)
    if not found or not found[1].strip():
        raise ValueError(f"CHANGELOG.md has no section [{version}] with a date and changes")
    return found[1].strip() + "\n"


def main() -> None:
    """Print the notes for the tag on the command line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        sys.stdout.write(notes(sys.argv[1], project["version"], (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    except ValueError as error:
        sys.exit(f"release: {error}")


if __name__ == "__main__":
    main()
