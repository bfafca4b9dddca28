"""How a setting is declared, and parsers from the text of a setting to its value.

A parser raises ValueError with the rest of a sentence that begins with the setting's name.
"""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

Default = TypeVar("Default")
Parsed = TypeVar("Parsed")

TRUE: Final = frozenset({"1", "true", "yes", "on"})
FALSE: Final = frozenset({"0", "false", "no", "off"})
_MAX_TOKEN_FILE_BYTES: Final = 4096


def setting(default: Default, parser: Callable[[str], Parsed], explanation: str) -> Default | Parsed:
    """Return the dataclass field of a setting.

    Args:
        default: The value if none is given.
        parser: Turns the text of a value into the value.
        explanation: For the operator, as `.env.example` shows it.
    """
    return field(default=default, metadata={"parser": parser, "explanation": explanation})


def integer(maximum: int, *, zero: str) -> Callable[[str], int]:
    """Return a parser of whole numbers from 0, which means `zero`, to `maximum`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > maximum:
            raise ValueError(f"must be a whole number from 0 ({zero}) to {maximum}, not {text!r}.")
        return int(text)

    return parse


def choice(literal: object, fold: Callable[[str], str] = str.lower) -> Callable[[str], Any]:
    """Return a parser of the values of a `Literal`, written in any case; `fold` gives theirs."""
    allowed = get_args(literal)

    def parse(text: str) -> str:
        if fold(text) not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}, not {text!r}.")
        return fold(text)

    return parse


def boolean(text: str) -> bool:
    """Parse a switch: true, yes, on or 1, and their opposites."""
    if text.lower() not in TRUE | FALSE:
        raise ValueError(f"must be true or false, not {text!r}.")
    return text.lower() in TRUE


def seconds(text: str) -> float:
    """Parse a number of seconds, which may have decimals."""
    if not re.fullmatch(r"[0-9]{1,3}([.][0-9]+)?", text):
        raise ValueError(f"must be a number of seconds below 1000, not {text!r}.")
    return float(text)


def path(text: str) -> Path:
    """Parse a path; "~" is expanded."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # "~name" of an unknown user
        raise ValueError(f"must be a path, not {text!r}: {error}") from error


def path_or_off(text: str) -> Path | None:
    """Parse a path, or "off"."""
    return None if text.lower() in FALSE else path(text)


def shard_ids(text: str) -> tuple[int, ...]:
    """Parse ids and ranges of ids: "0", "0,1" or "0-3,8"."""
    ids: set[int] = set()
    for part in text.replace(" ", "").split(","):
        found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise ValueError(f"must be shards such as 0, 0,1 or 0-3, not {text!r}.")
        ids.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return tuple(sorted(ids))


def addresses(text: str) -> tuple[str, ...]:
    """Parse HTTP addresses separated by commas."""
    found = tuple(address.strip() for address in text.split(",") if address.strip())
    if not found or not all(re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", address) for address in found):
        raise ValueError(f"must be addresses such as http://127.0.0.1:8000, separated by commas, not {text!r}.")
    return found


def model_names(most: int) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of up to `most` different names separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(","))
        if not all(names):
            raise ValueError(f"has an empty name between its commas: {text!r}.")
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated:
            raise ValueError(f"names {repeated!r} twice.")
        if len(names) > most:
            raise ValueError(f"names {len(names)} models; at most {most} fit into the list that Discord shows.")
        return names

    return parse


def memory(text: str) -> int:
    """Parse a size of memory, such as "4 GB", in bytes; 0 needs no unit."""
    found = re.fullmatch(r"([0-9]{1,6}(?:[.][0-9]{1,3})?)\s*([KMGT]?)(i?)B?", text, re.IGNORECASE)
    if not found or not (found[2] or re.fullmatch(r"[0.]+", found[1])):
        raise ValueError(f"must be a size such as 4 GB or 1500 MB, or 0 for no limit, not {text!r}.")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))


def link(text: str) -> str:
    """Parse a link to a web page."""
    if not re.fullmatch(r"https?://[^\s/]+\S*", text):
        raise ValueError(f"must be a link that begins with https://, not {text!r}.")
    return text


def proxy(text: str) -> str:
    """Parse the address of an HTTP proxy, in which "http://" may be left out."""
    address = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        # Not quoted: it may hold a password.
        raise ValueError("must be the address of an HTTP proxy, http://host:port or http://user:password@host:port.")
    return address


def unquoted(text: str) -> str:
    """Return a text without the spaces and the pair of quotes around it."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].strip() if quoted else text


def token_in(name: str) -> str:
    """Read the token from the file `name`."""
    try:
        with Path(name).open("rb") as file:
            content = file.read(_MAX_TOKEN_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = (error.strerror or "unknown error") if isinstance(error, OSError) else "it is not text"
        raise ValueError(f"names {name!r}, which cannot be read: {reason}.") from error
    token = unquoted(text)
    if not token or len(content) > _MAX_TOKEN_FILE_BYTES:
        raise ValueError(f"names {name!r}, which must hold the token and nothing else.")
    return token
