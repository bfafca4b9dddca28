"""Matplotlib as it is shipped, so that pictures are the same on every machine.

When matplotlib is imported, it reads what the host has configured: a matplotlibrc with fonts, sizes and grids of its
own, and MPLBACKEND, which notebooks set and which fails if it names a backend that this Python does not have. So
`bot.figures` imports this module before any other.
"""

from __future__ import annotations

import os

os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}

import matplotlib as mpl  # reads these variables

mpl.rcdefaults()  # a matplotlibrc in the working directory goes before the variable
