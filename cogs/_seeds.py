"""Seeds for requests that give none."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import discord


def seed_of(interaction: discord.Interaction) -> int:
    """Return a hash of the interaction's id, so that a restart draws the same."""
    return int.from_bytes(hashlib.sha256(str(interaction.id).encode()).digest()[:4], "big")
