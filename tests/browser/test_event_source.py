"""The browser's own EventSource on the real server: let in by a ticket, then by its cookie."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.sync_api import Page, Route

from shared import keys
from shared.publisher import publish_user_event
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.signing import SECRET, bearer, hs256

pytestmark = pytest.mark.browser

USER = "alice"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "authenticate-users.md"
WATCH = """(token) => {
    %s
    window.seen = [];
    const apply = ({ payload }) => window.seen.push(payload.n);
    window.close = watch({ getToken: async () => token, apply });
}"""


def printed() -> str:
    """The function that the documentation prints."""
    section = PAGE.read_text().partition("### EventSource, with a ticket")[2]
    return section.partition("```js\n")[2].partition("```")[0]


@pytest.fixture
def server(redis_url: str, redis_server: RunningRedis) -> Iterator[WebServer]:
    with web_server("asgi", redis_url, AUTH_TYPE="jwt", JWT_SECRET_KEY=SECRET) as server:
        yield server


@pytest.fixture
def watched(page: Page, server: WebServer, client: redis.Redis) -> Page:
    """A page that watches as the documentation has it."""
    page.goto(f"{server.url}/healthz")  # any page of this origin
    page.evaluate(WATCH % printed(), hs256(USER))
    wait_until(lambda: client.zcard(keys.connections(USER)) == 1, "it is open")
    return page


def publish(n: int) -> None:
    publish_user_event(USER, "test.event", {"n": n})


def saw(page: Page, *expected: int) -> None:
    wait_until(lambda: page.evaluate("window.seen.length") >= len(expected), f"{expected}")
    assert page.evaluate("window.seen") == list(expected)


def cut(page: Page, server: WebServer, client: redis.Redis) -> None:
    """Ends the page's connection, from the server's side."""
    lost: Any = client.zrange(keys.connections(USER), 0, -1)
    headers = bearer(USER)
    address = f"{server.url}/api/connections/{lost[0].decode()}"
    assert page.request.delete(address, headers=headers).ok
    wait_until(lambda: client.zrange(keys.connections(USER), 0, -1) != lost, "ended")


def test_a_ticket_opens_it_and_its_cookie_lets_it_come_back(
    watched: Page, server: WebServer, client: redis.Redis
) -> None:
    tickets: list[str] = []
    watched.on("request", lambda made: tickets.append(made.url) if "ticket" in made.url else None)
    publish(1)
    saw(watched, 1)
    assert "eventstream" not in watched.evaluate("document.cookie"), "no script reads the cookie"
    cut(watched, server, client)
    publish(2)
    publish(3)
    saw(watched, 1, 2, 3)
    assert not [url for url in tickets if url.endswith("/api/events/ticket")], "no new ticket"
    watched.evaluate("window.close()")
    wait_until(lambda: client.zcard(keys.connections(USER)) == 0, "its place is given back")


def test_where_its_session_has_ended_a_new_ticket_goes_on_from_the_cursor(
    watched: Page, server: WebServer, client: redis.Redis
) -> None:
    publish(1)
    saw(watched, 1)
    ended: Any = client.keys("session:*")
    client.delete(*ended)
    cut(watched, server, client)
    publish(2)
    saw(watched, 1, 2)


def test_a_refused_ticket_is_asked_for_again_when_the_server_says(
    page: Page, server: WebServer, client: redis.Redis
) -> None:
    asked_at: list[float] = []
    urls: list[str] = []

    def refuse_once(route: Route) -> None:
        asked_at.append(time.monotonic())
        if len(asked_at) == 1:
            route.fulfill(status=503, headers={"Retry-After": "2"}, json={"success": False})
        else:
            route.continue_()

    page.on("request", lambda made: urls.append(made.url))
    page.goto(f"{server.url}/healthz")
    page.route("**/api/events/ticket", refuse_once)
    page.evaluate(WATCH % printed(), hs256(USER))
    page.wait_for_event("request", lambda made: "?ticket=" in made.url)
    assert asked_at[1] - asked_at[0] > 1.9
    assert not [url for url in urls if "undefined" in url]


def test_without_a_token_it_is_not_let_in(page: Page, server: WebServer) -> None:
    page.goto(f"{server.url}/healthz")
    closed = page.evaluate(
        """() => new Promise((done) => {
            const source = new EventSource("/api/events?ticket=made-up");
            source.onerror = () => done(source.readyState === EventSource.CLOSED);
        })"""
    )
    assert closed
