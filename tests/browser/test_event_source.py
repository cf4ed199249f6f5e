"""The browser's own EventSource on the real server: let in by a ticket, then by its cookie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from playwright.sync_api import Page

from shared import keys
from shared.publisher import publish_user_event
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.signing import SECRET, hs256

pytestmark = pytest.mark.browser

USER = "alice"
OPEN = """async (token) => {
    const headers = { Authorization: `Bearer ${token}` };
    const answer = await fetch("/api/events/ticket", { method: "POST", headers });
    const { ticket } = await answer.json();
    window.seen = [];
    window.opened = 0;
    window.source = new EventSource(`/api/events?ticket=${encodeURIComponent(ticket)}`);
    source.onopen = () => { window.opened += 1; };
    source.onmessage = ({ data }) => window.seen.push(JSON.parse(data).payload.n);
    while (window.opened === 0) await new Promise((go) => setTimeout(go, 20));
}"""


@pytest.fixture
def server(redis_url: str, redis_server: RunningRedis) -> Iterator[WebServer]:
    with web_server("asgi", redis_url, AUTH_TYPE="jwt", JWT_SECRET_KEY=SECRET) as server:
        yield server


def test_a_ticket_opens_it_and_its_cookie_lets_it_come_back(
    page: Page, server: WebServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    client = redis.Redis.from_url(redis_url)
    page.goto(f"{server.url}/healthz")  # any page of this origin
    page.evaluate(OPEN, hs256(USER))
    publish_user_event(USER, "test.event", {"n": 1})
    wait_until(lambda: page.evaluate("window.seen.length === 1"), "window.seen.length === 1")
    assert "eventstream" not in page.evaluate("document.cookie"), "no script reads the cookie"

    lost: Any = client.zrange(keys.connections(USER), 0, -1)
    headers = {"Authorization": f"Bearer {hs256(USER)}"}
    address = f"{server.url}/api/connections/{lost[0].decode()}"
    assert page.request.delete(address, headers=headers).ok
    wait_until(lambda: client.zrange(keys.connections(USER), 0, -1) != lost, "ended")
    for n in (2, 3):
        publish_user_event(USER, "test.event", {"n": n})
    wait_until(lambda: page.evaluate("window.opened === 2"), "window.opened === 2")
    wait_until(lambda: page.evaluate("window.seen.length === 3"), "window.seen.length === 3")
    assert page.evaluate("window.seen") == [1, 2, 3]
    page.evaluate("source.close()")
    wait_until(lambda: client.zcard(keys.connections(USER)) == 0, "its place is given back")


def test_without_a_token_it_is_not_let_in(page: Page, server: WebServer) -> None:
    page.goto(f"{server.url}/healthz")
    closed = page.evaluate(
        """() => new Promise((done) => {
            const source = new EventSource("/api/events?ticket=made-up");
            source.onerror = () => done(source.readyState === EventSource.CLOSED);
        })"""
    )
    assert closed
