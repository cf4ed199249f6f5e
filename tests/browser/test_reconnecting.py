"""The client in a real browser on the real server: what is lost on the way comes again, once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from shared import keys
from shared.connections import app_redis
from shared.publisher import publish_user_event
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.proxy import proxied
from tests.servers import WebServer, free_port, web_server
from tests.signing import SECRET, hs256

pytestmark = pytest.mark.browser

USER = "local"
WATCH = """async ({ options, tokens, hangsAt }) => {
    const { connect } = await import("/static/eventstream.js");
    window.seen = [];
    window.states = [];
    window.asked = [];
    window.snapshots = [];
    const onSnapshot = ({ cursor }, why) =>
        void window.snapshots.push({ cursor, reason: why?.payload.reason });
    const token = tokens && ((asked) => (window.asked.push(asked), tokens.shift()));
    const onEvent = ({ payload: { n } }) => {
        window.seen.push(n);
        return n === hangsAt ? new Promise(() => {}) : undefined;
    };
    const onState = (state) => window.states.push(state);
    window.stream = connect({ user: "local", token, onEvent, onSnapshot, onState, ...options });
}"""


@pytest.fixture
def server(
    redis_url: str, redis_server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebServer]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with web_server("asgi", redis_url, SSE_KEEPALIVE_SECONDS="0.5") as server:
        yield server


def watch(page: Page, url: str, hangs_at: int = 0, **options: object) -> None:
    """Opens the client, and waits until it has its first cursor."""
    page.goto(f"{url}/openapi.json")  # any page of this origin
    page.evaluate(WATCH, {"options": options, "hangsAt": hangs_at})
    wait_until(lambda: page.evaluate("stream.cursor"), "it watches")


def publish(*numbers: int) -> None:
    for n in numbers:
        publish_user_event(USER, "test.event", {"n": n})


def saw(page: Page, *expected: int) -> None:
    wait_until(lambda: page.evaluate("seen.length") >= len(expected), f"{expected}")
    assert page.evaluate("seen") == list(expected)


def reasons(page: Page) -> list[str]:
    found: list[str] = page.evaluate("states.map(({ reason }) => reason).filter(Boolean)")
    return found


def test_a_page_that_is_loaded_again_goes_on_from_its_cursor(page: Page, server: WebServer) -> None:
    watch(page, server.url)
    publish(1, 2)
    saw(page, 1, 2)
    page.goto("about:blank")
    publish(3, 4)
    watch(page, server.url)
    publish(5)
    saw(page, 3, 4, 5)


def test_what_is_gone_by_then_is_said_with_the_state_and_the_rest_comes(
    page: Page, server: WebServer
) -> None:
    watch(page, server.url)
    publish(1)
    saw(page, 1)
    page.goto("about:blank")
    publish(2, 3, 4)
    app_redis().xtrim(keys.stream(USER), maxlen=1, approximate=False)
    watch(page, server.url)
    saw(page, 4)
    publish(5)
    saw(page, 4, 5)
    (snapshot,) = page.evaluate("snapshots")
    assert snapshot["reason"] == "trimmed"
    assert page.evaluate("stream.cursor") > snapshot["cursor"]


def test_an_event_whose_handler_was_killed_comes_again_and_those_before_do_not(
    page: Page, server: WebServer
) -> None:
    killed = page.context.new_page()
    watch(killed, server.url, hangs_at=2)
    publish(1, 2, 3)
    saw(killed, 1, 2)
    killed.close()
    watch(page, server.url)
    saw(page, 2, 3)


def test_a_server_that_is_started_again_is_found_again(
    page: Page, redis_url: str, redis_server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    port = str(free_port())
    with web_server("asgi", redis_url, port=port) as server:
        watch(page, server.url)
        publish(1)
        saw(page, 1)
    publish(2)
    with web_server("asgi", redis_url, port=port):
        publish(3)
        saw(page, 1, 2, 3)
    assert reasons(page)[0] == "ended", "the server had said good-bye"


def test_a_network_that_comes_back_is_used_at_once(page: Page, server: WebServer) -> None:
    with proxied(server.url + "/") as (proxy, url):
        watch(page, url.rstrip("/"))
        publish(1)
        saw(page, 1)
        page.context.set_offline(True)
        wait_until(lambda: not page.evaluate("navigator.onLine"), "it is offline")
        proxy.silent = True
        publish(2)
        wait_until(lambda: proxy.lost, "the event is lost on its way")
        proxy.silent = False
        page.context.set_offline(False)
        back = time.monotonic()
        saw(page, 1, 2)
        assert time.monotonic() - back < 10, "long before the watchdog"
        assert "offline" in reasons(page)
        page.evaluate("stream.close()")


def test_a_connection_that_only_looks_alive_is_replaced(page: Page, server: WebServer) -> None:
    with proxied(server.url + "/") as (proxy, url):
        watch(page, url.rstrip("/"), keepaliveMs=500)
        publish(1)
        saw(page, 1)
        proxy.silent = True
        publish(2)
        wait_until(lambda: "silent" in reasons(page), "the silence is noticed")
        proxy.silent = False
        saw(page, 1, 2)
        page.evaluate("stream.close()")


def test_a_token_that_has_expired_is_renewed_once(
    page: Page, redis_url: str, redis_server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with web_server("asgi", redis_url, AUTH_TYPE="jwt", JWT_SECRET_KEY=SECRET) as server:
        page.goto(f"{server.url}/openapi.json")
        tokens = [hs256(USER, ends_in=-60), hs256(USER)]
        page.evaluate(WATCH, {"options": {}, "tokens": tokens})
        wait_until(lambda: page.evaluate("stream.cursor"), "it watches")
        assert page.evaluate("asked") == [{"refused": False}, {"refused": True}]
        publish(1)
        saw(page, 1)


def test_one_connection_too_many_waits_as_it_was_told(
    page: Page, redis_url: str, redis_server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    limit = {"SSE_MAX_CONCURRENT_PER_USER": "1", "SSE_KEEPALIVE_SECONDS": "0.5"}
    with web_server("asgi", redis_url, **limit) as server:
        first = page.context.new_page()
        watch(first, server.url)
        page.goto(f"{server.url}/openapi.json")
        page.evaluate(WATCH, {"options": {"share": False}})
        wait_until(lambda: page.evaluate("states.at(-1).status === 429"), "it is refused")
        refused = page.evaluate("states.at(-1)")
        assert refused["code"] == "too_many_connections"
        assert refused["until"] > page.evaluate("Date.now()")
        first.close()
        wait_until(lambda: app_redis().zcard(keys.connections(USER)) == 0, "its place is free")
        wait_until(lambda: page.evaluate("states.at(-1).state === 'live'"), "it is let in")
