"""An execution on a real Redis, without a worker: the bar, notes, and when its body is to stop."""

from __future__ import annotations

import json
import threading
import time
from collections import UserDict
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import redis
from billiard.exceptions import SoftTimeLimitExceeded

from shared import keys, runs
from shared.facts import Fact, Report, Started, Succeeded
from shared.payloads import LONGEST_TEXT, IngestProgress
from shared.run_states import list_runs
from shared.runs import Outcome, RunRef
from worker import execution as executions
from worker.execution import Execution, enter
from worker.heartbeat import Heartbeat
from worker.ingest import Cancelled, cancelled, note, progress, stage, track
from worker.outcomes import succeed

USER, SOURCE = "alice", "source-1"
DEADLINE_SECONDS = 10.0


class Bench:
    """A run with one execution, which is the current one, and what its user is told."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.ref = runs.new_run(USER, SOURCE, "n", final="T")
        self.execution = self.start("T")

    def start(self, task: str, *, aside: bool = False, **stages: float) -> Execution:
        """Begins an execution of a task of the run, and makes it the current one."""
        execution = Execution(self.ref, task, 0, 0, lambda ref, due_ms: None, aside=aside)
        fact = Started(
            task=task,
            nonce=execution.nonce,
            retries=0,
            nesting=0,
            late=True,
            grace_ms=1000,
            stages=stages,
        )
        runs.submit(self.ref, fact)
        enter(execution)
        return execution

    def send(self) -> None:
        """What the heartbeat does."""
        self.execution.send_progress(always=False)

    def events(self) -> list[dict[str, Any]]:
        rows: Any = self.client.xrange(keys.stream(USER))
        return [json.loads(fields[b"e"]) for _, fields in rows]

    def kinds(self) -> list[str]:
        return [event["type"].removeprefix("source.ingest.") for event in self.events()]

    def shown(self) -> dict[str, Any]:
        """The bar as a list of runs shows it."""
        state = list_runs(USER)[1][0]
        return {"stage": state.stage, "note": state.note, "percent": state.percent}


@pytest.fixture
def bench(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    yield Bench(redis_url)
    enter(None)


def test_a_note_stands_beside_the_bar_until_the_next_stage(bench: Bench) -> None:
    with stage("fetch"):
        note("Asking the server")
        bench.send()
        assert bench.shown() == {"stage": "fetch", "note": "Asking the server", "percent": 0}
    with stage("index"):
        assert bench.shown()["note"] is None
        note("Asking the server")
        bench.send()
        assert bench.shown()["note"] == "Asking the server"
        note("")
        bench.send()
        assert bench.shown()["note"] is None


def test_a_note_that_the_next_stage_overtakes_is_not_its_own(bench: Bench) -> None:
    with stage("fetch"):
        note("Asking the server")
    with stage("index"):
        bench.send()
        assert bench.shown()["note"] is None


def test_taking_away_a_note_that_never_was_shows_nothing(bench: Bench) -> None:
    note("")
    bench.send()
    assert bench.kinds() == ["queued", "started"]


def test_a_note_is_in_the_progress_event(bench: Bench) -> None:
    with stage("fetch"):
        pass
    time.sleep(0.26)  # progress goes out four times a second
    note("Nearly")
    bench.send()
    payloads = [e["payload"] for e in bench.events() if e["type"].endswith("progress")]
    assert [payload["note"] for payload in payloads] == [None, "Nearly"]
    for payload in payloads:
        IngestProgress.model_validate(payload)


def test_a_note_before_any_stage_adds_none_to_the_bar(bench: Bench) -> None:
    note("Waiting for the server")
    bench.send()
    assert bench.kinds()[-1] == "progress"
    assert bench.shown() == {"stage": None, "note": "Waiting for the server", "percent": 0}
    assert b"work" not in (bench.client.hget(keys.run(USER, bench.ref.run_id), "stages") or b"")


def test_a_long_note_is_cut(bench: Bench) -> None:
    note("x" * 1000)
    bench.send()
    assert bench.shown()["note"] == "x" * LONGEST_TEXT


def test_another_tasks_progress_in_the_same_stage_leaves_a_note(bench: Bench) -> None:
    with stage("parse"):
        note("Reading a.pdf")
        bench.send()
        other = bench.start("other")
        with stage("parse"):
            progress(1, 2)
            other.send_progress(always=False)
    assert bench.shown()["note"] == "Reading a.pdf"


def test_a_stage_that_the_option_does_not_list_has_the_weight_it_says(bench: Bench) -> None:
    with stage("index", weight=3):
        with stage("fetch", weight=1):
            pass
        bench.send()
        assert bench.shown()["percent"] == 25


def test_a_stage_that_the_option_lists_has_the_options_weight(bench: Bench) -> None:
    bench.execution = bench.start("T", fetch=1, index=3)
    with stage("fetch", weight=9):
        pass
    bench.send()
    assert bench.shown()["percent"] == 25


@pytest.mark.parametrize(
    "weight", [0, -1, float("nan"), float("inf"), "heavy", None, True, 10**400]
)
def test_an_odd_weight_counts_as_one(bench: Bench, weight: Any) -> None:
    with stage("odd", weight):
        with stage("other"):
            pass
        bench.send()
        assert bench.shown()["percent"] == 50


def test_numbers_too_large_for_a_float_keep_no_run_from_its_end(bench: Bench) -> None:
    progress(10**400, 3)
    with stage("all", parts=10**400):
        progress(1, 10**400)
        bench.send()
    for _ in track(range(10**400)):
        break
    succeed(bench.execution, None)
    assert bench.kinds()[-1] == "completed"
    for event in bench.events():
        if event["type"].endswith("progress"):
            IngestProgress.model_validate(event["payload"])


def test_items_whose_length_is_not_to_be_had_are_counted(bench: Bench) -> None:
    class Lazy:
        def __len__(self) -> int:
            raise TypeError

        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

    assert list(track(Lazy())) == [0, 1, 2]


class Unreadable(UserDict[str, Any]):
    """Breaks when its second item is read."""

    def __iter__(self) -> Iterator[str]:
        yield next(super().__iter__())
        raise RuntimeError


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "result",
    [
        Unreadable(files=3, pages=4),
        {"files": 3, "pages": {"of": Unreadable(a=1)}},
        {"files": 3, Unspeakable(): 4},
        {"files": 3, "pages": {Unspeakable()}},
        {"files": 3, "pages": {Unspeakable(), Unspeakable()}},
    ],
)
def test_what_can_not_be_read_of_a_result_is_left_out(
    bench: Bench, result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    succeed(bench.execution, result)
    assert bench.kinds()[-1] == "completed"
    payload = bench.events()[-1]["payload"]
    assert payload["files"] == 3
    assert "pages" not in payload
    assert "left out" in caplog.text


@pytest.mark.parametrize("name", [None, ""])
def test_a_stage_without_a_name_is_the_one_that_has_none(bench: Bench, name: Any) -> None:
    with stage(name):
        assert bench.shown()["stage"] == "work"


def test_a_note_of_nothing_is_none(bench: Bench) -> None:
    note("Reading")
    note(None)  # type: ignore[arg-type]
    bench.send()
    assert bench.shown()["note"] is None


def test_a_stage_that_is_entered_again_is_the_one_that_is_shown(bench: Bench) -> None:
    for name in ("fetch", "index", "fetch"):
        with stage(name):
            assert bench.shown()["stage"] == name
            progress(1, 3)


def test_track_stops_when_the_run_is_over(bench: Bench) -> None:
    items = iter(range(10))
    with pytest.raises(Cancelled):
        for item in track(items, total=10):
            if item == 3:
                runs.end(bench.ref)
                bench.send()
    assert list(items) == [4, 5, 6, 7, 8, 9]  # none was taken that nobody got


def leave(items: Iterable[int]) -> None:
    """Leaves a loop at its third item."""
    for item in items:
        if item == 2:
            break


def counted(bench: Bench) -> tuple[int, int | None]:
    report = bench.execution._counters["work"].report()
    return report.done, report.total


def test_a_track_that_was_left_makes_room_for_the_next(bench: Bench) -> None:
    leave(track(range(10)))
    assert counted(bench) == (2, 10)
    leave(track(range(4)))
    assert counted(bench) == (2, 4)


def test_a_track_that_was_left_and_still_has_a_name_is_the_bar_until_it_is_closed(
    bench: Bench,
) -> None:
    pages = track(range(10))
    leave(pages)
    leave(track(range(4)))
    assert counted(bench) == (2, 10)
    pages.close()
    leave(track(range(4)))
    assert counted(bench) == (2, 4)


def test_of_tracks_within_each_other_the_outer_one_is_the_bar(bench: Bench) -> None:
    for _ in track(range(3)):
        leave(track(range(7)))
        progress(5, 9)
    assert counted(bench) == (3, 3)


def test_a_stage_is_not_entered_when_the_run_is_over(bench: Bench) -> None:
    entered = False
    runs.end(bench.ref)
    with pytest.raises(Cancelled), stage("parse"):
        entered = True
    assert not entered
    with pytest.raises(Cancelled):
        next(track("ab"))


def test_a_loop_without_track_hears_of_it_within_a_second(bench: Bench) -> None:
    assert not cancelled()
    runs.end(bench.ref)
    deadline = time.monotonic() + DEADLINE_SECONDS
    since = time.monotonic()
    while not cancelled():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert time.monotonic() - since < executions.ASK_EVERY_SECONDS + 5


def test_asking_often_is_cheap(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Fact] = []
    monkeypatch.setattr(executions, "submit", lambda ref, fact: asked.append(fact))
    for _ in range(1000):
        cancelled()
    assert asked == []


def test_an_execution_that_another_took_the_place_of_stops(bench: Bench) -> None:
    first = bench.execution
    bench.start("T")
    enter(first)
    with pytest.raises(Cancelled), stage("parse"):
        pass
    assert bench.shown()["stage"] is None


def test_an_execution_that_is_closed_says_no_more(bench: Bench) -> None:
    runs.end(bench.ref)
    bench.execution.send_progress(always=True)
    said = len(bench.events())
    asked: list[Fact] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executions, "submit", lambda ref, fact: asked.append(fact))
        note("I am still here")
        bench.execution.send_progress(always=True)
    assert (asked, len(bench.events())) == ([], said)


def test_a_task_that_its_run_does_not_wait_for_goes_on_after_the_end(bench: Bench) -> None:
    aside = bench.start("aside", aside=True)
    runs.submit(bench.ref, Succeeded(task="T", nonce=bench.execution.nonce))
    with stage("mail"):
        assert list(track(range(3))) == [0, 1, 2]
    assert not cancelled()
    assert aside.closed
    assert bench.kinds()[-1] == "completed"


def test_a_task_that_its_run_does_not_wait_for_stops_when_it_is_cancelled(bench: Bench) -> None:
    bench.start("aside", aside=True)
    runs.end(bench.ref)
    with pytest.raises(Cancelled), stage("mail"):
        pass


@pytest.mark.parametrize("reached", [False, True])
def test_an_end_whose_report_is_interrupted_is_told_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    """Before it reached Redis, or after it did."""
    facts: list[Fact] = []

    def interrupted(ref: RunRef, fact: Fact) -> Outcome | None:
        facts.append(fact)
        outcome = runs.submit(ref, fact) if reached or len(facts) > 1 else None
        if len(facts) == 1:
            raise SoftTimeLimitExceeded
        return outcome

    execution = bench.execution
    with stage("parse"):
        progress(1, 2)
        monkeypatch.setattr(executions, "submit", interrupted)
        with pytest.raises(SoftTimeLimitExceeded):
            execution.send_end(
                lambda reports: Succeeded(task="T", nonce=execution.nonce, reports=reports)
            )
    assert execution.reported
    assert facts[1].reports == facts[0].reports == (Report("parse", 1, 2),)
    assert bench.kinds().count("completed") == 1
    last = [e["payload"] for e in bench.events() if e["type"].endswith("progress")][-1]
    assert (last["done"], last["total"]) == (1, 2)


def test_a_stage_whose_report_is_interrupted_is_reported_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(ref: RunRef, fact: Fact) -> None:
        raise SoftTimeLimitExceeded

    with monkeypatch.context() as patch:
        patch.setattr(executions, "submit", interrupted)
        with pytest.raises(SoftTimeLimitExceeded), stage("parse"):
            pass
    bench.send()
    assert bench.shown()["stage"] == "parse"


@pytest.mark.parametrize("over", ["reported", "closed"])
def test_the_heartbeat_lets_go_of_an_execution_that_is_over(bench: Bench, over: str) -> None:
    beat = Heartbeat()
    beat._thread = threading.current_thread()  # this test beats by hand
    beat.watch(bench.execution)
    assert list(beat._renewed) == [bench.execution]
    if over == "closed":
        runs.end(bench.ref)
        note("to be answered: closed")
    else:
        bench.execution.send_end(lambda reports: Succeeded(task="T"))
    beat._beat()
    assert not beat._renewed
