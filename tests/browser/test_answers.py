"""Questions in the page: the answer is watched, cut off, resumed, stopped, and safe to read."""

from __future__ import annotations

import re
from typing import Protocol

import pytest
from playwright.sync_api import FilePayload, Page, expect

pytestmark = pytest.mark.browser

DONE_MS = 60_000
WAITING = "Heron number {} waits patiently at the pond <b>by the old mill</b> for a fish."
HERONS = " ".join(["A heron stands for hours.", *[WAITING.format(n) for n in range(9)]])


class DevStack(Protocol):
    """What `eventstream dev` runs."""

    @property
    def url(self) -> str: ...


@pytest.fixture
def asking(page: Page, dev_stack: DevStack) -> Page:
    """The page of somebody who has a document on herons."""
    page.goto(dev_stack.url)
    expect(page.locator("#badge")).to_have_text("Live")
    document: FilePayload = {
        "name": "herons.txt",
        "mimeType": "text/plain",
        "buffer": HERONS.encode(),
    }
    page.set_input_files("#files", [document])
    toast = page.locator(".toast").filter(has=page.get_by_text("herons.txt", exact=True)).first
    expect(toast).to_have_attribute("data-status", "completed", timeout=DONE_MS)
    return page


def ask(page: Page, question: str) -> None:
    page.fill("#question", question)
    page.press("#question", "Enter")
    expect(page.locator("#answer-question")).to_have_text(question)


def text(page: Page) -> str:
    return page.locator("#answer-text").inner_text()


def until_over(page: Page) -> None:
    expect(page.locator("#answer-state")).to_have_text("Answered", timeout=DONE_MS)


def whole_answer(page: Page) -> str:
    """What the journal holds, once it is over."""
    found: str = page.evaluate(
        """async () => {
          const { id } = JSON.parse(sessionStorage.getItem("eventstream.answer"));
          return (await (await fetch(`/api/messages/${id}`)).json()).text;
        }"""
    )
    return found


def test_an_answer_is_seen_while_it_is_written_with_what_it_cites(asking: Page) -> None:
    ask(asking, "How long does a heron stand?")
    expect(asking.locator("#answer")).to_have_attribute("data-state", "live", timeout=DONE_MS)
    expect(asking.locator("#answer-text")).to_contain_text("heron")
    assert asking.locator("#answer").get_attribute("aria-busy") == "true"
    until_over(asking)
    expect(asking.locator("#answer-sources li").first).to_contain_text("[1] herons.txt")
    assert asking.locator("#answer-text b").count() == 0, "text, never markup"
    assert "<b>" in text(asking)
    assert (
        re.sub(r"\s+", " ", text(asking)).strip()
        == re.sub(r"\s+", " ", whole_answer(asking)).strip()
    )


def test_an_answer_goes_on_while_the_connection_is_cut_and_is_resumed(asking: Page) -> None:
    ask(asking, "Where does the heron wait for a fish?")
    expect(asking.locator("#answer-text")).not_to_be_empty(timeout=DONE_MS)
    asking.click("#answer-cut")
    expect(asking.locator("#answer-state")).to_contain_text("cut")
    seen = text(asking)
    asking.click("#answer-cut")
    until_over(asking)
    assert text(asking).startswith(seen.rstrip())
    assert asking.locator("#answer-text").text_content() == whole_answer(asking)


def test_a_reload_shows_the_answer_that_was_under_way(asking: Page) -> None:
    ask(asking, "Which heron waits at the pond?")
    expect(asking.locator("#answer-text")).not_to_be_empty(timeout=DONE_MS)
    asking.reload()
    until_over(asking)
    assert asking.locator("#answer-text").text_content() == whole_answer(asking)


def test_an_answer_is_stopped(asking: Page) -> None:
    ask(asking, "Why does the heron wait by the mill?")
    expect(asking.locator("#answer-text")).not_to_be_empty(timeout=DONE_MS)
    asking.click("#answer-stop")
    expect(asking.locator("#answer-state")).to_have_text("Stopped", timeout=DONE_MS)
    expect(asking.locator("#answer-stop")).to_be_hidden()
    assert len(text(asking)) < len(HERONS)
