"""The page against real processes: documents go in, are seen moving, and are found."""

from __future__ import annotations

import re
from typing import Protocol

import pytest
from fpdf import FPDF
from playwright.sync_api import FilePayload, Locator, Page, expect

pytestmark = pytest.mark.browser

DONE_MS = 90_000
SCRIPT_NAME = "<script>window.executed = true; alert(1)<script>.txt"
IMAGE_NAME = "<img src=x onerror=alert(1)>.md"
CHINESE_NAME = "季度报告.txt"
BROKEN_NAME = "torn.pdf"

# Keeps what every toast has shown, in order, as [source, status, percent].
RECORD_TOASTS = """
window.shown = [];
const record = (root) => () => {
  for (const row of root.querySelectorAll(".toast[data-source]")) {
    const percent = row.querySelector("[role=progressbar]").getAttribute("aria-valuenow");
    if (percent !== null) shown.push([row.dataset.source, row.dataset.status, Number(percent)]);
  }
};
customElements.whenDefined("event-toasts").then(() => {
  const { shadowRoot } = document.querySelector("event-toasts");
  const watched = { subtree: true, childList: true, attributes: true };
  new MutationObserver(record(shadowRoot)).observe(shadowRoot, watched);
});
"""
# Whether that source's toast has shown an end, then a beginning, then an end.
ENDED_TWICE = """
(source) => /completed.*queued.*completed/.test(
  shown.filter(([of]) => of === source).map(([, status]) => status).join())
"""


class DevStack(Protocol):
    """What `eventstream dev` runs."""

    @property
    def url(self) -> str: ...


def opened(page: Page, dev_stack: DevStack) -> Page:
    page.add_init_script(RECORD_TOASTS)
    page.goto(dev_stack.url)
    expect(page.locator("#badge")).to_have_text("Live")
    return page


def document(name: str, content: str | bytes) -> FilePayload:
    data = content.encode() if isinstance(content, str) else content
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def pdf(text: str) -> bytes:
    made = FPDF()
    made.add_page()
    made.set_font("helvetica", size=12)
    made.multi_cell(0, text=text)
    return bytes(made.output())


def upload(page: Page, *documents: FilePayload) -> Locator:
    """Uploads one source; returns its toast, whatever else there is on the page."""
    page.set_input_files("#files", list(documents))
    name, others = documents[0]["name"], len(documents) - 1
    shown = f"{name} and {others} more" if others else name
    return page.locator(".toast").filter(has=page.get_by_text(shown, exact=True))


def shown_of(page: Page, toast: Locator) -> list[tuple[str, int]]:
    source = toast.get_attribute("data-source")
    shown: list[tuple[str, str, int]] = page.evaluate("shown")
    return [(status, percent) for of, status, percent in shown if of == source]


def mixed_twenty() -> list[FilePayload]:
    whole = pdf("A page about lighthouses and their keepers.")
    return [
        document(BROKEN_NAME, whole[:200]),
        document(CHINESE_NAME, "本季度收入增长了百分之十二。"),
        document(SCRIPT_NAME, "Nothing executes marmalade."),
        document(IMAGE_NAME, "# Heading\n\nNor here."),
        document("keepers.pdf", whole),
        document("coast.html", "<html><body><h1>Coast</h1><p>Rocks and tides.</p></body></html>"),
        *(document(f"log {n}.md", f"# Day {n}\n\nWind from the west.\n" * 40) for n in range(14)),
    ]


def test_an_upload_is_seen_moving_from_the_first_byte_to_done(
    page: Page, dev_stack: DevStack
) -> None:
    opened(page, dev_stack)
    upload(
        page, *(document(f"part {n}.md", f"# Part {n}\n\nSome words.\n" * 500) for n in range(12))
    )
    toast = page.locator(".toast")
    expect(toast).to_have_attribute("data-status", "completed", timeout=DONE_MS)
    expect(toast).to_have_count(1)
    expect(toast.locator(".toast-line")).to_have_text(re.compile(r"^12 files · \d+ chunks · .+"))

    shown = shown_of(page, toast)
    percents = [percent for _, percent in shown]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert any(0 < percent < 100 for percent in percents)
    assert {"running", "completed"} <= {status for status, _ in shown}


def test_one_broken_file_of_twenty_is_named_with_its_reason_and_nothing_executes(
    page: Page, dev_stack: DevStack
) -> None:
    opened(page, dev_stack)
    toast = upload(page, *mixed_twenty())
    expect(toast).to_have_attribute("data-status", "partial", timeout=DONE_MS)
    expect(toast.locator("summary")).to_have_text("1 of 20 files failed")
    toast.locator("summary").click()
    expect(toast.locator(".failure-name")).to_have_text([BROKEN_NAME])
    expect(toast.locator(".failure-reason")).to_have_text(re.compile(r"\w+ \w+.*\.$"))

    page.locator("#query").fill("marmalade")
    expect(page.locator(".hit-document").first).to_have_text(SCRIPT_NAME)
    alone = upload(page, document(SCRIPT_NAME, "Once more, alone."))
    expect(alone).to_have_attribute("data-status", "completed", timeout=DONE_MS)
    expect(page.locator(".source-name").first).to_have_text(SCRIPT_NAME)
    assert page.evaluate("window.executed === undefined")
    expect(page.locator("main script, main img, .toast script, .toast img")).to_have_count(0)


def test_a_search_finds_what_was_ingested_and_highlights_it(
    page: Page, dev_stack: DevStack
) -> None:
    opened(page, dev_stack)
    text = "# Garden\n\nThe heliotrope turns towards the sun."
    toast = upload(page, document("garden.md", text))
    expect(toast).to_have_attribute("data-status", "completed", timeout=DONE_MS)
    page.locator("#query").fill("heliotrope")
    hit = page.locator(".hit").first
    expect(hit.locator("mark")).to_have_text(["heliotrope"])
    expect(hit.locator(".hit-document")).to_have_text("garden.md")
    expect(hit.locator(".hit-snippet")).to_contain_text("The heliotrope turns")

    page.locator("#query").fill("zugzwang")
    expect(page.locator("#hits")).to_contain_text("Nothing found")


def test_a_reload_shows_the_finished_sources_and_no_toast_that_was_dismissed(
    page: Page, dev_stack: DevStack
) -> None:
    opened(page, dev_stack)
    toast = upload(page, document("kept.txt", "Something that stays."))
    expect(toast).to_have_attribute("data-status", "completed", timeout=DONE_MS)
    page.reload()
    source = page.locator(".source").first
    expect(source).to_have_attribute("data-status", "completed")
    expect(source.locator(".source-name")).to_have_text("kept.txt")
    expect(source.locator(".source-line")).to_contain_text("1 file")
    toast.get_by_role("button", name="Dismiss kept.txt").click()
    expect(toast).to_have_count(0)
    page.reload()
    expect(source.locator(".source-name")).to_have_text("kept.txt")
    expect(toast).to_have_count(0)


def test_a_source_is_ingested_again_and_found_once(page: Page, dev_stack: DevStack) -> None:
    opened(page, dev_stack)
    toast = upload(page, document("again.md", "# Again\n\nThe capercaillie returns."))
    expect(toast).to_have_attribute("data-status", "completed", timeout=DONE_MS)
    source = toast.get_attribute("data-source")
    button = page.get_by_role("button", name="Ingest again: again.md")
    page.locator(f".source[data-source='{source}']").filter(has=button).locator(button).click()
    page.wait_for_function(ENDED_TWICE, arg=source, timeout=DONE_MS)
    page.locator("#query").fill("capercaillie")
    expect(page.locator(".hit")).to_have_count(1)


def test_a_file_that_cannot_be_read_fails_with_a_sentence(page: Page, dev_stack: DevStack) -> None:
    opened(page, dev_stack)
    toast = upload(page, document(BROKEN_NAME, b"%PDF-1.7\nnothing more"))
    expect(toast).to_have_attribute("data-status", "failed", timeout=DONE_MS)
    expect(toast.locator(".toast-line")).to_have_text(re.compile(r"^[A-Z].+ .+\.$"))
