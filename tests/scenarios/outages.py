"""The broker, the result backend and the toolkit's own Redis away while a task runs."""

from __future__ import annotations

from celery import chain

from tests.scenarios.bench import Bench
from tests.scenarios.cases import EARLY, LATE, POOLED, PROCESSES, Cases, Seen
from tests.scenarios.lab import HANGING

cases = Cases("Without a server", "{pool}-away")
scenario = cases.add


def ran_once(seen: Seen) -> None:
    assert seen.marks.count("ran") == 1


@scenario(
    "The result backend goes away, and it succeeds",
    "queued, started, completed",
    pools=POOLED,
    then=ran_once,
    without="backend",
)
def _(bench: Bench) -> None:
    bench.send("wait_and_succeed")
    bench.see("started")
    with bench.outage():
        bench.signal()
        bench.see("completed")


@scenario(
    "The result backend goes away, and it raises",
    "queued, started, failed: internal_error",
    pools=POOLED,
    acks=EARLY,
    without="backend",
)
@scenario(
    "The result backend goes away, and it raises",
    "queued, started, stalled: interrupted, failed: internal_error",
    pools=POOLED,
    acks=LATE,
    without="backend",
)
def _(bench: Bench) -> None:
    bench.send("wait_and_fail")
    bench.see("started")
    with bench.outage():
        bench.signal()
        bench.wait(lambda: "over" in bench.marks, "its end")


@scenario(
    "The broker goes away, and it retries",
    "queued, started, failed: rejected",
    pools=PROCESSES,
    acks=EARLY,
    without="broker",
)
def _(bench: Bench) -> None:
    bench.send("retry_when_told")
    bench.see("started")
    with bench.outage():
        bench.signal()
        bench.wait(lambda: "over" in bench.marks, "its end")


@scenario(
    "The broker goes away, and the next step of its chain can't be sent",
    "queued, started, failed: not_sent",
    pools=PROCESSES,
    acks=EARLY,
    without="broker",
)
def _(bench: Bench) -> None:
    first = bench.task("wait_and_succeed").si(**bench.who)
    bench.send_canvas(chain(first, bench.task("part").si(**bench.who, number=1)))
    bench.see("started")
    with bench.outage():
        bench.signal()
        bench.see("failed: not_sent")


@scenario(
    "The toolkit's Redis goes away, and it succeeds",
    "queued, started, progress, completed",
    pools=POOLED,
    without="facts",
)
@scenario(
    "The toolkit's Redis hangs, and it succeeds",
    "queued, started, progress, completed",
    pools=POOLED,
    without=HANGING + "facts",
)
def _(bench: Bench) -> None:
    result = bench.send("work")
    bench.see("started", "progress")
    with bench.outage():
        assert result.get(timeout=10) is None


@scenario(
    "The broker drops all connections",
    "queued, started, progress, started 2, progress, completed",
    pools=PROCESSES,
    acks=LATE,
    without="connections",
)
def _(bench: Bench) -> None:
    bench.send("take_time", seconds=4)
    bench.see("started", "progress")
    bench.drop_connections()
