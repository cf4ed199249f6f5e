"""How a canvas becomes a run, or doesn't, and what a large one shows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from celery import Celery, chain, chord, group
from kombu.exceptions import OperationalError

from shared import runs
from shared.errors import RedisUnavailable
from shared.facts import Accepted
from shared.run_states import list_runs
from tests.canvas_lab import CanvasLab
from tests.conftest import RunningRedis
from tests.servers import celery_worker
from worker.lifecycle import install
from worker.pipeline import cancel, start_ingest

ROOT = str(Path(__file__).parents[2])
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"

WHO = {"user_id": "alice", "source_id": "s"}


@pytest.fixture
def lab(
    redis_server: RunningRedis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CanvasLab]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    lab = CanvasLab(redis_url)
    yield lab
    lab.close()


def worker(lab: CanvasLab, processes: int = 2, **more: Any) -> Any:
    return celery_worker(
        lab.app.conf.broker_url,
        NO_DATABASE,
        *("--pool", "prefork", "--concurrency", str(processes)),
        WORKER_IMPORTS="tests.canvas_tasks",
        PYTHONPATH=ROOT,
        **more,
    )


def at_ms(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["ts"]).timestamp() * 1000


@pytest.mark.parametrize("shape", ["group", "chord"])
def test_500_files_on_two_workers_are_one_bar_at_four_events_a_second(
    lab: CanvasLab, shape: str
) -> None:
    files = [lab.plain(str(n)) for n in range(500)]
    with worker(lab, processes=1), worker(lab, processes=1):
        if shape == "group":
            lab.start(group(files), unit="files")
        else:
            lab.start(chord(files, lab.tracked("staged", "z")), unit="files")
        assert lab.told() == ["queued", "started", "completed"]
    assert len(set(lab.ran())) == len(lab.ran()) == 500 + (shape == "chord")
    shown = [e for e in lab.events() if e["payload"].get("stage") == "work"]
    bar = [(e["payload"]["done"], e["payload"]["total"]) for e in shown]
    assert {total for _, total in bar} == {500}
    assert bar == sorted(bar)
    assert {e["payload"]["unit"] for e in shown} == {"files"}
    if shape == "group":
        assert bar[-1] == (500, 500)
    progress = [at_ms(e) for e in lab.events() if e["type"].endswith("progress")]
    assert len(progress) > 4
    # The last state is told at once when the run ends; before that none comes too soon.
    assert min(after - before for before, after in pairwise(progress[:-1])) >= 240


def test_a_chord_that_a_backend_without_counters_unlocks_is_one_run(
    lab: CanvasLab, tmp_path: Path
) -> None:
    backend = f"file://{tmp_path}"
    there = CanvasLab(lab.app.conf.broker_url, backend)
    header = [chain(there.plain("a"), there.plain("b")), there.untracked("waits", "c")]
    with worker(there, CELERY_RESULT_BACKEND=backend):
        there.start(chord(header, chain(there.plain("d"), there.plain("e"))))
        assert there.told() == ["queued", "started", "completed"]
    assert sorted(there.ran()) == list("abcde")
    there.close()


@pytest.mark.parametrize("of", ["tracked", "mixed", "replaced"])
def test_so_is_one_of_tasks_with_the_option(lab: CanvasLab, tmp_path: Path, of: str) -> None:
    backend = f"file://{tmp_path}"
    there = CanvasLab(lab.app.conf.broker_url, backend)
    one, two = there.step("a"), there.untracked("waits", "b") if of == "mixed" else there.step("b")
    with worker(there, CELERY_RESULT_BACKEND=backend):
        if of == "replaced":
            there.tracked("replaces", "r", by="chord").delay()
        else:
            chord([two, one], there.tracked("gather", "z")).delay()
        assert there.told() == ["queued", "started", "completed"]
    assert sorted(there.ran()) == (["r", "r1", "r2", "r3"] if of == "replaced" else list("abz"))
    there.close()


def test_a_canvas_that_can_not_be_a_run_is_refused_before_anything_is_known(
    lab: CanvasLab,
) -> None:
    step = lab.app.tasks["canvas.step"]
    for canvas, words in (
        (group(), "no tasks"),
        (chain(group(), group()), "no tasks"),
        (step.chunks([("a",), ("b",)], 1), "use a group"),
        (chain(lab.plain("a"), step.starmap([("a",)])), "use a group"),
        (group(lab.plain("a"), lab.plain("b").set(link=step.map(["a"]))), "use a group"),
        (chord([lab.plain("a")]), "no body"),
    ):
        with pytest.raises(ValueError, match=words):
            lab.start(canvas)
    assert lab.client.dbsize() == 0


@pytest.mark.parametrize("name", ["user_id", "source_id"])
@pytest.mark.parametrize("given", [None, b"s", "", ["s"], True, 1.5])
def test_an_id_that_is_none_is_refused_before_anything_is_known(
    lab: CanvasLab, name: str, given: Any
) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        start_ingest(lab.plain("a"), **{**WHO, name: given}, name="n")
    assert lab.client.dbsize() == 0


@pytest.mark.parametrize("name", ["name", "unit"])
def test_so_is_a_name_that_is_no_text(lab: CanvasLab, name: str) -> None:
    more: dict[str, Any] = {name: 5}
    with pytest.raises(TypeError, match=f"{name} is 5"):
        lab.start(lab.plain("a"), **more)
    assert lab.client.dbsize() == 0


def test_so_is_what_is_no_signature(lab: CanvasLab) -> None:
    not_one: list[Any] = [[lab.plain("a")], lab.app.tasks["canvas.plain"], None, "canvas.plain", {}]
    for canvas in not_one:
        with pytest.raises(TypeError, match=f"this is a {type(canvas).__name__}"):
            lab.start(canvas)
    assert lab.client.dbsize() == 0


@pytest.mark.parametrize("given", [5, 0, UUID(int=7)])
def test_ids_that_are_numbers_are_told_as_text(lab: CanvasLab, given: int | UUID) -> None:
    lab.user = lab.source = str(given)
    with worker(lab, processes=1):
        plain = lab.plain("a")
        start_ingest(plain, user_id=given, source_id=given, name="n")
        assert lab.told() == ["queued", "started", "completed"]
    assert lab.events()[-1]["scope"]["id"] == str(given)
    assert lab.ran() == ["a"]


def test_what_can_not_be_published_has_failed_and_says_so(
    lab: CanvasLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Celery("nowhere", broker="redis://127.0.0.1:1/0", set_as_current=False)
    nowhere.conf.update(task_publish_retry=False, broker_transport_options={"max_retries": 1})

    @nowhere.task(name="canvas.nowhere")
    def work() -> None: ...

    for canvas in (work.si(), chain(work.si(), work.si()), group(work.si(), work.si())):
        with pytest.raises(OperationalError):
            lab.start(canvas)
    assert lab.kinds() == ["queued", "failed"] * 3
    assert lab.last["error"]["code"] == "not_sent"
    nowhere.close()


def test_a_wrong_call_ends_the_run_too(lab: CanvasLab) -> None:
    with pytest.raises(TypeError):
        lab.start(group(lab.plain("a"), lab.app.tasks["canvas.step"].si("no label")))
    assert lab.kinds() == ["queued", "failed"]


def test_without_redis_nothing_is_published(
    lab: CanvasLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.settings import get_settings

    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    get_settings.cache_clear()
    with pytest.raises(RedisUnavailable):
        lab.start(lab.plain("a"))
    with pytest.raises(RedisUnavailable):
        cancel("any")
    assert lab.client.llen("celery") == 0


def test_a_client_that_watches_from_the_cursor_misses_nothing(lab: CanvasLab) -> None:
    first = lab.start(lab.plain("a"))
    assert first.cursor == "0-0"
    second = lab.start(lab.plain("b"))
    after: Any = lab.client.xrange(f"user:{{{lab.user}}}:stream", f"({second.cursor}")
    assert len(after) == 2  # the first one's end, and the second's queued


def test_accepting_is_one_round_trip_and_comes_before_the_messages(
    lab: CanvasLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    accept = runs.accept

    def recorded(ref: runs.RunRef, fact: Accepted | None = None) -> runs.Outcome:
        order.append(f"accepted with {lab.client.llen('celery')} messages out")
        return accept(ref, fact)

    monkeypatch.setattr("worker.pipeline.accept", recorded)
    lab.start(chord([lab.plain(x) for x in "abc"], lab.plain("z")))
    assert order == ["accepted with 0 messages out"]
    assert lab.client.llen("celery") == 3


def test_a_canvas_in_eager_mode_is_a_run_as_well(lab: CanvasLab) -> None:
    eager = Celery("eager", set_as_current=False, task_always_eager=True)
    install(eager)

    @eager.task(name="canvas.eager")
    def work(label: str) -> str:
        return label

    canvas = chord([work.si("a"), chain(work.si("b"), work.si("c"))], work.si("z"))
    lab.start(canvas)
    assert lab.kinds()[0] == "queued" and lab.kinds()[-1] == "completed"
    eager.close()


def test_tasks_of_a_cancelled_run_are_revoked_and_a_broker_that_is_away_is_no_error(
    lab: CanvasLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked: list[list[str]] = []
    started = lab.start(group(lab.plain("a"), lab.plain("b")))

    def revoke(tasks: list[str]) -> None:
        revoked.append(sorted(tasks))
        raise redis.ConnectionError

    monkeypatch.setattr("celery._state._tls.current_app", lab.app)
    monkeypatch.setattr(lab.app.control, "revoke", revoke)
    assert cancel(started.run_id)
    assert revoked == [sorted(started.task_ids)]
    assert lab.kinds() == ["queued", "cancelled"]


def test_cancelling_at_once_from_many_places_counts_once(lab: CanvasLab) -> None:
    started = lab.start(lab.plain("a"))
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(cancel(started.run_id))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 7 + [True]
    assert list_runs(lab.user)[1][0].status == "cancelled"
