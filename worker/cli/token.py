"""`eventstream token`: a token to develop and to try things with."""

from __future__ import annotations

import time

import click
import jwt

from shared.errors import EventStreamError
from shared.settings import get_settings

_TTL_SECONDS = 3600


class NoToken(EventStreamError):
    """A token needs a user id: text that is not empty."""


@click.command
@click.argument("user")
@click.option(
    "--ttl",
    "ttl_seconds",
    type=click.IntRange(min=1),
    default=_TTL_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long it is good.",
)
@click.option("--operator", is_flag=True, help="Say that USER may see /operator.")
def token(user: str, ttl_seconds: int, operator: bool) -> None:
    """Print a token (JWT, HS256) for USER, signed with JWT_SECRET_KEY.

    It names JWT_AUDIENCE and JWT_ISSUER where they are set. For development: whoever can read the
    key can be anybody.
    """
    if not user.strip():
        raise NoToken
    settings = get_settings()
    now = int(time.time())
    claims = {
        settings.jwt_operator_claim: operator or None,
        "sub": user,
        "iat": now,
        "exp": now + ttl_seconds,
        "aud": settings.jwt_audience,
        "iss": settings.jwt_issuer,
    }
    given = {name: value for name, value in claims.items() if value is not None}
    click.echo(jwt.encode(given, settings.require_jwt_secret_key(), "HS256"))
