"""Commands, grouped by theme. Each acknowledges, asks the engine and presents the answer."""

from __future__ import annotations

from typing import Final

from cogs.attention import Attention
from cogs.continuations import Continuations
from cogs.information import Information
from cogs.owner import Owner
from cogs.prompts import Prompts
from cogs.tokens import Tokens
from cogs.weights import Weights
from cogs.writing import Writing

COGS: Final = (Continuations, Writing, Attention, Tokens, Prompts, Weights, Information, Owner)
"""Every cog, in the order of /help."""
