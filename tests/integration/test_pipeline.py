"""A canvas as one run, with real workers: what is told of it, in every shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group

from shared.run_states import list_runs
from tests.canvas_lab import POOLS, CanvasLab
from tests.conftest import RunningRedis
from tests.servers import celery_worker
from worker.pipeline import RunInProgress, cancel

WHOLE = ["queued", "started", "completed"]
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module", params=list(POOLS))
def pool(request: pytest.FixtureRequest, redis_server: RunningRedis) -> Iterator[str]:
    with celery_worker(
        redis_server.url,
        "postgresql://nobody@127.0.0.1:1/none",
        *POOLS[request.param],
        WORKER_IMPORTS="tests.canvas_tasks",
        PYTHONPATH=ROOT,
    ):
        yield request.param


@pytest.fixture
def lab(
    pool: str, redis_server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CanvasLab]:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    lab = CanvasLab(redis_server.url)
    yield lab
    lab.close()


Shape = Callable[[CanvasLab], Any]

SHAPES: dict[str, tuple[Shape, str]] = {
    "task": (lambda lab: lab.plain("a"), "a"),
    "chain": (lambda lab: chain(lab.plain("a"), lab.step("b"), lab.plain("c")), "abc"),
    "group": (lambda lab: group(lab.plain(x) for x in "abcdefg"), "abcdefg"),
    "chord": (lambda lab: chord([lab.plain(x) for x in "abc"], lab.tracked("gather", "z")), "abcz"),
    "task, group, task": (
        lambda lab: chain(lab.plain("a"), group(lab.step("b"), lab.plain("c")), lab.plain("d")),
        "abcd",
    ),
    "task, group": (lambda lab: chain(lab.plain("a"), group(lab.plain(x) for x in "bcd")), "abcd"),
    "group, group": (
        lambda lab: chain(
            group(lab.plain(x) for x in "ab"), group(lab.plain(x) for x in "cd"), lab.plain("e")
        ),
        "abcde",
    ),
    "chord of chains": (
        lambda lab: chord(
            [chain(lab.step("a"), lab.plain("b")), chain(lab.plain("c"), lab.step("d"))],
            lab.plain("z"),
        ),
        "abcdz",
    ),
    "group of chains": (
        lambda lab: group(
            chain(lab.plain("a"), lab.plain("b")), chain(lab.plain("c"), lab.plain("d"))
        ),
        "abcd",
    ),
    "chord whose body is a chain": (
        lambda lab: chord(
            [lab.plain("a"), lab.plain("b")], chain(lab.plain("c"), lab.plain("d"), lab.step("e"))
        ),
        "abcde",
    ),
    "chord whose body is a group": (
        lambda lab: chord([lab.plain("a"), lab.plain("b")], group(lab.plain("c"), lab.plain("d"))),
        "abcd",
    ),
    "nested chord": (
        lambda lab: chord(
            [chord([lab.plain("a"), lab.plain("b")], lab.plain("c")), lab.plain("d")],
            lab.plain("z"),
        ),
        "abcdz",
    ),
    "group of chords": (
        lambda lab: group(
            chord([lab.plain("a"), lab.plain("b")], lab.plain("c")),
            chord([lab.plain("d"), lab.plain("e")], lab.plain("f")),
        ),
        "abcdef",
    ),
    "chain of chords": (
        lambda lab: chain(
            chord([lab.plain("a"), lab.plain("b")], lab.plain("c")),
            chord([lab.plain("d"), lab.plain("e")], lab.plain("f")),
            lab.plain("g"),
        ),
        "abcdefg",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_canvas_is_one_run_that_ends_when_all_of_it_is_done(lab: CanvasLab, shape: str) -> None:
    make, labels = SHAPES[shape]
    started = lab.start(make(lab))
    assert lab.told() == WHOLE
    assert sorted(lab.ran()) == sorted(labels)
    assert len(started.task_ids) == len(set(started.task_ids)) == len(labels)
    totals = {total for _, total in lab.bar() if total is not None}
    assert totals <= {len(labels)}
    assert lab.events()[0]["payload"]["run_id"] == started.run_id


def test_a_group_is_done_with_its_last_member_and_not_before(lab: CanvasLab) -> None:
    lab.start(group(lab.plain(str(n)) for n in range(20)), unit="files", name="Twenty")
    assert lab.told() == WHOLE
    assert len(lab.ran()) == 20
    assert lab.bar()[-1] == (20, 20)
    shown = [e["payload"] for e in lab.events() if e["type"].endswith("progress")]
    assert {(p["unit"], p["stage"]) for p in shown} == {("files", "work")}
    assert lab.last["name"] == "Twenty"


def test_stages_are_planned_by_weight_and_number_of_tasks(lab: CanvasLab) -> None:
    members = [lab.tracked("staged", x) for x in "abcd"]
    lab.start(chord(members, lab.tracked("gather", "z")))
    assert lab.told() == WHOLE
    by_stage = {
        (p["stage"], p["total"]) for p in (e["payload"] for e in lab.events()) if p.get("stage")
    }
    assert by_stage <= {("read", 4), ("write", 4), ("work", 1)}
    assert lab.last["gathered"] == 4


def test_what_is_linked_is_part_of_the_run(lab: CanvasLab) -> None:
    first = lab.plain("a")
    first.link(lab.plain("l"))
    lab.start(chain(first, lab.plain("b")))
    assert lab.told() == WHOLE
    assert sorted(lab.ran()) == ["a", "b", "l"]


def test_a_canvas_can_be_started_again(lab: CanvasLab) -> None:
    canvas = chain(lab.plain("a"), lab.plain("a"))
    ids = lab.start(canvas).task_ids
    assert lab.told() == WHOLE
    assert not set(ids) & set(lab.start(canvas).task_ids)
    lab.wait_for(lambda: lab.kinds().count("completed") == 2)
    assert lab.ran() == ["a"] * 4


@pytest.mark.parametrize("by", ["task", "chain", "group", "chord"])
@pytest.mark.parametrize("place", ["first", "member", "last"])
def test_a_task_that_replaces_itself_is_part_of_the_run(
    lab: CanvasLab, by: str, place: str
) -> None:
    one = lab.tracked("replaces", "r", by=by)
    canvas: Any
    match place:
        case "first":
            canvas = chain(one, lab.plain("b"))
        case "member":
            canvas = chord([one, lab.plain("b")], lab.plain("c"))
        case _:
            canvas = chain(lab.plain("b"), one)
    lab.start(canvas)
    assert lab.told() == WHOLE
    within = {"task": ["r1"], "chain": ["r1", "r3"]}.get(by, ["r1", "r2", "r3"])
    assert sorted(lab.ran()) == sorted(["b", *(["c"] if place == "member" else []), "r", *within])


BROKEN: dict[str, Shape] = {
    "alone": lambda lab: lab.untracked("breaks", "x"),
    "first of a chain": lambda lab: chain(lab.untracked("breaks", "x"), lab.plain("never")),
    "middle of a chain": lambda lab: chain(
        lab.plain("a"), lab.untracked("breaks", "x"), lab.plain("never")
    ),
    "last of a chain": lambda lab: chain(lab.plain("a"), lab.untracked("breaks", "x")),
    "member of a group": lambda lab: group(lab.plain("a"), lab.untracked("breaks", "x")),
    "member of a chord": lambda lab: chord(
        [lab.plain("a"), lab.untracked("breaks", "x")], lab.plain("never")
    ),
    "body of a chord": lambda lab: chord([lab.plain("a")] * 2, lab.untracked("breaks", "x")),
    "end of a chord's chain": lambda lab: chord(
        [chain(lab.plain("a"), lab.untracked("breaks", "x")), lab.plain("b")], lab.plain("never")
    ),
    "body of a nested chord": lambda lab: chord(
        [chord([lab.plain("a")] * 2, lab.untracked("breaks", "x")), lab.plain("b")],
        lab.plain("never"),
    ),
    "within a replacement": lambda lab: chain(
        lab.tracked("replaces", "r", by="broken"), lab.plain("never")
    ),
}


@pytest.mark.parametrize("place", BROKEN)
def test_a_failure_anywhere_ends_the_run_once(lab: CanvasLab, place: str) -> None:
    lab.start(BROKEN[place](lab))
    assert lab.told() == ["queued", "started", "failed"]
    assert lab.last["error"]["code"] == "broken"
    assert "never" not in lab.ran()


def test_a_member_that_is_retried_does_not_end_the_run(lab: CanvasLab) -> None:
    lab.start(chord([lab.plain("a"), lab.untracked("retries", "r")], lab.plain("z")))
    kinds = lab.told()
    assert kinds[0] == "queued" and kinds[-1] == "completed"
    assert sorted(lab.ran()) == ["a", "r", "r", "z"]


@pytest.mark.parametrize("by", ["retry", "replace"])
def test_a_worker_that_dies_before_it_publishes_a_tasks_next_message_runs_it_again(
    lab: CanvasLab, pool: str, by: str
) -> None:
    if pool != "prefork":
        pytest.skip("only prefork has children to kill")
    lab.start(chain(lab.tracked("dies", "dies", by=by), lab.plain("b")))
    kinds = lab.told()
    assert (kinds[0], kinds[-1]) == ("queued", "completed")
    assert lab.ran().count("killed") >= 1
    assert lab.ran()[-1] == "b"


def test_a_task_may_start_a_run(lab: CanvasLab) -> None:
    lab.app.tasks["canvas.starts"].delay(lab.user, lab.source, "s")
    assert lab.told() == WHOLE
    assert sorted(lab.ran()) == ["s0", "s1", "s2"]


def test_an_open_run_is_superseded_or_left_alone(lab: CanvasLab) -> None:
    waiting = lab.plain("a").set(countdown=3)
    first = lab.start(waiting)
    with pytest.raises(RunInProgress, match="processed already"):
        lab.start(lab.plain("b"), exclusive=True)
    assert lab.kinds() == ["queued"]
    second = lab.start(lab.plain("c"))
    lab.wait_for(lambda: "completed" in lab.kinds())
    ends = {e["payload"]["run_id"]: e["payload"] for e in lab.events()}
    assert ends[first.run_id]["reason"] == "superseded"
    assert set(ends) == {first.run_id, second.run_id}
    lab.settle()  # what was superseded comes to a worker, and is not run
    assert lab.ran() == ["c"]


def test_a_run_is_cancelled_once_and_the_rest_of_it_does_not_run(
    lab: CanvasLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvas = chain(lab.plain("a"), lab.plain("b").set(countdown=1), lab.plain("c"))
    started = lab.start(canvas)
    lab.wait_for(lambda: lab.ran() == ["a"])
    monkeypatch.setattr("celery._state._tls.current_app", lab.app)
    assert cancel(started.run_id) is True
    assert cancel(started.run_id) is False
    assert cancel("00000000-0000-4000-8000-000000000000") is False
    assert lab.told()[-1] == "cancelled"
    assert (lab.last["reason"], lab.ran()) == ("cancelled", ["a"])
    assert list_runs(lab.user)[1][0].status == "cancelled"


# Without start_ingest: tasks with the option make runs by themselves.

IMPLICIT: dict[str, tuple[Shape, str]] = {
    "task, group": (lambda lab: chain(lab.step("a"), group(lab.step(x) for x in "bc")), "abc"),
    "task, group, task": (
        lambda lab: chain(lab.step("a"), group(lab.step(x) for x in "bc"), lab.step("d")),
        "abcd",
    ),
    "chord of chains": (
        lambda lab: chord(
            [chain(lab.step("a"), lab.step("b")), chain(lab.step("c"), lab.step("d"))],
            lab.tracked("gather", "z"),
        ),
        "abcdz",
    ),
    "tracked, untracked, tracked": (
        lambda lab: chain(lab.step("a"), lab.plain("b"), lab.step("c")),
        "abc",
    ),
    "untracked in the middle of chords": (
        lambda lab: chain(
            lab.step("a"),
            group(lab.plain("b"), lab.plain("c")),
            chord([lab.plain("d"), lab.step("e")], lab.plain("f")),
            lab.step("g"),
        ),
        "abcdefg",
    ),
    "chord with untracked members": (
        lambda lab: chord(
            [lab.plain("a"), lab.step("b"), lab.plain("c")], lab.tracked("gather", "z")
        ),
        "abcz",
    ),
    "chord of untracked members alone": (
        lambda lab: chord([lab.plain("a"), lab.plain("b")], lab.tracked("gather", "z")),
        "abz",
    ),
    "nested chord": (
        lambda lab: chord(
            [chord([lab.step("a"), lab.step("b")], lab.step("c")), lab.step("d")], lab.step("z")
        ),
        "abcdz",
    ),
    "chain of chords": (
        lambda lab: chain(
            chord([lab.step("a"), lab.step("b")], lab.step("c")),
            chord([lab.step("d"), lab.step("e")], lab.step("f")),
        ),
        "abcdef",
    ),
    "replaced by a group": (
        lambda lab: chain(lab.tracked("replaces", "r", by="group"), lab.step("b")),
        "",
    ),
    "replaced by a group at the end": (
        lambda lab: chain(lab.step("b"), lab.tracked("replaces", "r", by="group")),
        "",
    ),
}


@pytest.mark.parametrize("shape", IMPLICIT)
def test_tasks_with_the_option_make_one_run_of_a_canvas(lab: CanvasLab, shape: str) -> None:
    make, labels = IMPLICIT[shape]
    make(lab).delay()
    assert lab.told() == WHOLE
    assert sorted(lab.ran()) == (list(labels) or ["b", "r", "r1", "r2", "r3"])


@pytest.mark.parametrize("by", ["task", "chain", "chain of one source", "group", "chord"])
@pytest.mark.parametrize("place", ["alone", "in a chain", "in a pipeline"])
def test_tasks_of_other_sources_in_a_tasks_place_stay_in_its_run(
    lab: CanvasLab, by: str, place: str
) -> None:
    one = lab.tracked("hands_over", "r", by=by)
    match place:
        case "alone":
            one.delay()
        case "in a chain":
            chain(one, lab.step("b")).delay()
        case _:
            lab.start(group(one, lab.plain("b")))
    assert lab.told() == WHOLE
    assert {e["scope"]["id"] for e in lab.events()} == {lab.source}
    assert sorted(lab.ran()) == (["r"] if place == "alone" else ["b", "r"])
    others = [lab.client.llen(f"ran:{lab.source}-{n}") for n in (1, 2, 3)]
    within = {"task": [1, 0, 0], "chain of one source": [2, 0, 0], "chord": [1, 2, 1]}
    assert others == within.get(by, [1, 1, 0])


def test_a_chain_over_two_sources_is_one_run(lab: CanvasLab) -> None:
    step = lab.app.tasks["canvas.step"]
    chain(lab.step("a"), step.si(lab.user, f"{lab.source}-2", "b")).delay()
    assert lab.told() == WHOLE
    assert lab.last["label"] == "b"


def test_a_task_of_another_source_that_is_only_linked_is_a_run_of_its_own(lab: CanvasLab) -> None:
    other = lab.app.tasks["canvas.step"].si(lab.user, f"{lab.source}-2", "b")
    lab.step("a").apply_async(link=other)
    lab.wait_for(lambda: lab.kinds().count("completed") == 2)
    assert {e["scope"]["id"] for e in lab.events()} == {lab.source, f"{lab.source}-2"}


def test_a_group_of_a_chord_and_a_task_is_one_run(lab: CanvasLab) -> None:
    group(chord([lab.step("a"), lab.step("b")], lab.step("c")), lab.step("d")).delay()
    lab.wait_for(lambda: len(lab.ran()) == 4)
    lab.settle()
    assert "cancelled" not in lab.kinds()
    assert lab.kinds().count("completed") == lab.kinds().count("queued")


def test_a_failure_of_an_untracked_member_ends_the_run_of_its_chord(lab: CanvasLab) -> None:
    chord([lab.untracked("breaks", "x"), lab.step("a")], lab.tracked("gather", "z")).delay()
    assert lab.told() == ["queued", "started", "failed"]


def test_a_failure_in_an_untracked_group_that_replaced_a_task_ends_its_run(lab: CanvasLab) -> None:
    lab.tracked("replaces", "r", by="broken group").delay()
    assert lab.told() == ["queued", "started", "failed"]


def test_an_untracked_task_after_the_last_tracked_one_still_runs(lab: CanvasLab) -> None:
    chain(lab.step("a"), lab.plain("b"), lab.plain("c")).delay()
    lab.wait_for(lambda: lab.ran() == ["a", "b", "c"])
    assert lab.told() == WHOLE


@pytest.mark.parametrize("by", ["sends_off", "calls"])
def test_a_chain_that_is_sent_off_runs_to_its_end(lab: CanvasLab, by: str) -> None:
    lab.tracked(by, "o").delay()
    lab.wait_for(lambda: lab.ran() == ["o", "o1", "o2"])
    assert lab.told() == WHOLE


def test_an_errback_runs_when_the_run_has_failed(lab: CanvasLab) -> None:
    mends: Any = lab.app.tasks["canvas.mends"]
    errback = mends.s(user_id=lab.user, source_id=lab.source, label="e").set(countdown=0.5)
    broken = lab.untracked("breaks", "x")
    lab.start(chain(lab.plain("a"), broken.set(link_error=[errback])))
    assert lab.told() == ["queued", "started", "failed"]
    lab.wait_for(lambda: lab.ran() == ["a", "x", "e"])
