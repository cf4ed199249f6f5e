"""The answer's card on its own: what a tab may have kept, and what a refusal leaves of it."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from tests.browser.scripted_server import ScriptedServer

pytestmark = pytest.mark.browser

REFUSAL = "Ask a shorter question."
WITHOUT_AN_ANSWER = [
    "{",
    "null",
    "{}",
    '"x"',
    "[]",
    "5",
    '{"id": 5, "question": "Why?"}',
    '{"id": "a", "question": ["Why?"]}',
    '{"id": "", "question": "Why?"}',
]


@pytest.fixture
def server(page: Page) -> ScriptedServer:
    return ScriptedServer(page)


@pytest.mark.parametrize("kept", WITHOUT_AN_ANSWER)
def test_what_is_kept_in_place_of_an_answer_is_passed_over(
    server: ScriptedServer, kept: str
) -> None:
    server.page.add_init_script(f"sessionStorage.setItem('eventstream.answer', {json.dumps(kept)})")
    server.open()
    expect(server.page.locator("#sources-empty")).to_be_visible()
    expect(server.page.locator("#answer")).to_be_hidden()


def test_a_long_question_is_cut_and_told_in_full(server: ScriptedServer) -> None:
    server.open()
    refusal = {"success": False, "message": REFUSAL}
    server.page.route("**/api/messages", lambda route: route.fulfill(status=422, json=refusal))
    long = "Why does the heron wait? " * 150
    server.page.fill("#question", long)
    server.page.press("#question", "Enter")
    question = server.page.locator("#answer-question")
    expect(question).to_have_attribute("title", long.strip())
    assert question.evaluate("(node) => node.clientHeight") < 80


def test_a_refused_question_stands_above_its_reason_with_nothing_between(
    server: ScriptedServer,
) -> None:
    server.open()
    refusal = {"success": False, "message": REFUSAL}
    server.page.route("**/api/messages", lambda route: route.fulfill(status=422, json=refusal))
    server.page.fill("#question", "Why?")
    server.page.press("#question", "Enter")
    expect(server.page.locator("#answer-question")).to_have_text("Why?")
    expect(server.page.locator("#answer-state")).to_have_text(REFUSAL)
    expect(server.page.locator("#answer-text")).to_be_hidden()
    expect(server.page.locator("#answer-sources")).to_be_hidden()
