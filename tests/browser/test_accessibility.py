"""axe-core finds nothing serious on the page, whatever it shows, in the light and in the dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.scripted_server import Json, ScriptedServer, event, other_event, state

pytestmark = pytest.mark.browser

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
Scheme = Literal["light", "dark"]
GRAVE = {"serious", "critical"}
ERROR: Json = {"code": "empty", "message": "There is no text in it.", "retryable": False}
LOST: Json = {"files": 3, "failed_files": [{"name": "a.pdf", "code": "x", "message": "Damaged."}]}
APPROVAL: Json = {"approval_id": "a", "tool": "send_email", "arguments": {"to": "bob"}}
HITS: Json = {
    "source_name": "Handbook",
    "document_name": "herons.md",
    "snippet": [{"text": "A ", "hit": False}, {"text": "heron", "hit": True}],
}


def source(number: int, **fields: Any) -> Json:
    return state(source_id=f"s{number}", run_id=f"r{number}", **fields)


def states() -> list[Json]:
    return [
        source(1, name="running.md", status="running", stage="parse", done=3, total=9, percent=30),
        source(2, name="failed.pdf", status="failed", error=ERROR),
        source(3, name="partial.zip", status="completed", percent=100, result=LOST),
        source(4, name="stalled.md", status="stalled", reason="worker_lost", percent=20),
        source(5, name="queued.md", status="queued"),
        source(6, name="cancelled.md", status="cancelled", reason="cancelled"),
    ]


def findings(page: Page) -> list[str]:
    """What axe says is serious, each with the elements."""
    page.evaluate(AXE)
    found: Json = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    assert found["passes"], "it has looked"
    return [
        f"{each['id']}: {json.dumps([node['target'] for node in each['nodes']])}"
        for each in found["violations"]
        if each["impact"] in GRAVE
    ]


def filled(page: Page) -> None:
    """The page with a row of every kind, an answer and hits."""
    server = ScriptedServer(page, sources=states())
    server.open()
    page.route(
        "**/api/search?*", lambda route: route.fulfill(json={"success": True, "hits": [HITS]})
    )
    failed = event("2-0", "failed", percent=4, seconds=1.0, error=ERROR)
    failed["payload"]["failed_files"] = LOST["failed_files"] * 2
    server.send(
        event("1-1", "started", percent=0),
        failed,
        other_event("2-1", "tool.approval.required", **APPROVAL),
        other_event("2-2", "mcp.oauth.completed", server="GitHub", tools=["a"]),
    )
    expect(page.locator(".toast")).to_have_count(6)
    page.get_by_text("2 of 2 files failed").first.click()
    page.fill("#query", "heron")
    expect(page.locator(".hit")).to_have_count(1)


@contextmanager
def opened(browser: Browser, scheme: Scheme, width: int) -> Iterator[Page]:
    """A page that is at rest. Axe tries inline styles, which the policy refuses: not our fault."""
    context = browser.new_context(
        viewport={"width": width, "height": 860}, color_scheme=scheme, reduced_motion="reduce"
    )
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_serious_is_found_on_the_page(browser: Browser, scheme: Scheme, width: int) -> None:
    with opened(browser, scheme, width) as page:
        filled(page)
        assert findings(page) == []


def test_nothing_serious_is_found_on_the_empty_page(browser: Browser) -> None:
    with opened(browser, "light", 1280) as page:
        ScriptedServer(page).open()
        expect(page.locator("#sources-empty")).to_be_visible()
        assert findings(page) == []
