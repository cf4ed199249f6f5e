"""`<event-toasts>`: its rows, what they ask and tell, what a reload and a host page leave of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.browser.notices import HOST_PAGE, approval, cleared, sign_in
from tests.browser.scripted_server import ORIGIN, Json, ScriptedServer, event, other_event, state

pytestmark = pytest.mark.browser

MARKUP = "<script>window.executed = true</script><img src=x onerror=alert(1)>"
TURNED = "\u202etxt.exe"
SHOWS_A_TURN = """() => [document.body, document.querySelector("event-toasts").shadowRoot].some(
    (root) => /[\\u202a-\\u202e\\u2066-\\u2069]/.test(root.textContent))"""
END: Json = {"percent": 100, "seconds": 1.0, "files": 1, "chunks": 2}
LISTEN = """() => {
    window.answers = [];
    for (const answer of ["approve", "deny"]) {
        document.addEventListener(answer, ({ detail }) => answers.push([answer, detail.payload]));
    }
}"""
FORBID_STORAGE = """
for (const name of ["localStorage", "sessionStorage"]) {
    const get = () => { throw new DOMException("forbidden", "SecurityError"); };
    Object.defineProperty(window, name, { get });
}"""


@pytest.fixture
def server(page: Page) -> ScriptedServer:
    return ScriptedServer(page, pages={"/host": HOST_PAGE})


def report(cursor: str, kind: str, **payload: Any) -> Json:
    return other_event(cursor, f"report.{kind}", {"kind": "report", "id": "7"}, **payload)


def announced(page: Page) -> Locator:
    return page.locator("#announcer")


def test_a_question_comes_first_and_its_answer_is_handed_to_the_page(
    server: ScriptedServer, toast: Locator
) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open()
    server.page.evaluate(LISTEN)
    server.send(approval("2-0"))
    expect(toast.first).to_have_attribute("data-status", "asking")
    expect(toast.first.locator("dd")).to_have_text("bob")
    expect(server.page.get_by_role("heading", name="1 approval, 1 ingesting")).to_be_visible()
    expect(announced(server.page)).to_contain_text("Approval needed: send_email. May I write?")
    server.page.get_by_role("button", name="Deny send_email").click()
    assert server.page.evaluate("answers") == [["deny", approval("2-0")["payload"]]]


def test_the_heading_says_what_is_under_way_and_what_has_failed(server: ScriptedServer) -> None:
    error = {"code": "x", "message": "Damaged.", "retryable": False}
    server.sources = [state(status="running", percent=10)]
    server.upload_answers = [(422, {"success": False, "message": "That is no document."})]
    server.open()
    heading = server.page.get_by_role("heading", level=2)
    expect(heading.get_by_text("Ingesting 1 source")).to_be_visible()
    document: FilePayload = {"name": "a.bin", "mimeType": "text/plain", "buffer": b"Words."}
    server.page.set_input_files("#files", [document])
    expect(heading.get_by_text("1 ingesting, 1 failed", exact=True)).to_be_visible()
    server.send(approval("2-0"))
    expect(heading.get_by_text("1 approval, 1 ingesting, 1 failed")).to_be_visible()
    server.send(cleared("2-1", "denied"), event("3-0", "failed", percent=4, error=error))
    expect(heading.get_by_text("2 sources failed")).to_be_visible()


def test_an_answer_that_was_of_no_use_can_be_given_again(server: ScriptedServer) -> None:
    server.open()
    server.send(approval("2-0"))
    server.page.get_by_role("button", name="Approve send_email").click()
    refusal = server.page.locator(".approval-refusal")
    expect(refusal).to_contain_text("your application")
    approve = server.page.get_by_role("button", name="Approve send_email")
    expect(approve).to_have_attribute("aria-disabled", "false")
    expect(approve).to_be_focused()


def test_a_question_that_is_cleared_goes_and_hands_on_the_focus(
    server: ScriptedServer, toast: Locator
) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open()
    server.send(approval("2-0"))
    server.page.get_by_role("button", name="Approve send_email").focus()
    server.send(cleared("2-1", "approved"))
    expect(toast).to_have_count(1)
    expect(announced(server.page)).to_contain_text("send_email: It was approved.")
    expect(server.page.get_by_role("button", name="Dismiss report.md")).to_be_focused()


def test_a_question_survives_a_reload_and_lapses(server: ScriptedServer, toast: Locator) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=20)
    server.open()
    server.send(approval("2-0", expires_at=soon.isoformat()))
    expect(toast).to_have_count(1)
    server.reload()
    expect(toast.locator(".toast-line")).to_contain_text("lapses in")
    expect(toast.locator(".toast-line")).to_have_text("The question has lapsed", timeout=40_000)
    expect(server.page.get_by_role("button", name="Approve")).to_be_hidden()
    server.page.get_by_role("button", name="Dismiss").click()
    expect(toast).to_have_count(0)
    server.reload()
    expect(server.page.locator("#sources-empty")).to_be_visible()
    expect(toast).to_have_count(0)


def test_a_sign_in_tells_how_it_went(server: ScriptedServer, toast: Locator) -> None:
    server.open()
    error = {"code": "denied", "message": "GitHub did not agree.", "retryable": False}
    server.send(sign_in("2-0", "failed", error=error))
    expect(toast).to_have_attribute("data-status", "failed")
    expect(toast.locator(".toast-line")).to_have_text("GitHub did not agree.")
    server.send(sign_in("3-0", "completed", tools=["a", "b"]))
    expect(toast).to_have_count(1)
    expect(toast.locator(".toast-line")).to_have_text("Signed in · 2 tools")
    expect(announced(server.page)).to_contain_text("GitHub: Signed in · 2 tools")


def test_any_other_type_is_shown_by_the_pages_template_as_text(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open("/host")
    server.send(report("2-0", "ready", title=MARKUP, pages=7), other_event("2-1", "unknown.type"))
    expect(toast).to_have_count(1)
    told = server.page.locator("[slot^=toast]")
    expect(told).to_have_text(f"Report {MARKUP}, 7 pages")
    assert server.page.evaluate("window.executed === undefined")
    server.send(report("3-0", "failed", reason={"code": 7}))
    expect(told).to_have_text('No report: {"code":7}')
    expect(toast).to_have_count(1)
    server.page.get_by_role("button", name="Dismiss No report").click()
    expect(told).to_have_count(0)


def test_markup_is_text_wherever_it_comes_from(server: ScriptedServer, toast: Locator) -> None:
    server.open()
    error = {"code": "x", "message": MARKUP, "retryable": False}
    failed = [{"name": MARKUP, "code": "x", "message": MARKUP}] * 2
    server.send(
        event("2-0", "progress", name=MARKUP, stage=MARKUP, note=MARKUP, done=1, percent=4),
        approval("2-1", tool=MARKUP, message=MARKUP, arguments={MARKUP: MARKUP}),
        sign_in("2-2", "failed", error=error),
    )
    expect(toast).to_have_count(3)
    running = server.page.locator(".toast[data-status=running]")
    expect(running.locator(".toast-line")).to_have_text(f"{MARKUP} 1 · {MARKUP}")
    server.send(event("3-0", "failed", name=MARKUP, percent=4, error=error, failed_files=failed))
    expect(toast.locator(".failure-name").first).to_have_text(MARKUP)
    expect(server.page.locator(".toast script, .toast img, main script, main img")).to_have_count(0)
    assert server.page.evaluate("window.executed === undefined")


def test_a_name_is_read_in_the_order_in_which_it_is_spelt(
    server: ScriptedServer, toast: Locator
) -> None:
    failed = [{"name": TURNED, "code": "x", "message": TURNED}] * 2
    server.sources = [state(name=TURNED, status="running", percent=10)]
    server.open()
    server.send(
        approval("2-0", tool=TURNED, message=TURNED, arguments={TURNED: TURNED}),
        sign_in("2-1", "failed", error={"code": "x", "message": TURNED, "retryable": False}),
        event("2-2", "failed", name=TURNED, percent=4, failed_files=failed),
    )
    expect(toast).to_have_count(3)
    for shown in (".toast-name", ".source-name", ".approval-why", "dt", "dd", ".failure-name"):
        expect(server.page.locator(shown).first).to_have_text("\ufffdtxt.exe")
    expect(server.page.locator(".source-name")).to_have_attribute("title", "\ufffdtxt.exe")
    assert not server.page.evaluate(SHOWS_A_TURN)


def test_what_is_dismissed_stays_so_over_a_reload_until_its_end(
    server: ScriptedServer, toast: Locator
) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open()
    server.page.get_by_role("button", name="Dismiss report.md").click()
    server.reload()
    expect(server.page.locator(".source .chip")).to_have_text("10%")
    expect(toast).to_have_count(0)
    server.sources = [state(status="completed", percent=100)]
    server.reload()
    expect(toast).to_have_attribute("data-status", "completed")
    expect(announced(server.page)).to_contain_text("report.md: Done")


def test_a_row_that_is_over_survives_a_reload_until_it_is_dismissed(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open()
    server.send(event("2-0", "queued", attempt=0, percent=0), event("2-1", "completed", **END))
    expect(toast).to_have_attribute("data-status", "completed")
    server.sources = [state(status="completed", percent=100)]
    server.reload()
    expect(toast).to_have_attribute("data-status", "completed")
    server.page.get_by_role("button", name="Clear finished").click()
    expect(toast).to_have_count(0)
    server.reload()
    expect(server.page.locator(".source")).to_have_count(1)
    expect(toast).to_have_count(0)


@pytest.mark.parametrize("path", ["/", "/host"])
def test_it_does_without_storage(server: ScriptedServer, toast: Locator, path: str) -> None:
    server.page.add_init_script(FORBID_STORAGE)
    server.sources = [state(status="running", percent=10)]
    server.open(path)
    expect(toast).to_have_attribute("data-status", "running")
    server.page.get_by_role("button", name="Dismiss report.md").click()
    expect(toast).to_have_count(0)


def test_dismissing_moves_the_focus_to_the_next_row_and_at_last_back(
    server: ScriptedServer, toast: Locator
) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open()
    server.send(sign_in("2-0", "completed"))
    expect(toast).to_have_count(2)
    server.page.locator("#query").focus()
    server.page.get_by_role("button", name="Dismiss GitHub").focus()
    server.page.keyboard.press("Enter")
    expect(server.page.get_by_role("button", name="Dismiss report.md")).to_be_focused()
    server.page.keyboard.press("Enter")
    expect(server.page.locator("#query")).to_be_focused()


def test_a_later_question_waits_behind_those_before_it(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open()
    server.send(approval("2-0"), approval("2-1", "a2", tool="delete_file"))
    expect(toast).to_have_count(2)
    expect(toast.first).to_contain_text("send_email")


def test_rows_that_have_just_moved_take_no_answer_by_pointer(server: ScriptedServer) -> None:
    server.open()
    server.page.evaluate(LISTEN)
    server.send(approval("2-0"))
    approve = server.page.get_by_role("button", name="Approve send_email")
    approve.hover()
    server.page.evaluate(
        """(event) => document.querySelector("event-toasts").take(event)""",
        approval("2-1", "a2", tool="delete_file"),
    )
    server.page.mouse.down()
    server.page.mouse.up()
    assert server.page.evaluate("answers") == []
    approve.click()
    assert server.page.evaluate("answers.length") == 1


def test_a_card_that_is_in_use_does_not_scroll_away(server: ScriptedServer, toast: Locator) -> None:
    server.open()
    server.send(*(approval(f"2-{n}", f"a{n}", tool=f"tool_{n}") for n in range(8)))
    expect(toast).to_have_count(8)
    server.page.get_by_role("button", name="Approve tool_7").focus()
    scroll = server.page.locator(".toasts-scroll")
    top = scroll.evaluate("(node) => node.scrollTop")
    assert top > 0
    server.send(sign_in("3-0", "completed"))
    expect(toast).to_have_count(9)
    assert scroll.evaluate("(node) => node.scrollTop") == top


def test_a_question_that_lapses_hands_the_focus_to_its_close_button_and_says_so_once(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open()
    soon = datetime.now(UTC) + timedelta(seconds=12)
    server.send(approval("2-0", expires_at=soon.isoformat()))
    server.page.get_by_role("button", name="Approve send_email").focus()
    lapsed = server.page.locator("#announcer p").filter(has_text="The question has lapsed.")
    expect(lapsed).to_have_count(1, timeout=30_000)
    expect(server.page.get_by_role("button", name="Dismiss the question")).to_be_focused()
    server.send(cleared("2-1", "expired"), sign_in("2-2", "completed"))
    expect(announced(server.page)).to_contain_text("GitHub")
    expect(lapsed).to_have_count(1)


def test_focus_in_what_a_template_shows_is_handed_on(
    server: ScriptedServer, toast: Locator
) -> None:
    link = "<template type='report.ready'><a href='#r'>Report</a>"
    server.pages["/host"] = HOST_PAGE.replace('<template type="report.ready">', link)
    server.sources = [state(status="running", percent=10)]
    server.open("/host")
    server.send(report("2-0", "ready", title="Figures", pages=7))
    server.page.get_by_role("link", name="Report").focus()
    server.send(report("3-0", "failed", reason="none"))
    close = server.page.get_by_role("button", name="Dismiss No report")
    expect(close).to_be_focused()
    server.send(report("4-0", "ready", title="Figures", pages=7))
    server.page.get_by_role("link", name="Report").focus()
    server.page.get_by_role("button", name="Dismiss ReportReport").evaluate(
        "(node) => node.click()"
    )
    expect(server.page.get_by_role("button", name="Dismiss report.md")).to_be_focused()


def test_a_hidden_element_is_hidden(server: ScriptedServer, toast: Locator) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open("/host")
    expect(toast).to_be_visible()
    server.page.evaluate("() => (document.querySelector('event-toasts').hidden = true)")
    expect(toast).to_be_hidden()


def test_without_its_styles_only_what_it_says_is_there(
    server: ScriptedServer, toast: Locator
) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open("/host")
    server.page.route("**/*.css", lambda route: route.abort())
    server.reload()
    expect(toast).to_be_visible()
    size = "(node) => { const r = node.getBoundingClientRect(); return [r.width, r.height]; }"
    assert server.page.locator("event-toasts .sprite").evaluate(size) == [0, 0]
    assert server.page.locator("#announcer").evaluate(size) == [1, 1]


def test_a_state_that_is_fetched_late_takes_no_percent_back(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open()
    server.send(event("2-0", "progress", stage="parse", done=5, percent=60))
    expect(toast.locator(".toast-percent")).to_have_text("60%")
    server.sources = [state(status="running", stage="index", done=1, percent=40)]
    cut = {"type": "backlog.truncated", "payload": {"reason": "trimmed", "cursor": "2-5"}}
    server.send(cut)
    expect(toast.locator(".toast-line")).to_have_text("Indexing 1")
    expect(toast.locator(".toast-percent")).to_have_text("60%")


def test_a_retry_is_counted_down(server: ScriptedServer, toast: Locator) -> None:
    server.open()
    eta = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()
    error = {"code": "away", "message": "The store was away.", "retryable": True}
    server.send(event("2-0", "retrying", percent=4, attempts=3, eta=eta, error=error))
    expect(toast.locator(".toast-line")).to_contain_text(re.compile("Next try in [3-8] s"))
    expect(toast.locator(".toast-line")).to_contain_text(re.compile("Next try in [12] s"))
    expect(toast.locator(".toast-line")).to_contain_text("Trying again")


def test_on_a_host_page_it_connects_by_itself_with_the_pages_token(
    server: ScriptedServer, toast: Locator
) -> None:
    asked: list[str] = []
    server.page.on("request", lambda request: asked.append(request.url))
    server.sources = [state(status="running", percent=10)]
    token = "document.addEventListener('DOMContentLoaded', () => { "
    token += "document.querySelector('event-toasts').token = () => 'fresh'; })"
    server.page.add_init_script(token)
    server.open("/host")
    expect(toast).to_have_attribute("data-status", "running")
    server.send(event("2-0", "completed", **END))
    expect(toast).to_have_attribute("data-status", "completed")
    assert set(server.tokens) == {"Bearer fresh"}
    assert not [url for url in asked if "/static/" in url], "a copy of the files is enough"
    folder = f"{ORIGIN}/assets/"
    beside = {url.removeprefix(folder).split("/")[0] for url in asked if url.startswith(folder)}
    assert beside == {"event-toasts.js", "event-toasts", "elements.js", "eventstream.js"}


def test_a_host_page_gives_it_colours_and_a_scheme(server: ScriptedServer) -> None:
    server.sources = [state(status="running", percent=10)]
    server.open("/host")
    fill = server.page.locator(".bar-fill")
    colour = "(node) => getComputedStyle(node).backgroundColor"
    expect(fill).to_have_count(1)
    assert fill.evaluate(colour) == "rgb(43, 120, 56)"
    style = server.page.evaluate_handle("document.querySelector('event-toasts').style")
    style.evaluate("(style) => (style.colorScheme = 'dark')")
    assert fill.evaluate(colour) == "rgb(116, 207, 128)"
    style.evaluate("(style) => style.setProperty('--event-toasts-accent', 'rgb(1, 2, 3)')")
    assert fill.evaluate(colour) == "rgb(1, 2, 3)"


def test_another_user_sees_nothing_of_the_one_before(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open("/host")
    server.send(report("2-0", "ready", title="Figures", pages=7))
    expect(toast).to_have_count(1)
    server.page.evaluate("() => document.querySelector('event-toasts').setAttribute('user', 'bob')")
    expect(toast).to_have_count(0)
    expect(server.page.get_by_text("Figures")).to_have_count(0)
    server.page.evaluate(
        "() => document.querySelector('event-toasts').setAttribute('user', 'alice')"
    )
    expect(server.page.locator("[slot^=toast]")).to_contain_text("Figures")
