"""The page's client, turn by turn: what it makes of events, of gaps and of refusals."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.browser.scripted_server import RUN, SOURCE, Json, ScriptedServer, event, state

pytestmark = pytest.mark.browser

FUTURE_MS = 32_503_680_000_000  # the year 3000: no event of before
ANSWER_STATES = """async (options) => {
    const { resumeMessage } = await import("/static/eventstream.js");
    const states = [];
    const onState = (state) => void states.push(state);
    const ending = await resumeMessage("id", { ...options, onState }).catch((error) => error);
    if (!(ending instanceof TypeError)) throw ending;
    return states;
}"""
PARSING: Json = {"stage": "parse", "total": 20, "unit": "files"}


@pytest.fixture
def server(page: Page) -> ScriptedServer:
    return ScriptedServer(page)


def bar_percent(toast: Locator) -> Locator:
    return toast.locator("[role=progressbar]")


def test_it_watches_from_the_cursor_of_the_state_it_painted(
    server: ScriptedServer, toast: Locator
) -> None:
    server.cursor = "5-3"
    server.send(event("6-0", "started", percent=0))
    server.open()
    expect(toast).to_have_count(1)
    assert server.stream_cursors[0] == "5-3"


def test_a_bar_never_falls_within_an_attempt_and_no_event_counts_twice(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open()
    server.send(
        event("2-0", "queued", attempt=0, percent=0),
        event("2-1", "started", percent=0),
        event("2-2", "progress", **PARSING, done=12, percent=40),
        event("2-3", "progress", **PARSING, done=11, percent=30),
        event("2-2", "completed", percent=100, seconds=1.0, files=1, chunks=1, characters=1),
    )
    expect(toast.locator(".toast-line")).to_have_text("Parsing 11 of 20 files")
    expect(bar_percent(toast)).to_have_attribute("aria-valuenow", "40")
    expect(toast.locator(".toast-percent")).to_have_text("40%")


def test_a_note_stands_beside_what_is_counted(server: ScriptedServer, toast: Locator) -> None:
    server.open()
    note = "Asking <b>the shop</b>"
    server.send(event("2-1", "progress", **PARSING, done=12, percent=40, note=note))
    expect(toast.locator(".toast-line")).to_have_text(f"Parsing 12 of 20 files · {note}")


def test_a_new_attempt_starts_over_and_late_words_of_the_old_one_are_ignored(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open()
    error = {"code": "away", "message": "The store was away.", "retryable": True}
    server.send(
        event("2-1", "progress", **PARSING, done=12, percent=40),
        event(
            "2-2",
            "retrying",
            percent=40,
            error=error,
            attempts=3,
            eta="2099-01-01T00:00:00.000Z",
        ),
    )
    expect(toast).to_have_attribute("data-status", "retrying")
    expect(toast.locator(".toast-line")).to_have_text(
        re.compile(r"The store was away\. Next try in \d+ s \(attempt 2 of 3\)\.")
    )
    server.send(
        event("3-0", "started", attempt=2, percent=0),
        event("3-1", "progress", attempt=1, **PARSING, done=13, percent=50),
    )
    expect(toast.locator(".toast-line")).to_have_text("Starting · attempt 2 of 3")
    expect(bar_percent(toast)).to_have_attribute("aria-valuenow", "0")


def test_a_dismissed_run_comes_back_to_say_how_it_ended(
    server: ScriptedServer, toast: Locator
) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open()
    toast.get_by_role("button", name="Dismiss report.md").click()
    expect(toast).to_have_count(0)
    server.send(event("2-0", "progress", **PARSING, done=9, percent=45))
    expect(server.page.locator(".source .chip")).to_have_text("45%")
    expect(toast).to_have_count(0)
    error = {"code": "empty", "message": "There is no text in it.", "retryable": False}
    server.send(event("3-0", "failed", percent=45, seconds=2.0, error=error))
    expect(toast).to_have_attribute("data-status", "failed")
    expect(toast.locator(".toast-line")).to_have_text("There is no text in it.")
    expect(server.page.locator("#announcer")).to_contain_text("There is no text in it.")


def test_after_a_truncation_the_state_is_fetched_painted_and_followed(
    server: ScriptedServer, toast: Locator
) -> None:
    server.cursor = "900-0"
    server.sources = [state(status="running", percent=10)]
    server.open()
    expect(toast).to_have_attribute("data-status", "running")
    server.cursor = "3-0"  # a journal that was reset starts from lower ids
    server.sources = [state(status="stalled", percent=60)]
    cut = {"type": "backlog.truncated", "payload": {"reason": "journal_reset", "cursor": "2-0"}}
    server.send(cut, event("3-0", "progress", **PARSING, done=1, percent=5))
    expect(toast).to_have_attribute("data-status", "stalled")
    expect(bar_percent(toast)).to_have_attribute("aria-valuenow", "60")
    server.send(event("4-0", "cancelled", reason="superseded"))
    expect(toast).to_have_attribute("data-status", "cancelled")


@pytest.mark.parametrize("status", [429, 503])
def test_a_refused_stream_is_asked_for_again_from_the_last_event(
    server: ScriptedServer, status: int
) -> None:
    server.open()
    server.send(event("2-0", "started", percent=0))
    server.refuse(status)
    server.refuse(status)
    server.send(event("3-0", "progress", **PARSING, done=1, percent=5))
    line = server.page.locator(".toast-line")
    expect(line).to_have_text("Parsing 1 of 20 files", timeout=10_000)  # at most 2 and 4 seconds
    assert server.stream_cursors[:4] == ["1-0", "2-0", "2-0", "2-0"]


def test_a_long_interruption_shows_in_the_badge(server: ScriptedServer) -> None:
    server.send(event(f"{FUTURE_MS}-0", "started", percent=0))
    server.open()
    badge = server.page.locator("#badge")
    expect(badge).to_have_text("Live")
    expect(badge).to_have_text(re.compile("^Reconnecting"))
    server.send(event(f"{FUTURE_MS}-1", "progress", **PARSING, done=1, percent=5))
    expect(badge).to_have_text("Live")


def test_a_stream_that_stops_for_good_shows_in_the_badge(server: ScriptedServer) -> None:
    server.refuse(403)
    server.open()
    expect(server.page.locator("#badge")).to_have_text("Not connected the server refused")
    assert len(server.stream_cursors) == 1


def test_a_refused_upload_says_the_servers_sentence(server: ScriptedServer, toast: Locator) -> None:
    sentence = "An upload may have 50 MiB; this one has more."
    server.upload_answers = [(413, {"success": False, "message": sentence, "error": "too_large"})]
    server.open()
    choose(server.page)
    expect(toast).to_have_attribute("data-status", "failed")
    expect(toast.locator(".toast-line")).to_have_text(sentence)
    expect(toast.get_by_role("button", name="Try again")).to_be_hidden()


def test_an_upload_that_broke_off_is_sent_again_under_the_same_key(
    server: ScriptedServer, toast: Locator
) -> None:
    taken = {"success": True, "source_id": SOURCE, "run_id": "r", "task_id": "t", "cursor": "1-0"}
    server.upload_answers = [None, (202, taken)]
    server.open()
    choose(server.page)
    toast.get_by_role("button", name="Try again").click()
    expect(toast).to_have_attribute("data-source", SOURCE)
    assert len(server.upload_keys) == 2
    assert len(set(server.upload_keys)) == 1
    server.send(event("2-0", "queued", attempt=0, percent=0))
    expect(toast.locator(".toast-line")).to_have_text("Waiting for a worker")
    expect(toast).to_have_count(1)


def test_an_end_that_is_said_once_more_ends_the_wait_and_is_no_other_end(
    server: ScriptedServer, toast: Locator
) -> None:
    taken = {"success": True, "source_id": SOURCE, "run_id": RUN, "task_id": "t", "cursor": "1-0"}
    server.upload_answers = [None, (202, taken)]
    server.open()
    choose(server.page)
    expect(toast).to_have_attribute("data-status", "failed")
    end: Json = {"percent": 100, "seconds": 1.0, "files": 1, "chunks": 2}
    server.send(event("2-0", "queued", attempt=0, percent=0), event("2-1", "completed", **end))
    expect(toast).to_have_count(2)
    completed = server.page.locator(".toast[data-status=completed]")
    completed.get_by_role("button", name="Dismiss report.md").click()
    expect(toast).to_have_count(1)
    toast.get_by_role("button", name="Try again").click()
    expect(toast).to_have_attribute("data-source", SOURCE)
    server.send(event("2-2", "completed", **end, repeated=True))
    expect(toast).to_have_attribute("data-status", "completed")
    toast.get_by_role("button", name="Dismiss report.md").click()
    expect(toast).to_have_count(0)
    other = event("3-0", "queued", attempt=0, percent=0, run_id="another")
    other["scope"] = {"kind": "source", "id": "another"}
    server.send(event("2-3", "completed", **end, repeated=True), other)
    expect(toast).to_have_attribute("data-status", "queued")
    expect(server.page.locator("#announcer p").filter(has_text="report.md: Done")).to_have_count(1)


def test_a_running_source_is_cancelled_and_ingested_again_by_keyboard_alone(
    server: ScriptedServer,
) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open()
    source = server.page.locator(".source")
    source.get_by_role("button", name="Cancel: report.md").focus()
    server.page.keyboard.press("Enter")
    expect(source.get_by_role("button")).to_have_attribute("aria-disabled", "false")
    server.send(event("2-0", "cancelled", percent=10, seconds=1.0, reason="cancelled"))
    expect(source).to_have_attribute("data-status", "cancelled")
    expect(source.locator(".source-line")).to_have_text("Cancelled before it was done.")
    again = source.get_by_role("button", name="Ingest again: report.md")
    expect(again).to_be_focused()
    server.page.keyboard.press("Enter")
    server.send(event("3-0", "queued", attempt=0, percent=0, run_id="another"))
    expect(source).to_have_attribute("data-status", "queued")
    expect(source.get_by_role("button", name="Cancel: report.md")).to_be_focused()
    assert server.asked == [
        ("DELETE", f"/api/sources/{SOURCE}"),
        ("POST", f"/api/sources/{SOURCE}/reingest"),
    ]


def test_a_refused_action_says_the_servers_sentence_until_something_changes(
    server: ScriptedServer,
) -> None:
    sentence = "The files of this source are not kept here, or no longer."
    server.sources = [state(status="completed", percent=100)]
    server.refusals = [(410, sentence)]
    server.open()
    source = server.page.locator(".source")
    source.get_by_role("button", name="Ingest again: report.md").click()
    expect(source.get_by_role("status")).to_have_text(sentence)
    server.send(event("3-0", "queued", attempt=0, percent=0, run_id="another"))
    expect(source.get_by_role("status")).to_have_text("")


def choose(page: Page) -> None:
    content: FilePayload = {"name": "report.md", "mimeType": "text/markdown", "buffer": b"# Report"}
    page.set_input_files("#files", content)


@pytest.mark.parametrize("wrong", [{"token": "€"}, {"token": "a\nb"}, {"url": "http://["}])
def test_what_no_request_can_be_made_of_stops_at_once_with_its_fault(
    page: Page, server: ScriptedServer, wrong: Json
) -> None:
    server.open()
    said = page.evaluate(ANSWER_STATES, wrong)
    assert [state["state"] for state in said] == ["connecting", "stopped"]
    assert said[-1]["reason"] == "failed"
    assert "'Request'" in said[-1]["message"]
