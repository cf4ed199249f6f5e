"""Which pages may read answers, and which may write."""

from __future__ import annotations

import pytest

from shared.errors import SettingsError
from shared.settings import Settings, get_settings
from web.cors import check_write, cors_headers
from web.refusal import Refusal
from web.request import Request

LISTED = "https://app.example.com, http://localhost:3000"
PREFLIGHT = {"access-control-request-method": "POST"}


def answered(origins: str, origin: str | None, **more: str) -> dict[str, str]:
    headers = {} if origin is None else {"origin": origin}
    request = Request({**headers, **more}, method="OPTIONS" if more else "GET")
    return cors_headers(request, Settings(cors_origins=origins))


def may_write(settings: Settings, method: str = "POST", **headers: str) -> bool:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        check_write(Request({"host": "app.test:8000", **sent}, method=method), settings)
    except Refusal as refusal:
        assert (refusal.status, refusal.code) == (403, "cross_origin")
        return False
    return True


def test_nobody_is_let_in_unless_the_settings_say_so() -> None:
    assert answered("", "https://app.example.com") == {}


@pytest.mark.parametrize("origin", ["https://app.example.com", "http://localhost:3000"])
def test_a_listed_origin_reads_with_its_cookies(origin: str) -> None:
    assert answered(LISTED, origin) == {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After",
    }


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "*",
        "https://example.com",
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com.evil.test",
        "https://evil.test/https://app.example.com",
    ],
)
def test_any_other_origin_reads_nothing_and_caches_keep_them_apart(origin: str | None) -> None:
    assert answered(LISTED, origin) == {"Vary": "Origin"}


@pytest.mark.parametrize("origin", ["https://evil.test", "null", "*", None])
def test_a_star_opens_what_needs_no_cookies(origin: str | None) -> None:
    headers = answered("*", origin)
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in headers


def test_beside_a_star_a_listed_origin_keeps_its_cookies() -> None:
    assert answered(f"*,{LISTED}", "https://app.example.com")["Access-Control-Allow-Credentials"]
    assert "Access-Control-Allow-Credentials" not in answered(f"*,{LISTED}", "https://evil.test")


def test_a_preflight_learns_what_it_may_send() -> None:
    headers = answered(LISTED, "https://app.example.com", **PREFLIGHT)
    assert headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST, DELETE"
    assert headers["Access-Control-Allow-Headers"] == (
        "Authorization, Last-Event-ID, Content-Type, Idempotency-Key"
    )
    assert int(headers["Access-Control-Max-Age"]) > 0
    assert answered(LISTED, "https://evil.test", **PREFLIGHT) == {"Vary": "Origin"}


@pytest.mark.parametrize(
    "origins",
    [
        "app.example.com",
        "https://",
        "https://app.example.com/",
        "https://a.test/path",
        "https://user@a.test",
        "https://a.test https://b.test",
        "https://*.example.com",
        "https://a.test:port",
        "null",
        "https://a.test,,https://b.test",
    ],
)
def test_what_is_no_origin_is_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, origins: str
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", origins)
    with pytest.raises(SettingsError, match=r"CORS_ORIGINS is wrong.*https://app\.example\.com"):
        get_settings()


@pytest.mark.parametrize("origins", ["*", LISTED, "http://[::1]:8000", "capacitor://localhost"])
def test_origins_of_every_kind_are_taken(origins: str) -> None:
    assert Settings(cors_origins=origins).allowed_origins


@pytest.mark.parametrize("auth_type", ["none", "jwt", "callable"])
def test_a_browser_writes_from_this_host_and_from_listed_origins_only(auth_type: str) -> None:
    settings = Settings.model_validate({"auth_type": auth_type, "cors_origins": LISTED})
    assert may_write(settings)
    assert may_write(settings, origin="http://app.test:8000")
    assert may_write(settings, origin="https://APP.test:8000")
    assert may_write(settings, origin="https://app.example.com")
    assert may_write(settings, sec_fetch_site="same-origin")
    assert not may_write(settings, origin="https://evil.test")
    assert not may_write(settings, origin="http://app.test")
    assert not may_write(settings, origin="null")
    assert not may_write(settings, origin="null", host="")
    assert not may_write(settings, origin="http://[", host="")
    assert not may_write(settings, sec_fetch_site="cross-site")
    assert not may_write(settings, "DELETE", origin="https://evil.test")
    assert may_write(settings, "GET", origin="https://evil.test")


def test_a_star_lets_nobody_write() -> None:
    settings = Settings(cors_origins="*")
    assert not may_write(settings, origin="https://evil.test")
    assert not may_write(settings, origin="*")


def test_a_token_in_a_header_comes_from_a_page_that_knows_it() -> None:
    evil = {"origin": "https://evil.test", "sec_fetch_site": "cross-site"}
    assert may_write(Settings(auth_type="jwt"), **evil, authorization="bearer x")
    assert not may_write(Settings(auth_type="jwt"), **evil, authorization="Basic x")
    for auth_type in ("none", "callable"):
        settings = Settings.model_validate({"auth_type": auth_type})
        assert not may_write(settings, **evil, authorization="Bearer x")
