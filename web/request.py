"""What the stream and the question who is asking need of a request, the same on both faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from werkzeug.sansio.http import parse_cookie


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
    path: str = "/api/events"
    scheme: str = "http"
    address: str = ""
    root_path: str = ""

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name; of a repeated one the first. One that is odd spoils no other."""
        return parse_cookie(self.headers.get("cookie")).to_dict()

    @property
    def bearer_token(self) -> str | None:
        """What follows `Authorization: Bearer` (RFC 6750); None without such a header."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None
