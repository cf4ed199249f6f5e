"""What `<event-toasts>` keeps: for whom, how much, and what becomes of it in another tab."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.notices import HOST_PAGE, approval, cleared, sign_in
from tests.browser.scripted_server import Json, ScriptedServer, event, other_event, state

pytestmark = pytest.mark.browser

CUT: Json = {"type": "backlog.truncated", "payload": {"reason": "trimmed", "cursor": "2-5"}}
COUNT_WRITES = """() => {
    window.writes = 0;
    const { setItem } = Storage.prototype;
    Storage.prototype.setItem = function (key, text) {
        if (key.startsWith("eventstream.toasts:")) window.writes++;
        return setItem.call(this, key, text);
    };
}"""
TAKE = "(events) => events.forEach((event) => document.querySelector('event-toasts').take(event))"


@pytest.fixture
def server(page: Page) -> ScriptedServer:
    return ScriptedServer(page, pages={"/host": HOST_PAGE})


def run(number: int, kind: str = "started", **payload: object) -> Json:
    """An event of one of many runs."""
    given = {"run_id": f"r{number}", "name": f"{number}.md", "attempt": 1, "percent": 0, **payload}
    scope = {"kind": "source", "id": f"s{number}"}
    return other_event(f"5-{number}", f"source.ingest.{kind}", scope, **given)


def take(server: ScriptedServer, *events: Json) -> None:
    """Hands events to the element at once, as a page of its own does."""
    server.page.evaluate(TAKE, list(events))


def note(number: int) -> Json:
    scope = {"kind": "mcp_server", "id": f"n{number}"}
    return other_event(f"6-{number}", "mcp.oauth.completed", scope, server=f"Server {number}")


def ask(server: ScriptedServer, toast: Locator, path: str = "/") -> None:
    """Opens the page, which then shows an agent's question alone."""
    server.open(path)
    server.send(approval("2-0"))
    expect(toast).to_have_count(1)


@pytest.mark.parametrize("path", ["/", "/host"])
def test_the_next_user_of_the_same_tab_sees_nothing_of_the_one_before(
    server: ScriptedServer, toast: Locator, path: str
) -> None:
    ask(server, toast, path)
    server.user_id = "bob"
    server.sources = [state(status="running", percent=10)]
    server.reload()
    expect(toast).to_have_count(1)
    expect(toast).to_have_attribute("data-status", "running")
    server.user_id = "alice"
    server.sources = [state(status="running", percent=20)]
    server.reload()
    expect(server.page.locator(".toast-percent")).to_have_text("20%")
    expect(toast).to_have_count(1)


def test_nothing_is_shown_before_it_is_known_who_asks(
    server: ScriptedServer, toast: Locator
) -> None:
    ask(server, toast)
    server.page.route("**/api/sources", lambda route: route.abort())
    server.reload()
    expect(server.page.locator("#badge .badge-text")).to_contain_text("Reconnecting")
    expect(toast).to_have_count(0)


def test_another_user_in_a_later_state_empties_the_card(
    server: ScriptedServer, toast: Locator
) -> None:
    ask(server, toast)
    server.user_id = "bob"
    server.send(CUT)
    expect(toast).to_have_count(0)


def test_a_cleared_storage_stays_empty(server: ScriptedServer, toast: Locator) -> None:
    ask(server, toast)
    server.page.evaluate("sessionStorage.clear()")
    server.send(sign_in("3-0", "completed"))
    expect(toast).to_have_count(2)
    server.reload()
    expect(toast).to_have_count(1)
    expect(toast).to_contain_text("GitHub")


def test_more_runs_than_are_kept_cost_no_write_an_event_and_bring_none_back(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open()
    take(server, run(0))
    server.page.get_by_role("button", name="Dismiss 0.md").click()
    take(server, *(run(number) for number in range(1, 251)))
    expect(toast).to_have_count(250)
    server.page.evaluate(COUNT_WRITES)
    take(server, *(run(number, "progress", percent=5) for number in range(251)))
    expect(toast).to_have_count(250)
    assert server.page.evaluate("writes") == 0


def test_questions_are_kept_longer_than_notes(server: ScriptedServer, toast: Locator) -> None:
    server.open()
    take(server, approval("2-0"), *(note(number) for number in range(30)))
    expect(toast).to_have_count(31)
    server.reload()
    expect(toast).to_have_count(20)
    expect(toast.first).to_have_attribute("data-status", "asking")


def test_what_is_over_does_not_grow_without_bound(server: ScriptedServer, toast: Locator) -> None:
    server.open()
    take(server, approval("2-0"), run(200), *(note(number) for number in range(150)))
    expect(toast).to_have_count(102)
    expect(toast.first).to_have_attribute("data-status", "asking")
    expect(toast.last).to_contain_text("200.md")
    expect(server.page.get_by_text("Server 149", exact=True)).to_have_count(1)
    expect(server.page.get_by_text("Server 49", exact=True)).to_have_count(0)


def test_after_a_truncation_a_question_may_be_over_and_can_be_answered_all_the_same(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open()
    server.send(approval("2-0"))
    expect(toast.locator(".toast-line")).to_have_text("Approval needed")
    server.send(CUT)
    doubt = "May be over: events were missed"
    expect(toast.locator(".toast-line")).to_have_text(doubt)
    server.reload()
    expect(toast.locator(".toast-line")).to_have_text(doubt)
    expect(server.page.get_by_role("button", name="Approve send_email")).to_be_visible()
    server.send(approval("2-6"))
    expect(toast.locator(".toast-line")).to_have_text("Approval needed")
    server.send(cleared("3-0", "approved"))
    expect(toast).to_have_count(0)


def test_a_run_that_is_dismissed_in_one_tab_goes_in_the_other(
    server: ScriptedServer, toast: Locator
) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open("/host")
    expect(toast).to_have_count(1)
    tab = server.page.context.new_page()
    other = ScriptedServer(tab, pages=server.pages, sources=server.sources)
    other.open("/host")
    expect(tab.locator(".toast")).to_have_count(1)
    tab.get_by_role("button", name="Dismiss report.md").click()
    expect(toast).to_have_count(0)


def test_what_is_over_and_dismissed_in_one_tab_goes_in_the_other(
    server: ScriptedServer, toast: Locator
) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open("/host")
    expect(toast).to_have_count(1)
    tab = server.page.context.new_page()
    ScriptedServer(tab, pages=server.pages, sources=server.sources).open("/host")
    done: Json = {"percent": 100, "seconds": 1.0, "files": 1, "chunks": 2}
    server.send(event("2-0", "completed", **done), sign_in("2-1", "completed"), approval("2-2"))
    for rows in (toast, tab.locator(".toast")):
        expect(rows).to_have_count(3)
        expect(rows.nth(2)).to_have_attribute("data-status", "completed")
    tab.get_by_role("button", name="Dismiss report.md").click()
    expect(toast).to_have_count(2)
    tab.get_by_role("button", name="Dismiss GitHub").click()
    expect(toast).to_have_count(1)
    expect(toast).to_have_attribute("data-status", "asking")
    server.sources = [state(status="completed", percent=100)]
    server.reload()
    expect(toast).to_have_count(1)
    expect(toast).to_have_attribute("data-status", "asking")


def test_a_sign_out_in_one_tab_takes_the_notices_of_the_other(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open("/host")
    server.send(approval("2-0"))
    expect(toast).to_have_count(1)
    tab = server.page.context.new_page()
    ScriptedServer(tab, pages={"/out": "<!doctype html><title>Signed out</title>"}).open("/out")
    tab.evaluate("localStorage.clear()")
    expect(toast).to_have_count(0)


def test_what_was_announced_before_a_reload_is_not_announced_again(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open()
    announced = server.page.locator("#announcer")
    done: Json = {"percent": 100, "seconds": 1.0, "files": 1, "chunks": 2}
    server.send(event("2-0", "queued", attempt=0, percent=0), event("2-1", "completed", **done))
    expect(announced).to_contain_text("report.md: Done")
    server.sources = [state(status="completed", percent=100)]
    server.reload()
    expect(toast).to_have_attribute("data-status", "completed")
    server.send(sign_in("3-0", "completed"))
    expect(announced).to_have_text("GitHub: Signed in")


def test_a_burst_is_announced_in_short_and_a_question_by_itself(server: ScriptedServer) -> None:
    server.open()
    take(server, *(run(number) for number in range(9)), approval("9-0"))
    said = server.page.locator("#announcer p")
    expect(said).to_have_count(5)
    expect(said.first).to_contain_text("Approval needed: send_email.")
    expect(said.last).to_have_text("And 6 more changes.")
