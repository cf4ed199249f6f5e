"""Runs of many tasks: which words of a member are the run's, what the bar counts, what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import redis

from shared import runs
from shared.facts import Accepted, Fact, Failed, Flush, HandedOver, Progress, Report, Sent
from shared.runs import MANY, RunRef
from tests.run_facts import (
    BROKEN,
    USER,
    due_now,
    events,
    interrupted,
    last,
    look,
    lost,
    overdue,
    retrying,
    started,
    submit,
    succeeded,
    types,
)

Stages = Mapping[str, tuple[float, int]]


def group(
    members: Sequence[str],
    stages: Stages | None = None,
    unit: str | None = None,
    source: str = "source-1",
) -> RunRef:
    """A run that waits for all of its members."""
    ref = runs.new_run(USER, source, "n", final=MANY)
    runs.accept(ref, Accepted(finals=members, stages=stages or {}, unit=unit))
    submit(ref, *(Sent(task=member) for member in members))
    return ref


def counted(client: redis.Redis) -> list[tuple[Any, ...]]:
    """What the bar showed: stage, done, total, unit, percent."""
    names = ("stage", "done", "total", "unit", "percent")
    return [
        tuple(event["payload"][name] for name in names)
        for event in events(client)
        if event["type"].endswith("progress")
    ]


def test_a_run_ends_with_the_last_of_many(client: redis.Redis) -> None:
    members = [f"m{number}" for number in range(50)]
    ref = group(members)
    for member in members:
        assert not submit(ref, started(member)).ended
    ended = [submit(ref, succeeded(member)).ended for member in reversed(members)]
    assert ended == [False] * 49 + [True]
    assert types(client) == ["queued", "started", "completed"]


def test_a_members_retry_is_its_own_and_the_last_ones_is_the_runs(client: redis.Redis) -> None:
    ref = group(["A", "B"])
    submit(ref, started("A"), started("B"), retrying("A"))
    assert types(client) == ["queued", "started"]
    submit(ref, succeeded("B"), started("A", "n2", retries=1), retrying("A", retries=1))
    assert types(client)[-1] == "retrying"


def test_one_interrupted_member_does_not_stall_a_run_in_which_another_is_alive(
    client: redis.Redis,
) -> None:
    ref = group(["A", "B"])
    submit(ref, started("A"), started("B"), interrupted(task="A"), lost("A", comes_again=True))
    assert types(client) == ["queued", "started"]
    submit(ref, interrupted(task="B"))
    assert types(client)[-1] == "stalled"


def test_a_run_stalls_when_who_was_alive_is_done_and_the_rest_is_lost(
    client: redis.Redis,
) -> None:
    ref = group(["A", "B"])
    submit(ref, started("A"), started("B"))
    overdue(client, ref, "A")
    assert look(ref).status == "running"
    submit(ref, succeeded("B"))
    assert look(ref).status == "stalled"
    assert last(client)["reason"] == "worker_lost"


def test_a_run_in_which_some_still_wait_does_not_stall_between_two(client: redis.Redis) -> None:
    ref = group(["A", "B", "C"])
    submit(ref, started("A"), started("B"), interrupted(task="A"), succeeded("B"))
    assert look(ref).status == "running", "C is about to start"


def test_a_member_that_failed_ends_the_run_of_all(client: redis.Redis) -> None:
    ref = group(["A", "B"])
    submit(ref, started("A"), started("B"))
    assert submit(ref, Failed(task="A", nonce="n", error=BROKEN)).ended
    assert submit(ref, succeeded("B")).verdict == "closed"


@pytest.mark.parametrize("parts_told_by", ["plan", "stage", "both"])
def test_a_stage_counts_its_members_once_each(client: redis.Redis, parts_told_by: str) -> None:
    plan = {"parse": (1.0, 3)} if parts_told_by != "stage" else {}
    ref = group(["A", "B", "C", "T"], plan, unit="files")
    submit(ref, started("T"))
    if parts_told_by != "plan":
        submit(ref, Progress(task="T", nonce="n", reports=[Report("parse", parts=3, unit="files")]))
    for number, member in enumerate("ABC", 1):
        for nonce in ("first", "again"):  # redelivered in mid-work
            submit(ref, started(member, nonce))
            submit(ref, Progress(task=member, nonce=nonce, reports=[Report("parse", 1, 2)]))
        due_now(client, ref)
        submit(ref, succeeded(member, "again"))
        assert counted(client)[-1][:4] == ("parse", number, 3, "files")


def test_members_that_report_nothing_move_the_bar_by_being_done(client: redis.Redis) -> None:
    ref = group("ABCD", {"work": (1, 4)}, unit="files")
    for member in "ABCD":
        submit(ref, started(member))
    for number, member in enumerate("ABC", 1):
        due_now(client, ref)
        submit(ref, succeeded(member))
        assert counted(client)[-1] == ("work", number, 4, "files", 25 * number)


def test_members_that_report_in_no_stage_of_their_own_share_the_unnamed_one(
    client: redis.Redis,
) -> None:
    ref = group("AB", {"work": (1, 2)}, unit="files")
    submit(ref, started("A"), started("B"))
    submit(ref, Progress(task="A", nonce="n", reports=[Report("work", 5, 10, "pages")]))
    assert counted(client)[-1] == ("work", 0, 2, "files", 25)
    due_now(client, ref)
    submit(ref, succeeded("A"))
    assert counted(client)[-1] == ("work", 1, 2, "files", 50)


def test_a_chain_whose_steps_report_nothing_shows_each_step_that_is_done(
    client: redis.Redis,
) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="C")
    plan = {"fetch": (1.0, 1), "parse": (2.0, 1), "index": (1.0, 1)}
    runs.accept(ref, Accepted(task="A", finals=["C"], stages=plan))
    for task, stage in zip("ABC", plan, strict=True):
        due_now(client, ref)
        submit(ref, Sent(task=task), started(task, stages={stage: 1}), succeeded(task))
    assert [(shown[0], shown[4]) for shown in counted(client)] == [
        ("fetch", 25),
        ("parse", 75),
        ("index", 99),
    ]
    assert types(client)[-1] == "completed"


def test_a_task_has_done_its_planned_stages_when_it_succeeded_and_no_others(
    client: redis.Redis,
) -> None:
    ref = group("AB", {"parse": (1, 2), "index": (1, 1)})
    submit(ref, started("A", stages={"parse": 1, "odd": 1}), started("B", stages={"index": 1}))
    submit(ref, Progress(task="A", nonce="n", reports=[Report("parse", 1, 4)]))
    due_now(client, ref)
    submit(ref, succeeded("A"))
    assert counted(client)[-1][4] == 25, "half of the parsing, and no index"


def test_a_stage_that_nobody_planned_joins_the_bar(client: redis.Redis) -> None:
    ref = group("AB", {"work": (1, 2)})
    submit(ref, started("A"), started("B"))
    submit(ref, Progress(task="A", nonce="n", reports=[Report("own", 1, 2, "pages")]))
    assert counted(client)[-1] == ("own", 1, 2, "pages", 25)


def test_what_stands_in_anothers_place_shares_a_stage_that_it_planned(
    client: redis.Redis,
) -> None:
    ref = runs.new_run(USER, "source-1", "n", final="T")
    runs.accept(ref, Accepted(task="T", stages={"part": (4, 1), "join": (1, 1)}))
    stages = {"part": 4.0, "join": 1.0}
    submit(ref, started("T", "root", stages=stages))
    submit(ref, Progress(task="T", nonce="root", reports=[Report("part", parts=2, unit="parts")]))
    submit(ref, Sent(task="A"), Sent(task="B"), HandedOver(task="T", nonce="root"))
    for number, member in enumerate("AB", 1):
        submit(ref, started(member))
        due_now(client, ref)
        report = Report("part", 3, 3, complete=True)
        submit(ref, Progress(task=member, nonce="n", reports=[report]), succeeded(member))
        assert counted(client)[-1] == ("part", number, 2, "parts", 40 * number)
    submit(ref, Sent(task="T", nesting=1), started("T", "body", nesting=1, stages=stages))
    assert submit(ref, succeeded("T", "body")).ended


def test_a_members_attempt_that_is_replaced_takes_its_share_with_it(client: redis.Redis) -> None:
    ref = group("AB", {"work": (1, 2)})
    submit(ref, started("A"), started("B"))
    submit(ref, Progress(task="A", nonce="n", reports=[Report("work", 1, 1, complete=True)]))
    due_now(client, ref)
    submit(ref, started("A", "n2"))
    assert (last(client)["attempt"], last(client)["percent"]) == (2, 0)
    submit(ref, Progress(task="B", nonce="n", reports=[Report("work", 1, 1, complete=True)]))
    submit(ref, Flush())
    assert counted(client)[-1][1:] == (1, 2, None, 50)


def test_a_step_of_many_tasks_costs_as_much_as_one_of_few(client: redis.Redis) -> None:
    members = [f"member-{number}" for number in range(500)]
    plan = {"parse": (6.0, 500), "index": (4.0, 500)}
    few, many = group(["member-7"], plan, source="few"), group(members, plan, source="many")
    stages = {"parse": 6.0, "index": 4.0}
    report = Report("parse", 1, 3)
    for ref, started_here in ((few, members[7:8]), (many, members)):
        submit(ref, *(started(member, stages=stages) for member in started_here))
    for fact in (
        Progress(task="member-7", nonce="n", reports=[report]),
        Progress(task="member-7", nonce="n"),
        Sent(task="member-7", retries=1),
        retrying("member-7"),
        started("member-7", "again", retries=1, stages=stages),
        HandedOver(task="member-7", nonce="again"),
    ):
        cost = [_commands(client, ref, fact) for ref in (few, many)]
        assert abs(cost[0] - cost[1]) <= 8, f"{type(fact).__name__}: {cost}"


def _commands(client: redis.Redis, ref: RunRef, fact: Fact) -> int:
    """How many commands a step gives to Redis."""
    before = _calls(client)
    submit(ref, fact)
    return _calls(client) - before


def _calls(client: redis.Redis) -> int:
    stats: Any = client.info("commandstats")
    return sum(int(each["calls"]) for name, each in stats.items() if name != "cmdstat_info")
