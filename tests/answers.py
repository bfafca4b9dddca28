"""Answers of the bot in a process of its own, as its user waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.loopback import Interaction, Message


async def answered(interaction: Interaction, *, within: float = 60) -> Message:
    """Wait until the samples have stopped growing, and return the message: its footer has the speed."""
    await interaction.until(lambda each: "tokens/s" in each.text, within=within, what="the samples")
    return interaction.messages[-1]
