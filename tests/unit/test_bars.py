"""What a terminal shows of events."""

from __future__ import annotations

import io
import json

from rich.console import Console
from rich.progress import Progress

from worker.cli.bars import Bar, Bars, Lines, printable, view


def event(kind: str, source: str = "s1", **payload: object) -> str:
    return json.dumps(
        {
            "id": "1-0",
            "type": f"source.ingest.{kind}",
            "scope": {"kind": "source", "id": source},
            "payload": {"run_id": "r1", "name": "guide.pdf", "attempt": 1, **payload},
        }
    )


def applied(*events: tuple[str, dict[str, object]]) -> Bar:
    bar = Bar()
    for state, payload in events:
        bar.apply(state, {"name": "guide.pdf", **payload})
    return bar


def test_a_bar_says_stage_and_count() -> None:
    counts = {"stage": "parse", "done": 3, "total": 20, "unit": "pages", "percent": 12}
    bar = applied(("queued", {"percent": 0}), ("progress", counts))
    assert (bar.state, bar.percent, bar.detail) == ("running", 12, "parse 3/20 pages")


def test_an_unknown_total_leaves_the_count() -> None:
    bar = applied(("progress", {"stage": "index", "done": 7, "total": None, "unit": None}))
    assert bar.detail == "index 7"


def test_a_completed_bar_says_what_was_produced() -> None:
    produced = {"percent": 100, "files": 2, "chunks": 31, "seconds": 1.234, "failed_files": [{}]}
    bar = applied(("completed", produced))
    assert (bar.state, bar.percent) == ("completed", 100)
    assert bar.detail == "2 files, 31 chunks, 1 not read, 1.2 s"


def test_a_failure_shows_its_sentence_and_keeps_the_bar() -> None:
    error = {"code": "broken", "message": "The file is damaged.", "retryable": False}
    bar = applied(("progress", {"percent": 40}), ("failed", {"error": error}))
    assert (bar.state, bar.percent, bar.detail) == ("failed", 40, "The file is damaged.")


def test_a_retry_says_which_attempt_comes_where_that_is_known() -> None:
    error = {"code": "away", "message": "The store was away.", "retryable": True}
    for attempt, most, said in ((1, 3, " (attempt 2 of 3 next)"), (3, 3, ""), (1, None, "")):
        bar = applied(("retrying", {"attempt": attempt, "attempts": most, "error": error}))
        assert bar.detail == f"The store was away.{said}"


def test_a_repeated_event_tells_how_its_own_run_stands_and_no_other() -> None:
    first: dict[str, object] = {"run_id": "r1", "percent": 100, "repeated": True}
    alone = applied(("completed", first))
    assert (alone.state, alone.percent) == ("completed", 100)
    second: dict[str, object] = {"run_id": "r2", "percent": 7, "stage": "parse"}
    bar = applied(("queued", {"run_id": "r1"}), ("progress", second), ("completed", first))
    assert (bar.state, bar.percent) == ("running", 7)


def test_a_new_attempt_begins_the_bar_anew() -> None:
    bar = applied(("progress", {"percent": 80}), ("started", {"percent": 0}))
    assert (bar.state, bar.percent) == ("running", 0)


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\u202e 文件") == "a�[2Jb�c� 文件"


def test_each_source_has_one_bar_and_markup_in_names_is_text() -> None:
    stream = io.StringIO()
    with view(stream) as plain:
        assert isinstance(plain, Lines)
    console = Console(file=stream, force_terminal=True, width=120)
    with Progress(console=console, auto_refresh=False) as progress:
        bars = Bars(progress)
        bars.show(event("queued", name="[red]x[/nonsense]"))
        bars.show(event("completed", name="[red]x[/nonsense]", percent=100))
        bars.show(event("queued", source="s2"))
        bars.show('{"type":"backlog.truncated","payload":{"reason":"trimmed"}}')
        bars.show('{"id":"2-0","type":"report.ready","scope":{},"payload":{"n":1}}')
    assert [task.completed for task in progress.tasks] == [100, 0]
    assert "Some events are gone (trimmed)" in stream.getvalue()
    assert "report.ready" in stream.getvalue()


def test_without_a_terminal_each_event_is_a_line_as_it_came() -> None:
    stream = io.StringIO()
    Lines(stream).show(event("queued"))
    assert stream.getvalue() == event("queued") + "\n"
