"""What a task's author uses, where nobody tracks: in a plain call, in eager mode, in a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery, Task
from celery.exceptions import Ignore

from worker.execution import Execution, current, insist
from worker.ingest import (
    Cancelled,
    Ingest,
    IngestError,
    cancelled,
    note,
    progress,
    register_error,
    stage,
    track,
)
from worker.lifecycle import install


class Broken(IngestError):
    """This can't be read."""


def work(number: int) -> int:
    with stage("count", weight=2, unit="items"):
        note("Counting")
        items = [item for item in track(range(number), unit="items") if not cancelled()]
    with stage("sum", parts=3):
        progress(1, 2)
        note("")
    return sum(items)


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("team", broker="memory://", backend="cache+memory://", set_as_current=False)
    install(app)

    option = Ingest(user="user_id", source="source_id")

    @app.task(base=Task, name="team.work", ingest=option, shared=False)
    def tracked(user_id: str, source_id: str, number: int) -> int:
        assert current() is None
        if number < 0:
            raise Broken
        return work(number)

    app.finalize()
    yield app
    app.close()


def who(number: int) -> dict[str, Any]:
    return {"user_id": "alice", "source_id": "s", "number": number}


def test_helpers_do_nothing_in_a_plain_call() -> None:
    assert work(4) == 6
    assert list(track(iter("ab"))) == ["a", "b"]
    assert not cancelled()


def test_helpers_do_nothing_in_apply(app: Celery) -> None:
    task = app.tasks["team.work"]
    assert task.apply(kwargs=who(4)).get() == 6
    assert isinstance(task.apply(kwargs=who(-1)).result, Broken)


@pytest.mark.parametrize("propagates", [False, True])
def test_helpers_do_nothing_in_eager_mode(app: Celery, propagates: bool) -> None:
    app.conf.update(task_always_eager=True, task_eager_propagates=propagates)
    task = app.tasks["team.work"]
    assert task.delay(**who(4)).get() == 6
    if propagates:
        with pytest.raises(Broken):
            task.delay(**who(-1))
    else:
        assert task.delay(**who(-1)).state == "FAILURE"


def test_helpers_do_nothing_in_another_thread() -> None:
    totals: list[int] = []
    thread = threading.Thread(target=lambda: totals.append(work(4)))
    thread.start()
    thread.join()
    assert totals == [6]


def test_cancelled_is_one_of_celerys_ways_to_end_quietly() -> None:
    assert issubclass(Cancelled, Ignore)


def test_all_of_it_is_in_one_place() -> None:
    assert callable(register_error)
    assert Ingest(user="u", source="s").stages == {}
    assert Execution.__module__ == "worker.execution"


def test_what_a_time_limit_interrupts_is_told_once_more_and_the_limit_passes() -> None:
    tries: list[int] = []

    def tell() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        insist(tell)
    assert len(tries) == 2


def test_what_is_not_interrupted_is_told_once() -> None:
    tries: list[int] = []
    insist(lambda: tries.append(1))
    assert tries == [1]
