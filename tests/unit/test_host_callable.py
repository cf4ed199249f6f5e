"""`AUTH_TYPE=callable`: the host application decides, and a defect of it lets nobody in."""

from __future__ import annotations

import pytest

from shared.errors import SettingsError
from shared.settings import Settings
from web.auth import Authenticator, Identity
from web.refusal import Refusal
from web.request import Request


def asking(name: str) -> Authenticator:
    return Authenticator(Settings(auth_type="callable", auth_callable=name))


def request(user: str) -> Request:
    return Request({"cookie": f"host_session={user}"})


def test_the_host_says_who_it_is() -> None:
    host = asking("tests.host_application:current_user")
    assert host.identify(request("alice")).user_id == "alice"
    assert host.blocks(request("alice")), "it may ask a database"
    with pytest.raises(Refusal) as raised:
        host.identify(Request({}))
    assert (raised.value.status, raised.value.code) == (401, "not_authenticated")


@pytest.mark.parametrize(
    ("function", "user"),
    [("current_user", "broken"), ("nameless", "odd"), ("nameless", "blank"), ("nameless", "true")],
)
def test_a_defect_of_the_host_lets_nobody_in(
    caplog: pytest.LogCaptureFixture, function: str, user: str
) -> None:
    with pytest.raises(Refusal) as raised:
        asking(f"tests.host_application:{function}").identify(request(user))
    assert (raised.value.status, raised.value.code) == (500, "authentication_failed")
    assert f"AUTH_CALLABLE=tests.host_application:{function}" in caplog.text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "needs AUTH_CALLABLE"),
        ("tests.nowhere:current_user", "No module named"),
        ("tests.host_application:nobody", "no attribute 'nobody'"),
        ("tests.host_application:__doc__", "no function"),
        ("tests.host_application:awaited", "without await"),
    ],
)
def test_what_can_not_be_called_is_said_at_the_start(name: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        asking(name)


def test_the_host_says_who_is_an_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    found = "tests.host_application.current_user"
    monkeypatch.setattr(found, lambda asked: Identity("olga", is_operator=True))
    identity = asking("tests.host_application:current_user").identify(request("olga"))
    assert (identity.user_id, identity.is_operator) == ("olga", True)
    monkeypatch.setattr(found, lambda asked: Identity(" ", is_operator=True))
    with pytest.raises(Refusal):
        asking("tests.host_application:current_user").identify(request("olga"))
    monkeypatch.setattr(found, lambda asked: "alice")
    assert not asking("tests.host_application:current_user").identify(request("x")).is_operator
