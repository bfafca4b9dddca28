"""Outcomes of a soak: the result of each interaction, and the violations of Discord's rules that faults explain."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from tests.loopback.interactions import DEFER_REPLY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.loopback import Interaction, LoopbackDiscord, Message, Request, Violation

BAN_SECONDS = 4.0  # that the bot pauses after several of Cloudflare's refusals in a row
PENDING_TEXT = "Your answer will appear here"


class InjectedFaults:
    """The faults of a soak, which explain some violations; the bot is to blame for all others.

    They explain two kinds. A bot that never hears that its acknowledgement succeeded has to repeat it. An
    acknowledgement is late if it was refused, dropped, delayed or banned, or if only a resumed session delivered the
    interaction. A violation that a correct bot would have avoided nevertheless is its own.
    """

    def __init__(self, discord: LoopbackDiscord) -> None:
        self._window = discord.desk.window_seconds
        self._sent = {str(each.id): each.sent_at for each in discord.desk.by_token.values()}
        self._delivered = {each: resume.at for resume in discord.gateway.resumes for each in resume.brought}
        self._bans = [each.at for each in discord.requests if each.fault is not None and each.fault.bans]
        self._attempts: dict[str, list[Request]] = {}
        for each in discord.requests:
            if each.path.endswith("/callback"):
                self._attempts.setdefault(each.path, []).append(each)

    def explains(self, violation: Violation) -> bool:
        """Return whether an injected fault forced the bot to violate the rule."""
        last = violation.request
        if last is None or violation.kind not in {"acknowledged twice", "acknowledged late"}:
            return False
        attempts = self._attempts[last.path]
        earlier = attempts[: next(index for index, each in enumerate(attempts) if each is last)]
        if not all(each.fault is not None and each.fault.spoils for each in earlier):
            return False  # the bot knew the outcome of an earlier attempt
        if violation.kind == "acknowledged twice":
            return any(each.fault is not None and each.fault.after for each in earlier)
        return self._delayed(earlier, last)

    def _delayed(self, earlier: Sequence[Request], last: Request) -> bool:
        """Return whether an acknowledgement would have been in time without the faults."""
        first = (*earlier, last)[0]
        number = first.path.split("/")[2]
        sent = self._sent.get(number, first.at)
        reached = max(sent, self._delivered.get(number, sent))
        banned = any(at <= first.at and sent <= at + BAN_SECONDS for at in self._bans)
        injected = bool(earlier) or reached > sent or banned or (last.fault is not None and last.fault.delay > 0)
        return injected and (banned or first.at - reached <= self._window)


def final(interaction: Interaction) -> bool:
    """Return whether the answer is complete: no "is thinking…", no live answer, no notice that it will follow."""
    if interaction.callback_type is None:
        return False
    if interaction.callback_type != DEFER_REPLY:
        return True
    original = interaction.original
    if original is None or original.deleted:
        return bool(interaction.followups)
    live = any(component.get("custom_id", "").startswith("stop") for component in _components(original.components))
    return not original.loading and not live and PENDING_TEXT not in original.text and original.text != "…"


def _components(tree: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all components, nested ones included."""
    found = []
    for component in tree:
        found.append(component)
        found += _components(component.get("components", []))
        found += _components([component["accessory"]] if "accessory" in component else [])
    return found


def outcome(interaction: Interaction) -> str:
    """Classify what became of an interaction."""
    if interaction.callback is None:
        return "never acknowledged"
    if not final(interaction):
        return "lost"
    original = interaction.original
    if interaction.callback_type == DEFER_REPLY:
        refused = original is None or original.deleted or not (original.components or original.attachments)
        explanations = ("I was away", "I stopped unexpectedly", "older version of me")
        told = any(words in interaction.text for words in explanations)
        return "refused or told why not" if refused or told else "answered"
    plain = original is not None and original.ephemeral and not original.components
    return "refused or told why not" if plain else "answered"


def button_for_more(message: Message) -> str | None:
    """Return the custom_id of an enabled button for more samples, if the message has one."""
    if message.deleted:
        return None
    wanted = (each for each in message.buttons if each.get("label") in {"1", "Re-roll"})
    return next((str(each["custom_id"]) for each in wanted if not each.get("disabled")), None)


def percentiles(values: list[float]) -> str:
    """Format the percentiles of some durations."""
    if len(values) < 2:
        return "too few"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"p50 {cuts[49]:.2f}, p90 {cuts[89]:.2f}, p99 {cuts[98]:.2f}, most {max(values):.2f}"
