"""Tickets for EventSource, which can send no header, and the sessions that they open.

A ticket is good once, for thirty seconds. Its use opens a session, known by a cookie that scripts
can't read, so that EventSource's own reconnects go on although their address carries a used
ticket. Redis knows the SHA-256 of both, and neither outlives the token that it came from, or makes
an operator: a ticket travels in addresses, which are logged.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from shared import keys
from shared.connections import AnyRedis
from shared.encoding import to_json
from shared.steps import reachable_redis
from web.circuit import Circuit
from web.identity import Identity
from web.request import Request

TICKET_SECONDS = 30
SESSION_SECONDS = 86_400  # where the token has no end of its own
LONGEST_SECONDS = 400 * 86_400  # as long as browsers keep a cookie (RFC 6265bis, section 5.5)
COOKIE = "eventstream_session"

_circuit = Circuit()


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket as it is handed out."""

    text: str
    expires_in_seconds: int


class Tickets:
    """Issues and redeems; every method raises RedisUnavailable where Redis does not answer.

    While it does not, only one a second of this process's lookups tries, and the rest fail at once.
    """

    def issue(self, identity: Identity) -> Ticket:
        """A new ticket for somebody."""
        secret = secrets.token_urlsafe(32)
        text = f"{secret}.{_mark(secret, identity.user_id)}"
        seconds = min(TICKET_SECONDS, _seconds_left(identity))
        self._keep(keys.ticket(text), identity, seconds)
        return Ticket(text, math.ceil(seconds))

    def redeem(self, text: str) -> Identity | None:
        """Who got this ticket, and never again; None for one that is used, too old or made up."""
        with _redis() as client:
            return _identity(client.getdel(keys.ticket(text)))

    def open_session(self, identity: Identity, request: Request) -> Identity:
        """The same person, with the cookie of a new session to set."""
        seconds = _seconds_left(identity)
        secret = secrets.token_urlsafe(32)
        opened = replace(identity, expires_at=time.time() + seconds)
        self._keep(keys.session(secret), opened, seconds)
        return replace(opened, headers=_set_cookie(request, secret, math.ceil(seconds)))

    def close_session(self, request: Request) -> Mapping[str, str]:
        """Ends the session of a request, where it has one; returns what has its cookie dropped."""
        secret = request.cookies.get(COOKIE)
        if secret:
            with _redis() as client:
                client.delete(keys.session(secret))
        return _set_cookie(request, "", 0)

    def session(self, secret: str) -> Identity | None:
        """Whose session this is; None for one that has ended or is made up."""
        with _redis() as client:
            return _identity(client.get(keys.session(secret)))

    def _keep(self, key: str, identity: Identity, seconds: float) -> None:
        value = to_json({"user": identity.user_id, "expires_at": identity.expires_at})
        with _redis() as client:
            client.set(key, value, px=max(1, int(seconds * 1000)))


@contextmanager
def _redis() -> Iterator[AnyRedis]:
    with _circuit.guard(), reachable_redis() as client:
        yield client


def _set_cookie(request: Request, value: str, seconds: int) -> Mapping[str, str]:
    cookie = f"{COOKIE}={value}; Path={quote(request.root_path)}/api; Max-Age={seconds}; HttpOnly"
    cookie += "; SameSite=Strict" + ("; Secure" if request.scheme == "https" else "")
    return {"Set-Cookie": cookie}


def is_of_another(ticket: str, user_id: str) -> bool:
    """Whether a ticket, used or not, was somebody else's.

    Two tabs of one browser share its cookie. Where the other tab signed in as another user, this
    one's reconnect must not go on with that user's events.
    """
    secret, dot, mark = ticket.partition(".")
    return bool(dot) and mark != _mark(secret, user_id)


def _mark(secret: str, user_id: str) -> str:
    return hashlib.sha256(f"{secret}:{user_id}".encode()).hexdigest()[:16]


def _seconds_left(identity: Identity) -> float:
    end = identity.expires_at
    left = SESSION_SECONDS if end is None else max(0.0, end - time.time())
    return min(LONGEST_SECONDS, left)


def _identity(value: Any) -> Identity | None:
    if value is None:
        return None
    kept = json.loads(value)
    return Identity(kept["user"], kept["expires_at"])
