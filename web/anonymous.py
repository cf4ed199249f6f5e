"""`AUTH_TYPE=none`: everyone is one user."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from shared.errors import SettingsError
from shared.settings import Settings
from web.identity import Identity
from web.refusal import Refusal
from web.request import Request

ANONYMOUS = "local"
# What proxies say of those for whom they ask.
PASSED_ON = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
)


class Anonymous:
    """Raises SettingsError where serving anonymously was not asked for."""

    def __init__(self, settings: Settings) -> None:
        if not settings.allow_anonymous:
            raise SettingsError(
                "AUTH_TYPE=none lets everyone in as the user 'local', so it needs "
                "ALLOW_ANONYMOUS=true, which takes true or false and is false now."
            )
        self._has_operators = settings.operator_on_loopback
        self._host_names = {"localhost", *settings.allowed_host_names}

    def blocks(self, request: Request) -> bool:
        """Never."""
        return False

    def identify(self, request: Request) -> Identity:
        """The one user there is.

        Raises:
            Refusal: 403, the host is a name that is not ours: a page whose own name was pointed
                at this address could read everything (DNS rebinding).
        """
        host = _hostname(request.headers.get("host", ""))
        if not (_is_address(host) or host in self._host_names):
            message = (
                "This host name is not one of ours. ALLOWED_HOSTS takes names, with commas between."
            )
            raise Refusal(403, "unknown_host", message)
        is_operator = self._has_operators and _is_near(request, host)
        return Identity(ANONYMOUS, is_operator=is_operator)


def _is_near(request: Request, host: str) -> bool:
    """Whether it comes from this machine itself, and through nobody who passes it on.

    A proxy on the same machine is near, and whoever it speaks for is not; of one that says nothing
    of them that can't be told, so it takes a setting to let anybody be an operator by this.
    """
    is_passed_on = any(name in request.headers for name in PASSED_ON)
    is_to_us = host == "localhost" or _is_loopback(host)
    return is_to_us and not is_passed_on and _is_loopback(request.address)


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


def _hostname(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
