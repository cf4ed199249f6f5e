"""Who is asking, and whether a write comes from our own pages."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
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


def identify(headers: Mapping[str, str], settings: Settings) -> str:
    """Returns the id of the user who sends these headers (names in lower case).

    Raises:
        Refusal: 403, everyone is one user here, and the host is a name that is not ours: a page
            whose own name was pointed at this address could read everything (DNS rebinding).
    """
    host = _hostname("//" + headers.get("host", ""))
    if not (_is_address(host) or host == "localhost" or host in settings.allowed_host_names):
        message = (
            "This host name is not one of ours. ALLOWED_HOSTS takes names, with commas between."
        )
        raise Refusal(403, "unknown_host", message)
    return ANONYMOUS


def check_origin(headers: Mapping[str, str]) -> None:
    """Refuses a write that a browser sends from another site's page (header `Origin`).

    Raises:
        Refusal: 403, the origin is not this host.
    """
    origin = headers.get("origin")
    if origin is not None and _netloc(origin) != headers.get("host"):
        raise Refusal(403, "cross_origin", "Writes are taken from this site's own pages only.")


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
