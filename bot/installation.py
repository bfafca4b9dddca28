"""How this program was installed and started, so that advice to its operator names commands that exist there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "gpt2-for-discord"
_CHECKOUT: Final = Path(__file__).parents[1]


def is_checkout() -> bool:
    """Return whether this runs from a checkout or an unpacked source distribution, rather than from a wheel."""
    return (_CHECKOUT / "constraints.txt").is_file()


def program() -> str:
    """Return the beginning of a command line for this program: the installed script, if it was started by that."""
    return DISTRIBUTION if Path(sys.argv[0]).stem == DISTRIBUTION else "python -m bot"


def install_command(extra: str = "") -> str:
    """Return the command that installs this project with an extra; quoted, because zsh expands brackets."""
    extras = f"[{extra}]" if extra else ""
    if is_checkout():
        return f'python -m pip install -c constraints.txt -e ".{extras}"'
    return f'python -m pip install "{DISTRIBUTION}{extras}"'
