"""Pictures do not depend on what the host has configured for matplotlib."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.command_line import run_python
from tests.figures.test_positional import draw, noise

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
from tests.figures.test_defaults import digests
print(*digests())
"""
RC = "text.usetex: True\nfont.size: 22\nfont.family: serif\naxes.grid: True\nimage.origin: lower\n"


def digests() -> list[str]:
    """Return digests of pictures in both styles."""
    pictures = draw(noise(50, 40), "clear"), draw(noise(50, 40), "article")
    return [hashlib.sha256(picture.file).hexdigest() for picture in pictures]


@pytest.mark.parametrize("place", ["working directory", "MATPLOTLIBRC"])
def test_a_hosts_configuration_changes_no_picture(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "configuration"
    folder.mkdir()
    if place == "MATPLOTLIBRC":
        (folder / "matplotlibrc").write_bytes(f"# Größe\n{RC}".encode("latin-1"))  # which matplotlib refuses to read
    else:
        (tmp_path / "matplotlibrc").write_text(RC)
    environment = {"MPLBACKEND": "module://no_such_notebook.backend_inline", "MATPLOTLIBRC": str(folder)}
    process = run_python("-c", PROGRAM, folder=tmp_path, environment=environment)
    assert process.stdout.split() == digests(), process.stderr
