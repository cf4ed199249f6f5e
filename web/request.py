"""What the stream and the question who is asking need of a request, the same on both faces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from werkzeug.sansio.http import parse_cookie

USER_EVENTS = "/api/events"
_MESSAGE_EVENTS = re.compile("/api/messages/([^/]+)/events")


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its body.

    `headers` are by lower-case name; of a query parameter that is repeated the first counts.
    `path` is the application's own; `root_path` is what goes before it in the browser's address,
    without a slash at its end. `address` is the client's, as far as the server knows it.
    """

    headers: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    path: str = USER_EVENTS
    scheme: str = "http"
    address: str = ""
    root_path: str = ""

    @property
    def opens_stream(self) -> bool:
        """Whether it is answered by a stream of events."""
        is_stream = self.path == USER_EVENTS or self.message_id is not None
        return self.method == "GET" and is_stream

    @property
    def message_id(self) -> str | None:
        """Which message's events it is for, as the client wrote it; None where for none."""
        match = _MESSAGE_EVENTS.fullmatch(self.path)
        return match[1] if match else None

    @property
    def cursor(self) -> str | None:
        """The cursor that it carries, in whatever form; empty or None for none."""
        return self.headers.get("last-event-id") or self.query.get("last_event_id")

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name; of a repeated one the first. One that is odd spoils no other."""
        return parse_cookie(self.headers.get("cookie")).to_dict()

    @property
    def bearer_token(self) -> str | None:
        """What follows `Authorization: Bearer` (RFC 6750); None without such a header."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None
