"""Big uploads and long runs on the real server: the bar moves one way, also over a reload."""

from __future__ import annotations

import re
from typing import Protocol

import pytest
from playwright.sync_api import FilePayload, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

DONE_MS = 120_000
MEGABYTE = 1_000_000
UPLOAD_BYTES_PER_SECOND = 4 * MEGABYTE
FILES = 200

# Keeps what the row's bar has shown, in order: [status, sent, ingested], both of 1.
RECORD_BAR = """
window.bars = [];
const record = (root) => () => {
  const row = root.querySelector(".toast");
  if (!row) return;
  const [sent, ingested] = ["transfer", "fill"].map((part) =>
    Number(row.querySelector(`.bar-${part}`).style.getPropertyValue("--fraction")));
  bars.push([row.dataset.status, sent, ingested]);
};
customElements.whenDefined("event-toasts").then(() => {
  const { shadowRoot } = document.querySelector("event-toasts");
  const watched = { subtree: true, childList: true, attributes: true };
  new MutationObserver(record(shadowRoot)).observe(shadowRoot, watched);
});
"""


class DevStack(Protocol):
    """What `eventstream dev` runs."""

    @property
    def url(self) -> str: ...


@pytest.fixture
def opened(page: Page, dev_stack: DevStack) -> Page:
    page.add_init_script(RECORD_BAR)
    page.goto(dev_stack.url)
    expect(page.locator("#badge")).to_have_text("Live")
    return page


def bars(page: Page) -> list[tuple[str, float, float]]:
    found: list[list[float]] = page.evaluate("bars")
    return [(str(status), sent, ingested) for status, sent, ingested in found]


def document(name: str, content: str) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content.encode()}


def throttle(page: Page) -> None:
    """A line of which the transfer takes seconds."""
    line = {"offline": False, "latency": 0, "downloadThroughput": -1}
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send(
        "Network.emulateNetworkConditions", {**line, "uploadThroughput": UPLOAD_BYTES_PER_SECOND}
    )


def test_ten_megabytes_are_seen_on_their_way_and_the_bar_never_falls_back(opened: Page) -> None:
    throttle(opened)
    comment = f"<!-- {'x' * MEGABYTE} --><p>A megabyte, of which few are words.</p>"
    opened.set_input_files("#files", [document(f"page {n}.html", comment) for n in range(10)])
    toast = opened.locator(".toast")
    expect(toast.locator(".toast-line")).to_have_text(
        re.compile(r"Uploading \d\.\d MB of 10\.0 MB")
    )
    expect(toast).to_have_attribute("data-status", "completed", timeout=DONE_MS)
    shown = bars(opened)
    on_the_way = {sent for _, sent, _ in shown if 0 < sent < 1}
    assert len(on_the_way) >= 5, "real progress, not the ends alone"
    moved = [(sent, ingested) for _, sent, ingested in shown]
    assert moved == sorted(moved), "neither line falls, and the first stays full"
    assert {"uploading", "completed"} <= {status for status, _, _ in shown}


def test_a_reload_in_the_middle_of_two_hundred_files_is_back_at_the_percent_at_once(
    opened: Page,
) -> None:
    text = "# Log {}\n\n" + "Wind from the west, and rain in the evening.\n" * 400
    files = [document(f"log {n}.md", text.format(n)) for n in range(FILES)]
    opened.set_input_files("#files", files)
    toast = opened.locator(".toast")
    expect(toast.locator(".toast-percent")).to_have_text(re.compile(r"^[2-6]\d%$"), timeout=DONE_MS)
    _, _, before = bars(opened)[-1]
    opened.reload()
    expect(toast).to_have_count(1)
    status, _, first = bars(opened)[0]
    assert (status, 0 < before <= first) == ("running", True)
    expect(toast).to_have_attribute("data-status", "completed", timeout=DONE_MS)
    expect(toast.locator(".toast-line")).to_have_text(
        re.compile(rf"^{FILES} files · [\d,]+ chunks")
    )
    after = [ingested for _, _, ingested in bars(opened)]
    assert after == sorted(after)
    assert after[-1] == 1
