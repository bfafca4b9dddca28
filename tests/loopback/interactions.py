"""Interactions: what a person did, and all that the bot made of it."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.loopback import errors, rules
from tests.loopback.messages import EPHEMERAL, LOADING, Draft, Message, MessageStore, Upload
from tests.loopback.world import Channel, User, snowflake

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.loopback.changes import Changes

PING, COMMAND, COMPONENT, AUTOCOMPLETE, MODAL_SUBMIT = range(1, 6)
REPLY, DEFER_REPLY, DEFER_UPDATE, UPDATE, CHOICES, MODAL = 4, 5, 6, 7, 8, 9
CHAT_INPUT_MESSAGE, MENU_MESSAGE, FOLLOWUP_MESSAGE = 20, 23, 19
USER_INSTALL_FOLLOWUPS = 5


@dataclass(slots=True, eq=False)
class Interaction:
    """One thing a person did, and what came of it.

    Attributes:
        id: The snowflake.
        token: Its secret, with which anybody can answer for 15 minutes.
        kind: 2 command, 3 component, 4 autocomplete, 5 form sent.
        user: Who did it.
        channel: Where.
        payload: The whole INTERACTION_CREATE, as it went over the gateway.
        source: The message whose component was used, if any.
        sent_at: When it went out (the loop's clock, in seconds).
        callback: The acknowledgement's body, once there is one.
        seconds: How long the acknowledgement took, from going out to arriving; None before.
        original: The answer: the message that the acknowledgement made, or changed.
        followups: Further messages, in order.
        modal: The form shown, if any: its ``custom_id``, ``title`` and ``components``.
        choices: What autocomplete offered.
    """

    id: int
    token: str
    kind: int
    user: User
    channel: Channel
    payload: dict[str, Any]
    changes: Changes = field(repr=False)
    source: Message | None = None
    sent_at: float = 0.0
    callback: dict[str, Any] | None = None
    seconds: float | None = None
    original: Message | None = None
    followups: list[Message] = field(default_factory=list)
    modal: dict[str, Any] | None = None
    choices: list[dict[str, Any]] | None = None
    _revisions_before: int = 0

    @property
    def callback_type(self) -> int | None:
        """Return how it was acknowledged: 4 message, 5 "thinking", 6 and 7 update, 8 choices, 9 form."""
        return None if self.callback is None else int(self.callback["type"])

    @property
    def messages(self) -> list[Message]:
        """Return the living answers: the original, then the follow-ups."""
        everything = ([self.original] if self.original is not None else []) + self.followups
        return [message for message in everything if not message.deleted]

    @property
    def text(self) -> str:
        """Return all that a person reads in the living answers."""
        return "\n".join(message.text for message in self.messages)

    @property
    def is_answered(self) -> bool:
        """Return whether the person has an answer: a message, a form, choices, or a deleted message."""
        if self.callback_type is None:
            return False
        if self.callback_type == DEFER_REPLY:
            return self.original is None or self.original.deleted or not self.original.loading
        if self.callback_type == DEFER_UPDATE:
            touched = self.original is not None and len(self.original.revisions) > self._revisions_before
            return touched or bool(self.followups)
        return True

    async def acknowledged(self, within: float = 10.0) -> float:
        """Wait for the acknowledgement.

        Returns:
            The seconds it took; over 3 of them Discord has told the person "The application did not respond".
        """
        await self.changes.until(lambda: self.callback is not None, within=within, what=lambda: f"acknowledged: {self}")
        assert self.seconds is not None
        return self.seconds

    async def answered(self, within: float = 30.0) -> Message:
        """Wait for the answer: the original response filled in, changed or deleted.

        Returns:
            The original response, or the first follow-up where the original is deleted or was never a message.

        Raises:
            LookupError: If the answer is no message (a form, choices, or nothing but a deletion).
        """
        await self.changes.until(lambda: self.is_answered, within=within, what=lambda: f"answered: {self}")
        for message in [*self.messages, *([self.original] if self.original is not None else [])]:
            return message
        raise LookupError(f"answered, but not with a message: {self}")

    async def until(self, predicate: Callable[[Interaction], object], *, within: float = 30.0, what: str = "") -> None:
        """Wait for anything: the predicate is asked again after each request the bot makes."""
        await self.changes.until(lambda: predicate(self), within=within, what=lambda: f"{what or predicate}: {self}")

    async def followed_up(self, count: int = 1, within: float = 30.0) -> Message:
        """Wait until there are ``count`` follow-ups and return the last of these."""
        await self.changes.until(
            lambda: len(self.followups) >= count, within=within, what=lambda: f"{count} follow-ups: {self}"
        )
        return self.followups[count - 1]

    def __str__(self) -> str:
        did = self.payload["data"].get("name") or self.payload["data"].get("custom_id")
        state = "nothing yet" if self.callback is None else f"callback {self.callback_type}"
        return f"interaction {did!r} of {self.user.name}: {state}, {self.text[:200]!r}"


class InteractionDesk:
    """Takes the bot's answers to interactions.

    Args:
        bot: The bot's own user.
        application_id: The application's snowflake.
        messages: Where messages are kept.
        changes: Told of every change.
        complain: Hears of violations that no request's body shows.
        window_seconds: How long an acknowledgement may take.
        token_seconds: How long an interaction's token lives.
    """

    def __init__(
        self,
        bot: User,
        application_id: int,
        messages: MessageStore,
        changes: Changes,
        complain: Callable[[str, str], None],
        *,
        window_seconds: float,
        token_seconds: float,
    ) -> None:
        self._bot = bot
        self._application_id = application_id
        self._messages = messages
        self._changes = changes
        self._complain = complain
        self.window_seconds = window_seconds
        self.token_seconds = token_seconds
        self.by_token: dict[str, Interaction] = {}

    def open(
        self, kind: int, user: User, channel: Channel, payload: dict[str, Any], source: Message | None
    ) -> Interaction:
        """Register an interaction; its payload is given the id and the token."""
        identifier, token = snowflake(), secrets.token_urlsafe(80)
        payload |= {"id": str(identifier), "token": token}
        interaction = Interaction(identifier, token, kind, user, channel, payload, self._changes, source)
        self.by_token[token] = interaction
        return interaction

    def _age(self, interaction: Interaction) -> float:
        return asyncio.get_running_loop().time() - interaction.sent_at

    # The acknowledgement

    def acknowledge(
        self, identifier: int, token: str, body: dict[str, Any], uploads: Sequence[Upload]
    ) -> tuple[Interaction, dict[str, Any]]:
        """Take an interaction callback; return the interaction and the answer for ``with_response``."""
        interaction = self.by_token.get(token)
        if interaction is None or interaction.id != identifier:
            raise errors.unknown_interaction()
        if interaction.callback is not None:
            self._complain("acknowledged twice", str(interaction))
            raise errors.already_acknowledged()
        age = self._age(interaction)
        if age > self.window_seconds:
            self._complain("acknowledged late", f"{age:.2f} s: {interaction}")
            raise errors.unknown_interaction()
        kind: int = body["type"]
        if complaints := rules.callback_complaints(interaction.kind, kind):
            raise errors.invalid_form(complaints)
        self._carry_out(interaction, kind, body.get("data") or {}, uploads)
        interaction.callback, interaction.seconds = body, age
        self._changes.announce()
        return interaction, self._callback_answer(interaction, kind)

    def _carry_out(self, interaction: Interaction, kind: int, data: dict[str, Any], uploads: Sequence[Upload]) -> None:
        if kind == REPLY:
            draft = self._messages.draft(interaction.channel, data, uploads)
            self._refuse_draft(draft, ("data",))
            interaction.original = self._create(interaction, draft)
        elif kind == DEFER_REPLY:
            draft = Draft(flags=(data.get("flags") or 0) & EPHEMERAL | LOADING)
            interaction.original = self._create(interaction, draft)
        elif kind in {DEFER_UPDATE, UPDATE}:
            self._update_source(interaction, kind, data, uploads)
        elif kind == CHOICES:
            self._offer(interaction, data.get("choices") or [])
        elif kind == MODAL:
            if complaints := rules.modal_complaints(data):
                raise errors.invalid_form(complaints)
            interaction.modal = data

    def _update_source(
        self, interaction: Interaction, kind: int, data: dict[str, Any], uploads: Sequence[Upload]
    ) -> None:
        source = interaction.source
        if source is None:
            complaint = errors.Complaint(("type",), "INTERACTION_CALLBACK_TYPE", "there is no message to update")
            raise errors.invalid_form([complaint])
        if kind == UPDATE:
            draft = self._messages.draft(interaction.channel, data, uploads, source.draft)
            self._refuse_draft(draft, ("data",))
            source.edited = _now()
            self._messages.settle(source, draft)
        interaction.original = source
        interaction._revisions_before = len(source.revisions)

    def _offer(self, interaction: Interaction, choices: list[dict[str, Any]]) -> None:
        wanted: tuple[type, ...] = {3: (str,), 4: (int,), 10: (int, float)}[_focused(interaction.payload["data"])]
        for index, choice in enumerate(choices):
            if not isinstance(choice["value"], wanted):
                path = ("data", "choices", index, "value")
                complaint = errors.Complaint(path, "BASE_TYPE_BAD_TYPE", "the value's type is not the option's")
                raise errors.invalid_form([complaint])
        interaction.choices = choices

    def _callback_answer(self, interaction: Interaction, kind: int) -> dict[str, Any]:
        about: dict[str, Any] = {"id": str(interaction.id), "type": interaction.kind}
        about["channel_id"] = str(interaction.channel.id)
        answer: dict[str, Any] = {"interaction": about}
        if interaction.channel.guild is not None:
            about["guild_id"] = str(interaction.channel.guild.id)
        if interaction.original is not None:
            about |= {
                "response_message_id": str(interaction.original.id),
                "response_message_loading": interaction.original.loading,
                "response_message_ephemeral": interaction.original.ephemeral,
            }
            if kind in {REPLY, UPDATE}:
                answer["resource"] = {"type": kind, "message": interaction.original.payload()}
        return answer

    # What follows, through the interaction's webhook

    def _by_webhook(self, application_id: int, token: str) -> Interaction:
        interaction = self.by_token.get(token)
        if application_id != self._application_id or interaction is None or interaction.callback is None:
            raise errors.unknown_webhook()
        if self._age(interaction) > self.token_seconds:
            raise errors.invalid_token()
        return interaction

    def follow_up(self, application_id: int, token: str, body: dict[str, Any], uploads: Sequence[Upload]) -> Message:
        """Take a follow-up message."""
        interaction = self._by_webhook(application_id, token)
        if interaction.original is not None and interaction.original.loading:
            # "When using this endpoint directly after responding with DEFERRED_CHANNEL_MESSAGE_WITH_SOURCE, this
            # endpoint will function as Edit Original Interaction Response for backwards compatibility."
            return self._edit(interaction.original, body, uploads)
        by_user_alone = "0" not in interaction.payload["authorizing_integration_owners"]
        if by_user_alone and len(interaction.followups) >= USER_INSTALL_FOLLOWUPS:
            self._complain("too many follow-ups", str(interaction))
            raise errors.too_many_followups()
        draft = self._messages.draft(interaction.channel, body, uploads)
        self._refuse_draft(draft)
        message = self._create(interaction, draft, kind=FOLLOWUP_MESSAGE)
        interaction.followups.append(message)
        self._changes.announce()
        return message

    def message(self, application_id: int, token: str, which: str) -> Message:
        """Return the message that ``@original`` or an id means."""
        interaction = self._by_webhook(application_id, token)
        if which == "@original":
            if interaction.original is None or interaction.original.deleted:
                raise errors.unknown_message()
            return interaction.original
        message = self._messages.get(int(which) if which.isdecimal() else 0)
        if message not in (interaction.original, *interaction.followups):
            raise errors.unknown_message()
        return message

    def edit(
        self, application_id: int, token: str, which: str, body: dict[str, Any], uploads: Sequence[Upload]
    ) -> Message:
        """Take an edit of an answer."""
        return self._edit(self.message(application_id, token, which), body, uploads)

    def delete(self, application_id: int, token: str, which: str) -> None:
        """Take the deletion of an answer."""
        self._messages.delete(self.message(application_id, token, which))
        self._changes.announce()

    def _edit(self, message: Message, body: dict[str, Any], uploads: Sequence[Upload]) -> Message:
        draft = self._messages.draft(message.channel, body, uploads, message.draft)
        self._refuse_draft(draft)
        if not message.loading:  # filling in a deferred answer is no edit
            message.edited = _now()
        self._messages.settle(message, draft)
        self._changes.announce()
        return message

    def _refuse_draft(self, draft: Draft, root: tuple[str | int, ...] = ()) -> None:
        if complaints := self._messages.check(draft):
            rooted = [errors.Complaint((*root, *c.path), c.code, c.message) for c in complaints]
            raise errors.invalid_form(rooted)

    def _create(self, interaction: Interaction, draft: Draft, kind: int | None = None) -> Message:
        if kind is None:
            menu = interaction.payload["data"].get("type", 1) != 1
            kinds = {COMMAND: MENU_MESSAGE if menu else CHAT_INPUT_MESSAGE}
            kind = kinds.get(interaction.kind, FOLLOWUP_MESSAGE if interaction.source else 0)
        message = Message(
            snowflake(),
            interaction.channel,
            self._bot,
            draft,
            kind=kind,
            viewer=interaction.user if draft.flags & EPHEMERAL else None,
            metadata=_metadata(interaction),
            reference=(interaction.original or interaction.source) if kind == FOLLOWUP_MESSAGE else None,
            application_id=self._application_id,
        )
        self._messages.settle(message, draft)
        return message


def _metadata(interaction: Interaction) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "id": str(interaction.id),
        "type": interaction.kind,
        "user": interaction.user.payload(),
        "authorizing_integration_owners": interaction.payload["authorizing_integration_owners"],
    }
    if interaction.kind == COMMAND and "target_id" in interaction.payload["data"]:
        metadata["target_message_id"] = interaction.payload["data"]["target_id"]
    if interaction.kind == COMPONENT and interaction.source is not None:
        metadata["interacted_message_id"] = str(interaction.source.id)
    if interaction.kind == MODAL_SUBMIT:
        metadata["triggering_interaction_metadata"] = {**metadata, "type": COMMAND}
    return metadata


def _focused(data: dict[str, Any]) -> int:
    """Return the type of the option that is being typed."""
    for option in data.get("options", ()):
        if option.get("focused"):
            return int(option["type"])
        if "options" in option:
            return _focused(option)
    raise LookupError("no option is focused")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
