"""The bot without root's power to pass over modes, so that what is read-only is so for root too; run as an `entry`."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

from bot.__main__ import main as run

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words for each set
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def obey_modes() -> None:
    """Give up the capabilities that let root write where the mode says no; an ordinary user has none of them."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION, 0), (_Sets * 2)()
    if libc.capget(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capget")
    kept = ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    sets[0].effective &= kept
    sets[0].permitted &= kept
    if libc.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capset")


def main(arguments: Sequence[str]) -> int:
    """Run the bot's own main."""
    if os.geteuid() == 0:
        obey_modes()
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
