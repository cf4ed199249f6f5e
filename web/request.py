"""What the stream and the question who is asking need of a request, the same on both faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its body.

    `headers` are by lower-case name; of a query parameter that is repeated the first counts.
    `address` is the client's, as far as the server knows it.
    """

    headers: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    path: str = "/api/events"
    scheme: str = "http"
    address: str = ""

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name; none of a header that is no list of cookies."""
        try:
            jar = SimpleCookie(self.headers.get("cookie", ""))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in jar.items()}
