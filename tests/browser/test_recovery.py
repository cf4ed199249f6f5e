"""A network that was away and is back: nothing on the page goes on saying that it is away."""

from __future__ import annotations

from typing import Protocol

import pytest
from playwright.sync_api import FilePayload, Page, expect

pytestmark = pytest.mark.browser

DONE_MS = 60_000
DOCUMENT: FilePayload = {
    "name": "bittern.md",
    "mimeType": "text/markdown",
    "buffer": b"# Bittern\n\nIt booms in the reeds.\n",
}


class DevStack(Protocol):
    """What `eventstream dev` runs."""

    @property
    def url(self) -> str: ...


def test_what_failed_without_a_network_is_tried_again_or_forgotten_once_it_is_back(
    page: Page, dev_stack: DevStack
) -> None:
    page.goto(dev_stack.url)
    badge = page.locator("#badge")
    expect(badge).to_have_text("Live")
    page.set_input_files("#files", [DOCUMENT])
    source = page.locator(".source").filter(has=page.get_by_text("bittern.md", exact=True)).first
    expect(source).to_have_attribute("data-status", "completed", timeout=DONE_MS)

    page.context.set_offline(True)
    expect(badge).to_contain_text("No network")
    page.fill("#query", "bittern")
    expect(page.locator("#hits")).to_contain_text("The search failed")
    source.get_by_role("button", name="Ingest again").click()
    refusal = source.locator(".source-refusal")
    expect(refusal).to_have_text("The server can't be reached.")

    page.context.set_offline(False)
    expect(badge).to_have_text("Live", timeout=DONE_MS)
    expect(page.locator(".hit-document").first).to_have_text("bittern.md")
    expect(refusal).to_have_text("")
    expect(source).to_have_attribute("data-status", "completed")
