"""The authenticator: what it needs at the start, and when an event loop must not wait for it."""

from __future__ import annotations

from typing import Any

import pytest

from shared.settings import Settings
from tests.signing import SECRET, hs256
from web import create_app
from web.api import user
from web.auth import Authenticator
from web.identity import Identity
from web.refusal import Refusal
from web.request import Request


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "ALLOW_ANONYMOUS=true"),
        ({"AUTH_TYPE": "jwt"}, "exactly one of JWT_SECRET_KEY and JWT_JWKS_URL"),
        ({"AUTH_TYPE": "callable"}, "needs AUTH_CALLABLE"),
    ],
)
def test_web_does_not_start_without_what_its_kind_of_authentication_needs(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=rf"^error: .*{reason}"):
        create_app()


@pytest.mark.parametrize(
    ("request_", "waits"),
    [
        (Request({}), False),
        (Request({"authorization": f"Bearer {hs256()}"}, {"ticket": "x"}), False),
        (Request({"cookie": f"eventstream_token={hs256()}"}), False),
        (Request({}, {"ticket": "x"}), True),
        (Request({}, {"ticket": "x"}, method="HEAD"), False),
        (Request({}, {"ticket": "x"}, path="/api/sources"), False),
        (Request({"cookie": f"eventstream_token={hs256()}; eventstream_session=x"}), True),
    ],
)
def test_only_what_redis_knows_makes_a_known_key_wait(request_: Request, waits: bool) -> None:
    by_token = Authenticator(Settings(auth_type="jwt", jwt_secret_key=SECRET))
    assert by_token.blocks(request_) is waits


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "events.test"])
def test_everyone_is_one_user_on_a_host_of_ours(host: str) -> None:
    anonymous = Authenticator(Settings(allow_anonymous=True, allowed_hosts="events.test"))
    request = Request({"host": host, "authorization": "Bearer x"}, {"ticket": "x"})
    assert anonymous.identify(request).user_id == "local"
    assert not anonymous.blocks(request)


@pytest.mark.parametrize("host", ["evil.test", "", "[", "localhost.evil.test"])
def test_nobody_is_that_user_under_a_name_that_is_not_ours(host: str) -> None:
    anonymous = Authenticator(Settings(allow_anonymous=True, allowed_hosts="events.test"))
    with pytest.raises(Refusal) as raised:
        anonymous.identify(Request({"host": host}))
    assert (raised.value.status, raised.value.code) == (403, "unknown_host")


@pytest.mark.parametrize(
    ("host", "address", "headers", "is_operator"),
    [
        ("localhost:8000", "127.0.0.1", {}, True),
        ("127.0.0.1:8000", "::ffff:127.0.0.1", {}, True),
        ("[::1]:8000", "::1", {}, True),
        ("localhost:8000", "192.0.2.7", {}, False),
        ("localhost:8000", "", {}, False),  # a Unix socket: whoever is behind it is not known
        ("192.0.2.1:8000", "127.0.0.1", {}, False),
        ("events.test", "127.0.0.1", {}, False),
        ("localhost", "127.0.0.1", {"x-forwarded-for": ""}, False),
        ("localhost", "127.0.0.1", {"forwarded": "for=127.0.0.1"}, False),
        ("localhost", "127.0.0.1", {"via": "1.1 proxy"}, False),
    ],
)
def test_where_everyone_is_one_user_only_who_is_near_is_an_operator(
    host: str, address: str, headers: dict[str, str], is_operator: bool
) -> None:
    request = Request({"host": host, **headers}, address=address)
    for is_asked_for in (True, False):
        settings = Settings(
            allow_anonymous=True, allowed_hosts="events.test", operator_on_loopback=is_asked_for
        )
        identity = Authenticator(settings).identify(request)
        assert identity.is_operator is (is_operator and is_asked_for)


@pytest.mark.parametrize("said", ["false", "0", 1, None, False])
def test_what_is_not_true_makes_no_operator(monkeypatch: pytest.MonkeyPatch, said: Any) -> None:
    monkeypatch.setattr(user, "request_identity", lambda: Identity("olga", is_operator=said))
    with pytest.raises(Refusal) as raised:
        user.require_operator()
    assert raised.value.code == "not_operator"
