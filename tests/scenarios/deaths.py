"""Workers that are killed, shut down or end by themselves, and another that takes over."""

from __future__ import annotations

import signal
from typing import Any

from tests.scenarios.bench import Bench
from tests.scenarios.cases import (
    EARLY,
    LATE,
    POOLED,
    PROCESSES,
    SOLO,
    THREADS,
    Cases,
    Victim,
)

cases = Cases("With its worker")
scenario = cases.add


def keep_busy(bench: Bench, name: str, **arguments: Any) -> None:
    """Has somebody else's task run on a worker that does one thing at a time."""
    other = f"{bench.user}-before"
    kwargs = {"user_id": other, "source_id": "source-1", **arguments}
    bench.app.tasks[f"scenario.{name}"].apply_async(kwargs=kwargs, queue=bench.queue)
    bench.wait(lambda: "began" in bench.marks_of(other), "the task before")


killed = Victim("killed", signal.SIGKILL)
killed_when_busy = Victim("killed-when-busy", signal.SIGKILL, concurrency=1)


@scenario("Its worker is killed", "queued, started, failed: worker_lost", acks=EARLY, victim=killed)
def _(bench: Bench) -> None:
    bench.send("take_forever_once")
    bench.see("started")
    bench.strike()


@scenario(
    "Its worker is killed, and another is there",
    "queued, started, stalled: worker_lost, started 2, completed",
    acks=LATE,
    victim=killed,
)
def _(bench: Bench) -> None:
    bench.send("take_forever_once")
    bench.see("started")
    bench.strike()


@scenario(
    "Its worker is killed before its turn comes",
    "queued, started, completed",
    acks=EARLY,
    pools=POOLED,  # solo fetches nothing while it is at work
    victim=killed_when_busy,
)
def _(bench: Bench) -> None:
    keep_busy(bench, "take_forever_once")
    bench.send("succeed")
    bench.wait(bench.is_fetched, "its message to be fetched")
    bench.strike()


stopped = Victim("stopped", signal.SIGTERM)
stopped_when_busy = Victim("stopped-when-busy", signal.SIGTERM, concurrency=1)


@scenario("Its worker is stopped (SIGTERM)", "queued, started, progress, completed", victim=stopped)
def _(bench: Bench) -> None:
    bench.send("take_time", seconds=2)
    bench.see("started", "progress")
    bench.strike()


@scenario(
    "Its worker is stopped (SIGTERM) before its turn comes",
    "queued, started, completed",
    acks=LATE,
    pools=PROCESSES,
    victim=stopped_when_busy,
)
def _(bench: Bench) -> None:
    keep_busy(bench, "take_time", seconds=2)
    bench.send("succeed")
    bench.wait(bench.is_fetched, "its message to be fetched")
    bench.strike()


quit_at_once = Victim("quit", signal.SIGQUIT)
QUIT = "Its worker is stopped at once (SIGQUIT)"


@scenario(
    QUIT, "queued, started, failed: worker_lost", acks=EARLY, pools=PROCESSES, victim=quit_at_once
)
def _(bench: Bench) -> None:
    bench.send("take_forever_once")
    bench.see("started")
    bench.strike()


@scenario(
    QUIT,
    "queued, started, stalled: interrupted, started 2, completed",
    acks=LATE,
    pools=PROCESSES,
    varies="queued, started, (stalled: interrupted, )?started 2, completed",
    victim=quit_at_once,
)
def _(bench: Bench) -> None:
    bench.send("take_forever_once")
    bench.see("started")
    bench.strike()


@scenario(QUIT, "queued, started, progress, completed", pools=THREADS, victim=quit_at_once)
def _(bench: Bench) -> None:
    bench.send("take_time", seconds=2)
    bench.see("started", "progress")
    bench.strike()


@scenario(
    QUIT, "queued, started, progress, failed: internal_error", pools=SOLO, victim=quit_at_once
)
def _(bench: Bench) -> None:
    bench.send("take_time", seconds=20)
    bench.see("started", "progress")
    bench.strike()


soft = Victim("soft", signal.SIGQUIT, concurrency=4, soft_shutdown_seconds=3)


@scenario(
    "Its worker is stopped softly, and leaves it enough time",
    "queued, started, progress, completed",
    pools=PROCESSES,
    victim=soft,
)
def _(bench: Bench) -> None:
    bench.send("take_time", seconds=1.5)
    bench.see("started", "progress")
    bench.strike()


@scenario(
    "Its worker is stopped softly, and leaves it too little time",
    "queued, started, failed: worker_lost",
    acks=EARLY,
    pools=PROCESSES,
    victim=soft,
)
def _(bench: Bench) -> None:
    bench.send("take_forever_once")
    bench.see("started")
    bench.strike()


@scenario(
    "Its worker is stopped softly, and leaves it too little time",
    "queued, started, stalled: interrupted, started 2, completed",
    acks=LATE,
    pools=PROCESSES,
    victim=soft,
)
def _(bench: Bench) -> None:
    bench.send("take_forever_once")
    bench.see("started")
    bench.strike()


# One each: of two at a time, Celery may wait half a minute for the second before it ends.
out_of_memory = Victim("out-of-memory")
out_of_memory_late = Victim("out-of-memory-late")
MEMORY = "It raises MemoryError, which ends its worker"


@scenario(
    MEMORY,
    "queued, started, failed: out_of_memory",
    acks=EARLY,
    pools=PROCESSES,
    victim=out_of_memory,
)
def _(bench: Bench) -> None:
    await_the_end(bench, "wait_and_run_out_of_memory")


@scenario(
    MEMORY,
    "queued, started, stalled: interrupted, started 2, completed",
    acks=LATE,
    pools=PROCESSES,
    victim=out_of_memory_late,
)
def _(bench: Bench) -> None:
    await_the_end(bench, "wait_and_run_out_of_memory")


def await_the_end(bench: Bench, name: str) -> None:
    """Has a task run that ends its worker at the strike."""
    bench.send(name)
    bench.see("started")
    bench.strike()


left = Victim("left")


@scenario(
    "It calls sys.exit, which ends its worker",
    "queued, started, failed: worker_lost",
    acks=EARLY,
    pools=SOLO,
    victim=left,
)
def _(bench: Bench) -> None:
    await_the_end(bench, "wait_and_leave")


@scenario(
    "It calls sys.exit, which ends its worker",
    "queued, started, stalled: interrupted, started 2, completed",
    acks=LATE,
    pools=SOLO,
    victim=left,
)
def _(bench: Bench) -> None:
    await_the_end(bench, "wait_and_leave")
