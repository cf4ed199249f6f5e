from __future__ import annotations

import traceback

import pytest

from shared.errors import SettingsError
from shared.settings import get_settings


def test_the_defaults_are_those_of_the_reference() -> None:
    settings = get_settings()
    assert settings.enable_sse_push
    assert settings.events_stream_maxlen == 1000
    assert settings.sse_keepalive_seconds == 15
    assert settings.events_replay_max_per_request == 200
    assert settings.upload_max_bytes == 50 * 1024 * 1024


@pytest.mark.parametrize(
    ("variable", "value", "takes"),
    [
        ("EVENTS_STREAM_MAXLEN", "-1", "a number greater than 0"),
        ("EVENTS_STREAM_MAXLEN", "many", "a whole number"),
        ("SSE_KEEPALIVE_SECONDS", "0", "a number greater than 0"),
        ("SSE_MAX_CONCURRENT_PER_USER", "-1", "a number of 0 or more"),
        ("ENABLE_SSE_PUSH", "perhaps", "true or false"),
        ("AUTH_TYPE", "basic", "'none', 'jwt' or 'callable'"),
        ("JWT_SECRET_KEY", "hunter2", "at least 32 characters"),
        ("AUTH_CALLABLE", "myapp.auth", "yourpackage.auth:current_user"),
        ("REDIS_URL", "http://u:hunter2@x", "redis://"),
        ("REDIS_URL", "redis://:hunter2/x@h/0", "redis://"),
        ("REDIS_URL", "redis://:hunter2@h/0?family=ipv4", "the option family"),
        ("REDIS_URL", "redis://:hunter2@h/0?socket_timeout=abc", "the option socket_timeout"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_taken(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, takes: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as raised:
        get_settings()
    assert variable in str(raised.value)
    assert takes in str(raised.value)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:p@h:6380/3?socket_timeout=2&health_check_interval=5&protocol=2",
        "rediss://h/0?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_a_url_may_have_the_options_that_redis_py_knows(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert get_settings().require_redis_url() == url


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENT_MAX_BYTES", "x")
    monkeypatch.setenv("UPLOAD_MAX_BYTES", "y")
    with pytest.raises(SettingsError, match=r"(?s)EVENT_MAX_BYTES.*UPLOAD_MAX_BYTES"):
        get_settings()


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOAD_MAX_BYTES", "")
    assert get_settings().upload_max_bytes == 52_428_800


def test_a_missing_url_says_what_to_do() -> None:
    with pytest.raises(SettingsError, match=r"REDIS_URL is not set.*eventstream dev"):
        get_settings().require_redis_url()


def test_a_cluster_needs_servers_of_celerys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_CLUSTER", "true")
    with pytest.raises(SettingsError, match="CELERY_BROKER_URL"):
        get_settings().require_celery_urls()
