"""Chains, groups, chords and replacements, each one run."""

from __future__ import annotations

from typing import Any

from celery import chain, chord, group

from tests.scenarios.bench import SOURCE, Bench
from tests.scenarios.cases import (
    EARLY,
    POOLED,
    Cases,
    Seen,
    ran_once,
)
from worker.pipeline import start_ingest

cases = Cases("As a canvas")
scenario = cases.add


def sums_once(seen: Seen) -> None:
    assert seen.marks == ["joined"]
    assert seen.payloads("completed")[0]["sum"] == 6


@scenario("A chain", "queued, started, completed")
def _(bench: Bench) -> None:
    steps = [bench.task("part").si(**bench.who, number=n) for n in range(3)]
    bench.send_canvas(chain(*steps))


@scenario("A chain whose second step fails", "queued, started, failed: unreadable")
def _(bench: Bench) -> None:
    first = bench.task("part").si(**bench.who, number=1)
    last = bench.task("succeed").si(**bench.who)
    bench.send_canvas(chain(first, bench.task("refuse").si(**bench.who), last))


@scenario("A group", "queued, started, completed", pools=POOLED)
def _(bench: Bench) -> None:
    members = [bench.task("wait_and_succeed").si(**bench.who) for _ in range(3)]
    bench.send_canvas(group(members))
    bench.signal()


@scenario("A chord", "queued, started, completed", then=sums_once)
def _(bench: Bench) -> None:
    members = [bench.task("part").s(**bench.who, number=n) for n in range(4)]
    bench.send_canvas(chord(members, bench.task("join").s(**bench.who)))


@scenario("A chord of which a member fails", "queued, started, failed: unreadable")
def _(bench: Bench) -> None:
    members = [bench.task("part").s(**bench.who, number=1), bench.task("refuse").si(**bench.who)]
    bench.send_canvas(chord(members, bench.task("join").s(**bench.who)))


@scenario("It replaces itself by another task", "queued, started, completed", then=ran_once)
def _(bench: Bench) -> None:
    bench.send("become_another")


@scenario("It replaces itself by a chord", "queued, started, completed", then=sums_once)
def _(bench: Bench) -> None:
    bench.send("become_a_chord")


@scenario("It sends another task off", "queued, started, completed", then=ran_once)
def _(bench: Bench) -> None:
    bench.send("send_another_off")
    bench.wait(lambda: bench.marks == ["ran"], "the other task")


@scenario(
    "Another run of the same source is started while it runs",
    "queued, started, progress, cancelled: superseded, queued, started, completed",
    pools=POOLED,
)
def _(bench: Bench) -> None:
    bench.send("take_time", seconds=1)
    bench.see("started", "progress")
    bench.send("succeed")
    bench.see("completed")


SHARES = "queued, started, (progress, )?completed"


def plain(bench: Bench, number: int) -> Any:
    """A signature of a task without the option."""
    return bench.app.tasks["scenario.plain"].si(number)


def start(bench: Bench, canvas: Any) -> None:
    """Starts a canvas as a run of the scenario's user."""
    start_ingest(canvas, user_id=bench.user, source_id=SOURCE, name="A canvas")


@scenario(
    "A chain of tasks without the option, by start_ingest",
    "queued, started, progress, completed",
    varies=SHARES,
    acks=EARLY,
)
def _(bench: Bench) -> None:
    start(bench, chain(plain(bench, 1), plain(bench, 2), plain(bench, 3)))


@scenario(
    "A group of tasks without the option, by start_ingest",
    "queued, started, progress, completed",
    varies=SHARES,
    acks=EARLY,
)
def _(bench: Bench) -> None:
    start(bench, group(plain(bench, n) for n in range(1, 5)))


@scenario(
    "A chord of chains, by start_ingest, of which one fails",
    "queued, started, progress, failed: internal_error",
    varies=SHARES.replace("completed", "failed: internal_error"),
    acks=EARLY,
)
def _(bench: Bench) -> None:
    members = [chain(plain(bench, n), plain(bench, n - 1)) for n in (3, 2, 1)]
    start(bench, chord(members, plain(bench, 1)))


@scenario(
    "A task without the option, whose message says what it is of",
    "queued, started, completed",
    acks=EARLY,
)
def _(bench: Bench) -> None:
    whose = {"user": bench.user, "source": SOURCE, "name": "A message"}
    plain(bench, 1).apply_async(queue=bench.queue, headers={"eventstream": whose})
