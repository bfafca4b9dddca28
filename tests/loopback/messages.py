"""Messages: how a body becomes one, how an edit changes it, and what is kept of each state for a test to look at."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import mimetypes
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.loopback import rules
from tests.loopback.errors import empty_message, too_large, unknown_message
from tests.loopback.world import snowflake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.loopback.errors import Complaint
    from tests.loopback.world import Channel, User

EPHEMERAL, LOADING = 1 << 6, 1 << 7
_SETTABLE = 1 << 2 | EPHEMERAL | 1 << 12 | 1 << 13 | rules.COMPONENTS_V2
_REFERENCE = "attachment://"
_PNG = b"\x89PNG\r\n\x1a\n"
_CODE = re.compile(r"```.*?```|``.*?``|`.*?`", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a multipart body, under its field's name (``files[0]``)."""

    field: str
    filename: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a message, its bytes kept.

    Attributes:
        id: The snowflake.
        filename: Its name.
        content: Its bytes.
        description: Its alt text.
        url: Where this server hands it out.
        ephemeral: Whether its message is.
    """

    id: int
    filename: str
    content: bytes = field(repr=False)
    description: str | None
    url: str
    ephemeral: bool = False

    @property
    def content_type(self) -> str | None:
        """Return the media type, guessed from the name."""
        return mimetypes.guess_type(self.filename)[0]

    @property
    def dimensions(self) -> tuple[int, int] | None:
        """Return a PNG's width and height in pixels."""
        if not self.content.startswith(_PNG):
            return None
        return int.from_bytes(self.content[16:20], "big"), int.from_bytes(self.content[20:24], "big")

    def media(self) -> dict[str, Any]:
        """Return the unfurled media item that stands for it in a component."""
        item: dict[str, Any] = {"id": str(self.id), "attachment_id": str(self.id)}
        item |= {"url": self.url, "proxy_url": self.url}
        item |= {"content_type": self.content_type} if self.content_type else {}
        return item | self._size()

    def payload(self) -> dict[str, Any]:
        """Return the attachment object."""
        item: dict[str, Any] = {"id": str(self.id), "filename": self.filename, "size": len(self.content)}
        item |= {"url": self.url, "proxy_url": self.url}
        item |= {"description": self.description} if self.description else {}
        item |= {"content_type": self.content_type} if self.content_type else {}
        item |= {"ephemeral": True} if self.ephemeral else {}
        return item | self._size()

    def _size(self) -> dict[str, int]:
        return {"width": self.dimensions[0], "height": self.dimensions[1]} if self.dimensions else {}


@dataclass(slots=True)
class Draft:
    """What a message would be if Discord took the body that asks for it."""

    content: str = ""
    embeds: list[dict[str, Any]] = field(default_factory=list)
    components: list[dict[str, Any]] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    flags: int = 0
    poll: dict[str, Any] | None = None
    tts: bool = False
    allowed_mentions: dict[str, Any] | None = None
    unknown_attachments: list[str] = field(default_factory=list)

    @property
    def components_v2(self) -> bool:
        """Return whether the message is laid out by components alone."""
        return bool(self.flags & rules.COMPONENTS_V2)

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to see."""
        if self.components_v2:
            return not self.components
        return not (self.content.strip() or self.embeds or self.attachments or self.components or self.poll)

    def _media(self) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
        for path, component in rules.walk(self.components):
            for index, item in enumerate(rules.media(component)):
                yield ("components", *path, "media", index), item
        for index, embed in enumerate(self.embeds):
            for key, inner in (("image", "url"), ("thumbnail", "url"), ("author", "icon_url"), ("footer", "icon_url")):
                if isinstance(embed.get(key), dict) and embed[key].get(inner):
                    yield ("embeds", index, key), {"url": embed[key][inner], "embed": embed[key], "inner": inner}

    def references(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield path and file name of every ``attachment://name``."""
        for path, item in self._media():
            if item["url"].startswith(_REFERENCE):
                yield path, item["url"].removeprefix(_REFERENCE)

    def referenced(self) -> set[int]:
        """Return the ids of the attachments that embeds and components show."""
        by_name = {attachment.filename: attachment.id for attachment in self.attachments}
        by_url = {attachment.url: attachment.id for attachment in self.attachments}
        urls = [item["url"] for _, item in self._media()]
        found = {by_name.get(url.removeprefix(_REFERENCE)) for url in urls if url.startswith(_REFERENCE)}
        found |= {by_url.get(url) for url in urls}
        return {identifier for identifier in found if identifier is not None}

    def resolve(self) -> None:
        """Put Discord's own fields into the components and embeds: ids, defaults, and the addresses of files."""
        by_key = {_REFERENCE + attachment.filename: attachment for attachment in self.attachments}
        by_key |= {attachment.url: attachment for attachment in self.attachments}
        for _, item in self._media():
            attachment = by_key.get(item["url"])
            if "embed" in item:
                if attachment is not None:
                    item["embed"][item["inner"]] = attachment.url
                continue
            if attachment is not None:
                item.update(attachment.media())
            else:
                item.setdefault("id", str(snowflake()))
                item.setdefault("proxy_url", item["url"])
        used = {component.get("id") for _, component in rules.walk(self.components)}
        numbers = (number for number in range(1, 1000) if number not in used)
        files = {attachment.url: attachment for attachment in self.attachments}
        for _, component in rules.walk(self.components):
            component["id"] = component.get("id") or next(numbers)
            _fill(component, files)
        for embed in self.embeds:
            embed.setdefault("type", "rich")


def _fill(component: dict[str, Any], files: dict[str, Attachment]) -> None:
    """Add the fields that Discord's answers have and its requests may leave out."""
    kind = component["type"]
    if kind == rules.CONTAINER:
        component.setdefault("accent_color", None)
    if kind == 14:  # separator
        component |= {"spacing": component.get("spacing") or 1, "divider": component.get("divider", True)}
    if kind == rules.FILE:
        attachment = files.get(component["file"]["url"])
        component |= {"name": attachment.filename if attachment else "file"}
        component |= {"size": len(attachment.content) if attachment else 0}
    if kind == rules.THUMBNAIL:
        component.setdefault("description", None)
    if kind in {rules.CONTAINER, rules.FILE, rules.THUMBNAIL}:
        component["spoiler"] = bool(component.get("spoiler"))
    for item in component.get("items", ()):
        item |= {"description": item.get("description"), "spoiler": bool(item.get("spoiler"))}


@dataclass(frozen=True, slots=True)
class Revision:
    """One state of a message: when it began (the loop's clock, in seconds) and what it was."""

    at: float
    payload: dict[str, Any] = field(repr=False)
    text: str


@dataclass(slots=True, eq=False)
class Message:
    """A message, alive or deleted, with every state it has had.

    Attributes:
        id: The snowflake.
        channel: Where it stands.
        author: Who wrote it.
        draft: What it is now; ``content``, ``embeds`` and the like read from it.
        kind: Discord's message type: 0 default, 19 reply, 20 slash command, 23 menu command.
        viewer: The one person who sees it, for an ephemeral message.
        metadata: The ``interaction_metadata`` of an answer to an interaction.
        reference: The message a follow-up replies to.
        more: Further fields of the message object, such as ``webhook_id``, ``mentions`` or ``poll``.
        revisions: Its states in order; the first is its creation, the last what it is now.
        deleted: Whether it is gone.
    """

    id: int
    channel: Channel
    author: User
    draft: Draft
    kind: int = 0
    viewer: User | None = None
    metadata: dict[str, Any] | None = None
    reference: Message | None = None
    application_id: int | None = None
    more: dict[str, Any] = field(default_factory=dict)
    created: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    edited: dt.datetime | None = None
    revisions: list[Revision] = field(default_factory=list)
    deleted: bool = False

    @property
    def content(self) -> str:
        """Return the message's text field."""
        return self.draft.content

    @property
    def embeds(self) -> list[dict[str, Any]]:
        """Return the embeds."""
        return self.draft.embeds

    @property
    def components(self) -> list[dict[str, Any]]:
        """Return the components as Discord gives them back: with ids, files resolved to addresses."""
        return self.draft.components

    @property
    def attachments(self) -> list[Attachment]:
        """Return every file with its bytes, those shown by components and embeds too."""
        return self.draft.attachments

    @property
    def flags(self) -> int:
        """Return the flag bits."""
        return self.draft.flags

    @property
    def ephemeral(self) -> bool:
        """Return whether one person alone sees it."""
        return bool(self.flags & EPHEMERAL)

    @property
    def loading(self) -> bool:
        """Return whether it still says "thinking"."""
        return bool(self.flags & LOADING)

    @property
    def text(self) -> str:
        """Return all that a person reads in it, in order, a line each: content, embeds, text displays."""
        parts: list[str | None] = [self.content]
        for embed in self.embeds:
            parts += [embed.get("title"), embed.get("description")]
            for item in embed.get("fields") or ():
                parts += [item.get("name"), item.get("value")]
            parts.append((embed.get("footer") or {}).get("text"))
        parts += [c.get("content") for _, c in rules.walk(self.components) if c["type"] == rules.TEXT_DISPLAY]
        return "\n".join(part for part in parts if part)

    @property
    def buttons(self) -> list[dict[str, Any]]:
        """Return the buttons, in order."""
        return [component for _, component in rules.walk(self.components) if component["type"] == rules.BUTTON]

    @property
    def pings(self) -> set[str]:
        """Return whom it notifies: ``everyone``, ``here``, and the ids of users and roles.

        Mentions in code do not count, nor those that ``allowed_mentions`` shuts out.
        """
        text = _CODE.sub("", "\n".join([self.content, self.text if self.draft.components_v2 else ""]))
        allowed = self.draft.allowed_mentions
        parse = set(allowed.get("parse") or ()) if allowed is not None else {"everyone", "users", "roles"}
        found = {word[1:] for word in re.findall(r"@everyone|@here", text)} if "everyone" in parse else set()
        for kind, pattern in (("users", r"<@!?(\d+)>"), ("roles", r"<@&(\d+)>")):
            named = {str(identifier) for identifier in (allowed or {}).get(kind) or ()}
            found |= {i for i in re.findall(pattern, text) if kind in parse or i in named}
        return found

    def button(self, label: str) -> dict[str, Any]:
        """Return the first button with that label."""
        for button in self.buttons:
            if button.get("label") == label:
                return button
        raise LookupError(f"no button {label!r} among {[button.get('label') for button in self.buttons]}")

    def payload(self) -> dict[str, Any]:
        """Return the message object."""
        # Files that embeds and components show are left out of "attachments":
        # https://github.com/discord/discord-api-docs/issues/8277 ("intentional behavior").
        shown = self.draft.referenced()
        body: dict[str, Any] = {
            "id": str(self.id),
            "channel_id": str(self.channel.id),
            "type": self.kind,
            "author": self.author.payload(),
            "content": self.content,
            "embeds": self.embeds,
            "components": self.components,
            "attachments": [item.payload() for item in self.attachments if item.id not in shown],
            "flags": self.flags,
            "timestamp": self.created.isoformat(),
            "edited_timestamp": self.edited.isoformat() if self.edited else None,
            "mentions": [],
            "mention_roles": [],
            "mention_everyone": bool(self.pings & {"everyone", "here"}),
            "pinned": False,
            "tts": self.draft.tts,
        }
        if self.application_id is not None:
            body |= {"application_id": str(self.application_id), "webhook_id": str(self.application_id)}
        if self.metadata is not None:
            body["interaction_metadata"] = self.metadata
        if self.reference is not None:
            body["message_reference"] = {
                "type": 0,
                "message_id": str(self.reference.id),
                "channel_id": str(self.channel.id),
            }
            if self.channel.guild is not None:
                body["message_reference"]["guild_id"] = str(self.channel.guild.id)
        return copy.deepcopy(body | self.more)

    def record(self) -> None:
        """Keep the present state as a revision."""
        self.revisions.append(Revision(asyncio.get_running_loop().time(), self.payload(), self.text))


class MessageStore:
    """All messages of the small Discord, and the files they hold.

    Args:
        address: Returns the server's own address, for the URLs of files.
        complain: Hears of what Discord takes silently and a person would miss.
    """

    def __init__(self, address: Callable[[], str], complain: Callable[[str, str], None]) -> None:
        self._address = address
        self._complain = complain
        self.messages: dict[int, Message] = {}
        self.files: dict[int, Attachment] = {}

    def get(self, identifier: int) -> Message:
        """Return a living message, or refuse with 10008."""
        message = self.messages.get(identifier)
        if message is None or message.deleted:
            raise unknown_message()
        return message

    def draft(
        self, channel: Channel, body: dict[str, Any], uploads: Sequence[Upload], old: Draft | None = None
    ) -> Draft:
        """Return what a message would be after this body; ``old`` is what it was."""
        if any(rules.oversized(upload.content) for upload in uploads):
            raise too_large()
        draft = replace(old, unknown_attachments=[]) if old is not None else Draft()
        if "content" in body:
            draft.content = (body["content"] or "").strip()  # Discord trims it
        if "embeds" in body:
            draft.embeds = copy.deepcopy(body["embeds"] or [])
        if "components" in body:
            draft.components = copy.deepcopy(body["components"] or [])
        draft.poll = body.get("poll") or draft.poll
        draft.tts = bool(body.get("tts", draft.tts))
        draft.allowed_mentions = body.get("allowed_mentions", draft.allowed_mentions)
        asked = (body.get("flags") or 0) & _SETTABLE
        if old is None:
            draft.flags = asked
        else:  # neither Components V2 nor "ephemeral" can be changed afterwards, but a message may become V2
            draft.flags = old.flags & ~LOADING | asked & (rules.COMPONENTS_V2 | 1 << 2)
        draft.attachments = self._attach(channel, body, uploads, draft)
        return draft

    def _attach(
        self, channel: Channel, body: dict[str, Any], uploads: Sequence[Upload], draft: Draft
    ) -> list[Attachment]:
        wanted = body.get("attachments")
        new = {upload.field.removeprefix("files[").removesuffix("]"): upload for upload in uploads}
        present = {str(attachment.id): attachment for attachment in draft.attachments}
        kept = list(present.values()) if "attachments" not in body else []
        for item in wanted or ():
            identifier = str(item["id"])
            if identifier in new:
                continue
            if identifier in present:
                description = item.get("description", present[identifier].description)
                kept.append(replace(present[identifier], description=description))
            else:
                draft.unknown_attachments.append(identifier)
        described = {str(item["id"]): item for item in wanted or ()}
        for index, upload in new.items():
            about = described.get(index, {})
            number = snowflake()
            filename = about.get("filename") or upload.filename
            url = f"{self._address()}/attachments/{channel.id}/{number}/{filename}"
            ephemeral = bool(draft.flags & EPHEMERAL)
            kept.append(Attachment(number, filename, upload.content, about.get("description"), url, ephemeral))
        return kept

    def check(self, draft: Draft) -> list[Complaint]:
        """Return what Discord refuses about a draft; refuse an empty one with 50006."""
        if draft.empty:
            raise empty_message()
        return rules.message_complaints(draft)

    def settle(self, message: Message, draft: Draft) -> None:
        """Make a draft that was taken the message's present state."""
        unseen = {item.id for item in draft.attachments} - draft.referenced()
        if draft.components_v2 and unseen:
            names = ", ".join(item.filename for item in draft.attachments if item.id in unseen)
            self._complain("unseen file", f"{names}: no component shows it, and with Components V2 nothing else does")
        draft.resolve()
        message.draft = draft
        self.files |= {item.id: item for item in draft.attachments}
        self.messages[message.id] = message
        message.record()

    def delete(self, message: Message) -> None:
        """Take a message away."""
        message.deleted = True
        message.revisions.append(Revision(asyncio.get_running_loop().time(), {}, ""))
