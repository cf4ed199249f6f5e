"""The operator's page: everybody's streams and runs as they change, and what ends them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import httpx
import pytest
import redis
from click.testing import CliRunner
from playwright.sync_api import Locator, Page, expect

from shared import keys, runs
from shared.facts import Accepted, Progress, Report, Started
from shared.publisher import publish_user_event
from shared.runs import RunRef, run_of_id
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.signing import SECRET, bearer, hs256
from tests.sse import Reader, watch
from worker.cli.main import main

pytestmark = pytest.mark.browser

JWT = {"AUTH_TYPE": "jwt", "JWT_SECRET_KEY": SECRET, "SSE_KEEPALIVE_SECONDS": "0.5"}
SLOW_MS = 20_000
SILENT = "The server can't be reached."
ODD = "<img src=x onerror=alert(1)>"


class DevStack(Protocol):
    """What `eventstream dev` runs."""

    @property
    def url(self) -> str: ...


@pytest.fixture
def stack(
    dev_stack: DevStack, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DevStack]:
    """The stack, whose Redis this process uses too."""
    told = CliRunner().invoke(main, ["env", "--data", str(server_folder / "stack")]).output
    variables = dict(line.split("=", 1) for line in told.splitlines())
    monkeypatch.setenv("REDIS_URL", variables["REDIS_URL"])
    yield dev_stack


@pytest.fixture
def server(redis_url: str, redis_server: RunningRedis) -> Iterator[WebServer]:
    """A web process that asks for tokens, and has no Postgres."""
    with web_server("asgi", redis_server.url, **JWT) as server:
        yield server


@pytest.fixture(autouse=True)
def own_redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)


def opened(page: Page, url: str) -> Page:
    page.goto(f"{url}/operator")
    expect(page.locator("#badge")).to_have_text("Live")
    return page


def sign_in(page: Page, server: WebServer) -> None:
    token = hs256("olga", operator=True)
    page.context.add_cookies([{"name": "eventstream_token", "value": token, "url": server.url}])


def live(reader: Reader) -> None:
    while not reader.block().raw.startswith("id:"):
        pass


def user_row(page: Page, user: str) -> Locator:
    return page.locator("#streams tr.user").filter(has=page.get_by_text(user, exact=True))


def begun(user: str, name: str, *, started: bool = True) -> RunRef:
    ref = runs.new_run(user, f"source of {name}", name, final=f"task of {name}")
    runs.accept(ref, Accepted(task=ref.final))
    if started:
        fact = Started(
            task=ref.final,
            nonce="n",
            retries=0,
            nesting=0,
            late=True,
            grace_ms=60_000,
            worker="celery@one",
            stages={"parse": 1},
        )
        runs.submit(ref, fact)
        reports = (Report("parse", 3, 10, "pages"),)
        runs.submit(ref, Progress(task=ref.final, nonce="n", reports=reports))
    return ref


def test_open_streams_are_shown_and_one_is_ended(stack: DevStack, page: Page) -> None:
    with watch(stack.url) as first, watch(stack.url) as second:
        live(first)
        live(second)
        opened(page, stack.url)
        row = user_row(page, "local")
        expect(row.locator("[data-column=Streams]")).to_have_text("2")
        expect(row.locator(".chip")).to_have_text("level")
        expect(page.locator("#figure-streams")).to_have_text("2")
        fold = row.get_by_role("button", name="local")
        fold.click()
        expect(fold).to_have_attribute("aria-expanded", "true")
        expect(page.locator("#streams tr.stream")).to_have_count(2)
        one = page.locator("#streams tr.stream").first
        connection = one.get_attribute("data-connection")
        one.get_by_role("button").click()
        page.get_by_role("button", name="Leave it").click()
        expect(page.locator("#confirm")).to_be_hidden()
        one.get_by_role("button").click()
        page.keyboard.press("Escape")
        expect(page.locator("#streams tr.stream")).to_have_count(2)
        one.get_by_role("button").click()
        page.get_by_role("button", name="End the stream").click()
        expect(page.locator(f'[data-connection="{connection}"]')).to_have_count(0)
        expect(page.locator("#streams tr.stream").get_by_role("button")).to_be_focused()
        expect(row.locator("[data-column=Streams]")).to_have_text("1")
        left = httpx.get(f"{stack.url}/api/connections", trust_env=False).json()["connections"]
        assert connection not in [each["id"] for each in left]
        assert len(left) == 1


def test_a_run_appears_and_is_cancelled(stack: DevStack, page: Page) -> None:
    opened(page, stack.url)
    ref = begun("local", "a report.pdf")
    row = page.locator(f'#runs tr[data-run="{ref.run_id}"]')
    expect(row.locator(".run-name")).to_have_text("a report.pdf")
    expect(row.locator("[data-column=State]")).to_have_text("Running")
    expect(row.locator(".run-line")).to_have_text("Parsing 3 of 10 pages")
    expect(row.locator("[data-column=Worker]")).to_have_text("celery@one")
    page.locator("#states").get_by_role("button", name="Waiting").click()
    expect(row).to_have_count(0)
    page.locator("#states").get_by_role("button", name=re.compile("^All")).click()
    expect(row).to_have_count(1)
    row.get_by_role("button").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(row).to_have_count(0)
    expect(page.locator("#confirm")).to_be_hidden()
    assert run_of_id(ref.run_id) is not None
    source = httpx.get(f"{stack.url}/api/sources/{ref.source_id}", trust_env=False).json()["source"]
    assert (source["status"], source["reason"]) == ("cancelled", "cancelled")


def test_rates_move_and_the_journal_is_told(stack: DevStack, page: Page) -> None:
    opened(page, stack.url)
    expect(page.locator("#journal")).to_contain_text("14 days")
    minute = page.locator('#events [data-type="rates.test"] [data-column="Last minute"]')
    expect(minute).to_have_count(0)
    publish_user_event("local", "rates.test", {})
    expect(minute).to_have_text("1")
    publish_user_event("local", "rates.test", {})
    expect(minute).to_have_text("2")


def test_who_may_not_look_is_told_so_and_looks_with_a_token(server: WebServer, page: Page) -> None:
    page.goto(f"{server.url}/operator")
    expect(page.locator("#refused-title")).to_have_text("Please sign in")
    expect(page.locator("#readings")).to_be_hidden()
    page.locator("#token").fill(hs256("alice"))
    page.keyboard.press("Enter")
    expect(page.locator("#refused-why")).to_contain_text("'operator': true")
    page.locator("#token").fill(hs256("olga", operator=True))
    page.locator("#use-token").click()
    expect(page.locator("#no-streams")).to_have_text("Nobody has a stream open.")
    expect(page.locator("#no-runs")).to_have_text("No run is open.")
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage])") == "[{},{}]"


def test_what_cannot_be_read_is_said_and_the_rest_goes_on(server: WebServer, page: Page) -> None:
    sign_in(page, server)
    begun("alice", ODD)
    with watch(server.url, **bearer(ODD)) as reader:
        live(reader)
        page.goto(f"{server.url}/operator")
        said = page.locator("#journal-note")
        expect(said).to_contain_text("Postgres can't be reached", timeout=SLOW_MS)
        expect(user_row(page, ODD)).to_have_count(1)
        expect(page.locator("#runs .run-name")).to_have_text(ODD)
        expect(page.locator("#badge")).to_contain_text("Not answering since")
        expect(page.locator("#outage")).to_be_hidden()
        os.kill(server.pid, signal.SIGKILL)
        unreachable = page.get_by_text(SILENT)
        expect(page.locator("#outage")).to_have_text(SILENT, timeout=SLOW_MS)
        for room in ("streams", "runs", "events"):
            expect(page.locator(f"#{room}-note")).to_have_text(re.compile(r"^As of [\d:]+$"))
        expect(unreachable).to_have_count(1)
        expect(page.locator("#badge")).to_have_attribute("data-state", "waiting")
        expect(page.locator("#open-runs")).to_have_attribute("data-stale", "true")
        expect(page.locator("#runs .run-name")).to_have_text(ODD)


def test_one_user_is_found_and_runs_come_in_pages(server: WebServer, page: Page) -> None:
    sign_in(page, server)
    for number in range(60):
        begun("alice", f"file {number}", started=False)
    with (
        watch(server.url, **bearer("alice")) as alices,
        watch(server.url, **bearer("bob")) as bobs,
    ):
        live(alices)
        live(bobs)
        page.goto(f"{server.url}/operator")
        expect(page.locator("#streams tr.user")).to_have_count(2)
        page.get_by_label("Find a user").fill("bob")
        expect(page.locator("#streams tr.user")).to_have_count(1)
        expect(user_row(page, "bob")).to_have_count(1)
        page.get_by_label("Find a user").fill("carol")
        expect(page.locator("#no-streams")).to_have_text("carol has no open stream.")
        expect(page.locator("#page-place")).to_have_text("1 to 50 of 60")
        page.get_by_role("button", name="More").click()
        expect(page.locator("#page-place")).to_have_text("51 to 60 of 60")
        expect(page.locator("#runs tr.run")).to_have_count(10)
        expect(page.get_by_role("button", name="More")).to_be_disabled()
        expect(page.get_by_role("button", name="More")).to_be_focused()


def test_the_keyboard_stays_where_a_run_was(server: WebServer, page: Page) -> None:
    sign_in(page, server)
    for number in range(2):
        begun("alice", f"file {number}")
    page.goto(f"{server.url}/operator")
    cancels = page.locator("#runs").get_by_role("button")
    cancels.first.focus()
    for left in (1, 0):
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.get_by_role("button", name="Cancel the run").press("Enter")
        expect(cancels).to_have_count(left)
        expect(cancels if left else page.locator("#runs-title")).to_be_focused()


def test_a_server_that_hangs_is_said_not_to_answer(server: WebServer, page: Page) -> None:
    sign_in(page, server)
    page.add_init_script(
        "const real = AbortSignal.timeout.bind(AbortSignal);"
        "AbortSignal.timeout = (ms) => real(ms / 10);"
    )
    page.goto(f"{server.url}/operator")
    expect(page.locator("#no-runs")).to_be_visible()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        expect(page.locator("#outage")).to_have_text(SILENT, timeout=SLOW_MS)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    expect(page.locator("#outage")).to_be_hidden(timeout=SLOW_MS)
    expect(page.locator("#runs-note")).to_have_text("")


def test_of_more_users_than_are_looked_at_no_more_is_said(
    server: WebServer, page: Page, redis_url: str
) -> None:
    sign_in(page, server)
    client = redis.Redis.from_url(redis_url)
    with watch(server.url, **bearer("alice")) as reader:
        live(reader)
        page.goto(f"{server.url}/operator")
        expect(page.locator("#figure-users")).to_have_text("of 1 user")
        expect(page.locator("#more-users")).to_be_hidden()
        for number in range(16 * 300):  # hints that name nobody
            client.zadd(keys.watchers(number % 16), {f"one user-{number}": 4_000_000_000_000})
        expect(page.locator("#figure-users")).to_contain_text("of about 4,")
        expect(page.locator("#more-users")).to_contain_text("others at random")
        expect(page.locator("#figure-lagging")).to_have_text("0+")
        page.get_by_label("Find a user").fill("alice")
        expect(page.locator("#figure-users")).to_have_text("of alice")
        expect(page.locator("#more-users")).to_be_hidden()


def test_the_page_does_not_scroll_sideways_on_a_phone(server: WebServer, page: Page) -> None:
    sign_in(page, server)
    page.set_viewport_size({"width": 390, "height": 844})
    begun("someone.with.a.very.long.name@a-very-long-company-name.example", "x" * 200)
    page.goto(f"{server.url}/operator")
    expect(page.locator("#runs tr.run")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    expect(page.get_by_role("row", name="x" * 20)).to_have_count(1)  # a table still
