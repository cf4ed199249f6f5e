"""A real Chromium. Package scope: Playwright's event loop must not outlive this tier."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
]
expect.set_options(timeout=15_000)  # for a busy machine


def chromium() -> str | None:
    """The program, where there is one."""
    named = os.environ.get("EVENTSTREAM_CHROMIUM")
    return named or next(filter(None, map(shutil.which, PROGRAMS)), None)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The machine's Chromium, or the one that EVENTSTREAM_CHROMIUM names."""
    program = chromium()
    if program is None:
        message = "No Chromium here: install chromium, or name one in EVENTSTREAM_CHROMIUM."
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page in a fresh profile; script errors and policy violations fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    made = context.new_page()
    made.set_default_timeout(30_000)
    faults: list[str] = []
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    made.on("console", lambda said: faults.append(said.text) if _is_violation(said) else None)
    yield made
    made.unroute_all(behavior="ignoreErrors")
    context.close()
    assert faults == []


@pytest.fixture
def toast(page: Page) -> Locator:
    """The rows of the page's toasts."""
    return page.locator(".toast")


def _is_violation(said: ConsoleMessage) -> bool:
    return "Content Security Policy" in said.text
