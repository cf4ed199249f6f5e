"""Who is asking, and whether a write comes from our own pages."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from shared.errors import SettingsError
from shared.settings import Settings
from web.refusal import Refusal

ANONYMOUS = "local"


def check_settings(settings: Settings) -> None:
    """Refuses to serve anonymously unless that was asked for.

    Raises:
        SettingsError: `AUTH_TYPE=none` without `ALLOW_ANONYMOUS=true`.
    """
    if not settings.allow_anonymous:
        raise SettingsError(
            "AUTH_TYPE=none lets everyone in as the user 'local', so it needs "
            "ALLOW_ANONYMOUS=true, which takes true or false and is false now."
        )


def identify(headers: Mapping[str, str]) -> str:
    """Returns the id of the user who sends these headers (names in lower case)."""
    return ANONYMOUS


def check_origin(headers: Mapping[str, str]) -> None:
    """Refuses a write that a browser sends from another site's page (header `Origin`).

    Raises:
        Refusal: 403, the origin is not this host.
    """
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise Refusal(403, "cross_origin", "Writes are taken from this site's own pages only.")
