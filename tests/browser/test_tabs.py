"""Many tabs of one browser on the real server: one connection, each event once in each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from shared.publisher import publish_user_event
from tests.browser.conftest import ARGUMENTS, chromium
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, free_port, web_server

pytestmark = pytest.mark.browser

USER = "local"
WATCH = """async ({ hangsAt, options }) => {
    const { connect } = await import("/static/eventstream.js");
    window.seen = [];
    window.states = [];
    const onEvent = ({ payload: { n } }) => {
        window.seen.push(n);
        return n === hangsAt ? new Promise(() => {}) : undefined;
    };
    const onState = (state) => window.states.push(state.state);
    window.stream = connect({ snapshotFirst: true, onEvent, onState, ...options });
}"""
LEADS = """async () => {
    const held = async (is) => (await navigator.locks.query()).held.find(is)?.clientId;
    const own = await navigator.locks.request(crypto.randomUUID(), ({ name }) =>
        held((lock) => lock.name === name));
    return own === (await held(({ name }) => name.startsWith("eventstream:")));
}"""


@pytest.fixture
def server(
    redis_url: str, redis_server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebServer]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with web_server("asgi", redis_url, SSE_KEEPALIVE_SECONDS="0.5") as server:
        yield server


@pytest.fixture
def context(page: Page) -> BrowserContext:
    """One browser's profile, for as many tabs as a test wants."""
    return page.context


def open_tab(
    context: BrowserContext, server: WebServer, hangs_at: int = 0, **options: object
) -> Page:
    """A tab that watches, and is live."""
    tab = context.new_page()
    tab.goto(f"{server.url}/openapi.json")  # any page of this origin
    tab.evaluate(WATCH, {"hangsAt": hangs_at, "options": options})
    until(tab, "states.at(-1) === 'live'")
    return tab


def until(tab: Page, expression: str) -> None:
    wait_until(lambda: tab.evaluate(expression), expression)


def open_tabs(context: BrowserContext, server: WebServer, number: int) -> list[Page]:
    return [open_tab(context, server) for _ in range(number)]


def publish(*numbers: int) -> list[int]:
    for n in numbers:
        publish_user_event(USER, "test.event", {"n": n})
    return list(numbers)


@contextmanager
def publishing() -> Iterator[list[int]]:
    """Publishes all the while; what it has published, in the end all of it."""
    published: list[int] = []
    over = threading.Event()

    def run() -> None:
        for n in count(1):
            if over.wait(0.01):
                return
            published.extend(publish(n))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield published
    finally:
        over.set()
        thread.join()


def saw(tabs: list[Page], expected: list[int]) -> None:
    for tab in tabs:
        until(tab, f"seen.length >= {len(expected)}")
        assert tab.evaluate("seen") == expected


def leader_of(tabs: list[Page]) -> Page:
    """The tab that holds the lock."""
    leaders: list[Page] = []

    def found() -> bool:
        leaders[:] = [tab for tab in tabs if tab.evaluate(LEADS)]
        return len(leaders) == 1

    wait_until(found, "one leads")
    return leaders[0]


def connections(server: WebServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{server.url}/api/connections").json()["connections"]
    return found


def test_ten_tabs_have_one_connection_and_each_shows_each_event_once(
    context: BrowserContext, server: WebServer
) -> None:
    tabs = open_tabs(context, server, 10)
    saw(tabs, publish(*range(1, 51)))
    assert len(connections(server)) == 1
    assert all(tab.evaluate("states.at(-1)") == "live" for tab in tabs)


def test_a_leader_that_is_closed_five_times_loses_and_doubles_nothing(
    context: BrowserContext, server: WebServer
) -> None:
    tabs = open_tabs(context, server, 10)
    waits = []
    with publishing() as published:
        for _ in range(5):
            leader = leader_of(tabs)
            tabs.remove(leader)
            leader.close()
            closed = time.monotonic()
            until(tabs[0], f"seen.at(-1) > {len(published) + 1}")
            waits.append(time.monotonic() - closed)
    saw(tabs, published)
    assert len(tabs) == 5
    wait_until(lambda: len(connections(server)) == 1, "one connection")
    assert max(waits) < 4, waits  # one that only hangs is given five seconds


def test_a_tab_that_is_killed_in_its_handler_takes_nothing_from_the_others(
    context: BrowserContext, server: WebServer
) -> None:
    killed = open_tab(context, server, hangs_at=2)
    tabs = open_tabs(context, server, 3)
    first = publish(1, 2, 3)
    saw([killed], [1, 2])
    saw(tabs, first)
    assert leader_of([killed, *tabs]) == killed
    killed.close()
    saw(tabs, first + publish(4, 5))


def test_a_leader_whose_handler_hangs_holds_no_other_back(
    context: BrowserContext, server: WebServer
) -> None:
    hung = open_tab(context, server, hangs_at=1)
    tabs = open_tabs(context, server, 2)
    assert leader_of([hung, *tabs]) == hung
    saw(tabs, publish(*range(1, 301)))
    saw([hung], [1])
    assert len(connections(server)) == 1


def test_five_tabs_find_a_server_again_that_was_started_anew(
    context: BrowserContext,
    redis_url: str,
    redis_server: RunningRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    port = str(free_port())
    with web_server("asgi", redis_url, port=port) as server:
        tabs = open_tabs(context, server, 5)
        first = publish(1, 2)
        saw(tabs, first)
    between = publish(3, 4)
    with web_server("asgi", redis_url, port=port) as server:
        saw(tabs, first + between + publish(5))
        assert len(connections(server)) == 1
    assert all("waiting" in tab.evaluate("states") for tab in tabs)


def test_a_leader_that_goes_to_another_page_leaves_the_stream_to_the_others(
    context: BrowserContext, server: WebServer
) -> None:
    tabs = open_tabs(context, server, 3)
    leader = leader_of(tabs)
    others = [tab for tab in tabs if tab != leader]
    first = publish(1)
    saw(tabs, first)
    leader.goto("about:blank")
    first += publish(2)
    saw(others, first)
    assert leader_of(others) in others
    assert len(connections(server)) == 1


def test_tabs_of_the_page_itself_share_a_connection_without_being_told_to(
    context: BrowserContext, server: WebServer
) -> None:
    for _ in range(3):
        tab = context.new_page()
        tab.goto(server.url)
        expect(tab.locator("#badge")).to_have_text("Live")
    assert len(connections(server)) == 1


def test_tabs_of_their_own_have_a_connection_each(
    context: BrowserContext, server: WebServer
) -> None:
    tabs = [open_tab(context, server, share=False) for _ in range(2)]
    saw(tabs, publish(1))
    assert len(connections(server)) == 2


def test_a_leader_that_hangs_is_followed_and_shows_every_event_once_when_it_is_back(
    context: BrowserContext, server: WebServer
) -> None:
    tabs = [open_tab(context, server, keepaliveMs=500) for _ in range(3)]
    hung = leader_of(tabs)
    others = [tab for tab in tabs if tab != hung]
    expected = publish(1)
    saw(tabs, expected)
    debugger = context.new_cdp_session(hung)
    paused: list[object] = []
    debugger.on("Debugger.paused", lambda event: paused.append(event))
    debugger.send("Debugger.enable")
    debugger.send("Debugger.pause")  # at its next statement; from there on it runs nothing
    wait_until(lambda: others[0].evaluate("true") and len(paused) == 1, "it hangs")
    expected += publish(2, 3)
    saw(others, expected)
    assert leader_of(others) in others
    debugger.send("Debugger.resume")
    expected += publish(4)
    saw(tabs, expected)
    wait_until(lambda: len(connections(server)) == 1, "one connection")


@pytest.fixture
def remembering(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that keeps pages for the way back, which Playwright's own does not."""
    launched = browser.browser_type.launch(
        executable_path=chromium(),
        args=ARGUMENTS,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield launched.new_context()
    launched.close()


def test_a_leader_that_is_gone_back_to_is_the_same_page_and_shows_every_event_once(
    remembering: BrowserContext, server: WebServer
) -> None:
    tabs = open_tabs(remembering, server, 3)
    away = leader_of(tabs)
    others = [tab for tab in tabs if tab != away]
    away.evaluate("""() => {
        window.turns = [];
        for (const turn of ["freeze", "resume"]) {
            document.addEventListener(turn, () => turns.push(turn));
        }
        addEventListener("pageshow", ({ persisted }) => turns.push(persisted));
    }""")
    expected = publish(1)
    saw(tabs, expected)
    away.goto(server.url.replace("127.0.0.1", "localhost"))
    expected += publish(2, 3)
    saw(others, expected)
    assert leader_of(others) in others
    away.go_back(wait_until="commit")
    assert away.evaluate("turns") == ["freeze", "resume", True]
    expected += publish(4)
    saw(tabs, expected)
    wait_until(lambda: len(connections(server)) == 1, "one connection")
