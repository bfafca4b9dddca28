"""A runner of the programs for readers."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

mpl.use("Agg")


@dataclass
class Run:
    """The output of a program.

    Attributes:
        printed: Its standard output.
        names: Its variables.
        figure: Its drawing, if any.
    """

    printed: str
    names: dict[str, Any] = field(repr=False)
    figure: Figure | None


def at_home(program: str, folder: Path) -> str:
    """Return the program with the path of the model filled in, as a reader would."""
    line = re.compile(r"^model = .*$", re.MULTILINE)
    assert len(line.findall(program)) == 1
    return line.sub(lambda _: f"model = {str(folder)!r}", program)


def run(program: str, folder: Path) -> Run:
    """Run a program in this process, torch's global generator put back afterwards."""
    plt.close("all")
    output, names = io.StringIO(), {"__name__": "__main__"}
    with torch.random.fork_rng(), contextlib.redirect_stdout(output), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive", UserWarning)
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        exec(compile(at_home(program, folder), "program.py", "exec"), names)  # noqa: S102 # our own program
        if plt.get_fignums():
            plt.gcf().canvas.draw()  # as the window that a reader sees
    return Run(output.getvalue(), names, plt.gcf() if plt.get_fignums() else None)
