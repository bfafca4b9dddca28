"""What Discord refuses although its OpenAPI description does not say so.

Each rule is a sentence of Discord's documentation (or, where marked, of its answers) that no schema holds: totals,
things that exclude each other, references between a body and its files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.loopback.errors import Complaint
from tests.loopback.world import ATTACHMENT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.loopback.messages import Draft

Path = tuple[str | int, ...]

CONTENT_LIMIT = 2000
EMBEDS_LIMIT = 6000  # all titles, descriptions, field names and values, footers and authors of a message
V2_TEXT_LIMIT = 4000  # all text displays of a message
V2_COMPONENT_LIMIT = 40  # nested ones count
ROWS_LIMIT = 5  # without Components V2
ALT_TEXT_LIMIT = 1024
COMMAND_TEXT_LIMIT = 8000  # names, descriptions and choice values of one command
MODAL_PARTS_LIMIT = 5

COMPONENTS_V2 = 1 << 15
ROW, BUTTON, STRING_SELECT, TEXT_INPUT = 1, 2, 3, 4
SELECTS = frozenset({3, 5, 6, 7, 8})
TEXT_DISPLAY, CONTAINER, LABEL = 10, 17, 18
SECTION, THUMBNAIL, GALLERY, FILE = 9, 11, 12, 13
LINK_STYLE, PREMIUM_STYLE = 5, 6
SUBCOMMAND, GROUP = 1, 2
CHAT_INPUT = 1


def walk(components: Sequence[Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every component with its path, parents first."""
    for index, component in enumerate(components):
        if not isinstance(component, dict):
            continue
        here = (*path, index)
        yield here, component
        yield from walk(component.get("components") or (), (*here, "components"))
        for key in ("accessory", "component"):
            if isinstance(component.get(key), dict):
                yield (*here, key), component[key]


def media(component: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the media items that a component shows, as they stand in it."""
    kind = component.get("type")
    if kind == GALLERY:
        return [item["media"] for item in component.get("items", ())]
    if kind == THUMBNAIL:
        return [component["media"]]
    if kind == FILE:
        return [component["file"]]
    return []


def message_complaints(draft: Draft) -> list[Complaint]:
    """Return what Discord refuses about a message that satisfies the description."""
    found = [*_file_complaints(draft), *_embed_complaints(draft.embeds), *_mention_complaints(draft.allowed_mentions)]
    if draft.components_v2:
        found += _v2_complaints(draft)
    else:
        found += _classic_complaints(draft)
    found += _component_complaints(draft.components)
    return found


def _file_complaints(draft: Draft) -> Iterator[Complaint]:
    for index, attachment in enumerate(draft.attachments):
        if len(attachment.description or "") > ALT_TEXT_LIMIT:
            yield Complaint(
                ("attachments", index, "description"),
                "BASE_TYPE_MAX_LENGTH",
                f"{len(attachment.description or '')} characters, at most {ALT_TEXT_LIMIT}",
            )
    if len(draft.attachments) > 10:
        yield Complaint(("attachments",), "BASE_TYPE_MAX_LENGTH", f"{len(draft.attachments)} files, at most 10")
    for identifier in draft.unknown_attachments:
        yield Complaint(("attachments",), "ATTACHMENT_UNKNOWN", f"no file and no attachment has the id {identifier}")
    names = {attachment.filename for attachment in draft.attachments}
    for path, name in draft.references():
        if name not in names:
            yield Complaint(
                path, "UNFURLED_MEDIA_ITEM_REFERENCED_ATTACHMENT_NOT_FOUND", f"no attachment is called {name}"
            )


def oversized(content: bytes) -> bool:
    """Return whether a file is over the limit of an unboosted server."""
    return len(content) > ATTACHMENT_LIMIT


def _embed_complaints(embeds: Sequence[dict[str, Any]]) -> Iterator[Complaint]:
    total = 0
    for index, embed in enumerate(embeds):
        texts = [embed.get("title"), embed.get("description")]
        texts += [(embed.get("footer") or {}).get("text"), (embed.get("author") or {}).get("name")]
        for field in embed.get("fields") or ():
            texts += [field.get("name"), field.get("value")]
        total += sum(len(text or "") for text in texts)
        shown = any(texts) or any(embed.get(key) for key in ("image", "thumbnail", "video"))
        if not shown:
            yield Complaint(("embeds", index), "EMBED_EMPTY", "an embed shows nothing")
    if total > EMBEDS_LIMIT:
        yield Complaint(("embeds",), "MAX_EMBED_SIZE_EXCEEDED", f"{total} characters, at most {EMBEDS_LIMIT}")


def _mention_complaints(allowed: dict[str, Any] | None) -> Iterator[Complaint]:
    for kind in ("users", "roles"):
        if allowed and kind in (allowed.get("parse") or ()) and allowed.get(kind):
            yield Complaint(
                ("allowed_mentions",),
                "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE",
                f'parse:["{kind}"] and {kind}: [ids...] are mutually exclusive.',
            )


def _v2_complaints(draft: Draft) -> Iterator[Complaint]:
    for key in ("content", "embeds", "poll"):
        if getattr(draft, key):
            yield Complaint(
                (key,),
                "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2",
                f"The '{key}' field cannot be used when using MessageFlags.IS_COMPONENTS_V2",
            )
    everything = [component for _, component in walk(draft.components)]
    if len(everything) > V2_COMPONENT_LIMIT:
        yield Complaint(
            ("components",),
            "BASE_TYPE_MAX_LENGTH",
            f"{len(everything)} components counting nested ones, at most {V2_COMPONENT_LIMIT}",
        )
    text = sum(len(c.get("content") or "") for c in everything if c.get("type") == TEXT_DISPLAY)
    if text > V2_TEXT_LIMIT:
        yield Complaint(
            ("components",),
            "COMPONENT_DISPLAYABLE_TEXT_SIZE_EXCEEDED",
            f"{text} characters of displayable text, at most {V2_TEXT_LIMIT}",
        )


def _classic_complaints(draft: Draft) -> Iterator[Complaint]:
    if len(draft.content) > CONTENT_LIMIT:
        yield Complaint(("content",), "BASE_TYPE_MAX_LENGTH", f"{len(draft.content)} characters, at most 2000")
    if len(draft.components) > ROWS_LIMIT:
        yield Complaint(("components",), "BASE_TYPE_MAX_LENGTH", f"{len(draft.components)} rows, at most {ROWS_LIMIT}")
    for index, component in enumerate(draft.components):
        if component.get("type") != ROW:
            yield Complaint(
                ("components", index, "type"),
                "UNION_TYPE_CHOICES",
                'Value of field "type" must be one of (1,): without IS_COMPONENTS_V2 there are only action rows',
            )


def _component_complaints(components: Sequence[dict[str, Any]]) -> Iterator[Complaint]:
    custom_ids: set[str] = set()
    numbers: set[int] = set()
    for path, component in walk(components):
        here = ("components", *path)
        custom_id, number = component.get("custom_id"), component.get("id")
        if custom_id in custom_ids:
            yield Complaint((*here, "custom_id"), "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id is duplicated")
        if number and number in numbers:
            yield Complaint((*here, "id"), "COMPONENT_ID_DUPLICATED", f"two components have the id {number}")
        custom_ids |= {custom_id} if custom_id is not None else set()
        numbers |= {number} if number else set()
        if component.get("type") == BUTTON:
            yield from _button_complaints(here, component)
        elif component.get("type") == ROW:
            yield from _row_complaints(here, component.get("components") or ())
        elif component.get("type") in SELECTS:
            yield from _select_complaints(here, component)


def _button_complaints(here: Path, button: dict[str, Any]) -> Iterator[Complaint]:
    style = button.get("style")
    wanted = {LINK_STYLE: "url", PREMIUM_STYLE: "sku_id"}.get(style or 0, "custom_id")
    for key in ("custom_id", "url", "sku_id"):
        if (button.get(key) is not None) != (key == wanted):
            yield Complaint((*here, key), "BUTTON_COMPONENT_INVALID", f"a button of style {style} has a {wanted} alone")
    if style != PREMIUM_STYLE and not button.get("label") and not button.get("emoji"):
        yield Complaint(here, "BUTTON_COMPONENT_EMPTY", "a button needs a label or an emoji")


def _row_complaints(here: Path, children: Sequence[dict[str, Any]]) -> Iterator[Complaint]:
    kinds = [child.get("type") for child in children]
    if any(kind in SELECTS for kind in kinds) and len(kinds) > 1:
        yield Complaint(here, "COMPONENT_LAYOUT_WIDTH_EXCEEDED", "a select menu fills its row")


def _select_complaints(here: Path, select: dict[str, Any]) -> Iterator[Complaint]:
    least, most = select.get("min_values", 1), select.get("max_values", 1)
    options = select.get("options") or ()
    if least is not None and most is not None and least > most:
        yield Complaint((*here, "min_values"), "SELECT_MIN_OVER_MAX", f"min_values {least} is over max_values {most}")
    if select.get("type") == STRING_SELECT:
        if len({option.get("value") for option in options}) < len(options):
            yield Complaint((*here, "options"), "SELECT_OPTION_VALUE_DUPLICATED", "two options have the same value")
        if most is not None and most > len(options):
            yield Complaint((*here, "max_values"), "SELECT_MAX_OVER_OPTIONS", f"{most} of {len(options)} options")


def modal_complaints(modal: dict[str, Any]) -> list[Complaint]:
    """Return what Discord refuses about a form that satisfies the description."""
    parts = modal["components"]
    found: list[Complaint] = []
    if len(parts) > MODAL_PARTS_LIMIT:  # the description says 40, the documentation and the API say 5
        found.append(Complaint(("data", "components"), "BASE_TYPE_MAX_LENGTH", f"{len(parts)} parts, at most 5"))
    seen: set[str] = set()
    for path, component in walk(parts):
        here = ("data", "components", *path)
        custom_id = component.get("custom_id")
        if custom_id is not None and custom_id in seen:
            found.append(Complaint((*here, "custom_id"), "COMPONENT_CUSTOM_ID_DUPLICATED", "custom id is duplicated"))
        seen |= {custom_id} if custom_id is not None else set()
        if component.get("type") == TEXT_INPUT:
            found += _text_input_complaints(here, component, labelled="component" in here)
    return found


def _text_input_complaints(here: Path, text: dict[str, Any], *, labelled: bool) -> Iterator[Complaint]:
    least, most, value = text.get("min_length") or 0, text.get("max_length") or 4000, text.get("value") or ""
    if least > most:
        yield Complaint((*here, "min_length"), "TEXT_INPUT_MIN_OVER_MAX", f"min_length {least} is over {most}")
    if len(value) > most:
        yield Complaint((*here, "value"), "BASE_TYPE_MAX_LENGTH", f"{len(value)} characters, at most {most}")
    if labelled and text.get("label"):
        yield Complaint((*here, "label"), "TEXT_INPUT_LABELLED_TWICE", "inside a Label it has no label of its own")
    if not labelled and not text.get("label"):
        yield Complaint((*here, "label"), "BASE_TYPE_REQUIRED", "in an action row it needs a label")


# Lower case where the script has it: CHAT_INPUT names are matched by ^[-_'\p{L}\p{N}\p{sc=Deva}\p{sc=Thai}]{1,32}$.
_NAME = re.compile(r"^[-_'\w]{1,32}$")


def command_complaints(commands: Sequence[dict[str, Any]]) -> list[Complaint]:
    """Return what Discord refuses about commands that satisfy the description."""
    found: list[Complaint] = []
    seen: set[tuple[int, str]] = set()
    counts: dict[int, int] = {}
    for index, command in enumerate(commands):
        kind = command.get("type") or CHAT_INPUT
        counts[kind] = counts.get(kind, 0) + 1
        if (kind, command["name"]) in seen:
            found.append(
                Complaint((index, "name"), "APPLICATION_COMMANDS_DUPLICATE_NAME", "command names must be unique")
            )
        seen.add((kind, command["name"]))
        found += _one_command((index,), command, kind)
    for kind, limit in ((1, 100), (2, 5), (3, 5)):
        if counts.get(kind, 0) > limit:
            found.append(Complaint((), "APPLICATION_COMMANDS_MAX", f"{counts[kind]} of type {kind}, at most {limit}"))
    return found


def _one_command(here: Path, command: dict[str, Any], kind: int) -> Iterator[Complaint]:
    if kind != CHAT_INPUT:
        for key in ("description", "options"):
            if command.get(key):
                yield Complaint((*here, key), "APPLICATION_COMMAND_CONTEXT_MENU", f"a menu entry has no {key}")
        return
    if not command.get("description"):
        yield Complaint((*here, "description"), "BASE_TYPE_REQUIRED", "This field is required")
    yield from _names(here, command)
    yield from _options(here, command.get("options") or (), depth=0)
    size = _size(command)
    if size > COMMAND_TEXT_LIMIT:
        yield Complaint(here, "APPLICATION_COMMAND_TOO_LARGE", f"{size} characters, at most {COMMAND_TEXT_LIMIT}")


def _names(here: Path, named: dict[str, Any]) -> Iterator[Complaint]:
    localized = named.get("name_localizations") or {}
    for path, name in [(("name",), named["name"]), *((("name_localizations", k), v) for k, v in localized.items())]:
        if not _NAME.match(name) or name != name.lower():
            yield Complaint((*here, *path), "APPLICATION_COMMAND_INVALID_NAME", f"Command name is invalid: {name!r}")


def _options(here: Path, options: Sequence[dict[str, Any]], depth: int) -> Iterator[Complaint]:
    nested = [option["type"] in (SUBCOMMAND, GROUP) for option in options]
    if any(nested) and not all(nested):
        yield Complaint((*here, "options"), "APPLICATION_COMMAND_OPTIONS_MIXED", "subcommands stand alone")
    names = [option["name"] for option in options]
    if len(set(names)) < len(names):
        yield Complaint((*here, "options"), "APPLICATION_COMMAND_OPTIONS_NAME_DUPLICATE", "option names must be unique")
    optional_seen = False
    for index, option in enumerate(options):
        inner = (*here, "options", index)
        yield from _names(inner, option)
        if option["type"] in (SUBCOMMAND, GROUP):
            if depth > 1 or (depth == 1 and option["type"] == GROUP):
                yield Complaint(inner, "APPLICATION_COMMAND_OPTIONS_DEPTH", "groups nest one deep")
            yield from _options(inner, option.get("options") or (), depth + 1)
            continue
        if option.get("required") and optional_seen:
            yield Complaint(
                inner, "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", "required options come before optional ones"
            )
        optional_seen |= not option.get("required")
        if option.get("autocomplete") and option.get("choices"):
            yield Complaint(inner, "APPLICATION_COMMAND_AUTOCOMPLETE_CHOICES", "choices and autocomplete exclude")


def _size(named: dict[str, Any]) -> int:
    """Return the characters that count for a command: of each field the longest of default and translations."""

    def longest(key: str) -> int:
        texts = [named.get(key) or "", *(named.get(f"{key}_localizations") or {}).values()]
        return max(map(len, texts))

    choices = sum(len(choice["name"]) + len(str(choice["value"])) for choice in named.get("choices") or ())
    return longest("name") + longest("description") + choices + sum(map(_size, named.get("options") or ()))


def callback_complaints(asked: int, answered: int) -> list[Complaint]:
    """Return whether an interaction of type ``asked`` may be answered with a callback of type ``answered``."""
    allowed = {2: {4, 5, 9}, 3: {4, 5, 6, 7, 9}, 4: {8}, 5: {4, 5, 6, 7}}[asked]
    if answered in allowed:
        return []
    return [Complaint(("type",), "INTERACTION_CALLBACK_TYPE", f"callback type {answered} does not answer type {asked}")]


def lone_surrogates(value: object) -> bool:
    """Return whether any string in a body holds half a surrogate pair."""
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return any(map(lone_surrogates, value.values()))
    return isinstance(value, list) and any(map(lone_surrogates, value))
