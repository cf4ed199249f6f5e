"""The badge says where the client is: a wait with its reason and end, a stop with its cause."""

from __future__ import annotations

import re
from typing import Protocol

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.browser.scripted_server import ScriptedServer, event

pytestmark = pytest.mark.browser

DONE_MS = 60_000


class DevStack(Protocol):
    """What `eventstream dev` runs."""

    @property
    def url(self) -> str: ...


@pytest.fixture
def server(page: Page) -> ScriptedServer:
    return ScriptedServer(page)


@pytest.fixture
def badge(page: Page) -> Locator:
    return page.locator("#badge")


def test_a_wait_is_counted_down_with_its_reason_and_spoken_once(
    server: ScriptedServer, badge: Locator
) -> None:
    server.refuse(503, "Redis can't be reached.", retry_after=6)
    server.open()
    expect(badge).to_have_text(re.compile(r"^Reconnecting in [3-6] s Redis can't be reached\.$"))
    expect(badge).to_have_text(re.compile(r"^Reconnecting in [12] s Redis can't be reached\.$"))
    expect(server.page.locator("#badge-spoken")).to_have_text("Reconnecting")
    server.send(event("2-0", "started", percent=0))
    expect(server.page.locator(".toast")).to_have_count(1, timeout=10_000)


def test_a_first_connection_that_takes_its_time_is_still_the_first(
    server: ScriptedServer, badge: Locator
) -> None:
    server.page.clock.install()
    with server.page.expect_request("**/api/events"):
        server.open()
    server.page.clock.run_for(2000)
    expect(badge).to_have_attribute("data-state", "connecting")
    expect(badge.locator(".badge-text")).to_have_text("Connecting")
    expect(server.page.locator("#badge-spoken")).to_have_text("Connecting")


def test_a_stop_has_its_reason_on_a_phone_and_aloud(server: ScriptedServer, badge: Locator) -> None:
    server.page.set_viewport_size({"width": 360, "height": 740})
    server.refuse(401)
    server.open()
    reason = "sign in and load the page again"
    expect(badge.locator(".badge-why")).to_have_text(reason)
    expect(badge.locator(".badge-why")).to_be_visible()
    expect(server.page.locator("#badge-spoken")).to_have_text(f"Signed out: {reason}")
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not server.page.evaluate(wide), "it fits"


def test_who_is_signed_out_is_told(server: ScriptedServer, badge: Locator) -> None:
    server.refuse(401)
    server.open()
    expect(badge).to_have_text("Signed out sign in and load the page again")
    expect(badge).to_have_attribute("data-state", "stopped")


def test_without_a_network_the_badge_says_so_and_what_happened_meanwhile_is_caught_up(
    page: Page, badge: Locator, dev_stack: DevStack
) -> None:
    page.goto(dev_stack.url)
    expect(badge).to_have_text("Live")
    document: FilePayload = {
        "name": "network.md",
        "mimeType": "text/markdown",
        "buffer": b"# Network\n\nIt comes and it goes.\n" * 2000,
    }
    page.set_input_files("#files", [document])
    toast = page.locator(".toast").filter(has=page.get_by_text("network.md", exact=True))
    expect(toast).to_have_attribute("data-source", re.compile("."))
    page.context.set_offline(True)
    expect(badge).to_have_text("No network goes on when it is back")
    page.context.set_offline(False)
    expect(badge).to_have_text("Live", timeout=DONE_MS)
    expect(toast).to_have_attribute("data-status", "completed", timeout=DONE_MS)
