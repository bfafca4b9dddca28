"""Discord's bad days, on order: errors, delays and broken connections, by method and path."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

FOREVER = 1 << 62


@dataclass(slots=True)
class Fault:
    """What goes wrong with the next ``count`` requests that match.

    Attributes:
        method: The HTTP method, or "*".
        path: A regular expression searched in the path behind ``/api/v10``.
        status: The status answered instead; None lets the request through (for a delay alone).
        count: How many requests it hits.
        delay: Seconds before anything happens.
        drop: Whether the connection is torn down instead of answered.
        after: Whether the request takes effect first: Discord did it, and the answer was lost.
        body: The JSON answered; a 429 and a 5xx have one by default.
        headers: Further headers; a 429 has ``Via`` by default, without which discord.py takes it for a ban.
        retry_after: A 429's seconds.
        hits: How many requests it has hit.
    """

    method: str = "*"
    path: str = ""
    status: int | None = None
    count: int = 1
    delay: float = 0.0
    drop: bool = False
    after: bool = False
    body: dict[str, Any] | None = None
    headers: dict[str, str] | None = None
    retry_after: float = 0.05
    hits: int = 0

    @property
    def spoils(self) -> bool:
        """Return whether Discord's own answer does not reach the bot."""
        return self.drop or self.status is not None

    @property
    def bans(self) -> bool:
        """Return whether it is Cloudflare's refusal, after which a good bot sends nothing for a while."""
        return self.status == 429 and self.headers is not None and "Via" not in self.headers

    def matches(self, method: str, path: str) -> bool:
        """Return whether it is still due and means this request."""
        return self.hits < self.count and self.method in {"*", method} and bool(re.search(self.path, path))

    def answer(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the body and the headers to answer with."""
        if self.status == 429:
            body = {"message": "You are being rate limited.", "code": 0, "global": False}
            body["retry_after"] = self.retry_after
            headers = {"Via": "1.1 google", "Retry-After": f"{self.retry_after:.3f}", "X-RateLimit-Scope": "shared"}
        else:
            body, headers = {"message": f"{self.status}: injected", "code": 0}, {}
        return (
            self.body if self.body is not None else body,
            self.headers if self.headers is not None else headers,
        )


@dataclass(slots=True)
class Faults:
    """The faults on order; the first that matches a request is the one that happens."""

    due: list[Fault] = field(default_factory=list)

    def add(self, method: str = "*", path: str = "", **settings: Any) -> Fault:
        """Order a fault; see Fault for the settings. Its ``hits`` say how often it happened."""
        fault = Fault(method, path, **settings)
        self.due.append(fault)
        return fault

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault that happens to this request, if any."""
        for fault in self.due:
            if fault.matches(method, path):
                fault.hits += 1
                return fault
        return None

    def clear(self) -> None:
        """Cancel all that is on order."""
        self.due.clear()
