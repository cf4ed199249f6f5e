"""What is dropped or picked: hidden files, empty folders, a page that is left meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Locator, Page, Route, expect

from tests.browser.scripted_server import RUN, SOURCE, ScriptedServer

pytestmark = pytest.mark.browser

TAKEN = (202, {"success": True, "source_id": SOURCE, "run_id": RUN})


@pytest.fixture
def server(page: Page) -> ScriptedServer:
    return ScriptedServer(page, upload_answers=[TAKEN, TAKEN])


def document(name: str) -> FilePayload:
    return {"name": name, "mimeType": "text/plain", "buffer": b"Some words."}


def drop(page: Page, *paths: Path) -> None:
    """Drops files and folders from the desktop onto the page."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 300, "data": data})


def folder(path: Path, *files: str) -> Path:
    path.mkdir()
    for each in files:
        file = path / each
        file.parent.mkdir(exist_ok=True)
        file.write_text("Some words.")
    return path


def sent(page: Page) -> list[str]:
    """The paths of the next upload's files."""
    found: list[str] = page.evaluate("paths")
    return found


RECORD_PATHS = """
window.paths = [];
const { append } = FormData.prototype;
FormData.prototype.append = function (field, value, ...path) {
  if (field === "file") paths.push(...path);
  return append.call(this, field, value, ...path);
};
"""


def test_a_hidden_file_that_is_picked_by_itself_is_meant(
    server: ScriptedServer, toast: Locator
) -> None:
    server.open()
    server.page.set_input_files("#files", [document(".notes")])
    expect(toast.locator(".toast-name")).to_have_text(".notes")
    expect(toast).to_have_attribute("data-source", SOURCE)


def test_of_a_folder_what_is_hidden_stays_behind(server: ScriptedServer, tmp_path: Path) -> None:
    server.page.add_init_script(RECORD_PATHS)
    server.open()
    files = ("a.txt", ".DS_Store", ".git/config", "deep/b.txt", "deep/.hidden")
    drop(server.page, folder(tmp_path / ".box", *files))
    expect(server.page.locator(".toast-name")).to_have_text(".box")
    assert sorted(sent(server.page)) == [".box/a.txt", ".box/deep/b.txt"]


def test_a_folder_with_nothing_to_ingest_is_said_to_be_so(
    server: ScriptedServer, toast: Locator, tmp_path: Path
) -> None:
    server.open()
    server.page.check("#separate")
    server.page.set_input_files("#folder", folder(tmp_path / "hidden", ".DS_Store"))
    expect(toast.locator(".toast-line")).to_have_text("Nothing to ingest in hidden.")
    expect(toast.get_by_role("button", name="Try again")).to_be_hidden()
    drop(server.page, folder(tmp_path / "empty"))
    expect(toast.first.locator(".toast-line")).to_have_text("Nothing to ingest in empty.")
    drop(server.page, folder(tmp_path / "one"), folder(tmp_path / "two"))
    expect(toast.first.locator(".toast-line")).to_have_text("Nothing to ingest in one and 1 more.")
    assert server.upload_keys == []


def test_leaving_asks_while_an_upload_is_under_way_and_not_after(server: ScriptedServer) -> None:
    page = server.page.context.new_page()  # on which a dialog is no fault
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "POST":
            held.append(route)
        else:
            route.fallback()

    ScriptedServer(page).open()
    page.route("**/api/sources", hold)
    page.locator("h1").click()  # a browser asks only where somebody did something
    page.set_input_files("#files", [document("report.md")])
    toast = page.locator(".toast")
    expect(toast.locator(".toast-line")).to_contain_text("Uploading")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    held[0].fulfill(status=TAKEN[0], json=TAKEN[1])
    expect(toast).to_have_attribute("data-source", SOURCE)
    with page.expect_event("close"):
        page.close(run_before_unload=True)
