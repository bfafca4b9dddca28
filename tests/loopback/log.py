"""Every request that came in, what was wrong with it, and what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.loopback.errors import Complaint
    from tests.loopback.faults import Fault
    from tests.loopback.messages import Upload


@dataclass(slots=True)
class Request:
    """One HTTP request.

    Attributes:
        at: When it came (the loop's clock, in seconds).
        method: The HTTP method.
        path: The path behind ``/api/v10``.
        template: The path's template in Discord's description; None where it has none.
        query: The query's parameters.
        headers: The headers.
        body: The JSON body, or that of ``payload_json``.
        uploads: The files.
        complaints: What the description finds wrong with the body.
        validated: Whether the description was there and covers this request.
        status: What was answered; None while it is being answered, or where the connection was dropped.
        answer: The JSON answered.
        seconds: How long the answer took.
        fault: What went wrong with it on order.
    """

    at: float
    method: str
    path: str
    template: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    body: Any = None
    uploads: list[Upload] = field(default_factory=list)
    complaints: list[Complaint] = field(default_factory=list)
    validated: bool = False
    status: int | None = None
    answer: Any = None
    seconds: float | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """Something a good bot does not do: what kind of thing, the request if it was one, and the particulars."""

    kind: str
    detail: str
    request: Request | None = field(default=None, repr=False)

    def __str__(self) -> str:
        where = f"{self.request.method} {self.request.path[:60]}: " if self.request else ""
        return f"[{self.kind}] {where}{self.detail}"
