"""`AUTH_TYPE=jwt`: a token in a header or a cookie, or a ticket and its session.

What a request says explicitly goes before what a browser sends by itself: the header, then a
ticket that is still good, then the cookies. A token in the address is never taken.
"""

from __future__ import annotations

from shared.settings import Settings
from web.identity import Identity, not_authenticated
from web.refusal import Refusal
from web.request import Request
from web.tickets import COOKIE, Tickets, is_of_another
from web.tokens import Tokens

NOBODY = "This needs a token: send it as 'Authorization: Bearer TOKEN'."
SPENT = "This ticket was used already, or is too old. Please get another."


class Credentials:
    """Raises SettingsError where the settings for tokens are wrong."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = Tokens(settings)
        self._tickets = Tickets()
        self._cookie = settings.jwt_cookie_name

    def blocks(self, request: Request) -> bool:
        """Whether `identify` may wait for Redis or for a server of keys."""
        token = request.bearer_token
        if token is None:
            if _ticket(request) or request.cookies.get(COOKIE):
                return True
            token = request.cookies.get(self._cookie)
        return token is not None and self._tokens.blocks(token)

    def identify(self, request: Request) -> Identity:
        """Who is asking; see `Authenticator.identify`."""
        token = request.bearer_token
        if token is not None:
            return self._tokens.verify(token)
        ticket = _ticket(request)
        if ticket is None:
            return self._by_cookie(request, NOBODY)
        identity = self._tickets.redeem(ticket)
        if identity is not None:
            return self._tickets.open_session(identity, request)
        identity = self._by_cookie(request, SPENT)
        if is_of_another(ticket, identity.user_id):
            raise not_authenticated(SPENT)
        return identity

    def _by_cookie(self, request: Request, otherwise: str) -> Identity:
        """By the token's cookie, else by the session's: an old cookie of one spoils no other."""
        token, session = (request.cookies.get(name) for name in (self._cookie, COOKIE))
        refusal = not_authenticated(otherwise)
        if token:
            try:
                return self._tokens.verify(token)
            except Refusal as error:
                if error.status != refusal.status:
                    raise
                refusal = error
        identity = self._tickets.session(session) if session else None
        if identity is None:
            raise refusal
        return identity


def _ticket(request: Request) -> str | None:
    """The ticket in the address, where one is taken: to open the stream, and for nothing else."""
    return (request.query.get("ticket") or None) if request.opens_stream else None
